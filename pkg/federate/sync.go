package federate

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// Caller calls the tools of one peer. It bounds what it reads of one answer. The
// errors of a refusal have a method ErrorCode() string, as [Error] does.
type Caller interface {
	Call(ctx context.Context, tool string, in, out any) error
	// Counters returns how many calls were made, and the bytes sent and received.
	Counters() (calls, sent, received int64)
}

// SyncOptions are what most callers leave as they are, but for Peer.
type SyncOptions struct {
	// Peer is the key that the other side must have. Without it any member of the
	// trust state will do.
	Peer openpgp.Fingerprint
	// URL is where the peer was reached: what is remembered of it. It may be empty.
	URL string
	// Operator signs the merge for a person; nil is the node itself. It must be in
	// the trust state, so that the other side can verify it.
	Operator openpgp.Signer
	Now      func() time.Time // dates the receipt; time.Now
	Random   io.Reader        // crypto/rand

	Timeout     time.Duration // of the whole; 30 minutes
	CallTimeout time.Duration // of one call; 60 seconds
	MaxCalls    int64         // 20,000
	MaxBytes    int64         // to receive; 4 GiB
	MaxReceipts int           // of the peer's set: what we can hold; 2,000,000
	Attempts    int           // how often to begin again when the peer changes meanwhile; 4
	MinQuorum   int           // of members that must have cosigned our newest checkpoint at the end; see [ErrQuorum]

	// Progress is told how far a stage is: hello, tail, diff, get, push, merge. Total
	// is 0 where it is not known. It may be nil.
	Progress func(stage string, done, total int64)
}

func (o SyncOptions) withDefaults() SyncOptions {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Minute
	}
	if o.CallTimeout <= 0 {
		o.CallTimeout = time.Minute
	}
	if o.MaxCalls <= 0 {
		o.MaxCalls = 20_000
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 4 << 30
	}
	if o.MaxReceipts <= 0 {
		o.MaxReceipts = 2_000_000
	}
	if o.Attempts <= 0 {
		o.Attempts = 4
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	return o
}

// Result says what a sync came to.
type Result struct {
	Peer                  Identity
	Fetched               int // receipts that we did not have
	Pushed                int // receipts that the peer did not have
	Known                 int // receipts that came, and were there
	Rejected              []*merge.Rejection
	Root                  set.Hash // of the union, when both have it
	Count                 int
	Conflicts             []merge.Conflict
	ReceiptFile           string // below the data directory
	Receipt               *merge.Receipt
	Equal                 bool // there was nothing to do: it is receipted already
	Quorum                int  // members that cosigned our newest checkpoint
	Calls, Sent, Received int64
}

// The kinds of an [Equivocation].
const (
	Rollback     = "rollback"     // the log is shorter than it was
	Fork         = "fork"         // one size, two roots
	Inconsistent = "inconsistent" // the longer log does not extend the shorter
)

// Equivocation is the error that a peer has shown two histories. It carries the
// evidence: two notes that the peer's log key has signed. The peer is stopped.
type Equivocation struct {
	Peer          Identity
	Kind          string
	First, Second []byte // signed notes
	Proof         []checkpoint.Hash
	Incident      receipt.ID // of the receipt that records it
}

func (e *Equivocation) Error() string {
	what := map[string]string{
		Rollback:     "it is shorter than it was",
		Fork:         "it has two roots at one size",
		Inconsistent: "what it is now does not extend what it was",
	}[e.Kind]
	return fmt.Sprintf("the log of %s shows two histories (%s): %s. Incident %s is recorded, and nothing more is exchanged. First:\n%sThen:\n%s",
		e.Peer.Node, e.Kind, what, e.Incident, e.First, e.Second)
}

// TrustMismatch is the error that two nodes do not trust the same issuers.
type TrustMismatch struct {
	Ours, Theirs string // hashes
	Differences  []string
}

func (e *TrustMismatch) Error() string {
	return fmt.Sprintf("the trust states differ, so nothing was merged: here %s, at the peer %s\n%s", e.Ours, e.Theirs, strings.Join(e.Differences, "\n"))
}

// Untrusted is the error that whoever answered is not the peer that was asked for,
// or no member of the trust state.
type Untrusted struct{ Err error }

func (e *Untrusted) Error() string { return "the peer is not trusted: " + e.Err.Error() }

// Unwrap returns what was found.
func (e *Untrusted) Unwrap() error { return e.Err }

// IdentityChanged is the error that a peer has other keys than those pinned.
type IdentityChanged struct{ Was, Is Identity }

func (e *IdentityChanged) Error() string {
	return fmt.Sprintf("%s has other keys than those that were pinned (log %s, now %s; witness %s, now %s; sets %s, now %s): ask its operator, then type: remembrancer federation join --peer URL --trust-anchor FILE",
		e.Was.Node, e.Was.Log, e.Is.Log, e.Was.Witness, e.Is.Witness, e.Was.Set, e.Is.Set)
}

// Stopped is the error that nothing is exchanged with a peer after an incident.
type Stopped struct {
	Node, Why string
}

func (e *Stopped) Error() string {
	return fmt.Sprintf("nothing is exchanged with %s: %s. When it is settled, type: remembrancer federation join --resume --peer URL --trust-anchor FILE", e.Node, e.Why)
}

// Violation is the error that a peer breaks the protocol, or lies where that can be
// told. Nothing was merged.
type Violation struct {
	Tool string
	Err  error
}

func (e *Violation) Error() string {
	return "the peer breaks the protocol: " + e.Tool + ": " + e.Err.Error()
}

// Unwrap returns what was found.
func (e *Violation) Unwrap() error { return e.Err }

// Errors that callers tell apart with errors.Is.
var (
	// ErrBudget: the sync took more calls or bytes than it may.
	ErrBudget = errors.New("the sync takes more than its budget")
	// ErrQuorum: the merge is done and receipted, but too few members have cosigned
	// our newest checkpoint. The result is complete.
	ErrQuorum = errors.New("too few members have cosigned our newest checkpoint")

	// errOvertaken: another merge of the same two was finished in between.
	errOvertaken = errors.New("another merge of these two came in between")
)

// Sync makes this node and a peer hold the same receipts, and a receipt of it that
// both have signed. What was fetched stays when it fails: the next one goes on from
// there. The result tells what was done until then, and is never nil.
//
// Errors: [*Equivocation], [*TrustMismatch], [*Untrusted], [*IdentityChanged],
// [*Stopped], [*Violation], [ErrBudget], [ErrQuorum], what the peer refused (with
// ErrorCode), and what the caller returned, a deadline among it.
func Sync(ctx context.Context, s *Store, c Caller, o SyncOptions) (*Result, error) {
	o = o.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	v := &syncing{s: s, c: c, o: o, res: &Result{}}
	calls, sent, received := c.Counters()
	v.receivedBefore = received
	err := v.run(ctx)
	c2, s2, r2 := c.Counters()
	v.res.Calls, v.res.Sent, v.res.Received = c2-calls, s2-sent, r2-received
	if err != nil {
		return v.res, fmt.Errorf("sync: %w", err)
	}
	if v.res.Quorum, err = s.quorum(); err != nil {
		return v.res, fmt.Errorf("sync: %w", err)
	}
	if v.res.Quorum < o.MinQuorum {
		return v.res, fmt.Errorf("sync: %w: %d, want %d", ErrQuorum, v.res.Quorum, o.MinQuorum)
	}
	return v.res, nil
}

// syncing is one sync. A is this node.
type syncing struct {
	s              *Store
	c              Caller
	o              SyncOptions
	res            *Result
	calls          int64
	receivedBefore int64

	peer   Identity
	member merge.Member
	pinned bool
	state  PeerState
	ours   *Snapshot // A's before the merge
	theirs greeting  // B's before the merge
	pushed int       // receipts that B took in this attempt
}

// greeting is a hello that was verified.
type greeting struct {
	HelloOut
	log checkpoint.Body // zero for an empty log
	set merge.SetNote
}

// call makes one call within its deadline and the budget.
func (v *syncing) call(ctx context.Context, tool string, in, out any) error {
	if v.calls++; v.calls > v.o.MaxCalls {
		return fmt.Errorf("%w: %d calls", ErrBudget, v.o.MaxCalls)
	}
	ctx, cancel := context.WithTimeout(ctx, v.o.CallTimeout)
	defer cancel()
	if err := v.c.Call(ctx, tool, in, out); err != nil {
		return err
	}
	if _, _, received := v.c.Counters(); received-v.receivedBefore > v.o.MaxBytes {
		return fmt.Errorf("%w: %d bytes received", ErrBudget, v.o.MaxBytes)
	}
	return nil
}

func violation(tool, format string, args ...any) error {
	return &Violation{tool, fmt.Errorf(format, args...)}
}

// codeOf returns the code of a refusal, or "".
func codeOf(err error) Code {
	var coded interface{ ErrorCode() string }
	if errors.As(err, &coded) {
		return Code(coded.ErrorCode())
	}
	return ""
}

func (v *syncing) run(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		err := v.once(ctx)
		if code := codeOf(err); attempt >= v.o.Attempts || code != CodeStaleRoot && code != CodeUnknownSession {
			return err
		}
	}
}

func (v *syncing) once(ctx context.Context) error {
	if err := v.hello(ctx); err != nil {
		return err
	}
	if err := v.history(ctx); err != nil {
		return err
	}
	ours, err := v.s.Snapshot()
	if err != nil {
		return err
	}
	v.ours, v.pushed = ours, 0
	done, err := v.receipted()
	if err != nil || done {
		return err
	}
	onlyA, onlyB, err := v.fetch(ctx)
	if err != nil {
		return err
	}
	return v.merge(ctx, onlyA, onlyB)
}

// hello opens the sync and verifies who answers, and that both trust the same.
func (v *syncing) hello(ctx context.Context) error {
	v.o.Progress("hello", 0, 0)
	if v.o.Peer == "" {
		// Whoever answers says who they are, and is then held to what is remembered.
		id, err := v.identity(ctx)
		if err != nil {
			return err
		}
		v.o.Peer = openpgp.Fingerprint(id.Fingerprint)
	}
	if err := v.recall(); err != nil {
		return err
	}
	if !v.pinned && v.peer.Fingerprint == "" {
		if _, err := v.identity(ctx); err != nil {
			return err
		}
	}
	v.res.Peer = v.peer
	// What is remembered was read before the peer is asked: it may have grown since,
	// and must not have shrunk.
	var h HelloOut
	if err := v.call(ctx, ToolHello, HelloIn{Protocol}, &h); err != nil {
		return err
	}
	if h.Protocol != Protocol {
		return violation(ToolHello, "it speaks %.100q, want %s", h.Protocol, Protocol)
	}
	g := greeting{HelloOut: h}
	var err error
	if g.log, err = openCheckpoint(v.peer.Log, h.Checkpoint); err == nil {
		g.set, err = openSetNote(v.peer, h.Set)
	}
	if err != nil {
		if v.pinned {
			// A key that is not the pinned one: is it another identity, or nobody's?
			if _, ierr := v.identity(ctx); ierr != nil {
				return ierr
			}
		}
		return &Violation{ToolHello, err}
	}
	if b, err := hex.DecodeString(h.Challenge); err != nil || len(b) != 32 || hex.EncodeToString(b) != h.Challenge {
		return violation(ToolHello, "challenge %.100q: want 64 lower-case hex digits", h.Challenge)
	}
	if g.set.Count > v.o.MaxReceipts {
		return fmt.Errorf("%w: the peer has %d receipts, want at most %d", ErrBudget, g.set.Count, v.o.MaxReceipts)
	}
	v.theirs = g
	return v.sameTrust(ctx)
}

// recall reads what is remembered of the peer.
func (v *syncing) recall() error {
	m, ok := v.s.Trust().Lookup(v.o.Peer)
	switch {
	case !ok:
		return &Untrusted{fmt.Errorf("%s is not in the trust state: remembrancer federation join --peer URL --trust-anchor FILE", v.o.Peer)}
	case m.Cutoff != nil:
		return &Untrusted{fmt.Errorf("%s is cut off at size %d: it is trusted for what it issued before, and for nothing new", v.o.Peer, m.Cutoff.Size)}
	case string(v.o.Peer) == v.s.Identity().Fingerprint:
		return &Untrusted{errors.New("it is this node itself")}
	}
	v.member = m
	v.state, _ = v.s.Peer(v.o.Peer)
	if v.state.Stopped != "" {
		return &Stopped{v.state.Node, v.state.Stopped}
	}
	if v.state.Identity != nil {
		if v.peer.Fingerprint != "" && !v.peer.same(*v.state.Identity) {
			return &IdentityChanged{*v.state.Identity, v.peer}
		}
		v.pinned = true
		v.peer = *v.state.Identity
	}
	return nil
}

// identity asks who the peer is. It must be the one that was asked for, and the
// one that is pinned.
func (v *syncing) identity(ctx context.Context) (Identity, error) {
	var out IdentityOut
	if err := v.call(ctx, ToolIdentity, IdentityIn{}, &out); err != nil {
		return Identity{}, err
	}
	id, m, err := openIdentity(out, v.s.Trust())
	if err != nil {
		return Identity{}, &Untrusted{err}
	}
	if v.o.Peer != "" && m.Key.Fingerprint() != v.o.Peer {
		return Identity{}, &Untrusted{fmt.Errorf("it is %s (%s), want %s", id.Node, id.Fingerprint, v.o.Peer)}
	}
	if v.pinned && !v.peer.same(id) {
		return Identity{}, &IdentityChanged{v.peer, id}
	}
	v.peer, v.member = id, m
	return id, nil
}

func (v *syncing) sameTrust(ctx context.Context) error {
	ours := v.s.Trust()
	if v.theirs.set.Trust == ours.Hash() {
		return nil
	}
	e := &TrustMismatch{Ours: ours.Hash(), Theirs: v.theirs.set.Trust}
	var out TrustOut
	if err := v.call(ctx, ToolTrust, TrustIn{}, &out); err != nil {
		return fmt.Errorf("%w\n(the peer does not show its members: %w)", e, err)
	}
	if err := merge.CheckNamed(out.Members, e.Theirs); err != nil {
		return &Violation{ToolTrust, err}
	}
	e.Differences = merge.Differences(ours.Named(), out.Members)
	return e
}

// history verifies that the peer's log extends what was seen of it, and remembers
// it. Two histories are an [Equivocation].
func (v *syncing) history(ctx context.Context) error {
	var seen checkpoint.Body
	var proof []string
	if len(v.state.LastSeen) > 0 {
		var err error
		if seen, err = openCheckpoint(v.peer.Log, string(v.state.LastSeen)); err != nil {
			return fmt.Errorf("what is remembered of %s: %w", v.peer.Node, err)
		}
	}
	if seen.Size > 0 && v.theirs.log.Size > seen.Size {
		var err error
		if proof, err = v.consistency(ctx, seen.Size, v.theirs.log.Size); err != nil {
			return err
		}
	}
	return v.accept(ctx, seen, v.theirs.log, string(v.state.LastSeen), v.theirs.Checkpoint, proof)
}

// consistency asks for the proof that the peer's log of one size extends that of a
// smaller one.
func (v *syncing) consistency(ctx context.Context, from, size int64) ([]string, error) {
	var out TailOut
	if err := v.call(ctx, ToolTail, TailIn{From: from, Size: size, ProofOnly: true}, &out); err != nil {
		return nil, err
	}
	if out.From != from || out.Size != size || len(out.Lines) > 0 {
		return nil, violation(ToolTail, "found %d lines from %d to %d, want only the proof from %d to %d", len(out.Lines), out.From, out.Size, from, size)
	}
	return out.Proof, nil
}

// accept compares a checkpoint with the one seen before it, and remembers it.
func (v *syncing) accept(ctx context.Context, seen, now checkpoint.Body, first, note string, encoded []string) error {
	if note == "" && seen.Size > 0 {
		// A log that was there and is not: nobody signed that.
		return violation(ToolHello, "it shows no checkpoint, its log had %d entries", seen.Size)
	}
	kind := ""
	var proof []checkpoint.Hash
	switch {
	case now.Size < seen.Size:
		kind = Rollback
	case now.Size == seen.Size && now.Root != seen.Root:
		kind = Fork
	case seen.Size > 0 && now.Size > seen.Size:
		var err error
		if proof, err = decodeHashes(encoded); err != nil {
			return violation(ToolTail, "proof: %w", err)
		}
		if checkpoint.CheckConsistency(seen, now, proof) != nil {
			kind = Inconsistent
		}
	}
	if kind == "" {
		if v.pinned && now == seen && (v.o.URL == "" || v.o.URL == v.state.URL) {
			return nil
		}
		state, err := v.s.amendPeer(v.member.Key.Fingerprint(), func(p *PeerState) {
			id := v.peer
			p.Node, p.Identity = id.Node, &id
			if v.o.URL != "" {
				p.URL = v.o.URL
			}
			v.peer.saw([]byte(note))(p)
		})
		v.state, v.pinned = state, err == nil
		return err
	}
	e := &Equivocation{Peer: v.peer, Kind: kind, First: []byte(first), Second: []byte(note), Proof: proof}
	r, err := v.s.stop(ctx, v.member.Key.Fingerprint(), kind, e.First, e.Second, proof)
	if err != nil {
		return errors.Join(e, err)
	}
	e.Incident = r.ID()
	return e
}

// receipted reports whether both hold the same, and have said so already.
func (v *syncing) receipted() (bool, error) {
	if v.theirs.set.Root != v.ours.Root {
		return false, nil
	}
	if v.theirs.set.Count != v.ours.Count {
		return false, violation(ToolHello, "its set of root %s is to have %d receipts, it has %d", v.ours.Root, v.theirs.set.Count, v.ours.Count)
	}
	file, err := v.s.lastMerge(v.state)
	if err != nil || file == nil {
		return false, err
	}
	r, err := merge.Parse(file)
	if err != nil {
		return false, fmt.Errorf("%s: %w", v.state.LastMergeFile, err)
	}
	if r.Body.Merged != v.ours.Root || r.Body.Trust != v.theirs.set.Trust {
		return false, nil
	}
	v.res.Equal = true
	return true, v.report(r, v.state.LastMergeFile, nil)
}

func (v *syncing) report(r *merge.Receipt, file string, conflicts []merge.Conflict) error {
	v.res.Root, v.res.Count, v.res.Receipt, v.res.ReceiptFile = r.Body.Merged, r.Body.Total, r, file
	v.res.Conflicts = conflicts
	if conflicts == nil {
		v.res.Conflicts = conflictsWithin(v.s.Conflicts(), v.ours.Set.Has)
	}
	return nil
}

// fetch takes what the peer has and we lack, and returns in what the two sets
// differed before.
func (v *syncing) fetch(ctx context.Context) (onlyA, onlyB []receipt.ID, err error) {
	if v.theirs.set.Root == v.ours.Root {
		return nil, nil, nil
	}
	if err := v.tail(ctx); err != nil {
		return nil, nil, err
	}
	now, err := v.s.Snapshot()
	if err != nil {
		return nil, nil, err
	}
	// What has come since the merge began: from the tail, or from elsewhere.
	come, gone, err := set.Diff(ctx, v.ours.Set, now.Root, now.Set, now.Count+1024)
	if errors.Is(err, set.ErrBudget) {
		come, gone = compareSets(v.ours.Set, now.Set)
		err = nil
	}
	if err != nil {
		return nil, nil, err
	}
	if len(gone) > 0 {
		return nil, nil, refuse(CodeStaleRoot, "the trust state of this node changed during the sync")
	}
	missing, extra, err := v.diff(ctx, now.Set)
	if err != nil {
		return nil, nil, err
	}
	if now.Count+len(missing)-len(extra) != v.theirs.set.Count {
		return nil, nil, violation(ToolHello, "its set of root %s is to have %d receipts, it has %d", v.theirs.set.Root, v.theirs.set.Count, now.Count+len(missing)-len(extra))
	}
	if err := v.get(ctx, missing); err != nil {
		return nil, nil, err
	}
	foreign := make(map[receipt.ID]bool, len(extra))
	for _, id := range extra {
		foreign[id] = true
		if v.ours.Set.Has(id) {
			onlyA = append(onlyA, id)
		}
	}
	onlyB = missing
	for _, id := range come {
		if !foreign[id] {
			onlyB = append(onlyB, id)
		}
	}
	slices.SortFunc(onlyB, compareIDs)
	// All of the peer's log that matters is here now.
	v.state, err = v.s.amendPeer(v.member.Key.Fingerprint(), func(p *PeerState) {
		p.TailSize = max(p.TailSize, v.theirs.log.Size)
	})
	return onlyA, onlyB, err
}

// maxRecent is how many log lines are fetched in the hope that most of them are
// new. Beyond it the sets are compared.
const maxRecent = 4096

// tail takes the entries of the peer's log since the last sync. It needs no proof:
// each is judged by itself, and the sets are compared after it.
func (v *syncing) tail(ctx context.Context) error {
	from, size := v.state.TailSize, v.theirs.log.Size
	mostlyNew := 2*v.ours.Count < v.theirs.set.Count
	if from > size || !mostlyNew && (from == 0 || size-from > maxRecent) {
		return nil
	}
	first := from
	for from < size {
		v.o.Progress("tail", from-first, size-first)
		var page TailOut
		if err := v.call(ctx, ToolTail, TailIn{From: from, Size: size}, &page); err != nil {
			return err
		}
		bytes := 0
		for _, l := range page.Lines {
			bytes += len(l)
		}
		switch {
		case page.From != from || page.Size != size:
			return violation(ToolTail, "found a page from %d to %d, want one from %d to %d", page.From, page.Size, from, size)
		case len(page.Lines) == 0:
			return violation(ToolTail, "found an empty page at %d of %d", from, size)
		case len(page.Lines) > MaxTailEntries || int64(len(page.Lines)) > size-from || bytes > MaxPageBytes+receipt.MaxLine:
			return violation(ToolTail, "found a page of %d lines and %d bytes at %d of %d, want at most %d and %d", len(page.Lines), bytes, from, size, MaxTailEntries, MaxPageBytes)
		}
		if err := v.take(ctx, page.Lines); err != nil {
			return err
		}
		from += int64(len(page.Lines))
		var err error
		if v.state, err = v.s.amendPeer(v.member.Key.Fingerprint(), func(p *PeerState) { p.TailSize = max(p.TailSize, from) }); err != nil {
			return err
		}
	}
	v.o.Progress("tail", size-first, size-first)
	return nil
}

// take adds lines of a peer's log. Those that are no matter of a merge, and those
// that need a proof that a log does not carry, are left out without a word.
func (v *syncing) take(ctx context.Context, lines []string) error {
	trust := v.s.Trust()
	var items []merge.Item
	for _, line := range lines {
		if e, err := receipt.ParseLine([]byte(line)); err == nil {
			m, ok := trust.Lookup(e.Receipt.Issuer())
			if !merge.Federated(e.Receipt.Kind()) || ok && m.Cutoff != nil {
				continue
			}
		}
		items = append(items, merge.Item{Line: line})
	}
	_, err := v.add(ctx, items)
	return err
}

func (v *syncing) add(ctx context.Context, items []merge.Item) (Ingest, error) {
	if len(items) == 0 {
		return Ingest{}, nil
	}
	got, err := v.s.Add(ctx, v.peer.Node, items)
	if err != nil {
		return got, err
	}
	v.res.Fetched += got.Added
	v.res.Known += got.Known
	// A peer that sends nothing but rubbish must not fill our memory with it.
	if room := maxRejected - len(v.res.Rejected); room > 0 {
		v.res.Rejected = append(v.res.Rejected, got.Rejected[:min(room, len(got.Rejected))]...)
	}
	return got, nil
}

// maxRejected is how many rejections a result lists. The quarantine counts all.
const maxRejected = 1000

// diff compares our set with the peer's.
func (v *syncing) diff(ctx context.Context, local *set.Set) (missing, extra []receipt.ID, err error) {
	v.o.Progress("diff", 0, 0)
	missing, extra, err = set.Diff(ctx, local, v.theirs.set.Root, v, v.theirs.set.Count+1024)
	switch {
	case err == nil:
		return missing, extra, nil
	case errors.Is(err, set.ErrBudget):
		// Most differs: the whole list is cheaper.
		return v.list(ctx, local)
	case v.failed(ctx, err):
		return nil, nil, err
	}
	return nil, nil, &Violation{ToolDiff, err}
}

// failed tells errors of calls from those in what was answered.
func (v *syncing) failed(ctx context.Context, err error) bool {
	var was *callError
	return ctx.Err() != nil || errors.As(err, &was)
}

// callError marks that a call failed, and not what it answered.
type callError struct{ error }

func (e *callError) Unwrap() error { return e.error }

// Subtrees implements [set.Source].
func (v *syncing) Subtrees(ctx context.Context, prefixes []set.Prefix, levels int) ([][]byte, error) {
	in := DiffIn{Root: v.theirs.set.Root.String(), Prefixes: make([]string, len(prefixes)), Levels: levels}
	for i, p := range prefixes {
		in.Prefixes[i] = p.String()
	}
	var out DiffOut
	if err := v.call(ctx, ToolDiff, in, &out); err != nil {
		return nil, &callError{err}
	}
	if out.Root != in.Root {
		return nil, fmt.Errorf("found subtrees of root %.100q, want %s", out.Root, in.Root)
	}
	size := 0
	for _, t := range out.Subtrees {
		size += len(t)
	}
	if size > set.MaxAnswer {
		return nil, fmt.Errorf("found subtrees of %d bytes, want at most %d", size, set.MaxAnswer)
	}
	v.o.Progress("diff", int64(len(prefixes)), 0)
	return out.Subtrees, nil
}

// list compares our set with all ids of the peer's.
func (v *syncing) list(ctx context.Context, local *set.Set) (missing, extra []receipt.ID, err error) {
	root, count := v.theirs.set.Root, v.theirs.set.Count
	var ids []receipt.ID
	for more := true; more; {
		in := IDsIn{Root: root.String()}
		if len(ids) > 0 {
			in.After = ids[len(ids)-1].String()
		}
		var out IDsOut
		if err := v.call(ctx, ToolIDs, in, &out); err != nil {
			return nil, nil, err
		}
		switch {
		case out.Root != in.Root:
			return nil, nil, violation(ToolIDs, "found ids of root %.100q, want %s", out.Root, in.Root)
		case len(out.IDs) > MaxIDs || len(out.IDs) == 0 && out.More:
			return nil, nil, violation(ToolIDs, "found a page of %d ids, want 1 to %d", len(out.IDs), MaxIDs)
		case len(ids)+len(out.IDs) > count:
			return nil, nil, violation(ToolIDs, "found more than the %d ids that its set is to have", count)
		}
		for _, text := range out.IDs {
			id, err := receipt.ParseID(text)
			if err != nil {
				return nil, nil, &Violation{ToolIDs, err}
			}
			if len(ids) > 0 && compareIDs(ids[len(ids)-1], id) >= 0 {
				return nil, nil, violation(ToolIDs, "ids do not ascend at %s", id)
			}
			ids = append(ids, id)
		}
		more = out.More
		v.o.Progress("diff", int64(len(ids)), int64(count))
	}
	if got := set.Root(ids); got != root {
		return nil, nil, violation(ToolIDs, "the ids make a set of root %s, want %s", got, root)
	}
	their := make(map[receipt.ID]bool, len(ids))
	for _, id := range ids {
		their[id] = true
		if !local.Has(id) {
			missing = append(missing, id)
		}
	}
	for id := range local.All() {
		if !their[id] {
			extra = append(extra, id)
		}
	}
	return missing, extra, nil
}

// get takes the receipts of ids that are in the peer's set.
func (v *syncing) get(ctx context.Context, ids []receipt.ID) error {
	wanted := make(map[receipt.ID]bool, len(ids))
	for _, id := range ids {
		wanted[id] = true
	}
	for todo := slices.Clone(ids); len(todo) > 0; {
		v.o.Progress("get", int64(len(ids)-len(todo)), int64(len(ids)))
		batch := todo[:min(len(todo), MaxGet)]
		in := GetIn{IDs: make([]string, len(batch))}
		for i, id := range batch {
			in.IDs[i] = id.String()
		}
		var out GetOut
		if err := v.call(ctx, ToolGet, in, &out); err != nil {
			return err
		}
		if len(out.Items) == 0 {
			return violation(ToolGet, "it does not hand over %s, which is in the set it signed, nor %d others", batch[0], len(batch)-1)
		}
		asked := make(map[receipt.ID]bool, len(batch))
		for _, id := range batch {
			asked[id] = wanted[id]
		}
		size := 0
		for _, it := range out.Items {
			e, err := receipt.ParseLine([]byte(it.Line))
			if err != nil {
				return &Violation{ToolGet, err}
			}
			if id := e.Receipt.ID(); !asked[id] {
				return violation(ToolGet, "found receipt %s, which was not asked for, or twice", id)
			}
			delete(asked, e.Receipt.ID())
			if size += len(it.Line); size > MaxPageBytes+receipt.MaxLine {
				return violation(ToolGet, "found more than %d bytes, want at most %d", size, MaxPageBytes)
			}
		}
		got, err := v.add(ctx, out.Items)
		if err != nil {
			return err
		}
		if len(got.Rejected) > 0 {
			return &Violation{ToolGet, fmt.Errorf("its set holds what is not valid under the trust state that both name: %w", got.Rejected[0])}
		}
		var rest []receipt.ID
		for _, id := range batch {
			if asked[id] {
				rest = append(rest, id)
			}
		}
		todo = todo[len(batch)-len(rest):]
		copy(todo, rest)
	}
	v.o.Progress("get", int64(len(ids)), int64(len(ids)))
	return nil
}

// merge gives the peer what it lacks, and makes the receipt.
func (v *syncing) merge(ctx context.Context, onlyA, onlyB []receipt.ID) error {
	var nonce [32]byte
	if _, err := io.ReadFull(v.o.Random, nonce[:]); err != nil {
		return err
	}
	own, err := v.s.signIdentity(ctx)
	if err != nil {
		return err
	}
	// The keys are pinned; where the peer is reached may have changed, and is part of
	// what it signs.
	if _, err := v.identity(ctx); err != nil {
		return err
	}
	me := v.s.Identity()
	in := SessionIn{
		Challenge: v.theirs.Challenge, Nonce: hex.EncodeToString(nonce[:]), Node: me.Node, Fingerprint: me.Fingerprint,
		Identity: own, Checkpoint: string(v.ours.Checkpoint), Set: string(v.ours.SetNote),
		Time: v.o.Now().UTC().Format(time.RFC3339), Operator: me.Fingerprint,
	}
	if v.o.Operator != nil {
		in.Operator = string(v.o.Operator.Fingerprint())
	}
	statement, err := in.statement(v.peer.Node)
	if err != nil {
		return err
	}
	sig, err := v.s.SignMerge(ctx, pae(sessionType, statement))
	if err != nil {
		return err
	}
	in.Signature = base64.StdEncoding.EncodeToString(sig)
	var session SessionOut
	if err := v.call(ctx, ToolSession, in, &session); err != nil {
		return err
	}
	if len(session.Session) > 1024 {
		return violation(ToolSession, "found the name of a session of %d bytes", len(session.Session))
	}
	previous, done, err := v.previous(ctx, session.Previous)
	if err != nil || done {
		return err
	}
	if err := v.push(ctx, session.Session, onlyA); err != nil {
		return err
	}
	if err := v.mergeIDs(ctx, session.Session, onlyA, onlyB); err != nil {
		return err
	}
	v.o.Progress("merge", 0, 2)
	ids, body, err := v.compute(in, previous, onlyA, onlyB)
	if err != nil {
		return err
	}
	r, err := v.propose(ctx, session, body)
	if err != nil {
		return err
	}
	return v.commit(ctx, session.Session, r, ids)
}

// previous reads the merge before this one as the peer has it, and returns its
// digest. It must bear our own signature, so it is one that we recomputed. If we
// never heard that the peer has kept it, it is finished here; done means that it
// is of this very union.
func (v *syncing) previous(ctx context.Context, file string) (digest string, done bool, err error) {
	if file == "" {
		return "", false, nil
	}
	r, err := merge.Parse([]byte(file))
	if err != nil {
		return "", false, &Violation{ToolSession, fmt.Errorf("previous: %w", err)}
	}
	if digest, err = r.Body.Digest(); err != nil {
		return "", false, err
	}
	if digest == v.state.LastMerge {
		return digest, false, nil
	}
	body, err := r.Body.Bytes()
	if err != nil {
		return "", false, err
	}
	parties := map[openpgp.Fingerprint][]byte{r.Body.A.Fingerprint: r.SigA, r.Body.B.Fingerprint: r.SigB}
	for _, f := range []string{v.peer.Fingerprint, v.s.Identity().Fingerprint} {
		m, ok := v.s.Trust().Lookup(openpgp.Fingerprint(f))
		if !ok {
			return "", false, refuse(CodeStaleRoot, "the trust state of this node changed during the sync")
		}
		if err := verifyBy(m.Key, merge.PayloadType, body, base64.StdEncoding.EncodeToString(parties[m.Key.Fingerprint()])); err != nil {
			return "", false, violation(ToolSession, "previous: it is no merge of these two nodes: %w", err)
		}
	}
	kept, ids, ok, err := v.s.keptMerge(r)
	if err != nil {
		return "", false, err
	}
	if !ok {
		// We lost it, or never finished: it is cited, but not ours to show.
		return digest, false, nil
	}
	if v.state, err = v.s.amendPeer(v.member.Key.Fingerprint(), func(p *PeerState) {
		p.LastMerge, p.LastMergeFile = digest, kept
	}); err != nil {
		return "", false, err
	}
	if r.Body.Merged != v.ours.Root || r.Body.Merged != v.theirs.set.Root || r.Body.Trust != v.theirs.set.Trust {
		return digest, false, nil
	}
	list, err := merge.ParseSidecar(ids)
	if err != nil {
		return "", false, fmt.Errorf("%s.ids: %w", kept, err)
	}
	return digest, true, v.report(r, kept, list.Conflicts)
}

func (v *syncing) push(ctx context.Context, session string, ids []receipt.ID) error {
	for done := 0; done < len(ids); {
		v.o.Progress("push", int64(done), int64(len(ids)))
		batch := ids[done:min(len(ids), done+MaxGet)]
		items, err := v.s.Items(batch)
		if err != nil {
			return err
		}
		if len(items) != len(batch) {
			return refuse(CodeStaleRoot, "the trust state of this node changed during the sync")
		}
		size, n := 0, 0
		for n < len(items) && (n == 0 || size+len(items[n].Line) <= MaxPageBytes) {
			size += len(items[n].Line)
			n++
		}
		var out PushOut
		if err := v.call(ctx, ToolPush, PushIn{Session: session, Items: items[:n]}, &out); err != nil {
			return err
		}
		if len(out.Rejected) > 0 {
			return violation(ToolPush, "it refuses %d receipts that are valid under the trust state that both name: %.100q as %.100q", len(out.Rejected), out.Rejected[0].ID, out.Rejected[0].Reason)
		}
		if out.Added < 0 || out.Known < 0 || out.Added+out.Known != n {
			return violation(ToolPush, "it took %d receipts and knew %d, want %d in all", out.Added, out.Known, n)
		}
		v.res.Pushed += out.Added
		v.pushed += out.Added
		done += n
	}
	if len(ids) > 0 {
		v.o.Progress("push", int64(len(ids)), int64(len(ids)))
	}
	return nil
}

func (v *syncing) mergeIDs(ctx context.Context, session string, onlyA, onlyB []receipt.ID) error {
	texts := func(ids []receipt.ID) []string {
		var list []string
		for _, id := range ids {
			list = append(list, id.String())
		}
		return list
	}
	a, b := 0, 0
	for a < len(onlyA) || b < len(onlyB) {
		na := min(len(onlyA)-a, MaxIDs)
		nb := min(len(onlyB)-b, MaxIDs-na)
		var out MergeIDsOut
		in := MergeIDsIn{Session: session, OnlyA: texts(onlyA[a : a+na]), OnlyB: texts(onlyB[b : b+nb])}
		if err := v.call(ctx, ToolMergeIDs, in, &out); err != nil {
			return err
		}
		a, b = a+na, b+nb
		if out.OnlyA != a || out.OnlyB != b {
			return violation(ToolMergeIDs, "it counts %d and %d ids, want %d and %d", out.OnlyA, out.OnlyB, a, b)
		}
	}
	return nil
}

// compute makes the whole merge from our side.
func (v *syncing) compute(in SessionIn, previous string, onlyA, onlyB []receipt.ID) (*merge.Sidecar, *merge.Body, error) {
	ids := &merge.Sidecar{OnlyA: onlyA, OnlyB: onlyB}
	a := make(map[receipt.ID]bool, len(onlyA))
	for _, id := range onlyA {
		a[id] = true
	}
	for id := range v.ours.Set.All() {
		if !a[id] {
			ids.Both = append(ids.Both, id)
		}
	}
	b := make(map[receipt.ID]bool, len(onlyB))
	for _, id := range onlyB {
		b[id] = true
	}
	ids.Conflicts = conflictsWithin(v.s.Conflicts(), func(id receipt.ID) bool { return b[id] || v.ours.Set.Has(id) })
	when, err := time.Parse(time.RFC3339, in.Time)
	if err != nil {
		return nil, nil, err
	}
	return ids, &merge.Body{
		Time:   when,
		A:      sideOf(v.s.Identity(), in.Checkpoint, in.Set, v.ours.Root, v.ours.Count, in.Challenge),
		B:      sideOf(v.peer, v.theirs.Checkpoint, v.theirs.Set, v.theirs.set.Root, v.theirs.set.Count, in.Nonce),
		Merged: set.Root(ids.Union()), Total: len(ids.Both) + len(onlyA) + len(onlyB),
		AddedToA: len(onlyB), AddedToB: len(onlyA), Conflicts: len(ids.Conflicts),
		Trust: v.theirs.set.Trust, Previous: previous, IDs: ids.Digest(), Operator: openpgp.Fingerprint(in.Operator),
	}, nil
}

// propose gets the peer's signature, and adds ours.
func (v *syncing) propose(ctx context.Context, session SessionOut, body *merge.Body) (*merge.Receipt, error) {
	data, err := body.Bytes()
	if err != nil {
		return nil, err
	}
	var proof []checkpoint.Hash
	if w := session.Witnessed; w > 0 && w < v.ours.Size {
		if proof, err = v.s.Consistency(w, v.ours.Size); err != nil {
			return nil, err
		}
	}
	var out ProposeOut
	if err := v.call(ctx, ToolPropose, ProposeIn{Session: session.Session, Body: string(data), Proof: encodeHashes(proof)}, &out); err != nil {
		return nil, err
	}
	if out.Root != body.Merged.String() {
		return nil, violation(ToolPropose, "it computes the root %.100q, we %s", out.Root, body.Merged)
	}
	if err := verifyBy(v.member.Key, merge.PayloadType, data, out.Signature); err != nil {
		return nil, &Violation{ToolPropose, err}
	}
	r := &merge.Receipt{Body: *body}
	if r.SigB, err = base64.StdEncoding.DecodeString(out.Signature); err != nil {
		return nil, &Violation{ToolPropose, err}
	}
	if r.SigA, err = v.s.SignMerge(ctx, merge.PAE(data)); err != nil {
		return nil, err
	}
	r.SigOperator = r.SigA
	if v.o.Operator != nil {
		if r.SigOperator, err = v.o.Operator.Sign(ctx, merge.PAE(data)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// commit keeps the receipt, hands it over, and exchanges cosignatures. Between the
// two, a crash leaves a receipt here that the peer has not kept: it is not the last
// merge of the two until the peer says so, now or when the next sync begins.
func (v *syncing) commit(ctx context.Context, session string, r *merge.Receipt, list *merge.Sidecar) error {
	file, err := r.Marshal()
	if err != nil {
		return err
	}
	ids := list.Marshal()
	anchors, err := keyring(v.s.Trust())
	if err != nil {
		return err
	}
	if verdict := merge.Verify(file, ids, anchors, nil); verdict.Status() != judge.Pass {
		return violation(ToolPropose, "the receipt does not verify:\n%s", verdict)
	}
	kept, _, err := v.s.keepMerge(ctx, v.member.Key.Fingerprint(), r, ids, false)
	if err != nil {
		return err
	}
	in := CommitIn{Session: session, Receipt: string(file), Cosignature: v.cosign(ctx)}
	head, err := v.s.Head()
	if err != nil {
		return err
	}
	newest, err := openCheckpoint(v.s.Identity().Log, string(head))
	if err != nil {
		return err
	}
	in.Checkpoint = string(head)
	if v.ours.Size > 0 {
		proof, err := v.s.Consistency(v.ours.Size, newest.Size)
		if err != nil {
			return err
		}
		in.Proof = encodeHashes(proof)
	}
	v.o.Progress("merge", 1, 2)
	var out CommitOut
	if err := v.call(ctx, ToolCommit, in, &out); err != nil {
		return err
	}
	digest, err := r.Body.Digest()
	if err != nil {
		return err
	}
	if v.state, err = v.s.amendPeer(v.member.Key.Fingerprint(), func(p *PeerState) {
		p.LastMerge, p.LastMergeFile = digest, kept
	}); err != nil {
		return err
	}
	if err := v.exchange(ctx, head, out); err != nil {
		return err
	}
	v.o.Progress("merge", 2, 2)
	return v.report(r, kept, list.Conflicts)
}

// exchange takes the peer's cosignature of our newest checkpoint, and cosigns its
// newest, which then is the last one seen.
func (v *syncing) exchange(ctx context.Context, head []byte, out CommitOut) error {
	newest, err := openCheckpoint(v.peer.Log, out.Checkpoint)
	if err != nil {
		return &Violation{ToolCommit, err}
	}
	if err := v.accept(ctx, v.theirs.log, newest, v.theirs.Checkpoint, out.Checkpoint, out.Proof); err != nil {
		return err
	}
	if newest.Size == v.theirs.log.Size+int64(v.pushed)+1 {
		// All that its log has more is what we pushed and the receipt.
		if v.state, err = v.s.amendPeer(v.member.Key.Fingerprint(), func(p *PeerState) {
			p.TailSize = max(p.TailSize, newest.Size)
		}); err != nil {
			return err
		}
	}
	if proof, err := decodeHashes(out.Proof); err == nil {
		// It was cosigned already, or somebody was quicker: either is fine.
		_, _ = v.s.Witness(v.theirs.log.Size, proof, []byte(out.Checkpoint))
	}
	if out.Cosignature == "" {
		return nil
	}
	if err := v.s.AddCosignature(slices.Concat(head, []byte(out.Cosignature))); err != nil {
		return &Violation{ToolCommit, fmt.Errorf("cosignature: %w", err)}
	}
	return nil
}

// cosign cosigns the checkpoint that hello showed. It returns "" where that is not
// possible: a merge does not depend on it.
func (v *syncing) cosign(ctx context.Context) string {
	if v.theirs.Checkpoint == "" {
		return ""
	}
	line, err := v.s.Witness(0, nil, []byte(v.theirs.Checkpoint))
	var conflict *ErrWitnessConflict
	if errors.As(err, &conflict) && conflict.Size <= v.theirs.log.Size {
		var encoded []string
		if conflict.Size < v.theirs.log.Size {
			if encoded, err = v.consistency(ctx, conflict.Size, v.theirs.log.Size); err != nil {
				return ""
			}
		}
		proof, derr := decodeHashes(encoded)
		if derr != nil {
			return ""
		}
		line, err = v.s.Witness(conflict.Size, proof, []byte(v.theirs.Checkpoint))
	}
	if err != nil {
		return ""
	}
	return string(line)
}
