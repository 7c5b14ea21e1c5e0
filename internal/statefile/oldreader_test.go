package statefile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// A Reader reads an array of objects, one object at a time, in memory for one.
type oldReader struct {
	from  *bufio.Reader
	line  int64 // of the next byte, from 1
	rows  int   // read so far
	state oldState
	buf   []byte

	members []Member // members of the current row
}

type oldState uint8

const (
	oldAtStart oldState = iota
	oldAtFirst          // after "["
	oldAtNext           // after a row
	oldAtEnd            // after "]", and nothing but white space behind it
)

// NewReader returns a Reader of the JSON that from yields.
func newOldReader(from io.Reader) *oldReader {
	return &oldReader{from: bufio.NewReaderSize(from, bufferSize), line: 1}
}

// Next returns the next row, or io.EOF after the last row of a complete file. Other errors start with the line.
func (r *oldReader) Next() (Row, error) {
	row, err := r.read()
	if err == nil {
		if r.members, err = members(r.members[:0], row.Text); err != nil {
			return row, fmt.Errorf("line %d: %w", row.Line, err)
		}
		row.Members = r.members
	}
	if err != nil && err != io.EOF {
		return row, fmt.Errorf("line %d: %w", r.line, err)
	}
	return row, err
}

func (r *oldReader) read() (Row, error) {
	if r.state == oldAtStart {
		if err := r.open(); err != nil {
			return Row{}, err
		}
	}
	if r.state == oldAtEnd {
		return Row{}, io.EOF
	}
	c, err := r.token()
	if err != nil {
		return Row{}, cut(err)
	}
	switch {
	case c == ']':
		return Row{}, r.close()
	case r.state == oldAtNext && c != ',':
		return Row{}, errors.New("not a JSON array: a comma or ] is missing before what stands here")
	case r.state == oldAtNext:
		if c, err = r.token(); err != nil {
			return Row{}, cut(err)
		}
	}
	if c != '{' {
		return Row{}, errors.New("not an array of objects: here is something that does not start with {")
	}
	start := r.line
	if err := r.object(); err != nil {
		return Row{Line: start}, cut(err)
	}
	r.state = oldAtNext
	r.rows++
	return Row{Text: r.buf, Line: start}, nil
}

// open reads up to the array's bracket.
func (r *oldReader) open() error {
	if mark, _ := r.from.Peek(3); bytes.Equal(mark, []byte("\uFEFF")) {
		r.from.Discard(3)
	}
	c, err := r.token()
	switch {
	case err == io.EOF:
		return errors.New("the file is empty; a table without rows is []")
	case err != nil:
		return err
	case c == '{':
		return errors.New("the file is a JSON object, not an array of objects")
	case c != '[':
		return errors.New("the file is no JSON array: it does not start with [")
	}
	r.state = oldAtFirst
	return nil
}

// close sees to it that nothing stands behind the array.
func (r *oldReader) close() error {
	r.state = oldAtEnd
	if _, err := r.token(); err != io.EOF {
		if err == nil {
			err = errors.New("something stands behind the end of the array")
		}
		return err
	}
	return io.EOF
}

// cut is err, where the file's end came too early.
func cut(err error) error {
	if err == io.EOF {
		return errors.New("the file is cut short: it ends within the array")
	}
	return err
}

// token takes the next byte that is no white space.
func (r *oldReader) token() (byte, error) {
	for {
		c, err := r.from.ReadByte()
		if err != nil {
			return 0, err
		}
		switch c {
		case '\n':
			r.line++
		case ' ', '\t', '\r':
		default:
			return c, nil
		}
	}
}

// object reads the rest of an object, whose brace has been taken, into buf. Only strings and braces matter for where it
// ends.
func (r *oldReader) object() error {
	if cap(r.buf) > 16<<20 {
		r.buf = nil // one large row must not be kept for ever
	}
	r.buf = append(r.buf[:0], '{')
	depth, inString, escaped := 1, false, false
	for {
		if _, err := r.from.Peek(1); err != nil {
			return err
		}
		chunk, _ := r.from.Peek(r.from.Buffered())
		for i := 0; i < len(chunk); i++ {
			c := chunk[i]
			switch {
			case c == '\n':
				r.line++
				escaped = false
			case escaped:
				escaped = false
			case inString:
				for plain[c] && i+1 < len(chunk) {
					i++
					c = chunk[i]
				}
				switch c {
				case '"':
					inString = false
				case '\\':
					escaped = true
				case '\n':
					r.line++
				}
			case c == '"':
				inString = true
			case c == '{' || c == '[':
				depth++
			case c == '}' || c == ']':
				if depth--; depth == 0 {
					r.buf = append(r.buf, chunk[:i+1]...)
					r.from.Discard(i + 1)
					return nil
				}
			}
		}
		if len(r.buf)+len(chunk) > maxRowBytes {
			return fmt.Errorf("a row has more than %d bytes", maxRowBytes)
		}
		r.buf = append(r.buf, chunk...)
		r.from.Discard(len(chunk))
	}
}
