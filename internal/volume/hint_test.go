package volume_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"capture/internal/volume"
)

func TestHintIsGivenOnce(t *testing.T) {
	inner := fmt.Errorf("keep the state: %w", volume.WithHint(fmt.Errorf("write x: %w", syscall.ENOSPC)))
	err := volume.WithHint(fmt.Errorf("flush: %w", inner))
	want := "flush: keep the state: write x: no space left on device; free some space (or inodes) on that volume"
	if err.Error() != want || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the error is %q, want %q", err, want)
	}
	if other := errors.New("other"); volume.WithHint(other) != other || volume.WithHint(nil) != nil {
		t.Error("another error has changed")
	}
}

func TestTempHintNamesFolderAndVariable(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	full := fmt.Errorf("sort: %w", &fs.PathError{Op: "write", Path: folder + "/capture-sort-1", Err: syscall.ENOSPC})
	if err := volume.WithTempHint(full); !strings.HasPrefix(err.Error(), full.Error()+"; set TMPDIR") || !strings.HasSuffix(err.Error(), folder+" now") || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the error is %q", err)
	}
	for _, other := range []error{nil, errors.New("other"), &fs.PathError{Op: "read", Path: folder + "-not/x", Err: syscall.EACCES}} {
		if err := volume.WithTempHint(other); err != other {
			t.Errorf("another error has changed: %v", err)
		}
	}
}
