package store_test

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"capture/store"
	"capture/store/kept"
	"capture/store/retention"
)

func init() { children["quota"] = writeBeyondQuota }

// TestQuota checks that a Write treats a used-up quota like a full disk: it drops ordinary kept states and tries again, but
// never drops the state before a loss. If there is still no room, the error says how the user can free the space of that
// state.
func TestQuota(t *testing.T) {
	needStrace(t)
	for name, c := range map[string]struct {
		refused  string // failing writes to the temporary file, in strace's syntax: "1" is the first write, "1+" is every write
		want     string // what the child prints
		ordinary int    // number of ordinary states that are left
	}{
		"room after dropping": {"1", "done", 1}, // the Write drops the compressed state, and then keeps the old file under a second name
		"never room":          {"1+", "waits", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "feedback.json")
			f, tab := open(t, path), votes(100, "x")
			write(t, f, tab.View(), store.ReasonStart)
			write(t, f, commit(t, tab, tab.Truncate), store.ReasonChange)
			put(tab, 1, "y")
			write(t, f, commit(t, tab, func() {}), store.ReasonInterval)
			if err := f.KeepCurrent(); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Kept().Compress(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := len(f.Kept().List()); n != 2 {
				t.Fatalf("%d states", n)
			}
			f.Close()
			cmd := child("quota", path)
			strace := exec.Command("strace", append([]string{"-f", "-qq", "-o", filepath.Join(t.TempDir(), "trace"), "-P", path + ".tmp",
				"-e", "inject=pwrite64:error=EDQUOT:when=" + c.refused, cmd.Path}, cmd.Args[1:]...)...)
			strace.Env = cmd.Env
			out, err := strace.CombinedOutput()
			if err != nil || strings.TrimSpace(string(out)) != c.want {
				t.Fatalf("%s, %v", out, err)
			}
			ordinary := 0
			states, err := kept.List(path)
			for _, s := range states {
				if s.Loss == nil {
					ordinary++
				}
			}
			if err != nil || ordinary != c.ordinary || len(states) != ordinary+1 {
				t.Errorf("the kept states are %+v, %v", states, err)
			}
		})
	}
}

// writeBeyondQuota replaces the file at args[0] by a longer one, and prints how the Write ended.
func writeBeyondQuota(args []string) error {
	runtime.LockOSThread() // strace counts the calls of each thread separately
	f, err := store.Open(args[0], owner)
	if err != nil {
		return err
	}
	f.Kept().SetPolicy(retention.Policy{Hours: 1}) // the state of this hour stays until room is needed
	tab := votes(50, "z")
	_, err = f.Write(tab.View(), store.ReasonStart)
	runtime.KeepAlive(tab)
	switch {
	case err == nil:
		fmt.Println("done")
		return f.Close()
	case errors.Is(err, syscall.EDQUOT) && strings.Contains(err.Error(), "capture history --ack or more room"):
		fmt.Println("waits")
		return f.Close()
	}
	return err
}
