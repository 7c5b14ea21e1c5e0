package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

// parentSQL selects the name, as SQL, of the table to which a foreign key refers. It also selects whether the restored table
// has the foreign key, and whether the foreign key refers to the restored table. $1 to $3 are the foreign key's name and the
// schema and name of its table. $4 is the OID of the restored table.
var parentSQL = `
	WITH tree(oid) AS ` + postgres.TreeSQL("$4::bigint") + `
	SELECT pg_catalog.format('%I.%I', pn.nspname, p.relname), c.oid IN (SELECT oid FROM tree), p.oid IN (SELECT oid FROM tree)
	FROM pg_catalog.pg_constraint k
	JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	JOIN pg_catalog.pg_class p ON p.oid = k.confrelid
	JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
	WHERE k.contype = 'f' AND k.conname = $1::text::name AND n.nspname = $2::text::name AND c.relname = $3::text::name`

// explainViolation adds a hint to an error about a violated constraint. For a foreign key, the hint names the table to
// restore first. For a constraint that is NOT VALID, the hint explains how to restore a row that violates it.
// explainViolation returns any other error unchanged. The transaction of the restore must have ended.
func (r *restoration) explainViolation(ctx context.Context, err error) error {
	var refused *pgconn.PgError
	if r.table == nil || ctx.Err() != nil || !postgres.IsRowRefused(err) || !errors.As(err, &refused) {
		return err
	}
	first, notValid := "", r.explainNotValid(ctx, refused)
	if refused.Code == foreignKeyViolation {
		first = r.explainReference(ctx, refused, notValid == "")
	}
	if first == "" && notValid == "" {
		return err
	}
	return &postgres.Problem{Summary: err.Error(), Err: err, Hint: joinHints(first, notValid)}
}

// explainReference returns a hint for a violated foreign key: which table to restore first. It returns "" if this does not
// help. If offerDisable is set, the hint may also name --disable-triggers.
func (r *restoration) explainReference(ctx context.Context, refused *pgconn.PgError, offerDisable bool) (hint string) {
	var parent string
	var from, to bool
	row := postgres.Pinned(r.conn).QueryRow(ctx, parentSQL, refused.ConstraintName, refused.SchemaName, refused.TableName, int64(r.table.OID))
	if row.Scan(&parent, &from, &to) != nil || to {
		// If the foreign key refers to the restored table, restoring another table does not help. Either the file itself lacks the
		// row, or a row of another table refers to a row that would be deleted.
		return ""
	}
	hint = fmt.Sprintf("restore table %s first, so that it has the row", foreign.Text(parent))
	// If another table has the foreign key, a trigger has written to that table. The hint then does not suggest
	// --disable-triggers.
	if offerDisable && from && !r.options.DisableTriggers {
		hint += "; or, as a superuser, use --disable-triggers, which does not check foreign keys, and correct the reference afterwards"
	}
	return hint
}

// joinHints joins the hint about which table to restore first with the hint about a constraint that is NOT VALID. Each of
// the two hints may be empty.
func joinHints(first, notValid string) string {
	if first == "" || notValid == "" {
		return first + notValid
	}
	return first + "; but " + notValid
}
