package web

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"capture/capture"
	"capture/internal/pgserver"
)

// TestStatusIsHarmless checks that /readyz and the events contain no characters that could control a terminal, and that a
// program which decodes their JSON gets the original text.
func TestStatusIsHarmless(t *testing.T) {
	t.Parallel()
	st := capture.Status{Table: "votes\u202e\u009b31m\u200d\U000e0041"}
	answer := httptest.NewRecorder()
	serveReadiness(func() capture.Status { return st })(answer, nil)
	_, event, _ := bytes.Cut(statusEvent(st), []byte("data: "))
	for _, body := range [][]byte{answer.Body.Bytes(), event} {
		var got capture.Status
		if err := json.Unmarshal(body, &got); err != nil || got.Table != st.Table || bytes.ContainsFunc(body, func(r rune) bool { return r > '~' }) {
			t.Errorf("%q: %v", body, err)
		}
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
	l.waitReady()
}
