package capture

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/snapshot/rowjson"
	"capture/store"
	"capture/store/manifest"
	"capture/store/remote"
	"capture/store/retention"
)

// TestWrongClockAtStart: capture starts on a machine whose clock is weeks ahead, and copies to a folder, which has no clock
// of its own. No copy is removed for its age before the clock has run steadily for a day. This is true even if capture makes
// copies with the wrong time and starts again. It is also true if somebody sets the clock back to another wrong time.
func TestWrongClockAtStart(t *testing.T) {
	t.Parallel()
	const systemID = "7300000000000000001"
	dir, now := t.TempDir(), time.Now()
	l := copyTo(t, "file://"+dir, nil)
	f := l.Folder(systemID)
	table := manifest.TableName{Schema: "public", Name: "votes"}
	for i := range 3 {
		m := manifest.Manifest{
			Format: 1, Table: table, Columns: []rowjson.Column{{Name: "id", TypeName: "integer"}}, Key: []string{"id"},
			LSN: fmt.Sprintf("0/%d", 100+i), SystemID: systemID, Database: "app",
		}
		at := now.Add(time.Duration(i-40) * 24 * time.Hour)
		if _, _, err := f.Upload(t.Context(), remote.Source{Manifest: m, Time: at, Data: bytes.NewReader([]byte("[]\n"))}); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, systemID))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		old := now.Add(-38 * 24 * time.Hour)
		if err := os.Chtimes(filepath.Join(dir, systemID, e.Name()), old, old); err != nil {
			t.Fatal(err)
		}
	}
	file, err := store.Open(filepath.Join(t.TempDir(), "feedback.json"), store.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cfg := Config{CopyTo: l, Logger: hclog.NewNullLogger(), Keep: retention.Default}
	for run, ahead := range []time.Duration{time.Hour, 0, time.Second} { // after the first run, the clock is set back by an hour
		u := newUploader(&cfg, file, nil, nil, newMetrics())
		if err := u.openFolder(t.Context(), systemID, table, "app"); err != nil {
			t.Fatal(err)
		}
		m := manifest.Manifest{
			Format: 1, Table: table, Columns: []rowjson.Column{{Name: "id", TypeName: "integer"}}, Key: []string{"id"},
			LSN: fmt.Sprintf("0/%d", 200+run), SystemID: systemID, Database: "app",
		}
		at := now.Add(ahead)
		if _, m, err = u.upload(t.Context(), u.folder, remote.Source{Manifest: m, Time: at, Data: bytes.NewReader([]byte("[]\n"))}, 3); err != nil {
			t.Fatal(err)
		}
		if late := at.Sub(m.AcceptedAt); late < 37*24*time.Hour || late > 39*24*time.Hour {
			t.Errorf("run %d: the copy of %s has the accepted time %s", run, at, m.AcceptedAt)
		}
		if err := u.prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		if states, err := f.States(t.Context()); err != nil || len(states) != 4+run {
			t.Errorf("run %d: %d copies are left of %d (%v)", run, len(states), 4+run, err)
		}
	}
}
