package recovery

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/postgres"
)

// rowError is that the server refused one row.
type rowError struct {
	place  string   // its line and key
	keys   []string // the text forms of its key; nil where they are not known
	column string   // the column whose value it was; may be ""
	err    error
}

func (e *rowError) Error() string {
	said := said(e.err)
	if e.column != "" {
		return fmt.Sprintf("%s: column %s does not take the value: %s", e.place, postgres.QuoteIdentifier(e.column), said)
	}
	return e.place + ": " + said
}

func (e *rowError) Unwrap() error { return e.err }

// refused says whether err is about the rows (data exceptions, integrity, what triggers raise), and not about the session.
func refused(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || len(pg.Code) != 5 {
		return false
	}
	switch pg.Code[:2] {
	case "22", "23", "44", "P0", "54":
		return true
	}
	return false
}

// whereOf is the context that the server gives with an error. It holds values: it must not be shown.
func whereOf(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Where
	}
	return ""
}

// quoted finds what the server quotes in a message, in the quotation marks of its languages.
var quoted = regexp.MustCompile(`(?s)["«»„“”].*["«»„“”]`)

// said is what the server says of a row, without any value that the row has.
func said(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err.Error()
	}
	switch pg.Code {
	case "23502":
		return fmt.Sprintf("column %s may not be NULL", postgres.QuoteIdentifier(pg.ColumnName))
	case "23503":
		return fmt.Sprintf("it refers to a row that is not there (foreign key %s of table %s); restore that table first",
			postgres.QuoteIdentifier(pg.ConstraintName), postgres.QuoteIdentifier(pg.TableName))
	case "23505":
		return fmt.Sprintf("another row has the same value already (unique constraint %s)", postgres.QuoteIdentifier(pg.ConstraintName))
	case "23514":
		if pg.DataTypeName != "" {
			return fmt.Sprintf("domain %s does not allow the value (check %s)", postgres.QuoteIdentifier(pg.DataTypeName), postgres.QuoteIdentifier(pg.ConstraintName))
		}
		if pg.ConstraintName == "" {
			return "no partition of the table takes the row"
		}
		return fmt.Sprintf("the table does not allow it (check %s)", postgres.QuoteIdentifier(pg.ConstraintName))
	case "23P01":
		return fmt.Sprintf("it overlaps with another row (exclusion constraint %s)", postgres.QuoteIdentifier(pg.ConstraintName))
	}
	message := strings.Join(strings.Fields(quoted.ReplaceAllString(pg.Message, "…")), " ")
	return strings.TrimSuffix(message, ": …") + " (SQLSTATE " + pg.Code + ")"
}

// explain adds what to do to an error of the server, unless it is about a row.
func explain(what string, err error) error {
	if refused(err) {
		return fmt.Errorf("%s: %s", what, said(err))
	}
	return postgres.Explain(fmt.Errorf("%s: %w", what, err))
}
