package markdown

import "strings"

// Limits on a text that is parsed. They are far above what a chat model writes.
const (
	maxBytes      = 32 << 10
	maxDepth      = 16     // nesting levels of quotes and lists
	maxBrackets   = 2_000  // opening brackets; for each of them, goldmark searches for the closing bracket
	maxTableCells = 20_000 // lines × cells of the widest line; goldmark adds empty cells to a table's short rows, so every row can become this wide
)

// isSimple reports whether a text is within the limits. It may return false even for a harmless text, because a line of code
// can look like nested quotes.
func isSimple(source string) bool {
	if len(source) > maxBytes || strings.Count(source, "[") > maxBrackets {
		return false
	}
	lines, widest := 0, 0
	var lists []int // columns of the list items that may contain the current line, outermost first
	for line := range strings.Lines(source) {
		lines++
		widest = max(widest, strings.Count(line, "|"))
		markers, column := leadingMarkers(line)
		if markers > maxDepth {
			return false
		}
		if markers > 0 {
			for len(lists) > 0 && lists[len(lists)-1] >= column {
				lists = lists[:len(lists)-1]
			}
			lists = append(lists, column)
			if len(lists)+markers-1 > maxDepth {
				return false
			}
		}
	}
	return widest*lines <= maxTableCells
}

// leadingMarkers returns the number of quote markers and list markers at the start of a line, and the column of the first
// marker.
func leadingMarkers(line string) (markers, column int) {
	first := -1
	for i := 0; i < len(line); {
		length := markerLength(line[i:])
		switch {
		case line[i] == ' ' || line[i] == '\t':
			i++
		case length > 0:
			if first < 0 {
				first = i
			}
			markers++
			i += length
		default:
			return markers, max(first, 0)
		}
	}
	return markers, max(first, 0)
}

// markerLength returns the length of the quote marker or list marker at the start of text, or 0 if there is none.
func markerLength(text string) int {
	if text[0] == '>' {
		return 1
	}
	n := 0
	for n < len(text) && '0' <= text[n] && text[n] <= '9' {
		n++
	}
	if n < len(text) && (n == 0 && strings.IndexByte("-*+", text[n]) >= 0 || n > 0 && (text[n] == '.' || text[n] == ')')) {
		if n+1 == len(text) || strings.IndexByte(" \t\n", text[n+1]) >= 0 {
			return n + 1
		}
	}
	return 0
}
