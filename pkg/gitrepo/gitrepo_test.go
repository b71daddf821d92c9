package gitrepo_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo/gitservertest"
)

const mainRef = "refs/heads/main"

var when = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func opts(msg string) gitrepo.CommitOptions {
	return gitrepo.CommitOptions{Message: msg, AuthorName: "Remembrancer", AuthorEmail: "bot@example.org", When: when}
}

func files(kv ...string) gitrepo.Change {
	c := gitrepo.Change{Write: map[string][]byte{}}
	for i := 0; i < len(kv); i += 2 {
		c.Write[kv[i]] = []byte(kv[i+1])
	}
	return c
}

func dial(t *testing.T, srv *gitservertest.Server, seed *gitrepo.Repo) *gitrepo.Remote {
	t.Helper()
	m, err := gitrepo.Dial(context.Background(), gitrepo.Options{URL: srv.URL(), Seed: seed})
	assert.NilError(t, err)
	return m
}

func fetch(t *testing.T, m *gitrepo.Remote) gitrepo.Hash {
	t.Helper()
	tips, err := m.Fetch(context.Background(), mainRef)
	assert.NilError(t, err)
	return tips[mainRef]
}

func build(t *testing.T, m *gitrepo.Remote, parent gitrepo.Hash, c gitrepo.Change, o gitrepo.CommitOptions) gitrepo.Hash {
	t.Helper()
	h, err := m.Build(parent, c, o)
	assert.NilError(t, err)
	return h
}

func hash(t *testing.T, s string) gitrepo.Hash {
	t.Helper()
	h, err := gitrepo.ParseHash(s)
	assert.NilError(t, err)
	return h
}

// seeded is a server whose main has a few commits, and a full clone of it.
func seeded(t *testing.T) (*gitservertest.Server, string) {
	t.Helper()
	srv := gitservertest.New(t)
	var script strings.Builder
	for i := range 4 {
		fmt.Fprintf(&script, "commit refs/heads/main\ncommitter Test Writer <writer@example.org> %d +0100\ndata <<E\ncommit %d\nE\n", when.Unix()+int64(i), i)
		fmt.Fprintf(&script, "M 100644 inline README.md\ndata <<E\nversion %d\nE\nM 100644 inline ops/ledger/checkpoint\ndata <<E\nsize %d\nE\n", i, i)
	}
	cmd := exec.Command("git", "fast-import", "--quiet")
	cmd.Dir, cmd.Env, cmd.Stdin = srv.Dir(), srv.Env(), strings.NewReader(script.String())
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	dir := srv.Clone(t)
	return srv, dir
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	name = filepath.Join(dir, filepath.FromSlash(name))
	assert.NilError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	assert.NilError(t, os.WriteFile(name, []byte(content), 0o644))
}

func commit(srv *gitservertest.Server, dir, msg string) {
	srv.In(dir, "add", "-A")
	srv.In(dir, "commit", "--quiet", "--allow-empty", "-m", msg)
}

func open(t *testing.T, dir string) *gitrepo.Repo {
	t.Helper()
	r, err := gitrepo.Open(dir)
	assert.NilError(t, err)
	return r
}

// snapshot hashes every file under a directory, with its mode and time.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	sum := sha256.New()
	assert.NilError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(sum, p, st.Mode(), st.ModTime().UnixNano())
		if !d.IsDir() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			sum.Write(b)
		}
		return nil
	}))
	return hex.EncodeToString(sum.Sum(nil))
}

func TestAFirstCommitIntoAnEmptyRepositoryIsAnOrphan(t *testing.T) {
	t.Parallel()
	srv := gitservertest.New(t)
	m := dial(t, srv, nil)
	tips, err := m.Fetch(context.Background(), mainRef, "HEAD")
	assert.NilError(t, err)
	assert.DeepEqual(t, tips, map[string]gitrepo.Hash{})

	h := build(t, m, gitrepo.Hash{}, files("a/b.txt", "hello\n", "empty", ""), opts("first"))
	assert.NilError(t, m.Push(context.Background(), mainRef, gitrepo.Hash{}, h))
	assert.Equal(t, srv.Git("cat-file", "commit", "main"), "tree "+srv.Git("rev-parse", "main^{tree}")+`
author Remembrancer <bot@example.org> 1772366400 +0000
committer Remembrancer <bot@example.org> 1772366400 +0000

first`)
	assert.Equal(t, srv.Git("show", "main:a/b.txt"), "hello")
	assert.Equal(t, srv.Git("show", "main:empty"), "")
	srv.Fsck()

	// The reference exists now: creating it again is a lost race.
	err = dial(t, srv, nil).Push(context.Background(), mainRef, gitrepo.Hash{}, h)
	assert.ErrorIs(t, err, gitrepo.ErrMissingObject) // a fresh Remote has not built it
	m2 := dial(t, srv, nil)
	h2 := build(t, m2, gitrepo.Hash{}, files("x", "y"), opts("other first"))
	assert.ErrorIs(t, m2.Push(context.Background(), mainRef, gitrepo.Hash{}, h2), gitrepo.ErrLostRace)
}

func TestBuiltTreesAreWhatGitItselfWrites(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	m := dial(t, srv, nil)
	// Git sorts "foo" the directory as "foo/": after foo-bar and foo.txt,
	// before foo0.
	change := files("foo/x", "1", "foo.txt", "2", "foo-bar", "3", "foo0", "4", "foo.d/y", "5", "z", "6", "README.md", "new\n", "ü/ß", "7")
	change.Write["ops/ledger/checkpoint"] = nil // the last file of two directories
	change.Write["never/was"] = nil
	old := fetch(t, m)
	h := build(t, m, old, change, opts("sorted"))
	assert.NilError(t, m.Push(context.Background(), mainRef, old, h))

	for name, content := range change.Write {
		if content == nil {
			_ = os.RemoveAll(filepath.Join(dir, filepath.FromSlash(name)))
			continue
		}
		write(t, dir, name, string(content))
	}
	srv.In(dir, "add", "-A")
	assert.Equal(t, srv.In(dir, "write-tree"), srv.Git("rev-parse", "main^{tree}"))
	assert.Equal(t, srv.Git("rev-parse", "main^"), old.String())
	srv.Fsck()

	again := build(t, m, old, change, opts("sorted"))
	assert.Equal(t, again, h, "the same input gives the same commit")
}

func TestBuildRefusesWhatWouldHideOrLoseSomething(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	assert.NilError(t, os.Symlink("README.md", filepath.Join(dir, "link")))
	write(t, dir, "run.sh", "#!/bin/sh\n")
	assert.NilError(t, os.Chmod(filepath.Join(dir, "run.sh"), 0o755))
	commit(srv, dir, "link and script")
	srv.In(dir, "push", "--quiet", "origin", "main")
	m := dial(t, srv, nil)
	tip := fetch(t, m)
	for _, c := range []struct {
		change gitrepo.Change
		want   string
	}{
		{files("link", "x"), "link: is a symlink, want a regular file or nothing"},
		{files("link/x", "x"), "link: is a symlink, want a directory or nothing"},
		{files("README.md/x", "x"), "README.md: is a regular file, want a directory or nothing"},
		{files("ops", "x"), "ops: is a directory, want a regular file or nothing"},
		{gitrepo.Change{Write: map[string][]byte{"ops": nil}}, "ops: is a directory, want a regular file or nothing"},
		{files("n", "x", "n/m", "x"), "n: is written both as a file and as a directory"},
		{files("../x", "x"), `path "../x": want a relative slash-separated path`},
		{files("/x", "x"), `path "/x": want a relative slash-separated path`},
		{files("", "x"), `path "": want a relative slash-separated path`},
		{files("a/.GIT/config", "x"), `path "a/.GIT/config": file name ".GIT" would be git's own directory`},
		{gitrepo.Change{Graft: map[string]gitrepo.Hash{"g": hash(t, strings.Repeat("12", 20))}}, "graft g: 1212121212121212121212121212121212121212: object is missing from the repository"},
		{gitrepo.Change{Graft: map[string]gitrepo.Hash{"g": tip}}, "graft g: object " + tip.String() + " is a commit, want a tree or a blob"},
	} {
		_, err := m.Build(tip, c.change, opts("bad"))
		assert.Error(t, err, "build commit: "+c.want)
	}
	for want, o := range map[string]gitrepo.CommitOptions{
		`author name "": want text without <, > and line breaks`:        {Message: "m", AuthorEmail: "a@b", When: when},
		`author e-mail "a>b": want text without <, > and line breaks`:   {Message: "m", AuthorName: "n", AuthorEmail: "a>b", When: when},
		"commit time 0001-01-01T00:00:00Z: want a time after 1970":      {Message: "m", AuthorName: "n", AuthorEmail: "a@b"},
		"commit message: want UTF-8 text without NUL":                   {Message: "\xff", AuthorName: "n", AuthorEmail: "a@b", When: when},
		"sign: found an empty or binary signature, want an armored one": {Message: "m", AuthorName: "n", AuthorEmail: "a@b", When: when, Signer: func([]byte) (string, error) { return "\n", nil }},
	} {
		_, err := m.Build(tip, files("a", "b"), o)
		assert.Error(t, err, "build commit: "+want)
	}
	h := build(t, m, tip, files("run.sh", "#!/bin/sh\ntrue\n"), opts("edit the script"))
	assert.NilError(t, m.Push(context.Background(), mainRef, tip, h))
	assert.Assert(t, cmp.Contains(srv.Git("ls-tree", "main", "run.sh"), "100755 blob"))
}

func TestAGraftPlacesASubtreeOfAnotherCommitUnread(t *testing.T) {
	t.Parallel()
	srv, _ := seeded(t)
	m := dial(t, srv, nil)
	tip := fetch(t, m)
	claim := build(t, m, gitrepo.Hash{}, files("log/00/00/00.jsonl", "line\n", "log/00/00/01.jsonl", "tail\n", "checkpoint", "body\n"), opts("claim"))
	assert.NilError(t, m.Push(context.Background(), "refs/heads/claim", gitrepo.Hash{}, claim))

	// Another process lands it: everything comes from the server.
	m = dial(t, srv, nil)
	tips, err := m.Fetch(context.Background(), mainRef, "refs/heads/claim", "refs/heads/absent")
	assert.NilError(t, err)
	assert.DeepEqual(t, tips, map[string]gitrepo.Hash{mainRef: tip, "refs/heads/claim": claim})
	from, err := m.TreeAt(claim)
	assert.NilError(t, err)
	log, err := from.Lookup("log")
	assert.NilError(t, err)
	change := files("ops/ledger/log/00/00/01.jsonl", "sealed\n", "ops/ledger/checkpoint", "signed\n")
	change.Graft = map[string]gitrepo.Hash{"ops/ledger/log": log.Hash}
	landed := build(t, m, tip, change, opts("land"))
	assert.NilError(t, m.Push(context.Background(), mainRef, tip, landed))
	assert.Equal(t, srv.Git("ls-tree", "-r", "--name-only", "main"), "README.md\nops/ledger/checkpoint\nops/ledger/log/00/00/00.jsonl\nops/ledger/log/00/00/01.jsonl")
	assert.Equal(t, srv.Git("show", "main:ops/ledger/log/00/00/01.jsonl"), "sealed")
	srv.Fsck()

	// A tree can also be started from nothing on top of a parent.
	fresh := files("only", "this")
	fresh.Base = gitrepo.EmptyTree
	next := build(t, m, claim, fresh, opts("next claim"))
	assert.NilError(t, m.Push(context.Background(), "refs/heads/claim", claim, next))
	assert.Equal(t, srv.Git("ls-tree", "-r", "--name-only", "claim"), "only")
	// A fetched commit can be pushed to a new reference without any object.
	assert.NilError(t, m.Push(context.Background(), "refs/heads/copy", gitrepo.Hash{}, tip))
	srv.Fsck()
}

func TestASignedCommitIsTheOneTheSignerSaw(t *testing.T) {
	t.Parallel()
	srv, _ := seeded(t)
	m := dial(t, srv, nil)
	tip := fetch(t, m)
	var payload []byte
	o := opts("signed\n\nwith a body\n")
	o.Signer = func(p []byte) (string, error) {
		payload = bytes.Clone(p)
		return "-----BEGIN PGP SIGNATURE-----\n\nZmFrZQ==\n=abcd\n-----END PGP SIGNATURE-----\n", nil
	}
	h := build(t, m, tip, files("a", "b"), o)
	assert.NilError(t, m.Push(context.Background(), mainRef, tip, h))
	srv.Fsck()

	// Git hands its verifier the commit without the header: it must be the
	// bytes that were signed.
	seen := filepath.Join(t.TempDir(), "payload")
	fake := filepath.Join(t.TempDir(), "gpg")
	assert.NilError(t, os.WriteFile(fake, []byte("#!/bin/sh\ncat > '"+seen+"'\necho '[GNUPG:] GOODSIG 0 x'\n"), 0o755))
	srv.Git("-c", "gpg.program="+fake, "log", "-1", "--show-signature", "main")
	got, err := os.ReadFile(seen)
	assert.NilError(t, err)
	assert.Equal(t, string(got), string(payload))
	c, err := m.Commit(h)
	assert.NilError(t, err)
	person := gitrepo.Person{Name: "Remembrancer", Email: "bot@example.org", When: when}
	assert.DeepEqual(t, c, gitrepo.Commit{
		Hash: h, Tree: hash(t, srv.Git("rev-parse", "main^{tree}")), Parents: []gitrepo.Hash{tip},
		Author: person, Committer: person, Message: "signed\n\nwith a body\n",
		Signature: "-----BEGIN PGP SIGNATURE-----\n\nZmFrZQ==\n=abcd\n-----END PGP SIGNATURE-----",
	})
}

// TestConcurrentWritersAllLandOnce: fetch, build, push, and only ErrLostRace
// leads to another round.
func TestConcurrentWritersAllLandOnce(t *testing.T) {
	t.Parallel()
	srv, _ := seeded(t)
	const writers = 8
	before := srv.Git("rev-list", "--count", "main")
	var attempts atomic.Int32
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			errs[w] = func() error {
				ctx := context.Background()
				m, err := gitrepo.Dial(ctx, gitrepo.Options{URL: srv.URL(), Depth: w % 2})
				if err != nil {
					return err
				}
				for range 100 {
					tips, err := m.Fetch(ctx, mainRef)
					if err != nil {
						return err
					}
					h, err := m.Build(tips[mainRef], files(fmt.Sprintf("w/%d", w), "x"), opts(fmt.Sprintf("writer %d", w)))
					if err != nil {
						return err
					}
					attempts.Add(1)
					err = m.Push(ctx, mainRef, tips[mainRef], h)
					if !errors.Is(err, gitrepo.ErrLostRace) {
						return err
					}
					time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
				}
				return errors.New("gave up")
			}()
		})
	}
	wg.Wait()
	for w, err := range errs {
		assert.NilError(t, err, "writer %d", w)
	}
	assert.Equal(t, len(strings.Fields(srv.Git("ls-tree", "--name-only", "main:w"))), writers)
	assert.Equal(t, srv.Git("rev-list", "--count", "main", "^main~"+fmt.Sprint(writers)), fmt.Sprint(writers))
	assert.Equal(t, srv.Git("rev-list", "--count", "main~"+fmt.Sprint(writers)), before)
	srv.Fsck()
	t.Logf("%d writers landed in %d attempts", writers, attempts.Load())
}

// TestOfTwoPushesFromOneTipExactlyOneSucceeds lets both pass the client's own
// look at the server, so that only the server's compare-and-swap decides.
func TestOfTwoPushesFromOneTipExactlyOneSucceeds(t *testing.T) {
	t.Parallel()
	srv, _ := seeded(t)
	for round := range 3 {
		var meet sync.WaitGroup
		meet.Add(2)
		both := func() { meet.Done(); meet.Wait() }
		srv.BeforePush(both)
		srv.BeforePush(both)
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for w := range 2 {
			m := dial(t, srv, nil)
			tip := fetch(t, m)
			h := build(t, m, tip, files("who", fmt.Sprint(round, w)), opts(fmt.Sprint("claim ", round, w)))
			wg.Go(func() { errs[w] = m.Push(context.Background(), mainRef, tip, h) })
		}
		wg.Wait()
		if errs[0] == nil {
			errs[0], errs[1] = errs[1], errs[0]
		}
		assert.ErrorIs(t, errs[0], gitrepo.ErrLostRace)
		assert.NilError(t, errs[1])
	}
	srv.Fsck()
}

func TestALostRaceCarriesTheServersWords(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	m := dial(t, srv, nil)
	tip := fetch(t, m)
	h := build(t, m, tip, files("a", "b"), opts("late"))
	srv.BeforePush(func() {
		commit(srv, dir, "faster")
		srv.In(dir, "push", "--quiet", "file://"+srv.Dir(), "main")
	})
	err := m.Push(context.Background(), mainRef, tip, h)
	assert.ErrorIs(t, err, gitrepo.ErrLostRace)
	assert.Assert(t, gitrepo.Retryable(err))
	assert.ErrorContains(t, err, "failed to update ref")
	// Next time the client sees it before it sends anything.
	pushes := srv.Pushes()
	err = m.Push(context.Background(), mainRef, tip, h)
	faster := srv.Git("rev-parse", "main")
	assert.ErrorIs(t, err, gitrepo.ErrLostRace)
	assert.ErrorContains(t, err, "it is at "+faster+", not "+tip.String())
	assert.Equal(t, srv.Pushes(), pushes)
}

func TestAnEqualHashPushedByAnotherIsALostRace(t *testing.T) {
	t.Parallel()
	srv, _ := seeded(t)
	a, b := dial(t, srv, nil), dial(t, srv, nil)
	tip := fetch(t, a)
	assert.Equal(t, fetch(t, b), tip)
	h := build(t, a, tip, files("a", "b"), opts("twins"))
	assert.Equal(t, build(t, b, tip, files("a", "b"), opts("twins")), h)
	assert.NilError(t, a.Push(context.Background(), mainRef, tip, h))
	assert.ErrorIs(t, b.Push(context.Background(), mainRef, tip, h), gitrepo.ErrLostRace)
}

func TestAHookRefusalIsFinalAndCarriesItsText(t *testing.T) {
	t.Parallel()
	srv, _ := seeded(t)
	m := dial(t, srv, nil)
	tip := fetch(t, m)
	h := build(t, m, tip, files("a", "b"), opts("refused"))
	for hook, c := range map[string]struct{ script, reason, text string }{
		"pre-receive": {
			"#!/bin/sh\nprintf 'error: GH013: Repository rule violations found for refs/heads/main.\\n\\033[31m- Changes must be made through a pull request.\\n' >&2\nexit 1\n",
			"pre-receive hook declined",
			"error: GH013: Repository rule violations found for refs/heads/main.\n[31m- Changes must be made through a pull request.",
		},
		"update": {
			"#!/bin/sh\necho 'error: GH006: Protected branch update failed for refs/heads/main.' >&2\nexit 1\n",
			"hook declined",
			"error: GH006: Protected branch update failed for refs/heads/main.",
		},
	} {
		srv.Hook(hook, c.script)
		err := m.Push(context.Background(), mainRef, tip, h)
		var refused *gitrepo.RefusedError
		assert.Assert(t, errors.As(err, &refused), "%v", err)
		// Git adds a line of its own to an update hook's.
		text, _, _ := strings.Cut(refused.Text, "\nerror: hook declined")
		assert.DeepEqual(t, gitrepo.RefusedError{Ref: refused.Ref, Reason: refused.Reason, Text: text},
			gitrepo.RefusedError{Ref: mainRef, Reason: c.reason, Text: c.text})
		assert.ErrorContains(t, err, c.text)
		assert.Assert(t, !gitrepo.Retryable(err))
		srv.Hook(hook, "#!/bin/sh\nexit 0\n")
	}
	assert.NilError(t, m.Push(context.Background(), mainRef, tip, h))
}

func TestProgressIsPassedOnWithoutControlCharacters(t *testing.T) {
	t.Parallel()
	srv, _ := seeded(t)
	srv.Hook("pre-receive", "#!/bin/sh\nprintf 'looking at it \\033]0;title\\007\\n' >&2\n")
	var out bytes.Buffer
	m, err := gitrepo.Dial(context.Background(), gitrepo.Options{URL: srv.URL(), Progress: &out})
	assert.NilError(t, err)
	tip := fetch(t, m)
	out.Reset()
	assert.NilError(t, m.Push(context.Background(), mainRef, tip, build(t, m, tip, files("a", "b"), opts("m"))))
	assert.Equal(t, out.String(), "looking at it ]0;title\n")
}

func TestAPushWhoseAnswerIsLostIsUnconfirmedAndSafeToRepeat(t *testing.T) {
	t.Parallel()
	srv, _ := seeded(t)
	for name, c := range map[string]struct {
		fault  gitservertest.Fault
		landed bool
	}{
		"request dropped": {gitservertest.DropRequest, false},
		"502 before":      {gitservertest.RefuseGateway, false},
		"answer dropped":  {gitservertest.LoseAnswer, true},
		"502 after":       {gitservertest.LoseAnswerGateway, true},
		"empty answer":    {gitservertest.EmptyAnswer, true},
		"half an answer":  {gitservertest.CutAnswer, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := dial(t, srv, nil)
			tip := fetch(t, m)
			h := build(t, m, tip, files("a", name), opts("unheard"))
			srv.FailPush(c.fault)
			err := m.Push(context.Background(), mainRef, tip, h)
			assert.ErrorIs(t, err, gitrepo.ErrUnconfirmed)
			assert.ErrorIs(t, err, gitrepo.ErrUnreachable)
			assert.Assert(t, gitrepo.Retryable(err))
			now := fetch(t, m)
			assert.Equal(t, now == h, c.landed)
			assert.NilError(t, m.Push(context.Background(), mainRef, tip, h))
			assert.Equal(t, srv.Git("rev-parse", "main"), h.String())
			// Work goes on from there.
			next := build(t, m, h, files("c", name), opts("next"))
			assert.NilError(t, m.Push(context.Background(), mainRef, h, next))
		})
	}
	srv.Fsck()
}

func TestNothingIsForcedOrDeleted(t *testing.T) {
	t.Parallel()
	srv, _ := seeded(t)
	m := dial(t, srv, nil)
	tip := fetch(t, m)
	stray := build(t, m, gitrepo.Hash{}, files("a", "b"), opts("unrelated"))
	err := m.Push(context.Background(), mainRef, tip, stray)
	assert.ErrorContains(t, err, stray.String()+" does not descend from "+tip.String()+", and nothing is ever forced")
	assert.ErrorContains(t, m.Push(context.Background(), mainRef, tip, gitrepo.Hash{}), "references are never deleted")
	for _, ref := range []string{"main", "+refs/heads/main", "refs/heads/*", "refs/heads/a..b", "HEAD", ""} {
		assert.ErrorContains(t, m.Push(context.Background(), ref, tip, tip), "want a full name such as refs/heads/main")
	}
	assert.Equal(t, srv.Git("rev-parse", "main"), tip.String())
	assert.Equal(t, srv.Pushes(), 0)
}

func TestAForcedMainAndADeletedBranchAreSeenByFetch(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	for _, seed := range []*gitrepo.Repo{nil, open(t, dir)} {
		srv.In(dir, "push", "--quiet", "file://"+srv.Dir(), "main:refs/heads/side")
		m := dial(t, srv, seed)
		tips, err := m.Fetch(context.Background(), mainRef, "refs/heads/side", "HEAD")
		assert.NilError(t, err)
		assert.Equal(t, len(tips), 3)
		old := tips[mainRef]

		rewritten := hash(t, srv.In(srv.Dir(), "-c", "user.name=x", "-c", "user.email=x@y", "commit-tree", "main^{tree}", "-p", "main~2", "-m", "rewritten"))
		srv.Git("update-ref", mainRef, rewritten.String())
		srv.Git("update-ref", "-d", "refs/heads/side")
		tips, err = m.Fetch(context.Background(), mainRef, "refs/heads/side", "HEAD")
		assert.NilError(t, err)
		assert.DeepEqual(t, tips, map[string]gitrepo.Hash{mainRef: rewritten, "HEAD": rewritten})
		ok, err := m.IsAncestor(old, rewritten)
		assert.NilError(t, err)
		assert.Assert(t, !ok)
		next := build(t, m, old, files("a", "b"), opts("on the old tip"))
		assert.ErrorIs(t, m.Push(context.Background(), mainRef, old, next), gitrepo.ErrLostRace)
		srv.Git("update-ref", mainRef, old.String())
		assert.Equal(t, fetch(t, m), old, "back again")
	}
}

// TestASeedIsReadAndNeverWritten: full, shallow, partial and broken clones.
func TestASeedIsReadAndNeverWritten(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		clone   []string
		damage  func(t *testing.T, srv *gitservertest.Server, dir string)
		dropped bool
		shallow bool
	}{
		"full":    {},
		"depth 1": {clone: []string{"--depth=1"}, shallow: true},
		"partial": {clone: []string{"--filter=blob:none", "--no-checkout"}, dropped: true},
		"missing blob": {dropped: true, damage: func(t *testing.T, srv *gitservertest.Server, dir string) {
			loose(t, srv, dir, "HEAD:ops/ledger/checkpoint")
		}},
		"missing root tree": {dropped: true, damage: func(t *testing.T, srv *gitservertest.Server, dir string) {
			loose(t, srv, dir, "HEAD^{tree}")
		}},
		"ahead of the server": {damage: func(t *testing.T, srv *gitservertest.Server, dir string) {
			write(t, dir, "local", "only")
			commit(srv, dir, "never pushed")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, dir := seeded(t)
			srv.Git("config", "uploadpack.allowFilter", "true")
			clone := srv.Clone(t, c.clone...)
			if c.damage != nil {
				c.damage(t, srv, clone)
			}
			for _, moved := range []bool{false, true} {
				if moved { // the server goes on where the seed stops
					write(t, dir, "later", "x")
					commit(srv, dir, "later")
					srv.In(dir, "pull", "--quiet", "--rebase")
					srv.In(dir, "push", "--quiet", "origin", "main")
				}
				before := snapshot(t, filepath.Join(clone, ".git"))
				var said bytes.Buffer
				m, err := gitrepo.Dial(context.Background(), gitrepo.Options{URL: srv.URL(), Seed: open(t, clone), Progress: &said})
				assert.NilError(t, err)
				tip := fetch(t, m)
				assert.Equal(t, tip.String(), srv.Git("rev-parse", "main"))
				// Later commits do not name the damaged objects any more.
				assert.Equal(t, strings.Contains(said.String(), "the local clone is incomplete"), c.dropped && (!moved || name == "partial"))
				tree, err := m.TreeAt(tip)
				assert.NilError(t, err)
				got := 0
				assert.NilError(t, tree.Walk("", func(e gitrepo.Entry) error {
					got++
					_, err := tree.Read(e.Hash)
					return err
				}))
				assert.Equal(t, got, len(strings.Fields(srv.Git("ls-tree", "-r", "--name-only", "main"))))

				var last error
				commits := 0
				for _, err := range m.FirstParents(tip) {
					if last = err; err == nil {
						commits++
					}
				}
				if c.shallow {
					assert.ErrorIs(t, last, gitrepo.ErrShallow)
				} else {
					assert.NilError(t, last)
					assert.Equal(t, fmt.Sprint(commits), srv.Git("rev-list", "--count", "main"))
				}
				h := build(t, m, tip, files("ops/ledger/checkpoint", fmt.Sprint("by publisher ", moved)), opts("publish"))
				assert.NilError(t, m.Push(context.Background(), mainRef, tip, h))
				assert.Equal(t, fetch(t, m), h)
				assert.Equal(t, snapshot(t, filepath.Join(clone, ".git")), before)
			}
			srv.Fsck()
		})
	}
}

// loose unpacks a clone and removes one object from it.
func loose(t *testing.T, srv *gitservertest.Server, dir, rev string) {
	t.Helper()
	h := srv.In(dir, "rev-parse", rev)
	unpack(t, srv, dir)
	assert.NilError(t, os.Remove(filepath.Join(dir, ".git/objects", h[:2], h[2:])))
}

func unpack(t *testing.T, srv *gitservertest.Server, dir string) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(dir, ".git/objects/pack/*"))
	assert.NilError(t, err)
	for _, p := range packs {
		if strings.HasSuffix(p, ".pack") {
			moved := filepath.Join(t.TempDir(), filepath.Base(p))
			assert.NilError(t, os.Rename(p, moved))
			srv.In(dir, "-c", "alias.x=!git unpack-objects -q < '"+moved+"'", "x")
		} else {
			assert.NilError(t, os.Remove(p))
		}
	}
}

func TestACommitTheServerNeverSawIsNoParent(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	commit(srv, dir, "local only")
	local := hash(t, srv.In(dir, "rev-parse", "HEAD"))
	m := dial(t, srv, open(t, dir))
	tip := fetch(t, m)
	_, err := m.Build(local, files("a", "b"), opts("m"))
	assert.ErrorContains(t, err, "parent "+local.String()+" is not in what was fetched from the server")
	c, err := m.Commit(tip)
	assert.NilError(t, err)
	_, err = m.Build(c.Parents[0], files("a", "b"), opts("an older commit is fine"))
	assert.NilError(t, err)
}

func TestADepthLimitsTheHistoryAndSaysSo(t *testing.T) {
	t.Parallel()
	srv, _ := seeded(t)
	m, err := gitrepo.Dial(context.Background(), gitrepo.Options{URL: srv.URL(), Depth: 2})
	assert.NilError(t, err)
	tip := fetch(t, m)
	for range 3 {
		next := build(t, m, tip, files("a", tip.String()), opts("deeper"))
		assert.NilError(t, m.Push(context.Background(), mainRef, tip, next))
		tip = fetch(t, m)
		assert.Equal(t, tip, next)
	}
	n, last := 0, error(nil)
	for _, err := range m.FirstParents(tip) {
		if last = err; err == nil {
			n++
		}
	}
	assert.Equal(t, n, 5)
	assert.ErrorIs(t, last, gitrepo.ErrShallow)
	_, err = m.IsAncestor(hash(t, srv.Git("rev-parse", "main~6")), tip)
	assert.ErrorIs(t, err, gitrepo.ErrShallow)
	_, err = gitrepo.Dial(context.Background(), gitrepo.Options{URL: srv.URL(), Depth: -1})
	assert.Error(t, err, "fetch depth is -1, want 0 (all) or more")
}

func TestPathsWorkLikeServers(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	for _, url := range []string{srv.Dir(), "file://" + srv.Dir()} {
		m, err := gitrepo.Dial(context.Background(), gitrepo.Options{URL: url, Seed: open(t, dir)})
		assert.NilError(t, err)
		tip := fetch(t, m)
		h := build(t, m, tip, files("by", url), opts("m"))
		assert.NilError(t, m.Push(context.Background(), mainRef, tip, h))
		srv.Hook("pre-receive", "#!/bin/sh\necho 'not today' >&2\nexit 1\n")
		var refused *gitrepo.RefusedError
		next := build(t, m, h, files("by", "nobody"), opts("m"))
		err = m.Push(context.Background(), mainRef, h, next)
		assert.Assert(t, errors.As(err, &refused), "%v", err)
		assert.DeepEqual(t, refused, &gitrepo.RefusedError{Ref: mainRef, Reason: "pre-receive hook declined", Text: "not today"})
		srv.Hook("pre-receive", "#!/bin/sh\nexit 0\n")
	}
	empty := filepath.Join(t.TempDir(), "empty.git")
	srv.In(t.TempDir(), "init", "-q", "--bare", empty)
	m, err := gitrepo.Dial(context.Background(), gitrepo.Options{URL: empty})
	assert.NilError(t, err)
	tips, err := m.Fetch(context.Background(), mainRef)
	assert.NilError(t, err)
	assert.Equal(t, len(tips), 0)
	first := build(t, m, gitrepo.Hash{}, files("a", "b"), opts("first"))
	assert.NilError(t, m.Push(context.Background(), mainRef, gitrepo.Hash{}, first))

	_, err = gitrepo.Dial(context.Background(), gitrepo.Options{URL: filepath.Join(empty, "nowhere")})
	assert.ErrorIs(t, err, gitrepo.ErrNoRepository)
}

// A static image has no git program.
func TestWithoutAGitProgramPathsSaySo(t *testing.T) {
	srv := gitservertest.New(t)
	m, err := gitrepo.Dial(context.Background(), gitrepo.Options{URL: srv.Dir()})
	assert.NilError(t, err)
	t.Setenv("PATH", t.TempDir())
	_, err = m.Fetch(context.Background(), mainRef)
	assert.ErrorContains(t, err, "local paths need the git program, which is not installed here")
}

func TestCredentialsAreUsedAndNeverPrinted(t *testing.T) {
	t.Parallel()
	srv, _ := seeded(t)
	srv.RequireAuth("x-access-token", "s3cret-token")
	ctx := context.Background()
	try := func(url string, auth gitrepo.Auth) error {
		m, err := gitrepo.Dial(ctx, gitrepo.Options{URL: url, Auth: auth})
		if err != nil {
			return err
		}
		assert.Assert(t, !strings.Contains(m.URL(), "@"))
		_, err = m.Fetch(ctx, mainRef)
		return err
	}
	inURL := func(user string) string { return strings.Replace(srv.URL(), "://", "://"+user+"@", 1) }
	assert.NilError(t, try(srv.URL(), gitrepo.Auth{Token: "s3cret-token"}))
	assert.NilError(t, try(inURL("x-access-token:s3cret-token"), gitrepo.Auth{}))
	assert.NilError(t, try(inURL("s3cret-token"), gitrepo.Auth{}))
	assert.NilError(t, try(inURL("x:stale"), gitrepo.Auth{Token: "s3cret-token"}))
	for url, auth := range map[string]gitrepo.Auth{
		srv.URL():                              {},
		inURL("someone:wr0ng-password"):        {},
		inURL("wr0ng-password"):                {},
		srv.URL() + "?":                        {Token: "wr0ng-password"},
		"http://a:wr0ng-password@127.0.0.1:1/": {},
		"http://wr0ng-password@%zz/":           {},
		"gopher://wr0ng-password@host/":        {},
		"ssh://git:wr0ng-password@host/x":      {},
	} {
		err := try(url, auth)
		assert.Assert(t, err != nil)
		assert.Assert(t, !strings.Contains(err.Error(), "wr0ng-password"), "%v", err)
		if strings.HasPrefix(url, srv.URL()[:12]) && !strings.Contains(url, ":1/") {
			assert.ErrorIs(t, err, gitrepo.ErrAuth)
			assert.ErrorContains(t, err, "remote: Invalid username or token.")
		}
	}
}

func TestServerFailuresAreToldApart(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	status, body := 0, ""
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	defer fake.Close()
	for _, c := range []struct {
		status int
		body   string
		want   error
		retry  bool
	}{
		{401, "Bad credentials", gitrepo.ErrAuth, false},
		{403, "remote: Write access to repository not granted.", gitrepo.ErrAuth, false},
		{404, "Not Found", gitrepo.ErrNoRepository, false},
		{503, "come back later", gitrepo.ErrUnreachable, true},
		{429, "slow down", gitrepo.ErrUnreachable, true},
		{200, "", gitrepo.ErrUnreachable, true},
		{200, "001e# service=git-upload-pack\n0000010400000000000000000000000000000000", nil, true},
		{200, "<html>a proxy's login page</html>", nil, false},
		{400, "the plain HTTP request was sent to HTTPS port", nil, false},
	} {
		status, body = c.status, c.body
		m, err := gitrepo.Dial(ctx, gitrepo.Options{URL: fake.URL + "/x.git"})
		assert.NilError(t, err)
		_, err = m.Fetch(ctx, mainRef)
		assert.Assert(t, err != nil)
		if c.want != nil {
			assert.ErrorIs(t, err, c.want)
			assert.ErrorContains(t, err, c.body)
			assert.Equal(t, gitrepo.Retryable(err), c.retry, "%v", err)
		}
		if c.status == 400 {
			assert.ErrorContains(t, err, c.body)
		}
	}
	fake.Close()
	m, err := gitrepo.Dial(ctx, gitrepo.Options{URL: fake.URL + "/x.git"})
	assert.NilError(t, err)
	_, err = m.Fetch(ctx, mainRef)
	assert.ErrorIs(t, err, gitrepo.ErrUnreachable)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = m.Fetch(gone, mainRef)
	assert.ErrorIs(t, err, context.Canceled)
	assert.ErrorIs(t, err, gitrepo.ErrUnreachable)
}

func TestSHA256RepositoriesAreRefusedByName(t *testing.T) {
	t.Parallel()
	srv := gitservertest.New(t, "--object-format=sha256")
	for range 2 {
		for _, url := range []string{srv.URL(), srv.Dir()} {
			m, err := gitrepo.Dial(context.Background(), gitrepo.Options{URL: url})
			assert.NilError(t, err)
			_, err = m.Fetch(context.Background(), mainRef)
			// Without a reference, this version of git does not say what it speaks.
			if err != nil || srv.Git("for-each-ref") != "" {
				assert.ErrorIs(t, err, gitrepo.ErrObjectFormat)
			}
			h := build(t, m, gitrepo.Hash{}, files("a", "b"), opts("m"))
			assert.ErrorIs(t, m.Push(context.Background(), mainRef, gitrepo.Hash{}, h), gitrepo.ErrObjectFormat)
		}
		_, err := gitrepo.Open(srv.Dir())
		assert.ErrorIs(t, err, gitrepo.ErrObjectFormat)
		assert.ErrorContains(t, err, `extension objectformat is "sha256"`)
		srv.Git("update-ref", mainRef, srv.Git("-c", "user.name=x", "-c", "user.email=x@y", "commit-tree", srv.Git("hash-object", "-t", "tree", "-w", os.DevNull), "-m", "x"))
	}
	_, err := gitrepo.ParseHash(strings.Repeat("ab", 32))
	assert.ErrorIs(t, err, gitrepo.ErrObjectFormat)
}
