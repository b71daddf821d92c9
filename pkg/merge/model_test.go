package merge_test

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// The model: three nodes, each the home of one issuer. A signature is the name of
// who made it. Time is the order of the home logs.

const (
	nodes     = 3
	issuable  = 6 // receipts that an issuer makes, in the order of its home log
	stealable = 2 // receipts that a thief of its key makes
	forgeable = 2 // receipts that somebody else makes in its name
)

var nodeNames = [nodes]string{"a", "b", "c"}

// letter is a log line, symbolically. Receipts are told apart by issuer and
// number; a receipt can have several lines.
type letter struct {
	issuer, number int
	signer         int  // who signed for the issuer
	home           bool // it is the line of the home log, at the index of its number
}

// id is the receipt of a line.
func (l letter) id() [2]int { return [2]int{l.issuer, l.number} }

// standing is what a trust state says of one issuer.
type standing struct {
	member bool
	cutoff int // entries of its home log that count; -1 for all, and what comes
}

type symbolicTrust [nodes]standing

// valid is the rule. Proven says that a proof of the cutoff is at hand.
func (s symbolicTrust) valid(l letter, proven bool) bool {
	st := s[l.issuer]
	switch {
	case !st.member || l.signer != l.issuer:
		return false
	case st.cutoff < 0:
		return true
	}
	return proven && l.home && l.number < st.cutoff
}

// real holds the lines that the letters stand for, with real signatures.
type real struct {
	lines map[letter]string
	ids   map[[2]int]receipt.ID
	trees [nodes][issuable + 1]*ledger.Tree
}

var reality = sync.OnceValue(func() *real {
	t := &testing.T{} // these receipts are right; a mistake here panics
	w := &real{lines: map[letter]string{}, ids: map[[2]int]receipt.ID{}}
	for i, issuer := range nodeNames {
		other := nodeNames[(i+1)%nodes]
		var leaves []checkpoint.Hash
		for n := range issuable + stealable + forgeable {
			r := statement(t, receipt.ADR, issuer, fmt.Sprint(n))
			w.ids[[2]int{i, n}] = r.ID()
			switch {
			case n < issuable:
				l := line(t, r, issuer)
				w.lines[letter{i, n, i, true}] = l
				leaves = append(leaves, ledger.RecordHash([]byte(l)))
				// The same receipt with an endorsement is another line.
				w.lines[letter{i, n, i, false}] = line(t, r, issuer, other)
			case n < issuable+stealable:
				w.lines[letter{i, n, i, false}] = line(t, r, issuer)
			default:
				w.lines[letter{i, n, (i + 1) % nodes, false}] = line(t, r, other+" for "+issuer)
			}
		}
		for size := range w.trees[i] {
			w.trees[i][size] = ledger.NewTree(leaves[:size])
		}
	}
	return w
})

func (w *real) trust(s symbolicTrust) *merge.Trust {
	var members []merge.Member
	for i, st := range s {
		if !st.member {
			continue
		}
		m := merge.Member{Key: public(&testing.T{}, nodeNames[i])}
		if st.cutoff >= 0 {
			root, err := w.trees[i][st.cutoff].Root(int64(st.cutoff))
			if err != nil {
				panic(err)
			}
			m.Cutoff = &merge.Cutoff{Size: int64(st.cutoff), Root: root}
		}
		members = append(members, m)
	}
	t, err := merge.NewTrust(members...)
	if err != nil {
		panic(err)
	}
	return t
}

// item is a line as it travels. A proof can only be made of what was in the home
// log below the cutoff.
func (w *real) item(s symbolicTrust, l letter, proven bool) merge.Item {
	it := merge.Item{Line: w.lines[l]}
	if c := s[l.issuer].cutoff; proven && l.home && l.number < c {
		hashes, err := w.trees[l.issuer][c].Inclusion(int64(c), int64(l.number))
		if err != nil {
			panic(err)
		}
		it.Proof = merge.NewHomeProof(int64(l.number), hashes)
	}
	return it
}

// The model's rule and the code must agree on everything, since what follows is
// shown of the model.
func TestTheCodeJudgesAsTheModelDoes(t *testing.T) {
	w := reality()
	var all []standing
	for c := -1; c <= issuable; c++ {
		all = append(all, standing{true, c})
	}
	all = append(all, standing{false, -1})
	n := 0
	for _, st := range all {
		for i := range nodes {
			s := symbolicTrust{{true, -1}, {true, 2}, {true, -1}}
			s[i] = st
			state := w.trust(s)
			for l := range w.lines {
				if l.issuer != i {
					continue
				}
				for _, proven := range []bool{false, true} {
					it := w.item(s, l, proven)
					if proven && it.Proof == nil {
						continue // as without
					}
					e, r := state.Judge(it)
					assert.Equal(t, r == nil, s.valid(l, proven), "%v %v %v: %v", s, l, proven, r)
					if r == nil {
						assert.Equal(t, e.Receipt.ID(), w.ids[l.id()])
					}
					n++
				}
			}
		}
	}
	assert.Assert(t, n > 400, "%d", n)
}

// known is a line that a node keeps, and whether with a proof for the newest trust
// state.
type known map[letter]bool

type modelNode struct {
	trust symbolicTrust
	lines known
}

// take is what a node does with what it is given: what is not valid is not kept.
func (m *modelNode) take(l letter, proven bool) {
	if m.trust.valid(l, proven) {
		m.lines[l] = m.lines[l] || proven
	}
}

// valid returns the ids of the node's set.
func (m *modelNode) valid() map[[2]int]bool {
	ids := map[[2]int]bool{}
	for l, proven := range m.lines {
		if m.trust.valid(l, proven) {
			ids[l.id()] = true
		}
	}
	return ids
}

// adopt gives a node another trust state. Proofs are of one cutoff; only an
// issuer's own node can make others.
func (m *modelNode) adopt(self int, s symbolicTrust) {
	for l := range m.lines {
		if m.trust[l.issuer] != s[l.issuer] {
			m.lines[l] = l.issuer == self
		}
	}
	m.trust = s
}

// give sends what the other lacks, as a sync does: by ids, with a line that makes
// each of them valid.
func (m *modelNode) give(to *modelNode) {
	there := to.valid()
	for l, proven := range m.lines {
		if m.trust.valid(l, proven) && !there[l.id()] {
			to.take(l, proven)
		}
	}
}

func (m *modelNode) root(w *real) set.Hash {
	var s set.Set
	for id := range m.valid() {
		s.Add(w.ids[id])
	}
	return s.Root()
}

// Whatever is issued, forged and stolen, whoever is revoked, and in whatever order
// nodes hear of it: once they have the same trust state and could talk to each
// other, they have the same root, and it is that of all that any of them knew.
func TestTheSameTrustAndKnowledgeGiveTheSameRoot(t *testing.T) {
	w := reality()
	letters := slices.SortedFunc(maps.Keys(w.lines), func(a, b letter) int {
		return slices.Compare([]int{a.issuer, a.number, a.signer, btoi(a.home)}, []int{b.issuer, b.number, b.signer, btoi(b.home)})
	})
	rapid.Check(t, func(t *rapid.T) {
		var all [nodes]*modelNode
		newest := symbolicTrust{{true, -1}, {true, -1}, {true, -1}}
		for i := range all {
			all[i] = &modelNode{newest, known{}}
		}
		var issued [nodes]int
		cut := map[[2]int]bool{}
		node := rapid.IntRange(0, nodes-1)
		link := func() [2]int {
			i := node.Draw(t, "from")
			j := (i + rapid.IntRange(1, nodes-1).Draw(t, "distance")) % nodes
			return [2]int{min(i, j), max(i, j)}
		}
		t.Repeat(map[string]func(*rapid.T){
			"issue": func(t *rapid.T) {
				i := node.Draw(t, "node")
				if issued[i] < issuable {
					all[i].take(letter{i, issued[i], i, true}, true)
					issued[i]++
				}
			},
			// Anything that somebody could have made: old lines again, endorsed copies,
			// what a thief signs, and forgeries. A proof needs the home log.
			"hand over": func(t *rapid.T) {
				l := rapid.SampledFrom(letters).Draw(t, "line")
				if l.number < issuable && l.number >= issued[l.issuer] {
					return
				}
				all[node.Draw(t, "node")].take(l, false)
			},
			"revoke": func(t *rapid.T) {
				i := node.Draw(t, "issuer")
				newest[i].cutoff = rapid.IntRange(0, issued[i]).Draw(t, "cutoff")
			},
			"dismiss or admit": func(t *rapid.T) {
				i := node.Draw(t, "issuer")
				newest[i].member = !newest[i].member
			},
			"adopt": func(t *rapid.T) {
				i := node.Draw(t, "node")
				all[i].adopt(i, newest)
			},
			"cut":  func(*rapid.T) { cut[link()] = true },
			"heal": func(*rapid.T) { delete(cut, link()) },
			"sync": func(*rapid.T) {
				l := link()
				a, b := all[l[0]], all[l[1]]
				if cut[l] || a.trust != b.trust {
					return
				}
				a.give(b)
				b.give(a)
				if !maps.Equal(a.valid(), b.valid()) {
					t.Fatalf("after a sync, one has %v and the other %v", a.valid(), b.valid())
				}
			},
		})

		// In the end all nodes have the newest trust state, and talk in some order.
		want := set.Set{}
		for i, m := range all {
			m.adopt(i, newest)
			for id := range m.valid() {
				want.Add(w.ids[id])
			}
		}
		// To merge is to unite: in any order, any grouping, and again and again.
		var parts []*modelNode
		for range 2 * nodes {
			parts = append(parts, all[node.Draw(t, "part")])
		}
		parts = rapid.Permutation(append(parts, all[:]...)).Draw(t, "parts")
		split := rapid.IntRange(0, len(parts)).Draw(t, "grouping")
		var left, right set.Set
		for i, m := range parts {
			for id := range m.valid() {
				if i < split {
					left.Add(w.ids[id])
				} else {
					right.Add(w.ids[id])
				}
			}
		}
		for id := range right.All() {
			left.Add(id)
		}
		assert.Equal(t, left.Root(), want.Root())

		for range 2 {
			for _, l := range rapid.Permutation([][2]int{{0, 1}, {1, 2}, {0, 2}}).Draw(t, "order") {
				all[l[0]].give(all[l[1]])
				all[l[1]].give(all[l[0]])
			}
		}
		for i, m := range all {
			assert.Equal(t, m.root(w), want.Root(), "node %d", i)
		}
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
