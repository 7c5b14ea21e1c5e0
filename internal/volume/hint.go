package volume

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// WithHint adds to a file system error what to do about it. It returns any other error, and nil, unchanged.
func WithHint(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w; free some space (or inodes) on that volume", err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; mount that volume writable", err)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w; let user %d write to that folder", err, os.Geteuid())
	case errors.Is(err, syscall.EIO):
		return fmt.Errorf("%w; the device fails: look at the kernel's log", err)
	case errors.Is(err, syscall.EFBIG):
		return fmt.Errorf("%w; raise the limit on file size (ulimit -f)", err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%w; raise the limit on open files (ulimit -n)", err)
	}
	return err
}
