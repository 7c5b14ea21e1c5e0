package statefile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// signatures lists the kinds of files that capture does not read. It recognizes them by the bytes at an offset in the file.
var signatures = []struct {
	offset int
	bytes  string
	kind   string
	advice string
}{
	{0, "PK\x03\x04", "a zip archive", "unpack it first (unzip), and give the JSON file in it"},
	{0, "PK\x05\x06", "an empty zip archive", "nothing can be restored from it"},
	{0, "PK\x07\x08", "a zip archive in several parts", "unpack it first, and give the JSON file in it"},
	{0, "7z\xBC\xAF\x27\x1C", "a 7z archive", "unpack it first (7z x), and give the JSON file in it"},
	{0, "Rar!\x1A\x07", "a RAR archive", "unpack it first, and give the JSON file in it"},
	{257, "ustar", "a tar archive", "unpack it first (tar -xf), and give the JSON file in it"},
	{0, "\xFD7zXZ\x00", "compressed by xz", "decompress it first (xz -d)"},
	{0, "BZh", "compressed by bzip2", "decompress it first (bzip2 -d)"},
	{0, "\x04\x22\x4D\x18", "compressed by lz4", "decompress it first (lz4 -d)"},
	{0, "LZIP", "compressed by lzip", "decompress it first (lzip -d)"},
	{0, "\x1F\x9D", "compressed by compress", "decompress it first (uncompress)"},
	{0, "\x1F\x8B", "compressed twice", "decompress it once (zstd -d or gzip -d)"},
	{0, "\x28\xB5\x2F\xFD", "compressed twice", "decompress it once (zstd -d or gzip -d)"},
	{0, "PAR1", "a Parquet file", "convert it to JSON lines first, for example by DuckDB: COPY (FROM 'FILE.parquet') TO 'FILE.jsonl' (FORMAT json)"},
	{0, "Obj\x01", "an Avro file", "convert it to JSON first (avro-tools tojson)"},
	{0, "ORC", "an ORC file", "convert it to JSON lines first"},
	{0, "ARROW1", "an Arrow file", "convert it to JSON lines first"},
	{0, "SQLite format 3\x00", "an SQLite database", "export the table as JSON first (sqlite3 -json FILE 'SELECT * FROM …')"},
	{0, "PGDMP", "a dump by pg_dump", "restore it with pg_restore"},
	{0, "PGCOPY\n\xFF\r\n\x00", "a file by COPY in binary format", "load it with COPY … FROM … (FORMAT binary)"},
	{0, "%PDF", "a PDF file", "give the JSON file"},
	{0, "age-encryption.org", "encrypted by age", "decrypt it first (age -d)"},
	{0, "-----BEGIN PGP", "encrypted or signed by PGP", "decrypt it first (gpg -d)"},
	{0, "Salted__", "encrypted by openssl", "decrypt it first (openssl enc -d)"},
	{0, "\xFF\xFE\x00\x00", "encoded in UTF-32", "convert it to UTF-8 first (iconv -f UTF-32 -t UTF-8)"},
	{0, "\x00\x00\xFE\xFF", "encoded in UTF-32", "convert it to UTF-8 first (iconv -f UTF-32 -t UTF-8)"},
	{0, "version https://git-lfs.github.com/", "a pointer to a file in Git LFS", "fetch the file first (git lfs pull)"},
}

// refuseSignature returns an error if the file starts like a kind of file that capture does not read.
func refuseSignature(start []byte) error {
	for _, s := range signatures {
		if len(start) > s.offset && bytes.HasPrefix(start[s.offset:], []byte(s.bytes)) {
			return fmt.Errorf("it is not JSON, but %s: %s", s.kind, s.advice)
		}
	}
	if len(start) > 0 && len(bytes.Trim(start, "\x00")) == 0 {
		return errors.New("it is not JSON: it starts with zero bytes, as files do after a power failure; take another copy, such as a kept state (capture history)")
	}
	return nil
}

var errNotJSON = errors.New("the file is not JSON: it starts with neither [ nor {")

// describeText returns the error for a text file that does not start like JSON. start is the beginning of the text. The
// error does not quote the text.
func describeText(start []byte) error {
	text := strings.TrimSpace(string(start[:min(len(start), 4<<10)]))
	line, _, _ := strings.Cut(text, "\n")
	upper := strings.ToUpper(line)
	hasSQLWord := func(word string) bool { return strings.HasPrefix(upper, word+" ") }
	switch {
	case strings.HasPrefix(text, "<"):
		return fmt.Errorf("%w; it is an HTML or XML page, perhaps an error or a login page that was downloaded in place of the file", errNotJSON)
	case strings.HasPrefix(text, "--"), hasSQLWord("COPY"), hasSQLWord("INSERT"), hasSQLWord("CREATE"), hasSQLWord("SET"), strings.HasPrefix(text, "/*"):
		return fmt.Errorf("%w; it looks like SQL: run it with psql -f", errNotJSON)
	case strings.HasPrefix(text, "\x1e"):
		return fmt.Errorf("%w; it looks like a JSON text sequence (RFC 7464): remove the record separators first (tr -d '\\036')", errNotJSON)
	case strings.HasPrefix(text, "- "), strings.HasPrefix(line, "---"):
		return fmt.Errorf("%w; it looks like YAML: convert it to JSON first", errNotJSON)
	case strings.HasPrefix(text, "'"), strings.HasPrefix(text, "("):
		return fmt.Errorf("%w; it looks like what Python prints: write it with json.dump", errNotJSON)
	case strings.ContainsAny(line, ",;\t|"):
		return fmt.Errorf(`%w; it looks like CSV: load it with \copy TABLE FROM FILE (FORMAT csv, HEADER) in psql`, errNotJSON)
	}
	return errNotJSON
}

// describeSyntax returns advice if a syntax error in a row is typical of files by other programs, and "" otherwise. text
// holds the file from the first byte that is not valid JSON. afterComma is set if an object or array ends at
// this byte, right after a comma.
func describeSyntax(text []byte, afterComma bool) string {
	hasWord := func(word string) bool { return bytes.HasPrefix(text, []byte(word)) }
	switch {
	case hasWord("NaN"), hasWord("Infinity"), hasWord("-Infinity"), hasWord("-NaN"):
		return `JSON has no NaN and no Infinity; write "NaN", "Infinity" or null`
	case hasWord("'"), hasWord("True"), hasWord("False"), hasWord("None"):
		return "it looks like what Python prints; write it with json.dump"
	case hasWord("undefined"):
		return "JSON has no undefined; write null"
	case hasWord("//"), hasWord("/*"), hasWord("#"):
		return "JSON has no comments"
	case hasWord("\n"), hasWord("\r"), hasWord("\t"):
		return `within a text, JSON writes newlines and tabs as \n, \r and \t`
	case afterComma:
		return "a comma stands before the end of the object: take the comma out"
	}
	return ""
}
