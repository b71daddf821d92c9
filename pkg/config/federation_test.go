package config

import (
	"os"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func TestTheAncestorsFederationIsReadAsItIs(t *testing.T) {
	data, err := os.ReadFile("testdata/federation.yaml")
	assert.NilError(t, err)
	_, err = ParseFederation("federation.yaml", data)
	assert.Error(t, err, `federation.yaml:1: node_id: found "replace-with-your-node-uuid", wanted this node's own name in the place of the placeholder: type "node_id: local/node-1a2b3c4d", or a UUID from uuidgen`)

	named := strings.Replace(string(data), placeholder, "3f2c8a52-6f0f-4b61-9a2e-0d7f6f0c9b11", 1)
	got, err := ParseFederation("federation.yaml", []byte(named))
	assert.NilError(t, err)
	assert.DeepEqual(t, got, Federation{
		NodeID: "3f2c8a52-6f0f-4b61-9a2e-0d7f6f0c9b11",
		Peers: []Peer{
			{NodeID: "peer-uuid-1", URL: "http://peer1.example.com:8001/mcp", TrustAnchor: "ops/certs/peer1-pubkey.asc"},
			{NodeID: "peer-uuid-2", URL: "http://peer2.example.com:8001/mcp", TrustAnchor: "ops/certs/peer2-pubkey.asc"},
		},
		Interval: time.Minute, Backoff: []time.Duration{5 * time.Second, 10 * time.Second, 30 * time.Second}, MinQuorum: 2,
	})
}

func TestAFederationThatSaysOnlyItsNameIsTheDefault(t *testing.T) {
	got, err := ParseFederation("f.yaml", []byte("node_id: local/a\n"))
	assert.NilError(t, err)
	assert.DeepEqual(t, got, DefaultFederation("local/a"))
}

func TestEveryKeyOfAFederationIsRead(t *testing.T) {
	got, err := ParseFederation("f.yaml", []byte(`node_id: local/a
peers: [{node_id: b, mcp_url: "https://b.example/x?y=1", trust_anchor: /etc/b key.asc, token_file: t, ca: c, client_cert: cc, client_key: ck}]
sync: {interval_seconds: 86400, retry_backoff: [1]}
trust: {require_signatures: true, min_quorum: 1}
`))
	assert.NilError(t, err)
	assert.DeepEqual(t, got, Federation{
		NodeID: "local/a", Peers: []Peer{{NodeID: "b", URL: "https://b.example/x?y=1", TrustAnchor: "/etc/b key.asc", TokenFile: "t", CA: "c", ClientCert: "cc", ClientKey: "ck"}},
		Interval: 24 * time.Hour, Backoff: []time.Duration{time.Second}, MinQuorum: 1,
	})
}

func TestMistakesInAFederationAreNamedWithTheirLine(t *testing.T) {
	const id = "node_id: local/a\n"
	peer := func(s string) string { return id + "peers:\n  - " + s + "\n" }
	const b = "{node_id: b, mcp_url: \"http://b/mcp\", trust_anchor: b.asc}"
	const wantsURL = ", wanted a URL such as http://localhost:8002/mcp, without a name or password"
	for _, tc := range []struct{ name, file, err string }{
		{"empty", "", `f.yaml: the file is empty, wanted at least "node_id: local/node-1a2b3c4d"`},
		{"no name", "peers: []\n", `f.yaml: node_id is missing, wanted this node's name: type "node_id: local/node-1a2b3c4d", with a name of your own`},
		{"empty name", "node_id: ''\n", `f.yaml:1: node_id: found "", wanted a name of printable ASCII without blanks, such as local/node-1a2b3c4d or a UUID`},
		{"name with a blank", "node_id: my node\n", `f.yaml:1: node_id: found "my node", wanted a name of printable ASCII without blanks, such as local/node-1a2b3c4d or a UUID`},
		{"unknown key", id + "peer: []\n", `f.yaml:2: unknown key "peer"; did you mean "peers"? known keys: node_id, peers, sync, trust`},
		{"unknown key of a peer", peer(`{mcp-url: "http://b/mcp"}`), `f.yaml:3: unknown key "mcp-url"; did you mean "mcp_url"? known keys: node_id, mcp_url, trust_anchor, token_file, ca, client_cert, client_key`},
		{"key twice", id + id, `f.yaml:2: key "node_id" is given twice, first on line 1`},
		{"peers are no list", id + "peers: b\n", `f.yaml:2: peers: found the text "b", wanted a list`},
		{"half a client", peer(`{node_id: b, mcp_url: "http://b/mcp", trust_anchor: b.asc, client_cert: c}`), `f.yaml:3: peers: client_cert and client_key belong together, wanted both or neither`},
		{"half a peer", peer(`{node_id: b, mcp_url: "http://b/mcp"}`), `f.yaml:3: peers: node_id, mcp_url or trust_anchor is missing, wanted all three`},
		{"no URL", peer(`{node_id: b, mcp_url: "b:8001", trust_anchor: b.asc}`), `f.yaml:3: mcp_url: found "b:8001"` + wantsURL},
		{"a password", peer(`{node_id: b, mcp_url: "http://u:p@b/mcp", trust_anchor: b.asc}`), `f.yaml:3: mcp_url: found "http://u:p@b/mcp"` + wantsURL},
		{"another scheme", peer(`{node_id: b, mcp_url: "file:///etc/passwd", trust_anchor: b.asc}`), `f.yaml:3: mcp_url: found "file:///etc/passwd"` + wantsURL},
		{"no anchor", peer(`{node_id: b, mcp_url: "http://b/mcp", trust_anchor: ""}`), `f.yaml:3: trust_anchor: found "", wanted the path of a file`},
		{"a peer twice", peer(b + "\n  - " + b), "f.yaml:4: peers: the node_id \"b\" is given twice, first on line 3\nf.yaml:4: peers: the mcp_url \"http://b/mcp\" is given twice, first on line 3"},
		{"its own peer", "node_id: b\npeers: [" + b + "]\n", `f.yaml: the node "b" is its own peer, wanted another node_id for one of them`},
		{"never", id + "sync: {interval_seconds: 0}\n", `f.yaml:2: interval_seconds: found 0, wanted 1 to 86400 seconds`},
		{"a duration", id + "sync: {interval_seconds: 60s}\n", `f.yaml:2: interval_seconds: found the text "60s", wanted a whole number such as 27`},
		{"no backoff", id + "sync: {retry_backoff: []}\n", `f.yaml:2: retry_backoff: found an empty list, wanted a list of at least one entry`},
		{"long backoff", id + "sync: {retry_backoff: [5, 86401]}\n", `f.yaml:2: retry_backoff: found 86401, wanted 1 to 86400 seconds`},
		{"many backoffs", id + "sync: {retry_backoff: [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}\n", `f.yaml:2: retry_backoff: found 17 entries, wanted at most 16`},
		{"without signatures", id + "trust: {require_signatures: false}\n", `f.yaml:2: require_signatures: found false, wanted true: receipts without a valid signature are never taken`},
		{"a yes", id + "trust: {require_signatures: yes}\n", `f.yaml:2: require_signatures: found the text "yes", wanted true or false`},
		{"another true", id + "trust: {require_signatures: True}\n", `f.yaml:2: require_signatures: found True, wanted true or false`},
		{"no quorum", id + "trust: {min_quorum: 0}\n", `f.yaml:2: min_quorum: found 0, wanted 1 to 1000000`},
		{"a quorum out of reach", id + "peers: [" + b + "]\ntrust: {min_quorum: 3}\n", `f.yaml:3: min_quorum: found 3, wanted at most 2: there are 2 nodes, this one included`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseFederation("f.yaml", []byte(tc.file))
			assert.Error(t, err, tc.err)
			assert.DeepEqual(t, got, Federation{})
		})
	}
}

func TestANodeWithoutAFileIsTheDefault(t *testing.T) {
	got, err := ParseNode("n.yaml", []byte("listen: 127.0.0.1:8001\n"))
	assert.NilError(t, err)
	assert.DeepEqual(t, got, DefaultNode())
}

func TestEveryKeyOfANodeIsRead(t *testing.T) {
	data, err := os.ReadFile("testdata/node.yaml")
	assert.NilError(t, err)
	got, err := ParseNode("node.yaml", data)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, Node{
		NodeID: "local/node-1a2b3c4d", Listen: "[::1]:0", Data: "/var/lib/remembrancer", Endpoint: "https://node.example.com/mcp",
		TLS: NodeTLS{"node.pem", "node.key", "peers.pem"},
		Tokens: []NodeToken{
			{"ci", "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", []string{"read", "record"}},
			{"all", "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9", []string{"read", "record", "federate", "sign", "admin"}},
		},
		Workspace: "/srv/artifacts", AllowSign: true, OpenRead: true, Log: "json",
	})
}

func TestMistakesInANodeAreNamedWithTheirLine(t *testing.T) {
	const digest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	token := func(s string) string { return "tokens:\n  - " + s + "\n" }
	const wantsListen = ", wanted a host and a port, such as 127.0.0.1:8001"
	const wantsDigest = `n.yaml:2: sha256: found something else than 64 lower-case hex digits in quotes: type printf %s TOKEN | sha256sum`
	for _, tc := range []struct{ name, file, err string }{
		{"empty", "# nothing\n", `n.yaml: the file is empty, wanted at least "listen: 127.0.0.1:8001"`},
		{"unknown key", "allow-sign: true\n", `n.yaml:1: unknown key "allow-sign"; did you mean "allow_sign"? known keys: node_id, listen, data, endpoint, tls, tokens, workspace, allow_sign, open_read, log`},
		{"unknown key of tls", "tls: {client_cas: x}\n", `n.yaml:1: unknown key "client_cas"; did you mean "client_ca"? known keys: cert, key, client_ca`},
		{"the placeholder", "node_id: " + placeholder + "\n", `n.yaml:1: node_id: found "replace-with-your-node-uuid", wanted this node's own name in the place of the placeholder: type "node_id: local/node-1a2b3c4d", or a UUID from uuidgen`},
		{"only a port", "listen: 8001\n", `n.yaml:1: listen: found 8001, wanted text: write "8001"`},
		{"no port", "listen: localhost\n", `n.yaml:1: listen: found "localhost"` + wantsListen},
		{"a large port", "listen: localhost:65536\n", `n.yaml:1: listen: found "localhost:65536"` + wantsListen},
		{"a named port", "listen: localhost:http\n", `n.yaml:1: listen: found "localhost:http"` + wantsListen},
		{"a strange host", "listen: 'a b:80'\n", `n.yaml:1: listen: found "a b:80"` + wantsListen},
		{"no URL", "endpoint: localhost\n", `n.yaml:1: endpoint: found "localhost", wanted a URL such as http://localhost:8002/mcp, without a name or password`},
		{"a blank path", "data: ' '\n", `n.yaml:1: data: found " ", wanted the path of a file`},
		{"half of TLS", "tls: {cert: a}\n", `n.yaml:1: tls: cert or key is missing, wanted both`},
		{"clients without TLS", "tls: {client_ca: a}\n", `n.yaml:1: tls: cert or key is missing, wanted both`},
		{"a token in the open", token("{name: ci, sha256: hunter2, scopes: [read]}"), wantsDigest},
		{"upper-case digits", token("{name: ci, sha256: " + strings.ToUpper(digest) + ", scopes: [read]}"), wantsDigest},
		{"a token of digits", token("{name: ci, sha256: 1234, scopes: [read]}"), wantsDigest},
		{"the digest of nothing", token("{name: ci, sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, scopes: [read]}"), `n.yaml:2: sha256: found the digest of nothing, wanted that of a token`},
		{"an unknown scope", token("{name: ci, sha256: " + digest + ", scopes: [write]}"), `n.yaml:2: scopes: found "write", wanted read, record, federate, sign, admin`},
		{"no scopes", token("{name: ci, sha256: " + digest + ", scopes: []}"), `n.yaml:2: scopes: found an empty list, wanted a list of at least one entry`},
		{"a scope twice", token("{name: ci, sha256: " + digest + ", scopes: [read, read]}"), `n.yaml:2: tokens: the scope "read" is given twice`},
		{"half a token", token("{name: ci, scopes: [read]}"), `n.yaml:2: tokens: name, sha256 or scopes is missing, wanted all three`},
		{"a token twice", token("{name: a, sha256: " + digest + ", scopes: [read]}\n  - {name: b, sha256: " + digest + ", scopes: [sign]}"), `n.yaml:3: tokens: the sha256 "` + short(digest) + `" is given twice, first on line 2`},
		{"a name twice", token("{name: a, sha256: " + digest + ", scopes: [read]}\n  - {name: a, sha256: " + strings.Repeat("a", 64) + ", scopes: [sign]}"), `n.yaml:3: tokens: the name "a" is given twice, first on line 2`},
		{"signing nowhere", "listen: :0\nallow_sign: true\n", `n.yaml:2: allow_sign: workspace is missing, wanted the directory whose files may be signed`},
		{"not true", "open_read: 1\n", `n.yaml:1: open_read: found 1, wanted true or false`},
		{"a tag", "open_read: !!bool true\n", `n.yaml:1: found the tag "!!bool", wanted the value alone`},
		{"another log", "log: xml\n", `n.yaml:1: log: found "xml", wanted text, json`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseNode("n.yaml", []byte(tc.file))
			assert.Error(t, err, tc.err)
			assert.DeepEqual(t, got, Node{})
		})
	}
}

// A federation that is accepted is complete, and one that is not is nothing.
func FuzzParseFederation(f *testing.F) {
	f.Add("node_id: local/a\npeers: [{node_id: b, mcp_url: \"http://b/mcp\", trust_anchor: b.asc}]\n")
	f.Add("node_id: a\nsync: {interval_seconds: 60, retry_backoff: [5, 10, 30]}\ntrust: {require_signatures: true, min_quorum: 2}\n")
	f.Fuzz(func(t *testing.T, file string) {
		got, err := ParseFederation("f.yaml", []byte(file))
		if err != nil {
			assert.DeepEqual(t, got, Federation{})
			return
		}
		assert.Assert(t, wantNodeID(got.NodeID) == "" && got.Interval >= time.Second && len(got.Backoff) > 0 && got.MinQuorum >= 1)
		for _, d := range got.Backoff {
			assert.Assert(t, d >= time.Second)
		}
		for _, p := range got.Peers {
			assert.Assert(t, wantNodeID(p.NodeID) == "" && wantURL(p.URL) == "" && p.TrustAnchor != "" && p.NodeID != got.NodeID)
		}
	})
}

// A node that is accepted signs only where there is a workspace, and knows only
// tokens that can be shown.
func FuzzParseNode(f *testing.F) {
	data, err := os.ReadFile("testdata/node.yaml")
	assert.NilError(f, err)
	f.Add(string(data))
	f.Fuzz(func(t *testing.T, file string) {
		got, err := ParseNode("n.yaml", []byte(file))
		if err != nil {
			assert.DeepEqual(t, got, Node{})
			return
		}
		assert.Assert(t, wantListen(got.Listen) == "" && (!got.AllowSign || got.Workspace != "") && (got.TLS.Cert == "") == (got.TLS.Key == "") && (got.TLS.ClientCA == "" || got.TLS.Cert != ""))
		for _, token := range got.Tokens {
			assert.Assert(t, token.Name != "" && len(token.SHA256) == 64 && len(token.Scopes) > 0)
		}
	})
}
