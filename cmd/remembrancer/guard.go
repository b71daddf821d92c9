package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/guard"
	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// guardTime is the most that a judgement takes beside its wait.
const guardTime = 10 * time.Minute

var guardVerb = verb{
	spec: action.Spec{
		Name: "guard", Verb: "guard",
		Summary: "judge a change from outside: what would be merged, who approved it, what judged it",
		Description: "Runs on pull_request_target and merge_group, with a token that can only read, and asks the forge for everything: " +
			"nothing is checked out and nothing of the work tree is read. The base's configuration says what decides the gates; " +
			"a change of that must be approved by a code owner at exactly this head. After a later approval, run the job again: no event of the trusted plane begins with one.\n\n" +
			"The token needs contents, pull-requests, actions, checks and statuses: read. Teams in CODEOWNERS need one that may read the organisation's members.",
		Inputs: []action.Input{
			{Name: "token", Kind: action.Secret, Usage: "Token that may read the repository.", Env: "REMEMBRANCER_TOKEN", ActionDefault: "${{ github.token }}"},
			{Name: "check", Default: "covenant-guard", Usage: "Name of this job among the required checks."},
			{Name: "wait", Kind: action.Duration, Default: "0s", Usage: "How long to wait for the run that judges the change. A run that has not ended is not judged; the forge holds the merge until the required checks succeed."},
			{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON.", CLIOnly: true},
		},
		Outputs: []action.Output{{Name: "verdict", Usage: "pass, fail or error."}},
		Exit:    "3 when the change moved on meanwhile: the run for its newer state judges it.",
	},
	run: runGuard,
}

func runGuard(w *world, v *action.Values, r *action.Runner) error {
	if !r.InActions() {
		return misused("the guard judges the change of an event: it runs in a workflow, on pull_request_target or merge_group")
	}
	e, err := r.Event()
	if err != nil {
		return err
	}
	payload, err := e.Payload()
	if err != nil {
		return err
	}
	event, err := guard.ParseEvent(e.Name, e.Repository, payload)
	if errors.Is(err, guard.ErrPlane) {
		return misused("%v", err)
	}
	if err != nil {
		return err
	}
	api, err := forge.NewREST(e.APIURL, v.String("token"), forge.RESTOptions{})
	if err != nil {
		return err
	}
	repo, err := api.Repository(e.Repository)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(w.ctx, guardTime+v.Duration("wait"))
	defer cancel()
	change, err := guard.Open(ctx, repo, event, pause)
	if err != nil {
		return err
	}
	cfg, err := baseConfig(change)
	if err != nil {
		return err
	}
	verdict := judge.Sum(change.Judge(ctx, guard.Options{
		Layout: covenant.Layout{Ops: cfg.Paths.Ops, Docs: cfg.Paths.Docs},
		Config: config.FileName, Owned: cfg.Paths.GateOwned, Workflow: cfg.Publish.Workflow,
		Checks: cfg.Enforce.Checks, Self: v.String("check"), App: cfg.Enforce.App, Approvals: cfg.Enforce.Reviews,
		Wait: v.Duration("wait"),
	}), nil)
	return w.sayGuard(v, r, change, verdict, cfg.Covenants.Mode)
}

// pause waits, unless the program is told to end.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// baseConfig reads the configuration that judges a change.
func baseConfig(c *guard.Change) (config.Config, error) {
	data, err := c.BaseTree.Blob(config.FileName)
	if errors.Is(err, fs.ErrNotExist) {
		return config.Config{}, fmt.Errorf("base %s of %s has no %s to judge this change by: put it there first, with remembrancer init", c.Base, c.Pull.BaseRef, config.FileName)
	}
	if err != nil {
		return config.Config{}, err
	}
	cfg, err := config.Parse(config.FileName+" of the base", data)
	if err != nil {
		return config.Config{}, misused("%v", err)
	}
	return cfg, nil
}

func (w *world) sayGuard(v *action.Values, r *action.Runner, c *guard.Change, verdict judge.Verdict, mode string) error {
	code := exitUnjudged
	switch verdict.Status {
	case judge.Pass:
		code = exitPass
	case judge.Fail:
		code = exitFail
	}
	what := fmt.Sprintf("pull request %d at %s into %s at %s", c.Pull.Number, c.Pull.Head.String()[:12], c.Pull.BaseRef, c.Base.String()[:12])
	if v.Bool("json") {
		out, err := json.MarshalIndent(map[string]any{
			"verdict": verdictWord(code), "pull": c.Pull.Number, "head": c.Pull.Head, "base": c.Base, "merge": c.Merge, "checks": verdict.Checks,
		}, "", "  ")
		if err != nil {
			return err
		}
		w.say("%s", strings.ReplaceAll(string(out), "##[", `##\u005b`)) // see smoke: a runner looks into JSON, too
	} else {
		w.say("%s", action.Defang(strings.TrimRight(verdict.Text(), "\n")))
		w.say("   %s", action.Defang(what))
		for _, check := range verdict.Checks {
			for _, f := range check.Findings {
				level := action.Error
				if f.Warning {
					level = action.Warning
				}
				r.Annotate(level, f.Path, f.Line, check.ID, strings.TrimSpace(f.Message+"\n"+f.Fix))
			}
		}
	}
	err := errors.Join(
		r.SetOutput("verdict", verdictWord(code)),
		r.Summary(verdict.Markdown("guard: "+action.EscapeMarkdown(what), action.EscapeMarkdown)),
	)
	if err == nil && mode == config.Advisory && code != exitPass {
		w.sayAdvisory(v.Bool("json"))
		return nil
	}
	return joinStatus(err, code)
}
