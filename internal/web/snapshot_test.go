package web

import (
	"encoding/json"
	"strings"
	"testing"

	"capture/capture"
	"capture/internal/pgserver"
)

// TestForcedFlush checks that a download after a forced flush contains everything that was committed before the flush.
func TestForcedFlush(t *testing.T) {
	t.Parallel()
	l := runLive(t, pgserver.Database(t), createVotes, "votes", nil)
	l.waitReady()
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
