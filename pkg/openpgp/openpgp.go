// Package openpgp makes and checks detached OpenPGP signatures over bytes. It
// hides key kinds, packets and the library, and has one opinion: whatever it
// makes or accepts, stock GnuPG (gpg and gpgv, 2.2 and later) can check by
// hand. It reads no files, no environment and no clock.
//
//	key, err := openpgp.ParsePublic(file)
//	ring, err := openpgp.NewKeyring(key)
//	v, err := openpgp.Verify(ring, issuer, message, sig, openpgp.VerifyOptions{Now: now})
//
// # Keys
//
// A key is named by the fingerprint of its primary key, also when a subkey
// signs. A key file holds one public key (armored or binary) with at least one
// valid self-signed user id; secret material is refused where a public key is
// wanted, and the other way round. Keys are version 4 with RSA (2048 bits or
// more), ECDSA (NIST and Brainpool curves) or EdDSA (Ed25519, algorithm 22).
// DSA, algorithm 27 and version 6 are refused, as GnuPG 2.2 cannot read them or
// nobody should use them. All self-signatures are checked when the key is
// parsed, and afterwards the key never changes, so a verdict does not depend on
// what was verified before it.
//
// What a key may do follows from its newest self-signatures in the file, as in
// GnuPG: the newest certification over the user ids that are not revoked gives
// flags and expiry, an expiry in a direct-key signature can only shorten it,
// and the newest binding with a valid cross-certification speaks for a subkey.
// Self-signatures count only with SHA-256, SHA-384 or SHA-512. Revocations
// count with any digest, and a file with a revocation that cannot be checked is
// refused, since leaving it out would bring a key back to life.
//
// # Signatures
//
// A signature is one binary packet (RFC 9580 section 5.2.3, version 4), nothing
// before it and nothing after it, of type 0x00 (binary document) with SHA-256,
// SHA-384 or SHA-512. It names the key that made it, and has one creation time
// and no expiry. Unknown critical subpackets and critical notations are errors.
// Everything in it that is not covered by the signature must be in its only
// allowed form: unhashed subpackets may only repeat the issuer, the digest's
// two leading bytes must be right, numbers and lengths must be minimal. So
// changing any bit of a signature or its message makes it invalid. Its bytes
// are still no identity: a key can sign twice, and an issuer can be repeated.
//
// Verify accepts it if the issuer's primary key or one of its signing subkeys
// made it, and
//
//   - the primary key is not revoked, for whatever reason and since whenever;
//   - the subkey, if one signed, is not revoked, except that a subkey retired or
//     superseded (a soft reason) keeps what it signed before;
//   - neither key was created after, nor had expired at, the claimed time;
//   - the claimed time is at most five minutes after Now.
//
// The claimed time is the signer's word. A thief, or an owner whose key has
// expired, can claim any time; only a timestamp or a log can tell. Likewise a
// revoked key makes all its signatures invalid here; whether an old one is
// saved by evidence of its age is decided where that evidence is.
//
// # Keys for development
//
// A key says that it is one for development, which proves nothing to others, by a user
// id with the comment (development): whoever holds the certificate sees it, in gpg's
// listings as well, and only the key's owner could have left it out. A name that ends
// with it makes such a key.
//
// # Making keys
//
// [GenerateSplit] makes a key whose primary half only certifies and can be kept
// offline; [AddSigningSubkey] gives it another signing subkey, and [Revoke] and
// [Key.WithRevocation] take the trust from it. gpg takes no signature of a
// revoked key for good, whatever the reason and whenever it was made, so the
// copy from before a revocation is worth keeping.
//
// Armor always carries the CRC-24 line: GnuPG 2.2 fails on a third of all
// signature lengths without it (T7071).
package openpgp

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrUnknownIssuer: the keyring has no key of this name, so nothing can be
	// said about the signature.
	ErrUnknownIssuer = errors.New("unknown issuer")
	// ErrRevoked: the signature itself is right, but the key is revoked.
	ErrRevoked = errors.New("key is revoked")
	// ErrNoPassphrase: the secret key is protected, and no passphrase was given.
	ErrNoPassphrase = errors.New("none was given")
	// ErrPassphrase: the passphrase does not open the secret key.
	ErrPassphrase = errors.New("wrong passphrase")
)

// A Fingerprint names a key: 40 upper-case hexadecimal digits (version 4), or
// 64 (version 6; such keys can be named, but not used here).
type Fingerprint string

// ParseFingerprint reads a fingerprint as people and programs write it: upper
// or lower case, with or without spaces or a leading 0x.
func ParseFingerprint(s string) (Fingerprint, error) {
	digits := strings.ToUpper(strings.Join(strings.Fields(s), ""))
	digits = strings.TrimPrefix(digits, "0X")
	if _, err := hex.DecodeString(digits); err != nil || len(digits) != 40 && len(digits) != 64 {
		return "", fmt.Errorf("fingerprint %q: wanted 40 hexadecimal digits, not a short key id\nhint: gpg --list-keys --fingerprint", s)
	}
	return Fingerprint(digits), nil
}

func fingerprintOf(pk *packet.PublicKey) Fingerprint {
	return Fingerprint(strings.ToUpper(hex.EncodeToString(pk.Fingerprint)))
}

// A Keyring is a fixed set of public keys. It is safe for concurrent use.
type Keyring struct {
	keys map[Fingerprint]*Key
	// subkeys names the primary key of each subkey, only to give a better
	// error than "unknown".
	subkeys map[Fingerprint]Fingerprint
}

// NewKeyring makes a keyring. The same key twice is an error, even with equal
// bytes: of two copies one may carry a revocation, and picking is not our job.
func NewKeyring(keys ...*Key) (*Keyring, error) {
	ring := &Keyring{keys: map[Fingerprint]*Key{}, subkeys: map[Fingerprint]Fingerprint{}}
	for _, key := range keys {
		if _, ok := ring.keys[key.Fingerprint()]; ok {
			return nil, fmt.Errorf("key %s is given twice: keep one file, the newest", key.Fingerprint())
		}
		ring.keys[key.Fingerprint()] = key
		for _, sub := range key.subkeys {
			ring.subkeys[sub.fingerprint] = key.Fingerprint()
		}
	}
	return ring, nil
}

// Lookup returns the key whose primary key has this fingerprint.
func (r *Keyring) Lookup(f Fingerprint) (*Key, bool) {
	if r == nil {
		return nil, false
	}
	key, ok := r.keys[f]
	return key, ok
}

// Fingerprints lists the primary keys, sorted.
func (r *Keyring) Fingerprints() []Fingerprint {
	if r == nil {
		return nil
	}
	return sortedKeys(r.keys)
}

// Development lists the keys that say of themselves that they are for development,
// sorted.
func (r *Keyring) Development() (all []Fingerprint) {
	for _, f := range r.Fingerprints() {
		if r.keys[f].Development() {
			all = append(all, f)
		}
	}
	return all
}

// futureTolerance is how far a signature's claimed time may lie ahead of Now:
// clocks differ.
const futureTolerance = 5 * time.Minute

// VerifyOptions hold what Verify needs to know besides its arguments.
type VerifyOptions struct {
	// Now is the verifier's time and must be set. It only bounds claimed times
	// from above: a signature does not lapse when its key expires.
	Now time.Time
}

// Verified says who signed, with what, and when by their own account.
type Verified struct {
	Fingerprint Fingerprint // of the primary key
	SigningKey  Fingerprint // of the key that made the signature: the same, or a subkey
	Created     time.Time   // UTC, whole seconds; a claim, not evidence
	Development bool        // the key says of itself that it is one for development
}

// String names the issuer, and says so when its key is one for development.
func (v Verified) String() string { return issuerText(v.Fingerprint, v.Development) }

func issuerText(f Fingerprint, development bool) string {
	if development {
		return string(f) + ", a key for development, which proves nothing to others"
	}
	return string(f)
}

// Verify checks that sig is a signature over message by the key named issuer,
// under the rules of the package comment. The error is ErrUnknownIssuer if the
// ring lacks the key and ErrRevoked if only a revocation speaks against it.
func Verify(ring *Keyring, issuer Fingerprint, message, sig []byte, opts VerifyOptions) (Verified, error) {
	key, ok := ring.Lookup(issuer)
	if !ok {
		if ring != nil && ring.subkeys[issuer] != "" {
			return Verified{}, fmt.Errorf("%w: %s is a subkey of %s, and issuers are named by their primary key", ErrUnknownIssuer, issuer, ring.subkeys[issuer])
		}
		return Verified{}, fmt.Errorf("%w: no key %s in the keyring", ErrUnknownIssuer, issuer)
	}
	v, err := key.verify(message, sig, opts.Now)
	if err != nil {
		return Verified{}, fmt.Errorf("signature by %s: %w", issuer, err)
	}
	return v, nil
}

func (k *Key) verify(message, sig []byte, now time.Time) (Verified, error) {
	if now.IsZero() {
		return Verified{}, errors.New("verification time is not set")
	}
	s, err := parseSignature(sig)
	if err != nil {
		return Verified{}, err
	}
	signer, err := k.signerOf(s)
	if err != nil {
		return Verified{}, err
	}
	// The arithmetic comes before the policy, so that a policy error is never
	// said about a signature the key has not made.
	if err := s.check(signer.public, message); err != nil {
		return Verified{}, err
	}
	if err := signer.maySign(); err != nil {
		return Verified{}, err
	}
	if limit := now.Add(futureTolerance); s.created.After(limit) {
		return Verified{}, fmt.Errorf("claims to be made at %s, more than %s after now (%s)", stamp(s.created), futureTolerance, stamp(now))
	}
	for _, c := range []*component{k.primary, signer} {
		if s.created.Before(c.created) {
			return Verified{}, fmt.Errorf("claims to be made at %s, before key %s was created at %s", stamp(s.created), c.fingerprint, stamp(c.created))
		}
		if c.expiredAt(s.created) {
			return Verified{}, fmt.Errorf("claims to be made at %s, when key %s had expired at %s", stamp(s.created), c.fingerprint, stamp(c.expires))
		}
	}
	// Revocation comes last: ErrRevoked says that nothing else is wrong.
	if k.Revoked() {
		return Verified{}, fmt.Errorf("%w: primary key %s", ErrRevoked, k.Fingerprint())
	}
	if signer.revokedAt(s.created) {
		return Verified{}, fmt.Errorf("%w: signing subkey %s", ErrRevoked, signer.fingerprint)
	}
	return Verified{Fingerprint: k.Fingerprint(), SigningKey: signer.fingerprint, Created: s.created, Development: k.Development()}, nil
}

// signerOf finds the part of the key that the signature names.
func (k *Key) signerOf(s *signature) (*component, error) {
	var found *component
	for _, c := range k.components() {
		if s.issuer != "" && s.issuer != c.fingerprint || s.keyID != nil && *s.keyID != c.public.KeyId {
			continue
		}
		if found != nil {
			// Two keys with one 64-bit id: somebody has worked for this.
			return nil, fmt.Errorf("key id %016X names two of this key's parts", *s.keyID)
		}
		found = c
	}
	if found == nil {
		name := string(s.issuer)
		if name == "" {
			name = fmt.Sprintf("id %016X", *s.keyID)
		}
		return nil, fmt.Errorf("made by another key (%s)", name)
	}
	return found, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
