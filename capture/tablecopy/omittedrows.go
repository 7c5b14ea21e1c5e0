package tablecopy

import (
	"bytes"
	"encoding/binary"
)

// skippedRow is a row of a COPY that is too large for memory. It records the sizes of the row's values as they arrive. It keeps
// small values, because the values of the key's columns are among them.
type skippedRow struct {
	values    [][]byte // kept value of each column; nil if the value is not kept
	sizes     []int64  // size in bytes of each value that has arrived
	column    int      // index of the next column
	prefix    int      // number of bytes to ignore before the length of each value: typeOIDBytes in a composite value, otherwise 0
	remaining int      // number of bytes of the next column's value that must still be dropped
	kept      int      // total size of the kept values, in bytes
}

const (
	keptValueBytes = 256 << 10 // largest size of a value that is kept
	keptRowBytes   = 1 << 20   // largest total size of the kept values of a row
)

// newSkippedRow returns a skippedRow with this number of columns. decoded holds the values of the first columns, which have
// been decoded already. prefix is the number of bytes to ignore before the length of each value.
func newSkippedRow(decoded [][]byte, columns, prefix int) *skippedRow {
	r := &skippedRow{values: make([][]byte, columns), sizes: make([]int64, columns), prefix: prefix}
	for _, v := range decoded {
		if r.keeps(len(v)) {
			r.values[r.column] = bytes.Clone(v)
		}
		r.sizes[r.column] = int64(len(v))
		r.column++
	}
	return r
}

// keeps reports whether a value of n bytes is kept. If so, it adds the size to r.kept.
func (r *skippedRow) keeps(n int) bool {
	if n > keptValueBytes || r.kept+n > keptRowBytes {
		return false
	}
	r.kept += n
	return true
}

// skipNext reads the skipped row's next value, or a part of it, from the start of b. It returns the number of bytes that it
// has read, or 0 if too few bytes have arrived. After the last value, it adds the row to the batch as omitted.
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

// readValue reads the length of the value at the start of b, and the value itself if it is kept. It returns the number of bytes
// that it has read.
func (r *skippedRow) readValue(b []byte) (int, error) {
	n := r.prefix + 4
	if len(b) < n {
		return 0, nil
	}
	length := int(int32(binary.BigEndian.Uint32(b[r.prefix:])))
	switch {
	case length < -1:
		return 0, errFieldLength(length)
	case length == -1:
		return n, nil // NULL
	case length <= keptValueBytes && len(b)-n < length:
		return 0, nil
	}
	r.sizes[r.column] = int64(length)
	if !r.keeps(length) {
		r.remaining = length
		return n, nil
	}
	r.values[r.column] = bytes.Clone(b[n : n+length])
	return n + length, nil
}
