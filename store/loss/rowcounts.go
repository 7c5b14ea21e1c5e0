package loss

import (
	"slices"
	"time"

	"capture/store/manifest"
)

// Window is the period of RowCounts. A Write compares the new row count with the highest row count of this period.
const Window = time.Hour

// leastSpan is the minimum time between two entries of RowCounts. Only the last entry may follow sooner. leastSpan limits
// the number of entries.
const leastSpan = time.Minute

// RowCounts holds row counts of the last hour, oldest first, to find the highest count of the hour (a sliding-window
// maximum). An earlier count that is not higher than a later count cannot become the highest again, so it is dropped. Each
// count is therefore lower than the count before it.
type RowCounts []rowCount

type rowCount struct {
	at   time.Time // time at which a file with this row count was written
	rows int
}

// RowCountsOf returns the row counts in the manifest m. It returns nil if the time at which m was written differs from now
// by Window or more.
func RowCountsOf(m *manifest.Manifest, now time.Time) (c RowCounts) {
	if now.Sub(m.WrittenAt).Abs() >= Window {
		return nil
	}
	for _, count := range m.HigherCounts {
		c.Add(count.At, count.Rows)
	}
	c.Add(m.WrittenAt, m.Rows)
	return c
}

// Add adds the row count of a file, which was written at the given time.
func (c *RowCounts) Add(writtenAt time.Time, rows int) {
	list := *c
	for len(list) > 0 && list[len(list)-1].rows <= rows {
		list = list[:len(list)-1]
	}
	if n := len(list); n > 1 && list[n-1].at.Sub(list[n-2].at) < leastSpan {
		list = list[:n-1]
	}
	list = append(list, rowCount{writtenAt, rows})
	for len(list) > 1 && writtenAt.Sub(list[1].at) >= Window { // the second row count replaced the first at least Window ago
		list = list[1:]
	}
	*c = list
}

// Highest returns the highest row count within the hour before now, or 0 if no row count is known.
func (c RowCounts) Highest(now time.Time) int {
	for i, count := range c {
		if i == len(c)-1 || now.Sub(c[i+1].at) < Window {
			return count.rows
		}
	}
	return 0
}

// Higher returns the row counts of the hour before now that are higher than rows. They belong in the manifest of a file that
// has this number of rows.
func (c RowCounts) Higher(now time.Time, rows int) (higher []manifest.RowCount) {
	c = slices.Clone(c)
	c.Add(now, rows)
	for _, count := range c[:len(c)-1] {
		higher = append(higher, manifest.RowCount{At: count.at.UTC().Truncate(time.Microsecond), Rows: count.rows})
	}
	return higher
}
