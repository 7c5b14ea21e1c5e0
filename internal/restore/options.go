package restore

import (
	"io"

	"capture/internal/postgres"
	"capture/internal/statefile"
)

// OnConflict is what Restore does with a row of the file whose key is in the table.
type OnConflict string

const (
	Fail      OnConflict = "fail"      // restore nothing
	Skip      OnConflict = "skip"      // keep the table's row
	Overwrite OnConflict = "overwrite" // take the file's row
)

// Options are the choices of a restore.
type Options struct {
	Path            string        // path of feedback.json, plain or gzipped; "-" for Stdin
	Stdin           io.Reader     // input for the path "-"
	Table           postgres.Name // target table; zero for the one in the manifest
	Create          bool          // create the table from the manifest if it is missing
	Expressions     bool          // with Create, take the manifest's expressions, which can run any function of the database
	OnConflict      OnConflict    // "" means Fail
	DeleteExtra     bool          // delete the table's rows that are not in the file
	DryRun          bool          // do everything, count, and roll back
	DisableTriggers bool          // keep the table's triggers and foreign keys from acting on the rows

	// Confirm is called before rows of the table may be overwritten or deleted, with the number of its rows. An error ends the
	// restore. No transaction is open meanwhile. nil does not ask.
	Confirm func(table string, rows int64) error
	// ConfirmTable is called before anything is written to a table that only the manifest names: anybody may have written it. The
	// application's default, votes, needs no confirmation. An error ends the restore. nil does not ask.
	ConfirmTable func(table string) error
	// Progress is called now and then. It may be nil.
	Progress func(statefile.Progress)
}

// Result is what a restore did or, with DryRun, would do.
type Result struct {
	Table       string     `json:"table"`
	Created     bool       `json:"created,omitempty"`
	DryRun      bool       `json:"dry_run,omitempty"`
	Checked     bool       `json:"checked"` // the file matches its manifest; false if it has none
	Rows        int        `json:"rows"`    // rows of the file
	Inserted    Change     `json:"inserted"`
	Overwritten Change     `json:"overwritten"`
	Unchanged   int64      `json:"unchanged"` // rows that the table had with the same values
	Skipped     Change     `json:"skipped"`
	Deleted     Change     `json:"deleted"`
	Sequences   []Sequence `json:"sequences,omitempty"`
	Notes       []string   `json:"notes,omitempty"` // sentences for the user
}

// Change is a number of rows and the keys of the first few.
type Change struct {
	Rows int64    `json:"rows"`
	Keys []string `json:"keys,omitempty"`
}

// shownKeys is the number of keys in a Change.
const shownKeys = 5

// Sequence is a sequence that was set to continue after the highest key.
type Sequence struct {
	Name string `json:"name"`
	Last int64  `json:"last"` // last number that counts as used
}
