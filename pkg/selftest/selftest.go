// Package selftest proves that nodes merge, and that they catch a peer that lies:
// it runs real nodes with throw-away keys, each with a log, a listener on loopback
// and peers that it calls over HTTP, and puts them through what federation is for
// and what it must survive.
//
// Every case says what must hold. The last ones are lies: a rollback, a forked
// log, forged answers. A node that did not catch them would fail the case, so this
// test cannot pass on nodes that believe everything.
package selftest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// MaxNodes is how many nodes a run may ask for.
const MaxNodes = 16

// Options are what most callers leave as they are, but for Random and Now.
type Options struct {
	Nodes  int    // of the case gossip; 0 is 2, at most MaxNodes
	Dir    string // where the nodes keep their data; "": a temporary folder, removed at the end
	Random io.Reader
	Now    func() time.Time
	// Done is told of each case as it ends, one at a time (optional).
	Done func(judge.Check)
}

// Run carries out all cases, some at a time, and returns a check for each. An
// error means that it could not begin.
func Run(ctx context.Context, o Options) ([]judge.Check, error) {
	if o.Nodes == 0 {
		o.Nodes = 2
	}
	if o.Nodes < 2 || o.Nodes > MaxNodes {
		return nil, fmt.Errorf("self-test: %d nodes, want 2 to %d", o.Nodes, MaxNodes)
	}
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "remembrancer-selftest-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		o.Dir = dir
	}
	// Most of a case is waiting for a disk or for the other side.
	checks := make([]judge.Check, len(cases))
	at := make(chan struct{}, 8)
	var all sync.WaitGroup
	var done sync.Mutex
	for i, c := range cases {
		all.Go(func() {
			at <- struct{}{}
			defer func() { <-at }()
			checks[i] = c.run(ctx, o)
			if o.Done != nil {
				done.Lock()
				defer done.Unlock()
				o.Done(checks[i])
			}
		})
	}
	all.Wait()
	return checks, nil
}

// testCase is one claim and how it is put to the test.
type testCase struct {
	name, claim string
	try         func(w *world) (detail string, err error)
}

// wanting says that nodes did not do what they must; any other error that the case
// could not be carried out.
type wanting struct{ error }

func demand(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return wanting{fmt.Errorf(format, args...)}
}

// run carries out one case in a world of its own.
func (c testCase) run(ctx context.Context, o Options) judge.Check {
	id := "federation/" + c.name
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	w := &world{ctx: ctx, o: o, dir: filepath.Join(o.Dir, c.name)}
	detail, err := c.try(w)
	if closed := w.close(); err == nil {
		err = closed
	}
	var bad wanting
	switch {
	case errors.As(err, &bad):
		return judge.Judged(id, c.claim, detail, judge.Finding{Message: bad.Error()})
	case err != nil:
		return judge.Unjudged(id, c.claim, err)
	}
	return judge.Judged(id, c.claim, detail)
}

// world is the nodes of one case.
type world struct {
	ctx   context.Context //nolint:containedctx // a world lives as long as its case
	o     Options
	dir   string
	peers []*peer
}

// peer is one node: a store in a folder of its own, and a server.
type peer struct {
	w     *world
	name  string
	dir   string
	store *federate.Store
	lie   fault // what its answers are put through; nil: nothing

	url  string // while it serves
	stop func() error
}

// nodes makes and starts nodes that trust one another.
func (w *world) nodes(names ...string) ([]*peer, error) {
	var made []*peer
	var members []merge.Member
	for _, name := range names {
		p := &peer{w: w, name: "local/" + name, dir: filepath.Join(w.dir, name)}
		if err := federate.InitStore(w.ctx, p.dir, p.name, w.o.Random, w.o.Now()); err != nil {
			return nil, err
		}
		if err := p.open(); err != nil {
			return nil, err
		}
		w.peers = append(w.peers, p)
		made = append(made, p)
		members = append(members, p.store.Trust().Members()...)
	}
	trust, err := merge.NewTrust(members...)
	if err != nil {
		return nil, err
	}
	for _, p := range made {
		if err := p.store.SetTrust(w.ctx, trust); err != nil {
			return nil, err
		}
		if err := p.serve(); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// pair is two nodes that trust one another.
func (w *world) pair() (a, b *peer, err error) {
	both, err := w.nodes("a", "b")
	if err != nil {
		return nil, nil, err
	}
	return both[0], both[1], nil
}

func (w *world) close() error {
	var errs []error
	for _, p := range w.peers {
		errs = append(errs, p.shut())
	}
	return errors.Join(errs...)
}

func (p *peer) open() (err error) {
	p.store, err = federate.LoadStore(p.w.ctx, p.dir, federate.StoreOptions{Now: p.w.o.Now, Node: p.name}, nil)
	return err
}

// serve listens on a free port of loopback.
func (p *peer) serve() error {
	server, err := node.New(node.Options{
		Store: p.store, Service: federate.NewService(p.store, federate.ServiceOptions{Random: p.w.o.Random}), Random: p.w.o.Random, Now: p.w.o.Now,
	})
	if err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(p.w.ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.url = "http://" + l.Addr().String() + node.MCPPath
	ctx, cancel := context.WithCancel(p.w.ctx)
	ended := make(chan error, 1)
	go func() {
		if p.lie != nil {
			ended <- serveLies(ctx, l, server.Handler(), p.lie)
			return
		}
		ended <- server.Serve(ctx, l)
	}()
	p.stop = func() error {
		cancel()
		return <-ended
	}
	return nil
}

// cut takes the node off the network.
func (p *peer) cut() error {
	if p.stop == nil {
		return nil
	}
	err := p.stop()
	p.stop = nil
	return err
}

// shut ends the node as its process would end.
func (p *peer) shut() error {
	err := p.cut()
	if p.store != nil {
		err = errors.Join(err, p.store.Close())
		p.store = nil
	}
	return err
}

// restart begins the node again, from the data of a folder.
func (p *peer) restart(dir string, lie fault) error {
	if err := p.shut(); err != nil {
		return err
	}
	p.dir, p.lie = dir, lie
	if err := p.open(); err != nil {
		return err
	}
	return p.serve()
}

// saved is a copy of the node's data, as a backup has it.
func (p *peer) saved() (string, error) {
	if err := p.shut(); err != nil {
		return "", err
	}
	dir := p.dir + "-backup"
	if err := os.CopyFS(dir, os.DirFS(p.dir)); err != nil {
		return "", err
	}
	return dir, p.restart(p.dir, p.lie)
}

func (p *peer) fingerprint() openpgp.Fingerprint {
	return openpgp.Fingerprint(p.store.Identity().Fingerprint)
}

// record makes receipts of the node's own.
func (p *peer) record(names ...string) error {
	for _, name := range names {
		_, err := p.store.Record(p.w.ctx, receipt.Deploy, name,
			[]receipt.Subject{{Name: name + ".tar.gz", SHA256: strings.Repeat("5e", 32)}},
			map[string]any{"component": name, "version": "1.0.0", "node": p.name})
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) root() (set.Hash, error) {
	s, err := p.store.Snapshot()
	if err != nil {
		return set.Hash{}, err
	}
	return s.Root, nil
}

// items are all receipts of the node, as it would hand them over.
func (p *peer) items() ([]merge.Item, error) {
	s, err := p.store.Snapshot()
	if err != nil {
		return nil, err
	}
	return p.store.Items(slices.Collect(s.Set.All()))
}

func (p *peer) size() (int64, error) {
	s, err := p.store.Snapshot()
	if err != nil {
		return 0, err
	}
	return s.Size, nil
}

// sync lets one node sync with another, over HTTP.
func (p *peer) sync(with *peer) (*federate.Result, error) {
	return p.syncWithin(with, 10*time.Second)
}

func (p *peer) syncWithin(with *peer, call time.Duration) (*federate.Result, error) {
	c, err := node.Dial(p.w.ctx, with.url, node.DialOptions{Timeout: call})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return federate.Sync(p.w.ctx, p.store, c, federate.SyncOptions{
		Peer: with.fingerprint(), URL: with.url, Random: p.w.o.Random, Now: p.w.o.Now, Timeout: 20 * time.Second, CallTimeout: call,
	})
}

// agree demands that nodes have one root.
func agree(peers ...*peer) (set.Hash, error) {
	first, err := peers[0].root()
	if err != nil {
		return first, err
	}
	for _, p := range peers[1:] {
		root, err := p.root()
		if err != nil {
			return first, err
		}
		if err := demand(root == first, "%s has the root %s, %s has %s", peers[0].name, first, p.name, root); err != nil {
			return first, err
		}
	}
	return first, nil
}

// evidence is the files of a merge receipt, as a node keeps them.
func (p *peer) evidence(file string) (merged, ids []byte, err error) {
	if merged, err = os.ReadFile(filepath.Join(p.dir, filepath.FromSlash(file))); err != nil {
		return nil, nil, err
	}
	ids, err = os.ReadFile(filepath.Join(p.dir, filepath.FromSlash(file)+".ids"))
	return merged, ids, err
}

// verified demands that a merge receipt verifies from the files of both sides, with
// nothing but the public keys of both.
func verified(a, b *peer, file string) error {
	ring, err := openpgp.NewKeyring(keyOf(a), keyOf(b))
	if err != nil {
		return err
	}
	var first []byte
	for _, p := range []*peer{a, b} {
		merged, ids, err := p.evidence(file)
		if err != nil {
			return err
		}
		if first == nil {
			first = merged
		}
		if err := demand(bytes.Equal(first, merged), "the two sides keep different receipts"); err != nil {
			return err
		}
		v := merge.Verify(merged, ids, ring, nil)
		if err := demand(v.Status() == judge.Pass && v.Anchored, "the receipt of %s does not verify:\n%s", p.name, v); err != nil {
			return err
		}
		recorded := 0
		for _, e := range p.store.Entries() {
			if e.Receipt.Kind() == receipt.FederationMerge && e.Receipt.Subjects()[0].SHA256 == digest(merged) {
				recorded++
			}
		}
		if err := demand(recorded == 1, "the log of %s records the merge %d times", p.name, recorded); err != nil {
			return err
		}
	}
	return nil
}

func keyOf(p *peer) *openpgp.Key {
	m, _ := p.store.Trust().Lookup(p.fingerprint())
	return m.Key
}

// sound demands that a node's log, read again from its files, is what its
// checkpoint states.
func sound(p *peer) error {
	note, err := p.store.Head()
	if err != nil || note == nil {
		return err
	}
	policy, err := checkpoint.ParsePolicy(checkpoint.NewPolicy(p.store.Identity().Log))
	if err != nil {
		return err
	}
	head, err := policy.Open(note)
	if err != nil {
		return err
	}
	if _, err := ledger.Verify(p.store.Read(), head.Body()); err != nil {
		return wanting{fmt.Errorf("the log of %s: %w", p.name, err)}
	}
	return nil
}
