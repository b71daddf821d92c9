package timestamp

import (
	"crypto"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
)

// Request is a time-stamp request (RFC 3161 section 2.4.1) for a digest.
type Request struct {
	Hash   crypto.Hash // SHA-256, SHA-384 or SHA-512
	Digest []byte
	Nonce  *big.Int              // ties the answer to this request; nil for none
	Policy asn1.ObjectIdentifier // nil leaves it to the TSA
}

// NewRequest digests data with SHA-256 and takes a nonce of 64 bits from random.
func NewRequest(data, random io.Reader) (Request, error) {
	digest, err := digestOf(crypto.SHA256.New(), data)
	if err != nil {
		return Request{}, err
	}
	var nonce [8]byte
	if _, err := io.ReadFull(random, nonce[:]); err != nil {
		return Request{}, err
	}
	nonce[0] |= 0x80 // never short, so that no two implementations differ on leading zeros
	return Request{Hash: crypto.SHA256, Digest: digest, Nonce: new(big.Int).SetBytes(nonce[:])}, nil
}

// Marshal returns the DER that a TSA is sent. It asks for the signer's
// certificate, without which a token cannot be verified years later.
func (r Request) Marshal() ([]byte, error) {
	id := asn1.ObjectIdentifier(nil)
	for _, h := range hashes {
		if h.hash == r.Hash {
			id = h.id
		}
	}
	if id == nil || len(r.Digest) != r.Hash.Size() {
		return nil, fmt.Errorf("time-stamp request: a digest of %d bytes, want one of SHA-256, SHA-384 or SHA-512", len(r.Digest))
	}
	type algorithm struct {
		ID   asn1.ObjectIdentifier
		Null asn1.RawValue
	}
	type imprint struct {
		Hash   algorithm
		Digest []byte
	}
	return asn1.Marshal(struct {
		Version int
		Imprint imprint
		Policy  asn1.ObjectIdentifier `asn1:"optional"`
		Nonce   *big.Int              `asn1:"optional"`
		CertReq bool
	}{1, imprint{algorithm{id, asn1.NullRawValue}, r.Digest}, r.Policy, r.Nonce, true})
}

// ParseRequest reads a request, such as a .tsq file.
func ParseRequest(der []byte) (r Request, err error) {
	outer := in("time-stamp request", der)
	s := in("time-stamp request", outer.take(tagSequence, "TimeStampReq").content)
	if err := outer.end(); err != nil {
		return Request{}, err
	}
	if v := s.small("version"); s.err == nil && v != 1 {
		s.fail("version: found %d, wanted 1", v)
	}
	imprint := in("time-stamp request: messageImprint", s.take(tagSequence, "messageImprint").content)
	if s.err != nil {
		return Request{}, s.err
	}
	algorithm := imprint.algorithm("hashAlgorithm")
	r.Digest = imprint.take(tagOctets, "hashedMessage").content
	if err := imprint.end(); err != nil {
		return Request{}, err
	}
	if r.Hash, err = hashOf(algorithm); err != nil || len(r.Digest) != r.Hash.Size() {
		return Request{}, fmt.Errorf("time-stamp request: want a digest of SHA-256, SHA-384 or SHA-512")
	}
	if s.peek(tagOID) {
		r.Policy = s.oid("reqPolicy")
	}
	if s.peek(tagInteger) {
		r.Nonce = s.integer("nonce")
	}
	if s.peek(tagBoolean) {
		s.boolean("certReq")
	}
	if s.peek(tagContext0) {
		s.next("extensions")
	}
	return r, s.end()
}
