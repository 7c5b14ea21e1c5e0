package snapshot

import "github.com/jackc/pglogrepl"

// Horizon divides the row versions of the Postgres table into those that a View certainly has and those that it may lack. A
// later read of the table then transfers only the latter. The invariant is:
//
// If a later snapshot of the database shows a row version of a transaction below XID, then the View has this version as the
// row with its key. It holds as long as the Place is the same, and as long as the database has not gone back to a state
// before the View's.
//
// The reasons: every transaction below XID had ended when the Horizon was read, and the View shows what these transactions
// committed. The later snapshot shows the version, so nothing between View and snapshot has deleted it. The values of a version
// never change in place. See "Resync" in docs/design.md.
type Horizon struct {
	XID uint64        `json:"xid"` // 64-bit transaction ID: the xmin of a snapshot of the database
	LSN pglogrepl.LSN `json:"lsn"` // WAL position after that snapshot; the View's position is not below it
	Place
}
