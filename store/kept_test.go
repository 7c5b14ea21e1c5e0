package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"capture/snapshot"
	"capture/store"
	"capture/store/kept"
)

// TestKeptOnce checks that equal states are stored only once, also after a restart. If a Write fails after it has kept the
// file, the next Write must not keep the file again, even if it is the first Write after a restart.
func TestKeptOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, tab := open(t, path), votes(100, "x")
	write(t, f, tab.View(), store.ReasonStart)
	for range 3 {
		write(t, f, tab.View(), store.ReasonInterval)
		if err := f.KeepCurrent(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Kept().Compress(t.Context()); err != nil {
			t.Fatal(err)
		}
		if states := f.Kept().List(); len(states) != 1 || states[0].Loss != nil {
			t.Fatalf("the kept states are %+v", states)
		}
	}
	restart := func() {
		t.Helper()
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		f = open(t, path)
	}
	restart()
	for range 2 { // the first Write replaces the file of the previous run
		write(t, f, votes(100, "x").View(), store.ReasonInterval)
		if err := f.KeepCurrent(); err != nil {
			t.Fatal(err)
		}
	}
	restart()
	r := write(t, f, votes(101, "x").View(), store.ReasonInterval) // the last state of the previous run is kept already
	if states := f.Kept().List(); len(states) != 1 || r.Kept == nil || r.Kept.Path != states[0].Path {
		t.Fatalf("after a restart the kept states are %+v; the Write kept %+v", states, r.Kept)
	}
	write(t, f, tab.View(), store.ReasonInterval)
	// The last state before the loss is already kept as an ordinary state. The Write must mark this kept state as the state
	// before a loss, and must not keep the file a second time.
	manifestTmp := filepath.Join(filepath.Dir(path), "feedback.manifest.json.tmp")
	if err := os.MkdirAll(filepath.Join(manifestTmp, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	empty := commit(t, tab, tab.Truncate)
	for i := range 3 {
		if i == 2 {
			restart()
		}
		if _, err := f.Write(empty, store.ReasonChange); err == nil {
			t.Fatal("the Write succeeded")
		}
		if states := f.Kept().List(); len(states) != 1 || states[0].Loss == nil || states[0].Rows != 100 {
			t.Fatalf("after a failed Write the kept states are %+v", states)
		}
	}
	os.RemoveAll(manifestTmp)
	restart()
	write(t, f, empty, store.ReasonChange)
	if states := f.Kept().List(); len(states) != 1 || rowsOf(t, unzip(t, states[0].Path)) != 100 {
		t.Errorf("the kept states are %+v", states)
	}
}

// TestAcknowledgedWhileWaiting acknowledges a loss whose Write has failed. It checks that the next attempt to write the same
// View does not keep the state before the loss again.
func TestAcknowledgedWhileWaiting(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, tab := open(t, path), votes(100, "x")
	write(t, f, tab.View(), store.ReasonStart)
	inTheWay := filepath.Join(filepath.Dir(path), "feedback.manifest.json.tmp", "in the way")
	if err := os.MkdirAll(inTheWay, 0o755); err != nil {
		t.Fatal(err)
	}
	half := commit(t, tab, func() {
		for i := range 50 {
			tab.Delete(key(i))
		}
	})
	if _, err := f.Write(half, store.ReasonChange); err == nil {
		t.Fatal("the Write succeeded")
	}
	states := f.Kept().List()
	if len(states) != 1 {
		t.Fatalf("the kept states are %+v", states)
	}
	if err := states[0].Acknowledge(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(half, store.ReasonChange); err == nil {
		t.Fatal("the Write succeeded")
	}
	if states = f.Kept().List(); len(states) != 1 || !states[0].Acknowledged {
		t.Errorf("after the same loss the kept states are %+v", states)
	}
	// Rows that are lost after the acknowledgement are another loss.
	empty := commit(t, tab, tab.Truncate)
	os.RemoveAll(filepath.Dir(inTheWay))
	write(t, f, empty, store.ReasonChange)
	states = f.Kept().List()
	if len(states) != 2 || states[0].Acknowledged || states[0].Rows != 100 || states[0].Loss.RowsLost != 100 {
		t.Errorf("after another loss the kept states are %+v", states)
	}
}

// TestLossEnds checks that a loss ends when nine tenths of the lost keys are back, or when somebody acknowledges the loss,
// even from another process.
func TestLossEnds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, tab := open(t, path), votes(1000, "x")
	write(t, f, tab.View(), store.ReasonStart)
	lose := func() {
		t.Helper()
		if r := write(t, f, commit(t, tab, tab.Truncate), store.ReasonChange); r.Kept == nil || r.Kept.Loss == nil {
			t.Fatalf("kept %+v", r.Kept)
		}
	}
	isOpen := func(want bool) {
		t.Helper()
		if _, err := f.Kept().EndLosses(tab.View); err != nil {
			t.Fatal(err)
		}
		if got := !f.Kept().List()[0].Acknowledged; got != want {
			t.Errorf("with %d rows the loss is open: %v", tab.View().Rows(), got)
		}
	}
	lose()
	isOpen(true)
	commit(t, tab, func() {
		for i := range 2000 {
			put(tab, 5000+i, "new")
		}
	})
	isOpen(true)
	commit(t, tab, func() {
		for i := range 899 {
			put(tab, i, "back")
		}
	})
	isOpen(true)
	commit(t, tab, func() { put(tab, 950, "back") })
	isOpen(false)
	if ended := f.Kept().List()[0]; !ended.RowsBack {
		t.Errorf("the rows are back, but the state is %+v", ended)
	}
	write(t, f, tab.View(), store.ReasonChange)

	lose()
	isOpen(true)
	states, err := kept.List(path)
	if err != nil || len(states) != 2 {
		t.Fatalf("the kept states are %+v, %v", states, err)
	}
	if err := states[0].Acknowledge(); err != nil {
		t.Fatal(err)
	}
	isOpen(false)
	f.Close()
	f = open(t, path)
	isOpen(false)
	if states := f.Kept().List(); states[0].RowsBack || !states[1].RowsBack {
		t.Errorf("after a restart: the acknowledged loss, then the one whose rows are back: %+v", states)
	}
}

// TestLossInStepsEnds loses rows in two steps. New rows must not end the loss.
func TestLossInStepsEnds(t *testing.T) {
	t.Parallel()
	f, tab := open(t, filepath.Join(t.TempDir(), "feedback.json")), votes(100, "x")
	write(t, f, tab.View(), store.ReasonStart)
	for _, first := range []int{0, 10} {
		write(t, f, commit(t, tab, func() {
			for i := range 10 {
				tab.Delete(key(first + i))
			}
		}), store.ReasonChange)
	}
	if states := f.Kept().List(); len(states) != 1 || states[0].Loss == nil || states[0].Loss.HourHighest != 100 {
		t.Fatalf("the kept states are %+v", states)
	}
	for _, step := range []struct {
		first, ended int
	}{{200, 0}, {0, 1}} { // the first step adds rows with other keys, and the second step adds the lost keys
		commit(t, tab, func() {
			for i := range 20 {
				put(tab, step.first+i, "y")
			}
		})
		if ended, err := f.Kept().EndLosses(tab.View); err != nil || len(ended) != step.ended {
			t.Errorf("after rows from %d on, ended are %+v (%v)", step.first, ended, err)
		}
	}
}

// TestLossRecursWhileItEnds puts lost rows back, and deletes them again while EndLosses runs. EndLosses must not end the
// second loss together with the first one.
func TestLossRecursWhileItEnds(t *testing.T) {
	t.Parallel()
	f, tab := open(t, filepath.Join(t.TempDir(), "feedback.json")), votes(100, "x")
	full := tab.View()
	write(t, f, full, store.ReasonStart)
	write(t, f, commit(t, tab, tab.Truncate), store.ReasonChange)
	back := commit(t, tab, func() {
		for row, err := range full.From(nil) {
			if err != nil {
				t.Fatal(err)
			}
			tab.Put(row.Key, row.Line)
		}
	})
	write(t, f, back, store.ReasonChange)
	empty, written := commit(t, tab, tab.Truncate), make(chan error, 1)
	_, err := f.Kept().EndLosses(func() *snapshot.View {
		go func() {
			_, err := f.Write(empty, store.ReasonChange)
			written <- err
		}()
		select { // the Write should wait until EndLosses returns, so give it time to show that it does not wait
		case err := <-written:
			written <- err
		case <-time.After(100 * time.Millisecond):
		}
		return back
	})
	if err := errors.Join(err, <-written); err != nil {
		t.Fatal(err)
	}
	if states := f.Kept().List(); len(states) == 0 || states[0].Acknowledged || states[0].Rows != 100 {
		t.Errorf("the kept states are %+v", states)
	}
}

// TestManyLossesOnDisk makes many losses, each followed by a reload. It checks that the number of files stays bounded, and
// that no other files are left. The state before the largest unacknowledged loss must stay, even when all other states are
// dropped for lack of space.
func TestManyLossesOnDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("keeps many states")
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, tab := open(t, path), votes(200, "x")
	write(t, f, tab.View(), store.ReasonStart)
	for i := range 50 {
		write(t, f, commit(t, tab, tab.Truncate), store.ReasonChange)
		write(t, f, commit(t, tab, func() {
			for j := range 20 + i {
				put(tab, j, fmt.Sprint(i))
			}
		}), store.ReasonInterval)
		if _, err := f.Kept().EndLosses(tab.View); err != nil {
			t.Fatal(err)
		}
		if err := f.KeepCurrent(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Kept().Compress(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Kept().Prune(); err != nil {
			t.Fatal(err)
		}
	}
	states := f.Kept().List()
	most := 0
	for _, s := range states {
		most = max(most, s.Rows)
	}
	if len(states) > 12 || most != 200 {
		t.Errorf("%d states, the largest of %d rows", len(states), most)
	}
	if n := len(names(t, filepath.Dir(path))); n > 3+3*len(states) {
		t.Errorf("%d files: %q", n, names(t, filepath.Dir(path)))
	}
	_, left, err := f.Kept().MakeRoom(1 << 50)
	if states := f.Kept().List(); err != nil || left == nil || left.Rows != 200 || len(states) != 1 || states[0].Rows != 200 || states[0].Acknowledged {
		t.Errorf("without space, %+v is left of the states %+v; %v", left, states, err)
	}
}
