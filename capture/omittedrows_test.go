package capture

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"capture/store/manifest"
)

// TestRowsThatDoNotFit: with each source, rows that are too large are omitted, and the manifest and the status list their
// keys. All other rows are followed. A row comes back once it is small enough, and its key disappears when the row is
// deleted.
func TestRowsThatDoNotFit(t *testing.T) {
	if testing.Short() {
		t.Skip("fills tables that are larger than the memory")
	}
	t.Parallel()
	eachSource(t, func(t *testing.T, cfg Config, url string, conn *pgx.Conn) { testOmitted(t, cfg, conn) })
}

// TestRowsThatDoNotFitWithOldRows is TestRowsThatDoNotFit for a stream that has the old row in each message, too.
func TestRowsThatDoNotFitWithOldRows(t *testing.T) {
	if testing.Short() {
		t.Skip("writes large rows")
	}
	t.Parallel()
	eachSource(t, func(t *testing.T, cfg Config, url string, conn *pgx.Conn) {
		if cfg.Source != "logical" {
			t.Skip("only the stream has old rows")
		}
		exec(t, conn, "ALTER TABLE votes REPLICA IDENTITY FULL")
		testOmitted(t, cfg, conn)
	})
}

func testOmitted(t *testing.T, cfg Config, conn *pgx.Conn) {
	cfg.maxRowBytes = 512 << 10 // larger than a batch of the copy, so that a row can exceed a batch and still be read whole
	exec(t, conn, `INSERT INTO votes (vote_id, user_query, comment) VALUES (1, 'a', 'b'),
		(2, 'control characters', repeat(chr(1), 300000)), (3, 'long', repeat('x', 1500000))`)
	d := start(t, cfg)
	check := func(what string, omitted ...string) {
		t.Helper()
		r, err := d.Snapshot(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		manifest, err := manifest.Read(d.path)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		if manifest.Omitted != nil {
			got = manifest.Omitted.Keys
			if manifest.Omitted.Rows != len(got) || r.Omitted == nil || r.Omitted.Rows != len(got) {
				t.Errorf("%s: the manifest omits %+v and the forced write %+v", what, manifest.Omitted, r.Omitted)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(omitted) {
			t.Fatalf("%s: %v are omitted; want %v", what, got, omitted)
		}
		st := d.Status()
		if st.Omitted != len(omitted) || st.Ready != (len(omitted) == 0) || st.State != stateFollowing {
			t.Errorf("%s: the status has %d omitted rows, ready: %t, %s", what, st.Omitted, st.Ready, st.State)
		}
		if len(omitted) > 0 {
			if err := failing(st.Checks, omitted...); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		rest := "votes"
		if len(omitted) > 0 {
			rest = "(SELECT * FROM votes WHERE vote_id NOT IN (" + strings.Join(omitted, ",") + "))"
		}
		d.flushAndCompare(conn, rest, "vote_id")
	}
	check("first copy", "2", "3")
	exec(t, conn, "INSERT INTO votes (vote_id, comment) VALUES (4, repeat(chr(1), 450000)), (5, 'small')")
	check("insert of a row that is too large", "2", "3", "4")
	exec(t, conn, "UPDATE votes SET user_query = 'new' WHERE vote_id IN (1, 2, 3)")
	check("update of another column", "2", "3", "4")
	exec(t, conn, "UPDATE votes SET comment = 'short' WHERE vote_id = 3")
	check("update that makes the row small", "2", "4")
	exec(t, conn, "DELETE FROM votes WHERE vote_id = 2")
	check("delete", "4")
	exec(t, conn, "BEGIN; UPDATE votes SET comment = repeat('y', 2500000) WHERE vote_id = 1; UPDATE votes SET vote_id = 40 WHERE vote_id = 4; COMMIT")
	check("update that makes a row large, and of the key", "1", "40")
	exec(t, conn, "BEGIN; DELETE FROM votes WHERE vote_id = 1; INSERT INTO votes (vote_id, comment) VALUES (1, 'again'); COMMIT")
	check("delete and insert", "40")
	exec(t, conn, "INSERT INTO votes (vote_id, user_query, bot_response, comment) VALUES (6, repeat('a', 310000), repeat('b', 270000), repeat('c', 310000))")
	check("two large values", "6", "40")
	exec(t, conn, "UPDATE votes SET bot_response = 'less' WHERE vote_id = 6")
	check("update of a row that stays too large", "6", "40")
	exec(t, conn, "UPDATE votes SET user_query = 'less' WHERE vote_id = 6")
	check("update that makes the row small and leaves a large value unchanged", "40")
	exec(t, conn, "BEGIN; UPDATE votes SET comment = 'short' WHERE vote_id = 40; ROLLBACK")
	check("rollback", "40")
	exec(t, conn, "TRUNCATE votes")
	check("truncate")
}

// TestOmittedRowIsNoDifference checks that the regular row count takes omitted rows into account.
func TestOmittedRowIsNoDifference(t *testing.T) {
	t.Parallel()
	eachSource(t, func(t *testing.T, cfg Config, url string, conn *pgx.Conn) {
		if cfg.Source != "logical" {
			t.Skip("only the stream counts the rows")
		}
		exec(t, conn, "INSERT INTO votes (vote_id, comment) VALUES (1, 'a'), (2, repeat('x', 3000000))")
		cfg.maxRowBytes, cfg.timeouts.RowCount = 1<<20, 5e6
		d := start(t, cfg)
		eventually(t, "following", func() error {
			if st := d.Status(); st.State != stateFollowing {
				return fmt.Errorf("%s", st.State)
			}
			return nil
		})
		for range 20 {
			if _, err := d.Snapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := d.said("resyncing table"); n > 0 || d.Status().Omitted != 1 {
			t.Errorf("%d resyncs, and %d omitted rows; want 0 and 1", n, d.Status().Omitted)
		}
	})
}

// TestGeneratedValueThatDoesNotFit checks that a row is omitted if a generated column, whose value only the server knows, makes
// it too large. The row comes back once it fits.
func TestGeneratedValueThatDoesNotFit(t *testing.T) {
	t.Parallel()
	eachSource(t, func(t *testing.T, cfg Config, url string, conn *pgx.Conn) {
		exec(t, conn, "ALTER TABLE votes ADD repeated text GENERATED ALWAYS AS (repeat(comment, 100)) STORED")
		exec(t, conn, "INSERT INTO votes (vote_id, comment) VALUES (1, 'a')")
		cfg.maxRowBytes = 1 << 20
		d := start(t, cfg)
		d.ready()
		exec(t, conn, "INSERT INTO votes (vote_id, comment) VALUES (2, repeat('x', 50000)), (3, 'c')")
		exec(t, conn, "UPDATE votes SET comment = repeat(chr(1), 3000) WHERE vote_id = 1")
		r, err := d.Snapshot(t.Context())
		if err != nil || r.Rows != 1 || r.Omitted == nil || fmt.Sprint(r.Omitted.Keys) != "[1 2]" {
			t.Fatalf("%d rows, omitted %+v, %v; want 1, and keys 1 and 2", r.Rows, r.Omitted, err)
		}
		exec(t, conn, "UPDATE votes SET comment = 'short' WHERE vote_id < 3")
		d.flushAndCompare(conn, "votes", "vote_id")
		d.ready()
		if n := d.said("resyncing table"); n > 0 {
			t.Errorf("the table was copied again %d times", n)
		}
	})
}

// TestOmittedRowWithDeferrableKey: a deferrable key lets rows exchange their keys in one statement. capture follows such
// rows even if one of them exceeds the size limit of a row.
func TestOmittedRowWithDeferrableKey(t *testing.T) {
	if testing.Short() {
		t.Skip("follows with each source")
	}
	t.Parallel()
	eachSource(t, func(t *testing.T, cfg Config, url string, conn *pgx.Conn) {
		if cfg.Source != "logical" {
			t.Skip("only the stream shows keys that two rows share for a moment")
		}
		exec(t, conn, "ALTER TABLE votes DROP CONSTRAINT votes_pkey, ADD PRIMARY KEY (vote_id) DEFERRABLE")
		exec(t, conn, "ALTER TABLE votes REPLICA IDENTITY FULL")
		exec(t, conn, "INSERT INTO votes (vote_id, comment) VALUES (1, 'a'), (2, repeat('x', 3000000)), (3, 'c')")
		cfg.maxRowBytes = 1 << 20
		d := start(t, cfg)
		eventually(t, "following", func() error {
			if st := d.Status(); st.State != stateFollowing {
				return fmt.Errorf("%s", st.State)
			}
			return nil
		})
		exec(t, conn, "UPDATE votes SET vote_id = vote_id + 1")
		d.flushAndCompare(conn, "(SELECT * FROM votes WHERE vote_id <> 3)", "vote_id")
		exec(t, conn, "UPDATE votes SET vote_id = 5 - vote_id WHERE vote_id IN (2, 3)")
		d.flushAndCompare(conn, "(SELECT * FROM votes WHERE vote_id <> 2)", "vote_id")
		exec(t, conn, "UPDATE votes SET comment = 'small' WHERE vote_id = 2")
		d.flushAndCompare(conn, "votes", "vote_id")
		d.ready()
	})
}
