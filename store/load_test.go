package store_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capture/snapshot"
	"capture/store"
	"capture/store/manifest"
)

// loadInto loads the file that f has found into an empty Table.
func loadInto(ctx context.Context, f *store.File, tab *snapshot.Table) error {
	m, _ := f.Existing()
	return f.Load(ctx, tab, store.Loading{
		Manifest: m, Shape: votes(0, "").View().Shape(), Position: snapshot.Position{LSN: 7}, MaxRow: 1 << 20,
		Origin: snapshot.Origin{Source: m.Source, Database: m.Database, SystemID: m.SystemID},
	})
}

// TestLoad changes a table at random, over several runs. Each run loads the rows from the file of the previous run. TestLoad
// checks that the loaded rows are right, and that the next Writes patch the file as if this run had written it.
func TestLoad(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	can := store.CanPatch(t, dir)
	path := filepath.Join(dir, "feedback.json")
	d := &randomWriter{r: rand.New(rand.NewPCG(seed, 1)), tab: votes(0, ""), rows: 1}
	for range 250 {
		d.put(2 * d.rows)
		d.rows++
	}
	d.tab.Commit(snapshot.Position{})
	f := open(t, path)
	write(t, f, d.tab.View(), store.ReasonStart)
	small, smallPatched := 0, 0
	for range 15 {
		want := content(t, d.tab.View())
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		f = open(t, path)
		d.tab = snapshot.NewTable()
		if d.r.IntN(3) == 0 { // with so little memory, Load spills most pages
			d.tab.LimitMemory(256<<10, dir, func(err error) { t.Error(err) })
		}
		if err := loadInto(t.Context(), f, d.tab); err != nil {
			t.Fatal(err)
		}
		select {
		case <-d.tab.Changed():
			t.Fatal("loading counts as a change, so the same rows would be written again")
		default:
		}
		v := d.tab.View()
		if !bytes.Equal(content(t, v), want) {
			t.Fatal("the rows are not those that were written")
		}
		for row, err := range v.From(nil) {
			id := 0
			if _, serr := fmt.Sscanf(string(row.Line), `{"vote_id":%d`, &id); err != nil || serr != nil || !bytes.Equal(row.Key, key(id)) {
				t.Fatalf("the key of %.20s is %x: %v", row.Line, row.Key, err)
			}
		}
		if r := write(t, f, v, store.ReasonForced); r.BytesWritten != 0 || r.Warning != "" || r.Kept != nil {
			t.Fatalf("writing the loaded rows: %+v", r)
		}
		for i := range 1 + d.r.IntN(4) {
			if i > 0 { // the first change after a start has no shadow file to patch; later, Idle makes one if needed
				for more := true; more; {
					var err error
					if _, more, err = f.Idle(t.Context(), d.tab.View()); err != nil {
						t.Fatal(err)
					}
				}
			}
			isSmall := d.r.IntN(2) == 0
			if d.change(); isSmall {
				d.tab.Rollback()
				d.some(1, d.put)
			}
			d.tab.Commit(snapshot.Position{})
			r := write(t, f, d.tab.View(), []manifest.Reason{store.ReasonChange, store.ReasonForced}[d.r.IntN(2)])
			data := read(t, path)
			if err := fits(r.Manifest, data); err != nil || !bytes.Equal(unpadded(data), content(t, d.tab.View())) {
				t.Fatalf("the file after a change is not the View: %v", err)
			}
			if isSmall && i > 0 && len(data) > 4*testPatchFrom {
				small++
				if r.BytesWritten < int64(len(data))/2 {
					smallPatched++
				}
			}
		}
	}
	if can && smallPatched < small/2 {
		t.Errorf("%d of %d small changes were patched", smallPatched, small)
	}
	t.Logf("%d of %d small changes were patched", smallPatched, small)
}

// TestLoadKeepsChangedFile checks that the first Write keeps the file of an earlier run if the rows differ, even if this run
// has loaded this file.
func TestLoadKeepsChangedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	write(t, f, votes(100, "x").View(), store.ReasonStart)
	before := read(t, path)
	f.Close()
	f = open(t, path)
	tab := snapshot.NewTable()
	if err := loadInto(t.Context(), f, tab); err != nil {
		t.Fatal(err)
	}
	put(tab, 3, "y")
	tab.Commit(snapshot.Position{})
	r := write(t, f, tab.View(), store.ReasonStart)
	if r.Kept == nil || r.Kept.Loss != nil || !bytes.Equal(read(t, r.Kept.Path), before) {
		t.Errorf("kept %+v", r.Kept)
	}
	put(tab, 4, "y")
	tab.Commit(snapshot.Position{})
	if r := write(t, f, tab.View(), store.ReasonChange); r.Kept != nil {
		t.Errorf("a later write kept %+v", r.Kept)
	}
}

// TestLoadRefuses checks that Load refuses a file that is not exactly what its manifest describes, and leaves the Table
// empty.
func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file     func(data string) string
		manifest func(m *manifest.Manifest)
		fixed    bool // whether the manifest gets the size and digest of the changed file
		want     string
	}{
		"another digit":    {file: func(s string) string { return strings.Replace(s, "xx", "xy", 1) }, want: "does not match"},
		"cut short":        {file: func(s string) string { return s[:len(s)-1] }, want: "bytes"},
		"rows exchanged":   {file: func(s string) string { return strings.Replace(strings.Replace(s, `:1,`, `:9,`, 1), `:2,`, `:1,`, 1) }, fixed: true, want: "order"},
		"a key twice":      {file: func(s string) string { return strings.Replace(s, `:1,`, `:2,`, 1) }, fixed: true, want: "order"},
		"another column":   {file: func(s string) string { return strings.Replace(s, `"comment"`, `"komment"`, 1) }, fixed: true, want: "not as capture writes it"},
		"another member":   {file: func(s string) string { return strings.Replace(s, `"}`, `","x":1}`, 1) }, fixed: true, want: "not as capture writes it"},
		"a null key":       {file: func(s string) string { return strings.Replace(s, `:0,`, `:null,`, 1) }, fixed: true, want: "not as capture writes it"},
		"a key of text":    {file: func(s string) string { return strings.Replace(s, `:0,`, `:"x",`, 1) }, fixed: true, want: "not as capture writes it"},
		"no array":         {file: func(s string) string { return "{\n" + s[2:] }, fixed: true, want: "not as capture writes it"},
		"something behind": {file: func(s string) string { return s + "[]\n" }, fixed: true, want: "not as capture writes it"},
		"no end":           {file: func(s string) string { return strings.TrimSuffix(s, "]\n") }, fixed: true, want: "not as capture writes it"},
		"a large row":      {file: func(s string) string { return strings.Replace(s, "xx", strings.Repeat("x", 2<<20), 1) }, fixed: true, want: "memory for a row"},
		"fewer rows":       {manifest: func(m *manifest.Manifest) { m.Rows-- }, want: "rows"},
		"another type":     {manifest: func(m *manifest.Manifest) { m.Columns[1].TypeName = "jsonb" }, want: "other columns"},
		"another key":      {manifest: func(m *manifest.Manifest) { m.Key = []string{"comment"} }, want: "another key"},
		"another table":    {manifest: func(m *manifest.Manifest) { m.TableOID++ }, want: "another table"},
		"omitted rows":     {manifest: func(m *manifest.Manifest) { m.Omitted = &manifest.Omitted{Rows: 1} }, want: "lacks rows"},
		"a kept state":     {manifest: func(m *manifest.Manifest) { m.Kept = &manifest.Kept{} }, want: "kept state"},
		"a later manifest": {manifest: func(m *manifest.Manifest) { m.SHA256 = digest([]byte("later")) }, want: "does not match"},
		"digests of blocks": {manifest: func(m *manifest.Manifest) {
			m.SHA256, m.Blocks = "", &manifest.Blocks{Bytes: testBlockBytes, SHA256: m.SHA256}
		}, want: "does not match"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "feedback.json")
			first := open(t, path)
			write(t, first, votes(10, "xxx").View(), store.ReasonStart)
			first.Close()
			f := open(t, path) // Open finds an intact file, so only Load can detect the changes that follow
			m, _ := f.Existing()
			if c.file != nil {
				data := c.file(string(read(t, path)))
				if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
					t.Fatal(err)
				}
				if c.fixed {
					m.Bytes, m.SHA256 = int64(len(data)), digest([]byte(data))
				}
			}
			if c.manifest != nil {
				c.manifest(&m)
			}
			tab := snapshot.NewTable()
			err := f.Load(t.Context(), tab, store.Loading{Manifest: m, Shape: votes(0, "").View().Shape(), MaxRow: 1 << 20})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Load: %v, want an error with %q", err, c.want)
			}
			if tab.View() != nil {
				t.Fatal("the Table has a View")
			}
			// After Load has refused the file, capture copies the table. A View of the copy must be written as if Load had
			// not been called.
			write(t, f, votes(12, "z").View(), store.ReasonStart)
			if got := checkPair(t, path); got.Rows != 12 {
				t.Errorf("%d rows", got.Rows)
			}
		})
	}
}

// FuzzLoad loads files with arbitrary content, each with a manifest that matches its file. If Load accepts a file, the
// loaded rows must be those in the file, and the next version of the file must be right.
func FuzzLoad(f *testing.F) {
	honest := content(f, votes(5, "text").View())
	f.Add(honest)
	f.Add(content(f, votes(0, "").View()))
	for _, change := range [][2]string{{"},\n", "  },\n"}, {"}\n]", " }\n]"}, {"\n]", "\n\n]"}, {":1,", ":-1,"}, {":2", ":2e0"}, {`"text"`, `"\u0000"`}, {`"text"`, "\"\xff\""},
		{`"text"`, `[{"a":"}"}]`}, {"[\n", "["}, {",\n", ",,\n"}, {`"vote_id":`, `"vote_id": `}, {"{", "{{"}} {
		f.Add(bytes.ReplaceAll(honest, []byte(change[0]), []byte(change[1])))
		f.Add(bytes.Replace(honest, []byte(change[0]), []byte(change[1]), 1))
	}
	shape := votes(0, "").View().Shape()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "feedback.json")
		first := open(t, path)
		write(t, first, votes(1, "").View(), store.ReasonStart)
		first.Close()
		file := open(t, path)
		m, _ := file.Existing()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		m.Bytes, m.SHA256, m.Rows = int64(len(data)), digest(data), bytes.Count(data, []byte("\n{"))
		tab := snapshot.NewTable()
		if err := file.Load(t.Context(), tab, store.Loading{Manifest: m, Shape: shape, MaxRow: 1 << 20}); err != nil {
			if strings.Contains(err.Error(), "text") || tab.View() != nil {
				t.Fatalf("%q: the error quotes the file, or there is a View: %v", data, err)
			}
			return
		}
		if got := content(t, tab.View()); !bytes.Equal(got, unpadded(data)) {
			t.Fatalf("%q was loaded as %q", data, got)
		}
		put(tab, 1<<30, "new")
		tab.Commit(snapshot.Position{})
		r := write(t, file, tab.View(), store.ReasonForced)
		if now := read(t, path); r.Manifest.SHA256 != digest(now) || !bytes.Equal(unpadded(now), content(t, tab.View())) {
			t.Fatalf("after %q the file is %q", data, now)
		}
	})
}

// BenchmarkLoad loads a file with 100,000 votes of 2.6 kB each.
func BenchmarkLoad(b *testing.B) {
	path := filepath.Join(b.TempDir(), "feedback.json")
	f, err := store.Open(path, owner)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := f.Write(votes(100_000, strings.Repeat(`a vote's "text" `, 160)).View(), store.ReasonStart); err != nil {
		b.Fatal(err)
	}
	f.Close()
	for b.Loop() {
		b.StopTimer()
		if f, err = store.Open(path, owner); err != nil {
			b.Fatal(err)
		}
		m, _ := f.Existing()
		b.SetBytes(m.Bytes)
		b.StartTimer()
		if err := loadInto(b.Context(), f, snapshot.NewTable()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		f.Close()
		b.StartTimer()
	}
}

// TestHorizon checks that the manifest has a horizon only if this horizon is valid for the rows in the file.
func TestHorizon(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	tab := votes(10, "x")
	horizon := func(xid uint64) {
		tab.SetHorizon(&snapshot.Horizon{XID: xid, LSN: 5, Place: snapshot.Place{SystemID: "7", Timeline: 1, Started: 2, DatabaseOID: 3, TableOID: 4, Files: "f", Fingerprint: "g"}})
	}
	check := func(what string, want uint64) {
		t.Helper()
		m := checkPair(t, path)
		got := uint64(0)
		if m.Horizon != nil {
			got = m.Horizon.XID
		}
		if got != want {
			t.Errorf("%s: the manifest has the horizon %d, want %d", what, got, want)
		}
	}
	update := func() {
		t.Helper()
		if err := f.UpdateHorizon(tab.View()); err != nil {
			t.Fatal(err)
		}
	}
	write(t, f, tab.View(), store.ReasonStart)
	check("unknown", 0)
	horizon(100)
	update()
	check("known later", 100)
	horizon(200)
	update()
	check("a later one for the same rows", 200)
	horizon(150)
	update()
	check("an earlier one", 200)
	put(tab, 3, "y")
	tab.Commit(snapshot.Position{LSN: 9})
	horizon(300)
	update()
	check("of later rows", 200)
	write(t, f, tab.View(), store.ReasonChange)
	check("written with these rows", 300)
	if err := f.KeepCurrent(); err != nil {
		t.Fatal(err)
	}
	kept, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*feedback-*.manifest.json"))
	if err != nil || len(kept) == 0 {
		t.Fatal("no state was kept", err)
	}
	for _, path := range kept {
		if m, err := manifest.ReadAt(path); err != nil || m.Horizon != nil {
			t.Errorf("the kept state %s has a horizon: %v", path, err)
		}
	}
	doubtful := tab.View()
	if err := f.DropHorizon(doubtful); err != nil {
		t.Fatal(err)
	}
	check("in doubt", 0)
	write(t, f, doubtful, store.ReasonInterval)
	update()
	check("written from a View in doubt", 0)
	tab.Load(tab.View().Shape(), tab.View().Origin())
	put(tab, 1, "copied")
	tab.Commit(snapshot.Position{LSN: 10})
	horizon(300)
	write(t, f, tab.View(), store.ReasonChange)
	check("copied again", 300)
	f.Close()

	f = open(t, path)
	if err := loadInto(t.Context(), f, snapshot.NewTable()); err != nil {
		t.Fatal(err)
	}
	if err := f.DropHorizon(tab.View()); err != nil {
		t.Fatal(err)
	}
	check("in doubt before the first Write", 0)
}
