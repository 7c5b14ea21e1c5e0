package disk_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"capture/internal/filetest"
	"capture/store/disk"
)

// OpenRegular and OpenLinked wait while another program has a lease on the file. Only OpenLinked follows a link.
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
