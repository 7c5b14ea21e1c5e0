package store_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capture/store"
	"capture/store/manifest"
)

func TestLockFileIsClosedToOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	if err := os.WriteFile(path+".lock", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path+".lock", 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, path)
	if info, err := os.Stat(path + ".lock"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the lock file is %v, %v", info.Mode(), err)
	}
}

// TestForeignWordInLockFile puts the word of another process into a lock file whose lock this process has. That can happen
// on a share that grants every lock. Write must fail until the other process has emptied the lock file.
func TestForeignWordInLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	write(t, f, votes(3, "x").View(), store.ReasonStart)
	var content map[string]any
	if err := json.Unmarshal(read(t, path+".lock"), &content); err != nil || len(content["word"].(string)) < 16 {
		t.Fatalf("%v, %v", content, err)
	}
	content["word"], content["pid"], content["host"] = "0123456789abcdef", 4711, "elsewhere"
	foreign, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".lock", foreign, 0o600); err != nil {
		t.Fatal(err)
	}
	before := read(t, path)
	v := votes(4, "y").View()
	for _, reason := range []manifest.Reason{store.ReasonChange, store.ReasonForced} {
		_, err := f.Write(v, reason)
		if !errors.As(err, new(*store.LockedError)) || !strings.Contains(err.Error(), "pid 4711") || !strings.Contains(err.Error(), "elsewhere") {
			t.Errorf("%s: the error is %v", reason, err)
		}
	}
	if string(read(t, path)) != string(before) || string(read(t, path+".lock")) != string(foreign) {
		t.Error("wrote all the same")
	}

	// The other process ends, and empties the lock file.
	if err := os.Truncate(path+".lock", 0); err != nil {
		t.Fatal(err)
	}
	write(t, f, v, store.ReasonChange)
	if m := checkPair(t, path); m.Rows != 4 {
		t.Errorf("%d rows", m.Rows)
	}
}

// TestForeignWordBeforeRename puts the word of another process into the lock file while a Write is running. The Write must
// fail before it replaces the file.
func TestForeignWordBeforeRename(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	write(t, f, votes(3, "x").View(), store.ReasonStart)
	before := read(t, path)
	view := votes(4, "y").View()
	done := false
	store.BeforeVerify(func() {
		if !done {
			done = true
			if err := os.WriteFile(path+".lock", []byte(`{"pid":4711,"word":"0123456789abcdef"}`), 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	defer store.BeforeVerify(func() {})
	if _, err := f.Write(view, store.ReasonChange); !errors.As(err, new(*store.LockedError)) {
		t.Errorf("the error is %v", err)
	}
	if string(read(t, path)) != string(before) {
		t.Error("the file was replaced")
	}
	if !done {
		t.Error("the word was not read before the rename")
	}
}
