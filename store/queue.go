package store

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// logFile is what a queue writes to.
type logFile interface {
	// write writes a whole line or none. With no line, it only tries whether it could.
	write(line []byte) error
	// shut closes the file; the next write opens it anew.
	shut()
	// lasting says whether a line that could not be written is worth another try.
	lasting() bool
}

var errLineTooLong = errors.New("a line is longer than the whole log may be")

// A queue takes lines at once and writes them on its own goroutine. While writing fails or hangs it keeps as many as it
// has room for and drops the rest; none is reordered or torn.
type queue struct {
	name string
	file logFile
	own  hclog.Logger // where trouble is told; nil for nowhere

	lines   chan []byte
	quit    chan struct{}
	done    chan struct{}
	anew    chan struct{}
	close1  sync.Once
	dropped atomic.Uint64
	stuck   atomic.Bool // writing fails or hangs: a full queue drops at once

	mu      sync.Mutex
	trouble error
}

const (
	queueLines    = 4096
	queuePatience = time.Second // with a disk that is only slow; longer than this, it counts as hanging
	retryFirst    = 50 * time.Millisecond
	retryMost     = time.Second
)

func newQueue(name string, file logFile, own hclog.Logger) *queue {
	q := &queue{
		name: name, file: file, own: own,
		lines: make(chan []byte, queueLines), anew: make(chan struct{}, 1),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	go q.run()
	return q
}

// Write takes a line. It always succeeds, for nobody could do anything about it.
func (q *queue) Write(p []byte) (int, error) {
	line := slices.Clone(p)
	select {
	case <-q.quit:
		return len(p), nil
	default:
	}
	select {
	case q.lines <- line:
		return len(p), nil
	default:
	}
	if !q.stuck.Load() {
		timer := time.NewTimer(queuePatience)
		defer timer.Stop()
		select {
		case q.lines <- line:
			return len(p), nil
		case <-q.quit:
			return len(p), nil
		case <-timer.C:
			q.stuck.Store(true)
		}
	}
	q.dropped.Add(1)
	return len(p), nil
}

func (q *queue) run() {
	defer close(q.done)
	defer q.file.shut()
	q.put(nil)
	for {
		select {
		case line := <-q.lines:
			q.put(line)
		case <-q.anew:
			q.file.shut()
			q.put(nil)
		case <-q.quit:
			for {
				select {
				case line := <-q.lines:
					q.put(line)
				default:
					return
				}
			}
		}
	}
}

// put writes a line, again and again until it works or the queue is closed.
func (q *queue) put(line []byte) {
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		err := q.file.write(line)
		if errors.Is(err, errLineTooLong) {
			q.dropped.Add(1)
			q.set(err)
			return
		}
		q.set(err)
		if err == nil {
			return
		}
		if !q.file.lasting() {
			q.dropped.Add(1)
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-q.quit:
			timer.Stop()
			if q.file.write(line) != nil {
				q.dropped.Add(1)
			}
			return
		case <-q.anew:
			q.file.shut()
		case <-timer.C:
		}
		timer.Stop()
	}
}

// set keeps the present trouble, and tells it when it comes and when it goes.
func (q *queue) set(err error) {
	q.stuck.Store(err != nil)
	q.mu.Lock()
	before := q.trouble
	q.trouble = err
	q.mu.Unlock()
	switch {
	case q.own == nil:
	case before == nil && err != nil:
		q.own.Error("a log can't be written; capture goes on without it", "log", q.name, "error", err)
	case before != nil && err == nil:
		q.own.Info("the log is written again", "log", q.name, "lines_dropped", q.dropped.Swap(0))
	case err == nil && q.dropped.Load() > 0:
		q.own.Warn("a log was too slow", "log", q.name, "lines_dropped", q.dropped.Swap(0))
	}
}

func (q *queue) err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.trouble != nil {
		return fmt.Errorf("log %s can't be written: %w", q.name, q.trouble)
	}
	if q.stuck.Load() {
		return fmt.Errorf("log %s can't be written: its disk does not answer", q.name)
	}
	return nil
}

func (q *queue) reopen() {
	select {
	case q.anew <- struct{}{}:
	default:
	}
}

// close waits for the lines that wait, but no longer than patience; then the goroutine is left to a disk that hangs.
func (q *queue) close(patience time.Duration) error {
	q.close1.Do(func() { close(q.quit) })
	timer := time.NewTimer(max(patience, 10*time.Millisecond))
	defer timer.Stop()
	select {
	case <-q.done:
	case <-timer.C:
		return fmt.Errorf("close log %s: its disk does not answer", q.name)
	}
	return q.err()
}
