package recovery

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// disableTriggers keeps the table's triggers from acting on the rows, where that is asked for: for the session where the user
// may set that, else by disabling those of the table, as its owner may. What it returns undoes that before the commit.
func (r *restore) disableTriggers(ctx context.Context) (enable func(context.Context) error, err error) {
	enable = func(context.Context) error { return nil }
	if !r.o.DisableTriggers {
		return enable, nil
	}
	err = attempt(ctx, r.tx, func() error {
		_, err := r.tx.Exec(ctx, "SET LOCAL session_replication_role = replica")
		return err
	})
	if err == nil {
		r.note("triggers and foreign keys did not act; what they would have written or refused is yours to see to")
		return enable, nil
	}
	if postgres.SQLState(err) != "42501" {
		return nil, explain("disable triggers", err)
	}
	return r.disableOwn(ctx)
}

// disableOwn disables the table's user triggers that act now. Foreign keys go on acting: only a superuser can stop them.
func (r *restore) disableOwn(ctx context.Context) (enable func(context.Context) error, err error) {
	table := r.plan.table
	rows, err := r.tx.Query(ctx, `SELECT tgname::text, tgenabled::text FROM pg_catalog.pg_trigger
		WHERE tgrelid = $1::bigint::oid AND NOT tgisinternal AND tgenabled IN ('O', 'A') ORDER BY tgname`, int64(table.OID))
	if err != nil {
		return nil, explain("look for triggers", err)
	}
	type trigger struct{ Name, Enabled string }
	triggers, err := pgx.CollectRows(rows, pgx.RowToStructByPos[trigger])
	if err != nil {
		return nil, explain("look for triggers", err)
	}
	each := func(ctx context.Context, how func(trigger) string) error {
		for _, t := range triggers {
			_, err := r.tx.Exec(ctx, fmt.Sprintf("ALTER TABLE %s %s TRIGGER %s", table.Name().Quoted(), how(t), postgres.QuoteIdentifier(t.Name)))
			switch {
			case postgres.SQLState(err) == "42501":
				return &postgres.Problem{
					Summary: fmt.Sprintf("no right to disable the triggers of table %s", table.Name()), Err: err,
					Reason: "--disable-triggers takes a superuser, the right to set session_replication_role (15 and later), or the table's owner",
					Hint:   "GRANT SET ON PARAMETER session_replication_role TO …; or connect as the table's owner, or leave the flag out",
				}
			case err != nil:
				return explain("disable triggers", err)
			}
		}
		return nil
	}
	if err := each(ctx, func(trigger) string { return "DISABLE" }); err != nil {
		return nil, err
	}
	r.note("the table's own triggers did not act; foreign keys did")
	return func(ctx context.Context) error {
		return each(ctx, func(t trigger) string {
			if t.Enabled == "A" {
				return "ENABLE ALWAYS"
			}
			return "ENABLE"
		})
	}, nil
}
