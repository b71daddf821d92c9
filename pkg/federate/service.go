package federate

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// Code says what kind of refusal an [Error] is.
type Code string

// The codes.
const (
	CodeStaleRoot      Code = "stale_root"      // the set or checkpoint is not held any more: say hello again
	CodeUnknownSession Code = "unknown_session" // the session or challenge is unknown, used or expired: say hello again
	CodeForbidden      Code = "forbidden"       // the caller may not do this
	CodeTooLarge       Code = "too_large"       // more than a limit or quota allows
	CodeBadRequest     Code = "bad_request"     // the request is wrong, and will be so again
	CodeTrustMismatch  Code = "trust_mismatch"  // the two trust states differ
	CodeBusy           Code = "busy"            // later
	CodeInternal       Code = "internal"        // the node's own fault
)

// Error is the refusal of a call. Its text is "code: message", as the tool of the
// same name answers it.
type Error struct {
	Code    Code
	Message string
	err     error // the cause of an internal one: for the log, not for the peer
}

// Error returns what is answered.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Unwrap returns the cause of an internal error.
func (e *Error) Unwrap() error { return e.err }

// ErrorCode returns the code, for callers that know the codes and not this type.
func (e *Error) ErrorCode() string { return string(e.Code) }

func refuse(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// broken is the answer to a fault of our own: the peer learns that there is one,
// not where our files are.
func broken(err error) *Error {
	return &Error{Code: CodeInternal, Message: "this node could not do it", err: err}
}

// ServiceOptions limit what peers may take of a node. The zero value of each is
// its default.
type ServiceOptions struct {
	Now    func() time.Time // the clock that lets things expire; time.Now
	Random io.Reader        // of challenges and sessions; crypto/rand

	Challenges    int           // how many are remembered, the newest; 1,024
	Snapshots     int           // of how many different sets; 4
	ChallengeLife time.Duration // how long a challenge may be answered; 15 minutes
	Sessions      int           // at once; 16
	PeerSessions  int           // of one peer at once: an older one ends; 2
	SessionIdle   time.Duration // without a call; 10 minutes

	PushItems  int           // that one peer may push in a window; 1,000,000
	PushBytes  int64         // of lines that one peer may push in a window; 1 GiB
	PushWindow time.Duration // one hour
	Rejected   int           // invalid items after which a session ends; 100
}

func (o ServiceOptions) withDefaults() ServiceOptions {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	for _, d := range []struct {
		n *int
		v int
	}{{&o.Challenges, 1024}, {&o.Snapshots, 4}, {&o.Sessions, 16}, {&o.PeerSessions, 2}, {&o.PushItems, 1_000_000}, {&o.Rejected, 100}} {
		if *d.n <= 0 {
			*d.n = d.v
		}
	}
	for _, d := range []struct {
		n *time.Duration
		v time.Duration
	}{{&o.ChallengeLife, 15 * time.Minute}, {&o.SessionIdle, 10 * time.Minute}, {&o.PushWindow, time.Hour}} {
		if *d.n <= 0 {
			*d.n = d.v
		}
	}
	if o.PushBytes <= 0 {
		o.PushBytes = 1 << 30
	}
	return o
}

// Service answers the tools of the protocol for one node: a method for each. All
// of its errors are [*Error]. It may be called by many peers at once.
//
// Reading needs nothing. Writing needs a session, which begins with the signature
// of a member of the trust state. What is signed is only what was recomputed.
type Service struct {
	store *Store
	o     ServiceOptions

	mu         sync.Mutex // guards all below, but not what is in a session
	identity   *IdentityOut
	challenges map[string]*challenge
	order      []string   // of the challenges, oldest first
	shown      []set.Hash // roots of the sets that they hold on to
	sessions   map[string]*session
	quotas     map[openpgp.Fingerprint]*quota
	sorted     struct { // the ids of one set in order, for fed_ids
		root set.Hash
		ids  []receipt.ID
	}
}

// challenge is what one hello showed.
type challenge struct {
	snapshot *Snapshot
	expires  time.Time
}

// session is the writing half of one sync. B is this node.
type session struct {
	mu       sync.Mutex // one call at a time
	last     time.Time  // of the last call; guarded by Service.mu
	member   merge.Member
	identity Identity
	in       SessionIn
	time     time.Time
	operator openpgp.Fingerprint
	set      merge.SetNote   // A's before the merge
	log      checkpoint.Body // A's before the merge; zero if empty
	lastSeen []byte          // A's checkpoint that was accepted before
	before   *Snapshot       // B's before the merge
	witness  int64           // SessionOut.Witnessed
	previous string          // digest of SessionOut.Previous
	rejected int
	onlyA    []receipt.ID
	onlyB    []receipt.ID

	body    *merge.Body // once proposed
	bytes   []byte
	sigB    []byte
	sidecar []byte
	file    string // once committed
	done    CommitOut
}

// quota is what one peer has pushed in the window.
type quota struct {
	since time.Time
	items int
	bytes int64
}

// NewService makes the answering side of a node.
func NewService(s *Store, o ServiceOptions) *Service {
	return &Service{
		store: s, o: o.withDefaults(), challenges: map[string]*challenge{}, sessions: map[string]*session{},
		quotas: map[openpgp.Fingerprint]*quota{},
	}
}

// Identity tells who this node is.
func (v *Service) Identity(ctx context.Context, _ IdentityIn) (IdentityOut, error) {
	v.mu.Lock()
	known := v.identity
	v.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	out, err := v.store.signIdentity(ctx)
	if err != nil {
		return IdentityOut{}, broken(err)
	}
	v.mu.Lock()
	v.identity = &out
	v.mu.Unlock()
	return out, nil
}

// Hello shows the newest state of this node.
func (v *Service) Hello(_ context.Context, in HelloIn) (HelloOut, error) {
	if in.Protocol != Protocol {
		return HelloOut{}, refuse(CodeBadRequest, "this node speaks %s, the caller %.100q", Protocol, in.Protocol)
	}
	snap, err := v.store.Snapshot()
	if err != nil {
		return HelloOut{}, broken(err)
	}
	name, err := v.random()
	if err != nil {
		return HelloOut{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.challenges[name] = &challenge{snap, v.o.Now().Add(v.o.ChallengeLife)}
	v.order = append(v.order, name)
	// Everyone may say hello, so what it leaves here is bounded: the oldest go, and
	// those that hold on to the oldest sets, which are large.
	if !slices.Contains(v.shown, snap.Root) {
		v.shown = append(v.shown, snap.Root)
		v.shown = v.shown[max(0, len(v.shown)-v.o.Snapshots):]
	}
	for len(v.order) > v.o.Challenges || !v.fresh(v.order[0]) {
		delete(v.challenges, v.order[0])
		v.order = v.order[1:]
	}
	return HelloOut{Protocol: Protocol, Checkpoint: string(snap.Checkpoint), Set: string(snap.SetNote), Challenge: name}, nil
}

// fresh reports whether a challenge can be answered, and is of a set that was shown
// lately. v.mu is held.
func (v *Service) fresh(name string) bool {
	c, ok := v.challenges[name]
	return ok && slices.Contains(v.shown, c.snapshot.Root)
}

// random returns 64 hex digits that nobody can guess.
func (v *Service) random() (string, error) {
	var b [32]byte
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, err := io.ReadFull(v.o.Random, b[:]); err != nil {
		return "", broken(err)
	}
	return hex.EncodeToString(b[:]), nil
}

// Trust shows the members of the trust state.
func (v *Service) Trust(context.Context, TrustIn) (TrustOut, error) {
	return TrustOut{Members: v.store.Trust().Named()}, nil
}

// Tail gives a page of the log.
func (v *Service) Tail(_ context.Context, in TailIn) (TailOut, error) {
	cp, err := v.store.Head()
	if err != nil {
		return TailOut{}, broken(err)
	}
	head, err := openCheckpoint(v.store.Identity().Log, string(cp))
	if err != nil {
		return TailOut{}, broken(err)
	}
	if in.From < 0 || in.Size < in.From {
		return TailOut{}, refuse(CodeBadRequest, "entries from %d to %d: want 0 <= from <= size", in.From, in.Size)
	}
	if in.Size > head.Size {
		return TailOut{}, refuse(CodeStaleRoot, "this log has %d entries, not %d", head.Size, in.Size)
	}
	out := TailOut{From: in.From, Size: in.Size, Lines: []string{}}
	if in.From == in.Size {
		return out, nil
	}
	if !in.ProofOnly {
		t, err := v.store.Tail(in.From, in.Size, MaxTailEntries, MaxPageBytes)
		if err != nil {
			return TailOut{}, broken(err)
		}
		out.Lines = t.Lines
	}
	if in.From > 0 {
		proof, err := v.store.Consistency(in.From, in.Size)
		if err != nil {
			return TailOut{}, broken(err)
		}
		out.Proof = encodeHashes(proof)
	}
	return out, nil
}

// snapshotAt finds the set of a root that a hello showed.
func (v *Service) snapshotAt(text string) (*Snapshot, error) {
	root, err := set.ParseHash(text)
	if err != nil {
		return nil, refuse(CodeBadRequest, "%v", err)
	}
	snap, ok := v.store.At(root)
	if !ok {
		return nil, refuse(CodeStaleRoot, "the set of root %s is not held any more", root)
	}
	return snap, nil
}

// Diff gives subtrees of the set of a root.
func (v *Service) Diff(ctx context.Context, in DiffIn) (DiffOut, error) {
	snap, err := v.snapshotAt(in.Root)
	if err != nil {
		return DiffOut{}, err
	}
	if len(in.Prefixes) > MaxPrefixes {
		return DiffOut{}, refuse(CodeTooLarge, "%d prefixes, want at most %d", len(in.Prefixes), MaxPrefixes)
	}
	prefixes := make([]set.Prefix, len(in.Prefixes))
	for i, p := range in.Prefixes {
		if prefixes[i], err = set.ParsePrefix(p); err != nil {
			return DiffOut{}, refuse(CodeBadRequest, "%v", err)
		}
	}
	trees, err := snap.Set.Subtrees(ctx, prefixes, in.Levels)
	if err != nil {
		return DiffOut{}, refuse(CodeTooLarge, "%v", err)
	}
	return DiffOut{Root: in.Root, Subtrees: trees}, nil
}

// IDs gives a page of the ids of the set of a root.
func (v *Service) IDs(_ context.Context, in IDsIn) (IDsOut, error) {
	snap, err := v.snapshotAt(in.Root)
	if err != nil {
		return IDsOut{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sorted.ids == nil || v.sorted.root != snap.Root {
		v.sorted.root, v.sorted.ids = snap.Root, slices.Collect(snap.Set.All())
	}
	ids := v.sorted.ids
	if in.After != "" {
		after, err := receipt.ParseID(in.After)
		if err != nil {
			return IDsOut{}, refuse(CodeBadRequest, "after: %v", err)
		}
		at, found := slices.BinarySearchFunc(ids, after, compareIDs)
		if found {
			at++
		}
		ids = ids[at:]
	}
	out := IDsOut{Root: in.Root, IDs: []string{}, More: len(ids) > MaxIDs}
	for _, id := range ids[:min(len(ids), MaxIDs)] {
		out.IDs = append(out.IDs, id.String())
	}
	return out, nil
}

// Get gives receipts.
func (v *Service) Get(_ context.Context, in GetIn) (GetOut, error) {
	if len(in.IDs) > MaxGet {
		return GetOut{}, refuse(CodeTooLarge, "%d ids, want at most %d", len(in.IDs), MaxGet)
	}
	ids, err := parseIDs(in.IDs)
	if err != nil {
		return GetOut{}, err
	}
	items, err := v.store.Items(ids)
	if err != nil {
		return GetOut{}, broken(err)
	}
	out := GetOut{Items: []merge.Item{}}
	size := 0
	for _, it := range items {
		if size += len(it.Line); size > MaxPageBytes && len(out.Items) > 0 {
			break
		}
		out.Items = append(out.Items, it)
	}
	return out, nil
}

func parseIDs(list []string) ([]receipt.ID, error) {
	ids := make([]receipt.ID, len(list))
	for i, s := range list {
		id, err := receipt.ParseID(s)
		if err != nil {
			return nil, refuse(CodeBadRequest, "%v", err)
		}
		ids[i] = id
	}
	return ids, nil
}

// Session begins the writing half of a sync.
func (v *Service) Session(ctx context.Context, in SessionIn) (SessionOut, error) {
	v.mu.Lock()
	c, ok := v.challenges[in.Challenge]
	// A challenge is answered once, well or not.
	delete(v.challenges, in.Challenge)
	now := v.o.Now()
	v.mu.Unlock()
	if !ok || now.After(c.expires) {
		return SessionOut{}, refuse(CodeUnknownSession, "the challenge is unknown, used or expired: say hello again")
	}
	s, err := v.admit(in)
	if err != nil {
		return SessionOut{}, err
	}
	s.before, s.last = c.snapshot, now
	out, err := v.greet(ctx, s)
	if err != nil {
		return SessionOut{}, err
	}
	if out.Session, err = v.random(); err != nil {
		return SessionOut{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.expire(now)
	var own []string
	for name, other := range v.sessions {
		if other.identity.Fingerprint == in.Fingerprint {
			own = append(own, name)
		}
	}
	// A peer that lost a session to a cut is not kept out by it: its oldest ends.
	slices.SortFunc(own, func(a, b string) int { return v.sessions[a].last.Compare(v.sessions[b].last) })
	for len(own) >= v.o.PeerSessions {
		delete(v.sessions, own[0])
		own = own[1:]
	}
	if len(v.sessions) >= v.o.Sessions {
		return SessionOut{}, refuse(CodeBusy, "%d sessions are under way: try again in a while", len(v.sessions))
	}
	v.sessions[out.Session] = s
	return out, nil
}

// expire forgets sessions without a call for too long. v.mu is held.
func (v *Service) expire(now time.Time) {
	for name, s := range v.sessions {
		if now.Sub(s.last) > v.o.SessionIdle {
			delete(v.sessions, name)
		}
	}
}

// admit verifies who asks for a session, and what they state of themselves.
func (v *Service) admit(in SessionIn) (*session, error) {
	own := v.store.Identity()
	trust := v.store.Trust()
	if b, err := hex.DecodeString(in.Nonce); err != nil || len(b) != 32 || hex.EncodeToString(b) != in.Nonce {
		return nil, refuse(CodeBadRequest, "nonce %.100q: want 64 lower-case hex digits", in.Nonce)
	}
	id, member, err := openIdentity(in.Identity, trust)
	if err != nil {
		return nil, refuse(CodeForbidden, "%v", err)
	}
	s := &session{member: member, identity: id, in: in}
	switch {
	case id.Fingerprint != in.Fingerprint || id.Node != in.Node:
		return nil, refuse(CodeForbidden, "the identity is of %s (%s), the session of %.100q (%.100q)", id.Node, id.Fingerprint, in.Node, in.Fingerprint)
	case id.Fingerprint == own.Fingerprint:
		return nil, refuse(CodeForbidden, "a node does not merge with itself")
	case member.Cutoff != nil:
		return nil, refuse(CodeForbidden, "%s is cut off: it is trusted for what it issued before, and for nothing new", id.Fingerprint)
	}
	statement, err := in.statement(own.Node)
	if err != nil {
		return nil, refuse(CodeBadRequest, "%v", err)
	}
	if err := verifyBy(member.Key, sessionType, statement, in.Signature); err != nil {
		return nil, refuse(CodeForbidden, "session: %v", err)
	}
	if state, ok := v.store.Peer(member.Key.Fingerprint()); ok {
		if state.Stopped != "" {
			return nil, refuse(CodeForbidden, "nothing is exchanged with %s: %s", id.Node, state.Stopped)
		}
		if state.Identity != nil && !state.Identity.same(id) {
			return nil, refuse(CodeForbidden, "the keys of %s are not those that were pinned: its operator must tell ours, who then types: remembrancer federation join --peer URL --trust-anchor FILE", id.Node)
		}
		s.lastSeen = state.LastSeen
	}
	if s.set, err = openSetNote(id, in.Set); err != nil {
		return nil, refuse(CodeBadRequest, "%v", err)
	}
	if s.set.Trust != trust.Hash() {
		return nil, refuse(CodeTrustMismatch, "this node has the trust state %s, the caller %s", trust.Hash(), s.set.Trust)
	}
	if s.log, err = openCheckpoint(id.Log, in.Checkpoint); err != nil {
		return nil, refuse(CodeBadRequest, "%v", err)
	}
	if s.time, err = time.Parse(time.RFC3339, in.Time); err != nil || s.time.UTC().Format(time.RFC3339) != in.Time {
		return nil, refuse(CodeBadRequest, "time %.100q: want RFC 3339 in UTC with whole seconds", in.Time)
	}
	s.time = s.time.UTC()
	// We could not verify the signature of an operator whom we do not know.
	operator, ok := trust.Lookup(openpgp.Fingerprint(in.Operator))
	if !ok || operator.Cutoff != nil {
		return nil, refuse(CodeForbidden, "operator %.100q is not in the trust state", in.Operator)
	}
	s.operator = operator.Key.Fingerprint()
	return s, nil
}

// greet pins a peer that is admitted for the first time, compares the checkpoint it
// states with those it showed before, and tells what the merge will build on.
func (v *Service) greet(ctx context.Context, s *session) (SessionOut, error) {
	var out SessionOut
	if len(s.lastSeen) > 0 {
		seen, err := openCheckpoint(s.identity.Log, string(s.lastSeen))
		if err != nil {
			return out, broken(err)
		}
		switch {
		case s.log.Size < seen.Size:
			// It may have come late: another sync of the same peer was quicker.
			return out, refuse(CodeStaleRoot, "the log had %d entries when it was last seen, now it is to have %d: say hello again", seen.Size, s.log.Size)
		case s.log.Size == seen.Size && s.log.Root != seen.Root:
			return out, v.forked(ctx, s, Fork, nil)
		}
	}
	state, err := v.store.amendPeer(s.member.Key.Fingerprint(), func(p *PeerState) {
		id := s.identity
		p.Node, p.Identity = id.Node, &id
	})
	if err != nil {
		return out, broken(err)
	}
	s.previous = state.LastMerge
	if last, err := v.store.lastMerge(state); err != nil {
		return out, broken(err)
	} else if last != nil {
		out.Previous = string(last)
	}
	if s.in.Checkpoint != "" {
		_, err := v.store.Witness(0, nil, []byte(s.in.Checkpoint))
		var conflict *ErrWitnessConflict
		switch {
		case err == nil:
			s.witness = s.log.Size
		case errors.As(err, &conflict):
			s.witness = conflict.Size
		default:
			return out, broken(err)
		}
	}
	out.Witnessed = s.witness
	return out, nil
}

// forked records that a peer has shown two histories, and refuses it.
func (v *Service) forked(ctx context.Context, s *session, kind string, proof []checkpoint.Hash) error {
	if _, err := v.store.stop(ctx, s.member.Key.Fingerprint(), kind, s.lastSeen, []byte(s.in.Checkpoint), proof); err != nil {
		return broken(err)
	}
	return refuse(CodeForbidden, "the checkpoint of %d entries contradicts one that this log signed before (%s): an incident is recorded", s.log.Size, kind)
}

// enter finds a session and keeps it for one call. The caller calls leave.
func (v *Service) enter(name string) (s *session, leave func(), err error) {
	v.mu.Lock()
	now := v.o.Now()
	v.expire(now)
	s, ok := v.sessions[name]
	if ok {
		s.last = now
	}
	v.mu.Unlock()
	if !ok {
		return nil, nil, refuse(CodeUnknownSession, "the session is unknown or expired: say hello again")
	}
	if !s.mu.TryLock() {
		return nil, nil, refuse(CodeBusy, "another call of this session is under way")
	}
	if s.set.Trust != v.store.Trust().Hash() {
		s.mu.Unlock()
		v.end(name)
		return nil, nil, refuse(CodeTrustMismatch, "the trust state of this node has changed: say hello again")
	}
	return s, s.mu.Unlock, nil
}

func (v *Service) end(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.sessions, name)
}

// Push takes receipts that this node lacks.
func (v *Service) Push(ctx context.Context, in PushIn) (PushOut, error) {
	began := v.o.Now()
	s, leave, err := v.enter(in.Session)
	if err != nil {
		return PushOut{}, err
	}
	defer leave()
	size := 0
	for _, it := range in.Items {
		size += len(it.Line)
	}
	if len(in.Items) > MaxGet || size > MaxPageBytes+receipt.MaxLine {
		return PushOut{}, refuse(CodeTooLarge, "%d items of %d bytes, want at most %d items of %d bytes", len(in.Items), size, MaxGet, MaxPageBytes)
	}
	if err := v.charge(s.member.Key.Fingerprint(), len(in.Items), int64(size)); err != nil {
		return PushOut{}, err
	}
	permitted := v.o.Now().Sub(began)
	got, err := v.store.Add(ctx, s.identity.Node, in.Items)
	if err != nil {
		return PushOut{}, broken(err)
	}
	out := PushOut{Added: got.Added, Known: got.Known, Judged: permitted + got.Judged}
	for _, r := range got.Rejected {
		out.Rejected = append(out.Rejected, RejectedItem{ID: r.ID, Reason: string(r.Reason)})
	}
	if s.rejected += len(got.Rejected); s.rejected > v.o.Rejected {
		v.end(in.Session)
		return PushOut{}, refuse(CodeForbidden, "%d of the receipts in this session were not valid: it is ended", s.rejected)
	}
	return out, nil
}

// charge counts what a peer pushes against its quota.
func (v *Service) charge(f openpgp.Fingerprint, items int, size int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.o.Now()
	q := v.quotas[f]
	if q == nil || now.Sub(q.since) >= v.o.PushWindow {
		// Only members are charged, so there are no more quotas than members.
		q = &quota{since: now}
		v.quotas[f] = q
	}
	if q.items+items > v.o.PushItems || q.bytes+size > v.o.PushBytes {
		return refuse(CodeTooLarge, "%s has pushed %d receipts of %d bytes since %s, the quota is %d of %d bytes in %v",
			f, q.items, q.bytes, q.since.UTC().Format(time.RFC3339), v.o.PushItems, v.o.PushBytes, v.o.PushWindow)
	}
	q.items += items
	q.bytes += size
	return nil
}

// MergeIDs takes the ids that only one of the two sides held.
func (v *Service) MergeIDs(_ context.Context, in MergeIDsIn) (MergeIDsOut, error) {
	s, leave, err := v.enter(in.Session)
	if err != nil {
		return MergeIDsOut{}, err
	}
	defer leave()
	if len(in.OnlyA)+len(in.OnlyB) > MaxIDs {
		return MergeIDsOut{}, refuse(CodeTooLarge, "%d ids, want at most %d", len(in.OnlyA)+len(in.OnlyB), MaxIDs)
	}
	if s.body != nil {
		return MergeIDsOut{}, refuse(CodeBadRequest, "the merge has been proposed: no ids can be added")
	}
	now, err := v.store.Snapshot()
	if err != nil {
		return MergeIDsOut{}, broken(err)
	}
	onlyA, err := parseIDs(in.OnlyA)
	if err != nil {
		return MergeIDsOut{}, err
	}
	onlyB, err := parseIDs(in.OnlyB)
	if err != nil {
		return MergeIDsOut{}, err
	}
	// Each must be in a set that we hold, and they must ascend: so no peer can make
	// us remember more than those sets.
	check := func(list, more []receipt.ID, fits func(receipt.ID) bool, want string) error {
		for i, id := range more {
			last := receipt.ID{}
			switch {
			case i > 0:
				last = more[i-1]
			case len(list) > 0:
				last = list[len(list)-1]
			}
			if i+len(list) > 0 && compareIDs(last, id) >= 0 {
				return refuse(CodeBadRequest, "ids do not ascend at %s", id)
			}
			if !fits(id) {
				return refuse(CodeBadRequest, "id %s: %s", id, want)
			}
		}
		return nil
	}
	if err := check(s.onlyA, onlyA, func(id receipt.ID) bool { return now.Set.Has(id) && !s.before.Set.Has(id) }, "want one that was pushed, and was not here before"); err != nil {
		return MergeIDsOut{}, err
	}
	if err := check(s.onlyB, onlyB, s.before.Set.Has, "want one that was here before"); err != nil {
		return MergeIDsOut{}, err
	}
	s.onlyA, s.onlyB = append(s.onlyA, onlyA...), append(s.onlyB, onlyB...)
	return MergeIDsOut{OnlyA: len(s.onlyA), OnlyB: len(s.onlyB)}, nil
}

// Propose signs a merge, if it is the very one that this node computes.
func (v *Service) Propose(ctx context.Context, in ProposeIn) (ProposeOut, error) {
	s, leave, err := v.enter(in.Session)
	if err != nil {
		return ProposeOut{}, err
	}
	defer leave()
	if s.body != nil {
		return ProposeOut{}, refuse(CodeBadRequest, "a merge has been proposed in this session already")
	}
	ids, body, err := v.compute(s)
	if err != nil {
		return ProposeOut{}, err
	}
	want, err := body.Bytes()
	if err != nil {
		return ProposeOut{}, refuse(CodeBadRequest, "%v", err)
	}
	if string(want) != in.Body {
		return ProposeOut{}, refuse(CodeBadRequest, "this node computes another merge: %s", firstDifference([]byte(in.Body), want))
	}
	if err := v.extends(ctx, s, in.Proof); err != nil {
		return ProposeOut{}, err
	}
	sig, err := v.store.SignMerge(ctx, merge.PAE(want))
	if err != nil {
		return ProposeOut{}, broken(err)
	}
	s.body, s.bytes, s.sigB, s.sidecar = body, want, sig, ids
	return ProposeOut{Root: body.Merged.String(), Signature: base64.StdEncoding.EncodeToString(sig)}, nil
}

// compute makes the whole merge from what this node knows: its own set before, the
// ids that only one side held, and what A signed of itself when the session began.
// That those ids make A's set is not believed: they must hash to its root.
func (v *Service) compute(s *session) (sidecar []byte, _ *merge.Body, err error) {
	onlyB := make(map[receipt.ID]bool, len(s.onlyB))
	for _, id := range s.onlyB {
		onlyB[id] = true
	}
	ids := &merge.Sidecar{OnlyA: s.onlyA, OnlyB: s.onlyB}
	for id := range s.before.Set.All() {
		if !onlyB[id] {
			ids.Both = append(ids.Both, id)
		}
	}
	if root := set.Root(ids.A()); root != s.set.Root || len(ids.Both)+len(ids.OnlyA) != s.set.Count {
		return nil, nil, refuse(CodeBadRequest, "the ids make a set of %d with root %s, the caller signed %d with root %s",
			len(ids.Both)+len(ids.OnlyA), root, s.set.Count, s.set.Root)
	}
	onlyA := make(map[receipt.ID]bool, len(s.onlyA))
	for _, id := range s.onlyA {
		onlyA[id] = true
	}
	ids.Conflicts = conflictsWithin(v.store.Conflicts(), func(id receipt.ID) bool { return onlyA[id] || s.before.Set.Has(id) })
	if state, _ := v.store.Peer(s.member.Key.Fingerprint()); state.LastMerge != s.previous {
		return nil, nil, refuse(CodeStaleRoot, "%v: say hello again", errOvertaken)
	}
	own := v.store.Identity()
	sidecar = ids.Marshal()
	return sidecar, &merge.Body{
		Time:   s.time,
		A:      sideOf(s.identity, s.in.Checkpoint, s.in.Set, s.set.Root, s.set.Count, s.in.Challenge),
		B:      sideOf(own, string(s.before.Checkpoint), string(s.before.SetNote), s.before.Root, s.before.Count, s.in.Nonce),
		Merged: set.Root(ids.Union()), Total: len(ids.Both) + len(ids.OnlyA) + len(ids.OnlyB),
		AddedToA: len(ids.OnlyB), AddedToB: len(ids.OnlyA), Conflicts: len(ids.Conflicts),
		Trust: s.set.Trust, Previous: s.previous, IDs: hashOf(sidecar), Operator: s.operator,
	}, nil
}

// extends verifies that A's checkpoint extends the one that we cosigned, cosigns it,
// and remembers it.
func (v *Service) extends(ctx context.Context, s *session, encoded []string) error {
	if s.in.Checkpoint == "" {
		return nil
	}
	proof, err := decodeHashes(encoded)
	if err != nil {
		return refuse(CodeBadRequest, "proof: %v", err)
	}
	if s.witness > s.log.Size {
		return refuse(CodeStaleRoot, "a checkpoint of %d entries has been cosigned, this one has %d: say hello again", s.witness, s.log.Size)
	}
	_, err = v.store.Witness(s.witness, proof, []byte(s.in.Checkpoint))
	var conflict *ErrWitnessConflict
	switch {
	case errors.As(err, &conflict):
		return refuse(CodeStaleRoot, "a checkpoint of %d entries has been cosigned in between: say hello again", conflict.Size)
	case errors.Is(err, ErrBadProof):
		seen, serr := openCheckpoint(s.identity.Log, string(s.lastSeen))
		if serr == nil && seen.Size == s.witness && len(s.lastSeen) > 0 {
			return v.forked(ctx, s, Inconsistent, proof)
		}
		return refuse(CodeBadRequest, "%v", err)
	case err != nil:
		return broken(err)
	}
	if _, err := v.store.amendPeer(s.member.Key.Fingerprint(), s.identity.saw([]byte(s.in.Checkpoint))); err != nil {
		return broken(err)
	}
	return nil
}

// Commit takes the finished receipt and keeps it.
func (v *Service) Commit(ctx context.Context, in CommitIn) (CommitOut, error) {
	s, leave, err := v.enter(in.Session)
	if err != nil {
		return CommitOut{}, err
	}
	defer leave()
	switch {
	case s.body == nil:
		return CommitOut{}, refuse(CodeBadRequest, "no merge has been proposed in this session")
	case s.file != "" && s.file != in.Receipt:
		return CommitOut{}, refuse(CodeBadRequest, "another receipt has been committed in this session")
	case s.file != "":
		// The answer was lost on the way.
		return s.done, nil
	}
	r, err := v.check(s, []byte(in.Receipt))
	if err != nil {
		return CommitOut{}, err
	}
	file, rec, err := v.store.keepMerge(ctx, s.member.Key.Fingerprint(), r, s.sidecar, true)
	if errors.Is(err, errOvertaken) {
		return CommitOut{}, refuse(CodeStaleRoot, "%v: say hello again", err)
	}
	if err != nil {
		return CommitOut{}, broken(err)
	}
	out := CommitOut{File: file, ID: rec.ID().String()}
	if err := v.exchange(s, in, &out); err != nil {
		return CommitOut{}, err
	}
	s.file, s.done = in.Receipt, out
	return out, nil
}

// check verifies a finished receipt: it is of the body that was signed here, with
// our signature as it was given, and all of it verifies.
func (v *Service) check(s *session, file []byte) (*merge.Receipt, error) {
	r, err := merge.Parse(file)
	if err != nil {
		return nil, refuse(CodeBadRequest, "%v", err)
	}
	if got, err := r.Body.Bytes(); err != nil || !bytes.Equal(got, s.bytes) || !bytes.Equal(r.SigB, s.sigB) {
		return nil, refuse(CodeBadRequest, "the receipt is not the one that this node signed")
	}
	anchors, err := keyring(v.store.Trust())
	if err != nil {
		return nil, broken(err)
	}
	if verdict := merge.Verify(file, s.sidecar, anchors, nil); verdict.Status() != judge.Pass {
		return nil, refuse(CodeBadRequest, "the receipt does not verify:\n%s", verdict)
	}
	return r, nil
}

// exchange does what is left when the receipt is kept: each side cosigns the newest
// checkpoint of the other. The merge does not depend on it.
func (v *Service) exchange(s *session, in CommitIn, out *CommitOut) error {
	head, err := v.store.Head()
	if err != nil {
		return broken(err)
	}
	newest, err := openCheckpoint(v.store.Identity().Log, string(head))
	if err != nil {
		return broken(err)
	}
	out.Checkpoint = string(head)
	if s.before.Size > 0 {
		proof, err := v.store.Consistency(s.before.Size, newest.Size)
		if err != nil {
			return broken(err)
		}
		out.Proof = encodeHashes(proof)
	}
	if in.Cosignature != "" && len(s.before.Checkpoint) > 0 {
		// One that is not A's, or does not verify, is not kept.
		_ = v.store.AddCosignature(slices.Concat(s.before.Checkpoint, []byte(in.Cosignature)))
	}
	// One that does not follow is not cosigned; the next session will ask why.
	if line, ok := v.cosign(s, in); ok {
		out.Cosignature = string(line)
		if _, err := v.store.amendPeer(s.member.Key.Fingerprint(), s.identity.saw([]byte(in.Checkpoint))); err != nil {
			return broken(err)
		}
	}
	return nil
}

// cosign cosigns A's newest checkpoint, if it extends the one in the receipt.
func (v *Service) cosign(s *session, in CommitIn) (line []byte, ok bool) {
	proof, err := decodeHashes(in.Proof)
	if err != nil || in.Checkpoint == "" {
		return nil, false
	}
	line, err = v.store.Witness(s.log.Size, proof, []byte(in.Checkpoint))
	return line, err == nil
}

// firstDifference says in which field two JSON objects differ.
func firstDifference(theirs, ours []byte) string {
	var a, b map[string]any
	if json.Unmarshal(theirs, &a) != nil || json.Unmarshal(ours, &b) != nil {
		return "the body is not a JSON object"
	}
	if key, x, y, ok := differ("", a, b); ok {
		return fmt.Sprintf("%s is %s, here %s", key, show(x), show(y))
	}
	return "the body is not canonical JSON"
}

func show(v any) string {
	data, err := json.Marshal(v)
	if err != nil || v == nil {
		return "missing"
	}
	return fmt.Sprintf("%.100s", data)
}

func differ(path string, a, b map[string]any) (key string, x, y any, ok bool) {
	keys := map[string]bool{}
	for k := range a {
		keys[k] = true
	}
	for k := range b {
		keys[k] = true
	}
	sorted := make([]string, 0, len(keys))
	for k := range keys {
		sorted = append(sorted, k)
	}
	slices.Sort(sorted)
	for _, k := range sorted {
		x, y := a[k], b[k]
		ma, isA := x.(map[string]any)
		mb, isB := y.(map[string]any)
		if isA && isB {
			if key, x, y, ok := differ(path+k+".", ma, mb); ok {
				return key, x, y, true
			}
			continue
		}
		if show(x) != show(y) || fmt.Sprint(x) != fmt.Sprint(y) {
			return path + k, x, y, true
		}
	}
	return "", nil, nil, false
}
