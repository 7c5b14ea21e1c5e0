package store

import (
	"capture/snapshot"
)

// backShare is how much of a loss must be back for it to end: nine tenths.
const backShare = 0.9

// EndLosses acknowledges the losses of which v has enough rows back, and returns the states that were kept before them.
func (f *File) EndLosses(v *snapshot.View) (ended []KeptState, err error) {
	for _, s := range f.kept.list() {
		if s.Loss == nil || s.Acknowledged {
			continue
		}
		isBack, err := s.Loss.isBack(v)
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

// isBack reports whether v has nine tenths of the lost rows. Values and columns that were lost can't be told from others that are meant, so
// such a loss ends only when somebody acknowledges it.
func (l *Loss) isBack(v *snapshot.View) (bool, error) {
	enough := func(n, of int) bool { return float64(n) >= backShare*float64(of) }
	switch {
	case l.RowsChanged > 0 || len(l.Dropped) > 0:
		return false, nil
	case l.HourHighest > 0 || len(l.LostKeys) == 0: // the keys of rows that went in earlier steps are not known
		lost := max(l.HourHighest, l.RowsBefore) - l.RowsAfter
		return lost > 0 && enough(v.Rows()-l.RowsAfter, lost), nil
	}
	back := 0
	for _, key := range l.LostKeys {
		line, err := v.Get(key)
		if err != nil {
			return false, err
		}
		if line != nil {
			back++
		}
	}
	return enough(back, len(l.LostKeys)), nil
}
