package node_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// fill adds n receipts of one more issuer to a store, in a few commits.
func fill(t testing.TB, to *federate.Store, n int) {
	t.Helper()
	secret, key, err := openpgp.Generate("filler", "", time.Now().Add(-time.Hour), rand.Reader)
	assert.NilError(t, err)
	signer, err := openpgp.FromArmored(secret, nil, time.Now)
	assert.NilError(t, err)
	trust, err := to.Trust().With(merge.Member{Node: "filler", Key: key})
	assert.NilError(t, err)
	assert.NilError(t, to.SetTrust(t.Context(), trust))
	for n > 0 {
		var items []merge.Item
		for range min(n, federate.MaxGet) {
			n--
			r, err := receipt.New(receipt.Statement{
				Kind: receipt.Discovery, Issuer: signer.Fingerprint(), Issued: time.Now(),
				Subjects: []receipt.Subject{{Name: "x", SHA256: someDigest}}, Predicate: anyMap{"title": fmt.Sprint("d", n)},
			})
			assert.NilError(t, err)
			sig, err := receipt.Sign(t.Context(), r, signer)
			assert.NilError(t, err)
			e, err := receipt.NewEntry(r, sig)
			assert.NilError(t, err)
			items = append(items, merge.Item{Line: string(e.Line())})
		}
		added, err := to.Add(t.Context(), "test", items)
		assert.NilError(t, err)
		assert.Equal(t, added.Added, len(items))
	}
}

func verified(t testing.TB, s *federate.Store, note []byte) checkpoint.Verified {
	t.Helper()
	policy, err := checkpoint.ParsePolicy(checkpoint.NewPolicy(s.Identity().Log))
	assert.NilError(t, err)
	v, err := policy.Open(note)
	assert.NilError(t, err)
	return v
}

func TestTilesAreThoseOfTheLog(t *testing.T) {
	store := newStore(t, "local/a")
	url := start(t, node.Options{Store: store})
	status, _, _ := ask(t, "GET", url+"/checkpoint", "", "")
	assert.Equal(t, status, http.StatusNotFound)
	fill(t, store, 260)

	_, head, h := ask(t, "GET", url+"/checkpoint", "", "")
	assert.Equal(t, h.Get("Content-Type"), "text/plain; charset=utf-8")
	assert.Equal(t, h.Get("Cache-Control"), "no-cache")
	cp := verified(t, store, []byte(head))
	assert.Equal(t, cp.Body().Size, int64(260))
	want := map[string]string{}
	assert.NilError(t, ledger.WriteTiles(store.Read(), cp, func(path string, data []byte) error {
		want[path] = string(data)
		return nil
	}))
	assert.Assert(t, len(want) == 6, "%d files", len(want))
	for path, data := range want {
		status, got, h := ask(t, "GET", url+"/"+path, "", "")
		assert.Equal(t, status, http.StatusOK, path)
		assert.Assert(t, got == data, path)
		if path != "checkpoint" {
			assert.Equal(t, h.Get("Content-Type"), "application/octet-stream")
			assert.Equal(t, h.Get("Cache-Control"), "public, max-age=31536000, immutable")
		}
	}
	// Any width that the log has had is there, as a reader of an older checkpoint asks.
	_, narrow, _ := ask(t, "GET", url+"/tile/0/000.p/7", "", "")
	assert.Equal(t, narrow, want["tile/0/000"][:7*32])

	for _, path := range []string{
		"tile/0/001", "tile/0/001.p/5", "tile/0/002.p/1", "tile/1/000", "tile/2/000.p/1", "tile/entries/001.p/5", "tile/64/000",
		"tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/007", "tile/0/0", "tile/0/x000/000", "tile/00/000", "tile/-1/000", "tile/data/000",
	} {
		status, _, _ := ask(t, "GET", url+"/"+path, "", "")
		assert.Equal(t, status, http.StatusNotFound, path)
	}
	status, _, _ = ask(t, "POST", url+"/checkpoint", "", "")
	assert.Equal(t, status, http.StatusMethodNotAllowed)
}

// webTiles reads a log as a stranger does, with the tile reader of x/mod.
type webTiles struct {
	t   testing.TB
	url string
}

func (webTiles) Height() int                     { return 8 }
func (webTiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (w webTiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		status, data, _ := ask(w.t, "GET", w.url+"/"+ledger.TilePath(tile), "", "")
		if status != http.StatusOK {
			return nil, fmt.Errorf("%s: status %d", ledger.TilePath(tile), status)
		}
		all = append(all, []byte(data))
	}
	return all, nil
}

func TestAStrangerProvesInclusionAndConsistencyFromTiles(t *testing.T) {
	store := newStore(t, "local/a")
	url := start(t, node.Options{Store: store})
	fill(t, store, 100)
	_, first, _ := ask(t, "GET", url+"/checkpoint", "", "")
	fill(t, store, 170)
	_, second, _ := ask(t, "GET", url+"/checkpoint", "", "")
	before, after := verified(t, store, []byte(first)).Body(), verified(t, store, []byte(second)).Body()
	hashes := tlog.TileHashReader(tlog.Tree{N: after.Size, Hash: after.Root}, webTiles{t, url})
	proof, err := tlog.ProveTree(after.Size, before.Size, hashes)
	assert.NilError(t, err)
	assert.NilError(t, tlog.CheckTree(proof, after.Size, after.Root, before.Size, before.Root))
	for index, e := range store.Entries() {
		if index%90 != 3 {
			continue
		}
		proof, err := tlog.ProveRecord(after.Size, index, hashes)
		assert.NilError(t, err)
		assert.NilError(t, tlog.CheckRecord(proof, after.Size, after.Root, index, tlog.RecordHash(e.Line())))
	}
}

func witnessRequest(old int64, proof []checkpoint.Hash, note string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "old %d\n", old)
	for _, h := range proof {
		fmt.Fprintln(&b, base64.StdEncoding.EncodeToString(h[:]))
	}
	return b.String() + "\n" + note
}

func TestANodeWitnessesItsPeers(t *testing.T) {
	witness, peer, stranger := newStore(t, "local/w"), newStore(t, "local/p"), newStore(t, "local/s")
	befriend(t, witness, peer, "")
	url := start(t, node.Options{Store: witness})
	headOf := func(s *federate.Store) string {
		note, err := s.Head()
		assert.NilError(t, err)
		return string(note)
	}
	add := func(body string) (int, string, http.Header) { return ask(t, "POST", url+"/add-checkpoint", "", body) }

	fill(t, peer, 3)
	three := headOf(peer)
	status, line, _ := add(witnessRequest(0, nil, three))
	assert.Equal(t, status, http.StatusOK, line)
	assert.Assert(t, strings.HasPrefix(line, "— local/w/witness ") && strings.HasSuffix(line, "\n"), line)
	// The cosignature counts for whoever asks for this witness.
	policy, err := checkpoint.ParsePolicy(fmt.Appendf(nil, "log %s\nwitness w %s\nquorum w\n", peer.Identity().Log, witness.Identity().Witness))
	assert.NilError(t, err)
	_, err = policy.Open([]byte(three))
	assert.Assert(t, err != nil)
	v, err := policy.Open([]byte(three + line))
	assert.NilError(t, err)
	assert.Equal(t, v.Body().Size, int64(3))

	fill(t, peer, 4)
	seven := headOf(peer)
	proof, err := peer.Consistency(3, 7)
	assert.NilError(t, err)

	status, answer, h := add(witnessRequest(0, nil, seven)) // it knows of three
	assert.Equal(t, status, http.StatusConflict)
	assert.Equal(t, answer, "3\n")
	assert.Equal(t, h.Get("Content-Type"), "text/x.tlog.size")
	wrong := append([]checkpoint.Hash(nil), proof...)
	wrong[0][0] ^= 1
	status, _, _ = add(witnessRequest(3, wrong, seven))
	assert.Equal(t, status, http.StatusUnprocessableEntity)
	status, _, _ = add(witnessRequest(3, nil, seven))
	assert.Equal(t, status, http.StatusUnprocessableEntity)
	status, _, _ = add(witnessRequest(3, proof, seven))
	assert.Equal(t, status, http.StatusOK)
	status, answer, _ = add(witnessRequest(3, nil, three)) // back again
	assert.Equal(t, status, http.StatusConflict)
	assert.Equal(t, answer, "7\n")
	status, _, _ = add(witnessRequest(7, nil, seven)) // again is fine
	assert.Equal(t, status, http.StatusOK)
	status, _, _ = add(witnessRequest(9, nil, seven))
	assert.Equal(t, status, http.StatusBadRequest)

	fill(t, stranger, 1)
	status, _, _ = add(witnessRequest(0, nil, headOf(stranger)))
	assert.Equal(t, status, http.StatusNotFound)
	// The name of a peer's log under another key.
	skey, _, err := checkpoint.GenerateKey(rand.Reader, "local/p")
	assert.NilError(t, err)
	signer, err := checkpoint.NewSigner(skey)
	assert.NilError(t, err)
	forged, err := signer.Sign(checkpoint.Body{Origin: "local/p", Size: 7})
	assert.NilError(t, err)
	status, _, _ = add(witnessRequest(7, nil, string(forged)))
	assert.Equal(t, status, http.StatusForbidden)

	hash := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, body := range []string{
		"", "old 0\n", seven, "old 07\n\n" + seven, "old -1\n\n" + seven, "new 0\n\n" + seven, "old 3\nzz\n\n" + seven,
		"old 3\n" + strings.Repeat(hash+"\n", 64) + "\n" + seven, "old 0\n\nnot a note",
	} {
		status, answer, _ := add(body)
		assert.Equal(t, status, http.StatusBadRequest, "%.60q: %s", body, answer)
	}
}

// What the log shows with cosignatures is the same head, not an older one.
func TestTheCheckpointIsShownWithTheCosignaturesOfPeers(t *testing.T) {
	store, witness := newStore(t, "local/a"), newStore(t, "local/w")
	befriend(t, store, witness, "")
	befriend(t, witness, store, "")
	url := start(t, node.Options{Store: store})
	fill(t, store, 2)
	head, err := store.Head()
	assert.NilError(t, err)
	line, err := witness.Witness(0, nil, head)
	assert.NilError(t, err)
	assert.NilError(t, store.AddCosignature(append(bytes.Clone(head), line...)))
	_, shown, _ := ask(t, "GET", url+"/checkpoint", "", "")
	assert.Equal(t, shown, string(head)+string(line))
	fill(t, store, 1)
	_, shown, _ = ask(t, "GET", url+"/checkpoint", "", "")
	newest, err := store.Head()
	assert.NilError(t, err)
	assert.Equal(t, shown, string(newest))
}
