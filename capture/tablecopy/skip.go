package tablecopy

import (
	"bytes"
	"encoding/binary"
)

// skippedRow is a row of a COPY that is too large for memory. Its values are counted as they arrive; the small ones are kept,
// for the row's key.
type skippedRow struct {
	values    [][]byte
	sizes     []int64
	column    int // column that comes next
	remaining int // bytes of the value of this column that are still to be dropped
	kept      int // bytes of all kept values
}

const (
	keptValueBytes = 256 << 10 // largest value that is kept
	keptRowBytes   = 1 << 20   // size of all values of a row that are kept
)

// newSkippedRow returns a row of so many columns, the first of which have the given values.
func newSkippedRow(first [][]byte, columns int) *skippedRow {
	r := &skippedRow{values: make([][]byte, columns), sizes: make([]int64, columns)}
	for _, v := range first {
		if r.keeps(len(v)) {
			r.values[r.column] = bytes.Clone(v)
		}
		r.sizes[r.column] = int64(len(v))
		r.column++
	}
	return r
}

// keeps reports whether a value of n bytes is kept.
func (r *skippedRow) keeps(n int) bool {
	if n > keptValueBytes || r.kept+n > keptRowBytes {
		return false
	}
	r.kept += n
	return true
}

// skipNext takes from b the next value of the row that is skipped, or a part of it. It returns how many bytes that was, or 0 if too
// few have arrived. The last value completes the row.
func (d *copyDecoder) skipNext(b []byte) (int, error) {
	r := d.skipped
	n := 0
	if r.remaining > 0 {
		n = min(r.remaining, len(b))
		if r.remaining -= n; r.remaining > 0 {
			return n, nil
		}
		r.column++
	} else {
		var err error
		if n, err = r.readValue(b); n == 0 || err != nil || r.remaining > 0 {
			return n, err
		}
		r.column++
	}
	if r.column == len(r.values) {
		d.skipped = nil
		return n, d.batch.omit(d.encoder, r.values, r.sizes)
	}
	return n, nil
}

// readValue reads the value at the start of b if it is one that is kept, or else only its length. It returns how many bytes it
// has read.
func (r *skippedRow) readValue(b []byte) (int, error) {
	if len(b) < 4 {
		return 0, nil
	}
	length := int(int32(binary.BigEndian.Uint32(b)))
	switch {
	case length < -1:
		return 0, errFieldLength(length)
	case length == -1:
		return 4, nil // NULL
	case length <= keptValueBytes && len(b)-4 < length:
		return 0, nil
	}
	r.sizes[r.column] = int64(length)
	if !r.keeps(length) {
		r.remaining = length
		return 4, nil
	}
	r.values[r.column] = bytes.Clone(b[4 : 4+length])
	return 4 + length, nil
}
