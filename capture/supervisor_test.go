package capture

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"capture/capture/source"
	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/snapshot"
)

// check returns the check with this name from the daemon's status, and reports whether there is one.
func (d *daemon) check(name string) (Check, bool) {
	for _, c := range d.Status().Checks {
		if c.Name == name {
			return c, true
		}
	}
	return Check{}, false
}

// TestFailedCheckEndsWithItsSource checks that the condition of a failed check ends when the next source starts. The server
// ends the connection for queries and refuses new ones, so the regular check fails while the stream continues.
func TestFailedCheckEndsWithItsSource(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 10)
	exec(t, conn, "CREATE ROLE follower LOGIN REPLICATION; GRANT SELECT ON votes TO follower; CREATE PUBLICATION capture_votes FOR TABLE votes")
	admit := func(method string) {
		t.Helper()
		if err := s.WriteFile("pg_hba.conf", []byte("host all postgres all trust\nhost all follower all "+method+"\n")); err != nil {
			t.Fatal(err)
		}
		if err := s.Reload(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	admit("trust")
	d := start(t, config(t, strings.Replace(s.URL("postgres"), "postgres@", "follower@", 1)))
	d.ready()

	admit("reject")
	exec(t, conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'follower' AND backend_type = 'client backend'")
	eventually(t, "the check fails while the stream goes on", func() error {
		if _, ok := d.check("checks"); !ok || d.Status().State != stateFollowing {
			return fmt.Errorf("%s: %+v", d.Status().State, d.Status().Checks)
		}
		return nil
	})
	exec(t, conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'follower'")
	d.notReady("admits this user")
	admit("trust")
	d.ready()
	if c, ok := d.check("checks"); ok {
		t.Errorf("the new source has the old one's condition: %+v", c)
	}
}

// TestRetainedWALEndsWithItsSource checks that the status reports no retained WAL after `--source auto` has replaced
// logical, which has a slot, by notify, which has no slot.
func TestRetainedWALEndsWithItsSource(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"max_prepared_transactions": "0"}})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	setUp(t, conn, "notify")
	cfg := config(t, s.URL("postgres"))
	cfg.Source = "auto"
	d := start(t, cfg)
	d.waitFollowedBy("logical", "")
	holder := connect(t, s.URL("postgres"))
	exec(t, holder, "BEGIN; INSERT INTO votes (comment) VALUES ('open')") // as long as this transaction is open, the slot retains WAL
	exec(t, conn, "CREATE TABLE noise AS SELECT repeat(md5(i::text), 30) FROM generate_series(1, 3000) i")
	eventually(t, "the slot retains WAL", func() error {
		if n := d.Status().RetainedWAL; n < 1<<20 {
			return fmt.Errorf("%d bytes", n)
		}
		return nil
	})
	if err := s.Reload(t.Context(), notLogical()); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop("immediate"); err != nil {
		t.Fatal(err)
	}
	if err := s.StartAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.waitFollowedBy("notify", "wal_level is minimal")
	if n := d.Status().RetainedWAL; n != 0 {
		t.Errorf("%d bytes of WAL are reported as retained, without a slot", n)
	}
}

// TestReportsEndWithTheirSource checks that the report does not contain the conditions, the retained WAL and the blocked copy of
// a source that has ended. The number of copies in the report includes the copies of earlier sources.
func TestReportsEndWithTheirSource(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	s := newSupervisor(&cfg, snapshot.NewTable(), nil)
	begin := func(kind string) *attempt {
		a := &attempt{progress: source.NewProgress(kind, nil), done: make(chan struct{})}
		s.update(func() { s.attempt = a })
		return a
	}
	first := begin("notify")
	first.progress.SetFollowing(&postgres.ReadClock{})
	first.progress.SetCondition("notifications", "the queue is full")
	first.progress.SetRetainedWAL(1 << 30)
	first.progress.SetBlocked("a transaction is open")
	first.progress.RecordRead(source.TableRead{Ended: time.Now(), Took: time.Second, WholeBecause: "test"})
	if r := s.report(); r.Conditions["notifications"] == "" || r.RetainedWAL == 0 || r.Blocked == "" {
		t.Fatalf("the report lacks what the source reports: %+v", r)
	}
	s.endAttempt(first)
	for what, r := range map[string]followReport{"between two sources": s.report(), "by the second source": func() followReport {
		begin("logical").progress.RecordRead(source.TableRead{Ended: time.Now(), Took: time.Minute, WholeBecause: "test"})
		return s.report()
	}()} {
		if len(r.Conditions) != 0 || r.RetainedWAL != 0 || r.Blocked != "" || !r.FollowingSince.IsZero() {
			t.Errorf("%s, what the first one reported is left: %+v", what, r)
		}
	}
	if r := s.report(); r.Source != "logical" || r.Counters.Copies != 2 || r.CopyTook != time.Minute {
		t.Errorf("source %q, %d copies, the last of %s; want logical, 2, 1m0s", r.Source, r.Counters.Copies, r.CopyTook)
	}
}

// TestStatusNamesAnsweringHost: if the database URL contains several hosts, the status shows all of them until one answers.
// After that, the status shows only this host. Neither the status nor the log contains the password.
func TestStatusNamesAnsweringHost(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	for _, kind := range []string{"logical", "poll"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, url)
			port, database := cfg.Database.Port, cfg.Database.Database
			several, err := postgres.ParseConfig(fmt.Sprintf("postgres://postgres:hunter2@127.0.0.9:1,localhost:%d/%s?sslmode=disable", port, database))
			if err != nil {
				t.Fatal(err)
			}
			cfg.Database, cfg.Source = several, kind
			if got, want := newBaseStatus(&cfg).Database, fmt.Sprintf("127.0.0.9:1,localhost:%d/%s", port, database); got != want {
				t.Errorf("before: %s, want %s", got, want)
			}
			d := start(t, cfg)
			d.ready()
			if got, want := d.Status().Database, fmt.Sprintf("localhost:%d/%s", port, database); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			if log := d.log.String(); !strings.Contains(log, fmt.Sprintf("%q:\"localhost:%d", "server", port)) || strings.Contains(log, "hunter2") {
				t.Error(log)
			}
		})
	}
}

// TestPublicationConditionEndsWithNextCopy: if an attempt leaves a publication that makes the application's writes fail, the
// status shows a condition. It shows the condition even while the next source connects, and until this source begins to copy
// the table. Before the copy, the source looks for such publications itself. From then on, its own conditions count.
func TestPublicationConditionEndsWithNextCopy(t *testing.T) {
	t.Parallel()
	progress := source.NewProgress("logical", nil)
	s := &supervisor{publication: "the application's UPDATE fails"}
	shown := func() bool { return s.report().Conditions[source.PublicationCondition] != "" }
	if !shown() {
		t.Error("not shown after the attempt that found it")
	}
	s.attempt = &attempt{progress: progress}
	if !shown() {
		t.Error("not shown while the next source connects")
	}
	progress.SetCopying()
	if shown() {
		t.Error("shown while the next source copies")
	}
	progress.SetCondition(source.PublicationCondition, "another one")
	if !shown() {
		t.Error("what the source reports is not shown")
	}
}
