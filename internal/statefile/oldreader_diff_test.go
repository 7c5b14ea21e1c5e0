package statefile

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// rowList is all that a reader says of a file: its rows, and whether it takes the file.
func rowList(next func() (Row, error)) (rows []string, err error) {
	for {
		row, err := next()
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return rows, err
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%d", row.Line)
		for _, m := range row.Members {
			fmt.Fprintf(&b, "|%s|%s", m.Name, m.Value)
		}
		rows = append(rows, b.String())
	}
}

func diffReaders(t *testing.T, file []byte, chunked int) {
	t.Helper()
	wrap := func(r io.Reader) io.Reader {
		switch chunked {
		case 1:
			return iotest.OneByteReader(r)
		case 2:
			return iotest.HalfReader(r)
		case 3:
			return iotest.DataErrReader(r)
		}
		return r
	}
	want, wantErr := rowList(newOldReader(bytes.NewReader(file)).Next)
	got, err := rowList(NewReader(wrap(bytes.NewReader(file))).Next)
	if (err == nil) != (wantErr == nil) || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("%q:\nold %q, %v\nnew %q, %v", file, want, wantErr, got, err)
	}
}

func FuzzReaderDiff(f *testing.F) {
	for _, s := range []string{"[]", "[\n]\n", "", " ", "{}", "x", "[1]", "[] x", "[{}", "[{}] x", "[", "[{\"id\":1}", "[{\"a\":1},]", "[,{}]", "[{} {}]", "[{},{}]", "\uFEFF[]",
		"[\n{\"a\":\"\\ud800\"},\n{\"a\":1,\"a\":2}\n]\n", "[{\"\\u0061\":12345678901234567890.000, \"b\" : 1e400 , \"c\":[ 1,\n2 ]}]", "[{\"\\u0000\":1}]", "[{\"\\ud800\":1}]", "[{\"a\":\"\xff\"}]"} {
		f.Add([]byte(s), byte(0))
	}
	f.Fuzz(func(t *testing.T, file []byte, chunked byte) { diffReaders(t, file, int(chunked%4)) })
}

func TestReaderDiff(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	space := func() string { return []string{"", "", "", " ", "\n", "\r\n\t "}[r.IntN(6)] }
	var value func(depth int) string
	str := func() string {
		var b strings.Builder
		for range r.IntN(6) {
			b.WriteString([]string{"a", "é", "🗳", `\n`, `\\`, `\"`, `\/`, `\u0041`, `\ud83d\uddf3`, `\ud800`, `\u0000`, "\x7f", " ", "x y z and more text of some length"}[r.IntN(14)])
		}
		return `"` + b.String() + `"`
	}
	value = func(depth int) string {
		switch k := r.IntN(9); {
		case k == 0:
			return "null"
		case k == 1:
			return []string{"true", "false"}[r.IntN(2)]
		case k == 2:
			return []string{"0", "-0", "1.50", "12345678901234567890.000", "1e400", "-1E+7", "0.1e-3"}[r.IntN(7)]
		case k <= 5 || depth > 3:
			return str()
		case k == 6:
			return fmt.Sprintf("%d", r.Int64())
		case k == 7:
			var b strings.Builder
			for i := range r.IntN(4) {
				if i > 0 {
					b.WriteString(space() + ",")
				}
				b.WriteString(space() + value(depth+1))
			}
			return "[" + b.String() + space() + "]"
		}
		var b strings.Builder
		for i := range r.IntN(4) {
			if i > 0 {
				b.WriteString(space() + ",")
			}
			b.WriteString(space() + str() + space() + ":" + space() + value(depth+1))
		}
		return "{" + b.String() + space() + "}"
	}
	junk := []byte("{}[],:\"\\ \n\t\ru0d8e-+.xtfn\xff\x00\xef\xbb\xbf")
	accepted := 0
	deadline := time.Now().Add(20 * time.Second)
	n := 0
	for ; time.Now().Before(deadline); n++ {
		var b bytes.Buffer
		b.WriteString(space() + "[")
		for i := range r.IntN(4) {
			if i > 0 {
				b.WriteString(space() + ",")
			}
			b.WriteString(space() + "{")
			for j := range r.IntN(4) {
				if j > 0 {
					b.WriteString(space() + ",")
				}
				b.WriteString(space() + []string{`"id"`, `"a b"`, `"\u0069d"`, str()}[r.IntN(4)] + space() + ":" + space() + value(0))
			}
			b.WriteString(space() + strings.Repeat(" ", r.IntN(2)*r.IntN(9000)) + "}")
		}
		b.WriteString(space() + "]" + space())
		file := b.Bytes()
		for range r.IntN(3) {
			i := r.IntN(len(file))
			switch r.IntN(4) {
			case 0:
				file = append(file[:i:i], file[i+1:]...)
			case 1:
				file = append(file[:i:i], append([]byte{junk[r.IntN(len(junk))]}, file[i:]...)...)
			case 2:
				file[i] = junk[r.IntN(len(junk))]
			case 3:
				file = file[:i+1]
			}
			if len(file) == 0 {
				break
			}
		}
		if _, err := rowList(newOldReader(bytes.NewReader(file)).Next); err == nil {
			accepted++
		}
		diffReaders(t, file, r.IntN(4))
	}
	t.Logf("%d files, %d accepted", n, accepted)
}
