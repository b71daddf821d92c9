package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
)

const origin = "github.com/vaultmesh/example"

// memory is a ledger's folder.
type memory map[string][]byte

func (m memory) read(path string) ([]byte, error) {
	data, ok := m[path]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
	}
	return bytes.Clone(data), nil
}

func (m memory) apply(files []File) {
	for _, f := range files {
		m[f.Path] = f.Data
	}
}

func entry(i int64) []byte { return fmt.Appendf(nil, `{"entry":%d}`, i) }

func entriesFrom(first int64, n int) [][]byte {
	lines := make([][]byte, n)
	for i := range lines {
		lines[i] = entry(first + int64(i))
	}
	return lines
}

// oracle is the same log kept by golang.org/x/mod/sumdb/tlog.
type oracle struct{ stored []tlog.Hash }

func (o *oracle) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		hashes[i] = o.stored[x]
	}
	return hashes, nil
}

func newOracle(t testing.TB, size int64) *oracle {
	o := &oracle{}
	for i := range size {
		hashes, err := tlog.StoredHashes(i, entry(i), o)
		assert.NilError(t, err)
		o.stored = append(o.stored, hashes...)
	}
	return o
}

func (o *oracle) body(t rapid.TB, size int64) checkpoint.Body {
	root := Root(nil)
	if size > 0 {
		var err error
		root, err = tlog.TreeHash(size, o)
		assert.NilError(t, err)
	}
	return checkpoint.Body{Origin: origin, Size: size, Root: root}
}

// build makes the folder of a log in batches of the given size.
func build(t rapid.TB, size int64, batch int) (memory, checkpoint.Body) {
	m := memory{}
	s, above, err := Load(m.read, Empty(origin))
	assert.NilError(t, err)
	assert.Equal(t, len(above), 0)
	for s.Body().Size < size {
		u, err := s.Append(entriesFrom(s.Body().Size, min(batch, int(size-s.Body().Size)))...)
		assert.NilError(t, err)
		m.apply(u.Files(u.State.Body().Text()))
		s = u.State
	}
	return m, s.Body()
}

// Every size in batches of one: the same roots and proofs as tlog's, and the
// same state from every edge that lags.
func TestEverySizeEqualsTheOracle(t *testing.T) {
	t.Parallel()
	const last = 1030
	o := newOracle(t, last)
	m := memory{}
	s, _, err := Load(m.read, Empty(origin))
	assert.NilError(t, err)
	edges := [][]byte{{}} // by segment; the first stands for no file
	for size := int64(0); ; size++ {
		body := o.body(t, size)
		assert.Equal(t, s.Body(), body)
		want := full{s.sealed, s.tail, body}
		near := (size+3)%SegmentSize < 6
		for lag, edge := range edges {
			if !near && size%16 != 0 && lag < len(edges)-1 {
				continue
			}
			if m[EdgePath] = edge; len(edge) == 0 {
				delete(m, EdgePath)
			}
			got, above, err := Load(m.read, body)
			assert.NilError(t, err)
			assert.Equal(t, len(above), 0)
			assertSame(t, full{got.sealed, got.tail, got.body}, want)
			assert.Equal(t, got.EdgeLags(), int64(lag) < size/SegmentSize)
			assert.DeepEqual(t, got.Edge(), s.Edge())
		}
		if size%128 == 0 || near {
			leaves, err := Verify(m.read, body)
			assert.NilError(t, err)
			checkProofs(t, o, NewTree(leaves), size, 1)
		}
		if size == last {
			return
		}
		u, err := s.Append(entry(size))
		assert.NilError(t, err)
		assert.Equal(t, u.First, size)
		if size > 0 {
			assert.NilError(t, tlog.CheckTree(u.Consistency, size+1, o.body(t, size+1).Root, size, body.Root))
			theirs, err := tlog.ProveTree(size+1, size, o)
			assert.NilError(t, err)
			assert.Assert(t, slices.Equal(u.Consistency, theirs))
		}
		m.apply(u.Segments)
		if s = u.State; (size+1)%SegmentSize == 0 {
			edges = append(edges, s.Edge().Data)
		}
	}
}

// full is a state without what it remembers of the edge file.
type full struct {
	sealed Range
	tail   [][]byte
	body   checkpoint.Body
}

func assertSame(t rapid.TB, got, want full) {
	assert.Equal(t, got.body, want.body)
	assert.Equal(t, got.sealed.size, want.sealed.size)
	assert.Assert(t, slices.Equal(got.sealed.peaks, want.sealed.peaks))
	assert.Assert(t, slices.EqualFunc(got.tail, want.tail, bytes.Equal))
}

// checkProofs proves every entry, or every step-th, and 64 older sizes.
func checkProofs(t rapid.TB, o *oracle, tree *Tree, size, step int64) {
	body := o.body(t, size)
	root, err := tree.Root(size)
	assert.NilError(t, err)
	assert.Equal(t, root, body.Root)
	for index := size - 1; index >= 0; index -= step {
		proof, err := tree.Inclusion(size, index)
		assert.NilError(t, err)
		assert.NilError(t, tlog.CheckRecord(proof, size, body.Root, index, RecordHash(entry(index))))
	}
	for old := int64(1); old <= size; old += 1 + size/64 {
		proof, err := tree.Consistency(old, size)
		assert.NilError(t, err)
		assert.NilError(t, tlog.CheckTree(proof, size, body.Root, old, o.body(t, old).Root))
	}
}

// Batches of any size, with an edge that lags as far as it likes.
func TestBatchesEqualTheOracle(t *testing.T) {
	t.Parallel()
	const last = 3 * 1030
	o := newOracle(t, last)
	rapid.Check(t, func(t *rapid.T) {
		m := memory{}
		var size int64
		edges := [][]byte{nil}
		for range rapid.IntRange(1, 6).Draw(t, "batches") {
			if edge := rapid.SampledFrom(edges).Draw(t, "edge"); edge == nil {
				delete(m, EdgePath)
			} else {
				m[EdgePath] = edge
			}
			s, above, err := Load(m.read, o.body(t, size))
			assert.NilError(t, err)
			assert.Equal(t, len(above), 0)
			n := rapid.OneOf(rapid.IntRange(1, 500), rapid.SampledFrom([]int{1, 255, 256, 257, 512})).Draw(t, "n")
			u, err := s.Append(entriesFrom(size, n)...)
			assert.NilError(t, err)
			next := o.body(t, size+int64(n))
			assert.Equal(t, u.State.Body(), next)
			if size > 0 {
				assert.NilError(t, tlog.CheckTree(u.Consistency, next.Size, next.Root, size, o.body(t, size).Root))
			}
			files := u.Files([]byte("note"))
			order := make([]string, len(files))
			for i, f := range files {
				order[i] = f.Path
			}
			assert.Equal(t, slices.Index(order, CheckpointPath), len(u.Segments))
			if i := slices.Index(order, EdgePath); i >= 0 {
				assert.Equal(t, i, len(order)-1)
				edges = append(edges, files[i].Data)
			}
			m.apply(files)
			size = next.Size
		}
		leaves, err := Verify(m.read, o.body(t, size))
		assert.NilError(t, err)
		checkProofs(t, o, NewTree(leaves), size, 29)
		var index int64
		assert.NilError(t, Lines(m.read, o.body(t, size), func(i int64, line []byte) error {
			assert.Equal(t, i, index)
			assert.Assert(t, bytes.Equal(line, entry(i)))
			index++
			return nil
		}))
		assert.Equal(t, index, size)
	})
}

func TestRootOfManyLeavesEqualsTheOracle(t *testing.T) {
	leaves := make([]checkpoint.Hash, 3<<chunkLevel+77)
	o := newOracle(t, int64(len(leaves)))
	for i := range leaves {
		leaves[i] = RecordHash(entry(int64(i)))
	}
	for _, n := range []int{0, 1, 2, 3, 1<<chunkLevel - 1, 1 << chunkLevel, 1<<chunkLevel + 1, 2 << chunkLevel, len(leaves)} {
		assert.Equal(t, Root(leaves[:n]), o.body(t, int64(n)).Root, "%d leaves", n)
	}
}

func TestTreeRefusesWhatItDoesNotHold(t *testing.T) {
	tree := NewTree([]checkpoint.Hash{{1}, {2}})
	assert.Equal(t, tree.Size(), int64(2))
	_, err := tree.Root(3)
	assert.Error(t, err, "ledger: root at size 3 of a log of size 2")
	_, err = tree.Root(-1)
	assert.Error(t, err, "ledger: root at size -1 of a log of size 2")
	_, err = tree.Inclusion(2, 2)
	assert.Error(t, err, "ledger: entry 2 of size 2 in a log of size 2")
	_, err = tree.Inclusion(3, 0)
	assert.Error(t, err, "ledger: entry 0 of size 3 in a log of size 2")
	_, err = tree.Consistency(2, 1)
	assert.Error(t, err, "ledger: consistency of 2 with 1 in a log of size 2")
	proof, err := tree.Consistency(0, 2)
	assert.NilError(t, err)
	assert.Equal(t, len(proof), 0)
	root, err := NewTree(nil).Root(0)
	assert.NilError(t, err)
	assert.Equal(t, root, Empty(origin).Root)
	_, err = tree.ReadHashes([]int64{tlog.StoredHashIndex(0, 2)})
	assert.Error(t, err, "ledger: no node at level 0, position 2")
}

func TestAppendIsPure(t *testing.T) {
	for _, size := range []int64{1, 254, 255, 256, 257, 511, 512, 770} {
		m, body := build(t, size, 100)
		loaded, _, err := Load(m.read, body)
		assert.NilError(t, err)
		checkPure(t, loaded)
		// A state with room to spare in its slices, where a careless append
		// would write into its neighbour's.
		appended, _, err := Load(memory{}.read, Empty(origin))
		assert.NilError(t, err)
		checkPure(t, appended)
		for _, n := range []int64{size - 1, 1} {
			if n == 0 {
				continue
			}
			u, err := appended.Append(entriesFrom(appended.Body().Size, int(n))...)
			assert.NilError(t, err)
			appended = u.State
		}
		checkPure(t, appended)
	}
}

func (s *State) copied() full {
	return full{s.sealed.clone(), slices.Clone(s.tail), s.body}
}

func checkPure(t *testing.T, s *State) {
	before := s.copied()
	size := s.body.Size
	for _, n := range []int{1, 2, 255, 256, 300} {
		first, err := s.Append(entriesFrom(size, n)...)
		assert.NilError(t, err)
		after := first.State.copied()
		want := memory{}
		want.apply(first.Files([]byte("note")))

		// Another history from the same state does not disturb the first.
		other, err := s.Append(entriesFrom(1_000_000, n)...)
		assert.NilError(t, err)
		_, err = other.State.Append(entriesFrom(2_000_000, 300)...)
		assert.NilError(t, err)
		_, err = s.Append(entry(3_000_000), nil)
		assert.ErrorContains(t, err, "is empty")
		assertSame(t, full{first.State.sealed, first.State.tail, first.State.body}, after)
		assertSame(t, full{s.sealed, s.tail, s.body}, before)

		again, err := s.Append(entriesFrom(size, n)...)
		assert.NilError(t, err)
		got := memory{}
		got.apply(again.Files([]byte("note")))
		assert.Assert(t, maps.EqualFunc(got, want, bytes.Equal))
		assertSame(t, again.State.copied(), after)
		assert.Assert(t, slices.Equal(again.Consistency, first.Consistency))
	}
}

func TestAppendRefusesLinesThatAreNotOne(t *testing.T) {
	m, body := build(t, 3, 1)
	s, _, err := Load(m.read, body)
	assert.NilError(t, err)
	for _, c := range []struct {
		lines [][]byte
		want  string
	}{
		{nil, "ledger: append of no entries"},
		{[][]byte{{}}, "ledger: entry 3: is empty"},
		{[][]byte{[]byte("a"), []byte("b\nc")}, "ledger: entry 4: holds a newline"},
		{[][]byte{make([]byte, MaxLine+1)}, "ledger: entry 3: is 65536 bytes, want at most 65535"},
	} {
		_, err := s.Append(c.lines...)
		assert.Error(t, err, c.want)
	}
	_, err = s.Append(make([]byte, MaxLine))
	assert.NilError(t, err)
}

func TestLinesAboveTheCheckpointAreHandedOver(t *testing.T) {
	m, _ := build(t, 520, 260)
	o := newOracle(t, 520)
	for _, size := range []int64{0, 1, 255, 256, 257, 511, 512, 519} {
		delete(m, EdgePath)
		s, above, err := Load(m.read, o.body(t, size))
		assert.NilError(t, err)
		assert.Assert(t, slices.EqualFunc(above, entriesFrom(size, int(520-size)), bytes.Equal))
		u, err := s.Append(above...)
		assert.NilError(t, err)
		assert.Equal(t, u.State.Body(), o.body(t, 520))

		// A commit may not hold them.
		_, err = Verify(m.read, o.body(t, size))
		var tampered *TamperError
		assert.Assert(t, errors.As(err, &tampered), "%v", err)
	}
}

func TestEdgeNeverLeads(t *testing.T) {
	m, _ := build(t, 300, 300)
	for _, size := range []int64{0, 1, 255} {
		body := newOracle(t, 300).body(t, size)
		_, _, err := Load(m.read, body)
		var tampered *TamperError
		assert.Assert(t, errors.As(err, &tampered), "%v", err)
		assert.Equal(t, *tampered, TamperError{What: "edge covers 256 entries and leads the checkpoint", Signed: body})
		assert.Error(t, err, fmt.Sprintf("edge covers 256 entries and leads the checkpoint: the checkpoint says size %d root %x", size, body.Root[:]))
	}
}

// refused reports an error of Verify and of Load that is not one of the
// machinery: evidence, or a file that does not parse.
func refused(t testing.TB, m memory, body checkpoint.Body, what string) {
	t.Helper()
	leaves, err := Verify(m.read, body)
	if err == nil {
		t.Fatalf("%s: accepted", what)
	}
	assert.Assert(t, leaves == nil)
	// What verification refuses, a writer that reads less may not notice, but
	// then it reaches the very state that was signed.
	if s, above, err := Load(m.read, body); err == nil {
		assert.Equal(t, s.full().Root(), body.Root, what)
		next, err := s.Append(append(above, entry(body.Size))...)
		assert.NilError(t, err)
		assert.NilError(t, checkpoint.CheckConsistency(body, next.State.Body(), next.Consistency))
	}
}

func TestEveryFlippedByteIsRefused(t *testing.T) {
	t.Parallel()
	m, body := build(t, 256+3, 259)
	for _, path := range []string{SegmentPath(0), SegmentPath(1), EdgePath} {
		for i := range m[path] {
			flipped := maps.Clone(m)
			flipped[path] = bytes.Clone(m[path])
			flipped[path][i] ^= 1 << (i % 8)
			refused(t, flipped, body, fmt.Sprintf("%s: byte %d, bit %d", path, i, i%8))
		}
	}
	text := body.Text()
	for i := range text {
		for bit := range 8 {
			flipped := bytes.Clone(text)
			flipped[i] ^= 1 << bit
			// A name that is another log's is for the signature to refuse.
			if b, err := checkpoint.ParseBody(flipped); err == nil && b.Origin == origin {
				refused(t, m, b, fmt.Sprintf("checkpoint: byte %d, bit %d", i, bit))
			}
		}
	}
	// The same folder, not touched.
	_, err := Verify(m.read, body)
	assert.NilError(t, err)
}

func TestTruncatedFilesAreRefused(t *testing.T) {
	m, body := build(t, 256+3, 259)
	for _, path := range []string{SegmentPath(0), SegmentPath(1), EdgePath} {
		for n := range m[path] {
			cut := maps.Clone(m)
			cut[path] = m[path][:n]
			refused(t, cut, body, fmt.Sprintf("%s cut to %d bytes", path, n))
		}
		longer := maps.Clone(m)
		longer[path] = append(bytes.Clone(m[path]), '\n')
		refused(t, longer, body, path+" with an empty line")
		longer[path] = append(bytes.Clone(m[path]), "x\n"...)
		refused(t, longer, body, path+" with an extra line")
	}
}

func TestTamperingCarriesItsEvidence(t *testing.T) {
	base, body := build(t, 512+3, 515)
	other := memory{}
	{
		s, _, err := Load(memory{}.read, Empty(origin))
		assert.NilError(t, err)
		u, err := s.Append(entriesFrom(10_000, 515)...)
		assert.NilError(t, err)
		other.apply(u.Files(nil))
	}
	for _, c := range []struct {
		name   string
		change func(memory)
		want   string
		load   bool // a writer's reading finds it too
	}{
		{"first segment missing", func(m memory) { delete(m, SegmentPath(0)) }, "log/00/00/00.jsonl holds 0 entries, want 256", false},
		{"tail missing", func(m memory) { delete(m, SegmentPath(2)) }, "log/00/00/02.jsonl holds 0 entries, want 3", true},
		{"segments swapped", func(m memory) { m[SegmentPath(0)], m[SegmentPath(1)] = m[SegmentPath(1)], m[SegmentPath(0)] }, "entries do not hash to the signed root", false},
		{"lines swapped in a segment", func(m memory) {
			lines := bytes.SplitAfter(m[SegmentPath(1)], []byte("\n"))
			lines[3], lines[4] = lines[4], lines[3]
			m[SegmentPath(1)] = bytes.Join(lines, nil)
		}, "entries do not hash to the signed root", false},
		{"line moved to the next segment", func(m memory) {
			i := bytes.IndexByte(m[SegmentPath(1)], '\n') + 1
			m[SegmentPath(0)] = append(bytes.Clone(m[SegmentPath(0)]), m[SegmentPath(1)][:i]...)
			m[SegmentPath(1)] = m[SegmentPath(1)][i:]
		}, "", false},
		{"tail of another log", func(m memory) { m[SegmentPath(2)] = other[SegmentPath(2)] }, "entries do not hash to the signed root", true},
		{"sealed segment of another log", func(m memory) { m[SegmentPath(1)] = other[SegmentPath(1)] }, "entries do not hash to the signed root", false},
		{"edge of another log", func(m memory) { m[EdgePath] = other[EdgePath] }, "edge and open segment do not hash to the signed root", true},
		{"line above", func(m memory) { m[SegmentPath(2)] = append(bytes.Clone(m[SegmentPath(2)]), "x\n"...) }, "log/00/00/02.jsonl holds 4 entries, want 3", false},
		{"extra segment", func(m memory) { m[SegmentPath(3)] = []byte("x\n") }, "log/00/00/03.jsonl holds entries above the checkpoint", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := maps.Clone(base)
			c.change(m)
			refused(t, m, body, c.name)
			_, err := Verify(m.read, body)
			assert.ErrorContains(t, err, c.want)
			var tampered *TamperError
			if c.want != "" {
				assert.Assert(t, errors.As(err, &tampered), "%v", err)
				assert.Equal(t, tampered.Signed, body)
				assert.Equal(t, tampered.Got != checkpoint.Hash{}, strings.Contains(c.want, "hash to"))
			}
			if _, _, err := Load(m.read, body); c.load {
				assert.Assert(t, errors.As(err, &tampered), "%v", err)
			}
			err = Lines(m.read, body, func(int64, []byte) error { return nil })
			if strings.Contains(c.want, "want") {
				assert.Assert(t, errors.As(err, &tampered), "%v", err)
			}
		})
	}
}

// A file that cannot be read is not a file that is absent.
func TestUnreadableIsAnErrorNotAbsence(t *testing.T) {
	m, body := build(t, 256+3, 259)
	broken := errors.New("input/output error")
	for _, path := range []string{EdgePath, SegmentPath(0), SegmentPath(1), SegmentPath(2)} {
		read := func(p string) ([]byte, error) {
			if p == path {
				return nil, broken
			}
			return m.read(p)
		}
		_, err := Verify(read, body)
		assert.ErrorIs(t, err, broken)
		assert.ErrorContains(t, err, path+": ")
	}
	_, _, err := Load(func(string) ([]byte, error) { return nil, broken }, body)
	assert.ErrorIs(t, err, broken)
	assert.ErrorIs(t, Lines(m.read, body, func(int64, []byte) error { return broken }), broken)
}

func TestLyingSizeIsRefusedEarly(t *testing.T) {
	m, body := build(t, 3, 3)
	for _, size := range []int64{1 << 39, 1<<40 + 1, 1<<63 - 1} {
		body.Size = size
		_, err := Verify(m.read, body)
		assert.Assert(t, err != nil)
		_, _, err = Load(m.read, body)
		assert.Assert(t, err != nil)
		assert.Assert(t, Lines(m.read, body, func(int64, []byte) error { return nil }) != nil)
	}
}

func TestSegmentsAreStrict(t *testing.T) {
	for _, c := range []struct{ data, want string }{
		{"", "is empty"},
		{"a", "does not end in a newline"},
		{"a\n\nb\n", "line 2 is empty"},
		{"\n", "line 1 is empty"},
		{strings.Repeat("a\n", 257), "holds 257 lines, want at most 256"},
		{strings.Repeat("a", MaxLine+1) + "\n", "line 1 is 65536 bytes, want at most 65535"},
	} {
		_, err := parseSegment([]byte(c.data))
		assert.Error(t, err, c.want)
	}
}

func TestEdgeIsStrict(t *testing.T) {
	h := strings.Repeat("A", 43) + "=\n"
	for _, c := range []struct{ data, want string }{
		{"", `edge: size "": want a multiple of 256`},
		{"-256\n" + h, `edge: size "-256": want a multiple of 256`},
		{"255\n" + h, `edge: size "255": want a multiple of 256`},
		{"256\n", "edge: 0 hashes for 256 entries, want 1"},
		{"256\n" + h + h, "edge: 2 hashes for 256 entries, want 1"},
		{"768\n" + h, "edge: 1 hashes for 768 entries, want 2"},
		{"256\nAAAA\n", `edge: hash "AAAA": want the base64 of 32 bytes`},
		{"0256\n" + h, "edge does not encode back to itself"},
		{"+256\n" + h, "edge does not encode back to itself"},
		{"0", "edge does not encode back to itself"},
		{"256\n\n" + h, "edge does not encode back to itself"},
		{"256\n" + h + "\n", "edge does not encode back to itself"},
		{"256\n" + strings.TrimSpace(h), "edge does not encode back to itself"},
		{"256\n" + strings.TrimSpace(h) + "\r\n", "edge does not encode back to itself"},
	} {
		_, err := parseEdge([]byte(c.data))
		assert.Error(t, err, c.want)
	}
}

func TestSegmentPathsArePlain(t *testing.T) {
	for n, want := range map[int64]string{
		0: "log/00/00/00.jsonl", 63: "log/00/00/63.jsonl", 64: "log/00/01/00.jsonl", 4095: "log/00/63/63.jsonl",
		4096: "log/01/00/00.jsonl", 409600: "log/100/00/00.jsonl",
	} {
		assert.Equal(t, SegmentPath(n), want)
	}
	for _, path := range []string{
		"", "log", "log/00/00", "log/00/00/00", "log/0/00/00.jsonl", "log/000/00/00.jsonl", "log/00/64/00.jsonl", "log/00/00/64.jsonl",
		"log/-1/00/00.jsonl", "log/+1/00/00.jsonl", "x/00/00/00.jsonl", "/log/00/00/00.jsonl", "log/00/00/00.jsonl.jsonl", "log/00/00/00/00.jsonl",
		"log/99999999999/00/00.jsonl",
	} {
		n, ok := ParseSegmentPath(path)
		assert.Assert(t, !ok, "%q is segment %d", path, n)
	}
}

func FuzzSegmentPath(f *testing.F) {
	f.Add("log/00/00/00.jsonl", int64(0))
	f.Add("log/100/63/07.jsonl", int64(4096*100))
	f.Fuzz(func(t *testing.T, path string, n int64) {
		if got, ok := ParseSegmentPath(path); ok {
			assert.Assert(t, got >= 0)
			assert.Equal(t, SegmentPath(got), path)
		}
		// Every segment that a log of 2^40 entries can have.
		if n >= 0 && n < 1<<32 {
			got, ok := ParseSegmentPath(SegmentPath(n))
			assert.Assert(t, ok)
			assert.Equal(t, got, n)
		}
	})
}

func FuzzParseSegment(f *testing.F) {
	f.Add([]byte("a\nb\n"))
	f.Add([]byte("\n"))
	f.Add(bytes.Repeat([]byte("x\n"), 257))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines, err := parseSegment(data)
		if err != nil {
			assert.Assert(t, lines == nil)
			return
		}
		assert.Assert(t, bytes.Equal(formatSegment(lines), data))
		for _, l := range lines {
			assert.NilError(t, checkLine(l))
		}
		assert.Assert(t, len(lines) >= 1 && len(lines) <= SegmentSize)
	})
}

func FuzzParseEdge(f *testing.F) {
	m, _ := build(f, 1030, 1030)
	f.Add(m[EdgePath])
	f.Add([]byte("0\n"))
	f.Add([]byte("256\n" + strings.Repeat("A", 43) + "=\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseEdge(data)
		if err != nil {
			assert.Assert(t, r.Size() == 0 && r.peaks == nil)
			return
		}
		assert.Assert(t, bytes.Equal(r.format(), data))
		assert.Equal(t, len(r.peaks), popcount(r.Size()))
		r.Root()
	})
}
