package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
	"capture/store/kept"
	"capture/store/retention"
)

// TestSpacesAfterJSONAreNoLoss writes the same rows in two runs, and checks that the second run finds no difference. The last
// column has values of type json that end with a newline. If the encoder left a space in place of this newline, a reader of the
// file would take the space for padding and remove it. The rows would then differ.
func TestSpacesAfterJSONAreNoLoss(t *testing.T) {
	t.Parallel()
	shape := &rowjson.Shape{Schema: "public", Table: "votes", Key: []int{0}, Columns: []rowjson.Column{
		{Name: "vote_id", TypeName: "integer", Type: rowjson.Type{Kind: rowjson.Number, OID: 23}, NotNull: true},
		{Name: "evaluation", TypeName: "json", Type: rowjson.Type{Kind: rowjson.JSON, OID: 114}},
	}}
	encoder, err := rowjson.NewEncoder(shape, false)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "feedback.json")
	for range 2 {
		tab := snapshot.NewTable()
		v := commit(t, tab, func() {
			tab.Load(shape, votes(1, "").View().Origin())
			for i := range 100 {
				line, err := encoder.AppendCopiedRow(nil, [][]byte{fmt.Append(nil, i), []byte("{\"rating\": 5}\n")})
				if err != nil {
					t.Fatal(err)
				}
				tab.Put(key(i), line)
			}
		})
		f := open(t, path)
		if r := write(t, f, v, store.ReasonStart); r.Kept != nil {
			t.Errorf("the state before was kept: %+v", r.Kept)
		}
		f.Close()
	}
}

// TestFileRemovedBeforeFirstWrite removes the file after Open, as somebody could while capture waits for the database. It
// checks that the first Write keeps no state, and puts the file back.
func TestFileRemovedBeforeFirstWrite(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{200, 0} {
		path := filepath.Join(t.TempDir(), "feedback.json")
		f := open(t, path)
		write(t, f, votes(100, "x").View(), store.ReasonStart)
		f.Close()
		f = open(t, path)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if r := write(t, f, votes(rows, "x").View(), store.ReasonStart); r.Kept != nil {
			t.Errorf("%d rows: kept is %s", rows, r.Kept.Path)
		}
		checkPair(t, path)
	}
}

// TestFileReplacedBeforeFirstWrite: another program puts a file in place after Open, and before the first Write. The Write
// keeps this file under its own manifest. If the file has no manifest, the Write gives it a second name, whatever the policy
// is.
func TestFileReplacedBeforeFirstWrite(t *testing.T) {
	t.Parallel()
	other := filepath.Join(t.TempDir(), "feedback.json")
	write(t, open(t, other), votes(105, "x").View(), store.ReasonStart)
	for _, found := range []int{100, 0} { // number of rows in the file that Open finds; 0 if there is no file
		for _, load := range []bool{true, false} {
			for _, intact := range []bool{true, false} {
				path, tab := filepath.Join(t.TempDir(), "feedback.json"), votes(100, "x")
				f := open(t, path)
				if found > 0 {
					write(t, f, tab.View(), store.ReasonStart)
					f.Close()
					f = open(t, path)
				}
				if load && found > 0 {
					tab = snapshot.NewTable()
					if err := loadInto(t.Context(), f, tab); err != nil {
						t.Fatal(err)
					}
				}
				var err error
				if intact {
					err = copyPair(other, path)
				} else {
					f.Kept().SetPolicy(retention.Policy{})
					err = replaceFile(path, "[7]\n")
				}
				if err != nil {
					t.Fatal(err)
				}
				r := write(t, f, tab.View(), store.ReasonStart)
				damaged, _ := filepath.Glob(path + ".damaged-*")
				if intact && (r.Kept == nil || r.Kept.Rows != 105 || damaged != nil) || !intact && (len(damaged) != 1 || string(read(t, damaged[0])) != "[7]\n") {
					t.Errorf("found %d, loaded %t, intact %t: kept is %+v, and %q is damaged", found, load, intact, r.Kept, damaged)
				}
				if rows := checkPair(t, path).Rows; rows != 100 {
					t.Errorf("found %d, loaded %t, intact %t: the file has %d rows", found, load, intact, rows)
				}
			}
		}
	}
}

// TestLossFromDamagedFile damages one row of the file, so that a Write cannot compare the file's rows with the rows that
// replace them. If the Write replaces many rows, it must keep the file as the state before a loss, because the replaced rows
// may be lost. The loss must not end when other rows are added.
func TestLossFromDamagedFile(t *testing.T) {
	t.Parallel()
	const rows, removed = 10_000, 1200
	overwriteAll := func(tab *snapshot.Table) {
		for i := range rows {
			put(tab, i, "")
		}
	}
	overwriteDamaged := func(tab *snapshot.Table) { put(tab, 50, "") }
	const notCompared = "10,000 of 10,000 rows may be lost or have other values, because the file was damaged and could not be compared"
	for name, test := range map[string]struct {
		touched bool // whether the file's modification time differs from the time that capture remembers
		change  func(tab *snapshot.Table)
		loss    string // description of the loss; "" if the file is not kept
	}{
		"all values overwritten":                    {change: overwriteAll, loss: notCompared},
		"all values overwritten, file touched":      {touched: true, change: overwriteAll, loss: notCompared},
		"the damaged row overwritten":               {change: overwriteDamaged},
		"the damaged row overwritten, file touched": {touched: true, change: overwriteDamaged},
		"rows removed, the others overwritten": {loss: "the table went from 10,000 rows to 8,800; " + notCompared, change: func(tab *snapshot.Table) {
			overwriteAll(tab)
			for i := range removed {
				tab.Delete(key(i))
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "feedback.json")
			f := open(t, path)
			f.Kept().SetPolicy(retention.Policy{})
			tab := votes(rows, strings.Repeat("x", 100)) // long rows, so that the damaged page has only a small part of all rows; with short rows, the page would have a tenth
			write(t, f, tab.View(), store.ReasonStart)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			rotten := bytes.Replace(read(t, path), []byte(`{"vote_id":50,`), []byte(`{"vote_id:50,,`), 1)
			modified := info.ModTime()
			if test.touched {
				modified = modified.Add(time.Second)
			}
			if err := errors.Join(os.WriteFile(path, rotten, 0o640), os.Chtimes(path, modified, modified)); err != nil {
				t.Fatal(err)
			}
			r := write(t, f, commit(t, tab, func() { test.change(tab) }), store.ReasonForced)
			if test.loss == "" {
				if r.Kept != nil {
					t.Errorf("kept is %+v", r.Kept)
				}
				return
			}
			if r.Kept == nil || r.Kept.Loss == nil || r.Kept.Damaged == "" || r.Kept.Loss.String() != test.loss {
				t.Fatalf("kept is %+v", r.Kept)
			}
			if !bytes.Equal(read(t, r.Kept.Path), rotten) {
				t.Error("the kept state is not the file")
			}
			commit(t, tab, func() {
				for i := range removed {
					put(tab, rows+i, "another row")
				}
			})
			if ended, err := f.Kept().EndLosses(tab.View); err != nil || len(ended) > 0 {
				t.Errorf("ended are %+v (%v)", ended, err)
			}
		})
	}
}

// TestKeptAtStart checks whether the first Write keeps the file of an earlier run before it replaces the file. If many rows
// are gone, the Write must keep the file as the state before a loss. Otherwise, if any row differs and the policy keeps
// ordinary states, it must keep the file as an ordinary state. It must always keep the file of another table or cluster.
func TestKeptAtStart(t *testing.T) {
	t.Parallel()
	other := func(rows int, origin snapshot.Origin, oid uint32) *snapshot.View {
		from := votes(rows, "x").View()
		tab, shape := snapshot.NewTable(), *from.Shape()
		shape.OID = oid
		return commit(t, tab, func() {
			tab.Load(&shape, origin)
			for row := range from.From(nil) {
				tab.Put(row.Key, row.Line)
			}
		})
	}
	origin := votes(1, "").View().Origin()
	elsewhere := origin
	elsewhere.SystemID = "7399999999999999999"
	for name, test := range map[string]struct {
		next        *snapshot.View
		off         bool // whether the policy keeps no ordinary states (--keep 0)
		kept, loss  bool
		otherSource bool
	}{
		"the same":              {next: votes(100, "x").View()},
		"a row more":            {next: votes(101, "x").View(), kept: true},
		"a row more, keep none": {next: votes(101, "x").View(), off: true},
		"a row less":            {next: votes(99, "x").View(), kept: true},
		"empty":                 {next: votes(0, "x").View(), kept: true, loss: true},
		"empty, keep none":      {next: votes(0, "x").View(), off: true, kept: true, loss: true},
		"half":                  {next: votes(50, "x").View(), kept: true, loss: true},
		"another cluster":       {next: other(100, elsewhere, 0), kept: true, otherSource: true},
		"another table":         {next: other(100, origin, 7), off: true, kept: true, otherSource: true},
		"another, empty":        {next: other(0, elsewhere, 0), kept: true, loss: true, otherSource: true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "feedback.json")
			first := other(100, origin, 5)
			f, err := store.Open(path, owner)
			if err != nil {
				t.Fatal(err)
			}
			write(t, f, first, store.ReasonStart)
			before := read(t, path)
			f.Close()

			f = open(t, path)
			if test.off {
				f.Kept().SetPolicy(retention.Policy{})
			}
			r := write(t, f, test.next, store.ReasonStart)
			if !test.kept {
				if r.Kept != nil {
					t.Fatalf("kept %+v", r.Kept)
				}
				return
			}
			if r.Kept == nil || (r.Kept.Loss != nil) != test.loss || r.Kept.Other != test.otherSource {
				t.Fatalf("kept %+v", r.Kept)
			}
			if _, err := f.Kept().Prune(); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Kept().Compress(t.Context()); err != nil {
				t.Fatal(err)
			}
			states, err := kept.List(path)
			if err != nil || len(states) != 1 || !bytes.Equal(unzip(t, states[0].Path), before) {
				t.Errorf("the kept states are %+v, %v", states, err)
			}
			for _, name := range names(t, filepath.Dir(path)) {
				if strings.HasPrefix(name, ".") {
					t.Errorf("left over: %s", name)
				}
			}
		})
	}
}

// TestOtherTableIsKept replaces the table by another table with the same name and rows while capture runs. It checks that
// the file of the old table is kept.
func TestOtherTableIsKept(t *testing.T) {
	t.Parallel()
	f, tab := open(t, filepath.Join(t.TempDir(), "feedback.json")), snapshot.NewTable()
	from := votes(100, "x").View()
	load := func(oid uint32) *snapshot.View {
		shape := *from.Shape()
		shape.OID, shape.Fingerprint = oid, fmt.Sprint(oid)
		return commit(t, tab, func() {
			tab.Load(&shape, from.Origin())
			for row := range from.From(nil) {
				tab.Put(row.Key, row.Line)
			}
		})
	}
	write(t, f, load(5), store.ReasonStart)
	if r := write(t, f, load(5), store.ReasonChange); r.Kept != nil {
		t.Errorf("copied again: kept %+v", r.Kept)
	}
	if r := write(t, f, load(6), store.ReasonChange); r.Kept == nil || !r.Kept.Other || r.Kept.Loss != nil {
		t.Errorf("another table: kept %+v", r.Kept)
	}
}

// TestFileReplacedAfterWrite: somebody changes or replaces feedback.json while capture runs. The next Write keeps what it
// replaces, whatever the policy is. But it keeps nothing if the file still has capture's own bytes.
func TestFileReplacedAfterWrite(t *testing.T) {
	t.Parallel()
	other := filepath.Join(t.TempDir(), "feedback.json")
	write(t, open(t, other), votes(105, "x").View(), store.ReasonStart)
	for what, test := range map[string]struct {
		change  func(path string) error
		damaged bool // whether the file must be kept as a damaged file
		kept    int  // number of rows of the kept state; 0 if there must be none
	}{
		"another program's file":    {change: func(path string) error { return replaceFile(path, "[7]\n") }, damaged: true},
		"overwritten in place":      {change: func(path string) error { return os.WriteFile(path, []byte("[7]\n"), 0o600) }, damaged: true},
		"emptied in place":          {change: func(path string) error { return os.Truncate(path, 0) }, damaged: true},
		"a row is edited":           {change: editRow, damaged: true},
		"a file without manifest":   {change: func(path string) error { return replaceFile(path, string(read(t, other))) }, damaged: true},
		"a file with its manifest":  {change: func(path string) error { return copyPair(other, path) }, kept: 105},
		"only the time is changed":  {change: func(path string) error { return os.Chtimes(path, time.Time{}, time.Unix(1e9, 0)) }},
		"the same file, but copied": {change: func(path string) error { return replaceFile(path, string(read(t, path))) }},
		"the file is removed":       {change: os.Remove},
	} {
		for _, next := range []struct {
			rows   int // number of rows in the table during the next Write; the file has 100
			text   string
			policy retention.Policy
		}{
			{100, "x", retention.Default},
			{101, "x", retention.Policy{}},
			{101, strings.Repeat("x", 50_000), retention.Policy{}}, // the next Write of such a large file would be a patch
		} {
			what := fmt.Sprintf("%s, %d rows of %d characters", what, next.rows, len(next.text))
			path, tab := filepath.Join(t.TempDir(), "feedback.json"), votes(100, next.text)
			f := open(t, path)
			f.Kept().SetPolicy(next.policy)
			write(t, f, tab.View(), store.ReasonStart)
			if err := test.change(path); err != nil {
				t.Fatal(err)
			}
			changed, _ := os.ReadFile(path)
			addRows := func(rows int) *snapshot.View {
				return commit(t, tab, func() {
					for id := 100; id < rows; id++ {
						put(tab, id, next.text)
					}
				})
			}
			r := write(t, f, addRows(next.rows), store.ReasonChange)
			damaged, _ := filepath.Glob(path + ".damaged-*")
			if !test.damaged && damaged != nil || test.damaged && (len(damaged) != 1 || !bytes.Equal(read(t, damaged[0]), changed)) {
				t.Errorf("%s: kept as damaged: %q", what, damaged)
			}
			if test.damaged != strings.Contains(r.Warning, "is not what capture wrote") {
				t.Errorf("%s: the warning is %q", what, r.Warning)
			}
			// A damaged file that cannot be compared with the new rows is also kept as the state before a possible loss.
			if r.Kept == nil && test.kept > 0 || r.Kept != nil && r.Kept.Rows != test.kept && !test.damaged {
				t.Errorf("%s: kept is %+v", what, r.Kept)
			}
			if m := checkPair(t, path); m.Rows != next.rows {
				t.Errorf("%s: the file has %d rows", what, m.Rows)
			}
			// The Write after that finds its own file, so it has nothing to keep.
			if r := write(t, f, addRows(next.rows+1), store.ReasonChange); r.Kept != nil || r.Warning != "" {
				t.Errorf("%s: the Write after: kept is %+v, the warning is %q", what, r.Kept, r.Warning)
			}
			if again, _ := filepath.Glob(path + ".damaged-*"); len(again) != len(damaged) {
				t.Errorf("%s: the Write after: kept as damaged: %q", what, again)
			}
		}
	}
}

// editRow changes one letter of the file in place.
func editRow(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[bytes.LastIndexByte(b, 'x')] = 'y'
	return os.WriteFile(path, b, 0o600)
}
