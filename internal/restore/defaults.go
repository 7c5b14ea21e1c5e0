package restore

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"capture/internal/postgres"
)

// errNotSimple is that a default is more than simpleDefault lets through.
var errNotSimple = errors.New("it is an expression")

// simpleDefault returns SQL for a default of the manifest, as pg_get_expr prints it, if it is one that no file could do harm
// with: a constant, or one of a few functions of Postgres. The SQL is put together here, with the types as the server prints
// them. Otherwise the error is errNotSimple or a [*typeError].
func simpleDefault(ctx context.Context, types *typeNames, text string) (string, error) {
	p := defaultParser{ctx: ctx, types: types, rest: text}
	sql, _, err := p.parse(0)
	if err == nil && strings.TrimSpace(p.rest) != "" {
		err = errNotSimple
	}
	return sql, err
}

// defaultParser parses what simpleDefault lets through:
//
//	value   = primary { "::" type | "AT TIME ZONE" string }
//	primary = number | string | NULL | true | false | "(" value ")" | "ARRAY[" [ value { "," value } ] "]" | call
type defaultParser struct {
	ctx   context.Context
	types *typeNames
	rest  string
}

// maxDefaultDepth is how deep the parentheses of a default may nest.
const maxDefaultDepth = 10

var (
	numberPattern = regexp.MustCompile(`^-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?`)
	stringPattern = regexp.MustCompile(`^'(?:[^'\x00]|'')*'`)
	// callPattern matches the words and calls whose values depend on nothing that a file could choose.
	callPattern = regexp.MustCompile(`^(?:pg_catalog\.)?((?:now|transaction_timestamp|statement_timestamp|clock_timestamp|gen_random_uuid|uuidv4|uuidv7)\(\))`)
	wordPattern = regexp.MustCompile(`^(?:(?:CURRENT_TIMESTAMP|CURRENT_TIME|LOCALTIMESTAMP|LOCALTIME)(?:\([0-6]\))?|CURRENT_DATE|CURRENT_USER|SESSION_USER|NULL|true|false)`)
	zonePattern = regexp.MustCompile(`^timezone\(('(?:[^'\x00]|'')*')(?:::text)?, `)
)

// parse parses a value. literal is true for a string or NULL, which a type's own input function reads.
func (p *defaultParser) parse(depth int) (sql string, literal bool, err error) {
	if depth > maxDefaultDepth {
		return "", false, errNotSimple
	}
	if sql, literal, err = p.parsePrimary(depth); err != nil {
		return "", false, err
	}
	for {
		switch {
		case p.take("::"):
			name := typeNamePattern.FindString(p.rest)
			p.rest = p.rest[len(name):]
			t, err := p.types.find(p.ctx, name)
			if err != nil {
				return "", false, err
			}
			if !t.builtIn && !literal { // another cast could be anybody's function
				return "", false, errNotSimple
			}
			sql, literal = "CAST("+sql+" AS "+t.sql+")", false
		case p.take(" AT TIME ZONE "):
			zone, ok := p.takePattern(stringPattern)
			if !ok {
				return "", false, errNotSimple
			}
			p.take("::text")
			sql, literal = "("+sql+" AT TIME ZONE "+quoteAgain(zone)+")", false
		default:
			return sql, literal, nil
		}
	}
}

func (p *defaultParser) parsePrimary(depth int) (sql string, literal bool, err error) {
	if text, ok := p.takePattern(stringPattern); ok {
		return quoteAgain(text), true, nil
	}
	if text, ok := p.takePattern(numberPattern); ok {
		return "(" + text + ")", false, nil
	}
	if text, ok := p.takePattern(callPattern); ok {
		return "pg_catalog." + strings.TrimPrefix(text, "pg_catalog."), false, nil
	}
	if text, ok := p.takePattern(wordPattern); ok {
		return text, text == "NULL", nil
	}
	if zone := zonePattern.FindStringSubmatch(p.rest); zone != nil {
		p.take(zone[0])
		if sql, _, err = p.parse(depth + 1); err != nil || !p.take(")") {
			return "", false, errors.Join(err, errNotSimple)
		}
		return "pg_catalog.timezone(" + quoteAgain(zone[1]) + ", " + sql + ")", false, nil
	}
	switch {
	case p.take("("):
		if sql, literal, err = p.parse(depth + 1); err == nil && !p.take(")") {
			err = errNotSimple
		}
		return sql, literal, err
	case p.take("ARRAY["):
		sql, err = p.parseElements(depth)
		return sql, false, err
	}
	return "", false, errNotSimple
}

// parseElements parses the rest of an array.
func (p *defaultParser) parseElements(depth int) (string, error) {
	var elements []string
	for !p.take("]") {
		if len(elements) > 0 && !p.take(", ") {
			return "", errNotSimple
		}
		element, _, err := p.parse(depth + 1)
		if err != nil {
			return "", err
		}
		elements = append(elements, element)
	}
	return "ARRAY[" + strings.Join(elements, ", ") + "]", nil
}

// take removes a prefix from the rest, and reports whether the rest had it.
func (p *defaultParser) take(prefix string) (ok bool) {
	p.rest, ok = strings.CutPrefix(p.rest, prefix)
	return ok
}

// takePattern removes from the rest what a pattern matches at its start.
func (p *defaultParser) takePattern(pattern *regexp.Regexp) (text string, ok bool) {
	text = pattern.FindString(p.rest)
	p.rest = p.rest[len(text):]
	return text, text != ""
}

// quoteAgain returns a string constant whose text is that of one that stringPattern matched.
func quoteAgain(constant string) string {
	return postgres.QuoteLiteral(strings.ReplaceAll(constant[1:len(constant)-1], "''", "'"))
}

// isOneExpression reports whether a text in parentheses cannot be more than one expression: what it opens it closes, and it
// holds nothing that would hide that, such as a comment. It refuses more than it has to, dollar quotes and escape strings too.
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
				return false // E'…', U&'…' and the like have escapes
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
