package capture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
)

// TestFollow checks that the file equals the table after a copy, after changes and after a stop.
func TestFollow(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, `INSERT INTO votes (user_query, evaluation_json, feedback_tags, "timestamp") VALUES
		(E'a "quoted"\n\\ question', '{"b": 1.50, "a": [1, null]}', '{"Looks Good / Accurate & Clear",NULL,"a\"b"}', '2025-06-17 16:58:00.5'),
		(NULL, NULL, '{}', '0044-03-15 00:00:00 BC')`)
	d := start(t, config(t, url))
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
	exec(t, conn, "INSERT INTO votes (user_query) SELECT 'q' || i FROM generate_series(1, 1000) i")
	exec(t, conn, "UPDATE votes SET comment = 'c' WHERE vote_id % 3 = 0")
	exec(t, conn, "DELETE FROM votes WHERE vote_id % 5 = 0")
	exec(t, conn, "UPDATE votes SET vote_id = vote_id + 100000 WHERE vote_id % 7 = 0")
	d.flushAndCompare(conn, "votes", "vote_id")
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('the last, flushed by the stop')")
	eventually(t, "stream", func() error {
		if v := d.View(); v.Rows() != len(oracle(t, conn, "votes", "vote_id")) {
			return fmt.Errorf("%d rows", v.Rows())
		}
		return nil
	})
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(d.path)
	if err != nil || !strings.Contains(string(b), "flushed by the stop") {
		t.Fatalf("after the stop the newest vote is missing: %v", err)
	}
	if strings.Contains(d.log.String(), "question") {
		t.Fatalf("a vote's text is in the log:\n%s", d.log)
	}
}

// TestRandomWorkload compares file and table after random transactions, some of them rolled back. A reader checks every version
// of the file that it sees.
func TestRandomWorkload(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a random workload for seconds")
	}
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "ALTER TABLE votes ALTER bot_response SET STORAGE EXTERNAL")
	exec(t, conn, "CREATE TABLE sums (total bigint)")
	d := start(t, config(t, url))
	d.ready()
	done := make(chan struct{})
	read := make(chan error, 1)
	go func() { read <- watchFile(d.path, done, checkWorkload) }()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 12 {
		for range 10 + r.IntN(20) {
			workload(t, conn, r)
		}
		d.flushAndCompare(conn, "votes", "vote_id")
	}
	close(done)
	if err := <-read; err != nil {
		t.Fatal(err)
	}
}

// checkWorkload checks that vote 0, if it exists, contains the count of the other rows. Every transaction that [workload]
// runs stores this count in vote 0.
func checkWorkload(rows []string) error {
	if len(rows) == 0 || !strings.HasPrefix(rows[0], `{"vote_id":0,`) {
		return nil
	}
	var n int
	if _, err := fmt.Sscanf(rows[0], `{"vote_id":0,"user_query":"%d"`, &n); err != nil {
		return fmt.Errorf("%s: %w", rows[0], err)
	}
	if n != len(rows)-1 {
		return fmt.Errorf("half of a transaction: %d rows, of which the first says %d", len(rows)-1, n)
	}
	return nil
}

// workload runs a random transaction. The transaction also writes a vote with ID 0, which contains the number of the other votes.
func workload(t testing.TB, conn *pgx.Conn, r *rand.Rand) {
	t.Helper()
	ctx := t.Context()
	rollback := errors.New("rolled back on purpose")
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		do := func(sql string, args ...any) { batch.Queue(sql, args...) }
		size := 1 + r.IntN(20)
		if r.IntN(20) == 0 {
			size = 400
		}
		for range size {
			id := 1 + r.IntN(300)
			switch c := r.IntN(100); {
			case c < 40:
				do(`INSERT INTO votes (vote_id, user_query, bot_response, evaluation_json, feedback_tags, comment)
					VALUES ($1::int, $2::text, repeat(md5($1::int::text), $3), jsonb_build_object('n', $1::int), ARRAY['Looks Good', $2::text], $2::text)
					ON CONFLICT (vote_id) DO UPDATE SET comment = excluded.comment || 'again'`,
					id, fmt.Sprintf("q\t%d", r.IntN(1000)), r.IntN(200))
			case c < 65:
				do("UPDATE votes SET comment = $2 WHERE vote_id = $1", id, fmt.Sprint(r.Int()))
			case c < 75: // the key changes, a long value does not
				do("UPDATE votes SET vote_id = $2::int WHERE vote_id = $1::int AND NOT EXISTS (SELECT FROM votes WHERE vote_id = $2::int)", id, 1+r.IntN(300))
			case c < 90:
				do("DELETE FROM votes WHERE vote_id = $1", id)
			case c < 92:
				do("DELETE FROM votes WHERE vote_id > 0 AND vote_id % 3 = $1::int", r.IntN(3))
			case c < 93:
				do("TRUNCATE votes")
			case c < 96: // keys change without a conflict
				do("UPDATE votes SET vote_id = -vote_id WHERE vote_id > 0")
				do("UPDATE votes SET vote_id = 301 + vote_id WHERE vote_id < 0")
			default:
				do("SAVEPOINT s")
				do("UPDATE votes SET comment = 'never' WHERE vote_id % 2 = 0")
				do("ROLLBACK TO SAVEPOINT s")
			}
		}
		do("DELETE FROM votes WHERE vote_id = 0")
		do("INSERT INTO votes (vote_id, user_query) SELECT 0, count(*)::text FROM votes")
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		if r.IntN(6) == 0 {
			return rollback
		}
		return nil
	})
	if err != nil && !errors.Is(err, rollback) && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestPublicationNameIsQuoted follows the table through a publication whose name has every character that could end a quoted
// name or string.
func TestPublicationNameIsQuoted(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, `CREATE PUBLICATION "odd\name 'of, ""it" FOR TABLE votes`)
	d := start(t, config(t, url))
	d.ready()
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('through it')")
	d.follows(conn, "votes", "vote_id")
	if n := queryOne[int](t, conn, "SELECT count(*) FROM pg_publication"); n != 1 {
		t.Errorf("%d publications, want the existing one alone", n)
	}
}
