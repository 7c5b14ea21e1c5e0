package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capture/capture"
	"capture/internal/statefile"
)

// terminal is a pseudoterminal. The command runs on the slave. The test uses the master to type, and to read what the
// terminal shows.
type terminal struct {
	master, slave *os.File
	shown         output // what has been written to the terminal
}

func newTerminal(t *testing.T, size screen) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudoterminal on this machine: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	number, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.lines), Col: uint16(size.columns)})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	p := &terminal{master: master, slave: slave}
	go func() { _, _ = io.Copy(&p.shown, master) }()
	return p
}

// start starts a command with the terminal as its standard streams and its controlling terminal.
func (p *terminal) start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.slave, p.slave, p.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
}

// waitFor waits until the terminal has shown a text n times.
func (p *terminal) waitFor(t *testing.T, text string, n int) {
	t.Helper()
	eventually(t, "the terminal shows "+text, func() bool { return strings.Count(p.shown.String(), text) >= n })
}

// typeInterrupt types Ctrl-C.
func (p *terminal) typeInterrupt(t *testing.T) {
	t.Helper()
	if _, err := p.master.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
}

// TestStatusOnTerminal checks that the status on a terminal contains the address of the feedback page, and has colors
// unless TERM or NO_COLOR turns them off.
func TestStatusOnTerminal(t *testing.T) {
	t.Parallel()
	d := start(t, "postgres://nobody@127.0.0.1:1/none")
	d.status(func(s capture.Status) bool { return s.Error != "" })
	for _, c := range []struct {
		env    string
		colors bool
	}{{"TERM=xterm", true}, {"NO_COLOR=1", false}, {"TERM=dumb", false}} {
		p := newTerminal(t, screen{80, 24})
		cmd := prepare(t.Context(), d.dir, []string{c.env}, "status")
		p.start(t, cmd)
		_ = cmd.Wait()
		p.waitFor(t, "http://"+d.address()+"/", 1)
		if shown := p.shown.String(); strings.Contains(shown, "\x1b") != c.colors || (screen{80, 24}).height(shown) >= 24 {
			t.Errorf("%s: %q", c.env, shown)
		}
	}
}

// TestStatusWatchOnTerminal checks that each status replaces the previous one, and that Ctrl-C ends the command without an
// error.
func TestStatusWatchOnTerminal(t *testing.T) {
	t.Parallel()
	d := start(t, "postgres://nobody@127.0.0.1:1/none")
	d.status(func(s capture.Status) bool { return s.Error != "" })
	for term, inPlace := range map[string]bool{"xterm": true, "dumb": false} {
		t.Run(term, func(t *testing.T) {
			t.Parallel()
			size := screen{40, 10}
			p := newTerminal(t, size)
			cmd := prepare(t.Context(), d.dir, []string{"TERM=" + term}, "status", "--watch")
			p.start(t, cmd)
			p.waitFor(t, "not ready", 2)
			p.typeInterrupt(t)
			if err := cmd.Wait(); err != nil {
				t.Errorf("after Ctrl-C: %v", err)
			}
			frames := strings.Split(p.shown.String(), "\x1b[H")
			if (len(frames) >= 3) != inPlace {
				t.Errorf("%d frames in %q", len(frames)-1, p.shown.String())
			}
			for _, frame := range frames[1:] {
				frame, _, _ = strings.Cut(frame, "\x1b[J") // after the last status, the terminal shows ^C
				if size.height(strings.NewReplacer("\x1b[K", "", "\r", "").Replace(frame)) >= size.lines {
					t.Errorf("the screen would scroll: %q", frame)
				}
			}
		})
	}
}

// TestInterruptedQuestion checks that Ctrl-C at a question ends the command, and that the table does not change.
func TestInterruptedQuestion(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 3)
	dir := t.TempDir()
	env := []string{"DATABASE_URL=" + url, "TERM=xterm"}
	if got := runPlain(t, dir, env, "snapshot"); got.code != exitDone {
		t.Fatalf("%+v", got)
	}
	sql(t, url, "UPDATE votes SET comment = 'kept'")
	before := table(t, url)
	p := newTerminal(t, screen{80, 24})
	cmd := prepare(t.Context(), dir, env, "restore", "--on-conflict", "overwrite")
	p.start(t, cmd)
	p.waitFor(t, "[y/N]", 1)
	p.typeInterrupt(t)
	_ = cmd.Wait()
	p.waitFor(t, "interrupted; nothing has changed", 1)
	if code := cmd.ProcessState.ExitCode(); code != exitFailed || table(t, url) != before {
		t.Errorf("exit code %d, table %s", code, table(t, url))
	}
	if _, err := os.Stat(filepath.Join(dir, "data/fallback/feedback.json")); err != nil {
		t.Error(err)
	}
}

// TestProgressOnTerminal checks that the progress always takes one line of the terminal, even if the terminal is narrow.
// Each update overwrites this line.
func TestProgressOnTerminal(t *testing.T) {
	for _, columns := range []int{80, 40, 20} {
		p := newTerminal(t, screen{columns, 24})
		t.Setenv("TERM", "xterm")
		shown := newProgress(p.slave, "capture verify")
		for range 3 {
			shown.last = time.Time{}
			shown.show(statefile.Progress{Doing: "reading the file", Rows: 123_456, Bytes: 4 << 20, Total: 8 << 20})
		}
		shown.clear()
		p.waitFor(t, "\r\x1b[K", 4)
		lines := strings.Split(p.shown.String(), "\r\x1b[K")
		if len(lines) != 5 || !strings.HasPrefix(lines[1], "capture verify") || lines[4] != "" {
			t.Errorf("%q", lines)
		}
		for _, line := range lines {
			if visibleLength(line) >= columns || strings.Contains(line, "\n") {
				t.Errorf("%d columns: %q", columns, line)
			}
		}
		t.Setenv("TERM", "dumb")
		if dumb := newProgress(p.slave, "capture verify"); !dumb.hidden {
			t.Error("progress on a terminal that cannot overwrite a line")
		}
	}
}
