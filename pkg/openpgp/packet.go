package openpgp

import (
	"bytes"
	"crypto"
	_ "crypto/sha256" // the digests a signature may use
	_ "crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Packet types of RFC 9580 section 5.
const (
	tagSignature     = 2
	tagSecretKey     = 5
	tagPublicKey     = 6
	tagSecretSubkey  = 7
	tagMarker        = 10
	tagTrust         = 12
	tagUserID        = 13
	tagPublicSubkey  = 14
	tagUserAttribute = 17
	tagPadding       = 21
	tagFirstOptional = 40 // from here on a reader may ignore what it does not know
)

// Signature subpacket types of RFC 9580 section 5.2.3.7.
const (
	subCreated     = 2
	subExpires     = 3
	subIssuerKeyID = 16
	subNotation    = 20
	subEmbedded    = 32
	subIssuer      = 33
)

// A rawPacket is one packet of a sequence: its parts and all its bytes.
type rawPacket struct {
	tag     byte
	body    []byte
	raw     []byte
	minimal bool // the length is written in as few bytes as its format allows
}

var errTruncated = errors.New("packet is cut short")

// nextPacket cuts the first packet off b. Partial and indeterminate lengths,
// which only data packets may have, are refused.
func nextPacket(b []byte) (p rawPacket, rest []byte, err error) {
	if len(b) < 2 {
		return p, nil, errTruncated
	}
	if b[0]&0x80 == 0 {
		return p, nil, fmt.Errorf("not an OpenPGP packet (first byte 0x%02x)", b[0])
	}
	var length uint64
	var header int
	if b[0]&0x40 != 0 {
		p.tag = b[0] & 0x3f
		switch l := b[1]; {
		case l < 192:
			length, header, p.minimal = uint64(l), 2, true
		case l < 224:
			if len(b) < 3 {
				return p, nil, errTruncated
			}
			length, header, p.minimal = uint64(l-192)<<8+uint64(b[2])+192, 3, true
		case l == 255:
			if len(b) < 6 {
				return p, nil, errTruncated
			}
			length, header = uint64(binary.BigEndian.Uint32(b[2:])), 6
			p.minimal = length >= 8384
		default:
			return p, nil, errors.New("packet has a partial length")
		}
	} else {
		p.tag = (b[0] & 0x3f) >> 2
		size := 1 << (b[0] & 3)
		if size == 8 {
			return p, nil, errors.New("packet has an indeterminate length")
		}
		header = 1 + size
		if len(b) < header {
			return p, nil, errTruncated
		}
		for _, x := range b[1:header] {
			length = length<<8 | uint64(x)
		}
		p.minimal = size == 1 || length >= 1<<(4*size)
	}
	if length > uint64(len(b)-header) {
		return p, nil, errTruncated
	}
	end := header + int(length)
	p.body, p.raw = b[header:end:end], b[:end:end]
	return p, b[end:], nil
}

// A signature is a parsed document signature that keeps all rules that can be
// judged without its key and message.
type signature struct {
	packet  *packet.Signature
	created time.Time
	issuer  Fingerprint // of the signing key or subkey; empty if not named
	keyID   *uint64     // its id; nil if not named. One of the two is.
	tag     [2]byte     // the leading bytes of the digest
}

// parseSignature reads exactly one signature packet. It parses beside the
// library, which skips much of what must be refused here: packets after the
// first, bytes after the numbers, odd number lengths, most of the unhashed
// area, and for version 4 the digest's leading bytes.
func parseSignature(data []byte) (*signature, error) {
	if bytes.HasPrefix(data, []byte("-----")) {
		return nil, errors.New("is armored text, wanted the binary packet\nhint: gpg --dearmor")
	}
	p, rest, err := nextPacket(data)
	if err != nil {
		return nil, err
	}
	if p.tag != tagSignature {
		return nil, fmt.Errorf("packet type %d, wanted a signature (2)", p.tag)
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("%d bytes after the signature packet, wanted exactly one packet", len(rest))
	}
	if !p.minimal {
		return nil, errors.New("packet length is not in its shortest form")
	}
	s := new(signature)
	if err := s.parseBody(p.body); err != nil {
		return nil, err
	}
	parsed, err := packet.Read(bytes.NewReader(p.raw))
	if err != nil {
		return nil, err
	}
	var ok bool
	if s.packet, ok = parsed.(*packet.Signature); !ok {
		return nil, fmt.Errorf("parsed as %T, wanted a signature", parsed)
	}
	// Both parsers must have read the same thing.
	if !s.packet.CreationTime.Equal(s.created) {
		return nil, errors.New("creation time is ambiguous")
	}
	return s, nil
}

// parseBody reads RFC 9580 section 5.2.3.
func (s *signature) parseBody(b []byte) error {
	if len(b) == 0 {
		return errTruncated
	}
	if b[0] != 4 {
		return fmt.Errorf("signature version %d, wanted 4", b[0])
	}
	if len(b) < 6 {
		return errTruncated
	}
	if b[1] != byte(packet.SigTypeBinary) {
		return fmt.Errorf("signature type 0x%02x, wanted 0x00 (binary document)", b[1])
	}
	algorithm := packet.PublicKeyAlgorithm(b[2])
	var numbers int
	switch algorithm {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		numbers = 1
	case packet.PubKeyAlgoECDSA, packet.PubKeyAlgoEdDSA:
		numbers = 2
	default:
		return fmt.Errorf("public key algorithm %d, wanted RSA (1), ECDSA (19) or EdDSA (22)", b[2])
	}
	if _, ok := digests[b[3]]; !ok {
		return fmt.Errorf("digest %s is refused, wanted SHA-256, SHA-384 or SHA-512\nhint: gpg --digest-algo SHA256", digestName(b[3]))
	}

	hashed, b, err := cutArea(b[4:])
	if err != nil {
		return err
	}
	if err := s.parseHashed(hashed); err != nil {
		return err
	}
	unhashed, b, err := cutArea(b)
	if err != nil {
		return err
	}
	if err := s.parseUnhashed(unhashed); err != nil {
		return err
	}
	if s.issuer == "" && s.keyID == nil {
		return errors.New("does not name the key that made it")
	}

	if len(b) < 2 {
		return errTruncated
	}
	s.tag = [2]byte(b)
	b = b[2:]
	for range numbers {
		if b, err = cutNumber(b); err != nil {
			return err
		}
	}
	if len(b) != 0 {
		return fmt.Errorf("%d bytes after the end of the signature", len(b))
	}
	return nil
}

func (s *signature) parseHashed(area []byte) error {
	seen := map[byte]bool{}
	for len(area) > 0 {
		var sub subpacket
		var err error
		if sub, area, err = cutSubpacket(area); err != nil {
			return err
		}
		switch sub.kind {
		case subCreated, subExpires, subIssuer, subIssuerKeyID:
			if seen[sub.kind] {
				return fmt.Errorf("subpacket %d appears twice", sub.kind)
			}
			seen[sub.kind] = true
		}
		switch sub.kind {
		case subCreated:
			if len(sub.body) != 4 {
				return errors.New("creation time is not four bytes")
			}
			s.created = time.Unix(int64(binary.BigEndian.Uint32(sub.body)), 0).UTC()
		case subExpires:
			if !bytes.Equal(sub.body, make([]byte, 4)) {
				return errors.New("signature expires, wanted one that does not\nhint: gpg --default-sig-expire 0")
			}
		case subNotation:
			if sub.critical {
				return errors.New("has a critical notation, and none is known here")
			}
		case subEmbedded:
			return errors.New("a document signature must not embed another signature")
		case subIssuer, subIssuerKeyID:
			if err := s.setIssuer(sub); err != nil {
				return err
			}
		}
	}
	if !seen[subCreated] {
		return errors.New("has no creation time")
	}
	return nil
}

// parseUnhashed allows in the unsigned area only what can be checked against
// the key: gpg puts the issuer's key id there.
func (s *signature) parseUnhashed(area []byte) error {
	seen := map[byte]bool{}
	for len(area) > 0 {
		var sub subpacket
		var err error
		if sub, area, err = cutSubpacket(area); err != nil {
			return err
		}
		if sub.kind != subIssuer && sub.kind != subIssuerKeyID || sub.critical || seen[sub.kind] {
			return fmt.Errorf("unhashed subpacket %d, wanted only one non-critical issuer of each kind there", sub.kind)
		}
		seen[sub.kind] = true
		if err := s.setIssuer(sub); err != nil {
			return err
		}
	}
	return nil
}

func (s *signature) setIssuer(sub subpacket) error {
	if sub.kind == subIssuer {
		if len(sub.body) != 21 || sub.body[0] != 4 {
			return errors.New("issuer fingerprint is not of version 4")
		}
		f := Fingerprint(strings.ToUpper(hex.EncodeToString(sub.body[1:])))
		if s.issuer != "" && s.issuer != f {
			return errors.New("names two issuers")
		}
		s.issuer = f
		return nil
	}
	if len(sub.body) != 8 {
		return errors.New("issuer key id is not eight bytes")
	}
	id := binary.BigEndian.Uint64(sub.body)
	if s.keyID != nil && *s.keyID != id {
		return errors.New("names two issuers")
	}
	s.keyID = &id
	return nil
}

// check does the arithmetic.
func (s *signature) check(key *packet.PublicKey, message []byte) error {
	h, err := s.packet.PrepareVerify()
	if err != nil {
		return err
	}
	h.Write(message)
	if err := key.VerifySignature(h, s.packet); err != nil {
		return fmt.Errorf("does not match the message: %w", err)
	}
	// VerifySignature has written the trailer into h, so this is the digest
	// that was signed.
	if digest := h.Sum(nil); [2]byte(digest) != s.tag {
		return errors.New("leading digest bytes are wrong")
	}
	return nil
}

// digests maps the digest ids of RFC 9580 section 9.5 that may be used.
var digests = map[byte]crypto.Hash{8: crypto.SHA256, 9: crypto.SHA384, 10: crypto.SHA512}

func strongDigest(h crypto.Hash) bool {
	return h == crypto.SHA256 || h == crypto.SHA384 || h == crypto.SHA512
}

func digestName(id byte) string {
	names := map[byte]string{1: "MD5", 2: "SHA-1", 3: "RIPEMD-160", 11: "SHA-224", 12: "SHA3-256", 14: "SHA3-512"}
	if name, ok := names[id]; ok {
		return name
	}
	return fmt.Sprint(id)
}

// cutArea cuts a subpacket area with its two-byte length off b.
func cutArea(b []byte) (area, rest []byte, err error) {
	if len(b) < 2 {
		return nil, nil, errTruncated
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < n {
		return nil, nil, errTruncated
	}
	return b[:n], b[n:], nil
}

type subpacket struct {
	kind     byte
	critical bool
	body     []byte
}

// cutSubpacket reads RFC 9580 section 5.2.3.7.
func cutSubpacket(b []byte) (s subpacket, rest []byte, err error) {
	var n int
	switch l := b[0]; {
	case l < 192:
		n, b = int(l), b[1:]
	case l < 255:
		if len(b) < 2 {
			return s, nil, errTruncated
		}
		n, b = int(l-192)<<8+int(b[1])+192, b[2:]
	default:
		// An area has at most 65,535 bytes; nothing in a document signature
		// needs the five-byte form.
		return s, nil, errors.New("subpacket length is not in its shortest form")
	}
	if n == 0 || n > len(b) {
		return s, nil, errTruncated
	}
	return subpacket{kind: b[0] & 0x7f, critical: b[0]&0x80 != 0, body: b[1:n]}, b[n:], nil
}

// cutNumber cuts a multiprecision integer off b (RFC 9580 section 3.2). Its bit
// count must be exact: the library takes any count that rounds to the same
// number of bytes.
func cutNumber(b []byte) (rest []byte, err error) {
	if len(b) < 2 {
		return nil, errTruncated
	}
	count := int(binary.BigEndian.Uint16(b))
	n := (count + 7) / 8
	if b = b[2:]; len(b) < n {
		return nil, errTruncated
	}
	if n == 0 || bits.Len8(b[0]) != count-8*(n-1) {
		return nil, errors.New("a number is not in its shortest form")
	}
	return b[n:], nil
}
