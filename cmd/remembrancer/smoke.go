package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
)

var smokeSpec = action.Spec{
	Name: "smoke-gate", Verb: "smoke",
	Summary: "run the smoke test and demand N of N",
	Description: "Runs the smoke command of remembrancer.yaml and passes only when it exits 0, every test passed, " +
		"none was skipped, and there are at least as many as expected. A warning is not a pass unless the configuration says so.\n\n" +
		"With --from it judges a saved output and runs nothing.",
	Inputs: []action.Input{
		{Name: "from", Kind: action.Path, Usage: "Judge this saved output instead of running the command; - is standard input."},
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
	Examples: []string{"remembrancer smoke", "remembrancer smoke --from smoke.log --expect 27 --json"},
}

var smokeVerb = verb{spec: smokeSpec, run: runSmoke}

func runSmoke(w *world, v *action.Values, r *action.Runner) error {
	if name := w.getenv("GITHUB_EVENT_NAME"); v.String("from") == "" && (name == "pull_request_target" || name == "workflow_run") {
		return misused("event %s gives a job secrets, and the smoke command may be a stranger's: run it on pull_request, or judge a saved output with from", name)
	}
	var (
		report smoke.Report
		mode   = config.Enforce
		err    error
	)
	if from := v.String("from"); from != "" {
		report, err = w.judgeSaved(v, from)
	} else {
		report, mode, err = w.judgeRun(v, r)
	}
	if err != nil {
		return err
	}
	encoded, err := smoke.EncodeReport(report)
	if err != nil {
		return err
	}
	if err := w.handOver(v, report, encoded); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"verdict": report.Verdict.String(), "passed": fmt.Sprint(report.Passed), "total": fmt.Sprint(report.Total), "report-sha256": digest(encoded),
	} {
		if err := r.SetOutput(name, value); err != nil {
			return err
		}
	}
	if r.InActions() {
		if err := r.Summary(smoke.Summary(report)); err != nil {
			return err
		}
		for _, reason := range report.Reasons {
			if report.Verdict != smoke.Pass {
				r.Annotate(action.Error, "", 0, "smoke-gate", reason)
			}
		}
	}
	if v.Bool("json") {
		out, err := json.Marshal(smokeJSON(report))
		if err != nil {
			return err
		}
		w.say("%s", out)
	} else {
		w.say("%s", strings.TrimRight(smoke.Text(report), "\n"))
	}
	if mode == config.Advisory && report.Verdict != smoke.Pass {
		w.say("⚠️  advisory mode: this verdict does not stop the job")
		return nil
	}
	return quietly(report.Verdict.ExitStatus())
}

// smokeJSON is the verdict for scripts.
func smokeJSON(r smoke.Report) map[string]any {
	return map[string]any{
		"verdict": r.Verdict.String(), "pass": r.Passed, "fail": r.Failed, "skip": r.Skipped, "warn": r.Warned, "total": r.Total,
		"error": map[bool]int{true: 1}[r.Verdict == smoke.Error], "expected": r.Expected, "reasons": r.Reasons,
	}
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

func (w *world) judgeRun(v *action.Values, r *action.Runner) (smoke.Report, string, error) {
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
	out, err := r.Untrusted(w.stderr)
	if err != nil {
		return smoke.Report{}, "", err
	}
	report, err := w.smoke(p, out, v.Int("expect"))
	return report, p.cfg.Smoke.Mode, errors.Join(err, out.Close())
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
	return nil
}

// smoke runs and judges the configured command. floor can raise the configured
// number of tests, not lower it.
func (w *world) smoke(p *project, out io.Writer, floor int) (smoke.Report, error) {
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
	report := smoke.JudgeOutput(x, read, smoke.Expect{Total: max(floor, c.Expect), Warnings: c.Warnings})
	if commit, err := p.repo.Resolve("HEAD"); err == nil {
		report.Commit = commit.String()
	} else if !errors.Is(err, gitrepo.ErrNoGit) {
		w.note("note: the report names no commit: %v", err)
	}
	return report, nil
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
func (w *world) handOver(v *action.Values, report smoke.Report, encoded []byte) error {
	if path := v.String("report"); path != "" {
		if err := durable.Put(w.path(path), encoded, 0o644); err != nil {
			return err
		}
	}
	if dir := v.String("badge-dir"); dir != "" {
		for name, data := range map[string][]byte{"badge.json": smoke.Badge(report), "badge.shields.json": smoke.ShieldsBadge(report)} {
			if err := durable.Put(filepath.Join(w.path(dir), name), data, 0o644); err != nil {
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
