package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
)

var smokeSpec = action.Spec{
	Name: "smoke-gate", Verb: "smoke",
	Summary: "run the smoke test and demand N of N",
	Description: "Runs the smoke command of remembrancer.yaml and passes only when it exits 0, every test passed, " +
		"none was skipped, and there are at least as many as expected. A warning is not a pass unless the configuration says so. " +
		"Where smoke.tests names a file of tests, each of them must be there; the list is that of the base, not of the change. " +
		"With smoke.results the reports that the command writes are judged, with smoke.suite the declared tests are run in its place.\n\n" +
		"With --results it judges the reports of tests (JUnit XML, go test -json, TAP) that an earlier step left behind, " +
		"and runs nothing unless --run says so. With --from it judges a saved output. Where there is a configuration, it sets the floor and names the tests for these as well.",
	Inputs: []action.Input{
		{Name: "from", Kind: action.Path, Usage: "Judge this saved output instead of running the command; - is standard input."},
		{Name: "results", Kind: action.List, Usage: "Judge these reports of tests: patterns below the working directory, ** for any directories, each of which must match a file"},
		{Name: "run", Kind: action.Bool, Usage: "With results: run the smoke command first, which must write them anew."},
		{Name: "expect", Kind: action.Int, Usage: "Least number of tests. It can only raise the configured floor."},
		{Name: "warnings", Choices: []string{"fail", "allow"}, Usage: "Whether a warning counts as a pass, where there is no configuration to say it"},
		{Name: "format", Choices: smoke.Formats(), Usage: "How results are read, for a saved output"},
		{Name: "report", Kind: action.Path, Usage: "Write the unsigned report here, to be handed to the publisher."},
		{Name: "statement", Kind: action.Path, Usage: "Write the result here as an unsigned in-toto statement with a test-result predicate."},
		{Name: "badge-dir", Kind: action.Path, Usage: "Write badge.json and badge.shields.json into this directory."},
		{Name: "write-tests", Kind: action.Path, Usage: "If the run passes, write the names of its tests here, for smoke.tests. The present list is then not demanded.", CLIOnly: true},
		{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON.", CLIOnly: true},
	},
	Outputs: []action.Output{
		{Name: "verdict", Usage: "pass, fail or error."},
		{Name: "passed", Usage: "Number of tests that passed."},
		{Name: "total", Usage: "Number of tests."},
		{Name: "report-sha256", Usage: "SHA-256 of the report's bytes."},
		{Name: "statement-sha256", Usage: "SHA-256 of the statement's bytes, if it was asked for."},
	},
	Examples: []string{"remembrancer smoke", "remembrancer smoke --from smoke.log --expect 27 --json", "remembrancer smoke --results 'reports/**/*.xml'", "remembrancer smoke --write-tests ops/smoke-tests.txt"},
}

var smokeVerb = verb{spec: smokeSpec, run: runSmoke}

func runSmoke(w *world, v *action.Values, r *action.Runner) error {
	var (
		report  smoke.Report
		mode    string
		err     error
		results = testResults{dir: w.dir}
	)
	from, patterns := v.String("from"), v.List("results")
	switch {
	case from != "" && (len(patterns) > 0 || v.Bool("run")):
		return misused("--from judges a saved output alone, without --results or --run")
	case v.Given("results") && len(patterns) == 0:
		return misused("--results is empty: want patterns of reports such as 'reports/**/*.xml'")
	case v.Int("expect") < 0:
		return misused("--expect %d: want 0 or more", v.Int("expect"))
	}
	if v.String("write-tests") != "" {
		if base, err := w.base(); err != nil {
			return err
		} else if !base.IsZero() {
			return misused("--write-tests demands none of the tests that the base names: this is a change, which is judged by them")
		}
	}
	if len(patterns) > 0 {
		if results.files, err = smoke.FindReports(w.dir, patterns); err != nil {
			return misused("--results: %v", err)
		}
	}
	switch {
	case from != "":
		report, mode, err = w.judgeSaved(v, r, from, &results)
	case results.files != nil && !v.Bool("run"):
		report, mode, err = w.judgeReports(v, r, &results)
	default:
		report, mode, err = w.judgeRun(v, r, &results)
	}
	if err != nil {
		return err
	}
	if err := w.handOver(v, r, report, &results); err != nil {
		return err
	}
	if _, err := os.Stat("/bin/sh"); report.Verdict == smoke.Error && err != nil && runtime.GOOS != "windows" {
		w.note("hint: there is no shell here; in the static image only a saved output can be judged (from), the composite form of the action runs commands")
	}
	if r.InActions() {
		if err := r.Summary(smoke.Summary(report) + results.change.Summary()); err != nil {
			return err
		}
		if !v.Bool("json") { // annotations are lines of the same stream
			results.annotate(report, r)
		}
	}
	if v.Bool("json") {
		out, err := json.Marshal(smokeJSON(report, results))
		if err != nil {
			return err
		}
		// A runner finds commands in the middle of a line, too. In JSON this
		// can stand in a string only, where the escape means the same.
		w.say("%s", strings.ReplaceAll(string(out), "##[", `##\u005b`))
	} else {
		said := strings.TrimRight(smoke.Text(report)+results.change.Text(), "\n")
		if r.InActions() {
			said = action.Defang(said)
		}
		w.say("%s", said)
	}
	if mode == config.Advisory && report.Verdict != smoke.Pass {
		w.sayAdvisory(v.Bool("json"))
		return nil
	}
	return quietly(report.Verdict.ExitStatus())
}

// smokeJSON is the verdict for scripts. The counts add up to total; without one
// because nothing could be judged, error is 1.
func smokeJSON(r smoke.Report, t testResults) map[string]any {
	const most = 1000 // of each list; of failing, which carries messages, fewer
	cut := false
	first := func(ids []string) []string {
		cut = cut || len(ids) > most
		return append([]string{}, ids[:min(len(ids), most)]...)
	}
	idsOf := func(cases []smoke.Case) []string {
		var ids []string
		for _, c := range cases {
			ids = append(ids, c.ID)
		}
		return first(ids)
	}
	m := map[string]any{
		"verdict": r.Verdict.String(), "pass": r.Passed, "fail": r.Failed - r.Errored, "error": r.Errored, "skip": r.Skipped, "warn": r.Warned,
		"total": r.Total, "expected": r.Expected, "reasons": r.Reasons,
		"removed": first(t.change.Removed), "newly_failing": idsOf(t.change.NewlyFailing), "flaky": idsOf(t.change.Flaky),
		"named": t.change.Named, "added": t.change.Added,
	}
	if r.Verdict == smoke.Error {
		m["error"] = 1
	}
	if t.files != nil || len(t.suite.Cases) > 0 {
		const most = 100
		failing := t.suite.Wanting()
		list := []map[string]any{}
		for _, c := range failing[:min(len(failing), most)] {
			list = append(list, map[string]any{"id": c.ID, "status": c.Status.String(), "file": c.File, "line": c.Line, "message": c.Message})
		}
		cut = cut || len(failing) > most
		m["failing"], m["format"], m["output_sha256"] = list, r.Format, r.OutputSHA256
	}
	m["truncated"] = cut
	return m
}

// testResults is what is known of the tests beside a verdict. Without reports of
// tests, and where none are named, it adds nothing.
type testResults struct {
	files  *smoke.ReportFiles
	dir    string // the places of failures are looked for here
	suite  smoke.Suite
	raw    []smoke.Material // the reports
	ids    []string         // of the tests, where only the output names them
	change smoke.Change
	config smoke.Material // the configuration that judged
}

// compare holds the tests that ran to those that are expected.
func (t *testResults) compare(e smoke.Expect) {
	if t.ids != nil {
		t.change = e.CompareIDs(t.ids)
		return
	}
	t.change = e.Compare(t.suite)
}

// read reads the reports; see smoke.ReportFiles.Read.
func (t *testResults) read(started time.Time, e smoke.Expect) smoke.Results {
	found := t.files.Read(started)
	t.suite, t.raw = found.Suite, found.Files
	if len(found.Errors) > 0 {
		e.Tests = smoke.Tests{} // what could not be read is not removed
	}
	t.compare(e)
	return found
}

// output remembers which tests an output names.
func (t *testResults) output(read smoke.Reader, stdout []byte, e smoke.Expect) {
	if c, err := read(stdout); err == nil && c.IDs != nil {
		t.ids = c.IDs
		t.compare(e)
	}
}

// names returns the names of all tests that ran, nil if they are not known.
func (t *testResults) names() []string {
	if t.ids != nil {
		return t.ids
	}
	return t.suite.Counts().IDs
}

// annotate says at its place in the code what failed.
func (t testResults) annotate(report smoke.Report, r *action.Runner) {
	note := func(level action.Level, what string, cases []smoke.Case) {
		for i, c := range cases {
			file, line, message := "", 0, strings.TrimSpace(what+c.Message)
			if i < 10 { // of the rest only the number is shown
				file = smoke.Place(t.dir, c.File)
			}
			if file != "" {
				line = c.Line
			} else if c.File != "" {
				message = c.Where() + ": " + message
			}
			r.Annotate(level, file, line, c.ID, message)
		}
	}
	note(action.Warning, "flaky: it passed only when it was run again ", t.change.Flaky)
	switch {
	case report.Verdict == smoke.Pass:
	case len(t.suite.Cases) == 0:
		for _, reason := range report.Reasons {
			r.Annotate(action.Error, "", 0, "smoke-gate", reason)
		}
	default:
		// A step has few annotations; the tests need them more than the reasons.
		r.Annotate(action.Error, "", 0, "smoke-gate", strings.Join(report.Reasons, "\n"))
		note(action.Error, "", slices.Concat(t.change.NewlyFailing, t.change.Failing))
	}
}

// judgeReports judges reports of an earlier step, and runs nothing. Where there
// is a configuration, it says how, for a change that of its base.
func (w *world) judgeReports(v *action.Values, r *action.Runner, t *testResults) (smoke.Report, string, error) {
	if v.Given("format") {
		return smoke.Report{}, "", misused("--format is for a saved output: reports say themselves what they are")
	}
	p, expect, mode, err := w.expectIfAny(v, r, t)
	if err != nil {
		return smoke.Report{}, "", err
	}
	report := smoke.JudgeResults(smoke.FromResults(w.now()), t.read(time.Time{}, expect), expect)
	if p != nil {
		w.nameCommit(p, &report)
	}
	return report, mode, nil
}

// expectIfAny returns what is expected of results that nothing is run for: what
// the flags say, and where there is a configuration (then p is not nil) what it
// says as well.
func (w *world) expectIfAny(v *action.Values, r *action.Runner, t *testResults) (p *project, e smoke.Expect, mode string, err error) {
	e, mode = smoke.Expect{Total: v.Int("expect"), Warnings: v.String("warnings")}, config.Enforce
	if p, err = w.projectIfAny(r); err != nil || p == nil {
		return nil, e, mode, err
	}
	if v.Given("warnings") {
		return nil, e, mode, misused("--warnings is for where there is no configuration: here %s says it", config.FileName)
	}
	e, err = w.demands(v, p, t)
	return p, e, p.cfg.Smoke.Mode, err
}

// demands returns what a project expects, and notes what says so.
func (w *world) demands(v *action.Values, p *project, t *testResults) (e smoke.Expect, err error) {
	if v.String("write-tests") != "" {
		p.cfg.Smoke.Tests = "" // the list is made anew
	}
	data, _, err := w.fileOfBase(p, config.FileName)
	if err != nil {
		return e, err
	}
	t.config = smoke.Material{Name: config.FileName, SHA256: digest(data)}
	return w.expect(p, v.Int("expect"))
}

// expect returns what the configuration demands of a run: its floor, which floor
// can raise and not lower, and the tests that it names.
func (w *world) expect(p *project, floor int) (smoke.Expect, error) {
	c := p.cfg.Smoke
	tests, err := w.namedTests(p)
	return smoke.Expect{Total: max(floor, c.Expect), Warnings: c.Warnings, Tests: tests}, err
}

// namedTests returns the tests that must be there and pass. The list is that of
// the base: a change cannot take a test out of it. Where there is none it is
// that of HEAD; what a person has not committed yet is taken from the work tree.
func (w *world) namedTests(p *project) (smoke.Tests, error) {
	name := p.cfg.Smoke.Tests
	if name == "" {
		return smoke.Tests{}, nil
	}
	data, where, err := w.listOfTests(p, name)
	if errors.Is(err, fs.ErrNotExist) {
		return smoke.Tests{}, fmt.Errorf("%s has no %s, which names the tests that must pass: put it there first, with remembrancer smoke --write-tests %[2]s", where, name)
	}
	if err != nil {
		return smoke.Tests{}, err
	}
	tests, err := smoke.ParseTests(data)
	if err != nil {
		return smoke.Tests{}, misused("%s of %s: %v", name, where, err)
	}
	return tests, nil
}

func (w *world) listOfTests(p *project, name string) (data []byte, where string, err error) {
	base, err := w.configBase(p)
	if err != nil {
		return nil, "", err
	}
	ci := w.getenv("GITHUB_ACTIONS") == "true"
	if base.IsZero() {
		head, err := p.repo.Resolve("HEAD")
		if err == nil {
			t, err := p.repo.TreeAt(head)
			if err != nil {
				return nil, "", err
			}
			data, err = t.Blob(name)
			if err == nil || ci || !errors.Is(err, fs.ErrNotExist) {
				return data, "commit " + head.String()[:12], err
			}
		} else if ci {
			return nil, "", err
		}
	}
	return w.fileOfBase(p, name)
}

// fileOfBase reads a file of the commit that a change is judged by; where there
// is no change, of the work tree.
func (w *world) fileOfBase(p *project, name string) (data []byte, where string, err error) {
	base, err := w.configBase(p)
	if err != nil {
		return nil, "", err
	}
	if base.IsZero() {
		path, err := p.file(name)
		if err != nil {
			return nil, "", err
		}
		data, err = os.ReadFile(path)
		return data, "the work tree", err
	}
	t, err := p.repo.TreeAt(base)
	if err != nil {
		return nil, "", fmt.Errorf("the base commit, whose configuration judges this change, is not here: %w; check out with fetch-depth: 0", err)
	}
	data, err = t.Blob(name)
	return data, "base " + base.String(), err
}

// projectIfAny returns the project around the working directory; nil when there
// is no repository, or one without a configuration. A change cannot rid itself
// of one: its base is asked whatever the work tree has.
func (w *world) projectIfAny(r *action.Runner) (*project, error) {
	repo, err := gitrepo.Open(w.dir)
	if errors.Is(err, gitrepo.ErrNoGit) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := &project{repo: repo, root: repo.Root()}
	if _, err = os.Stat(filepath.Join(p.root, config.FileName)); err == nil {
		if p, err = w.openProject(); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := w.takeBaseConfig(p, r); err != nil {
		return nil, err
	}
	if p.cfg.Smoke.Mode == "" {
		return nil, nil
	}
	return p, nil
}

// judgeSaved judges an output that somebody saved, and runs nothing. Where there
// is a configuration, it says how, for a change that of its base.
func (w *world) judgeSaved(v *action.Values, r *action.Runner, from string, t *testResults) (smoke.Report, string, error) {
	p, expect, mode, err := w.expectIfAny(v, r, t)
	if err != nil {
		return smoke.Report{}, "", err
	}
	format := v.String("format")
	switch {
	case format == "" && p != nil:
		format = p.cfg.Smoke.Format
	case format == "":
		format = smoke.Formats()[0]
	}
	read, err := smoke.ReaderFor(format)
	if err != nil {
		return smoke.Report{}, "", misused("%v", err)
	}
	const limit = 64<<20 + 1
	var out []byte
	if from == "-" {
		out, err = io.ReadAll(io.LimitReader(w.stdin, limit))
	} else {
		var f *os.File
		if f, err = os.Open(w.path(from)); err == nil {
			defer f.Close()
			out, err = io.ReadAll(io.LimitReader(f, limit))
		}
	}
	if err != nil {
		return smoke.Report{}, "", err
	}
	t.output(read, out, expect)
	return smoke.JudgeOutput(smoke.FromOutput(out, w.now()), read, expect), mode, nil
}

func (w *world) judgeRun(v *action.Values, r *action.Runner, t *testResults) (smoke.Report, string, error) {
	if err := w.refuseSecrets(); err != nil {
		return smoke.Report{}, "", err
	}
	p, err := w.openProject()
	if err != nil {
		return smoke.Report{}, "", err
	}
	if err := w.takeBaseConfig(p, r); err != nil {
		return smoke.Report{}, "", err
	}
	if v.Given("warnings") || v.Given("format") {
		return smoke.Report{}, "", misused("--warnings and --format are for a saved output: for a run, %s says them", config.FileName)
	}
	if _, err := w.demands(v, p, t); err != nil {
		return smoke.Report{}, "", err
	}
	out, err := r.Untrusted(w.stderr)
	if err != nil {
		return smoke.Report{}, "", err
	}
	report, err := w.smoke(p, out, v.Int("expect"), t)
	return report, p.cfg.Smoke.Mode, errors.Join(err, out.Close())
}

// refuseSecrets refuses to run a command in a job that has secrets to steal.
func (w *world) refuseSecrets() error {
	name := w.getenv("GITHUB_EVENT_NAME")
	if name == "pull_request_target" || name == "workflow_run" {
		return misused("event %s gives a job secrets, and the smoke command may be a stranger's: run it on pull_request, or judge a saved output with smoke --from", name)
	}
	return nil
}

// configBase returns the commit whose configuration judges: a change's base, and
// where a branch was pushed to, what it was at before, so that a push is judged
// by what judged its changes. It is zero where the commit itself is all there is:
// on other events, for a new branch, and where the covenant begins with the push.
func (w *world) configBase(p *project) (gitrepo.Hash, error) {
	base, err := w.base()
	if err != nil || !base.IsZero() || w.getenv("GITHUB_EVENT_NAME") != "push" || w.getenv("GITHUB_EVENT_PATH") == "" {
		return base, err
	}
	r := action.NewRunner(w.getenv, io.Discard, w.rand, smokeSpec) // to read the event with
	if !r.InActions() {
		return base, nil
	}
	e, err := r.Event()
	if err != nil {
		return base, err
	}
	payload, err := e.Payload()
	if err != nil {
		return base, err
	}
	text := gjson.GetBytes(payload, "before").String()
	if text == "" { // what was pushed is no branch
		return base, nil
	}
	before, err := gitrepo.ParseHash(text)
	if err != nil || before.IsZero() {
		return gitrepo.Hash{}, err
	}
	t, err := p.repo.TreeAt(before)
	if err != nil {
		return gitrepo.Hash{}, fmt.Errorf("the commit before this push, whose configuration judges it, is not here: %w; check out with fetch-depth: 0", err)
	}
	if _, err := t.Blob(config.FileName); errors.Is(err, fs.ErrNotExist) {
		return gitrepo.Hash{}, nil
	}
	return before, err
}

// base returns the commit that a change is judged by; zero where none is judged.
func (w *world) base() (gitrepo.Hash, error) {
	field := map[string]string{"pull_request": "pull_request.base.sha", "merge_group": "merge_group.base_sha"}[w.getenv("GITHUB_EVENT_NAME")]
	r := action.NewRunner(w.getenv, io.Discard, w.rand, smokeSpec) // to read the event with
	if field == "" || !r.InActions() {
		return gitrepo.Hash{}, nil
	}
	e, err := r.Event()
	if err != nil {
		return gitrepo.Hash{}, err
	}
	payload, err := e.Payload()
	if err != nil {
		return gitrepo.Hash{}, err
	}
	base, err := gitrepo.ParseHash(gjson.GetBytes(payload, field).String())
	if err != nil {
		return gitrepo.Hash{}, fmt.Errorf("event %s: %s: %w", e.Name, field, err)
	}
	return base, nil
}

// takeBaseConfig replaces the configuration of a change by that of its base: a
// change must not choose how it is judged.
func (w *world) takeBaseConfig(p *project, _ *action.Runner) error {
	base, err := w.configBase(p)
	if err != nil || base.IsZero() {
		return err
	}
	data, _, err := w.fileOfBase(p, config.FileName)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("base %s has no %s to judge this change by: put it on the base branch first, with remembrancer init", base, config.FileName)
	}
	if err != nil {
		return err
	}
	if p.cfg, err = config.Parse(config.FileName+" of the base", data); err != nil {
		return misused("%v", err)
	}
	p.layout = covenant.Layout{Ops: p.cfg.Paths.Ops, Docs: p.cfg.Paths.Docs}
	return nil
}

// smoke runs and judges the configured command, by the reports that it writes if
// t or the configuration asks for any; or the configured suite in its place.
// floor can raise the configured number of tests, not lower it.
func (w *world) smoke(p *project, out io.Writer, floor int, t *testResults) (smoke.Report, error) {
	c := p.cfg.Smoke
	expect, err := w.expect(p, floor)
	if err != nil {
		return smoke.Report{}, err
	}
	switch {
	case c.Suite != "" && t.files != nil:
		return smoke.Report{}, misused("--results judges what the smoke command writes, and %s names a suite in its place", config.FileName)
	case c.Suite != "":
		report, err := w.suiteReport(p, out, floor, t)
		if err != nil {
			return smoke.Report{}, err
		}
		t.dir = p.root
		t.compare(expect)
		return report.Under(expect), nil
	case t.files == nil && len(c.Results) > 0:
		t.dir = p.root
		if t.files, err = smoke.FindReports(p.root, c.Results); err != nil {
			return smoke.Report{}, misused("%s: smoke.results: %v", config.FileName, err)
		}
	}
	if t.files != nil {
		if err := t.files.Mark(); err != nil {
			return smoke.Report{}, err
		}
	}
	read, err := smoke.ReaderFor(c.Format)
	if err != nil {
		return smoke.Report{}, misused("%v", err)
	}
	command := smoke.Command{Argv: c.Run.Argv, Shell: c.Run.Shell, Dir: p.root, Env: smokeSpec.ChildEnv(w.childEnviron()), Timeout: c.Timeout}
	x, err := smoke.Run(w.ctx, command, out, smoke.Options{Workspace: p.root, Now: w.now})
	if err != nil {
		return smoke.Report{}, misused("%v", err)
	}
	var report smoke.Report
	if t.files != nil {
		report = smoke.JudgeResults(x, t.read(x.Started, expect), expect)
	} else {
		t.output(read, x.Stdout, expect)
		report = smoke.JudgeOutput(x, read, expect)
	}
	w.nameCommit(p, &report)
	return report, nil
}

// nameCommit says in a report what was tested, where that is known.
func (w *world) nameCommit(p *project, report *smoke.Report) {
	if commit, err := p.repo.Resolve("HEAD"); err == nil {
		report.Commit = commit.String()
	} else if !errors.Is(err, gitrepo.ErrNoGit) {
		w.note("note: the report names no commit: %v", err)
	}
}

// childEnviron is the environment without keys: a smoke command never needs one.
func (w *world) childEnviron() []string {
	var kept []string
	for _, kv := range w.environ {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "REMEMBRANCER_SIGNING_KEY", "REMEMBRANCER_PASSPHRASE", "REMEMBRANCER_LOG_KEY", "REMEMBRANCER_TOKEN":
			continue
		}
		kept = append(kept, kv)
	}
	return kept
}

// handOver writes the report, the statement, the badges and the list of tests
// where they were asked for, and gives the outputs.
func (w *world) handOver(v *action.Values, r *action.Runner, report smoke.Report, t *testResults) error {
	put := func(path string, data []byte) error {
		if err := durable.Put(path, data, 0o644); err != nil || !r.InActions() {
			return err
		}
		// What root in a container leaves behind, the runner cannot clean up.
		return giveToOwnerOf(w.getenv("GITHUB_WORKSPACE"), path)
	}
	encoded, err := smoke.EncodeReport(report)
	if err != nil {
		return err
	}
	outputs := map[string]string{
		"verdict": report.Verdict.String(), "passed": fmt.Sprint(report.Passed), "total": fmt.Sprint(report.Total), "report-sha256": digest(encoded),
	}
	if path := v.String("report"); path != "" {
		if err := put(w.path(path), encoded); err != nil {
			return err
		}
	}
	if path := v.String("statement"); path != "" {
		url, err := runURL(r)
		if err != nil {
			return err
		}
		statement, err := smoke.Statement(report, smoke.Evidence{Suite: t.suite, IDs: t.ids, Change: t.change, Config: t.config, Files: t.raw, URL: url})
		if err != nil {
			return err
		}
		if err := put(w.path(path), statement); err != nil {
			return err
		}
		outputs["statement-sha256"] = digest(statement)
	}
	if dir := v.String("badge-dir"); dir != "" {
		for name, data := range map[string][]byte{"badge.json": smoke.Badge(report), "badge.shields.json": smoke.ShieldsBadge(report)} {
			if err := put(filepath.Join(w.path(dir), name), data); err != nil {
				return err
			}
		}
	}
	switch path := v.String("write-tests"); {
	case path == "":
	case report.Verdict != smoke.Pass:
		w.note("%s is not written: only a run that passes names the tests that must", path)
	default:
		tests, err := smoke.NewTests(t.names())
		if err != nil {
			return fmt.Errorf(`--write-tests: %w: print the names as "ids" of the SMOKE_JSON line, or let the tests write a report (JUnit, go test -json, TAP)`, err)
		}
		if err := put(w.path(path), tests.Bytes()); err != nil {
			return err
		}
		w.note("%s names %d tests; %s demands them when smoke.tests is its path", path, tests.Len(), config.FileName)
	}
	for name, value := range outputs {
		if err := r.SetOutput(name, value); err != nil {
			return err
		}
	}
	return nil
}

// runURL returns where a person finds the run; "" without a runner.
func runURL(r *action.Runner) (string, error) {
	if !r.InActions() {
		return "", nil
	}
	e, err := r.Event()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s/%s/actions/runs/%d/attempts/%d", e.ServerURL, e.Repository, e.RunID, e.RunAttempt), nil
}

// path makes a path a person gave relative to the working directory.
func (w *world) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(w.dir, p)
}
