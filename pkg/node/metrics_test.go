package node_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
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
		if strings.Contains(name, "_total") || strings.Contains(name, "_count{") {
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
		`remembrancer_ledger_tree_size`:                                          "1",
		`remembrancer_ledger_appends_total`:                                      "1",
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

func TestTheBuildIsNamed(t *testing.T) {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	label := func(o node.Options) string {
		for name := range series(t, start(t, o), "") {
			if strings.HasPrefix(name, "remembrancer_build_info") {
				return name
			}
		}
		return ""
	}
	assert.Equal(t, label(node.Options{Version: "v1", Revision: commit, Track: "canary"}),
		`remembrancer_build_info{git_sha="`+commit+`",goversion="`+runtime.Version()+`",track="canary",version="v1"}`)
	assert.Equal(t, label(node.Options{}), `remembrancer_build_info{git_sha="",goversion="`+runtime.Version()+`",track="stable",version=""}`)
	for _, o := range []node.Options{{Revision: "v1.2.3"}, {Revision: commit[:12]}, {Revision: strings.ToUpper(commit)}, {Track: "Canary 2"}} {
		o.Store = newStore(t, "local/a")
		_, err := node.New(o)
		assert.ErrorContains(t, err, "want a")
	}
}

// A program that begins with a log counts what it adds, not what it found.
func TestAppendsAreThoseOfThisProcess(t *testing.T) {
	store := newStore(t, "local/a")
	for i := range 3 {
		record(t, store, receipt.Deploy, fmt.Sprint("old-", i), anyMap{"component": "app"})
	}
	url := start(t, node.Options{Store: store})
	all := series(t, url, "")
	assert.Equal(t, all["remembrancer_ledger_tree_size"], "3")
	assert.Equal(t, all["remembrancer_ledger_appends_total"], "0")
	record(t, store, receipt.Deploy, "new", anyMap{"component": "app"})
	all = series(t, url, "")
	assert.Equal(t, all["remembrancer_ledger_tree_size"], "4")
	assert.Equal(t, all["remembrancer_ledger_appends_total"], "1")
}

// decisions are the counts of the policy histogram that are not zero.
func decisions(t testing.TB, url string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for name, value := range series(t, url, secretOf("read")) {
		if labels, ok := strings.CutPrefix(name, "remembrancer_policy_evaluation_duration_seconds_count"); ok && value != "0" {
			found[labels] = value
		}
	}
	return found
}

func TestEachDecisionWhatMayEnterIsMeasured(t *testing.T) {
	o := everything(t)
	o.Store = newStore(t, "local/a")
	url := start(t, o)
	assert.DeepEqual(t, decisions(t, url), map[string]string{})
	try := func(scope, tool string, args any) string {
		return codeOf(t, client(t, url, secretOf(scope)).Call(t.Context(), tool, args, nil))
	}
	assert.Equal(t, try("record", "record_decision", anyMap{"title": "t", "body": "b"}), "")
	assert.Equal(t, try("record", "record_decision", anyMap{"title": "", "body": "b"}), "bad_request")
	assert.Equal(t, try("record", "record_decision", anyMap{"title": "t"}), "bad_request") // the library's
	assert.Equal(t, try("read", "record_decision", anyMap{"title": "t", "body": "b"}), "forbidden")
	assert.Equal(t, try("sign", "sign_artifact", anyMap{"artifact_path": "dist/app.tar.gz"}), "")
	assert.Equal(t, try("sign", "sign_artifact", anyMap{"artifact_path": "../app.tar.gz"}), "bad_request")
	assert.Equal(t, try("federate", "fed_push", federate.PushIn{Items: []merge.Item{}}), "unknown_session")
	assert.Equal(t, try("read", "search_memories", anyMap{"query": "x"}), "") // takes nothing in
	status, _, _ := ask(t, "POST", url+"/add-checkpoint", secretOf("federate"), "old 0\n\njunk\n")
	assert.Equal(t, status, 400)
	status, _, _ = ask(t, "POST", url+"/add-checkpoint", secretOf("read"), "old 0\n\njunk\n")
	assert.Equal(t, status, 403)
	assert.DeepEqual(t, decisions(t, url), map[string]string{
		`{decision="allow",policy="record_decision"}`: "1",
		`{decision="deny",policy="record_decision"}`:  "3",
		`{decision="allow",policy="sign_artifact"}`:   "1",
		`{decision="deny",policy="sign_artifact"}`:    "1",
		`{decision="deny",policy="fed_push"}`:         "1",
		`{decision="deny",policy="add-checkpoint"}`:   "2",
	})
	all := series(t, url, secretOf("read"))
	assert.Equal(t, all[`remembrancer_requests_total{code="forbidden",tool="add-checkpoint"}`], "1")
	var edges []string
	for name := range all {
		if e, ok := strings.CutPrefix(name, `remembrancer_policy_evaluation_duration_seconds_bucket{decision="allow",policy="fed_push",le="`); ok {
			edges = append(edges, strings.TrimSuffix(e, `"}`))
		}
	}
	slices.Sort(edges)
	assert.DeepEqual(t, edges, []string{"+Inf", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.015", "0.02", "0.025", "0.03", "0.05", "0.1", "0.25", "1"})
}

// clock goes when it is told to.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func TestWaitingForAPlaceIsNoDecision(t *testing.T) {
	o := everything(t)
	o.Limits.PerTool = 1
	clock := newClock()
	o.Now = clock.now
	hold, held := make(chan struct{}), make(chan struct{})
	o.Sign = func(context.Context, *os.Root, string, string) (node.Outcome, error) {
		close(held)
		<-hold
		clock.step(time.Hour) // acting on the decision is no decision either
		return node.Outcome{OK: true}, nil
	}
	url := start(t, o)
	c := client(t, url, secretOf("sign"))
	ended := make(chan error, 1)
	go func() {
		ended <- c.Call(t.Context(), "sign_artifact", anyMap{"artifact_path": "dist/app.tar.gz"}, nil)
	}()
	<-held
	other := client(t, url, secretOf("sign"))
	assert.Equal(t, codeOf(t, other.Call(t.Context(), "sign_artifact", anyMap{"artifact_path": "dist/app.tar.gz"}, nil)), "busy")
	close(hold)
	assert.NilError(t, <-ended)
	assert.DeepEqual(t, decisions(t, url), map[string]string{
		`{decision="allow",policy="sign_artifact"}`: "1",
		`{decision="error",policy="sign_artifact"}`: "1",
	})
	assert.Equal(t, series(t, url, secretOf("read"))[`remembrancer_policy_evaluation_duration_seconds_sum{decision="allow",policy="sign_artifact"}`], "0")
}

// A decision that fits no receipt is the caller's mistake: the log is as good as before.
func TestATextThatFitsNoReceiptIsRefusedAndTheNodeStaysReady(t *testing.T) {
	o := everything(t)
	url := start(t, o)
	c := client(t, url, secretOf("record"))
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "record_decision", anyMap{"title": "t", "body": strings.Repeat("\x01", 20_000)}, nil)), "bad_request")
	status, _, _ := ask(t, "GET", url+"/readyz", "", "")
	assert.Equal(t, status, 200)
}

// What a scrape costs must not grow with the log.
func TestAScrapeReadsNothingOfTheLog(t *testing.T) {
	store, dir := newStoreIn(t, "local/a")
	for i := range 3 {
		record(t, store, receipt.Deploy, fmt.Sprint("d-", i), anyMap{"component": "app"})
	}
	url := start(t, node.Options{Store: store})
	before := series(t, url, "")
	entries, err := os.ReadDir(dir)
	assert.NilError(t, err)
	for _, e := range entries {
		assert.NilError(t, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	after := series(t, url, "")
	for _, name := range []string{"remembrancer_ledger_tree_size", "remembrancer_set_receipts", "remembrancer_ready"} {
		assert.Equal(t, after[name], before[name], name)
	}
}
