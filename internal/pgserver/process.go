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
)

// account is the user that the server's programs run as: nil for the one of this process.
func account() (*syscall.Credential, error) {
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
	return nil, errors.New("there is neither a user postgres nor nobody to run the server as: it refuses to run as root")
}

// environment is this process' own without libpq's variables, which the server's programs read too.
func environment() []string {
	env := []string{"LC_ALL=C"}
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "PG") && !strings.HasPrefix(entry, "LC_ALL=") {
			env = append(env, entry)
		}
	}
	return env
}

// process is one program of the server with all that it forked.
type process struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed once the program has been waited for and none of its children is left
}

// launch starts a program with its output at the end of log. The program is in a session of its own, so that Ctrl-C in
// a terminal reaches us but not it.
func launch(log string, as *syscall.Credential, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	// Every child inherits the pipe's end and nobody writes to it: its end of file says that the last one is gone.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()

	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: as}
	if err := cmd.Start(); err != nil {
		r.Close()
		return nil, err
	}
	p := &process{cmd: cmd, gone: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // the exit state stays in cmd.ProcessState
		_, _ = io.Copy(io.Discard, r)
		r.Close()
		close(p.gone)
	}()
	return p, nil
}

// wait returns once the program and all its children are gone.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// kill ends the program and its children at once, as a power cut would.
func (p *process) kill() {
	// Stopped first, it can fork no more children while they are looked up.
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err == nil {
		children := childrenOf(p.cmd.Process.Pid)
		_ = p.cmd.Process.Kill()
		for _, pid := range children {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	<-p.gone
}

// childrenOf lists a process' children from /proc. Where there is none, a killed server's children end by themselves
// as soon as they notice.
func childrenOf(parent int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var pids []int
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		// "pid (name) state ppid …": the name may hold anything, so what follows its last parenthesis is parsed.
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

// keeperScript reads the numbers of the processes to watch from its standard input, which ends when this process does,
// however it dies. Then it stops the last one (0 for none) and removes the folder. A process that was started but not
// yet announced stops by itself: a server that misses its data folder does so within a minute.
const keeperScript = `
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

// keeper is the shell that outlives this process to clean up after it.
type keeper struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func startKeeper(root string) (*keeper, error) {
	cmd := exec.Command("/bin/sh", "-c", keeperScript, "capture-postgres-keeper", root)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &keeper{cmd: cmd, stdin: stdin}, nil
}

// watch says which process is to be stopped when this one dies; nil for none.
func (k *keeper) watch(p *process) {
	pid := 0
	if p != nil {
		pid = p.cmd.Process.Pid
	}
	_, _ = fmt.Fprintln(k.stdin, pid) // a keeper that someone killed can't keep; Close removes the folder then
}

// close lets the keeper clean up and waits for it.
func (k *keeper) close() {
	_ = k.stdin.Close()
	_ = k.cmd.Wait()
}
