package store_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
	"capture/store/kept"
	"capture/store/manifest"
	"capture/store/retention"
)

// rowsTable is a table with a column "id" and some other columns. If there is a column "at", it has a time. All further columns
// have texts.
type rowsTable struct {
	columns []string
	rows    map[int]map[string]string // values of the text columns, by id
}

// set sets the column to the value in the rows with the IDs from first to last.
func (r *rowsTable) set(column string, first, last int, value string) {
	for id := first; id <= last; id++ {
		if r.rows[id] == nil {
			r.rows[id] = map[string]string{}
			for _, name := range r.columns {
				r.rows[id][name] = "good"
			}
		}
		r.rows[id][column] = value
	}
}

// load replaces the rows in tab with the rows of r, and returns the new View.
func (r *rowsTable) load(t *testing.T, tab *snapshot.Table) *snapshot.View {
	t.Helper()
	shape := &rowjson.Shape{Schema: "public", Table: "votes", Key: []int{0}, Fingerprint: fmt.Sprint(r.columns),
		Columns: []rowjson.Column{{Name: "id", TypeName: "integer", Type: rowjson.Type{Kind: rowjson.Number, OID: 23}, NotNull: true}}}
	for _, name := range r.columns {
		typeName := "text"
		if name == "at" {
			typeName = "timestamp with time zone"
		}
		shape.Columns = append(shape.Columns, rowjson.Column{Name: name, TypeName: typeName})
	}
	return commit(t, tab, func() {
		tab.Load(shape, snapshot.Origin{})
		for _, id := range slices.Sorted(maps.Keys(r.rows)) {
			line := fmt.Sprintf(`{"id":%d`, id)
			for _, name := range r.columns {
				line += fmt.Sprintf(`,%q:%q`, name, r.rows[id][name])
			}
			tab.Put(key(id), []byte(line+"}"))
		}
	})
}

// TestRepairOfLostValues ruins values and changes the table again. If the last change repairs the loss, the text about this
// change must say so. If everything is then repaired, the text must continue with the command that acknowledges losses. If
// another loss remains, the text must not contain this command: after an acknowledgement, the only good values may be dropped.
// If the last change is no repair, the text must begin with the command that restores values.
func TestRepairOfLostValues(t *testing.T) {
	if testing.Short() {
		t.Skip("makes many tables lose values")
	}
	t.Parallel()
	if withoutRaceDetector(t) {
		return
	}
	const n = 300 // more rows than a manifest describes
	type step = func(*rowsTable)
	set := func(column string, first, last int, value string) step {
		return func(r *rowsTable) { r.set(column, first, last, value) }
	}
	both := func(steps ...step) step {
		return func(r *rowsTable) {
			for _, s := range steps {
				s(r)
			}
		}
	}
	remove := func(first, last int) step { return func(r *rowsTable) { r.remove(first, last) } }
	columns := func(names ...string) step { return func(r *rowsTable) { r.columns = names } }
	acknowledge := step(nil)
	const (
		repaired = "If it was a repair: ACK – or, to undo it: capture restore --on-conflict overwrite "
		remains  = "Other losses are still open: "
		ruined   = "To bring rows back: capture restore --on-conflict overwrite "
	)
	ruin, repair, vote := set("a", 1, n, "bad"), set("a", 1, n, "good"), set("a", n+1, n+1, "new")
	for name, test := range map[string]struct {
		want  string // part of the text about the last change
		steps []step
	}{
		"repaired":                              {repaired, []step{ruin, vote, repair}},
		"mostly repaired":                       {repaired, []step{ruin, set("a", 1, n*19/20, "good")}},
		"repaired without deleted rows":         {repaired, []step{ruin, remove(1, 20), set("a", 21, n, "good")}},
		"repaired while rows disappear":         {repaired, []step{ruin, both(set("a", 1, n, "good"), remove(1, 5))}},
		"a trigger sets the time":               {repaired, []step{both(ruin, set("at", 1, n, "noon")), vote, both(repair, set("at", 1, n, "one o'clock"))}},
		"a trigger sets the time only now":      {repaired, []step{ruin, both(repair, set("at", 1, n, "noon"))}},
		"second of two columns":                 {repaired, []step{both(ruin, set("b", 1, n, "bad")), repair, set("b", 1, n, "good")}},
		"column dropped and added":              {repaired, []step{columns("b", "at"), both(columns("a", "b", "at"), set("a", 1, n, "")), repair}},
		"ruined after a repair of another loss": {repaired, []step{ruin, acknowledge, set("b", 1, n, "bad"), vote, set("b", 1, n, "good")}},
		"two UPDATEs repaired at once":          {repaired, []step{ruin, set("a", 1, n, "worse"), repair}},
		"two losses repaired":                   {repaired, []step{ruin, vote, set("b", 1, n, "bad"), repair, set("b", 1, n, "good")}},
		"lost rows come back with the values":   {repaired, []step{both(remove(1, n/3), set("a", n/3+1, n, "bad")), repair}},
		"sparse column comes back":              {repaired, []step{both(ruin, set("b", 1, n/5, "bad")), both(repair, set("b", 1, n/5, "good"))}},
		"two losses repaired, the later first":  {repaired, []step{ruin, vote, set("b", 1, n, "bad"), set("b", 1, n, "good"), repair}},
		"repaired again":                        {repaired, []step{ruin, vote, repair, vote, set("a", 1, n+1, "bad"), set("a", 1, n+1, "good")}},

		"a later loss remains":     {remains, []step{ruin, set("b", 1, n, "bad"), repair}},
		"a loss of rows remains":   {remains, []step{set("a", 1, n*2/3, "bad"), remove(n*2/3+1, n), set("a", 1, n*2/3, "good")}},
		"other rows remain":        {remains, []step{set("a", 1, n*2/3, "bad"), set("a", n/3, n, "worse"), set("a", 1, n*2/3, "good")}},
		"newer rows remain":        {remains, []step{ruin, set("a", n+1, n+30, "new"), set("a", 1, n+30, "worse"), repair}},
		"newer rows replaced some": {remains, []step{ruin, remove(1, 20), set("a", n+1, n+20, "new"), set("a", 21, n+20, "worse"), set("a", 21, n, "good")}},

		"two thirds repaired":           {ruined, []step{ruin, set("a", 1, n*2/3, "good")}},
		"first of two columns":          {ruined, []step{both(ruin, set("b", 1, n, "bad")), repair}},
		"ruined again":                  {ruined, []step{ruin, set("a", 1, n, "worse")}},
		"ruined as before":              {ruined, []step{ruin, vote, repair, vote, set("a", 1, n+1, "bad")}},
		"second column ruined again":    {ruined, []step{both(ruin, set("b", 1, n, "bad")), both(repair, set("b", 1, n, "worse"))}},
		"ruined rows were deleted":      {ruined, []step{ruin, remove(1, n/3), set("a", n/3+1, n, "good")}},
		"rows lost with it remain":      {ruined, []step{both(remove(1, n/3), set("a", n/3+1, n, "bad")), set("a", n/3+1, n, "good")}},
		"sparse column remains":         {ruined, []step{both(ruin, set("b", 1, n/5, "bad")), repair}},
		"sparse column ruined with it":  {ruined, []step{ruin, both(repair, set("b", 1, n/5, "bad"))}},
		"another column ruined":         {ruined, []step{ruin, set("b", 1, n, "bad")}},
		"an earlier loss remains":       {remains, []step{ruin, vote, set("b", 1, n, "bad"), set("b", 1, n, "good")}},
		"another column ruined with it": {ruined, []step{ruin, both(repair, set("b", 1, n, "bad"))}},
		"new rows ruined with it":       {ruined, []step{ruin, set("a", n+1, 9*n, "new"), set("a", 1, 9*n, "good")}},
		"many rows lost with it":        {ruined, []step{ruin, both(repair, remove(1, n/3))}},
		"acknowledged":                  {ruined, []step{ruin, acknowledge, repair}},
		"ruined in the added column":    {ruined, []step{columns("b", "at"), both(columns("a", "b", "at"), set("a", 1, n, "")), ruin}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, tab := open(t, filepath.Join(t.TempDir(), "feedback.json")), snapshot.NewTable()
			r := &rowsTable{columns: []string{"a", "b", "at"}, rows: map[int]map[string]string{}}
			r.set("a", 1, n, "good")
			write(t, f, r.load(t, tab), store.ReasonStart)
			var last store.Result
			for _, s := range test.steps {
				if s == nil {
					for _, state := range f.Kept().List() {
						if err := state.Acknowledge(); err != nil {
							t.Fatal(err)
						}
					}
					continue
				}
				s(r)
				last = write(t, f, r.load(t, tab), store.ReasonChange)
			}
			if last.Kept == nil || last.Kept.Loss == nil {
				t.Fatal("the last change is no loss")
			}
			if last.Kept.Loss.IsRepair() != (test.want != ruined) {
				t.Errorf("%+v", last.Kept.Loss)
			}
			losses := kept.OpenLossesOf(f.Kept().List())
			text := losses.Text(*last.Kept, "ACK")
			if meant := "if all losses were meant or are repaired: ACK"; test.want == ruined && strings.Contains(text, meant) != (len(losses.Shown()) > 1) {
				t.Error(text)
			}
			if !strings.Contains(text, test.want) || strings.Contains(text, "this brought back lost values of the state of ") != (test.want != ruined) ||
				test.want == remains && strings.Contains(text, "ACK") {
				t.Error(text)
			}
		})
	}
}

// TestStateBeforeRuinStays checks that Prune keeps the only state with good values, although later states of the same day, with
// ruined values, have more rows.
func TestStateBeforeRuinStays(t *testing.T) {
	t.Parallel()
	f, tab := open(t, filepath.Join(t.TempDir(), "feedback.json")), votes(100, "good")
	f.Kept().SetPolicy(retention.Policy{})
	write(t, f, tab.View(), store.ReasonStart)
	ruin := func(text string) {
		for i := range 100 {
			put(tab, i, text)
		}
	}
	first := write(t, f, commit(t, tab, func() { ruin("bad") }), store.ReasonChange)
	write(t, f, commit(t, tab, func() { put(tab, 100, "new") }), store.ReasonChange)
	write(t, f, commit(t, tab, func() { ruin("worse") }), store.ReasonChange)
	write(t, f, commit(t, tab, func() { put(tab, 101, "new") }), store.ReasonChange)
	write(t, f, commit(t, tab, tab.Truncate), store.ReasonChange)
	if _, err := f.Kept().Prune(); err != nil {
		t.Fatal(err)
	}
	if data := read(t, first.Kept.Path); bytes.Count(data, []byte(`"good"`)) != 100 {
		t.Errorf("the state has changed: %.300s", data)
	}
}

// TestManifestOfLossStaysSmall checks that the manifest of the state before a loss can be read if keys and values are long, and
// if somebody has edited its changed rows.
func TestManifestOfLossStaysSmall(t *testing.T) {
	t.Parallel()
	if withoutRaceDetector(t) {
		return
	}
	f, tab := open(t, filepath.Join(t.TempDir(), "feedback.json")), snapshot.NewTable()
	const n = 2500
	long := strings.Repeat("k", 6000)
	shape := &rowjson.Shape{Schema: "public", Table: "votes", Key: []int{0}, Columns: []rowjson.Column{{Name: "id", TypeName: "text"}, {Name: "v", TypeName: "text"}}}
	encoder, err := rowjson.NewEncoder(shape, false)
	if err != nil {
		t.Fatal(err)
	}
	load := func(first int, value string) *snapshot.View {
		return commit(t, tab, func() {
			tab.Load(shape, snapshot.Origin{})
			for i := first; i < n; i++ {
				id := fmt.Sprintf("%s%04d", long, i)
				key, err := encoder.AppendKey(nil, [][]byte{[]byte(id), nil})
				if err != nil {
					t.Fatal(err)
				}
				tab.Put(key, fmt.Appendf(nil, `{"id":%q,"v":%q}`, id, value))
			}
		})
	}
	write(t, f, load(0, "good"), store.ReasonStart)
	r := write(t, f, load(1100, "bad"), store.ReasonChange)
	if r.Kept == nil {
		t.Fatal("no state was kept")
	}
	m, err := r.Kept.Manifest()
	if err != nil || len(m.Kept.Loss.LostKeys) < 100 || len(m.Kept.Loss.ChangedRows) < 100 {
		t.Fatalf("%v: %d lost keys, %d changed rows", err, len(m.Kept.Loss.LostKeys), len(m.Kept.Loss.ChangedRows))
	}
	for what, edit := range map[string]func(*manifest.Loss){
		"many rows": func(l *manifest.Loss) {
			l.ChangedRows = slices.Repeat([]manifest.ChangedRow{{Hashes: l.ChangedRows[0].Hashes}}, 5000)
		},
		"many columns": func(l *manifest.Loss) { l.ChangedColumns = slices.Repeat(l.ChangedColumns, 5000) },
		"no rows":      func(l *manifest.Loss) { l.ChangedColumns, l.ChangedRows = slices.Repeat(l.ChangedColumns, 5000), nil },
		"short hashes": func(l *manifest.Loss) { l.ChangedRows[0].Hashes = nil },
	} {
		edited, err := r.Kept.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		edit(edited.Kept.Loss)
		data, err := json.Marshal(edited)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := manifest.Parse(data); err != nil {
			t.Errorf("%s: %v", what, err)
		} else if m.Kept.Loss.ChangedRows != nil || m.Kept.Loss.ChangedColumns != nil {
			t.Errorf("%s: %d rows, %d columns", what, len(m.Kept.Loss.ChangedRows), len(m.Kept.Loss.ChangedColumns))
		}
	}
}
