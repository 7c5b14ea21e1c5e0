package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"capture/capture"
	"capture/snapshot"
)

const (
	eventInterval  = 250 * time.Millisecond // time between two checks for changes
	statusInterval = 5 * time.Second        // maximum time between two status events; they also keep the connection alive
)

// eventsHandler serves the stream of events (server-sent events): the status, and votes as they arrive.
type eventsHandler struct {
	hub      *hub
	tables   *tables
	status   func() capture.Status
	stopping <-chan struct{} // closed when the server stops
}

// serveStream sends events until the client disconnects or the server stops. It subscribes first and then sends the status. A
// client that loads its votes after this first event therefore misses none.
func (h *eventsHandler) serveStream(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		return
	}
	events := h.hub.subscribe()
	if events == nil {
		writeUnavailable(w, 10, fmt.Sprintf("%d streams are open already; close another page", maxStreams))
		return
	}
	defer h.hub.unsubscribe(events)
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", noStore)
	header.Set("X-Accel-Buffering", "no") // otherwise nginx delays events
	conn := http.NewResponseController(w)
	for event, ok := statusEvent(h.status()), true; ok; {
		if _, err := w.Write(event); err != nil || conn.Flush() != nil {
			return
		}
		select {
		case event, ok = <-events:
		case <-r.Context().Done():
			return
		case <-h.stopping:
			return
		}
	}
}

// run broadcasts events while there are streams. It returns when the server stops.
func (h *eventsHandler) run() {
	tick := time.NewTicker(eventInterval)
	defer tick.Stop()
	for {
		select {
		case <-h.stopping:
			return
		case <-h.hub.joined:
		}
		votes := votesWatcher{tables: h.tables}
		var status statusWatcher
		for !h.hub.isEmpty() {
			if event := status.nextEvent(h.status(), time.Now()); event != nil {
				h.hub.broadcast(event)
			}
			if event := votes.nextEvent(h.tables.view()); event != nil {
				h.hub.broadcast(event)
			}
			select {
			case <-h.stopping:
				return
			case <-tick.C:
			}
		}
	}
}

func statusEvent(st capture.Status) []byte {
	body, err := json.Marshal(st)
	if err != nil {
		body = []byte("{}")
	}
	return fmt.Appendf(nil, "event: status\ndata: %s\n\n", body)
}

// statusWatcher creates a status event whenever the status changes in a way that a person would notice, and at least every
// statusInterval.
type statusWatcher struct {
	notable string // the noticeable parts of the last status sent
	sent    time.Time
}

// nextEvent returns the next event, or nil if no event is due.
func (s *statusWatcher) nextEvent(st capture.Status, now time.Time) []byte {
	notable := fmt.Sprint(st.Ready, st.State, st.Source, st.Error, st.File.Error)
	if notable == s.notable && now.Sub(s.sent) < statusInterval {
		return nil
	}
	s.notable, s.sent = notable, now
	return statusEvent(st)
}

// votesWatcher creates an event for each change of the table. The event contains the new rows: those that are newer than every
// row of the previous state. It does not contain other rows that were inserted, changed or deleted; the client requests these
// again. votesWatcher keeps no View, since a View would keep its rows in memory.
type votesWatcher struct {
	tables *tables

	started bool
	version uint64
	shape   string // fingerprint of the shape; only places of the same shape are comparable
	newest  *place // place of the newest row of the last state; nil if that state had no rows
}

// nextEvent returns the next event. It returns nil for the first state, for an unchanged state, and if rows cannot be read
// back.
func (v *votesWatcher) nextEvent(view *snapshot.View) []byte {
	if view == nil || v.started && view.Version() == v.version && view.Shape().Fingerprint == v.shape {
		return nil
	}
	t, err := v.tables.withRoles(view)
	if err != nil {
		return nil
	}
	before := *v
	*v = votesWatcher{tables: v.tables, started: true, version: view.Version(), shape: view.Shape().Fingerprint}
	for row, err := range v.tables.order.newestFirst(t, nil) {
		if err != nil {
			return nil
		}
		v.newest = &place{row.place.time, bytes.Clone(row.Key)}
		break
	}
	if !before.started {
		return nil
	}
	event := fmt.Appendf(nil, "event: votes\ndata: {\"version\":%d,\"total\":%d,", view.Version(), view.Rows())
	if before.shape != v.shape {
		return append(event, "\"reshaped\":true,\"more\":true,\"rows\":[]}\n\n"...)
	}
	event = append(event, `"rows":[`...)
	event, more := v.appendVotesAbove(event, t, before.newest)
	return fmt.Appendf(event, "],\"more\":%t}\n\n", more)
}

// appendVotesAbove appends the votes that are newer than newest, the newest first, separated by commas. more reports whether some
// votes are missing because the event was full or because rows could not be read back.
func (v *votesWatcher) appendVotesAbove(dst []byte, t tableView, newest *place) (_ []byte, more bool) {
	rows, size := 0, 0
	for row, err := range v.tables.order.newestFirst(t, nil) {
		if err != nil {
			return dst, true
		}
		if newest != nil && !row.place.isNewer(*newest) {
			break
		}
		if size += len(row.Line); rows == maxEventRows || size > maxEventBytes {
			return dst, true
		}
		if rows > 0 {
			dst = append(dst, ',')
		}
		rows++
		dst = appendVote(dst, t, row)
	}
	return dst, false
}
