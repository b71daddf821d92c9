package node_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/node"
)

// BenchmarkRecordOverMCP is what a program pays to record a decision that is signed
// and on disk when it is acknowledged, with 32 of them at a time.
func BenchmarkRecordOverMCP(b *testing.B) {
	store := newStore(b, "local/a")
	url, _ := run(b, listen(b, "127.0.0.1:0"), node.Options{Store: store, Tokens: []node.Token{tokenOf(b, "scribe", node.Record)}})
	var n atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	b.ResetTimer()
	for range 32 {
		c := client(b, url, secretOf("scribe"))
		wg.Go(func() {
			for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
				began := time.Now()
				err := c.Call(b.Context(), "record_decision", anyMap{"title": fmt.Sprint("d", i), "body": "b"}, nil)
				if err != nil {
					b.Error(err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(began))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	assert.Equal(b, len(took), b.N)
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "receipts/s")
}
