package loss

import (
	"bytes"
	"slices"

	"capture/snapshot"
	"capture/store/manifest"
)

// backShare is the fraction of the lost rows that must be back before a loss counts as ended.
const backShare = 0.9

// IsBack reports whether at least backShare of the rows that l lost are back in v. A loss of values or columns ends only
// when somebody acknowledges it, because nobody can distinguish lost values from intended changes. A loss with rows that
// could not be compared also ends only when somebody acknowledges it.
func IsBack(l *manifest.Loss, v *snapshot.View) (bool, error) {
	enough := func(n, of int) bool { return float64(n) >= backShare*float64(of) }
	switch {
	case l.RowsChanged > 0 || l.RowsNotCompared > 0 || len(l.Dropped) > 0:
		return false, nil
	case l.HourHighest > 0 || len(l.LostKeys) == 0: // not all lost keys are known, so compare row counts
		lost := max(l.HourHighest, l.RowsBefore) - l.RowsAfter
		return lost > 0 && enough(v.Rows()-l.RowsAfter, lost), nil
	}
	keys := slices.Clone(l.LostKeys)
	slices.SortFunc(keys, bytes.Compare)
	back, err := v.CountKeys(keys)
	return err == nil && enough(back, len(keys)), err
}
