package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = 2 * time.Minute // long enough for crash recovery on a busy machine
	stopTimeout  = time.Minute
	closeTimeout = 5 * time.Second // longest time that Close waits for an immediate shutdown
)

// serverUser returns the user that the server programs run as, or nil for the user of this process. If this process runs as
// root, another user is necessary, because Postgres refuses to run as root.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("look up user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("look up user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("find a user to run Postgres as: it refuses to run as root, and there is neither postgres nor nobody")
}

// serverEnv returns the environment of this process without the variables of libpq, because the server programs would read
// them.
func serverEnv() []string {
	env := []string{"LC_ALL=C"}
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "PG") && !strings.HasPrefix(entry, "LC_ALL=") {
			env = append(env, entry)
		}
	}
	return env
}

// process is a running server program with its children.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the program and all its children have exited
}

// startProcess starts a program that appends its output to log. The program has a session of its own, so Ctrl-C in a
// terminal reaches this process but not the program.
func startProcess(log string, credential *syscall.Credential, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	// The program and all its children inherit the write end of this pipe, and do not write to it. EOF therefore means that
	// all of them have exited.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()

	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	cmd.Env = serverEnv()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: credential}
	if err := cmd.Start(); err != nil {
		r.Close()
		return nil, err
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // the exit state stays in cmd.ProcessState
		_, _ = io.Copy(io.Discard, r)
		r.Close()
		close(p.exited)
	}()
	return p, nil
}

// waitExit waits until the program and all its children have exited.
func (p *process) waitExit(ctx context.Context) error {
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// killTree kills the program and its children at once, as a power cut would.
func (p *process) killTree() {
	// SIGSTOP suspends the program, so that it cannot fork more children while childrenOf lists its children.
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err == nil {
		children := childrenOf(p.cmd.Process.Pid)
		_ = p.cmd.Process.Kill()
		for _, pid := range children {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	<-p.exited
}

// childrenOf lists the children of a process from /proc. On systems without /proc, it returns nil. On these systems, the
// children of a killed server exit on their own once they notice that the server is dead.
func childrenOf(parent int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var pids []int
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // the process has exited
		}
		// The file contains "pid (name) state ppid …". The name may contain anything, so only the text after the last
		// parenthesis is parsed.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// reaperScript reads PIDs from its standard input until EOF, which comes when the Go process dies in any way. The script
// then stops the server whose PID it has read last (0 means none), and removes the server's folder. If the Go process dies
// after it has started a server and before it has written the PID, the script only removes the folder. The server notices
// within a minute that its data folder is gone, and stops.
const reaperScript = `
trap "" HUP INT TERM
pid=0
while read -r line; do pid=$line; done
if [ "$pid" -gt 1 ] && kill -QUIT "$pid" 2>/dev/null; then
	kill -CONT "$pid" 2>/dev/null
	n=0
	while [ $n -lt 100 ] && [ -e "$1/data/postmaster.pid" ] && kill -0 "$pid" 2>/dev/null; do
		sleep 0.1
		n=$((n + 1))
	done
	kill -KILL "$pid" 2>/dev/null
fi
n=0
until rm -rf "$1" 2>/dev/null || [ $n -ge 50 ]; do
	sleep 0.1
	n=$((n + 1))
done
`

// reaper is a shell that outlives this process and cleans up after it.
type reaper struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func startReaper(root string) (*reaper, error) {
	cmd := exec.Command("/bin/sh", "-c", reaperScript, "capture-postgres-reaper", root)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &reaper{cmd: cmd, stdin: stdin}, nil
}

// setTarget sets the process that the reaper stops when this process dies. If p is nil, the reaper stops no process.
func (r *reaper) setTarget(p *process) {
	pid := 0
	if p != nil {
		pid = p.cmd.Process.Pid
	}
	_, _ = fmt.Fprintln(r.stdin, pid) // fails if the reaper was killed; then Close removes the folder
}

// close makes the reaper clean up and waits for it.
func (r *reaper) close() {
	_ = r.stdin.Close()
	_ = r.cmd.Wait()
}
