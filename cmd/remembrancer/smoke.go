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
		"none was skipped, and there are at least as many as expected. A warning is not a pass unless the configuration says so.\n\n" +
		"With --results it judges the reports of tests (JUnit XML, go test -json, TAP) that an earlier step left behind, " +
		"and runs nothing unless --run says so. With --from it judges a saved output.",
	Inputs: []action.Input{
		{Name: "from", Kind: action.Path, Usage: "Judge this saved output instead of running the command; - is standard input."},
		{Name: "results", Kind: action.List, Usage: "Judge these reports of tests: patterns below the working directory, ** for any directories, each of which must match a file"},
		{Name: "run", Kind: action.Bool, Usage: "With results: run the smoke command first, which must write them anew."},
		{Name: "expect", Kind: action.Int, Usage: "Least number of tests. It can only raise the configured floor."},
		{Name: "warnings", Choices: []string{"fail", "allow"}, Usage: "Whether a warning counts as a pass, for a saved output"},
		{Name: "format", Choices: smoke.Formats(), Usage: "How results are read, for a saved output"},
		{Name: "report", Kind: action.Path, Usage: "Write the unsigned report here, to be handed to the publisher."},
		{Name: "badge-dir", Kind: action.Path, Usage: "Write badge.json and badge.shields.json into this directory."},
		{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON.", CLIOnly: true},
	},
	Outputs: []action.Output{
		{Name: "verdict", Usage: "pass, fail or error."},
		{Name: "passed", Usage: "Number of tests that passed."},
		{Name: "total", Usage: "Number of tests."},
		{Name: "report-sha256", Usage: "SHA-256 of the report's bytes."},
	},
	Examples: []string{"remembrancer smoke", "remembrancer smoke --from smoke.log --expect 27 --json", "remembrancer smoke --results 'reports/**/*.xml'"},
}

var smokeVerb = verb{spec: smokeSpec, run: runSmoke}

func runSmoke(w *world, v *action.Values, r *action.Runner) error {
	var (
		report  smoke.Report
		results testResults
		mode    = config.Enforce
		err     error
	)
	from, patterns := v.String("from"), v.List("results")
	switch {
	case from != "" && (len(patterns) > 0 || v.Bool("run")):
		return misused("--from judges a saved output alone, without --results or --run")
	case v.Given("results") && len(patterns) == 0:
		return misused("--results is empty: want patterns of reports such as 'reports/**/*.xml'")
	case len(patterns) > 0:
		if results.files, err = smoke.FindReports(w.dir, patterns); err != nil {
			return misused("--results: %v", err)
		}
	}
	switch {
	case from != "":
		report, err = w.judgeSaved(v, from)
	case results.files != nil && !v.Bool("run"):
		report, mode, err = w.judgeReports(v, r, &results)
	default:
		report, mode, err = w.judgeRun(v, r, &results)
	}
	if err != nil {
		return err
	}
	encoded, err := smoke.EncodeReport(report)
	if err != nil {
		return err
	}
	if err := w.handOver(v, r, report, encoded); err != nil {
		return err
	}
	if _, err := os.Stat("/bin/sh"); report.Verdict == smoke.Error && err != nil && runtime.GOOS != "windows" {
		w.note("hint: there is no shell here; in the static image only a saved output can be judged (from), the composite form of the action runs commands")
	}
	for name, value := range map[string]string{
		"verdict": report.Verdict.String(), "passed": fmt.Sprint(report.Passed), "total": fmt.Sprint(report.Total), "report-sha256": digest(encoded),
	} {
		if err := r.SetOutput(name, value); err != nil {
			return err
		}
	}
	if r.InActions() {
		if err := r.Summary(smoke.Summary(report) + results.suite.Summary()); err != nil {
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
		said := strings.TrimRight(smoke.Text(report)+results.suite.Text(), "\n")
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
	m := map[string]any{
		"verdict": r.Verdict.String(), "pass": r.Passed, "fail": r.Failed - r.Errored, "error": r.Errored, "skip": r.Skipped, "warn": r.Warned,
		"total": r.Total, "expected": r.Expected, "reasons": r.Reasons,
	}
	if r.Verdict == smoke.Error {
		m["error"] = 1
	}
	if t.files != nil {
		const most = 100
		failing, flaky := t.suite.Wanting(), t.suite.Flaky()
		list := []map[string]any{}
		for _, c := range failing[:min(len(failing), most)] {
			list = append(list, map[string]any{"id": c.ID, "status": c.Status.String(), "file": c.File, "line": c.Line, "message": c.Message})
		}
		m["failing"], m["flaky"], m["format"], m["output_sha256"] = list, len(flaky), r.Format, r.OutputSHA256
	}
	return m
}

// testResults is what reports of tests add to a verdict. Without reports it is
// zero, and adds nothing.
type testResults struct {
	files *smoke.ReportFiles
	suite smoke.Suite
}

// annotate says at its place in the code what failed.
func (t testResults) annotate(report smoke.Report, r *action.Runner) {
	if report.Verdict == smoke.Pass {
		return
	}
	if t.files == nil {
		for _, reason := range report.Reasons {
			r.Annotate(action.Error, "", 0, "smoke-gate", reason)
		}
		return
	}
	// A step has few annotations; the tests need them more than the reasons.
	r.Annotate(action.Error, "", 0, "smoke-gate", strings.Join(report.Reasons, "\n"))
	for i, c := range t.suite.Wanting() {
		file, line, message := "", 0, c.Message
		if i < 10 { // of the rest only the number is shown
			file = t.files.Place(c.File)
		}
		if file != "" {
			line = c.Line
		} else if c.File != "" {
			message = c.Where() + ": " + message
		}
		r.Annotate(action.Error, file, line, c.ID, message)
	}
}

// judgeReports judges reports of an earlier step, and runs nothing. Where there
// is a configuration, it says how, for a change that of its base.
func (w *world) judgeReports(v *action.Values, r *action.Runner, t *testResults) (smoke.Report, string, error) {
	if v.Given("format") {
		return smoke.Report{}, "", misused("--format is for a saved output: reports say themselves what they are")
	}
	expect, mode := smoke.Expect{Total: v.Int("expect"), Warnings: v.String("warnings")}, config.Enforce
	if expect.Total < 0 {
		return smoke.Report{}, "", misused("--expect %d: want 0 or more", expect.Total)
	}
	p, err := w.projectIfAny(r)
	if err != nil {
		return smoke.Report{}, "", err
	}
	if p != nil {
		if v.Given("warnings") {
			return smoke.Report{}, "", misused("--warnings is for where there is no configuration: here %s says it", config.FileName)
		}
		expect = smoke.Expect{Total: max(expect.Total, p.cfg.Smoke.Expect), Warnings: p.cfg.Smoke.Warnings}
		mode = p.cfg.Smoke.Mode
	}
	found := t.files.Read(time.Time{})
	t.suite = found.Suite
	report := smoke.JudgeResults(smoke.FromResults(w.now()), found, expect)
	if p != nil {
		w.nameCommit(p, &report)
	}
	return report, mode, nil
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

func (w *world) judgeSaved(v *action.Values, from string) (smoke.Report, error) {
	expect := smoke.Expect{Total: v.Int("expect"), Warnings: v.String("warnings")}
	format := v.String("format")
	if format == "" {
		format = "auto"
	}
	read, err := smoke.ReaderFor(format)
	if err != nil {
		return smoke.Report{}, misused("%v", err)
	}
	if expect.Total < 0 {
		return smoke.Report{}, misused("--expect %d: want 0 or more", expect.Total)
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
		return smoke.Report{}, err
	}
	return smoke.JudgeOutput(smoke.FromOutput(out, w.now()), read, expect), nil
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
	if t.files != nil {
		if err := t.files.Mark(); err != nil {
			return smoke.Report{}, "", err
		}
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

// takeBaseConfig replaces the configuration of a change by that of its base: a
// change must not choose how it is judged. On other events the commit itself is
// what was merged.
func (w *world) takeBaseConfig(p *project, r *action.Runner) error {
	field := map[string]string{"pull_request": "pull_request.base.sha", "merge_group": "merge_group.base_sha"}[w.getenv("GITHUB_EVENT_NAME")]
	if field == "" || !r.InActions() {
		return nil
	}
	e, err := r.Event()
	if err != nil {
		return err
	}
	payload, err := e.Payload()
	if err != nil {
		return err
	}
	base, err := gitrepo.ParseHash(gjson.GetBytes(payload, field).String())
	if err != nil {
		return fmt.Errorf("event %s: %s: %w", e.Name, field, err)
	}
	t, err := p.repo.TreeAt(base)
	if err != nil {
		return fmt.Errorf("the base commit, whose configuration judges this change, is not here: %w; check out with fetch-depth: 0", err)
	}
	data, err := t.Blob(config.FileName)
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
// t asks for any. floor can raise the configured number of tests, not lower it.
func (w *world) smoke(p *project, out io.Writer, floor int, t *testResults) (smoke.Report, error) {
	c := p.cfg.Smoke
	read, err := smoke.ReaderFor(c.Format)
	if err != nil {
		return smoke.Report{}, misused("%v", err)
	}
	command := smoke.Command{Argv: c.Run.Argv, Shell: c.Run.Shell, Dir: p.root, Env: smokeSpec.ChildEnv(w.childEnviron()), Timeout: c.Timeout}
	x, err := smoke.Run(w.ctx, command, out, smoke.Options{Workspace: p.root, Now: w.now})
	if err != nil {
		return smoke.Report{}, misused("%v", err)
	}
	expect := smoke.Expect{Total: max(floor, c.Expect), Warnings: c.Warnings}
	var report smoke.Report
	if t.files != nil {
		found := t.files.Read(x.Started)
		t.suite = found.Suite
		report = smoke.JudgeResults(x, found, expect)
	} else {
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

// handOver writes the report and badges where they were asked for.
func (w *world) handOver(v *action.Values, r *action.Runner, report smoke.Report, encoded []byte) error {
	put := func(path string, data []byte) error {
		if err := durable.Put(path, data, 0o644); err != nil || !r.InActions() {
			return err
		}
		// What root in a container leaves behind, the runner cannot clean up.
		return giveToOwnerOf(w.getenv("GITHUB_WORKSPACE"), path)
	}
	if path := v.String("report"); path != "" {
		if err := put(w.path(path), encoded); err != nil {
			return err
		}
	}
	if dir := v.String("badge-dir"); dir != "" {
		for name, data := range map[string][]byte{"badge.json": smoke.Badge(report), "badge.shields.json": smoke.ShieldsBadge(report)} {
			if err := put(filepath.Join(w.path(dir), name), data); err != nil {
				return err
			}
		}
	}
	return nil
}

// path makes a path a person gave relative to the working directory.
func (w *world) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(w.dir, p)
}
