package loss

import (
	"slices"
	"time"

	"capture/store/manifest"
)

// Window is the period whose highest number of rows is compared with the new number.
const Window = time.Hour

// leastSpan is the minimum time between two entries of RowCounts; only the last entry may follow sooner. It limits how many
// entries there are.
const leastSpan = time.Minute

// RowCounts holds numbers of rows within the last hour, oldest first. It holds only numbers that may become the highest of an
// hour, so each number is lower than the number before it.
type RowCounts []rowCount

type rowCount struct {
	at   time.Time // time at which a file with this number of rows was written
	rows int
}

// RowCountsOf returns the numbers of rows that the manifest m records. It returns nil unless m was written within Window of
// now.
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

// Add adds the number of rows of a file. The parameter at is the time at which the file was written.
func (c *RowCounts) Add(at time.Time, rows int) {
	list := *c
	for len(list) > 0 && list[len(list)-1].rows <= rows {
		list = list[:len(list)-1]
	}
	if n := len(list); n > 1 && list[n-1].at.Sub(list[n-2].at) < leastSpan {
		list = list[:n-1]
	}
	list = append(list, rowCount{at, rows})
	for len(list) > 1 && at.Sub(list[1].at) >= Window { // the first number was valid until the file with the second number was written
		list = list[1:]
	}
	*c = list
}

// Highest returns the highest number of rows within the hour before now, or 0 if none is known.
func (c RowCounts) Highest(now time.Time) int {
	for i, count := range c {
		if i == len(c)-1 || now.Sub(c[i+1].at) < Window {
			return count.rows
		}
	}
	return 0
}

// Higher returns the numbers within the hour before now that are higher than the parameter rows. They are for the manifest of a
// file with that number of rows.
func (c RowCounts) Higher(now time.Time, rows int) (higher []manifest.RowCount) {
	c = slices.Clone(c)
	c.Add(now, rows)
	for _, count := range c[:len(c)-1] {
		higher = append(higher, manifest.RowCount{At: count.at.UTC().Truncate(time.Microsecond), Rows: count.rows})
	}
	return higher
}
