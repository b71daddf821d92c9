package gitrepo

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"
)

// Repo is a repository on disk. It is only ever read, but for [Repo.WriteTag].
type Repo struct {
	*Objects
	root   string
	gitDir string // of this work tree
	store  *filesystem.Storage
	cfg    *config.Config
}

// Open finds the repository that dir belongs to: dir or one of its parents
// holds .git (a directory, or the file of a linked worktree), or dir itself is
// a bare repository. Without one the error is an ErrNoGit, for a format it
// cannot read an ErrObjectFormat. Who owns the directory does not matter:
// nothing in it is executed.
func Open(dir string) (*Repo, error) {
	root, gitDir, err := discover(dir)
	if err != nil {
		return nil, err
	}
	common := gitDir
	if b, err := os.ReadFile(filepath.Join(gitDir, "commondir")); err == nil {
		common = resolvePath(gitDir, strings.TrimSpace(string(b)))
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("git repository %s: %w", root, err)
	}
	files := dotgit.NewRepositoryFilesystem(osfs.New(gitDir), osfs.New(common))
	r := &Repo{
		root:   root,
		gitDir: gitDir,
		store:  filesystem.NewStorage(files, cache.NewObjectLRUDefault()),
	}
	if r.cfg, err = r.store.Config(); err != nil {
		return nil, fmt.Errorf("git repository %s: configuration: %w", root, err)
	}
	if err := checkFormat(r.cfg); err != nil {
		return nil, fmt.Errorf("git repository %s: %w", root, err)
	}
	cut, err := r.store.Shallow()
	if err != nil {
		return nil, fmt.Errorf("git repository %s: shallow: %w", root, err)
	}
	r.Objects = &Objects{onDisk: true, layers: []layer{r.store}, shallow: make(map[Hash]bool)}
	for _, h := range cut {
		r.shallow[Hash(h)] = true
	}
	// go-git resolves alternates only for some calls and not beyond its root;
	// here each is a layer of its own.
	alternates, err := findAlternates(filepath.Join(common, "objects"), nil)
	if err != nil {
		return nil, fmt.Errorf("git repository %s: alternates: %w", root, err)
	}
	for _, a := range alternates {
		r.layers = append(r.layers, filesystem.NewObjectStorage(dotgit.New(osfs.New(filepath.Dir(a))), cache.NewObjectLRUDefault()))
	}
	return r, nil
}

func discover(dir string) (root, gitDir string, err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", "", err
	}
	if _, err := os.Stat(abs); err != nil {
		return "", "", err
	}
	for d := abs; ; d = filepath.Dir(d) {
		dot := filepath.Join(d, ".git")
		if st, err := os.Stat(dot); err == nil && st.IsDir() {
			return d, dot, nil
		} else if err == nil {
			b, err := os.ReadFile(dot)
			if err != nil {
				return "", "", err
			}
			line, _, _ := strings.Cut(string(b), "\n")
			target, ok := strings.CutPrefix(line, "gitdir: ")
			if !ok {
				return "", "", fmt.Errorf("%s: found a file without a gitdir line, want a git repository: %w", dot, ErrNoGit)
			}
			return d, resolvePath(d, strings.TrimSpace(target)), nil
		}
		if isGitDir(d) {
			return d, d, nil
		}
		if filepath.Dir(d) == d {
			return "", "", fmt.Errorf("%w at %s or above it; hint: git init", ErrNoGit, dir)
		}
	}
}

func isGitDir(d string) bool {
	for _, name := range []string{"HEAD", "objects", "refs"} {
		if _, err := os.Stat(filepath.Join(d, name)); err != nil {
			return false
		}
	}
	return true
}

func resolvePath(base, p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(base, p)
}

// checkFormat refuses what go-git would read wrongly. It does not use go-git's
// own check, which also refuses sparse and partial clones.
func checkFormat(cfg *config.Config) error {
	if v := string(cfg.Core.RepositoryFormatVersion); v != "" && v != "0" && v != "1" {
		return fmt.Errorf("repository format version is %s: %w", v, ErrObjectFormat)
	}
	if !cfg.Raw.HasSection("extensions") {
		return nil
	}
	for _, opt := range cfg.Raw.Section("extensions").Options {
		key, value := strings.ToLower(opt.Key), strings.ToLower(opt.Value)
		switch {
		case key == "objectformat" && value == "sha1", key == "refstorage" && value == "files":
		case key == "noop", key == "noop-v1", key == "partialclone", key == "preciousobjects",
			key == "worktreeconfig", key == "relativeworktrees":
		default:
			return fmt.Errorf("extension %s is %q: %w", opt.Key, opt.Value, ErrObjectFormat)
		}
	}
	return nil
}

func findAlternates(objects string, found []string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(objects, "info", "alternates"))
	if errors.Is(err, os.ErrNotExist) {
		return found, nil
	}
	if err != nil {
		return nil, err
	}
next:
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		dir := resolvePath(objects, line)
		if filepath.Base(dir) != "objects" {
			return nil, fmt.Errorf("found %q, want a directory named objects", line)
		}
		for _, have := range found {
			if have == dir {
				continue next
			}
		}
		if len(found) == 16 {
			return nil, errors.New("more than 16")
		}
		if found, err = findAlternates(dir, append(found, dir)); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Root returns the directory of the work tree, or of the bare repository.
func (r *Repo) Root() string { return r.root }

// Resolve turns a revision into the commit it names: HEAD, a branch, tag or
// remote branch (looked up in git's order), refs/…, an object name of at least
// seven digits, each followed by any of ~N, ^N, ^{commit} and ^{}. Forty digits
// are never looked up as the name of a branch.
func (r *Repo) Resolve(rev string) (Hash, error) {
	base, path := rev, ""
	if i := strings.IndexAny(rev, "~^"); i >= 0 {
		base, path = rev[:i], rev[i:]
	}
	h, err := r.resolveBase(base)
	if err != nil {
		return Hash{}, fmt.Errorf("revision %q in %s: %w", rev, r.root, err)
	}
	c, err := r.Commit(h) // peels an annotated tag
	for err == nil && path != "" {
		c, path, err = r.step(c, path)
	}
	if err != nil {
		return Hash{}, fmt.Errorf("revision %q in %s: %w", rev, r.root, err)
	}
	return c.Hash, nil
}

func (r *Repo) resolveBase(name string) (Hash, error) {
	if h, err := ParseHash(name); err == nil || errors.Is(err, ErrObjectFormat) {
		return h, err
	}
	var candidates []string
	switch {
	case name == "@":
		candidates = []string{"HEAD"}
	case name == "HEAD", name == "FETCH_HEAD", name == "ORIG_HEAD", name == "MERGE_HEAD", strings.HasPrefix(name, "refs/"):
		candidates = []string{name}
	case name != "":
		for _, form := range []string{"refs/%s", "refs/tags/%s", "refs/heads/%s", "refs/remotes/%s", "refs/remotes/%s/HEAD"} {
			candidates = append(candidates, fmt.Sprintf(form, name))
		}
	}
	for _, full := range candidates {
		// go-git takes MERGE_HEAD and its like for invalid names.
		if strings.Contains(full, "/") && plumbing.ReferenceName(full).Validate() != nil {
			continue
		}
		ref, err := storer.ResolveReference(r.store, plumbing.ReferenceName(full))
		if err == nil {
			return Hash(ref.Hash()), nil
		}
		if !errors.Is(err, plumbing.ErrReferenceNotFound) {
			return Hash{}, err
		}
	}
	if len(name) >= 7 && len(name) < 40 && strings.Trim(name, "0123456789abcdef") == "" {
		return r.expand(name)
	}
	return Hash{}, errors.New("no such commit, branch or tag")
}

// expand finds the one object whose name starts with the digits.
func (r *Repo) expand(digits string) (Hash, error) {
	prefix, err := hex.DecodeString(digits[:len(digits)&^1])
	if err != nil {
		return Hash{}, err
	}
	found := make(map[Hash]bool)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.layers {
		all, err := l.(interface {
			HashesWithPrefix([]byte) ([]plumbing.Hash, error)
		}).HashesWithPrefix(prefix)
		if err != nil {
			return Hash{}, err
		}
		for _, h := range all {
			if strings.HasPrefix(h.String(), digits) {
				found[Hash(h)] = true
			}
		}
	}
	if len(found) != 1 {
		return Hash{}, fmt.Errorf("%d objects start with these digits, want one", len(found))
	}
	for h := range found {
		return h, nil
	}
	panic("unreachable")
}

// step follows one ~N, ^N or ^{…} and returns what is left of the path.
func (r *Repo) step(c Commit, path string) (Commit, string, error) {
	for _, peel := range []string{"^{commit}", "^{}"} {
		if rest, ok := strings.CutPrefix(path, peel); ok {
			return c, rest, nil // it is a commit already
		}
	}
	op, rest := path[0], path[1:]
	digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	rest = rest[len(digits):]
	n := 1
	if digits != "" {
		var err error
		if n, err = strconv.Atoi(digits); err != nil {
			return Commit{}, "", err
		}
	}
	if rest != "" && rest[0] != '~' && rest[0] != '^' {
		return Commit{}, "", fmt.Errorf("found %q, want ~N, ^N or ^{commit}", path)
	}
	parents := 1 // ^N: the Nth parent, once
	if op == '~' {
		parents, n = n, 1
	}
	for ; parents > 0 && n > 0; parents-- {
		if c.Shallow {
			return Commit{}, "", fmt.Errorf("parent of %s: %w", c.Hash, ErrShallow)
		}
		if n > len(c.Parents) {
			return Commit{}, "", fmt.Errorf("commit %s has %d parents, want %d", c.Hash, len(c.Parents), n)
		}
		var err error
		if c, err = r.Commit(c.Parents[n-1]); err != nil {
			return Commit{}, "", err
		}
	}
	return c, rest, nil
}

// HeadBranch returns the full name of the branch HEAD is on, also when it has
// no commit yet. A detached HEAD, as CI checks out, is an error.
func (r *Repo) HeadBranch() (string, error) {
	ref, err := r.store.Reference(plumbing.HEAD)
	if err != nil {
		return "", fmt.Errorf("HEAD of %s: %w", r.root, err)
	}
	if ref.Type() != plumbing.SymbolicReference {
		return "", fmt.Errorf("HEAD of %s is detached at %s, want a branch; hint: name the branch", r.root, ref.Hash())
	}
	return ref.Target().String(), nil
}

// RemoteURL returns the first URL of a remote in this repository's own
// configuration, as written: it may hold credentials, so hand it to Dial and
// do not print it.
func (r *Repo) RemoteURL(name string) (string, error) {
	rc, ok := r.cfg.Remotes[name]
	if !ok || len(rc.URLs) == 0 {
		return "", fmt.Errorf("git repository %s has no remote %q; hint: git remote add %s URL", r.root, name, name)
	}
	return rc.URLs[0], nil
}

// tips returns every reference, as starting points to tell a server what we
// have.
func (r *Repo) tips() ([]Hash, error) {
	it, err := r.store.IterReferences()
	if err != nil {
		return nil, err
	}
	var out []Hash
	err = it.ForEach(func(ref *plumbing.Reference) error {
		if ref.Type() == plumbing.HashReference {
			out = append(out, Hash(ref.Hash()))
		}
		return nil
	})
	return out, err
}
