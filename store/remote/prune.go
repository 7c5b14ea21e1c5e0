package remote

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"capture/store/retention"
)

const (
	// Prune does not remove states younger than pruneGrace, by the service's clock. Another capture may be about to name such a
	// state in latest.json, or somebody may be reading it.
	pruneGrace = 15 * time.Minute
	// Parts of an upload, and data without a manifest, count as left by a crash once they are older than abandonedAfter.
	abandonedAfter = 24 * time.Hour
)

// Prune removes the states that the policy does not cover, by the same rules as for the states beside feedback.json. It also
// removes what crashes have left. It never removes the state that latest.json names, or a state that may be the newest. The
// current time (now) must come from a [retention.Clock]. Prune returns the removed states.
func (f *Folder) Prune(ctx context.Context, policy retention.Policy, now time.Time) (removed []State, err error) {
	objects, _, err := f.list(ctx, f.name)
	if err != nil {
		return nil, fmt.Errorf("prune %s: %w", f.Location, err)
	}
	states := f.newCluster(f.cluster, f.name, objects).States
	current, _, err := f.readLatest(ctx)
	if err != nil && !errors.Is(err, errMissing) {
		return nil, fmt.Errorf("prune %s: %w", f.Location, err)
	}
	if len(states) == 0 {
		return nil, f.removeLeftovers(ctx, objects, states)
	}
	newest, highest := candidates(states)
	uploaded := map[string]time.Time{} // times by the service's clock, because the clock of the capture that uploaded a state may be wrong
	for _, o := range objects {
		uploaded[o.name] = o.modified
	}
	serviceNow := f.transport.serviceNow()
	now = now.Add(f.transport.clockError()) // if this machine's clock is wrong, use the service's clock, so that the states of other captures do not expire
	list := make([]retention.State, len(states))
	for i, s := range states {
		list[i] = retention.State{Time: s.Time, Rows: s.Rows, Bytes: s.Bytes, Loss: s.Loss, Acknowledged: s.Acknowledged, Values: f.ruinsValues(ctx, s)}
	}
	drop, _ := retention.Plan(list, policy, now, 0)
	for _, i := range drop {
		s := states[i]
		if serviceNow.Sub(uploaded[s.manifest()]) < pruneGrace || path.Base(s.data()) == current.State || s == newest || s == highest {
			continue
		}
		if err := f.Drop(ctx, s); err != nil {
			return removed, err
		}
		removed = append(removed, s)
	}
	return removed, f.removeLeftovers(ctx, objects, states)
}

// ruinsValues reports whether an unacknowledged loss after s may have ruined values. Only the state's manifest shows this. If
// the manifest is missing or damaged, ruinsValues reports false. If the manifest cannot be read at the moment, it reports true,
// so that the state stays.
func (f *Folder) ruinsValues(ctx context.Context, s State) bool {
	if !s.Loss || s.Acknowledged {
		return false
	}
	m, err := f.Manifest(ctx, s)
	if err != nil {
		return !errors.Is(err, errMissing) && !errors.As(err, new(*DamagedError))
	}
	return m.Kept != nil && m.Kept.Loss != nil && m.Kept.Loss.RuinsValues()
}

// removeLeftovers removes what crashes have left: data without a manifest, and unfinished uploads. Their age is measured by the
// service's clock.
func (f *Folder) removeLeftovers(ctx context.Context, objects []object, states []State) error {
	before := f.transport.serviceNow().Add(-abandonedAfter)
	exists := map[string]bool{}
	for _, s := range states {
		exists[s.stem()] = true
	}
	for _, o := range objects {
		if s, _, ok := parseName(f.name, o.name); ok && !exists[s.stem()] && o.modified.Before(before) {
			if err := f.remove(ctx, o.name); err != nil {
				return fmt.Errorf("remove what an upload has left: %w", err)
			}
		}
	}
	err := f.retry(ctx, func() error { return f.service.removeAbandoned(ctx, f.name, before) })
	if err != nil && !errors.Is(err, errDenied) && !errors.Is(err, errMissing) {
		return fmt.Errorf("remove what an upload has left: %w", err)
	}
	return nil
}
