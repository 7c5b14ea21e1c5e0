package poll

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"capture/capture/sourcetest"
	"capture/internal/pgserver"
	"capture/snapshot"
)

func TestMain(m *testing.M) { os.Exit(pgserver.Main(m.Run)) }

// manualSource is a Source without its loop. The test itself starts each read of the table.
type manualSource struct {
	*Source
	t     *testing.T
	conn  *sourcetest.Conn
	table *snapshot.Table
}

func newReads(t *testing.T, url string) *manualSource {
	t.Helper()
	s := New(sourcetest.NewEnv(t, "poll", url))
	t.Cleanup(s.reader.Close)
	return &manualSource{s, t, sourcetest.Connect(t, url), snapshot.NewTable()}
}

// next reads the table once, checks the rows, and returns the last step that the read needed: the server's snapshot, the hash
// of the rows, or a copy.
func (r *manualSource) next() string {
	r.t.Helper()
	serverSnapshot, copies := r.serverSnapshot, r.copies()
	if err := r.readIfChanged(r.t.Context(), r.table); err != nil {
		r.t.Fatal(err)
	}
	r.conn.CheckRows(r.table.View(), "votes", "vote_id")
	switch {
	case r.copies() != copies:
		return "copy"
	case r.serverSnapshot != serverSnapshot:
		return "hash"
	}
	return "snapshot"
}

func (r *manualSource) copies() uint64 {
	if v := r.table.View(); v != nil {
		return v.Version()
	}
	return 0
}

// want reads the table once with next, and checks that how is the last step of the read. after describes what happened before the
// read, for the error message.
func (r *manualSource) want(after, how string) {
	r.t.Helper()
	if got := r.next(); got != how {
		r.t.Errorf("after %s the read went to the %s, want to the %s", after, got, how)
	}
}

// TestReadSkipsOnlyUnchangedTables checks that an unchanged table is not copied, and that no kind of change is skipped. The
// test has its own server, because any write on a server changes the server's snapshot.
func TestReadSkipsOnlyUnchangedTables(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"autovacuum": "off", "max_prepared_transactions": "5"}})
	conn := sourcetest.Connect(t, s.URL("postgres"))
	conn.MustExec(sourcetest.Votes)
	conn.MustExec("CREATE TABLE other (n int)")
	conn.MustExec("INSERT INTO votes (comment) SELECT i FROM generate_series(1, 100) i")
	second := sourcetest.Connect(t, s.URL("postgres"))
	r := newReads(t, s.URL("postgres"))
	r.want("the start", "copy")
	r.want("nothing", "snapshot")
	conn.MustExec("CHECKPOINT")
	conn.MustExec("SELECT count(*) FROM votes")
	r.want("a checkpoint and reads", "snapshot")

	conn.MustExec("BEGIN; UPDATE votes SET comment = 'never'; ROLLBACK")
	r.want("a rolled-back update", "hash")
	conn.MustExec("INSERT INTO other VALUES (1)")
	r.want("a write elsewhere", "hash")
	conn.MustExec("SELECT * FROM votes FOR UPDATE")
	r.want("row locks", "hash")
	conn.MustExec("VACUUM (FREEZE) votes")
	r.next() // ignore the result: it depends on whether VACUUM changes a row version
	r.want("nothing, once more", "snapshot")

	conn.MustExec("UPDATE votes SET comment = 'hot' WHERE vote_id = 7") // a HOT update: no index has the column comment, and the page has room for the new row version
	r.want("a HOT update", "copy")
	conn.MustExec("UPDATE votes SET comment = comment WHERE vote_id = 7")
	r.want("an update to the same values", "copy")
	conn.MustExec("BEGIN; UPDATE votes SET comment = 'a'; UPDATE votes SET comment = 'b'; DELETE FROM votes WHERE vote_id = 3; COMMIT")
	r.want("several updates of a row in a transaction", "copy")
	conn.MustExec("DELETE FROM votes WHERE vote_id = 4")
	r.want("a delete", "copy")
	conn.MustExec("VACUUM votes")
	r.next()
	conn.MustExec("INSERT INTO votes (vote_id, comment) VALUES (4, 'in the place of the deleted one')")
	r.want("a row in the place of a dead one", "copy")

	// A transaction of another session stays open during reads.
	second.MustExec("BEGIN; UPDATE votes SET comment = 'late' WHERE vote_id = 9")
	r.want("an uncommitted update", "snapshot")
	conn.MustExec("INSERT INTO other VALUES (2)")
	r.want("a write elsewhere during an uncommitted update", "hash")
	second.MustExec("COMMIT")
	r.want("the commit of the open transaction", "copy")
	second.MustExec("BEGIN; UPDATE votes SET comment = 'later' WHERE vote_id = 9; PREPARE TRANSACTION 'p'")
	r.want("a prepared update", "snapshot")
	conn.MustExec("COMMIT PREPARED 'p'")
	r.want("the commit of the prepared one", "copy")
	second.MustExec("SET synchronous_commit = off")
	second.MustExec("UPDATE votes SET comment = 'asynchronously' WHERE vote_id = 9")
	r.want("an asynchronous commit", "copy")
	conn.MustExec("ALTER TABLE votes ADD extra int DEFAULT 3")
	r.want("a column with a default", "copy")
	conn.MustExec("TRUNCATE votes")
	r.want("a truncation", "copy")
	r.want("nothing, at the end", "snapshot")

	// After a crash, the server may assign the same transaction IDs again, so its snapshot may look unchanged although the rows
	// have changed. Therefore, the first read after the crash must fail instead of comparing the snapshots.
	second.MustExec("INSERT INTO votes (comment) VALUES ('before the crash')")
	r.next()
	s.Kill()
	if err := s.StartAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.readIfChanged(t.Context(), r.table); err == nil {
		t.Error("a read went through a crash of the server")
	}
}

// TestReadSeesCommitThatWaited checks that a read captures a commit that waited for a synchronous standby during the previous
// read. During that read, the commit was in the WAL, but not visible, so a comparison of WAL positions would never find it.
func TestReadSeesCommitThatWaited(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"autovacuum": "off"}})
	conn := sourcetest.Connect(t, s.URL("postgres"))
	conn.MustExec(sourcetest.Votes)
	writer := sourcetest.Connect(t, s.URL("postgres"))
	if err := s.Reload(t.Context(), map[string]string{"synchronous_standby_names": "nobody"}); err != nil {
		t.Fatal(err)
	}
	r := newReads(t, s.URL("postgres"))
	r.want("the start", "copy")
	written := make(chan error, 1)
	go func() {
		_, err := writer.Exec(context.Background(), "INSERT INTO votes (comment) VALUES ('waits')")
		written <- err
	}()
	sourcetest.WaitFor(t, "the commit waits", func() error {
		var n int
		err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&n)
		if err == nil && n == 0 {
			err = errors.New("nobody waits for a standby")
		}
		return err
	})
	if r.next(); r.table.View().Rows() != 0 {
		t.Fatal("the commit is visible while it waits: the test shows nothing")
	}
	conn.MustExec("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	r.want("the end of the wait", "copy")
	if r.table.View().Rows() != 1 {
		t.Errorf("%d rows", r.table.View().Rows())
	}
}

// TestPollRests checks that the pause after a read is nine times the read's duration, if that is longer than the interval. A
// read that needs only the server's snapshot does not change the pause.
func TestPollRests(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"autovacuum": "off"}})
	conn := sourcetest.Connect(t, s.URL("postgres"))
	conn.MustExec(sourcetest.Votes)
	conn.MustExec("INSERT INTO votes (comment) SELECT repeat('x', 1000) FROM generate_series(1, 5000) i")
	r := newReads(t, s.URL("postgres"))
	r.env.PollInterval = time.Nanosecond
	start := time.Now()
	r.want("the start", "copy")
	took := r.readTook
	if took <= 0 || took > time.Since(start) || r.nextPause() != 9*took {
		t.Errorf("a read that took %s of %s is followed by a pause of %s", took, time.Since(start), r.nextPause())
	}
	r.want("nothing", "snapshot")
	if r.readTook != took {
		t.Errorf("a read that found no change took %s", r.readTook)
	}
	r.env.PollInterval = time.Hour
	if r.nextPause() != time.Hour {
		t.Errorf("the pause is %s", r.nextPause())
	}
}
