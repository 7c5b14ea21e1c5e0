package capture

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capture/internal/filetest"
	"capture/internal/pgserver"
)

// TestIdle: while a change cannot be written, neither capture nor its walsender is busy.
func TestIdle(t *testing.T) {
	if testing.Short() {
		t.Skip("waits while nothing happens")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 10)
	path := filepath.Join(t.TempDir(), "feedback.json")
	c := startChild(t, url, path)
	c.says("ready")
	breakFile(t, path)
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('unflushed')")
	c.says("unwell")
	sender := queryOne[int](t, conn, "SELECT active_pid FROM pg_replication_slots WHERE database = current_database()")
	pids := []int{c.cmd.Process.Pid, sender}
	// The docs promise that an idle capture uses less than 1 % of a CPU. The test allows up to 5 %, because the race detector
	// and the child's own reports need some CPU time, too. At first, capture often tries to write the file again, so it is
	// enough if one of several windows is calm. If capture looped without a pause, no window would be calm.
	const span, windows = 4 * time.Second, 8
	for i, who := range []string{"capture", "its walsender"} {
		calm := false
		for n := 0; n < windows && !calm; n++ {
			before := cpu(t, pids[i])
			time.Sleep(span) // CPU time is measured against elapsed time
			calm = cpu(t, pids[i])-before <= span/20
		}
		if !calm {
			t.Errorf("%s used more than 5 %% of a CPU in each of %d times %s", who, windows, span)
		}
	}
}

// cpu returns the CPU time that a process has used.
func cpu(t testing.TB, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	var ticks int
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // Linux counts 100 ticks a second
}

// TestNoDescriptorLeft: the process reaches its limit of open files, and reports this. Once the limit is raised, the process
// writes the missing changes.
func TestNoDescriptorLeft(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 10)
	path := filepath.Join(t.TempDir(), "feedback.json")
	c := startChild(t, url, path)
	c.says("ready")
	var was unix.Rlimit
	if err := unix.Prlimit(c.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: 4096}, &was); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('meanwhile')")
	c.says("unwell", "too many open files")
	was.Max = 4096
	was.Cur = min(was.Cur, was.Max)
	if err := unix.Prlimit(c.cmd.Process.Pid, unix.RLIMIT_NOFILE, &was, nil); err != nil {
		t.Fatal(err)
	}
	c.says("ready")
	if code := c.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	sameFile(t, path, oracle(t, conn, "votes", "vote_id"))
}

// TestVolumeFull runs the daemon on a volume of its own, in a mount namespace. The volume is first too small for the file,
// then large enough, then read-only, and then writable again. If a write fails, the daemon reports the reason. A later write
// contains all changes.
func TestVolumeFull(t *testing.T) {
	t.Parallel()
	if !mayMount() {
		t.Skip("nothing can be mounted here; TestWritesFail and the package store's tests stand in for the full volume")
	}
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 10)
	dir := t.TempDir()
	c := startChildIn(t, url, filepath.Join(dir, "feedback.json"), &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}, childMounts+"="+dir)
	c.says("ready")
	exec(t, conn, "INSERT INTO votes (user_query, bot_response) SELECT 'much', repeat(md5(i::text), 30) FROM generate_series(1, 2000) i")
	c.says("unwell", "no space left", "free some space")
	inside := fmt.Sprintf("/proc/%d/root%s", c.cmd.Process.Pid, dir)
	b, err := os.ReadFile(filepath.Join(inside, "feedback.json"))
	if err != nil {
		t.Fatal(err)
	}
	if rows, err := filetest.Rows(b); err != nil || len(rows) != 10 {
		t.Errorf("the old file has %d rows: %v", len(rows), err)
	}
	c.remount("size=64m")
	c.says("ready")
	c.remount("ro")
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('while it is read-only')")
	c.says("unwell", "read-only")
	c.remount("rw")
	c.says("ready")
	sameFile(t, filepath.Join(inside, "feedback.json"), oracle(t, conn, "votes", "vote_id"))
	if code := c.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
