package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"capture/snapshot/rowjson"
)

// batchBytes is how much is sent in one COPY. A batch stays in memory until the server has taken it, so that the row it
// refuses can be found and named.
const batchBytes = 2 << 20

// batch is a run of rows in COPY's text format.
type batch struct {
	data    []byte
	ends    []int // of each row in data
	lines   []int64
	keys    []byte
	keyEnds []int
	read    int64 // bytes of the file read so far
}

func (b *batch) reset() {
	if cap(b.data) > 8*batchBytes {
		b.data = nil
	}
	b.data, b.ends, b.lines, b.keys, b.keyEnds = b.data[:0], b.ends[:0], b.lines[:0], b.keys[:0], b.keyEnds[:0]
}

// rows are the bytes of the rows from lo up to hi.
func (b *batch) rows(lo, hi int) []byte {
	start := 0
	if lo > 0 {
		start = b.ends[lo-1]
	}
	return b.data[start:b.ends[hi-1]]
}

// place names row i: its line and its key.
func (b *batch) place(i int) string {
	start := 0
	if i > 0 {
		start = b.keyEnds[i-1]
	}
	return fmt.Sprintf("line %d (%s)", b.lines[i], b.keys[start:b.keyEnds[i]])
}

// loader copies the file's rows into a table of the server.
type loader struct {
	in     *input
	from   *reader
	plan   *plan
	staged bool // the rows go with their number and line, and with computed columns

	tx       pgx.Tx
	into     string // table and columns, for COPY
	progress func(rows int, bytes int64)

	rows  int
	first []string // the first keys
}

// shownKeys is how many keys are listed.
const shownKeys = 5

// run copies all rows, reading and encoding the next batch while the server takes one. The first row has been read: ms.
func (l *loader) run(ctx context.Context, ms []member, at row) error {
	g, ctx := errgroup.WithContext(ctx)
	full, free := make(chan *batch), make(chan *batch, 2)
	free <- new(batch)
	free <- new(batch)
	g.Go(func() error {
		defer close(full)
		return l.encode(ctx, ms, at, full, free)
	})
	g.Go(func() error {
		for b := range full {
			if err := l.send(ctx, b); err != nil {
				return err
			}
			l.rows += len(b.ends)
			l.progress(l.rows, b.read)
			free <- b
		}
		return nil
	})
	return g.Wait()
}

func (l *loader) encode(ctx context.Context, ms []member, at row, full chan<- *batch, free <-chan *batch) (err error) {
	place := fmt.Sprintf("line %d", at.line)
	for n := int64(1); ; {
		var b *batch
		select {
		case b = <-free:
			b.reset()
		case <-ctx.Done():
			return ctx.Err()
		}
		for len(b.data) < batchBytes {
			if err := l.add(b, ms, at.line, n); err != nil {
				return fmt.Errorf("line %d%s: %w", at.line, l.key(ms), err)
			}
			n++
			place = b.place(len(b.ends) - 1)
			if at, err = l.from.next(); err == nil {
				ms, err = members(ms[:0], at.text)
				if err != nil {
					err = fmt.Errorf("line %d: %w", at.line, err)
				}
			}
			if err != nil {
				break
			}
		}
		b.read = l.in.sums.Bytes()
		if err != nil && err != io.EOF {
			return fmt.Errorf("%w; the last good row is at %s", err, place)
		}
		select {
		case full <- b:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err == io.EOF {
			return nil
		}
	}
}

// key is the key of a row for an error, as far as the row has one.
func (l *loader) key(ms []member) string {
	if l.plan.match(ms) != nil {
		return ""
	}
	return " (" + string(l.plan.keyText(nil, ms)) + ")"
}

// add appends a row to the batch, as its n-th of the file.
func (l *loader) add(b *batch, ms []member, line, n int64) error {
	p := l.plan
	if err := p.match(ms); err != nil {
		return err
	}
	fields := 0
	if l.staged {
		b.data = strconv.AppendInt(b.data, n, 10)
		b.data = strconv.AppendInt(append(b.data, '\t'), line, 10)
		fields = 2
	}
	for i := range p.names {
		if p.into[i].computed && !l.staged {
			continue
		}
		if fields++; fields > 1 {
			b.data = append(b.data, '\t')
		}
		start := len(b.data)
		if p.into[i].plain && ms[i].value[0] == '"' {
			var err error
			if b.data, err = appendCopyString(b.data, ms[i].value); err != nil {
				return p.refuse(i, err)
			}
			continue
		}
		data, present, err := p.text(b.data, i, ms[i].value)
		if err != nil {
			return err
		}
		b.data = data
		if !present {
			b.data = append(b.data, `\N`...)
		} else {
			b.data = escapeFrom(b.data, start)
		}
	}
	b.data = append(b.data, '\n')
	b.ends = append(b.ends, len(b.data))
	b.lines = append(b.lines, line)
	if len(l.first) < shownKeys {
		l.first = append(l.first, p.keyShown(ms))
	}
	b.keys = p.keyText(b.keys, ms)
	b.keyEnds = append(b.keyEnds, len(b.keys))
	return nil
}

// special marks what COPY's text format escapes.
var special = [256]byte{'\\': '\\', '\n': 'n', '\r': 'r', '\t': 't'}

// appendCopyString appends the text that a JSON string stands for, escaped for COPY. Most escapes are the same in both.
func appendCopyString(dst, value []byte) ([]byte, error) {
	text := value[1 : len(value)-1]
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return append(dst, text...), nil
		}
		switch c := text[i+1]; c {
		case '"', '/':
			dst = append(append(dst, text[:i]...), c)
			text = text[i+2:]
		case 'u': // may be a pair, and may be what COPY escapes: the rest goes the long way
			dst = append(dst, text[:i]...)
			start := len(dst)
			dst, err := rowjson.AppendUnescaped(dst, value[len(value)-1-len(text)+i-1:])
			return escapeFrom(dst, start), err
		default:
			dst = append(dst, text[:i+2]...)
			text = text[i+2:]
		}
	}
}

// escapeFrom escapes dst[start:] for COPY's text format.
func escapeFrom(dst []byte, start int) []byte {
	n := 0
	for _, c := range dst[start:] {
		if special[c] != 0 {
			n++
		}
	}
	if n == 0 {
		return dst
	}
	end := len(dst)
	for range n {
		dst = append(dst, 0)
	}
	for to := len(dst) - 1; n > 0; to-- { // from behind, in place
		end--
		c := dst[end]
		if s := special[c]; s != 0 {
			dst[to] = s
			to--
			c = '\\'
			n--
		}
		dst[to] = c
	}
	return dst
}

// send copies a batch. Where the server refuses a row, the error names it.
func (l *loader) send(ctx context.Context, b *batch) error {
	err := l.copy(ctx, b, 0, len(b.ends))
	if err == nil || !refused(err) {
		return err
	}
	// The first half is kept where the server takes it, since what refuses the row may be one before it.
	lo, hi := 0, len(b.ends)
	for hi-lo > 1 {
		mid := lo + (hi-lo)/2
		half := l.copy(ctx, b, lo, mid)
		switch {
		case half == nil:
			lo = mid
		case refused(half):
			hi, err = mid, half
		default:
			return half
		}
	}
	if last := l.copy(ctx, b, lo, hi); last != nil {
		err = last
	}
	return &rowError{place: b.place(lo), keys: l.values(b, lo), err: err, column: l.column(err)}
}

func (l *loader) copy(ctx context.Context, b *batch, lo, hi int) error {
	return attempt(ctx, l.tx, func() error {
		_, err := l.tx.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(b.rows(lo, hi)), "COPY "+l.into+" FROM STDIN")
		return err
	})
}

// values are the text forms of the key's columns in row i of a batch that is not staged.
func (l *loader) values(b *batch, i int) []string {
	fields := strings.Split(strings.TrimSuffix(string(b.rows(i, i+1)), "\n"), "\t")
	unescape := strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r", `\t`, "\t")
	var values []string
	for _, k := range l.plan.key {
		at := 0
		if l.staged {
			at = 2
		}
		for _, into := range l.plan.into[:k] {
			if !into.computed || l.staged {
				at++
			}
		}
		if at >= len(fields) || l.plan.into[k].computed && !l.staged {
			return nil
		}
		values = append(values, unescape.Replace(fields[at]))
	}
	return values
}

// column is the column that an error of COPY speaks of, "" where it names none. The server's words may be in any language,
// but the name stands before a colon.
func (l *loader) column(err error) string {
	where := whereOf(err)
	found := ""
	for i, name := range l.plan.names {
		if !l.plan.into[i].computed && len(name) > len(found) && strings.Contains(where, " "+name+": ") {
			found = name
		}
	}
	return found
}

// attempt runs f within a savepoint, and undoes what it did where it fails.
func attempt(ctx context.Context, tx pgx.Tx, f func() error) error {
	if _, err := tx.Exec(ctx, "SAVEPOINT capture"); err != nil {
		return err
	}
	err := f()
	end := "RELEASE SAVEPOINT capture"
	if err != nil {
		if tx.Conn().IsClosed() || ctx.Err() != nil {
			return err
		}
		end = "ROLLBACK TO SAVEPOINT capture; RELEASE SAVEPOINT capture"
	}
	_, after := tx.Conn().PgConn().Exec(ctx, end).ReadAll()
	return errors.Join(err, after)
}
