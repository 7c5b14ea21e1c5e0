package tablecopy

import (
	"bytes"
	"cmp"

	"capture/capture/source"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

const (
	batchBytes   = 256 << 10 // size in bytes of the keys and lines in a full batch
	batchesAhead = 32        // number of batches that a connection may fill before the Table takes them: enough for about two ranges
)

// rowBatch holds encoded rows on their way from a connection to the Table.
type rowBatch struct {
	data     []byte         // key and line of each row, concatenated
	rows     []rowLengths   // lengths of each row's key and line in data
	omitted  []omittedRow   // rows that do not fit into memory
	rawBytes int64          // number of bytes of COPY output that were read to fill the batch
	freeList chan *rowBatch // receives the batch once it is empty
}

// rowLengths are the lengths of a row's key and line in bytes. The line's length is keptLine if the row has not changed.
type rowLengths struct{ key, line int }

const keptLine = -1

type omittedRow struct {
	key   rowjson.Key
	sizes []int64 // see [snapshot.Table.Omit]
}

// add encodes a row into the batch. If it returns an error, the batch is unchanged. If a row is too large, add appends it to
// b.omitted instead.
func (b *rowBatch) add(encoder *rowjson.Encoder, values [][]byte) error {
	start := len(b.data)
	data, err := encoder.AppendKey(b.data, values)
	if err != nil {
		return err
	}
	line := len(data)
	data, err = encoder.AppendCopiedRow(data, values)
	if sizes, tooLarge := rowjson.IsTooLarge(err); tooLarge {
		b.omitted = append(b.omitted, omittedRow{bytes.Clone(data[start:]), sizes})
		return nil
	}
	if err != nil {
		return err
	}
	b.data = data
	b.rows = append(b.rows, rowLengths{line - start, len(data) - line})
	return nil
}

// keep adds the key of an unchanged row to the batch, in encoded form.
func (b *rowBatch) keep(encoder *rowjson.Encoder, values [][]byte) error {
	data, err := encoder.AppendKey(b.data, values)
	if err != nil {
		return err
	}
	b.rows = append(b.rows, rowLengths{len(data) - len(b.data), keptLine})
	b.data = data
	return nil
}

// omit appends a row to b.omitted, because the row is too large for memory. values must include the values of the key's
// columns.
func (b *rowBatch) omit(encoder *rowjson.Encoder, values [][]byte, sizes []int64) error {
	key, err := encoder.AppendKey(nil, values)
	if err == nil {
		b.omitted = append(b.omitted, omittedRow{key, sizes})
	}
	return err
}

// errUnknownKey means that a row has not changed since the horizon, but the Table does not have it.
var errUnknownKey error = &source.ResyncError{Reason: "an unchanged row is not known"}

// insertInto puts the rows into t, and returns the number of changed rows. It returns errUnknownKey if t lacks a row that,
// according to the server, has not changed.
func (b *rowBatch) insertInto(t *snapshot.Table) (changed int, err error) {
	rest := b.data
	for _, r := range b.rows {
		if r.line == keptLine {
			if !t.Keep(rest[:r.key]) {
				return 0, cmp.Or(t.Err(), errUnknownKey)
			}
			rest = rest[r.key:]
			continue
		}
		changed++
		t.Put(rest[:r.key], rest[r.key:r.key+r.line])
		rest = rest[r.key+r.line:]
	}
	for _, o := range b.omitted {
		t.Omit(o.key, o.sizes)
	}
	return changed + len(b.omitted), nil
}

// returnToFree empties the batch and returns it to its connection.
func (b *rowBatch) returnToFree() {
	if cap(b.data) > 4*batchBytes {
		b.data = nil // the memory of a single large row must not be kept until the copy ends
	}
	b.data, b.rows, b.omitted, b.rawBytes = b.data[:0], b.rows[:0], nil, 0
	b.freeList <- b
}
