package snapshot

import (
	"bytes"
	"math"
	"slices"
	"weak"
)

// defaultPageBytes is about how many bytes of lines a page has.
const defaultPageBytes = 64 << 10

// terminator follows each line in memory, so that consecutive rows are written to the file as they lie.
const terminator = ",\n"

// page is the content of a leaf: its rows in key order.
//
// The three buffers lie behind the entries like this, after row b was replaced by a longer line:
//
//	entries   a           b           c            sorted by key; 16 bytes each
//	keys      aaaabbbbcccc
//	lines     {a},⏎{b},⏎{c},⏎{b: longer},⏎         no entry points at the first {b} any more
//
// Entries hold offsets, not pointers, so the garbage collector skips all rows of a page.
//
// keys and lines only grow at their ends. A clone therefore shares them with the page that it was made from: the older page
// never looks beyond its own length, and only the newest version appends. After a rollback there can be two newest versions in
// turn: the dropped one has appended to the same array behind the same length, and the next clone overwrites those bytes. That
// is safe because nothing refers to the dropped version any more; see [tree.rollback].
//
// When lines is full, rebuild copies the rows into new buffers, and older versions follow: see rebase.go.
type page struct {
	keys     []byte
	lines    []byte // lines with terminators, including those that no entry points at any more
	ownLines []byte // lines that newer versions do not have; only in a page that was rebased
	entries  []entry
	live     int // bytes of lines and ownLines that entries point at, terminators included

	// What follows belongs to the writer.
	referenced bool                 // used since the clock hand last passed: see nextVictim
	older      []weak.Pointer[leaf] // versions that Views may still show and that may share lines
}

// maxRowBytes is the most bytes of a row, key and line together. The offsets of an entry have 32 bits. A line is appended behind
// at most one other row of that size, since the tree splits off what comes behind a row that is larger than a page, and behind
// less than 1 MiB of smaller rows and of space between rows. TestLongRows checks that bound.
const maxRowBytes = math.MaxUint32 - 1<<20

// entry is the place of a row in its page.
type entry struct {
	keyOff, keyLen   uint32
	lineOff, lineLen uint32 // without the terminator; an offset beyond the end of lines continues in ownLines
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
		off, buf = off-len(buf), p.ownLines
	}
	return buf[off : off+int(e.lineLen)+len(terminator)]
}

// findRow returns the index at which key is or would be, and reports whether it is there.
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

// clone returns a page that may be changed. It shares the buffers, but not the entries.
func (p *page) clone() *page {
	entries := make([]entry, len(p.entries), len(p.entries)+len(p.entries)/8+4)
	copy(entries, p.entries)
	return &page{keys: p.keys, lines: p.lines, ownLines: p.ownLines, entries: entries, live: p.live, referenced: true}
}

// putRow replaces the row at index i if found is set, which means that this row has the key. Otherwise it inserts a row before
// it.
func (p *page) putRow(i int, found bool, key, line []byte) {
	n := uint32(len(line))
	if found {
		p.live -= int(p.entries[i].lineLen) + len(terminator)
		p.ensureRoom(len(line), i)
		p.entries[i].lineOff, p.entries[i].lineLen = uint32(len(p.lines)), n
	} else {
		p.ensureRoom(len(line), -1)
		e := entry{keyOff: uint32(len(p.keys)), keyLen: uint32(len(key)), lineOff: uint32(len(p.lines)), lineLen: n}
		p.keys = append(p.keys, key...)
		p.entries = append(p.entries, entry{})
		copy(p.entries[i+1:], p.entries[i:])
		p.entries[i] = e
	}
	p.lines = append(append(p.lines, line...), terminator...)
	p.live += len(line) + len(terminator)
}

func (p *page) deleteRow(i int) {
	p.live -= int(p.entries[i].lineLen) + len(terminator)
	p.entries = append(p.entries[:i], p.entries[i+1:]...)
	if len(p.lines) > 2*p.live+4<<10 {
		p.rebuild(0, -1)
	}
}

// splitAt moves the rows from index i on into a new page.
func (p *page) splitAt(i int) *page {
	next := &page{keys: p.keys, lines: p.lines, ownLines: p.ownLines, entries: slices.Clone(p.entries[i:]), referenced: true}
	for j := range next.entries {
		next.live += int(next.entries[j].lineLen) + len(terminator)
	}
	next.rebuild(0, -1)
	p.entries = p.entries[:i]
	p.live -= next.live
	p.older = nil // they have the rows of both halves, so they keep the old buffer
	p.rebuild(0, -1)
	return next
}

// splitIndex returns the row at which a split halves the bytes. Both halves have rows.
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

// ensureRoom makes room for a line of n bytes. skip is the row that the line is about to replace, or -1.
func (p *page) ensureRoom(n, skip int) {
	if n += len(terminator); len(p.lines)+n > cap(p.lines) {
		p.rebuild(growCap(p.live+n, n)-p.live, skip)
	}
}

// rebuild copies the rows into new buffers, in order and without gaps, with room for extra bytes of lines. It leaves the line of
// row skip out. Older versions are rebased onto the new buffers if possible.
func (p *page) rebuild(extra, skip int) {
	keyBytes := 0
	for i := range p.entries {
		keyBytes += int(p.entries[i].keyLen)
	}
	keys := make([]byte, 0, keyBytes)
	lines := make([]byte, 0, p.live+extra)
	entries := make([]entry, len(p.entries), cap(p.entries))
	for i := range p.entries {
		entries[i] = entry{uint32(len(keys)), p.entries[i].keyLen, uint32(len(lines)), p.entries[i].lineLen}
		keys = append(keys, p.key(i)...)
		if i != skip {
			lines = append(lines, p.lineWithTerminator(i)...)
		}
	}
	from := *p
	p.keys, p.lines, p.ownLines, p.entries = keys, lines, nil, entries
	p.rebaseOlder(&from, skip)
}

// slackDivisor is the share of a large buffer that is left empty, as 1/slackDivisor: rows can then grow without a new buffer.
const slackDivisor = 32

// growCap returns the capacity of a lines buffer that is to hold n bytes and more lines of the given length.
//
// A small buffer gets half as much again. A large one is rounded up to what Go allocates anyway; if its lines are short, it gets
// 1/32 on top, so that not every change makes a new buffer. More would add up: a quarter in each page is a quarter of the table.
func growCap(n, line int) int {
	switch {
	case n < 32<<10:
		return n + min(max(n/2, 1<<10), 16<<10)
	case 4*line <= n/slackDivisor:
		n += n / slackDivisor
	}
	return allocSize(n)
}

// allocSize returns about what Go allocates for n bytes: above 32 kB, whole pages of 8 kB.
func allocSize(n int) int {
	const goPage = 8 << 10
	if n <= 32<<10 {
		return n
	}
	return (n + goPage - 1) &^ (goPage - 1)
}

// memoryBytes returns about how many bytes of memory the page takes.
func (p *page) memoryBytes() int64 {
	const entrySize, fixed = 16, 128
	return int64(allocSize(cap(p.lines)) + cap(p.ownLines) + cap(p.keys) + entrySize*cap(p.entries) + fixed)
}
