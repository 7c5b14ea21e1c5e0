package verify_test

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"capture/internal/postgres"
	"capture/internal/restore"
	"capture/internal/statefile/statefiletest"
	"capture/internal/verify"
	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
)

func list(k verify.RowSample) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:", k.Rows)
	for _, key := range k.First {
		fmt.Fprintf(&b, " %s%s", key.Key, strings.Join(key.Columns, "/"))
	}
	return b.String()
}

func TestVerifyFindsEachDifference(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(3000)
	path := d.Export("votes")
	r := d.verify(verify.Options{Path: path, Database: d.Config})
	if !r.OK || !r.Manifest || r.Rows != 3000 || r.Table != "public.votes" || r.Difference.TableRows != 3000 {
		t.Errorf("of equal ones the report is %+v", r)
	}
	d.Exec(`DELETE FROM votes WHERE vote_id IN (1, 3000) OR vote_id BETWEEN 100 AND 199; INSERT INTO votes (vote_id) VALUES (0), (3001), (3002);
		UPDATE votes SET comment = 'x', citations = NULL WHERE vote_id = 2; UPDATE votes SET "timestamp" = NULL WHERE vote_id = 1500`)
	r = d.verify(verify.Options{Path: path, Database: d.Config})
	if r.OK || len(r.Problems) > 0 || r.Difference == nil {
		t.Fatalf("the report is %+v", r)
	}
	if got := list(r.Difference.Missing); got != "3: 0 3001 3002" {
		t.Errorf("missing are %s", got)
	}
	if got := list(r.Difference.Different); got != "2: 2comment/citations 1500timestamp" {
		t.Errorf("different are %s", got)
	}
	if got := list(r.Difference.Extra); !strings.HasPrefix(got, "102: 1 100 101") || len(r.Difference.Extra.First) != 20 {
		t.Errorf("extra are %s", got)
	}
}

func TestVerifyFindsEachProblemOfTheFile(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(200)
	path := d.Export("votes")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	swapped := append([]string(nil), lines...)
	swapped[10], swapped[11] = swapped[11], swapped[10]
	twice := append([]string(nil), lines...)
	twice[10] = twice[9]
	for _, c := range []struct {
		content  string
		manifest bool
		words    []string
	}{
		{string(whole), true, nil},
		{string(whole), false, nil},
		{string(whole[:len(whole)-10]), true, []string{"bytes, and the manifest says", "cut short"}},
		{string(whole[:len(whole)-10]), false, []string{"line 201", "cut short", "has the key 199"}},
		{strings.Replace(string(whole), "question 77", "question 78", 1), true, []string{"SHA-256"}},
		{strings.Replace(string(whole), "question 77", "question \x007", 1), true, []string{"SHA-256", "line 78", "not valid JSON", "has the key 76"}},
		{strings.Join(swapped, ""), true, []string{"SHA-256", "line 12", "10 comes after 11"}},
		{strings.Join(twice, ""), true, []string{"bytes", "line 11", "the key 9 is in the file twice"}},
		{"[]\n", true, []string{"bytes"}},
		{"", false, []string{"empty"}},
	} {
		if err := os.WriteFile(path, []byte(c.content), 0o644); err != nil {
			t.Fatal(err)
		}
		from := path
		if !c.manifest {
			from = d.WriteFile(c.content)
		}
		for _, o := range []verify.Options{{Path: from}, {Path: from, Database: d.Config}} {
			r := d.verify(o)
			if r.OK != (c.words == nil) || r.Manifest != c.manifest {
				t.Errorf("%q: the report is %+v", c.words, r)
			}
			for _, word := range c.words {
				if c.manifest == false && o.Database == nil && strings.Contains(word, "key") {
					continue // without a manifest or a database, Verify does not know the key columns
				}
				if !strings.Contains(strings.Join(r.Problems, "\n"), word) {
					t.Errorf("the problems do not say %q: %q", word, r.Problems)
				}
			}
		}
	}
}

func TestVerifyKeysOfAnyType(t *testing.T) {
	if testing.Short() {
		t.Skip("compares tables with keys of many types")
	}
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TYPE mood AS ENUM ('z', 'a', 'm'); CREATE DOMAIN posint AS int; CREATE TYPE pair AS (a int, b text)`)
	for i, c := range []struct{ typ, values string }{
		{"text", `'', 'a', 'B', 'é', 'a b', 'a"b', E'a\nb', 'a,b', '(', 'a\b', '🗳', 'null', '1,2'`},
		{"uuid", `'00000000-0000-0000-0000-00000000000a', 'ffffffff-0000-0000-0000-000000000000'`},
		{"numeric", `-1.5, 0, 0.01, 100, 1e30, 'NaN', -1e10, 99.9`},
		{"double precision", `'-0', 'NaN', 1e-300, -5, 'Infinity', 3`},
		{"timestamp", `'2025-06-17 16:58', '0044-03-15 12:00 BC', 'infinity', '2025-06-17 16:58:00.1', '12025-01-01'`},
		{"timestamptz", `'2025-06-17 16:58+05:30', '-infinity', '2025-06-17 16:58:00.1'`},
		{"date", `'2025-06-17', '0044-03-15 BC', 'infinity'`},
		{"boolean", `true, false`},
		{"bytea", `'\x', '\x00', '\xff'`},
		{"mood", `'a', 'z', 'm'`},
		{"posint", `5, 10, -3`},
		{"text[]", `'{}', '{a,"b c",NULL}', '{"NULL","","a\"b\\c","{"}'`},
		{"pair", `'(1,"a b")', '(,)', '(2,"x""y\\z")', '(3,"")'`},
		{"inet", `'127.0.0.1', '10.0.0.0/8', '::1'`},
		{"interval", `'1 day', '-3 hours', '2 years 00:00:00.5'`},
		{"char(5)", `'a', 'b c', ''`},
		{"bit(3)", `'101', '000'`},
	} {
		table := fmt.Sprintf("k%d", i)
		d.Exec(fmt.Sprintf("CREATE TABLE %s (n int, k %s, PRIMARY KEY (k, n)); INSERT INTO %[1]s SELECT 7, x FROM unnest(ARRAY[%[3]s]::text[]) x(t), LATERAL (SELECT t::%[2]s) y(x)", table, c.typ, c.values))
		path := d.Export(table)
		r := d.verify(verify.Options{Path: path, Database: d.Config})
		if !r.OK {
			t.Errorf("%s: the report is %+v %+v", c.typ, r, r.Difference)
		}
		if r := d.verify(verify.Options{Path: path}); !r.OK {
			t.Errorf("%s, by the manifest: the report is %+v", c.typ, r)
		}
		rows := r.Rows
		d.Exec(fmt.Sprintf("UPDATE %s SET n = 8", table))
		r = d.verify(verify.Options{Path: path, Database: d.Config})
		if r.Difference == nil || r.Difference.Missing.Rows != int64(rows) || r.Difference.Extra.Rows != int64(rows) {
			t.Errorf("%s: with other keys the report is %+v", c.typ, r)
		}
		d.Exec(fmt.Sprintf("UPDATE %s SET n = 7; ALTER TABLE %[1]s ADD COLUMN v int", table))
		r = d.verify(verify.Options{Path: path, Database: d.Config})
		if r.Difference == nil || r.Difference.Different.Rows != int64(rows) || strings.Join(r.Difference.Different.First[0].Columns, "") != "v" {
			t.Errorf("%s: with another column the report is %+v %+v", c.typ, r, r.Difference)
		}
		d.Exec("TRUNCATE " + table)
		d.Exec(fmt.Sprintf("ALTER TABLE %s DROP COLUMN v", table))
		d.restore(restore.Options{Path: path})
		if r := d.verify(verify.Options{Path: path, Database: d.Config}); !r.OK {
			t.Errorf("%s: restored, the report is %+v %+v", c.typ, r, r.Difference)
		}
	}
}

// TestCompareLive compares while other sessions write to the table. It checks that a live comparison finds no difference in a
// correct state, and finds all rows that really differ.
func TestCompareLive(t *testing.T) {
	if testing.Short() {
		t.Skip("compares beside writers for seconds")
	}
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(400)
	ctx, stop := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop()
	for w := range 2 {
		conn := d.Connect(d.Config)
		writers.Add(1)
		go func() {
			defer writers.Done()
			r := rand.New(rand.NewPCG(1, uint64(w)))
			for ctx.Err() == nil {
				id := r.IntN(50)             // few rows, so each row changes often
				time.Sleep(time.Millisecond) // far shorter than a comparison, so rows change during it
				for _, sql := range []string{
					fmt.Sprintf("UPDATE public.votes SET comment = clock_timestamp()::text WHERE vote_id = %d", id),
					"INSERT INTO public.votes (comment) VALUES ('new')",
					"DELETE FROM public.votes WHERE vote_id = (SELECT max(vote_id) FROM public.votes)",
				} {
					if _, err := conn.Exec(ctx, sql); err != nil && ctx.Err() == nil {
						t.Error(err)
						return
					}
				}
			}
		}()
	}
	spoil := false
	c := verify.Comparison{Database: d.Config, Table: d.Name("votes"), Live: true,
		State: func(ctx context.Context, table *postgres.Table) (iter.Seq2[snapshot.Row, error], error) {
			v := d.View("votes")
			if spoil {
				v = spoiled(v)
			}
			return v.From(nil), nil
		}}
	for range 6 {
		if diff, err := verify.Compare(context.Background(), c); err != nil || !diff.Empty() {
			t.Fatalf("%+v %v", diff, err)
		}
	}
	spoil = true
	diff, err := verify.Compare(context.Background(), c)
	if err != nil || list(diff.Missing) != "1: 200" || list(diff.Different) != "1: 201comment" || list(diff.Extra) != "1: -5" {
		t.Fatalf("%+v %v", diff, err)
	}
}

// TestCompareLiveRepeats checks that a live comparison reports a row only if the row differs in every round. Suppose that a
// row changes, and changes back, between the two snapshots of a round. A correct state can then contain the changed row.
// This row differs in this round, but not in a later round.
func TestCompareLiveRepeats(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(20)
	between := func(change, undo string) *snapshot.View {
		d.Exec(change)
		v := d.View("votes")
		d.Exec(undo)
		return v
	}
	d.Exec("CREATE TABLE original AS TABLE votes")
	changed := func(id int) *snapshot.View {
		return between(fmt.Sprintf("UPDATE votes SET bot_response = 'between' || vote_id WHERE vote_id = %d", id),
			fmt.Sprintf("UPDATE votes SET bot_response = (SELECT bot_response FROM original WHERE vote_id = %d) WHERE vote_id = %[1]d", id))
	}
	deleted := func() *snapshot.View {
		return between("DELETE FROM votes WHERE vote_id = 7", "INSERT INTO votes SELECT * FROM original WHERE vote_id = 7")
	}
	inserted := func() *snapshot.View {
		return between("INSERT INTO votes (vote_id) VALUES (-5)", "DELETE FROM votes WHERE vote_id = -5")
	}
	for name, c := range map[string]struct {
		rounds int                            // expected number of rounds
		state  func(round int) *snapshot.View // returns nil for a correct state
		want   string
	}{
		"changed in one round": {2, func(round int) *snapshot.View {
			if round == 1 {
				return changed(5)
			}
			return nil
		}, "0: 0: 0:"},
		"missing in two rounds": {3, func(round int) *snapshot.View {
			if round <= 2 {
				return deleted()
			}
			return nil
		}, "0: 0: 0:"},
		"extra in two rounds": {3, func(round int) *snapshot.View {
			if round <= 2 {
				return inserted()
			}
			return nil
		}, "0: 0: 0:"},
		"another row in each round":  {2, func(round int) *snapshot.View { return changed(round) }, "0: 0: 0:"},
		"the same row in each round": {3, func(int) *snapshot.View { return changed(5) }, "0: 0: 1: 5bot_response"},
	} {
		round := 0
		diff, err := verify.Compare(context.Background(), verify.Comparison{Database: d.Config, Table: d.Name("votes"), Live: true,
			State: func(ctx context.Context, table *postgres.Table) (iter.Seq2[snapshot.Row, error], error) {
				round++
				v := c.state(round)
				if v == nil {
					v = d.View("votes")
				}
				return v.From(nil), nil
			}})
		if got := fmt.Sprint(list(diff.Missing), " ", list(diff.Extra), " ", list(diff.Different)); err != nil || got != c.want || round != c.rounds {
			t.Errorf("%s: after %d rounds %q, %v", name, round, got, err)
		}
	}
}

// spoiled returns v without vote 200, with another comment in vote 201, and with an additional vote -5.
func spoiled(v *snapshot.View) *snapshot.View {
	t := snapshot.NewTable()
	t.Load(v.Shape(), v.Origin())
	for row := range v.From(nil) {
		key, line := row.Key, row.Line
		switch id := v.Shape().KeyString(key); {
		case id == "200":
			continue
		case id == "201":
			line = []byte(strings.Replace(string(line), `"comment":`, `"comment":"SPOILED","x":`, 1))
			line = []byte(strings.Replace(string(line), `,"x":"NULL"`, "", 1))
			line = []byte(strings.Replace(string(line), `,"x":null`, "", 1))
		}
		t.Put(key, line)
	}
	enc, _ := rowjson.NewEncoder(v.Shape(), false)
	values := make([][]byte, len(v.Shape().Columns))
	values[0] = []byte("-5")
	key, _ := enc.AppendKey(nil, values)
	line, _ := enc.AppendRow(nil, values, nil)
	t.Put(key, line)
	t.Commit(snapshot.Position{})
	return t.View()
}

// TestVerifyBesideAWriter checks that Verify finds no fault while the test, like a running daemon, replaces the file again
// and again.
func TestVerifyBesideAWriter(t *testing.T) {
	if testing.Short() {
		t.Skip("compares beside writers for seconds")
	}
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(500)
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, err := store.Open(path, store.Owner{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var mu sync.Mutex
	flush := func(reader *db) {
		mu.Lock()
		defer mu.Unlock()
		if _, err := f.Write(reader.View("votes"), store.ReasonChange); err != nil {
			t.Error(err)
		}
	}
	flush(d)
	ctx, stop := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop()
	writers.Add(1)
	other := &db{&statefiletest.DB{T: t, Config: d.Config, Conn: d.Connect(d.Config)}}
	go func() {
		defer writers.Done()
		for ctx.Err() == nil {
			_, _ = other.Conn.Exec(ctx, "INSERT INTO public.votes (comment) VALUES ('new')")
			if ctx.Err() == nil {
				flush(other)
			}
		}
	}()
	deadline := time.Now().Add(5 * time.Minute)
	for i := range 20 {
		o := verify.Options{Path: path, Database: d.Config, Barrier: func(context.Context) error { flush(d); return nil }}
		if r := d.verify(o); !r.OK {
			t.Fatalf("attempt %d: the report is %+v %+v", i, r, r.Difference)
		}
		if r := d.verify(verify.Options{Path: path}); !r.OK {
			t.Fatalf("attempt %d, alone: the report is %+v", i, r)
		}
		if time.Now().After(deadline) {
			t.Fatal("verifying takes too long")
		}
	}
}
