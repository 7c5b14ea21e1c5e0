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
)

// sorter sorts keys with a hash each: in memory up to limit bytes, beyond that in a temporary file of sorted runs, which has
// no name and so vanishes with the process. An entry is the key's length as a uvarint, the key, and the hash in 8 bytes.
type sorter struct {
	limit int
	arena []byte
	at    []uint32 // where the entries in arena start
	file  *os.File
	size  int64
	runs  []int64 // where they start in file
}

// sortMemory bounds what a comparison keeps in memory of the table: some three million rows with a key of one number.
const sortMemory = 64 << 20

const hashBytes = 8

func (s *sorter) add(key []byte, hash uint64) error {
	if len(s.arena)+4*len(s.at) >= s.limit && len(s.at) > 0 {
		if err := s.spill(); err != nil {
			return fmt.Errorf("sort in a temporary file: %w", err)
		}
	}
	s.at = append(s.at, uint32(len(s.arena)))
	s.arena = binary.AppendUvarint(s.arena, uint64(len(key)))
	s.arena = append(s.arena, key...)
	s.arena = binary.BigEndian.AppendUint64(s.arena, hash)
	return nil
}

// entry is the one at an offset of arena.
func (s *sorter) entry(at uint32) (key, whole []byte) {
	n, head := binary.Uvarint(s.arena[at:])
	end := int(at) + head + int(n)
	return s.arena[int(at)+head : end], s.arena[at : end+hashBytes]
}

func (s *sorter) sort() {
	slices.SortFunc(s.at, func(a, b uint32) int {
		x, _ := s.entry(a)
		y, _ := s.entry(b)
		return bytes.Compare(x, y)
	})
}

// spill writes what is in memory as another run.
func (s *sorter) spill() error {
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
	s.sort()
	w := bufio.NewWriterSize(s.file, 1<<20)
	s.runs = append(s.runs, s.size)
	for _, at := range s.at {
		_, whole := s.entry(at)
		n, err := w.Write(whole)
		s.size += int64(n)
		if err != nil {
			return err
		}
	}
	s.arena, s.at = s.arena[:0], s.at[:0]
	return w.Flush()
}

func (s *sorter) close() {
	if s.file != nil {
		s.file.Close()
	}
}

// sorted begins to read the entries in order. The function it returns gives the next one, false after the last; the key is
// valid until the next call.
func (s *sorter) sorted() (next func() (key []byte, hash uint64, ok bool, err error), err error) {
	s.sort()
	if s.file == nil {
		i := 0
		return func() ([]byte, uint64, bool, error) {
			if i == len(s.at) {
				return nil, 0, false, nil
			}
			key, whole := s.entry(s.at[i])
			i++
			return key, binary.BigEndian.Uint64(whole[len(whole)-hashBytes:]), true, nil
		}, nil
	}
	if err := s.spill(); err != nil {
		return nil, err
	}
	var h runHeap
	for i, start := range s.runs {
		end := s.size
		if i+1 < len(s.runs) {
			end = s.runs[i+1]
		}
		r := &run{from: bufio.NewReaderSize(io.NewSectionReader(s.file, start, end-start), 64<<10)}
		if ok, err := r.next(); err != nil {
			return nil, err
		} else if ok {
			h = append(h, r)
		}
	}
	heap.Init(&h)
	var given []byte
	return func() ([]byte, uint64, bool, error) {
		if len(h) == 0 {
			return nil, 0, false, nil
		}
		r := h[0]
		given = append(given[:0], r.key...)
		hash := r.hash
		more, err := r.next()
		if more {
			heap.Fix(&h, 0)
		} else {
			heap.Pop(&h)
		}
		return given, hash, err == nil, err
	}, nil
}

// run is one sorted run, at an entry.
type run struct {
	from *bufio.Reader
	key  []byte
	hash uint64
}

func (r *run) next() (bool, error) {
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

type runHeap []*run

func (h runHeap) Len() int           { return len(h) }
func (h runHeap) Less(i, j int) bool { return bytes.Compare(h[i].key, h[j].key) < 0 }
func (h runHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *runHeap) Push(x any)        { *h = append(*h, x.(*run)) }
func (h *runHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
