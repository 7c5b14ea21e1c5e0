package capture

import "time"

// timeOrNil returns t in UTC, or nil if t is zero.
func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// millis returns d in milliseconds, the unit of durations in log lines and in Status.
func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// ageText returns the age of t at the time now, as a text for the operator: "2m0s ago".
func ageText(now time.Time, t *time.Time) string {
	return max(now.Sub(*t), 0).Round(time.Second).String() + " ago"
}
