package capture

import (
	"encoding/binary"
	"errors"
	"time"

	"capture/snapshot/rowjson"
)

// errCut is that a message of the stream ends too soon.
var errCut = errors.New("a message of the stream is cut short")

// errOrder is that a change lies outside of a transaction, or a transaction in another.
var errOrder = errors.New("a message of the stream is out of order")

// reader takes a pgoutput message apart. After the end it yields zeroes and remembers that it was cut.
// (Format: PostgreSQL documentation, "Logical Replication Message Formats".)
type reader struct {
	b   []byte
	cut bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.cut, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// end says, once all has been read, whether that was the message.
func (r *reader) end() error {
	switch {
	case r.cut:
		return errCut
	case len(r.b) > 0:
		return errors.New("a message of the stream goes on after its end")
	}
	return nil
}

func (r *reader) byte() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uint16() int {
	if v := r.take(2); v != nil {
		return int(binary.BigEndian.Uint16(v))
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if v := r.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if v := r.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (r *reader) string() string {
	for i, c := range r.b {
		if c == 0 {
			s := string(r.b[:i])
			r.b = r.b[i+1:]
			return s
		}
	}
	r.cut, r.b = true, nil
	return ""
}

// serverTime is a time as the protocol counts it: microseconds since 2000.
func serverTime(micros uint64) time.Time {
	return time.UnixMicro(int64(micros) + 946684800_000_000).UTC()
}

// relation is what a Relation message says.
type relation struct {
	oid      uint32
	schema   string
	table    string
	identity byte
	columns  []relationColumn
}

type relationColumn struct {
	name   string
	typ    uint32
	typmod int32
}

func (r *reader) relation() relation {
	rel := relation{oid: r.uint32(), schema: r.string(), table: r.string(), identity: r.byte()}
	n := r.uint16()
	for i := 0; i < n && !r.cut; i++ {
		r.byte() // whether it is part of the key
		rel.columns = append(rel.columns, relationColumn{name: r.string(), typ: r.uint32(), typmod: int32(r.uint32())})
	}
	return rel
}

// tuple reads TupleData into values, at the places that columns says. The values alias the message.
func (r *reader) tuple(columns []int, values [][]byte) error {
	n := r.uint16()
	if n != len(columns) {
		if r.cut {
			return errCut
		}
		return errors.New("a row of the stream has another number of columns than its table")
	}
	for _, c := range columns {
		switch kind := r.byte(); kind {
		case 'n':
			values[c] = nil
		case 'u':
			values[c] = rowjson.Unchanged
		case 't':
			values[c] = r.take(int(r.uint32()))
		default:
			if r.cut {
				return errCut
			}
			return errors.New("a row of the stream has a value of an unknown kind")
		}
	}
	if r.cut {
		return errCut
	}
	return nil
}
