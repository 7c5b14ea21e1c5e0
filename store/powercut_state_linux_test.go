package store_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
)

// A diskState is what a power cut left: contents by path, nil for folders.
type diskState map[string]*leftFile

// A leftFile is what a power cut left of a file.
type leftFile struct {
	data []byte
	hash uint64 // hash of the data, to recognize a content that was checked before
}

func newLeftFile(data []byte) *leftFile { return &leftFile{data, maphash.Bytes(hashSeed, data)} }

// hasContent reports whether the file exists and its content equals data.
func (c *leftFile) hasContent(data []byte) bool { return c != nil && bytes.Equal(c.data, data) }

// An outcome determines what a power cut leaves of the names and pages that were not durable.
type outcome struct {
	what  func() string
	names func(d *device) map[string]*inode
	pages pageLeft        // what is left of each page; not used if page is set
	page  func() pageLeft // returns what is left of the next page; nil if the same is left of all pages
}

type pageLeft int

const (
	pageOld  pageLeft = iota // the page as it was synced; nothing beyond the old end of the file
	pageNew                  // the page as it was written
	pageZero                 // a new page is zeros; an overwritten page has the first half of its new bytes, and old bytes after them
	pageModeCount
)

func (l pageLeft) String() string { return [...]string{"no data", "all data", "zeros"}[l] }

// pageModes returns the values of pageLeft that a test must try for all pages together. If all pages are durable, one value
// is enough.
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

// safe reports whether a power cut would change nothing.
func (d *device) safe() bool { return len(d.pending) == 0 && len(d.pageModes()) == 1 }

func (n *inode) clean() bool {
	return len(n.dirty) == 0 && len(n.lost) == 0 && len(n.data) == len(n.safe)
}

// namesInOrder returns a function that returns the names after a power cut. Of the changes of names that were not durable yet,
// the first k survive the power cut, as with a journal.
func namesInOrder(k int) func(*device) map[string]*inode {
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

// namesInAnyOrder gives each name a random one of its possible states: the durable state, or the state after any of its
// changes that are not durable yet.
func namesInAnyOrder(r *rand.Rand) func(*device) map[string]*inode {
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

// cutPower returns the files that remain after a power cut, and a hash of their paths and contents.
func (d *device) cutPower(l outcome) (left diskState, hash uint64) {
	names := l.names(d)
	left = diskState{}
	random := map[*inode]*leftFile{}
	var all []byte
	for _, path := range slices.Sorted(maps.Keys(names)) {
		n := names[path]
		if dir := names[filepath.Dir(path)]; path != d.root && (dir == nil || dir.folder == "") {
			continue // the power cut has removed its folder
		}
		switch {
		case n.folder != "":
			left[path] = nil
			all = append(append(all, path...), "/\n"...)
			continue
		case n.clean():
			left[path] = n.afterCut(pageOld)
		case l.page == nil:
			left[path] = n.afterCut(l.pages)
		default:
			if random[n] == nil {
				random[n] = newLeftFile(n.leftAtRandom(l.page))
			}
			left[path] = random[n]
		}
		all = append(binary.BigEndian.AppendUint64(append(append(all, path...), ' '), left[path].hash), '\n')
	}
	return left, maphash.Bytes(hashSeed, all)
}

// afterCut returns the content of a file after a power cut. l describes what the power cut leaves of each page.
func (n *inode) afterCut(l pageLeft) *leftFile {
	if n.contents[l] == nil {
		n.contents[l] = newLeftFile(n.leftAtRandom(func() pageLeft { return l }))
	}
	return n.contents[l]
}

// leftAtRandom returns content that a power cut may leave of a file. chooseLeft decides what is left of each page.
func (n *inode) leftAtRandom(chooseLeft func() pageLeft) []byte {
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
	if n.sized > 0 && len(n.data) < size && chooseLeft() != pageOld {
		size = len(n.data)
	}
	for _, p := range slices.Sorted(maps.Keys(pages)) {
		from, to := int(p*pageSize), min(int((p+1)*pageSize), len(n.data))
		how := chooseLeft()
		if from >= to || how == pageOld {
			continue
		}
		size = max(size, to) // the size may be durable before the data
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

func (r diskState) String() string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(r)) {
		if r[name] != nil {
			names = append(names, fmt.Sprintf("%s (%d bytes)", filepath.Base(name), len(r[name].data)))
		}
	}
	return strings.Join(names, ", ")
}
