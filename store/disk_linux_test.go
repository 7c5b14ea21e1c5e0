package store_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"capture/snapshot"
	"capture/store"
	"capture/store/manifest"
)

func init() {
	children["once"] = writeOnce
	children["limit"] = writeBeyondLimit
	children["full"] = fillVolume
}

// inOwnMounts runs a child in a mount namespace of its own, where the child may mount volumes. If this machine permits no
// mounts, inOwnMounts logs this and reports false. TestFileSizeLimit, which needs no mounts, still tests a failing write.
func inOwnMounts(t *testing.T, name, dir string) bool {
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
		return true
	case errors.As(err, &exit):
		if bytes.Contains(out, []byte(mountRefused)) {
			break
		}
		t.Fatalf("%s", out)
	}
	t.Logf("nothing can be mounted here: %v %s", err, out)
	return false
}

const mountRefused = "mounting is refused"

func mountSmall(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("%s: %w", mountRefused, err)
	}
	return nil
}

func TestFullVolume(t *testing.T) { inOwnMounts(t, "full", t.TempDir()) }

// fillVolume writes a file on a volume that fills up, becomes read-only, and is then enlarged.
func fillVolume(args []string) error {
	if err := mountSmall(args[0]); err != nil {
		return err
	}
	path := filepath.Join(args[0], "feedback.json")
	f, err := store.Open(path, owner)
	if err != nil {
		return err
	}
	small, large := votes(100, "x").View(), votes(100_000, "x").View()
	written, err := f.Write(small, store.ReasonStart)
	if err != nil {
		return err
	}
	m := written.Manifest
	// expect checks that a Write fails with the given error and advice, and leaves the old file, its manifest, and no
	// temporary files.
	expect := func(what string, errno syscall.Errno, advice string) error {
		_, err := f.Write(large, store.ReasonChange)
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), advice) ||
			!strings.HasPrefix(err.Error(), "flush feedback.json: ") || !strings.Contains(err.Error(), path) {
			return fmt.Errorf("%s: got %v", what, err)
		}
		if data, err := os.ReadFile(path); err != nil || digest(data) != m.SHA256 {
			return fmt.Errorf("%s: the old file is gone: %v", what, err)
		}
		if now, err := manifest.Read(path); err != nil || now.SHA256 != m.SHA256 {
			return fmt.Errorf("%s: the old manifest is gone: %v", what, err)
		}
		if left, _ := filepath.Glob(filepath.Join(args[0], "*.tmp")); left != nil {
			return fmt.Errorf("%s: left over: %v", what, left)
		}
		return nil
	}
	if err := expect("full", syscall.ENOSPC, "free some space"); err != nil {
		return err
	}
	// While the lock file is open, the mount itself cannot become read-only, but a second mount over it can.
	if err := errors.Join(unix.Mount(args[0], args[0], "", unix.MS_BIND, ""),
		unix.Mount("", args[0], "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")); err != nil {
		return err
	}
	if err := expect("read-only", syscall.EROFS, "mount that volume writable"); err != nil {
		return err
	}
	if err := unix.Unmount(args[0], 0); err != nil {
		return err
	}
	if err := unix.Mount("", args[0], "", unix.MS_REMOUNT, "size=64m"); err != nil {
		return err
	}
	if _, err := f.Write(large, store.ReasonChange); err != nil {
		return fmt.Errorf("on the enlarged volume: %w", err)
	}
	f.Close()
	if err := unix.Mount("", args[0], "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	if _, err := store.Open(path, owner); !errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("open on a read-only volume: %v", err)
	}
	return nil
}

// writeBeyondLimit tries to write a file that is larger than the process's limit for files (RLIMIT_FSIZE).
func writeBeyondLimit(args []string) error {
	path := args[0]
	f, err := store.Open(path, owner)
	if err != nil {
		return err
	}
	if _, err := f.Write(votes(10, "x").View(), store.ReasonStart); err != nil {
		return err
	}
	limit := unix.Rlimit{Cur: 64 << 10, Max: 64 << 10}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if _, err = f.Write(votes(100_000, "x").View(), store.ReasonChange); !errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("no limit: %v", err)
	}
	_, err = f.Write(votes(20, "x").View(), store.ReasonChange)
	return err
}

func TestFileSizeLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	if out, err := child("limit", path).Output(); err != nil {
		t.Fatalf("%s", out)
	}
	if m := checkPair(t, path); m.Rows != 20 {
		t.Errorf("%d rows", m.Rows)
	}
	if names := leftovers(t, path); names != nil {
		t.Errorf("left over: %v", names)
	}
}

// writeOnce opens a file and writes it once. The test runs it as another user.
func writeOnce(args []string) error {
	f, err := store.Open(args[0], owner)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(votes(10, "x").View(), store.ReasonStart)
	return err
}

// nobodysFolder returns a folder that every user can enter, and a function that runs a child as an unprivileged user.
func nobodysFolder(t *testing.T) (dir string, run func(name string, args ...string) (string, error)) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "store-test-") // other users cannot enter t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "program")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, read(t, child("once").Path), 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir, func(name string, args ...string) (string, error) {
		cmd := child(name, args...)
		cmd.Path, cmd.Dir = program, "/"
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		out, err := cmd.Output()
		return string(out), err
	}
}

// TestNoPermission runs a child as an unprivileged user who may not create the folder, or may not write to it. The error
// must name the missing permission. Once the folder has the permission, a Write must succeed.
func TestNoPermission(t *testing.T) {
	dir, nobody := nobodysFolder(t)
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "sub", "feedback.json")
	run := func() (string, error) { return nobody("once", path) }
	if out, err := run(); err == nil || !strings.Contains(out, "permission denied; let user") || !strings.Contains(out, filepath.Dir(path)) {
		t.Errorf("folder that can't be created: %v, %s", err, out)
	}
	os.Chmod(dir, 0o755)
	if err := os.Mkdir(filepath.Dir(path), 0o555); err != nil {
		t.Fatal(err)
	}
	if out, err := run(); err == nil || !strings.Contains(out, "permission denied; let user") {
		t.Errorf("folder that can't be written: %v, %s", err, out)
	}
	os.Chmod(filepath.Dir(path), 0o777)
	if out, err := run(); err != nil {
		t.Errorf("folder that can be written: %v, %s", err, out)
	}
	checkPair(t, path)
}

// TestFolderSwapped exchanges the folders of two writers again and again. It checks that readers see only complete files,
// and that both files can be opened and written again afterwards.
func TestFolderSwapped(t *testing.T) {
	dir := t.TempDir()
	paths := [2]string{filepath.Join(dir, "data", "feedback.json"), filepath.Join(dir, "other", "feedback.json")}
	var files [2]*store.File
	for i, path := range paths {
		files[i] = open(t, path)
		write(t, files[i], votes(10, "x").View(), store.ReasonStart)
	}
	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, filepath.Dir(paths[0]), unix.AT_FDCWD, filepath.Dir(paths[1]), unix.RENAME_EXCHANGE)
			}
		}
	})
	var writers sync.WaitGroup
	for i, f := range files {
		writers.Go(func() {
			tab := votes(1000, strings.Repeat("z", 100*(i+1)))
			for n := range 25 {
				put(tab, n, "changed")
				tab.Commit(snapshot.Position{})
				f.Write(tab.View(), store.ReasonChange) // mostly fails, because the folders are exchanged meanwhile
				for _, path := range paths {
					if data, err := os.ReadFile(path); err != nil || !json.Valid(data) {
						t.Errorf("%s has %d bytes: %v", path, len(data), err)
						return
					}
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	swapper.Wait()
	for _, f := range files {
		f.Close() // both are closed before the next loop, because the folders were swapped and may contain the lock of the other file
	}
	for i := range files {
		last := open(t, paths[i])
		write(t, last, votes(5, "x").View(), store.ReasonStart)
		last.Close()
		checkPair(t, paths[i])
	}
}
