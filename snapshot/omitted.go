package snapshot

import (
	"maps"
	"slices"

	"capture/snapshot/rowjson"
)

// MaxRowBytes is the most bytes of a row, key and line together, that a Table can hold.
const MaxRowBytes = maxRowBytes

// Omitted is a row of the database's table that does not fit into memory. A View knows its key and size only.
type Omitted struct {
	Key   rowjson.Key
	Bytes int64 // length of the row's line, about; at least that of what was seen of the row
}

// omittedRows has the sizes of the columns of each omitted row, by the row's key. A committed map never changes: the first
// change of a transaction copies it. Omitted rows are few, since each is large.
type omittedRows map[string][]int64

func (o omittedRows) at(key string) Omitted {
	row := Omitted{Key: rowjson.Key(key)}
	for _, n := range o[key] {
		row.Bytes += n
	}
	return row
}

// Omit records in the open transaction that the row of key exists and does not fit into memory. A line that the Table has of it
// is deleted. sizes says about how many bytes each column takes in the line, and is not copied. The next Put, Delete or Truncate that reaches
// the row ends the record.
func (t *Table) Omit(key rowjson.Key, sizes []int64) {
	t.Delete(key)
	t.ownOmitted()[string(key)] = sizes
}

// OmittedSizes returns the sizes that Omit has recorded for the row of key, as the open transaction sees it. It reports false
// if the row is not omitted.
func (t *Table) OmittedSizes(key rowjson.Key) (sizes []int64, omitted bool) {
	rows := t.txOmitted
	if rows == nil {
		rows = t.omitted
	}
	sizes, omitted = rows[string(key)]
	return sizes, omitted
}

// ownOmitted returns the omitted rows of the open transaction, for a change.
func (t *Table) ownOmitted() omittedRows {
	if t.txOmitted == nil {
		if t.txOmitted = maps.Clone(t.omitted); t.txOmitted == nil {
			t.txOmitted = omittedRows{}
		}
	}
	return t.txOmitted
}

// forgetOmitted ends the record of an omitted row that is put or deleted.
func (t *Table) forgetOmitted(key rowjson.Key) {
	if len(t.omitted)+len(t.txOmitted) == 0 {
		return
	}
	if _, omitted := t.OmittedSizes(key); omitted {
		delete(t.ownOmitted(), string(key))
	}
}

// OmittedRows returns the number of rows that the database's table has and the View does not, since they do not fit into memory.
func (v *View) OmittedRows() int { return len(v.omitted) }

// IsOmitted reports whether the row of key is one of them.
func (v *View) IsOmitted(key rowjson.Key) bool {
	_, omitted := v.omitted[string(key)]
	return omitted
}

// Omitted returns the first omitted rows in the order of their keys, n at most.
func (v *View) Omitted(n int) []Omitted {
	var first []string // sorted
	for key := range v.omitted {
		if len(first) == n && (n == 0 || key >= first[n-1]) {
			continue
		}
		i, _ := slices.BinarySearch(first, key)
		first = slices.Insert(first, i, key)
		first = first[:min(n, len(first))]
	}
	rows := make([]Omitted, len(first))
	for i, key := range first {
		rows[i] = v.omitted.at(key)
	}
	return rows
}
