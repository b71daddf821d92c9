// Package proof judges evidence offline: a bundle that one receipt was admitted
// to a log, against anchors that the verifier holds. It needs no network, no
// git, and no storage.
//
// A bundle is a c2sp.org/tlog-proof file whose extra data are the log line of
// the receipt, a newline, and the armored OpenPGP key of its issuer:
//
//	bundle  = Marshal(line, issuer, index, hashes, checkpoint)
//	verdict = Verify(bundle, policy, Options{Now: time.Now()})
//
// What carries what: the policy is the verifier's own and names the log's key.
// The checkpoint must be signed by it (and cosigned by the policy's quorum); the
// log line must lead to the checkpoint's root; the statement in it names its
// issuer by fingerprint; the key in the bundle must have that fingerprint, and
// its signature must verify. That the issuer is one to believe is what the log
// asserted by admitting the receipt, unless the verifier names issuers of its
// own ([Options.Issuers]): then it must be one of those.
//
// Admission is not truth: a verdict says who asserted what, that the log holds
// it, and that nobody has changed it since.
//
// Refused: a bundle that does not encode back to the bytes it was read from.
package proof

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// Marshal makes a bundle. The key must be the issuer's.
func Marshal(line []byte, issuer *openpgp.Key, index int64, hashes []checkpoint.Hash, note []byte) []byte {
	extra := append(append(bytes.Clone(line), '\n'), issuer.Armored()...)
	return checkpoint.Proof{Extra: extra, Index: index, Hashes: hashes, Checkpoint: note}.Marshal()
}

// Options are what most verifiers leave as they are. Now is required.
type Options struct {
	Now time.Time
	// Issuers, when given, are the only issuers to accept.
	Issuers *openpgp.Keyring
}

// Verdict is the outcome of a bundle that could be judged.
type Verdict struct {
	Findings []Finding
	Receipt  *receipt.Receipt
	Index    int64
	// Checkpoint is the zero value when the policy refused it.
	Checkpoint checkpoint.Verified
	// Development: the issuer's key says that it is one for development.
	Development bool
}

// Finding is one step of a verdict.
type Finding struct {
	Name   string
	Detail string // what was shown, or what is wrong
	OK     bool
}

// Pass reports whether every step was shown.
func (v Verdict) Pass() bool {
	for _, f := range v.Findings {
		if !f.OK {
			return false
		}
	}
	return len(v.Findings) > 0
}

func (v *Verdict) add(name, detail string, err error) bool {
	if err != nil {
		detail = err.Error()
	}
	v.Findings = append(v.Findings, Finding{name, detail, err == nil})
	return err == nil
}

// Verify judges a bundle under a log policy. An error means that it could not be
// judged: the bundle or the policy is not readable as such.
func Verify(bundle, policy []byte, opts Options) (Verdict, error) {
	p, err := checkpoint.ParsePolicy(policy)
	if err != nil {
		return Verdict{}, err
	}
	pr, err := checkpoint.ParseProof(bundle)
	if err != nil {
		return Verdict{}, err
	}
	line, armored, ok := bytes.Cut(pr.Extra, []byte("\n"))
	if !ok {
		return Verdict{}, errors.New("proof: extra data hold no log line and issuer key: is this a proof of a remembrancer log?")
	}
	entry, err := receipt.ParseLine(line)
	if err != nil {
		return Verdict{}, fmt.Errorf("proof: %w", err)
	}
	key, err := openpgp.ParsePublic(armored)
	if err != nil {
		return Verdict{}, fmt.Errorf("proof: issuer key: %w", err)
	}
	// One bundle has one form: armor may carry comments and other line ends.
	if !bytes.Equal(key.Armored(), armored) {
		return Verdict{}, errors.New("proof: issuer key does not encode back to itself")
	}
	v := Verdict{Receipt: entry.Receipt, Index: pr.Index}
	if v.Checkpoint, err = p.Open(pr.Checkpoint); v.add("checkpoint", "", err) {
		body := v.Checkpoint.Body()
		v.Findings[0].Detail = fmt.Sprintf("log %s, size %d, root %x", body.Origin, body.Size, body.Root[:])
		v.add("inclusion", fmt.Sprintf("entry %d of %d leads to the root", pr.Index, body.Size), pr.CheckInclusion(v.Checkpoint, line))
	}
	v.Development = key.Development()
	v.add("issuer", fmt.Sprintf("signed by %s", key), checkIssuer(entry, key, opts))
	return v, nil
}

func checkIssuer(e receipt.Entry, key *openpgp.Key, opts Options) error {
	issuer := e.Receipt.Issuer()
	if key.Fingerprint() != issuer {
		return fmt.Errorf("the bundle carries key %s, the receipt names issuer %s", key.Fingerprint(), issuer)
	}
	keys := opts.Issuers
	if keys == nil {
		var err error
		if keys, err = openpgp.NewKeyring(key); err != nil {
			return err
		}
	} else if _, ok := keys.Lookup(issuer); !ok {
		return fmt.Errorf("issuer %s is not one of the given trust anchors", issuer)
	}
	for _, s := range e.Signatures {
		if s.Fingerprint == issuer {
			return receipt.VerifySignature(e.Receipt, s, keys, opts.Now)
		}
	}
	return fmt.Errorf("no signature of issuer %s on this line", issuer)
}
