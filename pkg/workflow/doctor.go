package workflow

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/rhysd/actionlint"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// Options say what a repository demands of its workflows. Nothing of it is
// required.
type Options struct {
	// Required are the checks that protect the branch, by name. They must be
	// posted by jobs of these workflows.
	Required []string
	// Unnamed says why Required is empty, when there is more to say.
	Unnamed string
	// Branch is the protected branch; "" if it is not known, and then only a
	// filter that matches no branch at all is found wanting.
	Branch string
	// Gates are commands, besides remembrancer, whose exit status is a verdict,
	// as scripts call them: "./SMOKE_TEST.sh".
	Gates []string
}

// doctor is one call of Doctor.
type doctor struct {
	*Set
	opts     Options
	required []required
	gate     *regexp.Regexp
}

// Doctor judges a set. The checks are always the same ones, in the same order;
// what nothing is claimed of is unclaimed.
func Doctor(s *Set, opts Options) []judge.Check {
	d := &doctor{Set: s, opts: opts, required: s.required(opts.Required)}
	gates := `(?:[^\s;&|()]*/)?remembrancer(?:\.exe)?\s`
	for _, g := range opts.Gates {
		if g = strings.TrimSpace(g); g != "" {
			gates += "|" + regexp.QuoteMeta(g) + `(?:\s|$|[;&|)])`
		}
	}
	d.gate = regexp.MustCompile(`(?:^|[\s;&|(!"'])(?:` + gates + `)`)

	checks := []judge.Check{d.syntax()}
	for _, r := range []struct {
		id, claim string
		run       func() []judge.Finding
	}{
		{"skippable", "no required job can be skipped, which would count as a success", d.skippable},
		{"collision", "each required check is posted by one job", d.collision},
		{"path-filter", "the workflows of required jobs run for every change", d.pathFilter},
		{"merge-group", "the workflows of required jobs run in a merge queue", d.mergeGroup},
	} {
		if len(opts.Required) == 0 {
			checks = append(checks, judge.NotClaimed("doctor/"+r.id, r.claim, cmp.Or(opts.Unnamed, "nothing names the required checks")))
			continue
		}
		checks = append(checks, s.judged("doctor/"+r.id, r.claim, "required: "+strings.Join(opts.Required, ", "), r.run()))
	}
	detail := fmt.Sprintf("%d workflows, %d actions", len(s.workflows), len(s.actions))
	nothing := len(s.workflows)+len(s.actions)+len(s.broken) == 0
	always := func(id, claim string, run func() []judge.Finding) {
		if nothing {
			checks = append(checks, judge.NotClaimed("doctor/"+id, claim, pinsNobody))
			return
		}
		checks = append(checks, s.judged("doctor/"+id, claim, detail, run()))
	}
	always("pull-request-target", "no workflow runs the code of a change where it could reach secrets", d.pullRequestTarget)
	always("permissions", "every token can do what its job needs, and no more", d.permissions)
	checks = append(checks, s.pins("doctor/unpinned-action"))
	always("script-injection", "no text that anybody can write becomes part of a script", d.scriptInjection)
	always("credentials", "the code of a change finds no token that a checkout left", d.credentials)
	always("timeouts", "required jobs end by themselves, and no verdict is swallowed", d.timeouts)
	publishers := d.publishers()
	for _, r := range []struct {
		id, claim string
		run       func([]publisher) []judge.Finding
	}{
		{"concurrency", "publications wait for each other and are never cancelled", d.concurrency},
		{"secrets", "the publisher's keys are out of a change's reach", d.secrets},
	} {
		if len(publishers) == 0 {
			checks = append(checks, judge.NotClaimed("doctor/"+r.id, r.claim, "no workflow here publishes"))
			continue
		}
		checks = append(checks, s.judged("doctor/"+r.id, r.claim, detail, r.run(publishers)))
	}
	always("bot-actor", "no condition believes who started a run", d.botActor)
	return checks
}

// Posts tells whether a job of the set posts a check of this name.
func Posts(s *Set, name string) bool {
	r := s.required([]string{name})[0]
	return len(r.posts) > 0 && !r.maybe
}

func (d *doctor) syntax() judge.Check {
	const id, claim = "doctor/syntax", "GitHub can read every workflow and action"
	if len(d.workflows)+len(d.actions)+len(d.broken) == 0 {
		return judge.NotClaimed(id, claim, pinsNobody)
	}
	return judge.Judged(id, claim, fmt.Sprintf("%d workflows, %d actions", len(d.workflows), len(d.actions)), d.broken...)
}

const fixNeeds = "add if: always(), and a step that fails unless needs.*.result are what they must be"

func (d *doctor) skippable() []judge.Finding {
	var found []judge.Finding
	for _, r := range d.required {
		if len(r.posts) == 0 {
			p, hint := d.nobody(r.name)
			f := judge.Finding{Message: fmt.Sprintf("no job posts the required check %q: %s", r.name, hint), Fix: "name the job so, or require another name"}
			if p != nil {
				f.Path, f.Line, f.Column = p.job().file.path, p.job().Pos.Line, p.job().Pos.Col
			}
			found = append(found, f)
			continue
		}
		if r.maybe {
			p := r.posts[0]
			found = append(found, p.job().file.warn(p.job().Pos, "give the job a name without expressions", "whether job %s posts the required check %q depends on an expression", p.job().ID.Value, r.name))
		}
		for _, p := range r.posts {
			for _, j := range p.chain {
				found = append(found, d.skips(r.name, j)...)
			}
		}
	}
	return once(found)
}

// skips says how a job that posts a required check can be skipped, or succeed
// without having looked at what it stands for.
func (d *doctor) skips(name string, j *job) []judge.Finding {
	switch {
	case j.If != nil && !always(j.If, len(j.Needs) > 0):
		return []judge.Finding{j.file.at(j.If.Pos, "remove the if: of the job and put conditions on its steps", "job %s posts the required check %q, and its if: can skip it: a skipped job counts as a success", j.ID.Value, name)}
	case len(j.Needs) == 0:
		return nil
	case j.If == nil:
		return []judge.Finding{j.file.at(j.Needs[0].Pos, fixNeeds, "job %s posts the required check %q and is skipped, which counts as a success, when a job that it needs fails", j.ID.Value, name)}
	}
	for _, n := range j.Needs {
		needed := j.file.job(n.Value)
		if needed == nil || !d.requiredJob(needed) {
			if readsNeeds(j) {
				return nil
			}
			return []judge.Finding{j.file.at(n.Pos, fixNeeds, "job %s posts the required check %q whatever became of %s: it runs always and looks at no result", j.ID.Value, name, n.Value)}
		}
	}
	return nil
}

// requiredJob tells whether a job posts a required check.
func (d *doctor) requiredJob(j *job) bool { return d.checkOf(j) != "" }

// checkOf returns the required check that a job posts, by itself or by being
// called; "" for none.
func (d *doctor) checkOf(j *job) string {
	for _, r := range d.required {
		for _, p := range r.posts {
			if !r.maybe && slices.Contains(p.chain, j) {
				return r.name
			}
		}
	}
	return ""
}

// readsNeeds tells whether anything in a job, but for its own condition, looks
// at the jobs it needs.
func readsNeeds(j *job) bool {
	found := false
	look := func(s *actionlint.String) {
		node, _ := condition(s)
		for _, p := range paths(node) {
			found = found || p == "needs" || strings.HasPrefix(p, "needs.")
		}
	}
	for k, v := range pairs(j.node) {
		if k.Value == "if" || k.Value == "needs" {
			continue
		}
		scalars(v, func(n *node) {
			for _, p := range reads(n.Value) {
				found = found || p == "needs" || strings.HasPrefix(p, "needs.")
			}
		})
	}
	for _, s := range j.Steps {
		look(s.If)
	}
	return found
}

// once removes findings that were made more than once.
func once(all []judge.Finding) []judge.Finding {
	var kept []judge.Finding
	for _, f := range all {
		if !slices.Contains(kept, f) {
			kept = append(kept, f)
		}
	}
	return kept
}

func (d *doctor) collision() []judge.Finding {
	var found []judge.Finding
	for _, r := range d.required {
		if r.maybe {
			continue
		}
		for i, a := range r.posts {
			for _, b := range r.posts[:i] {
				if a.job() == b.job() && a.flow == b.flow || !meet(a.flow, b.flow) {
					continue
				}
				found = append(found, a.job().file.at(a.job().Pos, "give one of the two jobs another name", "job %s posts the required check %q, and so does job %s of %s:%d: either satisfies it",
					a.job().ID.Value, r.name, b.job().ID.Value, b.job().file.path, b.job().Pos.Line))
			}
		}
	}
	return once(found)
}

// meet tells whether two workflows can post on one commit: the head of a change,
// or that of a merge queue. A run of a schedule posts on the branch.
func meet(a, b *file) bool {
	if a == b {
		return true
	}
	kinds := func(f *file) (head, queue bool) {
		for _, e := range f.own() {
			switch e {
			case "merge_group":
				queue = true
			case "pull_request", "pull_request_target", "workflow_dispatch":
				head = true
			case "push":
				head = head || f.anyPush()
			}
		}
		return head, queue
	}
	h1, q1 := kinds(a)
	h2, q2 := kinds(b)
	return h1 && h2 || q1 && q2
}

// anyPush tells whether a push to any branch starts the workflow.
func (f *file) anyPush() bool {
	e := f.on("push")
	if e == nil {
		return false
	}
	tagsOnly := e.Tags != nil && e.Branches == nil && e.BranchesIgnore == nil
	some := e.Branches != nil && !slices.ContainsFunc(e.Branches.Values, func(v *actionlint.String) bool { return strings.Contains(v.Value, "*") })
	return !tagsOnly && !some
}

func (d *doctor) pathFilter() []judge.Finding {
	var found []judge.Finding
	for _, r := range d.required {
		var dead []judge.Finding
		runs := len(r.posts) == 0
		for _, p := range r.posts {
			f := p.flow
			any := false
			for _, name := range []string{"pull_request", "pull_request_target"} {
				if e := f.on(name); e != nil {
					any = true
					found = append(found, d.filtered(f, e, r.name)...)
				}
			}
			switch {
			case any:
				runs = true
			case f.anyPush():
				runs = true
				found = append(found, f.warn(f.onPos(), "add pull_request: to on:", "the required check %q is posted on pushes only: a change from a fork never gets it", r.name))
			default:
				dead = append(dead, f.at(f.onPos(), "add pull_request: to on:", "no pull request starts the workflow that posts the required check %q: it waits forever", r.name))
			}
		}
		if !runs {
			found = append(found, dead...)
		}
	}
	return once(found)
}

// filtered says which changes do not start a workflow on this event.
func (d *doctor) filtered(f *file, e *actionlint.WebhookEvent, check string) []judge.Finding {
	var found []judge.Finding
	for _, filter := range []*actionlint.WebhookEventFilter{e.Paths, e.PathsIgnore} {
		if filter != nil {
			found = append(found, f.at(filter.Name.Pos, "remove the filter, and put conditions on steps",
				"%s: keeps the workflow from running for some changes, and the required check %q waits forever", filter.Name.Value, check))
		}
	}
	const fix = "remove the filter"
	branch := strings.TrimSpace("the protected branch " + d.opts.Branch)
	if b := e.Branches; b != nil {
		none := !slices.ContainsFunc(b.Values, func(v *actionlint.String) bool { return !strings.HasPrefix(v.Value, "!") })
		if none || d.opts.Branch != "" && !branchFilter(b, d.opts.Branch) {
			found = append(found, f.at(b.Name.Pos, fix, "%s: leaves out %s, so the required check %q is never posted", b.Name.Value, branch, check))
		}
	}
	if b := e.BranchesIgnore; b != nil && (everything(b) || d.opts.Branch != "" && branchFilter(b, d.opts.Branch)) {
		found = append(found, f.at(b.Name.Pos, fix, "%s: leaves out %s, so the required check %q is never posted", b.Name.Value, branch, check))
	}
	if len(e.Types) > 0 {
		for _, want := range []string{"opened", "synchronize"} {
			if !slices.ContainsFunc(e.Types, func(t *actionlint.String) bool { return t.Value == want }) {
				found = append(found, f.at(e.Types[0].Pos, "add opened, synchronize and reopened to types:, or remove it",
					"types: leaves out %s, so the required check %q is not posted for every commit of a change", want, check))
			}
		}
	}
	return found
}

func (d *doctor) mergeGroup() []judge.Finding {
	var found []judge.Finding
	for _, r := range d.required {
		if len(r.posts) == 0 || slices.ContainsFunc(r.posts, func(p post) bool { return slices.Contains(p.flow.own(), "merge_group") }) {
			continue
		}
		f := r.posts[0].flow
		found = append(found, f.at(f.onPos(), "add merge_group: to on:", "the required check %q is never posted in a merge queue, which then waits until it gives up", r.name))
	}
	return once(found)
}
