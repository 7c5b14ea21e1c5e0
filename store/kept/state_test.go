package kept_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"capture/store"
	"capture/store/kept"
	"capture/store/manifest"
)

// keptFiles creates the files of a kept state: some data, and a manifest of a state with this number of rows.
func keptFiles(t *testing.T, dir string, name string, rows int, kept *manifest.Kept) {
	t.Helper()
	m := manifest.Manifest{Format: 1, Rows: rows, Bytes: 100, SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(name))), Reason: store.ReasonInterval, Kept: kept}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string][]byte{name: []byte("data"), manifestBeside(name): data} {
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

func manifestBeside(name string) string {
	for filepath.Ext(name) == ".gz" || filepath.Ext(name) == ".json" {
		name = name[:len(name)-len(filepath.Ext(name))]
	}
	return name + ".manifest.json"
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "feedback.json")
	if states, err := kept.List(path); err != nil || len(states) != 0 {
		t.Fatalf("of an empty folder: %v, %v", states, err)
	}
	if states, err := kept.List(filepath.Join(dir, "missing", "feedback.json")); err != nil || len(states) != 0 {
		t.Fatalf("of a missing folder: %v, %v", states, err)
	}
	keptFiles(t, dir, "feedback-20261123T160000Z.json.gz", 5, nil)
	keptFiles(t, dir, "feedback-20261123T170000Z-loss.json", 6, &manifest.Kept{Loss: &manifest.Loss{RowsBefore: 6, RowsLost: 6}})
	keptFiles(t, dir, "feedback-20261123T180000Z-loss.json.gz", 7, &manifest.Kept{Loss: &manifest.Loss{RowsBefore: 7, RowsAfter: 3, RowsLost: 4}, Damaged: "a bit"})
	keptFiles(t, dir, ".feedback-20261123T190000Z.json", 8, nil)
	foreign := []string{"feedback-20261123T2000Z.json.gz", "feedback-20261123T200000Z.json", "feedback-20260230T160000Z.json.gz", "feedback-20261123T200000Z.json.gz.bak",
		"feedback-old.json.gz", "feedback-2-20261123T160000Z.json.gz", ".feedback-20261123T200000Z-loss.json", "feedback-20261123T200000Z.json.gz.tmp",
		".feedback-20261123T200000Z.json.gz-0123.tmp"}
	for _, name := range foreign {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "feedback-20261123T210000Z.json.gz"), 0o755); err != nil {
		t.Fatal(err)
	}
	list := func() []kept.State {
		t.Helper()
		states, err := kept.List(path)
		if err != nil {
			t.Fatal(err)
		}
		return states
	}
	text := func() (lines []string) {
		for _, s := range list() {
			lines = append(lines, fmt.Sprintf("%s %s %d %v %v %q", filepath.Base(s.Path), s.Reason, s.Rows, s.Loss != nil, s.Acknowledged, s.Damaged))
		}
		return lines
	}
	want := []string{
		`.feedback-20261123T190000Z.json interval 8 false false ""`,
		`feedback-20261123T180000Z-loss.json.gz loss 7 true false "a bit"`,
		`feedback-20261123T170000Z-loss.json loss 6 true false ""`,
		`feedback-20261123T160000Z.json.gz interval 5 false false ""`,
	}
	if got := text(); !slices.Equal(got, want) {
		t.Fatalf("the states are\n%q, not\n%q", got, want)
	}

	for at, want := range map[string]string{
		"2026-11-23T15:59:59Z": "", "2026-11-23T16:00:00Z": "feedback-20261123T160000Z.json.gz", "2026-11-23T17:30:00Z": "feedback-20261123T170000Z-loss.json",
		"2030-01-01T00:00:00Z": ".feedback-20261123T190000Z.json",
	} {
		when, _ := time.Parse(time.RFC3339, at)
		got := ""
		if s, ok := kept.At(list(), when); ok {
			got = filepath.Base(s.Path)
		}
		if got != want {
			t.Errorf("at %s: %q, not %q", at, got, want)
		}
	}

	for _, s := range list() {
		if err := s.Acknowledge(); err != nil {
			t.Fatal(err)
		}
		if err := s.Acknowledge(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range list() {
		if s.Acknowledged != (s.Loss != nil) {
			t.Errorf("%s: acknowledged is %v", s.Path, s.Acknowledged)
		}
	}
	for _, s := range list() {
		if err := s.Drop(); err != nil {
			t.Fatal(err)
		}
	}
	left := names(t, dir)
	slices.Sort(foreign)
	if want := append(foreign, "feedback-20261123T210000Z.json.gz"); !slices.Equal(left, slices.Sorted(slices.Values(want))) {
		t.Errorf("after dropping all states there are %q, not %q", left, want)
	}
}

// TestManifestsAreReadOnce checks that States reads the manifest of a state again only if its file has changed.
func TestManifestsAreReadOnce(t *testing.T) {
	dir := t.TempDir()
	keptFiles(t, dir, "feedback-20261123T160000Z.json.gz", 5, nil)
	manifestPath := filepath.Join(dir, "feedback-20261123T160000Z.manifest.json")
	k := kept.Open(filepath.Join(dir, "feedback.json"), "", time.Time{})
	check := func(what string, rows int, damaged bool) {
		t.Helper()
		if l := k.List(); len(l) != 1 || l[0].Rows != rows || (l[0].Damaged != "") != damaged {
			t.Errorf("%s: %+v", what, l)
		}
	}
	check("at first", 5, false)
	before, err := os.Stat(manifestPath)
	if err != nil {
		t.Fatal(err)
	}
	keptFiles(t, dir, "feedback-20261123T160000Z.json.gz", 6, nil) // overwrites the manifest in place, so the inode stays the same
	check("after another manifest", 6, false)
	keptFiles(t, dir, "feedback-20261123T160000Z.json.gz", 7, nil)
	if err := os.Chtimes(manifestPath, time.Time{}, before.ModTime()); err != nil {
		t.Fatal(err)
	}
	check("after a manifest of an earlier time", 7, false)
	keptFiles(t, dir, "feedback-20261123T160000Z.json.gz", 8, nil)
	if err := os.Chtimes(manifestPath, time.Time{}, before.ModTime()); err != nil {
		t.Fatal(err)
	}
	check("after a change that cannot be seen", 7, false)
	if err := os.Chmod(manifestPath, 0o600); err != nil {
		t.Fatal(err)
	}
	check("with another mode", 8, false)
	if err := os.Remove(manifestPath); err != nil {
		t.Fatal(err)
	}
	check("without a manifest", 0, true)
	keptFiles(t, dir, "feedback-20261123T160000Z.json.gz", 9, nil)
	check("with a manifest again", 9, false)
}

// TestRestoreHint checks the command that restores what was lost. If values are lost, the command must overwrite the rows that
// still exist.
func TestRestoreHint(t *testing.T) {
	for want, losses := range map[string][]manifest.Loss{
		"skip":      {{RowsLost: 20}, {HourHighest: 20}},
		"overwrite": {{RowsChanged: 20, Column: "v"}, {RowsLost: 20, RowsChanged: 20, Column: "v"}, {RowsNotCompared: 20}, {Dropped: []string{"v"}}},
	} {
		for _, loss := range losses {
			s := kept.State{Path: "feedback-loss.json.gz", Loss: &loss}
			if got := s.RestoreHint(); got != "capture restore --on-conflict "+want+" feedback-loss.json.gz" {
				t.Errorf("%+v: %s", loss, got)
			}
		}
	}
}

// names returns the names in a folder, in order.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}
