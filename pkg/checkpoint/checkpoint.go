// Package checkpoint is the signed head of a log and the proofs that lead to
// it, all in C2SP formats:
//
//   - a checkpoint (c2sp.org/tlog-checkpoint) is a signed note of three lines,
//     origin, size, and RFC 6962 root, and no extension line;
//   - a log policy (c2sp.org/tlog-policy) lists log keys, witness keys and the
//     quorum of witnesses a checkpoint needs;
//   - a cosignature (c2sp.org/tlog-cosignature, version 1) is a witness's
//     Ed25519 signature over the checkpoint and a time;
//   - a proof file (c2sp.org/tlog-proof) carries an index, the inclusion proof
//     of that entry and the checkpoint it leads to.
//
// A [Verified] checkpoint can only be had from [Policy.Open]: code that takes
// one need not ask who signed it. A [Body] is unsigned, and may be anyone's.
//
// Refused: extension lines, sizes with leading zeroes, hashes of another
// length, bytes that are not in canonical base64, and notes over 64 KiB.
package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Hash is an RFC 6962 tree or leaf hash (SHA-256).
type Hash = tlog.Hash

const maxNote = 64 << 10

// Body is the text of a checkpoint: what is signed.
type Body struct {
	Origin string
	Size   int64 // number of entries
	Root   Hash
}

// Text returns the three lines of the body.
func (b Body) Text() []byte {
	return fmt.Appendf(nil, "%s\n%d\n%s\n", b.Origin, b.Size, base64.StdEncoding.EncodeToString(b.Root[:]))
}

// ParseBody reads the three lines of a body, and nothing else.
func ParseBody(text []byte) (Body, error) {
	lines := strings.SplitAfter(string(text), "\n")
	if len(lines) != 4 || lines[3] != "" {
		return Body{}, fmt.Errorf("checkpoint has %d lines, want origin, size and root, each ended by a newline", len(lines)-1)
	}
	b := Body{Origin: strings.TrimSuffix(lines[0], "\n")}
	if err := CheckOrigin(b.Origin); err != nil {
		return Body{}, fmt.Errorf("checkpoint: %w", err)
	}
	size := strings.TrimSuffix(lines[1], "\n")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != size {
		return Body{}, fmt.Errorf("checkpoint: size %q: want a decimal number without leading zeroes", size)
	}
	b.Size = n
	if b.Root, err = parseHash(strings.TrimSuffix(lines[2], "\n")); err != nil {
		return Body{}, fmt.Errorf("checkpoint: root: %w", err)
	}
	return b, nil
}

// CheckOrigin says whether s can name a log: a schema-less URL such as
// github.com/owner/name, without spaces or "+".
func CheckOrigin(s string) error {
	if s == "" || len(s) > 255 || strings.ContainsAny(s, "+ \t\r\n") || strings.Contains(s, "://") {
		return fmt.Errorf("origin %q: want a schema-less URL such as github.com/owner/name", s)
	}
	for _, r := range s {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("origin %q: want printable ASCII", s)
		}
	}
	return nil
}

func parseHash(s string) (Hash, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	// Even the strict decoder skips carriage returns, so compare.
	if err != nil || len(b) != tlog.HashSize || base64.StdEncoding.EncodeToString(b) != s {
		return Hash{}, fmt.Errorf("%q: want the base64 of %d bytes", s, tlog.HashSize)
	}
	return Hash(b), nil
}

// Verified is a checkpoint that a policy has accepted.
type Verified struct {
	body Body
	note []byte
	log  string // the verifier key of the log that signed it
	seen []string
}

// Body returns what was signed.
func (v Verified) Body() Body { return v.body }

// Note returns the signed note's bytes, unverified signatures included. The
// caller must not change them.
func (v Verified) Note() []byte { return v.note }

// LogKey returns the verifier key (vkey) of the log that signed it.
func (v Verified) LogKey() string { return v.log }

// Witnesses returns the names of the witnesses whose cosignatures verified.
func (v Verified) Witnesses() []string { return v.seen }

// Signer signs the checkpoints of one log. Ed25519 is deterministic: the same
// body has the same note.
type Signer struct {
	signer note.Signer
	vkey   string
}

// GenerateKey makes a log key. The secret skey is a C2SP signed-note signing
// key; the vkey is its public counterpart.
func GenerateKey(rand io.Reader, origin string) (skey, vkey string, err error) {
	if err := CheckOrigin(origin); err != nil {
		return "", "", err
	}
	return note.GenerateKey(rand, origin)
}

// NewSigner reads a signing key as [GenerateKey] made it. The error never
// quotes the key.
func NewSigner(skey string) (*Signer, error) {
	skey = strings.TrimSpace(skey)
	s, err := note.NewSigner(skey)
	if err != nil {
		return nil, errors.New("log key: want a signed-note signing key that begins with PRIVATE+KEY+")
	}
	vkey, err := publicOf(skey)
	if err != nil {
		return nil, err
	}
	return &Signer{signer: s, vkey: vkey}, nil
}

// publicOf derives the verifier key of a valid signing key.
func publicOf(skey string) (string, error) {
	fields := strings.SplitN(skey, "+", 5)
	seed, err := base64.StdEncoding.DecodeString(fields[4])
	if err != nil || len(seed) != 33 {
		return "", errors.New("log key: want an Ed25519 signing key")
	}
	return note.NewEd25519VerifierKey(fields[2], ed25519Public(seed[1:]))
}

// Origin returns the name of the log that the key signs for.
func (s *Signer) Origin() string { return s.signer.Name() }

// VerifierKey returns the public key (vkey).
func (s *Signer) VerifierKey() string { return s.vkey }

// Sign returns the signed note of a body. Whoever calls it must hold the claim
// on that body: two signatures on different roots of one size are a fork.
func (s *Signer) Sign(b Body) ([]byte, error) {
	if b.Origin != s.Origin() {
		return nil, fmt.Errorf("checkpoint is of log %s, but the key signs for %s", b.Origin, s.Origin())
	}
	return note.Sign(&note.Note{Text: string(b.Text())}, s.signer)
}

// Proof is a tlog-proof: evidence that an entry is in a log.
type Proof struct {
	Extra      []byte // application data, not authenticated by the proof itself
	Index      int64  // zero-based
	Hashes     []Hash // from the leaf's sibling up
	Checkpoint []byte // a signed note
}

const proofHeader = "c2sp.org/tlog-proof@v1"

// Marshal returns the proof file.
func (p Proof) Marshal() []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, proofHeader)
	if p.Extra != nil {
		fmt.Fprintf(&b, "extra %s\n", base64.StdEncoding.EncodeToString(p.Extra))
	}
	fmt.Fprintf(&b, "index %d\n", p.Index)
	for _, h := range p.Hashes {
		fmt.Fprintln(&b, base64.StdEncoding.EncodeToString(h[:]))
	}
	b.WriteByte('\n')
	b.Write(p.Checkpoint)
	return b.Bytes()
}

// ParseProof reads a proof file. The checkpoint in it is not yet verified.
func ParseProof(data []byte) (Proof, error) {
	head, cp, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok || len(data) > 4*maxNote {
		return Proof{}, errors.New("proof: want a proof, an empty line, and a checkpoint")
	}
	lines := strings.Split(string(head), "\n")
	if lines[0] != proofHeader {
		return Proof{}, fmt.Errorf("proof: first line is %.40q, want %q", lines[0], proofHeader)
	}
	lines = lines[1:]
	p := Proof{Checkpoint: bytes.Clone(cp)}
	var err error
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		if p.Extra, err = base64.StdEncoding.Strict().DecodeString(lines[0][len("extra "):]); err != nil {
			return Proof{}, fmt.Errorf("proof: extra: %w", err)
		}
		lines = lines[1:]
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "index ") {
		return Proof{}, errors.New(`proof: want a line "index N"`)
	}
	index := lines[0][len("index "):]
	if p.Index, err = strconv.ParseInt(index, 10, 64); err != nil || p.Index < 0 || strconv.FormatInt(p.Index, 10) != index {
		return Proof{}, fmt.Errorf("proof: index %q: want a decimal number without leading zeroes", index)
	}
	if lines = lines[1:]; len(lines) > 63 {
		return Proof{}, fmt.Errorf("proof: %d hashes, want at most 63", len(lines))
	}
	for _, l := range lines {
		h, err := parseHash(l)
		if err != nil {
			return Proof{}, fmt.Errorf("proof: hash %w", err)
		}
		p.Hashes = append(p.Hashes, h)
	}
	if !bytes.Equal(p.Marshal(), data) {
		return Proof{}, errors.New("proof does not encode back to itself")
	}
	return p, nil
}

// CheckInclusion verifies that the entry is in the log that the checkpoint
// describes, at the proof's index.
func (p Proof) CheckInclusion(cp Verified, entry []byte) error {
	if p.Index >= cp.body.Size {
		return fmt.Errorf("proof: index %d is not below the checkpoint's size %d", p.Index, cp.body.Size)
	}
	err := tlog.CheckRecord(tlog.RecordProof(p.Hashes), cp.body.Size, cp.body.Root, p.Index, tlog.RecordHash(entry))
	if err != nil {
		return fmt.Errorf("proof: entry %d does not lead to root %x of size %d", p.Index, cp.body.Root[:], cp.body.Size)
	}
	return nil
}

// CheckConsistency verifies that the log of body b is a prefix of the log of
// body later (RFC 6962, section 2.1.2).
func CheckConsistency(b, later Body, proof []Hash) error {
	switch {
	case b.Origin != later.Origin:
		return fmt.Errorf("checkpoints are of different logs: %s and %s", b.Origin, later.Origin)
	case b.Size > later.Size:
		return fmt.Errorf("size goes back from %d to %d", b.Size, later.Size)
	case b.Size == 0:
		// The empty log is a prefix of every log, and has only one root.
		if b.Root != sha256.Sum256(nil) || later.Size == 0 && b.Root != later.Root {
			return fmt.Errorf("root %x is not that of an empty log", b.Root[:])
		}
		if len(proof) > 0 {
			return fmt.Errorf("proof has %d hashes, want none from an empty log", len(proof))
		}
		return nil
	}
	if tlog.CheckTree(tlog.TreeProof(proof), later.Size, later.Root, b.Size, b.Root) != nil {
		return fmt.Errorf("size %d root %x does not extend size %d root %x", later.Size, later.Root[:], b.Size, b.Root[:])
	}
	return nil
}
