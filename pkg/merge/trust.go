package merge

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// Cutoff ends the trust in an issuer: only what its home log held at this size
// and root is valid. Its JSON is {"root":"<64 hex>","size":N}.
type Cutoff struct {
	Size int64 // entries of the home log
	Root checkpoint.Hash
}

type wireCutoff struct {
	Root string `json:"root"`
	Size int64  `json:"size"`
}

// MarshalJSON writes the root in hex.
func (c Cutoff) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireCutoff{hex.EncodeToString(c.Root[:]), c.Size})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *Cutoff) UnmarshalJSON(data []byte) error {
	var w wireCutoff
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&w); err != nil {
		return fmt.Errorf("cutoff: %w", err)
	}
	root, err := parseDigest(w.Root)
	if err != nil {
		return fmt.Errorf("cutoff: root %w", err)
	}
	if w.Size < 0 || w.Size > maxInteger {
		return fmt.Errorf("cutoff: size %d, want 0 to 2^53-1", w.Size)
	}
	*c = Cutoff{w.Size, root}
	return nil
}

const maxInteger = 1<<53 - 1

// parseDigest reads 64 lower-case hex digits.
func parseDigest(s string) (h [sha256.Size]byte, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) || hex.EncodeToString(b) != s {
		return h, fmt.Errorf("%q: want 64 lower-case hex digits", s)
	}
	return [sha256.Size]byte(b), nil
}

// Member is an issuer that a trust state believes.
type Member struct {
	Node string // a label for people; the trust state's hash does not cover it
	Key  *openpgp.Key
	// Cutoff is nil while the issuer is believed without end. Where it is not, Key
	// is the certificate as it was before it was revoked.
	Cutoff *Cutoff
}

// Named is what the hash of a trust state covers of one member.
type Named struct {
	Fingerprint string  `json:"fingerprint"`
	KeySHA256   string  `json:"key_sha256"` // of [openpgp.Key.Binary], hex
	Cutoff      *Cutoff `json:"cutoff"`     // null if there is none
}

// Trust is a trust state: whose receipts are valid. It is immutable and safe for
// concurrent use.
type Trust struct {
	members map[openpgp.Fingerprint]Member
	ring    *openpgp.Keyring
	named   []Named
	hash    string
}

const trustPrefix = "remembrancer/trust/v1\n"

// NewTrust makes a trust state. A fingerprint that comes twice is an error, and
// so is a cutoff of a key that is revoked in its certificate: nothing that it
// signed could be verified.
func NewTrust(members ...Member) (*Trust, error) {
	t := &Trust{members: map[openpgp.Fingerprint]Member{}}
	var keys []*openpgp.Key
	for _, m := range members {
		if m.Key == nil {
			return nil, fmt.Errorf("trust: member %q has no key", m.Node)
		}
		f := m.Key.Fingerprint()
		if _, twice := t.members[f]; twice {
			return nil, fmt.Errorf("trust: %s is a member twice: keep one", f)
		}
		if m.Cutoff != nil {
			if m.Cutoff.Size < 0 || m.Cutoff.Size > maxInteger {
				return nil, fmt.Errorf("trust: %s: cutoff at size %d, want 0 to 2^53-1", f, m.Cutoff.Size)
			}
			if m.Key.Revoked() {
				return nil, fmt.Errorf("trust: %s has a cutoff, and its certificate holds a revocation: give the certificate as it was before", f)
			}
			c := *m.Cutoff
			m.Cutoff = &c
		}
		t.members[f] = m
		keys = append(keys, m.Key)
	}
	ring, err := openpgp.NewKeyring(keys...)
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	t.ring = ring
	for _, m := range t.Members() {
		sum := sha256.Sum256(m.Key.Binary())
		t.named = append(t.named, Named{string(m.Key.Fingerprint()), hex.EncodeToString(sum[:]), m.Cutoff})
	}
	if t.hash, err = hashOf(t.named); err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	return t, nil
}

// hashOf names a trust state by its members, which are in order.
func hashOf(named []Named) (string, error) {
	if named == nil {
		named = []Named{}
	}
	canon, err := receipt.Canonical(named)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(append([]byte(trustPrefix), canon...))
	return hex.EncodeToString(sum[:]), nil
}

// Hash names the trust state in 64 lower-case hex digits. Nodes merge only under
// equal hashes.
func (t *Trust) Hash() string { return t.hash }

// Members returns the members in order of their fingerprints.
func (t *Trust) Members() []Member {
	all := make([]Member, 0, len(t.members))
	for _, f := range slices.Sorted(maps.Keys(t.members)) {
		all = append(all, t.members[f])
	}
	return all
}

// Lookup returns the member whose primary key has this fingerprint.
func (t *Trust) Lookup(f openpgp.Fingerprint) (Member, bool) {
	m, ok := t.members[f]
	return m, ok
}

// With returns the trust state with a member added, or in the place of the one
// with the same fingerprint.
func (t *Trust) With(m Member) (*Trust, error) {
	if m.Key == nil {
		return nil, fmt.Errorf("trust: member %q has no key", m.Node)
	}
	all := slices.DeleteFunc(t.Members(), func(o Member) bool { return o.Key.Fingerprint() == m.Key.Fingerprint() })
	return NewTrust(append(all, m)...)
}

// Named returns what the hash covers, in order of the fingerprints.
func (t *Trust) Named() []Named { return slices.Clone(t.named) }

// CheckNamed reports whether the members that another node shows are those of the
// trust state that it names.
func CheckNamed(members []Named, hash string) error {
	for i, n := range members {
		f, err := openpgp.ParseFingerprint(n.Fingerprint)
		if err != nil {
			return fmt.Errorf("trust: %w", err)
		}
		if string(f) != n.Fingerprint {
			return fmt.Errorf("trust: fingerprint %q: want upper-case hex digits", n.Fingerprint)
		}
		if _, err := parseDigest(n.KeySHA256); err != nil {
			return fmt.Errorf("trust: key_sha256 %w", err)
		}
		if i > 0 && members[i-1].Fingerprint >= n.Fingerprint {
			return errors.New("trust: members are not in ascending order of their fingerprints")
		}
	}
	got, err := hashOf(members)
	if err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	if got != hash {
		return fmt.Errorf("trust: the members shown make the trust state %s, want %s", got, hash)
	}
	return nil
}

// Differences says in words in what two trust states differ, a line for each
// member, and what to type. It is empty if they are equal.
func Differences(ours, theirs []Named) []string {
	index := func(list []Named) map[string]Named {
		m := map[string]Named{}
		for _, n := range list {
			m[n.Fingerprint] = n
		}
		return m
	}
	a, b := index(ours), index(theirs)
	all := maps.Clone(a)
	maps.Copy(all, b)
	var lines []string
	for _, f := range slices.Sorted(maps.Keys(all)) {
		we, mine := a[f]
		they, their := b[f]
		switch {
		case !their:
			lines = append(lines, fmt.Sprintf("%s: we trust it, the peer does not; there: %s", f, join))
		case !mine:
			lines = append(lines, fmt.Sprintf("%s: the peer trusts it, we do not; here: %s", f, join))
		case cutoffOf(we) != cutoffOf(they):
			lines = append(lines, fmt.Sprintf("%s: here %s, at the peer %s; give both nodes the same cutoff", f, cutoffOf(we), cutoffOf(they)))
		case we.KeySHA256 != they.KeySHA256:
			lines = append(lines, fmt.Sprintf("%s: the certificates differ (here sha256:%s, at the peer sha256:%s); give both nodes the newer one: %s",
				f, we.KeySHA256, they.KeySHA256, join))
		}
	}
	return lines
}

const join = "remembrancer federation join --peer URL --trust-anchor FILE, with its certificate"

func cutoffOf(n Named) string {
	if n.Cutoff == nil {
		return "it is not cut off"
	}
	return fmt.Sprintf("it is cut off at size %d, root %x", n.Cutoff.Size, n.Cutoff.Root[:])
}

const (
	armorBegin = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
	armorEnd   = "-----END PGP PUBLIC KEY BLOCK-----"
)

// KeysOf reads the public keys of a trust-anchor file: one binary key, or one or
// more armored blocks of one key each, with nothing but white space between them.
func KeysOf(data []byte) ([]*openpgp.Key, error) {
	if !bytes.Contains(data, []byte(armorBegin)) {
		key, err := openpgp.ParsePublic(data)
		if err != nil {
			return nil, err
		}
		return []*openpgp.Key{key}, nil
	}
	var keys []*openpgp.Key
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		block, after, ok := bytes.Cut(rest, []byte(armorEnd))
		if !ok || !bytes.HasPrefix(block, []byte(armorBegin)) {
			return nil, fmt.Errorf("key %d: want a block from %q to %q, and no other text", len(keys)+1, armorBegin, armorEnd)
		}
		key, err := openpgp.ParsePublic(rest[:len(rest)-len(after)])
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", len(keys)+1, err)
		}
		if slices.ContainsFunc(keys, func(k *openpgp.Key) bool { return k.Fingerprint() == key.Fingerprint() }) {
			return nil, fmt.Errorf("key %d: %s is there twice: keep one", len(keys)+1, key.Fingerprint())
		}
		keys = append(keys, key)
		rest = after
	}
	slices.SortFunc(keys, func(a, b *openpgp.Key) int { return cmp.Compare(a.Fingerprint(), b.Fingerprint()) })
	return keys, nil
}
