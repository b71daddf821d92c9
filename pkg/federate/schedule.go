package federate

import (
	"context"
	"errors"
	"time"
)

// Schedule says when to sync again. Its zero value is every minute, and after a
// failure in 5, 10 and 30 seconds, as the ancestor's retry_backoff has it.
//
// There is no chance in it: equal histories give equal times.
type Schedule struct {
	Interval time.Duration   // between two syncs; a minute
	Backoff  []time.Duration // after the first failures in a row; then it is the interval
	// Wait returns after a time, or when ctx is done, with its error. A test gives
	// its own; nil is a timer.
	Wait func(ctx context.Context, d time.Duration) error
}

// backoff is the ancestor's retry_backoff.
var backoff = []time.Duration{5 * time.Second, 10 * time.Second, 30 * time.Second}

// Next is the time to wait after so many failures in a row, the last of which was
// err. What trying again will not heal waits for the interval: two histories, a
// peer that is stopped, other keys, other trust.
func (s Schedule) Next(failures int, err error) time.Duration {
	interval, list := s.Interval, s.Backoff
	if interval <= 0 {
		interval = time.Minute
	}
	if list == nil {
		list = backoff
	}
	if err == nil || failures < 1 || failures > len(list) || Settled(err) {
		return interval
	}
	return min(interval, list[failures-1])
}

// Settled reports whether the error of a sync will be the same until a person does
// something about it.
func Settled(err error) bool {
	var (
		equivocation *Equivocation
		trust        *TrustMismatch
		untrusted    *Untrusted
		changed      *IdentityChanged
		stopped      *Stopped
	)
	return errors.As(err, &equivocation) || errors.As(err, &trust) || errors.As(err, &untrusted) ||
		errors.As(err, &changed) || errors.As(err, &stopped) || codeOf(err) == CodeForbidden || codeOf(err) == CodeTrustMismatch
}

// Run does a job at once, and again as the schedule says, until ctx is done, whose
// error it returns. Report is told of each outcome and of the time until the next;
// it may be nil.
func (s Schedule) Run(ctx context.Context, job func(context.Context) error, report func(err error, next time.Duration)) error {
	wait := s.Wait
	if wait == nil {
		wait = sleep
	}
	for failures := 0; ; {
		err := job(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failures++
		if err == nil || errors.Is(err, ErrQuorum) {
			failures = 0
		}
		next := s.Next(failures, err)
		if report != nil {
			report(err, next)
		}
		if err := wait(ctx, next); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
