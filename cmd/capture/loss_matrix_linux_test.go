package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"capture/capture"
	"capture/internal/faultproxy"
	"capture/internal/pgserver"
	"capture/internal/statefile"
	"capture/store"
	"capture/store/kept"
	"capture/store/manifest"
)

// A lossKind is a way in which a table loses rows or values.
type lossKind struct {
	name    string
	rows    int      // number of rows before
	large   bool     // whether the rows need more memory than capture may use, and the file is patched
	prepare string   // statement before capture starts
	steps   []string // statements, one after the other; capture writes the file after each
	first   bool     // whether capture is killed after the first step, and not after the last one

	away  bool                      // whether capture is stopped meanwhile, and finds the loss when it starts
	cut   bool                      // whether the connection is cut meanwhile
	other func(t *testing.T) string // returns the URL of another database, with which capture starts afterwards
	args  []string                  // flags of the daemon
}

// lossKinds are all kinds. With each, the rows before the last step must be kept.
func lossKinds(t *testing.T) []lossKind {
	cluster := sync.OnceValue(func() *pgserver.Server { return pgserver.ForTest(t, pgserver.Options{}) })
	var databases atomic.Int32
	inSteps := []string{"DELETE FROM votes WHERE vote_id <= 16", "DELETE FROM votes WHERE vote_id <= 32"} // only both together are a loss
	return []lossKind{
		{name: "truncated", rows: 200, steps: []string{"TRUNCATE votes"}},
		{name: "most rows deleted", rows: 200, steps: []string{"DELETE FROM votes WHERE vote_id % 4 > 0"}},
		{name: "deleted in steps", rows: 200, steps: inSteps},
		{name: "deleted in steps, killed on the way", rows: 200, steps: inSteps, first: true},
		{name: "column overwritten", rows: 200, steps: []string{"UPDATE votes SET bot_response = 'lost' WHERE vote_id > 80"}},
		{name: "column dropped", rows: 200, steps: []string{"ALTER TABLE votes DROP COLUMN bot_response"}},
		{name: "table created again", rows: 200, steps: []string{"BEGIN; DROP TABLE votes; " + pgserver.VotesTable + "; COMMIT"}},
		{name: "identity index", rows: 200, steps: []string{"DELETE FROM votes WHERE vote_id > 20"}, prepare: `
			ALTER TABLE votes DROP CONSTRAINT votes_pkey; CREATE UNIQUE INDEX votes_id ON votes (vote_id); ALTER TABLE votes REPLICA IDENTITY USING INDEX votes_id`},
		{name: "rows in the spill file", rows: 1500, large: true, steps: []string{"DELETE FROM votes WHERE vote_id BETWEEN 300 AND 600"}, args: []string{"--memory=64MB"}},
		{name: "while the connection is cut", rows: 200, steps: []string{"DELETE FROM votes WHERE vote_id > 20"}, cut: true},
		{name: "while capture is stopped", rows: 200, steps: []string{"TRUNCATE votes"}, away: true},
		{name: "another database", rows: 200, away: true, other: func(t *testing.T) string { return votesDatabase(t, 0) }},
		{name: "another cluster", rows: 200, away: true, other: func(t *testing.T) string {
			name := fmt.Sprint("other", databases.Add(1))
			sql(t, cluster().URL("postgres"), "CREATE DATABASE "+name)
			url := cluster().URL(name)
			sql(t, url, pgserver.VotesTable)
			return url
		}},
	}
}

// suits reports whether rows can be lost in this way under the source. For a command that runs without a daemon, capture is always
// stopped.
func (k *lossKind) suits(source string) bool {
	return source != "snapshot" || !k.cut && !(k.away && k.other == nil)
}

// A killStep is a step of a write or of what follows it: the nth system call of that name in a thread. The zero call kills nothing.
type killStep struct {
	call        string
	n           int
	compressing bool // whether the call is about the compressed state
}

// killCalls are the calls that change what is on disk, or their beginning.
var killCalls = []string{"openat", "fsync", "linkat", "renameat", "renameat2", "unlinkat", "pwrite64"}

// drawStep returns a step that most rounds take. Only a large file is patched.
func drawStep(r *rand.Rand, large bool) killStep {
	step := killStep{compressing: r.IntN(4) == 0}
	most := map[string]int{"openat": 6, "fsync": 5, "linkat": 1, "renameat": 4, "unlinkat": 4}
	if large {
		most["renameat2"], most["pwrite64"] = 1, 4
	}
	if step.compressing {
		most = map[string]int{"openat": 2, "fsync": 1, "renameat": 1, "unlinkat": 2}
	}
	draw := 0
	for _, call := range killCalls {
		for n := 1; n <= most[call]; n++ {
			if draw++; r.IntN(draw) == 0 {
				step.call, step.n = call, n
			}
		}
	}
	return step
}

func (s killStep) String() string {
	if s.call == "" {
		return fmt.Sprintf("no kill, compressing %t", s.compressing)
	}
	if s.compressing {
		return fmt.Sprintf("%s %d of compressing", s.call, s.n)
	}
	return fmt.Sprintf("%s %d", s.call, s.n)
}

// options returns the options with which strace kills a process at the step. The file is at path, and kept is the path of its
// kept state without the suffix.
func (s killStep) options(log, path, kept string) []string {
	options := []string{"-o", log, "-e", "trace=" + strings.Join(killCalls, ",")}
	if s.call != "" {
		options = append(options, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", s.call, s.n))
	}
	hidden := filepath.Join(filepath.Dir(kept), "."+filepath.Base(kept))
	paths := []string{hidden + ".json.gz.tmp", kept + ".json.gz", kept + ".json"}
	if !s.compressing {
		m := manifest.Path(path)
		paths = []string{path, path + ".tmp", m, m + ".tmp", filepath.Dir(path), kept + ".json", kept + ".manifest.json", hidden + ".manifest.json.tmp"}
	}
	for _, p := range paths {
		options = append(options, "-P", p)
	}
	return options
}

// lossSources are the ways in which capture gets the rows: the sources of a daemon, and `capture snapshot` without a daemon.
var lossSources = []string{"logical", "notify", "poll", "snapshot"}

// lossRound is one round of TestLossesKilledAtEachStep.
type lossRound struct {
	lossKind
	source string
	step   killStep
	dir    string
	path   string
	url    string
	env    []string
	proxy  *faultproxy.Proxy
	states []string       // content of the file before each step
	killed string         // call at which capture was killed; "" if it was not killed
	made   map[string]int // number of calls that one thread has made, by name
	t      *testing.T
}

// TestLossesKilledAtEachStep loses rows in each way under each source, and kills capture with SIGKILL at a step of the write
// that brings the loss to the file, or of compressing the state before. After each kill the file is whole. When capture has been
// started again, exactly the rows before the loss are kept, and the file equals the table.
//
// A run takes two rounds for each source, drawn from a seed that is logged. CAPTURE_TEST_SEED repeats them, CAPTURE_TEST_LOSSES=100
// takes as many rounds, and CAPTURE_TEST_LOSSES=all takes all of them.
func TestLossesKilledAtEachStep(t *testing.T) {
	if testing.Short() {
		t.Skip("kills many daemons")
	}
	t.Parallel()
	if out, err := exec.Command("strace", "-f", "-o", os.DevNull, "true").CombinedOutput(); errors.Is(err, exec.ErrNotFound) {
		t.Fatal("strace is not installed: run `make strace`")
	} else if err != nil {
		t.Skipf("this machine does not let strace trace: %v %s", err, out)
	}
	kinds := lossKinds(t)
	rounds := os.Getenv("CAPTURE_TEST_LOSSES")
	if rounds == "all" {
		for _, kind := range kinds {
			for _, source := range lossSources {
				if !kind.suits(source) {
					continue
				}
				t.Run(kind.name+"/"+source, func(t *testing.T) {
					t.Parallel()
					killAtEachStep(t, kind, source)
				})
			}
		}
		return
	}
	n, err := 2*len(lossSources), error(nil)
	if rounds != "" {
		if n, err = strconv.Atoi(rounds); err != nil {
			t.Fatalf("CAPTURE_TEST_LOSSES is neither all nor a number: %v", err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CAPTURE_TEST_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CAPTURE_TEST_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 19))
	for i := range n {
		source := lossSources[i%len(lossSources)]
		kind := kinds[r.IntN(len(kinds))]
		for !kind.suits(source) || kind.large && r.IntN(4) > 0 { // a large table takes ten times as long
			kind = kinds[r.IntN(len(kinds))]
		}
		step := drawStep(r, kind.large)
		t.Run(fmt.Sprintf("%s/%s/%s", source, kind.name, step), func(t *testing.T) {
			killed := (&lossRound{lossKind: kind, source: source, step: step, t: t}).run()
			t.Logf("killed at: %s", killed)
		})
	}
}

// killAtEachStep takes a round without a kill, which shows the calls, and then one round for each call.
func killAtEachStep(t *testing.T, kind lossKind, source string) {
	round := func(step killStep) (r lossRound) {
		t.Run(step.String(), func(t *testing.T) {
			r = lossRound{lossKind: kind, source: source, step: step, t: t}
			t.Logf("killed at: %s", r.run())
		})
		return r
	}
	rounds, kills := 0, 0
	for _, compressing := range []bool{false, true} {
		made := round(killStep{compressing: compressing}).made
		for _, call := range killCalls {
			for n := 1; n <= made[call]; n++ {
				rounds++
				if round(killStep{call: call, n: n, compressing: compressing}).killed != "" {
					kills++
				}
			}
		}
	}
	if kills < 8 {
		t.Errorf("%d kills", kills)
	}
	t.Logf("%d kills in %d rounds", kills, rounds)
}

// run takes the round, and returns the call at which capture was killed, or "" if it was not killed.
func (r *lossRound) run() (killed string) {
	r.dir = r.t.TempDir()
	r.path = filepath.Join(r.dir, "data/fallback/feedback.json")
	r.connect()
	d := r.begin()
	for i := range r.steps {
		isLast := i == len(r.steps)-1
		if kill := isLast != r.first; kill {
			d = r.loseAndKill(d, i)
		} else {
			d = r.lose(d, i)
		}
	}
	if len(r.steps) == 0 { // the loss is another database
		d = r.loseAndKill(d, 0)
	}
	r.check(d)
	return r.killed
}

// connect creates the table, and sets the URL that capture uses.
func (r *lossRound) connect() {
	r.url = votesDatabase(r.t, r.rows)
	if r.large {
		sql(r.t, r.url, "UPDATE votes SET bot_response = repeat(md5(vote_id::text), 400)") // 12.8 kB each, 19 MB together
	}
	if r.prepare != "" {
		sql(r.t, r.url, r.prepare)
	}
	seen := r.url
	if r.cut {
		server := pgserver.Shared(r.t)
		proxy, err := faultproxy.New(server.Addr())
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(proxy.Close)
		r.proxy, seen = proxy, strings.Replace(r.url, server.Addr(), proxy.Addr(), 1)
	}
	r.env = []string{"DATABASE_URL=" + seen}
	if r.large {
		r.env = append(r.env, "GOMEMLIMIT=64MiB")
	}
}

// arguments returns the arguments of capture.
func (r *lossRound) arguments() []string {
	if r.source == "snapshot" {
		return []string{"snapshot", "--output=" + r.path}
	}
	return append([]string{"run", "--listen=127.0.0.1:0", "--output=" + r.path, "--source=" + r.source, "--poll-interval=1s"}, r.args...)
}

// begin makes the file. It returns the running daemon, or nil if none runs.
func (r *lossRound) begin() *daemon {
	d := r.start()
	if d != nil && r.away {
		d.signal(syscall.SIGTERM)
		d.wait(stopTimeout)
		return nil
	}
	return d
}

// start starts a daemon and waits until the file equals the table, or runs `capture snapshot`.
func (r *lossRound) start() *daemon {
	r.t.Helper()
	if r.source == "snapshot" {
		if got := run(r.t, r.dir, r.env, r.arguments()...); got.code != exitDone {
			r.t.Fatalf("capture snapshot: %+v", got)
		}
		wantEqual(r.t, r.path, r.url)
		return nil
	}
	d := startIn(r.t, r.dir, r.env, r.arguments()...)
	d.path = r.path
	eventually(r.t, "the daemon's name in the lock file, in place of the killed one's", func() bool {
		d.alive()
		owner, held, err := store.ReadOwner(r.path)
		return err == nil && held && owner.PID == d.cmd.Process.Pid
	})
	d.ready()
	eventually(r.t, "the file equals the table", d.holds(r.url))
	return d
}

// lose takes step i without a kill.
func (r *lossRound) lose(d *daemon, i int) *daemon {
	r.remember()
	sql(r.t, r.url, r.steps[i])
	if d == nil {
		return r.start()
	}
	eventually(r.t, "the file equals the table", d.holds(r.url))
	return d
}

// remember remembers the file before a step.
func (r *lossRound) remember() {
	content, err := os.ReadFile(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	r.states = append(r.states, string(content))
}

// loseAndKill takes step i, and kills capture. Then it starts capture again.
func (r *lossRound) loseAndKill(d *daemon, i int) *daemon {
	r.remember()
	log := filepath.Join(r.dir, "strace")
	written, err := kept.List(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := manifest.Read(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	standing := m.WrittenAt.UTC().Truncate(time.Second)
	for _, s := range written { // a state whose second is taken gets the next one
		if s.Time.Equal(standing) {
			standing = standing.Add(time.Second)
		}
	}
	options := r.step.options(log, r.path, strings.TrimSuffix(r.path, ".json")+"-"+standing.Format("20060102T150405Z")+"-loss")
	detach := func() {}
	if d != nil {
		var ok bool
		if detach, ok = d.attachStrace(options...); !ok {
			r.t.Skip("strace can't attach to capture here")
		}
	}
	r.change(i)
	if d != nil {
		r.await(d)
		killed := isDead(d.cmd.Process.Pid)
		detach()
		if killed {
			d.wait(waitTimeout)
		}
	} else {
		r.runTraced(options)
	}
	r.readTrace(log)
	r.checkFile()
	if d != nil && r.killed == "" {
		return d
	}
	return r.start()
}

// change makes what step i changes, or moves to another database.
func (r *lossRound) change(i int) {
	if r.other != nil {
		r.url = r.other(r.t)
		r.env[0] = "DATABASE_URL=" + r.url
		return
	}
	if r.cut {
		r.proxy.Refuse()
		r.proxy.Cut()
	}
	sql(r.t, r.url, r.steps[i])
	if r.cut {
		if err := r.proxy.Accept(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// await waits until the daemon is killed, or until it has done all of its work.
func (r *lossRound) await(d *daemon) {
	isDone := d.holds(r.url)
	eventually(r.t, "the daemon is killed, or has compressed the state", func() bool {
		select {
		case <-d.done:
			return true
		default:
		}
		if isDead(d.cmd.Process.Pid) {
			return true
		}
		if !isDone() {
			return false
		}
		if r.first { // the first step is no loss
			return true
		}
		states, err := kept.List(r.path)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, s := range states {
			if !strings.HasSuffix(s.Path, ".gz") {
				return false
			}
		}
		plain, _ := filepath.Glob(strings.TrimSuffix(r.path, ".json") + "-*.json")
		plain = manifestsOmitted(plain)
		return len(states) > 0 && len(plain) == 0
	})
}

func manifestsOmitted(paths []string) (others []string) {
	for _, path := range paths {
		if !strings.HasSuffix(path, ".manifest.json") {
			others = append(others, path)
		}
	}
	return others
}

// isDead reports whether the main thread of a process has ended, although strace may still hold other ones.
func isDead(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// runTraced starts capture under strace, and waits until it is killed or done.
func (r *lossRound) runTraced(options []string) {
	cmd := prepare(r.t.Context(), r.dir, r.env, r.arguments()...)
	strace := exec.Command("strace", append(append([]string{"-f", "-qq"}, options...), append([]string{cmd.Path}, cmd.Args[1:]...)...)...)
	strace.Dir, strace.Env, strace.SysProcAttr = cmd.Dir, cmd.Env, &syscall.SysProcAttr{Setpgid: true}
	d := startCommand(r.t, strace)
	r.t.Cleanup(func() { _ = syscall.Kill(-strace.Process.Pid, syscall.SIGKILL) })
	d.path = r.path
	if r.source == "snapshot" {
		d.wait(waitTimeout)
		return
	}
	r.await(d)
	if owner, held, err := store.ReadOwner(r.path); err == nil && held { // not strace: without it, capture would run on
		_ = syscall.Kill(owner.PID, syscall.SIGTERM)
	}
	d.wait(waitTimeout)
}

// checkFile checks that the file is whole: it matches a manifest, as for any reader, and has the rows before the step or after it.
func (r *lossRound) checkFile() {
	r.t.Helper()
	rowsInFile(r.t, r.path)
	content, err := os.ReadFile(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	if string(content) != r.states[len(r.states)-1] && string(compact(content)) != table(r.t, r.url) {
		r.t.Errorf("after %q the file has neither the rows before nor those after", r.killed)
	}
}

// check checks the end: the file equals the table, and the state before is kept, listed and reported.
func (r *lossRound) check(d *daemon) {
	r.t.Helper()
	wantEqual(r.t, r.path, r.url)
	var loss kept.State
	eventually(r.t, "a compressed state before the loss", func() bool {
		states, err := kept.List(r.path)
		if err != nil {
			r.t.Fatal(err)
		}
		found := 0
		for _, s := range states {
			if s.Loss != nil {
				loss, found = s, found+1
			}
			if s.Damaged != "" {
				r.t.Fatalf("after a kill at %q a state is damaged: %+v", r.killed, s)
			}
			if !strings.HasSuffix(s.Path, ".gz") {
				return false
			}
		}
		if found != 1 {
			r.t.Fatalf("after a kill at %q there are %d losses: %+v", r.killed, found, states)
		}
		return true
	})
	if content := readState(r.t, loss.Path); content != r.states[len(r.states)-1] {
		r.t.Errorf("after a kill at %q the state has %d bytes, want %d: %+v", r.killed, len(content), len(r.states[len(r.states)-1]), loss)
	}
	r.checkHistory(loss)
	if d != nil {
		d.status(func(s capture.Status) bool {
			for _, c := range s.Checks {
				if c.Name == "loss" && !c.OK && strings.Contains(c.Detail, loss.Path) {
					return s.Ready
				}
			}
			return false
		})
		d.signal(syscall.SIGTERM)
		if code := d.wait(stopTimeout); code != exitDone {
			r.t.Errorf("exit code %d", code)
		}
	}
	if got := run(r.t, r.dir, r.env, "verify", r.path); got.code != exitDone {
		r.t.Errorf("capture verify: %+v", got)
	}
	entries, err := os.ReadDir(filepath.Dir(r.path))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		if !ownFile.MatchString(e.Name()) {
			r.t.Errorf("after a kill at %q, %s is left over", r.killed, e.Name())
		}
	}
}

// ownFile matches the names of the files that belong to feedback.json while nothing is under way.
var ownFile = regexp.MustCompile(`^feedback(\.json|\.manifest\.json|\.json\.lock|-\d{8}T\d{6}Z(-loss)?\.(json\.gz|manifest\.json))$`)

// checkHistory checks that `capture history` lists the state.
func (r *lossRound) checkHistory(loss kept.State) {
	r.t.Helper()
	got := run(r.t, r.dir, nil, "history", "--json", "--output="+r.path)
	var list history
	if err := json.Unmarshal([]byte(got.stdout), &list); err != nil || got.code != exitDone {
		r.t.Fatalf("capture history: %+v, %v", got, err)
	}
	for _, s := range list.States {
		if s.Where == loss.Path && s.Reason == "loss" && s.Rows == loss.Rows && s.Loss != "" && !s.Acknowledged && s.Damaged == "" {
			return
		}
	}
	r.t.Errorf("capture history lists %+v", list)
}

// readState returns the content of a kept state as `capture restore` reads it, and compares it with its manifest.
func readState(t *testing.T, path string) string {
	t.Helper()
	f, err := statefile.Open(t.Context(), path, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		t.Fatal(err)
	}
	if err := f.CheckManifest(countRows(t, b.String()), nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// readTrace reads what strace has written: the calls, and the one at which it killed capture.
func (r *lossRound) readTrace(log string) {
	trace, err := os.ReadFile(log)
	if err != nil {
		r.t.Fatal(err)
	}
	r.made = map[string]int{}
	byThread := map[string]int{}
	for line := range strings.Lines(string(trace)) {
		thread, text, _ := strings.Cut(line, " ")
		text = strings.TrimSpace(text)
		name, _, isCall := strings.Cut(text, "(")
		if !isCall || !slices.Contains(killCalls, name) {
			continue
		}
		byThread[thread+name]++
		r.made[name] = max(r.made[name], byThread[thread+name])
		if name == r.step.call && byThread[thread+name] == r.step.n {
			r.killed = text
		}
	}
	if !strings.Contains(string(trace), "killed by SIGKILL") {
		r.killed = ""
	}
}
