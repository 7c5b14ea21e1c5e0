package store_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"capture/store"
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
	fmt.Printf("read back: %s, %v", damage, err)
	return nil
}

// TestInterruptedReads: a signal interrupts every second read of the file. capture still reads the file to its end, and does not
// report it as damaged.
func TestInterruptedReads(t *testing.T) {
	needStrace(t)
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	// With -P, strace interrupts only the reads of this file, and not those of the loader of shared libraries.
	cmd := straced(t, t.Context(), child("interrupted", path), "pread64", "-P", path, "-e", "inject=pread64:error=EINTR:when=1+2")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "read back: , <nil>" {
		t.Errorf("%s; %v", out, err)
	}
}
