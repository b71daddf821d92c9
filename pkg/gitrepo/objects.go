package gitrepo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

const (
	// maxObject bounds what one read may hold in memory. A sealed segment is
	// at most 16 MiB; anything near this limit is not a file of ours.
	maxObject = 64 << 20
	// maxDepth and maxEntries bound a walk: a few kilobytes of shared trees
	// can describe more paths than there are atoms.
	maxDepth   = 128
	maxEntries = 5_000_000
	// maxTreeCache is how many parsed trees are kept; a full cache is dropped.
	maxTreeCache = 4096
)

// layer is the part of a go-git object store that reading needs.
type layer interface {
	EncodedObject(plumbing.ObjectType, plumbing.Hash) (plumbing.EncodedObject, error)
	HasEncodedObject(plumbing.Hash) error
	EncodedObjectSize(plumbing.Hash) (int64, error)
}

// Objects reads commits, trees and blobs. [Repo] and [Remote] both are one, so
// code that judges a commit works on a local clone and on a fetched tip. It is
// safe for concurrent use.
type Objects struct {
	base   *Objects // asked last: the seed of a Remote
	onDisk bool     // other processes may repack underneath

	mu      sync.Mutex // guards all below; go-git's stores cache while reading
	layers  []layer
	shallow map[Hash]bool
	trees   map[Hash][]treeEntry
}

// Commit is what an audit needs of one commit.
type Commit struct {
	Hash      Hash
	Tree      Hash
	Parents   []Hash
	Author    Person
	Committer Person
	Message   string
	Signature string // the armored gpgsig header, or ""
	// Shallow says that Parents are named but cut off by a shallow clone.
	Shallow bool
}

// Person is an author or committer. A line git itself would call malformed
// gives a zero When.
type Person struct {
	Name, Email string
	When        time.Time
}

// Mode is the kind of a tree entry.
type Mode uint8

// The kinds of entries git knows. Deprecated covers every mode that git reads
// but no longer writes (100664, zero-padded ones).
const (
	_ Mode = iota
	Regular
	Executable
	Symlink
	Submodule
	Directory
	Deprecated
)

var modeNames = [...]string{"invalid", "regular file", "executable file", "symlink", "submodule", "directory", "file of a deprecated mode"}

// String names the kind in words, for messages.
func (m Mode) String() string {
	if int(m) >= len(modeNames) {
		return modeNames[0]
	}
	return modeNames[m]
}

// Entry is one path of a tree.
type Entry struct {
	Path string // slash-separated, from the root of the tree
	Mode Mode
	Hash Hash
}

// Tree is the content of one commit. It never changes.
type Tree struct {
	o    *Objects
	hash Hash
}

// Commit reads a commit; an annotated tag is followed to the commit it names.
func (o *Objects) Commit(h Hash) (Commit, error) {
	kind, data, err := o.read(h)
	for depth := 0; err == nil && kind == plumbing.TagObject; depth++ {
		if depth == 8 {
			return Commit{}, fmt.Errorf("tag %s: %w: more than 8 tags deep", h, ErrCorruptObject)
		}
		if h, err = tagTarget(data); err != nil {
			return Commit{}, err
		}
		kind, data, err = o.read(h)
	}
	if err != nil {
		return Commit{}, fmt.Errorf("commit %s: %w", h, err)
	}
	if kind != plumbing.CommitObject {
		return Commit{}, fmt.Errorf("object %s is a %s, want a commit", h, kind)
	}
	c, err := parseCommit(data)
	if err != nil {
		return Commit{}, fmt.Errorf("commit %s: %w", h, err)
	}
	c.Hash = h
	// A boundary that was deepened later has its parents and is none any more.
	if len(c.Parents) > 0 && o.isBoundary(h) {
		if _, err := o.has(c.Parents[0]); err != nil {
			c.Shallow = true
		}
	}
	return c, nil
}

// TreeAt returns the tree of a commit, of the commit an annotated tag names,
// or of the tree h itself.
func (o *Objects) TreeAt(h Hash) (*Tree, error) {
	if h == EmptyTree {
		return &Tree{o, h}, nil
	}
	kind, _, err := o.read(h)
	if err != nil {
		return nil, fmt.Errorf("tree of %s: %w", h, err)
	}
	if kind != plumbing.TreeObject {
		c, err := o.Commit(h)
		if err != nil {
			return nil, err
		}
		h = c.Tree
	}
	if _, err := o.tree(h); err != nil {
		return nil, err
	}
	return &Tree{o, h}, nil
}

// FirstParents yields h and its first-parent ancestors, newest first. A
// history that is cut off by a shallow clone ends with ErrShallow, one that is
// broken with ErrMissingObject; only a root commit ends it without an error.
func (o *Objects) FirstParents(h Hash) iter.Seq2[Commit, error] {
	return func(yield func(Commit, error) bool) {
		for {
			c, err := o.Commit(h)
			if err != nil {
				yield(Commit{}, err)
				return
			}
			if !yield(c, nil) || len(c.Parents) == 0 {
				return
			}
			if c.Shallow {
				yield(Commit{}, fmt.Errorf("parent of %s: %w; hint: git fetch --unshallow, or fetch-depth: 0", c.Hash, ErrShallow))
				return
			}
			h = c.Parents[0]
		}
	}
}

// IsAncestor reports whether a is b or reachable from it. When a shallow
// boundary leaves that open the answer is ErrShallow.
func (o *Objects) IsAncestor(a, b Hash) (bool, error) {
	seen := map[Hash]bool{b: true}
	cut := false
	for queue := []Hash{b}; len(queue) > 0; queue = queue[1:] {
		if queue[0] == a {
			return true, nil
		}
		c, err := o.Commit(queue[0])
		if err != nil {
			return false, err
		}
		if c.Hash == a {
			return true, nil
		}
		for _, p := range c.Parents {
			if p == a {
				return true, nil
			}
			if c.Shallow {
				cut = true
			} else if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
	}
	if cut {
		return false, fmt.Errorf("whether %s is an ancestor of %s: %w", a, b, ErrShallow)
	}
	return false, nil
}

// Hash returns the name of the tree object.
func (t *Tree) Hash() Hash { return t.hash }

// Lookup returns the entry at a path, of any kind; "" is the tree itself. An
// absent path is an fs.ErrNotExist.
func (t *Tree) Lookup(name string) (Entry, error) {
	e := Entry{Path: "", Mode: Directory, Hash: t.hash}
	if name == "" {
		return e, nil
	}
	if !fs.ValidPath(name) || name == "." {
		return Entry{}, &fs.PathError{Op: "lookup", Path: name, Err: fs.ErrInvalid}
	}
	for part := range strings.SplitSeq(name, "/") {
		// A symlink or submodule on the way is not followed: what lies behind
		// it is not in this commit.
		if e.Mode != Directory {
			return Entry{}, &fs.PathError{Op: "lookup", Path: name, Err: fs.ErrNotExist}
		}
		entries, err := t.o.tree(e.Hash)
		if err != nil {
			return Entry{}, fmt.Errorf("%s: %w", name, err)
		}
		found := false
		for _, te := range entries {
			if te.name == part {
				e, found = Entry{path.Join(e.Path, part), te.mode(), te.hash}, true
				break
			}
		}
		if !found {
			return Entry{}, &fs.PathError{Op: "lookup", Path: name, Err: fs.ErrNotExist}
		}
	}
	return e, nil
}

// Blob returns the content of a regular or executable file, at most 64 MiB. An
// absent path is an fs.ErrNotExist, a missing object an ErrMissingObject. A
// symlink is an error: its target is a path, not content.
func (t *Tree) Blob(name string) ([]byte, error) {
	e, err := t.Lookup(name)
	if err != nil {
		return nil, err
	}
	switch e.Mode {
	case Regular, Executable, Deprecated:
	default:
		return nil, fmt.Errorf("%s is a %s, want a regular file", name, e.Mode)
	}
	b, err := t.Read(e.Hash)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// BlobHash returns the object name of a file of any kind, and whether there is
// one at the path. A directory is an error.
func (t *Tree) BlobHash(name string) (Hash, bool, error) {
	e, err := t.Lookup(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Hash{}, false, nil
	}
	if err != nil {
		return Hash{}, false, err
	}
	if e.Mode == Directory {
		return Hash{}, false, fmt.Errorf("%s is a directory, want a file", name)
	}
	return e.Hash, true, nil
}

// Read returns the blob h, as Walk reported it.
func (t *Tree) Read(h Hash) ([]byte, error) {
	kind, data, err := t.o.read(h)
	if err != nil {
		return nil, err
	}
	if kind != plumbing.BlobObject {
		return nil, fmt.Errorf("object %s: %w: it is a %s where a blob was named", h, ErrCorruptObject, kind)
	}
	return data, nil
}

// Walk calls fn for everything below prefix that is not a directory, in git's
// order; "" is the whole tree, and a prefix that is not there has nothing
// below it. It reads trees only. fn may return fs.SkipAll to stop.
func (t *Tree) Walk(prefix string, fn func(Entry) error) error {
	e, err := t.Lookup(prefix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if e.Mode != Directory {
		err = fn(e)
	} else {
		left := maxEntries
		err = t.o.walk(e, 0, &left, fn)
	}
	if errors.Is(err, fs.SkipAll) {
		return nil
	}
	return err
}

func (o *Objects) walk(dir Entry, depth int, left *int, fn func(Entry) error) error {
	if depth == maxDepth {
		return fmt.Errorf("%s: more than %d directories deep", dir.Path, maxDepth)
	}
	entries, err := o.tree(dir.Hash)
	if err != nil {
		return fmt.Errorf("%s/: %w", dir.Path, err)
	}
	for _, te := range entries {
		if *left--; *left < 0 {
			return fmt.Errorf("tree has more than %d entries", maxEntries)
		}
		e := Entry{path.Join(dir.Path, te.name), te.mode(), te.hash}
		if e.Mode == Directory {
			err = o.walk(e, depth+1, left, fn)
		} else {
			err = fn(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// has reports where an object is: true for this store, false for its base.
func (o *Objects) has(h Hash) (own bool, err error) {
	o.mu.Lock()
	for _, l := range o.layers {
		if l.HasEncodedObject(plumbing.Hash(h)) == nil {
			o.mu.Unlock()
			return true, nil
		}
	}
	o.mu.Unlock()
	if o.base != nil {
		_, err := o.base.has(h)
		return false, err
	}
	return false, fmt.Errorf("%s: %w", h, ErrMissingObject)
}

func (o *Objects) isBoundary(h Hash) bool {
	o.mu.Lock()
	cut := o.shallow[h]
	o.mu.Unlock()
	return cut || o.base != nil && o.base.isBoundary(h)
}

// read returns an object's bytes after hashing them: the store on disk is
// evidence, not authority.
func (o *Objects) read(h Hash) (plumbing.ObjectType, []byte, error) {
	kind, data, err := o.readOwn(h)
	if errors.Is(err, ErrMissingObject) && o.base != nil {
		return o.base.read(h)
	}
	return kind, data, err
}

func (o *Objects) readOwn(h Hash) (plumbing.ObjectType, []byte, error) {
	if h.IsZero() {
		return 0, nil, errors.New("the zero hash names no object")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	obj, err := o.find(h)
	if errors.Is(err, plumbing.ErrObjectNotFound) && o.onDisk {
		// A repack by another process removes the packs our index points to
		// and the objects are in packs we have not seen: look once more.
		for _, l := range o.layers {
			if r, ok := l.(interface{ Reindex() }); ok {
				r.Reindex()
			}
		}
		obj, err = o.find(h)
	}
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return 0, nil, fmt.Errorf("%s: %w", h, ErrMissingObject)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w: %v", h, ErrCorruptObject, err)
	}
	r, err := obj.Reader()
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w: %v", h, ErrCorruptObject, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxObject+1))
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w: %v", h, ErrCorruptObject, err)
	}
	if got := Hash(plumbing.ComputeHash(obj.Type(), data)); got != h {
		return 0, nil, fmt.Errorf("%s: %w: its bytes hash to %s", h, ErrCorruptObject, got)
	}
	return obj.Type(), data, nil
}

func (o *Objects) find(h Hash) (plumbing.EncodedObject, error) {
	for _, l := range o.layers {
		// The size comes from a header: a huge object is refused unread.
		size, err := l.EncodedObjectSize(plumbing.Hash(h))
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if size > maxObject {
			return nil, fmt.Errorf("it has %d bytes, at most %d are read", size, maxObject)
		}
		return l.EncodedObject(plumbing.AnyObject, plumbing.Hash(h))
	}
	return nil, plumbing.ErrObjectNotFound
}

func (o *Objects) tree(h Hash) ([]treeEntry, error) {
	if h == EmptyTree {
		return nil, nil // git knows it without storing it
	}
	o.mu.Lock()
	entries, ok := o.trees[h]
	o.mu.Unlock()
	if ok {
		return entries, nil
	}
	kind, data, err := o.read(h)
	if err != nil {
		return nil, fmt.Errorf("tree %w", err)
	}
	if kind != plumbing.TreeObject {
		return nil, fmt.Errorf("object %s: %w: it is a %s where a tree was named", h, ErrCorruptObject, kind)
	}
	if entries, err = parseTree(data); err != nil {
		return nil, fmt.Errorf("tree %s: %w", h, err)
	}
	o.mu.Lock()
	if o.trees == nil || len(o.trees) >= maxTreeCache {
		o.trees = make(map[Hash][]treeEntry)
	}
	o.trees[h] = entries
	o.mu.Unlock()
	return entries, nil
}

// treeEntry keeps the mode as written, so that rewriting a tree leaves the
// entries it does not touch as they were.
type treeEntry struct {
	rawMode string
	name    string
	hash    Hash
}

func (e treeEntry) mode() Mode {
	switch e.rawMode {
	case "100644":
		return Regular
	case "100755":
		return Executable
	case "120000":
		return Symlink
	case "160000":
		return Submodule
	case "40000", "040000":
		return Directory
	}
	return Deprecated
}

// sortKey is git's order: a directory sorts as if its name ended in a slash,
// so "foo.txt" comes before the directory "foo".
func (e treeEntry) sortKey() string {
	if e.mode() == Directory {
		return e.name + "/"
	}
	return e.name
}

func parseTree(data []byte) ([]treeEntry, error) {
	bad := func(format string, args ...any) ([]treeEntry, error) {
		return nil, fmt.Errorf("%w: %s", ErrCorruptObject, fmt.Sprintf(format, args...))
	}
	var out []treeEntry
	names := make(map[string]bool)
	for len(data) > 0 {
		sp, nul := bytes.IndexByte(data, ' '), bytes.IndexByte(data, 0)
		if sp < 0 || nul < sp || len(data) < nul+1+len(Hash{}) {
			return bad("entry %d is cut off", len(out))
		}
		e := treeEntry{rawMode: string(data[:sp]), name: string(data[sp+1 : nul])}
		copy(e.hash[:], data[nul+1:])
		data = data[nul+1+len(e.hash):]
		if bits, err := strconv.ParseUint(e.rawMode, 8, 32); err != nil || len(e.rawMode) > 7 {
			return bad("mode %q of %q is not octal", e.rawMode, e.name)
		} else if kind := bits & 0o170000; e.mode() == Deprecated && kind != 0o100000 {
			// Only odd *files* are tolerated: an odd directory would be walked
			// by git and skipped here.
			return bad("mode %q of %q is not one git writes", e.rawMode, e.name)
		}
		if err := checkName(e.name); err != nil {
			return bad("%v", err)
		}
		if names[e.name] {
			return bad("%q appears twice", e.name)
		}
		names[e.name] = true
		if n := len(out); n > 0 && out[n-1].sortKey() >= e.sortKey() {
			return bad("%q is out of order", e.name)
		}
		out = append(out, e)
	}
	return out, nil
}

func encodeTree(entries []treeEntry) []byte {
	sort.Slice(entries, func(i, j int) bool { return entries[i].sortKey() < entries[j].sortKey() })
	var b bytes.Buffer
	for _, e := range entries {
		b.WriteString(e.rawMode)
		b.WriteByte(' ')
		b.WriteString(e.name)
		b.WriteByte(0)
		b.Write(e.hash[:])
	}
	return b.Bytes()
}

// checkName refuses the names by which a tree escapes its directory when
// somebody checks it out, as git fsck does.
func checkName(name string) error {
	switch {
	case name == "", name == ".", name == "..":
		return fmt.Errorf("%q is not a file name", name)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("file name %q contains a slash or NUL", name)
	case strings.EqualFold(name, ".git"):
		return fmt.Errorf("file name %q would be git's own directory", name)
	}
	return nil
}

func tagTarget(data []byte) (Hash, error) {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	name, ok := strings.CutPrefix(string(line), "object ")
	if !ok {
		return Hash{}, fmt.Errorf("tag: %w: it names no object", ErrCorruptObject)
	}
	h, err := ParseHash(name)
	if err != nil {
		return Hash{}, fmt.Errorf("tag: %w: %v", ErrCorruptObject, err)
	}
	return h, nil
}

// parseCommit reads the headers in the one order git writes them: a commit
// with two trees means different things to different readers.
func parseCommit(data []byte) (Commit, error) {
	bad := func(format string, args ...any) (Commit, error) {
		return Commit{}, fmt.Errorf("%w: %s", ErrCorruptObject, fmt.Sprintf(format, args...))
	}
	head, message, ok := strings.Cut(string(data), "\n\n")
	if !ok {
		head = strings.TrimSuffix(head, "\n") // git commit-tree </dev/null
	}
	c := Commit{Message: message}
	lines := strings.Split(head, "\n")
	next := func(key string) (string, bool) {
		if len(lines) == 0 {
			return "", false
		}
		v, ok := strings.CutPrefix(lines[0], key+" ")
		if ok {
			lines = lines[1:]
		}
		return v, ok
	}
	v, ok := next("tree")
	if !ok {
		return bad("the first line is not a tree")
	}
	var err error
	if c.Tree, err = ParseHash(v); err != nil {
		return bad("tree: %v", err)
	}
	for {
		v, ok := next("parent")
		if !ok {
			break
		}
		p, err := ParseHash(v)
		if err != nil {
			return bad("parent: %v", err)
		}
		c.Parents = append(c.Parents, p)
	}
	if v, ok = next("author"); !ok {
		return bad("no author after tree and parents")
	}
	c.Author = parsePerson(v)
	if v, ok = next("committer"); !ok {
		return bad("no committer after the author")
	}
	c.Committer = parsePerson(v)
	for len(lines) > 0 {
		key, value, _ := strings.Cut(lines[0], " ")
		lines = lines[1:]
		for len(lines) > 0 && strings.HasPrefix(lines[0], " ") {
			value += "\n" + lines[0][1:]
			lines = lines[1:]
		}
		switch key {
		case "tree", "parent", "author", "committer":
			return bad("a second %q line", key)
		case "gpgsig":
			c.Signature = value
		}
	}
	return c, nil
}

func parsePerson(s string) Person {
	name, rest, _ := strings.Cut(s, "<")
	mail, stamp, _ := strings.Cut(rest, ">")
	p := Person{Name: strings.TrimSpace(name), Email: mail}
	secs, zone, ok := strings.Cut(strings.TrimSpace(stamp), " ")
	n, err := strconv.ParseInt(secs, 10, 64)
	if !ok || err != nil || n < 0 || n > 1<<40 {
		return p
	}
	off, err := time.Parse("-0700", zone)
	if err != nil {
		return p
	}
	_, east := off.Zone()
	loc := time.UTC
	if east != 0 {
		loc = time.FixedZone("", east)
	}
	p.When = time.Unix(n, 0).In(loc)
	return p
}
