package restore

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

// serverType is a type that the server knows.
type serverType struct {
	sql     string // its name and modifier, as the server prints them for SQL
	builtIn bool   // whether it is one of Postgres' own
}

// typeError is the error for a text that is not the name of a type.
type typeError struct{ name string }

func (e *typeError) Error() string {
	return fmt.Sprintf("the server has no type %s", foreign.Text(e.name))
}

// typeNames asks the server what the names of types in a manifest mean, and remembers its answers.
//
// No text of the manifest gets into a statement that runs. The name is a parameter of to_regtype, whose parser takes a type's
// name and nothing else. Only the modifier, such as (10,2), needs a statement with the name in it: to_regtype drops it. That
// statement is prepared, which tells the modifier, and is never executed.
type typeNames struct {
	tx    pgx.Tx
	known map[string]serverType
}

// Both statements run with the session's own search path, in which a manifest names types.
const (
	findTypeSQL = `SELECT t.oid::pg_catalog.int8, t.typtype::pg_catalog.text, t.typnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace
		FROM pg_catalog.pg_type t WHERE t.oid OPERATOR(pg_catalog.=) pg_catalog.to_regtype($1::pg_catalog.text)::pg_catalog.oid`
	printTypeSQL = "SELECT pg_catalog.format_type($1::pg_catalog.int8::pg_catalog.oid, $2::pg_catalog.int4)"
)

// find returns the type that a name means. The error is a [*typeError] if the server knows none.
func (n *typeNames) find(ctx context.Context, name string) (serverType, error) {
	if t, ok := n.known[name]; ok {
		return t, nil
	}
	var t serverType
	err := withSavepoint(ctx, n.tx, func() error {
		return withOwnPath(ctx, n.tx, func() (err error) {
			t, err = n.load(ctx, name)
			return err
		})
	})
	var refused *pgconn.PgError // releases before 16 raise an error for what is not a type's name
	switch {
	case errors.Is(err, pgx.ErrNoRows), errors.As(err, &refused) && !n.tx.Conn().IsClosed():
		return t, &typeError{name}
	case err != nil:
		return t, postgres.Explain(fmt.Errorf("find a type: %w", err))
	}
	n.known[name] = t
	return t, nil
}

func (n *typeNames) load(ctx context.Context, name string) (t serverType, err error) {
	var oid int64
	var kind string
	if err := n.tx.QueryRow(ctx, findTypeSQL, name).Scan(&oid, &kind, &t.builtIn); err != nil {
		return t, err
	}
	modifier := int32(-1)
	if kind != "d" { // the description of a result shows a domain's base type; a domain has no modifier
		// The line break ends a comment.
		described, err := n.tx.Conn().PgConn().Prepare(ctx, "", "SELECT CAST(NULL AS "+name+"\n)", nil)
		if err != nil {
			return t, err
		}
		if len(described.Fields) != 1 || int64(described.Fields[0].DataTypeOID) != oid {
			return t, pgx.ErrNoRows
		}
		modifier = described.Fields[0].TypeModifier
	}
	return t, n.tx.QueryRow(ctx, printTypeSQL, oid, modifier).Scan(&t.sql)
}

// typeNamePattern matches the names of types at the start of a text, and little else: the server decides.
var typeNamePattern = regexp.MustCompile(`^(?:"(?:[^"\x00]|"")+"|[\pL_][\pL\pN_]*)(?:\.(?:"(?:[^"\x00]|"")+"|[\pL_][\pL\pN_]*))?` +
	`(?: [a-z]+)*(?:\([\w, -]*\))?(?: [a-z]+)*(?:\[\])*`)

// isPlainTypeName reports whether a text has nothing in it that could make a statement of its own out of a type's name.
func isPlainTypeName(s string) bool { return s != "" && typeNamePattern.FindString(s) == s }
