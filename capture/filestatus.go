package capture

import (
	"fmt"
	"sync"
	"time"

	"capture/store"
	"capture/store/manifest"
)

// FileStatus is the state of feedback.json.
type FileStatus struct {
	Path     string     `json:"path"`
	Written  *time.Time `json:"written,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Rows     int        `json:"rows"`
	Bytes    int64      `json:"bytes"`
	SHA256   string     `json:"sha256,omitempty"`
	LSN      string     `json:"lsn,omitempty"`
	UpToDate bool       `json:"current"`           // whether the file holds the newest View
	Millis   float64    `json:"millis,omitempty"`  // duration of the last write in milliseconds
	Error    string     `json:"error,omitempty"`   // error of the last write if it failed
	Pending  *time.Time `json:"pending,omitempty"` // time of the oldest change that the file does not hold
}

// A write is late after lateWrite, or after lateByWrites times the duration of the last write, whichever is longer.
const (
	lateWrite    = 10 * time.Second
	lateByWrites = 3
)

// fileTracker holds the FileStatus. The flusher updates it, and any goroutine may read it.
type fileTracker struct {
	mu     sync.Mutex
	report fileReport
}

// fileReport is the state of the file and of its last write.
type fileReport struct {
	FileStatus
	version      uint64        // version of the View that the file holds; 0 before this run's first write
	writingSince time.Time     // start of the running write; zero if no write is running
	took         time.Duration // duration of the last write
}

// newFileTracker returns a fileTracker. Its first report describes the file of an earlier run, if there is one.
func newFileTracker(file *store.File) *fileTracker {
	t := &fileTracker{}
	t.report.Path = file.Path()
	if m, ok := file.Existing(); ok {
		t.report.FileStatus = newFileStatus(file.Path(), &m)
	}
	return t
}

func newFileStatus(path string, m *manifest.Manifest) FileStatus {
	return FileStatus{
		Path: path, Written: timeOrNil(m.WrittenAt), Reason: string(m.Reason), Rows: m.Rows, Bytes: m.Bytes,
		SHA256: m.SHA256, LSN: m.LSN,
	}
}

// loadReport returns the current report.
func (t *fileTracker) loadReport() fileReport {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.report
}

// hasWritten reports whether this run has written the file.
func (t *fileTracker) hasWritten() bool { return t.loadReport().version > 0 }

// recordAdopted records that the file now holds a state that this run has not written, such as a downloaded copy.
func (t *fileTracker) recordAdopted(m *manifest.Manifest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.report.version == 0 {
		t.report.FileStatus, t.report.writingSince = newFileStatus(t.report.Path, m), time.Time{}
	}
}

// clearFailure removes the error of the last write, because its cause has ended.
func (t *fileTracker) clearFailure() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Error = ""
}

// setPending records the time of the oldest change that the file does not hold.
func (t *fileTracker) setPending(since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Pending = timeOrNil(since)
}

// startWrite records that a write begins.
func (t *fileTracker) startWrite(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.writingSince = now
}

// recordFailure records the error of a failed write, and the time of the oldest pending change. It reports whether the error
// is new.
func (t *fileTracker) recordFailure(err error, pending time.Time) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed = t.report.Error != err.Error()
	t.report.Error, t.report.writingSince, t.report.Pending = err.Error(), time.Time{}, timeOrNil(pending)
	return changed
}

// recordWrite records a successful write of the View with this version.
func (t *fileTracker) recordWrite(m *manifest.Manifest, version uint64, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report = fileReport{FileStatus: newFileStatus(t.report.Path, m), version: version, took: took}
	t.report.Millis = millis(took)
}

// setSHA256 records a digest that was computed after the write.
func (t *fileTracker) setSHA256(sum string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.SHA256 = sum
}

// check returns the Check for the file. The Check is OK if this run has written the file, the last write has not failed, and
// no write is late.
func (r *fileReport) check(st *FileStatus) Check {
	late := max(lateWrite, lateByWrites*r.took)
	c := Check{Name: "file"}
	switch {
	case st.Error != "":
		c.Detail = st.Error
	case !r.writingSince.IsZero() && time.Since(r.writingSince) > late:
		c.Detail = fmt.Sprintf("a write has been running for %s: the volume is slow or hangs", time.Since(r.writingSince).Round(time.Second))
	case r.version == 0:
		c.Detail = "not written yet by this run"
	case st.Pending != nil && time.Since(*st.Pending) > late:
		c.Detail = fmt.Sprintf("changes have been waiting for %s", time.Since(*st.Pending).Round(time.Second))
	case st.UpToDate:
		c.OK, c.Detail = true, "holds the newest state"
	default:
		c.OK, c.Detail = true, "a change is about to be written"
	}
	return c
}
