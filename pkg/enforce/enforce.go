// Package enforce makes a forge demand the checks: it reads what GitHub really
// requires of a branch, and writes and removes the rules that require it.
//
// A check that nobody requires stops nobody. One that is required from any
// source is posted by anyone who may write: a status of that name is enough. So
// a check counts as held only when it is required and pinned to the App that
// must post it. What is said of each:
//
//   - pinned: required, and only the wanted App's result counts
//   - other-app: required, but pinned to an App that is not the wanted one
//   - spoofable: required, from any source
//   - missing: not required
//   - unreadable: no rule that was read requires it, and not all could be read
//
// [Plan] needs no more than a token that can read. The rules in effect
// (GET /repos/{o}/{r}/rules/branches/{b}) are shown to everybody, those of the
// organisation with them. The older classic protection is shown to
// administrators only; to all others a protected branch answers 404, so a 404
// is no proof that there is nothing. What could not be read is unreadable, and
// names the permission that is lacking. Two things are unknown to most tokens
// and no fault of the repository's: who may pass the rules by, and with that
// whether the publisher can push. They are then said to be unknown, which is
// neither a pass nor a failure.
//
// [Apply] owns exactly two rulesets, by name:
//
//   - "remembrancer: history", on the default branch, the claim branch and a
//     ledger branch: no deletion, no force push, no bypass
//   - "remembrancer: gate", on the default branch: a pull request with the
//     review of code owners, approvals that a push dismisses, the last push
//     approved by somebody else, and the required checks, each pinned to its App;
//     the publisher's App may pass, if one is named, and nobody else
//
// Branches need not be up to date (strict is off): with it, each commit of the
// publisher would put every open pull request out of date.
//
// What others wrote is kept. Rulesets of other names are never touched. In
// these two, rules and parameters that this package does not know are sent back
// as they were read; required checks that somebody added stay;
// and a value that is stricter than wanted stays. Only what loosens the rules is
// taken back: foreign actors on the bypass list, excluded branches, a check that
// was unpinned. The bodies are built by hand from raw JSON, since a library with
// types refuses or forgets rules that are newer than itself. After writing, the
// rules in effect are read again, and an apply that did not take is an error.
//
// With Classic, the required checks of classic protection are patched instead:
// only that list, with all other entries in it; reviews, administrators and
// restrictions are never sent. A branch that has no classic protection gets none.
//
// [Remove] deletes the two rulesets, if they are as Apply makes them for this
// same Want. Classic protection does not say who added a check to its list: there
// Remove takes out the wanted checks that are pinned to the wanted App, also if
// somebody else had put them there before.
package enforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// ActionsApp is GitHub Actions. All workflows of a repository post as this App.
const ActionsApp = 15368

// Bounds on what is read.
const (
	maxRules    = 2000
	maxRulesets = 1000
	maxPosted   = 2000
)

// Want is what a configuration claims of a repository on the forge.
type Want struct {
	Owner, Name string
	// Branch is the branch that changes are merged to; "" is the default branch.
	Branch string
	// Keep are the other branches whose history must stay: the claim branch, and
	// a ledger branch.
	Keep []string
	// PublishTo is the branch that the publisher pushes to; "" is Branch.
	PublishTo string
	// Checks are the names of the required checks.
	Checks []string
	// App must post them; 0 is any App, which leaves them spoofable.
	App int64
	// PublisherApp may pass the rules; 0 is none.
	PublisherApp int64
	// Reviews is the number of approvals a change needs; 0 claims no review.
	Reviews int
	// GateOwned are patterns of the files that decide the gates, which must have
	// code owners: path.Match's, and ** for any number of elements.
	GateOwned []string
}

// Check says what of it makes no sense.
func (w *Want) Check() error {
	switch {
	case w.Owner == "" || w.Name == "":
		return errors.New("no repository: want OWNER/NAME")
	case len(w.Checks) == 0 || slices.Contains(w.Checks, ""):
		return errors.New("no required checks: enforce.checks names them")
	case w.App < 0 || w.PublisherApp < 0 || w.Reviews < 0 || w.Reviews > 10:
		return errors.New("an App is a number from 0, and reviews are 0 to 10")
	case w.PublisherApp == ActionsApp:
		return fmt.Errorf("the publisher's App is %d, which is GitHub Actions: the forge lets it past no rules; make an App of your own and name it as enforce.publisher-app", ActionsApp)
	}
	return nil
}

func (w *Want) path(elements ...string) string {
	return forge.Path(slices.Concat([]string{"repos", w.Owner, w.Name}, elements)...)
}

// What becomes of a required check.
const (
	Pinned     = "pinned"
	OtherApp   = "other-app"
	Spoofable  = "spoofable"
	Missing    = "missing"
	Unreadable = "unreadable"
)

// Required is what the forge demands of one check.
type Required struct {
	Name  string `json:"name"`
	State string `json:"state"`
	// App is the App it is pinned to; 0 for none.
	App int64 `json:"app"`
	// Shared says that every workflow of the repository posts as this App.
	Shared bool `json:"shared,omitempty"`
	// By names the rules that require it.
	By []string `json:"by"`
	// Lacking is the permission, or the forge's words, for Unreadable.
	Lacking string `json:"lacking,omitempty"`
}

// Report is what was read.
type Report struct {
	Repository string        `json:"repository"`
	Branch     string        `json:"branch"`
	Required   []Required    `json:"required"`
	Checks     []judge.Check `json:"checks"`
	// Notes are what a person should know and no check judges.
	Notes []string `json:"notes"`
}

// rule is a rule in effect. Its parameters stay raw: of most types they are
// nobody's business here.
type rule struct {
	Type       string          `json:"type"`
	Parameters json.RawMessage `json:"parameters"`
	SourceType string          `json:"ruleset_source_type"`
	Source     string          `json:"ruleset_source"`
	ID         int64           `json:"ruleset_id"`
}

func (r rule) by() string {
	return fmt.Sprintf("ruleset %d of %s %s", r.ID, strings.ToLower(r.SourceType), r.Source)
}

// reader reads one repository, and remembers.
type reader struct {
	api           *forge.REST
	want          Want
	defaultBranch string
	rulesets      map[int64]*bypass
}

// branch is what holds for one branch.
type branch struct {
	name    string
	head    string // "" when the branch does not exist
	rules   []rule
	classic classic
	// lacking says why the rules in effect could not be read; "" when they were.
	lacking string
}

// classic is the classic protection of a branch.
type classic struct {
	// lacking is the permission to read it; "" when all of it is known.
	lacking string
	there   bool
	checks  []statusCheck // also without the permission, what the branch shows of them
	detail  protection
}

type statusCheck struct {
	Context string `json:"context"`
	App     *int64 `json:"app_id"`
}

type protection struct {
	Checks *struct {
		Checks []statusCheck `json:"checks"`
	} `json:"required_status_checks"`
	Admins  switched `json:"enforce_admins"`
	Force   switched `json:"allow_force_pushes"`
	Delete  switched `json:"allow_deletions"`
	Reviews *struct {
		DismissStale bool `json:"dismiss_stale_reviews"`
		CodeOwners   bool `json:"require_code_owner_reviews"`
		Count        int  `json:"required_approving_review_count"`
	} `json:"required_pull_request_reviews"`
	Restrictions *struct{} `json:"restrictions"`
}

type switched struct {
	Enabled bool `json:"enabled"`
}

func newReader(ctx context.Context, api *forge.REST, want Want) (*reader, error) {
	if err := want.Check(); err != nil {
		return nil, err
	}
	r := &reader{api: api, want: want, rulesets: map[int64]*bypass{}}
	a, err := api.Get(ctx, want.path())
	if forge.IsNotFound(err) {
		return nil, fmt.Errorf("%w: there is no repository %s/%s, or the token may not see it", err, want.Owner, want.Name)
	}
	if err != nil {
		return nil, err
	}
	var repo struct {
		DefaultBranch string `json:"default_branch"`
	}
	if err := json.Unmarshal(a.Body, &repo); err != nil || repo.DefaultBranch == "" {
		return nil, fmt.Errorf("repository %s/%s: the answer names no default branch", want.Owner, want.Name)
	}
	r.defaultBranch = repo.DefaultBranch
	if r.want.Branch == "" {
		r.want.Branch = repo.DefaultBranch
	}
	r.want.Keep = nil
	for _, name := range want.Keep {
		if name != "" && name != r.want.Branch && !slices.Contains(r.want.Keep, name) {
			r.want.Keep = append(r.want.Keep, name)
		}
	}
	return r, nil
}

// lacking returns what a token that was refused lacks, and whether it was
// refused for that: any other error is no statement about the repository.
func lacking(err error, otherwise string) (string, bool) {
	var e *forge.APIError
	if !errors.As(err, &e) || !forge.IsForbidden(err) && !forge.IsNotFound(err) {
		return "", false
	}
	switch {
	case e.Needs != "":
		return strings.ReplaceAll(e.Needs, "=", ":"), true
	case strings.Contains(e.Message, "Upgrade"): // the plan lacks the feature, not the token a permission
		return e.Message, true
	}
	return otherwise, true
}

func message(err error) string {
	var e *forge.APIError
	if errors.As(err, &e) {
		return e.Message
	}
	return ""
}

func (r *reader) branch(ctx context.Context, name string) (*branch, error) {
	b := &branch{name: name}
	list, err := r.api.GetPages(ctx, r.want.path("rules", "branches", name), "", maxRules)
	if err != nil {
		l, refused := lacking(err, "metadata:read")
		if !refused {
			return nil, err
		}
		b.lacking = l
	}
	for _, raw := range list {
		var x rule
		if err := json.Unmarshal(raw, &x); err != nil || x.Type == "" {
			return nil, fmt.Errorf("rules of branch %s: found %.200s, want a rule with a type", name, raw)
		}
		b.rules = append(b.rules, x)
	}
	return b, r.protection(ctx, b)
}

// protection reads the classic protection of a branch, as far as the token may.
func (r *reader) protection(ctx context.Context, b *branch) error {
	a, err := r.api.Get(ctx, r.want.path("branches", b.name))
	if forge.IsNotFound(err) && message(err) == "Branch not found" {
		return nil
	}
	if err != nil {
		l, refused := lacking(err, "contents:read")
		if !refused {
			return err
		}
		b.classic.lacking = l
		return nil
	}
	var shown struct {
		Protected *bool `json:"protected"`
		Commit    struct {
			SHA string `json:"sha"`
		} `json:"commit"`
		Protection protection `json:"protection"`
	}
	if err := json.Unmarshal(a.Body, &shown); err != nil || shown.Protected == nil {
		return fmt.Errorf("branch %s: the answer does not say whether it is protected", b.name)
	}
	b.head = shown.Commit.SHA
	if !*shown.Protected {
		return nil
	}
	a, err = r.api.Get(ctx, r.want.path("branches", b.name, "protection"))
	switch l, refused := lacking(err, "administration:read"); {
	case err == nil:
		b.classic.there = true
		if err := json.Unmarshal(a.Body, &b.classic.detail); err != nil {
			return fmt.Errorf("protection of branch %s: %w", b.name, err)
		}
		if b.classic.detail.Checks != nil {
			b.classic.checks = b.classic.detail.Checks.Checks
		}
	case forge.IsNotFound(err) && message(err) == notProtected:
		// Protected by rulesets alone.
	case refused:
		// What the branch shows to everybody can prove that a check is required,
		// not that one is not.
		b.classic.lacking = l
		if shown.Protection.Checks != nil {
			b.classic.checks = shown.Protection.Checks.Checks
		}
	default:
		return err
	}
	return nil
}

// The forge's words for a branch without classic protection, and for one whose
// protection requires no checks. Any other 404 says only that nothing is shown.
const (
	notProtected = "Branch not protected"
	notEnabled   = "Required status checks not enabled"
)

func (b *branch) has(types ...string) []rule {
	var found []rule
	for _, x := range b.rules {
		if slices.Contains(types, x.Type) {
			found = append(found, x)
		}
	}
	return found
}

// unread says what of the branch could not be read.
func (b *branch) unread() string {
	switch {
	case b.lacking != "":
		return b.lacking
	case b.classic.lacking != "":
		return b.classic.lacking
	}
	return ""
}

// Plan reads what the forge demands of a repository, and writes nothing.
func Plan(ctx context.Context, api *forge.REST, want Want) (*Report, error) {
	r, err := newReader(ctx, api, want)
	if err != nil {
		return nil, err
	}
	return r.plan(ctx)
}

func (r *reader) plan(ctx context.Context) (*Report, error) {
	w := r.want
	report := &Report{Repository: w.Owner + "/" + w.Name, Branch: w.Branch, Notes: []string{}}
	b, err := r.branch(ctx, w.Branch)
	if err != nil {
		return nil, err
	}
	posted, note, err := r.posted(ctx, b.head)
	if err != nil {
		return nil, err
	}
	if note != "" {
		report.Notes = append(report.Notes, note)
	}
	idle, err := r.idle(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range w.Checks {
		required, err := r.required(b, name)
		if err != nil {
			return nil, err
		}
		report.Required = append(report.Required, required)
		report.Checks = append(report.Checks, r.judgeRequired(required, posted[name], b, idle))
	}
	for _, name := range slices.Concat([]string{w.Branch}, w.Keep) {
		kept := b
		if name != w.Branch {
			if kept, err = r.branch(ctx, name); err != nil {
				return nil, err
			}
		}
		report.Checks = append(report.Checks, judgeHistory(kept))
	}
	review, err := r.judgeReview(b)
	if err != nil {
		return nil, err
	}
	owners, err := r.judgeOwners(ctx)
	if err != nil {
		return nil, err
	}
	passing, err := r.judgeBypass(ctx, b, report.Required)
	if err != nil {
		return nil, err
	}
	publisher, err := r.judgePublisher(ctx, b)
	if err != nil {
		return nil, err
	}
	report.Checks = append(report.Checks, review, owners, passing, publisher)
	report.Notes = append(report.Notes, notes(b, report.Required)...)
	return report, nil
}

func notes(b *branch, required []Required) []string {
	var n []string
	if slices.ContainsFunc(required, func(r Required) bool { return r.Shared }) {
		n = append(n, fmt.Sprintf("App %d is GitHub Actions: any workflow of the repository, one that a change adds too, posts as it. "+
			"Who can push a branch can forge these checks; an App of your own, or a workflow that the organisation requires, takes that away", ActionsApp))
	}
	if queue := b.has("merge_queue"); len(queue) > 0 {
		n = append(n, fmt.Sprintf("merge queue (%s): workflows of required checks must start on merge_group, too", queue[0].by()))
	}
	if b.head == "" && b.classic.lacking == "" {
		n = append(n, fmt.Sprintf("branch %s does not exist yet", b.name))
	}
	return n
}

// required collects what demands one check.
func (r *reader) required(b *branch, name string) (Required, error) {
	out := Required{Name: name, By: []string{}, Lacking: b.unread()}
	var apps []int64 // 0: any source
	for _, x := range b.has("required_status_checks") {
		var p struct {
			Checks []struct {
				Context string `json:"context"`
				App     *int64 `json:"integration_id"`
			} `json:"required_status_checks"`
		}
		if err := json.Unmarshal(x.Parameters, &p); err != nil {
			return out, fmt.Errorf("rules of branch %s: required_status_checks of %s: %w", b.name, x.by(), err)
		}
		for _, c := range p.Checks {
			if c.Context == name {
				apps, out.By = append(apps, appOf(c.App)), append(out.By, x.by())
			}
		}
	}
	for _, c := range b.classic.checks {
		if c.Context == name {
			apps, out.By = append(apps, appOf(c.App)), append(out.By, "classic protection")
		}
	}
	wanted := func(app int64) bool { return app > 0 && (app == r.want.App || r.want.App == 0) }
	pinned := func(app int64) bool { return app > 0 }
	switch {
	case slices.ContainsFunc(apps, wanted):
		out.State, out.App = Pinned, apps[slices.IndexFunc(apps, wanted)]
	case slices.ContainsFunc(apps, pinned):
		out.State, out.App = OtherApp, apps[slices.IndexFunc(apps, pinned)]
	case len(apps) > 0:
		out.State = Spoofable
	case out.Lacking != "":
		out.State = Unreadable
	default:
		out.State = Missing
	}
	if out.State != Unreadable {
		out.Lacking = ""
	}
	out.Shared = out.App == ActionsApp
	return out, nil
}

// appOf reads a pin: the forge writes none, null and -1 for any source.
func appOf(id *int64) int64 {
	if id == nil || *id < 0 {
		return 0
	}
	return *id
}

func (r *reader) judgeRequired(q Required, posted []string, b *branch, idle string) judge.Check {
	id, claim := "enforce/required/"+q.Name, "is required, from its App alone"
	by := strings.Join(q.By, ", ")
	const fix = "remembrancer enforce apply"
	var findings []judge.Finding
	var detail string
	switch q.State {
	case Pinned:
		detail = fmt.Sprintf("required and pinned to App %d by %s", q.App, by)
	case OtherApp:
		detail = "required, pinned to another App"
		findings = append(findings, judge.Finding{Message: fmt.Sprintf("required by %s from App %d, wanted from App %d: only the former's result counts", by, q.App, r.want.App), Fix: fix})
	case Spoofable:
		detail = "required but spoofable"
		f := judge.Finding{Message: fmt.Sprintf("required but spoofable: %s takes it from any source, so whoever can write can post a status of this name", by), Fix: fix}
		if r.want.App == 0 {
			f.Fix = "name the App that posts it as enforce.app"
		}
		findings = append(findings, f)
	case Missing:
		detail = "not required"
		findings = append(findings, judge.Finding{Message: fmt.Sprintf("missing: no rule of branch %s requires it%s", b.name, idle), Fix: fix})
	default:
		return judge.Unjudged(id, claim, fmt.Errorf("unreadable: no rule that this token may read requires it; it lacks %s", q.Lacking))
	}
	for _, p := range posted {
		findings = append(findings, judge.Finding{Message: p, Warning: true})
	}
	return judge.Judged(id, claim, detail, findings...)
}

// posted returns, for each wanted check, what its history on a commit says that a
// person should know: who else posted that name, or that nobody did.
func (r *reader) posted(ctx context.Context, head string) (map[string][]string, string, error) {
	if head == "" {
		return nil, "", nil
	}
	runs, err := r.api.GetPages(ctx, r.want.path("commits", head, "check-runs"), "check_runs", maxPosted)
	if l, refused := lacking(err, "checks:read"); refused {
		return nil, "who posted the checks so far is unknown: the token lacks " + l, nil
	}
	if err != nil {
		return nil, "", err
	}
	statuses, err := r.api.GetPages(ctx, r.want.path("commits", head, "statuses"), "", maxPosted)
	if l, refused := lacking(err, "statuses:read"); refused {
		return nil, "who posted statuses of these names is unknown: the token lacks " + l, nil
	}
	if err != nil {
		return nil, "", err
	}
	said := map[string][]string{}
	say := func(name, format string, args ...any) {
		if text := fmt.Sprintf(format, args...); slices.Contains(r.want.Checks, name) && !slices.Contains(said[name], text) {
			said[name] = append(said[name], text)
		}
	}
	here := head[:min(len(head), 12)]
	seen := map[string]bool{}
	for _, raw := range runs {
		var run struct {
			Name string `json:"name"`
			App  struct {
				ID   int64  `json:"id"`
				Slug string `json:"slug"`
			} `json:"app"`
		}
		if err := json.Unmarshal(raw, &run); err != nil {
			return nil, "", fmt.Errorf("check runs of %s: %w", here, err)
		}
		seen[run.Name] = true
		if r.want.App != 0 && run.App.ID != r.want.App {
			say(run.Name, "App %d (%s) posted a check of this name on %s", run.App.ID, run.App.Slug, here)
		}
	}
	for _, raw := range statuses {
		var status struct {
			Context string `json:"context"`
			Creator struct {
				Login string `json:"login"`
			} `json:"creator"`
		}
		if err := json.Unmarshal(raw, &status); err != nil {
			return nil, "", fmt.Errorf("statuses of %s: %w", here, err)
		}
		say(status.Context, "%s posted a status of this name on %s, where a check is wanted", status.Creator.Login, here)
	}
	for _, name := range r.want.Checks {
		if !seen[name] {
			say(name, "no check of this name was posted on %s: where nobody posts it, a required check waits for ever", here)
		}
	}
	return said, "", nil
}

// idle says, for a missing check, that the ruleset is there and only watches.
func (r *reader) idle(ctx context.Context) (string, error) {
	list, err := r.own(ctx)
	if _, refused := lacking(err, ""); refused {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, s := range list {
		if s.Name == gateName && s.Enforcement != "active" {
			return fmt.Sprintf("; ruleset %q is there with enforcement %s, which stops nobody", s.Name, s.Enforcement), nil
		}
	}
	return "", nil
}

func judgeHistory(b *branch) judge.Check {
	id, claim := "enforce/history/"+b.name, "history stays: no force push, no deletion"
	c := b.classic
	var findings []judge.Finding
	unknown := false
	for _, x := range []struct {
		rule, words string
		allowed     bool
	}{{"non_fast_forward", "force pushes", c.detail.Force.Enabled}, {"deletion", "deletion", c.detail.Delete.Enabled}} {
		switch {
		case len(b.has(x.rule)) > 0, c.there && !x.allowed:
		case b.unread() != "":
			unknown = true
		default:
			findings = append(findings, judge.Finding{Message: fmt.Sprintf("nothing bars %s of branch %s", x.words, b.name), Fix: "remembrancer enforce apply"})
		}
	}
	if unknown && findings == nil {
		return judge.Unjudged(id, claim, fmt.Errorf("unreadable: no rule that this token may read bars it; it lacks %s", b.unread()))
	}
	return judge.Judged(id, claim, "branch "+b.name, findings...)
}

func (r *reader) judgeReview(b *branch) (judge.Check, error) {
	const id, claim = "enforce/review", "a change needs the review of a code owner"
	if r.want.Reviews == 0 {
		return judge.NotClaimed(id, claim, "enforce.reviews is 0"), nil
	}
	// Rules of several sources all hold: each part may come from another.
	var owners, stale bool
	count, by := 0, []string{}
	for _, x := range b.has("pull_request") {
		var p struct {
			Stale  bool `json:"dismiss_stale_reviews_on_push"`
			Owners bool `json:"require_code_owner_review"`
			Count  int  `json:"required_approving_review_count"`
		}
		if err := json.Unmarshal(x.Parameters, &p); err != nil {
			return judge.Check{}, fmt.Errorf("rules of branch %s: pull_request of %s: %w", b.name, x.by(), err)
		}
		owners, stale, count, by = owners || p.Owners, stale || p.Stale, max(count, p.Count), append(by, x.by())
	}
	if p := b.classic.detail.Reviews; p != nil {
		owners, stale, count, by = owners || p.CodeOwners, stale || p.DismissStale, max(count, p.Count), append(by, "classic protection")
	}
	var findings []judge.Finding
	add := func(bad bool, format string, args ...any) {
		if bad {
			findings = append(findings, judge.Finding{Message: fmt.Sprintf(format, args...), Fix: "remembrancer enforce apply"})
		}
	}
	add(!owners, "no rule demands the review of code owners")
	add(count < r.want.Reviews, "rules demand %d approvals, wanted %d", count, r.want.Reviews)
	add(!stale, "a push does not dismiss approvals: what is merged is not what was approved")
	if findings != nil && b.unread() != "" {
		return judge.Unjudged(id, claim, fmt.Errorf("unreadable: the rules that this token may read do not demand it; it lacks %s", b.unread())), nil
	}
	return judge.Judged(id, claim, strings.Join(by, ", "), findings...), nil
}

// bypass is who may pass the rules of a ruleset by.
type bypass struct {
	known   bool
	lacking string
	actors  []actor
}

type actor struct {
	ID   *int64 `json:"actor_id"`
	Type string `json:"actor_type"`
	Mode string `json:"bypass_mode,omitempty"`
}

func (a actor) String() string {
	s := a.Type
	if a.ID != nil {
		s += fmt.Sprintf(" %d", *a.ID)
	}
	if a.Mode != "" && a.Mode != "always" {
		s += " (" + a.Mode + ")"
	}
	return s
}

func (a actor) isApp(app int64) bool {
	return app != 0 && a.Type == "Integration" && a.ID != nil && *a.ID == app
}

// bypass reads who may pass a ruleset by. The forge shows it to those who may
// change the ruleset.
func (r *reader) bypass(ctx context.Context, id int64) (*bypass, error) {
	if b := r.rulesets[id]; b != nil {
		return b, nil
	}
	b := &bypass{lacking: "administration:write"}
	a, err := r.api.Get(ctx, r.want.path("rulesets", fmt.Sprint(id))+"?includes_parents=true")
	if l, refused := lacking(err, b.lacking); refused {
		b.lacking = l
	} else if err != nil {
		return nil, err
	} else {
		var shown struct {
			Actors *[]actor `json:"bypass_actors"`
		}
		if err := json.Unmarshal(a.Body, &shown); err != nil {
			return nil, fmt.Errorf("ruleset %d: %w", id, err)
		}
		if shown.Actors != nil {
			b.known, b.actors = true, *shown.Actors
		}
	}
	r.rulesets[id] = b
	return b, nil
}

// judgeBypass says who may pass the required checks by.
func (r *reader) judgeBypass(ctx context.Context, b *branch, required []Required) (judge.Check, error) {
	const id, claim = "enforce/bypass", "it is known who may pass the checks by"
	var findings []judge.Finding
	var ids []int64
	for _, x := range b.has("required_status_checks") {
		if !slices.Contains(ids, x.ID) {
			ids = append(ids, x.ID)
		}
	}
	for _, n := range ids {
		who, err := r.bypass(ctx, n)
		if err != nil {
			return judge.Check{}, err
		}
		if !who.known {
			return judge.NotClaimed(id, claim, fmt.Sprintf("unknown: ruleset %d shows it only to a token with %s", n, who.lacking)), nil
		}
		for _, a := range who.actors {
			if !a.isApp(r.want.PublisherApp) {
				findings = append(findings, judge.Finding{Message: fmt.Sprintf("%s may pass ruleset %d by", a, n), Warning: true})
			}
		}
	}
	if b.classic.there && b.classic.detail.Checks != nil && !b.classic.detail.Admins.Enabled {
		findings = append(findings, judge.Finding{Message: "administrators may pass classic protection by", Warning: true})
	}
	if !slices.ContainsFunc(required, func(q Required) bool { return len(q.By) > 0 }) {
		return judge.NotClaimed(id, claim, "no rule that was read requires the checks"), nil
	}
	if b.classic.lacking != "" && len(ids) == 0 {
		return judge.NotClaimed(id, claim, "unknown: classic protection shows it only to a token with "+b.classic.lacking), nil
	}
	return judge.Judged(id, claim, fmt.Sprintf("%d rulesets require checks", len(ids)), findings...), nil
}

// harmless are the rules that an ordinary push of the publisher obeys. Any other
// may stop it, also one that is newer than this list.
var harmless = []string{
	"deletion", "non_fast_forward", "creation", "required_linear_history", "required_signatures",
	"branch_name_pattern", "tag_name_pattern", "copilot_code_review", "max_file_size", "max_file_path_length",
}

// judgePublisher says whether the publisher can push.
func (r *reader) judgePublisher(ctx context.Context, b *branch) (judge.Check, error) {
	const id, claim = "enforce/publisher", "the publisher can push"
	if to := r.want.PublishTo; to != "" && to != b.name {
		var err error
		if b, err = r.branch(ctx, to); err != nil {
			return judge.Check{}, err
		}
	}
	stops := map[int64][]string{}
	var ids []int64
	for _, x := range b.rules {
		if slices.Contains(harmless, x.Type) {
			continue
		}
		if stops[x.ID] == nil {
			ids = append(ids, x.ID)
		}
		stops[x.ID] = append(stops[x.ID], x.Type)
	}
	classicStops := len(b.classic.checks) > 0 || b.classic.detail.Reviews != nil || b.classic.detail.Restrictions != nil
	if b.lacking != "" {
		return judge.NotClaimed(id, claim, "unknown: the rules of branch "+b.name+" are shown only to a token with "+b.lacking), nil
	}
	var findings []judge.Finding
	unknown := ""
	if classicStops {
		findings = append(findings, judge.Finding{Message: "classic protection of branch " + b.name + " stops pushes, and lets no App past required checks", Fix: "remembrancer enforce apply, and remove the classic protection; or publish to a branch of its own with publish.publish-ref"})
	} else if b.classic.lacking != "" {
		unknown = "classic protection is shown only to a token with " + b.classic.lacking
	}
	for _, n := range ids {
		words := fmt.Sprintf("ruleset %d of branch %s (%s) may stop pushes", n, b.name, strings.Join(stops[n], ", "))
		if r.want.PublisherApp == 0 {
			findings = append(findings, judge.Finding{Message: words})
			continue
		}
		who, err := r.bypass(ctx, n)
		if err != nil {
			return judge.Check{}, err
		}
		passes := slices.ContainsFunc(who.actors, func(a actor) bool { return a.isApp(r.want.PublisherApp) && a.Mode != "pull_request" })
		switch {
		case !who.known:
			unknown = fmt.Sprintf("%s; whether App %d may pass is shown only to a token with %s", words, r.want.PublisherApp, who.lacking)
		case !passes:
			findings = append(findings, judge.Finding{Message: fmt.Sprintf("%s, and App %d may not pass", words, r.want.PublisherApp), Fix: "remembrancer enforce apply adds it to its own ruleset; to others, add it in their settings"})
		}
	}
	if r.want.PublisherApp == 0 && len(findings) > 0 {
		return judge.NotClaimed(id, claim, fmt.Sprintf("%s: name an App that may pass as enforce.publisher-app, or publish to a branch of its own with publish.publish-ref", findings[0].Message)), nil
	}
	if findings == nil && unknown != "" {
		return judge.NotClaimed(id, claim, "unknown: "+unknown), nil
	}
	return judge.Judged(id, claim, "branch "+b.name, findings...), nil
}
