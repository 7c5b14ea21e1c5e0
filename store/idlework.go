package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"capture/internal/volume"
	"capture/snapshot"
)

// Idle does one short step of the work that a Write of a large file postpones until the table stops changing for a while:
//
//   - It completes the SHA-256 of the whole file and adds it to the manifest, provided that v has the rows of the last Write. v
//     may be nil if these rows are no longer available.
//   - It copies the file to make the shadow file. Without the shadow, the first change after a start would rewrite the whole
//     file. If the copy shows that the file is damaged, the Result has Damage set, and the next Write replaces the file.
//
// Idle reports whether there is more to do. The Result has the manifest that is on disk. If the shadow file cannot be made, the
// Result has a warning. That is not an error, because the file is complete without a shadow.
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

// completeStep hashes the next part of the file. When the whole file is hashed, it writes a manifest with the SHA-256.
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

// shadowStep copies the next part of the file, and reports whether there is nothing left to copy.
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
		if c, err = newShadowCopy(&f.temp, f.last.layout.Bytes, f.standing.dataLike()); c == nil {
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
	f.last.patched = false // to make the copy, the whole file has been read back
	f.last.digest.adoptBlocks(c.blocks)
	c.Close()
	f.temp.use, f.temp.info = &shadow{layout: f.last.layout}, info
	return true, nil
}
