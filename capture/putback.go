package capture

import (
	"fmt"
	"time"
)

// putBackRetry is the pause between attempts to put the file in place again.
const putBackRetry = time.Second

// putBack puts the file of an earlier run in place again if readers no longer find it. It is called only until a source delivers
// the first View. Until then, if the file is gone and the database is lost, its rows exist only in memory.
func (f *flusher) putBack() (err error) {
	reason, previous := f.file.CheckInPlace(), f.previous.state.Load()
	switch {
	case reason == "":
		f.tracker.clearFailure()
	case previous == nil:
		err = fmt.Errorf("%s is not in place (%s), and its rows are not in memory; capture writes the file once it has read the table", f.file.Path(), reason)
	default:
		start := time.Now()
		f.tracker.startWrite(start)
		result, werr := f.file.PutBack(previous.view, previous.manifest)
		if err = werr; err == nil {
			m := &result.Manifest
			f.tracker.recordAdopted(m)
			f.log.Info("the file of the previous run is in place again", "rows", m.Rows, "bytes", m.Bytes, "lsn", m.LSN, "ms", millis(time.Since(start)))
		}
		f.reportResult(&result)
	}
	if f.misplaced = err != nil; err != nil {
		if f.tracker.recordFailure(err, time.Time{}) {
			f.log.Error("the file of the previous run can't be put in place again", "error", err, "next_attempt_in", putBackRetry.String())
		}
		f.metrics.flushErrors.Inc()
	}
	return err
}
