package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"weak"

	"golang.org/x/sys/unix"

	"capture/internal/volume"
	"capture/snapshot"
)

// The manifest has the digest of the bytes that were to be written. A patch leaves most of the file alone, so what has rotted there stays
// until the file is read back.

// ReadBack reads the file and compares it with its manifest. It returns how they differ, or "" if they do not; then the next Write writes the
// whole file, even if no row has changed. Other methods may run meanwhile. It reads at the lowest priority, past the page cache where the
// file system can.
func (f *File) ReadBack(ctx context.Context) (damage string, err error) {
	file, m, err := f.openLast()
	if file == nil {
		return "", err
	}
	defer file.Close()
	err = withIdlePriority(func() (err error) {
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
		return "", nil // it has been replaced meanwhile
	}
	if damage != "" {
		f.last = written{}
	} else {
		f.last.patched = false
	}
	return damage, nil
}

// openLast opens the file, and returns the manifest of the last Write. The file is nil if the next Write writes everything anyway.
func (f *File) openLast() (*os.File, Manifest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.last.file == nil {
		return nil, Manifest{}, nil
	}
	file, err := os.Open(f.dataPath)
	return file, f.last.manifest, err
}

// compareWithManifest reads the file to its end, and returns how it differs from m or why it can't be read; "" if it is as m says.
func compareWithManifest(ctx context.Context, file *os.File, m Manifest) (string, error) {
	h := NewHasher(m)
	err := readPastCache(ctx, file, func(b []byte) error {
		h.Write(b)
		return nil
	})
	if errors.As(err, new(*readError)) {
		return err.Error(), nil
	}
	return h.Mismatch(m), err
}

// readPastCache calls use with the bytes of the file, one chunk after the other, and reads by direct I/O where the file system can.
func readPastCache(ctx context.Context, file *os.File, use func([]byte) error) error {
	setDirectIO(file)
	buf := alignedBuffer(chunkBytes)
	for off := int64(0); ctx.Err() == nil; {
		n, err := unix.Pread(int(file.Fd()), buf, off) // not ReadAt: see copyStep
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return &readError{os.NewSyscallError("pread", err)}
		case n == 0:
			return nil
		}
		if err := use(buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return ctx.Err()
}

// proveForced reads a file back that was patched and written because somebody asked for it. If it is damaged, it is written whole.
func (f *File) proveForced(view weak.Pointer[snapshot.View], r Result) (Result, error) {
	file, err := os.Open(f.dataPath)
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
