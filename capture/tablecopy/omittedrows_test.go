package tablecopy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"capture/internal/race"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// TestCopySkipsLargeRows decodes a copy with rows of many sizes, in pieces of many sizes. The decoder must omit each row
// that is too large, and must report its key and size, whichever column is large. It must not hold such a row in memory.
func TestCopySkipsLargeRows(t *testing.T) {
	const maxRow = 600 << 10
	text := rowjson.Type{OID: 25}
	shape := &rowjson.Shape{Table: "t", Key: []int{1}, Columns: []rowjson.Column{
		{Name: "a", Type: text}, {Name: "id", Type: rowjson.Type{Kind: rowjson.Number, OID: 23}}, {Name: "b", Type: text},
	}}
	encoder, err := rowjson.NewEncoder(shape, false)
	if err != nil {
		t.Fatal(err)
	}
	encoder.MaxLine = maxRow
	r := rand.New(rand.NewPCG(3, 4))
	copied := append([]byte(copySignature), 0, 0, 0, 0, 0, 0, 0, 0)
	field := func(v []byte) {
		copied = append(binary.BigEndian.AppendUint32(copied, uint32(len(v))), v...)
	}
	rows := 60
	if race.Enabled {
		rows = 20
	}
	omitted, kept := map[string]int64{}, 0
	for id := range rows {
		sizes := []int{0, 10, 100_000, 200_000, keptValueBytes + 1, 3 << 20}
		a, b := bytes.Repeat([]byte("a"), sizes[r.IntN(6)]), bytes.Repeat([]byte("\x01"), sizes[r.IntN(6)])
		key := fmt.Sprint(id)
		copied = append(copied, 0, 3)
		field(a)
		field([]byte(key))
		field(b)
		if raw := len(a) + len(key) + len(b); raw > maxRow+copyPieceRoom {
			omitted[key] = int64(raw)
		} else if line := len(`{"a":"","id":,"b":""}`) + len(a) + len(key) + 6*len(b); line > maxRow {
			omitted[key] = int64(len(a) + len(`""`) + len(key) + 6*len(b) + len(`""`))
		} else {
			kept++
		}
	}
	copied = append(copied, 0xff, 0xff)
	for _, piece := range []int{1000, 60_000, copyPieceRoom, 1 << 20} {
		table := snapshot.NewTable()
		table.Load(shape, snapshot.Origin{})
		free, full := make(chan *rowBatch, 1), make(chan *rowBatch, 1)
		d := &copyDecoder{ctx: t.Context(), encoder: encoder, values: make([][]byte, 3), free: free, full: full, maxRow: maxRow}
		for rest := copied; len(rest) > 0; {
			n := min(1+r.IntN(piece), len(rest))
			free <- &rowBatch{}
			if _, err := d.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
			if limit := maxRow + 2*copyPieceRoom + 2*piece; cap(d.partial) > limit {
				t.Fatalf("the decoder holds %d bytes of a row; want %d at most", cap(d.partial), limit)
			}
			d.flush()
			_, _ = (<-full).insertInto(table)
		}
		if err := table.Commit(snapshot.Position{}); err != nil {
			t.Fatal(err)
		}
		v := table.View()
		if !d.trailer || v.Rows() != kept || v.OmittedRows() != len(omitted) || kept == 0 {
			t.Errorf("in pieces of %d bytes: %d rows and %d omitted; want %d and %d", piece, v.Rows(), v.OmittedRows(), kept, len(omitted))
		}
		for _, row := range v.Omitted(100) {
			if key := shape.KeyString(row.Key); omitted[key] != row.Bytes {
				t.Errorf("row %s is omitted with %d bytes; want %d", key, row.Bytes, omitted[key])
			}
		}
	}
}
