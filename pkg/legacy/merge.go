package legacy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// Event is one element of a list that the ancestor's federation merge worked on: any
// JSON object, named by its member "event_id". Only [ReadEvents] makes one; the zero
// value is not an event.
type Event struct {
	id  string
	sum [sha256.Size]byte // of the object's JSON in Python's canonical form
	ok  bool
}

// ID returns the event's id: its member event_id or, where that is absent or false in
// Python's sense (null, "", 0, [] and the like), the hex SHA-256 of the event.
func (e Event) ID() string { return e.id }

// Hash returns the hex SHA-256 of the event in Python's canonical JSON.
func (e Event) Hash() string { return hex.EncodeToString(e.sum[:]) }

// ReadEvents reads one side of a merge: a JSON list of objects, under the bounds of
// [ParseValue]. An event_id that is neither a string nor false is an error: Python
// takes 1, 1.0 and true for one id, and no event of the ancestor has such an id.
func ReadEvents(b []byte) ([]Event, error) {
	v, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("legacy events: %w", err)
	}
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("legacy events: found %s, wanted a list", kindOf(v))
	}
	events := make([]Event, 0, len(list))
	for i, v := range list {
		object, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("legacy events: event %d: found %s, wanted an object", i, kindOf(v))
		}
		e := Event{sum: sha256.Sum256(appendValue(nil, object)), ok: true}
		id := object["event_id"]
		switch s, isString := id.(string); {
		case isString && s != "":
			e.id = s
		case isFalse(id):
			e.id = e.Hash()
		default:
			return nil, fmt.Errorf("legacy events: event %d: event_id: found %s, wanted a string", i, kindOf(id))
		}
		events = append(events, e)
	}
	return events, nil
}

// isFalse reports whether Python's "or" would pass the value over.
func isFalse(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case integer:
		return v == "0"
	case float64:
		return v == 0
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// CheckMerge recomputes what the ancestor's "jcs-canonical-union-v1" merge wrote into
// its receipt, to be compared with an old receipt and for nothing else.
//
// The rule: of events with one id the one with the lowest hash stays; what stays is
// ordered by hash. A head is a tree over the 32-byte event hashes, in the order given
// for left and right and in hash order for the merge: parent = SHA-256(left ‖ right),
// an odd level repeats its last, the head of no events is SHA-256 of nothing. Heads are
// 64 lower-case hex digits; mergedIDs are in merged order. A zero Event is an error.
//
// Nothing may ever be merged by this rule. An id is whatever its author claims, and the
// lowest hash wins: whoever wants an honest event gone writes another under the same id
// and varies a space in it until its hash is lower, which takes two tries on average.
// The honest event leaves the set without a trace and both sides agree on the result.
// Heads, besides, do not tell [a, b, c] from [a, b, c, c].
func CheckMerge(left, right []Event) (leftHead, rightHead, mergedHead string, mergedIDs []string, err error) {
	all := slices.Concat(left, right)
	kept := make(map[string]Event, len(all))
	for i, e := range all {
		if !e.ok {
			return "", "", "", nil, fmt.Errorf("legacy merge: event %d: %w", i, errors.New("not an event"))
		}
		if old, ok := kept[e.id]; !ok || slices.Compare(e.sum[:], old.sum[:]) < 0 {
			kept[e.id] = e
		}
	}
	merged := make([]Event, 0, len(kept))
	for _, e := range kept {
		merged = append(merged, e)
	}
	// The ancestor then orders by timestamp and signer, but equal hashes are equal
	// events. The id only makes the order total in this code's own terms.
	slices.SortFunc(merged, func(a, b Event) int {
		return cmp.Or(slices.Compare(a.sum[:], b.sum[:]), cmp.Compare(a.id, b.id))
	})
	mergedIDs = make([]string, 0, len(merged))
	for _, e := range merged {
		mergedIDs = append(mergedIDs, e.id)
	}
	return head(left), head(right), head(merged), mergedIDs, nil
}

func head(events []Event) string {
	if len(events) == 0 {
		return hexSum(nil)
	}
	level := make([][sha256.Size]byte, len(events))
	for i, e := range events {
		level[i] = e.sum
	}
	root := fold(level, func(a, b [sha256.Size]byte) [sha256.Size]byte {
		return sha256.Sum256(slices.Concat(a[:], b[:]))
	})
	return hex.EncodeToString(root[:])
}
