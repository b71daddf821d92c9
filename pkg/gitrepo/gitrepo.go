// Package gitrepo reads commits for an audit and writes them for a publisher,
// and hides the library that does it.
//
// # Reading
//
// [Open] finds a person's repository (from a subdirectory, a linked worktree
// or a bare directory) and reads commits, trees and blobs by hash. The work
// tree is never looked at, and the index only by [Repo.Staged]: an audit judges
// what was committed.
// Three answers are kept apart, because an audit turns them into three
// verdicts:
//
//   - the path is not in the tree: an error that is [fs.ErrNotExist];
//   - the path is in the tree and its object is not in the store (shallow or
//     partial clone): [ErrMissingObject], never fs.ErrNotExist;
//   - the object is there and its bytes do not hash to its name, or do not
//     parse: [ErrCorruptObject].
//
// Every object is hashed again as it is read, trees and commits are parsed
// strictly (order, duplicates, names such as ".." and ".git" are errors), and
// refs/replace and grafts are not honoured. The end of a shallow history is
// [ErrShallow], never "there are no more parents".
//
// # Writing
//
// [Dial] speaks to one server. [Remote.Fetch] brings the exact tips the server
// has now, [Remote.Build] makes blobs, trees and a commit on top of one of
// them, and [Remote.Push] moves one reference from an old hash to a new one.
// Everything lives in memory. A seed repository may lend its objects, so that
// a clone already on disk is not fetched again; nothing is ever written to it.
//
//	m, err := gitrepo.Dial(ctx, gitrepo.Options{URL: url, Auth: gitrepo.Auth{Token: token}})
//	tips, err := m.Fetch(ctx, "refs/heads/main")
//	old := tips["refs/heads/main"] // zero when the reference does not exist
//	next, err := m.Build(old, gitrepo.Change{Write: files}, opts)
//	err = m.Push(ctx, "refs/heads/main", old, next)
//
// # A push is a lock
//
// The push names the old hash it was built on, and the server compares and
// swaps; of two writers on the same old hash at most one succeeds. There is no
// way to force. What came back is one of five things, and the publisher
// branches on them:
//
//   - nil: the server reported the reference at the new hash.
//   - [ErrLostRace]: somebody moved the reference. Fetch, build, push again.
//   - [ErrUnconfirmed]: the push was sent and no usable answer came. It may
//     have landed. Fetch and look; pushing the same commit again is safe.
//   - [RefusedError]: protection or a hook said no, in the words it carries.
//     Trying again does not help.
//   - [ErrAuth], [ErrNoRepository], [ErrUnreachable], [ErrObjectFormat]: the
//     push was not accepted.
//
// # Transports
//
// https and http with explicit basic authentication (git's own credential
// configuration is not read), ssh with a key file or the agent and the user's
// known_hosts, and local paths or file://, which run the git program. A
// static container image has no git program, so there only https and ssh
// work. Credentials written into a URL are taken out of it before anything is
// printed.
//
// SHA-256 repositories and reftable stores are refused by name.
package gitrepo

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// Hash is the SHA-1 name of a git object. The zero Hash means "no object".
type Hash [20]byte

// EmptyTree is the tree without entries. As [Change.Base] it starts a commit
// from nothing although it has a parent.
var EmptyTree = Hash{
	0x4b, 0x82, 0x5d, 0xc6, 0x42, 0xcb, 0x6e, 0xb9, 0xa0, 0x60,
	0xe5, 0x4b, 0xf8, 0xd6, 0x92, 0x88, 0xfb, 0xee, 0x49, 0x04,
}

// ParseHash reads forty lower-case hex digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) == 64 {
		return Hash{}, fmt.Errorf("object name %q has 64 digits: %w", s, ErrObjectFormat)
	}
	if len(s) != hex.EncodedLen(len(h)) {
		return Hash{}, fmt.Errorf("object name %q has %d characters, want 40 hex digits", s, len(s))
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil || h.String() != s {
		return Hash{}, fmt.Errorf("object name %q is not 40 lower-case hex digits", s)
	}
	return h, nil
}

// String returns forty lower-case hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h names no object.
func (h Hash) IsZero() bool { return h == Hash{} }

// MarshalText writes the forty digits.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText is ParseHash.
func (h *Hash) UnmarshalText(b []byte) error {
	parsed, err := ParseHash(string(b))
	if err != nil {
		return err
	}
	*h = parsed
	return nil
}

// Errors a caller branches on. The text around them carries the path, the
// object and, after a push, the server's own words.
var (
	// ErrNoGit: there is no repository at a local path.
	ErrNoGit = errors.New("no git repository")
	// ErrMissingObject: an object is named but not in the store.
	ErrMissingObject = errors.New("object is missing from the repository")
	// ErrCorruptObject: an object's bytes do not match its name or its format.
	ErrCorruptObject = errors.New("object is corrupt")
	// ErrShallow: the history ends at the boundary of a shallow clone.
	ErrShallow = errors.New("history is cut off by a shallow clone")
	// ErrObjectFormat: the repository uses a format other than SHA-1 objects
	// and files for references.
	ErrObjectFormat = errors.New("only SHA-1 repositories with file references can be read")

	// ErrLostRace: the reference is not at the old hash any more. Fetch,
	// build on the new tip and push again.
	ErrLostRace = errors.New("the reference moved")
	// ErrUnreachable: the server did not answer, or answered that it cannot
	// work now. Trying again later may help.
	ErrUnreachable = errors.New("the server could not be reached")
	// ErrUnconfirmed: the push was sent and its outcome is unknown. It is
	// also an ErrUnreachable.
	ErrUnconfirmed = fmt.Errorf("the push may or may not have landed, fetch and look: %w", ErrUnreachable)
	// ErrAuth: the server does not accept this identity.
	ErrAuth = errors.New("the server does not accept this identity")
	// ErrNoRepository: the server has no such repository, or hides it from
	// this identity.
	ErrNoRepository = errors.New("no such repository, or this identity may not see it")
)

// RefusedError is a push that the server understood and declined: branch
// protection, a ruleset or a hook. It is never worth retrying unchanged.
type RefusedError struct {
	Ref    string
	Reason string // the status the server gave for Ref
	Text   string // everything the server printed, control characters removed
}

// Error gives the reason and then the server's own words.
func (e *RefusedError) Error() string {
	s := fmt.Sprintf("push %s: refused: %s", e.Ref, e.Reason)
	if e.Text != "" {
		s += "\n" + e.Text
	}
	return s
}

// Retryable reports whether fetching, building and pushing again can succeed
// without anybody changing anything.
func Retryable(err error) bool {
	return errors.Is(err, ErrLostRace) || errors.Is(err, ErrUnreachable)
}
