package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"capture/capture"
	"capture/internal/foreign"
	"capture/snapshot"
)

const (
	eventInterval  = 250 * time.Millisecond // time between two checks for changes
	statusInterval = 5 * time.Second        // maximum time between two status events; the events also keep the connection alive
)

// eventsHandler serves the stream of events (server-sent events): the status, and votes as they arrive.
type eventsHandler struct {
	hub      *hub
	tables   *tables
	status   func() capture.Status
	joined   chan *snapshot.View // serveStream sends the current state after a stream has subscribed, and (*eventsHandler).run receives it; has room for one state
	stopping <-chan struct{}     // closed when the server stops
}

func newEventsHandler(t *tables, status func() capture.Status, stopping <-chan struct{}) *eventsHandler {
	return &eventsHandler{hub: newHub(), tables: t, status: status, joined: make(chan *snapshot.View, 1), stopping: stopping}
}

// serveStream sends events until the client disconnects or the server stops. It first subscribes, then hands the current
// state to h.run, and then sends the status. h.run creates an event for each change after this state. A client that loads its
// votes after the first event therefore misses no change.
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
	event, ok := statusEvent(h.status()), true
	select {
	case h.joined <- h.tables.view():
	default: // the channel still holds an older state, and (*eventsHandler).run needs only one state
	}
	for ok {
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
		votes := votesWatcher{tables: h.tables}
		var status statusWatcher
		select {
		case <-h.stopping:
			return
		case view := <-h.joined:
			votes.nextEvent(view)
		}
		for !h.hub.isEmpty() {
			select {
			case <-h.joined: // drop this View, because the votesWatcher already has an earlier state and reports all later changes
			default:
			}
			// Read the status before the state of the table, so that the state contains all votes that the status reports.
			// Send the status only after both reads. A client that receives the status may then load the votes, and gets an
			// event for each later change.
			statusEvent := status.nextEvent(h.status(), time.Now())
			votesEvent := votes.nextEvent(h.tables.view())
			for _, event := range [][]byte{statusEvent, votesEvent} {
				if event != nil {
					h.hub.broadcast(event)
				}
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
	return fmt.Appendf(nil, "event: status\ndata: %s\n\n", foreign.JSON(body))
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

// votesWatcher creates an event whenever the table has changed since the previous check. The event contains the new rows: the
// rows that are newer than every row of the previous state. It does not contain other inserted rows, changed rows or deleted
// rows. To show these changes, the client requests its votes again. votesWatcher keeps no View, since a View would keep its
// rows in memory.
type votesWatcher struct {
	tables *tables

	started bool
	version uint64
	shape   string // fingerprint of the shape; only places of the same shape are comparable; "" if the first state was unreadable
	newest  *place // place of the newest row of the last state; nil if that state had no rows
}

// nextEvent returns the next event. It returns nil for the first state, for an unchanged state, and if the newest row cannot be
// read back. The next event after such a failure contains the changes since the last state that could be read. If even the
// first state could not be read, a client may not have any votes yet, so the event tells it to load everything.
func (v *votesWatcher) nextEvent(view *snapshot.View) []byte {
	if view == nil || v.started && view.Version() == v.version && view.Shape().Fingerprint == v.shape {
		return nil
	}
	t, err := v.tables.withRoles(view)
	var newest *place
	if err == nil {
		newest, err = v.tables.newestPlace(t)
	}
	if err != nil {
		v.started = true
		return nil
	}
	before := *v
	v.started, v.version, v.shape, v.newest = true, view.Version(), view.Shape().Fingerprint, newest
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

// newestPlace returns the place of the newest row, or nil if there are no rows.
func (t *tables) newestPlace(view tableView) (*place, error) {
	for row, err := range t.order.newestFirst(view, nil) {
		if err != nil {
			return nil, err
		}
		return &place{row.place.time, bytes.Clone(row.Key)}, nil
	}
	return nil, nil
}

// appendVotesAbove appends the votes that are newer than the given place, or all votes if the place is nil. Commas separate
// the votes, and the newest vote comes first. appendVotesAbove also reports whether there are more votes, which are missing
// because the event was full or because rows could not be read back.
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
