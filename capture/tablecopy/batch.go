package tablecopy

import (
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

const (
	batchBytes   = 256 << 10 // size of the keys and lines in a batch
	batchesAhead = 32        // batches per connection, enough for about two ranges
)

// rowBatch holds encoded rows on their way from a connection to the Table.
type rowBatch struct {
	data     []byte // key and line of each row, one after the other
	rows     []rowLengths
	rawBytes int64          // size of what the rows were made of
	freeList chan *rowBatch // receives the batch once it is empty
}

type rowLengths struct{ key, line int }

// add encodes a row into the batch. After an error the batch is as it was.
func (b *rowBatch) add(encoder *rowjson.Encoder, values [][]byte) error {
	start := len(b.data)
	data, err := encoder.AppendKey(b.data, values)
	if err != nil {
		return err
	}
	line := len(data)
	if data, err = encoder.AppendCopiedRow(data, values); err != nil {
		return err
	}
	b.data = data
	b.rows = append(b.rows, rowLengths{line - start, len(data) - line})
	return nil
}

// insertInto puts the rows into t.
func (b *rowBatch) insertInto(t *snapshot.Table) {
	rest := b.data
	for _, r := range b.rows {
		t.Put(rest[:r.key], rest[r.key:r.key+r.line])
		rest = rest[r.key+r.line:]
	}
}

// returnToFree empties the batch and returns it to its connection.
func (b *rowBatch) returnToFree() {
	if cap(b.data) > 4*batchBytes {
		b.data = nil // a single large row must not keep its memory until the copy ends
	}
	b.data, b.rows, b.rawBytes = b.data[:0], b.rows[:0], 0
	b.freeList <- b
}
