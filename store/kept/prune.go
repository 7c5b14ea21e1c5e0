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

// Prune drops the states that the policy does not cover. If space is short, it drops further states. It returns all states
// that it has dropped.
func (k *States) Prune() (dropped []State, err error) {
	dropped, _, err = k.MakeRoom(0)
	return dropped, err
}

// MakeRoom is like Prune, but drops more states until it has freed neededBytes bytes. It never drops the state before the largest
// unacknowledged loss. If such a state exists and MakeRoom frees too little, left points to this state. Otherwise left is nil.
func (k *States) MakeRoom(neededBytes int64) (dropped []State, left *State, err error) {
	dropped, left, err = k.prune(neededBytes)
	if err != nil {
		err = fmt.Errorf("drop kept states: %w", volume.WithHint(err))
	}
	return dropped, left, err
}

// retention returns the properties of s that decide whether s stays. If s has no loss but Other is set, s is kept like a
// state before an acknowledged loss.
func (s *State) retention() retention.State {
	return retention.State{
		Time: s.Time, Rows: s.Rows, Bytes: s.DiskBytes,
		Loss: s.Loss != nil || s.Other, Acknowledged: s.Acknowledged || s.Loss == nil,
		Values: s.Loss != nil && (s.Loss.RuinsValues() || s.Loss.IsUnknown()),
	}
}

func (k *States) prune(need int64) (dropped []State, left *State, err error) {
	states := k.List()
	list, budget := make([]retention.State, len(states)), retention.Budget{}
	if info, err := os.Lstat(k.dataPath); err == nil {
		budget.File = info.Size()
	}
	for i, s := range states {
		list[i] = s.retention()
		if slices.ContainsFunc(states[:i], func(other State) bool { return os.SameFile(other.inode, s.inode) }) {
			list[i].Bytes = 0 // a state earlier in the list is a hard link to the same data
		}
		if s.HasOpenLoss() {
			budget.File = max(budget.File, s.Bytes)
		}
	}
	usage, err := volume.Measure(k.names.folder)
	if err != nil {
		return nil, nil, err
	}
	budget.Size, budget.Free = usage.Size, usage.Free
	k.mu.Lock()
	now := k.clock.Now(time.Now().Round(0), time.Since(k.start))
	policy := k.policy
	k.mu.Unlock()
	drop, _ := retention.Plan(list, policy, now, max(budget.Excess(list), need))
	for _, i := range drop {
		need -= list[i].Bytes
		if derr := k.drop(states[i].id); derr != nil {
			err = errors.Join(err, derr)
			continue
		}
		dropped = append(dropped, states[i])
	}
	for i := range states {
		// If the dropped states do not free enough bytes, Plan has left only the state before the largest loss, or no state.
		if need > 0 && !slices.Contains(drop, i) {
			left = &states[i]
		}
	}
	return dropped, left, err
}
