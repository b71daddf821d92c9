package enforce_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/enforce"
	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/forge/forgetest"
	"github.com/vaultmesh/remembrancer/pkg/judge"
)

const (
	admin  = "ghp_admin"
	plain  = "ghs_plain"  // an App's, as a job's own
	person = "ghp_person" // one that may read
)

const codeowners = "* @acme/all\n/.github/ @acme/gate\n/ops/ @acme/gate\n/remembrancer.yaml @acme/gate\n/SMOKE_TEST.sh @acme/gate\n"

// site is a repository on a forge, and what is wanted of it.
type site struct {
	*forgetest.Fake
	t    *testing.T
	repo *forgetest.Repo
	want enforce.Want
}

func newSite(t *testing.T) *site {
	t.Helper()
	f := forgetest.New(t)
	f.AddToken(admin, forgetest.Person, "administration:write", "contents:write")
	f.AddToken(plain, forgetest.App, "contents:read")
	f.AddToken(person, forgetest.Person, "contents:read")
	repo := f.AddRepo("acme/app")
	f.Commit(repo, "main", map[string]string{".github/CODEOWNERS": codeowners})
	return &site{Fake: f, t: t, repo: repo, want: enforce.Want{
		Owner: "acme", Name: "app", Keep: []string{"remembrancer/claim"},
		Checks: []string{"smoke-test", "merkle-integrity"}, App: enforce.ActionsApp, Reviews: 1,
		GateOwned: []string{".github/**", "ops/**", "remembrancer.yaml", "SMOKE_TEST.sh"},
	}}
}

func (s *site) api(token string) *forge.REST {
	s.t.Helper()
	r, err := forge.NewREST(s.URL, token, forge.RESTOptions{Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }})
	assert.NilError(s.t, err)
	return r
}

func (s *site) plan(token string) *enforce.Report {
	s.t.Helper()
	s.Calls()
	r, err := enforce.Plan(s.t.Context(), s.api(token), s.want)
	assert.NilError(s.t, err)
	assert.Equal(s.t, len(forgetest.Writes(s.Calls())), 0)
	return r
}

func (s *site) apply(opts enforce.Options) *enforce.Result {
	s.t.Helper()
	r, err := enforce.Apply(s.t.Context(), s.api(admin), s.want, opts)
	assert.NilError(s.t, err)
	return r
}

// states are what is said of each required check.
func states(r *enforce.Report) string {
	var all []string
	for _, q := range r.Required {
		all = append(all, q.Name+" "+q.State)
	}
	return strings.Join(all, ", ")
}

func check(t *testing.T, r *enforce.Report, id string) judge.Check {
	t.Helper()
	i := slices.IndexFunc(r.Checks, func(c judge.Check) bool { return c.ID == id })
	assert.Assert(t, i >= 0, id)
	return r.Checks[i]
}

func words(c judge.Check) string {
	all := []string{c.Status.String(), c.Detail}
	for _, f := range c.Findings {
		all = append(all, f.Message)
	}
	return strings.Join(all, "\n")
}

func says(t *testing.T, r *enforce.Report, id string, status judge.Status, want string) {
	t.Helper()
	c := check(t, r, id)
	assert.Equal(t, c.Status, status, words(c))
	assert.Assert(t, strings.Contains(words(c), want), "%s\nlacks\n%s", words(c), want)
}

func actions(r *enforce.Result) string {
	var all []string
	for _, c := range r.Changes {
		all = append(all, c.Action)
	}
	return strings.Join(all, " ")
}

// requiring is a ruleset of somebody else that requires these checks.
func requiring(name string, checks ...string) string {
	return fmt.Sprintf(`{"name":%q,"enforcement":"active","target":"branch","conditions":{"ref_name":{"include":["~DEFAULT_BRANCH"],"exclude":[]}},
		"rules":[{"type":"required_status_checks","parameters":{"strict_required_status_checks_policy":true,"required_status_checks":[%s]}}]}`, name, strings.Join(checks, ","))
}

func TestABareRepositoryDemandsNothing(t *testing.T) {
	s := newSite(t)
	r := s.plan(plain)
	assert.Equal(t, states(r), "smoke-test missing, merkle-integrity missing")
	says(t, r, "enforce/required/smoke-test", judge.Fail, "missing: no rule of branch main requires it")
	says(t, r, "enforce/history/main", judge.Fail, "nothing bars force pushes of branch main")
	says(t, r, "enforce/history/remembrancer/claim", judge.Fail, "nothing bars deletion of branch remembrancer/claim")
	says(t, r, "enforce/review", judge.Fail, "no rule demands the review of code owners")
	says(t, r, "enforce/codeowners", judge.Pass, ".github/CODEOWNERS")
	says(t, r, "enforce/bypass", judge.Unclaimed, "no rule that was read requires the checks")
	says(t, r, "enforce/publisher", judge.Pass, "branch main")
	assert.Equal(t, judge.Sum(r.Checks, nil).Status, judge.Fail)
}

func TestApplyMakesTheRulesAndAPlainTokenSeesThem(t *testing.T) {
	s := newSite(t)
	r := s.apply(enforce.Options{})
	assert.Equal(t, actions(r), "create create")
	assert.Assert(t, r.Written)
	assert.Equal(t, states(r.After), "smoke-test pinned, merkle-integrity pinned")
	assert.Equal(t, judge.Sum(r.After.Checks, nil).Status, judge.Pass)
	assert.Equal(t, len(s.repo.Rulesets), 2)

	for _, token := range []string{plain, person, ""} {
		p := s.plan(token)
		assert.Equal(t, states(p), "smoke-test pinned, merkle-integrity pinned")
		assert.Equal(t, judge.Sum(p.Checks, nil).Status, judge.Pass)
		says(t, p, "enforce/history/remembrancer/claim", judge.Pass, "")
		says(t, p, "enforce/bypass", judge.Unclaimed, "shows it only to a token with administration:write")
		says(t, p, "enforce/publisher", judge.Unclaimed, "name an App that may pass as enforce.publisher-app")
		assert.Assert(t, p.Required[0].Shared)
		assert.Assert(t, strings.Contains(strings.Join(p.Notes, "\n"), "any workflow of the repository"))
	}
}

func TestWhatIsSentIsExactlyThis(t *testing.T) {
	s := newSite(t)
	s.want.PublisherApp = 77
	s.apply(enforce.Options{})
	// The order of members is the forge's, and what it adds is its own.
	got := map[string]any{}
	for _, raw := range s.repo.Rulesets {
		var m map[string]any
		assert.NilError(t, json.Unmarshal(raw, &m))
		for _, added := range []string{"id", "source", "source_type", "node_id", "_links", "created_at", "updated_at", "current_user_can_bypass"} {
			delete(m, added)
		}
		got[m["name"].(string)] = m
	}
	var want map[string]any
	assert.NilError(t, json.Unmarshal([]byte(`{
		"remembrancer: history": {
			"name": "remembrancer: history", "target": "branch", "enforcement": "active", "bypass_actors": [],
			"conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH", "refs/heads/remembrancer/claim"], "exclude": []}},
			"rules": [{"type": "deletion"}, {"type": "non_fast_forward"}]
		},
		"remembrancer: gate": {
			"name": "remembrancer: gate", "target": "branch", "enforcement": "active",
			"bypass_actors": [{"actor_id": 77, "actor_type": "Integration", "bypass_mode": "always"}],
			"conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}},
			"rules": [
				{"type": "pull_request", "parameters": {
					"dismiss_stale_reviews_on_push": true, "require_code_owner_review": true, "require_last_push_approval": true,
					"required_approving_review_count": 1, "required_review_thread_resolution": false,
					"allowed_merge_methods": ["merge", "squash", "rebase"], "required_reviewers": []}},
				{"type": "required_status_checks", "parameters": {
					"strict_required_status_checks_policy": false, "do_not_enforce_on_create": false,
					"required_status_checks": [{"context": "smoke-test", "integration_id": 15368}, {"context": "merkle-integrity", "integration_id": 15368}]}}
			]
		}
	}`), &want))
	assert.DeepEqual(t, got, want)
	says(t, s.plan(admin), "enforce/publisher", judge.Pass, "branch main")
	says(t, s.plan(plain), "enforce/publisher", judge.Unclaimed, "whether App 77 may pass is shown only to a token with administration:write")
}

func TestASecondApplyWritesNothing(t *testing.T) {
	s := newSite(t)
	s.apply(enforce.Options{})
	before := s.State(s.repo)
	s.Calls()
	r := s.apply(enforce.Options{Ask: func([]enforce.Change) error { return errors.New("asked for nothing") }})
	assert.Equal(t, actions(r), "none none")
	assert.Assert(t, !r.Written)
	assert.Equal(t, len(forgetest.Writes(s.Calls())), 0)
	assert.Equal(t, s.State(s.repo), before)
}

func TestADryRunWritesNothingAndShowsTheDifference(t *testing.T) {
	s := newSite(t)
	before := s.State(s.repo)
	r := s.apply(enforce.Options{DryRun: true})
	assert.Equal(t, actions(r), "create create")
	assert.Assert(t, strings.Contains(r.Changes[1].Diff, `+            "integration_id": 15368`), r.Changes[1].Diff)
	assert.Assert(t, strings.Contains(r.Changes[1].Diff, "\n--- ruleset \"remembrancer: gate\" as it is\n+++ ruleset \"remembrancer: gate\" as it is wanted\n"), r.Changes[1].Diff)
	assert.Equal(t, s.State(s.repo), before)
	assert.Equal(t, len(forgetest.Writes(s.Calls())), 0)
}

func TestNobodyIsAskedTwiceAndANoWritesNothing(t *testing.T) {
	s := newSite(t)
	_, err := enforce.Apply(t.Context(), s.api(admin), s.want, enforce.Options{Ask: func(c []enforce.Change) error {
		assert.Equal(t, len(c), 2)
		return errors.New("no")
	}})
	assert.Error(t, err, "no")
	assert.Equal(t, len(forgetest.Writes(s.Calls())), 0)
}

// foreign are rulesets of others: of types that libraries refuse, of a type that
// the description of the API does not know either, for tags, idle.
var foreign = []string{
	`{"name":"theirs","enforcement":"active","target":"branch","conditions":{"ref_name":{"include":["~ALL"],"exclude":["refs/heads/x"]}},"bypass_actors":[{"actor_id":5,"actor_type":"RepositoryRole","bypass_mode":"always"}],
	  "rules":[{"type":"code_scanning","parameters":{"code_scanning_tools":[{"tool":"CodeQL","security_alerts_threshold":"high_or_higher","alerts_threshold":"errors"}]}},{"type":"file_path_restriction","parameters":{"restricted_file_paths":["a/**"]}},{"type":"code_quality","parameters":{"severity":"errors"}}]}`,
	`{"name":"remembrancer: gate (old)","enforcement":"disabled","target":"branch","rules":[{"type":"copilot_code_review"}]}`,
	`{"name":"tags","enforcement":"active","target":"tag","conditions":{"ref_name":{"include":["refs/tags/v*"],"exclude":[]}},"rules":[{"type":"deletion"}]}`,
}

func TestForeignRulesetsStayByteForByte(t *testing.T) {
	s := newSite(t)
	s.NewerThanTheDescription("code_quality")
	for _, f := range foreign {
		s.AddRuleset(s.repo, f)
	}
	s.AddParentRuleset(s.repo, `{"name":"remembrancer: gate","enforcement":"active","target":"branch","conditions":{"ref_name":{"include":["~ALL"],"exclude":[]}},"rules":[{"type":"required_linear_history"}]}`)
	theirs, state := slices.Clone(s.repo.Rulesets), s.State(s.repo)
	untouched := func() {
		t.Helper()
		for i, raw := range theirs {
			assert.Equal(t, string(s.repo.Rulesets[i]), string(raw))
		}
	}
	assert.Equal(t, actions(s.apply(enforce.Options{})), "create create")
	untouched()
	assert.Equal(t, actions(s.apply(enforce.Options{})), "none none")
	s.want.Checks = append(s.want.Checks, "more")
	assert.Equal(t, actions(s.apply(enforce.Options{})), "none update")
	untouched()
	r, err := enforce.Remove(t.Context(), s.api(admin), s.want, enforce.Options{})
	assert.NilError(t, err)
	assert.Equal(t, actions(r), "delete delete")
	assert.Equal(t, s.State(s.repo), state)
}

func TestWhatSomebodyAddedToOurRulesetIsKeptAndNamed(t *testing.T) {
	s := newSite(t)
	s.NewerThanTheDescription("code_quality")
	s.apply(enforce.Options{})
	added := `{"parameters":{"severity":"errors","threshold":12345678901234567890},"type":"code_quality"}`
	s.EditRuleset(s.repo, "remembrancer: gate", func(m map[string]any) {
		rules := m["rules"].([]any)
		pull, checks := rules[0].(map[string]any)["parameters"].(map[string]any), rules[1].(map[string]any)["parameters"].(map[string]any)
		pull["required_approving_review_count"] = 3
		pull["allowed_merge_methods"] = []any{"squash"}
		pull["invented_parameter"] = map[string]any{"a": 1}
		checks["strict_required_status_checks_policy"] = true
		checks["required_status_checks"] = append(checks["required_status_checks"].([]any), map[string]any{"context": "lint", "integration_id": 9, "note": "x"})
		m["rules"] = append(rules, json.RawMessage(added))
		m["invented_member"] = "kept"
		ref := m["conditions"].(map[string]any)["ref_name"].(map[string]any)
		ref["include"] = append(ref["include"].([]any), "refs/heads/release/*")
	})
	edited := s.State(s.repo)
	// All of it is stricter, or nobody's business: there is nothing to write.
	r := s.apply(enforce.Options{})
	assert.Equal(t, actions(r), "none none")
	assert.Equal(t, s.State(s.repo), edited)
	assert.DeepEqual(t, r.Changes[1].Kept, []string{
		"member invented_member", "branch refs/heads/release/*", "allowed_merge_methods of rule pull_request", "invented_parameter of rule pull_request",
		"required_approving_review_count 3", "strict_required_status_checks_policy", "required check lint", "rule code_quality",
	})

	// A write that is needed sends all of it back.
	s.want.Checks = append(s.want.Checks, "more")
	r = s.apply(enforce.Options{})
	assert.Equal(t, actions(r), "none update")
	state := string(s.repo.Rulesets[1])
	for _, kept := range []string{
		added, `"invented_member":"kept"`, `"invented_parameter":{"a":1}`, `"allowed_merge_methods":["squash"]`, `"required_approving_review_count":3`,
		`{"context":"lint","integration_id":9,"note":"x"}`, `"refs/heads/release/*"`, `"strict_required_status_checks_policy":true`, `{"context":"more","integration_id":15368}`,
	} {
		assert.Assert(t, strings.Contains(state, kept), "%s\nlacks\n%s", state, kept)
	}
}

func TestWhatLoosensOurRulesetIsTakenBack(t *testing.T) {
	s := newSite(t)
	s.want.PublisherApp = 77
	s.apply(enforce.Options{})
	before := s.State(s.repo)
	s.EditRuleset(s.repo, "remembrancer: gate", func(m map[string]any) {
		rules := m["rules"].([]any)
		pull, checks := rules[0].(map[string]any)["parameters"].(map[string]any), rules[1].(map[string]any)["parameters"].(map[string]any)
		pull["dismiss_stale_reviews_on_push"], pull["required_approving_review_count"] = false, 0
		delete(checks["required_status_checks"].([]any)[0].(map[string]any), "integration_id")
		checks["required_status_checks"].([]any)[1].(map[string]any)["integration_id"] = 4
		m["bypass_actors"] = append(m["bypass_actors"].([]any), map[string]any{"actor_id": 5, "actor_type": "RepositoryRole", "bypass_mode": "always"})
		m["enforcement"] = "disabled"
	})
	s.EditRuleset(s.repo, "remembrancer: history", func(m map[string]any) {
		m["rules"] = []any{map[string]any{"type": "deletion"}}
		m["conditions"].(map[string]any)["ref_name"].(map[string]any)["exclude"] = []any{"refs/heads/main"}
		m["bypass_actors"] = []any{map[string]any{"actor_id": nil, "actor_type": "DeployKey", "bypass_mode": "always"}}
	})
	p := s.plan(admin)
	assert.Equal(t, states(p), "smoke-test missing, merkle-integrity missing")
	says(t, p, "enforce/required/smoke-test", judge.Fail, `ruleset "remembrancer: gate" is there with enforcement disabled, which stops nobody`)
	says(t, p, "enforce/history/main", judge.Fail, "nothing bars deletion")
	r := s.apply(enforce.Options{})
	assert.Equal(t, actions(r), "update update")
	assert.DeepEqual(t, r.Changes[0].Undone, []string{"bypass of DeployKey", "exclusion of branch refs/heads/main"})
	assert.DeepEqual(t, r.Changes[1].Undone, []string{"bypass of RepositoryRole 5", "check smoke-test from any source", "check merkle-integrity from App 4"})
	assert.Equal(t, s.State(s.repo), before)
}

func TestACheckFromAnySourceIsSpoofable(t *testing.T) {
	s := newSite(t)
	head := s.repo.Branches["main"].Head
	s.AddRuleset(s.repo, requiring("theirs", `{"context":"smoke-test"}`, `{"context":"merkle-integrity","integration_id":9}`))
	s.repo.CheckRuns = []forgetest.CheckRun{{ID: 1, Commit: head, Name: "smoke-test", App: 9, AppSlug: "rogue", Conclusion: "success"}}
	s.repo.Statuses = []forgetest.Status{{ID: 1, Commit: head, Context: "smoke-test", State: "success", Creator: "mallory"}}
	r := s.plan(plain)
	assert.Equal(t, states(r), "smoke-test spoofable, merkle-integrity other-app")
	says(t, r, "enforce/required/smoke-test", judge.Fail, "takes it from any source, so whoever can write can post a status of this name")
	says(t, r, "enforce/required/smoke-test", judge.Fail, "mallory posted a status of this name")
	says(t, r, "enforce/required/smoke-test", judge.Fail, "App 9 (rogue) posted a check of this name")
	says(t, r, "enforce/required/merkle-integrity", judge.Fail, "from App 9, wanted from App 15368")
	says(t, r, "enforce/required/merkle-integrity", judge.Fail, "no check of this name was posted")

	// Each ruleset holds: one that pins is enough. What somebody posted stays said.
	s.apply(enforce.Options{})
	r = s.plan(plain)
	assert.Equal(t, states(r), "smoke-test pinned, merkle-integrity pinned")
	says(t, r, "enforce/required/smoke-test", judge.Pass, "mallory posted a status of this name")

	// Without a wanted App any pin holds, and none is still spoofable.
	s.want.App = 0
	s.want.Checks = []string{"merkle-integrity", "other"}
	s.AddRuleset(s.repo, requiring("more", `{"context":"other"}`))
	assert.Equal(t, states(s.plan(plain)), "merkle-integrity pinned, other spoofable")
}

func TestA404IsNotUnprotected(t *testing.T) {
	s := newSite(t)
	s.Protect(s.repo, "main", map[string]any{"required_status_checks": map[string]any{"strict": false, "checks": []any{
		map[string]any{"context": "smoke-test", "app_id": 15368},
	}}})
	for token, lacks := range map[string]string{plain: "administration:read", person: "administration:read", "": "administration:read"} {
		r := s.plan(token)
		// What a branch shows to everybody proves what is there, not what is not.
		assert.Equal(t, states(r), "smoke-test pinned, merkle-integrity unreadable")
		assert.Equal(t, r.Required[1].Lacking, lacks)
		says(t, r, "enforce/required/merkle-integrity", judge.Error, "it lacks "+lacks)
		says(t, r, "enforce/history/main", judge.Error, "it lacks "+lacks)
		says(t, r, "enforce/review", judge.Error, "it lacks "+lacks)
		says(t, r, "enforce/history/remembrancer/claim", judge.Fail, "nothing bars")
	}
	s.want.Keep = nil
	r := s.plan(plain)
	assert.Equal(t, judge.Sum(r.Checks, nil).Status, judge.Error)

	// An administrator sees all of it.
	r = s.plan(admin)
	assert.Equal(t, states(r), "smoke-test pinned, merkle-integrity missing")
	says(t, r, "enforce/history/main", judge.Pass, "")
	says(t, r, "enforce/review", judge.Fail, "rules demand 0 approvals, wanted 1")
	says(t, r, "enforce/bypass", judge.Pass, "administrators may pass classic protection by")
	says(t, r, "enforce/publisher", judge.Unclaimed, "classic protection of branch main stops pushes")
}

func TestClassicProtectionCountsAsRulesDo(t *testing.T) {
	s := newSite(t)
	s.want.Keep = nil
	s.Protect(s.repo, "main", map[string]any{
		"enforce_admins": map[string]any{"enabled": true},
		"required_status_checks": map[string]any{"strict": false, "checks": []any{
			map[string]any{"context": "smoke-test", "app_id": 15368}, map[string]any{"context": "merkle-integrity", "app_id": nil},
		}},
		"required_pull_request_reviews": map[string]any{"dismiss_stale_reviews": true, "require_code_owner_reviews": true, "required_approving_review_count": 2},
	})
	r := s.plan(admin)
	assert.Equal(t, states(r), "smoke-test pinned, merkle-integrity spoofable")
	assert.DeepEqual(t, r.Required[0].By, []string{"classic protection"})
	says(t, r, "enforce/review", judge.Pass, "classic protection")
	says(t, r, "enforce/bypass", judge.Pass, "0 rulesets")
	s.want.PublisherApp = 77
	says(t, s.plan(admin), "enforce/publisher", judge.Fail, "lets no App past required checks")
}

func TestApplyNeedsAdministration(t *testing.T) {
	for token, said := range map[string]string{plain: "403 Forbidden: Resource not accessible by integration (the token needs administration=write)", person: "404 Not Found"} {
		s := newSite(t)
		_, err := enforce.Apply(t.Context(), s.api(token), s.want, enforce.Options{})
		assert.ErrorContains(t, err, said)
		assert.ErrorContains(t, err, "needs the repository permission administration:write. The job's own GITHUB_TOKEN cannot have it")
		assert.ErrorContains(t, err, "REMEMBRANCER_TOKEN")
		assert.Equal(t, len(s.repo.Rulesets), 0)

		// Where the rulesets are, the token is not shown who may pass them.
		s.apply(enforce.Options{})
		s.Calls()
		for _, f := range []func(context.Context, *forge.REST, enforce.Want, enforce.Options) (*enforce.Result, error){enforce.Apply, enforce.Remove} {
			_, err = f(t.Context(), s.api(token), s.want, enforce.Options{})
			assert.ErrorContains(t, err, "the forge does not show this token who may pass it")
		}
		assert.Equal(t, len(forgetest.Writes(s.Calls())), 0)
	}
}

func TestGatewaysAndLostAnswersDoNotStopApply(t *testing.T) {
	for name, faults := range map[string][]forgetest.Fault{
		"reads":             {{Status: 502}, {Status: 502}, {Drop: true}, {Status: 200}},
		"a limit":           {{Status: 429, Header: map[string]string{"Retry-After": "1"}}},
		"the answer to all": {{Status: 502, Done: true}, {Status: 502, Done: true}, {Status: 502, Done: true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.Fail(faults...)
			assert.Equal(t, states(s.apply(enforce.Options{}).After), "smoke-test pinned, merkle-integrity pinned")
			assert.Equal(t, len(s.repo.Rulesets), 2)
		})
	}
}

// Of a creation whose answer was lost, what is there decides.
func TestALostAnswerToACreationIsLookedUp(t *testing.T) {
	plain := newSite(t)
	plain.apply(enforce.Options{})
	calls := plain.Calls()
	for i, call := range calls {
		if !strings.HasPrefix(call, "POST ") {
			continue
		}
		for _, done := range []bool{true, false} {
			s := newSite(t)
			for range i {
				s.Fail(forgetest.Fault{Pass: true})
			}
			s.Fail(forgetest.Fault{Status: 502, Done: done})
			r, err := enforce.Apply(t.Context(), s.api(admin), s.want, enforce.Options{})
			if done {
				assert.NilError(t, err)
				assert.Equal(t, states(r.After), "smoke-test pinned, merkle-integrity pinned")
			} else {
				assert.ErrorContains(t, err, "502 Bad Gateway")
			}
			assert.NilError(t, err2(enforce.Apply(t.Context(), s.api(admin), s.want, enforce.Options{})))
			assert.Equal(t, len(s.repo.Rulesets), 2)
		}
	}
}

func err2(_ *enforce.Result, err error) error { return err }

func TestRemoveRestoresWhatWas(t *testing.T) {
	s := newSite(t)
	s.AddRuleset(s.repo, requiring("theirs", `{"context":"x"}`))
	before := s.State(s.repo)
	s.apply(enforce.Options{Enforcement: enforce.Evaluate})
	r, err := enforce.Remove(t.Context(), s.api(admin), s.want, enforce.Options{DryRun: true})
	assert.NilError(t, err)
	assert.Equal(t, actions(r), "delete delete")
	assert.Equal(t, len(s.repo.Rulesets), 3)
	r, err = enforce.Remove(t.Context(), s.api(admin), s.want, enforce.Options{})
	assert.NilError(t, err)
	assert.Assert(t, r.Written)
	assert.Equal(t, s.State(s.repo), before)
	r, err = enforce.Remove(t.Context(), s.api(admin), s.want, enforce.Options{})
	assert.NilError(t, err)
	assert.Equal(t, actions(r), "none none")
	assert.Assert(t, !r.Written)
}

func TestRemoveLeavesWhatSomebodyChanged(t *testing.T) {
	s := newSite(t)
	s.apply(enforce.Options{})
	s.EditRuleset(s.repo, "remembrancer: gate", func(m map[string]any) {
		m["rules"] = append(m["rules"].([]any), map[string]any{"type": "required_linear_history"})
	})
	before := s.State(s.repo)
	_, err := enforce.Remove(t.Context(), s.api(admin), s.want, enforce.Options{})
	var changed *enforce.ChangedError
	assert.Assert(t, errors.As(err, &changed))
	assert.Assert(t, strings.Contains(changed.Diff, `+      "type": "required_linear_history"`), changed.Diff)
	assert.Equal(t, s.State(s.repo), before)
	_, err = enforce.Remove(t.Context(), s.api(admin), s.want, enforce.Options{Force: true})
	assert.NilError(t, err)
	assert.Equal(t, len(s.repo.Rulesets), 0)
}

func TestEnforcementCanBeginGently(t *testing.T) {
	s := newSite(t)
	r := s.apply(enforce.Options{Enforcement: enforce.Evaluate})
	assert.Assert(t, r.After == nil)
	says(t, s.plan(plain), "enforce/required/smoke-test", judge.Fail, "is there with enforcement evaluate, which stops nobody")
	r = s.apply(enforce.Options{})
	assert.Equal(t, actions(r), "update update")
	assert.Assert(t, strings.Contains(r.Changes[0].Diff, "-  \"enforcement\": \"evaluate\",\n+  \"enforcement\": \"active\",\n"), r.Changes[0].Diff)
	assert.Equal(t, states(r.After), "smoke-test pinned, merkle-integrity pinned")
}

func TestRulesThatDoNotTakeEffectAreAnError(t *testing.T) {
	s := newSite(t)
	s.Handle("GET", "/repos/{owner}/{repo}/rules/branches/{branch}", "metadata:read", func(c *forgetest.Call) forgetest.Reply { return forgetest.OK([]any{}) })
	r, err := enforce.Apply(t.Context(), s.api(admin), s.want, enforce.Options{})
	assert.ErrorContains(t, err, "the forge accepted the rules, but they do not take effect: check smoke-test is missing; check merkle-integrity is missing; enforce/history/main: fail")
	assert.Assert(t, r.Written)

	// A forge that leaves out a rule without a word.
	s = newSite(t)
	s.Handle("GET", "/repos/{owner}/{repo}/rulesets/{ruleset_id}", "metadata:read", func(c *forgetest.Call) forgetest.Reply {
		var m map[string]any
		for _, raw := range s.repo.Rulesets {
			if strings.Contains(string(raw), `"id":`+c.Vars["ruleset_id"]+",") {
				assert.Check(t, json.Unmarshal(raw, &m))
			}
		}
		m["rules"] = []any{}
		return forgetest.OK(m)
	})
	_, err = enforce.Apply(t.Context(), s.api(admin), s.want, enforce.Options{})
	assert.ErrorContains(t, err, `ruleset "remembrancer: history" did not become what was sent`)
	assert.ErrorContains(t, err, `+      "type": "deletion"`)
}

func TestRulesAreReadPageByPage(t *testing.T) {
	s := newSite(t)
	for i := range 101 {
		s.AddRuleset(s.repo, requiring(fmt.Sprint("theirs ", i), fmt.Sprintf(`{"context":"c%d"}`, i)))
	}
	s.want.Checks = []string{"c100"}
	assert.Equal(t, states(s.plan(plain)), "c100 spoofable")
	// The list of rulesets has pages, too: without the last, a second gate would be made.
	s.want.Checks = []string{"smoke-test"}
	s.apply(enforce.Options{})
	assert.Equal(t, actions(s.apply(enforce.Options{})), "none none")
	assert.Equal(t, len(s.repo.Rulesets), 103)
}

func TestTwoRulesetsOfOurNameAreNotGuessedAt(t *testing.T) {
	s := newSite(t)
	s.apply(enforce.Options{})
	s.repo.Rulesets = append(s.repo.Rulesets, s.repo.Rulesets[1])
	_, err := enforce.Apply(t.Context(), s.api(admin), s.want, enforce.Options{})
	assert.ErrorContains(t, err, `there are 2 rulesets named "remembrancer: gate"`)

	s = newSite(t)
	s.AddRuleset(s.repo, `{"name":"remembrancer: gate","target":"tag","enforcement":"active"}`)
	_, err = enforce.Apply(t.Context(), s.api(admin), s.want, enforce.Options{})
	assert.ErrorContains(t, err, "is one for a tag")
}

func TestOrganisationRulesCount(t *testing.T) {
	s := newSite(t)
	s.repo.Organization = true
	s.AddParentRuleset(s.repo, requiring("theirs", `{"context":"smoke-test","integration_id":15368}`, `{"context":"merkle-integrity","integration_id":15368}`))
	r := s.plan(plain)
	assert.Equal(t, states(r), "smoke-test pinned, merkle-integrity pinned")
	assert.Assert(t, strings.Contains(r.Required[0].By[0], "of organization acme"), r.Required[0].By[0])
	s.want.PublisherApp = 77
	says(t, s.plan(admin), "enforce/publisher", judge.Unclaimed, "unknown") // organisation's list is not shown
}

func TestThePublisherIsJudgedWhereItPushes(t *testing.T) {
	s := newSite(t)
	s.apply(enforce.Options{})
	s.want.PublishTo, s.want.Keep = "ledger", append(s.want.Keep, "ledger")
	r := s.plan(plain)
	says(t, r, "enforce/publisher", judge.Pass, "branch ledger")
	says(t, r, "enforce/history/ledger", judge.Fail, "nothing bars")
	s.apply(enforce.Options{})
	says(t, s.plan(plain), "enforce/history/ledger", judge.Pass, "")
	s.want.PublishTo, s.want.PublisherApp = "", 77
	says(t, s.plan(admin), "enforce/publisher", judge.Fail, "and App 77 may not pass")
	// An actor that may pass in pull requests only cannot push.
	s.apply(enforce.Options{})
	s.EditRuleset(s.repo, "remembrancer: gate", func(m map[string]any) {
		m["bypass_actors"].([]any)[0].(map[string]any)["bypass_mode"] = "pull_request"
	})
	says(t, s.plan(admin), "enforce/publisher", judge.Fail, "and App 77 may not pass")
	says(t, s.plan(admin), "enforce/bypass", judge.Pass, "1 rulesets require checks")
}

func TestAMergeQueueIsNamed(t *testing.T) {
	s := newSite(t)
	s.AddRuleset(s.repo, `{"name":"queue","enforcement":"active","target":"branch","conditions":{"ref_name":{"include":["~ALL"],"exclude":[]}},"rules":[{"type":"merge_queue","parameters":{
		"check_response_timeout_minutes":60,"grouping_strategy":"ALLGREEN","max_entries_to_build":5,"max_entries_to_merge":5,"merge_method":"MERGE","min_entries_to_merge":1,"min_entries_to_merge_wait_minutes":5}}]}`)
	assert.Assert(t, strings.Contains(strings.Join(s.plan(plain).Notes, "\n"), "must start on merge_group"))
}

func TestClassicPatchesTheListAndNothingElse(t *testing.T) {
	s := newSite(t)
	members := map[string]any{
		"enforce_admins": map[string]any{"enabled": true},
		"required_status_checks": map[string]any{"strict": true, "checks": []any{
			map[string]any{"context": "lint", "app_id": nil}, map[string]any{"context": "build", "app_id": 9}, map[string]any{"context": "smoke-test", "app_id": nil},
		}},
		"required_pull_request_reviews": map[string]any{"dismiss_stale_reviews": true, "require_code_owner_reviews": true, "required_approving_review_count": 2},
	}
	s.Protect(s.repo, "main", members)
	// The App that posted lint last: leaving app_id out would pin the check to it.
	s.repo.CheckRuns = []forgetest.CheckRun{{ID: 1, Commit: s.repo.Branches["main"].Head, Name: "lint", App: 9, Conclusion: "success"}}
	before := s.State(s.repo)

	dry := s.apply(enforce.Options{Classic: true, DryRun: true})
	assert.Equal(t, actions(dry), "update")
	assert.Equal(t, s.State(s.repo), before)
	r := s.apply(enforce.Options{Classic: true})
	assert.DeepEqual(t, r.Changes[0].Kept, []string{"required check lint", "required check build"})
	assert.DeepEqual(t, r.Changes[0].Undone, []string{"check smoke-test from any source"})
	checks := s.repo.Branches["main"].Classic["required_status_checks"].(map[string]any)
	assert.DeepEqual(t, checks["checks"], []any{
		map[string]any{"context": "lint", "app_id": nil},
		map[string]any{"context": "build", "app_id": int64(9)},
		map[string]any{"context": "smoke-test", "app_id": int64(15368)},
		map[string]any{"context": "merkle-integrity", "app_id": int64(15368)},
	})
	assert.Equal(t, checks["strict"], true)
	assert.DeepEqual(t, s.repo.Branches["main"].Classic["required_pull_request_reviews"], members["required_pull_request_reviews"])
	assert.Equal(t, len(s.repo.Rulesets), 0)

	s.Calls()
	assert.Equal(t, actions(s.apply(enforce.Options{Classic: true})), "none")
	assert.Equal(t, len(forgetest.Writes(s.Calls())), 0)

	// Only what is as apply pins it goes away.
	checks["checks"].([]any)[3].(map[string]any)["app_id"] = 9
	got, err := enforce.Remove(t.Context(), s.api(admin), s.want, enforce.Options{Classic: true})
	assert.NilError(t, err)
	assert.Assert(t, got.Written)
	assert.DeepEqual(t, checks["contexts"], []any{"lint", "build", "merkle-integrity"})
}

func TestClassicRemoveRestoresTheList(t *testing.T) {
	s := newSite(t)
	s.Protect(s.repo, "main", map[string]any{"required_status_checks": map[string]any{"strict": false, "checks": []any{map[string]any{"context": "lint", "app_id": nil}}}})
	before := s.State(s.repo)
	s.apply(enforce.Options{Classic: true})
	assert.Assert(t, s.State(s.repo) != before)
	_, err := enforce.Remove(t.Context(), s.api(admin), s.want, enforce.Options{Classic: true})
	assert.NilError(t, err)
	assert.Equal(t, s.State(s.repo), before)
}

func TestClassicSaysWhatToDoWhereThereIsNone(t *testing.T) {
	s := newSite(t)
	classic := enforce.Options{Classic: true}
	_, err := enforce.Apply(t.Context(), s.api(admin), s.want, classic)
	assert.ErrorContains(t, err, `branch main has no classic protection ("Branch not protected"): apply without --classic`)
	r, err := enforce.Remove(t.Context(), s.api(admin), s.want, classic)
	assert.NilError(t, err)
	assert.Equal(t, actions(r), "none")
	s.Protect(s.repo, "main", nil)
	_, err = enforce.Apply(t.Context(), s.api(admin), s.want, classic)
	assert.ErrorContains(t, err, "switch on \"Require status checks to pass before merging\"")
	// A bare 404 is no statement about the branch.
	for _, token := range []string{plain, person} {
		_, err = enforce.Apply(t.Context(), s.api(token), s.want, classic)
		assert.ErrorContains(t, err, "needs the repository permission administration:write")
		_, err = enforce.Remove(t.Context(), s.api(token), s.want, classic)
		assert.ErrorContains(t, err, "needs the repository permission administration:write")
	}
	_, err = enforce.Apply(t.Context(), s.api(admin), s.want, enforce.Options{Classic: true, Enforcement: enforce.Evaluate})
	assert.ErrorContains(t, err, "knows no enforcement evaluate")
	assert.Equal(t, len(forgetest.Writes(s.Calls())), 0)
}

func TestWhatMakesNoSenseIsRefusedBeforeAnythingIsAsked(t *testing.T) {
	s := newSite(t)
	for said, change := range map[string]func(*enforce.Want){
		"no repository":           func(w *enforce.Want) { w.Name = "" },
		"no required checks":      func(w *enforce.Want) { w.Checks = nil },
		"reviews are 0 to 10":     func(w *enforce.Want) { w.Reviews = 11 },
		"which is GitHub Actions": func(w *enforce.Want) { w.PublisherApp = enforce.ActionsApp },
	} {
		want := s.want
		change(&want)
		_, err := enforce.Plan(t.Context(), s.api(plain), want)
		assert.ErrorContains(t, err, said)
	}
	assert.Equal(t, len(s.Calls()), 0)
	s.want.Name = "other"
	_, err := enforce.Plan(t.Context(), s.api(plain), s.want)
	assert.ErrorContains(t, err, "there is no repository acme/other, or the token may not see it")
}

// Whichever read it is that fails for good: no report comes of it.
func TestAForgeThatDoesNotAnswerIsAnError(t *testing.T) {
	s := newSite(t)
	s.apply(enforce.Options{})
	s.Calls()
	_, err := enforce.Plan(t.Context(), s.api(plain), s.want)
	assert.NilError(t, err)
	for at := range s.Calls() {
		for range at {
			s.Fail(forgetest.Fault{Pass: true})
		}
		for range 5 {
			s.Fail(forgetest.Fault{Status: 502})
		}
		_, err := enforce.Plan(t.Context(), s.api(plain), s.want)
		assert.ErrorContains(t, err, "502 Bad Gateway")
		s.ClearFaults()
	}
}

func TestReviewsOfZeroClaimNone(t *testing.T) {
	s := newSite(t)
	s.want.Reviews = 0
	r := s.apply(enforce.Options{})
	assert.Assert(t, !strings.Contains(s.State(s.repo), "pull_request"))
	says(t, r.After, "enforce/review", judge.Unclaimed, "enforce.reviews is 0")
	says(t, r.After, "enforce/codeowners", judge.Unclaimed, "enforce.reviews is 0")
	assert.Equal(t, judge.Sum(r.After.Checks, nil).Status, judge.Pass)
}
