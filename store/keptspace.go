package store

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"weak"

	"capture/internal/volume"
	"capture/snapshot"
)

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// writeWithLessKept drops kept states and tries once more to write v, after an attempt that found no room. The state before the largest
// loss that nobody has acknowledged is never dropped; if the room that it takes is missing, the error says so.
//
// It has v weakly, as its caller: a strong pointer would keep the rows that a Write releases.
func (f *File) writeWithLessKept(view weak.Pointer[snapshot.View], bytes int64, reason Reason, first Result, cause error) (Result, error) {
	free, err := volume.FreeBytes(f.folder())
	if err != nil {
		return first, cause
	}
	need := bytes + bytes/8 - free // a whole file with its padding
	if need <= 0 {
		return first, cause // it is inodes that are missing, or a limit of which the volume does not tell
	}
	dropped, short, err := f.kept.prune(need)
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
		for _, s := range f.kept.list() {
			if s.Loss != nil && !s.Acknowledged {
				return r, fmt.Errorf("%w; %s takes %d bytes and stays until its loss (%s) is acknowledged: "+
					"capture history --ack or more room ends that", cause, s.Path, s.DiskBytes, s.Loss)
			}
		}
	}
	return r, cause
}

// DiskBytes returns how many bytes the file takes with everything that belongs to it: manifest, lock file, shadow file and kept states.
// It reads no folder, which may hold a great many files of others.
func (f *File) DiskBytes() (n int64) {
	for _, path := range []string{f.dataPath, f.manifestPath, f.dataTmp(), lockPath(f.dataPath)} {
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
	}
	for _, s := range f.kept.list() {
		n += s.DiskBytes
	}
	return n
}
