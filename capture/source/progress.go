package source

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"

	"capture/internal/postgres"
)

// Phase is a stage of a source on its way to following the table.
type Phase string

// Phases, by the names that the status uses.
const (
	Connecting Phase = "connecting"
	Copying    Phase = "copying"
	Following  Phase = "following"
)

// Progress holds what a source reports about itself in one attempt. The source writes it, and any goroutine may read it. Each
// attempt has a new Progress, so reported conditions end with the attempt.
type Progress struct {
	source    string
	changed   func()
	serverLSN atomic.Uint64 // end of the server's WAL; atomic, without mu, because each message of a stream sets it

	mu             sync.Mutex
	phase          Phase
	systemID       string
	serverVersion  string
	serverAddress  string
	followingSince time.Time
	reads          *postgres.ReadClock // clock of the connection that delivers the changes; nil before the phase Following
	blocked        string
	retainedWAL    int64
	conditions     map[string]string
	counters       Counters
	copyEnded      time.Time
	copyTook       time.Duration
	lastRead       TableRead
	reading        RunningRead

	// The lag. A source with WAL positions sets appliedLSN and commitLag. Any other source sets waitingSince, the arrival time
	// of the oldest change that no View holds yet.
	appliedLSN   pglogrepl.LSN
	commitLag    time.Duration
	waitingSince time.Time
}

// Counters are the numbers of transactions, row changes and copies that a source has processed.
type Counters struct {
	Transactions, Inserts, Updates, Deletes, Truncates uint64
	Copies                                             uint64 // copies of the whole table
	Resyncs, ResyncRows                                uint64 // resyncs that transferred only what had changed, and the rows that they transferred
}

// Add returns the sums of c and o.
func (c Counters) Add(o Counters) Counters {
	return Counters{
		c.Transactions + o.Transactions, c.Inserts + o.Inserts, c.Updates + o.Updates, c.Deletes + o.Deletes,
		c.Truncates + o.Truncates, c.Copies + o.Copies, c.Resyncs + o.Resyncs, c.ResyncRows + o.ResyncRows,
	}
}

// TableRead describes how a source brought the rows in memory up to date: by a copy of the whole table, or by a resync that
// transferred only what had changed.
type TableRead struct {
	Ended        time.Time
	Took         time.Duration
	WholeBecause string // reason why the whole table was copied; "" for a resync that transferred only what had changed
	Changed      int64  // number of rows that were transferred whole
	Deleted      int64  // number of rows that a resync deleted
	Bytes        int64  // number of bytes received
}

// RunningRead describes the progress of a running read of the table.
type RunningRead struct {
	Began     time.Time // time at which the read began; zero if no read is running
	Rows      int64     // number of rows received so far
	TotalRows int64     // number of rows according to the server's statistics; 0 if unknown
	Bytes     int64     // number of bytes received so far
}

// Report is the content of a Progress at one moment.
type Report struct {
	Source         string
	Phase          Phase
	SystemID       string
	ServerVersion  string
	ServerAddress  string            // host, port and database of the server that answered; "" before it answers
	FollowingSince time.Time         // start of the phase Following; zero before it
	LastContact    time.Time         // time of the last data from the server; zero before the phase Following
	Blocked        string            // reason why the copy cannot begin; "" if there is none
	LagBytes       int64             // bytes of WAL between the applied position and the end of the server's WAL
	LagSeconds     float64           // logical: age of the last commit when it was applied; notify: age of the oldest change that no View holds
	RetainedWAL    int64             // bytes of WAL that the replication slot retains
	Conditions     map[string]string // conditions that an operator should know, by name
	Counters       Counters
	CopyEnded      time.Time     // end of the last whole copy; zero if there was none
	CopyTook       time.Duration // duration of the last whole copy
	LastRead       TableRead     // last copy or resync; zero if there was none
	Reading        RunningRead   // running copy or resync
}

// NewProgress returns the Progress for an attempt of the named source. If changed is not nil, the Progress calls it after each
// change of the phase.
func NewProgress(source string, changed func()) *Progress {
	if changed == nil {
		changed = func() {}
	}
	return &Progress{source: source, changed: changed, phase: Connecting, conditions: map[string]string{}}
}

// Report returns everything that the source has reported so far.
func (p *Progress) Report() Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := Report{
		Source: p.source, Phase: p.phase, SystemID: p.systemID, ServerVersion: p.serverVersion, ServerAddress: p.serverAddress,
		FollowingSince: p.followingSince, Blocked: p.blocked, RetainedWAL: p.retainedWAL,
		Conditions: maps.Clone(p.conditions), Counters: p.counters, CopyEnded: p.copyEnded, CopyTook: p.copyTook,
		LastRead: p.lastRead, Reading: p.reading,
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

// HasFollowed reports whether the source has reached the phase Following.
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

// SetFollowing reports that the copy is complete and the source follows the table. clock belongs to the connection
// that delivers the changes.
func (p *Progress) SetFollowing(clock *postgres.ReadClock) {
	p.update(func() { p.phase, p.followingSince, p.reads = Following, time.Now(), clock })
	p.changed()
}

// SetBlocked reports the reason why the copy cannot begin yet. An empty reason means that the copy can begin.
func (p *Progress) SetBlocked(reason string) { p.update(func() { p.blocked = reason }) }

// SetRetainedWAL reports how many bytes of WAL the replication slot retains.
func (p *Progress) SetRetainedWAL(bytes int64) { p.update(func() { p.retainedWAL = bytes }) }

// SetServerLSN reports the end of the server's WAL. Only one goroutine may call it.
func (p *Progress) SetServerLSN(lsn pglogrepl.LSN) {
	p.serverLSN.Store(max(p.serverLSN.Load(), uint64(lsn)))
}

// SetAppliedLSN reports the position up to which the stream has been applied, and the age of the last commit when it was
// applied. The age is 0 if the stream has caught up.
func (p *Progress) SetAppliedLSN(lsn pglogrepl.LSN, lag time.Duration) {
	p.update(func() { p.appliedLSN, p.commitLag = lsn, lag })
}

// SetWaitingSince reports the arrival time of the oldest change that no View holds yet, or zero if there is no such change.
func (p *Progress) SetWaitingSince(t time.Time) { p.update(func() { p.waitingSince = t }) }

// SetCondition sets a condition that an operator should know; an empty text clears it. It reports whether the text differs from
// the condition's previous text.
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

// StartRead reports that a copy or resync begins to read the table, which has about totalRows rows; 0 means unknown.
func (p *Progress) StartRead(totalRows int64) {
	p.update(func() { p.reading = RunningRead{Began: time.Now(), TotalRows: totalRows} })
}

// AddRead reports that the running copy or resync has received more rows.
func (p *Progress) AddRead(rows, bytes int64) {
	p.update(func() { p.reading.Rows, p.reading.Bytes = p.reading.Rows+rows, p.reading.Bytes+bytes })
}

// RecordRead counts a read of the table that has just ended.
func (p *Progress) RecordRead(r TableRead) {
	p.update(func() {
		p.lastRead, p.reading = r, RunningRead{}
		if r.WholeBecause == "" {
			p.counters.Resyncs++
			p.counters.ResyncRows += uint64(r.Changed)
			return
		}
		p.counters.Copies++
		p.copyEnded, p.copyTook = r.Ended, r.Took
	})
}

// RecordCommit counts a transaction and its changes.
func (p *Progress) RecordCommit(x *TxnStats) {
	p.update(func() {
		p.counters = p.counters.Add(Counters{
			Transactions: 1, Inserts: uint64(x.Inserts), Updates: uint64(x.Updates), Deletes: uint64(x.Deletes),
			Truncates: uint64(x.Truncates),
		})
	})
}

func (p *Progress) setServer(systemID string, server *postgres.Server) {
	p.update(func() { p.systemID, p.serverVersion, p.serverAddress = systemID, server.Version, server.Address })
}

func (p *Progress) update(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}
