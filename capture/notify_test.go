package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
	"capture/internal/postgres"
)

func notifying(t *testing.T) (d *daemon, conn *pgx.Conn, url string) {
	t.Helper()
	url = pgserver.Database(t)
	conn = connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (comment) SELECT i FROM generate_series(1, 50) i")
	cfg := config(t, url)
	cfg.Source = "notify"
	d = start(t, cfg)
	d.ready()
	return d, conn, url
}

// TestNotifyFindsBypassedTriggers: capture notices triggers that are disabled or dropped, restores them, and gets the changes
// that the triggers missed. session_replication_role does not bypass the triggers.
func TestNotifyFindsBypassedTriggers(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for regular checks")
	}
	t.Parallel()
	d, conn, _ := notifying(t)
	for _, sql := range []string{
		"SET session_replication_role = replica; UPDATE votes SET comment = 'replica'; RESET session_replication_role",
		"ALTER TABLE votes DISABLE TRIGGER capture_update; UPDATE votes SET comment = 'disabled'",
		"ALTER TABLE votes DISABLE TRIGGER ALL; TRUNCATE votes; INSERT INTO votes (comment) VALUES ('truncated')",
		"DROP FUNCTION capture_votes CASCADE; UPDATE votes SET comment = 'dropped'",
		"UPDATE votes SET comment = 'the triggers are back'",
	} {
		exec(t, conn, sql)
		d.follows(conn, "votes", "vote_id")
	}
	// No check of the triggers finds that the trigger was disabled, because it is disabled only within this transaction. But
	// TRUNCATE gives the table a new relation file, by which capture notices the change.
	exec(t, conn, "BEGIN; ALTER TABLE votes DISABLE TRIGGER capture_truncate; TRUNCATE votes; ALTER TABLE votes ENABLE ALWAYS TRIGGER capture_truncate; COMMIT")
	d.follows(conn, "votes", "vote_id")
}

// TestForgedNotifications: any role that may connect can notify. Malformed keys neither end the source nor make the file differ
// from the table, and requests for whole reads are rate-limited.
func TestForgedNotifications(t *testing.T) {
	if testing.Short() {
		t.Skip("sends many notifications")
	}
	t.Parallel()
	d, conn, _ := notifying(t)
	for _, payload := range []string{`[["abc"]]`, `[[" 7 "]]`, `[["1","2"]]`, `[[]]`, `[`, `{}`, `null`, `[["\\u0000"]]`, `[["99999999999999999999"]]`, `[[null]]`, `[[7]]`} {
		exec(t, conn, "SELECT pg_notify('capture_votes', $1)", payload)
		exec(t, conn, "UPDATE votes SET comment = comment || 'x' WHERE vote_id = 7")
		d.flushAndCompare(conn, "votes", "vote_id")
	}
	if n := strings.Count(d.log.String(), "not following"); n > 0 {
		t.Errorf("the source ended %d times", n)
	}
	before := strings.Count(d.log.String(), `"@message":"copied"`)
	start := time.Now()
	for time.Since(start) < 8*time.Second {
		exec(t, conn, "NOTIFY capture_votes, '*'")
		time.Sleep(50 * time.Millisecond)
	}
	if n := strings.Count(d.log.String(), `"@message":"copied"`) - before; n < 1 || n > 5 {
		t.Errorf("%d copies in 8 s", n)
	}
	exec(t, conn, "UPDATE votes SET comment = 'last'")
	d.flushAndCompare(conn, "votes", "vote_id")
}

// TestNotifyBarrierChecksTriggers: a forced snapshot includes changes that a disabled trigger did not report.
func TestNotifyBarrierChecksTriggers(t *testing.T) {
	t.Parallel()
	d, conn, _ := notifying(t)
	for range 3 {
		exec(t, conn, "ALTER TABLE votes DISABLE TRIGGER capture_update; UPDATE votes SET comment = comment || 'x'")
		d.flushAndCompare(conn, "votes", "vote_id")
	}
}

// TestNotifyKeys checks that the notify source reads rows by keys of many types. If a key does not fit into a notification,
// the source reads the whole table.
func TestNotifyKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("sends many notifications")
	}
	t.Parallel()
	cases := []struct{ name, table, order, insert string }{
		{"text", "id text", `id COLLATE "C"`, `('a"b\c'), (''), ('{},'), (E'new\nline'), ('é☃'), ('NULL'), (repeat('k', 2600)), (repeat('ü', 1300)), (' x '), (E'\x01\x7f')`},
		{"two", "a int, b text, id int", `a, b COLLATE "C"`, "(1, 'b', 1), (1, 'a', 2), (-1, '', 3), (2147483647, 'x,y', 4)"},
		{"numeric", "id numeric", "id", "(1.0), (2.00), (-3), ('NaN'), (1e30)"},
		{"float", "id float8", "id", "(0.1), (1e-320), ('Infinity'), (-0.3333333333333333)"},
		{"timestamptz", "id timestamptz", "id", "('2024-01-02 03:04:05.678+05:30'), ('infinity'), ('0044-03-15 BC')"},
		{"interval", "id interval", "id", "('1 mon -2 days 03:04:05'), ('0')"},
		{"bytea", `id bytea`, "id", `('\x00ff'), ('')`},
		{"uuid", "id uuid", "id", "('8f14e45f-ceea-467f-a8d4-5e9c1f3d0a11')"},
		{"char", "id char(5)", `id COLLATE "C"`, "('a'), ('bcdef'), ('')"},
		{"bool", "id bool", "id", "(true), (false)"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			conn := connect(t, url)
			key := "id"
			if c.name == "two" {
				key = "a, b"
			}
			exec(t, conn, "CREATE TABLE t ("+c.table+", n int, PRIMARY KEY ("+key+"))")
			cfg := config(t, url)
			cfg.Source, cfg.Table = "notify", postgres.Name{Table: "t"}
			d := start(t, cfg)
			d.ready()
			writer := connect(t, url)
			exec(t, writer, "SET DateStyle = 'German'; SET TimeZone = 'Asia/Kolkata'; SET extra_float_digits = 0; SET bytea_output = 'escape'; SET IntervalStyle = 'iso_8601'")
			for _, sql := range []string{
				"INSERT INTO t VALUES " + c.insert, "UPDATE t SET n = 1", "DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t)", "DELETE FROM t",
			} {
				exec(t, writer, sql)
				d.flushAndCompare(conn, "t", c.order)
			}
		})
	}
}

// TestNotifyEqualKeysThatReadDifferently: for Postgres, 1.0 and 1.00 are equal keys, but their JSON differs. The file always
// contains only the current key.
func TestNotifyEqualKeysThatReadDifferently(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, "CREATE TABLE t (id numeric PRIMARY KEY, n int)")
	exec(t, conn, "INSERT INTO t VALUES (1.0, 1), (2, 2)")
	cfg := config(t, url)
	cfg.Source, cfg.Table = "notify", postgres.Name{Table: "t"}
	d := start(t, cfg)
	d.ready()
	for _, sql := range []string{
		"UPDATE t SET id = 1.00 WHERE id = 1", "UPDATE t SET id = 1.000, n = 5 WHERE id = 1",
		"BEGIN; DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 9); COMMIT", "DELETE FROM t WHERE id = 1.0000",
	} {
		exec(t, conn, sql)
		d.flushAndCompare(conn, "t", "id")
	}
}

// TestNotifyWithoutPrivilege: capture may not create the missing triggers. Status has the statements that create them, and
// capture follows once somebody else has run these statements.
func TestNotifyWithoutPrivilege(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	cfg := asRole(t, conn, url, "capture_test_notify")
	cfg.Source = "notify"
	d := start(t, cfg)
	eventually(t, "the missing privilege is reported", func() error { return says(d, "CREATE TRIGGER") })
	setUp(t, conn, "notify")
	d.ready()
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('x')")
	d.follows(conn, "votes", "vote_id")
}

// TestNotifyAfterHardening: the triggers use rights that an administrator revokes from all roles, capture's own role included.
// The application's writes succeed, a forced snapshot includes them, and capture reports that notifications are lost.
func TestNotifyAfterHardening(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for checks of the triggers")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "GRANT ALL ON votes TO pg_monitor; GRANT USAGE ON SEQUENCE votes_vote_id_seq TO pg_monitor")
	cfg := asRole(t, conn, url, "capture_test_hardening")
	setUp(t, conn, "notify")
	cfg.Source, cfg.timeouts.Marker = "notify", patience // the timeout is long, because markers are late on a busy machine
	d := start(t, cfg)
	d.ready()
	write := func() {
		t.Helper()
		exec(t, conn, "SET ROLE pg_monitor; INSERT INTO votes (comment) VALUES ('x'); UPDATE votes SET comment = comment || 'y'; RESET ROLE")
	}

	exec(t, conn, "REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC")
	write()
	d.follows(conn, "votes", "vote_id")
	write()
	d.flushAndCompare(conn, "votes", "vote_id")
	if strings.Contains(d.log.String(), "marker did not come back") {
		t.Error("capture could not send a marker")
	}

	exec(t, conn, "REVOKE EXECUTE ON FUNCTION pg_notification_queue_usage() FROM PUBLIC")
	for range 3 {
		write()
		d.flushAndCompare(conn, "votes", "vote_id")
	}
	eventually(t, "the loss is reported", func() error { return says(d, "pg_notification_queue_usage") })
	write()
	d.follows(conn, "votes", "vote_id")

	exec(t, conn, "GRANT EXECUTE ON FUNCTION pg_notify(text, text), pg_notification_queue_usage() TO PUBLIC")
	eventually(t, "the loss has ended", func() error {
		if says(d, "pg_notification_queue_usage") == nil {
			return errors.New("it is still reported")
		}
		return nil
	})
	write()
	d.follows(conn, "votes", "vote_id")
	if n := strings.Count(d.log.String(), "not following"); n > 0 {
		t.Errorf("the source ended %d times", n)
	}
}

// TestFullReadsLeavePauses: markers are always late, as on a server that has a lot to do, so each round reads the whole
// table. After each read, capture pauses for at least as long as the read took.
func TestFullReadsLeavePauses(t *testing.T) {
	if testing.Short() {
		t.Skip("reads a slow table several times")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn, writer := connect(t, url), connect(t, url)
	exec(t, conn, `CREATE TYPE slow AS ENUM ('a'); CREATE FUNCTION slow_json(slow) RETURNS json LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.02); RETURN 1; END';
		CREATE CAST (slow AS json) WITH FUNCTION slow_json(slow); CREATE TABLE votes (vote_id int PRIMARY KEY, n int, s slow);
		INSERT INTO votes SELECT i, 0, 'a' FROM generate_series(1, 20) i`)
	cfg := config(t, url)
	cfg.Source, cfg.timeouts.Marker = "notify", time.Nanosecond
	d := start(t, cfg)
	d.ready()
	eventually(t, "four reads of the whole table", func() error {
		exec(t, writer, "UPDATE votes SET n = n + 1 WHERE vote_id = 1")
		if n := len(d.loggedReads()); n < 5 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	type read struct {
		End time.Time `json:"@timestamp"`
		Ms  float64
	}
	var reads []read
	for line := range strings.Lines(d.log.String()) {
		if strings.Contains(line, `"@message":"copied"`) {
			var r read
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			reads = append(reads, r)
		}
	}
	for i := 2; i < len(reads); i++ { // the first read is the copy at the start, which no pause follows
		took := time.Duration(reads[i-1].Ms * float64(time.Millisecond))
		pause := reads[i].End.Sub(reads[i-1].End) - time.Duration(reads[i].Ms*float64(time.Millisecond))
		if pause < took {
			t.Errorf("a pause of %s follows a read that took %s", pause, took)
		}
	}
}

// TestNotifyReportsNewReasonOfLoss: notifications are lost because the queue is too full, then because PUBLIC may not query the
// queue's usage, then because the queue is too full again. The status always has the current reason.
func TestNotifyReportsNewReasonOfLoss(t *testing.T) {
	if pgserver.Shared(t).VersionNum() < 170000 {
		t.Skip("the size of the queue is a setting since PostgreSQL 17; before, it is 8 GB")
	}
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"max_notify_queue_pages": "64"}})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	cfg := config(t, s.URL("postgres"))
	cfg.Source, cfg.timeouts.Check = "notify", 100*time.Millisecond
	d := start(t, cfg)
	d.ready()
	listener := connect(t, s.URL("postgres"))
	exec(t, listener, "LISTEN other")
	exec(t, listener, "BEGIN") // a session in a transaction reads no notifications, so the queue fills
	exec(t, conn, "SELECT pg_notify('other', i || repeat('x', 7000)) FROM generate_series(1, 25) i")
	for _, c := range []struct{ change, reason string }{
		{"SELECT", "% full"},
		{"REVOKE EXECUTE ON FUNCTION pg_notification_queue_usage() FROM PUBLIC", "PUBLIC lacks EXECUTE"},
		{"GRANT EXECUTE ON FUNCTION pg_notification_queue_usage() TO PUBLIC", "% full"},
	} {
		exec(t, conn, c.change)
		eventually(t, c.reason, func() error { return says(d, c.reason) })
	}
}

// TestSourcesRefuseRowSecurity: if policies hide rows, no source captures the rest as if it were the whole table.
func TestSourcesRefuseRowSecurity(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('hidden')")
	cfg := asRole(t, conn, url, "capture_test_policies")
	exec(t, conn, "ALTER TABLE votes ENABLE ROW LEVEL SECURITY")
	cfg.Source, cfg.PollInterval = "auto", time.Hour // no regular read is due, so only d.Snapshot below can notice that row-level security was enabled
	d := start(t, cfg)
	eventually(t, "the policies are reported", func() error { return says(d, "row-level security") })
	exec(t, conn, "ALTER TABLE votes DISABLE ROW LEVEL SECURITY")
	d.ready()
	// capture must also refuse the table if row-level security is enabled while capture follows the table.
	exec(t, conn, "ALTER TABLE votes ENABLE ROW LEVEL SECURITY")
	if _, err := d.Snapshot(t.Context()); err == nil || !strings.Contains(err.Error(), "row") {
		t.Errorf("a snapshot says %v", err)
	}
}

// says returns nil if the status contains the given words, and otherwise an error.
func says(d *daemon, words string) error {
	s := d.Status()
	if text := fmt.Sprint(s.Error, s.Checks, s.SourceNote); !strings.Contains(text, words) {
		return errors.New(text)
	}
	return nil
}

// asRole returns a configuration for a new role that may only read the table. The role is dropped when the test ends.
func asRole(t *testing.T, conn *pgx.Conn, url, role string) Config {
	t.Helper()
	exec(t, conn, "DROP ROLE IF EXISTS "+role)
	exec(t, conn, "CREATE ROLE "+role+" LOGIN")
	exec(t, conn, "GRANT SELECT ON votes TO "+role)
	t.Cleanup(func() {
		for _, sql := range []string{"DROP OWNED BY " + role, "DROP ROLE " + role} {
			if _, err := conn.Exec(context.Background(), sql); err != nil {
				t.Error(err)
			}
		}
	})
	cfg := config(t, url)
	cfg.Database.User = role
	return cfg
}
