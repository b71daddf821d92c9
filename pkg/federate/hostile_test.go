package federate

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// checkpointOf signs any checkpoint with a party's log key.
func (p party) checkpointOf(t tester, size int64, root checkpoint.Hash) string {
	t.Helper()
	signer, err := checkpoint.NewSigner(p.keys.Log)
	assert.NilError(t, err)
	note, err := signer.Sign(checkpoint.Body{Origin: p.name, Size: size, Root: root})
	assert.NilError(t, err)
	return string(note)
}

// setNoteOf signs any set with a party's set key.
func (p party) setNoteOf(t tester, trust string, count int, root set.Hash) string {
	t.Helper()
	note, err := checkpoint.SignNote(p.keys.Set, merge.SetNoteText(p.name, trust, count, root))
	assert.NilError(t, err)
	return string(note)
}

func (p party) identityOf(t tester, id Identity) IdentityOut {
	t.Helper()
	text, err := receipt.Canonical(id)
	assert.NilError(t, err)
	sig, err := p.keys.Issuer.Sign(context.Background(), pae(identityType, text))
	assert.NilError(t, err)
	return IdentityOut{Identity: string(text), Signature: base64.StdEncoding.EncodeToString(sig)}
}

// both applies several changes of answers.
func both(changes ...func(string, []byte, []byte) ([]byte, error)) func(string, []byte, []byte) ([]byte, error) {
	return func(tool string, in, out []byte) ([]byte, error) {
		var err error
		for _, c := range changes {
			if out, err = c(tool, in, out); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
}

// receipts counts the merge receipts that a node keeps.
func (n *peer) receipts(t tester) int {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(n.dir, filepath.FromSlash(mergeFolder), "*.receipt"))
	assert.NilError(t, err)
	return len(list)
}

// A peer that lies is found out, by the error that says how, and leaves nothing behind
// but receipts that are valid by themselves.
func TestALyingPeerIsFoundOut(t *testing.T) {
	stranger := parties()[3]
	violation := func(tool string) func(*testing.T, error) {
		return func(t *testing.T, err error) {
			t.Helper()
			var v *Violation
			assert.Assert(t, errors.As(err, &v), "%v", err)
			assert.Equal(t, v.Tool, tool, "%v", err)
		}
	}
	untrusted := func(t *testing.T, err error) {
		t.Helper()
		var u *Untrusted
		assert.Assert(t, errors.As(err, &u), "%v", err)
	}
	type lie func(t *testing.T, a, b *peer) func(tool string, in, out []byte) ([]byte, error)
	always := func(f func(string, []byte, []byte) ([]byte, error)) lie {
		return func(*testing.T, *peer, *peer) func(string, []byte, []byte) ([]byte, error) { return f }
	}
	for _, c := range []struct {
		name   string
		lie    lie
		err    func(*testing.T, error)
		synced bool // the two have met before, and then both recorded more
	}{
		{"another protocol", always(change(ToolHello, func(o *HelloOut) { o.Protocol = "v0" })), violation(ToolHello), false},
		{"a root that nobody signed", always(change(ToolHello, func(o *HelloOut) { o.Set = strings.Replace(o.Set, "\n3\n", "\n4\n", 1) })), violation(ToolHello), false},
		{"no challenge", always(change(ToolHello, func(o *HelloOut) { o.Challenge = "" })), violation(ToolHello), false},
		{"a checkpoint signed by another", func(t *testing.T, _, b *peer) func(string, []byte, []byte) ([]byte, error) {
			other := party{b.name, stranger.keys}
			_ = other
			skey, _, err := checkpoint.GenerateKey(strings.NewReader(strings.Repeat("x", 64)), b.name)
			assert.NilError(t, err)
			other.keys.Log = skey
			note := other.checkpointOf(t, 3, checkpoint.Hash{1})
			return change(ToolHello, func(o *HelloOut) { o.Checkpoint = note })
		}, violation(ToolHello), true},
		{"a set of another node", func(t *testing.T, a, b *peer) func(string, []byte, []byte) ([]byte, error) {
			snap, err := a.store.Snapshot()
			assert.NilError(t, err)
			return change(ToolHello, func(o *HelloOut) { o.Set = string(snap.SetNote) })
		}, violation(ToolHello), false},
		{"a count that is wrong", func(t *testing.T, a, b *peer) func(string, []byte, []byte) ([]byte, error) {
			note := b.setNoteOf(t, b.trust.Hash(), 2, b.root(t))
			return change(ToolHello, func(o *HelloOut) { o.Set = note })
		}, violation(ToolHello), false},
		{"more receipts than we can hold", func(t *testing.T, a, b *peer) func(string, []byte, []byte) ([]byte, error) {
			note := b.setNoteOf(t, b.trust.Hash(), 1<<50, b.root(t))
			return change(ToolHello, func(o *HelloOut) { o.Set = note })
		}, func(t *testing.T, err error) { assert.Assert(t, cmp.ErrorIs(err, ErrBudget)) }, false},
		{"an identity by a stranger", func(t *testing.T, _, b *peer) func(string, []byte, []byte) ([]byte, error) {
			id := b.store.Identity()
			id.Fingerprint = string(stranger.fingerprint())
			out := stranger.identityOf(t, id)
			return change(ToolIdentity, func(o *IdentityOut) { *o = out })
		}, untrusted, false},
		{"an identity that its key did not sign", func(t *testing.T, _, b *peer) func(string, []byte, []byte) ([]byte, error) {
			out := stranger.identityOf(t, b.store.Identity())
			return change(ToolIdentity, func(o *IdentityOut) { *o = out })
		}, untrusted, false},
		{"an identity in other bytes", always(change(ToolIdentity, func(o *IdentityOut) { o.Identity += " " })), untrusted, false},
		{"an identity of another member", func(t *testing.T, _, b *peer) func(string, []byte, []byte) ([]byte, error) {
			id := b.store.Identity()
			id.Fingerprint = string(parties()[2].fingerprint())
			out := parties()[2].identityOf(t, id)
			return change(ToolIdentity, func(o *IdentityOut) { *o = out })
		}, untrusted, false},
		{"an identity with the log of another", func(t *testing.T, a, b *peer) func(string, []byte, []byte) ([]byte, error) {
			id := b.store.Identity()
			id.Log = a.store.Identity().Log
			out := b.identityOf(t, id)
			return change(ToolIdentity, func(o *IdentityOut) { *o = out })
		}, untrusted, false},
		{"a changed identity", func(t *testing.T, _, b *peer) func(string, []byte, []byte) ([]byte, error) {
			id := b.store.Identity()
			skey, vkey, err := checkpoint.GenerateKey(strings.NewReader(strings.Repeat("y", 64)), b.name)
			assert.NilError(t, err)
			id.Log = vkey
			out := b.identityOf(t, id)
			other := party{b.name, Keys{Log: skey}}
			note := other.checkpointOf(t, 3, checkpoint.Hash{1})
			return both(change(ToolIdentity, func(o *IdentityOut) { *o = out }), change(ToolHello, func(o *HelloOut) { o.Checkpoint = note }))
		}, func(t *testing.T, err error) {
			var changed *IdentityChanged
			assert.Assert(t, errors.As(err, &changed), "%v", err)
		}, true},
		{"a page that is not the one", always(change(ToolTail, func(o *TailOut) { o.From-- })), violation(ToolTail), false},
		{"a page that does not move on", always(change(ToolTail, func(o *TailOut) { o.Lines = nil })), violation(ToolTail), false},
		{"a page beyond the end", always(change(ToolTail, func(o *TailOut) { o.Lines = append(o.Lines, o.Lines...) })), violation(ToolTail), false},
		{"a page of too many bytes", always(change(ToolTail, func(o *TailOut) { o.Lines[0] = strings.Repeat("x", 2<<20) })), violation(ToolTail), false},
		{"a proof that is no proof", always(change(ToolTail, func(o *TailOut) {
			if len(o.Proof) > 0 {
				o.Proof[0] = "?"
			}
		})), violation(ToolTail), true},
		{"lines with a proof only", always(change(ToolTail, func(o *TailOut) { o.Lines = []string{"x"} })), violation(ToolTail), true},
		{"subtrees of another root", always(change(ToolDiff, func(o *DiffOut) { o.Root = strings.Repeat("0", 64) })), violation(ToolDiff), true},
		{"subtrees that are not in the set", always(change(ToolDiff, func(o *DiffOut) { o.Subtrees[0][len(o.Subtrees[0])-1] ^= 1 })), violation(ToolDiff), true},
		{"too few subtrees", always(change(ToolDiff, func(o *DiffOut) { o.Subtrees = nil })), violation(ToolDiff), true},
		{"too large subtrees", always(change(ToolDiff, func(o *DiffOut) { o.Subtrees[0] = make([]byte, set.MaxAnswer+1) })), violation(ToolDiff), true},
		{"receipts that were not asked for", always(change(ToolGet, func(o *GetOut) {
			o.Items = []merge.Item{{Line: string(parties()[1].issue(t, "uncalled").Line())}}
		})), violation(ToolGet), true},
		{"a receipt twice", always(change(ToolGet, func(o *GetOut) { o.Items = append(o.Items, o.Items[0]) })), violation(ToolGet), true},
		{"rubbish for a receipt", always(change(ToolGet, func(o *GetOut) { o.Items[0].Line = "{}" })), violation(ToolGet), true},
		{"a receipt that is withheld", always(change(ToolGet, func(o *GetOut) { o.Items = nil })), violation(ToolGet), true},
		{"a previous merge that never was", always(change(ToolSession, func(o *SessionOut) { o.Previous = "{}" })), violation(ToolSession), false},
		{"a receipt of ours that it does not take", always(change(ToolPush, func(o *PushOut) {
			o.Rejected = []RejectedItem{{ID: "x", Reason: "unsigned"}}
		})), violation(ToolPush), false},
		{"receipts of ours that it loses", always(change(ToolPush, func(o *PushOut) { o.Added-- })), violation(ToolPush), false},
		{"ids that it loses", always(change(ToolMergeIDs, func(o *MergeIDsOut) { o.OnlyB++ })), violation(ToolMergeIDs), false},
		{"another root of the union", always(change(ToolPropose, func(o *ProposeOut) { o.Root = strings.Repeat("0", 64) })), violation(ToolPropose), false},
		{"a signature of something else", always(change(ToolPropose, func(o *ProposeOut) {
			sig, err := parties()[1].keys.Issuer.Sign(context.Background(), []byte("something else"))
			assert.NilError(t, err)
			o.Signature = base64.StdEncoding.EncodeToString(sig)
		})), violation(ToolPropose), false},
		{"a signature of somebody else", always(func(tool string, in, out []byte) ([]byte, error) {
			if tool != ToolPropose {
				return out, nil
			}
			var p ProposeIn
			assert.NilError(t, json.Unmarshal(in, &p))
			sig, err := stranger.keys.Issuer.Sign(context.Background(), merge.PAE([]byte(p.Body)))
			assert.NilError(t, err)
			return change(ToolPropose, func(o *ProposeOut) { o.Signature = base64.StdEncoding.EncodeToString(sig) })(tool, in, out)
		}), violation(ToolPropose), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pair(t, 1, 3)
			before := 0
			if c.synced {
				_, err := a.syncWith(b, &network{})
				assert.NilError(t, err)
				before = a.receipts(t)
				// More of them than are fetched from the log in the hope that they are new.
				state, err := a.store.amendPeer(b.fingerprint(), func(p *PeerState) { p.TailSize = 0 })
				assert.NilError(t, err)
				assert.Equal(t, state.TailSize, int64(0))
				a.record(t, "", "one more at a")
				b.record(t, "", "one more at b")
			}
			_, err := a.syncWith(b, &network{after: c.lie(t, a, b)})
			c.err(t, err)
			assert.Equal(t, a.receipts(t), before)
			a.intact(t)
			b.intact(t)
			// It was no more than a lie: when it stops, they merge.
			res, err := a.syncWith(b, &network{})
			assert.NilError(t, err)
			assert.Equal(t, res.Root, b.root(t))
		})
	}
}

// A set that its owner signed can still be one that nobody may have.
func TestASetOfInvalidReceiptsIsNotMerged(t *testing.T) {
	a, b := pair(t, 4, 4)
	e := parties()[3].issue(t, "by a stranger")
	var s set.Set
	snap, err := b.store.Snapshot()
	assert.NilError(t, err)
	for id := range snap.Set.All() {
		s.Add(id)
	}
	s.Add(e.Receipt.ID())
	note := b.setNoteOf(t, b.trust.Hash(), s.Len(), s.Root())
	c := &network{
		before: resay(ToolDiff, func(in *DiffIn) { in.Root = snap.Root.String() }),
		after: both(change(ToolHello, func(o *HelloOut) { o.Set = note }), func(tool string, in, out []byte) ([]byte, error) {
			switch tool {
			case ToolDiff:
				var d DiffIn
				if err := json.Unmarshal(in, &d); err != nil {
					return nil, err
				}
				var prefixes []set.Prefix
				for _, text := range d.Prefixes {
					p, err := set.ParsePrefix(text)
					if err != nil {
						return nil, err
					}
					prefixes = append(prefixes, p)
				}
				trees, err := s.Subtrees(context.Background(), prefixes, d.Levels)
				if err != nil {
					return nil, err
				}
				return json.Marshal(DiffOut{Root: s.Root().String(), Subtrees: trees})
			case ToolGet:
				var g GetOut
				if err := json.Unmarshal(out, &g); err != nil {
					return nil, err
				}
				g.Items = append(g.Items, merge.Item{Line: string(e.Line())})
				return json.Marshal(g)
			}
			return out, nil
		}),
	}
	res, err := a.syncWith(b, c)
	var v *Violation
	assert.Assert(t, errors.As(err, &v), "%v", err)
	assert.Equal(t, v.Tool, ToolGet)
	assert.Equal(t, len(res.Rejected), 1)
	assert.Equal(t, res.Rejected[0].Reason, merge.UnknownIssuer)
	assert.Equal(t, a.store.Quarantine().Counts[merge.UnknownIssuer], 1)
	_, _, ok := a.store.Entry(e.Receipt.ID())
	assert.Assert(t, !ok)
	a.intact(t)
}

// Rubbish in a peer's log is quarantined, and does not keep the rest from merging.
func TestInvalidLinesOfALogAreQuarantined(t *testing.T) {
	a, b := pair(t, 1, 5)
	bad := string(parties()[3].issue(t, "by a stranger").Line())
	c := &network{after: change(ToolTail, func(o *TailOut) { o.Lines[0], o.Lines[1] = bad, "rubbish" })}
	res, err := a.syncWith(b, c)
	assert.NilError(t, err)
	assert.Equal(t, len(res.Rejected), 2)
	assert.Equal(t, res.Count, 6)
	assert.DeepEqual(t, a.store.Quarantine().Counts, map[merge.Reason]int{merge.UnknownIssuer: 1, merge.Malformed: 1})
	a.intact(t)
}

func TestEndlessPagesEndAtTheBudget(t *testing.T) {
	a, b := pair(t, 1, 300)
	note := b.checkpointOf(t, 1<<40, checkpoint.Hash{7})
	sets := b.setNoteOf(t, b.trust.Hash(), 1_000_000, set.Hash{7})
	c := &network{
		before: resay(ToolTail, func(in *TailIn) { in.From, in.Size = 0, 300 }),
		after:  both(change(ToolHello, func(o *HelloOut) { o.Checkpoint, o.Set = note, sets })),
	}
	asked := int64(0)
	inner := c.after
	c.after = func(tool string, in, out []byte) ([]byte, error) {
		out, err := inner(tool, in, out)
		if err != nil || tool != ToolTail {
			return out, err
		}
		return change(ToolTail, func(o *TailOut) {
			o.From, o.Size = asked, 1<<40
			asked += int64(len(o.Lines))
		})(tool, in, out)
	}
	c.to = b.service
	var was, is runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&was)
	_, err := Sync(context.Background(), a.store, c, SyncOptions{Peer: b.fingerprint(), Now: testClock, MaxCalls: 12})
	assert.Assert(t, cmp.ErrorIs(err, ErrBudget))
	_, err = Sync(context.Background(), a.store, c, SyncOptions{Peer: b.fingerprint(), Now: testClock, MaxBytes: 1 << 18})
	assert.Assert(t, cmp.ErrorIs(err, ErrBudget))
	runtime.GC()
	runtime.ReadMemStats(&is)
	assert.Assert(t, int64(is.HeapAlloc)-int64(was.HeapAlloc) < 16<<20)
	a.intact(t)
}

func TestPagesOfIDsMustMoveOn(t *testing.T) {
	a, b := pair(t, 1, 50)
	snap, err := b.store.Snapshot()
	assert.NilError(t, err)
	for name, c := range map[string]struct {
		change func(*IDsOut)
		ok     bool
	}{
		"honest":        {func(*IDsOut) {}, true},
		"another root":  {func(o *IDsOut) { o.Root = strings.Repeat("0", 64) }, false},
		"no order":      {func(o *IDsOut) { o.IDs[3], o.IDs[4] = o.IDs[4], o.IDs[3] }, false},
		"the same page": {func(o *IDsOut) { o.More = true }, false},
		"an empty page": {func(o *IDsOut) { o.IDs, o.More = nil, true }, false},
		"one left out":  {func(o *IDsOut) { o.IDs = slices.Delete(o.IDs, 7, 8) }, false},
		"no id":         {func(o *IDsOut) { o.IDs[0] = "x" }, false},
	} {
		v := &syncing{s: a.store, c: &network{to: b.service, after: change(ToolIDs, c.change)}, o: SyncOptions{}.withDefaults(), res: &Result{}}
		v.theirs.set = merge.SetNote{Count: snap.Count, Root: snap.Root}
		mine, err := a.store.Snapshot()
		assert.NilError(t, err)
		missing, extra, err := v.list(context.Background(), mine.Set)
		if c.ok {
			assert.NilError(t, err)
			assert.Equal(t, len(missing), 50)
			assert.Equal(t, len(extra), 1)
			continue
		}
		var violation *Violation
		assert.Assert(t, errors.As(err, &violation), "%s: %v", name, err)
	}
}

func TestASlowPeerEndsAtTheDeadline(t *testing.T) {
	for _, tool := range []string{ToolIdentity, ToolHello, ToolTail, ToolSession, ToolPush, ToolMergeIDs, ToolPropose, ToolCommit} {
		a, b := pair(t, 1, 3)
		c := &slow{network{to: b.service}, tool}
		start := time.Now()
		_, err := Sync(context.Background(), a.store, c, SyncOptions{Peer: b.fingerprint(), Now: testClock, CallTimeout: 50 * time.Millisecond})
		assert.Assert(t, cmp.ErrorIs(err, context.DeadlineExceeded), tool)
		assert.Assert(t, time.Since(start) < 5*time.Second)
		a.intact(t)
		b.intact(t)
		_, err = a.syncWith(b, &network{})
		assert.NilError(t, err)
	}
}

// slow never answers one tool.
type slow struct {
	network
	tool string
}

func (c *slow) Call(ctx context.Context, tool string, in, out any) error {
	if tool == c.tool {
		<-ctx.Done()
		return ctx.Err()
	}
	return c.network.Call(ctx, tool, in, out)
}

func TestAPeerThatIsAlwaysStaleEndsTheSync(t *testing.T) {
	a, b := pair(t, 10, 10)
	n := 0
	c := &network{before: func(tool string, in []byte) ([]byte, error) {
		if tool == ToolDiff {
			n++
			return nil, &toolError{string(CodeStaleRoot), "gone"}
		}
		return in, nil
	}}
	_, err := a.syncWith(b, c)
	assert.Equal(t, codeOf(err), CodeStaleRoot)
	assert.Equal(t, n, 4)
	assert.Assert(t, !Settled(err))
}

func TestAnotherTrustStateIsShownMemberByMember(t *testing.T) {
	a, b := pair(t, 1, 1)
	trust := trustOf(t, parties()...)
	assert.NilError(t, b.store.SetTrust(context.Background(), trust))
	b.trust = trust
	_, err := a.syncWith(b, &network{})
	var e *TrustMismatch
	assert.Assert(t, errors.As(err, &e), "%v", err)
	assert.Equal(t, e.Theirs, trust.Hash())
	assert.Equal(t, len(e.Differences), 1)
	assert.Assert(t, strings.Contains(err.Error(), string(parties()[3].fingerprint())))
	assert.Assert(t, Settled(err))
	// Members that are not those of the state are a lie.
	_, err = a.syncWith(b, &network{after: change(ToolTrust, func(o *TrustOut) { o.Members = o.Members[1:] })})
	var v *Violation
	assert.Assert(t, errors.As(err, &v), "%v", err)
	a.intact(t)
	b.intact(t)
}

func TestWhoIsNotAMemberIsNotCalled(t *testing.T) {
	a, b := pair(t, 1, 1)
	for _, f := range []openpgp.Fingerprint{parties()[3].fingerprint(), a.fingerprint()} {
		c := &network{to: b.service}
		_, err := Sync(context.Background(), a.store, c, SyncOptions{Peer: f})
		var u *Untrusted
		assert.Assert(t, errors.As(err, &u), "%v", err)
		assert.Equal(t, c.calls, int64(0))
	}
	// Without a name, whoever answers says who they are.
	res, err := Sync(context.Background(), a.store, &network{to: b.service}, SyncOptions{Now: testClock, URL: "http://b.invalid/mcp"})
	assert.NilError(t, err)
	assert.Equal(t, res.Peer.Node, b.name)
	state, _ := a.store.Peer(b.fingerprint())
	assert.Equal(t, state.URL, "http://b.invalid/mcp")
}

// Two histories of one log are caught by whoever saw the first, with both notes, and
// the peer is stopped.
func TestTwoHistoriesAreCaughtAndStopThePeer(t *testing.T) {
	for kind, second := range map[string]func(*testing.T, *peer, checkpoint.Body) string{
		Rollback: func(t *testing.T, b *peer, seen checkpoint.Body) string {
			return b.checkpointOf(t, seen.Size-1, checkpoint.Hash{1})
		},
		Fork: func(t *testing.T, b *peer, seen checkpoint.Body) string {
			return b.checkpointOf(t, seen.Size, checkpoint.Hash{2})
		},
		Inconsistent: func(t *testing.T, b *peer, seen checkpoint.Body) string {
			return b.checkpointOf(t, seen.Size+1, checkpoint.Hash{3})
		},
	} {
		for _, at := range []string{ToolHello, ToolCommit} {
			t.Run(kind+" at "+at, func(t *testing.T) {
				a, b := pair(t, 2, 2)
				_, err := a.syncWith(b, &network{})
				assert.NilError(t, err)
				state, _ := a.store.Peer(b.fingerprint())
				first := state.LastSeen
				seen, err := openCheckpoint(b.store.Identity().Log, string(first))
				assert.NilError(t, err)
				a.record(t, "", "one more")
				b.record(t, "", "one more there")
				c := &network{}
				var note string
				if at == ToolHello {
					note = second(t, b, seen)
					c.after = change(ToolHello, func(o *HelloOut) { o.Checkpoint = note })
				} else {
					c.after = both(change(ToolHello, func(o *HelloOut) {
						first = []byte(o.Checkpoint)
						body, err := openCheckpoint(b.store.Identity().Log, o.Checkpoint)
						assert.NilError(t, err)
						note = second(t, b, body)
					}), change(ToolCommit, func(o *CommitOut) { o.Checkpoint = note }))
				}
				_, err = a.syncWith(b, c)
				var e *Equivocation
				assert.Assert(t, errors.As(err, &e), "%v", err)
				assert.Equal(t, e.Kind, kind)
				assert.Equal(t, string(e.First), string(first))
				assert.Equal(t, string(e.Second), note)
				assert.Assert(t, Settled(err))
				entry, _, ok := a.store.Entry(e.Incident)
				assert.Assert(t, ok)
				assert.Equal(t, entry.Receipt.Kind(), receipt.Incident)

				a.intact(t)
				c = &network{}
				_, err = a.syncWith(b, c)
				var stopped *Stopped
				assert.Assert(t, errors.As(err, &stopped), "%v", err)
				assert.Equal(t, c.calls, int64(0))
				_, err = b.syncWith(a, &network{})
				assert.Equal(t, codeOf(err), CodeForbidden)
				// Until people have settled it.
				assert.NilError(t, a.store.Resume(b.fingerprint()))
				_, err = a.syncWith(b, &network{})
				assert.NilError(t, err)
			})
		}
	}
}

// A node that was restored from a copy, and went on, has two histories; its peer finds
// out also when it is the one that is called.
func TestAForkedCallerIsCaughtToo(t *testing.T) {
	a, b := pair(t, 2, 2)
	_, err := a.syncWith(b, &network{})
	assert.NilError(t, err)
	copied := scratch(t)
	a.close(t)
	assert.NilError(t, os.CopyFS(filepath.Join(copied, "a"), os.DirFS(a.dir)))
	a.open(t)
	twin := newPeer(t, filepath.Join(copied, "a"), a.party, a.trust)
	defer twin.close(t)

	a.record(t, "", "in one history")
	_, err = a.syncWith(b, &network{})
	assert.NilError(t, err)
	// As many entries as a has, and others.
	for i := 0; ; i++ {
		twin.record(t, "", fmt.Sprintf("in the other %d", i))
		mine, err := a.store.Snapshot()
		assert.NilError(t, err)
		other, err := twin.store.Snapshot()
		assert.NilError(t, err)
		if mine.Size == other.Size {
			break
		}
	}
	state, _ := twin.store.Peer(b.fingerprint())
	_, err = twin.store.amendPeer(b.fingerprint(), func(p *PeerState) { p.LastSeen = nil })
	assert.NilError(t, err)
	assert.Assert(t, state.LastSeen != nil)
	_, err = twin.syncWith(b, &network{})
	assert.Equal(t, codeOf(err), CodeForbidden)
	assert.ErrorContains(t, err, Fork)
	incidents := 0
	for _, e := range b.store.Entries() {
		if e.Receipt.Kind() == receipt.Incident {
			incidents++
		}
	}
	assert.Equal(t, incidents, 1)
	_, err = a.syncWith(b, &network{})
	assert.Equal(t, codeOf(err), CodeForbidden)
	b.intact(t)
}

func TestALongerForkOfTheCallerIsCaughtByItsProof(t *testing.T) {
	a, b := pair(t, 2, 2)
	_, err := a.syncWith(b, &network{})
	assert.NilError(t, err)
	a.record(t, "", "one more")
	c := &network{before: resay(ToolPropose, func(in *ProposeIn) {
		h := checkpoint.Hash{9}
		in.Proof = encodeHashes([]checkpoint.Hash{h})
	})}
	_, err = a.syncWith(b, c)
	assert.Equal(t, codeOf(err), CodeForbidden)
	assert.ErrorContains(t, err, Inconsistent)
	b.intact(t)
}

// B signs what it computes, and nothing else: whatever A changes in the merge, there is
// no signature.
func TestALyingCallerGetsNoSignature(t *testing.T) {
	a, b := pair(t, 2, 3)
	a.record(t, "app-v1", "a")
	b.record(t, "app-v1", "b")
	tried := 0
	for _, field := range fieldsOf(reflect.TypeFor[merge.Body](), nil) {
		signed := false
		c := &network{
			before: resay(ToolPropose, func(in *ProposeIn) {
				body, err := merge.ParseBody([]byte(in.Body))
				assert.NilError(t, err)
				alter(t, reflect.ValueOf(&body).Elem().FieldByIndex(field.index))
				data, err := body.Bytes()
				if err != nil {
					// No such body can be written at all. Then it is another kind of rubbish.
					data = []byte(strings.Replace(in.Body, `"trust_state":"`, `"trust_state":"x`, 1))
				}
				assert.Assert(t, string(data) != in.Body, field.name)
				in.Body = string(data)
			}),
			after: func(tool string, _, out []byte) ([]byte, error) {
				signed = signed || tool == ToolPropose
				return out, nil
			},
		}
		_, err := a.syncWith(b, c)
		assert.Equal(t, codeOf(err), CodeBadRequest, "%s: %v", field.name, err)
		assert.Assert(t, !signed, field.name)
		assert.ErrorContains(t, err, "this node computes another merge")
		tried++
	}
	assert.Assert(t, tried >= 30, "%d fields", tried)
	assert.Equal(t, a.receipts(t)+b.receipts(t), 0)
	_, err := a.syncWith(b, &network{})
	assert.NilError(t, err)
	a.intact(t)
	b.intact(t)
}

type bodyField struct {
	name  string
	index []int
}

func fieldsOf(typ reflect.Type, at []int) []bodyField {
	var all []bodyField
	for i := range typ.NumField() {
		f := typ.Field(i)
		index := append(slices.Clone(at), i)
		if f.Type == reflect.TypeFor[merge.Side]() {
			for _, in := range fieldsOf(f.Type, index) {
				all = append(all, bodyField{f.Name + "." + in.name, in.index})
			}
			continue
		}
		all = append(all, bodyField{f.Name, index})
	}
	return all
}

// alter changes a value to another one that could be there.
func alter(t *testing.T, v reflect.Value) {
	t.Helper()
	switch x := v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(x.Add(time.Second)))
	case set.Hash:
		x[0] ^= 1
		v.Set(reflect.ValueOf(x))
	case int:
		v.SetInt(int64(x + 1))
	case openpgp.Fingerprint:
		v.SetString(string(parties()[3].fingerprint()))
	case string:
		switch {
		case x == "":
			v.SetString(strings.Repeat("0", 64))
		case len(x) == 64:
			v.SetString(strings.Repeat("0", 63) + "1")
		default:
			v.SetString(x + "x")
		}
	default:
		t.Fatalf("no way to alter a %T", x)
	}
}

// The session says who A is and what it brings; B takes nothing of it unverified.
func TestASessionIsRefused(t *testing.T) {
	a, b := pair(t, 2, 3)
	stranger := parties()[3]
	// signed signs a changed request as its sender would.
	signed := func(by party, f func(*SessionIn)) func(*SessionIn) {
		return func(in *SessionIn) {
			f(in)
			statement, err := in.statement(b.name)
			assert.NilError(t, err)
			sig, err := by.keys.Issuer.Sign(context.Background(), pae(sessionType, statement))
			assert.NilError(t, err)
			in.Signature = base64.StdEncoding.EncodeToString(sig)
		}
	}
	as := func(p party, id Identity) func(*SessionIn) {
		return func(in *SessionIn) {
			in.Identity, in.Fingerprint, in.Node = p.identityOf(t, id), id.Fingerprint, id.Node
		}
	}
	strange := a.store.Identity()
	strange.Fingerprint = string(stranger.fingerprint())
	for name, c := range map[string]struct {
		change func(*SessionIn)
		code   Code
	}{
		"a challenge that was not given": {signed(a.party, func(in *SessionIn) { in.Challenge = strings.Repeat("0", 64) }), CodeUnknownSession},
		"no nonce":                       {signed(a.party, func(in *SessionIn) { in.Nonce = "" }), CodeBadRequest},
		"another name":                   {signed(a.party, func(in *SessionIn) { in.Node = "local/other" }), CodeForbidden},
		"a stranger":                     {signed(stranger, as(stranger, strange)), CodeForbidden},
		"a stranger by a member's name":  {signed(stranger, func(*SessionIn) {}), CodeForbidden},
		"the node itself":                {signed(b.party, as(b.party, b.store.Identity())), CodeForbidden},
		"a changed nonce":                {func(in *SessionIn) { in.Nonce = strings.Repeat("1", 64) }, CodeForbidden},
		"a changed set":                  {func(in *SessionIn) { in.Set += "x" }, CodeForbidden},
		"a changed checkpoint":           {func(in *SessionIn) { in.Checkpoint = "" }, CodeForbidden},
		"a changed time":                 {func(in *SessionIn) { in.Time = "2025-11-26T12:00:01Z" }, CodeForbidden},
		"a changed operator":             {func(in *SessionIn) { in.Operator = string(b.fingerprint()) }, CodeForbidden},
		"a signature in other base64":    {func(in *SessionIn) { in.Signature += "\n" }, CodeForbidden},
		"a set note by another":          {signed(a.party, func(in *SessionIn) { in.Set = b.setNoteOf(t, a.trust.Hash(), 1, set.Empty) }), CodeBadRequest},
		"another trust state":            {signed(a.party, func(in *SessionIn) { in.Set = a.setNoteOf(t, strings.Repeat("0", 64), 1, set.Empty) }), CodeTrustMismatch},
		"a checkpoint by another":        {signed(a.party, func(in *SessionIn) { in.Checkpoint = b.checkpointOf(t, 1, checkpoint.Hash{}) }), CodeBadRequest},
		"no time":                        {signed(a.party, func(in *SessionIn) { in.Time = "today" }), CodeBadRequest},
		"an operator whom nobody knows":  {signed(a.party, func(in *SessionIn) { in.Operator = string(stranger.fingerprint()) }), CodeForbidden},
		"an identity that is not its sender's": {signed(a.party, as(parties()[2], func() Identity {
			id := a.store.Identity()
			id.Fingerprint = string(parties()[2].fingerprint())
			return id
		}())), CodeForbidden},
	} {
		c2 := &network{before: resay(ToolSession, c.change)}
		c2.to = b.service
		_, err := Sync(context.Background(), a.store, c2, SyncOptions{Peer: b.fingerprint(), Now: testClock, Attempts: 1})
		assert.Equal(t, codeOf(err), c.code, "%s: %v", name, err)
	}
	assert.Equal(t, len(b.service.sessions), 0)
	// One that is meant for another node is of no use here.
	in := SessionIn{}
	statement, err := in.statement("local/other")
	assert.NilError(t, err)
	here, err := in.statement(b.name)
	assert.NilError(t, err)
	assert.Assert(t, string(statement) != string(here))
	b.intact(t)
}

// session opens one for a, as Sync does, and returns its name and the request.
func (n *peer) session(t *testing.T, b *peer) (string, SessionIn) {
	t.Helper()
	var name string
	var request SessionIn
	stop := errors.New("stop")
	c := &network{after: func(tool string, in, out []byte) ([]byte, error) {
		if tool != ToolSession {
			return out, nil
		}
		var o SessionOut
		assert.NilError(t, json.Unmarshal(out, &o))
		assert.NilError(t, json.Unmarshal(in, &request))
		name = o.Session
		return nil, stop
	}}
	_, err := n.syncWith(b, c)
	assert.Assert(t, cmp.ErrorIs(err, stop))
	return name, request
}

func TestAChallengeIsAnsweredOnce(t *testing.T) {
	a, b := pair(t, 1, 1)
	ctx := context.Background()
	_, in := a.session(t, b)
	_, err := b.service.Session(ctx, in)
	assert.Equal(t, codeOf(err), CodeUnknownSession)

	// Nor is one that is too old, or that too many came after.
	h, err := b.service.Hello(ctx, HelloIn{Protocol})
	assert.NilError(t, err)
	in.Challenge = h.Challenge
	b.now = func() time.Time { return testDay.Add(16 * time.Minute) }
	_, err = b.service.Session(ctx, in)
	assert.Equal(t, codeOf(err), CodeUnknownSession)
	h, err = b.service.Hello(ctx, HelloIn{Protocol})
	assert.NilError(t, err)
	for range 1024 {
		_, err = b.service.Hello(ctx, HelloIn{Protocol})
		assert.NilError(t, err)
	}
	assert.Equal(t, len(b.service.challenges), 1024)
	assert.Equal(t, len(b.service.order), 1024)
	in.Challenge = h.Challenge
	_, err = b.service.Session(ctx, in)
	assert.Equal(t, codeOf(err), CodeUnknownSession)
	_, err = b.service.Hello(ctx, HelloIn{"another"})
	assert.Equal(t, codeOf(err), CodeBadRequest)
}

func TestOldSetsAreNotHeldForChallenges(t *testing.T) {
	_, b := pair(t, 0, 1)
	for i := range 20 {
		b.record(t, "", fmt.Sprint("more ", i))
		_, err := b.service.Hello(context.Background(), HelloIn{Protocol})
		assert.NilError(t, err)
	}
	assert.Equal(t, len(b.service.challenges), 4)
}

func TestASessionEnds(t *testing.T) {
	a, b := pair(t, 1, 1)
	ctx := context.Background()
	calls := map[string]func(string) error{
		ToolPush:     func(s string) error { _, err := b.service.Push(ctx, PushIn{Session: s}); return err },
		ToolMergeIDs: func(s string) error { _, err := b.service.MergeIDs(ctx, MergeIDsIn{Session: s}); return err },
		ToolPropose:  func(s string) error { _, err := b.service.Propose(ctx, ProposeIn{Session: s}); return err },
		ToolCommit:   func(s string) error { _, err := b.service.Commit(ctx, CommitIn{Session: s}); return err },
	}
	for tool, call := range calls {
		assert.Equal(t, codeOf(call(strings.Repeat("0", 64))), CodeUnknownSession, tool)
	}
	first, _ := a.session(t, b)
	assert.NilError(t, calls[ToolPush](first))
	// A third one of the same peer ends the first.
	b.now = func() time.Time { return testDay.Add(time.Second) }
	second, _ := a.session(t, b)
	third, _ := a.session(t, b)
	assert.Equal(t, len(b.service.sessions), 2)
	assert.Equal(t, codeOf(calls[ToolPush](first)), CodeUnknownSession)
	assert.NilError(t, calls[ToolPush](second))
	// Each call keeps one alive, and time ends it.
	b.now = func() time.Time { return testDay.Add(9 * time.Minute) }
	assert.NilError(t, calls[ToolPush](third))
	b.now = func() time.Time { return testDay.Add(18 * time.Minute) }
	assert.NilError(t, calls[ToolPush](third))
	assert.Equal(t, codeOf(calls[ToolPush](second)), CodeUnknownSession)
	// So does another trust state.
	trust := trustOf(t, parties()...)
	assert.NilError(t, b.store.SetTrust(ctx, trust))
	b.trust = trust
	assert.Equal(t, codeOf(calls[ToolPush](third)), CodeTrustMismatch)
	assert.Equal(t, len(b.service.sessions), 0)
}

func TestThereAreOnlySoManySessions(t *testing.T) {
	a, b := pair(t, 1, 1)
	b.service = NewService(b.store, ServiceOptions{Now: testClock, Sessions: 1})
	a.session(t, b)
	c := newPeer(t, filepath.Join(scratch(t), "c"), parties()[2], b.trust)
	defer c.close(t)
	_, err := c.syncWith(b, &network{})
	assert.Equal(t, codeOf(err), CodeBusy)
}

func TestAPeerPushesOnlySoMuch(t *testing.T) {
	a, b := pair(t, 1, 1)
	ctx := context.Background()
	b.service = NewService(b.store, ServiceOptions{Now: func() time.Time { return b.now() }, PushItems: 3, Rejected: 2})
	name, _ := a.session(t, b)
	good := merge.Item{Line: string(a.issue(t, "good").Line())}
	bad := merge.Item{Line: string(parties()[3].issue(t, "bad").Line())}

	out, err := b.service.Push(ctx, PushIn{name, []merge.Item{good, bad}})
	assert.NilError(t, err)
	assert.Equal(t, out.Added, 1)
	assert.Equal(t, len(out.Rejected), 1)
	assert.Equal(t, out.Rejected[0].Reason, string(merge.UnknownIssuer))
	_, err = b.service.Push(ctx, PushIn{name, []merge.Item{good, good}})
	assert.Equal(t, codeOf(err), CodeTooLarge)
	// Another session does not help, an hour does.
	b.now = func() time.Time { return testDay.Add(59 * time.Minute) }
	name, _ = a.session(t, b)
	_, err = b.service.Push(ctx, PushIn{name, []merge.Item{good, good}})
	assert.Equal(t, codeOf(err), CodeTooLarge)
	b.now = func() time.Time { return testDay.Add(61 * time.Minute) }
	out, err = b.service.Push(ctx, PushIn{name, []merge.Item{good, good}})
	assert.NilError(t, err)
	assert.Equal(t, out.Known, 2)

	b.service = NewService(b.store, ServiceOptions{Now: testClock, Rejected: 2})
	name, _ = a.session(t, b)
	_, err = b.service.Push(ctx, PushIn{name, []merge.Item{bad, bad, bad}})
	assert.Equal(t, codeOf(err), CodeForbidden)
	_, err = b.service.Push(ctx, PushIn{Session: name})
	assert.Equal(t, codeOf(err), CodeUnknownSession)
	name, _ = a.session(t, b)
	_, err = b.service.Push(ctx, PushIn{name, make([]merge.Item, MaxGet+1)})
	assert.Equal(t, codeOf(err), CodeTooLarge)
	b.intact(t)
}

func TestAWrongUnionIsRefused(t *testing.T) {
	ctx := context.Background()
	a, b := pair(t, 1, 2)
	snap, err := b.store.Snapshot()
	assert.NilError(t, err)
	there := slices.Collect(snap.Set.All())
	nowhere := a.issue(t, "nowhere").Receipt.ID().String()
	name, _ := a.session(t, b)
	for what, in := range map[string]MergeIDsIn{
		"an id that was not pushed": {OnlyA: []string{nowhere}},
		"an id that was there":      {OnlyA: []string{there[0].String()}},
		"an id that was not there":  {OnlyB: []string{nowhere}},
		"ids twice":                 {OnlyB: []string{there[0].String(), there[0].String()}},
		"ids in another order":      {OnlyB: []string{there[1].String(), there[0].String()}},
		"no id":                     {OnlyB: []string{"x"}},
		"no id of a":                {OnlyA: []string{"x"}},
	} {
		in.Session = name
		_, err := b.service.MergeIDs(ctx, in)
		assert.Equal(t, codeOf(err), CodeBadRequest, what)
	}
	_, err = b.service.MergeIDs(ctx, MergeIDsIn{Session: name, OnlyB: make([]string, MaxIDs+1)})
	assert.Equal(t, codeOf(err), CodeTooLarge)

	// Ids in parts must ascend too.
	_, err = b.service.MergeIDs(ctx, MergeIDsIn{Session: name, OnlyB: []string{there[1].String()}})
	assert.NilError(t, err)
	_, err = b.service.MergeIDs(ctx, MergeIDsIn{Session: name, OnlyB: []string{there[0].String()}})
	assert.Equal(t, codeOf(err), CodeBadRequest)

	// One that leaves an id out does not make the set that A signed.
	c := &network{before: resay(ToolMergeIDs, func(in *MergeIDsIn) { in.OnlyA = in.OnlyA[1:] }), after: change(ToolMergeIDs, func(o *MergeIDsOut) { o.OnlyA++ })}
	_, err = a.syncWith(b, c)
	assert.Equal(t, codeOf(err), CodeBadRequest)
	assert.ErrorContains(t, err, "the caller signed")
}

func TestOnlyTheReceiptThatWasSignedIsKept(t *testing.T) {
	a, b := pair(t, 1, 2)
	for name, f := range map[string]func(*merge.Receipt){
		"another body":        func(r *merge.Receipt) { r.Body.Total++ },
		"a foreign signature": func(r *merge.Receipt) { r.SigA = r.SigB },
		"another of our own":  func(r *merge.Receipt) { r.SigB = r.SigA },
		"a foreign operator":  func(r *merge.Receipt) { r.SigOperator = r.SigB },
	} {
		c := &network{before: resay(ToolCommit, func(in *CommitIn) {
			r, err := merge.Parse([]byte(in.Receipt))
			assert.NilError(t, err)
			f(r)
			file, err := r.Marshal()
			assert.NilError(t, err)
			in.Receipt = string(file)
		})}
		_, err := a.syncWith(b, c)
		assert.Equal(t, codeOf(err), CodeBadRequest, name)
		assert.Equal(t, b.receipts(t), 0, name)
	}
	_, err := a.syncWith(b, &network{before: resay(ToolCommit, func(in *CommitIn) { in.Receipt = "{}" })})
	assert.Equal(t, codeOf(err), CodeBadRequest)

	// A commit whose answer was lost is answered again; another one is not.
	var twice bool
	c := &network{to: b.service}
	c.after = func(tool string, in, out []byte) ([]byte, error) {
		if tool == ToolCommit {
			again, err := c.serve(context.Background(), tool, in)
			assert.NilError(t, err)
			assert.Equal(t, string(again), string(out))
			var other CommitIn
			assert.NilError(t, json.Unmarshal(in, &other))
			other.Receipt = "{}"
			_, err = b.service.Commit(context.Background(), other)
			assert.Equal(t, codeOf(err), CodeBadRequest)
			_, err = b.service.Propose(context.Background(), ProposeIn{Session: other.Session})
			assert.Equal(t, codeOf(err), CodeBadRequest)
			_, err = b.service.MergeIDs(context.Background(), MergeIDsIn{Session: other.Session})
			assert.Equal(t, codeOf(err), CodeBadRequest)
			twice = true
		}
		return out, nil
	}
	_, err = a.syncWith(b, c)
	assert.NilError(t, err)
	assert.Assert(t, twice)
	assert.Equal(t, b.receipts(t), 1)
	a.intact(t)
	b.intact(t)
}

func TestRequestsAreBounded(t *testing.T) {
	_, b := pair(t, 0, 3)
	ctx := context.Background()
	snap, err := b.store.Snapshot()
	assert.NilError(t, err)
	root := snap.Root.String()
	for _, c := range []struct {
		name string
		code Code
		call func() error
	}{
		{"tail beyond the end", CodeStaleRoot, func() error { _, err := b.service.Tail(ctx, TailIn{From: 0, Size: 99}); return err }},
		{"tail before the start", CodeBadRequest, func() error { _, err := b.service.Tail(ctx, TailIn{From: -1, Size: 3}); return err }},
		{"tail backwards", CodeBadRequest, func() error { _, err := b.service.Tail(ctx, TailIn{From: 3, Size: 2}); return err }},
		{"diff of no root", CodeBadRequest, func() error { _, err := b.service.Diff(ctx, DiffIn{Root: "x", Levels: 1}); return err }},
		{"diff of another root", CodeStaleRoot, func() error {
			_, err := b.service.Diff(ctx, DiffIn{Root: strings.Repeat("0", 64), Levels: 1})
			return err
		}},
		{"diff of too much", CodeTooLarge, func() error {
			_, err := b.service.Diff(ctx, DiffIn{Root: root, Levels: 1, Prefixes: make([]string, MaxPrefixes+1)})
			return err
		}},
		{"diff of no prefix", CodeBadRequest, func() error {
			_, err := b.service.Diff(ctx, DiffIn{Root: root, Levels: 1, Prefixes: []string{"x"}})
			return err
		}},
		{"diff too deep", CodeTooLarge, func() error {
			_, err := b.service.Diff(ctx, DiffIn{Root: root, Levels: 99, Prefixes: []string{"/0"}})
			return err
		}},
		{"ids of another root", CodeStaleRoot, func() error { _, err := b.service.IDs(ctx, IDsIn{Root: strings.Repeat("0", 64)}); return err }},
		{"ids after nothing", CodeBadRequest, func() error { _, err := b.service.IDs(ctx, IDsIn{Root: root, After: "x"}); return err }},
		{"too many receipts", CodeTooLarge, func() error { _, err := b.service.Get(ctx, GetIn{make([]string, MaxGet+1)}); return err }},
		{"no id of a receipt", CodeBadRequest, func() error { _, err := b.service.Get(ctx, GetIn{[]string{"x"}}); return err }},
	} {
		assert.Equal(t, codeOf(c.call()), c.code, c.name)
	}
	out, err := b.service.IDs(ctx, IDsIn{Root: root})
	assert.NilError(t, err)
	assert.Equal(t, len(out.IDs), 3)
	rest, err := b.service.IDs(ctx, IDsIn{Root: root, After: out.IDs[0]})
	assert.NilError(t, err)
	assert.DeepEqual(t, rest.IDs, out.IDs[1:])
	got, err := b.service.Get(ctx, GetIn{append([]string{strings.Repeat("0", 64)}, out.IDs...)})
	assert.NilError(t, err)
	assert.Equal(t, len(got.Items), 3)
	assert.Equal(t, refuse(CodeBusy, "later").Error(), "busy: later")
}

// What parses encodes back to the same bytes.
func FuzzIdentity(f *testing.F) {
	p := parties()[0]
	id, _, err := p.keys.identity("http://localhost:8001/mcp")
	assert.NilError(f, err)
	text, err := receipt.Canonical(id)
	assert.NilError(f, err)
	f.Add(string(text))
	f.Add(strings.Replace(string(text), id.Log, id.Log+"\\nlog x", 1))
	f.Add(strings.Replace(string(text), `"node"`, `"Node"`, 1))
	f.Add("{}")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := parseIdentity(text)
		if err != nil {
			assert.Equal(t, id, Identity{})
			return
		}
		back, err := receipt.Canonical(id)
		assert.NilError(t, err)
		assert.Equal(t, string(back), text)
	})
}

func FuzzHashes(f *testing.F) {
	f.Add("")
	f.Add(strings.Join(encodeHashes([]checkpoint.Hash{{1}, {2}}), " "))
	f.Fuzz(func(t *testing.T, text string) {
		list := strings.Split(text, " ")
		hashes, err := decodeHashes(list)
		if err == nil {
			assert.DeepEqual(t, encodeHashes(hashes), list)
		}
	})
}

// However two bodies differ, the place is named and nothing breaks.
func FuzzFirstDifference(f *testing.F) {
	f.Add([]byte(`{"a":{"b":1}}`), []byte(`{"a":{"b":2}}`))
	f.Add([]byte(`{"a":null}`), []byte(`{}`))
	f.Add([]byte(`[]`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		assert.Assert(t, firstDifference(a, b) != "")
	})
}

func TestTheDifferenceOfTwoBodiesIsNamed(t *testing.T) {
	for _, c := range [][3]string{
		{`{"a":{"b":1},"c":2}`, `{"a":{"b":2},"c":2}`, "a.b is 1, here 2"},
		{`{"a":1}`, `{"a":1,"z":"x"}`, `z is missing, here "x"`},
		{`[]`, `{}`, "the body is not a JSON object"},
		{`{"a":1 }`, `{"a":1}`, "the body is not canonical JSON"},
	} {
		assert.Equal(t, firstDifference([]byte(c[0]), []byte(c[1])), c[2])
	}
}
