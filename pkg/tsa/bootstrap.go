package tsa

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/release"
	"github.com/vaultmesh/remembrancer/pkg/timestamp"
)

// maxCertificates is the size, in bytes, of the largest file of certificates
// that is fetched.
const maxCertificates = 256 << 10

// Proposal is an authority that nobody has confirmed yet.
type Proposal struct {
	Authority release.Authority // with a pin of the signer's key
	Root      *x509.Certificate
	Signer    *x509.Certificate
	Time      time.Time // of the token that it gave
}

// ReadCertificates reads the certificates of a file that others publish: PEM, with
// any words around the blocks, or DER.
func ReadCertificates(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxCertificates {
		return nil, fmt.Errorf("%d bytes, wanted at most %d", len(data), maxCertificates)
	}
	var all []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		c, err := x509.ParseCertificate(data)
		if err != nil {
			return nil, fmt.Errorf("found no certificate, in PEM or DER: %w", err)
		}
		all = append(all, c)
	}
	return all, nil
}

// FetchCertificates reads a file of certificates from an http or https address.
// Where it came from is no reason to trust it.
func FetchCertificates(ctx context.Context, address string, opts Options) ([]*x509.Certificate, error) {
	if err := release.CheckAuthorityURL(address); err != nil {
		return nil, err
	}
	opts = opts.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	for range 1 + maxRedirects {
		r, next, err := opts.send(ctx, http.MethodGet, address, nil, maxCertificates)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", address, err)
		}
		if next == "" {
			all, err := ReadCertificates(r.body)
			if err != nil {
				return nil, fmt.Errorf("%s: answered %s: %w", address, r.contentType, err)
			}
			return all, nil
		}
		address = next
	}
	return nil, fmt.Errorf("%s: redirects more than %d times", address, maxRedirects)
}

// Propose asks the TSA at an address for a token of random bytes, and finds the
// root that it leads to: among ca, or, when there are none, among the
// certificates that the token carries along.
func Propose(ctx context.Context, name, address string, ca []*x509.Certificate, opts Options) (Proposal, error) {
	if err := errors.Join(release.CheckAuthorityName(name), release.CheckAuthorityURL(address)); err != nil {
		return Proposal{}, err
	}
	opts = opts.withDefaults()
	var b [32]byte
	if _, err := io.ReadFull(opts.Random, b[:]); err != nil {
		return Proposal{}, err
	}
	data := bytes.NewReader(b[:])
	var p Proposal
	var between []*x509.Certificate
	err := opts.exchange(ctx, name, address, data, func(r reply) error {
		v, others, err := findRoot(r, data, ca, opts.Now())
		if err != nil {
			return err
		}
		p.Root, p.Signer, p.Time, between = v.Root, v.Signer, v.Time, others
		return nil
	})
	if err != nil {
		return Proposal{}, fmt.Errorf("authority %s: %s: %w", name, address, err)
	}
	p.Authority, err = release.NewAuthority(name, address, []*x509.Certificate{p.Root}, between, pinOf(p.Signer))
	return p, err
}

func pinOf(signer *x509.Certificate) timestamp.Pin {
	return timestamp.Pin{SPKI: timestamp.SPKI(signer), From: signer.NotBefore, Until: signer.NotAfter}
}

// findRoot verifies an answer with each certificate that can be its root, and
// returns the other certificates too: a chain may go through them.
func findRoot(r reply, data io.ReadSeeker, ca []*x509.Certificate, now time.Time) (*timestamp.Verified, []*x509.Certificate, error) {
	candidates, between := ca, []*x509.Certificate{}
	if len(ca) == 0 {
		candidates = r.token.Certificates()
	}
	var roots []*x509.Certificate
	for _, c := range candidates {
		if release.CheckRoot(c) == nil {
			roots = append(roots, c)
		}
	}
	for _, c := range append(slices.Clone(r.token.Certificates()), ca...) {
		if release.CheckRoot(c) != nil && !slices.ContainsFunc(between, c.Equal) {
			between = append(between, c)
		}
	}
	if len(roots) == 0 {
		return nil, nil, fmt.Errorf("found no root among %d certificates: name a file of the authority's own root with --ca or --ca-url", len(candidates))
	}
	var why []error
	for _, root := range roots {
		if _, err := data.Seek(0, io.SeekStart); err != nil {
			return nil, nil, err
		}
		v, err := r.token.Verify(data, timestamp.Options{Roots: []*x509.Certificate{root}, Untrusted: between, Nonce: r.nonce, Now: now})
		if err == nil {
			return v, between, nil
		}
		why = append(why, fmt.Errorf("root %s: %w", release.SubjectOf(root), err))
	}
	return nil, nil, errors.Join(why...)
}

// Text describes what is proposed, for the person who is to confirm it.
func (p Proposal) Text() string {
	day := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
	root, signer := timestamp.SPKI(p.Root), timestamp.SPKI(p.Signer)
	sum := sha256.Sum256(p.Root.Raw)
	var b strings.Builder
	fmt.Fprintf(&b, "authority  %s, %s\n", p.Authority.Name, p.Authority.URL)
	fmt.Fprintf(&b, "root       %s\n", release.SubjectOf(p.Root))
	fmt.Fprintf(&b, "           valid %s to %s\n", day(p.Root.NotBefore), day(p.Root.NotAfter))
	fmt.Fprintf(&b, "           key (SPKI)   SHA-256 %x\n", root[:])
	fmt.Fprintf(&b, "           certificate  SHA-256 %x\n", sum[:])
	fmt.Fprintf(&b, "signer     %s\n", release.SubjectOf(p.Signer))
	fmt.Fprintf(&b, "           valid %s to %s\n", day(p.Signer.NotBefore), day(p.Signer.NotAfter))
	fmt.Fprintf(&b, "           key (SPKI)   SHA-256 %x\n", signer[:])
	return b.String()
}

// Confirm compares what a person found elsewhere with the proposed root: the
// SHA-256 of its key or of its certificate, in hex, with or without colons, or in
// base64, as key pins are often written.
func (p Proposal) Confirm(found string) error {
	b, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(found))
	if err != nil {
		b, err = base64.StdEncoding.DecodeString(found)
	}
	if err != nil || len(b) != sha256.Size {
		return fmt.Errorf("found %q, wanted the SHA-256 of the root's key or of its certificate, 64 hex digits", found)
	}
	root, sum := timestamp.SPKI(p.Root), sha256.Sum256(p.Root.Raw)
	if !bytes.Equal(b, root[:]) && !bytes.Equal(b, sum[:]) {
		return fmt.Errorf("it is not the root that was confirmed: the authority at %s leads to the key %x (certificate %x), confirmed was %x", p.Authority.URL, root[:], sum[:], b)
	}
	return nil
}

// ErrChanged says that what is proposed is not what is pinned. Its error shows
// both.
var ErrChanged = errors.New("not what is pinned")

// Adopt compares what is proposed with what is pinned under this name, and
// returns what to write: pinned itself when nothing is new. A signing key that is
// not pinned yet is added when rotate is set, for the time its certificate is
// valid; the address then becomes the proposed one. The root never changes.
func (p Proposal) Adopt(pinned release.Authority, rotate bool) (release.Authority, error) {
	signer, root := timestamp.SPKI(p.Signer), timestamp.SPKI(p.Root)
	changed := func(format string, args ...any) (release.Authority, error) {
		return release.Authority{}, fmt.Errorf("authority %s: %w: %s", pinned.Name, ErrChanged, fmt.Sprintf(format, args...))
	}
	// Without pins any key under the root will do, and goes on doing.
	known := len(pinned.Pins) == 0
	var roots, keys []string
	for _, k := range pinned.RootSPKI {
		roots = append(roots, hex.EncodeToString(k[:]))
	}
	for _, k := range pinned.Pins {
		keys = append(keys, hex.EncodeToString(k.SPKI[:]))
		known = known || k.SPKI == signer && !p.Time.Before(k.From) && (k.Until.IsZero() || !p.Time.After(k.Until))
	}
	switch moved := pinned.URL != p.Authority.URL; {
	case !slices.Contains(pinned.RootSPKI, root):
		return changed("pinned is the root %s, %s leads to %x; to trust that one too, bootstrap it under another name", strings.Join(roots, ", "), p.Authority.URL, root[:])
	case known && !moved:
		return pinned, nil
	case moved && !rotate:
		return changed("pinned is the address %s, proposed %s; add --rotate if it moved", pinned.URL, p.Authority.URL)
	case !rotate:
		return changed("pinned are the signing keys %s, it signed with %x under the same root; add --rotate if it has a new key", strings.Join(keys, ", "), signer[:])
	}
	next := pinned
	next.URL = p.Authority.URL
	next.Pins, next.Untrusted = slices.Clone(pinned.Pins), slices.Clone(pinned.Untrusted)
	if !known {
		next.Pins = append(next.Pins, pinOf(p.Signer))
	}
	for _, c := range p.Authority.Untrusted {
		if !slices.ContainsFunc(next.Untrusted, c.Equal) {
			next.Untrusted = append(next.Untrusted, c)
		}
	}
	return release.ParseAuthority(next.Name, next.Files())
}
