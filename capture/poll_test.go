package capture

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/pgserver"
	"capture/snapshot"
)

// polled is a poll without its loop: each read is one turn.
type polled struct {
	*poll
	t     *testing.T
	conn  *pgx.Conn
	table *snapshot.Table
}

func newPolled(t *testing.T, url string) *polled {
	t.Helper()
	cfg := config(t, url)
	cfg.Logger = hclog.NewNullLogger()
	p := newPoll(cfg.env("poll", source.NewProgress("poll", nil)))
	t.Cleanup(p.reader.Close)
	return &polled{p, t, connect(t, url), snapshot.NewTable()}
}

// turn reads, checks that the table is what Postgres says, and returns how: by its mark alone, by a scan, or by a copy.
func (p *polled) turn() string {
	p.t.Helper()
	mark, copies := p.mark, p.copies()
	if err := p.read(p.t.Context(), p.table); err != nil {
		p.t.Fatal(err)
	}
	if got, want := p.table.View().Rows(), len(oracle(p.t, p.conn, "votes", "vote_id")); got != want {
		p.t.Fatalf("%d rows, want %d", got, want)
	}
	p.same()
	switch {
	case p.copies() != copies:
		return "copy"
	case p.mark != mark:
		return "scan"
	}
	return "mark"
}

func (p *polled) copies() uint64 {
	if v := p.table.View(); v != nil {
		return v.Version()
	}
	return 0
}

// same compares the rows themselves.
func (p *polled) same() {
	p.t.Helper()
	path := filepath.Join(p.t.TempDir(), "view.json")
	f, err := os.Create(path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	if _, err := p.table.View().WriteTo(f); err != nil {
		p.t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	got, err := lines(b)
	if err != nil {
		p.t.Fatal(err)
	}
	want := oracle(p.t, p.conn, "votes", "vote_id")
	for i := range want {
		if got[i] != want[i] {
			p.t.Fatalf("row %d is\n%s\nwant\n%s", i, got[i], want[i])
		}
	}
}

// want checks how the next turn reads.
func (p *polled) want(after, how string) {
	p.t.Helper()
	if got := p.turn(); got != how {
		p.t.Errorf("after %s the table was read by %s, want by %s", after, got, how)
	}
}

// TestPollSkipsOnlyWhatIsCertain: nothing is copied where nothing changed, and nothing that changed is skipped, however
// it did. The server is the test's own, since any write in it ends the cheapest skip.
func TestPollSkipsOnlyWhatIsCertain(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"autovacuum": "off", "max_prepared_transactions": "5"}})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	exec(t, conn, "CREATE TABLE other (n int)")
	exec(t, conn, "INSERT INTO votes (comment) SELECT i FROM generate_series(1, 100) i")
	second := connect(t, s.URL("postgres"))
	p := newPolled(t, s.URL("postgres"))
	p.want("the start", "copy")
	p.want("nothing", "mark")
	exec(t, conn, "CHECKPOINT")
	exec(t, conn, "SELECT count(*) FROM votes")
	p.want("a checkpoint and reads", "mark")

	exec(t, conn, "BEGIN; UPDATE votes SET comment = 'never'; ROLLBACK")
	p.want("a rolled-back update", "scan")
	exec(t, conn, "INSERT INTO other VALUES (1)")
	p.want("a write elsewhere", "scan")
	exec(t, conn, "SELECT * FROM votes FOR UPDATE")
	p.want("row locks", "scan")
	exec(t, conn, "VACUUM (FREEZE) votes")
	p.turn() // whether it changes anything that counts is the server's business
	p.want("nothing, once more", "mark")

	exec(t, conn, "UPDATE votes SET comment = 'hot' WHERE vote_id = 7") // comment is in no index, and the page has room
	p.want("a HOT update", "copy")
	exec(t, conn, "UPDATE votes SET comment = comment WHERE vote_id = 7")
	p.want("an update to the same values", "copy")
	exec(t, conn, "BEGIN; UPDATE votes SET comment = 'a'; UPDATE votes SET comment = 'b'; DELETE FROM votes WHERE vote_id = 3; COMMIT")
	p.want("several updates of a row in a transaction", "copy")
	exec(t, conn, "DELETE FROM votes WHERE vote_id = 4")
	p.want("a delete", "copy")
	exec(t, conn, "VACUUM votes")
	p.turn()
	exec(t, conn, "INSERT INTO votes (vote_id, comment) VALUES (4, 'in the place of the one that was deleted')")
	p.want("a row in a dead one's place", "copy")

	// A transaction that is open while others are read, in another session.
	exec(t, second, "BEGIN; UPDATE votes SET comment = 'late' WHERE vote_id = 9")
	p.want("an uncommitted update", "mark")
	exec(t, conn, "INSERT INTO other VALUES (2)")
	p.want("a write elsewhere beside an uncommitted update", "scan")
	exec(t, second, "COMMIT")
	p.want("the commit of what was open before", "copy")
	exec(t, second, "BEGIN; UPDATE votes SET comment = 'later' WHERE vote_id = 9; PREPARE TRANSACTION 'p'")
	p.want("a prepared update", "mark")
	exec(t, conn, "COMMIT PREPARED 'p'")
	p.want("the commit of the prepared one", "copy")
	exec(t, second, "SET synchronous_commit = off")
	exec(t, second, "UPDATE votes SET comment = 'asynchronously' WHERE vote_id = 9")
	p.want("an asynchronous commit", "copy")
	exec(t, conn, "ALTER TABLE votes ADD extra int DEFAULT 3")
	p.want("a column with a default", "copy")
	exec(t, conn, "TRUNCATE votes")
	p.want("a truncation", "copy")
	p.want("nothing, at the end", "mark")

	// The server forgets; the same numbers may come again.
	exec(t, second, "INSERT INTO votes (comment) VALUES ('before the crash')")
	p.turn()
	s.Kill()
	if err := s.StartAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.read(t.Context(), p.table); err == nil {
		t.Error("a read went through a crash of the server")
	}
}

// TestPollSeesWhatWasNotVisibleYet: a commit that waits for a synchronous standby is in the WAL and not visible. A
// comparison of WAL positions would never find it.
func TestPollSeesWhatWasNotVisibleYet(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"autovacuum": "off"}})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	writer := connect(t, s.URL("postgres"))
	if err := s.Reload(t.Context(), map[string]string{"synchronous_standby_names": "nobody"}); err != nil {
		t.Fatal(err)
	}
	p := newPolled(t, s.URL("postgres"))
	p.want("the start", "copy")
	written := make(chan error, 1)
	go func() {
		_, err := writer.Exec(context.Background(), "INSERT INTO votes (comment) VALUES ('waits')")
		written <- err
	}()
	waits := func() (n int) {
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	eventually(t, "a commit that waits", func() error {
		if waits() == 0 {
			return os.ErrNotExist
		}
		return nil
	})
	if p.turn(); p.table.View().Rows() != 0 {
		t.Fatal("what waits is visible: nothing was tested")
	}
	exec(t, conn, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	p.want("the end of the wait", "copy")
	if p.table.View().Rows() != 1 {
		t.Errorf("%d rows", p.table.View().Rows())
	}
}

// TestPollOnStandby follows a standby, from which only reading is allowed.
func TestPollOnStandby(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	standby, err := s.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	cfg := config(t, standby.URL("postgres"))
	cfg.Source, cfg.PollInterval = "auto", 20*time.Millisecond
	d := start(t, cfg)
	d.ready()
	for _, sql := range []string{
		"INSERT INTO votes (comment) VALUES ('a'), ('b')", "UPDATE votes SET comment = 'c'", "BEGIN; DELETE FROM votes; ROLLBACK",
		"ALTER TABLE votes ADD extra int DEFAULT 3", "TRUNCATE votes",
	} {
		exec(t, conn, sql)
		d.follows(conn, "votes", "vote_id")
	}
	if st := d.Status(); st.Source != "poll" || st.SourceNote == "" {
		t.Errorf("followed by %s (%s)", st.Source, st.SourceNote)
	}
}
