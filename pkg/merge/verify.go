package merge

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// Verdict is what becomes of a merge receipt.
type Verdict struct {
	// Checks are the three claims of a merge receipt, and then what they rest on.
	Checks []judge.Check
	// Anchored says that the keys of both sides and of the operator are among the
	// trust anchors. Without them the best outcome is conditional.
	Anchored bool
	// Receipt is what was read, nil if the file is not a merge receipt.
	Receipt *Receipt

	onlyAnchors bool // every error is for want of an anchor
}

// The claims. The first three are in the words that people look for.
var (
	claimRoot        = claim{"merge/root", "Both nodes computed same merged_root"}
	claimSignatures  = claim{"merge/signatures", "Signatures valid from both parties"}
	claimCount       = claim{"merge/count", "Receipt count matches union of databases"}
	claimFormat      = claim{"merge/format", "The file is a merge receipt in its exact form"}
	claimOperator    = claim{"merge/operator", "The operator signed what both parties signed"}
	claimSets        = claim{"merge/sets", "Each node signed its set and the trust state before the merge"}
	claimCheckpoints = claim{"merge/checkpoints", "Each node signed the checkpoint of its log"}
	claimConflicts   = claim{"merge/conflicts", "Conflicts are counted, and every receipt of them is in the union"}
	claimChain       = claim{"merge/chain", "It follows the merge of these two before it"}
)

type claim struct{ id, text string }

func (c claim) pass(format string, args ...any) judge.Check {
	return judge.Judged(c.id, c.text, fmt.Sprintf(format, args...))
}

func (c claim) fail(err error) judge.Check {
	return judge.Check{ID: c.id, Claim: c.text, Status: judge.Fail, Detail: flat(err).Error()}
}

func (c claim) of(err error, detail string) judge.Check {
	if err != nil {
		return c.fail(err)
	}
	return c.pass("%s", detail)
}

func (c claim) unjudged(format string, args ...any) judge.Check {
	return judge.Unjudged(c.id, c.text, fmt.Errorf(format, args...))
}

// Verify judges a merge receipt by itself: its file, its sidecar (nil if there is
// none, and then nothing can be recomputed), the public keys that the verifier
// trusts to be those of the parties (nil for none), and the merge before it (nil
// if it is not at hand: then nothing is claimed of the chain). It is a pure
// function, without a clock.
func Verify(file, sidecar []byte, anchors *openpgp.Keyring, previous *Receipt) Verdict {
	r, err := Parse(file)
	if err != nil {
		v := Verdict{}
		for _, c := range []claim{claimRoot, claimSignatures, claimCount} {
			v.Checks = append(v.Checks, c.unjudged("not judged: the file is not a merge receipt"))
		}
		v.Checks = append(v.Checks, claimFormat.fail(err))
		return v
	}
	if anchors == nil {
		anchors, _ = openpgp.NewKeyring() // of no keys: it cannot fail
	}
	b := r.Body
	body, err := b.Bytes()
	if err != nil {
		// Parse has encoded the same body.
		panic(err)
	}
	a := opinion(anchors, b.A.Fingerprint, body, r.SigA)
	z := opinion(anchors, b.B.Fingerprint, body, r.SigB)
	op := opinion(anchors, b.Operator, body, r.SigOperator)
	ids, unread := readSidecar(b, sidecar)

	v := Verdict{
		Receipt:     r,
		Anchored:    a.known && z.known && op.known,
		onlyAnchors: sidecar != nil,
	}
	v.Checks = []judge.Check{
		checkRoot(b, ids, unread, a, z),
		checkSignatures(b, a, z),
		checkCount(b, ids, unread),
		claimFormat.pass("%d bytes, signed bytes sha256:%s", len(file), digest(body)),
		checkOperator(b, op),
		claimSets.of(errors.Join(b.A.checkSet(b), b.B.checkSet(b)), "trust state "+b.Trust),
		checkCheckpoints(b),
		checkConflicts(b, ids, unread),
		checkChain(b, previous),
	}
	return v
}

// signedBy is what is known of one signature.
type signedBy struct {
	known bool   // the key is an anchor
	err   error  // why it is not a signature of that key
	name  string // the key, and what it says of itself
}

func opinion(anchors *openpgp.Keyring, f openpgp.Fingerprint, body, sig []byte) signedBy {
	if _, ok := anchors.Lookup(f); !ok {
		return signedBy{err: fmt.Errorf("%s is not among the trust anchors", f)}
	}
	v, err := openpgp.Verify(anchors, f, PAE(body), sig, openpgp.VerifyOptions{Now: always})
	if err != nil {
		err = fmt.Errorf("%s: %w", f, err)
	}
	return signedBy{known: true, err: err, name: v.String()}
}

// errNoSidecar marks a sidecar that is not there: nothing is known of what it says.
var errNoSidecar = errors.New("the list of ids is missing: it is the file beside the receipt that ends in .ids")

func readSidecar(b Body, data []byte) (*Sidecar, error) {
	if data == nil {
		return nil, errNoSidecar
	}
	if got := digest(data); got != b.IDs {
		return nil, fmt.Errorf("the list of ids is sha256:%s, the receipt names sha256:%s", got, b.IDs)
	}
	return ParseSidecar(data)
}

// unread is the check of a claim that needs the sidecar.
func (c claim) unread(err error) judge.Check {
	if errors.Is(err, errNoSidecar) {
		return c.unjudged("not judged: %w", err)
	}
	return c.fail(err)
}

func checkRoot(b Body, ids *Sidecar, unread error, a, z signedBy) judge.Check {
	c := claimRoot
	if unread != nil {
		return c.unread(unread)
	}
	for _, r := range []struct {
		of          string
		stated, got set.Hash
	}{
		{"before the merge at " + b.A.Node, b.A.RootBefore, set.Root(ids.A())},
		{"before the merge at " + b.B.Node, b.B.RootBefore, set.Root(ids.B())},
		{"of the union", b.Merged, set.Root(ids.Union())},
	} {
		if r.stated != r.got {
			return c.fail(fmt.Errorf("the root %s is %s by the ids, the receipt says %s", r.of, r.got, r.stated))
		}
	}
	for _, s := range []signedBy{a, z} {
		if s.known && s.err != nil {
			return c.fail(fmt.Errorf("the root of the ids is %s, but a side has not signed it: %w", b.Merged, s.err))
		}
	}
	for _, s := range []signedBy{a, z} {
		if s.err != nil {
			return c.unjudged("the root of the ids is %s, but who signed it is not known: %w", b.Merged, s.err)
		}
	}
	return c.pass("%s, computed again from the ids", b.Merged)
}

func checkSignatures(b Body, a, z signedBy) judge.Check {
	c := claimSignatures
	if err := errors.Join(a.err, z.err); err != nil {
		if a.known && a.err != nil || z.known && z.err != nil {
			return c.fail(err)
		}
		return c.unjudged("%w: give their certificates, from a source other than this file", flat(err))
	}
	return c.pass("%s: %s; %s: %s", b.A.Node, a.name, b.B.Node, z.name)
}

// flat puts several errors on one line.
func flat(err error) error { return errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")) }

func checkCount(b Body, ids *Sidecar, unread error) judge.Check {
	c := claimCount
	if unread != nil {
		return c.unread(unread)
	}
	both, a, z := len(ids.Both), len(ids.OnlyA), len(ids.OnlyB)
	for _, n := range []struct {
		key         string
		stated, got int
	}{
		{"receipt_count of node_a", b.A.Count, both + a},
		{"receipt_count of node_b", b.B.Count, both + z},
		{"total_receipts", b.Total, both + a + z},
		{"new_receipts_from_peer", b.AddedToA, z},
		{"new_receipts_to_peer", b.AddedToB, a},
	} {
		if n.stated != n.got {
			return c.fail(fmt.Errorf("%s is %d, by the ids it is %d", n.key, n.stated, n.got))
		}
	}
	return c.pass("%d in both, %d only in %s, %d only in %s: %d", both, a, b.A.Node, z, b.B.Node, b.Total)
}

func checkOperator(b Body, op signedBy) judge.Check {
	switch {
	case op.err == nil:
		return claimOperator.pass("%s", b.Operator)
	case op.known:
		return claimOperator.fail(op.err)
	}
	return claimOperator.unjudged("%w", op.err)
}

// checkSet verifies the set note of a side.
func (s Side) checkSet(b Body) error {
	text, err := checkpoint.OpenNote(s.Set, []byte(s.SetNote))
	if err != nil {
		return fmt.Errorf("%s: %w", s.Node, err)
	}
	got, err := ParseSetNote(text)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Node, err)
	}
	if want := (SetNote{Node: s.Node, Trust: b.Trust, Count: s.Count, Root: s.RootBefore}); got != want {
		return fmt.Errorf("%s: the set note is of node %s, trust state %s, %d ids and root %s; the receipt says trust state %s, %d ids and root %s",
			s.Node, got.Node, got.Trust, got.Count, got.Root, want.Trust, want.Count, want.Root)
	}
	return nil
}

// opened returns the checkpoint of a side, the zero value for an empty log.
func (s Side) opened() (checkpoint.Body, error) {
	if s.Checkpoint == "" {
		if s.Count > 0 {
			return checkpoint.Body{}, fmt.Errorf("%s: it has %d receipts, and no checkpoint of a log that holds them", s.Node, s.Count)
		}
		return checkpoint.Body{}, nil
	}
	policy, err := checkpoint.ParsePolicy(checkpoint.NewPolicy(s.Log))
	if err != nil {
		return checkpoint.Body{}, fmt.Errorf("%s: %w", s.Node, err)
	}
	v, err := policy.Open([]byte(s.Checkpoint))
	if err != nil {
		return checkpoint.Body{}, fmt.Errorf("%s: %w", s.Node, err)
	}
	if int64(s.Count) > v.Body().Size {
		return checkpoint.Body{}, fmt.Errorf("%s: it has %d receipts, and a log of %d entries", s.Node, s.Count, v.Body().Size)
	}
	return v.Body(), nil
}

func checkCheckpoints(b Body) judge.Check {
	a, errA := b.A.opened()
	z, errB := b.B.opened()
	if err := errors.Join(errA, errB); err != nil {
		return claimCheckpoints.fail(err)
	}
	return claimCheckpoints.pass("%s at size %d, %s at size %d", b.A.Node, a.Size, b.B.Node, z.Size)
}

func checkConflicts(b Body, ids *Sidecar, unread error) judge.Check {
	c := claimConflicts
	if unread != nil {
		return c.unread(unread)
	}
	if len(ids.Conflicts) != b.Conflicts {
		return c.fail(fmt.Errorf("the receipt counts %d conflicts, %d are listed", b.Conflicts, len(ids.Conflicts)))
	}
	union := ids.Union()
	for _, x := range ids.Conflicts {
		for _, id := range x.IDs {
			if _, ok := slices.BinarySearchFunc(union, id, compareIDs); !ok {
				return c.fail(fmt.Errorf("conflict %s: receipt %s is not in the union", x.File, id))
			}
		}
	}
	return c.pass("%d names that several receipts have", b.Conflicts)
}

func checkChain(b Body, previous *Receipt) judge.Check {
	c := claimChain
	switch {
	case previous == nil && b.Previous == "":
		return c.pass("it says that it is the first")
	case previous == nil:
		return judge.NotClaimed(c.id, c.text, "the merge before it, sha256:"+b.Previous+", was not given")
	}
	p := previous.Body
	got, err := p.Digest()
	if err != nil {
		return c.fail(err)
	}
	if got != b.Previous {
		return c.fail(fmt.Errorf("the merge given as the one before is sha256:%s, the receipt names %q", got, b.Previous))
	}
	for _, s := range []Side{b.A, b.B} {
		was, ok := p.side(s.Fingerprint)
		if !ok {
			return c.fail(fmt.Errorf("%s had no part in the merge before it", s.Fingerprint))
		}
		if err := s.since(was, p, b); err != nil {
			return c.fail(err)
		}
	}
	return c.pass("sha256:%s", got)
}

func (b Body) side(f openpgp.Fingerprint) (Side, bool) {
	switch f {
	case b.A.Fingerprint:
		return b.A, true
	case b.B.Fingerprint:
		return b.B, true
	}
	return Side{}, false
}

// since says whether a side forgot something after the merge p: under one trust
// state a set only grows, and a log always.
func (s Side) since(was Side, p, b Body) error {
	if p.Trust == b.Trust && s.Count < p.Total {
		return fmt.Errorf("%s had %d receipts after the merge before, and has %d: some are gone", s.Node, p.Total, s.Count)
	}
	if was.Log != s.Log {
		return nil
	}
	before, err := was.opened()
	if err != nil {
		return err
	}
	now, err := s.opened()
	if err != nil {
		return err
	}
	if now.Size < before.Size || now.Size == before.Size && now.Root != before.Root {
		return fmt.Errorf("the log of %s had %d entries at the merge before, and has other %d: it was cut or forked", s.Node, before.Size, now.Size)
	}
	return nil
}

// Status is the outcome: fail if something is wrong, else error if something
// could not be judged, else pass.
func (v Verdict) Status() judge.Status {
	all := judge.Pass
	for _, c := range v.Checks {
		switch c.Status {
		case judge.Pass, judge.Unclaimed:
		case judge.Fail:
			return judge.Fail
		default:
			all = judge.Error
		}
	}
	if len(v.Checks) == 0 {
		return judge.Error
	}
	return all
}

// Conditional reports that nothing is wrong, and that only the trust anchors of
// the parties are wanting: everything holds if the keys are theirs.
func (v Verdict) Conditional() bool {
	return v.Status() == judge.Error && v.onlyAnchors && !v.Anchored
}

// Outcome is the verdict in one word: PASS, FAIL, CONDITIONAL or ERROR.
func (v Verdict) Outcome() string {
	if v.Conditional() {
		return "CONDITIONAL"
	}
	return strings.ToUpper(v.Status().String())
}

// String is the verdict for a terminal: a line for each claim, what was looked at
// below it where it is not a pass, and the outcome.
func (v Verdict) String() string {
	var b strings.Builder
	for _, c := range v.Checks {
		fmt.Fprintf(&b, "%s %s\n", c.Mark(), c.Claim)
		if c.Status != judge.Pass {
			fmt.Fprintf(&b, "   %s\n", printable(c.Detail))
		}
	}
	b.WriteString(v.Outcome())
	if v.Conditional() {
		b.WriteString(": nothing is wrong, but whose keys these are is not known: give --trust-anchor")
	}
	b.WriteByte('\n')
	return b.String()
}

// printable keeps what a file says from steering a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}
