package main

import (
	"fmt"
	"os"

	"capture/internal/foreign"
	"capture/store/kept"
)

// noteKeptLosses warns if the file was written after losses that nobody has acknowledged. It prints how to restore what was lost,
// and, if there are many losses, only the number of the losses that it does not describe. If the folder cannot be read,
// noteKeptLosses prints the reason, and the command continues: the file may be the best data that is left.
func (c *fileConfig) noteKeptLosses(std streams, command string) {
	if info, err := os.Stat(c.File); c.File == "-" || err != nil || !info.Mode().IsRegular() {
		return // the command itself reports a file that it cannot read
	}
	losses, err := kept.ListOpenLosses(c.File)
	if err != nil {
		fmt.Fprintf(std.err, "%s: cannot find out whether %s follows a loss: %s\n", command, foreign.Line(c.File), errorText(err, nil))
	}
	texts, others := losses.Texts(func(kept.State) string { return "capture history --ack --output " + foreign.ShellPath(c.File) })
	if n := len(texts) + others; n > 1 {
		fmt.Fprintf(std.err, "%s: %s follows %d losses that nobody has acknowledged:\n", command, foreign.Line(c.File), n)
	}
	for _, text := range texts {
		if len(texts) == 1 {
			text = fmt.Sprintf("%s follows a loss that nobody has acknowledged. %s", c.File, text)
		}
		fmt.Fprintf(std.err, "%s: %s\n", command, foreign.Line(text))
	}
	if others > 0 {
		fmt.Fprintf(std.err, "%s: losses not shown: %d. To list them: capture history --output %s\n", command, others, foreign.ShellPath(c.File))
	}
}
