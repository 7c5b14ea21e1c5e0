package snapshot

import (
	"bufio"
	"fmt"
	"io"
	"iter"

	"capture/snapshot/rowjson"
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
	shape    *rowjson.Shape
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
func (v *View) Shape() *rowjson.Shape { return v.shape }

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
	var scratch []byte
	for part := range v.Parts() {
		left -= part.s.n
		var m int
		m, scratch, err = part.s.writeTo(b, left == 0, scratch)
		n += int64(m)
		if err != nil {
			return n, fmt.Errorf("write view: %w", err)
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

// AppendTo appends the rows' lines, each with its comma and newline. Where they have to be read back and can't be, it
// returns b and the error.
func (p Part) AppendTo(b []byte) ([]byte, error) {
	content := p.s.content.Load()
	if content == nil {
		return p.s.out.AppendHead(b)
	}
	for run := range content.runs() {
		b = append(b, run...)
	}
	return b, nil
}

// runs yields the lines with their terminators, those that lie together at once.
func (b *body) runs() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		var run []byte
		end := uint32(0)
		for i := range b.rows {
			line, e := b.terminated(i), &b.rows[i]
			if e.off == end && run != nil && int(end) != len(b.buf) {
				run = run[:len(run)+len(line)]
			} else {
				if run != nil && !yield(run) {
					return
				}
				run = line
			}
			end = e.off + uint32(len(line))
		}
		yield(run)
	}
}

// writeTo writes the segment's lines with their terminators; the last of the file has a newline alone. scratch is for
// what has to be read back, and comes back for the next.
func (s *segment) writeTo(w io.Writer, last bool, scratch []byte) (n int, _ []byte, err error) {
	write := func(b []byte) {
		if err == nil {
			var m int
			m, err = w.Write(b)
			n += m
		}
	}
	left := s.live
	one := func(run []byte) bool {
		if left -= len(run); last && left == 0 {
			write(run[:len(run)-len(terminator)])
			run = run[len(run)-1:]
		}
		write(run)
		return err == nil
	}
	if b := s.content.Load(); b != nil {
		b.runs()(one)
	} else if scratch, err = s.out.AppendHead(scratch[:0]); err == nil {
		one(scratch)
	}
	return n, scratch, err
}

// Row is one row of a View. The bytes must not be changed.
type Row struct {
	Key  rowjson.Key
	Line []byte // "{…}", no comma or newline
}

// Get is the line of one row ("{…}", no comma or newline), or nil. The caller must not change it. The error is that the row
// could not be read back, where it is not in memory: see [Table.LimitMemory].
func (v *View) Get(key rowjson.Key) ([]byte, error) {
	s := findSegment(v.groups, key)
	if s == nil {
		return nil, nil
	}
	b, err := s.read()
	if err != nil {
		return nil, err
	}
	if i, ok := b.find(key); ok {
		return b.line(i), nil
	}
	return nil, nil
}

// From yields the rows whose key is greater than after, in order; all of them for a nil after. An error, that of rows which
// could not be read back, is the last that it yields.
func (v *View) From(after rowjson.Key) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		gi, si := v.seek(after)
		for sought := after != nil; gi < len(v.groups); gi, si = gi+1, 0 {
			for g := v.groups[gi]; si < len(g.segs); si++ {
				b, err := g.segs[si].read()
				if err != nil {
					yield(Row{}, err)
					return
				}
				i, found := 0, false
				if sought {
					if i, found = b.find(after); found {
						i++
					}
					sought = false
				}
				for ; i < len(b.rows); i++ {
					if !yield(Row{b.key(i), b.line(i)}, nil) {
						return
					}
				}
			}
		}
	}
}

// seek is the place of the segment that key belongs to; the first for nil.
func (v *View) seek(key rowjson.Key) (gi, si int) {
	if key == nil || len(v.groups) == 0 {
		return 0, 0
	}
	gi = findGroup(v.groups, key)
	return gi, v.groups[gi].find(key)
}

// Before yields the rows whose key is less than before, in descending order; all of them for a nil before. An error, that of
// rows which could not be read back, is the last that it yields.
func (v *View) Before(before rowjson.Key) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		if len(v.groups) == 0 {
			return
		}
		gi := len(v.groups) - 1
		si := len(v.groups[gi].segs) - 1
		if before != nil {
			gi, si = v.seek(before)
		}
		for sought := before != nil; ; sought = false {
			b, err := v.groups[gi].segs[si].read()
			if err != nil {
				yield(Row{}, err)
				return
			}
			i := len(b.rows)
			if sought {
				i, _ = b.find(before)
			}
			for ; i > 0; i-- {
				if !yield(Row{b.key(i - 1), b.line(i - 1)}, nil) {
					return
				}
			}
			if si--; si < 0 {
				if gi--; gi < 0 {
					return
				}
				si = len(v.groups[gi].segs) - 1
			}
		}
	}
}
