package verify

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"

	"capture/internal/volume"
)

// sorter sorts keys, each with a hash. It sorts up to limit bytes in memory, and more by an external merge sort. It removes the
// name of its temporary file right after creating the file, so the file's space is freed even if the process is killed. An
// entry is the length of the key as a uvarint, the key, and the hash in 8 bytes.
type sorter struct {
	limit   int      // maximum number of bytes in memory
	arena   []byte   // entries in memory
	offsets []uint32 // start of each entry in arena

	file *os.File
	size int64   // size of file in bytes
	runs []int64 // start of each sorted run in file
}

// sortMemory is the maximum memory in bytes that a comparison uses for the keys of the table. It is enough for about three
// million rows whose key is one number.
const sortMemory = 64 << 20

const hashBytes = 8

func (s *sorter) close() {
	if s.file != nil {
		s.file.Close()
	}
}

// addEntry adds a key and its hash.
func (s *sorter) addEntry(key []byte, hash uint64) error {
	if len(s.arena)+4*len(s.offsets) >= s.limit && len(s.offsets) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.offsets = append(s.offsets, uint32(len(s.arena)))
	s.arena = binary.AppendUvarint(s.arena, uint64(len(key)))
	s.arena = append(s.arena, key...)
	s.arena = binary.BigEndian.AppendUint64(s.arena, hash)
	return nil
}

// entryAt returns the entry that starts at an offset in arena, and the key in that entry.
func (s *sorter) entryAt(offset uint32) (entry, key []byte) {
	n, head := binary.Uvarint(s.arena[offset:])
	end := int(offset) + head + int(n)
	return s.arena[offset : end+hashBytes], s.arena[int(offset)+head : end]
}

func (s *sorter) sortArena() {
	slices.SortFunc(s.offsets, func(a, b uint32) int {
		_, x := s.entryAt(a)
		_, y := s.entryAt(b)
		return bytes.Compare(x, y)
	})
}

// spill writes the entries in memory to the file, as a new sorted run.
func (s *sorter) spill() error {
	if err := s.writeRun(); err != nil {
		return volume.WithTempHint(fmt.Errorf("sort the keys in a temporary file: %w", err))
	}
	return nil
}

func (s *sorter) writeRun() error {
	if s.file == nil {
		f, err := os.CreateTemp("", "capture-sort-")
		if err != nil {
			return err
		}
		s.file = f
		if err := os.Remove(f.Name()); err != nil {
			return err
		}
	}
	s.sortArena()
	w := bufio.NewWriterSize(s.file, 1<<20)
	s.runs = append(s.runs, s.size)
	for _, offset := range s.offsets {
		entry, _ := s.entryAt(offset)
		n, err := w.Write(entry)
		s.size += int64(n)
		if err != nil {
			return err
		}
	}
	s.arena, s.offsets = s.arena[:0], s.offsets[:0]
	return w.Flush()
}

// nextEntry is a function that returns the next key in sorted order, and the key's hash. ok is false after the last entry. The
// key is valid until the next call.
type nextEntry func() (key []byte, hash uint64, ok bool, err error)

// readSorted returns a function that iterates over the entries in order.
func (s *sorter) readSorted() (nextEntry, error) {
	if s.file == nil {
		s.sortArena()
		return s.readArena(), nil
	}
	if err := s.spill(); err != nil {
		return nil, err
	}
	return s.mergeRuns()
}

func (s *sorter) readArena() nextEntry {
	i := 0
	return func() ([]byte, uint64, bool, error) {
		if i == len(s.offsets) {
			return nil, 0, false, nil
		}
		entry, key := s.entryAt(s.offsets[i])
		i++
		return key, binary.BigEndian.Uint64(entry[len(entry)-hashBytes:]), true, nil
	}
}

func (s *sorter) mergeRuns() (nextEntry, error) {
	var h runHeap
	for i, start := range s.runs {
		end := s.size
		if i+1 < len(s.runs) {
			end = s.runs[i+1]
		}
		r := &runReader{from: bufio.NewReaderSize(io.NewSectionReader(s.file, start, end-start), 64<<10)}
		if ok, err := r.readEntry(); err != nil {
			return nil, err
		} else if ok {
			h = append(h, r)
		}
	}
	heap.Init(&h)
	var key []byte
	return func() ([]byte, uint64, bool, error) {
		if len(h) == 0 {
			return nil, 0, false, nil
		}
		r := h[0]
		key = append(key[:0], r.key...)
		hash := r.hash
		more, err := r.readEntry()
		if more {
			heap.Fix(&h, 0)
		} else {
			heap.Pop(&h)
		}
		return key, hash, err == nil, err
	}, nil
}

// runReader reads a sorted run.
type runReader struct {
	from *bufio.Reader
	key  []byte // key of the current entry
	hash uint64 // hash of the current entry
}

// readEntry reads the next entry. It returns false at the end of the run.
func (r *runReader) readEntry() (bool, error) {
	n, err := binary.ReadUvarint(r.from)
	if err == io.EOF {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	r.key = slices.Grow(r.key[:0], int(n))[:n]
	if _, err := io.ReadFull(r.from, r.key); err != nil {
		return false, err
	}
	var hash [hashBytes]byte
	_, err = io.ReadFull(r.from, hash[:])
	r.hash = binary.BigEndian.Uint64(hash[:])
	return err == nil, err
}

// runHeap is a heap of runs, ordered by their current keys.
type runHeap []*runReader

func (h runHeap) Len() int           { return len(h) }
func (h runHeap) Less(i, j int) bool { return bytes.Compare(h[i].key, h[j].key) < 0 }
func (h runHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *runHeap) Push(x any)        { *h = append(*h, x.(*runReader)) }
func (h *runHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
