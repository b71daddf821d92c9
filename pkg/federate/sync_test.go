package federate

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

var testDay = time.Date(2025, 11, 26, 12, 0, 0, 0, time.UTC)

func testClock() time.Time { return testDay }

// tester is a test, also one of many in a property.
type tester interface {
	assert.TestingT
	Helper()
}

// party is the keys of one node. They are made once: their making is slow.
type party struct {
	name string
	keys Keys
}

var parties = sync.OnceValue(func() []party {
	var all []party
	for _, name := range []string{"local/node-a", "local/node-b", "local/node-c", "local/stranger"} {
		secret, _, err := openpgp.Generate(name, "", testDay.Add(-time.Hour), rand.Reader)
		if err != nil {
			panic(err)
		}
		p := party{name: name}
		if p.keys.Issuer, err = openpgp.FromArmored(secret, nil, testClock); err != nil {
			panic(err)
		}
		for name, to := range map[string]*string{name: &p.keys.Log, name + "/witness": &p.keys.Witness, name + "/set": &p.keys.Set} {
			if *to, _, err = checkpoint.GenerateKey(rand.Reader, name); err != nil {
				panic(err)
			}
		}
		all = append(all, p)
	}
	return all
})

func (p party) fingerprint() openpgp.Fingerprint { return p.keys.Issuer.Fingerprint() }

// peer is a node in a test.
type peer struct {
	party
	dir     string
	trust   *merge.Trust
	files   *durable.Dir
	store   *Store
	service *Service
	now     func() time.Time
	fault   func(op, name string) durable.Fault
}

func trustOf(t tester, all ...party) *merge.Trust {
	t.Helper()
	var members []merge.Member
	for _, p := range all {
		members = append(members, merge.Member{Node: p.name, Key: p.keys.Issuer.Public()})
	}
	trust, err := merge.NewTrust(members...)
	assert.NilError(t, err)
	return trust
}

func newPeer(t tester, dir string, p party, trust *merge.Trust) *peer {
	t.Helper()
	n := &peer{party: p, dir: dir, trust: trust, now: testClock}
	n.open(t)
	return n
}

func (n *peer) open(t tester) {
	t.Helper()
	var err error
	n.files, err = durable.CreateDir(n.dir)
	assert.NilError(t, err)
	n.files.Fault = n.fault
	n.store, err = OpenStore(context.Background(), n.files, n.keys, n.trust, StoreOptions{Now: testClock, Node: n.name, Workers: 1})
	assert.NilError(t, err)
	n.service = NewService(n.store, ServiceOptions{Now: func() time.Time { return n.now() }})
}

func (n *peer) close(t tester) {
	t.Helper()
	assert.NilError(t, n.store.Close())
	assert.NilError(t, n.files.Close())
}

// reopen is the next process.
func (n *peer) reopen(t tester) {
	t.Helper()
	n.close(t)
	n.open(t)
}

func (n *peer) record(t tester, name string, note string) *receipt.Receipt {
	t.Helper()
	r, err := n.store.Record(context.Background(), receipt.Deploy, name,
		[]receipt.Subject{{Name: "app", SHA256: strings.Repeat("ab", 32)}}, map[string]any{"note": note})
	assert.NilError(t, err)
	return r
}

// issue makes a receipt that no store holds.
func (p party) issue(t tester, note string) receipt.Entry {
	t.Helper()
	r, err := receipt.New(receipt.Statement{
		Kind: receipt.Deploy, Issuer: p.fingerprint(), Issued: testDay,
		Subjects: []receipt.Subject{{Name: "app", SHA256: strings.Repeat("cd", 32)}}, Predicate: map[string]any{"note": note},
	})
	assert.NilError(t, err)
	sig, err := receipt.Sign(context.Background(), r, p.keys.Issuer)
	assert.NilError(t, err)
	e, err := receipt.NewEntry(r, sig)
	assert.NilError(t, err)
	return e
}

// many puts so many receipts of its own into a node's log, in one commit.
func (n *peer) many(t tester, count int, note string) {
	t.Helper()
	var items []merge.Item
	for i := range count {
		items = append(items, merge.Item{Line: string(n.issue(t, fmt.Sprint(note, i)).Line())})
	}
	got, err := n.store.Add(context.Background(), n.name, items)
	assert.NilError(t, err)
	assert.Equal(t, got.Added, count)
}

// scratch is a directory in memory where there is one: these tests are about what
// is written, and not about how long a disk takes for it.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "federate")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { assert.Check(t, os.RemoveAll(dir)) })
	return dir
}

func (n *peer) root(t tester) set.Hash {
	t.Helper()
	snap, err := n.store.Snapshot()
	assert.NilError(t, err)
	return snap.Root
}

// intact verifies a node from its files: the log hashes to what is signed, the set is
// the same after a restart, and each merge receipt verifies with its list of ids.
func (n *peer) intact(t tester) {
	t.Helper()
	before := n.root(t)
	n.reopen(t)
	assert.Equal(t, n.root(t), before)
	if head, err := n.store.Head(); assert.Check(t, err) && head != nil {
		body, err := openCheckpoint(n.store.Identity().Log, string(head))
		assert.NilError(t, err)
		_, err = ledger.Verify(n.store.Read(), body)
		assert.NilError(t, err)
	}
	anchors, err := keyring(n.trust)
	assert.NilError(t, err)
	folder := filepath.Join(n.dir, filepath.FromSlash(mergeFolder))
	list, err := os.ReadDir(folder)
	if !errors.Is(err, fs.ErrNotExist) {
		assert.NilError(t, err)
	}
	for _, f := range list {
		if !strings.HasSuffix(f.Name(), ".receipt") {
			continue
		}
		file, err := os.ReadFile(filepath.Join(folder, f.Name()))
		assert.NilError(t, err)
		ids, err := os.ReadFile(filepath.Join(folder, f.Name()+".ids"))
		assert.NilError(t, err)
		verdict := merge.Verify(file, ids, anchors, nil)
		assert.Equal(t, verdict.Status(), judge.Pass, "%s", verdict)
	}
}

// toolError is a refusal as it comes over a network: words.
type toolError struct{ code, message string }

func (e *toolError) Error() string     { return "the peer answered " + e.code + ": " + e.message }
func (e *toolError) ErrorCode() string { return e.code }

// network calls a service through the JSON of every request and answer.
type network struct {
	to                    *Service
	before                func(tool string, in []byte) ([]byte, error)
	after                 func(tool string, in, out []byte) ([]byte, error)
	calls, sent, received int64
	tools                 []string
}

func (c *network) Counters() (calls, sent, received int64) { return c.calls, c.sent, c.received }

func strictly(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

func handle[In, Out any](ctx context.Context, data []byte, method func(context.Context, In) (Out, error)) ([]byte, error) {
	var in In
	if err := strictly(data, &in); err != nil {
		return nil, err
	}
	out, err := method(ctx, in)
	if err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

func (c *network) serve(ctx context.Context, tool string, in []byte) ([]byte, error) {
	v := c.to
	switch tool {
	case ToolIdentity:
		return handle(ctx, in, v.Identity)
	case ToolHello:
		return handle(ctx, in, v.Hello)
	case ToolTrust:
		return handle(ctx, in, v.Trust)
	case ToolTail:
		return handle(ctx, in, v.Tail)
	case ToolDiff:
		return handle(ctx, in, v.Diff)
	case ToolIDs:
		return handle(ctx, in, v.IDs)
	case ToolGet:
		return handle(ctx, in, v.Get)
	case ToolSession:
		return handle(ctx, in, v.Session)
	case ToolPush:
		return handle(ctx, in, v.Push)
	case ToolMergeIDs:
		return handle(ctx, in, v.MergeIDs)
	case ToolPropose:
		return handle(ctx, in, v.Propose)
	case ToolCommit:
		return handle(ctx, in, v.Commit)
	}
	return nil, fmt.Errorf("no tool %s", tool)
}

func (c *network) Call(ctx context.Context, tool string, in, out any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.calls++
	c.tools = append(c.tools, tool)
	request, err := json.Marshal(in)
	if err != nil {
		return err
	}
	c.sent += int64(len(request))
	if c.before != nil {
		if request, err = c.before(tool, request); err != nil {
			return err
		}
	}
	answer, err := c.serve(ctx, tool, request)
	if err != nil {
		var refused *Error
		if errors.As(err, &refused) {
			if refused.Code == CodeInternal {
				return fmt.Errorf("%w: %w", refused, refused.Unwrap())
			}
			return &toolError{string(refused.Code), refused.Message}
		}
		return err
	}
	if c.after != nil {
		if answer, err = c.after(tool, request, answer); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	c.received += int64(len(answer))
	return strictly(answer, out)
}

// change returns an after that changes the answers of one tool.
func change[Out any](tool string, f func(*Out)) func(string, []byte, []byte) ([]byte, error) {
	return func(called string, _, answer []byte) ([]byte, error) {
		if called != tool {
			return answer, nil
		}
		var out Out
		if err := strictly(answer, &out); err != nil {
			return nil, err
		}
		f(&out)
		return json.Marshal(out)
	}
}

// resay returns a before that changes the requests of one tool.
func resay[In any](tool string, f func(*In)) func(string, []byte) ([]byte, error) {
	return func(called string, request []byte) ([]byte, error) {
		if called != tool {
			return request, nil
		}
		var in In
		if err := strictly(request, &in); err != nil {
			return nil, err
		}
		f(&in)
		return json.Marshal(in)
	}
}

func (n *peer) syncWith(other *peer, c *network) (*Result, error) {
	c.to = other.service
	return Sync(context.Background(), n.store, c, SyncOptions{Peer: other.fingerprint(), Now: testClock})
}

// pair is two nodes that trust each other and a third, each with receipts.
func pair(t testing.TB, a, b int) (*peer, *peer) {
	t.Helper()
	trust := trustOf(t, parties()[:3]...)
	dir := scratch(t)
	x := newPeer(t, filepath.Join(dir, "a"), parties()[0], trust)
	y := newPeer(t, filepath.Join(dir, "b"), parties()[1], trust)
	t.Cleanup(func() { x.close(t); y.close(t) })
	x.many(t, a, "a")
	y.many(t, b, "b")
	return x, y
}

func TestASyncMakesBothHoldTheUnionAndSignIt(t *testing.T) {
	a, b := pair(t, 2, 3)
	a.record(t, "app-v1", "as a has it")
	b.record(t, "app-v1", "as b has it")
	c := &network{}
	res, err := a.syncWith(b, c)
	assert.NilError(t, err)

	assert.Equal(t, res.Fetched, 4)
	assert.Equal(t, res.Pushed, 3)
	assert.Equal(t, res.Count, 7)
	assert.Equal(t, res.Equal, false)
	assert.Equal(t, len(res.Rejected), 0)
	assert.Equal(t, res.Peer, b.store.Identity())
	assert.Equal(t, res.ReceiptFile, "receipts/federation/2025-11-26-local-node-a-local-node-b.receipt")
	assert.Equal(t, len(res.Conflicts), 1)
	assert.Equal(t, res.Conflicts[0].File, "deploy/app-v1.receipt")
	assert.Equal(t, a.root(t), res.Root)
	assert.Equal(t, b.root(t), res.Root)
	assert.Equal(t, res.Quorum, 1)

	for _, n := range []*peer{a, b} {
		state, ok := n.store.Peer(map[*peer]openpgp.Fingerprint{a: b.fingerprint(), b: a.fingerprint()}[n])
		assert.Assert(t, ok)
		digest, err := res.Receipt.Body.Digest()
		assert.NilError(t, err)
		assert.Equal(t, state.LastMerge, digest)
		file, err := n.files.Get(state.LastMergeFile)
		assert.NilError(t, err)
		want, err := res.Receipt.Marshal()
		assert.NilError(t, err)
		assert.Equal(t, string(file), string(want))
		ids, err := n.files.Get(state.LastMergeFile + ".ids")
		assert.NilError(t, err)
		var recorded []*receipt.Receipt
		for _, e := range n.store.Entries() {
			if e.Receipt.Kind() == receipt.FederationMerge {
				recorded = append(recorded, e.Receipt)
			}
		}
		assert.Equal(t, len(recorded), 1)
		assert.Equal(t, recorded[0].Issuer(), n.fingerprint())
		assert.DeepEqual(t, recorded[0].Subjects(), []receipt.Subject{
			{Name: "2025-11-26-local-node-a-local-node-b.receipt", SHA256: hashOf(file)},
			{Name: "2025-11-26-local-node-a-local-node-b.receipt.ids", SHA256: hashOf(ids)},
		})
		n.intact(t)
	}

	// Both know now that they are equal, whoever asks: in one call.
	for _, n := range [][2]*peer{{a, b}, {b, a}} {
		c := &network{}
		again, err := n[0].syncWith(n[1], c)
		assert.NilError(t, err)
		assert.Equal(t, again.Equal, true)
		assert.DeepEqual(t, c.tools, []string{ToolHello})
		assert.Assert(t, again.Sent+again.Received < 1024, "%d bytes", again.Sent+again.Received)
		assert.Equal(t, again.ReceiptFile, res.ReceiptFile)
		assert.Equal(t, again.Count, 7)
		assert.Equal(t, len(again.Conflicts), 1)
	}
}

func TestMergesOfTwoNodesAreAChain(t *testing.T) {
	a, b := pair(t, 1, 1)
	previous := ""
	for i, names := range []string{"a-b.receipt", "b-a.receipt", "a-b-2.receipt"} {
		x, y := a, b
		if i == 1 {
			x, y = b, a
		}
		x.record(t, "", fmt.Sprintf("more %d", i))
		res, err := x.syncWith(y, &network{})
		assert.NilError(t, err)
		assert.Equal(t, res.Receipt.Body.Previous, previous)
		assert.Equal(t, res.ReceiptFile, "receipts/federation/2025-11-26-local-node-"+strings.Replace(names, "-", "-local-node-", 1))
		previous, err = res.Receipt.Body.Digest()
		assert.NilError(t, err)
	}
	a.intact(t)
	b.intact(t)
}

func TestRecentDifferencesComeFromTheLog(t *testing.T) {
	a, b := pair(t, 5, 5)
	_, err := a.syncWith(b, &network{})
	assert.NilError(t, err)
	b.many(t, 300, "new")
	c := &network{}
	res, err := a.syncWith(b, c)
	assert.NilError(t, err)
	assert.Equal(t, res.Fetched, 300)
	assert.Equal(t, res.Known, 0)
	assert.DeepEqual(t, c.tools, []string{ToolHello, ToolTail, ToolTail, ToolTail, ToolIdentity, ToolSession, ToolMergeIDs, ToolPropose, ToolTail, ToolCommit}[:len(c.tools)])
	assert.Assert(t, !slices.Contains(c.tools, ToolDiff))
}

func TestASyncGoesOnWhereItWasCut(t *testing.T) {
	a, b := pair(t, 3, 600)
	pages := 0
	c := &network{after: func(tool string, _, out []byte) ([]byte, error) {
		if tool == ToolTail {
			if pages++; pages == 2 {
				return nil, errors.New("cut")
			}
		}
		return out, nil
	}}
	res, err := a.syncWith(b, c)
	assert.ErrorContains(t, err, "cut")
	assert.Equal(t, res.Fetched, 256)
	res, err = a.syncWith(b, &network{})
	assert.NilError(t, err)
	assert.Equal(t, res.Fetched, 344)
	assert.Equal(t, res.Count, 603)
	a.intact(t)
}

// A cut after any call, before it or with its answer lost, leaves two whole nodes,
// and the next sync finishes.
func TestACutAnywhereIsHealedByTheNextSync(t *testing.T) {
	for cut := 1; ; cut++ {
		for _, lost := range []bool{false, true} {
			a, b := pair(t, 2, 2)
			n := 0
			fail := func() error {
				if n++; n == cut {
					return errors.New("cut")
				}
				return nil
			}
			c := &network{}
			if lost {
				c.after = func(_ string, _, out []byte) ([]byte, error) { return out, fail() }
			} else {
				c.before = func(_ string, in []byte) ([]byte, error) { return in, fail() }
			}
			_, err := a.syncWith(b, c)
			if n < cut {
				assert.NilError(t, err)
				assert.Assert(t, cut > 8, "a sync was %d calls: %v", n, c.tools)
				return
			}
			// The cosignature is all that a merge can do without.
			if err != nil {
				assert.ErrorContains(t, err, "cut")
			}
			a.intact(t)
			b.intact(t)
			res, err := a.syncWith(b, &network{})
			assert.NilError(t, err, "cut at call %d, %v", cut, c.tools)
			assert.Equal(t, res.Count, 4)
			assert.Equal(t, a.root(t), b.root(t))
			last := &network{}
			again, err := b.syncWith(a, last)
			assert.NilError(t, err)
			assert.Assert(t, again.Equal, "cut at call %d, lost %v: %v", cut, lost, last.tools)
			a.intact(t)
			b.intact(t)
		}
	}
}

// What fails on a disk, or dies there, on either side, is healed by the next sync too.
func TestAFaultOfADiskIsHealedByTheNextSync(t *testing.T) {
	faults := []durable.Fault{durable.KillBefore, durable.KillAfter, durable.FailAfter}
	if testing.Short() {
		faults = faults[:1]
	}
	for side := range 2 {
		for _, fault := range faults {
			for at := 1; ; at++ {
				a, b := pair(t, 1, 1)
				sick := []*peer{a, b}[side]
				puts := 0
				sick.fault = func(op, _ string) durable.Fault {
					if op != "put" {
						return durable.NoFault
					}
					if puts++; puts == at {
						return fault
					}
					return durable.NoFault
				}
				sick.reopen(t)
				puts = 0
				_, err := a.syncWith(b, &network{})
				if puts < at {
					assert.NilError(t, err)
					assert.Assert(t, at > 5, "%d puts", at)
					break
				}
				sick.fault = nil
				_, _ = sick.store.Close(), sick.files.Close()
				sick.open(t)
				a.intact(t)
				b.intact(t)
				_, err = a.syncWith(b, &network{})
				assert.NilError(t, err, "side %d, fault %d at put %d", side, fault, at)
				assert.Equal(t, a.root(t), b.root(t))
				again, err := b.syncWith(a, &network{})
				assert.NilError(t, err)
				assert.Assert(t, again.Equal, "side %d, fault %d at put %d", side, fault, at)
				sick.intact(t)
			}
		}
	}
}

// Two nodes may sync with each other at once: nobody is convicted, and in the end they
// agree on the last merge too.
func TestBothMaySyncAtOnce(t *testing.T) {
	a, b := pair(t, 3, 3)
	for i := range 4 {
		a.record(t, "", fmt.Sprint("a once more ", i))
		b.record(t, "", fmt.Sprint("b once more ", i))
		var wg sync.WaitGroup
		for _, way := range [][2]*peer{{a, b}, {b, a}, {a, b}} {
			wg.Go(func() {
				_, err := way[0].syncWith(way[1], &network{})
				// They may be in each other's way too often.
				if code := codeOf(err); code != CodeStaleRoot && code != CodeUnknownSession {
					assert.Check(t, err)
				}
			})
		}
		wg.Wait()
	}
	_, err := a.syncWith(b, &network{})
	assert.NilError(t, err)
	again, err := b.syncWith(a, &network{})
	assert.NilError(t, err)
	assert.Assert(t, again.Equal)
	assert.Equal(t, again.Count, 14)
	a.intact(t)
	b.intact(t)
}

func TestThePeerMayChangeDuringASync(t *testing.T) {
	a, b := pair(t, 2, 2)
	n := 0
	c := &network{before: func(tool string, in []byte) ([]byte, error) {
		if tool == ToolPropose || tool == ToolGet {
			n++
			b.record(t, "", fmt.Sprintf("at b meanwhile %d", n))
			a.record(t, "", fmt.Sprintf("at a meanwhile %d", n))
		}
		return in, nil
	}}
	res, err := a.syncWith(b, c)
	assert.NilError(t, err)
	// The merge is of what both had when it began.
	assert.Equal(t, res.Count, 4)
	res, err = a.syncWith(b, &network{})
	assert.NilError(t, err)
	assert.Equal(t, res.Count, 4+2*n)
	a.intact(t)
	b.intact(t)
}

func TestAStaleRootBeginsAgain(t *testing.T) {
	a, b := pair(t, 20, 20)
	first := true
	c := &network{before: func(tool string, in []byte) ([]byte, error) {
		if tool == ToolDiff && first {
			first = false
			for i := range 17 { // more than are held
				b.record(t, "", fmt.Sprintf("newer %d", i))
				b.root(t)
			}
		}
		return in, nil
	}}
	res, err := a.syncWith(b, c)
	assert.NilError(t, err)
	assert.Equal(t, res.Count, 57)
	assert.Equal(t, a.root(t), b.root(t))
}

func TestTooFewCosignaturesAreAnErrorAfterTheMerge(t *testing.T) {
	a, b := pair(t, 1, 1)
	c := &network{to: b.service}
	res, err := Sync(context.Background(), a.store, c, SyncOptions{Peer: b.fingerprint(), Now: testClock, MinQuorum: 2})
	assert.Assert(t, cmp.ErrorIs(err, ErrQuorum))
	assert.Equal(t, res.Quorum, 1)
	assert.Assert(t, res.Receipt != nil)
}

func TestAnOperatorSignsTheMerge(t *testing.T) {
	a, b := pair(t, 1, 1)
	operator := parties()[2].keys.Issuer
	res, err := Sync(context.Background(), a.store, &network{to: b.service}, SyncOptions{Peer: b.fingerprint(), Now: testClock, Operator: operator})
	assert.NilError(t, err)
	assert.Equal(t, res.Receipt.Body.Operator, operator.Fingerprint())
	a.intact(t)

	a.record(t, "", "one more")
	_, err = Sync(context.Background(), a.store, &network{to: b.service},
		SyncOptions{Peer: b.fingerprint(), Now: testClock, Operator: parties()[3].keys.Issuer})
	assert.Equal(t, codeOf(err), CodeForbidden)
}

// Three nodes that record, sync, are cut and die in any order converge to one root as
// soon as they can talk.
func TestThreeNodesConverge(t *testing.T) {
	root := scratch(t)
	// A history takes a tenth of a second; -rapid.checks asks for more of them.
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		assert.NilError(t, checks.Value.Set("30"))
		defer func() { assert.Check(t, checks.Value.Set(checks.DefValue)) }()
	}
	rapid.Check(t, func(t *rapid.T) {
		trust := trustOf(t, parties()[:3]...)
		dir, err := os.MkdirTemp(root, "")
		assert.NilError(t, err)
		var nodes []*peer
		for i := range 3 {
			nodes = append(nodes, newPeer(t, filepath.Join(dir, fmt.Sprint(i)), parties()[i], trust))
		}
		defer func() {
			for _, n := range nodes {
				n.close(t)
			}
		}()
		node := rapid.IntRange(0, 2)
		all := 0
		for step := range rapid.IntRange(1, 6).Draw(t, "steps") {
			a := nodes[node.Draw(t, "node")]
			switch rapid.SampledFrom([]string{"record", "conflict", "sync", "cut", "reopen"}).Draw(t, "do") {
			case "record":
				a.record(t, "", fmt.Sprint(step))
				all++
			case "conflict":
				a.record(t, "app-v1", fmt.Sprint(step))
				all++
			case "reopen":
				a.reopen(t)
			case "sync":
				b := nodes[node.Draw(t, "peer")]
				if a == b {
					continue
				}
				res, err := a.syncWith(b, &network{})
				assert.NilError(t, err)
				assert.Equal(t, a.root(t), b.root(t))
				assert.Equal(t, res.Root, a.root(t))
			case "cut":
				b := nodes[node.Draw(t, "peer")]
				if a == b {
					continue
				}
				left, lost := rapid.IntRange(0, 9).Draw(t, "calls"), rapid.Bool().Draw(t, "lost")
				fail := func() error {
					if left--; left < 0 {
						return errors.New("cut")
					}
					return nil
				}
				c := &network{}
				if lost {
					c.after = func(_ string, _, out []byte) ([]byte, error) { return out, fail() }
				} else {
					c.before = func(_ string, in []byte) ([]byte, error) { return in, fail() }
				}
				_, _ = a.syncWith(b, c)
			}
		}
		for _, way := range [][2]int{{0, 1}, {1, 2}, {1, 0}} {
			_, err := nodes[way[0]].syncWith(nodes[way[1]], &network{})
			assert.NilError(t, err)
		}
		for _, n := range nodes {
			snap, err := n.store.Snapshot()
			assert.NilError(t, err)
			assert.Equal(t, snap.Count, all)
			assert.Equal(t, snap.Root, nodes[0].root(t))
		}
		nodes[node.Draw(t, "look at")].intact(t)
	})
}

func TestNamesOfFilesFit(t *testing.T) {
	for node, want := range map[string]string{
		"local/node-1a2b3c4d":         "local-node-1a2b3c4d",
		"github.com/owner/name":       "github.com-owner-name",
		"..//--..":                    "node",
		"a..b./c.-d":                  "a.b.c.d",
		"[::1]:8001":                  "1-8001",
		strings.Repeat("x", 255):      strings.Repeat("x", 50),
		strings.Repeat("y", 49) + "/": strings.Repeat("y", 49),
	} {
		assert.Equal(t, slug(node), want)
		b := merge.Body{Time: testDay, A: merge.Side{Node: node}, B: merge.Side{Node: node}}
		assert.NilError(t, receipt.CheckName(mergeName(b)+"-9999"))
	}
}

func TestAScheduleWaitsAsTheAncestorDid(t *testing.T) {
	var waits []time.Duration
	stop := errors.New("stop")
	outcomes := []error{nil, errors.New("x"), errors.New("x"), errors.New("x"), errors.New("x"), errors.New("x"), nil, errors.New("x"), &Stopped{}, ErrQuorum, errors.New("x")}
	i := 0
	s := Schedule{Interval: time.Minute, Wait: func(_ context.Context, d time.Duration) error {
		waits = append(waits, d/time.Second)
		if i == len(outcomes) {
			return stop
		}
		return nil
	}}
	var reported int
	err := s.Run(context.Background(), func(context.Context) error {
		i++
		return outcomes[i-1]
	}, func(error, time.Duration) { reported++ })
	assert.Assert(t, cmp.ErrorIs(err, stop))
	assert.Equal(t, reported, len(outcomes))
	assert.DeepEqual(t, waits, []time.Duration{60, 5, 10, 30, 60, 60, 60, 5, 60, 60, 5})

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	assert.Assert(t, cmp.ErrorIs(Schedule{}.Run(ctx, func(context.Context) error { return nil }, nil), context.Canceled))
	assert.Assert(t, cmp.ErrorIs(sleep(ctx, time.Hour), context.Canceled))
	assert.NilError(t, sleep(context.Background(), time.Nanosecond))
	assert.Equal(t, Schedule{Interval: time.Second}.Next(1, stop), time.Second)
	assert.Equal(t, Schedule{}.Next(2, stop), 10*time.Second)
}
