package set

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// MaxBatch is the most nodes that [Diff] asks for at once.
const MaxBatch = 512

// ErrBudget is returned when two sets differ in more than was to be looked at.
// Taking the other party's whole set is cheaper then.
var ErrBudget = errors.New("sets differ in more than the budget allows")

// Prefix is the first bits of ids. Its zero value has none, and is the prefix of
// all ids.
type Prefix struct {
	bits receipt.ID // zero from n on
	n    int
}

// PrefixOf returns the first n bits of an id. It panics unless n is 0 to 256.
func PrefixOf(id receipt.ID, n int) Prefix {
	if n < 0 || n > idBits {
		panic("set: a prefix has 0 to 256 bits")
	}
	for i := (n + 7) / 8; i < len(id); i++ {
		id[i] = 0
	}
	if n%8 != 0 {
		id[n/8] &= 0xff << (8 - n%8)
	}
	return Prefix{id, n}
}

// ParsePrefix reads what String writes.
func ParsePrefix(s string) (Prefix, error) {
	digits, length, _ := strings.Cut(s, "/")
	b, err := hex.DecodeString(digits)
	n, nerr := strconv.Atoi(length)
	if err == nil && nerr == nil && n >= 0 && n <= idBits && len(b) == (n+7)/8 {
		var id receipt.ID
		copy(id[:], b)
		if p := PrefixOf(id, n); p.String() == s {
			return p, nil
		}
	}
	return Prefix{}, fmt.Errorf("prefix %q: wanted lower-case hex digits of as few bytes as hold the bits, a slash, and the number of bits from 0 to 256, such as a0/3", s)
}

// String writes the bits as hex digits, padded with zeros to whole bytes, a slash
// and the number of bits: a0/3 is 101.
func (p Prefix) String() string {
	return hex.EncodeToString(p.bits[:(p.n+7)/8]) + "/" + strconv.Itoa(p.n)
}

// Len returns the number of bits.
func (p Prefix) Len() int { return p.n }

// Of reports whether an id begins with the prefix.
func (p Prefix) Of(id receipt.ID) bool { return firstDifference(&p.bits, &id) >= p.n }

// covers reports whether all that begins with q begins with p.
func (p Prefix) covers(q Prefix) bool { return p.n <= q.n && p.Of(q.bits) }

// child is the prefix with one bit more.
func (p Prefix) child(side int) Prefix {
	p.bits[p.n/8] |= byte(side) << (7 - p.n%8)
	p.n++
	return p
}

// Node is the top node of a subtree: that of all ids with some prefix. Its zero
// value is the subtree of no ids.
type Node struct {
	// Prefix is what all ids of the subtree have in common: of one id all its
	// bits, of more the bits before the branch.
	Prefix Prefix
	// Left and Right are the subtrees below a branch; zero for an id.
	Left, Right Hash
}

// ID returns the only id of the subtree, if it has just one.
func (n Node) ID() (receipt.ID, bool) { return n.Prefix.bits, n.Prefix.n == idBits }

// Hash returns the hash of the subtree.
func (n Node) Hash() Hash {
	if n == (Node{}) {
		return Empty
	}
	if id, ok := n.ID(); ok {
		return leafHash(&id)
	}
	return branchHash(n.Prefix.n, &n.Left, &n.Right)
}

// Source is another party's set as it was at one root.
type Source interface {
	// Nodes returns the top nodes of the subtrees of all ids with each prefix, in
	// the same order. It must bound what it reads of the other party.
	Nodes(ctx context.Context, prefixes []Prefix) ([]Node, error)
}

// Nodes returns the top nodes of the subtrees of all ids with each prefix: the
// answers to another party's [Diff]. It never fails.
func (s *Set) Nodes(_ context.Context, prefixes []Prefix) ([]Node, error) {
	nodes := make([]Node, len(prefixes))
	for i, p := range prefixes {
		r, ok := s.locate(p)
		switch {
		case !ok:
		case r.leaf():
			nodes[i].Prefix = PrefixOf(*s.id(r), idBits)
		default:
			b := &s.branches[r]
			nodes[i] = Node{PrefixOf(*s.first(r), int(b.bit)), s.hash(b.child[0]), s.hash(b.child[1])}
		}
	}
	return nodes, nil
}

// locate returns the top node of the subtree of all ids with a prefix, if there
// are any.
func (s *Set) locate(p Prefix) (ref, bool) {
	if len(s.ids) == 0 {
		return 0, false
	}
	r := s.root
	for !r.leaf() && int(s.branches[r].bit) < p.n {
		b := &s.branches[r]
		r = b.child[bitOf(&p.bits, int(b.bit))]
	}
	return r, p.Of(*s.first(r))
}

// outside yields the ids that have the prefix p, but not the longer one q.
func (s *Set) outside(p, q Prefix, yield func(receipt.ID) bool) {
	r, ok := s.locate(p)
	if !ok {
		return
	}
	for !r.leaf() && int(s.branches[r].bit) < q.n {
		b := &s.branches[r]
		side := bitOf(&q.bits, int(b.bit))
		s.below(b.child[1-side], yield)
		r = b.child[side]
	}
	if !q.Of(*s.first(r)) {
		s.below(r, yield)
	}
}

// Diff compares a set with another party's of the given root: missing are the ids
// that only the other has, extra those that only local has, both in order. It
// asks for at most budget nodes, then it is an [ErrBudget]; equal subtrees are
// not entered, so d differing ids in a set of n cost about 2d(1+log2(n/d)) nodes.
//
// The other party is believed in nothing but its root. Each answer must hash to
// what its parent said, and lie where it was asked for. A branch's own prefix is
// not hashed, but a false one comes to nothing: each subtree below it either has
// the hash of a subtree of local, with that prefix, or is followed down to ids,
// which must have it. So without an error, missing and extra are true of the set
// that has this root. With one, nothing is returned.
func Diff(ctx context.Context, local *Set, root Hash, remote Source, budget int) (missing, extra []receipt.ID, err error) {
	type subtree struct {
		prefix Prefix
		hash   Hash
	}
	var todo []subtree
	switch root {
	case local.Root():
	case Empty:
		extra = slices.Collect(local.All())
	default:
		todo = append(todo, subtree{Prefix{}, root})
	}
	for len(todo) > 0 {
		// The last ones first: what is still to do stays short.
		batch := slices.Clone(todo[max(0, len(todo)-MaxBatch):])
		todo = todo[:len(todo)-len(batch)]
		if budget -= len(batch); budget < 0 {
			return nil, nil, ErrBudget
		}
		prefixes := make([]Prefix, len(batch))
		for i := range batch {
			prefixes[i] = batch[i].prefix
		}
		nodes, err := remote.Nodes(ctx, prefixes)
		if err != nil {
			return nil, nil, err
		}
		if len(nodes) != len(batch) {
			return nil, nil, fmt.Errorf("set of root %s: found %d nodes, wanted the %d that were asked for", root, len(nodes), len(batch))
		}
		for i, want := range batch {
			n := nodes[i]
			if n == (Node{}) {
				return nil, nil, fmt.Errorf("set of root %s, prefix %s: found no ids, wanted those of subtree %s", root, want.prefix, want.hash)
			}
			if got := n.Hash(); got != want.hash {
				return nil, nil, fmt.Errorf("set of root %s, prefix %s: found subtree %s, wanted %s", root, want.prefix, got, want.hash)
			}
			if !want.prefix.covers(n.Prefix) {
				return nil, nil, fmt.Errorf("set of root %s, prefix %s: found ids that begin with %s", root, want.prefix, n.Prefix)
			}
			local.outside(want.prefix, n.Prefix, func(id receipt.ID) bool {
				extra = append(extra, id)
				return true
			})
			if id, ok := n.ID(); ok {
				if !local.Has(id) {
					missing = append(missing, id)
				}
				continue
			}
			for side, hash := range [2]Hash{n.Left, n.Right} {
				p := n.Prefix.child(side)
				if r, ok := local.locate(p); !ok || local.hash(r) != hash {
					todo = append(todo, subtree{p, hash})
				}
			}
		}
	}
	slices.SortFunc(missing, compare)
	slices.SortFunc(extra, compare)
	return missing, extra, nil
}
