package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/foreign"
	"capture/snapshot"
	"capture/store"
	"capture/store/disk"
	"capture/store/kept"
	"capture/store/manifest"
	"capture/store/remote"
	"capture/store/retention"
)

// uploader keeps copies of the table off the machine. It uploads the newest View soon after a change, and after each regular
// write of feedback.json. It uploads the states that were kept before losses, and marks the states whose losses are
// acknowledged. It also reads states back, and removes the states that the retention policy no longer keeps.
//
// All of this runs on one goroutine, at the lowest priority and for at most a tenth of the time. The uploader takes the rows
// from a View. It never opens feedback.json, because capture cannot patch the file while somebody has it open, and each Write
// would take longer.
type uploader struct {
	location *remote.Location
	copies   *copyFinder
	view     func() *snapshot.View // returns the newest View, or nil if there is none yet

	// newestView waits until everything committed before the call is in a View, and returns that View.
	newestView func(context.Context) (*snapshot.View, error)

	kept     func() []kept.State // returns the kept states of the file
	policy   retention.Policy
	clock    *retention.Clock
	start    time.Time // start of the monotonic time that is passed to clock
	version  string    // version of capture, for manifests
	metrics  *metrics
	log      hclog.Logger
	interval time.Duration // time between two checks whether work is due
	schedule *uploadSchedule

	regular chan struct{} // receives a value after a regular write
	losses  chan struct{} // receives a value after a write that has kept a state, and after a loss is over

	folder     *remote.Folder     // folder for the states of the View's database cluster; nil until the folder has been probed
	systemID   string             // system identifier of the folder's cluster
	table      manifest.TableName // table whose states are uploaded to the folder
	database   string             // database of that table
	refused    string             // reason why the current state must not be uploaded to the folder; "" if it may be uploaded
	limits     remote.Limits
	last       remote.State // state that was uploaded last
	lastView   uint64       // version of the View that was uploaded last; 0 if the next View must be uploaded in any case
	lossesDue  bool         // whether states before losses may have to be uploaded
	lossesAt   time.Time    // time at which lossesDue becomes true again; zero if no time is set
	pruned     time.Time    // time of the last pruning
	failure    string       // error of the last piece of work; "" if the work succeeded
	damage     string       // description of a damaged copy; "" once another copy is proven
	newerThere bool         // whether latest.json names a state that is newer than the state uploaded last

	hadFile  func() bool // reports whether feedback.json existed before this run's first Write
	compared bool        // whether compareNewest has run or is not needed

	uploading  atomic.Pointer[uploadProgress] // running upload; nil if there is none
	report     atomic.Pointer[CopiesStatus]
	openLosses atomic.Pointer[[]kept.State] // see remoteLosses
}

// pruneInterval is the time between two searches for states that the policy no longer keeps.
const pruneInterval = 15 * time.Minute

// uploadCheckInterval is the time between checks whether an upload is due.
const uploadCheckInterval = time.Second

func newUploader(cfg *Config, file *store.File, view func() *snapshot.View, newestView func(context.Context) (*snapshot.View, error), m *metrics) *uploader {
	now := time.Now()
	u := &uploader{
		location: cfg.CopyTo, copies: newCopyFinder(cfg.CopyTo, cfg.Logger), view: view, newestView: newestView, kept: file.Kept().List, policy: cfg.Keep, start: now, version: cfg.Version, metrics: m,
		log: cfg.Logger, interval: cfg.intervals.uploadCheck, schedule: newUploadSchedule(now), lossesDue: true,
		hadFile: func() bool { _, ok := file.Existing(); return ok },
		regular: make(chan struct{}, 1), losses: make(chan struct{}, 1), clock: retention.NewClock(now, time.Time{}, 0),
	}
	u.schedule.delay = cfg.intervals.uploadDelay
	u.updateStatus(now)
	return u
}

// run uploads until ctx ends.
func (u *uploader) run(ctx context.Context) error {
	tick := time.NewTicker(u.interval)
	defer tick.Stop()
	for {
		regular := false
		select {
		case <-ctx.Done():
			return nil
		case <-u.regular:
			regular, u.lossesDue = true, true // another capture process may have uploaded states before losses since the last check
		case <-u.losses:
			u.lossesDue = true
		case <-tick.C:
		}
		if v := u.view(); v != nil && v.Version() != u.lastView {
			u.schedule.addChange(time.Now())
			u.schedule.regular = u.schedule.regular || regular
		}
		u.workIfDue(ctx)
		u.updateStatus(time.Now())
	}
}

// workIfDue does all work that is due, one piece at a time, at the lowest priority.
func (u *uploader) workIfDue(ctx context.Context) {
	for ctx.Err() == nil {
		now := time.Now()
		what, work := u.nextWork(now)
		if work == nil {
			return
		}
		u.updateStatus(now) // so that the status is not old while the work runs, which may take long
		lossesDue, waited := u.lossesDue, u.location.Waited()
		err := disk.WithIdlePriority(func() error { return work(ctx) })
		if ctx.Err() != nil {
			return
		}
		if lossesDue && err != nil {
			u.lossesDue, u.lossesAt = false, now.Add(longestUploadRetry) // until lossesAt, uploadCurrent runs instead of uploadLosses
		}
		end := time.Now()
		// Waiting for an unreachable service does not count as work. Otherwise, the pause after an outage would be nine times
		// as long as the outage.
		u.schedule.addWork(end, max(0, end.Sub(now)-(u.location.Waited()-waited)), err)
		u.recordResult(what, err)
	}
}

// nextWork returns a description of the work that is due, and a function that does this work. The function is nil if nothing is
// due.
func (u *uploader) nextWork(now time.Time) (what string, work func(context.Context) error) {
	s := u.schedule
	if !u.lossesAt.IsZero() && !now.Before(u.lossesAt) {
		u.lossesDue, u.lossesAt = true, time.Time{}
	}
	switch {
	case u.lossesDue && !now.Before(s.retryAt): // the states before losses are uploaded at once, except during the pause after a failure
		return "upload the states before losses", u.uploadLosses
	case s.isUploadDue(now):
		return "upload the current state", u.uploadCurrent
	case s.isProofDue(now) && u.last.URL != "":
		return "read a copy back", u.prove
	case u.folder != nil && u.limits.Deletes && !s.uploaded.IsZero() && now.Sub(u.pruned) >= pruneInterval && !now.Before(s.rested()):
		return "remove copies", u.prune
	}
	return "", nil
}

// recordResult records the result of the work that has just ended. It logs a failure only if it differs from the previous
// failure.
func (u *uploader) recordResult(what string, err error) {
	if err == nil {
		if u.failure != "" {
			u.log.Info("copies off the machine succeed again", "after", u.failure)
		}
		u.failure = ""
		return
	}
	u.metrics.copyErrors.Inc()
	text := what + ": " + err.Error()
	if text != u.failure {
		u.log.Warn("cannot copy off the machine; retrying", "what", what, "error", err)
	}
	u.failure = text
}

// openFolder sets u.folder to the folder of the cluster, and probes what the service supports and permits.
func (u *uploader) openFolder(ctx context.Context, systemID string, table manifest.TableName, database string) error {
	u.refused = ""
	if u.folder != nil && u.systemID == systemID && u.table == table && u.database == database {
		return nil
	}
	f := u.location.Folder(systemID)
	states, err := f.States(ctx)
	if err == nil && len(states) > 0 {
		err = u.checkOwner(ctx, states, table, database)
	}
	if err != nil {
		if errors.As(err, new(*otherTableError)) {
			u.refused = err.Error()
		}
		return err
	}
	limits, err := f.Probe(ctx)
	if err != nil {
		return err
	}
	// If the service has no clock, only the times of the copies can reveal that the clock of this machine is wrong.
	if len(states) > 0 && !u.location.HasClock() {
		last, err := u.lastAccepted(ctx, states)
		if err != nil {
			return err
		}
		u.clock = retention.NewClock(time.Now().Round(0), last, time.Since(u.start))
	}
	u.folder, u.systemID, u.limits, u.schedule.hourly = f, systemID, limits, !limits.Deletes
	u.table, u.database = table, database
	u.lastView, u.last = 0, remote.State{}
	u.log.Info("copying off the machine", "to", u.location.String(), "states", len(states), "checksum", u.location.Checksum(),
		"conditional_writes", limits.Conditional, "may_delete", limits.Deletes, "checksums_compared", limits.Checksums)
	if !limits.Conditional {
		u.log.Warn("the service ignores the conditions of writes, so no other capture may copy to this prefix", "to", u.location.String())
	}
	return nil
}

// otherTableError reports that the copies at a location belong to another table. Another attempt to upload would fail, too.
type otherTableError struct {
	location        string
	table, database string // table whose copies are at the location, and its database
}

func (e *otherTableError) Error() string {
	return fmt.Sprintf("%s has copies of table %s of database %s: each table needs a prefix of its own in --copy-to, also after the table or its database was renamed",
		e.location, e.table, e.database)
}

// checkOwner returns an [*otherTableError] if the states in the folder belong to another table. States before losses do not
// count, because they may have an earlier name of the table. After a change of the prefix, capture copies them to the new
// prefix, too.
func (u *uploader) checkOwner(ctx context.Context, states []remote.State, table manifest.TableName, database string) error {
	states = slices.DeleteFunc(slices.Clone(states), func(s remote.State) bool { return s.Loss })
	_, m, err := u.copies.newest(ctx, []remote.Cluster{{States: states}})
	if remote.IsMissing(err) { // there is no state, or all states are damaged, so nobody knows which table they belong to
		return nil
	}
	if err != nil {
		return err
	}
	if m.Table != table || m.Database != "" && database != "" && m.Database != database {
		return &otherTableError{u.location.String(), foreign.Text(m.Table.Schema) + "." + foreign.Text(m.Table.Name), foreign.Text(m.Database)}
	}
	return nil
}

// lastAccepted returns the latest accepted time of the states. The accepted time of a state is the time that capture
// believed to be correct when it made the state. The time in the state's name comes from the system clock, which may be
// wrong. states must be in order from newest to oldest, and must not be empty.
func (u *uploader) lastAccepted(ctx context.Context, states []remote.State) (last time.Time, err error) {
	for _, s := range states {
		m, err := u.location.Manifest(ctx, s)
		if damaged := (*remote.DamagedError)(nil); errors.As(err, &damaged) || remote.IsMissing(err) {
			continue
		}
		if err != nil {
			return time.Time{}, err
		}
		if !m.AcceptedAt.IsZero() {
			last = slices.MaxFunc([]time.Time{last, m.AcceptedAt}, time.Time.Compare)
			continue
		}
		// AcceptedAt is zero, so the clock was right when this state was made. No older state has a later accepted time.
		return slices.MaxFunc([]time.Time{last, s.Time}, time.Time.Compare), nil
	}
	if last.IsZero() { // all manifests are damaged
		last = states[0].Time
	}
	return last, nil
}

// uploadCurrent uploads the newest View, if there is one.
func (u *uploader) uploadCurrent(ctx context.Context) error {
	v := u.view()
	if v == nil {
		return nil
	}
	now := time.Now()
	shape, origin := v.Shape(), v.Origin()
	if err := u.openFolder(ctx, origin.SystemID, manifest.TableName{Schema: shape.Schema, Name: shape.Table}, origin.Database); err != nil {
		return err
	}
	if !u.compared && !u.hadFile() {
		if err := u.compareNewest(ctx, v); err != nil {
			return err
		}
	}
	u.compared = true
	s := u.schedule
	pending, reason := s.pending, store.ReasonChange
	if s.regular {
		reason = store.ReasonInterval
	}
	s.pending = time.Time{} // changes from here on are part of the next upload
	state, m, err := u.upload(ctx, u.folder, remote.Source{Manifest: manifest.New(v, reason, u.version), Time: now, Data: v}, v.Bytes())
	moved := false
	if err == nil {
		moved, err = u.folder.MoveLatest(ctx, state, m)
	}
	if err != nil {
		s.pending = pending
		return err
	}
	s.regular, s.uploaded = false, time.Now()
	u.last, u.lastView, u.newerThere = state, v.Version(), !moved
	u.metrics.copiesMade.Inc()
	u.metrics.copiedBytes.Add(float64(state.Bytes))
	u.log.Info("copied off the machine", "state", state.URL, "rows", m.Rows, "bytes", m.Bytes, "bytes_sent", state.Bytes, "lsn", m.LSN,
		"ms", millis(s.uploaded.Sub(now)))
	return nil
}

// upload uploads a state to f. The size of the state's JSON is given in bytes. The status shows how much of this size is
// uploaded. If the state's time is later than the accepted time, the manifest gets the accepted time; see lastAccepted.
func (u *uploader) upload(ctx context.Context, f *remote.Folder, src remote.Source, bytes int64) (remote.State, manifest.Manifest, error) {
	p := &uploadProgress{data: src.Data, began: time.Now(), total: bytes}
	u.uploading.Store(p)
	defer u.uploading.Store(nil)
	src.Data = p
	accepted := u.clock.Behind(time.Now().Round(0), time.Since(u.start))
	if src.Manifest.AcceptedAt.IsZero() && accepted.Before(src.Time) {
		src.Manifest.AcceptedAt = accepted // if the clock is right, AcceptedAt stays zero
	}
	return f.Upload(ctx, src)
}

// prove reads the last state back. If the state is damaged, the current state is uploaded again at once.
func (u *uploader) prove(ctx context.Context) error {
	start := time.Now()
	err := u.location.Prove(ctx, u.last)
	if damaged := (*remote.DamagedError)(nil); errors.As(err, &damaged) {
		u.metrics.damage.Inc()
		u.damage = err.Error()
		u.log.Error("copy off the machine is damaged; another one is made", "state", u.last.URL, "reason", damaged.Error())
		bad := u.last
		u.lastView, u.last = 0, remote.State{} // reset these fields before Drop, which may fail
		u.schedule.uploaded, u.schedule.prove = time.Time{}, true
		u.schedule.addChange(start)
		if u.limits.Deletes {
			return u.location.Drop(ctx, bad)
		}
		return nil
	}
	if err != nil {
		return err
	}
	u.schedule.proven, u.schedule.prove, u.damage = time.Now(), false, ""
	u.log.Info("copy off the machine is as it was written", "state", u.last.URL, "ms", millis(time.Since(start)))
	return nil
}

// prune removes the states that the policy no longer keeps.
func (u *uploader) prune(ctx context.Context) error {
	u.pruned = time.Now()
	removed, err := u.folder.Prune(ctx, u.policy, u.clock.Now(time.Now().Round(0), time.Since(u.start)))
	if len(removed) > 0 {
		u.log.Info("copies off the machine removed", "states", len(removed))
	}
	if remote.IsDenied(err) {
		u.limits.Deletes, u.schedule.hourly = false, true
		return nil
	}
	return err
}
