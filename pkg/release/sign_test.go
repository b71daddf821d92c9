package release_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/release"
	"github.com/vaultmesh/remembrancer/pkg/tsa/tsatest"
)

// signing is a folder with two artifacts, a test key and two authorities.
type signing struct {
	t    *testing.T
	path string
	tsas map[string]*tsatest.TSA
	down map[string]bool
	made []string
	asks int
	release.Signing
}

func testSigner(t *testing.T, name string) openpgp.Signer {
	t.Helper()
	secret, err := os.ReadFile(filepath.Join("..", "openpgp", "testdata", name+".sec.asc"))
	assert.NilError(t, err)
	s, err := openpgp.FromArmored(secret, []byte("correct horse"), time.Now)
	assert.NilError(t, err)
	return s
}

var artifacts = []string{"app.tar.gz", "b.zip"}

// twoTSAs are two authorities with roots of their own.
func twoTSAs(t *testing.T) map[string]*tsatest.TSA {
	t.Helper()
	return map[string]*tsatest.TSA{"one": tsatest.New(t), "two": tsatest.New(t)}
}

func newSigning(t *testing.T, tsas map[string]*tsatest.TSA) *signing {
	t.Helper()
	s := &signing{t: t, path: t.TempDir(), tsas: tsas, down: map[string]bool{}}
	for _, name := range artifacts {
		s.write(name, "bytes of "+name)
	}
	dir, err := durable.OpenDir(s.path)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.Check(t, dir.Close()) })
	signer := testSigner(t, "ed25519")
	keys, err := openpgp.NewKeyring(signer.Public(), testSigner(t, "nistp256").Public())
	assert.NilError(t, err)
	for _, name := range []string{"one", "two"} {
		s.Authorities = append(s.Authorities, s.tsas[name].Authority(name))
	}
	s.Dir, s.Keys, s.Signer, s.Now = dir, keys, signer, time.Now
	s.Made = func(name string) { s.made = append(s.made, name) }
	s.Stamp = func(_ context.Context, a release.Authority, data []byte) ([]byte, error) {
		s.asks++
		if s.down[a.Name] {
			return nil, errors.New(a.Name + " is down")
		}
		return s.tsas[a.Name].Token(data), nil
	}
	return s
}

func (s *signing) write(name, data string) {
	s.t.Helper()
	assert.NilError(s.t, os.WriteFile(filepath.Join(s.path, name), []byte(data), 0o600))
}

func (s *signing) read(name string) string {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.path, name))
	assert.NilError(s.t, err)
	return string(data)
}

func (s *signing) all() map[string]string {
	s.t.Helper()
	entries, err := os.ReadDir(s.path)
	assert.NilError(s.t, err)
	files := map[string]string{}
	for _, e := range entries {
		files[e.Name()] = s.read(e.Name())
	}
	return files
}

func (s *signing) tool(name string, args ...string) string {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), name, args...)
	cmd.Dir = s.path
	out, err := cmd.CombinedOutput()
	assert.NilError(s.t, err, "%s: %s", name, out)
	return string(out)
}

func TestStockToolsAcceptASignedRelease(t *testing.T) {
	tsas := twoTSAs(t)
	for _, key := range []string{"ed25519", "rsa3072", "rsa4096", "nistp256", "stub"} {
		s := newSigning(t, tsas)
		s.Signer = testSigner(t, key)
		var err error
		s.Keys, err = openpgp.NewKeyring(s.Signer.Public())
		assert.NilError(t, err)
		done, err := s.Run(t.Context(), artifacts)
		assert.NilError(t, err)
		assert.DeepEqual(t, done.Files, []string{
			"app.tar.gz", "b.zip",
			"app.tar.gz.asc", "app.tar.gz.one.tsr", "app.tar.gz.two.tsr",
			"b.zip.asc", "b.zip.one.tsr", "b.zip.two.tsr",
			"SHA256SUMS", "SHA256SUMS.asc", "SHA256SUMS.asc.one.tsr", "SHA256SUMS.asc.two.tsr",
		})
		assert.Equal(t, len(s.all()), len(done.Files))
		assert.Equal(t, s.tool("sha256sum", "--strict", "-c", "SHA256SUMS"), "app.tar.gz: OK\nb.zip: OK\n")

		outside := t.TempDir()
		ring := filepath.Join(outside, "k.gpg")
		assert.NilError(t, os.WriteFile(ring, s.Signer.Public().Binary(), 0o600))
		for _, name := range []string{"app.tar.gz", "b.zip", "SHA256SUMS"} {
			out := s.tool("gpgv", "--keyring", ring, "--status-fd", "1", name+".asc", name)
			assert.Assert(t, strings.Contains(out, "[GNUPG:] GOODSIG ") && strings.Contains(out, string(s.Signer.Fingerprint())+"\n"), out)
		}
		for _, a := range s.Authorities {
			root := filepath.Join(outside, "ca.pem")
			assert.NilError(t, os.WriteFile(root, a.Files()[release.RootsFile], 0o600))
			for _, name := range []string{"app.tar.gz", "b.zip", "SHA256SUMS.asc"} {
				v, err := a.Verify([]byte(s.read(a.TokenFile(name))), strings.NewReader(s.read(name)), time.Now())
				assert.NilError(t, err)
				s.tool("openssl", "ts", "-verify", "-data", name, "-in", a.TokenFile(name), "-CAfile", root, "-attime", strconv.FormatInt(v.Time.Unix(), 10))
			}
		}
	}
}

func TestAFinishedReleaseStaysAsItIs(t *testing.T) {
	tsas := twoTSAs(t)
	s := newSigning(t, tsas)
	first, err := s.Run(t.Context(), artifacts)
	assert.NilError(t, err)
	before, asked := s.all(), s.asks
	s.made = nil
	// Another trust anchor may carry on where the first one stopped.
	s.Signer = testSigner(t, "nistp256")
	again, err := s.Run(t.Context(), artifacts)
	assert.NilError(t, err)
	assert.DeepEqual(t, s.all(), before)
	assert.Equal(t, len(s.made), 0)
	assert.Equal(t, s.asks, asked)
	assert.DeepEqual(t, again.Files, first.Files)

	// Whatever is missing is made again, and nothing else.
	for _, name := range first.Files[len(artifacts):] {
		assert.NilError(t, os.Remove(filepath.Join(s.path, name)))
		kept := s.all()
		_, err := s.Run(t.Context(), artifacts)
		if name == "SHA256SUMS.asc" {
			// Tokens of a signature that is gone are of another one.
			var taken *release.TakenError
			assert.Assert(t, errors.As(err, &taken), err)
			assert.Equal(t, taken.Name, "SHA256SUMS.asc.one.tsr")
			s.write(name, before[name])
			continue
		}
		assert.NilError(t, err)
		now := s.all()
		delete(now, name)
		assert.DeepEqual(t, now, kept)
		s.write(name, before[name])
	}
}

func TestAFileInThePlaceOfAnotherIsNeverReplaced(t *testing.T) {
	tsas := twoTSAs(t)
	for name, data := range map[string]string{
		"SHA256SUMS":             "something\n",
		"app.tar.gz.asc":         "something\n",
		"b.zip.two.tsr":          "something\n",
		"SHA256SUMS.asc":         string(openpgp.Armor([]byte{1})),
		"SHA256SUMS.asc.one.tsr": "",
	} {
		s := newSigning(t, tsas)
		s.write(name, data)
		_, err := s.Run(t.Context(), artifacts)
		var taken *release.TakenError
		assert.Assert(t, errors.As(err, &taken), "%s: %v", name, err)
		assert.Equal(t, taken.Name, name)
		assert.Equal(t, s.read(name), data)
	}
	// A good signature of a key that is no trust anchor.
	s := newSigning(t, tsas)
	packet, err := testSigner(t, "rsa3072").Sign(t.Context(), []byte(s.read("b.zip")))
	assert.NilError(t, err)
	s.write("b.zip.asc", string(openpgp.Armor(packet)))
	_, err = s.Run(t.Context(), artifacts)
	assert.ErrorContains(t, err, "b.zip.asc is there already and is not of this release: no trust anchor's signature")
	// A token of another file.
	s = newSigning(t, tsas)
	s.write("b.zip.one.tsr", string(s.tsas["one"].Token([]byte("other"))))
	_, err = s.Run(t.Context(), artifacts)
	assert.ErrorContains(t, err, "b.zip.one.tsr is there already and is not of this release: authority one: ")
	// Another build after the list was made.
	s = newSigning(t, tsas)
	_, err = s.Run(t.Context(), artifacts)
	assert.NilError(t, err)
	s.write("b.zip", "rebuilt")
	_, err = s.Run(t.Context(), artifacts)
	assert.ErrorContains(t, err, "SHA256SUMS is there already and is not of this release: it lists other files or digests")
}

func TestTheQuorumDecidesWhetherOneAuthorityIsEnough(t *testing.T) {
	tsas := twoTSAs(t)
	s := newSigning(t, tsas)
	s.down["two"] = true
	_, err := s.Run(t.Context(), artifacts)
	assert.ErrorContains(t, err, "timestamps of app.tar.gz: 1 tokens of 1 independent authorities, wanted 2")
	assert.ErrorContains(t, err, "two is down")
	assert.Assert(t, !slices.Contains(s.made, "app.tar.gz.two.tsr"))

	// Any: one that is down is asked once, and its tokens are not handed out.
	s.asks = 0
	s.Quorum, err = release.ParseQuorum("any")
	assert.NilError(t, err)
	done, err := s.Run(t.Context(), artifacts)
	assert.NilError(t, err)
	assert.Equal(t, s.asks, 3)
	assert.Assert(t, !slices.ContainsFunc(done.Files, func(n string) bool { return strings.HasSuffix(n, ".two.tsr") }))
	assert.Equal(t, len(done.Tokens), 1)

	// When it is back, the rest is added.
	s.down["two"] = false
	s.Quorum = release.Quorum{}
	done, err = s.Run(t.Context(), artifacts)
	assert.NilError(t, err)
	assert.Equal(t, len(done.Tokens), 2)

	// A bad answer is never written.
	s = newSigning(t, tsas)
	s.Stamp = func(_ context.Context, a release.Authority, _ []byte) ([]byte, error) {
		return s.tsas[a.Name].Token([]byte("x")), nil
	}
	_, err = s.Run(t.Context(), artifacts)
	assert.ErrorContains(t, err, "app.tar.gz.one.tsr: authority one: ")
	assert.Assert(t, !slices.ContainsFunc(s.made, func(n string) bool { return strings.HasSuffix(n, ".tsr") }))
}

func TestWhatCannotBeSignedIsRefusedFirst(t *testing.T) {
	tsas := twoTSAs(t)
	for _, tc := range []struct {
		name      string
		change    func(*signing)
		artifacts []string
		err       string
	}{
		{"no authority", func(s *signing) { s.Authorities = nil }, artifacts, release.ErrNoAuthority.Error()},
		{"a key nobody trusts", func(s *signing) { s.Signer = testSigner(s.t, "rsa3072") }, artifacts, "is no trust anchor"},
		{"an artifact that is missing", func(*signing) {}, []string{"gone"}, "gone"},
		{"artifacts of two folders", func(*signing) {}, []string{"a/b"}, "want all artifacts of a release in one folder"},
		{"no artifacts", func(*signing) {}, nil, "no artifacts to sign"},
		{"the list itself", func(*signing) {}, []string{"SHA256SUMS"}, "a list cannot hold itself"},
		{"a link", func(s *signing) { assert.NilError(s.t, os.Symlink("b.zip", filepath.Join(s.path, "link"))) }, []string{"link"}, "link"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSigning(t, tsas)
			tc.change(s)
			_, err := s.Run(t.Context(), tc.artifacts)
			assert.ErrorContains(t, err, tc.err)
			assert.Equal(t, len(s.made), 0)
		})
	}
}

func TestTheReceiptIsAboutEveryArtifact(t *testing.T) {
	tsas := twoTSAs(t)
	s := newSigning(t, tsas)
	done, err := s.Run(t.Context(), artifacts)
	assert.NilError(t, err)
	of := release.Subject{Repository: "github.com/Acme/app", Tag: "app/v1.0.0", TagObject: strings.Repeat("b", 40), Commit: strings.Repeat("a", 40), SignedBy: s.Signer.Fingerprint()}
	r, err := done.Receipt(of, s.Signer.Fingerprint(), time.Now())
	assert.NilError(t, err)
	assert.Equal(t, r.Kind(), receipt.Release)
	assert.Equal(t, r.File(), "release/app-v1.0.0.receipt")
	assert.Equal(t, r.Field("purl"), "pkg:github/acme/app@app%2Fv1.0.0")
	var names []string
	for _, sub := range r.Subjects() {
		names = append(names, sub.Name)
	}
	assert.DeepEqual(t, names, []string{"app.tar.gz", "b.zip", "SHA256SUMS", "SHA256SUMS.asc", "commit"})
	assert.Assert(t, bytes.Contains(r.Predicate(), []byte(`"vaultmesh_tag":{"name":"app/v1.0.0","object":"`+of.TagObject+`","signed_by":"`+string(of.SignedBy)+`"}`)))
	of.Repository = "local/app-1"
	r, err = done.Receipt(of, s.Signer.Fingerprint(), time.Now())
	assert.NilError(t, err)
	assert.Equal(t, r.Field("purl"), "pkg:generic/local/app-1@app%2Fv1.0.0")
}
