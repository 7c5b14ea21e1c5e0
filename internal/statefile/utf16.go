package statefile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// utf16Reader converts UTF-16 to UTF-8. Windows PowerShell writes UTF-16 files, and so do many editors on Windows.
type utf16Reader struct {
	from  *bufio.Reader
	order binary.ByteOrder
	text  []byte // converted text that Read has not returned yet
	buf   []byte // buffer for the converted text, of which text is a slice
}

var (
	errUTF16    = errors.New("not valid UTF-16: half of a surrogate pair, which is not a character")
	errUTF16End = errors.New("the file is cut short: it ends within a character of UTF-16")
)

func newUTF16Reader(from *bufio.Reader, order binary.ByteOrder) *utf16Reader {
	return &utf16Reader{from: from, order: order, buf: make([]byte, 0, utf8.UTFMax*from.Size()/2)}
}

func (r *utf16Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.text) == 0 {
		if err := r.convert(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.text)
	r.text = r.text[n:]
	return n, nil
}

// convert converts at least one character, and all further characters that are available without another read. It stops
// before a character that is incomplete or invalid. If the first character is invalid, or if the input ends within it,
// convert returns an error.
func (r *utf16Reader) convert() error {
	if _, err := r.from.Peek(2); err != nil {
		return r.explainEnd(err)
	}
	in, _ := r.from.Peek(r.from.Buffered())
	out, used := r.buf[:0], 0
	for used+2 <= len(in) {
		c, size := rune(r.order.Uint16(in[used:])), 2
		if utf16.IsSurrogate(c) {
			if used+4 > len(in) {
				break
			}
			if c = utf16.DecodeRune(c, rune(r.order.Uint16(in[used+2:]))); c == utf8.RuneError {
				break
			}
			size = 4
		}
		out = utf8.AppendRune(out, c)
		used += size
	}
	r.from.Discard(used)
	r.text = out
	if used > 0 {
		return nil
	}
	// The first character is a surrogate. Either its other half is not in the buffer yet, or no other half follows.
	if _, err := r.from.Peek(4); err != nil {
		return r.explainEnd(err)
	}
	if len(in) < 4 {
		return r.convert()
	}
	return errUTF16
}

// explainEnd returns the error of a read that did not return a whole character.
func (r *utf16Reader) explainEnd(err error) error {
	if err == io.EOF && r.from.Buffered() > 0 {
		return errUTF16End
	}
	return err
}
