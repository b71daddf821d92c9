package federate

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
)

// Errors of [Store.Witness], with the HTTP status that c2sp.org/tlog-witness gives
// each.
var (
	ErrBadRequest  = errors.New("bad request")        // 400
	ErrNoSignature = errors.New("no known signature") // 403
	ErrUnknownLog  = errors.New("unknown log")        // 404
	ErrBadProof    = errors.New("bad proof")          // 422
)

// ErrWitnessConflict is the error of [Store.Witness] for HTTP 409: the old size is
// not that of the newest checkpoint that was cosigned, or that one has another
// root.
type ErrWitnessConflict struct {
	Size int64 // of the newest checkpoint that was cosigned, 0 if there is none
}

// Error says which size is known.
func (e *ErrWitnessConflict) Error() string {
	return fmt.Sprintf("the newest checkpoint cosigned has size %d", e.Size)
}

// maxProof is the most lines of a consistency proof.
const maxProof = 63

// witnessed is a file of the folder witness: what has been cosigned for a log.
type witnessed struct {
	Log        string `json:"log"` // vkey
	Checkpoint string `json:"checkpoint"`
}

func witnessPathOf(vkey string) string {
	return fmt.Sprintf("witness/%x.json", sha256.Sum256([]byte(vkey)))
}

// Witness cosigns a checkpoint of a peer's log, as c2sp.org/tlog-witness has it:
// old is the size that the caller takes for the newest one cosigned, and the proof
// leads from there to the note. It returns the line of the cosignature. Logs are
// known by the pinned identities of peers that are not stopped.
//
// The checkpoint is on disk before its cosignature is made. A crash in between
// costs the caller one more request: it hears of the new size, and has the same
// checkpoint cosigned from there.
func (s *Store) Witness(old int64, proof []checkpoint.Hash, note []byte) (line []byte, err error) {
	claimed, err := bodyOf(note)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrBadRequest, err)
	case len(proof) > maxProof:
		return nil, fmt.Errorf("%w: %d lines of proof, want at most %d", ErrBadRequest, len(proof), maxProof)
	case old < 0:
		return nil, fmt.Errorf("%w: old size %d", ErrBadRequest, old)
	}
	v, err := s.openPeers(claimed.Origin, note)
	if err != nil {
		return nil, err
	}
	body := v.Body()
	if old > body.Size {
		return nil, fmt.Errorf("%w: old size %d is above the checkpoint's %d", ErrBadRequest, old, body.Size)
	}
	s.cosigning.Lock()
	defer s.cosigning.Unlock()
	known, err := s.witnessed(v.LogKey(), body.Origin)
	if err != nil {
		return nil, err
	}
	if old != known.Size || old == body.Size && old > 0 && body.Root != known.Root {
		return nil, &ErrWitnessConflict{Size: known.Size}
	}
	if err := checkpoint.CheckConsistency(known, body, proof); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadProof, err)
	}
	data, err := encode(witnessed{Log: v.LogKey(), Checkpoint: string(essence(v.LogKey(), note))})
	if err != nil {
		return nil, err
	}
	if err := s.files.Put(witnessPathOf(v.LogKey()), data); err != nil {
		return nil, err
	}
	return bytes.TrimPrefix(s.witness.Cosign(v, s.now()), v.Note()), nil
}

// openPeers verifies a checkpoint under the keys of the peers whose log has this
// origin.
func (s *Store) openPeers(origin string, note []byte) (checkpoint.Verified, error) {
	none := fmt.Errorf("%w: %s is the log of no peer", ErrUnknownLog, origin)
	for _, p := range s.Peers() {
		if p.Identity == nil || p.Identity.Node != origin {
			continue
		}
		if p.Stopped != "" {
			none = fmt.Errorf("%w: the peer %s is stopped (%s)", ErrUnknownLog, origin, p.Stopped)
			continue
		}
		policy, err := checkpoint.ParsePolicy(checkpoint.NewPolicy(p.Identity.Log))
		if err != nil {
			return checkpoint.Verified{}, err
		}
		v, err := policy.Open(note)
		if err == nil {
			return v, nil
		}
		none = fmt.Errorf("%w: %w", ErrNoSignature, err)
	}
	return checkpoint.Verified{}, none
}

// witnessed reads what has been cosigned for a log: the empty log if nothing.
func (s *Store) witnessed(vkey, origin string) (checkpoint.Body, error) {
	path := witnessPathOf(vkey)
	data, err := s.files.Get(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ledger.Empty(origin), nil
	}
	if err != nil {
		return checkpoint.Body{}, err
	}
	var w witnessed
	if err := decode(data, &w); err != nil {
		return checkpoint.Body{}, fmt.Errorf("%s: %w", path, err)
	}
	if w.Log != vkey {
		return checkpoint.Body{}, fmt.Errorf("%s is of the log %s", path, w.Log)
	}
	body, err := openCheckpoint(vkey, w.Checkpoint)
	if err != nil {
		return checkpoint.Body{}, fmt.Errorf("%s: %w", path, err)
	}
	return body, nil
}

// cosignedPath is the file of the newest own checkpoint with cosignatures.
const cosignedPath = "cosigned"

// AddCosignature takes in a checkpoint of our own log with cosignatures of peers,
// or the checkpoint and the line that [Store.Witness] returned. What does not
// verify is left out, and it is an error if nothing remains, or if the checkpoint
// is not one of our log. One that is older than what is there changes nothing.
func (s *Store) AddCosignature(note []byte) error {
	v, err := s.policy.Open(note)
	if err != nil {
		return err
	}
	body := v.Body()
	s.mu.RLock()
	size := s.state.tree.Size()
	root, err := s.state.tree.Root(min(body.Size, size))
	s.mu.RUnlock()
	if err != nil {
		return err
	}
	if body.Size > size || root != body.Root {
		return fmt.Errorf("checkpoint of size %d is not of this log, which has %d entries", body.Size, size)
	}
	policy, err := s.cosigners()
	if err != nil {
		return err
	}
	s.cosigning.Lock()
	defer s.cosigning.Unlock()
	kept, err := s.files.Get(cosignedPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	merged := essence(s.identity.Log, note)
	text, _ := cutNote(note)
	_, lines := cutNote(note)
	if err == nil {
		was, err := s.policy.Open(kept)
		if err != nil {
			return fmt.Errorf("%s: %w", cosignedPath, err)
		}
		if was.Body().Size > body.Size {
			return nil
		}
		if was.Body() == body {
			_, old := cutNote(kept)
			lines = append(lines, old...)
		}
	}
	own := merged[len(text):]
	seen := map[string]bool{}
	for _, line := range lines {
		one, err := policy.Open(slices.Concat(text, own, line))
		// Of several of one witness the first is the one that has just come.
		if err != nil || len(one.Witnesses()) != 1 || seen[one.Witnesses()[0]] {
			continue
		}
		seen[one.Witnesses()[0]] = true
		merged = slices.Concat(merged, line)
	}
	if len(seen) == 0 {
		return errors.New("no cosignature of a peer verifies")
	}
	return s.files.Put(cosignedPath, merged)
}

// cosigners is the policy that names every peer's witness by its fingerprint.
func (s *Store) cosigners() (*checkpoint.Policy, error) {
	text := "log " + s.identity.Log + "\n"
	// A policy lists no key twice. Who claims the key of another is left out.
	taken := map[string]bool{checkpoint.PublicKey(s.identity.Log): true}
	for _, p := range s.Peers() {
		if p.Identity != nil && !taken[checkpoint.PublicKey(p.Identity.Witness)] {
			taken[checkpoint.PublicKey(p.Identity.Witness)] = true
			text += "witness " + p.Fingerprint + " " + p.Identity.Witness + "\n"
		}
	}
	return checkpoint.ParsePolicy([]byte(text + "quorum none\n"))
}

// Cosigned returns the newest own checkpoint that peers have cosigned, with their
// cosignatures, or nil.
func (s *Store) Cosigned() []byte {
	s.cosigning.Lock()
	defer s.cosigning.Unlock()
	note, err := s.files.Get(cosignedPath)
	if err != nil {
		return nil
	}
	return note
}
