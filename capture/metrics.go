package capture

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"capture/store"
)

// metrics are the daemon's counters. What Status knows already is read from it when Prometheus asks.
type metrics struct {
	changes      *prometheus.CounterVec
	transactions prometheus.Counter
	flushes      *prometheus.CounterVec
	flushErrors  prometheus.Counter
	flushBytes   prometheus.Counter
	flushSeconds prometheus.Histogram
	copies       prometheus.Counter
	copySeconds  prometheus.Gauge
	anew         prometheus.Counter
	failures     prometheus.Counter
	differences  prometheus.Counter
	verified     prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, d *Daemon) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "capture_changes_total", Help: "Rows changed, by operation: insert, update, delete, truncate.",
		}, []string{"op"}),
		transactions: counter("capture_transactions_total", "Transactions applied that changed the table."),
		flushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "capture_flushes_total", Help: "Writes of feedback.json, by reason: start, change, interval, forced, stop.",
		}, []string{"reason"}),
		flushErrors: counter("capture_flush_errors_total", "Writes of feedback.json that failed."),
		flushBytes:  counter("capture_flush_written_bytes_total", "Bytes of feedback.json written to disk: all of a small file, of a large one mostly what changed."),
		flushSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "capture_flush_duration_seconds", Help: "Time that a write of feedback.json took, syncing included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12),
		}),
		copies:      counter("capture_copies_total", "Whole copies of the table."),
		copySeconds: prometheus.NewGauge(prometheus.GaugeOpts{Name: "capture_copy_duration_seconds", Help: "Time that the last whole copy took."}),
		anew:        counter("capture_resyncs_total", "Copies made anew because the table or its place in the stream was lost."),
		failures:    counter("capture_connection_failures_total", "Attempts to follow, or followings, that ended in an error."),
	}
	m.differences = counter("capture_differences_total", "Rows found to differ from the table by the regular comparison; should stay 0 for ever.")
	m.verified = prometheus.NewGauge(prometheus.GaugeOpts{Name: "capture_last_verified_timestamp_seconds", Help: "When the captured rows were last compared with the table, as Unix time; 0 for not yet."})
	if r == nil {
		return m
	}
	gauge := func(name, help string, value func(Status) float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(d.Status()) }))
	}
	gauge("capture_ready", "1 while feedback.json follows the table.", func(s Status) float64 { return truth(s.Ready) })
	gauge("capture_following", "1 while the table is being followed.", func(s Status) float64 { return truth(s.State == stateFollowing) })
	gauge("capture_rows", "Rows of the table as captured.", func(s Status) float64 { return float64(s.Rows) })
	gauge("capture_bytes", "Length of feedback.json for the captured rows, in bytes.", func(s Status) float64 { return float64(s.Bytes) })
	gauge("capture_rows_resident_bytes", "Memory that the rows take, in bytes.", func(s Status) float64 {
		if s.Memory == nil {
			return float64(s.Bytes)
		}
		return float64(s.Memory.Resident)
	})
	gauge("capture_rows_out_bytes", "Bytes of rows that lie outside memory, in a file of the process.", func(s Status) float64 {
		if s.Memory == nil {
			return 0
		}
		return float64(s.Memory.Out)
	})
	gauge("capture_lag_bytes", "WAL between the server's end and what has been applied, in bytes.", func(s Status) float64 { return float64(s.LagBytes) })
	gauge("capture_lag_seconds", "Age of the last applied commit when it was applied; 0 when caught up.", func(s Status) float64 { return s.LagSeconds })
	gauge("capture_wal_retained_bytes", "WAL that the replication slot holds back at the server, in bytes.", func(s Status) float64 { return float64(s.RetainedWAL) })
	gauge("capture_file_age_seconds", "Time since feedback.json was written; -1 where it never was.", func(s Status) float64 {
		if s.File.Written == nil {
			return -1
		}
		return time.Since(*s.File.Written).Seconds()
	})
	gauge("capture_file_pending_seconds", "How long the oldest unflushed change has been waiting; 0 where there is none.", func(s Status) float64 {
		if s.File.Pending == nil {
			return 0
		}
		return time.Since(*s.File.Pending).Seconds()
	})
	r.MustRegister(m.changes, m.transactions, m.flushes, m.flushErrors, m.flushBytes, m.flushSeconds, m.copies, m.copySeconds, m.anew, m.failures, m.differences, m.verified, sourceMetric{d}, volumeMetrics{d})
	for _, op := range []string{"insert", "update", "delete", "truncate"} {
		m.changes.WithLabelValues(op)
	}
	return m
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *metrics) flushed(reason store.Reason, took time.Duration, wrote int64) {
	m.flushes.WithLabelValues(string(reason)).Inc()
	m.flushBytes.Add(float64(wrote))
	m.flushSeconds.Observe(took.Seconds())
}

// sourceMetric is capture_source{source="…"} 1 for the source in use.
type sourceMetric struct{ d *Daemon }

var sourceDesc = prometheus.NewDesc("capture_source", "1 for the source in use.", []string{"source"}, nil)

func (sourceMetric) Describe(ch chan<- *prometheus.Desc) { ch <- sourceDesc }

func (s sourceMetric) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(sourceDesc, prometheus.GaugeValue, 1, s.d.Status().Source)
}
