package snapshot

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// ErrNoRoom reports that rows over the memory limit cannot be written to the spill file.
var ErrNoRoom = errors.New("write rows that do not fit into memory")

// Usage is the memory use of the rows of a Table that has a spill file. Without a memory limit, only Spilled and Err are set.
type Usage struct {
	Limit    int64 // maximum bytes of rows in memory
	Resident int64 // bytes of rows in memory
	Spilled  int64 // bytes of the spill file in use
	Err      error // reason why rows that should be in the spill file stay in memory; nil if there are no such rows
}

// cache keeps the pages of a tree within a memory limit. It evicts pages over the limit: it writes them to the spill file,
// unless they are there already, and drops them from memory. A nil cache has no limit. Only the writer uses the fields of a
// cache c, except that any goroutine may load c.usage.
//
// The cache counts two kinds of pages. Resident pages belong to leaves of the tree; evictUntil evicts resident pages that have
// not been used recently. Retired pages belong to leaves that have left the tree, so only Views can still show them; see
// retired.
type cache struct {
	*spiller
	limit     int64 // bytes
	pageBytes int   // approximate bytes of lines in a page

	resident int64
	hand     clockHand
	retired  retired

	trouble error     // error of the last eviction, or nil
	retryAt time.Time // time of the next attempt after a failed eviction

	usage atomic.Pointer[Usage]
}

const (
	leafBytes     = 400 // approximate bytes of memory of a leaf, without its page
	retiredShare  = 8   // retired pages may use 1/retiredShare of the limit
	overdraft     = 4   // while evictions fail, pages may exceed the limit by 1/overdraft of the limit
	evictionPause = time.Second
)

func newCache(limit int64, pageBytes int, s *spiller) *cache {
	c := &cache{spiller: s, limit: limit, pageBytes: pageBytes}
	c.usage.Store(&Usage{})
	return c
}

// residentBytes returns the bytes of memory of l's page, or 0 if the page is not in memory or c is nil.
func (c *cache) residentBytes(l *leaf) int64 {
	if c == nil {
		return 0
	}
	if p := l.page.Load(); p != nil {
		return p.memoryBytes()
	}
	return 0
}

// addResident counts the page of l as resident. It is called when l is new in the tree, when the page of l has been loaded into
// memory, and by reset.
func (c *cache) addResident(l *leaf) { c.adjustResident(c.residentBytes(l)) }

func (c *cache) adjustResident(bytes int64) {
	if c != nil {
		c.resident += bytes
	}
}

// retire stops counting the page of l as resident, because l has left the tree. If unshown is set, only the tree has ever
// referred to l. If saved is set, the savepoint of the open transaction may contain l.
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
	case !l.extent.Damaged(): // if the file is damaged, the page in memory is the only good copy
		l.page.Store(nil)
	}
}

// reset sets the resident bytes to the size of the pages in the groups, and forgets the retired pages. It is called after a
// rollback has restored the groups.
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

// pageLimit returns the maximum bytes of pages in memory. This is the limit minus the memory of the leaves, which are always
// in memory, but at least an eighth of the limit. pageLimit estimates the number of leaves from live, the number of bytes of
// all lines in the tree.
func (c *cache) pageLimit(live int64) int64 {
	return max(c.limit-live/int64(c.pageBytes)*leafBytes, c.limit/8)
}

// enforceLimit evicts pages until the remaining pages are within the limit. groups are all groups of the tree, and live is
// the size of all its lines in bytes. While evictions fail, pages may exceed the limit by 1/overdraft of the limit. If the
// pages exceed it by more, enforceLimit returns the error of the last eviction.
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

// publishUsage makes the current state of the cache visible to [Table.Usage].
func (c *cache) publishUsage(live int64) {
	u := Usage{Limit: c.pageLimit(live), Resident: c.resident, Err: c.trouble}
	if c.file != nil {
		u.Spilled = c.file.Size()
	}
	if *c.usage.Load() != u {
		c.usage.Store(&u)
	}
}
