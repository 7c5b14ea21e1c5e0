package kept

import (
	"time"

	"capture/snapshot"
	"capture/store/loss"
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

// Returned returns the time of the newest state whose lost values are back in v, or zero if there is none. A state that
// cannot be compared does not count.
func (k *States) Returned(v *snapshot.View) time.Time {
	for _, s := range k.List() {
		if s.Loss == nil {
			continue
		}
		if isBack, err := loss.AreValuesBack(s.Loss, v); err == nil && isBack {
			return s.Time
		}
	}
	return time.Time{}
}
