package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"capture/capture"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

const (
	maxStreams  = 32
	eventEvery  = 250 * time.Millisecond
	statusEvery = 5 * time.Second // at the least; it also keeps the connection alive
	eventRows   = 50
	eventBytes  = 1 << 20
	streamQueue = 16 // events that a slow reader may lag behind
)

// hub sends each event to all streams. Server.follow makes the events.
type hub struct {
	mu      sync.Mutex
	streams map[chan []byte]bool
	joined  chan struct{} // has a value when streams is no longer empty
}

func newHub() hub {
	return hub{streams: map[chan []byte]bool{}, joined: make(chan struct{}, 1)}
}

// join opens a stream, nil where there are too many. The channel is closed when its reader lags behind.
func (h *hub) join() chan []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.streams) >= maxStreams {
		return nil
	}
	c := make(chan []byte, streamQueue)
	h.streams[c] = true
	select {
	case h.joined <- struct{}{}:
	default:
	}
	return c
}

func (h *hub) leave(c chan []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, c)
}

func (h *hub) empty() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams) == 0
}

func (h *hub) send(event []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.streams {
		select {
		case c <- event:
		default:
			delete(h.streams, c)
			close(c)
		}
	}
}

// events is the stream of a page. It begins with the status; whoever reads it loads its rows after that, and misses none.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		return
	}
	c := s.hub.join()
	if c == nil {
		w.Header().Set("Retry-After", "10")
		fail(w, http.StatusServiceUnavailable, fmt.Sprintf("%d streams are open already; close another page", maxStreams))
		return
	}
	defer s.hub.leave(c)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would keep events back
	event := statusEvent(s.status())
	flush := http.NewResponseController(w)
	for {
		if _, err := w.Write(event); err != nil || flush.Flush() != nil {
			return
		}
		var ok bool
		select {
		case event, ok = <-c:
			if !ok {
				return
			}
		case <-r.Context().Done():
			return
		case <-s.stopping:
			return
		}
	}
}

// follow makes events of what the daemon does, while there are streams, until the Server stops.
func (s *Server) follow() {
	tick := time.NewTicker(eventEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stopping:
			return
		case <-s.hub.joined:
		}
		var rows rowEvents
		var status statusEvents
		for !s.hub.empty() {
			if event := status.next(s.status(), time.Now()); event != nil {
				s.hub.send(event)
			}
			if event := rows.next(s.view()); event != nil {
				s.hub.send(event)
			}
			select {
			case <-s.stopping:
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

// statusEvents sends the status when it changes in what a person would notice at once, and every few seconds.
type statusEvents struct {
	known string
	sent  time.Time
}

func (e *statusEvents) next(st capture.Status, now time.Time) []byte {
	notable := fmt.Sprint(st.Ready, st.State, st.Source, st.Error, st.File.Error)
	if notable == e.known && now.Sub(e.sent) < statusEvery {
		return nil
	}
	e.known, e.sent = notable, now
	return statusEvent(st)
}

// rowEvents tells of new rows: those with a key above all that were there before. Of rows that were changed, deleted or
// put in between it tells that there are some. It keeps no View, which would keep that state in memory.
type rowEvents struct {
	began   bool
	version uint64
	shape   string // its fingerprint: keys of two shapes can't be compared
	newest  rowjson.Key
}

func (e *rowEvents) next(v *snapshot.View) []byte {
	if v == nil || e.began && v.Version() == e.version && v.Shape().Fingerprint == e.shape {
		return nil
	}
	before := *e
	*e = rowEvents{began: true, version: v.Version(), shape: v.Shape().Fingerprint}
	for row, err := range v.Before(nil) {
		if err != nil {
			return nil
		}
		e.newest = bytes.Clone(row.Key)
		break
	}
	if !before.began {
		return nil
	}
	buf := fmt.Appendf(nil, `event: votes`+"\n"+`data: {"version":%d,"total":%d,`, v.Version(), v.Rows())
	if before.shape != e.shape {
		return append(buf, `"reshaped":true,"more":true,"rows":[]}`+"\n\n"...)
	}
	buf = append(buf, `"rows":[`...)
	n, size, more := 0, 0, false
	for row, err := range v.Before(nil) {
		if err != nil {
			more = true
			break
		}
		if bytes.Compare(row.Key, before.newest) <= 0 {
			break
		}
		if size += len(row.Line); n == eventRows || size > eventBytes {
			more = true
			break
		}
		if n > 0 {
			buf = append(buf, ',')
		}
		n++
		buf = found(row).appendTo(buf, v.Shape())
	}
	return fmt.Appendf(buf, `],"more":%t}`+"\n\n", more)
}
