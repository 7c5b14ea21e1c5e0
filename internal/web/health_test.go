package web

import (
	"encoding/json"
	"strings"
	"testing"

	"capture/capture"
	"capture/internal/pgserver"
)

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
	l.waitReady()
}
