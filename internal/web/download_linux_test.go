package web

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"capture/internal/filetest"
)

// TestDownloadOfALeasedFile checks that a download succeeds if another program, such as a file server, has a lease on the
// file or on the token file. The kernel makes capture wait until that program gives up the lease.
func TestDownloadOfALeasedFile(t *testing.T) {
	token := strings.Repeat("t", minTokenLength)
	h := newHarness(t, func(c *Config) { c.TokenFile = filepath.Join(filepath.Dir(c.Path), "token") })
	h.replace(t, "feedback.json", "[]\n")
	h.replace(t, "token", token)
	for _, name := range []string{"feedback.json", "token"} {
		err := filetest.OpenLeased(t, filepath.Join(h.dir, name), func() error {
			if w := h.do("GET", "/feedback.json", "Authorization", "Bearer "+token); w.Code != 200 || w.Body.String() != "[]\n" {
				return fmt.Errorf("%d %q", w.Code, w.Body)
			}
			return nil
		}, nil)
		if err != nil {
			t.Errorf("a lease on %s: %v", name, err)
		}
	}
}
