package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestReadmeConfiguration checks that the README's table of the configuration lists the flags of `capture run` in the same
// order as the command, with their variables and defaults.
func TestReadmeConfiguration(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\| `([A-Z_]+)`[^|]*\\| ([^|]+) \\|$").FindAllStringSubmatch(string(content), -1)
	parser := newParser(&cli{}, streams{&bytes.Buffer{}, &bytes.Buffer{}})
	flags := flagsOf(t, parser, "run")
	for i, f := range flags {
		if i >= len(rows) {
			t.Errorf("the README lacks --%s", f.Name)
			continue
		}
		want := "none"
		switch {
		case f.Name == "database-url":
			want = "libpq's"
		case f.IsBool():
			want = "off"
		case f.Default != "":
			want = "`" + f.Default + "`"
		}
		if row := rows[i]; row[1] != f.Name || row[2] != f.Tag.Envs[0] || row[3] != want {
			t.Errorf("the README has --%s, %s, %s instead of --%s, %s, %s", row[1], row[2], row[3], f.Name, f.Tag.Envs[0], want)
		}
	}
	if len(rows) > len(flags) {
		t.Errorf("the README has %d flags that do not exist: %v", len(rows)-len(flags), rows[len(flags):])
	}
}

// TestReadmeCommands checks that the README names every command.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, commands, _ := strings.Cut(string(content), "## Commands")
	commands, _, _ = strings.Cut(commands, "\n## ")
	parser := newParser(&cli{}, streams{&bytes.Buffer{}, &bytes.Buffer{}})
	for _, node := range parser.Model.Leaves(true) {
		if !strings.Contains(commands, "`capture "+node.Name+"`") {
			t.Errorf("the README's table of commands lacks capture %s", node.Name)
		}
	}
}
