package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"capture/internal/filetest"
	"capture/internal/objectserver"
	"capture/internal/pgserver"
	"capture/store/remote"
)

// TestEmptyFolderWithoutDatabase: a machine starts with an empty folder while the database is away. It serves the newest copy,
// and the status has the copy's age and cluster. When the database is back, the file follows the table. The rows that were
// deleted meanwhile are a loss.
func TestEmptyFolderWithoutDatabase(t *testing.T) {
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			s := pgserver.Shared(t)
			p := proxiedAddr(t, s.Addr())
			db := pgserver.Database(t)
			conn := connect(t, db)
			table(t, conn, 200)
			l := copyTo(t, b.URL, b.Env)
			first := start(t, copiedTo(t, db, l))
			first.awaitCopies("a copy", func(c *CopiesStatus) bool { return c.Rows == 200 })
			want := oracle(t, conn, "votes", "vote_id")
			if err := first.stop(); err != nil {
				t.Fatal(err)
			}
			p.Refuse()
			cfg := copiedTo(t, strings.Replace(db, s.Addr(), p.Addr(), 1), l)
			path := filepath.Join(t.TempDir(), "feedback.json")
			cfg.LoadPrevious = loadPrevious(path)
			d := startAt(t, cfg, path)
			eventually(t, "the copy's rows", func() error {
				if v := d.View(); v == nil || v.Rows() != 200 {
					return fmt.Errorf("status is %+v", d.Status())
				}
				return nil
			})
			d.notReady("fetched", " old", "cluster")
			if got, err := fileRows(path); err != nil || !slices.Equal(got, want) {
				t.Errorf("the file has %d rows (%v), want %d", len(got), err, len(want))
			}
			if f := d.Status().File; f.Rows != 200 || f.Written == nil {
				t.Errorf("the file's status is %+v", f)
			}
			exec(t, conn, "DELETE FROM votes WHERE vote_id > 20")
			if err := p.Accept(); err != nil {
				t.Fatal(err)
			}
			d.ready()
			eventually(t, "the loss", func() error {
				if st := d.Status(); st.Kept.Losses != 1 {
					return fmt.Errorf("%+v", st.Kept)
				}
				return nil
			})
			eventually(t, "a status without the fetched file", func() error {
				if failing(d.Status().Checks, "fetched") == nil {
					return errors.New("the status still says that the file was fetched")
				}
				return nil
			})
			d.flushAndCompare(conn, "votes", "vote_id")
		})
	}
}

func fileRows(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return filetest.Rows(b)
}

// TestEmptyFolderFindsLoss: a machine starts with an empty folder and a database that has lost rows since the newest copy. That
// copy is kept as the state before a loss, and the alert names it.
func TestEmptyFolderFindsLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many daemons")
	}
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			db := pgserver.Database(t)
			conn := connect(t, db)
			table(t, conn, 200)
			l := copyTo(t, b.URL, b.Env)
			first := start(t, copiedTo(t, db, l))
			first.awaitCopies("a copy", func(c *CopiesStatus) bool { return c.Rows == 200 })
			want := oracle(t, conn, "votes", "vote_id")
			if err := first.stop(); err != nil {
				t.Fatal(err)
			}
			exec(t, conn, "DELETE FROM votes WHERE vote_id > 20")
			d := start(t, copiedTo(t, db, l))
			eventually(t, "the loss", func() error {
				st := d.Status()
				if st.Kept.Losses != 1 {
					return fmt.Errorf("%+v", st.Checks)
				}
				return failing(st.Checks, "loss", "capture restore --on-conflict skip "+b.URL)
			})
			if rows := stateRows(t, l, onlyLoss(t, l)); !slices.Equal(rows, want) {
				t.Errorf("the state before has %d rows, want %d", len(rows), len(want))
			}
			d.awaitCopies("a copy of what is left", func(c *CopiesStatus) bool { return c.Rows == 20 })
			exec(t, conn, "INSERT INTO votes SELECT * FROM json_populate_recordset(NULL::votes, $1) ON CONFLICT DO NOTHING", "["+strings.Join(want, ",")+"]")
			eventually(t, "the end of the loss", func() error {
				wake(d.uploader.losses)
				if st := d.Status(); st.Kept.Losses != 0 {
					return fmt.Errorf("%+v", st.Checks)
				}
				return nil
			})
			if !onlyLoss(t, l).Acknowledged {
				t.Error("the loss is not acknowledged")
			}
		})
	}
}

// TestDamagedCopiesArePassedOver: the two newest copies are damaged. While the database is away, a machine with an empty folder
// serves the copy before them. When the database is back, another machine with an empty folder compares the table with that
// copy, keeps that copy as the state before a loss, and makes a new copy.
func TestDamagedCopiesArePassedOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := pgserver.Shared(t)
	p := proxiedAddr(t, s.Addr())
	db := pgserver.Database(t)
	conn := connect(t, db)
	table(t, conn, 200)
	l := copyTo(t, "file://"+dir, nil)
	first := start(t, copiedTo(t, db, l))
	first.awaitCopies("a copy", func(c *CopiesStatus) bool { return c.Rows == 200 })
	want := oracle(t, conn, "votes", "vote_id")
	for n := 201; n <= 202; n++ {
		exec(t, conn, "INSERT INTO votes (user_query) VALUES ('new')")
		first.awaitCopies("a copy", func(c *CopiesStatus) bool { return c.Rows == n && c.Pending == nil })
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"*/feedback-*-202.manifest.json", "*/feedback-*-201.json.gz"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, name := range names {
			if err := os.WriteFile(name, []byte(`{"format":1}`), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}

	p.Refuse()
	away := copiedTo(t, strings.Replace(db, s.Addr(), p.Addr(), 1), l)
	path := filepath.Join(t.TempDir(), "feedback.json")
	away.LoadPrevious = loadPrevious(path)
	second := startAt(t, away, path)
	eventually(t, "the intact copy's rows", func() error {
		if v := second.View(); v == nil || v.Rows() != 200 {
			return fmt.Errorf("status is %+v", second.Status())
		}
		return nil
	})
	if n := second.said("copy off the machine is damaged; looking for an older one"); n < 2 {
		t.Errorf("%d damaged copies in the log", n)
	}
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}

	exec(t, conn, "DELETE FROM votes WHERE vote_id > 20")
	third := start(t, copiedTo(t, db, l))
	third.awaitCopies("a copy of what is left", func(c *CopiesStatus) bool { return c.Rows == 20 && c.Pending == nil && c.Proven != nil })
	if rows := stateRows(t, l, onlyLoss(t, l)); !slices.Equal(rows, want) {
		t.Errorf("the state before the loss has %d rows, want %d", len(rows), len(want))
	}
}

// onlyLoss returns the uploaded state before a loss. The test fails unless there is exactly one.
func onlyLoss(t testing.TB, l *remote.Location) remote.State {
	t.Helper()
	clusters, err := l.Clusters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var losses []remote.State
	for _, s := range clusters[0].States {
		if s.Loss {
			losses = append(losses, s)
		}
	}
	if len(losses) != 1 {
		t.Fatalf("states are %+v", clusters)
	}
	return losses[0]
}
