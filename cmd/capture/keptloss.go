package main

import (
	"fmt"
	"os"

	"capture/internal/foreign"
	"capture/store/kept"
)

// noteKeptLosses warns if the file was written after losses that nobody has acknowledged. For each loss, it prints how to
// restore what was lost. After [kept.MaxShownLosses] losses, it prints only the number of the others. If the folder cannot be
// read, noteKeptLosses prints the reason, and the command continues: the file may be the best data that is left.
func (c *fileConfig) noteKeptLosses(std streams, command string) {
	if info, err := os.Stat(c.File); c.File == "-" || err != nil || !info.Mode().IsRegular() {
		return // the command itself reports a file that it cannot read
	}
	losses, err := kept.ListOpenLosses(c.File)
	if err != nil {
		fmt.Fprintf(std.err, "%s: cannot find out whether %s follows a loss: %s\n", command, foreign.Line(c.File), errorText(err, nil))
	}
	states := losses.Shown()
	for i, s := range states {
		if i == kept.MaxShownLosses {
			fmt.Fprintf(std.err, "%s: losses not shown: %d. To list them: capture history --output %s\n", command, len(states)-kept.MaxShownLosses, foreign.ShellPath(c.File))
			return
		}
		text := losses.Text(s, "capture history --ack --output "+foreign.ShellPath(c.File))
		fmt.Fprintf(std.err, "%s: %s follows a loss that nobody has acknowledged. %s\n", command, foreign.Line(c.File), foreign.Line(text))
	}
}
