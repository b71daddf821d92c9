package timestamp

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
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
