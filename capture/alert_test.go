package capture

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// receiver is a server for --alert-url that records the alerts it gets.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	alerts []Alert
	fail   int // number of requests that are refused before one is accepted
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
var shortIntervals = intervals{volumeCheck: 50 * time.Millisecond, alertCheck: 20 * time.Millisecond, alertRetry: 50 * time.Millisecond, steady: 50 * time.Millisecond}

// TestAlerts: a condition that lasts is posted once, even if the receiver fails at first. Its end is posted, too.
func TestAlerts(t *testing.T) {
	t.Parallel()
	srv := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, srv.URL("postgres"))
	exec(t, conn, votes)
	r := newReceiver(t)
	r.fail = 2
	cfg := config(t, srv.URL("postgres"))
	cfg.intervals, cfg.AlertURL, cfg.AlertAfter = shortIntervals, r.URL+"/secret-path", 2*time.Second // AlertAfter is longer than a busy machine needs to follow the table again
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

// TestUnreachableReceiversAreShown: while alerts or heartbeats cannot be sent, a check in the status fails.
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
	cfg.WatchedDirs, cfg.VolumeWarn = []WatchedDir{{Name: "fallback", Path: folder}, {Name: "gone", Path: filepath.Join(folder, "none")}}, 1 // any volume is more than 1 % full
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

// TestCopyIsNoAlert: a copy raises an alert only after half an hour, as in deploy/prometheus-rules.yml. A copy does not end an
// alert that was posted before. Copies that fail again and again raise the alert within minutes.
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
		states []string // state in each minute; the last of them also holds in all later minutes
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

// TestFlappingSourceIsOneAlert: a source that connects and fails again and again causes one alert, after 32 minutes at the
// latest. The alert is over when the table has been followed for a minute. A single new connection causes no alert.
func TestFlappingSourceIsOneAlert(t *testing.T) {
	t.Parallel()
	type phase struct {
		state   string
		seconds int
	}
	for _, c := range []struct {
		name   string
		cycle  []phase
		cycles int
		alert  bool
	}{
		{"copies that fail", []phase{{stateConnecting, 1}, {stateCopying, 100}, {stateWaiting, 10}}, 60, true},
		{"long copies that fail", []phase{{stateConnecting, 1}, {stateCopying, 1000}, {stateWaiting, 10}}, 6, true},
		{"copies, then a moment of following", []phase{{stateConnecting, 1}, {stateCopying, 100}, {stateFollowing, 3}, {stateWaiting, 10}}, 60, true},
		{"short breaks", []phase{{stateFollowing, 6}, {stateConnecting, 1}, {stateCopying, 20}}, 200, true},
		{"very short breaks", []phase{{stateFollowing, 50}, {stateConnecting, 1}}, 100, true},
		{"a new connection", []phase{{stateFollowing, 300}, {stateWaiting, 10}, {stateConnecting, 1}, {stateFollowing, 300}}, 1, false},
		{"a new connection and a long copy", []phase{{stateFollowing, 300}, {stateWaiting, 10}, {stateCopying, 1700}, {stateFollowing, 30}}, 1, false},
		{"a first copy of almost half an hour", []phase{{stateConnecting, 5}, {stateCopying, 1790}}, 1, false},
		{"a break now and then", []phase{{stateFollowing, 100}, {stateWaiting, 30}}, 100, false},
	} {
		r := newReceiver(t)
		cfg := Config{AlertURL: r.URL, AlertAfter: time.Minute, Logger: hclog.NewNullLogger()}
		cfg.intervals = cfg.intervals.withDefaults()
		a := newAlerter(&cfg, nil, newConditions())
		now, fired := a.followed, -1
		second := 0
		run := func(p phase) {
			st := &Status{State: p.state, Checks: []Check{{Name: "following", OK: p.state == stateFollowing, Detail: p.state}}}
			if p.state == stateFollowing {
				st.followingSince = now
			}
			for range p.seconds {
				a.updateConditions(st, now)
				a.postChanges(t.Context(), st, now)
				if fired < 0 && r.got("following", "firing") > 0 {
					fired = second
				}
				now, second = now.Add(time.Second), second+1
			}
		}
		for range c.cycles {
			for _, p := range c.cycle {
				run(p)
			}
		}
		want := 0
		if c.alert {
			want = 1
			if fired < 0 || fired > 32*60 {
				t.Errorf("%s: alert after %d seconds", c.name, fired)
			}
		}
		if n := r.got("following", "resolved"); n != 0 {
			t.Errorf("%s: over %d times", c.name, n)
		}
		run(phase{stateFollowing, 59})
		if n := r.got("following", "resolved"); n != 0 {
			t.Errorf("%s: over within a minute", c.name)
		}
		run(phase{stateFollowing, 100})
		if n, over := r.got("following", "firing"), r.got("following", "resolved"); n != want || over != want {
			t.Errorf("%s: %d alerts of which %d are over, want %d", c.name, n, over, want)
		}
	}
}

// TestLostConnectionsAreOneAlert: the test ends each connection as soon as capture follows the table. All lost connections
// together cause one alert.
func TestLostConnectionsAreOneAlert(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for retries")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	r := newReceiver(t)
	cfg := config(t, url)
	cfg.intervals, cfg.AlertURL, cfg.AlertAfter, cfg.retry = shortIntervals, r.URL, time.Second, 100*time.Millisecond
	cfg.intervals.steady = time.Hour
	d := start(t, cfg)
	end := func() { // ends the stream by which capture follows the table
		t.Helper()
		d.ready()
		before := d.supervisor.report().lost
		eventually(t, "the end of the stream", func() error {
			exec(t, conn, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database()")
			if d.supervisor.report().lost == before {
				return errors.New("it has not ended")
			}
			return nil
		})
	}
	eventually(t, "the alert", func() error {
		end()
		if n := r.got("following", "firing"); n != 1 {
			return fmt.Errorf("%d alerts", n)
		}
		return nil
	})
	for range 3 {
		end()
	}
	d.ready()
	if firing, over := r.got("following", "firing"), r.got("following", "resolved"); firing != 1 || over != 0 {
		t.Errorf("%d alerts of which %d are over", firing, over)
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

// TestReceiversThatRepeatTheURL: no error shows the URL of alerts or heartbeats, even if the receiver repeats it in its answer.
func TestReceiversThatRepeatTheURL(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{
		"HTTP/1.1 404 no such hook PATH\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: http://x:bad/PATH\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 PATH\r\n\r\n",
		"PATH\r\n\r\n",
		"HTTP/1.1 200 OK\r\nPATH\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: PATH\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: PATH\r\n\r\n",
	} {
		r := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, strings.ReplaceAll(answer, "PATH", r.URL.Path))
		}))
		cfg := DefaultConfig()
		cfg.AlertURL, cfg.HeartbeatURL, cfg.Logger = r.URL+"/services/secret", r.URL+"/services/secret", hclog.NewNullLogger()
		status := func() Status { return Status{} }
		for _, err := range []error{
			newAlerter(&cfg, status, newConditions()).postAlert(t.Context(), &Alert{}),
			newHeartbeat(&cfg, status, newConditions()).send(t.Context()),
		} {
			if err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("%q: %v", answer, err)
			}
		}
		r.Close()
	}
}
