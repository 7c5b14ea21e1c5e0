package postgres

import (
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
)

// QuoteIdentifier returns name as an SQL identifier in double quotes. It drops NUL bytes, which no name can have.
func QuoteIdentifier(name string) string { return pgx.Identifier{name}.Sanitize() }

// QuoteLiteral returns s as an SQL string constant. If s contains a backslash, the result is an escape string constant (E'…'),
// which means the same whether standard_conforming_strings is on or off. QuoteLiteral drops NUL bytes, which no string in
// Postgres can have. Replication commands have a grammar of their own: see [QuoteReplicationString].
func QuoteLiteral(s string) string {
	quoted := QuoteReplicationString(s)
	if strings.Contains(s, `\`) {
		// The space separates the E from a word before it.
		return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// QuoteReplicationString returns s as a string constant for a replication command such as START_REPLICATION. In the grammar
// of these commands (Postgres' repl_scanner.l) the doubled quote is the only escape, and a backslash stands for itself.
func QuoteReplicationString(s string) string {
	return "'" + strings.NewReplacer("'", "''", "\x00", "").Replace(s) + "'"
}

// displayIdentifier returns a name in the form for messages and SQL comments. The name is in double quotes only if it would
// be misread without them. Line breaks and other control characters are escaped: a line break would end a comment, and the
// rest of the name would be SQL.
func displayIdentifier(name string) string {
	for _, r := range name {
		if r == '.' || r == '"' || unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return foreign.Line(QuoteIdentifier(name))
		}
	}
	return foreign.Line(name)
}
