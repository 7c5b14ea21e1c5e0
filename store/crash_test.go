package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"capture/internal/filetest"
	"capture/snapshot"
	"capture/store"
	"capture/store/manifest"
	"capture/store/retention"
)

// writeEndlessly writes versions of the file with changing lengths, as fast as it can.
func writeEndlessly(args []string) error {
	f, err := store.Open(args[0], owner)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	tab := votes(100, "x")
	for i := 0; ; i++ {
		tab.Put(key(i%3000), fmt.Appendf(nil, `{"vote_id":%d,"comment":"%s"}`, i%3000, strings.Repeat("y", i%700)))
		tab.Commit(snapshot.Position{LSN: 1})
		if _, err := f.Write(tab.View(), store.ReasonChange); err != nil {
			return err
		}
	}
}

// TestKill kills a writer again and again, while a reader checks each version of the file that it catches.
func TestKill(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	path := filepath.Join(t.TempDir(), "feedback.json")
	first := open(t, path)
	write(t, first, votes(1, "x").View(), store.ReasonStart)
	first.Close()
	killWriters(t, "write", path, rounds, func(data []byte) error {
		lines, err := filetest.Lines(data)
		if err == nil && len(lines) == 0 {
			err = errors.New("the file has no rows")
		}
		return err
	}, 0)
}

// killWriters starts a child that writes the file at path, and kills it at a random moment, again and again. Meanwhile,
// readers check each version that they catch. pauses has one element for each reader: the time for which the reader pauses
// after each 64 kB.
func killWriters(t *testing.T, name, path string, rounds int, check func(data []byte) error, pauses ...time.Duration) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	stop := make(chan struct{})
	var versions atomic.Int64
	var readers sync.WaitGroup
	for _, pause := range pauses {
		readers.Go(func() {
			var last os.FileInfo
			for {
				select {
				case <-stop:
					return
				default:
				}
				info, err := os.Stat(path)
				if err == nil && last != nil && os.SameFile(info, last) && info.ModTime().Equal(last.ModTime()) {
					time.Sleep(100 * time.Microsecond) // until there is another version
					continue
				}
				last = info
				data, err := readSlowly(path, pause)
				if err == nil {
					err = check(data)
				}
				if err != nil {
					t.Errorf("a reader saw %v", err)
					return
				}
				versions.Add(1)
			}
		})
	}
	func() {
		defer readers.Wait()
		defer close(stop)
		for range rounds {
			cmd := child(name, path)
			started(t, cmd)
			wait := time.NewTimer(time.Duration(r.IntN(30_000)) * time.Microsecond)
			<-wait.C // waits for a random moment, not for a condition
			cmd.Process.Signal(syscall.SIGKILL)
			cmd.Wait()
			f, err := store.Open(path, owner)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := f.Existing(); !ok {
				t.Errorf("after a kill the file is taken for damaged: %s", store.Warning(f))
			}
			if names := leftovers(t, path); names != nil {
				t.Errorf("left over: %v", names)
			}
			checkPair(t, path)
			f.Close()
		}
	}()
	t.Logf("%d kills, readers saw the file %d times", rounds, versions.Load())
}

func readSlowly(path string, pause time.Duration) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var data []byte
	for buf := make([]byte, 64<<10); ; {
		n, err := file.Read(buf)
		data = append(data, buf[:n]...)
		if err == io.EOF {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		if pause > 0 {
			time.Sleep(pause)
		}
	}
}

// crashBetweenRenames kills its own process between the two renames of a Write.
func crashBetweenRenames(args []string) error {
	f, err := store.Open(args[0], owner)
	if err != nil {
		return err
	}
	if _, err := f.Write(votes(5, "old").View(), store.ReasonStart); err != nil {
		return err
	}
	store.SetAtRename(func() {
		fmt.Println("ready")
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	})
	_, err = f.Write(votes(9, "new").View(), store.ReasonChange)
	return err
}

func TestCrashBetweenRenames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	cmd := child("crash", path)
	started(t, cmd)
	cmd.Wait()
	if m, err := manifest.Read(path); err != nil || m.Rows != 5 {
		t.Fatalf("not between the renames: %+v, %v", m, err)
	}
	f := open(t, path)
	if m, ok := f.Existing(); !ok || m.Rows != 9 {
		t.Errorf("Existing returns %+v, %v", m, ok)
	}
	if m := checkPair(t, path); m.Rows != 9 {
		t.Errorf("%d rows", m.Rows)
	}
	for _, want := range []bool{true, false} { // the warning must appear only once
		r := write(t, f, votes(9, "new").View(), store.ReasonStart)
		if warned := strings.Contains(r.Warning, "crash"); warned != want {
			t.Errorf("the warning is %q", r.Warning)
		}
	}
	if names := leftovers(t, path); names != nil {
		t.Errorf("left over: %v", names)
	}
}

// TestFailureBetweenRenames makes Writes fail between their two renames. Afterwards only the pending manifest describes the
// file. The next operation must first rename the pending manifest. It must not overwrite the pending manifest, and must not
// use the manifest of the previous version.
func TestFailureBetweenRenames(t *testing.T) {
	horizon := &snapshot.Horizon{XID: 100, LSN: 5, Place: snapshot.Place{SystemID: "7", Timeline: 1, Started: 2, DatabaseOID: 3, TableOID: 4, Files: "f", Fingerprint: "g"}}
	// failSecondWrite writes 100 rows, and then other rows of the same length. The second Write fails between its renames. If
	// reopen is set, the file is closed and opened again before the second Write.
	failSecondWrite := func(t *testing.T, reopen bool) (f *store.File, tab *snapshot.Table, path string) {
		t.Helper()
		path = filepath.Join(t.TempDir(), "feedback.json")
		f, tab = open(t, path), votes(100, "old")
		tab.SetHorizon(horizon)
		write(t, f, tab.View(), store.ReasonStart)
		if reopen {
			f.Close()
			f = open(t, path)
			f.Kept().SetPolicy(retention.Policy{})
		}
		store.SetAtRename(func() { // makes the second rename fail: a file cannot be renamed to the path of a folder
			if err := errors.Join(os.Rename(manifest.Path(path), path+".aside"), os.Mkdir(manifest.Path(path), 0o755)); err != nil {
				t.Error(err)
			}
		})
		defer store.SetAtRename(func() {})
		v := commit(t, tab, func() {
			for i := range 50 {
				put(tab, i, "new")
			}
		})
		tab.SetHorizon(horizon)
		if _, err := f.Write(v, store.ReasonChange); err == nil {
			t.Fatal("the Write succeeded")
		}
		return f, tab, path
	}
	repair := func(t *testing.T, path string) {
		t.Helper()
		if err := errors.Join(os.Remove(manifest.Path(path)), os.Rename(path+".aside", manifest.Path(path))); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("horizon dropped", func(t *testing.T) {
		f, tab, path := failSecondWrite(t, false)
		repair(t, path)
		if err := f.DropHorizon(tab.View()); err != nil {
			t.Fatal(err)
		}
		if m := checkPair(t, path); m.Horizon != nil {
			t.Errorf("the manifest has the horizon %+v", m.Horizon)
		}
	})
	for name, again := range map[string]bool{"loss": false, "loss, and the first Write of a run failed": true} {
		t.Run(name, func(t *testing.T) {
			f, tab, path := failSecondWrite(t, again)
			before := read(t, path)
			empty := commit(t, tab, tab.Truncate)
			if _, err := f.Write(empty, store.ReasonChange); err == nil {
				t.Fatal("the second Write succeeded")
			}
			if m, err := manifest.ReadAt(manifest.Path(path) + ".tmp"); err != nil || fits(m, before) != nil {
				t.Errorf("after the second failure no manifest describes the file: %+v, %v", m, err)
			}
			repair(t, path)
			write(t, f, empty, store.ReasonChange)
			checkPair(t, path)
			if _, err := f.Kept().Compress(t.Context()); err != nil {
				t.Fatal(err)
			}
			states := f.Kept().List()
			if len(states) != 1 || states[0].Damaged != "" || !bytes.Equal(unzip(t, states[0].Path), before) {
				t.Errorf("the kept states are %+v", states)
			}
		})
	}
}
