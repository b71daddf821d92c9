// Package soak puts a real node under load for a while and says what came of it. The
// client believes nothing: an operation is verified when its receipt has the node's
// signature and is proven to be in the log. An auditor beside it reads every entry of
// the log again.
//
// # Load
//
// The load is an open loop. When each operation is due follows from a [Plan] and a
// seed before the first one is sent, and does not wait for answers: a node that stalls
// for two seconds makes everything late that was due in them. Time is counted from
// when an operation was due. What finds no worker, or comes out of the driver too
// late, is counted as dropped, and never left out.
//
// Each operation is of one [Workload], and has one [Outcome]. Some must be refused:
// then the refusal is what is good. The fill rate is the share of good ones among
// those that were due. An operation that fails counts with its deadline at least, so
// that no failure makes a node look fast.
//
//	append        record_decision, get_memory, a checkpoint under the pinned key, a
//	              proof of inclusion made of tiles
//	append_batch  five of these, proven under one checkpoint
//	read          fed_get of an earlier receipt: the same bytes, still in the log
//	denied        without a token, with a wrong one, oversized, malformed, unknown
//	tampered      a session with the node's identity and one bit of its signature
//	              flipped; a checkpoint that was changed, to the witness
//	replay        a challenge that was used; the same question twice, one answer
//	tools         tools/list: what everybody needs is there
//	disconnect    record_decision, hung up within 5 ms; the log must go on
//	consistency   every minute: the log extends what it was
//
// # Audit
//
// The auditor has its own connection. It asks for the checkpoint twice a second, reads
// every entry that came since from the entry bundles, verifies the envelope and the
// issuer's signature, and hashes all of it to the signed root: whoever drops, changes
// or reorders an entry has another root. How many entries there are to audit says that
// checkpoint. What is not shown for ten seconds is missing.
//
// # Keys
//
// Who the node is, is learned at first contact: its identity must be signed by one of
// the keys that the caller has, and is pinned for the run, its log key too. A node with
// other keys at the same address ends the run.
//
// # State
//
// A run survives the node and the driver. While the node is away operations fail and
// are counted. The driver keeps run.json in its state directory; started again with
// it, the same run goes on at the same schedule, and what was due meanwhile was
// dropped. Its series of metrics begin at zero then. A run that ended leaves its report
// there, under its id.
//
// # What it refuses to report
//
// [Report.Checks] hold what must be so for the numbers to mean anything: the schedule
// was kept (at most one operation in a hundred dropped by the driver's own fault), the
// node said nothing untrue, the audit is whole, and the counts of client, node and log
// agree. It does not judge how good the service was: that is for the objectives.
package soak

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/node"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

// Options are what a run is made of. Node, Keys, Plan.Duration, State, Now and Random
// are required.
type Options struct {
	Node string           // URL, with or without /mcp
	Dial node.DialOptions // how it is reached; Token and Timeout are not used
	// Token returns the bearer token, which needs the scopes read, record and
	// federate. It is asked again when the node does not know it any more. nil: none.
	Token func() (string, error)
	// Keys are those whose signatures are believed: the node's, and those of others
	// who have entries in its log.
	Keys []*openpgp.Key

	Plan Plan
	// KeepPlan lets a run that goes on have its own plan, whatever Plan says.
	KeepPlan bool

	Seed uint64 // 0: drawn, or that of the run that goes on
	Run  string // id; "": drawn, or that of the run that goes on

	Treaty string // label treaty_id
	Track  string // label track

	State *durable.Dir
	// Contact is how long a node that does not answer is waited for at the begin.
	Contact time.Duration
	// Fault is called when the phase "fault" begins, and may last as long as that. nil
	// does nothing.
	Fault func(ctx context.Context) error
	// Progress is told how it goes, once a second. nil: nobody.
	Progress func(Progress)
	// Note is told what a person should know. nil: nobody.
	Note func(format string, args ...any)

	Now    func() time.Time
	Random io.Reader
}

// Progress is how a run goes.
type Progress struct {
	Run           string
	Elapsed, Plan time.Duration
	Phase         string
	Total         Totals
	Open          int
	Audited, Size int64
	Bad           int64  // entries that are missing or invalid
	Trouble       string // why the node could not be audited the last time; "": it could
}

// ErrUsage is what the error of [New] or [Soak.Run] is that a caller can heal with other
// options.
var ErrUsage = errors.New("misused")

type usage struct{ error }

func (usage) Is(target error) bool { return target == ErrUsage }

func (u usage) Unwrap() error { return u.error }

func misused(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

// Soak is one run, or the part of it that this process does.
type Soak struct {
	o       Options
	m       *metrics
	r       *remote
	was     *saved // the run that goes on; nil: a new one
	run     string
	seed    uint64
	begun   time.Time
	ended   time.Time // when this part of it ended
	done    bool      // all that was due was handed out
	starts  int64
	tally   *tally
	work    *work
	do      func(context.Context, arrival) (Outcome, error) // performs an operation
	auditor *auditor

	mu      sync.Mutex // guards what follows
	phase   string
	fault   string // "", begun, ended
	faults  []string
	trouble string
	base    appended // of earlier starts
}

var labelValue = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// New prepares a run, or the continuation of the one whose state there is. It speaks to
// nobody.
func New(o Options) (*Soak, error) {
	o.Plan = o.Plan.withDefaults()
	if o.Note == nil {
		o.Note = func(string, ...any) {}
	}
	if o.Contact == 0 {
		o.Contact = time.Minute
	}
	for _, l := range []struct{ name, value string }{{"treaty", o.Treaty}, {"track", o.Track}, {"run id", o.Run}} {
		if !labelValue.MatchString(l.value) && (l.name != "run id" || l.value != "") {
			return nil, misused("%s %q: want letters, digits, dots, dashes and underscores, at most 100", l.name, l.value)
		}
	}
	if err := o.Plan.check(); err != nil {
		return nil, misused("%w", err)
	}
	if len(o.Keys) == 0 {
		return nil, misused("no key to verify receipts with: want the node's")
	}
	s := &Soak{o: o, m: newMetrics(o.Treaty, o.Track), run: o.Run, seed: o.Seed, phase: steady}
	var err error
	if s.r, err = newRemote(&s.o); err != nil {
		return nil, misused("%w", err)
	}
	if s.was, err = load(o.State); err != nil {
		return nil, err
	}
	if _, err := o.State.Get(o.Run + ".json"); o.Run != "" && s.was == nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, misused("run %s has ended, and its report is in its state directory: leave the run id out for a new one", o.Run)
	}
	s.tally = newTally(s.m)
	if was := s.was; was != nil {
		switch {
		case o.Run != "" && o.Run != was.Run:
			return nil, misused("the state is of run %s, not of %s: give another state directory", was.Run, o.Run)
		case o.Seed != 0 && o.Seed != was.Seed:
			return nil, misused("run %s has the seed %d, not %d: a run keeps its schedule", was.Run, was.Seed, o.Seed)
		case !o.KeepPlan && !o.Plan.same(was.Plan):
			return nil, misused("run %s goes on, and has another plan: found %+v, its own is %+v; leave the flags of the load out, or give another --state", was.Run, o.Plan, was.Plan)
		}
		s.o.Plan = was.Plan
		s.run, s.seed, s.begun, s.starts, s.base = was.Run, was.Seed, was.Begun, was.Starts, was.Appended
		s.fault, s.faults = was.Fault, was.Faults
		was.give(s.tally)
	}
	if err := s.draw(); err != nil {
		return nil, err
	}
	s.starts++
	return s, nil
}

// draw draws what nobody gave.
func (s *Soak) draw() error {
	var b [14]byte
	if _, err := io.ReadFull(s.o.Random, b[:]); err != nil {
		return err
	}
	if s.run == "" {
		s.run = hex.EncodeToString(b[:8])
	}
	for _, c := range b[8:] {
		if s.o.Seed == 0 && s.was == nil {
			s.seed = s.seed<<8 | uint64(c) // 48 bits, so that every reader of JSON has them all
		}
	}
	return nil
}

// ID returns the id of the run.
func (s *Soak) ID() string { return s.run }

// Seed returns its seed.
func (s *Soak) Seed() uint64 { return s.seed }

// Plan returns its plan.
func (s *Soak) Plan() Plan { return s.o.Plan }

// Resumed says whether the run began in another process.
func (s *Soak) Resumed() bool { return s.was != nil }

// Handler serves /metrics, and /healthz while the process answers. Every series is
// there before the run begins.
func (s *Soak) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.m.handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok\n")
	})
	return mux
}

// contact waits for the node, and verifies that it can do what the run needs.
func (s *Soak) contact(ctx context.Context) error {
	var was Identity
	var before *audited
	if s.was != nil {
		was, before = s.was.Node, &s.was.Audited
	}
	deadline := s.o.Now().Add(s.o.Contact)
	told := false
	for {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, max(10*time.Second, s.o.Plan.Deadline))
			defer cancel()
			// An empty log has no checkpoint yet; that it may be asked for is what counts.
			var status *statusError
			if _, err := s.r.get(ctx, "/checkpoint"); errors.As(err, &status) && (status.code == http.StatusUnauthorized || status.code == http.StatusForbidden) {
				return misused("%w: want a token with the scopes read, record and federate", err)
			}
			if err := s.r.meet(ctx, was); err != nil {
				return err
			}
			s.work = &work{r: s.r, run: s.run, seed: s.seed, now: s.o.Now}
			s.do = s.work.perform
			if err := s.work.begin(ctx); err != nil {
				return fmt.Errorf("the first receipt: %w", err)
			}
			var err error
			if s.auditor, err = newAuditor(s.r, s.run, s.o.Keys, s.m, s.o.Now); err != nil {
				return err
			}
			if s.was != nil {
				s.auditor.counted = s.was.Counted
			}
			if err := s.auditor.begin(ctx, before); err != nil {
				return fmt.Errorf("audit: %w", err)
			}
			return nil
		}()
		var lie *untrue
		var other *OtherNode
		var refused *node.ToolError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &refused) && refused.Code == "forbidden":
			return misused("node %s: %w: want a token with the scopes read, record and federate", s.r.base, err)
		case errors.As(err, &lie), errors.As(err, &other), errors.Is(err, ErrUsage), errors.Is(err, errNoKey), !s.o.Now().Before(deadline):
			return fmt.Errorf("node %s: %w", s.r.base, err)
		}
		if !told {
			s.o.Note("waiting for %s: %v", s.r.base, err)
			told = true
		}
		pause(ctx, 250*time.Millisecond)
	}
}

// Run carries the run out, to its end or until ctx is done; then it can be gone on
// with. An error means that it could not begin, or could not go on; the report is not
// nil where operations were due.
func (s *Soak) Run(ctx context.Context) (*Report, error) {
	defer s.r.close()
	s.m.ran(s.run, s.seed, "")
	if err := s.contact(ctx); err != nil {
		return nil, err
	}
	s.sample(ctx)
	resumed := s.o.Now()
	if s.was == nil {
		s.begun = resumed
	}
	if err := s.save(); err != nil {
		return nil, err
	}
	all, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var beside sync.WaitGroup
	every := func(d time.Duration, job func()) {
		beside.Go(func() {
			for all.Err() == nil {
				pause(all, d)
				if all.Err() == nil {
					job()
				}
			}
		})
	}
	every(auditEvery, func() { s.audit(all) })
	every(sampleEvery, func() { s.sample(all) })
	every(stateEvery, func() {
		if err := s.save(); err != nil {
			stop(fmt.Errorf("state: %w", err)) // a run that cannot be gone on with is not begun for hours
		}
	})
	every(time.Second, func() { s.progress() })
	beside.Go(func() {
		select {
		case err := <-s.r.other:
			stop(err)
		case <-all.Done():
		}
	})
	beside.Go(func() { s.faultPhase(all) })
	s.drive(all, resumed)
	s.ended = s.o.Now()
	cause := context.Cause(all)
	stop(nil)
	beside.Wait()
	var err error
	if ctx.Err() == nil {
		err = cause // what ended it, if that was not the caller
	}

	// What is left has a little time of its own; less for somebody who pressed Ctrl-C.
	if ctx.Err() != nil {
		s.auditor.patient.end = min(s.auditor.patient.end, 5*time.Second)
	}
	rest, end := context.WithTimeout(context.WithoutCancel(ctx), s.auditor.patient.end+10*time.Second)
	defer end()
	if err == nil || ctx.Err() != nil {
		if ferr := s.auditor.finish(rest); ferr != nil {
			s.note(ferr)
		} else {
			s.note(nil)
		}
		s.sample(rest)
	}
	report := s.report()
	if serr := s.leave(report); err == nil {
		err = serr
	}
	return report, err
}

// drive hands the operations out, each when it is due, and waits for their ends.
func (s *Soak) drive(ctx context.Context, resumed time.Time) {
	p := s.o.Plan
	places := make(chan struct{}, p.Workers)
	// Those that are under way may end, within their deadlines, when the run is stopped.
	base := context.WithoutCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	list := newSchedule(p, s.seed)
	var next int64
	var open map[int64]Workload
	var lost time.Time // operations that were due before may have been done, and not counted
	if s.was != nil {
		next, open = s.was.Next, s.was.Open
		lost = s.was.Saved.Add(2*stateEvery + p.Deadline)
	}
	for {
		a, ok := list.next()
		if !ok {
			// The last moment of the run is as much of it as the first.
			pause(ctx, s.begun.Add(p.Duration).Sub(s.o.Now()))
			s.done = !s.o.Now().Before(s.begun.Add(p.Duration))
			return
		}
		_, cut := open[a.seq]
		if a.seq < next && !cut {
			continue
		}
		due := s.begun.Add(a.at)
		faulty := p.FaultFor > 0 && p.faulty(a.at)
		if due.Before(resumed) && s.was != nil {
			s.tally.end(a, Dropped, resumed.Sub(due), p.Deadline, faulty, errors.New("the driver was away"))
			s.tally.blame(true)
			if due.Before(lost) {
				s.work.count(0, asked(a.work))
			}
			continue
		}
		if wait := due.Sub(s.o.Now()); wait > 0 {
			pause(ctx, wait)
		}
		if ctx.Err() != nil {
			return
		}
		lag := max(0, s.o.Now().Sub(due))
		if lag > p.MaxLag {
			s.tally.handed(a, lag)
			s.tally.end(a, Dropped, lag, p.Deadline, faulty, fmt.Errorf("the driver was %v late", lag.Round(time.Millisecond)))
			s.tally.blame(false)
			continue
		}
		select {
		case places <- struct{}{}:
		default:
			s.tally.handed(a, lag)
			s.tally.end(a, Dropped, lag, p.Deadline, faulty, fmt.Errorf("all %d workers were busy", p.Workers))
			if p.Workers < p.capacity() {
				s.tally.blame(false)
			}
			continue
		}
		s.tally.handed(a, lag)
		running.Go(func() {
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(base, due.Add(p.Deadline).Sub(s.o.Now()))
			defer cancel()
			o, err := s.do(ctx, a)
			s.tally.end(a, o, s.o.Now().Sub(due), p.Deadline, faulty, err)
		})
	}
}

// asked is how many receipts an operation asks for.
func asked(w Workload) int64 {
	switch w {
	case Append, Disconnect:
		return 1
	case Batch:
		return batchSize
	}
	return 0
}

// faultPhase enters and leaves the phase "fault".
func (s *Soak) faultPhase(ctx context.Context) {
	p := s.o.Plan
	if p.FaultFor == 0 {
		return
	}
	from, to := s.begun.Add(p.FaultFrom), s.begun.Add(p.FaultFrom+p.FaultFor)
	if !s.o.Now().Before(to) {
		return
	}
	pause(ctx, from.Sub(s.o.Now()))
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	first := s.fault == ""
	s.fault, s.phase = "begun", fault
	s.mu.Unlock()
	s.m.enter(fault)
	var command sync.WaitGroup
	inside, end := context.WithDeadline(ctx, to)
	defer end()
	if first && s.o.Fault != nil {
		s.o.Note("fault: the command begins")
		command.Go(func() {
			said := "the command ended well"
			if err := s.o.Fault(inside); err != nil {
				said = "the command: " + err.Error()
			}
			s.o.Note("fault: %s", said)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.faults = append(s.faults, said)
		})
	}
	pause(ctx, to.Sub(s.o.Now()))
	command.Wait()
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	s.fault, s.phase = "ended", steady
	s.mu.Unlock()
	s.m.enter(steady)
}

// audit audits what has come since.
func (s *Soak) audit(ctx context.Context) {
	if err := s.auditor.follow(ctx); ctx.Err() == nil {
		s.note(err)
	}
}

// sample reads the node's own numbers.
func (s *Soak) sample(ctx context.Context) {
	if err := s.auditor.sample(ctx); err != nil {
		return // too few samples are seen at the end
	}
	s.m.ran(s.run, s.seed, s.auditor.counts().Last.Revision)
}

func (s *Soak) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = ""
	if err != nil {
		s.trouble = err.Error()
	}
}

// save writes the state. A crash before leaves the one of two seconds ago: what was done
// since then counts as dropped.
func (s *Soak) save() error {
	st := &saved{
		Version: 1, Run: s.run, Seed: s.seed, Plan: s.o.Plan, Node: s.r.pinned, Begun: s.begun.UTC(), Saved: s.o.Now().UTC(),
		Starts: s.starts, Appended: s.appends(), Audited: s.auditor.state(), Counted: s.auditor.counts(),
	}
	s.mu.Lock()
	st.Fault, st.Faults = s.fault, append([]string(nil), s.faults...)
	s.mu.Unlock()
	st.take(s.tally)
	return st.put(s.o.State)
}

// appends counts receipts over all starts.
func (s *Soak) appends() appended {
	n := s.work.appended()
	return appended{n.Verified + s.base.Verified, n.Unknown + s.base.Unknown}
}

func (s *Soak) progress() {
	if s.o.Progress == nil {
		return
	}
	is := s.auditor.state()
	s.mu.Lock()
	p := Progress{Run: s.run, Elapsed: s.o.Now().Sub(s.begun), Plan: s.o.Plan.Duration, Phase: s.phase, Trouble: s.trouble}
	s.mu.Unlock()
	p.Audited, p.Size, p.Bad = is.Verified, s.auditor.size()-is.From, is.Missing+is.Invalid
	p.Total, p.Open = s.tally.total()
	s.o.Progress(p)
}
