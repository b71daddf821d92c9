package hygiene_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/hygiene"
	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// tree is a tree in memory: files by path, a content that begins with a zero byte
// being of another kind.
type tree map[string]string

const (
	symlink   = "\x00symlink"
	submodule = "\x00submodule"
	gone      = "\x00gone"
)

var errGone = errors.New("object is missing from the repository")

func (t tree) mode(p string) fs.FileMode {
	switch t[p] {
	case symlink:
		return fs.ModeSymlink
	case submodule:
		return fs.ModeIrregular
	}
	return 0o644
}

func (t tree) Blob(p string) ([]byte, error) {
	s, ok := t[p]
	switch {
	case !ok:
		return nil, fs.ErrNotExist
	case s == gone:
		return nil, errGone
	case !t.mode(p).IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", p)
	}
	return []byte(s), nil
}

func (t tree) Walk(_ string, fn func(string, fs.FileMode, string) error) error {
	for _, p := range slices.Sorted(maps.Keys(t)) {
		sum := sha256.Sum256([]byte(t[p]))
		if err := fn(p, t.mode(p), hex.EncodeToString(sum[:])); err != nil {
			return err
		}
	}
	return nil
}

// one returns one check of all.
func one(t testing.TB, id string, tr judge.Tree, rules hygiene.Rules, work *hygiene.WorkTree) judge.Check {
	t.Helper()
	checks := hygiene.Check(tr, rules, work)
	i := slices.IndexFunc(checks, func(c judge.Check) bool { return c.ID == "hygiene/"+id })
	assert.Assert(t, i >= 0)
	return checks[i]
}

// lines writes findings as path:line: message | fix.
func lines(c judge.Check) []string {
	out := []string{}
	for _, f := range c.Findings {
		place := f.Path
		if f.Line > 0 {
			place += fmt.Sprintf(":%d", f.Line)
		}
		out = append(out, fmt.Sprintf("%s: %s | %s", place, f.Message, f.Fix))
	}
	return out
}

func statuses(checks []judge.Check) []string {
	var out []string
	for _, c := range checks {
		out = append(out, strings.TrimPrefix(c.ID, "hygiene/")+" "+c.Status.String())
	}
	return out
}

var all = hygiene.Rules{
	Root: []string{"README.md", "docs"}, MaxRoot: 3, MaxFile: 1000,
	Archive: []string{"archive/**"}, Links: []string{"**/*.md"},
}

func TestACleanTreePassesEverything(t *testing.T) {
	tr := tree{"README.md": "# Hello\n\n[docs](docs/a.md#there)\n", "docs/a.md": "## There\n"}
	assert.DeepEqual(t, statuses(hygiene.Check(tr, all, &hygiene.WorkTree{})), []string{
		"root pass", "untracked pass", "ignored pass", "duplicates pass", "names pass", "size pass", "links pass", "markers pass",
	})
}

func TestWhatIsNotClaimedIsNotPassed(t *testing.T) {
	assert.DeepEqual(t, statuses(hygiene.Check(tree{"a": "a"}, hygiene.Rules{}, nil)), []string{
		"root unclaimed", "untracked unclaimed", "ignored pass", "duplicates pass", "names pass", "size unclaimed", "links unclaimed", "markers pass",
	})
	assert.Equal(t, one(t, "untracked", tree{}, all, nil).Detail, "a commit has no untracked files")
}

type unlisted struct{ tree }

func (unlisted) Walk(string, func(string, fs.FileMode, string) error) error { return errGone }

func TestATreeThatCannotBeListedPassesNothing(t *testing.T) {
	for _, c := range hygiene.Check(unlisted{}, all, &hygiene.WorkTree{}) {
		assert.Equal(t, c.Status, judge.Error)
		assert.Equal(t, c.Detail, "object is missing from the repository")
	}
}

// Each check that needs a file's content is an error without it.
func TestAFileThatCannotBeReadIsNoPass(t *testing.T) {
	for _, test := range []struct {
		name string
		tree tree
		want []string // checks that cannot judge
	}{
		{"a document", tree{"README.md": gone}, []string{"links", "markers", "size"}},
		{"the target of a link", tree{"README.md": "[a](docs/b.md#c)", "docs/b.md": gone}, []string{"links", "markers", "size"}},
		{"a .gitignore", tree{".gitignore": gone}, []string{"ignored", "markers", "size"}},
		{"one of two that are the same", tree{"docs/a": gone, "docs/b": gone}, []string{"duplicates", "markers", "size"}},
		{"what may be a core dump", tree{"docs/core": gone}, []string{"markers", "names", "size"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, c := range hygiene.Check(test.tree, all, nil) {
				if c.Status == judge.Error {
					assert.Equal(t, c.Detail, "object is missing from the repository")
					got = append(got, strings.TrimPrefix(c.ID, "hygiene/"))
				}
			}
			slices.Sort(got)
			assert.DeepEqual(t, got, test.want)
		})
	}
}

func TestAMalformedPatternIsNoPass(t *testing.T) {
	bad := []string{"a/[", "x"}
	for id, rules := range map[string]hygiene.Rules{
		"links":      {Links: bad},
		"duplicates": {Archive: bad},
	} {
		c := one(t, id, tree{"a": "a"}, rules, nil)
		assert.Equal(t, c.Status, judge.Error)
		assert.Equal(t, c.Detail, `pattern "a/[" is malformed, wanted one such as docs/**`)
	}
	c := one(t, "root", tree{"a": "a"}, hygiene.Rules{Root: []string{"docs/**"}}, nil)
	assert.Equal(t, c.Status, judge.Error)
	assert.Equal(t, c.Detail, `patterns ["docs/**"] of the root: found a slash, wanted names such as docs or *.md`)
	assert.Equal(t, one(t, "root", tree{"a": "a"}, hygiene.Rules{Root: []string{"["}}, nil).Status, judge.Error)
}

func TestRootHoldsOnlyWhatIsListed(t *testing.T) {
	rules := hygiene.Rules{Root: []string{"*.md", "src"}, Archive: []string{"archive/**", "docs/old/**"}}
	tr := tree{"README.md": "x", "src/a": "x", "tmp/b": "x", "notes 🎉.txt": "x", "-x": "x", "docs/a": "x"}
	c := one(t, "root", tr, rules, nil)
	assert.Equal(t, c.Status, judge.Fail)
	assert.Equal(t, c.Detail, "6 entries at the root")
	assert.DeepEqual(t, lines(c), []string{
		"-x: is not on the list of what may lie at the root | mkdir -p -- archive && git mv -- -x archive/",
		"notes 🎉.txt: is not on the list of what may lie at the root | mkdir -p -- archive && git mv -- 'notes 🎉.txt' archive/",
		"tmp: is not on the list of what may lie at the root | mkdir -p -- archive && git mv -- tmp archive/",
	})

	t.Run("the archive is there, and has one of the name", func(t *testing.T) {
		c := one(t, "root", tree{"a": "x", "b/c": "x", "d": "x", "archive/a": "x", "archive/b": "x"}, rules, nil)
		assert.DeepEqual(t, lines(c), []string{
			"a: is not on the list of what may lie at the root | git rm -- a",
			"b: is not on the list of what may lie at the root | git rm -r -- b",
			"d: is not on the list of what may lie at the root | git mv -- d archive/",
		})
	})
	t.Run("no archive", func(t *testing.T) {
		c := one(t, "root", tree{"a": "x"}, hygiene.Rules{Root: []string{"b"}, Archive: []string{"*/old/**"}}, nil)
		assert.DeepEqual(t, lines(c), []string{"a: is not on the list of what may lie at the root | git rm -- a"})
	})
}

func TestRootHasALimit(t *testing.T) {
	tr := tree{"a": "1", "b": "2", "c/d": "3", "c/e": "4"}
	assert.Equal(t, one(t, "root", tr, hygiene.Rules{MaxRoot: 3}, nil).Status, judge.Pass)
	c := one(t, "root", tr, hygiene.Rules{MaxRoot: 2}, nil)
	assert.Equal(t, c.Status, judge.Fail)
	assert.DeepEqual(t, lines(c), []string{": found 3 entries at the root, wanted at most 2 | git rm -r -- NAME, for 1 of them"})
	c = one(t, "root", tr, hygiene.Rules{MaxRoot: 2, Archive: []string{"c/**"}}, nil)
	assert.DeepEqual(t, lines(c), []string{": found 3 entries at the root, wanted at most 2 | git mv -- NAME c/, for 1 of them"})
}

func TestUntrackedFilesAreFound(t *testing.T) {
	c := one(t, "untracked", tree{}, hygiene.Rules{}, &hygiene.WorkTree{Untracked: []string{"new file.go", "node_modules/", "a[1]*.go", "x.orig"}})
	assert.Equal(t, c.Status, judge.Fail)
	assert.DeepEqual(t, lines(c), []string{
		`a[1]*.go: is neither tracked nor ignored | git add -- 'a[1]*.go', or: printf '%s\n' '/a\[1]\*.go' >>.gitignore`,
		`new file.go: is neither tracked nor ignored | git add -- 'new file.go', or: printf '%s\n' '/new file.go' >>.gitignore`,
		`node_modules/: is neither tracked nor ignored | git add -- node_modules/, or: printf '%s\n' /node_modules/ >>.gitignore`,
		`x.orig: is neither tracked nor ignored | rm -- x.orig`,
	})
}

func TestTrackedFilesThatAreIgnoredAreFound(t *testing.T) {
	c := one(t, "ignored", tree{
		".gitignore":          "# made\n*.log\n!keep.log\n/build/\nlink/\nsub/\n",
		"a.log":               "x",
		"keep.log":            "x",
		"deep/er/b.log":       "x",
		"build/keep.log":      "x", // nothing below an ignored folder is taken back
		"src/build/x":         "x", // anchored
		"link":                symlink,
		"vendored/sub":        submodule,
		"docs/.gitignore":     "!*.log\nsecret*\n",
		"docs/c.log":          "x",
		"docs/secret plan.md": "x",
	}, hygiene.Rules{}, nil)
	assert.Equal(t, c.Status, judge.Fail)
	assert.Equal(t, c.Detail, "2 .gitignore files")
	assert.DeepEqual(t, lines(c), []string{
		"a.log: is tracked, but line 2 of .gitignore ignores it | git rm --cached -- a.log",
		"build/keep.log: is tracked, but line 4 of .gitignore ignores it | git rm --cached -- build/keep.log",
		"deep/er/b.log: is tracked, but line 2 of .gitignore ignores it | git rm --cached -- deep/er/b.log",
		"docs/secret plan.md: is tracked, but line 2 of docs/.gitignore ignores it | git rm --cached -- 'docs/secret plan.md'",
		"vendored/sub: is tracked, but line 6 of .gitignore ignores it | git rm --cached -- vendored/sub",
	})
	assert.Equal(t, one(t, "ignored", tree{".gitignore": symlink, "a": "x"}, hygiene.Rules{}, nil).Status, judge.Pass)
}

func TestTooManyIgnoreLinesAreNoPass(t *testing.T) {
	c := one(t, "ignored", tree{".gitignore": strings.Repeat("a\n", 10_001)}, hygiene.Rules{}, nil)
	assert.Equal(t, c.Status, judge.Error)
	assert.Equal(t, c.Detail, ".gitignore: found more than 10000 lines of .gitignore files, wanted fewer")
}

func TestDuplicatesAreFoundOutsideTheArchive(t *testing.T) {
	long := strings.Repeat("the same old story\n", 4)
	c := one(t, "duplicates", tree{
		"story.md": long, "copy of story.md": long, "docs/story.md": long,
		"archive/story.md": long, "pkg/testdata/story.md": long, "vendor/a/story.md": long,
		"a/LICENSE": long + long, "b/LICENSE": long + long, "b/licence.txt": long + long,
		"a/__init__.py": "", "b/__init__.py": "", "a/short": "short", "b/short": "short",
		"testdata": symlink, "vendor/testdata": symlink,
	}, all, nil)
	assert.Equal(t, c.Status, judge.Fail)
	assert.DeepEqual(t, lines(c), []string{
		"docs/story.md: holds the same 76 bytes as copy of story.md | git rm -- docs/story.md",
		"story.md: holds the same 76 bytes as copy of story.md | git rm -- story.md",
	})
}

func TestNamesWorkEverywhere(t *testing.T) {
	for _, test := range []struct{ path, want string }{
		{"a\tb.txt", `a	b.txt: the name has a character that cannot be seen | git mv -- $'a\x09b.txt' a_b.txt`},
		{"x\u202egpj.exe", "x\u202egpj.exe: the name has a character that cannot be seen | git mv -- $'x\\xe2\\x80\\xaegpj.exe' x_gpj.exe"},
		{"caf\xe9.md", "caf\xe9.md: the name is not UTF-8 | git mv -- $'caf\\xe9.md' caf_.md"},
		{"it's \xff", "it's \xff: the name is not UTF-8 | git mv -- $'it\\'s \\xff' 'it'\\''s _'"},
		{"trailing ", "trailing : the name ends with a space or a dot, which Windows drops | git mv -- 'trailing ' trailing"},
		{"dir. /a", "dir. : the name ends with a space or a dot, which Windows drops | git mv -- 'dir. ' dir"},
		{`a\b`, `a\b: the name has one of \ : * ? " < > |, which Windows refuses | git mv -- 'a\b' a_b`},
		{"12:30.log", `12:30.log: the name has one of \ : * ? " < > |, which Windows refuses | git mv -- 12:30.log 12_30.log`},
		{"-rf", "-rf: the name begins with a dash, as an option does | git mv -- -rf rf"},
		{"---", "---: the name begins with a dash, as an option does | git mv -- --- unnamed"},
		{"docs/aux.txt", "docs/aux.txt: the name is that of a device on Windows | git mv -- docs/aux.txt docs/aux_.txt"},
		{"CON", "CON: the name is that of a device on Windows | git mv -- CON CON_"},
		{"com1.tar.gz/x", "com1.tar.gz: the name is that of a device on Windows | git mv -- com1.tar.gz com1_.tar.gz"},
		{"notes.md~", "notes.md~: was left behind by an editor, a merge, a crash or a desktop | git rm -- 'notes.md~'"},
		{"a.orig", "a.orig: was left behind by an editor, a merge, a crash or a desktop | git rm -- a.orig"},
		{"a.rej", "a.rej: was left behind by an editor, a merge, a crash or a desktop | git rm -- a.rej"},
		{"d/.a.swp", "d/.a.swp: was left behind by an editor, a merge, a crash or a desktop | git rm -- d/.a.swp"},
		{"d/.DS_Store", "d/.DS_Store: was left behind by an editor, a merge, a crash or a desktop | git rm -- d/.DS_Store"},
		{"Thumbs.db", "Thumbs.db: was left behind by an editor, a merge, a crash or a desktop | git rm -- Thumbs.db"},
		{"nohup.out", "nohup.out: was left behind by an editor, a merge, a crash or a desktop | git rm -- nohup.out"},
	} {
		t.Run(fmt.Sprintf("%q", test.path), func(t *testing.T) {
			c := one(t, "names", tree{test.path: "x"}, hygiene.Rules{}, nil)
			assert.Equal(t, c.Status, judge.Fail)
			assert.DeepEqual(t, lines(c), []string{test.want})
		})
	}
	good := tree{"core": "a file of a person's own", "src/core/a": "x", "🎉 party 👩‍💻.md": "x", "console": "x", "auxiliary.txt": "x", "~": "x", ".hidden": "x", "né.md": "x", "क्ष.md": "x"}
	assert.DeepEqual(t, lines(one(t, "names", good, hygiene.Rules{}, nil)), []string{})
	dump := one(t, "names", tree{"core": "\x7fELF…"}, hygiene.Rules{}, nil)
	assert.DeepEqual(t, lines(dump), []string{"core: was left behind by an editor, a merge, a crash or a desktop | git rm -- core"})
}

func TestLongPathsAreFound(t *testing.T) {
	long := "docs/" + strings.Repeat("ä", 120) + ".md"
	c := one(t, "names", tree{long: "x", long[:239]: "x"}, hygiene.Rules{}, nil)
	assert.Equal(t, len(c.Findings), 1)
	assert.Equal(t, c.Findings[0].Message, "the path has 248 bytes, wanted at most 240")
	fields := strings.Split(c.Findings[0].Fix, " ")
	shorter := strings.Trim(fields[len(fields)-1], "'")
	assert.Assert(t, strings.HasPrefix(shorter, "docs/ää") && strings.HasSuffix(shorter, "ä.md") && len(shorter) <= 240, shorter)

	deep := strings.Repeat("d/", 130) + "x.md" // no name is short enough
	c = one(t, "names", tree{deep: "x"}, hygiene.Rules{}, nil)
	assert.DeepEqual(t, lines(c), []string{deep + ": the path has 264 bytes, wanted at most 240 | "})
}

func TestAFixNeverTakesANameThatIsTaken(t *testing.T) {
	c := one(t, "names", tree{"a:b.md": "1", "a?b.md": "2", "a_b.md": "3"}, hygiene.Rules{}, nil)
	assert.DeepEqual(t, []string{c.Findings[0].Fix, c.Findings[1].Fix}, []string{"git mv -- a:b.md a_b-2.md", "git mv -- 'a?b.md' a_b-3.md"})
}

// sized is a tree that knows sizes, and tells of what is read.
type sized struct {
	tree
	read map[string]bool
}

func (s sized) Size(p string) (int64, error) {
	if s.tree[p] == gone {
		return 5 << 20, nil
	}
	return int64(len(s.tree[p])), nil
}

func (s sized) Blob(p string) ([]byte, error) {
	s.read[p] = true
	return s.tree.Blob(p)
}

func TestLargeFilesAreFound(t *testing.T) {
	tr := tree{"a.bin": strings.Repeat("x", 1001), "b.bin": strings.Repeat("x", 1000), "archive/c d": strings.Repeat("y", 2000), "l": symlink, "m": submodule}
	c := one(t, "size", tr, all, nil)
	assert.Equal(t, c.Status, judge.Fail)
	want := []string{
		"a.bin: has 1001 bytes, wanted at most 1000 | git rm -- a.bin",
		"archive/c d: has 2000 bytes, wanted at most 1000 | git rm -- 'archive/c d'",
	}
	assert.DeepEqual(t, lines(c), want)
	assert.DeepEqual(t, lines(one(t, "size", sized{tr, map[string]bool{}}, all, nil)), want)
}

func TestLargeFilesAreNotReadWhereSizesAreKnown(t *testing.T) {
	tr := sized{tree{"huge": gone, "a": "x"}, map[string]bool{}}
	checks := hygiene.Check(tr, hygiene.Rules{MaxFile: 6 << 20}, nil)
	assert.DeepEqual(t, tr.read, map[string]bool{"a": true})
	assert.Equal(t, checks[7].Status, judge.Pass)
	assert.Equal(t, checks[7].Detail, "1 text; 1 larger file was not searched")
}

func TestConflictMarkersAreFound(t *testing.T) {
	ours, both, theirs := strings.Repeat("<", 7), strings.Repeat("=", 7), strings.Repeat(">", 7)
	conflict := "a\n" + ours + " HEAD\nb\n" + both + "\nc\n" + theirs + " topic\n"
	c := one(t, "markers", tree{
		"a.go":            conflict,
		"windows.txt":     strings.ReplaceAll(conflict, "\n", "\r\n"),
		"end.txt":         ours + "\n" + both + "\n" + theirs,
		"pkg/testdata/b":  conflict,
		"binary":          "\x00" + conflict,
		"title.rst":       "Title\n" + both + "\n" + ours + "\n",
		"longer.txt":      strings.ReplaceAll(conflict, ours, ours+"<"),
		"middle.txt":      strings.ReplaceAll(conflict, ours, "  "+ours),
		"wrong order.txt": theirs + "\n" + both + "\n" + ours + "\n",
		"link":            symlink,
	}, hygiene.Rules{}, nil)
	assert.Equal(t, c.Status, judge.Fail)
	assert.Equal(t, c.Detail, "7 texts")
	assert.DeepEqual(t, lines(c), []string{
		"a.go:2: holds the markers of a merge conflict | resolve the conflict, then: git add -- a.go",
		"end.txt:1: holds the markers of a merge conflict | resolve the conflict, then: git add -- end.txt",
		"windows.txt:2: holds the markers of a merge conflict | resolve the conflict, then: git add -- windows.txt",
	})
}

// git runs git in a folder, without any configuration of a person's own.
func git(t testing.TB, dir, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "XDG_CONFIG_HOME=/nonexistent",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org")
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "git %q: %s", args, out)
	return string(out)
}

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for p, s := range files {
		p = filepath.Join(dir, p)
		assert.NilError(t, os.MkdirAll(filepath.Dir(p), 0o777))
		assert.NilError(t, os.WriteFile(p, []byte(s), 0o666))
	}
}

// tracked returns what git tracks in a folder, with the content on disk.
func tracked(t testing.TB, dir string) tree {
	t.Helper()
	tr := tree{}
	for p := range strings.SplitSeq(git(t, dir, "", "ls-files", "-z"), "\x00") {
		if p != "" {
			b, err := os.ReadFile(filepath.Join(dir, p))
			assert.NilError(t, err)
			tr[p] = string(b)
		}
	}
	return tr
}

// Every fix is typed into a shell as it is printed, until nothing is found.
func TestFixesMend(t *testing.T) {
	dir := t.TempDir()
	git(t, dir, "", "init", "-q")
	files := map[string]string{"README.md": "hello", "docs/fine.md": "fine"}
	for i, name := range []string{
		"sp ace.md", "🎉.md", "-dash.md", "--", "it's", `quo"te`, "new\nline", "tab\t.md", "bell\a", "caf\xe9", "~tilde", "$HOME", "`id`", "a;b", "back\\slash", "*", "com1", "end.", "x~",
		"deep/-in/con.d/a: b", "deep/-in/x", "a.md.orig",
	} {
		files[name] = strings.Repeat(fmt.Sprintf("%d ", i), 10)
		if i%2 == 0 {
			files["docs/"+name] = strings.Repeat(fmt.Sprintf("docs %d ", i/4), 10) // some are the same
		}
	}
	files["big"] = strings.Repeat("x", 5000)
	files[".gitignore"] = "*.log\n"
	files["made at noon.log"] = "x"
	write(t, dir, files)
	git(t, dir, "", "add", "--force", "--all")
	git(t, dir, "", "commit", "-q", "--message=a mess")

	rules := hygiene.Rules{Root: []string{"README.md", "docs", ".gitignore"}, MaxFile: 1000, Archive: []string{"old things/**"}, Links: []string{"**/*.md"}}
	for round := 0; ; round++ {
		assert.Assert(t, round < 10)
		var fix string
		for _, c := range hygiene.Check(tracked(t, dir), rules, nil) {
			for _, f := range c.Findings {
				assert.Assert(t, f.Fix != "" && !strings.ContainsAny(f.Fix, "\n\t\a\x1b"), "%q", f)
			}
			// The fixes of one check stand together, those of two may be of one file.
			if len(c.Findings) > 0 && fix == "" {
				for _, f := range c.Findings {
					fix += f.Fix + "\n"
				}
			}
		}
		if fix == "" {
			break
		}
		cmd := exec.CommandContext(t.Context(), "bash", "-e")
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(fix)
		out, err := cmd.CombinedOutput()
		assert.NilError(t, err, "%s\n%s", fix, out)
		git(t, dir, "", "commit", "-q", "--message=mended")
	}
	left := tracked(t, dir)
	assert.Equal(t, left["README.md"], "hello")
	assert.Equal(t, left["docs/fine.md"], "fine")
	assert.Assert(t, left["old things/sp ace.md"] != "" && left["old things/🎉.md"] != "")
}

// The line that a fix proposes for .gitignore ignores its file and no other.
func TestIgnoreLineOfAFix(t *testing.T) {
	names := []string{"a", "a ", "a  ", " a", "#a", "!a", "a*", "a[b]", `a\`, `a\b`, "a?", "ab", "d/a*b", "d/a b", "caf\xe9", "a\xff", "-a"}
	files := tree{}
	for _, name := range names {
		files[name] = "x"
	}
	for _, name := range names {
		c := one(t, "untracked", files, hygiene.Rules{}, &hygiene.WorkTree{Untracked: []string{name}})
		_, printf, _ := strings.Cut(c.Findings[0].Fix, ", or: ")
		cmd := exec.CommandContext(t.Context(), "bash", "-c", strings.TrimSuffix(printf, " >>.gitignore"))
		line, err := cmd.Output()
		assert.NilError(t, err)
		with := maps.Clone(files)
		with[".gitignore"] = string(line)
		var got []string
		for _, f := range one(t, "ignored", with, hygiene.Rules{}, nil).Findings {
			got = append(got, f.Path)
		}
		assert.DeepEqual(t, got, []string{name})
	}
}
