package timestamp

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

var data = []byte("what was known\n")

func (a authority) options() Options {
	return Options{Roots: []*x509.Certificate{a.root}, Now: minted.Add(time.Hour)}
}

func verifyWith(response []byte, opts Options) (*Verified, error) {
	return Verify(response, bytes.NewReader(data), opts)
}

func TestGoodTokensVerify(t *testing.T) {
	a := newAuthority(t, "p256", nil)
	sum512 := sha512.Sum512(data)
	for name, edit := range map[string]func(*recipe, *Options){
		"plain":                func(*recipe, *Options) {},
		"granted with changes": func(r *recipe, _ *Options) { r.status = tlv(tagSequence, integer(1)) },
		"status text": func(r *recipe, _ *Options) {
			r.status = tlv(tagSequence, integer(0), tlv(tagSequence, tlv(tagUTF8, []byte("Operation Okay"))))
		},
		"nonce":                      func(r *recipe, o *Options) { r.nonce, o.Nonce = integer(99), big.NewInt(99) },
		"policy":                     func(_ *recipe, o *Options) { o.Policy = asn1.ObjectIdentifier{1, 2, 3, 4} },
		"certificate named by SHA-1": func(r *recipe, _ *Options) { r.certIDType, r.certID = oidSigningCert, essV1(a.cert, false) },
		"with issuer and serial":     func(r *recipe, _ *Options) { r.certIDType, r.certID = oidSigningCert, essV1(a.cert, true) },
		"ordering, tsa, extension": func(r *recipe, _ *Options) {
			r.ordering = tlv(tagBoolean, []byte{0xff})
			r.tsa = tlv(tagContext0, tlv(tagContext4, a.cert.RawSubject))
			r.ex = tlv(tagContext1, tlv(tagSequence, oid(asn1.ObjectIdentifier{1, 2, 3}), tlv(tagOctets, nil)))
		},
		"key id": func(r *recipe, _ *Options) { r.signerVersion, r.sid = 3, tlv(tagImplied0, a.cert.SubjectKeyId) },
		"SHA-512 imprint": func(r *recipe, _ *Options) {
			r.imprint = tlv(tagSequence, algorithm(hashID(crypto.SHA512)), tlv(tagOctets, sum512[:]))
		},
		"SHA-384 signature":        func(r *recipe, _ *Options) { r.hash = crypto.SHA384 },
		"fraction of a second":     func(r *recipe, _ *Options) { r.time = tlv(tagTime, []byte("20260301120000.25Z")) },
		"signer not carried along": func(r *recipe, o *Options) { r.certificates, o.Untrusted = nil, []*x509.Certificate{a.cert} },
		"pinned":                   func(_ *recipe, o *Options) { o.Pins = []Pin{{SPKI: SPKI(a.cert), From: minted, Until: minted}} },
		"signer expired since":     func(_ *recipe, o *Options) { o.Now = minted.AddDate(10, 0, 0) },
		"another attribute": func(r *recipe, _ *Options) {
			r.attributes = [][]byte{attribute(asn1.ObjectIdentifier{1, 2, 3}, integer(1))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, opts := a.recipe(data), a.options()
			edit(r, &opts)
			v, err := verifyWith(r.response(t), opts)
			assert.NilError(t, err)
			assert.Equal(t, v.Time.Truncate(time.Second), minted)
			assert.DeepEqual(t, v.Serial.Int64(), int64(42))
			assert.Equal(t, v.SignerSPKI(), SPKI(a.cert))
			assert.Equal(t, SPKI(v.Root), SPKI(a.root))
		})
	}
	t.Run("bare token", func(t *testing.T) {
		_, err := verifyWith(a.recipe(data).token(t), a.options())
		assert.NilError(t, err)
	})
	t.Run("accuracy", func(t *testing.T) {
		r := a.recipe(data)
		r.accuracy = tlv(tagSequence, integer(1), tlv(tagImplied0, []byte{1, 0xf4}), tlv(tagImplied1, []byte{7}))
		v, err := verifyWith(r.response(t), a.options())
		assert.NilError(t, err)
		assert.Equal(t, v.Accuracy, time.Second+500*time.Millisecond+7*time.Microsecond)
	})
}

func TestEveryKindOfKeyVerifies(t *testing.T) {
	for _, kind := range []string{"rsa", "pss", "p256", "p384", "ed25519"} {
		t.Run(kind, func(t *testing.T) {
			a := newAuthority(t, strings.Replace(kind, "pss", "rsa", 1), nil)
			r := a.recipe(data)
			r.pss = kind == "pss"
			if kind == "ed25519" {
				r.hash = crypto.SHA512
			}
			_, err := verifyWith(r.response(t), a.options())
			assert.NilError(t, err)
			r.spoilSignature = true
			_, err = verifyWith(r.response(t), a.options())
			assert.ErrorContains(t, err, "signature")
		})
	}
}

// Each case breaks one check and no other.
func TestBadTokensAreRefused(t *testing.T) {
	a := newAuthority(t, "p256", nil)
	other := newAuthority(t, "p256", nil)
	sum1 := essV1(a.cert, false)
	critical := tlv(tagContext1, tlv(tagSequence, oid(asn1.ObjectIdentifier{1, 2, 3}), tlv(tagBoolean, []byte{0xff}), tlv(tagOctets, nil)))
	for _, tc := range []struct {
		name string
		edit func(*recipe, *Options)
		err  string
	}{
		{"rejected", func(r *recipe, _ *Options) { r.status = tlv(tagSequence, integer(2)) }, "granted no token: status 2"},
		{"waiting", func(r *recipe, _ *Options) { r.status = tlv(tagSequence, integer(3)) }, "status 3"},
		{"bytes after the response", func(r *recipe, _ *Options) { r.afterResponse = []byte{0} }, "1 bytes after its last field"},
		{"bytes after TSTInfo", func(r *recipe, _ *Options) { r.afterInfo = []byte{5, 0} }, "TSTInfo: 2 bytes after its last field"},
		{"TSTInfo version", func(r *recipe, _ *Options) { r.infoVersion = 2 }, "TSTInfo: version: found 2, wanted 1"},
		{"not signed data", func(r *recipe, _ *Options) { r.contentType = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1} }, "wanted SignedData"},
		{"signed data version", func(r *recipe, _ *Options) { r.signedVersion = 1 }, "SignedData: version: found 1, wanted 3"},
		{"content is data", func(r *recipe, _ *Options) { r.eContentType = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1} }, "eContentType"},
		{"signed content type is data", func(r *recipe, _ *Options) { r.attrContentType = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1} }, "wanted TSTInfo"},
		{"no signed content type", func(r *recipe, _ *Options) { r.noType = true }, "no content type"},
		{"no signed digest", func(r *recipe, _ *Options) { r.noDigest = true }, "no message digest"},
		{"another signed digest", func(r *recipe, _ *Options) { r.wrongDigest = true }, "is not that of the content"},
		{"no signed attributes", func(r *recipe, _ *Options) { r.noAttributes = true }, "no signed attributes"},
		{"an attribute twice", func(r *recipe, _ *Options) { r.attributes = [][]byte{attribute(oidContentType, oid(oidTSTInfo))} }, "is there twice"},
		{"an attribute of two values", func(r *recipe, _ *Options) {
			r.noType = true
			r.attributes = [][]byte{attribute(oidContentType, oid(oidTSTInfo), oid(oidTSTInfo))}
		}, "after its last field"},
		{"certificate not named", func(r *recipe, _ *Options) { r.noCert = true }, "certificate is not named"},
		{"another certificate named", func(r *recipe, _ *Options) { r.certIDType, r.certID = oidSigningCert, essV1(other.cert, false) }, "not the one that the signature names"},
		{"two names, one of another", func(r *recipe, _ *Options) {
			r.attributes = [][]byte{attribute(oidSigningCert, essV1(other.cert, false))}
		}, "not the one that the signature names"},
		{"another issuer named", func(r *recipe, _ *Options) {
			c := *a.cert
			c.RawIssuer = a.cert.RawSubject
			r.certIDType, r.certID = oidSigningCert, essV1(&c, true)
		}, "not the one that the signature names"},
		{"SHA-1 where SHA-256 is meant", func(r *recipe, _ *Options) { r.certID = sum1 }, "not the one that the signature names"},
		{"no signer", func(r *recipe, _ *Options) { r.signers = 0 }, "signerInfos"},
		{"no signer and no certificate", func(r *recipe, _ *Options) { r.signers, r.certificates = 0, nil }, "signerInfos"},
		{"two signers", func(r *recipe, _ *Options) { r.signers = 2 }, "more than one signer"},
		{"signer version", func(r *recipe, _ *Options) { r.signerVersion = 3 }, "SignerInfo: version: found 3, wanted 1"},
		{"signature", func(r *recipe, _ *Options) { r.spoilSignature = true }, "signature: it is not this key's"},
		{"signed by another key", func(r *recipe, _ *Options) { r.signWith = other.key }, "signature: it is not this key's"},
		{"another algorithm", func(r *recipe, _ *Options) { r.signatureAlgorithm = algorithm(oidRSA) }, "does not go with an ECDSA key"},
		{"no certificate", func(r *recipe, _ *Options) { r.certificates = nil }, "the signer's certificate is not among the 0"},
		{"other data", func(r *recipe, _ *Options) { r.imprint = a.recipe([]byte("else")).imprint }, "it is of other data"},
		{"SHA-1 imprint", func(r *recipe, _ *Options) {
			r.imprint = tlv(tagSequence, algorithm(hashID(0)), tlv(tagOctets, make([]byte, 20)))
		}, "want SHA-256, SHA-384 or SHA-512"},
		{"imprint of another length", func(r *recipe, _ *Options) {
			r.imprint = tlv(tagSequence, algorithm(hashID(crypto.SHA256)), tlv(tagOctets, make([]byte, 20)))
		}, "found 20 bytes, wanted 32"},
		{"nonce differs", func(r *recipe, o *Options) { r.nonce, o.Nonce = integer(98), big.NewInt(99) }, "its nonce is 62, the request's 63"},
		{"nonce absent", func(_ *recipe, o *Options) { o.Nonce = big.NewInt(99) }, "it has no nonce"},
		{"policy differs", func(_ *recipe, o *Options) { o.Policy = asn1.ObjectIdentifier{1, 2, 3, 5} }, "its policy is 1.2.3.4, wanted 1.2.3.5"},
		{"critical extension", func(r *recipe, _ *Options) { r.ex = critical }, "1.2.3 is critical and not known here"},
		{"future", func(r *recipe, _ *Options) { r.time = tlv(tagTime, []byte("20260301130501Z")) }, "is in the future"},
		{"before the signer's certificate", func(r *recipe, _ *Options) { r.time = tlv(tagTime, []byte("20240301120000Z")) }, "leads to no given root"},
		{"after the signer's certificate", func(r *recipe, o *Options) {
			r.time, o.Now = tlv(tagTime, []byte("20280301120000Z")), minted.AddDate(5, 0, 0)
		}, "leads to no given root"},
		{"local time", func(r *recipe, _ *Options) { r.time = tlv(tagTime, []byte("20260301120000+0100")) }, "wanted a time such as"},
		{"fraction ends in zero", func(r *recipe, _ *Options) { r.time = tlv(tagTime, []byte("20260301120000.10Z")) }, "ends in no zero"},
		{"default written out", func(r *recipe, _ *Options) { r.ordering = tlv(tagBoolean, []byte{0}) }, "wanted DER"},
		{"accuracy", func(r *recipe, _ *Options) { r.accuracy = tlv(tagSequence, tlv(tagImplied0, []byte{3, 0xe8})) }, "millis: found 1000, wanted 0 to 999"},
		{"another root", func(_ *recipe, o *Options) { o.Roots = []*x509.Certificate{other.root} }, "leads to no given root"},
		{"no root", func(_ *recipe, o *Options) { o.Roots = nil }, "no root certificate of the authority is given"},
		{"no time of now", func(_ *recipe, o *Options) { o.Now = time.Time{} }, "the time of now is not given"},
		{"another pin", func(_ *recipe, o *Options) { o.Pins = []Pin{{SPKI: SPKI(other.cert)}} }, "is not pinned for"},
		{"pin not yet", func(_ *recipe, o *Options) { o.Pins = []Pin{{SPKI: SPKI(a.cert), From: minted.Add(time.Second)}} }, "is not pinned for"},
		{"pin no more", func(_ *recipe, o *Options) { o.Pins = []Pin{{SPKI: SPKI(a.cert), Until: minted.Add(-time.Second)}} }, "is not pinned for"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, opts := a.recipe(data), a.options()
			tc.edit(r, &opts)
			v, err := verifyWith(r.response(t), opts)
			assert.ErrorContains(t, err, tc.err)
			assert.Assert(t, v == nil)
		})
	}
}

func TestCertificatesForOtherThingsAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name, kind string
		edit       func(*x509.Certificate)
		err        string
	}{
		{"purpose not critical", "", func(c *x509.Certificate) { c.ExtraExtensions[0].Critical = false }, "is not critical"},
		{"second purpose", "", func(c *x509.Certificate) {
			c.ExtraExtensions[0].Value = tlv(tagSequence, oid(oidTimeStamping), oid(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}))
		}, "is not time stamping alone"},
		{"no purpose", "", func(c *x509.Certificate) { c.ExtraExtensions = nil }, "no extended key usage"},
		{"an authority's", "", func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, "is an authority's"},
		{"key for encryption, too", "", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyEncipherment }, "for more than signing"},
		{"unknown critical extension", "", func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}, "leads to no given root"},
		{"short key", "rsa-1024", nil, "RSA key of 1024 bits, wanted 2048 or more"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newAuthority(t, tc.kind, tc.edit)
			_, err := verifyWith(a.recipe(data).response(t), a.options())
			assert.ErrorContains(t, err, tc.err)
		})
	}
}

func TestRejectionsCarryTheAuthoritysWords(t *testing.T) {
	response := tlv(tagSequence, tlv(tagSequence, integer(2), tlv(tagSequence, tlv(tagUTF8, []byte("no clock"))), tlv(tagBits, []byte{1, 0, 2})))
	_, err := Parse(response)
	var rejected *RejectedError
	assert.Assert(t, errors.As(err, &rejected))
	assert.DeepEqual(t, *rejected, RejectedError{Status: 2, Text: "no clock", Failure: "timeNotAvailable"})
	assert.Error(t, err, `time stamp: the authority granted no token: status 2, timeNotAvailable, "no clock"`)
}

func TestAPageIsNamedAsText(t *testing.T) {
	_, err := Parse([]byte("<!DOCTYPE html><title>502</title>"))
	assert.Error(t, err, `time stamp: found text that begins "<!DOCTYPE html><title>502</title>", wanted DER`)
}

func TestOnlyDERIsRead(t *testing.T) {
	for name, b := range map[string][]byte{
		"indefinite length": {0x30, 0x80, 0, 0}, "long form of a short length": {0x30, 0x81, 1, 5},
		"leading zero": {0x30, 0x82, 0, 0x80}, "cut short": {0x30, 5, 1}, "high tag": {0x3f, 1, 0}, "nothing": {}, "length of lengths": {0x30, 0x85, 1, 1, 1, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := firstElement(b)
			assert.Assert(t, err != nil)
		})
	}
}

func TestTwoTokensOfOneAuthorityAreOne(t *testing.T) {
	a, b := newAuthority(t, "p256", nil), newAuthority(t, "p256", nil)
	first, second, third := &Verified{Root: a.root}, &Verified{Root: a.root}, &Verified{Root: b.root}
	assert.Assert(t, !Independent(2, first, second))
	assert.Assert(t, Independent(2, first, second, third))
}

func TestRequestsReadBack(t *testing.T) {
	sum := sha256.Sum256(data)
	random := bytes.NewReader(slices.Repeat([]byte{1}, 8))
	r, err := NewRequest(bytes.NewReader(data), random)
	assert.NilError(t, err)
	assert.DeepEqual(t, r.Digest, sum[:])
	assert.Equal(t, r.Nonce.Text(16), "8101010101010101")
	r.Policy = asn1.ObjectIdentifier{1, 2, 3}
	b, err := r.Marshal()
	assert.NilError(t, err)
	again, err := ParseRequest(b)
	assert.NilError(t, err)
	assert.DeepEqual(t, again.Digest, r.Digest)
	assert.Equal(t, again.Nonce.Cmp(r.Nonce), 0)
	assert.DeepEqual(t, again.Policy, r.Policy)
	_, err = Request{Hash: crypto.SHA1, Digest: make([]byte, 20)}.Marshal()
	assert.ErrorContains(t, err, "want one of SHA-256")
}

// No flip of a bit changes what a token that still verifies says.
func TestNoAcceptedFlipChangesTheClaim(t *testing.T) {
	a := newAuthority(t, "p256", nil)
	r := a.recipe(data)
	r.nonce = integer(5)
	response := r.response(t)
	want, err := verifyWith(response, a.options())
	assert.NilError(t, err)
	for i := range response {
		for bit := range 8 {
			flipped := slices.Clone(response)
			flipped[i] ^= 1 << bit
			v, err := verifyWith(flipped, a.options())
			if err != nil {
				assert.Assert(t, v == nil)
				continue
			}
			same := v.Time.Equal(want.Time) && v.Serial.Cmp(want.Serial) == 0 && v.Policy.Equal(want.Policy) &&
				bytes.Equal(v.Digest, want.Digest) && v.Nonce.Cmp(want.Nonce) == 0 && bytes.Equal(v.Signer.Raw, want.Signer.Raw)
			assert.Assert(t, same, "byte %d bit %d", i, bit)
		}
	}
}

func FuzzParse(f *testing.F) {
	a := newAuthority(f, "p256", nil)
	f.Add(a.recipe(data).response(f))
	f.Add(a.recipe(data).token(f))
	opts := a.options()
	other := newAuthority(f, "p256", nil).options()
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := verifyWith(b, opts); err == nil {
			assert.Assert(t, v.Time.Equal(minted))
			_, err := verifyWith(b, other)
			assert.Assert(t, err != nil, "verifies under another root")
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	r, err := NewRequest(bytes.NewReader(data), bytes.NewReader(make([]byte, 8)))
	assert.NilError(f, err)
	b, err := r.Marshal()
	assert.NilError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRequest(b)
		if err != nil {
			return
		}
		_, err = r.Marshal()
		assert.NilError(t, err)
	})
}
