package soak

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// The phases of a run.
const (
	steady = "steady"
	fault  = "fault"
)

// The results of an audit.
const (
	auditVerified = "verified"
	auditMissing  = "missing"
	auditInvalid  = "invalid"
)

// metrics are what /metrics shows. Every series is there from the start, at zero: one
// that appears with its first event hides that event.
type metrics struct {
	registry   *prometheus.Registry
	operations *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	info       *prometheus.GaugeVec
	lag        prometheus.Gauge
	lagMax     prometheus.Gauge
	audited    *prometheus.CounterVec
	treeSize   prometheus.Gauge
	phase      *prometheus.GaugeVec

	treaty, track string
}

func newMetrics(treaty, track string) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(), treaty: treaty, track: track,
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "remembrancer_soak_operations_total", Help: "Operations that were due, by how they ended.",
		}, []string{"treaty_id", "workload", "track", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "remembrancer_soak_operation_duration_seconds",
			Help: "Time from when an operation was due to its end; of one that failed at least its deadline.",
			// Every threshold of an objective is an edge: it is decided by counts.
			Buckets:                     []float64{.005, .01, .025, .05, .1, .15, .2, .25, .3, .325, .35, .375, .4, .5, .75, 1, 1.5, 2.5, 5},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"treaty_id", "workload", "track"}),
		info: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "remembrancer_soak_run_info", Help: "Always 1.",
		}, []string{"run_id", "seed", "source", "node_git_sha"}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "remembrancer_soak_schedule_lag_seconds", Help: "How late the last operation was handed out.",
		}),
		lagMax: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "remembrancer_soak_schedule_lag_seconds_max", Help: "How late the latest of the run was handed out.",
		}),
		audited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "remembrancer_audit_entries_total", Help: "Entries of the node's log that the auditor read again, by what it found.",
		}, []string{"result"}),
		treeSize: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "remembrancer_audit_tree_size", Help: "Entries of the log under the newest checkpoint that the auditor verified.",
		}),
		phase: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "remembrancer_soak_phase", Help: "1 for the phase that the run is in.",
		}, []string{"phase"}),
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.operations, m.seconds, m.info, m.lag, m.lagMax, m.audited, m.treeSize, m.phase,
	)
	for _, w := range workloads {
		m.seconds.WithLabelValues(treaty, string(w), track)
		for _, o := range outcomes {
			m.operations.WithLabelValues(treaty, string(w), track, string(o))
		}
	}
	for _, r := range []string{auditVerified, auditMissing, auditInvalid} {
		m.audited.WithLabelValues(r)
	}
	m.enter(steady)
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry, MaxRequestsInFlight: 4})
}

func (m *metrics) enter(phase string) {
	for _, p := range []string{steady, fault} {
		v := 0.0
		if p == phase {
			v = 1
		}
		m.phase.WithLabelValues(p).Set(v)
	}
}

// ran says which run it is, and which revision of the node it is against.
func (m *metrics) ran(run string, seed uint64, revision string) {
	m.info.Reset()
	m.info.WithLabelValues(run, strconv.FormatUint(seed, 10), "live", revision).Set(1)
}

func (m *metrics) ended(w Workload, o Outcome, took time.Duration) {
	m.operations.WithLabelValues(m.treaty, string(w), m.track, string(o)).Inc()
	m.seconds.WithLabelValues(m.treaty, string(w), m.track).Observe(took.Seconds())
}
