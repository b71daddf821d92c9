package covenant

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
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
	Retired     *openpgp.Keyring
	authorities []any // of time, as the id names them
	id          string
}

// LoadTrust reads the log policy, every certificate (*.asc) of the certs folder,
// those of retired keys below it, and the pins of time-stamping authorities in
// tsa/NAME/tsa.json below it.
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
	authorities, err := loadAuthorities(t, l)
	if err != nil {
		return nil, unreadable{err}
	}
	trust, err := newTrust(policy, keys, authorities)
	if err != nil {
		return nil, err
	}
	if trust.Retired, err = loadRetired(t, l); err != nil {
		return nil, unreadable{err}
	}
	return trust, nil
}

// With names the same trust state with other issuers, none of them retired.
func (t *Trust) With(keys *openpgp.Keyring) (*Trust, error) {
	return newTrust(t.Policy, keys, t.authorities)
}

// loadAuthorities reads what the policy id says of each time-stamping authority,
// by name. Whether the files are well formed and fit the certificates beside them
// is judged where a token is: what is refused there is trusted with nothing. The
// roots themselves need no place in the id, which names their keys. A folder
// without pins is no authority.
func loadAuthorities(t Tree, l Layout) ([]any, error) {
	all := []any{}
	folder := l.Certs() + "/tsa"
	err := t.Walk(folder, func(p string, mode fs.FileMode, _ string) error {
		name, file, _ := strings.Cut(strings.TrimPrefix(p, folder+"/"), "/")
		if file != "tsa.json" {
			return nil
		}
		if !mode.IsRegular() {
			return fmt.Errorf("%s is not a regular file", p)
		}
		data, err := t.Blob(p)
		if err != nil {
			return err
		}
		var pinned struct {
			Name     string   `json:"name"`
			RootSPKI []string `json:"root_spki"`
			Pins     []struct {
				SPKI  string `json:"spki"`
				From  string `json:"from"`
				Until string `json:"until"`
			} `json:"pins"`
			Development bool `json:"development"`
		}
		if err := json.Unmarshal(data, &pinned); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if pinned.Name != name {
			return fmt.Errorf("%s: found the name %q, wanted that of its folder", p, pinned.Name)
		}
		roots, pins := []any{}, []any{}
		for _, key := range pinned.RootSPKI {
			roots = append(roots, key)
		}
		for _, pin := range pinned.Pins {
			pins = append(pins, map[string]any{"from": pin.From, "spki": pin.SPKI, "until": pin.Until})
		}
		all = append(all, map[string]any{"development": pinned.Development, "name": name, "pins": pins, "root_spki": roots})
		return nil
	})
	if err != nil {
		return nil, err
	}
	// Each name is one folder; git orders tsa-two before tsa/.
	slices.SortFunc(all, func(a, b any) int {
		return strings.Compare(a.(map[string]any)["name"].(string), b.(map[string]any)["name"].(string))
	})
	return all, nil
}

func newTrust(policy *checkpoint.Policy, keys *openpgp.Keyring, authorities []any) (*Trust, error) {
	issuers := []any{}
	for _, f := range keys.Fingerprints() {
		issuers = append(issuers, string(f))
	}
	canon, err := receipt.Canonical(map[string]any{
		"issuers":    issuers,
		"log_policy": string(policy.Bytes()),
		"roots":      map[string]any{"fingerprints": []any{}, "threshold": 0},
		"tsa":        authorities,
	})
	if err != nil {
		return nil, fmt.Errorf("policy id: %w", err)
	}
	return &Trust{Policy: policy, Keys: keys, authorities: authorities, id: digest(append([]byte("remembrancer/policy/v1\n"), canon...))}, nil
}

// ID names the trust state: the hex SHA-256 of "remembrancer/policy/v1\n" and
// the canonical JSON of log policy, issuer fingerprints, offline roots with
// their threshold, and the pinned time-stamping authorities.
func (t *Trust) ID() string { return t.id }

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
