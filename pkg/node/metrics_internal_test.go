package node

import (
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/federate"
)

func newTestServer(t testing.TB, o Options) *Server {
	t.Helper()
	dir := t.TempDir()
	assert.NilError(t, federate.InitStore(t.Context(), dir, "local/a", rand.Reader, time.Now()))
	store, err := federate.LoadStore(t.Context(), dir, federate.StoreOptions{Now: time.Now, Node: "local/a"}, nil)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	o.Store = store
	s, err := New(o)
	assert.NilError(t, err)
	return s
}

func TestPolicyTimesAreANativeHistogramToo(t *testing.T) {
	s := newTestServer(t, Options{})
	s.judges("record_decision").settle(deny)
	families, err := s.metrics.registry.Gather()
	assert.NilError(t, err)
	seen := 0
	for _, f := range families {
		if f.GetName() != "remembrancer_policy_evaluation_duration_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			assert.Equal(t, m.GetHistogram().GetSchema(), int32(3)) // steps of 2^(1/8), which is 1.09
			assert.Equal(t, len(m.GetHistogram().GetBucket()), 13)
			if m.GetHistogram().GetSampleCount() > 0 {
				seen++
				assert.Assert(t, len(m.GetHistogram().GetPositiveSpan()) > 0 || m.GetHistogram().GetZeroCount() > 0)
			}
		}
	}
	assert.Equal(t, seen, 1)

	// A Prometheus that takes native histograms asks for protocol buffers.
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,text/plain;q=0.3")
	w := httptest.NewRecorder()
	s.metrics.handler().ServeHTTP(w, r)
	assert.Assert(t, strings.HasPrefix(w.Header().Get("Content-Type"), "application/vnd.google.protobuf"))
	_, _ = io.Copy(io.Discard, w.Body)
}
