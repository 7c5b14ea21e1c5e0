package capture

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
	"capture/internal/postgres"
)

// newIn19 skips the test on servers that lack what PostgreSQL 19 introduced.
func newIn19(t *testing.T) {
	t.Helper()
	if pgserver.Shared(t).VersionNum() < 190000 {
		t.Skip("PostgreSQL 19 introduced this")
	}
}

// TestRepack: REPACK gives a table new files, but changes no row. So the stream continues, even while others write, and even
// with CONCURRENTLY, which decodes the table's changes through a slot of its own.
func TestRepack(t *testing.T) {
	newIn19(t)
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"wal_level": "replica"}})
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 500)
	for _, source := range []string{"logical", "notify", "poll"} {
		t.Run(source, func(t *testing.T) { // not in parallel: only one REPACK CONCURRENTLY can run at a time
			cfg := config(t, s.URL("postgres"))
			cfg.Source, cfg.PollInterval = source, 50*time.Millisecond
			d := start(t, cfg)
			d.ready()
			for _, sql := range []string{"REPACK votes", "REPACK (CONCURRENTLY) votes", "REPACK (CONCURRENTLY, ANALYZE) votes USING INDEX votes_pkey"} {
				stop := startLoad(t, s.URL("postgres"), 2)
				runUnderLoad(t, conn, sql)
				stop()
				d.follows(conn, "votes", "vote_id")
			}
			d.flushAndCompare(conn, "votes", "vote_id")
			if n := d.said("resyncing table"); source == "logical" && n != 0 {
				t.Errorf("%d resyncs", n)
			}
		})
	}
}

// runUnderLoad runs a statement, and repeats it if a deadlock with the writers or a lock timeout ends it.
func runUnderLoad(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	eventually(t, sql, func() error {
		_, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		if err != nil && postgres.SQLState(err) != "40P01" && postgres.SQLState(err) != "55P03" { // neither a deadlock nor a lock timeout
			t.Fatalf("%s: %v", sql, err)
		}
		if err != nil {
			exec(t, conn, "ROLLBACK")
		}
		return err
	})
}

// TestMergeAndSplitPartitions: rows move to other partitions, and the stream does not show the moves. The file must
// nevertheless equal the table. ALTER TABLE … MERGE PARTITIONS and SPLIT PARTITION move the rows on servers that have these
// commands (19rc1 does not). On other servers, a transaction of older statements moves them.
func TestMergeAndSplitPartitions(t *testing.T) {
	if testing.Short() {
		t.Skip("changes partitions many times")
	}
	t.Parallel()
	for _, source := range []string{"logical", "notify", "poll"} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			conn := connect(t, url)
			exec(t, conn, `CREATE TABLE votes (vote_id serial PRIMARY KEY, user_query text, comment text) PARTITION BY RANGE (vote_id);
				CREATE TABLE votes_a PARTITION OF votes FOR VALUES FROM (1) TO (100);
				CREATE TABLE votes_b PARTITION OF votes FOR VALUES FROM (100) TO (200);
				CREATE TABLE votes_c PARTITION OF votes FOR VALUES FROM (200) TO (1000000)`)
			exec(t, conn, "INSERT INTO votes (user_query) SELECT 'question ' || i FROM generate_series(1, 300) i")
			cfg := config(t, url)
			cfg.Source, cfg.PollInterval = source, 50*time.Millisecond
			d := start(t, cfg)
			d.ready()
			for _, c := range []struct{ sql, otherwise string }{
				{"ALTER TABLE votes MERGE PARTITIONS (votes_a, votes_b) INTO votes_ab",
					`BEGIN; ALTER TABLE votes DETACH PARTITION votes_a; ALTER TABLE votes DETACH PARTITION votes_b;
					CREATE TABLE votes_ab PARTITION OF votes FOR VALUES FROM (1) TO (200);
					INSERT INTO votes_ab SELECT * FROM votes_a; INSERT INTO votes_ab SELECT * FROM votes_b; DROP TABLE votes_a, votes_b; COMMIT`},
				{`ALTER TABLE votes SPLIT PARTITION votes_ab INTO (PARTITION votes_a FOR VALUES FROM (1) TO (50),
					PARTITION votes_b FOR VALUES FROM (50) TO (200))`,
					`BEGIN; ALTER TABLE votes DETACH PARTITION votes_ab; CREATE TABLE votes_a PARTITION OF votes FOR VALUES FROM (1) TO (50);
					CREATE TABLE votes_b PARTITION OF votes FOR VALUES FROM (50) TO (200); INSERT INTO votes SELECT * FROM votes_ab; DROP TABLE votes_ab; COMMIT`},
			} {
				stop := startLoad(t, url, 1)
				_, err := conn.Exec(t.Context(), c.sql)
				if postgres.SQLState(err) == "42601" { // syntax error
					c.sql = c.otherwise
				}
				if err != nil {
					runUnderLoad(t, conn, c.sql)
				}
				exec(t, conn, "UPDATE votes SET comment = 'after ' || vote_id WHERE vote_id % 7 = 0")
				stop()
				d.follows(conn, "votes", "vote_id")
			}
			d.flushAndCompare(conn, "votes", "vote_id")
		})
	}
}

// TestAllTablesExcept: capture uses a publication of all tables except some, as long as the followed table is not an
// exception. When the table becomes an exception, capture notices and uses another source.
func TestAllTablesExcept(t *testing.T) {
	newIn19(t)
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "CREATE TABLE secret (id int PRIMARY KEY)")
	exec(t, conn, "CREATE PUBLICATION most FOR ALL TABLES EXCEPT (TABLE secret)")
	cfg := asRole(t, conn, url, "capture_test_except") // this role may not create a publication
	exec(t, conn, "ALTER ROLE capture_test_except REPLICATION")
	cfg.Source, cfg.PollInterval, cfg.intervals.setupCheck = "auto", 20*time.Millisecond, 20*time.Millisecond
	d := start(t, cfg)
	d.waitFollowedBy("logical", "")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('published')")
	exec(t, conn, "INSERT INTO secret VALUES (1)")
	d.flushAndCompare(conn, "votes", "vote_id")

	exec(t, conn, "ALTER PUBLICATION most SET ALL TABLES EXCEPT (TABLE secret, TABLE votes)")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('an exception')")
	d.follows(conn, "votes", "vote_id")
	d.waitFollowedBy("poll", "no publication has all changes")
	exec(t, conn, "ALTER PUBLICATION most SET ALL TABLES EXCEPT (TABLE secret)")
	d.waitFollowedBy("logical", "")
	exec(t, conn, "ALTER PUBLICATION most SET ALL TABLES EXCEPT (TABLE votes)")
	setUp(t, conn, "logical") // capture then uses its own publication, whatever exceptions another publication has
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('its own')")
	d.waitFollowedBy("logical", "")
	d.follows(conn, "votes", "vote_id")

	// Excluding a partitioned table also excludes its partitions.
	exec(t, conn, "CREATE TABLE parted (vote_id int PRIMARY KEY, comment text) PARTITION BY LIST (vote_id); CREATE TABLE parted_1 PARTITION OF parted DEFAULT")
	exec(t, conn, "CREATE PUBLICATION unparted FOR ALL TABLES EXCEPT (TABLE parted) WITH (publish_via_partition_root)")
	other := config(t, url)
	other.Table, other.Source = postgres.Name{Table: "parted"}, "logical"
	p := start(t, other)
	p.ready()
	if n := queryOne[int](t, conn, "SELECT count(*)::int FROM pg_publication WHERE pubname = 'capture_parted'"); n != 1 {
		t.Errorf("%d publications of its own, although another one excludes the table", n)
	}
	exec(t, conn, "INSERT INTO parted VALUES (1, 'a'), (2, 'b')")
	p.flushAndCompare(conn, "parted", "vote_id")
}

// TestJSONFormatOfCopy checks what docs/managed-postgres.md says about COPY … (FORMAT json): COPY TO writes one object per
// line, and COPY FROM cannot read this format.
func TestJSONFormatOfCopy(t *testing.T) {
	newIn19(t)
	t.Parallel()
	conn := connect(t, pgserver.Database(t))
	table(t, conn, 3)
	var out strings.Builder
	if _, err := conn.PgConn().CopyTo(t.Context(), &out, "COPY votes TO STDOUT (FORMAT json)"); err != nil {
		t.Fatal(err)
	}
	want := queryOne[string](t, conn, "SELECT string_agg(row_to_json(v)::text, E'\n' ORDER BY vote_id) FROM votes v")
	if got := strings.TrimSpace(out.String()); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader(out.String()), "COPY votes FROM STDIN (FORMAT json)"); err == nil {
		t.Error("COPY FROM reads JSON")
	}
}
