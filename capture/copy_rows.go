package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"capture/snapshot/rowjson"
)

// rowWriter takes COPYs in binary format apart, whatever the pieces they come in, and hands their rows on in batches.
// (Format: PostgreSQL documentation, COPY, "Binary Format".)
type rowWriter struct {
	ctx    context.Context
	enc    *rowjson.Encoder
	pace   *pace // nil for none
	values [][]byte
	free   chan *rowBatch   // that are empty
	to     chan<- *rowBatch // where full ones go; it takes as many as there are
	batch  *rowBatch
	rest   []byte // of a row that has not come whole

	begun, ended bool
}

var copySignature = []byte("PGCOPY\n\xff\r\n\x00")

func (w *rowWriter) Write(p []byte) (int, error) {
	if w.batch == nil {
		select {
		case w.batch = <-w.free:
		case <-w.ctx.Done():
			return 0, context.Cause(w.ctx)
		}
	}
	w.batch.wire += int64(len(p))
	b := p
	if len(w.rest) > 0 {
		w.rest = append(w.rest, p...)
		b = w.rest
	}
	for {
		n, err := w.take(b)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			break
		}
		b = b[n:]
	}
	w.rest = append(w.rest[:0], b...)
	if len(w.batch.data) >= batchBytes {
		w.flush()
	}
	return len(p), w.pace.spend(w.ctx, len(p))
}

// flush hands the batch on.
func (w *rowWriter) flush() {
	if w.batch != nil {
		w.to <- w.batch
		w.batch = nil
	}
}

// take uses the header or one row at the start of b, and returns its length; 0 where it is not whole yet.
func (w *rowWriter) take(b []byte) (int, error) {
	if !w.begun {
		const fixed = 19 // signature, flags, length of the extension
		if len(b) < fixed {
			return 0, nil
		}
		if !bytes.HasPrefix(b, copySignature) {
			return 0, errors.New("this is not a copy in binary format")
		}
		n := fixed + int64(binary.BigEndian.Uint32(b[15:]))
		if int64(len(b)) < n {
			return 0, nil
		}
		w.begun = true
		return int(n), nil
	}
	if w.ended && len(b) > 0 {
		return 0, errors.New("the copy goes on after its end mark")
	}
	if len(b) < 2 {
		return 0, nil
	}
	fields := int(int16(binary.BigEndian.Uint16(b)))
	if fields == -1 {
		w.ended = true
		return 2, nil
	}
	if fields != len(w.values) {
		return 0, fmt.Errorf("a row of the copy has %d fields where the table has %d columns", fields, len(w.values))
	}
	at := 2
	for i := range w.values {
		if len(b)-at < 4 {
			return 0, nil
		}
		n := int(int32(binary.BigEndian.Uint32(b[at:])))
		at += 4
		switch {
		case n == -1:
			w.values[i] = nil
		case n < -1:
			return 0, fmt.Errorf("a field of the copy has length %d", n)
		case len(b)-at < n:
			return 0, nil
		default:
			w.values[i] = b[at : at+n : at+n]
			at += n
		}
	}
	return at, w.row()
}

// row adds a row to the batch; after an error the batch is as it was.
func (w *rowWriter) row() error {
	b := w.batch
	start := len(b.data)
	data, err := w.enc.AppendKey(b.data, w.values)
	if err != nil {
		return err
	}
	line := len(data)
	if data, err = w.enc.AppendCopiedRow(data, w.values); err != nil {
		return err
	}
	b.data = data
	b.rows = append(b.rows, struct{ key, line int }{line - start, len(data) - line})
	return nil
}
