package release

import (
	"bytes"
	"crypto/sha256"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"gotest.tools/v3/assert"
)

const (
	sumA = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
	sumB = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"
)

func TestAListReadsBackAndAStarMeansTheSame(t *testing.T) {
	text := sumA + "  a\n" + sumB + "  d/b c\n"
	s, err := ParseSums("SHA256SUMS", []byte(text))
	assert.NilError(t, err)
	assert.DeepEqual(t, s, Sums{{"a", sha256.Sum256([]byte("a"))}, {"d/b c", sha256.Sum256([]byte("b"))}})
	assert.Equal(t, string(s.Bytes()), text)
	starred, err := ParseSums("SHA256SUMS", []byte(strings.ReplaceAll(text, "  ", " *")))
	assert.NilError(t, err)
	assert.DeepEqual(t, starred, s)
	sum, ok := s.Lookup("d/b c")
	assert.Assert(t, ok)
	assert.Equal(t, sum.Hex(), sumB)
	_, ok = s.Lookup("b")
	assert.Assert(t, !ok)
}

func TestListsInAnyOtherFormAreRefused(t *testing.T) {
	for _, tc := range []struct{ name, text, err string }{
		{"empty", "", "S: found nothing, wanted a digest and a name"},
		{"not ended", sumA + "  a", "S: the last line does not end"},
		{"an empty line", sumA + "  a\n\n", `S: line 2: found "", wanted 64 hex digits, two spaces and a name`},
		{"CRLF", sumA + "  a\r\n", `S: line 1: name "a\r": wanted a relative path with slashes, without "..", backslashes and control characters`},
		{"capitals", strings.ToUpper(sumA) + "  a\n", `S: line 1: found "` + strings.ToUpper(sumA) + `", wanted 64 small hex digits`},
		{"one space", sumA + " a\n", `S: line 1: found "` + sumA + ` a", wanted 64 hex digits, two spaces and a name`},
		{"another digest", sumA[:40] + "  a\n", `S: line 1: found "` + sumA[:40] + `  a", wanted 64 hex digits, two spaces and a name`},
		{"escaped", `\` + sumA + "  a\n", "S: line 1: found"},
		{"backslash", sumA + "  a\\b\n", `S: line 1: name "a\\b"`},
		{"not sorted", sumA + "  b\n" + sumA + "  a\n", `S: line 2: "a" after "b": wanted each name once, sorted`},
		{"twice", sumA + "  a\n" + sumB + "  a\n", `S: line 2: "a" after "a": wanted each name once, sorted`},
		{"above", sumA + "  ../a\n", `S: line 1: name "../a"`},
		{"absolute", sumA + "  /a\n", `S: line 1: name "/a"`},
		{"dot", sumA + "  ./a\n", `S: line 1: name "./a"`},
		{"not UTF-8", sumA + "  \xff\n", `S: line 1: name "\xff"`},
		{"itself", sumA + "  S\n", `S: line 1: name "S": a list cannot hold itself or what is made of it`},
		{"its signature", sumA + "  S.asc\n", `S: line 1: name "S.asc": a list cannot`},
		{"its timestamp", sumA + "  S.asc.freetsa.tsr\n", `S: line 1: name "S.asc.freetsa.tsr": a list cannot`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := ParseSums("S", []byte(tc.text))
			assert.ErrorContains(t, err, tc.err)
			assert.Equal(t, len(s), 0)
		})
	}
	_, err := ParseSums("SEAL", []byte(sumA+"  SHA256SUMS\n"+sumB+"  SHA256SUMS.asc\n"))
	assert.NilError(t, err) // another list may hold this one
}

func TestPatternsNameArtifactsAndNothingElse(t *testing.T) {
	files := fstest.MapFS{
		"dist/app.tar.gz": {}, "dist/app.tar.gz.asc": {}, "dist/app.tar.gz.freetsa.tsr": {}, "dist/SHA256SUMS": {}, "dist/deep/b.zip": {},
		".git/dist/x.tar.gz": {}, "dist/link": {Mode: fs.ModeSymlink, Data: []byte("app.tar.gz")},
	}
	names, err := Artifacts(files, []string{"dist/*.gz", "**/*.zip", "dist/app.tar.gz"})
	assert.NilError(t, err)
	assert.DeepEqual(t, names, []string{"dist/app.tar.gz", "dist/deep/b.zip"})
	for pattern, want := range map[string]string{
		"dist/*.deb": "no artifact is named by dist/*.deb: file does not exist: build it first, or remove the pattern",
		"**/x.tar.*": "no artifact is named by **/x.tar.*",
		"dist/*.asc": "no artifact is named by dist/*.asc",
		"dist/li*":   "artifact dist/link: is not a regular file",
		"dist/[":     `pattern "dist/[": syntax error in pattern`,
	} {
		_, err := Artifacts(files, []string{pattern})
		assert.ErrorContains(t, err, want)
	}
	_, err = Artifacts(files, nil)
	assert.ErrorContains(t, err, "no artifacts are named")
}

func TestEveryDifferenceFromAListIsFound(t *testing.T) {
	files := fstest.MapFS{"a": {Data: []byte("a")}, "d/b": {Data: []byte("b")}, "c": {Data: []byte("c")}, "e": {Data: []byte("e")}}
	s, err := SumUp("SHA256SUMS", files, []string{"d/b", "a", "a", "c", "e"})
	assert.NilError(t, err)
	d, err := s.Verify(files)
	assert.NilError(t, err)
	assert.Assert(t, d.None())
	delete(files, "a")
	files["d/b"] = &fstest.MapFile{Data: []byte("B")}
	files["c"] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("e")}
	files["d/new"] = &fstest.MapFile{}
	d, err = s.Verify(files)
	assert.NilError(t, err)
	assert.DeepEqual(t, d, Difference{Missing: []string{"a"}, Differing: []string{"c", "d/b"}, Unlisted: []string{"d/new"}})
	assert.Assert(t, !d.None())

	_, err = SumUp("SHA256SUMS", files, nil)
	assert.ErrorContains(t, err, "no files to list")
	_, err = SumUp("SHA256SUMS", files, []string{"c"})
	assert.ErrorContains(t, err, "c: is not a regular file")
	_, err = SumUp("e", files, []string{"e"})
	assert.ErrorContains(t, err, "a list cannot hold itself")
	_, err = SumUp("SHA256SUMS", files, []string{"gone"})
	assert.ErrorIs(t, err, fs.ErrNotExist)
}

func TestSha256sumReadsTheList(t *testing.T) {
	dir := t.TempDir()
	names := []string{"*star", "-dash", "a b", "plain", "ümlaut", "d/deep"}
	assert.NilError(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	for _, n := range names {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, n), []byte(n), 0o600))
	}
	s, err := SumUp(SumsFile, os.DirFS(dir), names)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(dir, SumsFile), s.Bytes(), 0o600))
	check := func() (string, error) {
		cmd := exec.CommandContext(t.Context(), "sha256sum", "--strict", "-c", SumsFile)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := check()
	assert.NilError(t, err, out)
	assert.Equal(t, strings.Count(out, ": OK\n"), len(names))
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "plain"), []byte("other"), 0o600))
	out, err = check()
	assert.ErrorContains(t, err, "exit status 1", out)
}

// What is read is written back to the same bytes, but for stars.
func FuzzParseSums(f *testing.F) {
	f.Add([]byte(sumA + "  a\n" + sumB + " *d/b\n"))
	f.Add([]byte(sumA + "  SHA256SUMS\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseSums(SumsFile, text)
		if err != nil {
			assert.Equal(t, len(s), 0)
			return
		}
		again, err := ParseSums(SumsFile, s.Bytes())
		assert.NilError(t, err)
		assert.DeepEqual(t, again, s)
		written := s.Bytes()
		assert.Equal(t, len(written), len(text))
		for i := range written {
			assert.Assert(t, written[i] == text[i] || text[i] == '*' && written[i] == ' ' && bytes.HasSuffix(text[:i], []byte(" ")))
		}
	})
}
