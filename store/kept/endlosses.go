package kept

import (
	"slices"
	"time"

	"capture/snapshot"
	"capture/store/loss"
	"capture/store/manifest"
)

// EndLosses ends each loss whose rows are back in the newest View, and returns the states that were kept before these
// losses. newest returns the newest View of the table, or nil if there is none yet.
func (k *States) EndLosses(newest func() *snapshot.View) (ended []State, err error) {
	k.losses.Lock()
	defer k.losses.Unlock()
	v := newest() // under the lock, so that v is not older than the View of any loss that Keep has recorded
	if v == nil {
		return nil, nil
	}
	for _, s := range k.List() {
		if !s.HasOpenLoss() {
			continue
		}
		isBack, err := loss.IsBack(s.Loss, v)
		if err == nil && isBack {
			err = s.endLoss(rowsBackMark)
		}
		if err != nil {
			return ended, err
		}
		if isBack {
			ended = append(ended, s)
		}
	}
	return ended, nil
}

// RepairedBy returns the time of the kept state whose loss l repairs, or zero if l is no repair. v shows the table after l.
// RepairedBy considers only the earliest open loss of values. Until this loss is repaired, the alert must not suggest to
// acknowledge losses.
func (k *States) RepairedBy(l *manifest.Loss, v *snapshot.View) time.Time {
	for _, s := range slices.Backward(k.List()) {
		if !s.HasOpenLoss() || !s.Loss.RuinsValues() {
			continue
		}
		if isRepair, err := loss.IsRepair(s.Loss, l, v); err == nil && isRepair {
			return s.Time
		}
		break
	}
	return time.Time{}
}
