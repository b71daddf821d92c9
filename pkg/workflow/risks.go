package workflow

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/rhysd/actionlint"
	"go.yaml.in/yaml/v4"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

type node = yaml.Node

// trusting are the events on which GitHub runs the default branch's workflow with
// secrets and a token that may write, although a stranger caused them.
var trusting = []string{"pull_request_target", "workflow_run", "issue_comment"}

// heads are the contexts that name the code of a change.
var heads = []string{
	"github.head_ref", "github.event.pull_request.head.", "github.event.pull_request.merge_commit_sha",
	"github.event.workflow_run.head_", "github.event.workflow_run.pull_requests",
}

func isHead(path string) bool {
	return slices.ContainsFunc(heads, func(h string) bool { return strings.HasPrefix(path, h) })
}

// headText tells whether a text names the code of a change, by itself or by a
// variable of env; maybe, that it could: it is the result of a step or an input.
func headText(s string, env map[string]bool) (is, maybe bool) {
	if strings.Contains(s, "refs/pull/") {
		return true, true
	}
	for _, p := range reads(s) {
		name, isEnv := strings.CutPrefix(p, "env.")
		if isHead(p) || isEnv && envHas(env, name) {
			return true, true
		}
		maybe = maybe || strings.HasPrefix(p, "steps.") || strings.HasPrefix(p, "needs.") || strings.HasPrefix(p, "inputs.") || p == "github.event.number" || strings.HasSuffix(p, ".number")
	}
	return false, maybe
}

func envHas(env map[string]bool, name string) bool {
	for k := range env {
		if strings.EqualFold(k, name) {
			return true
		}
	}
	return false
}

// headEnv returns the variables that name the code of a change.
func headEnv(outer map[string]bool, env *actionlint.Env) map[string]bool {
	all := maps.Clone(outer)
	if all == nil {
		all = map[string]bool{}
	}
	if env == nil {
		return all
	}
	for _, v := range env.Vars {
		if v.Name == nil || v.Value == nil {
			continue
		}
		if is, _ := headText(v.Value.Value, outer); is {
			all[v.Name.Value] = true
		} else {
			delete(all, v.Name.Value)
		}
	}
	return all
}

var (
	ghCheckoutRE = regexp.MustCompile(`\b(?:gh|hub)\s+pr\s+checkout\b`)
	gitFetchRE   = regexp.MustCompile(`\bgit\b.*\s(?:fetch|checkout|switch|reset|merge|pull|worktree|clone|rebase|cherry-pick)\b`)
	pullRefRE    = regexp.MustCompile(`\bpull/`)
)

// fetchesHead returns the line of a script that fetches the code of a change, ""
// for none.
func fetchesHead(script string, env map[string]bool) string {
	for line := range scriptLines(script) {
		switch {
		case ghCheckoutRE.MatchString(line):
			return line
		case !gitFetchRE.MatchString(line):
			continue
		case pullRefRE.MatchString(line):
			return line
		}
		if is, _ := headText(line, env); is || usesVariable(line, env) {
			return line
		}
	}
	return ""
}

// scriptLines yields the lines of a script, continued ones as one, without those
// that are only a comment.
func scriptLines(script string) func(func(string) bool) {
	return func(yield func(string) bool) {
		held := ""
		for line := range strings.SplitSeq(script, "\n") {
			if before, ok := strings.CutSuffix(strings.TrimRight(line, "\r"), `\`); ok {
				held += before + " "
				continue
			}
			line, held = strings.TrimSpace(held+line), ""
			if line != "" && !strings.HasPrefix(line, "#") && !yield(line) {
				return
			}
		}
		if held = strings.TrimSpace(held); held != "" && !strings.HasPrefix(held, "#") {
			yield(held)
		}
	}
}

var variableRE = regexp.MustCompile(`\$(?:\{?(?:env:)?([A-Za-z_][A-Za-z0-9_]*))|%([A-Za-z_][A-Za-z0-9_]*)%`)

func usesVariable(line string, env map[string]bool) bool {
	for _, m := range variableRE.FindAllStringSubmatch(line, -1) {
		if env[m[1]] || env[m[2]] {
			return true
		}
	}
	return false
}

func (d *doctor) pullRequestTarget() []judge.Finding {
	var found []judge.Finding
	for _, event := range trusting {
		o := stranger(event)
		for _, f := range d.workflows {
			if !slices.Contains(f.events, event) {
				continue
			}
			for _, j := range f.jobs {
				if j.possible(o) {
					found = append(found, trustedJob(f, j, event, o.known)...)
				}
			}
		}
	}
	return once(found)
}

func trustedJob(f *file, j *job, event string, known facts) []judge.Finding {
	var found []judge.Finding
	const fix = "run the change's code on pull_request, without secrets, and read only its result here"
	outer := headEnv(headEnv(nil, f.flow.Env), j.Env)
	report := func(p *actionlint.Pos, format string, args ...any) {
		x := f.at(p, fix, format, args...)
		// Somebody who may has to ask for it first, mostly; that is a decision.
		x.Warning = event == "issue_comment"
		found = append(found, x)
	}
	fetched := false
	for _, step := range j.Steps {
		if !possible(step.If, known) {
			continue
		}
		env := headEnv(outer, step.Env)
		switch e := step.Exec.(type) {
		case *actionlint.ExecRun:
			if line := fetchesHead(e.Run.Value, env); line != "" {
				fetched = true
				report(f.locate(e.Run, line), "job %s of the event %s fetches the code of a change, with the secrets at hand", j.ID.Value, event)
			}
		case *actionlint.ExecAction:
			if strings.HasPrefix(e.Uses.Value, "./") && fetched {
				report(e.Uses.Pos, "%s is the change's own by now, and runs with the secrets at hand", e.Uses.Value)
			}
			if _, ok := checkout(step); !ok {
				continue
			}
			var is, maybe bool
			for _, name := range []string{"ref", "repository"} {
				a, b := headText(input(e, name), env)
				is, maybe = is || a, maybe || b
			}
			switch {
			case is:
				fetched = true
				report(e.Uses.Pos, "job %s of the event %s checks out the code of a change, with the secrets at hand", j.ID.Value, event)
			case maybe:
				found = append(found, f.warn(e.Uses.Pos, fix, "job %s of the event %s checks out what only the run knows: it must not be the code of a change", j.ID.Value, event))
			case event == "pull_request_target" && input(e, "ref") == "" && input(e, "repository") == "":
				found = append(found, f.warn(e.Uses.Pos, "leave the checkout out if the job can do without", "job %s checks out the base on %s, which is safe as long as nothing of the change is ever added to it", j.ID.Value, event))
			}
		}
	}
	return found
}

func (d *doctor) permissions() []judge.Finding {
	var found []judge.Finding
	for _, f := range d.workflows {
		top := f.flow.Permissions
		if top == nil && len(f.own()) > 0 {
			for _, j := range f.jobs {
				if j.Permissions == nil {
					found = append(found, f.at(f.onPos(), "add permissions: {contents: read} above jobs:, and what a job needs beyond to the job", "no permissions: for job %s and maybe others: their token can do whatever the repository's default lets it", j.ID.Value))
					break
				}
			}
		}
		if top != nil {
			writes := writable(top)
			switch {
			case isAll(top):
				found = append(found, f.at(top.Pos, "write permissions: {contents: read}, and what a job needs beyond at the job", "write-all lets every job write everything"))
			case len(writes) > 0 && len(f.jobs) > 1:
				found = append(found, f.at(top.Pos, "move it to the jobs that need it", "every one of %d jobs may write %s", len(f.jobs), strings.Join(writes, ", ")))
			case len(writes) > 0:
				found = append(found, f.warn(top.Pos, "move it to the job", "may write %s, and so may every job that is added", strings.Join(writes, ", ")))
			}
		}
		for _, j := range f.jobs {
			if j.Permissions != nil && isAll(j.Permissions) {
				found = append(found, f.at(j.Permissions.Pos, "list what the job needs", "write-all lets job %s write everything", j.ID.Value))
			}
		}
		found = append(found, d.withinReach(f)...)
	}
	return once(found)
}

// runsCode tells whether a job may run what is in the repository: it checks it
// out, or leaves to others what it does.
func (j *job) runsCode() bool {
	return j.WorkflowCall != nil || slices.ContainsFunc(j.Steps, func(s *actionlint.Step) bool {
		_, ok := checkout(s)
		return ok
	})
}

// withinReach says what the code of a change finds in the jobs of a workflow that
// run it. For a job that decides about the change it is more than a warning.
func (d *doctor) withinReach(f *file) []judge.Finding {
	o := anybody("pull_request")
	if !slices.Contains(f.events, "pull_request") {
		return nil
	}
	var found []judge.Finding
	var order []string
	jobs, first := map[string][]string{}, map[string]*actionlint.Pos{}
	const fix = "give it to a job of its own, which runs no code of the change"
	report := func(j *job, p *actionlint.Pos, what string) {
		if check := d.checkOf(j); check != "" {
			found = append(found, f.at(p, fix, "a pull request can reach %s in job %s, which posts the required check %q", what, j.ID.Value, check))
			return
		}
		if first[what] == nil {
			first[what], order = p, append(order, what)
		}
		jobs[what] = append(jobs[what], j.ID.Value)
	}
	for _, j := range f.jobs {
		if !j.runsCode() || !j.possible(o) {
			continue
		}
		perms := j.Permissions
		if perms == nil {
			perms = f.flow.Permissions
		}
		if perms != nil {
			// A scanner reports by security-events, which changes nothing in the repository.
			if writes := slices.DeleteFunc(writable(perms), func(s string) bool { return s == "security-events" }); len(writes) > 0 {
				report(j, perms.Pos, "a token that may write "+strings.Join(writes, ", "))
			}
		}
		if names, pos := secretsOf(j, o.known); len(names) > 0 {
			report(j, pos, strings.Join(names, ", "))
		}
	}
	for _, what := range order {
		found = append(found, f.warn(first[what], fix, "a pull request can reach %s in %s", what, cut("job "+strings.Join(jobs[what], ", "))))
	}
	return found
}

func isAll(p *actionlint.Permissions) bool { return p.All != nil && p.All.Value == "write-all" }

// writable returns the scopes that may be written, sorted.
func writable(p *actionlint.Permissions) []string {
	if isAll(p) {
		return []string{"everything"}
	}
	var names []string
	for _, s := range p.Scopes {
		if s.Value != nil && s.Value.Value == "write" {
			names = append(names, s.Name.Value)
		}
	}
	slices.Sort(names)
	return names
}

// secretsOf returns the secrets that a job and those of its steps that can run
// use, and where the first one is. The token that every job has is none of them.
func secretsOf(j *job, known facts) (names []string, at *actionlint.Pos) {
	look := func(n *node) {
		for _, e := range expressions(n.Value) {
			for _, p := range paths(e.node) {
				name, ok := strings.CutPrefix(p, "secrets.")
				if !ok && p != "secrets" || name == "github_token" {
					continue
				}
				if name = "secrets." + strings.ToUpper(name); p == "secrets" {
					name = "all secrets"
				}
				if !slices.Contains(names, name) {
					names = append(names, name)
				}
				if at == nil {
					at = j.file.locate(text(n), e.text)
				}
			}
		}
	}
	for k, v := range pairs(j.node) {
		if k.Value == "secrets" && v.Value == "inherit" {
			names, at = append(names, "all secrets"), &actionlint.Pos{Line: k.Line, Col: k.Column}
		}
		if k.Value != "steps" {
			scalars(v, look)
		}
	}
	for i, n := range j.steps {
		if i < len(j.Steps) && possible(j.Steps[i].If, known) {
			scalars(n, look)
		}
	}
	return names, at
}

func (d *doctor) scriptInjection() []judge.Finding {
	var found []judge.Finding
	scan := func(f *file, steps []*actionlint.Step, outer map[string]bool) {
		for _, step := range steps {
			env := taintedEnv(outer, step.Env)
			var script *actionlint.String
			switch e := step.Exec.(type) {
			case *actionlint.ExecRun:
				script = e.Run
				for line := range scriptLines(e.Run.Value) {
					if (strings.Contains(line, "GITHUB_ENV") || strings.Contains(line, "GITHUB_PATH")) && usesVariable(line, env) {
						found = append(found, f.warn(f.locate(e.Run, line), "write it to GITHUB_OUTPUT, with a random delimiter, and read it where it is needed",
							"what anybody can write becomes variables of all later steps, such as LD_PRELOAD"))
					}
				}
			case *actionlint.ExecAction:
				if in, ok := e.Inputs["script"]; ok && strings.HasPrefix(strings.ToLower(e.Uses.Value), "actions/github-script@") {
					script = in.Value
				}
			}
			if script == nil {
				continue
			}
			roots := untrusted(env)
			for _, e := range expressions(script.Value) {
				switch {
				case e.node == nil:
					found = append(found, f.at(f.locate(script, e.text), "", "the expression cannot be read: %s", cut(e.text)))
				case tainted(e.node, roots):
					found = append(found, f.at(f.locate(script, e.text), fmt.Sprintf("set env: {VALUE: %s} and use \"$VALUE\" (process.env.VALUE) in the script", cut(e.text)), "%s is pasted into the script, and anybody can write it", cut(e.text)))
				}
			}
		}
	}
	for _, f := range d.workflows {
		top := taintedEnv(nil, f.flow.Env)
		for _, j := range f.jobs {
			scan(f, j.Steps, taintedEnv(top, j.Env))
		}
	}
	for _, f := range d.actions {
		scan(f, f.steps, nil)
	}
	return once(found)
}

// cut shortens a text that is quoted in a message.
func cut(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 100 {
		s = string(r[:100]) + "…"
	}
	return s
}

func (d *doctor) credentials() []judge.Finding {
	var found []judge.Finding
	o := anybody("pull_request")
	for _, f := range d.workflows {
		var first *actionlint.Pos
		n := 0
		for _, j := range f.jobs {
			if !slices.Contains(f.events, "pull_request") || !j.possible(o) {
				continue
			}
			for _, step := range j.Steps {
				a, ok := checkout(step)
				if ok && strings.ToLower(strings.TrimSpace(input(a, "persist-credentials"))) != "false" {
					if n++; first == nil {
						first = a.Uses.Pos
					}
				}
			}
		}
		switch {
		case n == 1:
			found = append(found, f.warn(first, "add with: {persist-credentials: false}", "the checkout leaves its token where the code of the change can read it"))
		case n > 1:
			found = append(found, f.warn(first, "add with: {persist-credentials: false} to each", "%d checkouts leave their token where the code of the change can read it", n))
		}
	}
	return found
}

// gates and publishing are the last names of our actions.
var gates = []string{"gate", "smoke-gate", "covenant-check", "guard", "enforce", "verify-audit", "remembrancer"}

const publishing = "merkle-publish"

// ourAction returns the name of our action that a step uses, "" if it is not one.
func (d *doctor) ourAction(a *actionlint.ExecAction) string {
	v := strings.ToLower(a.Uses.Value)
	name := base(v)
	if strings.HasPrefix(v, "vaultmesh/remembrancer@") || strings.HasPrefix(v, "vaultmesh/remembrancer/") {
		return name
	}
	if !strings.HasPrefix(v, "./") && !strings.HasPrefix(v, "$/") {
		return ""
	}
	// A local action may be called anything; ours says who it is.
	dir := path.Clean(a.Uses.Value[2:])
	for _, f := range d.actions {
		if path.Dir(f.path) == dir && strings.Contains(f.raw, "remembrancer") {
			if dir == "." {
				return "remembrancer"
			}
			return name
		}
	}
	return ""
}

func (d *doctor) timeouts() []judge.Finding {
	var found []judge.Finding
	for _, f := range d.workflows {
		for _, j := range f.jobs {
			check := d.checkOf(j)
			if check != "" && j.WorkflowCall == nil && j.TimeoutMinutes == nil {
				found = append(found, f.warn(j.Pos, "add timeout-minutes:", "job %s posts the required check %q and has no timeout-minutes: a test that hangs takes six hours", j.ID.Value, check))
			}
			if c := j.ContinueOnError; c != nil && (c.Value || c.Expression != nil) && check != "" {
				found = append(found, f.at(c.Pos, "remove continue-on-error", "job %s posts the required check %q and goes on when it fails", j.ID.Value, check))
			}
			shell := ""
			for _, def := range []*actionlint.Defaults{f.flow.Defaults, j.Defaults} {
				if def != nil && def.Run != nil && def.Run.Shell != nil {
					shell = def.Run.Shell.Value
				}
			}
			found = append(found, d.swallowed(f, j.Steps, shell, check)...)
		}
	}
	for _, f := range d.actions {
		found = append(found, d.swallowed(f, f.steps, "", "")...)
	}
	return once(found)
}

var (
	orTrueRE = regexp.MustCompile(`\|\|\s*(?:\S*/)?(?:true|:|exit\s+0|echo|printf)(?:\s|$|[;)])`)
	thenRE   = regexp.MustCompile(`;\s*(?:true|:|exit\s+0)\s*$`)
	pipeRE   = regexp.MustCompile(`(?:^|[^|])\|(?:[^|]|$)`)
)

// swallowed says where the verdict of a gate does not reach the job.
func (d *doctor) swallowed(f *file, steps []*actionlint.Step, shell, check string) []judge.Finding {
	var found []judge.Finding
	for _, step := range steps {
		var gate bool
		switch e := step.Exec.(type) {
		case *actionlint.ExecAction:
			gate = slices.Contains(gates, d.ourAction(e))
		case *actionlint.ExecRun:
			sh := shell
			if e.Shell != nil {
				sh = e.Shell.Value
			}
			// GitHub runs bash with pipefail only if it is asked for by name.
			pipefail := sh == "bash" || strings.Contains(sh, "pipefail") || strings.Contains(e.Run.Value, "pipefail")
			for line := range scriptLines(e.Run.Value) {
				at := d.gate.FindStringIndex(line + " ")
				if at == nil {
					continue
				}
				gate = true
				after := line[min(at[1], len(line)):]
				switch {
				case orTrueRE.MatchString(after) || thenRE.MatchString(after):
					found = append(found, f.at(f.locate(e.Run, line), "let the command be the last of its line", "the exit status of the gate is thrown away"))
				case !pipefail && pipeRE.MatchString(after):
					found = append(found, f.at(f.locate(e.Run, line), "add shell: bash, which sets pipefail", "the exit status is that of the end of the pipe, not of the gate"))
				}
			}
		}
		if c := step.ContinueOnError; c != nil && (c.Value || c.Expression != nil) {
			switch _, run := step.Exec.(*actionlint.ExecRun); {
			case gate:
				found = append(found, f.at(c.Pos, "remove continue-on-error", "the verdict of the gate does not stop the job"))
			case run && check != "":
				found = append(found, f.warn(c.Pos, "remove continue-on-error", "the step can fail without the required check %q failing", check))
			}
		}
	}
	return found
}

// publisher is a job that publishes the ledger.
type publisher struct {
	file *file
	job  *job
	pos  *actionlint.Pos
}

var publishRE = regexp.MustCompile(`(?:^|[\s;&|(/])remembrancer(?:\.exe)?\s+(?:publish|action\s+merkle-publish)\b`)

func (d *doctor) publishers() []publisher {
	var all []publisher
	for _, f := range d.workflows {
		for _, j := range f.jobs {
			var pos *actionlint.Pos
			for _, step := range j.Steps {
				switch e := step.Exec.(type) {
				case *actionlint.ExecAction:
					if d.ourAction(e) == publishing {
						pos = e.Uses.Pos
					}
				case *actionlint.ExecRun:
					if publishRE.MatchString(e.Run.Value) {
						pos = e.Run.Pos
					}
				}
			}
			if names, at := secretsOf(j, nil); pos == nil && slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "secrets.REMEMBRANCER_") }) {
				pos = at
			}
			if pos != nil {
				all = append(all, publisher{f, j, pos})
			}
		}
	}
	return all
}

func (d *doctor) concurrency(all []publisher) []judge.Finding {
	var found []judge.Finding
	for _, p := range all {
		groups := 0
		for _, c := range []*actionlint.Concurrency{p.file.flow.Concurrency, p.job.Concurrency} {
			if c == nil {
				continue
			}
			groups++
			switch b := c.CancelInProgress; {
			case b == nil:
			case b.Expression != nil:
				found = append(found, p.file.warn(b.Pos, "write cancel-in-progress: false", "whether a publication is cancelled half way depends on an expression"))
			case b.Value:
				found = append(found, p.file.at(b.Pos, "write cancel-in-progress: false", "a new run cancels a publication half way, and drops what it was about to record"))
			}
		}
		if groups == 0 {
			found = append(found, p.file.warn(p.job.Pos, "add concurrency: {group: merkle-publish, cancel-in-progress: false}", "publications have no concurrency group: they race each other, and all but one do their work again"))
		}
	}
	return once(found)
}

func (d *doctor) secrets(all []publisher) []judge.Finding {
	var found []judge.Finding
	for _, p := range all {
		for _, e := range []string{"pull_request", "pull_request_target"} {
			if slices.Contains(p.file.events, e) && p.job.possible(anybody(e)) {
				found = append(found, p.file.at(p.pos, "start it by workflow_run, schedule and workflow_dispatch", "job %s publishes and is started by %s: a change decides when, and maybe what", p.job.ID.Value, e))
			}
		}
		if p.job.Environment == nil {
			found = append(found, p.file.warn(p.job.Pos, "add environment: remembrancer, limit it to the protected branch, and keep the keys there", "job %s publishes with keys that every workflow of every branch can use", p.job.ID.Value))
		}
	}
	return once(found)
}

func (d *doctor) botActor() []judge.Finding {
	var found []judge.Finding
	scan := func(f *file, cond *actionlint.String, what string) {
		if cond == nil {
			return
		}
		node, _ := condition(cond)
		if node == nil {
			return
		}
		if slices.ContainsFunc(paths(node), func(p string) bool { return strings.HasSuffix(p, "pull_request.user.login") }) {
			return // asks the right question as well
		}
		actionlint.VisitExprNode(node, func(n, _ actionlint.ExprNode, entering bool) {
			if !entering {
				return
			}
			var args []actionlint.ExprNode
			equal := true
			switch n := n.(type) {
			case *actionlint.CompareOpNode:
				args, equal = []actionlint.ExprNode{n.Left, n.Right}, n.Kind == actionlint.CompareOpNodeKindEq
			case *actionlint.FuncCallNode:
				args = n.Args
			}
			actor, bot := false, false
			for _, a := range args {
				p := contextPath(a)
				actor = actor || p == "github.actor" || p == "github.triggering_actor" || p == "github.event.sender.login"
				s, ok := a.(*actionlint.StringNode)
				bot = bot || ok && strings.Contains(s.Value, "[bot]")
			}
			if !actor || !bot {
				return
			}
			x := f.at(cond.Pos, "compare github.event.pull_request.user.login, which is who opened the change", "%s believes github.actor, which is whoever caused the last event: a change can be somebody else's and still come in a bot's name", what)
			// To do less for a bot is no favour, unless it is a gate that is left out;
			// doctor/skippable says so for required jobs.
			x.Warning = !equal
			found = append(found, x)
		})
	}
	events := []string{"pull_request", "pull_request_target", "workflow_run", "issue_comment", "workflow_call"}
	for _, f := range d.workflows {
		if !slices.ContainsFunc(events, func(e string) bool { return slices.Contains(f.events, e) }) && len(f.events) > 0 {
			continue // only those who may push are actors here
		}
		for _, j := range f.jobs {
			scan(f, j.If, "job "+j.ID.Value)
			for _, step := range j.Steps {
				scan(f, step.If, "a step of job "+j.ID.Value)
			}
		}
	}
	for _, f := range d.actions {
		for _, step := range f.steps {
			scan(f, step.If, "a step")
		}
	}
	return once(found)
}
