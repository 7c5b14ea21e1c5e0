package web

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestWrongTokenWaitsAlone checks that a wrong token delays its own answer, but no other request.
func TestWrongTokenWaitsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.TokenFile = writeToken(t) })
		h.replace(t, "feedback.json", "[]\n")
		start := time.Now()
		var guesses sync.WaitGroup
		for i := range 200 { // more guesses than maxRequests
			guesses.Go(func() {
				target := []string{"/feedback.json", "/", "/api/events"}[i%3]
				if w := h.do("GET", target, "Authorization", fmt.Sprintf("Bearer wrong-%d", i)); w.Code != 401 {
					t.Errorf("%s: %d", target, w.Code)
				}
				if took := time.Since(start); took != wrongTokenDelay {
					t.Errorf("%s: answered after %s", target, took)
				}
			})
		}
		synctest.Wait() // all guesses now wait for their answers
		for _, c := range []struct {
			pairs []string
			code  int
		}{
			{[]string{"Authorization", "Bearer abc"}, 200},
			{nil, 401}, // a browser sends no token before it knows that a token is required
		} {
			if w := h.do("GET", "/feedback.json", c.pairs...); w.Code != c.code || time.Since(start) != 0 {
				t.Errorf("%q beside the guesses: %d after %s", c.pairs, w.Code, time.Since(start))
			}
		}
		guesses.Wait()
	})
}

func TestWrongTokenTakesASecond(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config) { c.TokenFile = writeToken(t) })
	addr := h.serve(t)
	r, err := http.NewRequest("GET", "http://"+addr+"/feedback.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer wrong")
	start := time.Now()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if took := time.Since(start); resp.StatusCode != 401 || took < wrongTokenDelay {
		t.Errorf("%d after %s", resp.StatusCode, took)
	}
}

func TestWeakTokensAreReported(t *testing.T) {
	long := strings.Repeat("a1", minTokenLength/2)
	for _, c := range []struct {
		token string
		mode  os.FileMode
		want  string // warning in the log; "" for none
	}{
		{long, 0o400, ""},
		{long, 0o600, ""},
		{long, 0o440, ""}, // mode of a Kubernetes secret that the pod's group may read
		{long, 0o644, "every user may read the token file (mode 0644)"},
		{long, 0o666, "others may write the token file (mode 0666)"},
		{long, 0o620, "others may write the token file (mode 0620)"},
		{long[1:], 0o400, "fewer than 16 characters"},
	} {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(c.token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		h := newHarness(t, func(c *Config) { c.TokenFile = path })
		for range 3 {
			h.do("GET", "/feedback.json", "Authorization", "Bearer "+c.token)
		}
		log := h.log.String()
		if n := strings.Count(log, "weak token file"); (n == 0) != (c.want == "") || n > 1 || !strings.Contains(log, c.want) {
			t.Errorf("%d characters, mode %o: %s", len(c.token), c.mode, log)
		}
		if strings.Contains(log, c.token) {
			t.Errorf("the token is in the log: %s", log)
		}
	}

	// A token that becomes weak later is reported, too.
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(long), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHarness(t, func(c *Config) { c.TokenFile = path })
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.do("GET", "/feedback.json", "Authorization", "Bearer short")
	if !strings.Contains(h.log.String(), "weak token file") {
		t.Errorf("a token that became weak: %s", h.log)
	}
}
