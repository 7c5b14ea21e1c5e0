package foreign_test

import (
	"os/exec"
	"strings"
	"testing"

	"capture/internal/foreign"
)

func TestShellWord(t *testing.T) {
	for in, want := range map[string]string{
		"data/fallback/feedback-20261123T160000Z-loss.json.gz": "data/fallback/feedback-20261123T160000Z-loss.json.gz",
		"s3://bucket/app": "s3://bucket/app", "public.votes": "public.votes", "": "''", "my files/it's": `'my files/it'\''s'`,
		"=ls": "'=ls'", "~/x": "'~/x'", "é": "'é'", `public."My Votes"`: `'public."My Votes"'`,
	} {
		if got := foreign.ShellWord(in); got != want {
			t.Errorf("ShellWord(%q) is %q, not %q", in, got, want)
		}
	}
	if got := foreign.ShellPath("-y/a b"); got != "'./-y/a b'" {
		t.Errorf("ShellPath gives %q", got)
	}
}

// TestShellReadsWords checks that a shell reads each result of ShellWord as the original word, and runs nothing that the
// word contains.
func TestShellReadsWords(t *testing.T) {
	words := []string{"", "'", "''", `\`, `"`, "a b", "$HOME", "$(echo ran)", "`echo ran`", "a;echo ran", "a&&echo ran", "a|b", ">x", "*", "?", "[a-z]", "{a,b}", "!!",
		"~", "#", "a\nb", "\t", "-n", "=ls", "é", "\xff", `it's "$(echo ran)"`}
	words = append(words, strings.Repeat("$(echo ran) ", foreign.MaxBytes), strings.Repeat("'", foreign.MaxBytes))
	for b := 1; b < 0x80; b++ {
		words = append(words, string(rune(b)), "a"+string(rune(b))+"b")
	}
	command := "printf '%s\\000'"
	want := ""
	for _, w := range words {
		command += " " + foreign.ShellWord(w)
		want += w + "\x00"
	}
	got, err := exec.Command("sh", "-c", command).Output()
	if err != nil || string(got) != want {
		t.Errorf("the shell reads %q, not %q: %v", got, want, err)
	}
	// A user may copy a command from a terminal, which shows it escaped. The shell must read each escaped form as one word.
	for _, w := range words {
		for _, shown := range []string{foreign.ShellWord(foreign.Text(w)), foreign.Lines(foreign.ShellWord(w))} {
			if got, err := exec.Command("sh", "-c", `set -- `+shown+`; echo $#`).Output(); err != nil || string(got) != "1\n" {
				t.Errorf("the shell reads %q as %q words: %v", shown, got, err)
			}
		}
	}
}
