// Package receipt is the format of one receipt: a canonical in-toto statement
// that names its issuer, and the DSSE envelope that carries its signatures.
//
// # Statement
//
// A statement is an in-toto Statement v1 in RFC 8785 canonical JSON, at most
// [MaxStatement] bytes, with no byte before or after it:
//
//	{"_type":"https://in-toto.io/Statement/v1","predicate":{…},"predicateType":"…","subject":[…]}
//
// Its predicate carries, beside the fields of its kind,
//
//	vaultmesh_issued   RFC 3339 time in UTC, whole seconds
//	vaultmesh_issuer   OpenPGP fingerprint of the issuer, 40 or 64 upper-case hex digits
//	vaultmesh_name     file name of the receipt under ops/receipts/<kind>/; absent on
//	                   receipts that live in the log only
//
// Numbers are integers within ±(2^53−1): a canonicaliser rounds larger ones
// silently, so they are refused before it sees them. Ratios are two counts.
//
// # Identity
//
// The [ID] is SHA-256("remembrancer/receipt/v1\n" ‖ statement). Signatures are
// outside of it: OpenPGP signatures are not deterministic, and a receipt signed
// twice is one receipt.
//
// # Log line
//
// A log line is a DSSE v1 envelope in canonical JSON, at most [MaxLine] bytes:
//
//	{"payload":"<base64 statement>","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"<fingerprint>","sig":"<base64>"}]}
//
// Each signature is one binary OpenPGP signature packet over the DSSE
// pre-authentication encoding ([PAE]) of the statement, at most one for a
// fingerprint, in ascending order of fingerprints. A later signature is a later
// line with the same payload. Only the issuer's signature makes a receipt
// valid; others endorse it.
//
// Refused: anything that does not encode back to the bytes it was read from.
package receipt

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gowebpki/jcs"

	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

const (
	// MaxStatement is the largest statement, in bytes.
	MaxStatement = 32768
	// MaxLine is the largest log line without its newline, in bytes: the
	// largest entry of a C2SP tlog-tiles entry bundle.
	MaxLine = 65535
	// PayloadType is the DSSE payload type of every envelope.
	PayloadType = "application/vnd.in-toto+json"

	statementType = "https://in-toto.io/Statement/v1"
	idPrefix      = "remembrancer/receipt/v1\n"
	ownPredicates = "https://vaultmesh.org/remembrancer/"
	maxDepth      = 16
	maxSubjects   = 256
	maxInteger    = 1<<53 - 1
)

// ID is the identity of a receipt: the hash of its statement.
type ID [sha256.Size]byte

// String returns the id as 64 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads 64 lower-case hex digits.
func ParseID(s string) (ID, error) {
	var id ID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) || s != strings.ToLower(s) {
		return ID{}, fmt.Errorf("receipt id %q: want 64 lower-case hex digits", s)
	}
	copy(id[:], b)
	return id, nil
}

// Kind says what a receipt is about. It names the folder of its file and
// determines its predicate type.
type Kind string

// The kinds. Reserved ones come only from trusted jobs; see [Kind.Reserved].
const (
	Deploy          Kind = "deploy"
	ADR             Kind = "adr"
	Incident        Kind = "incident"
	Discovery       Kind = "discovery"
	Memory          Kind = "memory"      // an imported memory of the ancestor
	LegacyRoot      Kind = "legacy-root" // an imported root of the ancestor
	Smoke           Kind = "smoke"       // in-toto test-result
	Covenant        Kind = "covenant"    // SLSA verification summary
	Audit           Kind = "audit"
	Release         Kind = "release" // in-toto release
	SLO             Kind = "slo"
	Observed        Kind = "observed"
	Snapshot        Kind = "snapshot"
	FederationMerge Kind = "federation-merge"
	PolicyChange    Kind = "policy-change"
	KeyRotation     Kind = "key-rotation"
	Archive         Kind = "archive"
	Waiver          Kind = "waiver" // lets one failed check pass, for a time
)

var predicateTypes = map[Kind]string{
	Smoke:    "https://in-toto.io/attestation/test-result/v0.1",
	Covenant: "https://slsa.dev/verification_summary/v1",
	Release:  "https://in-toto.io/attestation/release/v0.1",
}

// Kinds returns every kind in the order of their names.
func Kinds() []Kind {
	return []Kind{
		ADR, Archive, Audit, Covenant, Deploy, Discovery, FederationMerge, Incident, KeyRotation,
		LegacyRoot, Memory, Observed, PolicyChange, Release, SLO, Smoke, Snapshot, Waiver,
	}
}

// ParseKind reads the name of a kind.
func ParseKind(s string) (Kind, error) {
	if slices.Contains(Kinds(), Kind(s)) {
		return Kind(s), nil
	}
	names := make([]string, 0, len(Kinds()))
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return "", fmt.Errorf("unknown kind of receipt %q, want one of %s", s, strings.Join(names, ", "))
}

// PredicateType returns the URI that names the kind inside a statement.
func (k Kind) PredicateType() string {
	if t, ok := predicateTypes[k]; ok {
		return t
	}
	return ownPredicates + string(k) + "/v1"
}

// Reserved reports whether only a trusted job may issue receipts of this kind:
// a pull request that adds one is refused.
func (k Kind) Reserved() bool {
	switch k {
	case Observed, Snapshot, FederationMerge, PolicyChange, KeyRotation, Archive:
		return true
	}
	return false
}

func kindOf(predicateType string) (Kind, error) {
	for _, k := range Kinds() {
		if k.PredicateType() == predicateType {
			return k, nil
		}
	}
	return "", fmt.Errorf("unknown predicateType %q", predicateType)
}

// Subject is what a receipt is about: a name and the SHA-256 digest of its
// bytes in lower-case hex, or a git commit id.
type Subject struct {
	Name   string
	SHA256 string // 64 hex digits, or empty
	Commit string // git commit id (40 or 64 hex digits), or empty
}

// Statement is what [New] needs to make a receipt. Name may be empty; all else
// is required.
type Statement struct {
	Kind     Kind
	Issuer   openpgp.Fingerprint
	Name     string
	Issued   time.Time // kept in UTC, cut to whole seconds
	Subjects []Subject
	// Predicate holds the fields of the kind. Values are strings, integers,
	// booleans, nil, slices and maps of those, or structs that marshal so. Keys
	// that begin with vaultmesh_ issuer, issued and name are set by New.
	Predicate map[string]any
}

// Receipt is a statement that has been checked. It is immutable; only [New] and
// [Parse] make one.
type Receipt struct {
	statement []byte
	id        ID
	kind      Kind
	issuer    openpgp.Fingerprint
	name      string
	issued    time.Time
	subjects  []Subject
	predicate json.RawMessage
	fields    map[string]json.RawMessage
}

// Bytes returns the canonical statement. The caller must not change it.
func (r *Receipt) Bytes() []byte { return r.statement }

// ID returns the receipt's identity.
func (r *Receipt) ID() ID { return r.id }

// Kind returns what the receipt is about.
func (r *Receipt) Kind() Kind { return r.kind }

// Issuer returns the fingerprint of the key whose signature makes it valid.
func (r *Receipt) Issuer() openpgp.Fingerprint { return r.issuer }

// Name returns the file name without folder and suffix, or "" for a receipt
// that lives in the log only.
func (r *Receipt) Name() string { return r.name }

// Issued returns when the issuer says it was issued.
func (r *Receipt) Issued() time.Time { return r.issued }

// Subjects returns what the receipt is about.
func (r *Receipt) Subjects() []Subject { return r.subjects }

// Predicate returns the predicate's JSON, the vaultmesh_ fields included.
func (r *Receipt) Predicate() json.RawMessage { return r.predicate }

// Field returns a string field of the predicate, or "" when it is absent or not
// a string.
func (r *Receipt) Field(name string) string {
	if raw := r.fields[name]; len(raw) > 0 && raw[0] == '"' {
		return unquote(raw)
	}
	return ""
}

// Decode reads a field of the predicate into v, strictly: keys that v does not
// know are errors.
func (r *Receipt) Decode(name string, v any) error {
	raw, ok := r.fields[name]
	if !ok {
		return fmt.Errorf("%s is missing", name)
	}
	if err := strictUnmarshal(raw, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// File returns the path of the receipt's file below the receipts folder,
// "<kind>/<name>.receipt", or "" for a receipt that lives in the log only.
func (r *Receipt) File() string {
	if r.name == "" {
		return ""
	}
	return string(r.kind) + "/" + r.name + ".receipt"
}

// SignatureFile returns the path of the detached signature of a fingerprint
// beside [Receipt.File].
func (r *Receipt) SignatureFile(f openpgp.Fingerprint) string {
	return r.File() + "." + string(f) + ".asc"
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_+-]*(\.[A-Za-z0-9_+-]+)*$`)

// CheckName says whether a name can be a receipt's file name: letters, digits,
// "_", "+", "-" and single inner dots, at most 128 bytes, and not a device name
// of Windows.
func CheckName(name string) error {
	if len(name) > 128 || !namePattern.MatchString(name) {
		return fmt.Errorf("receipt name %q: want letters, digits, _ + - and single inner dots, at most 128 bytes", name)
	}
	switch base, _, _ := strings.Cut(strings.ToUpper(name), "."); base {
	case "CON", "PRN", "AUX", "NUL", "COM1", "COM2", "COM3", "COM4", "COM5", "COM6", "COM7", "COM8", "COM9",
		"LPT1", "LPT2", "LPT3", "LPT4", "LPT5", "LPT6", "LPT7", "LPT8", "LPT9":
		return fmt.Errorf("receipt name %q is a device name on Windows: choose another", name)
	}
	return nil
}

type wireStatement struct {
	Type          string          `json:"_type"`
	Predicate     json.RawMessage `json:"predicate"`
	PredicateType string          `json:"predicateType"`
	Subject       []wireSubject   `json:"subject"`
}

type wireSubject struct {
	Digest map[string]string `json:"digest"`
	Name   string            `json:"name"`
}

// New makes a receipt from its parts.
func New(s Statement) (*Receipt, error) {
	predicate := make(map[string]any, len(s.Predicate)+3)
	for k, v := range s.Predicate {
		predicate[k] = v
	}
	predicate["vaultmesh_issuer"] = string(s.Issuer)
	predicate["vaultmesh_issued"] = s.Issued.UTC().Format(time.RFC3339)
	delete(predicate, "vaultmesh_name")
	if s.Name != "" {
		predicate["vaultmesh_name"] = s.Name
	}
	subjects := make([]wireSubject, 0, len(s.Subjects))
	for _, sub := range s.Subjects {
		// A file may be called anything; see checkStrings.
		if err := checkStrings(sub.Name); err != nil {
			return nil, fmt.Errorf("receipt: subject: %w", err)
		}
		d := map[string]string{}
		if sub.SHA256 != "" {
			d["sha256"] = sub.SHA256
		}
		if sub.Commit != "" {
			d["gitCommit"] = sub.Commit
		}
		subjects = append(subjects, wireSubject{Digest: d, Name: sub.Name})
	}
	raw, err := Canonical(predicate)
	if err != nil {
		return nil, fmt.Errorf("receipt: predicate: %w", err)
	}
	statement, err := Canonical(wireStatement{
		Type: statementType, Predicate: raw, PredicateType: s.Kind.PredicateType(), Subject: subjects,
	})
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	return Parse(statement)
}

// Parse reads a statement. It is strict: what it accepts is canonical, bounded,
// and encodes back to the same bytes.
func Parse(statement []byte) (*Receipt, error) {
	if len(statement) > MaxStatement {
		return nil, fmt.Errorf("receipt is %d bytes, want at most %d", len(statement), MaxStatement)
	}
	statement = bytes.Clone(statement)
	w, fields, ok := readStatement(statement)
	if !ok {
		var err error
		if w, fields, err = decodeStatement(statement); err != nil {
			return nil, err
		}
	}
	return newReceipt(statement, w, fields)
}

// decodeStatement is the thorough way to do what readStatement does. The fields are
// nil if the predicate is not an object.
func decodeStatement(statement []byte) (w wireStatement, fields map[string]json.RawMessage, err error) {
	if err := checkCanonical(statement); err != nil {
		return w, nil, fmt.Errorf("receipt %w", err)
	}
	if err := strictUnmarshal(statement, &w); err != nil {
		return w, nil, fmt.Errorf("receipt: %w", err)
	}
	// A map, not a struct: encoding/json would match the keys of a struct in any
	// case of letters.
	if json.Unmarshal(w.Predicate, &fields) != nil {
		fields = nil
	}
	return w, fields, nil
}

// newReceipt checks what a canonical statement says.
func newReceipt(statement []byte, w wireStatement, fields map[string]json.RawMessage) (*Receipt, error) {
	if w.Type != statementType {
		return nil, fmt.Errorf("receipt: _type is %q, want %q", w.Type, statementType)
	}
	kind, err := kindOf(w.PredicateType)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	if fields == nil {
		return nil, errors.New("receipt: predicate: want an object")
	}
	r := &Receipt{statement: statement, id: idOf(statement), kind: kind, predicate: w.Predicate, fields: fields}
	issuer := r.Field("vaultmesh_issuer")
	if r.issuer, err = openpgp.ParseFingerprint(issuer); err != nil {
		return nil, fmt.Errorf("receipt: vaultmesh_issuer: %w", err)
	}
	if string(r.issuer) != issuer {
		return nil, fmt.Errorf("receipt: vaultmesh_issuer %q: want upper-case hex without spaces", issuer)
	}
	issued := r.Field("vaultmesh_issued")
	if r.issued, err = time.Parse(time.RFC3339, issued); err != nil || r.issued.UTC().Format(time.RFC3339) != issued {
		return nil, fmt.Errorf("receipt: vaultmesh_issued %q: want an RFC 3339 time in UTC with whole seconds, as 2006-01-02T15:04:05Z", issued)
	}
	if _, ok := r.fields["vaultmesh_name"]; ok {
		r.name = r.Field("vaultmesh_name")
		if err := CheckName(r.name); err != nil {
			return nil, err
		}
	}
	if r.subjects, err = parseSubjects(w.Subject); err != nil {
		return nil, fmt.Errorf("receipt: subject: %w", err)
	}
	return r, nil
}

func parseSubjects(ws []wireSubject) ([]Subject, error) {
	if len(ws) == 0 || len(ws) > maxSubjects {
		return nil, fmt.Errorf("%d subjects, want 1 to %d", len(ws), maxSubjects)
	}
	subjects := make([]Subject, 0, len(ws))
	for _, s := range ws {
		if s.Name == "" || len(s.Digest) == 0 {
			return nil, fmt.Errorf("%q: want a name and a digest", s.Name)
		}
		sub := Subject{Name: s.Name}
		for alg, d := range s.Digest {
			b, err := hex.DecodeString(d)
			ok := err == nil && d == strings.ToLower(d)
			switch {
			case alg == "sha256" && ok && len(b) == sha256.Size:
				sub.SHA256 = d
			case alg == "gitCommit" && ok && (len(b) == 20 || len(b) == 32):
				sub.Commit = d
			default:
				return nil, fmt.Errorf("%q: digest %s:%s: want sha256 or gitCommit in lower-case hex", s.Name, alg, d)
			}
		}
		subjects = append(subjects, sub)
	}
	return subjects, nil
}

func idOf(statement []byte) ID {
	return sha256.Sum256(slices.Concat([]byte(idPrefix), statement))
}

// PAE returns the DSSE v1 pre-authentication encoding of a statement: the bytes
// that are signed.
func PAE(statement []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(PayloadType), PayloadType, len(statement), statement)
}

// Canonical returns the RFC 8785 encoding of v. It refuses what that encoding
// would change silently: numbers that are not integers within ±(2^53−1), and
// strings that are not UTF-8.
func Canonical(v any) ([]byte, error) {
	if err := checkStrings(v); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if isCanonical(raw) {
		return raw, nil
	}
	if err := checkTokens(raw); err != nil {
		return nil, err
	}
	return jcs.Transform(raw)
}

// checkStrings finds strings that encoding/json would repair silently. It sees
// through the maps and slices that predicates are made of; other types can only
// hold what the program itself wrote.
func checkStrings(v any) error {
	switch v := v.(type) {
	case string:
		if !utf8.ValidString(v) {
			return fmt.Errorf("text %q is not UTF-8", v)
		}
	case map[string]any:
		for k, e := range v {
			if err := errors.Join(checkStrings(k), checkStrings(e)); err != nil {
				return err
			}
		}
	case map[string]string:
		for k, e := range v {
			if err := errors.Join(checkStrings(k), checkStrings(e)); err != nil {
				return err
			}
		}
	case []any:
		for _, e := range v {
			if err := checkStrings(e); err != nil {
				return err
			}
		}
	case []string:
		for _, e := range v {
			if err := checkStrings(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkCanonical says whether data is the canonical encoding of itself.
func checkCanonical(data []byte) error {
	if err := checkTokens(data); err != nil {
		return err
	}
	canon, err := jcs.Transform(data)
	if err != nil {
		return fmt.Errorf("is not JSON: %w", err)
	}
	if !bytes.Equal(canon, data) {
		return errors.New("is not canonical JSON (RFC 8785)")
	}
	return nil
}

// checkTokens refuses what the canonicaliser would round, merge or repair.
func checkTokens(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := checkValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("has bytes after its JSON value")
	}
	return nil
}

func checkValue(dec *json.Decoder, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("is nested deeper than %d", maxDepth)
	}
	tok, err := dec.Token()
	if err != nil {
		return fmt.Errorf("is not JSON: %w", err)
	}
	switch tok := tok.(type) {
	case json.Number:
		n, err := strconv.ParseInt(tok.String(), 10, 64)
		if err != nil || n > maxInteger || n < -maxInteger || (n == 0 && tok.String() != "0") {
			return fmt.Errorf("holds the number %s: want integers within ±%d; write a ratio as two counts", tok, int64(maxInteger))
		}
	case json.Delim:
		seen := map[string]bool{}
		for dec.More() {
			if tok == '{' {
				key, err := dec.Token()
				if err != nil {
					return fmt.Errorf("is not JSON: %w", err)
				}
				if seen[key.(string)] {
					return fmt.Errorf("names the key %q twice", key)
				}
				seen[key.(string)] = true
			}
			if err := checkValue(dec, depth+1); err != nil {
				return err
			}
		}
		if _, err := dec.Token(); err != nil {
			return fmt.Errorf("is not JSON: %w", err)
		}
	}
	return nil
}

// strictUnmarshal decodes with unknown keys refused, and required keys spelt in
// their exact case: encoding/json folds case, a canonical form must not.
func strictUnmarshal(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	back, err := json.Marshal(v)
	if err != nil {
		return err
	}
	canon, err := jcs.Transform(back)
	if err != nil {
		return err
	}
	if !bytes.Equal(canon, data) {
		return errors.New("has missing, unknown or misspelt keys")
	}
	return nil
}

// Signature is one party's signature of a statement.
type Signature struct {
	Fingerprint openpgp.Fingerprint
	Packet      []byte // one binary OpenPGP signature packet over PAE(statement)
}

// Entry is what one log line holds: a receipt and signatures of it.
type Entry struct {
	Receipt    *Receipt
	Signatures []Signature // ascending by fingerprint, at least one
}

type wireEnvelope struct {
	Payload     string          `json:"payload"`
	PayloadType string          `json:"payloadType"`
	Signatures  []wireSignature `json:"signatures"`
}

type wireSignature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// NewEntry makes an entry, putting its signatures in order.
func NewEntry(r *Receipt, sigs ...Signature) (Entry, error) {
	e := Entry{Receipt: r, Signatures: slices.Clone(sigs)}
	slices.SortFunc(e.Signatures, func(a, b Signature) int {
		return strings.Compare(string(a.Fingerprint), string(b.Fingerprint))
	})
	if _, err := ParseLine(e.encode()); err != nil {
		return Entry{}, err
	}
	return e, nil
}

// Line returns the log line of the entry, without a newline.
func (e Entry) Line() []byte { return e.encode() }

func (e Entry) encode() []byte {
	// Every byte of an envelope is ASCII that JSON does not escape, and the keys
	// are in order: this is its canonical encoding.
	b := append(make([]byte, 0, 2*len(e.Receipt.statement)), `{"payload":"`...)
	b = base64.StdEncoding.AppendEncode(b, e.Receipt.statement)
	b = append(b, `","payloadType":"`+PayloadType+`","signatures":[`...)
	for i, s := range e.Signatures {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"keyid":"`+string(s.Fingerprint)+`","sig":"`...)
		b = base64.StdEncoding.AppendEncode(b, s.Packet)
		b = append(b, `"}`...)
	}
	return append(b, `]}`...)
}

// ParseLine reads a log line without its newline. It does not verify
// signatures; see [Entry.Verify].
func ParseLine(line []byte) (Entry, error) {
	if len(line) > MaxLine {
		return Entry{}, fmt.Errorf("log line is %d bytes, want at most %d", len(line), MaxLine)
	}
	w, ok := readEnvelope(line)
	if !ok {
		var err error
		if w, err = decodeEnvelope(line); err != nil {
			return Entry{}, err
		}
	}
	return newEntry(line, w)
}

// decodeEnvelope is the thorough way to do what readEnvelope does.
func decodeEnvelope(line []byte) (w wireEnvelope, err error) {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&w); err != nil {
		return w, fmt.Errorf("log line is not a DSSE envelope: %w", err)
	}
	return w, nil
}

// newEntry checks what an envelope says, and that it is the only line that says it.
func newEntry(line []byte, w wireEnvelope) (Entry, error) {
	if w.PayloadType != PayloadType {
		return Entry{}, fmt.Errorf("log line: payloadType is %q, want %q", w.PayloadType, PayloadType)
	}
	statement, err := base64.StdEncoding.DecodeString(w.Payload)
	if err != nil {
		return Entry{}, fmt.Errorf("log line: payload: %w", err)
	}
	r, err := Parse(statement)
	if err != nil {
		return Entry{}, fmt.Errorf("log line: %w", err)
	}
	if len(w.Signatures) == 0 {
		return Entry{}, errors.New("log line has no signature")
	}
	e := Entry{Receipt: r}
	for i, s := range w.Signatures {
		f, err := openpgp.ParseFingerprint(s.KeyID)
		if err != nil {
			return Entry{}, fmt.Errorf("log line: keyid: %w", err)
		}
		if i > 0 && e.Signatures[i-1].Fingerprint >= f {
			return Entry{}, errors.New("log line: want one signature for a fingerprint, in ascending order")
		}
		packet, err := base64.StdEncoding.DecodeString(s.Sig)
		if err != nil || len(packet) == 0 {
			return Entry{}, fmt.Errorf("log line: signature of %s is not base64", f)
		}
		e.Signatures = append(e.Signatures, Signature{Fingerprint: f, Packet: packet})
	}
	if !bytes.Equal(e.encode(), line) {
		return Entry{}, errors.New("log line does not encode back to itself: it is not canonical")
	}
	return e, nil
}
