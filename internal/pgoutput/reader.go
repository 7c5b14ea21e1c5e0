package pgoutput

import (
	"bytes"
	"encoding/binary"
)

// messageReader is a cursor over a message. Past the end it returns zeros and sets truncated, so that callers check once,
// after the last part.
type messageReader struct {
	rest      []byte
	truncated bool
}

// end returns an error unless the message has been read exactly to its end.
func (r *messageReader) end() error {
	switch {
	case r.truncated:
		return ErrTruncated
	case len(r.rest) > 0:
		return ErrTrailing
	}
	return nil
}

func (r *messageReader) bytes(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.truncated, r.rest = true, nil
		return nil
	}
	v := r.rest[:n:n]
	r.rest = r.rest[n:]
	return v
}

func (r *messageReader) byte() byte {
	if v := r.bytes(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *messageReader) uint16() int {
	if v := r.bytes(2); v != nil {
		return int(binary.BigEndian.Uint16(v))
	}
	return 0
}

func (r *messageReader) uint32() uint32 {
	if v := r.bytes(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *messageReader) uint64() uint64 {
	if v := r.bytes(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// string reads a string that ends with a zero byte.
func (r *messageReader) string() string {
	end := bytes.IndexByte(r.rest, 0)
	if end < 0 {
		r.truncated, r.rest = true, nil
		return ""
	}
	s := string(r.rest[:end])
	r.rest = r.rest[end+1:]
	return s
}

// tuple reads TupleData into t, which keeps its memory.
func (r *messageReader) tuple(t *Tuple) error {
	n := r.uint16()
	if r.truncated || n > len(r.rest) { // each value takes a byte at least: memory stays bound to the message
		return ErrTruncated
	}
	for range n {
		v := Value{Kind: ValueKind(r.byte())}
		switch v.Kind {
		case Null, Unchanged:
		case Text:
			v.Text = r.bytes(int(r.uint32()))
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
