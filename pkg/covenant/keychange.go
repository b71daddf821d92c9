package covenant

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// RetiredCerts returns the folder of the certificates of keys that are trust
// anchors no more, each in <fingerprint>.asc as it was before a revocation.
func (l Layout) RetiredCerts() string { return l.Certs() + "/retired" }

// A KeyChange is what a receipt of kind key-rotation says about a trust anchor.
//
// A rotation (without Reason) is issued by the old key and endorsed, in the same
// entry, by the new one: the new key vouches for all that the old one signed up
// to this entry. Old and new are equal where only the signing subkey is new.
//
// A revocation (with Reason) is issued by another trust anchor and names a past
// checkpoint of the log: what the key signed counts below that size, and nowhere
// else. Of several revocations of one key the lowest cutoff counts.
//
// In its predicate, event is "rotation", with old and new and maybe new_subkey,
// or "revocation", with key, reason and cutoff {root, size}.
type KeyChange struct {
	Old       openpgp.Fingerprint
	New       openpgp.Fingerprint // of a rotation
	NewSubkey openpgp.Fingerprint // of a rotation, or empty
	Reason    openpgp.Reason      // of a revocation
	Size      int64               // its cutoff
	Root      checkpoint.Hash
}

// Predicate returns the fields of the receipt.
func (c KeyChange) Predicate() map[string]any {
	if c.Reason != "" {
		return map[string]any{
			"event": "revocation", "key": string(c.Old), "reason": string(c.Reason),
			"cutoff": map[string]any{"root": fmt.Sprintf("%x", c.Root[:]), "size": c.Size},
		}
	}
	p := map[string]any{"event": "rotation", "old": string(c.Old), "new": string(c.New)}
	if c.NewSubkey != "" {
		p["new_subkey"] = string(c.NewSubkey)
	}
	return p
}

// ParseKeyChange reads what Predicate wrote out of a receipt of kind key-rotation;
// other fields say nothing.
func ParseKeyChange(r *receipt.Receipt) (KeyChange, error) {
	var c KeyChange
	if r.Kind() != receipt.KeyRotation {
		return c, fmt.Errorf("receipt %s is of kind %s, want %s", r.ID(), r.Kind(), receipt.KeyRotation)
	}
	bad := func(err error) (KeyChange, error) { return KeyChange{}, fmt.Errorf("receipt %s: %w", r.ID(), err) }
	keys := map[string]*openpgp.Fingerprint{"old": &c.Old, "new": &c.New, "new_subkey": &c.NewSubkey}
	switch event := r.Field("event"); event {
	case "rotation":
	case "revocation":
		keys = map[string]*openpgp.Fingerprint{"key": &c.Old}
		var cutoff struct {
			Root string `json:"root"`
			Size int64  `json:"size"`
		}
		var err error
		if c.Reason, err = openpgp.ParseReason(r.Field("reason")); err != nil {
			return bad(err)
		}
		if err := r.Decode("cutoff", &cutoff); err != nil {
			return bad(err)
		}
		if c.Size = cutoff.Size; c.Size < 0 {
			return bad(fmt.Errorf("cutoff of size %d", c.Size))
		}
		if c.Root, err = checkpointHash(cutoff.Root); err != nil {
			return bad(fmt.Errorf("cutoff: %w", err))
		}
	default:
		return bad(fmt.Errorf("event is %q, want rotation or revocation", event))
	}
	for name, f := range keys {
		text := r.Field(name)
		if name == "new_subkey" && text == "" {
			continue
		}
		var err error
		if *f, err = openpgp.ParseFingerprint(text); err != nil {
			return bad(fmt.Errorf("%s: %w", name, err))
		}
	}
	return c, nil
}

// CheckKeyChange says whether a log of these entries may take an entry of kind
// key-rotation next, after others that it is about to take. Its signatures are
// the caller's to verify. A revocation that would leave the log with entries of
// the key above its cutoff is refused: a log loses nothing, and would fail its
// audit for ever.
func CheckKeyChange(e receipt.Entry, entries, next []receipt.Entry) error {
	c, err := ParseKeyChange(e.Receipt)
	if err != nil {
		return err
	}
	issuer := e.Receipt.Issuer()
	switch {
	case !signedBy(e, issuer):
		return nil // an endorsement, which changes nothing
	case c.Reason == "" && issuer != c.Old:
		return fmt.Errorf("the rotation of key %s is issued by %s: want the old key itself", c.Old, issuer)
	case c.Reason == "" && !signedBy(e, c.New):
		return fmt.Errorf("the rotation of key %s is not signed by its successor %s, or that is no trust anchor yet", c.Old, c.New)
	case c.Reason == "":
		return nil
	case issuer == c.Old:
		return fmt.Errorf("the revocation of key %s is issued by that key: want another trust anchor, since a thief has the key too", c.Old)
	}
	leaves := make([]checkpoint.Hash, len(entries))
	for i, e := range entries {
		leaves[i] = ledger.RecordHash(e.Line())
	}
	if err := c.checkCutoff(leaves); err != nil {
		return err
	}
	above := slices.Concat(entries[c.Size:], next)
	if i := slices.IndexFunc(above, func(e receipt.Entry) bool { return signedBy(e, c.Old) }); i >= 0 {
		return fmt.Errorf("the revocation of key %s has its cutoff at size %d, and entry %d is signed by that key: want a cutoff above it if it is genuine, or a log of one's own from here: remembrancer init --fork", c.Old, c.Size, c.Size+int64(i))
	}
	return nil
}

func (c KeyChange) checkCutoff(leaves []checkpoint.Hash) error {
	if c.Size > int64(len(leaves)) {
		return fmt.Errorf("the revocation of key %s has its cutoff at size %d, and the log had %d entries", c.Old, c.Size, len(leaves))
	}
	root := ledger.Root(nil)
	if c.Size > 0 {
		var err error
		if root, err = ledger.NewTree(leaves[:c.Size]).Root(c.Size); err != nil {
			return err
		}
	}
	if root != c.Root {
		return fmt.Errorf("the revocation of key %s has its cutoff at size %d with root %x, this log had root %x", c.Old, c.Size, c.Root[:], root[:])
	}
	return nil
}

// Cutoffs are the keys that a log revokes, and the lowest index at which each
// counts no more.
func Cutoffs(entries []receipt.Entry) map[openpgp.Fingerprint]int64 {
	all := map[openpgp.Fingerprint]int64{}
	for _, e := range entries {
		if e.Receipt.Kind() != receipt.KeyRotation || !signedBy(e, e.Receipt.Issuer()) {
			continue
		}
		c, err := ParseKeyChange(e.Receipt)
		if err != nil || c.Reason == "" {
			continue
		}
		if was, there := all[c.Old]; !there || c.Size < was {
			all[c.Old] = c.Size
		}
	}
	return all
}

func signedBy(e receipt.Entry, f openpgp.Fingerprint) bool {
	return slices.ContainsFunc(e.Signatures, func(s receipt.Signature) bool { return s.Fingerprint == f })
}

// loadRetired reads the certificates of keys that are no trust anchors any more.
func loadRetired(t Tree, l Layout) (*openpgp.Keyring, error) {
	var certs []*openpgp.Key
	err := t.Walk(l.RetiredCerts(), func(p string, mode fs.FileMode, _ string) error {
		if !mode.IsRegular() || path.Dir(p) != l.RetiredCerts() || !strings.HasSuffix(p, ".asc") {
			return nil
		}
		data, err := t.Blob(p)
		if err != nil {
			return err
		}
		key, err := openpgp.ParsePublic(data)
		if err == nil && path.Base(p) != string(key.Fingerprint())+".asc" {
			err = fmt.Errorf("holds key %s, want it in a file of that name", key.Fingerprint())
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		certs = append(certs, key)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return openpgp.NewKeyring(certs...)
}

// standing says by which certificate each key's signatures are judged, and below
// which index they count. It follows from the trust anchors and the log alone:
//
//   - a trust anchor that is not revoked counts everywhere
//   - a key that is revoked, or no trust anchor, counts nowhere, but
//   - below the cutoff of a revocation that a key issued which counts there
//   - up to a rotation by which a key took over that counts there; only where
//     the old one is no trust anchor any more
//   - and whatever else says so, a key counts below the cutoff of each of its
//     revocations only
//
// Trust runs back from the anchors that a policy id pins: a key that is no anchor
// cannot bring itself in, since it is a pinned one that has to vouch for it.
type standing struct {
	keys  *openpgp.Keyring
	until map[openpgp.Fingerprint]int64
}

func (t *Trust) standing(entries []receipt.Entry, leaves []checkpoint.Hash) (*standing, error) {
	s := &standing{until: map[openpgp.Fingerprint]int64{}}
	judging := map[openpgp.Fingerprint]*openpgp.Key{}
	for _, f := range t.Keys.Fingerprints() {
		judging[f], _ = t.Keys.Lookup(f)
		if !judging[f].Revoked() {
			s.until[f] = math.MaxInt64
		}
	}
	changes := map[int]KeyChange{}
	cutoff := Cutoffs(entries)
	for i, e := range entries {
		if e.Receipt.Kind() != receipt.KeyRotation || !signedBy(e, e.Receipt.Issuer()) {
			continue
		}
		c, err := ParseKeyChange(e.Receipt)
		if err == nil && c.Reason != "" {
			err = c.checkCutoff(leaves[:i])
		}
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		changes[i] = c
	}
	counts := func(f openpgp.Fingerprint, i int) bool { return s.limit(f, cutoff) > int64(i) }
	// From the newest on: who vouches at an entry got its own standing from what
	// is pinned, or from a later entry.
	for i := len(entries) - 1; i >= 0; i-- {
		c, ok := changes[i]
		if !ok {
			continue
		}
		old, retired := t.Retired.Lookup(c.Old)
		anchor, active := t.Keys.Lookup(c.Old)
		if !retired || active && !anchor.Revoked() {
			continue
		}
		var until int64
		issuer := entries[i].Receipt.Issuer()
		switch {
		case c.Reason == "" && !active && issuer == c.Old && c.New != c.Old && signedBy(entries[i], c.New) && counts(c.New, i):
			until = int64(i) + 1
		case c.Reason != "" && issuer != c.Old && counts(issuer, i):
			until = c.Size
		default:
			continue
		}
		judging[c.Old] = old
		s.until[c.Old] = max(s.until[c.Old], until)
	}
	for f := range s.until {
		s.until[f] = s.limit(f, cutoff)
	}
	all := make([]*openpgp.Key, 0, len(judging))
	for _, k := range judging {
		all = append(all, k)
	}
	var err error
	s.keys, err = openpgp.NewKeyring(all...)
	return s, err
}

func (s *standing) limit(f openpgp.Fingerprint, cutoff map[openpgp.Fingerprint]int64) int64 {
	until := s.until[f]
	if c, there := cutoff[f]; there {
		until = min(until, c)
	}
	return until
}

// check says whether the keys that signed an entry count at its index.
func (s *standing) check(i int, e receipt.Entry) error {
	for _, sig := range e.Signatures {
		until := s.until[sig.Fingerprint]
		switch {
		case int64(i) < until:
		case until > 0:
			return fmt.Errorf("entry %d: receipt %s: signature of %s: the key was revoked or rotated away, and counts below entry %d only", i, e.Receipt.ID(), sig.Fingerprint, until)
		default:
			return fmt.Errorf("entry %d: receipt %s: signature of %s: %w", i, e.Receipt.ID(), sig.Fingerprint, errors.New("the key counts nowhere in this log: it is revoked, or no trust anchor"))
		}
	}
	return nil
}
