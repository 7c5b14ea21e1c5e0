package capture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/pgserver"
	"capture/internal/postgres"
)

// eachSource runs a test with each kind of source, on its own database with the table votes.
func eachSource(t *testing.T, test func(t *testing.T, cfg Config, url string, conn *pgx.Conn)) {
	for _, kind := range sourceKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			conn := connect(t, url)
			exec(t, conn, votes)
			cfg := config(t, url)
			cfg.Source, cfg.PollInterval = kind, 20*time.Millisecond
			test(t, cfg, url, conn)
		})
	}
}

// TestSourcesRandomWorkload compares file and table after random transactions, some of them rolled back. A reader checks that
// each version of the file that it sees shows every transaction either completely or not at all.
func TestSourcesRandomWorkload(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a random workload for seconds")
	}
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	eachSource(t, func(t *testing.T, cfg Config, url string, conn *pgx.Conn) {
		d := start(t, cfg)
		d.ready()
		done := make(chan struct{})
		read := make(chan error, 1)
		go func() { read <- watchFile(d.path, done, checkWorkload) }()
		r := rand.New(rand.NewPCG(seed, 0))
		for range 6 {
			for range 10 + r.IntN(20) {
				workload(t, conn, r)
			}
			d.flushAndCompare(conn, "votes", "vote_id")
		}
		close(done)
		if err := <-read; err != nil {
			t.Fatal(err)
		}
		if s := d.Status(); s.Source != cfg.Source || s.SourceNote != "" {
			t.Errorf("followed by %s (%s)", s.Source, s.SourceNote)
		}
	})
}

// TestSourcesShowWholeStates lets several sessions write at the same time. Each session has two groups of ten rows. It sets
// the rows of the first group to the next number in one transaction, statement by statement, and those of the second group
// in another transaction. In every state that a reader sees, all rows of a group have the same number, and a session's
// second group is at most one number behind its first group. A reader may miss a state that lasts for microseconds. For the
// source logical, the test therefore also checks that each transaction makes exactly one state.
func TestSourcesShowWholeStates(t *testing.T) {
	if testing.Short() {
		t.Skip("watches the file for seconds")
	}
	t.Parallel()
	const writers, group, steps = 3, 10, 120
	eachSource(t, func(t *testing.T, cfg Config, url string, conn *pgx.Conn) {
		exec(t, conn, "INSERT INTO votes (vote_id, comment) SELECT i, '0' FROM generate_series(0, $1::int - 1) i", writers*2*group)
		cfg.FlushDelay = time.Millisecond
		d := start(t, cfg)
		d.ready()
		copied := d.View().Version()
		done, failed := make(chan struct{}), make(chan error, 1)
		go func() {
			failed <- watchFile(d.path, done, func(rows []string) error { return checkGroups(rows, writers, group) })
		}()
		var g sync.WaitGroup
		for w := range writers {
			c := connect(t, url)
			g.Go(func() {
				for n := 1; n <= steps; n++ {
					for half := range 2 {
						first := (2*w + half) * group
						err := pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error {
							for _, from := range []int{0, 3, 7} {
								if _, err := tx.Exec(t.Context(), "UPDATE votes SET comment = $1 WHERE vote_id >= $2 AND vote_id < $3 AND comment <> $1",
									fmt.Sprint(n), first+from, first+group); err != nil {
									return err
								}
							}
							return nil
						})
						if err != nil {
							t.Error(err)
							return
						}
					}
				}
			})
		}
		g.Wait()
		d.flushAndCompare(conn, "votes", "vote_id")
		close(done)
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
		if states := d.View().Version() - copied; cfg.Source == "logical" && states != writers*2*steps {
			t.Errorf("%d transactions made %d states", writers*2*steps, states)
		}
	})
}

func checkGroups(rows []string, writers, group int) error {
	if len(rows) != writers*2*group {
		return fmt.Errorf("%d rows", len(rows))
	}
	numbers := make([]int, len(rows))
	for i, row := range rows {
		_, rest, _ := strings.Cut(row, `"comment":"`)
		if _, err := fmt.Sscanf(rest, "%d", &numbers[i]); err != nil {
			return fmt.Errorf("%s: %w", row, err)
		}
		if i%group != 0 && numbers[i] != numbers[i-1] {
			return fmt.Errorf("half of a transaction: row %d has %d, row %d has %d", i-1, numbers[i-1], i, numbers[i])
		}
	}
	for w := range writers {
		first, second := numbers[2*w*group], numbers[(2*w+1)*group]
		if second > first || second < first-1 {
			return fmt.Errorf("transactions out of order: writer %d's first group is at %d, its second at %d", w, first, second)
		}
	}
	return nil
}

// TestSourcesReconnect terminates capture's sessions again and again during a workload. Each time, capture must connect
// again, and the file must equal the table.
func TestSourcesReconnect(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for reconnects")
	}
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	eachSource(t, func(t *testing.T, cfg Config, url string, conn *pgx.Conn) {
		d := start(t, cfg)
		d.ready()
		r := rand.New(rand.NewPCG(seed, 1))
		for range 5 {
			exec(t, conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'capture'")
			for range 8 {
				workload(t, conn, r)
			}
			d.flushAndCompare(conn, "votes", "vote_id")
		}
		if n := strings.Count(d.log.String(), `"@message":"following"`); n < 2 {
			t.Errorf("it has begun to follow %d times, so that nothing was tested", n)
		}
	})
}

// TestSourcesFollowDefinition truncates and alters the table while capture follows it. The file must then equal the table
// again without a forced flush.
func TestSourcesFollowDefinition(t *testing.T) {
	if testing.Short() {
		t.Skip("changes the definition many times")
	}
	t.Parallel()
	eachSource(t, func(t *testing.T, cfg Config, url string, conn *pgx.Conn) {
		d := start(t, cfg)
		d.ready()
		key := "vote_id"
		for _, sql := range []string{
			"INSERT INTO votes (user_query) SELECT 'q' || i FROM generate_series(1, 700) i",
			"UPDATE votes SET comment = 'few' WHERE vote_id % 10 = 0",
			"TRUNCATE votes",
			"INSERT INTO votes (user_query) VALUES ('after')",
			"ALTER TABLE votes ADD extra text DEFAULT 'from before'",
			"INSERT INTO votes (user_query) VALUES ('and more')",
			"ALTER TABLE votes DROP citations",
			"UPDATE votes SET extra = 'changed'",
			"ALTER TABLE votes RENAME vote_id TO id",
			"UPDATE votes SET id = id + 1000",
			"DROP TABLE votes; CREATE TABLE votes (id text PRIMARY KEY, n numeric); INSERT INTO votes VALUES ('new', 1.10)",
			"INSERT INTO votes VALUES (E'o\"d\\\\d, {k}', 2.0), ('', 3)",
			"UPDATE votes SET id = id || '!', n = n + 1",
			"DELETE FROM votes WHERE id = '!'",
		} {
			if exec(t, conn, sql); strings.Contains(sql, "vote_id TO id") {
				key = "id"
			} else if strings.Contains(sql, "id text") {
				key = `id COLLATE "C"`
			}
			d.follows(conn, "votes", key)
		}
	})
}

// TestSourcesBarrier: under load, a forced snapshot has each vote that was committed before the request.
func TestSourcesBarrier(t *testing.T) {
	if testing.Short() {
		t.Skip("calls many barriers")
	}
	t.Parallel()
	eachSource(t, func(t *testing.T, cfg Config, url string, conn *pgx.Conn) {
		cfg.PollInterval = time.Hour
		d := start(t, cfg)
		d.ready()
		var stop atomic.Bool
		done := make(chan error, 1)
		other := connect(t, url)
		exec(t, other, "CREATE TABLE busy (n int)")
		go func() {
			for !stop.Load() {
				if _, err := other.Exec(context.Background(), "INSERT INTO busy SELECT generate_series(1, 20)"); err != nil {
					done <- err
					return
				}
				time.Sleep(2 * time.Millisecond) // long enough to leave processor time to other tests, and short enough for many commits during each barrier
			}
			done <- nil
		}()
		for i := range 40 {
			exec(t, conn, "SET synchronous_commit = "+[]string{"on", "off"}[i%2])
			exec(t, conn, "INSERT INTO votes (user_query) VALUES ($1)", fmt.Sprintf("vote <%d>", i))
			if _, err := d.Snapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(d.path)
			if err != nil || !strings.Contains(string(b), fmt.Sprintf("vote <%d>", i)) {
				t.Fatalf("vote %d is not in the file: %v", i, err)
			}
		}
		stop.Store(true)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// TestSourcesNoticeSilence: the network drops everything silently. Each source notices, and follows again once the network is
// back.
func TestSourcesNoticeSilence(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a timeout")
	}
	t.Parallel()
	eachSource(t, func(t *testing.T, cfg Config, url string, conn *pgx.Conn) {
		p := proxiedAddr(t, pgserver.Shared(t).Addr())
		through, err := postgres.ParseConfig(p.URL(cfg.Database.Database))
		if err != nil {
			t.Fatal(err)
		}
		through.ConnectTimeout = 2 * time.Second
		cfg.Database, cfg.PollInterval = through, time.Hour
		cfg.timeouts = source.Timeouts{Idle: 2 * time.Second, Ping: 200 * time.Millisecond}
		d := start(t, cfg)
		d.ready()
		p.Stall()
		exec(t, conn, "INSERT INTO votes (comment) VALUES ('not heard of')")
		eventually(t, "the silence is noticed", func() error {
			if s := d.Status(); s.State == stateFollowing {
				return fmt.Errorf("%+v", s.Checks)
			}
			return nil
		})
		p.Unstall()
		d.follows(conn, "votes", "vote_id")
		d.ready()
	})
}
