package smoke

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

func named(t testing.TB, names ...string) Tests {
	list, err := NewTests(names)
	assert.NilError(t, err)
	return list
}

func TestAListOfTestsIsReadStrictly(t *testing.T) {
	list, err := ParseTests([]byte("# what must pass\n\nb c\na\n\\#12 works\n\\\\d+\n\n"))
	assert.NilError(t, err)
	assert.DeepEqual(t, list.names, []string{"#12 works", `\d+`, "a", "b c"})
	assert.Equal(t, string(list.Bytes()), "# Each of these tests must be there and pass. Written by remembrancer smoke --write-tests.\n\\#12 works\n\\\\d+\na\nb c\n")
	assert.Equal(t, list.SHA256(), hexSHA256([]byte("#12 works\n\\d+\na\nb c\n")))
	assert.Equal(t, Tests{}.SHA256(), "")
	for _, tc := range []struct{ name, data, err string }{
		{"empty", "", "no test is named, wanted at least one"},
		{"only comments", "# a\n\n#b\n", "no test is named, wanted at least one"},
		{"twice", "a\n# x\nb\na\n", `line 4: test "a" is named twice, first on line 1`},
		{"twice, escaped", "a\n\\a\n", `line 2: test "a" is named twice, first on line 1`},
		{"blank in front", "a\n b\n", `line 2: found " b", wanted a name without blanks around it`},
		{"blank behind", "a \n", `line 1: found "a ", wanted a name without blanks around it`},
		{"CRLF", "a\r\n", `line 1: found "a\r", wanted a name without blanks around it`},
		{"only a blank", " \n", `line 1: found " ", wanted a name without blanks around it`},
		{"only a backslash", "\\\n", "line 1: a test has an empty name"},
		{"escape sequence", "a\x1b[2J\n", `line 1: found "a\x1b[2J", wanted a name of printable UTF-8`},
		{"byte order mark", "\ufeffa\n", `line 1: found "\ufeffa", wanted a name of printable UTF-8`},
		{"not UTF-8", "a\xff\n", "found bytes that are not UTF-8"},
		{"long", strings.Repeat("x", maxName+1) + "\n", fmt.Sprintf("line 1: found a name of %d bytes, wanted at most %d: %q", maxName+1, maxName, clip(strings.Repeat("x", maxName), 80))},
		{"huge", strings.Repeat("#", maxTests+1), "16777217 bytes, wanted at most 16777216"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseTests([]byte(tc.data))
			assert.Error(t, err, tc.err)
			assert.Equal(t, got.Len(), 0)
		})
	}
	_, err = NewTests([]string{"b", "a", "b"})
	assert.Error(t, err, `test "b" is named twice`)
}

// What parses encodes to a file that parses to the same, and a failed parse
// names nothing.
func FuzzTestsComeBackAsTheyWere(f *testing.F) {
	f.Add([]byte("b\n# x\n\n\\#a\n\\\\\n"))
	f.Add([]byte("a (2)\na\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseTests(data)
		if err != nil {
			assert.Equal(t, list.Len(), 0)
			return
		}
		file := list.Bytes()
		again, err := ParseTests(file)
		assert.NilError(t, err)
		assert.DeepEqual(t, again.names, list.names)
		assert.Assert(t, bytes.Equal(again.Bytes(), file))
		assert.Assert(t, slices.IsSorted(list.names) && list.Len() > 0)
	})
}

func suiteOf(t testing.TB, cases ...Case) Suite {
	s, err := NewSuite(cases)
	assert.NilError(t, err)
	return s
}

func TestNamedTestsMustBeThereAndPass(t *testing.T) {
	e := Expect{Tests: named(t, "a", "b", "c")}
	pass := func(id string) Case { return Case{ID: id, Status: Passed} }
	for _, tc := range []struct {
		name    string
		cases   []Case
		e       Expect
		verdict Verdict
		reasons []string
	}{
		{"all", []Case{pass("a"), pass("b"), pass("c")}, e, Pass, []string{}},
		{"one more", []Case{pass("a"), pass("b"), pass("c"), pass("d")}, e, Pass, []string{}},
		{"removed", []Case{pass("a"), pass("c")}, e, Fail, []string{"removed: b, of 3 named tests"}},
		{"removed, the count stays", []Case{pass("a"), pass("c"), pass("d")}, e, Fail, []string{"removed: b, of 3 named tests"}},
		{"all removed", []Case{pass("d")}, e, Fail, []string{"removed: a, b, c, of 3 named tests"}},
		{"newly failing", []Case{pass("a"), {ID: "b", Status: Failed}, pass("c")}, e, Fail, []string{"2 of 3 tests passed: 1 failed", "newly failing: b, of 3 named tests"}},
		{"failing, new", []Case{pass("a"), pass("b"), pass("c"), {ID: "d", Status: Errored}}, e, Fail, []string{"3 of 4 tests passed: 1 errored", "failing, new: d"}},
		{"skipped", []Case{pass("a"), {ID: "b", Status: Skipped}, pass("c")}, e, Fail, []string{"2 of 3 tests passed: 1 skipped, which is not passed", "newly failing: b, of 3 named tests"}},
		{"warned", []Case{pass("a"), {ID: "b", Status: Warned}, pass("c")}, e, Fail, []string{"2 of 3 tests passed: 1 warning is not a pass (set warnings: allow to count them)", "newly failing: b, of 3 named tests"}},
		{"warned, allowed", []Case{pass("a"), {ID: "b", Status: Warned}, pass("c")}, Expect{Tests: e.Tests, Warnings: "allow"}, Pass, []string{"1 warning counted as passed (warnings: allow)"}},
		{"flaky", []Case{pass("a"), {ID: "b", Status: Passed, Flaky: true}, pass("c")}, e, Pass, []string{"1 test passed only when run again: b"}},
		{"all at once", []Case{{ID: "a", Status: Failed}, {ID: "d", Status: Failed}, {ID: "c", Status: Passed, Flaky: true}}, e, Fail, []string{
			"1 of 3 tests passed: 2 failed", "removed: b, of 3 named tests", "newly failing: a, of 3 named tests", "failing, new: d", "1 test passed only when run again: c",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := JudgeResults(earlier(), Results{Suite: suiteOf(t, tc.cases...), SHA256: emptySum}, tc.e)
			assert.Equal(t, got.Verdict, tc.verdict)
			reasons := slices.DeleteFunc(slices.Clone(got.Reasons), func(s string) bool { return s == "exit status not known: saved output" })
			assert.DeepEqual(t, reasons, tc.reasons)
			assert.Equal(t, got.TestsSHA256, e.Tests.SHA256())
			data, err := EncodeReport(got)
			assert.NilError(t, err)
			back, err := DecodeReport(data)
			assert.NilError(t, err)
			assert.DeepEqual(t, back, got)
		})
	}
}

func TestOutputThatNamesNoTestsIsNoPassWhereTestsAreNamed(t *testing.T) {
	e := Expect{Tests: named(t, "a", "b")}
	const unknown = `which tests ran is not known, and the base names 2 tests: print the names as "ids" of the SMOKE_JSON line, or let the tests write a report (JUnit, go test -json, TAP)`
	line := func(ids string) string {
		return `SMOKE_JSON={"v":1,"pass":2,"fail":0,"skip":0,"warn":0,"total":2` + ids + "}\n"
	}
	for _, tc := range []struct {
		name, out string
		exit      int
		verdict   Verdict
		reasons   []string
	}{
		{"ids", line(`,"ids":["b","a"]`), 0, Pass, []string{}},
		{"their digest", line(`,"ids_sha256":"` + e.Tests.SHA256() + `"`), 0, Pass, []string{}},
		{"ids and more", `SMOKE_JSON={"v":1,"pass":3,"fail":0,"skip":0,"warn":0,"total":3,"ids":["b","a","c"]}`, 0, Pass, []string{}},
		{"ids beside the block", line(`,"ids":["b","a"]`) + "Tests Run: 2\nPassed: 2\nFailed: 0\nWarnings: 0\n", 0, Pass, []string{}},
		{"other ids", line(`,"ids":["b","c"]`), 0, Fail, []string{"removed: a, of 2 named tests"}},
		{"another digest", line(`,"ids_sha256":"` + emptySum + `"`), 0, Error, []string{unknown}},
		{"no ids", line(""), 0, Error, []string{unknown}},
		{"legacy", `SMOKE_JSON={"pass":2,"total":2}`, 0, Error, []string{unknown}},
		{"block", "Tests Run: 2\nPassed: 2\nFailed: 0\nWarnings: 0\n", 0, Error, []string{unknown}},
		{"no ids, exit status", line(""), 1, Fail, []string{"counts fine but exit status 1", unknown}},
		{"no ids, failing", `SMOKE_JSON={"pass":1,"total":2}`, 0, Fail, []string{"1 of 2 tests passed: 1 failed", "exit status 0 but counts say failing", unknown}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := JudgeOutput(ran(tc.out, tc.exit), readAuto, e)
			assert.Equal(t, got.Verdict, tc.verdict)
			assert.DeepEqual(t, got.Reasons, tc.reasons)
			_, err := EncodeReport(got)
			assert.NilError(t, err)
		})
	}
	// A vast plan names some of its tests and counts the rest.
	s, err := ReadResults("x", []byte("1..1000\nok 1 a\nok 2 b\n"))
	assert.NilError(t, err)
	got := JudgeResults(earlier(), Results{Suite: s, SHA256: emptySum}, e)
	assert.Equal(t, got.Verdict, Fail)
}

func TestAReportIsHeldToTheNamesItWasJudgedBy(t *testing.T) {
	e := Expect{Tests: named(t, "a", "b")}
	green := Results{Suite: suiteOf(t, Case{ID: "a", Status: Passed}, Case{ID: "b", Status: Passed}), SHA256: emptySum}
	r := JudgeResults(earlier(), green, e)
	assert.DeepEqual(t, r.Under(e), r)
	assert.DeepEqual(t, r.Under(Expect{}), r) // who names none asks less
	for _, tc := range []struct {
		r Report
		e Expect
	}{
		{r, Expect{Tests: named(t, "a")}},
		{r, Expect{Tests: named(t, "a", "b", "c")}},
		{JudgeResults(earlier(), green, Expect{}), e},
	} {
		got := tc.r.Under(tc.e)
		assert.Equal(t, got.Verdict, Fail)
		assert.Assert(t, strings.HasPrefix(got.Reasons[0], "it was not judged by the "), got.Reasons[0])
	}
	bare := r
	bare.IDsSHA256 = ""
	_, err := EncodeReport(bare)
	assert.Error(t, err, "smoke report: verdict is pass of named tests, but the tests that ran have no names")
}

// With more tests named, fewer that run, or one that does not pass, a verdict
// gets no better.
func TestNamesOnlyEverTurnAPassIntoSomethingWorse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSuite(t)
		x := earlier()
		before := JudgeResults(x, Results{Suite: s, SHA256: emptySum}, Expect{})
		ids := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"t0", "t1", "t2", "t3", "t4", "t5", "x"}), 1, 5, rapid.ID).Draw(t, "named")
		list, err := NewTests(ids)
		assert.NilError(t, err)
		e := Expect{Tests: list}
		after := JudgeResults(x, Results{Suite: s, SHA256: emptySum}, e)
		there := true
		for _, id := range ids {
			there = there && slices.ContainsFunc(s.Cases, func(c Case) bool { return c.ID == id && c.Status == Passed })
		}
		assert.Equal(t, after.Verdict == Pass, before.Verdict == Pass && there)

		c := e.Compare(s)
		assert.Equal(t, c.Named, len(ids))
		assert.Equal(t, len(c.Removed) == 0 && len(c.NewlyFailing) == 0, there)
		assert.Equal(t, c.Added, len(s.Cases)-(len(ids)-len(c.Removed)))
		var run []string
		for _, k := range s.Cases {
			run = append(run, k.ID)
		}
		byID := e.CompareIDs(run)
		assert.DeepEqual(t, byID.Removed, c.Removed)
		assert.Equal(t, byID.Added, c.Added)
		if len(s.Cases) > 0 {
			i := rapid.IntRange(0, len(s.Cases)-1).Draw(t, "drop")
			s.Cases = slices.Delete(slices.Clone(s.Cases), i, i+1)
			if less := JudgeResults(x, Results{Suite: s, SHA256: emptySum}, e); after.Verdict != Pass && len(c.Removed) > 0 {
				assert.Assert(t, less.Verdict != Pass)
			}
		}
	})
}

func TestWhatChangedIsNamedForPeople(t *testing.T) {
	e := Expect{Tests: named(t, "gone", "broke", "same")}
	s := suiteOf(t,
		Case{ID: "broke", Status: Failed, File: "a_test.go", Line: 3, Message: "got 1, wanted 2"},
		Case{ID: "same", Status: Passed, Flaky: true},
		Case{ID: "new | <b>", Status: Errored},
		Case{ID: "other", Status: Passed},
	)
	c := e.Compare(s)
	assert.DeepEqual(t, c, Change{
		Named: 3, Removed: []string{"gone"}, Added: 2,
		NewlyFailing: []Case{s.Cases[0]}, Failing: []Case{s.Cases[2]}, Flaky: []Case{s.Cases[1]},
	})
	assert.Equal(t, c.Text(), "   removed       gone\n"+
		"   newly failing broke (a_test.go:3): got 1, wanted 2\n"+
		"   failing, new  new | <b>\n"+
		"   flaky         same\n"+
		"   2 tests were added, and are not named by the base\n")
	const head = "| test | result | where | message |\n|---|---|---|---|\n"
	assert.Equal(t, c.Summary(), "\n#### Removed tests: 1\n\n"+head+"| gone | not there |  |  |\n"+
		"\n#### Newly failing: 1\n\n"+head+"| broke | failed | a&#95;test.go&#58;3 | got 1, wanted 2 |\n"+
		"\n#### Failing, new tests: 1\n\n"+head+"| new &#124; &#60;b&#62; | errored |  |  |\n"+
		"\n#### Flaky: 1\n\n"+head+"| same | passed |  |  |\n"+
		"\nThe base names 3 tests; added: 2.\n")
}

// A runner drops a summary of more than 1 MiB whole.
func TestASummaryIsFarBelowWhatARunnerTakes(t *testing.T) {
	worst := Change{Named: 1}
	for i := range 5000 {
		k := Case{ID: strings.Repeat("@", maxID-8) + fmt.Sprint(i), Status: Failed, File: strings.Repeat("#", maxID), Line: 1, Message: strings.Repeat("@", maxMessage)}
		worst.Removed = append(worst.Removed, k.ID)
		worst.NewlyFailing = append(worst.NewlyFailing, k)
		worst.Failing = append(worst.Failing, k)
		worst.Flaky = append(worst.Flaky, k)
	}
	text := worst.Summary()
	assert.Assert(t, len(text) < 700<<10, "%d", len(text))
	assert.Equal(t, strings.Count(text, "\n…and "), 4)
	assert.Equal(t, strings.Count(text, "\n#### "), 4)
	short := Change{}
	for i := range tableRows + 7 {
		short.Flaky = append(short.Flaky, Case{ID: fmt.Sprint(i), Status: Passed})
	}
	assert.Assert(t, strings.HasSuffix(short.Summary(), "| 199 | passed |  |  |\n\n…and 7 more\n"))
}

func TestASuiteOfOurOwnRunnerIsCheckedLikeAnyOther(t *testing.T) {
	for _, tc := range []struct {
		cases []Case
		err   string
	}{
		{[]Case{{ID: "a", Status: Passed}, {ID: "a", Status: Passed}}, `test "a" is there twice`},
		{[]Case{{ID: "a"}}, `test "a" has no status`},
		{[]Case{{ID: "a", Status: Errored + 1}}, `test "a" has no status`},
		{[]Case{{Status: Passed}}, "a test has an empty name"},
		{[]Case{{ID: " a", Status: Passed}}, `found " a", wanted a name without blanks around it`},
		{[]Case{{ID: "a\nb", Status: Passed}}, `found "a\nb", wanted a name of printable UTF-8`},
		{[]Case{{ID: strings.Repeat("a", maxID+1), Status: Passed}}, fmt.Sprintf("found a name of 513 bytes, wanted at most 512: %q", clip(strings.Repeat("a", maxID), 80))},
		{[]Case{{ID: "a", Status: Failed, Flaky: true}}, `test "a" is flaky and failed, wanted passed`},
	} {
		got, err := NewSuite(tc.cases)
		assert.Error(t, err, tc.err)
		assert.DeepEqual(t, got, Suite{})
	}
	s := suiteOf(t, Case{ID: "a", Status: Failed, File: `b\smoke.yaml`, Line: 4, Message: " red\n\x1b[2J"})
	assert.DeepEqual(t, s, Suite{Format: "suite", Cases: []Case{{ID: "a", Status: Failed, File: "b/smoke.yaml", Line: 4, Message: "red \ufffd[2J"}}})
	assert.Equal(t, judgeSuite(s).Verdict, Fail)
	assert.Equal(t, judgeSuite(suiteOf(t)).Verdict, Fail, "no test is no pass")
	green := judgeSuite(suiteOf(t, Case{ID: "a", Status: Passed}))
	assert.Equal(t, green.Verdict, Pass)
	assert.Equal(t, green.Format, "suite")
}

func TestWhatPytestPrintsIsEvidenceAgainstARun(t *testing.T) {
	green := Results{Suite: Suite{Format: "junit", Cases: []Case{{ID: "a", Status: Passed}}}, SHA256: emptySum}
	for out, want := range map[string]Verdict{
		"===== 3 passed in 0.12s =====\n":                                    Pass,
		"3 passed, 2 warnings in 0.12s\n":                                    Pass,
		"\x1b[31m=== \x1b[1m1 failed\x1b[0m, 2 passed in 0.12s ===\x1b[0m\n": Fail,
		"1 failed, 2 passed in 75.12s (0:01:15)\n":                           Fail,
		"==== 2 passed, 1 error in 0.05s ====\n":                             Fail,
		"=== 10 failed in 1s ===\n":                                          Fail,
		"0 failed, 2 passed in 1s\n":                                         Pass,
		"retrying: 1 failed attempt in 3s, and more words\n":                 Pass,
	} {
		got := JudgeResults(ran(out, 0), green, Expect{})
		assert.Equal(t, got.Verdict, want, out)
		if want == Fail {
			assert.Assert(t, strings.HasPrefix(got.Reasons[0], "standard output: pytest says "), got.Reasons[0])
		}
	}
	assert.Equal(t, JudgeOutput(ran("===== 3 passed in 0.12s =====\n", 0), readAuto, Expect{}).Verdict, Error, "it is never a pass by itself")
}

// The same test in two files is two tests: neither result hides the other.
func TestOneTestInTwoFilesCountsTwice(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "1.xml", greenJUnit)
	write(t, dir, "2.xml", strings.Replace(greenJUnit, `failures="0"><testcase name="x"/>`, `failures="1"><testcase name="x"><failure/></testcase>`, 1))
	write(t, dir, "3.tap", "1..1\nok 1 a.x\n")
	res := find(t, dir, "*").Read(time.Time{})
	e := Expect{Tests: named(t, "a.x", "a.x (2)", "a.x (3)")}
	got := JudgeResults(earlier(), res, e)
	assert.Equal(t, got.Verdict, Fail)
	assert.Equal(t, got.Format, "junit+tap")
	assert.DeepEqual(t, []int64{got.Passed, got.Failed, got.Total}, []int64{2, 1, 3})
	assert.DeepEqual(t, idsOf(e.Compare(res.Suite).NewlyFailing), []string{"a.x (2)"})

	// One file less, and one of the names is gone.
	write(t, dir, "2.xml", greenJUnit)
	assert.Equal(t, JudgeResults(earlier(), find(t, dir, "*").Read(time.Time{}), e).Verdict, Pass)
	got = JudgeResults(earlier(), find(t, dir, "1.xml", "3.tap").Read(time.Time{}), e)
	assert.Equal(t, got.Verdict, Fail)
	assert.Equal(t, got.Reasons[0], "removed: a.x (3), of 3 named tests")

	// What a missing report would have named is not called removed.
	got = JudgeResults(earlier(), find(t, dir, "1.xml", "2.xml", "4.tap").Read(time.Time{}), e)
	assert.Equal(t, got.Verdict, Error)
	assert.DeepEqual(t, got.Reasons, []string{`no file matches "4.tap": wanted the reports of the tests`, "exit status not known: saved output"})
}
