package checkpoint_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
)

const origin = "github.com/vaultmesh/example"

// logKey derives the signing key of a log from one byte.
func logKey(t testing.TB, name string, seed byte) *checkpoint.Signer {
	t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	pub := append([]byte{1}, key.Public().(ed25519.PublicKey)...)
	hash := sha256.Sum256(append([]byte(name+"\n"), pub...))
	s, err := checkpoint.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%x+%s", name, hash[:4],
		base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...))))
	assert.NilError(t, err)
	return s
}

func policy(t testing.TB, text string) *checkpoint.Policy {
	t.Helper()
	p, err := checkpoint.ParsePolicy([]byte(text))
	assert.NilError(t, err)
	return p
}

// entries returns n entries and every stored hash of their tree.
func entries(t testing.TB, n int) (lines [][]byte, hashes tlog.HashReaderFunc) {
	t.Helper()
	var stored []tlog.Hash
	hashes = func(indexes []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	}
	for i := range n {
		line := fmt.Appendf(nil, `{"entry":%d}`, i)
		lines = append(lines, line)
		more, err := tlog.StoredHashes(int64(i), line, hashes)
		assert.NilError(t, err)
		stored = append(stored, more...)
	}
	return lines, hashes
}

func bodyOf(t testing.TB, hashes tlog.HashReader, size int64) checkpoint.Body {
	t.Helper()
	root, err := tlog.TreeHash(size, hashes)
	assert.NilError(t, err)
	return checkpoint.Body{Origin: origin, Size: size, Root: root}
}

func signed(t testing.TB, s *checkpoint.Signer, b checkpoint.Body) []byte {
	t.Helper()
	msg, err := s.Sign(b)
	assert.NilError(t, err)
	return msg
}

func proofOf(t testing.TB, hashes tlog.HashReader, size, index int64, msg []byte) checkpoint.Proof {
	t.Helper()
	p, err := tlog.ProveRecord(size, index, hashes)
	assert.NilError(t, err)
	return checkpoint.Proof{Index: index, Hashes: p, Checkpoint: msg}
}

func TestFormatsAreFrozen(t *testing.T) {
	s := logKey(t, origin, 1)
	_, hashes := entries(t, 5)
	msg := signed(t, s, bodyOf(t, hashes, 5))
	golden.AssertBytes(t, msg, "checkpoint.golden")

	proof := proofOf(t, hashes, 5, 2, msg)
	golden.AssertBytes(t, proof.Marshal(), "proof.golden")
	proof.Extra = []byte("application data")
	golden.AssertBytes(t, proof.Marshal(), "proof-extra.golden")

	golden.AssertBytes(t, checkpoint.NewPolicy(s.VerifierKey()), "policy.golden")
}

func TestPolicyOpensWhatItsLogSigned(t *testing.T) {
	s := logKey(t, origin, 1)
	_, hashes := entries(t, 5)
	body := bodyOf(t, hashes, 5)
	text := checkpoint.NewPolicy(s.VerifierKey())
	p, err := checkpoint.ParsePolicy(text)
	assert.NilError(t, err)
	assert.DeepEqual(t, p.Bytes(), text)
	assert.DeepEqual(t, p.Origins(), []string{origin})

	v, err := p.Open(signed(t, s, body))
	assert.NilError(t, err)
	assert.Equal(t, v.Body(), body)
	assert.DeepEqual(t, v.Note(), signed(t, s, body))
	assert.Equal(t, v.LogKey(), s.VerifierKey())
	assert.Equal(t, len(v.Witnesses()), 0)
}

// The reference implementation of signed notes reads ours, and we read its.
func TestNotesAreThoseOfTheReferenceImplementation(t *testing.T) {
	skey, vkey, err := checkpoint.GenerateKey(rand.Reader, origin)
	assert.NilError(t, err)
	s, err := checkpoint.NewSigner(skey + "\n")
	assert.NilError(t, err)
	assert.Equal(t, s.VerifierKey(), vkey)
	assert.Equal(t, s.Origin(), origin)
	body := checkpoint.Body{Origin: origin, Size: 7, Root: sha256.Sum256([]byte("x"))}
	ours := signed(t, s, body)

	verifier, err := note.NewVerifier(vkey)
	assert.NilError(t, err)
	n, err := note.Open(ours, note.VerifierList(verifier))
	assert.NilError(t, err)
	assert.Equal(t, n.Text, string(body.Text()))

	signer, err := note.NewSigner(skey)
	assert.NilError(t, err)
	theirs, err := note.Sign(&note.Note{Text: string(body.Text())}, signer)
	assert.NilError(t, err)
	v, err := policy(t, string(checkpoint.NewPolicy(vkey))).Open(theirs)
	assert.NilError(t, err)
	assert.Equal(t, v.Body(), body)
	assert.DeepEqual(t, theirs, ours)
}

func TestBodyIsThreeStrictLines(t *testing.T) {
	root := base64.StdEncoding.EncodeToString(make([]byte, 32))
	got, err := checkpoint.ParseBody([]byte("a/b\n12\n" + root + "\n"))
	assert.NilError(t, err)
	assert.Equal(t, got, checkpoint.Body{Origin: "a/b", Size: 12})

	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "checkpoint has 0 lines, want origin, size and root, each ended by a newline"},
		{"two lines", "a\n1\n", "checkpoint has 2 lines, want"},
		{"extension line", "a\n1\n" + root + "\nmore\n", "checkpoint has 4 lines, want"},
		{"no last newline", "a\n1\n" + root, "checkpoint has 2 lines, want"},
		{"text after the last newline", "a\n1\n" + root + "\nx", "checkpoint has 3 lines, want"},
		{"no origin", "\n1\n" + root + "\n", `checkpoint: origin "": want a schema-less URL such as github.com/owner/name`},
		{"leading zero", "a\n01\n" + root + "\n", `checkpoint: size "01": want a decimal number without leading zeroes`},
		{"plus sign", "a\n+1\n" + root + "\n", `checkpoint: size "+1": want`},
		{"negative", "a\n-1\n" + root + "\n", `checkpoint: size "-1": want`},
		{"too large", "a\n9223372036854775808\n" + root + "\n", `checkpoint: size "9223372036854775808": want`},
		{"no size", "a\n\n" + root + "\n", `checkpoint: size "": want`},
		{"short root", "a\n1\nAAAA\n", `checkpoint: root: "AAAA": want the base64 of 32 bytes`},
		{"no padding", "a\n1\n" + root[:43] + "\n", "want the base64 of 32 bytes"},
		{"bits after the end", "a\n1\n" + root[:42] + "B=\n", "want the base64 of 32 bytes"},
		{"URL alphabet", "a\n1\n_" + root[1:] + "\n", "want the base64 of 32 bytes"},
		{"carriage return", "a\n1\n" + root + "\r\n", "want the base64 of 32 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := checkpoint.ParseBody([]byte(c.text))
			assert.ErrorContains(t, err, c.want)
			assert.Equal(t, got, checkpoint.Body{})
		})
	}
}

func TestOriginIsASchemalessURL(t *testing.T) {
	for _, s := range []string{"a", "github.com/owner/name", "example.com:8080/log~1"} {
		assert.NilError(t, checkpoint.CheckOrigin(s))
	}
	for _, s := range []string{"", "a b", "a+b", "a\tb", "a\n", "a\r", "https://a", "a\x00", "a\x7f", "café", strings.Repeat("a", 256)} {
		assert.ErrorContains(t, checkpoint.CheckOrigin(s), "origin", "%q", s)
	}
	_, _, err := checkpoint.GenerateKey(rand.Reader, "https://a")
	assert.ErrorContains(t, err, "want a schema-less URL")
}

func TestSignerRefusesWhatItCannotSign(t *testing.T) {
	s := logKey(t, origin, 1)
	_, err := s.Sign(checkpoint.Body{Origin: "elsewhere"})
	assert.Error(t, err, "checkpoint is of log elsewhere, but the key signs for "+origin)

	secret := "PRIVATE+KEY+x+00000000+c2VjcmV0"
	for _, skey := range []string{"", "x", secret, s.VerifierKey()} {
		_, err := checkpoint.NewSigner(skey)
		assert.Error(t, err, "log key: want a signed-note signing key that begins with PRIVATE+KEY+")
	}
}

func TestProofLeadsFromEntryToCheckpoint(t *testing.T) {
	s := logKey(t, origin, 1)
	p := policy(t, string(checkpoint.NewPolicy(s.VerifierKey())))
	lines, hashes := entries(t, 9)
	for size := int64(1); size <= 9; size++ {
		msg := signed(t, s, bodyOf(t, hashes, size))
		cp, err := p.Open(msg)
		assert.NilError(t, err)
		for index := range size {
			parsed, err := checkpoint.ParseProof(proofOf(t, hashes, size, index, msg).Marshal())
			assert.NilError(t, err)
			assert.NilError(t, parsed.CheckInclusion(cp, lines[index]))

			other := (index + 1) % 9
			assert.ErrorContains(t, parsed.CheckInclusion(cp, lines[other]), fmt.Sprintf("proof: entry %d does not lead to root", index))
			moved := parsed
			moved.Index = (index + 1) % size
			if moved.Index != index {
				assert.ErrorContains(t, moved.CheckInclusion(cp, lines[index]), "does not lead to root")
			}
			longer := parsed
			longer.Hashes = append(slices.Clone(parsed.Hashes), checkpoint.Hash{})
			assert.ErrorContains(t, longer.CheckInclusion(cp, lines[index]), "does not lead to root")
			beyond := parsed
			beyond.Index = size
			assert.Error(t, beyond.CheckInclusion(cp, lines[index]), fmt.Sprintf("proof: index %d is not below the checkpoint's size %d", size, size))
		}
	}
	assert.ErrorContains(t, checkpoint.Proof{}.CheckInclusion(checkpoint.Verified{}, nil), "is not below the checkpoint's size 0")
}

func TestProofFileIsStrict(t *testing.T) {
	hash := base64.StdEncoding.EncodeToString(make([]byte, 32))
	head := "c2sp.org/tlog-proof@v1\n"
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "proof: want a proof, an empty line, and a checkpoint"},
		{"no empty line", head + "index 0\n", "proof: want a proof, an empty line, and a checkpoint"},
		{"too large", head + "index 0\n\n" + strings.Repeat("x", 256<<10), "proof: want a proof, an empty line, and a checkpoint"},
		{"other version", "c2sp.org/tlog-proof@v2\nindex 0\n\nx", `proof: first line is "c2sp.org/tlog-proof@v2", want "c2sp.org/tlog-proof@v1"`},
		{"no index", head + "\nx", `proof: want a line "index N"`},
		{"hash before index", head + hash + "\nindex 0\n\nx", `proof: want a line "index N"`},
		{"second extra", head + "extra \nextra \nindex 0\n\nx", `proof: want a line "index N"`},
		{"extra after index", head + "index 0\nextra \n\nx", "proof: hash"},
		{"extra not base64", head + "extra !\nindex 0\n\nx", "proof: extra: illegal base64"},
		{"extra with bits after the end", head + "extra AB==\nindex 0\n\nx", "proof: extra: illegal base64"},
		{"extra with a carriage return", head + "extra AA==\r\nindex 0\n\nx", "proof does not encode back to itself"},
		{"index with leading zero", head + "index 00\n\nx", `proof: index "00": want a decimal number without leading zeroes`},
		{"negative index", head + "index -1\n\nx", `proof: index "-1": want`},
		{"short hash", head + "index 0\nAAAA\n\nx", `proof: hash "AAAA": want the base64 of 32 bytes`},
		{"hash with a carriage return", head + "index 0\n" + hash + "\r\n\nx", "proof: hash"},
		{"64 hashes", head + "index 0\n" + strings.Repeat(hash+"\n", 64) + "\nx", "proof: 64 hashes, want at most 63"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := checkpoint.ParseProof([]byte(c.text))
			assert.ErrorContains(t, err, c.want)
			assert.DeepEqual(t, got, checkpoint.Proof{})
		})
	}
	most, err := checkpoint.ParseProof([]byte(head + "extra \nindex 0\n" + strings.Repeat(hash+"\n", 63) + "\nx"))
	assert.NilError(t, err)
	assert.DeepEqual(t, most, checkpoint.Proof{Extra: []byte{}, Hashes: make([]checkpoint.Hash, 63), Checkpoint: []byte("x")})
}

func TestConsistencyHoldsForPrefixesOnly(t *testing.T) {
	_, hashes := entries(t, 12)
	for older := int64(1); older <= 12; older++ {
		for later := older; later <= 12; later++ {
			proof, err := tlog.ProveTree(later, older, hashes)
			assert.NilError(t, err)
			a, b := bodyOf(t, hashes, older), bodyOf(t, hashes, later)
			assert.NilError(t, checkpoint.CheckConsistency(a, b, proof))

			forked := a
			forked.Root[0] ^= 1
			assert.ErrorContains(t, checkpoint.CheckConsistency(forked, b, proof), "does not extend")
			forked = b
			forked.Root[31] ^= 1
			assert.ErrorContains(t, checkpoint.CheckConsistency(a, forked, proof), "does not extend")
			assert.ErrorContains(t, checkpoint.CheckConsistency(a, b, append(proof, tlog.Hash{})), "does not extend")
			if older < later {
				assert.ErrorContains(t, checkpoint.CheckConsistency(a, b, nil), "does not extend")
				assert.Error(t, checkpoint.CheckConsistency(b, a, proof), fmt.Sprintf("size goes back from %d to %d", later, older))
			}
		}
	}
	b := bodyOf(t, hashes, 3)
	other := b
	other.Origin = "elsewhere"
	assert.Error(t, checkpoint.CheckConsistency(b, other, nil), "checkpoints are of different logs: "+origin+" and elsewhere")

	empty := checkpoint.Body{Origin: origin, Root: sha256.Sum256(nil)}
	assert.NilError(t, checkpoint.CheckConsistency(empty, empty, nil))
	assert.NilError(t, checkpoint.CheckConsistency(empty, b, nil))
	assert.Error(t, checkpoint.CheckConsistency(empty, b, []checkpoint.Hash{{}}), "proof has 1 hashes, want none from an empty log")
	for _, pair := range [][2]checkpoint.Body{{{Origin: origin}, b}, {{Origin: origin}, empty}, {empty, {Origin: origin}}} {
		assert.ErrorContains(t, checkpoint.CheckConsistency(pair[0], pair[1], nil), "is not that of an empty log")
	}
}

func FuzzParseBody(f *testing.F) {
	f.Add(checkpoint.Body{Origin: origin, Size: 12}.Text())
	f.Add([]byte("a\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"))
	f.Add([]byte("a\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := checkpoint.ParseBody(text)
		if err != nil {
			assert.Equal(t, b, checkpoint.Body{})
			return
		}
		assert.DeepEqual(t, b.Text(), text)
		assert.Assert(t, b.Size >= 0)
	})
}

func FuzzParseProof(f *testing.F) {
	for _, name := range []string{"proof.golden", "proof-extra.golden"} {
		f.Add(golden.Get(f, name))
	}
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra \nindex 0\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := checkpoint.ParseProof(data)
		if err != nil {
			assert.DeepEqual(t, p, checkpoint.Proof{})
			return
		}
		assert.DeepEqual(t, p.Marshal(), data)
	})
}
