package loss

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"

	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store/manifest"
)

// backShare is the fraction of the lost rows or values that must be back before they count as back.
const backShare = 0.9

// IsBack reports whether at least backShare of the rows that l lost are back in v. A loss of values or columns ends only
// when somebody acknowledges it, because nobody can distinguish lost values from intended changes. A loss with rows that
// could not be compared also ends only when somebody acknowledges it.
func IsBack(l *manifest.Loss, v *snapshot.View) (bool, error) {
	if l.MayChangeValues() {
		return false, nil
	}
	return areRowsBack(l, v)
}

// areRowsBack reports whether at least backShare of the rows that l lost are back in v.
func areRowsBack(l *manifest.Loss, v *snapshot.View) (bool, error) {
	enough := func(n, of int) bool { return float64(n) >= backShare*float64(of) }
	if l.HourHighest > 0 || len(l.LostKeys) == 0 { // the loss came in steps, or no lost key is known, so compare row counts
		lost := max(l.HourHighest, l.RowsBefore) - l.RowsAfter
		isBack := lost > 0 && enough(v.Rows()-l.RowsAfter, lost)
		if !isBack || len(l.LostKeys) == 0 {
			return isBack, nil
		}
		// New rows may have taken the place of lost rows, so the lost keys that are known must be back, too.
	}
	keys := slices.Clone(l.LostKeys)
	slices.SortFunc(keys, bytes.Compare)
	back, err := v.CountKeys(keys)
	return err == nil && enough(back, len(keys)), err
}

// IsRepair reports whether a second loss (later) repairs a first loss (l), which is a loss of values. v shows the table
// after the second loss. A repair brings back the earlier values of all columns that the first loss changed, and changes no
// other column in many rows. Columns with times need not meet these conditions, because a trigger may set them to the time
// of each update. But at least one column must have its values back. If the first loss also removed many rows, these rows
// must be back, too. Otherwise, perhaps only the state before the first loss has them.
//
// A repair ends neither of the two losses. Perhaps the first change was intended, and what looks like its repair is a
// mistake.
func IsRepair(l, later *manifest.Loss, v *snapshot.View) (bool, error) {
	if !losesOnlyValues(later) || backShare*float64(later.RowsChanged) > float64(rowsChanged(l)) {
		return false, nil // the second loss changed many rows that the first loss had not changed
	}
	for _, name := range later.ChangedColumns {
		if !slices.Contains(l.ChangedColumns, name) && !isTime(v, name) {
			return false, nil
		}
	}
	if MayLose(l.RowsLost, l.RowsBefore) || l.HourHighest > 0 {
		if areBack, err := areRowsBack(l, v); err != nil || !areBack {
			return false, err
		}
	}
	isBack, err := areValuesBack(l, v)
	if err != nil {
		return false, err
	}
	for i, name := range l.ChangedColumns {
		if !isBack[i] && !isTime(v, name) {
			return false, nil
		}
	}
	return slices.Contains(isBack, true), nil
}

// ChangesSameValues reports whether a second loss (later) changed only values that a first loss (l) had just changed, so
// that a repair of the first loss also repairs the second. It reports true only if the first loss changed all rows, and if
// no rows were added since. Otherwise, the second loss may have changed rows that still had good values, and perhaps only
// the state before the second loss has these values.
func ChangesSameValues(later, l *manifest.Loss) bool {
	isOther := func(name string) bool { return !slices.Contains(l.ChangedColumns, name) }
	return losesOnlyValues(later) && len(later.ChangedColumns) > 0 && !slices.ContainsFunc(later.ChangedColumns, isOther) &&
		rowsChanged(l) == l.RowsBefore && later.RowsBefore == l.RowsAfter && later.Found.Sub(l.Found) < Window
}

// losesOnlyValues reports whether l is only a loss of values in columns that still exist.
func losesOnlyValues(l *manifest.Loss) bool {
	return !MayLose(l.RowsLost, l.RowsBefore) && l.HourHighest == 0 && l.RowsNotCompared == 0 && len(l.Dropped) == 0
}

// rowsChanged returns the number of rows that lost values in l.
func rowsChanged(l *manifest.Loss) int {
	if len(l.Dropped) > 0 {
		return l.RowsBefore
	}
	return l.RowsChanged
}

// isTime reports whether a column of v has a date or a time.
func isTime(v *snapshot.View, name string) bool {
	return slices.ContainsFunc(v.Shape().Columns, func(c rowjson.Column) bool {
		return c.Name == name && (c.TypeName == "date" || strings.HasPrefix(c.TypeName, "time"))
	})
}

// areValuesBack reports, for each column that the loss l has changed, whether the old values are back in v. At least
// backShare of the changed rows must have their old values. A row that v lacks does not count as back, because somebody may
// insert it again from a state after the loss. The row then has the new values.
func areValuesBack(l *manifest.Loss, v *snapshot.View) ([]bool, error) {
	isBack := make([]bool, len(l.ChangedColumns))
	columns := make([]int, len(l.ChangedColumns))
	for i, name := range l.ChangedColumns {
		columns[i] = slices.IndexFunc(v.Shape().Columns, func(c rowjson.Column) bool { return c.Name == name })
	}
	encoder, err := rowjson.NewEncoder(v.Shape(), false)
	if err != nil {
		return nil, err
	}
	rows := slices.Clone(l.ChangedRows)
	slices.SortFunc(rows, func(a, b manifest.ChangedRow) int { return bytes.Compare(a.Key, b.Key) })
	back := make([]int, len(columns))
	var fields [][]byte
	var hash []byte
	for _, row := range rows {
		line, err := v.Get(row.Key)
		if err != nil {
			return nil, err
		}
		var ok bool
		if fields, ok = encoder.AppendFields(fields[:0], line); !ok {
			continue // v lacks the row
		}
		for i, column := range columns {
			if column < 0 {
				continue // v lacks the column
			}
			if hash = appendHash(hash[:0], fields[column]); bytes.Equal(hash, row.Hashes[i*hashBytes:][:hashBytes]) {
				back[i]++
			}
		}
	}
	for i, n := range back {
		isBack[i] = n > 0 && float64(n) >= backShare*float64(len(rows))
	}
	return isBack, nil
}

const hashBytes = manifest.HashBytes

// appendHash appends the hash of a value to dst.
func appendHash(dst, value []byte) []byte {
	hash := sha256.Sum256(value)
	return append(dst, hash[:hashBytes]...)
}
