package capture

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"capture/capture/source"
	"capture/internal/volume"
)

// TestScrapeReportsOneStatus checks that the figures of one scrape come from a single Status, so that they describe the same
// moment.
func TestScrapeReportsOneStatus(t *testing.T) {
	t.Parallel()
	statuses := 0
	registry := prometheus.NewRegistry()
	newMetrics().register(registry, func() (Status, followReport) {
		statuses++
		return Status{Ready: true, State: stateCopying, Source: "poll", Rows: 7, Checks: []Check{{Name: "file", OK: true}, {Name: "volume fallback"}}, Volumes: []volume.Usage{{Name: "fallback", Size: 9}, {Name: "usage-logs", Size: 8}}},
			followReport{Report: source.Report{Counters: source.Counters{Copies: 2, Updates: 3}, CopyTook: 1500 * time.Millisecond}, resyncs: 4, failures: 6, lost: 5}
	})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if statuses != 1 {
		t.Errorf("a scrape built %d statuses", statuses)
	}
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			found[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"capture_ready": 1, "capture_rows": 7, "capture_source poll": 1, "capture_volume_size_bytes fallback": 9,
		"capture_volume_size_bytes usage-logs": 8, "capture_file_age_seconds": -1,
		"capture_copying": 1, "capture_following": 0, "capture_check_ok file": 1, "capture_check_ok volume fallback": 0,
		"capture_connections_lost_total": 5, "capture_connection_failures_total": 6,
		"capture_copies_total": 2, "capture_resyncs_total": 4, "capture_changes_total update": 3, "capture_changes_total insert": 0, "capture_copy_duration_seconds": 1.5,
	} {
		if got, ok := found[name]; !ok || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}
