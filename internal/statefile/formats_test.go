package statefile

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"

	"github.com/klauspost/compress/zstd"
)

func gzipped(t testing.TB, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(text)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstdFrame(t testing.TB, text []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(text, nil)
}

func utf16Text(text string, order binary.AppendByteOrder, mark bool) []byte {
	var b []byte
	if mark {
		b = order.AppendUint16(b, 0xFEFF)
	}
	for _, c := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, c)
	}
	return b
}

// asFile opens content as a file that can be read only once, like standard input.
func asFile(t testing.TB, content io.Reader) (*File, error) {
	t.Helper()
	f, err := Open(t.Context(), "-", content)
	if err == nil {
		t.Cleanup(f.Close)
	}
	return f, err
}

func writeFile(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// growingPieces returns one byte at the first Read, two bytes at the second, and so on, so that its reader gets pieces of
// many lengths.
type growingPieces struct {
	from io.Reader
	size int
}

func (g *growingPieces) Read(p []byte) (int, error) {
	g.size++
	return g.from.Read(p[:min(g.size, len(p))])
}

// TestFormats checks that a Reader returns the same rows from every form of a file, however the file's bytes arrive.
func TestFormats(t *testing.T) {
	objects := []string{`{"id":1,"c":"é 🗳 \ud83d\uddf3"}`, `{"id":2,"c":null}`, `{"id":3,"c":"` + strings.Repeat("é🗳", 500) + `"}`, `{"id":4,"c":"\"["}`}
	long := slices.Clone(objects) // one row becomes longer than bufferSize
	long[2] = `{"id":3,"c":"` + strings.Repeat("é🗳", 50_000) + `"}`
	texts := map[string]string{
		"array":    "[\n" + strings.Join(objects, ",\n") + "\n]\n",
		"one line": "[" + strings.Join(objects, ",") + "]",
		"lines":    strings.Join(long, "\n") + "\n",
		"CRLF":     strings.Join(objects, "\r\n") + "\r\n",
		"no end":   strings.Join(objects, "\n"),
		"no space": strings.Join(objects, ""),
		"blank":    "\n \n" + strings.Join(objects, "\n\n") + "\n\n",
		"indented": strings.ReplaceAll(strings.Join(objects, "\n"), `,"c":`, ",\n  \"c\" : "),
	}
	forms := map[string]func(string) []byte{
		"UTF-8":              func(s string) []byte { return []byte(s) },
		"UTF-8 with a mark":  func(s string) []byte { return []byte("\uFEFF" + s) },
		"UTF-16LE":           func(s string) []byte { return utf16Text(s, binary.LittleEndian, true) },
		"UTF-16BE":           func(s string) []byte { return utf16Text(s, binary.BigEndian, true) },
		"UTF-16LE unmarked":  func(s string) []byte { return utf16Text(s, binary.LittleEndian, false) },
		"UTF-16BE unmarked":  func(s string) []byte { return utf16Text(s, binary.BigEndian, false) },
		"gzip":               func(s string) []byte { return gzipped(t, []byte(s)) },
		"gzip in two parts":  func(s string) []byte { return append(gzipped(t, []byte(s[:9])), gzipped(t, []byte(s[9:]))...) },
		"zstd":               func(s string) []byte { return zstdFrame(t, []byte(s)) },
		"zstd in two frames": func(s string) []byte { return append(zstdFrame(t, []byte(s[:9])), zstdFrame(t, []byte(s[9:]))...) },
		"zstd with a skippable frame": func(s string) []byte {
			return append([]byte("\x50\x2A\x4D\x18\x04\x00\x00\x00skip"), zstdFrame(t, []byte(s))...)
		},
		"gzip of UTF-16": func(s string) []byte { return gzipped(t, utf16Text(s, binary.LittleEndian, true)) },
		"zstd of UTF-16": func(s string) []byte { return zstdFrame(t, utf16Text(s, binary.BigEndian, true)) },
	}
	for textName, text := range texts {
		want := objects
		if textName == "lines" {
			want = long
		}
		for formName, form := range forms {
			content := form(text)
			for howName, how := range map[string]func(io.Reader) io.Reader{
				"at once": func(r io.Reader) io.Reader { return r }, "with its end": iotest.DataErrReader, "by halves": iotest.HalfReader,
				"in growing pieces": func(r io.Reader) io.Reader { return &growingPieces{from: r} }, "a byte at a time": iotest.OneByteReader,
			} {
				switch howName {
				case "at once":
				case "a byte at a time":
					if textName != "CRLF" {
						continue // the long row would take seconds
					}
				default:
					if textName != "lines" {
						continue
					}
				}
				f, err := asFile(t, how(bytes.NewReader(content)))
				if err != nil {
					t.Fatalf("%s, %s, %s: %v", textName, formName, howName, err)
				}
				rows, err := readAll(NewReader(f))
				if err != nil || len(rows) != len(want) {
					t.Errorf("%s, %s, %s: %d rows, %v", textName, formName, howName, len(rows), err)
					continue
				}
				for i, row := range rows {
					if string(row.Text) != want[i] {
						t.Errorf("%s, %s, %s: row %d is %.60q", textName, formName, howName, i, row.Text)
					}
				}
				if rows[3].Line != int64(1+strings.Count(text[:strings.Index(text, `{"id":4`)], "\n")) && textName != "indented" {
					t.Errorf("%s, %s: row 4 is on line %d", textName, formName, rows[3].Line)
				}
			}
		}
	}
}

// TestFormatsRefused checks that the error for a file that cannot be read contains a reason or advice, and no text of the
// file.
func TestFormatsRefused(t *testing.T) {
	lines := "{\"id\":1}\n{\"id\":2,\"c\":\"é🗳\"}\n"
	tar := append(append([]byte("feedback.json"), make([]byte, 244)...), "ustar\x0000"...)
	tar = append(tar, make([]byte, 1000)...)
	zstdLines := zstdFrame(t, []byte(lines))
	for name, c := range map[string]struct {
		content string
		want    string
	}{
		"zip":                {"PK\x03\x04\x14\x00", "a zip archive: unpack it first"},
		"zip, not yet whole": {"PK\x03\x04", "a zip archive: unpack it first"},
		"7z":                 {"7z\xBC\xAF\x27\x1C\x00\x04", "a 7z archive: unpack it first"},
		"tar":                {string(tar), "a tar archive: unpack it first"},
		"tar.gz":             {string(gzipped(t, tar)), "a tar archive: unpack it first"},
		"tar.zst":            {string(zstdFrame(t, tar)), "a tar archive: unpack it first"},
		"xz":                 {"\xFD7zXZ\x00\x00\x04", "xz -d"},
		"bzip2":              {"BZh91AY&SY", "bzip2 -d"},
		"gzip twice":         {string(gzipped(t, gzipped(t, []byte(lines)))), "compressed twice"},
		"Parquet":            {"PAR1\x15\x04", "Parquet"},
		"SQLite":             {"SQLite format 3\x00\x10", "SQLite"},
		"pg_dump":            {"PGDMP\x01\x0e", "pg_restore"},
		"UTF-32":             {"\xFF\xFE\x00\x00[\x00\x00\x00", "UTF-32"},
		"zero bytes":         {string(make([]byte, 5000)), "power failure"},
		"HTML":               {"<!DOCTYPE html>\n<title>Sign in</title>", "line 1: the file is not JSON: it starts with neither [ nor {; it is an HTML"},
		"CSV":                {"vote_id,comment\n1,SECRET\n", "line 1: the file is not JSON: it starts with neither [ nor {; it looks like CSV"},
		"quoted CSV":         {"\"vote_id\";\"comment\"\n1;SECRET\n", "it looks like CSV"},
		"SQL":                {"--\n-- PostgreSQL database dump\n--\n", "psql -f"},
		"YAML":               {"- vote_id: 1\n", "YAML"},
		"JSON sequence":      {"\x1e{\"id\":1}\n", "RFC 7464"},
		"text":               {"SECRET", "line 1: the file is not JSON: it starts with neither [ nor {"},
		"Python":             {"[{'vote_id': 1}]", "line 1: not valid JSON, at byte 2 of the row: it looks like what Python prints"},
		"Python's True":      {`[{"a": True}]`, "it looks like what Python prints"},
		"NaN":                {"{\"id\":1}\n{\"id\":NaN}\n", `line 2: not valid JSON, at byte 7 of the row: JSON has no NaN`},
		"-Infinity":          {`[{"id":-Infinity}]`, `JSON has no NaN`},
		"comment":            {"[{\"id\":1, // first\n\"a\":2}]", "JSON has no comments"},
		"raw newline":        {"[{\"id\":\"a\nb\"}]", `writes newlines and tabs as \n`},
		"Latin-1":            {"[{\"c\":\"\xe9\"}]", "iconv"},
		"trailing comma":     {"[\n{\"id\":1},\n{\"id\":2},\n]", "line 4: a comma stands before ]: take the comma out"},
		"comma in the row":   {"{\"id\":1}\n{\"id\":2,}", "line 2: not valid JSON, at byte 8 of the row: a comma stands before the end of the object"},
		"commas, no array":   {"{\"id\":1},\n{\"id\":2}", "line 2: a comma stands between objects that are in no array"},
		"array of arrays":    {"[[1,2]]", "not an array of objects"},
		"array after lines":  {"{\"id\":1}\n[{\"id\":2}]", "line 2: neither a JSON array nor one object after another"},
		"two arrays":         {"[{\"id\":1}]\n[{\"id\":2}]", "line 2: there is something after the end of the array"},
		"empty":              {"", "the file is empty"},
		"only a mark":        {"\uFEFF", "the file is empty"},
		"only a UTF-16 mark": {"\xFF\xFE", "the file is empty"},
		"gzip of nothing":    {string(gzipped(t, nil)), "the file is empty"},
		"cut line":           {lines[:len(lines)-5], "line 2: the file is cut short: it ends within a row"},
		"cut gzip":           {string(gzipped(t, []byte(lines))[:25]), "the gzip file is cut short or damaged"},
		"cut zstd":           {string(zstdLines[:len(zstdLines)-3]), "the zstd file is cut short or damaged"},
		"damaged zstd":       {string(zstdLines[:len(zstdLines)-1]) + "x", "the zstd file is cut short or damaged"},
		"cut UTF-16":         {string(utf16Text(lines, binary.LittleEndian, true)[:25]), "line 2: the file is cut short"},
		"half a character":   {string(utf16Text(lines[:9], binary.LittleEndian, true)) + "{", "cut short: it ends within a character of UTF-16"},
		"half of a pair":     {string(append(utf16Text(lines[:20], binary.LittleEndian, true), 0x3d, 0xd8, 0x41, 0x00)), "line 2: not valid UTF-16"},
		"lone low half":      {string(append(utf16Text(lines[:20], binary.BigEndian, true), 0xdc, 0x00, 0x00, 0x41)), "line 2: not valid UTF-16"},
		"large window":       {"\x28\xB5\x2F\xFD\x00\x98\x01\x00\x00", "zstd -d --long=31"}, // 2^29 bytes
	} {
		f, err := asFile(t, strings.NewReader(c.content))
		if err == nil {
			_, err = readAll(NewReader(f))
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestEmptyFileOfLines checks that an empty file is read as a table without rows if its manifest says that it has no rows.
func TestEmptyFileOfLines(t *testing.T) {
	path := writeFile(t, "feedback.jsonl", nil)
	manifest := `{"format":1,"table":{"schema":"public","name":"votes"},"columns":[],"key":[],"rows":0,"bytes":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}`
	if err := os.WriteFile(path+".manifest.json", []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := readAll(NewReader(f))
	if err != nil || len(rows) != 0 || f.CheckManifest(0, nil) != nil {
		t.Errorf("%d rows, %v", len(rows), err)
	}
}

// TestManifestOfCompressedFile checks that a compressed file is compared with the manifest beside it. The manifest describes
// the decompressed content.
func TestManifestOfCompressedFile(t *testing.T) {
	const text = "[\n{\"id\":1}\n]\n"
	for _, name := range []string{"feedback.json.gz", "feedback.json.zst"} {
		compress := gzipped
		if strings.HasSuffix(name, ".zst") {
			compress = zstdFrame
		}
		path := writeFile(t, name, compress(t, []byte(text)))
		manifest := fmt.Sprintf(`{"format":1,"table":{"schema":"public","name":"votes"},"columns":[{"name":"id","type":"integer"}],"key":["id"],"rows":1,"bytes":%d,
			"sha256":"c45b0bdb2b8a6a4d37c5ee4b6c8a37a35c5fe53a5e3c1bd1d9f3b56ad7d9bd23"}`, len(text))
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), "feedback.manifest.json"), []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Open(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := readAll(NewReader(f)); err != nil || f.Manifest() == nil || f.BytesRead() != int64(len(text)) {
			t.Errorf("%s: %v, manifest %v", name, err, f.Manifest())
		}
		if err := f.CheckManifest(1, nil); err == nil || !strings.Contains(err.Error(), "its SHA-256 is") {
			t.Errorf("%s, with another SHA-256: %v", name, err)
		}
	}
}

// TestZstdBombIsRefused checks that a Reader refuses a row that a small zstd file expands far beyond the limit, before the
// row takes much memory.
func TestZstdBombIsRefused(t *testing.T) {
	// A block of type RLE (RFC 8878, section 3.1.1.2) represents 128 KiB of one character in four bytes.
	frame := []byte("\x28\xB5\x2F\xFD\x00\x58") // magic number, and a frame header that sets a window of 2 MiB
	addBlock := func(kind, size int, content string, last bool) {
		header := uint32(size<<3 | kind<<1)
		if last {
			header |= 1
		}
		frame = append(append(frame, byte(header), byte(header>>8), byte(header>>16)), content...)
	}
	start := `[{"id":1},{"id":2,"c":"`
	addBlock(0, len(start), start, false)
	for range 4096 { // 512 MiB
		addBlock(1, 128<<10, "x", false)
	}
	addBlock(0, 3, `"}]`, true)
	f, err := Open(t.Context(), writeFile(t, "feedback.json.zst", frame), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := NewReader(f)
	r.input.free = 4 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	rows, err := readAll(r)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, errRatio) || len(rows) != 1 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 100 {
		t.Errorf("%d MB were allocated", allocated)
	}
}

// FuzzFile checks that the Reader returns only valid JSON objects, whatever bytes the file contains. It must return the same
// rows if the bytes arrive in pieces, or if the rows are encoded in UTF-16.
func FuzzFile(f *testing.F) {
	lines := "{\"id\":1,\"c\":\"é🗳\"}\n{\"id\":2}\n"
	for _, seed := range [][]byte{
		[]byte(lines), []byte("[" + strings.ReplaceAll(strings.TrimSpace(lines), "\n", ",") + "]"), []byte("\uFEFF" + lines), []byte("[]"),
		utf16Text(lines, binary.LittleEndian, true), utf16Text(lines, binary.BigEndian, false), gzipped(f, []byte(lines)), zstdFrame(f, []byte(lines)),
		zstdFrame(f, utf16Text(lines, binary.LittleEndian, true)), []byte("PK\x03\x04"), []byte("[{},]"), []byte("{},{}"), []byte("a,b\n1,2"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		read := func(from io.Reader) ([]Row, error) {
			file, err := Open(t.Context(), "-", from)
			if err != nil {
				return nil, err
			}
			defer file.Close()
			r := NewReader(file)
			r.maxRow, r.input.free = 1<<20, 1<<20
			return readAll(r)
		}
		rows, err := read(bytes.NewReader(content))
		for _, row := range rows {
			if again, err := ParseRow(row.Text); err != nil || len(again.Members) != len(row.Members) {
				t.Fatalf("%q gave the row %q: %v", content, row.Text, err)
			}
		}
		again, err2 := read(iotest.HalfReader(bytes.NewReader(content)))
		if (err == nil) != (err2 == nil) || len(rows) != len(again) {
			t.Fatalf("%q: %d rows, %v; in pieces %d rows, %v", content, len(rows), err, len(again), err2)
		}
		if err != nil || len(rows) == 0 {
			return
		}
		var text strings.Builder
		for _, row := range rows {
			text.Write(row.Text)
			text.WriteByte('\n')
		}
		wide, err := read(bytes.NewReader(utf16Text(text.String(), binary.LittleEndian, true)))
		if err != nil || len(wide) != len(rows) {
			t.Fatalf("%q: as UTF-16 %d rows, %v", content, len(wide), err)
		}
		for i := range rows {
			if !bytes.Equal(wide[i].Text, rows[i].Text) {
				t.Fatalf("%q became %q in UTF-16", rows[i].Text, wide[i].Text)
			}
		}
	})
}
