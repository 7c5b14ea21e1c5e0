package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kept has the additional facts in the manifest of a kept state.
type Kept struct {
	Loss    *Loss  `json:"loss,omitempty"`    // loss before which the state was kept; nil for an ordinary state
	Damaged string `json:"damaged,omitempty"` // how the state differs from what was written; "" if it does not
	Other   bool   `json:"other,omitempty"`   // whether a state of another table, database, cluster or program replaced it
}

// Loss describes the rows, values or columns that a Write was about to remove. The state before the loss is kept.
type Loss struct {
	Found       time.Time `json:"found"`                  // time of the Write that removed the rows, values or columns
	RowsBefore  int       `json:"rows_before"`            // number of rows before that Write
	RowsAfter   int       `json:"rows_after"`             // number of rows after that Write
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

	// ChangedColumns are the names of the columns whose values were lost: the columns in Dropped and, if a change of values was a
	// loss, the columns that changed in many rows.
	ChangedColumns []string `json:"changed_columns,omitempty"`

	// ChangedRows are rows that lost values, with hashes of these values. If there are many, ChangedRows is a random sample. With
	// these hashes, capture recognizes the repair of the loss.
	ChangedRows []ChangedRow `json:"changed_rows,omitempty"`

	// RepairOf is set if the Write repaired an earlier loss: it brought back the values that the earlier loss had changed.
	// RepairOf is then the time of the state that was kept before the earlier loss. Otherwise RepairOf is zero.
	RepairOf time.Time `json:"repair_of,omitzero"`
}

// MaxChangedRows is the maximum number of rows in Loss.ChangedRows. The rows are a sample that shows whether nine tenths of
// the values are back. For this purpose, a few hundred rows are enough.
const MaxChangedRows = 200

// HashBytes is the length in bytes of the hash of one value.
const HashBytes = 8

// ChangedRow identifies a row and its values.
type ChangedRow struct {
	Key    []byte `json:"key"`    // see [capture/snapshot/rowjson.Key]
	Hashes []byte `json:"hashes"` // for each of Loss.ChangedColumns, HashBytes bytes of the SHA-256 of its value in JSON
}

// checkChanges clears ChangedColumns and ChangedRows if they cannot be valid, for example because somebody has edited the
// manifest. A restore needs neither of them.
func (l *Loss) checkChanges() {
	isWrong := func(row ChangedRow) bool { return len(row.Hashes) != HashBytes*len(l.ChangedColumns) }
	if len(l.ChangedRows) > MaxChangedRows || len(l.ChangedColumns) > maxColumns || slices.ContainsFunc(l.ChangedRows, isWrong) {
		l.ChangedColumns, l.ChangedRows = nil, nil
	}
}

// MayChangeValues reports whether rows that remain may have lost values.
func (l *Loss) MayChangeValues() bool {
	return l.RowsChanged > 0 || l.RowsNotCompared > 0 || len(l.Dropped) > 0
}

// IsUnknown reports whether nothing is known about the loss: the manifest of the state before it is missing, cannot be read, or
// does not describe the loss. Perhaps values were lost, although MayChangeValues reports false.
func (l *Loss) IsUnknown() bool { return l.RowsBefore == 0 && l.HourHighest == 0 }

// IsRepair reports whether the Write repaired an earlier loss of values.
func (l *Loss) IsRepair() bool { return !l.RepairOf.IsZero() }

// RuinsValues reports whether the state before l may be the only one with good values. The state before a repair is never the
// only one.
func (l *Loss) RuinsValues() bool { return l.MayChangeValues() && !l.IsRepair() }

// String returns a description of the loss for people.
func (l *Loss) String() string {
	var parts []string
	if l.RowsLost > 0 || l.HourHighest > 0 {
		before := max(l.RowsBefore, l.HourHighest)
		parts = append(parts, "the table went from "+group(before)+" "+rowNoun(before)+" to "+group(l.RowsAfter))
	}
	if l.RowsChanged > 0 {
		parts = append(parts, fmt.Sprintf("%s of %s rows got another value in column %q", group(l.RowsChanged), group(l.RowsBefore), l.Column))
	}
	if l.IsRepair() {
		parts = append(parts, "this brought back lost values of the state of "+l.RepairOf.UTC().Format(time.RFC3339))
	}
	if l.RowsNotCompared > 0 {
		parts = append(parts, fmt.Sprintf("%s of %s rows may be lost or have other values, because the file was damaged and could not be compared",
			group(l.RowsNotCompared), group(l.RowsBefore)))
	}
	for _, name := range l.Dropped {
		parts = append(parts, fmt.Sprintf("column %q was dropped", name))
	}
	if len(parts) == 0 {
		return "rows or values were lost; which ones is unknown, because the manifest of the state before does not say"
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
