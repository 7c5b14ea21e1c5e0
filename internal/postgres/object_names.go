package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// ProgramVersion is the version of capture. Comments on the objects that capture creates in a database contain it. main
// sets it before anything else runs.
var ProgramVersion = "dev"

// maxNameBytes is the maximum length of a name in bytes (NAMEDATALEN - 1). Postgres truncates longer names.
const maxNameBytes = 63

// objectName returns the name of capture's publication, trigger function and notification channel for a table: capture_votes
// for public.votes, capture_app__votes for app.votes. The name ends with a hash of 32 bits if it would otherwise be ambiguous
// or too long. It also ends with a hash if the schema or table has characters other than lower-case letters, digits and
// underscores. So two tables share a name only if their hashes are equal, or if the name of one table already ends with the
// hash of the other table. capture accepts the second case. To exclude it, capture would have to add a hash to each name that
// looks like a name with a hash. A table such as votes_20260101 would then get another name, and lose its existing publication.
func objectName(n Name) string {
	ambiguous := strings.Contains(n.Table, "__")
	name := "capture_" + plainName(n.Table)
	if n.Schema != "public" {
		ambiguous = ambiguous || strings.Contains(n.Schema, "__") || strings.HasSuffix(n.Schema, "_") || strings.HasPrefix(n.Table, "_")
		name = "capture_" + plainName(n.Schema) + "__" + plainName(n.Table)
	}
	if !ambiguous && plainName(n.Schema) == n.Schema && plainName(n.Table) == n.Table && len(name) <= maxNameBytes {
		return name
	}
	sum := sha256.Sum256([]byte(n.Quoted()))
	return name[:min(len(name), maxNameBytes-9)] + "_" + hex.EncodeToString(sum[:4])
}

// plainName returns s with an underscore for each character that is not a lower-case letter, a digit or an underscore.
func plainName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, s)
}

// commentLiteral returns an SQL literal with the comment for an object that capture creates. The comment's first word
// identifies the object as capture's: see [LoadTeardown].
func commentLiteral(text string) string {
	return QuoteLiteral("capture " + ProgramVersion + ": " + text)
}
