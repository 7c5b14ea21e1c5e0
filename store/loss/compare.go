package loss

import (
	"bytes"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"slices"

	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store/manifest"
)

// These constants limit what a manifest says about lost rows and values. Keys may be long, but a manifest must not exceed
// manifest.MaxBytes. It should also be short, because whoever lists the kept states reads their manifests.
const (
	maxLostKeys         = 1000
	maxLostKeyBytes     = 2 << 20
	maxChangedRowsBytes = 1 << 20
)

// Comparison counts how the rows of a View differ from the rows of a file. Both are in key order, so one pass over both finds
// each difference. Rows whose text is identical are not parsed.
type Comparison struct {
	manifest                *manifest.Manifest          // manifest of the file
	err                     error                       // reason why the comparison is incomplete; nil if it is complete
	viewFailed              bool                        // whether err is an error of the View and not of the file
	removed, added, changed int                         // row counts
	columnChanges           []int                       // for each of the file's columns, the number of rows in which its value changed
	lost                    sample[[]byte]              // keys of the removed rows
	changedRows             sample[manifest.ChangedRow] // rows with a changed value, each with the hashes of its old values

	file    *rowjson.Encoder // encoder for the file's shape
	view    *rowjson.Encoder // encoder for the View's shape
	shape   *rowjson.Shape   // shape of the file's rows
	columns []int            // for each of the file's columns, its index in the View; -1 if the column was dropped

	lines  rowReader
	line   []byte      // current row of the file, without padding; nil if the next row must be read
	key    rowjson.Key // key of line, if keyed is set
	keyed  bool        // whether key has been parsed from line
	values [][]byte    // key values of line as text, indexed like the columns of the file; nil for the other columns
	text   []byte      // buffer of parseKey
	fields [2][][]byte // buffers of countChange
}

// errKeysDiffer means that rows cannot be matched by their keys, because the table's key has changed.
var errKeysDiffer = errors.New("the table has another key")

// NewComparison returns a Comparison of the file that m describes with rows of the given shape.
func NewComparison(m *manifest.Manifest, shape *rowjson.Shape) *Comparison {
	c := &Comparison{manifest: m, shape: &rowjson.Shape{Schema: m.Table.Schema, Table: m.Table.Name}}
	for _, column := range m.Columns {
		i := slices.IndexFunc(shape.Columns, func(s rowjson.Column) bool { return s.Name == column.Name })
		c.columns = append(c.columns, i)
		if i >= 0 {
			column.Type = shape.Columns[i].Type
		}
		c.shape.Columns = append(c.shape.Columns, column)
	}
	for _, name := range m.Key {
		c.shape.Key = append(c.shape.Key, slices.IndexFunc(m.Columns, func(s rowjson.Column) bool { return s.Name == name }))
	}
	c.values, c.columnChanges = make([][]byte, len(m.Columns)), make([]int, len(m.Columns))
	if !hasSameKey(m, shape) {
		c.err = errKeysDiffer
		return c
	}
	if c.file, c.err = rowjson.NewEncoder(c.shape, false); c.err == nil {
		c.view, c.err = rowjson.NewEncoder(shape, false)
	}
	return c
}

// Fail ends the comparison, because the file cannot be read or is known to be damaged.
func (c *Comparison) Fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// IsEqual reports whether the comparison has shown that the rows are equal.
func (c *Comparison) IsEqual() bool { return c.err == nil && c.removed+c.added+c.changed == 0 }

// Damage returns the reason why the file does not match its manifest. It returns "" if the comparison has found no damage.
func (c *Comparison) Damage() string {
	if c.err == nil || c.err == errKeysDiffer || c.viewFailed {
		return ""
	}
	return c.err.Error()
}

// hasSameKey reports whether the keys of the file that m describes can be compared with keys of the shape.
func hasSameKey(m *manifest.Manifest, shape *rowjson.Shape) bool {
	if len(m.Key) != len(shape.Key) {
		return false
	}
	for i, name := range m.Key {
		column := shape.Columns[shape.Key[i]]
		before := slices.IndexFunc(m.Columns, func(s rowjson.Column) bool { return s.Name == name })
		if column.Name != name || before < 0 {
			return false
		}
		if was := m.Columns[before].TypeName; was != column.TypeName && !(isInteger(was) && isInteger(column.TypeName)) {
			return false
		}
	}
	return true
}

func isInteger(typeName string) bool {
	return typeName == "smallint" || typeName == "integer" || typeName == "bigint"
}

// dropped returns the names of the file's columns that the View lacks.
func (c *Comparison) dropped() (names []string) {
	for i, column := range c.columns {
		if column < 0 {
			names = append(names, c.shape.Columns[i].Name)
		}
	}
	return names
}

// Run compares the rows of the file, or of some of its regions, with rows. Both must be in key order.
func (c *Comparison) Run(file io.Reader, rows iter.Seq2[snapshot.Row, error]) {
	if c.err == nil {
		c.err = c.run(file, rows)
	}
}

func (c *Comparison) run(file io.Reader, rows iter.Seq2[snapshot.Row, error]) error {
	c.lines = newRowReader(file)
	for row, err := range rows {
		c.viewFailed = err != nil
		if err == nil {
			err = c.compareRow(row)
		}
		if err != nil {
			return err
		}
	}
	for {
		switch ok, err := c.readLine(); {
		case err != nil:
			return err
		case !ok:
			return nil
		}
		if err := c.removeLine(); err != nil {
			return err
		}
	}
}

// compareRow compares a row of the View with the file's row that has the same key. It first counts the file's rows with lower
// keys as removed.
func (c *Comparison) compareRow(row snapshot.Row) error {
	for {
		ok, err := c.readLine()
		if err != nil {
			return err
		}
		if !ok {
			c.added++
			return nil
		}
		if !c.keyed && bytes.Equal(c.line, row.Line) {
			c.line = nil
			return nil
		}
		if err := c.parseKey(); err != nil {
			return err
		}
		switch order := bytes.Compare(c.key, row.Key); {
		case order > 0:
			c.added++
			return nil
		case order < 0:
			if err := c.removeLine(); err != nil {
				return err
			}
		default:
			if !bytes.Equal(c.line, row.Line) {
				c.countChange(row.Line)
			}
			c.line = nil
			return nil
		}
	}
}

// readLine reads the file's next row into line, unless the current row has not been compared yet. It reports false at the end
// of the file.
func (c *Comparison) readLine() (bool, error) {
	if c.line != nil {
		return true, nil
	}
	line, err := c.lines.next()
	if err == io.EOF {
		return false, nil
	}
	c.line, c.keyed = line, false
	return err == nil, err
}

// removeLine counts the file's current row as removed.
func (c *Comparison) removeLine() error {
	if err := c.parseKey(); err != nil {
		return err
	}
	c.removed++
	c.lost.add(maxLostKeys, func() []byte { return bytes.Clone(c.key) })
	c.line = nil
	return nil
}

var errNotRow = errors.New("a line is not a row of the table that the manifest describes")

// parseKey sets c.key to the key of the file's current row.
func (c *Comparison) parseKey() (err error) {
	if c.keyed {
		return nil
	}
	c.text = c.text[:0]
	for _, i := range c.shape.Key {
		value, ok := c.file.Field(c.line, i)
		if !ok || len(value) == 0 {
			return errNotRow
		}
		start := len(c.text)
		if c.text, err = rowjson.AppendText(c.text, &c.shape.Columns[i].Type, value); err != nil {
			return errNotRow
		}
		c.values[i] = bytes.Clone(c.text[start:]) // a copy, because the next key overwrites c.text
	}
	c.key, err = c.file.AppendKey(c.key[:0], c.values)
	c.keyed = err == nil
	return err
}

// countChange counts the columns in which the file's current row differs from line, the View's row.
func (c *Comparison) countChange(line []byte) {
	c.changed++
	var ok [2]bool
	c.fields[0], ok[0] = c.file.AppendFields(c.fields[0][:0], c.line)
	c.fields[1], ok[1] = c.view.AppendFields(c.fields[1][:0], line)
	if !ok[0] || !ok[1] {
		return
	}
	for i, column := range c.columns {
		if column >= 0 && !bytes.Equal(c.fields[0][i], c.fields[1][column]) {
			c.columnChanges[i]++
		}
	}
	c.changedRows.add(manifest.MaxChangedRows, func() manifest.ChangedRow {
		row := manifest.ChangedRow{Key: bytes.Clone(c.key)}
		for _, field := range c.fields[0] {
			row.Hashes = appendHash(row.Hashes, field)
		}
		return row
	})
}

// mostChanged returns the column whose value changed in the most rows, and the number of these rows.
func (c *Comparison) mostChanged() (name string, rows int) {
	for i, n := range c.columnChanges {
		if n > rows {
			name, rows = c.shape.Columns[i].Name, n
		}
	}
	return name, rows
}

// sample is a random sample of the rows that are added. All added rows have the same probability of being in the sample.
type sample[T any] struct {
	rows []T
	n    int // number of rows that were added
}

// add adds a row to a sample of at most size rows. It calls describe only if the row is in the sample.
func (s *sample[T]) add(size int, describe func() T) {
	s.n++
	if len(s.rows) < size {
		s.rows = append(s.rows, describe())
	} else if i := rand.IntN(s.n); i < size {
		s.rows[i] = describe()
	}
}

// limited returns random rows of the sample that have at most limit bytes in total. bytesOf returns the number of bytes of a
// row.
func (s *sample[T]) limited(limit int, bytesOf func(T) int) []T {
	rows := slices.Clone(s.rows)
	rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	for i, row := range rows {
		if limit -= bytesOf(row); limit < 0 {
			return rows[:i]
		}
	}
	return rows
}
