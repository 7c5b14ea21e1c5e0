package statefile

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"capture/snapshot/rowjson"
)

// maxDepth is how deep arrays and objects may stand within each other.
const maxDepth = 10_000

// members appends the members of the object that text is to dst. The error says what is wrong with the JSON, and where.
func members(dst []Member, text []byte) ([]Member, error) {
	if !utf8.Valid(text) {
		return dst, errUTF8
	}
	p := parser{text: text}
	p.space()
	dst, ok := p.object(dst, true)
	if p.space(); !ok || p.at < len(text) {
		return dst, fmt.Errorf("%w, at byte %d of the row", errSyntax, p.at+1)
	}
	return dst, nil
}

// parser walks over JSON and stops at what is none.
type parser struct {
	text  []byte
	at    int
	depth int
}

// peek is the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\n', '\t', '\r':
			p.at++
		default:
			return
		}
	}
}

// take passes over c and the white space behind it.
func (p *parser) take(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.at++
	p.space()
	return true
}

// object passes over an object; its members are appended to dst where keep says so.
func (p *parser) object(dst []Member, keep bool) ([]Member, bool) {
	if p.depth++; p.depth > maxDepth || !p.take('{') {
		return dst, false
	}
	defer func() { p.depth-- }()
	if p.peek() == '}' {
		p.at++
		return dst, true
	}
	for {
		start := p.at
		if !p.string() {
			return dst, false
		}
		name := p.text[start:p.at]
		p.space()
		if !p.take(':') {
			return dst, false
		}
		start = p.at
		if !p.value() {
			return dst, false
		}
		if keep {
			unescaped := name[1 : len(name)-1]
			if bytes.IndexByte(name, '\\') >= 0 {
				var err error
				if unescaped, err = rowjson.AppendUnescaped(nil, name); err != nil {
					return dst, false
				}
			}
			dst = append(dst, Member{unescaped, p.text[start:p.at]})
		}
		p.space()
		if p.peek() == '}' {
			p.at++
			return dst, true
		}
		if !p.take(',') {
			return dst, false
		}
	}
}

// array passes over an array.
func (p *parser) array() bool {
	if p.depth++; p.depth > maxDepth || !p.take('[') {
		return false
	}
	defer func() { p.depth-- }()
	if p.peek() == ']' {
		p.at++
		return true
	}
	for {
		if !p.value() {
			return false
		}
		p.space()
		if p.peek() == ']' {
			p.at++
			return true
		}
		if !p.take(',') {
			return false
		}
	}
}

func (p *parser) value() bool {
	switch c := p.peek(); c {
	case '{':
		_, ok := p.object(nil, false)
		return ok
	case '[':
		return p.array()
	case '"':
		return p.string()
	case 't':
		return p.word("true")
	case 'f':
		return p.word("false")
	case 'n':
		return p.word("null")
	}
	return p.number()
}

func (p *parser) word(w string) bool {
	if !bytes.HasPrefix(p.text[p.at:], []byte(w)) {
		return false
	}
	p.at += len(w)
	return true
}

func (p *parser) digits() bool {
	start := p.at
	for p.peek()-'0' <= 9 {
		p.at++
	}
	return p.at > start
}

func (p *parser) number() bool {
	if p.peek() == '-' {
		p.at++
	}
	if p.peek() == '0' {
		p.at++
	} else if !p.digits() {
		return false
	}
	if p.peek() == '.' {
		p.at++
		if !p.digits() {
			return false
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.at++
		if c := p.peek(); c == '+' || c == '-' {
			p.at++
		}
		return p.digits()
	}
	return true
}

// plain marks the bytes that stand for themselves in a string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 256; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

func (p *parser) string() bool {
	if p.peek() != '"' {
		return false
	}
	for p.at++; p.at < len(p.text); {
		c := p.text[p.at]
		switch {
		case plain[c]:
			p.at++
		case c == '"':
			p.at++
			return true
		case c != '\\' || p.at+1 == len(p.text):
			return false
		case p.text[p.at+1] == 'u':
			if p.at+6 > len(p.text) || hex4(p.text[p.at+2:]) < 0 {
				return false
			}
			p.at += 6
		case escapes[p.text[p.at+1]] != 0:
			p.at += 2
		default:
			return false
		}
	}
	return false
}

// hex4 is the number of four hex digits, or -1.
func hex4(text []byte) rune {
	var n rune
	for _, c := range text[:4] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20-'a' <= 5:
			c = c | 0x20 - 'a' + 10
		default:
			return -1
		}
		n = n<<4 | rune(c)
	}
	return n
}

var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}
