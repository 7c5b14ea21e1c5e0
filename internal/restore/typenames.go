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
	oid     int64
	sql     string // name and modifier of the type, as the server prints them
	builtIn bool   // whether the type is in the schema pg_catalog
	trusted bool   // whether only Postgres or a superuser can have written the code that reads values of the type: see trustedTypeSQL
	asJSON  bool   // whether the owner of an enum has written the cast to json, which capture runs to check restored values

	// The base of a domain is the type under the domain and under all domains that it is built on. The base of any other type
	// is the type itself.
	base        int64 // OID of the base
	baseElement int64 // OID of the base's elements; 0 if the base is not an array
	baseBuiltIn bool  // whether the base is in the schema pg_catalog
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
	findTypeSQL = `SELECT t.oid::pg_catalog.int8, t.typtype::pg_catalog.text
		FROM pg_catalog.pg_type t WHERE t.oid OPERATOR(pg_catalog.=) pg_catalog.to_regtype($1::pg_catalog.text)::pg_catalog.oid`
	printTypeSQL = "SELECT pg_catalog.format_type($1::pg_catalog.int8::pg_catalog.oid, $2::pg_catalog.int4)"
)

// trustedTypeSQL is an SQL condition on t, a row of pg_type. It holds for all types in pg_catalog, and for base types, enums
// and arrays of these in any schema. Only a superuser can create a base type, but any user can create domains, composite
// types and ranges. To read a value of a type that any user can create, Postgres may run functions that the user has
// written, such as a function in the CHECK constraint of a domain.
const trustedTypeSQL = `(t.typnamespace = 'pg_catalog'::regnamespace
	OR t.typtype IN ('b', 'e') AND NOT EXISTS (SELECT FROM pg_catalog.pg_type elem WHERE elem.oid = t.typelem AND elem.typtype NOT IN ('b', 'e')))`

// ownCastSQL is an SQL condition on t, a row of pg_type. It holds for an enum that has a cast to json, and for an array of such
// an enum. Only the owner of an enum can create a cast from the enum to json.
const ownCastSQL = `EXISTS (SELECT FROM pg_catalog.pg_cast k JOIN pg_catalog.pg_type e ON e.oid = k.castsource AND e.typtype = 'e'
	WHERE k.castsource IN (t.oid, t.typelem) AND k.casttarget = 'pg_catalog.json'::regtype)`

// describeTypeSQL returns the properties of the type with OID $1.
const describeTypeSQL = `
	WITH RECURSIVE under(oid) AS (
		SELECT $1::bigint::oid UNION ALL SELECT d.typbasetype FROM pg_catalog.pg_type d JOIN under USING (oid) WHERE d.typtype = 'd')
	SELECT t.typnamespace = 'pg_catalog'::regnamespace, ` + trustedTypeSQL + `, ` + ownCastSQL + `, b.oid::bigint, b.typelem::bigint, b.typnamespace = 'pg_catalog'::regnamespace
	FROM pg_catalog.pg_type t, pg_catalog.pg_type b JOIN under USING (oid) WHERE t.oid = $1::bigint::oid AND b.typtype <> 'd'`

// find returns the type with the given name. The error is a [*typeError] if the server has no such type.
func (n *typeNames) find(ctx context.Context, name string) (serverType, error) {
	if t, ok := n.known[name]; ok {
		return t, nil
	}
	var t serverType
	err := withSavepoint(ctx, n.tx, func() error {
		err := withOwnPath(ctx, n.tx, func() (err error) {
			t, err = n.load(ctx, name)
			return err
		})
		if err != nil {
			return err
		}
		return n.tx.QueryRow(ctx, describeTypeSQL, t.oid).Scan(&t.builtIn, &t.trusted, &t.asJSON, &t.base, &t.baseElement, &t.baseBuiltIn)
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
	var kind string
	if err := n.tx.QueryRow(ctx, findTypeSQL, name).Scan(&t.oid, &kind); err != nil {
		return t, err
	}
	modifier := int32(-1)
	if kind != "d" { // a domain has no modifier, and Prepare would describe the domain's base type
		// The line break ends a comment that the name may contain.
		described, err := n.tx.Conn().PgConn().Prepare(ctx, "", "SELECT CAST(NULL AS "+name+"\n)", nil)
		if err != nil {
			return t, err
		}
		if len(described.Fields) != 1 || int64(described.Fields[0].DataTypeOID) != t.oid {
			return t, pgx.ErrNoRows
		}
		modifier = described.Fields[0].TypeModifier
	}
	return t, n.tx.QueryRow(ctx, printTypeSQL, t.oid, modifier).Scan(&t.sql)
}

// typeNamePattern matches a type name at the start of a text. It also matches some texts that are not type names, which the
// server then refuses.
var typeNamePattern = regexp.MustCompile(`^(?:"(?:[^"\x00]|"")+"|[\pL_][\pL\pN_]*)(?:\.(?:"(?:[^"\x00]|"")+"|[\pL_][\pL\pN_]*))?` +
	`(?: [a-z]+)*(?:\([\w, -]*\))?(?: [a-z]+)*(?:\[\])*`)

// isPlainTypeName reports whether s has the form of a type name and contains nothing else. Such a text cannot add a statement
// to the hint that shows it.
func isPlainTypeName(s string) bool { return s != "" && typeNamePattern.FindString(s) == s }
