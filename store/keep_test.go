package store_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
	"capture/store/kept"
	"capture/store/retention"
)

// commit commits what change does to the table.
func commit(t *testing.T, tab *snapshot.Table, change func()) *snapshot.View {
	t.Helper()
	change()
	if err := tab.Commit(snapshot.Position{LSN: 1}); err != nil {
		t.Fatal(err)
	}
	return tab.View()
}

// TestLossIsKept makes each kind of loss, and changes that are none, in small files and in patched ones.
func TestLossIsKept(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{100, 3000} {
		deleteRows := func(n int) func(*snapshot.Table) {
			return func(tab *snapshot.Table) {
				for i := range n {
					tab.Delete(key(i * 7 % rows))
				}
			}
		}
		tenth := rows / 10
		for name, test := range map[string]struct {
			change func(*snapshot.Table)
			lost   int    // rows; 0 for no loss
			text   string // in what the loss is called
		}{
			"a tenth deleted": {change: deleteRows(tenth)},
			"more deleted":    {change: deleteRows(tenth + 1), lost: tenth + 1, text: fmt.Sprintf("from %d rows to %d", rows, rows-tenth-1)},
			// Of the others most of the file changes, so the state before would not be patched in any case.
			"the last deleted": {lost: tenth + 1, text: fmt.Sprintf("from %d rows to %d", rows, rows-tenth-1), change: func(tab *snapshot.Table) {
				for i := range tenth + 1 {
					tab.Delete(key(rows - 1 - i))
				}
			}},
			"truncated": {change: func(tab *snapshot.Table) { tab.Truncate() }, lost: rows, text: fmt.Sprintf("from %d rows to 0", rows)},
			"other keys": {lost: rows, change: func(tab *snapshot.Table) {
				tab.Truncate()
				for i := range rows {
					put(tab, rows+i, "x")
				}
			}},
			"reloaded": {change: func(tab *snapshot.Table) {
				tab.Truncate()
				for i := range rows {
					put(tab, i, "a text of some length")
				}
			}},
			"half changed": {change: func(tab *snapshot.Table) {
				for i := range rows / 2 {
					put(tab, i, "changed")
				}
			}},
			"more changed": {text: fmt.Sprintf("%d of %d rows got another value in column \"comment\"", rows/2+1, rows), lost: -1, change: func(tab *snapshot.Table) {
				for i := range rows/2 + 1 {
					put(tab, i, "changed")
				}
			}},
			"inserted": {change: func(tab *snapshot.Table) {
				for i := range rows {
					put(tab, rows+i, "x")
				}
			}},
		} {
			t.Run(fmt.Sprintf("%d rows/%s", rows, name), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "feedback.json")
				f, tab := open(t, path), votes(rows, "a text of some length")
				write(t, f, tab.View(), store.ReasonStart)
				// A version of which nothing is new, so that the next one is patched.
				write(t, f, commit(t, tab, func() { put(tab, 1, "a text of some lengt.") }), store.ReasonChange)
				idleToEnd(t, f, tab.View())
				before := read(t, path)
				r := write(t, f, commit(t, tab, func() { test.change(tab) }), store.ReasonChange)
				checkPair(t, path)
				if test.lost == 0 && test.text == "" {
					if r.Kept != nil || len(f.Kept().List()) != 0 {
						t.Fatalf("kept %+v", f.Kept().List())
					}
					return
				}
				states := f.Kept().List()
				if r.Kept == nil || len(states) != 1 || states[0].Loss == nil {
					t.Fatalf("kept %+v: %+v", r.Kept, states)
				}
				loss := states[0].Loss
				if test.lost > 0 && loss.RowsLost != test.lost || !strings.Contains(loss.String(), test.text) {
					t.Errorf("the loss is %+v (%s)", loss, loss)
				}
				if states[0].Rows != rows || !bytes.Equal(read(t, states[0].Path), before) {
					t.Errorf("the state is %+v", states[0])
				}
				// What follows is patched, and the kept state stays as it is: plain, and compressed.
				for i := range 6 {
					write(t, f, commit(t, tab, func() { put(tab, 2*rows, fmt.Sprint("later ", i)) }), store.ReasonChange)
					idleToEnd(t, f, tab.View())
					if i == 3 {
						if _, err := f.Kept().Compress(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					s := f.Kept().List()[0]
					data := read(t, s.Path)
					if i >= 3 {
						data = unzip(t, s.Path)
					}
					if !bytes.Equal(data, before) || s.Damaged != "" || i >= 3 && s.SHA256 != digest(before) {
						t.Fatalf("after %d changes the state is %+v, of %d bytes", i+1, s, len(data))
					}
				}
			})
		}
	}
}

// idleToEnd takes all idle steps.
func idleToEnd(t *testing.T, f *store.File, v *snapshot.View) {
	t.Helper()
	for more := true; more; {
		var err error
		if _, more, err = f.Idle(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLossInSteps: rows that go a few at a time are a loss once a tenth of the highest number of the last hour is gone, and another one
// only when a tenth more is gone.
func TestLossInSteps(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, tab := open(t, path), votes(1000, "x")
	write(t, f, tab.View(), store.ReasonStart)
	var at []int
	for i := range 60 {
		if r := write(t, f, commit(t, tab, func() {
			for j := range 5 {
				tab.Delete(key(5*i + j))
			}
		}), store.ReasonChange); r.Kept != nil {
			at = append(at, r.Manifest.Rows)
			if loss := r.Kept.Loss; loss == nil || loss.HourHighest == 0 {
				t.Errorf("kept %+v", r.Kept)
			}
		}
	}
	if fmt.Sprint(at) != "[895 805 720]" {
		t.Errorf("losses at %v rows", at)
	}
}

// TestDroppedColumn: a dropped column is a loss, an added one is not.
func TestDroppedColumn(t *testing.T) {
	t.Parallel()
	load := func(tab *snapshot.Table, columns ...string) *snapshot.View {
		shape := &rowjson.Shape{Schema: "public", Table: "votes", Key: []int{0}, Fingerprint: fmt.Sprint(columns)}
		for i, name := range columns {
			c := rowjson.Column{Name: name, TypeName: "text"}
			if i == 0 {
				c.TypeName, c.Type = "integer", rowjson.Type{Kind: rowjson.Number, OID: 23}
			}
			shape.Columns = append(shape.Columns, c)
		}
		return commit(t, tab, func() {
			tab.Load(shape, snapshot.Origin{})
			for i := range 50 {
				line := fmt.Sprintf(`{"id":%d`, i)
				for _, name := range columns[1:] {
					line += fmt.Sprintf(`,%q:"%s %d"`, name, name, i)
				}
				tab.Put(key(i), []byte(line+"}"))
			}
		})
	}
	tab := snapshot.NewTable()
	f := open(t, filepath.Join(t.TempDir(), "feedback.json"))
	write(t, f, load(tab, "id", "a"), store.ReasonStart)
	if r := write(t, f, load(tab, "id", "a", "b"), store.ReasonChange); r.Kept != nil {
		t.Errorf("an added column: %+v", r.Kept)
	}
	r := write(t, f, load(tab, "id", "b"), store.ReasonChange)
	if r.Kept == nil || r.Kept.Loss == nil || r.Kept.Loss.String() != `column "a" was dropped` {
		t.Errorf("a dropped column: %+v", r.Kept)
	}
}

// TestKeptAtStart: what an earlier run left is kept before the first Write replaces it: as the state before a loss, as an ordinary one if
// any row differs, and in any case if it is of another table or cluster.
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
		off         bool // --keep 0
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

// TestOtherTableIsKept: the table is dropped and created again, or found elsewhere, with the same rows, while capture runs.
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

// TestKeptOnce: equal states are stored once, also after a restart; an attempt that failed after it kept the file is not kept twice.
func TestKeptOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, tab := open(t, path), votes(100, "x")
	write(t, f, tab.View(), store.ReasonStart)
	for range 3 {
		write(t, f, tab.View(), store.ReasonInterval)
		if err := f.KeepCurrent(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Kept().Compress(t.Context()); err != nil {
			t.Fatal(err)
		}
		if states := f.Kept().List(); len(states) != 1 || states[0].Loss != nil {
			t.Fatalf("the kept states are %+v", states)
		}
	}
	// The same state before a loss: it becomes that one.
	manifestTmp := filepath.Join(filepath.Dir(path), "feedback.manifest.json.tmp")
	if err := os.MkdirAll(filepath.Join(manifestTmp, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	empty := commit(t, tab, tab.Truncate)
	for range 3 {
		if _, err := f.Write(empty, store.ReasonChange); err == nil {
			t.Fatal("the Write succeeded")
		}
		if states := f.Kept().List(); len(states) != 1 || states[0].Loss == nil || states[0].Rows != 100 {
			t.Fatalf("after a failed Write the kept states are %+v", states)
		}
	}
	os.RemoveAll(manifestTmp)
	write(t, f, empty, store.ReasonChange)
	if states := f.Kept().List(); len(states) != 1 || rowsOf(t, unzip(t, states[0].Path)) != 100 {
		t.Errorf("the kept states are %+v", states)
	}
}

// TestLossEnds: a loss ends when nine tenths of the lost keys are back, or when it is acknowledged, also by another process.
func TestLossEnds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, tab := open(t, path), votes(1000, "x")
	write(t, f, tab.View(), store.ReasonStart)
	lose := func() {
		t.Helper()
		if r := write(t, f, commit(t, tab, tab.Truncate), store.ReasonChange); r.Kept == nil || r.Kept.Loss == nil {
			t.Fatalf("kept %+v", r.Kept)
		}
	}
	isOpen := func(want bool) {
		t.Helper()
		if _, err := f.Kept().EndLosses(tab.View()); err != nil {
			t.Fatal(err)
		}
		if got := !f.Kept().List()[0].Acknowledged; got != want {
			t.Errorf("with %d rows the loss is open: %v", tab.View().Rows(), got)
		}
	}
	lose()
	isOpen(true)
	commit(t, tab, func() {
		for i := range 2000 {
			put(tab, 5000+i, "new")
		}
	})
	isOpen(true)
	commit(t, tab, func() {
		for i := range 899 {
			put(tab, i, "back")
		}
	})
	isOpen(true)
	commit(t, tab, func() { put(tab, 950, "back") })
	isOpen(false)
	write(t, f, tab.View(), store.ReasonChange)

	lose()
	isOpen(true)
	states, err := kept.List(path)
	if err != nil || len(states) != 2 {
		t.Fatalf("the kept states are %+v, %v", states, err)
	}
	if err := states[0].Acknowledge(); err != nil {
		t.Fatal(err)
	}
	isOpen(false)
	f.Close()
	f = open(t, path)
	isOpen(false)
}

// TestManyLossesOnDisk: losses and reloads, one after the other. The files stay bounded, the largest state stays, and nothing else is left.
func TestManyLossesOnDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("keeps many states")
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, tab := open(t, path), votes(200, "x")
	write(t, f, tab.View(), store.ReasonStart)
	for i := range 150 {
		write(t, f, commit(t, tab, tab.Truncate), store.ReasonChange)
		write(t, f, commit(t, tab, func() {
			for j := range 20 + i {
				put(tab, j, fmt.Sprint(i))
			}
		}), store.ReasonInterval)
		if _, err := f.Kept().EndLosses(tab.View()); err != nil {
			t.Fatal(err)
		}
		if err := f.KeepCurrent(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Kept().Compress(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Kept().Prune(); err != nil {
			t.Fatal(err)
		}
	}
	states := f.Kept().List()
	most := 0
	for _, s := range states {
		most = max(most, s.Rows)
	}
	if len(states) > 12 || most != 200 {
		t.Errorf("%d states, the largest of %d rows", len(states), most)
	}
	if n := len(names(t, filepath.Dir(path))); n > 3+3*len(states) {
		t.Errorf("%d files: %q", n, names(t, filepath.Dir(path)))
	}
}

// TestDiskBytes: what belongs to the file counts, and files of others in its folder do not.
func TestDiskBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "feedback.json")
	for _, name := range []string{"notes.txt", "feedback-old.json.gz", "a/b/c.json"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1<<20), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	f, tab := open(t, path), votes(3000, "x")
	write(t, f, tab.View(), store.ReasonStart)
	idleToEnd(t, f, tab.View())
	write(t, f, commit(t, tab, tab.Truncate), store.ReasonChange)
	want := f.Kept().List()[0].DiskBytes
	for _, name := range names(t, dir) {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() && info.Size() < 1<<20 &&
			!strings.HasPrefix(name, "feedback-") {
			want += info.Size()
		}
	}
	if got := f.DiskBytes(); got != want {
		t.Errorf("%d bytes, not %d; the folder has %q", got, want, names(t, dir))
	}
}
