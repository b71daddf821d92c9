package federate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// PeerState is what a node remembers of a peer. What is pinned in it is believed
// against whatever the peer says later.
type PeerState struct {
	Node          string    `json:"node"`
	Fingerprint   string    `json:"fingerprint"` // of the peer's OpenPGP key; names the state
	URL           string    `json:"url"`
	Identity      *Identity `json:"identity,omitempty"`        // pinned
	LastSeen      []byte    `json:"last_seen,omitempty"`       // newest checkpoint note accepted
	LastMerge     string    `json:"last_merge,omitempty"`      // SHA-256 of the previous merge's signed bytes, hex
	LastMergeFile string    `json:"last_merge_file,omitempty"` // its file, below the data directory
	TailSize      int64     `json:"tail_size"`                 // entries of its log already taken
	Stopped       string    `json:"stopped,omitempty"`         // why nothing is exchanged with it
}

// clone returns a copy that shares nothing.
func (p PeerState) clone() PeerState {
	if p.Identity != nil {
		id := *p.Identity
		p.Identity = &id
	}
	p.LastSeen = bytes.Clone(p.LastSeen)
	return p
}

const peersIndex = "peers.json"

// peers are the files of the folder peers, and what they say. The fingerprints
// are listed in peers.json, written before the first file of each.
type peers struct {
	mu   sync.RWMutex
	list []string
	all  map[openpgp.Fingerprint]PeerState
}

func peerPath(f string) string { return "peers/" + f + ".json" }

func (p *peers) load(files *durable.Dir) error {
	p.all = map[openpgp.Fingerprint]PeerState{}
	data, err := files.Get(peersIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := decode(data, &p.list); err != nil {
		return fmt.Errorf("%s: %w", peersIndex, err)
	}
	for _, name := range p.list {
		f, err := openpgp.ParseFingerprint(name)
		if err != nil || string(f) != name {
			return fmt.Errorf("%s: %q: want a fingerprint in upper-case hex", peersIndex, name)
		}
		data, err := files.Get(peerPath(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a crash before the file itself
		}
		if err != nil {
			return err
		}
		var state PeerState
		if err := decode(data, &state); err != nil {
			return fmt.Errorf("%s: %w", peerPath(name), err)
		}
		if state.Fingerprint != name {
			return fmt.Errorf("%s is the state of %q", peerPath(name), state.Fingerprint)
		}
		p.all[f] = state
	}
	return nil
}

// Peers returns what is remembered of all peers, in order of their fingerprints.
func (s *Store) Peers() []PeerState {
	s.peers.mu.RLock()
	defer s.peers.mu.RUnlock()
	var all []PeerState
	for _, f := range slices.Sorted(maps.Keys(s.peers.all)) {
		all = append(all, s.peers.all[f].clone())
	}
	return all
}

// Peer returns what is remembered of a peer.
func (s *Store) Peer(f openpgp.Fingerprint) (PeerState, bool) {
	s.peers.mu.RLock()
	defer s.peers.mu.RUnlock()
	p, ok := s.peers.all[f]
	return p.clone(), ok
}

// PutPeer remembers a peer. After an error the next start finds the old state or
// the new one.
func (s *Store) PutPeer(p PeerState) error {
	f, err := openpgp.ParseFingerprint(p.Fingerprint)
	if err != nil || string(f) != p.Fingerprint {
		return fmt.Errorf("peer %q: fingerprint %q: want upper-case hex digits", p.Node, p.Fingerprint)
	}
	data, err := encode(p)
	if err != nil {
		return err
	}
	s.peers.mu.Lock()
	defer s.peers.mu.Unlock()
	if !slices.Contains(s.peers.list, p.Fingerprint) {
		list := append(slices.Clone(s.peers.list), p.Fingerprint)
		slices.Sort(list)
		index, err := encode(list)
		if err != nil {
			return err
		}
		if err := s.files.Put(peersIndex, index); err != nil {
			return err
		}
		s.peers.list = list
	}
	if err := s.files.Put(peerPath(p.Fingerprint), data); err != nil {
		return err
	}
	s.peers.all[f] = p.clone()
	return nil
}

// Incident records that a peer has shown two histories, as a receipt of kind
// incident that holds both signed notes and what was to prove the one from the
// other, and stops the peer. Kind says in a word how they contradict each other:
// rollback, fork or inconsistent.
//
// The receipt comes first: if there is a crash before the peer is stopped, the next
// sync with it finds the same again. If the receipt cannot be made, the peer is
// stopped all the same, and the error says so.
func (s *Store) Incident(ctx context.Context, peer openpgp.Fingerprint, kind string, first, second []byte, proof []checkpoint.Hash) (*receipt.Receipt, error) {
	p, ok := s.Peer(peer)
	if !ok {
		p.Fingerprint = string(peer)
	}
	notes := [2][]byte{first, second}
	var subjects []receipt.Subject
	for i, name := range []string{"first.checkpoint", "second.checkpoint"} {
		if p.Identity != nil {
			notes[i] = essence(p.Identity.Log, notes[i])
		}
		subjects = append(subjects, receipt.Subject{Name: name, SHA256: hashOf(notes[i])})
	}
	hashes := encodeHashes(proof)
	if hashes == nil {
		hashes = []string{}
	}
	log := ""
	if p.Identity != nil {
		log = p.Identity.Log
	}
	r, err := s.Record(ctx, receipt.Incident, "", subjects, map[string]any{
		"incident": "equivocation", "equivocation": kind,
		"peer": string(peer), "node": p.Node, "log": log,
		"first": string(notes[0]), "second": string(notes[1]), "proof": hashes,
	})
	why := fmt.Sprintf("equivocation: %s", kind)
	if err == nil {
		why += ", see incident " + r.ID().String()
	} else {
		err = fmt.Errorf("incident: %w", err)
	}
	// The reason of the first stop stays.
	if p.Stopped == "" {
		p.Stopped = why
		err = errors.Join(err, s.PutPeer(p))
	}
	return r, err
}

// essence leaves of a checkpoint its text and the signature of its log, so that a
// peer cannot make its evidence too large to be recorded. A note that its log has
// not signed stays as it is.
func essence(vkey string, note []byte) []byte {
	policy, err := checkpoint.ParsePolicy(checkpoint.NewPolicy(vkey))
	if err != nil {
		return note
	}
	text, lines := cutNote(note)
	for _, line := range lines {
		one := append(bytes.Clone(text), line...)
		if _, err := policy.Open(one); err == nil {
			return one
		}
	}
	return note
}

// cutNote cuts a note into its text, with the empty line after it, and the lines
// of its signatures.
func cutNote(note []byte) (text []byte, signatures [][]byte) {
	i := bytes.LastIndex(note, []byte("\n\n"))
	if i < 0 {
		return note, nil
	}
	for line := range bytes.Lines(note[i+2:]) {
		signatures = append(signatures, line)
	}
	return note[: i+2 : i+2], signatures
}
