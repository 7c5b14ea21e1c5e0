package source

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"

	"capture/internal/postgres"
)

// Phase is how far a source has come.
type Phase string

// The phases, as the status names them.
const (
	Connecting Phase = "connecting"
	Copying    Phase = "copying"
	Following  Phase = "following"
)

// Progress is what one attempt of one source reports about itself. The source writes it and anyone may read it. Each
// attempt has a new Progress, so a condition that a source reports ends with the attempt.
type Progress struct {
	source    string
	changed   func()
	serverLSN atomic.Uint64 // end of the server's WAL; not under mu, since each message of a stream sets it

	mu             sync.Mutex
	phase          Phase
	systemID       string
	serverVersion  string
	followingSince time.Time
	reads          *postgres.ReadClock // of the connection that the source follows by; nil before it follows
	blocked        string
	retainedWAL    int64
	conditions     map[string]string
	counters       Counters
	copyEnded      time.Time
	copyTook       time.Duration

	// The lag, from positions in the WAL or from the oldest change that waits, whichever the source has.
	appliedLSN   pglogrepl.LSN
	commitLag    time.Duration
	waitingSince time.Time
}

// Counters are the totals of what a source did.
type Counters struct {
	Transactions, Inserts, Updates, Deletes, Truncates, Copies uint64
}

// Add returns the sums of c and o.
func (c Counters) Add(o Counters) Counters {
	return Counters{
		c.Transactions + o.Transactions, c.Inserts + o.Inserts, c.Updates + o.Updates, c.Deletes + o.Deletes,
		c.Truncates + o.Truncates, c.Copies + o.Copies,
	}
}

// Report is a Progress at one moment.
type Report struct {
	Source         string
	Phase          Phase
	SystemID       string
	ServerVersion  string
	FollowingSince time.Time         // zero if it has not followed yet
	LastContact    time.Time         // time of the last data from the server; zero if it has not followed yet
	Blocked        string            // reason why the copy cannot begin
	LagBytes       int64             // WAL between the server's end and what has been applied
	LagSeconds     float64           // age of the last commit when it was applied, or of the oldest change that waits
	RetainedWAL    int64             // bytes of WAL that the replication slot retains
	Conditions     map[string]string // conditions that an operator should know, by name
	Counters       Counters
	CopyEnded      time.Time     // end of the last whole copy; zero if there was none
	CopyTook       time.Duration // duration of that copy
}

// NewProgress returns the Progress for an attempt of the named source. It calls changed, if set, after each change of the
// phase.
func NewProgress(source string, changed func()) *Progress {
	if changed == nil {
		changed = func() {}
	}
	return &Progress{source: source, changed: changed, phase: Connecting, conditions: map[string]string{}}
}

// Report returns what the source has reported so far.
func (p *Progress) Report() Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := Report{
		Source: p.source, Phase: p.phase, SystemID: p.systemID, ServerVersion: p.serverVersion,
		FollowingSince: p.followingSince, Blocked: p.blocked, RetainedWAL: p.retainedWAL,
		Conditions: maps.Clone(p.conditions), Counters: p.counters, CopyEnded: p.copyEnded, CopyTook: p.copyTook,
	}
	if p.phase != Following {
		return r
	}
	r.LastContact = p.reads.LastRead()
	r.LagBytes = max(int64(p.serverLSN.Load())-int64(p.appliedLSN), 0)
	r.LagSeconds = max(p.commitLag.Seconds(), 0)
	if !p.waitingSince.IsZero() {
		r.LagSeconds = time.Since(p.waitingSince).Seconds()
	}
	return r
}

// HasFollowed reports whether the source came as far as following the table.
func (p *Progress) HasFollowed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phase == Following
}

// SetCopying reports that the copy of the table begins.
func (p *Progress) SetCopying() {
	p.update(func() { p.phase = Copying })
	p.changed()
}

// SetFollowing reports that the copy is complete and the source follows the table. reads shows when the server last sent
// something.
func (p *Progress) SetFollowing(reads *postgres.ReadClock) {
	p.update(func() { p.phase, p.followingSince, p.reads = Following, time.Now(), reads })
	p.changed()
}

// SetBlocked reports why the copy cannot begin yet; "" once it can.
func (p *Progress) SetBlocked(reason string) { p.update(func() { p.blocked = reason }) }

// SetRetainedWAL reports how many bytes of WAL the replication slot retains.
func (p *Progress) SetRetainedWAL(bytes int64) { p.update(func() { p.retainedWAL = bytes }) }

// SetServerLSN reports the end of the server's WAL. Only one goroutine may call it.
func (p *Progress) SetServerLSN(lsn pglogrepl.LSN) {
	p.serverLSN.Store(max(p.serverLSN.Load(), uint64(lsn)))
}

// SetAppliedLSN reports up to where the stream is applied, and how old the commit there was; 0 if the stream has caught up.
func (p *Progress) SetAppliedLSN(lsn pglogrepl.LSN, lag time.Duration) {
	p.update(func() { p.appliedLSN, p.commitLag = lsn, lag })
}

// SetWaitingSince reports when the oldest change arrived that no View holds yet; zero if there is none.
func (p *Progress) SetWaitingSince(t time.Time) { p.update(func() { p.waitingSince = t }) }

// SetCondition sets a condition that an operator should know; an empty text clears it. It reports whether the text is new.
func (p *Progress) SetCondition(name, text string) (news bool) {
	p.update(func() {
		news = p.conditions[name] != text
		if text == "" {
			delete(p.conditions, name)
		} else {
			p.conditions[name] = text
		}
	})
	return news
}

// RecordCopy counts a whole copy that has just ended.
func (p *Progress) RecordCopy(took time.Duration) {
	p.update(func() {
		p.counters.Copies++
		p.copyEnded, p.copyTook = time.Now(), took
	})
}

// RecordCommit counts what a transaction changed.
func (p *Progress) RecordCommit(x *TxnStats) {
	p.update(func() {
		p.counters = p.counters.Add(Counters{
			Transactions: 1, Inserts: uint64(x.Inserts), Updates: uint64(x.Updates), Deletes: uint64(x.Deletes),
			Truncates: uint64(x.Truncates),
		})
	})
}

func (p *Progress) setServer(systemID, version string) {
	p.update(func() { p.systemID, p.serverVersion = systemID, version })
}

func (p *Progress) update(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}
