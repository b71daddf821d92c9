package soak

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

const (
	auditEvery  = 500 * time.Millisecond
	sampleEvery = 5 * time.Second
	maxFindings = 20
)

// frontier is a log as far as it was audited: the roots of the perfect subtrees that
// it consists of, largest first.
type frontier struct {
	size  int64
	peaks []tlog.Hash
}

func (f *frontier) append(leaf tlog.Hash) {
	for n := f.size; n&1 == 1; n >>= 1 {
		leaf = tlog.NodeHash(f.peaks[len(f.peaks)-1], leaf)
		f.peaks = f.peaks[:len(f.peaks)-1]
	}
	f.peaks = append(f.peaks, leaf)
	f.size++
}

func (f *frontier) root() tlog.Hash {
	if len(f.peaks) == 0 {
		return sha256.Sum256(nil)
	}
	root := f.peaks[len(f.peaks)-1]
	for _, p := range slices.Backward(f.peaks[:len(f.peaks)-1]) {
		root = tlog.NodeHash(p, root)
	}
	return root
}

// frontierOf reads the peaks of the first entries of a tree.
func frontierOf(size int64, hashes tlog.HashReader) (frontier, error) {
	f := frontier{size: size}
	var indexes []int64
	for at := int64(0); at < size; {
		level := bits.Len64(uint64(size-at)) - 1
		indexes = append(indexes, tlog.StoredHashIndex(level, at>>level))
		at += 1 << level
	}
	if len(indexes) == 0 {
		return f, nil
	}
	var err error
	f.peaks, err = hashes.ReadHashes(indexes)
	return f, err
}

// audited is what an auditor has found since the run began.
type audited struct {
	From     int64    `json:"from"` // entries before the run
	To       int64    `json:"to"`   // audited so far
	Verified int64    `json:"verified"`
	Missing  int64    `json:"missing"`
	Invalid  int64    `json:"invalid"`
	Own      int64    `json:"own"`                // of the entries, those that operations asked for
	Strange  int64    `json:"strange"`            // of the invalid, those of issuers whose key is not at hand
	Unseen   int64    `json:"unseen"`             // in the newest checkpoint, and not audited at the end
	Root     string   `json:"root"`               // of To entries
	Findings []string `json:"findings,omitempty"` // the first of them
	Lies     int64    `json:"lies"`               // heads that were not signed, went back, or had two roots
}

// patience is how long an auditor waits.
type patience struct {
	absent time.Duration // what is not shown for so long is missing
	end    time.Duration // for what is left at the end
}

var patient = patience{10 * time.Second, 30 * time.Second}

// auditor reads every entry that comes into the log again, by itself: it shares no
// connection and no answer with the operations. How many there are to read says the
// signed size of the log, and nothing else.
type auditor struct {
	r       *remote // for the address, the pinned keys and hashes of tiles
	web     *http.Client
	ring    *openpgp.Keyring // of all issuers
	run     string
	m       *metrics
	now     func() time.Time
	patient patience
	absence time.Time // since when an entry is not shown; zero: none is

	mu      sync.Mutex // guards what follows
	f       frontier
	head    checkpoint.Body // newest that verified
	is      audited
	counted counted
}

func newAuditor(r *remote, run string, keys []*openpgp.Key, m *metrics, now func() time.Time) (*auditor, error) {
	ring, err := openpgp.NewKeyring(keys...)
	if err != nil {
		return nil, err
	}
	return &auditor{r: r, web: newWeb(r.web.Transport.(*http.Transport).TLSClientConfig), ring: ring, run: run, m: m, now: now, patient: patient}, nil //nolint:forcetypeassert // newWeb made it
}

// begin takes the log as it is; or, when a run goes on, proves that it extends what
// was audited before.
func (a *auditor) begin(ctx context.Context, before *audited) error {
	head, err := a.newest(ctx)
	if err != nil {
		return err
	}
	hashes := a.r.hashes(ctx, head)
	size := head.Size
	if before != nil {
		if size = before.To; head.Size < size {
			return untruef("the log had %d entries, now it is to have %d", size, head.Size)
		}
	}
	f, err := frontierOf(size, hashes)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.f, a.head = f, head
	a.is = audited{From: size, To: size}
	if before != nil {
		if f.root().String() != before.Root {
			return untruef("the first %d entries of the log are not what they were", size)
		}
		a.is = *before
		a.is.Unseen = 0 // they are read now
	}
	a.is.Root = f.root().String()
	a.m.treeSize.Set(float64(size))
	return nil
}

func (a *auditor) state() audited {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.is
	s.Findings = slices.Clone(s.Findings)
	return s
}

func (a *auditor) size() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.head.Size
}

// found notes what is wrong.
func (a *auditor) found(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.is.Findings) < maxFindings {
		a.is.Findings = append(a.is.Findings, fmt.Sprintf(format, args...))
	}
}

// lied notes a head that is wrong.
func (a *auditor) lied(err error) {
	a.mu.Lock()
	a.is.Lies++
	a.mu.Unlock()
	a.found("%v", err)
}

func (a *auditor) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for again := false; ; again = true {
		secret := a.r.known()
		status, body, err := request(ctx, a.web, http.MethodGet, a.r.base+path, "", secret, nil)
		if err != nil {
			return nil, err
		}
		if status == http.StatusUnauthorized && !again {
			if now, err := a.r.token(); err == nil && now != secret {
				continue
			}
		}
		if status != http.StatusOK {
			return nil, &statusError{path, status, clip(body)}
		}
		return body, nil
	}
}

func (a *auditor) newest(ctx context.Context) (checkpoint.Body, error) {
	note, err := a.get(ctx, "/checkpoint")
	if err != nil {
		return checkpoint.Body{}, err
	}
	v, err := a.r.policy.Open(note)
	if err != nil {
		return checkpoint.Body{}, a.r.doubt(ctx, untruef("checkpoint: %w", err))
	}
	return v.Body(), nil
}

// follow audits what has come since. An error means that it could not be read: it is
// tried again.
func (a *auditor) follow(ctx context.Context) error {
	head, err := a.newest(ctx)
	if err != nil {
		var lie *untrue
		if errors.As(err, &lie) {
			a.lied(err)
		}
		return err
	}
	a.mu.Lock()
	f := frontier{a.f.size, slices.Clone(a.f.peaks)}
	a.mu.Unlock()
	switch {
	case head.Size < f.size:
		err := untruef("the log had %d entries, now it is to have %d", f.size, head.Size)
		a.lied(err)
		return err
	case head.Size == f.size && head.Root != f.root():
		err := untruef("two roots of %d entries: %s and %s", f.size, f.root(), head.Root)
		a.lied(err)
		return err
	}
	a.mu.Lock()
	a.head = head
	a.mu.Unlock()
	if head.Size == f.size {
		return nil
	}
	return a.read(ctx, f, head)
}

// judged is one entry that was read.
type judged struct {
	leaf  tlog.Hash
	own   bool
	why   string // what is wrong with it
	alien bool   // its issuer's key is not at hand
	gone  bool   // it is not shown
}

// read reads the entries from a frontier to a head.
func (a *auditor) read(ctx context.Context, f frontier, head checkpoint.Body) error {
	from := f.size
	list := make([]judged, 0, head.Size-from)
	whole := true
	for n := from / ledger.SegmentSize; n*ledger.SegmentSize < head.Size; n++ {
		first := n * ledger.SegmentSize
		width := min(ledger.SegmentSize, head.Size-first)
		lines, err := a.bundle(ctx, n, int(width))
		if err != nil {
			return err
		}
		for i := max(first, from); i < first+width; i++ {
			if i-first >= int64(len(lines)) {
				list, whole = append(list, judged{gone: true}), false
				continue
			}
			j := a.judge(lines[i-first])
			list = append(list, j)
			f.append(j.leaf)
		}
	}
	if !whole {
		// Perhaps it is only late.
		if a.absence.IsZero() {
			a.absence = a.now()
		}
		if a.now().Sub(a.absence) < a.patient.absent {
			return fmt.Errorf("entries below %d are not shown", head.Size)
		}
	}
	a.absence = time.Time{}
	if !whole || f.root() != head.Root {
		// What was read does not make the log that was signed. Tiles, which are proven
		// to be of that log, say which entries do.
		was := a.frontier()
		hashes := a.r.hashes(ctx, head)
		old, err := frontierOf(from, hashes)
		if err == nil && old.root() != was.root() {
			a.lied(untruef("the first %d entries of the log are not what they were", from))
		}
		if err == nil {
			err = a.compare(hashes, from, list)
		}
		if err == nil {
			f, err = frontierOf(head.Size, hashes)
		}
		var lie *untrue
		switch {
		case errors.As(err, &lie):
			// Not even those are of the log that was signed. It is tried again with
			// the next head; what never is shown is missing at the end.
			a.lied(err)
			return err
		case err != nil:
			return err
		}
	}
	a.settle(from, list, f)
	return nil
}

func (a *auditor) frontier() frontier {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.f
}

// compare holds entries to the leaves of the log.
func (a *auditor) compare(hashes tlog.HashReader, from int64, list []judged) error {
	const page = 256
	for at := 0; at < len(list); at += page {
		part := list[at:min(at+page, len(list))]
		indexes := make([]int64, len(part))
		for i := range part {
			indexes[i] = tlog.StoredHashIndex(0, from+int64(at+i))
		}
		leaves, err := hashes.ReadHashes(indexes)
		if err != nil {
			return err
		}
		for i := range part {
			if !part[i].gone && part[i].leaf != leaves[i] {
				part[i].why, part[i].own = "it is not the entry that was signed", false
			}
		}
	}
	return nil
}

// settle counts entries, each once.
func (a *auditor) settle(from int64, list []judged, f frontier) {
	var v, m, inv int64
	for i, j := range list {
		switch {
		case j.gone:
			m++
			a.found("entry %d is not shown", from+int64(i))
		case j.why != "":
			inv++
			a.found("entry %d: %s", from+int64(i), j.why)
		default:
			v++
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range list {
		if j.own {
			a.is.Own++
		}
		if j.alien {
			a.is.Strange++
		}
	}
	a.f = f
	a.is.To, a.is.Root = f.size, f.root().String()
	a.is.Verified += v
	a.is.Missing += m
	a.is.Invalid += inv
	a.m.audited.WithLabelValues(auditVerified).Add(float64(v))
	a.m.audited.WithLabelValues(auditMissing).Add(float64(m))
	a.m.audited.WithLabelValues(auditInvalid).Add(float64(inv))
	a.m.treeSize.Set(float64(f.size))
}

// bundle reads the lines of an entry bundle. It may have fewer than it should.
func (a *auditor) bundle(ctx context.Context, n int64, width int) ([][]byte, error) {
	data, err := a.get(ctx, "/"+ledger.TilePath(tlog.Tile{H: tileRows, L: -1, N: n, W: width}))
	var status *statusError
	if errors.As(err, &status) && status.code == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return readBundle(data, width), nil
}

// readBundle takes an entry bundle apart (c2sp.org/tlog-tiles), as far as it is one.
func readBundle(data []byte, most int) (lines [][]byte) {
	for len(data) >= 2 && len(lines) < most {
		n := int(binary.BigEndian.Uint16(data))
		if len(data) < 2+n {
			break
		}
		lines = append(lines, data[2:2+n])
		data = data[2+n:]
	}
	return lines
}

// judge verifies one line by itself: it is a statement of in-toto in an envelope of
// DSSE, which its issuer has signed.
func (a *auditor) judge(line []byte) judged {
	j := judged{leaf: tlog.RecordHash(line)}
	e, err := receipt.ParseLine(line)
	if err != nil {
		j.why = err.Error()
		return j
	}
	var tags []string
	if e.Receipt.Kind() == receipt.ADR && e.Receipt.Decode("tags", &tags) == nil {
		j.own = len(tags) == 3 && tags[0] == "soak" && tags[1] == a.run && strings.HasPrefix(tags[2], operation)
	}
	issued, err := e.Verify(a.ring, a.now())
	switch {
	case errors.Is(err, openpgp.ErrUnknownIssuer):
		j.why, j.alien = err.Error(), true
	case err != nil:
		j.why = err.Error()
	case !issued:
		j.why = "its issuer did not sign it"
	}
	return j
}

// finish reads what is left, and counts as missing what it cannot have.
func (a *auditor) finish(ctx context.Context) error {
	deadline := a.now().Add(a.patient.end)
	err := a.follow(ctx)
	for a.now().Before(deadline) && ctx.Err() == nil && (err != nil || a.size() > a.frontier().size) {
		pause(ctx, auditEvery)
		err = a.follow(ctx)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if left := a.head.Size - a.f.size; left > 0 {
		a.is.Unseen = left
		a.m.audited.WithLabelValues(auditMissing).Add(float64(left))
	}
	return err
}

// pause waits, at most until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// sample is what the node says of itself at one moment.
type sample struct {
	Started  float64 `json:"started"` // of the process, Unix time
	Appends  float64 `json:"appends"` // that it counted
	Size     float64 `json:"size"`    // of the log, as it says
	Revision string  `json:"revision"`
}

// counted is what the node's own numbers come to. A process that was started anew
// counts from zero: only what one process said twice is compared.
type counted struct {
	Samples  int64   `json:"samples"`
	Appends  float64 `json:"appends"`  // increase of its counter
	Grown    float64 `json:"grown"`    // increase of its size, over the same times
	Restarts int64   `json:"restarts"` // of its process
	Last     sample  `json:"last"`
}

func (c *counted) add(s sample) {
	switch {
	case c.Samples == 0:
	case s.Started != c.Last.Started || s.Appends < c.Last.Appends:
		c.Restarts++
	default:
		c.Appends += s.Appends - c.Last.Appends
		c.Grown += s.Size - c.Last.Size
	}
	c.Samples++
	c.Last = s
}

// The series of a node that are read.
const (
	seriesAppends = "remembrancer_ledger_appends_total"
	seriesSize    = "remembrancer_ledger_tree_size"
	seriesStart   = "process_start_time_seconds"
	seriesBuild   = "remembrancer_build_info"
)

// sample reads the node's metrics.
func (a *auditor) sample(ctx context.Context) error {
	text, err := a.get(ctx, "/metrics")
	if err != nil {
		return err
	}
	s, err := readSample(text)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counted.add(s)
	return nil
}

func (a *auditor) counts() counted {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counted
}

// readSample reads the few series that are wanted of a page of metrics.
func readSample(text []byte) (sample, error) {
	var s sample
	found := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, ok := cutLast(lines.Text())
		if !ok {
			continue
		}
		name, labels, _ := strings.Cut(name, "{")
		var into *float64
		switch name {
		case seriesAppends:
			into = &s.Appends
		case seriesSize:
			into = &s.Size
		case seriesStart:
			into = &s.Started
		case seriesBuild:
			_, rest, _ := strings.Cut(labels, `git_sha="`)
			s.Revision, _, _ = strings.Cut(rest, `"`)
			continue
		default:
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil || v < 0 || found[name] {
			return s, fmt.Errorf("/metrics: %s is %q, or is there twice", name, value)
		}
		*into, found[name] = v, true
	}
	for _, name := range []string{seriesAppends, seriesSize, seriesStart} {
		if !found[name] {
			return s, fmt.Errorf("/metrics: the node has no %s", name)
		}
	}
	return s, lines.Err()
}

func cutLast(line string) (before, after string, ok bool) {
	at := strings.LastIndexByte(line, ' ')
	if at < 0 || strings.HasPrefix(line, "#") {
		return "", "", false
	}
	return line[:at], line[at+1:], true
}
