package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

// findCollationSQL returns the SQL name of a collation. The query works with an empty search path, because the manifest
// qualifies collations with their schema.
const findCollationSQL = `SELECT pg_catalog.quote_ident(n.nspname) OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) pg_catalog.quote_ident(k.collname)
	FROM pg_catalog.pg_collation k JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) k.collnamespace
	WHERE k.oid OPERATOR(pg_catalog.=) pg_catalog.to_regcollation($1::pg_catalog.text)::pg_catalog.oid`

// findCollations looks up the columns' collations. It passes the manifest's names to the server only as parameters, never as
// part of a statement.
func (c *creation) findCollations(ctx context.Context) error {
	c.collations = make([]string, len(c.manifest.Columns))
	for i := range c.manifest.Columns {
		column := &c.manifest.Columns[i]
		if column.Collation == "" {
			continue
		}
		err := withSavepoint(ctx, c.tx, func() error {
			return c.tx.QueryRow(ctx, findCollationSQL, column.Collation).Scan(&c.collations[i])
		})
		if errors.Is(err, pgx.ErrNoRows) || isRefusal(err) {
			c.notes = append(c.notes, fmt.Sprintf("column %s has the default collation: the database lacks %s",
				foreign.Text(postgres.QuoteIdentifier(column.Name)), foreign.Text(column.Collation)))
		} else if err != nil {
			return explain("find a collation", err)
		}
	}
	return nil
}

// setSequenceOptions sets the options of the columns' own sequences to the options in the manifest.
func (c *creation) setSequenceOptions(ctx context.Context) error {
	for i := range c.manifest.Columns {
		column := &c.manifest.Columns[i]
		o := column.Sequence
		if o == nil || column.Identity == "" && c.serialType(i) == "" {
			continue
		}
		cycle := "NO CYCLE"
		if o.Cycle {
			cycle = "CYCLE"
		}
		err := withSavepoint(ctx, c.tx, func() error {
			var sequence string
			err := c.tx.QueryRow(ctx, "SELECT pg_catalog.pg_get_serial_sequence($1::text, $2::text)", postgres.Name{Schema: c.schema, Table: c.name.Table}.Quoted(), column.Name).Scan(&sequence)
			if err != nil {
				return err
			}
			return execAlone(ctx, c.tx, fmt.Sprintf("ALTER SEQUENCE %s INCREMENT BY %d MINVALUE %d MAXVALUE %d START WITH %d CACHE %d %s RESTART",
				sequence, o.Increment, o.Min, o.Max, o.Start, o.Cache, cycle))
		})
		if err := c.noteRefused(err, fmt.Sprintf("the sequence of column %s has the usual options (START 1, INCREMENT 1) and had others",
			foreign.Text(postgres.QuoteIdentifier(column.Name)))); err != nil {
			return explain("set the options of a sequence", err)
		}
	}
	return nil
}
