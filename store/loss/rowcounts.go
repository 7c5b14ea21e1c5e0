package loss

import "time"

// Window is the period whose highest number of rows is compared with the new number.
const Window = time.Hour

// RowCounts holds numbers of rows within the last hour, oldest first. It holds only those that may become the highest of an
// hour, so each is lower than the one before it.
type RowCounts []rowCount

type rowCount struct {
	at   time.Time // time at which a file with this number of rows was written
	rows int
}

// Add adds the number of rows of a file that was written at the time at.
func (c *RowCounts) Add(at time.Time, rows int) {
	list := *c
	for len(list) > 0 && list[len(list)-1].rows <= rows {
		list = list[:len(list)-1]
	}
	list = append(list, rowCount{at, rows})
	for len(list) > 1 && at.Sub(list[1].at) >= Window { // the first one was valid until the second one was written
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
