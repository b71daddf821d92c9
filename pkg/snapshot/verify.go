package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// Series is all snapshots of a repository, and what they are held to.
type Series struct {
	Tree   judge.Tree
	Folder string // of the snapshots, in the tree
	Policy *checkpoint.Policy
	// Keys are the trust anchors, and those that were once.
	Keys []*openpgp.Keyring
	// Entries are those of the log as it is now, of an audit that passed.
	Entries []receipt.Entry
	// Stamps judges the time stamps of a file, as pkg/covenant has it; nil: no
	// authority is pinned, and tokens are not judged.
	Stamps func(file string, data []byte, there []string, read func(string) ([]byte, error)) (evidence []string, wrong string, err error)
	Now    time.Time
}

// Newest returns the newest snapshot of a tree; nil: there is none.
func Newest(t judge.Tree, folder string) (*Previous, error) {
	names, err := list(t, folder)
	if err != nil {
		return nil, err
	}
	for _, base := range slices.Backward(names) {
		if !IsFile(base) {
			continue
		}
		data, err := t.Blob(path.Join(folder, base))
		if err != nil {
			return nil, err
		}
		s, err := Parse(base, data)
		if err != nil {
			return nil, err
		}
		return &Previous{Snapshot: s, Data: data}, nil
	}
	return nil, nil
}

// list returns the names of the files in a folder, in order.
func list(t judge.Tree, folder string) (names []string, err error) {
	err = t.Walk(folder, func(p string, mode fs.FileMode, _ string) error {
		if !mode.IsRegular() || path.Dir(p) != folder {
			return fmt.Errorf("%s is no regular file in %s", p, folder)
		}
		names = append(names, path.Base(p))
		return nil
	})
	slices.Sort(names)
	return names, err
}

// Verify makes the checks of the snapshots:
//
//   - integrity/snapshot-sequence: every file is one, names the bytes of the one before, and
//     proves that the log grew from there
//   - integrity/snapshot-ledger: every checkpoint is one that the policy accepts, and the
//     head of a part of the log as it is now; what it says of a report is so
//   - integrity/snapshot-signature: every file is signed by a trust anchor
//   - integrity/snapshot-timestamp: every file bears the time stamps that are demanded
//
// Days without a snapshot are findings that warn. Without any snapshot there is one
// check, integrity/snapshots, which is unclaimed.
func (v Series) Verify() []judge.Check {
	ids := []struct{ id, claim string }{
		{"integrity/snapshot-sequence", "each snapshot extends the one before"},
		{"integrity/snapshot-ledger", "each snapshot is of this log"},
		{"integrity/snapshot-signature", "each snapshot is signed by a trust anchor"},
		{"integrity/snapshot-timestamp", "each snapshot is time-stamped"},
	}
	const id, claim = "integrity/snapshots", "dated snapshots bear the ledger out"
	all, there, err := v.read()
	switch {
	case err != nil:
		return []judge.Check{judge.Unjudged(id, claim, err)}
	case len(there) == 0:
		return []judge.Check{judge.NotClaimed(id, claim, "no snapshot is there: remembrancer snapshot create makes today's")}
	}
	checks := make([]judge.Check, len(ids))
	detail := fmt.Sprintf("%d snapshots, %s to %s", len(all), all[0].Snapshot.f.Date, all[len(all)-1].Snapshot.f.Date)
	checks[0] = judge.Judged(ids[0].id, ids[0].claim, detail, v.sequence(all, there)...)
	checks[1] = judge.Judged(ids[1].id, ids[1].claim, detail, v.inLog(all)...)
	by, wrong := v.signed(all, there)
	checks[2] = judge.Judged(ids[2].id, ids[2].claim, detail, wrong...)
	checks[2].Evidence = by
	checks[3] = v.stamped(ids[3].id, ids[3].claim, all, there)
	return checks
}

// read returns the snapshots by date, and the names of all files of the folder.
func (v Series) read() (all []Previous, there []string, err error) {
	if there, err = list(v.Tree, v.Folder); err != nil {
		return nil, nil, err
	}
	for _, base := range there {
		if !IsFile(base) {
			continue
		}
		data, err := v.Tree.Blob(path.Join(v.Folder, base))
		if err != nil {
			return nil, nil, err
		}
		s, err := Parse(base, data)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, Previous{Snapshot: s, Data: data})
	}
	if len(all) == 0 && len(there) > 0 {
		return nil, nil, fmt.Errorf("%s holds evidence of snapshots, and none: %s", v.Folder, strings.Join(there, ", "))
	}
	return all, there, nil
}

func (v Series) finding(base, format string, args ...any) judge.Finding {
	return judge.Finding{Path: path.Join(v.Folder, base), Message: fmt.Sprintf(format, args...)}
}

func (v Series) sequence(all []Previous, there []string) (fs []judge.Finding) {
	for i, p := range all {
		if i == 0 {
			if p.Snapshot.f.Previous != nil {
				fs = append(fs, v.finding(p.Snapshot.File(), "it follows the snapshot of %s, which is not there", p.Snapshot.f.Previous.Date))
			}
			continue
		}
		if err := p.Snapshot.Extends(all[i-1]); err != nil {
			fs = append(fs, v.finding(p.Snapshot.File(), "%v", err))
		}
		if n := len(p.Snapshot.f.Missed); n > 0 {
			f := v.finding(p.Snapshot.File(), "%d days before it have no snapshot: %s", n, strings.Join(p.Snapshot.f.Missed, ", "))
			f.Warning = true
			fs = append(fs, f)
		}
	}
	for _, base := range there {
		of, _, _ := strings.Cut(base, ".json")
		if _, found := slices.BinarySearchFunc(all, of, func(p Previous, of string) int { return strings.Compare(p.Snapshot.f.Date, of) }); !found {
			fs = append(fs, v.finding(base, "it belongs to no snapshot"))
		}
	}
	return fs
}

func (v Series) inLog(all []Previous) (fs []judge.Finding) {
	leaves := make([]checkpoint.Hash, len(v.Entries))
	for i, e := range v.Entries {
		leaves[i] = ledger.RecordHash(e.Line())
	}
	tree := ledger.NewTree(leaves)
	for _, p := range all {
		s := p.Snapshot
		cp, err := v.Policy.Open([]byte(s.f.Checkpoint))
		if err != nil {
			fs = append(fs, v.finding(s.File(), "its checkpoint: %v", err))
			continue
		}
		if cp.Body() != s.body {
			fs = append(fs, v.finding(s.File(), "its checkpoint states another size or root"))
			continue
		}
		if s.body.Size > tree.Size() {
			fs = append(fs, v.finding(s.File(), "it saw %d entries, the log has %d: entries were removed", s.body.Size, tree.Size()))
			continue
		}
		if root, err := tree.Root(s.body.Size); err != nil || root != s.body.Root {
			fs = append(fs, v.finding(s.File(), "the first %d entries of the log hash to %x, it saw %x: the log was rewritten", s.body.Size, root[:], s.body.Root[:]))
			continue
		}
		if err := v.reported(s, cp); err != nil {
			fs = append(fs, v.finding(s.File(), "slo_report: %v", err))
		}
	}
	return fs
}

// reported verifies what a snapshot says of the newest report of its time.
func (v Series) reported(s *Snapshot, cp checkpoint.Verified) error {
	newest := int64(-1)
	for i, e := range v.Entries[:s.body.Size] {
		if e.Receipt.Kind() == receipt.SLO {
			newest = int64(i)
		}
	}
	r := s.f.Report
	if r == nil {
		if newest >= 0 {
			return fmt.Errorf("it names none, and entry %d is one", newest)
		}
		return nil
	}
	if r.Index != newest {
		return fmt.Errorf("it names entry %d, the newest report is entry %d", r.Index, newest)
	}
	e := v.Entries[newest]
	if e.Receipt.ID().String() != r.Receipt || e.Receipt.Subjects()[0].SHA256 != r.SHA256 {
		return fmt.Errorf("entry %d is receipt %s of report %s", newest, e.Receipt.ID(), e.Receipt.Subjects()[0].SHA256)
	}
	hashes, err := decode(r.Inclusion)
	if err != nil {
		return err
	}
	return checkpoint.Proof{Index: r.Index, Hashes: hashes}.CheckInclusion(cp, e.Line())
}

func (v Series) signed(all []Previous, there []string) (by []string, fs []judge.Finding) {
	for _, p := range all {
		base := p.Snapshot.File()
		if !slices.Contains(there, base+".asc") {
			fs = append(fs, v.finding(base, "it is not signed: %s.asc is missing", base))
			continue
		}
		signer, err := v.signer(base, p.Data)
		if err != nil {
			fs = append(fs, v.finding(base+".asc", "%v", err))
			continue
		}
		by = append(by, fmt.Sprintf("%s by %s", base, signer))
	}
	return by, fs
}

func (v Series) signer(base string, data []byte) (by openpgp.Verified, err error) {
	armored, err := v.Tree.Blob(path.Join(v.Folder, base+".asc"))
	if err != nil {
		return by, err
	}
	packet, err := openpgp.Dearmor(bytes.TrimSpace(armored))
	if err != nil {
		return by, err
	}
	err = errors.New("no trust anchor is known")
	for _, ring := range v.Keys {
		if ring == nil {
			continue
		}
		for _, f := range ring.Fingerprints() {
			if by, err = openpgp.Verify(ring, f, data, packet, openpgp.VerifyOptions{Now: v.Now}); err == nil {
				return by, nil
			}
		}
	}
	return by, fmt.Errorf("no trust anchor signed %s: %w", base, err)
}

func (v Series) stamped(id, claim string, all []Previous, there []string) judge.Check {
	if v.Stamps == nil {
		if i := slices.IndexFunc(there, func(n string) bool { return strings.HasSuffix(n, ".tsr") }); i >= 0 {
			return judge.Unjudged(id, claim, fmt.Errorf("%s is there, but no time-stamping authority is pinned to judge it by: remembrancer tsa bootstrap", there[i]))
		}
		return judge.NotClaimed(id, claim, "no time-stamping authority is pinned: remembrancer tsa bootstrap")
	}
	var fs []judge.Finding
	var evidence []string
	for _, p := range all {
		base := p.Snapshot.File()
		seen, wrong, err := v.Stamps(base, p.Data, there, func(n string) ([]byte, error) { return v.Tree.Blob(path.Join(v.Folder, n)) })
		if err != nil {
			return judge.Unjudged(id, claim, fmt.Errorf("%s: %w", base, err))
		}
		evidence = append(evidence, seen...)
		if wrong != "" {
			fs = append(fs, v.finding(base, "%s", wrong))
		}
	}
	c := judge.Judged(id, claim, fmt.Sprintf("%d snapshots", len(all)), fs...)
	c.Evidence = evidence
	return c
}

// With returns the series as it would be with further files, by their paths in the
// tree.
func (v Series) With(files map[string][]byte) Series {
	v.Tree = added{v.Tree, files}
	return v
}

type added struct {
	judge.Tree
	files map[string][]byte
}

func (a added) Blob(p string) ([]byte, error) {
	if data, ok := a.files[p]; ok {
		return data, nil
	}
	return a.Tree.Blob(p)
}

func (a added) Walk(folder string, fn func(string, fs.FileMode, string) error) error {
	if err := a.Tree.Walk(folder, func(p string, mode fs.FileMode, id string) error {
		if _, replaced := a.files[p]; replaced {
			return nil
		}
		return fn(p, mode, id)
	}); err != nil {
		return err
	}
	for _, p := range slices.Sorted(maps.Keys(a.files)) {
		if folder != "" && !strings.HasPrefix(p, folder+"/") {
			continue
		}
		if err := fn(p, 0o644, "added"); err != nil {
			return err
		}
	}
	return nil
}
