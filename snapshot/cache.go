package snapshot

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"capture/snapshot/spill"
)

// ErrNoRoom is the error of rows over the memory limit that cannot be written to the spill file.
var ErrNoRoom = errors.New("write rows that do not fit into memory")

// Usage is how much memory the rows of a Table with a limit take.
type Usage struct {
	Limit    int64 // bytes of rows that may be in memory
	Resident int64 // bytes of rows in memory
	Spilled  int64 // bytes of the spill file in use
	Err      error // why rows over the limit cannot be written to the spill file, or nil
}

// cache keeps the pages of a tree within a limit of memory. Pages over the limit are evicted: written to the spill file, if they
// are not there yet, and dropped from memory. A nil cache has no limit. Only the writer uses the fields, except for usage.
//
// It counts two kinds of pages. The pages of the tree's leaves are resident; evictUntil evicts those that have not been used for
// the longest time. The pages of leaves that have left the tree are retired: only Views may still show them; see retired.
type cache struct {
	limit     int64 // bytes
	pageBytes int   // about how many bytes of lines a page has
	folder    string
	onDamage  func(error)

	file     *spill.File // nil until the first eviction
	scratch  []byte
	corrupt  bool // the tree may have pages in an earlier spill file that is damaged
	resident int64
	hand     clockHand
	retired  retired

	trouble error     // why the last eviction failed
	retryAt time.Time // time of the next attempt after trouble

	usage atomic.Pointer[Usage]
}

const (
	leafBytes     = 400 // about how many bytes of memory a leaf takes without its page
	retiredShare  = 8   // retired pages may take 1/retiredShare of the limit
	overdraft     = 4   // while evictions fail, 1/overdraft of the limit is used on top of it
	evictionPause = time.Second
)

func newCache(limit int64, pageBytes int, folder string, onDamage func(error)) *cache {
	c := &cache{limit: limit, pageBytes: pageBytes, folder: folder, onDamage: onDamage}
	c.usage.Store(&Usage{})
	return c
}

// load brings the page of l back into memory.
func (c *cache) load(l *leaf) (*page, error) {
	p, err := l.readPage()
	if err != nil {
		return nil, err
	}
	l.page.Store(p)
	c.resident += p.memoryBytes()
	return p, nil
}

// residentBytes returns how many bytes of memory the page of l takes.
func (c *cache) residentBytes(l *leaf) int64 {
	if c == nil {
		return 0
	}
	if p := l.page.Load(); p != nil {
		return p.memoryBytes()
	}
	return 0
}

// addResident counts the page of a leaf that is new in the tree.
func (c *cache) addResident(l *leaf) { c.adjustResident(c.residentBytes(l)) }

func (c *cache) adjustResident(bytes int64) {
	if c != nil {
		c.resident += bytes
	}
}

// retire stops counting the page of l as resident, because l has left the tree. unshown is true if no View has ever shown l,
// saved if the savepoint of the open transaction has it.
func (c *cache) retire(l *leaf, unshown, saved bool) {
	if c == nil {
		return
	}
	p := l.page.Load()
	if p == nil {
		return
	}
	c.resident -= p.memoryBytes()
	switch {
	case unshown:
	case l.extent == nil:
		c.retired.addLeaf(l, p, saved)
	case !l.extent.Damaged(): // else the page in memory is the only good copy
		l.page.Store(nil)
	}
}

// reset counts the pages of another tree.
func (c *cache) reset(groups []*group) {
	if c == nil {
		return
	}
	c.resident, c.retired = 0, retired{}
	for _, g := range groups {
		for _, l := range g.leaves {
			c.addResident(l)
		}
	}
}

// resetIfCorrupt reports whether pages of the tree may be unreadable. In that case later evictions write to a new spill file.
func (c *cache) resetIfCorrupt() bool {
	if c == nil {
		return false
	}
	if c.file != nil && c.file.Damaged() {
		c.file, c.corrupt = nil, true
	}
	return c.corrupt
}

// pageLimit returns how many bytes of pages may be in memory. It subtracts what the leaves of a tree with live bytes of lines
// take, since leaves are always in memory.
func (c *cache) pageLimit(live int64) int64 {
	return max(c.limit-live/int64(c.pageBytes)*leafBytes, c.limit/8)
}

// enforceLimit evicts pages until the rest is within the limit. groups is the whole tree, live the bytes of its lines. While
// evictions fail, somewhat more is kept in memory; once that is used up, too, enforceLimit returns the error.
func (c *cache) enforceLimit(groups []*group, live int64) error {
	limit := c.pageLimit(live)
	if c.resident <= limit && c.retired.bytes <= limit/retiredShare {
		c.trouble = nil
		return nil
	}
	if c.trouble == nil || !time.Now().Before(c.retryAt) {
		if c.trouble = c.evictUntil(limit, groups); c.trouble != nil {
			c.trouble = fmt.Errorf("%w to a file in %s: %w; free some space there, or allow more memory", ErrNoRoom, c.folder, c.trouble)
			c.retryAt = time.Now().Add(evictionPause)
		}
	}
	c.publishUsage(live)
	if c.resident+c.retired.bytes > limit+limit/overdraft {
		return c.trouble
	}
	return nil
}

// publishUsage makes the state of the cache visible to Usage.
func (c *cache) publishUsage(live int64) {
	u := Usage{Limit: c.pageLimit(live), Resident: c.resident, Err: c.trouble}
	if c.file != nil {
		u.Spilled = c.file.Size()
	}
	if *c.usage.Load() != u {
		c.usage.Store(&u)
	}
}
