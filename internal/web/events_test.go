package web

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"capture/internal/pgserver"
	"capture/snapshot"
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
		// An event contains only votes that are newer than the previous state. The server records its first state right after it has
		// sent the second status, so the test waits for this status.
		for lines.Scan() && lines.Text() != "event: status" {
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
