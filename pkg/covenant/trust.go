package covenant

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// Trust is whom a repository says to believe: the log's policy and the OpenPGP
// keys of its issuers. A repository's own copy is not authority over itself;
// verifiers pin [Trust.ID].
type Trust struct {
	Policy *checkpoint.Policy
	Keys   *openpgp.Keyring
	// Retired are the certificates, as they were before, of keys that are trust
	// anchors no more or were revoked. They count only as far as the log says
	// so; see [KeyChange]. They are no part of ID.
	Retired *openpgp.Keyring
	id      string
}

// LoadTrust reads the log policy, every certificate (*.asc) of the certs folder,
// and those of retired keys below it.
func LoadTrust(t Tree, l Layout) (*Trust, error) {
	text, err := read(t, l.Ledger(ledger.PolicyPath))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, unreadable{fmt.Errorf("%s is missing: run remembrancer init", l.Ledger(ledger.PolicyPath))}
		}
		return nil, err
	}
	policy, err := checkpoint.ParsePolicy(text)
	if err != nil {
		return nil, unreadable{fmt.Errorf("%s: %w", l.Ledger(ledger.PolicyPath), err)}
	}
	var certs []*openpgp.Key
	err = t.Walk(l.Certs(), func(p string, mode fs.FileMode, _ string) error {
		if !mode.IsRegular() || path.Dir(p) != l.Certs() || !strings.HasSuffix(p, ".asc") {
			return nil
		}
		data, err := t.Blob(p)
		if err != nil {
			return err
		}
		key, err := openpgp.ParsePublic(data)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		certs = append(certs, key)
		return nil
	})
	if err != nil {
		return nil, unreadable{err}
	}
	keys, err := openpgp.NewKeyring(certs...)
	if err != nil {
		return nil, unreadable{fmt.Errorf("%s: %w", l.Certs(), err)}
	}
	trust, err := NewTrust(policy, keys)
	if err != nil {
		return nil, err
	}
	if trust.Retired, err = loadRetired(t, l); err != nil {
		return nil, unreadable{err}
	}
	return trust, nil
}

// NewTrust names a trust state.
func NewTrust(policy *checkpoint.Policy, keys *openpgp.Keyring) (*Trust, error) {
	issuers := []any{}
	for _, f := range keys.Fingerprints() {
		issuers = append(issuers, string(f))
	}
	canon, err := receipt.Canonical(map[string]any{
		"issuers":    issuers,
		"log_policy": string(policy.Bytes()),
		"roots":      map[string]any{"fingerprints": []any{}, "threshold": 0},
		"tsa":        []any{},
	})
	if err != nil {
		return nil, fmt.Errorf("policy id: %w", err)
	}
	return &Trust{Policy: policy, Keys: keys, id: digest(append([]byte("remembrancer/policy/v1\n"), canon...))}, nil
}

// ID names the trust state: the hex SHA-256 of "remembrancer/policy/v1\n" and
// the canonical JSON of log policy, issuer fingerprints, offline roots with
// their threshold, and timestamping pins.
func (t *Trust) ID() string { return t.id }

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
