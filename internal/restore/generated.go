package restore

import (
	"context"
	"errors"
	"regexp"

	"capture/internal/postgres"
)

// chooseGenerated decides which columns are created as generated columns. Unless the user asked for all expressions,
// chooseGenerated creates the table without generated columns, checks each expression against this table, and then rolls
// back the CREATE TABLE.
func (c *creation) chooseGenerated(ctx context.Context) error {
	var candidates []int
	for i := range c.manifest.Columns {
		column := &c.manifest.Columns[i]
		switch {
		case column.Generated == "":
		case !isOneExpression(column.Default):
			c.leaveOut(i, "it is not one plain expression", false)
		default:
			candidates = append(candidates, i)
		}
	}
	if c.expressions || len(candidates) == 0 {
		for _, i := range candidates {
			c.generated[i] = true
		}
		return nil
	}
	if err := checkTemporary(ctx, c.tx, "capture checks the expressions of generated columns with a temporary view"); err != nil {
		return err
	}
	harmless := make([]bool, len(c.manifest.Columns))
	err := withSavepoint(ctx, c.tx, func() error {
		if err := c.execCreateTable(ctx); err != nil {
			return explainCreateError(c.name, err)
		}
		for _, i := range candidates {
			if err := c.checkExpression(ctx, i); errors.Is(err, errNotSimple) || postgres.SQLState(err) != "" {
				c.leaveOut(i, "it uses more than Postgres' own functions", true)
			} else if err != nil {
				return err
			} else {
				harmless[i] = true
			}
		}
		return errTakeBack
	})
	if errors.Is(err, errTakeBack) {
		c.generated, err = harmless, nil
	}
	return err
}

// foreignFunctionsSQL reports whether the view that checkExpression creates uses a function or operator that is not built in,
// or a type whose values may run such a function. The type with OID $1 does not count: it is the type of the generated column.
// pg_depend has no entries for built-in objects, because they are pinned.
const foreignFunctionsSQL = `
	SELECT EXISTS (
		SELECT FROM pg_catalog.pg_rewrite r
		JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
		LEFT JOIN pg_catalog.pg_type t ON d.refclassid = 'pg_catalog.pg_type'::regclass AND t.oid = d.refobjid
		WHERE r.ev_class = 'pg_temp.capture_expression'::regclass
			AND d.refclassid NOT IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_collation'::regclass)
			AND (t.oid IS NULL OR t.oid <> $1::bigint::oid AND NOT ` + trustedTypeSQL + `))`

// checkExpression returns errNotSimple if the expression of generated column i uses a function or operator that is not built
// in. To find out, checkExpression creates a view with the expression, because Postgres then resolves the functions but does
// not run them. The view also contains the cast to the column's type, which a generated column makes, too. Without this check,
// CREATE TABLE would already run immutable functions of the expression. checkExpression does not look for functions that are
// not immutable, because Postgres refuses them in a generated column.
//
// Even for a view, Postgres reads string constants, and so runs functions of their types. For example, '{x}'::trap[] runs the
// CHECK constraints of the domain trap. Therefore the first view has NULL in place of each string constant.
//
// In an SQL/JSON function, a type can follow the word RETURNING, and pg_depend does not record this type. So checkExpression
// refuses each expression with this word.
func (c *creation) checkExpression(ctx context.Context, i int) error {
	expression := c.manifest.Columns[i].Default
	if returningPattern.MatchString(quotedPattern.ReplaceAllString(expression, `""`)) {
		return errNotSimple
	}
	for _, expression := range []string{withoutStrings(expression), expression} {
		if err := c.checkView(ctx, expression, &c.types[i]); err != nil {
			return err
		}
	}
	return nil
}

// quotedPattern matches quoted names and string constants. It ignores escapes, because isOneExpression refuses constants and
// names with escapes.
var quotedPattern = regexp.MustCompile(`"[^"]*"|'(?:[^']|'')*'`)

var returningPattern = regexp.MustCompile(`(?i)\breturning\b`)

// withoutStrings returns the expression with NULL in place of each string constant. NULL and a string constant both have the
// type unknown, so Postgres resolves the same functions and types.
func withoutStrings(expression string) string {
	return quotedPattern.ReplaceAllStringFunc(expression, func(quoted string) string {
		if quoted[0] == '\'' {
			return " NULL "
		}
		return quoted
	})
}

// checkView creates a temporary view that casts the expression to the type. It returns errNotSimple if the view uses a
// function or an operator that is not built in.
func (c *creation) checkView(ctx context.Context, expression string, to *serverType) error {
	return withSavepoint(ctx, c.tx, func() error {
		err := withOwnPath(ctx, c.tx, func() error {
			return execAlone(ctx, c.tx, "CREATE TEMPORARY VIEW capture_expression AS SELECT CAST(("+expression+") AS "+to.sql+") AS value FROM "+c.name.Quoted())
		})
		if err != nil {
			return err
		}
		var found bool
		if err := c.tx.QueryRow(ctx, foreignFunctionsSQL, to.oid).Scan(&found); err != nil {
			return err
		}
		if found {
			return errNotSimple
		}
		return execAlone(ctx, c.tx, "DROP VIEW pg_temp.capture_expression")
	})
}
