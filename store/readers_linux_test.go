package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"capture/store"
	"capture/store/manifest"
)

func init() {
	children["bound"] = readBound
	children["stamp"] = stampEndlessly
}

// TestReaders reads a small file and a patched file in several ways, while a child writes new versions all the time. It
// checks that each reader sees the version that it has opened, complete and unchanged.
func TestReaders(t *testing.T) {
	if testing.Short() {
		t.Skip("reads a file that is written all the time")
	}
	for name, program := range map[string]string{"small": "stamp", "patched": "patch"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "feedback.json")
			started(t, child(program, path))
			for name, look := range map[string]func(string, func()) error{
				"copies it slowly": copySlowly, "tails it": tail, "maps it": mapWhole,
			} {
				for range 3 {
					if err := look(path, func() { awaitReplacements(t, path) }); err != nil {
						t.Errorf("who %s: %v", name, err)
					}
				}
			}
			inOwnMounts(t, "bound", path)
		})
	}
}

// TestPatchReaders checks that a reader of one version never sees bytes of a later version. The reader keeps its version in
// an open file, in a mapping, under a second name, or in a pipe.
func TestPatchReaders(t *testing.T) {
	if testing.Short() {
		t.Skip("reads a file that is patched for seconds")
	}
	t.Parallel()
	dir := t.TempDir()
	store.CanPatch(t, dir)
	path := filepath.Join(dir, "feedback.json")
	f := open(t, path)
	s := newStamped()
	for range 3 {
		write(t, f, s.next(), store.ReasonChange)
	}
	openFile := func() *os.File {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	for name, keep := range map[string]func() (again func() []byte, done func()){
		"open": func() (func() []byte, func()) {
			file := openFile()
			return func() []byte {
				data, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<30))
				if err != nil {
					t.Error(err)
				}
				return data
			}, func() { file.Close() }
		},
		"mapped, and closed": func() (func() []byte, func()) {
			file := openFile()
			defer file.Close()
			info, _ := file.Stat()
			data, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			return func() []byte { return bytes.Clone(data) }, func() { unix.Munmap(data) }
		},
		"a second name": func() (func() []byte, func()) {
			name := filepath.Join(dir, "backup.json")
			if err := os.Link(path, name); err != nil {
				t.Fatal(err)
			}
			return func() []byte { return read(t, name) }, func() { os.Remove(name) }
		},
		"in a pipe, and closed": func() (func() []byte, func()) {
			file := openFile()
			defer file.Close()
			var p [2]int
			if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			n, err := unix.Splice(int(file.Fd()), nil, p[1], nil, 64<<10, 0)
			if err != nil {
				t.Fatal(err)
			}
			var once sync.Once
			data := read(t, path) // the pipe holds only the first n bytes, which are read from it later
			return func() []byte {
				once.Do(func() {
					if _, err := io.ReadFull(os.NewFile(uintptr(p[0]), "pipe"), data[:n]); err != nil {
						t.Error(err)
					}
				})
				return data
			}, func() { unix.Close(p[1]) }
		},
	} {
		again, done := keep()
		was, err := stampOf(read(t, path))
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			write(t, f, s.next(), store.ReasonChange)
			checkPair(t, path)
			if name == "in a pipe, and closed" {
				continue // a pipe can be read only once
			}
			if is, err := stampOf(again()); err != nil || is != was {
				t.Fatalf("%s: a reader has commit %s of version %s: %v", name, is, was, err)
			}
		}
		if is, err := stampOf(again()); err != nil || is != was {
			t.Errorf("%s: a reader has commit %s of version %s: %v", name, is, was, err)
		}
		done()
	}
}

// awaitReplacements waits until the file has been replaced at least three more times.
func awaitReplacements(t *testing.T, path string) {
	t.Helper()
	for range 3 {
		was := read(t, manifest.Path(path))
		within(t, "the next version", func() bool {
			now, err := os.ReadFile(manifest.Path(path))
			return err == nil && string(now) != string(was)
		})
	}
}

// copySlowly reads the file in thirds. After each third it waits until the file has been replaced.
func copySlowly(path string, wait func()) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	data := make([]byte, info.Size())
	for i, size := 0, max(len(data)/3, 1); i < len(data); i += size {
		if _, err := io.ReadFull(file, data[i:min(i+size, len(data))]); err != nil {
			return err
		}
		wait()
	}
	_, err = stampOf(data)
	return err
}

// tail reads to the end and waits for more, as tail -f does.
func tail(path string, wait func()) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	data, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	wait()
	more, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	if len(more) > 0 {
		return fmt.Errorf("%d bytes more came into a version", len(more))
	}
	_, err = stampOf(data)
	return err
}

// mapWhole maps a version into memory, closes the file, and reads the memory later.
func mapWhole(path string, wait func()) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	data, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(data)
	file.Close()
	was, err := stampOf(data)
	if err != nil {
		return err
	}
	wait()
	is, err := stampOf(data)
	if err == nil && is != was {
		err = fmt.Errorf("version %s has become %s", was, is)
	}
	return err
}

// stampEndlessly is like patchEndlessly, but its files count as small, so they are not patched.
func stampEndlessly(args []string) error {
	store.SetPatchFrom(1 << 40)
	return patchEndlessly(args)
}

// readBound reads the file at args[0] through two bind mounts. The mount of the folder shows each new version. The mount of
// the file always shows the version that was current when it was mounted. This version must stay complete.
func readBound(args []string) error {
	folder, err := os.MkdirTemp("", "store-test-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	single := filepath.Join(folder, "single.json")
	whole := filepath.Join(folder, "whole")
	if err := errors.Join(os.Mkdir(whole, 0o755), os.WriteFile(single, nil, 0o644)); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("%s: %w", mountRefused, err)
	}
	if err := unix.Mount(filepath.Dir(args[0]), whole, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("%s: %w", mountRefused, err)
	}
	defer unix.Unmount(whole, 0)
	if err := bindFile(args[0], single); err != nil {
		return fmt.Errorf("%s: %w", mountRefused, err)
	}
	defer unix.Unmount(single, 0)
	versions := map[string]bool{}
	for len(versions) < 20 {
		for _, path := range []string{filepath.Join(whole, filepath.Base(args[0])), single} {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			stamp, err := stampOf(data)
			if err != nil {
				return fmt.Errorf("through %s: %w", path, err)
			}
			if path != single {
				versions[stamp] = true
			}
		}
	}
	return nil
}

// bindFile bind-mounts the file at path. If somebody replaces the file during the call, bindFile tries again.
func bindFile(path, to string) (err error) {
	for range 100 {
		if err = unix.Mount(path, to, "", unix.MS_BIND, ""); err == nil || !errors.Is(err, syscall.ENOENT) {
			return err
		}
	}
	return err
}
