package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/guard"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
)

// What a verb that publishes is given.
var (
	remoteInput    = action.Input{Name: "remote", Usage: "URL to publish to; the remote origin, or the runner's repository, when left out."}
	pushTokenInput = action.Input{Name: "token", Kind: action.Secret, Usage: "Token of an identity that may push.", Env: "REMEMBRANCER_TOKEN"}
	logKeyInput    = action.Input{Name: "log-key", Kind: action.Secret, Usage: "Signing key of the log, as init made it.", Env: "REMEMBRANCER_LOG_KEY"}
)

var publishVerb = verb{
	spec: action.Spec{
		Name: "merkle-publish", Verb: "publish",
		Summary: "append new receipts to the ledger and commit its root",
		Description: "Fetches the branch, proves its ledger, appends every receipt that a trusted issuer has signed, and commits segments, checkpoint, " +
			"root line and badge in one commit, by a protocol in which nothing is signed that could lose a race. It catches up whatever earlier runs missed.\n\n" +
			"With a token it also asks the forge how each new commit came to the branch, and records an incident for one that was pushed without a pull request or merged without its required checks. " +
			"That needs pull-requests, checks and statuses: read; without them it says that nothing was checked.\n\n" +
			"Receipts without a valid signature of a trusted issuer are quarantined: named, and left where they are.",
		Inputs: append([]action.Input{
			remoteInput, pushTokenInput, logKeyInput,
			policyIDInput,
			{Name: "report", Kind: action.Path, Usage: "Smoke report that the keyless job handed over, to be recorded as reported."},
			{Name: "dry-run", Kind: action.Bool, Usage: "Say what would be appended to the ledger of HEAD, and write nothing.", CLIOnly: true},
			{Name: "restore-claim", Kind: action.Bool, Usage: "Begin a lost claim branch anew at the published checkpoint.", CLIOnly: true},
			{Name: "tiles", Usage: "Write the C2SP tlog-tiles tree of this repository's ledger into a directory, and publish nothing.", CLIOnly: true},
			{Name: "site", Usage: "Write what HEAD proves as static pages into a new or empty directory, and publish nothing: status, SLO reports and their pictures, checkpoint, snapshots.", CLIOnly: true},
		}, keyInputs()...),
		Outputs: []action.Output{
			{Name: "published", Usage: "true when a commit was made."},
			{Name: "size", Usage: "Number of entries of the log."},
			{Name: "root", Usage: "Merkle root, in hex."},
			{Name: "sequenced", Usage: "Number of entries this run added."},
			{Name: "quarantined", Usage: "Number of files left in quarantine."},
			{Name: "bypasses", Usage: "Number of incidents this run added: commits that went past the required checks."},
		},
		Exit:     "1 when something stays quarantined, after the rest has landed, and when the ledger was refused with evidence. With --site 0 once the pages are written, whatever they say.",
		Examples: []string{"remembrancer publish", "remembrancer publish --tiles public/", "remembrancer publish --site public/"},
	},
	run: runPublish,
}

func runPublish(w *world, v *action.Values, r *action.Runner) error {
	if strings.HasPrefix(w.getenv("GITHUB_EVENT_NAME"), "pull_request") {
		return misused("event %s: a pull request publishes nothing; run on push, workflow_run, schedule or workflow_dispatch", w.getenv("GITHUB_EVENT_NAME"))
	}
	p, err := w.openProject()
	if err != nil {
		return err
	}
	pinned, err := pinnedPolicy(v)
	if err != nil {
		return err
	}
	if dir := v.String("site"); dir != "" {
		if err := w.writeSite(p, dir, pinned); err != nil {
			return err
		}
	}
	if dir := v.String("tiles"); dir != "" {
		return w.writeTiles(p, w.path(dir))
	}
	if v.String("site") != "" {
		return nil
	}
	if v.Bool("dry-run") {
		plan, err := w.plan(p, pinned)
		if err != nil {
			return err
		}
		w.say("%s", plan.line)
		w.sayQuarantine(plan.quarantined)
		return quietly(plan.code)
	}
	pub, err := w.publisher(p, v, r, pinned)
	if err != nil {
		return err
	}
	pub.RestoreClaim = v.Bool("restore-claim")
	if pub.Observations, err = w.observations(p, v, r); err != nil {
		return err
	}
	blind := ""
	if pub.Examine, err = w.examiner(p, pub.Remote.URL(), v.String("token"), r); err != nil {
		blind = err.Error()
	}
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Minute)
	defer cancel()
	res, err := pub.Run(ctx)
	if err != nil {
		return explainPublish(err)
	}
	res.Unexamined = cmp.Or(res.Unexamined, blind)
	return w.sayPublished(p, res, r)
}

// publisher gathers keys and remote.
func (w *world) publisher(p *project, v *action.Values, r *action.Runner, pinned string) (*publish.Publisher, error) {
	signer, err := w.signer(v, p)
	if err != nil {
		return nil, err
	}
	logKey, err := w.logKey(v, p)
	if err != nil {
		return nil, err
	}
	url := v.String("remote")
	if url == "" {
		if url, err = p.remote(r); err != nil {
			return nil, err
		}
	}
	remote, err := gitrepo.Dial(w.ctx, gitrepo.Options{URL: url, Auth: gitrepo.Auth{Token: v.String("token")}, Seed: p.repo})
	if err != nil {
		return nil, err
	}
	c := p.cfg.Publish
	pub := &publish.Publisher{
		Remote: remote, Layout: p.layout,
		Branch: "refs/heads/" + c.Branch, Target: "refs/heads/" + c.Branch, Claim: "refs/heads/" + c.ClaimBranch,
		LogKey: logKey, Issuer: signer, PolicyID: pinned,
		AuthorName: c.Author.Name, AuthorEmail: c.Author.Email,
		Now: w.now,
		Log: func(format string, args ...any) { w.note("%s", action.Defang(fmt.Sprintf(format, args...))) },
	}
	if c.PublishRef != "" {
		pub.Target = "refs/heads/" + c.PublishRef
	}
	pub.SignCommit = func(payload []byte) (string, error) { return armoredSignature(w.ctx, signer, payload) }
	if c.CommitMode == "api" {
		e, err := r.Event()
		if err != nil {
			return nil, fmt.Errorf("commit-mode api: %w", err)
		}
		pub.Land = forge.New(e.GraphQLURL, v.String("token")).Commit(e.Repository)
	}
	return pub, nil
}

// examineTime is how long the forge may take to tell about new commits.
const examineTime = 2 * time.Minute

// examiner returns what asks the forge how commits came to the branch. Without a
// token nothing is asked, which under CI is an error to be said.
func (w *world) examiner(p *project, remote, token string, r *action.Runner) (func(context.Context, []gitrepo.Hash) ([]publish.Incident, error), error) {
	base, name := forgeOf(remote)
	if r.InActions() {
		e, err := r.Event()
		if err != nil {
			return nil, err
		}
		base, name = e.APIURL, e.Repository
	}
	switch {
	case len(p.cfg.Enforce.Checks) == 0: // nothing is required, so nothing is bypassed
		return nil, nil
	case token == "" && !w.inCI():
		return nil, nil
	case token == "":
		return nil, errors.New("there is no token to ask the forge with")
	case name == "":
		return nil, fmt.Errorf("%s is no forge with an API that is known here", remote)
	}
	api, err := forge.NewREST(base, token, forge.RESTOptions{})
	if err != nil {
		return nil, err
	}
	repo, err := api.Repository(name)
	if err != nil {
		return nil, err
	}
	required := guard.Required{Branch: p.cfg.Publish.Branch, Checks: p.cfg.Enforce.Checks, App: p.cfg.Enforce.App}
	return func(ctx context.Context, commits []gitrepo.Hash) ([]publish.Incident, error) {
		ctx, cancel := context.WithTimeout(ctx, examineTime)
		defer cancel()
		found, err := guard.Bypasses(ctx, repo, commits, required)
		incidents := make([]publish.Incident, 0, len(found))
		for _, b := range found {
			incidents = append(incidents, bypassed(required, b))
		}
		return incidents, err
	}, nil
}

// forgeOf returns the API and the repository's name that belong to the URL of a
// remote; GitHub Enterprise has its API below the same host.
func forgeOf(remote string) (base, name string) {
	u, err := url.Parse(remote)
	if err != nil || u.Scheme != "https" {
		return "", ""
	}
	name = strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git")
	if u.Host == "github.com" {
		return "", name
	}
	return "https://" + u.Host + "/api/v3", name
}

// bypassed is the incident of a commit that went past the required checks.
func bypassed(r guard.Required, b guard.Bypass) publish.Incident {
	missing := []any{}
	for _, m := range b.Missing {
		missing = append(missing, map[string]any{"check": m.Check, "state": m.State})
	}
	i := publish.Incident{
		Commit: b.Commit, At: b.MergedAt, Title: fmt.Sprintf("commit %s was pushed to %s without a pull request", b.Commit.String()[:12], r.Branch),
		Observed: map[string]any{"event": "bypass", "branch": r.Branch, "missing": missing},
	}
	if b.Pull != 0 {
		var names []string
		for _, m := range b.Missing {
			names = append(names, m.Check+" "+m.State)
		}
		i.Title = fmt.Sprintf("pull request %d was merged to %s past required checks: %s", b.Pull, r.Branch, strings.Join(names, ", "))
		i.Observed["pull"], i.Observed["head"], i.Observed["merged_by"] = b.Pull, b.Head.String(), b.MergedBy
	}
	return i
}

// remote returns the URL to publish to.
func (p *project) remote(r *action.Runner) (string, error) {
	if r.InActions() {
		e, err := r.Event()
		if err != nil {
			return "", err
		}
		// A checkout of the runner may have a remote of another form; the server's
		// own URL is what its token is good for. Under act there is no server.
		if u, err := p.repo.RemoteURL("origin"); err == nil && !strings.HasPrefix(u, "http") {
			return u, nil
		}
		return e.ServerURL + "/" + e.Repository, nil
	}
	u, err := p.repo.RemoteURL("origin")
	if err != nil {
		return "", fmt.Errorf("%w: publishing needs a remote: git remote add origin URL, or --remote URL", err)
	}
	if !strings.Contains(u, "://") && !strings.Contains(u, ":") && !filepath.IsAbs(u) {
		u = filepath.Join(p.root, u)
	}
	return u, nil
}

// observations says what trusted code knows of the run that is to be recorded.
func (w *world) observations(p *project, v *action.Values, r *action.Runner) ([]publish.Observation, error) {
	var o publish.Observation
	if path := v.String("report"); path != "" {
		data, err := os.ReadFile(w.path(path))
		if err != nil {
			return nil, fmt.Errorf("report: %w", err)
		}
		report, err := smoke.DecodeReport(data)
		if err != nil {
			return nil, fmt.Errorf("report %s: %w", path, err)
		}
		if report.Commit == "" {
			return nil, fmt.Errorf("report %s: it names no commit: only a report of a run can be recorded", path)
		}
		if o.Commit, err = gitrepo.ParseHash(report.Commit); err != nil {
			return nil, fmt.Errorf("report %s: %w", path, err)
		}
		o.Report, o.At = data, report.Finished
	}
	if r.InActions() && w.getenv("GITHUB_EVENT_NAME") == "workflow_run" {
		run, ok, err := observedRun(p, r)
		if err != nil {
			return nil, err
		}
		if !ok {
			w.note("the run of this event is no push run of %s on %s: nothing is recorded of it, nor of a report it handed over", p.cfg.Publish.Workflow, p.cfg.Publish.Branch)
			return nil, nil
		}
		if o.Report != nil && run.Commit != o.Commit {
			return nil, fmt.Errorf("the report is about commit %s, the run about %s", o.Commit, run.Commit)
		}
		run.Report = o.Report
		return []publish.Observation{run}, nil
	}
	if o.Report == nil {
		return nil, nil
	}
	return []publish.Observation{o}, nil
}

// observedRun reads the run that a workflow_run event is about. Runs of other
// workflows, branches and events are not recorded.
func observedRun(p *project, r *action.Runner) (o publish.Observation, ok bool, err error) {
	e, err := r.Event()
	if err != nil {
		return o, false, err
	}
	payload, err := e.Payload()
	if err != nil {
		return o, false, err
	}
	run := gjson.GetBytes(payload, "workflow_run")
	// Of the run's own path and its workflow's, older servers send only the latter.
	path, _, _ := strings.Cut(cmp.Or(run.Get("path").String(), gjson.GetBytes(payload, "workflow.path").String()), "@")
	if run.Get("head_branch").String() != p.cfg.Publish.Branch || run.Get("event").String() != "push" || path != p.cfg.Publish.Workflow {
		return o, false, nil
	}
	o = publish.Observation{
		Workflow: path, RunID: run.Get("id").Int(), Attempt: run.Get("run_attempt").Int(),
		Event: run.Get("event").String(), Conclusion: run.Get("conclusion").String(),
	}
	if o.Commit, err = gitrepo.ParseHash(run.Get("head_sha").String()); err != nil {
		return o, false, fmt.Errorf("event workflow_run: %w", err)
	}
	if o.At, err = time.Parse(time.RFC3339, run.Get("updated_at").String()); err != nil || o.RunID <= 0 || o.Attempt <= 0 || o.Conclusion == "" {
		return o, false, fmt.Errorf("event workflow_run: run %s lacks id, attempt, conclusion or time", run.Get("id"))
	}
	return o, true, nil
}

// explainPublish adds to a refusal what to do next.
func explainPublish(err error) error {
	var refused *gitrepo.RefusedError
	var refusal *publish.Refusal
	switch {
	case errors.As(err, &refused):
		return failed("%w\nThe server refused this identity, and trying again will not help. On a protected branch the publisher needs an identity that the rules let past: a GitHub App with contents: write on the bypass list of the ruleset, or a deploy key; GITHUB_TOKEN cannot be one. Give its token as REMEMBRANCER_TOKEN, or publish to a branch of its own with publish-ref", err)
	case errors.Is(err, gitrepo.ErrAuth), errors.Is(err, gitrepo.ErrNoRepository):
		return fmt.Errorf("%w\nGive the token of an identity that may push as REMEMBRANCER_TOKEN", err)
	case errors.As(err, &refusal) && !refusal.Unreadable:
		return &status{exitFail, err}
	}
	return err
}

func (w *world) sayPublished(p *project, res publish.Result, r *action.Runner) error {
	made := !res.Commit.IsZero() || res.To != res.From
	var bypasses []string
	for _, e := range res.Sequenced {
		if e.Receipt.Kind() == receipt.Incident && e.Receipt.Name() == "" {
			bypasses = append(bypasses, e.Receipt.Field("title"))
		}
	}
	for name, value := range map[string]string{
		"published": fmt.Sprint(made), "size": fmt.Sprint(res.To.Size), "root": fmt.Sprintf("%x", res.To.Root[:]),
		"sequenced": fmt.Sprint(len(res.Sequenced)), "quarantined": fmt.Sprint(len(res.Quarantined)), "bypasses": fmt.Sprint(len(bypasses)),
	} {
		if err := r.SetOutput(name, value); err != nil {
			return err
		}
	}
	switch {
	case res.To.Size == 0:
		w.say("ℹ️  nothing to publish: the log has not begun")
	case !made:
		w.say("ℹ️  No Merkle root update needed: size %d, root %x", res.To.Size, res.To.Root[:])
	default:
		w.say("✅ Merkle root published: size %d → %d, root %x", res.From.Size, res.To.Size, res.To.Root[:])
		if !res.Commit.IsZero() {
			w.say("   commit %s on %s", res.Commit, p.target())
		}
	}
	for i, e := range res.Sequenced {
		w.say("   #%-6d %-12s %s  %s", res.From.Size+int64(i), e.Receipt.Kind(), e.Receipt.ID().String()[:16], action.Defang(entryName(e)))
	}
	for _, title := range bypasses {
		r.Annotate(action.Warning, "", 0, "bypass", title)
	}
	if res.Examined > 0 {
		w.say("   bypass: %d commits examined, %d incidents recorded", res.Examined, len(bypasses))
	}
	if res.Unexamined != "" {
		w.say("⚠️  bypass: NOT CHECKED: %s", action.Defang(res.Unexamined))
	}
	if res.FirstUse {
		w.say("   policy %s: believed from the repository, not pinned (--policy-id pins it)", res.PolicyID)
	}
	if r.InActions() {
		if err := r.Summary(publishSummary(res)); err != nil {
			return err
		}
	}
	w.sayQuarantine(res.Quarantined)
	if len(res.Quarantined) > 0 {
		return quietly(exitFail)
	}
	return nil
}

// entryName is what a person calls an entry: receipts that live in the log only
// have no name.
func entryName(e receipt.Entry) string {
	return cmp.Or(e.Receipt.Name(), e.Receipt.Field("title"))
}

func (p *project) target() string {
	if p.cfg.Publish.PublishRef != "" {
		return p.cfg.Publish.PublishRef
	}
	return p.cfg.Publish.Branch
}

func (w *world) sayQuarantine(qs []publish.Quarantined) {
	for _, q := range qs {
		w.say("⚠️  quarantined %s", action.Defang(q.Path))
		w.say("   %s", action.Defang(q.Reason))
	}
}

func publishSummary(res publish.Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### merkle-publish\n\n| | size | root |\n|---|---|---|\n| before | %d | `%x` |\n| after | %d | `%x` |\n\n",
		res.From.Size, res.From.Root[:], res.To.Size, res.To.Root[:])
	for i, e := range res.Sequenced {
		fmt.Fprintf(&b, "- #%d %s %s\n", res.From.Size+int64(i), e.Receipt.Kind(), action.EscapeMarkdown(entryName(e)))
	}
	if res.Unexamined != "" {
		fmt.Fprintf(&b, "- bypass: **not checked**: %s\n", action.EscapeMarkdown(res.Unexamined))
	}
	for _, q := range res.Quarantined {
		fmt.Fprintf(&b, "- quarantined: %s: %s\n", action.EscapeMarkdown(q.Path), action.EscapeMarkdown(q.Reason))
	}
	return b.String()
}

// writeTiles derives the tlog-tiles tree from the ledger of HEAD.
func (w *world) writeTiles(p *project, dir string) error {
	h, err := p.head("HEAD")
	if err != nil {
		return err
	}
	trust, err := covenant.LoadTrust(h.tree, p.layout)
	if err != nil {
		return err
	}
	note, err := h.tree.Blob(p.layout.Ledger(ledger.CheckpointPath))
	if errors.Is(err, fs.ErrNotExist) {
		return failed("the log has not begun: there are no tiles to write")
	}
	if err != nil {
		return err
	}
	cp, err := trust.Policy.Open(note)
	if err != nil {
		return failed("%v", err)
	}
	out, err := durable.CreateDir(dir)
	if err != nil {
		return err
	}
	defer out.Close()
	n := 0
	if err := ledger.WriteTiles(p.layout.LedgerReader(h.tree), cp, func(path string, data []byte) error {
		n++
		return out.Put(path, data)
	}); err != nil {
		return err
	}
	w.say("✅ %d files in %s: size %d", n, dir, cp.Body().Size)
	return nil
}

// planned is what a publication of HEAD would do.
type planned struct {
	code        int
	line        string
	quarantined []publish.Quarantined
	root        string
	size        int64
	pending     []receipt.Entry
}

// plan computes a publication of HEAD and writes nothing.
func (w *world) plan(p *project, policyID string) (*planned, error) {
	h, err := p.head("HEAD")
	if err != nil {
		return nil, err
	}
	r, err := w.audit(p, h, policyID)
	if err != nil {
		return nil, err
	}
	if code := auditExit(r); code != exitPass {
		return &planned{code: code, line: "the ledger does not pass its audit: nothing would be signed over it"}, nil
	}
	trust, err := covenant.LoadTrust(h.tree, p.layout)
	if err != nil {
		return nil, err
	}
	body := r.Checkpoint.Body()
	if r.Checkpoint.Note() == nil {
		body = ledger.Empty(trust.Policy.Origins()[0])
	}
	// The publisher's identity is not known here: reserved kinds count as its own.
	pending, quarantined, err := publish.Pending(h.tree, p.layout, trust.Keys, "", r.Entries, w.now())
	if err != nil {
		return nil, err
	}
	plan := &planned{quarantined: quarantined, pending: pending, size: body.Size, root: fmt.Sprintf("%x", body.Root[:])}
	switch {
	case len(pending) == 0:
		plan.line = fmt.Sprintf("nothing to append: size %d, root %s", plan.size, plan.root)
	default:
		state, _, err := ledger.Load(p.layout.LedgerReader(h.tree), body)
		if err != nil {
			return nil, err
		}
		lines := make([][]byte, len(pending))
		for i, e := range pending {
			lines[i] = e.Line()
		}
		u, err := state.Append(lines...)
		if err != nil {
			return nil, err
		}
		next := u.State.Body()
		plan.size, plan.root = next.Size, fmt.Sprintf("%x", next.Root[:])
		plan.line = fmt.Sprintf("would append %d, size %d → %d, root %s", len(pending), body.Size, plan.size, plan.root)
	}
	if len(quarantined) > 0 {
		plan.code = exitFail
		plan.line += fmt.Sprintf("; %d in quarantine", len(quarantined))
	}
	return plan, nil
}

// marshalLine is one JSON object on one line.
func marshalLine(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}
