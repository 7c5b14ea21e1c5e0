package loss

import (
	"bytes"
	"io"
)

// lineReader reads the rows of feedback.json.
type lineReader struct {
	from  io.Reader
	buf   []byte
	start int  // offset in buf of the bytes that next has not returned yet
	end   bool // whether all of from has been read
}

// next returns the next row: its line without the comma, the newline and the padding. The row is valid until the next call.
// After the last row, the error is io.EOF.
func (r *lineReader) next() ([]byte, error) {
	for scanned := 0; ; {
		if i := bytes.IndexByte(r.buf[r.start+scanned:], '\n'); i >= 0 {
			line := r.buf[r.start : r.start+scanned+i]
			r.start, scanned = r.start+scanned+i+1, 0
			switch row := trimRow(line); {
			case row != nil:
				return row, nil
			case string(line) != "[" && string(line) != "]" && string(line) != "[]":
				return nil, errNotRow
			}
			continue
		}
		scanned = len(r.buf) - r.start
		if r.end {
			if scanned > 0 {
				return nil, errNotRow
			}
			return nil, io.EOF
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads more of the file into buf.
func (r *lineReader) fill() error {
	const chunk = 1 << 20
	rest := r.buf[r.start:]
	if cap(r.buf)-len(rest) < chunk/2 {
		r.buf = append(make([]byte, 0, len(rest)+max(chunk, len(rest))), rest...)
	} else if r.start > 0 {
		r.buf = append(r.buf[:0], rest...)
	}
	r.start = 0
	n, err := r.from.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	if err == io.EOF {
		r.end, err = true, nil
	}
	return err
}

// trimRow returns the row in line without its comma and padding, or nil if line is not a row. It overwrites line.
func trimRow(line []byte) []byte {
	body, ok := bytes.CutSuffix(bytes.TrimSuffix(line, []byte(",")), []byte("}"))
	if !ok || len(body) == 0 || body[0] != '{' {
		return nil
	}
	body = bytes.TrimRight(body, " ")
	return append(body, '}') // this overwrites the old brace or a space
}
