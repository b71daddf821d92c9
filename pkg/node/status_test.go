package node_test

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"github.com/vaultmesh/remembrancer/pkg/node"
)

func statusOf(t testing.TB, url, token string) (page, policy string) {
	t.Helper()
	status, page, h := ask(t, "GET", url+"/status", token, "")
	assert.Equal(t, status, 200)
	assert.Equal(t, h.Get("Content-Type"), "text/html; charset=utf-8")
	assert.Equal(t, h.Get("X-Content-Type-Options"), "nosniff")
	assert.Equal(t, h.Get("Cache-Control"), "no-store")
	return page, h.Get("Content-Security-Policy")
}

func contains(t testing.TB, page string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		assert.Assert(t, cmp.Contains(page, p))
	}
}

func TestTheStatusPageSaysHowTheNodeIs(t *testing.T) {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	o := everything(t)
	o.Store, o.Version, o.Revision, o.Track = newStore(t, "local/a"), "v1.2.3", commit, "canary"
	befriend(t, o.Store, newStore(t, "local/b"), "")
	s := newServer(t, o)
	url := serveHandler(t, s)
	page, _ := statusOf(t, url, secretOf("read"))
	contains(t, page, "Ready: receipts can be recorded", "local/a", "v1.2.3", commit, "canary", "none: the log has no entries yet",
		"No history yet", "Nothing was asked for yet.", "Nothing was submitted yet.", "local/b", "none begun here", "exchanging", "no data")

	c := client(t, url, secretOf("record"))
	assert.NilError(t, c.Call(t.Context(), "record_decision", anyMap{"title": "t", "body": "b"}, nil))
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "record_decision", anyMap{"title": "", "body": "b"}, nil)), "bad_request")
	s.Synced("local/b", node.SyncRefused)
	page, _ = statusOf(t, url, secretOf("read"))
	var health anyMap
	assert.NilError(t, client(t, url, secretOf("read")).Call(t.Context(), "health", nil, &health))
	contains(t, page, health["log"].(anyMap)["root"].(string), `<strong class="refused">refused</strong>, 0 s ago`,
		`<td class="mono">record_decision</td><td class="n">2</td><td class="n">1</td><td class="n">0</td>`, // requests
		`<td class="mono">record_decision</td><td class="n">1</td><td class="n">1</td><td class="n">0</td>`) // decisions
	assert.Assert(t, !strings.Contains(page, secretOf("read")))
}

func TestTheStatusPageSaysThatTheNodeIsNotReady(t *testing.T) {
	store, dir := newStoreIn(t, "local/a")
	url := start(t, node.Options{Store: store, Tokens: []node.Token{tokenOf(t, "all", node.Read, node.Record)}})
	segments := filepath.Join(dir, "log")
	if err := os.Rename(segments, segments+".away"); !errors.Is(err, os.ErrNotExist) {
		assert.NilError(t, err)
	}
	assert.NilError(t, os.WriteFile(segments, nil, 0o600))
	assert.Assert(t, codeOf(t, client(t, url, secretOf("all")).Call(t.Context(), "record_decision", anyMap{"title": "t", "body": "b"}, nil)) != "")
	page, _ := statusOf(t, url, secretOf("all"))
	contains(t, page, "Not ready: receipts cannot be recorded; see the node's log")
	assert.Assert(t, !strings.Contains(page, dir), "the page names a file of this machine")
}

// What peers and operators say is text.
func TestTheStatusPageEscapesWhatOthersSay(t *testing.T) {
	store := newStore(t, "local/a")
	other := newStore(t, "local/b")
	befriend(t, store, other, "")
	const evil = `</style></table><script>alert(1)</script><img src=x onerror="alert(2)">` + "\u202e"
	for _, p := range store.Peers() {
		p.Stopped, p.URL, p.LastMergeFile = evil, "http://x/"+evil, "receipts/federation/"+evil
		assert.NilError(t, store.PutPeer(p))
	}
	page, policy := statusOf(t, start(t, node.Options{Store: store}), "")
	assert.Assert(t, !strings.Contains(page, "<script"))
	assert.Assert(t, !strings.Contains(page, "<img"))
	contains(t, page, "&lt;script&gt;alert(1)", `<strong class="bad">stopped</strong>: <bdi>`)
	assert.Equal(t, strings.Count(policy, "sha256-"), 1)
}

// Where it is not cut off, the page is closed as it was opened, also with pictures.
func TestTheStatusPageIsWellFormed(t *testing.T) {
	store := newStore(t, "local/a")
	befriend(t, store, newStore(t, "local/b"), "")
	page, _ := statusOf(t, start(t, node.Options{Store: store}), "")
	page = regexp.MustCompile(`<(meta|br)([^>]*)>`).ReplaceAllString(page, "<$1$2/>")
	dec := xml.NewDecoder(strings.NewReader(strings.TrimPrefix(page, "<!DOCTYPE html>")))
	dec.Entity = xml.HTMLEntity
	for {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
