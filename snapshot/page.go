package snapshot

import (
	"bytes"
	"math"
	"slices"
	"weak"

	"capture/snapshot/spill"
)

// defaultPageBytes is the approximate number of bytes of lines in a page.
const defaultPageBytes = 64 << 10

// splitBytes returns the number of bytes of lines above which a page with more than one row is split.
func splitBytes(pageBytes int) int { return pageBytes + pageBytes/4 }

// terminator follows each line in memory, so that lines that are adjacent in memory can be written to the file in one piece.
const terminator = ",\n"

// page is the content of a leaf: its rows in key order.
//
// Entries refer to two buffers. After the line of row b has been replaced by a longer line, a page looks like this:
//
//	entries   a           b           c            sorted by key; 16 bytes each
//	keys      aaaabbbbcccc
//	lines     {a},⏎{b},⏎{c},⏎{b: longer},⏎         no entry points at the first {b} any more
//
// Entries hold offsets, not pointers, so the garbage collector does not scan the rows of a page.
//
// keys and lines only grow at their ends. A clone therefore shares them with the page that it was made from: the older page
// never reads beyond its own length, and only the newest version appends. A rollback drops the newest version, so an older
// version becomes the newest again. The next clone of this older version overwrites the bytes that the dropped version had
// appended. That is safe because nothing refers to the dropped version any more; see [tree.rollback].
//
// When lines is full, rebuild copies the rows into new buffers and rebases older versions; see rebase.go.
type page struct {
	keys     []byte
	lines    []byte // lines with terminators, including lines of replaced and deleted rows
	ownLines []byte // private copies of lines that newer versions lack; only in a rebased page, see rebase.go

	// spilled has private lines that were moved to the spill file, and spilledBytes is their length. The lineOff of an entry is
	// an offset into lines, spilled and ownLines, in this order, as if they were one buffer. Use complete to read the lines in
	// spilled. See oldrows.go.
	spilled      []*spill.Extent
	spilledBytes int

	entries []entry
	live    int // bytes of the lines that entries point at, terminators included

	// Only the writer uses the following fields.
	referenced bool                 // whether the page was used after the clock hand last passed it; see nextVictim
	older      []weak.Pointer[leaf] // leaves with older versions of the page; Views may still show these versions, which may share p.lines
}

// MaxRowBytes is the maximum number of bytes of a row, key and line together, that a Table can hold. With this maximum, every
// offset of a line fits into the 32 bits of an entry: the part of the buffer before the line holds at most one row of the
// maximum size, and less than 1 MiB of smaller rows and unused space. It never holds two such large rows, because the tree
// splits a leaf that is larger than a page. TestLongRows checks this limit.
const MaxRowBytes = math.MaxUint32 - 1<<20

// entry is the place of a row in its page.
type entry struct {
	keyOff, keyLen   uint32
	lineOff, lineLen uint32 // lineLen is without the terminator; for lineOff, see page.spilled
}

func (p *page) key(i int) []byte {
	e := &p.entries[i]
	end := e.keyOff + e.keyLen
	return p.keys[e.keyOff:end:end]
}

func (p *page) line(i int) []byte {
	l := p.lineWithTerminator(i)
	n := len(l) - len(terminator)
	return l[:n:n]
}

func (p *page) lineWithTerminator(i int) []byte {
	e, buf := &p.entries[i], p.lines
	off := int(e.lineOff)
	if off >= len(buf) {
		off, buf = off-len(buf)-p.spilledBytes, p.ownLines
	}
	return buf[off : off+int(e.lineLen)+len(terminator)]
}

// complete returns p if no line of p is in the spill file. Otherwise, it returns a copy of p that has all lines in memory
// and that only the caller uses.
func (p *page) complete() (*page, error) {
	if p.spilled == nil {
		return p, nil
	}
	own := make([]byte, 0, p.spilledBytes+len(p.ownLines))
	for _, e := range p.spilled {
		var err error
		if own, err = e.AppendHead(own); err != nil {
			return nil, err
		}
	}
	return &page{keys: p.keys, lines: p.lines, ownLines: append(own, p.ownLines...), entries: p.entries, live: p.live}, nil
}

// findRow returns the index of the row with the given key and true. If there is no such row, it returns the index at which to
// insert such a row, and false.
func (p *page) findRow(key []byte) (int, bool) {
	n := len(p.entries)
	if n == 0 {
		return 0, false
	}
	if c := bytes.Compare(key, p.key(n-1)); c >= 0 { // most rows arrive in key order
		if c == 0 {
			return n - 1, true
		}
		return n, false
	}
	lo, hi := 0, n-1
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if bytes.Compare(p.key(m), key) < 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, bytes.Equal(p.key(lo), key)
}

// clone returns a copy of p that may be changed. It shares the buffers of p, but not the entries.
func (p *page) clone() *page {
	entries := make([]entry, len(p.entries), len(p.entries)+len(p.entries)/8+4)
	copy(entries, p.entries)
	return &page{keys: p.keys, lines: p.lines, ownLines: p.ownLines, entries: entries, live: p.live, referenced: true}
}

// putRow puts a row into p. If found is set, the row at index i has the given key, and putRow replaces its line. Otherwise
// putRow inserts a new row before index i.
func (p *page) putRow(i int, found bool, key, line []byte) {
	n := uint32(len(line))
	if found {
		p.live -= int(p.entries[i].lineLen) + len(terminator)
		p.ensureRoom(len(line), []int{i})
		p.entries[i].lineOff, p.entries[i].lineLen = uint32(len(p.lines)), n
	} else {
		p.ensureRoom(len(line), nil)
		e := entry{keyOff: uint32(len(p.keys)), keyLen: uint32(len(key)), lineOff: uint32(len(p.lines)), lineLen: n}
		p.keys = append(p.keys, key...)
		p.entries = append(p.entries, entry{})
		copy(p.entries[i+1:], p.entries[i:])
		p.entries[i] = e
	}
	p.lines = append(append(p.lines, line...), terminator...)
	p.live += len(line) + len(terminator)
}

// replaceLines replaces the lines of the rows at the given indices, which are in ascending order. lines has the new lines one
// after the other, and ends has the offset of the end of each new line.
func (p *page) replaceLines(indices, ends []int, lines []byte) {
	n := len(lines) + (len(indices)-1)*len(terminator) // without the last terminator, which ensureRoom adds
	for _, i := range indices {
		p.live -= int(p.entries[i].lineLen) + len(terminator)
	}
	p.ensureRoom(n, indices)
	start := 0
	for j, i := range indices {
		line := lines[start:ends[j]]
		p.entries[i].lineOff, p.entries[i].lineLen = uint32(len(p.lines)), uint32(len(line))
		p.lines = append(append(p.lines, line...), terminator...)
		p.live += len(line) + len(terminator)
		start = ends[j]
	}
}

func (p *page) deleteRow(i int) {
	p.live -= int(p.entries[i].lineLen) + len(terminator)
	p.entries = append(p.entries[:i], p.entries[i+1:]...)
	if len(p.lines) > 2*p.live+4<<10 {
		p.rebuild(0, nil)
	}
}

// splitAt moves the rows from index i on into a new page, and returns it.
func (p *page) splitAt(i int) *page {
	next := &page{keys: p.keys, lines: p.lines, ownLines: p.ownLines, entries: slices.Clone(p.entries[i:]), referenced: true}
	for j := range next.entries {
		next.live += int(next.entries[j].lineLen) + len(terminator)
	}
	next.rebuild(0, nil)
	p.entries = p.entries[:i]
	p.live -= next.live
	p.older = nil // older versions have the rows of both halves, so rebuild must not move them to the new buffer
	p.rebuild(0, nil)
	return next
}

// splitIndex returns the index at which a split halves the bytes of the page. Each half has at least one row.
func (p *page) splitIndex() int {
	sum := 0
	for i := range p.entries[:len(p.entries)-1] {
		sum += int(p.entries[i].lineLen) + len(terminator)
		if 2*sum >= p.live {
			return i + 1
		}
	}
	return len(p.entries) - 1
}

// ensureRoom makes room for new lines of n bytes and one terminator. skip has the indices of the rows whose lines the new lines
// replace, in ascending order.
func (p *page) ensureRoom(n int, skip []int) {
	if n += len(terminator); len(p.lines)+n > cap(p.lines) {
		p.rebuild(growCap(p.live+n, n)-p.live, skip)
	}
}

// rebuild copies the rows into new buffers, in order and without gaps. extra is the number of unused bytes at the end of the
// new buffer for lines. The lines of the rows at the indices in skip are not copied. Older versions are rebased onto the new
// buffers if possible.
func (p *page) rebuild(extra int, skip []int) {
	keyBytes := 0
	for i := range p.entries {
		keyBytes += int(p.entries[i].keyLen)
	}
	keys := make([]byte, 0, keyBytes)
	lines := make([]byte, 0, p.live+extra)
	entries := make([]entry, len(p.entries), cap(p.entries))
	left := skip
	for i := range p.entries {
		entries[i] = entry{uint32(len(keys)), p.entries[i].keyLen, uint32(len(lines)), p.entries[i].lineLen}
		keys = append(keys, p.key(i)...)
		if len(left) > 0 && left[0] == i {
			left = left[1:]
			continue
		}
		lines = append(lines, p.lineWithTerminator(i)...)
	}
	from := *p
	p.keys, p.lines, p.ownLines, p.entries = keys, lines, nil, entries
	p.rebaseOlder(&from, skip)
}

// slackDivisor sets how much unused room a large buffer has: 1/slackDivisor of its size. In this room, rows can grow without
// a new buffer.
const slackDivisor = 32

// growCap returns the capacity of a buffer for n bytes of lines. newBytes of these bytes belong to new lines.
//
// A small buffer gets about n/2 bytes of unused room. The size of a large buffer is rounded up to the size that Go allocates
// anyway. If the new lines are short, growCap first adds n/slackDivisor bytes of room, so that not every change needs a new
// buffer. Every page has such room, so the fraction is small: a quarter of each page would cost a quarter of the table's
// size.
func growCap(n, newBytes int) int {
	switch {
	case n < 32<<10:
		return n + min(max(n/2, 1<<10), 16<<10)
	case 4*newBytes <= n/slackDivisor:
		n += n / slackDivisor
	}
	return allocSize(n)
}

// allocSize returns about how many bytes Go allocates for n bytes. Above 32 kB, Go allocates whole pages of 8 kB.
func allocSize(n int) int {
	const goPage = 8 << 10
	if n <= 32<<10 {
		return n
	}
	return (n + goPage - 1) &^ (goPage - 1)
}

// memoryBytes returns about how many bytes of memory the page uses.
func (p *page) memoryBytes() int64 {
	return int64(allocSize(cap(p.lines))+cap(p.ownLines)) + p.overhead()
}

// overhead returns about how many bytes of memory the page uses without its lines.
func (p *page) overhead() int64 {
	const entrySize, fixed = 16, 128
	return int64(cap(p.keys) + entrySize*cap(p.entries) + fixed)
}
