package node_test

import (
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

// What the tools carry is what the protocol needs: a whole sync goes through them.
func TestTwoNodesSyncThroughTheServer(t *testing.T) {
	a, b := newStore(t, "local/a"), newStore(t, "local/b")
	fill(t, a, 300)
	fill(t, b, 20)
	for _, m := range a.Trust().Members() {
		trust, err := b.Trust().With(m)
		assert.NilError(t, err)
		assert.NilError(t, b.SetTrust(t.Context(), trust))
	}
	assert.NilError(t, a.SetTrust(t.Context(), b.Trust()))
	url := start(t, node.Options{Store: b})
	c := client(t, url, "")
	peer, err := openpgp.ParseFingerprint(b.Identity().Fingerprint)
	assert.NilError(t, err)
	result, err := federate.Sync(t.Context(), a, c, federate.SyncOptions{Peer: peer, URL: url + node.MCPPath})
	assert.NilError(t, err)
	assert.Equal(t, result.Fetched, 20)
	assert.Equal(t, result.Pushed, 300)
	for _, s := range []*federate.Store{a, b} {
		snapshot, err := s.Snapshot()
		assert.NilError(t, err)
		assert.Equal(t, snapshot.Count, 320)
		assert.Equal(t, snapshot.Root, result.Root)
	}
	all := series(t, url, "")
	assert.Equal(t, all[`remembrancer_receipts_total{how="pushed"}`], "300")
	assert.Equal(t, all[`remembrancer_requests_total{code="ok",tool="fed_merge_commit"}`], "1")

	again, err := federate.Sync(t.Context(), a, c, federate.SyncOptions{Peer: peer, URL: url + node.MCPPath})
	assert.NilError(t, err)
	assert.Assert(t, again.Equal)
	assert.Equal(t, again.Calls, int64(1))
	assert.Assert(t, again.Received < 1<<10, "equal sets cost %d bytes of answer, HTTP included", again.Received)

	// The node's own peer is listed, by what the sync learned of it.
	var peers anyMap
	assert.NilError(t, client(t, start(t, node.Options{Store: a}), "").Call(t.Context(), "list_peers", nil, &peers))
	first := peers["peers"].([]any)[0].(anyMap)
	assert.Equal(t, first["node_id"], "local/b")
	assert.Equal(t, first["mcp_url"], url+node.MCPPath)
}
