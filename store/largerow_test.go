package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// TestLargeRowsAreWrittenOneByOne checks that a file of large rows is written correctly, and that the writer holds few rows
// in memory at a time.
func TestLargeRowsAreWrittenOneByOne(t *testing.T) {
	const rows, rowBytes = 24, 6 << 20
	table := snapshot.NewTable()
	table.Load(&rowjson.Shape{Fingerprint: "f"}, snapshot.Origin{})
	line := make([]byte, rowBytes)
	for i := range line {
		line[i] = byte('a' + i%26)
	}
	copy(line, `{"a":"`)
	copy(line[rowBytes-2:], `"}`)
	for i := range rows {
		table.Put(rowjson.Key(fmt.Sprintf("%03d", i)), line)
	}
	if err := table.Commit(snapshot.Position{}); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "feedback.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	v := table.View()
	p := newPendingVersion(v, written{}, nil)
	w := newSequentialWriter(file, true, true)
	if err := w.finish(&p.content); err != nil {
		t.Fatal(err)
	}
	held := 0
	for range chunks {
		held += cap(<-w.recycled)
	}
	if held > chunks*largeChunk {
		t.Errorf("the writer keeps %d bytes of chunks", held)
	}
	info, err := file.Stat()
	if err != nil || info.Size() != p.Bytes || info.Size() < rows*rowBytes {
		t.Errorf("the file has %d bytes; want %d; %v", info.Size(), p.Bytes, err)
	}
}
