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

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/capture/source"
	"capture/internal/guard"
	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/snapshot"
)

// waitFollowedBy waits until capture follows the table with this source, and until the note in the status contains
// noteText. The note explains why no better source is used. If noteText is "", there must be no note.
func (d *daemon) waitFollowedBy(source, noteText string) {
	d.t.Helper()
	eventually(d.t, "followed by "+source, func() error {
		s := d.Status()
		if s.State != stateFollowing || s.Source != source || !strings.Contains(s.SourceNote, noteText) || noteText == "" && s.SourceNote != "" {
			return fmt.Errorf("%s by %s (%s): %s", s.State, s.Source, s.SourceNote, s.Error)
		}
		return nil
	})
	if detail := d.Status().Checks[0].Detail; !strings.Contains(detail, noteText) {
		d.t.Errorf("the check says %q, without %q", detail, noteText)
	}
}

// notLogical returns server settings that rule out logical replication in every version. wal_level must be minimal, because
// PostgreSQL 19 offers logical replication even at wal_level = replica.
func notLogical() map[string]string {
	return map[string]string{"wal_level": "minimal", "max_wal_senders": "0", "max_prepared_transactions": "0"}
}

// setUp runs the statements that `capture setup --source` runs for table votes.
func setUp(t testing.TB, conn *pgx.Conn, source string) {
	t.Helper()
	table, err := postgres.LoadTable(t.Context(), conn, postgres.Name{Table: "votes"})
	if err != nil {
		t.Fatal(err)
	}
	statements, err := postgres.SetupSQL(t.Context(), conn, table, postgres.SetupOptions{Source: source})
	if err == nil {
		err = postgres.ApplyStatements(t.Context(), conn, statements)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// triggerCount returns the number of triggers on table votes.
func triggerCount(t testing.TB, conn *pgx.Conn) int {
	t.Helper()
	return queryOne[int](t, conn, "SELECT count(*)::int FROM pg_trigger WHERE tgrelid = 'votes'::regclass AND NOT tgisinternal")
}

// TestAutoTakesTheBest: without logical replication, capture uses the triggers that `capture setup` has created. Once the
// server has been restarted with logical replication, capture uses the source logical. While the server is down, capture tries
// no other source.
func TestAutoTakesTheBest(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: notLogical()})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	setUp(t, conn, "notify")
	cfg := config(t, s.URL("postgres"))
	cfg.Source = "auto"
	d := start(t, cfg)
	d.waitFollowedBy("notify", "wal_level is minimal")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('a')")
	d.follows(conn, "votes", "vote_id")
	if err := s.Reload(t.Context(), map[string]string{"wal_level": "logical", "max_wal_senders": "5"}); err != nil {
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
	d.waitFollowedBy("logical", "")
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
	d.waitFollowedBy("logical", "")
}

// TestAutoComesBack: while no replication slot is free, capture uses the triggers of the source notify. Once a slot is free,
// capture changes to the better source, logical.
func TestAutoComesBack(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"max_replication_slots": "1", "max_prepared_transactions": "0"}})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	setUp(t, conn, "notify")
	exec(t, conn, "SELECT pg_create_physical_replication_slot('taken')")
	cfg := config(t, s.URL("postgres"))
	cfg.Source, cfg.intervals.probe = "auto", 50*time.Millisecond
	d := start(t, cfg)
	d.waitFollowedBy("notify", "all replication slots are in use")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('a')")
	d.follows(conn, "votes", "vote_id")
	exec(t, conn, "SELECT pg_drop_replication_slot('taken')")
	d.waitFollowedBy("logical", "")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('b')")
	d.follows(conn, "votes", "vote_id")
}

// TestAutoInstallsNoTriggers: `capture run` never creates triggers that nobody asked for, and never repairs the triggers that
// `capture setup` has created. It finds new triggers at the next regular check, although the next probe is an hour away.
func TestAutoInstallsNoTriggers(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: notLogical()})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	cfg := config(t, s.URL("postgres"))
	cfg.Source, cfg.PollInterval, cfg.intervals.setupCheck = "auto", 20*time.Millisecond, 200*time.Millisecond
	d := start(t, cfg)
	d.waitFollowedBy("poll", "capture setup --source notify")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('polled')")
	d.follows(conn, "votes", "vote_id")
	if n := triggerCount(t, conn); n != 0 {
		t.Fatalf("%d triggers that nobody asked for", n)
	}

	setUp(t, conn, "notify")
	d.waitFollowedBy("notify", "wal_level is minimal")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('notified')")
	d.follows(conn, "votes", "vote_id")

	for _, damage := range []string{
		"ALTER TABLE votes DISABLE TRIGGER capture_insert",
		"CREATE OR REPLACE FUNCTION capture_votes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
	} {
		exec(t, conn, damage)
		before := triggerCount(t, conn)
		d.waitFollowedBy("poll", "capture setup --source notify")
		exec(t, conn, "UPDATE votes SET comment = $1", damage)
		d.follows(conn, "votes", "vote_id")
		if n := triggerCount(t, conn); n != before {
			t.Errorf("%s: %d triggers became %d", damage, before, n)
		}
		if _, err := conn.Exec(t.Context(), "DROP FUNCTION IF EXISTS capture_votes CASCADE"); err != nil {
			t.Fatal(err)
		}
		setUp(t, conn, "notify")
		d.waitFollowedBy("notify", "wal_level is minimal")
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}

	exec(t, conn, "DROP FUNCTION capture_votes CASCADE")
	cfg.Source = "notify" // unlike "auto", this makes capture create the triggers
	d = start(t, cfg)
	d.waitFollowedBy("notify", "")
	if n := triggerCount(t, conn); n != 4 {
		t.Errorf("%d triggers by --source notify, want 4", n)
	}
}

// TestAutoFindsPublication: a user who may not create a publication uses the publication that `capture setup` creates. capture
// finds it soon, without waiting for the hourly probe.
func TestAutoFindsPublication(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	cfg := asRole(t, conn, url, "capture_test_found")
	cfg.Source, cfg.PollInterval, cfg.intervals.setupCheck = "auto", time.Hour, 20*time.Millisecond
	d := start(t, cfg)
	d.waitFollowedBy("poll", "CREATE PUBLICATION")
	setUp(t, conn, "logical")
	d.waitFollowedBy("poll", "may not replicate") // capture probed logical at once; now only the right to replicate is missing
	exec(t, conn, "ALTER ROLE capture_test_found REPLICATION")
	d.waitFollowedBy("logical", "")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('a')")
	d.follows(conn, "votes", "vote_id")
}

// TestAutoProbesNoMoreAfterFailedQuery: if capture cannot query what `capture setup` has created, this must not count as a
// change of the setup. capture then makes only the hourly probes, because each probe for the source logical creates a slot.
func TestAutoProbesNoMoreAfterFailedQuery(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	setUp(t, conn, "logical")
	cfg := asRole(t, conn, url, "capture_test_probes")
	cfg.Source, cfg.PollInterval, cfg.intervals.setupCheck = "auto", time.Hour, 20*time.Millisecond
	d := start(t, cfg)
	d.waitFollowedBy("poll", "may not replicate")
	failed := func() int { return d.said("reading what capture setup has created failed") }
	before := failed()
	exec(t, conn, "ALTER ROLE capture_test_probes CONNECTION LIMIT 0") // only new connections fail
	eventually(t, "failed queries for each source", func() error {
		if n := failed() - before; n < 3 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	exec(t, conn, "ALTER ROLE capture_test_probes CONNECTION LIMIT -1")
	restored := queryOne[time.Time](t, conn, "SELECT clock_timestamp()")
	rounds := map[int]bool{}
	eventually(t, "rounds that connect again", func() error {
		const latest = "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE usename = 'capture_test_probes' AND backend_start > $1"
		rounds[queryOne[int](t, conn, latest, restored)] = true
		if len(rounds) < 5 {
			return fmt.Errorf("%d", len(rounds))
		}
		return nil
	})
	if n := d.said("source still unavailable"); n != 0 {
		t.Errorf("%d probes", n)
	}
	exec(t, conn, "ALTER ROLE capture_test_probes REPLICATION") // the next setup check notices the new attribute, so capture probes the source logical at once
	d.waitFollowedBy("logical", "")
}

// TestOutputPluginNotAllowed: minor releases since August 2026 have a setting that lists the allowed output plugins. If
// pgoutput is not in this list, logical replication fails only when a slot is created. The note must name the setting, and
// the probes that fail must not interrupt the source in use.
func TestOutputPluginNotAllowed(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	if !queryOne[bool](t, conn, "SELECT EXISTS (SELECT FROM pg_settings WHERE name = 'output_plugin_libraries')") {
		t.Skip("this server has no setting output_plugin_libraries")
	}
	if err := s.Reload(t.Context(), map[string]string{"output_plugin_libraries": "test_decoding"}); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, votes)
	cfg := config(t, s.URL("postgres"))
	cfg.Source, cfg.PollInterval, cfg.intervals.probe = "auto", 20*time.Millisecond, 20*time.Millisecond
	d := start(t, cfg)
	d.waitFollowedBy("poll", "output_plugin_libraries")
	eventually(t, "ten probes", func() error {
		if n := d.said("source still unavailable"); n < 10 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	if n := d.said("resyncing table"); n != 0 {
		t.Errorf("%d resyncs", n)
	}
	if err := s.Reload(t.Context(), map[string]string{"output_plugin_libraries": "test_decoding, pgoutput"}); err != nil {
		t.Fatal(err)
	}
	d.waitFollowedBy("logical", "")
}

// TestAutoLeavesTwoPhaseCommitsAlone: capture's triggers execute NOTIFY, and Postgres refuses PREPARE TRANSACTION after
// NOTIFY. Therefore auto must create no triggers, so that the application can still prepare a transaction.
func TestAutoLeavesTwoPhaseCommitsAlone(t *testing.T) {
	t.Parallel()
	settings := notLogical()
	settings["max_prepared_transactions"] = "5"
	s := pgserver.ForTest(t, pgserver.Options{Settings: settings})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	cfg := config(t, s.URL("postgres"))
	cfg.Source, cfg.PollInterval = "auto", 20*time.Millisecond
	d := start(t, cfg)
	d.waitFollowedBy("poll", "no triggers of capture")
	exec(t, conn, "BEGIN; INSERT INTO votes (comment) VALUES ('in two phases'); PREPARE TRANSACTION 'p'")
	exec(t, conn, "COMMIT PREPARED 'p'")
	d.follows(conn, "votes", "vote_id")
}

// TestAutoWithoutRights: for a user who may only read the table, capture polls.
func TestAutoWithoutRights(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	cfg := asRole(t, conn, url, "capture_test_auto")
	cfg.Source, cfg.PollInterval = "auto", 20*time.Millisecond
	d := start(t, cfg)
	d.waitFollowedBy("poll", "CREATE PUBLICATION")
	d.waitFollowedBy("poll", "no triggers of capture")
	if note := d.Status().SourceNote; strings.Contains(note, ";;") {
		t.Errorf("the note has two semicolons in a row: %s", note)
	}
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('a')")
	d.follows(conn, "votes", "vote_id")
}

// TestErrorClasses checks which errors mean that a source is unavailable, and which errors mean that the database is
// unavailable.
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

// TestAutoStaysWhereTheDatabaseIsAway: if the database does not answer at all, auto never changes the source. If the server
// closes only replication connections, auto changes the source after maxUnknownFailures attempts.
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
