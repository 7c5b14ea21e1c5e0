package postgres

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// IsRowRefused reports whether the server failed a statement because of the rows that it reads or writes: their values, a
// constraint, what a trigger raised, a limit. It goes by the class of the SQLSTATE; see "PostgreSQL Error Codes".
func IsRowRefused(err error) bool {
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

// ErrorContext returns the context of a server's error, such as the line and the column of COPY. It holds values: it must not
// be shown.
func ErrorContext(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Where
	}
	return ""
}
