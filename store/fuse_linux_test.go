package store_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"capture/store"
)

// mountFUSE mounts a FUSE file system that mirrors a folder, and returns its mount point. On a machine without bindfs or
// /dev/fuse, it skips the test. There, only the tests with PretendShare cover network shares.
func mountFUSE(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := errors.Join(os.Mkdir(from, 0o755), os.Mkdir(to, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bindfs", "-f", from, to)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Skipf("no FUSE file system here: %v", err)
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		exec.Command("umount", "-l", to).Run()
		cmd.Process.Kill()
		<-exited
	})
	mounted := false
	within(t, "the FUSE file system is mounted or refused", func() bool {
		select {
		case <-exited:
			return true
		default:
		}
		probed, err := store.ProbeFileSystem(to)
		mounted = err == nil && probed.Name == "FUSE"
		return mounted
	})
	if !mounted {
		t.Skipf("this machine mounts no FUSE file system: %s", said.String())
	}
	return to
}

// TestFUSE kills writers on a FUSE file system, which counts as a network share. It checks that each version is complete,
// that a second process is refused, and that the state before a loss is kept.
func TestFUSE(t *testing.T) {
	path := filepath.Join(mountFUSE(t), "feedback.json")
	f, tab := open(t, path), votes(100, "x")
	write(t, f, tab.View(), store.ReasonStart)
	f.Close()
	stop, read := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(read)
		for {
			select {
			case <-stop:
				return
			default:
			}
			var rows []json.RawMessage
			// Some FUSE file systems, such as bindfs, find files by path. On these, an open during a rename may find no file.
			if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &rows) != nil {
				t.Errorf("a reader saw %d bytes that are not valid", len(data))
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a reader: %v", err)
			}
		}
	}()
	killWriters(t, "write", path, 10, nil)
	close(stop)
	<-read
	f = open(t, path)
	if _, err := store.Open(path, owner); !errors.As(err, new(*store.LockedError)) {
		t.Errorf("a second process: %v", err)
	}
	write(t, f, tab.View(), store.ReasonStart)
	r := write(t, f, commit(t, tab, tab.Truncate), store.ReasonChange)
	if r.Kept == nil || r.Kept.Loss == nil || r.Kept.Rows != 100 {
		t.Fatalf("kept %+v", r.Kept)
	}
	if done, err := f.Kept().Compress(t.Context()); err != nil || len(done) == 0 {
		t.Fatalf("compressed %v, %v", done, err)
	}
	if n := rowsOf(t, unzip(t, f.Kept().List()[0].Path)); n != 100 {
		t.Errorf("the kept state has %d rows", n)
	}
	checkPair(t, path)
}
