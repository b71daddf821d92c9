package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vaultmesh/remembrancer/pkg/federate"
)

// What a peer may make us hold. The library reads whatever a server sends, and
// turns it into maps and slices of many times its size, so both the bytes and the
// values of an answer have a limit.
const (
	maxAnswer = 8 << 20     // bytes of the body of one HTTP answer
	maxValues = 104_000     // JSON values of one: a list of 100,000 ids fits
	maxLines  = 1 << 10     // lines of a stream of events, of which one is the answer
	maxHeader = 64 << 10    // bytes of its header
	maxText   = 1 << 10     // bytes of a peer's words that an error repeats
	maxHops   = 5           // redirects
	farewell  = time.Second // a peer that does not let us go is left
)

// events is the content type of a stream.
const events = "text/event-stream"

const defaultTimeout = 30 * time.Second

// DialOptions say how a peer is reached. The zero value reaches one that asks for
// nothing, over HTTP or, with a certificate the system trusts, over HTTPS.
type DialOptions struct {
	Timeout     time.Duration    // of each call, whatever the peer does; 30 s if 0
	Token       string           // bearer token; "": none
	RootCAs     *x509.CertPool   // who vouches for an HTTPS peer; nil: those the system trusts
	Certificate *tls.Certificate // what we show to an HTTPS peer; nil: none
}

// Client calls the tools of one peer, as MCP over streamable HTTP. It may be used
// by several goroutines. A peer that breaks the protocol, or lets a call run into
// its deadline, may break the session: dial again.
//
// A peer is not trusted. An answer of more than 8 MiB, of more than 104,000 JSON
// values, or of more than 1,024 lines of events is refused while it arrives; a call
// ends at its deadline even if the peer drips; no stream stays open between calls;
// nothing is tried twice; and a redirect is followed only on the same scheme, host
// and port.
type Client struct {
	session  *mcp.ClientSession
	web      *web
	endpoint string
	calls    atomic.Int64
}

var _ federate.Caller = (*Client)(nil)

// ToolError is the answer of a peer that understood a call and did not do it.
type ToolError struct {
	Tool    string
	Code    string // such as stale_root; "" if the peer gave none
	Message string // the peer's words, at most 1 KiB; not to be trusted
}

func (e *ToolError) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("%s: the peer answered: %s", e.Tool, e.Message)
	}
	return fmt.Sprintf("%s: the peer answered %s: %s", e.Tool, e.Code, e.Message)
}

// ErrorCode returns e.Code, for those that know the codes and not this package.
func (e *ToolError) ErrorCode() string { return e.Code }

// Dial opens a session with the MCP server at endpoint, such as
// http://localhost:8002/mcp. It takes at most o.Timeout.
func Dial(ctx context.Context, endpoint string, o DialOptions) (*Client, error) {
	w, err := newWeb(endpoint, o)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	c := &Client{web: w, endpoint: endpoint}
	ctx, x, cancel := w.begin(ctx)
	defer cancel()
	c.session, err = mcp.NewClient(&mcp.Implementation{Name: "remembrancer", Version: "1"}, &mcp.ClientOptions{
		Capabilities:   &mcp.ClientCapabilities{},
		MultiRoundTrip: &mcp.MultiRoundTripOptions{Disabled: true},
	}).Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint:             endpoint,
		HTTPClient:           w.client,
		MaxRetries:           -1,
		DisableStandaloneSSE: true,
		MaxEventSize:         maxAnswer,
	}, nil)
	if err != nil {
		w.client.CloseIdleConnections()
		return nil, fmt.Errorf("dial %s: %w", endpoint, w.explain(ctx, x, err))
	}
	return c, nil
}

// Call calls a tool with the JSON of in (nil: no arguments), and decodes what it
// answers into out (nil: the answer does not matter): the structured content or,
// from a server that has none, the text. Unknown keys are errors. An answer that
// is an error is a [*ToolError]; so are the HTTP statuses 401 and 403 (forbidden),
// 413 (too_large), 429 and 503 (busy).
func (c *Client) Call(ctx context.Context, tool string, in, out any) error {
	structured, text, err := c.answer(ctx, tool, in)
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	answer := []byte(text)
	if structured != nil {
		if answer, err = json.Marshal(structured); err != nil {
			return fmt.Errorf("%s: %w", tool, err)
		}
	}
	dec := json.NewDecoder(bytes.NewReader(answer))
	dec.DisallowUnknownFields()
	if err := dec.Decode(out); err != nil {
		return fmt.Errorf("%s: answer: %w", tool, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: answer: more than one JSON value", tool)
	}
	return nil
}

// answer returns both forms of what a tool answered, as far as they are there.
func (c *Client) answer(ctx context.Context, tool string, in any) (structured any, text string, err error) {
	ctx, x, cancel := c.web.begin(ctx)
	defer cancel()
	c.calls.Add(1)
	r, err := c.session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: in})
	if err != nil {
		if e := x.toolError(tool); e != nil {
			return nil, "", e
		}
		if e := new(jsonrpc.Error); errors.As(err, &e) && ctx.Err() == nil {
			return nil, "", toolError(tool, e.Message)
		}
		return nil, "", fmt.Errorf("%s: %w", tool, c.web.explain(ctx, x, err))
	}
	for _, content := range r.Content {
		if t, ok := content.(*mcp.TextContent); ok {
			text = t.Text
			break
		}
	}
	switch {
	case r.IsError:
		return nil, "", toolError(tool, text)
	case r.StructuredContent == nil && text == "":
		return nil, "", fmt.Errorf("%s: the answer is empty, wanted JSON", tool)
	}
	return r.StructuredContent, text, nil
}

// codes says what a refusal by the HTTP server in front of the tools means.
var codes = map[int]string{
	http.StatusUnauthorized:          "forbidden",
	http.StatusForbidden:             "forbidden",
	http.StatusRequestEntityTooLarge: "too_large",
	http.StatusTooManyRequests:       "busy",
	http.StatusServiceUnavailable:    "busy",
}

func (x *exchange) toolError(tool string) *ToolError {
	status := int(x.status.Load())
	if codes[status] == "" {
		return nil
	}
	return &ToolError{tool, codes[status], fmt.Sprintf("HTTP status %d %s", status, http.StatusText(status))}
}

var coded = regexp.MustCompile(`^([a-z][a-z_]{0,31}): `)

func toolError(tool, text string) *ToolError {
	e := &ToolError{Tool: tool}
	if m := coded.FindStringSubmatch(text); m != nil {
		e.Code, text = m[1], text[len(m[0]):]
	}
	e.Message = clip(text)
	return e
}

// clip shortens a peer's words.
func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\ufffd")
	}
	return s
}

// Counters returns the number of calls so far, and the bytes that went over the
// network for them and for the opening of the session: headers and TLS included.
func (c *Client) Counters() (calls, sent, received int64) {
	return c.calls.Load(), c.web.sent.Load(), c.web.received.Load()
}

// Close ends the session. It takes at most a second.
func (c *Client) Close() error {
	err := c.session.Close()
	c.web.client.CloseIdleConnections()
	return err
}

// web is HTTP as a peer may have it: bounded, counted, on one host.
type web struct {
	client         *http.Client
	timeout        time.Duration
	sent, received atomic.Int64 // bytes on connections
}

// exchange is what is learned below the library about one call. The library tells
// of most faults only in words.
type exchange struct {
	status  atomic.Int64           // of the last HTTP answer
	kind    atomic.Pointer[string] // its content type
	refused atomic.Pointer[error]  // why its body was refused
}

type exchangeKey struct{}

func newWeb(endpoint string, o DialOptions) (*web, error) {
	if err := checkEndpoint(endpoint); err != nil {
		return nil, err
	}
	if strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the token holds a blank or a character that is not printable ASCII")
	}
	w := &web{timeout: o.Timeout}
	if w.timeout <= 0 {
		w.timeout = defaultTimeout
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs}
	if o.Certificate != nil {
		config.Certificates = []tls.Certificate{*o.Certificate}
	}
	dialer := net.Dialer{}
	w.client = &http.Client{
		Transport: &bounded{
			token:   o.Token,
			timeout: w.timeout,
			base: &http.Transport{
				DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					conn, err := dialer.DialContext(ctx, network, addr)
					if err != nil {
						return nil, err
					}
					return &counted{conn, w}, nil
				},
				TLSClientConfig:        config,
				MaxResponseHeaderBytes: maxHeader,
				IdleConnTimeout:        w.timeout,
				// What travels is what is counted and limited.
				DisableCompression: true,
			},
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			from := via[0].URL
			switch {
			case req.URL.Scheme != from.Scheme || req.URL.Host != from.Host:
				return fmt.Errorf("the peer redirects to %s://%s, wanted the same host: give the peer's real URL", req.URL.Scheme, clip(req.URL.Host))
			case req.Method != via[0].Method:
				return fmt.Errorf("the peer redirects so that %s becomes %s, wanted status 307 or 308: give the peer's real URL", via[0].Method, req.Method)
			case len(via) > maxHops:
				return fmt.Errorf("the peer redirects more than %d times", maxHops)
			}
			return nil
		},
	}
	return w, nil
}

func checkEndpoint(s string) error {
	const wanted = "wanted a URL such as http://localhost:8002/mcp"
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("found %q, %s", clip(s), wanted)
	case u.User != nil:
		return fmt.Errorf("found a name or password in the URL, %s, and a token", wanted)
	case u.Fragment != "":
		return fmt.Errorf("found %q, %s, without #", clip(s), wanted)
	}
	return nil
}

// begin is the start of a call: it has a deadline, and something to learn.
func (w *web) begin(ctx context.Context) (context.Context, *exchange, context.CancelFunc) {
	x := &exchange{}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, exchangeKey{}, x), w.timeout)
	return ctx, x, cancel
}

// explain returns the cause of a failed call: the library's error may be only
// what followed from it.
func (w *web) explain(ctx context.Context, x *exchange, err error) error {
	if refused := x.refused.Load(); refused != nil {
		return *refused
	}
	switch cause := ctx.Err(); {
	case errors.Is(cause, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %v: %w", w.timeout, cause)
	case cause != nil:
		return cause
	}
	code, kind := x.status.Load(), x.kind.Load()
	switch {
	case code >= 300:
		return fmt.Errorf("HTTP status %d: %w", code, err)
	case code == http.StatusOK && *kind != "application/json" && *kind != events:
		return fmt.Errorf("found the content type %q, wanted an MCP server: %w", clip(*kind), err)
	}
	return err
}

// bounded is the transport of a web.
type bounded struct {
	base    *http.Transport
	token   string
	timeout time.Duration
}

// CloseIdleConnections is what [http.Client.CloseIdleConnections] looks for.
func (b *bounded) CloseIdleConnections() { b.base.CloseIdleConnections() }

func (b *bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	timeout := b.timeout
	if req.Method == http.MethodDelete {
		timeout = min(timeout, farewell)
	}
	// The library lets some requests outlive the call that caused them.
	ctx, cancel := context.WithTimeout(req.Context(), timeout)
	req = req.Clone(ctx)
	if b.token != "" {
		req.Header.Set("Authorization", "Bearer "+b.token)
	}
	resp, err := b.base.RoundTrip(req)
	if err != nil {
		cancel()
		return nil, err
	}
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	if x == nil {
		x = &exchange{}
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	x.kind.Store(&kind) // first: whoever sees a status reads it
	x.status.Store(int64(resp.StatusCode))
	body := &answer{ReadCloser: resp.Body, left: maxAnswer, values: maxValues, line: 1, exchange: x, cancel: cancel}
	if kind == events {
		body.line = maxValues / maxLines
	}
	if resp.ContentLength > maxAnswer {
		err := body.refuse("%d bytes", resp.ContentLength)
		_ = body.Close()
		return nil, err
	}
	resp.Body = body
	return resp, nil
}

// answer is the body of an answer, which fails where it exceeds a limit.
type answer struct {
	io.ReadCloser
	left     int // bytes
	values   int
	line     int  // how many values a line counts for
	text     bool // in a JSON string
	escaped  bool // after a backslash in one
	exchange *exchange
	err      error
	cancel   context.CancelFunc
}

func (a *answer) Read(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	n, err := a.ReadCloser.Read(p[:min(len(p), a.left+1)])
	if a.left -= n; a.left < 0 {
		return 0, a.refuse("more than %d bytes", maxAnswer)
	}
	if a.count(p[:n]); a.values < 0 {
		return 0, a.refuse("more than %d JSON values or %d lines", maxValues, maxLines)
	}
	return n, err
}

// count counts what can begin a value or an event: a comma or a bracket outside of
// strings, or the end of a line. No string goes over one, so neither does our idea
// of a string, wrong as it may be between the events of a stream.
func (a *answer) count(p []byte) {
	for _, c := range p {
		switch {
		case c == '\n' || c == '\r':
			a.text, a.escaped = false, false
			a.values -= a.line
		case a.escaped:
			a.escaped = false
		case c == '"':
			a.text = !a.text
		case a.text:
			a.escaped = c == '\\'
		case c == ',' || c == '[' || c == '{':
			a.values--
		}
	}
}

func (a *answer) refuse(format string, args ...any) error {
	a.err = fmt.Errorf("the answer is of "+format+", wanted fewer", args...)
	a.exchange.refused.CompareAndSwap(nil, &a.err)
	return a.err
}

func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	a.cancel()
	return err
}

// counted is a connection that counts.
type counted struct {
	net.Conn
	web *web
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.web.received.Add(int64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.web.sent.Add(int64(n))
	return n, err
}
