package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/chart"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/slo"
)

var sloRulesVerb = verb{
	spec: action.Spec{
		Verb: "slo rules", Summary: "write Prometheus rules and alerts, made of an SLO spec",
		Description: "The same file that reports are judged by makes the recording rules and the burn-rate alerts, so that no threshold is written twice. Without --out they go to standard output.",
		Inputs: []action.Input{
			{Name: "slo", Kind: action.Path, Required: true, Usage: "The spec, in OpenSLO's format."},
			{Name: "out", Kind: action.Path, Usage: "Where to write the rules; standard output when left out."},
		},
		Examples: []string{"remembrancer slo rules --slo slo.yaml --out slo.rules.yaml"},
	},
	run: func(w *world, v *action.Values, r *action.Runner) error {
		return w.generated(v, r, (*slo.Spec).Rules)
	},
}

var sloDashboardVerb = verb{
	spec: action.Spec{
		Verb: "slo dashboard", Summary: "write a Grafana dashboard, made of an SLO spec",
		Description: "Writes the dashboard as Grafana imports it: its limits are those of the spec, its datasource is a variable, its uid is fixed. " +
			"With --provisioning it also writes what a Grafana reads at its start from /etc/grafana/provisioning: the datasource, the provider and the dashboard.",
		Inputs: []action.Input{
			{Name: "slo", Kind: action.Path, Required: true, Usage: "The spec, in OpenSLO's format."},
			{Name: "out", Kind: action.Path, Usage: "Where to write the dashboard; standard output when left out."},
			{Name: "provisioning", Kind: action.Path, Usage: "Directory to write the provisioning files to."},
			{Name: "prometheus", Default: "http://prometheus:9090", Usage: "Where Grafana finds Prometheus; of the provisioning files only."},
		},
		Examples: []string{"remembrancer slo dashboard --slo slo.yaml --provisioning grafana/"},
	},
	run: runSLODashboard,
}

var sloPictureVerb = verb{
	spec: action.Spec{
		Verb: "slo picture", Summary: "draw the dashboard as PNG or SVG", Args: "[REPORT]",
		Description: "Draws the panels of the dashboard. Of a REPORT, or its refusal, from the answers in its evidence, offline, after making it anew; with --prometheus from what that server answers now about the report's window. " +
			"Without a REPORT, from a Prometheus, over the window that ends now: such a picture shows no verdict.\n\n" +
			"The picture says who drew it and from what; what was not measured of a service is named across it. " +
			"A panel without data is an error, and then no picture is written.",
		Inputs: slices.Concat([]action.Input{
			{Name: "out", Kind: action.Path, Required: true, Usage: "Where to write the picture; its name ends with .png or .svg."},
			{Name: "slo", Kind: action.Path, Usage: "The spec; the file that REPORT names when left out."},
			{Name: "window", Usage: "How far to look back without a REPORT; as the spec says when left out."},
			{Name: "width", Kind: action.Int, Default: "1920", Usage: "Width in pixels, from 280 to 7680; below 700 the panels stand one below the other."},
			{Name: "theme", Default: "light", Choices: []string{"light", "dark", "auto"}, Usage: "Colours; auto, of an SVG, follows its reader's device."},
			{
				Name: "source", Default: slo.FromPrometheus, Choices: []string{slo.FromPrometheus, slo.FromBackfill},
				Usage: "Where the data of a picture without REPORT come from; synthetic-backfill is named in the picture.",
			},
		}, prometheusInputs()),
		Exit:     "3 when a panel has no data, or the report is not what its evidence shows.",
		Examples: []string{"remembrancer slo picture canary_slo_report.json --out canary_slo_report.png"},
	},
	run: runSLOPicture,
}

// specHere reads a spec as it lies here, by its path in the repository around it:
// what is made of it is to be the same wherever the repository is.
func (w *world) specHere(file string) (*slo.Spec, error) {
	path := w.path(file)
	data, err := readBounded(path, maxSLOSpec)
	if err != nil {
		return nil, misused("--slo: %v", err)
	}
	name := filepath.Base(path)
	if repo, err := gitrepo.Open(w.dir); err == nil {
		if rel, err := filepath.Rel(resolved(repo.Root()), resolved(path)); err == nil && filepath.IsLocal(rel) {
			name = filepath.ToSlash(rel)
		}
	}
	s, err := slo.ParseSpec(name, data)
	if err != nil {
		return nil, misused("%v", err)
	}
	return s, nil
}

// generated writes what is made of nothing but the spec.
func (w *world) generated(v *action.Values, r *action.Runner, of func(*slo.Spec) ([]byte, error)) error {
	if len(v.Args()) > 0 {
		return misused("unexpected argument %q", v.Args()[0])
	}
	s, err := w.specHere(v.String("slo"))
	if err != nil {
		return err
	}
	data, err := of(s)
	if err != nil {
		return misused("%v", err)
	}
	if v.String("out") == "" {
		_, err := w.stdout.Write(data)
		return err
	}
	if err := w.putSLO(r, w.path(v.String("out")), data); err != nil {
		return err
	}
	w.say("%s", v.String("out"))
	return nil
}

func runSLODashboard(w *world, v *action.Values, r *action.Runner) error {
	dir := v.String("provisioning")
	if dir == "" {
		if v.Given("prometheus") {
			return misused("--prometheus is of the provisioning files: want --provisioning DIR")
		}
		return w.generated(v, r, (*slo.Spec).Dashboard)
	}
	if v.String("out") != "" {
		if err := w.generated(v, r, (*slo.Spec).Dashboard); err != nil {
			return err
		}
	} else if len(v.Args()) > 0 {
		return misused("unexpected argument %q", v.Args()[0])
	}
	s, err := w.specHere(v.String("slo"))
	if err != nil {
		return err
	}
	files, err := s.Provisioning(v.String("prometheus"))
	if err != nil {
		return misused("--prometheus: %v", err)
	}
	out, err := durable.CreateDir(w.path(dir))
	if err != nil {
		return err
	}
	defer out.Close()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := out.Put(name, files[name]); err != nil {
			return err
		}
		w.say("%s", filepath.ToSlash(filepath.Join(dir, name)))
	}
	return nil
}

var themes = map[string]chart.Theme{"light": chart.Light, "dark": chart.Dark, "auto": chart.Auto}

func runSLOPicture(w *world, v *action.Values, r *action.Runner) error {
	out := w.path(v.String("out"))
	var draw func(*chart.Board, chart.Options) ([]byte, error)
	switch strings.ToLower(filepath.Ext(out)) {
	case ".png":
		draw = (*chart.Board).PNG
		if v.String("theme") == "auto" {
			return misused("--theme auto is of an SVG: a PNG has one theme")
		}
	case ".svg":
		draw = (*chart.Board).SVG
	default:
		return misused("--out %s: want a name that ends with .png or .svg", v.String("out"))
	}
	if n := v.Int("width"); n < 280 || n > 7680 {
		return misused("--width %d: want 280 to 7680", n)
	}
	var b *chart.Board
	var err error
	switch args := v.Args(); len(args) {
	case 0:
		b, err = w.pictureOfNow(v)
	case 1:
		for _, flag := range []string{"window", "source"} {
			if v.Given(flag) {
				return misused("--%s is of a picture without REPORT: the report has its own", flag)
			}
		}
		if b, err = w.pictureOf(v, args[0]); err != nil && exitCode(err) == exitUnjudged {
			err = fmt.Errorf("%s: %w", args[0], err)
		}
	default:
		return misused("want one REPORT")
	}
	if err != nil {
		return err
	}
	if missing := b.Missing(); len(missing) > 0 {
		for _, text := range missing {
			w.say("🚫 no data: %s", action.Defang(text))
		}
		return fmt.Errorf("%d of %d panels have no data: no picture is written", len(missing), len(b.Panels))
	}
	data, err := draw(b, chart.Options{Width: v.Int("width"), Theme: themes[v.String("theme")]})
	if err != nil {
		return err
	}
	if err := w.putSLO(r, out, data); err != nil {
		return err
	}
	w.say("%s: %d panels%s", v.String("out"), len(b.Panels), strings.TrimSuffix("; "+b.Badge.Text, "; "))
	return nil
}

// fetch asks a server one query.
type fetch func(context.Context, slo.Query) slo.Response

// ask asks all of them, as far as there is somebody who answers.
func (w *world) ask(get fetch, queries []slo.Query) (all []slo.Response) {
	for _, q := range queries {
		r := get(w.ctx, q)
		r.Query = q
		all = append(all, r)
		if r.Status == 0 {
			break
		}
	}
	return all
}

// pictureOfNow draws what a server says of the window that ends now.
func (w *world) pictureOfNow(v *action.Values) (*chart.Board, error) {
	if v.String("slo") == "" {
		return nil, misused("want a REPORT, or --slo FILE and --prometheus URL")
	}
	s, err := w.specHere(v.String("slo"))
	if err != nil {
		return nil, err
	}
	window := s.Window()
	if text := v.String("window"); text != "" {
		if window, err = slo.ParseDuration(text); err != nil {
			return nil, misused("--window: %v", err)
		}
	}
	// A picture is of no revision; all else must be as for a report.
	if err := s.CheckAsk(slo.Ask{Window: window, Revision: strings.Repeat("0", 40)}); err != nil {
		return nil, misused("%v", err)
	}
	client, err := w.prometheus(v)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	end, err := s.ServerEnd(client.Fetch(w.ctx, s.First()[0]))
	if err != nil {
		return nil, err
	}
	return s.Board(slo.View{
		Window: window, End: end, Source: v.String("source"),
		Caption: fmt.Sprintf("Rendered by Remembrancer from what a Prometheus answered at %s, not by Grafana; kept nowhere, and judged by nobody. Window %s, data_source %s. Spec %s, SHA-256 %.12s…. Hatched: time without data.",
			w.now().UTC().Format(time.RFC3339), slo.FormatDuration(window), v.String("source"), s.Name(), s.SHA256()),
	}, w.ask(client.Fetch, s.PanelQueries(window, end))), w.ctx.Err()
}

// pictureOf draws a report, or a refusal, that was made anew.
func (w *world) pictureOf(v *action.Values, file string) (*chart.Board, error) {
	path := w.path(file)
	data, err := readBounded(path, maxSLOReport)
	if err != nil {
		return nil, err
	}
	spec := w.specOf(v.String("slo"))
	var d drawable
	if refusal, bad := slo.ParseRefusal(data); bad == nil {
		d, err = refusedOf(path, readSLO, refusal, data, spec)
	} else {
		report, bad := slo.Parse(data)
		if bad != nil {
			return nil, bad
		}
		if report.DataSource == slo.FromSimulator {
			if v.String("prometheus") != "" {
				return nil, misused("--prometheus: %s is of a simulator, which no server knows", file)
			}
			return slo.Card(report, captionOf(report.Evidence, report.Window, report.DataSource)), nil
		}
		var m *remade
		if m, err = remake(path, readSLO, spec); err == nil {
			d = drawable{spec: m.spec, archive: m.archive, report: m.Report}
		}
	}
	if err != nil {
		return nil, err
	}
	if v.String("prometheus") == "" {
		if len(d.archive.Panels) == 0 {
			return nil, errors.New("its evidence has no answers to draw from: give a server that still has the data, with --prometheus URL")
		}
		return d.board()
	}
	client, err := w.prometheus(v)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return d.live(w, client.Fetch)
}

// drawable is a report, or a refusal, with what it was made of.
type drawable struct {
	spec    *slo.Spec
	archive *slo.Archive
	report  *slo.Report
	refusal *slo.Refusal
}

// refusedOf makes a refusal anew.
func refusedOf(path string, read read, claimed *slo.Refusal, data []byte, spec func(slo.SpecRef) (*slo.Spec, error)) (d drawable, err error) {
	if d.spec, err = spec(claimed.Spec); err != nil {
		return d, err
	}
	evidence, err := read(filepath.Join(filepath.Dir(path), claimed.Evidence.File))
	if err != nil {
		return d, fmt.Errorf("its evidence: %w", err)
	}
	if d.refusal, err = slo.VerifyRefusal(data, d.spec, evidence); err != nil {
		return d, err
	}
	d.archive, err = slo.ParseArchive(evidence)
	return d, err
}

// view is what the picture says beside its data. The window is the one that was
// measured, to the second.
func (d drawable) view() (slo.View, error) {
	v := slo.View{Report: d.report, Refusal: d.refusal}
	var err error
	if v.Window, err = slo.ParseDuration(d.archive.Window); err != nil {
		return v, err
	}
	if len(d.archive.Responses) == 0 {
		return v, errors.New("its evidence does not say what the server's clock was")
	}
	if v.End, err = d.spec.ServerEnd(d.archive.Responses[0]); err != nil {
		return v, err
	}
	words := []string{"revision " + d.archive.Revision[:12]}
	if d.archive.Environment != "" {
		words = append([]string{d.archive.Environment}, words...)
	}
	if d.archive.Artifact != "" {
		words = append(words, "artifact "+d.archive.Artifact[:len("sha256:")+12])
	}
	if d.report != nil && d.report.Server != nil && d.report.Server.Version != "" {
		words = append(words, "Prometheus "+d.report.Server.Version)
	}
	v.Subtitle = strings.Join(words, ", ")
	return v, nil
}

func (d drawable) evidence() (*slo.Evidence, string) {
	if d.refusal != nil {
		return d.refusal.Evidence, d.refusal.DataSource
	}
	return d.report.Evidence, d.report.DataSource
}

func captionOf(e *slo.Evidence, window, source string) string {
	return fmt.Sprintf("Rendered by Remembrancer from %s (SHA-256 %.12s…), not by Grafana. Window %s, data_source %s. Hatched: time without data.", e.File, e.SHA256, window, source)
}

// board draws from the evidence alone.
func (d drawable) board() (*chart.Board, error) {
	v, err := d.view()
	if err != nil {
		return nil, err
	}
	e, source := d.evidence()
	v.Caption = captionOf(e, d.archive.Window, source)
	return d.spec.Board(v, d.archive.Panels), nil
}

// live draws the report's window from what a server answers now.
func (d drawable) live(w *world, fetch fetch) (*chart.Board, error) {
	v, err := d.view()
	if err != nil {
		return nil, err
	}
	_, source := d.evidence()
	v.Caption = fmt.Sprintf("Rendered by Remembrancer from what a Prometheus answered at %s about the report's window, not by Grafana. Window %s, data_source %s. Hatched: time without data.",
		w.now().UTC().Format(time.RFC3339), d.archive.Window, source)
	return d.spec.Board(v, w.ask(fetch, d.spec.PanelQueries(v.Window, v.End))), w.ctx.Err()
}

// summaryParts is how many values of a course a job summary shows.
const summaryParts = 48

// sparkline is the course of one objective, for a cell of a table.
func sparkline(courses []slo.Course, key string) string {
	for _, c := range courses {
		if c.Key == key {
			return "`" + chart.Sparkline(c.Worst, c.Threshold) + "`"
		}
	}
	return "not kept"
}

// diagrams are the courses for a page that takes no pictures.
func diagrams(courses []slo.Course) string {
	var b strings.Builder
	for _, c := range courses {
		part := c.Part.Round(time.Second).String()
		if gaps := len(slices.DeleteFunc(slices.Clone(c.Worst), func(f float64) bool { return !math.IsNaN(f) })); gaps > 0 {
			fmt.Fprintf(&b, "\n`%s`: no diagram, because %d of %d parts of %s have no data.\n", c.Key, gaps, len(c.Worst), part)
			continue
		}
		text, err := chart.Mermaid(
			fmt.Sprintf("%s: the worst of each %s, wanted %s %g", c.Key, part, sloWords[c.Op], c.Threshold),
			fmt.Sprintf("%d parts of %s, oldest first", len(c.Worst), part), c.Unit, c.Worst, c.Threshold,
		)
		if err != nil {
			fmt.Fprintf(&b, "\n`%s`: no diagram: %s\n", c.Key, action.EscapeMarkdown(err.Error()))
			continue
		}
		fmt.Fprintf(&b, "\n```mermaid\n%s```\n", text)
	}
	return b.String()
}
