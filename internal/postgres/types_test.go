package postgres

import (
	"testing"

	"capture/snapshot/rowjson"
)

func TestTypesAreResolved(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, `CREATE EXTENSION hstore`, `CREATE EXTENSION citext`,
		`CREATE DOMAIN positive AS int CHECK (value > 0)`, `CREATE DOMAIN pair AS positive[]`,
		`CREATE TYPE mood AS ENUM ('sad', 'ok')`,
		`CREATE TYPE inner_t AS (h hstore, m mood)`, `CREATE TYPE outer_t AS (a positive, "B c" inner_t[], x text)`,
		`CREATE TABLE t (id int8 PRIMARY KEY, d positive, p pair, b box[], v int2vector, o outer_t, h hstore, ha hstore[],
			ci citext, m mood, bp char(3), bit bit(3), tz timestamptz[][], n name, c "char")`)
	table := loadTable(t, conn, "t")
	kind := map[string]rowjson.Kind{}
	for _, c := range table.Columns {
		kind[c.Name] = c.Type.Kind
	}
	for name, want := range map[string]rowjson.Kind{
		"id": rowjson.Number, "d": rowjson.Number, "p": rowjson.Array, "b": rowjson.Array, "v": rowjson.Vector,
		"o": rowjson.Composite, "h": rowjson.Cast, "ha": rowjson.Array, "ci": rowjson.Text, "m": rowjson.Text,
		"bp": rowjson.Text, "bit": rowjson.Text, "tz": rowjson.Array, "n": rowjson.Text, "c": rowjson.Text,
	} {
		if kind[name] != want {
			t.Errorf("%s is of kind %d, want %d", name, kind[name], want)
		}
	}
	col := func(name string) *rowjson.Type {
		for i := range table.Columns {
			if table.Columns[i].Name == name {
				return &table.Columns[i].Type
			}
		}
		t.Fatalf("no column %s", name)
		return nil
	}
	if b := col("b"); b.Delim != ';' || b.Elem.Kind != rowjson.Text {
		t.Errorf("box[] is %+v", b)
	}
	if p := col("p"); p.Elem.Kind != rowjson.Number || p.Elem.OID != 23 {
		t.Errorf("pair is an array of %+v", p.Elem)
	}
	o := col("o")
	if len(o.Fields) != 3 || o.Fields[1].Name != "B c" || o.Fields[1].Type.Elem.Fields[0].Type.Kind != rowjson.Cast || !o.NeedsServer() {
		t.Errorf("outer_t is %+v", o)
	}
}
