package store_test

import (
	"path/filepath"
	"testing"

	"capture/store"
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
	store.AfterCompressing(t, func() {
		states, err := store.ListKept(path) // as another process does
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
	if done, err := f.CompressKept(t.Context()); err != nil || len(done) != 0 || dropped != 1 {
		t.Errorf("compressed %v, %v; dropped %d", done, err, dropped)
	}
	if left := leftovers(t, path); left != nil {
		t.Errorf("left over: %v", left)
	}
	if states := f.Kept(); len(states) != 0 {
		t.Errorf("the kept states are %v", states)
	}
}
