package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/chart"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/slo"
	"github.com/vaultmesh/remembrancer/pkg/snapshot"
)

// The pages of a site are a function of one commit (and of the ledger's, where it
// is on a branch of its own): no clock, no memory of this machine and no work tree
// is in them. What they judge they judge at the commit's own time. Everything that
// a page could say and cannot prove stands there as missing or unproven.

// site is status.json, and what index.html is made of.
type site struct {
	Type         string          `json:"type"` // remembrancer-site
	V            int             `json:"v"`
	Repository   string          `json:"repository"` // name of the log
	Commit       string          `json:"commit"`
	LedgerCommit string          `json:"ledger_commit"`
	At           string          `json:"at"` // of the commit, RFC 3339
	Tests        siteTests       `json:"tests"`
	Ledger       siteLedger      `json:"ledger"`
	Reports      []siteReport    `json:"slo_reports"`
	MoreReports  int             `json:"more_slo_reports,omitempty"` // of other specs and environments
	Promotions   []sitePromotion `json:"promotions"`
	Snapshots    siteSnapshots   `json:"snapshots"`
}

type siteTests struct {
	Status string `json:"status"` // pass, fail, missing or unproven
	Pass   int    `json:"pass"`
	Total  int    `json:"total"`
	Why    string `json:"why,omitempty"`
}

type siteLedger struct {
	Status      string             `json:"status"` // pass, fail or error
	Begun       bool               `json:"begun"`
	Size        int64              `json:"size"`
	Root        string             `json:"root,omitempty"`
	PolicyID    string             `json:"policy_id,omitempty"`
	Pinned      bool               `json:"pinned"`
	Development []string           `json:"development_keys,omitempty"`
	Checkpoint  string             `json:"checkpoint,omitempty"`
	Findings    []covenant.Finding `json:"findings"`
}

type siteReport struct {
	Path          string       `json:"path"`
	Verdict       string       `json:"verdict"` // PASS, FAIL, REFUSED or UNPROVEN
	Why           []string     `json:"why,omitempty"`
	Warning       string       `json:"warning,omitempty"`
	Treaty        string       `json:"treaty_id,omitempty"`
	Environment   string       `json:"environment,omitempty"`
	Window        string       `json:"window,omitempty"`
	Start         string       `json:"start,omitempty"`
	End           string       `json:"end,omitempty"`
	Revision      string       `json:"git_sha,omitempty"`
	Artifact      string       `json:"artifact,omitempty"`
	Promotable    bool         `json:"promotable"`
	NotPromotable []string     `json:"not_promotable,omitempty"`
	KPIs          []siteKPI    `json:"kpis,omitempty"`
	Receipt       string       `json:"receipt,omitempty"`
	Entry         int          `json:"entry"`
	Older         int          `json:"older"`
	Picture       *sitePicture `json:"picture,omitempty"`
	NoPicture     string       `json:"no_picture,omitempty"`
}

type siteKPI struct {
	Key    string `json:"id"`
	Value  string `json:"value"`
	Wanted string `json:"wanted"`
	Met    bool   `json:"met"`
}

type sitePicture struct {
	Wide   string `json:"wide"`
	Phone  string `json:"phone"`
	Width  string `json:"-"` // of the wide one, so that the page does not jump
	Height string `json:"-"`
	Says   string `json:"-"`
}

type sitePromotion struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Artifact string `json:"artifact"`
	Revision string `json:"git_sha"`
	At       string `json:"at"`
	Receipt  string `json:"receipt"`
	Entry    int    `json:"entry"`
	Unproven string `json:"unproven,omitempty"`
}

type siteSnapshots struct {
	Status  string         `json:"status"` // pass, fail, error or missing
	Missing string         `json:"missing,omitempty"`
	Checks  []judge.Check  `json:"checks,omitempty"`
	List    []siteSnapshot `json:"list,omitempty"` // newest first
	More    int            `json:"more,omitempty"`
}

type siteSnapshot struct {
	Date   string   `json:"date"`
	Size   int64    `json:"size"`
	Root   string   `json:"root"`
	Missed []string `json:"missed,omitempty"`
	Beside []string `json:"beside,omitempty"` // its evidence, as files
}

// tile is one statement of the page's head.
type tile struct{ Name, Value, Note, Tone string }

const (
	unproven     = "UNPROVEN"
	siteList     = 60 // most snapshots, and promotions, on the page
	siteReports  = 12
	wideSite     = 1200
	phoneSite    = 390
	refusedRep   = ".refused.json"
	defaultSLO   = "canary_slo_report.json"
	badgeMissing = "no verdict on the tests is on the record"
)

// writeSite writes the pages of HEAD into a directory that is empty or new.
func (w *world) writeSite(p *project, dir, pinned string) error {
	path := w.path(dir)
	switch there, err := os.ReadDir(path); {
	case err == nil && len(there) > 0:
		return misused("--site %s: it holds %s: want an empty or a new directory, so that nothing older is published with the pages", dir, there[0].Name())
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	s, files, err := w.site(p, pinned)
	if err != nil {
		return err
	}
	out, err := durable.CreateDir(path)
	if err != nil {
		return err
	}
	defer out.Close()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := out.Put(name, files[name]); err != nil {
			return err
		}
	}
	w.say("✅ %d files in %s, of commit %s", len(files), dir, s.Commit[:12])
	for _, t := range s.Tiles() {
		w.say("   %-12s %s  %s", t.Name, action.Defang(t.Value), action.Defang(t.Note))
	}
	return nil
}

// site reads a commit, and makes the files of its pages.
func (w *world) site(p *project, pinned string) (*site, map[string][]byte, error) {
	commit, err := p.repo.Resolve("HEAD")
	if err != nil {
		return nil, nil, fmt.Errorf("nothing is committed that pages could be of: %w", err)
	}
	t, err := p.repo.TreeAt(commit)
	if err != nil {
		return nil, nil, err
	}
	// The configuration is the commit's as well, not that of the work tree.
	committed := *p
	data, err := publish.Tree(t).Blob(config.FileName)
	if err != nil {
		return nil, nil, fmt.Errorf("commit %s: %w", commit.String()[:12], err)
	}
	if committed.cfg, err = config.Parse(config.FileName, data); err != nil {
		return nil, nil, misused("commit %s: %v", commit.String()[:12], err)
	}
	committed.layout = covenant.Layout{Ops: committed.cfg.Paths.Ops, Docs: committed.cfg.Paths.Docs}
	p = &committed
	h, err := p.head("HEAD")
	if err != nil {
		return nil, nil, err
	}
	if h.commit.IsZero() {
		return nil, nil, errors.New("the covenant's files are not committed: there is nothing that pages could prove")
	}
	at := time.Time{}
	for _, c := range []string{h.commit.String(), h.ledger.String()} {
		hash, err := p.repo.Resolve(c)
		if err != nil {
			return nil, nil, err
		}
		one, err := p.repo.Commit(hash)
		if err != nil {
			return nil, nil, err
		}
		if one.Committer.When.After(at) {
			at = one.Committer.When.UTC()
		}
	}
	then := *w
	then.now = func() time.Time { return at }
	return then.siteAt(p, h, at, pinned)
}

func (w *world) siteAt(p *project, h *head, at time.Time, pinned string) (*site, map[string][]byte, error) {
	origin, err := p.origin()
	if err != nil {
		return nil, nil, err
	}
	past, shallow, _, err := p.past(h, origin)
	if err != nil {
		return nil, nil, err
	}
	if shallow {
		return nil, nil, errors.New("this clone is shallow: pages made here would differ from those made of the whole history; check out with fetch-depth: 0")
	}
	audit := covenant.Audit(h.tree, covenant.Options{Layout: p.layout, PolicyID: pinned, Badge: publish.Badge, History: past, Now: at})
	s := &site{
		Type: "remembrancer-site", V: 1, Repository: origin, Commit: h.commit.String(), LedgerCommit: h.ledger.String(), At: at.Format(time.RFC3339),
		Ledger: siteLedger{Status: audit.Status().String(), PolicyID: audit.PolicyID, Pinned: pinned != "", Findings: audit.Findings},
	}
	for _, f := range audit.Development {
		s.Ledger.Development = append(s.Ledger.Development, string(f))
	}
	files := map[string][]byte{".nojekyll": nil}
	if note := audit.Checkpoint.Note(); note != nil {
		b := audit.Checkpoint.Body()
		s.Ledger.Begun, s.Ledger.Size, s.Ledger.Root, s.Ledger.Checkpoint = true, b.Size, fmt.Sprintf("%x", b.Root[:]), string(note)
		files["checkpoint"] = note
	}
	if s.Tests, err = testsOf(h.tree, p.layout, audit, files); err != nil {
		return nil, nil, err
	}
	if err := w.siteReports(s, p, h.tree, audit, files); err != nil {
		return nil, nil, err
	}
	s.promotions(audit)
	if s.Snapshots, err = w.siteSnapshots(p, h, audit); err != nil {
		return nil, nil, err
	}
	return s, files, s.render(files)
}

// testsOf reads the badge, which the audit has recomputed.
func testsOf(t covenant.Tree, l covenant.Layout, audit *covenant.Report, files map[string][]byte) (siteTests, error) {
	data, err := t.Blob(l.Status(covenant.BadgeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return siteTests{Status: "missing", Why: badgeMissing}, nil
	}
	if err != nil {
		return siteTests{}, err
	}
	sound := slices.ContainsFunc(audit.Checks(), func(c judge.Check) bool { return c.ID == "integrity/badge" && c.Status == judge.Pass })
	var badge struct {
		Tests struct{ Pass, Total int }
	}
	readable := json.Unmarshal(data, &badge) == nil
	if !readable || !sound || audit.Status() != covenant.Pass {
		return siteTests{Status: "unproven", Why: l.Status(covenant.BadgeFile) + " is not what the ledger makes it"}, nil
	}
	files[covenant.BadgeFile] = data
	if shields, err := t.Blob(l.Status(covenant.ShieldsFile)); err == nil {
		files[covenant.ShieldsFile] = shields
	}
	out := siteTests{Status: "fail", Pass: badge.Tests.Pass, Total: badge.Tests.Total}
	if out.Total > 0 && out.Pass == out.Total {
		out.Status = "pass"
	}
	return out, nil
}

// siteReports lists the newest report of each spec and environment, from its
// receipt, and what else of the kind lies in the tree.
func (w *world) siteReports(s *site, p *project, t covenant.Tree, audit *covenant.Report, files map[string][]byte) error {
	named := map[string]bool{} // the paths that receipts speak of
	index := map[string]int{}
	entries := audit.Entries
	if audit.Status() != covenant.Pass {
		entries = nil // what they say is borne out by nothing
	}
	seen := map[receipt.ID]bool{} // an endorsement is a line of the same receipt
	for i, e := range slices.Backward(entries) {
		if e.Receipt.Kind() != receipt.SLO || seen[e.Receipt.ID()] {
			continue
		}
		seen[e.Receipt.ID()] = true
		var spec struct {
			File   string `json:"file"`
			SHA256 string `json:"sha256"`
		}
		if err := e.Receipt.Decode("spec", &spec); err != nil {
			continue // another program's, which says something else
		}
		key := spec.File + "\x00" + e.Receipt.Field("environment")
		if at, ok := index[key]; ok {
			s.Reports[at].Older++
			continue
		}
		if len(s.Reports) == siteReports {
			s.MoreReports++
			continue
		}
		index[key] = len(s.Reports)
		report, err := w.siteReport(t, i, e.Receipt, files)
		if err != nil {
			return err
		}
		named[report.Path] = true
		s.Reports = append(s.Reports, report)
	}
	// A report without a receipt, and a refusal that came later than a report.
	if _, ok := named[defaultSLO]; !ok {
		named[defaultSLO] = false
	}
	for _, file := range slices.Sorted(maps.Keys(named)) {
		if !named[file] {
			more, err := unledgered(t, file, audit)
			if err != nil {
				return err
			}
			s.Reports = append(s.Reports, more...)
		}
		more, err := w.siteRefusal(t, strings.TrimSuffix(file, ".json")+refusedRep, files)
		if err != nil {
			return err
		}
		s.Reports = append(s.Reports, more...)
	}
	return nil
}

// specIn finds a report's spec in the tree that the report lies in.
func specIn(t covenant.Tree) func(slo.SpecRef) (*slo.Spec, error) {
	return func(ref slo.SpecRef) (*slo.Spec, error) {
		data, err := t.Blob(ref.File)
		if err != nil {
			return nil, fmt.Errorf("its spec: %w", err)
		}
		return slo.ParseSpec(ref.File, data)
	}
}

func treeRead(t covenant.Tree) read {
	return func(name string) ([]byte, error) { return t.Blob(filepath.ToSlash(name)) }
}

// siteReport makes the report anew that a receipt names.
func (w *world) siteReport(t covenant.Tree, index int, r *receipt.Receipt, files map[string][]byte) (siteReport, error) {
	subjects := r.Subjects()
	out := siteReport{
		Path: subjects[0].Name, Verdict: unproven, Receipt: r.ID().String(), Entry: index,
		Treaty: r.Field("treaty_id"), Environment: r.Field("environment"), Window: r.Field("window"),
	}
	cannot := func(format string, args ...any) (siteReport, error) {
		out.Why = append(out.Why, fmt.Sprintf("%s, says its receipt; it cannot be shown: ", r.Field("verdict"))+fmt.Sprintf(format, args...))
		return out, nil
	}
	data, err := t.Blob(out.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return cannot("%s is missing in this commit", out.Path)
	case err != nil:
		return out, err
	case digest(data) != subjects[0].SHA256:
		return cannot("%s is another report in this commit, with SHA-256 %s", out.Path, digest(data))
	}
	m, err := remake(out.Path, treeRead(t), specIn(t))
	if err != nil {
		return cannot("%v", err)
	}
	if _, _, err := sloReceiptIn([]receipt.Entry{{Receipt: r}}, digest(data), m.Report); err != nil {
		return cannot("its receipt is of other evidence, or of another revision")
	}
	out.Verdict, out.Treaty, out.Window = m.Verdict, m.Treaty, m.Window
	out.Start, out.End = m.Proven.Start, m.Proven.End
	out.Revision, out.Artifact, out.Environment = m.Subject.Revision, m.Subject.Artifact, m.Subject.Environment
	out.Promotable, out.NotPromotable = m.Promotable, m.Why
	if m.DataSource != slo.FromPrometheus {
		out.Warning = "Data source " + m.DataSource + ": no service was measured."
	}
	for _, k := range m.KPIs {
		unit := ""
		if k.Unit != "ratio" {
			unit = " " + k.Unit
		}
		out.KPIs = append(out.KPIs, siteKPI{k.Key, fmt.Sprintf("%.6g%s", k.Value, unit), fmt.Sprintf("%s %g%s", sloWords[k.Op], k.Threshold, unit), k.Compliant})
	}
	name := m.Spec.Service
	if out.Environment != "" {
		name += "-" + out.Environment
	}
	out.Picture, out.NoPicture, err = pictures(drawable{spec: m.spec, archive: m.archive, report: m.Report}, name, files)
	return out, err
}

// unledgered names a report that no receipt in the ledger speaks of.
func unledgered(t covenant.Tree, file string, audit *covenant.Report) ([]siteReport, error) {
	data, err := t.Blob(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := siteReport{Path: file, Verdict: unproven, Entry: -1}
	switch claimed, err := slo.Parse(data); {
	case err != nil:
		out.Why = []string{err.Error()}
	case claimed.DataSource != slo.FromPrometheus:
		out.Treaty, out.Window = claimed.Treaty, claimed.Window
		out.Why = []string{"Data source " + claimed.DataSource + ": no service was measured."}
	case audit.Status() != covenant.Pass:
		out.Why = []string{"The ledger does not pass its audit: no receipt counts."}
	default:
		out.Treaty, out.Window = claimed.Treaty, claimed.Window
		out.Why = []string{file + " lies in this commit, and no receipt in the ledger names it."}
	}
	return []siteReport{out}, nil
}

// siteRefusal shows a refusal that lies in the tree: that nothing could be judged
// is worth knowing, and it needs no receipt to be no pass.
func (w *world) siteRefusal(t covenant.Tree, file string, files map[string][]byte) ([]siteReport, error) {
	data, err := t.Blob(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := siteReport{Path: file, Verdict: slo.Refused, Entry: -1, Why: []string{"Nothing was judged."}, NoPicture: "there is no evidence to draw from"}
	var said slo.Refusal
	if json.Unmarshal(data, &said) == nil {
		out.Treaty, out.Window = said.Treaty, said.Window
		for _, r := range said.Reasons[:min(len(said.Reasons), 20)] {
			out.Why = append(out.Why, string(r.Code)+": "+r.Detail)
		}
	}
	if claimed, err := slo.ParseRefusal(data); err == nil {
		d, err := refusedOf(file, treeRead(t), claimed, data, specIn(t))
		if err != nil {
			out.NoPicture = err.Error()
			return []siteReport{out}, nil //nolint:nilerr // the page says it
		}
		name := d.refusal.Spec.Service + "-refused"
		if out.Picture, out.NoPicture, err = pictures(d, name, files); err != nil {
			return nil, err
		}
	}
	return []siteReport{out}, nil
}

// pictures draws a report for the page, wide and for a phone. Where there is
// nothing to draw from it says so.
func pictures(d drawable, name string, files map[string][]byte) (*sitePicture, string, error) {
	if len(d.archive.Panels) == 0 {
		return nil, "the evidence has no answers to draw from", nil
	}
	b, err := d.board()
	if err != nil {
		return nil, err.Error(), nil //nolint:nilerr // the page says it
	}
	if missing := b.Missing(); len(missing) == len(b.Panels) {
		return nil, "no panel has data", nil
	} else if len(missing) > 0 {
		b.Banner = strings.TrimPrefix(b.Banner+fmt.Sprintf(" · No data in %d of %d panels", len(missing), len(b.Panels)), " · ")
	}
	p := &sitePicture{Says: b.Title + ": " + b.Badge.Text}
	for i := 1; files["slo/"+name+".svg"] != nil; i++ { // two specs of one service
		name = fmt.Sprintf("%s-%d", strings.TrimSuffix(name, fmt.Sprintf("-%d", i)), i+1)
	}
	p.Wide, p.Phone = "slo/"+name+".svg", "slo/"+name+"-phone.svg"
	if files[p.Wide], err = b.SVG(chart.Options{Width: wideSite, Theme: chart.Auto}); err != nil {
		return nil, "", err
	}
	if files[p.Phone], err = b.SVG(chart.Options{Width: phoneSite, Theme: chart.Auto}); err != nil {
		return nil, "", err
	}
	p.Width, p.Height = attribute(files[p.Wide], "width"), attribute(files[p.Wide], "height")
	return p, "", nil
}

// attribute reads a length of an SVG of ours.
func attribute(svg []byte, name string) string {
	_, rest, _ := bytes.Cut(svg, []byte(" "+name+`="`))
	value, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(value)
}

// promotions lists the steps that are on the record, newest first.
func (s *site) promotions(audit *covenant.Report) {
	if audit.Status() != covenant.Pass {
		return
	}
	seen := map[receipt.ID]bool{}
	for i, e := range slices.Backward(audit.Entries) {
		step, artifact, ok := stepOf(e.Receipt)
		if !ok || seen[e.Receipt.ID()] || len(s.Promotions) == siteList {
			continue
		}
		seen[e.Receipt.ID()] = true
		one := sitePromotion{
			From: step.From, To: step.To, Artifact: artifact, Revision: e.Receipt.Subjects()[1].Commit,
			At: e.Receipt.Issued().Format(time.RFC3339), Receipt: e.Receipt.ID().String(), Entry: i,
		}
		if err := borneOut(audit.Entries[:i], e.Receipt, step.From, artifact); err != nil {
			one.Unproven = err.Error()
		}
		s.Promotions = append(s.Promotions, one)
	}
}

func (w *world) siteSnapshots(p *project, h *head, audit *covenant.Report) (siteSnapshots, error) {
	checks := w.snapshots(p, h, audit)
	verdict := judge.Sum(checks, nil)
	out := siteSnapshots{Status: verdict.Status.String(), Checks: checks}
	var names []string
	folder := snapshotFolder(p.layout)
	if err := h.tree.Walk(folder, func(name string, _ fs.FileMode, _ string) error {
		names = append(names, path.Base(name))
		return nil
	}); err != nil {
		return out, err
	}
	slices.Sort(names)
	for _, base := range slices.Backward(names) {
		if !snapshot.IsFile(base) {
			continue
		}
		if len(out.List) == siteList {
			out.More++
			continue
		}
		data, err := h.tree.Blob(path.Join(folder, base))
		if err != nil {
			return out, err
		}
		one, err := snapshot.Parse(base, data)
		if err != nil {
			continue // the checks say so
		}
		b := one.Body()
		row := siteSnapshot{Date: one.Date().Format(time.DateOnly), Size: b.Size, Root: fmt.Sprintf("%x", b.Root[:]), Missed: one.Missed()}
		for _, name := range names {
			if rest, ok := strings.CutPrefix(name, base+"."); ok {
				row.Beside = append(row.Beside, rest)
			}
		}
		out.List = append(out.List, row)
	}
	if len(out.List) == 0 {
		out.Status, out.Missing = "missing", "no snapshot is committed."
		for _, c := range checks {
			if c.Status == judge.Error {
				out.Status, out.Missing = "error", c.Detail
			}
		}
	}
	return out, nil
}

// Tiles are what the page says first.
func (s *site) Tiles() []tile {
	ledger := tile{"Ledger", strings.ToUpper(s.Ledger.Status), fmt.Sprintf("%d entries, audited for this page", s.Ledger.Size), tone(s.Ledger.Status)}
	if s.Ledger.Status == "pass" && !s.Ledger.Begun {
		ledger = tile{"Ledger", "empty", "the log has not begun", "unsure"}
	}
	tests := tile{"Tests", fmt.Sprintf("%d of %d", s.Tests.Pass, s.Tests.Total), "as the last admitted run has it", tone(s.Tests.Status)}
	if s.Tests.Status == "missing" || s.Tests.Status == "unproven" {
		tests = tile{"Tests", s.Tests.Status, s.Tests.Why, "unsure"}
	}
	all := []tile{ledger, tests}
	for _, r := range s.Reports {
		note := r.Window
		if r.Environment != "" {
			note += " in " + r.Environment
		}
		if r.End != "" {
			note += ", to " + when(r.End)
		}
		if note == "" {
			note = r.Path
		}
		all = append(all, tile{"SLO", r.Verdict, note, tone(r.Verdict)})
	}
	if len(s.Reports) == 0 {
		all = append(all, tile{"SLO", "missing", "no report is on the record", "unsure"})
	}
	snapshots := tile{"Snapshots", s.Snapshots.Status, s.Snapshots.Missing, "unsure"}
	if len(s.Snapshots.List) > 0 {
		snapshots = tile{"Snapshots", strings.ToUpper(s.Snapshots.Status), "the newest is of " + s.Snapshots.List[0].Date, tone(s.Snapshots.Status)}
	}
	return append(all, snapshots)
}

// when is a time for people.
func when(text string) string {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return text
	}
	return t.UTC().Format("2006-01-02 15:04 UTC")
}

// tone is the colour of a verdict: what is no verdict is neither good nor bad.
func tone(verdict string) string {
	switch strings.ToLower(verdict) {
	case "pass":
		return "good"
	case "fail":
		return "bad"
	}
	return "unsure"
}

// render adds the pages to the files.
func (s *site) render(files map[string][]byte) error {
	status, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	files["status.json"] = append(status, '\n')
	page, err := template.New("index.html").Funcs(template.FuncMap{
		"short": func(s string) string { return s[:min(12, len(s))] },
		"upper": strings.ToUpper, "when": when,
		"tone": func(v any) string { return tone(fmt.Sprint(v)) },
	}).ParseFS(templates, "templates/site/index.html")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := page.Execute(&b, s); err != nil {
		return err
	}
	files["index.html"] = b.Bytes()
	files["badge.svg"] = s.badge()
	files["style.css"], err = templates.ReadFile("templates/site/style.css")
	return err
}

// badge is a small picture for other people's pages: the worst of what the tiles
// say gives its colour.
func (s *site) badge() []byte {
	words, worst := []string{}, "good"
	for _, t := range s.Tiles() {
		if t.Name == "Snapshots" {
			continue
		}
		words = append(words, strings.ToLower(t.Name)+" "+t.Value)
		if t.Tone == "bad" || t.Tone == "unsure" && worst == "good" {
			worst = t.Tone
		}
	}
	colour := map[string]string{"good": "#15803d", "bad": "#c81e1e", "unsure": "#b45309"}[worst]
	const left = 96
	text := strings.Join(words[:min(len(words), 4)], " · ")
	right := 14 + 65*len([]rune(text))/10
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="20" role="img" aria-label="remembrancer: %s">`+
		`<title>remembrancer: %[2]s</title><rect width="%[1]d" height="20" rx="3" fill="#374151"/><path d="M%[3]d 0h%[4]d a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-%[4]dz" fill="%[5]s"/>`+
		`<g fill="#fff" font-family="Verdana, 'DejaVu Sans', sans-serif" font-size="11"><text x="7" y="14" textLength="82">remembrancer</text><text x="%[6]d" y="14" textLength="%[7]d" lengthAdjust="spacingAndGlyphs">%[2]s</text></g></svg>`+"\n",
		left+right, template.HTMLEscapeString(text), left, right-3, colour, left+7, right-14)
}
