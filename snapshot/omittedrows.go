package snapshot

import (
	"slices"

	"capture/snapshot/rowjson"
)

// Omitted is a row of the Postgres table that does not fit into memory. A View has only its key and size.
type Omitted struct {
	Key   rowjson.Key
	Bytes int64 // approximate length of the line that the row would have; too low if the sizes of some columns are not known
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

// Omitted returns the n omitted rows with the lowest keys, in key order. If fewer than n rows are omitted, it returns all of
// them.
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
