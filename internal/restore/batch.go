package restore

import (
	"fmt"

	"capture/internal/statefile"
)

// batchBytes is how much one COPY sends. A batch stays in memory until the server has taken it, so that a row that the server
// refuses can be found and named.
const batchBytes = 2 << 20

// batch is a sequence of rows in COPY's text format, with what is needed to name each of them.
type batch struct {
	columns *columnMap
	staged  bool // whether the rows have what a staged row has: see appendCopyRow

	data     []byte
	ends     []int   // ends of the rows in data
	lines    []int64 // lines of the rows in the file
	keys     []byte  // JSON values of the keys' columns
	keyEnds  []int   // ends of these values in keys, as many for each row as the key has columns
	fileRead int64   // bytes of the file that had been read when the batch was full
}

func (b *batch) reset() {
	if cap(b.data) > 8*batchBytes {
		b.data = nil
	}
	b.data, b.ends, b.lines, b.keys, b.keyEnds = b.data[:0], b.ends[:0], b.lines[:0], b.keys[:0], b.keyEnds[:0]
}

// rowCount returns the number of rows.
func (b *batch) rowCount() int { return len(b.ends) }

// addRow appends a row, which is the file's row of this number.
func (b *batch) addRow(row statefile.Row, number int) (err error) {
	if b.data, err = b.columns.appendCopyRow(b.data, row, number, b.staged); err != nil {
		return err
	}
	b.ends = append(b.ends, len(b.data))
	b.lines = append(b.lines, row.Line)
	for _, k := range b.columns.key {
		b.keys = append(b.keys, row.Members[k].Value...)
		b.keyEnds = append(b.keyEnds, len(b.keys))
	}
	return nil
}

// rowData returns the data of the rows from lo up to, but not including, hi.
func (b *batch) rowData(lo, hi int) []byte {
	start := 0
	if lo > 0 {
		start = b.ends[lo-1]
	}
	return b.data[start:b.ends[hi-1]]
}

// rowKey returns the JSON values of the key of row i.
func (b *batch) rowKey(i int) [][]byte {
	key := make([][]byte, len(b.columns.key))
	for j := range key {
		at, start := i*len(key)+j, 0
		if at > 0 {
			start = b.keyEnds[at-1]
		}
		key[j] = b.keys[start:b.keyEnds[at]]
	}
	return key
}

// rowPlace names row i for an error, by its line and its key.
func (b *batch) rowPlace(i int) string {
	return fmt.Sprintf("line %d (%s)", b.lines[i], b.columns.describeKey(b.rowKey(i)))
}
