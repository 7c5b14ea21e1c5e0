package restore

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// disableTriggers keeps the table's triggers from acting on the rows. If the user may set session_replication_role, it sets
// that parameter to replica for the transaction. Foreign keys do not act then, either. Otherwise it disables the table's own
// triggers, as the table's owner may do. enable reverses this and must be called before the commit. note tells the user what
// did not act.
func disableTriggers(ctx context.Context, tx pgx.Tx, table *postgres.Table) (enable func(context.Context) error, note string, err error) {
	err = withSavepoint(ctx, tx, func() error {
		_, err := tx.Exec(ctx, "SET LOCAL session_replication_role = replica")
		return err
	})
	switch {
	case err == nil:
		note = "triggers and foreign keys did not act; check what they would have written or refused"
		return func(context.Context) error { return nil }, note, nil
	case postgres.SQLState(err) != insufficientPrivilege:
		return nil, "", postgres.ExplainRedacted("disable triggers", err)
	}
	enable, err = disableTableTriggers(ctx, tx, table)
	return enable, "the table's own triggers did not act; foreign keys did", err
}

// disableTableTriggers disables the table's own triggers, as far as they are enabled. Foreign keys still act, because only a
// superuser can disable their triggers.
func disableTableTriggers(ctx context.Context, tx pgx.Tx, table *postgres.Table) (enable func(context.Context) error, err error) {
	type trigger struct{ Name, Enabled string }
	rows, err := tx.Query(ctx, `SELECT tgname::text, tgenabled::text FROM pg_catalog.pg_trigger
		WHERE tgrelid = $1::bigint::oid AND NOT tgisinternal AND tgenabled IN ('O', 'A') ORDER BY tgname`, int64(table.OID))
	if err != nil {
		return nil, postgres.ExplainRedacted("list triggers", err)
	}
	triggers, err := pgx.CollectRows(rows, pgx.RowToStructByPos[trigger])
	if err != nil {
		return nil, postgres.ExplainRedacted("list triggers", err)
	}
	alterTriggers := func(ctx context.Context, verb func(trigger) string) error {
		for _, t := range triggers {
			_, err := tx.Exec(ctx, fmt.Sprintf("ALTER TABLE %s %s TRIGGER %s", table.Name().Quoted(), verb(t), postgres.QuoteIdentifier(t.Name)))
			if postgres.SQLState(err) == insufficientPrivilege {
				return &postgres.Problem{
					Summary: fmt.Sprintf("no right to disable the triggers of table %s", table.Name()), Err: err,
					Reason: "--disable-triggers takes a superuser, the right to set session_replication_role (15 and later), or the table's owner",
					Hint:   "GRANT SET ON PARAMETER session_replication_role TO …; or connect as the table's owner, or leave the flag out",
				}
			}
			if err != nil {
				return postgres.ExplainRedacted("disable triggers", err)
			}
		}
		return nil
	}
	enable = func(ctx context.Context) error {
		return alterTriggers(ctx, func(t trigger) string {
			if t.Enabled == "A" {
				return "ENABLE ALWAYS"
			}
			return "ENABLE"
		})
	}
	return enable, alterTriggers(ctx, func(trigger) string { return "DISABLE" })
}
