package hygiene

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

var (
	// Few letters, so that patterns meet names.
	nameParts    = []string{"a", "b", "ab", "A", "-", "]", "[", "*", "\\", " ", "!", "#", ".", "0", "é", "\xe9"}
	patternParts = append([]string{
		"*", "*", "**", "**/", "/**", "/**/", "/", "/", "?", "[ab]", "[!a]", "[^a]", "[a-b]", "[]a]", "[!]a]", "[a-]", "[", "[a", "[]", "[!]",
		"[[:alpha:]]", "[[:digit:][:punct:]]", "[[:space:]]", "[[:upper:]b]", "[[:no:]]", "[[:alpha]", "[[:", "[\\]]", "[a\\-b]", "[\\a-b]", "[z-a]", "[-a]", "[a-b-]", "[--b]",
		"\\*", "\\[", "\\\\", "\\a", "\\ ", "\\/", "!", "\\!", "\\#", "#", "  ", "\r", "\x00", "***", "*a", "a*", "**a", "a**", "a**/b", "/*", "*/", "**//", "a**//", ".*", "*.", "//",
	}, nameParts...)
)

func pick(r *rand.Rand, parts []string, most int) string {
	var b strings.Builder
	for range 1 + r.IntN(most) {
		b.WriteString(parts[r.IntN(len(parts))])
	}
	return b.String()
}

// corpus returns trees of files and their .gitignore files, each in a folder of its
// own below one root.
func corpus(r *rand.Rand, trees int) (paths []string, ignores map[string]string) {
	ignores = map[string]string{}
	used := map[string]bool{}
	for i := range trees {
		root := fmt.Sprintf("t%d", i)
		dirs := []string{root}
		for range 12 {
			dir := dirs[r.IntN(len(dirs))]
			name := pick(r, nameParts, 3)
			p := dir + "/" + name
			if name == "." || name == ".." || used[p] {
				continue
			}
			used[p] = true
			if r.IntN(3) == 0 {
				dirs = append(dirs, p)
			} else {
				paths = append(paths, p)
			}
		}
		for k, dir := range dirs {
			if k > 0 && r.IntN(3) > 0 {
				continue
			}
			var b strings.Builder
			if r.IntN(8) == 0 {
				b.WriteString("\ufeff")
			}
			for range 1 + r.IntN(5) {
				b.WriteString(pick(r, patternParts, 4))
				b.WriteString([]string{"\n", "\n", "\n", "\r\n", "/\n", " \n", "\n\n"}[r.IntN(7)])
			}
			b.WriteString(pick(r, patternParts, 3)) // and no end of line
			ignores[dir+"/.gitignore"] = b.String()
		}
	}
	return paths, ignores
}

// gitDecides asks git which line decides on each path: "file:line", with a ! when it
// takes back, or nothing.
func gitDecides(t *testing.T, dir string, paths []string) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "check-ignore", "--no-index", "--verbose", "--non-matching", "-z", "--stdin")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(strings.Join(paths, "\x00")+"\x00")
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "XDG_CONFIG_HOME=/nonexistent")
	out, err := cmd.Output()
	assert.NilError(t, err)
	fields := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	assert.Equal(t, len(fields), 4*len(paths))
	got := map[string]string{}
	for ; len(fields) > 0; fields = fields[4:] {
		if fields[0] == "" || strings.HasPrefix(fields[2], "!") {
			continue
		}
		got[fields[3]] = fields[0] + ":" + fields[1]
	}
	return got
}

func TestIgnoresAsGitDoes(t *testing.T) {
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "git", "init", "-q", dir).CombinedOutput()
	assert.NilError(t, err, string(out))
	const trees = 120
	paths, files := corpus(rand.New(rand.NewPCG(7, 7)), trees)
	files[".gitignore"] = "/t3/a\n!/t3/a\nt4/*/b\nt5/\n!ab\n"
	g := &ignores{map[string][]rule{}, map[string]*rule{"": nil}}
	for name, content := range files {
		assert.NilError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777))
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666))
		g.rules[parent(name)] = parseIgnore(name, []byte(content))
	}
	want := gitDecides(t, dir, paths) // they need not be there, and making them is slow
	for _, p := range paths {
		got := ""
		if r := g.ignored(p, false); r != nil {
			got = r.file + ":" + strconv.Itoa(r.line)
		}
		if got != want[p] {
			line := func(s string) string {
				name, n, _ := strings.Cut(s, ":")
				i, _ := strconv.Atoi(n)
				if lines := strings.Split(files[name], "\n"); i > 0 && i <= len(lines) {
					return fmt.Sprintf("%s %q", s, lines[i-1])
				}
				return s
			}
			t.Errorf("%q: found %s, git says %s", p, line(got), line(want[p]))
		}
	}
	// The corpus must be worth something.
	ignored := len(want)
	assert.Assert(t, ignored > len(paths)/10 && ignored < 9*len(paths)/10, "%d of %d paths are ignored", ignored, len(paths))
}

// No pattern takes long, whatever it is.
func TestPatternsOfManyStarsAreFast(t *testing.T) {
	rules := parseIgnore(".gitignore", []byte(strings.Repeat("*a", 200)+"b\n"+strings.Repeat("**/", 200)+"x\n"))
	name := strings.Repeat("a/", 2000) + strings.Repeat("a", 2000)
	assert.Assert(t, !rules[0].match(name, false))
	assert.Assert(t, !rules[1].match(name, false))
}

func FuzzIgnorePatterns(f *testing.F) {
	for _, p := range patternParts {
		f.Add(p, "a/b")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		for _, r := range parseIgnore(".gitignore", []byte(pattern)) {
			r.match(name, true)
		}
		// What is written to ignore a path ignores it.
		if strings.ContainsAny(name, "\x00\n") || name == "" || strings.HasSuffix(name, "/") || strings.HasPrefix(name, "/") || strings.Contains(name, "//") {
			return
		}
		rules := parseIgnore(".gitignore", []byte(ignoring(name)+"\n"))
		assert.Equal(t, len(rules), 1)
		assert.Assert(t, rules[0].match(name, false), "%q as %q", name, ignoring(name))
	})
}
