package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5/pgproto3"

	"capture/internal/pgoutput"
)

// shortReader returns a random number of bytes at a time.
type shortReader struct {
	from io.Reader
	rand *rand.Rand
}

func (r shortReader) Read(p []byte) (int, error) {
	return r.from.Read(p[:min(len(p), 1+r.rand.IntN(100_000))])
}

// TestRowLimiterPassesOn checks that small messages pass as they are, and that the output of COPY comes in small messages with
// the same bytes.
func TestRowLimiterPassesOn(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const limit = 1 << 18
	var sent []byte
	var copied []byte
	var want []pgproto3.BackendMessage
	add := func(m pgproto3.BackendMessage) {
		var err error
		if sent, err = m.Encode(sent); err != nil {
			t.Fatal(err)
		}
	}
	for range 300 {
		data := bytes.Repeat([]byte{byte(r.IntN(256))}, []int{0, 1, 100, 8191, copyPieceBytes, copyPieceBytes + 1, 3 * limit}[r.IntN(7)])
		switch r.IntN(3) {
		case 0:
			add(&pgproto3.CopyData{Data: data})
			copied = append(copied, data...)
		case 1:
			m := &pgproto3.DataRow{Values: [][]byte{data[:min(len(data), limit)], nil, {}}}
			add(m)
			want = append(want, m)
		default:
			m := &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}
			add(m)
			want = append(want, m)
		}
	}
	for name, from := range map[string]io.Reader{
		"whole": bytes.NewReader(sent), "short": shortReader{bytes.NewReader(sent), r}, "with data and error": iotest.DataErrReader(bytes.NewReader(sent)),
	} {
		t.Run(name, func(t *testing.T) {
			f := pgproto3.NewFrontend(newRowLimiter(from, limit), io.Discard)
			var gotCopied []byte
			i := 0
			for {
				m, err := f.Receive()
				if errors.Is(err, io.ErrUnexpectedEOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if d, ok := m.(*pgproto3.CopyData); ok {
					if len(d.Data) > copyPieceBytes {
						t.Fatalf("a message of a copy has %d bytes", len(d.Data))
					}
					gotCopied = append(gotCopied, d.Data...)
					continue
				}
				got, err := m.Encode(nil)
				if err != nil {
					t.Fatal(err)
				}
				if w, _ := want[i].Encode(nil); !bytes.Equal(got, w) {
					t.Fatalf("message %d is another one", i)
				}
				i++
			}
			if i != len(want) || !bytes.Equal(gotCopied, copied) {
				t.Errorf("%d messages of %d, and %d bytes of %d of the copy", i, len(want), len(gotCopied), len(copied))
			}
		})
	}
}

// TestRowLimiterOmits checks that rows above the limit lose only their large values, and that other large messages and
// malformed messages are errors.
func TestRowLimiterOmits(t *testing.T) {
	const limit = 1 << 20
	large := bytes.Repeat([]byte("x"), 3*limit)
	receive := func(messages ...pgproto3.BackendMessage) (*pgproto3.Frontend, *rowLimiter) {
		var sent []byte
		for _, m := range messages {
			var err error
			if sent, err = m.Encode(sent); err != nil {
				t.Fatal(err)
			}
		}
		l := newRowLimiter(bytes.NewReader(sent), limit)
		return pgproto3.NewFrontend(l, io.Discard), l
	}
	next := func(f *pgproto3.Frontend) pgproto3.BackendMessage {
		t.Helper()
		m, err := f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	f, _ := receive(&pgproto3.DataRow{Values: [][]byte{[]byte("1"), large, nil, []byte("b")}}, &pgproto3.DataRow{Values: [][]byte{[]byte("2"), nil, nil, nil}})
	values := next(f).(*pgproto3.DataRow).Values
	sizes, omitted := OmittedSizes(values, 4)
	if !omitted || string(values[0]) != "1" || values[1] != nil || string(values[3]) != "b" || sizes[0] != 1 || sizes[1] != int64(len(large)) || sizes[3] != 1 {
		t.Errorf("the large row has sizes %v, omitted: %t", sizes, omitted)
	}
	values = next(f).(*pgproto3.DataRow).Values
	if _, omitted := OmittedSizes(values, 4); omitted || string(values[0]) != "2" || len(values) != 4 {
		t.Errorf("the row after it is %q", values)
	}

	tuple := func(msg []byte, part byte, values ...[]byte) []byte {
		msg = binary.BigEndian.AppendUint16(append(msg, part), uint16(len(values)+1))
		for _, v := range values {
			msg = append(binary.BigEndian.AppendUint32(append(msg, 't'), uint32(len(v))), v...)
		}
		return append(msg, 'u')
	}
	head := append(append([]byte("w"), make([]byte, 24)...), 'U', 0, 0, 0, 7)
	for _, test := range []struct {
		name             string
		old, new         []byte
		oldKind, newKind pgoutput.ValueKind
	}{
		{"both large", large, large, pgoutput.Omitted, pgoutput.Omitted},
		{"new large", []byte("s"), large, pgoutput.Text, pgoutput.Omitted},
		{"old large", large, []byte("s"), pgoutput.Omitted, pgoutput.Text},
		{"together large", large[:limit-100], large[:limit-100], pgoutput.Omitted, pgoutput.Text},
		{"small", []byte("s"), []byte("t"), pgoutput.Text, pgoutput.Text},
	} {
		msg := tuple(tuple(bytes.Clone(head), 'O', []byte("1"), test.old), 'N', []byte("1"), test.new)
		f, _ := receive(&pgproto3.CopyBothResponse{}, &pgproto3.CopyData{Data: msg}, &pgproto3.CopyData{Data: []byte("k")})
		next(f)
		data := next(f).(*pgproto3.CopyData).Data
		var c pgoutput.Change
		if err := c.Parse(data[25:]); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		check := func(what string, tuple pgoutput.Tuple, kind pgoutput.ValueKind, value []byte) {
			v := tuple[1]
			ok := v.Kind == kind && string(tuple[0].Text) == "1" && tuple[2].Kind == pgoutput.Unchanged
			if ok = ok && (kind == pgoutput.Text && bytes.Equal(v.Text, value) || v.Size == int64(len(value))); !ok {
				t.Errorf("%s: the %s value is %c with %d bytes, size %d", test.name, what, v.Kind, len(v.Text), v.Size)
			}
		}
		check("old", c.Old, test.oldKind, test.old)
		check("new", c.New, test.newKind, test.new)
		if m := next(f).(*pgproto3.CopyData); string(m.Data) != "k" {
			t.Errorf("%s: the message after it is %q", test.name, m.Data)
		}
	}

	f, _ = receive(&pgproto3.ErrorResponse{Message: string(large)})
	if _, err := f.Receive(); err == nil {
		t.Error("an error message of any length is read")
	}
	// These messages are cut short, or have lengths that do not match their contents.
	for _, sent := range [][]byte{
		append([]byte{'D', 0, 0x30, 0, 0, 0, 1}, large...), append([]byte{'D', 0x10, 0, 0, 0, 0, 1, 0x7f, 0, 0, 0}, large...), {'D', 0, 0, 0, 3},
	} {
		f := pgproto3.NewFrontend(newRowLimiter(bytes.NewReader(sent), limit), io.Discard)
		if _, err := f.Receive(); err == nil {
			t.Error("a malformed message is read")
		}
	}
}
