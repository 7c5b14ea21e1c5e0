package pgoutput

import (
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"
)

// appendTuple appends a row in the protocol's format (TupleData), with the values in text form. A nil value is NULL. If
// unchanged is true, the tuple ends with a value of kind Unchanged.
func appendTuple(dst []byte, unchanged bool, values ...[]byte) []byte {
	n := len(values)
	if unchanged {
		n++
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	for _, v := range values {
		if v == nil {
			dst = append(dst, 'n')
			continue
		}
		dst = append(binary.BigEndian.AppendUint32(append(dst, 't'), uint32(len(v))), v...)
	}
	if unchanged {
		dst = append(dst, 'u')
	}
	return dst
}

// changeMessage returns an Insert, Update or Delete message for the table with OID 7.
func changeMessage(kind byte, parts ...any) []byte {
	msg := binary.BigEndian.AppendUint32([]byte{kind}, 7)
	for _, p := range parts {
		switch p := p.(type) {
		case byte:
			msg = append(msg, p)
		case []byte:
			msg = append(msg, p...)
		}
	}
	return msg
}

func TestParse(t *testing.T) {
	t.Parallel()
	be := binary.BigEndian
	commit := be.AppendUint64(be.AppendUint64(be.AppendUint64([]byte{'C', 0}, 1), 0x16B374D848), 86_400_000_000)
	if c, err := ParseCommit(commit); err != nil || c.EndLSN != 0x16B374D848 || !c.Time.Equal(time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("commit: %+v, %v", c, err)
	}
	relation := append(be.AppendUint32([]byte{'R'}, 7), "public\x00votes\x00d\x00\x01\x01id\x00\x00\x00\x00\x17\xff\xff\xff\xff"...)
	r, err := ParseRelation(relation)
	if err != nil || r.OID != 7 || r.Schema != "public" || r.Table != "votes" || !slices.Equal(r.Columns, []Column{{"id", 23, -1}}) {
		t.Errorf("relation: %+v, %v", r, err)
	}
	truncate := be.AppendUint32(be.AppendUint32(append(be.AppendUint32([]byte{'T'}, 2), 0), 7), 8)
	if tr, err := ParseTruncate(truncate); err != nil || !slices.Equal(tr.OIDs, []uint32{7, 8}) {
		t.Errorf("truncate: %+v, %v", tr, err)
	}
	row := appendTuple(nil, true, []byte("1"), nil, []byte{})
	key := appendTuple(nil, false, []byte("1"), nil, nil, nil)
	want := Tuple{{Kind: Text, Text: []byte("1")}, {Kind: Null}, {Kind: Text, Text: []byte{}}, {Kind: Unchanged}}
	var c Change
	for _, test := range []struct {
		name     string
		msg      []byte
		identity Identity
		old, new int
	}{
		{"insert", changeMessage('I', byte('N'), row), IdentityNone, 0, 4},
		{"update", changeMessage('U', byte('N'), row), IdentityNone, 0, 4},
		{"update of the key", changeMessage('U', byte('K'), key, byte('N'), row), IdentityKey, 4, 4},
		{"update under FULL", changeMessage('U', byte('O'), row, byte('N'), row), IdentityFull, 4, 4},
		{"delete", changeMessage('D', byte('K'), key), IdentityKey, 4, 0},
	} {
		if err := c.Parse(test.msg); err != nil || c.OID != 7 || c.Kind != test.msg[0] || c.Identity != test.identity || len(c.Old) != test.old || len(c.New) != test.new {
			t.Errorf("%s: %+v, %v", test.name, c, err)
			continue
		}
		if oid, err := ChangeOID(test.msg); err != nil || oid != 7 {
			t.Errorf("%s: table %d, %v", test.name, oid, err)
		}
		if test.new > 0 && !slices.EqualFunc(c.New, want, func(a, b Value) bool { return a.Kind == b.Kind && string(a.Text) == string(b.Text) }) {
			t.Errorf("%s: %+v", test.name, c.New)
		}
		if err := c.Parse(append(slices.Clone(test.msg), 0)); !errors.Is(err, ErrTrailing) {
			t.Errorf("%s with a byte more: %v", test.name, err)
		}
		for n := range test.msg {
			if err := c.Parse(test.msg[:n]); err == nil {
				t.Errorf("%s is accepted, cut to %d bytes", test.name, n)
			}
		}
	}
	for name, msg := range map[string][]byte{
		"an insert with an old row": changeMessage('I', byte('O'), row, byte('N'), row), "a delete of nothing": changeMessage('D', byte('N'), row),
		"an update without a new row": changeMessage('U', byte('O'), row, byte('O'), row), "an unknown kind of value": changeMessage('I', byte('N'), []byte("\x00\x01x")),
	} {
		if err := c.Parse(msg); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParse parses arbitrary messages. A message may cause an error but no panic. The memory that the parser allocates must
// not exceed a limit that depends on the message's size.
func FuzzParse(f *testing.F) {
	row := appendTuple(nil, true, []byte("1"), nil, []byte("text"))
	f.Add(changeMessage('I', byte('N'), row))
	f.Add(changeMessage('U', byte('O'), row, byte('N'), row))
	f.Add(changeMessage('D', byte('K'), row))
	f.Add([]byte("R\x00\x00\x00\x07public\x00votes\x00d\x00\x01\x01id\x00\x00\x00\x00\x17\xff\xff\xff\xff"))
	f.Add([]byte("T\x00\x00\x00\x01\x00\x00\x00\x00\x07"))
	f.Add([]byte("C\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03"))
	f.Add([]byte("I\x00\x00\x00\x07N\xff\xff"))
	f.Add([]byte("T\xff\xff\xff\xff\x00"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		parse := func(msg []byte) error {
			var err error
			switch Kind(msg) {
			case KindCommit:
				_, err = ParseCommit(msg)
			case KindRelation:
				_, err = ParseRelation(msg)
			case KindTruncate:
				_, err = ParseTruncate(msg)
			case KindInsert, KindUpdate, KindDelete:
				err = new(Change).Parse(msg)
			default:
				err = ErrMalformed
			}
			return err
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := parse(msg)
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(1<<20+1000*len(msg)); got > most {
			t.Errorf("%d bytes allocated for a message of %d", got, len(msg))
		}
		if err == nil && parse(msg[:len(msg)-1]) == nil {
			t.Errorf("%q is accepted without its last byte", msg)
		}
	})
}

// FuzzTuple checks readTuple with two inputs: arbitrary bytes, and a row that appendTuple has built from known values.
func FuzzTuple(f *testing.F) {
	f.Add([]byte("\x00\x03n\x00u"), "12", "text", true)
	f.Add([]byte("\x00\x01t\xff\xff\xff\xff"), "", "\x00\xff", false)
	f.Add([]byte("\xff\xfft\x00\x00\x00\x01a"), "NaN", `"\`, true)
	f.Fuzz(func(t *testing.T, raw []byte, a, b string, null bool) {
		var got Tuple
		r := messageReader{rest: raw}
		if err := r.readTuple(&got); err == nil && len(raw)-len(r.rest) < 2+len(got) {
			t.Errorf("%q is no row of %d values", raw, len(got))
		}
		values := [][]byte{[]byte(a), []byte(b)}
		if null {
			values = append(values, nil)
		}
		tuple := appendTuple(nil, !null, values...)
		got, r = got[:0], messageReader{rest: tuple}
		err := errors.Join(r.readTuple(&got), r.checkEnd())
		last := Unchanged
		if null {
			last = Null
		}
		if err != nil || len(got) != 3 || string(got[0].Text) != a || string(got[1].Text) != b || got[0].Text == nil || got[2].Kind != last {
			t.Errorf("%q, %q, %v read as %v, %v", a, b, null, got, err)
		}
		for n := range tuple {
			got, r = got[:0], messageReader{rest: tuple[:n]}
			if err := r.readTuple(&got); err == nil {
				t.Errorf("%q is accepted, cut to %d bytes", tuple, n)
			}
		}
	})
}
