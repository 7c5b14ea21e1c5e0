package store_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"capture/snapshot"
	"capture/store"
)

func init() { children["filled"] = fillWithKept }

// TestNoRoomForKept checks that a Write fails if the state before a loss leaves too little room, and that the error says
// what to do. Once the loss is acknowledged, the next Write must drop the state and succeed.
func TestNoRoomForKept(t *testing.T) { inOwnMounts(t, "filled", t.TempDir()) }

func fillWithKept(args []string) error {
	if err := mountSmall(args[0]); err != nil { // the volume has 1 MB
		return err
	}
	path := filepath.Join(args[0], "feedback.json")
	f, err := store.Open(path, owner)
	if err != nil {
		return err
	}
	tab := votes(500, strings.Repeat("a", 1000))
	if _, err := f.Write(tab.View(), store.ReasonStart); err != nil {
		return err
	}
	next := func(from, to int) *snapshot.View {
		for i := from; i < to; i++ {
			put(tab, 10_000+i, strings.Repeat("b", 1000))
		}
		tab.Commit(tab.View().Position())
		return tab.View()
	}
	tab.Truncate()
	if r, err := f.Write(next(0, 0), store.ReasonChange); err != nil || r.Kept == nil {
		return fmt.Errorf("the loss: %+v, %v", r.Kept, err)
	}
	if _, err := f.Write(next(0, 200), store.ReasonChange); err != nil {
		return err
	}
	larger := next(200, 350)
	for range 2 {
		_, err = f.Write(larger, store.ReasonChange)
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "capture history --ack or more room") {
			return fmt.Errorf("without room: %v", err)
		}
	}
	states := f.Kept().List()
	if len(states) != 1 || states[0].Rows != 500 {
		return fmt.Errorf("the kept states are %+v", states)
	}
	if err := states[0].Acknowledge(); err != nil {
		return err
	}
	if r, err := f.Write(larger, store.ReasonChange); err != nil || r.Manifest.Rows != 350 {
		return fmt.Errorf("acknowledged: %v", err)
	}
	if states := f.Kept().List(); len(states) != 0 {
		return fmt.Errorf("the kept states are %+v", states)
	}
	runtime.KeepAlive(tab) // a daemon keeps its table in memory, too
	return f.Close()
}
