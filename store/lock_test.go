package store_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"capture/store"
)

// holdLock holds the lock of a file until its standard input ends.
func holdLock(args []string) error {
	f, err := store.Open(args[0], store.Owner{PID: os.Getpid(), Host: "there", Version: "9.9", Started: owner.Started})
	if err != nil {
		return err
	}
	if err := f.SetListen("127.0.0.1:4711"); err != nil {
		return err
	}
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadByte()
	return f.Close()
}

func TestSecondProcessIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	if o, locked, err := store.ReadOwner(path); err != nil || locked || o != (store.Owner{}) {
		t.Fatalf("ReadOwner of nothing: %+v, %v, %v", o, locked, err)
	}
	cmd := child("hold", path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	started(t, cmd)
	_, err = store.Open(path, owner)
	var locked *store.LockedError
	if !errors.As(err, &locked) {
		t.Fatalf("not refused: %v", err)
	}
	if o := locked.Owner; o.PID != cmd.Process.Pid || o.Host != "there" || o.Listen != "127.0.0.1:4711" || o.Version != "9.9" {
		t.Errorf("the owner is %+v", o)
	}
	for _, want := range []string{fmt.Sprint("pid ", cmd.Process.Pid), `"there"`, "127.0.0.1:4711", "2026-11-23T08:00:00Z", "--output"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if o, isLocked, err := store.ReadOwner(path); err != nil || !isLocked || o != locked.Owner {
		t.Errorf("ReadOwner: %+v, %v, %v", o, isLocked, err)
	}

	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path + ".lock"); err != nil || info.Size() != 0 {
		t.Errorf("the lock file after Close: %v, %v", info, err)
	}
	open(t, path)
}

func TestLockDiesWithItsProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	cmd := child("hold", path)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	started(t, cmd)
	cmd.Process.Kill()
	cmd.Wait()
	if o, locked, err := store.ReadOwner(path); err != nil || locked {
		t.Errorf("ReadOwner after a kill: %+v, %v, %v", o, locked, err)
	}
	open(t, path)
	if o, locked, err := store.ReadOwner(path); err != nil || !locked || o != owner {
		t.Errorf("ReadOwner of the next: %+v, %v, %v", o, locked, err)
	}
}

// TestForkedProcessDoesNotKeepLock checks that Close releases the lock even if another process has a copy of the lock file's
// descriptor. A process that Go has just forked has copies of all descriptors until it executes its program.
func TestForkedProcessDoesNotKeepLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, err := store.Open(path, owner)
	if err != nil {
		t.Fatal(err)
	}
	var lock, st unix.Stat_t
	if err := unix.Stat(path+".lock", &lock); err != nil {
		t.Fatal(err)
	}
	copied := -1
	for fd := 3; fd < 1024 && copied < 0; fd++ {
		if unix.Fstat(fd, &st) == nil && st.Dev == lock.Dev && st.Ino == lock.Ino {
			if copied, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
				t.Fatal(err)
			}
		}
	}
	if copied < 0 {
		t.Fatal("no descriptor of the lock file found")
	}
	defer unix.Close(copied)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = store.Open(path, owner); err != nil {
		t.Fatalf("open the file after Close, while a copy of the lock file's descriptor is open: %v", err)
	}
	f.Close()
}

// TestReadOwnerDisturbsNobody checks that Open succeeds while other goroutines read the owner of the lock again and again,
// as health checks do.
func TestReadOwnerDisturbsNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, _, err := store.ReadOwner(path); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 300 {
		f, err := store.Open(path, owner)
		if err != nil {
			t.Error(err)
			break
		}
		f.Close()
	}
	close(stop)
	wg.Wait()
}

// TestLockFileRemoved removes the lock file or moves the folder, and lets a second File take the lock. The first File must
// not write until the second File has released the lock.
func TestLockFileRemoved(t *testing.T) {
	for what, remove := range map[string]func(path string) error{
		"lock file": func(path string) error { return os.Remove(path + ".lock") },
		"folder":    func(path string) error { return os.Rename(filepath.Dir(path), filepath.Dir(path)+".old") },
	} {
		path := filepath.Join(t.TempDir(), "data", "feedback.json")
		v := votes(3, "x").View()
		first := open(t, path)
		write(t, first, v, store.ReasonStart)
		if err := remove(path); err != nil {
			t.Fatal(err)
		}
		second := open(t, path) // without the lock file, the second File cannot know that the first File exists
		if _, err := first.Write(v, store.ReasonChange); !errors.As(err, new(*store.LockedError)) {
			t.Fatalf("%s: two writers: %v", what, err)
		}
		write(t, second, v, store.ReasonStart)
		second.Close()
		write(t, first, v, store.ReasonChange)
		checkPair(t, path)
		if _, err := store.Open(path, owner); !errors.As(err, new(*store.LockedError)) {
			t.Errorf("%s: the first does not have the lock again: %v", what, err)
		}
	}
}

func TestLockFileIsNotTrusted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, path+".lock"); err != nil {
		t.Fatal(err)
	}
	refused := func(what string) {
		t.Helper()
		_, err := store.Open(path, owner)
		_, _, rerr := store.ReadOwner(path)
		for _, err := range []error{err, rerr} {
			if err == nil || !strings.Contains(err.Error(), "it is not a regular file; remove it") {
				t.Errorf("%s in the place of the lock file: %v", what, err)
			}
		}
		os.Remove(path + ".lock")
	}
	refused("a link")
	if string(read(t, other)) != "precious" {
		t.Error("wrote through a link")
	}
	for what, create := range map[string]func() error{
		"a folder": func() error { return os.Mkdir(path+".lock", 0o700) }, "a pipe": func() error { return unix.Mkfifo(path+".lock", 0o600) },
	} {
		if err := create(); err != nil {
			t.Fatal(err)
		}
		refused(what)
	}
	if err := os.WriteFile(path+".lock", []byte("{\"pid\":\"x\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, path)
	if o, _, _ := store.ReadOwner(path); o != owner {
		t.Errorf("the owner is %+v", o)
	}
}
