// Package foldlog logs events that callers can cause as often as they like. Log files are rotated, so without a limit a
// caller could push all earlier lines out of the log.
//
// Each event has a line of its own while events are few. Beyond that, all events of a second share a line, which says how
// many they were and who caused them. So every event is counted, and there are at most [Burst] lines plus one per second.
package foldlog

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Burst is how many events in a row have a line of their own. One more is allowed for each second in which nothing was
// logged.
const Burst = 100

// maxRemotes is how many callers a shared line names.
const maxRemotes = 10

// Logger logs events of one kind. It is safe for concurrent use.
type Logger struct {
	log     hclog.Logger
	message string

	mu       sync.Mutex
	lines    int       // number of lines that may be logged now
	refilled time.Time // when lines was last increased
	shared   summary
	timer    *time.Timer // logs the summary; nil if there is none
}

// summary is what the events that have had no line add up to.
type summary struct {
	events      int
	bytes       int64
	remotes     []string // addresses of the first callers, each once
	moreRemotes bool     // further callers are left out of remotes
}

// New returns a Logger whose lines have the message.
func New(log hclog.Logger, message string) *Logger {
	return &Logger{log: log, message: message, lines: Burst, refilled: time.Now()}
}

// Add logs an event, or adds it to the line of this second. remote is the caller's address, or "" if there is none;
// bytes is the event's size. fields are key–value pairs that only a line of its own has.
func (l *Logger) Add(remote string, bytes int64, fields ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seconds := int(time.Since(l.refilled) / time.Second)
	l.lines = min(l.lines+seconds, Burst)
	l.refilled = l.refilled.Add(time.Duration(seconds) * time.Second)
	if l.lines > 0 && l.timer == nil {
		l.lines--
		own := []any{"bytes", bytes}
		if remote != "" {
			own = append(own, "remote", remote)
		}
		l.log.Info(l.message, append(own, fields...)...)
		return
	}
	s := &l.shared
	s.events++
	s.bytes += bytes
	switch {
	case remote == "" || slices.Contains(s.remotes, remote):
	case len(s.remotes) == maxRemotes:
		s.moreRemotes = true
	default:
		s.remotes = append(s.remotes, remote)
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(time.Second, l.Flush)
	}
}

// Flush logs the events that have had no line yet.
func (l *Logger) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		return
	}
	l.timer.Stop()
	l.timer = nil
	l.lines-- // below 0 until the next second, so that the next event does not get a line besides this one
	s := l.shared
	l.shared = summary{}
	fields := []any{"events", s.events, "bytes", s.bytes}
	if len(s.remotes) > 0 {
		fields = append(fields, "remotes", s.remotes, "more_remotes", s.moreRemotes)
	}
	l.log.Info(l.message, fields...)
}
