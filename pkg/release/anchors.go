package release

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

// maxAnchors bounds an anchors file, in bytes.
const maxAnchors = 1 << 20

// Anchors are what a verifier trusts, and has from elsewhere than the evidence: a
// contract, a notary, a printed page. The file is JSON with these keys, each of
// which may be left out:
//
//	{"v":1,
//	 "keys":["<40 hex digits: fingerprint of an OpenPGP key>"],
//	 "tsa_roots":["<64 hex digits: SHA-256 of the public key of an authority's root>"],
//	 "log_keys":["<verifier key of a log>"],
//	 "policy_id":"<64 hex digits>",
//	 "compromised":{"<fingerprint>":"2027-03-01T00:00:00Z"}}
//
// compromised says since when a key was in other hands: what it signed counts
// only when it was stamped before. Unknown keys, keys that are there twice or in
// other letters, and values twice are errors: a verifier who mistypes an anchor
// must not be told that all is well.
type Anchors struct {
	Keys        []openpgp.Fingerprint
	TSARoots    [][32]byte
	LogKeys     []string
	PolicyID    string
	Compromised map[openpgp.Fingerprint]time.Time
}

var anchorKeys = []string{"v", "keys", "tsa_roots", "log_keys", "policy_id", "compromised"}

// ParseAnchors reads an anchors file.
func ParseAnchors(data []byte) (Anchors, error) {
	a, err := parseAnchors(data)
	if err != nil {
		return Anchors{}, fmt.Errorf("anchors: %w", err)
	}
	return a, nil
}

func parseAnchors(data []byte) (a Anchors, err error) {
	if len(data) > maxAnchors {
		return a, fmt.Errorf("%d bytes, wanted at most %d", len(data), maxAnchors)
	}
	if err := onlyKeys(data, anchorKeys); err != nil {
		return a, err
	}
	var j struct {
		V           int               `json:"v"`
		Keys        []string          `json:"keys"`
		TSARoots    []string          `json:"tsa_roots"`
		LogKeys     []string          `json:"log_keys"`
		PolicyID    string            `json:"policy_id"`
		Compromised map[string]string `json:"compromised"`
	}
	if err := json.Unmarshal(data, &j); err != nil {
		return a, err
	}
	if j.V != 1 {
		return a, fmt.Errorf("found version %d, wanted \"v\":1", j.V)
	}
	for _, s := range j.Keys {
		f, err := openpgp.ParseFingerprint(s)
		if err != nil {
			return a, fmt.Errorf("keys: %w", err)
		}
		if slices.Contains(a.Keys, f) {
			return a, fmt.Errorf("keys: %s is there twice", f)
		}
		a.Keys = append(a.Keys, f)
	}
	for _, s := range j.TSARoots {
		k, err := ParseSPKI(s)
		if err != nil {
			return a, fmt.Errorf("tsa_roots: %w", err)
		}
		if slices.Contains(a.TSARoots, k) {
			return a, fmt.Errorf("tsa_roots: %s is there twice", s)
		}
		a.TSARoots = append(a.TSARoots, k)
	}
	for _, s := range j.LogKeys {
		if _, err := checkpoint.ParsePolicy(checkpoint.NewPolicy(s)); err != nil || strings.ContainsAny(s, "\r\n") {
			return a, fmt.Errorf("log_keys: found %q, wanted the verifier key of a log, as a log policy has it", s)
		}
		if slices.Contains(a.LogKeys, s) {
			return a, fmt.Errorf("log_keys: %s is there twice", s)
		}
		a.LogKeys = append(a.LogKeys, s)
	}
	if j.PolicyID != "" {
		if b, err := hex.DecodeString(j.PolicyID); err != nil || len(b) != 32 || strings.ToLower(j.PolicyID) != j.PolicyID {
			return a, fmt.Errorf("policy_id: found %q, wanted 64 small hex digits", j.PolicyID)
		}
		a.PolicyID = j.PolicyID
	}
	for s, since := range j.Compromised {
		f, err := openpgp.ParseFingerprint(s)
		if err != nil {
			return a, fmt.Errorf("compromised: %w", err)
		}
		t, err := moment(since)
		if err != nil || t.IsZero() {
			return a, fmt.Errorf("compromised: %s: found the time %q, wanted one in UTC such as 2027-03-01T00:00:00Z", f, since)
		}
		if _, twice := a.Compromised[f]; twice {
			return a, fmt.Errorf("compromised: %s is there twice", f)
		}
		if a.Compromised == nil {
			a.Compromised = map[openpgp.Fingerprint]time.Time{}
		}
		a.Compromised[f] = t
	}
	return a, nil
}

// onlyKeys demands one JSON object with known keys (any, when known is nil), each
// once. The decoder of the
// standard library takes keys in other letters, and the last of several.
func onlyKeys(data []byte, known []string) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return errors.New("wanted a JSON object")
	}
	var seen []string
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		switch {
		case known != nil && !slices.Contains(known, key):
			return fmt.Errorf("found the key %q, wanted only %s", key, strings.Join(known, ", "))
		case slices.Contains(seen, key):
			return fmt.Errorf("the key %q is there twice", key)
		}
		seen = append(seen, key)
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return err
		}
		if key == "compromised" {
			if err := onlyKeys(value, nil); err != nil {
				return fmt.Errorf("compromised: %w", err)
			}
		}
	}
	if _, err := dec.Token(); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	return nil
}
