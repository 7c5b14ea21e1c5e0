package capture

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
	"capture/internal/postgres"
)

// TestCopyOverSeveralConnections copies tables in many ranges over several connections. Each row arrives once, even if the rows
// are not stored in the order of their keys, have gaps between them, or are in partitions. All sources read in the same way, so
// notify and poll copy only the two hardest tables.
func TestCopyOverSeveralConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("copies large tables")
	}
	const wide = "id int PRIMARY KEY, s text"
	for _, c := range []struct{ name, setup string }{
		{"in order", "CREATE TABLE t (" + wide + "); INSERT INTO t SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 1200) i"},
		{"in reverse", "CREATE TABLE t (" + wide + "); INSERT INTO t SELECT 1200 - i, repeat(md5(i::text), 10) FROM generate_series(1, 1200) i"},
		{"at random, with gaps", "CREATE TABLE t (" + wide + `) WITH (autovacuum_enabled = off);
			INSERT INTO t SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 1600) i ORDER BY md5(i::text);
			UPDATE t SET s = s || 'more' WHERE id % 3 = 0; DELETE FROM t WHERE id BETWEEN 400 AND 1000`},
		{"long values elsewhere", "CREATE TABLE t (" + wide + "); ALTER TABLE t ALTER s SET STORAGE EXTERNAL; INSERT INTO t SELECT i, repeat(md5(i::text), 200) FROM generate_series(1, 200) i"},
		{"partitions", "CREATE TABLE t (" + wide + `) PARTITION BY RANGE (id);
			CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100); CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (100) TO (1200) PARTITION BY HASH (id);
			CREATE TABLE t_2_0 PARTITION OF t_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE t_2_1 PARTITION OF t_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
			CREATE TABLE t_3 PARTITION OF t DEFAULT; INSERT INTO t SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 1600) i`},
		{"one page", "CREATE TABLE t (" + wide + "); INSERT INTO t VALUES (1, 'a')"},
		{"empty", "CREATE TABLE t (" + wide + ")"},
	} {
		for _, source := range sourceKinds {
			if source != "logical" && c.name != "at random, with gaps" && c.name != "partitions" {
				continue
			}
			t.Run(c.name+" by "+source, func(t *testing.T) {
				t.Parallel()
				url := pgserver.Database(t)
				conn := connect(t, url)
				if _, err := conn.PgConn().Exec(t.Context(), c.setup).ReadAll(); err != nil {
					t.Fatal(err)
				}
				cfg := config(t, url)
				cfg.Table, cfg.Source = postgres.Name{Table: "t"}, source
				cfg.copying.Connections, cfg.copying.RangeBytes = 3, 16<<10
				cfg.pageBytes, cfg.copying.WriteAheadBytes = 4<<10, 4<<10
				d := start(t, cfg)
				d.ready()
				d.flushAndCompare(conn, "t", "id")
				exec(t, conn, "UPDATE t SET s = 'short' WHERE id % 2 = 0")
				exec(t, conn, "INSERT INTO t SELECT i, 'new' FROM generate_series(5000, 5100) i")
				d.flushAndCompare(conn, "t", "id")
			})
		}
	}
}

// needSeveralConnections skips the test if the server's version rules out a copy over several connections.
func needSeveralConnections(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	if major(conn) < 14 {
		t.Skip("PostgreSQL 14 introduced the scan of a range of pages")
	}
}

// TestCopyOverSeveralConnectionsUnderLoad: the test writes rows during the copy. No row is lost or doubled between the copy
// and the stream.
func TestCopyOverSeveralConnectionsUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("copies a large table")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	needSeveralConnections(t, conn)
	table(t, conn, 1500)
	stop := startLoad(t, url, 3)
	several := 0
	for range 3 {
		cfg := config(t, url)
		cfg.copying.Connections, cfg.copying.RangeBytes, cfg.timeouts.RowCount = 4, 32<<10, 50*time.Millisecond
		cfg.copying.WriteAheadBytes = 8 << 10
		cfg.CopyRate = 500_000 // so slow that other connections start before the first connection has read everything
		d := start(t, cfg)
		d.ready()
		if regexp.MustCompile(`"@message":"copied".*"jobs":[234]`).MatchString(d.log.String()) {
			several++
		}
		if err := d.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if several == 0 {
		t.Error("it was never read over several connections")
	}
	cfg := config(t, url)
	cfg.copying.Connections, cfg.copying.RangeBytes = 4, 32<<10
	d := start(t, cfg)
	d.ready()
	stop()
	d.flushAndCompare(conn, "votes", "vote_id")
	if n := d.said("copied"); n != 1 {
		t.Errorf("copied %d times, want once: the comparison is of the stream", n)
	}
}

// TestCopyWithFewerConnections: the role may not open as many connections as the copy wants. The copy continues with the
// connections that it has, and logs once that it wants more.
func TestCopyWithFewerConnections(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	url := s.URL("postgres")
	conn := connect(t, url)
	needSeveralConnections(t, conn)
	bigTable(t, conn)
	exec(t, conn, "CREATE PUBLICATION capture_votes FOR TABLE votes")
	exec(t, conn, "CREATE ROLE reader LOGIN REPLICATION CONNECTION LIMIT 5; GRANT SELECT ON votes TO reader")
	cfg := slowly(t, strings.Replace(url, "postgres@", "reader@", 1))
	cfg.copying.Connections, cfg.copying.RangeBytes = 6, 16<<10
	d := start(t, cfg)
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
	if n := d.said("the server has no room for another connection of the copy"); n != 1 {
		t.Errorf("the lack of connections was logged %d times", n)
	}
	if !regexp.MustCompile(`"jobs":[34]`).MatchString(d.log.String()) { // of the five connections, one watches the copy, and the slot may need another one; three or four remain
		t.Error("it did not use the connections that it has")
	}
	if n := d.said("not following"); n != 0 {
		t.Errorf("it failed %d times", n)
	}
}

// TestCopyOverSeveralConnectionsGivesWay: all of the copy's connections end if the application alters the table, and also if
// one of the connections fails. A later copy succeeds.
func TestCopyOverSeveralConnectionsGivesWay(t *testing.T) {
	t.Parallel()
	url := pgserver.ForTest(t, pgserver.Options{}).URL("postgres") // on a shared server, transactions of other tests would delay the slot, and capture would first read the table without a slot
	conn, other := connect(t, url), connect(t, url)
	needSeveralConnections(t, conn)
	bigTable(t, conn)
	cfg := slowly(t, url)
	cfg.copying.Connections, cfg.copying.RangeBytes = 3, 16<<10
	d := start(t, cfg)
	copying(t, conn, 3)
	wantWithin(t, 3*time.Second, "the application's ALTER TABLE", func() { exec(t, other, "ALTER TABLE votes ADD extra int") })
	eventually(t, "the log says that the copy gave way", func() error {
		if !strings.Contains(d.log.String(), "gave way to a session that waits for the table") {
			return errors.New("not yet")
		}
		return nil
	})
	copying(t, conn, 3)
	exec(t, conn, "SELECT pg_terminate_backend(max(pid)) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY %'")
	eventually(t, "the copy has failed", func() error {
		if !strings.Contains(d.log.String(), "terminating connection") {
			return errors.New("not yet")
		}
		return nil
	})
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
}

// TestFrozenGivesWay: a process is suspended (SIGSTOP) during its copy, while it holds a lock on the table. The server ends the
// sessions of the process, so the application's ALTER TABLE succeeds. When the process continues, it copies the table again.
func TestFrozenGivesWay(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a timeout")
	}
	t.Parallel()
	for _, connections := range []string{"1", "3"} {
		t.Run(connections+" connections", func(t *testing.T) {
			t.Parallel()
			s := pgserver.ForTest(t, pgserver.Options{})
			url := s.URL("postgres")
			conn := connect(t, url)
			bigTable(t, conn)
			path := filepath.Join(t.TempDir(), "feedback.json")
			c := startChild(t, url, path, "CAPTURE_TEST_CHILD_RATE=2000000", "CAPTURE_TEST_CHILD_CONNECTIONS="+connections, "CAPTURE_TEST_FROZEN_AFTER=2s")
			copying(t, conn, 1)
			// Wait until each session that has locked the table runs its COPY. The server would end an earlier session only after
			// lockIdleTimeout, which is too late for this test.
			eventually(t, "all sessions with a lock copy", func() error {
				const preparing = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.relation = 'votes'::regclass AND a.query NOT LIKE 'COPY %'"
				if n := queryOne[int](t, conn, preparing); n > 0 {
					return fmt.Errorf("%d do not yet", n)
				}
				return nil
			})
			if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			if n := queryOne[int](t, conn, "SELECT count(*) FROM pg_locks WHERE relation = 'votes'::regclass"); n == 0 {
				t.Fatal("the copy was over before it was stopped")
			}
			wantWithin(t, patience/2, "the application's ALTER TABLE", func() { exec(t, conn, "ALTER TABLE votes ADD extra int") })
			if err := c.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			c.says("ready")
			c.stop()
			sameFile(t, path, oracle(t, conn, "votes", "vote_id"))
		})
	}
}

// TestStatusOfRunningCopy: for each source, the status of a running copy shows how far the copy is.
func TestStatusOfRunningCopy(t *testing.T) {
	if testing.Short() {
		t.Skip("copies slowly")
	}
	t.Parallel()
	for _, source := range []string{"logical", "notify", "poll"} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			conn := connect(t, url)
			table(t, conn, 3000)
			exec(t, conn, "ANALYZE votes")
			cfg := config(t, url)
			cfg.Source, cfg.CopyRate = source, 100_000 // the copy takes longer than the test
			d := start(t, cfg)
			eventually(t, "the progress of the copy", func() error {
				st := d.Status()
				if st.State != stateCopying || st.Reading == nil || st.Reading.Rows == 0 || st.Reading.Bytes == 0 || st.Reading.TotalRows != 3000 {
					return fmt.Errorf("%s, %+v", st.State, st.Reading)
				}
				return failing(st.Checks, "copying: ", " of about 3000 rows")
			})
		})
	}
}

func TestReadingText(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		r    ReadingStatus
		want string
	}{
		{ReadingStatus{Began: now}, "0 rows"},
		{ReadingStatus{Began: now.Add(-time.Minute), TotalRows: 100}, "0 of about 100 rows"},
		{ReadingStatus{Began: now.Add(-4 * time.Second), Rows: 20, TotalRows: 100}, "20 of about 100 rows, 5 rows/s, 16s left"},
		{ReadingStatus{Began: now.Add(-4 * time.Second), Rows: 120, TotalRows: 100}, "120 of about 100 rows, 30 rows/s"}, // the statistics are outdated, so the remaining time is unknown
		{ReadingStatus{Began: now.Add(-4 * time.Second), Rows: 20}, "20 rows, 5 rows/s"},
	} {
		if got := c.r.text(now); got != c.want {
			t.Errorf("%+v: %q, want %q", c.r, got, c.want)
		}
	}
}

// TestUploadProgress: if an upload begins again, the count starts again at zero.
func TestUploadProgress(t *testing.T) {
	p := &uploadProgress{data: bytes.NewBufferString("first")}
	var b bytes.Buffer
	for _, text := range []string{"first", "second try"} {
		p.data = bytes.NewBufferString(text)
		if n, err := p.WriteTo(&b); err != nil || n != int64(len(text)) || p.bytes.Load() != n {
			t.Errorf("%d bytes, %d counted, %v", n, p.bytes.Load(), err)
		}
	}
}
