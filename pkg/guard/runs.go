package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// posted is what the forge shows at the head of a change.
type posted struct {
	checks   []forge.CheckRun
	runs     map[int64]forge.Run     // by check suite
	jobs     map[int64]bool          // the check runs that are jobs of these runs
	statuses map[string]forge.Status // the latest of each name
}

// head is the commit that checks are posted at: a queued commit is its own.
func (c *Change) head() gitrepo.Hash {
	if c.Event == "merge_group" {
		return c.Merge
	}
	return c.Pull.Head
}

// posted reads what was posted at the head. Runs are read after the check runs,
// so that what was read has its run by then.
func (c *Change) posted(ctx context.Context, o Options) (*posted, error) {
	p := &posted{runs: map[int64]forge.Run{}, jobs: map[int64]bool{}, statuses: map[string]forge.Status{}}
	var err error
	if p.checks, err = c.repo.CheckRuns(ctx, c.head()); err != nil {
		return nil, err
	}
	statuses, err := c.repo.Statuses(ctx, c.head())
	if err != nil {
		return nil, err
	}
	for _, s := range statuses {
		if s.ID > p.statuses[s.Context].ID {
			p.statuses[s.Context] = s
		}
	}
	runs, err := c.repo.Runs(ctx, c.head())
	if err != nil {
		return nil, err
	}
	for _, r := range runs {
		p.runs[r.Suite] = r
	}
	read := map[int64]bool{}
	for _, check := range p.checks {
		if read[check.Suite] || !slices.Contains(o.Checks, check.Name) {
			continue
		}
		read[check.Suite] = true
		run, ok := p.runs[check.Suite]
		if !ok {
			if run, ok, err = c.repo.RunOfSuite(ctx, check.Suite); err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			p.runs[check.Suite] = run
		}
		jobs, err := c.repo.Jobs(ctx, run.ID)
		if err != nil {
			return nil, err
		}
		maps.Copy(p.jobs, jobs)
	}
	return p, nil
}

// judgeRuns judges who posted the required names at the head, and what the run
// that judged it concluded.
func (c *Change) judgeRuns(ctx context.Context, o Options, approved bool) []judge.Check {
	const (
		sources = "each required name was posted by jobs of one unchanged or approved workflow, and by nothing else"
		run     = "the run that judged this head is of the base's workflow, and each required job succeeded"
	)
	for left := o.Wait; ; left -= runPause {
		p, err := c.posted(ctx, o)
		if err == nil && left > 0 && c.running(p, o) {
			if err = c.sleep(ctx, min(left, runPause)); err == nil {
				continue
			}
		}
		if err != nil {
			err = fmt.Errorf("what was posted at %s: %w", c.head(), err)
			return []judge.Check{judge.Unjudged("guard/sources", sources, err), judge.Unjudged("guard/run", run, err)}
		}
		detail := fmt.Sprintf("%d check runs and %d statuses at %s", len(p.checks), len(p.statuses), c.head())
		return []judge.Check{
			judge.Judged("guard/sources", sources, detail, c.judgeSources(p, o, approved)...),
			c.judgeRun(p, o, approved, "guard/run", run),
		}
	}
}

// distrust says why a run's result counts for nothing; nil when it counts. The
// forge takes the workflow of a pull_request_target from the default branch, and
// of all others from the change.
func (c *Change) distrust(r forge.Run) error {
	base, merge := c.BaseTree.ID(r.Path), c.MergeTree.ID(r.Path)
	switch {
	case r.Event == "pull_request_target" || base != "" && base == merge:
		return nil
	case base == "":
		return errors.New("which the base does not have")
	}
	return errors.New("which the change changes")
}

// judgeSources finds whatever else than a workflow's own job posted a required
// name.
func (c *Change) judgeSources(p *posted, o Options, approved bool) []judge.Finding {
	var findings []judge.Finding
	add := func(f judge.Finding, format string, args ...any) {
		f.Message = fmt.Sprintf(format, args...)
		findings = append(findings, f)
	}
	for _, name := range o.Checks {
		paths := map[string]bool{}
		state := "missing" // of the name, the worst
		for _, check := range p.latest(name) {
			if state == "missing" || state == "success" {
				state = cmp.Or(check.Conclusion, "pending")
			}
			run, ok := p.runs[check.Suite]
			switch {
			case o.App != 0 && check.App != o.App:
				add(judge.Finding{}, "%s was posted by App %d, want App %d", name, check.App, o.App)
			case !ok && o.App == 0:
				add(judge.Finding{Warning: true}, "%s was posted by App %d and no workflow: with app 0 any source may", name, check.App)
			case !ok || !p.jobs[check.ID]:
				add(judge.Finding{}, "%s was posted through the API (check run %d), not by a job of a workflow", name, check.ID)
			default:
				paths[run.Path] = true
				if why := c.distrust(run); why != nil {
					add(judge.Finding{Path: run.Path, Warning: approved}, "%s was posted by workflow %s, %v", name, run.Path, why)
				}
			}
		}
		if len(paths) > 1 {
			add(judge.Finding{}, "%s was posted by %d workflows, which the forge cannot tell apart: %s", name, len(paths), strings.Join(slices.Sorted(maps.Keys(paths)), ", "))
		}
		if s, ok := p.statuses[name]; ok {
			// A status may say what the check says, and no more: tools that read
			// only one of the two must come to the same.
			add(judge.Finding{Warning: s.State == state}, "%s was also posted as a status, %s, as anybody can who may push; the check itself is %s", name, s.State, state)
		}
	}
	return findings
}

// latest returns the last check run of a name in each suite, in the order of
// suites: a job that was run again replaces itself.
func (p *posted) latest(name string) []forge.CheckRun {
	last := map[int64]forge.CheckRun{}
	for _, c := range p.checks {
		if c.Name == name && c.ID > last[c.Suite].ID {
			last[c.Suite] = c
		}
	}
	var all []forge.CheckRun
	for _, suite := range slices.Sorted(maps.Keys(last)) {
		all = append(all, last[suite])
	}
	return all
}

// judging returns the last run that each event caused of the workflow that
// judges changes.
func (c *Change) judging(p *posted, o Options) map[string]forge.Run {
	last := map[string]forge.Run{}
	for _, r := range p.runs {
		if r.Path == o.Workflow && r.ID > last[r.Event].ID {
			last[r.Event] = r
		}
	}
	return last
}

// mine returns the run that judged this change.
func (c *Change) mine(p *posted, o Options) (forge.Run, bool) {
	event := "pull_request"
	if c.Event == "merge_group" {
		event = c.Event
	}
	r, ok := c.judging(p, o)[event]
	return r, ok
}

// running says that a verdict may still come. A run that a maintainer must let
// run first has ended, as the forge states it, without having begun.
func (c *Change) running(p *posted, o Options) bool {
	r, ok := c.mine(p, o)
	return !ok || !r.Done || r.Conclusion == "action_required"
}

// judgeRun judges the run that judged the change.
func (c *Change) judgeRun(p *posted, o Options, approved bool, id, claim string) judge.Check {
	pending := func(what string) judge.Check {
		return judge.NotClaimed(id, claim, fmt.Sprintf("not judged: %s; the forge itself must require %s", what, strings.Join(o.Checks, ", ")))
	}
	if c.running(p, o) {
		return pending("no run of " + o.Workflow + " for this head has ended")
	}
	mine, _ := c.mine(p, o)
	last := c.judging(p, o)
	var findings []judge.Finding
	if why := c.distrust(mine); why != nil {
		findings = append(findings, judge.Finding{
			Path: mine.Path, Warning: approved, Message: fmt.Sprintf("run %d is of workflow %s, %v", mine.ID, mine.Path, why),
		})
	}
	add := func(format string, args ...any) {
		findings = append(findings, judge.Finding{Message: fmt.Sprintf(format, args...)})
	}
	var waiting []string
	for _, name := range o.Checks {
		if name == o.Self {
			continue
		}
		seen := false
		for _, check := range p.latest(name) {
			run, ok := p.runs[check.Suite]
			if ok && run.Path == o.Workflow && last[run.Event].ID != run.ID {
				continue // a later run took its place
			}
			// Another workflow's word counts where it is that workflow's job.
			seen = seen || check.Suite == mine.Suite || ok && run.Path != o.Workflow
			switch check.Conclusion {
			case "success":
			case "":
				waiting = append(waiting, name)
			case "skipped", "neutral":
				add("%s is %s: it judged nothing, and the forge takes that for a success", name, check.Conclusion)
			default:
				add("%s ended with %s", name, check.Conclusion)
			}
		}
		if !seen {
			add("run %d has ended, and no job of it is %s", mine.ID, name)
		}
	}
	check := judge.Judged(id, claim, fmt.Sprintf("run %d of %s", mine.ID, mine.Path), findings...)
	if check.Status == judge.Pass && len(waiting) > 0 {
		return pending(strings.Join(waiting, ", ") + " has not ended")
	}
	return check
}
