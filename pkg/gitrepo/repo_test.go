package gitrepo_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
)

func TestARepositoryIsFoundFromWhereverGitFindsIt(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	head := srv.In(dir, "rev-parse", "HEAD")
	tree := filepath.Join(t.TempDir(), "worktree")
	srv.In(dir, "worktree", "add", "--quiet", "-b", "other", tree)
	write(t, tree, "in/worktree", "x")
	commit(srv, tree, "on other")
	shared := filepath.Join(t.TempDir(), "shared")
	srv.In(dir, "clone", "--quiet", "--shared", dir, shared)
	relative := filepath.Join(filepath.Dir(shared), "relative")
	srv.In(dir, "clone", "--quiet", "--shared", dir, relative)
	rel, err := filepath.Rel(filepath.Join(relative, ".git/objects"), filepath.Join(dir, ".git/objects"))
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(relative, ".git/objects/info/alternates"), []byte(rel+"\n"), 0o644))
	sparse := srv.Clone(t, "--no-checkout")
	srv.In(sparse, "sparse-checkout", "set", "ops")
	for name, c := range map[string]struct{ at, root, head, branch string }{
		"top":          {dir, dir, head, "refs/heads/main"},
		"subdirectory": {filepath.Join(dir, "ops/ledger"), dir, head, "refs/heads/main"},
		"bare":         {srv.Dir(), srv.Dir(), head, "refs/heads/main"},
		"worktree":     {filepath.Join(tree, "in"), tree, srv.In(tree, "rev-parse", "HEAD"), "refs/heads/other"},
		"shared":       {shared, shared, head, "refs/heads/main"},
		"relative":     {relative, relative, head, "refs/heads/main"},
		"sparse":       {sparse, sparse, head, "refs/heads/main"},
	} {
		r, err := gitrepo.Open(c.at)
		assert.NilError(t, err, name)
		assert.Equal(t, r.Root(), c.root, name)
		h, err := r.Resolve("HEAD")
		assert.NilError(t, err, name)
		assert.Equal(t, h.String(), c.head, name)
		branch, err := r.HeadBranch()
		assert.NilError(t, err, name)
		assert.Equal(t, branch, c.branch, name)
		tr, err := r.TreeAt(h)
		assert.NilError(t, err, name)
		b, err := tr.Blob("ops/ledger/checkpoint")
		assert.NilError(t, err, name)
		assert.Equal(t, string(b), "size 3\n", name)
	}
	nowhere := t.TempDir()
	_, err = gitrepo.Open(nowhere)
	assert.ErrorIs(t, err, gitrepo.ErrNoGit)
	assert.Error(t, err, "no git repository at "+nowhere+" or above it; hint: git init")
	_, err = gitrepo.Open(filepath.Join(nowhere, "absent"))
	assert.ErrorIs(t, err, fs.ErrNotExist)
	r := open(t, dir)
	url, err := r.RemoteURL("origin")
	assert.NilError(t, err)
	assert.Equal(t, url, srv.URL())
	_, err = r.RemoteURL("upstream")
	assert.ErrorContains(t, err, `has no remote "upstream"; hint: git remote add upstream URL`)
}

func TestRevisionsResolveToCommits(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	srv.In(dir, "tag", "-a", "v1", "-m", "annotated", "HEAD~1")
	srv.In(dir, "tag", "light")
	// A branch whose name is another commit's hash must not stand in for it.
	first := srv.In(dir, "rev-list", "--max-parents=0", "HEAD")
	srv.In(dir, "update-ref", "refs/heads/"+first, "HEAD")
	r := open(t, dir)
	for _, rev := range []string{"HEAD", "@", "HEAD~2", "HEAD~", "HEAD^^", "HEAD^1~1^0", "HEAD~0", "v1^{commit}", "v1^{}~1", first[:8], first[:11], "origin", "tags/v1", "main", "refs/heads/main", "origin/main", "v1", "light", first} {
		h, err := r.Resolve(rev)
		assert.NilError(t, err, rev)
		want := first
		if rev != first { // which git takes for the commit as well
			want = srv.In(dir, "rev-parse", rev+"^{commit}")
		}
		assert.Equal(t, h.String(), want, rev)
	}
	tag, err := r.Commit(hash(t, srv.In(dir, "rev-parse", "v1")))
	assert.NilError(t, err)
	assert.Equal(t, tag.Message, "commit 2\n")
	for _, rev := range []string{"absent", "HEAD~9", "HEAD^2", "HEAD^{tree}", "HEAD~x", "HEAD:README.md", "../HEAD", "config", "-1", first[:5], "", strings.Repeat("0", 40), strings.Repeat("1", 40)} {
		_, err := r.Resolve(rev)
		assert.Assert(t, err != nil, rev)
	}
	srv.In(dir, "update-ref", "MERGE_HEAD", first)
	merging, err := r.Resolve("MERGE_HEAD")
	assert.NilError(t, err)
	assert.Equal(t, merging.String(), first)
	srv.In(dir, "checkout", "--quiet", "--detach")
	_, err = open(t, dir).HeadBranch()
	assert.ErrorContains(t, err, "is detached at")
}

func TestWalkNamesEveryKindOfEntryInGitsOrder(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	head := srv.In(dir, "rev-parse", "HEAD")
	assert.NilError(t, os.Symlink("../README.md", filepath.Join(dir, "ops/link")))
	write(t, dir, "ops/run.sh", "#!/bin/sh\n")
	assert.NilError(t, os.Chmod(filepath.Join(dir, "ops/run.sh"), 0o755))
	write(t, dir, "ops.txt", "x")
	write(t, dir, "ops0", "x")
	srv.In(dir, "add", "-A")
	srv.In(dir, "update-index", "--add", "--cacheinfo", "160000,"+head+",ops/sub")
	srv.In(dir, "commit", "--quiet", "-m", "all kinds")
	r := open(t, dir)
	h, err := r.Resolve("HEAD")
	assert.NilError(t, err)
	tree, err := r.TreeAt(h)
	assert.NilError(t, err)
	assert.Equal(t, tree.Hash().String(), srv.In(dir, "rev-parse", "HEAD^{tree}"))

	object := func(p string) gitrepo.Hash { return hash(t, srv.In(dir, "rev-parse", "HEAD:"+p)) }
	walk := func(prefix string) (out []gitrepo.Entry) {
		assert.NilError(t, tree.Walk(prefix, func(e gitrepo.Entry) error { out = append(out, e); return nil }))
		return out
	}
	ops := []gitrepo.Entry{
		{Path: "ops/ledger/checkpoint", Mode: gitrepo.Regular, Hash: object("ops/ledger/checkpoint")},
		{Path: "ops/link", Mode: gitrepo.Symlink, Hash: object("ops/link")},
		{Path: "ops/run.sh", Mode: gitrepo.Executable, Hash: object("ops/run.sh")},
		{Path: "ops/sub", Mode: gitrepo.Submodule, Hash: hash(t, head)},
	}
	assert.DeepEqual(t, walk("ops"), ops)
	assert.DeepEqual(t, walk("ops/link"), ops[1:2])
	assert.Equal(t, len(walk("absent")), 0)
	var paths []string
	for _, e := range walk("") {
		paths = append(paths, e.Path)
	}
	assert.Equal(t, strings.Join(paths, "\n"), srv.In(dir, "ls-tree", "-r", "--name-only", "HEAD"))
	n := 0
	assert.NilError(t, tree.Walk("", func(gitrepo.Entry) error { n++; return fs.SkipAll }))
	assert.Equal(t, n, 1)

	for _, c := range []struct{ path, want string }{
		{"ops/link", "ops/link is a symlink, want a regular file"},
		{"ops/sub", "ops/sub is a submodule, want a regular file"},
		{"ops", "ops is a directory, want a regular file"},
	} {
		_, err := tree.Blob(c.path)
		assert.Error(t, err, c.want)
	}
	for _, p := range []string{"absent", "ops/absent", "ops/link/x", "README.md/x", "ops/sub/x"} {
		_, err := tree.Blob(p)
		assert.ErrorIs(t, err, fs.ErrNotExist)
		_, ok, err := tree.BlobHash(p)
		assert.NilError(t, err)
		assert.Assert(t, !ok)
	}
	for _, p := range []string{"../x", "/README.md", "ops//link", "."} {
		_, err := tree.Blob(p)
		assert.ErrorIs(t, err, fs.ErrInvalid)
	}
	got, ok, err := tree.BlobHash("README.md")
	assert.NilError(t, err)
	assert.Assert(t, ok)
	assert.Equal(t, got, object("README.md"))
	_, _, err = tree.BlobHash("ops")
	assert.Error(t, err, "ops is a directory, want a file")
}

func TestAMissingObjectIsNeverAnAbsentFile(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	unpack(t, srv, dir)
	for _, rev := range []string{"HEAD:README.md", "HEAD:ops", "HEAD^{tree}", "HEAD~1"} {
		h := srv.In(dir, "rev-parse", rev)
		at, away := filepath.Join(dir, ".git/objects", h[:2], h[2:]), filepath.Join(t.TempDir(), h)
		assert.NilError(t, os.Rename(at, away))
		r := open(t, dir)
		err := func() error {
			h, err := r.Resolve("HEAD")
			if err != nil {
				return err
			}
			for _, err := range r.FirstParents(h) {
				if err != nil {
					return err
				}
			}
			tr, err := r.TreeAt(h)
			if err != nil {
				return err
			}
			if _, err := tr.Blob("ops/ledger/checkpoint"); err != nil {
				return err
			}
			_, err = tr.Blob("README.md")
			return err
		}()
		assert.ErrorIs(t, err, gitrepo.ErrMissingObject, rev)
		assert.Assert(t, !strings.Contains(err.Error(), "not exist"))
		assert.NilError(t, os.Rename(away, at))
	}
}

func TestAnObjectWhoseBytesChangedIsCorrupt(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	unpack(t, srv, dir)
	// Another valid blob under the name of the checkpoint.
	name := srv.In(dir, "rev-parse", "HEAD:ops/ledger/checkpoint")
	other := srv.In(dir, "rev-parse", "HEAD:README.md")
	at := func(h string) string { return filepath.Join(dir, ".git/objects", h[:2], h[2:]) }
	b, err := os.ReadFile(at(other))
	assert.NilError(t, err)
	assert.NilError(t, os.Remove(at(name)))
	assert.NilError(t, os.WriteFile(at(name), b, 0o444))
	r := open(t, dir)
	h, err := r.Resolve("HEAD")
	assert.NilError(t, err)
	tree, err := r.TreeAt(h)
	assert.NilError(t, err)
	_, err = tree.Blob("ops/ledger/checkpoint")
	assert.ErrorIs(t, err, gitrepo.ErrCorruptObject)
	assert.ErrorContains(t, err, "its bytes hash to "+other)
	assert.NilError(t, os.Chmod(at(name), 0o644))
	assert.NilError(t, os.WriteFile(at(name), []byte("rubbish"), 0o644))
	_, err = tree.Blob("ops/ledger/checkpoint")
	assert.Assert(t, err != nil)
	assert.Assert(t, !strings.Contains(err.Error(), "not exist"))
}

func TestFirstParentsStopAtAShallowBoundaryWithAnError(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	srv.In(dir, "checkout", "--quiet", "-b", "side", "HEAD~1")
	commit(srv, dir, "side")
	srv.In(dir, "checkout", "--quiet", "main")
	srv.In(dir, "-c", "user.name=x", "-c", "user.email=x@y", "merge", "--quiet", "--no-ff", "-m", "merge", "side")
	srv.In(dir, "push", "--quiet", "origin", "main")
	list := func(r *gitrepo.Repo) (out []string, last error) {
		h, err := r.Resolve("HEAD")
		assert.NilError(t, err)
		for c, err := range r.FirstParents(h) {
			if last = err; err == nil {
				out = append(out, c.Hash.String())
			}
		}
		return out, last
	}
	full, err := list(open(t, dir))
	assert.NilError(t, err)
	assert.DeepEqual(t, full, strings.Fields(srv.In(dir, "rev-list", "--first-parent", "HEAD")))

	shallow := open(t, srv.Clone(t, "--depth=2"))
	some, err := list(shallow)
	assert.ErrorIs(t, err, gitrepo.ErrShallow)
	assert.DeepEqual(t, some, full[:2])

	r := open(t, dir)
	tip, root := hash(t, full[0]), hash(t, full[len(full)-1])
	for _, c := range []struct {
		r    *gitrepo.Repo
		a, b gitrepo.Hash
		want bool
		err  error
	}{
		{r, root, tip, true, nil},
		{r, tip, tip, true, nil},
		{r, tip, root, false, nil},
		{r, hash(t, srv.In(dir, "rev-parse", "side")), tip, true, nil},
		{shallow, hash(t, full[1]), tip, true, nil},
		{shallow, root, tip, false, gitrepo.ErrShallow},
	} {
		got, err := c.r.IsAncestor(c.a, c.b)
		assert.ErrorIs(t, err, c.err)
		assert.Equal(t, got, c.want)
	}
}

func TestARepackUnderneathIsSurvived(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	r := open(t, dir)
	h, err := r.Resolve("HEAD")
	assert.NilError(t, err)
	write(t, dir, "new", "x")
	commit(srv, dir, "new")
	srv.In(dir, "repack", "-adq")
	srv.In(dir, "prune-packed")
	next, err := r.Resolve("HEAD")
	assert.NilError(t, err)
	assert.Assert(t, next != h)
	for _, at := range []gitrepo.Hash{h, next} {
		tree, err := r.TreeAt(at)
		assert.NilError(t, err)
		_, err = tree.Blob("README.md")
		assert.NilError(t, err)
	}
}
