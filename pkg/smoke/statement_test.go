package smoke

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

func TestStatementBytesAreFrozen(t *testing.T) {
	e := Expect{Total: 2, Tests: named(t, "a", "gone")}
	s := suiteOf(t, Case{ID: "b", Status: Failed}, Case{ID: "a", Status: Passed}, Case{ID: "c", Status: Skipped}, Case{ID: "d", Status: Warned})
	sum := strings.Repeat("12", 32)
	r := JudgeResults(earlier(), Results{Suite: s, SHA256: sum}, e)
	r.Commit = strings.Repeat("ab", 20)
	got, err := Statement(r, Evidence{
		Suite: s, Change: e.Compare(s), Config: Material{"remembrancer.yaml", emptySum},
		Files: []Material{{"out/junit.xml", sum}}, URL: "https://github.com/o/r/actions/runs/7/attempts/1",
	})
	assert.NilError(t, err)
	assert.Equal(t, string(got), `{"_type":"https://in-toto.io/Statement/v1","predicate":{`+
		`"configuration":[{"digest":{"sha256":"`+emptySum+`"},"name":"remembrancer.yaml"},{"digest":{"sha256":"`+sum+`"},"name":"out/junit.xml"}],`+
		`"failedTests":["b"],"passedTests":["a"],"result":"FAILED","url":"https://github.com/o/r/actions/runs/7/attempts/1",`+
		`"vaultmesh_counts":{"errored":0,"failed":1,"passed":1,"skipped":1,"total":4,"warned":1},"vaultmesh_expected":2,`+
		`"vaultmesh_removedTests":["gone"],"vaultmesh_tests_sha256":"`+e.Tests.SHA256()+`","vaultmesh_verdict":"fail","warnedTests":["d"]},`+
		`"predicateType":"https://in-toto.io/attestation/test-result/v0.1",`+
		`"subject":[{"digest":{"gitCommit":"`+r.Commit+`"},"name":"commit"}]}`)
}

// predicate reads a statement back as a stranger would.
func predicate(t testing.TB, statement []byte) (result testResult, subject []descriptor) {
	var s inTotoStatement
	assert.NilError(t, json.Unmarshal(statement, &s))
	assert.Equal(t, s.Type, "https://in-toto.io/Statement/v1")
	assert.Equal(t, s.PredicateType, receipt.Smoke.PredicateType())
	return s.Predicate, s.Subject
}

func TestResultsOfStatements(t *testing.T) {
	green := Counts{Passed: 1, Total: 1, Format: "human"}
	ids := Counts{Passed: 2, Total: 2, Format: "smoke-json", IDs: []string{"a", "b"}}
	for _, tc := range []struct {
		name   string
		r      Report
		ids    []string
		result string
		passed []string
	}{
		{"pass", Judge(ran("", 0), green, Expect{}), nil, "PASSED", nil},
		{"pass, with names", Judge(ran("", 0), ids, Expect{}), ids.IDs, "PASSED", []string{"a", "b"}},
		{"warnings allowed", Judge(ran("", 0), Counts{Warned: 1, Total: 1, Format: "human"}, Expect{Warnings: "allow"}), ids.IDs, "WARNED", nil},
		{"fail", Judge(ran("", 1), green, Expect{}), ids.IDs, "FAILED", nil},
		{"error", Judge(ran("", 0), Counts{Total: -1}, Expect{}), ids.IDs, "FAILED", nil},
	} {
		got, err := Statement(tc.r, Evidence{IDs: tc.ids})
		assert.NilError(t, err)
		p, subject := predicate(t, got)
		assert.Equal(t, p.Result, tc.result, tc.name)
		assert.Equal(t, p.Verdict, tc.r.Verdict.String())
		assert.DeepEqual(t, p.Passed, tc.passed)
		assert.Equal(t, p.Failed == nil, tc.passed == nil, "which tests failed is not known, or none: %s", tc.name)
		// Without a commit it is about what was judged.
		assert.DeepEqual(t, subject, []descriptor{{Name: "standard output", Digest: map[string]string{"sha256": tc.r.OutputSHA256}}})
		assert.DeepEqual(t, p.Configuration, subject)
	}
}

func TestListsThatAreTooLongAreCountsAndDigests(t *testing.T) {
	var cases []Case
	var names []string
	for i := range 4000 {
		names = append(names, fmt.Sprintf("test %04d", i))
		cases = append(cases, Case{ID: names[i], Status: Passed})
	}
	cases = append(cases, Case{ID: "red", Status: Errored})
	s := suiteOf(t, cases...)
	var files []Material
	var sums strings.Builder
	for i := range maxMaterials + 1 {
		files = append(files, Material{fmt.Sprintf("%02d.xml", i), emptySum})
		fmt.Fprintf(&sums, "%s  %s\n", emptySum, files[i].Name)
	}
	r := JudgeResults(earlier(), Results{Suite: s, SHA256: hexSHA256([]byte(sums.String()))}, Expect{})
	got, err := Statement(r, Evidence{Suite: s, Files: files})
	assert.NilError(t, err)
	p, subject := predicate(t, got)
	assert.DeepEqual(t, p.Omitted, map[string]omitted{
		"passedTests": {4000, hexSHA256([]byte(strings.Join(names, "\n") + "\n"))},
		"reports":     {maxMaterials + 1, hexSHA256([]byte(sums.String()))},
	})
	assert.Assert(t, p.Passed == nil)
	assert.DeepEqual(t, p.Failed, []string{"red"})
	assert.DeepEqual(t, subject, []descriptor{{Name: "reports", Digest: map[string]string{"sha256": r.OutputSHA256}}})
}

// Whatever the names are, a statement is a receipt as soon as somebody says that
// it is theirs: it is canonical, and there is room for what they add.
func TestEveryStatementCanBecomeAReceipt(t *testing.T) {
	name := rapid.OneOf(rapid.StringMatching(`[ -~]{1,40}`), rapid.Map(rapid.IntRange(1, maxID), func(n int) string { return strings.Repeat(`"`, n) }), rapid.Map(rapid.IntRange(1, 100), func(n int) string { return strings.Repeat("é", n) }))
	rapid.Check(t, func(t *rapid.T) {
		var s Suite
		for _, id := range rapid.SliceOfN(name, 0, 60).Draw(t, "names") {
			assert.NilError(t, s.add(Case{ID: id, Status: rapid.SampledFrom([]CaseStatus{Passed, Warned, Skipped, Failed, Errored}).Draw(t, "status")}))
		}
		number(s.Cases)
		s.Format = "junit"
		var ev Evidence
		for range rapid.IntRange(0, maxMaterials+2).Draw(t, "files") {
			ev.Files = append(ev.Files, Material{rapid.StringMatching(`["a-z/]{1,300}`).Draw(t, "file"), emptySum})
		}
		ev.Suite, ev.URL = s, strings.Repeat("u", rapid.IntRange(0, maxURL).Draw(t, "url"))
		ev.Change.Named = 1
		for i := range rapid.IntRange(0, 30).Draw(t, "removed") {
			ev.Change.Removed = append(ev.Change.Removed, fmt.Sprintf("%s %d", strings.Repeat(`\`, 200), i))
		}
		r := JudgeResults(earlier(), Results{Suite: s, SHA256: emptySum}, Expect{})
		if rapid.Bool().Draw(t, "commit") {
			r.Commit = emptySum
		}
		data, err := Statement(r, ev)
		assert.NilError(t, err)

		var parts struct {
			Predicate map[string]any `json:"predicate"`
		}
		dec := json.NewDecoder(strings.NewReader(string(data)))
		dec.UseNumber()
		assert.NilError(t, dec.Decode(&parts))
		subjects := []receipt.Subject{{Name: "commit", Commit: emptySum}}
		_, err = receipt.New(receipt.Statement{
			Kind: receipt.Smoke, Issuer: "0123456789ABCDEF0123456789ABCDEF01234567", Name: strings.Repeat("n", 128), Issued: time.Unix(0, 0),
			Subjects: subjects, Predicate: parts.Predicate,
		})
		assert.NilError(t, err)
		canonical, err := receipt.Canonical(json.RawMessage(data))
		assert.NilError(t, err)
		assert.Equal(t, string(canonical), string(data))
	})
}

func TestAStatementNeedsSoundParts(t *testing.T) {
	good := Judge(ran("", 0), Counts{Passed: 1, Total: 1, Format: "human"}, Expect{})
	for _, tc := range []struct {
		r   Report
		ev  Evidence
		err string
	}{
		{Report{}, Evidence{}, "smoke statement: it has no verdict"},
		{good, Evidence{URL: "https://a\nb"}, `smoke statement: URL "https://a\nb": wanted at most 1024 printable bytes`},
		{good, Evidence{Config: Material{"", emptySum}}, `smoke statement: file "": wanted a printable name and a SHA-256`},
		{good, Evidence{Files: []Material{{"a", "abc"}}}, `smoke statement: file "a": wanted a printable name and a SHA-256`},
	} {
		got, err := Statement(tc.r, tc.ev)
		assert.Error(t, err, tc.err)
		assert.Assert(t, got == nil)
	}
}
