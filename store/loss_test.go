package store_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
	"capture/store/manifest"
)

// TestLossIsKept makes each kind of loss, and changes that are no loss, in small files and in patched files. It checks that
// the state before each loss is kept, and never changes.
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
			lost   int    // number of lost rows; 0 if there is no loss, -1 if the number is not checked
			text   string // part of the text that describes the loss
		}{
			"a tenth deleted": {change: deleteRows(tenth)},
			"more deleted":    {change: deleteRows(tenth + 1), lost: tenth + 1, text: "from " + grouped(rows) + " rows to " + grouped(rows-tenth-1)},
			// A deletion of the last rows changes only the end of the file. So the file from before the loss becomes both the
			// kept state and the shadow file, and no later Write may patch this file. The other changes affect most of the
			// file, so the version after the loss is written whole.
			"the last deleted": {lost: tenth + 1, text: "from " + grouped(rows) + " rows to " + grouped(rows-tenth-1), change: func(tab *snapshot.Table) {
				for i := range tenth + 1 {
					tab.Delete(key(rows - 1 - i))
				}
			}},
			"truncated": {change: func(tab *snapshot.Table) { tab.Truncate() }, lost: rows, text: "from " + grouped(rows) + " rows to 0"},
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
			"more changed": {text: grouped(rows/2+1) + " of " + grouped(rows) + ` rows got another value in column "comment"`, lost: -1, change: func(tab *snapshot.Table) {
				for i := range rows/2 + 1 {
					put(tab, i, "changed")
				}
			}},
			// In the next two cases, the changed rows are more than half of the rows that are left, but not of all rows.
			"half deleted, the others changed": {text: "; " + grouped(rows-rows/2) + " of " + grouped(rows) + " rows got another value", lost: rows / 2, change: func(tab *snapshot.Table) {
				for i := range rows / 2 {
					tab.Delete(key(i))
					put(tab, rows/2+i, "changed")
				}
			}},
			"a tenth deleted, most others changed": {text: "; " + grouped(rows*46/100) + " of " + grouped(rows) + " rows got another value", lost: tenth, change: func(tab *snapshot.Table) {
				for i := range tenth {
					tab.Delete(key(i))
				}
				for i := range rows * 46 / 100 {
					put(tab, rows/2+i, "changed")
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
				// This Write changes only one row. In a large file, it makes the previous version the shadow file, which the
				// next Write can patch.
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
				// Check that the kept state does not change while later versions are written. After the fourth later
				// version, the state is compressed.
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

// TestRuinedValuesBeforeTruncate ruins all values, as an UPDATE without WHERE does, and then truncates the table in the same
// hour. The states before the two losses have the same row count. Prune must drop neither state. Above all, it must not drop
// the state before the UPDATE, which is the only one with the good values.
func TestRuinedValuesBeforeTruncate(t *testing.T) {
	t.Parallel()
	f, tab := open(t, filepath.Join(t.TempDir(), "feedback.json")), votes(100, "good")
	write(t, f, tab.View(), store.ReasonStart)
	good := content(t, tab.View())
	for _, change := range []func(){
		func() {
			for i := range 100 {
				put(tab, i, "ruined")
			}
		},
		tab.Truncate,
	} {
		write(t, f, commit(t, tab, change), store.ReasonChange)
	}
	if dropped, err := f.Kept().Prune(); err != nil || len(dropped) != 0 {
		t.Errorf("dropped %+v (%v)", dropped, err)
	}
	states := f.Kept().List()
	if len(states) != 2 || !bytes.Equal(read(t, states[1].Path), good) {
		t.Errorf("the kept states are %+v", states)
	}
}

// idleToEnd calls Idle until there is nothing left to do.
func idleToEnd(t *testing.T, f *store.File, v *snapshot.View) {
	t.Helper()
	for more := true; more; {
		var err error
		if _, more, err = f.Idle(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLossInSteps deletes five rows at a time. It checks that a loss is recorded when more than a tenth of the last hour's
// highest row count is gone. Each further loss needs more than a tenth of the rows that remained after the previous loss.
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

// TestLossInStepsOverRestarts repeats TestLossInSteps, but opens the file again for each step, as `capture snapshot` or a
// restarted daemon does.
func TestLossInStepsOverRestarts(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	tab := votes(1000, "x")
	var at []int
	began := time.Now()
	for i := range 60 {
		f := open(t, path)
		r := write(t, f, tab.View(), store.ReasonExport)
		if r.Kept != nil && r.Kept.Loss != nil {
			at = append(at, r.Manifest.Rows)
			if loss := r.Kept.Loss; loss.HourHighest == 0 {
				t.Errorf("kept %+v", r.Kept)
			}
		}
		write(t, f, tab.View(), store.ReasonStop) // writes only the manifest
		// The manifest may have at most one row count for each minute.
		if n, passed := len(manifestAt(t, path).HigherCounts), time.Since(began); n > 1+int(passed/time.Minute) {
			t.Errorf("after %s, the manifest has %d numbers of rows", passed, n)
		}
		f.Close()
		commit(t, tab, func() {
			for j := range 5 {
				tab.Delete(key(5*i + j))
			}
		})
	}
	if fmt.Sprint(at) != "[895 805 720]" {
		t.Errorf("losses at %v rows", at)
	}
}

func manifestAt(t *testing.T, path string) manifest.Manifest {
	t.Helper()
	m, err := manifest.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestDroppedColumn checks that a dropped column is a loss, and that an added column is not.
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

// grouped formats a row count as the messages do, for example 3,000.
func grouped(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}
