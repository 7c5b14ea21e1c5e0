package restore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

// deniedError is the server's error that a role lacks a privilege. To find out which privilege takes queries, which fail until
// the transaction has ended. Then [restoration.explainDenied] finds it out.
type deniedError struct {
	action  string // what failed
	creates bool   // whether the statement was to create a table
	err     error  // error of the server
}

func (e *deniedError) Error() string { return e.action + ": " + postgres.RedactedMessage(e.err) }

func (e *deniedError) Unwrap() error { return e.err }

// explainDenied explains a [*deniedError]: it returns a [*postgres.Problem] that names the role and what it lacks, as far as
// these can be found out. It returns any other error unchanged. The transaction of the restore must have ended.
func (r *restoration) explainDenied(ctx context.Context, err error) error {
	var denied *deniedError
	var refused *pgconn.PgError
	if !errors.As(err, &denied) || !errors.As(denied.err, &refused) {
		return err
	}
	missing, failed := r.findMissing(ctx, denied.creates, refused)
	if failed != nil || len(missing) == 0 {
		return &postgres.Problem{
			Summary: err.Error(), Err: err,
			Reason: "a role lacks a privilege: the user, or the owner of a table that a foreign key or a rule writes to, or of a function with SECURITY DEFINER",
			Hint:   "as a superuser, GRANT the privilege for the object that the server names; for a table with row-level security, ALTER ROLE … BYPASSRLS",
		}
	}
	reasons, statements := make([]string, len(missing)), make([]string, len(missing))
	for i, m := range missing {
		reasons[i], statements[i] = foreign.Text(m.Reason), foreign.Text(m.Statement)
	}
	p := &postgres.Problem{Summary: err.Error(), Err: err, Reason: strings.Join(reasons, ", or "), Hint: strings.Join(statements, " or ")}
	if trigger := r.hooks.findTrigger(refused.Where); trigger != nil {
		p.Reason += ", in " + foreign.Text(trigger.describe())
		p.Hint += " or leave the triggers out with --disable-triggers"
	}
	return p
}

// missingPrivilege is a privilege that a role lacks.
type missingPrivilege struct {
	Reason    string // the role, and what it lacks
	Statement string // statement that gives the role what it lacks
}

// findMissing looks for the privilege whose lack the server reports. It may find several, because the server names neither the
// object's schema nor the role. The parameter creates is true if the statement was to create a table.
func (r *restoration) findMissing(ctx context.Context, creates bool, refused *pgconn.PgError) (missing []missingPrivilege, err error) {
	tx, err := postgres.Begin(ctx, r.conn, "READ ONLY")
	if err != nil {
		return nil, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	queries := []string{hiddenRowsSQL}
	if refused.Routine != "check_enable_rls" {
		queries = nil
		for _, c := range privilegeClasses {
			queries = append(queries, c.missingSQL(creates))
		}
	}
	var table int64
	if r.table != nil {
		table = int64(r.table.OID)
	}
	rows, err := tx.Query(ctx, actingRolesSQL, refused.Where, table)
	if err != nil {
		return nil, err
	}
	roles, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, err
	}
	for _, role := range roles {
		for _, query := range queries {
			rows, err := tx.Query(ctx, query+" LIMIT 3", refused.Message, role)
			if err != nil {
				return nil, err
			}
			found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[missingPrivilege])
			if err != nil {
				return nil, err
			}
			missing = append(missing, found...)
		}
		if len(missing) > 0 {
			break
		}
	}
	return missing, nil
}

// actingRolesSQL selects the roles for which the server may have checked the privilege, the most likely one first. The server
// runs a function with SECURITY DEFINER as the function's owner, the check or the action of a foreign key as the owner of the
// table that this reads or changes, a rule as the owner of the rule's table, and all else as the user.
//
// $1 is the context of the error, in which the server names the functions and quotes the statements of foreign keys, the
// innermost first. A row's text in the context may lead to the wrong role. This does no harm, because findMissing returns only
// what a role really lacks. $2 is the OID of the restored table.
const actingRolesSQL = `
	WITH innermost(owner, place) AS (
		SELECT p.proowner, pg_catalog.strpos($1::text, w.word)
		FROM pg_catalog.pg_proc p
		CROSS JOIN LATERAL (VALUES (' ' || pg_catalog.quote_ident(p.proname) || '('), ('.' || pg_catalog.quote_ident(p.proname) || '('), (' "' || p.proname || '" ')) w(word)
		WHERE p.prosecdef
		UNION ALL
		SELECT c.relowner, pg_catalog.strpos($1::text, '"' || n.nspname || '"."' || c.relname || '"')
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p')
	)
	SELECT r.role::bigint
	FROM (
		(SELECT 1, owner FROM innermost WHERE place > 0 ORDER BY place LIMIT 1)
		UNION ALL
		SELECT 2, relowner FROM pg_catalog.pg_class WHERE oid = $2::bigint::oid AND relhasrules
		UNION ALL
		SELECT 3, oid FROM pg_catalog.pg_roles WHERE rolname = current_user
	) r(rank, role)
	ORDER BY r.rank`

// privilegeClass is a class of objects for which a privilege may be missing.
type privilegeClass struct {
	name       string   // the class in GRANT
	function   string   // see "Access Privilege Inquiry Functions" in Postgres' documentation
	privileges []string // privileges that a restore may need
	objects    string   // query for the OID of each object, its name in the server's messages, and its name in SQL
}

var privilegeClasses = []privilegeClass{
	{"SCHEMA", "has_schema_privilege", []string{"USAGE"},
		"SELECT oid, nspname, pg_catalog.quote_ident(nspname) FROM pg_catalog.pg_namespace"},
	{"TABLE", "has_table_privilege", []string{"SELECT", "INSERT", "UPDATE", "DELETE"}, relationsSQL + "IN ('r', 'p', 'f', 'v', 'm')"},
	{"SEQUENCE", "has_sequence_privilege", []string{"USAGE", "SELECT", "UPDATE"}, relationsSQL + "= 'S'"},
	{"FUNCTION", "has_function_privilege", []string{"EXECUTE"}, // also for an aggregate function
		"SELECT oid, proname, oid::regprocedure::text FROM pg_catalog.pg_proc WHERE prokind <> 'p'"},
	{"TYPE", "has_type_privilege", []string{"USAGE"},
		`SELECT oid, typname, pg_catalog.format_type(oid, NULL) FROM pg_catalog.pg_type
			UNION SELECT oid, pg_catalog.format_type(oid, NULL), pg_catalog.format_type(oid, NULL) FROM pg_catalog.pg_type`},
	{"TABLESPACE", "has_tablespace_privilege", []string{"CREATE"},
		"SELECT oid, spcname, pg_catalog.quote_ident(spcname) FROM pg_catalog.pg_tablespace"},
}

const relationsSQL = `SELECT c.oid, c.relname, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind `

// missingSQL returns a query for the fields of [missingPrivilege]. $1 is the server's message, which ends with the object's name
// in all languages that put it there: see aclcheck_error in Postgres' aclchk.c. $2 is the OID of a role.
func (c *privilegeClass) missingSQL(creates bool) string {
	privileges := c.privileges
	if creates && c.name == "SCHEMA" {
		privileges = append(privileges, "CREATE")
	}
	if !creates && c.name == "TABLESPACE" {
		privileges = nil
	}
	return fmt.Sprintf(`
		SELECT pg_catalog.format('role %%s lacks %%s for %[1]s %%s', a.rolname, p.list, o.sql), pg_catalog.format('GRANT %%s ON %[2]s %%s TO %%I;%%s', p.list, o.sql, a.rolname,
			CASE WHEN pg_catalog.strpos(p.list, ',') > 0 AND '%[2]s' IN ('TABLE', 'SEQUENCE') THEN ' (only those that it needs)' END)
		FROM (%[3]s) o(oid, name, sql)
		CROSS JOIN pg_catalog.pg_roles a
		CROSS JOIN LATERAL (
			SELECT pg_catalog.string_agg(x.privilege, ', ' ORDER BY x.i) AS list
			FROM pg_catalog.unnest('{%[4]s}'::text[]) WITH ORDINALITY x(privilege, i)
			WHERE NOT pg_catalog.%[5]s(a.oid, o.oid, x.privilege)) p
		WHERE pg_catalog."right"($1::text, pg_catalog.length(o.name) + 1) = ' ' || o.name AND a.oid = $2::bigint::oid AND p.list IS NOT NULL
		ORDER BY o.sql`,
		strings.ToLower(c.name), c.name, c.objects, strings.Join(privileges, ","), c.function)
}

// hiddenRowsSQL has the form of missingSQL. It lists the tables of which row-level security would hide rows. capture's sessions
// refuse to read or write such a table, instead of missing rows: see "row_security" in Postgres' documentation.
const hiddenRowsSQL = `
	SELECT pg_catalog.format('row-level security of table %I.%I applies to role %s', n.nspname, c.relname, a.rolname), pg_catalog.format('ALTER ROLE %I BYPASSRLS;', a.rolname)
	FROM pg_catalog.pg_class c
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	CROSS JOIN pg_catalog.pg_roles a
	WHERE c.relrowsecurity AND pg_catalog.strpos($1::text, '"' || c.relname || '"') > 0 AND a.oid = $2::bigint::oid
		AND NOT a.rolsuper AND NOT a.rolbypassrls AND (c.relforcerowsecurity OR NOT pg_catalog.pg_has_role(a.oid, c.relowner, 'USAGE'))
	ORDER BY 1`
