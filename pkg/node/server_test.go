package node_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// everything is a node that was given the means for every tool.
func everything(t testing.TB) node.Options {
	o := node.Options{
		Workspace: workspace(t),
		Verify:    func(context.Context, *os.Root, string) (node.Outcome, error) { return node.Outcome{OK: true}, nil },
		Sign: func(context.Context, *os.Root, string, string) (node.Outcome, error) {
			return node.Outcome{OK: true}, nil
		},
		Sync: func(context.Context, string, string) (any, error) { return "synced", nil },
	}
	for _, scope := range node.Scopes() {
		o.Tokens = append(o.Tokens, tokenOf(t, string(scope), scope))
	}
	return o
}

// allTools is each tool with arguments that fit it, and the scopes that may call it.
var allTools = map[string]struct {
	args   any
	scopes []node.Scope
}{
	"search_memories":   {anyMap{"query": "x"}, []node.Scope{node.Read}},
	"list_memory_ids":   {nil, []node.Scope{node.Read}},
	"get_memory":        {anyMap{"memory_id": "x"}, []node.Scope{node.Read}},
	"health":            {nil, []node.Scope{node.Read}},
	"list_peers":        {nil, []node.Scope{node.Read}},
	"verify_artifact":   {anyMap{"artifact_path": "dist/app.tar.gz"}, []node.Scope{node.Read}},
	"record_decision":   {anyMap{"title": "t", "body": "b"}, []node.Scope{node.Record}},
	"sign_artifact":     {anyMap{"artifact_path": "dist/app.tar.gz"}, []node.Scope{node.Sign}},
	"federation_sync":   {anyMap{"peer": "x"}, []node.Scope{node.Admin}},
	"fed_identity":      {federate.IdentityIn{}, []node.Scope{node.Read, node.Federate}},
	"fed_hello":         {federate.HelloIn{Protocol: federate.Protocol}, []node.Scope{node.Read, node.Federate}},
	"fed_trust":         {federate.TrustIn{}, []node.Scope{node.Read, node.Federate}},
	"fed_tail":          {federate.TailIn{}, []node.Scope{node.Read, node.Federate}},
	"fed_diff":          {federate.DiffIn{Prefixes: []string{}}, []node.Scope{node.Read, node.Federate}},
	"fed_ids":           {federate.IDsIn{}, []node.Scope{node.Read, node.Federate}},
	"fed_get":           {federate.GetIn{IDs: []string{}}, []node.Scope{node.Read, node.Federate}},
	"fed_session":       {federate.SessionIn{}, []node.Scope{node.Federate}},
	"fed_push":          {federate.PushIn{}, []node.Scope{node.Federate}},
	"fed_merge_ids":     {federate.MergeIDsIn{}, []node.Scope{node.Federate}},
	"fed_merge_propose": {federate.ProposeIn{}, []node.Scope{node.Federate}},
	"fed_merge_commit":  {federate.CommitIn{}, []node.Scope{node.Federate}},
}

func TestEachToolNeedsItsScope(t *testing.T) {
	url := start(t, everything(t))
	offered, err := session(t, url, secretOf("read")).ListTools(t.Context(), nil)
	assert.NilError(t, err)
	assert.Equal(t, len(offered.Tools), len(allTools))
	for _, scope := range node.Scopes() {
		c := client(t, url, secretOf(string(scope)))
		for name, tool := range allTools {
			code := codeOf(t, c.Call(t.Context(), name, tool.args, nil))
			if may := slices.Contains(tool.scopes, scope); may == (code == "forbidden") {
				t.Errorf("scope %s, tool %s: found code %q, may: %v", scope, name, code, may)
			}
		}
	}
}

func TestEachPathNeedsItsScope(t *testing.T) {
	url := start(t, everything(t))
	for _, c := range []struct {
		method, path string
		scope        node.Scope
	}{
		{"GET", "/checkpoint", node.Read},
		{"GET", "/tile/0/000.p/1", node.Read},
		{"GET", "/metrics", node.Read},
		{"GET", "/status", node.Read},
		{"POST", "/add-checkpoint", node.Federate},
	} {
		status, _, h := ask(t, c.method, url+c.path, "", "")
		assert.Equal(t, status, http.StatusUnauthorized, c.path)
		assert.Equal(t, h.Get("WWW-Authenticate"), "Bearer")
		for _, scope := range node.Scopes() {
			status, _, _ := ask(t, c.method, url+c.path, secretOf(string(scope)), "")
			assert.Equal(t, status == http.StatusForbidden, scope != c.scope, "%s with %s: %d", c.path, scope, status)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		status, answer, _ := ask(t, "GET", url+path, "", "")
		assert.Equal(t, status, http.StatusOK)
		assert.Equal(t, answer, "ok\n")
	}
}

func TestOnLoopbackReadingIsOpenAndWritingIsNot(t *testing.T) {
	o := everything(t)
	o.Tokens = nil
	url := start(t, o)
	c := client(t, url, "")
	for name, tool := range allTools {
		code := codeOf(t, c.Call(t.Context(), name, tool.args, nil))
		open := slices.Contains(tool.scopes, node.Read) || slices.Contains(tool.scopes, node.Federate)
		if open == (code == "forbidden") {
			t.Errorf("tool %s: found code %q", name, code)
		}
	}
	// What opens by itself writes nothing: a session is needed.
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "fed_push", federate.PushIn{Session: "x"}, nil)), "unknown_session")
	// A wrong token is not nobody's.
	status, _, _ := ask(t, "GET", url+"/checkpoint", "wrong", "")
	assert.Equal(t, status, http.StatusUnauthorized)
	status, _, _ = ask(t, "GET", url+"/checkpoint", "", "", "Authorization", "Basic eDp5")
	assert.Equal(t, status, http.StatusUnauthorized)
}

func TestWithATokenNothingIsOpenUnlessTheOperatorSaysSo(t *testing.T) {
	o := everything(t)
	status, _, _ := ask(t, "POST", start(t, o)+"/mcp", "", "{}")
	assert.Equal(t, status, http.StatusUnauthorized)
	o.OpenRead = true
	c := client(t, start(t, o), "")
	for name, tool := range allTools {
		code := codeOf(t, c.Call(t.Context(), name, tool.args, nil))
		if slices.Contains(tool.scopes, node.Read) == (code == "forbidden") {
			t.Errorf("tool %s: found code %q", name, code)
		}
	}
}

func TestAListenerThatOthersReachIsRefusedUnlessTheOperatorSaysSo(t *testing.T) {
	store := newStore(t, "local/a")
	mtls := &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert}
	for name, c := range map[string]struct {
		addr string
		o    node.Options
		want string
	}{
		"loopback":                       {"127.0.0.1:0", node.Options{}, ""},
		"loopback behind a proxy":        {"127.0.0.1:0", node.Options{Hosts: []string{"node.example"}}, "serves node.example to others"},
		"proxy with tokens":              {"127.0.0.1:0", node.Options{Hosts: []string{"node.example"}, Tokens: []node.Token{tokenOf(t, "x", node.Read)}}, ""},
		"everywhere":                     {"0.0.0.0:0", node.Options{}, "is reached by others"},
		"everywhere with TLS":            {"0.0.0.0:0", node.Options{TLS: &tls.Config{}}, "is reached by others"},
		"everywhere with tokens":         {"0.0.0.0:0", node.Options{Tokens: []node.Token{tokenOf(t, "x", node.Read)}}, ""},
		"everywhere, open":               {"0.0.0.0:0", node.Options{OpenRead: true}, ""},
		"everywhere with certificates":   {"0.0.0.0:0", node.Options{TLS: mtls}, ""},
		"every address of version 6 too": {"[::]:0", node.Options{}, "is reached by others"},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Store = store
			if c.o.TLS != nil {
				c.o.TLS.Certificates = []tls.Certificate{certificate(t, "node", nil).pair}
			}
			s := newServer(t, c.o)
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // a listener that is served ends at once
			err := s.Serve(ctx, listen(t, c.addr))
			if c.want == "" {
				assert.NilError(t, err)
				return
			}
			assert.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, "--open-read")
		})
	}
}

func TestAPageOfABrowserIsNotThisMachine(t *testing.T) {
	url := start(t, node.Options{})
	o := node.Options{Hosts: []string{"node.example"}, Tokens: []node.Token{tokenOf(t, "x", node.Read)}}
	proxied := start(t, o)
	get := func(url, token, host string) int {
		status, _, _ := ask(t, "GET", url+"/metrics", token, "", "Host", host)
		return status
	}
	assert.Equal(t, get(url, "", "evil.example"), http.StatusForbidden)
	assert.Equal(t, get(url, "", "127.0.0.1.evil.example:80"), http.StatusForbidden)
	assert.Equal(t, get(url, "", "192.0.2.1"), http.StatusForbidden)
	for _, host := range []string{"localhost", "LOCALHOST:8001", "127.0.0.1", "127.1.2.3:80", "[::1]:8001"} {
		assert.Equal(t, get(url, "", host), http.StatusOK, host)
	}
	assert.Equal(t, get(proxied, secretOf("x"), "node.example"), http.StatusOK)
	assert.Equal(t, get(proxied, secretOf("x"), "other.example"), http.StatusForbidden)

	body := `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`
	header := []string{"Content-Type", "application/json", "Accept", "application/json, text/event-stream"}
	status, _, _ := ask(t, "POST", url+"/mcp", "", body, header...)
	assert.Equal(t, status, http.StatusOK)
	status, _, _ = ask(t, "POST", url+"/mcp", "", body, append(header, "Origin", "https://evil.example")...)
	assert.Equal(t, status, http.StatusForbidden)
	status, _, _ = ask(t, "POST", url+"/mcp", "", body, append(header, "Sec-Fetch-Site", "cross-site")...)
	assert.Equal(t, status, http.StatusForbidden)
}

func TestTokensAreReadStrictly(t *testing.T) {
	_, err := node.NewToken("x", "short", node.Read)
	assert.ErrorContains(t, err, "wanted 22 random ones at least")
	assert.Assert(t, !strings.Contains(err.Error(), "short"))
	for _, digest := range []string{"", "ab", strings.Repeat("A", 64), strings.Repeat("g", 64)} {
		_, err = node.ParseToken("x", digest)
		assert.ErrorContains(t, err, "64 lower-case hex digits", digest)
	}
	made, err := node.NewToken("x", strings.Repeat("s", 22), node.Read)
	assert.NilError(t, err)
	read, err := node.ParseToken("x", fmt.Sprintf("%x", made.SHA256), node.Read)
	assert.NilError(t, err)
	assert.DeepEqual(t, read, made)
	_, err = node.ParseScope("write")
	assert.Error(t, err, `unknown scope "write", want one of read, record, federate, sign, admin`)
	_, err = node.New(node.Options{Store: newStore(t, "local/a"), Tokens: []node.Token{{Name: "x", Scopes: []node.Scope{"write"}}}})
	assert.ErrorContains(t, err, `token "x": unknown scope "write"`)
	_, err = node.New(node.Options{})
	assert.ErrorContains(t, err, "no store")
}

type issued struct {
	pair tls.Certificate
	cert *x509.Certificate
}

// certificate issues a certificate for loopback, of itself or of another.
func certificate(t testing.TB, name string, by *issued) issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NilError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: by == nil, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	parent, signer := template, any(key)
	if by != nil {
		parent, signer = by.cert, by.pair.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	assert.NilError(t, err)
	cert, err := x509.ParseCertificate(der)
	assert.NilError(t, err)
	return issued{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, cert}
}

func TestACertificateMayReadAndFederate(t *testing.T) {
	ca := certificate(t, "ca", nil)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	ours, theirs, foreign := certificate(t, "node", &ca), certificate(t, "peer", &ca), certificate(t, "stranger", nil)
	o := everything(t)
	o.Tokens = nil
	o.TLS = &tls.Config{Certificates: []tls.Certificate{ours.pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
	url, stop := run(t, listen(t, "127.0.0.1:0"), o)
	assert.Assert(t, strings.HasPrefix(url, "https://127.0.0.1:"), url)

	c, err := node.Dial(t.Context(), url, node.DialOptions{RootCAs: pool, Certificate: &theirs.pair})
	assert.NilError(t, err)
	for name, tool := range allTools {
		code := codeOf(t, c.Call(t.Context(), name, tool.args, nil))
		open := slices.Contains(tool.scopes, node.Read) || slices.Contains(tool.scopes, node.Federate)
		if open == (code == "forbidden") {
			t.Errorf("tool %s: found code %q", name, code)
		}
	}
	assert.NilError(t, c.Close())
	for _, cert := range []*tls.Certificate{nil, &foreign.pair} {
		_, err := node.Dial(t.Context(), url, node.DialOptions{RootCAs: pool, Certificate: cert})
		assert.Assert(t, err != nil)
	}
	_, err = node.Dial(t.Context(), strings.Replace(url, "https", "http", 1), node.DialOptions{})
	assert.Assert(t, err != nil)
	assert.NilError(t, stop())
}

func TestTheUserOfTheNodeReachesItWithTheControlToken(t *testing.T) {
	ca := certificate(t, "ca", nil)
	for name, o := range map[string]node.Options{
		"loopback": {},
		"TLS":      {TLS: &tls.Config{Certificates: []tls.Certificate{ca.pair}, MinVersion: tls.VersionTLS12}},
	} {
		t.Run(name, func(t *testing.T) {
			var log notes
			o.Store = newStore(t, "local/a")
			o.Control = filepath.Join(t.TempDir(), "control.json")
			o.Logger = log.logger()
			_, err := node.ReadControl(o.Control)
			assert.Assert(t, errors.Is(err, fs.ErrNotExist))
			_, stop := run(t, listen(t, "127.0.0.1:0"), o)
			info, err := os.Stat(o.Control)
			assert.NilError(t, err)
			assert.Equal(t, info.Mode().Perm(), fs.FileMode(0o600))
			control, err := node.ReadControl(o.Control)
			assert.NilError(t, err)
			assert.Assert(t, strings.HasPrefix(control.URL, "http://127.0.0.1:"), control.URL)
			c := client(t, control.URL, control.Token)
			assert.NilError(t, c.Call(t.Context(), "record_decision", anyMap{"title": "t", "body": "b"}, nil))
			assert.NilError(t, c.Call(t.Context(), "health", nil, nil))
			if o.TLS != nil {
				// The door on loopback is for tokens only.
				status, _, _ := ask(t, "GET", strings.TrimSuffix(control.URL, "/mcp")+"/checkpoint", "", "")
				assert.Equal(t, status, http.StatusUnauthorized)
			}
			assert.NilError(t, c.Close())
			assert.NilError(t, stop())
			_, err = os.Stat(o.Control)
			assert.Assert(t, errors.Is(err, fs.ErrNotExist))
			assert.Assert(t, !strings.Contains(log.String(), control.Token), "the token is in the log")
		})
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	var log notes
	url := start(t, node.Options{Logger: log.logger(), Tokens: []node.Token{tokenOf(t, "scribe", node.Record)}})
	c := client(t, url, secretOf("scribe"))
	assert.NilError(t, c.Call(t.Context(), "record_decision", anyMap{"title": "Confidential", "body": "password hunter2"}, nil))
	_, _, _ = ask(t, "GET", url+"/checkpoint?token=abcdefgh", "a-wrong-token", "")
	text := log.String()
	assert.Assert(t, strings.Contains(text, "tool=record_decision") && strings.Contains(text, `caller="token scribe"`), text)
	for _, secret := range []string{secretOf("scribe"), "a-wrong-token", "abcdefgh", "hunter2", "Confidential"} {
		assert.Assert(t, !strings.Contains(text, secret), secret)
	}
}

func TestARequestThatIsTooLargeIsRefused(t *testing.T) {
	url := start(t, node.Options{Limits: node.Limits{Body: 100_000}}) + "/mcp"
	header := []string{"Content-Type", "application/json", "Accept", "application/json, text/event-stream"}
	status, answer, _ := ask(t, "POST", url, "", strings.Repeat(" ", 100_001), header...)
	assert.Equal(t, status, http.StatusRequestEntityTooLarge, answer)

	// The length need not be told in advance.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, io.MultiReader(strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"x":"`), endless{}))
	assert.NilError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err == nil { // the connection may be cut before the answer is read
		_ = resp.Body.Close()
		assert.Equal(t, resp.StatusCode, http.StatusRequestEntityTooLarge)
	}
	status, _, _ = ask(t, "POST", strings.TrimSuffix(url, "/mcp")+"/add-checkpoint", "", strings.Repeat("x", 99_000)+strings.Repeat("y", 40_000))
	assert.Equal(t, status, http.StatusRequestEntityTooLarge)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestAnAnswerThatIsTooLargeIsNotSent(t *testing.T) {
	store := newStore(t, "local/a")
	for i := range 4 {
		record(t, store, receipt.Incident, fmt.Sprint("i", i), anyMap{"title": strings.Repeat("x", 1000)})
	}
	c := client(t, start(t, node.Options{Store: store, Limits: node.Limits{Answer: 1500}}), "")
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "search_memories", anyMap{"query": "incident"}, nil)), "too_large")
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "fed_tail", federate.TailIn{Size: 4}, nil)), "too_large")
	assert.NilError(t, c.Call(t.Context(), "list_peers", nil, nil))
}

// waiter is a Verify that waits until it is told.
type waiter struct {
	entered chan struct{}
	leave   chan struct{}
	cut     chan struct{} // those that were cut off
}

func newWaiter() *waiter {
	return &waiter{make(chan struct{}, 100), make(chan struct{}), make(chan struct{}, 100)}
}

func (w *waiter) verify(ctx context.Context, _ *os.Root, _ string) (node.Outcome, error) {
	w.entered <- struct{}{}
	select {
	case <-w.leave:
		return node.Outcome{OK: true}, nil
	case <-ctx.Done():
		w.cut <- struct{}{}
		return node.Outcome{}, ctx.Err()
	}
}

var artifact = anyMap{"artifact_path": "dist/app.tar.gz"}

func TestSoManyCallsAtATime(t *testing.T) {
	w := newWaiter()
	url := start(t, node.Options{Workspace: workspace(t), Verify: w.verify, Limits: node.Limits{PerTool: 1, Wait: 10 * time.Millisecond}})
	c := client(t, url, "")
	first := make(chan error, 1)
	go func() { first <- c.Call(t.Context(), "verify_artifact", artifact, nil) }()
	<-w.entered
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "verify_artifact", artifact, nil)), "busy")
	assert.NilError(t, c.Call(t.Context(), "health", nil, nil)) // others go on
	close(w.leave)
	assert.NilError(t, <-first)
	assert.NilError(t, c.Call(t.Context(), "verify_artifact", artifact, nil))
}

func TestSoManyRequestsAtATime(t *testing.T) {
	w := newWaiter()
	url := start(t, node.Options{Workspace: workspace(t), Verify: w.verify, Limits: node.Limits{Requests: 1, Wait: 10 * time.Millisecond}})
	c := client(t, url, "")
	first := make(chan error, 1)
	go func() { first <- c.Call(t.Context(), "verify_artifact", artifact, nil) }()
	<-w.entered
	status, _, h := ask(t, "GET", url+"/checkpoint", "", "")
	assert.Equal(t, status, http.StatusServiceUnavailable)
	assert.Equal(t, h.Get("Retry-After"), "1")
	status, _, _ = ask(t, "GET", url+"/healthz", "", "")
	assert.Equal(t, status, http.StatusOK)
	close(w.leave)
	assert.NilError(t, <-first)
}

// narrowListener leaves little to the buffers of the system.
type narrowListener struct{ net.Listener }

func (l narrowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		err = c.(*net.TCPConn).SetWriteBuffer(4096)
	}
	return c, err
}

// What is large stays in memory until it has been read, so that also has its limit.
func TestALargeAnswerHasAPlaceUntilItIsRead(t *testing.T) {
	searched := make(chan struct{}, 16)
	url, _ := run(t, narrowListener{listen(t, "127.0.0.1:0")}, node.Options{
		Limits: node.Limits{Wait: 50 * time.Millisecond},
		Search: func(context.Context, string, int) ([]node.Hit, error) {
			searched <- struct{}{}
			return []node.Hit{{Title: strings.Repeat("x", 1<<19)}}, nil
		},
	})
	addr := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/mcp")
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_memories","arguments":{"query":"x"}}}`
	request := fmt.Sprintf("POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	var slow []net.Conn
	for range 16 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		assert.NilError(t, err)
		assert.NilError(t, conn.(*net.TCPConn).SetReadBuffer(4096))
		_, err = io.WriteString(conn, request)
		assert.NilError(t, err)
		slow = append(slow, conn)
		<-searched
	}
	c := client(t, url, "")
	until := time.Now().Add(10 * time.Second)
	for codeOf(t, c.Call(t.Context(), "list_memory_ids", nil, nil)) != "busy" {
		assert.Assert(t, time.Now().Before(until), "16 answers of megabytes wait to be read, and a seventeenth is made")
	}
	assert.NilError(t, c.Call(t.Context(), "health", nil, nil)) // small ones go on
	for _, conn := range slow {
		_ = conn.Close()
	}
	for codeOf(t, c.Call(t.Context(), "list_memory_ids", nil, nil)) != "" {
		assert.Assert(t, time.Now().Before(until), "the places were not given back")
	}
}

func TestACallEndsAtItsDeadline(t *testing.T) {
	w := newWaiter()
	url := start(t, node.Options{Workspace: workspace(t), Verify: w.verify, Limits: node.Limits{Call: 30 * time.Millisecond}})
	assert.Equal(t, codeOf(t, client(t, url, "").Call(t.Context(), "verify_artifact", artifact, nil)), "busy")
}

func TestAPanicIsAnErrorAndTheNodeGoesOn(t *testing.T) {
	var log notes
	url := start(t, node.Options{
		Logger: log.logger(),
		Search: func(context.Context, string, int) ([]node.Hit, error) { panic("search broke") },
	})
	c := client(t, url, "")
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "search_memories", anyMap{"query": "x"}, nil)), "internal")
	assert.Assert(t, strings.Contains(log.String(), "search broke") && strings.Contains(log.String(), "server_test.go"))
	assert.NilError(t, c.Call(t.Context(), "health", nil, nil))
}

func TestSlowClientsAreCutOff(t *testing.T) {
	w := newWaiter()
	url, _ := run(t, listen(t, "127.0.0.1:0"), node.Options{
		Workspace: workspace(t), Verify: w.verify,
		Limits: node.Limits{ReadHeader: 100 * time.Millisecond, Read: 200 * time.Millisecond, Write: 2 * time.Second, Idle: 100 * time.Millisecond},
	})
	addr := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/mcp")
	for name, sent := range map[string]string{
		"says nothing":                "",
		"does not end its head":       "GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
		"does not end its body":       "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: */*\r\nContent-Length: 100\r\n\r\n{",
		"keeps its connection unused": "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
			assert.NilError(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, sent)
			assert.NilError(t, err)
			assert.NilError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
			_, err = io.Copy(io.Discard, conn)
			assert.NilError(t, err, "the node did not close the connection") // a deadline would be an error
		})
	}
}

func TestASyncThatWasAskedForMayTakeLonger(t *testing.T) {
	url, _ := run(t, listen(t, "127.0.0.1:0"), node.Options{
		Tokens: []node.Token{tokenOf(t, "operator", node.Admin)},
		Sync: func(ctx context.Context, _, _ string) (any, error) {
			select {
			case <-time.After(400 * time.Millisecond):
				return "done", nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		Limits: node.Limits{Read: 100 * time.Millisecond, Write: 150 * time.Millisecond, Call: 100 * time.Millisecond},
	})
	assert.NilError(t, client(t, url, secretOf("operator")).Call(t.Context(), "federation_sync", anyMap{"peer": "x"}, nil))
}

func TestAtTheEndCallsUnderWayAreFinished(t *testing.T) {
	w := newWaiter()
	url, stop := run(t, listen(t, "127.0.0.1:0"), node.Options{Workspace: workspace(t), Verify: w.verify})
	c := client(t, url, "")
	called := make(chan error, 1)
	go func() { called <- c.Call(context.WithoutCancel(t.Context()), "verify_artifact", artifact, nil) }()
	<-w.entered
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	time.Sleep(50 * time.Millisecond)
	select {
	case err := <-ended:
		t.Fatalf("the node ended with a call under way: %v", err)
	default:
	}
	close(w.leave)
	assert.NilError(t, <-called)
	assert.NilError(t, <-ended)
}

// A stream that tells of changes would hold its place for as long as anybody likes.
func TestNoStreamStaysOpen(t *testing.T) {
	url := start(t, node.Options{})
	for method, c := range map[string]struct{ params, want string }{
		"subscriptions/listen": {`{"notifications":{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true,"resourceSubscriptions":["merkle://root"]},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"x","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}`, `"resultType":"complete"`},
		"resources/subscribe":  {`{"uri":"merkle://root"}`, "method not found"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/mcp", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":`+c.params+`}`))
		assert.NilError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/json, text/event-stream")
		if strings.HasPrefix(method, "subscriptions") {
			req.Header.Set("MCP-Protocol-Version", "2026-07-28")
			req.Header.Set("Mcp-Method", method)
		}
		resp, err := http.DefaultClient.Do(req)
		assert.NilError(t, err, method)
		body, err := io.ReadAll(resp.Body)
		assert.NilError(t, err, method)
		_ = resp.Body.Close()
		assert.Assert(t, strings.Contains(string(body), c.want), "%s: %s", method, body)
	}
	status, _, _ := ask(t, "GET", url+"/mcp", "", "", "Accept", "text/event-stream")
	assert.Equal(t, status, http.StatusMethodNotAllowed)
}

func TestTheEndDoesNotWaitForEver(t *testing.T) {
	w := newWaiter()
	url, stop := run(t, listen(t, "127.0.0.1:0"), node.Options{
		Workspace: workspace(t), Verify: w.verify, Limits: node.Limits{Drain: 100 * time.Millisecond},
	})
	c := client(t, url, "")
	called := make(chan error, 1)
	go func() { called <- c.Call(t.Context(), "verify_artifact", artifact, nil) }()
	<-w.entered
	began := time.Now()
	assert.NilError(t, stop())
	assert.Assert(t, time.Since(began) < 5*time.Second)
	assert.Equal(t, len(w.cut), 1, "a call goes on after the end of the node")
	assert.Assert(t, <-called != nil)
}

func TestSoManyConnectionsAtATime(t *testing.T) {
	url, _ := run(t, listen(t, "127.0.0.1:0"), node.Options{Limits: node.Limits{Connection: 1}})
	addr := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/mcp")
	first, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	assert.NilError(t, err)
	get := func(c net.Conn, wait time.Duration) error {
		if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
		_, err := bufio.NewReader(c).ReadString('\n')
		return err
	}
	assert.NilError(t, get(first, 5*time.Second))
	second, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	assert.NilError(t, err)
	defer second.Close()
	assert.Assert(t, get(second, 100*time.Millisecond) != nil, "a second connection was served")
	_ = first.Close()
	assert.NilError(t, get(second, 5*time.Second))
}

func TestANodeThatCannotRecordIsNotReady(t *testing.T) {
	store, dir := newStoreIn(t, "local/a")
	record(t, store, receipt.Deploy, "app-v1", anyMap{"component": "app"})
	now := time.Now()
	url := start(t, node.Options{Store: store, Now: func() time.Time { return now }, Tokens: []node.Token{tokenOf(t, "scribe", node.Read, node.Record)}})
	c := client(t, url, secretOf("scribe"))
	decide := func(title string) string {
		return codeOf(t, c.Call(t.Context(), "record_decision", anyMap{"title": title, "body": "b"}, nil))
	}
	status := func() int {
		status, _, _ := ask(t, "GET", url+"/readyz", "", "")
		return status
	}
	assert.Equal(t, status(), http.StatusOK)

	// The segment's folder is gone, and something else stands in its place.
	segments := filepath.Join(dir, "log")
	assert.NilError(t, os.Rename(segments, segments+".away"))
	assert.NilError(t, os.WriteFile(segments, nil, 0o600))
	assert.Equal(t, decide("one"), "internal")
	assert.Equal(t, status(), http.StatusServiceUnavailable)
	// Nothing found would be a lie.
	assert.Equal(t, codeOf(t, c.Call(t.Context(), "search_memories", anyMap{"query": "app"}, nil)), "internal")
	alive, _, _ := ask(t, "GET", url+"/healthz", "", "")
	assert.Equal(t, alive, http.StatusOK)
	var health anyMap
	if err := c.Call(t.Context(), "health", nil, &health); err == nil {
		assert.Equal(t, health["ok"], false)
	}
	assert.Equal(t, series(t, url, secretOf("scribe"))["remembrancer_ready"], "0")

	// Repaired, it shows so with the next receipt, or after a while without one.
	assert.NilError(t, os.Remove(segments))
	assert.NilError(t, os.Rename(segments+".away", segments))
	assert.Equal(t, status(), http.StatusServiceUnavailable)
	now = now.Add(2 * time.Minute)
	assert.Equal(t, status(), http.StatusOK)
	now = now.Add(-2 * time.Minute)
	assert.Equal(t, decide("two"), "")
	assert.Equal(t, status(), http.StatusOK)
}

// A guide of 500 records a second, scaled to what a shared machine does in a test:
// none may be lost, and all are in the log.
func TestWhatIsAcknowledgedIsInTheLog(t *testing.T) {
	store := newStore(t, "local/a")
	url, _ := run(t, listen(t, "127.0.0.1:0"), node.Options{Store: store, Tokens: []node.Token{tokenOf(t, "scribe", node.Record)}})
	var wg sync.WaitGroup
	var mu sync.Mutex
	acknowledged := map[string]int64{}
	for w := range 8 {
		c := client(t, url, secretOf("scribe"))
		wg.Go(func() {
			for i := range 10 {
				var out recorded
				if err := c.Call(t.Context(), "record_decision", anyMap{"title": fmt.Sprint("d", w, "-", i), "body": "b"}, &out); err != nil {
					t.Error(err)
					continue
				}
				mu.Lock()
				acknowledged[out.Recorded.ID] = out.Recorded.Index
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	assert.Equal(t, len(acknowledged), 80)
	inLog := map[string]int64{}
	for index, e := range store.Entries() {
		inLog[e.Receipt.ID().String()] = index
	}
	assert.DeepEqual(t, inLog, acknowledged)
}

func TestControlFilesAreReadStrictly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.json")
	for _, content := range []string{"", "{}", `{"url":"http://x"}`, `[]`} {
		assert.NilError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := node.ReadControl(path)
		assert.Assert(t, err != nil, content)
	}
	want := node.Control{URL: "http://127.0.0.1:1/mcp", Token: "t"}
	b, err := json.Marshal(want)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(path, b, 0o600))
	got, err := node.ReadControl(path)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, want)
}
