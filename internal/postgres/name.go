package postgres

import (
	"fmt"
	"strings"
)

// Name is a table's name without quotes. An empty Schema means the first schema on the search path that has the table.
type Name struct {
	Schema, Table string

	foldSchema, foldTable bool // the part was written without quotes: lower case will do where nothing has it as written
}

// ParseName reads [schema.]table as a person writes it. A part in double quotes is taken as it stands, with "" for a
// quote in it; a part without quotes is looked for as it stands and, where nothing is called so, in lower case, as
// SQL would.
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
	return Name{}, fmt.Errorf("table name %q: has %d parts, takes [schema.]table; put double quotes around a name with a dot in it",
		s, len(parts))
}

// cutIdentifier takes one identifier off the front of s; what is left is empty or begins with the dot after it.
func cutIdentifier(s string) (ident, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexByte(s, '.')
		if end < 0 {
			end = len(s)
		}
		ident, rest = s[:end], s[end:]
		switch {
		case ident == "":
			return "", "", fmt.Errorf("is empty, takes [schema.]table")
		case strings.ContainsAny(ident, "\"\x00"):
			return "", "", fmt.Errorf("has a stray double quote, takes [schema.]table or \"schema\".\"table\"")
		}
		return ident, rest, nil
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
			return "", "", fmt.Errorf("goes on after a closing quote without a dot")
		}
		if b.Len() == 0 {
			return "", "", fmt.Errorf("is empty, takes [schema.]table")
		}
		return b.String(), rest, nil
	}
	return "", "", fmt.Errorf("lacks a closing double quote")
}

// String is the name for people: schema.table, with quotes only where a part would be misread without them.
func (n Name) String() string {
	if n.Schema == "" {
		return displayIdentifier(n.Table)
	}
	return displayIdentifier(n.Schema) + "." + displayIdentifier(n.Table)
}

// Quoted is the name for SQL, each part in double quotes.
func (n Name) Quoted() string {
	if n.Schema == "" {
		return QuoteIdentifier(n.Table)
	}
	return QuoteIdentifier(n.Schema) + "." + QuoteIdentifier(n.Table)
}

// folded is the name with the parts that were written without quotes in lower case.
func (n Name) folded() Name {
	if n.foldSchema {
		n.Schema = strings.ToLower(n.Schema)
	}
	if n.foldTable {
		n.Table = strings.ToLower(n.Table)
	}
	return n
}
