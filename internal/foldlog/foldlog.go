// Package foldlog logs events that callers can cause any number of times. Log files are rotated, so without a limit a caller
// could push all earlier lines out of the log.
//
// While events are few, each event gets its own line. When there are more, all events within a second share a line, which
// contains the number of these events and the addresses of up to ten callers. So the log counts every event, but has at most
// [Burst] lines plus one per second.
package foldlog

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Burst is the number of successive events that get their own lines. After that, only one more line per second is allowed.
const Burst = 100

// maxRemotes is the maximum number of callers in a line that sums up several events.
const maxRemotes = 10

// Logger logs events of one kind. It is safe for concurrent use.
type Logger struct {
	log     hclog.Logger
	message string

	mu       sync.Mutex
	lines    int       // number of lines that may be logged now
	refilled time.Time // time up to which Add has increased the number of lines
	shared   summary
	timer    *time.Timer // timer that logs the summary in shared; nil if shared contains no events
}

// summary is the total of the events that have not been logged yet.
type summary struct {
	events      int
	bytes       int64
	remotes     []string // distinct addresses of the first callers
	moreRemotes bool     // whether there were more callers than fit into remotes
}

// New returns a Logger that logs its lines with the given message.
func New(log hclog.Logger, message string) *Logger {
	return &Logger{log: log, message: message, lines: Burst, refilled: time.Now()}
}

// Add logs an event on its own line, or counts the event for the next shared line. remote is the caller's address, or "" if
// the event has no caller. The event's size is given in bytes. The key–value pairs in fields are logged only if the event gets
// its own line.
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

// Flush logs the events that have not been logged yet.
func (l *Logger) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		return
	}
	l.timer.Stop()
	l.timer = nil
	l.lines-- // if the number becomes negative, the next events share a line, too
	s := l.shared
	l.shared = summary{}
	fields := []any{"events", s.events, "bytes", s.bytes}
	if len(s.remotes) > 0 {
		fields = append(fields, "remotes", s.remotes, "more_remotes", s.moreRemotes)
	}
	l.log.Info(l.message, fields...)
}
