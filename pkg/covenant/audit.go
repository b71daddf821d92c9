// Package covenant judges a repository's evidence: the audit of its ledger and
// the checks that a change must pass before it is merged.
//
// It reads a commit's blobs through [Tree], never a work tree: what is judged is
// what was committed. Every check answers pass, fail, or error; error means that
// it could not judge, and is never a pass.
//
// # The audit (checks 1 to 8)
//
//  1. the folders hold only regular files on the paths of their grammar
//  2. the checkpoint verifies under the pinned log policy
//  3. exactly the checkpoint's number of entries, which hash to its root, with
//     the edge of the same tree
//  4. every line encodes back to itself, and no (id, fingerprint) comes twice
//  5. every receipt is signed by its issuer, and the issuer is trusted at its
//     index: see [KeyChange] for keys that were rotated away or revoked
//  6. every sequenced receipt file is there and is what was sequenced
//  7. one root line in the index document, equal to the root, and the badge
//     recomputed
//  8. the checkpoint extends the last one seen, and every one before it in
//     history
//
// # The change checks (9 to 13)
//
// They compare a base with the merge result, never with the head alone.
//
//  9. ledger, root line, status and trust anchors equal the base's
//  10. receipts are only added
//  11. no two paths fold to one name, and no attribute touches the folders
//  12. paths that the gate owns are unchanged, or their change was approved
//  13. no reserved kind of receipt is added
//
// [Report.Checks] gives them in the words of all judges, as integrity/paths to
// integrity/reserved-kinds. Check 7 is there twice, as integrity/root-line and
// integrity/badge.
//
// # Further evidence
//
//   - [Documents]: what documents say of the root and of the tests is true
//   - [Federation]: merging is deterministic, and what was merged is verified
//   - [Artifacts] and [Genesis]: digest, signature and timestamp of what is named
//
// # Waivers
//
// A [Waiver] is a signed and expiring receipt by which a trust anchor lets one
// failed check pass. What keeps the ledger honest cannot be waived.
package covenant

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// Tree is a commit's tree.
type Tree = judge.Tree

// Layout says where a repository keeps its evidence.
type Layout struct {
	Ops  string // folder of ledger, receipts, status and certs; "ops"
	Docs string // the index document; "docs/REMEMBRANCER.md"
}

// DefaultLayout is where everything is unless configured otherwise.
func DefaultLayout() Layout { return Layout{Ops: "ops", Docs: "docs/REMEMBRANCER.md"} }

// Ledger returns the path of a ledger file.
func (l Layout) Ledger(name string) string { return l.Ops + "/ledger/" + name }

// Receipt returns the path of a receipt file.
func (l Layout) Receipt(file string) string { return l.Ops + "/receipts/" + file }

// Status returns the path of a status file.
func (l Layout) Status(name string) string { return l.Ops + "/status/" + name }

// Certs returns the folder of the trust anchors.
func (l Layout) Certs() string { return l.Ops + "/certs" }

// LedgerReader reads ledger files out of a tree.
func (l Layout) LedgerReader(t Tree) ledger.Read {
	return func(name string) ([]byte, error) { return read(t, l.Ledger(name)) }
}

// Status is the outcome of a check. Its zero value is no outcome.
type Status int

// The outcomes.
const (
	Pass  Status = iota + 1
	Fail         // judged, and found wanting
	Error        // could not judge
)

func (s Status) String() string {
	switch s {
	case Pass:
		return "pass"
	case Fail:
		return "fail"
	case Error:
		return "error"
	}
	return "invalid"
}

// Finding is what one check found.
type Finding struct {
	Check    int      `json:"check"`
	Name     string   `json:"name"`
	Status   string   `json:"status"`
	Detail   string   `json:"detail"`
	Evidence []string `json:"evidence,omitempty"` // both notes of a fork, both bytes of a mismatch

	status Status
}

// Report is the outcome of an audit or of the change checks.
type Report struct {
	Findings []Finding
	checks   []judge.Check // the same, for judges
	// What the audit read on its way, for those who go on with it. Checkpoint is
	// the zero value for a log that was not begun.
	Checkpoint checkpoint.Verified
	Entries    []receipt.Entry
	// PolicyID names the trust state the audit used.
	PolicyID string
	// Development lists the trust anchors that say of themselves that they are for
	// development; what only they signed proves nothing to others.
	Development []openpgp.Fingerprint
	// FirstUse says that no policy was pinned: the repository's own was believed.
	FirstUse bool
}

// Status returns the outcome of all checks: fail when one found something
// wanting, whatever else could not be judged because of it. A report without
// findings is an error, and so is a finding without an outcome.
func (r *Report) Status() Status {
	all := Pass
	for _, f := range r.Findings {
		switch f.status {
		case Pass:
		case Fail:
			return Fail
		default:
			all = Error
		}
	}
	if len(r.Findings) == 0 {
		return Error
	}
	return all
}

// Failures returns the findings that are not passes.
func (r *Report) Failures() []Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool { return f.status == Pass })
}

func (r *Report) add(check int, name string, detail string, err error, evidence ...string) {
	r.find(check, name, detail, err, evidence...)
	r.check(claims[check], detail, err, evidence...)
}

func (r *Report) find(check int, name string, detail string, err error, evidence ...string) {
	f := Finding{Check: check, Name: name, Detail: detail, status: Pass}
	var unread unreadable
	switch {
	case errors.As(err, &unread):
		f.status, f.Detail = Error, err.Error()
	case err != nil:
		f.status, f.Detail, f.Evidence = Fail, err.Error(), evidence
	}
	f.Status = f.status.String()
	r.Findings = append(r.Findings, f)
}

// addIndex adds check 7, which is two claims.
func (r *Report) addIndex(l Layout, root, badge error) {
	err := root
	if err == nil {
		err = badge
	}
	r.find(7, checkIndex, l.Docs+" states the root", err)
	r.check(claims[7], l.Docs+" states the root", root)
	r.check(badgeClaim, "it is what the last admitted verdict makes it", badge)
}

func (r *Report) check(c claim, detail string, err error, evidence ...string) {
	var unread unreadable
	switch {
	case errors.As(err, &unread):
		r.checks = append(r.checks, judge.Unjudged(c.id, c.text, err))
	case err != nil:
		r.checks = append(r.checks, judge.Check{ID: c.id, Claim: c.text, Status: judge.Fail, Detail: err.Error(), Evidence: evidence})
	default:
		r.checks = append(r.checks, judge.Judged(c.id, c.text, detail))
	}
}

// Checks returns the findings in the words of all judges.
func (r *Report) Checks() []judge.Check { return slices.Clone(r.checks) }

// unread says why the entries are not those of a ledger, nil when they are: its
// checkpoint verifies, and every line under it is one of its issuer's.
func (r *Report) unread() error {
	for _, n := range []int{2, 3, 4, 5} {
		if !slices.ContainsFunc(r.checks, func(c judge.Check) bool { return c.ID == claims[n].id && c.Status == judge.Pass }) {
			return fmt.Errorf("not judged: there is no sound ledger to judge by; see %s", claims[n].id)
		}
	}
	return nil
}

// claim is what a check is called, and what holds when it passes.
type claim struct{ id, text string }

// claims are the checks by their numbers. Their ids are stable: configurations
// and waivers name them.
var claims = map[int]claim{
	1:  {"integrity/paths", "ledger and receipts hold only regular files in their places"},
	2:  {"integrity/checkpoint", "the checkpoint verifies under the log policy"},
	3:  {"integrity/entries", "the entries hash to the checkpoint's root"},
	4:  {"integrity/lines", "every line is canonical, and no signature comes twice"},
	5:  {"integrity/signatures", "every receipt is signed by its trusted issuer"},
	6:  {"integrity/receipt-files", "every sequenced receipt file is there and unchanged"},
	7:  {"integrity/root-line", "the index document states the root, once"},
	8:  {"integrity/append-only", "the log only ever grew"},
	9:  {"integrity/ledger-unchanged", "ledger, root line, status and trust anchors equal the base's"},
	10: {"integrity/receipts-only-added", "receipts are only added"},
	11: {"integrity/names-and-attributes", "no names fold together, and no attribute touches the evidence"},
	12: {"integrity/gate-owned", "what decides the gates is unchanged, or approved by a code owner"},
	13: {"integrity/reserved-kinds", "no receipt of a kind is added that only trusted jobs issue"},
}

var badgeClaim = claim{"integrity/badge", "the badge is what the last admitted verdict makes it"}

// unreadable marks evidence that could not be read: nothing is known about it.
type unreadable struct{ error }

func (u unreadable) Unwrap() error { return u.error }

// Options are what an audit is held to.
type Options struct {
	Layout Layout
	// Policy is the pinned log policy. Nil believes the repository's own file,
	// and the report says so.
	Policy *checkpoint.Policy
	// PolicyID is the pinned id of the whole trust state, in hex; empty for none.
	PolicyID string
	// Claimed is an unsigned body to hold the entries to in place of the
	// checkpoint: what a publisher is about to sign. Checks 7 and 8 are then the
	// caller's.
	Claimed *checkpoint.Body
	// LastSeen is the newest checkpoint this verifier has accepted, or nil.
	LastSeen []byte
	// History are the checkpoints of earlier commits on the first-parent line,
	// newest first; HistoryShallow says that older ones are not at hand.
	History        []Past
	HistoryShallow bool
	// Badge recomputes the status files that an entry implies; ok is false for
	// entries that imply none. Nil leaves status files unchecked.
	Badge func(e receipt.Entry) (files map[string][]byte, ok bool)
	Now   time.Time
	// Proven is the memory of one caller that audits the same log again and
	// again (optional).
	Proven *Proven
}

// Proven remembers the entries whose lines and signatures passed checks 4 and 5,
// by their leaf hash and under one trust state. An audit that is given it parses
// and verifies only what is new; that the entries are those of the checkpoint is
// proven every time. Its zero value is ready, and is for one audit at a time.
type Proven struct {
	trust   string
	entries map[checkpoint.Hash]proven
}

type proven struct {
	entry  receipt.Entry
	issued bool // the issuer's own signature is in it
}

// under forgets what was proven under other keys. Fingerprints do not tell: a
// certificate may have been revoked.
func (p *Proven) under(t *Trust) *Proven {
	if p == nil {
		return &Proven{}
	}
	var certs []byte
	for _, ring := range []*openpgp.Keyring{t.Keys, t.Retired} {
		certs = append(certs, "keyring\n"...)
		for _, f := range ring.Fingerprints() {
			k, _ := ring.Lookup(f)
			certs = append(certs, k.Binary()...)
		}
	}
	if keys := t.ID() + digest(certs); p.trust != keys || p.entries == nil {
		*p = Proven{trust: keys, entries: map[checkpoint.Hash]proven{}}
	}
	return p
}

func (p *Proven) keep(leaf checkpoint.Hash, e receipt.Entry, issued bool) {
	if p.entries != nil {
		p.entries[leaf] = proven{e, issued}
	}
}

// Past is the checkpoint of an earlier commit.
type Past struct {
	Commit string
	Note   []byte
}

// Names of the checks.
const (
	checkGrammar    = "paths"
	checkCheckpoint = "checkpoint"
	checkRehash     = "entries"
	checkLines      = "lines"
	checkSignatures = "signatures"
	checkReceipts   = "receipt files"
	checkIndex      = "root line and badge"
	checkExtends    = "append-only"
)

// Audit carries out checks 1 to 8. A check that rests on one that did not pass
// is an error, never left out.
func Audit(t Tree, opts Options) *Report {
	r := &Report{FirstUse: opts.Policy == nil && opts.PolicyID == ""}
	l := opts.Layout

	n, err := checkPaths(t, l)
	r.add(1, checkGrammar, fmt.Sprintf("%d files, all regular and in their places", n), err)

	trust, err := LoadTrust(t, l)
	body, begun := checkpoint.Body{}, false
	var evidence []string
	if err == nil {
		r.PolicyID = trust.ID()
		r.Development = trust.Keys.Development()
		begun, evidence, err = auditCheckpoint(t, opts, trust, r)
	}
	switch {
	case err != nil:
		r.add(2, checkCheckpoint, "", err, evidence...)
	case opts.Claimed != nil:
		body = *opts.Claimed
		r.add(2, checkCheckpoint, fmt.Sprintf("claimed, not yet signed: size %d, root %x", body.Size, body.Root[:]), nil)
	case !begun:
		body = ledger.Empty(trust.Policy.Origins()[0])
		r.add(2, checkCheckpoint, "the log has not begun: no entry was published yet", nil)
	default:
		body = r.Checkpoint.Body()
		r.add(2, checkCheckpoint, fmt.Sprintf("size %d, root %x, signed for %s", body.Size, body.Root[:], body.Origin), nil)
	}
	if err != nil {
		unjudged := unreadable{errors.New("not judged: there is no verified checkpoint to judge by")}
		for i, name := range []string{checkRehash, checkLines, checkSignatures, checkReceipts} {
			r.add(3+i, name, "", unjudged)
		}
		r.addIndex(l, unjudged, unjudged)
		r.add(8, checkExtends, "", unjudged)
		return r
	}

	known := opts.Proven.under(trust)
	leaves, err := ledger.Verify(l.LedgerReader(t), body)
	if err == nil {
		err = checkSegments(t, l, body)
	}
	r.add(3, checkRehash, fmt.Sprintf("%d entries hash to the root", body.Size), err, notes(r.Checkpoint.Note())...)
	if err == nil {
		r.Entries, err = readEntries(t, l, body, leaves, known)
		r.add(4, checkLines, fmt.Sprintf("%d lines are canonical, no signature twice", len(r.Entries)), err)
	} else {
		r.add(4, checkLines, "", unreadable{errors.New("not judged: the entries are not those of the checkpoint")})
	}
	if err != nil {
		for i, name := range []string{checkSignatures, checkReceipts} {
			r.add(5+i, name, "", unreadable{errors.New("not judged: the entries could not be read")})
		}
	} else {
		r.add(5, checkSignatures, anchorsOf(trust), checkIssuers(r.Entries, leaves, known, trust, opts.Now))
		n, err := checkFiles(t, l, r.Entries)
		r.add(6, checkReceipts, fmt.Sprintf("%d files are what was sequenced", n), err)
	}
	if opts.Claimed != nil {
		return r
	}
	r.addIndex(l, checkRootLine(t, l, body), checkBadge(t, opts, body, r.Entries))
	detail, evidence, err := checkHistory(opts, trust.Policy, body, r.Checkpoint.Note(), leaves)
	r.add(8, checkExtends, detail, err, evidence...)
	return r
}

// notes are the signed notes that a failure is shown with.
func notes(signed ...[]byte) []string {
	var all []string
	for _, n := range signed {
		if n != nil {
			all = append(all, string(n))
		}
	}
	return all
}

// read returns a file's content. Whatever keeps it from being read, other than
// that it is not there, is unreadable: it proves nothing about the file.
func read(t Tree, name string) ([]byte, error) {
	b, err := t.Blob(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, unreadable{fmt.Errorf("%s: %w", name, err)}
	}
	return b, err
}

var (
	fingerprint    = `[0-9A-F]{40}(?:[0-9A-F]{24})?`
	receiptGrammar = regexp.MustCompile(`^([a-z-]+)/([^/]+)\.receipt(?:\.(` + fingerprint + `)\.asc)?$`)
	snapshotFile   = regexp.MustCompile(`^snapshots/\d{4}-\d{2}-\d{2}\.json(\.asc|\.[a-z0-9-]*\.?tsr)?$`)
)

// onGrammar says whether a path relative to the ops folder may be there, for
// the paths below ledger and receipts.
func onGrammar(rel string) bool {
	if name, ok := strings.CutPrefix(rel, "ledger/"); ok {
		if name == ledger.CheckpointPath || name == ledger.EdgePath || name == ledger.PolicyPath || snapshotFile.MatchString(name) {
			return true
		}
		_, ok := ledger.ParseSegmentPath(name)
		return ok
	}
	if name, ok := strings.CutPrefix(rel, "receipts/"); ok {
		_, _, _, ok := splitReceiptPath(name)
		if !ok {
			_, _, ok = splitMergePath(name)
		}
		return ok
	}
	return false
}

func splitReceiptPath(rel string) (kind receipt.Kind, name string, signer openpgp.Fingerprint, ok bool) {
	m := receiptGrammar.FindStringSubmatch(rel)
	if m == nil || receipt.CheckName(m[2]) != nil {
		return "", "", "", false
	}
	k, err := receipt.ParseKind(m[1])
	return k, m[2], openpgp.Fingerprint(m[3]), err == nil
}

// checkPaths is check 1. It looks at all of the ops folder: "Ledger" beside
// "ledger" is the same folder on some file systems.
func checkPaths(t Tree, l Layout) (n int, err error) {
	var bad []string
	folded := map[string]string{}
	err = t.Walk(l.Ops, func(p string, mode fs.FileMode, _ string) error {
		rel := strings.TrimPrefix(p, l.Ops+"/")
		folder, _, _ := strings.Cut(rel, "/")
		switch {
		case p == l.Ops:
			bad = append(bad, p+" is not a folder")
			return nil
		case isAttributes(p):
			bad = append(bad, p+" would change how git stores the evidence")
			return nil
		case !strings.EqualFold(folder, "ledger") && !strings.EqualFold(folder, "receipts"):
			return nil
		}
		n++
		switch other := folded[strings.ToLower(p)]; {
		case mode&fs.ModeSymlink != 0:
			bad = append(bad, p+" is a symbolic link")
		case !mode.IsRegular():
			bad = append(bad, p+" is not a regular file")
		case !onGrammar(rel):
			bad = append(bad, p+" has no place there")
		case other != "":
			bad = append(bad, other+" and "+p+" are one name on some file systems")
		}
		folded[strings.ToLower(p)] = p
		return nil
	})
	if err != nil {
		return n, unreadable{err}
	}
	above, err := attributesAbove(t, l)
	if err != nil {
		return n, err
	}
	if bad = append(bad, above...); len(bad) > 0 {
		return n, errors.New(list(bad))
	}
	return n, nil
}

// isAttributes says whether git takes attributes from a file of this path, on
// any file system.
func isAttributes(p string) bool { return strings.EqualFold(path.Base(p), ".gitattributes") }

// attributesAbove finds attribute files between the root and the ops folder:
// git lets them override the root's.
func attributesAbove(t Tree, l Layout) (bad []string, err error) {
	for dir := path.Dir(l.Ops); dir != "."; dir = path.Dir(dir) {
		name := dir + "/.gitattributes"
		_, err := read(t, name)
		switch {
		case err == nil:
			bad = append(bad, name+" would change how git stores the evidence")
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return bad, nil
}

// list joins findings, naming the first few.
func list(items []string) string {
	const show = 5
	if len(items) <= show {
		return strings.Join(items, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(items[:show], "; "), len(items)-show)
}

func auditCheckpoint(t Tree, opts Options, trust *Trust, r *Report) (begun bool, evidence []string, err error) {
	if opts.PolicyID != "" && opts.PolicyID != trust.ID() {
		return false, nil, fmt.Errorf("the repository's policy is %s, pinned is %s: if the change is known and wanted, pin the new one", trust.ID(), opts.PolicyID)
	}
	policy := opts.Policy
	if policy == nil {
		policy = trust.Policy
	} else if !bytes.Equal(policy.Bytes(), trust.Policy.Bytes()) {
		return false, []string{string(policy.Bytes()), string(trust.Policy.Bytes())}, errors.New("the repository's log policy is not the pinned one")
	}
	if opts.Claimed != nil {
		return true, nil, nil
	}
	note, err := read(t, opts.Layout.Ledger(ledger.CheckpointPath))
	if errors.Is(err, fs.ErrNotExist) {
		if opts.LastSeen != nil {
			return false, notes(opts.LastSeen), errors.New("the checkpoint is gone, but one was seen before")
		}
		entries := false
		err := t.Walk(opts.Layout.Ops+"/ledger/log", func(string, fs.FileMode, string) error { entries = true; return nil })
		switch {
		case err != nil:
			return false, nil, unreadable{err}
		case entries:
			return false, nil, errors.New("there are entries, but no checkpoint")
		}
		return false, nil, nil
	}
	if err != nil {
		return false, nil, err
	}
	if r.Checkpoint, err = policy.Open(note); err != nil {
		return false, notes(note), err
	}
	return true, nil, nil
}

// checkSegments completes check 3: the re-hash reads up to the segment after the
// last, but a tree may hold one anywhere.
func checkSegments(t Tree, l Layout, body checkpoint.Body) error {
	var beyond []string
	err := t.Walk(l.Ledger("log"), func(p string, _ fs.FileMode, _ string) error {
		n, ok := ledger.ParseSegmentPath(strings.TrimPrefix(p, l.Ledger("")))
		if ok && n*ledger.SegmentSize >= body.Size {
			beyond = append(beyond, p)
		}
		return nil
	})
	if err != nil {
		return unreadable{err}
	}
	if len(beyond) > 0 {
		return &ledger.TamperError{What: list(beyond) + " holds entries above the checkpoint", Signed: body}
	}
	return nil
}

func readEntries(t Tree, l Layout, body checkpoint.Body, leaves []checkpoint.Hash, known *Proven) ([]receipt.Entry, error) {
	lines := make([][]byte, 0, min(body.Size, 1<<20))
	err := ledger.Lines(l.LedgerReader(t), body, func(_ int64, line []byte) error {
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		return nil, err
	}
	entries := make([]receipt.Entry, len(lines))
	if err := eachParallel(len(lines), func(i int) error {
		if was, ok := known.entries[leaves[i]]; ok {
			entries[i] = was.entry
			return nil
		}
		e, err := receipt.ParseLine(lines[i])
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		entries[i] = e
		return nil
	}); err != nil {
		return nil, err
	}
	seen := make(map[sealKey]int, len(entries))
	for i, e := range entries {
		for _, s := range e.Signatures {
			k := sealKey{e.Receipt.ID(), s.Fingerprint}
			if first, dup := seen[k]; dup {
				return nil, fmt.Errorf("entry %d repeats the signature of %s on receipt %s of entry %d", i, s.Fingerprint, e.Receipt.ID(), first)
			}
			seen[k] = i
		}
	}
	return entries, nil
}

type sealKey struct {
	id     receipt.ID
	signer openpgp.Fingerprint
}

func anchorsOf(trust *Trust) string {
	s := fmt.Sprintf("every receipt is signed by its issuer; %d trust anchors", len(trust.Keys.Fingerprints()))
	if n := len(trust.Retired.Fingerprints()); n > 0 {
		s += fmt.Sprintf(", %d retired keys as far as the log lets them", n)
	}
	if dev := trust.Keys.Development(); len(dev) > 0 {
		s += fmt.Sprintf("; for development, which proves nothing to others: %v", dev)
	}
	return s
}

// checkIssuers is check 5. A signature must verify under the certificate that
// the key is judged by, and the key must count at the entry's index. Only the
// former is remembered: the latter changes with what the log says later.
func checkIssuers(entries []receipt.Entry, leaves []checkpoint.Hash, known *Proven, trust *Trust, now time.Time) error {
	keys, err := trust.standing(entries, leaves)
	if err != nil {
		return err
	}
	own := make([]bool, len(entries))
	if err := eachParallel(len(entries), func(i int) error {
		if was, ok := known.entries[leaves[i]]; ok {
			own[i] = was.issued
			return keys.check(i, entries[i])
		}
		issued, err := entries[i].Verify(keys.keys, now)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		own[i] = issued
		return keys.check(i, entries[i])
	}); err != nil {
		return err
	}
	valid := map[receipt.ID]bool{}
	for i, e := range entries {
		known.keep(leaves[i], e, own[i])
		id := e.Receipt.ID()
		valid[id] = valid[id] || own[i]
		if !valid[id] {
			return fmt.Errorf("entry %d: receipt %s is endorsed, but its issuer %s has not signed it", i, id, e.Receipt.Issuer())
		}
	}
	return nil
}

// checkFiles is check 6.
func checkFiles(t Tree, l Layout, entries []receipt.Entry) (n int, err error) {
	archived := map[string]bool{}
	for _, e := range entries {
		if e.Receipt.Kind() == receipt.Archive {
			for _, s := range e.Receipt.Subjects() {
				archived[s.SHA256] = true
			}
		}
	}
	var bad []string
	done := map[receipt.ID]bool{}
	for i, e := range entries {
		file := e.Receipt.File()
		if file == "" || done[e.Receipt.ID()] {
			continue
		}
		done[e.Receipt.ID()] = true
		got, err := read(t, l.Receipt(file))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if !archived[digest(e.Receipt.Bytes())] {
				bad = append(bad, fmt.Sprintf("%s was sequenced as entry %d and is gone", l.Receipt(file), i))
			}
		case err != nil:
			return n, err
		case !bytes.Equal(got, e.Receipt.Bytes()):
			bad = append(bad, fmt.Sprintf("%s differs from entry %d (sequenced sha256:%s, found sha256:%s)",
				l.Receipt(file), i, digest(e.Receipt.Bytes()), digest(got)))
		default:
			n++
		}
	}
	if len(bad) > 0 {
		return n, errors.New(list(bad))
	}
	return n, nil
}

// RootLine is how the index document states the root.
var rootLine = regexp.MustCompile(`(?m)^Merkle Root: (\S+)[ \t]*\r?$`)

// RootOf returns the root that the index document states. Exactly one line
// "Merkle Root: <64 hex>" must be there.
func RootOf(doc []byte) (string, error) {
	m := rootLine.FindAllSubmatch(doc, -1)
	if len(m) != 1 {
		return "", fmt.Errorf(`%d lines "Merkle Root: <hex>", want exactly one`, len(m))
	}
	if _, err := checkpointHash(string(m[0][1])); err != nil {
		return "", err
	}
	return string(m[0][1]), nil
}

// WithRoot returns the document with its one root line stating the root; a
// document without such a line gets one at its end.
func WithRoot(doc []byte, root checkpoint.Hash) ([]byte, error) {
	line := fmt.Sprintf("Merkle Root: %x", root[:])
	switch m := rootLine.FindAllIndex(doc, -1); len(m) {
	case 0:
		if len(doc) > 0 && !bytes.HasSuffix(doc, []byte("\n")) {
			doc = append(bytes.Clone(doc), '\n')
		}
		return append(bytes.Clone(doc), line+"\n"...), nil
	case 1:
		return slices.Concat(doc[:m[0][0]], []byte(line), doc[m[0][1]:]), nil
	default:
		return nil, fmt.Errorf(`%d lines "Merkle Root: <hex>", want exactly one: remove the others`, len(m))
	}
}

func checkpointHash(s string) (h checkpoint.Hash, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) || strings.ToLower(s) != s {
		return h, fmt.Errorf("root %q: want 64 lower-case hex digits", s)
	}
	return checkpoint.Hash(b), nil
}

// checkRootLine is the first half of check 7.
func checkRootLine(t Tree, l Layout, body checkpoint.Body) error {
	doc, err := read(t, l.Docs)
	if err != nil {
		return fmt.Errorf("%s: %w", l.Docs, err)
	}
	stated, err := RootOf(doc)
	if err != nil {
		return fmt.Errorf("%s: %w", l.Docs, err)
	}
	if want := hex.EncodeToString(body.Root[:]); stated != want {
		return fmt.Errorf("%s states root %s, the ledger's is %s", l.Docs, stated, want)
	}
	return nil
}

// checkBadge is the second half of check 7.
func checkBadge(t Tree, opts Options, body checkpoint.Body, entries []receipt.Entry) error {
	if opts.Badge == nil {
		return nil
	}
	if entries == nil && body.Size > 0 {
		return unreadable{errors.New("the badge was not judged: the entries could not be read")}
	}
	files := StatusFiles(entries, opts.Badge)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		want := files[name]
		got, err := read(t, opts.Layout.Status(name))
		switch {
		case errors.Is(err, fs.ErrNotExist) && want == nil:
		case err != nil:
			return fmt.Errorf("%s: %w", opts.Layout.Status(name), err)
		case want == nil:
			return fmt.Errorf("%s is there, but no admitted verdict backs it", opts.Layout.Status(name))
		case !bytes.Equal(got, want):
			return fmt.Errorf("%s says %s, the last admitted verdict makes it %s",
				opts.Layout.Status(name), bytes.TrimSpace(got), bytes.TrimSpace(want))
		}
	}
	return nil
}

// StatusFiles returns the status files as the log implies them: those of the
// last entry that implies any. A nil content means that the file must be absent.
func StatusFiles(entries []receipt.Entry, badge func(receipt.Entry) (map[string][]byte, bool)) map[string][]byte {
	for _, e := range slices.Backward(entries) {
		if files, ok := badge(e); ok {
			return files
		}
	}
	return map[string][]byte{BadgeFile: nil, ShieldsFile: nil}
}

// The status files.
const (
	BadgeFile   = "badge.json"
	ShieldsFile = "badge.shields.json"
)

// checkHistory is check 8.
func checkHistory(opts Options, policy *checkpoint.Policy, body checkpoint.Body, note []byte, leaves []checkpoint.Hash) (detail string, evidence []string, err error) {
	past := slices.Clone(opts.History)
	if opts.LastSeen != nil {
		past = append([]Past{{Commit: "the last one seen", Note: opts.LastSeen}}, past...)
	}
	if leaves == nil && body.Size > 0 {
		return "", nil, unreadable{errors.New("not judged: the entries are not those of the checkpoint")}
	}
	tree := ledger.NewTree(leaves)
	checked := map[string]bool{}
	for _, p := range past {
		if checked[string(p.Note)] {
			continue
		}
		checked[string(p.Note)] = true
		v, err := policy.Open(p.Note)
		if err != nil {
			return "", notes(p.Note, note), fmt.Errorf("checkpoint of %s: %w", p.Commit, err)
		}
		old := v.Body()
		root, err := tree.Root(old.Size)
		if err != nil || root != old.Root || old.Origin != body.Origin && body.Size > 0 {
			hint := ""
			if old.Size > body.Size {
				hint = "; if this clone is only behind, git pull"
			}
			return "", notes(p.Note, note), fmt.Errorf("checkpoint of size %d (root %x) does not extend the one of %s: size %d, root %x%s",
				body.Size, body.Root[:], p.Commit, old.Size, old.Root[:], hint)
		}
	}
	detail = fmt.Sprintf("extends %d earlier checkpoints", len(checked))
	if opts.HistoryShallow {
		detail += "; the clone is shallow, older ones were not at hand"
	}
	return detail, nil, nil
}

func eachParallel(n int, work func(int) error) error {
	var (
		wg    sync.WaitGroup
		procs = runtime.GOMAXPROCS(0)
		errs  = make([]error, procs)
	)
	for p := range procs {
		wg.Go(func() {
			// Contiguous ranges, so that the first error by index is found.
			for i := n * p / procs; i < n*(p+1)/procs; i++ {
				if errs[p] = work(i); errs[p] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
