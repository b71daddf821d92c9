// Package set is what federations compare and sign: a set of receipt ids with a
// root that does not depend on the order in which they came. Two sets merge by
// union, so merging is commutative, associative and idempotent, and so is what
// it does to the root.
//
// # The trie
//
// The ids are the leaves of a binary Patricia trie: a branch stands only where
// ids differ, so a set has exactly one trie.
//
//	empty  = SHA-256("remembrancer/set/v1/empty")
//	leaf   = SHA-256(0x10 ‖ id)
//	branch = SHA-256(0x11 ‖ bit ‖ left ‖ right)
//
// Bit, one byte, is the first bit in which the ids below the branch differ; bit 0
// is the highest of the first byte. Left holds the ids in which it is 0. The
// prefixes are not those of RFC 6962 (0x00 and 0x01), so that no hash of the one
// tree is a hash of the other. In Python (testdata/root.py, which the tests run):
//
//	import hashlib, sys
//
//	def sha(*parts):
//	    return hashlib.sha256(b"".join(parts)).digest()
//
//	def root(ids):  # sorted and distinct, 32 bytes each
//	    if not ids:
//	        return sha(b"remembrancer/set/v1/empty")
//	    if len(ids) == 1:
//	        return sha(b"\x10", ids[0])
//	    first, last = (int.from_bytes(i, "big") for i in (ids[0], ids[-1]))
//	    bit = 256 - (first ^ last).bit_length()
//	    n = sum(1 for i in ids if not i[bit // 8] >> (7 - bit % 8) & 1)
//	    return sha(b"\x11", bytes([bit]), root(ids[:n]), root(ids[n:]))
//
//	print(root(sorted({bytes.fromhex(line) for line in sys.stdin})).hex())
//
// # Proofs
//
// Because the bit is hashed, the walk from the root that follows an id's bits is
// proven step by step, and where it ends decides: at the id (it is in the set),
// at another id, or nowhere, in the empty set (it is not). A proof is
//
//	proof = 0x00                      the set is empty
//	      | 0x01 step*                the id is in the set
//	      | 0x02 other step*          the walk ends at another id, of 32 bytes
//	step  = bit sibling               1 and 32 bytes, from the root down
//
// with bits that grow. What decodes encodes to the same bytes. A proof of absence
// serves every id whose walk ends there, and only ids that are absent.
//
// # Differences
//
// [Diff] compares a set with another party's, of which it knows the root only, by
// asking for the tops of subtrees, several levels at once. The subtree of all ids
// with a prefix, of so many levels, is told as
//
//	subtree = 0x00                           there are none
//	        | 0x02…0x08 id*                  so many ids, if that is all; in order
//	        | node
//	node    = 0x01 id                        one id
//	        | 0x11 bit skipped left right    a branch; left and right are nodes
//	        | 0x12 hash                      after the last level: what is below
//
// Skipped is there when the bit of a branch is not the one after the prefix: the
// prefix that all below have in common, of bits up to that one, padded with zeros
// to whole bytes, from the first byte on that the longer prefix adds bits to. What
// decodes encodes to the same bytes. Every answer must hash to what its parent
// said, so a liar can refuse to answer, but not mislead: see [Diff].
//
// A root says nothing of who vouches for it, nor of what the ids stand for. It is
// signed as a note of its own kind, and never as a checkpoint.
package set

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"math/bits"
	"slices"
	"sort"
	"strings"
	"sync/atomic"

	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// idBits is the length of an id.
const idBits = 8 * sha256.Size

// Hash is the hash of a set or of a subtree of its trie.
type Hash [sha256.Size]byte

// String returns the hash as 64 lower-case hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash reads 64 lower-case hex digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) || s != strings.ToLower(s) {
		return Hash{}, fmt.Errorf("hash of a set %q: wanted 64 lower-case hex digits", s)
	}
	copy(h[:], b)
	return h, nil
}

// Empty is the root of the empty set.
var Empty = Hash(sha256.Sum256([]byte("remembrancer/set/v1/empty")))

func leafHash(id *receipt.ID) Hash {
	var b [1 + sha256.Size]byte
	b[0] = 0x10
	copy(b[1:], id[:])
	return sha256.Sum256(b[:])
}

func branchHash(bit int, left, right *Hash) Hash {
	var b [2 + 2*sha256.Size]byte
	b[0], b[1] = 0x11, byte(bit)
	copy(b[2:], left[:])
	copy(b[2+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// bitOf returns bit i of an id, 0 or 1.
func bitOf(id *receipt.ID, i int) int { return int(id[i/8]>>(7-i%8)) & 1 }

// firstDifference returns the first bit in which two ids differ; idBits when they
// are the same.
func firstDifference(a, b *receipt.ID) int {
	for i := 0; i < len(a); i += 8 {
		if x := binary.BigEndian.Uint64(a[i:]) ^ binary.BigEndian.Uint64(b[i:]); x != 0 {
			return 8*i + bits.LeadingZeros64(x)
		}
	}
	return idBits
}

func compare(a, b receipt.ID) int { return bytes.Compare(a[:], b[:]) }

// Root returns the root of the set of some ids, in any order; an id that comes
// twice counts once. It is the faster way when only the root is wanted: it needs
// 32 bytes an id.
func Root(ids []receipt.ID) Hash {
	if len(ids) == 0 {
		return Empty
	}
	if !slices.IsSortedFunc(ids, compare) {
		ids = inOrder(ids)
	}
	return rootOfSorted(ids)
}

// inOrder returns a sorted copy. Ids are hashes: put where their first two bytes
// say, they are nearly in order, which is twice as fast as comparing them. Those
// that are not hashes only take longer.
func inOrder(ids []receipt.ID) []receipt.ID {
	if len(ids) < 1<<12 {
		ids = slices.Clone(ids)
		slices.SortFunc(ids, compare)
		return ids
	}
	to := make([]receipt.ID, len(ids))
	var ends [1<<16 + 1]uint32 // of those that begin with the number before
	for i := range ids {
		ends[1+int(binary.BigEndian.Uint16(ids[i][:]))]++
	}
	for i := range len(ends) - 1 {
		ends[i+1] += ends[i]
	}
	for i := range ids {
		at := &ends[binary.BigEndian.Uint16(ids[i][:])]
		to[*at] = ids[i]
		*at++
	}
	from := uint32(0)
	for _, end := range ends {
		slices.SortFunc(to[from:end], compare)
		from = end
	}
	return to
}

// rootOfSorted hashes ids that are in order, at least one. It is at most as deep
// as an id has bits.
func rootOfSorted(ids []receipt.ID) Hash {
	bit := firstDifference(&ids[0], &ids[len(ids)-1])
	if bit == idBits {
		return leafHash(&ids[0])
	}
	split := sort.Search(len(ids), func(i int) bool { return bitOf(&ids[i], bit) == 1 })
	left, right := rootOfSorted(ids[:split]), rootOfSorted(ids[split:])
	return branchHash(bit, &left, &right)
}

// Set is a set of ids. Its zero value is the empty set. It takes 76 bytes an id,
// and where it is cloned between additions at most twice that and what the lists
// have grown ahead.
//
// It is not safe for concurrent use, except that after a call of Root or Clone
// everything but Add may run concurrently until the next Add. A clone is a set of
// its own: adding to one of the two does not disturb those who read the other.
type Set struct {
	// Nodes name each other by index, so that a million of them are two pieces of
	// memory without a pointer. Neither slice ever shrinks.
	ids      []receipt.ID
	branches []branch
	root     ref // of no meaning while there are no ids
	// The branches below this index may also be those of clones: instead of being
	// written again they are replaced by copies, which leaves the old ones behind.
	shared atomic.Uint32
}

type branch struct {
	child [2]ref
	bit   uint8
	stale bool // hash is not that of the children
	hash  Hash
}

// ref names a node: a branch, or with the highest bit set an id.
type ref uint32

const isID ref = 1 << 31

func (r ref) leaf() bool { return r&isID != 0 }

func (s *Set) id(r ref) *receipt.ID { return &s.ids[r&^isID] }

// Of returns the set of some ids, in any order and with repetitions. It is the
// faster way to begin with many.
func Of(ids ...receipt.ID) *Set {
	s := &Set{ids: slices.Compact(inOrder(ids))}
	if n := len(s.ids); n > 0 {
		s.branches = make([]branch, 0, n-1)
		s.root, _ = s.build(0, n)
	}
	return s
}

// build makes the nodes above the ids of some indexes, which are in order.
func (s *Set) build(from, to int) (ref, Hash) {
	bit := firstDifference(&s.ids[from], &s.ids[to-1])
	if bit == idBits {
		return isID | ref(from), leafHash(&s.ids[from])
	}
	r := ref(len(s.branches))
	s.branches = append(s.branches, branch{bit: uint8(bit)})
	split := from + sort.Search(to-from, func(i int) bool { return bitOf(&s.ids[from+i], bit) == 1 })
	b := &s.branches[r] // there is room for all
	var left, right Hash
	b.child[0], left = s.build(from, split)
	b.child[1], right = s.build(split, to)
	b.hash = branchHash(bit, &left, &right)
	return r, b.hash
}

// Add puts an id into the set, and reports whether it is new there.
func (s *Set) Add(id receipt.ID) bool {
	if len(s.ids) >= int(isID)/4 {
		panic("set: more than 2^29 ids")
	}
	leaf := isID | ref(len(s.ids))
	if len(s.ids) == 0 {
		s.ids, s.root = append(s.ids, id), leaf
		return true
	}
	bit := firstDifference(&id, s.id(s.nearest(&id)))
	if bit == idBits {
		return false
	}
	s.ids = append(s.ids, id)
	s.root = s.insert(s.root, &id, leaf, bit)
	// What is left behind stays less than what is in use, and the cost of clearing
	// it away small beside that of leaving it.
	if most := 2*len(s.ids) + 4*idBits; len(s.branches) > most {
		old := s.branches
		s.branches = make([]branch, 0, most)
		s.root = s.keep(old, s.root)
		s.shared.Store(0)
	}
	return true
}

// insert puts an id that first differs from all others in a bit below a node, and
// returns what is now in its place.
func (s *Set) insert(r ref, id *receipt.ID, leaf ref, bit int) ref {
	if r.leaf() || int(s.branches[r].bit) > bit {
		b := branch{bit: uint8(bit), stale: true}
		side := bitOf(id, bit)
		b.child[side], b.child[1-side] = leaf, r
		s.branches = append(s.branches, b)
		return ref(len(s.branches) - 1)
	}
	if uint32(r) < s.shared.Load() {
		s.branches = append(s.branches, s.branches[r])
		r = ref(len(s.branches) - 1)
	}
	b := &s.branches[r]
	b.stale = true
	side := bitOf(id, int(b.bit))
	child := s.insert(b.child[side], id, leaf, bit)
	s.branches[r].child[side] = child // b may be where the branches were
	return r
}

// keep copies the branches that are still in use.
func (s *Set) keep(old []branch, r ref) ref {
	if r.leaf() {
		return r
	}
	kept := ref(len(s.branches))
	s.branches = append(s.branches, old[r])
	for side, child := range old[r].child {
		s.branches[kept].child[side] = s.keep(old, child)
	}
	return kept
}

// nearest returns the id at which the walk ends that follows an id's bits. If the
// id is in the set, it is that one.
func (s *Set) nearest(id *receipt.ID) ref {
	r := s.root
	for !r.leaf() {
		b := &s.branches[r]
		r = b.child[bitOf(id, int(b.bit))]
	}
	return r
}

// first returns the lowest id below a node.
func (s *Set) first(r ref) *receipt.ID {
	for !r.leaf() {
		r = s.branches[r].child[0]
	}
	return s.id(r)
}

// Has reports whether an id is in the set.
func (s *Set) Has(id receipt.ID) bool {
	return len(s.ids) > 0 && *s.id(s.nearest(&id)) == id
}

// Len returns the number of ids.
func (s *Set) Len() int { return len(s.ids) }

// Root returns the root of the set. It hashes only what was added since the last
// call.
func (s *Set) Root() Hash {
	if len(s.ids) == 0 {
		return Empty
	}
	return s.hash(s.root)
}

func (s *Set) hash(r ref) Hash {
	if r.leaf() {
		return leafHash(s.id(r))
	}
	b := &s.branches[r]
	if b.stale {
		left, right := s.hash(b.child[0]), s.hash(b.child[1])
		b.hash, b.stale = branchHash(int(b.bit), &left, &right), false
	}
	return b.hash
}

// All yields the ids in order.
func (s *Set) All() iter.Seq[receipt.ID] {
	return func(yield func(receipt.ID) bool) {
		if len(s.ids) > 0 {
			s.below(s.root, yield)
		}
	}
}

// below yields the ids below a node, in order, and reports whether all were
// wanted.
func (s *Set) below(r ref, yield func(receipt.ID) bool) bool {
	if r.leaf() {
		return yield(*s.id(r))
	}
	child := s.branches[r].child
	return s.below(child[0], yield) && s.below(child[1], yield)
}

// Clone returns a copy that does not change with the set: what a peer is shown
// while ids go on coming. It costs nothing but what Root does; the two share their
// memory, and an addition to one of them copies what it changes, some 20 branches
// in a set of a million, unless they were copied since. A clone that is kept keeps
// all that the set then had, also when the set has moved to larger lists.
func (s *Set) Clone() *Set {
	s.Root()
	s.shared.Store(uint32(len(s.branches)))
	c := &Set{ids: slices.Clip(s.ids), branches: slices.Clip(s.branches), root: s.root}
	c.shared.Store(uint32(len(c.branches)))
	return c
}
