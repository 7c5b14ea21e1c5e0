package store

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"weak"

	"capture/internal/volume"
	"capture/snapshot"
	"capture/store/manifest"
)

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// writeWithLessKept drops kept states and writes the View again, after a first attempt that failed for lack of space. It never
// drops the state before the largest unacknowledged loss. If the write fails because of that state, the error says so.
//
// view is a weak pointer, because a strong one would keep rows in memory that Write releases.
func (f *File) writeWithLessKept(view weak.Pointer[snapshot.View], bytes int64, reason manifest.Reason, first Result, cause error) (Result, error) {
	free, err := volume.FreeBytes(f.folder())
	if err != nil {
		return first, cause
	}
	need := bytes + bytes/8 - free // space that a whole file with its padding lacks
	if need <= 0 {
		return first, cause // inodes are missing, or a quota that volume does not report is used up
	}
	dropped, short, err := f.kept.MakeRoom(need)
	if err != nil {
		return first, errors.Join(cause, err)
	}
	r := first
	if v := view.Value(); len(dropped) > 0 && v != nil {
		if r, err = f.write(v, reason); r.Kept == nil {
			r.Kept = first.Kept
		}
		if !isNoSpace(err) {
			return r, err
		}
		cause = err
	}
	if short > 0 {
		for _, s := range f.kept.List() {
			if s.Loss != nil && !s.Acknowledged {
				return r, fmt.Errorf("%w; %s takes %d bytes and stays until its loss (%s) is acknowledged: "+
					"capture history --ack or more room ends that", cause, s.Path, s.DiskBytes, s.Loss)
			}
		}
	}
	return r, cause
}

// DiskBytes returns the number of bytes of the file and of all files that belong to it: manifest, lock file, shadow file and
// kept states. It does not read the folder, which may have very many files of other programs.
func (f *File) DiskBytes() (n int64) {
	for _, path := range []string{f.dataPath, f.manifestPath, f.dataTmp(), lockPath(f.dataPath)} {
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
	}
	for _, s := range f.kept.List() {
		n += s.DiskBytes
	}
	return n
}
