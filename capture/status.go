package capture

import (
	"time"

	"capture/internal/volume"
)

// Status is what a daemon says of itself, at one moment. It is the JSON of /readyz and of `capture status --json`.
type Status struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Host    string    `json:"host"`
	Started time.Time `json:"started"`

	Ready  bool    `json:"ready"` // every check is fine
	State  string  `json:"state"` // connecting, copying, following, waiting (for the next attempt), stopping
	Checks []Check `json:"checks"`

	Table         string `json:"table"`
	Database      string `json:"database"` // host, port and name; never a password
	SystemID      string `json:"system_id,omitempty"`
	ServerVersion string `json:"server_version,omitempty"`
	Source        string `json:"source"`                // the one in use
	SourceNote    string `json:"source_note,omitempty"` // why not a better one

	Rows         int        `json:"rows"`
	Bytes        int64      `json:"bytes"`
	LSN          string     `json:"lsn,omitempty"`
	CommitTime   *time.Time `json:"commit_time,omitempty"`
	LagBytes     int64      `json:"lag_bytes"`              // WAL between the server's end and what has been applied
	LagSeconds   float64    `json:"lag_seconds"`            // 0 when caught up
	LastContact  *time.Time `json:"last_contact,omitempty"` // when the server last said anything
	RetainedWAL  int64      `json:"retained_wal_bytes"`
	Transactions uint64     `json:"transactions"`

	Error       string     `json:"error,omitempty"` // why it is not following
	Attempts    int        `json:"attempts,omitempty"`
	NextAttempt *time.Time `json:"next_attempt,omitempty"`

	Memory  *MemoryStatus  `json:"memory,omitempty"` // where it is limited
	File    FileStatus     `json:"file"`
	Volumes []volume.Usage `json:"volumes,omitempty"`
}

// Check is one condition of readiness.
type Check struct {
	Name   string `json:"name"` // following, file, logs, …
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // for a person: what is, and where not OK what to do
}

// MemoryStatus is where the rows are.
type MemoryStatus struct {
	Limit    int64 `json:"rows_limit_bytes"`    // memory that rows may take
	Resident int64 `json:"rows_resident_bytes"` // memory that they take
	Spilled  int64 `json:"rows_out_bytes"`      // bytes of rows in a file of the process
}

// FileStatus is the state of feedback.json.
type FileStatus struct {
	Path     string     `json:"path"`
	Written  *time.Time `json:"written,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Rows     int        `json:"rows"`
	Bytes    int64      `json:"bytes"`
	SHA256   string     `json:"sha256,omitempty"`
	LSN      string     `json:"lsn,omitempty"`
	UpToDate bool       `json:"current"`           // it holds the newest View
	Millis   float64    `json:"millis,omitempty"`  // duration of the last write
	Error    string     `json:"error,omitempty"`   // why the last write failed
	Pending  *time.Time `json:"pending,omitempty"` // time of the oldest change that it does not hold
}
