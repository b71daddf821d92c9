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
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/prometheus"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/slo"
)

const (
	maxSLOSpec     = 256 << 10
	maxSLOReport   = 1 << 20
	maxSLOEvidence = 128 << 20
)

var sloReportVerb = verb{
	spec: action.Spec{
		Verb: "slo report", Summary: "judge what was promised by what a Prometheus measured", Args: "[SIMULATION]",
		Description: "Asks a Prometheus everything that the spec needs, keeps each answer as it came, and judges the answers: FILE is written only when every objective was judged. " +
			"What is missing or odd is refused: then FILE, and one that was there before, is gone, and FILE's name with .refused.json says why.\n\n" +
			"Beside FILE lies the evidence, a tar file with every answer, of which slo verify makes the same report. In a repository the report gets a signed receipt under ops/receipts/slo; " +
			"commit all of it, and publish. For a change the spec is that of its base.",
		Inputs: slices.Concat([]action.Input{
			{Name: "slo", Kind: action.Path, Required: true, Usage: "The spec, in OpenSLO's format."},
			{Name: "window", Usage: "How far to look back, such as 72h; as the spec says when left out. Less is never promotable."},
			{Name: "out", Kind: action.Path, Default: "canary_slo_report.json", Usage: "Where to write the report; its name ends with .json."},
			{Name: "revision", Usage: "Git commit that must have run; HEAD when left out."},
			{Name: "artifact", Usage: "What was deployed there, as sha256: and 64 hex digits. Reports can be promoted only with it."},
			{Name: "environment", Usage: "Where it was measured: staging, canary, prod, or a name of your own."},
			{
				Name: "source", Default: slo.FromPrometheus, Choices: []string{slo.FromPrometheus, slo.FromSimulator, slo.FromBackfill},
				Usage: "Where the numbers come from. With simulator they are read from SIMULATION, with synthetic-backfill from a Prometheus whose data were written after the fact; such a report says so, gets no receipt, and passes no gate.",
			},
		}, prometheusInputs(), []action.Input{
			{Name: "issuer", Usage: "Fingerprint of the issuer, where no key is at hand to sign with now."},
		}, keyInputs()),
		Exit:     "1 when an objective is missed, 3 when the report is refused.",
		Examples: []string{"remembrancer slo report --prometheus http://127.0.0.1:9090 --slo slo.yaml --window 72h --out canary_slo_report.json"},
	},
	run: runSLOReport,
}

var sloGateVerb = verb{
	spec: action.Spec{
		Name: "slo-gate", Verb: "slo gate", Summary: "let a measured, ledgered SLO report through, and nothing else", Args: "[FILE]",
		Description: "Passes when the report has its receipt in the ledger of HEAD, the audit of that ledger passes, the spec is the base's, and the report made anew of its evidence is the same, passes and is promotable. " +
			"JSON alone proves nothing: without receipt or evidence, edited, simulated, or of a shorter window than promised, it is refused.",
		Inputs: []action.Input{
			{Name: "report", Kind: action.Path, Default: "canary_slo_report.json", Usage: "The report; FILE says the same."},
			{Name: "slo", Kind: action.Path, Usage: "The spec that must have been judged by; the one that the report names when left out."},
			{Name: "revision", Usage: "Git commit that must have been measured; any when left out."},
			{Name: "max-age", Kind: action.Duration, Default: "0s", Usage: "How long ago the window may have ended, such as 168h; 0s for any time."},
			policyIDInput,
		},
		Outputs: []action.Output{
			{Name: "verdict", Usage: "pass, fail or refused."},
			{Name: "revision", Usage: "Git commit that was measured; empty when refused."},
			{Name: "receipt", Usage: "Id of the receipt; empty when refused."},
		},
		Exit:     "1 when an objective is missed, 3 when the report is refused.",
		Examples: []string{"remembrancer slo gate canary_slo_report.json"},
	},
	run: runSLOGate,
}

var sloVerifyVerb = verb{
	spec: action.Spec{
		Verb: "slo verify", Summary: "make an SLO report anew from its evidence, offline", Args: "FILE",
		Description: "Reads the report, the evidence beside it and the spec, and nothing else. The report must be what they give, byte for byte. That the evidence came from where it says is what receipts are for: see slo gate.",
		Inputs: []action.Input{
			{Name: "slo", Kind: action.Path, Usage: "The spec; the file that the report names, below the repository or here, when left out."},
		},
		Exit:     "1 when the report is true and an objective is missed, 3 when it is not what its evidence shows.",
		Examples: []string{"remembrancer slo verify canary_slo_report.json"},
	},
	run: runSLOVerify,
}

// prometheusInputs say how a Prometheus is reached.
func prometheusInputs() []action.Input {
	return []action.Input{
		{Name: "prometheus", Usage: "Address of the Prometheus, or of a server with its API.", Env: "REMEMBRANCER_PROMETHEUS"},
		{Name: "user", Usage: "Name for basic authentication.", Env: "REMEMBRANCER_PROMETHEUS_USER"},
		{Name: "password", Kind: action.Secret, Usage: "Password for basic authentication.", Env: "REMEMBRANCER_PROMETHEUS_PASSWORD"},
		{Name: "bearer", Kind: action.Secret, Usage: "Bearer token, in place of a name and password.", Env: "REMEMBRANCER_PROMETHEUS_BEARER"},
		{Name: "ca", Kind: action.Path, Usage: "PEM file of the authorities to believe, in place of the system's."},
		{Name: "client-cert", Kind: action.Path, Usage: "PEM file of the certificate to show."},
		{Name: "client-key", Kind: action.Path, Usage: "PEM file of that certificate's key."},
		{Name: "timeout", Kind: action.Duration, Default: "30s", Usage: "How long to wait for one answer."},
	}
}

// sloFiles are the files of one report.
type sloFiles struct{ report, refused, evidence string }

func (w *world) sloFiles(out string) (sloFiles, error) {
	stem, ok := strings.CutSuffix(w.path(out), ".json")
	if !ok || strings.HasPrefix(filepath.Base(stem), ".") || strings.HasSuffix(stem, ".refused") || filepath.Base(stem) == "" {
		return sloFiles{}, misused("--out %s: want a name such as canary_slo_report.json", out)
	}
	return sloFiles{stem + ".json", stem + ".refused.json", stem + ".evidence.tar"}, nil
}

// sloSpec reads a spec as it judges here: a change must not choose its own.
// changed says how the spec of the change differs from that of its base.
func (w *world) sloSpec(p *project, file string) (s *slo.Spec, changed string, err error) {
	here, err := readBounded(w.path(file), maxSLOSpec)
	if err != nil {
		return nil, "", misused("--slo: %v", err)
	}
	name, data := filepath.Base(file), here
	if p != nil {
		rel, err := filepath.Rel(resolved(p.root), resolved(w.path(file)))
		inside := err == nil && filepath.IsLocal(rel)
		base, err := w.configBase(p)
		switch {
		case err != nil:
			return nil, "", err
		case inside:
			name = filepath.ToSlash(rel)
		case !base.IsZero():
			return nil, "", misused("--slo %s: a change is judged by the spec of its base: want a file of the repository", file)
		}
		if !base.IsZero() {
			judged, where, err := w.fileOfBase(p, name)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				changed = fmt.Sprintf("%s has no %s: put it there first", where, name)
			case err != nil:
				return nil, "", err
			case string(judged) != string(here):
				data, changed = judged, fmt.Sprintf("%s is not that of %s: let the spec through first, and measure then", name, where)
			}
		}
	}
	if s, err = slo.ParseSpec(name, data); err != nil {
		return nil, "", misused("%v", err)
	}
	return s, changed, nil
}

func runSLOReport(w *world, v *action.Values, r *action.Runner) error {
	p, err := w.projectIfAny(r)
	if err != nil {
		return err
	}
	files, err := w.sloFiles(v.String("out"))
	if err != nil {
		return err
	}
	spec, changed, err := w.sloSpec(p, v.String("slo"))
	if err != nil {
		return err
	}
	if v.String("source") == slo.FromSimulator {
		if v.String("artifact") != "" || v.String("environment") != "" {
			return misused("--artifact and --environment are of what was measured, and a simulation measures nothing")
		}
		return w.simulated(v, r, spec, files)
	}
	if len(v.Args()) > 0 {
		return misused("unexpected argument %q: a SIMULATION is for --source simulator", v.Args()[0])
	}
	ask, err := w.sloAsk(v, p, spec)
	if err != nil {
		return err
	}
	client, err := w.prometheus(v)
	if err != nil {
		return err
	}
	defer client.Close()
	var signer openpgp.Signer
	if p != nil {
		// Three days of measuring are not lost for want of a key: it is looked for first.
		if signer, err = w.signer(v, p); err != nil && (!errors.Is(err, errNoKey) || w.inCI()) {
			return err
		}
	}
	// What is older must not be taken for the outcome of this run, however it ends.
	if err := removeAll(files.report, files.refused, files.evidence); err != nil {
		return err
	}
	if changed != "" {
		return w.sayRefusal(r, slo.Refuse(spec, ask, w.now(), slo.Reason{Code: slo.SpecChanged, Detail: changed}), files)
	}
	archive, err := slo.Collect(w.ctx, spec, ask, w.now, client.Fetch)
	if err != nil {
		return err
	}
	evidence, err := archive.Marshal()
	if err != nil {
		return err
	}
	if err := w.putSLO(r, files.evidence, evidence); err != nil {
		return err
	}
	report, refusal, err := slo.Judge(spec, archive, filepath.Base(files.evidence))
	switch {
	case err != nil:
		return err
	case refusal != nil:
		return w.sayRefusal(r, refusal, files)
	}
	data, err := report.Marshal()
	if err != nil {
		return err
	}
	if err := w.putSLO(r, files.report, data); err != nil {
		return err
	}
	if err := w.saySLO(r, report, spec.Courses(archive, summaryParts)); err != nil {
		return err
	}
	w.say("%s and %s are written", filepath.Base(files.report), filepath.Base(files.evidence))
	switch {
	case report.DataSource != slo.FromPrometheus:
		w.note("⚠️  nothing was measured of a service: the report gets no receipt, and passes no gate")
	case p == nil:
		w.note("⚠️  no repository under a covenant is here: the report gets no receipt, and passes no gate")
	default:
		if err := w.sloReceipt(v, p, signer, report, data, files); err != nil {
			return err
		}
	}
	if report.Verdict != slo.Pass {
		return quietly(exitFail)
	}
	return nil
}

func (w *world) sloAsk(v *action.Values, p *project, spec *slo.Spec) (slo.Ask, error) {
	ask := slo.Ask{Revision: v.String("revision"), Artifact: v.String("artifact"), Environment: v.String("environment"), Generator: "remembrancer " + version()}
	if source := v.String("source"); source != slo.FromPrometheus {
		ask.Source = source
	}
	if text := v.String("window"); text != "" {
		var err error
		if ask.Window, err = slo.ParseDuration(text); err != nil {
			return ask, misused("--window: %v", err)
		}
	}
	if ask.Revision == "" {
		if p == nil {
			return ask, misused("no repository is here to tell what ran: want --revision COMMIT")
		}
		head, err := p.repo.Resolve("HEAD")
		if err != nil {
			return ask, err
		}
		ask.Revision = head.String()
	}
	if err := spec.CheckAsk(ask); err != nil {
		return ask, misused("%v", err)
	}
	return ask, nil
}

func (w *world) prometheus(v *action.Values) (*prometheus.Client, error) {
	if v.String("prometheus") == "" {
		return nil, misused("want the address of a Prometheus: --prometheus URL")
	}
	o := prometheus.Options{User: v.String("user"), Password: v.String("password"), Bearer: v.String("bearer"), Timeout: v.Duration("timeout")}
	for name, into := range map[string]*[]byte{"ca": &o.CA, "client-cert": &o.Cert, "client-key": &o.Key} {
		if path := v.String(name); path != "" {
			data, err := readBounded(w.path(path), 1<<20)
			if err != nil {
				return nil, misused("--%s: %v", name, err)
			}
			*into = data
		}
	}
	c, err := prometheus.New(v.String("prometheus"), o)
	if err != nil {
		return nil, misused("--prometheus: %v", err)
	}
	return c, nil
}

func removeAll(paths ...string) error {
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (w *world) putSLO(r *action.Runner, path string, data []byte) error {
	if err := durable.Put(path, data, 0o644); err != nil || !r.InActions() {
		return err
	}
	return giveToOwnerOf(w.getenv("GITHUB_WORKSPACE"), path)
}

// simulated writes the report of what nobody measured.
func (w *world) simulated(v *action.Values, r *action.Runner, spec *slo.Spec, files sloFiles) error {
	if len(v.Args()) != 1 {
		return misused("want one SIMULATION: a file with the numbers")
	}
	from := v.Args()[0]
	if r.InActions() {
		var err error
		if from, err = action.ResolvePath(w.getenv("GITHUB_WORKSPACE"), from); err != nil {
			return misused("%v", err)
		}
	}
	data, err := readBounded(w.path(from), maxSLOReport)
	if err != nil {
		return err
	}
	report, err := slo.Simulate(spec, data, filepath.Base(from), w.now(), "remembrancer "+version())
	if err != nil {
		return err
	}
	out, err := report.Marshal()
	if err != nil {
		return err
	}
	if err := removeAll(files.report, files.refused, files.evidence); err != nil {
		return err
	}
	if err := w.putSLO(r, files.report, out); err != nil {
		return err
	}
	if err := w.saySLO(r, report, nil); err != nil {
		return err
	}
	if report.Verdict != slo.Pass {
		return quietly(exitFail)
	}
	return nil
}

var sloWords = map[string]string{"gte": "at least", "lte": "at most"}

// saySLO shows a judged report to people. courses are how its values ran, where
// that is known.
func (w *world) saySLO(r *action.Runner, report *slo.Report, courses []slo.Course) error {
	var table strings.Builder
	fmt.Fprintf(&table, "### SLO %s: %s over %s\n\n", report.Verdict, action.EscapeMarkdown(report.Treaty), report.Window)
	switch report.DataSource {
	case slo.FromPrometheus:
	case slo.FromSimulator:
		table.WriteString("**Simulated: nothing was measured.**\n\n")
		w.say("⚠️  SIMULATED: nothing was measured, and no gate lets this through")
	default:
		table.WriteString("**Synthetic: the data were written after the fact, no service was measured.**\n\n")
		w.say("⚠️  SYNTHETIC: no service was measured, and no gate lets this through")
	}
	table.WriteString("| | objective | value | wanted | margin | course |\n|---|---|---|---|---|---|\n")
	for _, k := range report.KPIs {
		icon := "✅"
		if !k.Compliant {
			icon = "❌"
		}
		unit := ""
		if k.Unit != "ratio" {
			unit = " " + k.Unit
		}
		w.say("%s %-24s %.6g%s, wanted %s %g%s", icon, k.Key, k.Value, unit, sloWords[k.Op], k.Threshold, unit)
		if k.Thin {
			w.say("     thin: the counts alone speak for %.4f good, wanted %g", k.Bound, k.Target)
		}
		if k.Burning != "" {
			w.say("     %s", k.Burning)
		}
		fmt.Fprintf(&table, "| %s | `%s` | %.6g%s | %s %g%s | %.4g | %s |\n", icon, k.Key, k.Value, unit, sloWords[k.Op], k.Threshold, unit, k.Margin, sparkline(courses, k.Key))
		if !k.Compliant && r.InActions() {
			r.Annotate(action.Error, "", 0, "SLO "+k.Key, fmt.Sprintf("%.6g%s, wanted %s %g%s %s", k.Value, unit, sloWords[k.Op], k.Threshold, unit, k.Burning))
		}
	}
	line := fmt.Sprintf("%s  %s over %s, to %s", report.Verdict, report.Treaty, report.Window, report.Timestamp)
	if s := report.Subject; s != nil {
		line += ", of revision " + s.Revision[:12]
		if s.Environment != "" {
			line += " in " + s.Environment
		}
		if s.Artifact != "" {
			line += " as " + s.Artifact[:len("sha256:")+12]
		}
	}
	if report.Verdict == slo.Pass && !report.Promotable {
		line += "; not promotable: " + strings.Join(report.Why, "; ")
	}
	w.say("%s", action.Defang(line))
	fmt.Fprintf(&table, "\n%s\n", action.EscapeMarkdown(line))
	table.WriteString(diagrams(courses))
	return r.Summary(table.String())
}

// sayRefusal writes a refusal, and says why.
func (w *world) sayRefusal(r *action.Runner, refusal *slo.Refusal, files sloFiles) error {
	data, err := refusal.Marshal()
	if err != nil {
		return err
	}
	if err := w.putSLO(r, files.refused, data); err != nil {
		return err
	}
	var list strings.Builder
	for _, reason := range refusal.Reasons {
		text := reason.Detail
		if reason.Query != "" {
			text = reason.Query + ": " + text
		}
		w.say("🚫 %-16s %s", reason.Code, action.Defang(text))
		fmt.Fprintf(&list, "- `%s` %s\n", reason.Code, action.EscapeMarkdown(text))
		if r.InActions() {
			r.Annotate(action.Error, "", 0, "SLO report refused", string(reason.Code)+": "+text)
		}
	}
	w.say("REFUSED  nothing is reported; %s says why", filepath.Base(files.refused))
	if err := r.Summary("### SLO REFUSED\n\n" + list.String()); err != nil {
		return err
	}
	return quietly(exitUnjudged)
}

// sloReceipt writes the receipt of a judged report. Its subjects are the report,
// its evidence and the revision.
func (w *world) sloReceipt(v *action.Values, p *project, s openpgp.Signer, report *slo.Report, data []byte, files sloFiles) error {
	var issuer openpgp.Fingerprint
	var err error
	switch given := v.String("issuer"); {
	case given != "":
		if issuer, err = openpgp.ParseFingerprint(given); err != nil {
			return misused("--issuer: %v", err)
		}
	case s != nil:
		issuer = s.Fingerprint()
	default:
		if issuer, err = p.onlyAnchor(); err != nil {
			return err
		}
	}
	end, err := time.Parse(time.RFC3339, report.Proven.End)
	if err != nil {
		return err
	}
	met := 0
	for _, k := range report.KPIs {
		if k.Compliant {
			met++
		}
	}
	st := receipt.Statement{
		Kind: receipt.SLO, Issuer: issuer, Issued: w.now(),
		// Two windows can end in one second; no two archives are the same.
		Name: report.Spec.Service + "-" + end.UTC().Format("20060102T150405Z") + "-" + report.Evidence.SHA256[:8],
		Subjects: []receipt.Subject{
			{Name: p.nameOf(files.report), SHA256: digest(data)},
			{Name: p.nameOf(files.evidence), SHA256: report.Evidence.SHA256},
			{Name: "git", Commit: report.Subject.Revision},
		},
		Predicate: map[string]any{
			"treaty_id": report.Treaty, "verdict": report.Verdict, "data_source": report.DataSource, "promotable": report.Promotable,
			"window": report.Window, "start": report.Proven.Start, "end": report.Proven.End,
			"objectives": map[string]any{"met": met, "total": len(report.KPIs)},
			"spec":       map[string]any{"file": report.Spec.File, "sha256": report.Spec.SHA256},
			"generator":  report.Generator,
		},
	}
	if a := report.Subject.Artifact; a != "" {
		st.Subjects = append(st.Subjects, receipt.Subject{Name: "artifact", SHA256: strings.TrimPrefix(a, "sha256:")})
	}
	if e := report.Subject.Environment; e != "" {
		st.Predicate["environment"] = e
	}
	r, err := receipt.New(st)
	if err != nil {
		return err
	}
	return w.putReceipt(p, r, s)
}

// nameOf is what a file is called in receipts: its path in the repository, or
// its name.
func (p *project) nameOf(path string) string {
	rel, err := filepath.Rel(resolved(p.root), resolved(path))
	if err != nil || !filepath.IsLocal(rel) {
		return filepath.Base(path)
	}
	return filepath.ToSlash(rel)
}

// remade is a report that was made anew of its evidence.
type remade struct {
	*slo.Report
	data    []byte // of the file, which the receipt names
	spec    *slo.Spec
	archive *slo.Archive
}

// read returns a file of the report's folder, or of a tree.
type read func(path string) ([]byte, error)

func readSLO(path string) ([]byte, error) { return readBounded(path, maxSLOEvidence) }

// remake reads a report and its evidence, and makes it anew.
func remake(path string, read read, spec func(slo.SpecRef) (*slo.Spec, error)) (*remade, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	claimed, err := slo.Parse(data)
	if err != nil {
		return nil, err
	}
	if claimed.DataSource == slo.FromSimulator {
		return nil, fmt.Errorf("data_source is %s: %w", claimed.DataSource, slo.ErrNotMeasured)
	}
	s, err := spec(claimed.Spec)
	if err != nil {
		return nil, err
	}
	evidence, err := read(filepath.Join(filepath.Dir(path), claimed.Evidence.File))
	if err != nil {
		return nil, fmt.Errorf("its evidence: %w", err)
	}
	report, err := slo.Verify(data, s, evidence)
	if err != nil {
		return nil, err
	}
	archive, err := slo.ParseArchive(evidence)
	return &remade{report, data, s, archive}, err
}

// specOf returns how the spec of a report is found where nobody says which one
// it must be: the file given, or the one that the report names.
func (w *world) specOf(given string) func(slo.SpecRef) (*slo.Spec, error) {
	return func(ref slo.SpecRef) (*slo.Spec, error) {
		path := w.path(given)
		if given == "" {
			if !filepath.IsLocal(filepath.FromSlash(ref.File)) {
				return nil, fmt.Errorf("it names the spec %q: want a file below here; give it with --slo FILE", ref.File)
			}
			root := w.dir
			if repo, err := gitrepo.Open(w.dir); err == nil {
				root = repo.Root()
			}
			path = filepath.Join(root, filepath.FromSlash(ref.File))
		}
		data, err := readBounded(path, maxSLOSpec)
		if err != nil {
			return nil, fmt.Errorf("its spec: %w; give it with --slo FILE", err)
		}
		s, err := slo.ParseSpec(ref.File, data)
		if err != nil {
			return nil, misused("%v", err)
		}
		return s, nil
	}
}

func runSLOVerify(w *world, v *action.Values, r *action.Runner) error {
	if len(v.Args()) != 1 {
		return misused("want one FILE: a report")
	}
	report, err := remake(w.path(v.Args()[0]), readSLO, w.specOf(v.String("slo")))
	if err != nil {
		return fmt.Errorf("%s: refused: %w", v.Args()[0], err)
	}
	if err := w.saySLO(r, report.Report, report.spec.Courses(report.archive, summaryParts)); err != nil {
		return err
	}
	w.say("✅ made anew from %d answers: the report is what they show, byte for byte", report.Evidence.Responses)
	if report.Verdict != slo.Pass {
		return quietly(exitFail)
	}
	return nil
}

func runSLOGate(w *world, v *action.Values, r *action.Runner) error {
	file := v.String("report")
	switch args := v.Args(); {
	case len(args) > 1:
		return misused("want one FILE: a report")
	case len(args) == 1 && v.Given("report"):
		return misused("want FILE or --report, not both")
	case len(args) == 1:
		file = args[0]
	}
	report, in, err := w.sloGate(v, r, file)
	verdict, outputs := "refused", map[string]string{"revision": "", "receipt": ""}
	if err == nil {
		verdict, outputs = strings.ToLower(report.Verdict), map[string]string{"revision": report.Subject.Revision, "receipt": in.id.String()}
	}
	outputs["verdict"] = verdict
	for name, value := range outputs {
		if err := r.SetOutput(name, value); err != nil {
			return err
		}
	}
	if err != nil {
		if r.InActions() {
			r.Annotate(action.Error, "", 0, "slo-gate", "refused: "+err.Error())
		}
		// A configuration that is wrong keeps its own exit status.
		return fmt.Errorf("%s: refused: %w", file, err)
	}
	if err := w.saySLO(r, report.Report, report.spec.Courses(report.archive, summaryParts)); err != nil {
		return err
	}
	w.say("✅ receipt %s is entry %d of the ledger; %s", in.id, in.index, in.audit)
	if report.Verdict != slo.Pass {
		return quietly(exitFail)
	}
	return nil
}

// sloEntry is where a report's receipt stands.
type sloEntry struct {
	id      receipt.ID
	index   int
	audit   string
	project *project
	entries []receipt.Entry // of the whole ledger
}

// sloGate returns what a report is, once everything about it has been verified.
// Every error means that it is refused.
func (w *world) sloGate(v *action.Values, r *action.Runner, file string) (*remade, sloEntry, error) {
	var in sloEntry
	p, err := w.openProject()
	if err != nil {
		return nil, in, err
	}
	if err := w.takeBaseConfig(p, r); err != nil {
		return nil, in, err
	}
	pinned, err := pinnedPolicy(v)
	if err != nil {
		return nil, in, err
	}
	report, err := remake(w.path(file), readSLO, func(claimed slo.SpecRef) (*slo.Spec, error) {
		name := claimed.File
		if given := v.String("slo"); given != "" {
			name = p.nameOf(w.path(given))
		}
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return nil, fmt.Errorf("it names the spec %q: want a file of the repository", name)
		}
		data, where, err := w.fileOfBase(p, name)
		if err != nil {
			return nil, fmt.Errorf("its spec, in %s: %w", where, err)
		}
		s, err := slo.ParseSpec(name, data)
		if err != nil {
			return nil, misused("%s: %v", where, err)
		}
		if s.SHA256() != claimed.SHA256 {
			return nil, fmt.Errorf("%s: it was made of a spec with SHA-256 %s, %s of %s has %s", slo.SpecChanged, claimed.SHA256, name, where, s.SHA256())
		}
		return s, nil
	})
	if err != nil {
		return nil, in, err
	}
	h, err := p.head("HEAD")
	if err != nil {
		return nil, in, err
	}
	audit, err := w.audit(p, h, pinned)
	if err != nil {
		return nil, in, err
	}
	if h.commit.IsZero() || audit.Status() != covenant.Pass || audit.Checkpoint.Note() == nil {
		return nil, in, errors.New("the ledger does not pass its audit, or has not begun: remembrancer verify-audit says more")
	}
	if in.index, in.id, err = sloReceiptIn(audit.Entries, digest(report.data), report.Report); err != nil {
		return nil, in, err
	}
	in.audit, in.project, in.entries = auditLine(h, audit), p, audit.Entries
	if err := w.remember(p, audit); err != nil {
		return nil, in, err
	}
	return report, in, w.sloFit(v, report.Report)
}

// sloReceiptIn finds the receipt of a report among the admitted ones.
func sloReceiptIn(entries []receipt.Entry, sum string, report *slo.Report) (int, receipt.ID, error) {
	for i, e := range entries {
		s := e.Receipt.Subjects()
		if e.Receipt.Kind() != receipt.SLO || len(s) < 3 || s[0].SHA256 != sum || s[1].SHA256 != report.Evidence.SHA256 || s[2].Commit != report.Subject.Revision {
			continue
		}
		artifact := ""
		if len(s) == 4 {
			artifact = "sha256:" + s[3].SHA256
		}
		if len(s) <= 4 && artifact == report.Subject.Artifact && e.Receipt.Field("environment") == report.Subject.Environment {
			return i, e.Receipt.ID(), nil
		}
	}
	return 0, receipt.ID{}, fmt.Errorf("no receipt in the ledger names the SHA-256 %s: commit the one that slo report wrote, and publish it", sum)
}

// sloFit says whether a true report is one to go on with.
func (w *world) sloFit(v *action.Values, report *slo.Report) error {
	if want := v.String("revision"); want != "" && want != report.Subject.Revision {
		return fmt.Errorf("%s: revision %s was measured, want %s", slo.WrongRevision, report.Subject.Revision, want)
	}
	end, err := time.Parse(time.RFC3339, report.Proven.End)
	if err != nil {
		return err
	}
	switch age := w.now().Sub(end); {
	case report.DataSource != slo.FromPrometheus:
		return fmt.Errorf("data_source is %s: no service was measured", report.DataSource)
	case age < -30*time.Second:
		return fmt.Errorf("its window ends at %s, which is not yet", report.Proven.End)
	case v.Duration("max-age") > 0 && age > v.Duration("max-age"):
		return fmt.Errorf("%s: its window ended at %s, %s ago, at most %s is allowed", slo.Stale, report.Proven.End, age.Round(time.Second), v.Duration("max-age"))
	case report.Verdict == slo.Pass && !report.Promotable:
		return fmt.Errorf("it is not promotable: %s", strings.Join(report.Why, "; "))
	}
	return nil
}
