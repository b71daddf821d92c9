// Package merge is what two nodes must agree on, and the receipt that they did:
// whose receipts are valid, what their union is, and what both sides sign. It is
// pure: no clock, no network, no storage. Two nodes that know the same lines under
// the same trust state have the same set root, in whatever order and how often
// whatever came.
//
// # Trust state
//
// A trust state is a set of issuers. Its hash, which names it, is
//
//	SHA-256("remembrancer/trust/v1\n" ‖ members)
//
// where members is the RFC 8785 JSON of a list with one object for each issuer, in
// ascending order of the fingerprints:
//
//	{"cutoff":null,"fingerprint":"<upper-case hex>","key_sha256":"<hex>"}
//	{"cutoff":{"root":"<hex>","size":N},"fingerprint":"…","key_sha256":"…"}
//
// key_sha256 is the SHA-256 of the certificate in binary ([openpgp.Key.Binary]): a
// certificate with another subkey or with a revocation makes another trust state.
// What a node calls an issuer is a label, and not hashed. Nodes merge only under
// equal hashes.
//
// # Validity
//
// A log line (package receipt) is valid under a trust state if and only if
//
//  1. it is a log line, of any kind but federation-merge and snapshot;
//  2. its issuer is a member;
//  3. the issuer's own signature is in it and verifies with the member's
//     certificate. No clock bounds the time that it claims;
//  4. the issuer has no cutoff, or a proof shows that this very line, with these
//     signatures, is in the issuer's home log at an index below cutoff.size: an
//     RFC 6962 inclusion proof in the tree of that size, to cutoff.root. The leaf
//     is SHA-256(0x00 ‖ line), the line without its newline.
//
// A receipt is valid if any line of it is. A certificate that holds a revocation
// makes no line valid; revocation with a cutoff keeps the certificate as it was.
// What others endorse is not judged: their signatures that do not verify, or that
// are of members with a cutoff, are left out of a line that is kept, except where
// rule 4 fixes its bytes.
//
// A line travels as an item, with its proof where its issuer has a cutoff:
//
//	{"line":"…","proof":{"index":N,"hashes":["<base64>",…]}}
//
// # Set and conflicts
//
// The set of a node are the ids of its valid receipts, and its root that of
// package set. To merge is to unite. Receipts of one name
// ([receipt.Receipt.File]) and different ids are a conflict: all are kept, and the
// conflict is listed. Nothing is ever chosen or dropped.
//
// A node signs its set with an Ed25519 key of its own, as a signed note
// (c2sp.org/signed-note) of this text, in five lines:
//
//	remembrancer/set/v1
//	<node>
//	<hash of the trust state>
//	<number of ids>
//	<root in hex>
//
// # Merge receipt
//
// The file is JSON with these keys in this order, two spaces of indent, LF, and a
// newline at the end. A is the node that asked, B the one that answered.
//
//	type                      "federation_merge"
//	version                   "1.0"
//	timestamp                 RFC 3339, UTC, whole seconds; it decides nothing
//	node_a, node_b
//	  endpoint                URL, or ""
//	  merkle_root_before      root of the node's set before the merge, hex
//	  receipt_count           number of its ids
//	  signature               see below
//	  key_id                  fingerprint of the node's OpenPGP key, upper-case hex
//	  node_id                 name of the node
//	  log                     vkey of its log
//	  checkpoint              signed note of its log before the merge; "" if empty
//	  set_key                 vkey of its set notes
//	  set_note                signed note of its set before the merge
//	  nonce                   the challenge of the other side that it answers, 64 hex digits
//	merge_result
//	  merged_root             root of the union
//	  total_receipts          number of its ids
//	  new_receipts_from_peer  ids that only B had
//	  new_receipts_to_peer    ids that only A had
//	  conflicts               number of conflicts in the union
//	  deterministic           true
//	  verification            "Both nodes independently compute same merged_root"
//	operator_signature        see below
//	operator_key              fingerprint of who ran the merge
//	protocol_version          "v4.0-federation-phase2"
//	trust_state               hash of the trust state of both
//	previous                  SHA-256 of the signed bytes of the merge of these two
//	                          before this one, hex; "" for the first
//	ids_sha256                SHA-256 of the sidecar, hex
//
// The signed bytes are the RFC 8785 JSON of the same without the three signatures;
// jq -cSj 'del(.node_a.signature, .node_b.signature, .operator_signature)' writes
// them. Each signature is base64 of one binary OpenPGP signature packet over
//
//	"DSSEv1 47 application/vnd.vaultmesh.federation-merge+json " ‖ length ‖ " " ‖ signed bytes
//
// with the length in decimal. Each side computes every field that it can before
// it signs.
//
// # Sidecar
//
// The ids of the union in ascending order, each with who held it before the
// merge, and then the conflicts in ascending order of their files:
//
//	remembrancer/merge-ids/v1
//	<id in hex> ab            both held it
//	<id in hex> a             only A did
//	<id in hex> b             only B did
//	conflict <kind>/<name>.receipt <id> <id> …
//
// One space stands between words, a newline after every line. With it [Verify]
// computes the three roots and all counts again.
//
// Refused, by every decoder here: what does not encode back to the same bytes.
package merge

import (
	"cmp"
	"iter"
	"slices"

	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// Federated reports whether receipts of a kind are merged. Those that tell of
// merges and snapshots are not: they would change the root that they state.
func Federated(k receipt.Kind) bool {
	return k != receipt.FederationMerge && k != receipt.Snapshot
}

// Conflict is one name that several receipts have. All of them are kept.
type Conflict struct {
	File string       // as [receipt.Receipt.File] has it
	IDs  []receipt.ID // at least two, in order
}

// Conflicts returns the conflicts among receipts, each given as its
// [receipt.Receipt.File] and its id, in any order and any number of times. They
// are in order of their files. Receipts without a file are in conflict with none.
func Conflicts(files iter.Seq2[string, receipt.ID]) []Conflict {
	first := map[string]receipt.ID{}
	more := map[string]map[receipt.ID]bool{}
	for file, id := range files {
		switch was, ok := first[file]; {
		case file == "" || ok && was == id:
		case !ok:
			first[file] = id
		case more[file] == nil:
			more[file] = map[receipt.ID]bool{was: true, id: true}
		default:
			more[file][id] = true
		}
	}
	var all []Conflict
	for file, ids := range more {
		c := Conflict{File: file}
		for id := range ids {
			c.IDs = append(c.IDs, id)
		}
		sortIDs(c.IDs)
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Conflict) int { return cmp.Compare(a.File, b.File) })
	return all
}

func compareIDs(a, b receipt.ID) int { return slices.Compare(a[:], b[:]) }

func sortIDs(ids []receipt.ID) { slices.SortFunc(ids, compareIDs) }
