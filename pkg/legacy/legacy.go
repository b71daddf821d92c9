// Package legacy reads what the ancestor of this project (VaultMesh vm-spawn, a
// set of Python programs) wrote, and reproduces its numbers, so that an old root,
// merge or receipt can be checked and imported under its own label. Nothing here
// makes new evidence: the ancestor's tree and merge rule are both unsound, as said
// below.
//
// # The root
//
// A record is one row of the ancestor's table "memories". Its leaf is
//
//	hex(SHA-256(json.dumps({id, timestamp, type, component, version, hash, sig, data},
//	            sort_keys=True, separators=(",", ":"))))
//
// in Python's own JSON: ASCII only, keys in code point order, floats as repr prints
// them, and NaN, Infinity and lone surrogates allowed. The column merkle_root is not
// part of the leaf. A record read from SQLite carries data as a *string* that holds
// JSON; the same record in the JSON form carries the object itself, so the two forms
// have different leaves. Leaves are ordered by (timestamp, id) as strings compared by
// code point. A parent is hex(SHA-256(left ‖ right)) over the ASCII of the two hex
// strings; an odd level repeats its last node; the root of no records is "".
//
// The ancestor's SQLite command orders rows this way. Its JSON command took the list
// as it stood; for a list out of order its number differs from [Root].
//
// Because an odd level repeats its last, [a, b, c] and [a, b, c, c] have one root, and
// an inner node can stand as a leaf. A legacy root is therefore never offered as an
// RFC 6962 root, and [ReadJSON] refuses a list in which an id occurs twice.
//
// # The merge
//
// See [CheckMerge], which also says why nothing may be merged by that rule.
//
// # The receipt
//
// See [ParseReceipt].
//
// # Strings
//
// Strings are UTF-8. Python's JSON also admits lone surrogates ("\ud800"), and a leaf
// depends on them, so they are kept as the three bytes UTF-8 would use if it allowed
// them (WTF-8). Byte order of such strings is Python's order of strings.
package legacy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Record is one row of the ancestor's table "memories". A nil pointer is Python's
// None and SQL's NULL, which is not the same leaf as an empty string.
type Record struct {
	ID        string
	Timestamp string // as written, usually RFC 3339 in UTC; never interpreted, only ordered
	Type      string
	Component *string
	Version   *string
	Hash      *string
	Sig       *string
	Data      Value

	MerkleRoot *string // as written beside the record; not part of its leaf
}

// Leaf returns the record's leaf: 64 lower-case hex digits. It panics if a string of
// the record is neither UTF-8 nor WTF-8, which no reader of this module produces.
func Leaf(r Record) string { return hexSum(Preimage(r)) }

// Preimage returns what the leaf hashes: the record in Python's canonical JSON, which
// is ASCII. It panics as Leaf does.
func Preimage(r Record) []byte {
	b := []byte(`{"component":`)
	b = appendNullable(b, r.Component)
	b = append(b, `,"data":`...)
	b = append(b, r.Data.JSON()...)
	b = append(b, `,"hash":`...)
	b = appendNullable(b, r.Hash)
	b = append(b, `,"id":`...)
	b = appendString(b, r.ID)
	b = append(b, `,"sig":`...)
	b = appendNullable(b, r.Sig)
	b = append(b, `,"timestamp":`...)
	b = appendString(b, r.Timestamp)
	b = append(b, `,"type":`...)
	b = appendString(b, r.Type)
	b = append(b, `,"version":`...)
	b = appendNullable(b, r.Version)
	return append(b, '}')
}

func appendNullable(b []byte, s *string) []byte {
	if s == nil {
		return append(b, "null"...)
	}
	return appendString(b, *s)
}

// Root returns the ancestor's root of the records: 64 lower-case hex digits, or "" if
// there are none. The order of the argument does not matter and is left alone.
func Root(records []Record) string {
	if len(records) == 0 {
		return ""
	}
	sorted := slices.Clone(records)
	slices.SortStableFunc(sorted, func(a, b Record) int {
		if c := strings.Compare(a.Timestamp, b.Timestamp); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	level := make([]string, len(sorted))
	for i, r := range sorted {
		level[i] = Leaf(r)
	}
	return fold(level, func(a, b string) string { return hexSum([]byte(a + b)) })
}

// fold joins neighbours until one is left; the last of an odd level joins itself.
// The level must not be empty; it is overwritten.
func fold[T any](level []T, join func(a, b T) T) T {
	for len(level) > 1 {
		next := level[:0]
		for i := 0; i < len(level); i += 2 {
			next = append(next, join(level[i], level[min(i+1, len(level)-1)]))
		}
		level = next
	}
	return level[0]
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// recordKeys are the keys of a record, in the order of the ancestor's table.
var recordKeys = []string{"id", "timestamp", "type", "component", "version", "hash", "sig", "data", "merkle_root"}

// ReadJSON reads the JSON form of records: a list of objects, or an object with that
// list as its one member "records" or "memories". Input is at most 64 MiB, nested at
// most 500 deep. id, timestamp and type must be strings; component, version, hash, sig
// and merkle_root strings, null or absent; data is any value or absent. Any other key
// is an error that names it, and so is an id that occurs twice.
func ReadJSON(b []byte) ([]Record, error) {
	list, err := decodeList(b, "records", "memories")
	if err != nil {
		return nil, fmt.Errorf("legacy records: %w", err)
	}
	records := make([]Record, 0, len(list))
	seen := make(map[string]int, len(list))
	for i, v := range list {
		r, err := recordOf(v)
		if err != nil {
			return nil, fmt.Errorf("legacy records: record %d: %w", i, err)
		}
		if first, ok := seen[r.ID]; ok {
			return nil, fmt.Errorf("legacy records: record %d: id %q is also the id of record %d", i, r.ID, first)
		}
		seen[r.ID] = i
		records = append(records, r)
	}
	return records, nil
}

func recordOf(v any) (Record, error) {
	object, ok := v.(map[string]any)
	if !ok {
		return Record{}, fmt.Errorf("found %s, wanted an object", kindOf(v))
	}
	if err := onlyKeys(object, recordKeys); err != nil {
		return Record{}, err
	}
	var r Record
	for _, f := range []struct {
		key string
		to  *string
	}{{"id", &r.ID}, {"timestamp", &r.Timestamp}, {"type", &r.Type}} {
		s, ok := object[f.key].(string)
		if !ok {
			return Record{}, fmt.Errorf("%s: found %s, wanted a string", f.key, memberKind(object, f.key))
		}
		*f.to = s
	}
	for _, f := range []struct {
		key string
		to  **string
	}{
		{"component", &r.Component},
		{"version", &r.Version},
		{"hash", &r.Hash},
		{"sig", &r.Sig},
		{"merkle_root", &r.MerkleRoot},
	} {
		switch s := object[f.key].(type) {
		case nil:
		case string:
			*f.to = &s
		default:
			return Record{}, fmt.Errorf("%s: found %s, wanted a string or null", f.key, kindOf(s))
		}
	}
	r.Data = valueOf(object["data"])
	return r, nil
}

// decodeList decodes a list, or an object whose one member, named by one of the
// wrappers, is a list.
func decodeList(b []byte, wrappers ...string) ([]any, error) {
	v, err := decode(b)
	if err != nil {
		return nil, err
	}
	if object, ok := v.(map[string]any); ok {
		if err := onlyKeys(object, wrappers); err != nil {
			return nil, err
		}
		if len(object) != 1 {
			return nil, fmt.Errorf("found an object with %d members, wanted one of: %s", len(object), strings.Join(wrappers, ", "))
		}
		for _, member := range object {
			v = member
		}
	}
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("found %s, wanted a list", kindOf(v))
	}
	return list, nil
}

func onlyKeys(object map[string]any, known []string) error {
	var unknown []string
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if !slices.Contains(known, key) {
			unknown = append(unknown, fmt.Sprintf("%q", key))
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("unknown keys %s, wanted only %s", strings.Join(unknown, ", "), strings.Join(known, ", "))
	}
	return nil
}

func memberKind(object map[string]any, key string) string {
	v, ok := object[key]
	if !ok {
		return "nothing"
	}
	return kindOf(v)
}
