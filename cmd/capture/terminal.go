package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// streams are the outputs of a command: out for its result, err for messages.
type streams struct {
	out, err io.Writer
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// palette holds the escape sequences that color text on a terminal. Elsewhere they are empty.
type palette struct{ good, bad, dim, bold, off string }

func paletteFor(w io.Writer) palette {
	if !isTerminal(w) || os.Getenv("NO_COLOR") != "" {
		return palette{}
	}
	return palette{good: "\x1b[32m", bad: "\x1b[31m", dim: "\x1b[2m", bold: "\x1b[1m", off: "\x1b[0m"}
}

// checkMark returns a tick or a cross.
func (p palette) checkMark(ok bool) string {
	if ok {
		return p.good + "✓" + p.off
	}
	return p.bad + "✗" + p.off
}
