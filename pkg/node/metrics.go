package node

import (
	"context"
	"net/http"
	"runtime"
	"slices"
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
	counted  *prometheus.Registry // requests and decisions alone, for people
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	receipts *prometheus.CounterVec
	syncs    *prometheus.CounterVec
	lastSync *prometheus.GaugeVec
	policy   *prometheus.HistogramVec
	names    map[string]bool
	first    int64 // entries of the log when the process began

	calls, decisions timing // for the history

	mu    sync.Mutex
	peers map[string]bool // those that have series
	last  map[string]synced
}

// synced is how the last sync with a peer ended.
type synced struct {
	outcome SyncOutcome
	at      time.Time
}

// The names that requests are counted under beside those of the tools.
var routes = []string{"checkpoint", "tile", "add-checkpoint", "resource", "prompt", "other"}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		counted:  prometheus.NewRegistry(),
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
		policy: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "remembrancer_policy_evaluation_duration_seconds",
			Help: "Time that the decisions took whether what was submitted may enter.",
			// .025 is a promise that is held against this: a threshold that is an edge is
			// counted and not interpolated.
			Buckets:                         []float64{.0005, .001, .0025, .005, .01, .015, .02, .025, .03, .05, .1, .25, 1},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  160,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"policy", "decision"}),
		names: map[string]bool{},
		peers: map[string]bool{},
		last:  map[string]synced{},
	}
	if head, err := s.logHead(); err == nil {
		m.first = head.Size
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "remembrancer_build_info", Help: "Always 1.",
	}, []string{"version", "git_sha", "goversion", "track"})
	build.WithLabelValues(s.o.Version, s.o.Revision, runtime.Version(), s.o.Track).Set(1)
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.requests, m.seconds, m.receipts, m.syncs, m.lastSync, m.policy, build,
		&storeCollector{server: s},
	)
	m.counted.MustRegister(m.requests, m.policy)
	for _, name := range policies {
		for _, d := range allVerdicts {
			m.policy.WithLabelValues(name, string(d))
		}
	}
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
	if m == nil { // as when it is measured what measuring costs
		return
	}
	if !m.names[name] {
		name = "other"
	}
	m.requests.WithLabelValues(name, string(code)).Inc()
	m.seconds.WithLabelValues(name).Observe(took.Seconds())
	m.calls.observe(took)
}

// took counts receipts that came into the log.
func (m *metrics) took(how string, n int) {
	if m != nil {
		m.receipts.WithLabelValues(how).Add(float64(n))
	}
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

// verdict is how the node decides on what is submitted.
type verdict string

// The verdicts.
const (
	allow   verdict = "allow"
	deny    verdict = "deny"
	unclear verdict = "error" // nobody knows: a fault of the node, or no time left
)

var allVerdicts = []verdict{allow, deny, unclear}

func verdictOf(code federate.Code) verdict {
	switch code {
	case codeOK:
		return allow
	case federate.CodeInternal, federate.CodeBusy:
		return unclear
	default:
		return deny
	}
}

// policies are the tools and routes through which something may enter that stays.
var policies = []string{"record_decision", "sign_artifact", federate.ToolPush, "add-checkpoint"}

// judging measures one decision whether something that was submitted may enter: may
// the caller, has it the right shape, is it signed by whom we trust. A push is one, of
// however many receipts. Time spent in waiting for a place is left out, and so is what
// is done once the decision is taken; except of add-checkpoint, which decides and writes
// in one step and is measured whole: its time is never understated. A nil one measures
// nothing.
type judging struct {
	server *Server
	policy string
	began  time.Time // zero while it waits
	spent  time.Duration
	done   bool
}

type judgingKey struct{}

// judges begins a decision, if there is one to take.
func (s *Server) judges(name string) *judging {
	if s.metrics == nil || !slices.Contains(policies, name) {
		return nil
	}
	return &judging{server: s, policy: name, began: s.o.Now()}
}

func (j *judging) pause() {
	if j != nil && !j.began.IsZero() {
		j.spent += j.server.o.Now().Sub(j.began)
		j.began = time.Time{}
	}
}

func (j *judging) resume() {
	if j != nil {
		j.began = j.server.o.Now()
	}
}

// settle ends the decision. The first verdict stands.
func (j *judging) settle(v verdict) {
	if j == nil || j.done {
		return
	}
	j.done = true
	j.pause()
	m := j.server.metrics
	m.policy.WithLabelValues(j.policy, string(v)).Observe(j.spent.Seconds())
	m.decisions.observe(j.spent)
}

// settled says that the decision on this call is taken, and that the rest is work.
func settled(ctx context.Context, v verdict) {
	j, _ := ctx.Value(judgingKey{}).(*judging)
	j.settle(v)
}

// settledIn is settled where it is known how long the decision took.
func settledIn(ctx context.Context, v verdict, took time.Duration) {
	if j, _ := ctx.Value(judgingKey{}).(*judging); j != nil {
		j.began, j.spent = time.Time{}, j.spent+took
		j.settle(v)
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry, MaxRequestsInFlight: 4})
}

// Synced counts a sync that this node began with a peer, by the peer's node name.
// Whoever runs syncs reports them here.
func (s *Server) Synced(peer string, outcome SyncOutcome) {
	now := s.o.Now()
	s.metrics.knows(peer)
	s.metrics.mu.Lock()
	s.metrics.last[peer] = synced{outcome, now}
	s.metrics.mu.Unlock()
	s.metrics.syncs.WithLabelValues(peer, string(outcome)).Inc()
	s.metrics.lastSync.WithLabelValues(peer, string(outcome)).Set(float64(now.Unix()))
}

// lastOf says how the last sync with a peer ended, if this process has begun one.
func (m *metrics) lastOf(peer string) (synced, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, ok := m.last[peer]
	return last, ok
}

// storeCollector reads the store when it is asked.
type storeCollector struct{ server *Server }

var (
	setDesc        = prometheus.NewDesc("remembrancer_set_receipts", "Receipts in the federated set.", nil, nil)
	treeDesc       = prometheus.NewDesc("remembrancer_ledger_tree_size", "Entries of the log.", nil, nil)
	appendsDesc    = prometheus.NewDesc("remembrancer_ledger_appends_total", "Entries that the log has got since this process began.", nil, nil)
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
	for _, d := range []*prometheus.Desc{setDesc, treeDesc, appendsDesc, conflictDesc, quarantineDesc, readyDesc, peerDesc} {
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
	// What cannot be read has no series: a number that stands still would pass for one.
	if head, err := c.server.logHead(); err == nil {
		gauge(setDesc, float64(store.Count()))
		gauge(treeDesc, float64(head.Size))
		ch <- prometheus.MustNewConstMetric(appendsDesc, prometheus.CounterValue, float64(head.Size-c.server.metrics.first))
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
