package store_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capture/store"
	"capture/store/disk"
)

func init() { children["interrupted"] = readWhileInterrupted }

// readWhileInterrupted writes a file of some MB, copies it to make the shadow file, and reads it back. It prints what it finds.
func readWhileInterrupted(args []string) error {
	f, err := store.Open(args[0], owner)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(copied(3000, strings.Repeat("x", 1000), nil).View(), store.ReasonStart); err != nil {
		return err
	}
	for more := true; more; {
		var r store.Result
		if r, more, err = f.Idle(context.Background(), nil); err != nil || r.Damage != "" || r.Warning != "" {
			return fmt.Errorf("Idle: %s%s, %v", r.Damage, r.Warning, err)
		}
	}
	damage, err := f.ReadBack(context.Background())
	data, readErr := os.ReadFile(args[0])
	shadow, _ := os.ReadFile(args[0] + ".tmp") // missing on a file system that does not support direct I/O
	fmt.Printf("read back: %s, %v; the shadow file is a copy: %t", damage, err, readErr == nil && bytes.Equal(shadow, data))
	return nil
}

// TestInterruptedReads interrupts every second read of the file, as a signal does. It checks that capture still copies the
// file to make the shadow file, reads the file back to its end, and does not report it as damaged.
func TestInterruptedReads(t *testing.T) {
	needStrace(t)
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	// With -P, strace interrupts only the reads of this file. Without it, strace would also interrupt the reads of the loader
	// of shared libraries.
	cmd := straced(t, t.Context(), child("interrupted", path), "pread64", "-P", path, "-e", "inject=pread64:error=EINTR:when=1+2")
	out, err := cmd.CombinedOutput()
	if want := fmt.Sprintf("read back: , <nil>; the shadow file is a copy: %t", disk.SupportsDirectIO(path)); err != nil || string(out) != want {
		t.Errorf("%s; %v; want %s", out, err, want)
	}
}
