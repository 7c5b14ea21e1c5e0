package statefile

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"capture/internal/busy"
)

// memberBytes is the decompressed length of each gzip member between the first and the last member of writeGzip's file.
const memberBytes = 256 << 10

// writeGzip writes a gzip file and returns its path. The file consists of several gzip members. The first member contains
// the start text, and the last member contains the end text. The given number of members is between them, and each of these
// contains memberBytes letters x. To save time, writeGzip compresses only one of these members, and repeats the result.
func writeGzip(t *testing.T, start string, members int, end string) string {
	t.Helper()
	compress := func(text []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	content := compress([]byte(start))
	content = append(content, bytes.Repeat(compress(bytes.Repeat([]byte("x"), memberBytes)), members)...)
	content = append(content, compress([]byte(end))...)
	path := filepath.Join(t.TempDir(), "feedback.json.gz")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestGzipBombIsRefused checks that a Reader refuses a row that a small gzip file inflates far beyond the limit, before the
// row takes much memory. The Reader accepts an ordinary row that compresses well.
func TestGzipBombIsRefused(t *testing.T) {
	for _, c := range []struct {
		members int
		want    error
	}{{3, nil}, {64, errRatio}} {
		path := writeGzip(t, `[{"id":1},`+"\n"+`{"id":2,"c":"`, c.members, `"}]`)
		f, err := Open(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := NewReader(f)
		r.input.free = 1 << 20
		_, err = readAll(r)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, c.want) {
			t.Errorf("%d members: %v", c.members, err)
		}
		if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 25 { // a Reader that did not refuse the row of 16 MB would allocate about 50 MB
			t.Errorf("%d members: %d MB were allocated", c.members, allocated)
		}
	}
}

func TestRowOfTooManyMembersIsRefused(t *testing.T) {
	members := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"c%d":%d`, i, i)
		}
		return "[{" + b.String()[1:] + "}]"
	}
	if rows, err := readAll(NewReader(strings.NewReader(members(maxMembers)))); err != nil || len(rows[0].Members) != maxMembers {
		t.Errorf("%d members: %v", maxMembers, err)
	}
	start := time.Now()
	if _, err := readAll(NewReader(strings.NewReader(members(60_000)))); !errors.Is(err, errMembers) || time.Since(start) > busy.Limit(time.Second) {
		t.Errorf("60,000 members: %v after %s", err, time.Since(start))
	}
}

func TestDeepNestingIsRefused(t *testing.T) {
	for _, c := range []string{"[", `{"a":`} {
		if _, err := readAll(NewReader(strings.NewReader(`[{"a":` + strings.Repeat(c, 1_000_000)))); !errors.Is(err, errSyntax) {
			t.Errorf("a million %s: %v", c, err)
		}
	}
}

// TestPipeIsLeftAtTheEndOfTheContext checks that capture stops waiting for a pipe when the context ends. The pipe has no
// writer, or its writer sends nothing.
func TestPipeIsLeftAtTheEndOfTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, path, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a pipe without a writer: %v", err)
	}
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString("[{}"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	f, err := Open(ctx, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := readAll(NewReader(f)); !errors.Is(err, context.Canceled) {
		t.Errorf("a pipe whose writer says nothing: %v", err)
	}
}

// TestLoadViewRefusesWhatCaptureDoesNotWrite checks that LoadView refuses a compressed feedback.json without decompressing
// it. The daemon never writes such a file.
func TestLoadViewRefusesWhatCaptureDoesNotWrite(t *testing.T) {
	from := writeGzip(t, `[{"id":1,"c":"`, 64, `"}]`)
	path := filepath.Join(filepath.Dir(from), "feedback.json")
	if err := os.Rename(from, path); err != nil {
		t.Fatal(err)
	}
	manifest := `{"format":1,"table":{"schema":"public","name":"votes"},"columns":[{"name":"id","type":"integer"},{"name":"c","type":"text"}],"key":["id"],
		"rows":1,"bytes":1073741842,"sha256":"` + strings.Repeat("0", 64) + `"}`
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "feedback.manifest.json"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadView(t.Context(), path); err == nil || !strings.Contains(err.Error(), "compressed") {
		t.Errorf("a planted gzip file: %v", err)
	}
}
