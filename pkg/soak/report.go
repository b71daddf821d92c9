package soak

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

const (
	ownShare = 0.01 // of the operations, that may be dropped by the driver's own fault
	apart    = 0.01 // by how much two counts of one thing may differ
)

// Report is what came of a run.
type Report struct {
	Version     int                 `json:"version"` // 1
	Run         string              `json:"run_id"`
	Seed        uint64              `json:"seed"`
	URL         string              `json:"url"`
	Node        Identity            `json:"node"`
	Revision    string              `json:"node_git_sha"` // as the node says; "" where it does not
	Treaty      string              `json:"treaty_id"`
	Track       string              `json:"track"`
	Plan        Plan                `json:"plan"`
	Begun       time.Time           `json:"begun"`
	Ended       time.Time           `json:"ended"`
	Starts      int64               `json:"starts"` // of the driver
	Interrupted bool                `json:"interrupted"`
	Total       Totals              `json:"total"`
	Workloads   map[Workload]Totals `json:"workloads"`
	InFault     int64               `json:"in_fault"` // operations that were due in the phase "fault"
	Lag         Lag                 `json:"schedule_lag"`
	Dropped     Drops               `json:"dropped"`
	Audit       Audit               `json:"audit"`
	Appends     Appends             `json:"appends"`
	Faults      []string            `json:"faults,omitempty"`
	Last        map[Outcome]string  `json:"last_reasons,omitempty"` // for each outcome that is not good
	Checks      []judge.Check       `json:"checks"`
	Verdict     judge.Status        `json:"verdict"`
}

// Lag is how late operations were handed out.
type Lag struct {
	P50 Millis `json:"p50_ms"`
	P99 Millis `json:"p99_ms"`
	Max Millis `json:"max_ms"`
}

// Drops are operations that were never sent.
type Drops struct {
	All  int64 `json:"all"`
	Own  int64 `json:"own"`  // by the driver's own fault
	Away int64 `json:"away"` // of these, due while the driver did not run
}

// Audit is what the auditor found.
type Audit struct {
	Entries  int64    `json:"entries"` // that came into the log, by its signed size
	Verified int64    `json:"verified"`
	Missing  int64    `json:"missing"` // not shown, or not seen by the end
	Invalid  int64    `json:"invalid"`
	Coverage float64  `json:"coverage"` // verified / entries
	Findings []string `json:"findings,omitempty"`
}

// Appends are the counts of receipts, by three that should agree.
type Appends struct {
	Client   int64   `json:"client_verified"`
	Unknown  int64   `json:"client_unknown"` // asked for, and the answer was lost or did not verify
	Node     float64 `json:"node_appends_total"`
	NodeSize float64 `json:"node_tree_growth"` // that the node itself showed, over the same times
	Log      int64   `json:"log_growth"`       // between two signed sizes
	Own      int64   `json:"log_own"`          // of that, entries that this run asked for
	Others   int64   `json:"log_others"`
	Restarts int64   `json:"node_restarts"`
}

// total sums up all operations; open is how many are under way.
func (t *tally) total() (Totals, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := times{}
	ended := map[Outcome]int64{}
	for w, m := range t.ended {
		for o, n := range m {
			ended[o] += n
		}
		for d, n := range t.took[w] {
			all[d] += n
		}
	}
	return totalsOf(ended, all), len(t.open)
}

func totalsOf(ended map[Outcome]int64, took times) Totals {
	out := Totals{Ended: map[Outcome]int64{}}
	for _, o := range outcomes {
		n := ended[o]
		out.Ended[o] = n
		out.Due += n
		if o.good() {
			out.Good += n
		}
	}
	if out.Due > 0 {
		out.Fill = math.Round(1e6*float64(out.Good)/float64(out.Due)) / 1e6
	}
	out.P50, out.P95, out.P99 = Millis(took.quantile(.5)), Millis(took.quantile(.95)), Millis(took.quantile(.99))
	return out
}

// report says what came of the run.
func (s *Soak) report() *Report {
	is, c, app := s.auditor.state(), s.auditor.counts(), s.appends()
	r := &Report{
		Version: 1, Run: s.run, Seed: s.seed, URL: s.r.base, Node: s.r.pinned, Revision: c.Last.Revision, Treaty: s.o.Treaty, Track: s.o.Track,
		Plan: s.o.Plan, Begun: s.begun.UTC().Truncate(time.Second), Ended: s.ended.UTC().Truncate(time.Second), Starts: s.starts,
		Workloads: map[Workload]Totals{},
	}
	r.Total, _ = s.tally.total()
	s.tally.mu.Lock()
	for w, m := range s.tally.ended {
		r.Workloads[w] = totalsOf(m, s.tally.took[w])
	}
	t := s.tally
	r.InFault, r.Last = t.faulty, maps.Clone(t.why)
	r.Lag = Lag{Millis(t.lag.quantile(.5)), Millis(t.lag.quantile(.99)), Millis(t.lagMax)}
	r.Dropped = Drops{r.Total.Ended[Dropped], t.own, t.away}
	t.mu.Unlock()
	s.mu.Lock()
	r.Faults = append(r.Faults, s.faults...)
	trouble := s.trouble
	s.mu.Unlock()
	r.Interrupted = !s.done
	grown := is.To + is.Unseen - is.From
	r.Audit = Audit{Entries: grown, Verified: is.Verified, Missing: is.Missing + is.Unseen, Invalid: is.Invalid, Findings: is.Findings}
	if grown > 0 {
		r.Audit.Coverage = math.Round(1e6*float64(is.Verified)/float64(grown)) / 1e6
	}
	r.Appends = Appends{app.Verified, app.Unknown, c.Appends, c.Grown, grown, is.Own, grown - is.Own, c.Restarts}
	r.Checks = []judge.Check{
		r.schedule(), r.truth(is), r.audit(is, trouble), r.agreement(c),
	}
	r.Verdict = judge.Sum(r.Checks, nil).Status
	return r
}

// schedule says whether the load was the one that was planned.
func (r *Report) schedule() judge.Check {
	const id, claim = "soak/schedule", "the load was the one that was planned"
	share := float64(r.Dropped.Own) / float64(max(1, r.Total.Due))
	detail := fmt.Sprintf("%d operations were due, %d dropped, %d of them by the driver's own fault; handed out at most %v late", r.Total.Due, r.Dropped.All, r.Dropped.Own, time.Duration(r.Lag.Max).Round(time.Millisecond))
	switch {
	case r.Total.Due == 0:
		return judge.Unjudged(id, claim, errors.New("no operation was due"))
	case share > ownShare:
		return judge.Unjudged(id, claim, fmt.Errorf("the driver could not keep its schedule: %s; want at most %.0f%%: give it a faster machine, more --workers, or a lower --rate", detail, 100*ownShare))
	case r.Interrupted:
		return judge.Unjudged(id, claim, fmt.Errorf("it was stopped after %v of %v: %s; start it again with the same state to go on", r.Ended.Sub(r.Begun), r.Plan.Duration, detail))
	}
	return judge.Judged(id, claim, detail)
}

// truth says whether the node said nothing that is not so.
func (r *Report) truth(is audited) judge.Check {
	var found []judge.Finding
	if n := r.Total.Ended[Unverified]; n > 0 {
		found = append(found, judge.Finding{Message: fmt.Sprintf("%d operations had answers that do not verify, the last: %s", n, r.Last[Unverified])})
	}
	if is.Lies > 0 {
		found = append(found, judge.Finding{Message: fmt.Sprintf("%d times the log's head was not what it must be", is.Lies)})
	}
	return judge.Judged("soak/truth", "every answer of the node verifies", fmt.Sprintf("%d operations", r.Total.Due-r.Dropped.All), found...)
}

// audit says whether every entry was read again.
func (r *Report) audit(is audited, trouble string) judge.Check {
	const id, claim = "soak/audit", "every entry of the log was read again and verifies"
	detail := fmt.Sprintf("%d of %d entries verified, %d missing, %d invalid", r.Audit.Verified, r.Audit.Entries, r.Audit.Missing, r.Audit.Invalid)
	switch {
	case is.Missing > 0 || is.Invalid > is.Strange:
		found := make([]judge.Finding, 0, len(is.Findings))
		for _, f := range is.Findings {
			found = append(found, judge.Finding{Message: f})
		}
		return judge.Judged(id, claim, detail, found...)
	case is.Strange > 0:
		return judge.Unjudged(id, claim, fmt.Errorf("%s: %d are of issuers whose keys are not at hand: give their keys, too", detail, is.Strange))
	case is.Unseen > 0:
		return judge.Unjudged(id, claim, fmt.Errorf("%s: the last %d were not shown by the end: %s", detail, is.Unseen, trouble))
	case trouble != "":
		return judge.Unjudged(id, claim, fmt.Errorf("%s, and whether that is all is not known: %s", detail, trouble))
	case r.Audit.Entries == 0:
		return judge.Unjudged(id, claim, errors.New("no entry came into the log"))
	}
	return judge.Judged(id, claim, detail)
}

// agreement says whether client, node and log count the same.
func (r *Report) agreement(c counted) judge.Check {
	const id, claim = "soak/agreement", "client, node and log count the same receipts"
	a := r.Appends
	detail := fmt.Sprintf("the client verified %d and does not know of %d; the node counted %.0f while its log grew by %.0f; the log grew by %d, %d of them of this run",
		a.Client, a.Unknown, a.Node, a.NodeSize, a.Log, a.Own)
	near := func(x, y float64) bool { return math.Abs(x-y) <= 1+apart*max(x, y) }
	own, least, most := float64(a.Own), float64(a.Client), float64(a.Client+a.Unknown)
	switch {
	case c.Samples < 2:
		return judge.Unjudged(id, claim, fmt.Errorf("%s: the node's own numbers were read %d times, want two at least: its /metrics must have %s and %s", detail, c.Samples, seriesAppends, seriesSize))
	case !near(a.Node, a.NodeSize):
		return judge.Unjudged(id, claim, fmt.Errorf("%s: the node's two counts differ by more than %.0f%%", detail, 100*apart))
	case own < least && !near(own, least):
		return judge.Unjudged(id, claim, fmt.Errorf("%s: fewer are in the log than the client verified", detail))
	case own > most && !near(own, most):
		return judge.Unjudged(id, claim, fmt.Errorf("%s: more are in the log than the client asked for", detail))
	case c.Restarts == 0 && r.Starts == 1 && !near(a.Node, float64(a.Log)):
		return judge.Unjudged(id, claim, fmt.Errorf("%s: the node counts another number than its log grew by", detail))
	}
	return judge.Judged(id, claim, detail)
}

// leave writes what the run leaves behind: its state, if it can be gone on with, or its
// report.
func (s *Soak) leave(r *Report) error {
	if err := s.save(); err != nil {
		return err
	}
	if !s.done {
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	// First the report, then the state goes: a crash in between ends the run again.
	if err := s.o.State.Put(s.run+".json", append(data, '\n')); err != nil {
		return err
	}
	return s.o.State.Remove(stateFile)
}

// Line is how a run goes, in one line.
func (p Progress) Line() string {
	text := fmt.Sprintf("%v of %v  %s  due %d  fill %.2f%%  p95 %s  audit %d/%d", p.Elapsed.Round(time.Second), p.Plan, p.Phase,
		p.Total.Due, 100*p.Total.Fill, p.Total.P95, p.Audited, p.Size)
	for _, o := range outcomes {
		if n := p.Total.Ended[o]; n > 0 && !o.good() {
			text += fmt.Sprintf("  %s %d", o, n)
		}
	}
	if p.Bad > 0 {
		text += fmt.Sprintf("  BAD ENTRIES %d", p.Bad)
	}
	if p.Trouble != "" {
		text += "  (" + short(p.Trouble, 60) + ")"
	}
	return text
}

func short(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}

// Text is the report for a person.
func (r *Report) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-14s %8s %8s %8s %8s %7s %7s %7s %8s  %8s %8s %8s\n", "workload", "due", "verified", "denied", "rejected", "timeout", "error", "dropped", "untrue", "p50", "p95", "p99")
	row := func(name string, t Totals) {
		fmt.Fprintf(&b, "%-14s %8d %8d %8d %8d %7d %7d %7d %8d  %8s %8s %8s\n", name, t.Due, t.Ended[Verified], t.Ended[DeniedExpected],
			t.Ended[Rejected], t.Ended[Timeout], t.Ended[Errored], t.Ended[Dropped], t.Ended[Unverified], t.P50, t.P95, t.P99)
	}
	for _, w := range workloads {
		if t, ok := r.Workloads[w]; ok {
			row(string(w), t)
		}
	}
	row("all", r.Total)
	fmt.Fprintf(&b, "\n")
	for _, o := range outcomes {
		if why := r.Last[o]; why != "" {
			fmt.Fprintf(&b, "   last %s: %s\n", o, short(why, 300))
		}
	}
	for _, f := range r.Faults {
		fmt.Fprintf(&b, "   fault: %s\n", f)
	}
	fmt.Fprintf(&b, "   run       %s, seed %d, started %s\n", r.Run, r.Seed, times1(r.Starts))
	fmt.Fprintf(&b, "   node      %s, %s, revision %s\n", r.Node.Node, r.Node.Fingerprint, cmp.Or(r.Revision, "unknown"))
	fmt.Fprintf(&b, "   window    %s to %s, %v of %v\n", r.Begun.Format(time.RFC3339), r.Ended.Format(time.RFC3339), r.Ended.Sub(r.Begun), r.Plan.Duration)
	fmt.Fprintf(&b, "   fill      %.4f: %d of %d that were due\n", r.Total.Fill, r.Total.Good, r.Total.Due)
	fmt.Fprintf(&b, "   coverage  %.4f: %d of %d entries\n", r.Audit.Coverage, r.Audit.Verified, r.Audit.Entries)
	fmt.Fprintf(&b, "   lag       p50 %s, p99 %s, max %s\n", r.Lag.P50, r.Lag.P99, r.Lag.Max)
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%s %-16s %s\n     %s\n", c.Mark(), c.ID, c.Claim, c.Detail)
		for _, f := range c.Findings {
			fmt.Fprintf(&b, "     %s\n", f.Message)
		}
	}
	fmt.Fprintf(&b, "%s\n", strings.ToUpper(r.Verdict.String()))
	return b.String()
}

func times1(n int64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// Markdown is the report for a run's page; escape makes text of others harmless.
func (r *Report) Markdown(escape func(string) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### soak: %s\n\n| workload | due | fill | p50 | p95 | p99 | not good |\n|---|--:|--:|--:|--:|--:|---|\n", r.Verdict)
	row := func(name string, t Totals) {
		bad := ""
		for _, o := range outcomes {
			if n := t.Ended[o]; n > 0 && !o.good() {
				bad += fmt.Sprintf("%s %d ", o, n)
			}
		}
		fmt.Fprintf(&b, "| %s | %d | %.2f%% | %s | %s | %s | %s |\n", name, t.Due, 100*t.Fill, t.P50, t.P95, t.P99, strings.TrimSpace(bad))
	}
	for _, w := range workloads {
		if t, ok := r.Workloads[w]; ok {
			row("`"+string(w)+"`", t)
		}
	}
	row("all", r.Total)
	b.WriteString("\n| | check | what was seen |\n|---|---|---|\n")
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", c.Mark(), c.ID, escape(c.Detail))
	}
	fmt.Fprintf(&b, "\nRun `%s`, seed %d, %v of %v.\n", r.Run, r.Seed, r.Ended.Sub(r.Begun), r.Plan.Duration)
	return b.String()
}
