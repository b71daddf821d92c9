package timestamp

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"
)

// trial is a response and what it is held to. A defective one breaks one check
// and no other; err is what the refusal says, empty where it is good.
type trial struct {
	name     string
	response []byte
	opts     Options
	signer   *x509.Certificate
	err      string
}

// trials mints all of them.
func trials(t testing.TB) []trial {
	t.Helper()
	var all []trial
	a := newAuthority(t, "p256", nil)
	other := newAuthority(t, "p256", nil)
	sum1, dataSHA1, sum512 := essV1(a.cert, false), sha1.Sum(data), sha512.Sum512(data)
	critical := tlv(tagContext1, tlv(tagSequence, oid(asn1.ObjectIdentifier{1, 2, 3}), tlv(tagBoolean, []byte{0xff}), tlv(tagOctets, nil)))
	for _, tc := range []struct {
		name string
		edit func(*recipe, *Options)
		err  string
	}{
		{"plain", func(*recipe, *Options) {}, ""},
		{"granted with changes", func(r *recipe, _ *Options) { r.status = tlv(tagSequence, integer(1)) }, ""},
		{"status text", func(r *recipe, _ *Options) {
			r.status = tlv(tagSequence, integer(0), tlv(tagSequence, tlv(tagUTF8, []byte("Operation Okay"))))
		}, ""},
		{"nonce", func(r *recipe, o *Options) { r.nonce, o.Nonce = integer(99), big.NewInt(99) }, ""},
		{"policy", func(_ *recipe, o *Options) { o.Policy = asn1.ObjectIdentifier{1, 2, 3, 4} }, ""},
		{"certificate named by SHA-1", func(r *recipe, _ *Options) { r.certIDType, r.certID = oidSigningCert, essV1(a.cert, false) }, ""},
		{"with issuer and serial", func(r *recipe, _ *Options) { r.certIDType, r.certID = oidSigningCert, essV1(a.cert, true) }, ""},
		{"ordering, tsa, extension", func(r *recipe, _ *Options) {
			r.ordering = tlv(tagBoolean, []byte{0xff})
			r.tsa = tlv(tagContext0, tlv(tagContext4, a.cert.RawSubject))
			r.ex = tlv(tagContext1, tlv(tagSequence, oid(asn1.ObjectIdentifier{1, 2, 3}), tlv(tagOctets, nil)))
		}, ""},
		{"key id", func(r *recipe, _ *Options) { r.signerVersion, r.sid = 3, tlv(tagImplied0, a.cert.SubjectKeyId) }, ""},
		{"SHA-512 imprint", func(r *recipe, _ *Options) {
			r.imprint = tlv(tagSequence, algorithm(hashID(crypto.SHA512)), tlv(tagOctets, sum512[:]))
		}, ""},
		{"SHA-384 signature", func(r *recipe, _ *Options) { r.hash = crypto.SHA384 }, ""},
		{"fraction of a second", func(r *recipe, _ *Options) { r.time = tlv(tagTime, []byte("20260301120000.25Z")) }, ""},
		{"signer not carried along", func(r *recipe, o *Options) { r.certificates, o.Untrusted = nil, []*x509.Certificate{a.cert} }, ""},
		{"pinned", func(_ *recipe, o *Options) { o.Pins = []Pin{{SPKI: SPKI(a.cert), From: minted, Until: minted}} }, ""},
		{"signer expired since", func(_ *recipe, o *Options) { o.Now = minted.AddDate(10, 0, 0) }, ""},
		{"another attribute", func(r *recipe, _ *Options) {
			r.attributes = [][]byte{attribute(asn1.ObjectIdentifier{1, 2, 3}, integer(1))}
		}, ""},

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
		{"attributes out of order", func(r *recipe, _ *Options) { r.unsorted = true }, "is out of order, wanted DER"},
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
			r.imprint = tlv(tagSequence, algorithm(hashID(0)), tlv(tagOctets, dataSHA1[:]))
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
		r, opts := a.recipe(data), a.options()
		tc.edit(r, &opts)
		all = append(all, trial{tc.name, r.response(t), opts, a.cert, tc.err})
	}
	for _, tc := range []struct {
		name, kind string
		edit       func(*x509.Certificate)
		err        string
	}{
		{"RSA key", "rsa", nil, ""},
		{"RSA key, PSS", "rsa", nil, ""},
		{"P-384 key", "p384", nil, ""},
		{"Ed25519 key", "ed25519", nil, ""},

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
		a := newAuthority(t, tc.kind, tc.edit)
		r := a.recipe(data)
		r.pss = strings.HasSuffix(tc.name, "PSS")
		if tc.kind == "ed25519" {
			r.hash = crypto.SHA512
		}
		all = append(all, trial{tc.name, r.response(t), a.options(), a.cert, tc.err})
	}
	return all
}

func TestGoodTokensVerify(t *testing.T) {
	good := 0
	for _, tr := range trials(t) {
		if tr.err != "" {
			continue
		}
		good++
		t.Run(tr.name, func(t *testing.T) {
			v, err := verifyWith(tr.response, tr.opts)
			assert.NilError(t, err)
			assert.Equal(t, v.Time.Truncate(time.Second), minted)
			assert.DeepEqual(t, v.Serial.Int64(), int64(42))
			assert.Equal(t, v.SignerSPKI(), SPKI(tr.signer))
			assert.Equal(t, SPKI(v.Root), SPKI(tr.opts.Roots[0]))
		})
	}
	assert.Equal(t, good, 20)
	a := newAuthority(t, "p256", nil)
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

// Each case breaks one check and no other.
func TestBadTokensAreRefused(t *testing.T) {
	for _, tr := range trials(t) {
		if tr.err == "" {
			continue
		}
		t.Run(tr.name, func(t *testing.T) {
			v, err := verifyWith(tr.response, tr.opts)
			assert.ErrorContains(t, err, tr.err)
			assert.Assert(t, v == nil)
		})
	}
}

// trialsFile holds one minting of every trial, for whoever wants to compare
// another verifier with this one. -update mints it again.
const trialsFile = "testdata/trials.json"

// savedTrials is the file: what a trial is held to, with each certificate given
// once. Times that are not bounded are zero.
type savedTrials struct {
	Data         []byte       `json:"data"`         // what every response is to be of
	Certificates [][]byte     `json:"certificates"` // DER
	Trials       []savedTrial `json:"trials"`
}

type savedTrial struct {
	Name      string     `json:"name"`
	Refusal   string     `json:"refusal,omitempty"` // part of what is said; empty: the token is good
	Response  []byte     `json:"response"`
	Time      time.Time  `json:"time"`            // that it states, or where it states none a moment that suits its signer
	Roots     []int      `json:"roots,omitempty"` // of Certificates
	Untrusted []int      `json:"untrusted,omitempty"`
	Nonce     int64      `json:"nonce,omitempty"`
	Policy    string     `json:"policy,omitempty"`
	Pins      []savedPin `json:"pins,omitempty"`
	Now       time.Time  `json:"now"`
}

type savedPin struct {
	SPKI  []byte    `json:"spki"`
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
}

func (s *savedTrials) certificates(list []*x509.Certificate) []int {
	var numbers []int
	for _, c := range list {
		at := -1
		for i, have := range s.Certificates {
			if bytes.Equal(have, c.Raw) {
				at = i
			}
		}
		if at < 0 {
			at = len(s.Certificates)
			s.Certificates = append(s.Certificates, c.Raw)
		}
		numbers = append(numbers, at)
	}
	return numbers
}

func (s *savedTrials) add(tr trial) {
	saved := savedTrial{
		Name: tr.name, Refusal: tr.err, Response: tr.response, Time: minted,
		Roots: s.certificates(tr.opts.Roots), Untrusted: s.certificates(tr.opts.Untrusted), Now: tr.opts.Now,
	}
	if token, err := Parse(tr.response); err == nil {
		saved.Time = token.ClaimedTime().Truncate(time.Second)
	}
	if tr.opts.Nonce != nil {
		saved.Nonce = tr.opts.Nonce.Int64()
	}
	if tr.opts.Policy != nil {
		saved.Policy = tr.opts.Policy.String()
	}
	for _, p := range tr.opts.Pins {
		saved.Pins = append(saved.Pins, savedPin{p.SPKI[:], p.From, p.Until})
	}
	s.Trials = append(s.Trials, saved)
}

func (s *savedTrials) options(t testing.TB, saved savedTrial) Options {
	t.Helper()
	certificates := func(numbers []int) []*x509.Certificate {
		var list []*x509.Certificate
		for _, n := range numbers {
			c, err := x509.ParseCertificate(s.Certificates[n])
			assert.NilError(t, err)
			list = append(list, c)
		}
		return list
	}
	opts := Options{Roots: certificates(saved.Roots), Untrusted: certificates(saved.Untrusted), Now: saved.Now}
	if saved.Nonce != 0 {
		opts.Nonce = big.NewInt(saved.Nonce)
	}
	if saved.Policy != "" {
		for part := range strings.SplitSeq(saved.Policy, ".") {
			var n int
			_, err := fmt.Sscan(part, &n)
			assert.NilError(t, err)
			opts.Policy = append(opts.Policy, n)
		}
	}
	for _, p := range saved.Pins {
		opts.Pins = append(opts.Pins, Pin{SPKI: [32]byte(p.SPKI), From: p.From, Until: p.Until})
	}
	return opts
}

func TestTheSavedTrialsAreTheseTrials(t *testing.T) {
	all := trials(t)
	if golden.FlagUpdate() {
		saved := savedTrials{Data: data}
		for _, tr := range all {
			saved.add(tr)
		}
		b, err := json.MarshalIndent(saved, "", " ")
		assert.NilError(t, err)
		assert.NilError(t, os.WriteFile(trialsFile, append(b, '\n'), 0o644))
	}
	b, err := os.ReadFile(trialsFile)
	assert.NilError(t, err)
	var saved savedTrials
	assert.NilError(t, json.Unmarshal(b, &saved))
	assert.DeepEqual(t, saved.Data, data)
	assert.Equal(t, len(saved.Trials), len(all), "go test ./pkg/timestamp -update mints them again")
	for i, s := range saved.Trials {
		t.Run(s.Name, func(t *testing.T) {
			assert.Equal(t, s.Name, all[i].name)
			assert.Equal(t, s.Refusal, all[i].err)
			_, err := verifyWith(s.Response, saved.options(t, s))
			if s.Refusal == "" {
				assert.NilError(t, err)
			} else {
				assert.ErrorContains(t, err, s.Refusal)
			}
		})
	}
}
