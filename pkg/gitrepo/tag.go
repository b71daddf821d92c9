package gitrepo

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
)

// ErrTagExists says that the name is taken. A tag is never moved.
var ErrTagExists = errors.New("the tag exists already")

// Tag is what a name below refs/tags leads to.
type Tag struct {
	Name   string // without refs/tags/
	Object Hash   // what the reference names: a tag object, or the commit itself
	Commit Hash
	// Raw are the bytes of Object.
	Raw []byte
	// Annotated says that Object is a tag object; without one, the fields below
	// are empty.
	Annotated bool
	// Inner is the name that the object itself bears. Git verifies a signature
	// also where a tag object lies under another name: who believes it compares.
	Inner   string
	Tagger  Person
	Message string
	// Payload is what Signature, an armored OpenPGP signature or "", signs.
	// Foreign says that something else than OpenPGP signed.
	Payload   []byte
	Signature string
	Foreign   bool
}

// Tag returns the tag of a name. Without one the error is an fs.ErrNotExist. A
// tag of something else than a commit is an error, and so is a tag of a tag: it
// means different things to different readers.
func (r *Repo) Tag(name string) (Tag, error) {
	t := Tag{Name: name}
	ref, err := r.tagReference(name)
	if err == nil {
		t.Object = Hash(ref.Hash())
		err = r.readTag(&t)
	}
	if err != nil {
		return Tag{}, fmt.Errorf("tag %s: %w", name, err)
	}
	return t, nil
}

func (r *Repo) tagReference(name string) (*plumbing.Reference, error) {
	full := plumbing.NewTagReferenceName(name)
	if err := full.Validate(); err != nil || strings.HasPrefix(name, "-") {
		return nil, fmt.Errorf("%q cannot be the name of a tag", name)
	}
	ref, err := r.store.Reference(full)
	switch {
	case errors.Is(err, plumbing.ErrReferenceNotFound):
		return nil, fs.ErrNotExist
	case err != nil:
		return nil, err
	case ref.Type() != plumbing.HashReference:
		return nil, errors.New("it points to another reference, want an object")
	}
	return ref, nil
}

func (r *Repo) readTag(t *Tag) error {
	kind, data, err := r.read(t.Object)
	if err != nil {
		return err
	}
	t.Raw = data
	switch kind {
	case plumbing.CommitObject:
		t.Commit = t.Object
		return nil
	case plumbing.TagObject:
	default:
		return fmt.Errorf("it names a %s, want a commit", kind)
	}
	t.Annotated = true
	if err := t.parse(data); err != nil {
		return fmt.Errorf("%w: %w", ErrCorruptObject, err)
	}
	if kind, _, err = r.read(t.Commit); err == nil && kind != plumbing.CommitObject {
		err = fmt.Errorf("%w: it says that %s is a commit, which is a %s", ErrCorruptObject, t.Commit, kind)
	}
	return err
}

// parse reads a tag object: the headers in the one order in which git writes
// them, and the signature where git looks for it, at the last line that begins
// one.
func (t *Tag) parse(data []byte) error {
	head, message, ok := strings.Cut(string(data), "\n\n")
	if !ok {
		return errors.New("it has no message")
	}
	lines := strings.Split(head, "\n")
	values := make([]string, 4)
	for i, key := range []string{"object", "type", "tag", "tagger"} {
		if i == len(lines) && key == "tagger" {
			break // git wrote such tags before 2005
		}
		if i >= len(lines) {
			return fmt.Errorf("it has no %q line", key)
		}
		if values[i], ok = strings.CutPrefix(lines[i], key+" "); !ok {
			return fmt.Errorf("found the line %.60q, want %q", lines[i], key)
		}
	}
	if len(lines) > len(values) {
		return fmt.Errorf("found the line %.60q, want the message", lines[len(values)])
	}
	if values[1] != "commit" {
		return fmt.Errorf("it is a tag of a %q, want of a commit", values[1])
	}
	var err error
	if t.Commit, err = ParseHash(values[0]); err != nil {
		return err
	}
	t.Inner, t.Tagger = values[2], parsePerson(values[3])
	at := signatureStart(data)
	t.Payload = data[:at]
	t.Message = message[:len(message)-(len(data)-at)]
	if sig := string(data[at:]); strings.HasPrefix(sig, pgpSignature) {
		t.Signature = sig
	} else {
		t.Foreign = sig != ""
	}
	return nil
}

const pgpSignature = "-----BEGIN PGP SIGNATURE-----"

// signatures are how git knows that a line begins a signature.
var signatures = []string{pgpSignature, "-----BEGIN PGP MESSAGE-----", "-----BEGIN SIGNED MESSAGE-----", "-----BEGIN SSH SIGNATURE-----"}

// signatureStart returns where the last signature begins, or the end.
func signatureStart(data []byte) int {
	start := len(data)
	for at := 0; at < len(data); {
		for _, s := range signatures {
			if bytes.HasPrefix(data[at:], []byte(s)) {
				start = at
			}
		}
		n := bytes.IndexByte(data[at:], '\n')
		if n < 0 {
			break
		}
		at += n + 1
	}
	return start
}

// TagOptions is the rest of a tag. All of it is required.
type TagOptions struct {
	Message                 string // a final newline is added when missing
	TaggerName, TaggerEmail string
	When                    time.Time // written in UTC, to the second
	// Signer returns an armored OpenPGP signature over the tag without it.
	Signer func(payload []byte) (armored string, err error)
}

// WriteTag makes a signed, annotated tag of a commit. It is the one thing that
// is written to a repository on disk. The object is written first, then the
// name: a crash in between leaves an object that git gc removes. A name that is
// taken is an ErrTagExists, whatever it leads to.
func (r *Repo) WriteTag(name string, commit Hash, opts TagOptions) (Tag, error) {
	if err := r.writeTag(name, commit, opts); err != nil {
		return Tag{}, fmt.Errorf("tag %s: %w", name, err)
	}
	return r.Tag(name) // as any reader will see it
}

func (r *Repo) writeTag(name string, commit Hash, opts TagOptions) error {
	if _, err := r.tagReference(name); err == nil {
		return ErrTagExists
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	kind, _, err := r.read(commit)
	if err == nil && kind != plumbing.CommitObject {
		err = fmt.Errorf("object %s is a %s, want a commit", commit, kind)
	}
	if err != nil {
		return err
	}
	payload, err := tagPayload(name, commit, opts)
	if err != nil {
		return err
	}
	sig, err := opts.Signer(payload)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	sig = strings.TrimRight(strings.ReplaceAll(sig, "\r\n", "\n"), "\n") + "\n"
	if !strings.HasPrefix(sig, pgpSignature+"\n") {
		return errors.New("sign: found something else than an armored OpenPGP signature")
	}
	obj := &plumbing.MemoryObject{}
	obj.SetType(plumbing.TagObject)
	if _, err := obj.Write(append(payload, sig...)); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	h, err := r.store.SetEncodedObject(obj)
	if err != nil {
		return err
	}
	return r.createTag(name, Hash(h))
}

func tagPayload(name string, commit Hash, opts TagOptions) ([]byte, error) {
	for what, s := range map[string]string{"tagger's name": opts.TaggerName, "tagger's e-mail": opts.TaggerEmail} {
		if strings.TrimSpace(s) == "" || strings.ContainsAny(s, "<>\n\x00") || !utf8.ValidString(s) {
			return nil, fmt.Errorf("%s %q: want text without <, > and line breaks", what, s)
		}
	}
	if opts.When.Unix() <= 0 || opts.When.IsZero() {
		return nil, fmt.Errorf("time %s: want one after 1970", opts.When.UTC().Format(time.RFC3339))
	}
	message := strings.TrimRight(opts.Message, "\n") + "\n"
	if strings.TrimSpace(message) == "" || strings.Contains(message, "\x00") || !utf8.ValidString(message) {
		return nil, errors.New("message: want UTF-8 text without NUL")
	}
	if signatureStart([]byte(message)) != len(message) {
		return nil, errors.New("message: a line begins a signature, and git would read it for the tag's own")
	}
	return fmt.Appendf(nil, "object %s\ntype commit\ntag %s\ntagger %s <%s> %d +0000\n\n%s",
		commit, name, strings.TrimSpace(opts.TaggerName), strings.TrimSpace(opts.TaggerEmail), opts.When.Unix(), message), nil
}

// createTag gives an object a name, under git's own lock, so that of two that
// make the same tag one fails.
func (r *Repo) createTag(name string, h Hash) error {
	files := r.store.Filesystem()
	ref := path.Join("refs", "tags", name)
	f, err := files.OpenFile(ref+".lock", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("another process is making it: %s.lock is there", ref)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s\n", h)
	err = errors.Join(err, f.Close())
	if err == nil {
		_, err = r.tagReference(name)
		switch {
		case err == nil:
			err = ErrTagExists
		case errors.Is(err, fs.ErrNotExist):
			err = files.Rename(ref+".lock", ref)
		}
	}
	if err != nil {
		return errors.Join(err, files.Remove(ref+".lock"))
	}
	return nil
}
