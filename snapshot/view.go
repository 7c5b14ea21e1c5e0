package snapshot

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"iter"
)

// Origin says where a View's rows come from, for the manifest and for people.
type Origin struct {
	Source        string // "logical", "notify", "poll", or "export" for a copy made without a daemon
	Database      string // its name
	SystemID      string // of the cluster, as IDENTIFY_SYSTEM gives it; "" where the user may not see it
	ServerVersion string // as SHOW server_version gives it
}

// View is one committed state of a table. It never changes.
type View struct {
	shape    *Shape
	origin   Origin
	position Position
	version  uint64
	rows     int
	bytes    int64
	groups   []*group
}

// The file: opening, the lines with their terminators, closing; the last line's terminator is a newline alone.
const (
	opening   = "[\n"
	closing   = "]\n"
	emptyFile = "[]\n"
)

// Shape is the table's shape in this state.
func (v *View) Shape() *Shape { return v.shape }

// Origin is where the rows come from.
func (v *View) Origin() Origin { return v.origin }

// Position is the place in the database's history.
func (v *View) Position() Position { return v.position }

// Version counts the commits of the Table up to this View: of two Views of a Table the later has the higher one.
func (v *View) Version() uint64 { return v.version }

// Rows is the number of rows.
func (v *View) Rows() int { return v.rows }

// Bytes is the length of the file that WriteTo writes.
func (v *View) Bytes() int64 { return v.bytes }

// WriteTo writes the whole of feedback.json: an array with one row a line, in key order, and a newline.
func (v *View) WriteTo(w io.Writer) (int64, error) {
	if v.rows == 0 {
		n, err := io.WriteString(w, emptyFile)
		return int64(n), err
	}
	b := bufio.NewWriterSize(w, 1<<20)
	n := int64(len(opening))
	_, err := b.WriteString(opening)
	left := v.rows
	for part := range v.Parts() {
		left -= len(part.s.rows)
		var m int
		m, err = part.s.writeTo(b, left == 0)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	if err == nil {
		_, err = b.WriteString(closing)
		n += int64(len(closing))
	}
	if err == nil {
		err = b.Flush()
	}
	if err == nil && n != v.bytes {
		err = fmt.Errorf("write view: %d bytes where %d were counted", n, v.bytes)
	}
	return n, err
}

// Part is some consecutive rows of a View: a piece of its file.
type Part struct{ s *segment }

// Parts yields what the View consists of, in order.
func (v *View) Parts() iter.Seq[Part] {
	return func(yield func(Part) bool) {
		for _, g := range v.groups {
			for _, s := range g.segs {
				if !yield(Part{s}) {
					return
				}
			}
		}
	}
}

// ID tells Parts apart, of all Views of a process: where it is the same, so are the rows.
func (p Part) ID() uint64 { return p.s.id }

// Bytes is the length of the rows' lines, each with its comma and newline.
func (p Part) Bytes() int { return p.s.live }

// AppendTo appends the rows' lines, each with its comma and newline.
func (p Part) AppendTo(b []byte) ([]byte, error) {
	w := bytes.NewBuffer(b)
	_, err := p.s.writeTo(w, false)
	return w.Bytes(), err
}

// writeTo writes the segment's lines with their terminators, runs that lie together at once.
func (s *segment) writeTo(w io.Writer, last bool) (n int, err error) {
	flush := func(b []byte) {
		if err == nil {
			var m int
			m, err = w.Write(b)
			n += m
		}
	}
	from, to := uint32(0), uint32(0)
	for i := range s.rows {
		e := &s.rows[i]
		if e.off != to {
			flush(s.buf[from:to])
			from = e.off
		}
		to = e.off + e.n + uint32(len(terminator))
	}
	if !last {
		flush(s.buf[from:to])
		return n, err
	}
	flush(s.buf[from : to-uint32(len(terminator))])
	flush([]byte("\n"))
	return n, err
}

// Get is the line of one row ("{…}", no comma or newline), or nil. The caller must not change it.
func (v *View) Get(key Key) []byte { return find(v.groups, key) }

// From yields the rows whose key is greater than after, in order; all of them for a nil after.
func (v *View) From(after Key) iter.Seq2[Key, []byte] {
	return func(yield func(Key, []byte) bool) {
		gi, si, i := v.seek(after)
		for ; gi < len(v.groups); gi, si = gi+1, 0 {
			for g := v.groups[gi]; si < len(g.segs); si, i = si+1, 0 {
				for s := g.segs[si]; i < len(s.rows); i++ {
					if !yield(s.key(i), s.line(i)) {
						return
					}
				}
			}
		}
	}
}

// seek is the place of the first row above after.
func (v *View) seek(after Key) (gi, si, i int) {
	if after == nil || len(v.groups) == 0 {
		return 0, 0, 0
	}
	gi = findGroup(v.groups, after)
	si = v.groups[gi].find(after)
	i, found := v.groups[gi].segs[si].find(after)
	if found {
		i++
	}
	return gi, si, i
}

// Before yields the rows whose key is less than before, in descending order; all of them for a nil before.
func (v *View) Before(before Key) iter.Seq2[Key, []byte] {
	return func(yield func(Key, []byte) bool) {
		if len(v.groups) == 0 {
			return
		}
		gi := len(v.groups) - 1
		si := len(v.groups[gi].segs) - 1
		i := len(v.groups[gi].segs[si].rows)
		if before != nil {
			gi = findGroup(v.groups, before)
			si = v.groups[gi].find(before)
			i, _ = v.groups[gi].segs[si].find(before)
		}
		for {
			for s := v.groups[gi].segs[si]; i > 0; i-- {
				if !yield(s.key(i-1), s.line(i-1)) {
					return
				}
			}
			if si--; si < 0 {
				if gi--; gi < 0 {
					return
				}
				si = len(v.groups[gi].segs) - 1
			}
			i = len(v.groups[gi].segs[si].rows)
		}
	}
}
