package store

import (
	"fmt"
	"path/filepath"

	"capture/internal/volume"
	"capture/snapshot"
	"capture/store/manifest"
)

// horizonOf returns the horizon of the rows of v. It returns nil if v has no horizon, or if DropHorizon was called with v or
// a later View.
func (f *File) horizonOf(v *snapshot.View) *manifest.Horizon {
	if v.Version() <= f.doubtful {
		return nil
	}
	return manifest.NewHorizon(v)
}

// UpdateHorizon writes the horizon of v into the manifest if the file has the rows of v. It does not replace a horizon that is
// the same or later. A Write stores the horizon that is known at that time, which may be older than the last transaction in the
// file. With such a horizon, the next run reads the rows of this transaction again. UpdateHorizon prevents that.
func (f *File) UpdateHorizon(v *snapshot.View) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.last.file == nil || !f.last.hasRowsOf(v) || !f.last.isOnDisk(f.dataPath) {
		return nil
	}
	m, h := f.last.manifest, f.horizonOf(v)
	if h == nil || m.Horizon != nil && m.Horizon.XID >= h.XID {
		return nil
	}
	m.Horizon = h
	m.SetPosition(v.Position())
	return f.replaceLastManifest(m)
}

// DropHorizon removes the horizon from the manifest. It is called when the rows of v may be wrong. The rows of the file may
// then be wrong, too. From then on, the file gets no horizon from v or an earlier View.
func (f *File) DropHorizon(v *snapshot.View) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.doubtful = v.Version()
	if f.closed {
		return nil
	}
	if f.renamed { // the manifest may still describe the previous version, so first complete the failed Write
		if err := f.ensureLocked(); err != nil {
			return f.manifestError(err)
		}
	}
	f.letOwnerRead()
	m, err := manifest.ReadAt(f.manifestPath)
	if err != nil || m.Horizon == nil {
		return nil // a manifest that cannot be read has no horizon that the next run could use
	}
	m.Horizon = nil
	return f.replaceLastManifest(m)
}

// replaceLastManifest replaces the manifest of the current file.
func (f *File) replaceLastManifest(m manifest.Manifest) error {
	if err := f.ensureLocked(); err != nil {
		return err
	}
	if err := f.replaceManifest(m); err != nil {
		return f.manifestError(err)
	}
	if f.last.file != nil {
		f.last.manifest = m
	} else {
		f.existing.manifest = m
	}
	return nil
}

func (f *File) manifestError(err error) error {
	return fmt.Errorf("write the manifest of %s: %w", filepath.Base(f.dataPath), volume.WithHint(err))
}
