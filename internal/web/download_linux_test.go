package web

import (
	"fmt"
	"path/filepath"
	"testing"

	"capture/internal/filetest"
)

// A file server can have a lease on the file. The kernel then makes capture wait until the file server gives up the lease.
func TestDownloadOfALeasedFile(t *testing.T) {
	h := newHarness(t, nil)
	h.replace(t, "feedback.json", "[]\n")
	err := filetest.OpenLeased(t, filepath.Join(h.dir, "feedback.json"), func() error {
		if w := h.do("GET", "/feedback.json"); w.Code != 200 || w.Body.String() != "[]\n" {
			return fmt.Errorf("%d %q", w.Code, w.Body)
		}
		return nil
	}, nil)
	if err != nil {
		t.Error(err)
	}
}
