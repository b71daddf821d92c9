package smoke

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

var (
	t0 = time.Date(2025, 1, 2, 3, 4, 0, 0, time.UTC)
	t1 = time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
)

func status(n int) *int { return &n }

func ran(stdout string, exit int) Execution {
	return Execution{
		Command: "./SMOKE_TEST.sh", Started: t0, Finished: t1, ExitCode: status(exit),
		Stdout: []byte(stdout), OutputSHA256: hexSHA256([]byte(stdout)), OutputBytes: int64(len(stdout)),
	}
}

func ancestor(t testing.TB) []byte {
	data, err := os.ReadFile("testdata/smoke-output.txt")
	assert.NilError(t, err)
	return data
}

func TestAncestorsGreenRunIsAFailure(t *testing.T) {
	out := string(ancestor(t))
	got := JudgeOutput(ran(out, 0), readAuto, Expect{Warnings: "fail"})
	assert.DeepEqual(t, got, Report{
		Verdict: Fail, Passed: 20, Warned: 6, Total: 26, ExitCode: status(0),
		Command: "./SMOKE_TEST.sh", Format: "human", OutputSHA256: hexSHA256([]byte(out)), OutputBytes: 5546,
		Reasons: []string{
			"20 of 26 tests passed: 6 warnings are not passes (set warnings: allow to count them)",
			"exit status 0 but counts say failing",
		},
		Started: t0, Finished: t1,
	})
}

func TestWarningsCountOnlyWhenAllowed(t *testing.T) {
	got := JudgeOutput(ran(string(ancestor(t)), 0), readAuto, Expect{Total: 26, Warnings: "allow"})
	assert.Equal(t, got.Verdict, Pass)
	assert.DeepEqual(t, got.Reasons, []string{"6 warnings counted as passed (warnings: allow)"})
	for _, other := range []string{"", "fail", "Allow", "allow "} {
		got := JudgeOutput(ran(string(ancestor(t)), 0), readAuto, Expect{Total: 26, Warnings: other})
		assert.Equal(t, got.Verdict, Fail, "warnings: %q", other)
	}
}

func TestSavedOutputIsJudgedOnCountsAndSaysSo(t *testing.T) {
	got := JudgeOutput(FromOutput([]byte("SMOKE_JSON={\"pass\":27,\"total\":27}\n"), t0), readAuto, Expect{Total: 27})
	assert.Equal(t, got.Verdict, Pass)
	assert.Assert(t, got.ExitCode == nil)
	assert.DeepEqual(t, got.Reasons, []string{"exit status not known: saved output"})

	got = JudgeOutput(FromOutput(ancestor(t), t0), readAuto, Expect{Total: 27})
	assert.Equal(t, got.Verdict, Fail)
	assert.DeepEqual(t, got.Reasons, []string{
		"20 of 26 tests passed: 6 warnings are not passes (set warnings: allow to count them)",
		"26 tests ran, expected at least 27",
		"exit status not known: saved output",
	})
}

func TestEachSignalAloneTurnsThePassRed(t *testing.T) {
	good := Counts{Passed: 27, Total: 27, Format: "smoke-json"}
	pass := Judge(ran("", 0), good, Expect{Total: 27})
	assert.Equal(t, pass.Verdict, Pass)
	assert.DeepEqual(t, pass.Reasons, []string{})
	dead := ran("", 0)
	dead.ExitCode, dead.Failure = nil, "timed out after 1s"
	lost := ran("", 0)
	lost.ExitCode = nil
	for _, tc := range []struct {
		name    string
		x       Execution
		c       Counts
		e       Expect
		verdict Verdict
		reasons []string
	}{
		{"exit status", ran("", 7), good, Expect{}, Fail, []string{"counts fine but exit status 7"}},
		{"failed", ran("", 1), Counts{Passed: 26, Failed: 1, Total: 27}, Expect{}, Fail, []string{"26 of 27 tests passed: 1 failed", "exit status 1"}},
		{"failed, exit 0", ran("", 0), Counts{Passed: 26, Failed: 1, Total: 27}, Expect{}, Fail, []string{"26 of 27 tests passed: 1 failed", "exit status 0 but counts say failing"}},
		{"skipped", ran("", 0), Counts{Passed: 26, Skipped: 1, Total: 27}, Expect{Warnings: "allow"}, Fail, []string{"26 of 27 tests passed: 1 skipped, which is not passed", "exit status 0 but counts say failing"}},
		{"one warning", ran("", 0), Counts{Passed: 26, Warned: 1, Total: 27}, Expect{}, Fail, []string{"26 of 27 tests passed: 1 warning is not a pass (set warnings: allow to count them)", "exit status 0 but counts say failing"}},
		{"floor", ran("", 0), good, Expect{Total: 28}, Fail, []string{"27 tests ran, expected at least 28"}},
		{"nothing ran", ran("", 0), Counts{Format: "smoke-json"}, Expect{}, Fail, []string{"0 tests ran: nothing was tested"}},
		{"disagreement", ran("", 0), Counts{Passed: 27, Total: 27, Disagreement: "two results disagree"}, Expect{}, Fail, []string{"two results disagree"}},
		{"timeout", dead, good, Expect{}, Error, []string{"timed out after 1s"}},
		{"no exit status", lost, good, Expect{}, Error, []string{"the command left no exit status"}},
		{"counts that do not add up", ran("", 0), Counts{Passed: 27, Failed: 1, Total: 27}, Expect{}, Error, []string{"counts do not add up: passed 27 + failed 1 + warned 0 + skipped 0 is 28, total says 27"}},
		{"negative count", ran("", 0), Counts{Passed: 28, Failed: -1, Total: 27}, Expect{}, Error, []string{"count -1: wanted 0 to 2^53-1"}},
		{"negative floor", ran("", 0), good, Expect{Total: -1}, Error, []string{"expected total is -1, wanted 0 to 2^31-1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Judge(tc.x, tc.c, tc.e)
			assert.Equal(t, got.Verdict, tc.verdict)
			assert.DeepEqual(t, got.Reasons, tc.reasons)
			_, err := EncodeReport(got)
			assert.NilError(t, err)
		})
	}
}

func TestUnreadableOutputIsAnErrorUnlessTheExitStatusProvesFailure(t *testing.T) {
	const none = `no result found on standard output: print one line SMOKE_JSON={"pass":N,"total":N}, or the lines "Tests Run:", "Passed:", "Failed:" and "Warnings:"`
	shell := ran("", 127)
	shell.shell = true
	for _, tc := range []struct {
		name    string
		x       Execution
		verdict Verdict
		reasons []string
	}{
		{"exit 0", ran("all good, 26/26\n", 0), Error, []string{none}},
		{"exit 2", ran("RATING: 8.0/10\n", 2), Fail, []string{"exit status 2", none}},
		{"shell found nothing", shell, Error, []string{"exit status 127: the shell could not find or start the command", none}},
		{"saved", FromOutput(nil, t0), Error, []string{none, "exit status not known: saved output"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := JudgeOutput(tc.x, readAuto, Expect{})
			assert.Equal(t, got.Verdict, tc.verdict)
			assert.DeepEqual(t, got.Reasons, tc.reasons)
			assert.DeepEqual(t, got.counts(), Counts{})
		})
	}
}

func drawCase(t *rapid.T) (Execution, Counts, Expect) {
	small := rapid.Int64Range(0, 3)
	c := Counts{Passed: rapid.Int64Range(0, 30).Draw(t, "passed"), Failed: small.Draw(t, "failed"), Warned: small.Draw(t, "warned"), Skipped: small.Draw(t, "skipped"), Format: "human"}
	c.Total = c.Passed + c.Failed + c.Warned + c.Skipped
	x := ran("", rapid.IntRange(0, 2).Draw(t, "exit"))
	if rapid.Bool().Draw(t, "saved") {
		x.ExitCode, x.Saved = nil, true
	}
	return x, c, Expect{Total: rapid.IntRange(0, 30).Draw(t, "floor"), Warnings: rapid.SampledFrom([]string{"fail", "allow"}).Draw(t, "warnings")}
}

func TestPassMeansExactlyTheRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, c, e := drawCase(t)
		good := c.Passed
		if e.Warnings == "allow" {
			good += c.Warned
		}
		want := Fail
		if (x.ExitCode == nil || *x.ExitCode == 0) && good == c.Total && c.Total >= int64(e.Total) && c.Failed == 0 && c.Skipped == 0 && c.Total > 0 {
			want = Pass
		}
		got := Judge(x, c, e)
		assert.Equal(t, got.Verdict, want)
		assert.Assert(t, want == Pass || len(got.Reasons) > 0)
		data, err := EncodeReport(got)
		assert.NilError(t, err)
		back, err := DecodeReport(data)
		assert.NilError(t, err)
		assert.DeepEqual(t, back, got)
		assert.DeepEqual(t, back.Under(e), got)
	})
}

func TestMoreEvidenceOfFailureNeverTurnsAFailureIntoAPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, c, e := drawCase(t)
		before := Judge(x, c, e)
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"fail one", "warn one", "skip one", "add failure", "lose one", "exit", "kill", "floor", "policy", "disagree"}).Draw(t, "step") {
			case "fail one":
				if c.Passed > 0 {
					c.Passed, c.Failed = c.Passed-1, c.Failed+1
				}
			case "warn one":
				if c.Passed > 0 {
					c.Passed, c.Warned = c.Passed-1, c.Warned+1
				}
			case "skip one":
				if c.Passed > 0 {
					c.Passed, c.Skipped = c.Passed-1, c.Skipped+1
				}
			case "add failure":
				c.Failed, c.Total = c.Failed+1, c.Total+1
			case "lose one":
				if c.Passed > 0 {
					c.Passed, c.Total = c.Passed-1, c.Total-1
				}
			case "exit":
				x.ExitCode = status(1)
			case "kill":
				x.ExitCode, x.Failure = nil, "killed"
			case "floor":
				e.Total++
			case "policy":
				e.Warnings = "fail"
			case "disagree":
				c.Disagreement = "two results disagree"
			}
		}
		if before.Verdict != Pass {
			assert.Assert(t, Judge(x, c, e).Verdict != Pass)
			assert.Assert(t, before.Under(e).Verdict == before.Verdict)
		} else if x.Failure == "" && x.ExitCode == before.ExitCode && reflect.DeepEqual(c, before.counts()) {
			assert.Equal(t, before.Under(e).Verdict, Judge(x, c, e).Verdict)
		}
	})
}

func TestATrustedFloorOverrulesAReportedPass(t *testing.T) {
	pass := Judge(ran("", 0), Counts{Passed: 20, Warned: 6, Total: 26, Format: "human"}, Expect{Warnings: "allow"})
	assert.Equal(t, pass.Verdict, Pass)
	got := pass.Under(Expect{Total: 27, Warnings: "fail"})
	assert.Equal(t, got.Verdict, Fail)
	assert.Equal(t, got.Expected, int64(27))
	assert.DeepEqual(t, got.Reasons, []string{
		"20 of 26 tests passed: 6 warnings are not passes (set warnings: allow to count them)",
		"26 tests ran, expected at least 27",
		"exit status 0 but counts say failing",
		"6 warnings counted as passed (warnings: allow)",
	})
}

func TestVerdictsZeroValueIsNoVerdict(t *testing.T) {
	assert.Equal(t, Verdict(0).String(), "invalid")
	assert.DeepEqual(t, []int{Verdict(0).ExitStatus(), Pass.ExitStatus(), Fail.ExitStatus(), Error.ExitStatus(), Verdict(9).ExitStatus()}, []int{3, 0, 1, 3, 3})
	for _, v := range []Verdict{Pass, Fail, Error} {
		got, err := parseVerdict(v.String())
		assert.NilError(t, err)
		assert.Equal(t, got, v)
	}
	_, err := parseVerdict("invalid")
	assert.Error(t, err, `verdict: found "invalid", wanted pass, fail or error`)
}

// Adding lines anywhere to the output of a failing run never makes it pass,
// whatever the lines say.
func FuzzAddedLinesNeverMakeAFailingRunPass(f *testing.F) {
	f.Add(uint16(0), []byte(`SMOKE_JSON={"pass":26,"total":26}`))
	f.Add(uint16(120), []byte("Passed: 26\nTests Run: 26\nFailed: 0\nWarnings: 0"))
	f.Add(uint16(3), []byte("\x1b]0;"))
	f.Add(uint16(3), []byte("\x1b[\x1b["))
	block := ancestor(f)
	sentinel := []byte("building\nSMOKE_JSON={\"pass\":25,\"total\":26}\ndone\n")
	f.Fuzz(func(t *testing.T, at uint16, extra []byte) {
		for _, out := range [][]byte{block, sentinel} {
			lines := bytes.SplitAfter(out, []byte("\n"))
			i := int(at) % len(lines)
			mutated := bytes.Join([][]byte{bytes.Join(lines[:i], nil), extra, []byte("\n"), bytes.Join(lines[i:], nil)}, nil)
			for _, e := range []Expect{{}, {Total: 27, Warnings: "allow"}} {
				got := JudgeOutput(ran(string(mutated), 0), readAuto, e)
				if got.Verdict == Pass {
					t.Fatalf("passed: %+v", got)
				}
				if _, err := EncodeReport(got); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// One changed byte in the results of a failing run never makes it pass.
func TestOneChangedByteNeverMakesTheAncestorsRunPass(t *testing.T) {
	out := ancestor(t)
	from := bytes.Index(out, []byte("Tests Run:")) - 40
	to := bytes.Index(out, []byte("Pass Rate:"))
	tail := bytes.Clone(out[from:to])
	for i := range tail {
		was := tail[i]
		for _, b := range []byte("\n\r\x1b [;m0123456789-.:{\"sTPFW") {
			tail[i] = b
			if got := JudgeOutput(ran(string(tail), 0), readAuto, Expect{}); got.Verdict == Pass {
				t.Fatalf("byte %d changed to %q passes: %+v", i, b, got)
			}
		}
		tail[i] = was
	}
}

func TestUntrustedTextIsTamedInReasons(t *testing.T) {
	got := JudgeOutput(ran("SMOKE_JSON={\"\x1b[2J\u202e"+strings.Repeat("é", 400)+"\n", 0), readAuto, Expect{})
	assert.Equal(t, got.Verdict, Error)
	for _, r := range got.Reasons {
		assert.Equal(t, r, printable(r))
		assert.Assert(t, len(r) <= maxReason)
	}
	x := ran("", 0)
	x.Command = "a\n\x1b[31m" + strings.Repeat("é", 400)
	got = Judge(x, Counts{Passed: 1, Total: 1, Format: "human"}, Expect{})
	assert.Equal(t, got.CommandSHA256, hexSHA256([]byte(x.Command)))
	assert.Equal(t, len(got.Command), 512)
	_, err := EncodeReport(got)
	assert.NilError(t, err)
}
