package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
)

// heap is a file of this process alone that holds segments' content: it has no name in its folder, so that nobody else
// comes upon it and it goes when the process goes, however that ends. What is read back is checked.
type heap struct {
	file    *os.File
	scratch []byte          // the writer's
	damaged func(err error) // called once, with what is wrong
	bad     atomic.Bool     // something could not be read back as it was written

	mu     sync.Mutex
	taken  []uint64 // a bit for each block
	blocks int      // of the file
	inUse  int
	rover  int // where the search for free blocks goes on
	barren int // no search before so many blocks were given back: the last one found no place
}

const (
	heapBlock = 4 << 10
	indexSize = 8 // bytes a row: the lengths of its key and of its line
	// Where more than one of so many blocks is free, those given back are given back to the volume as well.
	holeShare = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openHeap makes an empty heap file in folder.
func openHeap(folder string, damaged func(error)) (*heap, error) {
	file, err := openNameless(folder)
	if err != nil {
		return nil, err
	}
	return &heap{file: file, damaged: damaged}, nil
}

// openNamed is for where files can't be made without a name: it is taken away at once.
func openNamed(folder string) (*os.File, error) {
	file, err := os.CreateTemp(folder, ".capture-rows-*")
	if err == nil {
		err = os.Remove(file.Name())
	}
	return file, err
}

// extent is a place in a heap file, given back when nothing refers to the extent any more.
type extent struct {
	heap        *heap
	at          int64 // bytes from the file's start: the lines, then the index, then the keys
	keys        uint32
	lines, rest uint32 // checksums
}

// run is some consecutive blocks.
type run struct {
	heap  *heap
	at, n int
}

// write writes a segment's content, in order and without gaps.
func (h *heap) write(b *body) (*extent, error) {
	buf := h.scratch[:0]
	for i := range b.rows {
		buf = append(buf, b.terminated(i)...)
	}
	lines := len(buf)
	for i := range b.rows {
		buf = binary.LittleEndian.AppendUint32(buf, b.rows[i].klen)
		buf = binary.LittleEndian.AppendUint32(buf, b.rows[i].n)
	}
	index := len(buf)
	for i := range b.rows {
		buf = append(buf, b.key(i)...)
	}
	if h.scratch = buf; cap(buf) > 1<<20 {
		h.scratch = nil // one huge row must not be kept for ever
	}
	r := run{heap: h, n: (len(buf) + heapBlock - 1) / heapBlock}
	r.at = h.take(r.n)
	e := &extent{
		heap: h, at: int64(r.at) * heapBlock, keys: uint32(len(buf) - index),
		lines: crc32.Checksum(buf[:lines], castagnoli), rest: crc32.Checksum(buf[lines:], castagnoli),
	}
	if _, err := h.file.WriteAt(buf, e.at); err != nil {
		h.give(r)
		return nil, withoutPath(err)
	}
	runtime.AddCleanup(e, func(r run) { r.heap.give(r) }, r)
	return e, nil
}

// withoutPath leaves the name out that the file had, or never had.
func withoutPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// readBody reads a segment back that has n rows and so many bytes of lines.
func (e *extent) readBody(n, live int) (*body, error) {
	raw := make([]byte, live+indexSize*n+int(e.keys))
	if err := e.read(raw, 0); err != nil {
		return nil, err
	}
	index, keys := raw[live:live+indexSize*n], raw[live+indexSize*n:]
	if crc32.Checksum(raw[:live], castagnoli) != e.lines || crc32.Checksum(raw[live:], castagnoli) != e.rest {
		return nil, e.heap.damage(errChecksum)
	}
	b := &body{keys: keys[:len(keys):len(keys)], buf: raw[:live:live], rows: make([]entry, n), live: live}
	koff, off := uint32(0), uint32(0)
	for i := range b.rows {
		klen, size := binary.LittleEndian.Uint32(index[indexSize*i:]), binary.LittleEndian.Uint32(index[indexSize*i+4:])
		b.rows[i] = entry{koff: koff, klen: klen, off: off, n: size}
		koff, off = koff+klen, off+size+uint32(len(terminator))
	}
	return b, nil
}

// appendLines reads the lines alone back, with their terminators.
func (e *extent) appendLines(dst []byte, live int) ([]byte, error) {
	start := len(dst)
	if cap(dst)-start < live {
		dst = append(make([]byte, 0, start+live), dst...)
	}
	lines := dst[start : start+live]
	if err := e.read(lines, 0); err != nil {
		return dst[:start], err
	}
	if crc32.Checksum(lines, castagnoli) != e.lines {
		return dst[:start], e.heap.damage(errChecksum)
	}
	return dst[:start+live], nil
}

func (e *extent) read(p []byte, from int64) error {
	_, err := e.heap.file.ReadAt(p, e.at+from)
	runtime.KeepAlive(e) // until here its blocks are not another's
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return e.heap.damage(withoutPath(err))
	}
	return nil
}

var errChecksum = errors.New("their checksum does not match: the file was damaged")

// damage notes that the heap file does not give back what was written, and says so, once.
func (h *heap) damage(err error) error {
	err = fmt.Errorf("read back rows that are not in memory: %w", err)
	if h.bad.CompareAndSwap(false, true) && h.damaged != nil {
		h.damaged(err)
	}
	return err
}

// size is how many bytes of the file are in use.
func (h *heap) size() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return int64(h.inUse) * heapBlock
}

// take finds n consecutive free blocks, at the file's end where there are none within.
func (h *heap) take(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := -1
	if free := h.blocks - h.inUse; free >= n && h.barren <= 0 {
		if at = h.search(n); at < 0 {
			h.barren = max(free/8, n)
		}
	}
	if at < 0 {
		at = h.blocks
		h.blocks += n
		for len(h.taken)*64 < h.blocks {
			h.taken = append(h.taken, 0)
		}
	}
	for i := at; i < at+n; i++ {
		h.taken[i/64] |= 1 << (i % 64)
	}
	h.inUse += n
	h.rover = at + n
	return at
}

// search is the first run of n free blocks behind the rover, or else before it; -1 for none.
func (h *heap) search(n int) int {
	for _, part := range [2][2]int{{h.rover, h.blocks}, {0, min(h.rover+n, h.blocks)}} {
		free := 0
		for i := part[0]; i < part[1]; i++ {
			switch w := h.taken[i/64]; {
			case w == ^uint64(0) && i%64 == 0:
				free, i = 0, i+63
			case w>>(i%64)&1 != 0:
				free = 0
			default:
				if free++; free == n {
					return i - n + 1
				}
			}
		}
	}
	return -1
}

// give gives blocks back.
func (h *heap) give(r run) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := r.at; i < r.at+r.n; i++ {
		h.taken[i/64] &^= 1 << (i % 64)
	}
	h.inUse -= r.n
	h.barren -= r.n
	switch {
	case h.inUse == 0:
		h.taken, h.blocks, h.rover = nil, 0, 0
		h.file.Truncate(0) // where it can't be, the space is used again
	case (h.blocks-h.inUse)*holeShare > h.blocks:
		punch(h.file, int64(r.at)*heapBlock, int64(r.n)*heapBlock)
	}
}
