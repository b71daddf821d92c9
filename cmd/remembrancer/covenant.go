package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/hygiene"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/repro"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
	"github.com/vaultmesh/remembrancer/pkg/workflow"
)

var covenantSpec = action.Spec{
	Name: "covenant-check", Verb: "covenant",
	Summary: "judge the covenants: integrity, reproducibility, federation, proof-chain, hygiene, and checks of your own",
	Description: "Reads the blobs of a commit, and runs only what the configuration names: a build, twice, and checks of your own. " +
		"In a pull request or a merge queue, configuration and waivers are those of the base, and the change is compared with it; " +
		"what it changes of the gates is shown, and the guard demands approval for it.\n\n" +
		"Where nothing is claimed, nothing passes: the check is unclaimed, and fails where covenants.required names it.",
	Inputs: []action.Input{
		{Name: "only", Kind: action.List, Usage: "Judge only these covenants"},
		{Name: "rev", Default: "HEAD", Usage: "Commit to judge."},
		policyIDInput,
		{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON.", CLIOnly: true},
		{Name: "sarif", Kind: action.Bool, Usage: "Print the verdict as SARIF 2.1.0.", CLIOnly: true},
		{Name: "sarif-file", Kind: action.Path, Usage: "Write the verdict as SARIF 2.1.0 here."},
		{Name: "statement", Kind: action.Path, Usage: "Write an unsigned SLSA verification summary of the commit here."},
	},
	Outputs:  []action.Output{{Name: "verdict", Usage: "pass, fail, error or unclaimed."}},
	Exit:     "A verdict of unclaimed is 3: nothing was judged.",
	Examples: []string{"remembrancer covenant", "remembrancer covenant --only integrity,hygiene --json", "remembrancer covenant --sarif-file covenant.sarif"},
}

var covenantVerb = verb{spec: covenantSpec, run: runCovenant}

func runCovenant(w *world, v *action.Values, r *action.Runner) error {
	only, err := covenantsOf(v.List("only"))
	if err != nil {
		return err
	}
	if v.Bool("json") && v.Bool("sarif") {
		return misused("--json and --sarif both print to standard output: want one, or --sarif-file")
	}
	pinned, err := pinnedPolicy(v)
	if err != nil {
		return err
	}
	p, err := w.openProject()
	if err != nil {
		return err
	}
	if err := w.takeBaseConfig(p, r); err != nil {
		return err
	}
	c := &covenants{w: w, p: p, only: only, mine: true, pinned: pinned, rev: v.String("rev")}
	if c.runs() {
		if err := w.refuseSecrets(); err != nil {
			return err
		}
	}
	out, err := r.Untrusted(w.stderr)
	if err != nil {
		return err
	}
	c.out = out
	verdict, err := c.judge()
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if err := r.SetOutput("verdict", verdict.Status.String()); err != nil {
		return err
	}
	if err := c.write(v, r, verdict); err != nil {
		return err
	}
	if c.audit != nil && !c.head.commit.IsZero() {
		if err := w.remember(p, c.audit); err != nil {
			return err
		}
	}
	machine := v.Bool("json") || v.Bool("sarif")
	if r.InActions() {
		if err := r.Summary(verdict.Markdown("covenants", action.EscapeMarkdown)); err != nil {
			return err
		}
		if !machine { // annotations are lines of the same stream
			w.annotate(p, r, verdict)
		}
	}
	if err := c.say(v, verdict); err != nil {
		return err
	}
	if p.cfg.Covenants.Mode == config.Advisory && verdict.Status != judge.Pass {
		w.sayAdvisory(machine)
		return nil
	}
	return quietly(verdictExit(verdict.Status))
}

func covenantsOf(names []string) ([]string, error) {
	for _, n := range names {
		if !slices.Contains(judge.Covenants(), n) {
			return nil, misused("--only %q: want %s", n, strings.Join(judge.Covenants(), ", "))
		}
	}
	if len(names) == 0 {
		return judge.Covenants(), nil
	}
	return names, nil
}

func verdictExit(s judge.Status) int {
	switch s {
	case judge.Pass:
		return exitPass
	case judge.Fail:
		return exitFail
	}
	return exitUnjudged
}

// covenants is one judgement of the covenants.
type covenants struct {
	w       *world
	p       *project
	out     io.Writer // what commands print goes here
	only    []string
	noBuild bool
	mine    bool   // look at a person's work tree, too
	pinned  string // id of the trust state, "" for none
	rev     string

	head    *head
	audit   *covenant.Report // nil where no covenant needed one
	base    covenant.Tree    // of the change; nil where none is judged
	waivers []covenant.Waiver
	ignored []judge.Finding // waivers that do not count
}

func (c *covenants) wants(name string) bool { return slices.Contains(c.only, name) }

// builds and runs say whether code of the change will be run.
func (c *covenants) builds() bool {
	return c.wants("reproducibility") && !c.noBuild && !c.p.cfg.Covenants.Build.Run.None()
}

func (c *covenants) runs() bool {
	return c.builds() || c.wants("custom") && len(c.p.cfg.Covenants.Custom) > 0
}

func (c *covenants) judge() (judge.Verdict, error) {
	if c.head == nil {
		h, err := c.p.head(c.rev)
		if err != nil {
			return judge.Verdict{}, err
		}
		c.head = h
	}
	change, err := c.change()
	if err != nil {
		return judge.Verdict{}, err
	}
	if c.audit == nil && (c.wants("integrity") || c.wants("federation") || c.wants("proof-chain")) {
		if c.audit, err = c.w.audit(c.p, c.head, c.pinned); err != nil {
			return judge.Verdict{}, err
		}
	}
	var checks []judge.Check
	for _, name := range c.only {
		switch name {
		case "integrity":
			checks = append(checks, c.integrity()...)
			checks = append(checks, change...)
		case "reproducibility":
			checks = append(checks, c.reproducibility()...)
		case "federation":
			checks = append(checks, covenant.Federation(c.head.tree, c.p.layout, c.audit)...)
		case "proof-chain":
			chain, err := c.proofChain()
			if err != nil {
				return judge.Verdict{}, err
			}
			checks = append(checks, chain...)
		case "hygiene":
			if c.head.commit.IsZero() {
				checks = append(checks, judge.NotClaimed("hygiene/tree", "the tree is tidy", "nothing is committed yet to be kept tidy"))
				continue
			}
			work, err := c.untracked()
			if err != nil {
				return judge.Verdict{}, err
			}
			checks = append(checks, hygiene.Check(c.head.tree, hygieneRules(c.p.cfg), work)...)
		case "custom":
			custom, err := c.custom()
			if err != nil {
				return judge.Verdict{}, err
			}
			checks = append(checks, custom...)
		}
	}
	if err := c.readWaivers(); err != nil {
		return judge.Verdict{}, err
	}
	required := slices.DeleteFunc(slices.Clone(c.p.cfg.Covenants.Required), func(r string) bool {
		name, _, _ := strings.Cut(r, "/")
		// A build that is left out may be all that is claimed of its covenant.
		return !c.wants(name) || c.noBuild && (r == "reproducibility/build" || r == "reproducibility" && !c.p.cfg.Covenants.Build.Run.None())
	})
	// What is required and not claimed may be waived as well.
	v := judge.Sum(checks, required)
	return judge.Sum(covenant.Waive(v.Checks, c.waivers), nil), nil
}

func (c *covenants) integrity() []judge.Check {
	checks := append(c.audit.Checks(), covenant.Documents(c.head.tree, c.audit, covenant.Options{Layout: c.p.layout, Badge: publish.Badge}))
	return append(checks, c.w.snapshots(c.p, c.head, c.audit)...)
}

// change compares a change with its base. Without a change there is nothing to
// compare.
func (c *covenants) change() ([]judge.Check, error) {
	commit, err := c.w.base()
	if err != nil || commit.IsZero() {
		return nil, err
	}
	if c.head.commit.IsZero() {
		return nil, errors.New("the change is not committed here: check out what the event is about")
	}
	if commit, err = c.w.mergedInto(c.p, commit, c.head.commit); err != nil {
		return nil, err
	}
	trees := [2]covenant.Tree{}
	for i, h := range []gitrepo.Hash{commit, c.head.commit} {
		t, err := c.p.repo.TreeAt(h)
		if err != nil {
			return nil, err
		}
		trees[i] = publish.Tree(t)
	}
	c.base = trees[0]
	return covenant.CheckChange(trees[0], trees[1], covenant.Change{
		Layout: c.p.layout, Owned: c.p.cfg.Paths.GateOwned, ApprovalUnknown: true,
	}).Checks(), nil
}

// mergedInto returns the commit that a merge result is compared with: the base
// of the event, or the later one that the forge has merged the change into.
// Another head than a merge result is refused: a branch that lacks what its base
// has would seem to take it away, or hide that it does.
func (w *world) mergedInto(p *project, base, head gitrepo.Hash) (gitrepo.Hash, error) {
	r := action.NewRunner(w.getenv, io.Discard, w.rand, covenantSpec) // to read the event with
	e, err := r.Event()
	if err != nil {
		return base, err
	}
	payload, err := e.Payload()
	if err != nil {
		return base, err
	}
	c, err := p.repo.Commit(head)
	if err != nil {
		return base, err
	}
	// The forge's own merge has the change's head as second parent, and is the
	// commit of the event: nobody who pushes can make both true of another one.
	if e.SHA == head.String() && len(c.Parents) == 2 && gjson.GetBytes(payload, "pull_request.head.sha").String() == c.Parents[1].String() {
		ok, err := p.repo.IsAncestor(base, c.Parents[0])
		if err != nil {
			return base, fmt.Errorf("%w; check out with fetch-depth: 0", err)
		}
		if ok {
			return c.Parents[0], nil
		}
	}
	ok, err := p.repo.IsAncestor(base, head)
	if err != nil {
		return base, fmt.Errorf("%w; check out with fetch-depth: 0", err)
	}
	if !ok {
		return base, fmt.Errorf("%s is no merge result: it does not contain the base %s; check out without ref:, as actions/checkout does by itself", head, base)
	}
	return base, nil
}

func (c *covenants) reproducibility() []judge.Check {
	var checks []judge.Check
	if !c.noBuild {
		checks = append(checks, c.build())
	}
	checks = append(checks, repro.Images(c.head.tree), repro.Locks(c.head.tree, c.p.cfg.Covenants.LockFiles))
	set, err := workflow.Load(c.head.tree)
	if err != nil {
		return append(checks, judge.Unjudged("reproducibility/actions", "every action and image that a workflow runs is pinned by its content", err))
	}
	return append(checks, workflow.Pins(set))
}

func (c *covenants) build() judge.Check {
	const id, claim = "reproducibility/build", "the build makes the same bytes again"
	b := c.p.cfg.Covenants.Build
	if b.Run.None() {
		return judge.NotClaimed(id, claim, "covenants.build names no build")
	}
	if c.head.commit.IsZero() {
		return judge.Unjudged(id, claim, errors.New("a build is made of a commit, and nothing is committed yet"))
	}
	commit, err := c.p.repo.Commit(c.head.commit)
	if err != nil {
		return judge.Unjudged(id, claim, err)
	}
	t, err := c.p.repo.TreeAt(c.head.commit)
	if err != nil {
		return judge.Unjudged(id, claim, err)
	}
	return repro.Build(c.w.ctx, source{publish.Tree(t), t}, repro.Plan{
		Command: repro.Command{Argv: b.Run.Argv, Shell: b.Run.Shell}, Outputs: b.Outputs, Timeout: b.Timeout,
		Epoch: commit.Committer.When, Env: covenantSpec.ChildEnv(c.w.childEnviron()),
	}, repro.Options{Log: c.out, Now: c.w.now})
}

// source is a commit's tree that can be checked out.
type source struct {
	covenant.Tree
	t *gitrepo.Tree
}

func (s source) Link(path string) (string, error) {
	e, err := s.t.Lookup(path)
	if err != nil {
		return "", err
	}
	if e.Mode != gitrepo.Symlink {
		return "", fmt.Errorf("%s is a %s, want a symbolic link", path, e.Mode)
	}
	b, err := s.t.Read(e.Hash)
	return string(b), err
}

func (c *covenants) proofChain() ([]judge.Check, error) {
	root, err := os.OpenRoot(c.p.root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	chain := covenant.Chain{Tree: c.head.tree, Files: root.FS(), Now: c.w.now()}
	if c.audit.Status() == covenant.Pass {
		chain.Entries = c.audit.Entries
	}
	if chain.Stamps, err = c.stamps(); err != nil {
		unread := err // no token is good, and the check says why
		chain.Stamps = func(string, []byte, []string, func(string) ([]byte, error)) ([]string, string, error) {
			return nil, "", unread
		}
	}
	// Without anchors no signature is good, and the checks say so.
	if trust, err := covenant.LoadTrust(c.head.tree, c.p.layout); err == nil {
		chain.Trust = trust
	}
	return append(covenant.Artifacts(chain, c.p.cfg.Covenants.Artifacts), covenant.Genesis(chain)), nil
}

func hygieneRules(c config.Config) hygiene.Rules {
	h := c.Covenants.Hygiene
	return hygiene.Rules{Root: h.Root, MaxRoot: h.MaxRoot, MaxFile: int64(h.MaxFile) << 10, Archive: h.Archive, Links: h.Links}
}

// untracked returns what lies about in a person's own work tree, nil for a
// machine's: there it is what other steps have left.
func (c *covenants) untracked() (*hygiene.WorkTree, error) {
	if !c.mine || c.w.inCI() || c.rev != "HEAD" {
		return nil, nil
	}
	// Another program as file system monitor is none to be asked here.
	cmd := exec.CommandContext(c.w.ctx, "git", "-c", "core.fsmonitor=false", "ls-files", "-z", "--others", "--exclude-standard", "--directory", "--no-empty-directory")
	cmd.Dir, cmd.Env = c.p.root, c.w.childEnviron()
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	w := &hygiene.WorkTree{}
	for path := range strings.SplitSeq(string(out), "\x00") {
		if path != "" {
			w.Untracked = append(w.Untracked, path)
		}
	}
	return w, nil
}

func (c *covenants) custom() ([]judge.Check, error) {
	if len(c.p.cfg.Covenants.Custom) == 0 {
		return []judge.Check{judge.NotClaimed("custom/commands", "checks of the repository's own pass", "covenants.custom lists none")}, nil
	}
	var checks []judge.Check
	for _, k := range c.p.cfg.Covenants.Custom {
		check, err := c.command(k)
		if err != nil {
			return nil, err
		}
		checks = append(checks, check)
	}
	return checks, nil
}

func (c *covenants) command(k config.Custom) (judge.Check, error) {
	id, claim := "custom/"+k.Name, "the command passes"
	if c.rev != "HEAD" {
		return judge.Unjudged(id, claim, fmt.Errorf("a command runs in the work tree, which is not %s: check it out", c.rev)), nil
	}
	x, err := smoke.Run(c.w.ctx, smoke.Command{
		Argv: k.Run.Argv, Shell: k.Run.Shell, Dir: c.p.root, Env: covenantSpec.ChildEnv(c.w.childEnviron()), Timeout: k.Timeout,
	}, c.out, smoke.Options{Workspace: c.p.root, Now: c.w.now})
	switch {
	case err != nil:
		return judge.Check{}, misused("custom check %s: %v", k.Name, err)
	case x.Failure != "":
		return judge.Unjudged(id, claim, fmt.Errorf("%s: %s", x.Command, x.Failure)), nil
	case x.ExitCode == nil:
		return judge.Unjudged(id, claim, fmt.Errorf("%s: its exit status is not known", x.Command)), nil
	case *x.ExitCode != 0:
		message := fmt.Sprintf("exit status %d", *x.ExitCode)
		if last := lastLine(x.Stdout); last != "" {
			message += ": " + last
		}
		return judge.Judged(id, claim, x.Command, judge.Finding{Message: message, Fix: x.Command}), nil
	}
	return judge.Judged(id, claim, x.Command), nil
}

// lastLine is where most commands say what is wrong.
func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	last := []rune(strings.TrimSpace(lines[len(lines)-1]))
	if len(last) > 200 {
		last = append(last[:200], '…')
	}
	return string(last)
}

// readWaivers reads the waivers of the base: a change must not bring along what
// lets it pass. On other events the commit itself is what was merged.
func (c *covenants) readWaivers() error {
	t := c.head.tree
	if c.base != nil {
		t = c.base
	}
	var err error
	c.waivers, c.ignored, err = covenant.Waivers(t, c.p.layout, c.w.now())
	if err != nil {
		return fmt.Errorf("waivers: %w", err)
	}
	return nil
}

// say prints the verdict.
func (c *covenants) say(v *action.Values, verdict judge.Verdict) error {
	switch {
	case v.Bool("json"):
		out, err := json.MarshalIndent(c.json(verdict), "", "  ")
		if err != nil {
			return err
		}
		// A runner finds commands in the middle of a line, too. In JSON this
		// can stand in a string only, where the escape means the same.
		c.w.say("%s", strings.ReplaceAll(string(out), "##[", `##\u005b`))
	case v.Bool("sarif"):
		out, err := verdict.SARIF(c.tool())
		if err != nil {
			return err
		}
		c.w.say("%s", strings.TrimRight(strings.ReplaceAll(string(out), "##[", `##\u005b`), "\n"))
	default:
		text := strings.TrimRight(verdict.Text(), "\n")
		if c.audit != nil {
			text += "; " + auditLine(c.head, c.audit)
		}
		for _, line := range c.waiverLines() {
			text += "\n" + line
		}
		c.w.say("%s", action.Defang(text))
	}
	return nil
}

// waiverLines says at every run who lets pass what, and which waivers do not
// count.
func (c *covenants) waiverLines() (lines []string) {
	for _, w := range c.waivers {
		what := w.Check
		if w.Path != "" {
			what += fmt.Sprintf(" of %q", w.Path)
		}
		lines = append(lines, fmt.Sprintf("⚠️  WAIVER in force: %s by %s until %s: %q (%s)", what, w.Issuer, w.Expires.UTC().Format(time.RFC3339), w.Reason, w.File))
	}
	for _, f := range c.ignored {
		lines = append(lines, fmt.Sprintf("⚠️  %q: %q", f.Path, f.Message))
	}
	return lines
}

func (c *covenants) json(verdict judge.Verdict) map[string]any {
	waivers := []map[string]any{}
	for _, w := range c.waivers {
		m := w.Predicate()
		m["issuer"], m["file"] = w.Issuer, w.File
		waivers = append(waivers, m)
	}
	out := map[string]any{
		"verdict": verdict.Status, "covenants": verdict.Covenants, "checks": verdict.Checks, "judged": c.head.where,
		"waivers": waivers, "ignored_waivers": append([]judge.Finding{}, c.ignored...),
	}
	if c.audit != nil {
		out["policy_id"], out["first_use"] = c.audit.PolicyID, c.audit.FirstUse
	}
	return out
}

// annotate says at its place in the code what failed.
func (w *world) annotate(p *project, r *action.Runner, verdict judge.Verdict) {
	prefix := ""
	if rel, err := filepath.Rel(resolved(w.getenv("GITHUB_WORKSPACE")), resolved(p.root)); err == nil && filepath.IsLocal(rel) && rel != "." {
		prefix = filepath.ToSlash(rel) + "/"
	}
	for _, c := range verdict.Checks {
		if c.Waived != "" {
			r.Annotate(action.Warning, "", 0, c.ID, "WAIVED "+c.Waived)
			continue
		}
		for _, f := range c.Findings {
			level, path, message := action.Error, f.Path, f.Message
			if f.Warning {
				level = action.Warning
			}
			if path != "" {
				path = prefix + path
			}
			if f.Fix != "" {
				message += "\n" + f.Fix
			}
			r.Annotate(level, path, f.Line, c.ID, message)
		}
		if len(c.Findings) == 0 && c.Status != judge.Pass && c.Status != judge.Unclaimed {
			r.Annotate(action.Error, "", 0, c.ID, c.Detail)
		}
	}
}

// write hands over the files that were asked for.
func (c *covenants) write(v *action.Values, r *action.Runner, verdict judge.Verdict) error {
	files := map[string][]byte{}
	var err error
	if path := v.String("sarif-file"); path != "" {
		if files[path], err = verdict.SARIF(c.tool()); err != nil {
			return err
		}
	}
	if path := v.String("statement"); path != "" {
		if files[path], err = c.statement(verdict); err != nil {
			return err
		}
	}
	for path, data := range files {
		if err := durable.Put(c.w.path(path), data, 0o644); err != nil {
			return err
		}
		if r.InActions() { // what root in a container leaves behind, the runner cannot clean up
			if err := giveToOwnerOf(c.w.getenv("GITHUB_WORKSPACE"), c.w.path(path)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *covenants) tool() judge.Tool {
	t := judge.Tool{Version: version(), Fallback: config.FileName}
	if uri := c.repository(); uri != "" && !c.head.commit.IsZero() {
		t.Repository, t.Commit = uri, c.head.commit.String()
	}
	return t
}

// repository returns the URI of the repository on its forge, "" when there is
// none.
func (c *covenants) repository() string {
	if c.w.getenv("GITHUB_ACTIONS") == "true" && c.w.getenv("GITHUB_SERVER_URL") != "" {
		return c.w.getenv("GITHUB_SERVER_URL") + "/" + c.w.getenv("GITHUB_REPOSITORY")
	}
	if u, err := c.p.repo.RemoteURL("origin"); err == nil {
		if o := originOf(u); o != "" {
			return "https://" + o
		}
	}
	return ""
}

// statement is the verdict as an in-toto statement, unsigned: it is a report,
// and becomes evidence when somebody signs it.
func (c *covenants) statement(verdict judge.Verdict) ([]byte, error) {
	if c.head.commit.IsZero() {
		return nil, errors.New("a statement is about a commit, and nothing is committed yet")
	}
	predicate, err := c.summary(verdict)
	if err != nil {
		return nil, err
	}
	commit := c.head.commit.String()
	out, err := receipt.Canonical(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": receipt.Covenant.PredicateType(),
		"subject":   []any{map[string]any{"name": "commit", "digest": map[string]any{"gitCommit": commit}}},
		"predicate": predicate,
	})
	return append(out, '\n'), err
}

// summary is the predicate of a SLSA verification summary.
func (c *covenants) summary(verdict judge.Verdict) (map[string]any, error) {
	uri := c.repository()
	if uri == "" {
		origin, err := c.p.origin()
		if err != nil {
			return nil, err
		}
		uri = "https://" + origin
	}
	w := judge.Verified{Verifier: "https://vaultmesh.org/remembrancer/covenant-check", Time: c.w.now(), Resource: "git+" + uri, Policy: judge.Resource{URI: config.FileName}}
	if !c.head.commit.IsZero() {
		w.Resource += "@" + c.head.commit.String()
	}
	policy, err := c.configuration()
	if err != nil {
		return nil, err
	}
	w.Policy.SHA256 = digest(policy)
	if c.audit != nil {
		if note := c.audit.Checkpoint.Note(); note != nil {
			w.Inputs = []judge.Resource{{URI: c.p.layout.Ledger(ledger.CheckpointPath), SHA256: digest(note)}}
		}
	}
	return verdict.VerificationSummary(w), nil
}

// configuration returns the bytes of the configuration that judged.
func (c *covenants) configuration() ([]byte, error) {
	base, err := c.w.configBase(c.p)
	if err != nil {
		return nil, err
	}
	if base.IsZero() {
		return os.ReadFile(filepath.Join(c.p.root, config.FileName))
	}
	t, err := c.p.repo.TreeAt(base)
	if err != nil {
		return nil, err
	}
	return t.Blob(config.FileName)
}

// fastCovenants judges a tree that is about to be committed, without running
// anything: what a change must leave alone, compared with the commit before it,
// and hygiene.
func (w *world) fastCovenants(p *project, t judge.Tree) ([]judge.Check, error) {
	before, err := w.before(p)
	if err != nil {
		return nil, err
	}
	tidy := hygiene.Check(t, hygieneRules(p.cfg), nil)
	if _, err := before.Blob(config.FileName); errors.Is(err, fs.ErrNotExist) {
		return append(tidy, judge.NotClaimed("integrity/change", "the evidence is left alone", "the covenant begins with this commit")), nil
	} else if err != nil {
		return nil, err
	}
	change := covenant.CheckChange(before, t, covenant.Change{Layout: p.layout, Owned: p.cfg.Paths.GateOwned, ApprovalUnknown: true}).Checks()
	return append(change, tidy...), nil
}

// before returns the tree that a commit will follow: HEAD's, or in a merge that
// of the parent whose log is longer, since a branch that takes in what was
// published changes nothing of it. Without any commit it is empty.
func (w *world) before(p *project) (covenant.Tree, error) {
	best, size := covenant.Tree(nil), int64(-1)
	revs := []string{"HEAD", "MERGE_HEAD"}
	for _, kv := range w.environ {
		// A merge that goes well has no MERGE_HEAD yet when it asks its hook, but
		// git names the parents to it, as GITHEAD_<commit>=<name>.
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "GITHEAD_") {
			revs = append(revs, strings.TrimPrefix(name, "GITHEAD_"))
		}
	}
	for _, rev := range revs {
		h, err := p.repo.Resolve(rev)
		switch {
		case errors.Is(err, gitrepo.ErrNoGit), errors.Is(err, gitrepo.ErrMissingObject), errors.Is(err, gitrepo.ErrCorruptObject):
			return nil, err
		case err != nil:
			continue // nothing is committed yet, or nothing is merged
		}
		t, err := p.repo.TreeAt(h)
		if err != nil {
			return nil, err
		}
		tree := publish.Tree(t)
		n := int64(0)
		note, err := tree.Blob(p.layout.Ledger(ledger.CheckpointPath))
		switch {
		case err == nil:
			n = mustSize(string(note))
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
		if best == nil || n > size {
			best, size = tree, n
		}
	}
	if best == nil {
		return noTree{}, nil
	}
	return best, nil
}

// noTree is the tree before the first commit.
type noTree struct{}

func (noTree) Blob(p string) ([]byte, error) {
	return nil, &fs.PathError{Op: "read", Path: p, Err: fs.ErrNotExist}
}

func (noTree) Walk(string, func(string, fs.FileMode, string) error) error { return nil }
