package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// TeardownSQL returns the statements that drop everything that capture created in the database for the table, and the role
// unless it is empty. It leaves alone what does not say in its comment that it is capture's. Replication slots are temporary
// and need no statement. The table need not exist any more.
func TeardownSQL(ctx context.Context, conn *pgx.Conn, name Name, role string) ([]string, error) {
	table, err := loadTableUnchecked(ctx, conn, name)
	var p *Problem
	switch {
	case err == nil:
		name = table.Name()
	case errors.As(err, &p) && (p.tableMissing || p.Err == nil):
		if name = name.foldCase(); name.Schema == "" {
			name.Schema = "public"
		}
	default:
		return nil, err
	}
	rows, err := Pinned(conn).Query(ctx, teardownQuery, name.Schema, name.Table, objectName(name), role)
	if err != nil {
		return nil, Explain(fmt.Errorf("find what capture created for table %s: %w", name, err))
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, Explain(fmt.Errorf("find what capture created for table %s: %w", name, err))
	}
	return statements, nil
}

// teardownQuery returns the statements of [TeardownSQL] for the schema $1, the table $2, the objects' name $3 and the role $4.
// It leaves out the copies that partitions have of a partitioned table's trigger: they go when that trigger is dropped.
const teardownQuery = `
	WITH role AS (
		SELECT rolname FROM pg_catalog.pg_roles r
		WHERE rolname = $4::text::name AND pg_catalog.shobj_description(r.oid, 'pg_authid') LIKE 'capture %'
	)
	SELECT s FROM (
		SELECT 1, pg_catalog.format('DROP TRIGGER %I ON %I.%I', g.tgname, n.nspname, c.relname)
		FROM pg_catalog.pg_trigger g
		JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_catalog.pg_proc f ON f.oid = g.tgfoid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.pronamespace
		WHERE f.proname = $3::text::name AND fn.nspname = $1::text::name AND pg_catalog.obj_description(f.oid, 'pg_proc') LIKE 'capture %'
			AND COALESCE(pg_catalog.to_jsonb(g)->>'tgparentid', '0') = '0' AND NOT (c.relispartition AND EXISTS (
				SELECT FROM pg_catalog.pg_trigger up JOIN pg_catalog.pg_partition_ancestors(c.oid) a ON a.relid = up.tgrelid
				WHERE a.relid <> c.oid AND up.tgname = g.tgname AND up.tgfoid = g.tgfoid))
		UNION ALL
		SELECT 2, pg_catalog.format('DROP FUNCTION %I.%I()', n.nspname, f.proname)
		FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
		WHERE f.proname = $3::text::name AND n.nspname = $1::text::name AND pg_catalog.obj_description(f.oid, 'pg_proc') LIKE 'capture %'
		UNION ALL
		SELECT 3, pg_catalog.format('DROP PUBLICATION %I', pubname) FROM pg_catalog.pg_publication p
		WHERE pubname = $3::text::name AND pg_catalog.obj_description(p.oid, 'pg_publication') LIKE 'capture %'
		UNION ALL
		SELECT 4, pg_catalog.format('REVOKE ALL ON %I.%I FROM %I', n.nspname, c.relname, rolname)
		FROM role, pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1::text::name AND c.relname = $2::text::name
		UNION ALL
		SELECT 5, pg_catalog.format('REVOKE ALL ON SCHEMA %I FROM %I', n.nspname, rolname)
		FROM role, pg_catalog.pg_namespace n WHERE n.nspname = $1::text::name
		UNION ALL
		SELECT 6, pg_catalog.format('REVOKE ALL ON DATABASE %I FROM %I', pg_catalog.current_database(), rolname) FROM role
		UNION ALL
		SELECT 7, pg_catalog.format('DROP ROLE %I', rolname) FROM role
	) AS x(step, s) ORDER BY step, s`
