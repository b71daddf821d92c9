package bench

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/tessera/api"
	"golang.org/x/mod/sumdb/note"
	"gotest.tools/v3/assert"
	"k8s.io/klog/v2"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
)

const origin = "bench.example/log"

// entry is a line of the size of a small signed receipt, about 400 bytes.
func entry(i int64) []byte {
	digest := sha256.Sum256(fmt.Append(nil, i))
	return fmt.Appendf(nil, `{"payload":"%x","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"%x","sig":"%s"}],"index":%d}`,
		digest, digest[:20], strings.Repeat(base64.StdEncoding.EncodeToString(digest[:24]), 5), i)
}

// logFiles is a log in a directory, as a repository has it.
type logFiles struct {
	dir      string
	signer   *checkpoint.Signer
	skey     string
	policy   *checkpoint.Policy
	verified checkpoint.Verified
}

func (l *logFiles) read(path string) ([]byte, error) {
	return os.ReadFile(filepath.Join(l.dir, path))
}

func writeFile(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o644)
}

// signingKey spells a key out, because a generator need not heed its source.
func signingKey(t testing.TB, name string, key ed25519.PrivateKey) string {
	t.Helper()
	vkey, err := note.NewEd25519VerifierKey(name, key.Public().(ed25519.PublicKey))
	assert.NilError(t, err)
	return fmt.Sprintf("PRIVATE+KEY+%s+%s+%s", name, strings.Split(vkey, "+")[1],
		base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...)))
}

func logKey(t testing.TB) string {
	t.Helper()
	return signingKey(t, origin, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
}

// newLog makes a log of the size, in batches and without syncing.
func newLog(t testing.TB, dir string, size int64) *logFiles {
	t.Helper()
	l := &logFiles{dir: dir, skey: logKey(t)}
	var err error
	l.signer, err = checkpoint.NewSigner(l.skey)
	assert.NilError(t, err)
	l.policy, err = checkpoint.ParsePolicy(checkpoint.NewPolicy(l.signer.VerifierKey()))
	assert.NilError(t, err)

	s, _, err := ledger.Load(l.read, ledger.Empty(origin))
	assert.NilError(t, err)
	for at := int64(0); at < size; {
		var lines [][]byte
		for ; at < size && len(lines) < 64*ledger.SegmentSize; at++ {
			lines = append(lines, entry(at))
		}
		u, err := s.Append(lines...)
		assert.NilError(t, err)
		signed, err := l.signer.Sign(u.State.Body())
		assert.NilError(t, err)
		for _, f := range u.Files(signed) {
			assert.NilError(t, writeFile(filepath.Join(dir, f.Path), f.Data))
		}
		s = u.State
	}
	l.verified, err = l.open()
	assert.NilError(t, err)
	assert.Equal(t, l.verified.Body().Size, size)
	return l
}

func (l *logFiles) open() (checkpoint.Verified, error) {
	signed, err := l.read(ledger.CheckpointPath)
	if err != nil {
		return checkpoint.Verified{}, err
	}
	return l.policy.Open(signed)
}

// tesseraLog makes the same log for Tessera's POSIX driver: our tiles and its
// own state file.
func tesseraLog(t testing.TB, dir string, l *logFiles) {
	t.Helper()
	assert.NilError(t, ledger.WriteTiles(l.read, l.verified, func(path string, data []byte) error {
		return writeFile(filepath.Join(dir, path), data)
	}))
	body := l.verified.Body()
	state, err := json.Marshal(map[string]any{"size": body.Size, "root": body.Root[:]})
	assert.NilError(t, err)
	assert.NilError(t, writeFile(filepath.Join(dir, ".state", "treeState"), state))
}

// leafHashes is the hashing that Tessera's own fsck command passes to fsck.
func leafHashes(bundle []byte) ([][]byte, error) {
	var eb api.EntryBundle
	if err := eb.UnmarshalText(bundle); err != nil {
		return nil, err
	}
	hashes := make([][]byte, 0, len(eb.Entries))
	for _, e := range eb.Entries {
		h := ledger.RecordHash(e)
		hashes = append(hashes, h[:])
	}
	return hashes, nil
}

func silenceTessera(w io.Writer) {
	klog.LogToStderr(false)
	klog.SetOutput(w)
}

// duel runs two contestants in turn, so that a busy machine burdens both alike,
// and keeps every time.
type duel struct{ ours, theirs times }

func (d *duel) round(ours, theirs func()) {
	if len(d.ours)%2 == 0 { // neither always goes first
		d.ours.add(ours)
		d.theirs.add(theirs)
	} else {
		d.theirs.add(theirs)
		d.ours.add(ours)
	}
}

type times []time.Duration

func (t *times) add(run func()) {
	start := time.Now()
	run()
	*t = append(*t, time.Since(start))
}

// best is for work that only the machine's other business can slow down.
func (t times) best() float64 { return slices.Min(t).Seconds() }

// median is for work that waits for a disk.
func (t times) median() float64 {
	sorted := slices.Sorted(slices.Values(t))
	return sorted[len(sorted)/2].Seconds()
}
