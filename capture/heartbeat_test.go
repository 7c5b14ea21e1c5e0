package capture

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// roundTripper answers requests without a network, so that a test can run on a fake clock.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestHeartbeat: a heartbeat is sent at most once a minute, and only while capture is ready and the check of the copies is OK.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		st := Status{Version: "1"}
		set := func(ready, copied bool) {
			mu.Lock()
			defer mu.Unlock()
			st.Ready, st.Checks = ready, []Check{{Name: copyCheck, OK: copied}}
		}
		set(false, true)
		cfg := DefaultConfig()
		cfg.HeartbeatURL, cfg.Logger = "https://beat.example/secret", hclog.NewNullLogger()
		cfg.intervals = cfg.intervals.withDefaults()
		h := newHeartbeat(&cfg, func() Status {
			mu.Lock()
			defer mu.Unlock()
			return st
		}, newConditions())
		var sent atomic.Int64
		h.client = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method != "GET" || r.URL.String() != cfg.HeartbeatURL {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			sent.Add(1)
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		})}
		go h.run(t.Context())
		for _, step := range []struct {
			ready, copied bool
			least, most   int64
		}{{false, true, 0, 0}, {true, true, 10, 11}, {true, false, 0, 0}, {false, false, 0, 0}, {true, true, 10, 11}} {
			set(step.ready, step.copied)
			sent.Store(0)
			time.Sleep(10*time.Minute + 30*time.Second)
			synctest.Wait()
			if n := sent.Load(); n < step.least || n > step.most {
				t.Errorf("%d heartbeats in ten minutes: %+v", n, step)
			}
		}
	})
}

// TestHeartbeatHidesItsURL: the URL of a heartbeat is a secret. No error contains it, even if the receiver redirects or is
// unreachable, or if the URL is invalid.
func TestHeartbeatHidesItsURL(t *testing.T) {
	var tries atomic.Int32
	r := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		http.Redirect(w, r, "/elsewhere-secret", http.StatusFound)
	}))
	cfg := DefaultConfig()
	var log bytes.Buffer
	cfg.HeartbeatURL, cfg.Logger = r.URL+"/secret", hclog.New(&hclog.LoggerOptions{Output: &log})
	h := newHeartbeat(&cfg, func() Status { return Status{Ready: true} }, newConditions())
	refused := h.send(t.Context())
	r.Close()
	unreachable := h.send(t.Context())
	h.url = "::secret"
	for _, err := range []error{refused, unreachable, h.send(t.Context())} {
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v", err)
		}
	}
	if tries.Load() != 1 {
		t.Errorf("%d requests: a redirect was followed", tries.Load())
	}
}
