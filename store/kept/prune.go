package kept

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"capture/internal/volume"
	"capture/store/retention"
)

// Prune drops the states that the policy does not cover, and those for which there is not enough space. It returns the dropped
// states.
func (k *States) Prune() (dropped []State, err error) {
	dropped, _, err = k.MakeRoom(0)
	return dropped, err
}

// MakeRoom is like Prune, but drops more states until need bytes are freed. short is the number of bytes that it could not free,
// because the state before the largest unacknowledged loss is never dropped.
func (k *States) MakeRoom(need int64) (dropped []State, short int64, err error) {
	dropped, short, err = k.prune(need)
	if err != nil {
		err = fmt.Errorf("drop kept states: %w", volume.WithHint(err))
	}
	return dropped, short, err
}

func (k *States) prune(need int64) (dropped []State, short int64, err error) {
	states := k.List()
	list := make([]retention.State, len(states))
	budget := retention.Budget{}
	if info, err := os.Lstat(k.dataPath); err == nil {
		budget.File = info.Size()
	}
	for i, s := range states {
		list[i] = retention.State{Time: s.Time, Rows: s.Rows, Bytes: s.DiskBytes, Loss: s.Loss != nil || s.Other, Acknowledged: s.Acknowledged || s.Other}
		if slices.ContainsFunc(states[:i], func(other State) bool { return os.SameFile(other.inode, s.inode) }) {
			list[i].Bytes = 0 // an equal state shares its data with one before it
		}
		if s.Loss != nil && !s.Acknowledged {
			budget.File = max(budget.File, s.Bytes)
		}
	}
	usage, err := volume.Measure(k.names.folder)
	if err != nil {
		return nil, 0, err
	}
	budget.Size, budget.Free = usage.Size, usage.Free
	k.mu.Lock()
	now := k.clock.Now(time.Now().Round(0), time.Since(k.start))
	policy := k.policy
	k.mu.Unlock()
	drop, short := retention.Plan(list, policy, now, max(budget.Excess(list), need))
	for _, i := range drop {
		if derr := k.drop(states[i].id); derr != nil {
			err = errors.Join(err, derr)
			continue
		}
		dropped = append(dropped, states[i])
	}
	return dropped, short, err
}
