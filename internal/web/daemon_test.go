package web

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"capture/capture"
	"capture/internal/pgserver"
)

func getBody(t *testing.T, method, url string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// What was committed before a forced flush is in the file that is downloaded after it.
func TestForcedFlush(t *testing.T) {
	t.Parallel()
	l := runLive(t, pgserver.Database(t), createVotes, "votes", nil)
	l.ready()
	for range 5 {
		l.exec("INSERT INTO votes (user_query) SELECT 'q' || g FROM generate_series(1, 100) g")
		code, body := getBody(t, "POST", l.url()+"snapshot")
		var flushed capture.SnapshotResult
		if err := json.Unmarshal([]byte(body), &flushed); err != nil || code != 200 {
			t.Fatalf("%d %s: %v", code, body, err)
		}
		var rows int
		if err := l.db.QueryRow(t.Context(), "SELECT count(*) FROM votes").Scan(&rows); err != nil {
			t.Fatal(err)
		}
		if _, file := getBody(t, "GET", l.url()+"feedback.json"); flushed.Rows != rows || strings.Count(file, `"vote_id"`) != rows {
			t.Fatalf("%d rows in the table, %d flushed, %d in the file", rows, flushed.Rows, strings.Count(file, `"vote_id"`))
		}
	}
	code, body := getBody(t, "GET", l.url()+"readyz")
	var st capture.Status
	if err := json.Unmarshal([]byte(body), &st); err != nil || code != 200 || st.Rows != 500 || !st.Ready {
		t.Errorf("/readyz: %d %s: %v", code, body, err)
	}
	if _, body = getBody(t, "GET", l.url()+"metrics"); !strings.Contains(body, `capture_http_requests_total{code="200",route="/snapshot"} 5`) {
		t.Error("the forced flushes are not counted")
	}
	if n := strings.Count(l.log.String(), `"@message":"forced flush"`); n != 5 {
		t.Errorf("%d lines for 5 forced flushes", n)
	}
}

func TestNotReady(t *testing.T) {
	t.Parallel()
	database := pgserver.Database(t)
	l := runLive(t, database, "SELECT 1", "votes", nil) // no such table
	code, body := getBody(t, "GET", l.url()+"readyz")
	var st capture.Status
	if err := json.Unmarshal([]byte(body), &st); err != nil || code != 503 || st.Ready {
		t.Errorf("/readyz: %d %s: %v", code, body, err)
	}
	if code, _ = getBody(t, "GET", l.url()+"healthz"); code != 200 {
		t.Errorf("/healthz: %d", code)
	}
	for _, target := range []string{"feedback.json", "api/votes"} {
		if code, body = getBody(t, "GET", l.url()+target); code != 503 || !strings.Contains(body, `{"error":"`) {
			t.Errorf("/%s: %d %s", target, code, body)
		}
	}
	l.exec(createVotes)
	l.ready()
}

// A stream of events ends with the server; the stop does not wait for its reader.
func TestEventStreamEndsWithTheServer(t *testing.T) {
	t.Parallel()
	stopped := make(chan struct{})
	t.Run("live", func(t *testing.T) {
		l := runLive(t, pgserver.Database(t), createVotes, "votes", nil)
		l.ready()
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
		// The stream knows the table's state only once it has looked at it; its second status comes after that.
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
