package verify_test

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"capture/internal/restore"
	"capture/internal/verify"
)

// TestVerifyInAnyOrder checks that Verify finds all differences even if another program has written the file. The rows of
// such a file may be in any order and form.
func TestVerifyInAnyOrder(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(1000)
	whole, err := os.ReadFile(d.Export("votes"))
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(strings.NewReplacer("},\n", "}\n", "[\n", "", "\n]", "").Replace(string(whole))), "\n")
	rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	lines := strings.Join(rows, "\n") + "\n"
	from := map[string]verify.Options{
		"lines":          {Path: d.WriteFile(lines)},
		"array":          {Path: d.WriteFile("[" + strings.Join(rows, ",") + "]")},
		"standard input": {Path: "-", Stdin: strings.NewReader(lines)},
	}
	for name, o := range from {
		o.Database, o.Table = d.Config, d.Name("votes")
		if r := d.verify(o); !r.OK || r.Rows != 1000 || r.Difference.TableRows != 1000 {
			t.Errorf("%s: of equal ones the report is %+v %+v", name, r, r.Difference)
		}
	}
	d.Exec(`DELETE FROM votes WHERE vote_id IN (1, 1000) OR vote_id BETWEEN 100 AND 199; INSERT INTO votes (vote_id) VALUES (0), (1001);
		UPDATE votes SET comment = 'x', citations = NULL WHERE vote_id = 2; UPDATE votes SET "timestamp" = "timestamp" + '1 us' WHERE vote_id = 500`)
	for name, o := range from {
		different := "2: 2comment/citations 500timestamp"
		if o.Stdin != nil {
			o.Stdin, different = strings.NewReader(lines), "2: 2 500" // verify cannot read standard input again to find the columns
		}
		o.Database, o.Table = d.Config, d.Name("votes")
		r := d.verify(o)
		if r.OK || len(r.Problems) > 0 || r.Rows != 1000 {
			t.Fatalf("%s: the report is %+v", name, r)
		}
		if got := list(r.Difference.Missing); got != "2: 0 1001" {
			t.Errorf("%s: missing are %s", name, got)
		}
		if got := list(r.Difference.Different); got != different {
			t.Errorf("%s: different are %s", name, got)
		}
		if got := list(r.Difference.Extra); !strings.HasPrefix(got, "102: 1 100 101") || len(r.Difference.Extra.First) != 20 {
			t.Errorf("%s: extra are %s", name, got)
		}
	}
	for content, word := range map[string]string{
		lines + rows[5] + "\n":         "is in the file twice",
		lines[:len(lines)-20]:          "line 1000: the file is cut short: it ends within a row",
		rows[0] + "\n{\"a\":1}\n":      `line 2: it lacks column "vote_id" of the key`,
		`{"votes": [` + rows[0] + `]}`: `its rows are in the member "votes"`,
	} {
		r := d.verify(verify.Options{Path: d.WriteFile(content), Database: d.Config, Table: d.Name("votes")})
		if r.OK || len(r.Problems) != 1 || !strings.Contains(r.Problems[0], word) {
			t.Errorf("the report is %+v, want %q", r.Problems, word)
		}
	}
}

// TestVerifyByValue checks that Verify compares values by their meaning, not by the form in which they are written. The first
// list below has files with the table's values in different forms, so Verify must find no difference. Each pair replaces a part
// of the first of these files with another value of the same column, so Verify must report that column.
func TestVerifyByValue(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE v (id int PRIMARY KEY, n numeric, f double precision, r real, b boolean, t text, at timestamp, tz timestamptz, day date,
		j jsonb, k json, tags text[], nn int[], c char(5), u uuid);
		INSERT INTO v VALUES (1, 1.50, 0.1, 0.1, true, 'é"' || chr(10), '2025-06-17 16:58', '2025-06-17 16:58:00.25+00', '2025-06-17',
		'{"bb": [1.0, {"x": null}], "a": "é"}', '{"a" : 1, "b" : "\u00e9"}', '{a,"b c"}', '{{1,2},{3,4}}', 'ab', 'FFFFFFFF-0000-0000-0000-00000000000A')`)
	same := []string{
		`{"id":1,"n":1.50,"f":0.1,"r":0.1,"b":true,"t":"é\"\n","at":"2025-06-17T16:58:00","tz":"2025-06-17T16:58:00.25+00:00","day":"2025-06-17","j":{"a": "é", "bb": [1.0, {"x": null}]},"k":{"a" : 1, "b" : "é"},"tags":["a","b c"],"nn":[[1,2],[3,4]],"c":"ab   ","u":"ffffffff-0000-0000-0000-00000000000a"}`,
		`{"u":"FFFFFFFF-0000-0000-0000-00000000000A","c":"ab","nn":[[1.0, 2],[3,4]],"tags":[ "\u0061" ,"b c"],"k":{"b":"\u00e9","a":1.00},"j":{"bb":[1e0,{"x":null}],"a":"x","a":"\u00e9"},"day":1750118400000,"tz":1750179480.25,"at":1750179480000,"t":"\u00e9\u0022\u000a","b":1,"r":1e-1,"f":0.10000000000000001,"n":"1.5","id":1.0}`,
		`{"id":1,"n":15e-1,"f":1.0e-1,"r":0.1,"b":"t","t":"é\"\n","at":"2025-06-17 16:58:00.000","tz":"2025-06-17 18:58:00.250+02","day":"2025-06-17T00:00:00.000Z","j":{"a":"é","bb":[1,{"x":null}]},"k":{"a":1,"b":"é"},"tags":["a","b c"],"nn":[[1,2],[3,4]],"c":"ab","u":"ffffffff-0000-0000-0000-00000000000a"}`,
		`{"id":1,"n":1.5,"f":0.1,"r":0.1,"b":true,"t":"é\"\n","at":"\/Date(1750179480000)\/","tz":"/Date(1750179480250-0500)/","day":"2025-06-17","j":{"a":"é","bb":[1,{"x":null}]},"k":{"a":1,"b":"é"},"tags":["a","b c"],"nn":[[1,2],[3,4]],"c":"ab","u":"ffffffff-0000-0000-0000-00000000000a"}`,
	}
	for _, content := range same {
		path := d.WriteFile(content)
		if r := d.verify(verify.Options{Path: path, Database: d.Config, Table: d.Name("v")}); !r.OK {
			t.Errorf("%s\ndiffers: %+v %+v", content, r.Problems, r.Difference)
		}
		d.Exec("CREATE TABLE w (LIKE v INCLUDING ALL)")
		d.restore(restore.Options{Path: path, Table: d.Name("w")})
		if r := d.verify(verify.Options{Path: path, Database: d.Config, Table: d.Name("w")}); !r.OK {
			t.Errorf("%s\nrestored, it differs: %+v %+v", content, r.Problems, r.Difference)
		}
		d.Exec("DROP TABLE w")
	}
	for column, pair := range map[string][2]string{
		"n": {`"n":1.50`, `"n":1.51`}, "f": {`"f":0.1`, `"f":0.10000000000000002`}, "b": {`"b":true`, `"b":false`}, "t": {`"t":"é\"\n"`, `"t":"é\"\n "`},
		"at": {`T16:58:00"`, `T16:58:00.000001"`}, "tz": {`.25+00:00`, `.25+01:00`}, "day": {`"day":"2025-06-17"`, `"day":"2025-06-18"`}, "j": {`{"x": null}`, `{"x": false}`},
		"k": {`{"a" : 1`, `{"a" : "1"`}, "tags": {`["a","b c"]`, `["b c","a"]`}, "nn": {`[[1,2],[3,4]]`, `[1,2,3,4]`}, "c": {`"ab   "`, `" ab  "`}, "u": {`00a"`, `00b"`},
	} {
		content := strings.Replace(same[0], pair[0], pair[1], 1)
		r := d.verify(verify.Options{Path: d.WriteFile(content), Database: d.Config, Table: d.Name("v")})
		if r.OK || r.Difference == nil || list(r.Difference.Different) != "1: 1"+column {
			t.Errorf("with another %s the report is %+v %+v", column, r.Problems, r.Difference)
		}
	}
}
