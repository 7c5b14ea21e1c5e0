package store

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// spareFile has the temporary name, and is the version before the current one, or a copy of that; zero where there is none.
// The next version is made of it.
type spareFile struct {
	layout *layout
	file   os.FileInfo
}

// spareCopy is a copy of the current version that is still being made.
type spareCopy struct {
	from, to *os.File
	n        int64   // bytes that it has
	sums     *Hasher // of them, the blocks' included: the first change would have to hash all else
}

// spareStep is how much is copied at a time, so that a Write may come between.
var spareStep int64 = 32 << 20

// Spare goes on making a copy of a large file, of which the next version can be made: without, the first Write after a
// start takes as long as that of the whole. It takes a short step, and says whether that was the last one. There is nothing
// to do where there is a spare already, where files can't be patched, or where the volume has no room for two copies. An
// error leaves the file as good as it was; one is that the file is not what was written, which the next Write mends.
func (f *File) Spare() (done bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.draft != nil || f.spare.file != nil || f.last.layout == nil || f.last.layout.bytes < patchBytes ||
		!f.lock.held() || !f.last.untouched(f.path) {
		f.dropSpareCopy()
		return true, nil
	}
	if f.copying == nil {
		if f.copying, err = f.beginSpare(); f.copying == nil && err == nil {
			return true, nil
		}
	}
	if err == nil {
		done, err = f.copySpare()
	}
	if err != nil {
		f.dropSpareCopy()
		return true, fmt.Errorf("copy %s for the next version: %w", f.path, err)
	}
	return done, nil
}

// beginSpare makes an empty copy; nil where there is to be none.
func (f *File) beginSpare() (*spareCopy, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(f.path, &fs); err != nil || int64(fs.Bavail)*int64(fs.Bsize) < 2*f.last.layout.bytes {
		return nil, err
	}
	from, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	if !pastCache(from) {
		from.Close()
		return nil, nil
	}
	to, err := createTmp(f.dataTmp(), f.path)
	if err != nil {
		from.Close()
		return nil, err
	}
	pastCache(to)
	return &spareCopy{from: from, to: to, sums: &Hasher{whole: sha256.New(), blocks: newBlocks()}}, nil
}

// copySpare does a step of it; after the last one the copy is the spare.
func (f *File) copySpare() (done bool, err error) {
	c, buf, size := f.copying, alignedBuffer(chunkBytes), f.last.layout.bytes
	for end := c.n + spareStep; c.n < min(size, end); {
		// Not ReadAt, which goes on after the end of the file, where direct I/O is not aligned.
		n, err := unix.Pread(int(c.from.Fd()), buf, c.n)
		if err != nil {
			return false, os.NewSyscallError("pread", err)
		}
		if n < len(buf) && c.n+int64(n) != size {
			return false, io.ErrUnexpectedEOF
		}
		c.sums.Write(buf[:n])
		if _, err := c.to.WriteAt(buf[:(n+spareAlign-1)&^(spareAlign-1)], c.n); err != nil {
			return false, err
		}
		c.n += int64(n)
	}
	if c.n < size {
		return false, nil
	}
	if d := c.sums.Mismatch(f.last.manifest); d != "" {
		f.last = written{} // the next Write writes all of it, whether or not anything changes
		return false, fmt.Errorf("the file is damaged: %s", d)
	}
	if err := c.to.Truncate(size); err != nil {
		return false, err
	}
	if err := c.to.Sync(); err != nil {
		return false, err
	}
	info, err := c.to.Stat()
	if err != nil {
		return false, err
	}
	if d := f.last.digest; d.blocks == nil {
		c.sums.blocks.end()
		d.blocks = c.sums.blocks
	}
	c.close()
	f.copying, f.spare = nil, spareFile{f.last.layout, info}
	return true, nil
}

func (c *spareCopy) close() {
	c.from.Close()
	c.to.Close()
}

// dropSpareCopy removes the copy that is not ended, if there is one.
func (f *File) dropSpareCopy() {
	if f.copying == nil {
		return
	}
	if info, err := f.copying.to.Stat(); err == nil {
		f.removeTmp(info)
	}
	f.forgetSpareCopy()
}

// forgetSpareCopy leaves its file alone: the name may be another's.
func (f *File) forgetSpareCopy() {
	if f.copying != nil {
		f.copying.close()
		f.copying = nil
	}
}

// dropSpare removes the spare, if it is there.
func (f *File) dropSpare() {
	f.dropSpareCopy()
	if f.spare.file != nil {
		f.removeTmp(f.spare.file)
		f.spare = spareFile{}
	}
}

// removeTmp removes what has the temporary name, where it is that file and ours.
func (f *File) removeTmp(known os.FileInfo) {
	if !f.lock.held() {
		return
	}
	if there, err := os.Lstat(f.dataTmp()); err == nil && os.SameFile(there, known) {
		os.Remove(f.dataTmp())
	}
}
