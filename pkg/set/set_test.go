package set_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// numbered returns the ids SHA-256(0), SHA-256(1) … of eight-byte numbers.
func numbered(from, to int) []receipt.ID {
	var ids []receipt.ID
	for i := from; i < to; i++ {
		ids = append(ids, sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i))))
	}
	return ids
}

func compare(a, b receipt.ID) int { return bytes.Compare(a[:], b[:]) }

func of(ids ...receipt.ID) *set.Set {
	var s set.Set
	for _, id := range ids {
		s.Add(id)
	}
	return &s
}

func sorted(ids []receipt.ID) []receipt.ID {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, compare)
	return slices.Compact(ids)
}

// oracle is the root by the definition alone: look at one bit after another, and
// make a branch where both values occur.
func oracle(ids []receipt.ID, bit int) [32]byte {
	switch len(ids) {
	case 0:
		return sha256.Sum256([]byte("remembrancer/set/v1/empty"))
	case 1:
		return sha256.Sum256(append([]byte{0x10}, ids[0][:]...))
	}
	var sides [2][]receipt.ID
	for _, id := range ids {
		b := id[bit/8] >> (7 - bit%8) & 1
		sides[b] = append(sides[b], id)
	}
	if len(sides[0]) == 0 || len(sides[1]) == 0 {
		return oracle(ids, bit+1)
	}
	left, right := oracle(sides[0], bit+1), oracle(sides[1], bit+1)
	return sha256.Sum256(append(append([]byte{0x11, byte(bit)}, left[:]...), right[:]...))
}

// branch is the hash of a branch.
func branch(bit byte, left, right set.Hash) set.Hash {
	return sha256.Sum256(slices.Concat([]byte{0x11, bit}, left[:], right[:]))
}

// drawIDs draws ids that share long prefixes as often as not.
func drawIDs(most int) *rapid.Generator[[]receipt.ID] {
	one := rapid.Custom(func(t *rapid.T) receipt.ID {
		var id receipt.ID
		for range rapid.IntRange(0, 4).Draw(t, "ones") {
			i := rapid.OneOf(rapid.IntRange(0, 255), rapid.SampledFrom([]int{0, 1, 2, 3, 254, 255})).Draw(t, "bit")
			id[i/8] |= 1 << (7 - i%8)
		}
		if rapid.Bool().Draw(t, "hashed") {
			id = sha256.Sum256(id[:])
		}
		return id
	})
	return rapid.SliceOfN(one, 0, most)
}

func TestRootIsThatOfTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := drawIDs(30).Draw(t, "ids")
		want := set.Hash(oracle(sorted(ids), 0))
		assert.Equal(t, set.Root(ids), want)
		assert.Equal(t, of(ids...).Root(), want)
	})
}

func TestRootLeavesTheIDsAsTheyWere(t *testing.T) {
	ids := numbered(0, 50)
	before := slices.Clone(ids)
	set.Root(ids)
	assert.DeepEqual(t, ids, before)
}

func TestOrderAndRepetitionDoNotMatter(t *testing.T) {
	ids := numbered(0, 2000)
	want := set.Root(ids)
	r := rand.New(rand.NewPCG(1, 2))
	for range 3 {
		r.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		again := append(slices.Clone(ids), ids[:100]...)
		assert.Equal(t, set.Root(again), want)
		assert.Equal(t, of(again...).Root(), want)
		assert.Equal(t, of(again...).Len(), 2000)
	}
}

// Asking for the root between additions must not change later ones.
func TestSetKeepsWhatIsAddedInAnyRhythm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := drawIDs(30).Draw(t, "ids")
		var s set.Set
		for i, id := range ids {
			before := s.Clone()
			root := before.Root()
			assert.Equal(t, s.Add(id), !slices.Contains(ids[:i], id))
			assert.Assert(t, s.Has(id))
			if rapid.Bool().Draw(t, "hash") {
				assert.Equal(t, s.Root(), set.Hash(oracle(sorted(ids[:i+1]), 0)))
			}
			assert.Equal(t, before.Root(), root) // the copy is one
		}
		assert.Assert(t, slices.Equal(slices.Collect(s.All()), sorted(ids)))
		assert.Equal(t, s.Len(), len(sorted(ids)))
		for _, id := range numbered(0, 5) {
			assert.Assert(t, !s.Has(id))
		}
	})
}

func TestAllCanBeLeft(t *testing.T) {
	ids := sorted(numbered(0, 9))
	for id := range of(ids...).All() {
		assert.Equal(t, id, ids[0])
		break
	}
}

func TestMergesAreCommutativeAssociativeAndIdempotent(t *testing.T) {
	merge := func(a, b *set.Set) *set.Set {
		m := a.Clone()
		for id := range b.All() {
			m.Add(id)
		}
		return m
	}
	rapid.Check(t, func(t *rapid.T) {
		draw := drawIDs(15)
		a, b, c := of(draw.Draw(t, "a")...), of(draw.Draw(t, "b")...), of(draw.Draw(t, "c")...)
		assert.Equal(t, merge(a, b).Root(), merge(b, a).Root())
		assert.Equal(t, merge(merge(a, b), c).Root(), merge(a, merge(b, c)).Root())
		assert.Equal(t, merge(a, a).Root(), a.Root())
		assert.Equal(t, merge(a, &set.Set{}).Root(), a.Root())
	})
}

// The program runs once for each size, in one interpreter, which is slow to start.
const runPython = `
import io, runpy, sys
for part in sys.stdin.read().split("end\n")[:-1]:
    sys.stdin = io.StringIO(part)
    runpy.run_path("testdata/root.py")
`

func TestPythonFindsTheSameRoot(t *testing.T) {
	var in, want strings.Builder
	for _, n := range []int{0, 1, 2, 3, 10, 1000} {
		ids := numbered(0, n)
		for _, id := range ids {
			fmt.Fprintln(&in, id)
		}
		fmt.Fprintln(&in, "end")
		fmt.Fprintln(&want, set.Root(ids))
	}
	cmd := exec.CommandContext(t.Context(), "python3", "-c", runPython)
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	assert.NilError(t, err)
	assert.Equal(t, string(out), want.String())
}

func TestPackageCommentHoldsThePythonThatIsRun(t *testing.T) {
	source, err := os.ReadFile("set.go")
	assert.NilError(t, err)
	program, err := os.ReadFile("testdata/root.py")
	assert.NilError(t, err)
	var comment strings.Builder
	for line := range strings.Lines(string(program)) {
		comment.WriteString(strings.TrimRight("//\t"+line, "\t\n") + "\n")
	}
	assert.Assert(t, strings.Contains(string(source), comment.String()))
}

// vector is a set with everything about it that is frozen.
type vector struct {
	Name     string            `json:"name"`
	IDs      []string          `json:"ids"`
	Root     string            `json:"root"`
	Proofs   map[string]string `json:"proofs"`   // of ids, those of the set and another
	Subtrees map[string]string `json:"subtrees"` // of prefixes, two levels
}

func TestVectors(t *testing.T) {
	last := receipt.ID{31: 1}
	var vectors []vector
	for _, v := range []struct {
		name string
		ids  []receipt.ID
	}{
		{"empty", nil},
		{"one", numbered(0, 1)},
		{"two", numbered(0, 2)},
		{"three", numbered(0, 3)},
		{"ten", numbered(0, 10)},
		{"first bit", []receipt.ID{{}, {0: 0x80}}},
		{"last bit", []receipt.ID{{}, last}},
		{"every bit", append(func() (ids []receipt.ID) {
			for i := range 256 {
				var id receipt.ID
				id[i/8] = 1 << (7 - i%8)
				ids = append(ids, id)
			}
			return ids
		}(), receipt.ID{})},
	} {
		s := of(v.ids...)
		out := vector{Name: v.name, IDs: []string{}, Root: s.Root().String(), Proofs: map[string]string{}, Subtrees: map[string]string{}}
		for _, p := range []set.Prefix{{}, set.PrefixOf(receipt.ID{}, 3), set.PrefixOf(last, 254)} {
			answers, err := s.Subtrees(t.Context(), []set.Prefix{p}, 2)
			assert.NilError(t, err)
			out.Subtrees[p.String()] = hex.EncodeToString(answers[0])
		}
		for _, id := range v.ids {
			out.IDs = append(out.IDs, id.String())
		}
		for _, id := range append(slices.Clone(v.ids[:min(len(v.ids), 3)]), numbered(77, 78)[0]) {
			out.Proofs[id.String()] = hex.EncodeToString(s.Prove(id).Marshal())
		}
		vectors = append(vectors, out)
	}
	got, err := json.MarshalIndent(vectors, "", " ")
	assert.NilError(t, err)
	golden.Assert(t, string(got)+"\n", "set.json")
}

func TestHashIsReadStrictly(t *testing.T) {
	h, err := set.ParseHash(set.Empty.String())
	assert.NilError(t, err)
	assert.Equal(t, h, set.Empty)
	for _, bad := range []string{"", "ab", strings.ToUpper(set.Empty.String()), set.Empty.String() + "00", strings.Repeat("x", 64)} {
		_, err := set.ParseHash(bad)
		assert.Error(t, err, fmt.Sprintf("hash of a set %q: wanted 64 lower-case hex digits", bad))
	}
}

func TestProofsShowWhatIsSo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := drawIDs(20).Draw(t, "ids")
		s := of(ids...)
		for _, id := range append(drawIDs(5).Draw(t, "others"), ids...) {
			p, err := set.ParseProof(s.Prove(id).Marshal())
			assert.NilError(t, err)
			present, err := set.Verify(s.Root(), id, p)
			assert.NilError(t, err)
			assert.Equal(t, present, s.Has(id))
		}
	})
}

// Whatever is flipped, nothing verifies that is not so: no flipped proof at all,
// and of a flipped id only that it is absent, from a proof of absence.
func TestAFlippedBitNeverVerifies(t *testing.T) {
	flip := func(b []byte, i int) []byte {
		b = slices.Clone(b)
		b[i/8] ^= 1 << (i % 8)
		return b
	}
	for _, n := range []int{0, 1, 2, 12} {
		ids := numbered(0, n)
		s := of(ids...)
		root := s.Root()
		for _, id := range append(slices.Clone(ids[:min(n, 2)]), numbered(77, 79)...) {
			proof := s.Prove(id).Marshal()
			for i := range 8 * len(proof) {
				p, err := set.ParseProof(flip(proof, i))
				if err == nil {
					_, err = set.Verify(root, id, p)
				}
				assert.Assert(t, err != nil, "bit %d of the proof of %s among %d", i, id, n)
			}
			p := s.Prove(id)
			for i := range 256 {
				present, err := set.Verify(root, receipt.ID(flip(id[:], i)), p)
				assert.Assert(t, !present && (err != nil || !s.Has(id)), "bit %d of %s among %d", i, id, n)
				_, err = set.Verify(set.Hash(flip(root[:], i)), id, p)
				assert.Assert(t, err != nil, "bit %d of the root of %d", i, n)
			}
		}
	}
}

// A proof of absence must not serve for an id that is there.
func TestAProofOfAnotherIDIsRefused(t *testing.T) {
	ids := numbered(0, 12)
	s := of(ids...)
	absent := numbered(77, 90)
	for _, a := range absent {
		for _, id := range ids {
			present, err := set.Verify(s.Root(), id, s.Prove(a))
			assert.Assert(t, !present && err != nil)
			present, err = set.Verify(s.Root(), a, s.Prove(id))
			assert.Assert(t, !present && err != nil)
		}
	}
	_, err := set.Verify(s.Root(), ids[0], set.Proof{})
	assert.ErrorContains(t, err, "is of another set")
	// The walk to an id, dressed up as one that ends at another.
	here := s.Prove(ids[0]).Marshal()
	p, err := set.ParseProof(append(append([]byte{2}, ids[0][:]...), here[1:]...))
	assert.NilError(t, err)
	_, err = set.Verify(s.Root(), ids[0], p)
	assert.ErrorContains(t, err, "is in the set, as a proof that it is not")
}

func TestProofsAreReadStrictly(t *testing.T) {
	step := func(bit byte) []byte { return append([]byte{bit}, make([]byte, 32)...) }
	for _, test := range []struct {
		name string
		in   []byte
		want string
	}{
		{"nothing", nil, "proof is empty, wanted at least one byte"},
		{"unknown end", []byte{3}, "proof begins with byte 0x03, wanted 0x00, 0x01 or 0x02"},
		{"more than the empty set has", []byte{0, 0}, "proof of the empty set has 1 bytes more than its one"},
		{"cut id", []byte{2, 9, 9}, "proof ends in the middle of an id, after 2 bytes of it"},
		{"cut step", append([]byte{1}, step(0)[1:]...), "proof has 32 bytes of steps, wanted a multiple of 33"},
		{"the same bit again", slices.Concat([]byte{1}, step(4), step(4)), "proof has bit 4 after bit 4, wanted bits that grow"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := set.ParseProof(test.in)
			assert.Error(t, err, test.want)
		})
	}
}

func FuzzProofEncodesBack(f *testing.F) {
	s := of(numbered(0, 5)...)
	f.Add((&set.Set{}).Prove(receipt.ID{}).Marshal(), []byte("x"))
	for _, id := range numbered(3, 7) {
		f.Add(s.Prove(id).Marshal(), id[:])
	}
	root := s.Root()
	f.Fuzz(func(t *testing.T, b, of []byte) {
		p, err := set.ParseProof(b)
		if err != nil {
			assert.DeepEqual(t, p.Marshal(), []byte{0})
			return
		}
		assert.DeepEqual(t, p.Marshal(), b)
		var id receipt.ID
		copy(id[:], of)
		if present, err := set.Verify(root, id, p); err == nil {
			assert.Equal(t, present, s.Has(id))
		}
	})
}

func FuzzPrefixEncodesBack(f *testing.F) {
	for _, s := range []string{"/0", "a0/3", "ff/8", "ff00/9", "ff/7", "FF/8", "/", "00/256", "ff/08"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := set.ParsePrefix(s)
		if err != nil {
			assert.Equal(t, p, set.Prefix{})
			return
		}
		assert.Equal(t, p.String(), s)
	})
}

func TestPrefixes(t *testing.T) {
	id := receipt.ID{0xbf, 0xff}
	assert.Equal(t, set.PrefixOf(id, 0), set.Prefix{})
	assert.Equal(t, set.PrefixOf(id, 3).String(), "a0/3")
	assert.Equal(t, set.PrefixOf(id, 12).String(), "bff0/12")
	assert.Equal(t, set.PrefixOf(id, 12).Len(), 12)
	assert.Equal(t, set.PrefixOf(id, 256).String(), id.String()+"/256")
	assert.Assert(t, set.PrefixOf(id, 3).Of(id))
	assert.Assert(t, !set.PrefixOf(id, 3).Of(receipt.ID{0xff}))
	_, err := set.ParsePrefix("bf/3")
	assert.Error(t, err, `prefix "bf/3": wanted lower-case hex digits of as few bytes as hold the bits, a slash, and the number of bits from 0 to 256, such as a0/3`)
}

func BenchmarkRoot(b *testing.B) {
	ids := numbered(0, 100_000)
	for b.Loop() {
		set.Root(ids)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ids)), "ns/id")
}

func BenchmarkOf(b *testing.B) {
	ids := numbered(0, 1_000_000)
	for b.Loop() {
		set.Of(ids...)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ids)), "ns/id")
}

func BenchmarkAddAndRoot(b *testing.B) {
	ids := numbered(0, 1_000_000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var s *set.Set
	for b.Loop() {
		s = of(ids...)
		s.Root()
	}
	s = set.Of(slices.Collect(s.All())...) // without the room that growing leaves
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ids)), "ns/id")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(ids)), "bytes/id")
	runtime.KeepAlive(ids)
	runtime.KeepAlive(s)
}

func BenchmarkAddOneAndRoot(b *testing.B) {
	s := set.Of(numbered(0, 1_000_000)...)
	more := numbered(1_000_000, 1_100_000)
	for i := 0; b.Loop(); i++ {
		s.Add(more[i%len(more)])
		s.Root()
	}
}

// What a node does for every hello while receipts go on coming.
func BenchmarkAddOneAndClone(b *testing.B) {
	s := set.Of(numbered(0, 1_000_000)...)
	more := numbered(1_000_000, 1_100_000)
	pinned := make([]*set.Set, 8)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.Add(more[i%len(more)])
		pinned[i%len(pinned)] = s.Clone()
	}
}

func BenchmarkDiff(b *testing.B) {
	ids := numbered(0, 1_000_000)
	for _, d := range []int{1, 10, 100, 1000, 10_000} {
		b.Run(strconv.Itoa(d), func(b *testing.B) {
			remote := &source{Set: set.Of(ids[d/2:]...)}
			local := set.Of(ids[:len(ids)-(d+1)/2]...)
			root := remote.Root()
			for b.Loop() {
				remote.rounds, remote.bytes = 0, 0
				missing, extra, err := set.Diff(b.Context(), local, root, remote, len(ids))
				assert.NilError(b, err)
				assert.Equal(b, len(missing)+len(extra), d)
			}
			b.ReportMetric(float64(remote.rounds), "rounds")
			b.ReportMetric(float64(remote.bytes), "bytes")
		})
	}
}
