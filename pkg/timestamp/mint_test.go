package timestamp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// authority is a TSA that does whatever a test asks of it.
type authority struct {
	root, cert *x509.Certificate
	key        crypto.Signer
	rootKey    crypto.Signer
}

var minted = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newKey(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "rsa-1024":
		t.Setenv("GODEBUG", "rsa1024min=0")
		key, err = rsa.GenerateKey(rand.Reader, 1024)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "p384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	assert.NilError(t, err)
	return key
}

// newAuthority makes a root and a signer's certificate, which edit may spoil.
func newAuthority(t testing.TB, kind string, edit func(*x509.Certificate)) authority {
	t.Helper()
	a := authority{rootKey: newKey(t, "p256"), key: newKey(t, kind)}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"},
		NotBefore: minted.AddDate(-5, 0, 0), NotAfter: minted.AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	a.root = certify(t, root, root, a.rootKey.Public(), a.rootKey)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "tsa"},
		NotBefore: minted.AddDate(-1, 0, 0), NotAfter: minted.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, SubjectKeyId: []byte("the signer's key id"),
		ExtraExtensions: []pkix.Extension{{Id: oidExtKeyUsage, Critical: true, Value: tlv(tagSequence, oid(oidTimeStamping))}},
	}
	if edit != nil {
		edit(leaf)
	}
	a.cert = certify(t, leaf, a.root, a.key.Public(), a.rootKey)
	return a
}

func certify(t testing.TB, c, parent *x509.Certificate, key crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, by)
	assert.NilError(t, err)
	made, err := x509.ParseCertificate(der)
	assert.NilError(t, err)
	return made
}

// tlv writes one DER value.
func tlv(tag byte, parts ...[]byte) []byte {
	content := slices.Concat(parts...)
	n := len(content)
	switch {
	case n < 0x80:
		return slices.Concat([]byte{tag, byte(n)}, content)
	case n < 0x100:
		return slices.Concat([]byte{tag, 0x81, byte(n)}, content)
	}
	return slices.Concat([]byte{tag, 0x82, byte(n >> 8), byte(n)}, content)
}

func der(v any) []byte {
	b, err := asn1.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func oid(o asn1.ObjectIdentifier) []byte { return der(o) }
func integer(n int64) []byte             { return der(n) }
func algorithm(o asn1.ObjectIdentifier) []byte {
	return tlv(tagSequence, oid(o), derNull)
}

func hashID(h crypto.Hash) asn1.ObjectIdentifier {
	for _, x := range hashes {
		if x.hash == h {
			return x.id
		}
	}
	return asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26} // SHA-1
}

// recipe is a response, field by field. A test changes what it is about.
type recipe struct {
	status, afterResponse []byte

	infoVersion                              int64
	policy                                   asn1.ObjectIdentifier
	imprint                                  []byte
	time, accuracy, ordering, nonce, tsa, ex []byte
	afterInfo                                []byte

	signedVersion                               int64
	contentType, eContentType, attrContentType  asn1.ObjectIdentifier
	certificates                                []byte
	signers                                     int
	signerVersion                               int64
	sid                                         []byte
	hash                                        crypto.Hash
	signatureAlgorithm                          []byte
	attributes                                  [][]byte // beside type, digest and certificate
	noAttributes, noType, noDigest, noCert, pss bool
	unsorted                                    bool
	wrongDigest                                 bool
	certID                                      []byte // the attribute's value
	certIDType                                  asn1.ObjectIdentifier
	spoilSignature                              bool
	signWith                                    crypto.Signer
}

func (a authority) recipe(data []byte) *recipe {
	sum := sha256.Sum256(data)
	cert := sha256.Sum256(a.cert.Raw)
	return &recipe{
		status:      tlv(tagSequence, integer(0)),
		infoVersion: 1, policy: asn1.ObjectIdentifier{1, 2, 3, 4},
		imprint:       tlv(tagSequence, algorithm(hashID(crypto.SHA256)), tlv(tagOctets, sum[:])),
		time:          tlv(tagTime, []byte("20260301120000Z")),
		signedVersion: 3, contentType: oidSignedData, eContentType: oidTSTInfo, attrContentType: oidTSTInfo,
		certificates: tlv(tagContext0, a.cert.Raw), signers: 1, signerVersion: 1,
		sid:      tlv(tagSequence, a.cert.RawIssuer, der(a.cert.SerialNumber)),
		hash:     crypto.SHA256,
		certID:   tlv(tagSequence, tlv(tagSequence, tlv(tagSequence, tlv(tagOctets, cert[:])))),
		signWith: a.key, certIDType: oidSigningCertV2,
	}
}

func (r *recipe) info() []byte {
	return slices.Concat(tlv(
		tagSequence, integer(r.infoVersion), oid(r.policy), r.imprint, integer(42), r.time,
		r.accuracy, r.ordering, r.nonce, r.tsa, r.ex,
	), r.afterInfo)
}

func attribute(id asn1.ObjectIdentifier, values ...[]byte) []byte {
	return tlv(tagSequence, oid(id), tlv(tagSet, values...))
}

func (r *recipe) token(t testing.TB) []byte {
	t.Helper()
	info := r.info()
	h := r.hash.New()
	h.Write(info)
	digest := h.Sum(nil)
	if r.wrongDigest {
		digest[0] ^= 1
	}
	var attrs [][]byte
	if !r.noType {
		attrs = append(attrs, attribute(oidContentType, oid(r.attrContentType)))
	}
	if !r.noDigest {
		attrs = append(attrs, attribute(oidMessageDigest, tlv(tagOctets, digest)))
	}
	if !r.noCert {
		attrs = append(attrs, attribute(r.certIDType, r.certID))
	}
	attrs = append(attrs, r.attributes...)
	slices.SortStableFunc(attrs, bytes.Compare)
	if r.unsorted {
		slices.Reverse(attrs)
	}
	signed := tlv(tagSet, attrs...)
	if r.noAttributes {
		signed = info
	}
	algo := r.signatureAlgorithm
	opts := crypto.SignerOpts(r.hash)
	if algo == nil {
		switch r.signWith.(type) {
		case *rsa.PrivateKey:
			algo = algorithm(oidRSA)
		case ed25519.PrivateKey:
			algo = tlv(tagSequence, oid(oidEd25519))
		default:
			for _, x := range hashes {
				if x.hash == r.hash {
					algo = tlv(tagSequence, oid(x.ecdsa))
				}
			}
		}
	}
	if r.pss {
		id := algorithm(hashID(r.hash))
		algo = tlv(tagSequence, oid(oidPSS), tlv(tagSequence,
			tlv(tagContext0, id), tlv(tagContext1, tlv(tagSequence, oid(oidMGF1), id)), tlv(0xa2, integer(32))))
		opts = &rsa.PSSOptions{SaltLength: 32, Hash: r.hash}
	}
	message := signed
	if _, ok := r.signWith.(ed25519.PrivateKey); ok {
		opts = crypto.Hash(0)
	} else {
		h := r.hash.New()
		h.Write(signed)
		message = h.Sum(nil)
	}
	signature, err := r.signWith.Sign(rand.Reader, message, opts)
	assert.NilError(t, err)
	if r.spoilSignature {
		signature[len(signature)-1] ^= 1
	}
	attrField := append([]byte{tagContext0}, signed[1:]...)
	if r.noAttributes {
		attrField = nil
	}
	signer := tlv(tagSequence, integer(r.signerVersion), r.sid, algorithm(hashID(r.hash)), attrField, algo, tlv(tagOctets, signature))
	return tlv(tagSequence, oid(r.contentType), tlv(tagContext0, tlv(
		tagSequence, integer(r.signedVersion), tlv(tagSet, algorithm(hashID(r.hash))),
		tlv(tagSequence, oid(r.eContentType), tlv(tagContext0, tlv(tagOctets, info))),
		r.certificates, tlv(tagSet, slices.Repeat(signer, r.signers)),
	)))
}

func (r *recipe) response(t testing.TB) []byte {
	t.Helper()
	return slices.Concat(tlv(tagSequence, r.status, r.token(t)), r.afterResponse)
}

// essV1 names a certificate as RFC 2634 does, with SHA-1.
func essV1(c *x509.Certificate, issuerSerial bool) []byte {
	sum := sha1.Sum(c.Raw)
	id := tlv(tagOctets, sum[:])
	if issuerSerial {
		id = slices.Concat(id, tlv(tagSequence, tlv(tagSequence, tlv(tagContext4, c.RawIssuer)), der(c.SerialNumber)))
	}
	return tlv(tagSequence, tlv(tagSequence, tlv(tagSequence, id)))
}
