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
// comparison is busy with the rows of the state. In the second case, the comparison waits for its own barrier, which waits behind
// the ALTER TABLE. In the third case, the comparison's second snapshot waits behind the ALTER TABLE.
func TestComparisonGivesWay(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the regular check for waiting sessions")
	}
	t.Parallel()
	for _, c := range []struct {
		name string
		live bool
		// during is called between two rows of the state, while an ALTER TABLE waits for the comparison.
		during func(ctx context.Context, d *db, altered chan error)
	}{
		{"busy", false, func(_ context.Context, _ *db, altered chan error) { waitAltered(t, altered) }},
		{"barrier", true, func(ctx context.Context, d *db, _ chan error) {
			_ = d.Connect(d.Config).QueryRow(ctx, "SELECT count(*) FROM public.votes").Scan(new(int))
		}},
		{"second snapshot", true, func(context.Context, *db, chan error) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			d.CreateVotes(400)
			conn, altered := d.Connect(d.Config), make(chan error, 1)
			state := func(ctx context.Context, table *postgres.Table) (iter.Seq2[snapshot.Row, error], error) {
				rows := spoiled(d.View("votes")).From(nil) // the state differs from the table, so the second snapshot reads rows
				return func(yield func(snapshot.Row, error) bool) {
					n := 0
					for row := range rows {
						if n++; n == 100 {
							go func() {
								_, err := conn.Exec(context.Background(), "ALTER TABLE public.votes ADD note text")
								altered <- err
							}()
							waitBlocked(t, d, conn.PgConn().PID(), altered)
							c.during(ctx, d, altered)
						}
						if !yield(row, nil) {
							return
						}
					}
				}, nil
			}
			_, err := verify.Compare(context.Background(), verify.Comparison{Database: d.Config, Table: d.Name("votes"), Live: c.live, State: state})
			if err == nil || !strings.Contains(err.Error(), "the comparison gave way to a session that waits for its lock or its snapshot: pid") {
				t.Errorf("the comparison returned %v", err)
			}
			waitAltered(t, altered)
		})
	}
}

// TestVerifyGivesWay: the error of capture verify says what to do.
func TestVerifyGivesWay(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the regular check for waiting sessions")
	}
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(3000)
	conn, altered := d.Connect(d.Config), make(chan error, 1)
	begin := sync.OnceFunc(func() {
		go func() {
			_, err := conn.Exec(context.Background(), "ALTER TABLE public.votes ADD note text")
			altered <- err
		}()
		waitAltered(t, altered)
	})
	_, err := verify.Verify(context.Background(), verify.Options{Path: d.Export("votes"), Database: d.Config, Progress: func(p statefile.Progress) {
		if p.Doing == "reading the table" {
			begin()
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "gave way") || !strings.HasSuffix(err.Error(), "; run the command again") {
		t.Errorf("verify returned %v", err)
	}
	waitAltered(t, altered)
}

// waitBlocked waits until the session with this process ID waits for a lock, or has already altered the table.
func waitBlocked(t *testing.T, d *db, pid uint32, altered chan error) {
	conn := d.Connect(d.Config)
	for deadline := time.Now().Add(busy.Limit(10 * time.Second)); ; time.Sleep(10 * time.Millisecond) {
		var blocked bool
		if err := conn.QueryRow(context.Background(), "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)", int32(pid)).Scan(&blocked); err != nil {
			t.Error(err)
			return
		}
		if blocked || len(altered) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Error("the ALTER TABLE does not wait")
			return
		}
	}
}

// waitAltered waits until the ALTER TABLE has ended, and leaves its error in altered.
func waitAltered(t *testing.T, altered chan error) {
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
