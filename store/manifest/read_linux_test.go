package manifest_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capture/internal/busy"
	"capture/internal/filetest"
	"capture/store/manifest"
)

// TestReadLeasedManifest checks that Read waits while another program, such as a file server, has a lease on the manifest.
// The manifest's path is a symbolic link.
func TestReadLeasedManifest(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "feedback.json")
	const text = `{"format":1,"sha256":"4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945","rows":0,"bytes":2}`
	target := filepath.Join(dir, "other")
	if err := os.WriteFile(target, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, manifest.Path(path)); err != nil {
		t.Fatal(err)
	}
	read := func() error {
		_, err := manifest.Read(path)
		return err
	}
	if err := filetest.OpenLeased(t, target, read, nil); err != nil {
		t.Error(err)
	}
}

// TestHashFileOfPipeOrLink checks that HashFile does not wait for the writer of a named pipe, and does not follow a symbolic
// link. Somebody could put a pipe, or a link to a file that only capture may read, in the place of the file.
func TestHashFileOfPipeOrLink(t *testing.T) {
	dir := t.TempDir()
	pipe, link, target := filepath.Join(dir, "pipe"), filepath.Join(dir, "link"), filepath.Join(dir, "target")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(target, []byte("[]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, link} {
		done := make(chan error, 1)
		go func() {
			_, err := manifest.HashFile(path)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("hashed %s", path)
			}
		case <-time.After(busy.Limit(10 * time.Second)):
			t.Errorf("HashFile waits for the writer of %s", path)
		}
	}
}
