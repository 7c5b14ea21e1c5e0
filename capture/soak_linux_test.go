package capture

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"capture/internal/faultproxy"
	"capture/internal/filetest"
	"capture/internal/pgserver"
)

// TestSoak runs a process that follows a table under all kinds of writes, while random faults hit the process, the network,
// the server, the table and the volumes. After every few faults the writes pause. A forced flush must then soon succeed, and
// capture must be in the same condition as without the faults (see checkpoint). CAPTURE_TEST_SOAK=24h lets the test run for
// a day. CAPTURE_SEED sets the seed, to repeat the faults of a run that failed.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("injects faults for seconds")
	}
	t.Parallel()
	length, err := time.ParseDuration(cmp.Or(os.Getenv("CAPTURE_TEST_SOAK"), "8s"))
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CAPTURE_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CAPTURE_SEED=%d", seed)
	s := newSoak(t, length, rand.New(rand.NewPCG(seed, 0)))
	ctx, end := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	for n := range uint64(2) {
		wg.Go(func() { s.write(ctx, rand.New(rand.NewPCG(seed, n+1))) })
	}
	wg.Go(func() { s.readOutside(ctx) })
	faults := s.faults()
	for s.started = time.Now(); time.Since(s.started) < length && !t.Failed(); {
		drawn := []fault{pick(s.r, faults)}
		if s.r.IntN(3) == 0 {
			if other := pick(s.r, faults); other.kind != drawn[0].kind {
				drawn = append(drawn, other)
			}
		}
		for i := range drawn {
			s.note("%s", drawn[i].name)
			drawn[i].heal = drawn[i].begin()
		}
		time.Sleep(rand.N(min(3*time.Second, length/8))) // duration of the faults
		for _, f := range slices.Backward(drawn) {
			if f.heal != nil {
				f.heal()
			}
		}
		s.checkpoint()
	}
	s.pause.Lock() // pauses the writers until the test ends
	defer s.pause.Unlock()
	if code := s.child.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	end()
	t.Logf("%d faults, %d checkpoints, %d transactions, %d lives; at most %d MB resident, %d bytes of logs", len(s.log), s.checkpoints, s.written.Load(), s.lives, s.most.rss>>20, s.most.logs)
}

// soak is the state of one run of TestSoak.
type soak struct {
	t      *testing.T
	r      *rand.Rand
	length time.Duration
	server *pgserver.Server
	proxy  *faultproxy.Proxy
	folder string // folder of the file
	logs   string // folder of the logs

	pause   sync.RWMutex // writers hold the read lock during each write; holding the write lock pauses them
	written atomic.Int64

	child   *child
	pid     atomic.Int64
	small   bool // whether the child's folder is a small volume
	spoiled bool // whether the volume is full or read-only, or the folder is gone
	answers chan string
	word    atomic.Value // last line that the child printed about its state; a string
	dies    time.Time    // time from which the child may be killed
	lives   int

	started     time.Time
	log         []string // log of the faults
	checkpoints int
	base, most  usage
	measured    int // number of checkpoints since the child started
}

// usage is the resource usage of a process.
type usage struct {
	rss, heap, file, logs int64 // bytes
	goroutines, files     int
}

func newSoak(t *testing.T, length time.Duration, r *rand.Rand) *soak {
	dir := t.TempDir()
	s := &soak{t: t, r: r, length: length, folder: filepath.Join(dir, "data"), logs: filepath.Join(dir, "logs")}
	s.server = pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"wal_sender_timeout": "3s", "log_min_messages": "fatal", "log_statement": "none"}})
	s.proxy = proxied(t, s.server)
	if err := errors.Join(os.Mkdir(s.folder, 0o755), os.Mkdir(s.logs, 0o755)); err != nil {
		t.Fatal(err)
	}
	s.sql(votes, "INSERT INTO votes (user_query, bot_response) SELECT 'question ' || i, repeat(md5(i::text), 8) FROM generate_series(1, 500) i")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last faults:\n%s", strings.Join(s.log[max(0, len(s.log)-40):], "\n"))
			said, _ := os.ReadFile(filepath.Join(s.logs, "usage.log"))
			t.Logf("the child's log ends:\n%s", said[max(0, len(said)-10_000):])
		}
	})
	s.start()
	return s
}

func (s *soak) note(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%8s ", time.Since(s.started).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// start starts the child. Some children have a small volume in place of the folder. The volume disappears when the child
// ends.
func (s *soak) start() {
	var attr *syscall.SysProcAttr
	env := []string{childLogs + "=" + s.logs, "CAPTURE_TEST_SILENCE=3s"}
	if s.small = s.r.IntN(2) == 0 && mayMount(); s.small {
		attr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		env = append(env, childMounts+"="+s.folder)
	}
	s.child = startChildIn(s.t, s.proxy.URL("postgres"), filepath.Join(s.folder, "feedback.json"), attr, env...)
	s.pid.Store(int64(s.child.cmd.Process.Pid))
	answers, c := make(chan string, 1), s.child
	s.answers = answers
	s.word.Store("")
	go func() {
		for line := range c.lines {
			if answer, ok := strings.CutPrefix(line, "snapshot: "); ok {
				answers <- answer
			} else {
				s.word.Store(line)
			}
		}
		close(answers)
	}()
	if s.small {
		s.child.remount("size=64m")
		eventually(s.t, "the small volume", func() error {
			var at unix.Statfs_t
			if err := unix.Statfs(s.path(""), &at); err != nil || at.Type != unix.TMPFS_MAGIC || at.Blocks*uint64(at.Bsize) < 64<<20 {
				return fmt.Errorf("%+v, %v", at, err)
			}
			return nil
		})
	}
	// Wait until the process runs. The caller may begin a fault as soon as start returns, and faults of the volume need a
	// running process.
	eventually(s.t, "the process runs", func() error {
		if s.word.Load() == "" {
			return errors.New("it has said nothing yet")
		}
		return nil
	})
	s.lives++
	s.measured, s.base = 0, usage{}
	s.dies = time.Now().Add(time.Duration(s.r.Int64N(int64(s.length / 3))))
}

// path returns the path by which this process reaches a file in the child's folder.
func (s *soak) path(name string) string {
	return fmt.Sprintf("/proc/%d/root%s", s.pid.Load(), filepath.Join(s.folder, name))
}

// sql runs statements over a new connection, and repeats each statement until it succeeds.
func (s *soak) sql(statements ...string) {
	s.t.Helper()
	eventually(s.t, "run a statement", func() error {
		conn, err := pgx.Connect(s.t.Context(), s.server.URL("postgres"))
		if err != nil {
			return err
		}
		defer conn.Close(context.Background())
		for len(statements) > 0 {
			if _, err := conn.Exec(s.t.Context(), statements[0], pgx.QueryExecModeSimpleProtocol); err != nil {
				return fmt.Errorf("%s: %w", statements[0], err)
			}
			statements = statements[1:]
		}
		return nil
	})
}

// write writes to the table until ctx ends, and ignores errors.
func (s *soak) write(ctx context.Context, r *rand.Rand) {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			conn.Close(context.Background())
		}
	}()
	for ctx.Err() == nil {
		s.pause.RLock()
		var err error
		if conn == nil || conn.IsClosed() {
			if conn, err = pgx.Connect(context.Background(), s.server.URL("postgres")+"&connect_timeout=5"); err == nil {
				_, err = conn.Exec(context.Background(), "SET lock_timeout = '5s'; SET synchronous_commit = "+pick(r, []string{"on", "off"}), pgx.QueryExecModeSimpleProtocol)
			}
		}
		if err == nil {
			if _, err = conn.Exec(context.Background(), change(r), pgx.QueryExecModeSimpleProtocol); err != nil {
				_, _ = conn.Exec(context.Background(), "ROLLBACK") // a transaction may be open
			}
		}
		s.pause.RUnlock()
		pause := 5 * time.Millisecond // the server may be away
		if err == nil {
			s.written.Add(1)
			pause = 2 * time.Millisecond // leaves processor time to the child and to other tests
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// change returns the statements of a random transaction. These transactions keep the number of rows between a few hundred and a
// few thousand.
func change(r *rand.Rand) string {
	id, n := r.IntN(3000), 1+r.IntN(20)
	long := fmt.Sprintf("(SELECT string_agg(md5(i::text || '%d'), '') FROM generate_series(1, %d) i)", id, 1+r.IntN(300))
	insert := fmt.Sprintf("INSERT INTO votes (user_query, bot_response, evaluation_json, feedback_tags) SELECT 'q' || i, repeat(md5(i::text), %d), jsonb_build_object('score', i / 7.0), ARRAY['a', NULL, i::text] FROM generate_series(1, %d) i", n, n)
	update := fmt.Sprintf("UPDATE votes SET comment = 'c%d' WHERE vote_id %% 50 = %d", id, id%50)
	remove := fmt.Sprintf("DELETE FROM votes WHERE vote_id IN (SELECT vote_id FROM votes ORDER BY vote_id OFFSET 400 LIMIT %d)", 2*n)
	switch r.IntN(12) {
	case 0, 1:
		return insert
	case 2, 3:
		return update
	case 4:
		return remove
	case 5:
		return fmt.Sprintf("UPDATE votes SET bot_response = %s WHERE vote_id = (SELECT max(vote_id) FROM votes)", long)
	case 6: // the update changes the key, and a long value of the row may stay unchanged
		return "UPDATE votes SET vote_id = nextval(pg_get_serial_sequence('votes', 'vote_id')) WHERE vote_id = (SELECT min(vote_id) FROM votes)"
	case 7:
		return "BEGIN; " + insert + "; SAVEPOINT s; " + update + "; " + remove + "; ROLLBACK TO s; " + update + "; COMMIT"
	case 8:
		return "BEGIN; " + insert + "; " + remove + "; ROLLBACK"
	case 9:
		return "BEGIN; INSERT INTO votes (user_query) VALUES ('short-lived'); DELETE FROM votes WHERE user_query = 'short-lived'; " + update + "; COMMIT"
	case 10:
		if r.IntN(20) == 0 {
			return "INSERT INTO votes (user_query, comment) SELECT 'many', md5(i::text) FROM generate_series(1, 5000) i"
		}
		return "DELETE FROM votes WHERE vote_id IN (SELECT vote_id FROM votes ORDER BY vote_id OFFSET 1500)"
	}
	if r.IntN(100) == 0 {
		return "TRUNCATE votes"
	}
	return "UPDATE votes SET citations = jsonb_build_array(vote_id, NULL, 'ü \u2028 \"'), \"timestamp\" = now() WHERE vote_id % 200 = 7"
}

// readOutside reads the file all the time, as any program would. Each time, the file must be complete or missing.
func (s *soak) readOutside(ctx context.Context) {
	for ctx.Err() == nil {
		b, err := os.ReadFile(s.path("feedback.json"))
		if err == nil {
			if _, err = filetest.Rows(b); err != nil {
				s.t.Errorf("outside reader: %v", err)
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond): // leaves CPU time to other processes
		}
	}
}

// checkpoint pauses the writes and then checks the following. A forced flush succeeds, the file equals the table, and the
// manifest matches the file. The memory, goroutines and descriptors of the process hardly increase after its warm-up, the logs
// stay below their size limit, and there is one slot.
func (s *soak) checkpoint() {
	s.t.Helper()
	s.pause.Lock()
	defer s.pause.Unlock()
	s.checkpoints++
	var u usage
	eventually(s.t, "a forced flush", func() error {
		if _, err := fmt.Fprintln(s.child.stdin, "snapshot"); err != nil {
			return err
		}
		answer := ""
		select {
		case answer = <-s.answers:
		case <-time.After(patience):
		}
		_, err := fmt.Sscanf(answer, "done, %d goroutines, %d bytes live", &u.goroutines, &u.heap)
		if err != nil {
			return fmt.Errorf("it answers %q", answer)
		}
		return nil
	})
	eventually(s.t, "ready", func() error {
		if word := s.word.Load(); word != "ready" {
			return fmt.Errorf("%v", word)
		}
		return nil
	})
	conn := connect(s.t, s.server.URL("postgres"))
	defer conn.Close(context.Background())
	sameFile(s.t, s.path("feedback.json"), oracle(s.t, conn, "votes", "vote_id"))
	s.manifest(&u)
	eventually(s.t, "one slot", func() error {
		if n := queryOne[int](s.t, conn, "SELECT count(*) FROM pg_replication_slots"); n != 1 {
			return fmt.Errorf("%d slots", n)
		}
		return nil
	})
	s.measure(u)
}

// manifest checks the manifest against the file.
func (s *soak) manifest(u *usage) {
	s.t.Helper()
	file, err := os.ReadFile(s.path("feedback.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := os.ReadFile(s.path("feedback.manifest.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	var m struct {
		Bytes  int64  `json:"bytes"`
		SHA256 string `json:"sha256"`
	}
	if err := json.Unmarshal(text, &m); err != nil {
		s.t.Fatal(err)
	}
	sum := sha256.Sum256(file)
	if u.file = int64(len(file)); m.Bytes != u.file || m.SHA256 != hex.EncodeToString(sum[:]) {
		s.t.Errorf("the manifest does not match the file: %s", text)
	}
}

// warmUp is the number of checkpoints during which the resource usage of a new process may still grow.
const warmUp = 10

// measure compares the resource usage of the process with its usage during the warm-up.
func (s *soak) measure(u usage) {
	s.t.Helper()
	u.rss = s.resident()
	open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.pid.Load()))
	u.files = len(open)
	logs, _ := filepath.Glob(filepath.Join(s.logs, "*"))
	for _, name := range logs {
		if info, err := os.Stat(name); err == nil {
			u.logs += info.Size()
		}
	}
	s.most.rss, s.most.logs = max(s.most.rss, u.rss), max(s.most.logs, u.logs)
	// Each of the two logs has the current file, the rotated files, and one more file that has not been removed yet.
	if limit := int64(2 * childLogMB * (childLogBackups + 2) << 20); u.logs > limit {
		s.t.Errorf("%d bytes of logs: %q", u.logs, logs)
	}
	b := &s.base
	b.file = max(b.file, u.file)
	if s.measured++; s.measured <= warmUp {
		b.rss, b.goroutines, b.files = max(b.rss, u.rss), max(b.goroutines, u.goroutines), max(b.files, u.files)
	} else if u.rss > b.rss+b.rss/2+8*b.file+32<<20 || u.goroutines > b.goroutines+10 || u.files > b.files+10 {
		s.t.Errorf("its usage grows: %+v; after the start %+v", u, *b)
	}
	if u.heap > 6*b.file+32<<20 {
		s.t.Errorf("%d bytes live for a file of %d", u.heap, b.file)
	}
}

func (s *soak) resident() (bytes int64) {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.pid.Load()))
	if err != nil {
		s.t.Fatal(err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		s.t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
