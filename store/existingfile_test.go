package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"capture/store"
	"capture/store/manifest"
)

// TestDamagedFileIsQuarantined damages the file or its manifest in many ways. Until the first Write, readers must see the
// damaged file as it is. The first Write must keep this file under another name.
func TestDamagedFileIsQuarantined(t *testing.T) {
	manifestOf := func(path string) string { return filepath.Join(filepath.Dir(path), "feedback.manifest.json") }
	for name, damage := range map[string]func(path string) error{
		"flipped": func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			data[len(data)/2] ^= 1
			return os.WriteFile(path, data, 0o644)
		},
		"cut":                func(path string) error { return os.Truncate(path, 10) },
		"empty":              func(path string) error { return os.Truncate(path, 0) },
		"no manifest":        func(path string) error { return os.Remove(manifestOf(path)) },
		"no file":            func(path string) error { return os.Remove(path) },
		"manifest no JSON":   func(path string) error { return os.WriteFile(manifestOf(path), []byte("{\"format\":1,"), 0o644) },
		"manifest empty":     func(path string) error { return os.Truncate(manifestOf(path), 0) },
		"manifest too large": func(path string) error { return os.Truncate(manifestOf(path), 1<<40) },
		"manifest of commas": func(path string) error {
			return os.WriteFile(manifestOf(path), []byte(`{"columns":[`+strings.Repeat("{},", 2<<20)+`{}]}`), 0o644)
		},
		"manifest of tomorrow": func(path string) error {
			data, err := os.ReadFile(manifestOf(path))
			if err != nil {
				return err
			}
			return os.WriteFile(manifestOf(path), bytes.Replace(data, []byte(`"format": 1`), []byte(`"format": 2`), 1), 0o644)
		},
		"manifest a folder": func(path string) error {
			return errors.Join(os.Remove(manifestOf(path)), os.MkdirAll(filepath.Join(manifestOf(path), "x"), 0o755))
		},
		"manifest a pipe": func(path string) error {
			return errors.Join(os.Remove(manifestOf(path)), syscall.Mkfifo(manifestOf(path), 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "feedback.json")
			f := open(t, path)
			write(t, f, votes(100, "old").View(), store.ReasonStart)
			f.Close()
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			damaged, _ := os.ReadFile(path)

			f = open(t, path)
			if m, ok := f.Existing(); ok {
				t.Errorf("taken for intact: %+v", m)
			}
			if warning := store.Warning(f); !strings.Contains(warning, ".damaged-2") || len(warning) > 600 {
				t.Errorf("the warning is %q", warning)
			}
			if now, _ := os.ReadFile(path); !bytes.Equal(now, damaged) {
				t.Error("it changed before the first Write")
			}
			write(t, f, votes(7, "new").View(), store.ReasonStart)
			if m := checkPair(t, path); m.Rows != 7 {
				t.Errorf("%d rows", m.Rows)
			}
			if damaged != nil {
				kept, _ := filepath.Glob(path + ".damaged-*")
				if len(kept) != 1 || !bytes.Equal(read(t, kept[0]), damaged) {
					t.Errorf("kept: %v", kept)
				}
			}
			before := len(leftovers(t, path))
			write(t, f, votes(8, "new").View(), store.ReasonChange)
			if after := len(leftovers(t, path)); after != before || before == 0 || before > 2 {
				t.Errorf("%d kept, then %d", before, after)
			}
		})
	}
}

func TestQuarantineIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	for i := range 12 {
		if err := os.WriteFile(path, bytes.Repeat([]byte("x"), i), 0o644); err != nil {
			t.Fatal(err)
		}
		f := open(t, path)
		write(t, f, votes(i, "x").View(), store.ReasonStart)
		f.Close()
	}
	kept, _ := filepath.Glob(path + ".damaged-*")
	if len(kept) != 5 {
		t.Fatalf("kept: %v", kept)
	}
	for _, name := range kept {
		if len(read(t, name)) < 7 {
			t.Errorf("%s is one of the oldest", name)
		}
	}
}

func TestLeftOverTemporaryFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := open(t, path)
	write(t, f, votes(3, "x").View(), store.ReasonStart)
	f.Close()
	plant := func() {
		if err := os.WriteFile(path+".tmp", []byte("[\n{"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(other, manifest.Path(path)+".tmp"); err != nil {
			t.Fatal(err)
		}
	}
	plant()
	f = open(t, path)
	if m, ok := f.Existing(); !ok || m.Rows != 3 || store.Warning(f) != "" {
		t.Errorf("Existing returns %+v, %v", m, ok)
	}
	if names := leftovers(t, path); names != nil {
		t.Errorf("left over: %v", names)
	}
	plant()
	write(t, f, votes(4, "x").View(), store.ReasonStart)
	checkPair(t, path)
	if names := leftovers(t, path); names != nil || string(read(t, other)) != "precious" {
		t.Errorf("left over: %v", names)
	}
}

// TestQuarantineAfterClockWasSetBack checks that a newly found damaged file is kept instead of one that was found earlier, even
// if the time in the name of the new file is the earliest of all. This happens if the clock was years ahead when the earlier
// files were kept, or is years behind now. The clock of a machine without a battery is years behind until it reaches a time
// server.
func TestQuarantineAfterClockWasSetBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	for i := range 6 {
		if err := os.WriteFile(fmt.Sprintf("%s.damaged-20990101T00000%dZ", path, i), []byte("earlier"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte("foreign"), 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, open(t, path), votes(3, "x").View(), store.ReasonStart)
	damaged, _ := filepath.Glob(path + ".damaged-*")
	if len(damaged) != 5 || string(read(t, damaged[0])) != "foreign" {
		t.Errorf("damaged files: %q", damaged)
	}
}

// TestLargeFileIsCheckedLater opens a damaged file that is too large to be hashed by Open. It checks that the first Write
// notices the damage. Most of the file's 65 MB are a hole.
func TestLargeFileIsCheckedLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	write(t, f, votes(3, "x").View(), store.ReasonStart)
	f.Close()
	const size = 65 << 20
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Replace(read(t, manifest.Path(path)), []byte(`"bytes": `), []byte(`"bytes": 68157440, "was": `), 1)
	if err := os.WriteFile(manifest.Path(path), data, 0o644); err != nil {
		t.Fatal(err)
	}
	f = open(t, path)
	if found, ok := f.Existing(); !ok || found.SHA256 != m.SHA256 || store.Warning(f) != "" {
		t.Errorf("Existing returns %+v, %v", found, ok)
	}
	if r := write(t, f, votes(4, "x").View(), store.ReasonStart); !strings.Contains(r.Warning, "SHA-256") {
		t.Errorf("the warning is %q", r.Warning)
	}
	kept, _ := filepath.Glob(path + ".damaged-*")
	if len(kept) != 1 {
		t.Fatalf("kept: %v", kept)
	}
	checkPair(t, path)
}

// FuzzOpen checks that Open and Write succeed whatever the file, its manifest and its lock file contain.
func FuzzOpen(f *testing.F) {
	good := []byte(`{"format":1,"sha256":"37517e5f3dc66819f61f5a7bb8ace1921282415f10551d2defa5c3eb0985b570","rows":0,"bytes":3}`)
	f.Add([]byte("[]\n"), good, []byte(nil), []byte(nil))
	f.Add([]byte("[]\n"), []byte("{}"), good, []byte(`{"pid":1}`))
	f.Add([]byte("[]\n"), []byte(`{"format":1,"blocks":{"bytes":4096,"sha256":"a3a5e715f0cc574a73c3f9bebb6bc24f32ffd5b67b387244c2c909da779a1478"},"rows":0,"bytes":3}`), []byte("{}"), []byte("{}"))
	f.Add([]byte("["), []byte(`{"format":1,"written_at":"`+strings.Repeat("9", 500)+`"}`), []byte("\x00"), []byte("\xff"))
	f.Fuzz(func(t *testing.T, data, finished, pending, lock []byte) {
		path := filepath.Join(t.TempDir(), "feedback.json")
		for name, content := range map[string][]byte{
			path: data, manifest.Path(path): finished, manifest.Path(path) + ".tmp": pending, path + ".lock": lock,
		} {
			if err := os.WriteFile(name, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		manifest.Read(path)
		store.ReadOwner(path)
		f := open(t, path)
		m, ok := f.Existing()
		if ok && fits(m, data) != nil {
			t.Errorf("taken for intact: %+v", m)
		}
		if !ok && store.Warning(f) == "" {
			t.Error("no warning about damage")
		}
		write(t, f, votes(2, "x").View(), store.ReasonStart)
		checkPair(t, path)
	})
}
