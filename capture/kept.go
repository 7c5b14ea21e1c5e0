package capture

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/foreign"
	"capture/snapshot"
	"capture/store"
	"capture/store/disk"
	"capture/store/kept"
)

// lossCondition is the name of the condition and the alert for open losses of rows. A loss is open until somebody acknowledges
// it or its rows are back.
const lossCondition = "loss"

// keptCheckInterval is the time between checks whether losses are still open, and whether the file is in place.
const keptCheckInterval = 5 * time.Second

// KeptStatus describes the kept states of the file.
type KeptStatus struct {
	States int        `json:"states"`
	Bytes  int64      `json:"bytes"` // size on disk
	Oldest *time.Time `json:"oldest,omitempty"`
	Losses int        `json:"losses"` // number of open losses
}

// keeper maintains the kept states of the file. It adds a state after each regular write, compresses new states,
// and drops the states that the retention policy does not cover. It also reads the file back to detect damage. It runs
// concurrently with the writes, because its work is slow.
type keeper struct {
	file       *store.File
	view       func() *snapshot.View
	remote     func() []kept.State // returns the states before those open losses that are recorded only in copies off the machine; nil without copies
	copyTo     string              // location of the copies as a word of a shell command; "" without copies
	lossOver   func()              // is called after a loss has ended or been acknowledged; nil without copies
	conditions *conditions
	metrics    *metrics
	log        hclog.Logger
	interval   time.Duration // time between checks whether losses are still open, and whether the file is in place
	readEvery  time.Duration // time between comparisons of the file on disk with its manifest; zero turns them off

	regular chan struct{} // receives a value after a regular write
	kept    chan struct{} // receives a value after a write that has kept a state
	damaged chan struct{} // receives a value when the file must be written because it is damaged or not in place
	summary atomic.Pointer[KeptStatus]
	over    atomic.Pointer[[]string] // paths of the states whose losses were over at the last check
}

func newKeeper(cfg *Config, file *store.File, view func() *snapshot.View, conditions *conditions, m *metrics) *keeper {
	file.Kept().SetPolicy(cfg.Keep)
	k := &keeper{
		file: file, view: view, conditions: conditions, metrics: m, log: cfg.Logger, interval: cfg.intervals.keptCheck,
		regular: make(chan struct{}, 1), kept: make(chan struct{}, 1), damaged: make(chan struct{}, 1),
		readEvery: cfg.VerifyInterval,
	}
	if cfg.CopyTo != nil {
		k.copyTo = foreign.ShellWord(cfg.CopyTo.String())
	}
	k.checkLosses() // the first Status must include the losses
	return k
}

// run keeps states until ctx ends. After a failure, it tries again at the next regular write.
func (k *keeper) run(ctx context.Context) error {
	wake(k.kept) // compresses the states that an earlier run left uncompressed
	tick := time.NewTicker(k.interval)
	defer tick.Stop()
	readBack := time.NewTimer(k.readEvery)
	defer readBack.Stop()
	if k.readEvery <= 0 {
		readBack.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.regular:
			k.work(ctx, k.file.KeepCurrent)
		case <-k.kept:
			k.work(ctx, nil)
		case <-readBack.C:
			k.readBack(ctx)
			readBack.Reset(k.readEvery)
		case <-tick.C:
		}
		k.checkLosses()
	}
}

// watchFile runs until ctx ends. Whenever readers no longer find the file in place, it makes the flusher write the file. If the
// file cannot be written, the flusher reports why. Without watchFile, nobody would notice a missing file before the next write.
func (k *keeper) watchFile(ctx context.Context) error {
	tick := time.NewTicker(k.interval)
	defer tick.Stop()
	logged := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		reason := k.file.CheckInPlace()
		if reason != "" && reason != logged {
			k.log.Warn("feedback.json is not in place; another write is due", "reason", reason)
		}
		if logged = reason; reason != "" {
			wake(k.damaged)
		}
	}
}

// wake sends a value to c, which has capacity one, unless c is already full.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// work calls the function keep, if it is not nil, to keep the current state. Then it compresses and drops states, and reads the
// file back. If a step fails, the next steps still run, because they may free space.
func (k *keeper) work(ctx context.Context, keep func() error) {
	var err error
	if keep != nil {
		err = keep()
	}
	if cerr := k.compress(ctx); err == nil {
		err = cerr
	}
	dropped, perr := k.file.Kept().Prune()
	if err == nil {
		err = perr
	}
	for _, s := range dropped {
		k.log.Debug("kept state dropped", "file", s.Path)
	}
	k.readBack(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		k.log.Error("cannot keep a state", "error", err)
		k.conditions.set("kept states", err.Error())
	default:
		k.conditions.set("kept states", "")
	}
}

// readBack compares the file on disk with its manifest. If they differ, it makes the flusher write the whole file.
func (k *keeper) readBack(ctx context.Context) {
	damage, err := k.file.ReadBack(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		k.log.Error("cannot read the file back", "error", err)
	case damage != "":
		k.recordDamage(damage)
		wake(k.damaged)
	}
}

// recordDamage counts and logs that the file on disk differs from what was written.
func (k *keeper) recordDamage(damage string) {
	k.metrics.damage.Inc()
	k.log.Error("feedback.json is damaged; it is written whole", "reason", damage)
}

// compress compresses the kept states that are not compressed yet.
func (k *keeper) compress(ctx context.Context) error {
	start := time.Now()
	compressed, err := k.file.Kept().Compress(ctx)
	for _, s := range compressed {
		if s.Damaged != "" {
			k.metrics.damage.Inc()
			k.log.Error("kept state is damaged", "file", s.Path, "reason", s.Damaged)
			continue
		}
		k.log.Info("state kept", "file", s.Path, "rows", s.Rows, "bytes", s.DiskBytes, "ms", millis(time.Since(start)))
	}
	return err
}

// recordKept logs that a write has kept the state that it replaced. The log line contains the state's present path, and the
// path that the state gets when it is compressed. If the volume has room, the state is compressed within moments.
func (k *keeper) recordKept(s *kept.State) {
	path, compressed := s.Path, s.CompressedPath()
	if !disk.Exists(path) { // the state is compressed already
		path = compressed
	}
	switch {
	case s.Loss != nil:
		k.metrics.losses.Inc()
		k.log.Warn("the table lost rows or values; the state before is kept", "file", path, "file_once_compressed", compressed, "rows_before", s.Loss.RowsBefore,
			"rows_after", s.Loss.RowsAfter, "rows_lost", s.Loss.RowsLost, "rows_changed", s.Loss.RowsChanged, "rows_not_compared", s.Loss.RowsNotCompared, "column", s.Loss.Column,
			"columns_dropped", strings.Join(s.Loss.Dropped, ","), "highest_of_the_hour", s.Loss.HourHighest)
	case s.Other:
		k.log.Info("the file was of another table, database or program; that state is kept", "file", path, "file_once_compressed", compressed, "rows", s.Rows)
	default:
		k.log.Info("the earlier run's state is kept", "file", path, "file_once_compressed", compressed, "rows", s.Rows)
	}
	k.checkLosses()
	wake(k.kept)
}

// checkLosses ends the losses whose rows are back, and reports the losses that are still open.
func (k *keeper) checkLosses() {
	ended, err := k.file.Kept().EndLosses(k.view)
	for _, s := range ended {
		k.log.Info("the lost rows are back", "file", s.Path, "rows_lost", s.Loss.RowsLost)
	}
	if err != nil {
		k.log.Warn("cannot check whether lost rows are back", "error", err)
	}
	states := k.file.Kept().List()
	summary := &KeptStatus{States: len(states)}
	over := []string{}
	for _, s := range states {
		summary.Bytes += s.DiskBytes
		summary.Oldest = timeOrNil(s.Time)
		if s.Loss != nil && s.Acknowledged {
			over = append(over, s.CompressedPath())
		}
	}
	was := k.over.Swap(&over)
	isNew := func(path string) bool { return !slices.Contains(*was, path) }
	if was != nil && k.lossOver != nil && slices.ContainsFunc(over, isNew) {
		k.lossOver()
	}
	if k.remote != nil {
		states = append(states, k.remote()...)
	}
	losses := kept.OpenLossesOf(states)
	texts, others := losses.Texts(func(s kept.State) string {
		if s.Remote { // without the location, the command finds only the states on this machine
			return "capture history --ack --copy-to " + k.copyTo
		}
		return "capture history --ack"
	})
	summary.Losses = len(texts) + others
	k.summary.Store(summary)
	if others > 0 {
		texts = append(texts, fmt.Sprintf("losses not shown: %d. To list them: capture history", others))
	}
	k.conditions.set(lossCondition, strings.Join(texts, "; "))
}

// status returns the status of the kept states.
func (k *keeper) status() KeptStatus { return *k.summary.Load() }
