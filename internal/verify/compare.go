package verify

import (
	"context"
	"hash/maphash"
	"iter"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/internal/statefile"
	"capture/snapshot"
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
func Compare(ctx context.Context, c Comparison) (Difference, error) {
	seed := maphash.MakeSeed()
	var suspected map[string]bool
	for round := 1; ; round++ {
		found, err := c.compareOnce(ctx, seed, suspected)
		if err != nil {
			return Difference{}, err
		}
		if !c.Live || found.difference.Empty() || round == maxRounds || found.full() {
			return found.difference, nil
		}
		suspected = found.keys()
	}
}

// compareOnce compares once. Only rows with the keys in among count, if it is not nil.
func (c *Comparison) compareOnce(ctx context.Context, seed maphash.Seed, among map[string]bool) (*findings, error) {
	first, err := openSnapshot(ctx, c.Database, c.Table, seed)
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
		// This snapshot is taken after the state: a row that differs between the two snapshots has changed meanwhile.
		if second, err = openSnapshot(ctx, c.Database, c.Table, seed); err != nil {
			return nil, err
		}
		defer second.close()
	}
	sorted := &sorter{limit: sortMemory}
	defer sorted.close()
	if err := first.readHashes(ctx, sorted, c.Progress); err != nil {
		return nil, err
	}
	found, err := compareSorted(state, sorted, first.hash)
	if err != nil {
		return nil, err
	}
	if second != nil && !found.full() {
		if found, err = found.confirm(ctx, second, among); err != nil {
			return nil, err
		}
	}
	return found, found.describe(ctx, first)
}
