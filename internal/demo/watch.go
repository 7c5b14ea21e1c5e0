package demo

import (
	"bytes"
	"encoding/json"
	"os"
	"strconv"
	"time"
)

const (
	checkInterval = 5 * time.Millisecond // time between two checks of the file for a new version
	drainTimeout  = 5 * time.Second      // longest wait for the last changes to reach the file
)

// File describes a version of feedback.json.
type File struct {
	Rows  int
	Bytes int64
	Read  time.Time // when the version was read
}

// watcher holds the changes that the file does not contain yet.
type watcher struct {
	path    string
	show    func(Change, File)
	pending []Change
	stale   bool        // whether a change was added after the last read
	read    os.FileInfo // file info of the last version that was read
}

// watch calls show for each change once the file at path contains the change. After the channel has been closed, watch
// returns when all changes have been shown, or when drainTimeout has passed. After watch, [Demo.Compare] reports what is
// missing in the file.
func watch(path string, changes <-chan Change, show func(Change, File)) {
	w := watcher{path: path, show: show}
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	var timeout <-chan time.Time // set once the channel of changes is closed
	for changes != nil || len(w.pending) > 0 {
		select {
		case c, ok := <-changes:
			if !ok {
				changes, timeout = nil, time.After(drainTimeout)
				continue
			}
			w.pending = append(w.pending, c)
			w.stale = true
		case <-tick.C:
			w.readFile()
		case <-timeout:
			return
		}
	}
}

// readFile shows the pending changes that the file contains. It reads the file only if the file has been replaced or a
// change has been added since the last read.
func (w *watcher) readFile() {
	info, err := os.Stat(w.path)
	if err != nil || len(w.pending) == 0 || !w.stale && w.read != nil && os.SameFile(info, w.read) && info.ModTime().Equal(w.read.ModTime()) {
		return
	}
	content, err := os.ReadFile(w.path)
	if err != nil {
		return
	}
	w.read, w.stale = info, false
	rows := fileRows(content)
	file := File{Rows: len(rows), Bytes: int64(len(content)), Read: time.Now()}

	// A vote may have several pending changes. Each change has the row that it leaves. If the file has this row, the file
	// contains the change and all earlier changes of the vote.
	last := make(map[int]int) // by vote_id: index in w.pending of the last change that the file contains
	for i, c := range w.pending {
		if string(rows[c.ID]) == c.row {
			last[c.ID] = i
		}
	}
	remaining := w.pending[:0]
	for i, c := range w.pending {
		if j, ok := last[c.ID]; ok && i <= j {
			w.show(c, file)
		} else {
			remaining = append(remaining, c)
		}
	}
	w.pending = remaining
}

// fileRows returns the rows of feedback.json by vote_id, as compact JSON.
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
			rows[id] = compactJSON(line)
		}
	}
	return rows
}

// compactJSON removes the white space outside of strings from line. If line is not valid JSON, it returns line unchanged.
func compactJSON(line []byte) []byte {
	var b bytes.Buffer
	if err := json.Compact(&b, line); err != nil {
		return line
	}
	return b.Bytes()
}
