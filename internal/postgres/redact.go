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
	if raisedByFunction(err) {
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
	if message := functionMessage(err); message != "" {
		return message
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

// relayRoutines are the C functions with which postgres_fdw and dblink pass on an error of another server.
var relayRoutines = []string{"pgfdw_report_error", "dblink_res_error"}

// raisedByFunction reports whether a function of the database raised the error, such as a trigger function, or whether another
// server raised it. Its author chose the SQLSTATE, the message, the details, and the names of columns and constraints, so each
// of them except the SQLSTATE may contain a row's text.
func raisedByFunction(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (strings.HasPrefix(pg.Code, "P0") || slices.Contains(relayRoutines, pg.Routine) ||
		slices.ContainsFunc(languageFiles, func(file string) bool { return strings.HasPrefix(pg.File, file) }))
}

// isServerState reports whether an SQLSTATE is about the server's own state: a conflict of transactions, a lock, a limit of the
// server, or a canceled statement. The messages contain no text of a statement.
func isServerState(code string) bool {
	return code == lockNotAvailable || slices.Contains([]string{"40", "53", "57"}, code[:min(2, len(code))])
}

// functionMessage returns a message that is safe to show for an error that a function of the database raised, or that occurred
// in one. A function can run a statement that contains a row's text, and the server's message may quote this statement. The
// result contains only the SQLSTATE and a line of the context, in which Postgres names the function. functionMessage returns ""
// for other errors, and for errors whose message can't contain such a text.
func functionMessage(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return ""
	}
	function := ""
	lines := strings.Split(pg.Where, "\n")
	for i, line := range lines {
		// Only the first line and the last one that names a function are certain to come from Postgres: the lines between may
		// belong to a statement with a row's text.
		if strings.HasPrefix(line, "PL/") {
			function = line
			if i == 0 {
				break
			}
		}
	}
	switch {
	case raisedByFunction(err):
	case function == "", pg.Code == insufficientPrivilege, isServerState(pg.Code), strings.HasPrefix(pg.Code, "23"): // see redactedMessage
		return ""
	}
	where := "a trigger or function of the database"
	if function != "" {
		where = function
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
