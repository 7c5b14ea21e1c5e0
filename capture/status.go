package capture

import (
	"cmp"
	"fmt"
	"os"
	"time"

	"capture/capture/source"
	"capture/internal/postgres"
	"capture/internal/volume"
	"capture/snapshot"
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
	LagSeconds   float64    `json:"lag_seconds"`            // with logical, age of the last commit when it was applied; with notify, age of the oldest change that no View holds; 0 with poll, or when caught up
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

// statusReporter builds the Status from the reports of the daemon's parts.
type statusReporter struct {
	base       Status        // fields that stay the same while the daemon runs
	idle       time.Duration // the server counts as dead if it has sent no data for this time
	logHealth  func() error
	table      *snapshot.Table
	shown      func() *snapshot.View // returns the View that readers get
	following  func() followReport
	file       *fileTracker
	volumes    func() []volume.Usage
	kept       func() KeptStatus
	copies     func() *CopiesStatus // nil without copies off the machine
	conditions *conditions
}

// newBaseStatus returns a Status with the fields that stay the same while the daemon runs.
func newBaseStatus(cfg *Config) Status {
	host, _ := os.Hostname()
	db := cfg.Database
	return Status{
		Version: cfg.Version, PID: os.Getpid(), Host: host, Started: time.Now().UTC(), Table: cfg.Table.String(),
		Database: postgres.Address(&db.Config),
	}
}

// report returns the Status, and the followReport that it was made from.
func (r *statusReporter) report() (Status, followReport) {
	view, shown, usage := r.table.View(), r.shown(), r.table.Usage()
	following, file := r.following(), r.file.loadReport()
	st := r.base
	st.addFollowing(&following)
	if shown != nil {
		st.Rows, st.Bytes = shown.Rows(), shown.Bytes()
	}
	if view != nil {
		if at := view.Position(); at.LSN > 0 {
			st.LSN = at.LSN.String()
			st.CommitTime = timeOrNil(at.CommitTime)
		}
	}
	switch {
	case usage.Limit > 0:
		st.Memory = &MemoryStatus{Limit: usage.Limit, Resident: usage.Resident, Spilled: usage.Spilled}
	case usage.Spilled > 0: // all current rows are in memory; the spill file has older versions
		st.Memory = &MemoryStatus{Resident: st.Bytes, Spilled: usage.Spilled}
	}
	st.Volumes, st.Kept = r.volumes(), r.kept()
	st.File = file.FileStatus
	if st.File.UpToDate = view != nil && file.version == view.Version(); st.File.UpToDate {
		st.File.Pending = nil
	}
	st.Checks = []Check{checkFollowing(&st, &following, r.idle), file.check(&st.File), checkLogs(r.logHealth)}
	if r.copies != nil {
		st.Copies = r.copies()
		st.Checks = append(st.Checks, st.Copies.check(time.Now()))
	}
	st.Checks = append(st.Checks, conditionChecks(following.Conditions, r.conditions.clone())...)
	st.Ready = st.Checks[0].OK && st.Checks[1].OK
	if omitted := omittedRows(view); omitted != "" {
		st.Ready, st.Omitted = false, view.OmittedRows()
		st.Checks = append(st.Checks, Check{Name: omittedCheck, Detail: omitted + "; give capture more memory (--memory, or the container's limit)"})
	}
	return st, following
}

// addFollowing sets the fields that the supervisor and its source report.
func (st *Status) addFollowing(r *followReport) {
	st.State, st.Source, st.SourceNote = r.state, r.Source, r.note
	st.SystemID, st.ServerVersion = r.SystemID, r.ServerVersion
	st.Database = cmp.Or(r.ServerAddress, st.Database)
	st.LastContact = timeOrNil(r.LastContact)
	st.LagBytes, st.LagSeconds, st.RetainedWAL = r.LagBytes, r.LagSeconds, r.RetainedWAL
	st.Transactions, st.LastRead = r.Counters.Transactions, newReadStatus(r.LastRead)
	switch r.state {
	case stateCopying:
		st.Reading = newReadingStatus(r.Reading)
	case stateFollowing:
		st.followingSince = r.FollowingSince
	}
	st.Error, st.Attempts, st.NextAttempt = r.err, r.failed, timeOrNil(r.nextAttempt)
}

// timeOrNil returns t in UTC, or nil if t is zero.
func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// millis returns d in milliseconds, as log lines and Status show durations.
func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
