// Package spill moves data that does not fit into memory to a file.
//
// A [File] has no name in its folder, so no other program can find it. The kernel deletes the file when the process ends,
// even in a crash. [File.Write] stores data and returns an [Extent], which reads the data back. Every read is checked
// against a CRC-32C, and returns either the data as it was written or an error.
//
// No call frees an Extent. Once it is unreachable, a cleanup of Go's runtime returns its blocks to the allocator. An Extent may
// therefore be shared freely, and a reader that holds an Extent may read it at any time.
package spill

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
)

// blockSize is the unit of allocation in bytes: a page of memory, and a block of the common file systems.
const blockSize = 4 << 10

// File is a file without a name. One goroutine at a time may call Write. Any goroutine may call the other methods.
type File struct {
	file      *os.File
	onDamage  func(error)
	isDamaged atomic.Bool

	mu     sync.Mutex
	blocks allocator
}

// Open creates an empty File in folder. When data cannot be read back as it was written, the File calls onDamage, at most
// once and from any goroutine. onDamage may be nil.
func Open(folder string, onDamage func(error)) (*File, error) {
	file, err := openNameless(folder)
	if err != nil {
		return nil, err
	}
	return &File{file: file, onDamage: onDamage}, nil
}

// openNamed creates a file and removes its name at once. It is for file systems that cannot create a file without a name.
func openNamed(folder string) (*os.File, error) {
	file, err := os.CreateTemp(folder, ".capture-rows-*")
	if err == nil {
		err = os.Remove(file.Name())
	}
	return file, err
}

// Extent is the place of data in a File.
type Extent struct {
	file             *File
	offset           int64
	size, head       int // length of the data and of its head, in bytes
	headSum, restSum uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Write stores data. The first head bytes of the data can be read without the rest; see [Extent.AppendHead].
func (f *File) Write(data []byte, head int) (*Extent, error) {
	count := (len(data) + blockSize - 1) / blockSize
	f.mu.Lock()
	first := f.blocks.alloc(count)
	f.mu.Unlock()
	e := &Extent{
		file: f, offset: int64(first) * blockSize, size: len(data), head: head,
		headSum: crc32.Checksum(data[:head], castagnoli), restSum: crc32.Checksum(data[head:], castagnoli),
	}
	if _, err := f.file.WriteAt(data, e.offset); err != nil {
		f.freeRun(run{first, count})
		return nil, withoutPath(err)
	}
	runtime.AddCleanup(e, f.freeRun, run{first, count})
	return e, nil
}

// Read returns the data.
func (e *Extent) Read() ([]byte, error) {
	data := make([]byte, e.size)
	if err := e.readAt(data, 0); err != nil {
		return nil, err
	}
	if crc32.Checksum(data[:e.head], castagnoli) != e.headSum || crc32.Checksum(data[e.head:], castagnoli) != e.restSum {
		return nil, e.file.setDamaged(errChecksum)
	}
	return data, nil
}

// AppendHead appends the head of the data to dst. On an error it returns dst unchanged.
func (e *Extent) AppendHead(dst []byte) ([]byte, error) {
	start := len(dst)
	if cap(dst)-start < e.head {
		dst = append(make([]byte, 0, start+e.head), dst...)
	}
	head := dst[start : start+e.head]
	if err := e.readAt(head, 0); err != nil {
		return dst[:start], err
	}
	if crc32.Checksum(head, castagnoli) != e.headSum {
		return dst[:start], e.file.setDamaged(errChecksum)
	}
	return dst[:start+e.head], nil
}

// ReadRest returns the data after the head.
func (e *Extent) ReadRest() ([]byte, error) {
	rest := make([]byte, e.size-e.head)
	if err := e.readAt(rest, e.head); err != nil {
		return nil, err
	}
	if crc32.Checksum(rest, castagnoli) != e.restSum {
		return nil, e.file.setDamaged(errChecksum)
	}
	return rest, nil
}

// readAt fills p with the data that begins at start.
func (e *Extent) readAt(p []byte, start int) error {
	_, err := e.file.file.ReadAt(p, e.offset+int64(start))
	runtime.KeepAlive(e) // the extent's blocks must not be reused during the read
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return e.file.setDamaged(withoutPath(err))
	}
	return nil
}

// Damaged reports whether the extent's file is known to be damaged.
func (e *Extent) Damaged() bool { return e.file.Damaged() }

// Damaged reports whether a read of the file has ever failed or returned wrong data.
func (f *File) Damaged() bool { return f.isDamaged.Load() }

// Size returns how many bytes of the file are in use.
func (f *File) Size() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(f.blocks.inUse) * blockSize
}

var errChecksum = errors.New("wrong checksum: the file was damaged")

// setDamaged marks the file as damaged and returns err with context. It also passes the first such error to onDamage.
func (f *File) setDamaged(err error) error {
	err = fmt.Errorf("read back rows that are not in memory: %w", err)
	if f.isDamaged.CompareAndSwap(false, true) && f.onDamage != nil {
		f.onDamage(err)
	}
	return err
}

// freeRun returns blocks to the allocator. If much of the file is free, it also returns their space to the volume.
func (f *File) freeRun(r run) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blocks.free(r)
	switch {
	case f.blocks.inUse == 0:
		f.blocks = allocator{}
		f.file.Truncate(0) // after an error, the allocator reuses the space later
	case f.blocks.isSparse():
		punchHole(f.file, int64(r.first)*blockSize, int64(r.count)*blockSize)
	}
}

// withoutPath removes the file's path from an error, because the file no longer has that name, or never had one.
func withoutPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
