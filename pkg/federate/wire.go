package federate

import (
	"time"

	"github.com/vaultmesh/remembrancer/pkg/merge"
)

// Protocol is what both sides of a sync must speak.
const Protocol = "remembrancer/federation/v1"

// The tools of the protocol, by their names in MCP.
const (
	ToolIdentity = "fed_identity"
	ToolHello    = "fed_hello"
	ToolTrust    = "fed_trust"
	ToolTail     = "fed_tail"
	ToolDiff     = "fed_diff"
	ToolIDs      = "fed_ids"
	ToolGet      = "fed_get"
	ToolSession  = "fed_session"
	ToolPush     = "fed_push"
	ToolMergeIDs = "fed_merge_ids"
	ToolPropose  = "fed_merge_propose"
	ToolCommit   = "fed_merge_commit"
)

// Limits of one answer or request. A party that exceeds one is refused.
const (
	MaxTailEntries = 256     // entries of a page of a tail
	MaxPageBytes   = 1 << 20 // bytes of lines of a page
	MaxGet         = 256     // ids of one fed_get, items of one fed_push
	MaxIDs         = 8192    // ids of one fed_ids or fed_merge_ids
	MaxPrefixes    = 8192    // prefixes of one fed_diff
)

// Identity is who a node says it is, signed once by its OpenPGP key.
type Identity struct {
	Node        string `json:"node"`        // the name of the node and of its log
	Fingerprint string `json:"fingerprint"` // of the key that issues its receipts
	Log         string `json:"log"`         // vkey of its log
	Witness     string `json:"witness"`     // vkey of its cosignatures
	Set         string `json:"set"`         // vkey of its set notes
	Endpoint    string `json:"endpoint"`    // where it is reached, or ""
}

// IdentityIn asks for a node's identity.
type IdentityIn struct{}

// IdentityOut is a node's identity: the canonical JSON of an [Identity], and a
// binary OpenPGP signature over its DSSE PAE, of payload type
// application/vnd.vaultmesh.node-identity+json, in base64.
type IdentityOut struct {
	Identity  string `json:"identity"`
	Signature string `json:"signature"`
}

// HelloIn opens a sync.
type HelloIn struct {
	Protocol string `json:"protocol"`
}

// HelloOut is all that two nodes of equal sets need to exchange. The set note
// names the trust state and the root; Challenge is what a session signs.
type HelloOut struct {
	Protocol   string `json:"protocol"`
	Checkpoint string `json:"checkpoint"` // signed note, "" for a log without entries
	Set        string `json:"set"`        // signed note
	Challenge  string `json:"challenge"`  // 64 hex digits
}

// TrustIn asks for the members of a node's trust state.
type TrustIn struct{}

// TrustOut is what the hash of a trust state covers.
type TrustOut struct {
	Members []merge.Named `json:"members"`
}

// TailIn asks for log entries from an index on.
type TailIn struct {
	From int64 `json:"from"`
	Size int64 `json:"size"` // of the checkpoint that hello showed: the page ends there
	// ProofOnly asks for the proof without any line.
	ProofOnly bool `json:"proof_only,omitempty"`
}

// TailOut is a page of a log. Proof is that the tree of From entries is a prefix
// of that of Size entries (base64 hashes); empty where From is 0 or Size.
type TailOut struct {
	From  int64    `json:"from"`
	Size  int64    `json:"size"`
	Lines []string `json:"lines"`
	Proof []string `json:"proof,omitempty"`
}

// DiffIn asks for subtrees of the set of a root.
type DiffIn struct {
	Root     string   `json:"root"`
	Prefixes []string `json:"prefixes"` // as set.Prefix writes them
	Levels   int      `json:"levels"`
}

// DiffOut has one encoded subtree for each prefix, in order.
type DiffOut struct {
	Root     string   `json:"root"`
	Subtrees [][]byte `json:"subtrees"`
}

// IDsIn asks for the ids of the set of a root, in order, after one of them.
type IDsIn struct {
	Root  string `json:"root"`
	After string `json:"after,omitempty"`
}

// IDsOut is a page of ids. More says that others follow.
type IDsOut struct {
	Root string   `json:"root"`
	IDs  []string `json:"ids"`
	More bool     `json:"more"`
}

// GetIn asks for receipts.
type GetIn struct {
	IDs []string `json:"ids"`
}

// GetOut are those that are there, as far as they fit a page: each was asked for,
// at most once. Whoever asked asks again for the rest, until an answer is empty.
type GetOut struct {
	Items []merge.Item `json:"items"`
}

// SessionIn begins the writing half of a sync: a member of the trust state signs
// the challenge of a hello, and all that it will state of itself in the merge. The
// signature is over the DSSE PAE, of payload type
// application/vnd.vaultmesh.federation-session+json, of the canonical JSON of this
// request without the key signature and with the key audience: the name of the
// node that is asked.
type SessionIn struct {
	Challenge   string      `json:"challenge"`
	Nonce       string      `json:"nonce"` // 64 hex digits, for the other side's half of the receipt
	Node        string      `json:"node"`
	Fingerprint string      `json:"fingerprint"`
	Identity    IdentityOut `json:"identity"`
	Checkpoint  string      `json:"checkpoint"` // of the own log before the merge; "" for an empty one
	Set         string      `json:"set"`        // the own set note before the merge
	Time        string      `json:"time"`       // RFC 3339 in UTC: what the merge will be dated
	Operator    string      `json:"operator"`   // fingerprint of who will sign as the operator
	Signature   string      `json:"signature,omitempty"`
}

// SessionOut names a session. It is bound to the set that the hello of its
// challenge showed, and ends by itself after a while.
type SessionOut struct {
	Session string `json:"session"`
	// Previous is the file of the last merge receipt that these two nodes made, as
	// the other side has it: what the next one names. "" before the first.
	Previous string `json:"previous,omitempty"`
	// Witnessed is the size of the newest checkpoint of the caller's log that the
	// other side has cosigned: where the proof of fed_merge_propose begins.
	Witnessed int64 `json:"witnessed"`
}

// PushIn gives receipts that the other side lacks.
type PushIn struct {
	Session string       `json:"session"`
	Items   []merge.Item `json:"items"`
}

// PushOut says what became of them.
type PushOut struct {
	Added    int            `json:"added"`
	Known    int            `json:"known"`
	Rejected []RejectedItem `json:"rejected,omitempty"`
	Judged   time.Duration  `json:"-"` // how long it took to say what may enter, before anything was written
}

// RejectedItem is one that was quarantined.
type RejectedItem struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

// MergeIDsIn tells the other side of a session what it cannot know of the sets
// before the merge: which ids only one of them held. It may come in parts.
type MergeIDsIn struct {
	Session string   `json:"session"`
	OnlyA   []string `json:"only_a,omitempty"` // A is who syncs, B who answers
	OnlyB   []string `json:"only_b,omitempty"`
}

// MergeIDsOut counts what has come so far.
type MergeIDsOut struct {
	OnlyA int `json:"only_a"`
	OnlyB int `json:"only_b"`
}

// ProposeIn is the body of a merge receipt: canonical JSON, as merge.Body has it.
// B recomputes every field that it can know, and signs only what it finds so.
type ProposeIn struct {
	Session string   `json:"session"`
	Body    string   `json:"body"`
	Proof   []string `json:"proof,omitempty"` // from SessionOut.Witnessed to the checkpoint of A
}

// ProposeOut is B's signature over merge.PAE of the body.
type ProposeOut struct {
	Root      string `json:"root"`      // as B computed it
	Signature string `json:"signature"` // base64
}

// CommitIn hands over the finished receipt, which B verifies and records.
type CommitIn struct {
	Session string `json:"session"`
	Receipt string `json:"receipt"` // the file
	// Checkpoint is the newest of A's log, which holds the receipt, and Proof that it
	// extends the one in the receipt.
	Checkpoint string   `json:"checkpoint,omitempty"`
	Proof      []string `json:"proof,omitempty"`
	// Cosignature is A's, of the checkpoint of B in the receipt: one line of a note.
	Cosignature string `json:"cosignature,omitempty"`
}

// CommitOut says where B keeps it.
type CommitOut struct {
	File string `json:"file"`
	ID   string `json:"id"` // of the receipt of kind federation-merge in B's log
	// Checkpoint is the newest of B's log, which holds the receipt, and Proof that it
	// extends the one in the receipt.
	Checkpoint string   `json:"checkpoint"`
	Proof      []string `json:"proof,omitempty"`
	// Cosignature is B's, of CommitIn.Checkpoint: one line of a note.
	Cosignature string `json:"cosignature,omitempty"`
}
