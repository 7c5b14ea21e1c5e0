package store_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"capture/snapshot"
	"capture/store"
	"capture/store/manifest"
)

// TestWriteLines checks that WriteLines writes JSON lines with a manifest that describes them, and that it replaces only a
// regular file.
func TestWriteLines(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sub", "votes.jsonl")
	for _, rows := range []int{3000, 0, 1} {
		v := votes(rows, "x").View()
		m, err := store.WriteLines(path, v, "1.2.3")
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil || bytes.Count(data, []byte("\n")) != rows {
			t.Fatalf("%d lines of %d, %v", bytes.Count(data, []byte("\n")), rows, err)
		}
		array := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(string(content(t, v)), "[\n"), "\n]\n"), "},\n", "}\n")
		if rows > 0 && string(data) != array+"\n" {
			t.Errorf("%d rows: the lines are not those of the array", rows)
		}
		file, manifests, err := manifest.OpenRead(path)
		if err != nil || len(manifests) != 1 || manifests[0].Rows != rows || m.Bytes != int64(len(data)) {
			t.Fatalf("%d rows: manifests %+v, %v", rows, manifests, err)
		}
		file.Close()
		h := manifest.NewHasher()
		h.Write(data)
		if mismatch := h.Mismatch(manifests[0]); mismatch != "" {
			t.Errorf("%d rows: %s", rows, mismatch)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 2 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o604); err != nil {
		t.Fatal(err)
	}
	if _, err := store.WriteLines(path, votes(2, "x").View(), "1"); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o604 {
		t.Errorf("the mode became %v", info.Mode())
	}
	if _, err := store.WriteLines(dir, votes(2, "x").View(), "1"); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
}

// writeLinesEndlessly writes files of changing lengths as fast as it can.
func writeLinesEndlessly(args []string) error {
	fmt.Println("ready")
	tab := votes(100, "x")
	for i := 0; ; i++ {
		tab.Put(key(i%3000), fmt.Appendf(nil, `{"vote_id":%d,"comment":"%s"}`, i%3000, strings.Repeat("y", i%700)))
		tab.Commit(snapshot.Position{LSN: 1})
		if _, err := store.WriteLines(args[0], tab.View(), "1"); err != nil {
			return err
		}
	}
}

// TestWriteLinesKilled checks that a writer that is killed at any moment leaves a whole file, and that either the manifest
// or the pending manifest describes the file.
func TestWriteLinesKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "votes.jsonl")
	if _, err := store.WriteLines(path, votes(1, "x").View(), "1"); err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 20 {
		cmd := child("lines", path)
		started(t, cmd)
		<-time.After(time.Duration(r.IntN(30_000)) * time.Microsecond) // waits for a random moment, not for a condition
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
		file, manifests, err := manifest.OpenRead(path)
		if err != nil {
			t.Fatal(err)
		}
		h := manifest.NewHasher()
		if _, err := io.Copy(h, file); err != nil {
			t.Fatal(err)
		}
		file.Close()
		if !slices.ContainsFunc(manifests, func(m manifest.Manifest) bool { return h.Mismatch(m) == "" }) {
			t.Fatalf("no manifest describes the file: %+v", manifests)
		}
	}
	if _, err := store.WriteLines(path, votes(1, "x").View(), "1"); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 2 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
}
