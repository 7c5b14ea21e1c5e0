package source

import (
	"cmp"
	"context"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// Env holds the settings and dependencies of a source. The creator of the source sets them, and they stay constant while the
// source runs.
type Env struct {
	Database *pgx.ConnConfig
	Table    postgres.Name
	Logger   hclog.Logger
	Timeouts Timeouts // result of WithDefaults
	Copy     CopyOptions
	Progress *Progress

	MaxRow       int64         // size limit of a row as JSON, in bytes (see RowLimit); 0 for the most that a Table can hold
	MaxWAL       int64         // bytes of WAL that a replication slot may retain; 0 for no limit
	PollInterval time.Duration // time between two reads of the table by the poll source
	Chosen       bool          // whether the operator chose this source by name, and so accepts its side effects
	SystemID     string        // last system identifier that an earlier attempt found; "" if it is not known
	Publication  string        // text of PublicationCondition that the previous attempt logged; "" if it logged none

	// LoadRows loads into t the rows that an earlier run left in feedback.json, if the source of this attempt can bring them up
	// to date. shape and place describe the present table. The source calls LoadRows before it opens a transaction. If LoadRows
	// is nil, or if t has rows already, there is nothing to load (see NeedsRows).
	LoadRows func(ctx context.Context, t *snapshot.Table, shape *rowjson.Shape, place *snapshot.Place)
}

// NeedsRows reports whether the source should call LoadRows.
func (e *Env) NeedsRows(t *snapshot.Table) bool { return e.LoadRows != nil && t.View() == nil }

// RowLimit returns the size limit of a row as JSON, in bytes. Larger rows are omitted.
func (e *Env) RowLimit() int64 {
	const longestKey = 1 << 20 // more than the longest key that an index can hold, even if the index compresses keys
	return cmp.Or(e.MaxRow, snapshot.MaxRowBytes-longestKey)
}

// SetServer reports the server's identity to Progress. It warns if the user is a superuser, and if the server belongs to
// another database cluster than the server of an earlier attempt.
func (e *Env) SetServer(systemID string, server *postgres.Server) {
	const superuser = "the user is a superuser: functions of the table's owner, such as casts and those of generated columns, run with all rights"
	if server.Superuser && e.Progress.SetCondition("role", superuser) && e.SystemID == "" {
		e.Logger.Warn(superuser, "user", server.User, "hint", "capture setup --role")
	}
	if server.Address != postgres.Address(&e.Database.Config) { // true only if the configuration names several hosts; log which of them has answered
		e.Logger.Info("connected", "server", server.Address)
	}
	if systemID != "" && e.SystemID != "" && e.SystemID != systemID {
		e.Logger.Warn("connected to another database cluster than before", "previous_system_id", e.SystemID, "system_id", systemID)
	}
	e.Progress.setServer(systemID, server)
}

// WarnInvalidUTF8 warns once per attempt that the table contains bytes that are not valid UTF-8.
func (e *Env) WarnInvalidUTF8() {
	const text = "some bytes in the table are not valid UTF-8; feedback.json has U+FFFD in their place"
	if e.Progress.SetCondition("encoding", text) {
		e.Logger.Warn(text, "table", e.Table.String())
	}
}

// CopyOptions are the settings for copies of the whole table.
type CopyOptions struct {
	Rate int64 // limit of the bytes per second that all connections read together; 0 for no limit

	// WriteAhead, if set, writes a part of the next version of the file: the rows that a running copy has read so far. This
	// leaves less work for the end of the copy. The result reports whether further calls are useful. A call with nil parts
	// means that the copy has failed.
	WriteAhead func(ctx context.Context, parts []snapshot.Part) (more bool)

	// Only tests set the following fields. Zero stands for the usual value.
	Connections     int   // number of connections; by default, it depends on the server, the table and this machine
	RangeBytes      int64 // approximate size in bytes of a page range, which a connection reads at a time
	WriteAheadBytes int   // bytes of rows inserted between two calls of WriteAhead
	AlwaysResync    bool  // whether to resync by transferring changes even if a copy of the whole table would be faster
}
