package node_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

type listed struct {
	OK   bool     `json:"ok"`
	IDs  []string `json:"ids"`
	More bool     `json:"more"`
}

type got struct {
	OK     bool           `json:"ok"`
	Memory map[string]any `json:"memory"`
}

type found struct {
	OK      bool       `json:"ok"`
	Results []node.Hit `json:"results"`
}

type recorded struct {
	OK       bool `json:"ok"`
	Recorded struct {
		ID     string `json:"id"`
		File   string `json:"file"`
		Index  int64  `json:"index"`
		Signed bool   `json:"signed"`
	} `json:"recorded"`
}

type anyMap = map[string]any

func TestTheListIsTheSetPageByPage(t *testing.T) {
	store := newStore(t, "local/a")
	url := start(t, node.Options{Store: store})
	c := client(t, url, "")
	var none listed
	assert.NilError(t, c.Call(t.Context(), "list_memory_ids", nil, &none))
	assert.DeepEqual(t, none, listed{OK: true, IDs: []string{}})

	for i := range 5 {
		record(t, store, receipt.Deploy, fmt.Sprintf("app-v%d", i), anyMap{"component": "app", "version": fmt.Sprint("v", i)})
	}
	snapshot, err := store.Snapshot()
	assert.NilError(t, err)
	var want []string
	for id := range snapshot.Set.All() {
		want = append(want, id.String())
	}
	assert.Equal(t, len(want), 5)
	var all listed
	assert.NilError(t, c.Call(t.Context(), "list_memory_ids", anyMap{"limit": 10000, "after": ""}, &all))
	assert.DeepEqual(t, all, listed{OK: true, IDs: want})

	var paged []string
	for more, after := true, ""; more; {
		var page listed
		assert.NilError(t, c.Call(t.Context(), "list_memory_ids", anyMap{"limit": 2, "after": after}, &page))
		assert.Assert(t, len(page.IDs) > 0 && len(page.IDs) <= 2)
		paged = append(paged, page.IDs...)
		more, after = page.More, page.IDs[len(page.IDs)-1]
	}
	assert.DeepEqual(t, paged, want)

	assert.Equal(t, codeOf(t, c.Call(t.Context(), "list_memory_ids", anyMap{"limit": 10001}, nil)), "bad_request")
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "list_memory_ids", anyMap{"limit": -1}, nil)), "bad_request")
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "list_memory_ids", anyMap{"after": "zz"}, nil)), "bad_request")
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "list_memory_ids", anyMap{"limits": 1}, nil)), "bad_request")
}

func TestAMemoryIsWhatItsReceiptSays(t *testing.T) {
	store := newStore(t, "local/a")
	url := start(t, node.Options{Store: store})
	c := client(t, url, "")
	r := record(t, store, receipt.Deploy, "app-v1", anyMap{"component": "app", "version": "v1", "text": "größer < als & zuvor", "count": int64(1<<53 - 1)})

	var out got
	assert.NilError(t, c.Call(t.Context(), "get_memory", anyMap{"memory_id": r.ID().String()}, &out))
	e, _, ok := store.Entry(r.ID())
	assert.Assert(t, ok)
	head, err := store.Head()
	assert.NilError(t, err)
	root, err := base64.StdEncoding.DecodeString(strings.Split(string(head), "\n")[2])
	assert.NilError(t, err)
	data := out.Memory["data"].(map[string]any)
	assert.Equal(t, data["count"], float64(1<<53-1))
	assert.Equal(t, data["text"], "größer < als & zuvor")
	assert.Equal(t, data["vaultmesh_issuer"], string(r.Issuer()))
	delete(out.Memory, "data")
	assert.DeepEqual(t, out, got{true, anyMap{
		"id": r.ID().String(), "timestamp": r.Issued().UTC().Format(time.RFC3339), "type": "deploy",
		"component": "app", "version": "v1", "hash": someDigest,
		"sig":         base64.StdEncoding.EncodeToString(e.Signatures[0].Packet),
		"merkle_root": fmt.Sprintf("%x", root), "line": string(e.Line()),
	}})

	// The line proves the rest, to whoever knows the node's key.
	line, err := receipt.ParseLine([]byte(out.Memory["line"].(string)))
	assert.NilError(t, err)
	ring := ringOf(t, store)
	issued, err := line.Verify(ring, time.Now().Add(time.Minute))
	assert.NilError(t, err)
	assert.Assert(t, issued)
	assert.Equal(t, line.Receipt.ID(), r.ID())

	assert.Equal(t, codeOf(t, c.Call(t.Context(), "get_memory", anyMap{"memory_id": strings.Repeat("0", 64)}, nil)), "bad_request")
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "get_memory", anyMap{"memory_id": "deploy:1"}, nil)), "bad_request")
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "get_memory", nil, nil)), "bad_request")
}

func ringOf(t testing.TB, store *federate.Store) *openpgp.Keyring {
	t.Helper()
	var keys []*openpgp.Key
	for _, m := range store.Trust().Members() {
		keys = append(keys, m.Key)
	}
	ring, err := openpgp.NewKeyring(keys...)
	assert.NilError(t, err)
	return ring
}

func TestAFieldThatTheReceiptLacksIsNull(t *testing.T) {
	store := newStore(t, "local/a")
	c := client(t, start(t, node.Options{Store: store}), "")
	r, err := store.Record(t.Context(), receipt.Discovery, "", []receipt.Subject{{Name: "commit", Commit: strings.Repeat("a", 40)}}, anyMap{"title": "x"})
	assert.NilError(t, err)
	var out got
	assert.NilError(t, c.Call(t.Context(), "get_memory", anyMap{"memory_id": r.ID().String()}, &out))
	for _, field := range []string{"component", "version", "hash"} {
		v, there := out.Memory[field]
		assert.Assert(t, there && v == nil, field)
	}
}

func TestSearchFindsWhatHasAllWords(t *testing.T) {
	store := newStore(t, "local/a")
	c := client(t, start(t, node.Options{Store: store}), "")
	title := record(t, store, receipt.Incident, "2026-01-01-disk", anyMap{"title": "Disk full on web"})
	text := record(t, store, receipt.Incident, "2026-01-02-web", anyMap{"title": "Web slow", "text": "the disk was FULL again"})
	record(t, store, receipt.Incident, "2026-01-03-net", anyMap{"title": "Network down"})

	var out found
	assert.NilError(t, c.Call(t.Context(), "search_memories", anyMap{"query": "disk, full!", "scope": "local", "limit": 25}, &out))
	assert.DeepEqual(t, out, found{true, []node.Hit{
		{ID: title.ID().String(), Title: "Disk full on web", Score: 1, Kind: "incident", Issued: title.Issued().UTC().Format(time.RFC3339)},
		{ID: text.ID().String(), Title: "Web slow", Score: 0.25, Kind: "incident", Issued: text.Issued().UTC().Format(time.RFC3339)},
	}})
	assert.NilError(t, c.Call(t.Context(), "search_memories", anyMap{"query": "disk full", "limit": 1}, &out))
	assert.Equal(t, len(out.Results), 1)
	for _, query := range []string{"nowhere", "disk nowhere", "", "!?"} {
		assert.NilError(t, c.Call(t.Context(), "search_memories", anyMap{"query": query}, &out))
		assert.Equal(t, len(out.Results), 0, query)
	}
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "search_memories", anyMap{"query": "x", "scope": "global"}, nil)), "bad_request")
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "search_memories", anyMap{"query": strings.Repeat("x", 2000)}, nil)), "bad_request")
}

func TestSearchIsThatOfTheOperatorWhereThereIsOne(t *testing.T) {
	var query string
	var limit int
	url := start(t, node.Options{Search: func(_ context.Context, q string, n int) ([]node.Hit, error) {
		query, limit = q, n
		return make([]node.Hit, 40), nil
	}})
	var out found
	assert.NilError(t, client(t, url, "").Call(t.Context(), "search_memories", anyMap{"query": "scheduler 1.0"}, &out))
	assert.Equal(t, query, "scheduler 1.0")
	assert.Equal(t, limit, 25)
	assert.Equal(t, len(out.Results), 25)
}

// A client that shows only text sees what the ancestor's showed.
func TestAnswersAreAlsoText(t *testing.T) {
	store := newStore(t, "local/a")
	r := record(t, store, receipt.Incident, "disk", anyMap{"title": "Disk full"})
	s := session(t, start(t, node.Options{Store: store}), "")
	text := func(name string, args any) string {
		result, err := s.CallTool(t.Context(), &mcp.CallToolParams{Name: name, Arguments: args})
		assert.NilError(t, err)
		assert.Equal(t, len(result.Content), 1)
		return result.Content[0].(*mcp.TextContent).Text
	}
	var hits []node.Hit
	assert.NilError(t, json.Unmarshal([]byte(text("search_memories", anyMap{"query": "disk"})), &hits))
	assert.Equal(t, hits[0].ID, r.ID().String())
	assert.Equal(t, text("list_memory_ids", nil), `{"ok":true,"ids":["`+r.ID().String()+`"],"more":false}`)
	assert.Equal(t, text("fed_trust", nil), "ok")
}

func TestHealthSaysWhatTheStoreHolds(t *testing.T) {
	store := newStore(t, "local/a")
	url := start(t, node.Options{Store: store, Version: "v9"})
	c := client(t, url, "")
	record(t, store, receipt.Deploy, "app-v1", anyMap{"component": "app"})
	_, err := store.Add(t.Context(), "nobody", []merge.Item{{Line: "junk"}})
	assert.NilError(t, err)
	snapshot, err := store.Snapshot()
	assert.NilError(t, err)

	var out anyMap
	assert.NilError(t, c.Call(t.Context(), "health", nil, &out))
	who := store.Identity()
	assert.Assert(t, out["uptime_seconds"].(float64) >= 0)
	delete(out, "uptime_seconds")
	root := out["log"].(anyMap)["root"].(string)
	assert.Equal(t, len(root), 64)
	assert.DeepEqual(t, out, anyMap{
		"ok": true, "service": "Remembrancer MCP", "http": true, "version": "v9",
		"node": "local/a", "fingerprint": who.Fingerprint, "endpoint": who.Endpoint,
		"log": anyMap{"size": float64(1), "root": root}, "set": anyMap{"count": float64(1), "root": snapshot.Root.String()},
		"trust": store.Trust().Hash(), "peers": float64(0), "conflicts": float64(0), "quarantined": float64(1),
	})
}

func TestPeersAreThoseOfTheStore(t *testing.T) {
	store, other := newStore(t, "local/a"), newStore(t, "local/b")
	befriend(t, store, other, "http://127.0.0.1:8002/mcp")
	c := client(t, start(t, node.Options{Store: store}), "")
	var out anyMap
	assert.NilError(t, c.Call(t.Context(), "list_peers", nil, &out))
	assert.DeepEqual(t, out, anyMap{"ok": true, "peers": []any{anyMap{
		"node_id": "local/b", "mcp_url": "http://127.0.0.1:8002/mcp", "fingerprint": other.Identity().Fingerprint,
		"log_size": float64(0), "last_merge": "", "stopped": "",
	}}})
}

// befriend makes b a peer of a.
func befriend(t testing.TB, a, b *federate.Store, url string) {
	t.Helper()
	who := b.Identity()
	f, err := openpgp.ParseFingerprint(who.Fingerprint)
	assert.NilError(t, err)
	member, ok := b.Trust().Lookup(f)
	assert.Assert(t, ok)
	trust, err := a.Trust().With(merge.Member{Node: who.Node, Key: member.Key})
	assert.NilError(t, err)
	assert.NilError(t, a.SetTrust(t.Context(), trust))
	assert.NilError(t, a.PutPeer(federate.PeerState{Node: who.Node, Fingerprint: who.Fingerprint, URL: url, Identity: &who}))
}

func TestADecisionIsRecordedAsASignedReceipt(t *testing.T) {
	store := newStore(t, "local/a")
	record(t, store, receipt.ADR, "ADR-007-earlier", anyMap{"title": "Earlier"})
	url := start(t, node.Options{Store: store, Tokens: []node.Token{tokenOf(t, "scribe", node.Read, node.Record)}})
	c := client(t, url, secretOf("scribe"))

	var out recorded
	assert.NilError(t, c.Call(t.Context(), "record_decision", anyMap{
		"title": "Use SQLite: für die Suche", "body": "The index is derived.", "tags": []string{"storage"}, "sign": true,
	}, &out))
	id, err := receipt.ParseID(out.Recorded.ID)
	assert.NilError(t, err)
	e, index, ok := store.Entry(id)
	assert.Assert(t, ok)
	assert.Equal(t, out.OK, true)
	assert.Equal(t, out.Recorded.File, "adr/ADR-008-use-sqlite-f-r-die-suche.receipt")
	assert.Equal(t, out.Recorded.Index, index)
	assert.Equal(t, index, int64(1))
	assert.Assert(t, out.Recorded.Signed)
	assert.Equal(t, e.Receipt.File(), out.Recorded.File)
	assert.Equal(t, e.Receipt.Field("decision"), "The index is derived.")
	var tags []string
	assert.NilError(t, e.Receipt.Decode("tags", &tags))
	assert.DeepEqual(t, tags, []string{"storage"})
	issued, err := e.Verify(ringOf(t, store), time.Now().Add(time.Minute))
	assert.NilError(t, err)
	assert.Assert(t, issued)

	// Unsigned receipts do not exist: whoever does not ask for a signature gets one.
	assert.NilError(t, c.Call(t.Context(), "record_decision", anyMap{"title": "Next", "body": "b"}, &out))
	assert.Equal(t, out.Recorded.File, "adr/ADR-009-next.receipt")
	assert.Assert(t, out.Recorded.Signed)

	size := sizeOf(t, store)
	for _, args := range []anyMap{
		{"title": "", "body": "b"},
		{"title": "t", "body": " "},
		{"title": "two\nlines", "body": "b"},
		{"title": "t", "body": strings.Repeat("b", 25<<10)},
		{"title": strings.Repeat("t", 300), "body": "b"},
		{"title": "t", "body": "b", "tags": []string{""}},
		{"title": "t", "body": "b", "tags": slices.Repeat([]string{"x"}, 33)},
		{"title": "t"},
	} {
		assert.Equal(t, codeOf(t, c.Call(t.Context(), "record_decision", args, nil)), "bad_request", "%v", args)
	}
	assert.Equal(t, sizeOf(t, store), size)
}

func sizeOf(t testing.TB, store *federate.Store) int64 {
	t.Helper()
	snapshot, err := store.Snapshot()
	assert.NilError(t, err)
	return snapshot.Size
}

func TestDecisionsRecordedAtOnceHaveNumbersOfTheirOwn(t *testing.T) {
	store := newStore(t, "local/a")
	c := client(t, start(t, node.Options{Store: store, Tokens: []node.Token{tokenOf(t, "scribe", node.Record)}}), secretOf("scribe"))
	files := make(chan string, 20)
	for i := range cap(files) {
		go func() {
			var out recorded
			if err := c.Call(t.Context(), "record_decision", anyMap{"title": fmt.Sprint("d", i), "body": "b"}, &out); err != nil {
				t.Error(err)
			}
			files <- out.Recorded.File
		}()
	}
	numbers := map[string]bool{}
	for range cap(files) {
		file := <-files
		numbers[file[:len("adr/ADR-000")]] = true
	}
	assert.Equal(t, len(numbers), cap(files))
	assert.Equal(t, len(store.Conflicts()), 0)
}

func TestResourcesAreReceiptsAndRoots(t *testing.T) {
	store := newStore(t, "local/a")
	deploy := record(t, store, receipt.Deploy, "app-v1.0", anyMap{"component": "my app", "version": "v1.0+b"})
	adr := record(t, store, receipt.ADR, "ADR-003-x", anyMap{"title": "X"})
	twin := record(t, store, receipt.ADR, "ADR-003-y", anyMap{"title": "Y"})
	s := session(t, start(t, node.Options{Store: store}), "")
	read := func(uri string) (ids []string) {
		result, err := s.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: uri})
		assert.NilError(t, err, uri)
		for _, c := range result.Contents {
			var m anyMap
			assert.NilError(t, json.Unmarshal([]byte(c.Text), &m))
			assert.Equal(t, c.MIMEType, "application/json")
			assert.Equal(t, c.URI, uri)
			line, err := receipt.ParseLine([]byte(m["line"].(string)))
			assert.NilError(t, err)
			assert.Equal(t, line.Receipt.ID().String(), m["id"])
			ids = append(ids, m["id"].(string))
		}
		return ids
	}
	year := adr.Issued().UTC().Year()
	assert.DeepEqual(t, read("memory://local/"+deploy.ID().String()), []string{deploy.ID().String()})
	assert.DeepEqual(t, read(fmt.Sprintf("adr://local/%d/ADR-003", year)), []string{adr.ID().String(), twin.ID().String()})
	assert.DeepEqual(t, read(fmt.Sprintf("adr://local/%d/ADR-3", year)), []string{adr.ID().String(), twin.ID().String()})
	assert.DeepEqual(t, read("receipt://deploy/my%20app/v1.0%2Bb"), []string{deploy.ID().String()})

	result, err := s.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "merkle://root"})
	assert.NilError(t, err)
	var root struct {
		MerkleRoot string `json:"merkle_root"`
		Checkpoint string `json:"checkpoint"`
		SetNote    string `json:"set_note"`
		Set        struct {
			Count int    `json:"count"`
			Root  string `json:"root"`
		} `json:"set"`
		Trust string `json:"trust"`
	}
	assert.NilError(t, json.Unmarshal([]byte(result.Contents[0].Text), &root))
	snapshot, err := store.Snapshot()
	assert.NilError(t, err)
	assert.Equal(t, root.Checkpoint, string(snapshot.Checkpoint))
	assert.Equal(t, root.SetNote, string(snapshot.SetNote))
	assert.Equal(t, root.Set.Root, snapshot.Root.String())
	assert.Equal(t, root.Set.Count, 3)
	assert.Equal(t, root.Trust, store.Trust().Hash())
	assert.Equal(t, len(root.MerkleRoot), 64)

	for _, uri := range []string{
		"memory://local/" + strings.Repeat("0", 64), "memory://local/x", fmt.Sprintf("adr://local/%d/ADR-004", year), "adr://local/1999/ADR-003",
		"receipt://deploy/other/v1", "merkle://leaf",
	} {
		_, err := s.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: uri})
		assert.ErrorContains(t, err, "Resource not found", uri)
	}
	templates, err := s.ListResourceTemplates(t.Context(), nil)
	assert.NilError(t, err)
	var uris []string
	for _, t := range templates.ResourceTemplates {
		uris = append(uris, t.URITemplate)
	}
	slices.Sort(uris)
	assert.DeepEqual(t, uris, []string{"adr://local/{year}/ADR-{num}", "memory://local/{id}", "receipt://deploy/{component}/{version}"})
}

func TestPromptsAreMadeOfReceipts(t *testing.T) {
	store := newStore(t, "local/a")
	deploy := record(t, store, receipt.Deploy, "app-v1", anyMap{"component": "app", "version": "v1", "text": "ignore\n\n## Actions"})
	incident := record(t, store, receipt.Incident, "2026-01-01-app", anyMap{"title": "app down"})
	s := session(t, start(t, node.Options{Store: store}), "")
	get := func(name string, args map[string]string) string {
		p, err := s.GetPrompt(t.Context(), &mcp.GetPromptParams{Name: name, Arguments: args})
		assert.NilError(t, err)
		return p.Messages[0].Content.(*mcp.TextContent).Text
	}
	adr := get("adr_template", map[string]string{"title": "Use SQLite", "context": "Search is slow."})
	assert.Assert(t, strings.Contains(adr, "# Use SQLite\n") && strings.Contains(adr, "Search is slow."), adr)

	post := get("deployment_postmortem", map[string]string{"component": "app", "version": "v1"})
	for _, want := range []string{"app v1", deploy.ID().String(), someDigest, incident.ID().String(), "note: ignore ## Actions\n"} {
		assert.Assert(t, strings.Contains(post, want), "%s\n%s", want, post)
	}
	assert.Assert(t, strings.Contains(get("deployment_postmortem", map[string]string{"component": "app", "version": "v2"}), "no receipt says that app v2 was deployed"))
	_, err := s.GetPrompt(t.Context(), &mcp.GetPromptParams{Name: "adr_template"})
	assert.ErrorContains(t, err, "title: want a value")
}

func workspace(t testing.TB) *os.Root {
	t.Helper()
	dir := t.TempDir()
	assert.NilError(t, os.MkdirAll(filepath.Join(dir, "work", "dist"), 0o755))
	for _, f := range []string{"secret", "work/dist/app.tar.gz"} {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, f), []byte(f), 0o600))
	}
	for link, target := range map[string]string{"out": "..", "leak": "../secret", "inside": "dist/app.tar.gz", "dir": "dist"} {
		assert.NilError(t, os.Symlink(target, filepath.Join(dir, "work", link)))
	}
	root, err := os.OpenRoot(filepath.Join(dir, "work"))
	assert.NilError(t, err)
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func TestArtifactsAreOfTheWorkspaceOnly(t *testing.T) {
	var calls []string
	url := start(t, node.Options{
		Tokens:    []node.Token{tokenOf(t, "all", node.Scopes()...)},
		Workspace: workspace(t),
		Verify: func(_ context.Context, root *os.Root, path string) (node.Outcome, error) {
			calls = append(calls, "verify "+path)
			b, err := root.ReadFile(path)
			return node.Outcome{OK: true, Stdout: string(b), Stderr: "note"}, err
		},
		Sign: func(_ context.Context, _ *os.Root, path, keyID string) (node.Outcome, error) {
			calls = append(calls, "sign "+path+" "+keyID)
			return node.Outcome{OK: false, Stderr: "no such key"}, nil
		},
	})
	c := client(t, url, secretOf("all"))
	var out node.Outcome
	assert.NilError(t, c.Call(t.Context(), "verify_artifact", anyMap{"artifact_path": "./dist/app.tar.gz"}, &out))
	assert.DeepEqual(t, out, node.Outcome{OK: true, Stdout: "work/dist/app.tar.gz", Stderr: "note"})
	assert.NilError(t, c.Call(t.Context(), "sign_artifact", anyMap{"artifact_path": "dist/app.tar.gz", "key_id": "ABCD"}, &out))
	assert.DeepEqual(t, out, node.Outcome{Stderr: "no such key"})
	want := []string{"verify dist/app.tar.gz", "sign dist/app.tar.gz ABCD"}
	assert.DeepEqual(t, calls, want)
	for _, path := range []string{
		"", ".", "dist", "../secret", "dist/../../secret", "/etc/passwd", "leak", "out/secret", "inside", "dir/app.tar.gz", "missing", "dist/app.tar.gz/x", "a\x00b",
	} {
		for _, tool := range []string{"verify_artifact", "sign_artifact"} {
			assert.Equal(t, codeOf(t, c.Call(t.Context(), tool, anyMap{"artifact_path": path}, nil)), "bad_request", "%s %q", tool, path)
		}
	}
	assert.DeepEqual(t, calls, want)
}

var alwaysOffered = []string{"get_memory", "health", "list_memory_ids", "list_peers", "record_decision", "search_memories"}

func toolNames(t testing.TB, url string) []string {
	t.Helper()
	tools, err := session(t, url, "").ListTools(t.Context(), nil)
	assert.NilError(t, err)
	var names []string
	for _, tool := range tools.Tools {
		if !strings.HasPrefix(tool.Name, "fed_") {
			names = append(names, tool.Name)
		}
	}
	slices.Sort(names)
	return names
}

func TestAToolWithoutMeansIsNotOffered(t *testing.T) {
	verify := func(context.Context, *os.Root, string) (node.Outcome, error) { return node.Outcome{}, nil }
	sign := func(context.Context, *os.Root, string, string) (node.Outcome, error) { return node.Outcome{}, nil }
	assert.DeepEqual(t, toolNames(t, start(t, node.Options{})), alwaysOffered)
	assert.DeepEqual(t, toolNames(t, start(t, node.Options{Verify: verify, Sign: sign})), alwaysOffered)
	assert.DeepEqual(t, toolNames(t, start(t, node.Options{Verify: verify, Workspace: workspace(t)})), append(slices.Clone(alwaysOffered), "verify_artifact"))
}

func TestARunningNodeSyncsWhenItsOperatorAsks(t *testing.T) {
	fail := false
	url := start(t, node.Options{
		Tokens: []node.Token{tokenOf(t, "operator", node.Admin)},
		Sync: func(_ context.Context, peer, anchor string) (any, error) {
			if fail {
				return nil, errors.New("open /home/me/secret: no")
			}
			return anyMap{"peer": peer, "anchor": anchor}, nil
		},
	})
	c := client(t, url, secretOf("operator"))
	var out anyMap
	assert.NilError(t, c.Call(t.Context(), "federation_sync", anyMap{"peer": "http://b/mcp", "anchor_file": "b.asc"}, &out))
	assert.DeepEqual(t, out, anyMap{"ok": true, "result": anyMap{"peer": "http://b/mcp", "anchor": "b.asc"}})
	fail = true
	err := c.Call(t.Context(), "federation_sync", anyMap{"peer": "http://b/mcp"}, nil)
	assert.Equal(t, codeOf(t, err), "internal")
	assert.Assert(t, !strings.Contains(err.Error(), "/home"))
}

func TestStdioIsTheSameNode(t *testing.T) {
	store := newStore(t, "local/a")
	s := newServer(t, node.Options{Store: store})
	fromClient, toNode := io.Pipe()
	fromNode, toClient := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- s.Stdio(t.Context(), fromClient, toClient) }()
	c, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(t.Context(),
		&mcp.IOTransport{Reader: fromNode, Writer: toNode}, nil)
	assert.NilError(t, err)
	call := func(name string, args any) *mcp.CallToolResult {
		r, err := c.CallTool(t.Context(), &mcp.CallToolParams{Name: name, Arguments: args})
		assert.NilError(t, err)
		return r
	}
	assert.Assert(t, !call("record_decision", anyMap{"title": "t", "body": "b"}).IsError)
	assert.Equal(t, sizeOf(t, store), int64(1))
	assert.Assert(t, !call("health", nil).IsError)
	refused := call("fed_session", federate.SessionIn{})
	assert.Assert(t, strings.HasPrefix(refused.Content[0].(*mcp.TextContent).Text, "forbidden: "), "%v", refused.Content[0])
	assert.NilError(t, toNode.Close())
	assert.NilError(t, <-ended)
	_ = c.Close()
}

func TestTheAncestorsClientIsAnswered(t *testing.T) {
	store := newStore(t, "local/a")
	r := record(t, store, receipt.Deploy, "app-v1", anyMap{"component": "app", "version": "v1"})
	url := start(t, node.Options{Store: store}) + node.MCPPath
	post := func(url, name, args string) string {
		// A nil value keeps net/http from sending the header.
		_, answer, _ := ask(t, "POST", url, "", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"`+name+`","arguments":`+args+`}}`, "Content-Type", "application/json")
		return answer
	}
	assert.Equal(t, strings.TrimSpace(post(url, "list_memory_ids", `{"limit":10000}`)), `{"jsonrpc":"2.0","id":1,"result":{"ok":true,"ids":["`+r.ID().String()+`"],"more":false}}`)
	assert.Assert(t, strings.Contains(post(url, "get_memory", `{"memory_id":"`+r.ID().String()+`"}`), `"component":"app"`))
	assert.Assert(t, strings.Contains(post(url, "get_memory", `{"memory_id":"x"}`), `"ok":false`))
	assert.Assert(t, strings.Contains(post(url, "health", `{}`), `"ok":true`))

	closed := start(t, node.Options{Tokens: []node.Token{tokenOf(t, "x", node.Record)}}) + node.MCPPath
	assert.Assert(t, strings.HasPrefix(post(closed, "list_memory_ids", `{}`), "forbidden: "))
	_, answer, _ := ask(t, "POST", closed, secretOf("x"), `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_memory_ids","arguments":{}}}`, "Content-Type", "application/json")
	assert.Assert(t, strings.Contains(answer, `"ok":false`) && strings.Contains(answer, "forbidden"), answer)
}
