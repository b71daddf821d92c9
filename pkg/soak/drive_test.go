package soak

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// driver is the driver alone, with operations that a test makes up.
func driver(p Plan, do func(context.Context, arrival) (Outcome, error)) *Soak {
	m := newMetrics("T-1", "stable")
	s := &Soak{o: Options{Plan: p.withDefaults(), Now: time.Now}, m: m, tally: newTally(m), work: &work{}, seed: 1, do: do, phase: steady}
	s.begun = time.Now()
	return s
}

// A closed loop sends nothing while it waits, and so would see two slow operations at
// most.
func TestAStallIsSeenByEverythingThatWasDueInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		s := driver(Plan{Duration: 10 * time.Second, Rate: 100, Arrivals: Even}, func(context.Context, arrival) (Outcome, error) {
			if at := time.Since(begun); at >= 4*time.Second && at < 6*time.Second {
				time.Sleep(6*time.Second - at)
			}
			time.Sleep(5 * time.Millisecond)
			return Verified, nil
		})
		s.drive(t.Context(), s.begun)
		total, open := s.tally.total()
		assert.Equal(t, open, 0)
		assert.Assert(t, total.Due > 990 && total.Due < 1010 && total.Good == total.Due, "%+v", total)
		// A fifth of the load had to wait, evenly up to two seconds: so the worst
		// twentieth waited more than 1.5 s.
		p95 := time.Duration(total.P95)
		assert.Assert(t, p95 > 1450*time.Millisecond && p95 < 1550*time.Millisecond, "%v", p95)
		assert.Equal(t, time.Duration(total.P50), 5*time.Millisecond)
	})
}

func TestWhatFindsNoWorkerIsDroppedAndCounted(t *testing.T) {
	for _, c := range []struct {
		workers int
		own     bool // the pool is too small for the load while every deadline is kept
	}{{100, true}, {1000, false}} {
		synctest.Test(t, func(t *testing.T) {
			p := Plan{Duration: 10 * time.Second, Rate: 100, Arrivals: Even, Workers: c.workers, Deadline: 5 * time.Second}
			s := driver(p, func(context.Context, arrival) (Outcome, error) {
				time.Sleep(20 * time.Second) // it does not even end at its deadline
				return Timeout, nil
			})
			s.drive(t.Context(), s.begun)
			total, _ := s.tally.total()
			all := int64(len(arrivals(p, 1)))
			assert.Equal(t, total.Due, all)
			assert.Equal(t, total.Ended[Timeout], min(all, int64(c.workers)))
			assert.Equal(t, total.Ended[Dropped], all-total.Ended[Timeout])
			assert.Equal(t, s.tally.own > 0, c.own)
			assert.Assert(t, time.Duration(total.P50) >= 5*time.Second)
		})
	}
}

func TestAFailureIsNeverFast(t *testing.T) {
	for _, o := range outcomes {
		synctest.Test(t, func(t *testing.T) {
			s := driver(Plan{Duration: time.Second, Rate: 20, Arrivals: Even}, func(context.Context, arrival) (Outcome, error) {
				time.Sleep(time.Millisecond)
				return o, errors.New("why")
			})
			s.drive(t.Context(), s.begun)
			total, _ := s.tally.total()
			want := 5 * time.Second
			if o == Verified || o == DeniedExpected {
				want = time.Millisecond
			}
			assert.Equal(t, time.Duration(total.P50), want)
			assert.Equal(t, total.Ended[o], total.Due)
			assert.Equal(t, s.tally.why[o] != "", want > time.Second)
		})
	}
}

func TestAnOperationEndsAtItsDeadlineCountedFromWhenItWasDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := driver(Plan{Duration: time.Second, Rate: 20, Arrivals: Even, Deadline: 2 * time.Second}, func(ctx context.Context, _ arrival) (Outcome, error) {
			<-ctx.Done()
			return outcomeOf(ctx, Verified, ctx.Err()), ctx.Err()
		})
		s.drive(t.Context(), s.begun)
		total, _ := s.tally.total()
		assert.Equal(t, total.Ended[Timeout], total.Due)
		assert.Equal(t, time.Duration(total.P99), 2*time.Second)
	})
}

// A machine that sleeps, or a driver that is too slow, is not the node's fault. The
// numbers then say nothing about the node.
func TestADriverThatCannotKeepItsScheduleRefusesToReport(t *testing.T) {
	for _, c := range []struct {
		asleep time.Duration
		want   judge.Status
	}{{0, judge.Pass}, {900 * time.Millisecond, judge.Pass}, {3 * time.Second, judge.Error}} {
		synctest.Test(t, func(t *testing.T) {
			var gone atomic.Int64
			s := driver(Plan{Duration: 10 * time.Second, Rate: 50, Arrivals: Even}, func(context.Context, arrival) (Outcome, error) { return Verified, nil })
			s.o.Now = func() time.Time { return time.Now().Add(time.Duration(gone.Load())) }
			go func() {
				time.Sleep(5 * time.Second)
				gone.Store(int64(c.asleep))
			}()
			s.drive(t.Context(), s.begun)
			total, _ := s.tally.total()
			assert.Equal(t, total.Due, int64(len(arrivals(s.o.Plan, 1))))
			r := &Report{Total: total, Dropped: Drops{total.Ended[Dropped], s.tally.own, s.tally.away}, Lag: Lag{Max: Millis(s.tally.lagMax)}}
			check := r.schedule()
			assert.Equal(t, check.Status, c.want, check.Detail)
			assert.Equal(t, total.Ended[Dropped] > 0, c.want != judge.Pass)
			assert.Assert(t, s.tally.lagMax >= c.asleep-25*time.Millisecond, "%v", s.tally.lagMax)
		})
	}
}

func TestARunOfNothingIsRefused(t *testing.T) {
	check := (&Report{}).schedule()
	assert.Equal(t, check.Status, judge.Error)
	assert.Equal(t, check.Detail, "no operation was due")
}

func TestFaultsHappenInAPhaseThatIsLabelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Plan{Duration: 10 * time.Second, Rate: 20, Arrivals: Even, FaultFrom: 4 * time.Second, FaultFor: 2 * time.Second}
		s := driver(p, func(context.Context, arrival) (Outcome, error) { return Verified, nil })
		var ran, ended time.Duration
		s.o.Note = func(string, ...any) {}
		s.o.Fault = func(ctx context.Context) error {
			ran = time.Since(s.begun)
			<-ctx.Done()
			ended = time.Since(s.begun)
			return errors.New("it did not end by itself")
		}
		var phases sync.WaitGroup
		phases.Go(func() { s.faultPhase(t.Context()) })
		s.drive(t.Context(), s.begun)
		phases.Wait()
		assert.Equal(t, ran, 4*time.Second)
		assert.Equal(t, ended, 6*time.Second)
		assert.DeepEqual(t, s.faults, []string{"the command: it did not end by itself"})
		assert.Equal(t, s.fault, "ended")
		assert.Equal(t, s.phase, steady)
		// What was due in it is counted as everything else.
		total, _ := s.tally.total()
		assert.Assert(t, s.tally.faulty > 35 && s.tally.faulty < 45, "%d of %d", s.tally.faulty, total.Due)
	})
}

// Whatever happens, each operation that was due ends in exactly one way.
func TestEveryOperationIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Plan{Duration: 30 * time.Second, Rate: 50, Swing: .5, Burst: 5, Workers: 40}
		s := driver(p, func(ctx context.Context, a arrival) (Outcome, error) {
			r := rand.New(rand.NewPCG(3, uint64(a.seq)))
			time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
			return outcomes[r.IntN(len(outcomes))], nil
		})
		s.drive(t.Context(), s.begun)
		total, open := s.tally.total()
		assert.Equal(t, open, 0)
		assert.Equal(t, total.Due, int64(len(arrivals(p, 1))))
		assert.Equal(t, s.tally.next, total.Due)
	})
}
