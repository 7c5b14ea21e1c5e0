package store_test

import (
	"path/filepath"
	"testing"

	"capture/store"
	"capture/store/disk"
	"capture/store/kept"
)

// TestDroppedWhileCompressed drops a state while it is being compressed. The state must not come back, and Compress must not
// return an error.
func TestDroppedWhileCompressed(t *testing.T) {
	for name, hook := range map[string]func(compress func() error, drop func()) error{
		"before it is opened": func(compress func() error, drop func()) error {
			drop()
			return compress()
		},
		"before its data are renamed": func(compress func() error, drop func()) error {
			err := compress()
			drop()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "feedback.json")
			f := open(t, path)
			write(t, f, votes(20, "x").View(), store.ReasonInterval)
			if err := f.KeepCurrent(); err != nil {
				t.Fatal(err)
			}
			dropped, last := 0, disk.WithIdlePriority
			disk.WithIdlePriority = func(compress func() error) error {
				return hook(func() error { return last(compress) }, func() {
					states, err := kept.List(path) // list the states as another process would
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
			}
			defer func() { disk.WithIdlePriority = last }()
			if done, err := f.Kept().Compress(t.Context()); err != nil || len(done) != 0 || dropped != 1 {
				t.Errorf("compressed %v, %v; dropped %d", done, err, dropped)
			}
			if left := leftovers(t, path); left != nil {
				t.Errorf("left over: %v", left)
			}
			if states := f.Kept().List(); len(states) != 0 {
				t.Errorf("the kept states are %v", states)
			}
		})
	}
}
