package soak

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

// times counts durations in tenths of a millisecond, above a tenth of a second in whole
// ones. Unlike a histogram of buckets it gives the quantile that was measured, and days
// of them are still small.
type times map[int64]int64

const tenth = 100 * time.Microsecond

func (t times) add(d time.Duration) {
	if d >= 100*time.Millisecond {
		d = d.Round(time.Millisecond)
	}
	t[int64(d.Round(tenth)/tenth)]++
}

// quantile is the smallest duration that a share q of all did not exceed; 0 if there
// is none.
func (t times) quantile(q float64) time.Duration {
	var total int64
	for _, n := range t {
		total += n
	}
	rank, seen := int64(math.Ceil(q*float64(total))), int64(0)
	for _, d := range slices.Sorted(maps.Keys(t)) {
		if seen += t[d]; seen >= max(1, rank) {
			return time.Duration(d) * tenth
		}
	}
	return 0
}

// MarshalJSON writes pairs of a duration and how often it was.
func (t times) MarshalJSON() ([]byte, error) {
	pairs := make([][2]int64, 0, len(t))
	for d, n := range t {
		pairs = append(pairs, [2]int64{d, n})
	}
	slices.SortFunc(pairs, func(a, b [2]int64) int { return cmp.Compare(a[0], b[0]) })
	return json.Marshal(pairs)
}

// UnmarshalJSON reads them.
func (t *times) UnmarshalJSON(data []byte) error {
	var pairs [][2]int64
	if err := json.Unmarshal(data, &pairs); err != nil {
		return err
	}
	*t = times{}
	for _, p := range pairs {
		if p[0] < 0 || p[1] < 1 {
			return fmt.Errorf("found %d times %d, want numbers above zero", p[1], p[0])
		}
		(*t)[p[0]] += p[1]
	}
	return nil
}

// counts is what became of the operations that were due.
type counts map[Workload]map[Outcome]int64

// tally counts operations, each once.
type tally struct {
	m *metrics

	mu     sync.Mutex // guards what follows
	ended  counts
	took   map[Workload]times
	lag    times
	lagMax time.Duration
	own    int64              // of the dropped, those that are the driver's own fault
	away   int64              // of these, those that were due while it did not run
	open   map[int64]Workload // under way
	next   int64              // of the arrivals, the first that was not handed out
	faulty int64              // ended in the phase "fault"
	why    map[Outcome]string // the last reason for each outcome that is not good
}

func newTally(m *metrics) *tally {
	return &tally{m: m, ended: counts{}, took: map[Workload]times{}, lag: times{}, open: map[int64]Workload{}, why: map[Outcome]string{}}
}

// handed notes that an operation was handed out, and how late.
func (t *tally) handed(a arrival, lag time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[a.seq] = a.work
	t.next = a.seq + 1
	t.lag.add(lag)
	t.lagMax = max(t.lagMax, lag)
	t.m.lag.Set(lag.Seconds())
	t.m.lagMax.Set(t.lagMax.Seconds())
}

// end counts an operation. One that failed took as long as it was given, at least: a
// failure is never fast.
func (t *tally) end(a arrival, o Outcome, took, deadline time.Duration, faulty bool, err error) {
	if !o.good() {
		took = max(took, deadline)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, a.seq)
	t.next = max(t.next, a.seq+1)
	if t.ended[a.work] == nil {
		t.ended[a.work], t.took[a.work] = map[Outcome]int64{}, times{}
	}
	t.ended[a.work][o]++
	t.took[a.work].add(took)
	if faulty {
		t.faulty++
	}
	if err != nil && !o.good() {
		t.why[o] = fmt.Sprintf("%s: %v", a.work, err)
	}
	t.m.ended(a.work, o, took)
}

// blame notes that an operation was dropped by the driver's own fault.
func (t *tally) blame(away bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.own++
	if away {
		t.away++
	}
}

// Totals are counts of operations, and how long they took.
type Totals struct {
	Due   int64             `json:"due"`
	Good  int64             `json:"good"` // verified, or refused as it had to be
	Ended map[Outcome]int64 `json:"outcomes"`
	Fill  float64           `json:"fill"` // good / due
	P50   Millis            `json:"p50_ms"`
	P95   Millis            `json:"p95_ms"`
	P99   Millis            `json:"p99_ms"`
}

// Millis is a duration that JSON shows in milliseconds.
type Millis time.Duration

// MarshalJSON writes milliseconds with one decimal: nothing finer was kept.
func (m Millis) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.1f", float64(m)/float64(time.Millisecond)), nil
}

// String shows milliseconds.
func (m Millis) String() string {
	return fmt.Sprintf("%.1fms", float64(m)/float64(time.Millisecond))
}
