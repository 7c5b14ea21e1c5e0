package main

import (
	"fmt"
	"io"
	"time"

	"capture/internal/foreign"
	"capture/internal/statefile"
)

// progress shows the progress of a long operation in a single line of a terminal. It shows nothing unless the output is a
// terminal that can overwrite a line.
type progress struct {
	w      io.Writer
	prefix string
	screen screen
	hidden bool // whether w is not a terminal that can overwrite a line
	last   time.Time
	doing  string    // current step
	since  time.Time // time at which the current step began
	open   bool      // whether the terminal shows the line
}

func newProgress(w io.Writer, prefix string) *progress {
	return &progress{w: w, prefix: prefix, screen: screenOf(w), hidden: !isSmartTerminal(w), last: time.Now()}
}

func (p *progress) show(at statefile.Progress) {
	if at.Doing != p.doing {
		p.doing, p.since = at.Doing, time.Now()
	}
	if p.hidden || time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last, p.open = time.Now(), true
	text := fmt.Sprintf("%s: %s%s", p.prefix, foreign.Line(at.Doing), progressText(at, time.Since(p.since)))
	if p.screen.columns > 1 {
		text = clipText(text, p.screen.columns-1) // if the terminal breaks the line, the line cannot be overwritten
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", text)
}

// progressText returns the progress of a step: ", 40 %, 20,000 rows, 5,000 rows/s, 6 s left". elapsed is the time since the
// step began. If the step counts no rows, the rate is in bytes.
func progressText(at statefile.Progress, elapsed time.Duration) (text string) {
	done, total := at.Bytes, at.Total
	if done == 0 {
		done, total = int64(at.Rows), int64(at.TotalRows)
	}
	if done > 0 && total > 0 {
		text = fmt.Sprintf(", %d %%", min(100, 100*done/total))
	}
	if at.Rows > 0 {
		text += ", " + rowsText(at.Rows)
	}
	if elapsed < time.Second {
		return text
	}
	if done == 0 || at.Bytes == 0 && total == 0 {
		return text + ", " + spanText(elapsed)
	}
	perSecond := func(n int64) int64 { return int64(float64(n) / elapsed.Seconds()) }
	if at.Rows > 0 {
		text += fmt.Sprintf(", %s rows/s", countText(int(perSecond(int64(at.Rows)))))
	} else {
		text += fmt.Sprintf(", %s/s", bytesText(perSecond(done)))
	}
	if total > done {
		left := time.Duration(float64(elapsed) / float64(done) * float64(total-done))
		text += ", " + spanText(max(left, time.Second)) + " left"
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
