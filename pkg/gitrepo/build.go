package gitrepo

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
)

// Change is what a commit does to its base tree. Grafts are placed first,
// then the writes, so a write may change a file inside a grafted directory.
type Change struct {
	// Base is the commit or tree to start from: zero is the parent's tree (or
	// the empty tree of a commit without a parent), EmptyTree nothing.
	Base Hash
	// Graft puts an existing tree or blob at a path, without reading it and
	// in place of whatever was there. It must be reachable from a fetched
	// tip or built by this Remote, or the server will refuse the push.
	Graft map[string]Hash
	// Write gives the new content of files; nil deletes the file if it is
	// there, an empty non-nil slice is an empty file. New files are regular,
	// existing ones keep their mode. Writing over a directory, a symlink or a
	// submodule, or through one, is an error.
	Write map[string][]byte
}

// CommitOptions is the rest of a commit. Message, name, e-mail and time are
// required.
type CommitOptions struct {
	Message                 string // a final newline is added when missing
	AuthorName, AuthorEmail string
	When                    time.Time // written in UTC, to the second
	// Signer returns an armored signature over the commit without it; nil
	// leaves the commit unsigned.
	Signer func(payload []byte) (armored string, err error)
}

// Build makes a commit in memory, with parent as its only parent (zero: none),
// and returns its name. The parent is built by this Remote or reachable from a
// fetched tip. The same input gives the same bytes.
func (m *Remote) Build(parent Hash, change Change, opts CommitOptions) (Hash, error) {
	h, err := m.build(parent, change, opts)
	if err != nil {
		return Hash{}, fmt.Errorf("build commit: %w", err)
	}
	return h, nil
}

func (m *Remote) build(parent Hash, change Change, opts CommitOptions) (Hash, error) {
	base := change.Base
	if !parent.IsZero() {
		if err := m.onServer(parent); err != nil {
			return Hash{}, err
		}
		if base.IsZero() {
			base = parent
		}
	}
	if base.IsZero() {
		base = EmptyTree
	}
	from, err := m.TreeAt(base)
	if err != nil {
		return Hash{}, err
	}
	root := &edit{}
	for name, h := range change.Graft {
		e, err := root.at(name)
		if err != nil {
			return Hash{}, err
		}
		e.graft = h
		if e.graftKind, _, err = m.read(h); err != nil {
			return Hash{}, fmt.Errorf("graft %s: %w", name, err)
		}
		if e.graftKind != plumbing.TreeObject && e.graftKind != plumbing.BlobObject {
			return Hash{}, fmt.Errorf("graft %s: object %s is a %s, want a tree or a blob", name, h, e.graftKind)
		}
	}
	for name, content := range change.Write {
		e, err := root.at(name)
		if err != nil {
			return Hash{}, err
		}
		e.file, e.content = true, content
	}
	tree, err := m.apply("", from.hash, root)
	if err != nil {
		return Hash{}, err
	}
	return m.writeCommit(tree, parent, opts)
}

// edit is one node of the paths a change touches.
type edit struct {
	sub       map[string]*edit
	graft     Hash
	graftKind plumbing.ObjectType
	file      bool
	content   []byte
}

func (e *edit) at(name string) (*edit, error) {
	if !fs.ValidPath(name) || name == "." || !utf8.ValidString(name) {
		return nil, fmt.Errorf("path %q: want a relative slash-separated path", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if err := checkName(part); err != nil {
			return nil, fmt.Errorf("path %q: %w", name, err)
		}
		if e.sub == nil {
			e.sub = make(map[string]*edit)
		}
		if e.sub[part] == nil {
			e.sub[part] = &edit{}
		}
		e = e.sub[part]
	}
	return e, nil
}

// apply rewrites the directory base (at path dir) and returns the new tree,
// EmptyTree when nothing is left in it.
func (m *Remote) apply(dir string, base Hash, e *edit) (Hash, error) {
	old, err := m.tree(base)
	if err != nil {
		return Hash{}, err
	}
	entries := make(map[string]treeEntry, len(old)+len(e.sub))
	for _, te := range old {
		entries[te.name] = te
	}
	for name, sub := range e.sub {
		at := dir + name
		if !sub.graft.IsZero() {
			te := treeEntry{"100644", name, sub.graft}
			if sub.graftKind == plumbing.TreeObject {
				te.rawMode = "40000"
			}
			entries[name] = te
		}
		cur, exists := entries[name]
		switch {
		case sub.file && len(sub.sub) > 0:
			return Hash{}, fmt.Errorf("%s: is written both as a file and as a directory", at)
		case sub.file && sub.content == nil && !exists:
		case sub.file:
			if exists && cur.mode() != Regular && cur.mode() != Executable {
				return Hash{}, fmt.Errorf("%s: is a %s, want a regular file or nothing", at, cur.mode())
			}
			if sub.content == nil {
				delete(entries, name)
				break
			}
			h, err := m.store(plumbing.BlobObject, sub.content)
			if err != nil {
				return Hash{}, err
			}
			if !exists {
				cur = treeEntry{rawMode: "100644", name: name}
			}
			cur.hash = h
			entries[name] = cur
		case len(sub.sub) > 0:
			below := EmptyTree
			if exists {
				if cur.mode() != Directory {
					return Hash{}, fmt.Errorf("%s: is a %s, want a directory or nothing", at, cur.mode())
				}
				below = cur.hash
			}
			h, err := m.apply(at+"/", below, sub)
			if err != nil {
				return Hash{}, err
			}
			entries[name] = treeEntry{"40000", name, h}
		}
		// Git has no empty directories; fsck accepts one, checkouts lose it.
		if entries[name].hash == EmptyTree {
			delete(entries, name)
		}
	}
	list := make([]treeEntry, 0, len(entries))
	for _, te := range entries {
		list = append(list, te)
	}
	return m.store(plumbing.TreeObject, encodeTree(list))
}

func (m *Remote) writeCommit(tree, parent Hash, opts CommitOptions) (Hash, error) {
	for what, s := range map[string]string{"author name": opts.AuthorName, "author e-mail": opts.AuthorEmail} {
		if strings.TrimSpace(s) == "" || strings.ContainsAny(s, "<>\n\x00") || !utf8.ValidString(s) {
			return Hash{}, fmt.Errorf("%s %q: want text without <, > and line breaks", what, s)
		}
	}
	if opts.When.Unix() <= 0 || opts.When.IsZero() {
		return Hash{}, fmt.Errorf("commit time %s: want a time after 1970", opts.When.UTC().Format(time.RFC3339))
	}
	if strings.TrimSpace(opts.Message) == "" || strings.Contains(opts.Message, "\x00") || !utf8.ValidString(opts.Message) {
		return Hash{}, errors.New("commit message: want UTF-8 text without NUL")
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "tree %s\n", tree)
	if !parent.IsZero() {
		fmt.Fprintf(&head, "parent %s\n", parent)
	}
	who := fmt.Sprintf("%s <%s> %d +0000", strings.TrimSpace(opts.AuthorName), strings.TrimSpace(opts.AuthorEmail), opts.When.Unix())
	fmt.Fprintf(&head, "author %s\ncommitter %s\n", who, who)
	body := "\n" + strings.TrimRight(opts.Message, "\n") + "\n"
	if opts.Signer != nil {
		sig, err := opts.Signer([]byte(head.String() + body))
		if err != nil {
			return Hash{}, fmt.Errorf("sign: %w", err)
		}
		sig = strings.TrimRight(strings.ReplaceAll(sig, "\r\n", "\n"), "\n")
		if sig == "" || strings.Contains(sig, "\x00") {
			return Hash{}, errors.New("sign: found an empty or binary signature, want an armored one")
		}
		// A header goes on over lines that start with a space.
		fmt.Fprintf(&head, "gpgsig %s\n", strings.ReplaceAll(sig, "\n", "\n "))
	}
	return m.store(plumbing.CommitObject, append(head.Bytes(), body...))
}

// store keeps an object in memory; Push sends what it finds there.
func (m *Remote) store(kind plumbing.ObjectType, data []byte) (Hash, error) {
	obj := &plumbing.MemoryObject{}
	obj.SetType(kind)
	if _, err := obj.Write(data); err != nil {
		return Hash{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h, err := m.built.SetEncodedObject(obj)
	return Hash(h), err
}

// onServer refuses a parent that only the seed has: the server would lack the
// history in between.
func (m *Remote) onServer(h Hash) error {
	if m.isBuilt(h) {
		return nil
	}
	for _, tip := range m.tips {
		if tip == h {
			return nil
		}
	}
	for _, tip := range m.tips {
		if ok, err := m.IsAncestor(h, tip); ok || err != nil && !errors.Is(err, ErrShallow) {
			return err
		}
	}
	return fmt.Errorf("parent %s is not in what was fetched from the server; hint: fetch its branch first", h)
}
