package merge

import (
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// HomeProof shows that a line is in the home log of its issuer, below a cutoff:
// an RFC 6962 inclusion proof in the tree of the cutoff's size.
type HomeProof struct {
	Index  int64    `json:"index"`
	Hashes []string `json:"hashes"` // base64, from the leaf's sibling up
}

// NewHomeProof makes a home proof.
func NewHomeProof(index int64, hashes []checkpoint.Hash) *HomeProof {
	p := &HomeProof{Index: index, Hashes: []string{}}
	for _, h := range hashes {
		p.Hashes = append(p.Hashes, base64.StdEncoding.EncodeToString(h[:]))
	}
	return p
}

// Item is a receipt on its way between nodes: a log line without its newline, and
// a proof where its issuer has a cutoff.
type Item struct {
	Line  string     `json:"line"`
	Proof *HomeProof `json:"proof,omitempty"`
}

// Reason is why a line is not valid.
type Reason string

// The reasons.
const (
	Malformed     Reason = "malformed"      // it is no log line
	NotFederated  Reason = "not-federated"  // it is of a kind that is not merged
	UnknownIssuer Reason = "unknown-issuer" // its issuer is not in the trust state
	Unsigned      Reason = "unsigned"       // its issuer has not signed it
	BadSignature  Reason = "bad-signature"  // its issuer's signature does not verify
	Revoked       Reason = "revoked"        // its issuer is revoked, and no proof shows that it is older
)

// Rejection is the error that a line is not valid.
type Rejection struct {
	Reason Reason
	ID     string // of the receipt, or "" if it could not be read
	Err    error
}

// Error says which receipt, and why.
func (r *Rejection) Error() string {
	if r.ID == "" {
		return fmt.Sprintf("%s: %v", r.Reason, r.Err)
	}
	return fmt.Sprintf("receipt %s: %s: %v", r.ID, r.Reason, r.Err)
}

// Unwrap returns what was found.
func (r *Rejection) Unwrap() error { return r.Err }

// always is later than any time that an OpenPGP signature can claim, so that no
// clock decides what is valid.
var always = time.Unix(1<<32, 0)

// Judge decides whether a line is valid under the trust state; see the package
// comment. It is a pure function. The entry is what to keep of a valid one:
// endorsements that do not verify are left out of it, unless the proof is of the
// line as it is.
func (t *Trust) Judge(it Item) (receipt.Entry, *Rejection) {
	e, err := receipt.ParseLine([]byte(it.Line))
	if err != nil {
		return receipt.Entry{}, &Rejection{Reason: Malformed, Err: err}
	}
	r := e.Receipt
	reject := func(why Reason, format string, args ...any) (receipt.Entry, *Rejection) {
		return receipt.Entry{}, &Rejection{Reason: why, ID: r.ID().String(), Err: fmt.Errorf(format, args...)}
	}
	if !Federated(r.Kind()) {
		return reject(NotFederated, "receipts of kind %s are not merged", r.Kind())
	}
	m, ok := t.members[r.Issuer()]
	if !ok {
		return reject(UnknownIssuer, "issuer %s is not in the trust state", r.Issuer())
	}
	var kept []receipt.Signature
	issued := false
	for _, s := range e.Signatures {
		switch err := t.verify(r, s); {
		case s.Fingerprint != r.Issuer():
			if other := t.members[s.Fingerprint]; err == nil && other.Cutoff == nil {
				kept = append(kept, s)
			}
		case errors.Is(err, openpgp.ErrRevoked):
			return reject(Revoked, "%w", err)
		case err != nil:
			return reject(BadSignature, "%w", err)
		default:
			issued = true
			kept = append(kept, s)
		}
	}
	if !issued {
		return reject(Unsigned, "issuer %s has not signed it", r.Issuer())
	}
	if m.Cutoff != nil {
		if err := it.inHome(*m.Cutoff); err != nil {
			return reject(Revoked, "issuer %s is cut off at size %d: %w", r.Issuer(), m.Cutoff.Size, err)
		}
		return e, nil
	}
	e.Signatures = kept
	return e, nil
}

func (t *Trust) verify(r *receipt.Receipt, s receipt.Signature) error {
	return receipt.VerifySignature(r, s, t.ring, always)
}

// inHome checks that the line is in the home log, below the cutoff.
func (it Item) inHome(c Cutoff) error {
	if it.Proof == nil {
		return errors.New("no proof shows that it is older")
	}
	hashes := make([]checkpoint.Hash, 0, len(it.Proof.Hashes))
	for _, s := range it.Proof.Hashes {
		b, err := base64.StdEncoding.Strict().DecodeString(s)
		if err != nil || len(b) != len(checkpoint.Hash{}) {
			return fmt.Errorf("proof: hash %.60q: want the base64 of 32 bytes", s)
		}
		hashes = append(hashes, checkpoint.Hash(b))
	}
	return checkpoint.CheckInclusion(c.Size, c.Root, it.Proof.Index, hashes, []byte(it.Line))
}
