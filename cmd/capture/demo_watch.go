package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// change is one thing that the generator did to the votes table.
type change struct {
	sign      byte   // '+' new, '~' edited, '-' deleted
	id        int    // vote_id
	question  string // of the vote
	thumb     string // what its tags say
	row       string // row_to_json of it afterwards; "" where it is deleted
	committed time.Time
}

const (
	watchPause = 5 * time.Millisecond
	watchLines = 4 // a second, that are printed of more
	watchDrain = 5 * time.Second
)

// watch reads the file again each time it is replaced, and prints each change once the file shows it. It returns when
// changes is closed and all of them have been seen.
func watch(out io.Writer, path string, changes <-chan change) {
	var w watcher
	tick := time.NewTicker(watchPause)
	defer tick.Stop()
	var end <-chan time.Time // runs once the generator has stopped
	for changes != nil || len(w.pending) > 0 {
		select {
		case c, ok := <-changes:
			if !ok {
				changes, end = nil, time.After(watchDrain)
				continue
			}
			w.pending = append(w.pending, c)
			w.stale = true
		case <-tick.C:
			w.look(out, path)
		case <-end:
			return // the comparison that follows says what is missing
		}
	}
	w.sayHidden(out, time.Now(), true)
}

// watcher holds the changes that the file does not show yet.
type watcher struct {
	pending []change
	stale   bool // a change came since the file was read
	seen    os.FileInfo

	second  int64 // that printed counts for
	printed int
	hidden  int
}

// look reads the file where it is a new one, and prints what it shows now.
func (w *watcher) look(out io.Writer, path string) {
	info, err := os.Stat(path)
	if err != nil || len(w.pending) == 0 || !w.stale && w.seen != nil && os.SameFile(info, w.seen) && info.ModTime().Equal(w.seen.ModTime()) {
		return
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return
	}
	w.seen, w.stale = info, false
	rows := fileRows(content)
	now := time.Now()

	// A vote's line tells which of its changes is the last that the file has; the ones before it came with it.
	reached := make(map[int]int) // vote_id to index in pending
	for i, c := range w.pending {
		if string(rows[c.id]) == c.row {
			reached[c.id] = i
		}
	}
	kept := w.pending[:0]
	for i, c := range w.pending {
		if last, ok := reached[c.id]; !ok || i > last {
			kept = append(kept, c)
			continue
		}
		w.say(out, c, now, fmt.Sprintf("%s %s, %s", filepath.Base(path), rowsText(len(rows)), bytesText(int64(len(content)))))
	}
	w.pending = kept
	w.sayHidden(out, now, false)
}

// say prints one change, or counts it where this second has had enough lines.
func (w *watcher) say(out io.Writer, c change, now time.Time, file string) {
	w.sayHidden(out, now, false)
	if w.printed >= watchLines {
		w.hidden++
		return
	}
	w.printed++
	fmt.Fprintf(out, "%s %c vote %-4d %-44s %s → %s, %s after commit\n", c.committed.Format("15:04:05"), c.sign, c.id,
		strconv.Quote(clipText(c.question, 42)), c.thumb, file, spanText(now.Sub(c.committed)))
}

// sayHidden prints how many changes had no line of their own, once their second is over.
func (w *watcher) sayHidden(out io.Writer, now time.Time, last bool) {
	if now.Unix() == w.second && !last {
		return
	}
	if w.hidden > 0 {
		fmt.Fprintf(out, "         … and %s more changes\n", countText(w.hidden))
	}
	w.second, w.printed, w.hidden = now.Unix(), 0, 0
}

// fileRows are the lines of feedback.json by vote_id, without white space outside strings.
func fileRows(content []byte) map[int][]byte {
	rows := make(map[int][]byte)
	for line := range bytes.Lines(content) {
		line = bytes.TrimRight(line, ",\n")
		number, ok := bytes.CutPrefix(line, []byte(`{"vote_id":`))
		if !ok {
			continue
		}
		number, _, _ = bytes.Cut(number, []byte(","))
		if id, err := strconv.Atoi(string(number)); err == nil {
			rows[id] = compact(line)
		}
	}
	return rows
}

// compact is JSON without white space outside strings; what is no JSON comes back as it is.
func compact(line []byte) []byte {
	var b bytes.Buffer
	if err := json.Compact(&b, line); err != nil {
		return line
	}
	return b.Bytes()
}
