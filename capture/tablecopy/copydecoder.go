package tablecopy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"capture/snapshot/rowjson"
)

// copyDecoder is an io.Writer that receives the output of COPY in binary format, in pieces of any size, and encodes its
// rows into batches. One copyDecoder serves one connection, for one COPY after another.
//
// The PostgreSQL documentation describes the format (COPY, "Binary Format"): a header, then for each row the number of its
// fields and each field's length and bytes, then a row with -1 fields as the trailer.
//
// If key is set, the decoder reads the output of [postgres.Table.ChangesQuery]. A row then has one field for each column of its
// key, and one last field. The last field is a composite value with all columns, or NULL if the row has not changed. The binary
// form of a composite value is the number of its columns, and then for each column the type's OID, the length and the bytes of
// the value (record_send in Postgres' utils/adt/rowtypes.c).
type copyDecoder struct {
	ctx     context.Context
	encoder *rowjson.Encoder
	limiter *rateLimiter
	values  [][]byte         // values of the current row, which alias the input
	key     []int            // indexes of the key's columns if the rows come from ChangesQuery; otherwise nil
	free    chan *rowBatch   // empty batches
	full    chan<- *rowBatch // receives the filled batches of the current range; the channel has room for all batches
	batch   *rowBatch        // batch that is being filled, or nil
	partial []byte           // start of a row whose end has not arrived yet
	need    int              // minimum length of the complete row in bytes, according to the field lengths that have arrived
	skipped *skippedRow      // current row if it is too large, otherwise nil

	maxRow     int             // size limit of a row, in bytes
	takesTurns bool            // whether memory is limited, so that a large row waits until all rows before it are inserted
	turn       <-chan struct{} // closed when it is the turn of the current range; see copyRange

	header, trailer bool // whether the header and the trailer of the current COPY have been read
}

var copySignature = []byte("PGCOPY\n\xff\r\n\x00")

// startCopy starts the COPY of a range.
func (d *copyDecoder) startCopy(r *copyRange) {
	d.full, d.turn, d.header, d.trailer = r.batches, r.turn, false, false
}

// Write implements io.Writer. It waits for an empty batch and for the rate limit. Before a large row, it also waits for the
// turn of its range.
func (d *copyDecoder) Write(p []byte) (int, error) {
	if err := d.takeBatch(); err != nil {
		return 0, err
	}
	d.batch.rawBytes += int64(len(p))
	input := p
	if len(d.partial) > 0 {
		d.partial = append(d.partial, p...)
		input = d.partial
	}
	decoded := 0
	for {
		n, err := d.decodeNext(input[decoded:])
		if err != nil {
			return 0, &decodeError{err}
		}
		if n == 0 {
			break
		}
		decoded += n
	}
	if len(d.batch.data) >= batchBytes {
		d.flush()
	}
	if err := d.keepPartial(input, decoded); err != nil {
		return 0, err
	}
	return len(p), d.limiter.wait(d.ctx, len(p))
}

// takeBatch makes sure that there is a batch to fill.
func (d *copyDecoder) takeBatch() error {
	if d.batch != nil {
		return nil
	}
	select {
	case d.batch = <-d.free:
		return nil
	case <-d.ctx.Done():
		return context.Cause(d.ctx)
	}
}

// keepPartial stores in d.partial the part of the input that has not been decoded. For a large row, it allocates memory for
// the whole row. If the row is larger than both firstPartialBytes and twice the part that has arrived, it first allocates only
// the larger of these two sizes. It allocates more memory when the row needs it. After a large row, it releases this memory.
func (d *copyDecoder) keepPartial(input []byte, decoded int) error {
	rest := input[decoded:]
	if d.need <= cap(d.partial) && (cap(d.partial) <= 4*batchBytes || len(rest) > batchBytes || d.need > batchBytes) {
		if decoded > 0 || len(d.partial) == 0 {
			d.partial = append(d.partial[:0], rest...)
		}
		return nil
	}
	if d.need > batchBytes && cap(d.partial) <= batchBytes {
		if err := d.awaitTurn(); err != nil {
			return err
		}
	}
	room := min(d.need, max(2*len(rest), firstPartialBytes)) // a field's length alone must not make capture allocate gigabytes
	d.partial = append(make([]byte, 0, max(room+copyPieceRoom, len(rest))), rest...)
	return nil
}

const (
	copyPieceRoom     = 64 << 10 // bytes of free space after a partial row, for the piece of input that completes the row
	firstPartialBytes = 64 << 20 // initial limit of the memory for a partial row, in bytes; once half of it is full, the limit grows with the row: see keepPartial
)

// awaitTurn is called before a connection reads a large row. If memory is limited, it waits for the connection's turn, so
// that only one connection at a time holds a large row. It then waits until all batches of the connection are free. All
// earlier rows of the connection are then in the Table, and none of them waits in memory next to the large row.
func (d *copyDecoder) awaitTurn() error {
	if !d.takesTurns {
		return nil
	}
	d.flush()
	select {
	case <-d.turn:
	case <-d.ctx.Done():
		return context.Cause(d.ctx)
	}
	var all []*rowBatch
	for range batchesAhead {
		if err := d.takeBatch(); err != nil {
			return err
		}
		all, d.batch = append(all, d.batch), nil
	}
	for _, b := range all {
		d.free <- b
	}
	return nil
}

// flush sends the current batch to insertLoop, if there is one.
func (d *copyDecoder) flush() {
	if d.batch != nil {
		d.full <- d.batch
		d.batch = nil
	}
}

// decodeNext decodes the header, row or trailer at the start of b. It returns the length of the decoded part, or 0 if the end
// of the header, row or trailer has not arrived yet. If a row is too large, each call decodes only a part of the row.
func (d *copyDecoder) decodeNext(b []byte) (int, error) {
	d.need = 0
	switch {
	case d.skipped != nil:
		return d.skipNext(b)
	case !d.header:
		n, err := headerLength(b)
		d.header = n > 0
		return n, err
	case d.trailer && len(b) > 0:
		return 0, errors.New("the copy has data after its trailer")
	case len(b) < 2:
		return 0, nil
	}
	fields := int(int16(binary.BigEndian.Uint16(b)))
	if fields == -1 {
		d.trailer = true
		return 2, nil
	}
	if d.key != nil {
		return d.decodeChange(b, fields)
	}
	if fields != len(d.values) {
		return 0, errFieldCount(fields, len(d.values))
	}
	return d.decodeRow(b, 2, 0)
}

// decodeChange decodes a row of ChangesQuery.
func (d *copyDecoder) decodeChange(b []byte, fields int) (int, error) {
	if fields != len(d.key)+1 {
		return 0, errFieldCount(fields, len(d.key)+1)
	}
	n := 2
	for _, column := range d.key {
		var ok bool
		var err error
		if d.values[column], n, ok, err = d.decodeField(b, n); !ok || err != nil {
			return 0, err
		}
	}
	if len(b)-n < 4 {
		return 0, nil
	}
	length := int(int32(binary.BigEndian.Uint32(b[n:])))
	n += 4
	switch {
	case length == -1:
		return n, d.batch.keep(d.encoder, d.values)
	case length < 4:
		return 0, errFieldLength(length)
	case len(b)-n < 4:
		return 0, nil
	}
	if columns := int(int32(binary.BigEndian.Uint32(b[n:]))); columns != len(d.values) {
		return 0, errFieldCount(columns, len(d.values))
	}
	return d.decodeRow(b, n+4, typeOIDBytes)
}

// decodeRow decodes the values of a row, which begin at index n of b. It ignores prefix bytes before each value.
func (d *copyDecoder) decodeRow(b []byte, n, prefix int) (int, error) {
	for i := range d.values {
		if len(b)-n < prefix+4 {
			return 0, nil
		}
		if length := int(int32(binary.BigEndian.Uint32(b[n+prefix:]))); n+prefix+4+length > d.maxRow+copyPieceRoom {
			d.skipped = newSkippedRow(d.values[:i], len(d.values), prefix)
			return n, nil
		}
		var ok bool
		var err error
		if d.values[i], n, ok, err = d.decodeField(b, n+prefix); !ok || err != nil {
			return 0, err
		}
	}
	return n, d.batch.add(d.encoder, d.values)
}

// decodeField decodes the field at index n of b. It returns the field's value, which is nil for NULL, and the index after the
// field. ok is false if the end of the field has not arrived yet.
func (d *copyDecoder) decodeField(b []byte, n int) (value []byte, next int, ok bool, err error) {
	if len(b)-n < 4 {
		return nil, 0, false, nil
	}
	length := int(int32(binary.BigEndian.Uint32(b[n:])))
	n += 4
	switch {
	case length == -1:
		return nil, n, true, nil
	case length < -1:
		return nil, 0, false, errFieldLength(length)
	case len(b)-n < length:
		d.need = n + length
		return nil, 0, false, nil
	}
	return b[n : n+length : n+length], n + length, true, nil
}

// decodeError is the error for output of COPY that cannot be decoded, or whose rows cannot be encoded as JSON.
type decodeError struct{ err error }

func (e *decodeError) Error() string { return e.err.Error() }
func (e *decodeError) Unwrap() error { return e.err }

const typeOIDBytes = 4 // length in bytes of the type OID that precedes each column of a composite value

func errFieldCount(fields, want int) error {
	return fmt.Errorf("a row of the copy has %d fields instead of %d", fields, want)
}

func errFieldLength(length int) error { return fmt.Errorf("a field of the copy has length %d", length) }

// headerLength returns the length of the header at the start of b, or 0 if its end has not arrived yet.
func headerLength(b []byte) (int, error) {
	const fixed = 19 // bytes of the signature, the flags and the extension's length
	if len(b) < fixed {
		return 0, nil
	}
	if !bytes.HasPrefix(b, copySignature) {
		return 0, errors.New("the copy is not in binary format")
	}
	n := fixed + int64(binary.BigEndian.Uint32(b[15:]))
	if int64(len(b)) < n {
		return 0, nil
	}
	return int(n), nil
}
