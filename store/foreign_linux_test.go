package store_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"capture/store"
	"capture/store/manifest"
)

// TestLinksAreNotFollowed puts a symbolic link in the place of each file that capture writes. It checks that capture refuses
// or replaces the link, and that the target of the link stays as it is.
func TestLinksAreNotFollowed(t *testing.T) {
	for _, name := range []string{"feedback.json", "feedback.manifest.json", "feedback.json.tmp", "feedback.manifest.json.tmp", "feedback.json.lock"} {
		for _, running := range []bool{false, true} {
			dir := t.TempDir()
			path, precious := filepath.Join(dir, "feedback.json"), filepath.Join(t.TempDir(), "precious")
			if err := os.WriteFile(precious, []byte("precious"), 0o604); err != nil {
				t.Fatal(err)
			}
			plant := func() {
				os.Remove(filepath.Join(dir, name))
				if err := os.Symlink(precious, filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			what := fmt.Sprintf("%s, running %t", name, running)
			if !running {
				plant()
			}
			f, err := store.Open(path, owner)
			refused := !running && (name == "feedback.json" || name == "feedback.json.lock")
			if refused != (err != nil) {
				t.Errorf("%s: Open: %v", what, err)
			}
			if err == nil {
				tab := votes(10, "x")
				write(t, f, tab.View(), store.ReasonStart)
				if running {
					plant()
				}
				f.Write(votes(20, "y").View(), store.ReasonForced)
				f.Close()
				for _, made := range []string{path, manifest.Path(path)} {
					if info, err := os.Lstat(made); err == nil && info.Mode().IsRegular() && info.Mode().Perm() != 0o640 {
						t.Errorf("%s: %s has the mode %v", what, made, info.Mode())
					}
				}
			}
			info, err := os.Stat(precious)
			if err != nil || string(read(t, precious)) != "precious" || info.Mode().Perm() != 0o604 {
				t.Errorf("%s: what the link leads to is now %q, %v", what, read(t, precious), info.Mode())
			}
		}
	}
}

// TestReplacedWhileRunning puts a named pipe or a link in the place of the file while capture runs. It checks that capture
// does not wait for a writer of the pipe, and that the next Write puts the file back. The target of the link must not become
// a kept state, because more people may be allowed to read kept states than to read the target.
func TestReplacedWhileRunning(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"pipe": func(path string) error { return unix.Mkfifo(path, 0o600) },
		"link": func(path string) error { return os.Symlink(secret, path) },
	} {
		for _, first := range []bool{true, false} { // whether the forced Write is the first since Open
			dir := t.TempDir()
			path := filepath.Join(dir, "feedback.json")
			f := open(t, path)
			write(t, f, votes(100, "x").View(), store.ReasonStart)
			if first {
				f.Close()
				f = open(t, path)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := plant(path); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { // if Write waits for a writer of the pipe, opening the pipe ends the wait before f is closed
				if writer, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
					os.Remove(path)
					writer.Close()
				}
			})
			done := make(chan error, 1)
			go func() {
				f.ReadBack(t.Context())
				f.KeepCurrent()
				_, err := f.Write(votes(2, "y").View(), store.ReasonForced)
				done <- err
			}()
			var err error
			within(t, fmt.Sprintf("%s, first %t: Write ends", name, first), func() bool {
				select {
				case err = <-done:
					return true
				default:
					return false
				}
			})
			if _, cerr := f.Kept().Compress(t.Context()); err != nil || cerr != nil {
				t.Errorf("%s, first %t: %v, %v", name, first, err, cerr)
			}
			checkPair(t, path)
			if states := f.Kept().List(); len(states) > 0 {
				t.Errorf("%s, first %t: kept is %s", name, first, states[0].Path)
			}
		}
	}
}

// TestLinkIsNoKeptState puts a link in the place of a kept state that is not compressed yet. It checks that Compress does
// not compress the target of the link.
func TestLinkIsNoKeptState(t *testing.T) {
	path, secret := filepath.Join(t.TempDir(), "feedback.json"), filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := open(t, path)
	write(t, f, votes(100, "x").View(), store.ReasonStart)
	kept := write(t, f, votes(2, "y").View(), store.ReasonForced).Kept
	if err := errors.Join(os.Remove(kept.Path), os.Symlink(secret, kept.Path)); err != nil {
		t.Fatal(err)
	}
	compressed, err := f.Kept().Compress(t.Context())
	if _, serr := os.Lstat(kept.CompressedPath()); err != nil || len(compressed) > 0 || serr == nil {
		t.Errorf("the target of the link was compressed to %s: %v", kept.CompressedPath(), err)
	}
}

// asNobody returns a command that runs as an unprivileged user.
func asNobody(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return cmd
}

// TestReaderCannotTakeTheLock checks that a user who can read the folder cannot lock the lock file, and thus cannot keep
// capture away from its file.
func TestReaderCannotTakeTheLock(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "feedback.json")
	open(t, path).Close()
	for folder := dir; folder != os.TempDir() && folder != "/"; folder = filepath.Dir(folder) {
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	lock := asNobody(t, "flock", "-s", path+".lock", "true")
	lock.Env = []string{"LC_ALL=C"}
	if out, err := lock.CombinedOutput(); err == nil || !strings.Contains(string(out), "Permission denied") {
		t.Errorf("another user may lock: %v: %s", err, out)
	}
	open(t, path)
}

// TestLockFileOfOthersIsNotBelieved checks that ReadOwner does not trust a lock file whose content another user may have
// written.
func TestLockFileOfOthersIsNotBelieved(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	for what, spoil := range map[string]func(string) error{
		"another owner":       func(lock string) error { return os.Chown(lock, 65534, 65534) },
		"writable to others":  func(lock string) error { return os.Chmod(lock, 0o666) },
		"writable to a group": func(lock string) error { return os.Chmod(lock, 0o620) },
	} {
		path := filepath.Join(t.TempDir(), "feedback.json")
		lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		if _, err := lock.WriteString(`{"pid":1,"host":"evil","listen":"203.0.113.9:80"}`); err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		if o, locked, err := store.ReadOwner(path); err != nil || !locked || o.Listen == "" {
			t.Errorf("an owner of our own: %+v, %t, %v", o, locked, err)
		}
		if err := spoil(path + ".lock"); err != nil {
			t.Fatal(err)
		}
		if o, locked, err := store.ReadOwner(path); !errors.Is(err, store.ErrLockNotTrusted) || !locked || o != (store.Owner{}) {
			t.Errorf("%s: %+v, %t, %v", what, o, locked, err)
		}
	}
}

func TestPublishedIsWhatCaptureWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	stat := func(path string) fs.FileInfo {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	for n := range 3 {
		write(t, f, votes(10*(n+1), strings.Repeat("x", n)).View(), store.ReasonForced)
		if !f.Published(stat(path)) {
			t.Errorf("version %d is not known", n)
		}
	}
	other := filepath.Join(t.TempDir(), "token")
	if err := errors.Join(os.WriteFile(other, []byte("token"), 0o600), os.Remove(path), os.Link(other, path)); err != nil {
		t.Fatal(err)
	}
	if f.Published(stat(path)) {
		t.Error("a planted file counts as capture's")
	}
	f.Close()
	f = open(t, path)
	if f.Published(stat(path)) {
		t.Error("a planted file counts as capture's after a start")
	}
}
