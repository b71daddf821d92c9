package set_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// source is another party that counts, or lies or fails.
type source struct {
	*set.Set
	rounds, prefixes, nodes, bytes int
	turn                           func(prefixes []set.Prefix, answers [][]byte) ([][]byte, error)
}

func (s *source) Subtrees(ctx context.Context, prefixes []set.Prefix, levels int) ([][]byte, error) {
	answers, err := s.Set.Subtrees(ctx, prefixes, levels)
	if err != nil {
		return nil, err
	}
	if s.turn != nil {
		return s.turn(prefixes, answers)
	}
	s.rounds++
	s.prefixes += len(prefixes)
	for i, p := range prefixes {
		again, size, err := set.RecodeSubtree(p, levels, answers[i])
		if err != nil || string(again) != string(answers[i]) {
			return nil, errors.New("an honest answer does not encode back")
		}
		s.nodes += size
		s.bytes += len(p.String()) + len(answers[i])
	}
	return answers, nil
}

func less(a, b []receipt.ID) []receipt.ID {
	return sorted(slices.DeleteFunc(slices.Clone(a), func(id receipt.ID) bool { return slices.Contains(b, id) }))
}

// comb returns ids of which each shares one bit more with the last: as deep a
// trie as so many ids can have.
func comb(n int) []receipt.ID {
	ids := []receipt.ID{{}}
	for i := range n - 1 {
		var id receipt.ID
		id[i/8] = 1 << (7 - i%8)
		ids = append(ids, id)
	}
	return ids
}

// drawSides draws what two parties have; often deep enough for several rounds.
func drawSides(t *rapid.T) (ours, theirs []receipt.ID) {
	both := drawIDs(20).Draw(t, "both")
	if rapid.Bool().Draw(t, "deep") {
		both = append(both, comb(rapid.IntRange(1, 40).Draw(t, "depth"))...)
	}
	ours = append(drawIDs(6).Draw(t, "ours"), both...)
	theirs = append(drawIDs(6).Draw(t, "theirs"), both...)
	return ours, theirs
}

func TestDiffFindsAllThatOnlyOneSideHas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ours, theirs := drawSides(t)
		local, remote := of(ours...), &source{Set: of(theirs...)}
		missing, extra, err := set.Diff(t.Context(), local, remote.Root(), remote, 1e6)
		assert.NilError(t, err)
		assert.Assert(t, slices.Equal(missing, less(theirs, ours)))
		assert.Assert(t, slices.Equal(extra, less(ours, theirs)))

		// What it took is exactly the budget that it takes.
		needed := remote.nodes
		budget := rapid.IntRange(0, 2*needed).Draw(t, "budget")
		remote.prefixes = 0
		again, _, err := set.Diff(t.Context(), local, remote.Root(), remote, budget)
		if budget < needed {
			assert.ErrorIs(t, err, set.ErrBudget)
			assert.Assert(t, again == nil)
		} else {
			assert.NilError(t, err)
			assert.Assert(t, slices.Equal(again, missing))
		}
		assert.Assert(t, remote.prefixes <= budget)
	})
}

func TestDiffAsksForLittle(t *testing.T) {
	const n = 100_000
	ids := numbered(0, n+500)
	remote := &source{Set: set.Of(ids[500:]...)}
	missing, extra, err := set.Diff(t.Context(), set.Of(ids[500:]...), remote.Root(), remote, 0)
	assert.NilError(t, err)
	assert.Equal(t, len(missing)+len(extra)+remote.rounds, 0, "equal sets")

	for _, test := range []struct{ d, rounds, bytes int }{
		{1, 3, 40_000},
		{100, 5, 150_000},
		{1000, 6, 500_000}, // of the 3,200,000 of all ids
	} {
		*remote = source{Set: remote.Set}
		local := set.Of(ids[500-test.d/2 : n+500-(test.d+1)/2]...)
		missing, extra, err = set.Diff(t.Context(), local, remote.Root(), remote, n)
		assert.NilError(t, err)
		assert.Assert(t, slices.Equal(missing, sorted(ids[n+500-(test.d+1)/2:])))
		assert.Assert(t, slices.Equal(extra, sorted(ids[500-test.d/2:500])))
		assert.Assert(t, remote.rounds <= test.rounds, "%d differ: %d rounds", test.d, remote.rounds)
		assert.Assert(t, remote.bytes <= test.bytes, "%d differ: %d bytes", test.d, remote.bytes)
		t.Logf("%d differ: %d rounds, %d prefixes, %d hashes and ids, %d bytes", test.d, remote.rounds, remote.prefixes, remote.nodes, remote.bytes)
	}
}

func TestDiffStopsAtItsBudget(t *testing.T) {
	remote := &source{Set: of(numbered(0, 3000)...)}
	_, _, err := set.Diff(t.Context(), &set.Set{}, remote.Root(), remote, 2000)
	assert.ErrorIs(t, err, set.ErrBudget)
	assert.Assert(t, remote.prefixes <= 2000)
	missing, _, err := set.Diff(t.Context(), &set.Set{}, remote.Root(), remote, 2*3000)
	assert.NilError(t, err)
	assert.Equal(t, len(missing), 3000)
}

func TestDiffKeepsTheLimits(t *testing.T) {
	remote := &source{Set: set.Of(numbered(0, 100_000)...)}
	most := 0
	remote.turn = func(prefixes []set.Prefix, answers [][]byte) ([][]byte, error) {
		most = max(most, len(prefixes))
		size := 0
		for _, a := range answers {
			size += len(a)
		}
		assert.Assert(t, len(prefixes) <= set.MaxPrefixes && size <= set.MaxAnswer)
		return answers, nil
	}
	missing, _, err := set.Diff(t.Context(), &set.Set{}, remote.Root(), remote, 1e6)
	assert.NilError(t, err)
	assert.Equal(t, len(missing), 100_000)
	assert.Equal(t, most, set.MaxPrefixes)
}

func TestMoreThanTheLimitsIsNotAnswered(t *testing.T) {
	s := of(numbered(0, 40)...)
	for _, test := range []struct {
		prefixes, levels int
		want             string
	}{
		{1, 0, "subtrees of 0 levels, wanted 1 to 9"},
		{1, 10, "subtrees of 10 levels, wanted 1 to 9"},
		{8193, 1, "subtrees of 8193 prefixes, wanted at most 8192"},
		{4097, 3, "subtrees of 4097 prefixes and 3 levels, wanted at most 4096 prefixes so deep"},
	} {
		_, err := s.Subtrees(t.Context(), make([]set.Prefix, test.prefixes), test.levels)
		assert.Error(t, err, test.want)
	}
	for _, prefixes := range []int{0, 64} {
		answers, err := s.Subtrees(t.Context(), make([]set.Prefix, prefixes), 9)
		assert.NilError(t, err)
		assert.Equal(t, len(answers), prefixes)
	}
}

// As many bytes as there can be: long prefixes and full frontiers.
func TestAnAnswerIsAtMostAsLongAsSaid(t *testing.T) {
	var ids []receipt.ID
	for i := range 16 { // a branch at the last four bits, and one far below each
		id := receipt.ID{15: byte(i), 31: 1}
		ids = append(ids, id, receipt.ID{15: byte(i), 30: 1, 31: 1})
	}
	answers, err := of(ids...).Subtrees(t.Context(), []set.Prefix{{}}, 4)
	assert.NilError(t, err)
	assert.Assert(t, len(answers[0]) <= set.MaxAnswer/(set.MaxFrontier>>4), "%d bytes", len(answers[0]))
}

// The other party holds a set of 40, of which ours are a part, and lies about it.
func TestDiffRefusesALiar(t *testing.T) {
	ids := comb(40)
	other := of(numbered(100, 140)...)
	last := func(answers [][]byte, to string) ([][]byte, error) {
		answers[len(answers)-1] = []byte(to)
		return answers, nil
	}
	for _, test := range []struct {
		name string
		lie  func(prefixes []set.Prefix, answers [][]byte) ([][]byte, error)
		want string
	}{
		{"nothing is there", func(_ []set.Prefix, answers [][]byte) ([][]byte, error) {
			return last(answers, "\x00")
		}, "found no ids, wanted those of subtree"},
		{"no answer", func(_ []set.Prefix, answers [][]byte) ([][]byte, error) {
			return last(answers, "")
		}, "subtree ends too early"},
		{"another set", func(p []set.Prefix, _ [][]byte) ([][]byte, error) {
			return other.Subtrees(context.Background(), p, 9)
		}, "found subtree"},
		{"another id", func(_ []set.Prefix, answers [][]byte) ([][]byte, error) {
			answers[0][len(answers[0])-1] ^= 1
			return answers, nil
		}, "found subtree"},
		{"the hash that is asked about", func(_ []set.Prefix, answers [][]byte) ([][]byte, error) {
			root := of(ids...).Root()
			return last(answers, "\x12"+string(root[:]))
		}, "subtree has a hash 9 levels too early"},
		{"more levels", func(p []set.Prefix, answers [][]byte) ([][]byte, error) {
			again, err := of(comb(60)...).Subtrees(context.Background(), p, 9)
			if err == nil {
				// The same branch once more where the hash would be.
				answers[0] = slices.Concat(again[0][:2*9], again[0])
			}
			return answers, err
		}, "subtree has more levels than were asked for"},
		{"too few", func(_ []set.Prefix, answers [][]byte) ([][]byte, error) {
			return answers[1:], nil
		}, "subtrees, wanted the"},
		{"too many", func(_ []set.Prefix, answers [][]byte) ([][]byte, error) {
			return append(answers, answers...), nil
		}, "subtrees, wanted the"},
		{"silence", func([]set.Prefix, [][]byte) ([][]byte, error) {
			return nil, errors.New("stale root")
		}, "stale root"},
	} {
		t.Run(test.name, func(t *testing.T) {
			remote := &source{Set: of(ids...), turn: test.lie}
			missing, extra, err := set.Diff(t.Context(), of(ids[5:20]...), remote.Root(), remote, 1000)
			assert.ErrorContains(t, err, test.want)
			assert.Assert(t, missing == nil && extra == nil)
		})
	}
}

// Each byte of each answer takes every other value, one at a time; in short tests
// those of one bit more or less.
func TestAChangedByteIsRefusedOrHarmless(t *testing.T) {
	theirs := comb(11)
	theirs = append(theirs, receipt.ID{2: 1, 9: 1}, receipt.ID{2: 1, 9: 2}) // bits are skipped
	ours := append(slices.Clone(theirs[:9]), receipt.ID{20: 1})
	local, remote := of(ours...), &source{Set: of(theirs...)}
	root := remote.Root()
	missing, extra := less(theirs, ours), less(ours, theirs)
	answers, harmless := 0, 0
	for at := 0; ; at++ {
		length := 0
		run := func(i int, change byte) error {
			seen := 0
			remote.turn = func(_ []set.Prefix, answers [][]byte) ([][]byte, error) {
				for _, a := range answers {
					if seen == at {
						length = len(a)
						if i < len(a) {
							a[i] ^= change
						}
					}
					seen++
				}
				return answers, nil
			}
			m, e, err := set.Diff(t.Context(), local, root, remote, 1000)
			if err == nil {
				assert.Assert(t, slices.Equal(m, missing) && slices.Equal(e, extra))
			}
			return err
		}
		assert.NilError(t, run(0, 0))
		if length == 0 {
			break
		}
		answers++
		for i := range length {
			for change := 1; change < 256; change++ {
				if testing.Short() && change&(change-1) != 0 {
					continue
				}
				if run(i, byte(change)) == nil {
					harmless++
				}
			}
		}
	}
	assert.Assert(t, answers > 1)
	t.Logf("%d answers, %d changes without harm", answers, harmless)
}

// The bits that a branch skips are not hashed. Whatever a liar makes of them,
// either the result is true or there is none.
func TestALieComesToNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ours, theirs := drawSides(t)
		remote := &source{Set: of(theirs...)}
		remote.turn = func(_ []set.Prefix, answers [][]byte) ([][]byte, error) {
			for range rapid.IntRange(0, 2).Draw(t, "lies") {
				a := rapid.SampledFrom(answers).Draw(t, "answer")
				i := rapid.IntRange(0, len(a)-1).Draw(t, "byte")
				a[i] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			}
			return answers, nil
		}
		missing, extra, err := set.Diff(t.Context(), of(ours...), remote.Root(), remote, 1000)
		if err == nil {
			assert.Assert(t, slices.Equal(missing, less(theirs, ours)))
			assert.Assert(t, slices.Equal(extra, less(ours, theirs)))
		}
	})
}

// forged is a source of subtrees that no set has: a root can be anything.
type forged map[string]string

func (f forged) Subtrees(_ context.Context, prefixes []set.Prefix, _ int) ([][]byte, error) {
	var answers [][]byte
	for _, p := range prefixes {
		answers = append(answers, []byte(f[p.String()]))
	}
	return answers, nil
}

func TestARootThatIsOfNoSetIsRefused(t *testing.T) {
	high := receipt.ID{0: 0x80}
	one := "\x01" + string(high[:])
	// Ten branches of which the lowest has an empty side, below nine told at once.
	comb := comb(11)
	slices.SortFunc(comb, func(a, b receipt.ID) int { return -compare(a, b) })
	hash := set.Empty
	var top string
	ends := "\x12" + string(hash[:])
	for bit := 8; bit >= 0; bit-- {
		id := comb[bit]
		leaf := set.Root([]receipt.ID{id})
		hash = branch(byte(bit), hash, leaf)
		top += "\x11" + string(byte(8-bit))
		ends += "\x01" + string(id[:])
	}
	for _, test := range []struct {
		name string
		f    forged
		root set.Hash
		want string
	}{
		{
			"an id on the wrong side",
			forged{"/0": "\x11\x00" + one + one},
			branch(0, set.Root([]receipt.ID{high}), set.Root([]receipt.ID{high})),
			"prefix /0: found id " + high.String() + ", which does not begin with 00/1",
		},
		{
			"an empty side",
			forged{"/0": "\x11\x00\x00" + one},
			branch(0, set.Empty, set.Root([]receipt.ID{high})),
			"prefix /0: subtree has a branch without ids on one side",
		},
		{
			"an empty side further down",
			forged{"/0": top + ends, "0000/9": "\x00"},
			hash,
			"prefix 0000/9: found no ids, wanted those of subtree " + set.Empty.String(),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := set.Diff(t.Context(), &set.Set{}, test.root, test.f, 100)
			assert.ErrorContains(t, err, test.want)
		})
	}
}

func TestSubtreesAreReadStrictly(t *testing.T) {
	id := func(first byte) string { return string([]byte{first}) + strings.Repeat("\x00", 31) }
	hash := "\x12" + strings.Repeat("\xaa", 32)
	for _, test := range []struct {
		name   string
		prefix string
		levels int
		in     string
		want   string
	}{
		{"nothing", "/0", 1, "", "subtree ends too early"},
		{"cut id", "/0", 1, "\x01abc", "subtree ends too early"},
		{"cut hash", "/0", 1, "\x11\x00\x12abc", "subtree ends too early"},
		{"cut branch", "/0", 1, "\x11", "subtree ends too early"},
		{"cut skipped bits", "/0", 1, "\x11\x09a", "subtree ends too early"},
		{"cut side", "/0", 1, "\x11\x00" + hash, "subtree ends too early"},
		{"more bytes", "/0", 1, "\x00\x00", "subtree has 1 bytes after its end"},
		{"too many ids", "/0", 1, "\x09" + strings.Repeat(id(0), 9), "subtree has a node of kind 0x09, wanted a branch, a hash or at most 8 ids"},
		{"unknown kind", "/0", 1, "\x13", "subtree has a node of kind 0x13, wanted a branch, a hash or at most 8 ids"},
		{"ids below a branch", "/0", 2, "\x11\x00\x02" + id(0) + id(1), "subtree has a node of kind 0x02, wanted a branch, a hash or at most 1 ids"},
		{"ids out of order", "/0", 1, "\x02" + id(1) + id(0), "subtree has ids that are not in order"},
		{"the same id again", "/0", 1, "\x02" + id(1) + id(1), "subtree has ids that are not in order"},
		{"id elsewhere", "80/1", 1, "\x01" + id(1), "found id 01" + strings.Repeat("0", 62) + ", which does not begin with 80/1"},
		{"hash at once", "/0", 1, hash, "subtree has a hash 1 levels too early"},
		{"too deep", "/0", 1, "\x11\x00\x11\x01", "subtree has more levels than were asked for"},
		{"branch above", "ff/8", 1, "\x11\x07", "found a branch at bit 7, which all that begin with ff/8 have in common"},
		{"branch elsewhere", "f0/4", 1, "\x11\x06\x0c", "found a branch at bit 6 with bits that do not begin with f0/4, or with too many"},
		{"skipped bits too many", "f0/4", 1, "\x11\x06\xff", "found a branch at bit 6 with bits that do not begin with f0/4, or with too many"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := set.ParsePrefix(test.prefix)
			assert.NilError(t, err)
			_, _, err = set.RecodeSubtree(p, test.levels, []byte(test.in))
			assert.Error(t, err, test.want)
		})
	}
}

func FuzzSubtreeEncodesBack(f *testing.F) {
	ids := append(comb(20), numbered(0, 20)...)
	ids = append(ids, receipt.ID{2: 1, 9: 1}, receipt.ID{2: 1, 9: 2})
	s := of(ids...)
	for _, prefix := range []string{"/0", "00/8", "000001/24", "00/1", "ff/8"} {
		for levels := 1; levels < 10; levels += 3 {
			p, err := set.ParsePrefix(prefix)
			assert.NilError(f, err)
			answers, err := s.Subtrees(f.Context(), []set.Prefix{p}, levels)
			assert.NilError(f, err)
			f.Add(prefix, uint8(levels-1), answers[0])
		}
	}
	f.Fuzz(func(t *testing.T, prefix string, levels uint8, b []byte) {
		p, err := set.ParsePrefix(prefix)
		if err != nil {
			return
		}
		again, _, err := set.RecodeSubtree(p, 1+int(levels)%set.MaxLevels, b)
		if err == nil {
			assert.DeepEqual(t, again, b)
		}
	})
}

// What was cloned stays as it was, and can be read by many, while the set grows.
func TestClonesAreReadWhileTheSetGrows(t *testing.T) {
	ids := numbered(0, 3000)
	s := of(ids[:1000]...)
	var readers sync.WaitGroup
	for i := 1000; i < len(ids); i++ {
		assert.Assert(t, s.Add(ids[i]))
		c := s.Clone()
		if i%100 != 0 {
			continue
		}
		for range 2 {
			readers.Go(func() {
				assert.Check(t, c.Root() == set.Root(ids[:i+1]))
				assert.Check(t, c.Len() == i+1 && c.Has(ids[i]))
				d := c.Clone()
				assert.Check(t, d.Add(receipt.ID{}))
				missing, extra, err := set.Diff(t.Context(), d, c.Root(), c, 1000)
				assert.Check(t, err)
				assert.Check(t, len(missing) == 0 && slices.Equal(extra, []receipt.ID{{}}))
				assert.Check(t, slices.Equal(slices.Collect(c.All()), sorted(ids[:i+1])))
			})
		}
	}
	readers.Wait()
	assert.Equal(t, s.Root(), set.Root(ids))
	// 2,000 additions left behind some 10 branches each.
	assert.Assert(t, set.Branches(s) <= 2*len(ids)+1024, "%d branches", set.Branches(s))
}
