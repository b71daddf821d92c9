// Package timestamp makes time-stamp requests and verifies time-stamp tokens
// (RFC 3161, RFC 5816), without a network and with nothing but the standard
// library.
//
// A token says that a digest was known to a time-stamping authority (TSA) at a
// moment. [Verify] believes it when all of this holds:
//
//   - the response was granted (status 0 or 1), is DER, and nothing follows it
//   - it is a SignedData of version 3 over a TSTInfo of version 1, with exactly
//     one signer
//   - the digest in it, SHA-256, SHA-384 or SHA-512, is that of the data
//   - the signature is over the signed attributes; these name the content's type
//     and digest, none twice, and the signer's certificate by its hash (ESSCertID
//     or ESSCertIDv2)
//   - the signer's certificate is for time stamping, which alone and critically,
//     is no authority's, and was valid at that moment, under a chain to the given
//     roots
//   - its key is one of the pinned ones, if any are
//   - policy and nonce are those that were asked for, if any were
//   - no critical extension of the token is unknown
//   - the moment is not in the future
//
// The chain is judged at the moment of the token, so a token outlives its
// signer's certificate. Roots are those of one TSA and never the system's: a
// pool of several would let each of them speak for the others.
//
// Revocation is not looked at. A token is malleable: unsigned parts, such as
// certificates it carries along, can be changed. What identifies it is the
// signer, the serial number, the time and the digest, not its bytes.
package timestamp

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"strings"
	"time"

	// The digests that an imprint may be made with.
	_ "crypto/sha512"
)

// MaxResponse is the size, in bytes, of the largest response that is read.
const MaxResponse = 1 << 20

// MaxSkew is how far in the future a token may be: clocks differ.
const MaxSkew = 5 * time.Minute

// Options say what a token is held to.
type Options struct {
	// Roots are the trusted certificates of one TSA. Without one nothing verifies.
	Roots []*x509.Certificate
	// Untrusted are certificates that a chain may go through, and that the
	// signer's may be among when the token does not carry it.
	Untrusted []*x509.Certificate
	// Pins are the keys that the signer's certificate may have; none allows any.
	Pins []Pin
	// Nonce is the request's, nil when there is none to compare.
	Nonce *big.Int
	// Policy is the TSA policy that must be named, nil for any.
	Policy asn1.ObjectIdentifier
	// Now bounds the token's time from above.
	Now time.Time
}

// Pin is a key that a TSA signed with during a time. A zero time is no bound.
type Pin struct {
	SPKI        [sha256.Size]byte // SHA-256 of the SubjectPublicKeyInfo
	From, Until time.Time
}

// Verified is a token that was verified.
type Verified struct {
	Time     time.Time     // UTC; when the TSA knew the digest
	Accuracy time.Duration // how far off the TSA says that may be; 0 when it does not say
	Serial   *big.Int      // of the token
	Policy   asn1.ObjectIdentifier
	Nonce    *big.Int // nil when there is none
	Hash     crypto.Hash
	Digest   []byte            // of the data
	Signer   *x509.Certificate // the TSA's
	Root     *x509.Certificate
}

// SignerSPKI returns the SHA-256 of the signer's public key, which pins name.
func (v *Verified) SignerSPKI() [sha256.Size]byte { return SPKI(v.Signer) }

// SPKI returns the SHA-256 of a certificate's SubjectPublicKeyInfo.
func SPKI(c *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// Independent reports whether at least n of these tokens come from TSAs under
// distinct root keys.
func Independent(n int, tokens ...*Verified) bool {
	roots := map[[sha256.Size]byte]bool{}
	for _, t := range tokens {
		roots[SPKI(t.Root)] = true
	}
	return len(roots) >= n
}

// RejectedError is a TSA's answer that carries no token.
type RejectedError struct {
	Status  int64  // RFC 3161 section 2.4.2: 2 is rejection
	Text    string // the TSA's own words
	Failure string // name of the failure, such as badAlg; empty when it gives none
}

func (e *RejectedError) Error() string {
	s := fmt.Sprintf("the authority granted no token: status %d", e.Status)
	if e.Failure != "" {
		s += ", " + e.Failure
	}
	if e.Text != "" {
		s += fmt.Sprintf(", %q", e.Text)
	}
	return s
}

// Token is a parsed token of which nothing is believed yet.
type Token struct {
	info   tstInfo
	signed signedData
}

// Hash returns what the data was digested with.
func (t *Token) Hash() crypto.Hash { return t.info.hash }

// ClaimedTime returns the time that the token states, to look at, not to believe.
func (t *Token) ClaimedTime() time.Time { return t.info.time }

// Certificates returns the certificates that the token carries along, to look
// at, not to believe.
func (t *Token) Certificates() []*x509.Certificate { return t.signed.certificates }

// Parse reads a TimeStampResp, or a bare TimeStampToken. It fails with
// [*RejectedError] when the response carries no token.
func Parse(response []byte) (*Token, error) {
	t, err := parse(response)
	if err != nil {
		return nil, fmt.Errorf("time stamp: %w", err)
	}
	return t, nil
}

func parse(response []byte) (*Token, error) {
	if len(response) > MaxResponse {
		return nil, fmt.Errorf("%d bytes, wanted at most %d", len(response), MaxResponse)
	}
	outer := in("response", response)
	body := outer.take(tagSequence, "TimeStampResp or ContentInfo")
	if err := outer.end(); err != nil {
		if looksLikeText(response) {
			return nil, fmt.Errorf("found text that begins %q, wanted DER", clip(response))
		}
		return nil, err
	}
	// A token begins with an identifier, a response with a status.
	token := body
	if r := in("response", body.content); !r.peek(tagOID) {
		if err := granted(r.take(tagSequence, "PKIStatusInfo"), r); err != nil {
			return nil, err
		}
		token = r.take(tagSequence, "timeStampToken")
		if err := r.end(); err != nil {
			return nil, err
		}
	}
	signed, err := parseSignedData(token)
	if err != nil {
		return nil, err
	}
	info, err := parseInfo(signed.content)
	if err != nil {
		return nil, err
	}
	return &Token{info, signed}, nil
}

func looksLikeText(b []byte) bool {
	for _, c := range b[:min(len(b), 16)] {
		if c < 0x20 && c != '\n' && c != '\r' && c != '\t' || c > 0x7e {
			return false
		}
	}
	return len(b) > 0
}

func clip(b []byte) string { return strings.ToValidUTF8(string(b[:min(len(b), 60)]), "?") }

var failures = map[int]string{
	0: "badAlg", 2: "badRequest", 5: "badDataFormat", 14: "timeNotAvailable",
	15: "unacceptedPolicy", 16: "unacceptedExtension", 17: "addInfoNotAvailable", 25: "systemFailure",
}

func granted(status element, outer *reader) error {
	if outer.err != nil {
		return outer.err
	}
	r := in("status", status.content)
	e := &RejectedError{Status: r.small("status")}
	var texts []string
	if r.peek(tagSequence) {
		t := in("status text", r.take(tagSequence, "statusString").content)
		for t.more() {
			texts = append(texts, clip(t.take(tagUTF8, "text").content))
		}
		if err := t.end(); err != nil {
			return err
		}
	}
	e.Text = strings.Join(texts, " ")
	if r.peek(tagBits) {
		bits := r.take(tagBits, "failInfo").content
		for i := range 8 * max(0, len(bits)-1) {
			if bits[1+i/8]>>(7-i%8)&1 == 1 {
				e.Failure = strings.TrimSpace(e.Failure + " " + failures[i])
			}
		}
	}
	if err := r.end(); err != nil {
		return err
	}
	if e.Status != 0 && e.Status != 1 {
		return e
	}
	return nil
}

// tstInfo is the content that a TSA signs.
type tstInfo struct {
	policy   asn1.ObjectIdentifier
	hash     crypto.Hash
	digest   []byte
	serial   *big.Int
	time     time.Time
	accuracy time.Duration
	nonce    *big.Int
}

func parseInfo(content []byte) (t tstInfo, err error) {
	outer := in("TSTInfo", content)
	r := in("TSTInfo", outer.take(tagSequence, "TSTInfo").content)
	if err := outer.end(); err != nil {
		return t, err
	}
	if v := r.small("version"); r.err == nil && v != 1 {
		r.fail("version: found %d, wanted 1", v)
	}
	t.policy = r.oid("policy")
	imprint := in("messageImprint", r.take(tagSequence, "messageImprint").content)
	if r.err != nil {
		return t, r.err
	}
	if t.hash, err = hashOf(imprint.algorithm("hashAlgorithm")); imprint.err == nil && err != nil {
		return t, fmt.Errorf("messageImprint: %w", err)
	}
	t.digest = imprint.take(tagOctets, "hashedMessage").content
	if err := imprint.end(); err != nil {
		return t, err
	}
	if len(t.digest) != t.hash.Size() {
		return t, fmt.Errorf("messageImprint: found %d bytes, wanted %d of %s", len(t.digest), t.hash.Size(), t.hash)
	}
	t.serial = r.integer("serialNumber")
	t.time = r.time("genTime")
	if r.peek(tagSequence) {
		t.accuracy = parseAccuracy(r, r.take(tagSequence, "accuracy").content)
	}
	if r.peek(tagBoolean) {
		if ordering := r.boolean("ordering"); r.err == nil && !ordering {
			r.fail("ordering: found the default written out, wanted DER")
		}
	}
	if r.peek(tagInteger) {
		t.nonce = r.integer("nonce")
	}
	if r.peek(tagContext0) {
		r.next("tsa")
	}
	if r.peek(tagContext1) {
		extensions := in("extensions", r.next("extensions").content)
		for extensions.more() {
			x := in("extension", extensions.take(tagSequence, "extension").content)
			id := x.oid("extnID")
			if x.peek(tagBoolean) && x.boolean("critical") {
				x.fail("%s is critical and not known here", id)
			}
			x.take(tagOctets, "extnValue")
			if err := errors.Join(extensions.err, x.end()); err != nil {
				return t, err
			}
		}
		if err := extensions.end(); err != nil {
			return t, err
		}
	}
	return t, r.end()
}

func parseAccuracy(outer *reader, content []byte) time.Duration {
	r := in("accuracy", content)
	var d time.Duration
	add := func(name string, n *big.Int, unit time.Duration, most int64) {
		if r.err == nil && (n.Sign() < 0 || !n.IsInt64() || n.Int64() > most) {
			r.fail("%s: found %s, wanted 0 to %d", name, n, most)
			return
		}
		d += time.Duration(n.Int64()) * unit
	}
	if r.peek(tagInteger) {
		add("seconds", r.integer("seconds"), time.Second, 1<<31)
	}
	if r.peek(tagImplied0) {
		add("millis", r.number(r.next("millis"), "millis"), time.Millisecond, 999)
	}
	if r.peek(tagImplied1) {
		add("micros", r.number(r.next("micros"), "micros"), time.Microsecond, 999)
	}
	if err := r.end(); err != nil && outer.err == nil {
		outer.err = err
	}
	return d
}

// Verify verifies a response, or a bare token, for data. The error says which
// check did not hold.
func Verify(response []byte, data io.Reader, opts Options) (*Verified, error) {
	t, err := Parse(response)
	if err != nil {
		return nil, err
	}
	return t.Verify(data, opts)
}

// Verify verifies a parsed token for data.
func (t *Token) Verify(data io.Reader, opts Options) (*Verified, error) {
	v, err := t.verify(data, opts)
	if err != nil {
		return nil, fmt.Errorf("time stamp: %w", err)
	}
	return v, nil
}

func (t *Token) verify(data io.Reader, opts Options) (*Verified, error) {
	if opts.Now.IsZero() {
		return nil, errors.New("the time of now is not given, wanted it to refuse a future")
	}
	digest, err := digestOf(t.info.hash.New(), data)
	if err != nil {
		return nil, err
	}
	info := t.info
	switch {
	case !bytes.Equal(digest, info.digest):
		return nil, fmt.Errorf("it is of other data: found %s %x, wanted %x", info.hash, info.digest, digest)
	case info.time.After(opts.Now.Add(MaxSkew)):
		return nil, fmt.Errorf("its time %s is in the future: it is %s", info.time.Format(time.RFC3339), opts.Now.UTC().Format(time.RFC3339))
	case opts.Nonce != nil && info.nonce == nil:
		return nil, errors.New("it has no nonce, the request had one")
	case opts.Nonce != nil && info.nonce.Cmp(opts.Nonce) != 0:
		return nil, fmt.Errorf("its nonce is %x, the request's %x", info.nonce, opts.Nonce)
	case opts.Policy != nil && !info.policy.Equal(opts.Policy):
		return nil, fmt.Errorf("its policy is %s, wanted %s", info.policy, opts.Policy)
	}
	signer, err := t.signed.verify(opts.Untrusted)
	if err != nil {
		return nil, err
	}
	if err := checkSigner(signer); err != nil {
		return nil, fmt.Errorf("signer %s: %w", signer.Subject, err)
	}
	root, err := chain(signer, t.signed.certificates, opts, info.time)
	if err != nil {
		return nil, fmt.Errorf("signer %s: %w", signer.Subject, err)
	}
	if err := checkPins(signer, opts.Pins, info.time); err != nil {
		return nil, fmt.Errorf("signer %s: %w", signer.Subject, err)
	}
	return &Verified{
		Time: info.time, Accuracy: info.accuracy, Serial: info.serial, Policy: info.policy, Nonce: info.nonce,
		Hash: info.hash, Digest: digest, Signer: signer, Root: root,
	}, nil
}

func digestOf(h hash.Hash, data io.Reader) ([]byte, error) {
	if _, err := io.Copy(h, data); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

var (
	oidExtKeyUsage  = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidTimeStamping = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
)

// checkSigner holds a certificate to RFC 3161 section 2.3: a key for this
// purpose and for no other.
func checkSigner(c *x509.Certificate) error {
	if c.BasicConstraintsValid && c.IsCA {
		return errors.New("its certificate is an authority's")
	}
	if c.KeyUsage&^(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) != 0 {
		return errors.New("its key is for more than signing")
	}
	found := false
	for _, x := range c.Extensions {
		if !x.Id.Equal(oidExtKeyUsage) {
			continue
		}
		var purposes []asn1.ObjectIdentifier
		rest, err := asn1.Unmarshal(x.Value, &purposes)
		switch {
		case found || err != nil || len(rest) > 0:
			return errors.New("its extended key usage cannot be read")
		case len(purposes) != 1 || !purposes[0].Equal(oidTimeStamping):
			return errors.New("its extended key usage is not time stamping alone")
		case !x.Critical:
			return errors.New("its extended key usage is not critical")
		}
		found = true
	}
	if !found {
		return errors.New("it has no extended key usage, wanted time stamping")
	}
	return nil
}

// chain returns the root that a signer leads to at a moment.
func chain(signer *x509.Certificate, embedded []*x509.Certificate, opts Options, at time.Time) (*x509.Certificate, error) {
	if len(opts.Roots) == 0 {
		return nil, errors.New("no root certificate of the authority is given")
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range opts.Roots {
		roots.AddCert(c)
	}
	for _, c := range append(append([]*x509.Certificate{}, embedded...), opts.Untrusted...) {
		between.AddCert(c)
	}
	chains, err := signer.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
	})
	if err != nil {
		return nil, fmt.Errorf("at %s it leads to no given root: %w", at.Format(time.RFC3339), err)
	}
	return chains[0][len(chains[0])-1], nil
}

func checkPins(signer *x509.Certificate, pins []Pin, at time.Time) error {
	if len(pins) == 0 {
		return nil
	}
	spki := SPKI(signer)
	for _, p := range pins {
		if p.SPKI == spki && (p.From.IsZero() || !at.Before(p.From)) && (p.Until.IsZero() || !at.After(p.Until)) {
			return nil
		}
	}
	return fmt.Errorf("its key %x is not pinned for %s", spki[:], at.Format(time.RFC3339))
}
