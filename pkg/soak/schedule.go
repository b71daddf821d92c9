package soak

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Workload is one kind of operation.
type Workload string

// The workloads. Consistency is not drawn: it is due every minute.
const (
	Append      Workload = "append"       // one decision, to its verified receipt
	Batch       Workload = "append_batch" // several, one after the other
	ReadBack    Workload = "read"         // an earlier receipt, verified again
	Denied      Workload = "denied"       // without a token, malformed, oversized: must be refused
	Tampered    Workload = "tampered"     // with a broken signature: must be refused
	Replay      Workload = "replay"       // a challenge that was used; the same question twice
	Tools       Workload = "tools"        // what the node offers
	Disconnect  Workload = "disconnect"   // an append whose caller hangs up
	Consistency Workload = "consistency"  // the log extends what it was a minute ago
)

var workloads = []Workload{Append, Batch, ReadBack, Denied, Tampered, Replay, Tools, Disconnect, Consistency}

// Outcome is how an operation ended.
type Outcome string

// The outcomes. Every operation that was due has exactly one.
const (
	Verified       Outcome = "verified"        // done, and proven to the client
	DeniedExpected Outcome = "denied_expected" // refused, as it had to be
	Rejected       Outcome = "rejected"        // refused, and should not have been, or in another way
	Timeout        Outcome = "timeout"         // not ended at its deadline
	Errored        Outcome = "error"           // no answer, or one that nobody can read
	Dropped        Outcome = "dropped"         // never sent
	Unverified     Outcome = "unverified"      // the node said something that is not so
)

var outcomes = []Outcome{Verified, DeniedExpected, Rejected, Timeout, Errored, Dropped, Unverified}

func (o Outcome) good() bool { return o == Verified || o == DeniedExpected }

// Weights is how often each workload is drawn, in any unit.
type Weights map[Workload]int

// DefaultWeights are those of a run that nobody gave any.
func DefaultWeights() Weights {
	return Weights{Append: 60, Batch: 3, ReadBack: 20, Denied: 6, Tampered: 4, Replay: 2, Tools: 4, Disconnect: 1}
}

// ParseWeights reads words such as append=60. Workloads that are not named have
// none.
func ParseWeights(words []string) (Weights, error) {
	w := Weights{}
	var names []string
	for _, name := range workloads {
		if name != Consistency {
			names = append(names, string(name))
		}
	}
	for _, word := range words {
		name, number, _ := strings.Cut(word, "=")
		var n int
		if _, err := fmt.Sscanf(number, "%d", &n); err != nil || fmt.Sprint(n) != number || n < 0 || n > 1_000_000 {
			return nil, fmt.Errorf("weight %q: want NAME=NUMBER, the number at most 1000000", word)
		}
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("weight %q: there are %s", word, strings.Join(names, ", "))
		}
		if _, twice := w[Workload(name)]; twice {
			return nil, fmt.Errorf("weight %q: %s has one already", word, name)
		}
		w[Workload(name)] = n
	}
	return w, nil
}

// The ways in which arrivals are spread over time.
const (
	Poisson = "poisson" // independent of each other
	Even    = "even"    // one in each equal share of the load, anywhere in it
)

// Plan is what a run does: with a seed it says when each operation is due, and
// which. A run that is resumed has the same one.
type Plan struct {
	Duration time.Duration `json:"duration_ns"`
	Rate     float64       `json:"rate"`     // mean operations a second, bursts apart
	Arrivals string        `json:"arrivals"` // Poisson or Even
	// Swing is by how much, as a share of the mean, the rate rises and falls over
	// a day, which is the run itself if that is shorter. It is at most 0.9: there
	// is always traffic.
	Swing float64 `json:"swing"`
	// Burst multiplies the rate for a hundredth of the day, ten times a day; 1 is
	// none.
	Burst    float64       `json:"burst"`
	Weights  Weights       `json:"weights"`
	Deadline time.Duration `json:"deadline_ns"` // of an operation, from when it was due
	Workers  int           `json:"workers"`     // operations at a time
	MaxLag   time.Duration `json:"max_lag_ns"`  // an operation handed out later than this is dropped

	// The phase "fault" is from FaultFrom on for FaultFor; none if that is 0. In it
	// one operation of ten is a Disconnect if Disconnects is set.
	FaultFrom   time.Duration `json:"fault_from_ns"`
	FaultFor    time.Duration `json:"fault_for_ns"`
	Disconnects bool          `json:"disconnects"`
}

const (
	maxDuration = 90 * 24 * time.Hour
	maxRate     = 10_000
)

// withDefaults fills what is left out.
func (p Plan) withDefaults() Plan {
	if p.Rate == 0 {
		p.Rate = 5
	}
	if p.Arrivals == "" {
		p.Arrivals = Poisson
	}
	if p.Burst == 0 {
		p.Burst = 1
	}
	if p.Weights == nil {
		p.Weights = DefaultWeights()
	}
	if p.Deadline == 0 {
		p.Deadline = 5 * time.Second
	}
	if p.MaxLag == 0 {
		p.MaxLag = time.Second
	}
	if p.Workers == 0 {
		p.Workers = max(16, 2*p.capacity())
	}
	return p
}

// capacity is how many operations can be under way at a time while each keeps its
// deadline. A pool of fewer overflows by its own fault.
func (p Plan) capacity() int {
	return int(math.Ceil(p.Rate * (1 + p.Swing) * p.Burst * p.Deadline.Seconds()))
}

func (p Plan) check() error {
	total := 0
	for _, n := range p.Weights {
		total += n
	}
	switch {
	case p.Duration <= 0 || p.Duration > maxDuration:
		return fmt.Errorf("duration %v, want more than 0 and at most %v", p.Duration, maxDuration)
	case !(p.Rate > 0 && p.Rate <= maxRate):
		return fmt.Errorf("rate %v, want more than 0 and at most %d a second", p.Rate, maxRate)
	case p.Arrivals != Poisson && p.Arrivals != Even:
		return fmt.Errorf("arrivals %q, want %s or %s", p.Arrivals, Poisson, Even)
	case !(p.Swing >= 0 && p.Swing <= 0.9):
		return fmt.Errorf("swing %v, want 0 to 0.9: there must always be traffic", p.Swing)
	case !(p.Burst >= 1 && p.Burst <= 100):
		return fmt.Errorf("burst %v, want 1 to 100", p.Burst)
	case total == 0:
		return errors.New("every weight is 0, want one that is not")
	case p.Deadline <= 0 || p.Deadline > time.Minute:
		return fmt.Errorf("deadline %v, want more than 0 and at most a minute", p.Deadline)
	case p.MaxLag <= 0 || p.MaxLag > p.Deadline:
		return fmt.Errorf("largest lag %v, want more than 0 and at most the deadline of %v", p.MaxLag, p.Deadline)
	case p.Workers < 1 || p.Workers > 100_000:
		return fmt.Errorf("%d workers, want 1 to 100000", p.Workers)
	case p.FaultFrom < 0 || p.FaultFor < 0 || p.FaultFrom+p.FaultFor > p.Duration:
		return fmt.Errorf("the fault is from %v on for %v, want it within the %v of the run", p.FaultFrom, p.FaultFor, p.Duration)
	}
	return nil
}

// same says whether two plans make one schedule.
func (p Plan) same(q Plan) bool {
	weights := maps.Equal(p.Weights, q.Weights)
	p.Weights, q.Weights = nil, nil
	return weights && fmt.Sprint(p) == fmt.Sprint(q)
}

// faulty says whether a time is in the phase "fault".
func (p Plan) faulty(at time.Duration) bool { return at >= p.FaultFrom && at < p.FaultFrom+p.FaultFor }

// rate is that of a time, in operations a second.
func (p Plan) rate(at time.Duration) float64 {
	day := min(p.Duration, 24*time.Hour)
	share := float64(at%day) / float64(day)
	r := p.Rate * (1 - p.Swing*math.Cos(2*math.Pi*share))
	if tenth := math.Mod(share*10, 1); tenth >= 0.5 && tenth < 0.6 {
		r *= p.Burst
	}
	return r
}

// arrival is one operation that is due.
type arrival struct {
	seq  int64
	at   time.Duration // after the begin of the run
	work Workload
}

// schedule gives the arrivals of a run in order. It is a function of plan and seed:
// a unit process, stretched so that it has the rate of each moment.
type schedule struct {
	plan   Plan
	random *rand.Rand
	step   time.Duration
	seq    int64
	slot   time.Duration // begin of the step that sum stands at the begin of
	sum    float64       // arrivals expected until slot
	unit   float64       // of the last arrival, in the unit process
	drawn  arrival       // the next, if there
	there  bool
	audit  time.Duration // when the next Consistency is due
	every  time.Duration
	names  []Workload
	total  int
}

func newSchedule(p Plan, seed uint64) *schedule {
	s := &schedule{
		plan: p, random: rand.New(rand.NewPCG(seed, 0x736f616b)), // reproducible, not secret
		step: max(time.Millisecond, min(100*time.Millisecond, p.Duration/1000)), every: max(time.Millisecond, min(time.Minute, p.Duration/4)),
	}
	s.audit = s.every
	for _, w := range workloads {
		if n := p.Weights[w]; n > 0 && w != Consistency {
			s.names = append(s.names, w)
			s.total += n
		}
	}
	return s
}

// next returns the next arrival; false is the end of the run.
func (s *schedule) next() (arrival, bool) {
	if !s.there {
		s.drawn, s.there = s.draw()
	}
	a, ok := s.drawn, s.there
	if s.audit < s.plan.Duration && (!ok || s.audit <= a.at) {
		a, ok = arrival{at: s.audit, work: Consistency}, true
		s.audit += s.every
	} else {
		s.there = false
	}
	if ok {
		a.seq = s.seq
		s.seq++
	}
	return a, ok
}

func (s *schedule) draw() (arrival, bool) {
	var target float64
	if s.plan.Arrivals == Even {
		s.unit++
		target = s.unit - 1 + s.random.Float64()
	} else {
		s.unit += s.random.ExpFloat64()
		target = s.unit
	}
	// Each draws as much chance as any other, so that a fault phase changes no more
	// than what it is for.
	pick, cut := s.random.IntN(s.total), s.random.IntN(10) == 0
	for ; s.slot < s.plan.Duration; s.slot += s.step {
		r := s.plan.rate(s.slot)
		if in := r * s.step.Seconds(); s.sum+in <= target {
			s.sum += in
			continue
		}
		at := s.slot + time.Duration((target-s.sum)/r*float64(time.Second))
		if at >= s.plan.Duration {
			break
		}
		a := arrival{at: at}
		for _, w := range s.names {
			if pick -= s.plan.Weights[w]; pick < 0 {
				a.work = w
				break
			}
		}
		if s.plan.Disconnects && cut && s.plan.faulty(at) {
			a.work = Disconnect
		}
		return a, true
	}
	s.slot = s.plan.Duration
	return arrival{}, false
}
