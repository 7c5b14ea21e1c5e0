package postgres

import "testing"

func TestParseName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, schema, table, quoted, shown string }{
		{"votes", "", "votes", `"votes"`, "votes"},
		{"app.votes", "app", "votes", `"app"."votes"`, "app.votes"},
		{`"Odd.Name"`, "", "Odd.Name", `"Odd.Name"`, `"Odd.Name"`},
		{`"My ""App""".Votes`, `My "App"`, "Votes", `"My ""App"""."Votes"`, `"My ""App""".Votes`},
		{"a\nb.c\u00a0d\u202e", "a\nb", "c\u00a0d\u202e", "\"a\nb\".\"c\u00a0d\u202e\"", `"a\nb"."c` + "\u00a0" + `d\u202e"`},
		{"größe.Ünder", "größe", "Ünder", `"größe"."Ünder"`, "größe.Ünder"},
	} {
		n, err := ParseName(c.in)
		if err != nil {
			t.Errorf("ParseName(%q): %v", c.in, err)
			continue
		}
		if n.Schema != c.schema || n.Table != c.table || n.Quoted() != c.quoted || n.String() != c.shown {
			t.Errorf("ParseName(%q) = %q %q, quoted %s, shown %s", c.in, n.Schema, n.Table, n.Quoted(), n)
		}
	}
	for _, in := range []string{"", ".", "a.", ".a", "a.b.c", `"a`, `"a"b`, `a"b`, `""`, "a..b"} {
		if n, err := ParseName(in); err == nil {
			t.Errorf("ParseName(%q) = %+v, want an error", in, n)
		}
	}
}
