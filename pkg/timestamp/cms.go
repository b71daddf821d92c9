package timestamp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // ESSCertID has no other (RFC 2634 section 5.4)
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

var (
	oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidTSTInfo    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}

	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningCert   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 12}
	oidSigningCertV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}

	oidRSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidPSS     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}
)

// hashes are the digests that are believed. SHA-1 is not among them.
var hashes = []struct {
	hash       crypto.Hash
	id         asn1.ObjectIdentifier
	rsa, ecdsa asn1.ObjectIdentifier // signature algorithms that name the hash
}{
	{
		crypto.SHA256,
		asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1},
		asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11},
		asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2},
	},
	{
		crypto.SHA384,
		asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2},
		asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12},
		asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3},
	},
	{
		crypto.SHA512,
		asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3},
		asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13},
		asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4},
	},
}

var derNull = []byte{tagNull, 0}

func noParameters(a pkix.AlgorithmIdentifier) bool {
	return len(a.Parameters.FullBytes) == 0 || bytes.Equal(a.Parameters.FullBytes, derNull)
}

func hashOf(a pkix.AlgorithmIdentifier) (crypto.Hash, error) {
	for _, h := range hashes {
		if h.id.Equal(a.Algorithm) && noParameters(a) {
			return h.hash, nil
		}
	}
	return 0, fmt.Errorf("hash %s: want SHA-256, SHA-384 or SHA-512", a.Algorithm)
}

// signedData is the CMS structure (RFC 5652 section 5) with its one signer.
type signedData struct {
	content      []byte
	certificates []*x509.Certificate

	// Of the signer: who, by name and number or by key id.
	issuer    []byte
	serial    *big.Int
	keyID     []byte
	hash      crypto.Hash
	attrs     []byte // as they are signed: a SET
	digest    []byte // of the content, as the attributes say
	certIDs   []certID
	algo      pkix.AlgorithmIdentifier
	signature []byte
}

// certID names the signer's certificate by its hash (RFC 2634, RFC 5035).
type certID struct {
	hash   crypto.Hash
	sum    []byte
	serial *big.Int // nil when the optional issuer and serial are absent
	issuer []byte   // a Name
}

func parseSignedData(token element) (s signedData, err error) {
	r := in("token", token.content)
	if id := r.oid("contentType"); r.err == nil && !id.Equal(oidSignedData) {
		r.fail("contentType: found %s, wanted SignedData", id)
	}
	explicit := in("token", r.take(tagContext0, "content").content)
	if err := r.end(); err != nil {
		return s, err
	}
	d := in("SignedData", explicit.take(tagSequence, "SignedData").content)
	if err := explicit.end(); err != nil {
		return s, err
	}
	if v := d.small("version"); d.err == nil && v != 3 {
		d.fail("version: found %d, wanted 3", v)
	}
	d.take(tagSet, "digestAlgorithms")
	encap := in("encapContentInfo", d.take(tagSequence, "encapContentInfo").content)
	if d.err != nil {
		return s, d.err
	}
	if id := encap.oid("eContentType"); encap.err == nil && !id.Equal(oidTSTInfo) {
		encap.fail("eContentType: found %s, wanted TSTInfo", id)
	}
	octets := in("eContent", encap.take(tagContext0, "eContent").content)
	if err := encap.end(); err != nil {
		return s, err
	}
	s.content = octets.take(tagOctets, "eContent").content
	if err := octets.end(); err != nil {
		return s, err
	}
	if d.peek(tagContext0) {
		certs := in("certificates", d.next("certificates").content)
		for certs.more() {
			// What does not parse can be nobody's certificate.
			if c, err := x509.ParseCertificate(certs.next("certificate").raw); err == nil {
				s.certificates = append(s.certificates, c)
			}
		}
		if err := certs.end(); err != nil {
			return s, err
		}
	}
	if d.peek(tagContext1) {
		d.next("crls")
	}
	signers := in("signerInfos", d.take(tagSet, "signerInfos").content)
	if err := d.end(); err != nil {
		return s, err
	}
	signer := signers.take(tagSequence, "SignerInfo")
	if signers.more() {
		signers.fail("found more than one signer, wanted one")
	}
	if err := signers.end(); err != nil {
		return s, err
	}
	return s, s.parseSigner(signer.content)
}

func (s *signedData) parseSigner(content []byte) (err error) {
	r := in("SignerInfo", content)
	version, want := r.small("version"), int64(1)
	if r.peek(tagImplied0) {
		want = 3
		s.keyID = r.next("subjectKeyIdentifier").content
	} else {
		sid := in("issuerAndSerialNumber", r.take(tagSequence, "sid").content)
		if r.err != nil {
			return r.err
		}
		s.issuer = sid.take(tagSequence, "issuer").raw
		s.serial = sid.integer("serialNumber")
		if err := sid.end(); err != nil {
			return err
		}
	}
	if r.err == nil && version != want {
		r.fail("version: found %d, wanted %d", version, want)
	}
	digestAlgorithm := r.algorithm("digestAlgorithm")
	if !r.peek(tagContext0) {
		r.fail("no signed attributes")
		return r.err
	}
	attrs := r.next("signedAttrs")
	if r.err != nil {
		return r.err
	}
	// RFC 5652 section 5.4: what is signed has the tag of a SET.
	s.attrs = append([]byte{tagSet}, attrs.raw[1:]...)
	s.algo = r.algorithm("signatureAlgorithm")
	s.signature = r.take(tagOctets, "signature").content
	if r.peek(tagContext1) {
		r.next("unsignedAttrs")
	}
	if err := r.end(); err != nil {
		return err
	}
	if s.hash, err = hashOf(digestAlgorithm); err != nil {
		return fmt.Errorf("SignerInfo: digestAlgorithm: %w", err)
	}
	return s.parseAttributes(attrs.content)
}

func (s *signedData) parseAttributes(content []byte) error {
	r := in("signed attributes", content)
	seen := map[string]bool{}
	var before []byte
	for r.more() {
		whole := r.take(tagSequence, "attribute")
		a := in("signed attribute", whole.content)
		id := a.oid("attrType")
		values := in("signed attribute "+id.String(), a.take(tagSet, "attrValues").content)
		if err := errors.Join(r.err, a.end()); err != nil {
			return err
		}
		if seen[id.String()] {
			return fmt.Errorf("signed attribute %s is there twice", id)
		}
		seen[id.String()] = true
		// RFC 5652 section 5.3: the signed attributes are DER, where a SET OF is
		// in the order of its encodings. Verifiers that encode anew before they
		// hash would disagree about any other order.
		if bytes.Compare(before, whole.raw) > 0 {
			return fmt.Errorf("signed attribute %s is out of order, wanted DER", id)
		}
		before = whole.raw
		switch {
		case id.Equal(oidContentType):
			if t := values.oid("value"); values.err == nil && !t.Equal(oidTSTInfo) {
				values.fail("found %s, wanted TSTInfo", t)
			}
		case id.Equal(oidMessageDigest):
			s.digest = values.take(tagOctets, "value").content
		case id.Equal(oidSigningCert):
			s.parseCertIDs(values, crypto.SHA1)
		case id.Equal(oidSigningCertV2):
			s.parseCertIDs(values, crypto.SHA256)
		default:
			continue
		}
		if err := values.end(); err != nil {
			return err
		}
	}
	switch {
	case r.err != nil:
		return r.err
	case !seen[oidContentType.String()]:
		return errors.New("signed attributes: no content type")
	case !seen[oidMessageDigest.String()]:
		return errors.New("signed attributes: no message digest")
	case len(s.certIDs) == 0:
		return errors.New("signed attributes: the signer's certificate is not named")
	}
	return nil
}

// parseCertIDs reads the first certificate that a SigningCertificate names: the
// signer's. The others are of its chain and not looked at.
func (s *signedData) parseCertIDs(outer *reader, h crypto.Hash) {
	list := in(outer.what, outer.take(tagSequence, "SigningCertificate").content)
	certs := in(outer.what, list.take(tagSequence, "certs").content)
	r := in(outer.what, certs.take(tagSequence, "ESSCertID").content)
	id := certID{hash: h}
	if outer.err == nil && list.err == nil && certs.err == nil {
		if h != crypto.SHA1 && r.peek(tagSequence) {
			var err error
			if id.hash, err = hashOf(r.algorithm("hashAlgorithm")); err != nil {
				r.fail("%v", err)
			}
		}
		id.sum = r.take(tagOctets, "certHash").content
		if r.peek(tagSequence) {
			issuerSerial := in(outer.what, r.next("issuerSerial").content)
			names := in(outer.what, issuerSerial.take(tagSequence, "issuer").content)
			if names.peek(tagContext4) {
				id.issuer = names.next("directoryName").content
			} else {
				issuerSerial.fail("issuer: wanted one directory name")
			}
			id.serial = issuerSerial.integer("serialNumber")
			if err := errors.Join(issuerSerial.end(), names.end()); err != nil {
				r.fail("issuerSerial: %v", err)
			}
		}
	}
	if list.peek(tagSequence) {
		list.next("policies")
	}
	if err := errors.Join(list.err, certs.err, r.end(), list.end()); err != nil {
		outer.fail("%v", err)
		return
	}
	s.certIDs = append(s.certIDs, id)
}

func (id certID) names(c *x509.Certificate) bool {
	var sum []byte
	if id.hash == crypto.SHA1 {
		s := sha1.Sum(c.Raw) //nolint:gosec // it names a certificate, beside a signature that vouches for it
		sum = s[:]
	} else {
		h := id.hash.New()
		h.Write(c.Raw)
		sum = h.Sum(nil)
	}
	return bytes.Equal(sum, id.sum) &&
		(id.serial == nil || id.serial.Cmp(c.SerialNumber) == 0 && bytes.Equal(id.issuer, c.RawIssuer))
}

// verify finds the signer's certificate, among those of the token and others,
// and verifies the signature with it.
func (s *signedData) verify(others []*x509.Certificate) (*x509.Certificate, error) {
	h := s.hash.New()
	h.Write(s.content)
	if digest := h.Sum(nil); !bytes.Equal(digest, s.digest) {
		return nil, fmt.Errorf("the signed digest %x is not that of the content, %x", s.digest, digest)
	}
	signer, err := s.signer(others)
	if err != nil {
		return nil, err
	}
	if err := s.checkSignature(signer.PublicKey); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	return signer, nil
}

func (s *signedData) signer(others []*x509.Certificate) (*x509.Certificate, error) {
	for _, c := range append(append([]*x509.Certificate{}, s.certificates...), others...) {
		if s.keyID != nil {
			if !bytes.Equal(c.SubjectKeyId, s.keyID) {
				continue
			}
		} else if !bytes.Equal(c.RawIssuer, s.issuer) || c.SerialNumber.Cmp(s.serial) != 0 {
			continue
		}
		named := true
		for _, id := range s.certIDs {
			named = named && id.names(c)
		}
		if named {
			return c, nil
		}
	}
	return nil, fmt.Errorf("the signer's certificate is not among the %d of the token and %d others, or is not the one that the signature names", len(s.certificates), len(others))
}

func (s *signedData) checkSignature(key crypto.PublicKey) error {
	h := s.hash.New()
	h.Write(s.attrs)
	digest := h.Sum(nil)
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < 2048 {
			return fmt.Errorf("RSA key of %d bits, wanted 2048 or more", key.N.BitLen())
		}
		if s.algo.Algorithm.Equal(oidPSS) {
			salt, err := pssSalt(s.algo.Parameters.FullBytes, s.hash)
			if err != nil {
				return err
			}
			return rsa.VerifyPSS(key, s.hash, digest, s.signature, &rsa.PSSOptions{SaltLength: salt, Hash: s.hash})
		}
		if !noParameters(s.algo) {
			return fmt.Errorf("algorithm %s with parameters", s.algo.Algorithm)
		}
		if !s.algo.Algorithm.Equal(oidRSA) && !s.names(func(rsa, _ asn1.ObjectIdentifier) asn1.ObjectIdentifier { return rsa }) {
			return fmt.Errorf("algorithm %s does not go with an RSA key and %s", s.algo.Algorithm, s.hash)
		}
		return rsa.VerifyPKCS1v15(key, s.hash, digest, s.signature)
	case *ecdsa.PublicKey:
		if !noParameters(s.algo) || !s.names(func(_, ecdsa asn1.ObjectIdentifier) asn1.ObjectIdentifier { return ecdsa }) {
			return fmt.Errorf("algorithm %s does not go with an ECDSA key and %s", s.algo.Algorithm, s.hash)
		}
		if !ecdsa.VerifyASN1(key, digest, s.signature) {
			return errors.New("it is not this key's")
		}
		return nil
	case ed25519.PublicKey:
		// RFC 8419: the attributes themselves are signed.
		if !s.algo.Algorithm.Equal(oidEd25519) || len(s.algo.Parameters.FullBytes) > 0 || s.hash != crypto.SHA512 {
			return fmt.Errorf("algorithm %s does not go with an Ed25519 key and %s", s.algo.Algorithm, s.hash)
		}
		if !ed25519.Verify(key, s.attrs, s.signature) {
			return errors.New("it is not this key's")
		}
		return nil
	}
	return fmt.Errorf("key %T: want RSA, ECDSA or Ed25519", key)
}

// names reports whether the signature's algorithm is the one of its hash.
func (s *signedData) names(of func(rsa, ecdsa asn1.ObjectIdentifier) asn1.ObjectIdentifier) bool {
	for _, h := range hashes {
		if h.hash == s.hash {
			return of(h.rsa, h.ecdsa).Equal(s.algo.Algorithm)
		}
	}
	return false
}

// pssSalt reads RSASSA-PSS-params (RFC 4055 section 3.1): one hash throughout,
// MGF1, and a salt.
func pssSalt(params []byte, want crypto.Hash) (int, error) {
	outer := in("RSASSA-PSS", params)
	r := in("RSASSA-PSS", outer.take(tagSequence, "parameters").content)
	if err := outer.end(); err != nil {
		return 0, err
	}
	explicit := in("RSASSA-PSS hash", r.take(tagContext0, "hashAlgorithm").content)
	hash, err1 := hashOf(explicit.algorithm("hashAlgorithm"))
	mask := in("RSASSA-PSS mask", r.take(tagContext1, "maskGenAlgorithm").content)
	gen := mask.algorithm("maskGenAlgorithm")
	inner := in("RSASSA-PSS mask", gen.Parameters.FullBytes)
	maskHash, err2 := hashOf(inner.algorithm("hash"))
	salt := in("RSASSA-PSS salt", r.take(0xa2, "saltLength").content)
	length := salt.small("saltLength")
	if err := errors.Join(r.end(), explicit.end(), mask.end(), inner.end(), salt.end(), err1, err2); err != nil {
		return 0, err
	}
	if hash != want || maskHash != want || !gen.Algorithm.Equal(oidMGF1) || length < 0 || length > 64 {
		return 0, errors.New("RSASSA-PSS: wanted one hash, MGF1, and a salt of at most 64 bytes")
	}
	return int(length), nil
}
