package store_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"capture/store"
	"capture/store/disk"
	"capture/store/manifest"
)

func init() { children["share adopt"] = adoptOnShare }

// adoptOnShare adopts the state at args[1] as the file at args[0], and prints the names of the temporary files that exist
// during the adoption.
func adoptOnShare(args []string) error {
	store.PretendShare()
	f, err := store.Open(args[0], owner)
	if err != nil {
		return err
	}
	m, err := manifest.Read(args[1])
	if err != nil {
		return err
	}
	data, err := os.Open(args[1])
	if err != nil {
		return err
	}
	print := readerFunc(func(b []byte) (int, error) {
		names, _ := filepath.Glob(disk.Hidden(args[0]) + "*.tmp")
		for _, name := range names {
			fmt.Println(filepath.Base(name))
		}
		return 0, io.EOF
	})
	if adopted, err := f.Adopt(m, io.MultiReader(data, print)); err != nil || !adopted {
		return fmt.Errorf("adopted %t: %w", adopted, err)
	}
	return f.Close()
}

// readerFunc is a function that is an io.Reader.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestAdoptOnShare checks that Adopt uses a temporary name with the lock word of its process, so that two processes never mix
// their data. It also checks that Open removes a file with such a name that a crash has left.
func TestAdoptOnShare(t *testing.T) {
	t.Parallel()
	from := open(t, filepath.Join(t.TempDir(), "feedback.json"))
	write(t, from, votes(20, "x").View(), store.ReasonStart)
	path := filepath.Join(t.TempDir(), "feedback.json")
	if err := os.WriteFile(disk.Hidden(path)+".adopted-0123456789abcdef.tmp", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := child("share adopt", path, from.Path()).Output()
	if err != nil || !regexp.MustCompile(`^\.feedback\.json\.adopted-[0-9a-f]{16}\.tmp\n$`).Match(out) || strings.Contains(string(out), "0123456789abcdef") {
		t.Errorf("the temporary files are %q, %v", out, err)
	}
	if m := checkPair(t, path); m.Rows != 20 {
		t.Errorf("%d rows", m.Rows)
	}
	if left := leftovers(t, path); left != nil {
		t.Errorf("left over: %v", left)
	}
}

// TestAdopt checks that a state from elsewhere becomes the file of an empty folder, and that the next Write treats this file
// like the file of an earlier run.
func TestAdopt(t *testing.T) {
	t.Parallel()
	from := open(t, filepath.Join(t.TempDir(), "feedback.json"))
	m := write(t, from, votes(200, "x").View(), store.ReasonStart).Manifest
	data, err := os.ReadFile(from.Path())
	if err != nil {
		t.Fatal(err)
	}
	m.Kept = &manifest.Kept{Other: true}
	m.Horizon = &manifest.Horizon{RowFormat: 1} // Adopt must remove a horizon that somebody has put into the manifest

	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	for what, bad := range map[string][]byte{
		"cut short": data[:len(data)-3], "longer": append(bytes.Clone(data), ' '), "changed": bytes.Replace(data, []byte("x"), []byte("y"), 1), "empty": nil,
	} {
		if adopted, err := f.Adopt(m, bytes.NewReader(bad)); err == nil || adopted {
			t.Errorf("%s: adopted %t, %v", what, adopted, err)
		}
		if files := folder(t, path); len(files) != 1 { // only the lock file may be there
			t.Errorf("%s: it left %q", what, files)
		}
	}
	huge := m
	huge.Bytes = 1 << 60
	if adopted, err := f.Adopt(huge, bytes.NewReader(data)); err == nil || adopted || !strings.Contains(err.Error(), "free on the volume") {
		t.Errorf("a huge state: adopted %t, %v", adopted, err)
	}
	if adopted, err := f.Adopt(m, bytes.NewReader(data)); err != nil || !adopted {
		t.Fatalf("adopted %t, %v", adopted, err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the file has %d bytes (%v), want %d", len(got), err, len(data))
	}
	if there, err := manifest.Read(path); err != nil || there.SHA256 != m.SHA256 || there.Kept != nil || there.Horizon != nil {
		t.Errorf("the manifest is %+v (%v)", there, err)
	}
	if existing, ok := f.Existing(); !ok || existing.Rows != 200 || existing.Horizon != nil {
		t.Errorf("existing is %+v, %t", existing, ok)
	}
	if info, err := os.Stat(path); err != nil || !f.Published(info) {
		t.Errorf("the file does not count as published (%v)", err)
	}
	if adopted, err := f.Adopt(m, bytes.NewReader(data)); err != nil || adopted {
		t.Errorf("a second time: adopted %t, %v", adopted, err)
	}
	r := write(t, f, votes(20, "x").View(), store.ReasonStart)
	if r.Kept == nil || r.Kept.Loss == nil || r.Kept.Rows != 200 {
		t.Errorf("the Write kept %+v", r.Kept)
	}
}

// TestLossInStepsOverAdopt checks that two deletions together count as a loss, even if Adopt is called between them. The
// first deletion happens before the adopted state is written, and the second after it is adopted.
func TestLossInStepsOverAdopt(t *testing.T) {
	t.Parallel()
	from, tab := open(t, filepath.Join(t.TempDir(), "feedback.json")), votes(1000, "x")
	write(t, from, tab.View(), store.ReasonStart)
	deleteRows := func(first, end int) {
		commit(t, tab, func() {
			for i := first; i < end; i++ {
				tab.Delete(key(i))
			}
		})
	}
	deleteRows(0, 60)
	m := write(t, from, tab.View(), store.ReasonForced).Manifest
	f := open(t, filepath.Join(t.TempDir(), "feedback.json"))
	if adopted, err := f.Adopt(m, bytes.NewReader(read(t, from.Path()))); err != nil || !adopted {
		t.Fatalf("adopted %t, %v", adopted, err)
	}
	deleteRows(60, 105)
	r := write(t, f, tab.View(), store.ReasonStart)
	if r.Kept == nil || r.Kept.Loss == nil || r.Kept.Loss.HourHighest != 1000 || r.Kept.Rows != 940 {
		t.Errorf("the Write kept %+v", r.Kept)
	}
}

// TestAdoptAfterWrite checks that Adopt does nothing after a Write, even if somebody has removed the file since.
func TestAdoptAfterWrite(t *testing.T) {
	t.Parallel()
	f := open(t, filepath.Join(t.TempDir(), "feedback.json"))
	m := write(t, f, votes(3, "x").View(), store.ReasonStart).Manifest
	if err := os.Remove(f.Path()); err != nil {
		t.Fatal(err)
	}
	if adopted, err := f.Adopt(m, bytes.NewReader(nil)); err != nil || adopted {
		t.Errorf("adopted %t, %v", adopted, err)
	}
}

// folder returns the names in the folder of path.
func folder(t *testing.T, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
