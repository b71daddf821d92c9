package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/node"
)

// A node that says what is not so is found wanting, which is another exit status than
// that of a measurement that failed.
func TestSoakFailsOnANodeThatLies(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "node")
	assert.NilError(t, federate.InitStore(t.Context(), data, "local/a", rand.Reader, time.Now()))
	store, err := federate.LoadStore(t.Context(), data, federate.StoreOptions{Now: time.Now, Node: "local/a"}, nil)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	secret := strings.Repeat("0123456789abcdef", 2)
	token, err := node.NewToken("soak", secret, node.Read, node.Record, node.Federate)
	assert.NilError(t, err)
	server, err := node.New(node.Options{Store: store, Service: federate.NewService(store, federate.ServiceOptions{}), Tokens: []node.Token{token}})
	assert.NilError(t, err)
	honest := server.Handler()
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if bytes.Contains(body, []byte("forget_decision")) { // it does what it does not know
			rw.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(rw, `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"{}"}]}}`)
			return
		}
		honest.ServeHTTP(rw, r)
	}))
	t.Cleanup(web.Close)
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "token"), []byte(secret), 0o600))

	var out, stderr bytes.Buffer
	w := &world{
		ctx: context.Background(), dir: dir, now: time.Now, rand: rand.Reader, stdin: strings.NewReader(""), stdout: &out, stderr: &stderr,
		getenv: func(name string) string {
			return map[string]string{"REMEMBRANCER_STATE": filepath.Join(dir, "state")}[name]
		},
	}
	code := w.run([]string{
		"soak", "--node", web.URL, "--data", "node", "--token-file", "token", "--duration", "2s", "--rate", "20", "--max-lag", "5s",
		"--weights", "append=1,denied=4", "--seed", "3", "--out", "soak.json",
	})
	assert.Equal(t, code, exitFail, "%s%s", &out, &stderr)
	assert.Assert(t, strings.Contains(out.String(), "a tool that is not there: the node took it, and must refuse it"), out.String())
	assert.Assert(t, strings.HasSuffix(out.String(), "\nFAIL\n"), out.String())
	written, err := os.ReadFile(filepath.Join(dir, "soak.json"))
	assert.NilError(t, err)
	assert.Assert(t, bytes.Contains(written, []byte(`"verdict": "fail"`)))
}
