package publish

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
)

// files is a tree that is a map: what the others are held to.
type files map[string]string

func (f files) Blob(p string) ([]byte, error) {
	content, ok := f[p]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(content), nil
}

func (f files) Walk(folder string, fn func(string, fs.FileMode, string) error) error {
	for _, p := range slices.Sorted(maps.Keys(f)) {
		if folder == "" || p == folder || strings.HasPrefix(p, folder+"/") {
			if err := fn(p, 0o644, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// look lists what a tree shows below a folder and reads all of it.
func look(t covenant.Tree, folder string) (map[string]string, error) {
	got := map[string]string{}
	err := t.Walk(folder, func(p string, mode fs.FileMode, _ string) error {
		if _, twice := got[p]; twice || !mode.IsRegular() {
			return fmt.Errorf("%s: mode %s, twice %v", p, mode, twice)
		}
		data, err := t.Blob(p)
		got[p] = string(data)
		return err
	})
	return got, err
}

func TestEveryTreeShowsTheSameFiles(t *testing.T) {
	l := covenant.DefaultLayout()
	names := []string{
		"README", "docs/REMEMBRANCER.md", "docs/other.md", "opsx/a", "ops/ledger/checkpoint", "ops/ledger/edge", "ops/ledger/policy",
		"ops/ledger/log/00/00/00.jsonl", "ops/ledger/log/00/00/01.jsonl", "ops/ledger/logs", "ops/ledgers/x", "ops/status/badge.json",
		"ops/receipts/deploy/a.receipt", "ops/certs/A.asc", "00/00/00.jsonl", "00/01/00.jsonl", "notes",
	}
	folders := append([]string{"", "ops", "ops/ledger", "ops/ledger/log", "ops/ledger/log/00", "ops/status", "docs", "nowhere", "op"}, names...)
	bare := t.TempDir()
	remote := newBareRemote(t, bare)
	rapid.Check(t, func(rt *rapid.T) {
		draw := func(label string) files {
			f := files{}
			for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, len(names), rapid.ID[string]).Draw(rt, label) {
				f[name] = rapid.SampledFrom([]string{"", "a", "b\n"}).Draw(rt, label+" "+name)
			}
			return f
		}
		same := func(what string, got covenant.Tree, want files) {
			for _, folder := range folders {
				g, err := look(got, folder)
				if err != nil {
					rt.Fatalf("%s %q: %v", what, folder, err)
				}
				w, _ := look(want, folder)
				if !maps.Equal(g, w) {
					rt.Fatalf("%s below %q: %v, want %v", what, folder, g, w)
				}
			}
			for _, name := range names {
				data, err := got.Blob(name)
				if content, there := want[name]; there && (err != nil || string(data) != content) || !there && !errors.Is(err, fs.ErrNotExist) {
					rt.Fatalf("%s: %s is %q, %v; want %q, %v", what, name, data, err, content, there)
				}
			}
		}
		base, over := draw("base"), draw("over")
		commit := func(f files) covenant.Tree {
			write := map[string][]byte{}
			for p, content := range f {
				write[p] = []byte(content)
			}
			h, err := remote.Build(gitrepo.Hash{}, gitrepo.Change{Base: gitrepo.EmptyTree, Write: write},
				gitrepo.CommitOptions{Message: "x", AuthorName: "x", AuthorEmail: "x", When: noon})
			if err != nil {
				rt.Fatal(err)
			}
			tree, err := remote.TreeAt(h)
			if err != nil {
				rt.Fatal(err)
			}
			return Tree(tree)
		}
		onDisk := func(f files) covenant.Tree {
			root, err := os.MkdirTemp(bare, "work")
			if err != nil {
				rt.Fatal(err)
			}
			for p, content := range f {
				name := filepath.Join(root, filepath.FromSlash(p))
				if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
					rt.Fatal(err)
				}
			}
			return WorkTree(root)
		}
		same("commit", commit(base), base)
		same("work tree", onDisk(base), base)

		laid := files{}
		for p, content := range base {
			owned := strings.HasPrefix(p, "ops/ledger/") && p != "ops/ledger/policy" || strings.HasPrefix(p, "ops/status/") || p == l.Docs
			if !owned {
				laid[p] = content
			}
		}
		claimed := maps.Clone(base)
		maps.DeleteFunc(claimed, func(p, _ string) bool { return strings.HasPrefix(p, "ops/ledger/log/") })
		for p, content := range over {
			if strings.HasPrefix(p, "ops/ledger/") && p != "ops/ledger/policy" || strings.HasPrefix(p, "ops/status/") || p == l.Docs {
				laid[p] = content
			}
			claimed[path.Join("ops/ledger/log", p)] = content
		}
		same("with a ledger branch", WithLedger(commit(base), commit(over), l), laid)
		same("with a claim", withClaim(commit(base), commit(over), l), claimed)
		both := maps.Clone(laid)
		maps.DeleteFunc(both, func(p, _ string) bool { return strings.HasPrefix(p, "ops/ledger/log/") })
		for p, content := range base {
			both[path.Join("ops/ledger/log", p)] = content
		}
		same("with a claim over a ledger branch", withClaim(WithLedger(base, over, l), base, l), both)
	})
}

func newBareRemote(t *testing.T, dir string) *gitrepo.Remote {
	t.Helper()
	remote, err := gitrepo.Dial(t.Context(), gitrepo.Options{URL: dir})
	assert.NilError(t, err)
	return remote
}

func TestOnlyRegularFilesAreRead(t *testing.T) {
	w := newWorld(t)
	w.edit(mainRef, map[string]string{"link": symlink + "README", "ops/certs": gone})
	p := w.publisher()
	tips, err := p.Remote.Fetch(t.Context(), mainRef)
	assert.NilError(t, err)
	tree, err := p.tree(tips[mainRef])
	assert.NilError(t, err)
	_, err = tree.Blob("link")
	assert.ErrorContains(t, err, "link is a symlink, want a regular file")
	modes := map[string]fs.FileMode{}
	assert.NilError(t, tree.Walk("", func(p string, m fs.FileMode, id string) error {
		assert.Equal(t, id, w.Git("rev-parse", "main:"+p))
		modes[p] = m
		return nil
	}))
	assert.Equal(t, modes["link"], fs.ModeSymlink)
	assert.Equal(t, modes["README"], fs.FileMode(0o644))

	root := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(root, "file"), []byte("x"), 0o644))
	assert.NilError(t, os.Symlink("/etc/hostname", filepath.Join(root, "link")))
	assert.NilError(t, os.Mkdir(filepath.Join(root, ".git"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(root, ".git", "config"), []byte("x"), 0o644))
	seen := map[string]bool{}
	assert.NilError(t, WorkTree(root).Walk("", func(p string, m fs.FileMode, _ string) error { seen[p] = m.IsRegular(); return nil }))
	assert.DeepEqual(t, seen, map[string]bool{"file": true, "link": false})
	_, err = WorkTree(root).Blob("link")
	assert.Assert(t, err != nil, "a link out of the work tree was followed")
	_, err = WorkTree(root).Blob("../" + filepath.Base(root) + "/file")
	assert.Assert(t, err != nil)
}
