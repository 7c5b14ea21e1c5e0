package deploy_test

import (
	"os/exec"
	"testing"
)

// TestRules evaluates the alerts on series of incidents: what fires, after how long, and what fires for nothing.
func TestRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool, which Debian's package prometheus contains")
	}
	for _, args := range [][]string{{"check", "rules", "prometheus-rules.yml"}, {"test", "rules", "testdata/prometheus-rules-test.yml", "testdata/prometheus-rules-days-test.yml"}} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
