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
// nothing: with the tool that writes, and with one that does little and so shows the
// cost at its worst. It reports by how much the other is slower, of which much is
// noise, and what the measuring of one call costs by itself, as a share of the call
// that is not measured: less than 2 % is promised.
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
					r := httptest.NewRequest(http.MethodPost, MCPPath, strings.NewReader(
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
			// What a call is measured with, alone: the difference of two calls is lost in noise.
			instruments := func() time.Duration {
				const times = 100
				began := time.Now()
				for range times {
					j := with.judges("record_decision")
					j.pause()
					j.resume()
					j.settle(allow)
					with.metrics.called("record_decision", codeOK, time.Millisecond)
					with.metrics.took(recorded, 1)
				}
				return time.Since(began) / times
			}
			const calls = 10
			took := [3][]time.Duration{}
			for i := range 2 {
				round(handlers[i], calls)
			}
			for range b.N {
				for range 10 {
					first := n % 2
					for _, i := range []int{first, 1 - first} {
						took[i] = append(took[i], round(handlers[i], calls))
					}
					took[2] = append(took[2], instruments())
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
			b.ReportMetric((quiet(0)/quiet(1)-1)*100, "difference-%")
			b.ReportMetric(quiet(2)/quiet(1)*100, "overhead-%")
		})
	}
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
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
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
