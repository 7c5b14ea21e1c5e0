package disk_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"capture/internal/filetest"
	"capture/store/disk"
)

// TestOpenLeasedFile checks that OpenRegular and OpenLinked wait while another program has a lease on the file, and that
// only OpenLinked follows a link.
func TestOpenLeasedFile(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() (*os.File, error){
		"OpenRegular": func() (*os.File, error) { return disk.OpenRegular(path) },
		"OpenLinked":  func() (*os.File, error) { return disk.OpenLinked(link) },
	} {
		err := filetest.OpenLeased(t, path, func() error {
			f, err := open()
			if err != nil {
				return err
			}
			defer f.Close()
			if data, err := io.ReadAll(f); err != nil || string(data) != "text" {
				t.Errorf("%s: read %q, %v", name, data, err)
			}
			return nil
		}, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f, err := disk.OpenRegular(link); err == nil {
		f.Close()
		t.Error("OpenRegular has followed a link")
	}
}

// TestPipeReplacesLeasedFile puts a named pipe in the place of a file while OpenRegular waits for the end of a lease.
// OpenRegular must not wait for the writer of the pipe.
func TestPipeReplacesLeasedFile(t *testing.T) {
	dir := t.TempDir()
	path, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "pipe")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	err := filetest.OpenLeased(t, path, func() error {
		f, err := disk.OpenRegular(path)
		if err == nil {
			f.Close()
		}
		return err
	}, func() {
		if err := os.Rename(pipe, path); err != nil {
			t.Error(err)
		}
	})
	if err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("opened the pipe: %v", err)
	}
}
