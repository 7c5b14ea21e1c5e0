package recovery

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// maxRow is how many bytes one row may have: Postgres takes no value of more than 1 GB.
const maxRow = 1 << 30

// reader reads an array of objects, one object at a time, in memory for one.
type reader struct {
	from  *bufio.Reader
	line  int64 // of the next byte, from 1
	rows  int   // read so far
	state readerState
	buf   []byte
}

type readerState uint8

const (
	atStart readerState = iota
	atFirst             // after "["
	atNext              // after a row
	atEnd               // after "]", and nothing but white space behind it
)

// row is one object of the file. It is valid until the next one is read.
type row struct {
	text []byte // "{…}", as it stands in the file
	line int64  // where it starts
}

func newReader(from io.Reader) *reader {
	return &reader{from: bufio.NewReaderSize(from, inputBuffer), line: 1}
}

// next is the next row, or io.EOF after the last one of a file that is whole. Errors start with the line. That a row's
// inside is JSON is for the caller to see, by members.
func (r *reader) next() (row, error) {
	row, err := r.read()
	if err != nil && err != io.EOF {
		return row, fmt.Errorf("line %d: %w", r.line, err)
	}
	return row, err
}

func (r *reader) read() (row, error) {
	if r.state == atStart {
		if err := r.open(); err != nil {
			return row{}, err
		}
	}
	if r.state == atEnd {
		return row{}, io.EOF
	}
	c, err := r.token()
	if err != nil {
		return row{}, cut(err)
	}
	switch {
	case c == ']':
		return row{}, r.close()
	case r.state == atNext && c != ',':
		return row{}, errors.New("not a JSON array: a comma or ] is missing before what stands here")
	case r.state == atNext:
		if c, err = r.token(); err != nil {
			return row{}, cut(err)
		}
	}
	if c != '{' {
		return row{}, errors.New("not an array of objects: here is something that does not start with {")
	}
	start := r.line
	if err := r.object(); err != nil {
		return row{line: start}, cut(err)
	}
	r.state = atNext
	r.rows++
	return row{text: r.buf, line: start}, nil
}

// open reads up to the array's bracket.
func (r *reader) open() error {
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
	r.state = atFirst
	return nil
}

// close sees to it that nothing stands behind the array.
func (r *reader) close() error {
	r.state = atEnd
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
func (r *reader) token() (byte, error) {
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
func (r *reader) object() error {
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
		if len(r.buf)+len(chunk) > maxRow {
			return fmt.Errorf("a row has more than %d bytes", maxRow)
		}
		r.buf = append(r.buf, chunk...)
		r.from.Discard(len(chunk))
	}
}
