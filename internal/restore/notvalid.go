package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

// SQL expressions for the statements that drop a constraint and that add it again. They read the row k of pg_constraint.
const (
	dropConstraintSQL = `pg_catalog.format('ALTER %s %s DROP CONSTRAINT %I;', x.kind, x.name, k.conname)`
	addConstraintSQL  = `pg_catalog.format('ALTER %s %s ADD CONSTRAINT %I %s;', x.kind, x.name, k.conname, pg_catalog.pg_get_constraintdef(k.oid))`
)

// notValidSQL looks for the constraint of a server's error. If the constraint is NOT VALID, notValidSQL selects the
// statements that drop the constraint and add it again. Rows older than a NOT VALID constraint may violate it. The table or
// domain of the error must belong to the restored table. $1 is the restored table's OID. $2 to $6 are the error's schema,
// table, domain, constraint and column. The constraint of a partition can only be dropped in the table that it comes from.
var notValidSQL = `
	WITH RECURSIVE up(oid) AS (
		SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $2::text AND c.relname = $3::text AND c.oid IN ` + postgres.TreeSQL("$1::bigint") + `
		UNION
		SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN up ON i.inhrelid = up.oid
	)
	SELECT ` + dropConstraintSQL + `, ` + addConstraintSQL + `
	FROM pg_catalog.pg_constraint k
	CROSS JOIN LATERAL (SELECT CASE WHEN k.contypid <> 0 THEN 'DOMAIN' ELSE 'TABLE' END AS kind,
		CASE WHEN k.contypid <> 0 THEN k.contypid::regtype::text ELSE k.conrelid::regclass::text END AS name) x
	WHERE NOT k.convalidated AND k.coninhcount = 0 AND CASE
		WHEN $4::text <> '' THEN k.conname = $5::text AND EXISTS (SELECT FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
			WHERE t.oid = k.contypid AND n.nspname = $2::text AND t.typname = $4::text)
		WHEN $5::text <> '' THEN k.conname = $5::text AND k.conrelid IN (SELECT oid FROM up)
		ELSE k.contype = 'n' AND k.conrelid IN (SELECT oid FROM up)
			AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = k.conkey[1] AND a.attname = $6::text)
		END
	LIMIT 1`

// explainNotValid returns [notValidHint] for the constraint of a server's error, or "" if the constraint is valid. The
// transaction of the restore must have ended.
func (r *restoration) explainNotValid(ctx context.Context, refused *pgconn.PgError) (hint string) {
	switch refused.Code {
	case notNullViolation, foreignKeyViolation, checkViolation:
	default:
		return ""
	}
	tx, err := postgres.Begin(ctx, r.conn, "READ ONLY")
	if err != nil {
		return ""
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	var drop, add string
	if tx.QueryRow(ctx, notValidSQL, int64(r.table.OID), refused.SchemaName, refused.TableName, refused.DataTypeName, refused.ConstraintName, refused.ColumnName).
		Scan(&drop, &add) != nil {
		return ""
	}
	return notValidHint(drop, add, refused.Code == foreignKeyViolation && !r.options.DisableTriggers)
}

// notValidHint returns what to do about rows that violate a constraint which is NOT VALID. dropSQL drops the constraint, and
// addSQL adds it again.
func notValidHint(dropSQL, addSQL string, foreignKey bool) string {
	hint := fmt.Sprintf("the constraint is NOT VALID, so the row may be older than the constraint. To restore such rows, first run %s and after the restore %s",
		foreign.Text(dropSQL), foreign.Text(addSQL))
	if foreignKey {
		hint += " Or use --disable-triggers, as a superuser"
	}
	return hint
}

// danglingTable is the temporary table of the rows that violate a foreign key before the merge: see saveDangling.
const danglingTable = "pg_temp.capture_restore_dangling"

// saveDangling saves which rows violate a foreign key. A foreign key that is NOT VALID, or a restore with --disable-triggers,
// permits such rows. Like Postgres, checkForeignKeys ignores them, unless the merge changes their referring columns.
func (m *stagedMerge) saveDangling(ctx context.Context) error {
	_, err := m.tx.Exec(ctx, fmt.Sprintf("CREATE TEMPORARY TABLE capture_restore_dangling ON COMMIT DROP AS SELECT 0 AS key, t.tableoid AS tab, t.ctid AS tid, %s AS number FROM %s t, %s s WHERE false",
		m.number, m.table.FromClause(), stagingTable))
	if err != nil {
		return err
	}
	for i := range m.hooks.ForeignKeys {
		k := &m.hooks.ForeignKeys[i]
		number := "NULL"
		if k.From {
			number = fmt.Sprintf("(SELECT %s FROM %s AND %s", m.number, m.staged("p.moved"), m.same())
			if columns := m.written(k.Columns); len(columns) > 0 {
				number += " AND NOT " + m.differ(columns)
			}
			number += ")"
		}
		_, err := m.tx.Exec(ctx, fmt.Sprintf("INSERT INTO %s SELECT %d, t.tableoid, t.ctid, %s FROM %s", danglingTable, i, number, k.dangling("t")))
		if err != nil {
			return err
		}
	}
	return nil
}

// findDangling reports whether the merge has made rows violate the foreign key with the given index.
func (m *stagedMerge) findDangling(ctx context.Context, i int) (found bool, err error) {
	k := &m.hooks.ForeignKeys[i]
	before := "v.tab OPERATOR(pg_catalog.=) t.tableoid AND v.tid OPERATOR(pg_catalog.=) t.ctid"
	if k.From { // a row that the merge has moved has another ctid, so find it by its number
		before += fmt.Sprintf(" OR EXISTS (SELECT FROM %s s WHERE %s OPERATOR(pg_catalog.=) v.number AND %s)", stagingTable, m.number, m.same())
	}
	err = m.tx.QueryRow(ctx, fmt.Sprintf("SELECT EXISTS (SELECT FROM %s AND NOT EXISTS (SELECT FROM %s v WHERE v.key OPERATOR(pg_catalog.=) %d AND (%s)))",
		k.dangling("t"), danglingTable, i, before)).Scan(&found)
	return found, err
}

// dangling returns the text that follows FROM in a query for the rows that violate the foreign key. These rows get the given
// alias.
func (k *foreignKey) dangling(alias string) string {
	return fmt.Sprintf("%s %s WHERE %s AND NOT EXISTS (SELECT FROM %s parent WHERE %s)", k.ChildRows, alias, k.refers(alias), k.ParentRows, k.refersTo(alias, "parent"))
}

// written returns which of the given columns the merge writes.
func (m *stagedMerge) written(columns []string) (list []string) {
	for _, name := range columns {
		if _, ok := m.columns.at[name]; ok {
			list = append(list, name)
		}
	}
	return list
}

// explainNotValidKey returns notValidHint for a foreign key, or "" if the foreign key is valid.
func (m *stagedMerge) explainNotValidKey(ctx context.Context, k *foreignKey) (hint string, err error) {
	var drop, add string
	err = m.tx.QueryRow(ctx, `SELECT `+dropConstraintSQL+`, `+addConstraintSQL+` FROM pg_catalog.pg_constraint k CROSS JOIN LATERAL (SELECT 'TABLE' AS kind, k.conrelid::regclass::text AS name) x
		WHERE k.contype = 'f' AND NOT k.convalidated AND k.conrelid::regclass::text = $1::text AND k.conname = $2::text`, k.Child, k.Name).Scan(&drop, &add)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return notValidHint(drop, add, true), err
}
