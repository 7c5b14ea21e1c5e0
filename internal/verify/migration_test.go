package verify_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/busy"
	"capture/internal/postgres"
	"capture/internal/verify"
	"capture/snapshot"
)

// migrations keep the rows of table votes. The rewritten rows, and the new table, are not visible to a snapshot that was taken
// before the migration ended.
var migrations = []string{
	"ALTER TABLE public.votes ALTER user_query TYPE text USING user_query || ''",
	`CREATE TABLE public.new_votes (LIKE public.votes INCLUDING ALL); INSERT INTO public.new_votes SELECT * FROM public.votes;
		ALTER TABLE public.votes RENAME TO old_votes; ALTER TABLE public.new_votes RENAME TO votes`,
}

// TestCompareDuringMigration starts a comparison while a migration has rewritten or exchanged the table and is still open. The
// comparison must not take the table for an empty one.
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

// TestCompareDuringLongMigration: a comparison that waits for the lock behind a migration ends after a while, with an error that
// names the reason.
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
	if err == nil || !strings.Contains(err.Error(), "another session holds a lock on the table") {
		t.Errorf("verify returned %v", err)
	}
	exec(t, app, "ROLLBACK")
}

// TestComparisonGivesWayBetweenPartitions: a migration alters the partitions in the opposite order to that in which a comparison
// locks them. The comparison gives way while it still waits for its lock, so the migration meets no deadlock.
func TestComparisonGivesWayBetweenPartitions(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the regular check for waiting sessions")
	}
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE p (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
		CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)`)
	// On a busy machine, the server could otherwise detect the deadlock before the comparison's next check.
	d.Exec("ALTER DATABASE " + postgres.QuoteIdentifier(d.Config.Database) + " SET deadlock_timeout = '10 min'")
	app, database := d.Connect(d.Config), d.Config.Copy()
	database.Tracer = beforeLock(sync.OnceFunc(func() { begin(t, app, "ALTER TABLE public.p2 ALTER note SET NOT NULL") }))
	compared := make(chan error, 1)
	go func() {
		_, err := verify.Compare(context.Background(), verify.Comparison{Database: database, Table: d.Name("p"),
			State: func(context.Context, *postgres.Table) (iter.Seq2[snapshot.Row, error], error) {
				return nil, errors.New("the comparison has its lock")
			}})
		compared <- err
	}()
	waitBlocked(t, d, compared) // for p2, with a lock on p1
	exec(t, app, "ALTER TABLE public.p1 ALTER note SET NOT NULL; COMMIT")
	if err := <-compared; !gaveWay(err) {
		t.Errorf("the comparison returned %v", err)
	}
}

// beforeLock is a function that is called before a statement that locks a table.
type beforeLock func()

func (f beforeLock) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.Contains(data.SQL, "LOCK TABLE") {
		f()
	}
	return ctx
}

func (f beforeLock) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// begin opens a transaction with the statements.
func begin(t *testing.T, conn *pgx.Conn, statements string) {
	t.Helper()
	exec(t, conn, "BEGIN; "+statements)
}

// exec runs statements that must not wait for long.
func exec(t *testing.T, conn *pgx.Conn, statements string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), busy.Limit(10*time.Second))
	defer cancel()
	if _, err := conn.Exec(ctx, statements, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Error(err)
	}
}
