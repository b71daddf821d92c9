package smoke

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"
	"pgregory.net/rapid"
)

// earlier is an execution whose reports an earlier step left behind.
func earlier() Execution { return FromResults(t0) }

func judgeSuite(s Suite) Report {
	return JudgeResults(earlier(), Results{Suite: s, SHA256: emptySum}, Expect{})
}

// One line a case, so that a reader sees what each file is taken for. The files
// that pass are few, and are listed by name besides: a slip of -update shows.
func TestReportsOfAllDialectsAreReadAsTheGoldenFileSays(t *testing.T) {
	files, err := filepath.Glob("testdata/results/*")
	assert.NilError(t, err)
	var b strings.Builder
	var green []string
	for _, name := range files {
		data, err := os.ReadFile(name)
		assert.NilError(t, err)
		base := filepath.Base(name)
		s, err := ReadResults(base, data)
		if err != nil {
			fmt.Fprintf(&b, "%s: error\n\t%v\n", base, err)
			assert.DeepEqual(t, s, Suite{})
			continue
		}
		r := judgeSuite(s)
		c := s.Counts()
		fmt.Fprintf(&b, "%s: %s %s\n\tpassed %d, failed %d (errored %d), warned %d, skipped %d, total %d\n", base, r.Verdict, c.Format, c.Passed, c.Failed, c.Errored, c.Warned, c.Skipped, c.Total)
		for _, p := range s.Problems {
			fmt.Fprintf(&b, "\tproblem: %s\n", p)
		}
		for _, c := range s.Cases {
			fmt.Fprintf(&b, "\t%s %q", c.Status, c.ID)
			if c.Flaky {
				b.WriteString(" flaky")
			}
			if c.File != "" {
				fmt.Fprintf(&b, " at %s", c.Where())
			}
			if c.Message != "" {
				fmt.Fprintf(&b, ": %s", c.Message)
			}
			b.WriteByte('\n')
		}
		if r.Verdict == Pass {
			green = append(green, base)
		}
		_, err = EncodeReport(r)
		assert.NilError(t, err)
	}
	assert.DeepEqual(t, green, []string{
		"gotest-benchmarks.json", "gotest-count-2.json",
		"junit-jest.xml", "junit-nested-direct-totals.xml", "junit-no-totals-green.xml", "junit-surefire-flaky.xml",
		"tap-green-13-plan-last.tap", "tap14-subtests.tap",
	})
	golden.Assert(t, b.String(), "results.golden")
}

func TestBoundsOfReports(t *testing.T) {
	for _, tc := range []struct{ name, data, err string }{
		{"depth", strings.Repeat("<testsuite>", maxDepth+1), "x: line 1: elements nest deeper than 64"},
		{"depth of content", "<testsuite><properties>" + strings.Repeat("<a>", maxDepth), "x: line 1: elements nest deeper than 64"},
		{"attributes", "<testsuite " + func() (s string) {
			for i := range maxAttributes + 1 {
				s += fmt.Sprintf(`a%d="" `, i)
			}
			return s
		}() + "/>", "x: line 1: 65 attributes, wanted at most 64"},
		{"total", `<testsuite tests="10000001"/>`, `x: line 1: attribute tests: found "10000001", wanted a whole number up to 10000000`},
		{"plan", "1..1000001\n", "x: line 1: plan 1..1000001: wanted at most 1000000 tests"},
		{"id", "1..1\nok 1000001\n", "x: line 2: test 1000001: wanted a number up to 1000000"},
		{"bytes", strings.Repeat(" ", maxRaw+1), "x: 67108865 bytes, wanted at most 67108864"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ReadResults("x", []byte(tc.data))
			assert.Error(t, err, tc.err)
		})
	}
}

func TestAVastPlanIsCountedAndNotNamed(t *testing.T) {
	s, err := ReadResults("x", []byte("1..1000000\nok 1 a\n"))
	assert.NilError(t, err)
	assert.Equal(t, len(s.Cases), 1+maxMissing)
	assert.DeepEqual(t, s.Counts(), Counts{Passed: 1, Failed: 999_999, Errored: 999_899, Total: 1_000_000, Format: "tap"})
}

func TestNamesAndMessagesAreTamedAndUnique(t *testing.T) {
	long := strings.Repeat("é", 3000)
	data := fmt.Sprintf("1..4\nnot ok 1 %s\n# %s\nnot ok 2 %s\nok 3 a\x1b[2J\xff\nok 4 %s (2)\n", long, long, long, clip(long, maxID))
	s, err := ReadResults("long", []byte(data))
	assert.NilError(t, err)
	seen := map[string]bool{}
	for _, c := range s.Cases {
		assert.Assert(t, !seen[c.ID], c.ID)
		seen[c.ID] = true
		assert.Equal(t, c.ID, printable(c.ID))
		assert.Assert(t, len(c.ID) <= maxID+8 && len(c.Message) <= maxMessage)
		assert.Assert(t, utf8.ValidString(c.Message))
	}
	assert.Equal(t, len(seen), 4)
}

func TestNumberedNamesStayUniqueWhateverTheyAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOf(rapid.SampledFrom([]string{"a", "a (2)", "a (3)", "a (2) (2)", "b"})).Draw(t, "names")
		var cases []Case
		for _, n := range names {
			cases = append(cases, Case{ID: n})
		}
		number(cases)
		seen := map[string]bool{}
		for i, c := range cases {
			assert.Assert(t, !seen[c.ID], c.ID)
			assert.Assert(t, strings.HasPrefix(c.ID, names[i]))
			seen[c.ID] = true
		}
	})
}

func drawSuite(t *rapid.T) Suite {
	s := Suite{Format: rapid.SampledFrom([]string{"junit", "tap", "gotest"}).Draw(t, "format")}
	for i, st := range rapid.SliceOfN(rapid.SampledFrom([]CaseStatus{Passed, Passed, Passed, Warned, Skipped, Failed, Errored}), 0, 6).Draw(t, "cases") {
		s.Cases = append(s.Cases, Case{ID: fmt.Sprintf("t%d", i), Status: st})
	}
	n := rapid.Int64Range(0, 8)
	if rapid.Bool().Draw(t, "declares") {
		s.Declared = Totals{n.Draw(t, "tests"), n.Draw(t, "failed"), n.Draw(t, "errored"), n.Draw(t, "skipped")}
	}
	if rapid.IntRange(0, 4).Draw(t, "problem") == 0 {
		s.Problems = []string{"two plans"}
	}
	return s
}

func TestASuitePassesOnlyWhenEverySignalSaysSo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSuite(t)
		passed := int64(0)
		for _, c := range s.Cases {
			if c.Status == Passed {
				passed++
			}
		}
		d := s.Declared
		good := passed > 0 && passed == int64(len(s.Cases)) && d.Tests <= passed && d.Failed+d.Errored+d.Skipped == 0 && len(s.Problems) == 0
		want := Fail
		if good {
			want = Pass
		}
		r := judgeSuite(s)
		assert.Equal(t, r.Verdict, want)
		assert.NilError(t, s.Counts().check())
		assert.Assert(t, r.Passed <= passed && r.Total >= int64(len(s.Cases)) && r.Total >= d.Tests)
		_, err := EncodeReport(r)
		assert.NilError(t, err)
	})
}

func TestMoreFailuresNeverMakeASuitePass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		suites := rapid.SliceOfN(rapid.Custom(drawSuite), 1, 3).Draw(t, "suites")
		bad := Case{ID: "one more", Status: rapid.SampledFrom([]CaseStatus{0, Failed, Errored, Skipped, Warned, 9}).Draw(t, "status")}
		i := rapid.IntRange(0, len(suites)-1).Draw(t, "at")
		before := judgeSuite(MergeSuites(suites...)).Verdict
		each := Pass
		for _, s := range suites {
			each = max(each, judgeSuite(s).Verdict)
		}
		// Together they pass only if each that has tests passes alone.
		assert.Assert(t, before != Pass || each == Pass || slices.ContainsFunc(suites, func(s Suite) bool { return len(s.Cases) == 0 }))
		suites[i].Cases = append(slices.Clone(suites[i].Cases), bad)
		assert.Equal(t, judgeSuite(suites[i]).Verdict, Fail)
		assert.Equal(t, judgeSuite(MergeSuites(suites...)).Verdict, Fail)
	})
}

func TestMergedSuitesHideNothingBehindOneAnother(t *testing.T) {
	lying := Suite{Format: "junit", Cases: []Case{{ID: "a", Status: Passed}}, Declared: Totals{Tests: 1, Failed: 1}}
	red := Suite{Format: "gotest", Cases: []Case{{ID: "a", Status: Failed}}}
	all := MergeSuites(lying, red)
	c := all.Counts()
	assert.Equal(t, c.Format, "gotest+junit")
	assert.Equal(t, c.Failed, int64(2))
	assert.Equal(t, all.Cases[1].ID, "a (2)")
	assert.Equal(t, lying.Cases[0].ID, "a")
	assert.Equal(t, red.Cases[0].ID, "a", "the merged suites keep their names")
	assert.Equal(t, judgeSuite(MergeSuites()).Verdict, Fail)
	assert.DeepEqual(t, MergeSuites(MergeSuites(lying, red), lying).Counts(), MergeSuites(lying, red, lying).Counts())
}

func TestIDsOfAReportAreThoseOfItsCases(t *testing.T) {
	s, err := ReadResults("x", []byte("1..2\nok 1 b\nok 2 a\n"))
	assert.NilError(t, err)
	assert.Equal(t, s.Counts().IDsSHA256, hexSHA256([]byte("a\nb\n")))
	s.Declared.Tests = 3
	assert.Equal(t, s.Counts().IDsSHA256, "", "of tests without a case no name is known")
}

func TestStatusesZeroValueIsNoStatus(t *testing.T) {
	assert.DeepEqual(t, []string{CaseStatus(0).String(), Passed.String(), Warned.String(), Skipped.String(), Failed.String(), Errored.String(), CaseStatus(6).String()},
		[]string{"invalid", "passed", "warned", "skipped", "failed", "errored", "invalid"})
	assert.Equal(t, Suite{Cases: []Case{{ID: "a"}}}.Counts().Errored, int64(1))
}

func TestWhatPeopleSeeNamesFailuresAndEscapesThem(t *testing.T) {
	data, err := os.ReadFile("testdata/results/junit-hostile-names.xml")
	assert.NilError(t, err)
	s, err := ReadResults("hostile.xml", data)
	assert.NilError(t, err)
	c := Expect{}.Compare(s)
	assert.Equal(t, c.Text(), "   failed        a.##[error]@all | <b>\ufffd: ::set-output name=verdict::pass\n")
	assert.Equal(t, c.Summary(), "\n#### Failing: 1\n\n| test | result | where | message |\n|---|---|---|---|\n"+
		"| a.&#35;&#8203;&#35;&#8203;&#91;error&#93;&#64;&#8203;all &#124; &#60;b&#62;\ufffd | failed |  | &#58;&#58;set-output name=verdict&#58;&#58;pass |\n")
	for range 600 {
		s.Cases = append(s.Cases, Case{ID: "x", Status: Failed, File: "a.go", Line: 3})
	}
	c = Expect{}.Compare(s)
	assert.Assert(t, strings.HasSuffix(c.Summary(), "| x | failed | a.go&#58;3 |  |\n\n…and 401 more\n"))
	assert.Assert(t, strings.HasSuffix(c.Text(), "   failed        x (a.go:3)\n   …and 581 more\n"))
	green := Suite{Cases: []Case{{ID: "a", Status: Passed}}}
	assert.Equal(t, Expect{}.Compare(green).Text()+Expect{}.Compare(green).Summary(), "")
}

const greenJUnit = `<testsuite name="a" tests="1" failures="0"><testcase name="x"/></testsuite>`

func write(t testing.TB, dir, name, data string) {
	path := filepath.Join(dir, filepath.FromSlash(name))
	assert.NilError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	assert.NilError(t, os.WriteFile(path, []byte(data), 0o644))
}

func find(t testing.TB, dir string, patterns ...string) *ReportFiles {
	f, err := FindReports(dir, patterns)
	assert.NilError(t, err)
	return f
}

func TestPatternsFindRegularFilesOfTheWorkspace(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.xml", "r/a.xml", "r/b.xml", "r/deep/er/c.xml", "r/deep/d.txt", ".git/e.xml", "[odd]/f.xml"} {
		write(t, dir, name, greenJUnit)
	}
	assert.NilError(t, os.Mkdir(filepath.Join(dir, "r", "dir.xml"), 0o755))
	assert.NilError(t, os.Symlink("a.xml", filepath.Join(dir, "r", "link.xml")))
	assert.NilError(t, os.Symlink("..", filepath.Join(dir, "r", "loop")))
	for _, tc := range []struct {
		patterns, want []string
	}{
		{[]string{"a.xml"}, []string{"a.xml"}},
		{[]string{"./r/*.xml", "r/a.xml"}, []string{"r/a.xml", "r/b.xml", "r/link.xml"}},
		{[]string{"**/*.xml"}, []string{"[odd]/f.xml", "a.xml", "r/a.xml", "r/b.xml", "r/deep/er/c.xml", "r/link.xml"}},
		{[]string{"r/**"}, []string{"r/a.xml", "r/b.xml", "r/deep/d.txt", "r/deep/er/c.xml", "r/link.xml"}},
		{[]string{"r/**/c.xml"}, []string{"r/deep/er/c.xml"}},
		{[]string{"**/er/*"}, []string{"r/deep/er/c.xml"}},
		{[]string{`\[odd]/?.xml`}, []string{"[odd]/f.xml"}},
		{[]string{"r/loop/a.xml"}, []string{"r/loop/a.xml"}},
	} {
		got := find(t, dir, tc.patterns...).Read(time.Time{})
		assert.DeepEqual(t, got.Names, tc.want)
		assert.DeepEqual(t, got.Errors, []string(nil))
		assert.Equal(t, JudgeResults(earlier(), got, Expect{}).Verdict, Pass)
	}
}

func TestReportsThatAreMissingOrElsewhereAreErrors(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	write(t, outside, "a.xml", greenJUnit)
	write(t, dir, "a.xml", greenJUnit)
	write(t, dir, "prose.xml", "26/26 passed")
	assert.NilError(t, os.Symlink(filepath.Join(outside, "a.xml"), filepath.Join(dir, "out.xml")))
	assert.NilError(t, os.Symlink(outside, filepath.Join(dir, "outdir")))
	assert.NilError(t, os.Mkdir(filepath.Join(dir, "empty"), 0o755))
	for _, tc := range []struct {
		patterns []string
		err      string
	}{
		{[]string{"a.xml", "b.xml"}, `no file matches "b.xml": wanted the reports of the tests`},
		{[]string{"a.xml", "r/*.xml"}, `no file matches "r/*.xml": wanted the reports of the tests`},
		{[]string{"empty"}, `no file matches "empty": wanted the reports of the tests`},
		{[]string{"empty/**"}, `no file matches "empty/**": wanted the reports of the tests`},
		{[]string{"a.xml/b.xml"}, `no file matches "a.xml/b.xml": wanted the reports of the tests`},
		{[]string{"*.xml"}, "out.xml: path escapes from parent"},
		{[]string{"outdir/a.xml"}, "outdir: path escapes from parent"},
		{[]string{"a.xml", "prose.xml"}, `prose.xml: the format is not known: found "26/26 passed", wanted JUnit XML, the output of go test -json, or TAP with its plan`},
	} {
		res := find(t, dir, tc.patterns...).Read(time.Time{})
		assert.DeepEqual(t, res.Errors, []string{tc.err})
		r := JudgeResults(earlier(), res, Expect{})
		assert.Equal(t, r.Verdict, Error)
		assert.DeepEqual(t, r.Reasons, []string{tc.err, "exit status not known: saved output"})
		_, err := EncodeReport(r)
		assert.NilError(t, err)
	}
	for pattern, want := range map[string]string{
		"":           `pattern "" leaves the workspace, wanted one relative to it`,
		"../a.xml":   `pattern "../a.xml" leaves the workspace, wanted one relative to it`,
		"r/../../a":  `pattern "r/../../a" leaves the workspace, wanted one relative to it`,
		"/etc/a.xml": `pattern "/etc/a.xml" leaves the workspace, wanted one relative to it`,
		"r/[a":       `pattern "r/[a": syntax error in pattern`,
		"r/**.xml":   `pattern "r/**.xml": found "**.xml", wanted ** alone between slashes`,
	} {
		_, err := FindReports(dir, []string{pattern})
		assert.Error(t, err, want)
	}
	_, err := FindReports(dir, nil)
	assert.Error(t, err, "no pattern of reports is given")
	gone := find(t, filepath.Join(dir, "gone"), "*").Read(time.Time{})
	assert.Equal(t, len(gone.Errors), 1)
	assert.Assert(t, find(t, filepath.Join(dir, "gone"), "*").Mark() != nil)
}

func TestReportsThatTheRunDidNotWriteAreStale(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "old.xml", greenJUnit)
	write(t, dir, "again.xml", greenJUnit)
	past := time.Now().Add(-time.Hour)
	assert.NilError(t, os.Chtimes(filepath.Join(dir, "again.xml"), past, past))
	f := find(t, dir, "*.xml")
	assert.NilError(t, f.Mark())
	started := time.Now()
	write(t, dir, "again.xml", greenJUnit)
	write(t, dir, "new.xml", greenJUnit)
	write(t, dir, "restored.xml", greenJUnit)
	assert.NilError(t, os.Chtimes(filepath.Join(dir, "restored.xml"), past, past))
	res := f.Read(started)
	assert.DeepEqual(t, res.Errors, []string{
		"old.xml: stale: it is older than the run, which did not write it",
		"restored.xml: stale: it is older than the run, which did not write it",
	})
	assert.Equal(t, len(res.Suite.Cases), 2)
	assert.Equal(t, JudgeResults(ran("", 0), res, Expect{}).Verdict, Error)
	fresh := find(t, dir, "again.xml", "new.xml")
	assert.NilError(t, find(t, t.TempDir(), "*").Mark(), "nothing there yet is no error")
	assert.Equal(t, JudgeResults(ran("", 0), fresh.Read(started), Expect{}).Verdict, Pass)
}

func TestTheDigestIsThatOfSha256sum(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "b.xml", greenJUnit)
	write(t, dir, "a.tap", "1..1\nok 1 a\n")
	res := find(t, dir, "b.xml", "*").Read(time.Time{})
	assert.Equal(t, res.SHA256, hexSHA256([]byte(hexSHA256([]byte("1..1\nok 1 a\n"))+"  a.tap\n"+hexSHA256([]byte(greenJUnit))+"  b.xml\n")))
	r := JudgeResults(earlier(), res, Expect{Total: 2})
	assert.DeepEqual(t, r, Report{
		Verdict: Pass, Passed: 2, Total: 2, Expected: 2, Format: "junit+tap", IDsSHA256: hexSHA256([]byte("a\na.x\n")),
		OutputSHA256: res.SHA256, OutputBytes: int64(len(greenJUnit) + 12), Started: t0, Finished: t0,
		Reasons: []string{"exit status not known: saved output"},
	})
}

func TestEachSignalBesideTheReportsTurnsThePassRed(t *testing.T) {
	green := Results{Suite: Suite{Format: "junit", Cases: []Case{{ID: "a", Status: Passed}, {ID: "b", Status: Passed, Flaky: true}}}, SHA256: emptySum}
	red := green
	red.Suite = MergeSuites(green.Suite, Suite{Format: "tap", Cases: []Case{{ID: "c", Status: Errored}}})
	missing, both := green, red
	missing.Errors = []string{`no file matches "x"`}
	both.Errors = missing.Errors
	killed := ran("", 0)
	killed.ExitCode, killed.Failure = nil, "timed out after 1s"
	shell := ran("", 127)
	shell.shell = true
	const flaky = "1 test passed only when run again: b"
	for _, tc := range []struct {
		name    string
		x       Execution
		res     Results
		e       Expect
		verdict Verdict
		reasons []string
	}{
		{"none", ran("", 0), green, Expect{}, Pass, []string{flaky}},
		{"output that passes too", ran("SMOKE_JSON={\"pass\":9,\"total\":9}\n", 0), green, Expect{Total: 2}, Pass, []string{flaky}},
		{"exit status", ran("", 2), green, Expect{}, Fail, []string{"counts fine but exit status 2", flaky}},
		{"floor", ran("", 0), green, Expect{Total: 3}, Fail, []string{"2 tests ran, expected at least 3", flaky}},
		{"output that fails", ran("SMOKE_JSON={\"pass\":8,\"total\":9}\n", 0), green, Expect{}, Fail, []string{"standard output: 8 of 9 tests passed: 1 failed", flaky}},
		{"output that is broken", ran("SMOKE_JSON={}\n", 0), green, Expect{}, Fail, []string{`standard output: SMOKE_JSON on output line 1: key "pass" is missing; wanted pass, total`, flaky}},
		{"timeout", killed, green, Expect{}, Error, []string{"timed out after 1s", flaky}},
		{"error, exit status 0", ran("", 0), red, Expect{}, Fail, []string{"2 of 3 tests passed: 1 errored", "exit status 0 but counts say failing", flaky}},
		{"missing", ran("", 0), missing, Expect{}, Error, []string{`no file matches "x"`}},
		{"missing, exit status", ran("", 1), missing, Expect{}, Fail, []string{"exit status 1", `no file matches "x"`}},
		{"missing, nothing ran", shell, missing, Expect{}, Error, []string{"exit status 127: the shell could not find or start the command", `no file matches "x"`}},
		{"missing, timeout", killed, missing, Expect{}, Error, []string{"timed out after 1s", flaky}},
		{"one missing, one red", ran("", 0), both, Expect{}, Fail, []string{"2 of 3 tests passed: 1 errored", `no file matches "x"`, "exit status 0 but counts say failing"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := JudgeResults(tc.x, tc.res, tc.e)
			assert.Equal(t, got.Verdict, tc.verdict)
			assert.DeepEqual(t, got.Reasons, tc.reasons)
			data, err := EncodeReport(got)
			assert.NilError(t, err)
			back, err := DecodeReport(data)
			assert.NilError(t, err)
			assert.DeepEqual(t, back, got)
		})
	}
}

func TestPlacesAreFilesOfTheWorkspaceOnly(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "cart/cart_test.go", "")
	write(t, dir, "main_test.go", "")
	assert.NilError(t, os.Symlink("main_test.go", filepath.Join(dir, "link_test.go")))
	for file, want := range map[string]string{
		"cart/cart_test.go":                  "cart/cart_test.go",
		"example.com/shop/cart/cart_test.go": "cart/cart_test.go",
		"/home/ci/shop/cart/cart_test.go":    "cart/cart_test.go",
		"C:/shop/cart/cart_test.go":          "cart/cart_test.go",
		"../../../main_test.go":              "main_test.go",
		"cart":                               "",
		"link_test.go":                       "",
		"/etc/passwd":                        "",
		"":                                   "",
	} {
		assert.Equal(t, Place(dir, file), want, file)
	}
}

// Reports that fail by more than one mark, as real ones do. In each a single
// edit is made: one byte changed, some inserted, some deleted. The law:
//
//   - Nothing that one such edit makes of a report in XML or of go test passes.
//     Only where a deletion takes the failure with all totals that tell of it
//     does it need the floor that every judgement can have.
//   - TAP has one mark a test, so deleting "not " there is beyond all reading.
//     What is inserted, as long as it is whole lines or bytes within one, what
//     is cut off at the end, and any one byte changed, do not make it pass.
var redReports = []struct {
	name, data string
	tests      int // where there is more than one mark a failure; else 0
}{
	{"junit", `<testsuites tests="3" failures="1" errors="0"><testsuite name="s" tests="2" failures="1" errors="0"><testcase name="a"/><testcase name="b"><failure message="m"><![CDATA[b_test.go:3: x]]></failure></testcase></testsuite><testsuite name="g" tests="1" failures="0"><testcase name="c"><system-out><![CDATA[x]]></system-out></testcase></testsuite></testsuites>`, 3},
	{"gotest", `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:3: x\n"}
{"Action":"fail","Package":"p","Test":"TestB","Elapsed":0}
{"Action":"fail","Package":"p","Elapsed":0}
`, 2},
	{"tap", "TAP version 13\n1..3\nok 1 - a\nnot ok 2 - b\n  ---\n  at: b.js:3\n  ...\nok 3 - c\n", 0},
	{"tap, plan last", "ok 1 - a\nnot ok 2 - b\n# x\nok 3 - c\n1..3\n", 0},
	{"tap, unnumbered", "1..3\nok - a\nnot ok - b\nok - c\n", 0},
}

// passes says whether a report would let a change through. Nothing that cannot
// be read does.
func passes(data []byte, floor int) bool {
	s, err := ReadResults("x", data)
	return err == nil && JudgeResults(earlier(), Results{Suite: s, SHA256: emptySum}, Expect{Total: floor}).Verdict == Pass
}

// inserted puts bytes into a report: where it has one mark a failure and they
// have line ends, as whole lines.
func inserted(data []byte, at int, put []byte, marks bool) []byte {
	if !marks && bytes.IndexByte(put, '\n') >= 0 {
		at = bytes.LastIndexByte(data[:at], '\n') + 1
		put = append(slices.Clone(put), '\n')
	}
	return slices.Concat(data[:at], put, data[at:])
}

func TestNoSingleEditMakesAFailingReportPass(t *testing.T) {
	t.Parallel()
	for _, red := range redReports {
		data := []byte(red.data)
		assert.Assert(t, !passes(data, 0))
		for i := range data {
			assert.Assert(t, !passes(data[:i], 0), "%s cut at %d", red.name, i)
			was := data[i]
			for _, b := range []byte("\n\r\x00 <>/\"=;]{}:.#019aokn\xff") {
				if data[i] = b; passes(data, 0) {
					t.Errorf("%s: byte %d changed to %q passes", red.name, i, b)
				}
			}
			data[i] = was
			for _, s := range []string{
				"\n", " ", "x", "\"", "<!--", "<![CDATA[", "]]>", "/>", "<failure/>", "</testcase>", "<skipped/>", `failures="0" `, `tests="0" `, `" x="`,
				"\nok 2 - b\n", "ok 2\n", "ok 2 - ", "ok - ", "\n1..2\n", " # TODO x", " # SKIP x", "#", "    ", "\n  ---\n", "\n  ...\n", "\nTAP version 13\n",
				`"Action":"pass",`, `","Action":"pass`, "\n" + `{"Action":"pass","Package":"p","Test":"TestB"}` + "\n", "\n" + `{"Action":"pass","Package":"p"}` + "\n", "\n" + `{"Action":"start","Package":"p"}` + "\n", "Benchmark", `/x`,
			} {
				if passes(inserted(data, i, []byte(s), red.tests > 0), 0) {
					t.Errorf("%s: %q inserted at %d passes", red.name, s, i)
				}
			}
			if red.tests == 0 {
				continue
			}
			for j := i + 1; j <= len(data); j++ {
				if passes(slices.Concat(data[:i], data[j:]), red.tests) {
					t.Errorf("%s: passes without %q", red.name, data[i:j])
				}
			}
		}
	}
}

// FuzzNoSingleEditMakesAFailingReportPass makes the edits of the law above.
func FuzzNoSingleEditMakesAFailingReportPass(f *testing.F) {
	for i := range redReports {
		f.Add(uint8(i), uint16(30), uint16(0), []byte("<failure/>"))
		f.Add(uint8(i), uint16(70), uint16(9), []byte{})
		f.Add(uint8(i), uint16(90), uint16(1), []byte("x"))
		f.Add(uint8(i), uint16(40), uint16(0), []byte("\n{\"Action\":\"pass\",\"Package\":\"p\"}\n"))
	}
	f.Fuzz(func(t *testing.T, which uint8, at, n uint16, put []byte) {
		red := redReports[int(which)%len(redReports)]
		data := []byte(red.data)
		i := int(at) % (len(data) + 1)
		edited, floor := inserted(data, i, put, red.tests > 0), 0
		switch {
		case len(put) == 0 && red.tests > 0:
			edited, floor = slices.Concat(data[:i], data[min(i+int(n), len(data)):]), red.tests
		case len(put) == 0:
			edited = data[:i]
		case len(put) == 1 && i < len(data):
			edited = slices.Concat(data[:i], put, data[i+1:])
		}
		if passes(edited, floor) {
			t.Fatalf("%s passes:\n%s", red.name, edited)
		}
	})
}

// FuzzReadResults holds the laws of everything that can be read.
func FuzzReadResults(f *testing.F) {
	files, err := filepath.Glob("testdata/results/*")
	assert.NilError(f, err)
	for _, name := range files {
		data, err := os.ReadFile(name)
		assert.NilError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ReadResults("x", data)
		if err != nil {
			assert.Assert(t, s.Format == "" && s.Cases == nil && s.Problems == nil)
			return
		}
		c := s.Counts()
		assert.NilError(t, c.check())
		seen := map[string]bool{}
		for _, k := range s.Cases {
			if k.Status.String() == "invalid" || checkName(k.ID) != nil || seen[k.ID] || len(k.Message) > maxMessage || k.Message != printable(k.Message) || k.Line < 0 {
				t.Fatalf("%+v", k)
			}
			seen[k.ID] = true
		}
		r := judgeSuite(s)
		if r.Verdict == Pass && (len(s.Wanting()) > 0 || len(s.Problems) > 0 || c.Passed == 0) {
			t.Fatalf("%+v", s)
		}
		if _, err := EncodeReport(r); err != nil {
			t.Fatal(err)
		}
		// What passes passes by its names, too, and each signal more against it is
		// one too many.
		if r.Verdict == Pass {
			res := Results{Suite: s, SHA256: emptySum}
			list, err := NewTests(idsOf(s.Cases))
			assert.NilError(t, err)
			assert.Equal(t, JudgeResults(earlier(), res, Expect{Total: list.Len(), Tests: list}).Verdict, Pass)
			more, err := NewTests(append(idsOf(s.Cases), "one more\u00a7"))
			assert.NilError(t, err)
			for _, worse := range []Report{
				JudgeResults(ran("", 1), res, Expect{}),
				JudgeResults(ran("SMOKE_JSON={\"pass\":0,\"total\":1}\n", 0), res, Expect{}),
				JudgeResults(earlier(), res, Expect{Total: list.Len() + 1}),
				JudgeResults(earlier(), res, Expect{Tests: more}),
				JudgeResults(earlier(), Results{Suite: s, SHA256: emptySum, Errors: []string{"a report is missing"}}, Expect{}),
			} {
				if worse.Verdict == Pass {
					t.Fatalf("passes: %+v", worse)
				}
			}
		}
		// One failure more, in the suite itself, and it does not pass.
		s.Cases = append(s.Cases, Case{ID: "one more", Status: Failed})
		assert.Equal(t, judgeSuite(s).Verdict, Fail)
	})
}

// withFailure appends a failing test to the bytes of a report that could be
// read, as its own runner would have written it.
func withFailure(data []byte) []byte {
	switch s, _ := ReadResults("x", data); s.Format {
	case formatGoTest:
		return slices.Concat(bytes.TrimSuffix(data, []byte("\n")), []byte(`
{"Action":"start","Package":"more"}
{"Action":"run","Package":"more","Test":"TestMore"}
{"Action":"fail","Package":"more","Test":"TestMore"}
{"Action":"fail","Package":"more"}
`))
	case formatTAP:
		return append(slices.Clone(data), "\nnot ok 1000 - one more\n"...)
	}
	// The end tag of the root: the last token that closes an element.
	dec := xml.NewDecoder(bytes.NewReader(data))
	dec.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	end := int64(0)
	for at := int64(0); ; at = dec.InputOffset() {
		token, err := dec.Token()
		if err != nil {
			break
		}
		if _, ok := token.(xml.EndElement); ok {
			end = at
		}
	}
	return slices.Concat(data[:end], []byte(`<testsuite name="more" tests="1" failures="1"><testcase name="more"><failure/></testcase></testsuite>`), data[end:])
}

// FuzzAFailingCaseAppendedToAnyReportIsNoPass holds for every report that can
// be read, passing or not.
func FuzzAFailingCaseAppendedToAnyReportIsNoPass(f *testing.F) {
	files, err := filepath.Glob("testdata/results/*")
	assert.NilError(f, err)
	for _, name := range files {
		data, err := os.ReadFile(name)
		assert.NilError(f, err)
		f.Add(data)
		if s, err := ReadResults("x", data); err == nil {
			// That the failure is really there, or the law would say nothing.
			more, err := ReadResults("x", withFailure(data))
			if len(s.Cases) > 0 {
				assert.NilError(f, err, name)
				assert.Assert(f, len(more.Wanting()) > len(s.Wanting()), name)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := ReadResults("x", data); err != nil {
			return
		}
		if more := withFailure(data); passes(more, 0) {
			t.Fatalf("passes:\n%s", more)
		}
	})
}

// manyCases is a report of n cases in suites of a hundred, one of them failed.
func manyCases(n int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"%d\" failures=\"1\">\n", n)
	for i := range n {
		if i%100 == 0 {
			failures := 0
			if i == 0 {
				failures = 1
			}
			fmt.Fprintf(&b, "  <testsuite name=\"shop.Suite%d\" tests=\"%d\" failures=\"%d\" errors=\"0\" skipped=\"0\" time=\"1.5\">\n    <properties><property name=\"java.version\" value=\"21\"/></properties>\n", i/100, min(100, n-i), failures)
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

// naive is what reading the same report into structs takes, without a check.
type naive struct {
	Suites []struct {
		Name  string `xml:"name,attr"`
		Tests int    `xml:"tests,attr"`
		Cases []struct {
			Name      string `xml:"name,attr"`
			Classname string `xml:"classname,attr"`
			File      string `xml:"file,attr"`
			Line      int    `xml:"line,attr"`
			Failure   *struct {
				Message string `xml:"message,attr"`
				Body    string `xml:",chardata"`
			} `xml:"failure"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

// BenchmarkJUnit4000Cases reads the report with ReadResults and, for the ratio
// it reports, with xml.Unmarshal, in turn and on the same machine.
func BenchmarkJUnit4000Cases(b *testing.B) {
	data := manyCases(4000)
	b.SetBytes(int64(len(data)))
	var ours, theirs time.Duration
	for b.Loop() {
		start := time.Now()
		s, err := ReadResults("x", data)
		ours += time.Since(start)
		if err != nil || len(s.Cases) != 4000 || len(s.Problems) > 0 {
			b.Fatal(err, s.Problems)
		}
		start = time.Now()
		var n naive
		if err := xml.Unmarshal(data, &n); err != nil || len(n.Suites) != 40 {
			b.Fatal(err)
		}
		theirs += time.Since(start)
	}
	b.ReportMetric(float64(ours)/float64(theirs), "of-xml.Unmarshal")
}
