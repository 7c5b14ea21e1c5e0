package main

import (
	"bytes"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// TestMetricsAreClean checks that the linter of `promtool check metrics` finds no problem in the metrics of a running
// daemon.
func TestMetricsAreClean(t *testing.T) {
	t.Parallel()
	d := start(t, votesDatabase(t, 5))
	d.ready()
	body, code := get(t, "http://"+d.address()+"/metrics")
	problems, err := promlint.New(bytes.NewReader(body)).Lint()
	if err != nil || code != 200 || bytes.Count(body, []byte("# TYPE capture_")) < 30 {
		t.Fatalf("%d, %v: %s", code, err, body)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
