package capture

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"capture/store/manifest"
)

// metrics are the counters and timings that the daemon's parts update directly. All other metrics come from reports, see
// [reportCollector].
type metrics struct {
	flushes      *prometheus.CounterVec
	flushErrors  prometheus.Counter
	flushBytes   prometheus.Counter
	flushSeconds prometheus.Histogram
	differences  prometheus.Counter
	lastVerified prometheus.Gauge
	losses       prometheus.Counter
	damage       prometheus.Counter
	copiesMade   prometheus.Counter
	copiedBytes  prometheus.Counter
	copyErrors   prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &metrics{
		flushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "capture_flushes_total", Help: "Writes of feedback.json, by reason: start, change, interval, forced, stop.",
		}, []string{"reason"}),
		flushErrors: counter("capture_flush_errors_total", "Writes of feedback.json that failed."),
		flushBytes:  counter("capture_flush_written_bytes_total", "Bytes of feedback.json written to disk: all of a small file, mostly what changed of a large one."),
		flushSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "capture_flush_duration_seconds", Help: "Duration of a write of feedback.json, including syncing it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12),
		}),
		differences: counter("capture_differences_total", "Rows that differed from the table in a regular comparison; should stay 0."),
		losses:      counter("capture_losses_total", "States kept because the next one had lost rows or values."),
		damage:      counter("capture_damage_found_total", "Times that feedback.json, a kept state or a copy off the machine was read back and was not what had been written; should stay 0."),
		copiesMade:  counter("capture_remote_copies_total", "States copied off the machine."),
		copiedBytes: counter("capture_remote_bytes_total", "Compressed bytes copied off the machine."),
		copyErrors:  counter("capture_remote_errors_total", "Attempts to copy off the machine, or to read a copy back, that failed."),
		lastVerified: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "capture_last_verified_timestamp_seconds", Help: "Unix time of the last comparison with the table; 0 before the first.",
		}),
	}
}

// addFlush counts a successful write.
func (m *metrics) addFlush(reason manifest.Reason, took time.Duration, bytesWritten int64) {
	m.flushes.WithLabelValues(string(reason)).Inc()
	m.flushBytes.Add(float64(bytesWritten))
	m.flushSeconds.Observe(took.Seconds())
}
