package guard

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// The forge's own examples of patterns, and what it says of each.
func TestOwnersOfAPathAreThoseOfTheLastPatternThatMatches(t *testing.T) {
	for _, c := range []struct{ pattern, matching, others string }{
		{"*", "a a/b a/b/.c", ""},
		{"**", "a a/b", ""},
		{"*.js", "a.js lib/a.js lib/x.js/y", "a.jsx js"},
		{"/build/logs/", "build/logs/a build/logs/a/b", "build/logs x/build/logs/a"},
		{"docs/*", "docs/getting-started.md", "docs/build-app/troubleshooting.md docs x/docs/a"},
		{"/docs/*", "docs/a", "docs/a/b"},
		{"/*", "a .a", "a/b"},
		{"apps/", "apps/a apps/a/b x/apps/a", "apps x/apps"},
		{"apps", "apps apps/a x/apps x/apps/a", "xapps appsx"},
		{"/docs/", "docs/a docs/a/b", "docs x/docs/a"},
		{"/docs", "docs docs/a docs/a/b", "x/docs"},
		{"docs/a", "docs/a docs/a/b", "x/docs/a docs/ab"},
		{"**/logs", "logs/a build/logs/a build/logs deeply/nested/logs/a", "logsx/a"},
		{"/scripts/**", "scripts/a scripts/a/b", "scripts"},
		{"a/**/b", "a/b a/x/b a/x/y/b a/b/c", "a/x ab"},
		{"a/**/b/**/c", "a/b/c a/x/b/y/z/c a/b/b/c", "a/c a/b"},
		{"**/*", "a a/b", ""},
		{"/SMOKE_TEST.sh", "SMOKE_TEST.sh", "smoke_test.sh x/SMOKE_TEST.sh"},
		{"a?c", "abc x/abc", "ac abbc a/c"},
		{`with\ space`, "with space", "with"},
		{`star\*`, "star*", "stars"},
		{"*/*", "a/b", "a a/b/c"},
	} {
		o := parseOwners("CODEOWNERS", []byte("\ufeff* @other\r\n"+c.pattern+"\t@a  @b/c # remark\r\n"))
		assert.Equal(t, len(o.rules), 2, c.pattern)
		for _, p := range split(c.matching) {
			assert.DeepEqual(t, o.of(p), []string{"@a", "@b/c"})
		}
		for _, p := range split(c.others) {
			assert.DeepEqual(t, o.of(p), []string{"@other"})
		}
	}
}

// split parts paths at spaces; the one path that has a space is known.
func split(paths string) []string {
	if paths == "with space" {
		return []string{paths}
	}
	return strings.Fields(paths)
}

func TestALineWithoutMeaningHasNoEffectAndIsNamed(t *testing.T) {
	o := parseOwners("CODEOWNERS", []byte("# a remark\n\n* @other\n!a @x\n[ab] @x\n\\#a @x\n/ @x\na//b @x\na*** @x\nb\\ @x\nc #@x\n"))
	var lines []int
	for _, w := range o.warnings {
		assert.Assert(t, w.Warning && w.Path == "CODEOWNERS")
		lines = append(lines, w.Line)
	}
	assert.DeepEqual(t, lines, []int{4, 5, 6, 7, 8, 9})
	for _, p := range []string{"a", "!a", "[ab]", "#a", "a/b"} {
		assert.DeepEqual(t, o.of(p), []string{"@other"})
	}
	assert.Equal(t, len(o.of("b @x")), 0, "the space was escaped: it is part of the name")
	assert.Equal(t, len(o.of("c")), 0, "its owners are a remark")
}

type tree map[string]string

func (t tree) Blob(p string) ([]byte, error) {
	switch s, ok := t[p]; {
	case !ok:
		return nil, fs.ErrNotExist
	case s == "broken":
		return nil, errors.New("broken")
	default:
		return []byte(s), nil
	}
}

func (tree) Walk(string, func(string, fs.FileMode, string) error) error { return nil }

func TestTheFirstFileOfOwnersCounts(t *testing.T) {
	all := tree{".github/CODEOWNERS": "* @a", "CODEOWNERS": "* @b", "docs/CODEOWNERS": "* @c"}
	for _, want := range []string{".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS", ""} {
		o, err := readOwners(all)
		assert.NilError(t, err)
		assert.Equal(t, o.path, want)
		delete(all, want)
	}
	_, err := readOwners(tree{".github/CODEOWNERS": "broken", "CODEOWNERS": "* @b"})
	assert.Error(t, err, "broken")
	_, err = readOwners(tree{"CODEOWNERS": strings.Repeat("#\n", maxOwners)})
	assert.ErrorContains(t, err, "the forge ignores")
}

// Laws: whatever the file, each path has the owners of one of its rules, a rule
// for all things at the end takes them all, and no path takes long.
func FuzzOwners(f *testing.F) {
	f.Add("* @a\n/.github/ @b # x\n", "a/b")
	f.Add("a/**/b/**/c @x\n", "a/b/c")
	f.Add("**/a/**/a/**/a/**/b @x\n", strings.Repeat("a/", 50)+"c")
	f.Fuzz(func(t *testing.T, text, p string) {
		o := parseOwners("CODEOWNERS", []byte(text))
		for _, r := range o.rules {
			assert.Assert(t, len(r.elements) > 0 && r.line > 0)
		}
		o.of(p)
		last := parseOwners("CODEOWNERS", []byte(text+"\n* @last\n"))
		assert.DeepEqual(t, last.of(p), []string{"@last"})
	})
}
