package restore

import (
	"errors"
	"fmt"

	"capture/internal/postgres"
	"capture/internal/statefile"
)

// SQLSTATEs; see "PostgreSQL Error Codes" in Postgres' documentation.
const (
	restrictViolation     = "23001"
	notNullViolation      = "23502"
	foreignKeyViolation   = "23503"
	uniqueViolation       = "23505"
	checkViolation        = "23514"
	exclusionViolation    = "23P01"
	invalidSchemaName     = "3F000"
	deadlockDetected      = "40P01"
	insufficientPrivilege = "42501"
	undefinedObject       = "42704"
	duplicateTable        = "42P07"
	lockNotAvailable      = "55P03"
)

// isForeignKeyViolation reports whether a statement violated a foreign key. Since PostgreSQL 18, ON DELETE RESTRICT and ON
// UPDATE RESTRICT have an SQLSTATE of their own.
func isForeignKeyViolation(err error) bool {
	state := postgres.SQLState(err)
	return state == foreignKeyViolation || state == restrictViolation
}

// explainMismatch adds a hint to the error for a file that does not match its manifest. It returns any other error unchanged.
func explainMismatch(err error) error {
	if !errors.As(err, new(*statefile.MismatchError)) {
		return err
	}
	return &postgres.Problem{
		Summary: err.Error(), Err: err,
		Hint: "if you have edited it on purpose, use --edited; otherwise restore an earlier state, see capture history",
	}
}

// ConflictError is the error for rows of the file whose keys exist in the table already. Restore returns it if
// Options.OnConflict is Fail.
type ConflictError struct {
	Table string
	Rows  int64  // number of these rows; 0 if only the first is known
	First string // line and key of the first of these rows
}

func (e *ConflictError) Error() string {
	rows := fmt.Sprintf("%d rows of the file are", e.Rows)
	switch e.Rows {
	case 0:
		rows = "at least one row of the file is"
	case 1:
		rows = "one row of the file is"
	}
	return fmt.Sprintf("%s already in table %s, the first at %s; --on-conflict skip keeps the table's rows, overwrite takes the file's",
		rows, e.Table, e.First)
}

// rowError is the error for a row that the server refuses. It shows the row's key, but no other value.
type rowError struct {
	place  string   // text that says where the row is, with its line and its key, or text about the step that failed
	key    []string // text forms of the key columns; nil if unknown
	column string   // column whose value the server refuses; "" if unknown
	hint   string   // what may be wrong with the column's value, with a semicolon before it; may be empty
	err    error    // error of the server
}

func (e *rowError) Error() string {
	reason := postgres.RedactedMessage(e.err)
	if e.column != "" {
		return fmt.Sprintf("%s: column %s does not take the value: %s%s", e.place, postgres.QuoteIdentifier(e.column), reason, e.hint)
	}
	return e.place + ": " + reason
}

func (e *rowError) Unwrap() error { return e.err }

// deniedError is the server's error that a role lacks a privilege. [restoration.explainDenied] finds out which privilege, but
// only after the transaction has ended: until then, the server refuses the necessary queries.
type deniedError struct {
	action string // what failed
	schema string // schema in which the statement was to create a table; "" for any other statement
	err    error  // error of the server
}

func (e *deniedError) Error() string { return e.action + ": " + postgres.RedactedMessage(e.err) }

func (e *deniedError) Unwrap() error { return e.err }

// explain returns err with a prefix that names the failed action, as [postgres.ExplainRedacted] does. But an error about a row
// still wraps the server's error, which explainViolation needs. If a role lacks a privilege, explain returns a [*deniedError],
// because the hint of ExplainRedacted is about following a table.
func explain(action string, err error) error {
	if postgres.IsRowRefused(err) {
		return &rowError{place: action, err: err}
	}
	if !postgres.IsDenied(err) {
		return postgres.ExplainRedacted(action, err)
	}
	if known := (*postgres.Problem)(nil); errors.As(err, &known) {
		return err
	}
	return &deniedError{action: action, err: err}
}
