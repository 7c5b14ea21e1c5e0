// Package snapshot holds one Postgres table in memory as the JSON lines that feedback.json is made of.
//
// The rows come as lines with keys, which package rowjson makes. A [Table] is the working state, written by one goroutine, a
// transaction at a time; [Table.View] is the last committed state, immutable, for any goroutine at any time.
package snapshot

import (
	"time"

	"github.com/jackc/pglogrepl"
)

// Position says which committed state of the database a View is.
type Position struct {
	LSN        pglogrepl.LSN // all that was committed up to there is in the View; 0 where the source knows none
	CommitTime time.Time     // of the last transaction in it, by the server's clock; zero where the source knows none
}
