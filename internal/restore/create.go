package restore

import (
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

// noteOwner adds a note if an administrator created the table. The application usually connects as another role, and that role
// may lack the right to write to the table.
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

// createRefined creates the table, with the partitions and with WITHOUT OVERLAPS in the key if the manifest has them. If the
// server refuses the partitions or WITHOUT OVERLAPS, createRefined leaves them out and adds a note. If the server also refuses
// the table without them, createRefined returns the server's error.
func (c *creation) createRefined(ctx context.Context) error {
	partitioned, period := c.manifest.Partitioning != nil, c.manifest.KeyPeriod
	var refused [2]error // [0] is the error for the partitions, [1] the error for WITHOUT OVERLAPS
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
			refused[0], refused[1] = err, nil // the server may accept WITHOUT OVERLAPS in a table without partitions
			period = c.manifest.KeyPeriod
		default:
			return err
		}
	}
}

// partitionDefinition describes the partition key and the number of partitions in the manifest, for a note. It returns "" if
// the manifest has none.
func (c *creation) partitionDefinition() string {
	if c.manifest.Partitioning == nil {
		return ""
	}
	return fmt.Sprintf("%s, with %d partitions", foreign.Text(c.manifest.Partitioning.Definition), len(c.manifest.Partitioning.Partitions))
}

// setDefaults sets the columns' defaults. It sets a default that is not simple only if the user has asked for all
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

// supportsVirtualColumns reports whether the server supports virtual generated columns, which PostgreSQL 18 introduced.
func supportsVirtualColumns(ctx context.Context, tx pgx.Tx) (bool, error) {
	var setting string
	err := tx.QueryRow(ctx, "SELECT pg_catalog.current_setting('server_version_num')").Scan(&setting)
	version, _ := strconv.Atoi(setting)
	return version >= 180000, postgres.ExplainRedacted("read the server's version", err)
}
