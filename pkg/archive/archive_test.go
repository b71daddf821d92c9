package archive

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// commitOf makes a commit object of files.
func commitOf(t testing.TB, files memory, headers, message string) Commit {
	t.Helper()
	_, err := list(files, "")
	assert.ErrorContains(t, err, "hash to ")
	id := strings.Fields(strings.SplitAfter(err.Error(), "hash to ")[1])[0]
	c, err := ParseCommit([]byte("tree " + strings.TrimSuffix(id, ",") + "\nauthor " + someone + "\ncommitter " + someone + "\n" + headers + "\n" + message))
	assert.NilError(t, err)
	return c
}

func TestOnlyTheCommitsOwnTreeIsWritten(t *testing.T) {
	files := memory{"a": {modeFile, "1"}, "d/b": {modeLink, "../a"}}
	c := commitOf(t, files, "", "m")
	var b bytes.Buffer
	assert.NilError(t, Tar(&b, files, c))

	for name, change := range map[string]func(m memory){
		"another mode":  func(m memory) { m["a"] = node{modeProgram, "1"} },
		"more":          func(m memory) { m["b"] = node{modeFile, "1"} },
		"less":          func(m memory) { delete(m, "d/b") },
		"other content": func(m memory) { m["a"] = node{modeFile, "2"} },
	} {
		other := memory{}
		for p, n := range files {
			other[p] = n
		}
		change(other)
		assert.ErrorContains(t, Tar(&b, other, c), "the tree's files hash to", name)
	}
	assert.ErrorContains(t, Tar(&b, lying{files, "a"}, c), "a: its content hashes to")
	assert.ErrorContains(t, Tar(&b, lying{files, "d/b"}, c), "d/b: its content hashes to")
	assert.ErrorContains(t, Tar(&full{room: 3000}, files, c), "no room")
}

// lying gives one file other content than its id says.
type lying struct {
	memory
	about string
}

func (l lying) Blob(p string) ([]byte, error) {
	if p == l.about {
		return []byte("else"), nil
	}
	return l.memory.Blob(p)
}

func (l lying) Link(p string) (string, error) {
	if p == l.about {
		return "else", nil
	}
	return l.memory.Link(p)
}

type full struct{ room int }

func (f *full) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, errors.New("no room")
	}
	return len(b), nil
}

func TestWhatDependsOnTheCloneIsRefused(t *testing.T) {
	for _, tc := range []struct{ attr, text, want string }{
		{"filter=lfs", "x", "archive of .*: f: the attribute filter=lfs: what it makes depends on the clone; wanted no filter"},
		{"working-tree-encoding=UTF-16", "x", "f: the attribute working-tree-encoding=UTF-16: what it makes depends on the machine; wanted UTF-8"},
		{"working-tree-encoding", "x", "names no encoding"},
		{"export-subst", "$Format:%h$", "f: $Format:%h$: %h: is as long as the clone is large: use %H"},
		{"export-subst", "$Format:%t$", "use %T"},
		{"export-subst", "$Format:%p$", "use %P"},
		{"export-subst", "$Format:%d$", "%d: depends on the branches and tags of the clone: use %H"},
		{"export-subst", "$Format:%D$", "use %H"},
		{"export-subst", "$Format:%aN$", "%aN: depends on a mailmap: use the small letter"},
		{"export-subst", "$Format:%cE$", "use the small letter"},
		{"export-subst", "$Format:%ar$", "%ar: depends on the time of day: use %ai or %ci"},
		{"export-subst", "$Format:%cq$", "%cq: no such placeholder"},
		{"export-subst", "$Format:%a$", "found the end"},
		{"export-subst", "$Format:%$", "found the end"},
		{"export-subst", "$Format:%xg1$", "wanted two hex digits"},
		{"export-subst", "$Format:%x1$", "wanted two hex digits"},
		{"export-subst", "$Format:%C(red)$", "%C(: does not follow from the commit alone"},
		{"export-subst", "$Format:%(describe)$", "does not follow"},
		{"export-subst", "$Format:%N$", "does not follow"},
		{"export-subst", "$Format:%+b$", "does not follow"},
		{"export-subst", "$Format:%G?$", "does not follow"},
	} {
		files := memory{".gitattributes": {modeFile, "f " + tc.attr}, "f": {modeFile, tc.text}}
		err := Tar(new(bytes.Buffer), files, commitOf(t, files, "", "m"))
		_, want, _ := strings.Cut(tc.want, ".*")
		assert.ErrorContains(t, err, want, tc.text)
	}
	// Nothing is wrong with a file that is left out.
	files := memory{".gitattributes": {modeFile, "f filter=lfs export-ignore"}, "f": {modeFile, "x"}}
	assert.NilError(t, Tar(new(bytes.Buffer), files, commitOf(t, files, "", "m")))
}

func TestTextOfTheCommitThatCannotBeToldIsRefused(t *testing.T) {
	files := memory{".gitattributes": {modeFile, "f export-subst"}, "f": {modeFile, "$Format:%s$"}}
	for _, tc := range []struct{ headers, message, want string }{
		{"encoding ISO-8859-1\n", "m", "the commit is written in ISO-8859-1, wanted UTF-8"},
		{"", "\xff", "the commit's text is not UTF-8"},
		{"", "a\x00b", "the commit's text is not UTF-8"},
	} {
		assert.ErrorContains(t, Tar(new(bytes.Buffer), files, commitOf(t, files, tc.headers, tc.message)), tc.want)
	}
	assert.NilError(t, Tar(new(bytes.Buffer), files, commitOf(t, files, "encoding utf-8\n", "m")))

	for format, want := range map[string]string{"%cI": "by its version: use %ai or %ci", "%ai": "before 1970", "%ad": "takes the zone -0001 for none"} {
		author := "A <a> 5 -0100"
		if format == "%ad" {
			author = "A <a> 500000 -0001"
		}
		c, err := ParseCommit([]byte("tree " + strings.Repeat("0", 40) + "\nauthor " + author + "\ncommitter A <a> 5 +0000\n\nm"))
		assert.NilError(t, err)
		_, err = c.format(format)
		assert.ErrorContains(t, err, want)
	}
}

func TestCommitsAreReadStrictly(t *testing.T) {
	tree, id := "tree "+strings.Repeat("a", 40)+"\n", strings.Repeat("b", 40)
	author, committer := "author "+someone+"\n", "committer "+someone+"\n"
	c, err := ParseCommit([]byte(tree + "parent " + id + "\nparent " + id + "\n" + author + committer + "encoding X\ngpgsig -----\n line\n tree \n\nmessage\n\nmore"))
	assert.NilError(t, err)
	assert.Equal(t, c.Tree(), strings.Repeat("a", 40))
	assert.Equal(t, c.Time(), int64(1700000000))
	assert.Equal(t, len(c.ID()), 40)
	for raw, want := range map[string]string{
		"":                                  "a tree of 40",
		"tree abc\n":                        "a tree of 40",
		strings.ToUpper(tree):               "a tree of 40",
		tree + "parent 1\n":                 "parents of 40",
		tree + committer:                    "an author after",
		tree + author:                       "a committer after",
		tree + author + "\n\n":              "a committer after",
		tree + author + "committer A <a>\n": `committer: found "A <a>"`,
		tree + author + "committer A <a> 1 +01\n":                "committer: found",
		tree + author + "committer A <a> -1 +0000\n":             "committer: found",
		tree + author + committer + tree:                         "one tree line",
		tree + author + committer + "gpgsig x\nencoding y\n\n m": "one encoding line",
	} {
		_, err := ParseCommit([]byte(raw))
		assert.ErrorContains(t, err, want, "%q", raw)
	}
}

// git writes such a file the same way, but making one takes a while.
func TestAFileOfMoreThanElevenOctalDigitsHasAHeaderOfItsOwn(t *testing.T) {
	var b bytes.Buffer
	w := &writer{w: &b}
	assert.NilError(t, w.announce(entry{mode: modeFile, id: "id"}, "big", nil, 1<<33))
	assert.Equal(t, b.Len(), 3*record)
	assert.Equal(t, strings.TrimRight(string(b.Bytes()[record:2*record]), "\x00"), "19 size=8589934592\n")
	assert.Equal(t, string(b.Bytes()[2*record+124:2*record+135]), "00000000000")
	b.Reset()
	assert.NilError(t, w.announce(entry{mode: modeFile, id: "id"}, "big", nil, 1<<33-1))
	assert.Equal(t, string(b.Bytes()[124:135]), "77777777777")
}

func TestATimeOfMoreThanElevenOctalDigitsHasAHeaderOfItsOwn(t *testing.T) {
	same(t, []revision{
		{memory{"a": {modeFile, "1"}}, someone, "A <a> 8589934591 +0000", "m"},
		{memory{"a": {modeFile, "1"}}, someone, "A <a> 8589934592 +0000", "m"},
	})
}

func TestAPaxRecordKnowsItsOwnLength(t *testing.T) {
	for n := range 1200 {
		r := extend(nil, "path", strings.Repeat("x", n))
		var got int
		_, err := fmt.Sscan(string(r), &got)
		assert.NilError(t, err)
		assert.Equal(t, got, len(r))
	}
}

// slow is the same language by trying everything.
func slow(tokens []token, s string) bool {
	if len(tokens) == 0 {
		return s == ""
	}
	rest := tokens[1:]
	switch tokens[0].kind {
	case oneByte:
		return s != "" && tokens[0].set[s[0]] && slow(rest, s[1:])
	case maybeNext:
		return slow(tokens[3:], s) || slow(rest, s)
	}
	if slow(rest, s) {
		return true
	}
	return s != "" && (tokens[0].kind == anyPath || s[0] != '/') && slow(tokens, s[1:])
}

func FuzzAttributes(f *testing.F) {
	f.Add("*.c text eol=crlf\n[attr]mine -text ident\n/a/** mine\n", "a/b.c")
	f.Add("\"q\\\"\\101\" export-ignore\n**/x/ !text\n[a-c]?[[:alpha:]] x=y", "d/x/")
	f.Add("a\\", "[")
	f.Fuzz(func(t *testing.T, text, p string) {
		a := attributes{rules: map[string][]rule{}, macros: map[string][]setting{}}
		a.parse("", text)
		a.parse("d", text)
		for name := range a.of(p) {
			if !validName(name) {
				t.Fatalf("attribute %q", name)
			}
		}
		if len(text) > 12 || len(p) > 12 {
			return
		}
		if tokens, never := parseGlob(text); !never && matchGlob(tokens, p) != slow(tokens, p) {
			t.Fatalf("%q against %q", text, p)
		}
	})
}

// What is filled in is no longer than it needs to be, and text without a dollar
// is left alone.
func FuzzConvert(f *testing.F) {
	f.Add([]byte("$Id$ $Id: x $ $Format:%H$\r\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := commitOf(t, memory{}, "", "m")
		out, err := convert(bytes.Clone(b), map[string]value{"ident": attrTrue, "export-subst": attrTrue, "text": attrTrue, "eol": "crlf"}, strings.Repeat("a", 40), c)
		if err != nil {
			return
		}
		if bytes.Contains(bytes.ReplaceAll(out, []byte("\r\n"), nil), []byte("\n")) && !bytes.Contains(b, []byte("$Format:")) {
			t.Fatalf("%q became %q, which has a line feed that stands alone", b, out)
		}
		if !bytes.ContainsAny(b, "$\n") && !bytes.Equal(b, out) {
			t.Fatalf("%q became %q", b, out)
		}
	})
}
