package rowjson

import "errors"

var (
	errComposite = errors.New("malformed composite")
	errFields    = errors.New("the composite has a different number of fields: its type has changed")
)

// appendComposite appends a composite as a JSON object. text is what record_out prints, such as (1,"a ""b""",).
func (e *Encoder) appendComposite(dst []byte, n *node, text []byte) ([]byte, error) {
	if len(text) < 2 || text[0] != '(' || text[len(text)-1] != ')' {
		return dst, errComposite
	}
	if len(n.fields) == 0 {
		if len(text) > 2 {
			return dst, errFields
		}
		return append(dst, "{}"...), nil
	}
	i := 1
	for k := range n.fields {
		f := &n.fields[k]
		dst = append(dst, f.opening...)
		if text[i] == ',' || text[i] == ')' {
			dst = append(dst, null...)
		} else {
			top := len(e.scratch)
			value, size, ok := e.unquoteField(text[i:])
			if !ok {
				return dst, errComposite
			}
			var err error
			dst, err = e.appendValue(dst, &f.node, value)
			e.scratch = e.scratch[:top]
			if err != nil {
				return dst, err
			}
			i += size
		}
		last := k == len(n.fields)-1
		if (text[i] == ')') != last {
			return dst, errFields
		}
		i++
	}
	if i != len(text) {
		return dst, errComposite
	}
	return append(dst, '}'), nil
}

// unquoteField returns the content of the composite's field that text starts with, and the field's length in text. The field
// ends before a comma or a closing parenthesis. The content is on top of the scratch stack.
func (e *Encoder) unquoteField(text []byte) (content []byte, size int, ok bool) {
	top := len(e.scratch)
	quoted := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\':
			if i++; i == len(text) {
				e.scratch = e.scratch[:top]
				return nil, 0, false
			}
			e.scratch = append(e.scratch, text[i])
		case c == '"' && quoted && i+1 < len(text) && text[i+1] == '"':
			i++
			e.scratch = append(e.scratch, '"')
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == ')'):
			return e.scratch[top:], i, true
		case !quoted && c == '(':
			e.scratch = e.scratch[:top]
			return nil, 0, false
		default:
			e.scratch = append(e.scratch, c)
		}
	}
	e.scratch = e.scratch[:top]
	return nil, 0, false
}
