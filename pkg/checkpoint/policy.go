package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// Policy says which checkpoints to accept: signed by one of its logs and
// cosigned by a quorum of its witnesses.
type Policy struct {
	text    []byte
	logs    map[string]logKey // by origin
	members map[string]member // witnesses and groups by name
	quorum  string            // a name in members, or "none"
}

type logKey struct {
	verifier note.Verifier
	vkey     string
}

type member struct {
	witness   note.Verifier // nil for a group
	threshold int
	of        []string
}

const (
	algCosignature = 4
	maxPolicyLines = 256
)

// ParsePolicy reads a tlog-policy file of at least one log.
func ParsePolicy(text []byte) (*Policy, error) {
	p := &Policy{text: bytes.Clone(text), logs: map[string]logKey{}, members: map[string]member{}}
	if len(text) > maxNote || bytes.Count(text, []byte("\n")) > maxPolicyLines {
		return nil, fmt.Errorf("policy is too large: want at most %d lines and %d bytes", maxPolicyLines, maxNote)
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		return nil, errors.New("policy does not end in a newline")
	}
	keys := map[string]bool{} // public keys, to refuse duplicates
	for i, line := range strings.Split(string(text), "\n") {
		fail := func(format string, args ...any) error {
			return fmt.Errorf("policy line %d: %s", i+1, fmt.Sprintf(format, args...))
		}
		if strings.IndexFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) >= 0 {
			return nil, fail("holds a control character")
		}
		f := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if err := p.parseLine(f, keys); err != nil {
			return nil, fail("%v", err)
		}
	}
	if p.quorum == "" {
		return nil, errors.New(`policy has no quorum line: without witnesses, write "quorum none"`)
	}
	if len(p.logs) == 0 {
		return nil, errors.New("policy lists no log")
	}
	return p, nil
}

func (p *Policy) parseLine(f []string, keys map[string]bool) error {
	addKey := func(vkey string) error {
		k := PublicKey(vkey)
		if keys[k] {
			return fmt.Errorf("key %s is listed twice", vkey)
		}
		keys[k] = true
		return nil
	}
	switch {
	case f[0] == "log" && (len(f) == 2 || len(f) == 3):
		v, err := note.NewVerifier(f[1])
		if err != nil {
			return fmt.Errorf("log key %q: want a signed-note verifier key <origin>+<hash>+<base64>", f[1])
		}
		if _, dup := p.logs[v.Name()]; dup {
			return fmt.Errorf("log %s is listed twice", v.Name())
		}
		p.logs[v.Name()] = logKey{v, f[1]}
		return addKey(f[1])
	case f[0] == "witness" && (len(f) == 3 || len(f) == 4):
		if err := p.free(f[1]); err != nil {
			return err
		}
		v, err := newCosigner(f[2])
		if err != nil {
			return err
		}
		p.members[f[1]] = member{witness: v}
		return addKey(f[2])
	case f[0] == "group" && len(f) >= 4:
		if err := p.free(f[1]); err != nil {
			return err
		}
		g := member{of: f[3:]}
		for i, name := range g.of {
			if _, ok := p.members[name]; !ok || slices.Contains(g.of[:i], name) {
				return fmt.Errorf("group member %q: want a witness or group of an earlier line, once", name)
			}
			for _, other := range p.members {
				if slices.Contains(other.of, name) {
					return fmt.Errorf("%q is already a member of another group", name)
				}
			}
		}
		switch f[2] {
		case "any":
			g.threshold = 1
		case "all":
			g.threshold = len(g.of)
		default:
			n, err := strconv.Atoi(f[2])
			if err != nil || n < 1 || n > len(g.of) {
				return fmt.Errorf("group threshold %q: want any, all, or 1 to %d", f[2], len(g.of))
			}
			g.threshold = n
		}
		p.members[f[1]] = g
		return nil
	case f[0] == "quorum" && len(f) == 2:
		if p.quorum != "" {
			return errors.New("a second quorum line")
		}
		if _, ok := p.members[f[1]]; !ok && f[1] != "none" {
			return fmt.Errorf("quorum %q: want none, or a witness or group of an earlier line", f[1])
		}
		p.quorum = f[1]
		return nil
	}
	return fmt.Errorf(`%q: want "log VKEY [URL]", "witness NAME VKEY [URL]", "group NAME all|any|K MEMBER…" or "quorum NAME"`, strings.Join(f, " "))
}

func (p *Policy) free(name string) error {
	if _, dup := p.members[name]; dup || name == "none" {
		return fmt.Errorf("name %q is already taken", name)
	}
	return nil
}

// Bytes returns the file the policy was read from.
func (p *Policy) Bytes() []byte { return p.text }

// Origins returns the names of the logs, sorted.
func (p *Policy) Origins() []string {
	var names []string
	for name := range p.logs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// NewPolicy returns the text of a policy with one log and no witness.
func NewPolicy(vkey string) []byte {
	return []byte("# C2SP tlog-policy: who may sign the checkpoint beside this file.\nlog " + vkey + "\nquorum none\n")
}

// Open verifies a signed note under the policy.
func (p *Policy) Open(signed []byte) (Verified, error) {
	if len(signed) > maxNote {
		return Verified{}, fmt.Errorf("checkpoint is %d bytes, want at most %d", len(signed), maxNote)
	}
	n, err := note.Open(signed, verifiers{p})
	if err != nil {
		return Verified{}, fmt.Errorf("checkpoint: %w", p.explain(signed, err))
	}
	// note.Open decodes leniently, which would give one signature several notes.
	for _, s := range slices.Concat(n.Sigs, n.UnverifiedSigs) {
		if _, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil {
			return Verified{}, fmt.Errorf("checkpoint: signature of %s is not in canonical base64", s.Name)
		}
	}
	body, err := ParseBody([]byte(n.Text))
	if err != nil {
		return Verified{}, err
	}
	v := Verified{body: body, note: bytes.Clone(signed)}
	signedBy := map[note.Verifier]bool{}
	for _, s := range n.Sigs {
		if k, ok := p.logs[s.Name]; ok && k.verifier.KeyHash() == s.Hash && s.Name == body.Origin {
			v.log = k.vkey
		}
		for name, m := range p.members {
			if m.witness != nil && m.witness.Name() == s.Name && m.witness.KeyHash() == s.Hash {
				signedBy[m.witness] = true
				v.seen = append(v.seen, name)
			}
		}
	}
	slices.Sort(v.seen)
	if v.log == "" {
		return Verified{}, fmt.Errorf("checkpoint of %s is not signed by a log of the policy (%s)", body.Origin, strings.Join(p.Origins(), ", "))
	}
	if p.quorum != "none" && !p.reached(p.quorum, signedBy) {
		return Verified{}, fmt.Errorf("checkpoint of size %d lacks the policy's quorum %q: cosigned by %d witnesses (%s)",
			body.Size, p.quorum, len(v.seen), strings.Join(v.seen, ", "))
	}
	return v, nil
}

func (p *Policy) explain(signed []byte, err error) error {
	var unverified *note.UnverifiedNoteError
	if errors.As(err, &unverified) {
		var names []string
		for _, s := range unverified.Note.UnverifiedSigs {
			names = append(names, fmt.Sprintf("%s+%08x", s.Name, s.Hash))
		}
		return fmt.Errorf("signed by %s, want a key of the policy (%s)", strings.Join(names, ", "), strings.Join(p.Origins(), ", "))
	}
	return err
}

func (p *Policy) reached(name string, signed map[note.Verifier]bool) bool {
	m := p.members[name]
	if m.witness != nil {
		return signed[m.witness]
	}
	n := 0
	for _, of := range m.of {
		if p.reached(of, signed) {
			n++
		}
	}
	return n >= m.threshold
}

type verifiers struct{ p *Policy }

// Verifier implements [note.Verifiers].
func (vs verifiers) Verifier(name string, hash uint32) (note.Verifier, error) {
	if k, ok := vs.p.logs[name]; ok && k.verifier.KeyHash() == hash {
		return k.verifier, nil
	}
	for _, m := range vs.p.members {
		if m.witness != nil && m.witness.Name() == name && m.witness.KeyHash() == hash {
			return m.witness, nil
		}
	}
	return nil, &note.UnknownVerifierError{Name: name, KeyHash: hash}
}

// PublicKey returns what a verifier key <name>+<hash>+<base64> holds after its hash:
// two keys of one public key, whatever they are named, have it in common. The base64
// may itself hold a plus sign, and end with one.
func PublicKey(vkey string) string {
	if f := strings.SplitN(vkey, "+", 3); len(f) == 3 {
		return f[2]
	}
	return vkey
}

// cosigner verifies cosignature/v1: an 8-byte big-endian time in POSIX seconds,
// then an Ed25519 signature over "cosignature/v1\ntime T\n" and the note's text.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newCosigner(vkey string) (*cosigner, error) {
	fail := fmt.Errorf("witness key %q: want an Ed25519 cosignature/v1 verifier key <name>+<hash>+<base64>", vkey)
	name, rest, ok := strings.Cut(vkey, "+")
	hash16, key64, ok2 := strings.Cut(rest, "+")
	unprintable := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == utf8.RuneError }
	if !ok || !ok2 || name == "" || strings.IndexFunc(name, unprintable) >= 0 {
		return nil, fail
	}
	key, err := base64.StdEncoding.Strict().DecodeString(key64)
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != algCosignature {
		return nil, fail
	}
	sum := sha256.Sum256(slices.Concat([]byte(name+"\n"), key))
	if fmt.Sprintf("%x", sum[:4]) != hash16 {
		return nil, fail
	}
	return &cosigner{name: name, hash: binary.BigEndian.Uint32(sum[:4]), key: key[1:]}, nil
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }

func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	t := binary.BigEndian.Uint64(sig)
	return t <= math.MaxInt64 && ed25519.Verify(c.key, cosigned(int64(t), msg), sig[8:])
}

func cosigned(t int64, msg []byte) []byte {
	return fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", t, msg)
}

// Cosigner makes cosignatures of a witness (c2sp.org/tlog-cosignature,
// cosignature/v1). A witness must persist what it has seen before it signs.
type Cosigner struct {
	v   *cosigner
	key ed25519.PrivateKey
}

// NewCosigner names a witness and its key.
func NewCosigner(name string, key ed25519.PrivateKey) (*Cosigner, error) {
	pub := append([]byte{algCosignature}, key.Public().(ed25519.PublicKey)...)
	sum := sha256.Sum256(slices.Concat([]byte(name+"\n"), pub))
	v, err := newCosigner(fmt.Sprintf("%s+%x+%s", name, sum[:4], base64.StdEncoding.EncodeToString(pub)))
	if err != nil {
		return nil, err
	}
	return &Cosigner{v, key}, nil
}

// VerifierKey returns the witness's vkey, as a policy lists it.
func (c *Cosigner) VerifierKey() string {
	pub := append([]byte{algCosignature}, c.v.key...)
	return fmt.Sprintf("%s+%08x+%s", c.v.name, c.v.hash, base64.StdEncoding.EncodeToString(pub))
}

// Cosign returns the note with the witness's signature line added.
func (c *Cosigner) Cosign(v Verified, now time.Time) []byte {
	sig := binary.BigEndian.AppendUint32(nil, c.v.hash)
	sig = binary.BigEndian.AppendUint64(sig, uint64(now.Unix()))
	sig = append(sig, ed25519.Sign(c.key, cosigned(now.Unix(), v.body.Text()))...)
	return fmt.Appendf(bytes.Clone(v.note), "— %s %s\n", c.v.name, base64.StdEncoding.EncodeToString(sig))
}

func ed25519Public(seed []byte) ed25519.PublicKey {
	return ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
}
