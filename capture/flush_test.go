package capture

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/foldlog"
	"capture/internal/pgserver"
	"capture/internal/verify"
	"capture/store"
	"capture/store/manifest"
)

// sum returns the SHA-256 of the file, and whether the manifest has it. It fails the test if the manifest has another
// SHA-256.
func (d *daemon) sum() (sum string, complete bool) {
	d.t.Helper()
	data, err := os.ReadFile(d.path)
	m, merr := manifest.Read(d.path)
	if err := errors.Join(err, merr); err != nil {
		d.t.Fatal(err)
	}
	is := sha256.Sum256(data)
	sum = hex.EncodeToString(is[:])
	if m.SHA256 != "" && m.SHA256 != sum {
		d.t.Fatalf("the manifest says %s; the file is %s", m.SHA256, sum)
	}
	return sum, m.SHA256 != ""
}

// waitForChange waits until the file holds the newest change.
func (d *daemon) waitForChange() {
	d.t.Helper()
	eventually(d.t, "the change is written", func() error {
		if s := d.Status().File; !s.UpToDate || s.Reason != "change" {
			return fmt.Errorf("the file is %+v", s)
		}
		return nil
	})
}

// TestManifestCompleted: after a change of an old row in a large file, the manifest lacks the SHA-256 of the whole file. The
// SHA-256 is added once no changes arrive, or earlier at a forced flush or a stop.
func TestManifestCompleted(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a large file")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (bot_response) SELECT repeat(md5(i::text), 30000) FROM generate_series(1, 72) i") // 72 rows of 960 kB are more bytes than a flush hashes
	d := start(t, config(t, url))
	d.ready()
	if _, complete := d.sum(); !complete {
		t.Error("the first copy's manifest has no SHA-256")
	}
	change := func(n int) {
		t.Helper()
		exec(t, conn, fmt.Sprintf("UPDATE votes SET comment = 'change %d' WHERE vote_id = 1", n))
	}
	partial := func(n int) {
		t.Helper()
		change(n)
		d.waitForChange()
	}
	for n := 1; ; n++ {
		partial(n)
		if d.Status().File.SHA256 == "" {
			break
		}
		if n == 10 { // on a slow machine, a manifest may be complete before the test looks, so the test tries ten changes
			t.Fatal("each change of the first row hashes the whole file")
		}
	}
	if r, err := verify.Verify(t.Context(), verify.Options{Path: d.path}); err != nil || !r.OK {
		t.Errorf("verify says %+v, %v", r, err)
	}
	eventually(t, "the manifest is completed", func() error {
		status := d.Status().File.SHA256
		if status == "" {
			return errors.New("the status has no SHA-256") // d.sum takes long, so it runs last
		}
		if sum, complete := d.sum(); !complete || status != sum {
			return fmt.Errorf("complete: %v; the status says %q", complete, status)
		}
		return nil
	})

	// Constant changes delay the completion, but a forced flush completes the manifest at once.
	for n := range 5 {
		change(20 + n)
		time.Sleep(20 * time.Millisecond)
	}
	f, err := d.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if sum, complete := d.sum(); !complete || f.SHA256 != sum {
		t.Errorf("forced: complete: %v; the answer is %+v", complete, f)
	}
	partial(99)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if _, complete := d.sum(); !complete {
		t.Error("the manifest has no SHA-256 after a stop")
	}
}

// TestForcedFlushesCannotFloodTheLog: clients can request forced flushes at any rate. Beyond a burst, several flushes share
// a log line, which contains their number.
func TestForcedFlushesCannotFloodTheLog(t *testing.T) {
	if testing.Short() {
		t.Skip("forces many writes")
	}
	t.Parallel()
	url := pgserver.Database(t)
	exec(t, connect(t, url), votes)
	cfg := config(t, url)
	log := &syncBuffer{}
	cfg.Logger = hclog.New(&hclog.LoggerOptions{Output: log, JSONFormat: true, Level: hclog.Info})
	d := start(t, cfg)
	d.ready()
	began := time.Now()
	const flushes = 3 * foldlog.Burst
	for range flushes {
		if _, err := d.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	seconds := int(time.Since(began)/time.Second) + 2
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	lines, forced := 0, 0
	for text := range strings.Lines(log.String()) {
		var line struct {
			Message string `json:"@message"`
			Reason  string `json:"reason"`
			Events  int    `json:"events"`
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		lines++
		if line.Message == "flushed" && (line.Reason == string(store.ReasonForced) || line.Events > 0) {
			forced += max(line.Events, 1)
		}
	}
	if forced != flushes {
		t.Errorf("%d of %d forced flushes are in the log", forced, flushes)
	}
	if limit := foldlog.Burst + seconds + 20; lines > limit { // the start and the stop also log some lines
		t.Errorf("%d lines for %d forced flushes in %d seconds", lines, flushes, seconds)
	}
}
