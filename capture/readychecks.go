package capture

import (
	"fmt"
	"time"
)

// checkFollowing returns the Check that is OK while the table is being followed.
func checkFollowing(st *Status, r *followReport, idle time.Duration) Check {
	c := Check{Name: "following"}
	switch {
	case st.State == stateWaiting:
		c.Detail = fmt.Sprintf("%s (attempt %d, the next at %s)", st.Error, st.Attempts, st.NextAttempt.Format(time.RFC3339))
	case st.State == stateConnecting && st.Error != "" && r.Blocked == "":
		c.Detail = st.Error
	case st.State != stateFollowing:
		c.Detail = st.State
		if r.Blocked != "" {
			c.Detail += ": " + r.Blocked
		} else if st.Reading != nil {
			c.Detail += ": " + st.Reading.text(time.Now())
		}
		if st.Error != "" {
			c.Detail += "; before: " + st.Error
		}
	case st.LastContact != nil && time.Since(*st.LastContact) > idle:
		c.Detail = fmt.Sprintf("no data from the server for %s", time.Since(*st.LastContact).Round(time.Second))
	default:
		c.OK = true
		c.Detail = fmt.Sprintf("by %s since %s", st.Source, r.FollowingSince.UTC().Format(time.RFC3339))
		if st.SourceNote != "" {
			c.Detail += "; " + st.SourceNote
		}
	}
	return c
}

// checkLogs returns the Check that is OK while log lines can be written. It does not affect readiness.
func checkLogs(health func() error) Check {
	if health != nil {
		if err := health(); err != nil {
			return Check{Name: "logs", Detail: err.Error()}
		}
	}
	return Check{Name: "logs", OK: true, Detail: "written"}
}
