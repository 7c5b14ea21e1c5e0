package main

import (
	"fmt"
	"os"

	"capture/internal/foreign"
	"capture/internal/statefile"
	"capture/store/kept"
)

// noteKeptLosses warns if the file was written after losses that nobody has acknowledged. It prints how to restore what was
// lost. If there are many losses, it describes some of them and prints the number of the others. If the folder cannot be
// read, noteKeptLosses prints the reason, and the command continues: the file may be the best data that is left.
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

// explainUnusableState explains err, the error of a restore, if the file is the state before a loss, and is damaged or gone. People
// often paste several restore commands that are joined by &&, and the shell stops after the one that fails. So the error
// says what to run next. Any other error is returned unchanged.
func (c *fileConfig) explainUnusableState(err error) error {
	if !statefile.IsUnusable(err) {
		return err
	}
	if c.explainUnusable != nil {
		return c.explainUnusable(err)
	}
	path, at, ok := kept.FileOfLoss(c.File)
	if !ok {
		return err
	}
	losses, listErr := kept.ListOpenLosses(path)
	if listErr != nil {
		return err
	}
	return withNextCommand(err, losses.HintWithout(at), "capture history --output "+foreign.ShellPath(path))
}

// withNextCommand adds to err what to run if the state before a loss cannot be restored. restoreCommand restores the states
// before the other losses; it is "" if no other state has the values from before the loss. listCommand lists all states.
func withNextCommand(err error, restoreCommand, listCommand string) error {
	if restoreCommand != "" {
		return fmt.Errorf("%w; this state cannot be restored, so leave it out, and run: %s", err, restoreCommand)
	}
	return fmt.Errorf(`%w; this state cannot be restored, and no earlier state before a loss replaces it. To find another state: %s – and to `+
		`restore the good rows of this state, see "When it refuses" in docs/recovery.md`, err, listCommand)
}
