package store_test

import (
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
)

// A remains is what a power cut left: the files by path, and the folders with a nil content.
type remains map[string][]byte

// A leaving says what a power cut leaves of what was not safe.
type leaving struct {
	what  string
	names func(d *device) map[string]*inode
	page  func() pageLeft
}

type pageLeft int

const (
	pageOld  pageLeft = iota // as it was synced; beyond the old end, nothing
	pageNew                  // as it was written
	pageZero                 // zeros where it is new, torn where it is written over
)

func (l pageLeft) String() string { return [...]string{"no data", "all data", "zeros"}[l] }

// pageModes are the ways in which all pages alike can be left: one where all are safe.
func (d *device) pageModes() []pageLeft {
	for _, names := range []map[string]*inode{d.names, d.durable} {
		for _, n := range names {
			if !n.clean() {
				return []pageLeft{pageOld, pageNew, pageZero}
			}
		}
	}
	return []pageLeft{pageOld}
}

// safe says whether a power cut changes nothing.
func (d *device) safe() bool { return len(d.pending) == 0 && len(d.pageModes()) == 1 }

func (n *inode) clean() bool {
	return len(n.dirty) == 0 && len(n.lost) == 0 && len(n.data) == len(n.safe)
}

// inOrder leaves the first k changes of names, as a journal does.
func inOrder(k int) func(*device) map[string]*inode {
	return func(d *device) map[string]*inode {
		names := maps.Clone(d.durable)
		for _, p := range d.pending[:min(k, len(d.pending))] {
			for path, n := range p.set {
				set(names, path, n)
			}
		}
		return names
	}
}

// inAnyOrder leaves each name as it is safe, or as any change since made it.
func inAnyOrder(r *rand.Rand) func(*device) map[string]*inode {
	return func(d *device) map[string]*inode {
		names := maps.Clone(d.durable)
		left := map[string]int{}
		for _, p := range d.pending {
			for path := range p.set {
				left[path]++
			}
		}
		for _, path := range slices.Sorted(maps.Keys(left)) {
			left[path] = r.IntN(left[path] + 1)
		}
		for _, p := range d.pending {
			for path, n := range p.set {
				if left[path] > 0 {
					left[path]--
					set(names, path, n)
				}
			}
		}
		return names
	}
}

// cut is what is there after the power is back.
func (d *device) cut(l leaving) remains {
	names := l.names(d)
	left := remains{}
	content := map[*inode][]byte{}
	for _, path := range slices.Sorted(maps.Keys(names)) {
		n := names[path]
		if dir := names[filepath.Dir(path)]; path != d.root && (dir == nil || dir.folder == "") {
			continue // its folder is not there
		}
		if n.folder != "" {
			left[path] = nil
			continue
		}
		if content[n] == nil {
			content[n] = n.left(l.page)
		}
		left[path] = content[n]
	}
	return left
}

// left is what is there of a file.
func (n *inode) left(page func() pageLeft) []byte {
	if n.clean() {
		return n.safe
	}
	pages := map[int64]bool{}
	for p := range n.dirty {
		pages[p] = true
	}
	maps.Copy(pages, n.lost)
	out := resized(n.safe, max(len(n.data), len(n.safe)))
	size := len(n.safe)
	if n.sized > 0 && len(n.data) < size && page() != pageOld {
		size = len(n.data)
	}
	for _, p := range slices.Sorted(maps.Keys(pages)) {
		from, to := int(p*pageSize), min(int((p+1)*pageSize), len(n.data))
		how := page()
		if from >= to || how == pageOld {
			continue
		}
		size = max(size, to) // a size may be there before its data
		switch {
		case how == pageNew:
			copy(out[from:to], n.data[from:to])
		case to <= len(n.safe):
			copy(out[from:from+(to-from)/2], n.data[from:to])
		}
	}
	return out[:size]
}

var hashSeed = maphash.MakeSeed()

// sum tells remains apart.
func (r remains) sum(what ...any) uint64 {
	var h maphash.Hash
	h.SetSeed(hashSeed)
	fmt.Fprint(&h, what...)
	for _, name := range slices.Sorted(maps.Keys(r)) {
		fmt.Fprintf(&h, "%s %v %d\n", name, r[name] == nil, maphash.Bytes(hashSeed, r[name]))
	}
	return h.Sum64()
}

func (r remains) String() string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(r)) {
		if r[name] != nil {
			names = append(names, fmt.Sprintf("%s (%d bytes)", filepath.Base(name), len(r[name])))
		}
	}
	return strings.Join(names, ", ")
}
