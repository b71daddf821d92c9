// Package archive writes a commit as the tar archive that git writes of it, byte
// for byte, without git:
//
//	git -c tar.umask=0002 -c core.autocrlf=false archive --format=tar COMMIT
//
// A digest of that archive names the content of a commit with SHA-256 where git
// itself has SHA-1, and a stranger recomputes it with one command. The command
// is the specification; git 2.39 is what the tests compare with.
//
// # The format
//
//   - a global pax header that carries the commit's id as its comment
//   - one ustar entry for each file, link, folder and submodule (which is an empty
//     folder), in git's order; a folder stands before the first thing in it
//   - mode 0664 or 0775 for files, 0775 for folders, 0777 for links; owner root, 0;
//     the time is the committer's
//   - a name of more than 100 bytes is parted at a slash, and is a pax header
//     where that does not do; so is the target of a link of more than 100 bytes
//   - zeros at the end, to a multiple of 10,240 bytes
//
// # Attributes
//
// The .gitattributes files of the tree itself are obeyed, as git does on Linux:
// export-ignore, export-subst, text, eol, crlf and ident, with macros. Those of a
// clone or of a machine (info/attributes, core.attributesFile) are not part of a
// commit and count for nothing; a fresh clone on a machine without them is what
// gives the same bytes.
//
// export-subst fills in these placeholders of git's pretty formats, which follow
// from the commit alone:
//
//	%H %T %P %an %ae %al %at %ad %aD %ai %aI %as %cn … %cs %s %f %b %B %n %% %xNN
//
// # What it refuses
//
// What is not the commit's: the tree must hash to the id that the commit names,
// and every blob to its own. What differs from clone to clone, or from one
// version of git to another: a filter, a working-tree-encoding, every other
// placeholder (%h is as long as the clone is large), %aI in UTC, and a commit
// message that is not UTF-8 where it is filled in. SHA-256 repositories.
package archive

import (
	"crypto/sha1" //nolint:gosec // git's names of objects
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// Source is a commit's tree. The ids of its Walk are the object names, 40 hex
// digits, and a submodule is irregular.
type Source interface {
	judge.Tree
	// Link returns where a symbolic link leads, as git stores it.
	Link(path string) (string, error)
}

const (
	record = 512
	block  = 20 * record // the whole is a multiple of it
	umask  = 0o002

	maxField = 1<<33 - 1 // eleven octal digits: the largest size and time
	maxName  = 100
	maxSplit = 155 // of a header's prefix
	// streamed is the size in bytes from which on git does not convert a file.
	streamed = 512 << 20
)

// Tar writes the archive of a commit. Blobs are held one at a time.
func Tar(w io.Writer, src Source, c Commit) error {
	entries, err := list(src, c.tree)
	if err != nil {
		return fmt.Errorf("archive of %s: %w", c.id, err)
	}
	attrs, err := readAttributes(src, entries)
	if err != nil {
		return fmt.Errorf("archive of %s: %w", c.id, err)
	}
	t := &writer{w: w, src: src, commit: c, attrs: attrs, mtime: c.Time()}
	if err := t.archive(entries); err != nil {
		return fmt.Errorf("archive of %s: %w", c.id, err)
	}
	return nil
}

// entry is a path of the archive.
type entry struct {
	path string // without the slash of a folder
	mode string // as in a tree object
	id   string
}

func (e entry) folder() bool { return e.mode == modeFolder || e.mode == modeSubmodule }

// The modes of a tree object.
const (
	modeFile      = "100644"
	modeProgram   = "100755"
	modeLink      = "120000"
	modeSubmodule = "160000"
	modeFolder    = "40000"
)

// list returns everything in a tree, folders too, in git's order, and makes sure
// that it is the tree of this id.
func list(src Source, want string) ([]entry, error) {
	var files []entry
	err := src.Walk("", func(p string, mode fs.FileMode, id string) error {
		e := entry{path: p, id: id}
		switch {
		case mode&fs.ModeSymlink != 0:
			e.mode = modeLink
		case !mode.IsRegular():
			e.mode = modeSubmodule
		case mode&0o100 != 0:
			e.mode = modeProgram
		default:
			e.mode = modeFile
		}
		if b, err := hex.DecodeString(id); err != nil || len(b) != sha1.Size {
			return fmt.Errorf("%s: found the id %q, wanted 40 hex digits", p, id)
		}
		files = append(files, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	// A folder sorts as if its name ended in a slash, which is how the paths of
	// its files sort.
	slices.SortFunc(files, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	var all []entry
	got, rest := tree(&all, files, "")
	if len(rest) > 0 {
		return nil, fmt.Errorf("%q: not a path of a tree", rest[0].path)
	}
	if got != want {
		return nil, fmt.Errorf("the tree's files hash to %s, wanted %s; a file of a mode that git no longer writes, or an empty folder, would do that", got, want)
	}
	return all, nil
}

// tree appends a folder's content to all, takes it from the front of files, and
// returns the id of the folder's tree object.
func tree(all *[]entry, files []entry, prefix string) (id string, rest []entry) {
	var object []byte
	for len(files) > 0 && strings.HasPrefix(files[0].path, prefix) {
		e := files[0]
		name, _, deeper := strings.Cut(e.path[len(prefix):], "/")
		if deeper {
			e = entry{path: prefix + name, mode: modeFolder}
			at := len(*all)
			*all = append(*all, e)
			e.id, files = tree(all, files, prefix+name+"/")
			(*all)[at].id = e.id
		} else {
			*all = append(*all, e)
			files = files[1:]
		}
		raw, _ := hex.DecodeString(e.id)
		object = append(append(object, e.mode+" "+name+"\x00"...), raw...)
	}
	return objectID("tree", object), files
}

func objectID(kind string, data []byte) string {
	h := sha1.New() //nolint:gosec // git's names of objects
	fmt.Fprintf(h, "%s %d\x00", kind, len(data))
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

// read returns a blob, or the target of a link, and makes sure of its id.
func read(src Source, e entry) (data []byte, err error) {
	if e.mode == modeLink {
		var target string
		target, err = src.Link(e.path)
		data = []byte(target)
	} else {
		data, err = src.Blob(e.path)
	}
	if err != nil {
		return nil, err
	}
	if got := objectID("blob", data); got != e.id {
		return nil, fmt.Errorf("%s: its content hashes to %s, wanted %s", e.path, got, e.id)
	}
	return data, nil
}

// writer writes one archive.
type writer struct {
	w       io.Writer
	src     Source
	commit  Commit
	attrs   attributes
	mtime   int64
	written int64
}

func (t *writer) archive(entries []entry) error {
	comment := extend(nil, "comment", t.commit.id)
	if t.mtime > maxField {
		comment = extend(comment, "mtime", fmt.Sprint(t.mtime))
		t.mtime = maxField
	}
	if err := t.extended(header{name: "pax_global_header", kind: 'g'}, comment); err != nil {
		return err
	}
	ignored := "" // the folder, with its slash, that is left out
	var pending []entry
	for _, e := range entries {
		if ignored != "" && strings.HasPrefix(e.path, ignored) {
			continue
		}
		// A folder that nothing follows in is not written.
		for len(pending) > 0 && !strings.HasPrefix(e.path, pending[len(pending)-1].path+"/") {
			pending = pending[:len(pending)-1]
		}
		name := e.path
		if e.folder() {
			name += "/"
		}
		attr := t.attrs.of(name)
		if e.mode == modeFolder {
			if attr["export-ignore"] == attrTrue {
				ignored = name
			} else {
				pending = append(pending, e)
			}
			continue
		}
		// git writes the folders first and asks about the file then: a folder of
		// nothing but ignored files is there.
		for _, f := range pending {
			if err := t.file(f, f.path+"/", nil); err != nil {
				return err
			}
		}
		pending = pending[:0]
		if attr["export-ignore"] == attrTrue {
			continue
		}
		var data []byte
		if e.mode != modeSubmodule {
			var err error
			if data, err = read(t.src, e); err != nil {
				return err
			}
		}
		if e.mode == modeFile || e.mode == modeProgram {
			var err error
			if data, err = convert(data, attr, e.id, t.commit); err != nil {
				return fmt.Errorf("%s: %w", e.path, err)
			}
		}
		if err := t.file(e, name, data); err != nil {
			return err
		}
	}
	tail := block - t.written%block
	if tail < 2*record {
		tail += block
	}
	_, err := t.w.Write(make([]byte, tail))
	return err
}

// file writes an entry. data is the target of a link, and none of a folder.
func (t *writer) file(e entry, name string, data []byte) error {
	if err := t.announce(e, name, data, int64(len(data))); err != nil {
		return err
	}
	if e.mode == modeLink {
		return nil
	}
	return t.write(data)
}

// announce writes the headers of an entry.
func (t *writer) announce(e entry, name string, data []byte, size int64) error {
	h := header{name: name, kind: '0', mode: 0o666 &^ umask, size: size}
	var extended []byte
	switch {
	case e.folder():
		h.kind, h.mode = '5', 0o777&^umask
	case e.mode == modeLink:
		h.kind, h.mode, h.size, h.link = '2', 0o777, 0, string(data)
	case e.mode == modeProgram:
		h.mode = 0o777 &^ umask
	}
	if len(name) > maxName {
		if at := splitAt(name); at > 0 && len(name)-at-1 <= maxName {
			h.prefix, h.name = name[:at], name[at+1:]
		} else {
			h.name = e.id + ".data"
			extended = extend(extended, "path", name)
		}
	}
	if len(h.link) > maxName {
		extended = extend(extended, "linkpath", h.link)
		h.link = "see " + e.id + ".paxheader"
	}
	if h.size > maxField {
		extended = extend(extended, "size", fmt.Sprint(h.size))
		h.size = 0
	}
	if extended != nil {
		if err := t.extended(header{name: e.id + ".paxheader", kind: 'x'}, extended); err != nil {
			return err
		}
	}
	return t.write(h.bytes(t.mtime))
}

// extended writes a pax header.
func (t *writer) extended(h header, records []byte) error {
	h.mode, h.size = 0o666, int64(len(records))
	if err := t.write(h.bytes(t.mtime)); err != nil {
		return err
	}
	return t.write(records)
}

// splitAt returns where the prefix of a long name ends, 0 for nowhere.
func splitAt(name string) int {
	i := len(strings.TrimSuffix(name, "/"))
	if i > maxSplit {
		i = maxSplit
	}
	for i--; i > 0 && name[i] != '/'; i-- {
	}
	return i
}

// extend appends a record of a pax header: its own length in decimal, a space,
// key=value, a line feed.
func extend(b []byte, key, value string) []byte {
	n := len(" =\n") + 1 + len(key) + len(value)
	for digits := 1; n/10 >= digits; digits *= 10 {
		n++
	}
	return fmt.Appendf(b, "%d %s=%s\n", n, key, value)
}

// header is what the 512 bytes before a file say.
type header struct {
	name, prefix, link string
	kind               byte
	mode               int
	size               int64
}

func (h header) bytes(mtime int64) []byte {
	b := make([]byte, record)
	copy(b[0:100], h.name)
	copy(b[100:], fmt.Sprintf("%07o", h.mode))
	copy(b[108:], "0000000")
	copy(b[116:], "0000000")
	copy(b[124:], fmt.Sprintf("%011o", h.size))
	copy(b[136:], fmt.Sprintf("%011o", mtime))
	b[156] = h.kind
	copy(b[157:257], h.link)
	copy(b[257:], "ustar\x0000")
	copy(b[265:], "root")
	copy(b[297:], "root")
	copy(b[329:], "0000000")
	copy(b[337:], "0000000")
	copy(b[345:500], h.prefix)
	sum := 8 * int(' ') // the checksum counts as spaces
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%07o", sum))
	return b
}

// write fills up to a whole record.
func (t *writer) write(b []byte) error {
	n, err := t.w.Write(b)
	t.written += int64(n)
	if err != nil || len(b)%record == 0 {
		return err
	}
	n, err = t.w.Write(make([]byte, record-len(b)%record))
	t.written += int64(n)
	return err
}
