package tablecopy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"unicode/utf8"

	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// FuzzCopy decodes a copy in pieces and as a whole. It checks that both ways give the same rows, and that either both ways
// succeed or both ways fail.
func FuzzCopy(f *testing.F) {
	head := string(copySignature) + "\x00\x00\x00\x00\x00\x00\x00\x00"
	row := "\x00\x02\x00\x00\x00\x011\x00\x00\x00\x03a\"b"
	f.Add([]byte(head+row+"\x00\x02\x00\x00\x00\x012\xff\xff\xff\xff\xff\xff"), []byte{1, 2, 3})
	f.Add([]byte(head+row+"\xff\xff\xff\xff"), []byte{})
	f.Add([]byte(head+row+"\x00\x02\x00\x00\x00\x013\x7f\xff\xff\xff"), []byte{19, 1, 1})
	f.Add([]byte(string(copySignature)+"\x00\x00\x00\x00\x00\x00\x00\x02xy"+row+"\xff\xff"), []byte{200})
	f.Add([]byte(head+"\x00\x03"+row), []byte{5})
	f.Fuzz(func(t *testing.T, input, sizes []byte) {
		whole, wholeErr := decodeCopy(t, [][]byte{input})
		var pieces [][]byte
		for rest, i := input, 0; len(rest) > 0; i++ {
			n := 1
			if len(sizes) > 0 {
				n = int(sizes[i%len(sizes)])
			}
			n = min(n, len(rest))
			pieces = append(pieces, bytes.Clone(rest[:n]))
			if rest = rest[n:]; n == 0 && i > len(sizes) {
				break // all pieces are empty
			}
		}
		cut := len(bytes.Join(pieces, nil)) < len(input)
		split, splitErr := decodeCopy(t, pieces)
		if !cut && (split != whole || (splitErr == nil) != (wholeErr == nil)) {
			t.Errorf("in pieces:\n%q, %v\nas a whole:\n%q, %v", split, splitErr, whole, wholeErr)
		}
	})
}

// decodeCopy decodes a copy of a table (id int, s text). It returns the JSON file, the number of rows and whether the trailer
// was read, as one string.
func decodeCopy(t *testing.T, pieces [][]byte) (string, error) {
	t.Helper()
	shape := &rowjson.Shape{Table: "t", Key: []int{0}, Columns: []rowjson.Column{
		{Name: "id", Type: rowjson.Type{Kind: rowjson.Number, OID: 23}}, {Name: "s", Type: rowjson.Type{OID: 25}},
	}}
	enc, err := rowjson.NewEncoder(shape, true)
	if err != nil {
		t.Fatal(err)
	}
	table := snapshot.NewTable()
	table.Load(shape, snapshot.Origin{})
	free, full := make(chan *rowBatch, 1), make(chan *rowBatch, 1)
	d := &copyDecoder{ctx: t.Context(), encoder: enc, values: make([][]byte, 2), free: free, full: full, maxRow: 1 << 30}
	rows := 0
	insert := func() {
		d.flush()
		if len(full) > 0 {
			b := <-full
			rows += len(b.rows)
			_, _ = b.insertInto(table)
		}
	}
	for _, p := range pieces {
		free <- &rowBatch{}
		n, werr := d.Write(p)
		insert()
		if err = werr; err != nil {
			break
		}
		if n != len(p) {
			t.Errorf("%d of %d bytes written", n, len(p))
		}
	}
	table.Commit(snapshot.Position{})
	var b bytes.Buffer
	if _, err := table.View().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if !json.Valid(b.Bytes()) || !utf8.Valid(b.Bytes()) || table.View().Rows() > rows {
		t.Errorf("%d rows: %q", rows, b.Bytes())
	}
	return fmt.Sprintf("%s%d %v", b.String(), rows, d.trailer), err
}
