package store_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"capture/snapshot"
	"capture/store"
	"capture/store/disk"
	"capture/store/kept"
)

func init() {
	children["share write"] = func(args []string) error { store.PretendShare(); return writeEndlessly(args) }
	children["share crash"] = func(args []string) error { store.PretendShare(); return crashBetweenRenames(args) }
	children["share twice"] = writeTwiceOnShare
	children["share rival"] = writeAsRival
	children["share replaced"] = replaceLockFile
	children["share keep"] = keepOnShare
	children["probe"] = printProbe
}

// writeTwiceOnShare writes two versions, and prints the error and warning of each Write.
func writeTwiceOnShare(args []string) error {
	store.PretendShare()
	f, err := store.Open(args[0], owner)
	if err != nil {
		return err
	}
	for i := range 2 {
		r, err := f.Write(votes(10+i, "x").View(), store.ReasonChange)
		fmt.Printf("%v | %s\n", err, r.Warning)
	}
	return f.Close()
}

// writeAsRival writes versions in which all rows have the text args[1], until another process has put its own random word into
// the lock file (see lockword.go).
func writeAsRival(args []string) error {
	store.PretendShare()
	f, err := store.Open(args[0], store.Owner{PID: os.Getpid(), Host: args[1], Version: "1.2.3"})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	tab := votes(400, args[1])
	for i := 0; ; i++ {
		tab.Put(key(i%2000), fmt.Appendf(nil, `{"vote_id":%d,"comment":%q}`, i%2000, args[1]))
		tab.Commit(snapshot.Position{LSN: 1})
		if _, err := f.Write(tab.View(), store.ReasonChange); errors.As(err, new(*store.LockedError)) {
			fmt.Println("lost:", err)
			return nil
		} else if err != nil {
			fmt.Println("failed:", err) // for example, the other process has removed the temporary file
		}
	}
}

// replaceLockFile replaces the lock file and then writes a version, several times. It prints the hosts that the warnings name.
func replaceLockFile(args []string) error {
	store.PretendShare()
	var f *store.File
	for i, host := range []string{"first", "second", ""} {
		os.Remove(args[0] + ".lock")
		if host != "" {
			if err := os.WriteFile(args[0]+".lock", fmt.Appendf(nil, `{"pid":4711,"host":%q}`, host), 0o600); err != nil {
				return err
			}
		}
		if f == nil {
			var err error
			if f, err = store.Open(args[0], owner); err != nil {
				return err
			}
			defer f.Close()
		}
		r, err := f.Write(votes(10+i, "x").View(), store.ReasonChange)
		if err != nil {
			return err
		}
		_, named, _ := strings.Cut(r.Warning, "names process 4711 on host ")
		named, _, _ = strings.Cut(named, ":")
		fmt.Printf("[%s]", named)
	}
	return nil
}

func printProbe(args []string) error {
	fs, err := store.ProbeFileSystem(args[0])
	fmt.Printf("%+v %v\n", fs, err)
	return nil
}

// straced returns a command that runs cmd under strace with the given options. calls names the traced system calls.
func straced(t *testing.T, ctx context.Context, cmd *exec.Cmd, calls string, options ...string) *exec.Cmd {
	t.Helper()
	args := append([]string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + calls, "-e", "signal=none"}, options...)
	traced := exec.CommandContext(ctx, "strace", append(append(args, cmd.Path), cmd.Args[1:]...)...)
	traced.Env = cmd.Env
	return traced
}

// TestTwoWritersWithoutLocks runs two writers on a share that grants every lock. No reader may see a file that is cut short
// or that mixes the two writers, and the writer that started first must stop. strace delays the renames of the first writer,
// and keeps the files of the second writer empty for long. If both writers used the same temporary name, the first writer
// would publish the empty file of the second writer.
func TestTwoWritersWithoutLocks(t *testing.T) {
	if testing.Short() {
		t.Skip("delays renames")
	}
	needStrace(t)
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 4 {
		path := filepath.Join(t.TempDir(), "feedback.json")
		rival := func(text, delay string) (*bufio.Reader, *exec.Cmd) {
			cmd := straced(t, ctx, child("share rival", path, text), "flock,pwrite64,renameat,renameat2", "-e", "inject=flock:retval=0", "-e", "inject="+delay)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { killGroup(cmd) })
			r := bufio.NewReader(out)
			if line, err := r.ReadString('\n'); line != "ready\n" {
				t.Fatalf("%s: %q, %v", text, line, err)
			}
			return r, cmd
		}
		first, firstCmd := rival("aaaa", "renameat,renameat2:delay_enter=300000:when=3+3")
		for !disk.Exists(path) {
			time.Sleep(time.Millisecond)
		}
		stop, seen := make(chan struct{}), make(chan int)
		go func() {
			n := 0
			for {
				select {
				case <-stop:
					seen <- n
					return
				default:
				}
				data, err := os.ReadFile(path)
				if err != nil || !json.Valid(data) || !bytes.HasSuffix(data, []byte("}\n]\n")) || bytes.Contains(data, []byte("aaaa")) == bytes.Contains(data, []byte("bbbb")) {
					t.Errorf("a reader saw %d bytes, with rows of both writers or torn; %v", len(data), err)
				}
				n++
			}
		}()
		_, secondCmd := rival("bbbb", "pwrite64:delay_enter=100000")
		var said string
		for {
			line, err := first.ReadString('\n')
			said += line
			if strings.HasPrefix(line, "lost:") || err != nil {
				break
			}
		}
		if !strings.Contains(said, "lost: ") || !strings.Contains(said, `"bbbb"`) {
			t.Errorf("the first writer did not stop: %s", said)
		}
		firstCmd.Wait()
		time.Sleep(50 * time.Millisecond) // lets the second writer write some more versions
		close(stop)
		n := <-seen
		killGroup(secondCmd)
		t.Logf("%d reads; the first writer said %s", n, said)
	}
}

// killGroup kills strace and also the process that it traces, which would otherwise survive.
func killGroup(cmd *exec.Cmd) {
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	cmd.Wait()
}

// TestOwnerInReplacedLockFile checks that the warning names the process in the new lock file if the lock file was replaced.
// If the new lock file is empty, the warning must not name a process.
func TestOwnerInReplacedLockFile(t *testing.T) {
	t.Parallel()
	out, err := child("share replaced", filepath.Join(t.TempDir(), "feedback.json")).Output()
	if err != nil || string(out) != `["first"]["second"][]` {
		t.Errorf("the warnings name %s; %v", out, err)
	}
}

// TestReaderBlocksRename makes renames fail, as SMB does while a reader has the file open. It checks that Write repeats the
// rename until it succeeds, and then returns a warning.
func TestReaderBlocksRename(t *testing.T) {
	if testing.Short() {
		t.Skip("waits between renames")
	}
	needStrace(t)
	t.Parallel()
	for _, name := range []string{"EACCES", "EBUSY"} {
		// Rename 1 probes the file system. Rename 2 gives the pending manifest its name, rename 3 the file, and rename 4 the
		// manifest.
		for n := 2; n <= 4; n++ {
			path := filepath.Join(t.TempDir(), "feedback.json")
			cmd := straced(t, t.Context(), child("share twice", path), "renameat,renameat2", "-e", "inject=renameat,renameat2:error="+name+":when="+strconv.Itoa(n)+".."+strconv.Itoa(n+3))
			out, err := cmd.Output()
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if err != nil || len(lines) != 2 || !strings.HasPrefix(lines[0], "<nil> | ") || !strings.Contains(lines[0], "a reader with an open file") || lines[1] != "<nil> |" {
				t.Errorf("%s of rename %d: %v\n%s", name, n, err, out)
			}
			if m := checkPair(t, path); m.Rows != 11 {
				t.Errorf("%s of rename %d: %d rows", name, n, m.Rows)
			}
			if left := leftovers(t, path); left != nil {
				t.Errorf("%s of rename %d: left over: %v", name, n, left)
			}
		}
	}
	// Now every rename except the first fails, as if a reader never closed the file.
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	write(t, f, votes(10, "x").View(), store.ReasonStart)
	f.Close()
	out, err := straced(t, t.Context(), child("share twice", path), "renameat,renameat2", "-e", "inject=renameat,renameat2:error=EACCES:when=2+").Output()
	// Only the first Write's line counts. The second Write fails at another rename: that of a kept state.
	line, _, _ := strings.Cut(string(out), "\n")
	if !strings.Contains(line, "a reader seems to have feedback.manifest.json.tmp open") || strings.Contains(line, "let user") {
		t.Errorf("%v: %s", err, line)
	}
	if m := checkPair(t, path); m.Rows != 10 {
		t.Errorf("%d rows", m.Rows)
	}
	if left := leftovers(t, path); left != nil {
		t.Errorf("left over: %v", left)
	}
}

// TestKillOnShare kills writers on a share at random moments and between the two renames. It checks that the file is always
// complete, and that Open finds it intact.
func TestKillOnShare(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	first := open(t, path)
	write(t, first, votes(1, "x").View(), store.ReasonStart)
	first.Close()
	killWriters(t, "share write", path, 10, func(data []byte) error {
		if !json.Valid(data) || !bytes.HasSuffix(data, []byte("}\n]\n")) {
			return fmt.Errorf("%d bytes that are no complete file", len(data))
		}
		return nil
	}, 0)
	cmd := child("share crash", path)
	started(t, cmd)
	cmd.Wait()
	f := open(t, path)
	if m, ok := f.Existing(); !ok || m.Rows != 9 {
		t.Errorf("between the renames: %+v, %v", m, ok)
	}
}

func TestProbeFileSystem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fs, err := store.ProbeFileSystem(dir)
	if err != nil || fs.Name == "" || !fs.LocksHold || !fs.ReplacesOpenFiles {
		t.Errorf("%+v, %v", fs, err)
	}
	if _, err := store.ProbeFileSystem(filepath.Join(dir, "missing")); err == nil {
		t.Error("no error for a missing folder")
	}
	needStrace(t)
	for inject, want := range map[string]string{
		"flock:retval=0":                  "LocksHold:false ReplacesOpenFiles:true",
		"flock:error=ENOLCK":              "LocksHold:false ReplacesOpenFiles:true",
		"renameat,renameat2:error=EACCES": "LocksHold:true ReplacesOpenFiles:false",
	} {
		trace, _, _ := strings.Cut(inject, ":")
		out, err := straced(t, t.Context(), child("probe", dir), trace, "-e", "inject="+inject).Output()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %s, %v", inject, out, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left over: %v, %v", entries, err)
	}
}

// TestKeptStatesOnShare checks that a state can be kept on a share, where temporary names contain the lock word of the
// process. It also checks that the temporary files that a crash has left are removed.
func TestKeptStatesOnShare(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	for _, left := range []string{".feedback-20261123T160000Z.json.gz-0123456789abcdef.tmp", ".feedback-20261123T160000Z-loss.manifest.json.tmp"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), left), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := child("share keep", path).Output()
	if err != nil || strings.TrimSpace(string(out)) != "1 <nil>" {
		t.Fatalf("%s, %v", out, err)
	}
	states, err := kept.List(path)
	if err != nil || len(states) != 1 {
		t.Fatalf("%v, %v", states, err)
	}
	for _, name := range leftovers(t, path) {
		if strings.HasSuffix(name, ".tmp") {
			t.Errorf("left over: %s", name)
		}
	}
}

// keepOnShare keeps one state, and prints how many states it has compressed.
func keepOnShare(args []string) error {
	store.PretendShare()
	f, err := store.Open(args[0], owner)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(votes(10, "x").View(), store.ReasonInterval); err != nil {
		return err
	}
	if err := f.KeepCurrent(); err != nil {
		return err
	}
	done, err := f.Kept().Compress(context.Background())
	fmt.Println(len(done), err)
	return nil
}
