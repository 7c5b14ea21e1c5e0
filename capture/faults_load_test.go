package capture

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/pgserver"
)

// many is the number of rows that a test with much data writes. The default is 100,000; CAPTURE_TEST_ROWS can set another
// number.
func many(t testing.TB) int {
	t.Helper()
	text := cmp.Or(os.Getenv("CAPTURE_TEST_ROWS"), "100000")
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestHugeTransaction: one transaction writes all rows. Readers first see none of these rows, then all of them. Memory holds
// the rows only once: the transaction itself takes no additional memory.
func TestHugeTransaction(t *testing.T) {
	if testing.Short() {
		t.Skip("writes many rows")
	}
	rows := many(t)
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 10)
	d := start(t, config(t, url))
	d.ready()
	before := liveHeap()
	peak := make(chan uint64)
	done := make(chan struct{})
	go func() {
		var most uint64
		for {
			select {
			case <-done:
				peak <- most
				return
			case <-time.After(50 * time.Millisecond): // pause between measurements
			}
			if n := d.View().Rows(); n != 10 && n != 10+rows {
				t.Errorf("a view with %d rows", n)
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
	}()
	exec(t, conn, "INSERT INTO votes (user_query) SELECT 'q' FROM generate_series(1, $1::int)", rows)
	if _, err := d.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(done)
	// The live heap is little more than the JSON text of the rows, and the garbage collector lets the heap grow to twice the
	// live heap. The limits below are higher than these sizes.
	text := uint64(d.View().Bytes())
	most, live := <-peak, liveHeap()
	t.Logf("%d MB of text, %d MB live, at most %d MB in use", text>>20, (live-before)>>20, (most-before)>>20)
	if live-before > 2*text {
		t.Errorf("%d bytes live for %d of text", live-before, text)
	}
	if most-before > 5*text {
		t.Errorf("at most %d bytes in use for %d of text", most-before, text)
	}
	if got, want := d.View().Rows(), queryOne[int](t, conn, "SELECT count(*) FROM votes"); got != want {
		t.Errorf("%d rows, want %d", got, want)
	}
}

func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestBurst: a session commits many small transactions as fast as it can. The log and the number of flushes stay
// bounded, and the file catches up.
func TestBurst(t *testing.T) {
	if testing.Short() {
		t.Skip("commits many transactions")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 100)
	d := start(t, config(t, url))
	d.ready()
	began := time.Now()
	transactions := many(t) / 20
	exec(t, conn, fmt.Sprintf(`DO $$ BEGIN
		FOR i IN 1..%d LOOP
			INSERT INTO votes (user_query) SELECT 'q' FROM generate_series(1, 4);
			COMMIT;
		END LOOP;
	END $$`, transactions))
	written := time.Since(began)
	d.flushAndCompare(conn, "votes", "vote_id")
	t.Logf("%d transactions, written after %s, caught up after %s", transactions, written, time.Since(began))
	seconds := int(time.Since(began)/time.Second) + 2
	if n := d.said("captured"); n > 1000+seconds*(100+1) {
		t.Errorf("%d log lines in %d seconds", n, seconds)
	}
	// There is at most one flush per FlushDelay (10 ms here), and flushing takes no more than half of the time.
	if n := d.said("flushed"); n > seconds*100+2 {
		t.Errorf("%d flushes in %d seconds", n, seconds)
	}
	if n := d.Status().Transactions; n < uint64(transactions) {
		t.Errorf("%d transactions captured", n)
	}
}

// TestBusyBeyondSenderTimeout: under load, the goroutines that apply the stream and write the file are blocked for three
// times wal_sender_timeout, which is a second here. The connection survives, because another goroutine sends the standby
// status. If the connection is lost, but the machine itself stood still for a while, the test tries again.
func TestBusyBeyondSenderTimeout(t *testing.T) {
	t.Parallel()
	const waits = time.Second
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"wal_sender_timeout": waits.String()}})
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 10)
	cfg := config(t, s.URL("postgres"))
	log := &syncBuffer{}
	slow := &slowLogger{Logger: hclog.New(&hclog.LoggerOptions{Output: log, JSONFormat: true}), hold: 3 * waits}
	cfg.Logger = slow
	d := start(t, cfg)
	d.log = log
	d.ready()
	for tries := 3; ; tries-- {
		copied, stood := d.said("copied"), standstill()
		stop := startLoad(t, s.URL("postgres"), 1)
		slow.held.Store(0)
		slow.applying.Store(true)
		slow.writing.Store(true)
		eventually(t, "both goroutines were busy", func() error {
			if n := slow.held.Load(); n < 2 {
				return fmt.Errorf("%d have", n)
			}
			return nil
		})
		stop()
		d.flushAndCompare(conn, "votes", "vote_id")
		longest := stood()
		if again := d.said("copied") - copied; again == 0 {
			return
		} else if longest < waits/4 || tries == 1 {
			t.Fatalf("%d copies more; the machine stood still for %s at most", again, longest)
		}
		t.Logf("the machine stood still for %s: once more", longest)
	}
}

// standstill measures the longest time for which the system did not let this process run. The measurement ends when the
// returned function is called.
func standstill() func() time.Duration {
	stop, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		var most time.Duration
		for last := time.Now(); ; last = time.Now() {
			select {
			case <-stop:
				longest <- most
				return
			case <-time.After(10 * time.Millisecond): // a much longer delay is a standstill
			}
			most = max(most, time.Since(last))
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-longest
	}
}

// slowLogger blocks the goroutine that logs a transaction and the goroutine that logs a flush, each of them once.
type slowLogger struct {
	hclog.Logger
	hold              time.Duration
	applying, writing atomic.Bool
	held              atomic.Int64 // goroutines blocked so far
}

func (s *slowLogger) Info(msg string, args ...any) {
	if msg == "captured" && s.applying.CompareAndSwap(true, false) || msg == "flushed" && s.writing.CompareAndSwap(true, false) {
		time.Sleep(s.hold) // this pause is the fault that the test causes
		s.held.Add(1)
	}
	s.Logger.Info(msg, args...)
}
