package disk

import (
	"bufio"
	"bytes"
	"io"
)

// NewLineScanner returns a Scanner for the lines of a large file. If a line has more than about maxLine bytes, the Scanner's
// error is [bufio.ErrTooLong]. If the last line has no newline, the error is [io.ErrUnexpectedEOF].
func NewLineScanner(from io.Reader, maxLine int) *bufio.Scanner {
	s := bufio.NewScanner(from)
	s.Buffer(make([]byte, ChunkBytes), maxLine)
	scanned := 0 // number of bytes of the current line that are known to contain no newline
	s.Split(func(data []byte, atEOF bool) (advance int, line []byte, err error) {
		if i := bytes.IndexByte(data[scanned:], '\n'); i >= 0 {
			end := scanned + i
			scanned = 0
			return end + 1, data[:end], nil
		}
		scanned = len(data)
		if atEOF && len(data) > 0 {
			return 0, nil, io.ErrUnexpectedEOF
		}
		return 0, nil, nil
	})
	return s
}
