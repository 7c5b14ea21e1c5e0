package capture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// How alerts are sent; variables for the tests.
var (
	alertEvery      = time.Second      // the conditions are looked at
	alertTimeout    = 10 * time.Second // for one request
	alertFirstPause = 5 * time.Second  // after a request that failed
	alertLastPause  = time.Minute
)

// Alert is what is posted to --alert-url: to a program by its fields, to a Slack-compatible webhook by Text.
type Alert struct {
	Text      string    `json:"text"`
	Condition string    `json:"condition"` // following, file, volume …, difference
	Status    string    `json:"status"`    // firing, resolved
	Detail    string    `json:"detail"`
	Since     time.Time `json:"since"` // of the trouble
	Table     string    `json:"table"`
	Database  string    `json:"database"`
	Host      string    `json:"host"`
	Version   string    `json:"version"`
}

// alerter posts when a condition has lasted, and when it is over. Of each condition it sends one message per change, and
// only the newest where the receiver was away.
type alerter struct {
	d      *Daemon
	client *http.Client
	known  map[string]*alertCondition
	pause  time.Duration
	next   time.Time // not before, after a request that failed
	failed bool
}

type alertCondition struct {
	since  time.Time // zero while it is well
	detail string
	told   bool // the receiver knows that it is firing
}

func newAlerter(d *Daemon) *alerter {
	return &alerter{d: d, known: map[string]*alertCondition{}, client: &http.Client{
		Timeout:       alertTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// run looks at the conditions until ctx ends.
func (a *alerter) run(ctx context.Context) error {
	tick := time.NewTicker(alertEvery)
	defer tick.Stop()
	defer a.client.CloseIdleConnections()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			st := a.d.Status()
			a.look(&st, now)
			if now.After(a.next) {
				a.send(ctx, &st, now)
			}
		}
	}
}

// look brings the conditions up to date. Those that a person should merely know count, too, where they name a volume or
// a difference.
func (a *alerter) look(st *Status, now time.Time) {
	bad := map[string]string{}
	for _, c := range st.Checks {
		if !c.OK && (c.Name == "following" || c.Name == "file" || c.Name == "difference" || strings.HasPrefix(c.Name, "volume ")) {
			bad[c.Name] = c.Detail
		}
	}
	for name, detail := range bad {
		c := a.known[name]
		if c == nil {
			c = &alertCondition{}
			a.known[name] = c
		}
		if c.since.IsZero() {
			c.since = now
		}
		c.detail = detail
	}
	for name, c := range a.known {
		if _, ok := bad[name]; !ok {
			c.since = time.Time{}
			if !c.told {
				delete(a.known, name)
			}
		}
	}
}

// send posts what the receiver does not know yet, until a request fails.
func (a *alerter) send(ctx context.Context, st *Status, now time.Time) {
	names := make([]string, 0, len(a.known))
	for name := range a.known {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		c := a.known[name]
		firing := !c.since.IsZero()
		if firing == c.told || firing && now.Sub(c.since) < a.d.cfg.AlertAfter {
			continue
		}
		alert := Alert{
			Condition: name, Status: "firing", Detail: c.detail, Since: c.since.UTC(),
			Table: st.Table, Database: st.Database, Host: st.Host, Version: st.Version,
		}
		alert.Text = fmt.Sprintf("capture on %s: %s of table %s (%s): %s", st.Host, name, st.Table, st.Database, c.detail)
		if !firing {
			alert.Status = "resolved"
			alert.Text = fmt.Sprintf("capture on %s: %s of table %s (%s) is well again", st.Host, name, st.Table, st.Database)
		}
		if err := a.post(ctx, &alert); err != nil {
			a.pause = min(max(2*a.pause, alertFirstPause), alertLastPause)
			a.next = now.Add(a.pause)
			if !a.failed && ctx.Err() == nil {
				a.failed = true
				a.d.log.Warn("an alert could not be sent; it is tried again", "condition", name, "error", err)
			}
			return
		}
		a.pause, a.failed = 0, false
		a.d.log.Info("alert sent", "condition", name, "status", alert.Status, "detail", c.detail)
		if c.told = firing; !firing {
			delete(a.known, name)
		}
	}
}

// post sends one alert. Its errors never hold the URL, which is often a secret.
func (a *alerter) post(ctx context.Context, alert *Alert) error {
	body, err := json.Marshal(alert)
	if err != nil {
		return fmt.Errorf("send alert: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.d.cfg.AlertURL, bytes.NewReader(body))
	if err != nil {
		return errors.New("send alert: --alert-url is no URL")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "capture/"+a.d.cfg.Version)
	resp, err := a.client.Do(req)
	if err != nil {
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("send alert: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("send alert: the receiver answered %s", resp.Status)
	}
	return nil
}
