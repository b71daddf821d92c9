package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// git runs git in a folder, with nothing of the machine's configuration.
func git(t testing.TB, dir string, stdin []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "GIT_") }),
		"HOME="+dir, "XDG_CONFIG_HOME="+dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_ATTR_NOSYSTEM=1", "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	assert.NilError(t, err, "git %s\n%s", strings.Join(args, " "), stderr.String())
	return out
}

func gitArchive(t testing.TB, dir, commit string) []byte {
	t.Helper()
	return git(t, dir, nil, "-c", "tar.umask=0002", "-c", "core.autocrlf=false", "archive", "--format=tar", commit)
}

// memory is a tree whose files are in memory.
type memory map[string]node

type node struct {
	mode string
	data string // of a submodule: the id
}

func (n node) id() string {
	if n.mode == modeSubmodule {
		return n.data
	}
	return objectID("blob", []byte(n.data))
}

func (m memory) Blob(p string) ([]byte, error) {
	n, ok := m[p]
	if !ok {
		return nil, fs.ErrNotExist
	}
	if n.mode == modeLink || n.mode == modeSubmodule {
		return nil, errors.New("not a regular file")
	}
	return []byte(n.data), nil
}

func (m memory) Link(p string) (string, error) {
	if m[p].mode != modeLink {
		return "", errors.New("not a link")
	}
	return m[p].data, nil
}

func (m memory) Walk(_ string, fn func(string, fs.FileMode, string) error) error {
	modes := map[string]fs.FileMode{modeFile: 0o644, modeProgram: 0o755, modeLink: fs.ModeSymlink, modeSubmodule: fs.ModeIrregular}
	for p, n := range m {
		if err := fn(p, modes[n.mode], n.id()); err != nil {
			return err
		}
	}
	return nil
}

// put adds a file unless there is a folder, or a file on its way.
func (m memory) put(p, mode, data string) {
	for q := range m {
		if strings.HasPrefix(q, p+"/") {
			return
		}
	}
	for q := path.Dir(p); q != "."; q = path.Dir(q) {
		if _, taken := m[q]; taken {
			return
		}
	}
	m[p] = node{mode, data}
}

// revision is a commit to be made.
type revision struct {
	files             memory
	author, committer string
	message           string
}

// commits makes a bare repository of unrelated commits, and returns their bytes.
func commits(t testing.TB, revisions []revision) (dir string, raw [][]byte) {
	t.Helper()
	dir = t.TempDir()
	git(t, dir, nil, "init", "-q", "--bare", ".")
	var in bytes.Buffer
	var names []string
	for i, r := range revisions {
		ref := fmt.Sprintf("refs/heads/c%d", i)
		names = append(names, ref)
		fmt.Fprintf(&in, "commit %s\nauthor %s\ncommitter %s\ndata %d\n%s\n", ref, r.author, r.committer, len(r.message), r.message)
		for p, n := range r.files {
			quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(p) + `"`
			if n.mode == modeSubmodule {
				fmt.Fprintf(&in, "M %s %s %s\n", n.mode, n.data, quoted)
				continue
			}
			fmt.Fprintf(&in, "M %s inline %s\ndata %d\n%s\n", n.mode, quoted, len(n.data), n.data)
		}
	}
	git(t, dir, in.Bytes(), "-c", "core.protectNTFS=false", "fast-import", "--quiet")
	out := git(t, dir, []byte(strings.Join(names, "\n")+"\n"), "cat-file", "--batch")
	for range revisions {
		var id, kind string
		var size int
		line, rest, _ := bytes.Cut(out, []byte("\n"))
		_, err := fmt.Sscan(string(line), &id, &kind, &size)
		assert.NilError(t, err)
		raw = append(raw, rest[:size])
		out = rest[size+1:]
		assert.Equal(t, objectID("commit", raw[len(raw)-1]), id)
	}
	return dir, raw
}

// places says where two archives differ.
func places(got, want []byte) string {
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	show := func(b []byte) string {
		return fmt.Sprintf("%q", b[min(max(0, i-60), len(b)):min(i+60, len(b))])
	}
	return fmt.Sprintf("%d and %d bytes, from byte %d on\ngot  %s\nwant %s", len(got), len(want), i, show(got), show(want))
}

// same demands that git writes each revision as Tar does.
func same(t *testing.T, revisions []revision) {
	t.Helper()
	dir, raw := commits(t, revisions)
	for i, r := range revisions {
		c, err := ParseCommit(raw[i])
		assert.NilError(t, err)
		var b bytes.Buffer
		assert.NilError(t, Tar(&b, r.files, c))
		want := gitArchive(t, dir, c.ID())
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("archive %d differs: %s", i, places(b.Bytes(), want))
			for p, n := range r.files {
				if path.Base(p) == ".gitattributes" {
					t.Logf("%s:\n%s", p, n.data)
				}
			}
			return
		}
	}
}

const someone = "A Person <person@example.com> 1700000000 +0530"

func one(files memory) []revision { return []revision{{files, someone, someone, "subject\n"}} }

func TestTheArchiveIsGitsOwn(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 99)
	for _, tc := range []struct {
		name  string
		files memory
	}{
		{"modes", memory{"a": {modeFile, "text\n"}, "b/program": {modeProgram, "#!/bin/sh\n"}, "empty": {modeFile, ""}, "link": {modeLink, "../out of it"}, "sub": {modeSubmodule, strings.Repeat("ab", 20)}}},
		{"order of files and folders", memory{"foo.txt": {modeFile, "1"}, "foo/a": {modeFile, "2"}, "foo-bar": {modeFile, "3"}, "foo0": {modeFile, "4"}}},
		{"unicode and odd names", memory{"ünïcödé/日本": {modeFile, "x"}, "a b/-c": {modeFile, "y"}, "line\nfeed": {modeFile, "z"}, "quo\"te\\": {modeFile, "w"}, "\xff\xfe": {modeFile, "not UTF-8"}}},
		{"names of a hundred bytes", memory{long + "x": {modeFile, "1"}, long[1:] + "/x": {modeFile, "1"}, "d/" + long: {modeFile, "2"}, "d/" + long + "y/z": {modeFile, "3"}}},
		{"names too long to part", memory{strings.Repeat("y", 101): {modeFile, "1"}, strings.Repeat("z", 120) + "/" + strings.Repeat("w", 130): {modeFile, "2"}}},
		{"long folders", memory{strings.Repeat("d/", 120) + "f": {modeFile, "1"}, strings.Repeat("e", 200) + "/f": {modeFile, "2"}, strings.Repeat("g", 156) + "/f": {modeFile, "3"}, strings.Repeat("h", 155) + "/f": {modeFile, "4"}, strings.Repeat("i", 255) + "/" + strings.Repeat("j", 100): {modeSubmodule, strings.Repeat("cd", 20)}}},
		{"long links", memory{"l1": {modeLink, strings.Repeat("t", 100)}, "l2": {modeLink, strings.Repeat("t", 101)}, strings.Repeat("n", 130): {modeLink, strings.Repeat("ü", 900)}}},
		{"whole records", memory{"a": {modeFile, strings.Repeat("a", 512)}, "b": {modeFile, strings.Repeat("b", 8704)}}},
		{"ignored", memory{
			".gitattributes": {modeFile, "*.md export-ignore\ndocs/ export-ignore\nfile/ export-ignore\nsub export-ignore\n/only/x export-ignore\n"},
			"README.md":      {modeFile, "1"}, "docs/a/b": {modeFile, "2"}, "docs/.gitattributes": {modeFile, "* -export-ignore"}, "file": {modeFile, "3"},
			"sub": {modeSubmodule, strings.Repeat("ab", 20)}, "only/x": {modeFile, "4"}, "deep/only.md": {modeFile, "5"}, "deep/er/only.md": {modeFile, "6"}, "z": {modeFile, "7"},
		}},
		{"links and submodules named as attributes", memory{"a/.gitattributes": {modeLink, "x export-ignore"}, "a/x": {modeFile, "1"}, "b/.gitattributes": {modeSubmodule, strings.Repeat("ab", 20)}, "b/x": {modeFile, "1"}}},
		{"nothing but ignored files", memory{".gitattributes": {modeFile, "* export-ignore"}, "a/b": {modeFile, "1"}}},
		{"a submodule is asked about as a folder", memory{".gitattributes": {modeFile, "a/ export-ignore\n"}, "a": {modeSubmodule, strings.Repeat("ab", 20)}, "b/a": {modeSubmodule, strings.Repeat("ab", 20)}}},
		{"attributes that begin with a mark", memory{".gitattributes": {modeFile, "\ufeffx export-ignore\ny export-ignore\r\n"}, "x": {modeFile, "1"}, "y": {modeFile, "1"}}},
	} {
		t.Run(tc.name, func(t *testing.T) { same(t, one(tc.files)) })
	}
}

func TestTextIsConvertedAsGitDoes(t *testing.T) {
	t.Parallel()
	contents := map[string]string{
		"lf": "a\nb\n", "crlf": "a\r\nb\r\n", "mixed": "a\r\nb\nc", "cr": "a\rb\nc\n", "nul": "a\x00\nb\n", "empty": "", "nl": "\n",
		"eof": "a\n\x1a", "eof alone": "\x1a", "binary": "\x01\x02\x03\n", "edge": strings.Repeat("p", 127) + "\x01\n", "edge2": strings.Repeat("p", 128) + "\x01\n",
		"del": strings.Repeat("p", 100) + "\x7f\n", "tabs": "\t\b\x1b\f\n", "high": "\xff\xfe\n", "crcrlf": "\r\r\n\n",
	}
	files := memory{}
	var attrs strings.Builder
	for i, a := range []string{
		"text", "-text", "!text", "text=auto", "text=odd", "text=input", "eol=crlf", "eol=lf", "text eol=crlf", "text eol=lf", "text=auto eol=crlf", "text=auto eol=lf",
		"-text eol=crlf", "!text eol=crlf", "crlf", "-crlf eol=crlf", "crlf=input eol=crlf", "crlf=auto eol=crlf", "text crlf=auto eol=crlf", "binary eol=crlf", "text= eol=crlf", "eol", "-eol text", "working-tree-encoding=utf8 text eol=crlf", "-filter text eol=crlf",
	} {
		fmt.Fprintf(&attrs, "/%d/** %s\n", i, a)
		for name, c := range contents {
			files.put(fmt.Sprintf("%d/%s", i, name), modeFile, c)
		}
		files.put(fmt.Sprintf("%d/link", i), modeLink, "a\nb")
	}
	files.put(".gitattributes", modeFile, attrs.String())
	same(t, one(files))
}

func TestIdentIsFilledInAsGitDoes(t *testing.T) {
	t.Parallel()
	files := memory{".gitattributes": {modeFile, "* ident\n*.crlf text eol=crlf\n*.both export-subst\n"}}
	for i, c := range []string{
		"$Id$", "$Id: $", "$Id:$ ", "$Id: abc $", "$Id:abc$", "$Id: a b $", "$Id: a b $Id$", "$Id:\n$", "$Id: x\n$Id$", "$Id", "$I", "$Id:", "$Id: no end", "$$Id$$", "$Idx$Id$",
		"no", "a $Id$ b $Id: 1 $ c\n", "$Id:  $", "$Id: a  $", "$Id:a $", "$Id: a$", "$Id: file.c,v 1.2 2004/01/01 someone Exp $",
	} {
		for _, ext := range []string{".txt", ".crlf", ".both"} {
			files.put(fmt.Sprintf("%d%s", i, ext), modeFile, c+"\n$Format:%H$ $Id$\n")
		}
	}
	same(t, one(files))
}

func TestFormatsAreFilledInAsGitDoes(t *testing.T) {
	t.Parallel()
	formats := []string{
		"%H", "%T", "%P", "%an", "%ae", "%al", "%at", "%ad", "%aD", "%ai", "%as", "%cn", "%ce", "%cl", "%ct", "%cd", "%cD", "%ci", "%cs",
		"%s", "%f", "%b", "%B", "%n", "%%", "%x41%x0a%x00", "plain", "", "two\nlines %H", "%H%H %s",
	}
	var text strings.Builder
	for _, f := range formats {
		fmt.Fprintf(&text, "before $Format:%s$ after\n", f)
	}
	zoned := text.String() + "$Format:%aI|%cI$\n"
	attributes := node{modeFile, "*.txt export-subst\n"}
	files := memory{".gitattributes": attributes, "a.txt": {modeFile, zoned}, "b.md": {modeFile, zoned}, "c.txt": {modeFile, "$Format:%H no end"}, "d.txt": {modeFile, "$Format:$Format:%H$"}, "e.txt": {modeLink, "$Format:%H$"}}
	var revisions []revision
	for i, message := range []string{
		"subject\n", "", "\n", "no line feed", "  \n\n subject  \nsecond line\t\n \nbody\n\nmore\n\n", "dots... in.. it, and --- dashes.\n", "ünïcödé “quoted” / slash\n\nbody", "\n\nlate\r\nwindows\r\n\r\nbody\r\n", "...", "a\n\n\n\n\nb",
	} {
		zone := []string{"+0530", "-0830", "+1400", "-0015"}[i%4]
		revisions = append(revisions, revision{files, "Jürgen O. <j.o@example.com> 99999 " + zone, fmt.Sprintf("C D E <c@d@e> %d -0230", 1<<33+i), message})
	}
	utc := memory{".gitattributes": attributes, "a.txt": {modeFile, text.String()}}
	revisions = append(revisions, revision{utc, "A B <> 1600000000 +0000", "  <x> 1112911993 -0000", "s\n"})
	same(t, revisions)
}

var pieces = struct{ names, text, attrs []string }{
	names: []string{"a", "b", "foo", "foo.c", "foo.h", "bar.md", "x y", "é", "-dash", ".hidden", "foo-bar", "A", "README", "[x]", "a*b", "q?", strings.Repeat("l", 60), strings.Repeat("m", 140)},
	text:  []string{"line\n", "line\r\n", "\r", "\x00", "\x01\x02", "$Id$", "$Id: old $", "$Id: a b $", "$", "$Format:%H %an%n%s$", "$Format:%T", "text ", "日本", "\x1a", "\n", "$Format:%cd|%b$"},
	attrs: []string{"export-ignore", "-export-ignore", "!export-ignore", "export-ignore=x", "export-subst", "-export-subst", "text", "-text", "!text", "text=auto", "eol=crlf", "eol=lf", "crlf", "-crlf", "crlf=input", "ident", "-ident", "binary", "mine", "-mine", "bad=/name", "b@d", "diff=foo", "mine=value"},
}

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

func randomPattern(r *rand.Rand) string {
	parts := make([]string, 1+r.IntN(3))
	for i := range parts {
		parts[i] = pick(r, append([]string{"*", "**", "*.c", "foo*", "*o*", "?", "[a-f]", "[!a]", "[[:alpha:]]*", "f[^x]o", "[[]x]", `a\*b`, "**o", "foo**", "[", `b\`, "[]a]", "*.[ch]", "***"}, pieces.names...))
		if r.IntN(8) == 0 {
			parts[i] += pick(r, []string{"*", "?", "[a-z]", "**"})
		}
	}
	p := strings.Join(parts, "/")
	if r.IntN(4) == 0 {
		p = "/" + p
	}
	if r.IntN(5) == 0 {
		p += "/"
	}
	if strings.ContainsAny(p, " ") && r.IntN(4) > 0 || r.IntN(12) == 0 {
		p = `"` + strings.NewReplacer(`\`, `\\`, "f", `\146`).Replace(p) + `"`
	}
	if r.IntN(30) == 0 {
		p = "!" + p
	}
	return p
}

func randomAttributes(r *rand.Rand, lines int) string {
	var b strings.Builder
	for range lines {
		switch r.IntN(14) {
		case 0:
			fmt.Fprintf(&b, "[attr]%s %s %s", pick(r, []string{"mine", "binary", "other", "ba/d"}), pick(r, pieces.attrs), pick(r, pieces.attrs))
		case 1:
			b.WriteString("# " + randomPattern(r) + " export-ignore")
		default:
			b.WriteString(pick(r, []string{"", "", "", " \t"}) + randomPattern(r))
			for range 1 + r.IntN(3) {
				b.WriteString(pick(r, []string{" ", "\t", "  "}) + pick(r, pieces.attrs))
			}
		}
		b.WriteString(pick(r, []string{"\n", "\n", "\n", "\r\n", " \n"}))
	}
	return b.String()
}

func randomFiles(r *rand.Rand) memory {
	m := memory{}
	if r.IntN(4) > 0 {
		m.put(".gitattributes", modeFile, randomAttributes(r, 2+r.IntN(6)))
	}
	for range 4 + r.IntN(25) {
		p := pick(r, pieces.names)
		for range r.IntN(4) {
			p += "/" + pick(r, pieces.names)
		}
		switch r.IntN(16) {
		case 0:
			m.put(p, modeLink, strings.Repeat("t", 1+r.IntN(200)))
		case 1:
			m.put(p, modeSubmodule, strings.Repeat("0f", 20))
		case 2, 3:
			m.put(p+"/.gitattributes", modeFile, randomAttributes(r, 1+r.IntN(4)))
		default:
			var text strings.Builder
			for range r.IntN(12) {
				text.WriteString(pick(r, pieces.text))
			}
			m.put(p, pick(r, []string{modeFile, modeFile, modeProgram}), text.String())
		}
	}
	return m
}

func TestWhateverIsCommittedTheArchiveIsGitsOwn(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(2, 39))
	var revisions []revision
	for i := range 60 {
		zone := pick(r, []string{"+0000", "+0530", "-1130", "+0100"})
		revisions = append(revisions, revision{
			randomFiles(r), fmt.Sprintf("%s <a@b> %d %s", pick(r, []string{"A", "Ä B", "o'c"}), r.IntN(1<<31), zone), fmt.Sprintf("C <c@d> %d %s", r.IntN(1<<31), zone),
			fmt.Sprintf("subject %d\n\n%s", i, pick(r, []string{"", "body\n", "two\n\nparagraphs\n"})),
		})
	}
	same(t, revisions)
}

// Paths are asked about as git itself sees them: those of folders with a slash.
func TestAttributesAreThoseThatGitChecks(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 7))
	names := []string{"export-ignore", "export-subst", "text", "eol", "crlf", "ident", "mine", "other", "binary", "diff", "merge"}
	asked := 0
	for range 12 {
		m := memory{}
		for range 120 {
			p := pick(r, pieces.names)
			for range r.IntN(5) {
				p += "/" + pick(r, pieces.names)
			}
			m.put(p, modeFile, "")
		}
		m.put(".gitattributes", modeFile, randomAttributes(r, 40))
		for p := range m {
			if d := path.Dir(p); d != "." && r.IntN(6) == 0 {
				m.put(d+"/.gitattributes", modeFile, randomAttributes(r, 12))
			}
		}
		dir, raw := commits(t, one(m))
		c, err := ParseCommit(raw[0])
		assert.NilError(t, err)
		git(t, dir, nil, "read-tree", c.ID())
		entries, err := list(m, c.Tree())
		assert.NilError(t, err)
		attrs, err := readAttributes(m, entries)
		assert.NilError(t, err)
		var stdin bytes.Buffer
		var want strings.Builder
		for _, e := range entries {
			p := e.path
			if e.folder() {
				p += "/"
			}
			stdin.WriteString(p + "\x00")
			got := attrs.of(p)
			for _, n := range names {
				v, given := got[n]
				switch {
				case !given, v == attrUnset:
					v = "unspecified"
				case v == attrTrue:
					v = "set"
				case v == attrFalse:
					v = "unset"
				}
				fmt.Fprintf(&want, "%s: %s: %s\n", p, n, v)
				asked++
			}
		}
		out := git(t, dir, stdin.Bytes(), append([]string{"check-attr", "--cached", "-z", "--stdin"}, names...)...)
		var got strings.Builder
		fields := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
		for i := 0; i+2 < len(fields); i += 3 {
			fmt.Fprintf(&got, "%s: %s: %s\n", fields[i], fields[i+1], fields[i+2])
		}
		if got.String() != want.String() {
			g, w := strings.Split(got.String(), "\n"), strings.Split(want.String(), "\n")
			for i := range min(len(g), len(w)) {
				if g[i] != w[i] {
					t.Errorf("git says   %s\nhere it is %s", g[i], w[i])
				}
			}
			t.Fatalf("%s", m[".gitattributes"].data)
		}
	}
	t.Logf("%d answers are git's", asked)
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// onDisk reads a commit with git itself.
func onDisk(t *testing.T, dir, commit string) (memory, Commit) {
	t.Helper()
	c, err := ParseCommit(git(t, dir, nil, "cat-file", "commit", commit))
	assert.NilError(t, err)
	m := memory{}
	var want []string
	for line := range strings.SplitSeq(strings.TrimSuffix(string(git(t, dir, nil, "ls-tree", "-rz", commit)), "\x00"), "\x00") {
		about, p, _ := strings.Cut(line, "\t")
		f := strings.Fields(about)
		m[p] = node{f[0], f[2]}
		if f[1] == "blob" {
			want = append(want, p)
		}
	}
	var ids strings.Builder
	for _, p := range want {
		ids.WriteString(m[p].data + "\n")
	}
	out := git(t, dir, []byte(ids.String()), "cat-file", "--batch")
	for _, p := range want {
		var id, kind string
		var size int
		line, rest, _ := bytes.Cut(out, []byte("\n"))
		_, err := fmt.Sscan(string(line), &id, &kind, &size)
		assert.NilError(t, err)
		m[p] = node{m[p].mode, string(rest[:size])}
		out = rest[size+1:]
	}
	return m, c
}

func TestTheArchiveOfThisRepositoryIsGitsOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := os.Stat("../../.git"); err == nil {
		root, err := filepath.Abs("../..")
		assert.NilError(t, err)
		git(t, t.TempDir(), nil, "-c", "safe.directory=*", "clone", "-q", "--no-hardlinks", "--bare", root, dir)
	} else {
		// Without its history: what lies here is committed once.
		git(t, dir, nil, "init", "-q", ".")
		assert.NilError(t, os.CopyFS(filepath.Join(dir, "tree"), os.DirFS("../..")))
		git(t, dir, nil, "add", "-A", "tree")
		git(t, dir, nil, "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qm", "all")
	}
	m, c := onDisk(t, dir, "HEAD")
	var b bytes.Buffer
	assert.NilError(t, Tar(&b, m, c))
	assert.Equal(t, sum(b.Bytes()), sum(gitArchive(t, dir, "HEAD")))
}
