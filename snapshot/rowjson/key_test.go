package rowjson

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestKeysSortAsInPostgres checks that keys have the same order as ORDER BY in Postgres. It tests the types and collations
// for which the comment on Key promises this order.
func TestKeysSortAsInPostgres(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	infinity := ""
	if o.version >= 14 {
		infinity = ", ('Infinity'), ('-Infinity')"
	}
	for typ, values := range map[string]string{
		"smallint":            "('-32768'), ('-1'), ('0'), ('10'), ('9'), ('32767')",
		"bigint":              "('-9223372036854775808'), ('-10'), ('-9'), ('0'), ('9223372036854775807')",
		"oid":                 "('0'), ('4294967295'), ('2147483648')",
		"numeric":             "('0'), ('-1.5'), ('-1.25'), ('-10'), ('-9.99'), ('0.001'), ('-0.001'), ('0.01'), ('1e50'), ('-1e50'), ('1e-50'), ('10'), ('9'), ('NaN')" + infinity,
		"real":                "('0'), ('-1.5'), ('1e-45'), ('-1e-45'), ('1e20'), ('3e38'), ('-3e38'), ('NaN'), ('Infinity'), ('-Infinity'), ('0.1')",
		"double precision":    "('0'), ('1e-320'), ('-1e-320'), ('1e308'), ('9'), ('10'), ('-9'), ('-10'), ('NaN'), ('Infinity'), ('-Infinity')",
		"date":                "('2025-06-17'), ('0044-03-15 BC'), ('0044-03-14 BC'), ('0045-12-31 BC'), ('10000-01-01'), ('9999-12-31'), ('5874897-12-31'), ('infinity'), ('-infinity'), ('0001-01-01')",
		"timestamp":           "('2025-06-17 00:00'), ('2025-06-17 00:00:00.1'), ('2025-06-17 00:00:00.09'), ('0044-03-15 12:00 BC'), ('0044-03-15 12:00:00.5 BC'), ('0045-03-15 BC'), ('10000-01-01'), ('infinity'), ('-infinity')",
		"timestamptz":         "('2025-06-17 00:00'), ('2025-06-17 00:00:00.1+05'), ('2025-06-17 00:00:00.09'), ('0044-03-15 12:00 BC'), ('0044-03-15 12:00:00.5 BC'), ('10000-01-01'), ('infinity'), ('-infinity')",
		"time":                "('00:00'), ('24:00'), ('12:00:00.1'), ('12:00')",
		"uuid":                "('00000000-0000-0000-0000-000000000001'), ('ffffffff-0000-0000-0000-000000000000'), ('0fffffff-0000-0000-0000-000000000000')",
		"bytea":               `(''), ('\x00'), ('\x0001'), ('\xff'), ('\x7f')`,
		"boolean":             "('true'), ('false')",
		`text COLLATE "C"`:    "(''), ('a'), ('B'), ('ab'), ('a b'), (E'a\\x01'), ('é'), ('𝄞'), (E'\\uffff')",
		`char(3) COLLATE "C"`: "('a'), ('ab'), ('B')",
	} {
		t.Run(typ, func(t *testing.T) {
			o := &oracle{TB: t, conn: o.conn, version: o.version}
			base, _, _ := strings.Cut(typ, " COLLATE")
			oid := o.queryText("SELECT " + quote(base) + "::regtype::oid")[0][0]
			e := newEncoder(t, &Shape{Key: []int{0}, Columns: []Column{{Name: "v", Type: o.typ(string(oid))}}}, false)
			var last Key
			for _, row := range o.queryText("SELECT x::" + base + " AS v FROM (VALUES " + values + ") AS _(x) ORDER BY x::" + typ) {
				key, err := e.AppendKey(nil, row)
				if err != nil || last != nil && bytes.Compare(last, key) >= 0 {
					t.Errorf("%s: %v, key %x after %x", row[0], err, key, last)
				}
				last = key
			}
		})
	}
}

func TestKeyString(t *testing.T) {
	s := &Shape{Table: "t", Key: []int{2, 0, 1}, Columns: []Column{
		{Name: "a", Type: Type{OID: 25}}, {Name: "n", Type: Type{Kind: Number, OID: 1700}}, {Name: "i", Type: Type{Kind: Number, OID: 20}},
	}}
	e := newEncoder(t, s, false)
	key, err := e.AppendKey([]byte("before"), values("a b", "-1.50", "-7"))
	if err != nil {
		t.Fatal(err)
	}
	key = key[len("before"):]
	if got := s.KeyString(key); got != `(-7,"a b",-1.50)` {
		t.Errorf("KeyString = %s", got)
	}
	if got, ok := s.KeyTexts(key); !ok || string(bytes.Join(got, []byte("|"))) != "-7|a b|-1.50" {
		t.Errorf("KeyTexts = %q, %v", got, ok)
	}
	for i := range key {
		s.KeyString(key[:i]) // must not panic
		if got, ok := s.KeyTexts(key[:i]); ok {
			t.Errorf("KeyTexts(%x) = %q", key[:i], got)
		}
	}
	for _, row := range [][][]byte{values("a", "1", "NULL"), {Unchanged, []byte("1"), []byte("1")}, values("a", "1", "x"), values("a", "1", "01"), values("a", "1"), values("a\x00", "1", "1")} {
		if key, err := e.AppendKey(nil, row); err == nil || len(key) > 0 {
			t.Errorf("AppendKey(%q) = %x, %v", row, key, err)
		}
	}
	if _, err := NewEncoder(&Shape{Table: "t", Columns: s.Columns}, false); err == nil {
		t.Error("a shape without a key was accepted")
	}
}

var canonicalNumeric = regexp.MustCompile(`^(-?[1-9][0-9]*(\.[0-9]+)?|-?0\.[0-9]*[1-9][0-9]*|0(\.0+)?)$`)

// FuzzKeyOrder makes two keys, each from a value and an integer. It checks that the keys have the same order as the values
// and integers.
func FuzzKeyOrder(f *testing.F) {
	for form := range byte(5) {
		f.Add(form, "a", "a\x01", int64(1), int64(-1))
		f.Add(form, "1.0", "1.00", int64(math.MinInt64), int64(0x7ff0000000000001))
		f.Add(form, "-0.0010", "-12.5", int64(20000101), int64(-440315))
	}
	f.Fuzz(func(t *testing.T, form byte, a, b string, x, y int64) {
		var oid uint32
		order := 0
		switch keyForm(form % 5) {
		case keyText:
			oid, order = 25, strings.Compare(a, b)
			if strings.Contains(a+b, "\x00") {
				return
			}
		case keyInteger:
			oid, order = 20, cmp.Compare(x, y)
			a, b = fmt.Sprint(x), fmt.Sprint(y)
		case keyNumeric:
			oid = 1700
			if !canonicalNumeric.MatchString(a) || !canonicalNumeric.MatchString(b) {
				return
			}
			p, _ := new(big.Rat).SetString(a)
			q, _ := new(big.Rat).SetString(b)
			order = cmp.Or(p.Cmp(q), strings.Compare(a, b))
		case keyFloat:
			p, q := math.Float64frombits(uint64(x)), math.Float64frombits(uint64(y))
			if math.IsNaN(p) || math.IsNaN(q) {
				return
			}
			a, b = strconv.FormatFloat(p, 'g', -1, 64), strconv.FormatFloat(q, 'g', -1, 64)
			oid, order = 701, cmp.Or(cmp.Compare(p, q), strings.Compare(a, b))
		case keyDate:
			oid, order = 1114, cmp.Compare(dayOf(x), dayOf(y))
			a, b = dateOf(x), dateOf(y)
		}
		s := &Shape{Key: []int{1, 0}, Columns: []Column{{Name: "n", Type: Type{OID: 20}}, {Name: "v", Type: Type{OID: oid}}}}
		e := newEncoder(t, s, false)
		key := func(v string, n int64) Key {
			k, err := e.AppendKey(nil, [][]byte{strconv.AppendInt(nil, n, 10), []byte(v)})
			if err != nil {
				t.Fatalf("%q: %v", v, err)
			}
			text, rest, ok := cutKeyColumn(k, keyFormOf(&s.Columns[1].Type))
			if !ok || string(text) != v || len(rest) != 8 {
				t.Fatalf("the key of %q says %q, %v and leaves %d bytes", v, text, ok, len(rest))
			}
			if got := s.KeyString(k); got != "("+quoteKey([]byte(v))+","+fmt.Sprint(n)+")" {
				t.Fatalf("KeyString of %q, %d: %s", v, n, got)
			}
			return k
		}
		if got := bytes.Compare(key(a, x), key(b, y)); got != cmp.Or(order, cmp.Compare(x, y)) {
			t.Errorf("keys of (%q, %d) and (%q, %d) compare as %d, the values as %d", a, x, b, y, got, order)
		}
	})
}

// dayOf maps n to the number of a day, and dateOf returns the date of this day. In this calendar, each year has 12 months of
// 31 days. Day 0 is the first day of the year 1 BC, and no day is after the last year of Postgres' timestamps.
func dayOf(n int64) int64 { return n % (294276 * 372) }

func dateOf(n int64) string {
	days := dayOf(n) + 4713*372 // number of days since the start of the year 4714 BC; negative for an earlier day
	year, day := floorDiv(days, 372), days-372*floorDiv(days, 372)
	year -= 4713
	suffix := ""
	if year <= 0 {
		year, suffix = 1-year, " BC"
	}
	return fmt.Sprintf("%04d-%02d-%02d 00:00:00%s", year, day/31+1, day%31+1, suffix)
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// FuzzKeyString checks that KeyString returns a string for a key of arbitrary bytes, and does not panic.
func FuzzKeyString(f *testing.F) {
	f.Add(byte(2), []byte{numericPositive, 0x80, 0, 0, 1, '1', 0, '1', 0})
	f.Add(byte(3), []byte("12345678x"))
	f.Fuzz(func(t *testing.T, form byte, key []byte) {
		oids := []uint32{25, 20, 1700, 701, 1114}
		s := &Shape{Key: []int{0, 1}, Columns: []Column{{Type: Type{OID: oids[int(form)%5]}}, {Type: Type{OID: oids[int(form/5)%5]}}}}
		if s.KeyString(key) == "" {
			t.Error("no string")
		}
	})
}
