package capture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/busy"
	"capture/internal/filetest"
	"capture/internal/pgserver"
	"capture/store"
)

// TestKilledAnywhere kills the process again and again under load, at random moments of copies, streams, writes and renames. A
// reader checks every version of the file that it sees: each is complete, shows a state that the database had, and is not older
// than the version before. CAPTURE_TEST_KILLS sets the number of rounds; the default is ten, or as many as fit into half a
// minute. One of the two subtests has a file that is large enough to be patched.
func TestKilledAnywhere(t *testing.T) {
	if testing.Short() {
		t.Skip("kills many daemons")
	}
	t.Parallel()
	t.Run("small file", func(t *testing.T) { killAnywhere(t, 0) })
	t.Run("large file", func(t *testing.T) { killAnywhere(t, 720) })
}

// killAnywhere is a subtest of TestKilledAnywhere. largeVotes is the number of votes of 6 kB in its table. The table also
// has small votes, which are inserted and deleted.
func killAnywhere(t *testing.T, largeVotes int) {
	t.Parallel()
	rounds, until := 10, time.Now().Add(30*time.Second)
	if n, err := strconv.Atoi(os.Getenv("CAPTURE_TEST_KILLS")); err == nil {
		rounds, until = n, time.Now().Add(24*time.Hour)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 300)
	// Each transaction writes two numbers into vote 0: a number that only increases, and the count of the other rows.
	exec(t, conn, fmt.Sprintf(`INSERT INTO votes (vote_id, user_query) VALUES (0, '0 %d')`, 300+largeVotes))
	exec(t, conn, fmt.Sprintf(`INSERT INTO votes (vote_id, bot_response)
		SELECT 1000 + i, (SELECT string_agg(md5((i * 200 + j)::text), '') FROM generate_series(1, 190) j) FROM generate_series(0, %d) i`, largeVotes-1))
	ctx, end := context.WithCancel(context.Background())
	defer end()
	var wg sync.WaitGroup
	defer wg.Wait()
	writer := connect(t, url)
	wg.Go(func() {
		for i := 1; ctx.Err() == nil; i++ {
			_, err := writer.Exec(context.Background(), fmt.Sprintf(`
				DELETE FROM votes WHERE vote_id BETWEEN 1 AND %d;
				INSERT INTO votes (vote_id, user_query, bot_response) SELECT i, %d, repeat(md5(i::text), 8) FROM generate_series(1, %d) i;
				UPDATE votes SET comment = repeat('c', %d) WHERE vote_id = 1000 + %d;
				UPDATE votes SET user_query = '%d ' || (SELECT count(*) - 1 FROM votes) WHERE vote_id = 0`, 1+i%40, i, i%40, i%300, i*37%(largeVotes+1), i))
			if err != nil && !strings.Contains(err.Error(), "duplicate key") {
				t.Errorf("write: %v", err)
				return
			}
			time.Sleep(10 * time.Millisecond) // leaves CPU time to the child, which writes the file at most every 10 ms anyway
		}
	})
	path := filepath.Join(t.TempDir(), "feedback.json")
	var versions transactionCheck
	read := make(chan error, 1)
	go func() { read <- watchFile(path, ctx.Done(), versions.check) }()
	defer end()
	kills := 0
	for i := 0; i < rounds && time.Now().Before(until); i++ {
		c := startChild(t, url, path)
		if i%3 > 0 {
			c.says("ready") // in the other rounds, the child may die during its start
		}
		time.Sleep(time.Duration(r.IntN(150)) * time.Millisecond) // a random moment to die
		c.kill()
		kills++
		if t.Failed() || len(read) > 0 {
			break
		}
	}
	end()
	wg.Wait()
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	c := startChild(t, url, path)
	c.says("ready")
	if code := c.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	sameFile(t, path, oracle(t, conn, "votes", "vote_id"))
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	for _, name := range left {
		if strings.HasSuffix(name, ".tmp") || strings.Contains(name, "damaged") {
			t.Errorf("left over: %s", name)
		}
	}
	t.Logf("%d kills, %d versions of the file seen", kills, versions.versions)
}

// sameFile fails the test unless the file at path holds these rows.
func sameFile(t testing.TB, path string, want []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := filetest.Rows(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d rows, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("row %d:\n%s\nwant\n%s", i, got[i], want[i])
		}
	}
}

// transactionCheck checks the versions of a file for TestKilledAnywhere.
type transactionCheck struct {
	versions int // number of versions seen
	last     int // number of the transaction in the newest version
}

func (c *transactionCheck) check(rows []string) error {
	var number, count int
	if _, err := fmt.Sscanf(rows[0], `{"vote_id":0,"user_query":"%d %d"`, &number, &count); err != nil {
		return fmt.Errorf("%s: %w", rows[0], err)
	}
	if count != len(rows)-1 {
		return fmt.Errorf("part of a transaction: %d rows, while the first says %d", len(rows)-1, count)
	}
	if number < c.last {
		return fmt.Errorf("the file went back from transaction %d to %d", c.last, number)
	}
	if number != c.last || c.versions == 0 {
		c.last = number
		c.versions++
	}
	return nil
}

// TestFrozen: the process is suspended for longer than wal_sender_timeout. The server drops the slot. When the process runs
// again, it resyncs.
func TestFrozen(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"wal_sender_timeout": "1s"}})
	url := s.URL("postgres")
	conn := connect(t, url)
	table(t, conn, 100)
	path := filepath.Join(t.TempDir(), "feedback.json")
	c := startChild(t, url, path)
	c.says("ready")
	if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	slotless(t, s)
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('while it was frozen')")
	if err := c.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.says("unwell")
	c.says("ready")
	if code := c.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	sameFile(t, path, oracle(t, conn, "votes", "vote_id"))
}

// slotless waits until the server has no slot.
func slotless(t testing.TB, s *pgserver.Server) {
	t.Helper()
	conn := connect(t, s.URL("postgres"))
	eventually(t, "the server drops the slot", func() error {
		if queryOne[int](t, conn, "SELECT count(*) FROM pg_replication_slots") > 0 {
			return errors.New("it holds")
		}
		return nil
	})
}

// TestFrozenWhileCopying: the process is suspended during a copy. During a copy, the replication connection does not stream,
// so wal_sender_timeout does not end it. Instead, the server's timeout for idle transactions ends the copy's sessions.
func TestFrozenWhileCopying(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	url := s.URL("postgres")
	conn := connect(t, url)
	bigTable(t, conn)
	path := filepath.Join(t.TempDir(), "feedback.json")
	c := startChild(t, url, path, "CAPTURE_TEST_CHILD_RATE=1500000", "CAPTURE_TEST_FROZEN_AFTER=2s")
	copying(t, conn, 1)
	if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	slotless(t, s)
	if err := c.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.says("ready")
	c.stop()
	sameFile(t, path, oracle(t, conn, "votes", "vote_id"))
}

// TestPanic: a panic causes a log line, a flush of the last complete state, and an error of Run.
func TestPanic(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 10)
	cfg := config(t, url)
	cfg.FlushDelay = time.Hour // only the flush after the panic writes the change
	log := &syncBuffer{}
	cfg.Logger = &panicking{Logger: hclog.New(&hclog.LoggerOptions{Output: log, JSONFormat: true})}
	path := filepath.Join(t.TempDir(), "feedback.json")
	file, err := store.Open(path, store.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d, err := New(cfg, file)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(t.Context()) }()
	eventually(t, "ready", func() error {
		if s := d.Status(); !s.Ready {
			return fmt.Errorf("%+v", s.Checks)
		}
		return nil
	})
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('the last')")
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "internal error") {
			t.Errorf("Run returned %v", err)
		}
	case <-time.After(busy.Limit(patience)):
		t.Fatal("the daemon still runs")
	}
	if !strings.Contains(log.String(), `"@message":"internal error"`) {
		t.Errorf("not in the log:\n%s", log)
	}
	sameFile(t, path, oracle(t, conn, "votes", "vote_id"))
}

// panicking is a logger that panics when capture logs a transaction. The panic is in the goroutine that applies the stream,
// because this goroutine logs the transactions.
type panicking struct{ hclog.Logger }

func (p *panicking) Info(msg string, args ...any) {
	if msg == "captured" {
		panic("on purpose")
	}
	p.Logger.Info(msg, args...)
}
