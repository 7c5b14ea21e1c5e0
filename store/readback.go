package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"weak"

	"capture/internal/volume"
	"capture/snapshot"
	"capture/store/disk"
	"capture/store/manifest"
)

// The manifest has the digest of the bytes that capture intended to write, not of the bytes on disk. A patch does not
// rewrite most of the file, so damage in the unchanged ranges stays unnoticed until capture reads the file back.

// ReadBack reads the file and compares it with its manifest. It returns how they differ, or "" if they match or the file was
// replaced in the meantime. If they differ, the next Write writes the whole file, even if no row has changed. Other methods
// may run at the same time. ReadBack runs at the lowest priority and, if the file system supports it, reads past the page
// cache.
func (f *File) ReadBack(ctx context.Context) (damage string, err error) {
	file, m, err := f.openLast()
	if file == nil {
		return "", err
	}
	defer file.Close()
	err = disk.WithIdlePriority(func() (err error) {
		damage, err = compareWithManifest(ctx, file, m)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read back %s: %w", filepath.Base(f.dataPath), volume.WithHint(err))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := file.Stat()
	if err != nil || f.last.file == nil || !os.SameFile(info, f.last.file) || !m.WrittenAt.Equal(f.last.manifest.WrittenAt) {
		return "", nil // the file has been replaced in the meantime
	}
	if damage != "" {
		f.last = written{}
	} else {
		f.last.patched = false
	}
	return damage, nil
}

// openLast opens the file and returns the manifest of the last Write. The file is nil if f is closed, if the last Write
// failed, or if there was no Write yet. In these cases there is nothing to read back.
func (f *File) openLast() (*os.File, manifest.Manifest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.last.file == nil {
		return nil, manifest.Manifest{}, nil
	}
	file, err := disk.OpenRegular(f.dataPath)
	return file, f.last.manifest, err
}

// compareWithManifest reads the whole file. It returns how the file differs from m or why it cannot be read, or "" if it
// matches.
func compareWithManifest(ctx context.Context, file *os.File, m manifest.Manifest) (string, error) {
	h := manifest.NewHasher(m)
	err := disk.ReadPastCache(ctx, file, func(b []byte) error {
		h.Write(b)
		return nil
	})
	if errors.As(err, new(*disk.ReadError)) {
		return "it can't be read: " + err.Error(), nil
	}
	return h.Mismatch(m), err
}

// proveForced reads the file back after a Write with ReasonForced, if the file has been patched. If the file is damaged,
// proveForced writes it whole.
func (f *File) proveForced(view weak.Pointer[snapshot.View], r Result) (Result, error) {
	file, err := disk.OpenRegular(f.dataPath)
	if err != nil {
		return r, err
	}
	defer file.Close()
	damage, err := compareWithManifest(context.Background(), file, f.last.manifest)
	if err != nil {
		return r, fmt.Errorf("read it back: %w", err)
	}
	if damage == "" {
		f.last.patched = false
		return r, nil
	}
	f.last = written{}
	v := view.Value()
	if v == nil {
		return r, fmt.Errorf("it is damaged: %s", damage)
	}
	again, err := f.write(v, ReasonForced)
	if again.Kept == nil {
		again.Kept = r.Kept
	}
	again.Damage = damage
	return again, err
}
