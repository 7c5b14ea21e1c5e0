package capture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/go-hclog"

	"capture/capture/source"
)

const (
	alertCheckInterval = time.Second      // time between checks for conditions that are worth an alert
	alertTimeout       = 10 * time.Second // timeout of one request
	firstAlertRetry    = 5 * time.Second  // first pause between attempts to post an alert; the pauses double
	longestAlertRetry  = time.Minute      // longest pause between attempts to post an alert

	// A running copy delays the alert "following" until alertCopyAfter has passed since the table was last followed steadily.
	// The rule CaptureNotFollowing in deploy/prometheus-rules.yml has the same limit.
	alertCopyAfter = 30 * time.Minute

	// The condition "following" means that the table is not followed. It ends once the table has been followed for
	// steadyInterval without a break. Therefore a source that connects and fails again and again causes one alert, and not
	// one for each attempt.
	steadyInterval = time.Minute
)

// Alert is the JSON object that is posted to --alert-url. Programs read its fields, and a Slack-compatible webhook shows Text.
type Alert struct {
	Text      string    `json:"text"`
	Condition string    `json:"condition"` // following, file, omitted, publication, difference, loss, copy, or "volume" and the name of a folder
	Status    string    `json:"status"`    // firing or resolved
	Detail    string    `json:"detail"`
	Since     time.Time `json:"since"` // start of the condition; zero if it is resolved
	Table     string    `json:"table"`
	Database  string    `json:"database"`
	Host      string    `json:"host"`
	Version   string    `json:"version"`
}

// alerter posts an alert once a condition has lasted for Config.AlertAfter, and another alert once the condition is over. It
// queues no alerts while the receiver is unreachable. Once it can send again, it posts only the newest state of each condition.
type alerter struct {
	url      string
	after    time.Duration // time that a condition must last before it is posted
	steady   time.Duration // see steadyInterval
	interval time.Duration // time between checks of the Status
	status   func() Status
	log      hclog.Logger
	shown    *conditions // conditions in the Status; the condition "alerts" is set while alerts cannot be sent

	client     *http.Client
	followed   time.Time                   // last time at which the table was followed steadily, or the start of the alerter
	checked    time.Time                   // time of the last check of the Status
	conditions map[string]*alertCondition  // conditions that are firing or whose end has not been posted yet, by name
	pauses     *backoff.ExponentialBackOff // pauses after failed attempts
	next       time.Time                   // earliest time of the next attempt
	failing    bool                        // whether the last attempt failed; only the first of several failures is logged
}

// alertCondition is the state of one condition, and whether the receiver has been informed of it.
type alertCondition struct {
	since  time.Time     // start of the condition; zero once it is over
	lasted time.Duration // how long the condition has lasted, as updateConditions counts it
	counts bool          // whether the last check counted towards lasted; see updateConditions
	fails  bool          // whether the last Check failed without an excuse (see isExcused); if false, the condition is interrupted or over
	detail string
	posted bool // whether the firing alert has been posted
}

func newAlerter(cfg *Config, status func() Status, shown *conditions) *alerter {
	return &alerter{
		url: cfg.AlertURL, after: cfg.AlertAfter, steady: cfg.intervals.steady, interval: cfg.intervals.alertCheck,
		status: status, log: cfg.Logger, shown: shown,
		followed: time.Now(), conditions: map[string]*alertCondition{}, pauses: newBackOff(cfg.intervals.alertRetry, longestAlertRetry, 0),
		client: newAlertClient(),
	}
}

// newAlertClient returns a client that follows no redirect. A redirect could send the receiver's URL, which is often a secret,
// and the alert to another server.
func newAlertClient() *http.Client {
	return &http.Client{
		Timeout:       alertTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// run posts alerts until ctx ends.
func (a *alerter) run(ctx context.Context) error {
	tick := time.NewTicker(a.interval)
	defer tick.Stop()
	defer a.client.CloseIdleConnections()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			st := a.status()
			a.updateConditions(&st, now)
			if len(a.conditions) == 0 { // nothing is left to send
				a.shown.set("alerts", "")
			}
			if now.After(a.next) {
				a.postChanges(ctx, &st, now)
			}
		}
	}
}

// worthAlert reports whether c is a failing check that is posted as an alert. These are the checks of readiness (following,
// file, omitted), and the checks that find one of these problems: a publication makes the application's writes fail, rows
// differ from the table, there is a loss, copies are late or damaged, or a volume is full.
func worthAlert(c Check) bool {
	switch c.Name {
	case "following", "file", omittedCheck, source.PublicationCondition, "difference", lossCondition, copyCheck:
		return !c.OK
	}
	return !c.OK && strings.HasPrefix(c.Name, "volume ")
}

// updateConditions updates the conditions from the checks in st. The condition "following" ends only once the table is followed
// steadily. Until then, a short success or an excused failure (see isExcused) interrupts the condition. An interrupted
// condition stays posted, and its field lasted is not reset.
func (a *alerter) updateConditions(st *Status, now time.Time) {
	steady := st.State == stateFollowing && now.Sub(st.followingSince) >= a.steady
	for _, c := range st.Checks {
		steady = steady && (c.OK || c.Name != "following") // the check can fail while the state is still following, for example if the server is silent
	}
	if steady {
		a.followed = now
	}
	elapsed := now.Sub(a.checked)
	a.checked = now
	failing := map[string]string{}
	for _, c := range st.Checks {
		if worthAlert(c) && !a.isExcused(&c, st, now) {
			failing[c.Name] = c.Detail
			if a.conditions[c.Name] == nil {
				a.conditions[c.Name] = &alertCondition{}
			}
		}
	}
	for name, c := range a.conditions {
		detail, fails := failing[name]
		interrupted := !fails && name == "following" && !steady && !c.since.IsZero()
		// The time since the previous check is added to c.lasted only if the condition counted at that check and counts now. An
		// interrupted condition counts only once alertCopyAfter has passed since the table was last followed steadily.
		counts := fails || interrupted && now.Sub(a.followed) >= alertCopyAfter
		if c.counts && counts {
			c.lasted += elapsed
		}
		c.counts, c.fails = counts, fails
		switch {
		case fails:
			if c.detail = detail; c.since.IsZero() {
				c.since = now
			}
		case !interrupted:
			c.since, c.lasted = time.Time{}, 0
			if !c.posted {
				delete(a.conditions, name)
			}
		}
	}
}

// isExcused reports whether c fails only because the table is not copied yet. The excuse for the check "following" ends once
// the alert has been posted, or once alertCopyAfter has passed since the table was last followed steadily. A posted alert must
// stay until the table is followed steadily.
func (a *alerter) isExcused(c *Check, st *Status, now time.Time) bool {
	switch c.Name {
	case "following":
		posted := a.conditions[c.Name]
		return st.State == stateCopying && now.Sub(a.followed) < alertCopyAfter && (posted == nil || !posted.posted)
	case "file": // nothing can be written before the table has been read
		return st.LastRead == nil && st.File.Error == ""
	}
	return false
}

// postChanges posts each condition once it has lasted for a.after, and later posts its end. It stops at the first request that
// fails.
func (a *alerter) postChanges(ctx context.Context, st *Status, now time.Time) {
	for _, name := range slices.Sorted(maps.Keys(a.conditions)) {
		c := a.conditions[name]
		firing := !c.since.IsZero()
		if firing == c.posted || firing && (!c.fails || c.lasted < a.after) {
			continue
		}
		alert := newAlert(st, name, c)
		if err := a.postAlert(ctx, alert); err != nil {
			a.next = now.Add(a.pauses.NextBackOff())
			if ctx.Err() != nil {
				return
			}
			a.shown.set("alerts", "an alert is not sent: "+err.Error())
			if !a.failing {
				a.failing = true
				a.log.Warn("alert not sent; retrying", "condition", name, "error", err)
			}
			return
		}
		a.shown.set("alerts", "")
		a.pauses.Reset()
		a.failing = false
		a.log.Info("alert sent", "condition", name, "status", alert.Status, "detail", c.detail)
		if c.posted = firing; !firing {
			delete(a.conditions, name)
		}
	}
}

// newAlert returns the alert for the current state of a condition.
func newAlert(st *Status, name string, c *alertCondition) *Alert {
	alert := &Alert{
		Condition: name, Status: "firing", Detail: c.detail, Since: c.since.UTC(),
		Table: st.Table, Database: st.Database, Host: st.Host, Version: st.Version,
	}
	alert.Text = fmt.Sprintf("capture on %s: %s of table %s (%s): %s", st.Host, name, st.Table, st.Database, c.detail)
	if c.since.IsZero() {
		alert.Status = "resolved"
		alert.Text = fmt.Sprintf("capture on %s: %s of table %s (%s) has recovered", st.Host, name, st.Table, st.Database)
	}
	return alert
}

// postAlert posts one alert. The URL is often a secret, so the returned error never contains it.
func (a *alerter) postAlert(ctx context.Context, alert *Alert) error {
	body, err := json.Marshal(alert)
	if err != nil {
		return fmt.Errorf("send alert: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("send alert: --alert-url is not a URL")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "capture/"+alert.Version)
	resp, err := a.client.Do(req)
	if err != nil {
		return fmt.Errorf("send alert: %w", withoutURL(err))
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // a connection is reused only if the body has been read
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("send alert: the receiver answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return nil
}

// quoted matches the text between the first and the last quotation mark of an error message.
var quoted = regexp.MustCompile(`(?s)".*"`)

// withoutURL returns an error of [http.Client.Do] without the URL of the request. It also removes the parts of the receiver's
// answer that the error quotes, because the answer may repeat the URL.
func withoutURL(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	if errors.As(err, new(textproto.ProtocolError)) {
		return errors.New("the receiver's answer is not valid HTTP")
	}
	if text := quoted.ReplaceAllString(err.Error(), "…"); text != err.Error() {
		return errors.New(text)
	}
	return err
}
