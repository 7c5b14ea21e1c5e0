package snapshot

import (
	"bytes"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"capture/snapshot/rowjson"
)

// TestSpillFileDamaged checks that readers get an error, and never a wrong row, if rows in the spill file are changed or
// cannot be read. The next Load must store all rows again.
func TestSpillFileDamaged(t *testing.T) {
	spoil := map[string]func(f *os.File, fd int) error{
		"bytes changed": func(f *os.File, _ int) error {
			for at := int64(0); ; at += 512 {
				b := make([]byte, 1)
				if _, err := f.ReadAt(b, at); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				b[0] ^= 1
				if _, err := f.WriteAt(b, at); err != nil {
					return err
				}
			}
		},
		"cut short": func(f *os.File, _ int) error { return f.Truncate(0) },
		"unreadable": func(_ *os.File, fd int) error {
			null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer null.Close()
			return unix.Dup3(int(null.Fd()), fd, 0) // reads fail with EBADF
		},
	}
	for name, spoil := range spoil {
		t.Run(name, func(t *testing.T) {
			tab, damage := bounded(t, 8<<10)
			rows, err := load(tab, 1000, "old")
			if err != nil {
				t.Fatal(err)
			}
			v := tab.View()
			if got := fileOf(t, v); got != file(rows) {
				t.Fatal("the View is wrong before")
			}
			f, fd := spillFile(t, tab)
			if err := spoil(f, fd); err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if _, err := v.WriteTo(&b); err == nil {
				t.Error("WriteTo succeeds")
			}
			failed := 0
			for k, want := range rows {
				line, err := v.Get(rowjson.Key(k))
				if err != nil {
					failed++
				} else if string(line) != want {
					t.Fatalf("Get gives %s", line)
				}
			}
			for name, all := range map[string]func(func(Row, error) bool){"From": v.From(nil), "Before": v.Before(nil)} {
				var last error
				for row, err := range all {
					if last = err; err == nil && string(row.Line) != rows[string(row.Key)] {
						t.Fatalf("%s gives %s", name, row.Line)
					}
				}
				if last == nil {
					t.Errorf("%s ends without an error", name)
				}
			}
			for p := range v.Parts() {
				if b, err := p.AppendTo([]byte("before")); err != nil && string(b) != "before" {
					t.Fatalf("AppendTo leaves %q", b)
				} else if err == nil && len(b) != len("before")+p.Bytes() {
					t.Fatalf("AppendTo gives %d bytes of %d", len(b), p.Bytes())
				}
			}
			if failed < len(rows)/2 || len(damage) != 1 {
				t.Errorf("%d of %d rows cannot be read; damage was reported %d times", failed, len(rows), len(damage))
			}
			for i := range 1000 {
				if line, err := tab.Get(numbered(i)); err == nil && string(line) != rows[string(numbered(i))] {
					t.Fatalf("the writer reads %s", line)
				}
				tab.Put(numbered(i), vote(i, "new"))
			}
			if tab.Commit(Position{}) == nil || tab.View() != v {
				t.Error("a transaction over unreadable rows is committed")
			}
			tab.Delete(numbered(5))
			if tab.Commit(Position{}) == nil || tab.View() != v {
				t.Error("a deletion of an unreadable row is committed")
			}
			tab.Load(&rowjson.Shape{}, Origin{}) // this Load is rolled back half-way
			tab.Put(numbered(1), vote(1, "x"))
			tab.Rollback()
			rows, err = load(tab, 800, "new")
			if got := fileOf(t, tab.View()); err != nil || got != file(rows) {
				t.Errorf("the View after another Load is wrong: %v", err)
			}
		})
	}
}

// TestLoadOfOtherShapeAfterDamage checks that, after damage to the spill file, a Load of another shape stores its rows in a
// new spill file, as a Load of the same shape does. The Table reports damage only once for each file, so it would not report
// further damage to the old file.
func TestLoadOfOtherShapeAfterDamage(t *testing.T) {
	tab, damage := bounded(t, 8<<10)
	if _, err := load(tab, 2000, "old"); err != nil {
		t.Fatal(err)
	}
	f, _ := spillFile(t, tab)
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.View().WriteTo(io.Discard); err == nil || len(damage) != 1 {
		t.Fatalf("%v; damage was reported %d times", err, len(damage))
	}
	rows := map[string]string{}
	tab.Load(&rowjson.Shape{Fingerprint: "other"}, Origin{})
	for i := range 2000 {
		tab.Put(numbered(i), vote(i, "new"))
		rows[string(numbered(i))] = string(vote(i, "new"))
	}
	if err := tab.Commit(Position{}); err != nil || fileOf(t, tab.View()) != file(rows) {
		t.Fatalf("the View after the Load is wrong: %v", err)
	}
	if tab.Usage().Spilled == 0 || tab.tree.spill.file.Damaged() {
		t.Errorf("%d bytes are spilled; to the damaged file: %t", tab.Usage().Spilled, tab.tree.spill.file.Damaged())
	}
}
