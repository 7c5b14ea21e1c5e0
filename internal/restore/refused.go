package restore

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// applyRows applies rows lo to hi-1 to the table, at once if the server takes them all. Otherwise it searches them for the one
// that the server refuses, and returns its number and the server's error.
//
// apply must leave nothing behind if it fails. What it succeeds with stays during the search: the server may refuse a row
// because of an earlier one, as it does for a duplicate key.
func applyRows(lo, hi int, apply func(lo, hi int) error) (refused int, err error) {
	err = apply(lo, hi)
	if err == nil || !postgres.IsRowRefused(err) {
		return 0, err
	}
	for hi-lo > 1 {
		middle := lo + (hi-lo)/2
		switch half := apply(lo, middle); {
		case half == nil:
			lo = middle
		case postgres.IsRowRefused(half):
			hi, err = middle, half
		default:
			return 0, half
		}
	}
	if last := apply(lo, hi); last != nil {
		err = last
	}
	return lo, err
}

// withOwnPath runs f with the session's own search path: a statement that writes to the target fires the application's
// triggers, which may rely on it. The statement itself names the schema of everything, of operators too.
func withOwnPath(ctx context.Context, tx pgx.Tx, f func() error) error {
	if _, err := tx.Exec(ctx, postgres.OwnSearchPath); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err // a rollback, of the transaction or to a savepoint, takes the path back
	}
	_, err := tx.Exec(ctx, postgres.EmptySearchPath)
	return err
}

// withSavepoint runs f within a savepoint and undoes what it did if it fails.
func withSavepoint(ctx context.Context, tx pgx.Tx, f func() error) error {
	if _, err := tx.Exec(ctx, "SAVEPOINT capture"); err != nil {
		return err
	}
	err := f()
	end := "RELEASE SAVEPOINT capture"
	if err != nil {
		if tx.Conn().IsClosed() || ctx.Err() != nil {
			return err
		}
		end = "ROLLBACK TO SAVEPOINT capture; RELEASE SAVEPOINT capture"
	}
	_, after := tx.Conn().PgConn().Exec(ctx, end).ReadAll()
	return errors.Join(err, after)
}
