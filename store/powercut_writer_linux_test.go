package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pglogrepl"
	"golang.org/x/sys/unix"

	"capture/internal/volume"
	"capture/snapshot"
	"capture/store"
	"capture/store/kept"
	"capture/store/manifest"
)

func init() {
	children["versions"] = writeVersions
	children["trusting"] = trustFailedSync
}

// writeVersions writes args[2] versions to the file at args[0]. All seven versions together cover all ways of writing. The
// first version has args[1] rows and is partly written ahead. In later versions some rows change, no rows change, or rows
// are added or removed. One version loses half of the rows. writeVersions also completes a manifest, and keeps a state after
// the third version. It prints a line before and after each Write, so that the replay knows which versions must survive.
func writeVersions(args []string) error {
	rows, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	most, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	f, err := store.Open(args[0], owner)
	if err != nil {
		return err
	}
	store.KeepPriority() // so that a single thread makes all system calls
	tab := copied(rows, strings.Repeat("x", 50), func(parts []snapshot.Part) { f.WriteAhead(context.Background(), parts) })
	change := func(from, to int, fill string) {
		for i := from; i < to; i++ {
			put(tab, i, strings.Repeat(fill, 50))
		}
	}
	for i, next := range []func() (reason manifest.Reason){
		func() manifest.Reason { return store.ReasonStart },
		func() manifest.Reason { change(rows/2, rows/2+2, "y"); return store.ReasonChange },
		func() manifest.Reason { return store.ReasonInterval },
		func() manifest.Reason { change(rows-1, rows+7, "z"); return store.ReasonChange },
		func() manifest.Reason { change(1, 4, "a"); return store.ReasonChange },
		func() manifest.Reason {
			for i := 2; i < rows/2; i++ {
				tab.Delete(key(i))
			}
			return store.ReasonChange
		},
		func() manifest.Reason { change(0, 1, "b"); return store.ReasonStop },
	}[:most] {
		reason := next()
		if reason != store.ReasonInterval {
			tab.Commit(snapshot.Position{LSN: pglogrepl.LSN(0x16B3800 + i)})
		}
		v := tab.View()
		fmt.Println("begin", digest(contentOf(v)))
		if i == lossy && rows >= 40 { // in a smaller table, the deleted rows are too few for a loss
			fmt.Println("loses half of the rows")
		}
		r, err := f.Write(v, reason)
		if r.Kept != nil {
			fmt.Println("plain", r.Kept.Path)
		}
		if err != nil {
			fmt.Println("failed", err)
		} else if fmt.Println("done", manifestOf(args[0])); r.Manifest.SHA256 == "" && i == completed {
			for r.Manifest.SHA256 == "" && err == nil {
				r, _, err = f.Idle(context.Background(), v)
			}
			if err != nil {
				fmt.Println("failed", err)
			} else {
				fmt.Println("done", manifestOf(args[0]))
			}
		}
		if reason != store.ReasonInterval {
			continue
		}
		err = f.KeepCurrent()
		var compressed []kept.State
		if err == nil {
			compressed, err = f.Kept().Compress(context.Background())
		}
		if err != nil {
			fmt.Println("failed", err)
		}
		for _, s := range compressed {
			fmt.Println("kept", s.Path)
		}
	}
	return f.Close()
}

const allWrites = 7

// largeRows is a row count that makes the file large, with several Parts, even after half of the rows are lost.
const largeRows = 1700

// lossy is the number of the Write that loses half of the rows. The first Write has the number 0.
const lossy = 5

// completed is the number of the Write after which Idle completes the manifest. This Write changes some of the first rows.
// In a large file, too many bytes follow these rows to hash them all, so the manifest lacks the SHA-256 of the whole file.
const completed = 4

// manifestOf returns a text with the SHA-256 of the manifest of the file at path, and with the error of the read, if any.
func manifestOf(path string) string {
	manifest, err := os.ReadFile(manifest.Path(path))
	return fmt.Sprint(digest(manifest), " ", err)
}

// record runs a child under strace. The child writes the given number of versions of a table with the given number of rows.
func record(t *testing.T, rows, writes int, foreign []byte, options ...string) (*replay, error) {
	t.Helper()
	root := memoryDir(t)
	p := &replay{root: root, path: filepath.Join(root, "data", "feedback.json"), foreign: foreign, r: rand.New(rand.NewPCG(powerCutSeed(), 4)), seen: newSeen()}
	if foreign != nil {
		if err := errors.Join(os.Mkdir(filepath.Dir(p.path), 0o755), os.WriteFile(p.path, foreign, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := child("versions", p.path, strconv.Itoa(rows), strconv.Itoa(writes))
	cmd.Env = append(cmd.Env, "GOGC=off") // the garbage collector makes calls of its own, and a short run does not need it
	var err error
	p.calls, err = traced(filepath.Join(memoryDir(t), "trace"), cmd, options...)
	return p, err
}

// memoryDir returns a new folder, which is in memory if /dev/shm has enough room. The tests here simulate the disk, so they
// need no real one, and thousands of small files take less processor time in memory. The room matters, because the child
// processes would drop kept states if /dev/shm were nearly full.
func memoryDir(t *testing.T) string {
	t.Helper()
	memory, err := volume.Measure("/dev/shm")
	if err != nil || memory.Free < 1<<30 || memory.UsedPercent() > 50 || unix.Access(memory.Path, unix.W_OK) != nil {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory.Path, "store-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// trustFailedSync makes a mistake on purpose: after a failed fsync it calls fsync again, trusts the result, and renames the
// file.
func trustFailedSync(args []string) error {
	content := contentOf(votes(100, "x").View())
	fmt.Println("begin", digest(content))
	file, err := os.Create(args[0] + ".tmp")
	if err != nil {
		return err
	}
	if _, err := file.Write(content); err != nil {
		return err
	}
	file.Sync()
	if err := errors.Join(file.Sync(), os.Rename(args[0]+".tmp", args[0])); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(args[0]))
	if err != nil {
		return err
	}
	fmt.Println("renamed")
	return folder.Sync()
}
