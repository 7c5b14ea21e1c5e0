package verify_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/busy"
	"capture/internal/locktest"
	"capture/internal/postgres"
	"capture/internal/verify"
	"capture/snapshot"
)

// migrations are statements that rewrite or replace table votes, and keep its rows. A snapshot that was taken before the
// migration ended sees neither the rewritten rows nor the rows of the new table, so it would show an empty table.
var migrations = []string{
	"ALTER TABLE public.votes ALTER user_query TYPE text USING user_query || ''",
	`CREATE TABLE public.new_votes (LIKE public.votes INCLUDING ALL); INSERT INTO public.new_votes SELECT * FROM public.votes;
		ALTER TABLE public.votes RENAME TO old_votes; ALTER TABLE public.new_votes RENAME TO votes`,
}

// TestCompareDuringMigration checks that a comparison finds all rows if it starts while the transaction of a migration is
// still open. The migration has already rewritten or replaced the table.
func TestCompareDuringMigration(t *testing.T) {
	t.Parallel()
	for _, live := range []bool{false, true} {
		for _, migration := range migrations {
			d := newDB(t)
			d.CreateVotes(400)
			view, app := d.View("votes"), d.Connect(d.Config)
			state := func(context.Context, *postgres.Table) (iter.Seq2[snapshot.Row, error], error) {
				return view.From(nil), nil
			}
			begin(t, app, migration)
			compared := make(chan error, 1)
			go func() {
				diff, err := verify.Compare(context.Background(), verify.Comparison{Database: d.Config, Table: d.Name("votes"), Live: live, State: state})
				if err == nil && (!diff.Empty() || diff.TableRows != 400) {
					err = fmt.Errorf("the difference is %+v", diff)
				}
				compared <- err
			}()
			waitBlocked(t, d, compared)
			exec(t, app, "COMMIT")
			if err := <-compared; err != nil {
				t.Errorf("live %t: %s: %v", live, migration, err)
			}
		}
	}
}

// TestCompareDuringLongMigration checks that a comparison ends if it has to wait too long for a migration's lock. The error
// names the reason, and tells the user to run the command again.
func TestCompareDuringLongMigration(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the lock's timeout")
	}
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(400)
	path, app := d.Export("votes"), d.Connect(d.Config)
	begin(t, app, migrations[0])
	ctx, cancel := context.WithTimeout(context.Background(), busy.Limit(30*time.Second))
	defer cancel()
	_, err := verify.Verify(ctx, verify.Options{Path: path, Database: d.Config})
	if err == nil || !strings.Contains(err.Error(), "another session holds a lock on the table") || !strings.HasSuffix(err.Error(), "; run the command again") {
		t.Errorf("verify returned %v", err)
	}
	exec(t, app, "ROLLBACK")
}

// TestCompareBetweenPartitions checks that a comparison causes no deadlock with a migration that locks the partitions in the
// opposite order. If the comparison waited for one partition while holding another, the migration would fail after its
// deadlock_timeout, which is one millisecond.
func TestCompareBetweenPartitions(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
		CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)`)
	app, database := d.Connect(d.Config), d.Config.Copy()
	exec(t, app, "SET deadlock_timeout = '1ms'")
	tracer := locktest.New("LOCK TABLE", func() { begin(t, app, "LOCK TABLE public.p2") })
	database.Tracer = tracer
	errLocked := errors.New("the comparison has its lock")
	compared := make(chan error, 1)
	go func() {
		_, err := verify.Compare(context.Background(), verify.Comparison{Database: database, Table: d.Name("p"),
			State: func(context.Context, *postgres.Table) (iter.Seq2[snapshot.Row, error], error) { return nil, errLocked }})
		compared <- err
	}()
	waitBlocked(t, d, tracer.Refused)
	exec(t, app, "LOCK TABLE public.p1; COMMIT")
	if err := <-compared; err != errLocked {
		t.Errorf("the comparison returned %v", err)
	}
}

// begin begins a transaction, and runs the statements in it.
func begin(t *testing.T, conn *pgx.Conn, statements string) {
	t.Helper()
	exec(t, conn, "BEGIN; "+statements)
}

// exec runs statements, and fails the test if they wait for long.
func exec(t *testing.T, conn *pgx.Conn, statements string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), busy.Limit(10*time.Second))
	defer cancel()
	if _, err := conn.Exec(ctx, statements, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Error(err)
	}
}
