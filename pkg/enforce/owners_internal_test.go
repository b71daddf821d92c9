package enforce

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

func TestCodeOwnersMustCoverWhatDecidesTheGates(t *testing.T) {
	for _, c := range []struct {
		text, gate, want string // want is in the finding; "" for none
	}{
		{"* @a", ".github/**", ""},
		{"** @a", "x/y.z", ""},
		{"/* @a", ".github/**", "no code owner"},
		{"/* @a", "SMOKE_TEST.sh", ""},
		{"/.github/ @a", ".github/**", ""},
		{".github/ @a", ".github/**", ""},
		{"/.github @a", ".github/**", ""},
		{"/.github/** @a", ".github/**", ""},
		{"/.github/* @a", ".github/**", "no code owner"},
		{"/.github/workflows/ @a", ".github/**", "no code owner"},
		{"/ops/ @a", "ops/ledger/**", ""},
		{"/ops/ledger/ @a", "ops/**", "no code owner"},
		{"*.yaml @a", "remembrancer.yaml", ""},
		{"/remembrancer.yaml @a", "remembrancer.yaml", ""},
		{"remembrancer.yaml @a", "remembrancer.yaml", ""},
		{"/docs/remembrancer.yaml @a", "remembrancer.yaml", "no code owner"},
		{"*.sh @a", "ops/**", "no code owner"},
		{"", "a", "no code owner"},
		{"# * @a", "a", "no code owner"},
		{"* @a # comment", "a", ""},
		{"a\\ b @a", "a b", ""},
		{"/ops/ @a", "ops/**/x.sh", ""},
		{"/ops/x.sh @a", "ops/**/x.sh", "no code owner"},
		{"docs/ @a", "docs", "no code owner"}, // a file of that name is no folder
		// The last line that matches decides, and one without an owner takes it away.
		{"* @a\n/.github/", ".github/**", "/.github/ leaves files of .github/** without"},
		{"* @a\n/.github/workflows/x.yml", ".github/**", "leaves files"},
		{"* @a\n*.md", ".github/**", "*.md leaves files"},
		{"* @a\n*.md", "SMOKE_TEST.sh", ""},
		{"* @a\n/docs/", ".github/**", ""},
		{"/.github/\n* @a", ".github/**", ""},
		{"* @a\n/.git*/", ".github/**", "leaves files"},
		{"* @a\n/ops/**", "ops/ledger/**", "leaves files"},
		// What the forge refuses owns nothing.
		{"!/.github/ @a", ".github/**", "no code owner"},
		{"[a-z]* @a", "abc", "[a-z]* leaves files"},
	} {
		found := uncovered("CODEOWNERS", parseOwners(c.text), []string{c.gate})
		if c.want == "" {
			assert.Equal(t, len(found), 0, "%q for %s: %v", c.text, c.gate, found)
			continue
		}
		assert.Equal(t, len(found), 1, "%q for %s", c.text, c.gate)
		assert.Assert(t, strings.Contains(found[0].Message, c.want), "%q for %s: %s", c.text, c.gate, found[0].Message)
	}
}

// Law: a rule that covers a pattern meets it, and matches each file that can be
// made of the pattern.
func FuzzCoveringRulesMatch(f *testing.F) {
	f.Add("/.github/", ".github/**", "workflows/x.yml")
	f.Add("*", "ops/**", "a")
	f.Add("/ops/** @a", "ops/*/x", "q")
	f.Fuzz(func(t *testing.T, pattern, gate, below string) {
		dir, ok := strings.CutSuffix(gate, "/**")
		rules := parseOwners(pattern + " @a")
		if !ok || wild(dir) || dir == "" || len(rules) != 1 || !rules[0].owned || !rules[0].covers(gate) {
			return
		}
		for _, e := range append(strings.Split(below, "/"), strings.Split(dir, "/")...) {
			if e == "" || wild(e) {
				return
			}
		}
		if !rules[0].meets(gate) || !rules[0].matches(dir+"/"+below, false) {
			t.Errorf("%q covers %s, not %s", rules[0].pattern, gate, dir+"/"+below)
		}
	})
}
