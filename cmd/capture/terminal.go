package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

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

// isSmartTerminal reports whether w is a terminal that understands escape sequences.
func isSmartTerminal(w io.Writer) bool { return isTerminal(w) && os.Getenv("TERM") != "dumb" }

// screen is the size of a terminal in characters. The zero value means that the output has no limits.
type screen struct{ columns, lines int }

// screenOf returns the size of the terminal that w writes to, or the zero value if w is not a terminal.
func screenOf(w io.Writer) screen {
	f, ok := w.(*os.File)
	if !ok {
		return screen{}
	}
	columns, lines, err := term.GetSize(int(f.Fd()))
	if err != nil || columns < 1 || lines < 1 { // a terminal reports 0 × 0 if nobody has set its size
		return screen{}
	}
	return screen{columns, lines}
}

// height returns the number of lines that a text takes on the screen, where long lines wrap.
func (s screen) height(text string) int {
	lines := 0
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		lines++
		if s.columns > 0 {
			lines += max(visibleLength(line)-1, 0) / s.columns
		}
	}
	return lines
}

// clip returns as many of the text's first lines as fit on the screen, but at least one line. It leaves one line of the
// screen empty.
func (s screen) clip(text string) string {
	for s.lines > 0 && s.height(text) >= s.lines {
		end := strings.LastIndexByte(strings.TrimSuffix(text, "\n"), '\n')
		if end < 0 {
			return text
		}
		text = text[:end+1]
	}
	return text
}

// visibleLength returns the number of characters of a line, without the escape sequences of a [palette].
func visibleLength(line string) int {
	length := utf8.RuneCountInString(line)
	for rest := line; ; {
		start := strings.Index(rest, "\x1b[")
		if start < 0 {
			return length
		}
		sequence, after, ok := strings.Cut(rest[start:], "m")
		if !ok {
			return length
		}
		length -= len(sequence) + 1
		rest = after
	}
}

// palette holds the escape sequences that color text on a terminal. They are empty if the output is not a terminal.
type palette struct{ good, bad, dim, bold, off string }

func paletteFor(w io.Writer) palette {
	if !isSmartTerminal(w) || os.Getenv("NO_COLOR") != "" {
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

// confirm asks the user to confirm the question on the terminal. If standard input is not a terminal, confirm returns an error
// that tells the user what to do instead.
func confirm(ctx context.Context, std streams, command, question, instead string) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return fmt.Errorf("%s? %s", question, instead)
	}
	fmt.Fprintf(std.err, "%s: %s? [y/N] ", command, foreign.Text(question))
	answers := make(chan string, 1)
	go func() { // if ctx ends first, this goroutine ends with the process
		answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
		if err != nil {
			answer = ""
		}
		answers <- strings.ToLower(strings.TrimSpace(answer))
	}()
	select {
	case answer := <-answers:
		if answer == "y" || answer == "yes" {
			return nil
		}
		return errors.New("not confirmed; nothing has changed")
	case <-ctx.Done():
		fmt.Fprintln(std.err)
		return errors.New("interrupted; nothing has changed")
	}
}
