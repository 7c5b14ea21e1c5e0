package deploy_test

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestRules evaluates the alerts on time series of incidents. It checks which alerts fire and after what time, and which
// alerts stay silent. CI runs the same commands in Prometheus' image.
func TestRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool, which Debian's package prometheus contains")
	}
	tests, err := filepath.Glob("testdata/prometheus-rules*-test.yml")
	if err != nil || len(tests) < 2 {
		t.Fatalf("tests of the rules: %v, %v", tests, err)
	}
	for _, args := range [][]string{{"check", "rules", "prometheus-rules.yml"}, append([]string{"test", "rules"}, tests...)} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
