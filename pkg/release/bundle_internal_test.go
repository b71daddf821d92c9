package release

import (
	"bytes"
	"testing"

	"gotest.tools/v3/assert"
)

func TestTagsAreReadStrictly(t *testing.T) {
	const head = "object 0123456789012345678901234567890123456789\ntype commit\ntag v1\ntagger A <a@example.com> 1 +0000\n\n"
	tag, err := parseTag([]byte(head + "words\n"))
	assert.NilError(t, err)
	assert.Equal(t, tag.name+" "+tag.commit, "v1 0123456789012345678901234567890123456789")
	for text, want := range map[string]string{
		"":      "is no annotated tag of a commit",
		"x\n\n": "is no annotated tag of a commit",
		"object 0123\ntype commit\ntag v1\ntagger A\n\n":                                        "want the object of the tag",
		"object 0123456789012345678901234567890123456789\ntype tag\ntag v1\ntagger A\n\n":       "is no annotated tag of a commit",
		"object 0123456789012345678901234567890123456789\ntype commit\ntag \ntagger A\n\n":      "want the name of the tag",
		head + "-----BEGIN SSH SIGNATURE-----\n":                                                "something else than one OpenPGP signature",
		head + "\n-----BEGIN PGP SIGNATURE-----\n\n-----BEGIN PGP SIGNATURE-----\n":             "something else than one OpenPGP signature",
		head + "\n-----BEGIN PGP SIGNATURE-----\n\n!\n-----END PGP SIGNATURE-----\n and more\n": "",
	} {
		_, err := parseTag([]byte(text))
		assert.ErrorContains(t, err, want, text)
	}
}

func FuzzTag(f *testing.F) {
	f.Add([]byte("object 0123456789012345678901234567890123456789\ntype commit\ntag v1\ntagger A\n\nwords\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		tag, err := parseTag(raw)
		if err != nil {
			return
		}
		assert.Assert(t, bytes.HasPrefix(raw, []byte("object "+tag.commit+"\ntype commit\ntag "+tag.name+"\n")))
		assert.Assert(t, bytes.HasPrefix(raw, tag.payload))
	})
}

func FuzzListing(f *testing.F) {
	f.Add([]byte("ecf6410c21e70b6249f59badba575ed326c3043ff2a39f08b88373ead8932dbc  a/b.txt\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := parseListing("SEAL", data)
		if err != nil {
			assert.Assert(t, all == nil)
			return
		}
		// What decodes encodes to the same bytes.
		assert.Equal(t, string(renderListing(all)), string(data))
	})
}

func TestOnlyPathsThatNobodyReadsInTwoWaysAreInABundle(t *testing.T) {
	for _, good := range []string{"a", "a/b.txt", "keys/AB.asc", "v1.2.3+x_y@z=1,2~3-4"} {
		assert.NilError(t, CheckBundlePath(good))
	}
	for _, bad := range []string{"", ".", "..", "a/../b", "/a", "a/", "a//b", ".git", "-rf", "a b", "a\\b", "a:b", "ä", "a\n", "a.", "a/b/c/d/e/f/g"} {
		assert.ErrorContains(t, CheckBundlePath(bad), "want", bad)
	}
}
