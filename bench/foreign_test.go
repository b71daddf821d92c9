package bench

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/torchwood"
	fnote "github.com/transparency-dev/formats/note"
	fproof "github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
)

// tileDir writes the tiles of a log for a reader of files.
func tileDir(t testing.TB, l *logFiles) string {
	t.Helper()
	dir := t.TempDir()
	assert.NilError(t, ledger.WriteTiles(l.read, l.verified, func(path string, data []byte) error {
		return writeFile(filepath.Join(dir, path), data)
	}))
	return dir
}

func runFsck(dir string, l *logFiles) error {
	v, err := note.NewVerifier(l.signer.VerifierKey())
	if err != nil {
		return err
	}
	// Room for every resource of a small log: a check that fails stops reading
	// them, and would wait for itself otherwise.
	return fsck.New(origin, v, client.FileFetcher{Root: dir}, leafHashes, fsck.Opts{N: 16}).Check(context.Background())
}

func TestTesseraAcceptsOurTiles(t *testing.T) {
	for _, size := range []int64{1, 255, 256, 257, 1000, 70_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			l := newLog(t, t.TempDir(), size)
			assert.NilError(t, runFsck(tileDir(t, l), l))
		})
	}
}

func TestTesseraRefusesAChangedByte(t *testing.T) {
	l := newLog(t, t.TempDir(), 1000)
	dir := tileDir(t, l)
	for _, path := range []string{"checkpoint", "tile/0/000", "tile/0/003.p/232", "tile/1/000.p/3", "tile/entries/000", "tile/entries/003.p/232"} {
		name := filepath.Join(dir, path)
		good, err := os.ReadFile(name)
		assert.NilError(t, err)
		bad := bytes.Clone(good)
		bad[len(bad)/2] ^= 1
		assert.NilError(t, os.WriteFile(name, bad, 0o644))
		assert.Assert(t, runFsck(dir, l) != nil, path)
		assert.NilError(t, os.WriteFile(name, good, 0o644))
	}
	assert.NilError(t, runFsck(dir, l))
}

// witnessKey is one key as the three implementations know it.
func witnessKey(t *testing.T, name string, seed byte) (ours *checkpoint.Cosigner, wood *torchwood.CosignatureSigner, formats *fnote.Signer) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	ours, err := checkpoint.NewCosigner(name, key)
	assert.NilError(t, err)
	wood, err = torchwood.NewCosignatureSigner(name, key)
	assert.NilError(t, err)
	assert.Equal(t, ours.VerifierKey(), wood.Verifier().String())

	formats, err = fnote.NewSignerForCosignatureV1(signingKey(t, name, key))
	assert.NilError(t, err)
	return ours, wood, formats
}

func cosignWith(t *testing.T, msg []byte, known note.Verifiers, s note.Signer) []byte {
	t.Helper()
	n, err := note.Open(msg, known)
	assert.NilError(t, err)
	out, err := note.Sign(n, s)
	assert.NilError(t, err)
	return out
}

// Three witnesses, each speaking through another implementation, and a policy
// that needs all of them: ours opens it, and so does torchwood.
func TestCosignaturesAreEveryonesCosignatures(t *testing.T) {
	l := newLog(t, t.TempDir(), 300)
	a, aWood, aFormats := witnessKey(t, "witness.example/a", 1)
	b, bWood, _ := witnessKey(t, "witness.example/b", 2)
	c, _, cFormats := witnessKey(t, "witness.example/c", 3)
	text := fmt.Sprintf("log %s\nwitness a %s\nwitness b %s https://b.example\nwitness c %s\ngroup ab all a b\ngroup top all ab c\nquorum top\n",
		l.signer.VerifierKey(), a.VerifierKey(), b.VerifierKey(), c.VerifierKey())
	ours, err := checkpoint.ParsePolicy([]byte(text))
	assert.NilError(t, err)
	theirs, err := torchwood.ParsePolicy([]byte(text))
	assert.NilError(t, err)

	logOnly, err := note.NewVerifier(l.signer.VerifierKey())
	assert.NilError(t, err)
	msg := a.Cosign(l.verified, time.Now())
	for _, s := range []note.Signer{bWood, cFormats} {
		_, err = ours.Open(msg)
		assert.ErrorContains(t, err, `lacks the policy's quorum "top"`)
		_, _, err := torchwood.VerifyCheckpoint(msg, theirs)
		var unverified *note.UnverifiedNoteError
		assert.Assert(t, errors.As(err, &unverified), "%v", err)
		msg = cosignWith(t, msg, note.VerifierList(logOnly), s)
	}
	v, err := ours.Open(msg)
	assert.NilError(t, err)
	assert.DeepEqual(t, v.Witnesses(), []string{"a", "b", "c"})
	cp, _, err := torchwood.VerifyCheckpoint(msg, theirs)
	assert.NilError(t, err)
	assert.Equal(t, cp, torchwood.Checkpoint{Origin: origin, Tree: tlog.Tree{N: v.Body().Size, Hash: v.Body().Root}})
	assert.Equal(t, cp.String(), string(v.Body().Text()))

	// Their verifiers of one key accept our signature.
	for _, key := range []note.Verifier{aWood.Verifier(), aFormats.Verifier()} {
		n, err := note.Open(a.Cosign(l.verified, time.Unix(1_700_000_000, 0)), note.VerifierList(key))
		assert.NilError(t, err)
		at, err := torchwood.CosignatureTimestamp(n.Sigs[0])
		assert.NilError(t, err)
		assert.Equal(t, at, int64(1_700_000_000))
	}

	// Whatever bit is flipped, nobody opens it.
	for i := range msg {
		flipped := bytes.Clone(msg)
		flipped[i] ^= 1 << (i % 8)
		_, err := ours.Open(flipped)
		assert.Assert(t, err != nil, "byte %d", i)
	}
}

func TestProofFilesAreEveryonesProofFiles(t *testing.T) {
	l := newLog(t, t.TempDir(), 300)
	leaves, err := ledger.Verify(l.read, l.verified.Body())
	assert.NilError(t, err)
	tree := ledger.NewTree(leaves)
	policy, err := torchwood.ParsePolicy(checkpoint.NewPolicy(l.signer.VerifierKey()))
	assert.NilError(t, err)
	for _, index := range []int64{0, 1, 255, 256, 299} {
		hashes, err := tree.Inclusion(300, index)
		assert.NilError(t, err)
		for _, extra := range [][]byte{nil, {}, []byte("application data")} {
			p := checkpoint.Proof{Extra: extra, Index: index, Hashes: hashes, Checkpoint: l.verified.Note()}
			file := p.Marshal()
			assert.NilError(t, torchwood.VerifyProof(policy, leaves[index], file))
			var wrong *torchwood.VerifyRecordError
			assert.Assert(t, errors.As(torchwood.VerifyProof(policy, leaves[(index+1)%300], file), &wrong))

			var theirs fproof.TLogProof
			assert.NilError(t, theirs.Unmarshal(file))
			assert.Equal(t, theirs.Index, uint64(index))
			assert.DeepEqual(t, theirs.Checkpoint, p.Checkpoint)
			assert.DeepEqual(t, theirs.Marshal(), file)

			formatted := torchwood.FormatProof(index, tlog.RecordProof(hashes), l.verified.Note())
			if extra != nil {
				formatted = torchwood.FormatProofWithExtraData(index, extra, tlog.RecordProof(hashes), l.verified.Note())
			}
			for _, data := range [][]byte{formatted, theirs.Marshal()} {
				got, err := checkpoint.ParseProof(data)
				assert.NilError(t, err)
				assert.DeepEqual(t, got, p)
				assert.NilError(t, got.CheckInclusion(l.verified, entry(index)))
			}
		}
	}
}

func TestMain(m *testing.M) {
	silenceTessera(io.Discard)
	os.Exit(m.Run())
}
