package openpgp

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/ProtonMail/go-crypto/openpgp/s2k"
	v2 "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// A SplitKey is a key in the form that is safe to work with: a primary key that
// only certifies and belongs offline, and a subkey that signs and expires.
type SplitKey struct {
	// Secret is the whole secret key, armored. Who has it can make new subkeys
	// and revoke the key.
	Secret []byte
	// Signing is the secret half of the signing subkey alone, armored, as
	// gpg --export-secret-subkeys writes it: all that a signing job needs.
	Signing []byte
	// Public is the public half.
	Public *Key
	// Subkey names the signing subkey.
	Subkey Fingerprint
}

// GenerateSplit makes a key like [Generate], but with a primary key that only
// certifies and a signing subkey that lasts for the given time from now, in
// whole seconds; zero is for ever. A passphrase, if it is not empty, protects
// both secret files.
func GenerateSplit(name, email string, lasts time.Duration, passphrase []byte, now time.Time, random io.Reader) (*SplitKey, error) {
	secret, _, err := generate(name, email, now, random, func(e *v2.Entity, config *packet.Config) error {
		for id, identity := range e.Identities {
			for _, self := range identity.SelfCertifications {
				self.Packet.FlagSign = false
				if err := self.Packet.SignUserId(id, e.PrimaryKey, e.PrivateKey, config); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	split, err := AddSigningSubkey(secret, nil, lasts, now, random)
	if err != nil || len(passphrase) == 0 {
		return split, err
	}
	packets, err := keyPackets(split.Secret)
	if err != nil {
		return nil, err
	}
	for i, p := range packets {
		if p.tag != tagSecretKey && p.tag != tagSecretSubkey {
			continue
		}
		_, private, err := readKey(p)
		if err != nil {
			return nil, err
		}
		if packets[i].raw, err = protect(private, passphrase); err != nil {
			return nil, err
		}
	}
	return splitOf(packets, split.Subkey)
}

// AddSigningSubkey makes a new signing subkey for a secret key as [FromArmored]
// reads it, whose primary key must be in the file and certify. The passphrase
// that protects the key protects the new subkey too. Older subkeys stay in the
// public half, so that what they signed goes on verifying; in Signing they are
// stubs.
func AddSigningSubkey(secret, passphrase []byte, lasts time.Duration, now time.Time, random io.Reader) (*SplitKey, error) {
	if lasts < 0 || lasts.Seconds() > 1<<32-1 || lasts > 0 && lasts < time.Second {
		return nil, fmt.Errorf("a subkey cannot last %s, wanted a time between a second and 136 years", lasts)
	}
	key, primary, err := openPrimary(secret, passphrase, now)
	if err != nil {
		return nil, err
	}
	config := keyConfig(now, random)
	config.KeyLifetimeSecs = uint32(lasts / time.Second) // bounded above
	e := &v2.Entity{PrimaryKey: &primary.PublicKey, PrivateKey: primary}
	if err := e.AddSigningSubkey(config); err != nil {
		return nil, fmt.Errorf("make a subkey of %s: %w", key.Fingerprint(), err)
	}
	made := e.Subkeys[0]
	var sub, binding bytes.Buffer
	if err := errors.Join(made.PrivateKey.Serialize(&sub), made.Bindings[0].Packet.Serialize(&binding)); err != nil {
		return nil, fmt.Errorf("make a subkey of %s: %w", key.Fingerprint(), err)
	}
	subRaw := sub.Bytes()
	if len(passphrase) > 0 {
		if subRaw, err = protect(made.PrivateKey, passphrase); err != nil {
			return nil, err
		}
	}
	packets, err := keyPackets(secret)
	if err != nil {
		return nil, err
	}
	added, err := keyPackets(append(subRaw, binding.Bytes()...))
	if err != nil {
		return nil, err
	}
	return splitOf(append(packets, added...), fingerprintOf(made.PublicKey))
}

// Revoke makes a revocation certificate of a secret key: armored as gpg writes
// it, for gpg --import or [Key.WithRevocation]. The primary key must be in the
// file. Text is shown to whoever reads the certificate.
func Revoke(secret, passphrase []byte, reason Reason, text string, now time.Time) ([]byte, error) {
	code, ok := map[Reason]packet.ReasonForRevocation{
		Compromised: packet.KeyCompromised, Superseded: packet.KeySuperseded, Retired: packet.KeyRetired,
	}[reason]
	if !ok {
		return nil, fmt.Errorf("reason %q, wanted %s, %s or %s", reason, Compromised, Superseded, Retired)
	}
	key, primary, err := openPrimary(secret, passphrase, now)
	if err != nil {
		return nil, err
	}
	e := &v2.Entity{PrimaryKey: &primary.PublicKey, PrivateKey: primary}
	if err := e.Revoke(code, text, keyConfig(now, nil)); err != nil {
		return nil, fmt.Errorf("revoke %s: %w", key.Fingerprint(), err)
	}
	var b bytes.Buffer
	if err := e.Revocations[0].Packet.Serialize(&b); err != nil {
		return nil, fmt.Errorf("revoke %s: %w", key.Fingerprint(), err)
	}
	return enarmor(publicBlock, b.Bytes()), nil
}

// WithRevocation returns the key with a revocation certificate in it, armored or
// binary. The key itself does not change: keep the copy without it, since gpg
// believes nothing of a revoked key, whatever the reason and the date.
func (k *Key) WithRevocation(certificate []byte) (*Key, error) {
	data := certificate
	if len(data) == 0 {
		return nil, errors.New("revocation certificate is empty")
	}
	if data[0]&0x80 == 0 {
		kind, body, err := dearmor(data)
		if err != nil {
			return nil, fmt.Errorf("revocation certificate: %w", err)
		}
		if kind != publicBlock && kind != signatureBlock {
			return nil, fmt.Errorf("revocation certificate: found a %s", kind)
		}
		data = body
	}
	p, rest, err := nextPacket(data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("revocation certificate: %w", err)
	case p.tag != tagSignature || len(p.body) < 2 || p.body[1] != byte(packet.SigTypeKeyRevocation) || len(rest) > 0:
		return nil, errors.New("revocation certificate: wanted one signature of type 0x20 (key revocation)")
	}
	first, others, err := nextPacket(k.binary)
	if err != nil {
		return nil, err
	}
	return ParsePublic(slices.Concat(first.raw, p.raw, others))
}

// IsSecretOf tells whether a file holds the secret key of this name.
func IsSecretOf(secret []byte, f Fingerprint) bool {
	key, _, err := parseKey(secret, true)
	return err == nil && key.Fingerprint() == f
}

// openPrimary returns the key and its primary secret half, ready to certify.
func openPrimary(secret, passphrase []byte, now time.Time) (*Key, *packet.PrivateKey, error) {
	key, secrets, err := parseKey(secret, true)
	if err != nil {
		return nil, nil, err
	}
	primary := secrets[key.Fingerprint()]
	switch {
	case primary == nil:
		return nil, nil, fmt.Errorf("the secret half of primary key %s is not in the file: it is kept offline, and only it makes subkeys and revocations", key.Fingerprint())
	case key.Revoked():
		return nil, nil, fmt.Errorf("%w: primary key %s", ErrRevoked, key.Fingerprint())
	case key.primary.expiredAt(now):
		return nil, nil, fmt.Errorf("key %s expired at %s\nhint: gpg --quick-set-expire %[1]s 2y", key.Fingerprint(), stamp(key.Expires()))
	}
	return key, primary, unlock(primary, key.Fingerprint(), passphrase)
}

func unlock(private *packet.PrivateKey, name Fingerprint, passphrase []byte) error {
	if !private.Encrypted {
		return nil
	}
	if len(passphrase) == 0 {
		return fmt.Errorf("key %s is protected by a passphrase, and %w", name, ErrNoPassphrase)
	}
	if err := private.Decrypt(passphrase); err != nil {
		return fmt.Errorf("%w for key %s, or the key is damaged: %w", ErrPassphrase, name, err)
	}
	return nil
}

// protect encrypts a secret key in the form that GnuPG 2.2 reads.
func protect(private *packet.PrivateKey, passphrase []byte) ([]byte, error) {
	err := private.EncryptWithConfig(passphrase, &packet.Config{
		DefaultCipher: packet.CipherAES256,
		S2KConfig:     &s2k.Config{S2KMode: s2k.IteratedSaltedS2K, Hash: crypto.SHA256, S2KCount: 65011712},
	})
	var b bytes.Buffer
	if err == nil {
		err = private.Serialize(&b)
	}
	if err != nil {
		return nil, fmt.Errorf("protect key %s: %w", fingerprintOf(&private.PublicKey), err)
	}
	return b.Bytes(), nil
}

func keyConfig(now time.Time, random io.Reader) *packet.Config {
	deterministic := false
	return &packet.Config{
		Rand:                                  random,
		Time:                                  func() time.Time { return now },
		Algorithm:                             packet.PubKeyAlgoEdDSA,
		Curve:                                 packet.Curve25519,
		DefaultHash:                           crypto.SHA256,
		NonDeterministicSignaturesViaNotation: &deterministic,
	}
}

// splitOf makes both secret files of a secret key's packets, whose signing
// subkey is named.
func splitOf(packets []rawPacket, subkey Fingerprint) (*SplitKey, error) {
	var whole, signing []byte
	for _, p := range packets {
		whole = append(whole, p.raw...)
		if p.tag != tagSecretKey && p.tag != tagSecretSubkey {
			signing = append(signing, p.raw...)
			continue
		}
		public, _, err := readKey(p)
		if err != nil {
			return nil, err
		}
		if fingerprintOf(public) == subkey {
			signing = append(signing, p.raw...)
			continue
		}
		stub, err := stubOf(p.tag, public)
		if err != nil {
			return nil, err
		}
		signing = append(signing, stub...)
	}
	s := &SplitKey{Secret: enarmor(privateBlock, whole), Signing: enarmor(privateBlock, signing), Subkey: subkey}
	var err error
	if s.Public, _, err = parseKey(s.Secret, true); err != nil {
		return nil, fmt.Errorf("the new key does not read back: %w", err)
	}
	if _, secrets, err := parseKey(s.Signing, true); err != nil || len(secrets) != 1 || secrets[subkey] == nil {
		return nil, fmt.Errorf("the new signing key does not read back: %w", err)
	}
	return s, nil
}

// stubOf is a secret key packet without its secret half: the string-to-key
// specifier 101 with "GNU" and 1, as doc/DETAILS of GnuPG has it.
func stubOf(tag byte, public *packet.PublicKey) ([]byte, error) {
	var b bytes.Buffer
	if err := public.Serialize(&b); err != nil {
		return nil, err
	}
	p, _, err := nextPacket(b.Bytes())
	if err != nil {
		return nil, err
	}
	body := append(bytes.Clone(p.body), 0xff, 0, 101, 0, 'G', 'N', 'U', 1)
	header := []byte{0xc0 | tag, 0xff, byte(len(body) >> 24), byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}
	return append(header, body...), nil
}

// A Reason is why a key was revoked.
type Reason string

// The reasons of RFC 9580 section 5.2.3.31. After the soft ones, superseded and
// retired, nothing suggests that somebody else has the key.
const (
	Compromised Reason = "compromised"
	Superseded  Reason = "superseded"
	Retired     Reason = "retired"
	Unstated    Reason = "unstated" // to be treated as compromised
)

// ParseReason reads a reason that a revocation can be made with.
func ParseReason(s string) (Reason, error) {
	switch r := Reason(s); r {
	case Compromised, Superseded, Retired:
		return r, nil
	}
	return "", fmt.Errorf("reason %q, wanted %s, %s or %s", s, Compromised, Superseded, Retired)
}

// A Revocation is one that the owner of a key made.
type Revocation struct {
	At     time.Time // by the owner's account
	Reason Reason
}

// Revocations lists those of the primary key, in the file's order.
func (k *Key) Revocations() []Revocation { return stated(k.revocations) }

func stated(all []revocation) []Revocation {
	var out []Revocation
	for _, r := range all {
		out = append(out, Revocation{At: r.at, Reason: r.reason})
	}
	return out
}

// A Part is a primary key or subkey, and what its owner says about it.
type Part struct {
	Fingerprint Fingerprint
	Primary     bool
	Algorithm   string    // such as ed25519, rsa3072, nistp256
	Can         []string  // certify, sign, encrypt, authenticate: what it is flagged for
	Created     time.Time // UTC
	Expires     time.Time // UTC; zero if never
	Revocations []Revocation
	// CannotSign says why the part makes no signatures at the given time; empty
	// if it can.
	CannotSign string
}

// Parts lists the primary key and then the subkeys in the file's order, as they
// are at a time.
func (k *Key) Parts(now time.Time) []Part {
	var parts []Part
	for _, c := range k.components() {
		p := Part{
			Fingerprint: c.fingerprint, Primary: c == k.primary, Algorithm: algorithmOf(c.public),
			Can: c.flags, Created: c.created, Expires: c.expires, Revocations: stated(c.revocations),
		}
		if p.Primary {
			p.Revocations = k.Revocations()
		}
		err := c.signsAt(now)
		switch {
		case k.Revoked():
			err = fmt.Errorf("primary key %s is revoked", k.Fingerprint())
		case k.primary.expiredAt(now):
			err = fmt.Errorf("primary key %s expired at %s", k.Fingerprint(), stamp(k.Expires()))
		}
		if err != nil {
			p.CannotSign = err.Error()
		}
		parts = append(parts, p)
	}
	return parts
}

// signsAt tells whether this part of a key makes signatures at a time.
func (c *component) signsAt(now time.Time) error {
	if err := c.maySign(); err != nil {
		return err
	}
	switch {
	case c.revokedAt(now):
		return errors.New("revoked")
	case c.expiredAt(now):
		return fmt.Errorf("expired at %s", stamp(c.expires))
	case c.created.After(now.Add(futureTolerance)):
		return fmt.Errorf("created at %s, which is in the future", stamp(c.created))
	}
	return nil
}

// algorithmOf names a key's algorithm as gpg does.
func algorithmOf(pk *packet.PublicKey) string {
	curve, err := pk.Curve()
	switch {
	case err == nil && curve == packet.Curve25519 && pk.PubKeyAlgo == packet.PubKeyAlgoEdDSA:
		return "ed25519"
	case err == nil && curve == packet.Curve25519:
		return "cv25519"
	case err == nil && strings.HasPrefix(string(curve), "P"):
		return "nistp" + string(curve)[1:]
	case err == nil:
		return strings.ToLower(strings.ReplaceAll(string(curve), "-", ""))
	}
	if bits, err := pk.BitLength(); err == nil && pk.PubKeyAlgo <= packet.PubKeyAlgoRSASignOnly {
		return fmt.Sprintf("rsa%d", bits)
	}
	return fmt.Sprintf("algorithm %d", pk.PubKeyAlgo)
}
