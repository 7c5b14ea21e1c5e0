package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capture/store"
)

func init() { children["compress"] = compressKept }

// compressKept compresses the kept states of the file at args[0], and prints how many it compressed, and the error.
func compressKept(args []string) error {
	f, err := store.Open(args[0], owner)
	if err != nil {
		return err
	}
	defer f.Close()
	done, err := f.Kept().Compress(context.Background())
	fmt.Printf("%d compressed, %v", len(done), err)
	return nil
}

// TestStateThatCannotBeCompressed keeps three states, and makes the two newer ones unusable: one has a damaged manifest, the
// other has no manifest and a device error in its data. It checks that Compress reports an error, but compresses the third
// state.
func TestStateThatCannotBeCompressed(t *testing.T) {
	needStrace(t)
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, tab := open(t, path), votes(100, "x")
	for i := range 3 {
		write(t, f, commit(t, tab, func() {
			for j := range 100 - 10*i {
				put(tab, j, fmt.Sprint(i))
			}
		}), store.ReasonChange)
		write(t, f, commit(t, tab, tab.Truncate), store.ReasonChange)
	}
	states := f.Kept().List()
	if len(states) != 3 {
		t.Fatalf("the kept states are %+v", states)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(strings.TrimSuffix(states[0].Path, ".json")+".manifest.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(strings.TrimSuffix(states[1].Path, ".json") + ".manifest.json"); err != nil {
		t.Fatal(err)
	}
	cmd := straced(t, t.Context(), child("compress", path), "pread64", "-P", states[1].Path, "-e", "inject=pread64:error=EIO")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "1 compressed, compress "+filepath.Base(states[1].Path)) {
		t.Errorf("%s; %v", out, err)
	}
	if n := rowsOf(t, unzip(t, states[2].CompressedPath())); n != 100 {
		t.Errorf("the compressed state has %d rows", n)
	}
}

// TestCompressedStateThatCannotBeSeen checks that Compress does not remove a compressed state whose stat fails. On a network
// share, stat can fail after a change on another machine. The plain state is already removed, so the compressed state is the
// only copy.
func TestCompressedStateThatCannotBeSeen(t *testing.T) {
	needStrace(t)
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	write(t, f, votes(100, "x").View(), store.ReasonStart)
	if err := f.KeepCurrent(); err != nil {
		t.Fatal(err)
	}
	states := f.Kept().List()
	if len(states) != 1 {
		t.Fatalf("the kept states are %+v", states)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	compressed := states[0].CompressedPath()
	cmd := straced(t, t.Context(), child("compress", path), "newfstatat", "-P", compressed, "-e", "inject=newfstatat:error=EIO")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "0 compressed, compress ") {
		t.Errorf("%s; %v", out, err)
	}
	if _, err := os.Stat(states[0].Path); err == nil {
		t.Error("the plain state still exists, so the test shows nothing")
	}
	if _, err := os.Stat(compressed); err != nil {
		t.Errorf("the only copy of the state was removed: %v", err)
	}
}
