package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// rights records which privileges the user has. The restore checks them before it writes.
type rights struct {
	user      string
	database  string
	temporary bool // TEMPORARY on the database
	lock      bool // a privilege that lets the user lock the table against writes: UPDATE, DELETE or TRUNCATE
	insert    bool // INSERT on the table, or on all columns that the restore writes
	update    bool // UPDATE on the table, or on all columns that the restore writes
	delete    bool
}

// rightsSQL selects the fields of rights. $1 is the table's OID, $2 the columns that are written.
const rightsSQL = `
	SELECT current_user::text, pg_catalog.current_database()::text,
		pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY'),
		pg_catalog.has_table_privilege($1::bigint::oid, 'UPDATE, DELETE, TRUNCATE'),
		COALESCE(pg_catalog.has_table_privilege($1::bigint::oid, 'INSERT')
			OR (SELECT pg_catalog.bool_and(pg_catalog.has_column_privilege($1::bigint::oid, c, 'INSERT')) FROM pg_catalog.unnest($2::text[]) c), false),
		COALESCE(pg_catalog.has_table_privilege($1::bigint::oid, 'UPDATE')
			OR (SELECT pg_catalog.bool_and(pg_catalog.has_column_privilege($1::bigint::oid, c, 'UPDATE')) FROM pg_catalog.unnest($2::text[]) c), false),
		pg_catalog.has_table_privilege($1::bigint::oid, 'DELETE')`

// checkRights returns a [*postgres.Problem] that names all privileges that the user lacks for the restore, with the statements
// that grant them. If the file has no rows, columns is nil. needsTemp reports whether the restore needs temporary
// tables.
func checkRights(ctx context.Context, tx pgx.Tx, table *postgres.Table, columns *columnMap, o *Options, needsTemp bool) error {
	var names []string
	if columns != nil {
		names = columns.writableNames()
	}
	var have rights
	err := tx.QueryRow(ctx, rightsSQL, int64(table.OID), names).Scan(&have.user, &have.database, &have.temporary, &have.lock, &have.insert, &have.update, &have.delete)
	if err != nil {
		return postgres.ExplainRedacted("read the user's rights", err)
	}
	var lacks, grants []string
	need := func(needed, ok bool, privilege, why string) {
		if needed && !ok {
			lacks = append(lacks, privilege+" ("+why+")")
		}
	}
	need(names != nil, have.insert, "INSERT", "for the file's rows")
	need(o.OnConflict == Overwrite && names != nil, have.update, "UPDATE", "to overwrite")
	need(o.DeleteExtra, have.delete, "DELETE", "for --delete-extra")
	if !slices.ContainsFunc(lacks, func(s string) bool { return strings.HasPrefix(s, "UPDATE") || strings.HasPrefix(s, "DELETE") }) {
		need(true, have.lock, "UPDATE", "to lock the table against writes")
	}
	var privileges []string
	for _, l := range lacks {
		privileges = append(privileges, strings.SplitN(l, " ", 2)[0])
	}
	user := postgres.QuoteIdentifier(have.user)
	if len(privileges) > 0 {
		grants = append(grants, fmt.Sprintf("GRANT %s ON %s TO %s;", strings.Join(privileges, ", "), table.Name().Quoted(), user))
	}
	if needsTemp && !have.temporary {
		lacks = append(lacks, "TEMPORARY (for a temporary table of the file's rows)")
		grants = append(grants, fmt.Sprintf("GRANT TEMPORARY ON DATABASE %s TO %s;", postgres.QuoteIdentifier(have.database), user))
	}
	if len(grants) == 0 {
		return nil
	}
	hint := strings.Join(grants, " ")
	if len(privileges) > 0 { // the table's owner has these privileges
		hint = "connect as the table's owner (docs/recovery.md), or " + hint
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("user %s lacks the rights to restore table %s", have.user, table.Name()),
		Reason:  "it needs " + strings.Join(lacks, ", "),
		Hint:    hint,
	}
}

// checkTemporary returns a [*postgres.Problem] if the user may not create temporary tables and views. reason says why the
// restore needs them.
func checkTemporary(ctx context.Context, tx pgx.Tx, reason string) error {
	var user, database string
	var may bool
	sql := "SELECT current_user::text, pg_catalog.current_database()::text, pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY')"
	if err := tx.QueryRow(ctx, sql).Scan(&user, &database, &may); err != nil || may {
		return postgres.ExplainRedacted("read the user's rights", err)
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("no right to create temporary tables in database %s", database),
		Reason:  reason,
		Hint:    fmt.Sprintf("GRANT TEMPORARY ON DATABASE %s TO %s;", postgres.QuoteIdentifier(database), postgres.QuoteIdentifier(user)),
	}
}

// checkDeleteRight returns a [*postgres.Problem] if the user may not delete rows of the table. It is called when a merge must
// delete rows and insert them again.
func checkDeleteRight(ctx context.Context, tx pgx.Tx, table *postgres.Table) error {
	var user string
	var may bool
	sql := "SELECT current_user::text, pg_catalog.has_table_privilege($1::bigint::oid, 'DELETE')"
	if err := tx.QueryRow(ctx, sql, int64(table.OID)).Scan(&user, &may); err != nil || may {
		return explain("look up the right to delete rows", err)
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("no right to delete rows of table %s", table.Name()),
		Reason:  "some rows can't be updated in place, so they are deleted and inserted again",
		Hint:    fmt.Sprintf("GRANT DELETE ON %s TO %s;", table.Name().Quoted(), postgres.QuoteIdentifier(user)),
	}
}

// explainNoKey returns the error for a table that has rows and no key.
func explainNoKey(table *postgres.Table) error {
	return &postgres.Problem{
		Summary: fmt.Sprintf("table %s has rows and no primary key", table.Name()),
		Reason:  "without one, it can't be told which rows of the file it has already",
		Hint:    fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (…); or empty the table first", table.Name().Quoted()),
	}
}
