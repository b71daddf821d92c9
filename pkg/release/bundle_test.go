package release_test

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/proof"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/release"
	"github.com/vaultmesh/remembrancer/pkg/tsa/tsatest"
)

// maker makes bundles: the people, programs and authorities behind one.
type maker struct {
	t        *testing.T
	tag      string // the release
	tagName  string // in the tag object
	unsigned bool   // the tag carries no signature, and is an artifact
	sumsKey  openpgp.Signer
	key      openpgp.Signer
	one, two *tsatest.TSA
	skey     string // of the log
	vkey     string
	dir      string
	sums     release.Sums
}

func newMaker(t *testing.T) *maker {
	t.Helper()
	for _, tool := range []string{"gpg", "openssl", "git", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("this test needs %s (apt-get install gnupg openssl git coreutils): %v", tool, err)
		}
	}
	m := &maker{t: t, tag: "v1.2.3", tagName: "v1.2.3", one: tsatest.New(t), two: tsatest.New(t)}
	var err error
	m.skey, m.vkey, err = checkpoint.GenerateKey(rand.Reader, "example.com/acme/app")
	assert.NilError(t, err)
	m.key = gpgKey(t, time.Now().Add(-time.Minute), "1y", time.Now()) // gpg may date a key a second late
	m.sumsKey = m.key
	return m
}

// gpgKey is a key of gpg's, made at one time and signing at another.
func gpgKey(t *testing.T, made time.Time, life string, signs time.Time) openpgp.Signer {
	t.Helper()
	home, err := os.MkdirTemp("", "g")
	assert.NilError(t, err)
	run := openpgp.Exec(append(os.Environ(), "GNUPGHOME="+home, "LC_ALL=C"))
	defer func() {
		_, _, _ = run(context.Background(), "gpgconf", []string{"--kill", "gpg-agent"}, nil)
		_ = os.RemoveAll(home)
	}()
	gpg := func(args ...string) []byte {
		args = append([]string{"--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--faked-system-time", made.UTC().Format("20060102T150405") + "!"}, args...) // the clock stands still
		out, stderr, err := run(context.Background(), "gpg", args, nil)
		assert.NilError(t, err, "%s", stderr)
		return out
	}
	gpg("--quick-generate-key", "Acme Release <release@example.com>", "ed25519", "sign", life)
	secret := gpg("--armor", "--export-secret-keys")
	s, err := openpgp.FromArmored(secret, nil, func() time.Time { return signs })
	assert.NilError(t, err)
	return s
}

func (m *maker) sign(s openpgp.Signer, data []byte) []byte {
	m.t.Helper()
	packet, err := s.Sign(m.t.Context(), data)
	assert.NilError(m.t, err)
	return packet
}

func gitName(kind string, data []byte) string {
	return fmt.Sprintf("%x", sha1.Sum(fmt.Appendf(nil, "%s %d\x00%s", kind, len(data), data)))
}

// make writes a bundle into a folder that is not there yet.
func (m *maker) make(dir string) {
	m.t.Helper()
	m.dir = dir
	artifacts := map[string][]byte{"app.tar.gz": []byte("the app"), "sub/app.txt": []byte("words\n")}
	if m.unsigned {
		_, artifacts["tag.raw"] = m.objects()
	}
	m.sums = nil
	for _, name := range slices.Sorted(maps.Keys(artifacts)) {
		m.sums = append(m.sums, release.Sum{Name: name, SHA256: sha256.Sum256(artifacts[name])})
		m.write("artifacts/"+name, artifacts[name])
	}
	m.seal(m.evidence())
	m.stamp("", "one", m.one)
	m.stamp("", "two", m.two)
}

func (m *maker) evidence() release.BundleEvidence {
	m.t.Helper()
	sums := m.sums.Bytes()
	commit, payload := m.objects()
	tag := payload
	if !m.unsigned {
		tag = append(slices.Clone(payload), openpgp.Armor(m.sign(m.key, payload))...)
	}
	policy, p := m.entry(gitName("commit", commit))
	keys := []*openpgp.Key{m.key.Public()}
	if m.sumsKey != m.key {
		keys = append(keys, m.sumsKey.Public())
	}
	return release.BundleEvidence{
		Tag: m.tag, TagObject: tag, Commit: commit, Sums: sums, SumsBy: openpgp.Armor(m.sign(m.sumsKey, sums)),
		Proof: p, Policy: policy, Keys: keys, Repository: "example.com/acme/app",
	}
}

// objects are git's: the commit, and the tag without a signature.
func (m *maker) objects() (commit, tag []byte) {
	commit = []byte("tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@example.com> 1700000000 +0000\ncommitter A <a@example.com> 1700000000 +0000\n\nrelease\n")
	return commit, fmt.Appendf(nil, "object %s\ntype commit\ntag %s\ntagger A <a@example.com> 1700000000 +0000\n\n%s\n", gitName("commit", commit), m.tagName, m.tag)
}

// entry puts the receipt into a log of seven.
func (m *maker) entry(commit string) (policy, bundle []byte) {
	m.t.Helper()
	st := receipt.Statement{
		Kind: receipt.Release, Issuer: m.key.Fingerprint(), Name: m.tag, Issued: time.Now(),
		Subjects: []receipt.Subject{{Name: "commit", Commit: commit}}, Predicate: map[string]any{"tag": m.tag},
	}
	for _, s := range m.sums {
		st.Subjects = append(st.Subjects, receipt.Subject{Name: s.Name, SHA256: s.Hex()})
	}
	r, err := receipt.New(st)
	assert.NilError(m.t, err)
	e, err := receipt.NewEntry(r, receipt.Signature{Fingerprint: m.key.Fingerprint(), Packet: m.sign(m.key, receipt.PAE(r.Bytes()))})
	assert.NilError(m.t, err)
	const index, size = 5, 7
	leaves := make([]checkpoint.Hash, size)
	for i := range leaves {
		leaves[i] = sha256.Sum256([]byte{byte(i)})
	}
	leaves[index] = sha256.Sum256(append([]byte{0}, e.Line()...))
	tree := ledger.NewTree(leaves)
	root, err := tree.Root(size)
	assert.NilError(m.t, err)
	hashes, err := tree.Inclusion(size, index)
	assert.NilError(m.t, err)
	signer, err := checkpoint.NewSigner(m.skey)
	assert.NilError(m.t, err)
	note, err := signer.Sign(checkpoint.Body{Origin: "example.com/acme/app", Size: size, Root: root})
	assert.NilError(m.t, err)
	return checkpoint.NewPolicy(m.vkey), proof.Marshal(e.Line(), m.key.Public(), index, hashes, note)
}

func (m *maker) seal(e release.BundleEvidence) {
	m.t.Helper()
	files, err := e.Files()
	assert.NilError(m.t, err)
	for name, data := range files {
		m.write(name, data)
	}
}

func (m *maker) stamp(folder, name string, by *tsatest.TSA) {
	m.t.Helper()
	seal := m.read(path.Join(folder, "SEAL"))
	response := by.Token(seal)
	a := by.Authority(name)
	v, err := a.Verify(response, strings.NewReader(string(seal)), time.Now().Add(time.Second))
	assert.NilError(m.t, err)
	for p, data := range release.StampFiles(folder, a, response, v) {
		m.write(p, data)
	}
}

func (m *maker) write(name string, data []byte) {
	m.t.Helper()
	p := filepath.Join(m.dir, filepath.FromSlash(name))
	assert.NilError(m.t, os.MkdirAll(filepath.Dir(p), 0o755))
	assert.NilError(m.t, os.WriteFile(p, data, 0o644))
}

func (m *maker) read(name string) []byte {
	m.t.Helper()
	data, err := os.ReadFile(filepath.Join(m.dir, filepath.FromSlash(name)))
	assert.NilError(m.t, err)
	return data
}

func (m *maker) anchors() release.Anchors {
	return release.Anchors{
		Keys: []openpgp.Fingerprint{m.key.Fingerprint()}, LogKeys: []string{m.vkey},
		TSARoots: [][32]byte{m.one.Authority("one").RootSPKI[0], m.two.Authority("two").RootSPKI[0]},
	}
}

func (m *maker) verify(a release.Anchors) release.BundleReport {
	m.t.Helper()
	r, err := release.VerifyBundle(os.DirFS(m.dir), a, time.Now().Add(2*time.Second))
	assert.NilError(m.t, err)
	return r
}

// reds lists the checks that did not pass.
func reds(r release.BundleReport) (ids []string) {
	for _, c := range r.Checks {
		if c.Status != judge.Pass {
			ids = append(ids, strings.TrimPrefix(c.ID, "bundle/"))
		}
	}
	return ids
}

// typed are the commands of VERIFY.md.
func typed(guide []byte) string {
	var b strings.Builder
	for i, part := range strings.Split(string(guide), "\n```") {
		if commands, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
			b.WriteString(commands + "\n")
		}
	}
	return b.String()
}

// byHand types the commands of a guide in the bundle, with the anchors, and the
// clock moved by years.
func (m *maker) byHand(commands string, a release.Anchors, years int) (string, error) {
	return m.shell("-euc", commands, a, years)
}

// shell runs the commands: -euc stops at the first that fails, as the script does,
// and -c goes on, as a terminal does.
func (m *maker) shell(flags, commands string, a release.Anchors, years int) (string, error) {
	var keys, roots []string
	for _, k := range a.Keys {
		keys = append(keys, string(k))
	}
	for _, k := range a.TSARoots {
		roots = append(roots, hex.EncodeToString(k[:]))
	}
	args := []string{"sh", flags, commands}
	if years > 0 {
		args = append([]string{"faketime", "-f", fmt.Sprintf("+%dy", years)}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = m.dir
	work := m.t.TempDir()
	cmd.Env = append(os.Environ(), "TMPDIR="+work, "LC_ALL=C", "TAG="+m.tag, "KEYS="+strings.Join(keys, " "), "ROOTS="+strings.Join(roots, " "), "LOGKEY="+strings.Join(a.LogKeys, ""))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestABundleVerifiesHereAndByHandForYears(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	m.make(filepath.Join(t.TempDir(), "b"))
	r := m.verify(m.anchors())
	assert.Equal(t, r.Verdict, release.Verified, "%+v", r.Checks)
	assert.DeepEqual(t, reds(r), []string(nil))
	assert.Equal(t, r.Tag, "v1.2.3")
	assert.Equal(t, len(r.Signers), 3)
	assert.Equal(t, len(r.Stamps), 2)
	assert.Equal(t, r.Entry, int64(5))

	commands := typed(m.read("VERIFY.md"))
	assert.Assert(t, strings.Count(commands, "echo good")+strings.Count(commands, `echo "good`) == 9, "%s", commands)
	for _, years := range []int{0, 3, 19} {
		// Other programs' clocks are moved by faketime, which the long run has.
		if years == 0 || os.Getenv("REMEMBRANCER_LONG") != "" {
			out, err := m.byHand(commands, m.anchors(), years)
			assert.NilError(t, err, "+%d years: %s", years, out)
			assert.Equal(t, strings.Count("\n"+out, "\ngood"), 9, "%s", out)
		}
		later, err := release.VerifyBundle(os.DirFS(m.dir), m.anchors(), time.Now().AddDate(years, 0, 1))
		assert.NilError(t, err)
		assert.Equal(t, later.Verdict, release.Verified)
	}
	// The convenience says the same.
	out, err := m.byHand(string(m.read("verify.sh")), m.anchors(), 0)
	assert.NilError(t, err, "%s", out)
	assert.Assert(t, strings.HasSuffix(out, "VERIFIED\n"), "%s", out)
	assert.Assert(t, strings.Contains(string(m.read("verify.sh")), "Do not trust it"))

	// What follows from the evidence is always the same.
	before, err := json.Marshal(r)
	assert.NilError(t, err)
	m.seal(release.BundleEvidence{
		Tag: m.tag, TagObject: m.read("tag/tag.raw"), Commit: m.read("tag/commit.raw"), Sums: m.read("SHA256SUMS"), SumsBy: m.read("SHA256SUMS.asc"),
		Proof: m.read("ledger/proof"), Policy: m.read("ledger/policy"), Keys: []*openpgp.Key{m.key.Public()}, Repository: "example.com/acme/app",
	})
	again := m.verify(m.anchors())
	again.Judged = r.Judged
	after, err := json.Marshal(again)
	assert.NilError(t, err)
	assert.Equal(t, string(after), string(before))
}

func TestTamperingWithABundleIsRedHereAndByHand(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	root := t.TempDir()
	m.make(filepath.Join(root, "good"))
	genuine, good := typed(m.read("VERIFY.md")), m.dir
	other := newMaker(t) // somebody else, with everything of their own
	var anchors release.Anchors

	// reseal makes SEAL anew over what is there, and stamps it.
	reseal := func(stamps bool) {
		list := map[string]string{}
		for name := range strings.Lines(string(m.read("SEAL"))) {
			p := strings.TrimSpace(name[66:])
			if data, err := os.ReadFile(filepath.Join(m.dir, p)); err == nil {
				list[p] = fmt.Sprintf("%x", sha256.Sum256(data))
			}
		}
		var b strings.Builder
		for _, p := range slices.Sorted(maps.Keys(list)) {
			fmt.Fprintf(&b, "%s  %s\n", list[p], p)
		}
		m.write("SEAL", []byte(b.String()))
		if stamps {
			m.stamp("", "one", m.one)
			m.stamp("", "two", m.two)
		}
	}
	remove := func(p string) { assert.NilError(t, os.RemoveAll(filepath.Join(m.dir, p))) }
	// remake makes the bundle as it would be with other makers.
	remake := func(change func(c *maker)) {
		c := *m
		change(&c)
		c.dir = filepath.Join(root, "remade")
		assert.NilError(t, os.RemoveAll(c.dir))
		c.make(c.dir)
		assert.NilError(t, os.RemoveAll(m.dir))
		assert.NilError(t, os.Rename(c.dir, m.dir))
	}

	cases := []struct {
		name   string
		tamper func()
		red    string // the first check that is red
	}{
		{"an artifact is changed", func() { m.write("artifacts/app.tar.gz", []byte("thE app")) }, "artifacts"},
		{"an artifact is missing", func() { remove("artifacts/app.tar.gz") }, "artifacts"},
		{"artifact, list and seal are rewritten", func() {
			m.write("artifacts/app.tar.gz", []byte("thE app"))
			sums := slices.Clone(m.sums)
			sums[0].SHA256 = sha256.Sum256([]byte("thE app"))
			m.write("SHA256SUMS", sums.Bytes())
			reseal(false)
		}, "timestamps"},
		{"artifact, list and seal are rewritten, and stamped by the same authorities", func() {
			m.write("artifacts/app.tar.gz", []byte("thE app"))
			sums := slices.Clone(m.sums)
			sums[0].SHA256 = sha256.Sum256([]byte("thE app"))
			m.write("SHA256SUMS", sums.Bytes())
			reseal(true)
		}, "signature"},
		{"an unlisted artifact", func() { m.write("artifacts/more.txt", nil) }, "layout"},
		{"an unlisted piece of evidence", func() { m.write("ledger/more", nil) }, "layout"},
		{"an unlisted file in a renewal", func() { m.write("renewals/2099/more", nil) }, "layout"},
		{"a renewal without tokens", func() { m.write("renewals/2099/SEAL", m.read("SEAL")) }, "renewals"},
		{"the receipt is another one", func() { m.write("ledger/receipt", []byte("{}")) }, "seal"},
		{"the receipt is of another release, sealed and stamped", func() {
			c := *m
			c.tag, c.tagName = "v9.9.9", "v9.9.9"
			e := c.evidence()
			files, err := e.Files()
			assert.NilError(t, err)
			for _, p := range []string{"ledger/receipt", "ledger/receipt.asc", "ledger/proof", "ledger/checkpoint"} {
				m.write(p, files[p])
			}
			reseal(true)
		}, "receipt"},
		{"the receipt's log line is another one, sealed and stamped", func() {
			r := strings.Replace(string(m.read("ledger/proof")), "index 5", "index 4", 1)
			m.write("ledger/proof", []byte(r))
			reseal(true)
		}, "receipt"},
		{"one authority twice", func() {
			remove("tsa/two")
			m.stamp("", "two", m.one)
		}, "timestamps"},
		{"a token of other data", func() { m.write("tsa/two/SEAL.tsr", m.two.Token([]byte("other"))) }, "timestamps"},
		{"an authority of the attacker's", func() { remove("tsa/two"); m.stamp("", "two", other.two) }, "authorities"},
		{"an authority of the attacker's behind a known root", func() {
			known := m.read("tsa/two/ca.pem")
			m.stamp("", "two", other.two)
			m.write("tsa/two/ca.pem", append(known, m.read("tsa/two/ca.pem")...))
		}, "timestamps"},
		{"a token is missing", func() { remove("tsa/two/SEAL.tsr") }, "timestamps"},
		{"an authority is missing", func() { remove("tsa/two") }, "timestamps"},
		{"the signature is missing", func() { remove("SHA256SUMS.asc") }, "layout"},
		{"the signature is missing, sealed and stamped", func() { remove("SHA256SUMS.asc"); reseal(true) }, "layout"},
		{"the tag's signature is missing, sealed and stamped", func() {
			raw, _, _ := strings.Cut(string(m.read("tag/tag.raw")), "-----BEGIN")
			m.write("tag/tag.raw", []byte(raw))
			reseal(true)
		}, "tag"},
		{"everything is signed by the attacker's key, sealed and stamped", func() { remake(func(c *maker) { c.key, c.sumsKey = other.key, other.key }) }, "signers"},
		{"the list is signed by the attacker's key, sealed and stamped", func() { remake(func(c *maker) { c.sumsKey = other.key }) }, "signers"},
		{"the log is the attacker's", func() { remake(func(c *maker) { c.skey, c.vkey = other.skey, other.vkey }) }, "log-key"},
		{"the tag object has another name", func() { remake(func(c *maker) { c.tagName = "v9.9.9" }) }, "receipt"},
		{"the commit is another one, sealed and stamped", func() {
			m.write("tag/commit.raw", []byte(strings.Replace(string(m.read("tag/commit.raw")), "release", "RELEASE", 1)))
			reseal(true)
		}, "tag"},
		{"the signature is younger than the stamps", func() {
			later := gpgKey(t, time.Now().Add(-time.Hour), "1y", time.Now().Add(2*time.Minute))
			anchors.Keys = append(anchors.Keys, later.Fingerprint())
			remake(func(c *maker) { c.sumsKey = later })
		}, "signature"},
		{"a symbolic link", func() {
			remove("artifacts/app.tar.gz")
			assert.NilError(t, os.Symlink("../../good/artifacts/app.tar.gz", filepath.Join(m.dir, "artifacts/app.tar.gz")))
		}, "layout"},
		{"verify.sh is replaced", func() { m.write("verify.sh", []byte("#!/bin/sh\necho VERIFIED\n")) }, "seal"},
		{"VERIFY.md is replaced", func() { m.write("VERIFY.md", []byte("Believe it.\n")) }, "seal"},
		{"a key is exchanged", func() {
			m.write("keys/"+string(m.key.Fingerprint())+".asc", other.key.Public().Armored())
		}, "seal"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m.t, anchors = t, m.anchors()
			m.dir = filepath.Join(t.TempDir(), "b")
			assert.NilError(t, os.CopyFS(m.dir, os.DirFS(good)))
			c.tamper()
			r := m.verify(anchors)
			assert.Equal(t, r.Verdict, release.Failed, "%+v", r)
			assert.Equal(t, reds(r)[0], c.red, "%v", reds(r))
			// A person reads what is printed; nothing stops at the first error.
			out, _ := m.shell("-c", genuine, anchors, 0)
			assert.Assert(t, strings.Contains(out, "BAD: "), "%s", out)
		})
	}
}

func TestASignatureThatNothingShowsWasInTimeDoesNotCount(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	old := time.Now().AddDate(-2, 0, 0)
	// By its own word it was made in time; the stamps are from after the expiry.
	m.sumsKey = gpgKey(t, old, "1y", old.AddDate(0, 6, 0))
	m.make(filepath.Join(t.TempDir(), "b"))
	a := m.anchors()
	a.Keys = append(a.Keys, m.sumsKey.Fingerprint())
	r := m.verify(a)
	assert.Equal(t, r.Verdict, release.Failed)
	assert.DeepEqual(t, reds(r), []string{"signature"})
	out, err := m.byHand(typed(m.read("VERIFY.md")), a, 0)
	assert.Assert(t, err != nil, "%s", out)

	m = newMaker(t)
	m.make(filepath.Join(t.TempDir(), "b"))
	a = m.anchors()
	a.Compromised = map[openpgp.Fingerprint]time.Time{m.key.Fingerprint(): time.Now().Add(time.Hour)}
	assert.Equal(t, m.verify(a).Verdict, release.Verified)
	a.Compromised[m.key.Fingerprint()] = time.Now().Add(-time.Hour)
	r = m.verify(a)
	assert.Equal(t, r.Verdict, release.Failed)
	assert.DeepEqual(t, reds(r), []string{"signature", "tag", "receipt"})
}

func TestWithoutAnAnchorAVerdictIsConditional(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	m.make(filepath.Join(t.TempDir(), "b"))
	for _, c := range []struct {
		name   string
		change func(*release.Anchors)
		red    []string
	}{
		{"none", func(a *release.Anchors) { *a = release.Anchors{} }, []string{"signers", "authorities", "log-key"}},
		{"no keys", func(a *release.Anchors) { a.Keys = nil }, []string{"signers"}},
		{"no roots", func(a *release.Anchors) { a.TSARoots = nil }, []string{"authorities"}},
		{"one root", func(a *release.Anchors) { a.TSARoots = a.TSARoots[:1] }, []string{"authorities"}},
		{"no log key", func(a *release.Anchors) { a.LogKeys = nil }, []string{"log-key"}},
		{"a policy id, which a bundle cannot show", func(a *release.Anchors) { a.PolicyID = strings.Repeat("0", 64) }, []string{"policy"}},
	} {
		a := m.anchors()
		c.change(&a)
		r := m.verify(a)
		assert.Equal(t, r.Verdict, release.Conditional, c.name)
		assert.DeepEqual(t, reds(r), c.red)
	}
	// One root that is not that of either token is a fail, not a lack.
	a := m.anchors()
	a.TSARoots = [][32]byte{{1}}
	assert.Equal(t, m.verify(a).Verdict, release.Failed)
	// By hand, too, nothing passes without them.
	out, err := m.byHand(typed(m.read("VERIFY.md")), release.Anchors{}, 0)
	assert.Assert(t, err != nil, "%s", out)
}

func TestATagWithoutASignatureMustBeInTheSignedList(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	m.unsigned = true
	m.make(filepath.Join(t.TempDir(), "b"))
	r := m.verify(m.anchors())
	assert.Equal(t, r.Verdict, release.Verified, "%+v", r.Checks)
	commands := typed(m.read("VERIFY.md"))
	out, err := m.byHand(commands, m.anchors(), 0)
	assert.NilError(t, err, "%s", out)

	// The list holds another object of that name.
	tag := strings.Replace(string(m.read("tag/tag.raw")), "tagger A", "tagger B", 1)
	e := m.evidence()
	e.TagObject = []byte(tag)
	m.seal(e)
	m.stamp("", "one", m.one)
	m.stamp("", "two", m.two)
	assert.DeepEqual(t, reds(m.verify(m.anchors())), []string{"tag"})
	out, err = m.byHand(commands, m.anchors(), 0)
	assert.Assert(t, err != nil, "%s", out)
}

func TestARenewalCarriesTheProofOn(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	m.make(filepath.Join(t.TempDir(), "b"))
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(1100 * time.Millisecond)))
	renewal, err := release.NewRenewal(os.DirFS(m.dir), time.Now().Add(2*time.Second))
	assert.NilError(t, err)
	m.write(renewal.Folder+"/SEAL", renewal.Seal)
	third, fourth := tsatest.New(t), tsatest.New(t)
	m.stamp(renewal.Folder, "three", third)
	m.stamp(renewal.Folder, "four", fourth)
	a := m.anchors()
	r := m.verify(a)
	assert.Equal(t, r.Verdict, release.Failed, "%+v", r.Checks) // its authorities are not known
	assert.DeepEqual(t, reds(r), []string{"authorities"})
	a.TSARoots = append(a.TSARoots, third.Authority("x").RootSPKI[0], fourth.Authority("x").RootSPKI[0])
	r = m.verify(a)
	assert.Equal(t, r.Verdict, release.Verified, "%+v", r.Checks)
	commands := typed(m.read("VERIFY.md"))
	out, err := m.byHand(commands, a, 19)
	assert.NilError(t, err, "%s", out)

	// In the same year another one is named for its day; not twice on one day.
	second, err := release.NewRenewal(os.DirFS(m.dir), time.Now().Add(2*time.Second))
	assert.NilError(t, err)
	assert.Equal(t, second.Folder, "renewals/"+time.Now().Add(2*time.Second).UTC().Format(time.DateOnly))
	time.Sleep(1100 * time.Millisecond)
	m.write(second.Folder+"/SEAL", second.Seal)
	m.stamp(second.Folder, "three", third)
	m.stamp(second.Folder, "four", fourth)
	assert.Equal(t, m.verify(a).Verdict, release.Verified)
	out, err = m.byHand(commands, a, 0)
	assert.NilError(t, err, "%s", out)
	_, err = release.NewRenewal(os.DirFS(m.dir), time.Now().Add(2*time.Second))
	assert.ErrorContains(t, err, "want a later day than that")

	// What a renewal sealed is not changed, and it does not leave anything out.
	token := m.read("tsa/one/SEAL.tsr")
	m.write("tsa/one/SEAL.tsr", m.one.Token(m.read("SEAL")))
	assert.DeepEqual(t, reds(m.verify(a)), []string{"renewals"})
	out, err = m.byHand(commands, a, 0)
	assert.Assert(t, err != nil, "%s", out)
	m.write("tsa/one/SEAL.tsr", token)
	_, rest, _ := strings.Cut(string(renewal.Seal), "\n")
	m.write(renewal.Folder+"/SEAL", []byte(rest))
	assert.Equal(t, m.verify(a).Verdict, release.Failed)
	_, err = release.NewRenewal(os.DirFS(m.dir), time.Now().AddDate(5, 0, 0))
	assert.ErrorContains(t, err, "does not hold")
}

func TestTheReportIsOnePageThatEscapesWhatOthersWrote(t *testing.T) {
	r := release.BundleReport{
		Verdict: release.Failed, Tag: "<script>alert(1)</script>", Judged: time.Unix(1800000000, 0),
		Artifacts: []release.BundleArtifact{{Name: "<b>", SHA256: "00", Size: 1}},
		Signers:   []release.BundleSigner{{Of: "the tag", Fingerprint: "AB", Names: []string{`"><img src=x>`}}},
		Checks:    []judge.Check{judge.Judged("bundle/x", "claim", "", judge.Finding{Message: "<i>"})},
	}
	page, err := r.HTML()
	assert.NilError(t, err)
	for _, tag := range []string{"<script", "<b>", "<img", "<i>", "http://", "https://", "url(", "@import"} {
		assert.Assert(t, !strings.Contains(string(page), tag), tag)
	}
	assert.Assert(t, strings.Contains(string(page), "Not proven."))
}

func TestAnchorsAreReadStrictly(t *testing.T) {
	_, vkey, err := checkpoint.GenerateKey(rand.Reader, "example.com/x")
	assert.NilError(t, err)
	root, print := strings.Repeat("0a", 32), strings.Repeat("0B", 20)
	a, err := release.ParseAnchors(fmt.Appendf(nil, `{"v":1, "keys":[%q], "tsa_roots":[%q], "log_keys":[%q], "policy_id":%q, "compromised":{%q:"2027-03-01T00:00:00Z"}}`, print, root, vkey, root, print))
	assert.NilError(t, err)
	assert.Equal(t, len(a.Keys)+len(a.TSARoots)+len(a.LogKeys)+len(a.Compromised), 4)
	a, err = release.ParseAnchors([]byte(`{"v":1}`))
	assert.NilError(t, err)
	assert.DeepEqual(t, a, release.Anchors{})
	for text, want := range map[string]string{
		``: "wanted a JSON object", `[]`: "wanted a JSON object", `{"v":1} {}`: "something follows",
		`{}`: `wanted "v":1`, `{"v":2}`: "found version 2", `{"v":1,"key":[]}`: `found the key "key"`, `{"V":1}`: `found the key "V"`,
		`{"v":1,"v":1}`: "there twice", `{"v":1,"keys":["12345678"]}`: "not a short key id", `{"v":1,"keys":["` + print + `","` + strings.ToLower(print) + `"]}`: "there twice",
		`{"v":1,"tsa_roots":["00"]}`: "64 small hex digits", `{"v":1,"log_keys":["x"]}`: "verifier key of a log", `{"v":1,"policy_id":"x"}`: "64 small hex digits",
		`{"v":1,"compromised":{"` + print + `":""}}`: "found the time", `{"v":1,"compromised":{"` + print + `":"2027-03-01T00:00:00Z","` + print + `":"2028-03-01T00:00:00Z"}}`: "there twice",
		`{"v":1,"log_keys":["` + vkey + `\nlog x"]}`: "verifier key of a log",
	} {
		_, err := release.ParseAnchors([]byte(text))
		assert.ErrorContains(t, err, want, text)
	}
}

func FuzzAnchors(f *testing.F) {
	f.Add([]byte(`{"v":1,"keys":["0B0B0B0B0B0B0B0B0B0B0B0B0B0B0B0B0B0B0B0B"],"compromised":{}}`))
	f.Add([]byte(`{"v":1,"keys":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := release.ParseAnchors(data)
		if err != nil {
			assert.DeepEqual(t, a, release.Anchors{})
			return
		}
		assert.Assert(t, json.Valid(data))
	})
}

func TestAFolderThatCannotBeReadIsAnErrorAndNoVerdict(t *testing.T) {
	_, err := release.VerifyBundle(os.DirFS(filepath.Join(t.TempDir(), "nowhere")), release.Anchors{}, time.Now())
	assert.ErrorIs(t, err, fs.ErrNotExist)
	r, err := release.VerifyBundle(os.DirFS(t.TempDir()), release.Anchors{}, time.Now())
	assert.NilError(t, err)
	assert.Equal(t, r.Verdict, release.Failed)
}
