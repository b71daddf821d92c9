package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/slo"
)

// stages are the environments that an artifact goes through, in this order.
var stages = []string{"staging", "canary", "prod"}

var sloPromoteVerb = verb{
	spec: action.Spec{
		Verb: "slo promote", Summary: "let an artifact go on to the next environment, by its reports", Args: "REPORT...",
		Description: "An artifact goes from staging to canary, and from canary to prod. It may go on when each REPORT passes slo gate as a whole, is of this artifact in the environment it comes from, " +
			"and when the ledger has the receipt that let it into that environment: of the same artifact and revision, borne out by reports that are on the record too, and older than the window of each REPORT.\n\n" +
			"Then a signed receipt of kind deploy is written, which the next step asks for. Commit it, and publish. This verb decides, and deploys nothing.",
		Inputs: slices.Concat([]action.Input{
			{Name: "from", Required: true, Choices: stages, Usage: "Environment that the reports are of."},
			{Name: "to", Required: true, Choices: stages, Usage: "Environment that the artifact is to go to: the one that follows."},
			{Name: "artifact", Required: true, Usage: "What is to go there, as sha256: and 64 hex digits."},
			{Name: "slo", Kind: action.Path, Usage: "The spec that must have been judged by; the one that each report names when left out."},
			{Name: "revision", Usage: "Git commit that must have been measured; any when left out."},
			{Name: "max-age", Kind: action.Duration, Default: "0s", Usage: "How long ago a window may have ended, such as 168h; 0s for any time."},
			policyIDInput,
		}, keyInputs()),
		Exit:     "1 when an objective is missed or a step would be skipped, 3 when the evidence for the step is missing or refused.",
		Examples: []string{"remembrancer slo promote --from staging --to canary --artifact sha256:DIGEST canary_slo_report.json"},
	},
	run: runSLOPromote,
}

// promotion is one step, as receipts of it say.
type promotion struct {
	From string `json:"from"`
	To   string `json:"to"`
}

func runSLOPromote(w *world, v *action.Values, r *action.Runner) error {
	step := promotion{v.String("from"), v.String("to")}
	artifact := v.String("artifact")
	if err := slo.CheckArtifact(artifact); err != nil {
		return misused("--artifact: %v", err)
	}
	files := v.Args()
	if len(files) == 0 {
		return misused("want at least one REPORT of %s", step.From)
	}
	if slices.Index(stages, step.To) != slices.Index(stages, step.From)+1 {
		return w.notPromoted(r, step, failed("from %s an artifact goes to no other environment than the next one of %s", step.From, strings.Join(stages, ", ")))
	}
	p, err := w.openProject()
	if err != nil {
		return err
	}
	signer, err := w.signer(v, p)
	if err != nil {
		return err // no promotion is on the record without a signature
	}
	d, err := w.decide(v, r, step, artifact, files)
	if err != nil {
		return w.notPromoted(r, step, err)
	}
	for _, line := range d.because {
		w.say("✅ %s", action.Defang(line))
	}
	if err := w.promoted(p, signer, step, artifact, d); err != nil {
		return err
	}
	w.say("PROMOTED  %s may go from %s to %s", artifact, step.From, step.To)
	return r.Summary(fmt.Sprintf("### Promoted: %s → %s\n\n`%s`\n\n- %s\n", step.From, step.To, artifact, action.EscapeMarkdown(strings.Join(d.because, "; "))))
}

// notPromoted says that an artifact stays where it is, with the exit status of
// the reason.
func (w *world) notPromoted(r *action.Runner, step promotion, err error) error {
	word := "REFUSED"
	if exitCode(err) == exitFail {
		word = "DENIED"
	}
	w.say("%s  %s → %s: %s", word, step.From, step.To, action.Defang(err.Error()))
	if r.InActions() {
		r.Annotate(action.Error, "", 0, "slo promote", err.Error())
	}
	if serr := r.Summary(fmt.Sprintf("### Not promoted: %s → %s\n\n%s\n", step.From, step.To, action.EscapeMarkdown(err.Error()))); serr != nil {
		return serr
	}
	return quietly(exitCode(err))
}

// decision is a step that may be taken, and what bears it out.
type decision struct {
	service, revision string
	subjects          []receipt.Subject // the reports
	because           []string
}

// decide judges whether a step may be taken.
func (w *world) decide(v *action.Values, r *action.Runner, step promotion, artifact string, files []string) (*decision, error) {
	d := &decision{}
	for _, file := range files {
		report, in, err := w.sloGate(v, r, file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		s := report.Subject
		switch {
		case report.Verdict != slo.Pass:
			return nil, failed("%s: %s: %s", file, report.Verdict, strings.Join(report.Why, "; "))
		case s.Artifact != artifact:
			return nil, fmt.Errorf("%s is of %s, want %s", file, orNothing("artifact", s.Artifact), artifact)
		case s.Environment != step.From:
			return nil, fmt.Errorf("%s is of %s, want %s", file, orNothing("environment", s.Environment), step.From)
		case d.revision != "" && d.revision != s.Revision:
			return nil, fmt.Errorf("%s is of revision %s, the report before it of %s: one artifact is of one revision", file, s.Revision, d.revision)
		}
		d.service, d.revision = report.Spec.Service, s.Revision
		d.subjects = append(d.subjects, receipt.Subject{Name: in.project.nameOf(w.path(file)), SHA256: digest(report.data)})
		d.because = append(d.because, fmt.Sprintf("%s passes over %s to %s; receipt %s is entry %d", file, report.Window, report.Proven.End, in.id, in.index))
		if err := d.arrived(step.From, artifact, report, in); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return d, nil
}

func orNothing(what, s string) string {
	if s == "" {
		return "no " + what + ": slo report --" + what + " says which"
	}
	return what + " " + s
}

// arrived demands that every earlier step is on the record, back to the first
// environment, and was taken before the window of the report began.
func (d *decision) arrived(environment, artifact string, report *remade, in sloEntry) error {
	began, err := time.Parse(time.RFC3339, report.Proven.Start)
	if err != nil {
		return err
	}
	before := in.index // a step is on the record before what followed from it
	for at := slices.Index(stages, environment); at > 0; at-- {
		step := promotion{stages[at-1], stages[at]}
		i := promotionIn(in.entries[:before], step, artifact, d.revision)
		if i < 0 {
			return fmt.Errorf("no receipt in the ledger, before this report's, let %s of revision %s go from %s to %s: remembrancer slo promote --from %[3]s --to %[4]s writes it", artifact, d.revision, step.From, step.To)
		}
		e := in.entries[i]
		if e.Receipt.Issued().After(began) {
			return fmt.Errorf("its window begins at %s, and the artifact was let into %s at %s: want a window after that", report.Proven.Start, step.To, e.Receipt.Issued().Format(time.RFC3339))
		}
		if err := borneOut(in.entries[:i], e.Receipt, step.From, artifact); err != nil {
			return fmt.Errorf("receipt %s, entry %d: %w", e.Receipt.ID(), i, err)
		}
		line := fmt.Sprintf("it came from %s to %s by receipt %s, entry %d", step.From, step.To, e.Receipt.ID(), i)
		if !slices.Contains(d.because, line) {
			d.because = append(d.because, line)
		}
		before, began = i, e.Receipt.Issued()
	}
	return nil
}

// stepOf reads what a receipt says of a promotion; false: it is none.
func stepOf(r *receipt.Receipt) (promotion, string, bool) {
	var step promotion
	s := r.Subjects()
	if r.Kind() != receipt.Deploy || r.Decode("promotion", &step) != nil || len(s) < 3 {
		return step, "", false
	}
	return step, "sha256:" + s[0].SHA256, true
}

// promotionIn finds the newest admitted receipt of a step; -1: there is none.
func promotionIn(entries []receipt.Entry, step promotion, artifact, revision string) int {
	for i, e := range slices.Backward(entries) {
		if got, of, ok := stepOf(e.Receipt); ok && got == step && of == artifact && e.Receipt.Subjects()[1].Commit == revision {
			return i
		}
	}
	return -1
}

// borneOut demands that each report that a promotion names is on the record, as
// a pass that could be promoted.
func borneOut(entries []receipt.Entry, r *receipt.Receipt, environment, artifact string) error {
	for _, s := range r.Subjects()[2:] {
		i := slices.IndexFunc(entries, func(e receipt.Entry) bool {
			of := e.Receipt.Subjects()
			if e.Receipt.Kind() != receipt.SLO || of[0].SHA256 != s.SHA256 || len(of) != 4 || "sha256:"+of[3].SHA256 != artifact {
				return false
			}
			var promotable bool
			return e.Receipt.Field("verdict") == slo.Pass && e.Receipt.Field("environment") == environment && e.Receipt.Decode("promotable", &promotable) == nil && promotable
		})
		if i < 0 {
			return fmt.Errorf("no report on the record bears it out: want one with SHA-256 %s, a pass of %s in %s", s.SHA256, artifact, environment)
		}
	}
	return nil
}

// promoted puts a step on the record, once: its receipt is named after the
// artifact and the step.
func (w *world) promoted(p *project, signer openpgp.Signer, step promotion, artifact string, d *decision) error {
	sum := strings.TrimPrefix(artifact, "sha256:")
	r, err := receipt.New(receipt.Statement{
		Kind: receipt.Deploy, Issuer: signer.Fingerprint(), Issued: w.now(),
		Name:     fmt.Sprintf("%s-%s-to-%s-%s", d.service, step.From, step.To, sum[:16]),
		Subjects: append([]receipt.Subject{{Name: "artifact", SHA256: sum}, {Name: "git", Commit: d.revision}}, d.subjects...),
		Predicate: map[string]any{
			"component": d.service, "version": d.revision, "promotion": map[string]any{"from": step.From, "to": step.To},
			"title": fmt.Sprintf("%s goes from %s to %s", d.service, step.From, step.To),
		},
	})
	if err != nil {
		return err
	}
	name := p.layout.Receipt(r.File())
	path, err := p.file(name)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return w.putReceipt(p, r, signer)
	}
	if err != nil {
		return err
	}
	was, err := receipt.Parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if got, of, ok := stepOf(was); !ok || got != step || of != artifact || was.Subjects()[1].Commit != d.revision {
		return fmt.Errorf("%s is there, and is of another step: receipts are never changed", name)
	}
	if _, err := os.Stat(filepath.Join(p.root, filepath.FromSlash(p.layout.Receipt(was.SignatureFile(was.Issuer()))))); err != nil {
		return fmt.Errorf("%s is there and unsigned: remembrancer sign %s", name, name)
	}
	w.say("%s", name)
	w.note("ℹ️  promoted already, at %s", was.Issued().Format(time.RFC3339))
	return nil
}
