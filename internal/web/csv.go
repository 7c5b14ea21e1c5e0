package web

import (
	"bufio"
	"bytes"
	"io"
	"unicode"
	"unicode/utf8"

	"capture/snapshot/rowjson"
)

// byteOrderMark at the start of a CSV file makes Excel read the file as UTF-8.
const byteOrderMark = "\uFEFF"

func writeExportCSV(w io.Writer, t tableView, rows func(put func(line []byte) error) error) error {
	b := bufio.NewWriterSize(w, 64<<10)
	record := []byte(byteOrderMark)
	for i := range t.shape.Columns {
		record = appendCell(record, i, appendDisarmed(nil, []byte(t.shape.Columns[i].Name)))
	}
	b.Write(append(record, "\r\n"...))
	text := []byte{} // never nil, which would mean NULL
	err := rows(func(line []byte) error {
		record = record[:0]
		for i := range t.shape.Columns {
			value := t.value(line, i)
			if value == nil || bytes.Equal(value, []byte("null")) {
				record = appendCell(record, i, nil)
				continue
			}
			text = appendCellText(text[:0], value, t.shape.Columns[i].Type.Kind)
			record = appendCell(record, i, text)
		}
		_, err := b.Write(append(record, "\r\n"...))
		return err
	})
	if err != nil {
		return err
	}
	return b.Flush()
}

// appendCell appends the cell of the column at index i, with its separator. NULL, for which text is nil, is an empty cell
// without quotes, as in Postgres' CSV. Every other cell is quoted, because some programs divide unquoted text at other
// separators than the comma.
func appendCell(dst []byte, i int, text []byte) []byte {
	if i > 0 {
		dst = append(dst, ',')
	}
	if text == nil {
		return dst
	}
	dst = append(dst, '"')
	for _, c := range text {
		if c == '"' {
			dst = append(dst, '"')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// appendCellText appends the text of a value's cell. A JSON string becomes its unquoted text, except in a JSON column. Any
// other value stays JSON.
func appendCellText(dst, value []byte, kind rowjson.Kind) []byte {
	isString := len(value) > 1 && value[0] == '"' && kind != rowjson.JSON
	switch {
	case kind == rowjson.Number && isString:
		return append(dst, unquoteJSON(value)...) // such as -Infinity
	case kind == rowjson.Number || kind == rowjson.Bool:
		return append(dst, value...)
	case isString:
		return appendDisarmed(dst, unquoteJSON(value))
	}
	return appendDisarmed(dst, value)
}

// appendDisarmed appends a text from users. It puts an apostrophe before each character that could start a formula in a
// spreadsheet.
//
// A formula starts at the start of a cell. On systems that separate lists by semicolons, Excel treats the commas and quotes
// of the file as text, and starts a cell after each semicolon, tab and line break of the text. Quotes, spaces and invisible
// characters may come before the formula. In some languages, the full-width forms of =, +, - and @ start a formula, too.
func appendDisarmed(dst, text []byte) []byte {
	atStart, first := true, true
	for ; len(text) > 0; first = false {
		c, size := utf8.DecodeRune(text)
		switch {
		case atStart && startsFormula(c):
			dst, atStart = append(dst, '\''), false
		case c == ';' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f':
			if first && c != ';' {
				// A program may drop this character at the start of a cell, and then read the rest of the cell as a formula.
				dst = append(dst, '\'')
			}
			atStart = true
		default:
			atStart = atStart && (c == '"' || isInvisible(c))
		}
		dst = append(dst, text[:size]...)
		text = text[size:]
	}
	return dst
}

// isInvisible reports whether c is a space or an invisible character.
func isInvisible(c rune) bool {
	const brailleBlank = '\u2800'
	return unicode.IsSpace(c) || !unicode.IsGraphic(c) || c == brailleBlank ||
		unicode.In(c, unicode.Mn, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}

// startsFormula reports whether spreadsheet programs may take a cell that starts with c for a formula.
func startsFormula(c rune) bool {
	switch c {
	case '=', '+', '-', '@', '＝', '＋', '－', '＠', '−', '﹢', '﹣', '﹦', '﹫':
		return true
	}
	return false
}
