package loss

import (
	"bytes"
	"crypto/sha256"
	"slices"

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
	enough := func(n, of int) bool { return float64(n) >= backShare*float64(of) }
	switch {
	case l.MayChangeValues():
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

// AreValuesBack reports whether at least backShare of the changed rows of l have in v the values that they had before the loss.
// This does not end the loss, because it can also be a mistake: the earlier change may have been intended.
func AreValuesBack(l *manifest.Loss, v *snapshot.View) (bool, error) {
	columns := make([]int, len(l.ChangedColumns))
	for i, name := range l.ChangedColumns {
		columns[i] = slices.IndexFunc(v.Shape().Columns, func(c rowjson.Column) bool { return c.Name == name })
	}
	if len(l.ChangedRows) == 0 || slices.Contains(columns, -1) {
		return false, nil
	}
	encoder, err := rowjson.NewEncoder(v.Shape(), false)
	if err != nil {
		return false, err
	}
	rows := slices.Clone(l.ChangedRows)
	slices.SortFunc(rows, func(a, b manifest.ChangedRow) int { return bytes.Compare(a.Key, b.Key) })
	back := 0
	var fields [][]byte
	hashes := make([][]byte, len(columns))
	for _, row := range rows {
		line, err := v.Get(row.Key)
		if err != nil {
			return false, err
		}
		var ok bool
		if fields, ok = encoder.AppendFields(fields[:0], line); !ok {
			continue // the row is gone
		}
		for i, column := range columns {
			hashes[i] = hashOf(fields[column])
		}
		if bytes.Equal(hashOf(hashes...), row.Hash) {
			back++
		}
	}
	return float64(back) >= backShare*float64(len(rows)), nil
}

// hashOf returns the first eight bytes of the SHA-256 of parts, one after the other. Each part but the last must have a fixed
// length.
func hashOf(parts ...[]byte) []byte {
	hash := sha256.New()
	for _, part := range parts {
		hash.Write(part)
	}
	return hash.Sum(nil)[:8]
}
