package gitrepo_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
)

func TestWhatIsStagedIsTheTreeThatGitWouldCommit(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	write(t, dir, "README.md", "staged\n")
	write(t, dir, "a/b/c.txt", "deep\n")
	write(t, dir, "a.txt", "sorts before a/\n")
	write(t, dir, "run.sh", "#!/bin/sh\n")
	write(t, dir, strings.Repeat("long/", 40)+"name", "x")
	assert.NilError(t, os.Chmod(filepath.Join(dir, "run.sh"), 0o755))
	assert.NilError(t, os.Symlink("a.txt", filepath.Join(dir, "link")))
	srv.In(dir, "add", "-A")
	srv.In(dir, "update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("1", 40)+",module")
	want := srv.In(dir, "write-tree")
	write(t, dir, "README.md", "not staged\n")
	write(t, dir, "announced", "x")
	srv.In(dir, "add", "-N", "announced")
	before := snapshot(t, dir)
	for _, version := range []string{"2", "3", "4"} {
		srv.In(dir, "update-index", "--index-version", version)
		if version == "2" {
			before = snapshot(t, dir)
		}
		tree, err := open(t, dir).Staged("")
		assert.NilError(t, err, version)
		assert.Equal(t, tree.Hash().String(), want, version)
		b, err := tree.Blob("README.md")
		assert.NilError(t, err)
		assert.Equal(t, string(b), "staged\n")
		var modes []string
		assert.NilError(t, tree.Walk("", func(e gitrepo.Entry) error {
			modes = append(modes, e.Path+" "+e.Mode.String())
			return nil
		}))
		assert.Equal(t, len(modes), 8, "%q", modes)
		if version == "2" {
			assert.Equal(t, snapshot(t, dir), before, "reading writes nothing")
		}
	}

	// Another index, a linked work tree's, and none at all.
	other := filepath.Join(t.TempDir(), "index")
	data, err := os.ReadFile(filepath.Join(dir, ".git", "index"))
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(other, data, 0o644))
	srv.In(dir, "reset", "--quiet", "--hard")
	tree, err := open(t, dir).Staged(other)
	assert.NilError(t, err)
	assert.Equal(t, tree.Hash().String(), want)
	linked := filepath.Join(t.TempDir(), "linked")
	srv.In(dir, "worktree", "add", "--quiet", linked)
	write(t, linked, "only-here", "x")
	srv.In(linked, "add", "-A")
	tree, err = open(t, linked).Staged("")
	assert.NilError(t, err)
	assert.Equal(t, tree.Hash().String(), srv.In(linked, "write-tree"))
	tree, err = open(t, dir).Staged(filepath.Join(t.TempDir(), "none"))
	assert.NilError(t, err)
	assert.Equal(t, tree.Hash(), gitrepo.EmptyTree)
}

func TestAnIndexThatIsNoTreeIsRefused(t *testing.T) {
	t.Parallel()
	srv, dir := seeded(t)
	index := filepath.Join(dir, ".git", "index")
	whole, err := os.ReadFile(index)
	assert.NilError(t, err)
	refused := func(want string) {
		t.Helper()
		_, err := open(t, dir).Staged("")
		assert.ErrorContains(t, err, want)
	}
	for i := range 3 { // a bit in the header, in an entry, in the checksum
		bad := bytes.Clone(whole)
		bad[[]int{3, len(bad) / 2, len(bad) - 1}[i]] ^= 1
		assert.NilError(t, os.WriteFile(index, bad, 0o644))
		refused("index " + index + ": ")
	}
	assert.NilError(t, os.WriteFile(index, whole[:len(whole)-30], 0o644))
	refused("index " + index + ": ")
	assert.NilError(t, os.WriteFile(index, whole, 0o644))

	srv.In(dir, "update-index", "--split-index")
	refused("is split or sparse, want a whole one; hint: git update-index --no-split-index")
	srv.In(dir, "update-index", "--no-split-index")

	srv.In(dir, "checkout", "--quiet", "-b", "other", "HEAD~1")
	write(t, dir, "README.md", "other\n")
	commit(srv, dir, "other")
	merge := exec.Command("git", "merge", "main")
	merge.Dir, merge.Env = dir, srv.Env()
	out, err := merge.CombinedOutput()
	assert.ErrorContains(t, err, "exit status 1", "%s", out)
	refused("README.md is in conflict; hint: git add it when it is resolved")
}
