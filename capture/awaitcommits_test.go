package capture

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	osexec "os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
)

// TestCommitHeldWhileSlotStarts checks that capture waits until each commit in the slot's snapshot is complete. While capture
// creates the slot, a debugger holds a commit of the application between its WAL record and its mark in pg_xact. The slot's
// snapshot already shows the held transaction. If capture read the table with this snapshot now, the server would mark the
// transaction's rows as aborted, and the application would lose its commit; see awaitCommits in capture/logical.
func TestCommitHeldWhileSlotStarts(t *testing.T) {
	t.Parallel()
	if _, err := osexec.LookPath("gdb"); err != nil {
		t.Skip("there is no gdb on this machine")
	}
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"autovacuum": "off"}})
	url := s.URL("postgres")
	conn := connect(t, url)
	table(t, conn, 20)
	exec(t, conn, "CREATE TABLE other (n int)")
	exec(t, conn, "CHECKPOINT")
	first, second, held := connect(t, url), connect(t, url), connect(t, url)
	gdb := attachDebugger(t, held.PgConn().PID())

	// The slot reaches its snapshot in steps. Each step waits for the transactions that were running at the previous step.
	// Here, the first wait is for the transaction of connection `first`, and the second wait is for that of connection
	// `second`. The held transaction begins during the second wait, and the debugger suspends its commit before this wait ends.
	exec(t, first, "BEGIN; INSERT INTO other VALUES (1)")
	d := start(t, config(t, url))
	waitForLock(t, conn, first)
	exec(t, second, "BEGIN; INSERT INTO other VALUES (2)")
	exec(t, first, "COMMIT")
	waitForLock(t, conn, second)
	committed := make(chan error, 1)
	go func() {
		_, err := held.Exec(context.Background(), "UPDATE votes SET comment = 'held' WHERE vote_id = 7; INSERT INTO votes (user_query) VALUES ('held')")
		committed <- err
	}()
	gdb.stopped(t)
	exec(t, second, "COMMIT")
	time.Sleep(3 * time.Second) // without awaitCommits, capture would read the table within milliseconds
	if d.Status().Ready {
		t.Error("it follows while a transaction of its snapshot has not ended")
	}
	gdb.resume()
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	if n := queryOne[int](t, conn, "SELECT count(*) FROM votes WHERE comment = 'held' OR user_query = 'held'"); n != 2 {
		t.Errorf("%d of 2 rows of the application's commit are in its table", n)
	}
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
}

// waitForLock waits until the slot's walsender waits for the transaction of conn. ask is the connection for the queries.
func waitForLock(t *testing.T, ask, conn *pgx.Conn) {
	t.Helper()
	eventually(t, "the slot waits for a transaction", func() error {
		if queryOne[int](t, ask, `SELECT count(*) FROM pg_locks w JOIN pg_locks h ON h.transactionid = w.transactionid AND h.granted
			WHERE NOT w.granted AND h.pid = $1`, int(conn.PgConn().PID())) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

// debugger is a running gdb. It stops one backend just before this backend marks its commit in pg_xact.
type debugger struct {
	in    io.WriteCloser
	lines chan string
}

func attachDebugger(t *testing.T, pid uint32) *debugger {
	t.Helper()
	cmd := osexec.Command("gdb", "-q", "-nx", "-p", fmt.Sprint(pid))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	d := &debugger{in: in, lines: make(chan string, 1000)}
	go func() {
		defer close(d.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			d.lines <- s.Text()
		}
	}()
	// Postgres uses these signals between its processes and for timeouts, so gdb must not stop at them.
	d.say("set pagination off\nhandle SIGUSR1 SIGUSR2 SIGURG SIGALRM nostop noprint pass\nbreak TransactionIdCommitTree\necho ready\\n\ncontinue\n")
	d.wait(t, "ready")
	return d
}

func (d *debugger) say(commands string) { _, _ = io.WriteString(d.in, commands) }

func (d *debugger) wait(t *testing.T, text string) {
	t.Helper()
	var all []string
	deadline := time.After(patience)
	for {
		select {
		case line, open := <-d.lines:
			if all = append(all, line); strings.Contains(line, text) {
				return
			}
			if !open || strings.Contains(line, "ptrace: Operation not permitted") {
				t.Skipf("gdb cannot stop a backend here: %s", strings.Join(all, "\n"))
			}
		case <-deadline:
			t.Fatalf("gdb does not say %q: %s", text, strings.Join(all, "\n"))
		}
	}
}

func (d *debugger) stopped(t *testing.T) { t.Helper(); d.wait(t, "Breakpoint 1, ") }
func (d *debugger) resume()              { d.say("delete\ndetach\nquit\n") }

// TestPollNeverGoesBack: capture's address leads to the primary first, and then to a standby whose state is older than the
// file. The file does not change until the standby has caught up, and the status contains the reason.
func TestPollNeverGoesBack(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('first')")
	standby, err := s.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	behind := connect(t, standby.URL("postgres"))
	exec(t, behind, "SELECT pg_wal_replay_pause()")
	eventually(t, "the standby has paused", func() error {
		if !queryOne[bool](t, behind, "SELECT pg_is_wal_replay_paused()") {
			return errors.New("not yet")
		}
		return nil
	})
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('second')")

	p := proxied(t, s)
	cfg := config(t, p.URL("postgres"))
	cfg.Source, cfg.PollInterval = "poll", 20*time.Millisecond
	d := start(t, cfg)
	d.ready()
	d.follows(conn, "votes", "vote_id")
	p.Target(standby.Addr())
	p.Cut()
	d.notReady("the standby has replayed WAL up to", "older than the file")
	if !strings.Contains(strings.Join(d.fileRows(), ""), "second") {
		t.Error("the file went back to an older state")
	}
	exec(t, behind, "SELECT pg_wal_replay_resume()")
	d.ready()
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('third')")
	d.follows(conn, "votes", "vote_id")
}

// TestSourcesNoticeHiddenDefinitions checks that each source notices statements that neither the stream nor a trigger
// reports. The statements change the JSON of the rows, or add or remove rows.
func TestSourcesNoticeHiddenDefinitions(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for regular checks")
	}
	t.Parallel()
	cases := []struct {
		name       string
		minVersion int
		setup      string
		run        []string
	}{
		{"partition detached, changed, attached", 0, `DROP TABLE votes;
			CREATE TABLE votes (vote_id int PRIMARY KEY, comment text) PARTITION BY RANGE (vote_id);
			CREATE TABLE votes_1 PARTITION OF votes FOR VALUES FROM (0) TO (100);
			CREATE TABLE votes_2 PARTITION OF votes FOR VALUES FROM (100) TO (200);
			INSERT INTO votes SELECT i, 'old' FROM generate_series(0, 199) i`, []string{
			`BEGIN; ALTER TABLE votes DETACH PARTITION votes_1; UPDATE votes_1 SET comment = 'hidden' WHERE vote_id % 7 = 0;
				ALTER TABLE votes ATTACH PARTITION votes_1 FOR VALUES FROM (0) TO (100); COMMIT`,
			`BEGIN; ALTER TABLE votes DETACH PARTITION votes_2; DELETE FROM votes_2 WHERE vote_id % 3 = 0;
				ALTER TABLE votes ATTACH PARTITION votes_2 FOR VALUES FROM (100) TO (200); COMMIT`,
		}},
		{"enum below a multirange", 140000, `CREATE TYPE grade AS ENUM ('bad', 'fair', 'good');
			CREATE TYPE grades AS RANGE (subtype = grade, multirange_type_name = grade_sets);
			CREATE DOMAIN some_grades AS grade_sets;
			ALTER TABLE votes ADD g grade_sets, ADD gs grade_sets[], ADD d some_grades;
			INSERT INTO votes (g, gs, d) VALUES ('{[bad,fair]}', '{"{[fair,good]}"}', '{[bad,bad]}')`, []string{
			"ALTER TYPE grade RENAME VALUE 'bad' TO 'poor'", "ALTER TYPE grade RENAME VALUE 'good' TO 'excellent'",
		}},
		{"function of a cast to json", 0, `CREATE TYPE grade AS ENUM ('bad', 'fair', 'good');
			CREATE FUNCTION grade_json(grade) RETURNS json IMMUTABLE LANGUAGE sql AS $$ SELECT json_build_array($1::text) $$;
			CREATE CAST (grade AS json) WITH FUNCTION grade_json(grade);
			ALTER TABLE votes ADD g grade; INSERT INTO votes (g) VALUES ('bad'), ('good')`, []string{
			"CREATE OR REPLACE FUNCTION grade_json(grade) RETURNS json IMMUTABLE LANGUAGE sql AS $$ SELECT json_build_object('grade', $1::text) $$",
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			eachSource(t, func(t *testing.T, cfg Config, url string, conn *pgx.Conn) {
				if queryOne[int](t, conn, "SELECT current_setting('server_version_num')::int") < c.minVersion {
					t.Skip("this version does not have the type")
				}
				if _, err := conn.PgConn().Exec(t.Context(), c.setup).ReadAll(); err != nil {
					t.Fatal(err)
				}
				cfg.timeouts.Check = 300 * time.Millisecond
				d := start(t, cfg)
				d.ready()
				d.follows(conn, "votes", "vote_id")
				for _, sql := range c.run {
					if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
						t.Fatal(err)
					}
					d.follows(conn, "votes", "vote_id")
				}
			})
		})
	}
}
