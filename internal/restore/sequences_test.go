package restore_test

import (
	"strings"
	"testing"

	"capture/internal/restore"
)

// TestSequencesOfDomains: a sequence continues after the highest key, even if the column's type is a domain over a number, or a
// domain over such a domain.
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

// TestSequenceOfText: a sequence whose numbers are part of a text can't be set. The result has the reason.
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
}

// TestEmptyFileIntoTableWithoutKey: an empty file is restored into an empty table that has no key.
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
