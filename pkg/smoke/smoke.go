// Package smoke runs a repository's smoke command and judges it N of N.
//
// The verdict is the AND of independent signals: the exit status of the
// command, the counts it printed or its tests wrote, and the floor and the names
// of tests that the configuration sets. A run passes when
//
//	exit status == 0, failed == 0, skipped == 0, total > 0,
//	passed (+ warned, only under "warnings: allow") == total, total >= floor,
//	each named test is among them
//
// and fails when a signal says otherwise. When the signals cannot be had (the
// command did not start, was killed, ran out of time, printed no result or an
// unreadable one) the verdict is an error, which is never a pass. A total is
// never assumed and numbers are never picked out of prose: the first smoke
// script this package was made for ends with the words "RATING: 8.0/10" and
// exit status 0 after 20 of 26 tests passed.
//
// # Accepted results
//
// Results are read from standard output only, line by line, after terminal
// escape sequences are removed.
//
// smoke-json: exactly one line that begins with SMOKE_JSON= and goes on with
// one JSON object of whole numbers,
//
//	SMOKE_JSON={"pass":27,"total":27}
//	SMOKE_JSON={"v":1,"pass":25,"fail":0,"skip":0,"warn":2,"total":27}
//
// In the first form what did not pass counts as failed. In the second the four
// counts must add up to the total; it may also carry the names of the tests,
//
//	SMOKE_JSON={"v":1,"pass":2,"fail":0,"skip":0,"warn":0,"total":2,"ids":["adds","removes"]}
//
// as many as the total says and each once, or in their place "ids_sha256", the
// SHA-256 of the names sorted bytewise and each ended by a newline. The line is
// at most 4 MiB. Unknown and repeated keys, fractions, signs and exponents are
// refused.
//
// human: the four lines below, each exactly once, adding up to the first.
//
//	Tests Run:     26
//	Passed:        20
//	Failed:        0
//	Warnings:      6
//
// auto: SMOKE_JSON if there is one, else the block. If both are there both are
// read, and counts that differ are a failure that names both.
//
// # Reports of test runners
//
// Instead of what a command prints, the files that test runners write can be
// judged, one or several together ([FindReports], [ReadResults],
// [JudgeResults]). Their content says what they are; anything else is refused.
//
// junit: JUnit XML with the root testsuites or testsuite, UTF-8, no document
// type. Suites nest. A case counts as the worst of its results: error, failure,
// skipped (also disabled and status="notrun"), warning. A flakyFailure passes
// and is noted, a rerunFailure fails. An element or status that is not known
// could be a failure by another name, so with it there is no pass. pytest's
// expected failures are skips there.
//
// gotest: the output of go test -json, every line an event. Tests are counted
// by their leaves; a test with subtests only when it failed though none of them
// did, or skipped. A build that fails, a package that fails without a failing
// test, and a test or a package without a result are errors.
//
// tap: TAP 12, 13 or 14, as bats prints it. Exactly one plan, first or last, and
// every number in it once. A planned test without a result failed, "Bail out!"
// is an error, a TODO that is not ok is a warning, a SKIP is a skip. Subtests
// belong to their parent. Lines that are not of the protocol count for nothing.
//
// The counts are the worse of the cases and of the totals that a report
// declares. Where it contradicts itself (totals, plans, a second result of one
// test) it never passes. What declares no totals can be cut short without a
// trace: a floor on the number of tests, or a list of them, is what tells.
//
// Beside reports, what the command prints can only speak against it: a
// SMOKE_JSON line or a block that would not pass, and the last line of pytest
// when it counts failures or errors.
//
// # Named tests
//
// A floor does not notice a test that is taken out when another is put in. A
// list of names does ([ParseTests]): UTF-8, one name a line, each once, nothing
// around it. Empty lines and lines that begin with # say nothing; a name that
// begins with # or \ has a \ in front.
//
//	# what must pass
//	example.com/shop/cart.TestAdd/one
//	shop.CartTest.ships
//
// A named test that is not there is removed, and the run fails. One that did not
// pass is newly failing, since the list says that it did. Tests that are not
// named are fine; if one fails it is new. A run whose output gives no names is an
// error then, unless it fails by itself; of "ids_sha256" only that of exactly the
// list will do.
//
// The name of a test is what its runner calls it: the class (or else the suite)
// and the name in JUnit, package and test in gotest, the description without the
// time of bats in TAP. The second test of a name is called "name (2)", in the
// order of the files' names and of the tests in them.
//
// # Report
//
// A [Report] is what a job without keys hands to the job that records it. It is
// canonical JSON (RFC 8785) of at most 16 KiB:
//
//	{"command":"./SMOKE_TEST.sh","commit":"<40 or 64 hex, or empty>",
//	 "exit_code":0,"expected":27,"failed":0,"finished":"2025-01-02T03:04:05Z",
//	 "format":"smoke-json","output_bytes":1234,"output_sha256":"<64 hex>",
//	 "passed":27,"reasons":[],"skipped":0,"started":"2025-01-02T03:04:00Z",
//	 "total":27,"v":1,"verdict":"pass","warned":0}
//
// exit_code is null when it is not known. failed includes the tests that errored;
// errored is there when some did, and says how many. Judged by reports of test
// runners, output_sha256 is that of what sha256sum prints for them, sorted by
// name, and format joins their names: "gotest+junit". command_sha256 is there only when
// command was cut short, ids_sha256 only when the tests named themselves, and
// tests_sha256 only when tests were named: it is that of the list, in the form of
// ids_sha256. A report is unsigned: it proves nothing about who ran what, so a
// reader that has its own configuration asks [Report.Under] and never the verdict
// alone.
//
// # Statement
//
// For those who sign with tools of their own, [Statement] says the same as an
// in-toto Statement v1 with a test-result predicate v0.1, canonical and of at most
// 31 KiB. Its subject is the commit (gitCommit), or without one the raw reports by
// their SHA-256. result is PASSED, WARNED (passed, with warnings that are allowed)
// or FAILED; what could not be judged is FAILED, and vaultmesh_verdict says
// "error". configuration lists the configuration file that judged and the raw
// reports. passedTests, warnedTests and failedTests are sorted, and there only when
// it is known how each test ended; vaultmesh_removedTests is there when tests were
// named. A list of more than 4 KiB, and more than 16 reports, are left out:
// vaultmesh_omitted then has, under its name, the count and the SHA-256 of the
// names each ended by a newline; under "reports" that of the lines of sha256sum.
package smoke

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Verdict is the outcome of a judgement. Its zero value is no verdict.
type Verdict uint8

const (
	// Pass: every signal says that every test passed.
	Pass Verdict = iota + 1
	// Fail: judged and found wanting.
	Fail
	// Error: could not be judged. Never a pass.
	Error
)

// String returns "pass", "fail" or "error", and "invalid" for anything else.
func (v Verdict) String() string {
	switch v {
	case Pass:
		return "pass"
	case Fail:
		return "fail"
	case Error:
		return "error"
	}
	return "invalid"
}

// ExitStatus returns the exit status a gate ends with: 0 for Pass, 1 for Fail,
// 3 for Error and for anything that is no verdict.
func (v Verdict) ExitStatus() int {
	switch v {
	case Pass:
		return 0
	case Fail:
		return 1
	}
	return 3
}

func parseVerdict(s string) (Verdict, error) {
	for _, v := range []Verdict{Pass, Fail, Error} {
		if v.String() == s {
			return v, nil
		}
	}
	return 0, fmt.Errorf("verdict: found %q, wanted pass, fail or error", clip(s, 40))
}

// Expect is what the configuration demands of a run.
type Expect struct {
	// Total is the floor: a run of fewer tests fails. 0 sets no floor.
	Total int
	// Warnings is "allow" to count warnings as passes. Any other value,
	// "fail" by name, does not.
	Warnings string
	// Tests must all be there. The zero value names none.
	Tests Tests
}

func (e Expect) allowsWarnings() bool { return e.Warnings == "allow" }

// maxExpect keeps the floor within an int everywhere.
const maxExpect = 1<<31 - 1

func (e Expect) check() error {
	if e.Total < 0 || e.Total > maxExpect {
		return fmt.Errorf("expected total is %d, wanted 0 to 2^31-1", e.Total)
	}
	return nil
}

// Judge turns one execution and the counts read from its output into a report.
// An execution without an exit status (other than a saved output) is an error,
// and so are counts that no reader could have returned.
func Judge(x Execution, c Counts, e Expect) Report {
	r := x.report(e)
	if x.Failure != "" {
		return r.failing(Error, x.Failure)
	}
	if x.ExitCode == nil && !x.Saved {
		return r.failing(Error, "the command left no exit status")
	}
	if err := e.check(); err != nil {
		return r.failing(Error, err.Error())
	}
	if err := c.check(); err != nil {
		return r.failing(Error, err.Error())
	}
	found := shortfalls(c, x.ExitCode, e)
	gone, known := e.Tests.missing(c)
	if !known {
		const unknown = "which tests ran is not known, and the base names %s: print the names as \"ids\" of the SMOKE_JSON line, or let the tests write a report (JUnit, go test -json, TAP)"
		why := fmt.Sprintf(unknown, plural(int64(e.Tests.Len()), "test", "tests"))
		if len(found) == 0 {
			return r.failing(Error, why)
		}
		found = append(found, why)
	}
	if len(gone) > 0 {
		found = append(found, e.Tests.removed(gone))
	}
	r.Passed, r.Failed, r.Errored, r.Warned, r.Skipped, r.Total = c.Passed, c.Failed, c.Errored, c.Warned, c.Skipped, c.Total
	r.Format, r.IDsSHA256, r.TestsSHA256 = c.Format, c.IDsSHA256, e.Tests.SHA256()
	r.Verdict = Pass
	if len(found) > 0 {
		r.Verdict = Fail
	}
	return r.because(append(found, notes(r, e)...)...)
}

// JudgeOutput reads the counts from the execution's standard output and judges
// them. Output that cannot be read is an error, unless the exit status alone
// proves a failure.
func JudgeOutput(x Execution, read Reader, e Expect) Report {
	if x.Failure != "" || (x.ExitCode == nil && !x.Saved) {
		return Judge(x, Counts{}, e)
	}
	c, err := read(x.Stdout)
	if err == nil {
		return Judge(x, c, e)
	}
	return x.unreadable(e, err.Error())
}

// unreadable judges an execution by its exit status alone, which can prove a
// failure but never a pass. why says what could not be read.
func (x Execution) unreadable(e Expect, why ...string) Report {
	r := x.report(e)
	switch {
	case x.ExitCode == nil || *x.ExitCode == 0:
		r.Verdict = Error
	case x.shell && (*x.ExitCode == 126 || *x.ExitCode == 127):
		// The shell's own words for "nothing was run".
		r = r.failing(Error, fmt.Sprintf("exit status %d: the shell could not find or start the command", *x.ExitCode))
	default:
		r = r.failing(Fail, fmt.Sprintf("exit status %d", *x.ExitCode))
	}
	return r.because(why...).because(notes(r, e)...)
}

// shortfalls lists why these counts and this exit status (nil: not known) are
// not a pass. It is the only place that decides.
func shortfalls(c Counts, exit *int, e Expect) []string {
	var why []string
	good := c.Passed
	if e.allowsWarnings() {
		good += c.Warned
	}
	short := good != c.Total || c.Failed != 0 || c.Skipped != 0
	if short {
		var parts []string
		if n := c.Failed - c.Errored; n > 0 {
			parts = append(parts, fmt.Sprintf("%d failed", n))
		}
		if c.Errored > 0 {
			parts = append(parts, fmt.Sprintf("%d errored", c.Errored))
		}
		if c.Skipped > 0 {
			parts = append(parts, fmt.Sprintf("%d skipped, which is not passed", c.Skipped))
		}
		if c.Warned > 0 && !e.allowsWarnings() {
			parts = append(parts, plural(c.Warned, "warning is not a pass", "warnings are not passes")+" (set warnings: allow to count them)")
		}
		why = append(why, fmt.Sprintf("%d of %d tests passed: %s", c.Passed, c.Total, strings.Join(parts, "; ")))
	}
	if c.Total == 0 {
		why = append(why, "0 tests ran: nothing was tested")
	}
	if c.Total < int64(e.Total) {
		why = append(why, fmt.Sprintf("%s ran, expected at least %d", plural(c.Total, "test", "tests"), e.Total))
	}
	if c.Disagreement != "" {
		why = append(why, c.Disagreement)
	}
	switch {
	case exit == nil:
	case *exit == 0 && short:
		why = append(why, "exit status 0 but counts say failing")
	case *exit != 0 && len(why) == 0:
		why = append(why, fmt.Sprintf("counts fine but exit status %d", *exit))
	case *exit != 0:
		why = append(why, fmt.Sprintf("exit status %d", *exit))
	}
	return why
}

// notes are things a reader must know that decide nothing.
func notes(r Report, e Expect) []string {
	var n []string
	if r.Warned > 0 && e.allowsWarnings() {
		n = append(n, plural(r.Warned, "warning", "warnings")+" counted as passed (warnings: allow)")
	}
	if r.ExitCode == nil {
		n = append(n, "exit status not known: saved output")
	}
	return n
}

// Under judges a report again under an expectation the reader trusts. A pass
// may become a failure; a failure or an error stays what it is, so a report
// can never talk its way to a better verdict. A report does not carry the names
// of tests: where some are expected, it must have been judged by that very list.
func (r Report) Under(e Expect) Report {
	if r.Verdict != Pass {
		return r
	}
	found := shortfalls(r.counts(), r.ExitCode, e)
	if e.Tests.Len() > 0 && r.TestsSHA256 != e.Tests.SHA256() {
		found = append(found, fmt.Sprintf("it was not judged by the %s that must be there", plural(int64(e.Tests.Len()), "test", "tests")))
	}
	if err := e.check(); err != nil {
		found = append(found, err.Error())
	} else {
		r.Expected = int64(e.Total)
	}
	if len(found) == 0 {
		return r
	}
	r.Verdict = Fail
	reasons := r.Reasons
	r.Reasons = nil
	return r.because(found...).because(reasons...)
}

func (r Report) counts() Counts {
	return Counts{
		Passed: r.Passed, Failed: r.Failed, Errored: r.Errored, Warned: r.Warned, Skipped: r.Skipped, Total: r.Total,
		Format: r.Format, IDsSHA256: r.IDsSHA256,
	}
}

// report is the part of a report that does not depend on the judgement.
func (x Execution) report(e Expect) Report {
	r := Report{
		Expected:     int64(min(max(e.Total, 0), maxExpect)),
		ExitCode:     x.ExitCode,
		OutputSHA256: x.OutputSHA256,
		OutputBytes:  x.OutputBytes,
		Started:      x.Started.UTC().Truncate(time.Second),
		Finished:     x.Finished.UTC().Truncate(time.Second),
	}
	// A wall clock that was set back during the run is no reason for a report
	// that ends before it begins.
	if r.Finished.Before(r.Started) {
		r.Finished = r.Started
	}
	r.Command = clip(printable(x.Command), maxCommand)
	if r.Command != x.Command {
		r.CommandSHA256 = hexSHA256([]byte(x.Command))
	}
	return r
}

func (r Report) failing(v Verdict, reasons ...string) Report {
	r.Verdict = v
	return r.because(reasons...)
}

// because adds reasons, made printable and cut to size: the text may quote
// what an untrusted command printed.
func (r Report) because(reasons ...string) Report {
	all := append([]string{}, r.Reasons...)
	for _, s := range reasons {
		if len(all) == maxReasons {
			break
		}
		all = append(all, clip(printable(s), maxReason))
	}
	r.Reasons = all
	return r
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.FormatInt(n, 10) + " " + many
}

// printable replaces what could move a cursor, reorder text or start a line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case !unicode.IsPrint(r):
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
}

// clip cuts s to at most n bytes on a rune's border and marks the cut.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n -= len("…")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
