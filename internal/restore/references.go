package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

// referenceError is the server's error for a violated foreign key if no row of the file is known to violate it. To find out the
// other table takes a query, which fails until the transaction has ended. Then [restoration.explainReference] finds it out.
type referenceError struct {
	action string // what failed
	err    error  // error of the server
}

func (e *referenceError) Error() string { return e.action + ": " + postgres.RedactedMessage(e.err) }

func (e *referenceError) Unwrap() error { return e.err }

// parentSQL selects the table to which a foreign key refers, as SQL, and whether the restored table has the foreign key and
// whether the foreign key refers to it. $1 to $3 are the foreign key's name and the schema and name of its table. $4 is the OID
// of the restored table.
var parentSQL = `
	WITH tree(oid) AS ` + postgres.TreeSQL("$4::bigint") + `
	SELECT pg_catalog.format('%I.%I', pn.nspname, p.relname), c.oid IN (SELECT oid FROM tree), p.oid IN (SELECT oid FROM tree)
	FROM pg_catalog.pg_constraint k
	JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	JOIN pg_catalog.pg_class p ON p.oid = k.confrelid
	JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
	WHERE k.contype = 'f' AND k.conname = $1::text::name AND n.nspname = $2::text::name AND c.relname = $3::text::name`

// explainReference adds to an error about a violated foreign key which table to restore first. It returns any other error
// unchanged. The transaction of the restore must have ended.
func (r *restoration) explainReference(ctx context.Context, err error) error {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != foreignKeyViolation || r.table == nil || ctx.Err() != nil {
		return err
	}
	var parent string
	var from, to bool
	row := postgres.Pinned(r.conn).QueryRow(ctx, parentSQL, refused.ConstraintName, refused.SchemaName, refused.TableName, int64(r.table.OID))
	if row.Scan(&parent, &from, &to) != nil || to {
		return err // to: the file itself must have the row, or a row of another table refers to a row that would go
	}
	return &postgres.Problem{Summary: err.Error(), Err: err, Hint: r.restoreFirst(foreign.Text(parent), from)}
}

// restoreFirst says that another table must be restored first. The parameter from is true if the restored table has the foreign
// key, and false if a trigger writes to the table that has it.
func (r *restoration) restoreFirst(parent string, from bool) string {
	hint := fmt.Sprintf("restore table %s first, so that it has the row", parent)
	if from && !r.options.DisableTriggers {
		hint += "; or, as a superuser, use --disable-triggers, which does not check foreign keys, and correct the reference afterwards"
	}
	return hint
}
