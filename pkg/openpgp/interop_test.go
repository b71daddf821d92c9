package openpgp

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"gotest.tools/v3/assert"
)

// inTime is when the keys that expire and are revoked were still good.
var inTime = created.Add(24 * time.Hour)

// gpgVerdict is what stock gpg makes of a signature, by its status lines alone:
// its exit status is 0 for revoked and expired keys too.
func gpgVerdict(t *testing.T, key, sig []byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{"k.gpg": key, "m.asc": sig, "m": message} {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	out, _, _ := gpg(t)(t.Context(), "gpgv", []string{
		"--status-fd", "1", "--keyring", filepath.Join(dir, "k.gpg"), filepath.Join(dir, "m.asc"), filepath.Join(dir, "m"),
	}, nil)
	var said []string
	for line := range strings.Lines(string(out)) {
		word, _, _ := strings.Cut(strings.TrimPrefix(line, "[GNUPG:] "), " ")
		if slices.Contains([]string{"GOODSIG", "BADSIG", "ERRSIG", "EXPKEYSIG", "REVKEYSIG", "EXPSIG"}, word) {
			said = append(said, word)
		}
	}
	if len(said) == 0 {
		return "no key"
	}
	return strings.Join(said, "+")
}

// gitVerdict has git verify-tag judge a tag that carries a signature of ours.
func gitVerdict(t *testing.T, key []byte, s Signer) string {
	t.Helper()
	dir := t.TempDir()
	home, err := gpgHome()
	assert.NilError(t, err)
	git := func(stdin []byte, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir, cmd.Stdin = dir, bytes.NewReader(stdin)
		cmd.Env = append(gpgEnv(home), "GIT_CONFIG_NOSYSTEM=1", "HOME="+dir,
			"GIT_AUTHOR_NAME=T", "GIT_AUTHOR_EMAIL=t@test.invalid", "GIT_COMMITTER_NAME=T", "GIT_COMMITTER_EMAIL=t@test.invalid")
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	must := func(stdin []byte, args ...string) string {
		out, err := git(stdin, args...)
		assert.NilError(t, err, out)
		return out
	}
	must(nil, "init", "-q")
	ring, program := filepath.Join(dir, "k.gpg"), filepath.Join(dir, "gpg.sh")
	assert.NilError(t, os.WriteFile(ring, key, 0o600))
	assert.NilError(t, os.WriteFile(program, []byte("#!/bin/sh\nexec gpg --no-default-keyring --keyring '"+ring+"' --trust-model always \"$@\"\n"), 0o700))
	tree := must(nil, "write-tree")
	commit := must(nil, "commit-tree", tree, "-m", "c")
	tag := fmt.Appendf(nil, "object %s\ntype commit\ntag v1\ntagger T <t@test.invalid> %d +0000\n\nv1\n", commit, now.Unix())
	tag = append(tag, Armor(sign(t, s, tag))...)
	must(nil, "update-ref", "refs/tags/v1", must(tag, "hash-object", "-t", "tag", "-w", "--stdin"))
	if _, err := git(nil, "-c", "gpg.program="+program, "verify-tag", "v1"); err != nil {
		return "refused"
	}
	return "good"
}

// ourVerdict is the word for what Verify says.
func ourVerdict(t *testing.T, key *Key, sig []byte) string {
	t.Helper()
	if bytes.HasPrefix(sig, []byte("-----")) {
		var err error
		if sig, err = Dearmor(sig); err != nil {
			return "unreadable"
		}
	}
	_, err := Verify(ring(t, key), key.Fingerprint(), message, sig, VerifyOptions{Now: now})
	switch {
	case err == nil:
		return "good"
	case errors.Is(err, ErrRevoked):
		return "revoked"
	case strings.Contains(err.Error(), "had expired"):
		return "expired"
	}
	return "refused"
}

// TestInteropTable is the promise of the package comment, both ways, over every
// kind of key; go test -v prints it.
func TestInteropTable(t *testing.T) {
	type row struct{ gpgToUs, usToUs, usToGPG, git string }
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "key\tgpg signs, we verify\twe sign, we verify\twe sign, gpg verifies\twe sign a tag, git verifies")
	print := func(name string, got, want row) {
		t.Helper()
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, got.gpgToUs, got.usToUs, got.usToGPG, got.git)
		assert.Check(t, got == want, "%s: found %+v, wanted %+v", name, got, want)
	}
	good := row{"good", "good", "GOODSIG", "good"}
	judge := func(key *Key, s Signer, gpgSigner Fingerprint) row {
		t.Helper()
		armored := Armor(sign(t, s, message))
		r := row{"-", ourVerdict(t, key, armored), gpgVerdict(t, key.Binary(), armored), gitVerdict(t, key.Binary(), s)}
		if gpgSigner != "" {
			out, stderr, err := gpg(t)(t.Context(), "gpg", []string{"--batch", "--no-tty", "--armor", "--local-user", string(gpgSigner), "--detach-sign"}, message)
			assert.NilError(t, err, "%s", stderr)
			r.gpgToUs = ourVerdict(t, key, out)
		}
		return r
	}

	for _, c := range []struct{ name, file string }{
		{"ed25519", "ed25519"}, {"rsa3072", "rsa3072"}, {"rsa4096 with passphrase", "rsa4096"}, {"nistp256", "nistp256"}, {"ed25519 with signing subkey", "offline"},
	} {
		key := public(t, c.file)
		print(c.name, judge(key, signer(t, c.file, now), key.Fingerprint()), good)
	}
	stub := judge(public(t, "offline"), signer(t, "stub", now), "")
	want := good
	want.gpgToUs = "-"
	print("the same, subkey stub", stub, want)

	made, err := GenerateSplit("Made Here", "made@test.invalid", 365*24*time.Hour, []byte(passphrase), inTime, rand.Reader)
	assert.NilError(t, err)
	// Its subkey has expired by now, so it is made anew, as a rotation does.
	made, err = AddSigningSubkey(made.Secret, []byte(passphrase), 365*24*time.Hour, now.Add(-time.Hour), rand.Reader)
	assert.NilError(t, err)
	_, stderr, err := gpg(t)(t.Context(), "gpg", []string{"--batch", "--no-tty", "--import"}, made.Signing)
	assert.NilError(t, err, "%s", stderr)
	s, err := FromArmored(made.Signing, []byte(passphrase), clock(now))
	assert.NilError(t, err)
	print("made here, rotated subkey stub with passphrase", judge(made.Public, s, made.Public.Fingerprint()), good)

	// A key that expired: what it signed in time stands, what it signs later does
	// not. gpg says the same of both.
	expiring := public(t, "expired")
	timely, stderr, err := gpgAt(t, inTime)(t.Context(), "gpg", []string{"--batch", "--no-tty", "--armor", "--local-user", string(expiring.Fingerprint()), "--detach-sign"}, message)
	assert.NilError(t, err, "%s", stderr)
	ours := Armor(sign(t, signer(t, "expired", inTime), message))
	print("expired, signed in time", row{ourVerdict(t, expiring, timely), ourVerdict(t, expiring, ours), gpgVerdict(t, expiring.Binary(), ours), gitVerdict(t, expiring.Binary(), signer(t, "expired", inTime))},
		row{"good", "good", "EXPKEYSIG", "refused"})
	late := Armor(forge(t, "expired", now))
	print("expired, signed after", row{"-", ourVerdict(t, expiring, late), gpgVerdict(t, expiring.Binary(), late), "-"}, row{"-", "expired", "EXPKEYSIG", "-"})

	for i, reason := range []Reason{Compromised, Superseded, Retired} {
		whole, err := GenerateSplit("Revoked", "", 0, nil, created, rand.Reader)
		assert.NilError(t, err)
		s, err := FromArmored(whole.Secret, nil, clock(inTime))
		assert.NilError(t, err)
		sig := Armor(sign(t, s, message))
		certificate, err := Revoke(whole.Secret, nil, reason, "in a test", revoked)
		assert.NilError(t, err)
		after, err := whole.Public.WithRevocation(certificate)
		assert.NilError(t, err)
		assert.DeepEqual(t, after.Revocations(), []Revocation{{At: revoked, Reason: reason}})
		print(fmt.Sprintf("revoked, reason %d (%s)", i+1, reason),
			row{"-", ourVerdict(t, after, sig), gpgVerdict(t, after.Binary(), sig), gitVerdict(t, after.Binary(), s)},
			row{"-", "revoked", "REVKEYSIG", "refused"})
		print("  its copy from before", row{"-", ourVerdict(t, whole.Public, sig), gpgVerdict(t, whole.Public.Binary(), sig), gitVerdict(t, whole.Public.Binary(), s)},
			row{"-", "good", "GOODSIG", "good"})
	}

	a, b := signer(t, "ed25519", now), signer(t, "nistp256", now)
	two := Armor(slices.Concat(sign(t, b, message), sign(t, a, message)))
	both := slices.Concat(a.Public().Binary(), b.Public().Binary())
	print("two signatures in a file", row{"-", ourVerdict(t, a.Public(), two), gpgVerdict(t, both, two), "-"}, row{"-", "refused", "GOODSIG+GOODSIG", "-"})

	for _, c := range []struct {
		name, words string
		key         []byte
	}{
		{"version 6", "key version 6, wanted 4, which GnuPG 2.2 reads too", modern(t, packet.PubKeyAlgoEd25519, true)},
		{"algorithm 27", "public key algorithm 27, wanted RSA (1), ECDSA (19) or EdDSA (22), which GnuPG 2.2 reads too", modern(t, packet.PubKeyAlgoEd25519, false)},
	} {
		_, err := ParsePublic(c.key)
		assert.ErrorContains(t, err, c.words)
		print(c.name, row{"-", "key refused", gpgVerdict(t, c.key, ours), "-"}, row{"-", "key refused", "ERRSIG", "-"})
	}
	assert.NilError(t, w.Flush())
	t.Logf("\n%s", table.String())
}

// GnuPG 2.2 fails without the CRC-24 line whenever the length is a multiple of
// three.
func TestArmorHasAChecksumWhateverTheLength(t *testing.T) {
	lengths := map[int]bool{}
	for n := 1; n < 100; n++ {
		text := string(Armor(bytes.Repeat([]byte{0xc2}, n)))
		lines := strings.Split(strings.TrimSpace(text), "\n")
		sum := lines[len(lines)-2]
		assert.Assert(t, len(sum) == 5 && sum[0] == '=', "%d bytes: %q", n, sum)
		lengths[n%3] = true
	}
	// A notation brings the signature to such a length.
	key, sig := public(t, "rsa3072"), []byte{0}
	for n := 1; len(sig)%3 != 0; n++ {
		sig = forge(t, "rsa3072", now, func(s *packet.Signature) {
			s.Notations = []*packet.Notation{{Name: "n@test.invalid", Value: bytes.Repeat([]byte{'x'}, n), IsHumanReadable: true}}
		})
	}
	assert.Equal(t, gpgVerdict(t, key.Binary(), Armor(sig)), "GOODSIG")
}

func TestASplitKeySignsWithItsSubkeyAlone(t *testing.T) {
	for _, pass := range []string{"", passphrase} {
		k, err := GenerateSplit("Alice", "alice@test.invalid", 365*24*time.Hour, []byte(pass), now, rand.Reader)
		assert.NilError(t, err)
		parts := k.Public.Parts(now)
		assert.DeepEqual(t, parts, []Part{
			{Fingerprint: k.Public.Fingerprint(), Primary: true, Algorithm: "ed25519", Can: []string{"certify"}, Created: now, CannotSign: "key " + string(k.Public.Fingerprint()) + " is not flagged for signing"},
			{Fingerprint: k.Subkey, Algorithm: "ed25519", Can: []string{"sign"}, Created: now, Expires: now.Add(365 * 24 * time.Hour)},
		})
		assert.Equal(t, strings.Contains(k.Public.Parts(now.Add(366 * 24 * time.Hour))[1].CannotSign, "expired at"), true)
		s, err := FromArmored(k.Signing, []byte(pass), clock(now))
		assert.NilError(t, err)
		assert.DeepEqual(t, s.Public().Binary(), k.Public.Binary())
		v, err := Verify(ring(t, k.Public), k.Public.Fingerprint(), message, sign(t, s, message), VerifyOptions{Now: now})
		assert.NilError(t, err)
		assert.Equal(t, v.SigningKey, k.Subkey)
		if pass != "" {
			for _, file := range [][]byte{k.Secret, k.Signing} {
				_, err = FromArmored(file, nil, clock(now))
				assert.Assert(t, errors.Is(err, ErrNoPassphrase), "%v", err)
				_, err = FromArmored(file, []byte("wrong"), clock(now))
				assert.Assert(t, errors.Is(err, ErrPassphrase), "%v", err)
			}
		}
		// The stub can neither make subkeys nor revoke.
		_, err = AddSigningSubkey(k.Signing, []byte(pass), 0, now, rand.Reader)
		assert.ErrorContains(t, err, "is not in the file: it is kept offline")
		_, err = Revoke(k.Signing, []byte(pass), Retired, "", now)
		assert.ErrorContains(t, err, "is not in the file: it is kept offline")
	}
}

func TestANewSubkeyKeepsWhatTheOldOneSigned(t *testing.T) {
	first, err := GenerateSplit("Alice", "", 30*24*time.Hour, nil, created, rand.Reader)
	assert.NilError(t, err)
	old, err := FromArmored(first.Signing, nil, clock(inTime))
	assert.NilError(t, err)
	sig := sign(t, old, message)
	second, err := AddSigningSubkey(first.Secret, nil, 30*24*time.Hour, now, rand.Reader)
	assert.NilError(t, err)
	assert.Equal(t, second.Public.Fingerprint(), first.Public.Fingerprint())
	assert.Assert(t, second.Subkey != first.Subkey)
	assert.Equal(t, ourVerdict(t, second.Public, sig), "good")
	s, err := FromArmored(second.Signing, nil, clock(now))
	assert.NilError(t, err)
	assert.Equal(t, ourVerdict(t, second.Public, sign(t, s, message)), "good")
	assert.Equal(t, ourVerdict(t, first.Public, sign(t, s, message)), "refused")

	for _, lasts := range []time.Duration{-time.Second, time.Millisecond, 200 * 365 * 24 * time.Hour} {
		_, err = AddSigningSubkey(first.Secret, nil, lasts, now, rand.Reader)
		assert.ErrorContains(t, err, "a subkey cannot last")
	}
}

func TestOnlyARevocationOfThisKeyIsTakenIntoIt(t *testing.T) {
	a, err := GenerateSplit("Alice", "", 0, nil, created, rand.Reader)
	assert.NilError(t, err)
	b, err := GenerateSplit("Bob", "", 0, nil, created, rand.Reader)
	assert.NilError(t, err)
	of := func(k *SplitKey) []byte {
		c, err := Revoke(k.Secret, nil, Retired, "", now)
		assert.NilError(t, err)
		return c
	}
	s, err := FromArmored(a.Signing, nil, clock(now))
	assert.NilError(t, err)
	for _, c := range []struct {
		certificate []byte
		want        string
	}{
		{of(b), "holds a revocation that its primary key did not make"},
		{nil, "is empty"},
		{[]byte("hello"), "does not start with a -----BEGIN"},
		{a.Public.Armored(), "wanted one signature of type 0x20"},
		{a.Secret, "found a PGP PRIVATE KEY BLOCK"},
		{Armor(sign(t, s, message)), "wanted one signature of type 0x20"},
	} {
		_, err := a.Public.WithRevocation(c.certificate)
		assert.ErrorContains(t, err, c.want)
	}
	assert.Assert(t, !a.Public.Revoked())
	_, err = Revoke(a.Secret, nil, Unstated, "", now)
	assert.ErrorContains(t, err, `reason "unstated", wanted compromised, superseded or retired`)
	_, err = ParseReason("bored")
	assert.ErrorContains(t, err, `reason "bored", wanted compromised, superseded or retired`)
	r, err := ParseReason("retired")
	assert.NilError(t, err)
	assert.Equal(t, r, Retired)
}

func TestAlgorithmsAreNamedAsGPGNamesThem(t *testing.T) {
	for file, want := range map[string]string{"ed25519": "ed25519", "rsa3072": "rsa3072", "rsa4096": "rsa4096", "nistp256": "nistp256", "nistp384": "nistp384"} {
		assert.Equal(t, public(t, file).Parts(now)[0].Algorithm, want)
	}
	assert.DeepEqual(t, public(t, "offline").Parts(now)[2].Can, []string{"encrypt"})
}

// Whatever is taken for a revocation revokes this very key.
func FuzzWithRevocation(f *testing.F) {
	k, err := GenerateSplit("Alice", "", 0, nil, created, rand.Reader)
	assert.NilError(f, err)
	certificate, err := Revoke(k.Secret, nil, Compromised, "text", now)
	assert.NilError(f, err)
	_, packet, err := dearmor(certificate)
	assert.NilError(f, err)
	f.Add(certificate)
	f.Add(packet)
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := k.Public.WithRevocation(data)
		if err != nil {
			return
		}
		assert.Assert(t, key.Revoked())
		assert.Equal(t, key.Fingerprint(), k.Public.Fingerprint())
		assert.Assert(t, !k.Public.Revoked())
	})
}
