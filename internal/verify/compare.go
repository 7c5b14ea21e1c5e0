package verify

import (
	"context"
	"hash/maphash"
	"iter"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/internal/guard"
	"capture/internal/postgres"
	"capture/internal/statefile"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// Comparison compares a state of a table's rows with the table itself.
//
// It reads the whole table in one snapshot. For each row it keeps the key and about 13 bytes for a hash, a length and an
// offset. It keeps up to 64 MB of this data in memory, and more in a temporary file in the folder that TMPDIR names. If
// ByValue is set, it does the same for each row of the state.
type Comparison struct {
	Database *pgx.ConnConfig
	Table    postgres.Name
	Key      []string // names of the columns to use as the key if the table has none; may be empty
	// State returns the rows of the state in the order of their keys. Compare calls State after it has taken its first
	// snapshot of the table. If Live is set, the state must include everything that was committed before the call, and may
	// include more.
	State func(ctx context.Context, table *postgres.Table) (iter.Seq2[snapshot.Row, error], error)
	// ByValue is set if another program wrote the rows of the state. These rows may be in any order, so Compare sorts their
	// keys, too. Compare then compares values by their meaning, whatever the form in which they are written: see valueHasher.
	ByValue bool
	// StateAgain returns the same rows as State once more, to find the columns that differ. It may be nil. It is called only
	// if ByValue is set. Otherwise, Compare has kept the lines that differ.
	StateAgain func(ctx context.Context, table *postgres.Table) (iter.Seq2[snapshot.Row, error], error)
	// Omitted reports whether the state leaves out the row with this key on purpose. It is called after State. It may be nil.
	Omitted func(key rowjson.Key) bool
	// MaxRow is the maximum size of a row of the table, in bytes of JSON. A larger row is not read in full and counts as
	// different from every row of the state. 0 means no limit.
	MaxRow int64
	// Live is set for a state that follows the table while other sessions write to the table. A row that changes during the
	// comparison is not a difference.
	Live bool
	// Progress is called from time to time during the comparison. It may be nil.
	Progress func(statefile.Progress)
	// ExpectedRows is the number of rows that the table probably has, for Progress. 0 means that it is unknown.
	ExpectedRows int
}

// Difference describes how a state differs from the table.
type Difference struct {
	TableRows int64     `json:"table_rows"`
	Missing   RowSample `json:"missing"`   // rows that only the table has
	Extra     RowSample `json:"extra"`     // rows that only the state has
	Different RowSample `json:"different"` // rows that both have, but with different values
}

// RowSample has the number of rows of one kind, and a list of the first of them.
type RowSample struct {
	Rows  int64       `json:"rows"`
	First []SampleRow `json:"first,omitempty"`
}

// SampleRow identifies a row by its key in readable form. For a row that is in the state and in the table, Columns lists the
// columns that differ.
type SampleRow struct {
	Key     string   `json:"key"`
	Columns []string `json:"columns,omitempty"`
}

// Empty reports whether the state and the table are equal.
func (d *Difference) Empty() bool { return d.Missing.Rows+d.Extra.Rows+d.Different.Rows == 0 }

// maxRounds is the maximum number of rounds of a live comparison: see [Compare].
const maxRounds = 3

// Compare compares a state with the table.
//
// A live state is newer than the snapshot in which the table is read, so a row that differs is only a candidate. Compare
// therefore takes a second snapshot after it has obtained the state, and reads each candidate in that snapshot. If the table's
// row is not the same in both snapshots, the row changed during the comparison, which explains the difference. If the row is
// the same in both snapshots, the state should contain it. One exception remains: the row changed and changed back in between.
// To exclude that, Compare repeats the comparison, and a row counts as different only if each of maxRounds rounds finds it. If
// there are too many differences, Compare reports them without confirmation (see maxCandidates).
func Compare(ctx context.Context, c Comparison) (Difference, error) {
	seed := maphash.MakeSeed()
	var found *findings
	for range maxRounds {
		var previous map[string]bool
		if found != nil {
			previous = found.candidateKeys()
		}
		var err error
		if found, err = c.compareWatched(ctx, seed, previous); err != nil {
			return Difference{}, err
		}
		if !c.Live || found.difference.Empty() || found.isFull() {
			break
		}
	}
	return found.difference, nil
}

// reportRows reports how many rows of the table have been read.
func (c *Comparison) reportRows(rows int) {
	if c.Progress != nil {
		c.Progress(statefile.Progress{Doing: "reading the table", Rows: rows, TotalRows: c.ExpectedRows})
	}
}

// compareWatched runs one round of the comparison. It ends the round if another session waits for the table.
func (c *Comparison) compareWatched(ctx context.Context, seed maphash.Seed, previous map[string]bool) (found *findings, err error) {
	w := &lockWatch{database: c.Database}
	err = guard.RunWatched(ctx, hclog.NewNullLogger(), "watch a comparison", w.run, func(ctx context.Context) (err error) {
		found, err = c.compareOnce(ctx, seed, previous, w)
		return err
	})
	return found, err
}

// compareOnce runs one round. previous has the keys of the rows that the previous round found to differ. Only rows with
// these keys count. In the first round, previous is nil, and every row counts.
func (c *Comparison) compareOnce(ctx context.Context, seed maphash.Seed, previous map[string]bool, w *lockWatch) (*findings, error) {
	first, err := c.openSnapshot(ctx, seed, w)
	if err != nil {
		return nil, err
	}
	defer first.close()
	state, err := c.State(ctx, first.table)
	if err != nil {
		return nil, err
	}
	var second *tableSnapshot
	if c.Live {
		if second, err = c.openSnapshot(ctx, seed, w); err != nil {
			return nil, err
		}
		defer second.close()
	}
	sorted := &sorter{limit: sortMemory}
	defer sorted.close()
	if err := first.readHashes(ctx, sorted, c.Omitted, c.reportRows); err != nil {
		return nil, err
	}
	rows := hashRows(ctx, state, first.hashLine)
	if c.ByValue {
		sortedState := &sorter{limit: sortMemory}
		defer sortedState.close()
		if rows, err = sortRows(rows, sortedState, first.table); err != nil {
			return nil, err
		}
	}
	found, err := compareSorted(rows, sorted)
	if err != nil {
		return nil, err
	}
	if c.ByValue && c.StateAgain != nil && found.difference.Different.Rows > 0 {
		again, err := c.StateAgain(ctx, first.table)
		if err != nil {
			return nil, err
		}
		if err := found.addLines(again); err != nil {
			return nil, err
		}
	}
	if second != nil && !found.isFull() {
		if found, err = found.confirmCandidates(ctx, second, previous); err != nil {
			return nil, err
		}
	}
	return found, found.listFirst(ctx, first)
}
