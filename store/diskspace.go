package store

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"weak"

	"capture/internal/volume"
	"capture/snapshot"
	"capture/store/disk"
	"capture/store/kept"
)

// writeWithLessKept is called when a first attempt to write the View has failed for lack of space. It drops kept states, the
// least important ones first, and calls write again, until a write succeeds or no state may be dropped. It never drops the
// state before the largest unacknowledged loss. If the write fails because this state takes too much space, the error names
// the state.
//
// view is a weak pointer. A strong pointer would keep all rows in memory, although Write releases rows while it writes.
func (f *File) writeWithLessKept(view weak.Pointer[snapshot.View], bytes int64, write func(*snapshot.View) (Result, error), r Result, cause error) (Result, error) {
	first := r.Kept
	for disk.IsFull(cause) {
		need, err := f.missingSpace(bytes, cause)
		if need == 0 || err != nil {
			return r, cause
		}
		dropped, left, err := f.kept.MakeRoom(need)
		if err != nil {
			return r, errors.Join(cause, err)
		}
		if r.Kept != nil && slices.ContainsFunc(dropped, func(s kept.State) bool { return s.Path == r.Kept.Path }) {
			r.Kept, first = nil, nil
		}
		// Ignore a dropped state that was only a second name of the current file, because its removal has freed no space. If
		// its removal counted as progress, the next attempt could keep the same file again, and so on without end.
		standing, serr := os.Lstat(f.dataPath)
		dropped = slices.DeleteFunc(dropped, func(s kept.State) bool { return serr == nil && s.SharesData(standing) })
		v := view.Value()
		if len(dropped) == 0 || v == nil {
			if left != nil && !(serr == nil && left.SharesData(standing)) && (left.DiskBytes >= need || errors.Is(cause, syscall.EDQUOT)) {
				cause = fmt.Errorf("%w; %s takes %d bytes and stays until its loss (%s) is acknowledged: "+
					"capture history --ack or more room ends that", cause, left.Path, left.DiskBytes, left.Loss)
			}
			return r, cause
		}
		if r, cause = write(v); r.Kept == nil {
			r.Kept = first
		}
	}
	return r, cause
}

// missingSpace returns how many bytes the volume lacks for a file of the given length with its padding. It returns 0 if the
// volume seems to have room. cause is the error of the write that has failed.
func (f *File) missingSpace(bytes int64, cause error) (int64, error) {
	need := bytes + bytes/8
	if errors.Is(cause, syscall.EDQUOT) {
		return need, nil // the volume does not report how much of a quota is free
	}
	usage, err := volume.Measure(f.folder())
	if err == nil && usage.Inodes > 0 && usage.FreeInodes < 4 {
		return max(need-usage.Free, 1), nil // at least 1, so that at least one state is dropped and its inodes are freed
	}
	return max(need-usage.Free, 0), err
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
