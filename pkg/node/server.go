package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vaultmesh/remembrancer/pkg/federate"
)

// MCPPath is where a node answers MCP, below its address.
const MCPPath = "/mcp"

// maxBulky is the number of requests of more than bulky bytes, or of unknown length,
// at a time: what is read into memory before anybody has been believed.
const (
	maxBulky = 8
	bulky    = 256 << 10
)

// maxHeavy is the number of calls at a time, of all tools together, that may answer
// with a megabyte or more, the sending of the answer included.
const maxHeavy = 16

// Server serves one node.
type Server struct {
	o       Options
	log     *slog.Logger
	started time.Time
	mcp     *mcp.Server
	web     http.Handler // of MCP over HTTP
	tools   map[string]*tool
	metrics *metrics
	named   *catalogue
	history history

	requests chan struct{} // one for each request under way
	bulky    chan struct{}
	heavy    chan struct{}
	running  atomic.Int64 // calls

	control atomic.Pointer[Token]
	failed  atomic.Pointer[failure] // the last append; nil if it succeeded
}

const defaultTrack = "stable"

var (
	revisionRE = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	trackRE    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
)

// CheckBuild says whether [Options] may have this revision and track: a revision is a
// full commit in 40 or 64 lower-case hex digits, or "" where nobody knows it; a track
// is a word of at most 32 lower-case letters, digits and dashes.
func CheckBuild(revision, track string) error {
	switch {
	case revision != "" && !revisionRE.MatchString(revision):
		return fmt.Errorf("revision %.100q: want a full commit, 40 or 64 lower-case hex digits: git rev-parse HEAD", revision)
	case !trackRE.MatchString(track):
		return fmt.Errorf("track %.100q: want a word of lower-case letters, digits and dashes, as stable or canary", track)
	}
	return nil
}

// New makes a server. It starts nothing.
func New(o Options) (*Server, error) {
	if o.Store == nil {
		return nil, errors.New("node: no store")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Track == "" {
		o.Track = defaultTrack
	}
	if err := CheckBuild(o.Revision, o.Track); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	for _, t := range o.Tokens {
		for _, scope := range t.Scopes {
			if _, err := ParseScope(string(scope)); err != nil {
				return nil, fmt.Errorf("node: token %q: %w", t.Name, err)
			}
		}
	}
	o.Limits = o.Limits.withDefaults()
	s := &Server{
		o: o, log: o.Logger, started: o.Now(),
		requests: make(chan struct{}, o.Limits.Requests), bulky: make(chan struct{}, maxBulky), heavy: make(chan struct{}, maxHeavy),
		named: &catalogue{store: o.Store},
	}
	s.makeMCP()
	s.metrics = newMetrics(s)
	return s, nil
}

// Handler returns what a listener serves. It knows a listener on loopback by the
// address that net/http notes on each request; [Server.Serve] adds the timeouts and
// the refusal of open listeners.
func (s *Server) Handler() http.Handler { return s.handler(false) }

func (s *Server) handler(onlyTokens bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(MCPPath, s.web)
	mux.Handle("GET /checkpoint", s.route("checkpoint", Read, s.serveCheckpoint))
	mux.Handle("GET /tile/", s.route("tile", Read, s.serveTile, s.heavy))
	mux.Handle("POST /add-checkpoint", s.route("add-checkpoint", Federate, s.serveWitness))
	mux.Handle("GET /status", s.scoped(Read, http.HandlerFunc(s.serveStatus)))
	mux.Handle("GET /metrics", s.scoped(Read, s.metrics.handler()))

	top := http.NewServeMux()
	top.Handle("/", http.NewCrossOriginProtection().Handler(s.admitted(s.limited(mux), onlyTokens)))
	// Whoever looks after the process is told even when it has too much to do.
	top.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	top.HandleFunc("GET /readyz", s.serveReady)
	return s.observed(top)
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}

func busy(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	plain(w, http.StatusServiceUnavailable, "busy: too many requests at a time")
}

// observed logs each request, and answers for a handler that panicked.
func (s *Server) observed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := s.o.Now()
		seen := &seenWriter{ResponseWriter: w}
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares so, too
					panic(p)
				}
				s.log.Error("panic", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				if seen.status == 0 {
					plain(seen, http.StatusInternalServerError, "internal error")
				}
			}
			s.log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", seen.status,
				"bytes", seen.bytes, "from", r.RemoteAddr, "took", s.o.Now().Sub(began))
		}()
		next.ServeHTTP(seen, r)
	})
}

// seenWriter remembers what was answered.
type seenWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *seenWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *seenWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Unwrap is what http.ResponseController looks for.
func (w *seenWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// limited bounds how many requests are under way, and how long they are.
func (s *Server) limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		enter := func(places chan struct{}) bool {
			if s.place(r.Context(), places) {
				return true
			}
			busy(w)
			return false
		}
		if r.ContentLength > s.o.Limits.Body {
			plain(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("request is %d bytes, want at most %d", r.ContentLength, s.o.Limits.Body))
			return
		}
		if !enter(s.requests) {
			return
		}
		defer func() { <-s.requests }()
		if r.ContentLength < 0 || r.ContentLength > bulky {
			if !enter(s.bulky) {
				return
			}
			defer func() { <-s.bulky }()
		}
		r.Body = http.MaxBytesReader(w, r.Body, s.o.Limits.Body)
		h := &held{until: r.Context()}
		defer h.release()
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), heldKey{}, h)))
	})
}

// held is what belongs to a request until its answer has been sent, however slowly
// somebody reads it. The library runs tools on a context that outlives the request:
// until is the request's own.
type held struct {
	until context.Context

	mu     sync.Mutex // guards what follows
	leave  []func()
	closed bool
}

type heldKey struct{}

// keep calls leave when the request has been answered.
func (h *held) keep(leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		leave()
		return
	}
	h.leave = append(h.leave, leave)
}

func (h *held) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, leave := range h.leave {
		leave()
	}
	h.leave, h.closed = nil, true
}

// place waits a moment for a place.
func (s *Server) place(ctx context.Context, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(s.o.Limits.Wait)
	defer t.Stop()
	select {
	case places <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// admitted notes who calls, and turns away who is nobody.
func (s *Server) admitted(next http.Handler, onlyTokens bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.checkHost(r); err != nil {
			plain(w, http.StatusForbidden, "forbidden: "+err.Error())
			return
		}
		c, err := s.admit(r, onlyTokens)
		if err != nil || len(c.scopes) == 0 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			if err == nil {
				err = errors.New("want a token: Authorization: Bearer SECRET")
			}
			plain(w, http.StatusUnauthorized, "forbidden: "+err.Error())
			return
		}
		if c.may(Admin) && s.o.Sync != nil {
			// A sync that was asked for takes longer than any other request, and
			// who may ask is trusted not to dawdle.
			until := s.o.Now().Add(s.o.Limits.Sync + s.o.Limits.Write)
			rc := http.NewResponseController(w)
			_ = rc.SetReadDeadline(until)
			_ = rc.SetWriteDeadline(until)
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// scoped is for what is not a tool.
func (s *Server) scoped(scope Scope, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !callerFrom(r.Context()).may(scope) {
			forbidden(w, scope)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func forbidden(w http.ResponseWriter, scope Scope) {
	plain(w, http.StatusForbidden, fmt.Sprintf("forbidden: want scope %s", scope))
}

// route is scoped, and measured under a name.
func (s *Server) route(name string, scope Scope, serve http.HandlerFunc, places ...chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := s.o.Now()
		j := s.judges(name)
		seen := &seenWriter{ResponseWriter: w}
		may := callerFrom(r.Context()).may(scope)
		func() {
			if !may {
				forbidden(seen, scope)
				return
			}
			for _, p := range places {
				if !s.place(r.Context(), p) {
					busy(seen)
					return
				}
				defer func() { <-p }()
			}
			serve(seen, r)
		}()
		code := codeOK
		switch {
		case !may:
			code = federate.CodeForbidden
		case seen.status == http.StatusServiceUnavailable:
			code = federate.CodeBusy
		case seen.status >= 500:
			code = federate.CodeInternal
		case seen.status >= 400:
			code = federate.CodeBadRequest
		}
		j.settle(verdictOf(code))
		s.metrics.called(name, code, s.o.Now().Sub(began))
	})
}

func (s *Server) serveReady(w http.ResponseWriter, _ *http.Request) {
	if err := s.ready(); err != nil {
		// Why is for the log and not for passers-by.
		s.log.Warn("not ready", "error", err)
		plain(w, http.StatusServiceUnavailable, "not ready: see the node's log")
		return
	}
	plain(w, http.StatusOK, "ok")
}

// failure is an append that failed.
type failure struct {
	why string
	at  time.Time
}

// forgiven is how long a failed append keeps the node from being ready. A node that
// gets no requests because it is not ready could never show that it is again.
const forgiven = time.Minute

// ready says why receipts cannot be recorded. The store verified its log when it was
// opened; after an error it reads it again, and Head says what came of that.
func (s *Server) ready() error {
	if f := s.failed.Load(); f != nil && s.o.Now().Sub(f.at) < forgiven {
		return fmt.Errorf("the last append failed: %s", f.why)
	}
	_, err := s.o.Store.Head() // a snapshot would be kept, in place of one that a peer is reading
	return err
}

// appended notes how an append ended.
func (s *Server) appended(err error) {
	if err == nil {
		s.failed.Store(nil)
		return
	}
	s.failed.Store(&failure{err.Error(), s.o.Now()})
}

// Serve serves a listener until the context ends, then lets the requests under way
// finish, for at most Limits.Drain. It closes the listener, and returns nil if it was
// the context that ended it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer l.Close()
	if err := s.checkListener(l.Addr()); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()

	var servers []*http.Server
	ended := make(chan error, 2)
	serve := func(l net.Listener, h http.Handler, secure bool) {
		server := s.server(base, h, secure)
		servers = append(servers, server)
		many := &manyListener{Listener: l, places: make(chan struct{}, s.o.Limits.Connection), closed: make(chan struct{})}
		go func() {
			if secure {
				ended <- server.ServeTLS(many, "", "")
				return
			}
			ended <- server.Serve(many)
		}()
	}

	url := urlOf(l.Addr(), s.o.TLS != nil)
	if s.o.Control != "" {
		control := url
		if s.o.TLS != nil || !isLoopback(l.Addr()) {
			// The user of this machine need not know the node's certificate, nor
			// have one: a door on loopback, for tokens only.
			door, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
			if err != nil {
				return fmt.Errorf("node: control: %w", err)
			}
			control = urlOf(door.Addr(), false)
			serve(door, s.handler(true), false)
		}
		if err := s.makeControl(control); err != nil {
			s.close(servers)
			return fmt.Errorf("node: control: %w", err)
		}
		defer func() {
			if err := s.dropControl(); err != nil {
				s.log.Warn("control file stays", "error", err)
			}
		}()
	}
	serve(l, s.Handler(), s.o.TLS != nil)
	s.log.Info("listening", "url", url)
	if s.o.OnReady != nil {
		s.o.OnReady(url)
	}

	var beside sync.WaitGroup
	defer beside.Wait()
	defer cut()
	beside.Go(func() { s.keepHistory(base) })

	var first error
	left := len(servers)
	select {
	case first = <-ended:
		left--
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(base, s.o.Limits.Drain)
	defer cancel()
	var wg sync.WaitGroup
	for _, server := range servers {
		wg.Go(func() {
			if err := server.Shutdown(drain); err != nil {
				s.log.Warn("requests cut off", "error", err)
			}
		})
	}
	wg.Wait()
	cut()
	s.close(servers)
	for range left {
		if err := <-ended; first == nil {
			first = err
		}
	}
	// Calls that were cut off see it in their context; whoever closes the store next
	// must not do so under their feet.
	for wait := time.Now().Add(farewell); s.running.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(wait) {
			s.log.Warn("calls do not end", "calls", s.running.Load())
			break
		}
	}
	s.log.Info("stopped", "url", url)
	if first != nil && !errors.Is(first, http.ErrServerClosed) {
		return fmt.Errorf("node: %w", first)
	}
	return nil
}

func (s *Server) close(servers []*http.Server) {
	for _, server := range servers {
		_ = server.Close()
	}
}

func (s *Server) server(base context.Context, h http.Handler, secure bool) *http.Server {
	var only http.Protocols // the limits below are those of HTTP/1
	only.SetHTTP1(true)
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: s.o.Limits.ReadHeader,
		ReadTimeout:       s.o.Limits.Read,
		WriteTimeout:      s.o.Limits.Write,
		IdleTimeout:       s.o.Limits.Idle,
		MaxHeaderBytes:    16 << 10,
		Protocols:         &only,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	if secure {
		server.TLSConfig = s.o.TLS.Clone()
		server.TLSConfig.MinVersion = max(server.TLSConfig.MinVersion, tls.VersionTLS12)
	}
	return server
}

// urlOf is where MCP is answered by a listener. A listener on every address is reached
// on loopback.
func urlOf(addr net.Addr, secure bool) string {
	scheme := "http"
	if secure {
		scheme = "https"
	}
	host := addr.String()
	if a, ok := addr.(*net.TCPAddr); ok && a.IP.IsUnspecified() {
		host = net.JoinHostPort("localhost", fmt.Sprint(a.Port))
	}
	return scheme + "://" + host + MCPPath
}

// manyListener accepts no more connections than it has places.
type manyListener struct {
	net.Listener
	places chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *manyListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &oneConn{Conn: conn, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

func (l *manyListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type oneConn struct {
	net.Conn
	leave func()
}

func (c *oneConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// Stdio answers MCP on two streams, one JSON value a line, until in ends or the
// context does. Whoever started the process is the caller: scopes read, record and
// sign. It closes neither stream; a read of in that is under way at the end of the
// context goes on.
func (s *Server) Stdio(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx = context.WithValue(ctx, callerKey{}, caller{stdio, []Scope{Read, Record, Sign}})
	err := s.mcp.Run(ctx, &mcp.IOTransport{
		Reader: io.NopCloser(in), Writer: unclosed{out}, MaxLineLength: int(s.o.Limits.Body),
	})
	if ended := ctx.Err() != nil || errors.Is(err, io.EOF); !ended {
		return err
	}
	return nil
}

type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }
