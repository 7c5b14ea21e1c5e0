package loss

import (
	"time"

	"capture/snapshot"
	"capture/store/manifest"
)

// Losing all rows counts as a loss. So does losing at least lossLeast rows if they are more than 1/lossShare of all rows.
const (
	lossShare = 10
	lossLeast = 10
)

// MayLose reports whether the disappearance of n rows from a file with the given number of rows counts as a loss.
func MayLose(n, rows int) bool {
	return n > 0 && (n >= rows || n >= lossLeast && n > rows/lossShare)
}

// MayLoseValues reports whether it counts as a loss if n rows get another value in one column. rows is the number of rows
// that exist both before and after the change, because a removed row cannot get another value. If removed rows counted, a
// DELETE of half of the rows would hide that an UPDATE in the same write ruined all others.
func MayLoseValues(n, rows int) bool { return n >= lossLeast && n > rows/2 }

// Loss returns the loss that would occur if v replaced the file that is compared, or nil if there is none. highest is the
// highest row count within the last hour. replaced is the number of the file's rows that v replaces. After a failed comparison,
// Loss decides by the row counts and the columns. If the comparison has failed because the file is damaged, Loss also uses
// replaced, because each of the replaced rows may be lost or have other values.
func (c *Comparison) Loss(v *snapshot.View, highest, replaced int) *manifest.Loss {
	before := c.manifest.Rows
	fell := max(before-v.Rows(), 0)
	loss := &manifest.Loss{
		Found: time.Now().UTC().Truncate(time.Microsecond), RowsBefore: before, RowsAfter: v.Rows(),
		RowsLost: fell, Dropped: c.dropped(),
	}
	isLoss := len(loss.Dropped) > 0 && before > 0
	if c.err == nil {
		loss.RowsLost = max(c.removed, fell)
		loss.LostKeys = c.lost.limited(maxLostKeyBytes, func(key []byte) int { return len(key) })
		if name, n := c.mostChanged(); MayLoseValues(n, before-c.removed) {
			loss.Column, loss.RowsChanged, isLoss = name, n, true
		}
		c.describeChanges(loss)
	}
	if c.Damage() != "" && MayLose(replaced, before) {
		loss.RowsNotCompared, isLoss = replaced, true
	}
	if MayLose(loss.RowsLost, before) {
		isLoss = true
	}
	if highest > before && highest-v.Rows() >= lossLeast && highest-v.Rows() > highest/lossShare {
		loss.HourHighest, isLoss = highest, true
	}
	if !isLoss {
		return nil
	}
	return loss
}

// describeChanges sets the fields of the Loss that identify the values that are about to be lost. These fields also name
// columns that changed in fewer than half of the rows. A change of so few values alone is no loss, but it may be part of a
// loss. For example, an UPDATE sets two columns to NULL, and one of the columns already was NULL in most rows.
func (c *Comparison) describeChanges(loss *manifest.Loss) {
	var columns []int
	for i, n := range c.columnChanges {
		if c.columns[i] < 0 || loss.MayChangeValues() && MayLose(n, c.manifest.Rows-c.removed) {
			columns = append(columns, i)
			loss.ChangedColumns = append(loss.ChangedColumns, c.shape.Columns[i].Name)
		}
	}
	if columns == nil {
		return
	}
	size := hashBytes * len(columns)
	for _, row := range c.changedRows.limited(maxChangedRowsBytes, func(row manifest.ChangedRow) int { return len(row.Key) + size }) {
		hashes := make([]byte, 0, size)
		for _, column := range columns {
			hashes = append(hashes, row.Hashes[column*hashBytes:][:hashBytes]...)
		}
		loss.ChangedRows = append(loss.ChangedRows, manifest.ChangedRow{Key: row.Key, Hashes: hashes})
	}
}
