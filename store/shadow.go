package store

import (
	"context"
	"fmt"
	"io"
	"os"

	"capture/internal/volume"
	"capture/store/disk"
	"capture/store/manifest"
	"capture/store/placement"
)

// shadow is the shadow file of a large file: either the version before the current version, or a copy of the current version.
// A Write makes the next version by writing the spans that differ into the shadow file.
type shadow struct {
	layout *placement.Layout // layout of the file
	file   *os.File          // the open file while a Write patches it, otherwise nil; has a lease until all bytes are written
}

// Close closes the file, which ends the lease.
func (s *shadow) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// shadowCopy is an incomplete copy of the current version. When complete, it becomes the shadow.
type shadowCopy struct {
	from, to *os.File
	copied   int64                 // number of bytes in the copy
	hasher   *manifest.Hasher      // hasher of the copied bytes
	blocks   *manifest.BlockHashes // hashes of the copied blocks; with them, the first change need not hash the whole file
}

// shadowStep is the number of bytes that one step copies. A Write may run after each step.
var shadowStep int64 = 32 << 20

// newShadowCopy begins to copy the file temp.target, which has size bytes. The copy gets the mode and owner of the file that
// model describes. newShadowCopy returns nil if the file system does not support patching, or has no space for two copies.
func newShadowCopy(temp *tempFile, size int64, model os.FileInfo) (*shadowCopy, error) {
	free, err := volume.FreeBytes(temp.target)
	if err != nil || free < 2*size {
		return nil, err
	}
	from, err := disk.OpenRegular(temp.target)
	if err != nil {
		return nil, err
	}
	if !disk.SetDirectIO(from) {
		from.Close()
		return nil, nil
	}
	to, err := temp.create(model)
	if err != nil {
		from.Close()
		return nil, err
	}
	disk.SetDirectIO(to)
	c := &shadowCopy{from: from, to: to, hasher: manifest.NewHasher()}
	c.blocks = c.hasher.HashBlocks(blockBytes)
	temp.use = c
	return c, nil
}

// copyStep copies the next bytes of the file, whose length is size. It reports whether the whole file is copied. It stops early
// if ctx ends.
func (c *shadowCopy) copyStep(ctx context.Context, size int64) (done bool, err error) {
	buf := disk.AlignedBuffer(disk.ChunkBytes)
	for end := c.copied + shadowStep; c.copied < min(size, end) && ctx.Err() == nil; {
		n, err := disk.ReadOnce(c.from, buf, c.copied)
		if err != nil {
			return false, err
		}
		if n < len(buf) && c.copied+int64(n) != size {
			return false, io.ErrUnexpectedEOF
		}
		c.hasher.Write(buf[:n])
		if _, err := c.to.WriteAt(buf[:(n+disk.DirectAlign-1)&^(disk.DirectAlign-1)], c.copied); err != nil {
			return false, err
		}
		c.copied += int64(n)
	}
	return c.copied == size, nil
}

// finish compares the copied bytes with the manifest, syncs the copy and returns its identity.
func (c *shadowCopy) finish(m manifest.Manifest) (os.FileInfo, error) {
	if mismatch := c.hasher.Mismatch(m); mismatch != "" {
		return nil, &damagedError{mismatch}
	}
	if err := c.to.Truncate(m.Bytes); err != nil {
		return nil, err
	}
	if err := c.to.Sync(); err != nil {
		return nil, err
	}
	return c.to.Stat()
}

// Close closes both files.
func (c *shadowCopy) Close() error {
	c.from.Close()
	return c.to.Close()
}

// damagedError means that the bytes on disk are not the bytes that were written.
type damagedError struct{ mismatch string }

func (e *damagedError) Error() string { return fmt.Sprintf("the file is damaged: %s", e.mismatch) }
