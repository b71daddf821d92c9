package soak

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

const first = `0 1.268s append
1 2.611s read
2 3.477s append
3 4.63s append
4 5.237s append
5 6.41s append
6 7.828s read
7 8.694s append
`

func arrivals(p Plan, seed uint64) (all []arrival) {
	s := newSchedule(p.withDefaults(), seed)
	for {
		a, ok := s.next()
		if !ok {
			return all
		}
		all = append(all, a)
	}
}

// A run that goes on, on another machine too, must find the same schedule.
func TestAScheduleIsAFunctionOfPlanAndSeed(t *testing.T) {
	p := Plan{Duration: 2 * time.Minute, Rate: 2, Swing: .5}
	var b strings.Builder
	for _, a := range arrivals(p, 42)[:8] {
		fmt.Fprintf(&b, "%d %v %s\n", a.seq, a.at.Round(time.Millisecond), a.work)
	}
	assert.Equal(t, b.String(), first)
	assert.DeepEqual(t, fmt.Sprint(arrivals(p, 42)), fmt.Sprint(arrivals(p, 42)))
	assert.Assert(t, fmt.Sprint(arrivals(p, 42)) != fmt.Sprint(arrivals(p, 43)))
}

func TestAScheduleHasTheRateThatWasAskedFor(t *testing.T) {
	for _, how := range []string{Poisson, Even} {
		for _, swing := range []float64{0, .9} {
			p := Plan{Duration: time.Hour, Rate: 5, Arrivals: how, Swing: swing}
			n := float64(len(arrivals(p, 7)))
			assert.Assert(t, math.Abs(n-18000) < 500, "%s, swing %v: %v arrivals", how, swing, n)
		}
	}
}

func TestThereIsAlwaysTraffic(t *testing.T) {
	p := Plan{Duration: time.Hour, Rate: 5, Swing: .9}
	per := make([]int, 60)
	last := time.Duration(0)
	for i, a := range arrivals(p, 3) {
		assert.Assert(t, a.at >= last && a.at < p.Duration && a.seq == int64(i))
		last = a.at
		per[a.at/time.Minute]++
	}
	for i, n := range per {
		assert.Assert(t, n > 5, "minute %d has %d", i, n)
	}
	assert.Assert(t, per[0] < 60 && per[30] > 500, "the load swings: %v", per)
}

func TestEvenArrivalsLeaveNoHoles(t *testing.T) {
	last := time.Duration(0)
	for _, a := range arrivals(Plan{Duration: time.Minute, Rate: 10, Arrivals: Even}, 5) {
		assert.Assert(t, a.at-last <= 201*time.Millisecond, "%v after %v", a.at, last)
		last = a.at
	}
}

func TestBurstsAreShortAndMany(t *testing.T) {
	count := func(burst float64) (inside, all int) {
		for _, a := range arrivals(Plan{Duration: time.Hour, Rate: 5, Burst: burst}, 5) {
			if share := math.Mod(float64(a.at)/float64(time.Hour)*10, 1); share >= .5 && share < .6 {
				inside++
			}
			all++
		}
		return inside, all
	}
	calm, _ := count(1)
	wild, all := count(10)
	assert.Assert(t, wild > 8*calm && all > 30000, "%d against %d, of %d", wild, calm, all)
}

func TestConsistencyIsDueEveryMinuteAndWeightsAreKept(t *testing.T) {
	got := map[Workload]int{}
	var audits []time.Duration
	for _, a := range arrivals(Plan{Duration: 10 * time.Minute, Rate: 20, Weights: Weights{Append: 3, Tools: 1}}, 9) {
		got[a.work]++
		if a.work == Consistency {
			audits = append(audits, a.at)
		}
	}
	assert.Equal(t, len(got), 3)
	assert.Assert(t, math.Abs(float64(got[Append])/float64(got[Tools])-3) < .3, "%v", got)
	assert.Equal(t, len(audits), 9)
	assert.Equal(t, audits[0], time.Minute)
}

func TestAFaultPhaseChangesNothingOutsideOfIt(t *testing.T) {
	p := Plan{Duration: 10 * time.Minute, Rate: 10}
	calm := arrivals(p, 4)
	p.FaultFrom, p.FaultFor, p.Disconnects = 4*time.Minute, 2*time.Minute, true
	cut := 0
	for i, a := range arrivals(p, 4) {
		assert.Equal(t, a.at, calm[i].at)
		if a.work == calm[i].work {
			continue
		}
		assert.Assert(t, p.faulty(a.at) && a.work == Disconnect)
		cut++
	}
	assert.Assert(t, cut > 80 && cut < 160, "%d", cut)
}

func TestAPlanThatMeansNothingIsRefused(t *testing.T) {
	good := Plan{Duration: time.Minute}.withDefaults()
	assert.NilError(t, good.check())
	for want, change := range map[string]func(*Plan){
		"duration 0s":                  func(p *Plan) { p.Duration = 0 },
		"rate -1":                      func(p *Plan) { p.Rate = -1 },
		"rate NaN":                     func(p *Plan) { p.Rate = math.NaN() },
		`arrivals "often"`:             func(p *Plan) { p.Arrivals = "often" },
		"there must always be traffic": func(p *Plan) { p.Swing = 1 },
		"burst 0.5":                    func(p *Plan) { p.Burst = .5 },
		"every weight is 0":            func(p *Plan) { p.Weights = Weights{Append: 0} },
		"deadline 2m0s":                func(p *Plan) { p.Deadline = 2 * time.Minute },
		"largest lag":                  func(p *Plan) { p.MaxLag = time.Minute },
		"-1 workers":                   func(p *Plan) { p.Workers = -1 },
		"the fault is from":            func(p *Plan) { p.FaultFrom, p.FaultFor = 50*time.Second, 20*time.Second },
	} {
		p := good
		change(&p)
		assert.ErrorContains(t, p.check(), want)
	}
}

func TestWeightsAreReadStrictly(t *testing.T) {
	w, err := ParseWeights([]string{"append=3", "read=1"})
	assert.NilError(t, err)
	assert.DeepEqual(t, w, Weights{Append: 3, ReadBack: 1})
	for _, bad := range []string{"append", "append=", "append=-1", "append=01", "append=1x", "appendd=1", "consistency=1", "append=1000001"} {
		_, err := ParseWeights([]string{bad})
		assert.Assert(t, err != nil, bad)
	}
	_, err = ParseWeights([]string{"append=1", "append=2"})
	assert.ErrorContains(t, err, "has one already")
}

func TestQuantilesAreThoseThatWereMeasured(t *testing.T) {
	all := times{}
	assert.Equal(t, all.quantile(.95), time.Duration(0))
	for i := 1; i <= 100; i++ {
		all.add(time.Duration(i) * time.Millisecond)
	}
	assert.Equal(t, all.quantile(.5), 50*time.Millisecond)
	assert.Equal(t, all.quantile(.95), 95*time.Millisecond)
	assert.Equal(t, all.quantile(.99), 99*time.Millisecond)
	assert.Equal(t, all.quantile(1), 100*time.Millisecond)
}
