package verify_test

import (
	"context"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"capture/internal/busy"
	"capture/internal/postgres"
	"capture/internal/statefile"
	"capture/internal/verify"
	"capture/snapshot"
)

// TestComparisonGivesWay checks that an ALTER TABLE of the application does not wait for a comparison. In the first case, the
// comparison is busy with the rows of the state. In the second case, the comparison waits for a barrier. The barrier is a query
// of the table, and this query waits behind the ALTER TABLE. In the third case, the comparison's second snapshot waits behind the ALTER TABLE.
func TestComparisonGivesWay(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the regular check for waiting sessions")
	}
	t.Parallel()
	for _, c := range []struct {
		name string
		live bool
		row  int // the ALTER TABLE starts just before the comparison reads this row of the state; if 0, it starts before the comparison's second snapshot
		// during is called while the ALTER TABLE waits for the comparison.
		during func(ctx context.Context, d *db, altered chan error)
	}{
		{"busy", false, 100, func(_ context.Context, _ *db, altered chan error) { waitAltered(t, altered) }},
		{"barrier", true, 100, func(ctx context.Context, d *db, _ chan error) {
			_ = d.Connect(d.Config).QueryRow(ctx, "SELECT count(*) FROM public.votes").Scan(new(int))
		}},
		{"second snapshot", true, 0, func(context.Context, *db, chan error) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			d.CreateVotes(400)
			alter, altered := alterTable(d)
			state := func(ctx context.Context, table *postgres.Table) (iter.Seq2[snapshot.Row, error], error) {
				rows := spoiled(d.View("votes")).From(nil) // the state differs from the table, so the second snapshot reads rows
				alterBefore := func(row int) {
					if row == c.row {
						alter()
						waitBlocked(t, d, altered)
						c.during(ctx, d, altered)
					}
				}
				alterBefore(0)
				return func(yield func(snapshot.Row, error) bool) {
					n := 0
					for row := range rows {
						n++
						alterBefore(n)
						if !yield(row, nil) {
							return
						}
					}
				}, nil
			}
			_, err := verify.Compare(context.Background(), verify.Comparison{Database: d.Config, Table: d.Name("votes"), Live: c.live, State: state})
			if !gaveWay(err) {
				t.Errorf("the comparison returned %v", err)
			}
			waitAltered(t, altered)
		})
	}
}

// TestVerifyGivesWay checks that Verify gives way to an ALTER TABLE, and that its error tells the user to run the command
// again.
func TestVerifyGivesWay(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the regular check for waiting sessions")
	}
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(3000)
	alter, altered := alterTable(d)
	_, err := verify.Verify(context.Background(), verify.Options{Path: d.Export("votes"), Database: d.Config, Progress: func(p statefile.Progress) {
		if p.Doing == "reading the table" {
			alter()
			waitAltered(t, altered)
		}
	}})
	if !gaveWay(err) || !strings.HasSuffix(err.Error(), "; run the command again") {
		t.Errorf("verify returned %v", err)
	}
	waitAltered(t, altered)
}

// gaveWay reports whether err says that a comparison gave way to a session.
func gaveWay(err error) bool {
	return err != nil && strings.Contains(err.Error(), "the comparison gave way to a session that waits for its lock or its snapshot: pid")
}

// alterTable returns a function that starts an ALTER TABLE when it is first called, and a channel that receives the
// statement's error.
func alterTable(d *db) (start func(), altered chan error) {
	conn, altered := d.Connect(d.Config), make(chan error, 1)
	return sync.OnceFunc(func() {
		go func() {
			_, err := conn.Exec(context.Background(), "ALTER TABLE public.votes ADD note text")
			altered <- err
		}()
	}), altered
}

// waitBlocked waits until a session waits for a lock in the database. It also returns once the given channel has a value,
// because the session that should have waited has then ended or failed to get its lock.
func waitBlocked(t *testing.T, d *db, ended chan error) {
	t.Helper()
	conn := d.Connect(d.Config)
	for deadline := time.Now().Add(busy.Limit(10 * time.Second)); ; time.Sleep(5 * time.Millisecond) {
		var blocked bool
		if err := conn.QueryRow(context.Background(), `
			SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE NOT l.granted AND d.datname = current_database())`).Scan(&blocked); err != nil {
			t.Error(err)
			return
		}
		if blocked || len(ended) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Error("no session waits for a lock")
			return
		}
	}
}

// waitAltered waits until the ALTER TABLE has ended, and leaves the statement's error in the given channel.
func waitAltered(t *testing.T, altered chan error) {
	t.Helper()
	select {
	case err := <-altered:
		altered <- err
		if err != nil {
			t.Error(err)
		}
	case <-time.After(busy.Limit(10 * time.Second)):
		t.Error("the ALTER TABLE still waits for the comparison")
	}
}
