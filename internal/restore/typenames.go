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

// serverType is a type that the server has.
type serverType struct {
	sql     string // name and modifier of the type, as the server prints them
	builtIn bool   // whether the type is in the schema pg_catalog
}

// typeError is the error for a name that is not a type of the server.
type typeError struct{ name string }

func (e *typeError) Error() string {
	return fmt.Sprintf("the server has no type %s", foreign.Text(e.name))
}

// typeNames resolves the type names in a manifest on the server, and caches the results.
//
// It never puts a type name of the manifest into a statement that is executed. The name is a parameter of to_regtype, whose
// parser accepts only the name of a type. But to_regtype drops the modifier, such as (10,2). To read the modifier, typeNames
// prepares a statement that contains the name, and never executes it.
type typeNames struct {
	tx    pgx.Tx
	known map[string]serverType
}

// Both statements run with the session's own search path, because the type names in a manifest are relative to that path.
const (
	findTypeSQL = `SELECT t.oid::pg_catalog.int8, t.typtype::pg_catalog.text, t.typnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace
		FROM pg_catalog.pg_type t WHERE t.oid OPERATOR(pg_catalog.=) pg_catalog.to_regtype($1::pg_catalog.text)::pg_catalog.oid`
	printTypeSQL = "SELECT pg_catalog.format_type($1::pg_catalog.int8::pg_catalog.oid, $2::pg_catalog.int4)"
)

// find returns the type with the given name. The error is a [*typeError] if the server has no such type.
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
	var refused *pgconn.PgError // before PostgreSQL 16, to_regtype fails for a text that is not a type name
	switch {
	case postgres.IsDenied(err): // the user lacks a privilege for the type's schema
		return t, &deniedError{action: "find type " + foreign.Text(name), err: err}
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
	if kind != "d" { // a domain has no modifier, and the description of a statement shows the domain's base type
		// The line break ends a comment that the name may contain.
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

// typeNamePattern matches a type name at the start of a text. It also matches some texts that are not type names, which the
// server then refuses.
var typeNamePattern = regexp.MustCompile(`^(?:"(?:[^"\x00]|"")+"|[\pL_][\pL\pN_]*)(?:\.(?:"(?:[^"\x00]|"")+"|[\pL_][\pL\pN_]*))?` +
	`(?: [a-z]+)*(?:\([\w, -]*\))?(?: [a-z]+)*(?:\[\])*`)

// isPlainTypeName reports whether s has the form of a type name and contains nothing else. Such a text cannot add a statement
// to the hint that shows it.
func isPlainTypeName(s string) bool { return s != "" && typeNamePattern.FindString(s) == s }
