package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHelp checks that the help of every command equals the golden file in testdata. The command
// "go test ./cmd/capture -run Help -update" rewrites the golden files.
func TestHelp(t *testing.T) {
	t.Parallel()
	parser := newParser(&cli{}, streams{&bytes.Buffer{}, &bytes.Buffer{}})
	commands := []string{""}
	for _, node := range parser.Model.Leaves(false) {
		commands = append(commands, node.Name)
	}
	for _, name := range commands {
		t.Run("capture "+name, func(t *testing.T) {
			t.Parallel()
			got := runPlain(t, t.TempDir(), nil, append(strings.Fields(name), "--help")...)
			if got.code != exitDone || got.stderr != "" {
				t.Errorf("exit code %d, stderr %q", got.code, got.stderr)
			}
			if name != "" && !strings.Contains(got.stdout, "Examples:\n  ") {
				t.Error("no example")
			}
			golden(t, filepath.Join("testdata", strings.TrimSpace("help "+name)+".txt"), got.stdout)
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs from the output; if the output is right, run the test with -update:\n%s", path, got)
	}
}

func TestNoCommand(t *testing.T) {
	t.Parallel()
	got := runPlain(t, t.TempDir(), nil)
	if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, "capture <command> --help") {
		t.Errorf("%+v", got)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	got := runPlain(t, t.TempDir(), nil, "version")
	if same := runPlain(t, t.TempDir(), nil, "--version"); same != got {
		t.Errorf("--version: %+v", same)
	}
	if same := runPlain(t, t.TempDir(), nil, "status", "--version"); same != got {
		t.Errorf("status --version: %+v", same)
	}
	if got.code != exitDone || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	for _, want := range []string{"capture 1.2.3-test\n", "abc123\n", "\ngo1."} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("%q lacks %q", got.stdout, want)
		}
	}
}

// TestSuggestions checks that the message about a mistyped name suggests the most similar name.
func TestSuggestions(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"stauts": `"status"`, "--vresion": `"--version"`, "status --wacth": `"--watch"`, "restore --on-conflit skip": `"--on-conflict"`,
	} {
		got := runPlain(t, t.TempDir(), nil, strings.Fields(args)...)
		if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, "did you mean "+want+"?") {
			t.Errorf("%s: %+v", args, got)
		}
	}
	for args, same := range map[string]string{"help": "--help", "help status": "status --help"} {
		got := runPlain(t, t.TempDir(), nil, strings.Fields(args)...)
		if got.code != exitDone || got != runPlain(t, t.TempDir(), nil, strings.Fields(same)...) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}
