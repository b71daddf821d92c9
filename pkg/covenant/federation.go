package covenant

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// vectorRoot is the root of the set of [vector], computed by the Python of
// package set.
const vectorRoot = "65f36feda65d4c6f07b451704fb94fde5bd5e621cbb303bde3f5b1acfa82a642"

// vector stands for the receipts of a log that has none.
func vector() (ids []receipt.ID) {
	for i := range 8 {
		ids = append(ids, sha256.Sum256([]byte{byte(i)}))
	}
	return ids
}

// Merges returns the folder of the receipts of merges. They are of a format of
// their own (package merge), and no receipts that a log holds.
func (l Layout) Merges() string { return l.Receipt("federation") }

// PeerCerts returns the folder of the certificates of peers. They are believed in
// receipts of merges, and in nothing else.
func (l Layout) PeerCerts() string { return l.Certs() + "/peers" }

// Federation makes the checks of the federation covenant, for the ledger that r
// is the audit of.
//
// federation/deterministic-merge computes the set root of the receipts of the log
// (those of a log without any are a fixed vector): built in several orders and
// merged from several overlapping parts, it must be one and the same.
//
// federation/receipts judges every merge in ops/receipts/federation:
//
//	NAME.receipt        the merge receipt, which must verify (package merge) with
//	                    the trust anchors, those that were, and ops/certs/peers/*.asc
//	NAME.receipt.ids    its sidecar
//	NAME.receipt.lines  where it is there, log lines that the merge brought, each
//	                    ended by a newline: each valid, and its id in the sidecar
//
// A receipt of kind federation-merge, issued by a trust anchor, in the log or in
// ops/receipts/federation-merge, must have the SHA-256 of the merge receipt and of
// its sidecar among its subjects, and whatever such a receipt records must be
// there. No two merges of the same nodes follow the same one.
func Federation(t Tree, l Layout, r *Report) []judge.Check {
	return []judge.Check{deterministicMerge(r), federationReceipts(t, l, r)}
}

var mergeGrammar = regexp.MustCompile(`^federation/([^/]+)\.receipt(\.ids|\.lines)?$`)

// splitMergePath reads a path below the receipts folder.
func splitMergePath(rel string) (name, suffix string, ok bool) {
	m := mergeGrammar.FindStringSubmatch(rel)
	if m == nil || receipt.CheckName(m[1]) != nil {
		return "", "", false
	}
	return m[1], m[2], true
}

func federationReceipts(t Tree, l Layout, r *Report) judge.Check {
	const id, text = "federation/receipts", "every merge is signed by both sides"
	if err := r.unread(); err != nil {
		return judge.Unjudged(id, text, err)
	}
	m := mergeJudge{t: t, l: l, files: map[string][]byte{}}
	if err := m.load(); err != nil {
		return judge.Unjudged(id, text, err)
	}
	records := m.records(r.Entries)
	if len(m.files) == 0 && len(records) == 0 {
		return judge.NotClaimed(id, text, "no receipt of a merge is there")
	}
	n := m.merges(records)
	m.missing(records, r.Entries)
	c := judge.Judged(id, text, fmt.Sprintf("%d merges, verified with the keys of %d trust anchors and peers", n, len(m.anchors.Fingerprints())), m.findings...)
	if c.Status == judge.Pass && len(m.errs) > 0 {
		return judge.Unjudged(id, text, errors.New(list(m.errs)))
	}
	return c
}

// mergeJudge judges the merges of one tree.
type mergeJudge struct {
	t        Tree
	l        Layout
	trust    *Trust            // whom the repository believes
	anchors  *openpgp.Keyring  // whom it believes in merges
	issuers  *merge.Trust      // the same keys
	files    map[string][]byte // by path: merges, and what records them
	findings []judge.Finding
	errs     []string // why something could not be judged
}

func (m *mergeJudge) find(path, format string, args ...any) {
	m.findings = append(m.findings, judge.Finding{Path: path, Message: fmt.Sprintf(format, args...)})
}

// load reads the files, and the keys to verify them with.
func (m *mergeJudge) load() (err error) {
	for _, folder := range []string{m.l.Merges(), m.l.Receipt(string(receipt.FederationMerge))} {
		if err := m.t.Walk(folder, func(p string, mode fs.FileMode, _ string) error {
			if !mode.IsRegular() {
				m.find(p, "is not a regular file")
				return nil
			}
			data, err := m.t.Blob(p)
			if err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			m.files[p] = data
			return nil
		}); err != nil {
			return err
		}
	}
	if m.trust, err = LoadTrust(m.t, m.l); err != nil {
		return err
	}
	var members []merge.Member
	from := map[openpgp.Fingerprint]string{}
	// A key that was revoked since is judged by its certificate from before: the
	// log says when a merge was recorded.
	for _, ring := range []*openpgp.Keyring{m.trust.Retired, m.trust.Keys} {
		for _, f := range ring.Fingerprints() {
			if k, _ := ring.Lookup(f); from[f] == "" {
				members, from[f] = append(members, merge.Member{Key: k}), m.l.Certs()
			}
		}
	}
	if err := m.t.Walk(m.l.PeerCerts(), func(p string, mode fs.FileMode, _ string) error {
		if !mode.IsRegular() || path.Dir(p) != m.l.PeerCerts() || !strings.HasSuffix(p, ".asc") {
			return nil
		}
		data, err := m.t.Blob(p)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		keys, err := merge.KeysOf(data)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		for _, k := range keys {
			switch f := k.Fingerprint(); from[f] {
			case m.l.Certs(): // a trust anchor needs no other certificate
			case "":
				members, from[f] = append(members, merge.Member{Key: k}), p
			default:
				return fmt.Errorf("%s and %s both hold %s: keep one", from[f], p, f)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	keys := make([]*openpgp.Key, 0, len(members))
	for _, one := range members {
		keys = append(keys, one.Key)
	}
	if m.anchors, err = openpgp.NewKeyring(keys...); err != nil {
		return err
	}
	m.issuers, err = merge.NewTrust(members...)
	return err
}

// record is a receipt that says that a merge was made.
type record struct {
	path    string // "" of one that is in the log only
	receipt *receipt.Receipt
}

func (r record) of(data []byte) bool {
	sum := digest(data)
	return slices.ContainsFunc(r.receipt.Subjects(), func(s receipt.Subject) bool { return s.SHA256 == sum })
}

// records returns the receipts of kind federation-merge that a trust anchor issued:
// those of the log, and those that are on their way there.
func (m *mergeJudge) records(entries []receipt.Entry) (all []record) {
	logged := map[receipt.ID]bool{}
	for _, e := range entries {
		if r := e.Receipt; r.Kind() == receipt.FederationMerge && !logged[r.ID()] {
			logged[r.ID()] = true
			all = append(all, record{"", r})
		}
	}
	for _, p := range slices.Sorted(maps.Keys(m.files)) {
		rel := strings.TrimPrefix(p, m.l.Receipt(""))
		kind, _, signer, ok := splitReceiptPath(rel)
		if !ok || kind != receipt.FederationMerge || signer != "" {
			continue
		}
		r, err := receipt.Parse(m.files[p])
		switch {
		case err != nil:
			m.find(p, "%v", err)
			continue
		case r.File() != rel:
			m.find(p, "holds receipt %s, want it at %s", r.ID(), m.l.Receipt(r.File()))
			continue
		case logged[r.ID()]:
			continue
		}
		sig, err := openpgp.Dearmor(m.files[m.l.Receipt(r.SignatureFile(r.Issuer()))])
		if err == nil {
			// The publisher asks the clock, before it puts the receipt into the log.
			_, err = openpgp.Verify(m.trust.Keys, r.Issuer(), receipt.PAE(r.Bytes()), sig, openpgp.VerifyOptions{Now: anyTime})
		}
		if err != nil {
			m.find(p, "is not signed by its issuer %s as a trust anchor: %v", r.Issuer(), err)
			continue
		}
		all = append(all, record{p, r})
	}
	return all
}

// anyTime is later than any time that an OpenPGP signature can claim.
var anyTime = time.Unix(1<<32, 0)

const (
	idsSuffix   = ".ids"
	linesSuffix = ".lines"
)

// merges judges each merge, and returns how many there are.
func (m *mergeJudge) merges(records []record) int {
	parsed := map[string]*merge.Receipt{}   // by path
	byDigest := map[string]*merge.Receipt{} // by what the next one names
	var paths []string
	for _, p := range slices.Sorted(maps.Keys(m.files)) {
		rel := strings.TrimPrefix(p, m.l.Receipt(""))
		if !strings.HasPrefix(p, m.l.Merges()+"/") {
			continue
		}
		switch _, suffix, ok := splitMergePath(rel); {
		case !ok:
			m.find(p, "has no place there: want NAME.receipt, NAME.receipt%s or NAME.receipt%s", idsSuffix, linesSuffix)
		case suffix != "":
			if _, there := m.files[strings.TrimSuffix(p, suffix)]; !there {
				m.find(p, "belongs to a merge receipt that is not there")
			}
		default:
			paths = append(paths, p)
			if r, err := merge.Parse(m.files[p]); err == nil {
				if sum, err := r.Body.Digest(); err == nil {
					parsed[p], byDigest[sum] = r, r
				}
			}
		}
	}
	next := map[[3]string]string{} // which merge of two nodes follows which
	for _, p := range paths {
		ids, there := m.files[p+idsSuffix]
		if !there {
			ids = nil
		}
		var previous *merge.Receipt
		if r := parsed[p]; r != nil {
			b := r.Body
			previous = byDigest[b.Previous]
			if b.Previous != "" && previous == nil {
				m.findings = append(m.findings, judge.Finding{Path: p, Warning: true, Message: "the merge before it, sha256:" + b.Previous + ", is not there"})
			}
			link := [3]string{string(min(b.A.Fingerprint, b.B.Fingerprint)), string(max(b.A.Fingerprint, b.B.Fingerprint)), b.Previous}
			if other := next[link]; other != "" {
				m.find(p, "follows the same merge as %s: one of the two is of another history", other)
			}
			next[link] = p
		}
		for _, c := range merge.Verify(m.files[p], ids, m.anchors, previous).Checks {
			switch c.Status {
			case judge.Pass, judge.Unclaimed:
			case judge.Fail:
				m.find(p, "not so: %s: %s", c.Claim, c.Detail)
			default:
				m.errs = append(m.errs, fmt.Sprintf("%s: %s: %s", p, c.Claim, c.Detail))
			}
		}
		if there && !slices.ContainsFunc(records, func(r record) bool { return r.of(m.files[p]) && r.of(ids) }) {
			m.find(p, "no receipt of kind %s records it and %s by their SHA-256", receipt.FederationMerge, path.Base(p+idsSuffix))
		}
		m.lines(p+linesSuffix, ids)
	}
	return len(paths)
}

// lines judges the log lines that a merge brought, where they are kept.
func (m *mergeJudge) lines(p string, sidecar []byte) {
	data, there := m.files[p]
	if !there {
		return
	}
	s, err := merge.ParseSidecar(sidecar)
	if err != nil {
		m.errs = append(m.errs, fmt.Sprintf("%s: not judged: %v", p, err))
		return
	}
	merged := map[receipt.ID]bool{}
	for _, id := range s.Union() {
		merged[id] = true
	}
	n := 0
	bad := func(format string, args ...any) {
		m.findings = append(m.findings, judge.Finding{Path: p, Line: n, Message: fmt.Sprintf(format, args...)})
	}
	for line := range strings.Lines(string(data)) {
		n++
		line, ended := strings.CutSuffix(line, "\n")
		if !ended {
			bad("does not end in a newline")
		}
		switch e, rejected := m.issuers.Judge(merge.Item{Line: line}); {
		case rejected != nil && rejected.Reason == merge.UnknownIssuer:
			m.errs = append(m.errs, fmt.Sprintf("%s:%d: %v: its certificate belongs into %s", p, n, rejected, m.l.PeerCerts()))
		case rejected != nil:
			bad("is not valid: %v", rejected)
		case !merged[e.Receipt.ID()]:
			bad("receipt %s was not merged", e.Receipt.ID())
		}
	}
}

// missing finds records of merges that are gone, and were not archived.
func (m *mergeJudge) missing(records []record, entries []receipt.Entry) {
	there := map[string]bool{}
	for p, data := range m.files {
		if strings.HasPrefix(p, m.l.Merges()+"/") && strings.HasSuffix(p, ".receipt") {
			there[digest(data)] = true
		}
	}
	for _, e := range entries {
		if e.Receipt.Kind() == receipt.Archive {
			for _, s := range e.Receipt.Subjects() {
				there[s.SHA256] = true
			}
		}
	}
	for _, r := range records {
		if !slices.ContainsFunc(r.receipt.Subjects(), func(s receipt.Subject) bool { return there[s.SHA256] }) {
			m.find(r.path, "receipt %s records a merge that is not in %s", r.receipt.ID(), m.l.Merges())
		}
	}
}

func deterministicMerge(r *Report) judge.Check {
	const id, text = "federation/deterministic-merge", "the order of merging changes nothing"
	if err := r.unread(); err != nil {
		return judge.Unjudged(id, text, err)
	}
	seen := map[receipt.ID]bool{}
	var ids []receipt.ID
	for _, e := range r.Entries {
		// What tells of merges is outside of what is merged.
		if !merge.Federated(e.Receipt.Kind()) || seen[e.Receipt.ID()] {
			continue
		}
		seen[e.Receipt.ID()] = true
		ids = append(ids, e.Receipt.ID())
	}
	what := fmt.Sprintf("%d receipts of the log", len(ids))
	if len(ids) == 0 {
		ids, what = vector(), "the log has none to merge; a fixed vector"
		if got := set.Root(ids).String(); got != vectorRoot {
			return judge.Judged(id, text, what, judge.Finding{Message: "the root of the vector is " + got + ", want " + vectorRoot})
		}
	}
	ways := merges(ids)
	root := set.Root(ids)
	var findings []judge.Finding
	for _, w := range ways {
		if got := w.merged(); got != root {
			findings = append(findings, judge.Finding{Message: fmt.Sprintf("merged %s the root is %s, want %s", w.name, got, root)})
		}
	}
	return judge.Judged(id, text, fmt.Sprintf("%s, merged in %d ways: set root %s", what, len(ways), root), findings...)
}

// way is one way to merge: parts, each a party's receipts in the order in which
// they came to it.
type way struct {
	name  string
	parts [][]receipt.ID
}

// merged merges part by part, as nodes do.
func (w way) merged() set.Hash {
	var all set.Set
	for _, part := range w.parts {
		var party set.Set
		for _, id := range part {
			party.Add(id)
		}
		for id := range party.All() {
			all.Add(id)
		}
	}
	return all.Root()
}

func merges(ids []receipt.ID) []way {
	back := slices.Clone(ids)
	slices.Reverse(back)
	half := len(ids) / 2
	var even, odd []receipt.ID
	for i, id := range ids {
		if i%2 == 0 {
			even = append(even, id)
		} else {
			odd = append(odd, id)
		}
	}
	third := len(ids) / 3
	return []way{
		{"as they came", [][]receipt.ID{ids}},
		{"backwards", [][]receipt.ID{back}},
		{"from two halves", [][]receipt.ID{ids[:half], ids[half:]}},
		{"from the halves the other way round", [][]receipt.ID{ids[half:], ids[:half]}},
		{"from every other one", [][]receipt.ID{odd, even}},
		{"from three parties who share some", [][]receipt.ID{back[:len(back)-third], ids[:len(ids)-third], even}},
		{"with oneself", [][]receipt.ID{ids, back, ids}},
	}
}
