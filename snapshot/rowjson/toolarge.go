package rowjson

import (
	"errors"
	"fmt"
	"math"
)

// largeRow is the smallest size of a large row, in bytes. The line of a large row gets all its memory in one allocation,
// because growing it step by step would allocate more than twice as much. Buffers that have grown beyond largeRow are
// released after the row.
const largeRow = 256 << 10

// TooLargeError is the error for a row whose line would be longer than [Encoder.MaxLine].
type TooLargeError struct {
	Sizes []int64 // approximate bytes of each column in the line; their sum exceeds MaxLine
}

func (e *TooLargeError) Error() string {
	sum := int64(0)
	for _, n := range e.Sizes {
		sum += n
	}
	return fmt.Sprintf("the row takes about %d bytes as JSON, which is too much", sum)
}

// IsTooLarge returns the sizes of the columns if err is or wraps a [*TooLargeError]. If err is nil, IsTooLarge allocates
// nothing.
func IsTooLarge(err error) (sizes []int64, tooLarge bool) {
	if err == nil {
		return nil, false
	}
	var e *TooLargeError
	if errors.As(err, &e) {
		return e.Sizes, true
	}
	return nil, false
}

var errTooLarge = errors.New("the line is too long") // AppendRow returns a *TooLargeError instead

// reserveLine prepares dst for the next line. It sets e.end, the length that dst may have before the line's closing brace.
// For a large row, it also makes dst large enough for the probable length of the line. If a large row's line is certain to
// be too long, reserveLine returns an error before it allocates.
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
	if cap(dst)-len(dst) > likely {
		return dst, nil
	}
	// Not slices.Grow: under the race detector, it would allocate a second time.
	return append(make([]byte, 0, len(dst)+likely+1), dst...), nil
}

// tooLarge returns the error for a row whose line became too long at the column with the given index.
func (e *Encoder) tooLarge(values [][]byte, old []byte, column int) error {
	sizes := e.ColumnSizes(values, old)
	sum := int64(0)
	for _, n := range sizes {
		sum += n
	}
	// The sum of the estimates may be too low, since the length of an array's JSON is known only after the array is encoded.
	// The missing bytes are added to the column at which the line became too long.
	sizes[column] += max(0, int64(e.MaxLine)+1-sum)
	return &TooLargeError{sizes}
}

// ColumnSizes estimates how many bytes each column takes in the line. The number is exact for text, and for values that are
// copied from old. For any other column, it is the length of the text form. values and old are the parameters of
// [Encoder.AppendRow].
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

// quotedLength returns the number of bytes that appendString appends for text.
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
