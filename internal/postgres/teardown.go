package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Teardown is the result of [LoadTeardown].
type Teardown struct {
	Statements []string // statements without semicolons; [ApplyStatements] runs them
	Kept       []string // sentences about objects that look like capture's but belong to somebody else
}

// LoadTeardown returns the statements that drop everything that capture created in the database for the table. If the caller
// names a role, they also drop this role. They drop an object only if its comment identifies it as capture's, and if its owner
// is one whom capture trusts (see trustedOwnerSQL and publicationOwnerSQL). Replication slots are temporary and need no
// statement. The table need not exist any more.
func LoadTeardown(ctx context.Context, conn *pgx.Conn, name Name, role string) (Teardown, error) {
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
		return Teardown{}, err
	}
	var t Teardown
	var step int
	var text string
	rows, err := Pinned(conn).Query(ctx, teardownQuery, name.Schema, name.Table, objectName(name), role)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&step, &text}, func() error {
			if step == 0 {
				t.Kept = append(t.Kept, text)
			} else {
				t.Statements = append(t.Statements, text)
			}
			return nil
		})
	}
	if err != nil {
		return Teardown{}, Explain(fmt.Errorf("find what capture created for table %s: %w", name, err))
	}
	return t, nil
}

// teardownQuery returns one row for each statement of [LoadTeardown], ordered by the number of the statement's step. A row
// with step 0 does not contain a statement, but a sentence about an object that stays. $1 is the schema, $2 the table, $3
// the name of capture's objects, and $4 the role. A partitioned table's trigger has a copy on each partition. The copies
// need no statement, because Postgres drops them with the trigger. Only the owner of a publication can drop it. If the user
// lacks the owner's rights, the statements make the user a member of the owner's role until the publication is dropped.
var teardownQuery = `
	WITH role AS (
		SELECT oid, rolname FROM pg_catalog.pg_roles r
		WHERE rolname = $4::text::name AND pg_catalog.shobj_description(r.oid, 'pg_authid') LIKE 'capture %'
	), rel AS (
		SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1::text::name AND c.relname = $2::text::name
	), func AS (
		SELECT p.oid, p.proname, n.nspname, p.proowner, ` + trustedOwnerSQL("p.proowner", "(SELECT oid FROM rel)") + ` AS trusted
		FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
		WHERE p.proname = $3::text::name AND p.pronargs = 0 AND n.nspname = $1::text::name
			AND pg_catalog.obj_description(p.oid, 'pg_proc') LIKE 'capture %'
	), pub AS (
		SELECT p.pubname, p.pubowner, ` + publicationOwnerSQL("(SELECT oid FROM rel)") + ` AS trusted
		FROM pg_catalog.pg_publication p
		WHERE p.pubname = $3::text::name AND pg_catalog.obj_description(p.oid, 'pg_publication') LIKE 'capture %'
	)
	SELECT step, s FROM (
		SELECT 0, pg_catalog.format('function %I.%I() belongs to %s, who neither owns the table nor is a superuser',
			nspname, proname, pg_catalog.pg_get_userbyid(proowner)) FROM func WHERE NOT trusted
		UNION ALL
		SELECT 0, pg_catalog.format('publication %I belongs to %s, who neither owns the table nor follows it',
			pubname, pg_catalog.pg_get_userbyid(pubowner)) FROM pub WHERE NOT trusted
		UNION ALL
		SELECT 1, pg_catalog.format('DROP TRIGGER %I ON %I.%I', g.tgname, n.nspname, c.relname)
		FROM pg_catalog.pg_trigger g
		JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		JOIN func f ON f.oid = g.tgfoid
		WHERE f.trusted
			AND COALESCE(pg_catalog.to_jsonb(g)->>'tgparentid', '0') = '0' AND NOT (c.relispartition AND EXISTS (
				SELECT FROM pg_catalog.pg_trigger up JOIN pg_catalog.pg_partition_ancestors(c.oid) a ON a.relid = up.tgrelid
				WHERE a.relid <> c.oid AND up.tgname = g.tgname AND up.tgfoid = g.tgfoid))
		UNION ALL
		SELECT 2, pg_catalog.format('DROP FUNCTION %I.%I()', nspname, proname) FROM func WHERE trusted
		UNION ALL
		SELECT 3, pg_catalog.format('GRANT %I TO CURRENT_USER', pg_catalog.pg_get_userbyid(pubowner))
		FROM pub WHERE trusted AND NOT pg_catalog.pg_has_role(pubowner, 'USAGE')
		UNION ALL
		SELECT 4, pg_catalog.format('DROP PUBLICATION %I', pubname) FROM pub WHERE trusted
		UNION ALL
		SELECT 5, pg_catalog.format('REVOKE %I FROM CURRENT_USER', pg_catalog.pg_get_userbyid(pubowner))
		FROM pub WHERE trusted AND NOT pg_catalog.pg_has_role(pubowner, 'USAGE')
		UNION ALL
		SELECT 6, pg_catalog.format('REVOKE ALL ON %I.%I FROM %I', $1::text, $2::text, rolname) FROM role, rel
		UNION ALL
		SELECT 7, pg_catalog.format('REVOKE ALL ON SCHEMA %I FROM %I', n.nspname, rolname)
		FROM role, pg_catalog.pg_namespace n
		WHERE EXISTS (SELECT FROM pg_catalog.aclexplode(n.nspacl) a WHERE a.grantee = role.oid)
		UNION ALL
		SELECT 8, pg_catalog.format('REVOKE ALL ON DATABASE %I FROM %I', pg_catalog.current_database(), rolname) FROM role
		UNION ALL
		SELECT 9, pg_catalog.format('DROP ROLE %I', rolname) FROM role
	) AS x(step, s) ORDER BY step, s`
