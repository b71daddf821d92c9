package guard_test

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/forge/forgetest"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/guard"
)

var required = guard.Required{Branch: "main", Checks: []string{"smoke-test", "covenant-guard"}, App: app}

// merge merges the pull request, one minute after noon.
func (w *world) merge() string {
	w.t.Helper()
	c := w.commit("main", map[string]string{"merged": w.t.Name()}, w.Git("rev-parse", "main"), w.Git("rev-parse", "feature"))
	w.pull.MergedCommit, w.pull.MergedBy, w.pull.MergedAt = c, "boss", time.Date(2025, 3, 1, 12, 1, 0, 0, time.UTC)
	return c
}

func TestBypasses(t *testing.T) {
	w := newWorld(t)
	both := func(w *world, conclusion string) {
		w.pulls.Post(guarding, "pull_request_target", "feature", "covenant-guard=success")
		w.pulls.Post(enforce, "pull_request", "feature", "smoke-test="+conclusion)
	}
	late := time.Date(2025, 3, 1, 12, 2, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		want []guard.Missing
		app  int64
		do   func(w *world) string
	}{
		{"green", nil, app, func(w *world) string { both(w, "success"); return w.merge() }},
		{"red", []guard.Missing{{"smoke-test", "failure"}}, app, func(w *world) string { both(w, "failure"); return w.merge() }},
		{"skipped", []guard.Missing{{"smoke-test", "skipped"}}, app, func(w *world) string { both(w, "skipped"); return w.merge() }},
		{"still running", []guard.Missing{{"smoke-test", "missing"}}, app, func(w *world) string { both(w, ""); return w.merge() }},
		{"never run", []guard.Missing{{"smoke-test", "missing"}, {"covenant-guard", "missing"}}, app, func(w *world) string { return w.merge() }},
		{"green only afterwards", []guard.Missing{{"smoke-test", "failure"}}, app, func(w *world) string {
			both(w, "failure")
			commit := w.merge()
			w.pulls.PostCheck("smoke-test", "success", "feature", 900, app, late)
			w.pulls.PostCheck("smoke-test", "success", commit, 901, app, late)
			return commit
		}},
		{"red afterwards", nil, app, func(w *world) string {
			both(w, "success")
			commit := w.merge()
			w.pulls.PostCheck("smoke-test", "failure", commit, 901, app, late)
			return commit
		}},
		{"another App's word", []guard.Missing{{"smoke-test", "missing"}}, app, func(w *world) string {
			w.pulls.Post(guarding, "pull_request_target", "feature", "covenant-guard=success")
			w.pulls.PostCheck("smoke-test", "success", "feature", 900, 99, time.Time{})
			return w.merge()
		}},
		{"one red of two", []guard.Missing{{"smoke-test", "failure"}}, app, func(w *world) string {
			both(w, "failure")
			both(w, "success")
			return w.merge()
		}},
		{"one cancelled of two", nil, app, func(w *world) string {
			both(w, "cancelled")
			both(w, "success")
			both(w, "cancelled")
			return w.merge()
		}},
		{"run again, and green", nil, app, func(w *world) string {
			both(w, "success")
			r := w.pulls.Post(enforce, "pull_request", "feature", "smoke-test=failure")
			w.pulls.PostCheck("smoke-test", "success", "feature", r.Suite, app, time.Time{})
			return w.merge()
		}},
		{"merged by a queue", nil, app, func(w *world) string {
			both(w, "failure")
			commit := w.merge()
			w.pulls.Post(enforce, "merge_group", commit, "smoke-test=success", "covenant-guard=success")
			return commit
		}},
		{"a status alone", []guard.Missing{{"smoke-test", "missing"}, {"covenant-guard", "missing"}}, app, func(w *world) string {
			w.pulls.PostStatus("smoke-test", "success", "feature")
			return w.merge()
		}},
		{"a status where any source counts", []guard.Missing{{"covenant-guard", "error"}}, 0, func(w *world) string {
			w.pulls.PostStatus("smoke-test", "success", "feature")
			w.pulls.PostStatus("covenant-guard", "success", "feature")
			w.pulls.PostStatus("covenant-guard", "error", "feature")
			return w.merge()
		}},
		{"pushed", []guard.Missing{{"smoke-test", "missing"}, {"covenant-guard", "missing"}}, app, func(w *world) string {
			return w.commit("main", map[string]string{"pushed": w.t.Name()})
		}},
		{"merged elsewhere", []guard.Missing{{"smoke-test", "missing"}, {"covenant-guard", "missing"}}, app, func(w *world) string {
			both(w, "success")
			w.pull.Base = "release"
			return w.merge()
		}},
		{"not merged", []guard.Missing{{"smoke-test", "missing"}, {"covenant-guard", "missing"}}, app, func(w *world) string {
			both(w, "success")
			return w.Git("rev-parse", "feature")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.reset(t)
			w.change(map[string]string{"main.go": c.name})
			commit := c.do(w)
			r := required
			r.App = c.app
			got, err := guard.Bypasses(t.Context(), w.repo, []gitrepo.Hash{w.hash(commit)}, r)
			assert.NilError(t, err)
			if c.want == nil {
				assert.Equal(t, len(got), 0)
				return
			}
			want := guard.Bypass{Commit: w.hash(commit), Missing: c.want}
			if w.pull.MergedCommit != "" && w.pull.Base == "main" {
				want.Pull, want.Head, want.MergedBy, want.MergedAt = 1, w.hash("feature"), "boss", w.pull.MergedAt
			}
			assert.DeepEqual(t, got, []guard.Bypass{want})
		})
	}
}

func TestWhereNothingCanBeReadNothingIsKnown(t *testing.T) {
	w := newWorld(t)
	w.change(map[string]string{"main.go": "x\n"})
	commits := []gitrepo.Hash{w.hash(w.merge())}
	for _, may := range [][]string{{"contents:read"}, {"contents:read", "pull_requests:read"}, {"checks:read"}} {
		w.fake.AddToken("ghs_few", forgetest.App, may...)
		_, err := guard.Bypasses(t.Context(), w.as("ghs_few"), commits, required)
		assert.ErrorContains(t, err, "Resource not accessible by integration")
	}
	_, err := guard.Bypasses(t.Context(), w.repo, []gitrepo.Hash{{1}}, required)
	assert.ErrorContains(t, err, "422")
}
