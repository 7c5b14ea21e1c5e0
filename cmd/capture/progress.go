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
	doing    string    // current step
	since    time.Time // time at which the current step began
	open     bool      // whether the terminal shows the line
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
	if at.Doing != p.doing {
		p.doing, p.since = at.Doing, time.Now()
	}
	if time.Since(p.last) < every {
		return
	}
	p.last = time.Now()
	text := fmt.Sprintf("%s: %s%s", p.prefix, at.Doing, progressText(at, time.Since(p.since)))
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
		p.open = true
		return
	}
	fmt.Fprintln(p.w, text)
}

// progressText returns the progress of a step, which has taken this time: ", 20,000 rows, 40 %, 5,000 rows/s, 6 s left".
func progressText(at statefile.Progress, took time.Duration) (text string) {
	if at.Rows > 0 {
		text = ", " + rowsText(at.Rows)
	}
	if at.Bytes == 0 {
		return text + ", " + took.Round(time.Second).String()
	}
	if at.Total > 0 {
		text += fmt.Sprintf(", %d %%", min(100, 100*at.Bytes/at.Total))
	}
	if took < time.Second {
		return text
	}
	text += fmt.Sprintf(", %s rows/s", countText(int(float64(at.Rows)/took.Seconds())))
	if at.Total > at.Bytes {
		left := time.Duration(float64(took) / float64(at.Bytes) * float64(at.Total-at.Bytes))
		text += ", " + left.Round(time.Second).String() + " left"
	}
	return text
}

// clear removes the line from the terminal.
func (p *progress) clear() {
	if p.open {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.open = false
	}
}
