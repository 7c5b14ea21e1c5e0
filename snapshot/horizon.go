package snapshot

import "github.com/jackc/pglogrepl"

// Horizon divides the row versions of the Postgres table into two sets: the versions that a View certainly has, and the
// versions that the View may lack. A later read of the table transfers only the second set. The invariant is:
//
// If a later snapshot of the database shows a row version that was written by a transaction with an ID below XID, then the View
// shows this version under its key. This is true only while the Place is the same, and only if the database has not been
// restored to a state before the View's state.
//
// The reasons: every transaction with an ID below XID had ended when the Horizon was read, and the View shows what these
// transactions committed. If a transaction had deleted the version before the View's state, the later snapshot would not
// show the version. The values of a version never change in place. See "Resync" in docs/design.md.
type Horizon struct {
	XID uint64        `json:"xid"` // 64-bit transaction ID: the xmin of a snapshot of the database
	LSN pglogrepl.LSN `json:"lsn"` // WAL position after that snapshot; the View's position is not below it
	Place
}

// Place identifies the server, the database and the table for which a Horizon is valid. Row versions keep their transaction
// IDs and their content only while all fields of the Place stay the same.
type Place struct {
	SystemID    string `json:"system_id"`    // system identifier of the database cluster
	Timeline    int32  `json:"timeline"`     // timeline of the server's WAL
	Started     int64  `json:"started"`      // start time of the server, in microseconds since 1970
	DatabaseOID uint32 `json:"database_oid"` // OID of the database
	TableOID    uint32 `json:"table_oid"`    // OID of the table
	Files       string `json:"files"`        // digest of the OIDs and file numbers of the table or its partitions
	Fingerprint string `json:"fingerprint"`  // fingerprint of the table's shape
}

// IsComplete reports whether every field is known.
func (p *Place) IsComplete() bool {
	return p.SystemID != "" && p.Timeline != 0 && p.Started != 0 && p.DatabaseOID != 0 && p.TableOID != 0 && p.Files != "" && p.Fingerprint != ""
}

// Difference returns a text for the operator that describes the first difference between p and now, which is the present
// place. It returns "" if both places are complete and equal.
func (p *Place) Difference(now *Place) string {
	switch {
	case !p.IsComplete() || !now.IsComplete():
		return "the server does not tell its identity"
	case p.SystemID != now.SystemID:
		return "it is another database cluster"
	case p.Timeline != now.Timeline:
		return "the server is on another timeline"
	case p.Started != now.Started:
		return "the server was restarted, or it is another server"
	case p.DatabaseOID != now.DatabaseOID:
		return "it is another database"
	case p.TableOID != now.TableOID:
		return "it is another table"
	case p.Fingerprint != now.Fingerprint:
		return "the table's definition changed"
	case p.Files != now.Files:
		return "the table was rewritten or truncated"
	}
	return ""
}
