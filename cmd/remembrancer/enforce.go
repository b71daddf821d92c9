package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/enforce"
	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// enforceInputs are what all three verbs take.
func enforceInputs(more ...action.Input) []action.Input {
	return append([]action.Input{
		{Name: "repo", Usage: "Repository, as OWNER/NAME; the runner's, or that of the remote origin, when left out."},
		{Name: "branch", Usage: "Branch that changes are merged to; the default branch when left out."},
		{Name: "token", Kind: action.Secret, Usage: "Token that may read the repository; to write rules, one with administration: write. GITHUB_TOKEN and GH_TOKEN are read, too.", Env: "REMEMBRANCER_TOKEN", ActionDefault: "${{ github.token }}"},
		{Name: "api-url", Usage: "REST API of the forge; GitHub Enterprise has https://HOST/api/v3.", Env: "GITHUB_API_URL"},
		{Name: "json", Kind: action.Bool, Usage: "Print what was found as JSON.", CLIOnly: true},
	}, more...)
}

// writeInputs say how rules are written. A workflow gives them to the one action.
func writeInputs(actionOnly bool) []action.Input {
	return []action.Input{
		{Name: "enforcement", Default: enforce.Active, Choices: []string{enforce.Active, enforce.Evaluate, enforce.Disabled}, Usage: "Enforcement of the rulesets; evaluate only watches", ActionOnly: actionOnly},
		{Name: "classic", Kind: action.Bool, Usage: "Patch the required checks of classic branch protection instead of making rulesets.", ActionOnly: actionOnly},
		{Name: "dry-run", Kind: action.Bool, Usage: "Show the difference, and write nothing.", ActionOnly: actionOnly},
	}
}

var enforceOutputs = []action.Output{
	{Name: "verdict", Usage: "pass, fail or error, of what holds; nothing when that was not read."},
	{Name: "changed", Usage: "true when rules were written."},
}

var enforcePlanVerb = verb{
	spec: action.Spec{
		Name: "enforce", Verb: "enforce plan",
		Summary: "say which checks the forge really requires",
		Description: "Asks the forge which rules hold for the branch, and says of each check that remembrancer.yaml wants required: " +
			"pinned to its App, spoofable because any source may post it, missing, or unreadable, and then which permission the token lacks. " +
			"It says, too, whether history can be rewritten, who must approve, who may pass the rules by, and whether the publisher can push. It writes nothing.\n\n" +
			"As an action with mode apply, it then makes the two rulesets that require all that, as enforce apply does.",
		Inputs: enforceInputs(append([]action.Input{
			{Name: "mode", Default: "plan", Choices: []string{"plan", "apply"}, Usage: "Whether rules are only read, or written", ActionOnly: true},
		}, writeInputs(true)...)...),
		Outputs:  enforceOutputs,
		Exit:     "1 when a check is missing or spoofable, 3 when what holds could not be read.",
		Examples: []string{"remembrancer enforce plan", "remembrancer enforce plan --repo acme/app --json"},
	},
	run: func(w *world, v *action.Values, r *action.Runner) error {
		if r.InActions() && v.String("mode") == "apply" {
			return runEnforceApply(w, v, r, true)
		}
		return runEnforcePlan(w, v, r)
	},
}

var enforceApplyVerb = verb{
	spec: action.Spec{
		Verb: "enforce apply", Summary: "make the forge require the checks",
		Description: "Creates or updates two rulesets, \"remembrancer: history\" (no deletion, no force push) and \"remembrancer: gate\" (a pull request with code owners' review, and the required checks pinned to their App). " +
			"What others added to them is kept and named, unless it loosens them; other rulesets are never touched. Afterwards the rules in effect are read again.\n\n" +
			"The token needs administration: write, which a job's own token cannot have.",
		Outputs:  enforceOutputs,
		Inputs:   enforceInputs(append(writeInputs(false), action.Input{Name: "yes", Kind: action.Bool, Usage: "Do not ask."})...),
		Exit:     "As enforce plan, for what holds afterwards.",
		Examples: []string{"remembrancer enforce apply --dry-run", "remembrancer enforce apply --enforcement evaluate"},
	},
	run: func(w *world, v *action.Values, r *action.Runner) error {
		return runEnforceApply(w, v, r, v.Bool("yes"))
	},
}

var enforceRemoveVerb = verb{
	spec: action.Spec{
		Verb: "enforce remove", Summary: "take back the rules that apply made",
		Description: "Deletes the two rulesets, if they are as apply makes them; else it says what differs and removes nothing. " +
			"With --classic it takes the wanted checks, as far as they are pinned as apply pins them, out of classic branch protection: whoever put them there.",
		Inputs: enforceInputs(
			action.Input{Name: "classic", Kind: action.Bool, Usage: "Take the checks out of classic branch protection."},
			action.Input{Name: "dry-run", Kind: action.Bool, Usage: "Show what would be removed, and write nothing."},
			action.Input{Name: "force", Kind: action.Bool, Usage: "Delete the rulesets although somebody changed them."},
			action.Input{Name: "yes", Kind: action.Bool, Usage: "Do not ask."},
		),
		Outputs:  enforceOutputs,
		Exit:     "1 when somebody changed what apply made.",
		Examples: []string{"remembrancer enforce remove --dry-run"},
	},
	run: runEnforceRemove,
}

// enforcing is the repository on the forge that a verb is about, and what is
// wanted of it.
type enforcing struct {
	api  *forge.REST
	want enforce.Want
}

func (w *world) enforcing(v *action.Values, r *action.Runner) (*enforcing, error) {
	p, err := w.projectIfAny(r)
	if err != nil {
		return nil, err
	}
	cfg := config.Default()
	if p != nil {
		cfg = p.cfg
	} else {
		w.note("there is no %s here: what is wanted are its defaults", config.FileName)
	}
	name, host, err := w.forgeRepo(v, r)
	if err != nil {
		return nil, err
	}
	owner, short, ok := strings.Cut(name, "/")
	if !ok || owner == "" || short == "" || strings.Contains(short, "/") {
		return nil, misused("repository %q: want OWNER/NAME", name)
	}
	base := v.String("api-url")
	// A token is not sent to a host that only a remote's URL names.
	if base == "" && host != "" && host != "github.com" {
		return nil, misused("the remote origin is on %s: say where its API is, as --api-url https://%[1]s/api/v3", host)
	}
	token := v.String("token")
	for _, env := range []string{"GITHUB_TOKEN", "GH_TOKEN"} {
		if token == "" {
			token = w.getenv(env)
			if err := r.Mask(token); err != nil {
				return nil, err
			}
		}
	}
	api, err := forge.NewREST(base, token, forge.RESTOptions{})
	if err != nil {
		return nil, misused("%v", err)
	}
	e := &enforcing{api: api, want: enforce.Want{
		Owner: owner, Name: short, Branch: v.String("branch"), Keep: []string{cfg.Publish.ClaimBranch, cfg.Publish.PublishRef}, PublishTo: cfg.Publish.PublishRef,
		Checks: cfg.Enforce.Checks, App: cfg.Enforce.App, PublisherApp: cfg.Enforce.PublisherApp, Reviews: cfg.Enforce.Reviews, GateOwned: cfg.Paths.GateOwned,
	}}
	if err := e.want.Check(); err != nil {
		return nil, misused("%v", err)
	}
	return e, nil
}

// forgeRepo returns OWNER/NAME, and the host when a remote's URL names it.
func (w *world) forgeRepo(v *action.Values, r *action.Runner) (name, host string, err error) {
	if name := v.String("repo"); name != "" {
		return name, "", nil
	}
	if r.InActions() {
		e, err := r.Event()
		return e.Repository, "", err
	}
	const hint = "say which repository on the forge it is about, with --repo OWNER/NAME"
	repo, err := gitrepo.Open(w.dir)
	if err != nil {
		return "", "", misused("%v: %s", err, hint)
	}
	u, err := repo.RemoteURL("origin")
	if err != nil {
		return "", "", misused("%v: %s", err, hint)
	}
	host, name, ok := strings.Cut(originOf(u), "/")
	if !ok {
		return "", "", misused("the remote origin is %s: %s", u, hint)
	}
	return name, host, nil
}

// explainEnforce adds to an error what to do next.
func explainEnforce(err error) error {
	var refused *forge.APIError
	var changed *enforce.ChangedError
	switch {
	case errors.As(err, &changed):
		return &status{exitFail, err}
	case errors.As(err, &refused) && refused.Status == http.StatusUnauthorized:
		return fmt.Errorf("%w\nGive a token that the forge accepts as REMEMBRANCER_TOKEN", err)
	}
	return err
}

func runEnforcePlan(w *world, v *action.Values, r *action.Runner) error {
	e, err := w.enforcing(v, r)
	if err != nil {
		return err
	}
	report, err := enforce.Plan(w.ctx, e.api, e.want)
	if err != nil {
		return explainEnforce(err)
	}
	verdict := judge.Sum(report.Checks, nil)
	if v.Bool("json") {
		err = w.sayJSON(planJSON(report, verdict))
	} else {
		err = w.sayReport(r, report, verdict)
	}
	if err = errors.Join(err, r.SetOutput("changed", "false")); err != nil {
		return err
	}
	return endEnforce(r, verdict)
}

// endEnforce sets the exit status by what holds.
func endEnforce(r *action.Runner, verdict judge.Verdict) error {
	code := verdictExit(verdict.Status)
	return joinStatus(r.SetOutput("verdict", verdictWord(code)), code)
}

func planJSON(report *enforce.Report, verdict judge.Verdict) map[string]any {
	return map[string]any{
		"verdict": verdict.Status, "repository": report.Repository, "branch": report.Branch,
		"required": report.Required, "checks": verdict.Checks, "notes": report.Notes,
	}
}

// sayJSON prints JSON in which a runner finds no command: see smoke.
func (w *world) sayJSON(value any) error {
	out, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	w.say("%s", strings.ReplaceAll(string(out), "##[", `##\u005b`))
	return nil
}

func (w *world) sayReport(r *action.Runner, report *enforce.Report, verdict judge.Verdict) error {
	w.say("%s, branch %s", action.Defang(report.Repository), action.Defang(report.Branch))
	w.say("%s", action.Defang(strings.TrimRight(verdict.Text(), "\n")))
	for _, n := range report.Notes {
		w.say("ℹ️  %s", action.Defang(n))
	}
	if !r.InActions() {
		return nil
	}
	title := "enforce: " + action.EscapeMarkdown(report.Repository+" "+report.Branch)
	return r.Summary(verdict.Markdown(title, action.EscapeMarkdown))
}

func runEnforceApply(w *world, v *action.Values, r *action.Runner, yes bool) error {
	if strings.HasPrefix(w.getenv("GITHUB_EVENT_NAME"), "pull_request") {
		return misused("event %s: a pull request changes no rules; run on push, schedule or workflow_dispatch", w.getenv("GITHUB_EVENT_NAME"))
	}
	e, err := w.enforcing(v, r)
	if err != nil {
		return err
	}
	if v.Bool("classic") && v.String("enforcement") != enforce.Active {
		return misused("--enforcement %s is of rulesets: classic protection is there or it is not", v.String("enforcement"))
	}
	opts := enforce.Options{Enforcement: v.String("enforcement"), Classic: v.Bool("classic"), DryRun: v.Bool("dry-run"), Ask: w.askRules(yes)}
	result, err := enforce.Apply(w.ctx, e.api, e.want, opts)
	if err != nil {
		return explainEnforce(err)
	}
	return w.endWrite(v, r, result, opts, " is up to date")
}

func runEnforceRemove(w *world, v *action.Values, r *action.Runner) error {
	e, err := w.enforcing(v, r)
	if err != nil {
		return err
	}
	opts := enforce.Options{Classic: v.Bool("classic"), DryRun: v.Bool("dry-run"), Force: v.Bool("force"), Ask: w.askRules(v.Bool("yes"))}
	result, err := enforce.Remove(w.ctx, e.api, e.want, opts)
	if err != nil {
		return explainEnforce(err)
	}
	return w.endWrite(v, r, result, opts, ": nothing to remove")
}

// askRules asks a person before rules are written.
func (w *world) askRules(yes bool) func([]enforce.Change) error {
	if yes {
		return nil
	}
	return func(changes []enforce.Change) error {
		for _, c := range changes {
			if c.Action != enforce.None {
				w.note("%s", action.Defang(strings.TrimRight(c.Diff, "\n")))
			}
		}
		w.note("Write this to the forge? [y/N]")
		answer, _ := bufio.NewReader(w.stdin).ReadString('\n')
		if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
			return failed("nothing was written")
		}
		return nil
	}
}

// endWrite says what was written, and what holds now.
func (w *world) endWrite(v *action.Values, r *action.Runner, result *enforce.Result, opts enforce.Options, fine string) error {
	var verdict judge.Verdict
	if result.After != nil {
		verdict = judge.Sum(result.After.Checks, nil)
	}
	if v.Bool("json") {
		out := map[string]any{"repository": result.Repository, "changes": result.Changes, "written": result.Written, "dry_run": opts.DryRun}
		if result.After != nil {
			out["after"] = planJSON(result.After, verdict)
		}
		if err := w.sayJSON(out); err != nil {
			return err
		}
	} else {
		w.sayChanges(result, opts.DryRun, fine)
		if result.After != nil {
			if err := w.sayReport(r, result.After, verdict); err != nil {
				return err
			}
		}
	}
	if err := r.SetOutput("changed", fmt.Sprint(result.Written)); err != nil || result.After == nil {
		return err
	}
	return endEnforce(r, verdict)
}

// sayChanges lists what was done; fine is said of what needed nothing.
func (w *world) sayChanges(result *enforce.Result, dry bool, fine string) {
	did := map[string]string{enforce.Create: "created", enforce.Update: "updated", enforce.Delete: "deleted"}
	if dry {
		did = map[string]string{enforce.Create: "would be created", enforce.Update: "would be updated", enforce.Delete: "would be deleted"}
	}
	for _, c := range result.Changes {
		if c.Action == enforce.None {
			w.say("✅ %s%s", action.Defang(c.What), fine)
		} else {
			w.say("✅ %s %s", action.Defang(c.What), did[c.Action])
		}
		for _, k := range c.Kept {
			w.say("   kept, though not ours: %s", action.Defang(k))
		}
		for _, u := range c.Undone {
			w.say("   taken back: %s", action.Defang(u))
		}
		if dry && c.Diff != "" {
			w.say("%s", action.Defang(strings.TrimRight(c.Diff, "\n")))
		}
	}
}
