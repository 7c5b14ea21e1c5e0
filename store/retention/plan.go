package retention

import (
	"cmp"
	"slices"
	"time"
)

// State has the properties of a kept state that [Plan] uses.
type State struct {
	Time         time.Time // time at which the state was written
	Rows         int       // number of rows
	Bytes        int64     // length on disk in bytes
	Loss         bool      // whether the state precedes a loss, or was replaced by a state of another table
	Acknowledged bool      // whether the loss is acknowledged or has ended, or there was none
	Values       bool      // whether the loss may have ruined values of rows that remain
}

// class is the reason to keep a state. When space is short, states of a lower class are dropped first.
type class int

const (
	expired class = iota
	hourly
	daily
	weekly
	acknowledgedLoss
	unacknowledgedLoss
	largestLoss // the state before the largest unacknowledged loss: the one with the most rows, or the earliest of several with as many rows
)

// Plan returns the indexes of the states to drop. It drops all states that are covered neither by the policy nor by a loss.
// If this frees fewer than excess bytes, Plan drops further states. It never drops the state before the largest
// unacknowledged loss. Plan also returns the number of bytes that are then still missing (short), or 0 if excess bytes are
// freed.
func Plan(states []State, policy Policy, now time.Time, excess int64) (drop []int, short int64) {
	classes := classify(states, policy, now)
	order := make([]int, len(states))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(classes[a], classes[b]), states[a].Time.Compare(states[b].Time))
	})
	for _, i := range order {
		if classes[i] == largestLoss || classes[i] > expired && excess <= 0 {
			break
		}
		drop = append(drop, i)
		excess -= states[i].Bytes
	}
	return drop, max(excess, 0)
}

// classify returns the class of each state.
func classify(states []State, policy Policy, now time.Time) []class {
	classes := make([]class, len(states))
	keep := func(i int, c class) { classes[i] = max(classes[i], c) }
	// After a clock was set back, some states are in the future. They count in separate hours, days and weeks. Otherwise, as
	// the newest states, they would take the place of the states that are written now.
	newest := now
	for _, s := range states {
		if s.Time.After(newest) {
			newest = s.Time
		}
	}
	isFuture := func(s State) bool { return s.Time.After(now.Add(time.Hour)) }
	for _, period := range []struct {
		count int
		class class
		index func(time.Time) int64
	}{{policy.Hours, hourly, hourOf}, {policy.Days, daily, dayOf}, {policy.Weeks, weekly, weekOf}} {
		type bucket struct {
			future bool
			index  int64
		}
		best := map[bucket]int{}
		for i, s := range states {
			b, last := bucket{isFuture(s), period.index(s.Time)}, period.index(now)
			if b.future {
				last = period.index(newest)
			}
			if b.index <= last-int64(period.count) {
				continue
			}
			if j, ok := best[b]; !ok || s.Time.After(states[j].Time) {
				best[b] = i
			}
		}
		for _, i := range best {
			keep(i, period.class)
		}
	}
	classifyLosses(states, now, keep)
	return classes
}

// lossDays is the number of days for which states before losses are kept. For each day, the state with the most rows is kept.
// If several states have the most rows, a state whose loss is unacknowledged is preferred. If there is still a choice, the
// earliest state is kept.
//
// A state with more rows may have ruined values. So among the states before unacknowledged losses of values, the earliest and
// the latest of each day are kept, too. The earliest precedes all of these losses. The latest has the newest good values if the
// losses before it were intended.
const lossDays = 30

// classifyLosses calls keep for each state that stays because it precedes a loss.
func classifyLosses(states []State, now time.Time, keep func(int, class)) {
	largest, largestOfDay, earliestOfDay, latestOfDay := -1, map[int64]int{}, map[int64]int{}, map[int64]int{}
	// outranks reports whether state i is kept rather than state j. A state with more rows outranks one with fewer rows. Of two
	// states with the same number of rows, a state whose loss is unacknowledged outranks one whose loss is acknowledged.
	// Otherwise the earlier state outranks the later state. For example, an UPDATE ruins values, and a TRUNCATE follows. The
	// states before both statements have the same number of rows, but only the earlier state has the good values.
	outranks := func(i, j int) bool {
		a, b := states[i], states[j]
		switch {
		case a.Rows != b.Rows:
			return a.Rows > b.Rows
		case a.Acknowledged != b.Acknowledged:
			return b.Acknowledged
		}
		return a.Time.Before(b.Time)
	}
	for i, s := range states {
		if !s.Loss {
			continue
		}
		if !s.Acknowledged && (largest < 0 || outranks(i, largest)) {
			largest = i
		}
		day := dayOf(s.Time)
		if j, ok := largestOfDay[day]; !ok || outranks(i, j) {
			largestOfDay[day] = i
		}
		if s.Values && !s.Acknowledged {
			if j, ok := earliestOfDay[day]; !ok || s.Time.Before(states[j].Time) {
				earliestOfDay[day] = i
			}
			if j, ok := latestOfDay[day]; !ok || s.Time.After(states[j].Time) {
				latestOfDay[day] = i
			}
		}
	}
	for _, ofDay := range []map[int64]int{largestOfDay, earliestOfDay, latestOfDay} {
		for day, i := range ofDay {
			switch {
			case day <= dayOf(now)-lossDays:
			case states[i].Acknowledged:
				keep(i, acknowledgedLoss)
			default:
				keep(i, unacknowledgedLoss)
			}
		}
	}
	if largest >= 0 {
		keep(largest, largestLoss)
	}
}

func hourOf(t time.Time) int64 { return floorDiv(t.Unix(), 3600) }
func dayOf(t time.Time) int64  { return floorDiv(t.Unix(), 86400) }
func weekOf(t time.Time) int64 { return floorDiv(dayOf(t)+3, 7) } // 1 January 1970 was a Thursday

func floorDiv(a, b int64) int64 {
	if a < 0 {
		return -((-a + b - 1) / b)
	}
	return a / b
}

// Budget has the sizes that limit the space for kept states.
type Budget struct {
	File int64 // bytes of feedback.json or of the largest state before an unacknowledged loss, whichever is larger
	Size int64 // size of the volume in bytes
	Free int64 // free space of the volume in bytes
}

// leastBudget is the number of bytes that kept states may use even if feedback.json is small, provided that the volume has the
// space.
const leastBudget = 64 << 20

// Excess returns the number of bytes that must be freed. Kept states may use at most ten times the length of the file. They
// must leave free a fifth of the volume or twice the length of the file, whichever is more.
func (b Budget) Excess(states []State) int64 {
	total := int64(0)
	for _, s := range states {
		total += s.Bytes
	}
	return max(total-max(10*b.File, leastBudget), max(b.Size/5, 2*b.File)-b.Free, 0)
}
