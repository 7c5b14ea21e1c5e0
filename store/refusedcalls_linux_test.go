package store_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"capture/store"
	"capture/store/manifest"
)

func init() { children["refused"] = writeWhileRefused }

// refusals has the system calls of a Write that a device or volume can refuse, by name. For each call, errnos lists the errors
// with which the call can fail. The error of the Write must then contain wantText.
var refusals = map[string]struct {
	wantText string
	errnos   []string
}{
	"openat":    {"open", []string{"EACCES", "ENOSPC", "EROFS", "EIO", "EMFILE"}},
	"write":     {"write", []string{"ENOSPC", "EIO", "EDQUOT"}},
	"pwrite64":  {"write", []string{"EIO", "ENOSPC", "EDQUOT"}},
	"ftruncate": {"truncate", []string{"EIO"}},
	"fsync":     {"sync", []string{"EIO", "ENOSPC", "EDQUOT"}},
	"renameat":  {"rename", []string{"ENOSPC", "EIO", "EROFS", "EACCES"}},
	"renameat2": {"rename", []string{"EIO", "EROFS", "ENOSPC"}},
	"linkat":    {"link", []string{"EIO", "ENOSPC"}},
	"unlinkat":  {"", []string{"EIO", "EROFS", "EACCES"}},
	"fchmod":    {"chmod", []string{"EIO", "EROFS"}},
	"utimensat": {"", []string{"EIO"}},
	"ioctl":     {"", []string{"EIO"}},
	"fcntl":     {"", []string{"EAGAIN"}},
}

// advice maps the error of a refused call to a text that the Write's error must contain.
var advice = map[string]string{
	"ENOSPC": "free some space", "EDQUOT": "free some space", "EIO": "the device fails", "EROFS": "mount that volume writable",
	"EACCES": "let user", "EMFILE": "ulimit -n",
}

// A refusal is a call that strace makes fail with the error err: the nth call of its name in the thread that writes.
type refusal struct {
	call *call
	nth  int
	err  string
}

func (r refusal) String() string {
	return fmt.Sprintf("%s:error=%s:when=%d", r.call.name, r.err, r.nth)
}

// steps lists the calls that strace can refuse. If nth is not 0, these are the calls of the nth Write, counted from 1. If
// nth is 0, they are the calls that keep a state after one Write, and number is the number of this Write. If all is set,
// steps lists each call once for each of its possible errors, otherwise only once.
func (p *replay) steps(nth, number int, all bool) []refusal {
	d, s := newDevice(p.root), &transcript{foreign: p.foreign, seen: p.seen}
	made := map[string]int{} // number of calls so far, by name
	var steps []refusal
	kept := -1
	for _, c := range p.calls {
		if c.thread != p.calls[0].thread {
			continue // all writes come from one thread, which also makes the first call
		}
		made[c.name]++
		c := *c // work on a copy, because apply changes the names of some calls
		name, count := c.name, made[c.name]
		concerns := d.concerns(&c)
		d.apply(&c)
		switch s.readLine(&c) {
		case "done":
			kept = len(s.begun)
		case "kept":
			kept = -1
		}
		writing := len(s.begun) == nth && s.done < nth
		if nth == 0 {
			writing = kept == number
		}
		errors := refusals[name].errnos
		if !writing || !concerns || len(errors) == 0 || c.ret < 0 || name == "fcntl" && !strings.Contains(fmt.Sprint(c.args), "F_SETLEASE") {
			continue
		}
		for i, err := range errors {
			if err == "EDQUOT" && nth > number { // with EDQUOT, the Write would drop the kept state and succeed, which TestQuota tests
				err = "EIO"
			}
			if all || i == len(steps)%len(errors) {
				steps = append(steps, refusal{&c, count, err})
				if !all {
					break
				}
			}
		}
	}
	return steps
}

// mustFail reports whether the Write must return an error if the call fails.
func (r refusal) mustFail() bool {
	switch r.call.name {
	case "write", "pwrite64", "ftruncate", "fsync", "renameat", "renameat2":
		return true
	case "openat":
		return strings.Contains(r.call.args[2], "O_CREAT")
	}
	return false
}

// TestCallsRefused makes each system call of a writer fail once, with the errors of devices and volumes (EIO, ENOSPC,
// EDQUOT, EROFS, …). The Write's error must name the step, the path and what to do. The folder must then have either the
// complete old file or the complete new file, and no needless temporary file. The next Write must work. TestCallsRefused
// also cuts the power after the refused call and after each later call. Pages that were dirty at a failed fsync then count
// as lost, so the writer must write them again. With STORE_TEST_ERRORS=all, each call fails with each of its possible
// errors.
func TestCallsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("makes each system call fail")
	}
	needStrace(t)
	if withoutRaceDetector(t) {
		return
	}
	all := os.Getenv("STORE_TEST_ERRORS") == "all"
	for name, c := range map[string]struct {
		rows    int
		foreign []byte
		write   int    // number of the Write whose calls are refused; 0 for the calls that keep a state after Write 3
		calls   string // names of the calls to refuse; "" for all
	}{
		"changed":    {rows: 20, write: 2},
		"unchanged":  {rows: 20, write: 3},
		"kept":       {rows: 20},
		"damaged":    {rows: 20, write: 1, foreign: []byte("[\n{\"vote_id\":1}")},
		"lost":       {rows: 60, write: 6},
		"made large": {rows: largeRows, write: 2, calls: "write renameat2 ioctl"},
		"patched":    {rows: largeRows, write: 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			writes := max(c.write, 3) + 1 // at least one Write after the failure
			clean, err := record(t, c.rows, writes, c.foreign)
			if err != nil {
				t.Fatal(err)
			}
			clean.random = 1
			if _, err := clean.run(t); err != nil { // tests the power cuts that the loop below skips: those before the refused call
				t.Fatal(err)
			}
			steps := clean.steps(c.write, 3, all)
			if len(steps) < 6 {
				t.Fatalf("%d steps: %v", len(steps), steps)
			}
			for _, step := range steps {
				if c.calls != "" && !slices.Contains(strings.Fields(c.calls), step.call.name) {
					continue
				}
				p := refuse(t, step, c.rows, writes, c.foreign)
				p.from = p.refused()
				if err := p.recovers(step); err != nil {
					t.Errorf("%s of %s: %v", step, step.call, err)
				}
				p.random = 1
				if _, err := p.run(t); err != nil {
					t.Errorf("%s of %s: %v", step, step.call, err)
				}
			}
			t.Logf("%d steps", len(steps))
		})
	}
}

// refuse records a writer while strace refuses the call that step describes. Occasionally Go's runtime makes a call of the same
// name in the same thread. strace then refuses the wrong call, and refuse tries again.
func refuse(t *testing.T, step refusal, rows, writes int, foreign []byte) *replay {
	t.Helper()
	var p *replay
	var err error
	for range 10 {
		p, err = record(t, rows, writes, foreign, "-e", "inject="+step.String())
		if err == nil && p.refused() != nil {
			return p
		}
	}
	t.Fatalf("%s of %s: another call was refused: %v", step, step.call, err)
	return nil
}

// refused returns the call that strace made fail. It returns nil if that call does not concern p's files.
func (p *replay) refused() *call {
	d := newDevice(p.root)
	for _, c := range p.calls {
		if c.injected && d.concerns(c) {
			return c
		}
		d.apply(c)
	}
	return nil
}

// recovers checks the error after the refused call, the files at that time, and the files at the end.
func (p *replay) recovers(step refusal) error {
	d, s := newDevice(p.root), &transcript{foreign: p.foreign, seen: p.seen}
	if p.foreign != nil {
		d.addFile(p.path, p.foreign)
	}
	refused, failures, renamed := 0, 0, false
	for _, c := range p.calls {
		if c.injected {
			refused++
		}
		if c.name == "renameat" || c.name == "renameat2" {
			renamed = renamed || c.ret == 0 && d.path(c, 3) == p.path && refused == 0
		}
		if _, err := d.apply(c); err != nil {
			return err
		}
		switch s.readLine(c) {
		case "begin":
			renamed = renamed && refused > 0
		case "failed":
			if failures > 0 && strings.Contains(s.failed, "nothing new to keep") {
				continue // a Write that failed leaves no state to keep
			}
			failures++
			if err := s.explains(step, p.root); err != nil {
				return err
			}
			if left := d.leftover(p.path, renamed); left != nil {
				return fmt.Errorf("left over after the failure: %v", left)
			}
		}
	}
	switch {
	case refused != 1:
		return fmt.Errorf("%d calls were refused", refused)
	case failures > 1:
		return fmt.Errorf("%d Writes failed, the last with %s", failures, s.failed)
	case failures == 0 && step.mustFail():
		return fmt.Errorf("the Write returned no error")
	case s.failed != "":
		return fmt.Errorf("the last Write failed: %s", s.failed)
	}
	if left := d.leftover(p.path, false); left != nil {
		return fmt.Errorf("left over at the end: %v", left)
	}
	return nil
}

// explains returns an error unless the writer's last error names the step, the path and what to do.
func (s *transcript) explains(step refusal, root string) error {
	for _, word := range []string{refusals[step.call.name].wantText, root, advice[step.err]} {
		if !strings.Contains(s.failed, word) {
			return fmt.Errorf("%q is not in the error: %s", word, s.failed)
		}
	}
	return nil
}

// leftover returns the names of temporary files that capture does not need. If only the data file has been renamed, capture
// still needs the temporary manifest.
func (d *device) leftover(path string, renamed bool) []string {
	var left []string
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		if strings.HasSuffix(name, ".tmp") && !(renamed && name == manifest.Path(path)+".tmp") {
			left = append(left, filepath.Base(name))
		}
	}
	return left
}

// writeWhileRefused writes the file at args[0] once. It then makes the system call with the number args[1] fail, writes the
// file twice more, and prints the error of each of these two writes.
func writeWhileRefused(args []string) error {
	f, err := store.Open(args[0], owner)
	if err != nil {
		return err
	}
	if _, err := f.Write(votes(10, "x").View(), store.ReasonStart); err != nil {
		return err
	}
	var number uint32
	if _, err := fmt.Sscan(args[1], &number); err != nil {
		return err
	}
	if err := filter(number); err != nil {
		return fmt.Errorf("%s: %w", refuseRefused, err)
	}
	for range 2 {
		_, err := f.Write(votes(20, "x").View(), store.ReasonChange)
		fmt.Println(err)
	}
	return nil
}

const refuseRefused = "seccomp is refused"

// filter installs a seccomp filter that makes the system call with this number fail with EIO, in all threads of this
// process.
func filter(number uint32) error {
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // load the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: number, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EIO)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

// TestSyncRefused makes fsync or rename fail, without strace. It checks that a Write makes the call and returns its error.
func TestSyncRefused(t *testing.T) {
	t.Parallel()
	for name, number := range map[string]int{"sync": unix.SYS_FSYNC, "rename": unix.SYS_RENAMEAT} {
		path := filepath.Join(t.TempDir(), "feedback.json")
		out, err := child("refused", path, fmt.Sprint(number)).Output()
		if err != nil {
			t.Fatalf("%s", out)
		}
		said := strings.Split(strings.TrimSpace(string(out)), "\n")
		for _, line := range said {
			for _, word := range []string{name + " ", path, "input/output error", "the device fails"} {
				if !strings.Contains(line, word) {
					t.Errorf("%s: %q is not in %q", name, word, line)
				}
			}
		}
		if len(said) != 2 {
			t.Errorf("%s: %q", name, said)
		}
		if m := checkPair(t, path); m.Rows != 10 {
			t.Errorf("%s: %d rows", name, m.Rows)
		}
		if left := leftovers(t, path); left != nil {
			t.Errorf("%s: left over: %v", name, left)
		}
		f := open(t, path)
		write(t, f, votes(30, "z").View(), store.ReasonStart)
		if m := checkPair(t, path); m.Rows != 30 {
			t.Errorf("%s: %d rows", name, m.Rows)
		}
	}
}
