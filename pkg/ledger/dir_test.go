package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/durable"
)

func signerOf(t rapid.TB, name string, seed byte) *checkpoint.Signer {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	hash := sha256.Sum256(append([]byte(name+"\n\x01"), key.Public().(ed25519.PublicKey)...))
	s, err := checkpoint.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%x+%s", name, hash[:4],
		base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...))))
	assert.NilError(t, err)
	return s
}

func keys(t rapid.TB) (*checkpoint.Signer, *checkpoint.Policy) {
	s := signerOf(t, origin, 1)
	p, err := checkpoint.ParsePolicy(checkpoint.NewPolicy(s.VerifierKey()))
	assert.NilError(t, err)
	return s, p
}

// world is a log on disk and the memory of everyone who ever dealt with it:
// what was signed, and what was acknowledged.
type world struct {
	t      rapid.TB
	signer *checkpoint.Signer
	policy *checkpoint.Policy
	log    string
	claim  string // the same directory, or another
	fault  func(op, name string) durable.Fault

	mu     sync.Mutex
	signed []checkpoint.Body
	acked  map[int64][]byte

	dirs []*durable.Dir
	dir  *Dir
}

// newWorld makes a log of the size without asking the store to.
func newWorld(t rapid.TB, root string, size int64, separate bool) *world {
	w := &world{t: t, log: filepath.Join(root, "log"), acked: map[int64][]byte{}}
	w.signer, w.policy = keys(t)
	w.claim = w.log
	if separate {
		w.claim = filepath.Join(root, "signer")
	}
	assert.NilError(t, os.MkdirAll(w.log, 0o755))
	assert.NilError(t, os.MkdirAll(w.claim, 0o755))
	if size == 0 {
		return w
	}
	m, body := build(t, size, int(size))
	m[CheckpointPath] = w.note(body)
	if size < SegmentSize {
		delete(m, EdgePath) // as the store leaves it
	}
	for path, data := range m {
		w.put(w.log, path, data)
	}
	w.put(w.claim, claimPath, body.Text())
	for i := range size {
		w.acked[i] = entry(i)
	}
	return w
}

func (w *world) note(b checkpoint.Body) []byte {
	signed, err := w.signer.Sign(b)
	assert.NilError(w.t, err)
	return signed
}

func (w *world) put(dir, path string, data []byte) {
	assert.NilError(w.t, os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755))
	assert.NilError(w.t, os.WriteFile(filepath.Join(dir, path), data, 0o644))
}

func (w *world) get(dir, path string) []byte {
	data, err := os.ReadFile(filepath.Join(dir, path))
	assert.NilError(w.t, err)
	return data
}

func (w *world) remove(dir, path string) {
	assert.NilError(w.t, os.Remove(filepath.Join(dir, path)))
}

// open opens the store as a new process would.
func (w *world) open() error {
	w.close()
	durably := func(path string) *durable.Dir {
		d, err := durable.OpenDir(path)
		assert.NilError(w.t, err)
		d.Fault = func(op, name string) durable.Fault {
			if w.fault == nil {
				return durable.NoFault
			}
			return w.fault(op, name)
		}
		w.dirs = append(w.dirs, d)
		return d
	}
	files := durably(w.log)
	opts := DirOptions{}
	if w.claim != w.log {
		opts.Claim = durably(w.claim)
	}
	sign := func(b checkpoint.Body) ([]byte, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.signed = append(w.signed, b)
		// What is signed is remembered first: else a log restored from a backup
		// could be signed over.
		assert.DeepEqual(w.t, w.get(w.claim, claimPath), b.Text())
		return w.signer.Sign(b)
	}
	var err error
	w.dir, err = openDir(context.Background(), files, w.policy, origin, sign, opts)
	return err
}

func (w *world) close() {
	if w.dir != nil {
		w.dir.Close()
		w.dir = nil
	}
	for _, d := range w.dirs {
		assert.NilError(w.t, d.Close())
	}
	w.dirs = nil
}

// add commits the lines as one batch and remembers what was acknowledged.
func (w *world) add(lines ...[]byte) error {
	var waiters []*waiting
	for _, l := range lines {
		waiters = append(waiters, &waiting{lines: [][]byte{l}, done: make(chan struct{})})
	}
	w.dir.lead <- struct{}{}
	for _, x := range waiters {
		w.dir.queue <- x
	}
	w.dir.commit()
	<-w.dir.lead
	for _, x := range waiters {
		<-x.done
		if x.err != nil {
			assert.DeepEqual(w.t, x.at, Added{})
			continue
		}
		assert.Assert(w.t, bytes.Equal(x.at.Checkpoint, w.dir.signed))
		_, dup := w.acked[x.at.Index]
		assert.Assert(w.t, !dup, "index %d is acknowledged twice", x.at.Index)
		w.acked[x.at.Index] = x.lines[0]
	}
	if err := waiters[0].err; err != nil {
		return err
	}
	v, err := w.policy.Open(w.dir.signed)
	assert.NilError(w.t, err)
	assert.Equal(w.t, v.Body().Size, waiters[len(lines)-1].at.Index+1)
	return nil
}

// check re-verifies all of the log from disk.
func (w *world) check() {
	w.close()
	read := func(path string) ([]byte, error) { return os.ReadFile(filepath.Join(w.log, path)) }
	body := Empty(origin)
	if signed, err := read(CheckpointPath); !errors.Is(err, fs.ErrNotExist) {
		assert.NilError(w.t, err)
		v, err := w.policy.Open(signed)
		assert.NilError(w.t, err)
		body = v.Body()
	}
	leaves, err := Verify(read, body)
	assert.NilError(w.t, err)

	for index, line := range w.acked {
		if index >= body.Size || leaves[index] != RecordHash(line) {
			w.t.Fatalf("entry %d was acknowledged and is not in the log of size %d", index, body.Size)
		}
	}
	tree := NewTree(leaves)
	for _, b := range w.signed {
		root, err := tree.Root(b.Size)
		assert.NilError(w.t, err)
		assert.Equal(w.t, b.Root, root, "size %d was signed with another root", b.Size)
		assert.Equal(w.t, b.Origin, origin)
	}
}

var startSizes = []int64{0, 1, 254, 255, 256, 257, 258, 511, 512, 513}

var faults = map[string]durable.Fault{
	"not persisted":              durable.FailBefore,
	"persisted, reported failed": durable.FailAfter,
	"killed before":              durable.KillBefore,
	"killed after":               durable.KillAfter,
}

// Every write of an append goes wrong in every way. Then the entries are added
// again, and others, and the log is opened again.
func TestNoFaultLosesOrForks(t *testing.T) {
	for _, size := range startSizes {
		for _, batch := range []int{1, 257} { // 257 crosses a boundary from everywhere
			if batch > 1 && size%SegmentSize != 0 && size%SegmentSize != 255 {
				continue
			}
			for name, fault := range faults {
				t.Run(fmt.Sprintf("%d+%d %s", size, batch, name), func(t *testing.T) {
					t.Parallel()
					failed := map[string]bool{}
					for nth := 0; ; nth++ {
						hit := faultAt(t, size, batch, nth, fault)
						if hit == "" {
							break
						}
						failed[hit] = true
					}
					want := map[string]bool{claimPath: true, CheckpointPath: true}
					for n := size / SegmentSize; n <= (size+int64(batch)-1)/SegmentSize; n++ {
						want[SegmentPath(n)] = true
					}
					if (size+int64(batch))/SegmentSize > size/SegmentSize {
						want[EdgePath] = true
					}
					assert.DeepEqual(t, failed, want)
				})
			}
		}
	}
}

// faultAt makes the nth write of an append go wrong and returns its name, or ""
// when there were fewer.
func faultAt(t *testing.T, size int64, batch, nth int, fault durable.Fault) (hit string) {
	w := newWorld(t, t.TempDir(), size, batch > 1)
	assert.NilError(t, w.open())
	w.fault = func(op, name string) durable.Fault {
		if op != "put" {
			return durable.NoFault
		}
		if nth--; nth != -1 {
			return durable.NoFault
		}
		hit = name
		return fault
	}
	lines := entriesFrom(size, batch)
	err := w.add(lines...)
	w.fault = nil
	assert.Equal(t, err != nil, hit != "", "%v", err)
	switch {
	case fault == durable.KillBefore || fault == durable.KillAfter:
		if hit != "" {
			assert.ErrorIs(t, err, durable.ErrKilled)
			// The same process cannot go on by accident.
			assert.ErrorIs(t, w.add(entry(1)), durable.ErrKilled)
		}
		assert.NilError(t, w.open())
	case hit != "":
		assert.ErrorIs(t, err, durable.ErrInjected)
	}
	if hit != "" {
		assert.NilError(t, w.add(lines...))
	}
	assert.NilError(t, w.open())
	assert.NilError(t, w.add(entry(1_000_000), entry(1_000_001)))
	w.check()
	return hit
}

// Faults upon faults, in recovery too.
func TestHistoriesOfFaultsNeitherLoseNorFork(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		path := filepath.Join(root, fmt.Sprint(run))
		defer os.RemoveAll(path)
		w := newWorld(t, path, rapid.SampledFrom(startSizes).Draw(t, "size"), rapid.Bool().Draw(t, "separate"))
		defer func() { w.fault = nil; w.close() }()
		kinds := []durable.Fault{durable.NoFault, durable.NoFault, durable.NoFault, durable.FailBefore, durable.FailAfter, durable.KillBefore, durable.KillAfter}
		w.fault = func(op, name string) durable.Fault {
			if op != "put" {
				return durable.NoFault
			}
			return rapid.SampledFrom(kinds).Draw(t, "fault at "+name)
		}
		next := int64(2_000_000)
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			if w.dir == nil || rapid.Bool().Draw(t, "reopen") {
				if w.open() != nil {
					continue
				}
			}
			n := rapid.SampledFrom([]int{1, 1, 2, 255, 300}).Draw(t, "n")
			if errors.Is(w.add(entriesFrom(next, n)...), durable.ErrKilled) {
				w.close()
			}
			next += int64(n)
		}
		w.fault = nil
		assert.NilError(t, w.open())
		assert.NilError(t, w.add(entry(next)))
		w.check()
	})
}

func TestFailedReadsAndLocksAreRetried(t *testing.T) {
	w := newWorld(t, t.TempDir(), 258, true)
	for _, op := range []string{"get", "lock"} {
		for nth := 0; ; nth++ {
			count, hit := 0, false
			w.fault = func(o, name string) durable.Fault {
				if o != op {
					return durable.NoFault
				}
				if count++; count != nth+1 {
					return durable.NoFault
				}
				hit = true
				return durable.FailBefore
			}
			err := w.open()
			assert.Equal(t, err != nil, hit, "%s %d: %v", op, nth, err)
			if !hit {
				break
			}
			assert.ErrorIs(t, err, durable.ErrInjected)
		}
	}
	w.fault = nil
	assert.NilError(t, w.open())
	assert.NilError(t, w.add(entry(1)))
	w.check()
}

// tree lists every file of the log and the memory with its bytes.
func (w *world) tree() map[string]string {
	files := map[string]string{}
	for _, dir := range []string{w.log, w.claim} {
		assert.NilError(w.t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || e.Name() == durable.LockName {
				return err
			}
			files[path] = string(w.get("", path))
			return nil
		}))
	}
	return files
}

func TestLostOrRolledBackStateIsRefusedOrCompleted(t *testing.T) {
	body := func(size int64) checkpoint.Body { return newOracle(t, size).body(t, size) }
	// older puts back the log of a backup, not the memory.
	older := func(w *world, size int64) {
		assert.NilError(w.t, os.RemoveAll(w.log))
		assert.NilError(w.t, os.MkdirAll(w.log, 0o755))
		m, b := build(w.t, size, int(size))
		for path, data := range m {
			w.put(w.log, path, data)
		}
		w.put(w.log, CheckpointPath, w.note(b))
	}
	for _, c := range []struct {
		name   string
		size   int64
		change func(*world)
		want   string // the refusal; empty: completed to the size
	}{
		{"nothing", 260, func(*world) {}, ""},
		{
			"claim deleted", 5, func(w *world) { w.remove(w.claim, claimPath) },
			`ledger: the signer's memory (file "claim") is gone, but a checkpoint of size 5 is here: restore it, or write it anew if no later checkpoint was ever published`,
		},
		{"claim and checkpoint deleted", 5, func(w *world) { w.remove(w.claim, claimPath); w.remove(w.log, CheckpointPath) }, ""},
		{"checkpoint deleted", 5, func(w *world) { w.remove(w.log, CheckpointPath) }, ""},
		{
			"checkpoint deleted of a log with sealed segments", 260, func(w *world) { w.remove(w.log, CheckpointPath) },
			"edge covers 256 entries and leads the checkpoint",
		},
		{"checkpoint and edge deleted", 260, func(w *world) { w.remove(w.log, CheckpointPath); w.remove(w.log, EdgePath) }, ""},
		{"older checkpoint", 5, func(w *world) { w.put(w.log, CheckpointPath, w.note(body(3))) }, ""},
		{"older checkpoint in the last segment", 260, func(w *world) { w.put(w.log, CheckpointPath, w.note(body(257))) }, ""},
		{
			"older checkpoint than the edge", 260, func(w *world) { w.put(w.log, CheckpointPath, w.note(body(255))) },
			"edge covers 256 entries and leads the checkpoint",
		},
		{"edge deleted", 520, func(w *world) { w.remove(w.log, EdgePath) }, ""},
		{
			"all but the claim rolled back", 260, func(w *world) { older(w, 258) },
			fmt.Sprintf("the log ends at size 258, but the signer remembers size 260 root %x", [32]byte(body(260).Root)),
		},
		{
			"all but the claim rolled back by a segment", 260, func(w *world) { older(w, 200) },
			"the log ends at size 200, but the signer remembers size 260",
		},
		{"all but the claim deleted", 5, func(w *world) {
			assert.NilError(w.t, os.RemoveAll(w.log))
			assert.NilError(w.t, os.MkdirAll(w.log, 0o755))
		}, "the log ends at size 0, but the signer remembers size 5"},
		{
			"older claim", 5, func(w *world) { w.put(w.claim, claimPath, body(4).Text()) },
			"the log ends at size 5, but the signer remembers size 4",
		},
		{"claim of another root", 5, func(w *world) {
			b := body(5)
			b.Root[0] ^= 1
			w.put(w.claim, claimPath, b.Text())
		}, "the log ends at size 5, but the signer remembers size 5"},
		{"empty claim", 5, func(w *world) { w.put(w.claim, claimPath, nil) }, "ledger: the signer's memory: checkpoint has 0 lines"},
		{"claimed line changed before it was kept", 6, func(w *world) {
			w.put(w.log, CheckpointPath, w.note(body(5)))
			data := w.get(w.log, SegmentPath(0))
			data[len(data)-2] ^= 1
			w.put(w.log, SegmentPath(0), data)
		}, "the log ends at size 6, but the signer remembers size 6"},
		{"line beyond what is claimed above the checkpoint", 6, func(w *world) {
			w.put(w.log, CheckpointPath, w.note(body(5)))
			w.put(w.log, SegmentPath(0), append(w.get(w.log, SegmentPath(0)), "x\n"...))
		}, "the log ends at size 7, but the signer remembers size 6"},
		{"tail deleted", 260, func(w *world) { w.remove(w.log, SegmentPath(1)) }, "log/00/00/01.jsonl holds 0 entries, want 4"},
		{"edge of another log", 260, func(w *world) {
			var r Range
			for range SegmentSize {
				r.Append(checkpoint.Hash{})
			}
			w.put(w.log, EdgePath, r.format())
		}, "edge and open segment do not hash to the signed root"},
		{"checkpoint of another key", 5, func(w *world) {
			signed, err := signerOf(w.t, origin, 2).Sign(body(5))
			assert.NilError(w.t, err)
			w.put(w.log, CheckpointPath, signed)
		}, "want a key of the policy"},
		{"torn checkpoint", 5, func(w *world) { w.put(w.log, CheckpointPath, w.note(body(5))[:40]) }, "malformed note"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, t.TempDir(), c.size, true)
			c.change(w)
			before := w.tree()
			err := w.open()
			defer w.close()
			if c.want != "" {
				assert.ErrorContains(t, err, c.want)
				assert.Equal(t, len(w.signed), 0)
				assert.DeepEqual(t, w.tree(), before)
				return
			}
			assert.NilError(t, err)
			// Exactly the lines there were, under exactly the old signature.
			head, err := w.dir.Head()
			assert.NilError(t, err)
			assert.DeepEqual(t, head, w.note(body(c.size)))
			assert.DeepEqual(t, w.get(w.log, CheckpointPath), head)
			assert.DeepEqual(t, w.get(w.claim, claimPath), body(c.size).Text())
			assert.NilError(t, w.add(entry(c.size)))
			w.check()
		})
	}
}

// Lines whose signature was never asked for are completed too, as they are.
func TestUnsignedLinesAreCompletedBeforeOthers(t *testing.T) {
	w := newWorld(t, t.TempDir(), 5, false)
	w.put(w.log, SegmentPath(0), formatSegment(entriesFrom(0, 7)))
	assert.NilError(t, w.open())
	assert.NilError(t, w.add(entry(100)))
	assert.DeepEqual(t, w.acked[7], entry(100))
	w.check()
	o := newOracle(t, 7)
	assert.Equal(t, w.signed[0], o.body(t, 7))
	assert.Equal(t, len(w.signed), 2)
}

func TestFlippedMemoryOrCheckpointIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir(), 3, false)
	for _, path := range []string{claimPath, CheckpointPath} {
		data := w.get(w.log, path)
		for i := range data {
			flipped := bytes.Clone(data)
			flipped[i] ^= 1
			w.put(w.log, path, flipped)
			assert.Assert(t, w.open() != nil, "%s: byte %d", path, i)
		}
		w.put(w.log, path, data)
	}
	assert.Equal(t, len(w.signed), 0)
	assert.NilError(t, w.open())
	w.check()
}

func TestOpenDirRefusesAPolicyItCannotSatisfy(t *testing.T) {
	files, err := durable.OpenDir(t.TempDir())
	assert.NilError(t, err)
	defer files.Close()
	signer, own := keys(t)
	other := signerOf(t, "example.com/other", 3)

	theirs, err := checkpoint.ParsePolicy(checkpoint.NewPolicy(other.VerifierKey()))
	assert.NilError(t, err)
	_, err = OpenDir(context.Background(), files, theirs, signer, DirOptions{})
	assert.ErrorContains(t, err, "ledger: the policy would not accept what the key "+signer.VerifierKey()+" alone signs: checkpoint: signed by")

	c, err := checkpoint.NewCosigner("witness", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	assert.NilError(t, err)
	witnessed, err := checkpoint.ParsePolicy([]byte("log " + signer.VerifierKey() + "\nwitness w " + c.VerifierKey() + "\nquorum w\n"))
	assert.NilError(t, err)
	_, err = OpenDir(context.Background(), files, witnessed, signer, DirOptions{})
	assert.ErrorContains(t, err, `lacks the policy's quorum "w"`)

	// A log of another key of the policy.
	both, err := checkpoint.ParsePolicy([]byte("log " + signer.VerifierKey() + "\nlog " + other.VerifierKey() + "\nquorum none\n"))
	assert.NilError(t, err)
	signed, err := other.Sign(Empty(other.Origin()))
	assert.NilError(t, err)
	assert.NilError(t, files.Put(CheckpointPath, signed))
	_, err = OpenDir(context.Background(), files, both, signer, DirOptions{})
	assert.Error(t, err, "ledger: checkpoint is of example.com/other, but the key signs for "+origin)
	assert.NilError(t, files.Remove(CheckpointPath))

	// Each refusal has given the lock back.
	d, err := OpenDir(context.Background(), files, own, signer, DirOptions{})
	assert.NilError(t, err)
	head, err := d.Head()
	assert.NilError(t, err)
	assert.Assert(t, head == nil)
	d.Close()
}

func TestManyWritersGetTheirOwnIndex(t *testing.T) {
	w := newWorld(t, t.TempDir(), 250, false)
	assert.NilError(t, w.open())
	const writers, each = 64, 8
	var wg sync.WaitGroup
	results := make([]Added, writers*each)
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				n := i*each + j
				at, err := w.dir.Add(context.Background(), entry(int64(1000+n)))
				if err != nil {
					t.Error(err)
					return
				}
				results[n] = at
				// The acknowledged checkpoint is on disk, or a later one is.
				head, err := w.dir.Head()
				if err != nil {
					t.Error(err)
					return
				}
				acked, err1 := w.policy.Open(at.Checkpoint)
				now, err2 := w.policy.Open(head)
				if err1 != nil || err2 != nil || acked.Body().Size <= at.Index || now.Body().Size < acked.Body().Size {
					t.Errorf("entry %d: acknowledged under size %d, head is %d", at.Index, acked.Body().Size, now.Body().Size)
				}
			}
		})
	}
	wg.Wait()
	for n, at := range results {
		_, dup := w.acked[at.Index]
		assert.Assert(t, !dup, "index %d twice", at.Index)
		w.acked[at.Index] = entry(int64(1000 + n))
	}
	assert.Equal(t, len(w.acked), 250+writers*each)
	assert.Assert(t, len(w.signed) < writers*each, "no commit was shared")
	w.check()
}

// A writer serves others only until its own entry is in.
func TestAddReturnsWhileOthersGoOnAdding(t *testing.T) {
	w := newWorld(t, t.TempDir(), 0, false)
	assert.NilError(t, w.open())
	commits := 0
	w.fault = func(op, name string) durable.Fault {
		if op == "put" && name == CheckpointPath && commits < 50 {
			commits++
			w.dir.queue <- &waiting{lines: [][]byte{entry(int64(commits))}, done: make(chan struct{})}
		}
		return durable.NoFault
	}
	_, err := w.dir.Add(context.Background(), entry(0))
	assert.NilError(t, err)
	assert.Equal(t, commits, 1)
}

func TestAddGivesUpOnlyBeforeItsEntryIsQueued(t *testing.T) {
	w := newWorld(t, t.TempDir(), 0, false)
	assert.NilError(t, w.open())
	_, err := w.dir.Add(context.Background(), []byte("a\nb"))
	assert.Error(t, err, "ledger: entry holds a newline")

	w.dir.lead <- struct{}{} // somebody commits
	for range cap(w.dir.queue) {
		w.dir.queue <- &waiting{lines: [][]byte{entry(1)}, done: make(chan struct{})}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = w.dir.Add(ctx, entry(2))
	assert.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, len(w.dir.queue), cap(w.dir.queue))
	w.dir.commit()
	<-w.dir.lead

	at, err := w.dir.Add(context.Background(), entry(3))
	assert.NilError(t, err)
	assert.Equal(t, at.Index, int64(cap(w.dir.queue)))
	w.check()
}

func TestSecondWriterWaitsForTheLock(t *testing.T) {
	w := newWorld(t, t.TempDir(), 3, false)
	assert.NilError(t, w.open())
	second, err := durable.OpenDir(w.log)
	assert.NilError(t, err)
	defer second.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	_, err = OpenDir(ctx, second, w.policy, w.signer, DirOptions{})
	assert.ErrorIs(t, err, context.DeadlineExceeded)

	time.AfterFunc(20*time.Millisecond, w.dir.Close)
	d, err := OpenDir(context.Background(), second, w.policy, w.signer, DirOptions{})
	assert.NilError(t, err)
	d.Close()
	w.dir = nil
	w.close()
}

func TestAdoptVerifiesAllOfALog(t *testing.T) {
	w := newWorld(t, t.TempDir(), 300, true)
	files, err := durable.OpenDir(w.log)
	assert.NilError(t, err)
	defer files.Close()
	claim, err := durable.OpenDir(w.claim)
	assert.NilError(t, err)
	defer claim.Close()

	assert.Error(t, Adopt(files, claim, w.policy), `ledger: file "claim" is there already`)
	want := w.get(w.claim, claimPath)
	w.remove(w.claim, claimPath)
	good := w.get(w.log, SegmentPath(0))
	bad := slices.Clone(good)
	bad[3] ^= 1
	w.put(w.log, SegmentPath(0), bad)
	var tampered *TamperError
	assert.Assert(t, errors.As(Adopt(files, claim, w.policy), &tampered))
	_, err = claim.Get(claimPath)
	assert.ErrorIs(t, err, fs.ErrNotExist)

	w.put(w.log, SegmentPath(0), good)
	assert.NilError(t, Adopt(files, claim, w.policy))
	assert.DeepEqual(t, w.get(w.claim, claimPath), want)
	assert.NilError(t, w.open())
	assert.NilError(t, w.add(entry(300)))
	w.check()

	w.remove(w.claim, claimPath)
	w.remove(w.log, CheckpointPath)
	assert.ErrorIs(t, Adopt(files, claim, w.policy), fs.ErrNotExist)
}

func TestEntriesAddedTogetherLandTogetherAndAreToldOfInOrder(t *testing.T) {
	t.Parallel()
	signer, policy := keys(t)
	files, err := durable.OpenDir(t.TempDir())
	assert.NilError(t, err)
	defer files.Close()
	type call struct {
		first  int64
		n      int
		signed string
	}
	var told []call
	var lines [][]byte
	d, err := OpenDir(t.Context(), files, policy, signer, DirOptions{Landed: func(first int64, l [][]byte, signed []byte) {
		told = append(told, call{first, len(l), string(signed)})
		lines = append(lines, l...)
	}})
	assert.NilError(t, err)
	defer d.Close()
	var want [][]byte
	for i := range int64(600) {
		want = append(want, entry(i))
	}
	a, err := d.AddAll(t.Context(), want[:300])
	assert.NilError(t, err)
	assert.Equal(t, a.Index, int64(0))
	b, err := d.AddAll(t.Context(), want[300:])
	assert.NilError(t, err)
	assert.Equal(t, b.Index, int64(300))
	assert.Assert(t, slices.Equal(told, []call{{0, 300, string(a.Checkpoint)}, {300, 300, string(b.Checkpoint)}}))
	assert.DeepEqual(t, lines, want)
	_, err = d.AddAll(t.Context(), nil)
	assert.Error(t, err, "ledger: nothing to add")
	_, err = d.AddAll(t.Context(), [][]byte{want[0], []byte("two\nlines")})
	assert.ErrorContains(t, err, "entry")
}

func TestATreeGrowsIntoTheOneThatIsBuilt(t *testing.T) {
	t.Parallel()
	grown := NewTree(nil)
	var leaves []checkpoint.Hash
	for i := range int64(130) {
		leaf := RecordHash(entry(i))
		leaves = append(leaves, leaf)
		grown.Append(leaf)
		built := NewTree(slices.Clone(leaves))
		assert.DeepEqual(t, grown.levels, built.levels)
	}
	assert.DeepEqual(t, grown.Hashes(0, 5, 3), leaves[5:8])
	assert.Assert(t, grown.Hashes(1, 60, 5) != nil)
	for _, none := range [][3]int64{{1, 61, 5}, {-1, 0, 1}, {9, 0, 1}, {0, -1, 1}, {0, 0, -1}, {0, 131, 0}} {
		assert.Assert(t, grown.Hashes(int(none[0]), none[1], none[2]) == nil, none)
	}
}
