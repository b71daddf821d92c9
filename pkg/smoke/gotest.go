package smoke

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// goEvent is one line of go test -json.
type goEvent struct{ action, pkg, test, output, importPath, failedBuild string }

// goActions are what cmd/internal/test2json and go test write. One that is not
// among them could tell of a failure in a new way.
var goActions = []string{
	"start", "run", "pause", "cont", "output", "attr", "artifacts", "bench",
	"pass", "fail", "skip", "build-output", "build-fail",
}

// goRun is one run of one test.
type goRun struct {
	name   string
	status CaseStatus // 0 until it ended
	out    text
}

// goPackage is one run of one package, from its start to its result.
type goPackage struct {
	name   string
	open   bool // it has begun and not ended
	out    text
	runs   []*goRun
	latest map[string]*goRun // by name
}

type goTest struct {
	suite    Suite
	packages map[string]*goPackage
	order    []*goPackage
	builds   map[string]*goBuild // by import path
	failed   []string            // import paths of builds that failed, in order
}

type goBuild struct {
	out            text
	failed, blamed bool // blamed: a package tells of it
}

// goStatus is what the three terminal actions mean.
var goStatus = map[string]CaseStatus{"pass": Passed, "fail": Failed, "skip": Skipped}

func readGoTest(data []byte) (Suite, error) {
	g := goTest{suite: Suite{Format: formatGoTest}, packages: map[string]*goPackage{}, builds: map[string]*goBuild{}}
	for n := 1; len(data) > 0; n++ {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte("\n"))
		e, err := parseGoEvent(bytes.TrimSuffix(line, []byte("\r")))
		if err == nil {
			err = g.event(n, e)
		}
		if err != nil {
			return Suite{}, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := g.end(); err != nil {
		return Suite{}, err
	}
	return g.suite, nil
}

// parseGoEvent reads one line. Keys that are not known are passed over; keys
// that another reader could take for ours are not.
func parseGoEvent(line []byte) (goEvent, error) {
	var e goEvent
	if !utf8.Valid(line) || !gjson.ValidBytes(line) || line[0] != '{' {
		return e, fmt.Errorf("found %q, wanted a JSON object of go test -json and nothing beside it", clip(string(line), 80))
	}
	fields := []struct {
		key  string
		into *string
		seen bool
	}{
		{"Action", &e.action, false},
		{"Package", &e.pkg, false},
		{"Test", &e.test, false},
		{"Output", &e.output, false},
		{"ImportPath", &e.importPath, false},
		{"FailedBuild", &e.failedBuild, false},
	}
	var err error
	gjson.ParseBytes(line).ForEach(func(k, v gjson.Result) bool {
		for i := range fields {
			f := &fields[i]
			switch {
			case !strings.EqualFold(f.key, k.Str):
				continue
			case f.key != k.Str:
				err = fmt.Errorf("found key %q, wanted %s", clip(k.Str, 40), f.key)
			case f.seen:
				err = fmt.Errorf("key %s is given twice", f.key)
			case v.Type != gjson.String:
				err = fmt.Errorf("%s: found %s, wanted a string", f.key, clip(v.Raw, 40))
			}
			*f.into, f.seen = v.Str, true
		}
		return err == nil
	})
	switch {
	case err != nil:
	case !slices.Contains(goActions, e.action):
		err = fmt.Errorf("action %q is not known", clip(e.action, 40))
	case strings.HasPrefix(e.action, "build-") && e.importPath == "":
		err = fmt.Errorf("action %s has no ImportPath", e.action)
	case !strings.HasPrefix(e.action, "build-") && e.pkg == "":
		err = fmt.Errorf("action %s has no Package", e.action)
	}
	return e, err
}

func (g *goTest) event(line int, e goEvent) error {
	if strings.HasPrefix(e.action, "build-") {
		b := g.build(e.importPath)
		b.out.add(e.output)
		if e.action == "build-fail" && !b.failed {
			b.failed = true
			g.failed = append(g.failed, e.importPath)
		}
		return nil
	}
	p := g.packages[e.pkg]
	if p != nil && p.open && e.action == "start" {
		g.suite.problem("line %d: %s starts again before it ended", line, e.pkg)
	}
	if p == nil {
		p = &goPackage{name: e.pkg, open: true, latest: map[string]*goRun{}}
		g.packages[e.pkg] = p
		g.order = append(g.order, p)
	}
	switch {
	case p.open:
	case e.action == "start":
		// The same package again: a second go test wrote to the same file.
		*p = goPackage{name: e.pkg, open: true, latest: map[string]*goRun{}}
	case e.action == "output":
	default:
		g.suite.problem("line %d: %s of %s after the result of its package", line, e.action, e.pkg)
		*p = goPackage{name: e.pkg, open: true, latest: map[string]*goRun{}}
	}
	if e.test != "" {
		return g.testEvent(line, p, e)
	}
	switch status := goStatus[e.action]; {
	case e.action == "output":
		p.out.add(e.output)
	case status != 0:
		return g.endPackage(p, status, e.failedBuild)
	}
	return nil
}

func (g *goTest) testEvent(line int, p *goPackage, e goEvent) error {
	run := p.latest[e.test]
	status := goStatus[e.action]
	if e.action == "run" || run == nil && status != 0 {
		if run != nil && run.status == 0 {
			g.suite.problem("line %d: %s runs again before it ended", line, e.test)
		}
		if e.action != "run" {
			g.suite.problem("line %d: %s has a result and did not run", line, e.test)
		}
		if len(p.runs)+len(g.suite.Cases) >= maxCases {
			return fmt.Errorf("more than %d tests", maxCases)
		}
		run = &goRun{name: e.test}
		p.runs, p.latest[e.test] = append(p.runs, run), run
	}
	switch {
	case run == nil:
	case e.action == "output":
		// Of a failed test the frame of its output says nothing new.
		if t := strings.TrimLeft(e.output, " "); run.status != Passed && !strings.HasPrefix(t, "=== ") && !strings.HasPrefix(t, "--- ") {
			run.out.add(e.output)
		}
	case status == 0:
	case run.status != 0:
		g.suite.problem("line %d: %s has a second result: %s, after %s", line, e.test, e.action, run.status)
		run.status = max(run.status, status)
	default:
		if run.status = status; status == Passed {
			run.out = text{}
		}
	}
	return nil
}

func (g *goTest) build(importPath string) *goBuild {
	b := g.builds[importPath]
	if b == nil {
		b = &goBuild{}
		g.builds[importPath] = b
	}
	return b
}

// endPackage turns the runs of a package into cases. A test that has subtests
// is counted by them, unless it failed though none of them did, or skipped.
func (g *goTest) endPackage(p *goPackage, status CaseStatus, failedBuild string) error {
	p.open = false
	parents, blamed := map[string]bool{}, map[string]bool{}
	bad := false
	for _, r := range p.runs {
		// A benchmark that measured has no result of its own.
		if r.status == 0 && strings.HasPrefix(r.name, "Benchmark") {
			r.status = Warned
		}
		fell := r.status == 0 || r.status == Failed
		bad = bad || fell
		for i := range r.name {
			if r.name[i] == '/' {
				parents[r.name[:i]] = true
				if fell {
					blamed[r.name[:i]] = true
				}
			}
		}
	}
	for _, r := range p.runs {
		c := Case{ID: p.name + "." + r.name, Status: r.status, Message: string(r.out.kept)}
		switch r.status {
		case Warned:
			continue
		case 0:
			c.Status = Errored
			c.Message = "it has no result: the process ended, or the report, before the test did. " + c.Message
		}
		if parents[r.name] && (c.Status == Passed || blamed[r.name]) {
			continue
		}
		if c.Status == Failed || c.Status == Errored {
			c.File, c.Line = goPlace(p.name, r.out)
		}
		if err := g.suite.add(c); err != nil {
			return err
		}
	}
	broken := Case{ID: p.name, Status: Errored, Message: string(p.out.kept)}
	switch {
	case failedBuild != "":
		b := g.build(failedBuild)
		b.blamed = true
		broken.Message = "build failed: " + string(b.out.kept)
		broken.File, broken.Line = findPlace(string(b.out.kept))
	case status == 0:
		broken.Message = "the package has no result: the report ended before it did"
	case status == Failed && !bad:
		broken.Message = "the package failed, but none of its tests did: " + broken.Message
	case status != Failed && bad:
		g.suite.problem("package %s says %s, its tests do not", p.name, status)
		return nil
	default:
		return nil
	}
	return g.suite.add(broken)
}

// goPlace finds the first file and line in what a test printed. The testing
// package names files without their directory.
func goPlace(pkg string, out text) (string, int) {
	file, line := findPlace(string(out.kept))
	if file != "" && !strings.ContainsAny(file, `/\`) {
		file = path.Join(pkg, file)
	}
	return file, line
}

func (g *goTest) end() error {
	for _, p := range g.order {
		if p.open {
			if err := g.endPackage(p, 0, ""); err != nil {
				return err
			}
		}
	}
	for _, importPath := range g.failed {
		b := g.builds[importPath]
		if b.blamed {
			continue
		}
		c := Case{ID: importPath, Status: Errored, Message: "build failed: " + string(b.out.kept)}
		c.File, c.Line = findPlace(string(b.out.kept))
		if err := g.suite.add(c); err != nil {
			return err
		}
	}
	if len(g.order) == 0 && len(g.failed) == 0 {
		return errors.New("no package in it")
	}
	return nil
}
