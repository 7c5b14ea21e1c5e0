package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pglogrepl"

	"capture/internal/objectserver"
	"capture/internal/pgserver"
	"capture/internal/statefile"
	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
	"capture/store/kept"
	"capture/store/manifest"
	"capture/store/remote"
)

// TestCopyBeforeLoss: the state before a loss is copied off the machine. When the rows are back, the copy is marked as
// acknowledged.
func TestCopyBeforeLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("causes many losses")
	}
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			db := pgserver.Database(t)
			conn := connect(t, db)
			table(t, conn, 300)
			l := copyTo(t, b.URL, b.Env)
			cfg := copiedTo(t, db, l)
			cfg.intervals.keptCheck = 20 * time.Millisecond
			d := start(t, cfg)
			d.awaitCopies("a first copy", func(c *CopiesStatus) bool { return c.Rows == 300 })
			want := oracle(t, conn, "votes", "vote_id")
			exec(t, conn, "TRUNCATE votes")
			var before remote.State
			find := func(acknowledged bool) func() error {
				return func() error {
					clusters, err := l.Clusters(t.Context())
					if err != nil {
						return err
					}
					for _, s := range clusters[0].States {
						if s.Loss && s.Acknowledged == acknowledged {
							before = s
							return nil
						}
					}
					return fmt.Errorf("states are %+v", clusters)
				}
			}
			eventually(t, "a copy of the state before the loss", find(false))
			if got := stateRows(t, l, before); !slices.Equal(got, want) {
				t.Errorf("the copy has %d rows, want %d", len(got), len(want))
			}
			d.awaitCopies("a copy of the empty table", func(c *CopiesStatus) bool { return c.Rows == 0 && c.Pending == nil })
			if got := newestRows(t, l); len(got) != 0 {
				t.Errorf("the newest copy has %d rows", len(got))
			}
			exec(t, conn, "INSERT INTO votes SELECT * FROM json_populate_recordset(NULL::votes, $1)", "["+strings.Join(want, ",")+"]")
			eventually(t, "the acknowledgement", find(true))
		})
	}
}

// TestLossIsNotAcknowledgedFromOldRows: another capture has copied the state before a loss. This capture still has a View
// from before the loss, which contains the lost rows. This View must not acknowledge the loss, because the table still lacks
// the rows.
func TestLossIsNotAcknowledgedFromOldRows(t *testing.T) {
	t.Parallel()
	db := pgserver.Database(t)
	conn := connect(t, db)
	table(t, conn, 300)
	l := copyTo(t, "file://"+t.TempDir(), nil)
	d := start(t, copiedTo(t, db, l))
	d.awaitCopies("a first copy", func(c *CopiesStatus) bool { return c.Rows == 300 })
	old := d.table.View()
	exec(t, conn, "TRUNCATE votes")
	acknowledged := func() (losses, acknowledged int) {
		clusters, err := l.Clusters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range clusters[0].States {
			if s.Loss {
				losses++
			}
			if s.Loss && s.Acknowledged {
				acknowledged++
			}
		}
		return losses, acknowledged
	}
	eventually(t, "a copy of the state before the loss", func() error {
		if losses, _ := acknowledged(); losses == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	u := newUploader(&d.cfg, d.file, func() *snapshot.View { return old }, d.newestView, d.metrics)
	u.kept = func() []kept.State { return nil }
	if err := u.uploadLosses(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, n := acknowledged(); n > 0 || len(*u.openLosses.Load()) != 1 {
		t.Errorf("%d losses are acknowledged, open are %+v", n, *u.openLosses.Load())
	}
}

// TestOpenLossOfDamagedCopy: only a copy shows a loss, and this copy is damaged, so `capture restore` refuses it. The alert
// must not recommend this command. The alert must name the location of the copies in the command that acknowledges the loss.
func TestOpenLossOfDamagedCopy(t *testing.T) {
	t.Parallel()
	l := copyTo(t, "file://"+t.TempDir(), nil)
	shape := &rowjson.Shape{Schema: "public", Table: "votes", Columns: []rowjson.Column{{Name: "id", TypeName: "integer"}}, Key: []int{0}}
	m := manifest.Manifest{
		Format: 1, Table: manifest.TableName{Schema: "public", Name: "votes"}, Columns: shape.Columns, Key: []string{"id"}, LSN: "0/100",
		SystemID: "7300000000000000001", Rows: 1,
		Kept: &manifest.Kept{Loss: &manifest.Loss{Found: time.Now(), RowsBefore: 1, RowsNotCompared: 1}, Damaged: "a bit"},
	}
	s, _, err := l.Folder(m.SystemID).Upload(t.Context(), remote.Source{Manifest: m, Time: time.Now(), Data: strings.NewReader("[\n{\"id\":1}\n]\n")})
	if err != nil {
		t.Fatal(err)
	}
	file, err := store.Open(filepath.Join(t.TempDir(), "feedback.json"), store.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tab := snapshot.NewTable()
	tab.Load(shape, snapshot.Origin{SystemID: m.SystemID})
	if err := tab.Commit(snapshot.Position{LSN: 1}); err != nil {
		t.Fatal(err)
	}
	cfg, c := &Config{CopyTo: l, Logger: hclog.NewNullLogger()}, newConditions()
	u := newUploader(cfg, file, tab.View, nil, newMetrics())
	if err := u.uploadLosses(t.Context()); err != nil {
		t.Fatal(err)
	}
	k := newKeeper(cfg, file, tab.View, c, newMetrics())
	k.remote = u.remoteLosses
	k.checkLosses()
	text := c.clone()[lossCondition]
	if !strings.Contains(text, s.URL+" is damaged, and capture restore refuses it") || !strings.HasSuffix(text, ": capture history --ack --copy-to "+l.String()) ||
		!strings.Contains(text, "The state before is off the machine. ") {
		t.Errorf("the alert is %s", text)
	}
}

// TestAcknowledgementIsCopied: somebody acknowledges a loss on this machine only. The next check of the losses wakes the
// uploader, which marks the copy, too. Later checks do not wake it.
func TestAcknowledgementIsCopied(t *testing.T) {
	t.Parallel()
	file, err := store.Open(filepath.Join(t.TempDir(), "feedback.json"), store.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tab := snapshot.NewTable()
	shape := &rowjson.Shape{Schema: "public", Table: "votes", Columns: []rowjson.Column{{Name: "id", TypeName: "integer"}}, Key: []int{0}}
	tab.Load(shape, snapshot.Origin{SystemID: "7300000000000000001", Database: "app"})
	tab.Put(rowjson.Key{1}, []byte(`{"id":1}`))
	for lsn := range pglogrepl.LSN(2) { // the second Write removes the row
		if err := tab.Commit(snapshot.Position{LSN: lsn + 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write(tab.View(), store.ReasonChange); err != nil {
			t.Fatal(err)
		}
		tab.Truncate()
	}
	l := copyTo(t, "file://"+t.TempDir(), nil)
	cfg := &Config{CopyTo: l, Logger: hclog.NewNullLogger()}
	u := newUploader(cfg, file, tab.View, nil, newMetrics())
	k := newKeeper(cfg, file, tab.View, newConditions(), newMetrics())
	k.lossOver = func() { wake(u.losses) }
	isAcknowledged := func() bool {
		t.Helper()
		if err := u.uploadLosses(t.Context()); err != nil {
			t.Fatal(err)
		}
		clusters, err := l.Clusters(t.Context())
		if err != nil || len(clusters) != 1 || len(clusters[0].States) != 1 {
			t.Fatalf("the copies are %+v, %v", clusters, err)
		}
		return clusters[0].States[0].Acknowledged
	}
	k.checkLosses()
	if len(u.losses) != 0 || isAcknowledged() {
		t.Error("nobody has acknowledged the loss")
	}
	if err := file.Kept().List()[0].Acknowledge(); err != nil {
		t.Fatal(err)
	}
	k.checkLosses()
	if len(u.losses) != 1 {
		t.Fatal("the uploader does not know of the acknowledgement")
	}
	<-u.losses
	k.checkLosses()
	if len(u.losses) != 0 || !isAcknowledged() {
		t.Error("the copy is not marked")
	}
}

// TestCopiedLossIsCountedOnce: the state before a loss is kept on this machine and has been copied off it. Then the data of
// the kept state becomes unreadable, but its manifest still tells capture about the loss. The uploader must not report the
// loss a second time because of the copy, and nothing must be left to upload.
func TestCopiedLossIsCountedOnce(t *testing.T) {
	t.Parallel()
	db := pgserver.Database(t)
	conn := connect(t, db)
	table(t, conn, 300)
	l := copyTo(t, "file://"+t.TempDir(), nil)
	d := start(t, copiedTo(t, db, l))
	d.awaitCopies("a first copy", func(c *CopiesStatus) bool { return c.Rows == 300 })
	exec(t, conn, "TRUNCATE votes")
	eventually(t, "a copy of the state before the loss", func() error {
		if d.said("copied the state before a loss off the machine") == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	s := d.waitForKept(1)[0]
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path, []byte("\x1f\x8b is not gzip"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := statefile.Open(t.Context(), s.Path, nil); err == nil {
		f.Close()
		t.Fatal("the state can still be opened")
	}
	u := newUploader(&d.cfg, d.file, d.table.View, d.newestView, d.metrics)
	if err := u.uploadLosses(t.Context()); err != nil {
		t.Fatal(err)
	}
	if open := *u.openLosses.Load(); len(open) != 0 || !u.lossesAt.IsZero() {
		t.Errorf("losses off the machine are %+v, and the next look at them is at %s", open, u.lossesAt)
	}
}
