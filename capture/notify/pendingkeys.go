package notify

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"capture/capture/source"
	"capture/internal/postgres"
)

// maxPendingKeys is the largest number of rows that a round reads by their keys. If more rows have changed, the round reads the
// whole table.
const maxPendingKeys = 4000

// pendingKeys holds the keys of changed rows that must be read. The listener adds keys. Each round (see [Source]) takes all
// keys and reads their rows.
type pendingKeys struct {
	progress *source.Progress
	changed  chan struct{} // receives a value after keys or a request for a full read were added
	acked    chan struct{} // receives a value after a marker arrived; see waitMarker

	mu           sync.Mutex
	batch        keyBatch
	since        time.Time // arrival time of the oldest pending key or request for a full read; zero if nothing is pending
	lastNotified time.Time // arrival time of the last notification of a change
	marker       uint64    // highest number among the markers that have arrived
}

// keyBatch is what a round reads: the rows with these keys, or the whole table.
type keyBatch struct {
	keys           map[string][]string // maps the texts of a row's key columns, joined with \x00, to the same texts as a list
	fullReadReason string              // reason to read the whole table; "" if the keys are enough
}

func (b *keyBatch) isEmpty() bool { return b.fullReadReason == "" && len(b.keys) == 0 }

func newPendingKeys(progress *source.Progress) *pendingKeys {
	return &pendingKeys{
		progress: progress, changed: make(chan struct{}, 1), acked: make(chan struct{}, 1),
		batch: keyBatch{keys: map[string][]string{}}, lastNotified: time.Now(),
	}
}

// addNotification adds the keys in a notification that arrived on the channel of the table's triggers.
func (p *pendingKeys) addNotification(payload string, keyColumns int) {
	keys, all, err := postgres.ParseNotification(payload)
	reason := ""
	switch {
	case all:
		reason = "a notification asks for it"
	case err != nil, !utf8.ValidString(payload):
		reason = "a notification could not be read"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastNotified = time.Now()
	for _, k := range keys {
		if reason == "" && len(k) != keyColumns {
			reason = "a notification has keys of another table"
		}
		p.batch.keys[strings.Join(k, "\x00")] = k // no text in Postgres has a zero byte, so two keys never give the same text
	}
	if reason == "" && len(p.batch.keys) > maxPendingKeys {
		reason = tooManyKeys()
	}
	p.addLocked(reason)
}

func tooManyKeys() string { return fmt.Sprintf("more than %d rows changed", maxPendingKeys) }

// requestFullRead makes the next round read the whole table.
func (p *pendingKeys) requestFullRead(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addLocked(reason)
}

// addLocked wakes the loop after an addition. If fullReadReason is not "", the next round reads the whole table. The caller
// holds mu.
func (p *pendingKeys) addLocked(fullReadReason string) {
	if p.batch.fullReadReason == "" {
		p.batch.fullReadReason = fullReadReason
	}
	if p.batch.fullReadReason != "" {
		clear(p.batch.keys)
	}
	if p.since.IsZero() {
		p.since = time.Now()
		p.progress.SetWaitingSince(p.since)
	}
	signal(p.changed)
}

// signal sends to a channel of capacity one, unless the channel is already full.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// drain returns everything that is pending and removes it.
func (p *pendingKeys) drain() keyBatch {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.batch
	p.batch, p.since = keyBatch{keys: map[string][]string{}}, time.Time{}
	p.progress.SetWaitingSince(time.Time{})
	return b
}

// mergeInto adds to b all keys and requests that have arrived since the last drain. They also stay pending, for the next round.
func (p *pendingKeys) mergeInto(b *keyBatch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, k := range p.batch.keys {
		b.keys[name] = k
	}
	if b.fullReadReason == "" {
		b.fullReadReason = p.batch.fullReadReason
	}
	if b.fullReadReason == "" && len(b.keys) > maxPendingKeys {
		b.fullReadReason = tooManyKeys()
	}
}

// oldest returns the arrival time of the oldest pending key or request, or zero if nothing is pending. It also reports
// whether the next round reads the whole table.
func (p *pendingKeys) oldest() (since time.Time, full bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.since, p.batch.fullReadReason != ""
}

// sinceNotified returns the time since the last notification of a change.
func (p *pendingKeys) sinceNotified() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.lastNotified)
}

// ackMarker records that a marker arrived.
func (p *pendingKeys) ackMarker(payload string) {
	n, err := strconv.ParseUint(payload, 10, 64)
	if err != nil {
		return // not a marker of this Source
	}
	p.mu.Lock()
	p.marker = max(p.marker, n)
	p.mu.Unlock()
	signal(p.acked)
}

// waitMarker waits until the marker with the given number, or a later marker, has arrived.
func (p *pendingKeys) waitMarker(ctx context.Context, marker uint64) error {
	for {
		p.mu.Lock()
		last := p.marker
		p.mu.Unlock()
		if last >= marker {
			return nil
		}
		select {
		case <-p.acked:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
