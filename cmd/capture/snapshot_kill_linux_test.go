package main

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"capture/store/kept"
	"capture/store/manifest"
)

// TestSnapshotKilledAtEachStep empties the table while no daemon runs. It then kills `capture snapshot` at its system calls
// that sync, link, rename and remove files. After each kill, the rows are in the file or in a kept state. The next snapshot
// finishes the work. By default, the test tries every third call. With CAPTURE_TEST_KILLS, it tries every call.
func TestSnapshotKilledAtEachStep(t *testing.T) {
	if testing.Short() {
		t.Skip("kills many commands")
	}
	t.Parallel()
	needStrace(t)
	const rows = 50
	url := votesDatabase(t, rows)
	before := t.TempDir()
	if got := runPlain(t, before, []string{"DATABASE_URL=" + url}, "snapshot"); got.code != exitDone {
		t.Fatalf("%+v", got)
	}
	sql(t, url, "TRUNCATE votes")
	step := 3
	if os.Getenv("CAPTURE_TEST_KILLS") != "" {
		step = 1
	}
	kills := 0
	for n := 1; ; n += step {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(before)); err != nil {
			t.Fatal(err)
		}
		capture := prepare(t.Context(), dir, []string{"DATABASE_URL=" + url}, "snapshot")
		strace := exec.Command("strace", append([]string{"-f", "-qq", "-o", os.DevNull, "-e",
			fmt.Sprintf("inject=fsync,linkat,renameat,renameat2,unlinkat:signal=KILL:when=%d", n), capture.Path}, capture.Args[1:]...)...)
		strace.Dir, strace.Env = capture.Dir, capture.Env
		out, err := strace.CombinedOutput()
		path := filepath.Join(dir, "data/fallback/feedback.json")
		if killed := err != nil; killed {
			kills++
			if most := max(rowsInFile(t, path), rowsKept(t, path)); most != rows {
				t.Fatalf("killed at call %d, the file and the kept states have at most %d rows: %s", n, most, out)
			}
		}
		if got := run(t, dir, []string{"DATABASE_URL=" + url}, "snapshot"); got.code != exitDone {
			t.Fatalf("after a kill at call %d: %+v", n, got)
		}
		states, lerr := kept.List(path)
		if rowsInFile(t, path) != 0 || rowsKept(t, path) != rows || lerr != nil || len(states) != 1 || states[0].Loss == nil || states[0].Damaged != "" {
			t.Fatalf("after a kill at call %d the kept states are %+v, %v", n, states, lerr)
		}
		if err == nil {
			break
		}
	}
	if kills < 2 {
		t.Errorf("%d kills", kills)
	}
	t.Logf("%d kills", kills)
}

// rowsInFile returns the number of rows in the file, which must be complete.
func rowsInFile(t *testing.T, path string) int {
	t.Helper()
	file, manifests, err := manifest.OpenRead(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	h, data := manifest.NewHasher(manifests...), strings.Builder{}
	if _, err := io.Copy(io.MultiWriter(h, &data), file); err != nil {
		t.Fatal(err)
	}
	for _, m := range manifests {
		if h.Mismatch(m) == "" {
			return countRows(t, data.String())
		}
	}
	t.Fatalf("%s matches none of its manifests", path)
	return 0
}

// rowsKept returns the number of rows in the largest kept state.
func rowsKept(t *testing.T, path string) (most int) {
	t.Helper()
	states, err := kept.List(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range states {
		file, err := os.Open(s.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		var from io.Reader = file
		if strings.HasSuffix(s.Path, ".gz") {
			if from, err = gzip.NewReader(file); err != nil {
				t.Fatal(err)
			}
		}
		data, err := io.ReadAll(from)
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, countRows(t, string(data)))
	}
	return most
}

func countRows(t *testing.T, data string) int {
	t.Helper()
	var rows []json.RawMessage
	if err := json.Unmarshal([]byte(data), &rows); err != nil {
		t.Fatal(err)
	}
	return len(rows)
}
