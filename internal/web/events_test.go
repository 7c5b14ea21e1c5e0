package web

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"

	"capture/capture"
	"capture/internal/pgserver"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

func TestVotesEvents(t *testing.T) {
	r := newRowsTable(t, votesShape())
	votes := votesWatcher{tables: &tables{view: r.View, log: hclog.NewNullLogger()}}
	next := func() (a struct {
		votesAnswer
		More, Reshaped bool
	}) {
		t.Helper()
		event := votes.nextEvent(r.View())
		if event == nil {
			t.Fatal("no event")
		}
		data, ok := strings.CutPrefix(string(event), "event: votes\ndata: ")
		if !ok || !strings.HasSuffix(data, "\n\n") || json.Unmarshal([]byte(data), &a) != nil {
			t.Fatalf("event %q", event)
		}
		return a
	}
	if votes.nextEvent(nil) != nil || votes.nextEvent(r.View()) != nil || votes.nextEvent(r.View()) != nil {
		t.Fatal("the first state is no event")
	}
	r.vote(5, "a", "b", "{}", "c", "2026-01-01 00:00:00")
	r.vote(4, "a", "b", "{}", "c", "2026-01-01 00:00:00")
	r.commit()
	if a := next(); a.keys() != "5 4" || a.Total != 2 || a.More {
		t.Errorf("two votes: %+v", a)
	}
	r.vote(5, "a", "changed", "{}", "c", "2026-01-01 00:00:00")
	r.vote(3, "in between", "b", "{}", "c", "2026-01-01 00:00:00")
	r.commit()
	if a := next(); a.keys() != "" || a.Total != 3 {
		t.Errorf("a change and one in between: %+v", a)
	}
	for id := 10; id < 10+maxEventRows+1; id++ {
		r.vote(id, "a", "b", "{}", "c", "2026-01-01 00:00:00")
	}
	r.commit()
	if a := next(); len(a.Rows) != maxEventRows || !a.More {
		t.Errorf("many votes: %d rows, more %t", len(a.Rows), a.More)
	}
	shape := votesShape()
	shape.Fingerprint = "another"
	r.Load(shape, snapshot.Origin{})
	r.commit()
	if a := next(); !a.Reshaped || len(a.Rows) != 0 {
		t.Errorf("another shape: %+v", a)
	}
}

// TestChangeRightAfterConnectingGetsEvent checks that each change after the first status gets an event, even if the change
// happens before the server begins to watch the table.
func TestChangeRightAfterConnectingGetsEvent(t *testing.T) {
	t.Parallel()
	r := fiveVotes(t)
	h := newTableHarness(t, r, nil)
	events := h.stream(t)
	events.await("status")
	r.vote(6, "early", "a", "{}", "c", "2026-02-01 00:00:00")
	r.commit()
	h.watch(t)
	events.await("status") // the first status that the server sends after it began to watch the table
	if data := events.await("votes"); !strings.Contains(data, `"early"`) || strings.Contains(data, `"latest"`) {
		t.Errorf("the event is %s", data)
	}
}

// TestChangeRightAfterFirstCopyGetsEvent: a client that loads the votes as soon as a status reports votes gets an event for
// each later change.
func TestChangeRightAfterFirstCopyGetsEvent(t *testing.T) {
	t.Parallel()
	enc, err := rowjson.NewEncoder(votesShape(), false)
	if err != nil {
		t.Fatal(err)
	}
	r := &rowsTable{snapshot.NewTable(), enc, t}
	var watched, copied atomic.Bool
	h := newTableHarness(t, r, func(cfg *Config) {
		cfg.Status = func() capture.Status {
			if watched.Load() && !copied.Swap(true) { // the copy ends while the server reads the status
				r.Load(votesShape(), snapshot.Origin{})
				r.vote(1, "copied", "a", "{}", "c", "2026-01-01 00:00:00")
				r.commit()
			}
			if copied.Load() {
				return capture.Status{State: "following", Ready: true}
			}
			return capture.Status{State: "waiting"}
		}
	})
	events := h.stream(t)
	events.await("status")
	watched.Store(true)
	h.watch(t)
	for !strings.Contains(events.await("status"), `"following"`) {
	}
	r.vote(2, "early", "a", "{}", "c", "2026-02-01 00:00:00")
	r.commit()
	if data := events.await("votes"); !strings.Contains(data, `"early"`) || strings.Contains(data, `"copied"`) {
		t.Errorf("the event is %s", data)
	}
}

// eventStream reads a stream of events.
type eventStream struct {
	t     *testing.T
	lines *bufio.Scanner
}

// stream starts a server and requests its stream of events. The server does not watch the table before this request.
func (h *harness) stream(t *testing.T) *eventStream {
	server := httptest.NewServer(h.handler)
	t.Cleanup(server.Close)
	resp, err := http.Get(server.URL + "/api/events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return &eventStream{t, bufio.NewScanner(resp.Body)}
}

// watch runs the server's loop that sends events until the test ends.
func (h *harness) watch(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.events.run()
	}()
	t.Cleanup(func() {
		close(h.stopping)
		<-done
	})
}

// await returns the data of the next event, and fails the test if that event does not have the given name. The server sends
// a status at least every statusInterval. If the server misses a change, the test therefore fails and does not hang.
func (s *eventStream) await(name string) string {
	s.t.Helper()
	var lines []string
	for s.lines.Scan() && s.lines.Text() != "" {
		lines = append(lines, s.lines.Text())
	}
	if len(lines) != 2 || lines[0] != "event: "+name {
		s.t.Fatalf("the next event is %q, want %s; %v", lines, name, s.lines.Err())
	}
	return lines[1]
}

func TestStreamsAreBounded(t *testing.T) {
	h := newTableHarness(t, fiveVotes(t), nil)
	var streams []chan []byte
	for range maxStreams {
		streams = append(streams, h.events.hub.subscribe())
	}
	if w := h.do("GET", "/api/events"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("beyond the last stream: %d", w.Code)
	}
	for range subscriberQueue + 1 {
		h.events.hub.broadcast([]byte("x"))
	}
	if !h.events.hub.isEmpty() {
		t.Error("readers that lag behind are to be left")
	}
	for range streams[0] {
	} // the loop ends: the channel contains the queued events and is closed
}

// A stream of events ends when the server stops. The server does not wait until the client disconnects.
func TestEventStreamEndsWithTheServer(t *testing.T) {
	t.Parallel()
	stopped := make(chan struct{})
	t.Run("live", func(t *testing.T) {
		l := runLive(t, pgserver.Database(t), createVotes, "votes", nil)
		l.waitReady()
		r, err := http.NewRequestWithContext(context.Background(), "GET", l.url()+"api/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(resp.Body)
		if !lines.Scan() || lines.Text() != "event: status" {
			t.Fatalf("the first line is %q", lines.Text())
		}
		l.exec("INSERT INTO votes (user_query) VALUES ('live')")
		for lines.Scan() && !strings.Contains(lines.Text(), `"user_query":"live"`) {
		}
		if lines.Err() != nil {
			t.Fatal(lines.Err())
		}
		go func() {
			defer close(stopped)
			defer resp.Body.Close()
			for lines.Scan() {
			}
		}()
	})
	<-stopped
}
