package placement

import (
	"bytes"
	"fmt"
	"slices"
)

// AppendPiece appends to b the bytes of piece i as they are in the file. appendRows appends the rows of the piece's Part, each
// with its comma and newline. For an empty table, appendRows is not called.
func (l *Layout) AppendPiece(b []byte, i int, appendRows func([]byte) ([]byte, error)) (_ []byte, err error) {
	if len(l.Regions) == 0 {
		return append(b, emptyFile...), nil
	}
	if i == 0 {
		b = append(b, opening...)
	}
	region, from := l.Regions[i], len(b)
	if b, err = appendRows(b); err != nil {
		return b, err
	}
	rows := int64(len(b) - from)
	if !bytes.HasSuffix(b[from:], []byte(rowEnd)) {
		return b, fmt.Errorf("place rows: the last of %d bytes is no row's end", rows)
	}
	if i == len(l.Regions)-1 {
		if rows-1 != region.Size {
			return b, fmt.Errorf("place rows: %d bytes in the last region of %d", rows-1, region.Size)
		}
		return append(append(b[:len(b)-len(",\n")], '\n'), closing...), nil
	}
	padding := int(region.Size - rows)
	if padding < 0 {
		return b, fmt.Errorf("place rows: %d bytes in a region of %d", rows, region.Size)
	}
	if padding > 0 {
		b = slices.Grow(b[:len(b)-len(rowEnd)], padding+len(rowEnd))
		for range padding {
			b = append(b, ' ')
		}
		b = append(b, rowEnd...)
	}
	return b, nil
}

// Span is a range of a file: the bytes from offset From up to, but not including, offset To.
type Span struct{ From, To int64 }

// ChangedSpans compares a file that has the layout l with an earlier file, which has the layout oldLayout. ChangedSpans
// returns the ranges in which the two files differ, widened to multiples of align. The ranges are in order and do not touch
// each other. The last range may end beyond the end of the file.
func (l *Layout) ChangedSpans(oldLayout *Layout, align int64) []Span {
	var spans []Span
	add := func(from, to int64) {
		from, to = from/align*align, (to+align-1)/align*align
		if n := len(spans); n > 0 && from <= spans[n-1].To {
			spans[n-1].To = max(spans[n-1].To, to)
			return
		}
		spans = append(spans, Span{from, to})
	}
	before := 0 // index in old.Regions
	for i, region := range l.Regions {
		for before < len(oldLayout.Regions) && oldLayout.Regions[before].Off < region.Off {
			before++
		}
		if before == len(oldLayout.Regions) || oldLayout.Regions[before] != region {
			add(l.PieceOff(i), region.End())
		}
	}
	if l.Bytes != oldLayout.Bytes {
		add(l.Bytes-int64(len(closing)), l.Bytes)
	}
	return spans
}
