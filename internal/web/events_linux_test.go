package web

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"capture/snapshot"
)

// TestVotesEventsAfterUnreadableRows checks that, if rows cannot be read back from the spill file, the next event still
// contains all new votes and no other votes.
func TestVotesEventsAfterUnreadableRows(t *testing.T) {
	r := newRowsTable(t, votesShape())
	folder, damaged := t.TempDir(), false
	r.Table = snapshot.NewTestTable(4096, 4)
	r.LimitMemory(8<<10, folder, func(error) { damaged = true })
	const old = 1000
	load := func(n int) {
		r.Load(votesShape(), snapshot.Origin{})
		for id := range n {
			r.vote(id, "a", "b", "{}", "c", "2026-01-01 00:00:00")
		}
		r.commit()
	}
	load(old)
	watcher := func() *votesWatcher { return &votesWatcher{tables: &tables{view: r.View, log: hclog.NewNullLogger()}} }
	before, during := watcher(), watcher()
	before.nextEvent(r.View())
	spoil(t, folder)
	r.vote(0, "changed", "b", "{}", "c", "2026-01-01 00:00:00")
	r.vote(old, "new", "b", "{}", "c", "2026-01-01 00:00:00")
	r.commit()
	if event := before.nextEvent(r.View()); event != nil || !damaged {
		t.Fatalf("damaged %t, event %s", damaged, event)
	}
	if event := during.nextEvent(r.View()); event != nil {
		t.Fatalf("event %s", event)
	}
	load(old + 2)
	for name, c := range map[string]struct {
		watcher  *votesWatcher
		keys     string
		reshaped bool
	}{
		"connected before the damage": {before, "1001 1000", false},
		"connected during the damage": {during, "", true},
	} {
		event := string(c.watcher.nextEvent(r.View()))
		var a struct {
			votesAnswer
			More, Reshaped bool
		}
		if err := json.Unmarshal([]byte(strings.TrimPrefix(event, "event: votes\ndata: ")), &a); err != nil {
			t.Fatalf("%s: %q: %v", name, event, err)
		}
		if a.keys() != c.keys || a.Reshaped != c.reshaped || a.More != c.reshaped || a.Total != old+2 {
			t.Errorf("%s: %.300s", name, event)
		}
	}
}

// spoil empties the files that this process has open and that were created in folder. These files have no name any more.
func spoil(t *testing.T, folder string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		name := filepath.Join("/proc/self/fd", fd.Name())
		if target, _ := os.Readlink(name); strings.HasPrefix(target, folder+"/") {
			if err := os.Truncate(name, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
}
