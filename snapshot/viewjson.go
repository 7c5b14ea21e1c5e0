package snapshot

import (
	"bufio"
	"fmt"
	"io"
	"iter"

	"capture/snapshot/rowjson"
)

// feedback.json consists of the constant opening, the rows' lines, and the constant closing. A comma and a newline (the
// terminator) follow each line but the last. Only a newline follows the last line.
const (
	opening   = "[\n"
	closing   = "]\n"
	emptyFile = "[]\n"
)

// fileBytes returns the length of feedback.json in bytes, without padding (package placement). rows is the number of rows,
// and live is the total length of their lines, including terminators.
func fileBytes(rows int, live int64) int64 {
	if rows == 0 {
		return int64(len(emptyFile))
	}
	return int64(len(opening)+len(closing)) + live - 1 // the last line has no comma
}

// WriteTo writes the whole of feedback.json: a JSON array with one row per line, in key order, and a final newline.
func (v *View) WriteTo(w io.Writer) (int64, error) {
	if v.rows == 0 {
		n, err := io.WriteString(w, emptyFile)
		return int64(n), err
	}
	b := bufio.NewWriterSize(w, int(min(1<<20, v.bytes)))
	n := int64(len(opening))
	_, err := b.WriteString(opening)
	left := v.rows
	var scratch []byte
	for part := range v.Parts() {
		left -= part.leaf.rows
		var m int
		m, scratch, err = part.leaf.writeLines(b, left == 0, scratch)
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

// WriteLines writes the rows as JSON lines, in key order: each row is one line, without commas or brackets.
func (v *View) WriteLines(w io.Writer) error {
	b := bufio.NewWriterSize(w, int(min(1<<20, v.bytes)))
	for part := range v.Parts() {
		for row, err := range part.All() {
			if err != nil {
				return fmt.Errorf("write view: %w", err)
			}
			b.Write(row.Line) // Flush returns the first error
			if err := b.WriteByte('\n'); err != nil {
				return err
			}
		}
	}
	return b.Flush()
}

// Part is a run of consecutive rows of a View. The lines of these rows are consecutive in feedback.json, too.
type Part struct{ leaf *leaf }

// Parts yields the parts of the View, in order.
func (v *View) Parts() iter.Seq[Part] {
	return func(yield func(Part) bool) {
		for _, g := range v.groups {
			for _, l := range g.leaves {
				if !yield(Part{l}) {
					return
				}
			}
		}
	}
}

// ID identifies the rows of a Part among all Parts of the process: Parts with the same ID have the same rows.
func (p Part) ID() uint64 { return p.leaf.id }

// Bytes returns the total length of the rows' lines, each with a comma and a newline.
func (p Part) Bytes() int { return p.leaf.live }

// Rows returns the number of rows.
func (p Part) Rows() int { return p.leaf.rows }

// All yields the rows, in order. If it cannot read the rows back from the spill file, All yields only the error.
func (p Part) All() iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		content, err := p.leaf.readPage()
		if err != nil {
			yield(Row{}, err)
			return
		}
		for i := range content.entries {
			if !yield(Row{content.key(i), content.line(i)}, nil) {
				return
			}
		}
	}
}

// FirstKey returns the key of the first row. It reads nothing from the spill file.
func (p Part) FirstKey() rowjson.Key { return p.leaf.firstKey() }

// Read returns the rows for access by their index. If they cannot be read back from the spill file, it returns an error.
func (p Part) Read() (PartRows, error) {
	content, err := p.leaf.readPage()
	return PartRows{content}, err
}

// PartRows are the rows of a Part, in memory.
type PartRows struct{ page *page }

// Len returns the number of rows.
func (r PartRows) Len() int { return len(r.page.entries) }

// Row returns the row with the given index. Its bytes must not be changed.
func (r PartRows) Row(i int) Row { return Row{r.page.key(i), r.page.line(i)} }

// AppendTo appends the rows' lines to b, each with a comma and a newline. If they cannot be read back from the spill file,
// AppendTo returns b unchanged and the error.
func (p Part) AppendTo(b []byte) ([]byte, error) {
	content := p.leaf.page.Load()
	if content == nil {
		return p.leaf.extent.AppendHead(b)
	}
	content, err := content.complete()
	if err != nil {
		return b, err
	}
	for run := range content.lineRuns() {
		b = append(b, run...)
	}
	return b, nil
}

// lineRuns yields the lines with their terminators. It yields lines that are adjacent in memory as one slice.
func (p *page) lineRuns() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		var run []byte
		end := uint32(0)
		for i := range p.entries {
			line, e := p.lineWithTerminator(i), &p.entries[i]
			if e.lineOff == end && run != nil && int(end) != len(p.lines) {
				run = run[:len(run)+len(line)]
			} else {
				if run != nil && !yield(run) {
					return
				}
				run = line
			}
			end = e.lineOff + uint32(len(line))
		}
		yield(run)
	}
}

// writeLines writes the lines with their terminators. If last is set, l is the last leaf of the file, and its last line gets
// a newline without a comma. scratch is a buffer for lines that are read back from the spill file; writeLines returns it for
// the next call.
func (l *leaf) writeLines(w io.Writer, last bool, scratch []byte) (n int, _ []byte, err error) {
	write := func(b []byte) {
		if err == nil {
			var m int
			m, err = w.Write(b)
			n += m
		}
	}
	left := l.live
	writeRun := func(run []byte) bool {
		if left -= len(run); last && left == 0 {
			write(run[:len(run)-len(terminator)])
			run = run[len(run)-1:]
		}
		write(run)
		return err == nil
	}
	if p := l.page.Load(); p != nil {
		if p, err = p.complete(); err == nil {
			p.lineRuns()(writeRun)
		}
	} else if scratch, err = l.extent.AppendHead(scratch[:0]); err == nil {
		writeRun(scratch)
	}
	return n, scratch, err
}
