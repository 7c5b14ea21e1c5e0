package store

import (
	"fmt"
	"strings"
	"time"
)

// Loss is what a Write was about to lose when it kept the state before.
type Loss struct {
	Found       time.Time `json:"found"` // time of that Write
	RowsBefore  int       `json:"rows_before"`
	RowsAfter   int       `json:"rows_after"`
	RowsLost    int       `json:"rows_lost,omitempty"`    // rows whose keys are gone
	RowsChanged int       `json:"rows_changed,omitempty"` // rows with another value in Column
	Column      string    `json:"column,omitempty"`       // the column that was changed most
	Dropped     []string  `json:"dropped,omitempty"`      // columns that are gone
	HourHighest int       `json:"hour_highest,omitempty"` // highest number of rows of the hour before, if the loss came in steps

	// LostKeys are keys of lost rows, as [capture/snapshot/rowjson.Key]: all if they are few, otherwise some of them, chosen at
	// random. With them the end of the loss is found.
	LostKeys [][]byte `json:"lost_keys,omitempty"`
}

// String returns what was lost, for people.
func (l *Loss) String() string {
	var parts []string
	if l.RowsLost > 0 || l.HourHighest > 0 {
		before := max(l.RowsBefore, l.HourHighest)
		parts = append(parts, fmt.Sprintf("the table went from %d rows to %d", before, l.RowsAfter))
	}
	if l.RowsChanged > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d rows got another value in column %q", l.RowsChanged, l.RowsBefore, l.Column))
	}
	for _, name := range l.Dropped {
		parts = append(parts, fmt.Sprintf("column %q was dropped", name))
	}
	if len(parts) == 0 {
		return "rows were lost"
	}
	return strings.Join(parts, "; ")
}
