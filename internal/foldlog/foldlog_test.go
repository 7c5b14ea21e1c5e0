package foldlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

type line struct {
	Message     string   `json:"@message"`
	Events      int      `json:"events"`
	Bytes       int      `json:"bytes"`
	Remote      string   `json:"remote"`
	Remotes     []string `json:"remotes"`
	MoreRemotes bool     `json:"more_remotes"`
	Code        int      `json:"code"`
}

// parse returns the lines of a log, and the total numbers of events and bytes in these lines.
func parse(t *testing.T, log string) (lines []line, events, size int) {
	t.Helper()
	for text := range strings.Lines(log) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
		events += max(l.Events, 1)
		size += l.Bytes
	}
	return lines, events, size
}

func newLogger() (*Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return New(hclog.New(&hclog.LoggerOptions{Output: &b, JSONFormat: true}), "download"), &b
}

func TestFewEventsHaveALineEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, out := newLogger()
		for range 3 {
			l.Add("192.0.2.1", 7, "code", 200)
		}
		time.Sleep(time.Minute)
		lines, _, _ := parse(t, out.String())
		if len(lines) != 3 || lines[2].Message != "download" || lines[2].Remote != "192.0.2.1" || lines[2].Bytes != 7 || lines[2].Code != 200 {
			t.Errorf("%s", out)
		}
	})
}

func TestManyEventsShareALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, out := newLogger()
		const seconds, perSecond = 100, 1000
		for range seconds {
			for i := range perSecond {
				l.Add(fmt.Sprintf("192.0.2.%d", i%25), 7)
			}
			time.Sleep(time.Second)
		}
		l.Flush()
		lines, events, size := parse(t, out.String())
		if events != seconds*perSecond || size != 7*events {
			t.Errorf("the lines stand for %d events and %d bytes", events, size)
		}
		if len(lines) > Burst+seconds+1 {
			t.Errorf("%d lines in %d seconds", len(lines), seconds)
		}
		if last := lines[len(lines)-1]; len(last.Remotes) != maxRemotes || !last.MoreRemotes {
			t.Errorf("the last line: %+v", last)
		}

		// After a quiet time, single events have lines of their own again.
		time.Sleep(2 * Burst * time.Second)
		synctest.Wait()
		out.Reset()
		l.Add("192.0.2.1", 7, "code", 200)
		if lines, _, _ := parse(t, out.String()); len(lines) != 1 || lines[0].Code != 200 {
			t.Errorf("after a quiet time: %s", out)
		}
	})
}

func TestSharedLineDoesNotWaitForAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, out := newLogger()
		for range Burst + 2 {
			l.Add("", 1)
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait() // wait for the timer, which writes on a goroutine of its own
		if lines, events, _ := parse(t, out.String()); events != Burst+2 || lines[len(lines)-1].Events != 2 {
			t.Errorf("%d lines for %d events", len(lines), events)
		}
		l.Flush()
		if lines, _, _ := parse(t, out.String()); len(lines) != Burst+1 {
			t.Errorf("%d lines", len(lines))
		}
	})
}
