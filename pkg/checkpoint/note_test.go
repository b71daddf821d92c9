package checkpoint_test

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
)

func noteKeys(t testing.TB, name string) (skey, vkey string) {
	t.Helper()
	skey, vkey, err := checkpoint.GenerateKey(rand.Reader, name)
	assert.NilError(t, err)
	return skey, vkey
}

const setText = "remembrancer/set/v1\nlocal/node\nx\n12\ny\n"

func TestANoteOpensUnderItsKeyOnly(t *testing.T) {
	skey, vkey := noteKeys(t, "local/node/set")
	note, err := checkpoint.SignNote(skey, []byte(setText))
	assert.NilError(t, err)
	text, err := checkpoint.OpenNote(vkey, note)
	assert.NilError(t, err)
	assert.Equal(t, string(text), setText)

	_, other := noteKeys(t, "local/node/set")
	_, stranger := noteKeys(t, "local/other/set")
	for _, key := range []string{other, stranger} {
		_, err := checkpoint.OpenNote(key, note)
		assert.ErrorContains(t, err, "note: want a signature of local/")
	}
	for _, key := range []string{"", "x", skey, vkey + "A", vkey + "\n"} {
		_, err := checkpoint.OpenNote(key, note)
		assert.ErrorContains(t, err, "want a signed-note verifier key", "%q", key)
	}
	for name, changed := range map[string][]byte{
		"the text":      bytes.Replace(note, []byte("\n12\n"), []byte("\n13\n"), 1),
		"nothing":       nil,
		"no signature":  []byte(setText),
		"too much":      append(bytes.Clone(note), bytes.Repeat([]byte("x"), 64<<10)...),
		"a signature":   bytes.Replace(note, []byte("— local/node/set "), []byte("— local/node/set A"), 1),
		"loose base64":  append(bytes.TrimSuffix(bytes.Clone(note), []byte("\n")), "=\n"...),
		"a second line": append(bytes.Clone(note), "x\n"...),
	} {
		text, err := checkpoint.OpenNote(vkey, changed)
		assert.Assert(t, err != nil && text == nil, name)
	}
	// What others have signed beside it is theirs.
	more, _ := noteKeys(t, "local/other/set")
	theirs, err := checkpoint.SignNote(more, []byte(setText))
	assert.NilError(t, err)
	_, line, _ := bytes.Cut(theirs, []byte("\n\n"))
	text, err = checkpoint.OpenNote(vkey, append(bytes.Clone(note), line...))
	assert.NilError(t, err)
	assert.Equal(t, string(text), setText)
}

// A note of another kind must not be taken for a checkpoint, nor a checkpoint for
// such a note, even if somebody used one key for both.
func TestANoteIsNoCheckpoint(t *testing.T) {
	skey, vkey := noteKeys(t, origin)
	s, err := checkpoint.NewSigner(skey)
	assert.NilError(t, err)
	body := checkpoint.Body{Origin: origin, Size: 7, Root: checkpoint.Hash{1}}
	const reads = "note: its text reads as a checkpoint, and would be taken for one"
	for _, text := range [][]byte{body.Text(), append(body.Text(), "an extension line\n"...)} {
		_, err = checkpoint.SignNote(skey, text)
		assert.Error(t, err, reads)
	}
	_, err = checkpoint.OpenNote(vkey, signed(t, s, body))
	assert.Error(t, err, reads)

	note, err := checkpoint.SignNote(skey, []byte(setText))
	assert.NilError(t, err)
	_, err = policy(t, string(checkpoint.NewPolicy(vkey))).Open(note)
	assert.ErrorContains(t, err, "checkpoint has 5 lines")
}

func TestNotesAreRefusedBeforeTheyAreSigned(t *testing.T) {
	skey, vkey := noteKeys(t, origin)
	for _, key := range []string{"", "x", vkey} {
		_, err := checkpoint.SignNote(key, []byte(setText))
		assert.ErrorContains(t, err, "log key: want")
	}
	for _, text := range []string{"", "no newline", "a control\x01\n", "\xff\n"} {
		_, err := checkpoint.SignNote(skey, []byte(text))
		assert.Assert(t, err != nil, "%q", text)
	}
	_, err := checkpoint.SignNote(skey, []byte(strings.Repeat("x", 64<<10)+"\n"))
	assert.ErrorContains(t, err, "bytes, want at most 65536")
}

func TestNoteKeysAreOneWordOfAGoodName(t *testing.T) {
	_, vkey := noteKeys(t, origin)
	assert.NilError(t, checkpoint.CheckNoteKey(vkey))
	for _, bad := range []string{"", "x", vkey + " ", vkey + "\nwitness", strings.Replace(vkey, origin, "http://x", 1)} {
		assert.Assert(t, checkpoint.CheckNoteKey(bad) != nil, "%q", bad)
	}
}

func TestInclusionNeedsTheWholeProof(t *testing.T) {
	const size = 7
	lines, hashes := entries(t, size)
	b := bodyOf(t, hashes, size)
	for i := range int64(size) {
		p := proofOf(t, hashes, size, i, lines[i])
		assert.NilError(t, checkpoint.CheckInclusion(size, b.Root, i, p.Hashes, lines[i]))
		for name, err := range map[string]error{
			"another index":  checkpoint.CheckInclusion(size, b.Root, (i+1)%size, p.Hashes, lines[i]),
			"another entry":  checkpoint.CheckInclusion(size, b.Root, i, p.Hashes, lines[(i+1)%size]),
			"another root":   checkpoint.CheckInclusion(size, checkpoint.Hash{}, i, p.Hashes, lines[i]),
			"a smaller size": checkpoint.CheckInclusion(i, b.Root, i, p.Hashes, lines[i]),
			"below nothing":  checkpoint.CheckInclusion(size, b.Root, -1, p.Hashes, lines[i]),
			"a hash less":    checkpoint.CheckInclusion(size, b.Root, i, p.Hashes[1:], lines[i]),
			"a hash more":    checkpoint.CheckInclusion(size, b.Root, i, append(p.Hashes, b.Root), lines[i]),
		} {
			assert.ErrorContains(t, err, "proof: ", name)
		}
	}
}

func FuzzOpenNoteNeverReturnsACheckpoint(f *testing.F) {
	skey, vkey := noteKeys(f, origin)
	note, err := checkpoint.SignNote(skey, []byte(setText))
	assert.NilError(f, err)
	f.Add(note)
	f.Fuzz(func(t *testing.T, data []byte) {
		text, err := checkpoint.OpenNote(vkey, data)
		if err == nil {
			_, err = checkpoint.ParseBody(text)
			assert.Assert(t, err != nil)
		}
	})
}
