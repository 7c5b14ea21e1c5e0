package spill

import (
	"os"
	"syscall"
	"testing"
)

// TestWriteToFullVolume checks what Write does if the volume is full: it returns an error without the file's path, and frees
// the blocks that it has allocated.
func TestWriteToFullVolume(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	f := &File{file: full}
	_, err = f.Write([]byte("data"), 0)
	if err != syscall.ENOSPC || f.Size() != 0 || f.Damaged() {
		t.Errorf("%v, %d bytes in use", err, f.Size())
	}
}
