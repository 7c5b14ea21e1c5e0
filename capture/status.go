package capture

import (
	"fmt"
	"time"

	"capture/capture/source"
	"capture/internal/volume"
)

// Status is the state of a daemon at one moment. It is the JSON of /readyz and of `capture status --json`.
type Status struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Host    string    `json:"host"`
	Started time.Time `json:"started"`

	Ready  bool    `json:"ready"` // whether the checks "following" and "file" are OK and no row is omitted
	State  string  `json:"state"` // connecting, copying, following, or waiting (for the next attempt)
	Checks []Check `json:"checks"`

	Table         string `json:"table"`
	Database      string `json:"database"` // host, port and name, without the password
	SystemID      string `json:"system_id,omitempty"`
	ServerVersion string `json:"server_version,omitempty"`
	Source        string `json:"source"`                // source that is in use, or that was used last
	SourceNote    string `json:"source_note,omitempty"` // reason why no better source is in use

	Rows         int        `json:"rows"`
	Omitted      int        `json:"omitted_rows,omitempty"` // number of rows that are omitted because each exceeds the size limit of a row
	Bytes        int64      `json:"bytes"`
	LSN          string     `json:"lsn,omitempty"`
	CommitTime   *time.Time `json:"commit_time,omitempty"`
	LagBytes     int64      `json:"lag_bytes"`              // bytes of WAL between the applied position and the server's position
	LagSeconds   float64    `json:"lag_seconds"`            // source logical: age of the last commit when it was applied; notify: age of the oldest change that no View holds; 0 for poll, or if nothing is pending
	LastContact  *time.Time `json:"last_contact,omitempty"` // time of the last data from the server
	RetainedWAL  int64      `json:"retained_wal_bytes"`
	Transactions uint64     `json:"transactions"`

	Error       string     `json:"error,omitempty"` // reason why the last attempt to follow ended
	Attempts    int        `json:"attempts,omitempty"`
	NextAttempt *time.Time `json:"next_attempt,omitempty"`

	LastRead *ReadStatus    `json:"last_read,omitempty"` // absent before the first copy or resync
	Reading  *ReadingStatus `json:"reading,omitempty"`   // copy or resync that is running before the table is followed

	Memory  *MemoryStatus  `json:"memory,omitempty"` // absent without a memory limit, unless old rows are in the spill file
	File    FileStatus     `json:"file"`
	Kept    KeptStatus     `json:"kept"`
	Copies  *CopiesStatus  `json:"copies,omitempty"` // absent without --copy-to
	Volumes []volume.Usage `json:"volumes,omitempty"`

	followingSince time.Time // start of the state "following"; zero in any other state
}

// ReadStatus describes the last read of the table: a copy of the whole table, or a resync that transferred only what had
// changed.
type ReadStatus struct {
	Ended   time.Time `json:"ended"`
	Whole   bool      `json:"whole"`            // whether the whole table was copied
	Reason  string    `json:"reason,omitempty"` // reason for a copy of the whole table
	Rows    int64     `json:"rows"`             // number of rows that were transferred
	Deleted int64     `json:"deleted"`          // number of rows that a resync deleted
	Bytes   int64     `json:"bytes"`            // bytes received from the server
	MS      float64   `json:"ms"`
}

// ReadingStatus describes the progress of a running read of the table.
type ReadingStatus struct {
	Began     time.Time `json:"began"`
	Rows      int64     `json:"rows"`                 // number of rows received so far
	TotalRows int64     `json:"total_rows,omitempty"` // number of rows in the server's statistics; absent if unknown
	Bytes     int64     `json:"bytes"`                // bytes received from the server so far
}

// newReadingStatus returns the ReadingStatus of r, or nil if no read is running.
func newReadingStatus(r source.RunningRead) *ReadingStatus {
	if r.Began.IsZero() {
		return nil
	}
	return &ReadingStatus{Began: r.Began.UTC(), Rows: r.Rows, TotalRows: r.TotalRows, Bytes: r.Bytes}
}

// text returns the progress for the operator: "120000 of about 1000000 rows, 40000 rows/s, 22s left".
func (r *ReadingStatus) text(now time.Time) string {
	took := now.Sub(r.Began)
	text := fmt.Sprintf("%d rows", r.Rows)
	if r.TotalRows > 0 {
		text = fmt.Sprintf("%d of about %d rows", r.Rows, r.TotalRows)
	}
	if took < time.Second || r.Rows == 0 {
		return text
	}
	text += fmt.Sprintf(", %d rows/s", int64(float64(r.Rows)/took.Seconds()))
	if left := r.TotalRows - r.Rows; left > 0 {
		text += ", " + time.Duration(float64(took)/float64(r.Rows)*float64(left)).Round(time.Second).String() + " left"
	}
	return text
}

// newReadStatus returns the ReadStatus of r, or nil if there was no read.
func newReadStatus(r source.TableRead) *ReadStatus {
	if r.Ended.IsZero() {
		return nil
	}
	return &ReadStatus{
		Ended: r.Ended.UTC(), Whole: r.WholeBecause != "", Reason: r.WholeBecause, Rows: r.Changed, Deleted: r.Deleted,
		Bytes: r.Bytes, MS: millis(r.Took),
	}
}

// MemoryStatus shows how the rows are divided between memory and the spill file.
type MemoryStatus struct {
	Limit    int64 `json:"rows_limit_bytes"`    // limit of the memory for rows; 0 if there is none
	Resident int64 `json:"rows_resident_bytes"` // memory that rows use
	Spilled  int64 `json:"rows_out_bytes"`      // size of the rows in the spill file
}
