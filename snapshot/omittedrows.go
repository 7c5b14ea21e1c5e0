package snapshot

import (
	"maps"
	"slices"

	"capture/snapshot/rowjson"
)

// Omitted is a row of the Postgres table that does not fit into memory. A View has only its key and size.
type Omitted struct {
	Key   rowjson.Key
	Bytes int64 // approximate length of the row's line; at least the length of the part that was read
}

// omittedRows maps the key of each omitted row to the sizes of its columns in bytes. A committed map never changes: a
// transaction copies it before its first change. The map is small, since every omitted row is large.
type omittedRows map[string][]int64

func (o omittedRows) at(key string) Omitted {
	row := Omitted{Key: rowjson.Key(key)}
	for _, n := range o[key] {
		row.Bytes += n
	}
	return row
}

// OmittedRows returns the number of rows that the Postgres table has but the View lacks, because they do not fit into memory.
func (v *View) OmittedRows() int { return len(v.omitted) }

// IsOmitted reports whether the row with the given key is omitted.
func (v *View) IsOmitted(key rowjson.Key) bool {
	_, omitted := v.omitted[string(key)]
	return omitted
}

// Omitted returns at most n omitted rows: those with the lowest keys, in key order.
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

// Omit records in the open transaction that the row with the given key exists but does not fit into memory. It deletes the
// row's line from the Table. sizes is the approximate number of bytes of each column in the line; Omit does not copy it. The
// next Put, Delete or Truncate that affects the row removes the record.
func (t *Table) Omit(key rowjson.Key, sizes []int64) {
	t.Delete(key)
	t.ownOmitted()[string(key)] = sizes
}

// OmittedSizes returns the sizes that Omit has recorded for the row with the given key, as the open transaction sees it. It
// returns false if the row is not omitted.
func (t *Table) OmittedSizes(key rowjson.Key) (sizes []int64, omitted bool) {
	rows := t.txOmitted
	if rows == nil {
		rows = t.omitted
	}
	sizes, omitted = rows[string(key)]
	return sizes, omitted
}

// OmittedRows returns the number of omitted rows, as the open transaction sees them.
func (t *Table) OmittedRows() int {
	if t.txOmitted != nil {
		return len(t.txOmitted)
	}
	return len(t.omitted)
}

// ownOmitted returns the omitted rows of the open transaction, in a map that may be changed.
func (t *Table) ownOmitted() omittedRows {
	if t.txOmitted == nil {
		if t.txOmitted = maps.Clone(t.omitted); t.txOmitted == nil {
			t.txOmitted = omittedRows{}
		}
	}
	return t.txOmitted
}

// forgetOmitted removes the record of an omitted row, because the row is put or deleted.
func (t *Table) forgetOmitted(key rowjson.Key) {
	if len(t.omitted)+len(t.txOmitted) == 0 {
		return
	}
	if _, omitted := t.OmittedSizes(key); omitted {
		delete(t.ownOmitted(), string(key))
	}
}
