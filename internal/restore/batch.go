package restore

import (
	"capture/internal/statefile"
)

// batchBytes is the size in bytes at which a batch is full. A batch is sent as one COPY. It stays in memory until the server
// has accepted it, because sendBatch searches a refused batch for the refused row.
const batchBytes = 2 << 20

// batch is a sequence of rows in COPY's text format, with the line and the key of each row for error messages.
type batch struct {
	columns  *columnMap
	staged   bool // whether the rows are for the staging table: see appendCopyRow
	numbered bool // whether each row starts with its number and its line in the file: see appendCopyRow

	data     []byte
	ends     []int                  // end of each row, as an offset in data
	lines    []int64                // line number of each row in the file
	keys     []byte                 // JSON values of the key columns, row by row
	keyEnds  []int                  // end of each value in keys, as an offset; a row has as many values as the key has columns
	checked  map[int][]checkedValue // values to check, by the column's index in the file
	fileRead int64                  // number of bytes of the file that had been read when the batch was full
}

func (b *batch) reset() {
	if cap(b.data) > 8*batchBytes {
		b.data = nil
	}
	clear(b.checked)
	b.data, b.ends, b.lines, b.keys, b.keyEnds = b.data[:0], b.ends[:0], b.lines[:0], b.keys[:0], b.keyEnds[:0]
}

// rowCount returns the number of rows.
func (b *batch) rowCount() int { return len(b.ends) }

// addRow appends the row with the given number in the file. The numbers start at 1.
func (b *batch) addRow(row statefile.Row, number int) (err error) {
	if b.data, err = b.columns.appendCopyRow(b.data, row, number, b.staged, b.numbered); err != nil {
		return err
	}
	for i := range b.columns.targets {
		if value := row.Members[i].Value; b.columns.targets[i].isChecked(value) {
			if err := b.addChecked(i, value); err != nil {
				return err
			}
		}
	}
	b.ends = append(b.ends, len(b.data))
	b.lines = append(b.lines, row.Line)
	for _, k := range b.columns.key {
		b.keys = append(b.keys, row.Members[k].Value...)
		b.keyEnds = append(b.keyEnds, len(b.keys))
	}
	return nil
}

// addChecked adds a value to the values to check. The value belongs to column i of the row that addRow is adding.
func (b *batch) addChecked(i int, value []byte) error {
	text, ok, err := b.columns.appendText(nil, i, value)
	if err != nil || !ok {
		return err
	}
	if b.checked == nil {
		b.checked = map[int][]checkedValue{}
	}
	b.checked[i] = append(b.checked[i], checkedValue{len(b.ends), string(text), string(value)})
	return nil
}

// rowData returns the data of rows lo to hi-1.
func (b *batch) rowData(lo, hi int) []byte {
	start := 0
	if lo > 0 {
		start = b.ends[lo-1]
	}
	return b.data[start:b.ends[hi-1]]
}

// rowKey returns the JSON values of the key columns of row i.
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

// rowPlace returns the line and the key of row i for an error message.
func (b *batch) rowPlace(i int) string {
	return b.columns.describePlace(b.lines[i], b.rowKey(i))
}
