package repro

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"gotest.tools/v3/assert"
)

var (
	first  = time.Date(2025, 10, 22, 18, 0, 0, 0, time.UTC)
	second = first.Add(3 * time.Second)
	commit = time.Date(2024, 2, 29, 22, 30, 0, 0, time.UTC)
)

// two are the sides of builds that ran in those surroundings.
func two() (*side, *side) {
	s := surroundings("/tmp/repro-1")
	s[0].started, s[0].ended = first, first.Add(time.Second)
	s[1].started, s[1].ended = second, second.Add(time.Second)
	return &s[0], &s[1]
}

func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.Linkname
		if h.Typeflag != tar.TypeSymlink {
			h.Linkname, h.Size = "", int64(len(content))
		}
		assert.NilError(t, w.WriteHeader(&h))
		if h.Typeflag != tar.TypeSymlink {
			_, err := w.Write([]byte(content))
			assert.NilError(t, err)
		}
	}
	assert.NilError(t, w.Close())
	return b.Bytes()
}

// entry is a tar member; its content is handed over as the link name.
func entry(name, content string) tar.Header {
	return tar.Header{Name: name, Linkname: content, Mode: 0o644, ModTime: commit, Format: tar.FormatPAX}
}

func gz(t testing.TB, h gzip.Header, level int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	assert.NilError(t, err)
	w.Header = h
	_, err = w.Write(data)
	assert.NilError(t, err)
	assert.NilError(t, w.Close())
	return b.Bytes()
}

func zipOf(t testing.TB, method uint16, headers ...zip.FileHeader) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, h := range headers {
		content := h.Comment
		h.Comment, h.Method = "", method
		f, err := w.CreateHeader(&h)
		assert.NilError(t, err)
		_, err = f.Write([]byte(content))
		assert.NilError(t, err)
	}
	assert.NilError(t, w.Close())
	return b.Bytes()
}

// file is a zip member; its content is handed over as the comment.
func file(name, content string, mode fs.FileMode, date time.Time) zip.FileHeader {
	h := zip.FileHeader{Name: name, Comment: content, Modified: date}
	h.SetMode(mode)
	return h
}

func arOf(members ...string) []byte {
	return []byte("!<arch>\n" + strings.Join(members, ""))
}

func arMember(name string, date, uid int, mode, content string) string {
	s := fmt.Sprintf("%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", name, date, uid, 0, mode, len(content), content)
	if len(content)%2 == 1 {
		s += "\n"
	}
	return s
}

func TestTheFirstDifferenceIsNamed(t *testing.T) {
	a, b := two()
	mode := func(h tar.Header, m int64) tar.Header { h.Mode = m; return h }
	uid := func(h tar.Header, n int) tar.Header { h.Uid = n; return h }
	at := func(h tar.Header, d time.Time) tar.Header { h.ModTime = d; return h }
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink, Mode: 0o777, ModTime: commit, Format: tar.FormatPAX}
	}
	one := func(h tar.Header) []byte { return tarOf(t, h) }
	same := tarOf(t, entry("x", "same"))
	long := strings.Repeat("0123456789abcdef", 600)
	for name, c := range map[string]struct {
		a, b []byte
		want string
	}{
		"bytes":     {[]byte("abcdefghij1klm"), []byte("abcdefghij2klm"), `at offset 10: 63 64 65 66 67 68 69 6a 31 6b 6c 6d ("cdefghij1klm") in the first build, 63 64 65 66 67 68 69 6a 32 6b 6c 6d ("cdefghij2klm") in the second`},
		"the end":   {[]byte("ab"), []byte("abc"), `at offset 2: the end in the first build, 61 62 63 ("abc") in the second`},
		"far in":    {[]byte(long + "1"), []byte(long + "2"), `at offset 9600: 38 39 61 62 63 64 65 66 31 ("89abcdef1") in the first build, 38 39 61 62 63 64 65 66 32 ("89abcdef2") in the second`},
		"nothing":   {nil, []byte("x"), `at offset 0: the end in the first build, 78 ("x") in the second`},
		"le epoch":  {[]byte{1, 0xc0, 0x1b, 0xf9, 0x68}, []byte{1, 0xc3, 0x1b, 0xf9, 0x68}, `at offset 1: 01 c0 1b f9 68 ("\x01\xc0\x1b\xf9h") in the first build, 01 c3 1b f9 68 ("\x01\xc3\x1b\xf9h") in the second: the time of the build is in it`},
		"be epoch":  {[]byte{0x68, 0xf9, 0x1b, 0xc0}, []byte{0x68, 0xf9, 0x1b, 0xc3}, `at offset 3: 68 f9 1b c0 ("h\xf9\x1b\xc0") in the first build, 68 f9 1b c3 ("h\xf9\x1b\xc3") in the second: the time of the build is in it`},
		"milli":     {[]byte("t1761156000123"), []byte("t1761156003456"), `at offset 10: 37 36 31 31 35 36 30 30 30 31 32 33 ("761156000123") in the first build, 37 36 31 31 35 36 30 30 33 34 35 36 ("761156003456") in the second: the time of the build is in it`},
		"a sum":     {[]byte("#1\n" + long + a.src()), []byte("#2\n" + long + b.src()), `at offset 1: 23 31 0a 30 31 32 33 34 35 36 37 38 39 61 62 63 64 ("#1\n0123456789abcd") in the first build, 23 32 0a 30 31 32 33 34 35 36 37 38 39 61 62 63 64 ("#2\n0123456789abcd") in the second; a path is at offset 9603: the path of the build is in it`},
		"gz date":   {gz(t, gzip.Header{ModTime: first}, 9, same), gz(t, gzip.Header{ModTime: second}, 9, same), `gzip header: date is 2025-10-22T18:00:00Z in the first build, 2025-10-22T18:00:03Z in the second: the time of the build is in it`},
		"gz dated":  {gz(t, gzip.Header{}, 9, same), gz(t, gzip.Header{ModTime: second}, 9, same), `gzip header: date is none in the first build, 2025-10-22T18:00:03Z in the second: the time of the build is in it`},
		"gz name":   {gz(t, gzip.Header{Name: a.src() + "/x"}, 9, same), gz(t, gzip.Header{Name: b.src() + "/x"}, 9, same), `gzip header: name is "/tmp/repro-1/1/src/x" in the first build, "/tmp/repro-1/second-build/of-this-commit/src/x" in the second: the path of the build is in it`},
		"gz note":   {gz(t, gzip.Header{Comment: "a"}, 9, same), gz(t, gzip.Header{Comment: "b"}, 9, same), `gzip header: at offset 10: `},
		"gz level":  {gz(t, gzip.Header{}, 9, []byte(long)), gz(t, gzip.Header{}, 0, []byte(long)), `gzip: the content is equal, how it is compressed is not: at offset `},
		"gz text":   {gz(t, gzip.Header{}, 9, []byte("a1")), gz(t, gzip.Header{}, 9, []byte("a2")), `in gzip: at offset 1: 61 31 ("a1") in the first build, 61 32 ("a2") in the second`},
		"tar text":  {tarOf(t, entry("a", "x"), entry("b", "1")), tarOf(t, entry("a", "x"), entry("b", "2")), `member "b": at offset 0: 31 ("1") in the first build, 32 ("2") in the second`},
		"tar date":  {one(at(entry("a", ""), first)), one(at(entry("a", ""), second)), `member "a": date is 2025-10-22T18:00:00Z in the first build, 2025-10-22T18:00:03Z in the second: the time of the build is in it`},
		"tar mode":  {one(mode(entry("a", ""), 0o755)), one(mode(entry("a", ""), 0o700)), `member "a": mode is -rwxr-xr-x in the first build, -rwx------ in the second: the umask of the build is in it`},
		"tar exec":  {one(mode(entry("a", ""), 0o744)), one(mode(entry("a", ""), 0o644)), `member "a": mode is -rwxr--r-- in the first build, -rw-r--r-- in the second`},
		"tar owner": {one(uid(entry("a", ""), 1)), one(uid(entry("a", ""), 2)), `member "a": owner is 1/0 (/) in the first build, 2/0 (/) in the second: the user of the build is in it`},
		"tar order": {tarOf(t, entry("a", ""), entry("b", ""), entry("c", "")), tarOf(t, entry("a", ""), entry("c", ""), entry("b", "")), `member 2 is "b" in the first build, "c" in the second; the members are the same, their order is not: the order in which files are listed is in it`},
		"tar name":  {tarOf(t, entry("a", ""), entry(a.src()[1:], "")), tarOf(t, entry("a", ""), entry(b.src()[1:], "")), `member 2 is named "tmp/repro-1/1/src" in the first build, "tmp/repro-1/second-build/of-this-commit/src" in the second`},
		"tar less":  {tarOf(t, entry("a", ""), entry("b", "")), tarOf(t, entry("a", "")), `member "b" is there in the first build only`},
		"tar more":  {tarOf(t, entry("a", "")), tarOf(t, entry("a", ""), entry("b", "")), `member "b" is there in the second build only`},
		"tar twice": {tarOf(t, entry("a", ""), entry("a", "")), tarOf(t, entry("a", "")), `2 members in the first build, 1 in the second: one is there more than once`},
		"tar link":  {one(link("a", "x")), one(link("a", "y")), `member "a": is a link or a type "2x" in the first build, "2y" in the second`},
		"tar waste": {append(bytes.Clone(same), make([]byte, 512)...), append(bytes.Clone(same), make([]byte, 1024)...), `its members are equal, how they are packed is not: at offset `},
		"tgz":       {gz(t, gzip.Header{}, 9, one(entry("a", "1"))), gz(t, gzip.Header{}, 9, one(entry("a", "2"))), `in gzip: member "a": at offset 0: 31 ("1") in the first build, 32 ("2") in the second`},
		"nested":    {one(entry("in.tgz", string(gz(t, gzip.Header{}, 9, one(entry("a", "1")))))), one(entry("in.tgz", string(gz(t, gzip.Header{}, 9, one(entry("a", "2")))))), `member "in.tgz": in gzip: member "a": at offset 0: 31 ("1") in the first build, 32 ("2") in the second`},
		"too deep":  {one(entry("2", string(one(entry("3", string(one(entry("a", "1")))))))), one(entry("2", string(one(entry("3", string(one(entry("a", "2")))))))), `member "2": member "3": at offset 512: `},
		"zip text":  {zipOf(t, zip.Deflate, file("a", long+"1", 0o644, commit)), zipOf(t, zip.Deflate, file("a", long+"2", 0o644, commit)), `member "a": at offset 9600: `},
		"zip date":  {zipOf(t, zip.Store, file("a", "", 0o644, first)), zipOf(t, zip.Store, file("a", "", 0o644, second)), `member "a": date is 2025-10-22T18:00:00Z in the first build, 2025-10-22T18:00:03Z in the second: the time of the build is in it`},
		"zip zone":  {zipOf(t, zip.Store, file("a", "", 0o644, commit)), zipOf(t, zip.Store, file("a", "", 0o644, commit.Add(26*time.Hour))), `member "a": date is 2024-02-29T22:30:00Z in the first build, 2024-03-02T00:30:00Z in the second: the time zone of the build is in it`},
		"zip mode":  {zipOf(t, zip.Store, file("a", "", 0o644, commit)), zipOf(t, zip.Store, file("a", "", 0o600, commit)), `member "a": mode is -rw-r--r-- in the first build, -rw------- in the second: the umask of the build is in it`},
		"zip order": {zipOf(t, zip.Store, file("a", "", 0o644, commit), file("b", "", 0o644, commit)), zipOf(t, zip.Store, file("b", "", 0o644, commit), file("a", "", 0o644, commit)), `member 1 is "a" in the first build, "b" in the second; the members are the same, their order is not: the order in which files are listed is in it`},
		"zip pack":  {zipOf(t, zip.Store, file("a", long, 0o644, commit)), zipOf(t, zip.Deflate, file("a", long, 0o644, commit)), `its members are equal, how they are packed is not: at offset `},
		"ar date":   {arOf(arMember("x.o/", 1761156000, 0, "100644", "abc")), arOf(arMember("x.o/", 1761156003, 0, "100644", "abc")), `member "x.o/": date is 2025-10-22T18:00:00Z in the first build, 2025-10-22T18:00:03Z in the second: the time of the build is in it`},
		"ar owner":  {arOf(arMember("x.o/", 0, 1, "100644", "abc")), arOf(arMember("x.o/", 0, 2, "100644", "abc")), `member "x.o/": owner is 1/0 in the first build, 2/0 in the second: the user of the build is in it`},
		"ar mode":   {arOf(arMember("x.o/", 0, 0, "100644", "abc")), arOf(arMember("x.o/", 0, 0, "100600", "abc")), `member "x.o/": mode is -rw-r--r-- in the first build, -rw------- in the second: the umask of the build is in it`},
		"ar text":   {arOf(arMember("a.o/", 0, 0, "100644", "abc"), arMember("b.o/", 0, 0, "100644", "1")), arOf(arMember("a.o/", 0, 0, "100644", "abc"), arMember("b.o/", 0, 0, "100644", "2")), `member "b.o/": at offset 0: 31 ("1") in the first build, 32 ("2") in the second`},
	} {
		t.Run(name, func(t *testing.T) {
			got := newClues(a, b).explain(c.a, c.b).String()
			assert.Assert(t, got == c.want || strings.HasSuffix(c.want, " ") && strings.HasPrefix(got, c.want), "%s\nwanted %s", got, c.want)
		})
	}
}

// What unpacks to more than is looked into is still told apart.
func TestABombIsComparedByItsBytes(t *testing.T) {
	a, b := two()
	zeros := make([]byte, 1<<20)
	x, y := gz(t, gzip.Header{}, 9, zeros), gz(t, gzip.Header{}, 9, append(zeros, 1))
	c := newClues(a, b)
	c.left = 1 << 16
	assert.Assert(t, strings.HasPrefix(c.explain(x, y).String(), "at offset "))
}

func TestDifferencesAreFoundAcrossReads(t *testing.T) {
	x := bytes.Repeat([]byte("x"), 1<<17+5)
	y := bytes.Clone(x)
	y[1<<17] = 'y'
	at, same, err := firstDifference(iotest.HalfReader(bytes.NewReader(x)), bytes.NewReader(y))
	assert.NilError(t, err)
	assert.Equal(t, same, false)
	assert.Equal(t, at, int64(1<<17))
	_, same, err = firstDifference(iotest.OneByteReader(bytes.NewReader(x)), bytes.NewReader(x))
	assert.NilError(t, err)
	assert.Equal(t, same, true)
	_, same, err = firstDifference(iotest.ErrReader(fs.ErrPermission), bytes.NewReader(nil))
	assert.ErrorIs(t, err, fs.ErrPermission)
	assert.Equal(t, same, false)
}

// Bytes are equal when the comparison says so, and whatever is not equal is
// explained.
func FuzzDifference(f *testing.F) {
	tarred := tarOf(f, entry("a", "x"), entry("b", "y"))
	f.Add([]byte("a"), []byte("b"))
	f.Add(tarred, tarOf(f, entry("a", "x"), entry("b", "z")))
	f.Add(gz(f, gzip.Header{Name: "n"}, 9, tarred), gz(f, gzip.Header{}, 1, tarred))
	f.Add(zipOf(f, zip.Deflate, file("a", "x", 0o644, first)), zipOf(f, zip.Store, file("a", "y", 0o600, second)))
	f.Add(arOf(arMember("x/", 0, 0, "644", "x")), arOf(arMember("x/", 1, 0, "644", "x")))
	f.Add([]byte("Wed Oct 22 18:00:00 UTC 2025 -rw-r--r-- 1761156000"), []byte("Wed Oct 22 18:00:03 UTC 2025 -rw------- 1761156003"))
	f.Fuzz(func(t *testing.T, x, y []byte) {
		at, same, err := firstDifference(iotest.HalfReader(bytes.NewReader(x)), bytes.NewReader(y))
		assert.NilError(t, err)
		assert.Equal(t, same, bytes.Equal(x, y))
		if same {
			return
		}
		assert.Equal(t, int(at), firstOffset(x, y))
		n := min(len(x), len(y), int(at))
		assert.Assert(t, int(at) == n && bytes.Equal(x[:n], y[:n]))
		a, b := two()
		d := newClues(a, b).explain(x, y)
		assert.Assert(t, d.what != "")
	})
}
