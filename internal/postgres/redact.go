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
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (raisedByFunction(pg) || slices.Contains(rowClasses, pg.Code[:min(2, len(pg.Code))]))
}

// rowClasses are the classes of SQLSTATEs of errors about a row: a value, a constraint, WITH CHECK OPTION, an error raised by
// PL/pgSQL, and a limit.
var rowClasses = []string{"22", "23", "44", "P0", "54"}

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

// RedactedMessage returns the message of a server's error about a row, without the row's values. For an error that is not
// the server's, it returns the whole text.
func RedactedMessage(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err.Error()
	}
	message := hideValues(pg)
	if message == "" {
		message = withoutQuotations(pg)
	}
	return foreign.Text(message)
}

// hideValues returns a text to show in place of the message of a server's error, if this message may contain a row's text.
// Otherwise it returns "". No field of an error shows whether its message contains a row's text. Therefore, hideValues decides
// by the class of the SQLSTATE, and by the place where the server noticed the error, for example in the text of capture's own
// statement.
func hideValues(pg *pgconn.PgError) string {
	if message := functionMessage(pg); message != "" {
		return message
	}
	// FATAL ends a session or an attempt to connect, so the error is not about a statement.
	if pg.SeverityUnlocalized == "FATAL" || pg.Severity == "FATAL" {
		return ""
	}
	class := pg.Code[:min(2, len(pg.Code))]
	switch {
	case slices.Contains(rowClasses, class):
		return rowMessage(pg)
	case pg.Position > 0 || pg.Code == insufficientPrivilege:
		return "" // the error is in capture's own statement or in an object's privileges, so the message contains no row's text
	case class == "42" || class == "0A":
		// A function such as to_tsquery or regclassin did not understand a value. The message may end with the value. It may
		// also name, without quotation marks, a function or a column that the value mentions.
		if pg.Code == undefinedFunction || pg.Code == undefinedColumn {
			return "a value or an expression names something that does not exist (SQLSTATE " + pg.Code + ")"
		}
		short := *pg
		short.Message, _, _ = strings.Cut(pg.Message, ": ")
		return withoutQuotations(&short)
	case class == "XX" && pg.Where != "": // some types, such as those of PostGIS, report a bad value as an internal error
		return withoutQuotations(pg)
	}
	return ""
}

// rowMessage returns the message of an error about a row. It takes the names of columns and constraints from the fields of the
// error, and leaves out what the server quotes.
func rowMessage(pg *pgconn.PgError) string {
	switch pg.Code {
	case "23502":
		return fmt.Sprintf("column %s may not be NULL", QuoteIdentifier(pg.ColumnName))
	case "23503":
		return fmt.Sprintf("it refers to a row that is not there (foreign key %s of table %s)",
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
	return withoutQuotations(pg)
}

// quotation matches the text that the server quotes in a message, in the quotation marks of any of its languages.
var quotation = regexp.MustCompile(`(?s)["«»„“”].*["«»„“”]`)

// withoutQuotations returns the message of a server's error without what the server quotes.
func withoutQuotations(pg *pgconn.PgError) string {
	message := oneLine(quotation.ReplaceAllString(pg.Message, "…"))
	return strings.TrimSuffix(message, ": …") + " (SQLSTATE " + pg.Code + ")"
}

// languageFiles are prefixes of the names of Postgres' source files. An error from one of these files was raised by a
// function of the database: by RAISE in PL/pgSQL, or by code in PL/Python, PL/Perl or PL/Tcl.
var languageFiles = []string{"pl_exec.c", "plpy_", "plperl", "pltcl"}

// relayRoutines are the C functions with which postgres_fdw and dblink pass on an error of another server.
var relayRoutines = []string{"pgfdw_report_error", "dblink_res_error"}

// raisedByFunction reports whether the error was raised by a function of the database, such as a trigger function, or came
// from another server through postgres_fdw or dblink. Whoever raised the error chose the SQLSTATE, the message, the details,
// and the names of columns and constraints. All of these except the SQLSTATE may contain a row's text.
func raisedByFunction(pg *pgconn.PgError) bool {
	return strings.HasPrefix(pg.Code, "P0") || slices.Contains(relayRoutines, pg.Routine) ||
		slices.ContainsFunc(languageFiles, func(file string) bool { return strings.HasPrefix(pg.File, file) })
}

// isServerState reports whether an SQLSTATE is about the server's own state: a conflict of transactions, a lock, a limit of the
// server, or a canceled statement. The messages of such errors contain no text of a statement.
func isServerState(code string) bool {
	return code == lockNotAvailable || slices.Contains([]string{"40", "53", "57"}, code[:min(2, len(code))])
}

// functionMessage returns the text to show for an error that a function of the database raised, or that occurred in one. A
// function can run a statement that contains a row's text, and the server's message may quote this statement. functionMessage
// returns "" for other errors, and for errors whose message can't contain such a text.
//
// The context of an error shows statements and values, which may contain line breaks. So a line that looks like the name of a
// function may be part of a value. To be safe, functionMessage hides the message if any line looks like the name of a function.
func functionMessage(pg *pgconn.PgError) string {
	function := strings.Contains("\n"+pg.Where, "\nPL/") || strings.HasPrefix(pg.Code, "XX") && strings.Contains(pg.Where, "\n")
	switch {
	case raisedByFunction(pg):
	case !function, pg.Code == insufficientPrivilege, isServerState(pg.Code), strings.HasPrefix(pg.Code, "23"):
		// For class 23, hideValues gets the message from rowMessage, which leaves out what the server quotes.
		return ""
	}
	name, _, _ := strings.Cut(pg.Where, "\n")
	if !strings.HasPrefix(name, "PL/") {
		name = "a trigger or function of the database"
	}
	return fmt.Sprintf("refused by %s; its message may hold a row's text and is not shown (SQLSTATE %s)", name, pg.Code)
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
