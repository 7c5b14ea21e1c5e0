package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"capture/internal/foreign"
)

// streams are the output streams of a command: out for its result, err for messages.
type streams struct {
	out, err io.Writer
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// palette holds the escape sequences that color text on a terminal. They are empty if the output is not a terminal.
type palette struct{ good, bad, dim, bold, off string }

func paletteFor(w io.Writer) palette {
	if !isTerminal(w) || os.Getenv("NO_COLOR") != "" {
		return palette{}
	}
	return palette{good: "\x1b[32m", bad: "\x1b[31m", dim: "\x1b[2m", bold: "\x1b[1m", off: "\x1b[0m"}
}

// checkMark returns a tick if ok is true, otherwise a cross.
func (p palette) checkMark(ok bool) string {
	if ok {
		return p.good + "✓" + p.off
	}
	return p.bad + "✗" + p.off
}

// confirm asks the user on the terminal to confirm what question says. If there is no terminal, it returns an error that tells
// the user what to do instead.
func confirm(std streams, command, question, instead string) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return fmt.Errorf("%s? %s", question, instead)
	}
	fmt.Fprintf(std.err, "%s: %s? [y/N] ", command, foreign.Text(question))
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if answer = strings.ToLower(strings.TrimSpace(answer)); err != nil || answer != "y" && answer != "yes" {
		return errors.New("not confirmed; nothing has changed")
	}
	return nil
}
