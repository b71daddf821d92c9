package gitrepo_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

// tagging is a repository with one commit on main, and a GnuPG home.
type tagging struct {
	t    *testing.T
	dir  string
	home string
	repo *gitrepo.Repo
	head gitrepo.Hash
}

func newTagging(t *testing.T) *tagging {
	t.Helper()
	home, err := os.MkdirTemp("", "g") // short: it holds the socket of an agent
	assert.NilError(t, err)
	g := &tagging{t: t, dir: t.TempDir(), home: home}
	t.Cleanup(func() {
		_, _ = g.run("gpgconf", "--kill", "all")
		_ = os.RemoveAll(home)
	})
	g.must("git", "init", "-q", "-b", "main")
	write(t, g.dir, "a", "a\n")
	g.must("git", "add", "a")
	g.must("git", "commit", "-qm", "one")
	g.repo = open(t, g.dir)
	g.head = hash(t, strings.TrimSpace(g.must("git", "rev-parse", "HEAD")))
	return g
}

func (g *tagging) run(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = g.dir
	cmd.Env = append(os.Environ(), "GNUPGHOME="+g.home, "LC_ALL=C", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.org")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (g *tagging) must(name string, args ...string) string {
	g.t.Helper()
	out, err := g.run(name, args...)
	assert.NilError(g.t, err, "%s %s: %s", name, args, out)
	return out
}

// signer reads a test key and lets gpg know its public half.
func (g *tagging) signer(name string) openpgp.Signer {
	g.t.Helper()
	secret, err := os.ReadFile(filepath.Join("..", "openpgp", "testdata", name+".sec.asc"))
	assert.NilError(g.t, err)
	s, err := openpgp.FromArmored(secret, []byte("correct horse"), func() time.Time { return when })
	assert.NilError(g.t, err)
	path := filepath.Join(g.t.TempDir(), "k.asc")
	assert.NilError(g.t, os.WriteFile(path, s.Public().Armored(), 0o600))
	g.must("gpg", "--batch", "--quiet", "--import", path)
	return s
}

func (g *tagging) options(s openpgp.Signer, message string) gitrepo.TagOptions {
	return gitrepo.TagOptions{
		Message: message, TaggerName: "A Person", TaggerEmail: "person@example.org", When: when,
		Signer: func(payload []byte) (string, error) {
			packet, err := s.Sign(g.t.Context(), payload)
			return string(openpgp.Armor(packet)), err
		},
	}
}

func TestGitAndGPGAcceptTagsOfEveryKindOfKey(t *testing.T) {
	g := newTagging(t)
	for _, name := range []string{"ed25519", "rsa3072", "rsa4096", "nistp256", "nistp384", "offline", "stub"} {
		s := g.signer(name)
		tag, err := g.repo.WriteTag("v1-"+name, g.head, g.options(s, "release\n\nwith # text, ümlauts and\r\nCRLF"))
		assert.NilError(t, err)
		assert.Assert(t, tag.Annotated && !tag.Foreign)
		assert.Equal(t, tag.Commit, g.head)
		assert.Equal(t, tag.Inner, "v1-"+name)
		assert.Equal(t, tag.Message, "release\n\nwith # text, ümlauts and\r\nCRLF\n")
		assert.Assert(t, tag.Tagger.When.Equal(when))

		ring, err := openpgp.NewKeyring(s.Public())
		assert.NilError(t, err)
		packet, err := openpgp.Dearmor([]byte(tag.Signature))
		assert.NilError(t, err)
		_, err = openpgp.Verify(ring, s.Fingerprint(), tag.Payload, packet, openpgp.VerifyOptions{Now: when})
		assert.NilError(t, err)

		out := g.must("git", "verify-tag", "--raw", "v1-"+name)
		assert.Assert(t, strings.Contains(out, "[GNUPG:] VALIDSIG ") && strings.Contains(out, string(s.Fingerprint())), out)
		assert.Equal(t, strings.TrimSpace(g.must("git", "cat-file", "-t", "v1-"+name)), "tag")
		assert.Equal(t, g.must("git", "cat-file", "tag", "v1-"+name), string(tag.Raw))
	}
	assert.Equal(t, g.must("git", "fsck", "--strict", "--no-progress", "--no-dangling"), "")
	assert.Equal(t, strings.TrimSpace(g.must("git", "rev-parse", "HEAD")), g.head.String())
}

func TestTagsThatGitSignsAreRead(t *testing.T) {
	g := newTagging(t)
	g.must("gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", "--quick-generate-key", "A <a@example.org>", "ed25519", "sign", "never")
	g.must("git", "tag", "-s", "-m", "signed", "v1")
	g.must("git", "tag", "-a", "-m", "not signed", "app/v2")
	g.must("git", "tag", "v3")
	g.must("git", "pack-refs", "--all")

	public, err := openpgp.ParsePublic([]byte(g.must("gpg", "--armor", "--export")))
	assert.NilError(t, err)
	ring, err := openpgp.NewKeyring(public)
	assert.NilError(t, err)
	signed, err := g.repo.Tag("v1")
	assert.NilError(t, err)
	packet, err := openpgp.Dearmor([]byte(signed.Signature))
	assert.NilError(t, err)
	_, err = openpgp.Verify(ring, public.Fingerprint(), signed.Payload, packet, openpgp.VerifyOptions{Now: time.Now()})
	assert.NilError(t, err)
	assert.Equal(t, signed.Message, "signed\n")

	plain, err := g.repo.Tag("app/v2")
	assert.NilError(t, err)
	assert.Assert(t, plain.Annotated && plain.Signature == "" && !plain.Foreign)
	assert.Equal(t, string(plain.Payload), string(plain.Raw))

	light, err := g.repo.Tag("v3")
	assert.NilError(t, err)
	assert.DeepEqual(t, light, gitrepo.Tag{Name: "v3", Object: g.head, Commit: g.head, Raw: []byte(g.must("git", "cat-file", "commit", "HEAD"))})
}

func TestATagIsNeverMoved(t *testing.T) {
	g := newTagging(t)
	s := g.signer("ed25519")
	g.must("git", "tag", "light")
	g.must("git", "tag", "packed")
	g.must("git", "pack-refs", "--all")
	_, err := g.repo.WriteTag("mine", g.head, g.options(s, "m"))
	assert.NilError(t, err)
	before := g.must("git", "for-each-ref")
	for _, name := range []string{"light", "packed", "mine"} {
		_, err := g.repo.WriteTag(name, g.head, g.options(s, "again"))
		assert.ErrorIs(t, err, gitrepo.ErrTagExists)
	}
	// Another one that is making it at this moment.
	write(t, g.dir, ".git/refs/tags/v1.lock", "")
	_, err = g.repo.WriteTag("v1", g.head, g.options(s, "m"))
	assert.ErrorContains(t, err, "tag v1: another process is making it: refs/tags/v1.lock is there")
	assert.NilError(t, os.Remove(filepath.Join(g.dir, ".git/refs/tags/v1.lock")))
	assert.Equal(t, g.must("git", "for-each-ref"), before)
}

func TestTagsThatCannotBeRightAreNotWritten(t *testing.T) {
	g := newTagging(t)
	s := g.signer("ed25519")
	blob := hash(t, strings.TrimSpace(g.must("git", "rev-parse", "HEAD:a")))
	for _, tc := range []struct {
		name   string
		tag    string
		target gitrepo.Hash
		change func(*gitrepo.TagOptions)
		err    string
	}{
		{"name with a space", "v 1", g.head, nil, `tag v 1: "v 1" cannot be the name of a tag`},
		{"name above", "../heads/main", g.head, nil, "cannot be the name of a tag"},
		{"name like a flag", "-d", g.head, nil, "cannot be the name of a tag"},
		{"no name", "", g.head, nil, "cannot be the name of a tag"},
		{"a file", "v1", blob, nil, "is a blob, want a commit"},
		{"a missing commit", "v1", gitrepo.Hash{1}, nil, "object is missing"},
		{"no message", "v1", g.head, func(o *gitrepo.TagOptions) { o.Message = "\n" }, "message: want UTF-8 text without NUL"},
		{"a message that is a signature", "v1", g.head, func(o *gitrepo.TagOptions) { o.Message = "m\n-----BEGIN PGP SIGNATURE-----\n" }, "message: a line begins a signature"},
		{"a tagger that is two", "v1", g.head, func(o *gitrepo.TagOptions) { o.TaggerName = "a\nb" }, "tagger's name"},
		{"no time", "v1", g.head, func(o *gitrepo.TagOptions) { o.When = time.Time{} }, "want one after 1970"},
		{"a signer that fails", "v1", g.head, func(o *gitrepo.TagOptions) {
			o.Signer = func([]byte) (string, error) { return "", errors.New("card removed") }
		}, "tag v1: sign: card removed"},
		{"a signer that does not sign", "v1", g.head, func(o *gitrepo.TagOptions) {
			o.Signer = func([]byte) (string, error) { return "fine", nil }
		}, "found something else than an armored OpenPGP signature"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := g.options(s, "m")
			if tc.change != nil {
				tc.change(&o)
			}
			_, err := g.repo.WriteTag(tc.tag, tc.target, o)
			assert.ErrorContains(t, err, tc.err)
		})
	}
	assert.Equal(t, g.must("git", "for-each-ref", "refs/tags"), "")
}

func TestTagsOfOtherShapesAreErrors(t *testing.T) {
	g := newTagging(t)
	_, err := g.repo.Tag("v1")
	assert.ErrorIs(t, err, fs.ErrNotExist)
	g.must("git", "tag", "file", "HEAD:a")
	_, err = g.repo.Tag("file")
	assert.ErrorContains(t, err, "tag file: it names a blob, want a commit")
	g.must("git", "tag", "-a", "-m", "m", "one")
	g.must("git", "-c", "advice.nestedTag=false", "tag", "-a", "-m", "m", "two", "one")
	_, err = g.repo.Tag("two")
	assert.ErrorContains(t, err, `it is a tag of a "tag", want of a commit`)
	for name, text := range map[string]string{
		"found the line": "object " + g.head.String() + "\ntype commit\ntag x\ntagger A <a@b> 1 +0000\nobject " + g.head.String() + "\n\nm\n",
		"no message":     "object " + g.head.String() + "\ntype commit\ntag x\n",
		`no "tag" line`:  "object " + g.head.String() + "\ntype commit\n\nm\n",
	} {
		write(t, g.dir, "raw", text)
		id := strings.TrimSpace(g.must("git", "hash-object", "-t", "tag", "--literally", "-w", "raw"))
		write(t, g.dir, ".git/refs/tags/odd", id+"\n") // git update-ref would refuse it
		_, err = g.repo.Tag("odd")
		assert.ErrorIs(t, err, gitrepo.ErrCorruptObject)
		assert.ErrorContains(t, err, name)
	}
	// A signature that is not OpenPGP's is seen, not taken for none.
	write(t, g.dir, "raw", "object "+g.head.String()+"\ntype commit\ntag ssh\ntagger A <a@b> 1 +0000\n\nm\n-----BEGIN SSH SIGNATURE-----\nx\n-----END SSH SIGNATURE-----\n")
	g.must("git", "update-ref", "refs/tags/ssh", strings.TrimSpace(g.must("git", "hash-object", "-t", "tag", "-w", "raw")))
	tag, err := g.repo.Tag("ssh")
	assert.NilError(t, err)
	assert.Assert(t, tag.Foreign && tag.Signature == "")
}
