package release_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/archive"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/release"
)

// command runs a program in a folder and returns what it printed.
func command(t testing.TB, dir, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "GIT_") }),
		"HOME="+dir, "GNUPGHOME="+gnupgHome(t), "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C.UTF-8",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@b",
		"GIT_AUTHOR_DATE=1790000000 +0100", "GIT_COMMITTER_DATE=1790000000 +0100")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var gnupg struct {
	sync.Once
	dir string
}

// gnupgHome is short: the path of an agent's socket may have a hundred bytes.
func gnupgHome(t testing.TB) string {
	gnupg.Do(func() {
		dir, err := os.MkdirTemp("", "gpg")
		assert.NilError(t, err)
		gnupg.dir = dir
	})
	return gnupg.dir
}

func TestMain(m *testing.M) {
	code := m.Run()
	if gnupg.dir != "" {
		kill := exec.Command("gpgconf", "--kill", "all")
		kill.Env = append(os.Environ(), "GNUPGHOME="+gnupg.dir)
		_ = kill.Run()
		_ = os.RemoveAll(gnupg.dir)
	}
	os.Exit(code)
}

func must(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	out, err := command(t, dir, name, args...)
	assert.NilError(t, err, "%s %s\n%s", name, strings.Join(args, " "), out)
	return strings.TrimSpace(out)
}

// localTSA is an authority whose tokens openssl makes.
type localTSA struct {
	release.Authority
	dir string
}

const tsaConfig = `
[tsa]
default_tsa = one
[one]
serial = serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha384, sha512
ess_cert_id_alg = sha256
`

// newTSA makes a root, and a signer that is valid for so long.
func newTSA(t testing.TB, name string, valid time.Duration) localTSA {
	t.Helper()
	dir := t.TempDir()
	keys := [2]*ecdsa.PrivateKey{}
	certs := [2]*x509.Certificate{}
	for i := range certs {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		assert.NilError(t, err)
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: fmt.Sprintf("%s %d", name, i)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(20, 0, 0),
			BasicConstraintsValid: true, IsCA: i == 0, KeyUsage: x509.KeyUsageCertSign,
		}
		parent, signer := c, key
		if i == 1 {
			c.NotAfter, c.KeyUsage = time.Now().Add(valid), x509.KeyUsageDigitalSignature
			// openssl wants this critical, which is not how the library writes it.
			c.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 37}, Critical: true, Value: []byte{0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 8}}}
			parent, signer = certs[0], keys[0]
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
		assert.NilError(t, err)
		certs[i], err = x509.ParseCertificate(der)
		assert.NilError(t, err)
		keys[i] = key
	}
	key, err := x509.MarshalPKCS8PrivateKey(keys[1])
	assert.NilError(t, err)
	for file, data := range map[string][]byte{
		"tsa.cnf": []byte(tsaConfig), "serial": []byte("01\n"),
		"tsa.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"tsa.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certs[1].Raw}),
	} {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, file), data, 0o600))
	}
	a, err := release.NewAuthority(name, "http://127.0.0.1/"+name, certs[:1], nil)
	assert.NilError(t, err)
	return localTSA{a, dir}
}

func (a localTSA) stamp(t testing.TB, data []byte) []byte {
	t.Helper()
	assert.NilError(t, os.WriteFile(filepath.Join(a.dir, "data"), data, 0o600))
	must(t, a.dir, "openssl", "ts", "-query", "-data", "data", "-sha256", "-cert", "-out", "q.tsq")
	must(t, a.dir, "openssl", "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "q.tsq", "-inkey", "tsa.key", "-signer", "tsa.pem", "-out", "q.tsr")
	token, err := os.ReadFile(filepath.Join(a.dir, "q.tsr"))
	assert.NilError(t, err)
	return token
}

// commitSource is a commit's tree of a repository on disk.
type commitSource struct{ *gitrepo.Tree }

func (s commitSource) Walk(folder string, fn func(string, fs.FileMode, string) error) error {
	return s.Tree.Walk(folder, func(e gitrepo.Entry) error {
		return fn(e.Path, map[gitrepo.Mode]fs.FileMode{gitrepo.Regular: 0o644, gitrepo.Executable: 0o755, gitrepo.Symlink: fs.ModeSymlink, gitrepo.Submodule: fs.ModeIrregular}[e.Mode], e.Hash.String())
	})
}

func (s commitSource) Link(p string) (string, error) {
	e, err := s.Lookup(p)
	if err != nil {
		return "", err
	}
	b, err := s.Read(e.Hash)
	return string(b), err
}

func operator(t testing.TB) openpgp.Signer {
	t.Helper()
	return keyOf(t, "Operator")
}

func keyOf(t testing.TB, name string) openpgp.Signer {
	t.Helper()
	secret, _, err := openpgp.Generate(name, "operator@example.com", time.Now().Add(-time.Hour), rand.Reader)
	assert.NilError(t, err)
	s, err := openpgp.FromArmored(secret, nil, time.Now)
	assert.NilError(t, err)
	return s
}

// sealed is a repository with a genesis.
type sealed struct {
	release.GenesisEvidence
	t           testing.TB
	dir         string
	files       map[string][]byte
	genesis     release.Genesis
	signer      openpgp.Signer
	authorities []localTSA
}

// repository makes one with a bit of everything.
func repository(t testing.TB) (dir, commit string) {
	t.Helper()
	dir = t.TempDir()
	must(t, dir, "git", "init", "-q", "-b", "main", ".")
	for name, data := range map[string]string{
		"README.md": "hello\n", "run.sh": "#!/bin/sh\n", "docs/ünï cödé.txt": "x\r\n", ".gitattributes": "*.subst export-subst\nprivate export-ignore\n*.dos text eol=crlf\n",
		"v.subst": "$Format:%H$\n", "private": "not archived\n", "a.dos": "one\ntwo\n", "back\\slash": "b\n",
	} {
		assert.NilError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644))
	}
	assert.NilError(t, os.Chmod(filepath.Join(dir, "run.sh"), 0o755))
	assert.NilError(t, os.Symlink("../README.md", filepath.Join(dir, "docs/link")))
	must(t, dir, "git", "add", "-A")
	must(t, dir, "git", "update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("ab", 20)+",vendor/sub")
	must(t, dir, "git", "commit", "-qm", "first")
	must(t, dir, "git", "tag", "-a", "-m", "one", "v1.0.0")
	return dir, must(t, dir, "git", "rev-parse", "HEAD")
}

func commitOf(t testing.TB, dir, id string) (archive.Source, archive.Commit, error) {
	repo, err := gitrepo.Open(dir)
	if err != nil {
		return nil, archive.Commit{}, err
	}
	h, err := gitrepo.ParseHash(id)
	if err != nil {
		return nil, archive.Commit{}, err
	}
	tree, err := repo.TreeAt(h)
	if errors.Is(err, gitrepo.ErrMissingObject) {
		return nil, archive.Commit{}, fs.ErrNotExist
	}
	if err != nil {
		return nil, archive.Commit{}, err
	}
	cmd := exec.CommandContext(t.Context(), "git", "cat-file", "commit", id)
	cmd.Dir = dir
	raw, err := cmd.Output()
	if err != nil {
		return nil, archive.Commit{}, err
	}
	c, err := archive.ParseCommit(raw)
	return commitSource{tree}, c, err
}

func quorum(t testing.TB, s string) release.Quorum {
	t.Helper()
	q, err := release.ParseQuorum(s)
	assert.NilError(t, err)
	return q
}

// seal makes the genesis of a repository by these authorities.
func seal(t testing.TB, q string, tsas ...localTSA) *sealed {
	t.Helper()
	return sealBy(t, operator(t), q, tsas...)
}

func sealBy(t testing.TB, signer openpgp.Signer, q string, tsas ...localTSA) *sealed {
	t.Helper()
	dir, commit := repository(t)
	w := &sealed{t: t, dir: dir, files: map[string][]byte{}, signer: signer, authorities: tsas}
	src, c, err := commitOf(t, dir, commit)
	assert.NilError(t, err)
	keys, err := openpgp.NewKeyring(w.signer.Public())
	assert.NilError(t, err)
	w.GenesisEvidence = release.GenesisEvidence{
		Repository: "example.com/app", Keys: keys, Now: time.Now(),
		Read: func(name string) ([]byte, error) {
			if data, ok := w.files[name]; ok {
				return data, nil
			}
			return nil, fs.ErrNotExist
		},
		Commit:   func(id string) (archive.Source, archive.Commit, error) { return commitOf(t, dir, id) },
		Ancestor: func(id string) (bool, error) { return id == commit, nil },
		Tag: func(name string) (object, target string, err error) {
			if object, err = command(t, dir, "git", "rev-parse", "-q", "--verify", "refs/tags/"+name); err != nil {
				return "", "", fs.ErrNotExist
			}
			return strings.TrimSpace(object), must(t, dir, "git", "rev-parse", "refs/tags/"+name+"^{commit}"), nil
		},
	}
	for _, a := range tsas {
		w.Authorities = append(w.Authorities, a.Authority)
	}
	w.genesis, err = release.NewGenesis(src, c, release.GenesisSettings{
		Repository: "example.com/app", Tag: "v1.0.0", TagObject: must(t, dir, "git", "rev-parse", "v1.0.0"), Operator: w.signer.Fingerprint(),
		Trust: "ops/certs", Authorities: w.Authorities, Quorum: quorum(t, q),
	})
	assert.NilError(t, err)
	w.write()
	return w
}

// write writes, signs and stamps the genesis.
func (w *sealed) write() {
	w.t.Helper()
	written, err := w.genesis.Written()
	assert.NilError(w.t, err)
	for _, f := range written {
		w.files[f.Name] = f.Data
	}
	packet, err := w.signer.Sign(context.Background(), w.files[release.GenesisArchive])
	assert.NilError(w.t, err)
	asc := release.GenesisArchive + ".asc"
	w.files[asc] = openpgp.Armor(packet)
	for _, a := range w.authorities {
		for _, f := range []string{release.GenesisArchive, asc} {
			w.files[f+"."+a.Name+".tsr"] = a.stamp(w.t, w.files[f])
		}
	}
}

// failing names the checks that do not pass, with their outcome.
func (w *sealed) failing() (all []string) {
	for _, c := range release.VerifyGenesis(w.GenesisEvidence) {
		if c.Status != judge.Pass {
			all = append(all, fmt.Sprintf("%s %s", c.ID, c.Status))
		}
	}
	return all
}

// byHand carries out the commands of GENESIS.yaml in a clone.
func (w *sealed) byHand() (string, error) {
	w.t.Helper()
	clone := filepath.Join(w.t.TempDir(), "clone")
	must(w.t, w.dir, "git", "clone", "-q", w.dir, clone)
	files := maps.Clone(w.files)
	files["ops/certs/operator.asc"] = w.signer.Public().Armored()
	for _, a := range w.Authorities {
		for name, data := range a.Files() {
			files["ops/certs/tsa/"+a.Name+"/"+name] = data
		}
	}
	for name, data := range files {
		p := filepath.Join(clone, filepath.FromSlash(name))
		assert.NilError(w.t, os.MkdirAll(filepath.Dir(p), 0o755))
		assert.NilError(w.t, os.WriteFile(p, data, 0o644))
	}
	must(w.t, clone, "sh", "-c", `sed -n '/^verify: |$/,/^[^ ]/s/^  //p' GENESIS.yaml > by-hand`)
	return command(w.t, clone, "sh", "-e", "by-hand")
}

func TestAGenesisVerifiesHereAndByHand(t *testing.T) {
	t.Parallel()
	w := seal(t, "all", newTSA(t, "one", 2*time.Second), newTSA(t, "two", time.Hour))
	time.Sleep(3 * time.Second) // until the signer of one has expired
	w.Now = time.Now()
	checks := release.VerifyGenesis(w.GenesisEvidence)
	assert.DeepEqual(t, w.failing(), []string(nil))
	last := checks[len(checks)-1]
	assert.Equal(t, last.Claim, "RFC3161 timestamp valid")
	assert.Equal(t, len(last.Evidence), 4)
	assert.Assert(t, strings.HasPrefix(last.Detail, "2 of 2 authorities stamped archive and signature, wanted 2 under distinct roots; sealed before 20"), last.Detail)

	out, err := w.byHand()
	assert.NilError(t, err, out)
	assert.Equal(t, strings.Count(out, "Verification: OK"), 4, out)
	for _, a := range w.Authorities {
		assert.Assert(t, strings.Contains(out, hex.EncodeToString(a.RootSPKI[0][:])), out)
	}
	// The moment matters: now the authority's certificate has expired.
	a := w.authorities[0]
	assert.NilError(t, os.WriteFile(filepath.Join(a.dir, "ca.pem"), a.Files()["ca.pem"], 0o600))
	assert.NilError(t, os.WriteFile(filepath.Join(a.dir, "r.tsr"), w.files[release.GenesisArchive+".one.tsr"], 0o600))
	assert.NilError(t, os.WriteFile(filepath.Join(a.dir, "data"), w.files[release.GenesisArchive], 0o600))
	out, err = command(t, a.dir, "openssl", "ts", "-verify", "-data", "data", "-in", "r.tsr", "-CAfile", "ca.pem")
	assert.Assert(t, err != nil && strings.Contains(out, "expired"), out)

	w.Now = time.Now().AddDate(30, 0, 0)
	assert.DeepEqual(t, w.failing(), []string(nil))
}

func TestAGenesisDoesNotHideThatItsKeyIsForDevelopment(t *testing.T) {
	t.Parallel()
	w := sealBy(t, keyOf(t, "Operator (development)"), "any", newTSA(t, "one", time.Hour))
	assert.Equal(t, w.genesis.Development, false)
	assert.DeepEqual(t, w.failing(), []string{"genesis/signature fail", "genesis/timestamp error"})
}

func TestTheArchiveIsWhatTarAndGzipMakeOfIt(t *testing.T) {
	t.Parallel()
	w := seal(t, "any", newTSA(t, "one", time.Hour))
	dir := t.TempDir()
	for _, name := range []string{release.GenesisText, release.GenesisFile} {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, path.Base(name)), w.files[name], 0o600))
	}
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "g.tar.gz"), w.files[release.GenesisArchive], 0o600))
	must(t, dir, "sh", "-c", "LC_ALL=C tar -b1 --sort=name --format=ustar --owner=:0 --group=:0 --numeric-owner --mode=0644 --mtime=@1790000000 -cf want.tar GENESIS GENESIS.yaml")
	must(t, dir, "sh", "-c", "gzip -dc g.tar.gz | cmp - want.tar")

	z, err := gzip.NewReader(bytes.NewReader(w.files[release.GenesisArchive]))
	assert.NilError(t, err)
	assert.DeepEqual(t, z.Header, gzip.Header{OS: 255})
	r := tar.NewReader(z)
	for _, name := range []string{release.GenesisText, release.GenesisFile} {
		h, err := r.Next()
		assert.NilError(t, err)
		assert.Equal(t, h.Name, path.Base(name))
		data, err := io.ReadAll(r)
		assert.NilError(t, err)
		assert.DeepEqual(t, data, w.files[name])
	}
	_, err = r.Next()
	assert.Equal(t, err, io.EOF)
}

// Anything but the signature and the tokens is the same on every machine.
func TestAGenesisFollowsFromItsCommit(t *testing.T) {
	g := example(t)
	golden.Assert(t, string(g.YAML()), "GENESIS.yaml.golden")
	golden.Assert(t, string(g.Text()), "GENESIS.golden")
	data, err := g.Archive()
	assert.NilError(t, err)
	assert.Equal(t, fmt.Sprintf("%x", sha256.Sum256(data)), "669579e2f22ed976a669a6a473aa1ccb28261a2226f04a77d888d212711fb7fd")
}

// example is a genesis of fixed bytes.
func example(t testing.TB) release.Genesis {
	t.Helper()
	g, err := release.ParseGenesis(exampleYAML(t))
	assert.NilError(t, err)
	return g
}

func exampleYAML(t testing.TB) []byte {
	t.Helper()
	spki := func(b byte) (d [32]byte) {
		for i := range d {
			d[i] = b
		}
		return d
	}
	sum := func(s string) string { return strings.Repeat(s, 64) }
	return release.Genesis{
		Repository: "github.com/owner/name", Tag: "v1.0.0", TagObject: strings.Repeat("a", 40), Commit: strings.Repeat("b", 40), Tree: strings.Repeat("c", 40), Epoch: 1790000000,
		ArchiveSHA256: spki(0xdd), Operator: openpgp.Fingerprint(strings.Repeat("E", 40)), Trust: "ops/certs", Required: 2,
		Authorities: []release.GenesisAuthority{{Name: "digicert", RootSPKI: [][32]byte{spki(1), spki(2)}, Untrusted: true}, {Name: "freetsa", RootSPKI: [][32]byte{spki(3)}}},
		Files:       []release.GenesisEntry{{Path: "README.md", Digest: sum("1")}, {Path: "a\\b\nc", Digest: sum("2")}, {Path: "docs/ünï cödé: #1.txt", Digest: sum("3")}},
		Links:       []release.GenesisEntry{{Path: "docs/link", Digest: sum("4")}},
		Submodules:  []release.GenesisEntry{{Path: "vendor/sub", Digest: strings.Repeat("5", 40)}},
	}.YAML()
}

func TestEveryReaderOfYAMLReadsIt(t *testing.T) {
	var doc struct {
		Genesis                                 int
		Repository, Tag, Commit, Tree           string
		TagObject                               string `yaml:"tag_object"`
		Epoch                                   int64  `yaml:"source_date_epoch"`
		Archive                                 string `yaml:"git_archive_tar_sha256"`
		Command                                 string `yaml:"git_archive_command"`
		Operator                                string `yaml:"operator_key"`
		Trust, Verify, Submodules, Links, Files string
		Development                             bool
		Required                                int `yaml:"timestamps_required"`
		Authorities                             []struct {
			Name                   string
			RootSPKI               []string `yaml:"root_spki"`
			Untrusted, Development bool
		} `yaml:"timestamp_authorities"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(exampleYAML(t)))
	dec.KnownFields(true)
	assert.NilError(t, dec.Decode(&doc))
	assert.Equal(t, doc.Commit, strings.Repeat("b", 40))
	assert.Equal(t, doc.Epoch, int64(1790000000))
	assert.Equal(t, doc.Authorities[0].RootSPKI[1], strings.Repeat("02", 32))
	assert.Assert(t, strings.HasSuffix(doc.Files, strings.Repeat("3", 64)+"  docs/ünï cödé: #1.txt\n"))
	assert.Assert(t, strings.Contains(doc.Files, `\`+strings.Repeat("2", 64)+`  a\\b\nc`))
	assert.Assert(t, strings.HasSuffix(doc.Verify, "\ndone\n"))
}

func TestGENESISYAMLIsReadStrictly(t *testing.T) {
	text := string(exampleYAML(t))
	for _, tc := range []struct{ old, new, want string }{
		{"genesis: 1", "genesis: 2", `line 2: found "genesis: 2", wanted genesis: 1`},
		{"github.com/owner/name", "github.com/owner/$(name)", "wanted repository:"},
		{"tag: \"v1.0.0\"\n", "", "tag_object without a tag"},
		{"v1.0.0\"\n", "v1;rm\"\n", "wanted tag:"},
		{strings.Repeat("b", 40), strings.Repeat("B", 40), "wanted commit:"},
		{"epoch: 1790000000", "epoch: 01790000000", "not in the one form"},
		{"epoch: 1790000000", "epoch: -1", "wanted source_date_epoch: and a number"},
		{strings.Repeat("dd", 32), strings.Repeat("dd", 31), "wanted git_archive_tar_sha256:"},
		{"git_archive_command: \"git", "git_archive_command: \"rm", "not in the one form"},
		{"trust: \"ops/certs\"", "trust: \"/etc\"", "wanted trust:"},
		{"development: false\ntimestamps", "development: no\ntimestamps", "wanted development: true or false"},
		{"    development: false\n  - name", "    development: true\n  - name", "authority digicert is one for development"},
		{"timestamps_required: 2", "timestamps_required: 0", "timestamps_required is 0 of 2"},
		{"timestamps_required: 2", "timestamps_required: 3", "timestamps_required is 3 of 2"},
		{"\"freetsa\"", "\"aaa\"", "authority aaa is out of order, or twice"},
		{"\"freetsa\"", "\"../x\"", "wanted name:"},
		{"      - \"" + strings.Repeat("03", 32) + "\"\n", "", "authority freetsa has no root"},
		{"      - \"" + strings.Repeat("03", 32) + "\"\n", "      - \"03\"\n", "wanted a SHA-256 in quotes"},
		{"  gpg --import", "  true --import", "not in the one form"},
		{strings.Repeat("1", 64) + "  README.md", strings.Repeat("1", 64) + " README.md", "two spaces and a path"},
		{"README.md", "../README.md", "is not a path in UTF-8"},
		{"README.md", "zebra", "is out of order, or twice"},
		{"README.md", "READ\x01ME", "cannot be written here: rename the file"},
		{"README.md", "READ\xffME", "not UTF-8"},
		{"README.md\n", "README.md\n\n", `found "", wanted the end`},
		{"docs/ünï cödé: #1.txt\n", "docs/ünï cödé: #1.txt\n\n", `found "", wanted the end`},
		{"vendor/sub\n", "vendor/sub\nmore: 1\n", `found "more: 1", wanted the end`},
	} {
		assert.Equal(t, strings.Count(text, tc.old) > 0, true, tc.old)
		_, err := release.ParseGenesis([]byte(strings.Replace(text, tc.old, tc.new, 1)))
		assert.ErrorContains(t, err, tc.want, "%s", tc.new)
		assert.ErrorContains(t, err, "GENESIS.yaml: ")
	}
	for _, cut := range []int{0, 1, 100, len(text) - 1} {
		_, err := release.ParseGenesis([]byte(text[:cut]))
		assert.ErrorContains(t, err, "GENESIS.yaml: ", "%d", cut)
	}
}

func TestWhatCannotBeSealedIsSaid(t *testing.T) {
	t.Parallel()
	dir, commit := repository(t)
	src, c, err := commitOf(t, dir, commit)
	assert.NilError(t, err)
	one := newTSA(t, "one", time.Hour)
	good := release.GenesisSettings{Repository: "example.com/app", Operator: operator(t).Fingerprint(), Trust: "ops/certs", Authorities: []release.Authority{one.Authority}}
	_, err = release.NewGenesis(src, c, good)
	assert.NilError(t, err)
	for want, change := range map[string]func(s *release.GenesisSettings){
		"timestamps_required is 0 of 0 authorities": func(s *release.GenesisSettings) { s.Authorities = nil },
		"timestamps_required is 2 of 1 authorities": func(s *release.GenesisSettings) { s.Quorum = quorum(t, "2") },
		"authority one is out of order, or twice":   func(s *release.GenesisSettings) { s.Authorities = append(s.Authorities, s.Authorities...) },
		"wanted repository:":                        func(s *release.GenesisSettings) { s.Repository = "a b" },
		"wanted tag:":                               func(s *release.GenesisSettings) { s.Tag = "$(x)" },
		"wanted operator_key:":                      func(s *release.GenesisSettings) { s.Operator = "" },
		"wanted trust:":                             func(s *release.GenesisSettings) { s.Trust = "../x" + strings.Repeat(" ", 1) },
		"tag_object without a tag":                  func(s *release.GenesisSettings) { s.TagObject = commit },
	} {
		s := good
		change(&s)
		_, err := release.NewGenesis(src, c, s)
		assert.ErrorContains(t, err, want)
	}
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "a\x02b"), nil, 0o600))
	must(t, dir, "git", "add", "-A")
	must(t, dir, "git", "commit", "-qm", "odd")
	src, c, err = commitOf(t, dir, must(t, dir, "git", "rev-parse", "HEAD"))
	assert.NilError(t, err)
	_, err = release.NewGenesis(src, c, good)
	assert.ErrorContains(t, err, `"a\x02b" holds U+0002, which cannot be written here: rename the file`)

	one.Development = true
	good.Authorities[0] = one.Authority
	src, c, err = commitOf(t, dir, commit)
	assert.NilError(t, err)
	g, err := release.NewGenesis(src, c, good)
	assert.NilError(t, err)
	assert.Assert(t, g.Development)
	assert.Assert(t, strings.Contains(string(g.Text()), "DEVELOPMENT"))
}

func TestTamperingIsRed(t *testing.T) {
	t.Parallel()
	const asc = release.GenesisArchive + ".asc"
	one, two := newTSA(t, "one", time.Hour), newTSA(t, "two", time.Hour)
	w := seal(t, "all", one, two)
	assert.DeepEqual(t, w.failing(), []string(nil))
	files, evidence, genesis := w.files, w.GenesisEvidence, w.genesis
	timestamps := []string{"genesis/timestamp fail"}
	all := func(outcomes ...string) []string {
		var ids []string
		for i, o := range outcomes {
			if o != "" {
				ids = append(ids, []string{"genesis/files ", "genesis/repository ", "genesis/commit ", "genesis/tag ", "genesis/content ", "genesis/signature ", "genesis/timestamp "}[i]+o)
			}
		}
		return ids
	}
	whole := all("fail", "error", "error", "error", "error", "error", "error")
	for _, tc := range []struct {
		name   string
		tamper func()
		want   []string
		// hand says that the commands by hand find it, too.
		hand bool
	}{
		{"a digest of a file", func() {
			w.files[release.GenesisFile][len(w.files[release.GenesisFile])-80] ^= 1
		}, whole, true},
		{"the text", func() { w.files[release.GenesisText][20] ^= 1 }, whole, true},
		{"a bit of the archive", func() { w.files[release.GenesisArchive][600] ^= 1 }, whole, true},
		{"the same archive, compressed", func() {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			r, err := gzip.NewReader(bytes.NewReader(w.files[release.GenesisArchive]))
			assert.NilError(t, err)
			_, err = io.Copy(z, r)
			assert.NilError(t, errors.Join(err, z.Close()))
			w.files[release.GenesisArchive] = b.Bytes()
		}, whole, true},
		{"the digest of the archive", func() { w.files[release.GenesisArchive+".sha256"][3] ^= 1 }, whole, true},
		{"no digest", func() { delete(w.files, release.GenesisArchive+".sha256") }, whole, false},
		{"no archive", func() { delete(w.files, release.GenesisArchive) }, whole, false},
		{"no GENESIS", func() { delete(w.files, release.GenesisText) }, whole, false},
		{"no GENESIS.yaml", func() { delete(w.files, release.GenesisFile) }, whole, false},
		{"no signature", func() { delete(w.files, asc) }, all("", "", "", "", "", "fail", "error"), false},
		{"an empty signature", func() { w.files[asc] = make([]byte, 600) }, all("", "", "", "", "", "fail", "error"), true},
		{"a signature of something else", func() {
			packet, err := w.signer.Sign(context.Background(), []byte("else"))
			assert.NilError(t, err)
			w.files[asc] = openpgp.Armor(packet)
		}, all("", "", "", "", "", "fail", "error"), false},
		{"another signature of the same", func() {
			packet, err := w.signer.Sign(context.Background(), w.files[release.GenesisArchive])
			assert.NilError(t, err)
			w.files[asc] = openpgp.Armor(append([]byte{}, packet...))
			if bytes.Equal(w.files[asc], files[asc]) { // ed25519, within one second
				w.files[asc+".one.tsr"] = w.files[release.GenesisArchive+".one.tsr"]
			}
		}, timestamps, true},
		{"another key seals it anew", func() {
			w.signer = operator(t)
			w.genesis.Operator = w.signer.Fingerprint()
			w.write()
		}, all("", "", "", "", "", "fail", "error"), false},
		{"another key signs it", func() {
			packet, err := operator(t).Sign(context.Background(), w.files[release.GenesisArchive])
			assert.NilError(t, err)
			w.files[asc] = openpgp.Armor(packet)
		}, all("", "", "", "", "", "fail", "error"), true},
		{"a token is missing", func() { delete(w.files, release.GenesisArchive+".two.tsr") }, timestamps, true},
		{"the signature's token is missing", func() { delete(w.files, asc+".one.tsr") }, timestamps, false},
		{"a token of other data", func() { w.files[release.GenesisArchive+".one.tsr"] = one.stamp(t, []byte("else")) }, timestamps, true},
		{"a token of another authority", func() { w.files[release.GenesisArchive+".one.tsr"] = w.files[release.GenesisArchive+".two.tsr"] }, timestamps, true},
		{"a page instead of a token", func() { w.files[asc+".two.tsr"] = []byte("<html>") }, timestamps, false},
		{"an authority is not pinned any more", func() { w.Authorities = w.Authorities[:1] }, timestamps, false},
		{"an authority has another root now", func() {
			other := newTSA(t, "one", time.Hour)
			w.Authorities = []release.Authority{other.Authority, two.Authority}
			w.files[release.GenesisArchive+".one.tsr"] = other.stamp(t, w.files[release.GenesisArchive])
			w.files[asc+".one.tsr"] = other.stamp(t, w.files[asc])
		}, timestamps, false},
		{"two names of one clock", func() {
			same := one
			same.Name = "two"
			w.authorities = []localTSA{one, same}
			w.Authorities = []release.Authority{one.Authority, same.Authority}
			w.genesis.Authorities = []release.GenesisAuthority{w.genesis.Authorities[0], {Name: "two", RootSPKI: w.genesis.Authorities[0].RootSPKI}}
			w.write()
		}, timestamps, false},
		{"an authority for development, now", func() { w.Authorities[1].Development = true }, timestamps, false},
		{"the token comes before the signature", func() {
			later, err := openpgp.FromArmored(secretOf(t, w), nil, func() time.Time { return time.Now().Add(20 * time.Minute) })
			assert.NilError(t, err)
			w.signer = later
			w.genesis.Operator = later.Fingerprint()
			w.Keys, err = openpgp.NewKeyring(later.Public())
			assert.NilError(t, err)
			w.write()
			w.Now = time.Now().Add(time.Hour)
		}, timestamps, false},
		{"another repository", func() { w.Repository = "example.com/other" }, all("", "fail"), false},
		{"a commit that is not in the history", func() { w.Ancestor = func(string) (bool, error) { return false, nil } }, all("", "", "fail"), false},
		{"a history that is cut off", func() { w.Ancestor = func(string) (bool, error) { return false, gitrepo.ErrShallow } }, all("", "", "error"), false},
		{"no such commit", func() {
			w.Commit = func(string) (archive.Source, archive.Commit, error) { return nil, archive.Commit{}, fs.ErrNotExist }
		}, all("", "", "error", "", "error"), false},
		{"a moved tag", func() {
			w.Tag = func(string) (string, string, error) { return genesis.TagObject, strings.Repeat("0", 40), nil }
		}, all("", "", "", "fail"), false},
		{"a tag made anew", func() {
			w.Tag = func(string) (string, string, error) { return strings.Repeat("0", 40), genesis.Commit, nil }
		}, all("", "", "", "fail"), false},
		{"no tag", func() { w.Tag = func(string) (string, string, error) { return "", "", fs.ErrNotExist } }, all("", "", "", "error"), false},
		{"sealed with another archive", func() { w.genesis.ArchiveSHA256[0] ^= 1; w.write() }, all("", "", "", "", "fail"), true},
		{"sealed with another file", func() {
			w.genesis.Files = slices.Clone(genesis.Files)
			w.genesis.Files[2].Digest = strings.Repeat("0", 64)
			w.write()
		}, all("", "", "", "", "fail"), true},
		{"sealed without a file", func() { w.genesis.Files = genesis.Files[1:]; w.write() }, all("", "", "", "", "fail"), false},
		{"sealed with one more", func() {
			w.genesis.Links = append(slices.Clone(genesis.Links), release.GenesisEntry{Path: "zz", Digest: strings.Repeat("0", 64)})
			w.write()
		}, all("", "", "", "", "fail"), false},
		{"sealed with another tree", func() { w.genesis.Tree = strings.Repeat("0", 40); w.write() }, all("", "", "fail"), true},
		{"sealed at another time", func() { w.genesis.Epoch++; w.write() }, all("", "", "fail"), false},
		{"unreadable", func() { w.Read = func(string) ([]byte, error) { return nil, errors.New("disk") } }, all("error", "error", "error", "error", "error", "error", "error"), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.files, w.GenesisEvidence, w.genesis = map[string][]byte{}, evidence, genesis
			for name, data := range files {
				w.files[name] = bytes.Clone(data)
			}
			w.Authorities = slices.Clone(evidence.Authorities)
			was, tsas := w.signer, w.authorities
			defer func() { w.signer, w.authorities = was, tsas }()
			tc.tamper()
			assert.DeepEqual(t, w.failing(), tc.want)
			if tc.hand {
				out, err := w.byHand()
				assert.Assert(t, err != nil, "the commands find nothing:\n%s", out)
			}
		})
	}
}

// secretOf makes another key: a signer's clock is its own.
func secretOf(t testing.TB, _ *sealed) []byte {
	t.Helper()
	secret, _, err := openpgp.Generate("Operator", "operator@example.com", time.Now().Add(-time.Hour), rand.Reader)
	assert.NilError(t, err)
	return secret
}

func TestAnAuthorityThatIsNotNeededMayBeMissingButNotWrong(t *testing.T) {
	t.Parallel()
	one, two := newTSA(t, "one", time.Hour), newTSA(t, "two", time.Hour)
	w := seal(t, "any", one, two)
	delete(w.files, release.GenesisArchive+".two.tsr")
	checks := release.VerifyGenesis(w.GenesisEvidence)
	last := checks[len(checks)-1]
	assert.Equal(t, last.Status, judge.Pass)
	assert.DeepEqual(t, last.Findings, []judge.Finding{{Path: release.GenesisArchive + ".two.tsr", Message: "is missing", Fix: "remembrancer genesis seal", Warning: true}})

	w.files[release.GenesisArchive+".two.tsr"] = one.stamp(t, w.files[release.GenesisArchive])
	assert.DeepEqual(t, w.failing(), []string{"genesis/timestamp fail"})
}

func FuzzParseGenesis(f *testing.F) {
	f.Add(exampleYAML(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := release.ParseGenesis(data)
		if err != nil {
			assert.DeepEqual(t, g.YAML(), release.Genesis{}.YAML())
			return
		}
		assert.DeepEqual(t, g.YAML(), data)
	})
}
