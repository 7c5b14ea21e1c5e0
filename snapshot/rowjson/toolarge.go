package rowjson

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// largeRow is the size from which a row's line gets its memory at once, and from which buffers are released after the row.
// Growing step by step would allocate more than twice as much.
const largeRow = 256 << 10

// TooLargeError is the error for a row whose line would be longer than [Encoder.MaxLine].
type TooLargeError struct {
	Sizes []int64 // about how many bytes each column takes in the line; their sum exceeds MaxLine
}

func (e *TooLargeError) Error() string {
	sum := int64(0)
	for _, n := range e.Sizes {
		sum += n
	}
	return fmt.Sprintf("the row takes about %d bytes as JSON, which is too much", sum)
}

var errTooLarge = errors.New("the line is too long") // becomes a *TooLargeError

// reserveLine sets end for the next line, and makes room for it in dst if the row is large. It fails before it allocates if
// the line will be too long for certain.
func (e *Encoder) reserveLine(dst []byte, values [][]byte, old []byte) ([]byte, error) {
	e.end = math.MaxInt
	if e.MaxLine > 0 {
		e.end = len(dst) + e.MaxLine - len("}")
	}
	raw := len(old)
	for _, text := range values {
		raw += len(text)
	}
	if raw < largeRow {
		return dst, nil
	}
	certain, likely := 0, 0
	for i, n := range e.ColumnSizes(values, old) {
		likely += int(n) + len(e.columns[i].opening)
		if k := e.columns[i].node.kind; k == Text || k == JSON || isUnchanged(values[i]) {
			certain += int(n)
		}
	}
	if e.MaxLine > 0 {
		if certain >= e.MaxLine {
			return dst, e.tooLarge(values, old, len(values)-1)
		}
		likely = min(likely, e.MaxLine)
	}
	return slices.Grow(dst, likely+1), nil
}

// tooLarge returns the error for a row whose line became too long at the column with that index.
func (e *Encoder) tooLarge(values [][]byte, old []byte, column int) error {
	sizes := e.ColumnSizes(values, old)
	sum := int64(0)
	for _, n := range sizes {
		sum += n
	}
	// The estimates may be too low: what an array takes beyond its text form is seen only while it is encoded.
	sizes[column] += max(0, int64(e.MaxLine)+1-sum)
	return &TooLargeError{sizes}
}

// ColumnSizes estimates how many bytes each column takes in the line: exactly for text and for values taken from old, and
// otherwise by the text form. values and old are those of [Encoder.AppendRow].
func (e *Encoder) ColumnSizes(values [][]byte, old []byte) []int64 {
	sizes := make([]int64, len(values))
	previous := lineScanner{line: old}
	for i, text := range values {
		n := len(text)
		switch c := &e.columns[i]; {
		case text == nil:
			n = len("null")
		case isUnchanged(text):
			value, _ := previous.seekColumn(e.columns, i)
			n = len(value)
		case c.node.kind == Text:
			n = quotedLength(text)
		}
		sizes[i] = int64(n)
	}
	return sizes
}

// quotedLength returns the length of what appendString appends.
func quotedLength(text []byte) int {
	n := len(text) + len(`""`)
	for {
		clean := cleanPrefix(text)
		if clean == len(text) {
			return n
		}
		if n += len(`\n`) - 1; shortEscapes[text[clean]] == 0 {
			n += len(`\u0000`) - len(`\n`)
		}
		text = text[clean+1:]
	}
}
