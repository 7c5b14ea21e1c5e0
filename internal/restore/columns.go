package restore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"capture/internal/foreign"
	"capture/internal/postgres"
	"capture/internal/statefile"
	"capture/snapshot/rowjson"
	"capture/store/manifest"
)

// columnMap maps the members of the file's rows to the columns of a table by name. The first row defines the members. Every
// other row must have the same members, in any order.
type columnMap struct {
	table   *postgres.Table
	names   []string       // names of the members, in the order of the first row
	at      map[string]int // index of each name in names
	targets []target       // target column of each member, in the order of names
	key     []int          // indexes of the key columns in names
	notes   []string       // sentences for the user about columns that the file lacks
}

// target is the column that a member's value is written to.
type target struct {
	column         *rowjson.Column
	generated      bool // whether Postgres computes the value
	jsonNull       bool // whether null stands for JSON's null, not for SQL NULL: the column is json or jsonb, and NOT NULL
	checked        bool // whether to check all values, because the type may change them: see compareTypes
	numbersChecked bool // whether to check numbers, because the type may round them: see isChecked
	plainString    bool // whether the text of a JSON string is also the text form of the column's value
	isTime         bool // whether a JSON number stands for a time

	epoch rowjson.EpochUnit // unit of the numbers that stand for a time; 0 before the first such number
}

// generatedDiffer reports whether the file's values of generated columns may differ from the results of the table's
// expressions. This is possible if the manifest has other expressions, or if there is no manifest.
func (m *columnMap) generatedDiffer(manifest *manifest.Manifest) bool {
	for i, t := range m.targets {
		if !t.generated {
			continue
		}
		if manifest == nil || !slices.ContainsFunc(manifest.Columns, func(c rowjson.Column) bool {
			return c.Name == m.names[i] && c.Generated != "" && c.Default == t.column.Default
		}) {
			return true
		}
	}
	return false
}

// keyNames returns the names of the key columns.
func (m *columnMap) keyNames() []string {
	names := make([]string, len(m.key))
	for i, k := range m.key {
		names[i] = m.names[k]
	}
	return names
}

// writableNames returns the names of the file's columns that a restore writes: all except generated columns.
func (m *columnMap) writableNames() []string {
	var names []string
	for i, t := range m.targets {
		if !t.generated {
			names = append(names, m.names[i])
		}
	}
	return names
}

var errColumns = errors.New("its columns are not those of the first row")

// reorder puts the members of a row into the order of the first row.
func (m *columnMap) reorder(members []statefile.Member) error {
	if len(members) != len(m.names) {
		return m.explainColumns(members)
	}
	// Each swap moves one member to its final place, so there are at most as many swaps as members.
	for i, name := range m.names {
		for string(members[i].Name) != name {
			at, ok := m.at[string(members[i].Name)]
			if !ok || bytes.Equal(members[at].Name, members[i].Name) { // unknown or repeated name
				return m.explainColumns(members)
			}
			members[i], members[at] = members[at], members[i]
		}
	}
	return nil
}

// explainColumns returns the error for a row whose members differ from the members of the first row.
func (m *columnMap) explainColumns(members []statefile.Member) error {
	found := make(map[string]bool, len(members))
	for _, member := range members {
		found[string(member.Name)] = true
	}
	for _, name := range m.names {
		if !found[name] {
			return fmt.Errorf("%w: it lacks %s%s", errColumns, foreign.Text(postgres.QuoteIdentifier(name)), missingHint)
		}
	}
	for _, member := range members {
		if _, ok := m.at[string(member.Name)]; !ok {
			return fmt.Errorf("%w: it has %s, too%s", errColumns, foreign.Text(postgres.QuoteIdentifier(string(member.Name))), missingHint)
		}
	}
	return errColumns
}

// missingHint is advice for rows with different columns. Spark and serde, for example, write no member for NULL.
const missingHint = "; if the program that wrote the file leaves out what is NULL, use --missing null"

// appendText appends the value of member i in the text form that the input function of the column's type reads. ok is false
// for NULL, which has no text form.
func (m *columnMap) appendText(dst []byte, i int, value []byte) (text []byte, ok bool, err error) {
	t := &m.targets[i]
	if string(value) == "null" && !t.jsonNull {
		return dst, false, nil
	}
	if dst, err = rowjson.AppendText(dst, &t.column.Type, value); err != nil {
		err = fmt.Errorf("column %s (%s) does not take the value: %w", postgres.QuoteIdentifier(m.names[i]), t.column.TypeName, err)
	}
	return dst, true, err
}

// checkEpoch returns an error if the time in value has another unit than earlier times of the column. For example, value is
// in milliseconds since 1970, and earlier numbers are in seconds. ParseEpoch guesses the unit from the size of each number.
// If two guesses differ, one of them may be wrong, so checkEpoch trusts neither.
func (t *target) checkEpoch(value []byte) error {
	if value[0] == '"' || string(value) == "0" {
		return nil
	}
	_, unit, err := rowjson.ParseEpoch(value)
	if err != nil {
		return err
	}
	if t.epoch == 0 {
		t.epoch = unit
	}
	if unit != t.epoch {
		return fmt.Errorf("it seems to be a number of %s since 1970, and earlier ones are of %s; write the times as text, as \"2025-06-17 16:58:00\"", unit, t.epoch)
	}
	return nil
}

// epochNotes returns a sentence for each column whose times are numbers in the file.
func (m *columnMap) epochNotes() []string {
	var notes []string
	for i := range m.targets {
		if t := &m.targets[i]; t.epoch != 0 {
			notes = append(notes, fmt.Sprintf("column %s has numbers in the file: they are taken for %s since 1970 (UTC)", postgres.QuoteIdentifier(m.names[i]), t.epoch))
		}
	}
	return notes
}

// keyOf returns the JSON values of the key columns of a row. The row's members must be in the order of the first row.
func (m *columnMap) keyOf(row statefile.Row) [][]byte {
	key := make([][]byte, len(m.key))
	for i, k := range m.key {
		key[i] = row.Members[k].Value
	}
	return key
}

// keyTexts returns the text forms of a key, given the JSON values of the key columns.
func (m *columnMap) keyTexts(key [][]byte) []string {
	texts := make([]string, len(key))
	for i, value := range key {
		text, _, err := m.appendText(nil, m.key[i], value)
		if err != nil {
			text = value
		}
		texts[i] = string(text)
	}
	return texts
}

// hides reports whether the given JSON value of column i may be a user's text that must not be shown. See
// [rowjson.Shape.UnprovenKey].
func (m *columnMap) hides(i int, value []byte) bool {
	if !m.table.UnprovenKey {
		return false
	}
	t, text := &m.targets[i].column.Type, bytes.Trim(value, `"`)
	return t.Kind == rowjson.Number && value[0] == '"' || !rowjson.IsTextFree(t, text)
}

// describePlace returns the line and the key of a row for an error message. key holds the JSON values of the key columns.
func (m *columnMap) describePlace(line int64, key [][]byte) string {
	if len(key) == 0 {
		return fmt.Sprintf("line %d", line)
	}
	return fmt.Sprintf("line %d (%s)", line, m.describeKey(key))
}

// describeKey returns the names and values of the key columns for an error message, such as "vote_id 42". The values are
// given as JSON.
func (m *columnMap) describeKey(key [][]byte) string {
	const maxShown = 80 // maximum number of bytes of a value that are shown
	parts := make([]string, len(key))
	for i, value := range key {
		shown := string(value)
		if m.hides(m.key[i], value) {
			shown = rowjson.HiddenText
		} else if len(value) > maxShown {
			shown = string(value[:maxShown]) + "…"
		}
		parts[i] = m.names[m.key[i]] + " " + foreign.Text(shown)
	}
	return strings.Join(parts, ", ")
}
