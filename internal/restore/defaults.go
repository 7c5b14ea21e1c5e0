package restore

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"capture/internal/postgres"
)

// errNotSimple is the error for an expression that may do harm.
var errNotSimple = errors.New("it is an expression")

// simpleDefault returns SQL for a column's default. The default comes from the manifest, in the form that pg_get_expr prints.
// column is the type of the column. simpleDefault accepts only defaults that can do no harm, whoever wrote the manifest:
// constants, and calls of a few functions of Postgres. It composes the SQL itself, with type names as the server prints them.
// For any other default, the error is errNotSimple or a [*typeError].
func simpleDefault(ctx context.Context, types *typeNames, column serverType, text string) (string, error) {
	p := defaultParser{ctx: ctx, types: types, rest: text}
	sql, value, err := p.parse(0)
	if err == nil && (strings.TrimSpace(p.rest) != "" || !column.takes(value)) {
		err = errNotSimple
	}
	return sql, err
}

// defaultParser parses the defaults that simpleDefault accepts:
//
//	value   = primary { "::" type | "AT TIME ZONE" string }
//	primary = number | string | NULL | true | false | "(" value ")" | "ARRAY[" [ value { "," value } ] "]" | call
type defaultParser struct {
	ctx   context.Context
	types *typeNames
	rest  string
}

// defaultValue is what defaultParser knows about a value. This knowledge shows which functions a cast of the value may run.
type defaultValue struct {
	isLiteral bool  // whether the value is a string constant or NULL, so that a cast runs only the input function of the type
	ownType   int64 // OID of the value's type, or of its elements' type if isArray is set; 0 if the type is in pg_catalog
	isArray   bool  // whether the value is an array of elements of the type ownType
}

// takes reports whether Postgres stores the value of an expression in a column of type t without running a cast function that a
// user may have written. The owner of a type outside pg_catalog may have written such a function.
func (t *serverType) takes(v defaultValue) bool {
	switch {
	case v.isLiteral:
		return true
	case v.ownType == 0:
		return t.baseBuiltIn
	case v.isArray:
		return t.baseElement == v.ownType
	}
	return t.base == v.ownType
}

// maxDefaultDepth is the maximum depth of nested parentheses and arrays in a default.
const maxDefaultDepth = 10

var (
	numberPattern = regexp.MustCompile(`^-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?`)
	stringPattern = regexp.MustCompile(`^'(?:[^'\x00]|'')*'`)
	// callPattern and wordPattern match calls and keywords whose values the author of a manifest cannot influence.
	callPattern = regexp.MustCompile(`^(?:pg_catalog\.)?((?:now|transaction_timestamp|statement_timestamp|clock_timestamp|gen_random_uuid|uuidv4|uuidv7)\(\))`)
	wordPattern = regexp.MustCompile(`^(?:(?:CURRENT_TIMESTAMP|CURRENT_TIME|LOCALTIMESTAMP|LOCALTIME)(?:\([0-6]\))?|CURRENT_DATE|CURRENT_USER|SESSION_USER|NULL|true|false)`)
	zonePattern = regexp.MustCompile(`^timezone\(('(?:[^'\x00]|'')*')(?:::text)?, `)
)

// parse parses a value, as the grammar of defaultParser defines it. depth is the number of values that enclose this value.
func (p *defaultParser) parse(depth int) (sql string, value defaultValue, err error) {
	if depth > maxDefaultDepth {
		return "", value, errNotSimple
	}
	if sql, value, err = p.parsePrimary(depth); err != nil {
		return "", value, err
	}
	for {
		switch {
		case p.take("::"):
			name := typeNamePattern.FindString(p.rest)
			p.rest = p.rest[len(name):]
			t, err := p.types.find(p.ctx, name)
			if err != nil {
				return "", value, err
			}
			// A cast of a literal runs only the input function of the type. Any other cast may run a cast function, which the
			// owner of one of the two types may have written.
			switch {
			case t.builtIn && value.ownType == 0:
				value = defaultValue{}
			case t.trusted && value.isLiteral:
				value = defaultValue{ownType: t.oid}
			default:
				return "", value, errNotSimple
			}
			sql = "CAST(" + sql + " AS " + t.sql + ")"
		case p.take(" AT TIME ZONE "):
			zone, ok := p.takePattern(stringPattern)
			if !ok || value.ownType != 0 {
				return "", value, errNotSimple
			}
			p.take("::text")
			sql, value = "("+sql+" AT TIME ZONE "+quoteAgain(zone)+")", defaultValue{}
		default:
			return sql, value, nil
		}
	}
}

func (p *defaultParser) parsePrimary(depth int) (sql string, value defaultValue, err error) {
	if text, ok := p.takePattern(stringPattern); ok {
		return quoteAgain(text), defaultValue{isLiteral: true}, nil
	}
	if text, ok := p.takePattern(numberPattern); ok {
		return "(" + text + ")", value, nil
	}
	if text, ok := p.takePattern(callPattern); ok {
		return "pg_catalog." + strings.TrimPrefix(text, "pg_catalog."), value, nil
	}
	if text, ok := p.takePattern(wordPattern); ok {
		return text, defaultValue{isLiteral: text == "NULL"}, nil
	}
	if zone := zonePattern.FindStringSubmatch(p.rest); zone != nil {
		p.take(zone[0])
		sql, of, err := p.parse(depth + 1)
		if err != nil || of.ownType != 0 || !p.take(")") {
			return "", value, errors.Join(err, errNotSimple)
		}
		return "pg_catalog.timezone(" + quoteAgain(zone[1]) + ", " + sql + ")", value, nil
	}
	switch {
	case p.take("("):
		if sql, value, err = p.parse(depth + 1); err == nil && !p.take(")") {
			err = errNotSimple
		}
		return sql, value, err
	case p.take("ARRAY["):
		return p.parseElements(depth)
	}
	return "", value, errNotSimple
}

// parseElements parses the elements of an array and the bracket that closes it. If an element's type is not in pg_catalog, all
// elements must have this type, because Postgres would otherwise cast them to one type.
func (p *defaultParser) parseElements(depth int) (sql string, array defaultValue, err error) {
	var elements []string
	var first defaultValue
	for !p.take("]") {
		if len(elements) > 0 && !p.take(", ") {
			return "", array, errNotSimple
		}
		element, value, err := p.parse(depth + 1)
		if err != nil {
			return "", array, err
		}
		value.isLiteral = false
		if len(elements) == 0 {
			first = value
		}
		if value != first {
			return "", array, errNotSimple
		}
		elements = append(elements, element)
	}
	return "ARRAY[" + strings.Join(elements, ", ") + "]", defaultValue{ownType: first.ownType, isArray: first.ownType != 0}, nil
}

// take removes prefix from the start of the remaining text, and reports whether the text began with prefix.
func (p *defaultParser) take(prefix string) (ok bool) {
	p.rest, ok = strings.CutPrefix(p.rest, prefix)
	return ok
}

// takePattern removes the text that the pattern matches at the start of the remaining text, and returns the removed text.
func (p *defaultParser) takePattern(pattern *regexp.Regexp) (text string, ok bool) {
	text = pattern.FindString(p.rest)
	p.rest = p.rest[len(text):]
	return text, text != ""
}

// quoteAgain quotes a string constant again, as [postgres.QuoteLiteral] does. The constant is a match of stringPattern.
func quoteAgain(constant string) string {
	return postgres.QuoteLiteral(strings.ReplaceAll(constant[1:len(constant)-1], "''", "'"))
}

// isOneExpression reports whether the text, when put in parentheses, is certainly a single expression. Its parentheses and
// quotes must be balanced, and it must not contain anything that could hide a parenthesis, such as a comment. The check is
// stricter than necessary: it also refuses dollar quotes and escape strings, for example.
func isOneExpression(text string) bool {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '(':
			depth++
		case ')':
			if depth--; depth < 0 {
				return false
			}
		case '\'', '"':
			if i > 0 && (text[i-1] == '&' || text[i-1] == '_' || text[i-1]|0x20 >= 'a' && text[i-1]|0x20 <= 'z') {
				return false // E'…', U&'…' and similar constants have escapes, which this check does not understand
			}
			end := strings.IndexByte(text[i+1:], c)
			if end < 0 {
				return false
			}
			i += 1 + end
		case ';', '\\', '$', 0:
			return false
		case '-', '/':
			if next := text[i+1:]; strings.HasPrefix(next, "-") || strings.HasPrefix(next, "*") {
				return false
			}
		}
	}
	return depth == 0 && strings.TrimSpace(text) != ""
}
