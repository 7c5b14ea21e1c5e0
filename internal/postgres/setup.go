package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// SetupOptions say what [SetupSQL] prepares.
type SetupOptions struct {
	Source string // "logical", "notify" or "auto": the better of them that the server and the table allow
	Role   string // a least-privilege role for capture to make or to grant what it needs; "" for none
}

// SetupSQL returns the statements, without semicolons, that prepare the database for capture and have not been run yet:
// none where all is there. [ApplyStatements] runs them.
func SetupSQL(ctx context.Context, conn *pgx.Conn, table *Table, o SetupOptions) ([]string, error) {
	s, err := LoadServer(ctx, conn)
	if err != nil {
		return nil, err
	}
	me, err := whoAmI(ctx, conn)
	if err != nil {
		return nil, err
	}
	var statements []string
	if o.Role != "" {
		if statements, err = setupRole(ctx, conn, table, &s, me, o.Role); err != nil {
			return nil, err
		}
	}
	unfit := s.checkLogical()
	if unfit == nil {
		unfit = table.checkIdentity(s.VersionNum)
	}
	var more []string
	switch {
	case s.InRecovery:
		return nil, unfit
	case o.Source == "notify", o.Source == "auto" && unfit != nil:
		more, err = table.setupTriggers(ctx, conn)
	case o.Source == "auto", o.Source == "logical":
		// A publication is made ahead of wal_level = logical, but never for a table that it would do harm to.
		if err := table.checkIdentity(s.VersionNum); err != nil {
			return nil, err
		}
		more, err = table.setupPublication(ctx, conn, &s, me)
	default:
		return nil, fmt.Errorf("set up for source %q: takes auto, logical or notify", o.Source)
	}
	return append(statements, more...), err
}

func (t *Table) setupPublication(ctx context.Context, conn *pgx.Conn, s *Server, me identity) ([]string, error) {
	own := objectName(t.Name())
	pubs, err := publications(ctx, conn, t, own)
	if err != nil {
		return nil, err
	}
	_, statements := t.choose(pubs, own, s.VersionNum)
	if len(pubs) == 0 || pubs[0].name != own {
		statements = t.createPublication(s.VersionNum)
		if me.superuser && me.user != t.facts.Owner {
			statements = append(statements, "ALTER PUBLICATION "+QuoteIdentifier(own)+" OWNER TO "+QuoteIdentifier(t.facts.Owner))
		}
	}
	return statements, nil
}

// identity is who runs the setup, and where.
type identity struct {
	user         string
	superuser    bool
	mayReplicate bool // may give the right to replicate to another role
	provider     provider
}

func whoAmI(ctx context.Context, q Querier) (identity, error) {
	var me identity
	var err error
	if me.provider, err = findProvider(ctx, q); err != nil {
		return me, err
	}
	// Superusers, the services' administrators, and since 16 whoever may make roles and has the right itself.
	err = q.QueryRow(ctx, `SELECT rolname::text, rolsuper, rolsuper OR $1::text <> '' OR
			(rolcreaterole AND rolreplication AND pg_catalog.current_setting('server_version_num')::int >= 160000)
		FROM pg_catalog.pg_roles WHERE rolname = current_user`, string(me.provider)).Scan(&me.user, &me.superuser, &me.mayReplicate)
	if err != nil {
		return me, Explain(fmt.Errorf("ask for the rights of this user: %w", err))
	}
	return me, nil
}

// setupRole makes the role and grants it what capture needs. It has no password yet: whoever makes it sets one.
func setupRole(ctx context.Context, q Querier, t *Table, s *Server, me identity, role string) ([]string, error) {
	var exists, replicates bool
	var connects, uses, selects bool
	err := q.QueryRow(ctx, `
		SELECT r.oid IS NOT NULL, COALESCE(r.rolreplication OR r.rolsuper, false) OR EXISTS (
				SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
				WHERE m.member = r.oid AND g.rolname = 'rds_replication'),
			COALESCE(pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CONNECT'), false),
			COALESCE(pg_catalog.has_schema_privilege(r.oid, $2::text, 'USAGE'), false),
			COALESCE(pg_catalog.has_table_privilege(r.oid, $3::oid, 'SELECT'), false)
		FROM (SELECT) x LEFT JOIN pg_catalog.pg_roles r ON r.rolname = $1::text::name`, role, t.Schema, t.OID).Scan(
		&exists, &replicates, &connects, &uses, &selects)
	if err != nil {
		return nil, Explain(fmt.Errorf("look for role %s: %w", role, err))
	}
	name := QuoteIdentifier(role)
	var statements []string
	if !exists {
		statements = append(statements, "CREATE ROLE "+name+" LOGIN",
			"COMMENT ON ROLE "+name+" IS "+comment("reads table "+t.Name().String()+" and follows its changes"))
	}
	if !replicates && me.mayReplicate {
		statements = append(statements, me.provider.grantReplication(role))
	}
	if !connects {
		statements = append(statements, "GRANT CONNECT ON DATABASE "+QuoteIdentifier(s.Database)+" TO "+name)
	}
	if !uses {
		statements = append(statements, "GRANT USAGE ON SCHEMA "+QuoteIdentifier(t.Schema)+" TO "+name)
	}
	if !selects {
		statements = append(statements, "GRANT SELECT ON "+t.Name().Quoted()+" TO "+name)
	}
	return statements, nil
}

// TeardownSQL returns the statements that remove all that capture keeps in the database for the table, and the role
// where one is named: none where nothing is left. Replication slots of capture are temporary and go by themselves. What
// does not say in its comment that it is capture's stays. The table may be gone.
func TeardownSQL(ctx context.Context, conn *pgx.Conn, name Name, role string) ([]string, error) {
	table, err := load(ctx, conn, name)
	var p *Problem
	switch {
	case err == nil:
		name = table.Name()
	case errors.As(err, &p) && (p.tableMissing || p.Err == nil):
		if name = name.folded(); name.Schema == "" {
			name.Schema = "public"
		}
	default:
		return nil, err
	}
	rows, err := conn.Query(ctx, `
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
		) AS x(step, s) ORDER BY step, s`, name.Schema, name.Table, objectName(name), role)
	if err != nil {
		return nil, Explain(fmt.Errorf("look for what capture keeps for table %s: %w", name, err))
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, Explain(fmt.Errorf("look for what capture keeps for table %s: %w", name, err))
	}
	return statements, nil
}

// ApplyStatements runs statements, all or none. It waits for locks only briefly, so that the application never waits behind it,
// and tries again for as long as ctx lasts, a minute at most.
func ApplyStatements(ctx context.Context, conn *pgx.Conn, statements []string) error {
	if len(statements) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := change(ctx, conn, statements)
		if SQLState(err) != lockNotAvailable {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second): // let those through who queued behind us
		}
	}
}
