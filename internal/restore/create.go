package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/foreign"
	"capture/internal/postgres"
	"capture/store/manifest"
)

// creation creates a table from a manifest. The manifest is untrusted: anybody may have written it. Therefore capture quotes
// the manifest's names, and lets the server resolve the type names. capture uses only expressions that can do no harm,
// unless the user asked for all expressions.
type creation struct {
	tx          pgx.Tx
	name        postgres.Name
	manifest    *manifest.Manifest
	expressions bool // whether the user asked for all expressions: see [Options]
	virtual     bool // whether the server supports virtual generated columns

	schema     string   // schema in which the table was created
	collations []string // SQL name of each column's collation; "" for the type's default
	period     bool     // whether the key is created WITHOUT OVERLAPS
	partition  bool     // whether the table is created with the manifest's partitions
	partitions int      // number of partitions that were created so far

	names     typeNames
	types     []serverType // type of each column
	generated []bool       // whether each column is created as a generated column
	leftOut   bool         // whether capture left out an expression that --expressions would have included
	notes     []string     // sentences for the user about differences from the manifest
}

// createTable creates the table from the manifest. The notes are sentences for the user: they say what the manifest does not
// contain, and which of its expressions were left out.
func createTable(ctx context.Context, tx pgx.Tx, name postgres.Name, m *manifest.Manifest, expressions bool) (notes []string, err error) {
	c := &creation{tx: tx, name: name, manifest: m, expressions: expressions, names: typeNames{tx, map[string]serverType{}}}
	if c.virtual, err = supportsVirtualColumns(ctx, tx); err != nil {
		return nil, err
	}
	if err := c.findTypes(ctx); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{c.findCollations, c.createColumns, c.setDefaults, c.setSequenceOptions} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	if c.leftOut {
		c.notes = append(c.notes, "an expression can run any function of the database; read those above, and create the table with --expressions to take them from the manifest")
	}
	if err := c.noteOwner(ctx); err != nil {
		return nil, err
	}
	return append(c.notes, fmt.Sprintf("the manifest has columns, types, key and defaults; create other indexes, constraints, triggers, "+
		"comments and grants of %s yourself", name)), nil
}

// noteOwner adds a note if an administrator created the table: the application usually connects as another role, which may not
// write to the table.
func (c *creation) noteOwner(ctx context.Context) error {
	var user string
	var administrator bool
	err := c.tx.QueryRow(ctx, `SELECT rolname::pg_catalog.text, rolsuper OR rolcreaterole OR rolcreatedb FROM pg_catalog.pg_roles
		WHERE rolname OPERATOR(pg_catalog.=) current_user`).Scan(&user, &administrator)
	if err != nil || !administrator {
		return postgres.ExplainRedacted("read the user's rights", err)
	}
	c.notes = append(c.notes, fmt.Sprintf("the table belongs to %s; if the application connects as another role: ALTER TABLE %s OWNER TO …;",
		foreign.Text(user), c.name.Quoted()))
	return nil
}

// findTypes looks up the type of each column. If the server lacks some of the types, the error names them all.
func (c *creation) findTypes(ctx context.Context) error {
	var missing []string
	for i := range c.manifest.Columns {
		name := c.manifest.Columns[i].TypeName
		t, err := c.names.find(ctx, name)
		if unknown := (*typeError)(nil); errors.As(err, &unknown) {
			missing = append(missing, fmt.Sprintf("%s (column %s)", foreign.Text(name), foreign.Text(postgres.QuoteIdentifier(c.manifest.Columns[i].Name))))
		} else if err != nil {
			return err
		} else if !t.trusted || t.asJSON {
			c.notes = append(c.notes, fmt.Sprintf("column %s has the type %s: each write of a value runs the functions of this type, such as its CHECK constraints or its cast to json, "+
				"with your rights, whoever has written them", foreign.Text(postgres.QuoteIdentifier(c.manifest.Columns[i].Name)), foreign.Text(t.sql)))
		}
		c.types = append(c.types, t)
	}
	if len(missing) == 0 {
		return nil
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("create table %s: the database lacks a type that a column has", c.name),
		Reason:  "it knows no type " + strings.Join(missing, ", "),
		Hint: "create it as the application does: CREATE TYPE …; or CREATE EXTENSION …; the manifest has the types' names, not what they are, " +
			"but the file has the labels of an enum that rows use. If the type exists in a schema on the search path, the user may lack USAGE on that schema",
	}
}

// createColumns creates the table without defaults. A generated column whose expression is left out becomes an ordinary
// column, which gets the file's values.
func (c *creation) createColumns(ctx context.Context) error {
	c.generated = make([]bool, len(c.manifest.Columns))
	if err := c.chooseGenerated(ctx); err != nil {
		return err
	}
	err := c.createRefined(ctx)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && strings.HasPrefix(refused.Code, "42") && slices.Contains(c.generated, true) && !c.expressions {
		for i := range c.generated {
			if c.generated[i] {
				c.generated[i] = false
				c.leaveOut(i, "the server refuses one of these expressions (SQLSTATE "+refused.Code+")", false)
			}
		}
		err = c.createRefined(ctx)
	}
	if err != nil {
		return explainCreateError(c.name, err)
	}
	return nil
}

// createRefined creates the table with the manifest's partitions and with the manifest's key WITHOUT OVERLAPS. If the server
// refuses the partitions or the key, createRefined creates the table without them and adds a note. If the server also refuses
// the table without them, createRefined returns the server's error.
func (c *creation) createRefined(ctx context.Context) error {
	partitioned, period := c.manifest.Partitioning != nil, c.manifest.KeyPeriod
	var refused [2]error // [0] is the error for the partitions, [1] the error for the key
	for {
		c.partition, c.period, c.partitions = partitioned && refused[0] == nil, period && refused[1] == nil, 0
		err := withSavepoint(ctx, c.tx, func() error { return c.execCreateTable(ctx) })
		switch {
		case err == nil:
			return errors.Join(
				c.noteRefused(refused[0], "the table is created without partitions; it was partitioned by "+c.partitionDefinition()),
				c.noteRefused(refused[1], "the primary key is created as an ordinary one, and was WITHOUT OVERLAPS"))
		case c.period:
			refused[1] = err
		case c.partition:
			refused[0], refused[1] = err, nil // the server may accept the key in a table without partitions
			period = c.manifest.KeyPeriod
		default:
			return err
		}
	}
}

// partitionDefinition returns the manifest's partition key, for a note.
func (c *creation) partitionDefinition() string {
	if c.manifest.Partitioning == nil {
		return ""
	}
	return fmt.Sprintf("%s, with %d partitions", foreign.Text(c.manifest.Partitioning.Definition), len(c.manifest.Partitioning.Partitions))
}

// leaveOut adds a note that column i is created without its expression, and why. The parameter ask is true if the user can
// include the expression with --expressions.
func (c *creation) leaveOut(i int, reason string, ask bool) {
	column := &c.manifest.Columns[i]
	what := "is created without its default, "
	if column.Generated != "" {
		what = "is created as an ordinary column with the file's values, not GENERATED ALWAYS AS "
	}
	c.leftOut = c.leftOut || ask
	c.notes = append(c.notes, fmt.Sprintf("column %s %s%s: %s", foreign.Text(postgres.QuoteIdentifier(column.Name)), what, foreign.Text(column.Default), reason))
}

func (c *creation) execCreateTable(ctx context.Context) error {
	var lines []string
	for i := range c.manifest.Columns {
		lines = append(lines, c.defineColumn(i))
	}
	if len(c.manifest.Key) > 0 {
		overlaps := ""
		if c.period {
			overlaps = " WITHOUT OVERLAPS"
		}
		lines = append(lines, "PRIMARY KEY ("+columnList("", c.manifest.Key)+overlaps+")")
	}
	by := ""
	if c.partition {
		var err error
		if by, err = c.partitionBy(c.manifest.Partitioning); err != nil {
			return err
		}
	}
	err := withOwnPath(ctx, c.tx, func() error {
		return execAlone(ctx, c.tx, "CREATE TABLE "+c.name.Quoted()+" (\n\t"+strings.Join(lines, ",\n\t")+"\n)"+by)
	})
	if err != nil {
		return err
	}
	if err := c.findSchema(ctx); err != nil || !c.partition {
		return err
	}
	return c.createPartitions(ctx, postgres.Name{Schema: c.schema, Table: c.name.Table}.Quoted(), c.manifest.Partitioning, 1)
}

// findSchema sets the schema of the table that was created.
func (c *creation) findSchema(ctx context.Context) error {
	if c.schema = c.name.Schema; c.schema != "" {
		return nil
	}
	return withSavepoint(ctx, c.tx, func() error {
		return withOwnPath(ctx, c.tx, func() error {
			return c.tx.QueryRow(ctx, "SELECT pg_catalog.current_schema()::pg_catalog.text").Scan(&c.schema)
		})
	})
}

// setDefaults sets the columns' defaults. It leaves out a default that is not simple unless the user asked for all
// expressions.
func (c *creation) setDefaults(ctx context.Context) error {
	for i := range c.manifest.Columns {
		column := &c.manifest.Columns[i]
		if column.Default == "" || column.Generated != "" || c.serialType(i) != "" {
			continue
		}
		sql, err := simpleDefault(ctx, &c.names, c.types[i], column.Default)
		if err != nil {
			if !errors.Is(err, errNotSimple) && !errors.As(err, new(*typeError)) {
				return err
			}
			// A note must show the whole expression before --expressions may include it. Otherwise the user would agree to
			// an expression without having read it.
			shown := isOneExpression(column.Default) && foreign.Text(column.Default) == column.Default
			if !c.expressions || !shown {
				c.leaveOut(i, err.Error(), shown)
				continue
			}
			sql = "(" + column.Default + ")"
		}
		err = withSavepoint(ctx, c.tx, func() error {
			return withOwnPath(ctx, c.tx, func() error {
				return execAlone(ctx, c.tx, fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s SET DEFAULT %s", c.name.Quoted(), postgres.QuoteIdentifier(column.Name), sql))
			})
		})
		if err != nil {
			c.leaveOut(i, postgres.RedactedMessage(err), false)
		}
	}
	return nil
}

// defineColumn returns the definition of column i for CREATE TABLE, without its default.
func (c *creation) defineColumn(i int) string {
	column, typ := &c.manifest.Columns[i], c.types[i].sql
	if serial := c.serialType(i); serial != "" {
		typ = serial
	}
	line := postgres.QuoteIdentifier(column.Name) + " " + typ
	if c.collations[i] != "" {
		line += " COLLATE " + c.collations[i]
	}
	switch {
	case c.generated[i] && column.Generated == "v" && c.virtual:
		line += " GENERATED ALWAYS AS (" + column.Default + ") VIRTUAL"
	case c.generated[i]:
		line += " GENERATED ALWAYS AS (" + column.Default + ") STORED"
		if column.Generated == "v" {
			c.noteOnce(fmt.Sprintf("column %s is stored here, not virtual: this server is older than PostgreSQL 18", foreign.Text(postgres.QuoteIdentifier(column.Name))))
		}
	case column.Identity == "a":
		line += " GENERATED ALWAYS AS IDENTITY"
	case column.Identity == "d":
		line += " GENERATED BY DEFAULT AS IDENTITY"
	}
	if column.NotNull {
		line += " NOT NULL"
	}
	return line
}

func (c *creation) noteOnce(note string) {
	if !slices.Contains(c.notes, note) {
		c.notes = append(c.notes, note)
	}
}

// serialType returns the pseudo-type, such as serial, with which CREATE TABLE creates a sequence for column i. It returns ""
// if the column's default does not call nextval.
func (c *creation) serialType(i int) string {
	types := map[string]string{"smallint": "smallserial", "integer": "serial", "bigint": "bigserial"}
	column := &c.manifest.Columns[i]
	if !strings.HasPrefix(column.Default, "nextval(") || column.Generated != "" || column.Identity != "" {
		return ""
	}
	return types[c.types[i].sql]
}

// supportsVirtualColumns reports whether the server supports virtual generated columns, which PostgreSQL 18 introduced.
func supportsVirtualColumns(ctx context.Context, tx pgx.Tx) (bool, error) {
	var setting string
	err := tx.QueryRow(ctx, "SELECT pg_catalog.current_setting('server_version_num')").Scan(&setting)
	version, _ := strconv.Atoi(setting)
	return version >= 180000, postgres.ExplainRedacted("read the server's version", err)
}

// explainCreateError returns an error that says why CREATE TABLE failed and what to do.
func explainCreateError(name postgres.Name, err error) error {
	p := &postgres.Problem{Summary: fmt.Sprintf("create table %s: %s", name, foreign.Text(postgres.Explain(err).Error())), Err: err}
	switch postgres.SQLState(err) {
	case invalidSchemaName:
		p.Summary = fmt.Sprintf("create table %s: there is no such schema", name)
		p.Hint = "CREATE SCHEMA " + postgres.QuoteIdentifier(name.Schema) + "; or name another one with --table"
		if name.Schema == "" {
			p.Summary = fmt.Sprintf("create table %s: the user may use no schema on the search path", name)
			p.Hint = "name a schema with --table, such as public." + name.Table + "; if the user may not use that one, the error then says what to grant"
		}
	case insufficientPrivilege:
		return &deniedError{action: "create table " + name.String(), schema: cmp.Or(name.Schema, "public"), err: err}
	}
	return p
}
