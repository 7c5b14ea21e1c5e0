package statefile

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"capture/snapshot/rowjson"
)

const (
	// maxMembers is the maximum number of members of a row. Postgres allows no table with more columns (MaxHeapAttributeNumber).
	maxMembers = 1600
	// maxKeptBuffer is the maximum size in bytes of a buffer that is kept for the next row.
	maxKeptBuffer = 16 << 20
)

// decoding accepts what Postgres' type json accepts, such as repeated names and escapes that are half of a surrogate pair.
// The decoder treats such an escape as invalid UTF-8, so the options must allow invalid UTF-8. readRow itself refuses bytes
// that are not valid UTF-8.
var decoding = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// A Reader reads the objects of a file one at a time. The file is a JSON array of objects, or the objects follow one another
// without an array (JSON lines), whatever the white space between them.
type Reader struct {
	input      *rowInput
	decoder    *jsontext.Decoder
	maxRow     int // maximum size of a row in bytes
	state      readerState
	noArray    bool  // whether the objects follow one another without an array
	mayBeEmpty bool  // whether a file of zero bytes is a table without rows, according to its manifest
	line       int64 // line of the next token, from 1
	rows       int   // number of rows read so far

	nullColumns []nullColumn // columns that AddNulls adds to the rows that lack them

	text    []byte   // text of the current row
	ends    []int    // offsets in text at which names and values end, alternately
	members []Member // members of the current row
	large   bool     // whether the row has a value of more than maxKeptBuffer bytes
}

type readerState uint8

const (
	atStart    readerState = iota
	atFirstRow             // after "["
	atNextRow              // after a row
	atEnd                  // after "]" and the white space at the end of the file
)

// Row is one object of the file. It is valid until the next row is read.
type Row struct {
	Line    int64    // line of the file on which the object starts, from 1
	Text    []byte   // object, without the white space between its names and values
	Members []Member // members in the order of the file
}

// Member is a name and its value in an object.
type Member struct {
	Name  []byte // unescaped
	Value []byte // JSON, exactly as in the file
}

// FindMember returns the value of the first member with the given name, or nil if there is none. hint is the likely index of
// the member.
func FindMember(members []Member, name string, hint int) []byte {
	if i := findIndex(members, name, hint); i >= 0 {
		return members[i].Value
	}
	return nil
}

// NewReader returns a Reader that reads its JSON from the given io.Reader.
func NewReader(from io.Reader) *Reader {
	maxRow := int(min(maxRowBytes, memoryLimit()/memoryPerRow))
	input := &rowInput{from: bufio.NewReaderSize(from, bufferSize), left: maxRow, free: freeRowBytes}
	r := &Reader{input: input, decoder: jsontext.NewDecoder(input, decoding...), maxRow: maxRow, line: 1}
	if f, ok := from.(*File); ok {
		if f.compression != notCompressed {
			input.compressed = f.raw
		}
		r.mayBeEmpty = f.manifest != nil && f.manifest.Bytes == 0
	}
	return r
}

// ParseRow parses text as a single row.
func ParseRow(text []byte) (Row, error) {
	r := NewReader(bytes.NewReader(text))
	if r.peekKind() != '{' {
		return Row{}, errSyntax
	}
	row, err := r.readRow()
	if err == nil {
		if _, end := r.decoder.ReadToken(); end != io.EOF {
			err = errSyntax
		}
	}
	return row, err
}

// Rows returns the number of rows read so far.
func (r *Reader) Rows() int { return r.rows }

// These errors describe what is wrong with a file. The texts of the decoder's own errors quote the input, which contains
// users' texts. Therefore, the Reader takes only offsets from the decoder's errors.
var (
	errSyntax        = errors.New("not valid JSON")
	errUTF8          = errors.New("not valid UTF-8; if the file is in another encoding, convert it first (iconv -t UTF-8)")
	errCutShort      = errors.New("the file is cut short: it ends within the array")
	errRowCutShort   = errors.New("the file is cut short: it ends within a row")
	errNotObject     = errors.New("not an array of objects: what is here does not start with {")
	errTrailingComma = errors.New("a comma stands before ]: take the comma out")
	errNoComma       = errors.New("not a JSON array: a comma or ] is missing here")
	errCommaNoArray  = errors.New("a comma stands between objects that are in no array: put [ before the first and ] after the last")
	errNoObject      = errors.New("neither a JSON array nor one object after another: what is here does not start with {")
	errEmptyFile     = errors.New("the file is empty; a table without rows is []")
	errAfterEnd      = errors.New("there is something after the end of the array")
	errMembers       = fmt.Errorf("a row has more than %d members, and no table has so many columns", maxMembers)
)

// Next returns the next row, or io.EOF after the last row of a complete file. Any other error starts with the line number.
func (r *Reader) Next() (Row, error) {
	if r.state == atStart {
		if err := r.readStart(); err != nil {
			return Row{}, r.atLine(err)
		}
	}
	if r.state == atEnd {
		return Row{}, io.EOF
	}
	kind := r.peekKind()
	if kind == '{' {
		row, err := r.readRow()
		if err != nil {
			return row, &UnreadableError{fmt.Errorf("line %d: %w", row.Line, err)}
		}
		r.state = atNextRow
		r.rows++
		return row, nil
	}
	if err := r.readEnd(kind); err != nil {
		return Row{}, r.atLine(err)
	}
	r.state = atEnd
	return Row{}, io.EOF
}

func (r *Reader) atLine(err error) error {
	return &UnreadableError{fmt.Errorf("line %d: %w", r.line, err)}
}

// readStart reads the byte order mark, if there is one, and the bracket that opens the array, if there is one.
func (r *Reader) readStart() error {
	if mark, _ := r.input.from.Peek(3); string(mark) == "\uFEFF" {
		r.input.from.Discard(3)
	}
	line := r.line
	switch r.peekKind() {
	case '[':
		r.decoder.ReadToken()
		r.state = atFirstRow
		return nil
	case '{':
		r.noArray, r.state, r.line = true, atFirstRow, line // r.line goes back, because Next counts the lines before the brace again
		return nil
	case jsontext.KindInvalid:
		if _, err := r.decoder.ReadToken(); err == io.EOF {
			if r.mayBeEmpty {
				r.noArray, r.state = true, atFirstRow
				return nil
			}
			return errEmptyFile
		}
	}
	return cmp.Or(r.input.err, describeText(r.decoder.UnreadBuffer()))
}

// readEnd reads what follows the last row. It returns an error if the array does not end there, or if anything follows the
// array. In a file without an array, nothing may follow the last row. kind is the kind of the next token, as peekKind has
// returned it.
func (r *Reader) readEnd(kind jsontext.Kind) error {
	comma := r.state == atNextRow && r.commaAhead()
	trailing := comma && isTrailingComma(r.decoder.UnreadBuffer())
	_, err := r.decoder.ReadToken()
	if r.noArray {
		switch {
		case err == io.EOF:
			return nil
		case comma:
			return errCommaNoArray
		}
		return cmp.Or(r.input.err, errNoObject)
	}
	switch {
	case kind == ']':
		r.peekKind()
		if _, err := r.decoder.ReadToken(); err != io.EOF {
			return cmp.Or(r.input.err, errAfterEnd)
		}
		return nil
	case trailing:
		return errTrailingComma
	case r.state == atNextRow && !comma:
		return r.explain(err, errNoComma)
	}
	return r.explain(err, errNotObject)
}

// isTrailingComma reports whether the next token after a comma is the end of an array or object.
func isTrailingComma(text []byte) bool {
	text = bytes.TrimLeft(text, " \n\t\r,")
	return len(text) > 0 && (text[0] == ']' || text[0] == '}')
}

// readRow reads an object. It copies each name and value, because the decoder reuses its buffer for the next name or value.
func (r *Reader) readRow() (Row, error) {
	if cap(r.text) > maxKeptBuffer {
		r.text = nil
	}
	r.text, r.ends, r.members = append(r.text[:0], '{'), r.ends[:0], r.members[:0]
	r.input.left, r.input.used = r.maxRow, 0
	row := Row{Line: r.line}
	r.decoder.ReadToken() // opening brace, which peekKind has seen
	start := r.decoder.InputOffset() - 1
	for r.peekKind() != '}' {
		if len(r.ends) == 2*maxMembers {
			return row, errMembers
		}
		if len(r.ends) > 0 {
			r.text = append(r.text, ',')
		}
		err := r.copyValue()
		if err == nil {
			r.text = append(r.text, ':')
			r.peekKind()
			err = r.copyValue()
		}
		if err != nil {
			return row, r.explainRow(err, start)
		}
	}
	r.decoder.ReadToken()
	r.text = append(r.text, '}')
	if !utf8.Valid(r.text) {
		return row, errUTF8
	}
	if err := r.splitMembers(); err != nil {
		return row, err
	}
	if r.large {
		r.replaceDecoder()
	}
	r.addNulls()
	row.Text, row.Members = r.text, r.members
	return row, nil
}

// peekKind returns the kind of the next token and counts the newlines before that token. It must be called exactly once per
// token, before the token is read.
func (r *Reader) peekKind() jsontext.Kind {
	kind := r.decoder.PeekKind()
	for _, c := range r.decoder.UnreadBuffer() {
		switch c {
		case '\n':
			r.line++
		case ' ', '\t', '\r', ',', ':':
		default:
			return kind
		}
	}
	return kind
}

// commaAhead reports whether the next byte that is not white space is a comma.
func (r *Reader) commaAhead() bool {
	return bytes.HasPrefix(bytes.TrimLeft(r.decoder.UnreadBuffer(), " \n\t\r"), []byte{','})
}

// copyValue appends the next name or value to the row.
func (r *Reader) copyValue() error {
	value, err := r.decoder.ReadValue()
	if err != nil {
		return err
	}
	if c := value[0]; c == '{' || c == '[' {
		r.line += int64(bytes.Count(value, []byte{'\n'})) // strings and numbers contain no newlines
	}
	r.large = r.large || len(value) > maxKeptBuffer
	r.text = append(r.text, value...)
	r.ends = append(r.ends, len(r.text))
	return nil
}

// splitMembers splits the text of the row into its members, at the ends that copyValue has recorded.
func (r *Reader) splitMembers() error {
	start := len("{")
	for i := 0; i < len(r.ends); i += 2 {
		nameEnd, valueEnd := r.ends[i], r.ends[i+1]
		name := r.text[start:nameEnd]
		if bytes.IndexByte(name, '\\') < 0 {
			name = name[1 : len(name)-1]
		} else {
			var err error
			if name, err = rowjson.AppendUnescaped(nil, name); err != nil {
				return fmt.Errorf("a name in the row: %w", err)
			}
		}
		r.members = append(r.members, Member{name, r.text[nameEnd+len(":") : valueEnd : valueEnd]})
		start = valueEnd + len(",")
	}
	return nil
}

// replaceDecoder replaces the decoder after a row with a large value, because the buffer of a decoder never shrinks. The new
// decoder starts in the state of the old decoder: after an element of an array, if the file is an array.
func (r *Reader) replaceDecoder() {
	rest := io.MultiReader(bytes.NewReader(bytes.Clone(r.decoder.UnreadBuffer())), r.input)
	r.large = false
	if r.noArray {
		r.decoder = jsontext.NewDecoder(rest, decoding...)
		return
	}
	r.decoder = jsontext.NewDecoder(io.MultiReader(strings.NewReader("[null"), rest), decoding...)
	r.decoder.ReadToken()
	r.decoder.ReadToken()
}

// explainRow returns the reason why the decoder stopped within a row. start is the offset in the decoder's input at which
// the row begins.
func (r *Reader) explainRow(err error, start int64) error {
	reason := errSyntax
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		reason = fmt.Errorf("%w, at byte %d of the row", errSyntax, syntactic.ByteOffset-start+1)
		rest := r.decoder.UnreadBuffer()
		if at := syntactic.ByteOffset - r.decoder.InputOffset(); at >= 0 && at < int64(len(rest)) {
			if advice := describeSyntax(rest[at:], r.commaAhead() && isTrailingComma(rest)); advice != "" {
				reason = fmt.Errorf("%w: %s", reason, advice)
			}
		}
	}
	return r.explain(err, reason)
}

// explain returns the reason why the decoder stopped: the error of the input, the end of the file, or otherwise the given
// reason. It does not use err's text, which may quote the file.
func (r *Reader) explain(err, reason error) error {
	switch {
	case r.input.err != nil:
		return r.input.err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		if r.noArray {
			return errRowCutShort
		}
		return errCutShort
	}
	return reason
}
