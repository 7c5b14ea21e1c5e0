package notify

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// ensureTriggers returns an error if triggers are missing or differ from those that capture creates. If the operator chose
// this source, ensureTriggers creates or repairs the triggers instead. Otherwise it does not change them, because triggers
// have drawbacks for the application. They slow its commits down. They also make PREPARE TRANSACTION fail in a transaction
// that has sent a notification.
func ensureTriggers(ctx context.Context, conn *pgx.Conn, table *postgres.Table, chosen bool) error {
	missing := postgres.CheckTriggers(ctx, conn, table)
	problem := (*postgres.Problem)(nil)
	if missing == nil || !chosen || !errors.As(missing, &problem) || problem.Err != nil {
		return missing
	}
	statements, err := postgres.SetupSQL(ctx, conn, table, postgres.SetupOptions{Source: "notify"})
	if err != nil {
		return err
	}
	if err := postgres.ApplyStatements(ctx, conn, statements); err != nil {
		problem.Hint = strings.Join(statements, "; ") + ";"
		problem.Reason, problem.Err = "creating them failed: "+err.Error(), err
		return problem
	}
	return nil
}
