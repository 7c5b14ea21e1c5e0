package loss

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"

	"capture/store/disk"
)

// rowReader reads the rows of feedback.json, or of some of its regions.
type rowReader struct{ lines *bufio.Scanner }

func newRowReader(from io.Reader) rowReader {
	return rowReader{disk.NewLineScanner(from, math.MaxInt)} // a row may have any length
}

// next returns the next row: its line without the comma, the newline and the padding. The row is valid until the next call.
// After the last row, the error is io.EOF.
func (r rowReader) next() ([]byte, error) {
	for r.lines.Scan() {
		line := r.lines.Bytes()
		if row := trimRow(line); row != nil {
			return row, nil
		}
		if text := string(line); text != "[" && text != "]" && text != "[]" {
			return nil, errNotRow
		}
	}
	switch err := r.lines.Err(); {
	case err == nil:
		return nil, io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errNotRow
	default:
		return nil, err
	}
}

// trimRow returns the row in line without its comma and padding, or nil if line is not a row. It overwrites line.
func trimRow(line []byte) []byte {
	body, ok := bytes.CutSuffix(bytes.TrimSuffix(line, []byte(",")), []byte("}"))
	if !ok || len(body) == 0 || body[0] != '{' {
		return nil
	}
	body = bytes.TrimRight(body, " ")
	return append(body, '}') // overwrites a byte of line: the closing brace, or the first space of the padding
}
