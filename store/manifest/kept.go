package manifest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Kept has the additional facts in the manifest of a kept state.
type Kept struct {
	Loss    *Loss  `json:"loss,omitempty"`    // loss before which the state was kept; nil for an ordinary state
	Damaged string `json:"damaged,omitempty"` // how the state differs from what was written; "" if it does not
	Other   bool   `json:"other,omitempty"`   // whether it was replaced by a state of another table, database or cluster
}

// Loss describes the rows, values or columns that a Write was about to remove. The state before the loss is kept.
type Loss struct {
	Found       time.Time `json:"found"`                  // time of the Write that removed the rows, values or columns
	RowsBefore  int       `json:"rows_before"`            // number of rows before that Write
	RowsAfter   int       `json:"rows_after"`             // number of rows after it
	RowsLost    int       `json:"rows_lost,omitempty"`    // number of rows whose keys are gone
	RowsChanged int       `json:"rows_changed,omitempty"` // number of rows whose value in Column changed
	Column      string    `json:"column,omitempty"`       // name of the column that changed in the most rows
	Dropped     []string  `json:"dropped,omitempty"`      // names of the dropped columns
	HourHighest int       `json:"hour_highest,omitempty"` // highest number of rows in the hour before Found, if the loss came in steps; otherwise 0

	// RowsNotCompared is the number of rows that the Write replaced and that could not be compared, because the file was
	// damaged. Each of these rows may be lost or have other values.
	RowsNotCompared int `json:"rows_not_compared,omitempty"`

	// LostKeys are the keys of the lost rows, as [capture/snapshot/rowjson.Key]. If there are many, LostKeys is a random
	// sample. With these keys, capture finds out whether the rows are back.
	LostKeys [][]byte `json:"lost_keys,omitempty"`

	// ChangedRows are the rows that got other values or lost a column, with the hashes of their values before. If there are
	// many, ChangedRows is a random sample. With these hashes, capture finds out whether a later Write brings the values back.
	ChangedRows    []ChangedRow `json:"changed_rows,omitempty"`
	ChangedColumns []string     `json:"changed_columns,omitempty"` // names of the columns in the hashes: Dropped, and those that changed in most rows

	// Returned is the time of an earlier kept state if the Write brought back the values that the loss after that state had
	// changed, as a repair does. Otherwise it is zero.
	Returned time.Time `json:"returned,omitzero"`
}

// ChangedRow identifies a row and its values.
type ChangedRow struct {
	Key  []byte `json:"key"`  // see [capture/snapshot/rowjson.Key]
	Hash []byte `json:"hash"` // hash of the values in Loss.ChangedColumns
}

// IsReturn reports whether the Write brought earlier values back, and no rows or columns disappeared. Such a Write is probably
// the repair of the earlier loss.
func (l *Loss) IsReturn() bool {
	return !l.Returned.IsZero() && l.RowsLost == 0 && l.HourHighest == 0 && l.RowsNotCompared == 0 && len(l.Dropped) == 0
}

// MayChangeValues reports whether rows that remain may have lost values.
func (l *Loss) MayChangeValues() bool {
	return l.RowsChanged > 0 || l.RowsNotCompared > 0 || len(l.Dropped) > 0
}

// String returns a description of the loss for people.
func (l *Loss) String() string {
	var parts []string
	if l.RowsLost > 0 || l.HourHighest > 0 {
		before := max(l.RowsBefore, l.HourHighest)
		parts = append(parts, "the table went from "+group(before)+" "+rowNoun(before)+" to "+group(l.RowsAfter))
	}
	if l.RowsChanged > 0 {
		text := fmt.Sprintf("%s of %s rows got another value in column %q", group(l.RowsChanged), group(l.RowsBefore), l.Column)
		if !l.Returned.IsZero() {
			text += ", the value that they had in the state of " + l.Returned.UTC().Format(time.RFC3339)
		}
		parts = append(parts, text)
	}
	if l.RowsNotCompared > 0 {
		parts = append(parts, fmt.Sprintf("%s of %s rows may be lost or have other values, because the file was damaged and could not be compared",
			group(l.RowsNotCompared), group(l.RowsBefore)))
	}
	for _, name := range l.Dropped {
		parts = append(parts, fmt.Sprintf("column %q was dropped", name))
	}
	if len(parts) == 0 {
		return "rows were lost"
	}
	return strings.Join(parts, "; ")
}

// rowNoun returns "row" or "rows".
func rowNoun(n int) string {
	if n == 1 {
		return "row"
	}
	return "rows"
}

// group returns n, which is not negative, with commas between groups of three digits.
func group(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
