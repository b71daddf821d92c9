package set

import (
	"context"
	"errors"
	"fmt"

	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// What one request of subtrees may ask for.
const (
	// MaxPrefixes is the most prefixes.
	MaxPrefixes = 8192
	// MaxLevels is the most levels of branches below a prefix.
	MaxLevels = 9
	// MaxFrontier is the most nodes that may end the expansions: a prefix of n
	// levels counts for two to the power of n.
	MaxFrontier = 4 * MaxPrefixes
	// MaxAnswer is the most bytes that all subtrees of one answer take, about
	// 2 MB: a full frontier of hashes, and branches that skip as much as can be.
	MaxAnswer = MaxFrontier * (1 + len(Hash{}) + 2 + len(receipt.ID{}))
)

// fewIDs is the most ids of which a whole subtree is told at once: to go on
// asking for the parts of so few takes more bytes than it saves.
const fewIDs = 8

// The kinds of a subtree, and first bytes of its encoding; below them is the
// number of ids.
const (
	kindBranch = 0x11
	kindHash   = 0x12
)

// subtree is what a party tells of all ids with some prefix.
type subtree struct {
	kind  byte
	hash  Hash
	ids   []receipt.ID // unless it is a branch or a hash
	own   Prefix       // of a branch: the bits before it
	child [2]*subtree  // of a branch
}

// Subtrees returns the encoded subtrees of all ids with each prefix, so many
// levels of branches deep: the answers to another party's [Diff]. It is an error
// to ask for more than the limits allow.
func (s *Set) Subtrees(_ context.Context, prefixes []Prefix, levels int) ([][]byte, error) {
	switch {
	case levels < 1 || levels > MaxLevels:
		return nil, fmt.Errorf("subtrees of %d levels, wanted 1 to %d", levels, MaxLevels)
	case len(prefixes) > MaxPrefixes:
		return nil, fmt.Errorf("subtrees of %d prefixes, wanted at most %d", len(prefixes), MaxPrefixes)
	case len(prefixes)<<levels > MaxFrontier:
		return nil, fmt.Errorf("subtrees of %d prefixes and %d levels, wanted at most %d prefixes so deep", len(prefixes), levels, MaxFrontier>>levels)
	}
	answers := make([][]byte, len(prefixes))
	for i, p := range prefixes {
		t := &subtree{}
		if r, ok := s.locate(p); ok {
			if t = s.few(r); t == nil {
				t = s.expand(r, levels)
			}
		}
		answers[i] = t.append(nil, p)
	}
	return answers, nil
}

// few returns the subtree below a node as its ids, nil if they are many.
func (s *Set) few(r ref) *subtree {
	var ids []receipt.ID
	if !s.below(r, func(id receipt.ID) bool {
		ids = append(ids, id)
		return len(ids) <= fewIDs
	}) {
		return nil
	}
	return &subtree{kind: byte(len(ids)), ids: ids}
}

// expand returns the subtree below a node, without the hashes that follow from
// what it holds.
func (s *Set) expand(r ref, levels int) *subtree {
	switch {
	case r.leaf():
		return &subtree{kind: 1, ids: []receipt.ID{*s.id(r)}}
	case levels == 0:
		return &subtree{kind: kindHash, hash: s.hash(r)}
	}
	b := &s.branches[r]
	return &subtree{
		kind:  kindBranch,
		own:   PrefixOf(*s.first(r), int(b.bit)),
		child: [2]*subtree{s.expand(b.child[0], levels-1), s.expand(b.child[1], levels-1)},
	}
}

// append encodes the subtree of all ids with a prefix.
func (t *subtree) append(b []byte, p Prefix) []byte {
	b = append(b, t.kind)
	switch t.kind {
	case kindHash:
		return append(b, t.hash[:]...)
	case kindBranch:
		b = append(append(b, byte(t.own.n)), t.own.bits[skipped(p.n, t.own.n):(t.own.n+7)/8]...)
		return t.child[1].append(t.child[0].append(b, t.own.child(0)), t.own.child(1))
	}
	for i := range t.ids {
		b = append(b, t.ids[i][:]...)
	}
	return b
}

// skipped returns the first of the bytes that hold what a branch skips, of a
// prefix of n bits below one of so many.
func skipped(above, n int) int {
	if n == above {
		return (n + 7) / 8
	}
	return above / 8
}

// size is the number of hashes and ids.
func (t *subtree) size() int {
	switch t.kind {
	case kindHash:
		return 1
	case kindBranch:
		return t.child[0].size() + t.child[1].size()
	}
	return len(t.ids)
}

var errCut = errors.New("subtree ends too early")

// parseSubtree decodes a subtree of all ids with a prefix, of exactly so many
// levels. What it accepts encodes back to the same bytes.
func parseSubtree(p Prefix, levels int, b []byte) (*subtree, error) {
	t, rest, err := parseNode(p, levels, b, fewIDs)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("subtree has %d bytes after its end", len(rest))
	}
	return t, nil
}

// parseNode decodes one node and what is below it; most is how many ids may be
// told at once, and more than one of them only at the top.
func parseNode(p Prefix, levels int, b []byte, most int) (*subtree, []byte, error) {
	if len(b) == 0 {
		return nil, nil, errCut
	}
	t := &subtree{kind: b[0]}
	b = b[1:]
	switch {
	case t.kind == kindHash:
		// Higher up it would be an answer that tells nothing.
		if levels > 0 {
			return nil, nil, fmt.Errorf("subtree has a hash %d levels too early", levels)
		}
		if len(b) < len(t.hash) {
			return nil, nil, errCut
		}
		return t, b[copy(t.hash[:], b):], nil
	case t.kind == kindBranch:
		if levels == 0 {
			return nil, nil, errors.New("subtree has more levels than were asked for")
		}
		return t.parseBranch(p, levels, b)
	case int(t.kind) > most:
		return nil, nil, fmt.Errorf("subtree has a node of kind 0x%02x, wanted a branch, a hash or at most %d ids", t.kind, most)
	case t.kind == 0 && most == 1:
		return nil, nil, errors.New("subtree has a branch without ids on one side")
	}
	t.hash = Empty
	for i := range int(t.kind) {
		if len(b) < len(receipt.ID{}) {
			return nil, nil, errCut
		}
		id := receipt.ID(b[:len(receipt.ID{})])
		b = b[len(id):]
		if !p.Of(id) {
			return nil, nil, fmt.Errorf("found id %s, which does not begin with %s", id, p)
		}
		if i > 0 && compare(t.ids[i-1], id) >= 0 {
			return nil, nil, errors.New("subtree has ids that are not in order")
		}
		t.ids = append(t.ids, id)
	}
	if len(t.ids) > 0 {
		t.hash = rootOfSorted(t.ids)
	}
	return t, b, nil
}

func (t *subtree) parseBranch(p Prefix, levels int, b []byte) (*subtree, []byte, error) {
	if len(b) == 0 {
		return nil, nil, errCut
	}
	bit := int(b[0])
	b = b[1:]
	if bit < p.n {
		return nil, nil, fmt.Errorf("found a branch at bit %d, which all that begin with %s have in common", bit, p)
	}
	from := skipped(p.n, bit)
	n := (bit+7)/8 - from
	if len(b) < n {
		return nil, nil, errCut
	}
	t.own = p
	copy(t.own.bits[from:], b[:n])
	t.own.n = bit
	b = b[n:]
	if !p.covers(t.own) || t.own != PrefixOf(t.own.bits, bit) {
		return nil, nil, fmt.Errorf("found a branch at bit %d with bits that do not begin with %s, or with too many", bit, p)
	}
	for side := range t.child {
		var err error
		if t.child[side], b, err = parseNode(t.own.child(side), levels-1, b, 1); err != nil {
			return nil, nil, err
		}
	}
	t.hash = branchHash(bit, &t.child[0].hash, &t.child[1].hash)
	return t, b, nil
}
