package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/joshdk/go-junit"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/smoke"
)

// junitReport is a report of n cases in suites of a hundred, one of them failed.
func junitReport(n int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"%d\" failures=\"1\">\n", n)
	for i := range n {
		if i%100 == 0 {
			failures := 0
			if i == 0 {
				failures = 1
			}
			fmt.Fprintf(&b, "  <testsuite name=\"shop.Suite%d\" tests=\"%d\" failures=\"%d\" errors=\"0\" skipped=\"0\" time=\"1.5\">\n    <properties><property name=\"java.version\" value=\"21\"/></properties>\n",
				i/100, min(100, n-i), failures)
		}
		fmt.Fprintf(&b, "    <testcase name=\"test case number %d\" classname=\"shop.Suite%d\" file=\"src/suite%d.js\" line=\"%d\" time=\"0.003\">", i, i/100, i/100, i+1)
		if i == 7 {
			b.WriteString("<failure message=\"expected 1\" type=\"AssertionError\"><![CDATA[trace]]></failure>")
		}
		b.WriteString("</testcase>\n")
		if i%100 == 99 || i == n-1 {
			b.WriteString("    <system-out><![CDATA[some output of the suite]]></system-out>\n  </testsuite>\n")
		}
	}
	b.WriteString("</testsuites>\n")
	return b.Bytes()
}

// leaves counts the statuses of go-junit's cases at every level.
func leaves(suites []junit.Suite) (passed, failed, errored, skipped int) {
	for _, s := range suites {
		for _, c := range s.Tests {
			switch c.Status {
			case junit.StatusPassed:
				passed++
			case junit.StatusFailed:
				failed++
			case junit.StatusError:
				errored++
			case junit.StatusSkipped:
				skipped++
			}
		}
		p, f, e, k := leaves(s.Suites)
		passed, failed, errored, skipped = passed+p, failed+f, errored+e, skipped+k
	}
	return passed, failed, errored, skipped
}

// Where both know the dialect, the two count the same cases. What go-junit lets
// pass without a word, because it looks at nothing else, ours does not.
func TestJUnitIsCountedAsByAnotherReader(t *testing.T) {
	// Words that go-junit does not know: a status instead of an element, results
	// of a whole suite, reruns, warnings.
	dialects := map[string]bool{
		"junit-ctest-status-fail.xml": true, "junit-gtest-disabled.xml": true, "junit-suite-error.xml": true,
		"junit-rerun-failure-alone.xml": true, "junit-warning.xml": true,
	}
	files, err := filepath.Glob("../pkg/smoke/testdata/results/junit-*.xml")
	assert.NilError(t, err)
	compared := 0
	check := func(name string, data []byte) {
		ours, err := smoke.ReadResults(name, data)
		if err != nil {
			return // refused, which never passes
		}
		theirs, err := junit.Ingest(data)
		assert.NilError(t, err, name)
		var passed, failed, errored, skipped int
		for _, c := range ours.Cases {
			switch c.Status {
			case smoke.Passed:
				passed++
			case smoke.Failed:
				failed++
			case smoke.Errored:
				errored++
			case smoke.Skipped:
				skipped++
			}
		}
		p, f, e, k := leaves(theirs)
		assert.DeepEqual(t, []int{passed, failed, errored, skipped}, []int{p, f, e, k})
		compared++
	}
	for _, name := range files {
		if dialects[filepath.Base(name)] {
			continue
		}
		data, err := os.ReadFile(name)
		assert.NilError(t, err)
		check(filepath.Base(name), data)
	}
	check("generated", junitReport(4000))
	assert.Assert(t, compared > 20, "%d reports were compared", compared)
}

// BenchmarkJUnit reads a report of 4,000 cases: ours checks totals, names and
// every element, go-junit builds its suites.
func BenchmarkJUnit(b *testing.B) {
	data := junitReport(4000)
	var d duel
	for b.Loop() {
		for range 10 {
			d.round(
				func() {
					s, err := smoke.ReadResults("junit.xml", data)
					assert.NilError(b, err)
					c := s.Counts()
					assert.Equal(b, c.Passed, int64(3999))
					assert.Equal(b, c.Failed, int64(1))
				},
				func() {
					suites, err := junit.Ingest(data)
					assert.NilError(b, err)
					passed, failed, _, _ := leaves(suites)
					assert.Equal(b, passed, 3999)
					assert.Equal(b, failed, 1)
				})
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(d.ours.best()*1e3, "ms")
	b.ReportMetric(d.theirs.best()*1e3, "go-junit-ms")
	b.ReportMetric(d.theirs.best()/d.ours.best(), "ratio")
}

// BenchmarkGate runs a command of a tenth of a second through the gate and by
// itself. What the gate adds is the difference; so is the time to the verdict on
// a report of 4,000 cases that is there already.
func BenchmarkGate(b *testing.B) {
	dir := b.TempDir()
	binary := filepath.Join(dir, "remembrancer")
	run := func(dir, name string, args ...string) error {
		cmd := exec.CommandContext(context.Background(), name, args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.TempDir(), "REMEMBRANCER_STATE=" + filepath.Join(b.TempDir(), "state")}
		return cmd.Run()
	}
	build := exec.CommandContext(context.Background(), "go", "build", "-buildvcs=false", "-o", binary, "./cmd/remembrancer")
	build.Dir = ".."
	out, err := build.CombinedOutput()
	assert.NilError(b, err, "%s", out)

	repo := filepath.Join(dir, "repo")
	script := filepath.Join(repo, "SMOKE_TEST.sh")
	assert.NilError(b, writeFile(script, []byte("#!/bin/sh\nsleep 0.1\necho 'SMOKE_JSON={\"pass\":3,\"total\":3}'\n")))
	assert.NilError(b, os.Chmod(script, 0o755))
	assert.NilError(b, writeFile(filepath.Join(repo, "remembrancer.yaml"), []byte("version: 1\n")))
	green := bytes.ReplaceAll(junitReport(4000), []byte(`failures="1"`), []byte(`failures="0"`))
	green = bytes.Replace(green, []byte(`<failure message="expected 1" type="AssertionError"><![CDATA[trace]]></failure>`), nil, 1)
	assert.NilError(b, writeFile(filepath.Join(repo, "junit.xml"), green))
	assert.NilError(b, run(repo, "git", "init", "-q"))

	var d duel
	var verdict times
	for b.Loop() {
		for range 10 {
			d.round(
				func() { assert.NilError(b, run(repo, binary, "smoke")) },
				func() { assert.NilError(b, run(repo, script)) })
			verdict.add(func() { assert.NilError(b, run(repo, binary, "smoke", "--results", "junit.xml")) })
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(d.theirs.median()*1e3, "bare-ms")
	b.ReportMetric((d.ours.median()-d.theirs.median())*1e3, "overhead-ms")
	b.ReportMetric(d.ours.median()/d.theirs.median(), "gated/bare")
	b.ReportMetric(verdict.median()*1e3, "verdict-on-report-ms")
}
