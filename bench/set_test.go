package bench

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	"filippo.io/torchwood/prefix"
	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip77/negentropy"
	"github.com/nbd-wtf/go-nostr/nip77/negentropy/storage/vector"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// setIDs are the ids SHA-256(from), SHA-256(from+1) … of eight-byte numbers.
func setIDs(from, to int) []receipt.ID {
	ids := make([]receipt.ID, 0, to-from)
	for i := from; i < to; i++ {
		ids = append(ids, sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i))))
	}
	return ids
}

// traffic is what a reconciliation took.
type traffic struct {
	rounds int
	bytes  int // in both directions, as binary as the protocol can be
	json   int // as the tool fed_diff carries it
}

// counted is the other party behind a wire.
type counted struct {
	*set.Set
	traffic
}

func (c *counted) Subtrees(ctx context.Context, prefixes []set.Prefix, levels int) ([][]byte, error) {
	c.rounds++
	var in struct {
		Root     string   `json:"root"`
		Prefixes []string `json:"prefixes"`
		Levels   int      `json:"levels"`
	}
	in.Root, in.Levels = c.Root().String(), levels
	for _, p := range prefixes {
		in.Prefixes = append(in.Prefixes, p.String())
		c.bytes += len(p.String())
	}
	answers, err := c.Set.Subtrees(ctx, prefixes, levels)
	for _, a := range answers {
		c.bytes += len(a)
	}
	for _, message := range []any{in, struct {
		Root     string   `json:"root"`
		Subtrees [][]byte `json:"subtrees"`
	}{in.Root, answers}} {
		text, err := json.Marshal(message)
		if err != nil {
			return nil, err
		}
		c.json += len(text)
	}
	return answers, err
}

// timed is an id with the time at which negentropy sorts it.
type timed struct {
	id receipt.ID
	at nostr.Timestamp
}

func negentropyOf(items ...[]timed) *vector.Vector {
	v := vector.New()
	for _, list := range items {
		for _, i := range list {
			v.Insert(i.at, i.id.String())
		}
	}
	v.Seal()
	return v
}

// reconcile runs negentropy between two parties, and returns how many ids the
// other one lacks and has besides.
func reconcile(t testing.TB, ours, theirs *vector.Vector) (haves, needs map[string]bool, took traffic) {
	client, server := negentropy.New(ours, 0), negentropy.New(theirs, 0)
	haves, needs = map[string]bool{}, map[string]bool{}
	var collectors sync.WaitGroup
	for _, c := range []struct {
		from chan string
		to   map[string]bool
	}{{client.Haves, haves}, {client.HaveNots, needs}} {
		collectors.Go(func() {
			for id := range c.from {
				c.to[id] = true
			}
		})
	}
	for message := client.Start(); message != ""; {
		answer, err := server.Reconcile(message)
		assert.NilError(t, err)
		took.rounds++
		took.bytes += len(message)/2 + len(answer)/2 // they are hexadecimal
		message, err = client.Reconcile(answer)
		assert.NilError(t, err)
	}
	collectors.Wait()
	return haves, needs, took
}

// sides are two parties of n ids each, half of d only with the one and half only
// with the other.
type sides struct {
	ours, theirs *set.Set
	// The same for negentropy, the differing ids spread over all times or the newest.
	oursSpread, theirsSpread, oursRecent, theirsRecent *vector.Vector
}

func newSides(n, d int) *sides {
	all := setIDs(0, n+d-d/2)
	onlyOurs, both, onlyTheirs := d/2, n-d/2, d-d/2
	lists := [3][]receipt.ID{all[:onlyOurs], all[onlyOurs : onlyOurs+both], all[onlyOurs+both : onlyOurs+both+onlyTheirs]}
	spread, recent := [3][]timed{}, [3][]timed{}
	for i, ids := range lists {
		for j, id := range ids {
			// A second to each id, in any order; then the common ones first.
			scattered := sha256.Sum256(id[:])
			spread[i] = append(spread[i], timed{id, nostr.Timestamp(1.7e9 + uint64(binary.BigEndian.Uint32(scattered[:]))%uint64(n))})
			at := 1.7e9 + j
			if i != 1 {
				at += n
			}
			recent[i] = append(recent[i], timed{id, nostr.Timestamp(at)})
		}
	}
	return &sides{
		ours:         set.Of(slices.Concat(lists[0], lists[1])...),
		theirs:       set.Of(slices.Concat(lists[1], lists[2])...),
		oursSpread:   negentropyOf(spread[0], spread[1]),
		theirsSpread: negentropyOf(spread[1], spread[2]),
		oursRecent:   negentropyOf(recent[0], recent[1]),
		theirsRecent: negentropyOf(recent[1], recent[2]),
	}
}

func (s *sides) diff(t testing.TB) (missing, extra []receipt.ID, took traffic) {
	remote := &counted{Set: s.theirs}
	missing, extra, err := set.Diff(t.Context(), s.ours, s.theirs.Root(), remote, s.theirs.Len())
	assert.NilError(t, err)
	return missing, extra, remote.traffic
}

func TestNegentropyFindsTheSameDifferences(t *testing.T) {
	for _, d := range []int{0, 1, 2, 40} {
		s := newSides(3000, d)
		missing, extra, took := s.diff(t)
		haves, needs, _ := reconcile(t, s.oursSpread, s.theirsSpread)
		assert.Equal(t, len(extra), d/2)
		assert.Equal(t, len(missing), d-d/2)
		assert.Equal(t, len(haves), len(extra))
		assert.Equal(t, len(needs), len(missing))
		for _, id := range missing {
			assert.Assert(t, needs[id.String()])
		}
		for _, id := range extra {
			assert.Assert(t, haves[id.String()])
		}
		assert.Assert(t, took.rounds <= 8)
	}
}

// BenchmarkSetDiff finds in which ids two sets differ: ours from the roots on,
// negentropy from nothing, between two processes that both are this one. The
// bytes are beside those of the whole list of ids.
//
// For 1,000 scattered differences it fails above eight round trips and a megabyte
// of JSON.
func BenchmarkSetDiff(b *testing.B) {
	n := int(largeSize(b))
	for _, d := range []int{0, 1, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("d=%d", d), func(b *testing.B) {
			s := newSides(n, d)
			var fight duel
			var ours, theirs traffic
			for b.Loop() {
				for range 3 {
					fight.round(
						func() {
							missing, extra, took := s.diff(b)
							assert.Equal(b, len(missing)+len(extra), d)
							ours = took
						},
						func() {
							haves, needs, took := reconcile(b, s.oursSpread, s.theirsSpread)
							assert.Equal(b, len(haves)+len(needs), d)
							theirs = took
						})
				}
			}
			_, _, recent := reconcile(b, s.oursRecent, s.theirsRecent)
			if d == 1000 && (ours.rounds > 8 || ours.json > 1e6) {
				b.Errorf("%d round trips and %d bytes of JSON, want at most 8 and 1,000,000", ours.rounds, ours.json)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(ours.rounds), "rounds")
			b.ReportMetric(float64(ours.bytes), "bytes")
			b.ReportMetric(float64(ours.json), "json-bytes")
			b.ReportMetric(fight.ours.best()*1e3, "ms")
			b.ReportMetric(float64(theirs.rounds), "negentropy-rounds")
			b.ReportMetric(float64(theirs.bytes), "negentropy-bytes")
			b.ReportMetric(float64(recent.bytes), "negentropy-recent-bytes")
			b.ReportMetric(fight.theirs.best()*1e3, "negentropy-ms")
			b.ReportMetric(float64(n*len(receipt.ID{})), "list-bytes")
			if d > 0 {
				b.ReportMetric(float64(theirs.bytes)/float64(ours.bytes), "ratio-bytes")
				b.ReportMetric(float64(n*len(receipt.ID{}))/float64(ours.bytes), "ratio-list")
				b.ReportMetric(fight.theirs.best()/fight.ours.best(), "ratio")
			}
		})
	}
}

// BenchmarkSetBuild makes a set of ids in any order, with its root, and adds to
// it: one id and the root again, and one id and a clone, as a node does that
// shows each peer what it holds. Torchwood's prefix tree, of a tenth of the ids,
// is the alternative for the additions; there both start from nothing.
func BenchmarkSetBuild(b *testing.B) {
	n := int(largeSize(b))
	ids := setIDs(0, n)
	const parts, part = 40, 500
	more := setIDs(n, n+2*parts*part)
	var build, root, clone times
	var few duel
	for b.Loop() {
		var s *set.Set
		for range 3 {
			build.add(func() { s = set.Of(ids...) })
		}
		assert.Equal(b, s.Root(), set.Root(ids))
		pinned := make([]*set.Set, 8)
		for i := range parts {
			added := more[2*i*part:]
			root.add(func() {
				for _, id := range added[:part] {
					s.Add(id)
					s.Root()
				}
			})
			clone.add(func() {
				for j, id := range added[part : 2*part] {
					s.Add(id)
					pinned[j%len(pinned)] = s.Clone()
				}
			})
		}
		assert.Equal(b, s.Len(), n+len(more))
		few.round(
			func() {
				var s set.Set
				for _, id := range ids[:n/10] {
					s.Add(id)
					s.Root()
				}
			},
			func() {
				storage := prefix.NewMemoryStorage()
				assert.NilError(b, prefix.InitStorage(b.Context(), sha256.Sum256, storage))
				tree := prefix.NewTree(sha256.Sum256, storage)
				for _, id := range ids[:n/10] {
					assert.NilError(b, tree.Insert(b.Context(), id, id))
				}
			})
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(build.best()*1e9/float64(n), "ns/id")
	b.ReportMetric(root.median()*1e6/part, "µs/add+root")
	b.ReportMetric(clone.median()*1e6/part, "µs/add+clone")
	b.ReportMetric(few.ours.best()*1e6/float64(n/10), "tenth-µs/add+root")
	b.ReportMetric(few.theirs.best()*1e6/float64(n/10), "tenth-torchwood-µs/insert")
	b.ReportMetric(few.theirs.best()/few.ours.best(), "ratio")
}
