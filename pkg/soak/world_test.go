package soak

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/federate"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

// world is a real node, and what stands in front of it.
type world struct {
	t       testing.TB
	dir     string
	scopes  []node.Scope
	url     string
	secret  atomic.Value // string
	keys    []*openpgp.Key
	store   *federate.Store
	real    atomic.Pointer[http.Handler]
	front   atomic.Pointer[func(http.ResponseWriter, *http.Request, http.Handler) bool] // true: it has answered
	server  *httptest.Server
	running sync.RWMutex // held for reading by each request
}

func newWorld(t testing.TB, scopes ...node.Scope) *world {
	t.Helper()
	if scopes == nil {
		scopes = []node.Scope{node.Read, node.Record, node.Federate}
	}
	w := &world{t: t, scopes: scopes, dir: t.TempDir()}
	w.secret.Store("secret-" + strings.Repeat("0123456789abcdef", 2))
	assert.NilError(t, federate.InitStore(t.Context(), w.dir, "local/a", rand.Reader, time.Now()))
	w.start()
	t.Cleanup(func() { _ = w.store.Close() })
	w.server = httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
	w.server.Config.ErrorLog = nil
	w.server.Start()
	t.Cleanup(w.server.Close)
	w.url = w.server.URL
	return w
}

func (w *world) token() string { return w.secret.Load().(string) } //nolint:forcetypeassert // it always is

// start opens the store and serves it.
func (w *world) start() {
	w.t.Helper()
	store, err := federate.LoadStore(context.WithoutCancel(w.t.Context()), w.dir, federate.StoreOptions{Now: time.Now, Node: "local/a"}, nil)
	assert.NilError(w.t, err)
	w.store = store
	token, err := node.NewToken("soak", w.token(), w.scopes...)
	assert.NilError(w.t, err)
	s, err := node.New(node.Options{Store: store, Service: federate.NewService(store, federate.ServiceOptions{}), Tokens: []node.Token{token}})
	assert.NilError(w.t, err)
	w.keys = nil
	for _, m := range store.Trust().Members() {
		w.keys = append(w.keys, m.Key)
	}
	h := s.Handler()
	w.real.Store(&h)
}

// stop closes the node; until start, connections are cut.
func (w *world) stop() {
	w.real.Store(nil)
	w.running.Lock() // no call is under way when the store is closed, as it is in the program
	defer w.running.Unlock()
	assert.NilError(w.t, w.store.Close())
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	w.running.RLock()
	defer w.running.RUnlock()
	h := w.real.Load()
	if h == nil {
		panic(http.ErrAbortHandler)
	}
	if front := w.front.Load(); front != nil && (*front)(rw, r, *h) {
		return
	}
	(*h).ServeHTTP(rw, r)
}

// lie puts something in front of the node.
func (w *world) lie(front func(rw http.ResponseWriter, r *http.Request, real http.Handler) bool) {
	w.front.Store(&front)
}

// alter has the answers to some requests changed on their way.
func (w *world) alter(about func(*http.Request) bool, change func([]byte) []byte) {
	w.lie(func(rw http.ResponseWriter, r *http.Request, real http.Handler) bool {
		if !about(r) {
			return false
		}
		rec := httptest.NewRecorder()
		real.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			if k != "Content-Length" {
				rw.Header()[k] = v
			}
		}
		rw.WriteHeader(rec.Code)
		_, _ = rw.Write(change(rec.Body.Bytes()))
		return true
	})
}

func pathIs(prefix string) func(*http.Request) bool {
	return func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, prefix) }
}

func stateDir(t testing.TB) *durable.Dir {
	t.Helper()
	dir, err := durable.CreateDir(t.TempDir())
	assert.NilError(t, err)
	t.Cleanup(func() { _ = dir.Close() })
	return dir
}

// options are those of a short run that is quick enough for a test.
func (w *world) options() Options {
	return Options{
		Node: w.url, Keys: w.keys, Token: func() (string, error) { return w.token(), nil },
		Plan: Plan{Duration: 1500 * time.Millisecond, Rate: 20, MaxLag: 30 * time.Second, Deadline: 30 * time.Second},
		Seed: 1, Run: "test", Treaty: "T-1", Track: "stable", State: stateDir(w.t), Contact: 2 * time.Second, Now: time.Now, Random: rand.Reader,
	}
}

func (w *world) soak(o Options) *Soak {
	w.t.Helper()
	s, err := New(o)
	assert.NilError(w.t, err)
	return s
}

// runFor runs a run for a while, from when it has begun, and then presses Ctrl-C.
func (w *world) runFor(s *Soak, d time.Duration) (*Report, error) {
	ctx, stop := context.WithCancel(w.t.Context())
	defer stop()
	go func() {
		for ctx.Err() == nil {
			if _, err := s.o.State.Get(stateFile); err == nil {
				break
			}
			pause(ctx, 10*time.Millisecond)
		}
		pause(ctx, d)
		stop()
	}()
	return s.Run(ctx)
}

// met is a run that has met the node, and is about to begin.
func (w *world) met(o Options) *Soak {
	w.t.Helper()
	s := w.soak(o)
	w.t.Cleanup(s.r.close)
	assert.NilError(w.t, s.contact(w.t.Context()))
	s.auditor.patient = patience{50 * time.Millisecond, 2 * time.Second}
	return s
}

// one carries out one operation.
func (s *Soak) one(t testing.TB, work Workload, seq int64, deadline time.Duration) (Outcome, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	return s.do(ctx, arrival{seq: seq, work: work})
}

// refusing is an address at which nobody listens.
func refusing(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	assert.NilError(t, l.Close())
	return fmt.Sprintf("http://%s", l.Addr())
}
