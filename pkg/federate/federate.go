// Package federate lets nodes that do not trust each other agree on what they
// know: it keeps a node's receipts, exchanges them with peers, and makes with each
// peer a receipt of the merge that both sides sign.
//
// # The idea
//
// A node ([Store]) holds receipts as log lines, exactly as they came, in an RFC 6962
// log of its own. Which of them are valid depends on nothing but the line and the
// trust state (package merge), so two nodes with the same trust state and the same
// lines have the same set of valid ids, and the same set root (package set). To merge
// is to exchange what is missing until both sets are their union. Nothing is ever
// removed, no order matters, and no clock decides anything.
//
// A side believes the other nothing that it can compute. What it cannot compute, it
// has signed: a peer that says two things of its log is convicted by its own notes.
//
// # Roles
//
// A syncs ([Sync]), B answers ([Service]). They speak the tools below, each a JSON
// object in and one out (wire.go has every field), over MCP or anything else that
// carries them. Ids, roots, challenges and nonces are 64 lower-case hex digits;
// signatures and RFC 6962 hashes are canonical base64; an OpenPGP signature is one
// binary signature packet over a DSSE v1 pre-authentication encoding. A tool that
// refuses answers "code: message"; see [Code]. stale_root and unknown_session mean:
// begin again with hello, what was exchanged until then stays.
//
//	fed_identity       who B is
//	fed_hello          B's newest checkpoint and set note, and a challenge
//	fed_trust          the members of B's trust state
//	fed_tail           log lines from an index on, and a consistency proof
//	fed_diff           subtrees of the set of a root
//	fed_ids            all ids of the set of a root, in pages
//	fed_get            receipts by their ids
//	fed_session        A shows who it is: from here on B writes
//	fed_push           receipts that B lacks
//	fed_merge_ids      which ids only one of the two held
//	fed_merge_propose  the merge that A computed: B signs it if it computes the same
//	fed_merge_commit   the receipt with all signatures
//
// # Identity
//
// A node's identity is the canonical JSON (RFC 8785) of its name, the fingerprint of
// its OpenPGP key, the verifier keys of its log, of its cosignatures and of its set
// notes, and its URL or "". Its OpenPGP key signs it, with the payload type
// application/vnd.vaultmesh.node-identity+json. The name of the log key is that of
// the node. The other side wants the OpenPGP key in its trust state, without a
// cutoff, and pins the rest on first use: later only the URL may change.
//
// # A sync
//
//  1. hello. A checks both notes under B's keys. The set note is the signed note of
//     "remembrancer/set/v1", the node, the trust state's hash, the number of ids and
//     the root, a line each. If the trust state is another one than A's, A asks for
//     the members, says in what they differ, and stops.
//  2. The checkpoint must extend the newest one that A accepted from B; if it is
//     longer, fed_tail with proof_only gives the proof. A shorter log (rollback),
//     another root at one size (fork), or a longer one that does not extend it
//     (inconsistent) is an [Equivocation]: an incident receipt holds both notes, and
//     B is stopped until its operator and A's have settled it. The notes of a fork
//     convict B before everyone; those of a rollback, and a proof that is withheld,
//     only before whoever trusts the transport between the two, so use TLS.
//  3. If the roots are equal, and the last merge of the two is of this root and trust
//     state, all is done: one call.
//  4. Fetch. If A holds less than half as many ids as B, or took B's log to within
//     4,096 entries before, it takes the rest of the log by fed_tail. Pages are of at
//     most 256 lines and 1 MiB and echo where they begin; each moves on. Then the sets
//     are compared, with fed_diff as [set.Diff] does or, where that is dearer, with
//     fed_ids, in ascending pages of at most 8,192; what is missing comes by fed_get,
//     at most 256 ids and 1 MiB at a time, until all have come. Each line is judged by
//     A's own trust state; invalid ones are quarantined and counted. An id in B's
//     signed set that B does not hand over, or whose receipt is not valid, ends the
//     sync: B has signed a set that it cannot have.
//  5. fed_session. A answers the challenge, signs with it its identity, its checkpoint
//     and set note from before the merge, the date of the merge and who will sign as
//     the operator (payload type application/vnd.vaultmesh.federation-session+json;
//     [SessionIn] says over which bytes). A challenge is answered once, within 15
//     minutes. B verifies all of it, pins A's identity on first use, and compares A's
//     checkpoint with what it knows of A's log. It answers with the last merge of the
//     two as it has it, which A verifies to bear both signatures: what the new one
//     will name as its previous.
//  6. fed_push, at most 256 receipts and 1 MiB at a time; then fed_merge_ids, in
//     ascending order, at most 8,192 at a time.
//  7. fed_merge_propose with the canonical bytes of the merge (package merge). B
//     computes all of it: the ids A names must turn B's set before into one with the
//     root that A signed; union, counts, conflicts, list of ids and chain follow; the
//     rest is what each side signed of itself. It signs only bytes equal to its own.
//     A's checkpoint must extend the one that B cosigned before.
//  8. A signs too, and the operator; A keeps the receipt and records it in its log.
//     Then fed_merge_commit: B verifies the receipt as anyone would, keeps and records
//     it, and makes it the last merge of the two. When A hears of it, so does A. If
//     the answer is lost, the next session tells.
//  9. With the commit, each side cosigns (c2sp.org/tlog-cosignature) the other's
//     newest checkpoint: B that of A's log with the receipt in it, A the one in the
//     receipt and, for itself, B's newest.
//
// A crash or a cut at any point leaves both logs whole, every receipt that was taken
// in place, and no half of a merge receipt: it is kept with all signatures, or not.
//
// # Files
//
//	receipts/federation/<UTC date>-<a>-<b>.receipt      the merge receipt
//	receipts/federation/<UTC date>-<a>-<b>.receipt.ids  its list of ids
//
// with -2, -3, … after the names for further merges of a day, and the nodes' names
// written with letters, digits, _, - and dots. The log holds a receipt of kind
// federation-merge of the same name for each, whose subjects are the two files and
// whose predicate is {"merge": <the receipt>}, or {"merge_sha256": <its hash>} if it
// does not fit.
//
// # What is refused
//
// Every answer is checked for being about what was asked, every page for moving on,
// and every call has a deadline; a sync has a budget of calls, bytes and receipts. B
// bounds challenges, sessions and what each peer may push in an hour, and ends the
// session of a peer that pushes many invalid receipts.
package federate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// The DSSE payload types of what the protocol signs besides merges.
const (
	identityType = "application/vnd.vaultmesh.node-identity+json"
	sessionType  = "application/vnd.vaultmesh.federation-session+json"
)

// mergeFolder holds the merge receipts, below the data directory.
const mergeFolder = "receipts/federation/"

// noClock is later than any time that an OpenPGP signature can claim: no clock
// decides whether two nodes understand each other.
var noClock = time.Unix(1<<32, 0)

// pae returns the DSSE v1 pre-authentication encoding of a payload.
func pae(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

// verifyBy verifies a signature of one key.
func verifyBy(key *openpgp.Key, payloadType string, payload []byte, signature string) error {
	sig, err := base64.StdEncoding.Strict().DecodeString(signature)
	if err != nil || base64.StdEncoding.EncodeToString(sig) != signature {
		return errors.New("signature is not in canonical base64")
	}
	ring, err := openpgp.NewKeyring(key)
	if err != nil {
		return err
	}
	_, err = openpgp.Verify(ring, key.Fingerprint(), pae(payloadType, payload), sig, openpgp.VerifyOptions{Now: noClock})
	return err
}

// keyring returns the keys of a trust state.
func keyring(t *merge.Trust) (*openpgp.Keyring, error) {
	var keys []*openpgp.Key
	for _, m := range t.Members() {
		keys = append(keys, m.Key)
	}
	return openpgp.NewKeyring(keys...)
}

// same reports whether two identities are of one node with the same keys. Where it
// is reached may change.
func (i Identity) same(j Identity) bool {
	i.Endpoint, j.Endpoint = "", ""
	return i == j
}

// saw is the change to a peer's state when a checkpoint of its log was accepted. It
// never goes back.
func (i Identity) saw(note []byte) func(*PeerState) {
	return func(p *PeerState) {
		now, err := openCheckpoint(i.Log, string(note))
		was, lost := openCheckpoint(i.Log, string(p.LastSeen))
		if err == nil && len(note) > 0 && (lost != nil || now.Size > was.Size || len(p.LastSeen) == 0) {
			p.LastSeen = slices.Clone(note)
		}
	}
}

// signIdentity says who this node is.
func (s *Store) signIdentity(ctx context.Context) (IdentityOut, error) {
	text, err := receipt.Canonical(s.Identity())
	if err != nil {
		return IdentityOut{}, err
	}
	sig, err := s.SignMerge(ctx, pae(identityType, text))
	if err != nil {
		return IdentityOut{}, err
	}
	return IdentityOut{Identity: string(text), Signature: base64.StdEncoding.EncodeToString(sig)}, nil
}

// openIdentity verifies who a node is: a member of the trust state says so.
func openIdentity(out IdentityOut, trust *merge.Trust) (Identity, merge.Member, error) {
	id, err := parseIdentity(out.Identity)
	if err != nil {
		return Identity{}, merge.Member{}, fmt.Errorf("identity: %w", err)
	}
	m, ok := trust.Lookup(openpgp.Fingerprint(id.Fingerprint))
	if !ok {
		return Identity{}, merge.Member{}, fmt.Errorf("identity: %s (%.100q) is not in the trust state: remembrancer federation join --peer URL --trust-anchor FILE", id.Node, id.Fingerprint)
	}
	if err := verifyBy(m.Key, identityType, []byte(out.Identity), out.Signature); err != nil {
		return Identity{}, merge.Member{}, fmt.Errorf("identity: %w", err)
	}
	return id, m, nil
}

// parseIdentity reads an identity. What it accepts encodes back to the same bytes.
func parseIdentity(text string) (Identity, error) {
	if len(text) > 8<<10 {
		return Identity{}, fmt.Errorf("found %d bytes, want at most 8192", len(text))
	}
	var id Identity
	if err := json.Unmarshal([]byte(text), &id); err != nil {
		return Identity{}, err
	}
	if canon, err := receipt.Canonical(id); err != nil || string(canon) != text {
		return Identity{}, errors.New("want the canonical JSON (RFC 8785) of node, fingerprint, log, witness, set and endpoint")
	}
	if err := checkpoint.CheckOrigin(id.Node); err != nil {
		return Identity{}, fmt.Errorf("node: %w", err)
	}
	if err := checkpoint.CheckNoteKey(id.Set); err != nil {
		return Identity{}, fmt.Errorf("set: %w", err)
	}
	for _, key := range []string{id.Log, id.Witness} {
		if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return Identity{}, fmt.Errorf("key %.200q: want a verifier key", key)
		}
	}
	policy, err := checkpoint.ParsePolicy([]byte("log " + id.Log + "\nwitness w " + id.Witness + "\nquorum none\n"))
	if err != nil {
		return Identity{}, err
	}
	if got := policy.Origins(); !slices.Equal(got, []string{id.Node}) {
		return Identity{}, fmt.Errorf("the log key is of %q, the node is %s", got, id.Node)
	}
	if strings.ContainsFunc(id.Endpoint, func(r rune) bool { return r <= ' ' || r > '~' }) || len(id.Endpoint) > 2048 {
		return Identity{}, fmt.Errorf("endpoint %.100q: want a URL of printable ASCII, or nothing", id.Endpoint)
	}
	return id, nil
}

// statement returns the bytes that a session's signature covers.
func (in SessionIn) statement(audience string) ([]byte, error) {
	in.Signature = ""
	return receipt.Canonical(struct {
		Audience string `json:"audience"`
		SessionIn
	}{audience, in})
}

// openCheckpoint verifies a checkpoint. The empty note is of an empty log: the zero
// value.
func openCheckpoint(vkey, note string) (checkpoint.Body, error) {
	if note == "" {
		return checkpoint.Body{}, nil
	}
	policy, err := checkpoint.ParsePolicy(checkpoint.NewPolicy(vkey))
	if err != nil {
		return checkpoint.Body{}, err
	}
	v, err := policy.Open([]byte(note))
	if err != nil {
		return checkpoint.Body{}, err
	}
	return v.Body(), nil
}

// openSetNote verifies what a node signed of its set.
func openSetNote(id Identity, note string) (merge.SetNote, error) {
	text, err := checkpoint.OpenNote(id.Set, []byte(note))
	if err != nil {
		return merge.SetNote{}, err
	}
	n, err := merge.ParseSetNote(text)
	if err != nil {
		return merge.SetNote{}, err
	}
	if n.Node != id.Node {
		return merge.SetNote{}, fmt.Errorf("set note is of %s, want %s", n.Node, id.Node)
	}
	return n, nil
}

func encodeHashes(hashes []checkpoint.Hash) []string {
	var list []string
	for _, h := range hashes {
		list = append(list, base64.StdEncoding.EncodeToString(h[:]))
	}
	return list
}

func decodeHashes(list []string) ([]checkpoint.Hash, error) {
	if len(list) > 63 {
		return nil, fmt.Errorf("%d hashes, want at most 63", len(list))
	}
	var hashes []checkpoint.Hash
	for _, s := range list {
		b, err := base64.StdEncoding.Strict().DecodeString(s)
		// Even the strict decoder skips line ends, so compare.
		if err != nil || len(b) != sha256.Size || base64.StdEncoding.EncodeToString(b) != s {
			return nil, fmt.Errorf("hash %.60q: want the base64 of 32 bytes", s)
		}
		hashes = append(hashes, checkpoint.Hash(b))
	}
	return hashes, nil
}

// sideOf is what a merge receipt says of one node. Nonce is the other's challenge.
func sideOf(id Identity, cp, setNote string, root set.Hash, count int, nonce string) merge.Side {
	return merge.Side{
		Node: id.Node, Endpoint: id.Endpoint, Fingerprint: openpgp.Fingerprint(id.Fingerprint), Log: id.Log, Checkpoint: cp,
		Set: id.Set, SetNote: setNote, RootBefore: root, Count: count, Nonce: nonce,
	}
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func compareIDs(a, b receipt.ID) int { return slices.Compare(a[:], b[:]) }

// conflictsWithin returns what is left of conflicts among the ids of one union.
func conflictsWithin(all []merge.Conflict, in func(receipt.ID) bool) []merge.Conflict {
	var list []merge.Conflict
	for _, c := range all {
		var ids []receipt.ID
		for _, id := range c.IDs {
			if in(id) {
				ids = append(ids, id)
			}
		}
		if len(ids) > 1 {
			slices.SortFunc(ids, compareIDs)
			list = append(list, merge.Conflict{File: c.File, IDs: ids})
		}
	}
	slices.SortFunc(list, func(a, b merge.Conflict) int { return cmp.Compare(a.File, b.File) })
	return list
}

// compareSets compares two sets that differ in much.
func compareSets(was, is *set.Set) (come, gone []receipt.ID) {
	for id := range is.All() {
		if !was.Has(id) {
			come = append(come, id)
		}
	}
	for id := range was.All() {
		if !is.Has(id) {
			gone = append(gone, id)
		}
	}
	return come, gone
}

// mergeName is how the file of a merge receipt begins: <UTC date>-<a>-<b>.
func mergeName(b merge.Body) string {
	return b.Time.UTC().Format(time.DateOnly) + "-" + slug(b.A.Node) + "-" + slug(b.B.Node)
}

// slug makes a node's name fit to be part of a file's name.
func slug(node string) string {
	var b strings.Builder
	for _, r := range node {
		switch {
		case r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_':
			b.WriteRune(r)
		case r == '.' && b.Len() > 0 && !strings.HasSuffix(b.String(), ".") && !strings.HasSuffix(b.String(), "-"):
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-") && !strings.HasSuffix(b.String(), "."):
			b.WriteByte('-')
		}
		if b.Len() == 50 {
			break
		}
	}
	if s := strings.Trim(b.String(), "-."); s != "" {
		return s
	}
	return "node"
}

// maxSameDay is how many merges of two nodes a day can have.
const maxSameDay = 9999

// placeMerge finds the file of a merge receipt, or the first free name for it.
func (s *Store) placeMerge(r *merge.Receipt, file []byte) (name string, found bool, err error) {
	base := mergeName(r.Body)
	for n := 1; n <= maxSameDay; n++ {
		name = base
		if n > 1 {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		if err := receipt.CheckName(name); err != nil {
			return "", false, err
		}
		switch got, err := s.files.Get(mergeFolder + name + ".receipt"); {
		case errors.Is(err, fs.ErrNotExist):
			return name, false, nil
		case err != nil:
			return "", false, err
		case string(got) == string(file):
			return name, true, nil
		}
	}
	return "", false, fmt.Errorf("%s%s.receipt: there are %d merges of this day already", mergeFolder, base, maxSameDay)
}

// keptMerge returns the path and the list of ids of a merge receipt, if it is kept.
func (s *Store) keptMerge(r *merge.Receipt) (path string, ids []byte, ok bool, err error) {
	file, err := r.Marshal()
	if err != nil {
		return "", nil, false, err
	}
	name, found, err := s.placeMerge(r, file)
	if err != nil || !found {
		return "", nil, false, err
	}
	path = mergeFolder + name + ".receipt"
	ids, err = s.files.Get(path + ".ids")
	return path, ids, err == nil, err
}

// lastMerge reads the file of the last merge with a peer, nil before the first.
func (s *Store) lastMerge(p PeerState) ([]byte, error) {
	if p.LastMerge == "" {
		return nil, nil
	}
	file, err := s.files.Get(p.LastMergeFile)
	if err != nil {
		return nil, fmt.Errorf("last merge with %s: %w: put it back, the peer has a copy", p.Node, err)
	}
	return file, nil
}

// quorum counts the members that have cosigned our newest checkpoint.
func (s *Store) quorum() (int, error) {
	head, err := s.Head()
	if err != nil {
		return 0, err
	}
	own := s.Identity()
	cosigned := s.Cosigned()
	newest, err := openCheckpoint(own.Log, string(head))
	if err != nil {
		return 0, err
	}
	if was, err := openCheckpoint(own.Log, string(cosigned)); err != nil || len(cosigned) == 0 || was != newest {
		return 0, err
	}
	trust := s.Trust()
	policy := "log " + own.Log + "\n"
	taken := map[string]bool{checkpoint.PublicKey(own.Log): true}
	for _, p := range s.Peers() {
		m, ok := trust.Lookup(openpgp.Fingerprint(p.Fingerprint))
		// Who claims the key of another is not another witness.
		if !ok || m.Cutoff != nil || p.Identity == nil || taken[checkpoint.PublicKey(p.Identity.Witness)] {
			continue
		}
		taken[checkpoint.PublicKey(p.Identity.Witness)] = true
		policy += "witness " + p.Fingerprint + " " + p.Identity.Witness + "\n"
	}
	open, err := checkpoint.ParsePolicy([]byte(policy + "quorum none\n"))
	if err != nil {
		return 0, err
	}
	v, err := open.Open(cosigned)
	if err != nil {
		return 0, err
	}
	return len(v.Witnesses()), nil
}

// keepMerge writes a merge receipt and its list of ids, and records it in the log.
// Final makes it the last merge with the peer: then it must follow the one before.
//
// The order is list, receipt, log, peer. A crash in between leaves files that
// nothing speaks of, or a record of a merge that is then not the last one; the next
// sync finds out from the peer, and finishes it or makes another.
func (s *Store) keepMerge(ctx context.Context, peer openpgp.Fingerprint, r *merge.Receipt, ids []byte, final bool) (path string, rec *receipt.Receipt, err error) {
	file, err := r.Marshal()
	if err != nil {
		return "", nil, err
	}
	digest, err := r.Body.Digest()
	if err != nil {
		return "", nil, err
	}
	s.merging.Lock()
	defer s.merging.Unlock()
	if p, _ := s.Peer(peer); final && p.LastMerge != r.Body.Previous {
		return "", nil, errOvertaken
	}
	name, found, err := s.placeMerge(r, file)
	if err != nil {
		return "", nil, err
	}
	path = mergeFolder + name + ".receipt"
	if !found {
		if err := s.files.Put(path+".ids", ids); err != nil {
			return "", nil, err
		}
		if err := s.files.Put(path, file); err != nil {
			return "", nil, err
		}
	}
	predicate := map[string]any{"merge": json.RawMessage(file)}
	if len(file) > receipt.MaxStatement-4096 {
		predicate = map[string]any{"merge_sha256": hashOf(file)}
	}
	rec, err = s.Record(ctx, receipt.FederationMerge, name, []receipt.Subject{
		{Name: name + ".receipt", SHA256: hashOf(file)},
		{Name: name + ".receipt.ids", SHA256: hashOf(ids)},
	}, predicate)
	if err != nil {
		return "", nil, err
	}
	if final {
		_, err = s.amend(peer, func(p *PeerState) { p.LastMerge, p.LastMergeFile = digest, path })
	}
	return path, rec, err
}

// stop records an incident, which stops a peer.
func (s *Store) stop(ctx context.Context, peer openpgp.Fingerprint, kind string, first, second []byte, proof []checkpoint.Hash) (*receipt.Receipt, error) {
	s.merging.Lock()
	defer s.merging.Unlock()
	return s.Incident(ctx, peer, kind, first, second, proof)
}

// Resume lets a stopped peer in again, after its operator and ours have settled what
// happened. What was pinned and seen of it is forgotten, but for the last merge: it
// is met as for the first time. The incident stays in the log, and a log that has
// forked is not cosigned again: its node comes back with a new log key.
func (s *Store) Resume(peer openpgp.Fingerprint) error {
	_, err := s.amendPeer(peer, func(p *PeerState) {
		p.Stopped, p.Identity, p.LastSeen, p.TailSize = "", nil, nil, 0
	})
	return err
}

// amendPeer changes what is remembered of a peer.
func (s *Store) amendPeer(peer openpgp.Fingerprint, change func(*PeerState)) (PeerState, error) {
	s.merging.Lock()
	defer s.merging.Unlock()
	return s.amend(peer, change)
}

// amend is amendPeer under the lock.
func (s *Store) amend(peer openpgp.Fingerprint, change func(*PeerState)) (PeerState, error) {
	p, _ := s.Peer(peer)
	p.Fingerprint = string(peer)
	change(&p)
	return p, s.PutPeer(p)
}
