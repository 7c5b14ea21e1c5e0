package capture

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"capture/internal/busy"
	"capture/internal/objectserver"
	"capture/internal/pgserver"
)

// TestCopiesAfterAnOutage: while the storage service refuses connections, capture still writes feedback.json. When the
// service is back, capture uploads the newest state.
func TestCopiesAfterAnOutage(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for retries")
	}
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			p := proxiedAddr(t, b.Addr)
			db := pgserver.Database(t)
			conn := connect(t, db)
			table(t, conn, 20)
			l := copyTo(t, b.URL, b.Through(p.Addr()))
			d := start(t, copiedTo(t, db, l))
			d.awaitCopies("a first copy", func(c *CopiesStatus) bool { return c.Proven != nil })
			p.Refuse()
			p.Cut()
			exec(t, conn, "INSERT INTO votes (user_query) VALUES ('during the outage')")
			d.awaitCopies("a failed upload", func(c *CopiesStatus) bool { return c.Error != "" })
			d.flushAndCompare(conn, "votes", "vote_id")
			if s := d.Status(); !s.Ready {
				t.Errorf("not ready: %+v", s.Checks)
			}
			if err := p.Accept(); err != nil {
				t.Fatal(err)
			}
			d.awaitCopies("a copy after the outage", func(c *CopiesStatus) bool { return c.Rows == 21 && c.Error == "" && c.Pending == nil })
			if got := newestRows(t, l); len(got) != 21 {
				t.Errorf("the copy has %d rows", len(got))
			}
		})
	}
}

// TestOutageIsNoWork: the time for which an upload waits for an unreachable service does not count as work, so the uploader
// does not make a long pause after this wait.
func TestOutageIsNoWork(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a service that is away")
	}
	t.Parallel()
	b := objectserver.NewBucket(t, "s3")
	p := proxiedAddr(t, b.Addr)
	db := pgserver.Database(t)
	conn := connect(t, db)
	table(t, conn, 20)
	l := copyTo(t, b.URL, b.Through(p.Addr()))
	d := start(t, copiedTo(t, db, l))
	d.awaitCopies("a first copy", func(c *CopiesStatus) bool { return c.Proven != nil })
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	p.Refuse()
	p.Cut()
	u := newUploader(&d.cfg, d.file, d.table.View, d.newestView, d.metrics)
	l.Patience = 3 * time.Second
	began, before := time.Now(), l.Waited()
	u.workIfDue(t.Context())
	waited, total := l.Waited()-before, time.Since(began)
	if u.failure == "" || waited < time.Second {
		t.Fatalf("waited %s, and the failure is %q", waited, u.failure)
	}
	if took := u.schedule.lastTook; took > total-waited || took > busy.Limit(waited/2) {
		t.Errorf("the attempt counts as %s of work, but it took %s, of which it waited %s", took, total, waited)
	}
	if err := p.Accept(); err != nil {
		t.Fatal(err)
	}
	u.schedule.addChange(time.Now())
	u.schedule.retryAt = time.Time{}
	eventually(t, "a copy", func() error {
		u.workIfDue(t.Context())
		if u.schedule.uploaded.IsZero() {
			return errors.New(u.failure)
		}
		return nil
	})
}

// TestHangingUploadRaisesAlert: while an upload hangs, the alert begins without waiting for the end of the upload.
func TestHangingUploadRaisesAlert(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for an upload that hangs")
	}
	t.Parallel()
	db := pgserver.Database(t)
	conn := connect(t, db)
	table(t, conn, 10)
	b := objectserver.NewBucket(t, "s3")
	p := proxiedAddr(t, b.Addr)
	l := copyTo(t, b.URL, b.Through(p.Addr()))
	l.Patience = 10 * patience // the upload hangs until the daemon stops
	d := start(t, copiedTo(t, db, l))
	d.awaitCopies("a first copy", func(c *CopiesStatus) bool { return c.Proven != nil })
	var c *CopiesStatus
	eventually(t, "an upload that hangs, and no other work", func() error {
		p.Stall()
		if c = d.Status().Copies; c.Uploading != nil && c.Pending != nil && c.late {
			return nil
		}
		p.Unstall()
		exec(t, conn, "INSERT INTO votes (user_query) VALUES ('not copied yet')")
		return fmt.Errorf("%+v", c)
	})
	if c.Problem != "" || c.lateAt.Sub(*c.Pending) < lateUpload {
		t.Errorf("copies are %+v", c)
	}
	stuck := *d.uploader.report.Load() // the uploader does not replace this report while the upload hangs
	stuck.lateAt = time.Now()
	d.uploader.report.Store(&stuck)
	if c := d.Status().Copies; !strings.Contains(c.Problem, "while changes wait") || !worthAlert(c.check(time.Now())) {
		t.Errorf("copies are %+v", c)
	}
}
