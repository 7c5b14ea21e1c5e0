package restore_test

import (
	"fmt"
	"strings"
	"testing"

	"capture/internal/restore"
)

// TestSequencesOfDomains checks that a sequence continues after the highest key, even if the column's type is a domain over
// a number, or a domain over such a domain.
func TestSequencesOfDomains(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE DOMAIN vote_number AS bigint CHECK (value > 0); CREATE DOMAIN vote_key AS vote_number; CREATE SEQUENCE votes_seq;
		CREATE TABLE votes (vote_id vote_key PRIMARY KEY DEFAULT nextval('votes_seq'), comment text);
		INSERT INTO votes (comment) SELECT 'c' FROM generate_series(1, 20)`)
	path := d.Export("votes")
	d.Exec("TRUNCATE votes; ALTER SEQUENCE votes_seq RESTART")
	res := d.restore(restore.Options{Path: path})
	if len(res.Sequences) != 1 || res.Sequences[0].Last != 20 {
		t.Errorf("the sequences are %+v", res.Sequences)
	}
	if id := d.Query("INSERT INTO votes (comment) VALUES ('next') RETURNING vote_id"); id != "21" {
		t.Errorf("the next row is %s", id)
	}
}

// TestSequencesOfFractions checks that a sequence continues after the highest finite value of a column that also contains
// fractions, NaN and infinity.
func TestSequencesOfFractions(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	for typ, want := range map[string]string{
		"double precision": "9007199254740992", "real": "1234567", "numeric": "9007199254740992", "numeric(20,2)": "9007199254740992",
	} {
		others := "'NaN'"
		if typ != "numeric(20,2)" && (typ != "numeric" || d.version() >= 14) { // Postgres 13's numeric has no infinity
			others = "'NaN', 'Infinity', '-Infinity'"
		}
		d.Exec(fmt.Sprintf(`DROP TABLE IF EXISTS votes; DROP DOMAIN IF EXISTS fraction; DROP SEQUENCE IF EXISTS votes_seq; CREATE SEQUENCE votes_seq;
			CREATE DOMAIN fraction AS %s; CREATE TABLE votes (vote_id %[1]s PRIMARY KEY DEFAULT nextval('votes_seq'), again fraction DEFAULT nextval('votes_seq'));
			INSERT INTO votes SELECT v, NULL FROM unnest(ARRAY['-7', '3.5', '%s', %s]::%[1]s[]) v`, typ, want, others))
		path := d.Export("votes")
		d.Exec("TRUNCATE votes")
		res := d.restore(restore.Options{Path: path})
		if got := fmt.Sprint(res.Sequences); got != "[{public.votes_seq "+want+"}]" || res.NotSet != nil {
			t.Errorf("%s: the sequences are %s, %+v", typ, got, res.NotSet)
		}
	}
}

// TestSequenceOfText checks that the result names a sequence that a restore can't set, because the sequence's numbers are
// part of a text.
func TestSequenceOfText(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE SEQUENCE votes_seq; CREATE TABLE votes (vote_id text PRIMARY KEY DEFAULT 'v' || nextval('votes_seq'), comment text);
		INSERT INTO votes (comment) VALUES ('a'), ('b')`)
	path := d.Export("votes")
	d.Exec("TRUNCATE votes; ALTER SEQUENCE votes_seq RESTART")
	res := d.restore(restore.Options{Path: path})
	if len(res.Sequences) != 0 || len(res.NotSet) != 1 || res.NotSet[0].Name != "public.votes_seq" || !strings.Contains(res.NotSet[0].Reason, "text; set it yourself") {
		t.Errorf("%+v, %+v", res.Sequences, res.NotSet)
	}
	// If the column has no values, the sequence needs no change, and the result does not name it.
	if res := d.restore(restore.Options{Path: d.WriteFile("[]\n"), Table: d.Name("votes"), DeleteExtra: true}); res.NotSet != nil {
		t.Errorf("without rows: %+v", res.NotSet)
	}
}

// TestEmptyFileIntoTableWithoutKey checks that an empty file can be restored into an empty table that has no key.
func TestEmptyFileIntoTableWithoutKey(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec("CREATE TABLE t (v text)")
	path := d.WriteFile("[]\n")
	res := d.restore(restore.Options{Path: path, Table: d.Name("t"), DeleteExtra: true})
	if res.Rows != 0 || res.Deleted.Rows != 0 {
		t.Errorf("%+v", res)
	}
}
