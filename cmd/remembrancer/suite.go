package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
	"github.com/vaultmesh/remembrancer/pkg/suite"
)

// suiteReport runs the tests that the configured suite declares, in place of a
// command, and judges them. floor can raise the configured number of tests, not
// lower it. The suite of a change is that of its base, like the configuration
// that names it: what decides the tests must not be what is tested.
func (w *world) suiteReport(p *project, out io.Writer, floor int, t *testResults) (smoke.Report, error) {
	c := p.cfg.Smoke
	expect, err := w.expect(p, floor)
	if err != nil {
		return smoke.Report{}, err
	}
	data, where, err := w.fileOfBase(p, c.Suite)
	if errors.Is(err, fs.ErrNotExist) {
		return smoke.Report{}, fmt.Errorf("%s has no %s, which %s names as its suite of tests: put it there first", where, c.Suite, config.FileName)
	}
	if err != nil {
		return smoke.Report{}, err
	}
	s, err := suite.Parse(c.Suite, data)
	if err != nil {
		return smoke.Report{}, misused("%v", err)
	}
	ctx, cancel := context.WithTimeoutCause(w.ctx, c.Timeout, fmt.Errorf("timed out after %s", c.Timeout))
	defer cancel()
	x := smoke.Execution{Command: "remembrancer smoke", Started: w.now()}
	results, err := s.Run(ctx, suite.Options{
		Dir: p.root, Env: safeForGit(smokeSpec.ChildEnv(w.childEnviron()), p.root), Now: w.now,
		Progress: out, Terminal: isTerminal(w.stderr),
	})
	if err != nil {
		return smoke.Report{}, err
	}
	x.Finished = w.now()
	// The suite is the command: it ends well when each of its tests passed.
	var exit int
	var said bytes.Buffer
	cases := make([]smoke.Case, len(results))
	for i, r := range results {
		cases[i] = smoke.Case{ID: r.ID, Status: smoke.Passed, Flaky: r.Flaky, Message: r.Message}
		if r.Status != judge.Pass {
			exit = exitFail
			cases[i] = smoke.Case{ID: r.ID, Status: smoke.Errored, File: c.Suite, Line: r.Line, Message: r.Message}
		}
		if r.Status == judge.Fail {
			cases[i].Status = smoke.Failed
		}
		fmt.Fprintf(&said, "%s %s\n", r.Status, r.ID)
	}
	x.ExitCode = &exit
	if err := context.Cause(ctx); err != nil && exit != exitPass {
		x.ExitCode, x.Failure = nil, err.Error()
	}
	if t.suite, err = smoke.NewSuite(cases); err != nil {
		return smoke.Report{}, err
	}
	// What the digest is of: a line for each test, its outcome and its name.
	found := smoke.Results{Suite: t.suite, SHA256: digest(said.Bytes()), Bytes: int64(said.Len())}
	report := smoke.JudgeResults(x, found, expect)
	w.nameCommit(p, &report)
	return report, nil
}

// safeForGit declares a directory safe to the git commands that a child runs: in
// a container the work tree belongs to another user.
func safeForGit(env []string, dir string) []string {
	n := 0
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "GIT_CONFIG_COUNT="); ok {
			if _, err := fmt.Sscan(v, &n); err != nil || n < 0 {
				n = 0
			}
		}
	}
	return append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=safe.directory", n), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", n, dir), fmt.Sprintf("GIT_CONFIG_COUNT=%d", n+1))
}

// isTerminal reports whether a person looks at a stream.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&fs.ModeCharDevice != 0
}
