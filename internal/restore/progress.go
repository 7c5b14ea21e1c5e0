package restore

import (
	"time"

	"capture/internal/statefile"
)

// progress reports to the caller of Restore how far the restore is.
type progress struct {
	callback func(statefile.Progress) // Options.Progress; may be nil
	file     *statefile.File
	rows     *statefile.Reader
}

func (p *progress) report(doing string, rows int, bytes int64) {
	if p.callback != nil {
		p.callback(statefile.Progress{Doing: doing, Rows: rows, Bytes: bytes, Total: p.file.Size()})
	}
}

// reportDuring calls f, which reports no progress itself. Until f returns, reportDuring calls p.report twice a second with the
// number of rows that have been read. doing is a text that names the current step.
func (p *progress) reportDuring(doing string, f func() error) error {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-time.After(time.Second / 2):
				p.report(doing, p.rows.Rows(), 0)
			case <-stop:
				return
			}
		}
	}()
	defer func() {
		close(stop)
		<-stopped
	}()
	return f()
}
