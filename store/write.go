package store

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
	"weak"

	"capture/internal/volume"
	"capture/snapshot"
)

// Result is what a Write or an Idle did.
type Result struct {
	Manifest     Manifest // the manifest as it is on disk
	BytesWritten int64    // bytes of feedback.json that went to disk: all of a small file, of a large one mostly what changed

	// Damage is how the file that was read back differed from its manifest; "" if it was not read back, or did not differ. If there is no
	// error, it has been written whole since, or the next Write does that.
	Damage string

	// Kept is the state that was kept before the file was replaced: the state before a loss, or what an earlier run had left. It is
	// nil if nothing was kept. After an error it may be set, too.
	Kept *KeptState

	// Warning is a sentence for the log: that a damaged file was found and is kept, that a Write which a crash had interrupted
	// was completed, or that the next Write will take longer. It is "" if there is nothing to report.
	Warning string
}

// Write makes the file hold v, and returns once file and manifest are durable. Readers see the old file or the new one. All
// Views that a File is given must come from one [snapshot.Table]. If v has the rows that the last Write wrote and nobody has
// touched the file since, Write replaces only the manifest.
//
// After an error the old file, or else the new one, is there and complete, and the next Write writes everything (invariants 1
// and 6, docs/design.md). The error names the step, the path and,
// for common disk errors, what to do; the Result then has at most a warning. It is a [*LockedError] if the lock file was
// removed and another process has taken it.
//
// For ReasonChange alone the manifest of a large file may lack the SHA-256 of the whole file, which takes long: see
// [File.Idle].
func (f *File) Write(v *snapshot.View, reason Reason) (Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	view, bytes := weak.Make(v), v.Bytes()
	r, err := f.write(v, reason)
	if isNoSpace(err) {
		r, err = f.writeWithLessKept(view, bytes, reason, r, err)
	}
	if err == nil && reason == ReasonForced && f.last.patched {
		r, err = f.proveForced(view, r)
	}
	if err != nil {
		r, err = Result{Kept: r.Kept, Damage: r.Damage}, fmt.Errorf("flush %s: %w", filepath.Base(f.dataPath), volume.WithHint(err))
	}
	f.warn(f.share.takeWarning(f.dataPath))
	r.Warning, f.warning = f.warning, ""
	return r, err
}

func (f *File) write(v *snapshot.View, reason Reason) (Result, error) {
	if err := f.ensureLocked(); err != nil {
		return Result{}, err
	}
	// From here until success nothing counts as written, so an error makes the next Write start from scratch. There are two
	// reasons. After a failed fsync the kernel may have dropped the pages that it could not write, and it reports that only once.
	// And the digest of the last version is turned into that of the new one in place, so after an error it fits neither.
	last := f.last
	f.last = written{}
	m := newManifest(v, reason, f.captureVersion)
	complete := reason != ReasonChange
	next := written{view: weak.Make(v), shape: weak.Make(v.Shape()), version: v.Version(), rowBytes: v.Bytes()}
	bytesWritten := int64(0)
	var kept *KeptState
	var err error
	if last.hasRowsOf(v) && last.isOnDisk(f.dataPath) {
		if complete {
			if err := last.digest.complete(v, last.layout); err != nil {
				return Result{}, err
			}
		}
		m.Bytes = last.manifest.Bytes
		last.digest.setManifest(&m)
		if err := f.replaceManifest(m); err != nil {
			return Result{}, err
		}
		next.layout, next.rows, next.digest, next.patched = last.layout, last.rows, last.digest, last.patched
	} else {
		if kept, err = f.keepStanding(v, &last); err != nil {
			return Result{}, err
		}
		p := newPendingVersion(v, last, f.temp.use)
		p.complete = complete
		// The View is not used any more. As its parts are written, rows that the table no longer has can be freed.
		if err := f.replaceBoth(p, &m, last); err != nil {
			return Result{Kept: kept}, err
		}
		next.layout, next.rows, next.digest, next.patched, bytesWritten = p.Layout, p.rows, p.digest, p.patched, p.bytesWritten
	}
	info, err := os.Lstat(f.dataPath)
	if err != nil {
		f.temp.discard()
		return Result{}, err
	}
	next.manifest, next.file = m, info
	f.last, f.hasWritten = next, true
	f.rowCounts.add(time.Now(), m.Rows)
	return Result{Manifest: m, BytesWritten: bytesWritten, Kept: kept}, nil
}

// keepStanding keeps the standing file if there is a reason to before v replaces it. It returns the kept state, or nil.
func (f *File) keepStanding(v *snapshot.View, last *written) (*KeptState, error) {
	reason := f.findKeepReason(v, last)
	if reason == nil {
		return nil, nil
	}
	s, err := f.kept.keep(reason)
	if err != nil {
		return nil, err
	}
	if reason.loss != nil {
		f.rowCounts = nil // the next loss is one that comes on top
	}
	return &s, nil
}

// replaceBoth replaces file and manifest by the pending version and its manifest m. These are the steps, and what a crash or a
// power cut after each of them leaves (invariant 1, docs/design.md):
//
//	1  write the data under its temporary name, fsync it    the old pair; Open removes the temporary file
//	2  write the manifest under its own, fsync it           the old pair; Open removes both temporary files
//	3  rename the data (or exchange it with the shadow)     the new file with the old manifest. Open sees that the pending
//	                                                        manifest matches the file, and does step 4
//	4  rename the manifest                                  the new pair
//	5  fsync the folder                                     the new pair, durable
//
// Until step 5 a power cut may undo both renames or the second one; the result is that of step 2 or 3. Each fsync precedes the
// rename that depends on it.
//
// A shadow file may be patched only after step 5 of the Write that retired it: until then a power cut may undo the exchange, and
// the shadow is feedback.json again. So a shadow survives replaceBoth only if every step succeeded.
func (f *File) replaceBoth(p *pendingVersion, m *Manifest, last written) (err error) {
	renamed := false
	defer func() {
		if err == nil {
			return
		}
		f.temp.discard()
		if !renamed && f.lock.verify() == nil {
			os.Remove(f.manifestTmp())
		}
	}()
	if err := f.writePending(p, last); err != nil {
		return err
	}
	// A patched shadow stays open to the end: its lease makes readers who open the file wait until it is published.
	pending := f.temp.use
	defer pending.Close()
	m.Bytes = p.Bytes
	p.digest.setManifest(m)
	if err := f.writeManifest(*m); err != nil {
		return err
	}
	if err := f.quarantineExisting(); err != nil {
		return err
	}
	if err := f.temp.verify(); err != nil {
		return err
	}
	if info, err := os.Lstat(f.dataTmp()); err == nil {
		f.published.add(info)
	}
	if err := f.temp.publish(retire(last, p, f.dataPath)); err != nil {
		return err
	}
	renamed, f.existing.quarantine = true, "" // what was there before now has only its other name
	atRename()
	if err := f.share.rename(f.manifestTmp(), f.manifestPath); err != nil {
		return err
	}
	return syncFolder(f.folder())
}

// atRename is called between the two renames. Tests end the process there.
var atRename = func() {}

// quarantineExisting gives a damaged file and its manifest their second names, before they are replaced.
func (f *File) quarantineExisting() error {
	if f.existing.quarantine == "" {
		return nil
	}
	taken, err := quarantine(f.paths, f.existing.quarantine)
	if taken { // another file took the name after an earlier attempt: the next Write inspects again
		f.existing.checked = false
	}
	return err
}

// replaceManifest replaces the manifest alone.
func (f *File) replaceManifest(m Manifest) error {
	err := f.writeManifest(m)
	if err == nil {
		err = f.lock.verify()
	}
	if err == nil {
		err = f.share.rename(f.manifestTmp(), f.manifestPath)
	}
	if err != nil {
		os.Remove(f.manifestTmp())
		return err
	}
	return syncFolder(f.folder())
}

// writeManifest writes the manifest under its temporary name, synced.
func (f *File) writeManifest(m Manifest) error {
	data, err := m.encode()
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	write := func(file *os.File) error {
		_, err := file.Write(data)
		return err
	}
	if f.share != nil {
		return f.writeManifestOnShare(write)
	}
	return writeSynced(f.manifestTmp(), f.manifestPath, write)
}
