package kept

import (
	"os"
	"slices"
	"time"

	"capture/snapshot"
	"capture/store/loss"
	"capture/store/manifest"
)

// EndLosses ends each loss whose rows are back in the newest View, and returns the states that were kept before these losses.
// newestView returns the latest View of the table, or nil if there is none yet.
func (k *States) EndLosses(newestView func() *snapshot.View) (ended []State, err error) {
	k.losses.Lock()
	defer k.losses.Unlock()
	v := newestView() // called under the lock, so v is at least as new as each View for which Keep has recorded a loss
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

// RepairedBy finds the earlier loss that the loss l repairs. It returns the time of the state that was kept before the
// earlier loss, or zero if l is not a repair. m describes the current file, and v shows the table after l. If several losses
// of values are open, l may repair any of them that has not been repaired yet. RepairedBy tries the earliest first. It
// ignores a state that equals the current file, because the file then does not show the loss after this state: either the
// Write of this loss has failed, or everything that was lost is back.
func (k *States) RepairedBy(m *manifest.Manifest, l *manifest.Loss, v *snapshot.View) time.Time {
	info, _ := os.Lstat(k.dataPath)
	open := OpenLossesOf(slices.DeleteFunc(k.List(), func(s State) bool {
		return info != nil && s.SharesData(info) || s.SHA256 != "" && s.SHA256 == m.SHA256
	}))
	for _, s := range slices.Backward(open.states) {
		if !s.Loss.RuinsValues() || open.IsRepaired(s) {
			continue
		}
		if isRepair, err := loss.IsRepair(s.Loss, l, v); err == nil && isRepair {
			return s.Time
		}
	}
	return time.Time{}
}
