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

// Source is another party's set as it was at one root.
type Source interface {
	// Subtrees returns the encoded subtrees of all ids with each prefix, in the
	// same order, as [Set.Subtrees] makes them. It must bound what it reads of
	// the other party: an honest answer is of at most [MaxAnswer] bytes.
	Subtrees(ctx context.Context, prefixes []Prefix, levels int) ([][]byte, error)
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
// that only the other has, extra those that only local has, both in order. Equal
// subtrees are not entered. Once the answers hold more than budget hashes and
// ids, of 33 bytes each, or must do so, it is an [ErrBudget]; a budget of the
// number of ids is what a plain list of them would cost.
//
// The other party is believed in nothing but its root. Each answer must hash to
// what its parent said, and lie where it was asked for. The bits that a branch
// skips are not hashed, but false ones come to nothing: each subtree below either
// has the hash of a subtree of local, with that prefix, or is followed down to
// ids, which must have it. So without an error, missing and extra are true of the
// set that has this root. With one, nothing is returned.
func Diff(ctx context.Context, local *Set, root Hash, remote Source, budget int) (missing, extra []receipt.ID, err error) {
	switch root {
	case local.Root():
		return nil, nil, nil
	case Empty:
		return nil, slices.Collect(local.All()), nil
	}
	d := difference{local: local, todo: []request{{Prefix{}, root}}}
	for len(d.todo) > 0 {
		// The last ones first: what is still to do stays short.
		batch := slices.Clone(d.todo[max(0, len(d.todo)-MaxPrefixes):])
		d.todo = d.todo[:len(d.todo)-len(batch)]
		if len(batch) > budget {
			return nil, nil, ErrBudget
		}
		prefixes := make([]Prefix, len(batch))
		for i := range batch {
			prefixes[i] = batch[i].prefix
		}
		levels := depth(len(batch))
		answers, err := remote.Subtrees(ctx, prefixes, levels)
		if err != nil {
			return nil, nil, err
		}
		if len(answers) != len(batch) {
			return nil, nil, fmt.Errorf("set of root %s: found %d subtrees, wanted the %d that were asked for", root, len(answers), len(batch))
		}
		for i, want := range batch {
			t, err := parseSubtree(want.prefix, levels, answers[i])
			switch {
			case err != nil:
			case t.kind == 0:
				err = fmt.Errorf("found no ids, wanted those of subtree %s", want.hash)
			case t.hash != want.hash:
				err = fmt.Errorf("found subtree %s, wanted %s", t.hash, want.hash)
			}
			if err != nil {
				return nil, nil, fmt.Errorf("set of root %s, prefix %s: %w", root, want.prefix, err)
			}
			if budget -= t.size(); budget < 0 {
				return nil, nil, ErrBudget
			}
			d.compare(want.prefix, t)
		}
	}
	slices.SortFunc(d.missing, compare)
	slices.SortFunc(d.extra, compare)
	return d.missing, d.extra, nil
}

// depth is the number of levels to ask for below so many prefixes. Two are the
// fewest bytes for each id that is found; as long as it is little that comes, more
// of them save round trips.
func depth(prefixes int) int {
	levels := MaxLevels
	for levels > 2 && prefixes<<levels > 1<<11 {
		levels--
	}
	return levels
}

// request is a subtree that is not one of local.
type request struct {
	prefix Prefix
	hash   Hash
}

// difference is what is known so far.
type difference struct {
	local          *Set
	missing, extra []receipt.ID
	todo           []request
}

// compare notes how local differs from a subtree of all ids with a prefix.
func (d *difference) compare(p Prefix, t *subtree) {
	r, ok := d.local.locate(p)
	if ok && d.local.hash(r) == t.hash {
		return
	}
	switch t.kind {
	case kindHash:
		d.todo = append(d.todo, request{p, t.hash})
	case kindBranch:
		d.local.outside(p, t.own, func(id receipt.ID) bool {
			d.extra = append(d.extra, id)
			return true
		})
		for side, child := range t.child {
			d.compare(t.own.child(side), child)
		}
	default:
		for _, id := range t.ids {
			if !d.local.Has(id) {
				d.missing = append(d.missing, id)
			}
		}
		if ok {
			d.local.below(r, func(id receipt.ID) bool {
				if !slices.Contains(t.ids, id) {
					d.extra = append(d.extra, id)
				}
				return true
			})
		}
	}
}
