package gitrepo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/index"
	"github.com/go-git/go-git/v5/storage/memory"
)

// Staged returns the tree that a commit of an index would have. file is the
// index, "" the repository's own; one that is not there is empty. The tree's
// hash is git's, its directories exist in memory only, and nothing is written.
//
// An index with conflicts is refused, and so is one that is split or sparse,
// which only git itself can read whole.
func (r *Repo) Staged(file string) (*Tree, error) {
	if file == "" {
		file = filepath.Join(r.gitDir, "index")
	}
	idx := &index.Index{}
	f, err := os.Open(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		defer f.Close()
		err := index.NewDecoder(f).Decode(idx)
		if errors.Is(err, index.ErrUnknownExtension) {
			return nil, fmt.Errorf("index %s is split or sparse, want a whole one; hint: git update-index --no-split-index, git sparse-checkout reapply --no-sparse-index", file)
		}
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", file, err)
		}
	}
	root := &stagedDir{}
	for _, e := range idx.Entries {
		switch {
		case e.Stage != 0: // the library names 1 "merged", but that is the ancestor
			return nil, fmt.Errorf("index %s: %s is in conflict; hint: git add it when it is resolved", file, e.Name)
		case e.IntentToAdd: // announced by git add -N, and no part of a commit
		default:
			if err := root.add(e); err != nil {
				return nil, fmt.Errorf("index %s: %w", file, err)
			}
		}
	}
	built := memory.NewStorage()
	top, err := root.store(built)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", file, err)
	}
	return (&Objects{base: r.Objects, layers: []layer{built}}).TreeAt(top)
}

// stagedDir is a directory of an index, which names files only.
type stagedDir struct {
	files []treeEntry
	sub   map[string]*stagedDir
}

func (d *stagedDir) add(e *index.Entry) error {
	switch e.Mode {
	case filemode.Regular, filemode.Executable, filemode.Symlink, filemode.Submodule:
	default:
		return fmt.Errorf("%s has the mode %s", e.Name, e.Mode)
	}
	parts := strings.Split(e.Name, "/")
	if len(parts) > maxDepth {
		return fmt.Errorf("%s: more than %d directories deep", e.Name, maxDepth)
	}
	for _, part := range parts[:len(parts)-1] {
		if d.sub == nil {
			d.sub = map[string]*stagedDir{}
		}
		if d.sub[part] == nil {
			d.sub[part] = &stagedDir{}
		}
		d = d.sub[part]
	}
	d.files = append(d.files, treeEntry{strconv.FormatUint(uint64(e.Mode), 8), parts[len(parts)-1], Hash(e.Hash)})
	return nil
}

// store writes the directory's tree object. What reads it back holds its names
// to git's rules.
func (d *stagedDir) store(to *memory.Storage) (Hash, error) {
	entries := d.files
	for name, sub := range d.sub {
		h, err := sub.store(to)
		if err != nil {
			return Hash{}, err
		}
		entries = append(entries, treeEntry{"40000", name, h})
	}
	obj := &plumbing.MemoryObject{}
	obj.SetType(plumbing.TreeObject)
	if _, err := obj.Write(encodeTree(entries)); err != nil {
		return Hash{}, err
	}
	h, err := to.SetEncodedObject(obj)
	return Hash(h), err
}
