package node

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// BenchmarkMetricsOverhead asks two nodes on one store in turn, of which one measures
// nothing, and reports by how much the other is slower: for the tool that does the
// most, and for the one that does the least and so shows the cost at its worst. Below
// 0 is noise.
func BenchmarkMetricsOverhead(b *testing.B) {
	for _, c := range []struct{ tool, args string }{
		{"record_decision", `{"title":"Decision %d","body":"Because."}`},
		{"health", `{}`},
	} {
		b.Run(c.tool, func(b *testing.B) {
			token, err := NewToken("t", strings.Repeat("0123456789abcdef", 2), Scopes()...)
			assert.NilError(b, err)
			with := newTestServer(b, Options{Tokens: []Token{token}})
			o := with.o
			without, err := New(o)
			assert.NilError(b, err)
			handlers := []http.Handler{with.Handler(), without.Handler()}
			without.metrics = nil
			n := 0
			round := func(h http.Handler, calls int) time.Duration {
				began := time.Now()
				for range calls {
					n++
					args := c.args
					if strings.Contains(args, "%d") {
						args = fmt.Sprintf(args, n)
					}
					r := httptest.NewRequest("POST", MCPPath, strings.NewReader(
						fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":%s}}`, c.tool, args)))
					r.Header.Set("Authorization", "Bearer "+strings.Repeat("0123456789abcdef", 2))
					r.Header.Set("Content-Type", "application/json")
					r.Header.Set("Accept", "application/json, text/event-stream")
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					if w.Code != http.StatusOK || strings.Contains(w.Body.String(), `"isError":true`) {
						b.Fatalf("%d %s", w.Code, w.Body)
					}
				}
				return time.Since(began) / time.Duration(calls)
			}
			const calls = 20
			took := [2][]time.Duration{}
			for i := range 2 {
				round(handlers[i], calls)
			}
			for range b.N {
				for range 50 {
					first := n % 2
					for _, i := range []int{first, 1 - first} {
						took[i] = append(took[i], round(handlers[i], calls))
					}
					n++
				}
			}
			for i := range took {
				slices.Sort(took[i])
			}
			// What else the machine does only adds: the quarter that it disturbed least is
			// compared.
			quiet := func(i int) float64 { return float64(took[i][len(took[i])/4]) }
			b.ReportMetric(quiet(0)/1000, "measured-µs/call")
			b.ReportMetric(quiet(1)/1000, "unmeasured-µs/call")
			b.ReportMetric((quiet(0)/quiet(1)-1)*100, "overhead-%")
		})
	}
	// The work itself, without what it is lost in: what one call of a tool that takes
	// something in has to be measured.
	b.Run("instruments", func(b *testing.B) {
		s := newTestServer(b, Options{})
		for b.Loop() {
			j := s.judges("record_decision")
			j.pause()
			j.resume()
			j.settle(allow)
			s.metrics.called("record_decision", codeOK, time.Millisecond)
			s.metrics.took(recorded, 1)
		}
	})
}

// BenchmarkScrape is what a look at /metrics and a sample for /status cost, with a
// small log and one that is a hundred times as long.
func BenchmarkScrape(b *testing.B) {
	for _, entries := range []int{20, 2000} {
		s := newTestServer(b, Options{})
		for i := range entries {
			_, err := s.recordDecision(b.Context(), recordIn{Title: fmt.Sprint("d", i), Body: "b"})
			assert.NilError(b, err)
		}
		b.Run(fmt.Sprintf("metrics-%d", entries), func(b *testing.B) {
			h := s.metrics.handler()
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
				assert.Equal(b, w.Code, http.StatusOK)
			}
		})
		b.Run(fmt.Sprintf("sample-%d", entries), func(b *testing.B) {
			now := time.Now()
			s.o.Now = func() time.Time { now = now.Add(sampleEvery); return now }
			for b.Loop() {
				s.sample()
			}
		})
	}
}
