package openpgp

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	v2 "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// A Signer makes detached signatures in the name of one key. What it returns
// has been verified with that key's public half.
type Signer interface {
	// Fingerprint names the key: that of its primary key.
	Fingerprint() Fingerprint
	// Public is the key that verifies what Sign makes.
	Public() *Key
	// Sign returns one binary signature packet over message.
	Sign(ctx context.Context, message []byte) ([]byte, error)
}

// FromArmored makes a signer from a secret key as gpg --export-secret-keys or
// --export-secret-subkeys writes it, armored or binary. The secret half of the
// primary key may be missing if a signing subkey is there. Of several keys that
// can sign, the newest subkey is taken, as gpg does, and the primary key last.
// An empty passphrase means there is none; a passphrase the key does not need
// is ignored.
//
// clock gives each signature its creation time, and decides now whether the key
// has expired. A key that can no longer sign makes Sign fail later.
//
// Only the key that signs is decrypted. Go cannot promise to wipe it from
// memory: it stays there as long as the process.
func FromArmored(secret, passphrase []byte, clock func() time.Time) (Signer, error) {
	key, secrets, err := parseKey(secret, true)
	if err != nil {
		return nil, err
	}
	if key.Revoked() {
		return nil, fmt.Errorf("%w: primary key %s", ErrRevoked, key.Fingerprint())
	}
	now := clock()
	if key.primary.expiredAt(now) {
		return nil, fmt.Errorf("key %s expired at %s\nhint: gpg --quick-set-expire %[1]s 2y", key.Fingerprint(), stamp(key.Expires()))
	}
	signer, err := key.chooseSigner(now, func(c *component) error {
		if secrets[c.fingerprint] == nil {
			return errors.New("its secret half is not in the file")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	private := secrets[signer.fingerprint]
	if err := unlock(private, signer.fingerprint, passphrase); err != nil {
		return nil, err
	}
	return &memorySigner{key: key, private: private, digest: digestFor(signer.public), clock: clock}, nil
}

// chooseSigner picks the part of the key that signs now, and otherwise says of
// each part why it cannot. usable adds the caller's own condition.
func (k *Key) chooseSigner(now time.Time, usable func(*component) error) (*component, error) {
	subkeys := slices.Clone(k.subkeys)
	slices.SortStableFunc(subkeys, func(a, b *component) int { return b.created.Compare(a.created) })
	var why strings.Builder
	for _, c := range append(subkeys, k.primary) {
		err := c.signsAt(now)
		if err == nil {
			err = usable(c)
		}
		if err == nil {
			return c, nil
		}
		fmt.Fprintf(&why, "\n  %s: %v", c.fingerprint, err)
	}
	return nil, fmt.Errorf("key %s has nothing to sign with:%s", k.Fingerprint(), why.String())
}

// digestFor picks the shortest digest that GnuPG accepts with the key: ECDSA
// wants one at least as long as the curve.
func digestFor(pk *packet.PublicKey) crypto.Hash {
	if pk.PubKeyAlgo == packet.PubKeyAlgoECDSA {
		switch curve, _ := pk.Curve(); curve {
		case packet.CurveNistP384, packet.CurveBrainpoolP384:
			return crypto.SHA384
		case packet.CurveNistP521, packet.CurveBrainpoolP512:
			return crypto.SHA512
		}
	}
	return crypto.SHA256
}

type memorySigner struct {
	key     *Key
	private *packet.PrivateKey
	digest  crypto.Hash
	clock   func() time.Time
}

func (s *memorySigner) Fingerprint() Fingerprint { return s.key.Fingerprint() }

func (s *memorySigner) Public() *Key { return s.key }

func (s *memorySigner) Sign(ctx context.Context, message []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	now := s.clock().Truncate(time.Second)
	// No salt notation: it would add 60 bytes to every line of a log, and what
	// it guards against, a fault in the arithmetic, is caught below.
	deterministic := false
	config := &packet.Config{NonDeterministicSignaturesViaNotation: &deterministic}
	sig := &packet.Signature{
		Version:      4,
		SigType:      packet.SigTypeBinary,
		PubKeyAlgo:   s.private.PubKeyAlgo,
		Hash:         s.digest,
		CreationTime: now,
	}
	h, err := sig.PrepareSign(config)
	if err != nil {
		return nil, err
	}
	h.Write(message)
	// The library forgets some errors of the arithmetic here; Serialize and the
	// verification find them.
	if err := sig.Sign(h, s.private, config); err != nil {
		return nil, fmt.Errorf("sign with %s: %w", s.Fingerprint(), err)
	}
	var b bytes.Buffer
	if err := sig.Serialize(&b); err != nil {
		return nil, fmt.Errorf("sign with %s: %w", s.Fingerprint(), err)
	}
	if _, err := s.key.verify(message, b.Bytes(), now); err != nil {
		return nil, fmt.Errorf("sign with %s: the new signature does not verify: %w", s.Fingerprint(), err)
	}
	return b.Bytes(), nil
}

// Generate makes a signing key: version 4, EdDSA over Ed25519 (algorithm 22,
// which GnuPG 2.2 reads), no encryption subkey, no passphrase, no expiry, with
// the user id "name <email>", of which either may be empty. The secret half is
// returned armored, for gpg --import or FromArmored.
//
// random is the source of the key, crypto/rand.Reader in earnest. The standard
// library may mix in or prefer its own randomness, so an equal source does not
// mean an equal key.
func Generate(name, email string, now time.Time, random io.Reader) (secretArmored []byte, key *Key, err error) {
	return generate(name, email, now, random, nil)
}

// generate is Generate with a change, if any, before the key is written.
func generate(name, email string, now time.Time, random io.Reader, change func(*v2.Entity, *packet.Config) error) (secretArmored []byte, key *Key, err error) {
	id := strings.TrimSpace(name + " <" + email + ">")
	comment := ""
	if plain, ok := strings.CutSuffix(name, " "+DevelopmentComment); ok {
		name, comment = plain, strings.Trim(DevelopmentComment, "()")
	}
	for _, part := range []string{name, email} {
		if strings.ContainsAny(part, "()<>") || strings.ContainsFunc(part, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return nil, nil, fmt.Errorf("user id %q: wanted a name and an address without brackets and control characters", id)
		}
	}
	if name == "" && email == "" {
		return nil, nil, errors.New("user id is empty, wanted a name or an address")
	}
	if email != "" && (!strings.Contains(email, "@") || strings.Contains(email, " ")) {
		return nil, nil, fmt.Errorf("user id %q: %q is not an e-mail address", id, email)
	}
	config := keyConfig(now, random)
	entity, err := v2.NewEntity(name, comment, email, config)
	if err == nil && change != nil {
		err = change(entity, config)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	// Who can encrypt to this key expects an answer; it only signs.
	entity.Subkeys = nil
	var b bytes.Buffer
	if err := entity.SerializePrivateWithoutSigning(&b, nil); err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	secretArmored = enarmor(privateBlock, b.Bytes())
	if key, _, err = parseKey(secretArmored, true); err != nil {
		return nil, nil, fmt.Errorf("generate key: the new key does not read back: %w", err)
	}
	return secretArmored, key, nil
}

// GenerateEphemeral is Generate for a key that signs one run and is thrown
// away. Its user id says so: "ephemeral " and the purpose.
func GenerateEphemeral(purpose string, now time.Time, random io.Reader) (secretArmored []byte, key *Key, err error) {
	return Generate(strings.TrimSpace("ephemeral "+purpose), "", now, random)
}
