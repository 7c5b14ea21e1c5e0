package rowjson

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// TestMaxLine checks, for columns of every kind, that a line of MaxLine bytes is encoded and that a longer line is refused.
// The sizes of the columns in the error must add up to more than MaxLine.
func TestMaxLine(t *testing.T) {
	text := Type{Kind: Text}
	shape := &Shape{Columns: []Column{
		{Name: "id", Type: Type{Kind: Number, OID: 23}}, {Name: "a", Type: text},
		{Name: "b", Type: Type{Kind: Array, Elem: &text, Delim: ','}}, {Name: "c", Type: Type{Kind: JSON}},
		{Name: "d", Type: Type{Kind: Composite, Fields: []Field{{Name: "f", Type: text}, {Name: "g", Type: text}}}},
		{Name: "e", Type: Type{Kind: Bool}},
	}, Key: []int{0}}
	// Each large value has more than largeRow bytes.
	huge := strings.Repeat("x\x01\"", 90_000)
	array := "{" + strings.Repeat(`"a	b",`, 45_000) + "c}"
	for name, values := range map[string][]string{
		"small":     {"1", "a\nb", "{a,b}", "[1]", "(x,y)", "t"},
		"text":      {"1", huge, "{a}", "{}", "(x,y)", "t"},
		"array":     {"1", "", array, "{}", "(x,y)", "f"},
		"json":      {"1", "", "{}", "[" + strings.Repeat("1,", 140_000) + "2]", "(x,y)", "f"},
		"composite": {"1", "", "{}", "{}", "(" + strings.Repeat("a\x02", 140_000) + ",y)", "f"},
		"unchanged": {"1", "", "{}", "{}", "(x,y)", "f"},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := NewEncoder(shape, false)
			if err != nil {
				t.Fatal(err)
			}
			row := make([][]byte, len(values))
			for i, v := range values {
				row[i] = []byte(v)
			}
			var old []byte
			if name == "unchanged" {
				row[1] = []byte(huge)
				if old, err = e.AppendRow(nil, row, nil); err != nil {
					t.Fatal(err)
				}
				row[1] = Unchanged
			}
			prefix := []byte("before")
			want, err := e.AppendRow(prefix, row, old)
			if err != nil {
				t.Fatal(err)
			}
			n := len(want) - len(prefix)
			e.MaxLine = n
			got, err := e.AppendRow(prefix, row, old)
			if err != nil || string(got) != string(want) {
				t.Fatalf("a line of MaxLine bytes: %v, or another line", err)
			}
			for _, limit := range []int{n - 1, n / 2, n / 10, 1} {
				e.MaxLine = limit
				got, err := e.AppendRow(prefix, row, old)
				var tooLarge *TooLargeError
				if !errors.As(err, &tooLarge) || string(got) != string(prefix) {
					t.Fatalf("a line of %d bytes where %d are allowed: %v", n, limit, err)
				}
				sum := int64(0)
				for _, size := range tooLarge.Sizes {
					sum += size
				}
				if sum <= int64(limit) || len(tooLarge.Sizes) != len(row) {
					t.Errorf("the sizes %v do not exceed %d", tooLarge.Sizes, limit)
				}
			}
		})
	}
}

// TestLargeLineAllocations checks that a large line gets its memory in a single allocation, and that a line longer than
// MaxLine is refused before any memory is allocated for it. It also checks that quotedLength returns the exact length.
func TestLargeLineAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("encodes very large rows")
	}
	e, err := NewEncoder(&Shape{Columns: []Column{{Name: "a", Type: Type{Kind: Text}}}, Key: []int{0}}, false)
	if err != nil {
		t.Fatal(err)
	}
	row := [][]byte{[]byte(strings.Repeat("\x01", 2<<20))}
	allocatedBytes := func() uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = e.AppendRow(nil, row, nil)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if n := allocatedBytes(); err != nil || n > 13<<20 {
		t.Errorf("a line of 12 MiB takes %d bytes of memory; error: %v", n, err)
	}
	e.MaxLine = 10 << 20
	if n := allocatedBytes(); err == nil || n > 64<<10 {
		t.Errorf("a line that is too long takes %d bytes of memory; error: %v", n, err)
	}
	if want, got := len(appendString(nil, row[0])), quotedLength(row[0]); got != want {
		t.Errorf("quotedLength is %d; want %d", got, want)
	}
	mixed := []byte(fmt.Sprint("a\"b\\c\n\t\x01\x1f é ", strings.Repeat("\x7f\b", 9)))
	if want, got := len(appendString(nil, mixed)), quotedLength(mixed); got != want {
		t.Errorf("quotedLength is %d; want %d", got, want)
	}
}
