package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"capture/internal/volume"
	"capture/snapshot"
)

// Idle does one short step of what a Write of a large file leaves for a time without changes:
//
//   - It completes the SHA-256 of the whole file and puts it into the manifest, if v still is what the last Write wrote. v may
//     be nil if its rows are gone.
//   - It copies the file to be the shadow file. Without it, the first change after a start would rewrite the whole file. If the
//     file turns out to be damaged, the next Write replaces it.
//
// It reports whether there is more to do. The Result's manifest is the one on disk. If the shadow file can't be made, the Result
// has a warning, and there is no error: the file on disk is as good without.
func (f *File) Idle(ctx context.Context, v *snapshot.View) (r Result, more bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return Result{}, false, nil
	}
	if v != nil && f.last.manifest.SHA256 == "" && f.last.hasRowsOf(v) && f.last.isOnDisk(f.dataPath) {
		if err := f.completeStep(ctx, v); err != nil {
			return Result{}, false, fmt.Errorf("complete the manifest of %s: %w", filepath.Base(f.dataPath), volume.WithHint(err))
		}
		return Result{Manifest: f.last.manifest}, true, nil
	}
	done, err := f.shadowStep(ctx)
	r = Result{Manifest: f.last.manifest}
	if err != nil {
		f.temp.discard()
		if damaged := (*damagedError)(nil); errors.As(err, &damaged) {
			r.Damage = damaged.mismatch
			return r, false, nil
		}
		r.Warning = fmt.Sprintf("copy %s to be the shadow file: %v; the next change writes the whole file", f.dataPath, err)
	}
	return r, !done && err == nil, nil
}

// completeStep hashes some more of the file, and replaces the manifest once all is hashed.
func (f *File) completeStep(ctx context.Context, v *snapshot.View) error {
	done, err := f.last.digest.completeStep(ctx, v, f.last.layout, hashPerWrite)
	if err != nil || !done {
		return err
	}
	m := f.last.manifest
	f.last.digest.setManifest(&m)
	if err := f.replaceManifest(m); err != nil {
		return err
	}
	f.last.manifest = m
	return nil
}

// shadowStep copies some more of the file, and reports whether there is nothing left to copy.
func (f *File) shadowStep(ctx context.Context) (done bool, err error) {
	switch f.temp.use.(type) {
	case *shadow, *prewrite:
		return true, nil
	}
	if !f.last.isLarge() || !f.lock.isOwned() || !f.last.isOnDisk(f.dataPath) {
		f.temp.discard()
		return true, nil
	}
	c, ok := f.temp.use.(*shadowCopy)
	if !ok {
		if c, err = newShadowCopy(&f.temp, f.last.layout.Bytes); c == nil {
			return true, err
		}
	}
	if done, err := c.copyStep(ctx, f.last.layout.Bytes); err != nil || !done {
		return false, err
	}
	info, err := c.finish(f.last.manifest)
	if err != nil {
		if errors.As(err, new(*damagedError)) {
			f.last = written{} // the next Write writes the whole file, even if no row has changed
		}
		return false, err
	}
	f.last.patched = false // it has been read back
	f.last.digest.adoptBlocks(c.hasher.blocks)
	c.Close()
	f.temp.use, f.temp.info = &shadow{layout: f.last.layout}, info
	return true, nil
}
