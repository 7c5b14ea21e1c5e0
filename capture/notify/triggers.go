package notify

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// ensureTriggers creates the triggers if they are missing. PREPARE TRANSACTION fails in a transaction that has notified, so on
// a server that allows two-phase commits, it creates them only if the operator has chosen this source.
func ensureTriggers(ctx context.Context, conn *pgx.Conn, table *postgres.Table, chosen bool) error {
	missing := postgres.CheckTriggers(ctx, conn, table)
	problem := (*postgres.Problem)(nil)
	if missing == nil || !errors.As(missing, &problem) || problem.Err != nil {
		return missing
	}
	statements, err := postgres.SetupSQL(ctx, conn, table, postgres.SetupOptions{Source: "notify"})
	if err != nil {
		return err
	}
	var twoPhase bool
	err = conn.QueryRow(ctx, "SELECT pg_catalog.current_setting('max_prepared_transactions')::int > 0").Scan(&twoPhase)
	if err != nil {
		return fmt.Errorf("query max_prepared_transactions: %w", err)
	}
	if twoPhase && !chosen {
		problem.Reason = "capture does not create them unless told to, because max_prepared_transactions is not 0 and PREPARE TRANSACTION fails after a notification"
		problem.Hint = "if no application uses two-phase commits, run capture setup --source notify --table " + table.Name().String()
		return problem
	}
	if err := postgres.ApplyStatements(ctx, conn, statements); err != nil {
		problem.Hint = strings.Join(statements, "; ") + ";"
		problem.Reason, problem.Err = "creating them failed: "+err.Error(), err
		return problem
	}
	return nil
}
