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

// IsRowRefused reports whether the server failed a statement because of the rows that it reads or writes: their values, a
// constraint, what a trigger raised, a limit. It goes by the class of the SQLSTATE; see "PostgreSQL Error Codes". A function may
// raise any SQLSTATE.
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

// ExplainRedacted returns err with the action that failed, explained as by [Explain]. The error of a row comes without the
// row's values and does not wrap err. It returns nil for nil.
func ExplainRedacted(action string, err error) error {
	switch {
	case err == nil:
		return nil
	case IsRowRefused(err):
		return fmt.Errorf("%s: %s", action, RedactedMessage(err))
	}
	return Explain(fmt.Errorf("%s: %w", action, err))
}

// quotation is what the server quotes in a message, in the quotation marks of its languages.
var quotation = regexp.MustCompile(`(?s)["«»„“”].*["«»„“”]`)

// RedactedMessage returns what the server says about a row, without any value of the row. An error that is not the server's
// comes back as it is.
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

// languageFiles begin the names of the files in Postgres' source whose errors a function of the database raises: RAISE in
// PL/pgSQL, and what programs in PL/Python, PL/Perl and PL/Tcl say.
var languageFiles = []string{"pl_exec.c", "plpy_", "plperl", "pltcl"}

// raisedByFunction returns what is safe to say of an error that a function of the database raised, such as a trigger's; "" for
// other errors. Whoever wrote the function chose all of the error, the SQLSTATE and the names of columns and constraints too, so
// each may hold a row's text. What does not is the first line of the context, where Postgres names the function and its line.
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

// ErrorContext returns the context of a server's error, such as the line and the column of COPY. It holds values: it must not
// be shown.
func ErrorContext(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Where
	}
	return ""
}
