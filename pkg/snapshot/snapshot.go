// Package snapshot is a dated statement of how far a ledger had come: one file a
// day, signed and time-stamped beside the log, so that whoever kept one can tell
// years later that the log was rewritten, and whoever kept none can see from the
// chain of files and tokens since when it was not.
//
// # The file
//
// ops/ledger/snapshots/YYYY-MM-DD.json is JSON, indented by two spaces, with a
// newline at its end and its keys in this order:
//
//	v            1
//	date         the day in UTC on which it was made, as in the file's name
//	origin       of the log
//	size, root   of its tree; the root in hex
//	checkpoint   the signed note that states them
//	policy_id    of the trust state under which the log was audited
//	previous     date, size and SHA-256 of the snapshot before; absent in the first
//	consistency  proof that this tree extends the one before (RFC 6962, section
//	             2.1.2), hashes in base64; absent where there is nothing to prove
//	missed       the days between the two, which have no snapshot and get none:
//	             nothing is dated back
//	slo_report   of the newest receipt of kind slo: its id, the SHA-256 of the
//	             report, its index, and its proof of inclusion in this tree;
//	             absent while there is none
//
// Beside it lie YYYY-MM-DD.json.asc, an OpenPGP signature over the file by a trust
// anchor, and YYYY-MM-DD.json.<authority>.tsr, RFC 3161 tokens over it.
//
// What decodes encodes to the same bytes; anything else is refused.
package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// Folder is where snapshots are, below the ledger's folder.
const Folder = "snapshots"

const day = 24 * time.Hour

var name = regexp.MustCompile(`^(\d{4}-\d{2}-\d{2})\.json$`)

// FileName returns the name of the snapshot of the day of a time, in UTC.
func FileName(at time.Time) string { return at.UTC().Format(time.DateOnly) + ".json" }

// IsFile reports whether a name is that of a snapshot, and not of its evidence.
func IsFile(base string) bool { return name.MatchString(base) }

// Snapshot is one file. Only [New] and [Parse] make one.
type Snapshot struct {
	f    file
	body checkpoint.Body
	date time.Time
	cons []checkpoint.Hash
}

type file struct {
	V           int       `json:"v"`
	Date        string    `json:"date"`
	Origin      string    `json:"origin"`
	Size        int64     `json:"size"`
	Root        string    `json:"root"`
	Checkpoint  string    `json:"checkpoint"`
	PolicyID    string    `json:"policy_id"`
	Previous    *previous `json:"previous,omitempty"`
	Consistency []string  `json:"consistency,omitempty"`
	Missed      []string  `json:"missed,omitempty"`
	Report      *report   `json:"slo_report,omitempty"`
}

type previous struct {
	Date   string `json:"date"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

type report struct {
	Receipt   string   `json:"receipt"`
	SHA256    string   `json:"sha256"`
	Index     int64    `json:"index"`
	Inclusion []string `json:"inclusion"`
}

// Previous is the newest snapshot that there is.
type Previous struct {
	Snapshot *Snapshot
	Data     []byte // its file
}

// New makes the snapshot of a day for a log that an audit has passed: entries are
// all that the checkpoint covers. last is the snapshot before; nil: there is
// none. A day that is not after the last one's is refused: a snapshot is never
// dated back.
func New(at time.Time, cp checkpoint.Verified, policyID string, entries []receipt.Entry, last *Previous) (*Snapshot, error) {
	b := cp.Body()
	if b.Size == 0 || int64(len(entries)) != b.Size {
		return nil, fmt.Errorf("snapshot: %d entries at hand, the checkpoint has %d: want all, and at least one", len(entries), b.Size)
	}
	date := at.UTC().Truncate(day)
	f := file{V: 1, Date: date.Format(time.DateOnly), Origin: b.Origin, Size: b.Size, Root: hex.EncodeToString(b.Root[:]), Checkpoint: string(cp.Note()), PolicyID: policyID}
	leaves := make([]checkpoint.Hash, len(entries))
	for i, e := range entries {
		leaves[i] = ledger.RecordHash(e.Line())
	}
	tree := ledger.NewTree(leaves)
	if last != nil {
		was := last.Snapshot
		switch {
		case !was.date.Before(date):
			return nil, fmt.Errorf("snapshot: there is one of %s already, and today is %s by the clock: nothing is dated back", was.f.Date, f.Date)
		case was.body.Origin != b.Origin:
			return nil, fmt.Errorf("snapshot: that of %s is of the log %s, this is %s", was.f.Date, was.body.Origin, b.Origin)
		case was.body.Size > b.Size:
			return nil, fmt.Errorf("snapshot: that of %s has %d entries, the log has %d: it was rolled back", was.f.Date, was.body.Size, b.Size)
		}
		sum := sha256.Sum256(last.Data)
		f.Previous = &previous{Date: was.f.Date, Size: was.body.Size, SHA256: hex.EncodeToString(sum[:])}
		if was.body.Size < b.Size {
			proof, err := tree.Consistency(was.body.Size, b.Size)
			if err != nil {
				return nil, fmt.Errorf("snapshot: %w", err)
			}
			f.Consistency = encode(proof)
		}
		f.Missed = between(was.date, date)
	}
	for i, e := range slices.Backward(entries) {
		if e.Receipt.Kind() != receipt.SLO {
			continue
		}
		proof, err := tree.Inclusion(b.Size, int64(i))
		if err != nil {
			return nil, fmt.Errorf("snapshot: %w", err)
		}
		f.Report = &report{Receipt: e.Receipt.ID().String(), SHA256: e.Receipt.Subjects()[0].SHA256, Index: int64(i), Inclusion: encode(proof)}
		break
	}
	data, err := f.marshal()
	if err != nil {
		return nil, err
	}
	s, err := Parse(f.Date+".json", data)
	if err != nil {
		return nil, err
	}
	if last != nil {
		if err := s.Extends(*last); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// between lists the days after one and before another.
func between(from, to time.Time) (days []string) {
	for d := from.Add(day); d.Before(to); d = d.Add(day) {
		days = append(days, d.Format(time.DateOnly))
	}
	return days
}

// Parse reads a snapshot. The note in it is not verified: see [Verify].
func Parse(base string, data []byte) (*Snapshot, error) {
	s, err := parse(base, data)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", base, err)
	}
	return s, nil
}

func parse(base string, data []byte) (*Snapshot, error) {
	m := name.FindStringSubmatch(base)
	if m == nil {
		return nil, errors.New("want a name of the form YYYY-MM-DD.json")
	}
	if len(data) > 1<<20 {
		return nil, fmt.Errorf("%d bytes, want at most 1 MiB", len(data))
	}
	s := &Snapshot{}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s.f); err != nil {
		return nil, err
	}
	again, err := s.f.marshal()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data) {
		return nil, errors.New("it is not written as a snapshot is: keys in order, two spaces, a newline at its end")
	}
	if s.f.V != 1 {
		return nil, fmt.Errorf("version %d, want 1", s.f.V)
	}
	if s.date, err = time.Parse(time.DateOnly, s.f.Date); err != nil {
		return nil, err
	}
	if s.f.Date != m[1] {
		return nil, fmt.Errorf("it is of %s", s.f.Date)
	}
	root, err := hash(hex.DecodeString(s.f.Root))
	if err != nil || hex.EncodeToString(root[:]) != s.f.Root {
		return nil, fmt.Errorf("root %q: want 64 lower-case hex digits", s.f.Root)
	}
	if s.f.Size <= 0 {
		return nil, fmt.Errorf("size %d: want at least 1", s.f.Size)
	}
	if s.body = (checkpoint.Body{Origin: s.f.Origin, Size: s.f.Size, Root: root}); checkpoint.CheckOrigin(s.f.Origin) != nil {
		return nil, fmt.Errorf("origin %q: %w", s.f.Origin, checkpoint.CheckOrigin(s.f.Origin))
	}
	if s.cons, err = decode(s.f.Consistency); err != nil {
		return nil, fmt.Errorf("consistency: %w", err)
	}
	return s, s.checkPrevious()
}

func (s *Snapshot) checkPrevious() error {
	p := s.f.Previous
	if p == nil {
		if len(s.f.Missed)+len(s.cons) > 0 {
			return errors.New("it says what lies between it and a snapshot before, and names none")
		}
		return nil
	}
	was, err := time.Parse(time.DateOnly, p.Date)
	switch {
	case err != nil:
		return fmt.Errorf("previous: %w", err)
	case !was.Before(s.date):
		return fmt.Errorf("the one before is of %s, and this is of %s", p.Date, s.f.Date)
	case !slices.Equal(s.f.Missed, between(was, s.date)):
		return fmt.Errorf("missed says %v, between %s and %s lie %v", s.f.Missed, p.Date, s.f.Date, between(was, s.date))
	}
	return nil
}

// Marshal returns the file.
func (s *Snapshot) Marshal() []byte {
	data, err := s.f.marshal()
	if err != nil {
		panic(err) // it was marshalled before
	}
	return data
}

func (f file) marshal() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(f)
	return b.Bytes(), err
}

// Date is the first moment of the day in UTC.
func (s *Snapshot) Date() time.Time { return s.date }

// File is the name of the file.
func (s *Snapshot) File() string { return s.f.Date + ".json" }

// Body is what the checkpoint in it states.
func (s *Snapshot) Body() checkpoint.Body { return s.body }

// Missed are the days since the snapshot before that have none.
func (s *Snapshot) Missed() []string { return slices.Clone(s.f.Missed) }

// Extends verifies that a snapshot is the next after another: it names that one's
// bytes, and its log is that one's log, grown.
func (s *Snapshot) Extends(last Previous) error {
	p, was := s.f.Previous, last.Snapshot
	sum := sha256.Sum256(last.Data)
	switch {
	case p == nil:
		return fmt.Errorf("snapshot %s names no snapshot before it, and there is %s", s.File(), was.File())
	case p.Date != was.f.Date || p.Size != was.body.Size || p.SHA256 != hex.EncodeToString(sum[:]):
		return fmt.Errorf("snapshot %s follows one of %s with %d entries and SHA-256 %s, but %s has %d and %x", s.File(), p.Date, p.Size, p.SHA256, was.File(), was.body.Size, sum)
	}
	if was.body == s.body && len(s.cons) == 0 {
		return nil
	}
	if err := checkpoint.CheckConsistency(was.body, s.body, s.cons); err != nil {
		return fmt.Errorf("snapshot %s does not extend %s: %w", s.File(), was.File(), err)
	}
	return nil
}

func encode(hashes []checkpoint.Hash) []string {
	text := make([]string, 0, len(hashes))
	for _, h := range hashes {
		text = append(text, base64.StdEncoding.EncodeToString(h[:]))
	}
	return text
}

func decode(text []string) ([]checkpoint.Hash, error) {
	var hashes []checkpoint.Hash
	for _, t := range text {
		h, err := hash(base64.StdEncoding.Strict().DecodeString(t))
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, h)
	}
	return hashes, nil
}

func hash(b []byte, err error) (h checkpoint.Hash, _ error) {
	if err == nil && len(b) != len(h) {
		err = fmt.Errorf("%d bytes, want %d", len(b), len(h))
	}
	if err != nil {
		return h, err
	}
	return checkpoint.Hash(b), nil
}

// Path returns the path of a snapshot's file below the ledger's folder.
func Path(base string) string { return path.Join(Folder, base) }
