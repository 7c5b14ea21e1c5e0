package capture

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"capture/capture/source"
	"capture/internal/volume"
)

// register registers the metrics of m, and a reportCollector that calls report for each scrape.
func (m *metrics) register(r prometheus.Registerer, report func() (Status, followReport)) {
	r.MustRegister(m.flushes, m.flushErrors, m.flushBytes, m.flushSeconds, m.differences, m.lastVerified, m.losses, m.damage, m.copiesMade, m.copiedBytes, m.copyErrors, reportCollector{report})
}

// reportCollector requests one report per scrape, so that all its values are from the same moment.
type reportCollector struct {
	report func() (Status, followReport)
}

// followTotals are the counters of the supervisor and its sources.
var followTotals = []struct {
	desc  *prometheus.Desc
	value func(*followReport) uint64
}{
	{newDesc("capture_transactions_total", "Transactions applied that changed the table."), func(r *followReport) uint64 { return r.Counters.Transactions }},
	{newDesc("capture_copies_total", "Copies of the whole table."), func(r *followReport) uint64 { return r.Counters.Copies }},
	{newDesc("capture_incremental_resyncs_total", "Resyncs that transferred only what had changed."), func(r *followReport) uint64 { return r.Counters.Resyncs }},
	{newDesc("capture_incremental_resync_rows_total", "Rows transferred by resyncs that transferred only what had changed."), func(r *followReport) uint64 { return r.Counters.ResyncRows }},
	{newDesc("capture_resyncs_total", "Times that a source ended because the table or its place in the stream was lost."), func(r *followReport) uint64 { return r.resyncs }},
	{newDesc("capture_connections_lost_total", "Times that following the table ended in an error, such as a lost connection."), func(r *followReport) uint64 { return r.lost }},
	{newDesc("capture_connection_failures_total", "Attempts to follow the table that ended in an error, at once or later."), func(r *followReport) uint64 { return r.failures }},
}

// changeTotals count changed rows by operation.
var changeTotals = []struct {
	op    string
	value func(*source.Counters) uint64
}{
	{"insert", func(c *source.Counters) uint64 { return c.Inserts }},
	{"update", func(c *source.Counters) uint64 { return c.Updates }},
	{"delete", func(c *source.Counters) uint64 { return c.Deletes }},
	{"truncate", func(c *source.Counters) uint64 { return c.Truncates }},
}

// statusGauges are the gauges without labels. The function in the field value computes the gauge's value from a Status.
var statusGauges = []struct {
	desc  *prometheus.Desc
	value func(*Status) float64
}{
	{newDesc("capture_ready", "1 while feedback.json follows the table."), func(s *Status) float64 { return boolToFloat(s.Ready) }},
	{newDesc("capture_following", "1 while the table is being followed."), func(s *Status) float64 { return boolToFloat(s.State == stateFollowing) }},
	{newDesc("capture_copying", "1 while the table is being copied or resynced before it is followed."), func(s *Status) float64 { return boolToFloat(s.State == stateCopying) }},
	{newDesc("capture_rows", "Rows captured."), func(s *Status) float64 { return float64(s.Rows) }},
	{newDesc("capture_rows_omitted", "Rows left out of feedback.json because they do not fit into memory."), func(s *Status) float64 { return float64(s.Omitted) }},
	{newDesc("capture_bytes", "Length of feedback.json for the captured rows, in bytes."), func(s *Status) float64 { return float64(s.Bytes) }},
	{newDesc("capture_rows_resident_bytes", "Memory taken by rows, in bytes."), func(s *Status) float64 {
		if s.Memory == nil {
			return float64(s.Bytes)
		}
		return float64(s.Memory.Resident)
	}},
	{newDesc("capture_rows_out_bytes", "Rows spilled to a file of the process, in bytes."), func(s *Status) float64 {
		if s.Memory == nil {
			return 0
		}
		return float64(s.Memory.Spilled)
	}},
	{newDesc("capture_kept_states", "States of feedback.json that are kept beside it."), func(s *Status) float64 { return float64(s.Kept.States) }},
	{newDesc("capture_kept_bytes", "Bytes that kept states take on disk."), func(s *Status) float64 { return float64(s.Kept.Bytes) }},
	{newDesc("capture_kept_oldest_age_seconds", "Age of the oldest kept state; 0 if there is none."), func(s *Status) float64 {
		return ageSeconds(s.Kept.Oldest, 0)
	}},
	{newDesc("capture_open_losses", "Losses of rows or values that are neither acknowledged nor over."), func(s *Status) float64 { return float64(s.Kept.Losses) }},
	{newDesc("capture_remote_problem", "1 while the check copy fails: copies off the machine are late, damaged or not read back."), func(s *Status) float64 {
		return boolToFloat(s.Copies != nil && s.Copies.Problem != "")
	}},
	{newDesc("capture_remote_copy_age_seconds", "Time since a state was copied off the machine; -1 if none was in this run."), func(s *Status) float64 {
		if s.Copies == nil {
			return -1
		}
		return ageSeconds(s.Copies.Copied, -1)
	}},
	{newDesc("capture_remote_proven_age_seconds", "Time since a copy off the machine was read back whole; -1 if none was in this run."), func(s *Status) float64 {
		if s.Copies == nil {
			return -1
		}
		return ageSeconds(s.Copies.Proven, -1)
	}},
	{newDesc("capture_remote_pending_seconds", "Age of the oldest change that is not off the machine; 0 if there is none, or without copies."), func(s *Status) float64 {
		if s.Copies == nil {
			return 0
		}
		return ageSeconds(s.Copies.Pending, 0)
	}},
	{newDesc("capture_lag_bytes", "WAL between the server's position and what has been applied, in bytes."), func(s *Status) float64 { return float64(s.LagBytes) }},
	{newDesc("capture_lag_seconds", "Age of the last commit when it was applied or, with notify, age of the oldest change that is not applied; 0 when caught up, and with poll."), func(s *Status) float64 { return s.LagSeconds }},
	{newDesc("capture_wal_retained_bytes", "WAL that the replication slot retains on the server, in bytes."), func(s *Status) float64 { return float64(s.RetainedWAL) }},
	{newDesc("capture_file_age_seconds", "Time since feedback.json was written; -1 if it never was."), func(s *Status) float64 {
		return ageSeconds(s.File.Written, -1)
	}},
	{newDesc("capture_file_pending_seconds", "Age of the oldest change that is not in feedback.json; 0 if there is none."), func(s *Status) float64 {
		return ageSeconds(s.File.Pending, 0)
	}},
}

// volumeGauges are the gauges that have one value per volume.
var volumeGauges = []struct {
	desc  *prometheus.Desc
	value func(*volume.Usage) int64
}{
	{newDesc("capture_volume_files_bytes", "Bytes of capture's files in the folder.", "volume"), func(v *volume.Usage) int64 { return v.Bytes }},
	{newDesc("capture_volume_size_bytes", "Size of the file system that holds the folder, in bytes.", "volume"), func(v *volume.Usage) int64 { return v.Size }},
	{newDesc("capture_volume_free_bytes", "Bytes of that file system that capture may still use.", "volume"), func(v *volume.Usage) int64 { return v.Free }},
	{newDesc("capture_volume_free_inodes", "Free inodes of that file system.", "volume"), func(v *volume.Usage) int64 { return v.FreeInodes }},
}

var (
	changesDesc     = newDesc("capture_changes_total", "Rows changed, by operation: insert, update, delete, truncate.", "op")
	checkDesc       = newDesc("capture_check_ok", "1 if a check of /readyz is OK, otherwise 0. Most checks are there only while they fail.", "check")
	copySecondsDesc = newDesc("capture_copy_duration_seconds", "Duration of the last copy of the whole table.")
	sourceDesc      = newDesc("capture_source", "1 for the source in use.", "source")
)

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (reportCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, t := range followTotals {
		ch <- t.desc
	}
	for _, g := range statusGauges {
		ch <- g.desc
	}
	for _, g := range volumeGauges {
		ch <- g.desc
	}
	ch <- changesDesc
	ch <- checkDesc
	ch <- copySecondsDesc
	ch <- sourceDesc
}

// Collect implements prometheus.Collector.
func (c reportCollector) Collect(ch chan<- prometheus.Metric) {
	st, following := c.report()
	counter := func(desc *prometheus.Desc, value uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), labels...)
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for _, t := range followTotals {
		counter(t.desc, t.value(&following))
	}
	for _, t := range changeTotals {
		counter(changesDesc, t.value(&following.Counters), t.op)
	}
	for _, g := range statusGauges {
		gauge(g.desc, g.value(&st))
	}
	for _, v := range st.Volumes {
		for _, g := range volumeGauges {
			gauge(g.desc, float64(g.value(&v)), v.Name)
		}
	}
	for _, c := range st.Checks {
		gauge(checkDesc, boolToFloat(c.OK), c.Name)
	}
	gauge(copySecondsDesc, following.CopyTook.Seconds())
	gauge(sourceDesc, 1, st.Source)
}

// ageSeconds returns the time since t in seconds, or ifNil if t is nil.
func ageSeconds(t *time.Time, ifNil float64) float64 {
	if t == nil {
		return ifNil
	}
	return time.Since(*t).Seconds()
}

func boolToFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
