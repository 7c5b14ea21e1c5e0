package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"weak"

	"capture/internal/volume"
	"capture/snapshot"
	"capture/store/disk"
	"capture/store/kept"
	"capture/store/manifest"
)

// Result describes what a Write or an Idle did.
type Result struct {
	Manifest     manifest.Manifest // the manifest as it is on disk
	BytesWritten int64             // bytes of feedback.json that were written to disk; for a large file usually only the changed ranges

	// Damage describes how the file differed from its manifest when it was read back. It is "" if the file matched, or if it
	// was not read back. If Write returns Damage and no error, it has already replaced the damaged file. If Idle returns
	// Damage, the next Write replaces the damaged file.
	Damage string

	// Kept is the state that Write kept before it replaced the file, or nil. Write keeps the file before a loss, and before a
	// version of another table, database or cluster. It also keeps the file of an earlier run if the rows differ and the policy
	// keeps ordinary states. It also keeps a file with other rows that another program has put in place with its manifest. Kept
	// may be set even if Write returns an error.
	Kept *kept.State

	// Warning is a message for the log. For example, it says that a damaged file was kept, that a Write interrupted by a crash
	// was completed, or that the next Write will take longer. It is "" if there is nothing to report.
	Warning string
}

// Write makes the file hold v, and returns once the file and its manifest are durable. Readers see either the old file or the
// new one. All Views that are written to one File must come from one [snapshot.Table]. If v has the same rows as the last Write
// and nobody has touched the file since, Write replaces only the manifest.
//
// After an error, either the old file or the new one is in place and complete, and the next Write writes the whole file
// (invariants 1 and 6, docs/design.md). The error names the step and the path and, for common disk errors, says what to do.
// The Result then has only Damage, Kept and Warning. The error wraps a [*LockedError] if another process has taken the lock.
//
// After a Write with ReasonChange, the manifest of a large file may lack the SHA-256 of the whole file, because hashing the
// whole file takes long. [File.Idle] adds this SHA-256. After a Write with another reason, the manifest always has it.
func (f *File) Write(v *snapshot.View, reason manifest.Reason) (Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	view, bytes := weak.Make(v), v.Bytes()
	r, err := f.write(v, reason)
	if disk.IsFull(err) {
		again := func(v *snapshot.View) (Result, error) { return f.write(v, reason) }
		r, err = f.writeWithLessKept(view, bytes, again, r, err)
	}
	if err == nil && reason == ReasonForced && f.last.patched {
		r, err = f.proveForced(view, r)
	}
	return f.describeResult(r, err)
}

// describeResult adds the warnings to the Result of a Write. If the Write has failed, it explains the error.
func (f *File) describeResult(r Result, err error) (Result, error) {
	if err != nil {
		r, err = Result{Kept: r.Kept, Damage: r.Damage}, fmt.Errorf("flush %s: %w", filepath.Base(f.dataPath), volume.WithHint(err))
	}
	f.warn(f.share.takeWarning(f.dataPath))
	r.Warning, f.warning = f.warning, ""
	return r, err
}

func (f *File) write(v *snapshot.View, reason manifest.Reason) (Result, error) {
	if err := f.ensureLocked(); err != nil {
		return Result{}, err
	}
	// Until the write succeeds, f.last is empty, so after an error the next Write starts from scratch. There are two reasons.
	// After a failed fsync, the kernel may have dropped the pages that it could not write, and the kernel reports that only
	// once. Also, the last version's digest is updated in place, so after an error it matches neither version.
	last := f.last
	f.last = written{}
	m := manifest.New(v, reason, f.captureVersion)
	m.Horizon, m.AcceptedAt = f.horizonOf(v), f.kept.TimeBehind()
	complete := reason != ReasonChange
	next := written{view: weak.Make(v), rowBytes: v.Bytes()}
	bytesWritten := int64(0)
	var state *kept.State
	var err error
	if last.hasRowsOf(v) && last.isOnDisk(f.dataPath) && ownerMayRead(f.dataPath) {
		if complete {
			if err := last.digest.complete(v, last.layout); err != nil {
				return Result{}, err
			}
		}
		m.Bytes = last.manifest.Bytes
		m.HigherCounts = f.rowCounts.Higher(time.Now(), m.Rows)
		last.digest.setManifest(&m)
		if err := f.replaceManifest(m); err != nil {
			return Result{}, err
		}
		next.layout, next.rows, next.digest, next.patched = last.layout, last.rows, last.digest, last.patched
	} else {
		if state, err = f.keepStanding(v, &last); err != nil {
			return Result{}, err
		}
		m.HigherCounts = f.rowCounts.Higher(time.Now(), m.Rows)
		p := newPendingVersion(v, last, f.temp.use)
		p.complete = complete
		// From here on, v is not used. Therefore rows that the table no longer has can be freed as soon as they are written.
		if err := f.replaceBoth(p, &m, last); err != nil {
			return Result{Kept: state}, err
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
	f.standing.setData(info)
	f.rowCounts.Add(time.Now(), m.Rows)
	return Result{Manifest: m, BytesWritten: bytesWritten, Kept: state}, nil
}

// keepStanding adds the current file to the kept states, if there is a reason to keep it. The caller then replaces the file
// with v. keepStanding returns the kept state, or nil.
func (f *File) keepStanding(v *snapshot.View, last *written) (*kept.State, error) {
	m, err := f.stateToKeep(v, last)
	if m == nil || err != nil {
		return nil, err
	}
	s, err := f.kept.Keep(*m, f.standing.dataLike())
	if err != nil {
		return nil, err
	}
	if m.Kept.Loss != nil {
		f.rowCounts = nil // so the next loss is measured against the rows that remain
	}
	return &s, nil
}

// KeepCurrent keeps the file of the last Write as an ordinary state. It does nothing if the policy keeps no states, or if the
// newest kept state is equal to the file. The new state stays uncompressed until [kept.States.Compress] runs.
func (f *File) KeepCurrent() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.kept.IsOff():
		return nil
	case f.closed:
		return os.ErrClosed
	case f.last.file == nil:
		return errors.New("keep a state: the last flush failed; there is nothing new to keep")
	case !f.last.isOnDisk(f.dataPath):
		return fmt.Errorf("keep a state: %s is not what was written; another program changed it", f.dataPath)
	}
	m := f.last.manifest
	m.Kept = &manifest.Kept{}
	_, err := f.kept.Keep(m, f.standing.dataLike())
	return err
}

// replaceBoth replaces the file by the pending version, and the manifest by m. The left column lists the steps. The right
// column lists what is on disk if a crash or a power cut follows the step (invariant 1, docs/design.md):
//
//	1  write and fsync the temporary file of the data       the old pair; Open removes the temporary file
//	2  write and fsync the temporary file of the manifest   the old pair; Open removes both temporary files
//	3  rename the data (or exchange it with the shadow)     the new file with the old manifest. Open sees that the pending
//	                                                        manifest matches the file, and does step 4
//	4  rename the manifest                                  the new pair
//	5  fsync the folder                                     the new pair, durable
//
// If the file has more than 64 MB, Open leaves the inspection of the pending manifest to the first Write.
//
// Until step 5, a power cut may undo both renames, or only the second one. The disk is then as after step 2 or 3. Each file
// is synced before it is renamed.
//
// A shadow file may be patched only after step 5 of the Write that retired it. Until then, a power cut may undo the exchange
// and turn the shadow into feedback.json again. Therefore replaceBoth keeps the shadow only if every step succeeds.
func (f *File) replaceBoth(p *pendingVersion, m *manifest.Manifest, last written) (err error) {
	defer func() {
		if err == nil {
			f.renamed = false
			return
		}
		f.temp.discard()
		if !f.renamed && f.lock.verify() == nil {
			os.Remove(f.manifestTmp())
		}
	}()
	if err := f.writePending(p, last); err != nil {
		return err
	}
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
	f.renamed, f.hasWritten = true, true
	// A damaged file now has only its second name.
	f.existing.quarantine, f.existing.foreign = "", false
	atRename()
	if err := f.renameManifest(); err != nil {
		return err
	}
	return disk.SyncFolder(f.folder())
}

// atRename is a hook for tests, called between the two renames. Tests end the process there.
var atRename = func() {}

// quarantineExisting gives a damaged file and its manifest second names before they are replaced.
func (f *File) quarantineExisting() error {
	if f.existing.quarantine == "" {
		return nil
	}
	taken, err := quarantine(f.paths, f.existing.quarantine)
	// If another file has taken one of the second names, the next Write inspects the folder again and chooses another suffix.
	if taken {
		f.existing.checked = false
	}
	return err
}

// replaceManifest replaces only the manifest.
func (f *File) replaceManifest(m manifest.Manifest) error {
	err := f.writeManifest(m)
	if err == nil {
		err = f.lock.verify()
	}
	if err == nil {
		err = f.renameManifest()
	}
	if err != nil {
		os.Remove(f.manifestTmp())
		return err
	}
	return disk.SyncFolder(f.folder())
}

// writeManifest writes the manifest under its temporary name and syncs it.
func (f *File) writeManifest(m manifest.Manifest) error {
	data, err := m.Encode()
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
	return disk.WriteSynced(f.manifestTmp(), f.standing.manifestLike(), write)
}
