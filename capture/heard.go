package capture

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/capture/source"
	"capture/internal/postgres"
)

// heardKeys is how many changed rows are read back by their keys; for more, the whole table is read.
const heardKeys = 4000

// heard is what notifications have said and no View holds yet. The listener adds, rounds take.
type heard struct {
	progress *source.Progress
	signal   chan struct{} // has a value after something was added
	marked   chan struct{} // has a value after a mark came

	mu    sync.Mutex
	keys  map[string][]string
	all   string    // why the whole table must be read; "" where the keys are enough
	since time.Time // when the first of it came; zero where there is nothing
	last  time.Time // when the last notification of a change came
	mark  uint64
}

func newHeard(progress *source.Progress) *heard {
	return &heard{progress: progress, signal: make(chan struct{}, 1), marked: make(chan struct{}, 1), keys: map[string][]string{}, last: time.Now()}
}

// add takes one notification of the table's triggers.
func (h *heard) add(payload string, columns int) {
	keys, all, err := postgres.ParseNotification(payload)
	why := ""
	switch {
	case all:
		why = "a notification asks for it"
	case err != nil, !utf8.ValidString(payload):
		why = "a notification could not be read"
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = time.Now()
	for _, k := range keys {
		if why == "" && len(k) != columns {
			why = "a notification has keys of another table"
		}
		h.keys[strings.Join(k, "\x00")] = k // text holds no zero byte
	}
	if why == "" && len(h.keys) > heardKeys {
		why = fmt.Sprintf("more than %d rows changed", heardKeys)
	}
	h.added(why)
}

// doubt has the whole table read again.
func (h *heard) doubt(why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.added(why)
}

func (h *heard) added(why string) {
	if why != "" && h.all == "" {
		h.all = why
	}
	if h.all != "" {
		clear(h.keys)
	}
	if h.since.IsZero() {
		h.since = time.Now()
		h.progress.SetWaitingSince(h.since)
	}
	wake(h.signal)
}

// wake puts a value into a channel of one, where it has none.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// batch is what a round has to read.
type batch struct {
	keys map[string][]string
	all  string
}

// take removes what was heard so far.
func (h *heard) take() batch {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := batch{h.keys, h.all}
	h.keys, h.all, h.since = map[string][]string{}, "", time.Time{}
	h.progress.SetWaitingSince(h.since)
	return b
}

// join adds what was heard since the batch was taken to it, and leaves it to the next round as well.
func (h *heard) join(b *batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, k := range h.keys {
		b.keys[name] = k
	}
	if b.all == "" {
		b.all = h.all
	}
	if b.all == "" && len(b.keys) > heardKeys {
		b.all = fmt.Sprintf("more than %d rows changed", heardKeys)
	}
}

// pending says since when something waits to be read (zero for nothing), and whether that is the whole table.
func (h *heard) pending() (since time.Time, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since, h.all != ""
}

func (h *heard) lastHeard() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// came notes a mark of our own.
func (h *heard) came(payload string) {
	n, err := strconv.ParseUint(payload, 10, 64)
	if err != nil {
		return // somebody plays with our channel
	}
	h.mu.Lock()
	h.mark = max(h.mark, n)
	h.mu.Unlock()
	wake(h.marked)
}

// reached waits until the mark has come.
func (h *heard) reached(ctx context.Context, mark uint64) error {
	for {
		h.mu.Lock()
		at := h.mark
		h.mu.Unlock()
		if at >= mark {
			return nil
		}
		select {
		case <-h.marked:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// listener is the session that hears the notifications. It is read at all times: a server whose notifications nobody
// takes away must keep them.
type listener struct {
	conn     *pgx.Conn
	channel  string // of the table's triggers
	marks    string // of our own
	columns  int    // of the table's key
	heard    *heard
	timeouts source.Timeouts
}

// newListener opens the session. What commits after it returns is heard.
func newListener(ctx context.Context, cfg *pgx.ConnConfig, tab *postgres.Table, marks string, h *heard, timeouts source.Timeouts) (*listener, error) {
	conn, err := postgres.Connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	l := &listener{conn: conn, channel: tab.Channel(), marks: marks, columns: len(tab.Key), heard: h, timeouts: timeouts}
	for _, channel := range []string{l.channel, l.marks} {
		if _, err := conn.Exec(ctx, "LISTEN "+postgres.QuoteIdentifier(channel)); err != nil {
			postgres.CloseNow(conn.PgConn())
			return nil, fmt.Errorf("listen to channel %s: %w", channel, err)
		}
	}
	return l, nil
}

// run hears until ctx ends or the connection fails. While nothing comes it asks for a sign of life, so that a dead line
// is noticed.
func (l *listener) run(ctx context.Context) error {
	for {
		wait, cancel := context.WithTimeout(ctx, l.timeouts.Ping)
		n, err := l.conn.WaitForNotification(wait)
		idle := wait.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case n != nil:
			l.hear(n)
		case idle && !l.conn.IsClosed():
			if err := l.ping(ctx); err != nil {
				return err
			}
		case err != nil:
			return fmt.Errorf("listen to channel %s: %w", l.channel, err)
		}
	}
}

func (l *listener) hear(n *pgconn.Notification) {
	switch n.Channel {
	case l.channel:
		l.heard.add(n.Payload, l.columns)
	case l.marks:
		l.heard.came(n.Payload)
	}
}

func (l *listener) ping(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, l.timeouts.Idle)
	defer cancel()
	err := l.conn.Ping(wait)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("listen to channel %s: no data from the server for %s: %w", l.channel, l.timeouts.Idle, err)
	}
	if err != nil {
		return fmt.Errorf("listen to channel %s: %w", l.channel, err)
	}
	return nil
}
