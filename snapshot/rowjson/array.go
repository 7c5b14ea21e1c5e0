package rowjson

import (
	"bytes"
	"errors"
)

// maxDimensions is the maximum number of dimensions of a Postgres array (MAXDIM in the source code of Postgres).
const maxDimensions = 6

var errArray = errors.New("malformed array")

var null = []byte("null")

// appendArray appends an array as nested JSON arrays. text is what array_out prints, such as [0:1]={{1,NULL},{"a b",c}}.
func (e *Encoder) appendArray(dst []byte, n *node, text []byte) ([]byte, error) {
	if len(text) > 0 && text[0] == '[' { // array bounds, which JSON does not have
		i := bytes.IndexByte(text, '=')
		if i < 0 {
			return dst, errArray
		}
		text = text[i+1:]
	}
	depth, deepest := 0, 0
	elements := false // whether an element has been read; if so, deepest is the depth that all elements must have
	after := false    // whether text[:i] ends with a value
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '{':
			depth++
			if after || depth > maxDimensions || depth > deepest && elements || i > 0 && depth == 1 {
				return dst, errArray
			}
			deepest = max(deepest, depth)
			dst = append(dst, '[')
			i++
		case depth == 0:
			return dst, errArray
		case c == '}':
			if !after && text[i-1] != '{' {
				return dst, errArray
			}
			depth--
			dst = append(dst, ']')
			i++
			if depth == 0 {
				if i < len(text) {
					return dst, errArray
				}
				return dst, nil
			}
			after = true
		case c == n.delim:
			if !after {
				return dst, errArray
			}
			dst = append(dst, ',')
			after = false
			i++
		default:
			if after || depth != deepest {
				return dst, errArray
			}
			size, err := 0, error(nil)
			if dst, size, err = e.appendElement(dst, n, text[i:]); err != nil {
				return dst, err
			}
			i += size
			elements, after = true, true
		}
	}
	return dst, errArray
}

// appendElement appends the array element that text starts with, and returns the element's length in text.
func (e *Encoder) appendElement(dst []byte, n *node, text []byte) ([]byte, int, error) {
	if text[0] == '"' {
		top := len(e.scratch)
		elem, size, ok := e.unquoteElement(text)
		if !ok {
			return dst, 0, errArray
		}
		dst, err := e.appendValue(dst, n.elem, elem)
		e.scratch = e.scratch[:top]
		return dst, size, err
	}
	i := 0
	for ; i < len(text) && text[i] != n.delim && text[i] != '}'; i++ {
		if c := text[i]; c == '{' || c == '"' || c == '\\' {
			return dst, 0, errArray
		}
	}
	if i == 4 && bytes.EqualFold(text[:4], null) {
		return append(dst, null...), i, nil
	}
	dst, err := e.appendValue(dst, n.elem, text[:i])
	return dst, i, err
}

// unquoteElement returns the content of the quoted array element that text starts with, and the element's length in text.
// The content is a subslice of text. If backslashes had to be removed, it is a subslice of the scratch stack instead.
func (e *Encoder) unquoteElement(text []byte) (content []byte, size int, ok bool) {
	top := len(e.scratch)
	escaped := false
	for i := 1; i < len(text); {
		n := i + quotedPrefix(text[i:])
		if n == len(text) {
			break
		}
		if text[n] == '"' {
			if !escaped {
				return text[1:n], n + 1, true
			}
			e.scratch = append(e.scratch, text[i:n]...)
			return e.scratch[top:], n + 1, true
		}
		if n+1 == len(text) {
			break
		}
		escaped = true
		e.scratch = append(append(e.scratch, text[i:n]...), text[n+1])
		i = n + 2
	}
	e.scratch = e.scratch[:top]
	return nil, 0, false
}

// quotedPrefix returns the length of text up to the first quote or backslash.
func quotedPrefix(text []byte) int {
	for i, c := range text {
		if c == '"' || c == '\\' {
			return i
		}
	}
	return len(text)
}

// appendVector appends a vector as a JSON array. text is what int2vectorout or oidvectorout prints, such as "1 2 3".
func (e *Encoder) appendVector(dst []byte, n *node, text []byte) ([]byte, error) {
	dst = append(dst, '[')
	for more := len(text) > 0; more; {
		var elem []byte
		elem, text, more = bytes.Cut(text, []byte{' '})
		if len(elem) == 0 {
			return dst, errors.New("malformed vector")
		}
		var err error
		if dst, err = e.appendValue(dst, n.elem, elem); err != nil {
			return dst, err
		}
		if more {
			dst = append(dst, ',')
		}
	}
	return append(dst, ']'), nil
}
