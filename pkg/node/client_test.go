package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	other "github.com/mark3labs/mcp-go/mcp"
	otherserver "github.com/mark3labs/mcp-go/server"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"gotest.tools/v3/assert"
)

var discard = log.New(io.Discard, "", 0)

type echoed struct {
	Words []string `json:"words"`
	N     int64    `json:"n"`
}

// mcpServer serves the tool echo, and some that fail, as a node serves its tools.
func mcpServer() http.Handler {
	s := mcp.NewServer(&mcp.Implementation{Name: "peer", Version: "1"}, nil)
	ok := []mcp.Content{&mcp.TextContent{Text: "ok"}}
	mcp.AddTool(s, &mcp.Tool{Name: "echo"}, func(_ context.Context, _ *mcp.CallToolRequest, in echoed) (*mcp.CallToolResult, echoed, error) {
		return &mcp.CallToolResult{Content: ok}, in, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "text"}, func(_ context.Context, _ *mcp.CallToolRequest, in echoed) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: in.Words[0]}}}, nil, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "fail"}, func(_ context.Context, _ *mcp.CallToolRequest, in echoed) (*mcp.CallToolResult, any, error) {
		return nil, nil, errors.New(in.Words[0])
	})
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, &mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true})
}

func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.CloseClientConnections() // so that no hostile handler is waited for
		s.Close()
	})
	return s.URL + "/mcp"
}

func dial(t testing.TB, endpoint string, o DialOptions) *Client {
	t.Helper()
	c, err := Dial(t.Context(), endpoint, o)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestACallCarriesItsArgumentsAndItsAnswerWhole(t *testing.T) {
	c := dial(t, serve(t, mcpServer()), DialOptions{})
	want := echoed{[]string{"a", "\"\\[,{", "ö\n"}, 1 << 53}
	var got echoed
	assert.NilError(t, c.Call(t.Context(), "echo", want, &got))
	assert.DeepEqual(t, got, want)
	assert.NilError(t, c.Call(t.Context(), "echo", want, nil))

	got = echoed{}
	assert.NilError(t, c.Call(t.Context(), "text", echoed{Words: []string{`{"words":["b"],"n":2}`}}, &got))
	assert.DeepEqual(t, got, echoed{[]string{"b"}, 2})
}

func TestAnAnswerThatIsNotWhatWasAskedForIsAnError(t *testing.T) {
	c := dial(t, serve(t, mcpServer()), DialOptions{})
	for _, tc := range []struct{ text, want string }{
		{`{"words":[],"n":2,"m":3}`, `text: answer: json: unknown field "m"`},
		{`{"words":[],"n":2} {}`, `text: answer: more than one JSON value`},
		{`{"words":7}`, `text: answer: json: cannot unmarshal number into Go struct field echoed.words of type []string`},
		{`ok`, `text: answer: invalid character 'o' looking for beginning of value`},
		{``, `text: the answer is empty, wanted JSON`},
	} {
		var got echoed
		assert.Error(t, c.Call(t.Context(), "text", echoed{Words: []string{tc.text}}, &got), tc.want)
	}
}

func TestAnErrorOfAToolKeepsItsCode(t *testing.T) {
	c := dial(t, serve(t, mcpServer()), DialOptions{})
	for _, tc := range []struct {
		text string
		want ToolError
	}{
		{"stale_root: no such set", ToolError{"fail", "stale_root", "no such set"}},
		{"Not a code: x", ToolError{"fail", "", "Not a code: x"}},
		{"", ToolError{"fail", "", ""}},
		{"busy: " + strings.Repeat("x", 2000), ToolError{"fail", "busy", strings.Repeat("x", 1024) + "…"}},
	} {
		err := c.Call(t.Context(), "fail", echoed{Words: []string{tc.text}}, nil)
		var e *ToolError
		assert.Assert(t, errors.As(err, &e), "%v", err)
		assert.DeepEqual(t, *e, tc.want)
		assert.Equal(t, e.ErrorCode(), tc.want.Code)
	}
	assert.Error(t, c.Call(t.Context(), "fail", echoed{Words: []string{"stale_root: no such set"}}, nil), "fail: the peer answered stale_root: no such set")
	assert.Error(t, c.Call(t.Context(), "nosuch", nil, nil), `nosuch: the peer answered: unknown tool "nosuch"`)
	var got echoed
	assert.NilError(t, c.Call(t.Context(), "echo", echoed{N: 1, Words: []string{}}, &got), "the session goes on after errors")
}

func TestAClientIsForManyGoroutines(t *testing.T) {
	c := dial(t, serve(t, mcpServer()), DialOptions{})
	errs := make(chan error)
	for i := range 8 {
		go func() {
			var got echoed
			err := c.Call(t.Context(), "echo", echoed{N: int64(i), Words: []string{}}, &got)
			if err == nil && got.N != int64(i) {
				err = fmt.Errorf("found %d, wanted %d", got.N, i)
			}
			errs <- err
		}()
	}
	for range 8 {
		assert.NilError(t, <-errs)
	}
	calls, _, _ := c.Counters()
	assert.Equal(t, calls, int64(8))
}

func TestBytesAreCountedAsTheyTravel(t *testing.T) {
	c := dial(t, serve(t, mcpServer()), DialOptions{})
	calls, sent, received := c.Counters()
	assert.Equal(t, calls, int64(0))
	assert.Assert(t, sent > 200 && received > 200, "the opening counts: %d, %d", sent, received)
	word := strings.Repeat("x", 100_000)
	assert.NilError(t, c.Call(t.Context(), "echo", echoed{Words: []string{word}}, nil))
	calls, sent2, received2 := c.Counters()
	assert.Equal(t, calls, int64(1))
	for _, n := range []int64{sent2 - sent, received2 - received} {
		assert.Assert(t, n > 100_000 && n < 102_000, "%d", n)
	}
}

func TestASecondImplementationOfTheProtocolIsUnderstood(t *testing.T) {
	s := otherserver.NewMCPServer("other", "1", otherserver.WithToolCapabilities(false))
	s.AddTool(other.NewTool("echo", other.WithString("word", other.Required())), func(_ context.Context, r other.CallToolRequest) (*other.CallToolResult, error) {
		return other.NewToolResultStructuredOnly(map[string]any{"words": []string{r.GetString("word", "")}, "n": 3}), nil
	})
	s.AddTool(other.NewTool("text"), func(context.Context, other.CallToolRequest) (*other.CallToolResult, error) {
		return other.NewToolResultText(`{"words":null,"n":4}`), nil
	})
	s.AddTool(other.NewTool("fail"), func(context.Context, other.CallToolRequest) (*other.CallToolResult, error) {
		return other.NewToolResultError("busy: come again"), nil
	})
	for name, stateless := range map[string]bool{"with sessions": false, "stateless": true} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, serve(t, otherserver.NewStreamableHTTPServer(s, otherserver.WithStateLess(stateless))), DialOptions{})
			var got echoed
			assert.NilError(t, c.Call(t.Context(), "echo", map[string]string{"word": "w"}, &got))
			assert.DeepEqual(t, got, echoed{[]string{"w"}, 3})
			assert.NilError(t, c.Call(t.Context(), "text", nil, &got))
			assert.DeepEqual(t, got, echoed{nil, 4})
			assert.Error(t, c.Call(t.Context(), "fail", nil, nil), "fail: the peer answered busy: come again")
		})
	}
}

func TestATokenGoesWithEveryRequest(t *testing.T) {
	h := mcpServer()
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer s3cret" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	}))
	c := dial(t, url, DialOptions{Token: "s3cret"})
	assert.NilError(t, c.Call(t.Context(), "echo", echoed{Words: []string{}}, nil))

	_, err := Dial(t.Context(), url, DialOptions{Token: "other"})
	assert.ErrorContains(t, err, "HTTP status 401")
	assert.Assert(t, !strings.Contains(err.Error(), "other"), "%v", err)
	_, err = Dial(t.Context(), url, DialOptions{Token: "a\nb"})
	assert.Error(t, err, "dial: the token holds a blank or a character that is not printable ASCII")
}

func TestARefusalByHTTPHasACode(t *testing.T) {
	h, status := mcpServer(), 0
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status != 0 {
			http.Error(w, "no", status)
			return
		}
		h.ServeHTTP(w, r)
	}))
	for _, tc := range []struct {
		status     int
		code, text string
	}{
		{401, "forbidden", "HTTP status 401 Unauthorized"},
		{403, "forbidden", "HTTP status 403 Forbidden"},
		{413, "too_large", "HTTP status 413 Request Entity Too Large"},
		{429, "busy", "HTTP status 429 Too Many Requests"},
		{503, "busy", "HTTP status 503 Service Unavailable"},
	} {
		status = 0
		c := dial(t, url, DialOptions{})
		status = tc.status
		var e *ToolError
		assert.Assert(t, errors.As(c.Call(t.Context(), "echo", echoed{Words: []string{}}, nil), &e))
		assert.DeepEqual(t, *e, ToolError{"echo", tc.code, tc.text})
	}
	status = 0
	c := dial(t, url, DialOptions{})
	status = http.StatusTeapot
	assert.ErrorContains(t, c.Call(t.Context(), "echo", echoed{Words: []string{}}, nil), "echo: HTTP status 418: ")
}

func TestEndpointsAreURLsOfAPeer(t *testing.T) {
	for endpoint, want := range map[string]string{
		"":                         `dial: found "", wanted a URL such as http://localhost:8002/mcp`,
		"localhost:8002":           `dial: found "localhost:8002", wanted a URL such as http://localhost:8002/mcp`,
		"file:///etc/passwd":       `dial: found "file:///etc/passwd", wanted a URL such as http://localhost:8002/mcp`,
		"http:///mcp":              `dial: found "http:///mcp", wanted a URL such as http://localhost:8002/mcp`,
		"http://u:p@localhost/mcp": `dial: found a name or password in the URL, wanted a URL such as http://localhost:8002/mcp, and a token`,
		"http://localhost/mcp#x":   `dial: found "http://localhost/mcp#x", wanted a URL such as http://localhost:8002/mcp, without #`,
	} {
		_, err := Dial(t.Context(), endpoint, DialOptions{})
		assert.Error(t, err, want)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	assert.NilError(t, l.Close())
	_, err = Dial(t.Context(), "http://"+l.Addr().String(), DialOptions{})
	assert.ErrorContains(t, err, "connection refused")
}

func TestAPeerIsTrustedByItsCertificateAndTrustsOurs(t *testing.T) {
	ours, pool := clientCertificate(t)
	s := httptest.NewUnstartedServer(mcpServer())
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.Config.ErrorLog = discard
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())

	c := dial(t, s.URL, DialOptions{RootCAs: roots, Certificate: ours})
	assert.NilError(t, c.Call(t.Context(), "echo", echoed{Words: []string{}}, nil))

	_, err := Dial(t.Context(), s.URL, DialOptions{Certificate: ours})
	assert.ErrorContains(t, err, "certificate signed by unknown authority")
	_, err = Dial(t.Context(), s.URL, DialOptions{RootCAs: roots})
	assert.ErrorContains(t, err, "certificate required")
}

func clientCertificate(t *testing.T) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NilError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	assert.NilError(t, err)
	cert, err := x509.ParseCertificate(der)
	assert.NilError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestRedirectsStayOnTheHost(t *testing.T) {
	h := mcpServer()
	var elsewhere atomic.Int64
	away := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		elsewhere.Add(1)
		h.ServeHTTP(w, r)
	}))
	mux := http.NewServeMux()
	mux.Handle("/real", h)
	for path, to := range map[string]string{"/near": "/real", "/away": away, "/loop": "/loop"} {
		mux.Handle(path, http.RedirectHandler(to, http.StatusTemporaryRedirect))
	}
	mux.Handle("/get", http.RedirectHandler("/real", http.StatusFound))
	base := strings.TrimSuffix(serve(t, mux), "/mcp")

	c := dial(t, base+"/near", DialOptions{Token: "x"})
	assert.NilError(t, c.Call(t.Context(), "echo", echoed{Words: []string{}}, nil))
	for path, want := range map[string]string{
		"/away": "the peer redirects to " + strings.TrimSuffix(away, "/mcp") + ", wanted the same host: give the peer's real URL",
		"/loop": "the peer redirects more than 5 times",
		"/get":  "the peer redirects so that POST becomes GET, wanted status 307 or 308: give the peer's real URL",
	} {
		_, err := Dial(t.Context(), base+path, DialOptions{Token: "x"})
		assert.ErrorContains(t, err, want)
	}
	assert.Equal(t, elsewhere.Load(), int64(0))
}

// hostile opens sessions as it should and then does its worst.
func hostile(t testing.TB, worst http.HandlerFunc) string {
	t.Helper()
	h := mcpServer()
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if bytes.Contains(body, []byte(`"tools/call"`)) {
			worst(w, r)
			return
		}
		h.ServeHTTP(w, r)
	}))
}

// flood writes until nobody reads any more, at most 256 MiB.
func flood(w http.ResponseWriter, head, piece string) {
	_, _ = io.WriteString(w, head)
	block := strings.Repeat(piece, 64<<10/len(piece)+1)
	for sent := 0; sent < 256<<20; sent += len(block) {
		if _, err := io.WriteString(w, block); err != nil {
			return
		}
	}
}

func TestAHostileAnswerIsRefusedInBoundedMemory(t *testing.T) {
	const start = `{"jsonrpc":"2.0","id":2,"result":{"content":[],"structuredContent":`
	tooLong := "echo: the answer is of more than 8388608 bytes, wanted fewer"
	tooMany := "echo: the answer is of more than 104000 JSON values or 1024 lines, wanted fewer"
	for name, tc := range map[string]struct {
		kind string
		head string
		each string
		want string
	}{
		"256 MiB of text":          {"application/json", start + `"`, "x", tooLong},
		"an endless event":         {"text/event-stream", "data: ", "x", tooLong},
		"an endless line":          {"text/event-stream", "", "x", tooLong},
		"endless empty events":     {"text/event-stream", "", "data:\n\n", tooMany},
		"endless comments":         {"text/event-stream", "", ": \"\\\n", tooMany},
		"endless notifications":    {"text/event-stream", "", "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1}}\n\n", tooMany},
		"an endless list of lists": {"application/json", start + "[[]", ",[]", tooMany},
		"endless nesting":          {"application/json", start, "[", tooMany},
		"values after a comment":   {"text/event-stream", ": \"\\\ndata: " + start, ",{}", tooMany},
	} {
		t.Run(name, func(t *testing.T) {
			url := hostile(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tc.kind)
				flood(w, tc.head, tc.each)
			})
			c := dial(t, url, DialOptions{})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := c.Call(t.Context(), "echo", echoed{Words: []string{}}, nil)
			runtime.ReadMemStats(&after)
			assert.Error(t, err, tc.want)
			spent := after.TotalAlloc - before.TotalAlloc
			assert.Assert(t, spent < 64<<20, "allocated %d MiB", spent>>20)
		})
	}
}

func TestAnAnswerAsLargeAsAllowedIsHeldInBoundedMemory(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(25)) // so that the heap is what is held
	for name, piece := range map[string]string{"maps": `{"a":{}},`, "names": `{"` + strings.Repeat("n", 100) + `":0},`} {
		t.Run(name, func(t *testing.T) {
			costs := strings.Count(piece, ",") + strings.Count(piece, "[") + strings.Count(piece, "{")
			n := min((maxValues-10)/costs, (maxAnswer-1000)/len(piece))
			body := `{"jsonrpc":"2.0","id":2,"result":{"content":[],"structuredContent":{"words":[` + strings.TrimSuffix(strings.Repeat(piece, n), ",") + `]}}}`
			c := dial(t, hostile(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, body)
			}), DialOptions{})
			runtime.GC()
			held := func() uint64 {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return m.HeapAlloc
			}
			before, done := held(), make(chan error)
			go func() {
				var out any
				done <- c.Call(t.Context(), "echo", echoed{Words: []string{}}, &out)
			}()
			peak := before
			for {
				select {
				case err := <-done:
					assert.NilError(t, err)
					assert.Assert(t, peak-before < 64<<20, "held %d MiB", (peak-before)>>20)
					return
				case <-time.After(5 * time.Millisecond):
					peak = max(peak, held())
				}
			}
		})
	}
}

func TestEachCallEndsAtItsDeadline(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	drip := func(kind, piece string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			for {
				if _, err := io.WriteString(w, piece); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-release:
					return
				case <-r.Context().Done():
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		}
	}
	for name, worst := range map[string]http.HandlerFunc{
		"silence":          func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"dripping JSON":    drip("application/json", " "),
		"dripping events":  drip("text/event-stream", ": x\n\n"),
		"dripping answers": drip("text/event-stream", "data: {\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{}}\n\n"),
		"dripping an error": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			drip("text/html", " ")(w, r)
		},
		"another's answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":99,"result":{}}`)
		},
		"a question in turn": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := Dial(t.Context(), hostile(t, worst), DialOptions{})
			assert.NilError(t, err)
			c.web.timeout = 200 * time.Millisecond // the opening may take longer
			start := time.Now()
			err = c.Call(t.Context(), "echo", echoed{Words: []string{}}, nil)
			assert.Assert(t, errors.Is(err, context.DeadlineExceeded), "%v", err)
			assert.ErrorContains(t, err, "echo: no answer within 200ms")
			_ = c.Close()
			assert.Assert(t, time.Since(start) < 10*time.Second, "%v", time.Since(start))
		})
	}
	t.Run("at the opening", func(t *testing.T) {
		t.Parallel()
		start := time.Now()
		_, err := Dial(t.Context(), serve(t, drip("application/json", " ")), DialOptions{Timeout: 200 * time.Millisecond})
		assert.ErrorContains(t, err, "no answer within 200ms")
		assert.Assert(t, time.Since(start) < 10*time.Second, "%v", time.Since(start))
	})
	t.Run("the caller's own", func(t *testing.T) {
		t.Parallel()
		c := dial(t, hostile(t, drip("application/json", " ")), DialOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		assert.Error(t, c.Call(ctx, "echo", echoed{Words: []string{}}, nil), "echo: context canceled")
	})
}

func TestAPeerThatDoesNotLetGoIsLeft(t *testing.T) {
	h := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server {
		return mcp.NewServer(&mcp.Implementation{Name: "peer", Version: "1"}, nil)
	}, nil)
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			<-r.Context().Done()
			return
		}
		h.ServeHTTP(w, r)
	}))
	c, err := Dial(t.Context(), url, DialOptions{})
	assert.NilError(t, err)
	start := time.Now()
	_ = c.Close()
	assert.Assert(t, time.Since(start) < 10*time.Second, "%v", time.Since(start))
}

func TestAnHTMLPageIsNoPeer(t *testing.T) {
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<!DOCTYPE html><html>")
	}))
	_, err := Dial(t.Context(), url, DialOptions{})
	assert.ErrorContains(t, err, `found the content type "text/html", wanted an MCP server: `)
}
