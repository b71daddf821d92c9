package proof_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/proof"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

const origin = "github.com/vaultmesh/example"

var now = time.Date(2025, 10, 22, 18, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

var signers = map[string]func() (openpgp.Signer, error){
	"issuer":   sync.OnceValues(func() (openpgp.Signer, error) { return load("issuer") }),
	"endorser": sync.OnceValues(func() (openpgp.Signer, error) { return load("endorser") }),
	"stranger": sync.OnceValues(func() (openpgp.Signer, error) {
		secret, _, err := openpgp.Generate("Mallory", "", now.AddDate(-1, 0, 0), rand.Reader)
		if err != nil {
			return nil, err
		}
		return openpgp.FromArmored(secret, nil, clock)
	}),
}

func load(name string) (openpgp.Signer, error) {
	secret, err := os.ReadFile("../receipt/testdata/" + name + ".sec.asc")
	if err != nil {
		return nil, err
	}
	return openpgp.FromArmored(secret, nil, clock)
}

func signer(t testing.TB, name string) openpgp.Signer {
	t.Helper()
	s, err := signers[name]()
	assert.NilError(t, err)
	return s
}

func ring(t testing.TB, names ...string) *openpgp.Keyring {
	t.Helper()
	var keys []*openpgp.Key
	for _, n := range names {
		keys = append(keys, signer(t, n).Public())
	}
	r, err := openpgp.NewKeyring(keys...)
	assert.NilError(t, err)
	return r
}

// logKey derives the signing key of a log from one byte.
func logKey(t testing.TB, seed byte) *checkpoint.Signer {
	t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	pub := append([]byte{1}, key.Public().(ed25519.PublicKey)...)
	hash := sha256.Sum256(append([]byte(origin+"\n"), pub...))
	s, err := checkpoint.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%x+%s", origin, hash[:4],
		base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...))))
	assert.NilError(t, err)
	return s
}

// log is a log of five entries and all that a bundle is made of.
type log struct {
	lines  [][]byte
	hashes []tlog.Hash // stored hashes
	body   checkpoint.Body
	note   []byte
}

func (l *log) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = l.hashes[x]
	}
	return out, nil
}

func (l *log) prove(t testing.TB, index int64) []checkpoint.Hash {
	t.Helper()
	p, err := tlog.ProveRecord(l.body.Size, index, l)
	assert.NilError(t, err)
	return p
}

func newLog(t testing.TB, lines ...[]byte) *log {
	t.Helper()
	l := &log{lines: lines}
	for i, line := range lines {
		more, err := tlog.StoredHashes(int64(i), line, l)
		assert.NilError(t, err)
		l.hashes = append(l.hashes, more...)
	}
	root, err := tlog.TreeHash(int64(len(lines)), l)
	assert.NilError(t, err)
	l.body = checkpoint.Body{Origin: origin, Size: int64(len(lines)), Root: root}
	l.note, err = logKey(t, 1).Sign(l.body)
	assert.NilError(t, err)
	return l
}

func line(t testing.TB, n int, issuer string, by ...string) []byte {
	t.Helper()
	r, err := receipt.New(receipt.Statement{
		Kind: receipt.Deploy, Issuer: signer(t, issuer).Fingerprint(), Name: fmt.Sprintf("app-v%d", n), Issued: now,
		Subjects: []receipt.Subject{{Name: "app", SHA256: strings.Repeat("ab", 32)}},
	})
	assert.NilError(t, err)
	var sigs []receipt.Signature
	for _, name := range by {
		s, err := receipt.Sign(context.Background(), r, signer(t, name))
		assert.NilError(t, err)
		sigs = append(sigs, s)
	}
	e, err := receipt.NewEntry(r, sigs...)
	assert.NilError(t, err)
	return e.Line()
}

// lines are the entries of the log: 2 is the one to prove, 3 is endorsed only.
func lines(t testing.TB) [][]byte {
	return [][]byte{
		line(t, 0, "issuer", "issuer"), line(t, 1, "issuer", "issuer"), line(t, 2, "issuer", "issuer", "endorser"),
		line(t, 3, "issuer", "endorser"), line(t, 4, "stranger", "stranger"),
	}
}

func policy(t testing.TB) []byte { return checkpoint.NewPolicy(logKey(t, 1).VerifierKey()) }

func witnessed(t testing.TB) (policy []byte, w *checkpoint.Cosigner) {
	t.Helper()
	w, err := checkpoint.NewCosigner("witness.example", ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
	assert.NilError(t, err)
	return []byte("log " + logKey(t, 1).VerifierKey() + "\nwitness w " + w.VerifierKey() + "\nquorum w\n"), w
}

// bundle proves entry 2 of the log.
func bundle(t testing.TB) []byte {
	t.Helper()
	l := newLog(t, lines(t)...)
	return proof.Marshal(l.lines[2], signer(t, "issuer").Public(), 2, l.prove(t, 2), l.note)
}

// frozen is a bundle whose entries are all signed with fixed keys, so that its
// bytes never change.
func frozen(t testing.TB) []byte {
	t.Helper()
	l := newLog(t, line(t, 0, "issuer", "issuer"), line(t, 1, "issuer", "issuer"), line(t, 2, "issuer", "issuer"))
	return proof.Marshal(l.lines[1], signer(t, "issuer").Public(), 1, l.prove(t, 1), l.note)
}

func TestABundleVerifies(t *testing.T) {
	l := newLog(t, lines(t)...)
	issuer := signer(t, "issuer").Fingerprint()
	for name, opts := range map[string]proof.Options{
		"without anchors": {Now: now},
		"with anchors":    {Now: now, Issuers: ring(t, "endorser", "issuer")},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := proof.Verify(bundle(t), policy(t), opts)
			assert.NilError(t, err)
			assert.DeepEqual(t, v.Findings, []proof.Finding{
				{Name: "checkpoint", Detail: fmt.Sprintf("log %s, size 5, root %x", origin, l.body.Root[:]), OK: true},
				{Name: "inclusion", Detail: "entry 2 of 5 leads to the root", OK: true},
				{Name: "issuer", Detail: "signed by " + string(issuer), OK: true},
			})
			assert.Assert(t, v.Pass())
			assert.Equal(t, v.Receipt.Name(), "app-v2")
			assert.Equal(t, v.Index, int64(2))
			assert.Equal(t, v.Checkpoint.Body(), l.body)
		})
	}
	p, w := witnessed(t)
	parsed, err := checkpoint.ParsePolicy(policy(t))
	assert.NilError(t, err)
	cp, err := parsed.Open(l.note)
	assert.NilError(t, err)
	cosigned := proof.Marshal(l.lines[2], signer(t, "issuer").Public(), 2, l.prove(t, 2), w.Cosign(cp, now))
	v, err := proof.Verify(cosigned, p, proof.Options{Now: now})
	assert.NilError(t, err)
	assert.Assert(t, v.Pass())
}

// The frozen bundle is the one that examples/verify shows.
func TestBundlesAreFrozen(t *testing.T) {
	golden.AssertBytes(t, frozen(t), "../../../examples/verify/example.tlog-proof")
	golden.AssertBytes(t, policy(t), "../../../examples/verify/policy")
}

func TestEachBrokenLinkIsFound(t *testing.T) {
	l := newLog(t, lines(t)...)
	issuer := signer(t, "issuer").Public()
	root := func(b checkpoint.Body) string { return fmt.Sprintf("%x", b.Root[:]) }
	otherBody := l.body
	otherBody.Root[0] ^= 1
	otherNote, err := logKey(t, 1).Sign(otherBody)
	assert.NilError(t, err)
	smallBody := checkpoint.Body{Origin: origin, Size: 2, Root: l.body.Root}
	smallNote, err := logKey(t, 1).Sign(smallBody)
	assert.NilError(t, err)
	foreignNote, err := logKey(t, 9).Sign(l.body)
	assert.NilError(t, err)
	quorum, _ := witnessed(t)
	// One signature of another receipt in place of the issuer's.
	e, err := receipt.ParseLine(l.lines[2])
	assert.NilError(t, err)
	other, err := receipt.ParseLine(l.lines[0])
	assert.NilError(t, err)
	borrowed := newLog(t, l.lines[0], l.lines[1], receipt.Entry{Receipt: e.Receipt, Signatures: other.Signatures}.Line())

	okCheckpoint := proof.Finding{Name: "checkpoint", Detail: "log " + origin + ", size 5, root " + root(l.body), OK: true}
	okInclusion := func(i int) proof.Finding {
		return proof.Finding{Name: "inclusion", Detail: fmt.Sprintf("entry %d of 5 leads to the root", i), OK: true}
	}
	noInclusion := func(i int, b checkpoint.Body) proof.Finding {
		return proof.Finding{Name: "inclusion", Detail: fmt.Sprintf("proof: entry %d does not lead to root %s of size %d", i, root(b), b.Size)}
	}
	okIssuer := proof.Finding{Name: "issuer", Detail: "signed by " + string(issuer.Fingerprint()), OK: true}
	for _, c := range []struct {
		name   string
		bundle []byte
		policy []byte
		opts   proof.Options
		want   []proof.Finding
	}{
		{"another log key", proof.Marshal(l.lines[2], issuer, 2, l.prove(t, 2), foreignNote), policy(t), proof.Options{Now: now}, []proof.Finding{
			{Name: "checkpoint", Detail: fmt.Sprintf("checkpoint: signed by %s, want a key of the policy (%s)", keyName(t, 9), origin)}, okIssuer,
		}},
		{"another policy", bundle(t), checkpoint.NewPolicy(logKey(t, 9).VerifierKey()), proof.Options{Now: now}, []proof.Finding{
			{Name: "checkpoint", Detail: fmt.Sprintf("checkpoint: signed by %s, want a key of the policy (%s)", keyName(t, 1), origin)}, okIssuer,
		}},
		{"no quorum of witnesses", bundle(t), quorum, proof.Options{Now: now}, []proof.Finding{
			{Name: "checkpoint", Detail: `checkpoint of size 5 lacks the policy's quorum "w": cosigned by 0 witnesses ()`}, okIssuer,
		}},
		{"another line of the log", proof.Marshal(l.lines[1], issuer, 2, l.prove(t, 2), l.note), policy(t), proof.Options{Now: now}, []proof.Finding{
			okCheckpoint, noInclusion(2, l.body), okIssuer,
		}},
		{"a line signed again", proof.Marshal(line(t, 2, "issuer", "issuer"), issuer, 2, l.prove(t, 2), l.note), policy(t), proof.Options{Now: now}, []proof.Finding{
			okCheckpoint, noInclusion(2, l.body), okIssuer,
		}},
		{"another index", proof.Marshal(l.lines[2], issuer, 3, l.prove(t, 2), l.note), policy(t), proof.Options{Now: now}, []proof.Finding{
			okCheckpoint, noInclusion(3, l.body), okIssuer,
		}},
		{"an index beyond the log", proof.Marshal(l.lines[2], issuer, 5, l.prove(t, 2), l.note), policy(t), proof.Options{Now: now}, []proof.Finding{
			okCheckpoint, {Name: "inclusion", Detail: "proof: index 5 is not below the checkpoint's size 5"}, okIssuer,
		}},
		{"another root", proof.Marshal(l.lines[2], issuer, 2, l.prove(t, 2), otherNote), policy(t), proof.Options{Now: now}, []proof.Finding{
			{Name: "checkpoint", Detail: "log " + origin + ", size 5, root " + root(otherBody), OK: true}, noInclusion(2, otherBody), okIssuer,
		}},
		{"another size", proof.Marshal(l.lines[2], issuer, 1, l.prove(t, 2), smallNote), policy(t), proof.Options{Now: now}, []proof.Finding{
			{Name: "checkpoint", Detail: "log " + origin + ", size 2, root " + root(smallBody), OK: true}, noInclusion(1, smallBody), okIssuer,
		}},
		{"a hash too few", proof.Marshal(l.lines[2], issuer, 2, l.prove(t, 2)[1:], l.note), policy(t), proof.Options{Now: now}, []proof.Finding{
			okCheckpoint, noInclusion(2, l.body), okIssuer,
		}},
		{"a hash too many", proof.Marshal(l.lines[2], issuer, 2, append(l.prove(t, 2), l.body.Root), l.note), policy(t), proof.Options{Now: now}, []proof.Finding{
			okCheckpoint, noInclusion(2, l.body), okIssuer,
		}},
		{"the key of another", proof.Marshal(l.lines[2], signer(t, "endorser").Public(), 2, l.prove(t, 2), l.note), policy(t), proof.Options{Now: now}, []proof.Finding{
			okCheckpoint, okInclusion(2),
			{Name: "issuer", Detail: fmt.Sprintf("the bundle carries key %s, the receipt names issuer %s", signer(t, "endorser").Fingerprint(), issuer.Fingerprint())},
		}},
		{"an issuer who is no anchor", bundle(t), policy(t), proof.Options{Now: now, Issuers: ring(t, "endorser")}, []proof.Finding{
			okCheckpoint, okInclusion(2), {Name: "issuer", Detail: fmt.Sprintf("issuer %s is not one of the given trust anchors", issuer.Fingerprint())},
		}},
		{"no anchors at all", bundle(t), policy(t), proof.Options{Now: now, Issuers: ring(t)}, []proof.Finding{
			okCheckpoint, okInclusion(2), {Name: "issuer", Detail: fmt.Sprintf("issuer %s is not one of the given trust anchors", issuer.Fingerprint())},
		}},
		{"endorsed, not issued", proof.Marshal(l.lines[3], issuer, 3, l.prove(t, 3), l.note), policy(t), proof.Options{Now: now}, []proof.Finding{
			okCheckpoint, okInclusion(3), {Name: "issuer", Detail: fmt.Sprintf("no signature of issuer %s on this line", issuer.Fingerprint())},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := proof.Verify(c.bundle, c.policy, c.opts)
			assert.NilError(t, err)
			assert.DeepEqual(t, v.Findings, c.want)
			assert.Assert(t, !v.Pass())
		})
	}
	for name, c := range map[string]struct {
		bundle []byte
		now    time.Time
	}{
		"a signature of another receipt": {proof.Marshal(borrowed.lines[2], issuer, 2, borrowed.prove(t, 2), borrowed.note), now},
		"a signature from the future":    {bundle(t), now.Add(-time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := proof.Verify(c.bundle, policy(t), proof.Options{Now: c.now})
			assert.NilError(t, err)
			assert.Assert(t, !v.Pass() && len(v.Findings) == 3)
			assert.Assert(t, v.Findings[0].OK && v.Findings[1].OK && !v.Findings[2].OK, "%v", v.Findings)
		})
	}
}

// keyName is how an error names a log key: origin+hash.
func keyName(t testing.TB, seed byte) string {
	t.Helper()
	return strings.Join(strings.SplitN(logKey(t, seed).VerifierKey(), "+", 3)[:2], "+")
}

func TestWhatCannotBeReadIsAnErrorAndNoVerdict(t *testing.T) {
	l := newLog(t, lines(t)...)
	extra := func(extra []byte) []byte {
		return checkpoint.Proof{Extra: extra, Index: 2, Hashes: l.prove(t, 2), Checkpoint: l.note}.Marshal()
	}
	armored := signer(t, "issuer").Public().Armored()
	at := func(line []byte, rest string) []byte { return append(append(bytes.Clone(line), '\n'), rest...) }
	secret, err := os.ReadFile("../receipt/testdata/issuer.sec.asc")
	assert.NilError(t, err)
	for _, c := range []struct {
		name           string
		bundle, policy []byte
		err            string
	}{
		{"nothing", nil, policy(t), "proof: want a proof, an empty line, and a checkpoint"},
		{"half of it", bundle(t)[:len(bundle(t))/2], policy(t), "proof: "},
		{"no policy", bundle(t), nil, "policy has no quorum line"},
		{"a policy that is none", bundle(t), []byte("trust all\n"), "policy line 1"},
		{"no extra data", extra(nil), policy(t), "proof: extra data hold no log line and issuer key"},
		{"no key", extra(l.lines[2]), policy(t), "proof: extra data hold no log line and issuer key"},
		{"an empty key", extra(at(l.lines[2], "")), policy(t), "proof: issuer key: "},
		{"a key that is none", extra(at(l.lines[2], "a key")), policy(t), "proof: issuer key: "},
		{"a secret key", extra(at(l.lines[2], string(secret))), policy(t), "proof: issuer key: "},
		{"a key with a comment", extra(at(l.lines[2], string(bytes.Replace(armored, []byte("\n\n"), []byte("\nComment: x\n\n"), 1)))), policy(t), "proof: issuer key does not encode back to itself"},
		{"a key with a line more", extra(at(l.lines[2], string(armored)+"\n")), policy(t), "proof: issuer key"},
		{"a line that is none", extra(at([]byte("hello"), string(armored))), policy(t), "proof: log line is not a DSSE envelope"},
		{"a line that is not canonical", extra(at(bytes.Replace(l.lines[2], []byte(":"), []byte(": "), 1), string(armored))), policy(t), "proof: log line does not encode back to itself"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := proof.Verify(c.bundle, c.policy, proof.Options{Now: now})
			assert.ErrorContains(t, err, c.err)
			assert.Assert(t, v.Findings == nil && v.Receipt == nil && !v.Pass())
		})
	}
	assert.Assert(t, !proof.Verdict{}.Pass(), "a verdict without findings is no pass")
}

func TestNoFlippedBitPasses(t *testing.T) {
	good := frozen(t)
	for i := range good {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1 << (i % 8)
		v, err := proof.Verify(flipped, policy(t), proof.Options{Now: now})
		if err == nil && v.Pass() {
			t.Fatalf("bit %d of byte %d (%q) flipped, and it passes", i%8, i, good[i])
		}
	}
}

// Whatever passes says what the log says: nobody without its keys can make a
// bundle that passes and says something else.
func FuzzVerify(f *testing.F) {
	l := newLog(f, line(f, 0, "issuer", "issuer"), line(f, 1, "issuer", "issuer"), line(f, 2, "issuer", "issuer"))
	for i, line := range l.lines {
		f.Add(proof.Marshal(line, signer(f, "issuer").Public(), int64(i), l.prove(f, int64(i)), l.note))
	}
	p := policy(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := proof.Verify(data, p, proof.Options{Now: now})
		if err != nil {
			assert.Assert(t, v.Findings == nil && v.Receipt == nil && !v.Pass())
			return
		}
		// What can be judged is in the one form that Marshal writes.
		pr, err := checkpoint.ParseProof(data)
		assert.NilError(t, err)
		first, armored, _ := bytes.Cut(pr.Extra, []byte("\n"))
		key, err := openpgp.ParsePublic(armored)
		assert.NilError(t, err)
		assert.DeepEqual(t, proof.Marshal(first, key, pr.Index, pr.Hashes, pr.Checkpoint), data)
		if !v.Pass() {
			return
		}
		assert.Equal(t, v.Checkpoint.Body(), l.body)
		assert.DeepEqual(t, first, l.lines[v.Index])
	})
}
