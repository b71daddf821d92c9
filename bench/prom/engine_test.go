// Package prom_test runs what pkg/slo writes against Prometheus itself: every
// query is parsed by its parser and answered by its engine from a database of
// three days, and the rules are tested by promtool. It is a module of its own,
// because Prometheus is larger than everything that a user installs.
package prom_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/slo"
)

const (
	specFile = "examples/slo/aurora-akash-001.yaml"
	interval = 15 * time.Second
	window   = 72 * time.Hour
	revision = "0123456789abcdef0123456789abcdef01234567"
)

// epoch is where the window begins, and clock what the server's clock says: two
// scrapes after the window ends.
var (
	epoch = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	clock = epoch.Add(window + 2*interval)
)

func aurora(t testing.TB) *slo.Spec {
	t.Helper()
	data, err := os.ReadFile("../../" + specFile)
	assert.NilError(t, err)
	s, err := slo.ParseSpec(specFile, data)
	assert.NilError(t, err)
	return s
}

// history is how a service fared.
type history struct {
	seen  func(since time.Duration) bool // whether there was a scrape; nil: always
	reset time.Duration                  // when the counters began anew; 0: never
	slow  float64                        // share of operations that were too slow, beside the usual
}

var histories = map[string]history{
	"full":  {},
	"gap":   {seen: func(d time.Duration) bool { return d < 30*time.Hour || d >= 36*time.Hour }},
	"short": {seen: func(d time.Duration) bool { return d >= 70*time.Hour }},
	"stale": {seen: func(d time.Duration) bool { return d <= 66*time.Hour }},
	"reset": {reset: 40 * time.Hour},
	"slow":  {slow: 0.1},
}

// sample is a series and how it follows from the events that there were.
type sample struct {
	labels labels.Labels
	value  func(events float64) float64
}

// service are the series of a node and the soak against it. Of all operations
// 98 % end well, 97 % within 350 ms; 98 % of the entries are audited; 99.6 % of
// the decisions take at most 25 ms.
func service(slow float64) []sample {
	var all []sample
	add := func(value func(float64) float64, name string, pairs ...string) {
		all = append(all, sample{labels.FromStrings(append([]string{"__name__", name}, pairs...)...), value})
	}
	share := func(f float64) func(float64) float64 {
		return func(n float64) float64 { return math.Floor(n * f) }
	}
	one := func(float64) float64 { return 1 }
	node := []string{"job", "remembrancer-node", "instance", "node:9090"}
	soak := []string{"job", "remembrancer-soak", "instance", "soak:9090"}
	add(one, "up", node...)
	add(one, "up", soak...)
	add(one, "remembrancer_build_info", append(node, "git_sha", revision, "version", "v1.0.0", "track", "canary")...)
	add(func(n float64) float64 { return 1000 + math.Floor(n*0.9) }, "remembrancer_ledger_tree_size", node...)
	for outcome, f := range map[string]float64{"verified": 0.9, "denied_expected": 0.08, "rejected": 0, "timeout": 0.01, "error": 0.01, "dropped": 0, "unverified": 0} {
		add(share(f), "remembrancer_soak_operations_total", append(soak, "treaty_id", "AURORA-AKASH-001", "workload", "append", "track", "canary", "outcome", outcome)...)
	}
	histogram := func(name string, at []string, edges [][2]float64) {
		for _, e := range edges {
			le := strconv.FormatFloat(e[0], 'g', -1, 64)
			add(share(e[1]), name+"_bucket", append(at, "le", le)...)
		}
		add(share(1), name+"_bucket", append(at, "le", "+Inf")...)
		add(share(1), name+"_count", at...)
		add(share(0.2), name+"_sum", at...)
	}
	histogram("remembrancer_soak_operation_duration_seconds", append(soak, "treaty_id", "AURORA-AKASH-001"), [][2]float64{
		{0.1, 0.3}, {0.25, 0.8}, {0.3, 0.9 - slow}, {0.35, 0.97 - slow}, {0.4, 0.98}, {0.5, 0.995}, {1, 0.999}, {5, 1},
	})
	histogram("remembrancer_policy_evaluation_duration_seconds", append(node, "policy", "default", "decision", "allow"), [][2]float64{
		{0.001, 0.5}, {0.005, 0.9}, {0.01, 0.97}, {0.02, 0.992}, {0.025, 0.996}, {0.05, 0.999}, {0.1, 1}, {1, 1},
	})
	audited := func(f float64) func(float64) float64 {
		return func(n float64) float64 { return math.Floor(math.Floor(n*0.9) * f) }
	}
	add(audited(0.98), "remembrancer_audit_entries_total", append(soak, "result", "verified")...)
	add(audited(0.02), "remembrancer_audit_entries_total", append(soak, "result", "missing")...)
	add(func(float64) float64 { return 0 }, "remembrancer_audit_entries_total", append(soak, "result", "invalid")...)
	return all
}

// server is Prometheus without a network: its database and its engine.
type server struct {
	db     *tsdb.DB
	engine *promql.Engine
}

func serve(t testing.TB, h history) *server {
	t.Helper()
	o := tsdb.DefaultOptions()
	o.WALSegmentSize = -1 // nothing here outlives the test
	o.RetentionDuration = int64(30 * 24 * time.Hour / time.Millisecond)
	db, err := tsdb.Open(t.TempDir(), nil, nil, o, nil)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, db.Close()) })
	db.DisableCompactions()
	all := service(h.slow)
	refs := make([]storage.SeriesRef, len(all))
	app := db.Appender(t.Context())
	events, before := 0.0, 0.0
	scrapes := 0
	for since := -interval; since <= window+2*interval; since += interval {
		// Days have more traffic than nights, and nights some.
		events += 40 + 25*math.Sin(2*math.Pi*since.Hours()/24)
		if h.reset > 0 && since == h.reset {
			before = events
		}
		if h.seen != nil && !h.seen(since) {
			continue
		}
		at := epoch.Add(since).UnixMilli()
		for i, s := range all {
			n := events - before
			if s.labels.Get("__name__") == "remembrancer_ledger_tree_size" {
				n = events // a ledger does not begin anew
			}
			refs[i], err = app.Append(refs[i], s.labels, at, s.value(n))
			assert.NilError(t, err)
		}
		if scrapes++; scrapes%1000 == 0 {
			assert.NilError(t, app.Commit())
			app = db.Appender(t.Context())
		}
	}
	assert.NilError(t, app.Commit())
	return &server{db: db, engine: promql.NewEngine(promql.EngineOpts{
		MaxSamples: 50_000_000, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true, Parser: queries,
	})}
}

var queries = parser.NewParser(parser.Options{})

// ask answers a query as the API does.
func (s *server) ask(ctx context.Context, q slo.Query) slo.Response {
	r := slo.Response{Query: q, Status: 200, ContentType: "application/json"}
	body, err := s.answer(ctx, q)
	if err != nil {
		r.Status, body = 400, object{"status": "error", "errorType": "bad_data", "error": err.Error()}
	}
	if r.Body, err = json.Marshal(body); err != nil {
		r.Status, r.Error = 0, err.Error()
	}
	return r
}

type object = map[string]any

func (s *server) answer(ctx context.Context, q slo.Query) (object, error) {
	form, err := url.ParseQuery(q.Form)
	if err != nil {
		return nil, err
	}
	at := func(key string) time.Time {
		n, bad := strconv.ParseInt(form.Get(key), 10, 64)
		if bad != nil {
			err = bad
		}
		return time.Unix(n, 0)
	}
	var query promql.Query
	switch q.Path {
	case "api/v1/status/buildinfo":
		return object{"status": "success", "data": object{"version": "3.13.5", "revision": "embedded", "goVersion": "go"}}, nil
	case "api/v1/status/runtimeinfo":
		return object{"status": "success", "data": object{"startTime": epoch.Add(-time.Hour), "storageRetention": "30d"}}, nil
	case "api/v1/query":
		now := clock
		if form.Has("time") {
			now = at("time")
		}
		query, err = s.engine.NewInstantQuery(ctx, s.db, nil, form.Get("query"), now)
	case "api/v1/query_range":
		start, end, step := at("start"), at("end"), at("step")
		if err == nil {
			query, err = s.engine.NewRangeQuery(ctx, s.db, nil, form.Get("query"), start, end, time.Duration(step.Unix())*time.Second)
		}
	default:
		err = fmt.Errorf("no such path: %s", q.Path)
	}
	if err != nil {
		return nil, err
	}
	defer query.Close()
	result := query.Exec(ctx)
	if result.Err != nil {
		return nil, result.Err
	}
	warnings, infos := result.Warnings.AsStrings(form.Get("query"), 10, 10)
	data := object{"resultType": result.Value.Type()}
	pair := func(t int64, v float64) []any {
		return []any{float64(t) / 1000, strconv.FormatFloat(v, 'f', -1, 64)}
	}
	list := []object{}
	switch v := result.Value.(type) {
	case promql.Scalar:
		data["result"] = pair(v.T, v.V)
	case promql.Vector:
		for _, e := range v {
			list = append(list, object{"metric": e.Metric.Map(), "value": pair(e.T, e.F)})
		}
		data["result"] = list
	case promql.Matrix:
		for _, e := range v {
			values := [][]any{}
			for _, p := range e.Floats {
				values = append(values, pair(p.T, p.F))
			}
			list = append(list, object{"metric": e.Metric.Map(), "values": values})
		}
		data["result"] = list
	default:
		return nil, fmt.Errorf("a result of type %s", result.Value.Type())
	}
	return object{"status": "success", "data": data, "warnings": warnings, "infos": infos}, nil
}
