// Package ledger is the append-only log of one repository or node: an RFC 6962
// tree kept as files that people can read.
//
// # Layout
//
// Paths are relative to the ledger's folder:
//
//	log/AA/BB/CC.jsonl  entries, one line each, 256 a segment
//	checkpoint          signed note: origin, size and root of the tree
//	edge                compact range of the sealed segments
//
// Segment n is AA = n/4096, BB = n/64 mod 64, CC = n mod 64, each in at least
// two decimal digits. A segment of 256 lines is sealed and never changes again;
// it is at once one level-0 tile and one entry bundle of c2sp.org/tlog-tiles.
// Hash tiles are derived and not kept; see [WriteTiles].
//
// The leaf of an entry is SHA-256(0x00 ‖ line), the line without its newline.
// The edge holds the number of entries it covers, a multiple of 256, and the
// peaks of the tree over them, largest first, one base64 hash a line: at most
// one for each bit of that number. It may lag the checkpoint, never lead it, and
// is never trusted: peaks and tail must hash to the signed root.
//
// # Engine
//
// [Load] reads the edge, the open segment and nothing else, and proves them
// against a checkpoint. [State.Append] is a pure function from a state and lines
// to the files that change, the next unsigned checkpoint, and the proof that it
// extends the last one. Two stores use it: a git repository under the claim
// protocol, and a directory ([Dir]).
//
// Files are written in the order segment, checkpoint, edge. A crash after a
// segment leaves lines above the checkpoint: not yet signed, or signed and not
// yet kept; the next writer completes exactly those lines before it adds others,
// so that a size never gets two roots.
package ledger

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
)

// SegmentSize is the number of entries of a sealed segment.
const SegmentSize = 256

// MaxLine is the largest entry in bytes, as tlog-tiles entry bundles have it.
const MaxLine = 65535

// The paths of a ledger's files, relative to its folder.
const (
	CheckpointPath = "checkpoint"
	EdgePath       = "edge"
	PolicyPath     = "policy"
)

// SegmentPath returns the path of segment n.
func SegmentPath(n int64) string {
	return fmt.Sprintf("log/%02d/%02d/%02d.jsonl", n/4096, n/64%64, n%64)
}

// ParseSegmentPath is the inverse of [SegmentPath].
func ParseSegmentPath(path string) (n int64, ok bool) {
	f := strings.Split(strings.TrimSuffix(path, ".jsonl"), "/")
	if len(f) != 4 {
		return 0, false
	}
	for _, digits := range f[1:] {
		d, err := strconv.ParseInt(digits, 10, 32)
		if err != nil || d < 0 {
			return 0, false
		}
		n = n*64 + d
	}
	return n, SegmentPath(n) == path
}

// Read returns the content of a ledger file. An absent file is fs.ErrNotExist;
// any other error means that nothing is known about it.
type Read func(path string) ([]byte, error)

// File is a file to write.
type File struct {
	Path string
	Data []byte
}

// TamperError is the evidence that a ledger's files are not what was signed.
type TamperError struct {
	What   string          // what does not fit, in words
	Signed checkpoint.Body // what the checkpoint says
	Got    checkpoint.Hash // what the files hash to, zero where they do not hash at all
}

func (e *TamperError) Error() string {
	s := fmt.Sprintf("%s: the checkpoint says size %d root %x", e.What, e.Signed.Size, e.Signed.Root[:])
	if e.Got != (checkpoint.Hash{}) {
		s += fmt.Sprintf(", the files say root %x", e.Got[:])
	}
	return s
}

// State is a ledger at one checkpoint, as much of it as an append needs. It is
// immutable; only [Load] and [State.Append] make one.
type State struct {
	body   checkpoint.Body
	sealed Range    // over the sealed segments
	tail   [][]byte // lines of the open segment, fewer than 256
	edge   int64    // entries covered by the edge file as it was read
}

// Empty returns the body of a log without entries.
func Empty(origin string) checkpoint.Body {
	return checkpoint.Body{Origin: origin, Root: Root(nil)}
}

// Load reads what an append needs and proves that it is what body describes:
// the edge, the open segment, and any sealed segment above a lagging edge. above
// holds complete lines beyond the body's size, which in a commit are tampering
// and in a directory the rest of an interrupted append.
func Load(read Read, body checkpoint.Body) (s *State, above [][]byte, err error) {
	s = &State{body: body}
	edge, err := read(EdgePath)
	switch {
	case err == nil:
		if s.sealed, err = parseEdge(edge); err != nil {
			return nil, nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, nil, fmt.Errorf("%s: %w", EdgePath, err)
	}
	s.edge = s.sealed.Size()
	if s.edge > body.Size {
		return nil, nil, &TamperError{What: fmt.Sprintf("edge covers %d entries and leads the checkpoint", s.edge), Signed: body}
	}
	for n := s.edge / SegmentSize; ; n++ {
		lines, err := readSegment(read, n)
		if err != nil {
			return nil, nil, err
		}
		need := max(0, min(SegmentSize, body.Size-n*SegmentSize))
		if int64(len(lines)) < need {
			return nil, nil, &TamperError{
				What:   fmt.Sprintf("%s holds %d entries, want %d", SegmentPath(n), len(lines), need),
				Signed: body,
			}
		}
		if need == SegmentSize {
			for _, l := range lines {
				s.sealed.Append(tlog.RecordHash(l))
			}
			continue
		}
		if need > 0 {
			s.tail = lines[:need]
		}
		above = append(above, lines[need:]...)
		if len(lines) < SegmentSize {
			break
		}
	}
	if root := s.full().Root(); root != body.Root {
		return nil, nil, &TamperError{What: "edge and open segment do not hash to the signed root", Signed: body, Got: root}
	}
	return s, above, nil
}

// Body returns the checkpoint body of the state.
func (s *State) Body() checkpoint.Body { return s.body }

// EdgeLags reports whether the edge file was behind the sealed segments.
func (s *State) EdgeLags() bool { return s.edge < s.sealed.Size() }

// Edge returns the edge file of the state.
func (s *State) Edge() File { return File{EdgePath, s.sealed.format()} }

func (s *State) full() Range {
	r := s.sealed.clone()
	for _, l := range s.tail {
		r.Append(tlog.RecordHash(l))
	}
	return r
}

// Update is what an append changes.
type Update struct {
	State *State // the state after it
	First int64  // index of the first new entry
	// Segments are the changed segments, oldest first.
	Segments []File
	// Consistency proves that State.Body extends the body before
	// (RFC 6962, section 2.1.2). It is empty when that log was empty.
	Consistency []checkpoint.Hash
}

// Files returns all that must be written, in order, once the new body is signed.
func (u *Update) Files(signed []byte) []File {
	files := append(u.Segments[:len(u.Segments):len(u.Segments)], File{CheckpointPath, signed})
	if u.State.EdgeLags() || u.First == 0 {
		files = append(files, u.State.Edge())
	}
	return files
}

// Append adds lines to a state. It reads and writes nothing.
func (s *State) Append(lines ...[]byte) (*Update, error) {
	if len(lines) == 0 {
		return nil, errors.New("ledger: append of no entries")
	}
	old := s.full()
	nodes := map[int64]checkpoint.Hash{} // stored-hash index → hash: old peaks and all new nodes
	old.peaksAt(func(level int, n int64, h checkpoint.Hash) { nodes[tlog.StoredHashIndex(level, n)] = h })

	next := &State{sealed: s.sealed.clone(), tail: s.tail[:len(s.tail):len(s.tail)], edge: s.edge}
	u := &Update{State: next, First: s.body.Size}
	full := old
	segment := s.body.Size / SegmentSize
	for _, l := range lines {
		if err := checkLine(l); err != nil {
			return nil, fmt.Errorf("ledger: entry %d: %w", full.Size(), err)
		}
		full.appendNoting(tlog.RecordHash(l), func(level int, n int64, h checkpoint.Hash) {
			nodes[tlog.StoredHashIndex(level, n)] = h
		})
		next.tail = append(next.tail, l)
		if len(next.tail) == SegmentSize {
			u.Segments = append(u.Segments, File{SegmentPath(segment), formatSegment(next.tail)})
			for _, sealed := range next.tail {
				next.sealed.Append(tlog.RecordHash(sealed))
			}
			next.tail = nil
			segment++
		}
	}
	if len(next.tail) > 0 {
		u.Segments = append(u.Segments, File{SegmentPath(segment), formatSegment(next.tail)})
	}
	next.body = checkpoint.Body{Origin: s.body.Origin, Size: full.Size(), Root: full.Root()}
	if s.body.Size > 0 {
		proof, err := tlog.ProveTree(next.body.Size, s.body.Size, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			hashes := make([]tlog.Hash, len(indexes))
			for i, x := range indexes {
				h, ok := nodes[x]
				if !ok {
					return nil, fmt.Errorf("ledger: node %d is not at hand", x)
				}
				hashes[i] = h
			}
			return hashes, nil
		}))
		if err != nil {
			return nil, err
		}
		u.Consistency = proof
	}
	// What this computed must pass what a stranger will check.
	if err := checkpoint.CheckConsistency(s.body, next.body, u.Consistency); err != nil {
		return nil, err
	}
	return u, nil
}

func checkLine(l []byte) error {
	if bytes.IndexByte(l, '\n') >= 0 {
		return errors.New("holds a newline")
	}
	return checkLength(l)
}

func checkLength(l []byte) error {
	switch {
	case len(l) == 0:
		return errors.New("is empty")
	case len(l) > MaxLine:
		return fmt.Errorf("is %d bytes, want at most %d", len(l), MaxLine)
	}
	return nil
}

func formatSegment(lines [][]byte) []byte {
	n := 0
	for _, l := range lines {
		n += len(l) + 1
	}
	b := make([]byte, 0, n)
	for _, l := range lines {
		b = append(append(b, l...), '\n')
	}
	return b
}

func readSegment(read Read, n int64) ([][]byte, error) {
	data, err := read(SegmentPath(n))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", SegmentPath(n), err)
	}
	lines, err := parseSegment(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", SegmentPath(n), err)
	}
	return lines, nil
}

func parseSegment(data []byte) ([][]byte, error) {
	if len(data) == 0 {
		return nil, errors.New("is empty")
	}
	if data[len(data)-1] != '\n' {
		return nil, errors.New("does not end in a newline")
	}
	lines := make([][]byte, 0, SegmentSize)
	for rest := data; len(rest) > 0; {
		if len(lines) == SegmentSize {
			return nil, fmt.Errorf("holds %d lines, want at most %d", bytes.Count(data, []byte("\n")), SegmentSize)
		}
		n := bytes.IndexByte(rest, '\n')
		if err := checkLength(rest[:n]); err != nil {
			return nil, fmt.Errorf("line %d %w", len(lines)+1, err)
		}
		lines = append(lines, rest[:n:n])
		rest = rest[n+1:]
	}
	return lines, nil
}

func parseEdge(data []byte) (Range, error) {
	first, rest, _ := strings.Cut(string(data), "\n")
	size, err := strconv.ParseInt(first, 10, 64)
	if err != nil || size < 0 || size%SegmentSize != 0 {
		return Range{}, fmt.Errorf("edge: size %q: want a multiple of %d", first, SegmentSize)
	}
	var r Range
	r.size = size
	for _, l := range strings.Split(strings.TrimSuffix(rest, "\n"), "\n") {
		if l == "" {
			continue
		}
		h, err := base64.StdEncoding.Strict().DecodeString(l)
		if err != nil || len(h) != tlog.HashSize {
			return Range{}, fmt.Errorf("edge: hash %q: want the base64 of %d bytes", l, tlog.HashSize)
		}
		r.peaks = append(r.peaks, checkpoint.Hash(h))
	}
	if len(r.peaks) != popcount(size) {
		return Range{}, fmt.Errorf("edge: %d hashes for %d entries, want %d", len(r.peaks), size, popcount(size))
	}
	if !bytes.Equal(r.format(), data) {
		return Range{}, errors.New("edge does not encode back to itself")
	}
	return r, nil
}

func (r Range) format() []byte {
	b := fmt.Appendf(nil, "%d\n", r.size)
	for _, h := range r.peaks {
		b = fmt.Appendf(b, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
	}
	return b
}
