package logfile

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// output is the destination of an asyncWriter.
type output interface {
	// writeLine writes a whole line or nothing. If line is nil, it only checks whether a line could be written.
	writeLine(line []byte) error
	// closeFile closes the file. The next writeLine opens it again.
	closeFile()
	// isRetryable reports whether to retry a line that could not be written.
	isRetryable() bool
}

var errLineTooLong = errors.New("a line is longer than the whole log may be")

// asyncWriter queues lines and writes them in its own goroutine, so that logging does not wait for a disk. While writing
// fails or hangs, lines stay in the queue. When the queue is full, asyncWriter drops further lines. It never reorders or
// splits lines.
type asyncWriter struct {
	name     string
	output   output
	fallback hclog.Logger // logger for trouble with this log; nil if trouble is not reported

	lines        chan []byte
	opened       chan struct{} // closed after the first attempt to open the log
	quit         chan struct{}
	done         chan struct{}
	reopenSignal chan struct{}
	quitOnce     sync.Once
	dropped      atomic.Uint64 // number of dropped lines that have not been reported yet
	stuck        atomic.Bool   // whether writing fails or hangs; if so, lines are dropped as soon as the queue is full

	mu      sync.Mutex
	trouble error // error of the last attempt to write the log; nil if it succeeded
}

const (
	queueLines    = 4096
	queuePatience = time.Second // longest time that Write waits if the queue is full; afterwards, the disk counts as hanging
	firstPause    = 50 * time.Millisecond
	longestPause  = time.Second
)

func newAsyncWriter(name string, output output, fallback hclog.Logger) *asyncWriter {
	w := &asyncWriter{
		name: name, output: output, fallback: fallback,
		lines: make(chan []byte, queueLines), reopenSignal: make(chan struct{}, 1),
		opened: make(chan struct{}), quit: make(chan struct{}), done: make(chan struct{}),
	}
	go w.run()
	return w
}

// Write queues a line. It never returns an error, because the caller could not act on an error.
func (w *asyncWriter) Write(p []byte) (int, error) {
	line := slices.Clone(p)
	select {
	case <-w.quit:
		return len(p), nil
	default:
	}
	select {
	case w.lines <- line:
		return len(p), nil
	default:
	}
	if !w.stuck.Load() {
		timer := time.NewTimer(queuePatience)
		defer timer.Stop()
		select {
		case w.lines <- line:
			return len(p), nil
		case <-w.quit:
			return len(p), nil
		case <-timer.C:
			w.stuck.Store(true)
		}
	}
	w.dropped.Add(1)
	return len(p), nil
}

// run writes queued lines until close is called, and then the lines that are still queued.
func (w *asyncWriter) run() {
	defer close(w.done)
	defer w.output.closeFile()
	w.setTrouble(w.output.writeLine(nil))
	close(w.opened)
	w.writeRetrying(nil)
	for {
		select {
		case line := <-w.lines:
			w.writeRetrying(line)
		case <-w.reopenSignal:
			w.output.closeFile()
			w.writeRetrying(nil)
		case <-w.quit:
			for {
				select {
				case line := <-w.lines:
					w.writeRetrying(line)
				default:
					return
				}
			}
		}
	}
}

// writeRetrying writes a line. If this fails, it retries until the line is written or dropped, or the writer is closed.
func (w *asyncWriter) writeRetrying(line []byte) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := w.output.writeLine(line)
		if errors.Is(err, errLineTooLong) {
			w.reportTooLong(len(line))
			return
		}
		w.setTrouble(err)
		if err == nil {
			return
		}
		if !w.output.isRetryable() {
			w.dropped.Add(1)
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-w.quit:
			timer.Stop()
			if w.output.writeLine(line) != nil {
				w.dropped.Add(1)
			}
			return
		case <-w.reopenSignal:
			w.output.closeFile()
		case <-timer.C:
		}
		timer.Stop()
	}
}

// setTrouble records the error of the last attempt to write the log, or nil. If writes begin to fail, if they succeed again,
// or if lines were dropped, setTrouble logs this to w.fallback.
func (w *asyncWriter) setTrouble(err error) {
	w.stuck.Store(err != nil)
	w.mu.Lock()
	before := w.trouble
	w.trouble = err
	w.mu.Unlock()
	switch {
	case w.fallback == nil:
	case before == nil && err != nil:
		w.fallback.Error("a log can't be written; capture continues and retries", "log", w.name, "error", err)
	case before != nil && err == nil:
		w.fallback.Info("the log is written again", "log", w.name, "lines_dropped", w.dropped.Swap(0))
	case err == nil && w.dropped.Load() > 0:
		w.fallback.Warn("a log was too slow", "log", w.name, "lines_dropped", w.dropped.Swap(0))
	}
}

// reportTooLong reports to w.fallback that a line of n bytes was dropped. It does not call setTrouble: capture has not tried
// to write the line, so this is no sign that the log cannot be written.
func (w *asyncWriter) reportTooLong(n int) {
	if w.fallback != nil {
		w.fallback.Warn("a log line is too long and was dropped", "log", w.name, "bytes", n)
	}
}

func (w *asyncWriter) err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.trouble != nil {
		return fmt.Errorf("log %s can't be written: %w", w.name, w.trouble)
	}
	if w.stuck.Load() {
		return fmt.Errorf("log %s can't be written: its disk does not answer", w.name)
	}
	return nil
}

func (w *asyncWriter) reopen() {
	select {
	case w.reopenSignal <- struct{}{}:
	default:
	}
}

// close waits until the queued lines are written, but at most for the given timeout. If the disk hangs, the goroutine of the
// asyncWriter keeps running.
func (w *asyncWriter) close(timeout time.Duration) error {
	w.quitOnce.Do(func() { close(w.quit) })
	timer := time.NewTimer(max(timeout, 10*time.Millisecond))
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
		return fmt.Errorf("close log %s: its disk does not answer", w.name)
	}
	return w.err()
}
