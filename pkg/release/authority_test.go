package release_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/release"
	"github.com/vaultmesh/remembrancer/pkg/timestamp"
)

func certificate(t testing.TB, name string, ca bool) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NilError(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true, IsCA: ca,
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2046, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	assert.NilError(t, err)
	c, err = x509.ParseCertificate(der)
	assert.NilError(t, err)
	return c
}

func freetsa(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "timestamp", "testdata", "freetsa", name))
	assert.NilError(t, err)
	return b
}

func freeTSA(t testing.TB, pins ...timestamp.Pin) release.Authority {
	t.Helper()
	roots, err := release.ParseCertificates(freetsa(t, "root.pem"))
	assert.NilError(t, err)
	a, err := release.NewAuthority("freetsa", "https://freetsa.org/tsr", roots, nil, pins...)
	assert.NilError(t, err)
	return a
}

// tree is a tree of a few files.
type tree map[string]string

func (t tree) Blob(p string) ([]byte, error) {
	b, ok := t[p]
	if !ok || b == "lost" {
		return nil, &fs.PathError{Op: "read", Path: p, Err: fs.ErrNotExist}
	}
	return []byte(b), nil
}

func (t tree) Walk(folder string, fn func(string, fs.FileMode, string) error) error {
	for _, p := range slices.Sorted(maps.Keys(t)) {
		mode := fs.FileMode(0o644)
		if t[p] == "link" {
			mode = fs.ModeSymlink
		}
		if strings.HasPrefix(p, folder+"/") {
			if err := fn(p, mode, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t tree) add(folder string, a release.Authority) {
	for name, data := range a.Files() {
		t[folder+"/"+a.Name+"/"+name] = string(data)
	}
}

func TestAnAuthorityIsReadAsItWasWritten(t *testing.T) {
	root, between := certificate(t, "root", true), certificate(t, "between", true)
	a, err := release.NewAuthority("ours", "http://tsa.example/?a=1&b=2", []*x509.Certificate{root}, []*x509.Certificate{between},
		timestamp.Pin{SPKI: timestamp.SPKI(between), From: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)})
	assert.NilError(t, err)
	again, err := release.ParseAuthority("ours", a.Files())
	assert.NilError(t, err)
	assert.DeepEqual(t, again.Files(), a.Files())
	spki, pin := timestamp.SPKI(root), timestamp.SPKI(between)
	assert.Equal(t, string(a.Files()["tsa.json"]), fmt.Sprintf(`{
  "v": 1,
  "name": "ours",
  "url": "http://tsa.example/?a=1&b=2",
  "root_spki": [
    "%x"
  ],
  "pins": [
    {
      "spki": "%x",
      "from": "2026-01-01T00:00:00Z",
      "until": ""
    }
  ],
  "development": false
}
`, spki[:], pin[:]))

	tr := tree{"README.md": "not ours"}
	all, err := release.Authorities(tr, "ops/certs/tsa")
	assert.NilError(t, err)
	assert.Equal(t, len(all), 0)
	tr.add("ops/certs/tsa", a)
	tr.add("ops/certs/tsa", freeTSA(t))
	all, err = release.Authorities(tr, "ops/certs/tsa")
	assert.NilError(t, err)
	assert.DeepEqual(t, []string{all[0].Name, all[1].Name}, []string{"freetsa", "ours"})
}

func TestAnAuthorityIsReadStrictly(t *testing.T) {
	root, leaf := certificate(t, "root", true), certificate(t, "leaf", false)
	spki := timestamp.SPKI(root)
	good, err := release.NewAuthority("ours", "https://tsa.example/", []*x509.Certificate{root}, nil)
	assert.NilError(t, err)
	text := fmt.Sprintf(`{"v":1,"name":"ours","url":"https://tsa.example/","root_spki":["%x"],"pins":[],"development":false}`, spki[:])
	pems := func(c *x509.Certificate) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	edit := func(name, from, to string) func(map[string]string) {
		return func(f map[string]string) {
			if !strings.Contains(f[name], from) {
				t.Fatalf("%s has no %s", name, from)
			}
			f[name] = strings.Replace(f[name], from, to, 1)
		}
	}
	set := func(name, to string) func(map[string]string) {
		return func(f map[string]string) { f[name] = to }
	}
	pin := func(s string) func(map[string]string) { return edit("tsa.json", `"pins":[]`, `"pins":[`+s+`]`) }
	for _, tc := range []struct {
		name string
		edit func(map[string]string)
		want string
	}{
		{"white space", edit("tsa.json", ":", " :\n"), ""},
		{"swapped root", set("ca.pem", pems(certificate(t, "root", true))), "ca.pem is not what was pinned"},
		{"second root", set("ca.pem", pems(root)+pems(certificate(t, "root", true))), "ca.pem is not what was pinned"},
		{"the root twice", set("ca.pem", pems(root)+pems(root)), ""},
		{"carriage returns", set("ca.pem", strings.ReplaceAll(pems(root), "\n", "\r\n")), ""},
		{"no root", set("ca.pem", ""), "found no certificate"},
		{"no file of roots", func(f map[string]string) { delete(f, "ca.pem") }, "ca.pem is missing"},
		{"no file of pins", func(f map[string]string) { delete(f, "tsa.json") }, "tsa.json is missing"},
		{"another file", set("Untrusted.pem", pems(leaf)), `found the file "Untrusted.pem"`},
		{"signer as root", set("ca.pem", pems(leaf)), "is no root"},
		{"words around", set("ca.pem", "root:\n"+pems(root)), "no PEM block"},
		{"broken block before", set("ca.pem", "-----BEGIN CERTIFICATE-----\n!\n"+pems(root)), "no PEM block"},
		{"secret key", set("untrusted.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), `found "PRIVATE KEY"`},
		{"headers", set("ca.pem", strings.Replace(pems(root), "-----\n", "-----\nA: b\n\n", 1)), "wanted certificates and nothing else"},
		{"no certificate", set("untrusted.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "untrusted.pem: x509"},
		{"large", set("untrusted.pem", strings.Repeat(" ", 300<<10)), "wanted at most"},
		{"intermediate", set("untrusted.pem", pems(leaf)), ""},
		{"version", edit("tsa.json", `"v":1`, `"v":2`), "found version 2, wanted 1"},
		{"name", edit("tsa.json", `"ours"`, `"theirs"`), `found the name "theirs", wanted that of its folder`},
		{"name of a signature", edit("tsa.json", `"ours"`, `"asc"`), "small letters"},
		{"name of a path", edit("tsa.json", `"ours"`, `"../ours"`), "small letters"},
		{"url", edit("tsa.json", "https://tsa", "ftp://tsa"), "want an http or https URL"},
		{"user in the url", edit("tsa.json", "https://tsa", "https://a:b@tsa"), "want an http or https URL"},
		{"unknown key", edit("tsa.json", `"v":1`, `"v":1,"w":2`), `unknown field "w"`},
		{"key in other letters", edit("tsa.json", `"v"`, `"V"`), "found keys that are"},
		{"key twice", edit("tsa.json", `"v":1`, `"v":1,"v":1`), "found keys that are"},
		{"missing key", edit("tsa.json", `,"development":false`, ""), "found keys that are"},
		{"null", edit("tsa.json", `"pins":[]`, `"pins":null`), "found keys that are"},
		{"more after it", edit("tsa.json", "}", "}{}"), "invalid character"},
		{"no root key", edit("tsa.json", `"`+hex.EncodeToString(spki[:])+`"`, ""), "root_spki: found none"},
		{"root key in capitals", edit("tsa.json", hex.EncodeToString(spki[:]), strings.ToUpper(hex.EncodeToString(spki[:]))+"A"), "64 small hex digits"},
		{"root key twice", edit("tsa.json", `["`, fmt.Sprintf(`["%x","`, spki[:])), "each key once"},
		{"pin", pin(`{"spki":"` + strings.Repeat("0", 64) + `","from":"2026-01-01T00:00:00Z","until":"2026-01-01T00:00:00Z"}`), ""},
		{"short pin", pin(`{"spki":"00","from":"","until":""}`), "64 small hex digits"},
		{"pin with a zone", pin(`{"spki":"` + strings.Repeat("0", 64) + `","from":"2026-01-01T00:00:00+01:00","until":""}`), "wanted one in UTC"},
		{"pin with a date", pin(`{"spki":"` + strings.Repeat("0", 64) + `","from":"","until":"2026-01-01"}`), "wanted one in UTC"},
		{"pin that ends first", pin(`{"spki":"` + strings.Repeat("0", 64) + `","from":"2026-01-02T00:00:00Z","until":"2026-01-01T00:00:00Z"}`), "ends before it begins"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := map[string]string{"tsa.json": text, "ca.pem": string(good.Files()["ca.pem"])}
			tc.edit(f)
			files, tr := map[string][]byte{}, tree{}
			for name, data := range f {
				files[name], tr["tsa/ours/"+name] = []byte(data), data
			}
			_, err := release.ParseAuthority("ours", files)
			_, err2 := release.Authorities(tr, "tsa")
			if tc.want == "" {
				assert.NilError(t, err)
				assert.NilError(t, err2)
				return
			}
			assert.ErrorContains(t, err, tc.want)
			assert.ErrorContains(t, err2, tc.want)
		})
	}
}

func TestAFolderThatCannotBeReadIsNotEmpty(t *testing.T) {
	for path, content := range map[string]string{
		"tsa/file":              "x",
		"tsa/ours/deeper/x.pem": "x",
		"tsa/ours/ca.pem":       "link",
		"tsa/ours/tsa.json":     "lost",
	} {
		_, err := release.Authorities(tree{path: content}, "tsa")
		assert.ErrorContains(t, err, path)
	}
}

func TestTheRealTokenIsItsAuthoritysAndNoOthers(t *testing.T) {
	now := time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)
	token, data := freetsa(t, "test-app.tar.gz.tsr"), freetsa(t, "test-app.tar.gz")
	a := freeTSA(t)
	other, err := release.NewAuthority("other", "https://other.example/", []*x509.Certificate{certificate(t, "other", true)}, nil)
	assert.NilError(t, err)

	v, err := a.Verify(token, bytes.NewReader(data), now)
	assert.NilError(t, err)
	assert.Equal(t, v.Time, time.Date(2025, 10, 19, 20, 16, 18, 0, time.UTC))
	of, _, err := release.VerifyAny([]release.Authority{other, a}, token, bytes.NewReader(data), now)
	assert.NilError(t, err)
	assert.Equal(t, of.Name, "freetsa")

	rotated := freeTSA(t, timestamp.Pin{SPKI: v.SignerSPKI(), Until: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)})
	_, _, err = release.VerifyAny([]release.Authority{other, rotated}, token, bytes.NewReader(data), now)
	assert.ErrorContains(t, err, "authority other: time stamp: signer")
	assert.ErrorContains(t, err, "authority freetsa: time stamp: signer")
	assert.ErrorContains(t, err, "is not pinned for 2025-10-19T20:16:18Z")

	_, _, err = release.VerifyAny([]release.Authority{other, a}, token, strings.NewReader("tampered"), now)
	assert.ErrorContains(t, err, "time stamp: it is of other data")
	assert.Assert(t, !strings.Contains(err.Error(), "authority"), "said once: %v", err)
	_, _, err = release.VerifyAny([]release.Authority{a}, []byte("<html>"), bytes.NewReader(data), now)
	assert.ErrorContains(t, err, `found text that begins "<html>"`)
	_, _, err = release.VerifyAny(nil, token, bytes.NewReader(data), now)
	assert.ErrorIs(t, err, release.ErrNoAuthority)
}

func TestTokensAreFoundByTheirNames(t *testing.T) {
	there := []string{"app.tar", "app.tar.gz", "app.tar.gz.tsr", "app.tar.tsr", "app.tar.freetsa.tsr", "app.tar.asc.tsr", "app.tar.a.b.tsr", "app.tar.tsq", "app.tsr", "app.tar.gz.freetsa.tsr"}
	assert.DeepEqual(t, release.TokenFiles("app.tar", there), []string{"app.tar.freetsa.tsr", "app.tar.tsr"})
	assert.DeepEqual(t, release.TokenFiles("app.tar.gz", there), []string{"app.tar.gz.freetsa.tsr", "app.tar.gz.tsr"})
	assert.Equal(t, release.Authority{Name: "freetsa"}.TokenFile("app.tar"), "app.tar.freetsa.tsr")
}

func TestATokenIsJudgedByWhomItsNameSays(t *testing.T) {
	token, data := freetsa(t, "test-app.tar.gz.tsr"), freetsa(t, "test-app.tar.gz")
	other, err := release.NewAuthority("other", "https://other.example/", []*x509.Certificate{certificate(t, "other", true)}, nil)
	assert.NilError(t, err)
	all := release.VerifyTokens([]release.Authority{freeTSA(t), other}, "f",
		map[string][]byte{"f.tsr": token, "f.freetsa.tsr": token, "f.other.tsr": token, "f.third.tsr": token}, bytes.NewReader(data), time.Now())
	var got []string
	for _, s := range all {
		verdict := "valid"
		switch {
		case errors.Is(s.Err, release.ErrNoAuthority):
			verdict = s.Err.Error()
		case s.Err != nil:
			assert.ErrorContains(t, s.Err, "leads to no given root")
			verdict = "not valid"
		}
		assert.Equal(t, s.Verified == nil, s.Err != nil)
		got = append(got, s.File+" "+s.Authority+" "+verdict)
	}
	assert.DeepEqual(t, got, []string{
		"f.freetsa.tsr freetsa valid", "f.other.tsr other not valid",
		"f.third.tsr third no authority third is pinned: remembrancer tsa bootstrap third --url URL", "f.tsr freetsa valid",
	})
}

func TestASubjectIsOnePlainLine(t *testing.T) {
	assert.Equal(t, release.SubjectOf(certificate(t, "a\n✅ is pinned\x1b[2J", true)), "CN=a�✅ is pinned�[2J")
	roots, err := release.ParseCertificates(freetsa(t, "root.pem"))
	assert.NilError(t, err)
	assert.Equal(t, release.SubjectOf(roots[0]), "CN=www.freetsa.org,OU=Root CA,O=Free TSA,L=Wuerzburg,ST=Bayern,C=DE")
}

func TestNamesSelectAuthorities(t *testing.T) {
	all := []release.Authority{{Name: "a"}, {Name: "b"}}
	got, err := release.Select(all, nil)
	assert.NilError(t, err)
	assert.Equal(t, len(got), 2)
	got, err = release.Select(all, []string{"b"})
	assert.NilError(t, err)
	assert.Equal(t, got[0].Name, "b")
	_, err = release.Select(all, []string{"c"})
	assert.Error(t, err, `no authority is called "c", there are a, b: remembrancer tsa bootstrap c --url URL`)
	_, err = release.Select(all, []string{"a", "a"})
	assert.Error(t, err, `the authority "a" is named twice`)
}

func TestTwoAuthoritiesUnderOneRootAreOneClock(t *testing.T) {
	one, two := &timestamp.Verified{Root: certificate(t, "one", true)}, &timestamp.Verified{Root: certificate(t, "two", true)}
	authorities := []release.Authority{{Name: "a"}, {Name: "b"}}
	for _, tc := range []struct {
		quorum string
		tokens []*timestamp.Verified
		want   string
	}{
		{"all", []*timestamp.Verified{one, two}, ""},
		{"all", []*timestamp.Verified{one, one}, "2 tokens of 1 independent authorities, wanted 2; those under one root count as one"},
		{"all", []*timestamp.Verified{one}, "1 tokens of 1 independent authorities, wanted 2"},
		{"any", []*timestamp.Verified{one}, ""},
		{"any", nil, "0 tokens of 0 independent authorities, wanted 1"},
		{"2", []*timestamp.Verified{one, two}, ""},
		{"2", []*timestamp.Verified{one, one}, "2 tokens of 1 independent authorities, wanted 2; those under one root count as one"},
		{"3", []*timestamp.Verified{one, two}, "2 tokens of 2 independent authorities, wanted 3"},
	} {
		q, err := release.ParseQuorum(tc.quorum)
		assert.NilError(t, err)
		err = q.Check(authorities, tc.tokens...)
		if tc.want == "" {
			assert.NilError(t, err)
		} else {
			assert.Error(t, err, tc.want)
		}
	}
	assert.ErrorIs(t, release.Quorum{}.Check(nil), release.ErrNoAuthority)
	for _, s := range []string{"", "0", "10", "01", "+1", "none", "All"} {
		_, err := release.ParseQuorum(s)
		assert.ErrorContains(t, err, "wanted all, any, or a number from 1 to 9")
	}
}

// What is read as an authority is written as the same authority.
func FuzzAuthority(f *testing.F) {
	a := freeTSA(f, timestamp.Pin{From: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)})
	files := a.Files()
	f.Add(files["tsa.json"], files["ca.pem"], []byte(nil))
	f.Add(files["tsa.json"], files["ca.pem"], files["ca.pem"])
	f.Fuzz(func(t *testing.T, text, roots, untrusted []byte) {
		files := map[string][]byte{"tsa.json": text, "ca.pem": roots}
		if len(untrusted) > 0 {
			files["untrusted.pem"] = untrusted
		}
		a, err := release.ParseAuthority("freetsa", files)
		if err != nil {
			return
		}
		again, err := release.ParseAuthority("freetsa", a.Files())
		assert.NilError(t, err)
		assert.DeepEqual(t, again.Files(), a.Files())
	})
}
