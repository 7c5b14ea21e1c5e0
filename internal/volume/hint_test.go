package volume_test

import (
	"errors"
	"fmt"
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
