package pgoutput

import (
	"bytes"
	"encoding/binary"
)

// messageReader is a cursor over a message. Past the message's end, it returns zeros and sets the field truncated. Callers
// therefore need only one check, after the last part.
type messageReader struct {
	rest      []byte
	truncated bool
}

// checkEnd returns an error unless the message has been read exactly to its end.
func (r *messageReader) checkEnd() error {
	switch {
	case r.truncated:
		return ErrTruncated
	case len(r.rest) > 0:
		return ErrTrailing
	}
	return nil
}

func (r *messageReader) readBytes(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.truncated, r.rest = true, nil
		return nil
	}
	v := r.rest[:n:n]
	r.rest = r.rest[n:]
	return v
}

func (r *messageReader) readByte() byte {
	if v := r.readBytes(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *messageReader) readUint16() int {
	if v := r.readBytes(2); v != nil {
		return int(binary.BigEndian.Uint16(v))
	}
	return 0
}

func (r *messageReader) readUint32() uint32 {
	if v := r.readBytes(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *messageReader) readUint64() uint64 {
	if v := r.readBytes(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// readString reads a string that ends with a zero byte.
func (r *messageReader) readString() string {
	end := bytes.IndexByte(r.rest, 0)
	if end < 0 {
		r.truncated, r.rest = true, nil
		return ""
	}
	s := string(r.rest[:end])
	r.rest = r.rest[end+1:]
	return s
}

// readTuple reads TupleData and appends its values to t.
func (r *messageReader) readTuple(t *Tuple) error {
	n := r.readUint16()
	// Each value takes at least one byte of the message, so the second condition limits the memory for the tuple.
	if r.truncated || n > len(r.rest) {
		return ErrTruncated
	}
	for range n {
		v := Value{Kind: ValueKind(r.readByte())}
		switch v.Kind {
		case Null, Unchanged:
		case Text:
			v.Text = r.readBytes(int(r.readUint32()))
		case Omitted:
			v.Size = int64(r.readUint64())
		default:
			if !r.truncated {
				return ErrMalformed
			}
		}
		if r.truncated {
			return ErrTruncated
		}
		*t = append(*t, v)
	}
	return nil
}
