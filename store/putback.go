package store

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
	"weak"

	"capture/internal/foreign"
	"capture/snapshot"
	"capture/store/disk"
	"capture/store/manifest"
)

// PutBack puts the file of an earlier run in place again if readers no longer find it. It is called before the first Write of
// this run, when the rows of this file may be nowhere else. v has these rows, and m is the manifest with which they were read.
// The new manifest equals m, except for the file's size and digest.
//
// PutBack makes the same checks as a Write: it refuses another device, takes the lock again, and keeps any file that somebody
// has put in the place of feedback.json. If that file has different rows, it is kept even if the policy keeps no ordinary
// states, because its rows may be nowhere else. But PutBack returns an error if a newer state of the same table is there: only a
// person can say why another program has written it. The next Write compares the file with the new rows, as if PutBack had not
// been called.
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
	if f.doubtful > 0 { // the source has loaded the rows, but has then called DropHorizon
		m.Horizon = nil
	}
	there, err := os.Lstat(f.dataPath)
	switch {
	case err == nil && f.standing.intact && f.standing.data.isUntouched(f.dataPath, there) && ownerMayRead(f.dataPath):
		// The file itself has stayed, so only the manifest, the lock file or a mode was wrong.
		if err := f.replaceManifest(m); err != nil {
			return Result{}, err
		}
		f.existing = existing{checked: true, intact: true, manifest: m}
		return Result{Manifest: m}, nil
	case err == nil:
		if err := f.refuseNewer(&m); err != nil {
			return Result{}, err
		}
		f.existing.foreign = true
	case !disk.IsMissing(err):
		return Result{}, err
	}
	state, err := f.keepStanding(v, &written{})
	if err != nil {
		return Result{}, err
	}
	f.last = written{} // if the source has loaded the earlier run's file, f.last describes that file, which is replaced now
	f.temp.discard()   // if WriteAhead has written the start of a file, this start has other rows
	p := newPendingVersion(v, written{}, nil)
	p.complete = true
	err = f.replaceBoth(p, &m, written{})
	f.hasWritten = false // even after an error: CheckInPlace then still compares the files, and PutBack is called again
	if err == nil {
		there, err = os.Lstat(f.dataPath)
	}
	if err != nil {
		return Result{Kept: state}, err
	}
	f.standing.setData(there)
	f.existing = existing{checked: true, intact: true, manifest: m}
	return Result{Manifest: m, BytesWritten: p.bytesWritten, Kept: state}, nil
}

// refuseNewer returns an error if another program has put an intact file at the path of feedback.json, and this file is newer
// than the state that m describes.
func (f *File) refuseNewer(m *manifest.Manifest) error {
	there := &f.existing.manifest
	if !f.existing.intact || !there.HasTableOf(m) || !there.IsLaterThan(m) {
		return nil
	}
	return fmt.Errorf("another program has put a newer %s there (%s), and the rows in memory are older (%s): capture leaves the newer file as it is. "+
		"If another capture writes this file, stop one of the two, or give it another --output. Then restart capture, which serves the newer file. "+
		"To use the older rows, move the newer file away", filepath.Base(f.dataPath), describeState(there), describeState(m))
}

// describeState describes the state of a manifest that another program may have written.
func describeState(m *manifest.Manifest) string {
	position := ""
	if m.LSN != "" {
		position = "LSN " + foreign.Text(m.LSN) + ", "
	}
	return fmt.Sprintf("%swritten at %s by %s", position, m.WrittenAt.UTC().Format(time.RFC3339), foreign.Text(m.WrittenBy))
}
