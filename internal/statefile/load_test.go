package statefile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
)

// TestLoadView checks that LoadView reads patched files, in which spaces follow some rows, and refuses a damaged file.
func TestLoadView(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, err := store.Open(path, store.Owner{PID: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tab := snapshot.NewTable()
	tab.Load(&rowjson.Shape{Schema: "public", Table: "votes", Key: []int{0}, Columns: []rowjson.Column{
		{Name: "vote_id", TypeName: "integer", NotNull: true}, {Name: "comment", TypeName: "character varying(9000)"},
	}}, snapshot.Origin{Source: "logical"})
	put := func(id, n int) {
		tab.Put(binary.BigEndian.AppendUint64(nil, uint64(id)^1<<63), fmt.Appendf(nil, `{"vote_id":%d,"comment":"%s"}`, id, strings.Repeat("x ", n)))
	}
	for id := range 1000 {
		put(id-500, 2200)
	}
	for _, longer := range []int{2200, 2300, 2250, 2100} {
		put(-300, longer)
		put(200, longer)
		tab.Commit(snapshot.Position{})
		if _, err := f.Write(tab.View(), store.ReasonChange); err != nil {
			t.Fatal(err)
		}
		got, _, err := LoadView(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		var is, want bytes.Buffer
		got.WriteTo(&is)
		tab.View().WriteTo(&want)
		if !bytes.Equal(is.Bytes(), want.Bytes()) || got.Rows() != 1000 {
			t.Errorf("%d rows, %d bytes; want %d bytes", got.Rows(), is.Len(), want.Len())
		}
		if line, err := got.Get(binary.BigEndian.AppendUint64(nil, 200^1<<63)); err != nil || len(line) != 2*longer+len(`{"vote_id":200,"comment":""}`) {
			t.Errorf("a row of %d bytes", len(line))
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(`"   `)) {
		t.Error("no row has spaces behind it")
	}
	if err := os.WriteFile(path, bytes.Replace(data, []byte("x x"), []byte("x y"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadView(t.Context(), path); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("a damaged file: %v", err)
	}
}
