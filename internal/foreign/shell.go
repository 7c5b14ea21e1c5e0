package foreign

import "strings"

// plainShellBytes are the characters that no shell interprets anywhere in a word. The equals sign is missing, because zsh
// expands a word that begins with an equals sign.
const plainShellBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@%+:,./-_"

// ShellWord returns s as one word of a command for a POSIX shell. It returns s unchanged if no shell interprets any of its
// characters; otherwise it returns s in single quotes. If [Lines] escapes the result, it is still one word. [Text] may cut off the
// closing quote, so use Text before ShellWord.
func ShellWord(s string) string {
	if s != "" && strings.Trim(s, plainShellBytes) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// ShellPath returns a path as one word of a command for a POSIX shell, as ShellWord does. A command cannot mistake the word for a
// flag, even if the path begins with a hyphen.
func ShellPath(path string) string {
	if strings.HasPrefix(path, "-") {
		path = "./" + path
	}
	return ShellWord(path)
}
