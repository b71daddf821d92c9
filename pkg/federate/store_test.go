package federate

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

// openStore opens a store on a directory. The returned close may be called once
// more than needed.
func openStore(t rapid.TB, dir string, p party, trust *merge.Trust, fault func(op, name string) durable.Fault) (*Store, func(), error) {
	files, err := durable.CreateDir(dir)
	assert.NilError(t, err)
	files.Fault = fault
	s, err := OpenStore(context.Background(), files, p.keys, trust, StoreOptions{Now: testClock, Workers: 2})
	if err != nil {
		assert.NilError(t, files.Close())
		return nil, func() {}, err
	}
	return s, sync.OnceFunc(func() {
		assert.NilError(t, s.Close())
		assert.NilError(t, files.Close())
	}), nil
}

func mustStore(t testing.TB, dir string, p party, trust *merge.Trust) *Store {
	t.Helper()
	s, done, err := openStore(t, dir, p, trust, nil)
	assert.NilError(t, err)
	t.Cleanup(done)
	return s
}

// lineOf is a signed receipt of a party.
func lineOf(t rapid.TB, p party, kind receipt.Kind, name string, n int) receipt.Entry {
	r, err := receipt.New(receipt.Statement{
		Kind: kind, Issuer: p.fingerprint(), Name: name, Issued: testDay,
		Subjects: []receipt.Subject{{Name: "app", SHA256: strings.Repeat("ab", 32)}}, Predicate: map[string]any{"n": n},
	})
	assert.NilError(t, err)
	sig, err := receipt.Sign(context.Background(), r, p.keys.Issuer)
	assert.NilError(t, err)
	e, err := receipt.NewEntry(r, sig)
	assert.NilError(t, err)
	return e
}

func itemsOf(entries ...receipt.Entry) []merge.Item {
	var items []merge.Item
	for _, e := range entries {
		items = append(items, merge.Item{Line: string(e.Line())})
	}
	return items
}

func some(t rapid.TB, p party, n int) []receipt.Entry {
	var all []receipt.Entry
	for i := range n {
		all = append(all, lineOf(t, p, receipt.Deploy, "", i))
	}
	return all
}

func idsOf(entries ...receipt.Entry) []receipt.ID {
	var ids []receipt.ID
	for _, e := range entries {
		ids = append(ids, e.Receipt.ID())
	}
	return ids
}

func add(t rapid.TB, s *Store, items ...merge.Item) Ingest {
	in, err := s.Add(context.Background(), "test", items)
	assert.NilError(t, err)
	return in
}

func snapshot(t rapid.TB, s *Store) *Snapshot {
	snap, err := s.Snapshot()
	assert.NilError(t, err)
	return snap
}

// verifyDir reads a store's files as an auditor would, and returns the ids of its
// lines in order.
func verifyDir(t rapid.TB, dir string, p party) []receipt.ID {
	log, err := checkpoint.NewSigner(p.keys.Log)
	assert.NilError(t, err)
	read := func(path string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, filepath.FromSlash(path))) }
	signed, err := read(ledger.CheckpointPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	assert.NilError(t, err)
	body, err := openCheckpoint(log.VerifierKey(), string(signed))
	assert.NilError(t, err)
	_, err = ledger.Verify(read, body)
	assert.NilError(t, err)
	var ids []receipt.ID
	assert.NilError(t, ledger.Lines(read, body, func(_ int64, line []byte) error {
		e, err := receipt.ParseLine(line)
		ids = append(ids, e.Receipt.ID())
		return err
	}))
	return ids
}

func TestOnlyValidReceiptsAreKeptAndServed(t *testing.T) {
	t.Parallel()
	a, b, stranger := parties()[0], parties()[1], parties()[3]
	dir := t.TempDir()
	trust := trustOf(t, a, b)
	s, done, err := openStore(t, dir, a, trust, nil)
	assert.NilError(t, err)
	good := lineOf(t, b, receipt.Deploy, "", 1)
	foreign := lineOf(t, stranger, receipt.Deploy, "", 2)
	merged := lineOf(t, b, receipt.FederationMerge, "", 3)
	other := lineOf(t, b, receipt.Deploy, "", 4)
	wrong, err := receipt.NewEntry(other.Receipt, receipt.Signature{Fingerprint: b.fingerprint(), Packet: good.Signatures[0].Packet})
	assert.NilError(t, err)
	sig, err := receipt.Sign(context.Background(), other.Receipt, a.keys.Issuer)
	assert.NilError(t, err)
	unsigned, err := receipt.NewEntry(other.Receipt, sig)
	assert.NilError(t, err)

	items := append(itemsOf(good, foreign, merged, wrong, unsigned), merge.Item{Line: "{"})
	in, err := s.Add(context.Background(), "peer", items)
	assert.NilError(t, err)
	assert.Equal(t, in.Added, 1)
	assert.DeepEqual(t, in.IDs, idsOf(good))
	var reasons []merge.Reason
	for _, no := range in.Rejected {
		reasons = append(reasons, no.Reason)
	}
	assert.DeepEqual(t, reasons, []merge.Reason{merge.UnknownIssuer, merge.NotFederated, merge.BadSignature, merge.Unsigned, merge.Malformed})
	q := s.Quarantine()
	assert.DeepEqual(t, q.Counts, map[merge.Reason]int{merge.UnknownIssuer: 1, merge.NotFederated: 1, merge.BadSignature: 1, merge.Unsigned: 1, merge.Malformed: 1})
	assert.DeepEqual(t, q.Newest[0], Quarantined{ID: "sha256:021fb596db81e6d02bf3d2586ee3981fe519f275c0ac9ca76bbcf2ebb4097d96", Reason: merge.Malformed, From: "peer"})
	assert.DeepEqual(t, q.Newest[4], Quarantined{ID: foreign.Receipt.ID().String(), Reason: merge.UnknownIssuer, From: "peer"})

	served, err := s.Items(idsOf(good, foreign, merged, wrong))
	assert.NilError(t, err)
	assert.DeepEqual(t, served, itemsOf(good))
	_, _, ok := s.Entry(foreign.Receipt.ID())
	assert.Assert(t, !ok)
	done()
	assert.DeepEqual(t, verifyDir(t, dir, a), idsOf(good))
	again := mustStore(t, dir, a, trust)
	assert.DeepEqual(t, again.Quarantine(), q)
}

func TestTheQuickIDIsTheID(t *testing.T) {
	t.Parallel()
	e := lineOf(t, parties()[0], receipt.ADR, "x", 1)
	id, ok := idOf(string(e.Line()))
	assert.Assert(t, ok)
	assert.Equal(t, id, e.Receipt.ID())
	for _, line := range []string{"", "{}", `{"payload":"`, `{"payload":"!"}`, " " + string(e.Line())} {
		_, ok := idOf(line)
		assert.Assert(t, !ok, line)
	}
}

func TestTheQuarantineIsBounded(t *testing.T) {
	t.Parallel()
	s := mustStore(t, t.TempDir(), parties()[0], trustOf(t, parties()[0]))
	for i := range 5 {
		var bad []merge.Item
		for j := range 60 {
			bad = append(bad, merge.Item{Line: fmt.Sprint(i, j)})
		}
		add(t, s, bad...)
	}
	q := s.Quarantine()
	assert.Equal(t, q.Counts[merge.Malformed], 300)
	assert.Equal(t, len(q.Newest), maxQuarantined)
}

func TestAReceiptIsAppendedOnce(t *testing.T) {
	t.Parallel()
	a := parties()[0]
	dir := t.TempDir()
	s, done, err := openStore(t, dir, a, trustOf(t, a), nil)
	assert.NilError(t, err)
	all := some(t, a, 20)
	in := add(t, s, append(itemsOf(all[:10]...), itemsOf(all[:10]...)...)...)
	assert.Equal(t, in.Added, 10)
	assert.Equal(t, in.Known, 10)
	assert.DeepEqual(t, in.IDs, append(idsOf(all[:10]...), idsOf(all[:10]...)...))
	var wg sync.WaitGroup
	results := make([]Ingest, 8)
	for i := range results {
		wg.Go(func() { results[i], _ = s.Add(context.Background(), "test", itemsOf(all...)) })
	}
	wg.Wait()
	added := 0
	for _, r := range results {
		added += r.Added
		assert.Equal(t, r.Added+r.Known, 20)
	}
	assert.Equal(t, added, 10)
	done()
	got := verifyDir(t, dir, a)
	assert.Equal(t, len(got), 20)
	assert.Equal(t, set.Root(got), set.Root(idsOf(all...)))
}

func TestAnyOrderGroupingAndRepetitionGivesOneRoot(t *testing.T) {
	t.Parallel()
	a, b := parties()[0], parties()[1]
	trust := trustOf(t, a, b)
	var pool []merge.Item
	for i := range 8 {
		pool = append(pool, itemsOf(lineOf(t, parties()[i%2], receipt.ADR, fmt.Sprint("n", i%3), i))...)
	}
	pool = append(pool, itemsOf(lineOf(t, parties()[3], receipt.ADR, "", 9))...)
	root := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		var snaps [2]*Snapshot
		var conflicts [2][]merge.Conflict
		known := rapid.SliceOfNDistinct(rapid.IntRange(0, len(pool)-1), 1, len(pool), rapid.ID).Draw(rt, "known")
		for i, p := range []party{a, b} {
			dir := filepath.Join(root, fmt.Sprint(run, p.name[len(p.name)-1:]))
			s, done, err := openStore(rt, dir, p, trust, nil)
			assert.NilError(rt, err)
			order := slices.Concat(known, rapid.SliceOfN(rapid.SampledFrom(known), 0, 4).Draw(rt, "again"))
			order = rapid.Permutation(order).Draw(rt, "order")
			for len(order) > 0 {
				n := rapid.IntRange((len(order)+1)/2, len(order)).Draw(rt, "group")
				var group []merge.Item
				for _, k := range order[:n] {
					group = append(group, pool[k])
				}
				add(rt, s, group...)
				order = order[n:]
			}
			if rapid.Bool().Draw(rt, "reopen") {
				done()
				s, done, err = openStore(rt, dir, p, trust, nil)
				assert.NilError(rt, err)
			}
			snaps[i], conflicts[i] = snapshot(rt, s), s.Conflicts()
			done()
			verifyDir(rt, dir, p)
			assert.NilError(rt, os.RemoveAll(dir))
		}
		assert.Equal(rt, snaps[0].Root, snaps[1].Root)
		assert.Equal(rt, snaps[0].Count, snaps[1].Count)
		assert.DeepEqual(rt, conflicts[0], conflicts[1])
	})
}

func TestConflictsAreKeptAndListed(t *testing.T) {
	t.Parallel()
	a, b := parties()[0], parties()[1]
	s := mustStore(t, t.TempDir(), a, trustOf(t, a, b))
	x, y, z := lineOf(t, a, receipt.ADR, "one", 1), lineOf(t, b, receipt.ADR, "one", 2), lineOf(t, b, receipt.ADR, "two", 3)
	add(t, s, itemsOf(x, y, z)...)
	ids := idsOf(x, y)
	slices.SortFunc(ids, func(a, b receipt.ID) int { return bytes.Compare(a[:], b[:]) })
	assert.DeepEqual(t, s.Conflicts(), []merge.Conflict{{File: "adr/one.receipt", IDs: ids}})
	assert.Equal(t, snapshot(t, s).Count, 3)
}

func TestTheNodesOwnReceiptsAreRecorded(t *testing.T) {
	t.Parallel()
	a := parties()[0]
	s := mustStore(t, t.TempDir(), a, trustOf(t, a))
	ctx := context.Background()
	subjects := []receipt.Subject{{Name: "x", SHA256: strings.Repeat("cd", 32)}}
	r, err := s.Record(ctx, receipt.Deploy, "app", subjects, map[string]any{"n": 1})
	assert.NilError(t, err)
	m, err := s.Record(ctx, receipt.FederationMerge, "m", subjects, nil)
	assert.NilError(t, err)
	again, err := s.Record(ctx, receipt.Deploy, "app", subjects, map[string]any{"n": 1})
	assert.NilError(t, err)
	assert.Equal(t, again.ID(), r.ID())

	snap := snapshot(t, s)
	assert.Equal(t, snap.Count, 1, "merges are outside of the set")
	assert.Equal(t, snap.Size, int64(2))
	items, err := s.Items([]receipt.ID{r.ID(), m.ID()})
	assert.NilError(t, err)
	assert.Equal(t, len(items), 1)
	e, at, ok := s.Entry(m.ID())
	assert.Assert(t, ok)
	assert.Equal(t, at, int64(1))
	assert.Equal(t, e.Receipt.ID(), m.ID())
	var seen []receipt.ID
	for _, e := range s.Entries() {
		seen = append(seen, e.Receipt.ID())
	}
	assert.DeepEqual(t, seen, []receipt.ID{r.ID(), m.ID()})
	_, err = s.Record(ctx, receipt.Deploy, "not a name", subjects, nil)
	assert.ErrorContains(t, err, "not a name")
}

func TestARevokedIssuerIsBelievedAsFarAsItsHomeLogProves(t *testing.T) {
	t.Parallel()
	a, b, c := parties()[0], parties()[1], parties()[2]
	ctx := context.Background()
	before := trustOf(t, a, b, c)
	// A signs at home under c's key, which is then revoked at size 3.
	dirA := t.TempDir()
	home := mustStore(t, dirA, a, before)
	old, late := some(t, c, 3), lineOf(t, c, receipt.Deploy, "", 99)
	add(t, home, itemsOf(old...)...)
	head, err := home.Head()
	assert.NilError(t, err)
	cutoff, err := openCheckpoint(home.Identity().Log, string(head))
	assert.NilError(t, err)
	add(t, home, itemsOf(late)...)

	after, err := before.With(merge.Member{Node: c.name, Key: c.keys.Issuer.Public(), Cutoff: &merge.Cutoff{Size: cutoff.Size, Root: cutoff.Root}})
	assert.NilError(t, err)
	assert.NilError(t, home.SetTrust(ctx, after))
	assert.Equal(t, snapshot(t, home).Root, set.Root(idsOf(old...)))
	_, _, ok := home.Entry(late.Receipt.ID())
	assert.Assert(t, !ok)

	// B knows one of them from before, in a log that proves nothing of it.
	dirB := t.TempDir()
	s, done, err := openStore(t, dirB, b, before, nil)
	assert.NilError(t, err)
	add(t, s, itemsOf(old[0], late)...)
	assert.NilError(t, s.SetTrust(ctx, after))
	assert.Equal(t, snapshot(t, s).Root, set.Empty)
	in := add(t, s, itemsOf(old...)...)
	assert.Equal(t, len(in.Rejected), 3)
	assert.Equal(t, in.Rejected[0].Reason, merge.Revoked)

	proven, err := home.Items(idsOf(append(old, late)...))
	assert.NilError(t, err)
	assert.Equal(t, len(proven), 3)
	for _, it := range proven {
		assert.Assert(t, it.Proof != nil)
	}
	in = add(t, s, proven...)
	assert.Equal(t, in.Added, 3)
	assert.Equal(t, snapshot(t, s).Root, snapshot(t, home).Root)
	forged := proven[0]
	forged.Line = string(late.Line())
	in = add(t, s, forged)
	assert.Equal(t, in.Rejected[0].Reason, merge.Revoked)
	done()
	assert.DeepEqual(t, verifyDir(t, dirB, b), idsOf(old[0], late, old[1], old[2]))

	// What B passes on proves as much to C, also after a restart.
	s = mustStore(t, dirB, b, after)
	assert.Equal(t, snapshot(t, s).Root, set.Root(idsOf(old...)))
	passed, err := s.Items(idsOf(old...))
	assert.NilError(t, err)
	assert.DeepEqual(t, passed, proven)
	third, err := merge.NewTrust(append(after.Members(), merge.Member{Node: "d", Key: parties()[3].keys.Issuer.Public()})...)
	assert.NilError(t, err)
	fresh := mustStore(t, t.TempDir(), parties()[3], third)
	assert.Equal(t, add(t, fresh, passed...).Added, 3)
}

func TestTheSetFollowsTheTrustState(t *testing.T) {
	t.Parallel()
	a, b := parties()[0], parties()[1]
	dir := t.TempDir()
	assert.NilError(t, InitStore(context.Background(), dir, "local/trusting", rand.Reader, testDay))
	load := func() *Store {
		s, err := LoadStore(context.Background(), dir, StoreOptions{Now: testClock}, nil)
		assert.NilError(t, err)
		return s
	}
	s := load()
	own := s.Trust()
	both, err := own.With(merge.Member{Node: b.name, Key: b.keys.Issuer.Public()})
	assert.NilError(t, err)
	assert.Equal(t, len(add(t, s, itemsOf(lineOf(t, b, receipt.Deploy, "x", 1))...).Rejected), 1)
	assert.NilError(t, s.SetTrust(context.Background(), both))
	e := lineOf(t, b, receipt.Deploy, "x", 1)
	add(t, s, itemsOf(e)...)
	with := snapshot(t, s)
	assert.Equal(t, with.Count, 1)
	text, err := checkpoint.OpenNote(s.Identity().Set, with.SetNote)
	assert.NilError(t, err)
	assert.Equal(t, string(text), string(merge.SetNoteText("local/trusting", both.Hash(), 1, with.Root)))

	assert.NilError(t, s.SetTrust(context.Background(), own))
	assert.Equal(t, snapshot(t, s).Root, set.Empty)
	_, ok := s.At(with.Root)
	assert.Assert(t, !ok, "a snapshot is of one trust state")
	_, _, ok = s.Entry(e.Receipt.ID())
	assert.Assert(t, !ok)
	_, err = os.Stat(filepath.Join(dir, "certs", string(b.fingerprint())+".asc"))
	assert.Assert(t, errors.Is(err, fs.ErrNotExist))

	assert.NilError(t, s.SetTrust(context.Background(), both))
	assert.NilError(t, s.Close())
	s = load()
	assert.Equal(t, s.Trust().Hash(), both.Hash())
	assert.Equal(t, snapshot(t, s).Root, with.Root)
	foreign, err := merge.NewTrust(merge.Member{Node: a.name, Key: a.keys.Issuer.Public()})
	assert.NilError(t, err)
	assert.ErrorContains(t, s.SetTrust(context.Background(), foreign), "own issuer")
	assert.NilError(t, s.Close())
}

func TestSnapshotsStayWhatTheyWere(t *testing.T) {
	t.Parallel()
	a := parties()[0]
	files, err := durable.CreateDir(t.TempDir())
	assert.NilError(t, err)
	defer files.Close()
	s, err := OpenStore(context.Background(), files, a.keys, trustOf(t, a), StoreOptions{Now: testClock, MaxSnapshots: 2})
	assert.NilError(t, err)
	defer s.Close()
	assert.Assert(t, snapshot(t, s).Checkpoint == nil)
	var snaps []*Snapshot
	for i := range 3 {
		add(t, s, itemsOf(lineOf(t, a, receipt.Deploy, "", i))...)
		snaps = append(snaps, snapshot(t, s))
		assert.Assert(t, snaps[i] == snapshot(t, s), "nothing has changed")
	}
	_, ok := s.At(snaps[0].Root)
	assert.Assert(t, !ok)
	for i, snap := range snaps {
		assert.Equal(t, snap.Set.Root(), snap.Root)
		assert.Equal(t, snap.Set.Len(), i+1)
		body, err := openCheckpoint(s.Identity().Log, string(snap.Checkpoint))
		assert.NilError(t, err)
		assert.Equal(t, body.Size, snap.Size)
		if got, ok := s.At(snap.Root); i > 0 {
			assert.Assert(t, ok && got == snap)
		}
	}
	_, err = s.Record(context.Background(), receipt.Snapshot, "", []receipt.Subject{{Name: "x", SHA256: strings.Repeat("ab", 32)}}, nil)
	assert.NilError(t, err)
	later := snapshot(t, s)
	assert.Equal(t, later.Root, snaps[2].Root)
	assert.Equal(t, later.Size, int64(4))
}

func TestPagesOfTheLogProveThemselves(t *testing.T) {
	t.Parallel()
	a := parties()[0]
	s := mustStore(t, t.TempDir(), a, trustOf(t, a))
	all := some(t, a, 300)
	add(t, s, itemsOf(all[:290]...)...)
	first, err := s.Head()
	assert.NilError(t, err)
	at290, err := openCheckpoint(s.Identity().Log, string(first))
	assert.NilError(t, err)
	add(t, s, itemsOf(all[290:]...)...)
	head, err := s.Head()
	assert.NilError(t, err)
	at300, err := openCheckpoint(s.Identity().Log, string(head))
	assert.NilError(t, err)

	var lines []string
	for from := int64(0); from < 290; {
		page, err := s.Tail(from, 290, 100, 1<<20)
		assert.NilError(t, err)
		assert.Equal(t, page.Size, int64(290))
		assert.Assert(t, len(page.Lines) > 0 && len(page.Lines) <= 100)
		lines = append(lines, page.Lines...)
		from += int64(len(page.Lines))
	}
	assert.Equal(t, len(lines), 290)
	assert.Equal(t, lines[289], string(all[289].Line()))
	page, err := s.Tail(290, 0, 256, 1<<20)
	assert.NilError(t, err)
	assert.DeepEqual(t, page, Tail{Lines: page.Lines, From: 290, Size: 300, Proof: page.Proof, Checkpoint: head})
	assert.Equal(t, len(page.Lines), 10)
	assert.NilError(t, checkpoint.CheckConsistency(at290, at300, page.Proof))
	tiny, err := s.Tail(5, 0, 256, 1)
	assert.NilError(t, err)
	assert.Equal(t, len(tiny.Lines), 1)
	end, err := s.Tail(300, 0, 256, 1<<20)
	assert.NilError(t, err)
	assert.Equal(t, len(end.Lines), 0)
	for _, bad := range [][2]int64{{-1, 0}, {301, 0}, {0, 301}, {200, 100}} {
		_, err := s.Tail(bad[0], bad[1], 1, 1)
		assert.ErrorContains(t, err, "the log has 300")
	}

	// The tiles are those that the ledger derives from the files.
	v, err := s.policy.Open(head)
	assert.NilError(t, err)
	tiles := map[string][]byte{}
	assert.NilError(t, ledger.WriteTiles(s.Read(), v, func(path string, data []byte) error {
		tiles[path] = data
		return nil
	}))
	for _, c := range []struct {
		path     string
		level, n int
		width    int
	}{
		{"tile/0/000", 0, 0, 256},
		{"tile/0/001.p/44", 0, 1, 44},
		{"tile/1/000.p/1", 1, 0, 1},
		{"tile/entries/000", -1, 0, 256},
		{"tile/entries/001.p/44", -1, 1, 44},
	} {
		got, err := s.Tile(c.level, int64(c.n), c.width)
		assert.NilError(t, err, c.path)
		assert.Assert(t, bytes.Equal(got, tiles[c.path]), c.path)
		delete(tiles, c.path)
	}
	assert.DeepEqual(t, slices.Collect(maps.Keys(tiles)), []string{"checkpoint"})
	for _, none := range [][3]int{{0, 1, 45}, {-1, 1, 45}, {0, 2, 1}, {1, 0, 2}, {2, 0, 1}, {-2, 0, 1}, {0, -1, 1}, {0, 0, 0}, {0, 0, 257}} {
		_, err := s.Tile(none[0], int64(none[1]), none[2])
		assert.Assert(t, errors.Is(err, fs.ErrNotExist), none)
	}
	_, err = s.Read()("keys/log.key")
	assert.Assert(t, errors.Is(err, fs.ErrNotExist))
}

func TestWhatChangedOnDiskIsNotServed(t *testing.T) {
	t.Parallel()
	a := parties()[0]
	dir := t.TempDir()
	s, done, err := openStore(t, dir, a, trustOf(t, a), nil)
	assert.NilError(t, err)
	all := some(t, a, 3)
	add(t, s, itemsOf(all...)...)
	path := filepath.Join(dir, filepath.FromSlash(ledger.SegmentPath(0)))
	data, err := os.ReadFile(path)
	assert.NilError(t, err)
	data[10] ^= 1
	assert.NilError(t, os.WriteFile(path, data, 0o644))
	_, err = s.Items(idsOf(all[0]))
	assert.ErrorContains(t, err, "entry 0 has changed on disk")
	_, err = s.Tail(0, 0, 10, 1<<20)
	assert.ErrorContains(t, err, "entry 0 has changed on disk")
	_, err = s.Tile(-1, 0, 3)
	assert.ErrorContains(t, err, "entry 0 has changed on disk")
	items, err := s.Items(idsOf(all[2]))
	assert.NilError(t, err)
	assert.Equal(t, len(items), 1)
	done()
	_, _, err = openStore(t, dir, a, trustOf(t, a), nil)
	var tampered *ledger.TamperError
	assert.Assert(t, errors.As(err, &tampered), "%v", err)
}

// TestEveryFaultOfEveryWrite lets each write of a life fail in each way, starts
// the node again, and finds on disk all that was acknowledged.
func TestEveryFaultOfEveryWrite(t *testing.T) {
	t.Parallel()
	a, b, c := parties()[0], parties()[1], parties()[2]
	ctx := context.Background()
	mine, theirs := some(t, a, 5), some(t, c, 2)
	// c is cut off in the log of b.
	homeDir := t.TempDir()
	home := mustStore(t, homeDir, b, trustOf(t, a, b, c))
	add(t, home, itemsOf(theirs...)...)
	head, err := home.Head()
	assert.NilError(t, err)
	body, err := openCheckpoint(home.Identity().Log, string(head))
	assert.NilError(t, err)
	trust, err := trustOf(t, a, b).With(merge.Member{Node: c.name, Key: c.keys.Issuer.Public(), Cutoff: &merge.Cutoff{Size: body.Size, Root: body.Root}})
	assert.NilError(t, err)
	assert.NilError(t, home.SetTrust(ctx, trust))
	proven, err := home.Items(idsOf(theirs...))
	assert.NilError(t, err)
	identity := home.Identity()

	// live does what a node does, once more where it failed, and notes what was
	// acknowledged.
	type acked struct {
		ids                       map[receipt.ID]bool
		peer, cosigned, malformed bool
	}
	live := func(s *Store, got *acked) {
		ingest := func(items ...merge.Item) {
			for range 2 {
				if in, err := s.Add(ctx, "test", items); err == nil {
					for _, id := range in.IDs {
						got.ids[id] = true
					}
					got.malformed = got.malformed || len(in.Rejected) > 0
					return
				}
			}
		}
		ingest(itemsOf(mine[:2]...)...)
		ingest(append(proven, merge.Item{Line: "?"})...)
		for range 2 {
			r, err := s.Record(ctx, receipt.FederationMerge, "m", []receipt.Subject{{Name: "x", SHA256: strings.Repeat("ab", 32)}}, nil)
			if err == nil {
				got.ids[r.ID()] = true
				break
			}
		}
		for range 2 {
			if s.PutPeer(PeerState{Node: b.name, Fingerprint: string(b.fingerprint()), Identity: &identity}) == nil {
				got.peer = true
				break
			}
		}
		for range 2 {
			if _, err := s.Witness(0, nil, head); err == nil {
				got.cosigned = true
				break
			}
		}
		ingest(itemsOf(mine...)...)
	}
	root := t.TempDir()
	for k := 0; ; k++ {
		var writes atomic.Int64 // proofs are written side by side
		faults := []durable.Fault{durable.FailAfter, durable.KillBefore, durable.FailBefore, durable.KillAfter}
		if testing.Short() {
			faults = faults[:2]
		}
		for _, fault := range faults {
			dir := filepath.Join(root, fmt.Sprint(k, fault))
			writes.Store(0)
			got := acked{ids: map[receipt.ID]bool{}}
			s, done, err := openStore(t, dir, a, trust, func(op, name string) durable.Fault {
				if op != "put" {
					return durable.NoFault
				}
				if writes.Add(1) == int64(k)+1 {
					return fault
				}
				return durable.NoFault
			})
			assert.NilError(t, err)
			live(s, &got)
			root := snapshot(t, s).Root
			done()
			if fault == durable.FailBefore || fault == durable.FailAfter {
				assert.Equal(t, len(got.ids), 8, "one failure is overcome by a second try")
			}

			again, done, err := openStore(t, dir, a, trust, nil)
			assert.NilError(t, err)
			for id := range got.ids {
				_, _, ok := again.Entry(id)
				assert.Assert(t, ok, "write %d, fault %d: receipt %s was acknowledged", k, fault, id)
			}
			if fault == durable.FailBefore || fault == durable.FailAfter {
				assert.Equal(t, snapshot(t, again).Root, root, "memory was what is on disk")
			}
			_, known := again.Peer(b.fingerprint())
			assert.Assert(t, known || !got.peer)
			assert.Assert(t, again.Quarantine().Counts[merge.Malformed] > 0 || !got.malformed)
			if got.cosigned {
				_, err := again.Witness(0, nil, head)
				var conflict *ErrWitnessConflict
				assert.Assert(t, errors.As(err, &conflict) && conflict.Size == 2, "%v", err)
			}
			live(again, &got)
			assert.Equal(t, snapshot(t, again).Root, set.Root(idsOf(append(theirs, mine...)...)))
			done()
			ids := verifyDir(t, dir, a)
			slices.SortFunc(ids, func(a, b receipt.ID) int { return bytes.Compare(a[:], b[:]) })
			assert.Equal(t, len(slices.Compact(ids)), 8)
			assert.Equal(t, len(ids), 8, "each is in the log once")
			assert.NilError(t, os.RemoveAll(dir))
		}
		if writes.Load() <= int64(k) {
			assert.Assert(t, k > 15, "only %d writes", k)
			return
		}
	}
}

// TestAKilledNodeLosesNothingAcknowledged kills a process that takes receipts in,
// again and again. With FEDERATE_TEST_CHILD set it is that process.
func TestAKilledNodeLosesNothingAcknowledged(t *testing.T) {
	if dir := os.Getenv("FEDERATE_TEST_CHILD"); dir != "" {
		s, err := LoadStore(context.Background(), dir, StoreOptions{Now: time.Now}, nil)
		assert.NilError(t, err)
		start := snapshot(t, s).Size
		var wg sync.WaitGroup
		var mu sync.Mutex
		for w := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					var nonce [8]byte
					binary.BigEndian.PutUint64(nonce[:], uint64(start)<<32|uint64(w)<<24|uint64(i))
					r, err := s.Record(context.Background(), receipt.Deploy, "", []receipt.Subject{{Name: "x", SHA256: strings.Repeat("ab", 32)}},
						map[string]any{"nonce": fmt.Sprintf("%x", nonce)})
					if err != nil {
						panic(err)
					}
					mu.Lock()
					fmt.Println("acknowledged", r.ID())
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	t.Parallel()
	dir := t.TempDir()
	assert.NilError(t, InitStore(context.Background(), dir, "", rand.Reader, time.Now().Add(-time.Hour)))
	acked := map[receipt.ID]bool{}
	for round := range 4 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "FEDERATE_TEST_CHILD="+dir)
		out, err := cmd.StdoutPipe()
		assert.NilError(t, err)
		assert.NilError(t, cmd.Start())
		heard := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			hex, ok := strings.CutPrefix(lines.Text(), "acknowledged ")
			if !ok || len(hex) != 64 {
				continue
			}
			id, err := receipt.ParseID(hex)
			assert.NilError(t, err)
			acked[id] = true
			if heard++; heard == 25+13*round {
				assert.NilError(t, cmd.Process.Kill())
			}
		}
		_ = cmd.Wait()
		assert.Assert(t, heard >= 25+13*round, "the child died by itself")
	}
	s, err := LoadStore(context.Background(), dir, StoreOptions{Now: time.Now}, nil)
	assert.NilError(t, err)
	defer s.Close()
	for id := range acked {
		_, _, ok := s.Entry(id)
		assert.Assert(t, ok, id)
	}
	snap := snapshot(t, s)
	assert.Equal(t, snap.Size, int64(snap.Count), "each is in the log once")
	body, err := openCheckpoint(s.Identity().Log, string(snap.Checkpoint))
	assert.NilError(t, err)
	_, err = ledger.Verify(s.Read(), body)
	assert.NilError(t, err)
}

func TestReadersAndWritersDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	a, b := parties()[0], parties()[1]
	s := mustStore(t, t.TempDir(), a, trustOf(t, a, b))
	all := some(t, b, 120)
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				snap, err := s.Snapshot()
				assert.Check(t, err)
				assert.Check(t, snap.Set.Root() == snap.Root)
				ids := slices.Collect(snap.Set.All())
				items, err := s.Items(ids[:min(len(ids), 5)])
				assert.Check(t, err)
				// The trust state may have changed in between, and holds fewer then.
				assert.Check(t, len(items) <= min(len(ids), 5))
				_, err = s.Tail(0, snap.Size, 10, 1<<20)
				assert.Check(t, err)
				s.Conflicts()
			}
		})
	}
	for i := range 4 {
		writers.Go(func() {
			for j := i; j < len(all); j += 4 {
				_, err := s.Add(context.Background(), "test", itemsOf(all[j], all[j/2]))
				assert.Check(t, err)
			}
		})
	}
	writers.Go(func() {
		for _, p := range [][]party{{a}, {a, b}} {
			assert.Check(t, s.SetTrust(context.Background(), trustOf(t, p...)))
		}
	})
	writers.Wait()
	close(stop)
	readers.Wait()
	add(t, s, itemsOf(all...)...)
	assert.Equal(t, snapshot(t, s).Count, 120)
}

func TestANodeIsMadeOnceAndItsKeysAreItsOwn(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "new", "node")
	_, err := LoadStore(ctx, t.TempDir(), StoreOptions{Now: testClock}, nil)
	assert.ErrorContains(t, err, "no node is here: make one with remembrancer federation init")
	assert.NilError(t, InitStore(ctx, dir, "", rand.Reader, testDay))
	assert.ErrorContains(t, InitStore(ctx, dir, "", rand.Reader, testDay), "a node is there already")
	for _, name := range []string{issuerPath, logPath, witnessPath, setPath} {
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name)))
		assert.NilError(t, err)
		assert.Assert(t, runtime.GOOS == "windows" || info.Mode().Perm() == 0o600, name)
	}
	s, err := LoadStore(ctx, dir, StoreOptions{Now: testClock, Endpoint: "http://localhost:8001/mcp"}, nil)
	assert.NilError(t, err)
	id := s.Identity()
	assert.Assert(t, strings.HasPrefix(id.Node, "local/node-"), id.Node)
	assert.Equal(t, id.Endpoint, "http://localhost:8001/mcp")
	_, _, err = openIdentity(mustIdentity(t, s), s.Trust())
	assert.NilError(t, err)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = LoadStore(short, dir, StoreOptions{Now: testClock}, nil)
	assert.Assert(t, errors.Is(err, context.DeadlineExceeded), "%v", err)
	assert.NilError(t, s.Close())

	_, err = LoadStore(ctx, dir, StoreOptions{Now: testClock, Node: "local/another"}, nil)
	assert.ErrorContains(t, err, "the node is named local/another, but its log key is that of "+id.Node)
	_, err = LoadStore(ctx, dir, StoreOptions{}, nil)
	assert.ErrorContains(t, err, "no clock")
	// Another issuer, such as a key that gpg keeps, joins the trust state.
	s, err = LoadStore(ctx, dir, StoreOptions{Now: testClock}, parties()[1].keys.Issuer)
	assert.NilError(t, err)
	assert.Equal(t, len(s.Trust().Members()), 2)
	assert.Equal(t, s.Identity().Fingerprint, string(parties()[1].fingerprint()))
	assert.NilError(t, s.Close())
	_, err = os.Stat(filepath.Join(dir, "certs", string(parties()[1].fingerprint())+".asc"))
	assert.NilError(t, err)
}

func mustIdentity(t testing.TB, s *Store) IdentityOut {
	t.Helper()
	out, err := s.signIdentity(context.Background())
	assert.NilError(t, err)
	return out
}

// A crash of the making of keys leaves keys: they are taken up again.
func TestTheMakingOfANodeGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	assert.NilError(t, InitStore(ctx, dir, "local/x", rand.Reader, testDay))
	kept, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(logPath)))
	assert.NilError(t, err)
	assert.NilError(t, os.Remove(filepath.Join(dir, trustPath)))
	assert.NilError(t, os.Remove(filepath.Join(dir, filepath.FromSlash(setPath))))
	assert.ErrorContains(t, InitStore(ctx, dir, "local/y", rand.Reader, testDay), "is the key of local/x, want local/y")
	assert.NilError(t, InitStore(ctx, dir, "", rand.Reader, testDay))
	again, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(logPath)))
	assert.NilError(t, err)
	assert.Equal(t, string(again), string(kept))
	s, err := LoadStore(ctx, dir, StoreOptions{Now: testClock}, nil)
	assert.NilError(t, err)
	assert.Equal(t, s.Identity().Node, "local/x")
	assert.NilError(t, s.Close())
}

func TestKeysThatDoNotBelongTogetherAreRefused(t *testing.T) {
	t.Parallel()
	a, b := parties()[0], parties()[1]
	for _, c := range []struct {
		name string
		keys Keys
		want string
	}{
		{"issuer", Keys{Log: a.keys.Log, Witness: a.keys.Witness, Set: a.keys.Set}, "no key to issue receipts with"},
		{"log", Keys{a.keys.Issuer, "x", a.keys.Witness, a.keys.Set}, "log key: want a signed-note signing key"},
		{"witness", Keys{a.keys.Issuer, a.keys.Log, b.keys.Witness, a.keys.Set}, "witness key is named local/node-b/witness, want local/node-a/witness"},
		{"set", Keys{a.keys.Issuer, a.keys.Log, a.keys.Witness, a.keys.Log}, "set key is named local/node-a, want local/node-a/set"},
	} {
		_, _, err := c.keys.identity("")
		assert.ErrorContains(t, err, c.want, c.name)
	}
	_, _, err := openStore(t, t.TempDir(), a, trustOf(t, b), nil)
	assert.ErrorContains(t, err, "the node's own issuer "+string(a.fingerprint())+" is not in the trust state")
}

func TestPeersAreRemembered(t *testing.T) {
	t.Parallel()
	a, b, c := parties()[0], parties()[1], parties()[2]
	dir := t.TempDir()
	s, done, err := openStore(t, dir, a, trustOf(t, a, b, c), nil)
	assert.NilError(t, err)
	_, ok := s.Peer(b.fingerprint())
	assert.Assert(t, !ok)
	id := s.Identity()
	full := PeerState{
		Node: b.name, Fingerprint: string(b.fingerprint()), URL: "http://localhost:1/mcp", Identity: &id, LastSeen: []byte("note\n"),
		LastMerge: "ab", LastMergeFile: "f", TailSize: 7, Stopped: "why",
	}
	assert.NilError(t, s.PutPeer(full))
	assert.NilError(t, s.PutPeer(PeerState{Fingerprint: string(c.fingerprint())}))
	assert.ErrorContains(t, s.PutPeer(PeerState{Node: "x", Fingerprint: "../../x"}), `peer "x": fingerprint "../../x"`)
	id.Node = "changed" // what was put is a copy
	want := s.Peers()
	assert.Equal(t, len(want), 2)
	got, ok := s.Peer(b.fingerprint())
	assert.Assert(t, ok)
	assert.Equal(t, got.Identity.Node, a.name)
	got.LastSeen[0] = 'x'
	done()
	s = mustStore(t, dir, a, trustOf(t, a, b, c))
	assert.DeepEqual(t, s.Peers(), want)
}

func TestAnEquivocationIsRecordedAndStopsThePeer(t *testing.T) {
	t.Parallel()
	a, b := parties()[0], parties()[1]
	s := mustStore(t, t.TempDir(), a, trustOf(t, a, b))
	other := mustStore(t, t.TempDir(), b, trustOf(t, a, b))
	identity := other.Identity()
	assert.NilError(t, s.PutPeer(PeerState{Node: b.name, Fingerprint: string(b.fingerprint()), Identity: &identity}))
	log, err := checkpoint.NewSigner(b.keys.Log)
	assert.NilError(t, err)
	one, err := log.Sign(checkpoint.Body{Origin: b.name, Size: 1, Root: checkpoint.Hash{1}})
	assert.NilError(t, err)
	two, err := log.Sign(checkpoint.Body{Origin: b.name, Size: 1, Root: checkpoint.Hash{2}})
	assert.NilError(t, err)
	// Signatures of nobody cannot make the evidence too large to be kept.
	padded := slices.Clone(two)
	for i := range 500 {
		padded = fmt.Appendf(padded, "— example.com/%d AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n", i)
	}
	r, err := s.Incident(context.Background(), b.fingerprint(), "fork", one, padded, []checkpoint.Hash{{3}})
	assert.NilError(t, err)
	e, _, ok := s.Entry(r.ID())
	assert.Assert(t, ok)
	assert.Equal(t, e.Receipt.Kind(), receipt.Incident)
	assert.Equal(t, e.Receipt.Field("equivocation"), "fork")
	assert.Equal(t, e.Receipt.Field("first"), string(one))
	assert.Equal(t, e.Receipt.Field("second"), string(two))
	p, _ := s.Peer(b.fingerprint())
	assert.Equal(t, p.Stopped, "equivocation: fork, see incident "+r.ID().String())
	_, err = s.Witness(0, nil, one)
	assert.Assert(t, errors.Is(err, ErrUnknownLog), "%v", err)
	// A second one does not hide the first, and what cannot be recorded stops too.
	_, err = s.Incident(context.Background(), b.fingerprint(), "rollback", one, two, nil)
	assert.NilError(t, err)
	again, _ := s.Peer(b.fingerprint())
	assert.DeepEqual(t, again, p)
	c := parties()[2]
	_, err = s.Incident(context.Background(), c.fingerprint(), "fork", one, bytes.Repeat([]byte("x"), 60000), nil)
	assert.ErrorContains(t, err, "incident: ")
	p, _ = s.Peer(c.fingerprint())
	assert.Equal(t, p.Stopped, "equivocation: fork")
}

func TestTheWitnessIsACompareAndSwap(t *testing.T) {
	t.Parallel()
	a, b := parties()[0], parties()[1]
	dir := t.TempDir()
	trust := trustOf(t, a, b)
	s, done, err := openStore(t, dir, a, trust, nil)
	assert.NilError(t, err)
	log := mustStore(t, t.TempDir(), b, trust)
	var notes [][]byte
	for i, n := range []int{3, 4, 2} { // sizes 3, 7, 9
		var all []merge.Item
		for j := range n {
			all = append(all, itemsOf(lineOf(t, b, receipt.Deploy, "", 10*i+j))...)
		}
		add(t, log, all...)
		head, err := log.Head()
		assert.NilError(t, err)
		notes = append(notes, head)
	}
	proof := func(old, size int64) []checkpoint.Hash {
		p, err := log.Consistency(old, size)
		assert.NilError(t, err)
		return p
	}
	signer, err := checkpoint.NewSigner(b.keys.Log)
	assert.NilError(t, err)
	fork, err := signer.Sign(checkpoint.Body{Origin: b.name, Size: 7, Root: checkpoint.Hash{9}})
	assert.NilError(t, err)
	stranger, err := checkpoint.NewSigner(parties()[3].keys.Log)
	assert.NilError(t, err)
	unknown, err := stranger.Sign(checkpoint.Body{Origin: parties()[3].name, Size: 1})
	assert.NilError(t, err)
	badSig := bytes.Replace(notes[0], []byte("\n3\n"), []byte("\n2\n"), 1)

	_, err = s.Witness(0, nil, notes[0])
	assert.Assert(t, errors.Is(err, ErrUnknownLog), "%v", err)
	identity := log.Identity()
	assert.NilError(t, s.PutPeer(PeerState{Node: b.name, Fingerprint: string(b.fingerprint()), Identity: &identity}))

	conflict := func(err error) int64 {
		var c *ErrWitnessConflict
		assert.Assert(t, errors.As(err, &c), "%v", err)
		return c.Size
	}
	_, err = s.Witness(3, nil, notes[0])
	assert.Equal(t, conflict(err), int64(0))
	line, err := s.Witness(0, nil, notes[0])
	assert.NilError(t, err)
	policy, err := checkpoint.ParsePolicy([]byte("log " + identity.Log + "\nwitness w " + s.Identity().Witness + "\nquorum w\n"))
	assert.NilError(t, err)
	_, err = policy.Open(append(bytes.Clone(notes[0]), line...))
	assert.NilError(t, err)

	for _, c := range []struct {
		name  string
		old   int64
		proof []checkpoint.Hash
		note  []byte
		want  error
	}{
		{"no note", 3, nil, []byte("x"), ErrBadRequest},
		{"old above the size", 8, nil, notes[1], ErrBadRequest},
		{"old negative", -1, nil, notes[1], ErrBadRequest},
		{"too long a proof", 3, make([]checkpoint.Hash, 64), notes[1], ErrBadRequest},
		{"unknown log", 0, nil, unknown, ErrUnknownLog},
		{"signature of another text", 3, nil, badSig, ErrNoSignature},
		{"no proof", 3, nil, notes[1], ErrBadProof},
		{"the proof of another size", 3, proof(3, 9), notes[1], ErrBadProof},
		{"a fork", 3, proof(3, 7), fork, ErrBadProof},
	} {
		_, err := s.Witness(c.old, c.proof, c.note)
		assert.Assert(t, errors.Is(err, c.want), "%s: %v", c.name, err)
	}
	_, err = s.Witness(0, nil, notes[1])
	assert.Equal(t, conflict(err), int64(3))
	_, err = s.Witness(3, proof(3, 7), notes[1])
	assert.NilError(t, err)
	_, err = s.Witness(7, nil, fork)
	assert.Equal(t, conflict(err), int64(7))
	_, err = s.Witness(7, nil, notes[1])
	assert.NilError(t, err, "the same once more")
	done()
	s = mustStore(t, dir, a, trust)
	_, err = s.Witness(3, proof(3, 9), notes[2])
	assert.Equal(t, conflict(err), int64(7))
	line, err = s.Witness(7, proof(7, 9), notes[2])
	assert.NilError(t, err)

	// The log keeps the cosignature, and what does not verify is left out.
	assert.Assert(t, log.Cosigned() == nil)
	cosigned := append(bytes.Clone(notes[2]), line...)
	assert.ErrorContains(t, log.AddCosignature(cosigned), "no cosignature of a peer verifies")
	mine := s.Identity()
	assert.NilError(t, log.PutPeer(PeerState{Node: a.name, Fingerprint: string(a.fingerprint()), Identity: &mine}))
	junk := []byte("— local/node-a/witness AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n")
	assert.NilError(t, log.AddCosignature(slices.Concat(notes[2], junk, line)))
	assert.Equal(t, string(log.Cosigned()), string(cosigned))
	assert.NilError(t, log.AddCosignature(cosigned))
	assert.Equal(t, string(log.Cosigned()), string(cosigned))
	assert.ErrorContains(t, log.AddCosignature(slices.Concat(fork, line)), "is not of this log")
	older := append(bytes.Clone(notes[0]), line...)
	assert.Assert(t, log.AddCosignature(older) == nil || string(log.Cosigned()) == string(cosigned))
	assert.Equal(t, string(log.Cosigned()), string(cosigned))
}

func TestRacingWitnessRequestsNeverGoBack(t *testing.T) {
	t.Parallel()
	a, b := parties()[0], parties()[1]
	trust := trustOf(t, a, b)
	s := mustStore(t, t.TempDir(), a, trust)
	log := mustStore(t, t.TempDir(), b, trust)
	identity := log.Identity()
	assert.NilError(t, s.PutPeer(PeerState{Node: b.name, Fingerprint: string(b.fingerprint()), Identity: &identity}))
	var wg sync.WaitGroup
	var mu sync.Mutex
	swaps := map[int64]int{}
	var notes [][]byte
	for i := range 6 {
		add(t, log, itemsOf(lineOf(t, b, receipt.Deploy, "", i))...)
		head, err := log.Head()
		assert.NilError(t, err)
		notes = append(notes, head)
	}
	for i := range notes {
		wg.Go(func() {
			for old := int64(0); old < int64(i+1); {
				proof, err := log.Consistency(old, int64(i+1))
				assert.Check(t, err)
				_, err = s.Witness(old, proof, notes[i])
				var conflict *ErrWitnessConflict
				switch {
				case errors.As(err, &conflict):
					old = conflict.Size
				case assert.Check(t, err):
					mu.Lock()
					swaps[old]++
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	for old, n := range swaps {
		assert.Equal(t, n, 1, "from size %d", old)
	}
}

func FuzzTrustFile(f *testing.F) {
	dir := f.TempDir()
	files, err := durable.CreateDir(dir)
	assert.NilError(f, err)
	trust := trustOf(f, parties()[0], parties()[1])
	cut, err := trust.With(merge.Member{Node: "c", Key: parties()[2].keys.Issuer.Public(), Cutoff: &merge.Cutoff{Size: 7}})
	assert.NilError(f, err)
	for _, tr := range []*merge.Trust{trust, cut} {
		assert.NilError(f, putTrust(files, tr))
		data, err := files.Get(trustPath)
		assert.NilError(f, err)
		f.Add(data)
	}
	f.Add([]byte("{\n  \"members\": []\n}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		trust, err := parseTrust(data)
		if err != nil {
			return
		}
		assert.NilError(t, putTrust(files, trust))
		again, err := getTrust(files)
		assert.NilError(t, err)
		assert.Equal(t, again.Hash(), trust.Hash())
	})
}

func FuzzStateFiles(f *testing.F) {
	for _, v := range []any{PeerState{Fingerprint: "AB", LastSeen: []byte("x")}, Quarantine{}, witnessed{"l", "c"}, merge.Item{Line: "x", Proof: &merge.HomeProof{Hashes: []string{}}}} {
		data, err := encode(v)
		assert.NilError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, v := range []any{&PeerState{}, &Quarantine{}, &witnessed{}, &merge.Item{}} {
			if decode(data, v) == nil {
				again, err := encode(v)
				assert.NilError(t, err)
				assert.Equal(t, string(again), string(data))
			}
		}
	})
}
