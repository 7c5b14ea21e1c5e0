package rowjson

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// shortEscapes maps a byte to the character that follows the backslash in JSON's short escape for the byte. Bytes without a
// short escape map to 0.
var shortEscapes = [256]byte{'\b': 'b', '\f': 'f', '\n': 'n', '\r': 'r', '\t': 't', '"': '"', '\\': '\\'}

// appendString appends text as a JSON string, escaped exactly as Postgres' escape_json does: only where JSON requires it.
func appendString(dst, text []byte) []byte {
	dst = append(dst, '"')
	for {
		n := cleanPrefix(text)
		dst = append(dst, text[:n]...)
		if n == len(text) {
			return append(dst, '"')
		}
		c := text[n]
		if s := shortEscapes[c]; s != 0 {
			dst = append(dst, '\\', s)
		} else {
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		text = text[n+1:]
	}
}

const (
	everyByte = 0x0101010101010101
	everyHigh = 0x8080808080808080
)

// cleanPrefix returns the length of text up to the first byte that must be escaped in a JSON string. It tests eight bytes at a
// time. It subtracts 0x20 from each byte, which sets the high bit of each byte below 0x20. To find a quote or backslash, it
// XORs each byte with that character, which turns a match into 0, and then subtracts 1. The subtraction of a match borrows from
// the higher bytes and can make them wrong. The lowest match is always right, and cleanPrefix uses only the lowest match.
func cleanPrefix(text []byte) int {
	i := 0
	for ; i+8 <= len(text); i += 8 {
		x := binary.LittleEndian.Uint64(text[i:])
		quote := x ^ (everyByte * '"')
		slash := x ^ (everyByte * '\\')
		if m := ((x - everyByte*0x20) | (quote - everyByte) | (slash - everyByte)) & ^x & everyHigh; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(text); i++ {
		if c := text[i]; c < 0x20 || c == '"' || c == '\\' {
			return i
		}
	}
	return i
}

// appendJSON appends JSON text on one line. In valid JSON, a raw newline or carriage return is white space between tokens, so a
// space can replace it.
func appendJSON(dst, text []byte) []byte {
	start := len(dst)
	dst = append(dst, text...)
	for _, c := range [...]byte{'\n', '\r'} {
		for rest := dst[start:]; ; {
			i := bytes.IndexByte(rest, c)
			if i < 0 {
				break
			}
			rest[i] = ' '
			rest = rest[i+1:]
		}
	}
	return dst
}

// replaceInvalid returns text with U+FFFD instead of each byte that is not part of valid UTF-8.
func replaceInvalid(text []byte) []byte {
	repaired := make([]byte, 0, len(text)+2*utf8.UTFMax)
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		repaired = utf8.AppendRune(repaired, r)
		i += size
	}
	return repaired
}

// unescaped maps the character after a backslash in a JSON string to the byte that this escape stands for.
var unescaped = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

var (
	errZero      = errors.New(`a zero character (\u0000), which Postgres cannot store in text`)
	errSurrogate = errors.New("half of a surrogate pair, which is not a character")
)

// AppendUnescaped appends the text that a valid JSON string stands for. str includes the quotes.
func AppendUnescaped(dst, str []byte) ([]byte, error) {
	text := str[1 : len(str)-1]
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return append(dst, text...), nil
		}
		dst = append(dst, text[:i]...)
		c := text[i+1]
		if c != 'u' {
			dst = append(dst, unescaped[c])
			text = text[i+2:]
			continue
		}
		r := parseHex(text[i+2:])
		text = text[i+6:]
		if utf16.IsSurrogate(r) {
			low := rune(-1)
			if len(text) >= 6 && text[0] == '\\' && text[1] == 'u' {
				low = parseHex(text[2:])
			}
			if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
				return dst, errSurrogate
			}
			text = text[6:]
		}
		if r == 0 {
			return dst, errZero
		}
		dst = utf8.AppendRune(dst, r)
	}
}

// parseHex returns the number that the first four bytes of digits stand for. They must be hexadecimal digits.
func parseHex(digits []byte) (n rune) {
	for _, c := range digits[:4] {
		if c > '9' {
			c = c&^0x20 - 'A' + '9' + 1
		}
		n = n<<4 | rune(c-'0')
	}
	return n
}
