package merge

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

const (
	// PayloadType is the DSSE payload type of what both sides sign.
	PayloadType = "application/vnd.vaultmesh.federation-merge+json"
	// MaxReceipt is the largest file of a merge receipt, in bytes.
	MaxReceipt = 512 << 10

	receiptType     = "federation_merge"
	receiptVersion  = "1.0"
	protocolVersion = "v4.0-federation-phase2"
	verification    = "Both nodes independently compute same merged_root"
)

// Side is what one node brings to a merge and says of itself.
type Side struct {
	Node        string // its name
	Endpoint    string // where it is reached, or ""
	Fingerprint openpgp.Fingerprint
	Log         string   // vkey of its log
	Checkpoint  string   // the signed note of its log before the merge, "" if the log had no entry
	Set         string   // vkey of its set notes
	SetNote     string   // the signed note of its set before the merge; see [SetNoteText]
	RootBefore  set.Hash // root of its set before the merge
	Count       int      // ids of its set before the merge
	Nonce       string   // 64 hex digits: the other side's challenge, which this side answers
}

// Body is what both sides compute, compare and sign.
type Body struct {
	Time      time.Time // kept in UTC and whole seconds; it decides nothing
	A, B      Side      // A asked for the merge
	Merged    set.Hash  // root of the union
	Total     int       // ids of the union
	AddedToA  int       // ids that only B held
	AddedToB  int       // ids that only A held
	Conflicts int       // names that several receipts of the union have
	Trust     string    // hash of the trust state that both have
	Previous  string    // [Body.Digest] of the merge of these two before this one, or ""
	IDs       string    // SHA-256 of the sidecar, hex
	Operator  openpgp.Fingerprint
}

// Receipt is a merge receipt: a body, and binary OpenPGP signatures of both sides
// and of the operator over its [PAE]. Parsing one verifies nothing; see [Verify].
type Receipt struct {
	Body                    Body
	SigA, SigB, SigOperator []byte
}

// The order of these fields is the order of the keys in the file.
type wireReceipt struct {
	Type              string     `json:"type"`
	Version           string     `json:"version"`
	Timestamp         string     `json:"timestamp"`
	NodeA             wireSide   `json:"node_a"`
	NodeB             wireSide   `json:"node_b"`
	Result            wireResult `json:"merge_result"`
	OperatorSignature string     `json:"operator_signature,omitempty"`
	OperatorKey       string     `json:"operator_key"`
	Protocol          string     `json:"protocol_version"`
	Trust             string     `json:"trust_state"`
	Previous          string     `json:"previous"`
	IDs               string     `json:"ids_sha256"`
}

type wireSide struct {
	Endpoint   string `json:"endpoint"`
	RootBefore string `json:"merkle_root_before"`
	Count      int    `json:"receipt_count"`
	Signature  string `json:"signature,omitempty"`
	KeyID      string `json:"key_id"`
	Node       string `json:"node_id"`
	Log        string `json:"log"`
	Checkpoint string `json:"checkpoint"`
	Set        string `json:"set_key"`
	SetNote    string `json:"set_note"`
	Nonce      string `json:"nonce"`
}

type wireResult struct {
	Merged        string `json:"merged_root"`
	Total         int    `json:"total_receipts"`
	FromPeer      int    `json:"new_receipts_from_peer"`
	ToPeer        int    `json:"new_receipts_to_peer"`
	Conflicts     int    `json:"conflicts"`
	Deterministic bool   `json:"deterministic"`
	Verification  string `json:"verification"`
}

func (s Side) wire(sig []byte) wireSide {
	return wireSide{
		Endpoint: s.Endpoint, RootBefore: s.RootBefore.String(), Count: s.Count,
		Signature: base64.StdEncoding.EncodeToString(sig), KeyID: string(s.Fingerprint), Node: s.Node,
		Log: s.Log, Checkpoint: s.Checkpoint, Set: s.Set, SetNote: s.SetNote, Nonce: s.Nonce,
	}
}

func (b Body) wire(sigA, sigB, sigOperator []byte) wireReceipt {
	return wireReceipt{
		Type: receiptType, Version: receiptVersion, Timestamp: b.Time.UTC().Format(time.RFC3339),
		NodeA: b.A.wire(sigA), NodeB: b.B.wire(sigB),
		Result: wireResult{
			Merged: b.Merged.String(), Total: b.Total, FromPeer: b.AddedToA, ToPeer: b.AddedToB,
			Conflicts: b.Conflicts, Deterministic: true, Verification: verification,
		},
		OperatorSignature: base64.StdEncoding.EncodeToString(sigOperator), OperatorKey: string(b.Operator),
		Protocol: protocolVersion, Trust: b.Trust, Previous: b.Previous, IDs: b.IDs,
	}
}

func (w wireSide) side() (s Side, err error) {
	s = Side{
		Node: w.Node, Endpoint: w.Endpoint, Fingerprint: openpgp.Fingerprint(w.KeyID), Log: w.Log,
		Checkpoint: w.Checkpoint, Set: w.Set, SetNote: w.SetNote, Count: w.Count, Nonce: w.Nonce,
	}
	s.RootBefore, err = set.ParseHash(w.RootBefore)
	return s, err
}

func (w wireReceipt) body() (b Body, err error) {
	b = Body{
		Total: w.Result.Total, AddedToA: w.Result.FromPeer, AddedToB: w.Result.ToPeer,
		Conflicts: w.Result.Conflicts, Trust: w.Trust, Previous: w.Previous, IDs: w.IDs,
		Operator: openpgp.Fingerprint(w.OperatorKey),
	}
	for _, c := range []struct{ key, found, want string }{
		{"type", w.Type, receiptType},
		{"version", w.Version, receiptVersion},
		{"protocol_version", w.Protocol, protocolVersion},
		{"verification", w.Result.Verification, verification},
		{"deterministic", strconv.FormatBool(w.Result.Deterministic), "true"},
	} {
		if c.found != c.want {
			return Body{}, fmt.Errorf("%s is %.100q, want %q", c.key, c.found, c.want)
		}
	}
	if b.Time, err = time.Parse(time.RFC3339, w.Timestamp); err != nil || b.Time.UTC().Format(time.RFC3339) != w.Timestamp {
		return Body{}, fmt.Errorf("timestamp %.100q: want an RFC 3339 time in UTC with whole seconds, as 2006-01-02T15:04:05Z", w.Timestamp)
	}
	b.Time = b.Time.UTC()
	if b.A, err = w.NodeA.side(); err != nil {
		return Body{}, fmt.Errorf("node_a: %w", err)
	}
	if b.B, err = w.NodeB.side(); err != nil {
		return Body{}, fmt.Errorf("node_b: %w", err)
	}
	if b.Merged, err = set.ParseHash(w.Result.Merged); err != nil {
		return Body{}, fmt.Errorf("merged_root: %w", err)
	}
	return b, b.check()
}

// check says whether the body can be written. It does not say whether it is true.
func (b Body) check() error {
	if y := b.Time.UTC().Year(); y < 1 || y > 9999 {
		return fmt.Errorf("timestamp is in the year %d, want 1 to 9999", y)
	}
	for _, s := range []struct {
		key  string
		side Side
	}{{"node_a", b.A}, {"node_b", b.B}} {
		if err := s.side.check(); err != nil {
			return fmt.Errorf("%s: %w", s.key, err)
		}
	}
	if b.A.Fingerprint == b.B.Fingerprint {
		return fmt.Errorf("both sides have the key %s: one node alone cannot vouch for a merge", b.A.Fingerprint)
	}
	for _, n := range []struct {
		key   string
		value int
	}{
		{"total_receipts", b.Total},
		{"new_receipts_from_peer", b.AddedToA},
		{"new_receipts_to_peer", b.AddedToB},
		{"conflicts", b.Conflicts},
	} {
		if n.value < 0 || int64(n.value) > maxInteger {
			return fmt.Errorf("%s is %d, want 0 to 2^53-1", n.key, n.value)
		}
	}
	for _, d := range []struct{ key, value string }{{"trust_state", b.Trust}, {"ids_sha256", b.IDs}, {"previous", b.Previous}} {
		if _, err := parseDigest(d.value); err != nil && (d.key != "previous" || d.value != "") {
			return fmt.Errorf("%s %w", d.key, err)
		}
	}
	return checkFingerprint("operator_key", b.Operator)
}

func (s Side) check() error {
	if err := checkpoint.CheckOrigin(s.Node); err != nil {
		return fmt.Errorf("node_id: %w", err)
	}
	if strings.IndexFunc(s.Endpoint, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 || len(s.Endpoint) > 2048 {
		return fmt.Errorf("endpoint %.100q: want a URL of printable ASCII, or nothing", s.Endpoint)
	}
	if err := checkFingerprint("key_id", s.Fingerprint); err != nil {
		return err
	}
	if err := checkpoint.CheckNoteKey(s.Log); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	if err := checkpoint.CheckNoteKey(s.Set); err != nil {
		return fmt.Errorf("set_key: %w", err)
	}
	for _, n := range []struct{ key, note string }{{"checkpoint", s.Checkpoint}, {"set_note", s.SetNote}} {
		if !utf8.ValidString(n.note) || len(n.note) > 64<<10 {
			return fmt.Errorf("%s: want a signed note of at most 64 KiB", n.key)
		}
	}
	if s.Count < 0 || int64(s.Count) > maxInteger {
		return fmt.Errorf("receipt_count is %d, want 0 to 2^53-1", s.Count)
	}
	if _, err := parseDigest(s.Nonce); err != nil {
		return fmt.Errorf("nonce %w", err)
	}
	return nil
}

func checkFingerprint(key string, f openpgp.Fingerprint) error {
	got, err := openpgp.ParseFingerprint(string(f))
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if got != f {
		return fmt.Errorf("%s %q: want upper-case hex digits without spaces", key, f)
	}
	return nil
}

// Bytes returns the signed bytes: the RFC 8785 JSON of the receipt without its
// three signatures.
func (b Body) Bytes() ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("merge receipt: %w", err)
	}
	canon, err := receipt.Canonical(b.wire(nil, nil, nil))
	if err != nil {
		return nil, fmt.Errorf("merge receipt: %w", err)
	}
	return canon, nil
}

// Digest returns the SHA-256 of the signed bytes in hex: what the next merge of
// these two names as the one before it.
func (b Body) Digest() (string, error) {
	data, err := b.Bytes()
	if err != nil {
		return "", err
	}
	return digest(data), nil
}

// ParseBody reads the signed bytes. What it accepts encodes back to them.
func ParseBody(data []byte) (Body, error) {
	w, err := decode(data)
	if err != nil {
		return Body{}, err
	}
	b, err := w.body()
	if err != nil {
		return Body{}, fmt.Errorf("merge receipt: %w", err)
	}
	back, err := b.Bytes()
	if err != nil {
		return Body{}, err
	}
	if !bytes.Equal(back, data) {
		return Body{}, errors.New("merge receipt: body is not the canonical JSON (RFC 8785) of a receipt without signatures")
	}
	return b, nil
}

func decode(data []byte) (w wireReceipt, err error) {
	if len(data) > MaxReceipt {
		return w, fmt.Errorf("merge receipt is %d bytes, want at most %d", len(data), MaxReceipt)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&w); err != nil {
		return w, fmt.Errorf("merge receipt: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return w, errors.New("merge receipt: has bytes after its JSON value")
	}
	return w, nil
}

// PAE returns the DSSE v1 pre-authentication encoding of a body's bytes: what is
// signed.
func PAE(body []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(PayloadType), PayloadType, len(body), body)
}

// Marshal returns the file.
func (r *Receipt) Marshal() ([]byte, error) {
	if err := r.Body.check(); err != nil {
		return nil, fmt.Errorf("merge receipt: %w", err)
	}
	for _, s := range [][]byte{r.SigA, r.SigB, r.SigOperator} {
		if len(s) == 0 {
			return nil, errors.New("merge receipt: want the signatures of both sides and of the operator")
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r.Body.wire(r.SigA, r.SigB, r.SigOperator)); err != nil {
		return nil, fmt.Errorf("merge receipt: %w", err)
	}
	if b.Len() > MaxReceipt {
		return nil, fmt.Errorf("merge receipt is %d bytes, want at most %d", b.Len(), MaxReceipt)
	}
	return b.Bytes(), nil
}

// Parse reads a file. What it accepts encodes back to the same bytes.
func Parse(file []byte) (*Receipt, error) {
	w, err := decode(file)
	if err != nil {
		return nil, err
	}
	r := &Receipt{}
	if r.Body, err = w.body(); err != nil {
		return nil, fmt.Errorf("merge receipt: %w", err)
	}
	for _, s := range []struct {
		key, text string
		to        *[]byte
	}{
		{"node_a: signature", w.NodeA.Signature, &r.SigA},
		{"node_b: signature", w.NodeB.Signature, &r.SigB},
		{"operator_signature", w.OperatorSignature, &r.SigOperator},
	} {
		if *s.to, err = base64.StdEncoding.Strict().DecodeString(s.text); err != nil || s.text == "" {
			return nil, fmt.Errorf("merge receipt: %s: want the base64 of a binary OpenPGP signature", s.key)
		}
	}
	back, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(back, file) {
		return nil, errors.New("merge receipt: file does not encode back to itself: want these keys in this order, two spaces of indent, and a newline at the end")
	}
	return r, nil
}

const setHeader = "remembrancer/set/v1"

// SetNote is what a node signs of its set.
type SetNote struct {
	Node  string
	Trust string // hash of the trust state under which the ids are valid
	Count int    // number of ids
	Root  set.Hash
}

// SetNoteText returns the text of a set note, to be signed by the set key with
// [checkpoint.SignNote].
func SetNoteText(node, trust string, count int, root set.Hash) []byte {
	return fmt.Appendf(nil, "%s\n%s\n%s\n%d\n%s\n", setHeader, node, trust, count, root)
}

// ParseSetNote reads the text of a set note. What it accepts encodes back to the
// same bytes.
func ParseSetNote(text []byte) (SetNote, error) {
	lines := strings.Split(string(text), "\n")
	if len(lines) != 6 || lines[5] != "" || lines[0] != setHeader {
		return SetNote{}, fmt.Errorf("set note: want the five lines %s, node, trust state, count and root", setHeader)
	}
	n := SetNote{Node: lines[1], Trust: lines[2]}
	if err := checkpoint.CheckOrigin(n.Node); err != nil {
		return SetNote{}, fmt.Errorf("set note: node: %w", err)
	}
	if _, err := parseDigest(n.Trust); err != nil {
		return SetNote{}, fmt.Errorf("set note: trust state %w", err)
	}
	var err error
	if n.Count, err = strconv.Atoi(lines[3]); err != nil || n.Count < 0 || int64(n.Count) > maxInteger || strconv.Itoa(n.Count) != lines[3] {
		return SetNote{}, fmt.Errorf("set note: count %q: want a decimal number without leading zeroes", lines[3])
	}
	if n.Root, err = set.ParseHash(lines[4]); err != nil {
		return SetNote{}, fmt.Errorf("set note: root: %w", err)
	}
	return n, nil
}
