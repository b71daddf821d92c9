package main

import (
	"bytes"
	"errors"
	"fmt"
	"image/png"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/enforce"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/hygiene"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/release"
	"github.com/vaultmesh/remembrancer/pkg/scorecard"
	"github.com/vaultmesh/remembrancer/pkg/slo"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
	"github.com/vaultmesh/remembrancer/pkg/snapshot"
	"github.com/vaultmesh/remembrancer/pkg/workflow"
)

var scorecardSpec = action.Spec{
	Name: "scorecard", Verb: "scorecard", Summary: "score what the repository has proven, from 0 to 10",
	Description: "Scores the mission's four dimensions, a quarter each: operational metrics, automation hardening, documentation maturity, federation proof. " +
		"Each criterion points to a receipt, a committed file or an answer of the forge, which is verified anew; what is claimed and not shown earns nothing, and the next command to type is said. " +
		"Weights and limits are fixed: docs/SCORECARD.md has them.\n\n" +
		"HEAD is judged. What the forge requires is asked only with a token; without one it earns nothing.",
	Inputs: append([]action.Input{
		{Name: "min", Usage: "Least score to pass with, such as 9.9; without one the score is only said."},
		{Name: "out", Kind: action.Path, Usage: "Write the card here as JSON."},
		{Name: "badge", Kind: action.Path, Usage: "Write the score here in the endpoint form of shields.io."},
		policyIDInput,
	}, enforceInputs()...),
	Outputs: []action.Output{
		{Name: "score", Usage: "The score, with two decimals."},
		{Name: "verdict", Usage: "pass, fail or error, where there is a least score; else none."},
	},
	Exit:     "Without --min always 0, once there is a score. With it 1 when the score is lower even with all that could not be judged, else 3 when something could not be judged.",
	Examples: []string{"remembrancer scorecard", "remembrancer scorecard --min 9.9 --badge scorecard.json"},
}

// scorecardVerb is a function: it looks at all verbs, of which it is one.
func scorecardVerb() verb { return verb{spec: scorecardSpec, run: runScorecard} }

func runScorecard(w *world, v *action.Values, r *action.Runner) error {
	if len(v.Args()) > 0 {
		return misused("unexpected argument %q", v.Args()[0])
	}
	least, gated := scorecard.Points(0), v.String("min") != ""
	if gated {
		var err error
		if least, err = scorecard.ParsePoints(v.String("min")); err != nil {
			return misused("--min %v", err)
		}
	}
	s, err := w.scoring(v, r)
	if err != nil {
		return err
	}
	s.gather()
	card := scorecard.Score(s.found, scorecard.Subject{Repository: s.name(), Commit: s.commitName(), Now: w.now(), Changed: s.changed})
	data, err := card.JSON()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"out": data, "badge": card.Badge()} {
		if file := v.String(name); file != "" {
			if err := w.putSLO(r, w.path(file), content); err != nil {
				return err
			}
		}
	}
	verdict := "none"
	code := exitPass
	if gated {
		status := card.Reaches(least)
		verdict, code = status.String(), verdictExit(status)
	}
	if err := errors.Join(r.SetOutput("score", card.Score.String()), r.SetOutput("verdict", verdict), r.Summary(card.Markdown(action.EscapeMarkdown))); err != nil {
		return err
	}
	line := ""
	if gated {
		line = fmt.Sprintf("%s  %s of 10, wanted at least %s", strings.ToUpper(verdict), card.Score, least)
		if un := card.Unjudged(); len(un) > 0 {
			line += fmt.Sprintf("; %d criteria could not be judged", len(un))
		}
	}
	if v.Bool("json") {
		w.say("%s", strings.ReplaceAll(strings.TrimRight(string(data), "\n"), "##[", `##\u005b`))
		if line != "" {
			w.note("%s", line)
		}
		return quietly(code)
	}
	w.say("%s", action.Defang(strings.TrimRight(card.Text(), "\n")))
	if line != "" {
		w.say("%s", line)
	}
	if code != exitPass && r.InActions() {
		r.Annotate(action.Error, "", 0, "scorecard", line)
	}
	return quietly(code)
}

// scoring is the repository whose evidence is gathered.
type scoring struct {
	w    *world
	v    *action.Values
	r    *action.Runner
	p    *project
	head *head // of HEAD, and of nothing that is not committed

	pinned string
	audit  *covenant.Report
	trust  *covenant.Trust
	// ledger is why nothing that rests on the ledger counts; proven when it does.
	ledger scorecard.Evidence

	status    []string // lines of git status
	statusErr error
	changed   []string // files that are in the commit and differ in the work tree

	tidy  []judge.Check // of the tree, by fixed rules
	found map[scorecard.ID]scorecard.Evidence
}

func (w *world) scoring(v *action.Values, r *action.Runner) (*scoring, error) {
	s := &scoring{w: w, v: v, r: r, found: map[scorecard.ID]scorecard.Evidence{}}
	var err error
	if s.pinned, err = pinnedPolicy(v); err != nil {
		return nil, err
	}
	repo, err := gitrepo.Open(w.dir)
	if err != nil {
		return nil, err
	}
	if s.p, err = w.projectIfAny(r); err != nil {
		return nil, err
	}
	if s.p == nil { // it has no configuration, and may have evidence all the same
		s.p = &project{repo: repo, root: repo.Root(), cfg: config.Default(), layout: covenant.DefaultLayout()}
	}
	if s.head, err = s.committed(); err != nil {
		return nil, err
	}
	if err := s.readStatus(); err != nil {
		s.statusErr = err
	}
	s.openLedger()
	return s, nil
}

// committed is HEAD; without a commit it is empty.
func (s *scoring) committed() (*head, error) {
	commit, err := s.p.repo.Resolve("HEAD")
	if err != nil {
		if _, branch := s.p.repo.HeadBranch(); branch != nil {
			return nil, err // HEAD names no branch without commits, and cannot be read
		}
		return &head{tree: noTree{}, branch: headBranch(s.p.repo), where: "nothing is committed"}, nil
	}
	h, err := s.p.head("HEAD")
	if err != nil || !h.commit.IsZero() {
		return h, err
	}
	t, err := s.p.repo.TreeAt(commit)
	return &head{tree: publish.Tree(t), commit: commit, ledger: commit, branch: h.branch, where: "commit " + commit.String()[:12]}, err
}

func (s *scoring) name() string {
	if o, err := s.p.origin(); err == nil {
		return o
	}
	return filepath.Base(s.p.root)
}

func (s *scoring) commitName() string {
	if s.head.commit.IsZero() {
		return ""
	}
	return s.head.commit.String()
}

// readStatus asks git what differs from HEAD. Only git knows what it would convert.
func (s *scoring) readStatus() error {
	// Another program as file system monitor is none to be asked here.
	cmd := exec.CommandContext(s.w.ctx, "git", "--no-optional-locks", "-c", "core.fsmonitor=false", "status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal")
	cmd.Dir, cmd.Env = s.p.root, s.w.childEnviron()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("git status: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	for line := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if len(line) < 4 {
			continue
		}
		s.status = append(s.status, line)
		if !strings.HasPrefix(line, "??") {
			s.changed = append(s.changed, line[3:])
		}
	}
	return nil
}

const begin = "remembrancer init, commit what it writes, remembrancer record, and remembrancer publish"

func (s *scoring) openLedger() {
	if _, err := s.head.tree.Blob(s.p.layout.Ledger(ledger.PolicyPath)); errors.Is(err, fs.ErrNotExist) {
		s.ledger = scorecard.Missing(begin, "there is no ledger")
		return
	}
	var err error
	if s.trust, err = covenant.LoadTrust(s.head.tree, s.p.layout); err == nil {
		s.audit, err = s.w.audit(s.p, s.head, s.pinned)
	}
	const more = "remembrancer verify-audit"
	switch {
	case err != nil:
		s.ledger = scorecard.Unknown(more, fmt.Errorf("the ledger: %w", err))
	case s.audit.Status() != covenant.Pass:
		var why []string
		for _, f := range s.audit.Failures() {
			why = append(why, f.Name+": "+f.Detail)
		}
		err := fmt.Errorf("the ledger does not pass its audit: %s", strings.Join(why, "; "))
		s.ledger = scorecard.Unknown(more, err)
		if s.audit.Status() == covenant.Fail {
			s.ledger = scorecard.Wrong(more, "%v", err)
		}
	case s.audit.Checkpoint.Note() == nil:
		s.ledger = scorecard.Missing("remembrancer record, and remembrancer publish", "the ledger has not begun")
	default:
		s.ledger.State = scorecard.Proven
	}
}

// entries are the admitted receipts, of a ledger that counts.
func (s *scoring) entries() []receipt.Entry {
	if s.ledger.State != scorecard.Proven {
		return nil
	}
	return s.audit.Entries
}

func (s *scoring) gather() {
	s.slo()
	s.found[scorecard.Picture] = s.picture()
	s.found[scorecard.Snapshot] = s.snapshot()
	s.enforced()
	s.found[scorecard.Publishing] = s.publishing()
	s.found[scorecard.Root] = s.root()
	s.smoke()
	s.found[scorecard.Releases] = s.releases()
	s.found[scorecard.Hook] = s.hook()
	s.documents()
	s.found[scorecard.Untracked] = s.untracked()
	s.found[scorecard.Genesis] = s.genesis()
	s.federation()
}

// put is one piece of evidence for several criteria.
func (s *scoring) put(e scorecard.Evidence, ids ...scorecard.ID) {
	for _, id := range ids {
		s.found[id] = e
	}
}

// cite names an entry of the ledger.
func cite(i int, r *receipt.Receipt) string { return fmt.Sprintf("#%d %s", i, r.ID()) }

// receiptFiles are the files of a receipt: none of one that is in the ledger only.
func (s *scoring) receiptFiles(r *receipt.Receipt) []string {
	if r.File() == "" {
		return nil
	}
	return []string{s.p.layout.Receipt(r.File())}
}

// forDevelopment names those of these keys that say of themselves that they are for
// development.
func (s *scoring) forDevelopment(ring *openpgp.Keyring, keys ...openpgp.Fingerprint) (list []string) {
	for _, f := range keys {
		for _, known := range []*openpgp.Keyring{ring, s.trust.Keys, s.trust.Retired} {
			if k, ok := known.Lookup(f); ok && k.Development() && !slices.Contains(list, "key "+string(f)) {
				list = append(list, "key "+string(f))
			}
		}
	}
	return list
}

// clocks names the pinned authorities that are for development, of those that are
// asked for time stamps.
func (s *scoring) clocks() (list []string) {
	all, err := release.Authorities(s.head.tree, tsaFolder(s.p.layout))
	if err != nil {
		return nil // then no token of theirs verifies
	}
	for _, a := range all {
		if a.Development && (len(s.p.cfg.Release.Authorities) == 0 || slices.Contains(s.p.cfg.Release.Authorities, a.Name)) {
			list = append(list, "time-stamping authority "+a.Name)
		}
	}
	return list
}

// sloFile is where the mission has its report.
const sloFile = "canary_slo_report.json"

func (s *scoring) slo() {
	const next = "remembrancer slo report --prometheus URL --slo FILE --window 72h --out " + sloFile + ", commit what it writes, and remembrancer publish"
	ids := []scorecard.ID{scorecard.Report, scorecard.Objectives, scorecard.Window}
	data, err := s.head.tree.Blob(sloFile)
	if errors.Is(err, fs.ErrNotExist) {
		s.put(scorecard.Missing(next, "%s is not committed", sloFile), ids...)
		return
	}
	e := scorecard.Evidence{State: scorecard.Proven, Files: []string{sloFile}}
	var report *slo.Report
	if err == nil {
		report, err = s.remadeOf(data, &e)
	}
	if err != nil {
		e.State, e.Detail, e.Next = scorecard.Wanting, err.Error(), next
		s.put(e, ids...)
		return
	}
	if s.ledger.State != scorecard.Proven {
		s.put(s.ledger, ids...)
		return
	}
	end, err := time.Parse(time.RFC3339, report.Proven.End)
	start, err2 := time.Parse(time.RFC3339, report.Proven.Start)
	at, _, err3 := sloReceiptIn(s.entries(), digest(data), report)
	if err := errors.Join(err, err2, err3, s.inHistory(report.Subject.Revision)); err != nil {
		e.State, e.Detail, e.Next = scorecard.Wanting, err.Error(), next
		s.put(e, ids...)
		return
	}
	r := s.audit.Entries[at].Receipt
	e.At, e.Receipts = end, []string{cite(at, r)}
	e.Files = append(e.Files, s.receiptFiles(r)...)
	e.Development = s.forDevelopment(nil, r.Issuer())

	e.Detail = fmt.Sprintf("made anew of %d answers, byte for byte; receipt #%d", report.Evidence.Responses, at)
	s.found[scorecard.Report] = e

	met := 0
	for _, k := range report.KPIs {
		if k.Compliant && scorecard.MeetsTarget(k.Key, k.Value) {
			met++
		}
	}
	kpis := scorecard.Counted(met, len(report.KPIs), scorecard.KPIs, "verdict %s of revision %s", report.Verdict, report.Subject.Revision[:12])
	kpis.Files, kpis.Receipts, kpis.At, kpis.Development = e.Files, e.Receipts, e.At, e.Development
	if kpis.State != scorecard.Proven {
		kpis.Next = "mend what misses its target, and measure again: " + next
	}
	s.found[scorecard.Objectives] = kpis

	e.Detail = fmt.Sprintf("%s, to %s", slo.FormatDuration(end.Sub(start)), report.Proven.End)
	if end.Sub(start) < scorecard.ProvenWindow {
		e.State, e.Next = scorecard.Wanting, "let it run, and "+next
		e.Detail += ": it is a shorter window than 72h, which is met or not"
	}
	s.found[scorecard.Window] = e
}

// remadeOf makes a report anew, of files of the commit alone.
func (s *scoring) remadeOf(data []byte, e *scorecard.Evidence) (*slo.Report, error) {
	claimed, err := slo.Parse(data)
	if err != nil {
		return nil, err
	}
	if claimed.DataSource != slo.FromPrometheus {
		return nil, fmt.Errorf("data_source is %s: %w", claimed.DataSource, slo.ErrNotMeasured)
	}
	archive := path.Join(path.Dir(sloFile), claimed.Evidence.File)
	e.Files = append(e.Files, archive, claimed.Spec.File)
	text, err := s.head.tree.Blob(claimed.Spec.File)
	if err != nil {
		return nil, fmt.Errorf("its spec: %w", err)
	}
	spec, err := slo.ParseSpec(claimed.Spec.File, text)
	if err != nil {
		return nil, err
	}
	evidence, err := s.head.tree.Blob(archive)
	if err != nil {
		return nil, fmt.Errorf("its evidence: %w", err)
	}
	return slo.Verify(data, spec, evidence)
}

// inHistory refuses a commit that HEAD does not contain.
func (s *scoring) inHistory(id string) error {
	h, err := gitrepo.ParseHash(id)
	if err != nil {
		return err
	}
	in, err := s.p.repo.IsAncestor(h, s.head.commit)
	if err == nil && !in {
		err = fmt.Errorf("it is about commit %s, which is not in this history", id)
	}
	return err
}

// What a picture of a dashboard is: enough to read, and not more than can be decoded.
const (
	minWidth  = 640
	maxPixels = 64 << 20
)

func (s *scoring) picture() scorecard.Evidence {
	const next = "remembrancer slo picture " + sloFile + " --out docs/aurora-staging-metrics.png, remembrancer record discovery --title Dashboard --evidence docs/aurora-staging-metrics.png, commit all, and remembrancer publish"
	var names []string
	if err := s.head.tree.Walk("docs", func(p string, mode fs.FileMode, _ string) error {
		if ok, err := path.Match("docs/*-metrics.png", p); ok && err == nil && mode.IsRegular() {
			names = append(names, p)
		}
		return nil
	}); err != nil {
		return scorecard.Unknown("git fetch", err)
	}
	if len(names) == 0 {
		return scorecard.Missing(next, "no docs/*-metrics.png is committed")
	}
	if s.ledger.State != scorecard.Proven {
		return s.ledger
	}
	wrong := scorecard.Evidence{}
	for _, name := range slices.Sorted(slices.Values(names)) {
		data, err := s.head.tree.Blob(name)
		if err != nil {
			return scorecard.Unknown("git fetch", err)
		}
		c, err := png.DecodeConfig(bytes.NewReader(data))
		if err == nil && (c.Width < minWidth || c.Width*c.Height > maxPixels) {
			err = fmt.Errorf("it is %d × %d, want at least %d wide, and at most %d pixels", c.Width, c.Height, minWidth, maxPixels)
		}
		if err == nil {
			_, err = png.Decode(bytes.NewReader(data))
		}
		if err != nil {
			wrong = scorecard.Wrong(next, "%s is no picture: %v", name, err)
			wrong.Files = []string{name}
			continue
		}
		sum := digest(data)
		for i, entry := range slices.Backward(s.entries()) {
			r := entry.Receipt
			if slices.ContainsFunc(r.Subjects(), func(x receipt.Subject) bool { return x.SHA256 == sum }) {
				return scorecard.Evidence{
					State: scorecard.Proven, Detail: fmt.Sprintf("%s, %d × %d, as receipt #%d names it", name, c.Width, c.Height, i),
					Files: append([]string{name}, s.receiptFiles(r)...), Receipts: []string{cite(i, r)}, At: r.Issued(), Development: s.forDevelopment(nil, r.Issuer()),
				}
			}
		}
		wrong = scorecard.Wrong(next, "no receipt in the ledger names the SHA-256 of %s, %s", name, sum)
		wrong.Files = []string{name}
	}
	return wrong
}

func (s *scoring) snapshot() scorecard.Evidence {
	const next = "remembrancer snapshot create, and git pull"
	folder := snapshotFolder(s.p.layout)
	last, err := snapshot.Newest(s.head.tree, folder)
	switch {
	case err != nil:
		return scorecard.Wrong("remembrancer snapshot verify", "%v", err)
	case last == nil:
		return scorecard.Missing(next, "no snapshot is committed")
	case s.ledger.State != scorecard.Proven:
		return s.ledger
	}
	e := scorecard.Checked("remembrancer snapshot verify", s.w.snapshots(s.p, s.head, s.audit)...)
	e.At = last.Snapshot.Date()
	at := path.Join(folder, last.Snapshot.File())
	if err := s.head.tree.Walk(folder, func(p string, _ fs.FileMode, _ string) error {
		if strings.HasPrefix(p, at) {
			e.Files = append(e.Files, p)
		}
		return nil
	}); err != nil {
		return scorecard.Unknown("git fetch", err)
	}
	if e.State != scorecard.Proven {
		return e
	}
	armored, err := s.head.tree.Blob(at + ".asc")
	if err != nil {
		return scorecard.Unknown("git fetch", err)
	}
	for _, ring := range []*openpgp.Keyring{s.trust.Keys, s.trust.Retired} {
		if signed, err := release.SignedBy(ring, last.Data, armored, s.w.now()); err == nil {
			e.Development = s.forDevelopment(nil, signed.Fingerprint)
		}
	}
	e.Development = append(e.Development, s.clocks()...)
	e.Detail = fmt.Sprintf("%s and all before it: chain, ledger, signature, time stamps", last.Snapshot.File())
	return e
}

// The names that init gives to the checks.
const (
	smokeCheck    = "smoke-test"
	covenantCheck = "covenant-validation"
)

// unskippable are the checks of doctor that say whether a required job can be got
// past.
var unskippable = []string{"doctor/syntax", "doctor/skippable", "doctor/collision", "doctor/path-filter"}

// enforced asks the forge what it requires, and the workflows whether they can be
// got past.
func (s *scoring) enforced() {
	ids := []scorecard.ID{scorecard.SmokeRequired, scorecard.CovenantRequired, scorecard.Enforcement}
	const ask = "REMEMBRANCER_TOKEN=TOKEN remembrancer scorecard, where the remote origin is on a forge, or with --repo OWNER/NAME; enforce plan says what is lacking, enforce apply requires it"
	token := s.v.String("token")
	for _, name := range []string{"GITHUB_TOKEN", "GH_TOKEN"} {
		if token == "" {
			token = s.w.getenv(name)
		}
	}
	if token == "" {
		s.put(scorecard.Missing(ask, "the forge was not asked: there is no token"), ids...)
		return
	}
	on, err := s.w.enforcing(s.v, s.r)
	if err != nil {
		s.put(scorecard.Missing(ask, "the forge was not asked: %v", err), ids...)
		return
	}
	plan, err := enforce.Plan(s.w.ctx, on.api, on.want)
	if err != nil {
		s.put(scorecard.Unknown("remembrancer enforce plan", fmt.Errorf("the forge: %w", explainEnforce(err))), ids...)
		return
	}
	set, err := workflow.Load(s.head.tree)
	if err != nil {
		s.put(scorecard.Unknown("remembrancer doctor", err), ids...)
		return
	}
	opts := workflow.Options{Required: s.p.cfg.Enforce.Checks, Branch: s.p.cfg.Publish.Branch}
	if run := s.p.cfg.Smoke.Run; len(run.Argv) > 0 {
		opts.Gates = []string{run.Argv[0]}
	} else if run.Shell != "" {
		opts.Gates = []string{run.Shell}
	}
	doctor := workflow.Doctor(set, opts)
	answers := []string{fmt.Sprintf("what the forge requires of %s, branch %s", plan.Repository, plan.Branch)}
	finish := func(id scorecard.ID, e scorecard.Evidence, files []string) {
		e.Answers, e.Files, e.At = answers, files, s.w.now()
		s.found[id] = e
	}
	for name, id := range map[string]scorecard.ID{smokeCheck: scorecard.SmokeRequired, covenantCheck: scorecard.CovenantRequired} {
		at := slices.IndexFunc(plan.Required, func(r enforce.Required) bool { return r.Name == name })
		if at < 0 {
			s.found[id] = scorecard.Missing("name it in enforce.checks of "+config.FileName+", and remembrancer enforce apply", "%s is not among the wanted checks", name)
			continue
		}
		got := plan.Required[at]
		poster, err := s.poster(name)
		var e scorecard.Evidence
		switch {
		case err != nil:
			e = scorecard.Unknown("git fetch", err)
		case got.State == enforce.Unreadable:
			e = scorecard.Unknown("give a token with "+got.Lacking, fmt.Errorf("whether %s is required could not be read", name))
		case got.State != enforce.Pinned:
			e = scorecard.Wrong("remembrancer enforce apply", "the forge says of %s: %s", name, got.State)
		case !workflow.Posts(set, name) || poster == "":
			e = scorecard.Wrong("remembrancer doctor", "no workflow of the commit posts %s", name)
		default:
			e = scorecard.Checked("remembrancer doctor", slices.DeleteFunc(slices.Clone(doctor), func(c judge.Check) bool { return !slices.Contains(unskippable, c.ID) })...)
			if e.State == scorecard.Proven {
				e.Detail = fmt.Sprintf("%s is required and pinned to App %d; %s posts it", name, got.App, poster)
			}
		}
		finish(id, e, slices.DeleteFunc([]string{poster}, func(p string) bool { return p == "" }))
	}
	all := slices.DeleteFunc(append(slices.Clone(plan.Checks), doctor...), func(c judge.Check) bool {
		// What no workflow does needs no rule, and what a plain token is not shown
		// is no fault of the repository's.
		return c.Status == judge.Unclaimed && (strings.HasPrefix(c.ID, "doctor/") || c.ID == "enforce/publisher" || c.ID == "enforce/bypass")
	})
	e := scorecard.Checked("remembrancer enforce plan, and remembrancer doctor", all...)
	if e.State == scorecard.Proven {
		e.Detail = fmt.Sprintf("%d checks of the forge's rules and of the workflows pass", len(all))
	}
	finish(scorecard.Enforcement, e, []string{workflowFolder + "/"})
}

const workflowFolder = ".github/workflows"

// poster returns the workflow with a job of this name.
func (s *scoring) poster(name string) (string, error) {
	return s.workflowLike(regexp.MustCompile(`(?m)^\s+(name:\s*['"]?)?` + regexp.QuoteMeta(name) + `['"]?\s*(:|$)`))
}

// workflowLike returns the first workflow with a line like this, "" for none.
func (s *scoring) workflowLike(line *regexp.Regexp) (found string, err error) {
	err = s.head.tree.Walk(workflowFolder, func(p string, mode fs.FileMode, _ string) error {
		if found != "" || !mode.IsRegular() || path.Ext(p) != ".yml" && path.Ext(p) != ".yaml" {
			return nil
		}
		data, err := s.head.tree.Blob(p)
		if err == nil && line.Match(data) {
			found = p
		}
		return err
	})
	return found, err
}

var publishes = regexp.MustCompile(`(?m)^\s*(-\s+)?uses:\s*['"]?\S*actions/merkle-publish(/composite)?(@\S+)?['"]?\s*(#.*)?$`)

// waits is how long a receipt may wait for its publication.
const waits = 24 * time.Hour

func (s *scoring) publishing() scorecard.Evidence {
	const next = "let .github/workflows/merkle-publish.yml, as remembrancer init writes it, observe a run of the branch"
	if s.ledger.State != scorecard.Proven {
		return s.ledger
	}
	publisher, err := s.workflowLike(publishes)
	if err != nil {
		return scorecard.Unknown("git fetch", err)
	}
	if publisher == "" {
		return scorecard.Missing(next, "no workflow uses merkle-publish")
	}
	observed := s.p.cfg.Publish.Workflow
	if _, err := s.head.tree.Blob(observed); err != nil {
		return scorecard.Missing(next, "%s, the workflow that is observed: %v", observed, err)
	}
	pending, _, err := publish.Pending(s.head.tree, s.p.layout, s.trust.Keys, "", s.entries(), s.w.now())
	if err != nil {
		return scorecard.Unknown("remembrancer publish --dry-run", err)
	}
	for _, e := range pending {
		if since := e.Receipt.Issued(); s.w.now().Sub(since) > waits {
			return scorecard.Wrong(next+"; remembrancer publish --dry-run", "receipt %s waits to be published since %s", entryName(e), since.Format(time.RFC3339))
		}
	}
	for i, entry := range slices.Backward(s.entries()) {
		r := entry.Receipt
		o := gjson.GetBytes(r.Predicate(), "vaultmesh_observed")
		if r.Kind() != receipt.Observed || o.Get("run_id").Int() <= 0 || o.Get("workflow").String() != observed {
			continue
		}
		e := scorecard.Evidence{
			State: scorecard.Proven, Detail: fmt.Sprintf("#%d observed run %d of %s: %s", i, o.Get("run_id").Int(), observed, o.Get("conclusion")),
			Files: []string{publisher, observed}, Receipts: []string{cite(i, r)}, At: r.Issued(), Development: s.forDevelopment(nil, r.Issuer()),
		}
		if o.Get("conclusion").String() != "success" {
			e.State, e.Next = scorecard.Wanting, "mend what is red"
		}
		return e
	}
	return scorecard.Missing(next, "the ledger holds no observation of a run of %s", observed)
}

func (s *scoring) root() scorecard.Evidence {
	if s.ledger.State != scorecard.Proven {
		return s.ledger
	}
	l := s.p.layout
	e := scorecard.Evidence{State: scorecard.Proven, Files: []string{l.Docs, l.Ledger(ledger.CheckpointPath), l.Ledger(ledger.PolicyPath)}}
	doc, err := s.head.tree.Blob(l.Docs)
	stated := ""
	if err == nil {
		stated, err = covenant.RootOf(doc)
	}
	b := s.audit.Checkpoint.Body()
	switch {
	case err != nil:
		e.State, e.Detail, e.Next = scorecard.Wanting, err.Error(), "remembrancer publish"
	case stated != fmt.Sprintf("%x", b.Root[:]):
		e.State, e.Detail, e.Next = scorecard.Wanting, l.Docs+" states another root than the ledger has", "remembrancer publish"
	default:
		e.Detail = fmt.Sprintf("%s states the root of %d audited entries, %s…", l.Docs, b.Size, stated[:16])
		if s.audit.FirstUse {
			e.Detail += "; the policy " + s.audit.PolicyID[:16] + " is believed on first use, not pinned"
		}
	}
	for _, f := range s.audit.Development {
		e.Development = append(e.Development, "key "+string(f))
	}
	return e
}

// federationWord is what the name of a test of federation has in it.
const federationWord = "federation"

// smoke scores the last report that the ledger holds. It is reported, not observed:
// the job that ran the tests said so.
func (s *scoring) smoke() {
	const next = "remembrancer smoke --report FILE, and remembrancer publish --report FILE, which covenant-enforce.yml and merkle-publish.yml do on every push"
	ids := []scorecard.ID{scorecard.Smoke, scorecard.SmokeCovers}
	if s.ledger.State != scorecard.Proven {
		s.put(s.ledger, ids...)
		return
	}
	at, report := -1, smoke.Report{}
	for i, entry := range slices.Backward(s.entries()) {
		if got, ok := publish.Reported(entry.Receipt); ok {
			at, report = i, got
			break
		}
	}
	if at < 0 {
		s.put(scorecard.Missing(next, "no smoke report is in the ledger"), ids...)
		return
	}
	r := s.audit.Entries[at].Receipt
	l := s.p.layout
	e := scorecard.Evidence{Receipts: []string{cite(at, r)}, At: report.Finished, Development: s.forDevelopment(nil, r.Issuer())}
	fill := func(id scorecard.ID, made scorecard.Evidence, files ...string) {
		made.Receipts, made.At, made.Development, made.Files = e.Receipts, e.At, e.Development, files
		if made.State != scorecard.Proven && made.Next == "" {
			made.Next = next
		}
		s.found[id] = made
	}
	badges := []string{l.Status(covenant.BadgeFile), l.Status(covenant.ShieldsFile)}
	list, listErr := s.namedTests()
	expect := smoke.Expect{Total: s.p.cfg.Smoke.Expect, Warnings: s.p.cfg.Smoke.Warnings, Tests: list}
	badge, err := s.head.tree.Blob(badges[0])
	conclusion := gjson.GetBytes(r.Predicate(), "vaultmesh_observed.conclusion").String()
	report = report.Under(expect)
	how := fmt.Sprintf("reported in #%d, of commit %.12s", at, report.Commit)
	var wrong error
	switch {
	case listErr != nil && !errors.Is(listErr, errNoList):
		wrong = listErr
	case err != nil:
		wrong = err
	case !bytes.Equal(badge, smoke.Badge(report)):
		wrong = fmt.Errorf("%s is not what #%d says", badges[0], at)
	case conclusion != "" && conclusion != "success":
		wrong = fmt.Errorf("#%d is of a run that ended with %s", at, conclusion)
	case report.Verdict == smoke.Error:
		wrong = fmt.Errorf("%s: no verdict: %s", how, strings.Join(report.Reasons, "; "))
	default:
		wrong = s.inHistory(report.Commit)
	}
	if wrong != nil {
		fill(scorecard.Smoke, scorecard.Wrong("", "%v", wrong), badges...)
		fill(scorecard.SmokeCovers, scorecard.Wrong("", "%v", wrong), badges...)
		return
	}
	counted := scorecard.Counted(int(report.Passed), int(report.Total), scorecard.Tests, "%s", how)
	if report.Verdict != smoke.Pass && counted.State == scorecard.Proven {
		counted = scorecard.Wrong("", "%s: %s", how, strings.Join(report.Reasons, "; "))
	}
	if counted.State == scorecard.Partly && report.Verdict == smoke.Pass {
		counted.Detail += fmt.Sprintf("; all %d pass, the mission counts %d", report.Total, scorecard.Tests)
		counted.Next = "write more tests"
	}
	fill(scorecard.Smoke, counted, badges...)
	fill(scorecard.SmokeCovers, s.covers(list, listErr, report, how), append(badges, listFiles(s.p.cfg.Smoke.Tests)...)...)
}

func listFiles(name string) []string {
	if name == "" {
		return nil
	}
	return []string{name}
}

// errNoList says that no tests are named.
var errNoList = errors.New("smoke.tests of " + config.FileName + " names no list of tests")

func (s *scoring) namedTests() (smoke.Tests, error) {
	if s.p.cfg.Smoke.Tests == "" {
		return smoke.Tests{}, errNoList
	}
	data, err := s.head.tree.Blob(s.p.cfg.Smoke.Tests)
	if err != nil {
		return smoke.Tests{}, err
	}
	return smoke.ParseTests(data)
}

func (s *scoring) covers(list smoke.Tests, listErr error, report smoke.Report, how string) scorecard.Evidence {
	const next = "remembrancer smoke --write-tests ops/smoke-tests.txt, name it as smoke.tests, and publish a report of it"
	if listErr != nil {
		return scorecard.Missing(next, "%v", listErr)
	}
	if sum := list.SHA256(); report.IDsSHA256 != sum && report.TestsSHA256 != sum {
		return scorecard.Wrong(next, "%s: it does not bear the digest of %s", how, s.p.cfg.Smoke.Tests)
	}
	if report.Verdict != smoke.Pass {
		return scorecard.Wrong("", "%s: it is no pass", how)
	}
	for name := range strings.Lines(string(list.Bytes())) {
		if name = strings.TrimRight(name, "\n"); strings.Contains(strings.ToLower(name), federationWord) {
			return scorecard.Evidence{State: scorecard.Proven, Detail: fmt.Sprintf("%s: it ran %s, which %s names", how, name, s.p.cfg.Smoke.Tests)}
		}
	}
	return scorecard.Wrong("add a test that runs remembrancer federation sync --self-test, and name it so", "no test of %s has the word %s in its name", s.p.cfg.Smoke.Tests, federationWord)
}

func (s *scoring) releases() scorecard.Evidence {
	const next = "remembrancer release tag VERSION, remembrancer release sign VERSION, commit its receipt, and remembrancer publish"
	if s.ledger.State != scorecard.Proven {
		return s.ledger
	}
	for i, entry := range slices.Backward(s.entries()) {
		r := entry.Receipt
		if r.Kind() != receipt.Release {
			continue
		}
		e := scorecard.Evidence{
			State: scorecard.Wanting, Files: s.receiptFiles(r), Receipts: []string{cite(i, r)}, At: r.Issued(), Next: next,
		}
		said := gjson.GetBytes(r.Predicate(), "vaultmesh_tag")
		name := said.Get("name").String()
		tag, err := s.p.repo.Tag(name)
		if errors.Is(err, fs.ErrNotExist) {
			e.State, e.Detail, e.Next = scorecard.Absent, fmt.Sprintf("#%d is of tag %s, which is not here", i, name), "git fetch --tags"
			return e
		}
		e.Answers = []string{"tag " + name}
		var by openpgp.Fingerprint
		if err == nil {
			by, err = (&trusted{p: s.p, head: s.head, trust: s.trust}).signedBy(tag, s.w.now())
		}
		switch {
		case err != nil:
			e.Detail = err.Error()
		case by == "":
			e.Detail = fmt.Sprintf("tag %s is not signed", name)
		case tag.Object.String() != said.Get("object").String():
			e.Detail = fmt.Sprintf("tag %s is %s, receipt #%d is of %s", name, tag.Object, i, said.Get("object"))
		default:
			e.State, e.Next = scorecard.Proven, ""
			e.Detail = fmt.Sprintf("tag %s is signed by %s; release receipt #%d", name, by, i)
			e.Development = s.forDevelopment(nil, by, r.Issuer())
		}
		return e
	}
	return scorecard.Missing(next, "no release is in the ledger")
}

var hookProgram = regexp.MustCompile(`(?m)^program='(.*)'$`)

func (s *scoring) hook() scorecard.Evidence {
	const next = "remembrancer hook install"
	dir, err := s.w.hooksDir()
	if err != nil {
		return scorecard.Missing(next, "%v", err)
	}
	hooks, err := readHooks(dir)
	if err != nil {
		return scorecard.Unknown(next, err)
	}
	for _, h := range hooks {
		if h.makes != "commit" || !h.there {
			continue
		}
		e := scorecard.Evidence{State: scorecard.Proven, Detail: "the hook of this clone runs the smoke test on what is staged", Answers: []string{h.path}}
		// A hook that somebody changed may do anything.
		m := hookProgram.FindSubmatch(h.data)
		if !h.ours || m == nil || !bytes.Equal(h.data, h.script(strings.ReplaceAll(string(m[1]), `'\''`, "'"), false)) {
			e.State, e.Next, e.Detail = scorecard.Wanting, next, "the hook of this clone is not what hook install writes, or does not run the smoke test"
		}
		return e
	}
	return scorecard.Missing(next, "this clone has no hook; it belongs to a clone, and no commit can show it")
}

// Fixed rules: what a configuration allows itself is no evidence.
var (
	archives = []string{"archive/**", "docs/releases/**"}
	maxRoot  = 40
)

// The guides that the mission demands.
const (
	ciGuide         = "docs/CI_AUTOMATION.md"
	federationGuide = "docs/FEDERATION_GUIDE.md"
)

func (s *scoring) documents() {
	named := slices.DeleteFunc(slices.Clone(s.p.cfg.Covenants.Hygiene.Root), func(p string) bool { return strings.ContainsAny(p, `*?[\`) })
	s.tidy = hygiene.Check(s.head.tree, hygiene.Rules{Root: named, MaxRoot: maxRoot, Archive: archives, Links: []string{"**/*.md"}}, nil)
	s.found[scorecard.CIGuide] = s.guide(ciGuide, s.p.cfg.Enforce.Checks, nil)
	s.found[scorecard.FederationGuide] = s.guide(federationGuide, nil, []string{"federation join", "federation sync", "federation verify-merge"})
	s.found[scorecard.Pristine] = s.pristine(named)
}

func (s *scoring) guide(name string, words, commands []string) scorecard.Evidence {
	doc, err := s.head.tree.Blob(name)
	if errors.Is(err, fs.ErrNotExist) {
		return scorecard.Missing("write "+name, "%s is not committed", name)
	}
	if err != nil {
		return scorecard.Unknown("git fetch", err)
	}
	typed := scorecard.Commands(doc, "remembrancer")
	var wrong []string
	for _, t := range typed {
		if err := commandExists(t.Args); err != nil {
			wrong = append(wrong, fmt.Sprintf("line %d: %v", t.Line, err))
		}
	}
	for _, c := range s.tidy {
		if c.ID != "hygiene/links" {
			continue
		}
		if c.Status != judge.Pass && c.Status != judge.Fail {
			return scorecard.Unknown("remembrancer covenant --only hygiene", errors.New(c.Detail))
		}
		for _, f := range c.Findings {
			if f.Path == name && !f.Warning {
				wrong = append(wrong, f.Place()+": "+f.Message)
			}
		}
	}
	return scorecard.Guide(name, doc, typed, words, commands, wrong)
}

// commandExists says what of a command that somebody is to type does not exist.
func commandExists(args []string) error {
	if len(args) > 0 && slices.Contains([]string{"help", "version", "-h", "--help", "--version"}, args[0]) {
		return nil
	}
	v, rest := find(args)
	if v == nil && len(args) == 1 && len(verbsOf(args[0])) > 0 {
		return nil // several verbs, by what they have in common
	}
	if v == nil {
		return fmt.Errorf("there is no command %q", strings.Join(args[:min(2, len(args))], " "))
	}
	for _, a := range rest {
		if a == "--" {
			return nil
		}
		name, flag := strings.CutPrefix(a, "--")
		if name, _, _ = strings.Cut(name, "="); !flag || name == "help" {
			continue
		}
		if !slices.ContainsFunc(v.spec.Inputs, func(i action.Input) bool {
			return i.Name == name && !i.ActionOnly && i.Kind != action.Secret
		}) {
			return fmt.Errorf("%s has no flag --%s", v.spec.Verb, name)
		}
	}
	return nil
}

func (s *scoring) pristine(named []string) scorecard.Evidence {
	const next = "remembrancer covenant --only hygiene"
	if s.head.commit.IsZero() {
		return scorecard.Missing(begin, "nothing is committed")
	}
	if len(named) == 0 {
		return scorecard.Missing("list each entry of the root in covenants.hygiene.root of "+config.FileName, "nothing says what may lie at the root: a wildcard says nothing")
	}
	checks := slices.DeleteFunc(slices.Clone(s.tidy), func(c judge.Check) bool {
		return slices.Contains([]string{"hygiene/untracked", "hygiene/size"}, c.ID) // the one is a criterion of its own, the other a matter of taste
	})
	for i, c := range checks {
		// A file that a tool must find in several places, such as what kustomize reads, is
		// no sprawl of documents.
		if c.ID == "hygiene/duplicates" && c.Status == judge.Fail {
			checks[i] = judge.Judged(c.ID, c.Claim, "", slices.DeleteFunc(slices.Clone(c.Findings), func(f judge.Finding) bool {
				return !slices.Contains([]string{".md", ".markdown", ".rst", ".adoc", ".txt", ".html", ".pdf"}, strings.ToLower(path.Ext(f.Path)))
			})...)
		}
	}
	if s.audit != nil {
		checks = append(checks, covenant.Documents(s.head.tree, s.audit, covenant.Options{Layout: s.p.layout, Badge: publish.Badge}))
	}
	e := scorecard.Checked(next, checks...)
	e.Files = []string{config.FileName, "docs/"}
	if e.State == scorecard.Proven {
		e.Detail = fmt.Sprintf("%d checks of root, links, duplicates and statements pass", len(checks))
	}
	return e
}

func (s *scoring) untracked() scorecard.Evidence {
	switch {
	case s.head.commit.IsZero():
		return scorecard.Missing("git add, and git commit", "nothing is committed")
	case s.statusErr != nil:
		return scorecard.Unknown("install git, and check out with it", s.statusErr)
	case len(s.status) > 0:
		e := scorecard.Wrong("commit, ignore or remove it", "git status shows %d files: %s", len(s.status), strings.Join(s.status[:min(5, len(s.status))], ", "))
		e.Answers = []string{"git status"}
		return e
	}
	return scorecard.Evidence{State: scorecard.Proven, Detail: "nothing is changed, nothing is untracked", Answers: []string{"git status"}}
}

func (s *scoring) genesis() scorecard.Evidence {
	const next = "remembrancer genesis seal, and commit what it writes"
	yaml, err := s.head.tree.Blob(release.GenesisFile)
	if errors.Is(err, fs.ErrNotExist) {
		return scorecard.Missing(next, "%s is not committed", release.GenesisFile)
	}
	if err != nil {
		return scorecard.Unknown("git fetch", err)
	}
	g, err := s.w.openGenesis("HEAD")
	if err != nil {
		return scorecard.Unknown("remembrancer genesis verify", err)
	}
	checks := release.VerifyGenesis(release.GenesisEvidence{
		Read:       s.head.tree.Blob, // and not of the work tree: nobody else has that
		Repository: g.origin, Commit: g.commit, Tag: g.tag, Keys: g.trust.Keys, Authorities: g.authorities, Now: s.w.now(),
		Ancestor: func(id string) (bool, error) {
			h, err := gitrepo.ParseHash(id)
			if err != nil {
				return false, err
			}
			return s.p.repo.IsAncestor(h, s.head.commit)
		},
	})
	e := scorecard.Checked(next, slices.DeleteFunc(checks, func(c judge.Check) bool {
		return c.ID == "genesis/tag" && c.Status == judge.Unclaimed // a commit can be sealed without a tag
	})...)
	e.Files = []string{release.GenesisText, release.GenesisFile}
	if err := s.head.tree.Walk(path.Dir(release.GenesisArchive), func(p string, _ fs.FileMode, _ string) error {
		if strings.HasPrefix(p, release.GenesisArchive) {
			e.Files = append(e.Files, p)
		}
		return nil
	}); err != nil {
		return scorecard.Unknown("git fetch", err)
	}
	made, err := release.ParseGenesis(yaml)
	if e.State != scorecard.Proven || err != nil {
		return e
	}
	e.At = time.Unix(made.Epoch, 0)
	e.Detail = fmt.Sprintf("commit %.12s is sealed, signed by %.16s and stamped by %d authorities", made.Commit, made.Operator, len(made.Authorities))
	e.Development = s.forDevelopment(nil, made.Operator)
	for _, a := range made.Authorities {
		if a.Development {
			e.Development = append(e.Development, "time-stamping authority "+a.Name)
		}
	}
	if made.Development && len(e.Development) == 0 {
		e.Development = []string{"the genesis says so of itself"}
	}
	return e
}

// merged is one receipt of a merge.
type merged struct {
	path      string
	file, ids []byte
	*merge.Receipt
}

// federation scores the newest merge.
func (s *scoring) federation() {
	const next = "remembrancer federation sync --peer URL --trust-anchor FILE, commit what it writes, and remembrancer publish"
	ids := []scorecard.ID{scorecard.Sync, scorecard.Signatures, scorecard.Deterministic}
	all, err := s.merges()
	switch {
	case err != nil:
		s.put(scorecard.Unknown("git fetch", err), ids...)
		return
	case s.ledger.State != scorecard.Proven:
		s.put(s.ledger, ids...)
		return
	case len(all) == 0:
		s.put(scorecard.Missing(next, "no merge of two nodes is in %s", s.p.layout.Merges()), ids...)
		return
	}
	m := all[len(all)-1]
	if m.Receipt == nil {
		wrong := scorecard.Wrong(next, "%s is no receipt of a merge", m.path)
		wrong.Files = []string{m.path}
		s.put(wrong, ids...)
		return
	}
	ring, certs, err := s.parties()
	if err != nil {
		s.put(scorecard.Unknown("git fetch", err), ids...)
		return
	}
	var previous *merge.Receipt
	for _, before := range all {
		if before.Receipt == nil {
			continue
		}
		if sum, err := before.Body.Digest(); err == nil && sum == m.Body.Previous {
			previous = before.Receipt
		}
	}
	byID := map[string]judge.Check{}
	verdict := merge.Verify(m.file, m.ids, ring, previous)
	for _, c := range append(verdict.Checks, covenant.Federation(s.head.tree, s.p.layout, s.audit)...) {
		byID[c.ID] = c
	}
	checked := func(names ...string) scorecard.Evidence {
		var checks []judge.Check
		for _, n := range names {
			c, ok := byID[n]
			if !ok {
				c = judge.Unjudged(n, n, errors.New("nobody made this check"))
			}
			checks = append(checks, c)
		}
		return scorecard.Checked("remembrancer federation verify-merge "+m.path, checks...)
	}
	record := -1
	for i, entry := range s.entries() {
		if r := entry.Receipt; r.Kind() == receipt.FederationMerge && slices.ContainsFunc(r.Subjects(), func(x receipt.Subject) bool { return x.SHA256 == digest(m.file) }) {
			record = i
		}
	}
	b := m.Body
	finish := func(id scorecard.ID, e scorecard.Evidence, detail string, files ...string) {
		e.Files = files
		switch {
		case record < 0 && e.State == scorecard.Proven:
			e.State, e.Detail, e.Next = scorecard.Wanting, "no receipt in the ledger records "+m.path, "commit the receipt of kind federation-merge, and remembrancer publish"
		case record >= 0:
			r := s.audit.Entries[record].Receipt
			e.Receipts, e.At = []string{cite(record, r)}, r.Issued()
			e.Files = append(e.Files, s.receiptFiles(r)...)
			e.Development = s.forDevelopment(ring, b.A.Fingerprint, b.B.Fingerprint, b.Operator, r.Issuer())
		}
		if e.State == scorecard.Proven {
			e.Detail = detail
		}
		s.found[id] = e
	}
	sync := checked("federation/receipts", "merge/format", "merge/sets", "merge/checkpoints")
	if b.A.Fingerprint == b.B.Fingerprint || b.A.Node == b.B.Node {
		sync = scorecard.Wrong(next, "%s is of one node with itself", m.path)
	}
	finish(scorecard.Sync, sync, fmt.Sprintf("%s and %s hold the same %d receipts", b.A.Node, b.B.Node, b.Total), m.path, m.path+".ids")
	signed := []string{m.path}
	for _, f := range []openpgp.Fingerprint{b.A.Fingerprint, b.B.Fingerprint, b.Operator} {
		if p := certs[f]; p != "" && !slices.Contains(signed, p) {
			signed = append(signed, p)
		}
	}
	finish(scorecard.Signatures, checked("merge/signatures", "merge/operator"), fmt.Sprintf("signed by %.16s and %.16s", b.A.Fingerprint, b.B.Fingerprint), signed...)
	finish(scorecard.Deterministic, checked("merge/root", "merge/count", "merge/conflicts", "federation/deterministic-merge"),
		fmt.Sprintf("both computed root %.16s…, and it is computed again here", b.Merged), m.path, m.path+".ids")
}

// merges returns the receipts of merges, oldest first; what is none comes last.
func (s *scoring) merges() (all []merged, err error) {
	err = s.head.tree.Walk(s.p.layout.Merges(), func(p string, mode fs.FileMode, _ string) error {
		if !mode.IsRegular() || !strings.HasSuffix(p, ".receipt") {
			return nil
		}
		m := merged{path: p}
		var err error
		if m.file, err = s.head.tree.Blob(p); err != nil {
			return err
		}
		if m.ids, err = s.head.tree.Blob(p + ".ids"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		m.Receipt, _ = merge.Parse(m.file)
		all = append(all, m)
		return nil
	})
	slices.SortStableFunc(all, func(a, b merged) int {
		switch {
		case a.Receipt == nil || b.Receipt == nil:
			return boolOrder(a.Receipt == nil, b.Receipt == nil)
		case !a.Body.Time.Equal(b.Body.Time):
			return a.Body.Time.Compare(b.Body.Time)
		}
		return strings.Compare(a.path, b.path)
	})
	return all, err
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// parties are the keys that are believed in merges, and the files of those that are
// only peers'.
func (s *scoring) parties() (*openpgp.Keyring, map[openpgp.Fingerprint]string, error) {
	var keys []*openpgp.Key
	files := map[openpgp.Fingerprint]string{}
	known := map[openpgp.Fingerprint]bool{}
	for _, ring := range []*openpgp.Keyring{s.trust.Retired, s.trust.Keys} {
		for _, f := range ring.Fingerprints() {
			if k, ok := ring.Lookup(f); ok && !known[f] {
				keys, known[f] = append(keys, k), true
			}
		}
	}
	err := s.head.tree.Walk(s.p.layout.PeerCerts(), func(p string, mode fs.FileMode, _ string) error {
		if !mode.IsRegular() || !strings.HasSuffix(p, ".asc") {
			return nil
		}
		data, err := s.head.tree.Blob(p)
		if err != nil {
			return err
		}
		of, err := merge.KeysOf(data)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		for _, k := range of {
			if f := k.Fingerprint(); !known[f] {
				keys, known[f], files[f] = append(keys, k), true, p
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	ring, err := openpgp.NewKeyring(keys...)
	return ring, files, err
}
