package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestCommandsOfAnotherUser checks that the commands work for a user who cannot read the lock file, if the configuration
// contains the daemon's address. If the configuration contains another address, the error names the lock file.
func TestCommandsOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to run a command as another user")
	}
	t.Parallel()
	dir, err := os.MkdirTemp("", "capture-other-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program, token := filepath.Join(dir, "capture"), filepath.Join(dir, "token")
	copyProgram(t, program)
	if err := os.WriteFile(token, []byte("a-token-of-the-test-0123456789"), 0o644); err != nil {
		t.Fatal(err)
	}
	env := []string{"DATABASE_URL=" + votesDatabase(t, 10), "CAPTURE_TOKEN_FILE=" + token}
	if got := run(t, dir, env, "snapshot"); got.code != exitDone {
		t.Fatalf("capture snapshot: %+v", got)
	}
	// Change the modes before the daemon starts. Otherwise, a Write that has already read the old mode of a file would give
	// this mode to the new file.
	if err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		switch {
		case err == nil && info.IsDir():
			err = os.Chmod(path, 0o755)
		case err == nil && strings.HasPrefix(info.Name(), "feedback.") && strings.HasSuffix(info.Name(), ".json"): // excludes the lock file
			err = os.Chmod(path, 0o644)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	d := startIn(t, dir, env, "run", "--listen=127.0.0.1:0")
	d.ready()
	for command, want := range map[string]string{"status": "✓ ready", "snapshot": "10 rows", "verify": "the same in the file"} {
		cmd := prepare(t.Context(), dir, append(env, "CAPTURE_LISTEN="+d.address()), command)
		cmd.Path = program
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("capture %s: %v\n%s", command, err, out.String())
		}
	}
	cmd := prepare(t.Context(), dir, append(env, "CAPTURE_LISTEN=127.0.0.1:1"), "snapshot")
	cmd.Path = program
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "feedback.json.lock: permission denied") {
		t.Errorf("capture snapshot with another address: %v\n%s", err, out)
	}
}

// TestKeptLossOfAnotherUser checks what verify and restore print about a loss if they run as another user. If the user can
// read the folder of feedback.json, they print how to bring the rows back. If the user cannot even list the folder, they
// print why they cannot find out about losses. In both cases, the commands succeed.
func TestKeptLossOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to run a command as another user")
	}
	t.Parallel()
	url, from, lossPath := emptied(t)
	dir, err := os.MkdirTemp("", "capture-other-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, folder := filepath.Join(dir, "capture"), filepath.Join(dir, "data/fallback")
	copyProgram(t, program)
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Dir(folder)} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	paths, err := filepath.Glob(filepath.Join(folder, "feedback*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(paths, filepath.Join(dir, lossPath)) {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for mode, want := range map[os.FileMode]string{
		0o555: "capture restore --on-conflict skip " + lossPath,
		0o111: "cannot find out whether data/fallback/feedback.json follows a loss: list the kept states of data/fallback/feedback.json: open data/fallback: permission denied",
	} {
		if err := os.Chmod(folder, mode); err != nil {
			t.Fatal(err)
		}
		for _, args := range []string{"verify", "restore --on-conflict=skip --dry-run"} {
			cmd := prepare(t.Context(), dir, []string{"DATABASE_URL=" + url}, strings.Fields(args)...)
			cmd.Path = program
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			if got := finish(t, cmd); got.code != exitDone || !strings.Contains(got.stderr, want) {
				t.Errorf("capture %s in a folder of mode %v: %+v", args, mode, got)
			}
		}
	}
}

func copyProgram(t *testing.T, path string) {
	t.Helper()
	from, err := os.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
}
