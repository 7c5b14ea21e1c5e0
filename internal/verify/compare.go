package verify

import (
	"context"
	"hash/maphash"
	"iter"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/internal/statefile"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// Comparison compares a state of a table's rows with the table itself.
//
// It reads the table once. For each row it keeps the key and some 13 bytes, up to 64 MB in memory and beyond that in a temporary
// file (in TMPDIR).
type Comparison struct {
	Database *pgx.ConnConfig
	Table    postgres.Name
	// State returns the rows of the state, in the order of their keys. It is called after the snapshot in which the table is
	// read has been taken. If Live is set, the state must have everything that was committed before the call, and may have more.
	State func(ctx context.Context, table *postgres.Table) (iter.Seq2[snapshot.Row, error], error)
	// Omitted, if set, reports whether the state leaves a row out on purpose. It is called after State.
	Omitted func(key rowjson.Key) bool
	// MaxRow is the most bytes of JSON of a row that is read; a larger one differs from any row. 0 stands for no limit.
	MaxRow int64
	// Live is set for a state that follows the table while others write to it. A row that changes during the comparison is not a
	// difference.
	Live bool
	// Progress is called now and then. It may be nil.
	Progress func(statefile.Progress)
}

// Difference is how a state differs from the table.
type Difference struct {
	TableRows int64     `json:"table_rows"`
	Missing   RowSample `json:"missing"`   // rows of the table that are not in the state
	Extra     RowSample `json:"extra"`     // rows of the state that are not in the table
	Different RowSample `json:"different"` // rows in both that are not the same
}

// RowSample is a number of rows, with the first few.
type RowSample struct {
	Rows  int64       `json:"rows"`
	First []SampleRow `json:"first,omitempty"`
}

// SampleRow names a row by its key, as people read it, and for a row that differs the columns in which it does.
type SampleRow struct {
	Key     string   `json:"key"`
	Columns []string `json:"columns,omitempty"`
}

// Empty reports whether there is no difference.
func (d *Difference) Empty() bool { return d.Missing.Rows+d.Extra.Rows+d.Different.Rows == 0 }

// maxRounds is how often a live comparison must find the same row before the row counts as different.
const maxRounds = 3

// Compare compares a state with the table.
//
// A live state is newer than the snapshot in which the table is read, so a row that differs is only a candidate. A second
// snapshot is taken after the state. If the table's row is another one there, it has changed meanwhile, which explains the
// difference. If it is the same in both snapshots, the state should have had it, unless the row changed and changed back in
// between. So the comparison starts again, and a row counts only if each of maxRounds rounds finds it.
func Compare(ctx context.Context, c Comparison) (Difference, error) {
	seed := maphash.MakeSeed()
	var found *findings
	for range maxRounds {
		var previous map[string]bool
		if found != nil {
			previous = found.candidateKeys()
		}
		var err error
		if found, err = c.compareOnce(ctx, seed, previous); err != nil {
			return Difference{}, err
		}
		if !c.Live || found.difference.Empty() || found.isFull() {
			break
		}
	}
	return found.difference, nil
}

// compareOnce is one round. previous are the keys that the round before found, or nil in the first round: no other row counts.
func (c *Comparison) compareOnce(ctx context.Context, seed maphash.Seed, previous map[string]bool) (*findings, error) {
	first, err := c.openSnapshot(ctx, seed)
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
		if second, err = c.openSnapshot(ctx, seed); err != nil {
			return nil, err
		}
		defer second.close()
	}
	sorted := &sorter{limit: sortMemory}
	defer sorted.close()
	if err := first.readHashes(ctx, sorted, c.Omitted, c.Progress); err != nil {
		return nil, err
	}
	found, err := compareSorted(state, sorted, first.hashLine)
	if err != nil {
		return nil, err
	}
	if second != nil && !found.isFull() {
		if found, err = found.confirmCandidates(ctx, second, previous); err != nil {
			return nil, err
		}
	}
	return found, found.listFirst(ctx, first)
}
