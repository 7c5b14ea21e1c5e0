package capture

import (
	"io"
	"strings"
	"sync/atomic"
	"time"
)

// CopiesStatus describes the copies off the machine.
type CopiesStatus struct {
	URL       string     `json:"url"`
	State     string     `json:"state,omitempty"` // URL of the state that was uploaded last
	Rows      int        `json:"rows"`
	Bytes     int64      `json:"bytes"`               // compressed length of the state that was uploaded last
	Copied    *time.Time `json:"copied,omitempty"`    // time at which the service accepted the state that was uploaded last
	Proven    *time.Time `json:"proven,omitempty"`    // time at which a copy was last read back and found intact
	Pending   *time.Time `json:"pending,omitempty"`   // time of the oldest change that no copy includes
	Checksum  string     `json:"checksum,omitempty"`  // name of the checksum that the service compares; absent if it compares none
	Behind    bool       `json:"behind,omitempty"`    // whether another capture has uploaded a newer state
	Exclusive bool       `json:"exclusive,omitempty"` // whether no other capture may use the prefix, because the service has no conditional writes
	Hourly    bool       `json:"hourly,omitempty"`    // whether copies are made hourly, because capture may not delete copies
	Error     string     `json:"error,omitempty"`     // error of the last attempt to upload, read back or remove a copy; absent if it succeeded

	Uploading *UploadStatus `json:"uploading,omitempty"` // running upload

	Problem string `json:"problem,omitempty"` // text of the alert; absent if there is none

	damage     string    // description of a damaged copy; "" if there is none
	refused    string    // reason why the current state must not be uploaded; "" if it may be uploaded
	late       bool      // whether lateAt is set
	lateAt     time.Time // time from which the pending change is late
	unprovenAt time.Time // latest time for the next proof, which reads a copy back; zero before the first upload
}

// UploadStatus describes the progress of an upload.
type UploadStatus struct {
	Began time.Time `json:"began"`
	Bytes int64     `json:"bytes"`           // bytes of JSON that have been compressed and sent so far
	Total int64     `json:"total,omitempty"` // bytes of JSON in the state
}

// uploadProgress writes the JSON of a state for an upload, and counts its bytes.
type uploadProgress struct {
	data  io.WriterTo
	began time.Time
	total int64
	bytes atomic.Int64
}

// WriteTo implements io.WriterTo.
func (p *uploadProgress) WriteTo(w io.Writer) (int64, error) {
	p.bytes.Store(0) // an upload may begin again under another name, and is then counted from zero
	return p.data.WriteTo(countingWriter{w, &p.bytes})
}

type countingWriter struct {
	to    io.Writer
	bytes *atomic.Int64
}

func (w countingWriter) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	w.bytes.Add(int64(n))
	return n, err
}

// updateStatus publishes the status.
func (u *uploader) updateStatus(now time.Time) {
	s := u.schedule
	c := &CopiesStatus{
		URL: u.location.String(), State: u.last.URL, Rows: u.last.Rows, Bytes: u.last.Bytes, Copied: timeOrNil(s.uploaded), Proven: timeOrNil(s.proven),
		Pending: timeOrNil(s.pending), Error: u.failure, Hourly: s.hourly, Behind: u.newerThere,
	}
	if u.folder != nil {
		c.Exclusive = !u.limits.Conditional
		if u.limits.Checksums {
			c.Checksum = u.location.Checksum()
		}
	}
	c.damage, c.refused = u.damage, u.refused
	c.lateAt, c.late = s.lateAt()
	if !s.uploaded.IsZero() {
		c.unprovenAt = s.unprovenAt()
	}
	u.report.Store(c)
}

// status returns the status of the copies. It also checks whether the copies are late, because updateStatus does not run while
// an upload hangs.
func (u *uploader) status() *CopiesStatus {
	c, now := *u.report.Load(), time.Now()
	if p := u.uploading.Load(); p != nil {
		c.Uploading = &UploadStatus{Began: p.began.UTC(), Bytes: p.bytes.Load(), Total: p.total}
	}
	var problems []string
	if c.damage != "" {
		problems = append(problems, c.damage)
	}
	switch {
	case c.refused != "": // a refusal ends only if a setting changes, so report it at once, and not only when the copies are late
		problems = append(problems, c.refused)
	case c.late && !now.Before(c.lateAt):
		text := "no copy for " + now.Sub(*c.Pending).Round(time.Second).String() + ", while changes wait"
		if c.Error != "" {
			text += ": " + c.Error
		}
		problems = append(problems, text)
	}
	if !c.unprovenAt.IsZero() && !now.Before(c.unprovenAt) {
		problems = append(problems, "no copy has been read back for two days")
	}
	c.Problem = strings.Join(problems, "; ")
	return &c
}

// check returns the check of the copies, which does not affect readiness.
func (c *CopiesStatus) check(now time.Time) Check {
	if c.Problem != "" {
		return Check{Name: copyCheck, Detail: c.Problem}
	}
	parts := []string{"none yet"}
	if c.Copied != nil {
		parts = []string{"copied " + ageText(now, c.Copied)}
	}
	switch {
	case c.Proven != nil:
		parts = append(parts, "read back "+ageText(now, c.Proven))
	case c.Copied != nil:
		parts = append(parts, "never read back")
	}
	if c.Error != "" {
		parts = append(parts, c.Error)
	}
	if c.Behind {
		parts = append(parts, "latest.json names a state with a later position: another capture is ahead, or the server went back to an older state")
	}
	if c.Hourly {
		parts = append(parts, "hourly, as there is no right to delete")
	}
	if c.Exclusive {
		parts = append(parts, "no other capture may use the prefix, as the service knows no conditional writes")
	}
	return Check{Name: copyCheck, OK: true, Detail: strings.Join(parts, "; ")}
}

// copyCheck is the name of the check and the alert for copies off the machine.
const copyCheck = "copy"
