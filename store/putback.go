package store

import (
	"os"
	"weak"

	"capture/snapshot"
	"capture/store/disk"
	"capture/store/manifest"
)

// PutBack puts the file of an earlier run in place again if readers no longer find it. It is called before the first Write of
// this run, when the rows of this file may be nowhere else. v has these rows, and m is the manifest with which they were read.
// The new manifest equals m, except for the file's size and digest.
//
// PutBack makes the same checks as a Write: it refuses another device, takes the lock again, and keeps a file that somebody has
// put in the place of the file. The next Write compares the file with the new rows, as if PutBack had not been called.
func (f *File) PutBack(v *snapshot.View, m manifest.Manifest) (Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	write := func(v *snapshot.View) (Result, error) { return f.putBack(v, m) }
	r, err := write(v)
	if disk.IsFull(err) {
		r, err = f.writeWithLessKept(weak.Make(v), v.Bytes(), write, r, err)
	}
	return f.describeResult(r, err)
}

func (f *File) putBack(v *snapshot.View, m manifest.Manifest) (Result, error) {
	if err := f.ensureLocked(); err != nil {
		return Result{}, err
	}
	there, err := os.Lstat(f.dataPath)
	switch {
	case err == nil && f.standing.intact && isSameVersion(there, f.standing.data) && ownerMayRead(f.dataPath):
		// The file itself has stayed, so only the manifest, the lock file or a mode was wrong.
		if err := f.replaceManifest(m); err != nil {
			return Result{}, err
		}
		f.existing = existing{checked: true, intact: true, manifest: m}
		return Result{Manifest: m}, nil
	case err == nil:
		f.inspectExisting(hashAll) // the inspection by Open was of another file
	case !disk.IsMissing(err):
		return Result{}, err
	}
	state, err := f.keepStanding(v, &written{})
	if err != nil {
		return Result{}, err
	}
	f.temp.discard() // WriteAhead may have written the start of a file, with other rows
	p := newPendingVersion(v, written{}, nil)
	p.complete = true
	err = f.replaceBoth(p, &m, written{})
	f.hasWritten = false // otherwise CheckInPlace would wait for the repetition of a failed Write
	if err != nil {
		return Result{Kept: state}, err
	}
	if there, err = os.Lstat(f.dataPath); err != nil {
		return Result{Kept: state}, err
	}
	f.standing.data, f.standing.intact = there, true
	f.existing = existing{checked: true, intact: true, manifest: m}
	return Result{Manifest: m, BytesWritten: p.bytesWritten, Kept: state}, nil
}
