package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"capture/capture"
	"capture/internal/statefile"
	"capture/store/kept"
)

// checkFile checks that the file is whole: it must match a manifest that a reader would accept, and contain either the rows
// before the last change or the rows after it.
func (r *lossRound) checkFile() {
	r.t.Helper()
	rowsInFile(r.t, r.path)
	content, err := os.ReadFile(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	if string(content) != r.states[len(r.states)-1] && string(compact(content)) != table(r.t, r.url) {
		r.t.Errorf("after %q the file has neither the rows before nor those after", r.killed)
	}
}

// check checks the result of the round: the file equals the table, and the state before the loss is kept, listed and
// reported.
func (r *lossRound) check(d *daemon) {
	r.t.Helper()
	wantEqual(r.t, r.path, r.url)
	var loss kept.State
	eventually(r.t, "a compressed state before the loss", func() bool {
		states, err := kept.List(r.path)
		if err != nil {
			r.t.Fatal(err)
		}
		found := 0
		for _, s := range states {
			if s.Loss != nil {
				loss, found = s, found+1
			}
			if s.Damaged != "" {
				r.t.Fatalf("after a kill at %q a state is damaged: %+v", r.killed, s)
			}
			if !strings.HasSuffix(s.Path, ".gz") {
				return false
			}
		}
		if found != 1 {
			r.t.Fatalf("after a kill at %q there are %d losses: %+v", r.killed, found, states)
		}
		return true
	})
	if content := readState(r.t, loss.Path); content != r.states[len(r.states)-1] {
		r.t.Errorf("after a kill at %q the state has %d bytes, want %d: %+v", r.killed, len(content), len(r.states[len(r.states)-1]), loss)
	}
	r.checkHistory(loss)
	if d != nil {
		d.status(func(s capture.Status) bool {
			for _, c := range s.Checks {
				if c.Name == "loss" && !c.OK && strings.Contains(c.Detail, loss.Path) {
					return s.Ready
				}
			}
			return false
		})
		d.signal(syscall.SIGTERM)
		if code := d.wait(stopTimeout); code != exitDone {
			r.t.Errorf("exit code %d", code)
		}
	}
	if got := runPlain(r.t, r.dir, r.env, "verify", r.path); got.code != exitDone {
		r.t.Errorf("capture verify: %+v", got)
	}
	entries, err := os.ReadDir(filepath.Dir(r.path))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		if !ownFile.MatchString(e.Name()) {
			r.t.Errorf("after a kill at %q, %s is left over", r.killed, e.Name())
		}
	}
}

// ownFile matches the names of the files that capture may have in the folder of feedback.json while it writes nothing.
var ownFile = regexp.MustCompile(`^feedback(\.json|\.manifest\.json|\.json\.lock|-\d{8}T\d{6}Z(-loss)?\.(json\.gz|manifest\.json))$`)

// checkHistory checks that `capture history` lists the state before the loss.
func (r *lossRound) checkHistory(loss kept.State) {
	r.t.Helper()
	got := runPlain(r.t, r.dir, nil, "history", "--json", "--output="+r.path)
	var list history
	if err := json.Unmarshal([]byte(got.stdout), &list); err != nil || got.code != exitDone {
		r.t.Fatalf("capture history: %+v, %v", got, err)
	}
	for _, s := range list.States {
		if s.Where == loss.Path && s.Reason == "loss" && s.Rows == loss.Rows && s.Loss != "" && !s.Acknowledged && s.Damaged == "" {
			return
		}
	}
	r.t.Errorf("capture history lists %+v", list)
}

// readState returns the content of a kept state as `capture restore` reads it. It fails the test if the content does not match
// the state's manifest.
func readState(t *testing.T, path string) string {
	t.Helper()
	f, err := statefile.Open(t.Context(), path, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		t.Fatal(err)
	}
	if err := f.CheckManifest(countRows(t, b.String()), nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
