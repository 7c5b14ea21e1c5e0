package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"capture/internal/statefile"
)

// progress shows the progress of a long operation. On a terminal it overwrites a single line. Otherwise it prints a line every
// ten seconds.
type progress struct {
	w        io.Writer
	prefix   string
	terminal bool
	last     time.Time
	open     bool // whether the terminal shows the line
}

func newProgress(w io.Writer, prefix string) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, prefix: prefix, terminal: ok && term.IsTerminal(int(f.Fd())), last: time.Now()}
}

func (p *progress) show(at statefile.Progress) {
	every := 10 * time.Second
	if p.terminal {
		every = 100 * time.Millisecond
	}
	if time.Since(p.last) < every {
		return
	}
	p.last = time.Now()
	text := fmt.Sprintf("%s: %s", p.prefix, at.Doing)
	if at.Rows > 0 {
		text += ", " + rowsText(at.Rows)
	}
	if at.Total > 0 && at.Bytes > 0 {
		text += fmt.Sprintf(", %d %%", min(100, 100*at.Bytes/at.Total))
	}
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
		p.open = true
		return
	}
	fmt.Fprintln(p.w, text)
}

// clear removes the line from the terminal.
func (p *progress) clear() {
	if p.open {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.open = false
	}
}
