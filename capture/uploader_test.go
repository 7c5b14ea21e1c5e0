package capture

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"capture/internal/filetest"
	"capture/internal/objectserver"
	"capture/internal/pgserver"
	"capture/internal/statefile"
	"capture/store/remote"
)

// copyTo opens the location at rawURL. env contains environment variables, and can contain the endpoint of the service under
// the name "endpoint".
func copyTo(t testing.TB, rawURL string, env map[string]string) *remote.Location {
	t.Helper()
	if endpoint := env["endpoint"]; endpoint != "" {
		rawURL += "?endpoint=" + url.QueryEscape(endpoint)
	}
	l, err := remote.Open(rawURL, objectserver.Getenv(env))
	if err != nil {
		t.Fatal(err)
	}
	l.Patience = time.Second
	return l
}

// copiedTo returns the configuration of a daemon that copies to a location soon after each change.
func copiedTo(t testing.TB, url string, to *remote.Location) Config {
	t.Helper()
	cfg := config(t, url)
	cfg.CopyTo = to
	cfg.intervals.uploadCheck, cfg.intervals.uploadDelay = 10*time.Millisecond, 10*time.Millisecond
	return cfg
}

// awaitCopies waits until the status of the copies meets a condition, and returns this status.
func (d *daemon) awaitCopies(what string, until func(*CopiesStatus) bool) *CopiesStatus {
	d.t.Helper()
	var s *CopiesStatus
	eventually(d.t, what, func() error {
		if s = d.Status().Copies; s == nil || !until(s) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	return s
}

// newestRows downloads the newest state, checks it as `capture restore` does, and returns its rows.
func newestRows(t testing.TB, l *remote.Location) []string {
	t.Helper()
	clusters, err := l.Clusters(t.Context())
	if err != nil || len(clusters) != 1 {
		t.Fatalf("clusters are %+v (%v)", clusters, err)
	}
	s, _, err := l.Newest(t.Context(), clusters[0].States)
	if err != nil {
		t.Fatal(err)
	}
	return stateRows(t, l, s)
}

func stateRows(t testing.TB, l *remote.Location, s remote.State) []string {
	t.Helper()
	path, m, err := l.Download(t.Context(), s, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f, err := statefile.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		t.Fatal(err)
	}
	rows, err := filetest.Rows(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.CheckManifest(m.Rows, nil); err != nil || len(rows) != m.Rows {
		t.Fatalf("%s has %d rows, the manifest says %d (%v)", s.URL, len(rows), m.Rows, err)
	}
	return rows
}

// TestCopies: with every source, the newest state is copied off the machine, read back, and equal to the table.
func TestCopies(t *testing.T) {
	t.Parallel()
	for i, source := range sourceKinds {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, objectserver.Kinds[i%2])
			db := pgserver.Database(t)
			conn := connect(t, db)
			table(t, conn, 500)
			l := copyTo(t, b.URL+"/votes", b.Env)
			cfg := copiedTo(t, db, l)
			cfg.Source, cfg.PollInterval = source, 20*time.Millisecond
			d := start(t, cfg)
			first := d.awaitCopies("the first copy is proven", func(c *CopiesStatus) bool { return c.Proven != nil })
			if first.Rows != 500 || first.Checksum == "" || first.Exclusive || first.Hourly {
				t.Errorf("copies are %+v", first)
			}
			exec(t, conn, "UPDATE votes SET comment = 'changed' WHERE vote_id % 7 = 0")
			exec(t, conn, "INSERT INTO votes (user_query) VALUES ('new')")
			d.awaitCopies("the change is copied", func(c *CopiesStatus) bool { return c.Rows == 501 && c.Pending == nil })
			if got, want := newestRows(t, l), oracle(t, conn, "votes", "vote_id"); !slices.Equal(got, want) {
				t.Errorf("the copy has %d rows, and the table %d", len(got), len(want))
			}
			if strings.Contains(first.State, "-0000000000000000-") {
				t.Errorf("%s has no position", first.State)
			}
			if n := d.said("copied off the machine"); n < 2 {
				t.Errorf("%d uploads in the log", n)
			}
		})
	}
}

// TestDamagedCopyIsFound: a copy is damaged in the bucket. The next read of the copy finds the damage and raises the alert.
// Then another copy is made, and the alert ends.
func TestDamagedCopyIsFound(t *testing.T) {
	t.Parallel()
	b := objectserver.NewBucket(t, "s3")
	db := pgserver.Database(t)
	conn := connect(t, db)
	table(t, conn, 100)
	l := copyTo(t, b.URL, b.Env)
	cfg := copiedTo(t, db, l)
	d := start(t, cfg)
	first := d.awaitCopies("a proven copy", func(c *CopiesStatus) bool { return c.Proven != nil })
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	client, err := b.S3()
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(first.State, b.URL+"/")
	replace(t, client, b.Name, name, []byte("not what was written"))
	// This uploader is like the uploader of a new run whose last copy is the damaged copy.
	view := d.table.View()
	u := newUploader(&d.cfg, d.file, d.table.View, d.newestView, d.metrics)
	u.last, u.lastView, u.schedule.uploaded = stateOf(t, l, first.State), view.Version(), time.Now()
	u.folder, u.systemID, u.lossesDue = l.Folder(view.Origin().SystemID), view.Origin().SystemID, false
	if u.limits, err = u.folder.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := u.prove(t.Context()); err != nil {
		t.Fatal(err)
	}
	u.updateStatus(time.Now())
	if c := u.status(); !strings.Contains(c.Problem, "damaged") || c.check(time.Now()).OK || !worthAlert(c.check(time.Now())) {
		t.Errorf("copies are %+v", c)
	}
	u.workIfDue(t.Context())
	u.updateStatus(time.Now())
	if c := u.status(); c.Problem != "" || c.Proven == nil {
		t.Errorf("copies are %+v", c)
	}
	if got := newestRows(t, l); len(got) != 100 {
		t.Errorf("the new copy has %d rows", len(got))
	}
}

// TestCopyCheckDetail checks the text about uploads and read-backs. The last case, a read-back without an upload, occurs
// only after a copy was damaged. A running capture then shows the damage instead of this text.
func TestCopyCheckDetail(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		copied, proven *time.Time
		want           string
	}{
		{nil, nil, "none yet"}, {&now, nil, "copied 0s ago; never read back"},
		{&now, &now, "copied 0s ago; read back 0s ago"}, {nil, &now, "none yet; read back 0s ago"},
	} {
		if got := (&CopiesStatus{Copied: c.copied, Proven: c.proven}).check(now); !got.OK || got.Detail != c.want {
			t.Errorf("got %+v, want %q", got, c.want)
		}
	}
}

func stateOf(t testing.TB, l *remote.Location, url string) remote.State {
	t.Helper()
	clusters, err := l.Clusters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clusters {
		for _, s := range c.States {
			if s.URL == url {
				return s
			}
		}
	}
	t.Fatalf("%s is not there", url)
	return remote.State{}
}

// TestCopiesWithoutTheRightToDelete: without the right to delete, capture uploads only one copy an hour, and the states that
// were kept before losses. The status reports that the copies are hourly.
func TestCopiesWithoutTheRightToDelete(t *testing.T) {
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			db := pgserver.Database(t)
			conn := connect(t, db)
			table(t, conn, 100)
			l := copyTo(t, b.URL, b.WithoutDelete(t, b.Addr))
			d := start(t, copiedTo(t, db, l))
			d.awaitCopies("a first copy", func(c *CopiesStatus) bool { return c.Proven != nil && c.Hourly })
			exec(t, conn, "DELETE FROM votes WHERE vote_id > 10")
			eventually(t, "a copy of the state before the loss", func() error {
				clusters, err := l.Clusters(t.Context())
				if err == nil && !slices.ContainsFunc(clusters[0].States, func(s remote.State) bool { return s.Loss }) {
					err = errors.New("there is none")
				}
				return err
			})
			if c := d.Status().Copies; c.Rows != 100 || c.Pending == nil {
				t.Errorf("the change was copied before an hour had passed: %+v", c)
			}
			if c := d.Status().Copies.check(time.Now()); !c.OK || !strings.Contains(c.Detail, "hourly") {
				t.Errorf("the check is %+v", c)
			}
		})
	}
}

// TestTwoDaemonsShareAPrefix: two daemons share a prefix. Both copy, and latest.json names the newest state.
func TestTwoDaemonsShareAPrefix(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for uploads")
	}
	t.Parallel()
	b := objectserver.NewBucket(t, "azblob")
	db := pgserver.Database(t)
	conn := connect(t, db)
	table(t, conn, 10)
	l := copyTo(t, b.URL, b.Env)
	daemons := []*daemon{start(t, copiedTo(t, db, copyTo(t, b.URL, b.Env))), start(t, copiedTo(t, db, copyTo(t, b.URL, b.Env)))}
	for i := range 10 {
		exec(t, conn, "INSERT INTO votes (user_query) VALUES ($1)", fmt.Sprint("vote ", i))
	}
	for _, d := range daemons {
		d.awaitCopies("all votes are copied", func(c *CopiesStatus) bool { return c.Rows == 20 && c.Pending == nil && c.Error == "" })
	}
	if got := newestRows(t, l); len(got) != 20 {
		t.Errorf("the newest copy has %d rows", len(got))
	}
}

// TestPrefixOfAnotherTable: the prefix has the copies of another table. Nothing is copied, and the status gives the reason.
func TestPrefixOfAnotherTable(t *testing.T) {
	t.Parallel()
	dir := "file://" + t.TempDir()
	db := pgserver.Database(t)
	conn := connect(t, db)
	table(t, conn, 10)
	exec(t, conn, "CREATE TABLE other (id int PRIMARY KEY)")
	first := start(t, copiedTo(t, db, copyTo(t, dir, nil)))
	first.awaitCopies("a first copy", func(c *CopiesStatus) bool { return c.Copied != nil })
	cfg := copiedTo(t, db, copyTo(t, dir, nil))
	cfg.Table.Table = "other"
	second := start(t, cfg)
	c := second.awaitCopies("a refusal", func(c *CopiesStatus) bool { return c.Error != "" })
	if !strings.Contains(c.Error, "each table needs a prefix of its own") || c.Copied != nil || !worthAlert(c.check(time.Now())) {
		t.Errorf("copies are %+v", c)
	}
}

// TestCopiesOfRenamedDatabase: the database is renamed while capture is stopped. Nothing is copied to the old prefix, and the
// status says so at once. With a new prefix, everything is copied, including the state before a loss that happened under the
// old name.
func TestCopiesOfRenamedDatabase(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	admin := connect(t, s.URL("postgres"))
	exec(t, admin, "CREATE DATABASE before")
	conn := connect(t, s.URL("before"))
	table(t, conn, 100)
	old := "file://" + t.TempDir()
	cfg := copiedTo(t, s.URL("before"), copyTo(t, old, nil))
	d := start(t, cfg)
	d.awaitCopies("a first copy", func(c *CopiesStatus) bool { return c.Copied != nil })
	exec(t, conn, "DELETE FROM votes WHERE vote_id > 50")
	d.awaitCopies("a copy of what is left", func(c *CopiesStatus) bool { return c.Rows == 50 })
	if err := errors.Join(d.stop(), conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	exec(t, admin, "ALTER DATABASE before RENAME TO after")

	cfg.Database = config(t, s.URL("after")).Database
	cfg.CopyTo = copyTo(t, old, nil)
	d = startAt(t, cfg, d.path)
	c := d.awaitCopies("a refusal", func(c *CopiesStatus) bool { return c.Problem != "" })
	if !strings.Contains(c.Problem, "of database before: each table needs a prefix of its own") || c.Copied != nil || !worthAlert(c.check(time.Now())) {
		t.Errorf("copies are %+v", c)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	l := copyTo(t, "file://"+t.TempDir(), nil)
	cfg.CopyTo = l
	d = startAt(t, cfg, d.path)
	d.awaitCopies("a copy in the new prefix", func(c *CopiesStatus) bool { return c.Copied != nil && c.Problem == "" })
	eventually(t, "the state before the loss is copied", func() error {
		clusters, err := l.Clusters(t.Context())
		if err == nil && (len(clusters) != 1 || !slices.ContainsFunc(clusters[0].States, func(s remote.State) bool { return s.Loss && s.Rows == 100 })) {
			err = fmt.Errorf("%+v", clusters)
		}
		return err
	})
}

// TestCopiesAfterTableChanged: while capture runs, the table's name gets another meaning, because the search_path has changed.
// The other table is not copied to the prefix of the first one.
func TestCopiesAfterTableChanged(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for uploads")
	}
	t.Parallel()
	db := pgserver.Database(t)
	conn := connect(t, db)
	table(t, conn, 10)
	exec(t, conn, "CREATE SCHEMA app; CREATE TABLE app.votes (LIKE public.votes INCLUDING ALL)")
	l := copyTo(t, "file://"+t.TempDir(), nil)
	d := start(t, copiedTo(t, db, l))
	d.awaitCopies("a first copy", func(c *CopiesStatus) bool { return c.Copied != nil && c.Pending == nil })
	const kick = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
	exec(t, conn, "ALTER DATABASE "+conn.Config().Database+" SET search_path = app, public")
	exec(t, conn, kick)
	d.awaitCopies("a refusal", func(c *CopiesStatus) bool { return strings.Contains(c.Problem, "has copies of table public.votes") })
	if got := newestRows(t, l); len(got) != 10 {
		t.Errorf("the newest copy has %d rows", len(got))
	}
	exec(t, conn, "ALTER DATABASE "+conn.Config().Database+" RESET search_path")
	exec(t, conn, kick)
	exec(t, conn, "INSERT INTO public.votes DEFAULT VALUES")
	d.awaitCopies("copies go on", func(c *CopiesStatus) bool { return c.Rows == 11 && c.Problem == "" })
}

// TestSecretsOfCopies: no log line, status or metric contains a secret, whatever goes wrong.
func TestSecretsOfCopies(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for uploads")
	}
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			p := proxiedAddr(t, b.Addr)
			db := pgserver.Database(t)
			conn := connect(t, db)
			table(t, conn, 50)
			for what, env := range map[string]map[string]string{
				"all rights": b.Through(p.Addr()), "without the right to delete": b.WithoutDelete(t, p.Addr()), "no bucket": b.Through(p.Addr()),
			} {
				cfg := copiedTo(t, db, copyTo(t, b.URL, env))
				if what == "no bucket" {
					cfg = copiedTo(t, db, copyTo(t, kind+"://no-such-bucket", env))
				}
				registry := prometheus.NewRegistry()
				cfg.Registry = registry
				d := start(t, cfg)
				d.awaitCopies("a copy or a failure", func(c *CopiesStatus) bool { return c.Proven != nil || c.Error != "" })
				p.Refuse()
				p.Cut()
				exec(t, conn, "DELETE FROM votes WHERE vote_id > 5; INSERT INTO votes (user_query) SELECT i FROM generate_series(1, 60) i")
				d.awaitCopies("a failure", func(c *CopiesStatus) bool { return c.Error != "" })
				if err := p.Accept(); err != nil {
					t.Fatal(err)
				}
				said := d.log.String() + fmt.Sprintf("%+v %+v", d.Status(), d.Status().Copies)
				metrics, err := registry.Gather()
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range metrics {
					said += m.String()
				}
				for _, secret := range b.Secrets {
					if strings.Contains(said, secret) {
						t.Errorf("%s: a secret of %d bytes was said", what, len(secret))
					}
				}
				if err := d.stop(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
