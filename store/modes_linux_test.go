package store_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"capture/snapshot"
	"capture/store"
	"capture/store/manifest"
)

func TestModesOfNewFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "feedback.json")
	f := open(t, path)
	write(t, f, votes(10, "x").View(), store.ReasonStart)
	wantMode(t, filepath.Dir(path), 0o750)
	wantMode(t, path, 0o640)
	wantMode(t, manifest.Path(path), 0o640)
	wantMode(t, path+".lock", 0o600)
	for _, existing := range []string{path, manifest.Path(path), path + ".lock"} {
		if err := os.Chmod(existing, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(t, f, votes(20, "x").View(), store.ReasonForced)
	wantMode(t, path, 0o644)
	wantMode(t, manifest.Path(path), 0o644)
	f.Close()
	open(t, path)
	wantMode(t, path+".lock", 0o600)
}

// TestModesOfForeignFiles replaces the file and its manifest by files that everybody may write and that belong to another user.
// The next version must have the mode and owner of capture's own files, and so must the kept states.
func TestModesOfForeignFiles(t *testing.T) {
	for what, test := range map[string]struct {
		write bool        // whether an earlier run has written the file
		chmod fs.FileMode // mode that somebody has given to this file; 0 if nobody has
		first bool        // whether the file is replaced before the first Write of the run
		want  fs.FileMode
	}{
		"new file":                        {want: 0o640},
		"new file, before the first":      {first: true, want: 0o640},
		"existing file":                   {write: true, want: 0o640},
		"existing file, before the first": {write: true, first: true, want: 0o640},
		"file with another mode":          {write: true, chmod: 0o600, want: 0o600},
		"file with another, wider mode":   {write: true, chmod: 0o644, first: true, want: 0o644},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "feedback.json")
		f := open(t, path)
		if test.write {
			write(t, f, votes(100, "x").View(), store.ReasonStart)
		}
		if test.chmod != 0 {
			if err := errors.Join(os.Chmod(path, test.chmod), os.Chmod(manifest.Path(path), test.chmod)); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
		f = open(t, path)
		if !test.first {
			write(t, f, votes(100, "x").View(), store.ReasonStart)
		}
		for _, name := range []string{path, manifest.Path(path)} {
			if err := errors.Join(replaceFile(name, "[]\n"), os.Chmod(name, 0o666)); err != nil {
				t.Fatal(err)
			}
			if os.Geteuid() == 0 {
				if err := os.Chown(name, 65534, 65534); err != nil {
					t.Fatal(err)
				}
			}
		}
		kept := write(t, f, votes(2, "x").View(), store.ReasonForced).Kept
		names := []string{path, manifest.Path(path)}
		if kept != nil {
			manifests, err := filepath.Glob(filepath.Join(dir, "*feedback-*.manifest.json"))
			if err != nil || len(manifests) != 1 {
				t.Errorf("%s: the manifests of kept states are %v, %v", what, manifests, err)
			}
			names = append(names, manifests...)
		}
		if !test.first && kept == nil {
			t.Errorf("%s: the loss is not kept", what)
		}
		for _, name := range names {
			wantMode(t, name, test.want)
			if st := stat(t, name).Sys().(*syscall.Stat_t); int(st.Uid) != os.Geteuid() {
				t.Errorf("%s: %s belongs to user %d", what, name, st.Uid)
			}
		}
	}
}

// TestModesOfReusedInode replaces the file and its manifest by foreign files of the same sizes. On file systems such as
// ext4, which soon use an inode number again, the foreign files also have the same inode numbers.
func TestModesOfReusedInode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	for i, name := range []string{path, manifest.Path(path)} {
		write(t, f, votes(100, fmt.Sprint("before ", i)).View(), store.ReasonForced)
		reused := replaceReusingInode(t, name)
		for tries := 0; !reused && tries < 20; tries++ { // another process may have taken the inode number
			write(t, f, votes(100, fmt.Sprint(i, " again ", tries)).View(), store.ReasonForced)
			reused = replaceReusingInode(t, name)
		}
		t.Logf("%s has the inode number of the file that it replaces: %t", filepath.Base(name), reused)
		if f.CheckInPlace() == "" {
			t.Errorf("nobody notices that %s is replaced", name)
		}
		write(t, f, votes(100, fmt.Sprint("after ", i)).View(), store.ReasonForced)
		wantMode(t, name, 0o640)
	}
}

// replaceReusingInode replaces the file at path by an empty file of the same size, which everybody may write. It reports whether
// the new file has the inode number of the old one.
func replaceReusingInode(t *testing.T, path string) bool {
	t.Helper()
	before := stat(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		candidate := fmt.Sprint(path, ".candidate", i)
		if err := errors.Join(os.WriteFile(candidate, nil, 0o600), os.Truncate(candidate, before.Size()), os.Chmod(candidate, 0o666)); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(candidate) // at the end of the function, because the next candidate could otherwise get the same inode number
		if reused := os.SameFile(before, stat(t, candidate)); reused || i == 50 {
			if err := os.Rename(candidate, path); err != nil {
				t.Fatal(err)
			}
			return reused
		}
	}
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != want {
		t.Errorf("%s has the mode %v, not %v: %v", path, info.Mode(), want, err)
	}
}

func init() { children["unreadable"] = makeUnreadable }

// TestUnreadableFiles runs a child as an unprivileged user, because root may read every file. The child removes the
// permissions of each file and of the folder. It checks that capture notices this, and that capture gives the files their
// permissions back. For the folder, the error must name the missing permission.
func TestUnreadableFiles(t *testing.T) {
	dir, nobody := nobodysFolder(t)
	folder := filepath.Join(dir, "data")
	if err := errors.Join(os.Mkdir(folder, 0o755), os.Chmod(folder, 0o777)); err != nil {
		t.Fatal(err)
	}
	if out, err := nobody("unreadable", filepath.Join(folder, "new", "feedback.json")); err != nil {
		t.Error(out)
	}
}

func makeUnreadable(args []string) error {
	path := args[0]
	folder := filepath.Dir(path)
	f, err := store.Open(path, owner)
	if err != nil {
		return err
	}
	tab := votes(100, "x")
	tab.SetHorizon(&snapshot.Horizon{XID: 100, LSN: 5, Place: snapshot.Place{SystemID: "7", Timeline: 1, Started: 2, DatabaseOID: 3, TableOID: 4, Files: "f", Fingerprint: "g"}})
	if _, err := f.Write(tab.View(), store.ReasonStart); err != nil {
		return err
	}
	version := 0
	for _, name := range []string{path, manifest.Path(path), path + ".lock"} {
		for _, changed := range []int{0, 15} { // number of rows that the next Write changes; 15 rows are enough for a loss
			if err := os.Chmod(name, 0); err != nil {
				return err
			}
			if problem := f.CheckInPlace(); !strings.HasSuffix(name, ".lock") && !strings.Contains(problem, "mode 0000") {
				return fmt.Errorf("%s is unreadable: CheckInPlace returns %q", name, problem)
			}
			version++
			for id := range changed {
				put(tab, id, fmt.Sprint("version ", version))
			}
			tab.Commit(tab.View().Position())
			if r, err := f.Write(tab.View(), store.ReasonForced); err != nil || r.Kept != nil || r.Warning != "" {
				return fmt.Errorf("%s was unreadable: %+v, %v", name, r, err)
			}
			if info, err := os.Lstat(name); err != nil || info.Mode()&0o400 == 0 {
				return fmt.Errorf("%s is still unreadable: %v, %v", name, info.Mode(), err)
			}
			if problem := f.CheckInPlace(); problem != "" {
				return fmt.Errorf("%s was unreadable: CheckInPlace returns %q", name, problem)
			}
		}
	}
	if err := errors.Join(os.Chmod(manifest.Path(path), 0), f.DropHorizon(tab.View())); err != nil {
		return err
	}
	if m, err := manifest.Read(path); err != nil || m.Horizon != nil {
		return fmt.Errorf("the horizon was dropped while the manifest was unreadable; now it is %v, %v", m.Horizon, err)
	}
	for mode, right := range map[fs.FileMode]string{
		0o600: "enter the folder " + folder + ", whose mode is 0600", 0o300: "read, write and enter that folder, whose mode is 0300",
		0o500: "write to that folder",
	} {
		put(tab, 1, right)
		tab.Commit(tab.View().Position())
		if err := os.Chmod(folder, mode); err != nil {
			return err
		}
		problem := f.CheckInPlace()
		_, err := f.Write(tab.View(), store.ReasonForced)
		if mode == 0o600 && problem == "" || err == nil || !strings.Contains(err.Error(), right) {
			return fmt.Errorf("folder with the mode %04o: CheckInPlace returns %q, Write returns %v", mode, problem, err)
		}
		if err := os.Chmod(folder, 0o750); err != nil {
			return err
		}
		if _, err := f.Write(tab.View(), store.ReasonForced); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(path, 0), os.Chmod(manifest.Path(path), 0), os.Chmod(path+".lock", 0)); err != nil {
		return err
	}
	f, err = store.Open(path, owner)
	if err != nil {
		return err
	}
	if _, intact := f.Existing(); !intact || store.Warning(f) != "" {
		return fmt.Errorf("unreadable at the start: %s", store.Warning(f))
	}
	return f.Close()
}
