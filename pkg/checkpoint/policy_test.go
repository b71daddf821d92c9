package checkpoint_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
)

var noon = time.Unix(1_700_000_000, 0)

func witness(t testing.TB, name string, seed byte) *checkpoint.Cosigner {
	t.Helper()
	c, err := checkpoint.NewCosigner(name, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	assert.NilError(t, err)
	return c
}

// cast is a log with five witnesses.
type cast struct {
	log       *checkpoint.Signer
	witnesses []*checkpoint.Cosigner
	note      []byte
}

func newCast(t testing.TB) cast {
	c := cast{log: logKey(t, origin, 1)}
	for i := range 5 {
		c.witnesses = append(c.witnesses, witness(t, fmt.Sprintf("witness.example/%d", i), byte(10+i)))
	}
	c.note = signed(t, c.log, checkpoint.Body{Origin: origin, Size: 5, Root: sha256.Sum256([]byte("root"))})
	return c
}

// policyText lists the log, the witnesses as w0 to w4, and what follows.
func (c cast) policyText(rest string) string {
	text := "log " + c.log.VerifierKey() + "\n"
	for i, w := range c.witnesses {
		text += fmt.Sprintf("witness w%d %s https://witness.example/%d\n", i, w.VerifierKey(), i)
	}
	return text + rest
}

// cosign returns the note with the cosignatures of the numbered witnesses.
func (c cast) cosign(t testing.TB, who ...int) []byte {
	msg := c.note
	for _, i := range who {
		// A witness opens what it signs with a policy that knows only the log.
		v, err := policy(t, string(checkpoint.NewPolicy(c.log.VerifierKey()))).Open(msg)
		assert.NilError(t, err)
		msg = c.witnesses[i].Cosign(v, noon)
	}
	return msg
}

func TestQuorumDecides(t *testing.T) {
	c := newCast(t)
	const nested = "group a 2 w0 w1 w2\ngroup b any w3 w4\ngroup top all a b\nquorum top\n"
	for _, q := range []struct {
		rest string
		who  []int
		ok   bool
	}{
		{"quorum none\n", nil, true},
		{"quorum none\n", []int{1}, true},
		{"quorum w1\n", nil, false},
		{"quorum w1\n", []int{0, 2, 3, 4}, false},
		{"quorum w1\n", []int{1}, true},
		{"group g any w0 w1\nquorum g\n", []int{2}, false},
		{"group g any w0 w1\nquorum g\n", []int{1}, true},
		{"group g all w0 w1\nquorum g\n", []int{1}, false},
		{"group g all w0 w1\nquorum g\n", []int{1, 0}, true},
		{"group g 2 w0 w1 w2\nquorum g\n", []int{1}, false},
		{"group g 2 w0 w1 w2\nquorum g\n", []int{1, 3}, false},
		{"group g 2 w0 w1 w2\nquorum g\n", []int{1, 2}, true},
		{nested, []int{0, 1}, false},
		{nested, []int{0, 3, 4}, false},
		{nested, []int{0, 2, 3}, true},
		{nested, []int{0, 1, 2, 3, 4}, true},
	} {
		p := policy(t, c.policyText(q.rest))
		v, err := p.Open(c.cosign(t, q.who...))
		if !q.ok {
			assert.ErrorContains(t, err, fmt.Sprintf("checkpoint of size 5 lacks the policy's quorum %q: cosigned by %d witnesses",
				q.rest[strings.LastIndex(q.rest, " ")+1:len(q.rest)-1], len(q.who)), "%q %v", q.rest, q.who)
			assert.DeepEqual(t, v.Body(), checkpoint.Body{})
			continue
		}
		assert.NilError(t, err, "%q %v", q.rest, q.who)
		assert.Equal(t, len(v.Witnesses()), len(q.who))
	}
}

func TestOneWitnessCountsOnce(t *testing.T) {
	c := newCast(t)
	twice := c.cosign(t, 0, 0)
	assert.Equal(t, strings.Count(string(twice), "— witness.example/0 "), 2)
	_, err := policy(t, c.policyText("group g 2 w0 w1\nquorum g\n")).Open(twice)
	assert.ErrorContains(t, err, `lacks the policy's quorum "g": cosigned by 1 witnesses (w0)`)
}

func TestCosignatureIsFrozenAndVerifies(t *testing.T) {
	c := newCast(t)
	msg := c.cosign(t, 3)
	golden.AssertBytes(t, msg, "cosigned.golden")
	golden.AssertBytes(t, []byte(c.policyText("quorum w3\n")), "policy-witnesses.golden")
	v, err := policy(t, c.policyText("quorum w3\n")).Open(msg)
	assert.NilError(t, err)
	assert.DeepEqual(t, v.Witnesses(), []string{"w3"})
	assert.DeepEqual(t, v.Note(), msg)
}

// A cosignature is no log's signature, and the other way round.
func TestRolesAreNotExchanged(t *testing.T) {
	c := newCast(t)
	p := policy(t, c.policyText("quorum w0\n"))
	text, _, _ := strings.Cut(string(c.note), "\n\n")
	all := string(c.cosign(t, 0))
	cosignature := all[strings.LastIndex(all, "— "):]
	_, err := p.Open([]byte(text + "\n\n" + cosignature))
	assert.Error(t, err, "checkpoint of "+origin+" is not signed by a log of the policy ("+origin+")")

	// A log of the policy that signs for another log's name.
	other := logKey(t, "example.com/other", 2)
	body := checkpoint.Body{Origin: "example.com/other", Size: 1}
	two := policy(t, "log "+c.log.VerifierKey()+"\nlog "+other.VerifierKey()+"\nquorum none\n")
	v, err := two.Open(signed(t, other, body))
	assert.NilError(t, err)
	assert.Equal(t, v.LogKey(), other.VerifierKey())
	lines := strings.SplitAfterN(string(signed(t, other, body)), "\n", 2)
	_, err = two.Open([]byte(origin + "\n" + lines[1]))
	assert.ErrorContains(t, err, "invalid signature")
}

func TestOpenNamesTheForeignKey(t *testing.T) {
	c := newCast(t)
	stranger := logKey(t, origin, 9)
	body := checkpoint.Body{Origin: origin, Size: 5}
	_, err := policy(t, c.policyText("quorum none\n")).Open(signed(t, stranger, body))
	hash := strings.Split(stranger.VerifierKey(), "+")[1]
	assert.Error(t, err, fmt.Sprintf("checkpoint: signed by %s+%s, want a key of the policy (%s)", origin, hash, origin))
}

func TestOpenRefusesMalformedNotes(t *testing.T) {
	c := newCast(t)
	p := policy(t, c.policyText("quorum none\n"))
	good := string(c.note)
	for _, m := range []struct{ name, note, want string }{
		{"empty", "", "malformed note"},
		{"no signature", good[:strings.Index(good, "\n\n")+1], "malformed note"},
		{"no last newline", good[:len(good)-1], "malformed note"},
		{"carriage returns", strings.ReplaceAll(good, "\n", "\r\n"), "malformed note"},
		{"too large", good + strings.Repeat("— x AAAAAAA=\n", 64<<10/15), "bytes, want at most 65536"},
	} {
		t.Run(m.name, func(t *testing.T) {
			_, err := p.Open([]byte(m.note))
			assert.ErrorContains(t, err, m.want)
		})
	}
	// One signature has one encoding: 68 bytes leave two unused bits.
	at := strings.LastIndex(good, "=") - 1
	alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	lenient := good[:at] + string(alphabet[strings.IndexByte(alphabet, good[at])+1]) + good[at+1:]
	_, err := base64.StdEncoding.DecodeString(strings.TrimSpace(lenient[strings.LastIndex(lenient, " "):]))
	assert.NilError(t, err)
	_, err = p.Open([]byte(lenient))
	assert.Error(t, err, "checkpoint: signature of "+origin+" is not in canonical base64")
}

func TestFlippedBitNeverVerifies(t *testing.T) {
	c := newCast(t)
	everyone := policy(t, c.policyText("group g all w0 w1\nquorum g\n"))
	msg := c.cosign(t, 0, 1)
	_, err := everyone.Open(msg)
	assert.NilError(t, err)
	for i := range msg {
		for bit := range 8 {
			flipped := bytes.Clone(msg)
			flipped[i] ^= 1 << bit
			if _, err := everyone.Open(flipped); err == nil {
				t.Fatalf("bit %d of byte %d flipped still verifies:\n%s", bit, i, flipped)
			}
		}
	}
}

func TestPolicyRefusals(t *testing.T) {
	c := newCast(t)
	log, w0, w1 := c.log.VerifierKey(), c.witnesses[0].VerifierKey(), c.witnesses[1].VerifierKey()
	same := logKey(t, "example.com/same", 1).VerifierKey()
	for _, r := range []struct{ name, text, want string }{
		{"empty", "", `policy has no quorum line: without witnesses, write "quorum none"`},
		{"no log", "quorum none\n", "policy lists no log"},
		{"no quorum", "log " + log + "\n", "policy has no quorum line"},
		{"no last newline", "log " + log + "\nquorum none", "policy does not end in a newline"},
		{"control character", "log " + log + "\r\nquorum none\n", "policy line 1: holds a control character"},
		{"too many lines", strings.Repeat("\n", 257), "policy is too large: want at most 256 lines and 65536 bytes"},
		{"too many bytes", "#" + strings.Repeat("x", 64<<10) + "\n", "policy is too large"},
		{"unknown keyword", "lock x\n", `policy line 1: "lock x": want "log VKEY [URL]"`},
		{"log without key", "log\n", `policy line 1: "log": want "log VKEY [URL]"`},
		{"log with too much", "log " + log + " url more\n", "want \"log VKEY [URL]\""},
		{"bad log key", "log x\n", `policy line 1: log key "x": want a signed-note verifier key <origin>+<hash>+<base64>`},
		{"witness key as log", "log " + w0 + "\n", "policy line 1: log key"},
		{"log twice", "log " + log + "\nlog " + log + "\n", "policy line 2: log " + origin + " is listed twice"},
		{"one key under two names", "log " + log + "\nlog " + same + "\n", "policy line 2: key " + same + " is listed twice"},
		{"bad witness key", "witness w x\n", `policy line 1: witness key "x": want an Ed25519 cosignature/v1 verifier key <name>+<hash>+<base64>`},
		{"log key as witness", "witness w " + log + "\n", "policy line 1: witness key"},
		{"witness key with a wrong hash", "witness w " + strings.Replace(w0, "+", "+0", 1) + "\n", "policy line 1: witness key"},
		{"witness called none", "witness none " + w0 + "\n", `policy line 1: name "none" is already taken`},
		{"witness name twice", "witness w " + w0 + "\nwitness w " + w1 + "\n", `policy line 2: name "w" is already taken`},
		{"witness key twice", "witness w " + w0 + "\nwitness x " + w0 + "\n", "policy line 2: key " + w0 + " is listed twice"},
		{"group of a stranger", "group g any w\n", `policy line 1: group member "w": want a witness or group of an earlier line, once`},
		{"group of itself", "group g any g\n", `policy line 1: group member "g": want`},
		{"group without members", "group g any\n", `policy line 1: "group g any": want`},
		{"member twice", "witness w " + w0 + "\ngroup g 2 w w\n", `policy line 2: group member "w": want a witness or group of an earlier line, once`},
		{"member of two groups", "witness w " + w0 + "\ngroup g any w\ngroup h any w\n", `policy line 3: "w" is already a member of another group`},
		{"threshold zero", "witness w " + w0 + "\ngroup g 0 w\n", `policy line 2: group threshold "0": want any, all, or 1 to 1`},
		{"threshold above", "witness w " + w0 + "\ngroup g 2 w\n", `policy line 2: group threshold "2": want any, all, or 1 to 1`},
		{"threshold a word", "witness w " + w0 + "\ngroup g most w\n", `policy line 2: group threshold "most": want`},
		{"group name taken", "witness w " + w0 + "\ngroup w any w\n", `policy line 2: name "w" is already taken`},
		{"quorum of a stranger", "quorum w\n", `policy line 1: quorum "w": want none, or a witness or group of an earlier line`},
		{"quorum twice", "quorum none\nquorum none\n", "policy line 2: a second quorum line"},
	} {
		t.Run(r.name, func(t *testing.T) {
			p, err := checkpoint.ParsePolicy([]byte(r.text))
			assert.ErrorContains(t, err, r.want)
			assert.Assert(t, p == nil)
		})
	}
	policy(t, "# comment\n\n \t# another\n\tlog  "+log+"\turl\nquorum none\n")
}

// One public key in 64 ends with a plus sign, the sign that parts the fields of a
// verifier key.
func TestKeysThatEndWithAPlusSignAreTold(t *testing.T) {
	ending := func(name string, n int) string {
		for seed := range 256 {
			if k := logKey(t, name, byte(seed)).VerifierKey(); strings.HasSuffix(k, "+") {
				if n--; n < 0 {
					return k
				}
			}
		}
		t.Fatal("no such key")
		return ""
	}
	one, other := ending("example.com/one", 0), ending("example.com/other", 1)
	_, err := checkpoint.ParsePolicy([]byte("log " + one + "\nlog " + other + "\nquorum none\n"))
	assert.NilError(t, err)
	again := ending("example.com/other", 0)
	_, err = checkpoint.ParsePolicy([]byte("log " + one + "\nlog " + again + "\nquorum none\n"))
	assert.Error(t, err, "policy line 2: key "+again+" is listed twice")
}

func TestWitnessNameFitsASignatureLine(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	for _, name := range []string{"", "a b", "a+b", "a\nb", "a\x01", "a\u2028b", "\xff"} {
		_, err := checkpoint.NewCosigner(name, key)
		assert.ErrorContains(t, err, "witness key", "%q", name)
	}
}

func TestTimeBeforeTheEpochIsNoCosignature(t *testing.T) {
	c := newCast(t)
	v, err := policy(t, c.policyText("quorum none\n")).Open(c.note)
	assert.NilError(t, err)
	_, err = policy(t, c.policyText("quorum w0\n")).Open(c.witnesses[0].Cosign(v, time.Unix(-1, 0)))
	assert.ErrorContains(t, err, "invalid signature")
}

// What a policy opens holds the body it was opened for, and needs the log's key.
func FuzzPolicyOpen(f *testing.F) {
	c := newCast(f)
	for _, rest := range []string{"quorum none\n", "quorum w0\n", "group g 2 w0 w1 w2\nquorum g\n"} {
		f.Add([]byte(c.policyText(rest)), c.note)
		f.Add([]byte(c.policyText(rest)), c.cosign(f, 0, 1))
	}
	want, _, _ := strings.Cut(string(c.note), "\n\n")
	ours := policy(f, string(checkpoint.NewPolicy(c.log.VerifierKey())))
	f.Fuzz(func(t *testing.T, text, msg []byte) {
		if v, err := ours.Open(msg); err == nil {
			// The only body this key has ever signed.
			assert.Equal(t, string(v.Body().Text()), want+"\n")
			assert.DeepEqual(t, v.Note(), msg)
		}
		p, err := checkpoint.ParsePolicy(text)
		if err != nil {
			assert.Assert(t, p == nil)
			return
		}
		assert.DeepEqual(t, p.Bytes(), text)
		assert.Assert(t, len(p.Origins()) > 0)
		if v, err := p.Open(msg); err == nil {
			assert.Assert(t, bytes.HasPrefix(msg, v.Body().Text()))
			assert.Assert(t, bytes.Contains(text, []byte(v.LogKey())))
		}
	})
}
