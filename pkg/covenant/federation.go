package covenant

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"slices"

	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// vectorRoot is the root of the set of [vector], computed by the Python of
// package set.
const vectorRoot = "65f36feda65d4c6f07b451704fb94fde5bd5e621cbb303bde3f5b1acfa82a642"

// vector stands for the receipts of a log that has none.
func vector() (ids []receipt.ID) {
	for i := range 8 {
		ids = append(ids, sha256.Sum256([]byte{byte(i)}))
	}
	return ids
}

// Federation makes the checks of the federation covenant, for the ledger that r
// is the audit of.
//
// federation/deterministic-merge computes the set root of the receipts of the log
// (those of a log without any are a fixed vector): built in several orders and
// merged from several overlapping parts, it must be one and the same.
//
// federation/receipts demands that every file of ops/receipts/federation and of
// ops/receipts/federation-merge verifies with the signatures of both sides.
// Nothing here can verify that format, so such a file is an error.
func Federation(t Tree, l Layout, r *Report) []judge.Check {
	return []judge.Check{deterministicMerge(r), federationReceipts(t, l)}
}

func federationReceipts(t Tree, l Layout) judge.Check {
	const id, text = "federation/receipts", "every merge is signed by both sides"
	var paths []string
	for _, folder := range []string{"federation", string(receipt.FederationMerge)} {
		if err := t.Walk(l.Receipt(folder), func(p string, _ fs.FileMode, _ string) error {
			paths = append(paths, p)
			return nil
		}); err != nil {
			return judge.Unjudged(id, text, err)
		}
	}
	if len(paths) == 0 {
		return judge.NotClaimed(id, text, "no receipt of a merge is there")
	}
	return judge.Unjudged(id, text, fmt.Errorf("this build cannot verify receipts of merges: %s", list(paths)))
}

func deterministicMerge(r *Report) judge.Check {
	const id, text = "federation/deterministic-merge", "the order of merging changes nothing"
	if err := r.unread(); err != nil {
		return judge.Unjudged(id, text, err)
	}
	seen := map[receipt.ID]bool{}
	var ids []receipt.ID
	for _, e := range r.Entries {
		// What tells of merges is outside of what is merged.
		if k := e.Receipt.Kind(); k == receipt.FederationMerge || k == receipt.Snapshot || seen[e.Receipt.ID()] {
			continue
		}
		seen[e.Receipt.ID()] = true
		ids = append(ids, e.Receipt.ID())
	}
	what := fmt.Sprintf("%d receipts of the log", len(ids))
	if len(ids) == 0 {
		ids, what = vector(), "the log has none to merge; a fixed vector"
		if got := set.Root(ids).String(); got != vectorRoot {
			return judge.Judged(id, text, what, judge.Finding{Message: "the root of the vector is " + got + ", want " + vectorRoot})
		}
	}
	ways := merges(ids)
	root := set.Root(ids)
	var findings []judge.Finding
	for _, w := range ways {
		if got := w.merged(); got != root {
			findings = append(findings, judge.Finding{Message: fmt.Sprintf("merged %s the root is %s, want %s", w.name, got, root)})
		}
	}
	return judge.Judged(id, text, fmt.Sprintf("%s, merged in %d ways: set root %s", what, len(ways), root), findings...)
}

// way is one way to merge: parts, each a party's receipts in the order in which
// they came to it.
type way struct {
	name  string
	parts [][]receipt.ID
}

// merged merges part by part, as nodes do.
func (w way) merged() set.Hash {
	var all set.Set
	for _, part := range w.parts {
		var party set.Set
		for _, id := range part {
			party.Add(id)
		}
		for id := range party.All() {
			all.Add(id)
		}
	}
	return all.Root()
}

func merges(ids []receipt.ID) []way {
	back := slices.Clone(ids)
	slices.Reverse(back)
	half := len(ids) / 2
	var even, odd []receipt.ID
	for i, id := range ids {
		if i%2 == 0 {
			even = append(even, id)
		} else {
			odd = append(odd, id)
		}
	}
	third := len(ids) / 3
	return []way{
		{"as they came", [][]receipt.ID{ids}},
		{"backwards", [][]receipt.ID{back}},
		{"from two halves", [][]receipt.ID{ids[:half], ids[half:]}},
		{"from the halves the other way round", [][]receipt.ID{ids[half:], ids[:half]}},
		{"from every other one", [][]receipt.ID{odd, even}},
		{"from three parties who share some", [][]receipt.ID{back[:len(back)-third], ids[:len(ids)-third], even}},
		{"with oneself", [][]receipt.ID{ids, back, ids}},
	}
}
