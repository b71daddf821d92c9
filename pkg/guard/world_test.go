package guard_test

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/forge/forgetest"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo/gitservertest"
	"github.com/vaultmesh/remembrancer/pkg/guard"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

const (
	repository = "acme/app"
	enforce    = ".github/workflows/covenant-enforce.yml"
	guarding   = ".github/workflows/covenant-guard.yml"
	app        = 15368
)

var layout = covenant.DefaultLayout()

// Contents that commit takes for something else than a file's.
const (
	gone = "\x00gone"
	link = "\x00link:"
)

// world is a forge with one repository, whose pull request 1 of alice is the
// branch feature.
type world struct {
	*gitservertest.Server
	t      testing.TB
	fake   *forgetest.Fake
	pulls  *forgetest.Pulls
	pull   *forgetest.Pull
	repo   *forge.Repository
	start  string // the first commit of main
	slept  []time.Duration
	during []func() // one a sleep, in order
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{Server: gitservertest.New(t), t: t, fake: forgetest.New(t)}
	r := w.fake.AddRepo(repository)
	r.Private = true // what is public can be read without permission
	w.pulls = w.fake.AddPulls(r, w.Dir())
	w.pull = &forgetest.Pull{Number: 1, Author: "alice", Head: "feature", Base: "main"}
	w.pulls.Open = []*forgetest.Pull{w.pull}
	w.pulls.Access = map[string]string{"alice": "write", "olga": "write", "mallory": "write", "reader": "read", "boss": "admin"}
	w.fake.AddToken("ghs_read", forgetest.App, "contents:read", "pull_requests:read", "actions:read", "checks:read", "statuses:read")
	w.repo = w.as("ghs_read")
	w.start = w.commit("main", map[string]string{
		".gitattributes":               "*.png binary\n" + covenant.Attributes(layout) + "\n",
		"docs/REMEMBRANCER.md":         "# The Remembrancer\n\nMerkle Root: 00\n",
		"ops/ledger/policy":            "policy\n",
		"ops/certs/olga.asc":           "key\n",
		"ops/receipts/adr/one.receipt": w.receipt(receipt.ADR, "one"),
		"ops/receipts/adr/two.receipt": w.receipt(receipt.ADR, "two"),
		"remembrancer.yaml":            "version: 1\n",
		"SMOKE_TEST.sh":                "true\n",
		enforce:                        "on: pull_request\n",
		guarding:                       "on: pull_request_target\n",
		".github/CODEOWNERS":           "* @somebody\n/.github/ @olga\n/SMOKE_TEST.sh @olga @acme/gatekeepers\n/ops/ @boss ops@example.com\n",
		"main.go":                      "package main\n",
	})
	w.reset(t)
	return w
}

// reset begins another case in the same repository: what was posted before is of
// other commits.
func (w *world) reset(t testing.TB) {
	t.Helper()
	w.t, w.slept, w.during = t, nil, nil
	*w.pull = forgetest.Pull{Number: 1, Author: "alice", Head: "feature", Base: "main"}
	w.pulls.Reviews = nil
	w.Git("update-ref", "refs/heads/main", w.start)
	w.Git("update-ref", "refs/heads/feature", w.start)
}

// as reads with another token.
func (w *world) as(token string) *forge.Repository {
	w.t.Helper()
	api, err := forge.NewREST(w.fake.URL, token, forge.RESTOptions{Sleep: func(context.Context, time.Duration) error { return nil }})
	assert.NilError(w.t, err)
	repo, err := api.Repository(repository)
	assert.NilError(w.t, err)
	return repo
}

func (w *world) receipt(kind receipt.Kind, name string) string {
	w.t.Helper()
	r, err := receipt.New(receipt.Statement{
		Kind: kind, Issuer: "A1A1A1A1A1A1A1A1A1A1A1A1A1A1A1A1A1A1A1A1", Name: name, Issued: time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC),
		Subjects: []receipt.Subject{{Name: "thing", SHA256: strings.Repeat("00", 32)}},
	})
	assert.NilError(w.t, err)
	return string(r.Bytes())
}

// commit commits changes of files on a branch, on top of its tip or of these
// parents, in one run of git's importer: anything can be committed so.
func (w *world) commit(branch string, files map[string]string, parents ...string) string {
	w.t.Helper()
	if was := w.Git("for-each-ref", "--format=%(objectname)", "refs/heads/"+branch); was != "" && parents == nil {
		parents = []string{was}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "commit refs/heads/%s\nmark :1\ncommitter A <a@example.org> 1740830400 +0000\ndata 8\na change\n", branch)
	for i, p := range parents {
		fmt.Fprintf(&b, "%s %s\n", map[bool]string{true: "from", false: "merge"}[i == 0], p)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content, mode := files[name], "100644"
		if content == gone {
			fmt.Fprintf(&b, "D %s\n", name)
			continue
		}
		if to, ok := strings.CutPrefix(content, link); ok {
			content, mode = to, "120000"
		}
		fmt.Fprintf(&b, "M %s inline %s\ndata %d\n%s\n", mode, name, len(content), content)
	}
	b.WriteString("get-mark :1\n")
	cmd := exec.Command("git", "fast-import", "--quiet", "--force")
	cmd.Dir, cmd.Env, cmd.Stdin = w.Dir(), w.Env(), strings.NewReader(b.String())
	out, err := cmd.CombinedOutput()
	assert.NilError(w.t, err, "%s", out)
	return strings.TrimSpace(string(out))
}

// change commits to the pull request's branch.
func (w *world) change(files map[string]string) { w.commit("feature", files) }

func (w *world) hash(rev string) gitrepo.Hash {
	w.t.Helper()
	h, err := gitrepo.ParseHash(w.Git("rev-parse", rev+"^{commit}"))
	assert.NilError(w.t, err)
	return h
}

func (w *world) sleep(_ context.Context, d time.Duration) error {
	w.slept = append(w.slept, d)
	if len(w.during) > 0 {
		w.during[0]()
		w.during = w.during[1:]
	}
	return nil
}

// event is that of the pull request's head.
func (w *world) event() guard.Event {
	return guard.Event{Name: "pull_request_target", Pull: 1, Head: w.hash("feature")}
}

func (w *world) open() (*guard.Change, error) {
	return guard.Open(w.t.Context(), w.repo, w.event(), w.sleep)
}

func options() guard.Options {
	return guard.Options{
		Layout: layout, Config: "remembrancer.yaml", Owned: []string{".github/**", "ops/**", "SMOKE_TEST.sh"}, Workflow: enforce,
		Checks: []string{"smoke-test", "merkle-integrity", "covenant-guard"}, Self: "covenant-guard", App: app,
	}
}

// judge opens and judges the pull request.
func (w *world) judge(change ...func(*guard.Options)) []judge.Check {
	w.t.Helper()
	c, err := w.open()
	assert.NilError(w.t, err)
	o := options()
	for _, f := range change {
		f(&o)
	}
	return c.Judge(w.t.Context(), o)
}

// outcomes are the checks that are no passes, as "run: unclaimed".
func outcomes(checks []judge.Check) string {
	var all []string
	for _, c := range checks {
		if c.Status != judge.Pass {
			all = append(all, strings.TrimPrefix(c.ID, "guard/")+": "+c.Status.String())
		}
	}
	return strings.Join(all, ", ")
}

// words are all that a check says.
func words(checks []judge.Check, id string) string {
	for _, c := range checks {
		if c.ID == id {
			s := c.Detail
			for _, f := range c.Findings {
				s += "\n" + f.Path + ": " + f.Message
				if f.Warning {
					s += " (warning)"
				}
			}
			return s
		}
	}
	return "no check " + id
}

// review adds a review of the pull request.
func (w *world) review(login, state, commit string) {
	w.pulls.Reviews = append(w.pulls.Reviews, forgetest.Review{Pull: 1, Login: login, State: state, Commit: w.Git("rev-parse", commit)})
}

// ran posts a run of the enforcing workflow that passed, and that of the guard.
func (w *world) ran() *forgetest.Run {
	w.pulls.Post(guarding, "pull_request_target", "feature", "covenant-guard=")
	return w.pulls.Post(enforce, "pull_request", "feature", "smoke-test=success", "merkle-integrity=success")
}
