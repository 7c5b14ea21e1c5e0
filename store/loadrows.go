package store

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store/disk"
	"capture/store/placement"
)

// fileRows puts the rows of a file into a Table, and records where they are in the file.
type fileRows struct {
	table    *snapshot.Table
	shape    *rowjson.Shape
	encoder  *rowjson.Encoder
	complete bool // whether the manifest has the SHA-256 of the whole file
	maxRow   int

	rows  int
	bytes int64 // bytes read so far

	// padded lists the rows that padding follows. Each of them is the last row of a region. If the padding is not as Write
	// makes it, placed is false, padded is empty, and the next Write writes the whole file.
	padded []paddedRow
	placed bool

	key, last rowjson.Key
	fields    [][]byte
	values    [][]byte // text forms of the key's columns, indexed like the shape's columns
	text      []byte   // buffer of the texts in values
}

// paddedRow is a row that padding follows.
type paddedRow struct {
	row     int // number of the row, from 0
	padding int // length of the padding in bytes
}

func newFileRows(t *snapshot.Table, l *Loading) (*fileRows, error) {
	encoder, err := rowjson.NewEncoder(l.Shape, false)
	if err != nil {
		return nil, err
	}
	return &fileRows{
		table: t, shape: l.Shape, encoder: encoder, complete: l.Manifest.SHA256 != "", maxRow: int(min(l.MaxRow, snapshot.MaxRowBytes)),
		placed: true, values: make([][]byte, len(l.Shape.Columns)),
	}, nil
}

// longestPadding is the maximum number of bytes of padding that a loaded file may have after a row.
const longestPadding = 16 << 20

// readAll reads the whole file and returns its digest.
func (r *fileRows) readAll(ctx context.Context, file io.Reader) (*digest, error) {
	d := newDigest(r.complete)
	hashing := newHashingReader(ctx, file, d)
	err := r.readRows(disk.NewLineScanner(hashing, r.maxRow+longestPadding))
	hashing.finish()
	if err != nil {
		return nil, err
	}
	return d, nil
}

// readRows reads the lines: "[", one line for each row, and "]"; or "[]" alone.
func (r *fileRows) readRows(lines *bufio.Scanner) error {
	line, err := r.readLine(lines)
	if err != nil {
		return err
	}
	if string(line) == "[]" {
		return r.readEnd(lines)
	}
	if string(line) != "[" {
		return errNotRow
	}
	for more := true; more; {
		if line, err = r.readLine(lines); err != nil {
			return err
		}
		if more, err = r.putLine(line); err != nil {
			return fmt.Errorf("row %d: %w", r.rows+1, err)
		}
	}
	if line, err = r.readLine(lines); err != nil {
		return err
	}
	if string(line) != "]" {
		return errNotRow
	}
	return r.readEnd(lines)
}

// readEnd returns an error unless all lines have been read.
func (r *fileRows) readEnd(lines *bufio.Scanner) error {
	if lines.Scan() {
		return errNotRow
	}
	return lineError(lines)
}

// readLine returns the next line, which is valid until the next call.
func (r *fileRows) readLine(lines *bufio.Scanner) ([]byte, error) {
	if !lines.Scan() {
		return nil, cmp.Or(lineError(lines), errNotRow)
	}
	line := lines.Bytes()
	r.bytes += int64(len(line)) + 1
	return line, nil
}

// lineError returns the error that has ended the Scanner, or nil if all lines have been read. If a line was too long or
// incomplete, the error is errNotRow.
func lineError(lines *bufio.Scanner) error {
	if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	} else if err != nil {
		return errNotRow
	}
	return nil
}

var (
	errNotRow   = errors.New("a line is not as capture writes it")
	errOrder    = errors.New("it is not in the order of the keys, or its key is there twice")
	errTooLarge = errors.New("it is larger than the memory for a row")
)

// putLine puts the row of a line into the Table. It reports whether another row follows.
func (r *fileRows) putLine(line []byte) (more bool, err error) {
	line, more = bytes.CutSuffix(line, []byte(","))
	body, ok := bytes.CutSuffix(line, []byte("}"))
	if !ok {
		return false, errNotRow
	}
	body = bytes.TrimRight(body, " ")
	padding := len(line) - len("}") - len(body)
	row := append(body, '}') // overwrites the brace or the first space of the padding in line
	if len(row) > r.maxRow {
		return false, errTooLarge
	}
	if err := r.parseKey(row); err != nil {
		return false, err
	}
	if r.rows > 0 && bytes.Compare(r.last, r.key) >= 0 {
		return false, errOrder
	}
	r.table.Put(r.key, row)
	if err := r.table.Err(); err != nil {
		return false, err
	}
	if padding > 0 {
		r.addPadding(padding, more)
	}
	r.last, r.key = r.key, r.last
	r.rows++
	return more, nil
}

// parseKey sets r.key to the key of a row. It returns an error if the row does not have exactly the columns of the shape.
func (r *fileRows) parseKey(row []byte) (err error) {
	var ok bool
	if r.fields, ok = r.encoder.AppendFields(r.fields[:0], row); !ok {
		return errNotRow
	}
	r.text = r.text[:0]
	for _, i := range r.shape.Key {
		value := r.fields[i]
		if len(value) == 0 || string(value) == "null" {
			return errNotRow
		}
		start := len(r.text)
		if r.text, err = rowjson.AppendText(r.text, &r.shape.Columns[i].Type, value); err != nil {
			return errNotRow
		}
		r.values[i] = r.text[start:len(r.text):len(r.text)]
	}
	if r.key, err = r.encoder.AppendKey(r.key[:0], r.values); err != nil {
		return errNotRow
	}
	return nil
}

// Pages that end at padding may be small, and each page takes some memory however small it is. Therefore the number of such
// pages is limited to freePaddedPages plus one page for every paddedPageBytes bytes of the file.
const (
	paddedPageBytes = 8 << 10
	freePaddedPages = 64
)

// addPadding records padding after the current row. Padding ends a region, so addPadding also ends the page of the row. A
// Write puts no padding after the last row, and makes only few small regions. If the file has other padding than a Write
// makes, addPadding drops the record, so that the next Write writes the whole file.
func (r *fileRows) addPadding(padding int, more bool) {
	if !more || int64(len(r.padded)-freePaddedPages)*paddedPageBytes > r.bytes {
		r.placed, r.padded = false, nil
	}
	if r.placed {
		r.padded = append(r.padded, paddedRow{r.rows, padding})
		r.table.EndPage()
	}
}

// layout returns the layout of the file, and the number of rows in each region. It returns nil if the file's padding is not
// where a Write puts it.
func (r *fileRows) layout(v *snapshot.View) (*placement.Layout, []int32) {
	if !r.placed {
		return nil, nil
	}
	var sized []placement.SizedPart
	var rows []int32
	end, padded := 0, r.padded
	for p := range v.Parts() {
		s := placement.SizedPart{Part: placement.Part{ID: p.ID(), Bytes: int64(p.Bytes())}}
		end += p.Rows()
		if len(padded) > 0 && padded[0].row == end-1 {
			s.Padding, padded = int64(padded[0].padding), padded[1:]
		}
		sized, rows = append(sized, s), append(rows, int32(p.Rows()))
	}
	layout := placement.Placed(sized)
	if len(padded) > 0 || layout.Bytes != r.bytes {
		return nil, nil
	}
	return layout, rows
}
