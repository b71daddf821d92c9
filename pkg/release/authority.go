package release

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/timestamp"
)

// The files of an authority's folder, and where such folders are below the
// folder of certificates.
const (
	AuthorityFolder = "tsa"
	AuthorityFile   = "tsa.json"
	RootsFile       = "ca.pem"
	UntrustedFile   = "untrusted.pem"
)

const (
	maxAuthorityFile = 256 << 10 // bytes
	maxCertificates  = 32        // in a file
)

// Authority is one time-stamping authority (TSA) that a repository trusts, and
// what its tokens are held to. It is kept in ops/certs/tsa/<name>/:
//
//   - ca.pem: the roots of this TSA, PEM certificates and nothing else, as
//     openssl -CAfile takes them
//   - untrusted.pem, optional: certificates that a chain may go through
//   - tsa.json: name, URL, the SHA-256 of each root's public key, and the keys
//     that signed when
//
// tsa.json is JSON with exactly these keys in this order, strings without
// needless escapes, and white space as one likes:
//
//	{"v":1,"name":"freetsa","url":"https://freetsa.org/tsr",
//	 "root_spki":["<64 hex>"],
//	 "pins":[{"spki":"<64 hex>","from":"2026-01-01T00:00:00Z","until":""}],
//	 "development":false}
//
// root_spki is sorted, and names exactly the keys of ca.pem: a swapped ca.pem is
// an error, not another root. A pin without a bound has "" for it; without pins
// any signer under the roots will do. Authorities are never pooled: a token is
// verified against one of them, whose name the verdict bears.
type Authority struct {
	Name, URL        string
	Roots, Untrusted []*x509.Certificate
	Pins             []timestamp.Pin
	RootSPKI         [][sha256.Size]byte // sorted
	// Development says that this is nobody's independent clock: an authority made
	// for trying things out, whose tokens prove nothing to others.
	Development bool
}

type authorityJSON struct {
	V           int       `json:"v"`
	Name        string    `json:"name"`
	URL         string    `json:"url"`
	RootSPKI    []string  `json:"root_spki"`
	Pins        []pinJSON `json:"pins"`
	Development bool      `json:"development"`
}

type pinJSON struct {
	SPKI  string `json:"spki"`
	From  string `json:"from"`
	Until string `json:"until"`
}

var authorityName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckAuthorityName says what is wrong with a name: it becomes a folder, and
// part of the name of each token.
func CheckAuthorityName(name string) error {
	// FILE.asc.tsr is the token of a signature, not of an authority called asc.
	if !authorityName.MatchString(name) || name == "asc" || name == "sig" {
		return fmt.Errorf("authority %q: want a name of small letters, digits and hyphens, such as freetsa", name)
	}
	return nil
}

// CheckAuthorityURL says what is wrong with the address of a TSA. Plain http will
// do: what it answers is signed, and bound to the request by a nonce.
func CheckAuthorityURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" || len(text) > 2048 || u.String() != text {
		return fmt.Errorf("address %q: want an http or https URL without user and fragment, such as https://freetsa.org/tsr", text)
	}
	return nil
}

// ParseAuthority reads an authority's folder: the content of each file by its
// name in the folder. name is the folder's.
func ParseAuthority(name string, files map[string][]byte) (Authority, error) {
	a, err := parseAuthority(name, files)
	if err != nil {
		return Authority{}, fmt.Errorf("authority %s: %w", name, err)
	}
	return a, nil
}

func parseAuthority(name string, files map[string][]byte) (a Authority, err error) {
	for _, f := range slices.Sorted(maps.Keys(files)) {
		switch {
		case f != AuthorityFile && f != RootsFile && f != UntrustedFile:
			return a, fmt.Errorf("found the file %q, wanted only %s, %s and %s", f, AuthorityFile, RootsFile, UntrustedFile)
		case len(files[f]) > maxAuthorityFile:
			return a, fmt.Errorf("%s: %d bytes, wanted at most %d", f, len(files[f]), maxAuthorityFile)
		}
	}
	for _, f := range []string{AuthorityFile, RootsFile} {
		if _, ok := files[f]; !ok {
			return a, fmt.Errorf("%s is missing", f)
		}
	}
	if err := a.parseJSON(files[AuthorityFile]); err != nil {
		return a, fmt.Errorf("%s: %w", AuthorityFile, err)
	}
	if a.Name != name {
		return a, fmt.Errorf("%s: found the name %q, wanted that of its folder", AuthorityFile, a.Name)
	}
	if a.Roots, err = ParseCertificates(files[RootsFile]); err != nil {
		return a, fmt.Errorf("%s: %w", RootsFile, err)
	}
	for _, c := range a.Roots {
		if err := CheckRoot(c); err != nil {
			return a, fmt.Errorf("%s: %w", RootsFile, err)
		}
	}
	if found := spkis(a.Roots); !slices.Equal(found, a.RootSPKI) {
		return a, fmt.Errorf("%s is not what was pinned: found the root keys %s, wanted %s as %s says", RootsFile, hexes(found), hexes(a.RootSPKI), AuthorityFile)
	}
	if text, ok := files[UntrustedFile]; ok {
		if a.Untrusted, err = ParseCertificates(text); err != nil {
			return a, fmt.Errorf("%s: %w", UntrustedFile, err)
		}
	}
	return a, nil
}

// CheckRoot says why a certificate can be no root: openssl takes none that
// another one has issued.
func CheckRoot(c *x509.Certificate) error {
	if !c.BasicConstraintsValid || !c.IsCA || !bytes.Equal(c.RawSubject, c.RawIssuer) {
		return fmt.Errorf("%s is no root: it is not an authority's own certificate", SubjectOf(c))
	}
	return nil
}

// SubjectOf names a certificate's subject for a person: what is known of it by
// name, on one line, with nothing that steers a terminal. Other attributes would
// be hex.
func SubjectOf(c *x509.Certificate) string {
	s := c.Subject
	known := pkix.Name{
		CommonName: s.CommonName, OrganizationalUnit: s.OrganizationalUnit, Organization: s.Organization,
		Locality: s.Locality, Province: s.Province, Country: s.Country,
	}.String()
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '�'
	}, cmp.Or(known, s.String()))
}

func (a *Authority) parseJSON(text []byte) error {
	var j authorityJSON
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil {
		return err
	}
	if j.V != 1 {
		return fmt.Errorf("found version %d, wanted 1", j.V)
	}
	if err := errors.Join(CheckAuthorityName(j.Name), CheckAuthorityURL(j.URL)); err != nil {
		return err
	}
	a.Name, a.URL, a.Development = j.Name, j.URL, j.Development
	for _, s := range j.RootSPKI {
		k, err := ParseSPKI(s)
		if err != nil {
			return fmt.Errorf("root_spki: %w", err)
		}
		a.RootSPKI = append(a.RootSPKI, k)
	}
	if len(a.RootSPKI) == 0 {
		return errors.New("root_spki: found none, wanted at least one")
	}
	for i := range a.RootSPKI[1:] {
		if bytes.Compare(a.RootSPKI[i][:], a.RootSPKI[i+1][:]) >= 0 {
			return errors.New("root_spki: wanted each key once, sorted")
		}
	}
	for _, p := range j.Pins {
		pin, err := p.parse()
		if err != nil {
			return fmt.Errorf("pin %s: %w", p.SPKI, err)
		}
		a.Pins = append(a.Pins, pin)
	}
	// There is one way to write it: a key that is there twice, is missing, or is
	// written in other letters would be read differently elsewhere.
	var found, wanted bytes.Buffer
	if err := errors.Join(json.Compact(&found, text), json.Compact(&wanted, a.json())); err != nil {
		return err
	}
	if !bytes.Equal(found.Bytes(), wanted.Bytes()) {
		return fmt.Errorf("found keys that are missing, repeated, out of order or escaped; wanted %s", wanted.Bytes())
	}
	return nil
}

func (p pinJSON) parse() (pin timestamp.Pin, err error) {
	if pin.SPKI, err = ParseSPKI(p.SPKI); err != nil {
		return pin, err
	}
	if pin.From, err = moment(p.From); err != nil {
		return pin, err
	}
	if pin.Until, err = moment(p.Until); err != nil {
		return pin, err
	}
	if !pin.From.IsZero() && !pin.Until.IsZero() && pin.Until.Before(pin.From) {
		return pin, errors.New("it ends before it begins")
	}
	return pin, nil
}

func moment(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || momentText(t) != s {
		return time.Time{}, fmt.Errorf("found the time %q, wanted one in UTC such as 2026-01-01T00:00:00Z, or nothing", s)
	}
	return t, nil
}

func momentText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// ParseSPKI reads the SHA-256 of a public key as 64 small hex digits.
func ParseSPKI(s string) (k [sha256.Size]byte, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(k) || strings.ToLower(s) != s {
		return k, fmt.Errorf("found %q, wanted the SHA-256 of a public key as 64 small hex digits", s)
	}
	return [sha256.Size]byte(b), nil
}

// ParseCertificates reads PEM certificates, at least one. Anything else in the
// file is an error: what is skipped here could be read elsewhere.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		const begin = "-----BEGIN "
		block, after := pem.Decode(rest)
		switch {
		case block == nil || !bytes.HasPrefix(rest, []byte(begin)) || bytes.Count(rest[:len(rest)-len(after)], []byte(begin)) != 1:
			return nil, errors.New("found something that is no PEM block, wanted certificates and nothing else")
		case block.Type != "CERTIFICATE" || len(block.Headers) > 0:
			return nil, fmt.Errorf("found %q, wanted certificates and nothing else", block.Type)
		case len(all) == maxCertificates:
			return nil, fmt.Errorf("more than %d certificates", maxCertificates)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all, rest = append(all, c), after
	}
	if len(all) == 0 {
		return nil, errors.New("found no certificate, wanted at least one")
	}
	return all, nil
}

func renderCertificates(all []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range all {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

func spkis(certs []*x509.Certificate) (all [][sha256.Size]byte) {
	for _, c := range certs {
		all = append(all, timestamp.SPKI(c))
	}
	slices.SortFunc(all, func(a, b [sha256.Size]byte) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(all)
}

func hexes(keys [][sha256.Size]byte) string {
	var all []string
	for _, k := range keys {
		all = append(all, hex.EncodeToString(k[:]))
	}
	return strings.Join(all, ", ")
}

// NewAuthority makes an authority with these roots, and checks it as
// [ParseAuthority] does.
func NewAuthority(name, address string, roots, untrusted []*x509.Certificate, pins ...timestamp.Pin) (Authority, error) {
	a := Authority{Name: name, URL: address, Roots: roots, Untrusted: untrusted, Pins: pins, RootSPKI: spkis(roots)}
	return ParseAuthority(name, a.Files())
}

// Files returns the files of the authority's folder, by name.
func (a Authority) Files() map[string][]byte {
	files := map[string][]byte{AuthorityFile: a.json(), RootsFile: renderCertificates(a.Roots)}
	if len(a.Untrusted) > 0 {
		files[UntrustedFile] = renderCertificates(a.Untrusted)
	}
	return files
}

func (a Authority) json() []byte {
	j := authorityJSON{V: 1, Name: a.Name, URL: a.URL, Development: a.Development, Pins: []pinJSON{}}
	for _, k := range a.RootSPKI {
		j.RootSPKI = append(j.RootSPKI, hex.EncodeToString(k[:]))
	}
	for _, p := range a.Pins {
		j.Pins = append(j.Pins, pinJSON{hex.EncodeToString(p.SPKI[:]), momentText(p.From), momentText(p.Until)})
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(j); err != nil {
		panic(err) // strings, numbers and lists always encode
	}
	return b.Bytes()
}

// Authorities reads the authorities of a tree: the folders below this one, such
// as ops/certs/tsa, by name. Without any there are none, and that is no error; one
// that cannot be read is.
func Authorities(t judge.Tree, folder string) ([]Authority, error) {
	found, there := map[string]map[string][]byte{}, false
	err := t.Walk(folder, func(p string, mode fs.FileMode, _ string) error {
		there = true
		name, file, ok := strings.Cut(strings.TrimPrefix(p, folder+"/"), "/")
		switch {
		case !ok || strings.Contains(file, "/"):
			return fmt.Errorf("%s: want one folder for each authority, with its files", p)
		case !mode.IsRegular():
			return fmt.Errorf("%s: is not a regular file", p)
		}
		data, err := t.Blob(p)
		if err != nil {
			return err
		}
		if found[name] == nil {
			found[name] = map[string][]byte{}
		}
		found[name][file] = data
		return nil
	})
	// Only the folder may be absent, nothing that it lists.
	if err != nil && (there || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	var all []Authority
	for _, name := range slices.Sorted(maps.Keys(found)) {
		a, err := ParseAuthority(name, found[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path.Join(folder, name), err)
		}
		all = append(all, a)
	}
	return all, nil
}

// Select returns the authorities of these names, in the order of the names; no
// names select all.
func Select(all []Authority, names []string) ([]Authority, error) {
	if len(names) == 0 {
		return all, nil
	}
	var chosen []Authority
	for i, name := range names {
		at := slices.IndexFunc(all, func(a Authority) bool { return a.Name == name })
		if at < 0 {
			return nil, fmt.Errorf("no authority is called %q, there are %s: remembrancer tsa bootstrap %s --url URL", name, cmp.Or(authorityNames(all), "none"), name)
		}
		if slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("the authority %q is named twice", name)
		}
		chosen = append(chosen, all[at])
	}
	return chosen, nil
}

func authorityNames(all []Authority) string {
	var names []string
	for _, a := range all {
		names = append(names, a.Name)
	}
	return strings.Join(names, ", ")
}

// Options are what a token of this authority is held to. Callers add the nonce of
// their request.
func (a Authority) Options(now time.Time) timestamp.Options {
	return timestamp.Options{Roots: a.Roots, Untrusted: a.Untrusted, Pins: a.Pins, Now: now}
}

// Verify verifies a token of this authority for data. The error says which check
// did not hold.
func (a Authority) Verify(tsr []byte, data io.Reader, now time.Time) (*timestamp.Verified, error) {
	v, err := timestamp.Verify(tsr, data, a.Options(now))
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", a.Name, err)
	}
	return v, nil
}

// ErrNoAuthority says that no authority is trusted, so that no token can be
// judged.
var ErrNoAuthority = errors.New("no time-stamping authority is pinned: remembrancer tsa bootstrap NAME --url URL")

// VerifyAny verifies a token against one authority after the other, and returns
// the one that it is of. The error says for each of them why it is not. data is
// read from its beginning for each.
func VerifyAny(authorities []Authority, tsr []byte, data io.ReadSeeker, now time.Time) (Authority, *timestamp.Verified, error) {
	if len(authorities) == 0 {
		return Authority{}, nil, ErrNoAuthority
	}
	token, err := timestamp.Parse(tsr)
	if err != nil {
		return Authority{}, nil, err
	}
	var why []error
	for _, a := range authorities {
		if _, err := data.Seek(0, io.SeekStart); err != nil {
			return Authority{}, nil, err
		}
		v, err := token.Verify(data, a.Options(now))
		if err == nil {
			return a, v, nil
		}
		why = append(why, err)
	}
	// What is wrong with the token itself is wrong for all of them.
	if len(slices.CompactFunc(slices.Clone(why), func(a, b error) bool { return a.Error() == b.Error() })) == 1 {
		return Authority{}, nil, why[0]
	}
	for i, a := range authorities {
		why[i] = fmt.Errorf("authority %s: %w", a.Name, why[i])
	}
	return Authority{}, nil, errors.Join(why...)
}

// TokenFile is the name of this authority's token of a file.
func (a Authority) TokenFile(file string) string { return file + "." + a.Name + ".tsr" }

// TokenFiles returns which of these files are tokens of file: FILE.tsr, and
// FILE.<authority>.tsr unless it is the token of another file that is there.
func TokenFiles(file string, there []string) []string {
	var tokens []string
	for _, name := range there {
		of, ok := strings.CutSuffix(name, ".tsr")
		if !ok {
			continue
		}
		authority, named := strings.CutPrefix(of, file+".")
		if of == file || named && CheckAuthorityName(authority) == nil && !slices.Contains(there, of) {
			tokens = append(tokens, name)
		}
	}
	slices.Sort(tokens)
	return tokens
}

// Stamped is a token that lies beside a file, and what it turned out to be.
type Stamped struct {
	File      string              // the token's
	Authority string              // whose it is; of a bad token, whose its name says; "" for nobody's
	Verified  *timestamp.Verified // nil when Err says why
	Err       error               // [ErrNoAuthority] when nothing is pinned to judge it by
}

// VerifyTokens judges the tokens of a file, by their names as [TokenFiles] knows
// them: FILE.<authority>.tsr by that authority alone, FILE.tsr by any.
func VerifyTokens(authorities []Authority, file string, tokens map[string][]byte, data io.ReadSeeker, now time.Time) []Stamped {
	var all []Stamped
	for _, name := range slices.Sorted(maps.Keys(tokens)) {
		s, by := Stamped{File: name}, authorities
		if authority, ok := strings.CutPrefix(strings.TrimSuffix(name, ".tsr"), file+"."); ok {
			s.Authority = authority
			by = slices.DeleteFunc(slices.Clone(authorities), func(a Authority) bool { return a.Name != authority })
			if len(by) == 0 {
				s.Err = noAuthority(authority)
				all = append(all, s)
				continue
			}
		}
		var of Authority
		if of, s.Verified, s.Err = VerifyAny(by, tokens[name], data, now); s.Err == nil {
			s.Authority = of.Name
		}
		all = append(all, s)
	}
	return all
}

// noAuthority is ErrNoAuthority for a name.
type noAuthority string

func (n noAuthority) Error() string {
	return fmt.Sprintf("no authority %s is pinned: remembrancer tsa bootstrap %[1]s --url URL", string(n))
}
func (n noAuthority) Is(target error) bool { return target == ErrNoAuthority }

// Quorum says how many time stamps are enough. Its zero value asks for all.
type Quorum struct{ n int }

// ParseQuorum reads all, any, or a number from 1 to 9.
func ParseQuorum(s string) (Quorum, error) {
	switch s {
	case "all":
		return Quorum{}, nil
	case "any":
		return Quorum{1}, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 9 || strconv.Itoa(n) != s {
		return Quorum{}, fmt.Errorf("timestamps: found %q, wanted all, any, or a number from 1 to 9", s)
	}
	return Quorum{n}, nil
}

// Check says what these tokens lack. They count by the key of their root: two
// authorities under one root are one clock. All means as many roots as there are
// authorities.
func (q Quorum) Check(authorities []Authority, tokens ...*timestamp.Verified) error {
	need := q.n
	if need == 0 {
		need = len(authorities)
	}
	if need == 0 {
		return ErrNoAuthority
	}
	roots := map[[sha256.Size]byte]bool{}
	for _, t := range tokens {
		roots[timestamp.SPKI(t.Root)] = true
	}
	if len(roots) < need {
		hint := ""
		if len(roots) < len(tokens) {
			hint = "; those under one root count as one"
		}
		return fmt.Errorf("%d tokens of %d independent authorities, wanted %d%s", len(tokens), len(roots), need, hint)
	}
	return nil
}
