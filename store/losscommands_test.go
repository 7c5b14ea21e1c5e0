package store_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"capture/snapshot"
	"capture/store"
	"capture/store/kept"
)

// A good function changes a table as intended. A bad function changes a table by mistake.
type good func(*rowsTable)
type bad func(*rowsTable)

// clone returns a copy of the table.
func (r *rowsTable) clone() *rowsTable {
	c := &rowsTable{columns: r.columns, rows: map[int]map[string]string{}}
	for id, row := range r.rows {
		c.rows[id] = maps.Clone(row)
	}
	return c
}

// remove deletes the rows with the IDs from first to last.
func (r *rowsTable) remove(first, last int) {
	for id := first; id <= last; id++ {
		delete(r.rows, id)
	}
}

// equals reports whether both tables have the same rows.
func (r *rowsTable) equals(other *rowsTable) bool {
	return maps.EqualFunc(r.rows, other.rows, maps.Equal[map[string]string])
}

// restore does what a shell and `capture restore` would do with the commands that capture has printed.
func (r *rowsTable) restore(t *testing.T, line string) {
	t.Helper()
	for command := range strings.SplitSeq(line, " && ") {
		path, overwrites := strings.CutPrefix(command, "capture restore --on-conflict overwrite ")
		if !overwrites {
			path = strings.TrimPrefix(command, "capture restore --on-conflict skip ")
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		var rows []map[string]any
		if err := json.Unmarshal(data, &rows); err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			id := int(row["id"].(float64))
			if _, exists := r.rows[id]; exists && !overwrites {
				continue
			}
			for _, column := range r.columns {
				r.set(column, id, id, row[column].(string))
			}
		}
	}
}

// TestPrintedCommands makes several mistakes and follows the texts about them literally. The good state must come back whether
// somebody runs all printed commands or only the first one, and whether or not the daemon writes the file in between. If
// somebody follows the texts once more, the good state must stay.
func TestPrintedCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("makes many tables lose rows")
	}
	t.Parallel()
	if withoutRaceDetector(t) {
		return
	}
	const n = 60
	set := func(column string, first, last int, value string) func(*rowsTable) {
		return func(r *rowsTable) { r.set(column, first, last, value) }
	}
	remove := func(first, last int) func(*rowsTable) { return func(r *rowsTable) { r.remove(first, last) } }
	ruin, vote := bad(set("a", 1, n, "bad")), good(set("a", n+1, n+1, "new"))
	for name, test := range map[string]struct {
		steps []any
		isAll bool // whether all printed commands must run to bring the good state back
	}{
		"two UPDATEs of the same rows":             {steps: []any{ruin, bad(set("a", 1, n, "worse"))}},
		"a vote between two UPDATEs":               {steps: []any{ruin, vote, bad(set("a", 1, n+1, "worse"))}},
		"two UPDATEs of some different rows":       {steps: []any{bad(set("a", 1, 40, "bad")), bad(set("a", 20, n, "worse"))}},
		"two UPDATEs of different rows":            {steps: []any{ruin, good(set("a", n+1, 3*n, "new")), bad(set("a", n+1, 3*n, "worse"))}},
		"two UPDATEs of different columns":         {steps: []any{ruin, vote, bad(set("b", 1, n+1, "bad"))}},
		"more UPDATEs than a text describes":       {steps: []any{ruin, vote, bad(set("b", 1, n+1, "bad")), good(set("b", n+2, n+2, "new")), bad(set("a", 1, n+2, "worse")), bad(set("b", 1, n+2, "worse")), bad(set("at", 1, n+2, "worst"))}},
		"UPDATE and DELETE":                        {isAll: true, steps: []any{ruin, vote, bad(remove(20, n+1))}},
		"DELETE and UPDATE":                        {isAll: true, steps: []any{bad(remove(20, n)), vote, bad(set("a", 1, 19, "bad")), bad(set("a", n+1, n+1, "bad"))}},
		"TRUNCATE, INSERT and UPDATE":              {isAll: true, steps: []any{bad(remove(1, n)), good(set("a", n+1, 2*n, "new")), bad(set("a", n+1, 2*n, "bad"))}},
		"UPDATE, TRUNCATE, INSERT and UPDATE":      {isAll: true, steps: []any{ruin, vote, bad(remove(1, n+1)), good(set("a", n+2, 2*n, "new")), bad(set("a", n+2, 2*n, "bad"))}},
		"DELETE, all rows come back, and UPDATE":   {steps: []any{bad(remove(20, n)), good(set("a", 20, n, "good")), ruin}},
		"DELETE, undone, and DELETE of others":     {steps: []any{bad(remove(20, n)), good(set("a", 20, n, "good")), bad(remove(1, 19))}},
		"UPDATE, repair, and the same UPDATE":      {steps: []any{ruin, good(set("a", 1, n, "good")), ruin}},
		"UPDATE, repair in two steps, and DELETE":  {isAll: true, steps: []any{ruin, good(set("a", 1, 40, "good")), good(set("a", 41, n, "good")), bad(remove(20, n))}},
		"UPDATE, repair, edit, and UPDATE":         {steps: []any{ruin, good(set("a", 1, n, "good")), good(set("a", 5, 5, "edited")), ruin}},
		"UPDATE, repair, edit, and another one":    {steps: []any{ruin, good(set("a", 1, n, "good")), good(set("a", 5, 5, "edited")), bad(set("b", 1, n, "bad")), bad(set("at", 1, n, "bad"))}},
		"UPDATE, UPDATE, and the second repaired":  {steps: []any{ruin, bad(set("b", 1, n, "bad")), vote, good(set("b", 1, n, "good"))}},
		"UPDATE, UPDATE, and the first repaired":   {steps: []any{ruin, bad(set("b", 1, n, "bad")), vote, good(set("a", 1, n, "good"))}},
		"UPDATE, DELETE, and a repair of the rest": {isAll: true, steps: []any{ruin, bad(remove(40, n)), good(set("a", 1, 39, "good"))}},
		"UPDATE, repair, edit, and DELETE":         {isAll: true, steps: []any{ruin, good(set("a", 1, n, "good")), good(set("a", 5, 5, "edited")), bad(remove(20, n))}},
		"DELETE of half and UPDATE in one write":   {steps: []any{[]any{bad(remove(1, n/2)), bad(set("a", n/2+1, n, "bad"))}, vote}},
		"DELETE of most and UPDATE in one write":   {steps: []any{[]any{bad(remove(1, 45)), bad(set("a", 46, n, "bad")), bad(set("b", 50, 55, "bad"))}}},
		"UPDATE of keys and values":                {steps: []any{[]any{bad(remove(1, n/2)), bad(set("a", n/2+1, n, "bad")), good(set("a", n+1, n*3/2, "moved"))}}},
		"UPDATE, repair, and DELETE":               {steps: []any{ruin, good(set("a", 1, n, "good")), bad(remove(20, n))}},
	} {
		for how, follow := range map[string]struct{ first, writes bool }{
			"all at once": {false, false}, "one after the other": {false, true}, "only the first": {true, true},
		} {
			if test.isAll && follow.first {
				continue
			}
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				f, tab := open(t, filepath.Join(t.TempDir(), "feedback.json")), snapshot.NewTable()
				r := &rowsTable{columns: []string{"a", "b", "at"}, rows: map[int]map[string]string{}}
				r.set("a", 1, n, "good")
				want := r.clone()
				write(t, f, r.load(t, tab), store.ReasonStart)
				for _, s := range test.steps {
					changes, ok := s.([]any) // a step is a list of changes that one write contains, or a single change
					if !ok {
						changes = []any{s}
					}
					for _, change := range changes {
						switch change := change.(type) {
						case good:
							change(r)
							change(want)
						case bad:
							change(r)
						}
					}
					write(t, f, r.load(t, tab), store.ReasonChange)
				}
				for round := range 3 {
					commands := printedCommands(t, f, tab)
					if round == 0 && len(commands) == 0 {
						t.Fatal("no command is printed")
					}
					for _, command := range commands {
						r.restore(t, command)
						if follow.writes {
							write(t, f, r.load(t, tab), store.ReasonChange)
						}
						if follow.first {
							break
						}
					}
					write(t, f, r.load(t, tab), store.ReasonChange)
					if !r.equals(want) {
						t.Fatalf("after round %d, the commands %q have led to %v, not to %v", round+1, commands, r.rows, want.rows)
					}
				}
			})
		}
	}
}

// printedCommands returns the commands in the texts about open losses, in their order. It skips the command in a text about a
// repair, because nobody needs to run it.
func printedCommands(t *testing.T, f *store.File, tab *snapshot.Table) (commands []string) {
	t.Helper()
	if _, err := f.Kept().EndLosses(tab.View); err != nil {
		t.Fatal(err)
	}
	texts, _ := kept.OpenLossesOf(f.Kept().List()).Texts(func(kept.State) string { return "ACK" })
	for _, text := range texts {
		if m := regexp.MustCompile(`(?:To bring rows back|Then run): (.*?) – `).FindStringSubmatch(text); m != nil {
			commands = append(commands, m[1])
		}
	}
	return commands
}

// TestLossGrowsWhileWaiting: a Write fails after it has kept the state before a loss, and the table loses more before the Write
// is repeated. If the command for the first loss would not restore everything, capture keeps another state, whose command does.
// But it does not keep a state at each attempt.
func TestLossGrowsWhileWaiting(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, tab := open(t, path), votes(100, "x")
	write(t, f, tab.View(), store.ReasonStart)
	inTheWay := filepath.Join(filepath.Dir(path), "feedback.manifest.json.tmp", "in the way")
	if err := os.MkdirAll(inTheWay, 0o755); err != nil {
		t.Fatal(err)
	}
	fill := func(text string, first, last int) func() {
		return func() {
			for i := first; i <= last; i++ {
				put(tab, i, text)
			}
		}
	}
	remove := func(first, last int) func() {
		return func() {
			for i := first; i <= last; i++ {
				tab.Delete(key(i))
			}
		}
	}
	for _, step := range []struct {
		change func()
		states int    // number of kept states after the change
		hint   string // start of the first printed command
	}{
		{remove(0, 19), 1, "capture restore --on-conflict skip "},
		{remove(20, 22), 1, "capture restore --on-conflict skip "},
		{fill("ruined", 23, 99), 2, "capture restore --on-conflict overwrite "},
		{fill("worse", 23, 99), 2, "capture restore --on-conflict overwrite "},
		{remove(23, 60), 3, "capture restore --on-conflict overwrite "},
		{remove(61, 65), 3, "capture restore --on-conflict overwrite "},
	} {
		if _, err := f.Write(commit(t, tab, step.change), store.ReasonChange); err == nil {
			t.Fatal("the Write succeeded")
		}
		states := kept.OpenLossesOf(f.Kept().List()).Shown()
		if len(states) != step.states || !strings.HasPrefix(states[0].RestoreHint(), step.hint) {
			t.Fatalf("after a change there are %d states, the first with the command %s", len(states), states[0].RestoreHint())
		}
	}
}

// TestRepairIsWrittenLater: the Write of a repair fails once. The repeated Write must not take the repair for another loss.
func TestRepairIsWrittenLater(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, tab := open(t, path), votes(100, "good")
	fill := func(text string) *snapshot.View {
		return commit(t, tab, func() {
			for i := range 100 {
				put(tab, i, text)
			}
		})
	}
	write(t, f, tab.View(), store.ReasonStart)
	write(t, f, fill("bad"), store.ReasonChange)
	put(tab, 100, "new")
	write(t, f, fill("bad"), store.ReasonChange)
	inTheWay := filepath.Join(filepath.Dir(path), "feedback.manifest.json.tmp")
	if err := os.MkdirAll(filepath.Join(inTheWay, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(fill("good"), store.ReasonChange); err == nil {
		t.Fatal("the Write succeeded")
	}
	if _, err := f.Kept().Compress(t.Context()); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(inTheWay)
	write(t, f, fill("good"), store.ReasonChange)
	states := f.Kept().List()
	if losses := kept.OpenLossesOf(states); len(states) != 2 || !losses.AreRepaired() {
		t.Errorf("the kept states are %+v", states)
	}
}
