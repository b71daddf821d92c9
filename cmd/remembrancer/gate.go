package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
)

var gateVerb = verb{
	spec: action.Spec{
		Name: "gate", Verb: "gate",
		Summary: "judge here all that CI judges, with a receipt behind each line",
		Description: "Runs the smoke test, audits the ledger of HEAD, judges the covenants that need no build, " +
			"and computes the next publication without writing it. " +
			"Writes only to the state directory (REMEMBRANCER_STATE, or remembrancer in the user's state directory) and signs with an ephemeral key, " +
			"which proves nothing to others. Under CI it signs with the key it is given, and without one it cannot judge.",
		Inputs: append([]action.Input{
			policyIDInput,
			{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON.", CLIOnly: true},
			{Name: "quiet", Kind: action.Bool, Usage: "Do not show the smoke test's output.", CLIOnly: true},
		}, keyInputs()...),
		Outputs:  []action.Output{{Name: "verdict", Usage: "pass, fail or error."}},
		Examples: []string{"remembrancer gate"},
	},
	run: runGate,
}

// judged is one line of the gate's verdict.
type judged struct {
	name, detail string
	code         int
	advisory     bool
	receipt      receipt.Statement
	id           receipt.ID
}

func runGate(w *world, v *action.Values, r *action.Runner) error {
	p, err := w.openProject()
	if err != nil {
		return err
	}
	if err := errors.Join(w.refuseSecrets(), w.takeBaseConfig(p, r)); err != nil {
		return err
	}
	pinned, err := pinnedPolicy(v)
	if err != nil {
		return err
	}
	signer, ephemeral, err := w.gateSigner(v, p)
	if err != nil {
		return err
	}
	h, err := p.head("HEAD")
	if err != nil {
		return err
	}
	var out io.Writer = w.stderr
	if v.Bool("quiet") {
		out = io.Discard
	}
	untrusted, err := r.Untrusted(out)
	if err != nil {
		return err
	}
	results := &testResults{}
	report, err := w.smoke(p, untrusted, 0, results)
	if closeErr := untrusted.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	audit, err := w.audit(p, h, pinned)
	if err != nil {
		return err
	}
	covenantsLine, err := w.covenantLine(p, h, audit, pinned, r, out)
	if err != nil {
		return err
	}
	plan, err := w.plan(p, pinned)
	if err != nil {
		return err
	}
	lines := []judged{
		smokeLine(report, p.cfg.Smoke.Mode, results.suite.Wanting()),
		ledgerLine(h, audit, p.cfg.Ledger.Mode),
		covenantsLine,
		{name: "publish", detail: "dry run: " + plan.line, code: plan.code, advisory: p.cfg.Ledger.Mode == config.Advisory, receipt: receipt.Statement{
			Kind: receipt.Audit,
			Predicate: map[string]any{
				"check": "publish-dry-run", "verdict": verdictWord(plan.code), "root": plan.root, "size": plan.size,
				"pending": int64(len(plan.pending)), "quarantined": int64(len(plan.quarantined)),
			},
		}},
	}
	dir, err := w.keepReceipts(p, h, lines, signer, ephemeral)
	if err != nil {
		return err
	}
	if !h.commit.IsZero() {
		if err := w.remember(p, audit); err != nil {
			return err
		}
	}
	return w.sayGate(v, r, lines, audit, plan, signer, ephemeral, dir)
}

// gateSigner makes a key for this run only; under CI it takes the one given.
func (w *world) gateSigner(v *action.Values, p *project) (s openpgp.Signer, ephemeral bool, err error) {
	if w.inCI() {
		s, err = w.signer(v, p)
		if err != nil {
			return nil, false, fmt.Errorf("under CI the gate signs with a key that others know: %w; the verbs smoke and verify-audit judge without one", err)
		}
		return s, false, nil
	}
	secret, _, err := openpgp.GenerateEphemeral("remembrancer gate", w.now(), w.rand)
	if err != nil {
		return nil, false, err
	}
	s, err = openpgp.FromArmored(secret, nil, w.now)
	return s, true, err
}

func verdictWord(code int) string {
	switch code {
	case exitPass:
		return "pass"
	case exitFail:
		return "fail"
	}
	return "error"
}

// smokeLine names the first tests that did not pass: whoever sees red wants to
// know where.
func smokeLine(r smoke.Report, mode string, wanting []smoke.Case) judged {
	const most = 5
	detail := fmt.Sprintf("%d of %d tests passed", r.Passed, r.Total)
	if r.Verdict == smoke.Error {
		detail = "no verdict"
	}
	if len(r.Reasons) > 0 && r.Verdict != smoke.Pass {
		detail = strings.Join(r.Reasons, "; ")
	}
	if r.Verdict != smoke.Pass {
		for _, c := range wanting[:min(len(wanting), most)] {
			detail += "\n             " + strings.TrimSuffix(strings.TrimSpace(c.ID+" "+c.Where())+": "+c.Message, ": ")
		}
		if n := len(wanting) - most; n > 0 {
			detail += fmt.Sprintf("\n             and %d more: remembrancer smoke names them", n)
		}
	}
	result := map[smoke.Verdict]string{smoke.Pass: "PASSED"}[r.Verdict]
	if result == "" {
		result = "FAILED"
	}
	return judged{
		name: "smoke", detail: detail, code: r.Verdict.ExitStatus(), advisory: mode == config.Advisory,
		receipt: receipt.Statement{Kind: receipt.Smoke, Predicate: map[string]any{
			"result": result, "configuration": []any{map[string]any{"name": config.FileName}},
			"passed": r.Passed, "failed": r.Failed, "warned": r.Warned, "skipped": r.Skipped, "total": r.Total,
			"verdict": r.Verdict.String(), "command": r.Command, "output_sha256": r.OutputSHA256,
		}},
	}
}

func ledgerLine(h *head, r *covenant.Report, mode string) judged {
	detail := auditLine(h, r)
	if bad := r.Failures(); len(bad) > 0 {
		var parts []string
		for _, f := range bad {
			parts = append(parts, fmt.Sprintf("%d. %s: %s", f.Check, f.Name, f.Detail))
		}
		detail = strings.Join(parts, "\n             ")
	}
	findings := []any{}
	for _, f := range r.Findings {
		findings = append(findings, map[string]any{"check": int64(f.Check), "name": f.Name, "status": f.Status})
	}
	return judged{
		name: "ledger", detail: detail, code: auditExit(r), advisory: mode == config.Advisory,
		receipt: receipt.Statement{Kind: receipt.Audit, Predicate: map[string]any{
			"check": "ledger", "verdict": r.Status().String(), "findings": findings, "policy_id": r.PolicyID, "judged": h.where,
		}},
	}
}

// covenantLine judges the covenants that need no build.
func (w *world) covenantLine(p *project, h *head, audit *covenant.Report, pinned string, r *action.Runner, out io.Writer) (judged, error) {
	untrusted, err := r.Untrusted(out)
	if err != nil {
		return judged{}, err
	}
	c := &covenants{w: w, p: p, out: untrusted, only: judge.Covenants(), noBuild: true, pinned: pinned, rev: "HEAD", head: h, audit: audit}
	v, err := c.judge()
	if err := errors.Join(err, untrusted.Close()); err != nil {
		return judged{}, err
	}
	summary, err := c.summary(v)
	if err != nil {
		return judged{}, err
	}
	details := append([]string{covenantsByStatus(v)}, v.Brief()...)
	details = append(details, c.waiverLines()...)
	return judged{
		name: "covenant", detail: strings.Join(details, "\n             "), code: verdictExit(v.Status), advisory: p.cfg.Covenants.Mode == config.Advisory,
		receipt: receipt.Statement{Kind: receipt.Covenant, Predicate: summary},
	}, nil
}

// covenantsByStatus names the covenants by what became of them.
func covenantsByStatus(v judge.Verdict) string {
	var parts []string
	for _, s := range []judge.Status{judge.Pass, judge.Fail, judge.Error, judge.Unclaimed} {
		var names []string
		for _, c := range v.Covenants {
			if c.Status == s {
				names = append(names, c.Name)
			}
		}
		if names != nil {
			parts = append(parts, s.String()+": "+strings.Join(names, ", "))
		}
	}
	return strings.Join(parts, "; ")
}

// keepReceipts signs a receipt for each line and writes them to the state
// directory. It returns where.
func (w *world) keepReceipts(p *project, h *head, lines []judged, s openpgp.Signer, ephemeral bool) (string, error) {
	state, err := w.state()
	if err != nil {
		return "", err
	}
	defer state.Close()
	now := w.now()
	dir := "gate/" + shortHash(p.root) + "/" + now.UTC().Format("20060102T150405.000000Z")
	if err := state.Put(dir+"/"+string(s.Fingerprint())+".key.asc", s.Public().Armored()); err != nil {
		return "", err
	}
	for i := range lines {
		st := lines[i].receipt
		st.Issuer, st.Issued = s.Fingerprint(), now
		subject := receipt.Subject{Name: "work tree", SHA256: digest([]byte(p.root))}
		if !h.commit.IsZero() {
			subject = receipt.Subject{Name: "commit", Commit: h.commit.String()}
		}
		st.Subjects = []receipt.Subject{subject}
		st.Predicate["vaultmesh_ephemeral_key"] = ephemeral
		r, err := receipt.New(st)
		if err != nil {
			return "", err
		}
		sig, err := receipt.Sign(w.ctx, r, s)
		if err != nil {
			return "", err
		}
		lines[i].id = r.ID()
		base := dir + "/" + lines[i].name + ".receipt"
		if err := state.Put(base, r.Bytes()); err != nil {
			return "", err
		}
		if err := state.Put(base+"."+string(s.Fingerprint())+".asc", openpgp.Armor(sig.Packet)); err != nil {
			return "", err
		}
	}
	top, err := w.stateDir()
	return filepath.Join(top, filepath.FromSlash(dir)), err
}

func (w *world) sayGate(v *action.Values, r *action.Runner, lines []judged, audit *covenant.Report, plan *planned, s openpgp.Signer, ephemeral bool, dir string) error {
	code, passed := exitPass, 0
	for _, l := range lines {
		if l.code == exitPass {
			passed++
		} else if !l.advisory {
			code = worse(code, l.code)
		}
	}
	if err := r.SetOutput("verdict", verdictWord(code)); err != nil {
		return err
	}
	if v.Bool("json") {
		out := []map[string]any{}
		for _, l := range lines {
			out = append(out, map[string]any{"name": l.name, "verdict": verdictWord(l.code), "detail": l.detail, "receipt": l.id.String(), "advisory": l.advisory})
		}
		line, err := marshalLine(map[string]any{
			"verdict": verdictWord(code), "lines": out, "policy_id": audit.PolicyID, "first_use": audit.FirstUse,
			"signed_by": s.Fingerprint(), "ephemeral_key": ephemeral, "receipts": dir,
		})
		if err != nil {
			return err
		}
		w.say("%s", line)
		return quietly(code)
	}
	for _, l := range lines {
		w.say("%s %-8s %s", mark(verdictWord(l.code)), l.name, action.Defang(l.detail))
		if l.advisory && l.code != exitPass {
			w.say("   %-8s ⚠️  advisory mode: this does not stop the job", "")
		}
		w.say("   %-8s receipt %s", "", l.id.String()[:16])
	}
	w.sayQuarantine(plan.quarantined)
	for _, f := range audit.Failures() {
		for _, e := range f.Evidence {
			w.say("%s", indent(action.Defang(e)))
		}
	}
	signed := fmt.Sprintf("signed by %s", s.Fingerprint())
	if ephemeral {
		signed = fmt.Sprintf("signed by an EPHEMERAL key (%s), which proves nothing to others", s.Fingerprint()[:16])
	}
	w.say("%s  %d of %d, %s", strings.ToUpper(verdictWord(code)), passed, len(lines), signed)
	w.note("receipts: %s", dir)
	if r.InActions() {
		return joinStatus(r.Summary(gateSummary(lines, code, signed, w.now())), code)
	}
	return quietly(code)
}

func joinStatus(err error, code int) error {
	if err != nil {
		return err
	}
	return quietly(code)
}

// worse returns the worse of two exit states: what could not be judged is worse
// than what was judged and found wanting, in that no one knows.
func worse(a, b int) int {
	if a == exitFail || b == exitFail {
		return exitFail
	}
	return max(a, b)
}

func gateSummary(lines []judged, code int, signed string, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### remembrancer gate: %s\n\n| | check | detail | receipt |\n|---|---|---|---|\n", strings.ToUpper(verdictWord(code)))
	for _, l := range lines {
		fmt.Fprintf(&b, "| %s | %s | %s | `%s` |\n", mark(verdictWord(l.code)), l.name, action.EscapeMarkdown(l.detail), l.id.String()[:16])
	}
	fmt.Fprintf(&b, "\n%s, %s\n", signed, now.UTC().Format(time.RFC3339))
	return b.String()
}
