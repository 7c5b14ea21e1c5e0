package capture

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"capture/capture/source"
	"capture/internal/volume"
	"capture/store"
)

// metrics are what the daemon counts and times. The rest of what Prometheus sees comes from a Status, see
// [statusCollector].
type metrics struct {
	flushes      *prometheus.CounterVec
	flushErrors  prometheus.Counter
	flushBytes   prometheus.Counter
	flushSeconds prometheus.Histogram
	resyncs      prometheus.Counter
	failures     prometheus.Counter
	differences  prometheus.Counter
	lastVerified prometheus.Gauge
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		flushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "capture_flushes_total", Help: "Writes of feedback.json, by reason: start, change, interval, forced, stop.",
		}, []string{"reason"}),
		flushErrors: counter("capture_flush_errors_total", "Writes of feedback.json that failed."),
		flushBytes:  counter("capture_flush_written_bytes_total", "Bytes of feedback.json written to disk: all of a small file, mostly what changed of a large one."),
		flushSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "capture_flush_duration_seconds", Help: "Duration of a write of feedback.json, including syncing it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12),
		}),
		resyncs:      counter("capture_resyncs_total", "Resyncs: copies made because the rows or the place in the stream were lost."),
		failures:     counter("capture_connection_failures_total", "Attempts to follow the table that ended in an error, at once or later."),
		differences:  counter("capture_differences_total", "Rows that differed from the table in a regular comparison; should stay 0."),
		lastVerified: gauge("capture_last_verified_timestamp_seconds", "Unix time of the last comparison with the table; 0 before the first."),
	}
	return m
}

// register registers m, and a collector of what status returns: a Status, and the report of the source at that moment.
func (m *metrics) register(r prometheus.Registerer, status func() (Status, source.Report)) {
	r.MustRegister(m.flushes, m.flushErrors, m.flushBytes, m.flushSeconds, m.resyncs, m.failures, m.differences, m.lastVerified,
		statusCollector{status})
}

// flushed records a successful write.
func (m *metrics) flushed(reason store.Reason, took time.Duration, bytesWritten int64) {
	m.flushes.WithLabelValues(string(reason)).Inc()
	m.flushBytes.Add(float64(bytesWritten))
	m.flushSeconds.Observe(took.Seconds())
}

// statusCollector reports one Status per scrape: all its figures are of the same moment.
type statusCollector struct {
	status func() (Status, source.Report)
}

// statusGauges are the gauges that have one value per Status.
var statusGauges = []struct {
	desc  *prometheus.Desc
	value func(*Status) float64
}{
	{metricDesc("capture_ready", "1 while feedback.json follows the table."), func(s *Status) float64 { return boolToFloat(s.Ready) }},
	{metricDesc("capture_following", "1 while the table is being followed."), func(s *Status) float64 { return boolToFloat(s.State == stateFollowing) }},
	{metricDesc("capture_rows", "Rows captured."), func(s *Status) float64 { return float64(s.Rows) }},
	{metricDesc("capture_bytes", "Length of feedback.json for the captured rows, in bytes."), func(s *Status) float64 { return float64(s.Bytes) }},
	{metricDesc("capture_rows_resident_bytes", "Memory taken by rows, in bytes."), func(s *Status) float64 {
		if s.Memory == nil {
			return float64(s.Bytes)
		}
		return float64(s.Memory.Resident)
	}},
	{metricDesc("capture_rows_out_bytes", "Rows spilled to a file of the process, in bytes."), func(s *Status) float64 {
		if s.Memory == nil {
			return 0
		}
		return float64(s.Memory.Spilled)
	}},
	{metricDesc("capture_lag_bytes", "WAL between the server's position and what has been applied, in bytes."), func(s *Status) float64 { return float64(s.LagBytes) }},
	{metricDesc("capture_lag_seconds", "Age of the last applied commit when it was applied; 0 when caught up."), func(s *Status) float64 { return s.LagSeconds }},
	{metricDesc("capture_wal_retained_bytes", "WAL that the replication slot retains on the server, in bytes."), func(s *Status) float64 { return float64(s.RetainedWAL) }},
	{metricDesc("capture_file_age_seconds", "Time since feedback.json was written; -1 if it never was."), func(s *Status) float64 {
		if s.File.Written == nil {
			return -1
		}
		return time.Since(*s.File.Written).Seconds()
	}},
	{metricDesc("capture_file_pending_seconds", "Age of the oldest change that is not in feedback.json; 0 if there is none."), func(s *Status) float64 {
		if s.File.Pending == nil {
			return 0
		}
		return time.Since(*s.File.Pending).Seconds()
	}},
}

// volumeGauges are the gauges that have one value per volume.
var volumeGauges = []struct {
	desc  *prometheus.Desc
	value func(*volume.Usage) int64
}{
	{metricDesc("capture_volume_files_bytes", "Bytes of capture's files in the folder.", "volume"), func(v *volume.Usage) int64 { return v.Bytes }},
	{metricDesc("capture_volume_size_bytes", "Size of the file system that holds the folder, in bytes.", "volume"), func(v *volume.Usage) int64 { return v.Size }},
	{metricDesc("capture_volume_free_bytes", "Bytes of that file system that capture may still use.", "volume"), func(v *volume.Usage) int64 { return v.Free }},
	{metricDesc("capture_volume_free_inodes", "Free inodes of that file system.", "volume"), func(v *volume.Usage) int64 { return v.FreeInodes }},
}

var (
	sourceDesc       = metricDesc("capture_source", "1 for the source in use.", "source")
	changesDesc      = metricDesc("capture_changes_total", "Rows changed, by operation: insert, update, delete, truncate.", "op")
	transactionsDesc = metricDesc("capture_transactions_total", "Transactions applied that changed the table.")
	copiesDesc       = metricDesc("capture_copies_total", "Copies of the whole table.")
	copySecondsDesc  = metricDesc("capture_copy_duration_seconds", "Duration of the last copy of the whole table.")
)

func metricDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, g := range statusGauges {
		ch <- g.desc
	}
	for _, g := range volumeGauges {
		ch <- g.desc
	}
	for _, desc := range []*prometheus.Desc{sourceDesc, changesDesc, transactionsDesc, copiesDesc, copySecondsDesc} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c statusCollector) Collect(ch chan<- prometheus.Metric) {
	st, report := c.status()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for _, g := range statusGauges {
		gauge(g.desc, g.value(&st))
	}
	for _, v := range st.Volumes {
		for _, g := range volumeGauges {
			gauge(g.desc, float64(g.value(&v)), v.Name)
		}
	}
	gauge(sourceDesc, 1, st.Source)
	gauge(copySecondsDesc, report.CopyTook.Seconds())
	counter := func(desc *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	}
	counter(copiesDesc, report.Counters.Copies)
	counter(transactionsDesc, report.Counters.Transactions)
	counter(changesDesc, report.Counters.Inserts, "insert")
	counter(changesDesc, report.Counters.Updates, "update")
	counter(changesDesc, report.Counters.Deletes, "delete")
	counter(changesDesc, report.Counters.Truncates, "truncate")
}

func boolToFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
