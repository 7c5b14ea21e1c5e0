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
// The format is in the PostgreSQL documentation, COPY, "Binary Format": a header, then for each row the number of its
// fields and each field's length and bytes, then a row with -1 fields as the trailer.
type copyDecoder struct {
	ctx     context.Context
	encoder *rowjson.Encoder
	limiter *rateLimiter
	values  [][]byte         // of the current row; they alias the input
	free    chan *rowBatch   // empty batches
	full    chan<- *rowBatch // receives the batches of the current range; it has room for all of them
	batch   *rowBatch        // being filled; nil if none is
	partial []byte           // start of a row whose end has not arrived yet

	header, trailer bool // these have been read
}

var copySignature = []byte("PGCOPY\n\xff\r\n\x00")

// startCopy starts the next COPY, whose batches go to full.
func (d *copyDecoder) startCopy(full chan<- *rowBatch) {
	d.full, d.header, d.trailer = full, false, false
}

// Write implements io.Writer. It waits for an empty batch, and for the rate limit.
func (d *copyDecoder) Write(p []byte) (int, error) {
	if d.batch == nil {
		select {
		case d.batch = <-d.free:
		case <-d.ctx.Done():
			return 0, context.Cause(d.ctx)
		}
	}
	d.batch.rawBytes += int64(len(p))
	input := p
	if len(d.partial) > 0 {
		d.partial = append(d.partial, p...)
		input = d.partial
	}
	for {
		n, err := d.decodeNext(input)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			break
		}
		input = input[n:]
	}
	d.partial = append(d.partial[:0], input...)
	if len(d.batch.data) >= batchBytes {
		d.flush()
	}
	return len(p), d.limiter.wait(d.ctx, len(p))
}

// flush sends the batch that is being filled.
func (d *copyDecoder) flush() {
	if d.batch != nil {
		d.full <- d.batch
		d.batch = nil
	}
}

// decodeNext decodes the header or the row at the start of b. It returns its length, or 0 if its end is missing.
func (d *copyDecoder) decodeNext(b []byte) (int, error) {
	switch {
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
	if fields != len(d.values) {
		return 0, fmt.Errorf("a row of the copy has %d fields, but the table has %d columns", fields, len(d.values))
	}
	n := 2
	for i := range d.values {
		if len(b)-n < 4 {
			return 0, nil
		}
		length := int(int32(binary.BigEndian.Uint32(b[n:])))
		n += 4
		switch {
		case length == -1:
			d.values[i] = nil // NULL
		case length < -1:
			return 0, fmt.Errorf("a field of the copy has length %d", length)
		case len(b)-n < length:
			return 0, nil
		default:
			d.values[i] = b[n : n+length : n+length]
			n += length
		}
	}
	return n, d.batch.add(d.encoder, d.values)
}

// headerLength returns the length of the header at the start of b, or 0 if its end is missing.
func headerLength(b []byte) (int, error) {
	const fixed = 19 // signature, flags, length of the extension
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
