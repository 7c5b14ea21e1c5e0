package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"
)

// heartbeatInterval is the time between heartbeats.
const heartbeatInterval = time.Minute

// heartbeat requests a URL about once a minute while all is well. If the requests stop, the service at this URL notices that
// capture, its machine or its network is gone. No heartbeat is sent while capture is not ready or the check of copies fails.
type heartbeat struct {
	url      string
	interval time.Duration // shortest time between requests
	check    time.Duration // time between checks of the Status
	status   func() Status
	log      hclog.Logger
	shown    *conditions // conditions in the Status; the condition "heartbeat" is set while heartbeats cannot be sent

	client  *http.Client
	next    time.Time // earliest time of the next request
	failing bool      // whether the last request failed; only the first of several failures is logged
}

func newHeartbeat(cfg *Config, status func() Status, shown *conditions) *heartbeat {
	return &heartbeat{
		url: cfg.HeartbeatURL, interval: cfg.intervals.heartbeat, check: cfg.intervals.alertCheck, status: status, log: cfg.Logger, shown: shown,
		client: newAlertClient(),
	}
}

// run sends heartbeats until ctx ends.
func (h *heartbeat) run(ctx context.Context) error {
	tick := time.NewTicker(h.check)
	defer tick.Stop()
	defer h.client.CloseIdleConnections()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if now.Before(h.next) {
				continue
			}
			if st := h.status(); !isHealthy(&st) {
				continue
			}
			h.next = now.Add(h.interval)
			h.record(h.send(ctx))
		}
	}
}

// record shows the result of a request in the Status. It logs the first failure, and the first success after a failure.
func (h *heartbeat) record(err error) {
	if errors.Is(err, context.Canceled) { // capture is stopping, so this is no failure
		return
	}
	text := ""
	if err != nil {
		text = "a heartbeat is not sent: " + err.Error()
	}
	h.shown.set("heartbeat", text)
	if text != "" && !h.failing {
		h.log.Warn("heartbeat not sent; retrying", "error", err)
	}
	if text == "" && h.failing {
		h.log.Info("heartbeat sent again")
	}
	h.failing = text != ""
}

// isHealthy reports whether capture is ready, and whether the check of the copies off the machine is OK if there is such a
// check. The check fails if a copy is late or damaged, or if no copy has been read back for two days.
func isHealthy(st *Status) bool {
	for _, c := range st.Checks {
		if c.Name == copyCheck && !c.OK {
			return false
		}
	}
	return st.Ready
}

// send requests the URL. The URL is often a secret, so the returned error never contains it.
func (h *heartbeat) send(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url, nil)
	if err != nil {
		return errors.New("send heartbeat: --heartbeat-url is not a URL")
	}
	req.Header.Set("User-Agent", "capture/"+h.status().Version)
	resp, err := h.client.Do(req)
	if err != nil {
		return fmt.Errorf("send heartbeat: %w", withoutURL(err))
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // a connection is reused only if the body has been read
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("send heartbeat: the receiver answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return nil
}
