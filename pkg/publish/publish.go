// Package publish appends a repository's receipts to its ledger and commits the
// new root, by a protocol in which nothing is ever signed that could lose a
// race: claim, then sign.
//
// # The protocol
//
// Two branches of one remote: the target (main, unless a ledger branch is
// configured) and the claim branch. Every round starts with a fetch of both and
// an audit of what they hold; what follows is decided by that state alone, never
// by what an earlier round or run believed.
//
//  1. Target and claim agree, and there is something to append: the new
//     segments and the *unsigned* body are pushed, fast-forward only, to the
//     claim branch. A writer that loses here has signed nothing. A crash after
//     it is found by the next round of whoever comes first.
//  2. The claim is ahead of the target: its entries are audited as if they were
//     landed, it must extend the target's checkpoint, and only then its body is
//     signed and committed on the target's tip: segments, checkpoint, edge, root
//     line, badge. Lost to a push of code: next round, same ledger bytes, new
//     commit. A reverted commit, a rolled back target and a crash between claim
//     and commit all look like this and are healed by it.
//  3. They agree and nothing is left to do: the round's audit was the proof.
//
// A claim is a commit whose tree is the log folder, the very object that the
// target gets, and whose message is the unsigned body. Its parent is the claim
// before it.
//
// Anything else is refused with its evidence: a target ahead of the claim, a
// claim that does not extend the target, a ledger that does not hash to its
// checkpoint, a changed or missing receipt file.
//
// The signature is deterministic, so several publishers that finish one claim
// make the same note: one size, one root, one signature.
package publish

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// The first lines of the publisher's commits: of those that publish a root, and of
// those that only add an annex.
const (
	Subject      = "chore(merkle): auto-publish root [skip ci]"
	AnnexSubject = "chore(merkle): ledger snapshot [skip ci]"
)

// Ours says whether a commit's message is one that the publisher writes. Anybody
// can write it, so it proves nothing alone.
func Ours(message string) bool {
	first, _, _ := strings.Cut(message, "\n")
	return first == Subject || first == AnnexSubject
}

// State is a ledger that an audit has passed, as it is published.
type State struct {
	Tree       covenant.Tree // of the branch, with the published ledger over it
	Trust      *covenant.Trust
	Checkpoint checkpoint.Verified
	Entries    []receipt.Entry // all that the checkpoint covers
}

// Publisher is one identity publishing to one remote. All fields but those
// marked optional are required.
type Publisher struct {
	Remote *gitrepo.Remote
	Layout covenant.Layout
	Branch string // where receipts come from, as refs/heads/main
	Target string // where the ledger is committed; the same ref, or a ledger branch
	Claim  string // as refs/heads/remembrancer/claim

	LogKey *checkpoint.Signer
	Issuer openpgp.Signer // signs the publisher's own receipts
	// PolicyID pins the trust state; empty believes the repository's (optional).
	PolicyID string

	AuthorName, AuthorEmail string
	// SignCommit signs the commit (optional).
	SignCommit func(payload []byte) (armored string, err error)
	// Land commits by other means than a push, for forges that must sign
	// (optional). It must fail with gitrepo.ErrLostRace when the branch is not at
	// parent any more.
	Land func(ctx context.Context, branch string, parent gitrepo.Hash, files map[string][]byte, message string) (gitrepo.Hash, error)

	// Observations are what trusted code saw; each becomes an observed receipt,
	// once (optional).
	Observations []Observation
	// Examine asks the forge about commits of Branch, newest first, that nothing
	// was asked about before (optional). It returns those that should not have
	// come there as they did. An error is no verdict on any: it is noted in the
	// result, the publication goes on, and the next one asks again.
	Examine func(ctx context.Context, commits []gitrepo.Hash) ([]Incident, error)
	// Annex returns files below the ledger's folder to be committed once nothing is
	// left to publish (optional). It is asked again after a race that was lost and
	// after its files have landed, until it returns none.
	Annex func(ctx context.Context, s State) (files map[string][]byte, err error)
	// RestoreClaim lets a lost claim branch begin anew at the target's
	// checkpoint (optional).
	RestoreClaim bool

	Now func() time.Time
	// Log receives a line for each step (optional).
	Log func(format string, args ...any)
	// Tries bounds the rounds that are lost to others; 0 is 40.
	Tries int

	issued   map[receipt.ID]receipt.Entry // signed once, however many rounds it takes
	proven   covenant.Proven              // what no later round need verify again
	examined examination

	sign func(checkpoint.Body) ([]byte, error) // LogKey.Sign; a test sees every signature here
	at   func(moment) error                    // a test ends a run here
}

// moment is a point between two writes at which a run may be killed.
type moment string

const (
	beforeClaim moment = "before the claim"
	afterClaim  moment = "after the claim"
	beforeSign  moment = "before the signature"
	beforeLand  moment = "before the commit"
	afterLand   moment = "after the commit"
)

func (p *Publisher) reached(m moment) error {
	if p.at == nil {
		return nil
	}
	return p.at(m)
}

// Result is what a run achieved.
type Result struct {
	From, To    checkpoint.Body // before and after
	Commit      gitrepo.Hash    // zero when nothing was committed
	Sequenced   []receipt.Entry // entries From.Size to To.Size
	Quarantined []Quarantined
	PolicyID    string
	FirstUse    bool // no policy was pinned
	Healed      bool // a claim of an earlier run was completed
	// Examined is how many commits the forge was asked about; Unexamined says
	// which could not be examined, and why, "" for none.
	Examined   int
	Unexamined string
}

// Refusal is a state that must not be signed over, with its evidence.
type Refusal struct {
	What     string
	Evidence []string
	// Unreadable says that the state could not be judged, rather than that it
	// was judged and found wanting.
	Unreadable bool
}

func (r *Refusal) Error() string {
	return strings.Join(append([]string{"refused: " + r.What}, r.Evidence...), "\n")
}

// view is the state of one round.
type view struct {
	tips    map[string]gitrepo.Hash
	source  covenant.Tree // the branch's tree, with the target's ledger over it
	trust   *covenant.Trust
	body    checkpoint.Body // of the target
	note    []byte          // its signed checkpoint, nil before the first
	head    checkpoint.Verified
	entries []receipt.Entry
	claim   *checkpoint.Body // nil when there is no claim branch
	claimed covenant.Tree    // source with the claim's log in place of the target's
}

// Run publishes until there is nothing left to publish.
func (p *Publisher) Run(ctx context.Context) (Result, error) {
	tries := p.Tries
	if tries == 0 {
		tries = 40
	}
	var (
		res   Result
		begun bool
		mine  gitrepo.Hash // the claim this run made
	)
	for lost, down := 0, 0; ; {
		v, err := p.look(ctx)
		if err == nil && !begun {
			begun, res.From = true, v.body
		}
		var done bool
		if err == nil {
			done, err = p.step(ctx, v, &res, &mine)
		}
		switch {
		case err == nil && done:
			res.To = v.body
			res.Sequenced = v.entries[min(res.From.Size, v.body.Size):]
			return res, nil
		case err == nil:
			lost, down = 0, 0
		case errors.Is(err, gitrepo.ErrLostRace) && lost < tries, gitrepo.Retryable(err) && down < maxDown:
			lost++
			if !errors.Is(err, gitrepo.ErrLostRace) {
				down++
			}
			p.log("%v: trying again", err)
			if err := pause(ctx, lost); err != nil {
				return res, err
			}
		default:
			return res, err
		}
	}
}

// maxDown is how often in a row a server that cannot be reached is tried again.
const maxDown = 6

// pause waits a random time that grows with the number of tries.
func pause(ctx context.Context, tries int) error {
	limit := min(50*time.Millisecond<<min(tries, 8), 5*time.Second)
	t := time.NewTimer(time.Duration(rand.Int64N(int64(limit))))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Publisher) log(format string, args ...any) {
	if p.Log != nil {
		p.Log(format, args...)
	}
}

// look fetches both branches and audits the target. A server may list branches
// one after the other while others write, so that together they show a state
// that never was: what is to be refused must still be there at a second look.
func (p *Publisher) look(ctx context.Context) (*view, error) {
	var (
		refused *Refusal
		seen    map[string]gitrepo.Hash
	)
	for range 4 {
		tips, err := p.Remote.Fetch(ctx, slices.Compact([]string{p.Branch, p.Target, p.Claim})...)
		if err != nil {
			return nil, err
		}
		if refused != nil && maps.Equal(tips, seen) {
			return nil, refused
		}
		v, err := p.judge(tips)
		if !errors.As(err, &refused) {
			return v, err
		}
		seen = tips
	}
	return nil, refused
}

// judge audits what the fetched branches hold.
func (p *Publisher) judge(tips map[string]gitrepo.Hash) (*view, error) {
	v := &view{tips: tips}
	main, ok := tips[p.Branch]
	if !ok {
		return nil, &Refusal{What: fmt.Sprintf("%s has no %s to publish from: push it first", p.Remote.URL(), p.Branch), Unreadable: true}
	}
	source, err := p.tree(main)
	if err != nil {
		return nil, err
	}
	v.source = source
	if p.Target != p.Branch {
		over := covenant.Tree(empty{})
		if tip, ok := tips[p.Target]; ok {
			if over, err = p.tree(tip); err != nil {
				return nil, err
			}
		}
		v.source = WithLedger(source, over, p.Layout)
	}
	if err := p.audit(v); err != nil {
		return nil, err
	}
	return v, p.lookAtClaim(v)
}

func (p *Publisher) tree(commit gitrepo.Hash) (covenant.Tree, error) {
	t, err := p.Remote.TreeAt(commit)
	if err != nil {
		return nil, err
	}
	return Tree(t), nil
}

// audit proves the target's ledger before anything is built on it.
func (p *Publisher) audit(v *view) error {
	r := covenant.Audit(v.source, covenant.Options{Layout: p.Layout, PolicyID: p.PolicyID, Now: p.Now(), Proven: &p.proven})
	v.entries, v.note, v.head = r.Entries, r.Checkpoint.Note(), r.Checkpoint
	v.body = r.Checkpoint.Body()
	if v.note == nil {
		v.body = ledger.Empty(p.LogKey.Origin())
		// Before the first entry the index document is what people made it; the
		// first publication writes its root line.
		r.Findings = slices.DeleteFunc(r.Findings, func(f covenant.Finding) bool { return f.Check == 7 })
	}
	if r.Status() != covenant.Pass {
		return p.refuse("the ledger on "+short(p.Target)+" is not sound", r, p.heads(v)...)
	}
	var err error
	if v.trust, err = covenant.LoadTrust(v.source, p.Layout); err != nil {
		return &Refusal{What: err.Error(), Unreadable: true}
	}
	if !lists(v.trust.Policy, p.LogKey.VerifierKey()) {
		return &Refusal{
			What: fmt.Sprintf("the log key given is %s, which the log policy does not list (%s)",
				p.LogKey.VerifierKey(), strings.Join(v.trust.Policy.Origins(), ", ")),
			Unreadable: true,
		}
	}
	if v.body.Origin != p.LogKey.Origin() {
		return &Refusal{
			What:       fmt.Sprintf("the published checkpoint is of log %s, the log key given signs for %s", v.body.Origin, p.LogKey.Origin()),
			Evidence:   []string{string(v.note)},
			Unreadable: true,
		}
	}
	return nil
}

// lists says whether a policy names a log by this key.
func lists(policy *checkpoint.Policy, vkey string) bool {
	for line := range strings.Lines(string(policy.Bytes())) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "log" && f[1] == vkey {
			return true
		}
	}
	return false
}

func (p *Publisher) refuse(what string, r *covenant.Report, evidence ...string) error {
	ref := &Refusal{What: what, Unreadable: true}
	for _, f := range r.Failures() {
		if f.Status == covenant.Fail.String() {
			ref.Unreadable = false
		}
		ref.Evidence = append(ref.Evidence, fmt.Sprintf("  %d. %s: %s", f.Check, f.Name, f.Detail))
		ref.Evidence = append(ref.Evidence, f.Evidence...)
	}
	ref.Evidence = append(ref.Evidence, evidence...)
	return ref
}

// heads returns what both branches state, believed or not: the evidence of a
// refusal.
func (p *Publisher) heads(v *view) []string {
	var both []string
	if note, err := v.source.Blob(p.Layout.Ledger(ledger.CheckpointPath)); err == nil {
		both = append(both, "published:\n"+string(note))
	}
	if tip, ok := v.tips[p.Claim]; ok {
		if c, err := p.Remote.Commit(tip); err == nil {
			both = append(both, "claimed:\n"+c.Message)
		}
	}
	return both
}

// lookAtClaim reads the claim branch and proves how it stands to the target.
func (p *Publisher) lookAtClaim(v *view) error {
	tip, ok := v.tips[p.Claim]
	if !ok {
		if v.body.Size > 0 && !p.RestoreClaim {
			return &Refusal{
				What: fmt.Sprintf("the claim branch %s is gone, but a checkpoint of size %d is published: push the branch again from a clone that has it; if none has, and no later checkpoint was ever published, publish --restore-claim begins it anew",
					short(p.Claim), v.body.Size),
				Evidence: []string{string(v.note)},
			}
		}
		return nil
	}
	c, err := p.Remote.Commit(tip)
	if err != nil {
		return err
	}
	claim, err := checkpoint.ParseBody([]byte(c.Message))
	if err != nil {
		return &Refusal{What: fmt.Sprintf("claim %s: %v", tip, err), Evidence: p.heads(v)}
	}
	v.claim = &claim
	if claim == v.body {
		return nil
	}
	evidence := p.heads(v)
	if claim.Size <= v.body.Size || claim.Origin != v.body.Origin {
		return &Refusal{What: "the published checkpoint was not made through the claim branch", Evidence: evidence}
	}
	t, err := p.tree(tip)
	if err != nil {
		return err
	}
	v.claimed = withClaim(v.source, t, p.Layout)
	r := covenant.Audit(v.claimed, covenant.Options{Layout: p.Layout, PolicyID: p.PolicyID, Claimed: &claim, Now: p.Now(), Proven: &p.proven})
	if r.Status() != covenant.Pass {
		return p.refuse(fmt.Sprintf("the claim of size %d is not sound", claim.Size), r, evidence...)
	}
	for i, e := range r.Entries {
		if e.Receipt.Kind().Reserved() && e.Receipt.Kind() != receipt.KeyRotation && e.Receipt.Issuer() != p.Issuer.Fingerprint() && int64(i) >= v.body.Size {
			return &Refusal{What: fmt.Sprintf("the claim's entry %d is a receipt of kind %s by %s, which only the publisher may issue", i, e.Receipt.Kind(), e.Receipt.Issuer()), Evidence: evidence}
		}
	}
	root, err := ledger.NewTree(leaves(r.Entries)).Root(v.body.Size)
	if err != nil || root != v.body.Root {
		return &Refusal{What: "the claim does not extend the published checkpoint: two histories exist", Evidence: evidence}
	}
	v.entries = r.Entries
	return nil
}

func leaves(entries []receipt.Entry) []checkpoint.Hash {
	h := make([]checkpoint.Hash, len(entries))
	for i, e := range entries {
		h[i] = ledger.RecordHash(e.Line())
	}
	return h
}

// step does the one thing that the state asks for.
func (p *Publisher) step(ctx context.Context, v *view, res *Result, mine *gitrepo.Hash) (done bool, err error) {
	res.PolicyID, res.FirstUse = v.trust.ID(), p.PolicyID == ""
	if v.claim != nil && *v.claim != v.body {
		if tip := v.tips[p.Claim]; tip != *mine {
			res.Healed = true
			p.log("completing the claim of size %d that is ahead of %s (size %d)", v.claim.Size, short(p.Target), v.body.Size)
		}
		commit, err := p.land(ctx, v, *v.claim, v.claimed)
		if err == nil {
			res.Commit = commit
		}
		return false, err
	}
	pending, quarantined, err := p.pending(ctx, v, res)
	if err != nil {
		return false, err
	}
	res.Quarantined = quarantined
	switch {
	case len(pending) > 0:
		tip, err := p.claim(ctx, v, pending)
		if err == nil {
			*mine = tip
		}
		return false, err
	case v.claim == nil && v.body.Size > 0: // --restore-claim
		_, err := p.claim(ctx, v, nil)
		return false, err
	case v.body.Size > 0:
		files, err := p.derived(v.source, v.body, v.entries)
		if err != nil {
			return false, err
		}
		if len(files) > 0 {
			// The badge was edited by hand: it is derived, so it is written again.
			p.log("writing %s again", strings.Join(slices.Sorted(maps.Keys(files)), ", "))
			res.Commit, err = p.commit(ctx, v, Subject, files, v.body, v.body, nil)
			return false, err
		}
		if p.Annex == nil {
			return true, nil
		}
		files, err = p.Annex(ctx, State{Tree: v.source, Trust: v.trust, Checkpoint: v.head, Entries: v.entries})
		if err != nil || len(files) == 0 {
			return err == nil, err
		}
		p.log("adding %s", strings.Join(slices.Sorted(maps.Keys(files)), ", "))
		res.Commit, err = p.commit(ctx, v, AnnexSubject, files, v.body, v.body, nil)
		return false, err
	}
	return true, nil
}

// claim pushes the next entries, unsigned, to the claim branch. With no lines it
// claims what is published.
func (p *Publisher) claim(ctx context.Context, v *view, pending []receipt.Entry) (gitrepo.Hash, error) {
	read := p.Layout.LedgerReader(v.source)
	state, above, err := ledger.Load(read, v.body)
	if err != nil {
		return gitrepo.Hash{}, err
	}
	if len(above) > 0 {
		return gitrepo.Hash{}, &Refusal{What: fmt.Sprintf("%d entries above the checkpoint", len(above))}
	}
	change := gitrepo.Change{Base: gitrepo.EmptyTree, Write: map[string][]byte{}}
	if v.body.Size > 0 {
		// What is claimed rests on what is published and was just audited, never on
		// what the claim branch held before.
		target, err := p.Remote.TreeAt(v.tips[p.Target])
		if err != nil {
			return gitrepo.Hash{}, err
		}
		log, err := target.Lookup(p.Layout.Ledger("log"))
		if err != nil {
			return gitrepo.Hash{}, err
		}
		change.Base = log.Hash
	}
	next := state
	if len(pending) > 0 {
		lines := make([][]byte, len(pending))
		for i, e := range pending {
			lines[i] = e.Line()
		}
		u, err := state.Append(lines...)
		if err != nil {
			return gitrepo.Hash{}, err
		}
		next = u.State
		for _, f := range u.Segments {
			change.Write[strings.TrimPrefix(f.Path, "log/")] = f.Data
		}
	}
	parent := v.tips[p.Claim]
	b := next.Body()
	commit, err := p.Remote.Build(parent, change, gitrepo.CommitOptions{
		Message:    string(b.Text()),
		AuthorName: p.AuthorName, AuthorEmail: p.AuthorEmail, When: p.Now(),
	})
	if err != nil {
		return gitrepo.Hash{}, err
	}
	p.log("claiming size %d, root %x", b.Size, b.Root[:])
	if err := p.reached(beforeClaim); err != nil {
		return gitrepo.Hash{}, err
	}
	if err := p.Remote.Push(ctx, p.Claim, parent, commit); err != nil {
		return gitrepo.Hash{}, err
	}
	return commit, p.reached(afterClaim)
}

// land signs a claimed body and commits it. The caller has fetched the claim
// from the server and proved it: only then may it be signed.
func (p *Publisher) land(ctx context.Context, v *view, body checkpoint.Body, claimed covenant.Tree) (gitrepo.Hash, error) {
	files := map[string][]byte{}
	read := p.Layout.LedgerReader(claimed)
	for n := v.body.Size / ledger.SegmentSize; n*ledger.SegmentSize < body.Size; n++ {
		data, err := read(ledger.SegmentPath(n))
		if err != nil {
			return gitrepo.Hash{}, err
		}
		files[p.Layout.Ledger(ledger.SegmentPath(n))] = data
	}
	state, _, err := ledger.Load(read, body)
	if err != nil {
		return gitrepo.Hash{}, err
	}
	files[p.Layout.Ledger(ledger.EdgePath)] = state.Edge().Data
	derived, err := p.derived(v.source, body, v.entries)
	if err != nil {
		return gitrepo.Hash{}, err
	}
	maps.Copy(files, derived)
	var proof []checkpoint.Hash
	if v.body.Size > 0 {
		if proof, err = ledger.NewTree(leaves(v.entries)).Consistency(v.body.Size, body.Size); err != nil {
			return gitrepo.Hash{}, err
		}
	}
	if err := p.reached(beforeSign); err != nil {
		return gitrepo.Hash{}, err
	}
	sign := p.sign
	if sign == nil {
		sign = p.LogKey.Sign
	}
	signed, err := sign(body)
	if err != nil {
		return gitrepo.Hash{}, err
	}
	files[p.Layout.Ledger(ledger.CheckpointPath)] = signed
	return p.commit(ctx, v, Subject, files, v.body, body, proof)
}

// derived returns those derived files that differ from what a tree holds: the
// index document with its root line, and the badge.
func (p *Publisher) derived(t covenant.Tree, body checkpoint.Body, entries []receipt.Entry) (map[string][]byte, error) {
	return derivedFiles(t, p.Layout, body, entries)
}

func (p *Publisher) commit(ctx context.Context, v *view, subject string, files map[string][]byte, from, to checkpoint.Body, proof []checkpoint.Hash) (gitrepo.Hash, error) {
	message := subject + strings.TrimPrefix(Message(from, to, proof), Subject)
	parent := v.tips[p.Target]
	p.log("publishing size %d, root %x", to.Size, to.Root[:])
	if err := p.reached(beforeLand); err != nil {
		return gitrepo.Hash{}, err
	}
	if p.Land != nil {
		commit, err := p.Land(ctx, short(p.Target), parent, files, message)
		if err != nil {
			return gitrepo.Hash{}, err
		}
		return commit, p.reached(afterLand)
	}
	commit, err := p.Remote.Build(parent, gitrepo.Change{Write: files}, gitrepo.CommitOptions{
		Message: message, AuthorName: p.AuthorName, AuthorEmail: p.AuthorEmail, When: p.Now(), Signer: p.SignCommit,
	})
	if err != nil {
		return gitrepo.Hash{}, err
	}
	if err := p.Remote.Push(ctx, p.Target, parent, commit); err != nil {
		return gitrepo.Hash{}, err
	}
	return commit, p.reached(afterLand)
}

// Message returns the message of a publishing commit. Its trailers let a reader
// check this commit alone: the new head, and the proof that it extends the old.
func Message(from, to checkpoint.Body, proof []checkpoint.Hash) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nRemembrancer-Log: %s\nRemembrancer-Size: %d\nRemembrancer-Merkle-Root: %x\n", Subject, to.Origin, to.Size, to.Root[:])
	if 0 < from.Size && from.Size < to.Size {
		var hashes []byte
		for _, h := range proof {
			hashes = append(hashes, h[:]...)
		}
		fmt.Fprintf(&b, "Remembrancer-Consistency: %d %s\n", from.Size, base64.StdEncoding.EncodeToString(hashes))
	}
	return b.String()
}

func short(ref string) string { return strings.TrimPrefix(ref, "refs/heads/") }
