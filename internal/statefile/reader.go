package statefile

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"capture/internal/cgroup"
	"capture/snapshot/rowjson"
)

const (
	// maxRowBytes bounds one row: Postgres takes no value of more than 1 GB.
	maxRowBytes = 1 << 30
	// maxMembers bounds the members of a row: a table of Postgres has no more columns (MaxHeapAttributeNumber).
	maxMembers = 1600
	// A row of a gzip file may have freeRowBytes and maxRatio times what has been read of the compressed file. Text compresses
	// to a third or a tenth, generated text to a hundredth; gzip itself reaches 1,032.
	freeRowBytes = 64 << 20
	maxRatio     = 250
	// memoryPerRow is how many times a row may be in memory, at most, while it is read and restored. A restore of a row of
	// 100 MB takes 430 MB in all.
	memoryPerRow = 6
	// maxKeptBuffer is the size from which a buffer is dropped after the row that needed it.
	maxKeptBuffer = 16 << 20
)

// decoding accepts what Postgres' json accepts: repeated names, and halves of surrogate pairs as escapes. The decoder takes
// those for invalid UTF-8; raw bytes that are not UTF-8 are refused by readRow.
var decoding = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// A Reader reads an array of objects, one object at a time.
type Reader struct {
	input   *rowInput
	decoder *jsontext.Decoder
	maxRow  int // bytes of a row
	state   readerState
	line    int64 // of the next token, from 1
	rows    int   // rows read so far

	text    []byte   // text of the current row
	ends    []int    // ends in text of its names and values, alternately
	members []Member // members of the current row
	large   bool     // whether the row has a value of more than maxKeptBuffer bytes
}

type readerState uint8

const (
	atStart    readerState = iota
	atFirstRow             // after "["
	atNextRow              // after a row
	atEnd                  // after "]", if only white space follows
)

// Row is one object of the file. It is valid until the next row is read.
type Row struct {
	Line    int64    // line of the file on which the object starts, from 1
	Text    []byte   // the object, without the white space between its names and values
	Members []Member // in the order of the file
}

// Member is a name and a value of an object.
type Member struct {
	Name  []byte // unescaped
	Value []byte // JSON, exactly as in the file
}

// FindMember returns the value of the first member called name, or nil if there is none. hint is where the member is likely
// to be.
func FindMember(members []Member, name string, hint int) []byte {
	if hint < len(members) && string(members[hint].Name) == name {
		return members[hint].Value
	}
	for _, m := range members {
		if string(m.Name) == name {
			return m.Value
		}
	}
	return nil
}

// memoryLimit is what the memory of the process is limited to, as it was at the first call.
var memoryLimit = sync.OnceValue(cgroup.MemoryLimit)

// NewReader returns a Reader of the JSON that from yields.
func NewReader(from io.Reader) *Reader {
	maxRow := int(min(maxRowBytes, memoryLimit()/memoryPerRow))
	input := &rowInput{from: bufio.NewReaderSize(from, bufferSize), left: maxRow}
	if f, ok := from.(*File); ok && f.gzipped {
		input.compressed = f.compressed
	}
	return &Reader{input: input, decoder: jsontext.NewDecoder(input, decoding...), maxRow: maxRow, line: 1}
}

// ParseRow returns the row that text is.
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

// The errors for what is wrong with a file. The decoder's own errors quote the input, which holds users' texts: only their
// offset is used.
var (
	errSyntax     = errors.New("not valid JSON")
	errUTF8       = errors.New("not valid UTF-8")
	errCutShort   = errors.New("the file is cut short: it ends within the array")
	errNotObject  = errors.New("not an array of objects: what is here does not start with {")
	errNoComma    = errors.New("not a JSON array: a comma or ] is missing here")
	errNoArray    = errors.New("the file is not a JSON array: it does not start with [")
	errOneObject  = errors.New("the file is a JSON object, not an array of objects")
	errEmptyFile  = errors.New("the file is empty; a table without rows is []")
	errAfterEnd   = errors.New("there is something after the end of the array")
	errRowTooLong = errors.New("a row is too long for Postgres, or for the memory of this process")
	errMembers    = fmt.Errorf("a row has more than %d members, and no table has so many columns", maxMembers)
	errRatio      = fmt.Errorf("a row has more than %d times the bytes of the compressed file; if the file is as it should be, decompress it first (gunzip)", maxRatio)
)

// Next returns the next row, or io.EOF after the last row of a complete file. Other errors start with the line.
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
	switch kind {
	case '{':
		row, err := r.readRow()
		if err != nil {
			return row, fmt.Errorf("line %d: %w", row.Line, err)
		}
		r.state = atNextRow
		r.rows++
		return row, nil
	case ']':
		return Row{}, r.readEnd()
	}
	reason := errNotObject
	if r.state == atNextRow && !r.commaAhead() {
		reason = errNoComma
	}
	if kind == jsontext.KindInvalid {
		_, err := r.decoder.ReadToken()
		reason = r.explain(err, reason)
	}
	return Row{}, r.atLine(reason)
}

func (r *Reader) atLine(err error) error { return fmt.Errorf("line %d: %w", r.line, err) }

// readStart reads the byte order mark, if there is one, and the bracket that opens the array.
func (r *Reader) readStart() error {
	if mark, _ := r.input.from.Peek(3); string(mark) == "\uFEFF" {
		r.input.from.Discard(3)
	}
	switch r.peekKind() {
	case '[':
		r.decoder.ReadToken()
		r.state = atFirstRow
		return nil
	case '{':
		return errOneObject
	case jsontext.KindInvalid:
		if _, err := r.decoder.ReadToken(); err == io.EOF {
			return errEmptyFile
		}
	}
	return cmp.Or(r.input.err, errNoArray)
}

// readEnd reads the bracket that closes the array and makes sure that nothing follows it.
func (r *Reader) readEnd() error {
	r.decoder.ReadToken()
	r.peekKind()
	if _, err := r.decoder.ReadToken(); err != io.EOF {
		return r.atLine(cmp.Or(r.input.err, errAfterEnd))
	}
	r.state = atEnd
	return io.EOF
}

// readRow reads an object. It copies names and values, since the decoder reuses its buffer with each of them.
func (r *Reader) readRow() (Row, error) {
	if cap(r.text) > maxKeptBuffer {
		r.text = nil
	}
	r.text, r.ends, r.members = append(r.text[:0], '{'), r.ends[:0], r.members[:0]
	r.input.left, r.input.used = r.maxRow, 0
	row := Row{Line: r.line}
	r.decoder.ReadToken() // the brace that peekKind has seen
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
	row.Text, row.Members = r.text, r.members
	return row, nil
}

// peekKind returns the kind of the next token and counts the newlines before it. It is called once for each token, before the
// token is read.
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
		r.line += int64(bytes.Count(value, []byte{'\n'})) // strings and numbers have none
	}
	r.large = r.large || len(value) > maxKeptBuffer
	r.text = append(r.text, value...)
	r.ends = append(r.ends, len(r.text))
	return nil
}

// splitMembers finds the members in the row's text, at the ends that copyValue recorded.
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

// replaceDecoder drops the decoder's buffer, which never shrinks, after a row with a large value. The new decoder is in the
// state of the old one: after an element of an array.
func (r *Reader) replaceDecoder() {
	unread := bytes.Clone(r.decoder.UnreadBuffer())
	r.decoder = jsontext.NewDecoder(io.MultiReader(strings.NewReader("[null"), bytes.NewReader(unread), r.input), decoding...)
	r.decoder.ReadToken()
	r.decoder.ReadToken()
	r.large = false
}

// explainRow returns why the decoder stopped within the row that starts at an offset of the decoder's input.
func (r *Reader) explainRow(err error, start int64) error {
	reason := errSyntax
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		reason = fmt.Errorf("%w, at byte %d of the row", errSyntax, syntactic.ByteOffset-start+1)
	}
	return r.explain(err, reason)
}

// explain returns why the decoder stopped: the error of the input, the end of the file, or else the reason given. Nothing of
// err's text is used.
func (r *Reader) explain(err, reason error) error {
	switch {
	case r.input.err != nil:
		return r.input.err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errCutShort
	}
	return reason
}

// rowInput passes the file on to the decoder, and bounds what it may read for one row.
type rowInput struct {
	from       *bufio.Reader
	compressed *countingReader // the compressed file; nil if it is plain
	left       int             // bytes that may be read for the current row
	used       int             // bytes that have been read for it
	err        error           // why reading failed; nil at the end of the file
}

func (in *rowInput) Read(p []byte) (int, error) {
	switch {
	case in.left <= 0:
		in.err = fmt.Errorf("%w: it has more than %d bytes", errRowTooLong, in.used)
		return 0, in.err
	case in.compressed != nil && int64(in.used) > freeRowBytes+maxRatio*in.compressed.bytes:
		in.err = errRatio
		return 0, in.err
	}
	// A decoder with a large buffer must not read far ahead: see replaceDecoder.
	n, err := in.from.Read(p[:min(len(p), in.left, bufferSize)])
	in.left, in.used = in.left-n, in.used+n
	if err != nil && err != io.EOF {
		in.err = err
	}
	return n, err
}

// countingReader counts the bytes that are read.
type countingReader struct {
	from  io.Reader
	bytes int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.bytes += int64(n)
	return n, err
}
