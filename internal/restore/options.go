package restore

import (
	"io"
	"time"

	"capture/internal/postgres"
	"capture/internal/statefile"
)

// OnConflict defines what Restore does with a row of the file whose key exists in the table already.
type OnConflict string

const (
	Fail      OnConflict = "fail"      // restore nothing
	Skip      OnConflict = "skip"      // keep the table's row
	Overwrite OnConflict = "overwrite" // replace the table's row with the file's
)

// Options are the settings of a restore.
type Options struct {
	Path            string        // path of the file, in any form that statefile reads; "-" for Stdin
	Stdin           io.Reader     // input for the path "-"
	Table           postgres.Name // target table; the manifest's table if zero
	Create          bool          // whether to create the table from the manifest if it is missing
	Expressions     bool          // whether Create uses all expressions of the manifest, which can run any function of the database
	OnConflict      OnConflict    // treatment of keys that exist in the table already; "" means Fail
	DeleteExtra     bool          // whether to delete the table's rows that are not in the file
	Edited          bool          // whether to accept a file that does not match its manifest, and use the manifest only to describe the table
	MissingNull     bool          // whether a nullable column that a row of the file lacks counts as NULL
	DryRun          bool          // whether to roll back at the end, after all rows have been written and counted
	DisableTriggers bool          // whether to prevent the table's triggers and foreign keys from acting on the rows

	// LockWait is the time after which a restore gives up waiting for other sessions' locks on the table; 0 means five minutes.
	LockWait time.Duration

	// Confirm asks the user before rows of the table may be overwritten or deleted. The table has the given number of rows. If
	// Confirm returns an error, the restore ends. No transaction is open during the call. If Confirm is nil, the
	// restore does not ask.
	Confirm func(table string, rows int64) error
	// ConfirmTable asks the user before anything is written to a table that only the manifest names, because anybody may have
	// written the manifest. The application's table, votes, needs no confirmation. If ConfirmTable returns an error, the
	// restore ends. If ConfirmTable is nil, the restore does not ask.
	ConfirmTable func(table string) error
	// Progress is called from time to time during the restore. It may be nil.
	Progress func(statefile.Progress)
}

// Result describes what a restore did or, with DryRun, would do. The row counts in Inserted, Overwritten and Deleted come
// from Postgres.
type Result struct {
	Table       string `json:"table"`
	Created     bool   `json:"created,omitempty"`
	DryRun      bool   `json:"dry_run,omitempty"`
	Checked     bool   `json:"checked"`          // whether the file matches its manifest; false if it has none
	Edited      bool   `json:"edited,omitempty"` // whether the file has a manifest, but was not compared with it because of Options.Edited
	Rows        int    `json:"rows"`             // number of rows in the file
	Inserted    Change `json:"inserted"`
	Overwritten Change `json:"overwritten"`
	Unchanged   int64  `json:"unchanged"` // number of rows that were the same in the table and in the file
	Skipped     Change `json:"skipped"`
	Deleted     Change `json:"deleted"`

	// These fields count differences that the database's own triggers, rules, foreign keys and generated columns have caused:
	// rows that differ from the file, and skipped rows that have changed. If the table must become equal to the file, such a
	// row is an error.
	LeftOut   Change       `json:"left_out"`     // rows of the file that the table lacks, although the restore had to write them, or the table had them before
	Changed   Change       `json:"changed"`      // rows that were written and have other values than in the file, or were skipped and have other values than before
	Remaining Change       `json:"remaining"`    // rows in the table that the file lacks: rows that should have been deleted, and rows that the database has added
	By        string       `json:"by,omitempty"` // most likely cause of these differences, as text
	Others    []OtherTable `json:"other_tables,omitempty"`

	Sequences []Sequence      `json:"sequences,omitempty"`
	NotSet    []UnsetSequence `json:"sequences_not_set,omitempty"`
	Notes     []string        `json:"notes,omitempty"` // sentences for the user
}

// Change is a row count with the keys of the first of these rows.
type Change struct {
	Rows int64    `json:"rows"`
	Keys []string `json:"keys,omitempty"`
}

// shownKeys is the maximum number of keys in a Change.
const shownKeys = 5

// OtherTable is another table whose rows changed because rows of the restored table changed. The cause is a foreign key with an
// action, such as ON DELETE CASCADE, or a trigger or rule.
type OtherTable struct {
	Table    string `json:"table"`
	Inserted int64  `json:"inserted,omitempty"`
	Updated  int64  `json:"updated,omitempty"`
	Deleted  int64  `json:"deleted,omitempty"`
}

// UnsetSequence describes a sequence that should be advanced but can't be.
type UnsetSequence struct {
	Name   string `json:"name"`
	Last   string `json:"last"`   // value after which the sequence should continue; "" if unknown
	Reason string `json:"reason"` // reason why the sequence can't be advanced, and the consequence
}

// Sequence describes a sequence that the restore has advanced.
type Sequence struct {
	Name string `json:"name"`
	Last int64  `json:"last"` // last value, after which the sequence continues
}
