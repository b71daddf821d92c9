package node_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/node"
)

func series(t testing.TB, url, token string) map[string]string {
	t.Helper()
	status, text, h := ask(t, "GET", url+"/metrics", token, "")
	assert.Equal(t, status, 200)
	assert.Assert(t, strings.HasPrefix(h.Get("Content-Type"), "text/plain"))
	all := map[string]string{}
	for _, l := range strings.Split(text, "\n") {
		if i := strings.LastIndexByte(l, ' '); i > 0 && !strings.HasPrefix(l, "#") {
			all[l[:i]] = l[i+1:]
		}
	}
	return all
}

// The names are what dashboards and alerts hang on: they change on purpose only.
func TestEverySeriesIsThereFromTheStart(t *testing.T) {
	store, other := newStore(t, "local/a"), newStore(t, "local/b")
	befriend(t, store, other, "")
	o := everything(t)
	o.Store, o.Version = store, "v1"
	all := series(t, start(t, o), secretOf("read"))
	var names []string
	buckets := regexp.MustCompile(`^(go|process|promhttp)_|_bucket\{`)
	for name, value := range all {
		if buckets.MatchString(name) || strings.HasPrefix(name, "remembrancer_build_info") {
			continue
		}
		names = append(names, name)
		if strings.Contains(name, "_total{") {
			assert.Equal(t, value, "0", name)
		}
	}
	slices.Sort(names)
	golden.Assert(t, strings.Join(names, "\n")+"\n", "metrics.golden")
	for _, name := range []string{"go_goroutines", "process_start_time_seconds"} {
		assert.Assert(t, all[name] != "", name)
	}
	for name := range allTools {
		assert.Assert(t, all[`remembrancer_requests_total{code="forbidden",tool="`+name+`"}`] == "0", name)
		assert.Assert(t, all[`remembrancer_request_seconds_bucket{tool="`+name+`",le="+Inf"}`] == "0", name)
	}
}

func TestMetricsCountWhatHappened(t *testing.T) {
	o := everything(t)
	o.Store = newStore(t, "local/a")
	s := newServer(t, o)
	web := serveHandler(t, s)
	c := client(t, web, secretOf("record"))
	assert.NilError(t, c.Call(t.Context(), "record_decision", anyMap{"title": "t", "body": "b"}, nil))
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "record_decision", anyMap{"title": "t"}, nil)), "bad_request")
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "record_decision", anyMap{"title": "", "body": "b"}, nil)), "bad_request")
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "health", nil, nil)), "forbidden")
	assert.Assert(t, c.Call(t.Context(), "no_such_tool", nil, nil) != nil)
	_, _, _ = ask(t, "GET", web+"/checkpoint", secretOf("read"), "")
	_, _, _ = ask(t, "GET", web+"/tile/0/000", secretOf("read"), "")
	_, err := o.Store.Add(t.Context(), "nobody", []merge.Item{{Line: "junk"}, {Line: "more junk"}})
	assert.NilError(t, err)
	s.Synced("local/b", node.SyncRefused)

	all := series(t, web, secretOf("read"))
	for name, want := range map[string]string{
		`remembrancer_requests_total{code="ok",tool="record_decision"}`:          "1",
		`remembrancer_requests_total{code="bad_request",tool="record_decision"}`: "2",
		`remembrancer_requests_total{code="forbidden",tool="health"}`:            "1",
		`remembrancer_requests_total{code="ok",tool="health"}`:                   "0",
		`remembrancer_requests_total{code="ok",tool="checkpoint"}`:               "1",
		`remembrancer_requests_total{code="bad_request",tool="tile"}`:            "1",
		`remembrancer_request_seconds_count{tool="record_decision"}`:             "3",
		`remembrancer_receipts_total{how="recorded"}`:                            "1",
		`remembrancer_receipts_total{how="pushed"}`:                              "0",
		`remembrancer_set_receipts`:                                              "1",
		`remembrancer_log_entries`:                                               "1",
		`remembrancer_ready`:                                                     "1",
		`remembrancer_quarantined{reason="malformed"}`:                           "2",
		`remembrancer_quarantined{reason="revoked"}`:                             "0",
		`remembrancer_syncs_total{outcome="refused",peer="local/b"}`:             "1",
		`remembrancer_syncs_total{outcome="merged",peer="local/b"}`:              "0",
	} {
		assert.Equal(t, all[name], want, name)
	}
	assert.Assert(t, all[`remembrancer_sync_last_timestamp_seconds{outcome="refused",peer="local/b"}`] != "0")
	for name := range all {
		assert.Assert(t, !strings.Contains(name, "no_such_tool"), name)
	}
}
