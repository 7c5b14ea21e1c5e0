package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"capture/internal/faultproxy"
	"capture/internal/pgserver"
	"capture/store"
	"capture/store/kept"
	"capture/store/manifest"
)

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
	killed string         // system call at which capture was killed; "" if it was not killed
	made   map[string]int // maps a system call to the largest number of its calls by one thread
	t      *testing.T
}

// run executes the round. It returns the system call at which capture was killed, or "" if capture was not killed.
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
	if len(r.steps) == 0 { // the loss comes from switching to another database
		d = r.loseAndKill(d, 0)
	}
	r.check(d)
	return r.killed
}

// connect creates the table, and sets the URL that capture uses.
func (r *lossRound) connect() {
	r.url = votesDatabase(r.t, r.rows)
	if r.large {
		sql(r.t, r.url, "UPDATE votes SET bot_response = repeat(md5(vote_id::text), 400)") // each row has 12.8 kB, and all rows have 19 MB
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

// begin runs capture for the first time, so that it writes the file. It returns the running daemon, or nil
// if the source is "snapshot" or if begin has stopped the daemon because r.away is set.
func (r *lossRound) begin() *daemon {
	d := r.start()
	if d != nil && r.away {
		d.signal(syscall.SIGTERM)
		d.wait(stopTimeout)
		return nil
	}
	return d
}

// start runs `capture snapshot` if the source is "snapshot". Otherwise it starts a daemon, and waits until the file equals
// the table.
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

// lose runs the statement of step i without a kill, and waits until the file equals the table.
func (r *lossRound) lose(d *daemon, i int) *daemon {
	r.remember()
	sql(r.t, r.url, r.steps[i])
	if d == nil {
		return r.start()
	}
	eventually(r.t, "the file equals the table", d.holds(r.url))
	return d
}

// remember stores the content of the file before a step.
func (r *lossRound) remember() {
	content, err := os.ReadFile(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	r.states = append(r.states, string(content))
}

// loseAndKill runs the statement of step i while strace traces capture and kills it at the round's killStep. Then loseAndKill
// starts capture again unless capture still runs.
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
	if len(written) > 0 && !written[0].Time.Before(standing) { // a new state is at least a second newer than all other states
		standing = written[0].Time.Add(time.Second)
	}
	options := r.step.options(log, r.path, strings.TrimSuffix(r.path, ".json")+"-"+standing.Format("20060102T150405Z")+"-loss")
	detach := func() {}
	if d != nil {
		detach = d.mustAttachStrace(options...)
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

// change runs the statement of step i, or moves capture to another database.
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

// await waits until the daemon is killed, or until the file equals the table and all kept states are compressed. If r.first
// is set, there is no kept state to wait for, because the first step alone causes no loss.
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
		if r.first { // there is no kept state
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

// isDead reports whether the main thread of a process has ended. strace may still hold other threads, so a wait for the
// process might not return yet.
func isDead(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// runTraced starts capture under strace, and waits until capture is killed or done.
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
	if owner, held, err := store.ReadOwner(r.path); err == nil && held { // capture can outlive strace, so the test must end it, too
		_ = syscall.Kill(owner.PID, syscall.SIGTERM)
	}
	d.wait(waitTimeout)
}
