package capture

import (
	"cmp"
	"time"
)

// intervals are the intervals of the daemon's parts. Only tests set them.
type intervals struct {
	probe       time.Duration // time between probes for a better source; zero for a time that depends on the cause
	setupCheck  time.Duration // time between checks for a publication and triggers that capture setup may have created
	volumeCheck time.Duration // time between measurements of the volumes
	keptCheck   time.Duration // time between checks for losses that are not acknowledged
	alertCheck  time.Duration // time between checks for conditions that are worth an alert
	uploadCheck time.Duration // time between checks whether an upload is due
	uploadDelay time.Duration // time from a change to its upload
	heartbeat   time.Duration // time between heartbeats
	alertRetry  time.Duration // pause before the first retry of an alert; the pauses double up to longestAlertRetry
}

// withDefaults returns i with the default in place of each zero, except for probe.
func (i intervals) withDefaults() intervals {
	i.setupCheck = cmp.Or(i.setupCheck, time.Minute)
	i.volumeCheck = cmp.Or(i.volumeCheck, 15*time.Second)
	i.keptCheck = cmp.Or(i.keptCheck, 5*time.Second)
	i.alertCheck = cmp.Or(i.alertCheck, time.Second)
	i.uploadCheck = cmp.Or(i.uploadCheck, time.Second)
	i.uploadDelay = cmp.Or(i.uploadDelay, uploadDelay)
	i.heartbeat = cmp.Or(i.heartbeat, time.Minute)
	i.alertRetry = cmp.Or(i.alertRetry, 5*time.Second)
	return i
}
