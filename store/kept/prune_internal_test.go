package kept

import (
	"testing"
	"time"

	"capture/store/manifest"
	"capture/store/retention"
)

// The state before a loss stays unacknowledged also if the table became another one. So it is not dropped for want of space.
func TestLossOfAnotherTableIsNotAcknowledged(t *testing.T) {
	now := time.Now()
	lost := State{Rows: 200, DiskBytes: 1000, Other: true, Time: now}
	lost.Loss = &manifest.Loss{}
	other := State{Rows: 300, DiskBytes: 1000, Other: true, Time: now}
	list := []retention.State{lost.retention(), other.retention()}
	drop, _ := retention.Plan(list, retention.Policy{}, now, 1<<40)
	if len(drop) != 1 || drop[0] != 1 {
		t.Errorf("dropped %v of %+v", drop, list)
	}
}
