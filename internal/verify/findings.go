package verify

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"

	"capture/internal/postgres"
	"capture/internal/statefile"
	"capture/snapshot"
)

const (
	// maxCandidates is the maximum number of rows that a live comparison reads again. If a comparison finds this many
	// differences, it reports them without confirmation, because so many rows rarely change between two snapshots.
	maxCandidates = 10_000
	// maxKeptLines is the maximum total size in bytes of the state's lines that are kept. The kept lines serve to find the
	// columns that differ.
	maxKeptLines = 16 << 20
	// listedRows is the maximum number of rows listed in a RowSample.
	listedRows = 20
)

// candidate is a row that differs between the state and the table.
type candidate struct {
	key          []byte
	state, table uint64 // hashes of the row's line in the state and in the table; 0 if the row is missing there
	line         []byte // line of the row in the state; nil if the state or the table lacks the row, or if maxKeptLines is exceeded
}

// findings are the differences that a comparison found.
type findings struct {
	difference Difference
	candidates []candidate // first candidates, at most maxCandidates
	lineBytes  int         // total size of the candidates' lines in bytes
}

// hashedRow is a row of the state, with the hash of its line.
type hashedRow struct {
	key  []byte
	hash uint64
	line []byte // nil if the line is not in memory
}

// hashRows yields the rows with the hashes of their lines.
func hashRows(ctx context.Context, state iter.Seq2[snapshot.Row, error], hash func(line []byte) uint64) iter.Seq2[hashedRow, error] {
	return func(yield func(hashedRow, error) bool) {
		for row, err := range state {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(hashedRow{}, err)
				return
			}
			if !yield(hashedRow{row.Key, hash(row.Line), row.Line}, nil) {
				return
			}
		}
	}
}

// sortRows yields the rows in the order of their keys, without their lines. It first reads all rows into s.
func sortRows(rows iter.Seq2[hashedRow, error], s *sorter, table *postgres.Table) (iter.Seq2[hashedRow, error], error) {
	for row, err := range rows {
		if err != nil {
			return nil, err
		}
		if err := s.addEntry(row.key, row.hash); err != nil {
			return nil, err
		}
	}
	next, err := s.readSorted()
	if err != nil {
		return nil, err
	}
	return func(yield func(hashedRow, error) bool) {
		var last []byte
		for n := 0; ; n++ {
			key, hash, ok, err := next()
			if err == nil && n > 0 && ok && bytes.Equal(key, last) {
				err = fileProblem{fmt.Errorf("the key %s is in the file twice", table.KeyString(key))}
			}
			if err != nil {
				yield(hashedRow{}, err)
				return
			}
			if !ok || !yield(hashedRow{key: key, hash: hash}, nil) {
				return
			}
			last = append(last[:0], key...)
		}
	}, nil
}

// compareSorted walks the sorted state and the sorted hashes of the table's rows in parallel, and returns the rows that differ.
func compareSorted(state iter.Seq2[hashedRow, error], s *sorter) (*findings, error) {
	next, err := s.readSorted()
	if err != nil {
		return nil, err
	}
	f := &findings{}
	key, tableHash, more, err := next()
	advance := func() {
		f.difference.TableRows++
		key, tableHash, more, err = next()
	}
	for row, stateErr := range state {
		if stateErr != nil {
			return nil, stateErr
		}
		for more && err == nil && bytes.Compare(key, row.key) < 0 {
			f.addCandidate(candidate{key: key, table: tableHash})
			advance()
		}
		if err != nil {
			return nil, err
		}
		if !more || !bytes.Equal(key, row.key) {
			f.addCandidate(candidate{key: row.key, state: row.hash})
			continue
		}
		if row.hash != tableHash {
			f.addCandidate(candidate{key: row.key, state: row.hash, table: tableHash, line: row.line})
		}
		advance()
	}
	for more && err == nil {
		f.addCandidate(candidate{key: key, table: tableHash})
		advance()
	}
	return f, err
}

// addLines adds the state's lines to the first candidates that both the state and the table have.
func (f *findings) addLines(state iter.Seq2[snapshot.Row, error]) error {
	wanted := map[string]*candidate{}
	for i := range f.candidates {
		if c := &f.candidates[i]; c.state != 0 && c.table != 0 && len(wanted) < listedRows {
			wanted[string(c.key)] = c
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	for row, err := range state {
		if err != nil {
			return err
		}
		c := wanted[string(row.Key)]
		if c == nil {
			continue
		}
		if f.lineBytes += len(row.Line); f.lineBytes <= maxKeptLines {
			c.line = slices.Clone(row.Line)
		}
		if delete(wanted, string(row.Key)); len(wanted) == 0 {
			return nil
		}
	}
	return nil
}

// addCandidate counts a candidate, and keeps a copy of it unless f is full.
func (f *findings) addCandidate(c candidate) {
	f.sampleOf(c).Rows++
	if f.isFull() {
		return
	}
	if f.lineBytes += len(c.line); f.lineBytes > maxKeptLines {
		c.line = nil
	}
	c.key, c.line = slices.Clone(c.key), slices.Clone(c.line)
	f.candidates = append(f.candidates, c)
}

// isFull reports whether f has maxCandidates candidates. If it has, f may lack further differences.
func (f *findings) isFull() bool { return len(f.candidates) == maxCandidates }

// sampleOf returns the RowSample that c belongs to.
func (f *findings) sampleOf(c candidate) *RowSample {
	switch {
	case c.state == 0:
		return &f.difference.Missing
	case c.table == 0:
		return &f.difference.Extra
	}
	return &f.difference.Different
}

// candidateKeys returns the keys of the candidates.
func (f *findings) candidateKeys() map[string]bool {
	keys := make(map[string]bool, len(f.candidates))
	for _, c := range f.candidates {
		keys[string(c.key)] = true
	}
	return keys
}

// confirmCandidates returns the findings with only the confirmed candidates. It reads each candidate again in later, the second
// snapshot of the round. It drops the rows that changed between the two snapshots, and the rows that the previous round did not
// find. See [Compare].
func (f *findings) confirmCandidates(ctx context.Context, later *tableSnapshot, previous map[string]bool) (*findings, error) {
	confirmed := &findings{difference: Difference{TableRows: f.difference.TableRows}}
	for _, c := range f.candidates {
		if previous != nil && !previous[string(c.key)] {
			continue
		}
		line, err := later.readRow(ctx, c.key)
		if err != nil {
			return nil, err
		}
		now := uint64(0)
		if line != nil {
			now = later.hashLine(line)
		}
		if now == c.table && now != c.state {
			confirmed.addCandidate(c)
		}
	}
	return confirmed, nil
}

// listFirst adds the first rows of each kind of difference to the RowSample of that kind, with the columns that differ.
func (f *findings) listFirst(ctx context.Context, table *tableSnapshot) error {
	for _, c := range f.candidates {
		sample := f.sampleOf(c)
		if len(sample.First) == listedRows {
			continue
		}
		row := SampleRow{Key: table.table.KeyString(c.key)}
		if c.line != nil {
			line, err := table.readRow(ctx, c.key)
			if err != nil {
				return err
			}
			row.Columns = differingColumns(c.line, line, table.isSameValue)
		}
		sample.First = append(sample.First, row)
	}
	return nil
}

// differingColumns returns the names of the columns that differ between a line of the state and a line of the table.
// isSame reports whether two values of a column are equal.
func differingColumns(state, table []byte, isSame func(column string, a, b []byte) bool) []string {
	stateRow, err := statefile.ParseRow(state)
	tableRow, err2 := statefile.ParseRow(table)
	if err != nil || err2 != nil {
		return nil
	}
	var names []string
	for i, m := range tableRow.Members {
		value := statefile.FindMember(stateRow.Members, string(m.Name), i)
		if value == nil || !isSame(string(m.Name), value, m.Value) {
			names = append(names, string(m.Name))
		}
	}
	for i, m := range stateRow.Members {
		if statefile.FindMember(tableRow.Members, string(m.Name), i) == nil {
			names = append(names, string(m.Name))
		}
	}
	if names == nil {
		names = []string{"(the order of the columns)"}
	}
	return names
}
