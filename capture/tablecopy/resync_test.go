package tablecopy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"capture/capture/source"
	"capture/snapshot/rowjson"
)

// changesDecoder returns a decoder for the output of ChangesQuery, for a table with one key column and one other column.
func changesDecoder(t *testing.T) (*copyDecoder, chan *rowBatch) {
	t.Helper()
	shape := &rowjson.Shape{Key: []int{0}, Columns: []rowjson.Column{
		{Name: "id", Published: true, Type: rowjson.Type{Kind: rowjson.Number, OID: 23}},
		{Name: "n", Published: true, Type: rowjson.Type{OID: 25}},
	}}
	encoder, err := rowjson.NewEncoder(shape, false)
	if err != nil {
		t.Fatal(err)
	}
	free, full := make(chan *rowBatch, 100), make(chan *rowBatch, 100)
	for range 100 {
		free <- &rowBatch{freeList: free}
	}
	d := &copyDecoder{ctx: t.Context(), encoder: encoder, values: make([][]byte, 2), key: shape.Key, free: free, maxRow: 1000}
	d.startCopy(&copyRange{batches: full, turn: make(chan struct{})})
	return d, full
}

var copyHeader = append(append([]byte{}, copySignature...), make([]byte, 8)...)

// field returns a value as a field of COPY's binary format.
func field(value string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(value))), value...)
}

// changedRow returns the composite value that ChangesQuery returns for a changed row.
func changedRow(values ...string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(values)))
	for _, v := range values {
		b = append(binary.BigEndian.AppendUint32(b, 25), field(v)...)
	}
	return string(b)
}

// TestDecodeChanges checks that the decoder recognizes changed, unchanged and too large rows, whatever the size of the pieces in
// which its input arrives.
func TestDecodeChanges(t *testing.T) {
	data := append([]byte{}, copyHeader...)
	null := []byte{255, 255, 255, 255}
	two := []byte{0, 2}
	for i, row := range []string{"", changedRow("1", "one"), "", changedRow("3", string(make([]byte, 70_000))), ""} {
		data = append(append(data, two...), field(fmt.Sprint(i))...)
		if row == "" {
			data = append(data, null...)
		} else {
			data = append(data, field(row)...)
		}
	}
	data = append(data, 255, 255)
	for _, size := range []int{1, 2, 3, 7, 100, 4096, len(data)} {
		d, full := changesDecoder(t)
		for rest := data; len(rest) > 0; {
			n, err := d.Write(rest[:min(size, len(rest))])
			if err != nil {
				t.Fatalf("pieces of %d bytes: %v", size, err)
			}
			rest = rest[n:]
		}
		d.flush()
		kept, changed, omitted := 0, 0, 0
		for len(full) > 0 {
			b := <-full
			omitted += len(b.omitted)
			for _, r := range b.rows {
				if r.line == keptLine {
					kept++
				} else {
					changed++
				}
			}
		}
		if kept != 3 || changed != 1 || omitted != 1 || !d.trailer {
			t.Errorf("pieces of %d bytes: %d rows kept, %d changed, %d omitted, trailer %v", size, kept, changed, omitted, d.trailer)
		}
	}
}

// TestChangesError checks that the whole table is copied if the server refuses a statement, or sends output that cannot be
// decoded. A lost connection alone does not cause a copy of the whole table.
func TestChangesError(t *testing.T) {
	for _, row := range [][]byte{
		append(append([]byte{0, 3}, field("1")...), field(changedRow("1", "one"))...),
		append(append([]byte{0, 2}, field("1")...), field(changedRow("1"))...),
		append(append([]byte{0, 2}, field("1")...), field("abc")...),
		append([]byte{0, 2}, 255, 255, 255, 254),
	} {
		d, _ := changesDecoder(t)
		_, err := d.Write(append(append([]byte{}, copyHeader...), row...))
		if resync := (*source.ResyncError)(nil); !errors.As(changesError(err), &resync) || resync.Intact {
			t.Errorf("%x: %v", row, err)
		}
	}
	refused := fmt.Errorf("read: %w", &pgconn.PgError{SeverityUnlocalized: "ERROR", Code: "54000", Message: "row too large"})
	if resync := (*source.ResyncError)(nil); !errors.As(changesError(refused), &resync) || resync.Intact {
		t.Errorf("%v", changesError(refused))
	}
	ended := error(&pgconn.PgError{SeverityUnlocalized: "FATAL", Code: "57P01", Message: "terminating connection"})
	for _, err := range []error{ended, io.ErrUnexpectedEOF, nil} {
		if changesError(err) != err {
			t.Errorf("%v: %v", err, changesError(err))
		}
	}
}
