package receipt

import (
	"context"
	"fmt"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

// Sign signs a receipt.
func Sign(ctx context.Context, r *Receipt, s openpgp.Signer) (Signature, error) {
	packet, err := s.Sign(ctx, PAE(r.statement))
	if err != nil {
		return Signature{}, fmt.Errorf("receipt %s: %w", r.id, err)
	}
	return Signature{Fingerprint: s.Fingerprint(), Packet: packet}, nil
}

// VerifySignature checks one signature of a receipt against a keyring. now is
// the verifier's clock: a signature from the future is refused.
func VerifySignature(r *Receipt, s Signature, keys *openpgp.Keyring, now time.Time) error {
	_, err := openpgp.Verify(keys, s.Fingerprint, PAE(r.statement), s.Packet, openpgp.VerifyOptions{Now: now})
	return err
}

// Verify checks every signature of the entry. An endorsement that does not
// verify makes the entry invalid too: a log holds no signature that nobody
// could check. issued reports whether the issuer's own signature is among them.
func (e Entry) Verify(keys *openpgp.Keyring, now time.Time) (issued bool, err error) {
	for _, s := range e.Signatures {
		if err := VerifySignature(e.Receipt, s, keys, now); err != nil {
			return false, fmt.Errorf("receipt %s: signature of %s: %w", e.Receipt.id, s.Fingerprint, err)
		}
		issued = issued || s.Fingerprint == e.Receipt.issuer
	}
	return issued, nil
}
