package federate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// Store is a node's memory: a directory with its log, and beside it what it needs
// to exchange receipts.
//
//	log/… checkpoint edge claim   the log (package ledger)
//	trust.json                    the trust state; certs/ shows its keys, for people
//	keys/                         issuer.asc, log.key, witness.key, set.key
//	proofs/<2 hex>/<id>.json      a line with its home proof
//	peers/<fingerprint>.json      what is known of a peer
//	witness/<hash of vkey>.json   the newest checkpoint cosigned for a log
//	cosigned                      the newest own checkpoint with cosignatures
//	quarantine.json               what was refused
//
// In memory are, for each entry of the log, its hashes (64 bytes) and where its
// receipt is, and the set of the valid ids. The lines stay on disk; each is
// compared with its hash when it is read.
//
// # What is durable
//
// Whatever a method has returned without an error is on disk. A receipt comes in
// this order:
//
//  1. its signature is verified;
//  2. its home proof is filed, if it needs one. A crash here leaves a proof of a
//     line that is not in the log, which nobody reads until the line comes again;
//  3. the line is in the log under a signed checkpoint. From here on it is
//     acknowledged;
//  4. memory follows the log, never the other way round.
//
// After an error memory is brought to where the log is on disk, by the code that
// does it at the start: an entry that was persisted but reported failed is then
// known, and comes a second time as such. A line is appended at most once, unless
// disk and memory could not be compared before it was tried again.
//
// All methods may be called at the same time.
type Store struct {
	files    *durable.Dir
	owned    bool // Close closes files
	keys     Keys
	now      func() time.Time
	workers  int
	pins     int
	log      *ledger.Dir
	policy   *checkpoint.Policy
	witness  *checkpoint.Cosigner
	identity Identity
	ownRing  *openpgp.Keyring

	// trusting is held for reading from the judgement of a line until memory knows
	// it, and for writing by a change of the trust state.
	trusting sync.RWMutex

	// mu guards what follows. No method of log is called under it, for log calls
	// back into it.
	mu      sync.RWMutex
	state   state
	head    []byte // the checkpoint that the state is at; nil for the empty log
	pinned  []*Snapshot
	broken  error // memory and log contradict each other
	behind  bool  // the log may have entries that memory lacks
	arrives map[receipt.ID]*arrival
	leaves  map[checkpoint.Hash]*arrival

	merging    sync.Mutex // held from reading to writing what is remembered of a peer
	peers      peers
	quarantine quarantine
	cosigning  sync.Mutex // held from reading to writing what has been cosigned
}

// state is what follows from a log and a trust state.
type state struct {
	trust *merge.Trust
	home  map[openpgp.Fingerprint]bool // those whose cutoff is in our own log
	tree  *ledger.Tree
	at    map[receipt.ID]place
	valid *set.Set
	named map[string]receipt.ID   // a valid receipt of each file name
	twice map[string][]receipt.ID // all of them, where there are several
}

// place is where a receipt is in the log, and what holds of it: index<<2 | flags.
type place int64

const (
	isValid   place = 1 << iota // it is in the set
	isVisible                   // its signature was verified, and it may be shown
)

func (p place) index() int64 { return int64(p >> 2) }

// arrival is a line on its way into the log.
type arrival struct {
	entry  receipt.Entry
	line   string
	proof  *merge.HomeProof
	flags  place
	logged bool // it is in the log already, and only its proof is new
	known  bool // memory has it
	done   chan struct{}
	err    error // of no meaning before done
}

// Keys are what a node signs with.
type Keys struct {
	Issuer  openpgp.Signer // issues its receipts, and signs merges
	Log     string         // signed-note signing key, named as the node is
	Witness string         // the same, named <node>/witness: its seed is that of the cosignatures
	Set     string         // the same, named <node>/set: of its set notes
}

// StoreOptions are what most callers leave as they are, but for Now.
type StoreOptions struct {
	Now          func() time.Time // required
	Workers      int              // goroutines that verify signatures; 0 is one a processor
	MaxSnapshots int              // how many At remembers; 0 is 16
	Endpoint     string           // where the node is reached, for its identity
	Node         string           // must be the name of the log key, if set
}

// Ingest says what became of the items of an Add.
type Ingest struct {
	Added, Known int
	Rejected     []*merge.Rejection // in the order of the items
	IDs          []receipt.ID       // of the valid items, added or known, in their order
	Judged       time.Duration      // how long it took to say which are valid; the rest is writing
}

// Snapshot is the node at one moment. It does not change.
type Snapshot struct {
	Set        *set.Set
	Root       set.Hash
	Count      int
	Checkpoint []byte // signed note, nil for a log without entries
	SetNote    []byte
	Size       int64 // of the log
}

// Tail is a page of the log.
type Tail struct {
	Lines      []string
	From, Size int64             // Size is what Proof leads to
	Proof      []checkpoint.Hash // from From to Size; nil where From is 0
	Checkpoint []byte            // the newest
}

// OpenStore opens a store or begins one, and takes the lock of its directory. It
// reads the whole log again: every entry is hashed, and every signature judged
// under the trust state, of which the issuer of the keys must be a member. It does
// not write the trust state; see [Store.SetTrust].
func OpenStore(ctx context.Context, files *durable.Dir, keys Keys, trust *merge.Trust, o StoreOptions) (*Store, error) {
	s, err := newStore(files, keys, trust, o)
	if err != nil {
		return nil, err
	}
	signer, err := checkpoint.NewSigner(keys.Log)
	if err != nil {
		return nil, err
	}
	s.log, err = ledger.OpenDir(ctx, files, s.policy, signer, ledger.DirOptions{Landed: s.landed})
	if err != nil {
		return nil, err
	}
	if err := s.load(ctx, trust); err != nil {
		s.log.Close()
		return nil, err
	}
	return s, nil
}

var errNoClock = errors.New("store: no clock is given")

func newStore(files *durable.Dir, keys Keys, trust *merge.Trust, o StoreOptions) (*Store, error) {
	if o.Now == nil {
		return nil, errNoClock
	}
	s := &Store{
		files: files, keys: keys, now: o.Now, workers: o.Workers, pins: o.MaxSnapshots,
		arrives: map[receipt.ID]*arrival{}, leaves: map[checkpoint.Hash]*arrival{},
	}
	if s.workers <= 0 {
		s.workers = runtime.GOMAXPROCS(0)
	}
	if s.pins <= 0 {
		s.pins = 16
	}
	var err error
	if s.identity, s.witness, err = keys.identity(o.Endpoint); err != nil {
		return nil, err
	}
	if o.Node != "" && o.Node != s.identity.Node {
		return nil, fmt.Errorf("store: the node is named %s, but its log key is that of %s", o.Node, s.identity.Node)
	}
	if s.policy, err = checkpoint.ParsePolicy(checkpoint.NewPolicy(s.identity.Log)); err != nil {
		return nil, err
	}
	if s.ownRing, err = openpgp.NewKeyring(keys.Issuer.Public()); err != nil {
		return nil, err
	}
	return s, s.checkOwn(trust)
}

// checkOwn refuses a trust state under which the node's own receipts are worth
// nothing.
func (s *Store) checkOwn(trust *merge.Trust) error {
	if _, ok := trust.Lookup(s.keys.Issuer.Fingerprint()); !ok {
		return fmt.Errorf("store: the node's own issuer %s is not in the trust state: add its certificate", s.keys.Issuer.Fingerprint())
	}
	return nil
}

// load makes the memory of a log that was just opened.
func (s *Store) load(ctx context.Context, trust *merge.Trust) error {
	if _, err := s.files.Sweep(); err != nil {
		return err
	}
	signed, err := s.log.Head()
	if err != nil {
		return err
	}
	body := ledger.Empty(s.identity.Node)
	if signed != nil {
		v, err := s.policy.Open(signed)
		if err != nil {
			return err
		}
		body = v.Body()
	}
	leaves, err := ledger.Verify(s.files.Get, body)
	if err != nil {
		return err
	}
	st, err := s.judgeAll(ctx, ledger.NewTree(leaves), trust)
	if err != nil {
		return err
	}
	s.state, s.head = st, signed
	if err := s.peers.load(s.files); err != nil {
		return err
	}
	return s.quarantine.load(s.files)
}

// Close gives the lock back. No other call may be under way.
func (s *Store) Close() error {
	s.log.Close()
	if s.owned {
		return s.files.Close()
	}
	return nil
}

// judged is what a trust state makes of a line of the log.
type judged struct {
	id    receipt.ID
	file  string
	flags place
	ok    bool // the line could be read at all
}

// judge decides about a line of the log at an index. The proof of a line that
// needs one comes from our own tree, where that is the home log, and else from
// the file of proofs, in which the line may have other endorsements.
func (s *Store) judge(st *state, index int64, line string) (judged, error) {
	e, no := st.trust.Judge(merge.Item{Line: line})
	if no == nil {
		return judged{id: e.Receipt.ID(), file: e.Receipt.File(), flags: isValid | isVisible, ok: true}, nil
	}
	id, err := receipt.ParseID(no.ID)
	if err != nil {
		return judged{}, nil //nolint:nilerr // only a line that nobody can read has no id, and it is nowhere shown
	}
	j := judged{id: id, ok: true}
	switch no.Reason {
	case merge.NotFederated:
		e, err := receipt.ParseLine([]byte(line))
		if err != nil {
			return judged{}, err
		}
		for _, sig := range e.Signatures {
			if sig.Fingerprint == e.Receipt.Issuer() && receipt.VerifySignature(e.Receipt, sig, s.ownRing, noClock) == nil {
				j.flags = isVisible
			}
		}
	case merge.Revoked:
		it, err := s.proven(st, id, index, line)
		if err != nil {
			return judged{}, err
		}
		if e, no := st.trust.Judge(it); no == nil {
			j.file, j.flags = e.Receipt.File(), isValid|isVisible
		}
	}
	return j, nil
}

// proven returns the item of a receipt whose issuer has a cutoff, with its proof,
// if there is one.
func (s *Store) proven(st *state, id receipt.ID, index int64, line string) (merge.Item, error) {
	it := merge.Item{Line: line}
	e, err := receipt.ParseLine([]byte(line))
	if err != nil {
		return it, err
	}
	m, ok := st.trust.Lookup(e.Receipt.Issuer())
	switch {
	case !ok || m.Cutoff == nil:
		return it, nil
	case st.home[e.Receipt.Issuer()]:
		if index >= m.Cutoff.Size {
			return it, nil
		}
		hashes, err := st.tree.Inclusion(m.Cutoff.Size, index)
		if err != nil {
			return it, err
		}
		it.Proof = merge.NewHomeProof(index, hashes)
		return it, nil
	}
	data, err := s.files.Get(proofPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return it, nil
	}
	if err != nil {
		return it, err
	}
	var filed merge.Item
	if err := decode(data, &filed); err != nil {
		return it, fmt.Errorf("%s: %w", proofPath(id), err)
	}
	return filed, nil
}

func proofPath(id receipt.ID) string {
	return fmt.Sprintf("proofs/%x/%s.json", id[:1], id)
}

// homes finds the members whose cutoff is in a log.
func homes(trust *merge.Trust, tree *ledger.Tree) (map[openpgp.Fingerprint]bool, error) {
	all := map[openpgp.Fingerprint]bool{}
	for _, m := range trust.Members() {
		if m.Cutoff == nil || m.Cutoff.Size > tree.Size() {
			continue
		}
		root, err := tree.Root(m.Cutoff.Size)
		if err != nil {
			return nil, err
		}
		all[m.Key.Fingerprint()] = root == m.Cutoff.Root
	}
	return all, nil
}

// judgeBlock is the number of segments that are judged at once.
const judgeBlock = 64

// judgeAll makes the state of a log under a trust state, on every processor.
func (s *Store) judgeAll(ctx context.Context, tree *ledger.Tree, trust *merge.Trust) (state, error) {
	st := state{
		trust: trust, tree: tree, at: make(map[receipt.ID]place, tree.Size()), valid: &set.Set{},
		named: map[string]receipt.ID{}, twice: map[string][]receipt.ID{},
	}
	var err error
	if st.home, err = homes(trust, tree); err != nil {
		return state{}, err
	}
	var ids []receipt.ID
	const block = judgeBlock * ledger.SegmentSize
	for first := int64(0); first < tree.Size(); first += block {
		if err := ctx.Err(); err != nil {
			return state{}, err
		}
		all := make([]judged, min(block, tree.Size()-first))
		n := (len(all) + ledger.SegmentSize - 1) / ledger.SegmentSize
		err := spread(n, s.workers, func(i int) error {
			from := i * ledger.SegmentSize
			to := min(from+ledger.SegmentSize, len(all))
			lines, err := s.lines(tree, first+int64(from), first+int64(to))
			for j, line := range lines {
				if all[from+j], err = s.judge(&st, first+int64(from+j), line); err != nil {
					return err
				}
			}
			return err
		})
		if err != nil {
			return state{}, err
		}
		for i, j := range all {
			if j.ok && st.note(j.id, first+int64(i), j.flags, j.file) {
				ids = append(ids, j.id)
			}
		}
	}
	st.valid = set.Of(ids...)
	return st, nil
}

// note takes down where a receipt is. It reports whether it is now valid and was
// not before: then it belongs into the set. Of several lines of one receipt the
// first that is valid counts.
func (st *state) note(id receipt.ID, index int64, flags place, file string) bool {
	was, known := st.at[id]
	if known && (was&isValid != 0 || flags&isValid == 0) {
		return false
	}
	st.at[id] = place(index)<<2 | flags
	if flags&isValid == 0 {
		return false
	}
	if file == "" {
		return true
	}
	switch first, ok := st.named[file]; {
	case !ok:
		st.named[file] = id
	case st.twice[file] == nil:
		st.twice[file] = []receipt.ID{first, id}
	default:
		st.twice[file] = append(st.twice[file], id)
	}
	return true
}

// add appends a line to the state.
func (st *state) add(leaf checkpoint.Hash, j judged) {
	index := st.tree.Size()
	st.tree.Append(leaf)
	if j.ok && st.note(j.id, index, j.flags, j.file) {
		st.valid.Add(j.id)
	}
}

// landed takes over what the log has just committed, in the log's order.
func (s *Store) landed(first int64, lines [][]byte, signed []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Entries between are those of a commit that was thought to have failed. If
	// they cannot be read, memory stays where it is and catchUp tries again.
	if err := s.follow(first, lines, signed); err != nil {
		s.behind = true
	}
}

// follow brings memory to a checkpoint, whose last entries are lines. The caller
// holds mu.
func (s *Store) follow(first int64, lines [][]byte, signed []byte) error {
	if s.broken != nil {
		return s.broken
	}
	body, err := bodyOf(signed)
	if err != nil {
		return err
	}
	type entry struct {
		leaf checkpoint.Hash
		judged
	}
	var all []entry
	take := func(index int64, line string) error {
		e := entry{leaf: ledger.RecordHash([]byte(line))}
		if a := s.leaves[e.leaf]; a != nil {
			r := a.entry.Receipt
			e.judged = judged{id: r.ID(), file: r.File(), flags: a.flags, ok: true}
		} else if e.judged, err = s.judge(&s.state, index, line); err != nil {
			return err
		}
		all = append(all, e)
		return nil
	}
	next := s.state.tree.Size()
	if next < first {
		missing, err := s.lines(nil, next, first)
		if err != nil {
			return err
		}
		for i, line := range missing {
			if err := take(next+int64(i), line); err != nil {
				return err
			}
		}
	}
	for i, line := range lines {
		if first+int64(i) >= next {
			if err := take(first+int64(i), string(line)); err != nil {
				return err
			}
		}
	}
	for _, e := range all {
		s.state.add(e.leaf, e.judged)
		if a := s.leaves[e.leaf]; a != nil {
			a.known = true
		}
	}
	s.head = signed
	root, err := s.state.tree.Root(s.state.tree.Size())
	if err != nil || s.state.tree.Size() != body.Size || root != body.Root {
		s.broken = &ledger.TamperError{What: "memory does not follow the log: open the store again", Signed: body, Got: root}
		return s.broken
	}
	return nil
}

// catchUp brings memory to where the log is on disk.
func (s *Store) catchUp() error {
	signed, err := s.log.Head()
	if err != nil || signed == nil {
		s.mu.Lock()
		s.behind = err != nil
		s.mu.Unlock()
		return err
	}
	body, err := bodyOf(signed)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if body.Size >= s.state.tree.Size() {
		if err := s.follow(body.Size, nil, signed); err != nil {
			s.behind = true
			return err
		}
	}
	s.behind = false
	return nil
}

// bodyOf reads what a note of our own log says.
func bodyOf(signed []byte) (checkpoint.Body, error) {
	text, _, ok := bytes.Cut(signed, []byte("\n\n"))
	if !ok {
		return checkpoint.Body{}, errors.New("checkpoint: want a text, an empty line and signatures")
	}
	return checkpoint.ParseBody(append(bytes.Clone(text), '\n'))
}

// lines reads entries from..to of the log, and compares each with its leaf in the
// tree, if there is one.
func (s *Store) lines(tree *ledger.Tree, from, to int64) ([]string, error) {
	var all []string
	for at := from; at < to; {
		n := at / ledger.SegmentSize
		path := ledger.SegmentPath(n)
		data, err := s.files.Get(path)
		if err != nil {
			return nil, err
		}
		segment := bytes.Split(data, []byte("\n"))
		end := min(to, (n+1)*ledger.SegmentSize)
		if int64(len(segment)-1) < end-n*ledger.SegmentSize {
			return nil, fmt.Errorf("%s holds %d entries, want %d", path, len(segment)-1, end-n*ledger.SegmentSize)
		}
		for ; at < end; at++ {
			line := segment[at-n*ledger.SegmentSize]
			if tree != nil && !slices.Equal(tree.Hashes(0, at, 1), []checkpoint.Hash{ledger.RecordHash(line)}) {
				return nil, fmt.Errorf("%s: entry %d has changed on disk", path, at)
			}
			all = append(all, string(line))
		}
	}
	return all, nil
}

// line reads one entry for a reader that does not hold mu. What may be read of
// the tree is fixed before.
func (s *Store) line(index int64) (string, error) {
	s.mu.RLock()
	leaf := s.state.tree.Hashes(0, index, 1)
	s.mu.RUnlock()
	lines, err := s.lines(nil, index, index+1)
	if err != nil {
		return "", err
	}
	if !slices.Equal(leaf, []checkpoint.Hash{ledger.RecordHash([]byte(lines[0]))}) {
		return "", fmt.Errorf("%s: entry %d has changed on disk", ledger.SegmentPath(index/ledger.SegmentSize), index)
	}
	return lines[0], nil
}

// Add takes in receipts that others give, from whom the label says. Those that
// are not valid are quarantined, those that are in the set already left alone, and
// the rest are in the log when it returns. After an error each of them may or may
// not be: add them again.
func (s *Store) Add(ctx context.Context, from string, items []merge.Item) (Ingest, error) {
	s.trusting.RLock()
	defer s.trusting.RUnlock()
	if err := s.ready(); err != nil {
		return Ingest{}, err
	}
	trust := s.Trust()
	began := s.now()
	type opinion struct {
		id       receipt.ID
		entry    receipt.Entry
		rejected *merge.Rejection
	}
	opinions := make([]opinion, len(items))
	err := spread(len(items), s.workers, func(i int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if id, ok := idOf(items[i].Line); ok && s.has(id) {
			opinions[i].id = id
			return nil
		}
		e, no := trust.Judge(items[i])
		opinions[i].entry, opinions[i].rejected = e, no
		if no == nil {
			opinions[i].id = e.Receipt.ID()
		}
		return nil
	})
	if err != nil {
		return Ingest{}, err
	}
	var (
		in      Ingest
		mine    []*arrival
		theirs  []*arrival
		refused []Quarantined
	)
	s.mu.Lock()
	for i, o := range opinions {
		if o.rejected != nil {
			in.Rejected = append(in.Rejected, o.rejected)
			refused = append(refused, newQuarantined(items[i].Line, o.rejected, from))
			continue
		}
		in.IDs = append(in.IDs, o.id)
		where, logged := s.state.at[o.id]
		switch {
		case where&isValid != 0:
			in.Known++
			continue
		case s.arrives[o.id] != nil:
			in.Known++
			theirs = append(theirs, s.arrives[o.id])
			continue
		}
		in.Added++
		a := &arrival{entry: o.entry, line: items[i].Line, flags: isValid | isVisible}
		if m, _ := trust.Lookup(o.entry.Receipt.Issuer()); m.Cutoff != nil {
			a.proof, a.logged = items[i].Proof, logged
		} else {
			a.line = string(o.entry.Line())
		}
		s.expect(o.id, a)
		mine = append(mine, a)
	}
	s.mu.Unlock()
	in.Judged = s.now().Sub(began)
	if err := s.land(ctx, mine); err != nil {
		return Ingest{}, err
	}
	for _, a := range theirs {
		select {
		case <-a.done:
			if a.err != nil {
				return Ingest{}, a.err
			}
		case <-ctx.Done():
			return Ingest{}, ctx.Err()
		}
	}
	if err := s.quarantine.add(s.files, refused); err != nil {
		return Ingest{}, err
	}
	return in, nil
}

// ready makes sure that memory is where the log is, or says why it is not.
func (s *Store) ready() error {
	s.mu.RLock()
	broken, behind := s.broken, s.behind
	s.mu.RUnlock()
	if broken == nil && behind {
		return s.catchUp()
	}
	return broken
}

// idOf computes the id of what a line has for a statement. It is cheap, and good
// for nothing but to find receipts that are in the set: those were read strictly
// when they came, and an id names all bytes of the statement.
func idOf(line string) (receipt.ID, bool) {
	const begin, prefix = `{"payload":"`, "remembrancer/receipt/v1\n"
	if len(line) > receipt.MaxLine || !strings.HasPrefix(line, begin) {
		return receipt.ID{}, false
	}
	payload, _, ok := strings.Cut(line[len(begin):], `"`)
	statement, err := base64.StdEncoding.DecodeString(payload)
	if !ok || err != nil {
		return receipt.ID{}, false
	}
	return sha256.Sum256(append([]byte(prefix), statement...)), true
}

func (s *Store) has(id receipt.ID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.at[id]&isValid != 0
}

// expect announces a line, so that another that brings it waits for this one, and
// that it is not judged again when it comes out of the log. The caller holds mu.
func (s *Store) expect(id receipt.ID, a *arrival) {
	a.done = make(chan struct{})
	s.arrives[id] = a
	if !a.logged {
		s.leaves[ledger.RecordHash([]byte(a.line))] = a
	}
}

// land carries out the steps of the type's comment for lines that are expected,
// and ends the wait for them.
func (s *Store) land(ctx context.Context, mine []*arrival) error {
	if len(mine) == 0 {
		return nil
	}
	err := s.append(ctx, mine)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range mine {
		if err == nil && a.logged {
			id := a.entry.Receipt.ID()
			if s.state.note(id, s.state.at[id].index(), a.flags, a.entry.Receipt.File()) {
				s.state.valid.Add(id)
			}
			a.known = true
		}
		if err == nil && !a.known {
			err = fmt.Errorf("receipt %s is in the log, but could not be read again", a.entry.Receipt.ID())
		}
	}
	for _, a := range mine {
		delete(s.arrives, a.entry.Receipt.ID())
		if !a.logged {
			delete(s.leaves, ledger.RecordHash([]byte(a.line)))
		}
		a.err = err
		close(a.done)
	}
	return err
}

func (s *Store) append(ctx context.Context, mine []*arrival) error {
	err := spread(len(mine), len(mine), func(i int) error {
		if mine[i].proof == nil {
			return nil
		}
		data, err := encode(merge.Item{Line: mine[i].line, Proof: mine[i].proof})
		if err != nil {
			return err
		}
		return s.files.Put(proofPath(mine[i].entry.Receipt.ID()), data)
	})
	if err != nil {
		return err
	}
	var lines [][]byte
	for _, a := range mine {
		if !a.logged {
			lines = append(lines, []byte(a.line))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	_, err = s.log.AddAll(ctx, lines)
	s.mu.Lock()
	// What failed may be on disk all the same.
	s.behind = s.behind || err != nil
	behind := s.behind
	s.mu.Unlock()
	if behind {
		if cerr := s.catchUp(); err == nil {
			err = cerr
		}
	}
	return err
}

// Record issues a receipt of the node's own and puts it into the log. Those of
// kinds that are not merged are not in the set. A name may be empty.
func (s *Store) Record(ctx context.Context, kind receipt.Kind, name string, subjects []receipt.Subject, predicate map[string]any) (*receipt.Receipt, error) {
	s.trusting.RLock()
	defer s.trusting.RUnlock()
	if err := s.ready(); err != nil {
		return nil, err
	}
	r, err := receipt.New(receipt.Statement{
		Kind: kind, Issuer: s.keys.Issuer.Fingerprint(), Name: name, Issued: s.now(), Subjects: subjects, Predicate: predicate,
	})
	if err != nil {
		return nil, err
	}
	sig, err := receipt.Sign(ctx, r, s.keys.Issuer)
	if err != nil {
		return nil, err
	}
	e, err := receipt.NewEntry(r, sig)
	if err != nil {
		return nil, err
	}
	a := &arrival{entry: e, line: string(e.Line()), flags: isVisible}
	if merge.Federated(kind) {
		a.flags |= isValid
		if _, no := s.Trust().Judge(merge.Item{Line: a.line}); no != nil {
			return nil, fmt.Errorf("the node's own receipts are not valid under its trust state: %w", no)
		}
	}
	s.mu.Lock()
	_, known := s.state.at[r.ID()]
	other := s.arrives[r.ID()]
	if !known && other == nil {
		s.expect(r.ID(), a)
	}
	s.mu.Unlock()
	switch {
	case known:
		return r, nil
	case other == nil:
		return r, s.land(ctx, []*arrival{a})
	}
	select {
	case <-other.done:
		return r, other.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Count returns the number of receipts in the set. Unlike [Store.Snapshot] it keeps
// nothing for it.
func (s *Store) Count() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.valid.Len()
}

// Snapshot returns the node as it is now. [Store.At] finds it by its root until
// so many others have been made, or the trust state changes.
func (s *Store) Snapshot() (*Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return nil, s.broken
	}
	size, count := s.state.tree.Size(), s.state.valid.Len()
	now := &Snapshot{Count: count, Checkpoint: s.head, Size: size}
	if n := len(s.pinned); n > 0 && s.pinned[n-1].Count == count { // a set only grows
		last := s.pinned[n-1]
		if last.Size == size {
			return last, nil
		}
		now.Set, now.Root, now.SetNote = last.Set, last.Root, last.SetNote
		s.pinned[n-1] = now
		return now, nil
	}
	now.Set, now.Root = s.state.valid.Clone(), s.state.valid.Root()
	note, err := checkpoint.SignNote(s.keys.Set, merge.SetNoteText(s.identity.Node, s.state.trust.Hash(), count, now.Root))
	if err != nil {
		return nil, err
	}
	now.SetNote = note
	if len(s.pinned) >= s.pins {
		s.pinned = slices.Delete(s.pinned, 0, len(s.pinned)-s.pins+1)
	}
	s.pinned = append(s.pinned, now)
	return now, nil
}

// At finds a snapshot by the root of its set.
func (s *Store) At(root set.Hash) (*Snapshot, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, p := range slices.Backward(s.pinned) {
		if p.Root == root {
			return p, true
		}
	}
	return nil, false
}

// Items returns valid receipts as others may take them in: with home proofs where
// the trust state wants them. Ids that are not in the set are left out.
func (s *Store) Items(ids []receipt.ID) ([]merge.Item, error) {
	var items []merge.Item
	for _, id := range ids {
		s.mu.RLock()
		at := s.state.at[id]
		s.mu.RUnlock()
		if at&isValid == 0 {
			continue
		}
		it, err := s.item(id, at)
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	return items, nil
}

func (s *Store) item(id receipt.ID, at place) (merge.Item, error) {
	line, err := s.line(at.index())
	if err != nil {
		return merge.Item{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if at&isValid == 0 || len(s.state.home) == 0 && !s.state.cuts() {
		return merge.Item{Line: line}, nil
	}
	return s.proven(&s.state, id, at.index(), line)
}

// cuts reports whether any member has a cutoff.
func (st *state) cuts() bool {
	return slices.ContainsFunc(st.trust.Members(), func(m merge.Member) bool { return m.Cutoff != nil })
}

// Entry returns a receipt and its index in the log. It is not there if the
// trust state does not hold with it, or its file cannot be read.
func (s *Store) Entry(id receipt.ID) (receipt.Entry, int64, bool) {
	s.mu.RLock()
	at := s.state.at[id]
	s.mu.RUnlock()
	if at&isVisible == 0 {
		return receipt.Entry{}, 0, false
	}
	it, err := s.item(id, at)
	if err != nil {
		return receipt.Entry{}, 0, false
	}
	e, err := receipt.ParseLine([]byte(it.Line))
	return e, at.index(), err == nil
}

// Index returns where in the log a receipt is that [Store.Entry] would return.
func (s *Store) Index(id receipt.ID) (int64, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	at := s.state.at[id]
	return at.index(), at&isVisible != 0
}

// Entries yields the receipts of the log in its order, each once, those of kinds
// that are not merged included, and those that the trust state does not hold with
// left out. It ends early where the log cannot be read.
func (s *Store) Entries() iter.Seq2[int64, receipt.Entry] {
	return func(yield func(int64, receipt.Entry) bool) {
		s.mu.RLock()
		size := s.state.tree.Size()
		s.mu.RUnlock()
		for from := int64(0); from < size; from += ledger.SegmentSize {
			t, err := s.Tail(from, size, ledger.SegmentSize, ledger.SegmentSize*ledger.MaxLine)
			if err != nil {
				return
			}
			for i, line := range t.Lines {
				e, err := receipt.ParseLine([]byte(line))
				if err != nil {
					continue
				}
				s.mu.RLock()
				at := s.state.at[e.Receipt.ID()]
				s.mu.RUnlock()
				if at&isVisible != 0 && at.index() == from+int64(i) && !yield(at.index(), e) {
					return
				}
			}
		}
	}
}

// Tail returns a page of the log: entries from an index on, at most so many and
// of at most so many bytes, but one if there is any. Size is where the log ends
// for the page and its proof; 0 is the newest.
func (s *Store) Tail(from, size int64, maxEntries, maxBytes int) (Tail, error) {
	s.mu.RLock()
	t := Tail{From: from, Size: size, Checkpoint: s.head}
	err := s.broken
	if size == 0 {
		t.Size = s.state.tree.Size()
	}
	if err == nil && (from < 0 || from > t.Size || t.Size > s.state.tree.Size()) {
		err = fmt.Errorf("entries from %d of %d: the log has %d", from, t.Size, s.state.tree.Size())
	}
	end := min(t.Size, from+int64(max(maxEntries, 1)))
	var leaves []checkpoint.Hash
	if err == nil {
		leaves = s.state.tree.Hashes(0, from, end-from)
		t.Proof, err = s.state.tree.Consistency(from, t.Size)
	}
	s.mu.RUnlock()
	if err != nil {
		return Tail{}, err
	}
	lines, err := s.lines(nil, from, end)
	if err != nil {
		return Tail{}, err
	}
	total := 0
	for i, line := range lines {
		if leaves[i] != ledger.RecordHash([]byte(line)) {
			return Tail{}, fmt.Errorf("entry %d has changed on disk", from+int64(i))
		}
		if total += len(line); i > 0 && total > maxBytes {
			break
		}
		t.Lines = append(t.Lines, line)
	}
	return t, nil
}

// Consistency proves that the first old entries are a prefix of the first size.
func (s *Store) Consistency(old, size int64) ([]checkpoint.Hash, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.tree.Consistency(old, size)
}

// tileWidth is how many hashes or entries a full tile has.
const tileWidth = 256

// Tile returns a tile of the log as c2sp.org/tlog-tiles has it, of a width from 1
// to 256: for level 0 and up hashes, for level -1 an entry bundle. The error is
// [fs.ErrNotExist] if the log has not so many.
func (s *Store) Tile(level int, n int64, width int) ([]byte, error) {
	if level < -1 || level > 7 || n < 0 || n > 1<<48 || width < 1 || width > tileWidth {
		return nil, fmt.Errorf("tile %d/%d of width %d: %w", level, n, width, fs.ErrNotExist)
	}
	first := n * tileWidth
	s.mu.RLock()
	hashes := s.state.tree.Hashes(8*max(level, 0), first, int64(width))
	s.mu.RUnlock()
	if hashes == nil {
		return nil, fmt.Errorf("tile %d/%d of width %d: %w", level, n, width, fs.ErrNotExist)
	}
	var tile []byte
	if level >= 0 {
		for _, h := range hashes {
			tile = append(tile, h[:]...)
		}
		return tile, nil
	}
	lines, err := s.lines(nil, first, first+int64(width))
	if err != nil {
		return nil, err
	}
	for i, line := range lines {
		if hashes[i] != ledger.RecordHash([]byte(line)) {
			return nil, fmt.Errorf("entry %d has changed on disk", first+int64(i))
		}
		tile = append(tile, byte(len(line)>>8), byte(len(line)))
		tile = append(tile, line...)
	}
	return tile, nil
}

// Head returns the newest checkpoint, or nil for a log without entries.
func (s *Store) Head() ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.head, s.broken
}

// Read returns a reader of the log's files as they are at this checkpoint, and of
// nothing else in the directory.
func (s *Store) Read() ledger.Read {
	s.mu.RLock()
	size, head := s.state.tree.Size(), s.head
	s.mu.RUnlock()
	return func(path string) ([]byte, error) {
		n, segment := ledger.ParseSegmentPath(path)
		switch {
		case path == ledger.CheckpointPath && head != nil:
			return head, nil
		case !segment || n*ledger.SegmentSize >= size:
			// The edge is left out: it may be that of a later checkpoint, and what it
			// would save is little.
			return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
		}
		data, err := s.files.Get(path)
		if err != nil {
			return nil, err
		}
		end := 0
		for range min(ledger.SegmentSize, size-n*ledger.SegmentSize) {
			i := bytes.IndexByte(data[end:], '\n')
			if i < 0 {
				return nil, fmt.Errorf("%s is too short", path)
			}
			end += i + 1
		}
		return data[:end], nil
	}
}

// Conflicts returns the names that several valid receipts have.
func (s *Store) Conflicts() []merge.Conflict {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return merge.Conflicts(func(yield func(string, receipt.ID) bool) {
		for file, ids := range s.state.twice {
			for _, id := range ids {
				if !yield(file, id) {
					return
				}
			}
		}
	})
}

// Trust returns the trust state.
func (s *Store) Trust() *merge.Trust {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.trust
}

// SetTrust changes the trust state: it judges the whole log again and writes
// trust.json. A crash before that file is written leaves the old state, one after
// it the new; the copies in certs are made again at the next start.
func (s *Store) SetTrust(ctx context.Context, trust *merge.Trust) error {
	if err := s.checkOwn(trust); err != nil {
		return err
	}
	s.trusting.Lock()
	defer s.trusting.Unlock()
	if err := s.ready(); err != nil {
		return err
	}
	st, err := s.judgeAll(ctx, s.state.tree, trust)
	if err != nil {
		return err
	}
	if err := putTrust(s.files, trust); err != nil {
		return err
	}
	before := s.state.trust
	s.mu.Lock()
	s.state, s.pinned = st, nil
	s.mu.Unlock()
	return putCerts(s.files, before, trust)
}

// Identity returns who the node is.
func (s *Store) Identity() Identity { return s.identity }

// SignMerge signs the PAE of a merge with the key that issues the node's receipts.
func (s *Store) SignMerge(ctx context.Context, pae []byte) ([]byte, error) {
	return s.keys.Issuer.Sign(ctx, pae)
}

// spread calls work for 0 to n-1 from several goroutines and returns the first
// error after all have ended.
func spread(n, workers int, work func(int) error) error {
	var (
		next  atomic.Int64
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	for range min(n, workers, 64) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := work(i); err != nil {
					once.Do(func() { first = err })
					next.Store(int64(n))
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}

// encode writes the store's own JSON files.
func encode(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// decode reads what encode writes, and nothing else.
func decode(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text after the end of the JSON")
	}
	again, err := encode(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return errors.New("it does not encode back to itself")
	}
	return nil
}
