package publish

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
)

// Tree lets a commit's tree be judged. Paths are looked up in one listing, made
// at the first use.
func Tree(t *gitrepo.Tree) covenant.Tree {
	return &commitTree{t: t, listing: sync.OnceValues(func() (map[string]gitrepo.Entry, error) {
		m := map[string]gitrepo.Entry{}
		err := t.Walk("", func(e gitrepo.Entry) error {
			m[e.Path] = e
			return nil
		})
		return m, err
	})}
}

type commitTree struct {
	t       *gitrepo.Tree
	listing func() (map[string]gitrepo.Entry, error)
}

func (c *commitTree) Blob(p string) ([]byte, error) {
	m, err := c.listing()
	if err != nil {
		return nil, err
	}
	e, ok := m[p]
	switch {
	case !ok:
		return nil, &fs.PathError{Op: "read", Path: p, Err: fs.ErrNotExist}
	case !fileMode(e.Mode).IsRegular():
		return nil, fmt.Errorf("%s is a %s, want a regular file", p, e.Mode)
	}
	return c.t.Read(e.Hash)
}

func (c *commitTree) Walk(folder string, fn func(string, fs.FileMode, string) error) error {
	m, err := c.listing()
	if err != nil {
		return err
	}
	var paths []string
	for p := range m {
		if folder == "" || p == folder || strings.HasPrefix(p, folder+"/") {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	for _, p := range paths {
		if err := fn(p, fileMode(m[p].Mode), m[p].Hash.String()); err != nil {
			return err
		}
	}
	return nil
}

func fileMode(m gitrepo.Mode) fs.FileMode {
	switch m {
	case gitrepo.Regular:
		return 0o644
	case gitrepo.Executable:
		return 0o755
	case gitrepo.Symlink:
		return fs.ModeSymlink
	default:
		return fs.ModeIrregular
	}
}

// WithLedger lays the ledger, the index document and the status files of one
// tree over another: a repository whose ledger is on a branch of its own.
func WithLedger(source, ledgerBranch covenant.Tree, l covenant.Layout) covenant.Tree {
	return overlay{base: source, over: ledgerBranch, owns: func(p string) bool {
		name, ok := strings.CutPrefix(p, l.Ops+"/ledger/")
		return ok && name != ledger.PolicyPath || strings.HasPrefix(p, l.Ops+"/status/") || p == l.Docs
	}}
}

// withClaim lays a claim's log over a tree.
func withClaim(source, claim covenant.Tree, l covenant.Layout) covenant.Tree {
	log := l.Ledger("log")
	return overlay{base: source, over: moved{claim, log + "/"}, owns: func(p string) bool {
		return p == log || strings.HasPrefix(p, log+"/")
	}}
}

// overlay takes the paths that it owns from one tree, all others from another.
type overlay struct {
	base, over covenant.Tree
	owns       func(string) bool
}

func (o overlay) Blob(p string) ([]byte, error) {
	if o.owns(p) {
		return o.over.Blob(p)
	}
	return o.base.Blob(p)
}

func (o overlay) Walk(folder string, fn func(string, fs.FileMode, string) error) error {
	for _, layer := range []struct {
		t    covenant.Tree
		owns bool
	}{{o.base, false}, {o.over, true}} {
		if err := layer.t.Walk(folder, func(p string, m fs.FileMode, id string) error {
			if o.owns(p) != layer.owns {
				return nil
			}
			return fn(p, m, id)
		}); err != nil {
			return err
		}
	}
	return nil
}

// moved is a tree below a folder.
type moved struct {
	t      covenant.Tree
	prefix string // with its final slash
}

func (m moved) Blob(p string) ([]byte, error) {
	rel, ok := strings.CutPrefix(p, m.prefix)
	if !ok {
		return nil, &fs.PathError{Op: "read", Path: p, Err: fs.ErrNotExist}
	}
	return m.t.Blob(rel)
}

func (m moved) Walk(folder string, fn func(string, fs.FileMode, string) error) error {
	rel := strings.TrimPrefix(strings.TrimPrefix(folder+"/", m.prefix), "/")
	if !strings.HasPrefix(folder+"/", m.prefix) {
		rel = ""
	}
	return m.t.Walk(strings.TrimSuffix(rel, "/"), func(p string, mode fs.FileMode, id string) error {
		if p = m.prefix + p; folder != "" && p != folder && !strings.HasPrefix(p, folder+"/") {
			return nil
		}
		return fn(p, mode, id)
	})
}

// empty is the tree of a branch that does not exist yet.
type empty struct{}

func (empty) Blob(p string) ([]byte, error) {
	return nil, &fs.PathError{Op: "read", Path: p, Err: fs.ErrNotExist}
}
func (empty) Walk(string, func(string, fs.FileMode, string) error) error { return nil }

// WorkTree is a folder of files that were not committed yet. Only a repository
// without commits is judged by it, and the verdict says so.
func WorkTree(root string) covenant.Tree { return workTree{root} }

type workTree struct{ root string }

func (w workTree) Blob(p string) ([]byte, error) {
	r, err := os.OpenRoot(w.root)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.ReadFile(filepath.FromSlash(p))
}

func (w workTree) Walk(folder string, fn func(string, fs.FileMode, string) error) error {
	top := filepath.Join(w.root, filepath.FromSlash(folder))
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && d.Name() != ".git" {
			return err
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		rel, err := filepath.Rel(w.root, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return fn(filepath.ToSlash(rel), info.Mode(), "")
	})
	if os.IsNotExist(err) {
		return nil
	}
	return err
}
