package capture

import (
	"cmp"
	"os"
	"time"

	"capture/internal/postgres"
	"capture/internal/volume"
	"capture/snapshot"
)

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
	copies     func() *CopiesStatus // returns the status of the copies off the machine; the function is nil without --copy-to
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

// report returns the Status, and the followReport from which it was made.
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
