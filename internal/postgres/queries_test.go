package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"testing"
)

// TestCopyQueryMatchesOutputFunctions checks that COPY with CopyQuery sends each value as the type's output function prints
// it. SELECT * calls these functions, so the test compares the fields of COPY with the columns of SELECT *.
func TestCopyQueryMatchesOutputFunctions(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, `CREATE EXTENSION hstore`, `CREATE EXTENSION citext`,
		`CREATE TYPE mood AS ENUM ('sad', 'ok "quoted"')`, `CREATE DOMAIN dmood AS mood`, `CREATE DOMAIN dbit AS bit(5)`,
		`CREATE DOMAIN dchar AS char(4)`, `CREATE DOMAIN drange AS int4range`, `CREATE TYPE comp AS (a int, b text)`,
		`CREATE DOMAIN dcomp AS comp`, `CREATE DOMAIN darr AS text[]`,
		`CREATE TABLE t (id int PRIMARY KEY, b bool, i inet, bp char(5), c "char", n name, dm dmood, db dbit, dc dchar,
			dr drange, co comp, dco dcomp, da darr, j json, jb jsonb, x xml, by bytea, ts timestamptz, iv interval,
			f float8, nu numeric, m money, ci citext, ra dmood[], vc varchar, nul mood, v oidvector, rc regclass)`,
		`INSERT INTO t VALUES (1, true, '10.0.0.1', 'ab', 'x', 'nm', 'ok "quoted"', B'10110', 'cd', '[1,5)', (1,'x y'), (2,NULL),
			'{a,"b c",NULL}', '{"a" :  1,"a":2}', '{"b": 1}', '<a>é</a>', '\x00ff', '2024-05-05 12:00:00.5+05:30', '1 mon -2 days',
			1e-320, 'NaN', 12.5, 'CiT', '{sad}', 'v', NULL, '1 2', 'pg_class'),
			(2, NULL, '10.0.0.0/8', '', '', '', 'sad', B'00000', '', 'empty', NULL, (NULL,NULL),
			'{}', 'null', '[]', '', '', 'infinity', '0', '-0', 'NaN', -1, '', '{}', '', 'sad', '', NULL)`)
	table := loadTable(t, conn, "t")
	var copied bytes.Buffer
	if _, err := conn.PgConn().CopyTo(testContext(t), &copied, table.CopyQuery("")); err != nil {
		t.Fatal(err)
	}
	results, err := conn.PgConn().Exec(testContext(t), "SELECT * FROM public.t").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	data := copied.Bytes()[19:]
	for _, row := range results[0].Rows {
		if n := binary.BigEndian.Uint16(data); int(n) != len(row) {
			t.Fatalf("row has %d fields, want %d", n, len(row))
		}
		data = data[2:]
		for i, want := range row {
			var got []byte
			n := int32(binary.BigEndian.Uint32(data))
			if data = data[4:]; n >= 0 {
				got, data = data[:n], data[n:]
			}
			if !bytes.Equal(got, want) || (got == nil) != (want == nil) {
				t.Errorf("column %s is %q, want %q", table.Columns[i].Name, got, want)
			}
		}
	}
}

func TestRowsByKeyQuery(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, `CREATE DOMAIN d AS text`,
		`CREATE TABLE t (k1 numeric(10,2), g d, x text, b bytea, bp char(4), "from" timestamptz, PRIMARY KEY (g, k1, b, bp, "from"))`,
		`INSERT INTO t SELECT i + 0.5, 'g"' || i, 'x' || i, '\x01', 'a', '2024-01-01Z' FROM generate_series(1, 10) i`)
	table := loadTable(t, conn, "t")
	at := []string{"2024-01-01 00:00:00+00", "2024-01-01 00:00:00+00", "2024-01-01 00:00:00+00"}
	res := conn.PgConn().ExecParams(context.Background(), table.RowsByKeyQuery(), [][]byte{array(`g"2`, `g"7`, `g"99`), array("2.50", "7.50", "1.00"),
		array(`\x01`, `\x01`, `\x01`), array("a   ", "a   ", "a   "), array(at...)}, nil, nil, []int16{1}).Read()
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	var got []string
	for _, row := range res.Rows {
		got = append(got, string(row[0])+string(row[2]))
	}
	sort.Strings(got)
	if fmt.Sprint(got) != "[2.50x2 7.50x7]" {
		t.Errorf("read %q", got)
	}
}

// array returns the text form of a Postgres text array.
func array(elements ...string) []byte {
	parts := make([]string, len(elements))
	for i, e := range elements {
		b, _ := json.Marshal(e) // JSON escapes quotes and backslashes as Postgres' arrays do
		parts[i] = string(b)
	}
	return []byte("{" + strings.Join(parts, ",") + "}")
}
