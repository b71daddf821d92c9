package openpgp

import (
	"bytes"
	"cmp"
	"crypto/rsa"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// maxKey bounds a key file, in binary bytes.
const maxKey = 1 << 20

// A Key is a public key with its user ids and subkeys, all self-signatures
// checked. It never changes and is safe for concurrent use.
type Key struct {
	primary     *component
	subkeys     []*component
	userIDs     []string
	revocations []revocation // of the primary key
	binary      []byte
}

// A component is a primary key or subkey and what its owner says about it.
type component struct {
	public      *packet.PublicKey
	fingerprint Fingerprint
	created     time.Time
	expires     time.Time    // zero: never
	sign        bool         // flagged for signing data
	flags       []string     // all that it is flagged for, for people
	revocations []revocation // of a subkey
	unbound     string       // why the subkey is not part of the key; empty if it is
}

type revocation struct {
	at     time.Time
	hard   bool
	reason Reason
}

func (c *component) expiredAt(t time.Time) bool {
	return !c.expires.IsZero() && !t.Before(c.expires)
}

// revokedAt tells whether a signature that claims time t is lost to a
// revocation of this subkey.
func (c *component) revokedAt(t time.Time) bool {
	return slices.ContainsFunc(c.revocations, func(r revocation) bool {
		return r.hard || !t.Before(r.at)
	})
}

// maySign tells whether the component is one that makes document signatures.
func (c *component) maySign() error {
	if c.unbound != "" {
		return fmt.Errorf("subkey %s is not bound to its primary key: %s", c.fingerprint, c.unbound)
	}
	if err := usable(c.public); err != nil {
		return fmt.Errorf("key %s: %w", c.fingerprint, err)
	}
	if !c.sign {
		return fmt.Errorf("key %s is not flagged for signing", c.fingerprint)
	}
	return nil
}

// ParsePublic reads a file with one public key, armored or binary.
func ParsePublic(data []byte) (*Key, error) {
	key, _, err := parseKey(data, false)
	return key, err
}

// Fingerprint names the key: that of its primary key.
func (k *Key) Fingerprint() Fingerprint { return k.primary.fingerprint }

// UserIDs lists the self-signed, unrevoked user ids in the file's order.
// Control characters are replaced, so they can be shown on a terminal.
func (k *Key) UserIDs() []string { return slices.Clone(k.userIDs) }

// DevelopmentComment is the comment (RFC 9580 section 5.13 leaves the form of a user
// id free; "Name (comment) <address>" is the custom) by which a key says that it is one
// for trying things out: who holds it is nobody in particular.
const DevelopmentComment = "(development)"

var development = regexp.MustCompile(`(^|\s)\(development\)(\s<[^<>]*>)?$`)

// Development tells whether a user id of the key says that it is one for development.
func (k *Key) Development() bool { return slices.ContainsFunc(k.userIDs, development.MatchString) }

// String names the key by its fingerprint, and says so when it is one for development.
func (k *Key) String() string { return issuerText(k.Fingerprint(), k.Development()) }

// Created is when the primary key was made, by its own account.
func (k *Key) Created() time.Time { return k.primary.created }

// Expires is when the primary key stops being valid; the zero time if never.
func (k *Key) Expires() time.Time { return k.primary.expires }

// Revoked tells whether the file holds a revocation of the primary key.
func (k *Key) Revoked() bool { return len(k.revocations) > 0 }

// Binary is the key as packets, ready for gpg --import or gpgv --keyring, with
// all of the file but subkeys of unknown kinds. The caller may keep it.
func (k *Key) Binary() []byte { return bytes.Clone(k.binary) }

// Armored is Binary as text, with the CRC-24 line.
func (k *Key) Armored() []byte { return enarmor(publicBlock, k.binary) }

func (k *Key) components() []*component {
	return append([]*component{k.primary}, k.subkeys...)
}

// parseKey reads one public key, or one secret key and its public half.
func parseKey(data []byte, secret bool) (*Key, map[Fingerprint]*packet.PrivateKey, error) {
	packets, err := keyPackets(data)
	if err != nil {
		return nil, nil, err
	}
	if err := checkKind(packets, secret); err != nil {
		return nil, nil, err
	}
	p := keyParser{secrets: map[Fingerprint]*packet.PrivateKey{}}
	for _, raw := range packets {
		if err := p.add(raw); err != nil {
			return nil, nil, err
		}
	}
	key, err := p.finish()
	if err != nil {
		return nil, nil, err
	}
	return key, p.secrets, nil
}

// keyPackets takes off the armor and cuts the file into packets.
func keyPackets(data []byte) ([]rawPacket, error) {
	if len(data) == 0 {
		return nil, errors.New("key file is empty")
	}
	if data[0]&0x80 == 0 {
		kind, body, err := dearmor(data)
		if err != nil {
			return nil, fmt.Errorf("key file: %w", err)
		}
		if kind != publicBlock && kind != privateBlock {
			return nil, fmt.Errorf("key file holds a %s, wanted a key", kind)
		}
		data = body
	}
	if len(data) > maxKey {
		return nil, fmt.Errorf("key file has %d bytes, wanted at most %d\nhint: gpg --export --export-options export-minimal", len(data), maxKey)
	}
	var packets []rawPacket
	for len(data) > 0 {
		p, rest, err := nextPacket(data)
		if err != nil {
			return nil, fmt.Errorf("key file: packet %d: %w", len(packets)+1, err)
		}
		packets = append(packets, p)
		data = rest
	}
	return packets, nil
}

// checkKind makes sure that the file holds one key of the wanted kind, before
// anything else is complained about.
func checkKind(packets []rawPacket, secret bool) error {
	var names []string
	holdsSecret := false
	for _, p := range packets {
		switch p.tag {
		case tagSecretKey, tagSecretSubkey:
			holdsSecret = true
		}
		if p.tag != tagPublicKey && p.tag != tagSecretKey {
			continue
		}
		name := "unreadable"
		if pk, _, err := readKey(p); err == nil {
			name = string(fingerprintOf(pk))
		}
		names = append(names, name)
	}
	first := packets[0].tag
	switch {
	case holdsSecret && !secret:
		name := "ID"
		if len(names) == 1 {
			name = names[0]
		}
		return fmt.Errorf("this is a SECRET key; wanted its public half, and if this file was shared, revoke the key\nhint: gpg --armor --export %s", name)
	case len(names) > 1:
		return fmt.Errorf("key file holds %d keys (%s), wanted one\nhint: gpg --armor --export %s", len(names), strings.Join(names, ", "), names[0])
	case first == tagSignature:
		return errors.New("this is a signature or revocation certificate, wanted a key")
	case len(names) == 0 || first != tagPublicKey && first != tagSecretKey:
		return errors.New("key file does not start with a primary key")
	case secret && !holdsSecret:
		return fmt.Errorf("this is a public key (%s), wanted the secret one\nhint: gpg --armor --export-secret-keys %s", names[0], names[0])
	}
	return nil
}

// readKey parses a key packet of any kind and insists that it is nothing but
// the key: parsing and writing gives the same bytes, so that no other program
// sees something else in them.
func readKey(p rawPacket) (*packet.PublicKey, *packet.PrivateKey, error) {
	if len(p.body) > 0 && p.body[0] != 4 {
		return nil, nil, fmt.Errorf("key version %d, wanted 4, which GnuPG 2.2 reads too\nhint: gpg --quick-generate-key NAME ed25519 sign 1y, or remembrancer key generate", p.body[0])
	}
	parsed, err := packet.Read(bytes.NewReader(p.raw))
	switch k := parsed.(type) {
	case *packet.PublicKey:
		if err != nil {
			return nil, nil, err
		}
		var b bytes.Buffer
		if err := k.Serialize(&b); err != nil {
			return nil, nil, err
		}
		again, _, err := nextPacket(b.Bytes())
		if err != nil || !bytes.Equal(again.body, p.body) {
			return nil, nil, errors.New("key packet is not in its only form")
		}
		return k, nil, nil
	case *packet.PrivateKey:
		var unsupported pgperrors.UnsupportedError
		if err != nil && (len(k.Fingerprint) == 0 || !errors.As(err, &unsupported)) {
			return nil, nil, err
		}
		if err != nil {
			// The public half was read, the secret half is not here in a form
			// we know: it is on a card, for example.
			return &k.PublicKey, nil, nil //nolint:nilerr // the secret half is what failed
		}
		return &k.PublicKey, k, nil
	default:
		return nil, nil, cmp.Or(err, fmt.Errorf("parsed as %T, wanted a key", parsed))
	}
}

// usable tells whether signatures of this key are accepted at all.
func usable(pk *packet.PublicKey) error {
	switch pk.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		public, ok := pk.PublicKey.(*rsa.PublicKey)
		if !ok {
			return fmt.Errorf("RSA key holds a %T", pk.PublicKey)
		}
		if n := public.N.BitLen(); n < 2048 {
			return fmt.Errorf("RSA key of %d bits, wanted at least 2048", n)
		}
		return nil
	case packet.PubKeyAlgoECDSA, packet.PubKeyAlgoEdDSA:
		curve, err := pk.Curve()
		if err != nil {
			return err
		}
		eddsa := pk.PubKeyAlgo == packet.PubKeyAlgoEdDSA
		switch curve {
		case packet.Curve25519:
			if eddsa {
				return nil
			}
		case packet.CurveNistP256, packet.CurveNistP384, packet.CurveNistP521,
			packet.CurveBrainpoolP256, packet.CurveBrainpoolP384, packet.CurveBrainpoolP512:
			if !eddsa {
				return nil
			}
		}
		return fmt.Errorf("curve %s, wanted Ed25519, NIST or Brainpool", curve)
	default:
		return fmt.Errorf("public key algorithm %d, wanted RSA (1), ECDSA (19) or EdDSA (22), which GnuPG 2.2 reads too", pk.PubKeyAlgo)
	}
}

// A keyParser walks the packets of one key in their order (RFC 9580 section
// 10.1): each signature belongs to what stands before it.
type keyParser struct {
	key     Key
	secrets map[Fingerprint]*packet.PrivateKey
	direct  []claim  // direct-key signatures
	users   []*user  // user ids
	bound   []*bound // subkeys
	user    *user    // the user id we are at
	sub     *bound   // the subkey we are at
	skip    bool     // we are at a subkey that was left out
	weak    bool     // a self-signature was left out for its digest
}

// A claim is what one valid self-signature says.
type claim struct {
	made     time.Time
	expires  time.Time // zero: never
	hasFlags bool
	sign     bool
	flags    []string
}

type user struct {
	id      string
	claims  []claim
	revoked time.Time // latest revocation; zero: none
	lost    bool      // a revocation could not be read
}

type bound struct {
	*component
	claims []claim
}

func (p *keyParser) add(raw rawPacket) error {
	switch raw.tag {
	case tagPublicKey, tagSecretKey, tagPublicSubkey, tagSecretSubkey:
		return p.addKey(raw)
	case tagUserID:
		p.user, p.sub, p.skip = &user{id: string(raw.body)}, nil, false
		p.users = append(p.users, p.user)
		p.key.binary = append(p.key.binary, raw.raw...)
	case tagSignature:
		if p.skip {
			return nil
		}
		if err := p.addSignature(raw); err != nil {
			return err
		}
		p.key.binary = append(p.key.binary, raw.raw...)
	case tagUserAttribute:
		// A picture. Its certifications give the key no properties.
		p.user, p.sub, p.skip = nil, nil, false
		p.key.binary = append(p.key.binary, raw.raw...)
	case tagMarker, tagTrust, tagPadding:
	default:
		if raw.tag < tagFirstOptional {
			return fmt.Errorf("key file: packet type %d has no place in a key", raw.tag)
		}
	}
	return nil
}

func (p *keyParser) addKey(raw rawPacket) error {
	p.user, p.sub, p.skip = nil, nil, false
	pk, secret, err := readKey(raw)
	primary := raw.tag == tagPublicKey || raw.tag == tagSecretKey
	if err == nil && primary {
		err = usable(pk)
	}
	var unsupported pgperrors.UnsupportedError
	switch {
	case err != nil && primary:
		return fmt.Errorf("primary key: %w", err)
	case errors.As(err, &unsupported):
		// A subkey of a kind the library does not know can sign nothing here,
		// so it is left out with its signatures.
		p.skip = true
		return nil
	case err != nil:
		return fmt.Errorf("subkey: %w", err)
	}
	c := &component{public: pk, fingerprint: fingerprintOf(pk), created: pk.CreationTime.UTC()}
	for _, other := range p.bound {
		if other.fingerprint == c.fingerprint {
			return fmt.Errorf("subkey %s appears twice", c.fingerprint)
		}
	}
	if secret != nil && !secret.Dummy() {
		p.secrets[c.fingerprint] = secret
	}
	if primary {
		p.key.primary = c
	} else {
		p.sub = &bound{component: c}
		p.bound = append(p.bound, p.sub)
		p.key.subkeys = append(p.key.subkeys, c)
	}
	var b bytes.Buffer
	if err := pk.Serialize(&b); err != nil {
		return err
	}
	p.key.binary = append(p.key.binary, b.Bytes()...)
	return nil
}

// addSignature files a signature under what it is about. Valid self-signatures
// count, other people's are ignored, and a revocation must be readable.
func (p *keyParser) addSignature(raw rawPacket) error {
	var kind packet.SignatureType
	switch b := raw.body; {
	case len(b) > 2 && b[0] == 3: // the old version has a length byte in between
		kind = packet.SignatureType(b[2])
	case len(b) > 1:
		kind = packet.SignatureType(b[1])
	default:
		return fmt.Errorf("key file: signature: %w", errTruncated)
	}
	parsed, err := packet.Read(bytes.NewReader(raw.raw))
	sig, ok := parsed.(*packet.Signature)
	if err == nil && !ok {
		err = fmt.Errorf("parsed as %T", parsed)
	}
	primary := p.key.primary.public

	switch kind {
	case packet.SigTypeKeyRevocation:
		if err == nil {
			err = primary.VerifyRevocationSignature(sig)
		}
		if err != nil {
			return fmt.Errorf("key %s: holds a revocation that its primary key did not make, or that cannot be read: %w\nhint: designated revokers are not supported; replace the key", p.key.Fingerprint(), err)
		}
		p.key.revocations = append(p.key.revocations, revocationOf(sig))

	case packet.SigTypeDirectSignature:
		if err == nil && primary.VerifyDirectKeySignature(sig) == nil && p.strong(sig) {
			p.direct = append(p.direct, claimOf(p.key.primary, sig))
		}

	case packet.SigTypeGenericCert, packet.SigTypePersonaCert, packet.SigTypeCasualCert, packet.SigTypePositiveCert:
		if p.user != nil && err == nil && sig.CheckKeyIdOrFingerprint(primary) &&
			primary.VerifyUserIdSignature(p.user.id, primary, sig) == nil && p.strong(sig) {
			p.user.claims = append(p.user.claims, claimOf(p.key.primary, sig))
		}

	case packet.SigTypeCertificationRevocation:
		switch {
		case p.user == nil:
		case err != nil:
			p.user.lost = true
		case primary.VerifyUserIdSignature(p.user.id, primary, sig) == nil && sig.CreationTime.After(p.user.revoked):
			p.user.revoked = sig.CreationTime
		}

	case packet.SigTypeSubkeyBinding:
		if p.sub == nil || err != nil {
			break
		}
		// For a signing subkey this includes its signature over the primary
		// key, without which anybody could adopt anybody's subkey.
		if err := primary.VerifyKeySignature(p.sub.public, sig); err != nil {
			p.sub.unbound = err.Error()
			break
		}
		if !p.strong(sig) || sig.FlagSign && !p.strong(sig.EmbeddedSignature) {
			p.sub.unbound = "its binding has a weak digest or a critical notation"
			break
		}
		c := claimOf(p.sub.component, sig)
		if sig.FlagSign {
			c.expires = earliest(c.expires, lifetimeEnd(sig.EmbeddedSignature))
		}
		p.sub.claims = append(p.sub.claims, c)

	case packet.SigTypeSubkeyRevocation:
		if p.sub == nil {
			break // of a subkey that was left out
		}
		if err == nil {
			err = primary.VerifySubkeyRevocationSignature(sig, p.sub.public)
		}
		if err != nil {
			return fmt.Errorf("subkey %s: holds a revocation that the primary key did not make, or that cannot be read: %w", p.sub.fingerprint, err)
		}
		p.sub.revocations = append(p.sub.revocations, revocationOf(sig))
	}
	return nil //nolint:nilerr // a signature that does not parse grants nothing, and each case above says so
}

// strong tells whether a valid self-signature may count.
func (p *keyParser) strong(sig *packet.Signature) bool {
	ok := strongDigest(sig.Hash)
	for _, n := range sig.Notations {
		ok = ok && !n.IsCritical
	}
	if !ok {
		p.weak = true
	}
	return ok
}

func revocationOf(sig *packet.Signature) revocation {
	// Without a reason, or with an unknown one, expect the worst.
	r := revocation{at: sig.CreationTime.UTC(), hard: true, reason: Unstated}
	if sig.RevocationReason != nil {
		switch *sig.RevocationReason {
		case packet.KeySuperseded:
			r.hard, r.reason = false, Superseded
		case packet.KeyRetired:
			r.hard, r.reason = false, Retired
		case packet.KeyCompromised:
			r.reason = Compromised
		}
	}
	return r
}

func claimOf(c *component, sig *packet.Signature) claim {
	out := claim{made: sig.CreationTime.UTC(), hasFlags: sig.FlagsValid, sign: sig.FlagsValid && sig.FlagSign}
	for _, f := range []struct {
		set  bool
		name string
	}{
		{sig.FlagCertify, "certify"},
		{sig.FlagSign, "sign"},
		{sig.FlagEncryptCommunications || sig.FlagEncryptStorage, "encrypt"},
		{sig.FlagAuthenticate, "authenticate"},
	} {
		if sig.FlagsValid && f.set {
			out.flags = append(out.flags, f.name)
		}
	}
	if sig.KeyLifetimeSecs != nil && *sig.KeyLifetimeSecs != 0 {
		out.expires = c.created.Add(time.Duration(*sig.KeyLifetimeSecs) * time.Second)
	}
	// A self-signature that lapses takes with it what it says.
	out.expires = earliest(out.expires, lifetimeEnd(sig))
	return out
}

// lifetimeEnd is when the signature itself expires; zero if never.
func lifetimeEnd(sig *packet.Signature) time.Time {
	if sig.SigLifetimeSecs == nil || *sig.SigLifetimeSecs == 0 {
		return time.Time{}
	}
	return sig.CreationTime.UTC().Add(time.Duration(*sig.SigLifetimeSecs) * time.Second)
}

// earliest of two times, where zero is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// newest joins the claims made last. Claims of the same second cannot be put in
// order, so the stricter of them wins whatever their order in the file.
func newest(claims []claim) (claim, bool) {
	if len(claims) == 0 {
		return claim{}, false
	}
	out := claims[0]
	for _, c := range claims[1:] {
		switch {
		case c.made.After(out.made):
			out = c
		case c.made.Equal(out.made):
			out.expires = earliest(out.expires, c.expires)
			out.hasFlags = out.hasFlags && c.hasFlags
			out.sign = out.sign && c.sign
			out.flags = slices.DeleteFunc(slices.Clone(out.flags), func(f string) bool { return !slices.Contains(c.flags, f) })
		}
	}
	return out, true
}

func (p *keyParser) finish() (*Key, error) {
	key := &p.key
	var claims []claim
	revoked := 0
	for _, u := range p.users {
		last, ok := newest(u.claims)
		if !ok {
			continue
		}
		// Certifying a user id again brings it back, as in gpg.
		if u.lost || !u.revoked.IsZero() && !last.made.After(u.revoked) {
			revoked++
			continue
		}
		claims = append(claims, last)
		key.userIDs = append(key.userIDs, printable(u.id))
	}
	says, ok := newest(claims)
	switch {
	case ok:
	case revoked > 0:
		return nil, fmt.Errorf("key %s: every user id is revoked", key.Fingerprint())
	case p.weak:
		return nil, fmt.Errorf("key %s: its self-signatures use a weak digest (SHA-1), wanted SHA-256 or better\nhint: gpg --cert-digest-algo SHA256 --quick-set-expire %s 2y", key.Fingerprint(), key.Fingerprint())
	case len(p.users) == 0:
		return nil, fmt.Errorf("key %s: no user id: key servers strip them\nhint: gpg --armor --export %s on the owner's machine", key.Fingerprint(), key.Fingerprint())
	default:
		return nil, fmt.Errorf("key %s: no valid self-signature on a user id", key.Fingerprint())
	}
	key.primary.expires = says.expires
	key.primary.sign, key.primary.flags = says.sign, says.flags
	if direct, ok := newest(p.direct); ok {
		key.primary.expires = earliest(key.primary.expires, direct.expires)
		if !says.hasFlags {
			key.primary.sign, key.primary.flags = direct.sign, direct.flags
		}
	}
	for _, s := range p.bound {
		says, ok := newest(s.claims)
		if !ok {
			s.unbound = cmp.Or(s.unbound, "no binding signature")
			continue
		}
		s.unbound = ""
		s.expires = says.expires
		s.sign, s.flags = says.sign, says.flags
	}
	return key, nil
}

// printable makes a user id safe to show.
func printable(id string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(id, string(unicode.ReplacementChar)))
}

func sortedKeys(m map[Fingerprint]*Key) []Fingerprint {
	return slices.Sorted(maps.Keys(m))
}
