package source

import (
	"cmp"
	"context"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/snapshot"
)

// Env is what a source may use. All of it is set by whoever makes the source, and constant while the source runs.
type Env struct {
	Database *pgx.ConnConfig
	Table    postgres.Name
	Logger   hclog.Logger
	Timeouts Timeouts // as WithDefaults returns them
	Copy     CopyOptions
	Progress *Progress

	MaxRow       int64         // most bytes that a row may take as JSON, beyond which it is omitted; 0 for what a Table can hold
	MaxWAL       int64         // bytes of WAL that a replication slot may retain; 0 for no limit
	PollInterval time.Duration // time between reads of the whole table, for a source that only reads
	Chosen       bool          // the operator chose this source by name, and accepts its side effects
	SystemID     string        // system identifier of the database in the previous attempt; "" if there was none
}

// RowLimit returns the most bytes that a row may take as JSON.
func (e *Env) RowLimit() int64 {
	const longestKey = 1 << 20 // an index holds no more, even of text that it compresses
	return cmp.Or(e.MaxRow, snapshot.MaxRowBytes-longestKey)
}

// SetServer reports which server answers, and warns if it is another database cluster than in the previous attempt.
func (e *Env) SetServer(systemID string, server *postgres.Server) {
	const superuser = "the user is a superuser: functions of the table's owner, such as casts and those of generated columns, run with all rights"
	if server.Superuser && e.Progress.SetCondition("role", superuser) && e.SystemID == "" {
		e.Logger.Warn(superuser, "user", server.User, "hint", "capture setup --role")
	}
	if systemID != "" && e.SystemID != "" && e.SystemID != systemID {
		e.Logger.Warn("connected to another database cluster than before", "previous_system_id", e.SystemID, "system_id", systemID)
	}
	e.Progress.setServer(systemID, server.Version)
}

// WarnInvalidUTF8 reports once that bytes of the table are not valid text.
func (e *Env) WarnInvalidUTF8() {
	const text = "some bytes in the table are not valid UTF-8; feedback.json has U+FFFD in their place"
	if e.Progress.SetCondition("encoding", text) {
		e.Logger.Warn(text, "table", e.Table.String())
	}
}

// Timeouts are the intervals after which a source checks something or gives up. Only tests set them.
type Timeouts struct {
	Idle         time.Duration // time without data from the server after which its connection counts as dead
	Ping         time.Duration // interval at which a server that sends nothing is asked for a reply
	RowCount     time.Duration // interval at which the table's rows are counted
	FrozenClient time.Duration // time after which the server ends the sessions of a copying process that has stopped running
}

// WithDefaults returns t with the usual values in place of zeros.
func (t Timeouts) WithDefaults() Timeouts {
	t.Idle = cmp.Or(t.Idle, postgres.DefaultIdleTimeout)
	t.Ping = cmp.Or(t.Ping, 10*time.Second)
	t.RowCount = cmp.Or(t.RowCount, time.Hour)
	t.FrozenClient = cmp.Or(t.FrozenClient, 2*time.Minute)
	return t
}

// CopyOptions say how a whole table is copied.
type CopyOptions struct {
	Rate int64 // bytes per second that all connections together may read; 0 for no limit

	// WriteAhead, if set, writes rows that a running copy has read so far to the file that will hold them, so that less
	// is left to do at the end of the copy. It reports whether it wants more. A call without parts says that the copy
	// failed.
	WriteAhead func(ctx context.Context, parts []snapshot.Part) (more bool)

	// Tests set the following; zero stands for the usual value.
	Connections     int   // number of connections, in place of what the server, the table and this machine suggest
	RangeBytes      int64 // size of the page ranges that connections read in turn
	WriteAheadBytes int   // size of the rows after which WriteAhead is called
}
