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

// TestCommitHeldWhileSlotStarts holds a commit of the application between its WAL record and its mark in pg_xact, with a
// debugger, while capture makes its slot. The slot's snapshot shows that transaction. A read with it at that moment would
// undo the commit in the application's own table; see awaitCommits.
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

	// The slot reaches its snapshot in steps: each waits for the transactions that were running at the one before. The held
	// commit begins behind the last of them and commits ahead of it.
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
	time.Sleep(3 * time.Second) // a read without the guard comes within milliseconds
	if d.Status().Ready {
		t.Error("it follows while a transaction of its snapshot has not ended")
	}
	gdb.resume()
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	if n := one[int](t, conn, "SELECT count(*) FROM votes WHERE comment = 'held' OR user_query = 'held'"); n != 2 {
		t.Errorf("%d of 2 rows of the application's commit are in its table", n)
	}
	d.ready()
	d.equal(conn, "votes", "vote_id")
}

// waitForLock waits until somebody, which is the slot's walsender, waits for the transaction of conn to end.
func waitForLock(t *testing.T, ask, conn *pgx.Conn) {
	t.Helper()
	eventually(t, "the slot waits for a transaction", func() error {
		if one[int](t, ask, `SELECT count(*) FROM pg_locks w JOIN pg_locks h ON h.transactionid = w.transactionid AND h.granted
			WHERE NOT w.granted AND h.pid = $1`, int(conn.PgConn().PID())) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

// debugger is a gdb that stops a backend where it would mark its commit in pg_xact.
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
	// Postgres uses SIGUSR1 and SIGURG between its processes.
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
