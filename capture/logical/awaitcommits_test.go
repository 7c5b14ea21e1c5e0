package logical

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/capture/sourcetest"
	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/snapshot"
)

func TestXIDSnapshotEnded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		exported, now string
		ended         bool
	}{
		{"100:100:", "100:100:", true},
		{"100:105:", "100:104:", false},      // transaction 104 was still running when the ordinary snapshot was taken
		{"100:105:", "105:105:", true},       // all have ended
		{"100:105:", "103:106:103", false},   // 103 is still running
		{"100:105:103", "103:106:103", true}, // 103 is also running in the slot's snapshot
		{"100:105:103", "103:106:103,104", false},
		{"100:105:", "99:106:99", true},       // 99 is below the xmin of the slot's snapshot, so it has ended
		{"100:105:", "105:107:105,106", true}, // 105 and 106 began after the slot's snapshot
		{"18446744073709551000:18446744073709551005:", "18446744073709551005:18446744073709551005:", true},
	} {
		exported, err := parseXIDSnapshot(c.exported)
		if err != nil {
			t.Fatal(err)
		}
		now, err := parseXIDSnapshot(c.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := exported.endedBy(now); got != c.ended {
			t.Errorf("%s ended by %s: %v, want %v", c.exported, c.now, got, c.ended)
		}
	}
	for _, text := range []string{"", "1:2", "1:2:3:4", "a:2:", "1:2:x", "-1:2:", "1:2:3,"} {
		if s, err := parseXIDSnapshot(text); err == nil {
			t.Errorf("%q parses as %+v", text, s)
		}
	}
}

// TestSlotsHarmNoCommit checks that no commit is lost because of a read with a slot's snapshot (see awaitCommits). It
// creates slots while eight sessions increment numbers and commit. As soon as awaitCommits returns for a slot, a connection
// that is already open reads the table with the slot's snapshot. Every committed increment must stay in the table.
// CAPTURE_TEST_SLOTS sets the duration of the test, for example 1m.
func TestSlotsHarmNoCommit(t *testing.T) {
	t.Parallel()
	duration := 4 * time.Second
	if text := os.Getenv("CAPTURE_TEST_SLOTS"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"autovacuum": "off"}})
	url := s.URL("postgres")
	conn := sourcetest.Connect(t, url)
	conn.MustExec(sourcetest.Votes)
	conn.MustExec("INSERT INTO votes (user_query) SELECT 'q' FROM generate_series(1, 20)")
	const committers = 8
	conn.MustExec("ALTER TABLE votes ADD n int NOT NULL DEFAULT 0")
	reader := sourcetest.Connect(t, url)

	var done atomic.Bool
	var g sync.WaitGroup
	counts := make([]int, committers)
	for i := range committers {
		c := sourcetest.Connect(t, url)
		g.Go(func() {
			for !done.Load() {
				if _, err := c.Exec(context.Background(), "UPDATE votes SET n = n + 1 WHERE vote_id = $1", i+1); err != nil {
					t.Error(err)
					return
				}
				counts[i]++
			}
		})
	}
	slots := 0
	for end := time.Now().Add(duration); time.Now().Before(end); slots++ {
		readAtOnce(t, url, reader)
	}
	done.Store(true)
	g.Wait()
	rows, err := conn.Query(t.Context(), "SELECT n FROM votes WHERE vote_id <= $1 ORDER BY vote_id", committers)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d slots, %v committed", slots, counts)
	if !slices.Equal(kept, counts) {
		t.Errorf("the table has %v, of %v committed", kept, counts)
	}
}

// readAtOnce creates a slot as a Source does, and reads the table with the slot's snapshot.
func readAtOnce(t *testing.T, url string, reader *sourcetest.Conn) {
	t.Helper()
	s := New(newEnv(t, url))
	defer s.queries.Close()
	origin, err := s.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.standby.close()
	start, err := s.createSlotOrPlainRead(t.Context(), snapshot.NewTable(), origin)
	if err != nil {
		if resync := (*source.ResyncError)(nil); errors.As(err, &resync) {
			return
		}
		t.Fatal(err)
	}
	_, err = reader.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT "+postgres.QuoteLiteral(start.name)+
		"; SELECT count(*) FROM votes; COMMIT")
	if err != nil {
		t.Fatal(err)
	}
}
