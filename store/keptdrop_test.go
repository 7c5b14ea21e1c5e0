package store_test

import (
	"path/filepath"
	"testing"

	"capture/store"
	"capture/store/disk"
	"capture/store/kept"
)

// TestDroppedWhileCompressed drops a state while it is being compressed. It must not come back.
func TestDroppedWhileCompressed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	write(t, f, votes(20, "x").View(), store.ReasonInterval)
	if err := f.KeepCurrent(); err != nil {
		t.Fatal(err)
	}
	dropped := 0
	afterCompressing(t, func() {
		states, err := kept.List(path) // as another process does
		if err != nil {
			t.Error(err)
		}
		for _, s := range states {
			if err := s.Drop(); err != nil {
				t.Error(err)
			}
			dropped++
		}
	})
	if done, err := f.Kept().Compress(t.Context()); err != nil || len(done) != 0 || dropped != 1 {
		t.Errorf("compressed %v, %v; dropped %d", done, err, dropped)
	}
	if left := leftovers(t, path); left != nil {
		t.Errorf("left over: %v", left)
	}
	if states := f.Kept().List(); len(states) != 0 {
		t.Errorf("the kept states are %v", states)
	}
}

// afterCompressing makes Compress call fn when the data of a state are compressed and not renamed yet.
func afterCompressing(t *testing.T, fn func()) {
	last := disk.WithIdlePriority
	disk.WithIdlePriority = func(f func() error) error {
		err := last(f)
		fn()
		return err
	}
	t.Cleanup(func() { disk.WithIdlePriority = last })
}
