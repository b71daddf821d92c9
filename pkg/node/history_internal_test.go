package node

import (
	"crypto/sha256"
	"encoding/base64"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// A quantile is never shorter than the real one, and at most a sixth longer.
func TestQuantilesAreNeverTooShort(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var timing timing
		var all []time.Duration
		for range 1 + r.IntN(300) {
			d := time.Duration(math.Pow(10, 4+r.Float64()*6.9)) // 10 µs to some 80 s
			all = append(all, d)
			timing.observe(d)
		}
		slices.Sort(all)
		c := timing.read()
		assert.Equal(t, c.total(), uint64(len(all)))
		for _, q := range []float64{.01, .5, .95, .99, 1} {
			real := all[int(math.Ceil(q*float64(len(all))))-1].Seconds()
			found := c.quantile(q)
			if found < real*(1-1e-9) || found > real*1.16 {
				t.Fatalf("q %v of %d: found %v, the real one is %v", q, len(all), found, real)
			}
		}
	}
	var none counts
	assert.Assert(t, math.IsNaN(none.quantile(.5)))
	var slow timing
	slow.observe(time.Hour)
	c := slow.read()
	assert.Assert(t, math.IsInf(c.quantile(.5), 1))
	slow.observe(-time.Second)
	c = slow.read()
	assert.Equal(t, c.quantile(.5), shortest.Seconds())
}

type steps struct{ at time.Time }

func (c *steps) now() time.Time { return c.at }

func TestTheHistoryIsOfWhatHappenedBetweenTwoSamples(t *testing.T) {
	clock := &steps{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	s := newTestServer(t, Options{Now: clock.now})
	s.metrics.called("health", codeOK, time.Second) // before the first: of no interval
	s.sample()
	p, err := s.history.pictures()
	assert.NilError(t, err)
	assert.Assert(t, p.wide == nil)

	clock.at = clock.at.Add(sampleEvery / 3) // another listener's turn
	s.sample()
	assert.Equal(t, len(s.history.samples), 1)

	clock.at = clock.at.Add(sampleEvery * 2 / 3)
	_, err = s.recordDecision(t.Context(), recordIn{Title: "t", Body: "b"})
	assert.NilError(t, err)
	s.metrics.called("record_decision", codeOK, 30*time.Millisecond)
	s.sample()
	clock.at = clock.at.Add(sampleEvery)
	s.sample()

	b := s.history.board()
	values := map[string][]float64{}
	for _, panel := range b.Panels {
		for _, point := range panel.Series[0].Points {
			values[panel.Title] = append(values[panel.Title], point.Value)
		}
	}
	thirty := edge(slotOf(30 * time.Millisecond))
	assert.DeepEqual(t, values, map[string][]float64{
		"Ledger":        {0, 1, 1},
		"Appends":       {1 / sampleEvery.Seconds(), 0},
		"Requests, p95": {thirty}, // and nothing where nothing was asked for
	})
	assert.Equal(t, b.Panels[3].Missing, "nothing was submitted in this time")
	assert.Assert(t, b.Panels[3].Stat == nil)
	calls, _, span := s.history.recent()
	assert.Equal(t, calls.total(), uint64(1))
	assert.Equal(t, span, 2*sampleEvery)

	first, err := s.history.pictures()
	assert.NilError(t, err)
	assert.Assert(t, strings.Contains(string(first.wide), "nothing was submitted in this time"))
	again, err := s.history.pictures()
	assert.NilError(t, err)
	assert.Assert(t, &first.wide[0] == &again.wide[0], "drawn twice for the same samples")

	clock.at = clock.at.Add(-time.Hour)
	s.sample()
	assert.Equal(t, len(s.history.samples), 1)
}

func TestTheHistoryHasAnEnd(t *testing.T) {
	clock := &steps{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	s := newTestServer(t, Options{Now: clock.now})
	for range maxSamples + 10 {
		clock.at = clock.at.Add(sampleEvery)
		s.metrics.called("health", codeOK, time.Millisecond)
		s.sample()
	}
	assert.Equal(t, len(s.history.samples), maxSamples)
	_, _, span := s.history.recent()
	assert.Equal(t, span, time.Hour)
	_, err := s.history.pictures()
	assert.NilError(t, err)
}

// A log that cannot be read has no size, and not the last one that it had.
func TestWhatCannotBeReadIsNotInTheHistory(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	h := &history{samples: []sample{{at: at, size: 5}, {at: at.Add(sampleEvery), size: -1}, {at: at.Add(2 * sampleEvery), size: -1}}}
	b := h.board()
	assert.Equal(t, len(b.Panels[0].Series[0].Points), 0)
	assert.Assert(t, b.Panels[0].Stat == nil)
	assert.Equal(t, len(b.Panels[1].Series[0].Points), 1)
	assert.Assert(t, b.Panels[1].Stat == nil)
}

func TestTimesAndNumbersAreWrittenForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234"} {
		assert.Equal(t, grouped(n), want)
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 59 * time.Second: "59 s", time.Minute: "1 min", 90 * time.Minute: "1 h 30 min", 50 * time.Hour: "2 d 2 h",
	} {
		assert.Equal(t, lasting(d), want)
	}
	assert.Equal(t, inTime(math.NaN()), "no data")
	assert.Equal(t, inFours("53BCCF50D1A4"), "53BC CF50 D1A4")
}

// The page is drawn whole by the server, pictures and all: nothing in it runs, and
// nothing comes from elsewhere.
func TestTheStatusPageRunsAndLoadsNothing(t *testing.T) {
	clock := &steps{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	s := newTestServer(t, Options{Now: clock.now, OpenRead: true})
	for range 3 {
		clock.at = clock.at.Add(sampleEvery)
		s.metrics.called("health", codeOK, time.Millisecond)
		s.sample()
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/status", nil))
	page, policy := w.Body.String(), w.Header().Get("Content-Security-Policy")
	assert.Equal(t, strings.Count(page, "<svg"), 2)
	assert.Assert(t, regexp.MustCompile(`^default-src 'none'; style-src( 'sha256-[0-9A-Za-z+/]{43}='){2}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'$`).MatchString(policy), policy)
	styles := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindAllStringSubmatch(page, -1)
	assert.Equal(t, len(styles), 3) // the page's, and the same in both pictures
	assert.Equal(t, strings.Count(page, "<style"), len(styles))
	for _, style := range styles {
		sum := sha256.Sum256([]byte(style[1]))
		assert.Assert(t, strings.Contains(policy, base64.StdEncoding.EncodeToString(sum[:])))
	}
	for _, not := range []string{`<script`, `(?i)\son[a-z]+=`, `\ssrc=`, `\sstyle=`, `<link`, `@import`, `url\(`, `href="[a-z]+:`, `href="//`, `<iframe`, `<form`} {
		assert.Assert(t, !regexp.MustCompile(not).MatchString(page), not)
	}
}
