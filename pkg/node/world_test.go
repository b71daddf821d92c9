package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// newStore makes the store of a new node.
func newStore(t testing.TB, name string) *federate.Store {
	t.Helper()
	store, _ := newStoreIn(t, name)
	return store
}

func newStoreIn(t testing.TB, name string) (*federate.Store, string) {
	t.Helper()
	dir := t.TempDir()
	assert.NilError(t, federate.InitStore(t.Context(), dir, name, rand.Reader, time.Now()))
	store, err := federate.LoadStore(t.Context(), dir, federate.StoreOptions{Now: time.Now, Node: name}, nil)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	return store, dir
}

func newServer(t testing.TB, o node.Options) *node.Server {
	t.Helper()
	if o.Store == nil {
		o.Store = newStore(t, "local/a")
	}
	if o.Service == nil {
		o.Service = federate.NewService(o.Store, federate.ServiceOptions{})
	}
	s, err := node.New(o)
	assert.NilError(t, err)
	return s
}

// start serves a node on loopback, without the timeouts of Serve, and returns its
// address.
func start(t testing.TB, o node.Options) string {
	t.Helper()
	return serveHandler(t, newServer(t, o))
}

func serveHandler(t testing.TB, s *node.Server) string {
	t.Helper()
	web := httptest.NewServer(s.Handler())
	t.Cleanup(web.Close)
	return web.URL
}

// run serves a node as the program does. stop ends it and waits.
func run(t testing.TB, l net.Listener, o node.Options) (url string, stop func() error) {
	t.Helper()
	ready := make(chan string, 1)
	o.OnReady = func(url string) { ready <- url }
	s := newServer(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	select {
	case url = <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("the node ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("the node does not listen")
	}
	return url, stop
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// secretOf is a secret for a test, long enough to be one.
func secretOf(name string) string { return name + "-" + strings.Repeat("0123456789abcdef", 2) }

func tokenOf(t testing.TB, name string, scopes ...node.Scope) node.Token {
	t.Helper()
	token, err := node.NewToken(name, secretOf(name), scopes...)
	assert.NilError(t, err)
	return token
}

func client(t testing.TB, url, token string) *node.Client {
	t.Helper()
	c, err := node.Dial(t.Context(), strings.TrimSuffix(url, node.MCPPath)+node.MCPPath, node.DialOptions{Token: token, Timeout: 20 * time.Second})
	assert.NilError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// codeOf is the code of a tool's error; "" for none.
func codeOf(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	e, ok := err.(*node.ToolError) //nolint:errorlint // it is not wrapped
	assert.Assert(t, ok, "%T %v", err, err)
	return e.Code
}

type bearer struct{ token string }

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if b.token != "" {
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return http.DefaultTransport.RoundTrip(r)
}

// session speaks MCP with the library, for what the node's own client has no use for.
func session(t testing.TB, url, token string) *mcp.ClientSession {
	t.Helper()
	c, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(t.Context(), &mcp.StreamableClientTransport{
		Endpoint: url + node.MCPPath, HTTPClient: &http.Client{Transport: bearer{token}}, MaxRetries: -1, DisableStandaloneSSE: true,
	}, nil)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask is one plain HTTP request.
func ask(t testing.TB, method, url, token, body string, header ...string) (status int, answer string, h http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	assert.NilError(t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	assert.NilError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	assert.NilError(t, err)
	return resp.StatusCode, string(b), resp.Header
}

const someDigest = "9fe65ef6bf4f6da65a5f6dbe8200fdf80f337726658f47439253f75eed47c9e5"

// record records a receipt without asking the node.
func record(t testing.TB, s *federate.Store, kind receipt.Kind, name string, predicate map[string]any) *receipt.Receipt {
	t.Helper()
	r, err := s.Record(t.Context(), kind, name, []receipt.Subject{{Name: "dist/app.tar.gz", SHA256: someDigest}}, predicate)
	assert.NilError(t, err)
	return r
}

// notes is a log that a test reads.
type notes struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

func (n *notes) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(n, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
