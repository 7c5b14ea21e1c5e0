package kept

import (
	"testing"
	"time"

	"capture/store/manifest"
	"capture/store/retention"
)

// TestTimeOfNext checks that each kept state has a later time in its name than the states that were kept before it. This must
// be true even if capture kept those states so quickly that their names are ahead of the clock, and even if it has dropped some
// of them.
func TestTimeOfNext(t *testing.T) {
	second := time.Date(2026, 11, 23, 16, 0, 0, 0, time.UTC)
	written := second.Add(700 * time.Millisecond)
	var states []State // like the result of List, but with the newest state only, as if Prune had dropped the others
	for want := range 5 {
		next := timeOfNext(states, written).Truncate(time.Second)
		if next != second.Add(time.Duration(want)*time.Second) {
			t.Errorf("state %d has the time %v", want, next)
		}
		states = []State{{Time: next}}
	}
	states = []State{{Time: second.Add(2 * time.Hour)}} // kept before the clock was set back
	if next := timeOfNext(states, written); next != written {
		t.Errorf("beside a state of the future: %v", next)
	}
}

// TestLossOfAnotherTableIsNotAcknowledged checks two states that were kept because a state of another table replaced them.
// The state without a loss counts like a state before an acknowledged loss, so it is dropped when space is short. The state
// with a loss must stay, because its loss is not acknowledged. Its manifest says nothing else about the loss, so the loss
// also counts as a loss of values.
func TestLossOfAnotherTableIsNotAcknowledged(t *testing.T) {
	now := time.Now()
	lost := State{Rows: 200, DiskBytes: 1000, Other: true, Time: now}
	lost.Loss = &manifest.Loss{}
	other := State{Rows: 300, DiskBytes: 1000, Other: true, Time: now}
	list := []retention.State{lost.retention(), other.retention()}
	drop, _ := retention.Plan(list, retention.Policy{}, now, 1<<40)
	if len(drop) != 1 || drop[0] != 1 || !list[0].Values || list[1].Values {
		t.Errorf("dropped %v of %+v", drop, list)
	}
}
