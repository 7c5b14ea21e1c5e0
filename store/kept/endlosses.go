package kept

import (
	"capture/snapshot"
	"capture/store/loss"
)

// EndLosses acknowledges each loss whose rows are back in v, and returns the states that were kept before these losses.
func (k *States) EndLosses(v *snapshot.View) (ended []State, err error) {
	for _, s := range k.List() {
		if s.Loss == nil || s.Acknowledged {
			continue
		}
		isBack, err := loss.IsBack(s.Loss, v)
		if err == nil && isBack {
			err = s.Acknowledge()
			ended = append(ended, s)
		}
		if err != nil {
			return ended, err
		}
	}
	return ended, nil
}
