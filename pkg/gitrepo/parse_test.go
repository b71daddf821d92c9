package gitrepo

import (
	"bytes"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

const oneHash = "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14"

func TestTreesThatMeanDifferentThingsToDifferentReadersAreCorrupt(t *testing.T) {
	e := func(mode, name string) string { return mode + " " + name + "\x00" + oneHash }
	for data, want := range map[string]string{
		e("100644", "a")[:20]:                    "entry 0 is cut off",
		"100644a\x00" + oneHash:                  "entry 0 is cut off",
		e("100644", "b") + e("100644", "a"):      `"a" is out of order`,
		e("40000", "foo") + e("100644", "foo.x"): `"foo.x" is out of order`,
		e("100644", "a") + e("100644", "a"):      `"a" appears twice`,
		e("100644", "a") + e("40000", "a"):       `"a" appears twice`,
		e("100644", "a/b"):                       `file name "a/b" contains a slash or NUL`,
		e("40000", ".."):                         `".." is not a file name`,
		e("40000", ".Git"):                       `file name ".Git" would be git's own directory`,
		e("100644", ""):                          `"" is not a file name`,
		e("x00644", "a"):                         `mode "x00644" of "a" is not octal`,
		e("0120000", "a"):                        `mode "0120000" of "a" is not one git writes`,
		e("40755", "a"):                          `mode "40755" of "a" is not one git writes`,
	} {
		_, err := parseTree([]byte(data))
		assert.ErrorIs(t, err, ErrCorruptObject)
		assert.Error(t, err, "object is corrupt: "+want)
	}
	got, err := parseTree([]byte(e("100664", "a") + e("40000", "a.d") + e("0100644", "b")))
	assert.NilError(t, err)
	assert.Equal(t, got[0].mode(), Deprecated)
	assert.Equal(t, got[1].mode(), Directory)
	assert.Equal(t, got[2].mode(), Deprecated)
}

func TestCommitsWithTwoTreesAreCorrupt(t *testing.T) {
	h := strings.Repeat("ab", 20)
	who := "author A <a@b> 1 +0100\ncommitter C <c@d> 2 -0230\n"
	for data, want := range map[string]string{
		"":                                    "the first line is not a tree",
		"parent " + h:                         "the first line is not a tree",
		"tree AB\n\n":                         `tree: object name "AB" has 2 characters, want 40 hex digits`,
		"tree " + strings.ToUpper(h) + "\n\n": `tree: object name "` + strings.ToUpper(h) + `" is not 40 lower-case hex digits`,
		"tree " + h + "\n\nm":                 "no author after tree and parents",
		"tree " + h + "\nauthor A <a> 1 +0000\n\nm":        "no committer after the author",
		"tree " + h + "\n" + who + "tree " + h + "\n\nm":   `a second "tree" line`,
		"tree " + h + "\n" + who + "parent " + h + "\n\nm": `a second "parent" line`,
		"tree " + h + "\nparent x\n" + who + "\nm":         `parent: object name "x" has 1 characters, want 40 hex digits`,
		"tree " + h + "\ntree " + h + "\n" + who + "\nm":   "no author after tree and parents",
	} {
		_, err := parseCommit([]byte(data))
		assert.ErrorIs(t, err, ErrCorruptObject)
		assert.Error(t, err, "object is corrupt: "+want)
	}
	c, err := parseCommit([]byte("tree " + h + "\n" + who + "gpgsig one\n two\n \n three\nencoding latin1\n\n"))
	assert.NilError(t, err)
	assert.Equal(t, c.Signature, "one\ntwo\n\nthree")
	assert.Equal(t, c.Author.When.Format("2006-01-02T15:04:05Z07:00"), "1970-01-01T01:00:01+01:00")
	assert.Equal(t, c.Committer.Email, "c@d")
	assert.Equal(t, c.Message, "")
}

// FuzzTree: what parses is, byte for byte, what encodeTree writes.
func FuzzTree(f *testing.F) {
	f.Add([]byte("100644 a\x00" + oneHash + "40000 a.d\x00" + oneHash))
	f.Add([]byte("0100644 a\x00" + oneHash))
	f.Add([]byte("040000 a\x00" + oneHash + "120000 b\x00" + oneHash))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseTree(data)
		if err != nil {
			assert.Assert(t, entries == nil)
			return
		}
		assert.Assert(t, bytes.Equal(encodeTree(entries), data))
	})
}

// FuzzCommit: what parses names the tree and parents that git's grammar does,
// and a failed parse returns nothing.
func FuzzCommit(f *testing.F) {
	h := strings.Repeat("ab", 20)
	f.Add([]byte("tree " + h + "\nparent " + h + "\nauthor A <a@b> 1 +0100\ncommitter C <c@d> 2 -0230\ngpgsig x\n y\n\nm\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseCommit(data)
		if err != nil {
			assert.DeepEqual(t, c, Commit{})
			return
		}
		want := "tree " + c.Tree.String() + "\n"
		for _, p := range c.Parents {
			want += "parent " + p.String() + "\n"
		}
		assert.Assert(t, strings.HasPrefix(string(data), want+"author "))
		assert.Assert(t, strings.HasSuffix(string(data), c.Message))
	})
}

// FuzzHash: forty digits in, the same forty digits out, and nothing else in.
func FuzzHash(f *testing.F) {
	f.Add(strings.Repeat("0a", 20))
	f.Add(strings.Repeat("0A", 20))
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHash(s)
		if err != nil {
			assert.Assert(t, h.IsZero())
			return
		}
		assert.Equal(t, h.String(), s)
	})
}
