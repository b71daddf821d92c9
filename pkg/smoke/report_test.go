package smoke

import (
	"bytes"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

var (
	emptySum = hexSHA256(nil)
	passing  = Report{
		Verdict: Pass, Passed: 27, Total: 27, Expected: 27, ExitCode: status(0), Commit: strings.Repeat("ab", 20),
		Command: "./SMOKE_TEST.sh", Format: "smoke-json", OutputSHA256: emptySum, Reasons: []string{}, Started: t0, Finished: t1,
	}
	failing = Report{
		Verdict: Fail, Passed: 20, Warned: 6, Total: 26, Expected: 27, ExitCode: status(0),
		Command: "./SMOKE_TEST.sh", Format: "human", OutputSHA256: emptySum,
		Reasons: []string{"20 of 26 tests passed: 6 warnings are not passes", "26 tests ran, expected at least 27"}, Started: t0, Finished: t1,
	}
	unjudged = Report{
		Verdict: Error, Expected: 27, Command: "./SMOKE_TEST.sh", OutputSHA256: emptySum,
		Reasons: []string{"timed out after 10m0s"}, Started: t0, Finished: t1,
	}
)

const passingJSON = `{"command":"./SMOKE_TEST.sh","commit":"abababababababababababababababababababab","exit_code":0,"expected":27,"failed":0,"finished":"2025-01-02T03:04:05Z","format":"smoke-json","output_bytes":0,"output_sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","passed":27,"reasons":[],"skipped":0,"started":"2025-01-02T03:04:00Z","total":27,"v":1,"verdict":"pass","warned":0}`

func TestReportBytesAreFrozen(t *testing.T) {
	data, err := EncodeReport(passing)
	assert.NilError(t, err)
	assert.Equal(t, string(data), passingJSON)
}

func TestReportsComeBackAsTheyWere(t *testing.T) {
	long := passing
	long.Command, long.CommandSHA256 = clip(strings.Repeat(`"`, 600), maxCommand), hexSHA256([]byte(strings.Repeat(`"`, 600)))
	long.Reasons = make([]string, maxReasons)
	for i := range long.Reasons {
		long.Reasons[i] = strings.Repeat(`\`, maxReason)
	}
	long.IDsSHA256, long.Commit = emptySum, emptySum
	saved := passing
	saved.ExitCode = nil
	for _, r := range []Report{passing, failing, unjudged, long, saved} {
		data, err := EncodeReport(r)
		assert.NilError(t, err)
		assert.Assert(t, len(data) <= maxReport)
		got, err := DecodeReport(data)
		assert.NilError(t, err)
		assert.DeepEqual(t, got, r)
	}
}

func TestDecodeRefusesWhatEncodeWouldNotWrite(t *testing.T) {
	swap := func(old, new string) string {
		assert.Assert(t, strings.Contains(passingJSON, old), old)
		return strings.Replace(passingJSON, old, new, 1)
	}
	const form = "smoke report: not in canonical form (RFC 8785, every key once, nothing after it)"
	for _, tc := range []struct{ name, data, err string }{
		{"empty", "", "smoke report: EOF"},
		{"unknown key", swap(`"v":1`, `"v":1,"waived":true`), `smoke report: json: unknown field "waived"`},
		{"trailing newline", passingJSON + "\n", form},
		{"second value", passingJSON + "{}", form},
		{"space", swap(`,"v"`, `, "v"`), form},
		{"key order", swap(`"v":1,"verdict":"pass"`, `"verdict":"pass","v":1`), form},
		{"letter case", swap(`"v":1`, `"V":1`), form},
		{"repeated key", swap(`"v":1`, `"v":1,"v":1`), form},
		{"missing key", swap(`"warned":0`, `"v":1`), form},
		{"missing exit code", swap(`"exit_code":0,`, ``), form},
		{"null reasons", swap(`[]`, `null`), form},
		{"empty optional key", swap(`"commit"`, `"command_sha256":"","commit"`), form},
		{"exponent", swap(`"total":27`, `"total":2.7e1`), "smoke report: json: cannot unmarshal number 2.7e1 into Go struct field wire.total of type int64"},
		{"float", swap(`"total":27`, `"total":27.0`), "smoke report: json: cannot unmarshal number 27.0 into Go struct field wire.total of type int64"},
		{"fraction of a second", swap(`04:05Z`, `04:05.5Z`), "smoke report: started and finished: wanted UTC in whole seconds"},
		{"offset", swap(`04:05Z`, `04:05+00:00`), `smoke report: finished: found "2025-01-02T03:04:05+00:00", wanted a time such as 2025-01-02T03:04:05Z`},
		{"ends before it starts", swap(`03:04:05Z`, `03:03:05Z`), "smoke report: it finished before it started"},
		{"version", swap(`"v":1`, `"v":2`), "smoke report: version: found 2, wanted 1"},
		{"verdict", swap(`"pass"`, `"PASS"`), `smoke report: verdict: found "PASS", wanted pass, fail or error`},
		{"not UTF-8", swap(`SMOKE`, "\xff"), "smoke report: not UTF-8"},
		{"too long", strings.Repeat(" ", maxReport+1), "smoke report: 16385 bytes, wanted at most 16384"},
		{"pass with a failure", swap(`"failed":0`, `"failed":1`), "smoke report: counts do not add up: passed 27 + failed 1 + warned 0 + skipped 0 is 28, total says 27"},
		{"pass below the floor", swap(`"expected":27`, `"expected":28`), "smoke report: verdict is pass, but 27 tests ran, expected at least 28"},
		{"pass with exit status", swap(`"exit_code":0`, `"exit_code":1`), "smoke report: verdict is pass, but counts fine but exit status 1"},
		{"pass of nothing", strings.NewReplacer(`"expected":27`, `"expected":0`, `"passed":27`, `"passed":0`, `"total":27`, `"total":0`).Replace(passingJSON), "smoke report: verdict is pass, but 0 tests ran: nothing was tested"},
		{"pass of no format", swap(`"smoke-json"`, `""`), "smoke report: verdict is pass, but no format was read"},
		{"fail without a reason", swap(`"pass"`, `"fail"`), "smoke report: verdict is fail, but no reason is given"},
		{"error with counts", strings.NewReplacer(`"pass"`, `"error"`, `[]`, `["x"]`).Replace(passingJSON), "smoke report: verdict is error, but it has counts"},
		{"commit", swap(`"abab`, `"ABAB`), `smoke report: commit: found "ABABabababababababababababababababababab", wanted 40 or 64 lower-case hex digits`},
		{"digest", swap(`"e3b0`, `"E3b0`), `smoke report: output_sha256: found "E3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", wanted 64 lower-case hex digits`},
		{"escape in the command", swap(`./SMOKE`, `\u001b[2J`), "smoke report: command: wanted at most 512 bytes of printable text"},
		{"line end in a reason", swap(`[]`, `["a\n::error::b"]`), "smoke report: reason 1: wanted 1 to 300 bytes of printable text"},
		{"too many reasons", swap(`[]`, `["a"`+strings.Repeat(`,"a"`, 16)+`]`), "smoke report: reasons: found 17, wanted at most 16"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := DecodeReport([]byte(tc.data))
			assert.Error(t, err, tc.err)
			assert.DeepEqual(t, got, Report{})
		})
	}
}

func TestEncodeRefusesAReportWithoutAVerdict(t *testing.T) {
	_, err := EncodeReport(Report{})
	assert.Error(t, err, "smoke report: it has no verdict")
}

// What decodes encodes to the same bytes, and a decoded pass is one.
func FuzzReportsDecodeToWhatTheySay(f *testing.F) {
	for _, r := range []Report{passing, failing, unjudged} {
		data, err := EncodeReport(r)
		assert.NilError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeReport(data)
		if err != nil {
			assert.DeepEqual(t, r, Report{})
			return
		}
		again, err := EncodeReport(r)
		assert.NilError(t, err)
		assert.Assert(t, bytes.Equal(again, data))
		if r.Verdict == Pass {
			assert.Assert(t, r.Failed == 0 && r.Skipped == 0 && r.Total > 0 && r.Passed+r.Warned == r.Total && r.Total >= r.Expected)
			assert.Assert(t, r.ExitCode == nil || *r.ExitCode == 0)
		}
		Text(r)
		Summary(r)
		_, _, err = ParseBadge(Badge(r))
		assert.NilError(t, err)
	})
}

// A failing report stays one under any single edit: one byte changed, one byte
// removed, or a stretch of it repeated or replaced by a stretch of a pass.
func FuzzOneEditNeverMakesAFailingReportPass(f *testing.F) {
	bad, err := EncodeReport(failing)
	assert.NilError(f, err)
	f.Add(uint16(0), uint16(1), []byte("p"))
	f.Add(uint16(bytes.Index(bad, []byte(`"fail"`))), uint16(6), []byte(`"pass"`))
	f.Add(uint16(len(bad)), uint16(0), []byte(`,"verdict":"pass"}`))
	f.Fuzz(func(t *testing.T, at, cut uint16, put []byte) {
		i := int(at) % (len(bad) + 1)
		j := min(i+int(cut)%16, len(bad))
		// The verdict and the floor that was missed are more than 16 bytes
		// apart, so one edit of this size cannot change both.
		if len(put) > 64 {
			put = put[:64]
		}
		edited := bytes.Join([][]byte{bad[:i], put, bad[j:]}, nil)
		if r, err := DecodeReport(edited); err == nil && r.Verdict == Pass {
			t.Fatalf("passes: %s", edited)
		}
	})
}

func TestBadgeHasTheAncestorsBytes(t *testing.T) {
	for _, tc := range []struct {
		pass, total int64
		want        string
	}{
		{10, 10, `{"tests":{"pass":10,"total":10,"pct":100.00}}`},
		{20, 26, `{"tests":{"pass":20,"total":26,"pct":76.92}}`},
		{0, 0, `{"tests":{"pass":0,"total":0,"pct":0.00}}`},
		{99999, 100000, `{"tests":{"pass":99999,"total":100000,"pct":99.99}}`},
		{maxCount - 1, maxCount, `{"tests":{"pass":9007199254740990,"total":9007199254740991,"pct":99.99}}`},
		{1, 2000, `{"tests":{"pass":1,"total":2000,"pct":0.05}}`},
	} {
		got := Badge(Report{Passed: tc.pass, Total: tc.total})
		assert.Equal(t, string(got), tc.want+"\n")
		pass, total, err := ParseBadge(got)
		assert.NilError(t, err)
		assert.DeepEqual(t, []int64{pass, total}, []int64{tc.pass, tc.total})
	}
}

func TestForgedBadgesAreRefused(t *testing.T) {
	for _, tc := range []struct{ data, err string }{
		{"{\"tests\":{\"pass\":20,\"total\":26,\"pct\":100.00}}\n", `badge: found "{\"tests\":{\"pass\":20,\"total\":26,\"pct\":100.00}}\n", wanted "{\"tests\":{\"pass\":20,\"total\":26,\"pct\":76.92}}\n"`},
		{"{\"tests\":{\"pass\":1,\"total\":1,\"pct\":100.00}}", `badge: found "{\"tests\":{\"pass\":1,\"total\":1,\"pct\":100.00}}", wanted "{\"tests\":{\"pass\":1,\"total\":1,\"pct\":100.00}}\n"`},
		{"{\"tests\":{\"pass\":2,\"total\":1,\"pct\":100.00}}\n", "badge: pass 2 of total 1: wanted 0 <= pass <= total <= 2^53-1"},
		{"", "badge: unexpected end of JSON input"},
		{strings.Repeat(" ", 257), "badge: 257 bytes, wanted at most 256"},
	} {
		_, _, err := ParseBadge([]byte(tc.data))
		assert.Error(t, err, tc.err)
	}
}

func FuzzBadgesParseToTheSameBytes(f *testing.F) {
	f.Add(Badge(passing))
	f.Add(Badge(failing))
	f.Fuzz(func(t *testing.T, data []byte) {
		pass, total, err := ParseBadge(data)
		if err == nil {
			assert.Assert(t, bytes.Equal(badge(pass, total), data))
		} else {
			assert.Assert(t, pass == 0 && total == 0)
		}
	})
}

func TestShieldsBadgeHasNoOtherKeys(t *testing.T) {
	warned := failing
	warned.Verdict = Pass
	for _, tc := range []struct {
		r    Report
		want string
	}{
		{passing, `{"schemaVersion":1,"label":"smoke","message":"27/27","color":"brightgreen"}`},
		{warned, `{"schemaVersion":1,"label":"smoke","message":"20/26","color":"yellow"}`},
		{failing, `{"schemaVersion":1,"label":"smoke","message":"20/26","color":"red"}`},
		{unjudged, `{"schemaVersion":1,"label":"smoke","message":"error","color":"lightgrey"}`},
		{Report{}, `{"schemaVersion":1,"label":"smoke","message":"error","color":"lightgrey"}`},
	} {
		assert.Equal(t, string(ShieldsBadge(tc.r)), tc.want+"\n")
	}
}

func TestTextSaysVerdictReasonsAndWhatNext(t *testing.T) {
	assert.Equal(t, Text(passing), "✅ smoke-gate: PASS  27/27 tests passed, at least 27 expected\n")
	assert.Equal(t, Text(failing), "❌ smoke-gate: FAIL  20/26 tests passed, at least 27 expected\n"+
		"   20 of 26 tests passed: 6 warnings are not passes\n"+
		"   26 tests ran, expected at least 27\n"+
		"   next: run `./SMOKE_TEST.sh`, fix what did not pass, try again\n")
	assert.Equal(t, Text(unjudged), "❌ smoke-gate: ERROR  could not judge\n"+
		"   timed out after 10m0s\n"+
		"   next: clear the reason above; what could not be judged is never a pass\n")
}

func TestSummaryEscapesWhatTheRunSaid(t *testing.T) {
	r := failing
	r.Command = "make smoke"
	r.Reasons = []string{"<img src=x> | `a` @user #12 [x](y)"}
	assert.Equal(t, Summary(r), "### ❌ Smoke gate: FAIL  20/26 tests passed, at least 27 expected\n\n"+
		"| passed | failed | warned | skipped | total | expected at least | exit status |\n|---:|---:|---:|---:|---:|---:|---:|\n"+
		"| 20 | 0 | 6 | 0 | 26 | 27 | 0 |\n\n"+
		"- &#60;img src=x&#62; &#124; &#96;a&#96; &#64;&#8203;user &#35;&#8203;12 &#91;x&#93;(y)\n"+
		"- **next:** run &#96;make smoke&#96;, fix what did not pass, try again\n\n"+
		"Command: <code>make smoke</code>  \n"+
		"Output: 0 bytes, SHA-256 <code>"+emptySum+"</code>\n")
}
