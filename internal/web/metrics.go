package web

import (
	"fmt"
	"net/http"
	"runtime"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/semaphore"
)

// metrics holds the metrics of the HTTP server itself.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, version string) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "capture_http_requests_total",
			Help: "HTTP requests answered, by route and status code.",
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "capture_http_request_duration_seconds",
			Help:    "Time from a request's headers to the end of its answer, by route, without event streams.",
			Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10, 60, 300},
		}, []string{"route"}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "capture_build_info",
		Help: "Always 1; the labels identify the version of capture.",
	}, []string{"version", "goversion"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	reg.MustRegister(m.requests, m.seconds, build)
	return m
}

// serveMetrics answers with all metrics of the process in Prometheus' text format.
func serveMetrics(gatherer prometheus.Gatherer, log hclog.Logger) http.HandlerFunc {
	scrapes := semaphore.NewWeighted(maxScrapes)
	serve := promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		ErrorLog:      log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
		ErrorHandling: promhttp.ContinueOnError,
	}).ServeHTTP
	return func(w http.ResponseWriter, r *http.Request) {
		if !scrapes.TryAcquire(1) {
			writeUnavailable(w, 1, fmt.Sprintf("%d requests for metrics are in progress already; try again in a moment", maxScrapes))
			return
		}
		defer scrapes.Release(1)
		serve(w, r)
	}
}
