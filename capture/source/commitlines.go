package source

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pglogrepl"

	"capture/internal/postgres"
	"capture/snapshot/rowjson"
)

// TxnStats counts the changes to the table by one transaction, or by several transactions together.
type TxnStats struct {
	LSN                                  pglogrepl.LSN // end of the commit record; 0 if the source has no positions
	CommitTime                           time.Time
	Inserts, Updates, Deletes, Truncates int

	// Keys of the first changed rows, concatenated, and the end offset of each key. A slice per key would cost an allocation
	// per row.
	keys    []byte
	keyEnds []int
}

// loggedKeys is the largest number of keys in a log line.
const loggedKeys = 10

// Reset sets all counts to zero and removes the keys, but keeps their memory for reuse.
func (x *TxnStats) Reset() { *x = TxnStats{keys: x.keys[:0], keyEnds: x.keyEnds[:0]} }

// Changes returns the number of changes.
func (x *TxnStats) Changes() int { return x.Inserts + x.Updates + x.Deletes + x.Truncates }

// AddKey adds the key of a changed row. Only the first loggedKeys keys are kept.
func (x *TxnStats) AddKey(key []byte) {
	if len(x.keyEnds) < loggedKeys {
		x.keys = append(x.keys, key...)
		x.keyEnds = append(x.keyEnds, len(x.keys))
	}
}

// keptKey returns the i-th of the keys that AddKey has kept, counted from 0.
func (x *TxnStats) keptKey(i int) []byte {
	start := 0
	if i > 0 {
		start = x.keyEnds[i-1]
	}
	return x.keys[start:x.keyEnds[i]]
}

// LogFields returns the key–value pairs for a log line: the counts and the first keys, followed by the additional pairs.
func (x *TxnStats) LogFields(s *rowjson.Shape, more ...any) []any {
	keys := make([]string, len(x.keyEnds))
	for i := range keys {
		keys[i] = s.KeyString(x.keptKey(i))
	}
	fields := make([]any, 0, 10+len(more))
	fields = append(fields, "inserts", x.Inserts, "updates", x.Updates, "deletes", x.Deletes, "truncates", x.Truncates, "keys", keys)
	return append(fields, more...)
}

// TxnLogger logs commits. Up to a rate limit, each commit gets its own line. Commits above the limit are summarized in one line
// per second. Only one goroutine may use a TxnLogger, but any goroutine may call HasSummary.
type TxnLogger struct {
	log   hclog.Logger
	shape *rowjson.Shape

	tokens     int // number of commits that may still get their own log line before the next Refill
	refilled   time.Time
	summary    TxnStats // sums of the commits that have not been logged yet
	summarized int      // number of commits in summary
	hasSummary atomic.Bool
}

// The first lineBurst commits in a row get a line each. After that, only linesPerSecond commits per second get their own line.
const (
	lineBurst      = 1000
	linesPerSecond = 100
)

// NewTxnLogger returns a TxnLogger for commits to a table of this shape.
func NewTxnLogger(log hclog.Logger, shape *rowjson.Shape) *TxnLogger {
	return &TxnLogger{log: log, shape: shape}
}

// Add logs a commit, or adds it to the summary.
func (l *TxnLogger) Add(x *TxnStats, now time.Time) {
	l.Refill(now)
	if l.tokens > 0 {
		l.tokens--
		l.logCommit(x, now)
		return
	}
	l.summarized++
	l.hasSummary.Store(true)
	s := &l.summary
	s.Inserts += x.Inserts
	s.Updates += x.Updates
	s.Deletes += x.Deletes
	s.Truncates += x.Truncates
	s.LSN, s.CommitTime = x.LSN, x.CommitTime
	for i := 0; i < len(x.keyEnds) && len(s.keyEnds) < loggedKeys; i++ {
		s.AddKey(x.keptKey(i))
	}
}

// Refill does nothing until a second has passed since the last refill. It then logs the summary, and adds tokens for the time
// that has passed.
func (l *TxnLogger) Refill(now time.Time) {
	passed := now.Sub(l.refilled)
	if passed < time.Second {
		return
	}
	l.Flush()
	l.tokens = min(l.tokens+int(min(passed/time.Second, lineBurst))*linesPerSecond, lineBurst)
	l.refilled = now
}

// Flush logs the summary, if there is one.
func (l *TxnLogger) Flush() {
	if l.summarized == 0 {
		return
	}
	l.logCommit(&l.summary, time.Now(), "transactions", l.summarized)
	l.summarized = 0
	l.hasSummary.Store(false)
	l.summary.Reset()
}

// HasSummary reports whether commits wait to be logged. Any goroutine may call it.
func (l *TxnLogger) HasSummary() bool { return l.hasSummary.Load() }

func (l *TxnLogger) logCommit(x *TxnStats, now time.Time, more ...any) {
	l.log.Info("captured", x.LogFields(l.shape, append(more, "lsn", postgres.FormatLSN(x.LSN),
		"commit_time", x.CommitTime.Format(time.RFC3339Nano), "lag_ms", Milliseconds(now.Sub(x.CommitTime)))...)...)
}

// Milliseconds returns d in milliseconds, as log lines show durations.
func Milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
