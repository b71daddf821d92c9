package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// memory is a receipt in the ancestor's shape. Each field is taken from the receipt;
// what the receipt does not say is null.
type memory struct {
	ID        string  `json:"id" jsonschema:"id of the receipt"`
	Timestamp string  `json:"timestamp" jsonschema:"when its issuer says it was issued"`
	Type      string  `json:"type" jsonschema:"kind of the receipt"`
	Component *string `json:"component"`
	Version   *string `json:"version"`
	Hash      *string `json:"hash" jsonschema:"SHA-256 of its first subject"`
	Sig       *string `json:"sig" jsonschema:"OpenPGP signature of the issuer over the DSSE encoding of the statement, in base64"`
	Data      any     `json:"data" jsonschema:"the predicate"`
	// MerkleRoot is not of the receipt: it is the log's, as it is now.
	MerkleRoot string `json:"merkle_root" jsonschema:"root of the node's log now, in hex"`
	Line       string `json:"line" jsonschema:"the receipt's line in the log, which proves the rest"`
}

func memoryOf(e receipt.Entry, root string) (memory, error) {
	r := e.Receipt
	m := memory{
		ID: r.ID().String(), Timestamp: r.Issued().UTC().Format(time.RFC3339), Type: string(r.Kind()),
		Component: orNil(r.Field("component")), Version: orNil(r.Field("version")),
		Hash: orNil(r.Subjects()[0].SHA256), MerkleRoot: root, Line: string(e.Line()),
	}
	for _, s := range e.Signatures {
		if s.Fingerprint == r.Issuer() {
			m.Sig = orNil(base64.StdEncoding.EncodeToString(s.Packet))
		}
	}
	// Integers of a receipt are at most 2^53−1, so nothing is lost.
	if err := json.Unmarshal(r.Predicate(), &m.Data); err != nil {
		return memory{}, err
	}
	return m, nil
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// titleOf is one line that says what a receipt is.
func titleOf(r *receipt.Receipt) string {
	if t := r.Field("title"); t != "" {
		return t
	}
	if t := strings.TrimSpace(r.Field("component") + " " + r.Field("version")); t != "" {
		return t
	}
	if r.Name() != "" {
		return r.Name()
	}
	return string(r.Kind()) + " " + r.ID().String()[:12]
}

// served says whether a receipt of the log is shown: it is valid under the trust
// state of the moment, or is what this node says of its own merges.
func (s *Server) served(snapshot *federate.Snapshot, r *receipt.Receipt) bool {
	if merge.Federated(r.Kind()) {
		return snapshot.Set.Has(r.ID())
	}
	return string(r.Issuer()) == s.o.Store.Identity().Fingerprint
}

// eachLine gives fn the lines of the log from an index on. Unlike Store.Entries, it
// says so where the log cannot be read: a search that saw half of it found nothing out.
func eachLine(ctx context.Context, store *federate.Store, from, size int64, fn func(line string) error) error {
	for from < size {
		if err := ctx.Err(); err != nil {
			return err
		}
		page, err := store.Tail(from, size, federate.MaxTailEntries, federate.MaxPageBytes)
		if err != nil {
			return err
		}
		if len(page.Lines) == 0 {
			return fmt.Errorf("the log ends at entry %d, want %d", from, size)
		}
		for _, line := range page.Lines {
			if err := fn(line); err != nil {
				return fmt.Errorf("entry %d: %w", from, err)
			}
			from++
		}
	}
	return nil
}

// words cuts text into what is compared: runs of letters and digits, in lower case.
func words(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

// What a word is worth, by where it is found.
const (
	weightTitle = 4 // title, name, component, version, kind
	weightText  = 1
)

// searchLog searches the log itself, entry by entry. A receipt is found that has all
// words; its score is the mean weight of where they are, of 1.
func (s *Server) searchLog(ctx context.Context, query string, limit int) ([]Hit, error) {
	wanted := words(query)
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	if len(wanted) == 0 {
		return []Hit{}, nil
	}
	snapshot, err := s.o.Store.Snapshot()
	if err != nil {
		return nil, err
	}
	hits := []Hit{}
	seen := map[receipt.ID]bool{}
	best := func(a, b Hit) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(b.Issued, a.Issued), cmp.Compare(a.ID, b.ID))
	}
	err = eachLine(ctx, s.o.Store, 0, snapshot.Size, func(line string) error {
		e, err := receipt.ParseLine([]byte(line))
		if err != nil {
			return err
		}
		r := e.Receipt
		if seen[r.ID()] || !s.served(snapshot, r) {
			return nil
		}
		score := scoreOf(r, wanted)
		if score == 0 {
			return nil
		}
		seen[r.ID()] = true
		hits = append(hits, Hit{
			ID: r.ID().String(), Title: titleOf(r), Score: score, Kind: string(r.Kind()),
			Component: r.Field("component"), Version: r.Field("version"), Issued: r.Issued().UTC().Format(time.RFC3339),
		})
		if len(hits) >= 2*limit+256 {
			slices.SortFunc(hits, best)
			hits = hits[:limit]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(hits, best)
	return hits[:min(limit, len(hits))], nil
}

func scoreOf(r *receipt.Receipt, wanted []string) float64 {
	title := words(strings.Join([]string{
		titleOf(r), r.Name(), r.Field("component"), r.Field("version"), string(r.Kind()), r.ID().String(),
	}, " "))
	var text []string
	sum := 0
	for _, w := range wanted {
		if slices.Contains(title, w) {
			sum += weightTitle
			continue
		}
		if text == nil {
			text = words(string(r.Predicate()))
		}
		if !slices.Contains(text, w) {
			return 0
		}
		sum += weightText
	}
	return float64(sum) / float64(weightTitle*len(wanted))
}

// catalogue knows the decisions and deployments of the log by what they are called.
// It is derived, and follows the log.
type catalogue struct {
	store *federate.Store

	mu        sync.Mutex
	next      int64     // entries looked at
	followed  time.Time // when a number was given out after looking
	decisions map[decision][]receipt.ID
	deployed  map[deployment][]receipt.ID
	number    int64 // highest of a decision, recorded or being recorded
}

type decision struct{ year, number int64 }

type deployment struct{ component, version string }

// The kinds in the catalogue, as a canonical statement shows them.
var (
	markDecision = []byte(`"predicateType":"` + receipt.ADR.PredicateType() + `"`)
	markDeployed = []byte(`"predicateType":"` + receipt.Deploy.PredicateType() + `"`)
)

// follow reads what has been added to the log since. The lock is held.
func (c *catalogue) follow(ctx context.Context) error {
	if c.decisions == nil {
		c.decisions, c.deployed = map[decision][]receipt.ID{}, map[deployment][]receipt.ID{}
	}
	snapshot, err := c.store.Snapshot()
	if err != nil {
		return err
	}
	return eachLine(ctx, c.store, c.next, snapshot.Size, func(line string) error {
		if err := c.add(line); err != nil {
			return err
		}
		c.next++
		return nil
	})
}

func (c *catalogue) add(line string) error {
	payload, _, _ := strings.Cut(strings.TrimPrefix(line, `{"payload":"`), `"`)
	statement, err := base64.StdEncoding.DecodeString(payload)
	if err != nil {
		return err
	}
	// Most receipts are of other kinds: to look is much cheaper than to parse.
	if !bytes.Contains(statement, markDecision) && !bytes.Contains(statement, markDeployed) {
		return nil
	}
	r, err := receipt.Parse(statement)
	if err != nil {
		return err
	}
	note := func(ids []receipt.ID) []receipt.ID {
		if slices.Contains(ids, r.ID()) {
			return ids
		}
		return append(ids, r.ID())
	}
	switch r.Kind() {
	case receipt.ADR:
		if n, ok := decisionNumber(r); ok {
			k := decision{int64(r.Issued().UTC().Year()), n}
			c.decisions[k] = note(c.decisions[k])
			c.number = max(c.number, n)
		}
	case receipt.Deploy:
		k := deployment{r.Field("component"), r.Field("version")}
		c.deployed[k] = note(c.deployed[k])
	}
	return nil
}

var decisionName = regexp.MustCompile(`^ADR-([0-9]{1,9})(-|$)`)

// decisionNumber reads the number in a decision's name.
func decisionNumber(r *receipt.Receipt) (int64, bool) {
	m := decisionName.FindStringSubmatch(r.Name())
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	return n, err == nil
}

// fresh is how long the catalogue may lag when a number is given out. Numbers that
// this node gives out are its own at once; what it may miss are those that peers have
// just given out, and these it may always miss.
const fresh = time.Second

// take returns a number that no decision has had, as far as this node knows.
func (c *catalogue) take(ctx context.Context, now time.Time) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.decisions == nil || now.Sub(c.followed) >= fresh {
		if err := c.follow(ctx); err != nil {
			return 0, err
		}
		c.followed = now
	}
	c.number++
	return c.number, nil
}

func (c *catalogue) decision(ctx context.Context, year, number int64) ([]receipt.ID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.follow(ctx); err != nil {
		return nil, err
	}
	return slices.Clone(c.decisions[decision{year, number}]), nil
}

func (c *catalogue) deployment(ctx context.Context, component, version string) ([]receipt.ID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.follow(ctx); err != nil {
		return nil, err
	}
	return slices.Clone(c.deployed[deployment{component, version}]), nil
}

var notName = regexp.MustCompile(`[^a-z0-9]+`)

// decisionFile is the name of a decision's receipt.
func decisionFile(number int64, title string) string {
	name := fmt.Sprintf("ADR-%03d", number)
	s := strings.Trim(notName.ReplaceAllString(strings.ToLower(title), "-"), "-")
	if len(s) > 48 {
		s = strings.Trim(s[:48], "-")
	}
	if s != "" {
		name += "-" + s
	}
	return name
}

// The largest decision that is taken.
const (
	maxTitle = 256
	maxBody  = 24 << 10
	maxTags  = 32
	maxTag   = 64
)

// maxNumber is the largest number that is read from the name of a decision.
const maxNumber = 999_999_999

// draft is a decision that is not recorded yet.
type draft struct {
	name      string
	subjects  []receipt.Subject
	predicate map[string]any
}

func draftOf(in recordIn, title string, number int64) (draft, error) {
	d := draft{
		name:      decisionFile(number, title),
		predicate: map[string]any{"title": title, "number": number, "status": "accepted", "decision": in.Body},
	}
	if len(in.Tags) > 0 {
		d.predicate["tags"] = in.Tags
	}
	canon, err := receipt.Canonical(d.predicate)
	if err != nil {
		return draft{}, err
	}
	sum := sha256.Sum256(canon)
	// Without anything else that it is about, a decision is about its own text.
	d.subjects = []receipt.Subject{{Name: string(receipt.ADR) + "/" + d.name, SHA256: hex.EncodeToString(sum[:])}}
	return d, nil
}

// recordDecision records a decision as a receipt of kind adr, signed by the node.
func (s *Server) recordDecision(ctx context.Context, in recordIn) (recordOut, error) {
	title := strings.TrimSpace(in.Title)
	switch {
	case title == "" || len(title) > maxTitle || strings.ContainsFunc(title, unicode.IsControl):
		return recordOut{}, bad("title: want one line of 1 to %d bytes", maxTitle)
	case strings.TrimSpace(in.Body) == "" || len(in.Body) > maxBody:
		return recordOut{}, bad("body: found %d bytes, want 1 to %d", len(in.Body), maxBody)
	case len(in.Tags) > maxTags:
		return recordOut{}, bad("tags: found %d, want at most %d", len(in.Tags), maxTags)
	}
	for _, t := range in.Tags {
		if t == "" || len(t) > maxTag || !utf8.ValidString(t) {
			return recordOut{}, bad("tag %.80q: want 1 to %d bytes", t, maxTag)
		}
	}
	// It is made with the largest number first: what fits no receipt is the caller's
	// mistake, and neither costs a number nor passes for a fault of the log.
	d, err := draftOf(in, title, maxNumber)
	if err == nil {
		_, err = receipt.New(receipt.Statement{
			Kind: receipt.ADR, Issuer: openpgp.Fingerprint(s.o.Store.Identity().Fingerprint), Name: d.name, Issued: s.o.Now(),
			Subjects: d.subjects, Predicate: d.predicate,
		})
	}
	if err != nil {
		return recordOut{}, bad("%v", err)
	}
	settled(ctx, allow)
	number, err := s.named.take(ctx, s.o.Now())
	if err == nil {
		d, err = draftOf(in, title, number)
	}
	if err != nil {
		if ctx.Err() == nil {
			s.appended(err) // a log that cannot be read is not appended to either
		}
		return recordOut{}, err
	}
	r, err := s.o.Store.Record(ctx, receipt.ADR, d.name, d.subjects, d.predicate)
	if ctx.Err() == nil || err == nil {
		s.appended(err)
	}
	if err != nil {
		return recordOut{}, err
	}
	s.metrics.took(recorded, 1)
	index, ok := s.o.Store.Index(r.ID())
	if !ok {
		return recordOut{}, fmt.Errorf("receipt %s was recorded and is not in the log", r.ID())
	}
	return recordOut{OK: true, Recorded: recordedReceipt{ID: r.ID().String(), File: r.File(), Index: index, Signed: true}}, nil
}
