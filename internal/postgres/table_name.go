package postgres

import (
	"errors"
	"fmt"
	"strings"
)

// Name is a table's name without quotes. An empty Schema means the first schema on the search path that contains the table.
type Name struct {
	Schema, Table string

	// Whether Schema and Table were written without quotes. If no table has the name as written, the parts without quotes are
	// looked up in lower case.
	foldSchema, foldTable bool
}

// ParseName parses a table name of the form [schema.]table. A part in double quotes is taken literally, but "" inside it
// means one double quote. A part without quotes is looked up as written and then, if nothing has that name, in lower case as
// in SQL.
func ParseName(s string) (Name, error) {
	var parts []string
	var fold []bool
	for rest := s; ; {
		part, after, err := cutIdentifier(rest)
		if err != nil {
			return Name{}, fmt.Errorf("table name %q: %w", s, err)
		}
		parts = append(parts, part)
		fold = append(fold, rest[0] != '"')
		if after == "" {
			break
		}
		rest = after[1:]
	}
	switch len(parts) {
	case 1:
		return Name{Table: parts[0], foldTable: fold[0]}, nil
	case 2:
		return Name{Schema: parts[0], Table: parts[1], foldSchema: fold[0], foldTable: fold[1]}, nil
	}
	return Name{}, fmt.Errorf("table name %q: has %d parts, expected [schema.]table; put double quotes around a name with a dot in it",
		s, len(parts))
}

// cutIdentifier returns the first identifier of s and the rest of s. The rest is empty or begins with the dot after the
// identifier.
func cutIdentifier(s string) (identifier, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexByte(s, '.')
		if end < 0 {
			end = len(s)
		}
		identifier, rest = s[:end], s[end:]
		switch {
		case identifier == "":
			return "", "", errors.New("is empty, expected [schema.]table")
		case strings.ContainsAny(identifier, "\"\x00"):
			return "", "", errors.New("has a stray double quote, expected [schema.]table or \"schema\".\"table\"")
		}
		return identifier, rest, nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			b.WriteByte('"')
			i++
			continue
		}
		if rest = s[i+1:]; rest != "" && rest[0] != '.' {
			return "", "", errors.New("has text after a closing quote, expected a dot")
		}
		if b.Len() == 0 {
			return "", "", errors.New("is empty, expected [schema.]table")
		}
		return b.String(), rest, nil
	}
	return "", "", errors.New("lacks a closing double quote")
}

// String returns the name for messages: schema.table, with double quotes only around a part that would be misread without
// them.
func (n Name) String() string {
	if n.Schema == "" {
		return displayIdentifier(n.Table)
	}
	return displayIdentifier(n.Schema) + "." + displayIdentifier(n.Table)
}

// Quoted returns the name for SQL, with each part in double quotes.
func (n Name) Quoted() string {
	if n.Schema == "" {
		return QuoteIdentifier(n.Table)
	}
	return QuoteIdentifier(n.Schema) + "." + QuoteIdentifier(n.Table)
}

// foldCase returns the name with lower case in the parts that ParseName found without quotes.
func (n Name) foldCase() Name {
	if n.foldSchema {
		n.Schema = strings.ToLower(n.Schema)
	}
	if n.foldTable {
		n.Table = strings.ToLower(n.Table)
	}
	return n
}
