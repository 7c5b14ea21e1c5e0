package logfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capture/internal/logfile"
)

func init() { children["full volume"] = fillVolume }

func TestFullVolume(t *testing.T) { inOwnMounts(t, "full volume", t.TempDir()) }

// fillVolume writes logs until their volume is full, and then enlarges the volume. It returns an error unless every line is
// whole, in order, and either written or reported as dropped.
func fillVolume(args []string) error {
	if err := mountSmall(args[0]); err != nil {
		return err
	}
	var stderr screen
	cfg := testConfig(args[0], &stderr)
	l, err := logfile.Open(cfg)
	if err != nil {
		return err
	}
	var n int
	for ; n < 100_000 && l.Err() == nil; n++ {
		l.Logger().Info("transaction", "Writer", 0, "N", n, "keys", strings.Repeat("k", n%1000))
	}
	if err := l.Err(); !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("not full: %v", err)
	}
	data, err := os.ReadFile(cfg.Usage)
	if err != nil {
		return err
	}
	if _, err := parse(data); err != nil {
		return fmt.Errorf("torn while full: %w", err)
	}
	if err := unix.Mount("", args[0], "", unix.MS_REMOUNT, "size=512m"); err != nil {
		return err
	}
	for start := time.Now(); l.Err() != nil; time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			return fmt.Errorf("not written again: %w", l.Err())
		}
	}
	if err := l.Close(); err != nil {
		return err
	}
	if data, err = os.ReadFile(cfg.Usage); err != nil {
		return err
	}
	got, err := parse(data)
	if err != nil {
		return fmt.Errorf("torn: %w", err)
	}
	for i, l := range got {
		if l.N != i {
			return fmt.Errorf("line %d is %d", i, l.N)
		}
	}
	if len(got) != n && !strings.Contains(stderr.String(), "lines_dropped") {
		return fmt.Errorf("%d of %d lines, and no dropped lines reported: %s", len(got), n, stderr.String())
	}
	return nil
}

// inOwnMounts runs a child in a mount namespace of its own, where the child may mount volumes. If this machine does not
// allow mount namespaces or mounts, inOwnMounts logs the reason and returns.
func inOwnMounts(t *testing.T, name, dir string) {
	t.Helper()
	cmd := child(name, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
	}
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return
	case errors.As(err, &exit):
		if bytes.Contains(out, []byte(mountRefused)) {
			break
		}
		t.Fatalf("%s", out)
	}
	t.Logf("nothing can be mounted here: %v %s", err, out)
}

const mountRefused = "mounting is refused"

func mountSmall(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("%s: %w", mountRefused, err)
	}
	return nil
}
