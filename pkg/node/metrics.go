package node

import (
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/merge"
)

// codeOK is how a call ends that does not end in a [federate.Code].
const codeOK federate.Code = "ok"

var allCodes = []federate.Code{
	codeOK, federate.CodeStaleRoot, federate.CodeUnknownSession, federate.CodeForbidden, federate.CodeTooLarge,
	federate.CodeBadRequest, federate.CodeTrustMismatch, federate.CodeBusy, federate.CodeInternal,
}

// SyncOutcome is how a sync with a peer ended.
type SyncOutcome string

// The outcomes.
const (
	SyncMerged   SyncOutcome = "merged"   // with a receipt, or nothing to do
	SyncRefused  SyncOutcome = "refused"  // found wanting: two histories, another root
	SyncFailed   SyncOutcome = "failed"   // could not: unreachable, trust differs, deadline
	SyncDeclined SyncOutcome = "declined" // not tried: the peer is stopped
)

var allOutcomes = []SyncOutcome{SyncMerged, SyncRefused, SyncFailed, SyncDeclined}

// metrics are what /metrics shows. Everything that can be counted is there from the
// start, at zero: a series that appears with its first event hides that event.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	receipts *prometheus.CounterVec
	syncs    *prometheus.CounterVec
	lastSync *prometheus.GaugeVec
	names    map[string]bool

	mu    sync.Mutex
	peers map[string]bool // those that have series
}

// The names that requests are counted under beside those of the tools.
var routes = []string{"checkpoint", "tile", "add-checkpoint", "resource", "prompt", "other"}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "remembrancer_requests_total", Help: "Calls of tools and routes, by how they ended.",
		}, []string{"tool", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "remembrancer_request_seconds", Help: "Time that calls took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"tool"}),
		receipts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "remembrancer_receipts_total", Help: "Receipts that this process took into its log: recorded here, or pushed by a peer.",
		}, []string{"how"}),
		syncs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "remembrancer_syncs_total", Help: "Syncs that this node began, by how they ended.",
		}, []string{"peer", "outcome"}),
		lastSync: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "remembrancer_sync_last_timestamp_seconds", Help: "When the last sync with this outcome ended, in Unix time; 0 if none has.",
		}, []string{"peer", "outcome"}),
		names: map[string]bool{},
		peers: map[string]bool{},
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "remembrancer_build_info", Help: "Always 1.",
	}, []string{"version", "goversion"})
	build.WithLabelValues(s.o.Version, runtime.Version()).Set(1)
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.requests, m.seconds, m.receipts, m.syncs, m.lastSync, build,
		&storeCollector{server: s},
	)
	for _, name := range routes {
		m.names[name] = true
	}
	for name := range s.tools {
		m.names[name] = true
	}
	for name := range m.names {
		m.seconds.WithLabelValues(name)
		for _, code := range allCodes {
			m.requests.WithLabelValues(name, string(code))
		}
	}
	m.receipts.WithLabelValues(recorded)
	m.receipts.WithLabelValues(pushed)
	for _, p := range s.o.Store.Peers() {
		m.knows(p.Node)
	}
	return m
}

// How a receipt came here.
const (
	recorded = "recorded"
	pushed   = "pushed"
)

// called counts one call. What a caller invents does not become a label.
func (m *metrics) called(name string, code federate.Code, took time.Duration) {
	if !m.names[name] {
		name = "other"
	}
	m.requests.WithLabelValues(name, string(code)).Inc()
	m.seconds.WithLabelValues(name).Observe(took.Seconds())
}

// knows makes the series of a peer.
func (m *metrics) knows(peer string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.peers[peer] {
		return
	}
	m.peers[peer] = true
	for _, o := range allOutcomes {
		m.syncs.WithLabelValues(peer, string(o))
		m.lastSync.WithLabelValues(peer, string(o))
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry, MaxRequestsInFlight: 4})
}

// Synced counts a sync that this node began with a peer, by the peer's node name.
// Whoever runs syncs reports them here.
func (s *Server) Synced(peer string, outcome SyncOutcome) {
	s.metrics.knows(peer)
	s.metrics.syncs.WithLabelValues(peer, string(outcome)).Inc()
	s.metrics.lastSync.WithLabelValues(peer, string(outcome)).Set(float64(s.o.Now().Unix()))
}

// storeCollector reads the store when it is asked.
type storeCollector struct{ server *Server }

var (
	setDesc        = prometheus.NewDesc("remembrancer_set_receipts", "Receipts in the federated set.", nil, nil)
	logDesc        = prometheus.NewDesc("remembrancer_log_entries", "Entries of the log.", nil, nil)
	conflictDesc   = prometheus.NewDesc("remembrancer_conflicts", "Names that several receipts claim.", nil, nil)
	quarantineDesc = prometheus.NewDesc("remembrancer_quarantined", "Lines refused, by reason.", []string{"reason"}, nil)
	readyDesc      = prometheus.NewDesc("remembrancer_ready", "1 while receipts can be recorded.", nil, nil)
	peerDesc       = prometheus.NewDesc("remembrancer_peer_stopped", "1 for a peer with which nothing is exchanged.", []string{"peer"}, nil)
)

var reasons = []merge.Reason{
	merge.Malformed, merge.NotFederated, merge.UnknownIssuer, merge.Unsigned, merge.BadSignature, merge.Revoked,
}

// Describe implements prometheus.Collector.
func (c *storeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{setDesc, logDesc, conflictDesc, quarantineDesc, readyDesc, peerDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *storeCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	store := c.server.o.Store
	ready := 1.0
	if c.server.ready() != nil {
		ready = 0
	}
	gauge(readyDesc, ready)
	if snapshot, err := store.Snapshot(); err == nil {
		gauge(setDesc, float64(snapshot.Count))
		gauge(logDesc, float64(snapshot.Size))
	}
	gauge(conflictDesc, float64(len(store.Conflicts())))
	counts := store.Quarantine().Counts
	for _, r := range reasons {
		gauge(quarantineDesc, float64(counts[r]), string(r))
	}
	seen := map[string]bool{}
	for _, p := range store.Peers() {
		c.server.metrics.knows(p.Node)
		if seen[p.Node] {
			continue // names are labels that peers choose, and may be equal
		}
		seen[p.Node] = true
		stopped := 0.0
		if p.Stopped != "" {
			stopped = 1
		}
		gauge(peerDesc, stopped, p.Node)
	}
}
