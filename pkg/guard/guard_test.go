package guard_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/vaultmesh/remembrancer/pkg/forge/forgetest"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/guard"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

func TestAnOrdinaryChangePasses(t *testing.T) {
	w := newWorld(t)
	w.change(map[string]string{"main.go": "package main // changed\n", "ops/receipts/adr/three.receipt": w.receipt(receipt.ADR, "three")})
	w.ran()
	checks := w.judge()
	assert.Equal(t, outcomes(checks), "")
	var ids []string
	for _, c := range checks {
		ids = append(ids, c.ID)
		assert.Assert(t, c.Claim != "" && c.Detail != "", c.ID)
	}
	assert.DeepEqual(t, ids, []string{"guard/ledger", "guard/receipts", "guard/names", "guard/owned", "guard/kinds", "guard/sources", "guard/run"})
	assert.Assert(t, len(forgetest.Writes(w.fake.Calls())) == 0)
}

// Each change of files that a reviewer could overlook, merged by git itself.
func TestChangesThatAreFoundWanting(t *testing.T) {
	w := newWorld(t)
	w.ran()
	for _, c := range []struct {
		name, want, words string
		files             map[string]string
	}{
		{"the workflow edited", "owned: fail, sources: fail, run: fail", "decides the gates", map[string]string{enforce: "on: never\n"}},
		{"a workflow added", "owned: fail", ".github/workflows/mine.yml", map[string]string{".github/workflows/mine.yml": "on: pull_request\n"}},
		{"the smoke test edited", "owned: fail", "SMOKE_TEST.sh", map[string]string{"SMOKE_TEST.sh": "exit 0\n"}},
		{"the configuration edited, though no pattern names it", "owned: fail", "remembrancer.yaml", map[string]string{"remembrancer.yaml": "version: 1 #\n"}},
		{"owners given elsewhere, though no pattern names it", "owned: fail", "CODEOWNERS", map[string]string{"CODEOWNERS": "* @mallory\n"}},
		{"the smoke test a link", "owned: fail", "SMOKE_TEST.sh", map[string]string{"SMOKE_TEST.sh": link + "main.go"}},
		{"the ledger edited", "ledger: fail, owned: fail", "ops/ledger/policy", map[string]string{"ops/ledger/policy": "mine\n"}},
		{"the root line edited", "ledger: fail", "root line", map[string]string{"docs/REMEMBRANCER.md": "Merkle Root: 11\n"}},
		{"a badge written", "ledger: fail, owned: fail", "ops/status/badge.json", map[string]string{"ops/status/badge.json": "26/26"}},
		{"a trust anchor added", "ledger: fail, owned: fail", "ops/certs/mallory.asc", map[string]string{"ops/certs/mallory.asc": "key"}},
		{"a receipt changed", "receipts: fail", "one.receipt", map[string]string{"ops/receipts/adr/one.receipt": "{}"}},
		{"nested attributes", "names: fail", "ops/receipts/.gitattributes", map[string]string{"ops/receipts/.gitattributes": "* text\n"}},
		{"attributes after the last", "names: fail", "the last rule", map[string]string{".gitattributes": "ops/** text\n"}},
		{"case-fold twins", "names: fail", "one name", map[string]string{"Main.go": ""}},
		{"a reserved kind", "kinds: fail", "key-rotation", map[string]string{"ops/receipts/key-rotation/x.receipt": w.receipt(receipt.KeyRotation, "x")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.reset(t)
			w.change(c.files)
			// Its own run: what was posted at one head says nothing of another.
			w.ran()
			checks := w.judge()
			got := outcomes(checks)
			if c.name == "nested attributes" {
				// It is no receipt either, and lies below ops.
				assert.Equal(t, got, "receipts: fail, names: fail")
			} else {
				assert.Equal(t, got, c.want)
			}
			first, _, _ := strings.Cut(c.want, ":")
			assert.Assert(t, is.Contains(words(checks, "guard/"+first), c.words))
		})
	}
}

// Where a folder was renamed on one side, git moves what the other side adds to
// it: a receipt lands where nobody put it.
func TestAFolderRenameThatDragsReceiptsIsFoundInTheMergeResult(t *testing.T) {
	w := newWorld(t)
	w.change(map[string]string{
		"old/one.receipt": w.receipt(receipt.ADR, "one"), "old/two.receipt": w.receipt(receipt.ADR, "two"),
		"ops/receipts/adr/one.receipt": gone, "ops/receipts/adr/two.receipt": gone,
	})
	w.commit("main", map[string]string{"ops/receipts/adr/late.receipt": w.receipt(receipt.ADR, "late")})
	c, err := w.open()
	assert.NilError(t, err)
	assert.Assert(t, c.MergeTree.ID("old/late.receipt") != "", "git did not move it, so this test shows nothing")
	checks := c.Judge(t.Context(), options())
	assert.Assert(t, is.Contains(outcomes(checks), "receipts: fail"))
	assert.Assert(t, is.Contains(words(checks, "guard/receipts"), "late.receipt was removed or renamed"))
}

func TestApproval(t *testing.T) {
	w := newWorld(t)
	w.pulls.Teams["acme/gatekeepers"] = []string{"mallory"}
	older := w.commit("feature", map[string]string{"SMOKE_TEST.sh": "first\n"})
	w.fake.AddToken("ghs_members", forgetest.App, "contents:read", "pull_requests:read", "actions:read", "checks:read", "statuses:read", "members:read")
	members := func(w *world) { w.repo = w.as("ghs_members") }
	for _, c := range []struct {
		name, want, words string
		files             map[string]string
		reviews           []string // "login STATE" at the head, "login STATE older"
		do                func(w *world)
		options           func(*guard.Options)
	}{
		{name: "nobody", want: "owned: fail", words: "0 of 1 approvals"},
		{name: "an owner", reviews: []string{"olga APPROVED"}, words: "approved at"},
		{name: "an owner in other letters", reviews: []string{"Olga APPROVED"}, do: func(w *world) { w.pulls.Access["Olga"] = "write" }},
		{name: "an owner, then a remark", reviews: []string{"olga APPROVED", "olga COMMENTED"}},
		{name: "an owner at an older head", want: "owned: fail", words: "olga approved another head", reviews: []string{"olga APPROVED older"}},
		{name: "an owner at both", reviews: []string{"olga APPROVED older", "olga APPROVED"}},
		{name: "an owner at the head, then at an older one", want: "owned: fail", reviews: []string{"olga APPROVED", "olga APPROVED older"}},
		{name: "an owner who changed her mind", want: "owned: fail", reviews: []string{"olga APPROVED", "olga CHANGES_REQUESTED"}},
		{name: "a dismissed approval", want: "owned: fail", reviews: []string{"olga DISMISSED"}},
		{name: "a dismissed approval after a standing one", want: "owned: fail", reviews: []string{"olga APPROVED", "olga DISMISSED"}},
		{name: "a review that was not sent", want: "owned: fail", reviews: []string{"olga PENDING"}},
		{name: "the author", want: "owned: fail", words: "author's own", reviews: []string{"olga APPROVED"}, do: func(w *world) { w.pull.Author = "olga" }},
		{name: "an owner without access", want: "owned: fail", words: "not as an owner who may write", reviews: []string{"olga APPROVED"}, do: func(w *world) { w.pulls.Access["olga"] = "read" }},
		{name: "somebody else", want: "owned: fail", reviews: []string{"boss APPROVED"}, do: members},
		{name: "an account that was deleted", want: "owned: fail", reviews: []string{" APPROVED"}},
		{name: "a member of the team", reviews: []string{"mallory APPROVED"}, do: members},
		{name: "a team that the token may not read", want: "owned: error", words: "may read the organisation's members", reviews: []string{"mallory APPROVED"}},
		{name: "a team that is not there", want: "owned: error", words: "@acme/gatekeepers", reviews: []string{"mallory APPROVED"}, do: func(w *world) { members(w); w.pulls.Teams = nil }},
		{name: "a team that cannot be read, but an owner too", reviews: []string{"mallory APPROVED", "olga APPROVED"}},
		{
			name: "a path that nobody approved, and one that is not known", want: "owned: fail", reviews: []string{"mallory APPROVED"},
			files: map[string]string{enforce: "on: x\n"},
		},
		{name: "two owners wanted, one there", want: "owned: fail", words: "1 of 2", reviews: []string{"olga APPROVED"}, do: members, options: func(o *guard.Options) { o.Approvals = 2 }},
		{name: "two owners wanted", reviews: []string{"olga APPROVED", "mallory APPROVED"}, do: members, options: func(o *guard.Options) { o.Approvals = 2 }},
		{
			name: "the change's own CODEOWNERS", want: "owned: fail", words: "owners @olga", reviews: []string{"mallory APPROVED"}, do: members,
			files: map[string]string{".github/CODEOWNERS": "* @mallory\n"},
		},
		{
			name: "one path of two", want: "owned: fail", words: "ops/other", reviews: []string{"olga APPROVED"},
			files: map[string]string{"ops/other": "x\n"},
		},
		{name: "a pattern that is none", want: "owned: error", words: "not a pattern", options: func(o *guard.Options) { o.Owned = []string{"[", "SMOKE_TEST.sh"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.reset(t)
			w.Git("update-ref", "refs/heads/feature", older)
			files := map[string]string{"SMOKE_TEST.sh": "second\n"}
			for k, v := range c.files {
				files[k] = v
			}
			w.change(files)
			w.repo = w.as("ghs_read")
			w.pulls.Access = map[string]string{"olga": "write", "mallory": "write", "boss": "admin"}
			w.pulls.Teams = map[string][]string{"acme/gatekeepers": {"mallory"}}
			for _, r := range c.reviews {
				f := strings.Split(r, " ")
				at := "feature"
				if len(f) > 2 {
					at = older
				}
				w.review(f[0], f[1], at)
			}
			if c.do != nil {
				c.do(w)
			}
			checks := w.judge(func(o *guard.Options) {
				if c.options != nil {
					c.options(o)
				}
			})
			got := strings.TrimSuffix(strings.TrimSuffix(outcomes(checks), "run: unclaimed"), ", ")
			assert.Equal(t, got, c.want, words(checks, "guard/owned"))
			assert.Assert(t, is.Contains(words(checks, "guard/owned"), c.words))
		})
	}
}

func TestWithoutOwnersNothingCanBeApproved(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ name, owners, fix string }{
		{"no file", gone, "write .github/CODEOWNERS"},
		{"no rule", "/.github/ @olga\n", "/SMOKE_TEST.sh @OWNER"},
		{"an empty rule", "* @olga\nSMOKE_TEST.sh\n", "/SMOKE_TEST.sh @OWNER"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.reset(t)
			w.Git("update-ref", "refs/heads/feature", w.commit("main", map[string]string{".github/CODEOWNERS": c.owners}))
			w.change(map[string]string{"SMOKE_TEST.sh": "x\n"})
			w.review("olga", "APPROVED", "feature")
			checks := w.judge()
			assert.Equal(t, outcomes(checks), "owned: fail, run: unclaimed")
			assert.Assert(t, is.Contains(checks[3].Findings[0].Fix, c.fix))
		})
	}
}

// What was posted at the head, by whom, and what the run said.
func TestWhatWasPosted(t *testing.T) {
	w := newWorld(t)
	guards := func(w *world) { w.pulls.Post(guarding, "pull_request_target", "feature", "covenant-guard=") }
	post := func(jobs ...string) func(*world) {
		return func(w *world) { guards(w); w.pulls.Post(enforce, "pull_request", "feature", jobs...) }
	}
	for _, c := range []struct {
		name, want, words string
		do                func(w *world)
	}{
		{"nothing yet", "run: unclaimed", "has ended", func(*world) {}},
		{"all jobs succeeded", "", "", func(w *world) { w.ran() }},
		{"a job that has not ended", "run: unclaimed", "has ended", post("smoke-test=", "merkle-integrity=success")},
		{"a red job", "run: fail", "smoke-test ended with failure", post("smoke-test=failure", "merkle-integrity=success")},
		{"a skipped job", "run: fail", "smoke-test is skipped: it judged nothing", post("smoke-test=skipped", "merkle-integrity=success")},
		{"a neutral job", "run: fail", "smoke-test is neutral", post("smoke-test=neutral", "merkle-integrity=success")},
		{"a job that is not there", "run: fail", "no job of it is merkle-integrity", post("smoke-test=success")},
		{"a run that waits for a maintainer", "run: unclaimed", "has ended", func(w *world) {
			guards(w)
			w.pulls.Post(enforce, "pull_request", "feature").Conclusion = "action_required"
		}},
		{"run again after a failure", "", "", func(w *world) {
			guards(w)
			r := w.pulls.Post(enforce, "pull_request", "feature", "smoke-test=failure", "merkle-integrity=success")
			r.Jobs = append(r.Jobs, w.pulls.PostCheck("smoke-test", "success", "feature", r.Suite, app, time.Time{}))
		}},
		{"reopened after a failure", "", "", func(w *world) {
			post("smoke-test=failure", "merkle-integrity=success")(w)
			w.ran()
		}},
		{"reopened, and now red", "run: fail", "smoke-test ended", func(w *world) {
			w.ran()
			post("smoke-test=failure", "merkle-integrity=success")(w)
		}},
		{"a push of the same head, red", "run: fail", "smoke-test ended", func(w *world) {
			w.pulls.Post(enforce, "push", "feature", "smoke-test=failure", "merkle-integrity=success")
			w.ran()
		}},
		{"only a push", "run: unclaimed", "has ended", func(w *world) {
			w.pulls.Post(enforce, "push", "feature", "smoke-test=success", "merkle-integrity=success")
		}},
		{"a forged status with no check", "sources: fail, run: unclaimed", "posted as a status, success, as anybody can who may push; the check itself is missing", func(w *world) {
			w.pulls.PostStatus("smoke-test", "success", "feature")
		}},
		{"a forged status over a red check", "sources: fail, run: fail", "the check itself is failure", func(w *world) {
			post("smoke-test=failure", "merkle-integrity=success")(w)
			w.pulls.PostStatus("smoke-test", "success", "feature")
		}},
		{"a forged status while the check runs", "sources: fail, run: unclaimed", "the check itself is pending", func(w *world) {
			post("smoke-test=", "merkle-integrity=success")(w)
			w.pulls.PostStatus("smoke-test", "success", "feature")
		}},
		{"a forged status of the guard", "sources: fail", "covenant-guard was also posted as a status", func(w *world) {
			w.ran()
			w.pulls.PostStatus("covenant-guard", "success", "feature")
		}},
		{"a red status over a green check", "sources: fail", "posted as a status, failure", func(w *world) {
			w.ran()
			w.pulls.PostStatus("smoke-test", "failure", "feature")
		}},
		{"a status that says the same", "", "posted as a status, success, as anybody can who may push; the check itself is success (warning)", func(w *world) {
			w.ran()
			w.pulls.PostStatus("smoke-test", "failure", "feature")
			w.pulls.PostStatus("smoke-test", "success", "feature")
		}},
		{"another App", "sources: fail", "posted by App 99, want App 15368", func(w *world) {
			w.ran()
			w.pulls.PostCheck("smoke-test", "success", "feature", 4242, 99, time.Time{})
		}},
		{"posted through the API into the run's suite", "sources: fail", "through the API", func(w *world) {
			guards(w)
			r := w.pulls.Post(enforce, "pull_request", "feature", "smoke-test=failure", "merkle-integrity=success")
			w.pulls.PostCheck("smoke-test", "success", "feature", r.Suite, app, time.Time{})
		}},
		{"posted through the API into a suite of no run", "sources: fail", "through the API", func(w *world) {
			w.ran()
			w.pulls.PostCheck("smoke-test", "success", "feature", 4242, app, time.Time{})
		}},
		{"another workflow of the base", "sources: fail", "posted by 2 workflows", func(w *world) {
			w.ran()
			w.pulls.Post(guarding, "pull_request", "feature", "smoke-test=success")
		}},
		{"a workflow of the change", "sources: fail", "which the base does not have", func(w *world) {
			w.ran()
			w.pulls.Post(".github/workflows/forged.yml", "push", "feature", "smoke-test=success")
		}},
		{"the guard's name by a workflow of the change", "sources: fail", "which the base does not have", func(w *world) {
			w.ran()
			w.pulls.Post(".github/workflows/forged.yml", "pull_request", "feature", "covenant-guard=success")
		}},
		{"a run that is not listed by its head", "", "", func(w *world) {
			w.pulls.Post(guarding, "pull_request_target", "feature", "covenant-guard=").Unlisted = true
			w.pulls.Post(enforce, "pull_request", "feature", "smoke-test=success", "merkle-integrity=success")
		}},
		{"runs that cannot be read", "sources: error, run: error", "actions=read", func(w *world) {
			w.fake.AddToken("ghs_no_actions", forgetest.App, "contents:read", "pull_requests:read", "checks:read", "statuses:read")
			w.repo = w.as("ghs_no_actions")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.reset(t)
			w.change(map[string]string{"main.go": c.name})
			w.repo = w.as("ghs_read")
			c.do(w)
			checks := w.judge()
			assert.Equal(t, outcomes(checks), c.want, words(checks, "guard/sources")+"\n"+words(checks, "guard/run"))
			assert.Assert(t, is.Contains(words(checks, "guard/sources")+"\n"+words(checks, "guard/run"), c.words))
		})
	}
}

func TestWithAppZeroAnySourceCounts(t *testing.T) {
	w := newWorld(t)
	w.change(map[string]string{"main.go": "x\n"})
	w.ran()
	w.pulls.PostCheck("smoke-test", "success", "feature", 4242, 99, time.Time{})
	checks := w.judge(func(o *guard.Options) { o.App = 0 })
	assert.Equal(t, outcomes(checks), "")
	assert.Assert(t, is.Contains(words(checks, "guard/sources"), "with app 0 any source may (warning)"))
}

func TestAnApprovedWorkflowMayJudgeItself(t *testing.T) {
	w := newWorld(t)
	w.change(map[string]string{enforce: "on: [pull_request]\n"})
	w.review("olga", "APPROVED", "feature")
	w.ran()
	checks := w.judge()
	assert.Equal(t, outcomes(checks), "")
	assert.Assert(t, is.Contains(words(checks, "guard/run"), "which the change changes (warning)"))
}

func TestTheGuardWaitsOnlyAsLongAsItIsTold(t *testing.T) {
	w := newWorld(t)
	w.change(map[string]string{"main.go": "x\n"})
	w.during = []func(){func() {}, func() { w.ran() }}
	assert.Equal(t, outcomes(w.judge(func(o *guard.Options) { o.Wait = time.Minute })), "")
	assert.DeepEqual(t, w.slept, []time.Duration{15 * time.Second, 15 * time.Second})

	w.change(map[string]string{"main.go": "y\n"})
	w.slept = nil
	assert.Equal(t, outcomes(w.judge(func(o *guard.Options) { o.Wait = 20 * time.Second })), "run: unclaimed")
	assert.DeepEqual(t, w.slept, []time.Duration{15 * time.Second, 5 * time.Second})
}

func TestOnlyTheStateOfNowIsJudged(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, want string
		slept      int
		do         func(w *world) guard.Event
	}{
		{"the head moved", "is at", 0, func(w *world) guard.Event {
			e := w.event()
			w.change(map[string]string{"main.go": "later\n"})
			return e
		}},
		{"closed", "is closed", 0, func(w *world) guard.Event { w.pull.Closed = true; return w.event() }},
		{"merged", "is closed", 0, func(w *world) guard.Event {
			w.pull.MergedAt, w.pull.MergedCommit = time.Now(), "main"
			return w.event()
		}},
		{"in conflict", "conflicts with main: there is no merge result to judge; merge main into it", 0, func(w *world) guard.Event {
			w.commit("main", map[string]string{"main.go": "ours\n"})
			w.change(map[string]string{"main.go": "theirs\n"})
			return w.event()
		}},
		{"never worked out", "has not worked out the merge result yet: run this job again", 7, func(w *world) guard.Event {
			w.pull.NotYet = 100
			return w.event()
		}},
		{"a merge of an older base", "want main at", 7, func(w *world) guard.Event {
			stale := w.commit("stale", nil, w.Git("rev-parse", "main"), w.Git("rev-parse", "feature"))
			w.commit("main", map[string]string{"other": "x\n"})
			w.pull.Merge = stale
			return w.event()
		}},
		{"a merge of another head", "and the head", 7, func(w *world) guard.Event {
			w.pull.Merge = w.commit("other", nil, w.Git("rev-parse", "main"), w.Git("rev-parse", "feature"))
			w.change(map[string]string{"x": "y\n"})
			return w.event()
		}},
		{"no merge at all", "has parents", 7, func(w *world) guard.Event {
			w.pull.Merge = "main"
			w.change(map[string]string{"x": "y\n"})
			return w.event()
		}},
		{"no such pull request", "404", 0, func(w *world) guard.Event { e := w.event(); e.Pull = 9; return e }},
		{"no such base", "404", 0, func(w *world) guard.Event { w.pull.Merge, w.pull.Base = "main", "gone"; return w.event() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.reset(t)
			w.change(map[string]string{"main.go": "package main // changed\n"})
			e := c.do(w)
			_, err := guard.Open(t.Context(), w.repo, e, w.sleep)
			assert.ErrorContains(t, err, c.want)
			assert.Equal(t, len(w.slept), c.slept)
		})
	}
}

func TestTheMergeResultIsAskedForAgain(t *testing.T) {
	w := newWorld(t)
	w.change(map[string]string{"main.go": "x\n"})
	w.pull.NotYet = 2
	stale := w.commit("stale", nil, w.Git("rev-parse", "main"), w.Git("rev-parse", "feature"))
	w.commit("main", map[string]string{"other": "x\n"})
	w.pull.Merge = stale
	w.during = []func(){func() {}, func() {}, func() { w.pull.Merge = "" }}
	c, err := w.open()
	assert.NilError(t, err)
	assert.Equal(t, c.Base, w.hash("main"))
	assert.Equal(t, len(w.slept), 3)

	w.pull.NotYet = 100
	_, err = guard.Open(t.Context(), w.repo, w.event(), func(context.Context, time.Duration) error { return errors.New("out of time") })
	assert.ErrorContains(t, err, "out of time")
}

// A change is judged by the branch it would land on: by that one's owners, and
// by its gates.
func TestRetargetingJudgesByTheNewBase(t *testing.T) {
	w := newWorld(t)
	w.commit("release", map[string]string{"SMOKE_TEST.sh": "strict\n", ".github/CODEOWNERS": "* @boss\n"}, w.Git("rev-parse", "main"))
	w.commit("loose", map[string]string{"SMOKE_TEST.sh": "exit 0\n"}, w.Git("rev-parse", "main"))
	w.Git("branch", "-f", "feature", "loose")
	w.change(map[string]string{"main.go": "x\n"})
	w.review("olga", "APPROVED", "feature")

	w.pull.Base = "loose" // nothing of the gate changes there
	checks := w.judge()
	assert.Equal(t, outcomes(checks), "run: unclaimed")

	w.pull.Base = "main"
	checks = w.judge()
	assert.Equal(t, outcomes(checks), "run: unclaimed", "olga owns it here")
	w.pulls.Reviews = nil
	assert.Equal(t, outcomes(w.judge()), "owned: fail, run: unclaimed")

	w.review("olga", "APPROVED", "feature")
	w.Git("branch", "-f", "release", w.commit("release2", map[string]string{".github/CODEOWNERS": "* @boss\n"}, w.Git("rev-parse", "main")))
	w.pull.Base = "release"
	checks = w.judge()
	assert.Equal(t, outcomes(checks), "owned: fail, run: unclaimed")
	assert.Assert(t, is.Contains(words(checks, "guard/owned"), "@boss"))
}

func TestAListingThatIsNotWholeIsNeverJudged(t *testing.T) {
	w := newWorld(t)
	w.change(map[string]string{"SMOKE_TEST.sh": "exit 0\n"})
	w.pulls.Cut = "all"
	_, err := w.open()
	assert.ErrorContains(t, err, "cuts the listing of folder \"\" short")
	w.pulls.Cut = "silent"
	_, err = w.open()
	assert.ErrorContains(t, err, "it is not whole")
	w.pulls.Cut = "recursive" // one folder at a time it is whole
	assert.Equal(t, outcomes(w.judge()), "owned: fail, run: unclaimed")
}

func TestContentsAreHashedAgain(t *testing.T) {
	w := newWorld(t)
	w.change(map[string]string{"SMOKE_TEST.sh": "exit 0\n"})
	w.review("mallory", "APPROVED", "feature")
	w.pulls.Lie["* @somebody\n/.github/ @olga\n/SMOKE_TEST.sh @olga @acme/gatekeepers\n/ops/ @boss ops@example.com\n"] = "* @mallory\n"
	checks := w.judge()
	assert.Equal(t, outcomes(checks), "owned: error, run: unclaimed")
	assert.Assert(t, is.Contains(words(checks, "guard/owned"), "the content hashes to"))
}

func (w *world) queue(commit string) guard.Event {
	const base = "0123456789012345678901234567890123456789"
	w.Git("update-ref", "refs/heads/gh-readonly-queue/main/pr-1-"+base, commit)
	return guard.Event{Name: "merge_group", Pull: 1, Head: w.hash(commit), Base: w.hash("main"), QueueRef: "gh-readonly-queue/main/pr-1-" + base}
}

func TestQueuedCommitsAreJudgedAsTheyWouldLand(t *testing.T) {
	w := newWorld(t)
	w.change(map[string]string{"SMOKE_TEST.sh": "new\n"})
	judged := func(e guard.Event) string {
		c, err := guard.Open(t.Context(), w.repo, e, w.sleep)
		assert.NilError(t, err)
		w.pulls.Post(enforce, "merge_group", e.Head.String(), "smoke-test=success", "merkle-integrity=success")
		return outcomes(c.Judge(t.Context(), options()))
	}
	main, feature := w.Git("rev-parse", "main"), w.Git("rev-parse", "feature")
	merge := w.commit("merged", map[string]string{"SMOKE_TEST.sh": "new\n"}, main, feature)
	squash := w.commit("squashed", map[string]string{"SMOKE_TEST.sh": "new\n"}, main)
	rebased := w.commit("squashed", map[string]string{"more": "x\n"})
	other := w.commit("other", map[string]string{"SMOKE_TEST.sh": "other\n"}, main)
	assert.Equal(t, judged(w.queue(merge)), "owned: fail")
	w.review("olga", "APPROVED", "feature")
	assert.Equal(t, judged(w.queue(merge)), "")
	assert.Equal(t, judged(w.queue(squash)), "")
	assert.Equal(t, judged(w.queue(rebased)), "")
	assert.Equal(t, judged(w.queue(other)), "owned: fail", "what lands is not what was approved")

	e := w.queue(merge)
	w.queue(other)
	_, err := guard.Open(t.Context(), w.repo, e, w.sleep)
	assert.ErrorContains(t, err, "a newer run judges it")
	e = w.queue(merge)
	e.Base = w.hash("feature")
	_, err = guard.Open(t.Context(), w.repo, e, w.sleep)
	assert.ErrorContains(t, err, "was not built on")
	e.QueueRef += "x"
	_, err = guard.Open(t.Context(), w.repo, e, w.sleep)
	assert.ErrorContains(t, err, "404")
	w.pull.Closed = true
	_, err = guard.Open(t.Context(), w.repo, w.queue(merge), w.sleep)
	assert.ErrorContains(t, err, "is closed")
}

func event(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/events/" + name)
	assert.NilError(t, err)
	return data
}

func TestEvents(t *testing.T) {
	pull, group := event(t, "pull_request-opened.json"), event(t, "merge_group-checks_requested.json")
	hash := func(s string) gitrepo.Hash {
		h, err := gitrepo.ParseHash(s)
		assert.NilError(t, err)
		return h
	}
	got, err := guard.ParseEvent("pull_request_target", "codertocat/hello-world", pull)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, guard.Event{Name: "pull_request_target", Pull: 2, Head: hash("ec26c3e57ca3a959ca5aad62de7213c562f8c821")})
	got, err = guard.ParseEvent("merge_group", "octo-org/octo-repo", group)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, guard.Event{
		Name: "merge_group", Pull: 104, Head: hash("2ffea6db159f6b6c47a24e778fb9ef40cf6b1c7d"), Base: hash("380387fbc80638b734a49e1be1c4dfec1c01b33c"),
		QueueRef: "gh-readonly-queue/main/pr-104-929f8209d40f77f4abc622a499c93a83babdbe64",
	})
	without := func(payload []byte, old, new string) []byte {
		assert.Assert(t, strings.Contains(string(payload), old), old)
		return []byte(strings.Replace(string(payload), old, new, 1))
	}
	for _, c := range []struct {
		name, repository string
		payload          []byte
		want             string
	}{
		{"pull_request", "Codertocat/Hello-World", pull, "the change's own copy of the workflow"},
		{"pull_request_review", "Codertocat/Hello-World", pull, "after an approval run the guard's failed job again"},
		{"workflow_dispatch", "Codertocat/Hello-World", pull, "want pull_request_target or merge_group"},
		{"issue_comment", "Codertocat/Hello-World", pull, "not posted at the change's head"},
		{"", "Codertocat/Hello-World", pull, "want pull_request_target"},
		{"pull_request_target", "acme/app", pull, `the payload is of repository "Codertocat/Hello-World", want acme/app`},
		{"pull_request_target", "octo-org/octo-repo", group, "no pull_request with number and head.sha"},
		{"merge_group", "Codertocat/Hello-World", pull, "no merge_group"},
		{"pull_request_target", "Codertocat/Hello-World", without(pull, `"number": 2,`, `"number": 3,`), "about pull request 3 and 2"},
		{"pull_request_target", "Codertocat/Hello-World", without(pull, `"sha": "ec26c3e5`, `"sha": "EC26C3E5`), "lower-case hex"},
		{"pull_request_target", "Codertocat/Hello-World", []byte(`{"repository":{"full_name":"Codertocat/Hello-World"},"pull_request":null}`), "no pull_request"},
		{"pull_request_target", "Codertocat/Hello-World", []byte(`[]`), "cannot unmarshal array"},
		{"pull_request_target", "Codertocat/Hello-World", nil, "unexpected end"},
		{"merge_group", "octo-org/octo-repo", without(group, "/pr-104-", "/pr-0-"), "merge_group.head_ref"},
		{"merge_group", "octo-org/octo-repo", without(group, "gh-readonly-queue/", "mine/"), "merge_group.head_ref"},
	} {
		_, err := guard.ParseEvent(c.name, c.repository, c.payload)
		assert.ErrorContains(t, err, c.want, "%s", c.name)
		assert.ErrorContains(t, err, "event "+c.name)
	}
}

// Law: an event that parses names a change of this repository and a commit.
func FuzzParseEvent(f *testing.F) {
	for _, payload := range []string{
		`{"number":2,"repository":{"full_name":"Codertocat/Hello-World"},"pull_request":{"number":2,"head":{"sha":"ec26c3e57ca3a959ca5aad62de7213c562f8c821"},"base":{"repo":{"full_name":"Codertocat/Hello-World"}}}}`,
		`{"repository":{"full_name":"octo-org/octo-repo"},"merge_group":{"head_sha":"2ffea6db159f6b6c47a24e778fb9ef40cf6b1c7d","base_sha":"380387fbc80638b734a49e1be1c4dfec1c01b33c","head_ref":"refs/heads/gh-readonly-queue/main/pr-104-929f8209d40f77f4abc622a499c93a83babdbe64"}}`,
	} {
		f.Add(true, []byte(payload))
		f.Add(false, []byte(payload))
	}
	f.Fuzz(func(t *testing.T, queued bool, payload []byte) {
		name, repository := "pull_request_target", "Codertocat/Hello-World"
		if queued {
			name, repository = "merge_group", "octo-org/octo-repo"
		}
		e, err := guard.ParseEvent(name, repository, payload)
		if err != nil {
			assert.Equal(t, e, guard.Event{})
			return
		}
		assert.Assert(t, e.Name == name && e.Pull > 0 && !e.Head.IsZero() && (e.QueueRef != "") == queued && e.Base.IsZero() == !queued)
	})
}

// More evidence of failure never turns a fail into a pass.
func TestChecksDoNotExcuseEachOther(t *testing.T) {
	w := newWorld(t)
	w.change(map[string]string{"SMOKE_TEST.sh": "x\n"})
	w.pulls.PostStatus("smoke-test", "success", "feature")
	checks := w.judge()
	assert.Equal(t, outcomes(checks), "owned: fail, sources: fail, run: unclaimed")
	for _, c := range checks {
		assert.Assert(t, c.Status != 0, fmt.Sprint(c.ID))
		if c.Status == judge.Fail {
			assert.Assert(t, len(c.Findings) > 0)
		}
	}
}
