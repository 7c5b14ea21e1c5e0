package main

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestProfiles checks that --debug-listen serves profiles, but refuses requests that come from web sites. A running profile
// does not delay a stop.
func TestProfiles(t *testing.T) {
	if testing.Short() {
		t.Skip("takes profiles for seconds")
	}
	t.Parallel()
	d := start(t, votesDatabase(t, 3), "--debug-listen=127.0.0.1:0")
	d.ready()
	var base string
	eventually(t, "the profiles' address in the log", func() bool {
		base = regexp.MustCompile(`http://127\.0\.0\.1:\d+/debug/pprof/`).FindString(d.stderr.String())
		return base != ""
	})
	for _, c := range []struct {
		name, path string
		header     [2]string
		code       int
		body       string
	}{
		{"goroutines", "goroutine?debug=2", [2]string{}, 200, "goroutine "},
		{"heap", "heap?debug=1", [2]string{}, 200, "heap profile"},
		{"processor time", "profile?seconds=1", [2]string{}, 200, ""},
		{"the command line", "cmdline", [2]string{}, 404, ""},
		{"another host name", "heap", [2]string{"Host", "evil.example"}, 403, "loopback"},
		{"another site", "heap", [2]string{"Sec-Fetch-Site", "cross-site"}, 403, "web site"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), "GET", base+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.header[0] == "Host" {
			request.Host = c.header[1]
		} else if c.header[0] != "" {
			request.Header.Set(c.header[0], c.header[1])
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != c.code || !strings.Contains(string(body), c.body) || len(body) == 0 {
			t.Errorf("%s: %d, %v, %.200q", c.name, response.StatusCode, err, body)
		}
	}
	if _, code := get(t, "http://"+d.address()+"/debug/pprof/heap"); code != 404 {
		t.Errorf("the public address serves profiles (code %d)", code)
	}

	// A stop does not wait for a profile that would take a minute.
	asked := make(chan error, 1)
	go func() {
		response, err := http.Get(base + "trace?seconds=60")
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body) // closing the body early would end the trace
			response.Body.Close()
		}
		asked <- err
	}()
	eventually(t, "a trace under way", func() bool {
		body, _ := get(t, base+"goroutine?debug=2")
		return strings.Contains(string(body), "pprof.Trace")
	})
	d.signal(syscall.SIGTERM)
	if code := d.wait(stopTimeout); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	<-asked
}
