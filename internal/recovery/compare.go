package recovery

import (
	"bytes"
	"context"
	"errors"
	"hash/maphash"
	"slices"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/snapshot/rowjson"
)

// Rows gives the rows of a state in the order of their keys: yield gets each key and its line. What yield returns ends it.
type Rows func(yield func(key rowjson.Key, line []byte) error) error

// Comparison is a state of a table's rows, held against the table itself.
//
// It costs one reading of the table, and in memory for each row its key and some 13 bytes, up to 64 MB in all; beyond that,
// the same in a temporary file (in TMPDIR).
type Comparison struct {
	Database *pgx.ConnConfig
	Table    postgres.Name
	// State gives the rows to hold against the table. It is called when the snapshot that the table is read in has been
	// taken. Where Live is set it must give a state that holds all that was committed before the call, and may hold more.
	State func(ctx context.Context, table *postgres.Table) (Rows, error)
	// Live says that the state follows the table, which others go on writing: a row that changed while the comparison was
	// under way is no difference.
	Live     bool
	Progress func(Progress) // may be nil
}

// Difference is how a state differs from the table.
type Difference struct {
	TableRows int64 `json:"table_rows"`
	Missing   Keys  `json:"missing"`   // in the table, not in the state
	Extra     Keys  `json:"extra"`     // in the state, not in the table
	Different Keys  `json:"different"` // in both, and not the same
}

// Keys is a number of rows and the keys of the first of them.
type Keys struct {
	Rows  int64 `json:"rows"`
	First []Key `json:"first,omitempty"`
}

// Key is a row's key as people read it, and for one that differs in which columns it does.
type Key struct {
	Key     string   `json:"key"`
	Columns []string `json:"columns,omitempty"`
}

// None says whether there is no difference.
func (d *Difference) None() bool { return d.Missing.Rows+d.Extra.Rows+d.Different.Rows == 0 }

const (
	// listedKeys is how many keys of a kind are listed.
	listedKeys = 20
	// maxSuspects is how many rows of a live comparison are looked at again: more than change in an instant.
	maxSuspects = 10_000
	// keptLines is how many bytes of the state's lines are kept, to say in which columns they differ.
	keptLines = 16 << 20
	// rounds is how often a live comparison has to find the same row before it counts.
	rounds = 3
)

// suspect is a row that is not the same in the state and in the table.
type suspect struct {
	key          []byte
	state, table uint64 // hashes of the line, 0 where there is no row
	line         []byte // of the state, where both have the row and there was room
}

// compared is what one round found.
type compared struct {
	rows     int64
	suspects []suspect // the first maxSuspects
	kept     int       // bytes of lines in them
	total    Difference
	shape    *rowjson.Shape
}

// Compare holds a state against the table.
func Compare(ctx context.Context, c Comparison) (Difference, error) {
	seed := maphash.MakeSeed()
	var before map[string]bool
	for round := 1; ; round++ {
		found, err := c.round(ctx, seed, before)
		if err != nil {
			return Difference{}, err
		}
		if !c.Live || found.total.None() || round == rounds || len(found.suspects) == maxSuspects {
			return found.total, nil
		}
		before = make(map[string]bool, len(found.suspects))
		for _, s := range found.suspects {
			before[string(s.key)] = true
		}
	}
}

// round compares once. before, where it is not nil, are the keys that the last round found: no other counts.
func (c *Comparison) round(ctx context.Context, seed maphash.Seed, before map[string]bool) (*compared, error) {
	first, err := c.look(ctx)
	if err != nil {
		return nil, err
	}
	defer first.close()
	first.seed = seed
	rows, err := c.State(ctx, first.table)
	if err != nil {
		return nil, err
	}
	var second *look
	if c.Live {
		// A second snapshot, behind the state: a row that differs between the two has changed, and proves nothing.
		if second, err = c.look(ctx); err != nil {
			return nil, err
		}
		defer second.close()
		second.seed = seed
	}
	sorted := &sorter{limit: sortMemory}
	defer sorted.close()
	if err := first.read(ctx, sorted, c.Progress); err != nil {
		return nil, err
	}
	found, err := first.merge(sorted, rows)
	if err != nil {
		return nil, err
	}
	if second != nil && len(found.suspects) < maxSuspects {
		err = second.acquit(ctx, found, before)
	}
	if err == nil {
		err = first.describe(ctx, found)
	}
	return found, err
}

// merge walks through the state and the table side by side.
func (l *look) merge(s *sorter, rows Rows) (*compared, error) {
	next, err := s.sorted()
	if err != nil {
		return nil, err
	}
	found := &compared{shape: l.table.Shape}
	key, hash, more, err := next()
	step := func() {
		found.rows++
		key, hash, more, err = next()
	}
	walked := rows(func(k rowjson.Key, line []byte) error {
		for more && err == nil && bytes.Compare(key, k) < 0 {
			found.add(suspect{key: key, table: hash})
			step()
		}
		if err != nil {
			return err
		}
		h := l.hash(line)
		if !more || !bytes.Equal(key, k) {
			found.add(suspect{key: k, state: h})
			return nil
		}
		if hash != h {
			found.add(suspect{key: k, state: h, table: hash, line: line})
		}
		step()
		return err
	})
	for walked == nil && more && err == nil {
		found.add(suspect{key: key, table: hash})
		step()
	}
	found.total.TableRows = found.rows
	return found, errors.Join(walked, err)
}

func (f *compared) add(s suspect) {
	kind := f.kind(s)
	kind.Rows++
	if len(f.suspects) == maxSuspects {
		return
	}
	s.key = slices.Clone(s.key)
	if f.kept += len(s.line); f.kept > keptLines {
		s.line = nil
	}
	s.line = slices.Clone(s.line)
	f.suspects = append(f.suspects, s)
}

func (f *compared) kind(s suspect) *Keys {
	switch {
	case s.state == 0:
		return &f.total.Missing
	case s.table == 0:
		return &f.total.Extra
	}
	return &f.total.Different
}

// acquit takes out those rows that have changed between the first look and this one, that are by now as the state has them,
// and that the last round did not find.
func (l *look) acquit(ctx context.Context, f *compared, before map[string]bool) error {
	suspects := f.suspects
	f.suspects, f.kept, f.total = nil, 0, Difference{TableRows: f.rows}
	for _, s := range suspects {
		if before != nil && !before[string(s.key)] {
			continue
		}
		line, err := l.row(ctx, s.key)
		if err != nil {
			return err
		}
		now := uint64(0)
		if line != nil {
			now = l.hash(line)
		}
		if now != s.state && now == s.table {
			f.add(s)
		}
	}
	return nil
}

// describe lists the first keys of each kind, and the columns in which rows differ.
func (l *look) describe(ctx context.Context, f *compared) error {
	for _, s := range f.suspects {
		kind := f.kind(s)
		if len(kind.First) == listedKeys {
			continue
		}
		k := Key{Key: f.shape.KeyString(s.key)}
		if s.line != nil {
			line, err := l.row(ctx, s.key)
			if err != nil {
				return err
			}
			k.Columns = l.columns(s.line, line)
		}
		kind.First = append(kind.First, k)
	}
	return nil
}

// columns are the names of the columns in which two lines differ.
func (l *look) columns(state, table []byte) []string {
	mine, err := members(nil, state)
	theirs, err2 := members(nil, table)
	if err != nil || err2 != nil {
		return nil
	}
	var names []string
	for i, m := range theirs {
		value := find(mine, string(m.name), i)
		if !bytes.Equal(appendCompact(nil, value), appendCompact(nil, m.value)) {
			names = append(names, string(m.name))
		}
	}
	for i, m := range mine {
		if find(theirs, string(m.name), i) == nil {
			names = append(names, string(m.name))
		}
	}
	if names == nil {
		names = []string{"(the order of the columns)"}
	}
	return names
}

// appendCompact appends JSON without the white space between its tokens.
func appendCompact(dst, text []byte) []byte {
	for i := 0; i < len(text); {
		switch text[i] {
		case ' ', '\n', '\r', '\t':
			i++
		case '"':
			start := i
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			i = min(i+1, len(text))
			dst = append(dst, text[start:i]...)
		default:
			start := i
			for i < len(text) && text[i] > ' ' && text[i] != '"' {
				i++
			}
			if i == start { // no white space that JSON knows
				i++
			}
			dst = append(dst, text[start:i]...)
		}
	}
	return dst
}
