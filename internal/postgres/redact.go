package postgres

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/foreign"
)

// IsRowRefused reports whether a statement failed because of the rows that it reads or writes: a value, a constraint, a limit,
// or an error raised by a function, such as a trigger function. It checks the class of the SQLSTATE; see "PostgreSQL Error
// Codes". A function may raise any SQLSTATE, so raisedByFunction recognizes such errors by other fields.
func IsRowRefused(err error) bool {
	if raisedByFunction(err) != "" {
		return true
	}
	state := SQLState(err)
	switch state[:min(2, len(state))] {
	case "22", "23", "44", "P0", "54":
		return true
	}
	return false
}

// ExplainRedacted returns err, prefixed with the action that failed and explained as by [Explain]. If [IsRowRefused] is true
// for err, the result contains none of the row's values and does not wrap err. If err is nil, the result is nil.
func ExplainRedacted(action string, err error) error {
	switch {
	case err == nil:
		return nil
	case IsRowRefused(err):
		return fmt.Errorf("%s: %s", action, RedactedMessage(err))
	}
	return Explain(fmt.Errorf("%s: %w", action, err))
}

// quotation matches the text that the server quotes in a message, in the quotation marks of any of its languages.
var quotation = regexp.MustCompile(`(?s)["«»„“”].*["«»„“”]`)

// RedactedMessage returns the message of a server's error about a row, without the row's values. For an error that is not
// the server's, it returns the whole text.
func RedactedMessage(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err.Error()
	}
	if raised := raisedByFunction(err); raised != "" {
		return raised
	}
	return foreign.Text(redactedMessage(pg))
}

func redactedMessage(pg *pgconn.PgError) string {
	switch pg.Code {
	case "23502":
		return fmt.Sprintf("column %s may not be NULL", QuoteIdentifier(pg.ColumnName))
	case "23503":
		return fmt.Sprintf("it refers to a row that is not there (foreign key %s of table %s); restore that table first",
			QuoteIdentifier(pg.ConstraintName), QuoteIdentifier(pg.TableName))
	case "23505":
		return fmt.Sprintf("another row has the same value already (unique constraint %s)", QuoteIdentifier(pg.ConstraintName))
	case "23514":
		if pg.DataTypeName != "" {
			return fmt.Sprintf("domain %s does not allow the value (check %s)", QuoteIdentifier(pg.DataTypeName), QuoteIdentifier(pg.ConstraintName))
		}
		if pg.ConstraintName == "" {
			return "no partition of the table takes the row"
		}
		return fmt.Sprintf("the table does not allow it (check %s)", QuoteIdentifier(pg.ConstraintName))
	case "23P01":
		return fmt.Sprintf("it overlaps with another row (exclusion constraint %s)", QuoteIdentifier(pg.ConstraintName))
	}
	message := oneLine(quotation.ReplaceAllString(pg.Message, "…"))
	return strings.TrimSuffix(message, ": …") + " (SQLSTATE " + pg.Code + ")"
}

// languageFiles are prefixes of the names of Postgres' source files. An error from one of these files was raised by a
// function of the database: by RAISE in PL/pgSQL, or by code in PL/Python, PL/Perl or PL/Tcl.
var languageFiles = []string{"pl_exec.c", "plpy_", "plperl", "pltcl"}

// raisedByFunction returns a message that is safe to show for an error raised by a function of the database, such as a trigger
// function. It returns "" for other errors. The function's author chose the message, the details, and the names of columns and
// constraints, so each of them may contain a row's text. The result contains only the SQLSTATE and the first line of the
// context, where Postgres names the function and the line.
func raisedByFunction(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return ""
	}
	raised := slices.ContainsFunc(languageFiles, func(file string) bool { return strings.HasPrefix(pg.File, file) })
	if !raised && !strings.HasPrefix(pg.Code, "P0") {
		return ""
	}
	where := "a trigger or function of the database"
	if first, _, _ := strings.Cut(pg.Where, "\n"); strings.HasPrefix(first, "PL/") {
		where = first
	}
	return foreign.Text(fmt.Sprintf("refused by %s; its message may hold a row's text and is not shown (SQLSTATE %s)", where, pg.Code))
}

// ErrorContext returns the context of a server's error, such as the line and the column of COPY. The context may contain
// values, so it must not be shown.
func ErrorContext(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Where
	}
	return ""
}
