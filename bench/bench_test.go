package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
)

// largeSize is the size of a large log: 1e6, or REMEMBRANCER_BENCH_N.
func largeSize(b *testing.B) int64 {
	text := os.Getenv("REMEMBRANCER_BENCH_N")
	if text == "" {
		return 1_000_000
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1000 {
		b.Fatalf("REMEMBRANCER_BENCH_N is %q, want a number of entries of at least 1000", text)
	}
	return n
}

// checkpointed is a log on which the one-shot append of a CI run is measured.
type checkpointed struct {
	*logFiles
	files *durable.Dir
	work  times
}

// append does what one CI run does: read and verify the head of the log, add an
// entry, sign, and put every changed file durably. It notes the time of all but
// the last.
func (c *checkpointed) append(b *testing.B, line []byte) {
	var files []ledger.File
	c.work.add(func() {
		reads := 0
		read := func(path string) ([]byte, error) {
			reads++
			return c.read(path)
		}
		signed, err := read(ledger.CheckpointPath)
		assert.NilError(b, err)
		v, err := c.policy.Open(signed)
		assert.NilError(b, err)
		s, above, err := ledger.Load(read, v.Body())
		assert.NilError(b, err)
		assert.Equal(b, len(above), 0)
		assert.Equal(b, reads, 3, "checkpoint, edge and open segment")
		u, err := s.Append(line)
		assert.NilError(b, err)
		assert.NilError(b, checkpoint.CheckConsistency(v.Body(), u.State.Body(), u.Consistency))
		signed, err = c.signer.Sign(u.State.Body())
		assert.NilError(b, err)
		files = u.Files(signed)
	})
	for _, f := range files {
		assert.NilError(b, c.files.Put(f.Path, f.Data))
	}
}

func tesseraOptions(b *testing.B, skey string, batch uint, age time.Duration) *tessera.AppendOptions {
	s, err := note.NewSigner(skey)
	assert.NilError(b, err)
	return tessera.NewAppendOptions().
		WithCheckpointSigner(s).
		WithCheckpointInterval(100*time.Millisecond).
		WithBatching(batch, age)
}

// tesseraAppend is the same with Tessera: open, add, await publication, close.
// The checkpoint is made old, as one that is checked out never is: a young one
// would be waited for.
func tesseraAppend(b *testing.B, dir, skey string, line []byte) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	driver, err := posix.New(ctx, posix.Config{Path: dir})
	assert.NilError(b, err)
	a, shutdown, r, err := tessera.NewAppender(ctx, driver, tesseraOptions(b, skey, 1, time.Millisecond))
	assert.NilError(b, err)
	awaiter := tessera.NewPublicationAwaiter(ctx, r.ReadCheckpoint, 200*time.Microsecond)
	_, _, err = awaiter.Await(ctx, a.Add(ctx, tessera.NewEntry(line)))
	assert.NilError(b, err)
	assert.NilError(b, shutdown(ctx))
}

func makeOld(b *testing.B, dir string) {
	old := time.Now().Add(-time.Hour)
	assert.NilError(b, os.Chtimes(filepath.Join(dir, ledger.CheckpointPath), old, old))
}

// BenchmarkAppend appends one entry and publishes its checkpoint, in a small and
// in a large log whose open segments are equally full.
func BenchmarkAppend(b *testing.B) {
	const small = 1000
	large := largeSize(b)
	large += small%ledger.SegmentSize - large%ledger.SegmentSize
	sizes := []int64{small, large}
	var (
		logs   []*checkpointed
		theirs []string
		duels  = make([]duel, len(sizes))
	)
	for _, size := range sizes {
		dir := b.TempDir()
		files, err := durable.OpenDir(dir)
		assert.NilError(b, err)
		defer files.Close()
		logs = append(logs, &checkpointed{logFiles: newLog(b, dir, size), files: files})
		theirs = append(theirs, b.TempDir())
		tesseraLog(b, theirs[len(theirs)-1], logs[len(logs)-1].logFiles)
	}
	line := entry(1 << 40)
	for b.Loop() {
		for range 40 {
			for i := range sizes {
				makeOld(b, theirs[i])
				duels[i].round(
					func() { logs[i].append(b, line) },
					func() { tesseraAppend(b, theirs[i], logs[i].skey, line) })
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, name := range []string{"small", "large"} {
		b.ReportMetric(duels[i].ours.median()*1e3, name+"-ms")
		b.ReportMetric(duels[i].theirs.median()*1e3, name+"-tessera-ms")
		b.ReportMetric(duels[i].theirs.median()/duels[i].ours.median(), name+"-ratio")
	}
	b.ReportMetric(duels[1].ours.median()/duels[0].ours.median(), "large/small")
	b.ReportMetric(logs[1].work.best()/logs[0].work.best(), "work-large/small")
}

// BenchmarkStore adds entries from 64 writers, each of which waits until its
// entry is durable. Ours is then under a signed checkpoint as well; Tessera's is
// integrated, and its checkpoint follows.
func BenchmarkStore(b *testing.B) {
	const writers, each = 64, 64
	skey := logKey(b)
	signer, err := checkpoint.NewSigner(skey)
	assert.NilError(b, err)
	policy, err := checkpoint.ParsePolicy(checkpoint.NewPolicy(signer.VerifierKey()))
	assert.NilError(b, err)

	everyone := func(add func(line []byte) error) {
		var wg sync.WaitGroup
		var failed atomic.Int64
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					if add(entry(int64(w*each+i))) != nil {
						failed.Add(1)
					}
				}
			})
		}
		wg.Wait()
		assert.Equal(b, failed.Load(), int64(0))
	}
	for _, c := range []struct {
		name  string
		batch uint
		age   time.Duration
	}{
		// The age at which a batch that does not fill is written: near its best here.
		{"batch=256", 256, 5 * time.Millisecond},
		// Its best for 64 writers: a batch is full as soon as all of them wait.
		{"batch=64", writers, 20 * time.Millisecond},
	} {
		b.Run(c.name, func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			files, err := durable.OpenDir(b.TempDir())
			assert.NilError(b, err)
			defer files.Close()
			ours, err := ledger.OpenDir(ctx, files, policy, signer, ledger.DirOptions{})
			assert.NilError(b, err)
			defer ours.Close()
			driver, err := posix.New(ctx, posix.Config{Path: b.TempDir()})
			assert.NilError(b, err)
			theirs, shutdown, _, err := tessera.NewAppender(ctx, driver, tesseraOptions(b, skey, c.batch, c.age))
			assert.NilError(b, err)
			defer func() { assert.NilError(b, shutdown(ctx)) }()

			var d duel
			for b.Loop() {
				for range 5 {
					d.round(
						func() {
							everyone(func(line []byte) error { _, err := ours.Add(ctx, line); return err })
						},
						func() {
							everyone(func(line []byte) error { _, err := theirs.Add(ctx, tessera.NewEntry(line))(); return err })
						})
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(writers*each/d.ours.best(), "entries/s")
			b.ReportMetric(writers*each/d.theirs.best(), "tessera-entries/s")
			b.ReportMetric(d.theirs.best()/d.ours.best(), "ratio")
		})
	}
}

// BenchmarkVerify re-hashes all of a large log: ours from its segments, Tessera's
// fsck from the tiles, which it compares as well.
func BenchmarkVerify(b *testing.B) {
	n := largeSize(b)
	l := newLog(b, b.TempDir(), n)
	tiles := tileDir(b, l)
	verifier, err := note.NewVerifier(l.signer.VerifierKey())
	assert.NilError(b, err)
	var d duel
	for b.Loop() {
		for range 5 {
			d.round(
				func() {
					v, err := l.open()
					assert.NilError(b, err)
					_, err = ledger.Verify(l.read, v.Body())
					assert.NilError(b, err)
				},
				func() {
					f := fsck.New(origin, verifier, client.FileFetcher{Root: tiles}, leafHashes, fsck.Opts{N: uint(runtime.GOMAXPROCS(0))})
					assert.NilError(b, f.Check(b.Context()))
				})
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(d.ours.best()*1e9/float64(n), "ns/entry")
	b.ReportMetric(d.theirs.best()*1e9/float64(n), "fsck-ns/entry")
	b.ReportMetric(d.theirs.best()/d.ours.best(), "ratio")
}

// BenchmarkRoot computes the tree hash over leaf hashes: ours, and by storing
// every hash as golang.org/x/mod/sumdb/tlog does.
func BenchmarkRoot(b *testing.B) {
	n := largeSize(b)
	leaves := make([]tlog.Hash, n)
	for i := range leaves {
		leaves[i] = ledger.RecordHash(fmt.Append(nil, i))
	}
	var d duel
	for b.Loop() {
		for range 5 {
			var got, want tlog.Hash
			d.round(
				func() { got = ledger.Root(leaves) },
				func() {
					stored := make([]tlog.Hash, 0, 2*n)
					reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
						hashes := make([]tlog.Hash, len(indexes))
						for i, x := range indexes {
							hashes[i] = stored[x]
						}
						return hashes, nil
					})
					for i, h := range leaves {
						hashes, err := tlog.StoredHashesForRecordHash(int64(i), h, reader)
						assert.NilError(b, err)
						stored = append(stored, hashes...)
					}
					var err error
					want, err = tlog.TreeHash(n, reader)
					assert.NilError(b, err)
				})
			assert.Equal(b, got, want)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(d.ours.best()*1e9/float64(n), "ns/leaf")
	b.ReportMetric(d.theirs.best()*1e9/float64(n), "tlog-ns/leaf")
	b.ReportMetric(d.theirs.best()/d.ours.best(), "ratio")

	perLeaf, err := ancestorRoot(n / 10)
	if err != nil {
		b.Logf("the ancestor's rule was not measured: %v", err)
		return
	}
	b.ReportMetric(perLeaf, "ancestor-ns/leaf")
	b.ReportMetric(perLeaf*float64(n)/(d.ours.best()*1e9), "ancestor-ratio")
}

// ancestor is the tree of the ancestor's Python: the parent is the hash of the
// joined hexadecimal strings, and an odd level repeats its last. It prints the
// best of three in nanoseconds a leaf.
const ancestor = `
import hashlib, sys, time
n = int(sys.argv[1])
leaves = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]
best = None
for _ in range(3):
    start, level = time.perf_counter_ns(), leaves
    while len(level) > 1:
        if len(level) % 2:
            level = level + [level[-1]]
        level = [hashlib.sha256((level[i] + level[i + 1]).encode()).hexdigest() for i in range(0, len(level), 2)]
    took = time.perf_counter_ns() - start
    best = took if best is None else min(best, took)
print(best / n)
`

func ancestorRoot(n int64) (nsPerLeaf float64, err error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(python, "-c", ancestor, fmt.Sprint(n))
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w", python, err)
	}
	return strconv.ParseFloat(strings.TrimSpace(out.String()), 64)
}
