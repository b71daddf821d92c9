package selftest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

var cases = []testCase{
	{"both-ways", "what either side knew both know, with one root and a receipt signed by both", bothWays},
	{"again", "a second sync of equal sets takes one call and makes nothing", again},
	{"gossip", "all nodes come to one root by talking to their neighbours alone", gossip},
	{"any-order", "order, grouping and repetition change nothing", anyOrder},
	{"duplicate", "what is known is not taken twice", duplicate},
	{"partition", "sides that could not reach each other agree once they can", partition},
	{"killed", "a node that restarts has lost nothing that it acknowledged", killed},
	{"conflict", "two receipts of one name are both kept, and listed", conflict},
	{"foreign-key", "a receipt of an unknown issuer is refused", foreignKey},
	{"unsigned", "a receipt without its issuer's signature is refused", unsigned},
	{"stranger", "a node that is no member is not synced with", stranger},
	{"other-trust", "nodes that trust different keys do not merge", otherTrust},
	{"receipt-tampered", "no signed fact of a merge receipt can be changed", receiptTampered},
	{"wrong-receipts", "an answer with other receipts than were asked for is refused", lies(withhold)},
	{"oversize", "an answer without end is refused while it arrives", lies(oversize(fedHello))},
	{"slow", "an answer that does not come ends at the deadline", slow},
	{"endless-pages", "pages that do not move on are refused", lies(samePage)},
	{"stale-root", "an answer about another set than was asked for is refused", staleRoot},
	{"rollback", "a log that is shorter than it was is caught", rollback},
	{"fork", "a log with two histories is caught, and both its heads are kept", fork},
}

func bothWays(w *world) (string, error) {
	a, b, err := w.pair()
	if err != nil {
		return "", err
	}
	if err := errors.Join(a.record("one", "two", "three"), b.record("four", "five", "six", "seven")); err != nil {
		return "", err
	}
	res, err := a.sync(b)
	if err != nil {
		return "", err
	}
	root, err := agree(a, b)
	if err != nil {
		return "", err
	}
	if err := errors.Join(
		demand(res.Fetched == 4 && res.Pushed == 3 && res.Count == 7, "fetched %d, pushed %d, hold %d; want 4, 3, 7", res.Fetched, res.Pushed, res.Count),
		demand(res.Root == root, "the sync states the root %s, the nodes have %s", res.Root, root),
		verified(a, b, res.ReceiptFile), sound(a), sound(b)); err != nil {
		return "", err
	}
	return fmt.Sprintf("7 receipts, root %s, %s", root, res.ReceiptFile), nil
}

func again(w *world) (string, error) {
	a, b, err := w.pair()
	if err != nil {
		return "", err
	}
	if err := errors.Join(a.record("one"), b.record("two")); err != nil {
		return "", err
	}
	if _, err := a.sync(b); err != nil {
		return "", err
	}
	before, err := a.size()
	if err != nil {
		return "", err
	}
	res, err := a.sync(b)
	if err != nil {
		return "", err
	}
	after, err := a.size()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d call, %d bytes", res.Calls, res.Sent+res.Received), errors.Join(
		demand(res.Equal && res.Fetched+res.Pushed == 0, "it exchanged something"),
		demand(res.Calls == 1, "it took %d calls", res.Calls),
		demand(before == after, "the log grew from %d to %d entries", before, after))
}

func gossip(w *world) (string, error) {
	var names []string
	for i := range w.o.Nodes {
		names = append(names, fmt.Sprintf("n%d", i+1))
	}
	ring, err := w.nodes(names...)
	if err != nil {
		return "", err
	}
	for _, p := range ring {
		if err := p.record(strings.TrimPrefix(p.name, "local/")); err != nil {
			return "", err
		}
	}
	// Twice around a ring each has heard of all.
	for range 2 {
		for i, p := range ring {
			if _, err := p.sync(ring[(i+1)%len(ring)]); err != nil {
				return "", err
			}
		}
	}
	root, err := agree(ring...)
	return fmt.Sprintf("%d nodes, root %s", len(ring), root), err
}

func anyOrder(w *world) (string, error) {
	a, _, err := w.pair()
	if err != nil {
		return "", err
	}
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf("r%d", i))
	}
	if err := a.record(names...); err != nil {
		return "", err
	}
	items, err := a.items()
	if err != nil {
		return "", err
	}
	want, err := a.root()
	if err != nil {
		return "", err
	}
	back := slices.Clone(items)
	slices.Reverse(back)
	var odd, even []merge.Item
	for i, it := range items {
		if i%2 == 0 {
			even = append(even, it)
		} else {
			odd = append(odd, it)
		}
	}
	for i, way := range [][][]merge.Item{
		{back},
		{odd, even},
		slices.Collect(slices.Chunk(back, 1)),
		{items[:30], items[10:], back, even},
	} {
		others, err := w.nodes(fmt.Sprintf("order%d", i))
		if err != nil {
			return "", err
		}
		p := others[0]
		if err := p.store.SetTrust(w.ctx, a.store.Trust()); err == nil {
			return "", errors.New("a node took a trust state that leaves it out")
		}
		trust, err := p.store.Trust().With(merge.Member{Node: a.name, Key: keyOf(a)})
		if err != nil {
			return "", err
		}
		if err := p.store.SetTrust(w.ctx, trust); err != nil {
			return "", err
		}
		for _, part := range way {
			if _, err := p.store.Add(w.ctx, a.name, part); err != nil {
				return "", err
			}
		}
		root, err := p.root()
		if err != nil {
			return "", err
		}
		if err := demand(root == want, "way %d gives the root %s, want %s", i+1, root, want); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d receipts, 4 ways, root %s", len(items), want), nil
}

func duplicate(w *world) (string, error) {
	a, b, err := w.pair()
	if err != nil {
		return "", err
	}
	if err := b.record("one", "two"); err != nil {
		return "", err
	}
	if _, err := a.sync(b); err != nil {
		return "", err
	}
	items, err := b.items()
	if err != nil {
		return "", err
	}
	before, err := a.size()
	if err != nil {
		return "", err
	}
	got, err := a.store.Add(w.ctx, b.name, slices.Concat(items, items, items))
	if err != nil {
		return "", err
	}
	after, err := a.size()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d offered, %d added", 3*len(items), got.Added), errors.Join(
		demand(got.Added == 0 && got.Known == 3*len(items), "%d added, %d known", got.Added, got.Known),
		demand(before == after, "the log grew from %d to %d entries", before, after))
}

func partition(w *world) (string, error) {
	a, b, err := w.pair()
	if err != nil {
		return "", err
	}
	if err := errors.Join(a.record("before"), b.record("there")); err != nil {
		return "", err
	}
	if _, err := a.sync(b); err != nil {
		return "", err
	}
	if err := b.cut(); err != nil {
		return "", err
	}
	if err := errors.Join(a.record("here"), b.record("meanwhile")); err != nil {
		return "", err
	}
	if _, err := a.syncWithin(b, time.Second); err == nil {
		return "", wanting{errors.New("a sync with a node that is off the network succeeded")}
	}
	if err := b.serve(); err != nil {
		return "", err
	}
	res, err := a.sync(b)
	if err != nil {
		return "", err
	}
	root, err := agree(a, b)
	return fmt.Sprintf("4 receipts, root %s", root), errors.Join(err, verified(a, b, res.ReceiptFile),
		demand(res.Count == 4, "%d receipts, want 4", res.Count),
		demand(res.Receipt != nil && res.Receipt.Body.Previous != "", "the receipt does not name the one before"))
}

func killed(w *world) (string, error) {
	a, b, err := w.pair()
	if err != nil {
		return "", err
	}
	if err := errors.Join(a.record("one"), b.record("two", "three")); err != nil {
		return "", err
	}
	if _, err := a.sync(b); err != nil {
		return "", err
	}
	want, err := a.root()
	if err != nil {
		return "", err
	}
	if err := a.restart(a.dir, nil); err != nil {
		return "", err
	}
	root, err := agree(a, b)
	return "root " + root.String(), errors.Join(err, demand(root == want, "the root was %s", want), sound(a))
}

func conflict(w *world) (string, error) {
	a, b, err := w.pair()
	if err != nil {
		return "", err
	}
	if err := errors.Join(a.record("app-1.0.0"), b.record("app-1.0.0")); err != nil {
		return "", err
	}
	res, err := a.sync(b)
	if err != nil {
		return "", err
	}
	_, err = agree(a, b)
	if err := errors.Join(err, verified(a, b, res.ReceiptFile)); err != nil {
		return "", err
	}
	for _, p := range []*peer{a, b} {
		c := p.store.Conflicts()
		if err := demand(len(c) == 1 && c[0].File == "deploy/app-1.0.0.receipt" && len(c[0].IDs) == 2, "%s lists %v", p.name, c); err != nil {
			return "", err
		}
	}
	return "deploy/app-1.0.0.receipt: both kept", demand(res.Count == 2 && len(res.Conflicts) == 1, "%d receipts and %d conflicts, want 2 and 1", res.Count, len(res.Conflicts))
}

// refuses demands that a node takes nothing of an item, and says why.
func refuses(p *peer, it merge.Item, reason merge.Reason) error {
	before, err := p.root()
	if err != nil {
		return err
	}
	got, err := p.store.Add(p.w.ctx, "somebody", []merge.Item{it})
	if err != nil {
		return err
	}
	after, err := p.root()
	if err != nil {
		return err
	}
	return errors.Join(
		demand(got.Added == 0 && len(got.Rejected) == 1 && got.Rejected[0].Reason == reason, "%d added, refused %v; want it refused as %s", got.Added, got.Rejected, reason),
		demand(before == after, "the root changed"),
		demand(p.store.Quarantine().Counts[reason] == 1, "quarantine says %v", p.store.Quarantine().Counts))
}

func foreignKey(w *world) (string, error) {
	a, _, err := w.pair()
	if err != nil {
		return "", err
	}
	it, err := w.foreign()
	if err != nil {
		return "", err
	}
	return "quarantined as " + string(merge.UnknownIssuer), refuses(a, it, merge.UnknownIssuer)
}

// foreign is a receipt that a key outside of the trust state has signed well.
func (w *world) foreign() (merge.Item, error) {
	others, err := w.nodes("outside")
	if err != nil {
		return merge.Item{}, err
	}
	if err := others[0].record("foreign"); err != nil {
		return merge.Item{}, err
	}
	items, err := others[0].items()
	if err != nil {
		return merge.Item{}, err
	}
	return items[0], nil
}

func unsigned(w *world) (string, error) {
	a, b, err := w.pair()
	if err != nil {
		return "", err
	}
	if err := b.record("one", "two"); err != nil {
		return "", err
	}
	items, err := b.items()
	if err != nil {
		return "", err
	}
	var entries [2]receipt.Entry
	for i := range entries {
		if entries[i], err = receipt.ParseLine([]byte(items[i].Line)); err != nil {
			return "", err
		}
	}
	// The signature of one receipt under another.
	bad, err := receipt.NewEntry(entries[0].Receipt, entries[1].Signatures...)
	if err != nil {
		return "", err
	}
	if err := refuses(a, merge.Item{Line: string(bad.Line())}, merge.BadSignature); err != nil {
		return "", err
	}
	// Signed by a member, and not by its issuer.
	m := keyOf(a).Fingerprint()
	other, err := receipt.NewEntry(entries[0].Receipt, receipt.Signature{Fingerprint: m, Packet: entries[1].Signatures[0].Packet})
	if err != nil {
		return "", err
	}
	return "quarantined as " + string(merge.BadSignature) + " and " + string(merge.Unsigned), refuses(a, merge.Item{Line: string(other.Line())}, merge.Unsigned)
}

func stranger(w *world) (string, error) {
	a, b, err := w.pair()
	if err != nil {
		return "", err
	}
	others, err := w.nodes("outside")
	if err != nil {
		return "", err
	}
	if err := errors.Join(a.record("one"), others[0].record("two")); err != nil {
		return "", err
	}
	// Somebody else answers where b is thought to be.
	b.url = others[0].url
	before, err := a.root()
	if err != nil {
		return "", err
	}
	_, err = a.sync(b)
	var untrusted *federate.Untrusted
	if err := demand(errors.As(err, &untrusted), "the sync ended with: %v", err); err != nil {
		return "", err
	}
	after, err := a.root()
	return untrusted.Error(), errors.Join(err, demand(before == after, "the root changed"))
}

func otherTrust(w *world) (string, error) {
	a, b, err := w.pair()
	if err != nil {
		return "", err
	}
	others, err := w.nodes("outside")
	if err != nil {
		return "", err
	}
	wider, err := b.store.Trust().With(merge.Member{Node: others[0].name, Key: keyOf(others[0])})
	if err != nil {
		return "", err
	}
	if err := errors.Join(b.store.SetTrust(w.ctx, wider), a.record("one")); err != nil {
		return "", err
	}
	_, err = a.sync(b)
	var mismatch *federate.TrustMismatch
	return "refused, with the difference", demand(errors.As(err, &mismatch), "the sync ended with: %v", err)
}

func receiptTampered(w *world) (string, error) {
	a, b, err := w.pair()
	if err != nil {
		return "", err
	}
	if err := errors.Join(a.record("one"), b.record("two")); err != nil {
		return "", err
	}
	res, err := a.sync(b)
	if err != nil {
		return "", err
	}
	merged, ids, err := a.evidence(res.ReceiptFile)
	if err != nil {
		return "", err
	}
	ring, err := openpgp.NewKeyring(keyOf(a), keyOf(b))
	if err != nil {
		return "", err
	}
	tried := 0
	for i, c := range merged {
		// The first digit of each number, digest and key.
		if c < '0' || c > '9' || merged[i-1] >= '0' && merged[i-1] <= '9' {
			continue
		}
		bad := slices.Clone(merged)
		bad[i] = '0' + (c-'0'+1)%10
		tried++
		if v := merge.Verify(bad, ids, ring, nil); v.Status() == judge.Pass && v.Anchored {
			return "", wanting{fmt.Errorf("it verifies with byte %d changed", i)}
		}
	}
	v := merge.Verify(merged, nil, ring, nil)
	if err := demand(v.Status() != judge.Pass, "it verifies without its list of ids"); err != nil {
		return "", err
	}
	v = merge.Verify(merged, ids, nil, nil)
	return fmt.Sprintf("%d changes, each found", tried), demand(v.Conditional(), "without trust anchors the outcome is %s", v.Outcome())
}

func slow(w *world) (string, error) {
	a, b, err := w.pair()
	if err != nil {
		return "", err
	}
	if err := errors.Join(a.record("one"), b.record("two"), b.restart(b.dir, stall(fedHello))); err != nil {
		return "", err
	}
	began := time.Now()
	_, err = a.syncWithin(b, 300*time.Millisecond)
	took := time.Since(began).Round(100 * time.Millisecond)
	return "ended after " + took.String(), errors.Join(
		demand(err != nil, "the sync succeeded"), demand(took < 5*time.Second, "it took %s", took), sound(a))
}

// staleRoot lets a peer answer with the set note of before.
func staleRoot(w *world) (string, error) {
	a, b, err := w.pair()
	if err != nil {
		return "", err
	}
	if err := b.record("one"); err != nil {
		return "", err
	}
	old, err := b.store.Snapshot()
	if err != nil {
		return "", err
	}
	if err := errors.Join(a.record("two"), b.record("three"), b.restart(b.dir, rewrite(fedDiff, func(answer map[string]any) { answer["root"] = old.Root.String() }))); err != nil {
		return "", err
	}
	_, err = a.sync(b)
	var violation *federate.Violation
	return "refused", errors.Join(demand(errors.As(err, &violation), "the sync ended with: %v", err), sound(a))
}

// lies lets a peer's answers be forged. The sync must fail, nothing half-done may be
// left, and the two must agree once the lies end.
func lies(how fault) func(*world) (string, error) {
	return func(w *world) (string, error) {
		a, b, err := w.pair()
		if err != nil {
			return "", err
		}
		if err := errors.Join(a.record("one"), b.record("two", "three", "four"), b.restart(b.dir, how)); err != nil {
			return "", err
		}
		_, err = a.syncWithin(b, 3*time.Second)
		if err := errors.Join(demand(err != nil, "the sync succeeded"), sound(a)); err != nil {
			return "", err
		}
		if err := b.restart(b.dir, nil); err != nil {
			return "", err
		}
		res, err := a.sync(b)
		if err != nil {
			return "", err
		}
		_, err = agree(a, b)
		return "refused; agreed once it ended", errors.Join(err, verified(a, b, res.ReceiptFile))
	}
}

// twoHistories brings b to where its log was before a saw it last. With grow, the
// other history is as long as the one that a saw.
func (w *world) twoHistories(grow bool) (a, b *peer, err error) {
	if a, b, err = w.pair(); err != nil {
		return nil, nil, err
	}
	if err := errors.Join(a.record("one"), b.record("two")); err != nil {
		return nil, nil, err
	}
	backup, err := b.saved()
	if err != nil {
		return nil, nil, err
	}
	if err := b.record("three", "four"); err != nil {
		return nil, nil, err
	}
	if _, err := a.sync(b); err != nil {
		return nil, nil, err
	}
	if err := b.restart(backup, nil); err != nil {
		return nil, nil, err
	}
	for n := 0; grow; n++ {
		seen, err := a.seen(b)
		if err != nil {
			return nil, nil, err
		}
		size, err := b.size()
		if err != nil {
			return nil, nil, err
		}
		if size >= seen {
			break
		}
		if err := b.record(fmt.Sprintf("other-%d", n)); err != nil {
			return nil, nil, err
		}
	}
	return a, b, nil
}

// seen is the size of the newest checkpoint that a node accepted from another.
func (p *peer) seen(of *peer) (int64, error) {
	state, ok := p.store.Peer(of.fingerprint())
	if !ok {
		return 0, fmt.Errorf("%s knows nothing of %s", p.name, of.name)
	}
	text, _, _ := strings.Cut(string(state.LastSeen), "\n\n")
	body, err := checkpoint.ParseBody([]byte(text + "\n"))
	return body.Size, err
}

// convicts demands that the sync ends with the evidence of two histories, that it is
// on record, and that nothing more is exchanged.
func convicts(a, b *peer, kind string) (string, error) {
	_, err := a.sync(b)
	var e *federate.Equivocation
	if err := demand(errors.As(err, &e), "the sync ended with: %v", err); err != nil {
		return "", err
	}
	policy, err := checkpoint.ParsePolicy(checkpoint.NewPolicy(b.store.Identity().Log))
	if err != nil {
		return "", err
	}
	for _, note := range [][]byte{e.First, e.Second} {
		if _, err := policy.Open(note); err != nil {
			return "", wanting{fmt.Errorf("the evidence is not signed by %s: %w", b.name, err)}
		}
	}
	recorded, _, there := a.store.Entry(e.Incident)
	if err := errors.Join(
		demand(e.Kind == kind, "it was caught as %s, want %s", e.Kind, kind),
		demand(there && recorded.Receipt.Kind() == receipt.Incident, "no incident is on record")); err != nil {
		return "", err
	}
	_, err = a.sync(b)
	var stopped *federate.Stopped
	return "caught, recorded as incident " + e.Incident.String()[:16], errors.Join(demand(errors.As(err, &stopped), "the next sync ended with: %v", err), sound(a))
}

func rollback(w *world) (string, error) {
	a, b, err := w.twoHistories(false)
	if err != nil {
		return "", err
	}
	return convicts(a, b, federate.Rollback)
}

func fork(w *world) (string, error) {
	a, b, err := w.twoHistories(true)
	if err != nil {
		return "", err
	}
	return convicts(a, b, federate.Fork)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
