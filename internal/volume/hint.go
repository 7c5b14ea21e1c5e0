package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// WithHint adds to a file system error a hint about what to do. It returns err unchanged if it knows no hint for err, or if err
// has a hint already.
func WithHint(err error) error {
	if text := hint(err); text != "" && !errors.As(err, new(*hintedError)) {
		return &hintedError{err, text}
	}
	return err
}

// WithTempHint adds a hint to an error about a file in the system's folder for temporary files. The hint names this folder, and
// the variable that selects another one. WithTempHint returns any other error unchanged.
func WithTempHint(err error) error {
	var p *fs.PathError
	folder := os.TempDir()
	inside := strings.TrimSuffix(folder, "/") + "/"
	if !errors.As(err, &p) || !strings.HasPrefix(p.Path+"/", inside) {
		return err
	}
	text := fmt.Sprintf("set TMPDIR to a folder with enough space to which user %d may write; it is %s now", os.Geteuid(), folder)
	return &hintedError{err, text}
}

// hintedError is an error with a hint.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() + "; " + e.hint }
func (e *hintedError) Unwrap() error { return e.err }

// hint returns what to do about a file system error. It returns "" if it has no advice for the error.
func hint(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free some space (or inodes) on that volume"
	case errors.Is(err, syscall.EROFS):
		return "mount that volume writable"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Sprintf("let user %d %s", os.Geteuid(), missingRight(err))
	case errors.Is(err, syscall.EIO):
		return "the device fails: look at the kernel's log"
	case errors.Is(err, syscall.EFBIG):
		return "raise the limit on file size (ulimit -f)"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "raise the limit on open files (ulimit -n)"
	}
	return ""
}

// missingRight describes the right that the user needs for the step that failed with err, for example "write to that folder".
// If the error names a file or a folder that exists and has a wrong mode, missingRight names the mode.
func missingRight(err error) string {
	const usual = "write to that folder"
	p := (*fs.PathError)(nil)
	if !errors.As(err, &p) {
		return usual
	}
	info, err := os.Lstat(p.Path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		folder := filepath.Dir(p.Path)
		for info, err = os.Lstat(folder); errors.Is(err, fs.ErrPermission); info, err = os.Lstat(folder) {
			folder = filepath.Dir(folder)
		}
		if err != nil {
			return usual
		}
		return fmt.Sprintf("enter the folder %s, whose mode is %04o (chmod u+x)", folder, info.Mode().Perm())
	case err != nil:
		return usual
	case info.Mode().IsRegular() && unix.Access(p.Path, unix.R_OK|unix.W_OK) != nil:
		return fmt.Sprintf("read and write that file, whose mode is %04o (chmod u+rw)", info.Mode().Perm())
	case info.IsDir() && unix.Access(p.Path, unix.R_OK|unix.W_OK|unix.X_OK) != nil:
		return fmt.Sprintf("read, write and enter that folder, whose mode is %04o (chmod u+rwx)", info.Mode().Perm())
	}
	return usual
}
