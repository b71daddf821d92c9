package openpgp

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	v2 "github.com/ProtonMail/go-crypto/openpgp/v2"
	"gotest.tools/v3/assert"
)

const passphrase = "correct horse"

var (
	created = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)  // of all test keys
	expired = time.Date(2024, 1, 31, 0, 0, 0, 0, time.UTC) // of those that do
	revoked = time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC)
	now     = time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)
	message = []byte("DSSEv1 28 application/vnd.in-toto+json 2 {}")
)

func clock(t time.Time) func() time.Time { return func() time.Time { return t } }

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	assert.NilError(t, err)
	return data
}

// signer loads a secret test key whose clock stands at the given time.
func signer(t testing.TB, name string, at time.Time) Signer {
	t.Helper()
	s, err := FromArmored(read(t, name+".sec.asc"), []byte(passphrase), clock(at))
	assert.NilError(t, err, name)
	return s
}

// public parses the public half of a test key.
func public(t testing.TB, name string) *Key {
	t.Helper()
	key, _, err := parseKey(read(t, name+".sec.asc"), true)
	assert.NilError(t, err, name)
	key, err = ParsePublic(key.Armored())
	assert.NilError(t, err, name)
	return key
}

func ring(t testing.TB, keys ...*Key) *Keyring {
	t.Helper()
	r, err := NewKeyring(keys...)
	assert.NilError(t, err)
	return r
}

func sign(t testing.TB, s Signer, message []byte) []byte {
	t.Helper()
	sig, err := s.Sign(t.Context(), message)
	assert.NilError(t, err)
	return sig
}

func TestFingerprintsAreReadAsWrittenAndKeptUpperCase(t *testing.T) {
	want := Fingerprint("297BE5B308041DEFF3EFE4BD6E4082C6A410F340")
	for _, s := range []string{
		"297BE5B308041DEFF3EFE4BD6E4082C6A410F340",
		"297be5b308041deff3efe4bd6e4082c6a410f340",
		" 297B E5B3 0804 1DEF F3EF  E4BD 6E40 82C6 A410 F340\n",
		"0x297BE5B308041DEFF3EFE4BD6E4082C6A410F340",
	} {
		f, err := ParseFingerprint(s)
		assert.NilError(t, err)
		assert.Equal(t, f, want)
	}
	six, err := ParseFingerprint(strings.Repeat("ab", 32))
	assert.NilError(t, err)
	assert.Equal(t, six, Fingerprint(strings.Repeat("AB", 32)))
	for _, s := range []string{"", "6E4082C6A410F340", "A410F340", string(want) + "00", string(want[:39]), string(want[:39]) + "G", "0x"} {
		_, err := ParseFingerprint(s)
		assert.ErrorContains(t, err, "wanted 40 hexadecimal digits")
	}
}

func TestASignatureNamesPrimaryKeySigningKeyAndTime(t *testing.T) {
	for _, name := range []string{"ed25519", "rsa3072", "rsa4096", "nistp256", "nistp384", "offline", "stub", "history"} {
		s := signer(t, name, now.Add(500*time.Millisecond))
		key := public(t, name)
		assert.Equal(t, s.Fingerprint(), key.Fingerprint())
		want := Verified{Fingerprint: key.Fingerprint(), SigningKey: key.Fingerprint(), Created: now}
		if name == "offline" || name == "stub" {
			want.SigningKey = key.subkeys[0].fingerprint
		}
		v, err := Verify(ring(t, key, public(t, "certonly")), key.Fingerprint(), message, sign(t, s, message), VerifyOptions{Now: now})
		assert.NilError(t, err, name)
		assert.Equal(t, v, want)
	}
}

func TestAnEd25519SignatureHas109Bytes(t *testing.T) {
	s := signer(t, "ed25519", now)
	sig := sign(t, s, message)
	// A leading zero byte in either of two numbers shortens it.
	assert.Assert(t, len(sig) <= 109 && len(sig) > 100, "%d", len(sig))
	assert.DeepEqual(t, sig, sign(t, s, message)) // nothing random in it
}

func TestOnlyTheNamedIssuerCounts(t *testing.T) {
	a, b := signer(t, "ed25519", now), signer(t, "rsa3072", now)
	sig := sign(t, a, message)
	r := ring(t, a.Public(), b.Public())
	opts := VerifyOptions{Now: now}

	_, err := Verify(r, b.Fingerprint(), message, sig, opts)
	assert.ErrorContains(t, err, fmt.Sprintf("made by another key (%s)", a.Fingerprint()))
	_, err = Verify(ring(t, b.Public()), a.Fingerprint(), message, sig, opts)
	assert.ErrorIs(t, err, ErrUnknownIssuer)
	_, err = Verify(nil, a.Fingerprint(), message, sig, opts)
	assert.ErrorIs(t, err, ErrUnknownIssuer)
	_, err = Verify(r, "", message, sig, opts)
	assert.ErrorIs(t, err, ErrUnknownIssuer)

	off := public(t, "offline")
	_, err = Verify(ring(t, off), off.subkeys[0].fingerprint, message, sig, opts)
	assert.ErrorIs(t, err, ErrUnknownIssuer)
	assert.ErrorContains(t, err, fmt.Sprintf("is a subkey of %s", off.Fingerprint()))
}

func TestTamperedMessagesAreRefused(t *testing.T) {
	s := signer(t, "ed25519", now)
	sig := sign(t, s, message)
	for _, m := range [][]byte{nil, message[1:], append(bytes.Clone(message), '\n'), bytes.ToUpper(message)} {
		_, err := Verify(ring(t, s.Public()), s.Fingerprint(), m, sig, VerifyOptions{Now: now})
		assert.ErrorContains(t, err, "does not match the message")
	}
}

func TestTimesOfSignatureAndKeyMustAgree(t *testing.T) {
	verify := func(key *Key, sig []byte, at time.Time) error {
		_, err := Verify(ring(t, key), key.Fingerprint(), message, sig, VerifyOptions{Now: at})
		return err
	}
	s := signer(t, "ed25519", now)
	sig := sign(t, s, message)
	assert.NilError(t, verify(s.Public(), sig, now.Add(100*365*24*time.Hour)))
	assert.NilError(t, verify(s.Public(), sig, now.Add(-5*time.Minute)))
	assert.ErrorContains(t, verify(s.Public(), sig, now.Add(-5*time.Minute-time.Second)), "more than 5m0s after now")
	assert.ErrorContains(t, verify(s.Public(), sig, time.Time{}), "verification time is not set")

	// Made by hand, since a Signer refuses to make them.
	assert.ErrorContains(t, verify(s.Public(), forge(t, "ed25519", created.Add(-time.Second)), now), "before key "+string(s.Fingerprint())+" was created")
	for _, name := range []string{"expired", "subexpired"} {
		key := public(t, name)
		assert.NilError(t, verify(key, forge(t, name, expired.Add(-time.Second)), now))
		assert.ErrorContains(t, verify(key, forge(t, name, expired), now), "had expired at 2024-01-31T00:00:00Z")
		// The verdict does not depend on what was verified before it.
		assert.NilError(t, verify(key, forge(t, name, expired.Add(-time.Second)), now))
	}
	// The newest self-signature speaks, as in gpg: extended after all.
	assert.NilError(t, verify(public(t, "history"), forge(t, "history", expired.Add(time.Hour)), now))
}

// forge signs with the first key of a file that has a secret half and, in
// files with a subkey, with that; it asks no questions.
func forge(t testing.TB, name string, at time.Time, change ...func(*packet.Signature)) []byte {
	t.Helper()
	key, secrets, err := parseKey(read(t, name+".sec.asc"), true)
	assert.NilError(t, err)
	private := secrets[key.Fingerprint()]
	if len(key.subkeys) > 0 {
		private = secrets[key.subkeys[0].fingerprint]
	}
	return forgeWith(t, private, at, change...)
}

func forgeWith(t testing.TB, private *packet.PrivateKey, at time.Time, change ...func(*packet.Signature)) []byte {
	t.Helper()
	off := false
	config := &packet.Config{NonDeterministicSignaturesViaNotation: &off}
	sig := &packet.Signature{
		Version: 4, SigType: packet.SigTypeBinary, PubKeyAlgo: private.PubKeyAlgo,
		Hash: crypto.SHA256, CreationTime: at,
	}
	for _, c := range change {
		c(sig)
	}
	h, err := sig.PrepareSign(config)
	assert.NilError(t, err)
	h.Write(message)
	assert.NilError(t, sig.Sign(h, private, config))
	var b bytes.Buffer
	assert.NilError(t, sig.Serialize(&b))
	return b.Bytes()
}

func TestRevokedKeysVerifyNothing(t *testing.T) {
	before := revoked.Add(-time.Hour)
	for _, c := range []struct {
		name          string
		early, atTime bool // whether a signature before, and at, the revocation holds
	}{
		{"revoked-hard", false, false},
		{"revoked-soft", false, false},
		{"subrevoked-hard", false, false},
		{"subrevoked-soft", true, false},
	} {
		key := public(t, c.name)
		for at, want := range map[time.Time]bool{before: c.early, revoked: c.atTime, now: false} {
			sig := forge(t, c.name, at)
			_, err := Verify(ring(t, key), key.Fingerprint(), message, sig, VerifyOptions{Now: now})
			if want {
				assert.NilError(t, err, "%s at %s", c.name, at)
			} else {
				assert.ErrorIs(t, err, ErrRevoked, "%s at %s", c.name, at)
			}
			// The copy of the key from before the revocation does not know it.
			old := public(t, c.name+".before")
			assert.Equal(t, old.Fingerprint(), key.Fingerprint())
			assert.Assert(t, !old.Revoked())
			_, err = Verify(ring(t, old), old.Fingerprint(), message, sig, VerifyOptions{Now: now})
			assert.NilError(t, err)

			// ErrRevoked is never said about what is wrong anyway.
			_, err = Verify(ring(t, key), key.Fingerprint(), []byte("other"), sig, VerifyOptions{Now: now})
			assert.Assert(t, err != nil && !errors.Is(err, ErrRevoked))
		}
		assert.Equal(t, key.Revoked(), strings.HasPrefix(c.name, "revoked"))
	}
}

func TestKeysThatMayNotSignVerifyNothing(t *testing.T) {
	key := public(t, "certonly")
	_, err := Verify(ring(t, key), key.Fingerprint(), message, forge(t, "certonly", now), VerifyOptions{Now: now})
	assert.ErrorContains(t, err, "is not flagged for signing")

	// The primary key of a pair may certify only, whatever its subkey may.
	off, secrets, err := parseKey(read(t, "offline.sec.asc"), true)
	assert.NilError(t, err)
	_, err = Verify(ring(t, off), off.Fingerprint(), message, forgeWith(t, secrets[off.Fingerprint()], now), VerifyOptions{Now: now})
	assert.ErrorContains(t, err, "is not flagged for signing")
}

// adopt makes the thief's key claim the victim's signing subkey as its own.
func adopt(t *testing.T, cross func(binding *packet.Signature, victim *packet.PublicKey)) (thief *Key) {
	t.Helper()
	victim := public(t, "offline").subkeys[0].public
	off := false
	config := &packet.Config{NonDeterministicSignaturesViaNotation: &off}
	key, secrets, err := parseKey(read(t, "ed25519.sec.asc"), true)
	assert.NilError(t, err)
	private := secrets[key.Fingerprint()]
	binding := &packet.Signature{
		Version: 4, SigType: packet.SigTypeSubkeyBinding, PubKeyAlgo: private.PubKeyAlgo, Hash: crypto.SHA256,
		CreationTime: created, IssuerKeyId: &private.KeyId, FlagsValid: true, FlagSign: true,
	}
	cross(binding, victim)
	assert.NilError(t, binding.SignKey(victim, private, config))
	var b bytes.Buffer
	b.Write(key.Binary())
	assert.NilError(t, victim.Serialize(&b))
	assert.NilError(t, binding.Serialize(&b))
	thief, err = ParsePublic(b.Bytes())
	assert.NilError(t, err)
	return thief
}

func TestAnAdoptedSubkeyIsNotTheAdoptersOwn(t *testing.T) {
	sig := sign(t, signer(t, "offline", now), message)
	for name, cross := range map[string]func(*packet.Signature, *packet.PublicKey){
		"no cross-certification": func(*packet.Signature, *packet.PublicKey) {},
		"the victim's own": func(b *packet.Signature, _ *packet.PublicKey) {
			b.EmbeddedSignature = embedded(t, read(t, "offline.sec.asc"))
		},
	} {
		thief := adopt(t, cross)
		_, err := Verify(ring(t, thief), thief.Fingerprint(), message, sig, VerifyOptions{Now: now})
		assert.ErrorContains(t, err, "is not bound to its primary key", name)
	}
}

// embedded takes the cross-certification out of a key file's binding.
func embedded(t *testing.T, file []byte) *packet.Signature {
	t.Helper()
	packets, err := keyPackets(file)
	assert.NilError(t, err)
	for _, p := range packets {
		if p.tag != tagSignature {
			continue
		}
		parsed, err := packet.Read(bytes.NewReader(p.raw))
		assert.NilError(t, err)
		if sig := parsed.(*packet.Signature); sig.EmbeddedSignature != nil {
			return sig.EmbeddedSignature
		}
	}
	t.Fatal("no embedded signature")
	return nil
}

func TestSignaturesInAnyOtherFormAreRefused(t *testing.T) {
	s := signer(t, "ed25519", now)
	good := sign(t, s, message)
	other := sign(t, signer(t, "rsa3072", now), message)
	seven := uint32(7)
	name := "somebody"
	change := func(c func(*packet.Signature)) []byte { return forge(t, "ed25519", now, c) }
	// The body begins at 2: version, type, algorithm, digest.
	patch := func(at int, b byte) []byte {
		out := bytes.Clone(good)
		out[at] = b
		return out
	}
	// What gpg writes: the issuer's id, unsigned, in the second area.
	unhashed := func(sub ...byte) []byte {
		body := bytes.Clone(good[2:])
		end := 6 + int(body[4])<<8 + int(body[5])
		area := append([]byte{0, byte(len(sub))}, sub...)
		body = append(append(bytes.Clone(body[:end]), area...), body[end+2:]...)
		return append([]byte{0xc2, byte(len(body))}, body...)
	}
	id := s.Public().primary.public.Fingerprint[12:]
	issuer := append([]byte{9, subIssuerKeyID}, id...)
	wrong := append([]byte{9, subIssuerKeyID}, "deadbeef"...)
	critical := append([]byte{9, subIssuerKeyID | 0x80}, id...)

	r := ring(t, s.Public())
	for _, ok := range map[string][]byte{
		"ours":                     good,
		"with the issuer unhashed": unhashed(issuer...),
		"signer's user id":         change(func(p *packet.Signature) { p.SignerUserId = &name }),
		"uncritical notation":      change(func(p *packet.Signature) { p.Notations = []*packet.Notation{{Name: "a@b.c"}} }),
		"SHA-512":                  change(func(p *packet.Signature) { p.Hash = crypto.SHA512 }),
	} {
		_, err := Verify(r, s.Fingerprint(), message, ok, VerifyOptions{Now: now})
		assert.NilError(t, err)
	}

	for _, c := range []struct {
		name string
		sig  []byte
		want string
	}{
		{"nothing", nil, "cut short"},
		{"text", []byte("hello"), "not an OpenPGP packet"},
		{"armored", Armor(good), "is armored text, wanted the binary packet"},
		{"two packets", append(bytes.Clone(other), good...), "wanted exactly one packet"},
		{"two packets, good first", append(bytes.Clone(good), other...), "wanted exactly one packet"},
		{"the same twice", append(bytes.Clone(good), good...), "wanted exactly one packet"},
		{"trailing newline", append(bytes.Clone(good), '\n'), "1 bytes after the signature packet"},
		{"cut", good[:len(good)-1], "cut short"},
		{"a key", s.Public().Binary(), "packet type 6, wanted a signature (2)"},
		{"long length", append([]byte{0xc2, 255, 0, 0, 0, byte(len(good) - 2)}, good[2:]...), "not in its shortest form"},
		{"old long length", append([]byte{0x89, 0, byte(len(good) - 2)}, good[2:]...), "not in its shortest form"},
		{"indeterminate length", append([]byte{0x8b}, good[2:]...), "indeterminate length"},
		{"partial length", append([]byte{0xc2, 0xe0}, good[2:]...), "partial length"},
		{"version 3", patch(2, 3), "signature version 3, wanted 4"},
		{"version 6", patch(2, 6), "signature version 6, wanted 4"},
		{"text signature", change(func(p *packet.Signature) { p.SigType = packet.SigTypeText }), "signature type 0x01, wanted 0x00"},
		{"certification", change(func(p *packet.Signature) { p.SigType = packet.SigTypeGenericCert }), "signature type 0x10, wanted 0x00"},
		{"DSA", patch(4, 17), "public key algorithm 17"},
		{"algorithm 27", patch(4, 27), "public key algorithm 27"},
		{"SHA-1", change(func(p *packet.Signature) { p.Hash = crypto.SHA1 }), "digest SHA-1 is refused"},
		{"SHA-224", change(func(p *packet.Signature) { p.Hash = crypto.SHA224 }), "digest SHA-224 is refused"},
		{"MD5", patch(5, 1), "digest MD5 is refused"},
		{"expires", change(func(p *packet.Signature) { p.SigLifetimeSecs = &seven }), "signature expires"},
		{"critical notation", change(func(p *packet.Signature) { p.Notations = []*packet.Notation{{Name: "a@b.c", IsCritical: true}} }), "critical notation"},
		{"unhashed notation", unhashed(9, subNotation, 0, 0, 0, 0, 0, 0, 0, 0), "unhashed subpacket 20"},
		{"unhashed time", unhashed(5, subCreated, 0, 0, 0, 0), "unhashed subpacket 2"},
		{"unhashed critical issuer", unhashed(critical...), "unhashed subpacket 16"},
		{"unhashed issuer twice", unhashed(append(issuer, issuer...)...), "unhashed subpacket 16"},
		{"unhashed wrong issuer", unhashed(wrong...), "made by another key"},
		{"unhashed junk", unhashed(0), "cut short"},
	} {
		_, err := Verify(r, s.Fingerprint(), message, c.sig, VerifyOptions{Now: now})
		assert.ErrorContains(t, err, c.want, c.name)
	}

	// The library does not look at these bytes of a version 4 signature.
	tag := bytes.LastIndex(good, []byte{0, 0}) + 2 // after the empty second area
	_, err := Verify(r, s.Fingerprint(), message, patch(tag, good[tag]^1), VerifyOptions{Now: now})
	assert.ErrorContains(t, err, "leading digest bytes are wrong")
}

func TestUnknownCriticalSubpacketsAreRefused(t *testing.T) {
	s := signer(t, "ed25519", now)
	good := sign(t, s, message)
	// Insert a critical subpacket of an unassigned type into the hashed area.
	body := bytes.Clone(good[2:])
	n := int(body[4])<<8 + int(body[5])
	body = append(append(bytes.Clone(body[:6+n]), 2, 0x80|99, 0), body[6+n:]...)
	body[5] = byte(n + 3)
	sig := append([]byte{0xc2, byte(len(body))}, body...)
	_, err := Verify(ring(t, s.Public()), s.Fingerprint(), message, sig, VerifyOptions{Now: now})
	assert.ErrorContains(t, err, "unknown critical signature subpacket type 99")
}

func TestNoBitOfASignatureIsFree(t *testing.T) {
	for _, name := range []string{"ed25519", "rsa3072", "nistp256", "stub"} {
		s := signer(t, name, now)
		r := ring(t, s.Public())
		sig := sign(t, s, message)
		for i := range len(sig) * 8 {
			if i > 60*8 && i%9 != 0 {
				continue // in the long numbers, a different bit of each byte or so
			}
			flipped := bytes.Clone(sig)
			flipped[i/8] ^= 1 << (i % 8)
			_, err := Verify(r, s.Fingerprint(), message, flipped, VerifyOptions{Now: now})
			assert.Assert(t, err != nil, "%s: bit %d of byte %d", name, i%8, i/8)
		}
	}
}

func TestAKeyringIsFixedSortedAndSafeToShare(t *testing.T) {
	a, b := signer(t, "ed25519", now), signer(t, "offline", now)
	r := ring(t, a.Public(), b.Public())
	want := []Fingerprint{min(a.Fingerprint(), b.Fingerprint()), max(a.Fingerprint(), b.Fingerprint())}
	assert.DeepEqual(t, r.Fingerprints(), want)
	key, ok := r.Lookup(a.Fingerprint())
	assert.Assert(t, ok && key == a.Public())
	_, ok = r.Lookup(b.Public().subkeys[0].fingerprint)
	assert.Assert(t, !ok)
	_, err := NewKeyring(a.Public(), b.Public(), public(t, "ed25519"))
	assert.ErrorContains(t, err, fmt.Sprintf("key %s is given twice", a.Fingerprint()))

	var wg sync.WaitGroup
	for range 4 {
		for _, s := range []Signer{a, b} {
			wg.Go(func() {
				for i := range 20 {
					m := fmt.Append(nil, i)
					sig, err := s.Sign(t.Context(), m)
					if err == nil {
						_, err = Verify(r, s.Fingerprint(), m, sig, VerifyOptions{Now: now})
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
}

func TestAKeySaysWhatItsFileSays(t *testing.T) {
	key := public(t, "history")
	assert.DeepEqual(t, key.UserIDs(), []string{"TEST KEY history <history@test.invalid>"})
	assert.Equal(t, key.Expires().Year(), 2034)
	assert.Equal(t, key.Created(), created)
	assert.Equal(t, public(t, "expired").Expires(), expired)
	assert.Equal(t, public(t, "ed25519").Expires(), time.Time{})

	again, err := ParsePublic(key.Binary())
	assert.NilError(t, err)
	assert.DeepEqual(t, again.Armored(), key.Armored())
	assert.Assert(t, bytes.Contains(key.Armored(), []byte("\n=")), "no CRC-24 line")
	assert.Equal(t, printable("a\x1b[31m\nb\xff"), "a\uFFFD[31m\uFFFDb\uFFFD")
}

// certify makes self-signatures of the ed25519 test key, in the given order,
// and reads the key with these alone.
func certify(t *testing.T, kind packet.SignatureType, changes ...func(*packet.Signature)) (packets []byte) {
	t.Helper()
	key, secrets, err := parseKey(read(t, "ed25519.sec.asc"), true)
	assert.NilError(t, err)
	private := secrets[key.Fingerprint()]
	off := false
	config := &packet.Config{NonDeterministicSignaturesViaNotation: &off}
	var b bytes.Buffer
	for _, change := range changes {
		sig := &packet.Signature{
			Version: 4, SigType: kind, PubKeyAlgo: private.PubKeyAlgo, Hash: crypto.SHA256,
			CreationTime: created, IssuerKeyId: &private.KeyId, FlagsValid: true, FlagSign: true, FlagCertify: true,
		}
		change(sig)
		if kind == packet.SigTypeDirectSignature {
			assert.NilError(t, sig.SignDirectKeyBinding(&private.PublicKey, private, config))
		} else {
			assert.NilError(t, sig.SignUserId(key.userIDs[0], &private.PublicKey, private, config))
		}
		assert.NilError(t, sig.Serialize(&b))
	}
	return b.Bytes()
}

func TestTheNewestSelfSignatureSpeaksWhereverItStands(t *testing.T) {
	day, year := uint32(86400), uint32(365*86400)
	at := func(days int, life *uint32, flags bool) func(*packet.Signature) {
		return func(s *packet.Signature) {
			s.CreationTime = created.AddDate(0, 0, days)
			s.KeyLifetimeSecs = life
			s.FlagsValid = flags
		}
	}
	end := func(life uint32) time.Time { return created.Add(time.Duration(life) * time.Second) }
	never := time.Time{}
	packets := mustPackets(t, public(t, "ed25519").Binary())
	key, uid := packets[0].raw, packets[1].raw
	const cert, direct, revoke = packet.SigTypePositiveCert, packet.SigTypeDirectSignature, packet.SigTypeCertificationRevocation
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

	for _, c := range []struct {
		name string
		data []byte
		ends time.Time
		sign bool
	}{
		{"extended", join(key, uid, certify(t, cert, at(0, &day, true), at(1, &year, true))), end(year), true},
		{"extended, other order", join(key, uid, certify(t, cert, at(1, &year, true), at(0, &day, true))), end(year), true},
		{"shortened", join(key, uid, certify(t, cert, at(0, nil, true), at(1, &day, true))), end(day), true},
		{"shortened, other order", join(key, uid, certify(t, cert, at(1, &day, true), at(0, nil, true))), end(day), true},
		{"same second", join(key, uid, certify(t, cert, at(0, nil, true), at(0, &day, true))), end(day), true},
		{"same second, other order", join(key, uid, certify(t, cert, at(0, &day, true), at(0, nil, true))), end(day), true},
		{"no flags", join(key, uid, certify(t, cert, at(0, nil, false))), never, false},
		{"flags of a direct signature", join(key, certify(t, direct, at(0, &day, true)), uid, certify(t, cert, at(0, nil, false))), end(day), true},
		{"a direct signature shortens", join(key, certify(t, direct, at(0, &day, true)), uid, certify(t, cert, at(1, nil, true))), end(day), true},
		{"a direct signature does not extend", join(key, certify(t, direct, at(1, nil, true)), uid, certify(t, cert, at(0, &day, true))), end(day), true},
		{"a self-signature that lapses", join(key, uid, certify(t, cert, func(s *packet.Signature) { s.SigLifetimeSecs = &day })), end(day), true},
		{"a weak one is not the newest", join(key, uid, certify(t, cert, at(0, &day, true), func(s *packet.Signature) {
			s.CreationTime, s.Hash = created.AddDate(0, 0, 1), crypto.SHA1
		})), end(day), true},
		{"certified again after its revocation", join(key, uid, certify(t, revoke, at(1, nil, false)), certify(t, cert, at(2, &day, true))), end(day), true},
	} {
		got, err := ParsePublic(c.data)
		assert.NilError(t, err, c.name)
		assert.Equal(t, got.Expires(), c.ends, c.name)
		assert.Equal(t, got.primary.maySign() == nil, c.sign, c.name)
	}
	_, err := ParsePublic(join(key, uid, certify(t, revoke, at(1, nil, false)), certify(t, cert, at(1, nil, true))))
	assert.ErrorContains(t, err, "every user id is revoked")
}

func TestSubkeysNeedAStrongSignatureOfTheirOwn(t *testing.T) {
	key, secrets, err := parseKey(read(t, "offline.sec.asc"), true)
	assert.NilError(t, err)
	primary, sub := secrets[key.Fingerprint()], secrets[key.subkeys[0].fingerprint]
	sig := sign(t, signer(t, "offline", now), message)
	off := false
	config := &packet.Config{NonDeterministicSignaturesViaNotation: &off}
	bind := func(change func(binding, cross *packet.Signature)) *Key {
		cross := &packet.Signature{
			Version: 4, SigType: packet.SigTypePrimaryKeyBinding, PubKeyAlgo: sub.PubKeyAlgo, Hash: crypto.SHA256, CreationTime: created,
		}
		binding := &packet.Signature{
			Version: 4, SigType: packet.SigTypeSubkeyBinding, PubKeyAlgo: primary.PubKeyAlgo, Hash: crypto.SHA256, CreationTime: created,
			IssuerKeyId: &primary.KeyId, FlagsValid: true, FlagSign: true, EmbeddedSignature: cross,
		}
		change(binding, cross)
		assert.NilError(t, cross.CrossSignKey(&sub.PublicKey, &primary.PublicKey, sub, config))
		assert.NilError(t, binding.SignKey(&sub.PublicKey, primary, config))
		packets := mustPackets(t, key.Binary())
		var b bytes.Buffer
		for _, p := range packets[:4] { // primary key, user id, certification, subkey
			b.Write(p.raw)
		}
		assert.NilError(t, binding.Serialize(&b))
		out, err := ParsePublic(b.Bytes())
		assert.NilError(t, err)
		return out
	}
	day := uint32(86400)
	for _, c := range []struct {
		name   string
		change func(binding, cross *packet.Signature)
		want   string
	}{
		{"both strong", func(_, _ *packet.Signature) {}, ""},
		{"weak cross-certification", func(_, c *packet.Signature) { c.Hash = crypto.SHA1 }, "has a weak digest or a critical notation"},
		{"weak binding", func(b, _ *packet.Signature) { b.Hash = crypto.SHA1 }, "has a weak digest or a critical notation"},
		{"cross-certification lapses", func(_, c *packet.Signature) { c.SigLifetimeSecs = &day }, "had expired at 2024-01-02T00:00:00Z"},
		{"subkey expires", func(b, _ *packet.Signature) { b.KeyLifetimeSecs = &day }, "had expired at 2024-01-02T00:00:00Z"},
		{"not for signing", func(b, _ *packet.Signature) { b.FlagSign = false }, "is not flagged for signing"},
	} {
		_, err := Verify(ring(t, bind(c.change)), key.Fingerprint(), message, sig, VerifyOptions{Now: now})
		if c.want == "" {
			assert.NilError(t, err, c.name)
		} else {
			assert.ErrorContains(t, err, c.want, c.name)
		}
	}
}

func TestFilesThatAreNotOneGoodPublicKeyAreRefused(t *testing.T) {
	a, b := public(t, "ed25519"), public(t, "rsa3072")
	two := append(a.Binary(), b.Binary()...)
	secret := read(t, "ed25519.sec.asc")
	_, secretBinary, err := dearmor(secret)
	assert.NilError(t, err)
	packets, err := keyPackets(a.Binary())
	assert.NilError(t, err)
	key, uid, cert := packets[0], packets[1], packets[2]
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	otherCert := mustPackets(t, b.Binary())[2]
	revocation := mustPackets(t, public(t, "revoked-hard").Binary())[1]
	flipped := bytes.Clone(cert.raw)
	flipped[len(flipped)-1] ^= 1
	padded := bytes.Clone(key.raw)
	padded = append(padded, 0)
	padded[1]++

	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "key file is empty"},
		{"text", []byte("hello\n"), "does not start with a -----BEGIN"},
		{"secret", secret, "this is a SECRET key"},
		{"secret binary", secretBinary, "hint: gpg --armor --export " + string(a.Fingerprint())},
		{"secret stub", read(t, "stub.sec.asc"), "this is a SECRET key"},
		{"two keys", two, fmt.Sprintf("holds 2 keys (%s, %s), wanted one", a.Fingerprint(), b.Fingerprint())},
		{"two armored", append(a.Armored(), b.Armored()...), "wanted one block"},
		{"the same armored twice", append(a.Armored(), a.Armored()...), "wanted one block"},
		{"signature", Armor([]byte{0xc2, 0}), "holds a PGP SIGNATURE, wanted a key"},
		{"revocation certificate", revocation.raw, "this is a signature or revocation certificate"},
		{"only a user id", uid.raw, "does not start with a primary key"},
		{"signature first", join(cert.raw, key.raw, uid.raw), "this is a signature"},
		{"no user id", key.raw, "no user id: key servers strip them"},
		{"no self-signature", join(key.raw, uid.raw), "no valid self-signature"},
		{"another's certification", join(key.raw, uid.raw, otherCert.raw), "no valid self-signature"},
		{"broken self-signature", join(key.raw, uid.raw, flipped), "no valid self-signature"},
		{"self-signature in the wrong place", join(key.raw, cert.raw, uid.raw), "no valid self-signature"},
		{"another's revocation", join(key.raw, revocation.raw, uid.raw, cert.raw), "holds a revocation that its primary key did not make"},
		{"late revocation", join(a.Binary(), revocation.raw), "holds a revocation that its primary key did not make"},
		{"key packet with more in it", join(padded, uid.raw, cert.raw), "key packet is not in its only form"},
		{"cut", a.Binary()[:len(a.Binary())-1], "cut short"},
		{"message packet", join(a.Binary(), []byte{0xcb, 0}), "packet type 11 has no place in a key"},
		{"SHA-1", read(t, "sha1.pub.asc"), "self-signatures use a weak digest (SHA-1)"},
		{"DSA", read(t, "dsa2048.pub.asc"), "public key algorithm 17, wanted"},
		{"short RSA", read(t, "rsa1024.pub.asc"), "RSA key of 1024 bits, wanted at least 2048"},
		{"secp256k1", read(t, "secp256k1.pub.asc"), "curve SecP256k1, wanted"},
		{"algorithm 27", modern(t, packet.PubKeyAlgoEd25519, false), "public key algorithm 27, wanted"},
		{"version 6", modern(t, packet.PubKeyAlgoEd25519, true), "key version 6, wanted 4"},
	} {
		_, err := ParsePublic(c.data)
		assert.ErrorContains(t, err, c.want, c.name)
	}
	// Ignored by every program, so they do no harm.
	_, err = ParsePublic(join(a.Binary(), []byte{0xcc, 0}, []byte{0xfd, 1, 0}))
	assert.NilError(t, err)
}

func mustPackets(t *testing.T, data []byte) []rawPacket {
	t.Helper()
	packets, err := keyPackets(data)
	assert.NilError(t, err)
	return packets
}

// modern makes a public key that GnuPG 2.2 cannot read.
func modern(t *testing.T, algorithm packet.PublicKeyAlgorithm, six bool) []byte {
	t.Helper()
	e, err := v2.NewEntity("TEST KEY", "", "", &packet.Config{Algorithm: algorithm, V6Keys: six, Time: clock(created)})
	assert.NilError(t, err)
	var b bytes.Buffer
	assert.NilError(t, e.Serialize(&b))
	return b.Bytes()
}

func TestSecretKeysThatCannotSignSayWhy(t *testing.T) {
	file := func(name string) []byte { return read(t, name+".sec.asc") }
	_, a, err := dearmor(file("ed25519"))
	assert.NilError(t, err)
	_, b, err := dearmor(file("nistp256"))
	assert.NilError(t, err)
	for _, c := range []struct {
		name   string
		secret []byte
		pass   string
		at     time.Time
		want   string
	}{
		{"no passphrase", file("rsa4096"), "", now, "is protected by a passphrase, and none was given"},
		{"wrong passphrase", file("rsa4096"), "wrong", now, "wrong passphrase for key"},
		{"public", public(t, "ed25519").Armored(), "", now, "this is a public key"},
		{"several", append(bytes.Clone(a), b...), "", now, "key file holds 2 keys"},
		{"expired", file("expired"), "", expired, "expired at 2024-01-31T00:00:00Z\nhint: gpg --quick-set-expire"},
		{"subkey expired", file("subexpired"), "", expired, ": expired at 2024-01-31T00:00:00Z"},
		{"revoked", file("revoked-soft"), "", now, "key is revoked"},
		{"revoked before", file("revoked-hard"), "", created, "key is revoked"},
		{"subkey revoked", file("subrevoked-soft"), "", now, ": revoked"},
		{"certifies only", file("certonly"), "", now, "is not flagged for signing"},
		{"not yet created", file("ed25519"), "", created.Add(-time.Hour), "which is in the future"},
		{"junk", []byte("hello"), "", now, "does not start with a -----BEGIN"},
	} {
		_, err := FromArmored(c.secret, []byte(c.pass), clock(c.at))
		assert.ErrorContains(t, err, c.want, c.name)
	}

	// A stub of a primary key that signs is not enough.
	key, secrets, err := parseKey(file("stub"), true)
	assert.NilError(t, err)
	assert.Assert(t, secrets[key.Fingerprint()] == nil)
	assert.Assert(t, secrets[key.subkeys[0].fingerprint] != nil)
}

func TestASignerStopsWhenItsKeyExpires(t *testing.T) {
	at := expired.Add(-time.Second)
	s, err := FromArmored(read(t, "expired.sec.asc"), nil, func() time.Time { return at })
	assert.NilError(t, err)
	sign(t, s, message)
	at = expired
	_, err = s.Sign(t.Context(), message)
	assert.ErrorContains(t, err, "had expired at 2024-01-31T00:00:00Z")
}

func TestASignerNeverReturnsABadSignature(t *testing.T) {
	key, secrets, err := parseKey(read(t, "rsa3072.sec.asc"), true)
	assert.NilError(t, err)
	_, others, err := parseKey(read(t, "ed25519.sec.asc"), true)
	assert.NilError(t, err)
	for _, private := range others {
		private.PublicKey = secrets[key.Fingerprint()].PublicKey
		private.PubKeyAlgo = packet.PubKeyAlgoEdDSA
		s := &memorySigner{key: key, private: private, digest: crypto.SHA256, clock: clock(now)}
		_, err := s.Sign(t.Context(), message)
		assert.ErrorContains(t, err, "the new signature does not verify")
	}
}

func TestGeneratedKeysSignAndNeverExpire(t *testing.T) {
	secret, key, err := Generate("Alice Example", "alice@example.org", now.Add(time.Millisecond), rand.Reader)
	assert.NilError(t, err)
	assert.DeepEqual(t, key.UserIDs(), []string{"Alice Example <alice@example.org>"})
	assert.Equal(t, key.Created(), now)
	assert.Equal(t, key.Expires(), time.Time{})
	assert.Equal(t, len(key.subkeys), 0)
	s, err := FromArmored(secret, nil, clock(now))
	assert.NilError(t, err)
	assert.DeepEqual(t, s.Public().Binary(), key.Binary())
	sign(t, s, message)
	// A key just made elsewhere may come from a clock that is ahead.
	_, err = FromArmored(secret, nil, clock(now.Add(-time.Hour)))
	assert.ErrorContains(t, err, "in the future")

	_, key, err = GenerateEphemeral("gate run 7", now, rand.Reader)
	assert.NilError(t, err)
	assert.DeepEqual(t, key.UserIDs(), []string{"ephemeral gate run 7"})

	for _, c := range [][3]string{
		{"", "", "user id is empty"},
		{"a\nb", "", "without brackets and control characters"},
		{"Alice <x>", "", "without brackets and control characters"},
		{"Alice", "not an address", "is not an e-mail address"},
	} {
		_, _, err := Generate(c[0], c[1], now, rand.Reader)
		assert.ErrorContains(t, err, c[2])
	}
}

func TestArmorIsReadStrictly(t *testing.T) {
	sig := sign(t, signer(t, "ed25519", now), message)
	text := string(Armor(sig))
	body := strings.TrimSuffix(strings.TrimPrefix(text, "-----BEGIN PGP SIGNATURE-----\n\n"), "-----END PGP SIGNATURE-----\n")
	frame := func(inside string) string {
		return "-----BEGIN PGP SIGNATURE-----\n" + inside + "-----END PGP SIGNATURE-----\n"
	}
	sum := body[strings.LastIndex(body, "="):]
	noSum := strings.TrimSuffix(body, sum)
	for name, ok := range map[string]string{
		"ours":             text,
		"CRLF":             strings.ReplaceAll(text, "\n", "\r\n"),
		"headers":          frame("Comment: made by hand\nVersion: 1\n\n" + body),
		"no sum":           frame("\n" + noSum),
		"no last newline":  strings.TrimSuffix(text, "\n"),
		"white space last": text + "\n \r\n",
	} {
		got, err := Dearmor([]byte(ok))
		assert.NilError(t, err, name)
		assert.DeepEqual(t, got, sig)
	}
	for name, c := range map[string][2]string{
		"empty":         {"", "empty"},
		"binary":        {string(sig), "does not start with"},
		"leading text":  {"Hello\n" + text, "does not start with"},
		"trailing text": {text + "Hello\n", "does not stop with"},
		"two blocks":    {text + text, "wanted one block"},
		"public key":    {string(public(t, "ed25519").Armored()), "found a PGP PUBLIC KEY BLOCK, wanted a PGP SIGNATURE"},
		"clear text":    {"-----BEGIN PGP SIGNED MESSAGE-----\n\nx\n" + text, "does not stop with"},
		"no empty line": {frame(body), "no empty line between headers and data"},
		"no data":       {frame(""), "no data"},
		"empty data":    {frame("\n"), "no data"},
		"wrong sum":     {frame("\n" + noSum + "=AAAA\n"), "checksum does not match"},
		"short sum":     {frame("\n" + noSum + "=AAA\n"), "checksum does not match"},
		"bad letter":    {frame("\n!" + body), "illegal base64"},
		"blank between": {frame("\n" + noSum + "\n" + sum), "a data line is empty"},
		"other end":     {strings.Replace(text, "END PGP SIGNATURE", "END PGP MESSAGE", 1), "does not stop with"},
		"huge":          {strings.Repeat("x", maxArmored+1), "wanted at most"},
	} {
		_, err := Dearmor([]byte(c[0]))
		assert.ErrorContains(t, err, c[1], name)
	}
}

// FuzzArmor holds the law that what Armor writes, Dearmor reads, and that what
// Dearmor reads at all survives writing and reading.
func FuzzArmor(f *testing.F) {
	f.Add([]byte{0}, []byte("-----BEGIN PGP SIGNATURE-----\n\nAA==\n-----END PGP SIGNATURE-----"))
	f.Add(bytes.Repeat([]byte{0xff}, 48), Armor([]byte("abc")))
	f.Fuzz(func(t *testing.T, data, text []byte) {
		if len(data) > 0 {
			got, err := Dearmor(Armor(data))
			assert.NilError(t, err)
			assert.DeepEqual(t, got, data)
		}
		if got, err := Dearmor(text); err == nil {
			again, err := Dearmor(Armor(got))
			assert.NilError(t, err)
			assert.DeepEqual(t, again, got)
		} else {
			assert.Assert(t, got == nil)
		}
	})
}

// FuzzVerify holds the law that no bytes but the signature's own, over no
// message but the signed one, verify.
func FuzzVerify(f *testing.F) {
	s := signer(f, "ed25519", now)
	good := sign(f, s, message)
	r := ring(f, s.Public())
	f.Add(good, message)
	f.Add(good[:20], message)
	f.Add(append([]byte{0x88, byte(len(good) - 2)}, good[2:]...), message)
	f.Fuzz(func(t *testing.T, sig, m []byte) {
		v, err := Verify(r, s.Fingerprint(), m, sig, VerifyOptions{Now: now})
		if err != nil {
			assert.Equal(t, v, Verified{})
			return
		}
		assert.DeepEqual(t, m, message)
		p, _, err := nextPacket(sig)
		assert.NilError(t, err)
		if !bytes.Equal(p.body, good[2:]) {
			// The unhashed area may repeat the issuer; nothing else is free.
			parsed, err := parseSignature(sig)
			assert.NilError(t, err)
			assert.Equal(t, parsed.created, now)
			assert.Assert(t, bytes.HasSuffix(p.body, good[len(good)-68:]))
		}
	})
}

// FuzzParsePublic holds the law that what is read is written back so that it
// reads the same, and that no input makes trouble.
func FuzzParsePublic(f *testing.F) {
	for _, name := range []string{"ed25519", "offline", "revoked-soft", "subrevoked-hard", "history", "nistp256"} {
		f.Add(public(f, name).Binary())
	}
	f.Add(public(f, "ed25519").Armored())
	f.Add(read(f, "dsa2048.pub.asc"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := ParsePublic(data)
		if err != nil {
			assert.Assert(t, key == nil)
			_, _ = FromArmored(data, nil, clock(now))
			return
		}
		again, err := ParsePublic(key.Binary())
		assert.NilError(t, err)
		assert.DeepEqual(t, again.Binary(), key.Binary())
		assert.Equal(t, again.Fingerprint(), key.Fingerprint())
		assert.DeepEqual(t, again.UserIDs(), key.UserIDs())
		assert.Equal(t, again.Expires(), key.Expires())
		assert.Equal(t, again.Revoked(), key.Revoked())
		assert.Equal(t, len(again.subkeys), len(key.subkeys))
	})
}

func BenchmarkVerifyEd25519(b *testing.B) {
	s := signer(b, "ed25519", now)
	sig := sign(b, s, message)
	r := ring(b, s.Public())
	for b.Loop() {
		_, err := Verify(r, s.Fingerprint(), message, sig, VerifyOptions{Now: now})
		assert.NilError(b, err)
	}
}

func TestAKeyForDevelopmentSaysSoAndSoDoWhatItSigned(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		name, email string
		want        bool
	}{
		{"Acme (development)", "bot@example.org", true},
		{"Acme (development)", "", true},
		{"Acme development", "bot@example.org", false},
		{"Acme", "development@example.org", false},
	} {
		secret, key, err := Generate(c.name, c.email, now, rand.Reader)
		assert.NilError(t, err)
		assert.Equal(t, key.Development(), c.want, "%s", key.UserIDs())
		public, err := ParsePublic(key.Armored())
		assert.NilError(t, err)
		ring, err := NewKeyring(public)
		assert.NilError(t, err)
		signer, err := FromArmored(secret, nil, func() time.Time { return now })
		assert.NilError(t, err)
		sig, err := signer.Sign(t.Context(), []byte("words"))
		assert.NilError(t, err)
		v, err := Verify(ring, key.Fingerprint(), []byte("words"), sig, VerifyOptions{Now: now})
		assert.NilError(t, err)
		f := string(key.Fingerprint())
		if c.want {
			assert.Equal(t, v.String(), f+", a key for development, which proves nothing to others")
			assert.DeepEqual(t, ring.Development(), []Fingerprint{key.Fingerprint()})
		} else {
			assert.Equal(t, v.String(), f)
			assert.Equal(t, len(ring.Development()), 0)
		}
	}
	_, _, err := Generate("Acme (production)", "", now, rand.Reader)
	assert.ErrorContains(t, err, "wanted a name and an address without brackets")
}
