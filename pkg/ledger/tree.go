package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
)

// node is tlog.NodeHash without its allocation of a hash state.
func node(left, right *checkpoint.Hash) checkpoint.Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

func popcount(n int64) int { return bits.OnesCount64(uint64(n)) }

// Range is a compact range: the peaks of the perfect subtrees that a tree of
// some size consists of, largest first. Its zero value is the empty tree.
type Range struct {
	size  int64
	peaks []checkpoint.Hash
}

// Size returns the number of leaves.
func (r Range) Size() int64 { return r.size }

func (r Range) clone() Range {
	return Range{r.size, append([]checkpoint.Hash(nil), r.peaks...)}
}

// Append adds a leaf.
func (r *Range) Append(leaf checkpoint.Hash) {
	r.appendNoting(leaf, func(int, int64, checkpoint.Hash) {})
}

// appendNoting adds a leaf and hands over every node that this completes, the
// leaf first.
func (r *Range) appendNoting(leaf checkpoint.Hash, note func(level int, n int64, h checkpoint.Hash)) {
	n, h := r.size, leaf
	note(0, n, h)
	for level := 1; n&1 == 1; level++ {
		h = node(&r.peaks[len(r.peaks)-1], &h)
		r.peaks = r.peaks[:len(r.peaks)-1]
		n >>= 1
		note(level, n, h)
	}
	r.peaks = append(r.peaks, h)
	r.size++
}

// appendSubtree adds a perfect subtree of 2^level leaves. The size must be a
// multiple of that.
func (r *Range) appendSubtree(level int, h checkpoint.Hash) {
	for n := r.size >> level; n&1 == 1; n >>= 1 {
		h = node(&r.peaks[len(r.peaks)-1], &h)
		r.peaks = r.peaks[:len(r.peaks)-1]
	}
	r.peaks = append(r.peaks, h)
	r.size += 1 << level
}

func (r Range) peaksAt(fn func(level int, n int64, h checkpoint.Hash)) {
	i, at := 0, int64(0)
	for level := 62; level >= 0; level-- {
		if w := int64(1) << level; r.size&w != 0 {
			fn(level, at>>level, r.peaks[i])
			at += w
			i++
		}
	}
}

// Root returns the RFC 6962 tree hash.
func (r Range) Root() checkpoint.Hash {
	if len(r.peaks) == 0 {
		return sha256.Sum256(nil)
	}
	h := r.peaks[len(r.peaks)-1]
	for i := len(r.peaks) - 2; i >= 0; i-- {
		h = node(&r.peaks[i], &h)
	}
	return h
}

// chunkLevel sets the unit of parallel work: subtrees of 4096 leaves.
const chunkLevel = 12

// Root returns the RFC 6962 tree hash over leaf hashes. It uses every processor.
func Root(leaves []checkpoint.Hash) checkpoint.Hash {
	chunks := len(leaves) >> chunkLevel
	roots := make([]checkpoint.Hash, chunks)
	_ = parallel(chunks, func(i int) error { // the work cannot fail
		var buf [1 << (chunkLevel - 1)]checkpoint.Hash
		roots[i] = perfect(leaves[i<<chunkLevel:(i+1)<<chunkLevel], buf[:])
		return nil
	})
	var r Range
	for _, h := range roots {
		r.appendSubtree(chunkLevel, h)
	}
	for _, h := range leaves[chunks<<chunkLevel:] {
		r.Append(h)
	}
	return r.Root()
}

// perfect hashes a power-of-two number of leaves, at least two, in buf, which
// holds half as many.
func perfect(leaves, buf []checkpoint.Hash) checkpoint.Hash {
	for n := len(leaves) / 2; n > 0; n /= 2 {
		for i := range n {
			buf[i] = node(&leaves[2*i], &leaves[2*i+1])
		}
		leaves = buf[:n]
	}
	return buf[0]
}

// parallel calls work for 0 to n−1 on every processor and returns the first
// error, after all calls have ended.
func parallel(n int, work func(int) error) error {
	var (
		next  atomic.Int64
		wg    sync.WaitGroup
		first error
		once  sync.Once
	)
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := work(i); err != nil {
					once.Do(func() { first = err })
					next.Store(int64(n))
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}

// Tree holds every node of a tree, to prove inclusion and consistency. It takes
// 64 bytes for each leaf.
type Tree struct {
	levels [][]checkpoint.Hash
}

// NewTree builds a tree over leaf hashes, which it keeps.
func NewTree(leaves []checkpoint.Hash) *Tree {
	t := &Tree{levels: [][]checkpoint.Hash{leaves}}
	for below := leaves; len(below) > 1; {
		level := make([]checkpoint.Hash, len(below)/2)
		for i := range level {
			level[i] = node(&below[2*i], &below[2*i+1])
		}
		t.levels = append(t.levels, level)
		below = level
	}
	return t
}

// Append adds a leaf. Nobody may read the tree meanwhile.
func (t *Tree) Append(leaf checkpoint.Hash) {
	t.levels[0] = append(t.levels[0], leaf)
	for level, n := 0, len(t.levels[0]); n%2 == 0; level, n = level+1, n/2 {
		h := node(&t.levels[level][n-2], &t.levels[level][n-1])
		if level+1 == len(t.levels) {
			t.levels = append(t.levels, nil)
		}
		t.levels[level+1] = append(t.levels[level+1], h)
	}
}

// Hashes returns count nodes of a level from a position on, those of level 0
// being the leaves, or nil if the tree has not so many. The caller must not
// change them.
func (t *Tree) Hashes(level int, from, count int64) []checkpoint.Hash {
	if level < 0 || level >= len(t.levels) || from < 0 || count < 0 || from > int64(len(t.levels[level]))-count {
		return nil
	}
	return t.levels[level][from : from+count : from+count]
}

// ReadHashes implements [tlog.HashReader].
func (t *Tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		level, n := tlog.SplitStoredHashIndex(x)
		if level >= len(t.levels) || n >= int64(len(t.levels[level])) {
			return nil, fmt.Errorf("ledger: no node at level %d, position %d", level, n)
		}
		hashes[i] = t.levels[level][n]
	}
	return hashes, nil
}

// Size returns the number of leaves.
func (t *Tree) Size() int64 { return int64(len(t.levels[0])) }

// Root returns the tree hash over the first size leaves.
func (t *Tree) Root(size int64) (checkpoint.Hash, error) {
	if size < 0 || size > t.Size() {
		return checkpoint.Hash{}, fmt.Errorf("ledger: root at size %d of a log of size %d", size, t.Size())
	}
	if size == 0 {
		return Root(nil), nil
	}
	return tlog.TreeHash(size, t)
}

// Inclusion proves the entry at index in the tree of the first size leaves.
func (t *Tree) Inclusion(size, index int64) ([]checkpoint.Hash, error) {
	if index < 0 || index >= size || size > t.Size() {
		return nil, fmt.Errorf("ledger: entry %d of size %d in a log of size %d", index, size, t.Size())
	}
	return tlog.ProveRecord(size, index, t)
}

// Consistency proves that the tree of the first size leaves extends that of the
// first old leaves.
func (t *Tree) Consistency(old, size int64) ([]checkpoint.Hash, error) {
	if old < 0 || old > size || size > t.Size() {
		return nil, fmt.Errorf("ledger: consistency of %d with %d in a log of size %d", old, size, t.Size())
	}
	if old == 0 {
		return nil, nil
	}
	return tlog.ProveTree(size, old, t)
}

// Lines returns every entry below size, reading segment by segment. A segment
// with too few or too many lines, or one that is not there, is a [TamperError].
func Lines(read Read, body checkpoint.Body, fn func(index int64, line []byte) error) error {
	for n := range segments(body.Size) {
		lines, err := fullSegment(read, body, n)
		if err != nil {
			return err
		}
		for i, l := range lines {
			if err := fn(n*SegmentSize+int64(i), l); err != nil {
				return err
			}
		}
	}
	return nil
}

// verifyBlock is the number of segments that Verify makes room for at first.
const verifyBlock = 4096

// Verify re-hashes every entry and compares the result with the body: exactly
// its number of lines, 256 a sealed segment, its root, and the edge. It returns
// the leaf hashes. read is called from several goroutines at once.
func Verify(read Read, body checkpoint.Body) ([]checkpoint.Hash, error) {
	if body.Size > 1<<40 {
		return nil, fmt.Errorf("ledger: size %d is larger than any log", body.Size)
	}
	// Room is made for a million entries, then for four times what has been
	// read, so that a lying size cannot claim memory.
	var all []checkpoint.Hash
	for first, end := int64(0), segments(body.Size); first < end; {
		next := min(max(verifyBlock, 4*first), end)
		have := len(all)
		all = append(make([]checkpoint.Hash, 0, min(next*SegmentSize, body.Size)), all...)
		all = all[:cap(all)]
		err := parallel(int(next-first), func(i int) error {
			lines, err := fullSegment(read, body, first+int64(i))
			if err != nil {
				return err
			}
			leafHashes(all[have+i*SegmentSize:], lines)
			return nil
		})
		if err != nil {
			return nil, err
		}
		first = next
	}
	// The segment after the last one must not be there, nor lines above the size.
	if _, err := read(SegmentPath(segments(body.Size))); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", SegmentPath(segments(body.Size)), err)
		}
		return nil, &TamperError{What: SegmentPath(segments(body.Size)) + " holds entries above the checkpoint", Signed: body}
	}
	if root := Root(all); root != body.Root {
		return nil, &TamperError{What: "entries do not hash to the signed root", Signed: body, Got: root}
	}
	if _, above, err := Load(read, body); err != nil {
		return nil, err
	} else if len(above) > 0 {
		return nil, &TamperError{What: fmt.Sprintf("%d entries above the checkpoint", len(above)), Signed: body}
	}
	return all, nil
}

// segments returns the number of segments of a log, for any size there can be.
func segments(size int64) int64 {
	n := size / SegmentSize
	if size%SegmentSize > 0 {
		n++
	}
	return n
}

func fullSegment(read Read, body checkpoint.Body, n int64) ([][]byte, error) {
	lines, err := readSegment(read, n)
	if err != nil {
		return nil, err
	}
	if want := min(SegmentSize, body.Size-n*SegmentSize); int64(len(lines)) != want {
		return nil, &TamperError{What: fmt.Sprintf("%s holds %d entries, want %d", SegmentPath(n), len(lines), want), Signed: body}
	}
	return lines, nil
}

// leafHashes is tlog.RecordHash of many lines, with one buffer for all that fit.
func leafHashes(hashes []checkpoint.Hash, lines [][]byte) {
	var buf [2048]byte
	for i, l := range lines {
		hashes[i] = sha256.Sum256(append(buf[:1], l...))
	}
}
