package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"capture/capture/source"
	"capture/internal/guard"
	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/snapshot"
)

// by waits until the table is followed by a source, with words in the note on why it is no better one.
func (d *daemon) by(source, words string) {
	d.t.Helper()
	eventually(d.t, "followed by "+source, func() error {
		s := d.Status()
		if s.State != stateFollowing || s.Source != source || !strings.Contains(s.SourceNote, words) || words == "" && s.SourceNote != "" {
			return fmt.Errorf("%s by %s (%s): %s", s.State, s.Source, s.SourceNote, s.Error)
		}
		return nil
	})
	if detail := d.Status().Checks[0].Detail; !strings.Contains(detail, words) {
		d.t.Errorf("the check says %q, without %q", detail, words)
	}
}

// TestAutoTakesTheBest: a database without wal_level=logical is followed by notifications, and by the stream as soon as
// it has been restarted with it. While it is away no other source is tried.
func TestAutoTakesTheBest(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"wal_level": "replica", "max_prepared_transactions": "0"}})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	cfg := config(t, s.URL("postgres"))
	cfg.Source = "auto"
	d := start(t, cfg)
	d.by("notify", "wal_level is replica")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('a')")
	d.follows(conn, "votes", "vote_id")
	if err := s.Reload(t.Context(), map[string]string{"wal_level": "logical"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop("fast"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "word that the server is away", func() error {
		if s := d.Status(); s.Error == "" || s.Attempts < 2 {
			return fmt.Errorf("%s: %s", s.State, s.Error)
		}
		return nil
	})
	if err := s.StartAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.by("logical", "")
	conn = connect(t, s.URL("postgres"))
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('b')")
	d.follows(conn, "votes", "vote_id")
	if n := strings.Count(d.log.String(), "preferred source unavailable"); n != 1 {
		t.Errorf("%d log lines that a better source is unavailable, want one", n)
	}
	if err := s.Stop("immediate"); err != nil {
		t.Fatal(err)
	}
	if err := s.StartAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.by("logical", "")
}

// TestAutoComesBack: with no free slot the next source follows meanwhile, and the better one when a slot is free.
func TestAutoComesBack(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"max_replication_slots": "1", "max_prepared_transactions": "0"}})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	exec(t, conn, "SELECT pg_create_physical_replication_slot('taken')")
	cfg := config(t, s.URL("postgres"))
	cfg.Source, cfg.intervals.probe = "auto", 50*time.Millisecond
	d := start(t, cfg)
	d.by("notify", "all replication slots are in use")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('a')")
	d.follows(conn, "votes", "vote_id")
	exec(t, conn, "SELECT pg_drop_replication_slot('taken')")
	d.by("logical", "")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('b')")
	d.follows(conn, "votes", "vote_id")
}

// TestAutoLeavesTwoPhaseCommitsAlone: triggers that notify would make PREPARE TRANSACTION fail.
func TestAutoLeavesTwoPhaseCommitsAlone(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"wal_level": "replica", "max_prepared_transactions": "5"}})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	cfg := config(t, s.URL("postgres"))
	cfg.Source, cfg.PollInterval = "auto", 20*time.Millisecond
	d := start(t, cfg)
	d.by("poll", "max_prepared_transactions")
	exec(t, conn, "BEGIN; INSERT INTO votes (comment) VALUES ('in two phases'); PREPARE TRANSACTION 'p'")
	exec(t, conn, "COMMIT PREPARED 'p'")
	d.follows(conn, "votes", "vote_id")
}

// TestAutoWithoutRights: a user who may read the table and no more is served by polling.
func TestAutoWithoutRights(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	cfg := asRole(t, conn, url, "capture_test_auto")
	cfg.Source, cfg.PollInterval = "auto", 20*time.Millisecond
	d := start(t, cfg)
	d.by("poll", "CREATE PUBLICATION")
	d.by("poll", "no triggers of capture")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('a')")
	d.follows(conn, "votes", "vote_id")
}

// TestErrorClasses checks which errors mean that a source is unavailable, and which that the database is.
func TestErrorClasses(t *testing.T) {
	server := func(code string) error { return fmt.Errorf("do: %w", &pgconn.PgError{Code: code}) }
	for _, c := range []struct {
		name string
		err  error
		want postgres.ErrorClass
	}{
		{"found by looking", fmt.Errorf("x: %w", &postgres.Problem{Summary: "wal_level is replica"}), postgres.Permanent},
		{"no right", server("42501"), postgres.Permanent},
		{"no right, explained", postgres.Explain(server("42501")), postgres.Permanent},
		{"pg_hba has no line for replication", server("28000"), postgres.Permanent},
		{"a pooler's refusal", server("08P01"), postgres.Permanent},
		{"no plugin", server("58P01"), postgres.Permanent},
		{"no slot", postgres.Explain(server("53400")), postgres.Transient},
		{"no sender", server("53300"), postgres.Transient},
		{"a lock is held", server("55P03"), postgres.Transient},
		{"hangs up", postgres.Explain(fmt.Errorf("connect: %w", io.ErrUnexpectedEOF)), postgres.Unknown},
		{"refused", &net.OpError{Op: "dial", Err: errors.New("connection refused")}, postgres.Unknown},
		{"starting", server("57P03"), postgres.Unreachable},
		{"stopping", postgres.Explain(server("57P01")), postgres.Unreachable},
		{"connection failure", server("08006"), postgres.Unreachable},
		{"disk full", server("53100"), postgres.Unreachable},
		{"no such database", server("3D000"), postgres.Unreachable},
		{"a resync", fmt.Errorf("x: %w", &source.ResyncError{Reason: "y"}), postgres.Unreachable},
		{"a fault of ours", &guard.PanicError{Task: "x", Value: "y"}, postgres.Unreachable},
		{"ended", nil, postgres.Unreachable},
	} {
		if got := classify(c.err); got != c.want {
			t.Errorf("%s: class %d, want %d", c.name, got, c.want)
		}
	}
}

// TestAutoStaysWhereTheDatabaseIsAway: no answer at all is no reason for another source, however often; hanging up on
// replication alone is one, after some patience.
func TestAutoStaysWhereTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	cut := postgres.Explain(fmt.Errorf("connect for replication: %w", io.ErrUnexpectedEOF))
	there := config(t, pgserver.Database(t))
	nowhere := there
	nowhere.Database = there.Database.Copy()
	nowhere.Database.Port = 1
	a := newAutoSource(newSupervisor(&nowhere, snapshot.NewTable(), nil))
	for range 2 * maxUnknownFailures {
		if _, ok := a.checkUnavailable(context.Background(), "logical", cut); ok {
			t.Fatal("another source is tried while the database is away")
		}
	}
	a = newAutoSource(newSupervisor(&there, snapshot.NewTable(), nil))
	for i := range maxUnknownFailures {
		if _, ok := a.checkUnavailable(context.Background(), "logical", cut); ok != (i == maxUnknownFailures-1) {
			t.Errorf("attempt %d: another source is tried: %v", i+1, ok)
		}
	}
}
