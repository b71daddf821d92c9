package judge_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

func TestWarningsAreNotFailures(t *testing.T) {
	c := judge.Judged("hygiene/links", "links resolve", "3 documents",
		judge.Finding{Path: "b", Message: "old", Warning: true}, judge.Finding{Path: "a", Line: 2, Message: "older", Warning: true}, judge.Finding{Path: "a", Line: 1, Message: "oldest", Warning: true})
	assert.Equal(t, c.Status, judge.Pass)
	assert.DeepEqual(t, []int{c.Findings[0].Line, c.Findings[1].Line, c.Findings[2].Line}, []int{1, 2, 0})
	assert.Equal(t, judge.Judged("a/b", "", "", judge.Finding{Warning: true}, judge.Finding{}).Status, judge.Fail)
}

func pass(id string) judge.Check { return judge.Judged(id, "it holds", "looked at") }

func fail(id string) judge.Check {
	return judge.Judged(id, "it holds", "looked at", judge.Finding{Path: "a.md", Line: 3, Message: "is wrong", Fix: "git rm a.md"})
}

func broken(id string) judge.Check { return judge.Unjudged(id, "it holds", errors.New("no evidence")) }

func unclaimed(id string) judge.Check {
	return judge.NotClaimed(id, "it holds", "configure a build")
}

func waived(id string) judge.Check {
	c := fail(id)
	c.Waived = "by A until 2026: because"
	return c
}

func TestTheVerdictIsNeverBetterThanItsChecks(t *testing.T) {
	for _, tc := range []struct {
		name     string
		checks   []judge.Check
		required []string
		want     judge.Status
	}{
		{"nothing was judged", nil, nil, judge.Error},
		{"all pass", []judge.Check{pass("integrity/a"), pass("hygiene/a")}, nil, judge.Pass},
		{"one fails", []judge.Check{pass("integrity/a"), fail("hygiene/a")}, nil, judge.Fail},
		{"one could not be judged", []judge.Check{pass("integrity/a"), broken("integrity/b")}, nil, judge.Error},
		{"a fail is said before an error", []judge.Check{broken("integrity/b"), fail("hygiene/a")}, nil, judge.Fail},
		{"a check without outcome", []judge.Check{pass("integrity/a"), {ID: "integrity/b"}}, nil, judge.Error},
		{"an outcome that does not exist", []judge.Check{pass("integrity/a"), {ID: "integrity/b", Status: 9}}, nil, judge.Error},
		{"unclaimed beside a pass", []judge.Check{pass("integrity/a"), unclaimed("proof-chain/genesis")}, nil, judge.Pass},
		{"unclaimed alone", []judge.Check{unclaimed("proof-chain/genesis")}, nil, judge.Unclaimed},
		{"a waived fail", []judge.Check{pass("integrity/a"), waived("hygiene/a")}, nil, judge.Pass},
		{"a waived fail beside another", []judge.Check{waived("hygiene/a"), fail("hygiene/b")}, nil, judge.Fail},
		{"a waived fail beside an error", []judge.Check{waived("hygiene/a"), broken("hygiene/b")}, nil, judge.Error},
		{"required and claimed", []judge.Check{pass("integrity/a")}, []string{"integrity", "integrity/a"}, judge.Pass},
		{"required covenant, unclaimed", []judge.Check{pass("integrity/a"), unclaimed("proof-chain/genesis")}, []string{"proof-chain"}, judge.Fail},
		{"required covenant, one check claimed", []judge.Check{unclaimed("proof-chain/genesis"), pass("proof-chain/digest")}, []string{"proof-chain"}, judge.Pass},
		{"required covenant, no check", []judge.Check{pass("integrity/a")}, []string{"custom"}, judge.Fail},
		{"required check, unclaimed", []judge.Check{pass("proof-chain/digest"), unclaimed("proof-chain/genesis")}, []string{"proof-chain/genesis"}, judge.Fail},
		{"required check that nobody makes", []judge.Check{pass("integrity/a")}, []string{"integrity/z"}, judge.Error},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.Equal(t, judge.Sum(tc.checks, tc.required).Status, tc.want)
		})
	}
}

func TestARequiredCheckSaysWhatToConfigure(t *testing.T) {
	given := []judge.Check{pass("integrity/a"), unclaimed("reproducibility/build")}
	v := judge.Sum(given, []string{"reproducibility", "reproducibility/build"})
	assert.DeepEqual(t, v.Checks[1:], []judge.Check{
		{
			ID: "reproducibility/build", Claim: "it holds", Detail: "configure a build", Status: judge.Fail,
			Findings: []judge.Finding{{Message: "required, but nothing is claimed: configure a build"}},
		},
		{
			ID: "reproducibility/required", Claim: "the covenant is claimed", Detail: "required by the configuration", Status: judge.Fail,
			Findings: []judge.Finding{{Message: "reproducibility/build claims nothing: configure a build"}},
		},
	})
	assert.Equal(t, given[1].Status, judge.Unclaimed, "the caller's checks are the caller's")
}

// More evidence of a failure never makes a verdict better.
func TestMoreChecksNeverTurnAFailIntoAPass(t *testing.T) {
	ids := []string{"integrity/a", "integrity/b", "hygiene/a", "custom/a", "doctor/a"}
	kinds := []func(string) judge.Check{pass, fail, broken, unclaimed, waived}
	rapid.Check(t, func(t *rapid.T) {
		var checks []judge.Check
		for range rapid.IntRange(1, 8).Draw(t, "n") {
			checks = append(checks, rapid.SampledFrom(kinds).Draw(t, "kind")(rapid.SampledFrom(ids).Draw(t, "id")))
		}
		before := judge.Sum(checks[:len(checks)-1], nil)
		after := judge.Sum(checks, nil)
		if before.Status == judge.Fail {
			assert.Equal(t, after.Status, judge.Fail)
		}
		if before.Status == judge.Error && len(checks) > 1 {
			assert.Assert(t, after.Status == judge.Error || after.Status == judge.Fail)
		}
	})
}

func everything() judge.Verdict {
	lost := judge.Unjudged("integrity/checkpoint", "the checkpoint is signed", errors.New("read: gone\nsecond line"))
	lost.Evidence = []string{"note one\nof two lines\n"}
	old := judge.Judged("hygiene/links", "links resolve", "2 documents",
		judge.Finding{Path: "docs/a: b%.md", Line: 3, Column: 7, Message: "b.md is not there", Fix: "git mv c.md b.md"},
		judge.Finding{Path: "docs/z.md", Message: "is long", Warning: true})
	return judge.Sum([]judge.Check{
		old, waived("hygiene/size"), lost, pass("integrity/paths"), unclaimed("proof-chain/genesis"), fail("custom/own"),
		judge.Judged("custom/nowhere", "it holds", "exit status 1", judge.Finding{Message: "said no"}),
		{ID: "custom/bare", Status: judge.Fail, Detail: "\x1b[2Jcleared"},
	}, nil)
}

func TestTextIsFrozen(t *testing.T) {
	golden.Assert(t, everything().Text(), "text.golden")
}

func TestBriefSaysWhatIsNoPass(t *testing.T) {
	assert.DeepEqual(t, everything().Brief(), []string{
		"integrity/checkpoint: read: gone; second line",
		"hygiene/links: docs/a: b%.md:3:7: b.md is not there; and 1 more",
		"hygiene/size: WAIVED by A until 2026: because",
		"custom/own: a.md:3: is wrong",
		"custom/nowhere: said no",
		"custom/bare: �[2Jcleared",
	})
}

func TestJSONIsFrozen(t *testing.T) {
	out, err := json.MarshalIndent(everything(), "", "  ")
	assert.NilError(t, err)
	golden.Assert(t, string(out)+"\n", "json.golden")
}

func escape(s string) string { return strings.ReplaceAll(s, "|", "&#124;") }

func TestMarkdownIsFrozenAndBounded(t *testing.T) {
	golden.Assert(t, everything().Markdown("covenants", escape), "markdown.golden")

	var many []judge.Check
	for i := range 4000 {
		many = append(many, judge.Judged(fmt.Sprintf("hygiene/%d", i), "", strings.Repeat("x", 100)))
	}
	long := judge.Sum(many, nil).Markdown("covenants", escape)
	assert.Assert(t, len(long) <= 200<<10, "%d bytes", len(long))
	assert.Assert(t, strings.HasSuffix(long, " more lines are not shown._\n"))
}

func TestManyFindingsAreCounted(t *testing.T) {
	v := judge.Sum([]judge.Check{judge.Judged("hygiene/links", "", "", make([]judge.Finding, 30)...)}, nil)
	assert.Assert(t, strings.Contains(v.Text(), "     and 10 more\n"))
	assert.Assert(t, strings.Contains(v.Markdown("t", escape), ": and 10 more\n"))
	assert.Equal(t, len(v.Checks[0].Findings), 30)
}

func TestNoTextSteersATerminal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String()
		v := judge.Sum([]judge.Check{{
			ID: s.Draw(t, "id"), Detail: s.Draw(t, "detail"), Waived: s.Draw(t, "waived"), Status: judge.Fail, Evidence: []string{s.Draw(t, "evidence")},
			Findings: []judge.Finding{{Path: s.Draw(t, "path"), Line: 1, Message: s.Draw(t, "message"), Fix: s.Draw(t, "fix")}},
		}}, nil)
		for _, r := range v.Text() {
			assert.Assert(t, r == '\n' || r == '\t' || unicode.IsPrint(r) || strings.ContainsRune("✅❌🚫⚠️–", r), "%U", r)
		}
	})
}

func schema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile("testdata/sarif-schema-2.1.0.json")
	assert.NilError(t, err)
	return s
}

func validate(t assert.TestingT, s *jsonschema.Schema, log []byte) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(log))
	assert.NilError(t, err)
	assert.NilError(t, s.Validate(doc))
}

var tool = judge.Tool{Version: "v1", Repository: "https://github.com/owner/name", Commit: strings.Repeat("a", 40), Fallback: "remembrancer.yaml"}

func TestSARIFIsFrozenAndFitsItsSchema(t *testing.T) {
	s := schema(t)
	out, err := everything().SARIF(tool)
	assert.NilError(t, err)
	validate(t, s, out)
	golden.Assert(t, string(out), "sarif.golden")

	empty, err := judge.Sum(nil, nil).SARIF(judge.Tool{})
	assert.NilError(t, err)
	validate(t, s, empty)
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(`{"version":"2.1.0","runs":[{"results":[]}]}`))
	assert.NilError(t, err)
	assert.ErrorContains(t, s.Validate(doc), "tool", "the schema refuses what is none")
}

func TestWhateverWasFoundSARIFFitsItsSchema(t *testing.T) {
	s := schema(t)
	rapid.Check(t, func(t *rapid.T) {
		str := rapid.String()
		var checks []judge.Check
		for range rapid.IntRange(0, 3).Draw(t, "checks") {
			c := judge.Check{
				ID: str.Draw(t, "id"), Claim: str.Draw(t, "claim"), Detail: str.Draw(t, "detail"), Waived: str.Draw(t, "waived"),
				Status: judge.Status(rapid.IntRange(0, 5).Draw(t, "status")),
			}
			for range rapid.IntRange(0, 2).Draw(t, "findings") {
				c.Findings = append(c.Findings, judge.Finding{
					Path: str.Draw(t, "path"), Line: rapid.IntRange(-1, 9).Draw(t, "line"), Column: rapid.IntRange(-1, 9).Draw(t, "column"),
					Message: str.Draw(t, "message"), Fix: str.Draw(t, "fix"), Warning: rapid.Bool().Draw(t, "warning"),
				})
			}
			checks = append(checks, c)
		}
		out, err := judge.Sum(checks, nil).SARIF(tool)
		assert.NilError(t, err)
		validate(t, s, out)
	})
}

func TestFingerprintsStayWhenLinesMove(t *testing.T) {
	prints := func(findings ...judge.Finding) (all []string) {
		out, err := judge.Sum([]judge.Check{judge.Judged("hygiene/links", "", "", findings...)}, nil).SARIF(tool)
		assert.NilError(t, err)
		var log struct {
			Runs []struct {
				Results []struct{ PartialFingerprints map[string]string }
			}
		}
		assert.NilError(t, json.Unmarshal(out, &log))
		for _, r := range log.Runs[0].Results {
			all = append(all, r.PartialFingerprints["remembrancer/v1"])
		}
		return all
	}
	a := prints(judge.Finding{Path: "a", Line: 1, Message: "m"}, judge.Finding{Path: "a", Line: 5, Message: "m"})
	b := prints(judge.Finding{Path: "a", Line: 8, Message: "m"}, judge.Finding{Path: "a", Line: 9, Message: "m"})
	assert.DeepEqual(t, a, b)
	assert.Assert(t, a[0] != a[1])
	assert.Assert(t, a[0] != prints(judge.Finding{Path: "b", Line: 1, Message: "m"})[0])
}

func TestOnlyAPassIsSummedUpAsPassed(t *testing.T) {
	w := judge.Verified{
		Verifier: "https://vaultmesh.org/remembrancer/covenant-check", Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		Resource: "git+https://github.com/owner/name@" + strings.Repeat("a", 40),
		Policy:   judge.Resource{URI: "remembrancer.yaml", SHA256: strings.Repeat("b", 64)},
		Inputs:   []judge.Resource{{URI: "ops/ledger/checkpoint", SHA256: strings.Repeat("c", 64)}},
	}
	want := map[string]any{
		"verifier":           map[string]any{"id": "https://vaultmesh.org/remembrancer/covenant-check"},
		"timeVerified":       "2026-01-02T03:04:05Z",
		"resourceUri":        "git+https://github.com/owner/name@" + strings.Repeat("a", 40),
		"policy":             map[string]any{"uri": "remembrancer.yaml", "digest": map[string]any{"sha256": strings.Repeat("b", 64)}},
		"inputAttestations":  []any{map[string]any{"uri": "ops/ledger/checkpoint", "digest": map[string]any{"sha256": strings.Repeat("c", 64)}}},
		"verificationResult": "PASSED",
		"verifiedLevels":     []any{"REMEMBRANCER_INTEGRITY"},
		"slsaVersion":        "1.1",
		"https://vaultmesh.org/remembrancer/covenant/v1": map[string]any{"checks": []any{
			map[string]any{"id": "integrity/a", "status": "pass"}, map[string]any{"id": "proof-chain/b", "status": "unclaimed"},
		}},
	}
	assert.DeepEqual(t, judge.Sum([]judge.Check{pass("integrity/a"), unclaimed("proof-chain/b")}, nil).VerificationSummary(w), want)
	for _, c := range []judge.Check{fail("hygiene/a"), broken("hygiene/a"), unclaimed("hygiene/a")} {
		got := judge.Sum([]judge.Check{c}, nil).VerificationSummary(w)
		assert.Equal(t, got["verificationResult"], "FAILED")
		assert.DeepEqual(t, got["verifiedLevels"], []any{"FAILED"})
	}
}
