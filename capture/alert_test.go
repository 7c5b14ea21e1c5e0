package capture

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/pgserver"
)

// receiver records what is posted to it.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	alerts []Alert
	fail   int // requests to refuse first
	tries  int
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tries++
		if r.fail > 0 {
			r.fail--
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		var a Alert
		if err := json.NewDecoder(req.Body).Decode(&a); err != nil {
			t.Error(err)
		}
		r.alerts = append(r.alerts, a)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) got(condition, status string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, a := range r.alerts {
		if a.Condition == condition && a.Status == status && strings.Contains(a.Text, condition) {
			n++
		}
	}
	return n
}

// shortIntervals are the intervals for the tests of alerts and volumes.
var shortIntervals = intervals{volumeCheck: 50 * time.Millisecond, alertCheck: 20 * time.Millisecond, alertRetry: 50 * time.Millisecond}

// TestAlerts: a condition that lasts is posted once, even if the receiver fails at first. Its end is posted, too.
func TestAlerts(t *testing.T) {
	t.Parallel()
	srv := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, srv.URL("postgres"))
	exec(t, conn, votes)
	r := newReceiver(t)
	r.fail = 2
	cfg := config(t, srv.URL("postgres"))
	cfg.intervals, cfg.AlertURL, cfg.AlertAfter = shortIntervals, r.URL+"/secret-path", 2*time.Second // longer than a busy machine takes to follow again
	d := start(t, cfg)
	d.ready()
	if err := srv.Stop("immediate"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the alert", func() error {
		if n := r.got("following", "firing"); n != 1 {
			return fmt.Errorf("%d alerts", n)
		}
		return nil
	})
	if err := srv.StartAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the all-clear", func() error {
		if n := r.got("following", "resolved"); n != 1 {
			return fmt.Errorf("%d all-clears", n)
		}
		return nil
	})
	d.ready()
	if n := r.got("following", "firing"); n != 1 {
		t.Errorf("%d alerts for one condition", n)
	}
	if r.tries < 4 {
		t.Errorf("%d requests, of which two were refused", r.tries)
	}
	if strings.Contains(d.log.String(), "secret-path") {
		t.Errorf("the alert URL is in the log:\n%s", d.log)
	}
}

// TestUnreachableReceiversAreShown: if alerts and heartbeats cannot be sent, the status says so until they can.
func TestUnreachableReceiversAreShown(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	r.fail = 1 << 30
	cfg := config(t, "postgres://nobody@127.0.0.1:1/none")
	cfg.intervals, cfg.AlertURL, cfg.AlertAfter = shortIntervals, r.URL+"/secret-path", time.Millisecond
	d := start(t, cfg)
	eventually(t, "the failing check", func() error {
		return failing(d.Status().Checks, "alerts: an alert is not sent: send alert: the receiver answered 503")
	})
	r.mu.Lock()
	r.fail = 0
	r.mu.Unlock()
	eventually(t, "the alert", func() error {
		if r.got("following", "firing") != 1 || failing(d.Status().Checks, "alerts") == nil {
			return fmt.Errorf("%+v", d.Status().Checks)
		}
		return nil
	})

	url := pgserver.Database(t)
	exec(t, connect(t, url), votes)
	cfg = config(t, url)
	cfg.intervals, cfg.HeartbeatURL = shortIntervals, "http://127.0.0.1:1/secret-path"
	cfg.intervals.heartbeat = 20 * time.Millisecond
	d = start(t, cfg)
	eventually(t, "the failing check", func() error {
		return failing(d.Status().Checks, "heartbeat: a heartbeat is not sent: send heartbeat: ", "connection refused")
	})
	d.ready()
	if st := d.Status(); strings.Contains(fmt.Sprint(st.Checks), "secret-path") {
		t.Errorf("the heartbeat URL is in the status: %+v", st.Checks)
	}
}

// TestVolumeFills: a volume above the warning level causes one log line, a failing check and one alert.
func TestVolumeFills(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	exec(t, connect(t, url), votes)
	r := newReceiver(t)
	cfg := config(t, url)
	cfg.intervals, cfg.AlertURL, cfg.AlertAfter = shortIntervals, r.URL, 0
	folder := t.TempDir()
	cfg.WatchedDirs, cfg.VolumeWarn = []WatchedDir{{Name: "fallback", Path: folder}, {Name: "gone", Path: filepath.Join(folder, "none")}}, 1 // any volume in use is fuller
	d := start(t, cfg)
	d.ready()
	eventually(t, "the alert", func() error {
		if n := r.got("volume fallback", "firing"); n != 1 {
			return fmt.Errorf("%d alerts", n)
		}
		return nil
	})
	st := d.Status()
	if !st.Ready || len(st.Volumes) != 1 || st.Volumes[0].Size == 0 || st.Volumes[0].Free == 0 {
		t.Errorf("status: ready %v, volumes %+v", st.Ready, st.Volumes)
	}
	if n := strings.Count(d.log.String(), "volume is filling up"); n != 1 {
		t.Errorf("%d log lines about it", n)
	}
}

// TestCopyIsNoAlert: a copy raises no alert for half an hour, as in deploy/prometheus-rules.yml. It does not end an alert that was
// posted before. Attempts that fail again and again are not excused.
func TestCopyIsNoAlert(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	cfg := Config{AlertURL: r.URL, AlertAfter: time.Minute, Logger: hclog.NewNullLogger()}
	status := func(state string) *Status {
		st := &Status{State: state, Checks: []Check{{Name: "following"}, {Name: "file"}}}
		if state == stateFollowing {
			st.Checks[0].OK, st.Checks[1].OK = true, true
		}
		return st
	}
	for _, c := range []struct {
		name   string
		states []string // by minute; the last one lasts
		fires  int      // minute of the alert
	}{
		{"first copy", []string{stateConnecting, stateCopying}, 31},
		{"copy after following", []string{stateFollowing, stateFollowing, stateWaiting, stateCopying}, 32},
		{"failing copies", []string{stateCopying, stateWaiting, stateCopying, stateWaiting, stateWaiting}, 4},
		{"no connection", []string{stateWaiting}, 1},
		{"no connection, then a copy", []string{stateWaiting, stateWaiting, stateCopying}, 1},
	} {
		a := newAlerter(&cfg, nil, newConditions())
		start := a.followed
		before, fired := r.got("following", "firing"), -1
		for minute := range 60 {
			now := start.Add(time.Duration(minute) * time.Minute)
			st := status(c.states[min(minute, len(c.states)-1)])
			a.updateConditions(st, now)
			a.postChanges(t.Context(), st, now)
			if fired < 0 && r.got("following", "firing") > before {
				fired = minute
			}
		}
		if fired != c.fires || r.got("following", "firing") != before+1 {
			t.Errorf("%s: alert after %d minutes, want %d", c.name, fired, c.fires)
		}
		if n := r.got("following", "resolved"); n != 0 {
			t.Errorf("%s: resolved during the copy", c.name)
		}
		if n := r.got("file", "firing"); n != 0 {
			t.Errorf("%s: alert about the file", c.name)
		}
	}
}

// TestVolumeIsMeasuredAfterFirstWrite: the status has the size of the files directly after the first write, not only after the
// next regular measurement.
func TestVolumeIsMeasuredAfterFirstWrite(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	table(t, connect(t, url), 100)
	cfg := config(t, url)
	cfg.intervals.volumeCheck = time.Hour
	folder := t.TempDir()
	cfg.WatchedDirs = []WatchedDir{{Name: "fallback", Path: folder}}
	d := startAt(t, cfg, filepath.Join(folder, "feedback.json"))
	eventually(t, "the size of the files", func() error {
		if st := d.Status(); len(st.Volumes) != 1 || st.File.Bytes == 0 || st.Volumes[0].Bytes < st.File.Bytes {
			return fmt.Errorf("%+v, and the file has %d bytes", st.Volumes, st.File.Bytes)
		}
		return nil
	})
}
