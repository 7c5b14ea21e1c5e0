package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

// explainDenied explains a [*deniedError]: it returns a [*postgres.Problem] that names the role and the missing privilege,
// if explainDenied can find them out. It returns any other error unchanged. The transaction of the restore must have ended.
func (r *restoration) explainDenied(ctx context.Context, err error) error {
	var denied *deniedError
	var refused *pgconn.PgError
	if !errors.As(err, &denied) || !errors.As(denied.err, &refused) {
		return err
	}
	p := &postgres.Problem{
		Summary: err.Error(), Err: err,
		Reason: "a role lacks a privilege: the user, or the owner of a table, view or function through which the object is used",
		Hint:   "see the object and the statement in the server's log, and GRANT the privilege as the object's owner or a superuser",
	}
	if strings.HasPrefix(refused.Message, "must be owner of ") {
		p.Reason, p.Hint = "only the object's owner can do that", "restore as a superuser"
	} else if missing, err := r.findMissing(ctx, denied, refused); err == nil && len(missing) > 0 {
		reasons, statements := make([]string, len(missing)), make([]string, len(missing))
		for i, m := range missing {
			reasons[i], statements[i] = foreign.Text(m.Reason), foreign.Text(m.Statement)
		}
		p.Reason, p.Hint = strings.Join(reasons, ", or "), strings.Join(statements, " or ")
		if denied.schema != "" { // the statement was CREATE TABLE, and the role that creates a table becomes its owner
			p.Hint = "connect as the role that shall own the table, such as the application's (docs/recovery.md), or " + p.Hint
		}
	}
	if trigger := r.hooks.findTrigger(refused.Where); trigger != nil {
		p.Reason += ", in " + foreign.Text(trigger.describe())
		if !r.options.DisableTriggers {
			p.Hint += " or leave the triggers out with --disable-triggers"
		}
	}
	return p
}

// missingPrivilege is a privilege that a role lacks.
type missingPrivilege struct {
	Rank      int    // lower if it is more likely that the server has checked the privilege for this role
	Reason    string // the role, and what it lacks
	Statement string // statement that gives the role what it lacks
}

// findMissing looks for the privilege that is missing according to the server. It may find several, because the server names
// neither the object's schema nor the role.
func (r *restoration) findMissing(ctx context.Context, denied *deniedError, refused *pgconn.PgError) ([]missingPrivilege, error) {
	tx, err := postgres.Begin(ctx, r.conn, "READ ONLY")
	if err != nil {
		return nil, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	// The server describes where the error occurred, the innermost statement or function first. If the error is in the text of
	// the innermost statement, InternalQuery has this statement.
	where := refused.InternalQuery + "\n" + refused.Where
	innermost, err := findInnermostRole(ctx, tx, where)
	if err != nil {
		return nil, err
	}
	var table int64
	if r.table != nil {
		table = int64(r.table.OID)
	}
	queries, args := []string{hiddenRowsSQL}, []any{refused.Message, innermost, table, where}
	if refused.Routine != "check_enable_rls" {
		word, name := cutDenied(refused.Message)
		if word != "" {
			args[0] = name
		}
		args, queries = append(args, word != "", denied.schema), nil
		for _, c := range privilegeClasses {
			if word == "" || slices.Contains(c.words, word) {
				queries = append(queries, c.missingSQL())
			}
		}
	}
	var missing []missingPrivilege
	for _, query := range queries {
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return nil, err
		}
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[missingPrivilege])
		if err != nil {
			return nil, err
		}
		missing = append(missing, found...)
	}
	slices.SortStableFunc(missing, func(a, b missingPrivilege) int { return cmp.Compare(a.Rank, b.Rank) })
	const maxNamed = 3
	missing = missing[:min(len(missing), maxNamed)]
	return slices.DeleteFunc(missing, func(m missingPrivilege) bool { return m.Rank > missing[0].Rank }), nil
}

// cutDenied splits the server's English message about a denied object. It returns the message's words for the class of the
// object, such as "foreign table", and the object's name. For any other message, both results are "".
func cutDenied(message string) (word, name string) {
	rest, ok := strings.CutPrefix(message, "permission denied for ")
	for _, c := range privilegeClasses {
		for _, w := range c.words {
			if n, found := strings.CutPrefix(rest, w+" "); ok && found {
				return w, n
			}
		}
	}
	return "", ""
}

// findInnermostRole returns the OID of the role as which the server ran the innermost function or foreign key in the context of
// an error, or 0. A function with SECURITY DEFINER runs as its owner. The check or the action of a foreign key runs as the
// owner of the table that it reads or changes.
func findInnermostRole(ctx context.Context, tx pgx.Tx, where string) (role int64, err error) {
	var path []string // schemas on the search path; the context names their functions without the schema
	err = withOwnPath(ctx, tx, func() error {
		return tx.QueryRow(ctx, "SELECT pg_catalog.current_schemas(false)::pg_catalog.text[]").Scan(&path)
	})
	if err != nil {
		return 0, err
	}
	err = tx.QueryRow(ctx, innermostRoleSQL, where, path).Scan(&role)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return role, err
}

// innermostRoleSQL selects a role for findInnermostRole. $1 is the context of the error, $2 are the schemas on the search path.
// The context names a PL/pgSQL function with its argument types. It names an SQL function without them, but in quotation marks.
//
// If the context contains text of a row, the query may select the wrong role. This does little harm: findMissing names this
// role only if it also lacks a privilege for the object.
const innermostRoleSQL = `
	SELECT o.owner::bigint
	FROM (
		SELECT p.proowner, pg_catalog.strpos($1::text, w.word), n.nspname
		FROM pg_catalog.pg_proc p
		JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
		CROSS JOIN LATERAL (
			VALUES (' ' || p.oid::regprocedure::text, true), (' "' || p.proname || '" ', true),
				(' ' || pg_catalog.quote_ident(p.proname) || pg_catalog.substring(p.oid::regprocedure::text, '\([^(]*\)$'), n.nspname = ANY ($2::text[]))
		) w(word, possible)
		WHERE p.prosecdef AND w.possible
		UNION ALL
		SELECT c.relowner, pg_catalog.strpos($1::text, '"' || pg_catalog.replace(n.nspname, '"', '""') || '"."' || pg_catalog.replace(c.relname, '"', '""') || '"'), n.nspname
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p')
	) o(owner, place, schema)
	WHERE o.place > 0
	ORDER BY o.place, pg_catalog.array_position($2::text[], o.schema::text)
	LIMIT 1`

// privilegeClass is a class of objects for which a privilege may be missing.
type privilegeClass struct {
	name       string   // the class in GRANT
	words      []string // words for the class in the server's English messages: see aclcheck_error in Postgres' aclchk.c
	function   string   // SQL function that checks a privilege for an object of the class, such as has_table_privilege
	privileges string   // privileges that a statement may need, including the one in rare
	rare       string   // privilege that few statements need, so it is named only if no other is missing
	objects    string   // query for the OID of each object, its name in the server's messages, and its name in SQL
}

var privilegeClasses = []privilegeClass{
	{"SCHEMA", []string{"schema"}, "has_schema_privilege", "USAGE,CREATE", "CREATE",
		"SELECT oid, nspname, pg_catalog.quote_ident(nspname) FROM pg_catalog.pg_namespace"},
	{"TABLE", []string{"table", "view", "materialized view", "foreign table"}, "has_table_privilege", "SELECT,INSERT,UPDATE,DELETE,TRUNCATE", "TRUNCATE",
		relationsSQL + "IN ('r', 'p', 'f', 'v', 'm')"},
	{"SEQUENCE", []string{"sequence"}, "has_sequence_privilege", "USAGE,SELECT,UPDATE", "", relationsSQL + "= 'S'"},
	{"ROUTINE", []string{"function", "procedure", "aggregate", "routine"}, "has_function_privilege", "EXECUTE", "",
		"SELECT oid, proname, oid::regprocedure::text FROM pg_catalog.pg_proc"},
	{"TYPE", []string{"type", "domain"}, "has_type_privilege", "USAGE", "", `
		SELECT oid, typname, pg_catalog.format_type(oid, NULL) FROM pg_catalog.pg_type
		UNION
		SELECT oid, pg_catalog.format_type(oid, NULL), pg_catalog.format_type(oid, NULL) FROM pg_catalog.pg_type`},
	{"TABLESPACE", []string{"tablespace"}, "has_tablespace_privilege", "CREATE", "",
		"SELECT oid, spcname, pg_catalog.quote_ident(spcname) FROM pg_catalog.pg_tablespace"},
}

const relationsSQL = `SELECT c.oid, c.relname, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind `

// actingRolesSQL selects the roles for which the server may have checked a privilege for the object o, with their rank: the
// role of findInnermostRole, then the owners of rules and views that use the object, then the user. It considers only the rules
// of the restored table, and those of tables and views that the context mentions. $2 is the role of findInnermostRole, $3 the
// OID of the restored table, and $4 the context.
const actingRolesSQL = `
	SELECT 1 AS rank, $2::bigint::oid AS role
	UNION ALL
	SELECT 2, c.relowner
	FROM pg_catalog.pg_depend d
	JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
	JOIN pg_catalog.pg_class c ON c.oid = w.ev_class
	WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = o.oid AND c.oid <> o.oid
		AND o.class = 'TABLE' AND (c.oid = $3::bigint::oid OR pg_catalog.strpos($4::text, c.relname) > 0)
		AND NOT COALESCE((SELECT x.option_value::boolean FROM pg_catalog.pg_options_to_table(c.reloptions) x WHERE x.option_name = 'security_invoker'), false)
	UNION ALL
	SELECT 3, oid FROM pg_catalog.pg_roles WHERE rolname = current_user`

// missingSQL returns a query for the fields of [missingPrivilege]. Objects that the context names with their schema come before
// others. If $5 is true, $1 is the object's name. Otherwise, $1 is the server's message, which ends with the name in many
// languages. $2 to $4 are those of actingRolesSQL. $6 is the schema in which a table was to be created, or "".
func (c *privilegeClass) missingSQL() string {
	return fmt.Sprintf(`
		SELECT r.rank * 2 + (pg_catalog.strpos($4::text, o.sql) = 0)::int, pg_catalog.format('role %%s lacks %%s for %[1]s %%s', a.rolname, p.list, o.sql), pg_catalog.format('GRANT %%s ON %[2]s %%s TO %%I;%%s', p.list, o.sql, a.rolname,
			CASE WHEN pg_catalog.strpos(p.list, ',') > 0 AND o.class IN ('TABLE', 'SEQUENCE') THEN ' (only those that it needs)' END)
		FROM (SELECT x.oid, x.name, x.sql, '%[2]s' AS class FROM (%[3]s) x(oid, name, sql)) o
		CROSS JOIN LATERAL (%[6]s) r
		JOIN pg_catalog.pg_roles a ON a.oid = r.role
		CROSS JOIN LATERAL (
			SELECT pg_catalog.string_agg(x.privilege, ', ' ORDER BY x.i) AS all, pg_catalog.string_agg(x.privilege, ', ' ORDER BY x.i) FILTER (WHERE x.privilege <> '%[7]s') AS usual
			FROM pg_catalog.unnest('{%[4]s}'::text[]) WITH ORDINALITY x(privilege, i)
			WHERE NOT pg_catalog.%[5]s(a.oid, o.oid, x.privilege)) m
		CROSS JOIN LATERAL (SELECT CASE WHEN o.class = 'SCHEMA' AND o.name = $6::text THEN m.all ELSE COALESCE(m.usual, m.all) END AS list) p
		WHERE p.list IS NOT NULL AND CASE WHEN $5::boolean THEN o.name = $1::text ELSE pg_catalog."right"($1::text, pg_catalog.length(o.name) + 1) = ' ' || o.name END
		ORDER BY 1, o.sql
		LIMIT 3`,
		strings.ToLower(c.name), c.name, c.objects, c.privileges, c.function, actingRolesSQL, c.rare)
}

// hiddenRowsSQL selects the same fields as missingSQL, with the parameters $1 to $4, for tables with row-level security that
// would hide rows from a role. In capture's sessions, the server refuses to read or write such a table instead of leaving rows
// out: see "row_security" in Postgres' documentation.
const hiddenRowsSQL = `
	SELECT r.rank, pg_catalog.format('row-level security of table %I.%I applies to role %s', o.nspname, o.relname, a.rolname), pg_catalog.format('ALTER ROLE %I BYPASSRLS;', a.rolname)
	FROM (SELECT c.*, n.nspname, 'TABLE' AS class FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace) o
	CROSS JOIN LATERAL (` + actingRolesSQL + `) r
	JOIN pg_catalog.pg_roles a ON a.oid = r.role
	WHERE o.relrowsecurity AND pg_catalog.strpos($1::text, '"' || o.relname || '"') > 0
		AND NOT a.rolsuper AND NOT a.rolbypassrls AND (o.relforcerowsecurity OR NOT pg_catalog.pg_has_role(a.oid, o.relowner, 'USAGE'))
	ORDER BY r.rank, 2
	LIMIT 3`
