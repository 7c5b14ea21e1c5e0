package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// checkReadable returns a [*Problem] if the user cannot read the whole table.
func (t *Table) checkReadable() error {
	name := t.Name()
	switch f := &t.facts; {
	case !f.SchemaUsage:
		return problemf(fmt.Sprintf("table %s cannot be read without it", name),
			fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s;", QuoteIdentifier(t.Schema), QuoteIdentifier(f.User)),
			"no right to use schema %s", displayIdentifier(t.Schema))
	case !f.Readable && f.Columns:
		return problemf("capture locks the table against changes of its definition while it copies it (ACCESS SHARE), and reads columns that are added",
			fmt.Sprintf("GRANT SELECT ON %s TO %s;", name.Quoted(), QuoteIdentifier(f.User)),
			"user %s may read columns of table %s, but not the table as a whole", f.User, name)
	case !f.Readable:
		return problemf("capture reads all of its columns",
			fmt.Sprintf("GRANT SELECT ON %s TO %s;", name.Quoted(), QuoteIdentifier(f.User)),
			"no right to read table %s", name)
	case f.RowSecurity:
		return problemf("capture must see all rows, and policies may hide some of them",
			fmt.Sprintf("ALTER ROLE %s BYPASSRLS; -- or connect as the table's owner", QuoteIdentifier(f.User)),
			"row-level security on table %s applies to user %s", name, f.User)
	}
	return nil
}

// explainMissingTable returns a [*Problem] for a table that does not exist. Its hint lists the tables whose names differ
// only in the schema or in upper and lower case.
func explainMissingTable(ctx context.Context, q Querier, name Name) error {
	var database, path, similar string
	b := &pgx.Batch{}
	b.Queue(ownPathSQL)
	b.Queue("SELECT pg_catalog.array_to_string(pg_catalog.current_schemas(false), ', ')").QueryRow(func(r pgx.Row) error {
		return r.Scan(&path)
	})
	b.Queue(emptyPathSQL)
	b.Queue(`
		SELECT pg_catalog.current_database(),
			COALESCE((SELECT pg_catalog.string_agg(pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
					', ' ORDER BY n.nspname, c.relname)
				FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
				WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
					AND pg_catalog.lower(c.relname) = pg_catalog.lower($1::text)), '')`,
		name.Table).QueryRow(func(r pgx.Row) error { return r.Scan(&database, &similar) })
	err := Pinned(q).SendBatch(ctx, b).Close()
	if err != nil {
		return Explain(fmt.Errorf("find table %s: %w", name, err))
	}
	p := problemf("", "name another table with --table [schema.]name, or connect to the database that has it",
		"table %s does not exist in database %s", name, database)
	p.tableMissing = true
	if name.Schema == "" {
		p.Reason = "the schemas searched are: " + path
	}
	if similar != "" {
		p.Hint = "name the right one with --table: " + similar
	}
	p.Hint += "; if it was dropped or lost: capture restore --create (docs/recovery.md)"
	return p
}

const (
	nameOrdinaryTable = "name an ordinary or partitioned table with --table"
	nameBaseTable     = "name the table that it reads from with --table"
)

// checkKind returns a [*Problem] if no source can follow the relation.
func checkKind(e *catalogEntry) error {
	name := Name{Schema: e.Schema, Table: e.Table}
	switch e.Kind {
	case "r", "p":
		return checkOrdinary(e, name)
	case "v":
		return problemf("a view has no rows and no key of its own", nameBaseTable, "%s is a view", name)
	case "m":
		return problemf("its changes are not in the stream, and it has no key", nameBaseTable, "%s is a materialized view", name)
	case "f":
		return problemf("its rows are on another server", "point --database-url at the server that holds it", "%s is a foreign table", name)
	case "S":
		return problemf("", nameOrdinaryTable, "%s is a sequence", name)
	case "i", "I":
		return problemf("", nameOrdinaryTable, "%s is an index", name)
	}
	return problemf("", nameOrdinaryTable, "%s is not a table", name)
}

// checkOrdinary makes the checks of checkKind for ordinary and partitioned tables.
func checkOrdinary(e *catalogEntry, name Name) error {
	switch {
	case e.Schema == "pg_catalog" || e.Schema == "information_schema" || e.Schema == "pg_toast":
		return problemf("its changes are not published", nameOrdinaryTable, "%s is a system table", name)
	case e.Persistence == "t":
		return problemf("it ends with the session that created it", nameOrdinaryTable, "%s is a temporary table", name)
	case e.Persistence == "u":
		return problemf("a crash empties it, and its changes are in no stream", fmt.Sprintf("ALTER TABLE %s SET LOGGED;", name.Quoted()),
			"%s is an unlogged table", name)
	case e.Kind == "r" && e.Children:
		return problemf("their rows appear in it, but no key covers them all and the stream has them under other names",
			"name one of the inheriting tables with --table, or make it a partitioned table",
			"table %s has tables that inherit from it", name)
	}
	return nil
}
