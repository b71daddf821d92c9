package node

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/chart"
)

// What the node remembers of itself, for [Server.Handler]'s /status: a sample so
// often, for so long. It is in memory only: who wants more asks /metrics and keeps it.
const (
	sampleEvery = 15 * time.Second
	maxSamples  = 241 // an hour, both ends included
)

// A timing counts durations in slots of which sixteen make a decade, from 10 µs to
// 100 s. A quantile is the upper edge of its slot, so it is up to 15 % too long and
// never too short.
const (
	perDecade = 16
	slots     = 7*perDecade + 2
	shortest  = 10 * time.Microsecond
)

type timing [slots]atomic.Uint32

func slotOf(d time.Duration) int {
	if d <= shortest {
		return 0
	}
	return min(int(math.Ceil(perDecade*math.Log10(float64(d)/float64(shortest)))), slots-1)
}

// edge is the longest time of a slot, in seconds; the last slot has none.
func edge(slot int) float64 {
	if slot == slots-1 {
		return math.Inf(1)
	}
	return shortest.Seconds() * math.Pow(10, float64(slot)/perDecade)
}

func (t *timing) observe(d time.Duration) { t[slotOf(d)].Add(1) }

// counts are those of a timing at one moment, or between two.
type counts [slots]uint32

func (t *timing) read() (c counts) {
	for i := range t {
		c[i] = t[i].Load()
	}
	return c
}

// since may be of counters that have run over: the difference is right all the same.
func (c *counts) since(before *counts) (d counts) {
	for i := range c {
		d[i] = c[i] - before[i]
	}
	return d
}

func (c *counts) add(d *counts) {
	for i := range c {
		c[i] += d[i]
	}
}

func (c *counts) total() (n uint64) {
	for _, v := range c {
		n += uint64(v)
	}
	return n
}

// quantile returns a time, in seconds, that a share q of all took at most; NaN where
// there are none.
func (c *counts) quantile(q float64) float64 {
	n := c.total()
	if n == 0 {
		return math.NaN()
	}
	rank := uint64(math.Ceil(q * float64(n)))
	for i, v := range c {
		if rank <= uint64(v) {
			return edge(i)
		}
		rank -= uint64(v)
	}
	return math.Inf(1)
}

// sample is what the node was like at one moment, and what it did since the one before.
type sample struct {
	at               time.Time
	size             int64 // of the log; -1 where it could not be read
	calls, decisions counts
}

// history is the newest samples, oldest first.
type history struct {
	mu      sync.Mutex
	samples []sample
	last    struct{ calls, decisions counts } // at the newest sample
	drawn   pictures
}

// pictures are the newest samples as SVG, for a wide page and for a phone.
type pictures struct {
	of           time.Time
	wide, narrow []byte
}

// sample adds a sample. Of two listeners one does it.
func (s *Server) sample() {
	h := &s.history
	now, size := s.o.Now(), int64(-1)
	if head, err := s.logHead(); err == nil {
		size = head.Size
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.samples); n > 0 {
		switch passed := now.Sub(h.samples[n-1].at); {
		case passed < 0: // somebody has set the clock back: what was is of no time
			h.samples = nil
		case passed < sampleEvery/2:
			return
		}
	}
	calls, decisions := s.metrics.calls.read(), s.metrics.decisions.read()
	if len(h.samples) == maxSamples {
		copy(h.samples, h.samples[1:])
		h.samples = h.samples[:maxSamples-1]
	}
	h.samples = append(h.samples, sample{now, size, calls.since(&h.last.calls), decisions.since(&h.last.decisions)})
	h.last.calls, h.last.decisions = calls, decisions
}

// keepHistory samples until the context ends.
func (s *Server) keepHistory(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		s.sample()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// recent is what the samples come to, and the time that they span: none where there
// are less than two.
func (h *history) recent() (calls, decisions counts, span time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sum()
}

// sum is recent. The lock is held.
func (h *history) sum() (calls, decisions counts, span time.Duration) {
	for i := 1; i < len(h.samples); i++ {
		calls.add(&h.samples[i].calls)
		decisions.add(&h.samples[i].decisions)
		span = h.samples[i].at.Sub(h.samples[0].at)
	}
	return calls, decisions, span
}

// board draws the samples, two at least. The lock is held.
func (h *history) board() *chart.Board {
	first, last := h.samples[0], h.samples[len(h.samples)-1]
	var size, appends, calls, decisions []chart.Point
	for i, m := range h.samples {
		if m.size >= 0 {
			size = append(size, chart.Point{Time: m.at, Value: float64(m.size)})
		}
		if i == 0 {
			continue
		}
		before := h.samples[i-1]
		if m.size >= 0 && before.size >= 0 {
			appends = append(appends, chart.Point{Time: m.at, Value: float64(m.size-before.size) / m.at.Sub(before.at).Seconds()})
		}
		// Where nothing was asked for there is no time that it took.
		if m.calls.total() > 0 {
			calls = append(calls, chart.Point{Time: m.at, Value: m.calls.quantile(.95)})
		}
		if m.decisions.total() > 0 {
			decisions = append(decisions, chart.Point{Time: m.at, Value: m.decisions.quantile(.99)})
		}
	}
	stat := func(v float64) *chart.Stat {
		if math.IsNaN(v) {
			return nil
		}
		return &chart.Stat{Value: v}
	}
	mean, now := math.NaN(), math.NaN()
	if first.size >= 0 && last.size >= 0 {
		mean = float64(last.size-first.size) / last.at.Sub(first.at).Seconds()
	}
	if last.size >= 0 {
		now = float64(last.size)
	}
	allCalls, allDecisions, _ := h.sum()
	const unread = "the log could not be read"
	return &chart.Board{
		Title: "Recent history", Subtitle: "live, from this process's memory", Start: first.at, End: last.at, Step: sampleEvery,
		Panels: []chart.Panel{
			{
				Title: "Appends", Note: "entries that the log got, a second", Unit: chart.PerSecond, Missing: unread,
				Series: []chart.Series{{Name: "appends", Points: appends}}, Stat: stat(mean),
			},
			{
				Title: "Ledger", Note: "entries of the log, when the node last looked", Unit: chart.Count, Missing: unread,
				Series: []chart.Series{{Name: "entries", Points: size}}, Stat: stat(now),
			},
			{
				Title: "Requests, p95", Note: "95 % of the calls took at most this", Unit: chart.Seconds, Missing: "nothing was asked of the node in this time",
				Series: []chart.Series{{Name: "p95", Points: calls}}, Stat: stat(allCalls.quantile(.95)),
			},
			{
				Title: "Policy, p99", Note: "99 % of the decisions on what may enter took at most this", Unit: chart.Seconds, Missing: "nothing was submitted in this time",
				Series: []chart.Series{{Name: "p99", Points: decisions}}, Stat: stat(allDecisions.quantile(.99)),
			},
		},
	}
}

// pictures returns the history as it is drawn; nothing while there is too little of it.
func (h *history) pictures() (p pictures, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.samples)
	if n < 2 {
		return p, nil
	}
	if newest := h.samples[n-1].at; !h.drawn.of.Equal(newest) {
		b := h.board()
		p.of = newest
		if p.wide, err = b.SVG(chart.Options{Width: wideBoard, Theme: chart.Auto}); err == nil {
			p.narrow, err = b.SVG(chart.Options{Width: narrowBoard, Theme: chart.Auto})
		}
		if err != nil {
			return pictures{}, err
		}
		h.drawn = p
	}
	return h.drawn, nil
}

// The widths of the pictures, in CSS pixels: that of the page at its widest, and
// that of a phone.
const (
	wideBoard   = 1180
	narrowBoard = 390
)
