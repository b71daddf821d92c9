// Package scorecard says how much of the mission a repository has proven: four
// dimensions, a quarter of the whole each, from 0 to 10, from evidence alone.
//
// The package reads nothing. Others verify receipts, files and answers, and hand
// over what became of each as [Evidence]; [Score] holds them to a table of
// criteria that nobody can configure. [Table] prints that table.
//
// # The rules
//
//   - A criterion has a weight, in hundredths of its dimension. It earns all of it
//     when its evidence was verified, and nothing when it was not, is not there, or
//     could not be judged. What is claimed and not shown earns nothing.
//   - Only where the mission counts (tests, objectives, tasks) a part is earned: the
//     part that is proven, of what the mission demands, or of what there is if that
//     is more.
//   - Evidence has an age. Beyond the limit of its criterion it earns half, beyond
//     four times the limit nothing. What is dated later than now earns nothing.
//   - A key or a time-stamping authority that says of itself that it is one for
//     development shows that the bytes fit together and not who vouches for them: a
//     criterion that rests on a signature then earns half.
//   - A file that is cited and differs between the commit and the work tree is no
//     evidence: its criterion earns nothing.
//   - The mission's eighteen tasks are worth what the evidence behind them is worth.
//
// Every number is a whole one, of hundredths, and is cut, never rounded: 9.9 is at
// least 9.9. The same evidence and the same now give the same card.
//
// # The card
//
// Its JSON, version 1:
//
//	v                1
//	repository       name of the log; commit: what was judged; judged_at: RFC 3339
//	score            number from 0 to 10 with two decimals
//	dimensions       a list: name, title, weight (percent of the whole), score,
//	                 criteria
//	criteria         id, claim, weight (percent of the dimension; 0: it counts
//	                 through the tasks alone), score (of 10 × weight / 100), state
//	                 (proven, partly, wanting, absent, unjudged), have and of where
//	                 the mission counts, detail, next (what to type), files,
//	                 receipts, answers, at, age_seconds, limit_seconds, stale,
//	                 development (why signatures give no credit for authorship)
//	tasks            a list: id, text, by (its criterion), done
//
// # What it refuses
//
// Evidence of no criterion of the table is a mistake in a program, and panics. There
// is no option that adds to a score.
package scorecard

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// ID names a criterion: its dimension, a slash, its name.
type ID string

// The criteria.
const (
	Report     ID = "operational/report"
	Objectives ID = "operational/objectives"
	Window     ID = "operational/window"
	Picture    ID = "operational/picture"
	Snapshot   ID = "operational/snapshot"
	Week1      ID = "operational/tasks"

	SmokeRequired    ID = "automation/smoke-required"
	CovenantRequired ID = "automation/covenant-required"
	Enforcement      ID = "automation/enforcement"
	Publishing       ID = "automation/publishing"
	Root             ID = "automation/root"
	Smoke            ID = "automation/smoke"
	Week2            ID = "automation/tasks"
	Releases         ID = "automation/releases"
	Hook             ID = "automation/hook"

	CIGuide         ID = "documentation/ci-guide"
	FederationGuide ID = "documentation/federation-guide"
	Pristine        ID = "documentation/pristine"
	Untracked       ID = "documentation/untracked"
	Genesis         ID = "documentation/genesis"

	Sync          ID = "federation/sync"
	Signatures    ID = "federation/signatures"
	Deterministic ID = "federation/deterministic"
	SmokeCovers   ID = "federation/smoke"
	Week3         ID = "federation/tasks"
)

// What the mission counts.
const (
	Tests          = 27 // of the smoke test
	KPIs           = 4
	ProvenWindow   = 72 * time.Hour
	tasksPerWeek   = 6
	percentOfWhole = 25 // of each dimension
)

const day = 24 * time.Hour

// targets are the mission's, by the names of the KPIs.
var targets = map[string]struct {
	atLeast bool
	value   float64
}{
	"fill_rate_p95":         {true, 0.80},
	"rtt_p95_ms":            {false, 350},
	"provenance_coverage":   {true, 0.95},
	"policy_latency_p99_ms": {false, 25},
}

// MeetsTarget tells whether a KPI meets the mission's target. One that bears none of
// the mission's names has none to meet.
func MeetsTarget(kpi string, value float64) bool {
	t, named := targets[kpi]
	switch {
	case !named:
		return true
	case t.atLeast:
		return value >= t.value
	}
	return value <= t.value
}

// Criterion is one line of the table.
type Criterion struct {
	ID     ID
	Weight int           // percent of its dimension; 0: it counts through the tasks alone
	Claim  string        // what holds when all of it is earned
	How    string        // what is verified, and how
	Limit  time.Duration // how old evidence may be; 0: any age
	Signed bool          // it rests on a signature: keys for development earn half
}

// Name is the criterion's name in its dimension.
func (c Criterion) Name() string { _, name, _ := strings.Cut(string(c.ID), "/"); return name }

type dimension struct {
	name, title string
	criteria    []Criterion
}

// table is the mission's success dashboard. Weights of a dimension add up to 100.
var table = []dimension{
	{"operational", "Operational metrics", []Criterion{
		{Report, 20, "`canary_slo_report.json` holds measurements and no null", "made anew of its archived answers, byte for byte; its receipt is in the audited ledger; what was measured is a commit of this history", 7 * day, true},
		{Objectives, 20, "all four KPIs meet their targets", "of that report; a KPI that bears a name of the mission is held to the mission's target, whatever the spec says", 7 * day, true},
		{Window, 25, "72 hours were measured without a break", "of that report: start and end of the window, as the answers show it", 7 * day, true},
		{Picture, 10, "a picture of the dashboard is published", "a PNG at `docs/*-metrics.png`, whose SHA-256 a receipt in the audited ledger names", 30 * day, true},
		{Snapshot, 15, "the ledger has snapshots", "every snapshot: the chain, the ledger, signature and time stamps; the age is the newest one's", 7 * day, true},
		{Week1, 10, "the tasks of week 1 are done", "by the evidence of the other criteria", 0, false},
	}},
	{"automation", "Automation hardening", []Criterion{
		{SmokeRequired, 15, "no change is merged past the smoke test", "the forge requires `smoke-test`, pinned to its App; a workflow posts it, and cannot skip it", 0, false},
		{CovenantRequired, 15, "no change is merged past the covenants", "the same of `covenant-validation`", 0, false},
		{Enforcement, 15, "CI enforcement is live", "all that `enforce plan` asks of the forge, and all that `doctor` asks of the workflows", 0, false},
		{Publishing, 15, "the Merkle root is published by itself", "the ledger holds the observation of a run on the branch that succeeded, a workflow publishes, and no receipt waits for longer than a day", 30 * day, true},
		{Root, 15, "the Merkle root is published", "one root line in the index document, equal to the root of the audited ledger", 0, true},
		{Smoke, 15, "27 of 27 smoke tests pass", "the last report in the audited ledger, judged again by the configuration; the badge is recomputed from it", 30 * day, true},
		{Week2, 10, "the tasks of week 2 are done", "by the evidence of the other criteria, and of the two below", 0, false},
		{Releases, 0, "release tags are signed", "a release receipt in the audited ledger, and the signature of its tag", 0, true},
		{Hook, 0, "a hook runs the smoke test before a commit", "the hook of this clone is what `hook install` writes", 0, false},
	}},
	{"documentation", "Documentation maturity", []Criterion{
		{CIGuide, 20, "`docs/CI_AUTOMATION.md` is complete", "it names every required check; its links lead somewhere; each command in it is one that the program has, with flags that it takes", 0, false},
		{FederationGuide, 20, "`docs/FEDERATION_GUIDE.md` is complete", "it joins, syncs and verifies a merge; links and commands as above", 0, false},
		{Pristine, 20, "the documentation is pristine", "each entry of the root is named in `covenants.hygiene.root`, without wildcards, and there are at most 40; nothing is tracked that is ignored, left behind or misnamed; no document is there twice; every link leads somewhere; documents state the true root and counts", 0, false},
		{Untracked, 15, "git status is clean", "`git status`", 0, false},
		{Genesis, 25, "the genesis is sealed", "everything that `genesis verify` computes again, of committed files alone", 0, true},
	}},
	{"federation", "Federation proof", []Criterion{
		{Sync, 25, "two nodes have synced", "the newest merge verifies, is of two keys and two nodes, and a receipt in the audited ledger records it", 90 * day, true},
		{Signatures, 25, "the federation receipt is signed by both sides", "both signatures and the operator's, with the certificates of the trust anchors and peers", 90 * day, true},
		{Deterministic, 20, "merging is deterministic", "the roots and counts of that merge, computed again from its ids; the set of the ledger's receipts, built in several orders", 90 * day, true},
		{SmokeCovers, 20, "the smoke test covers federation", "a committed list of tests, of which the last report in the audited ledger bears the digest, names one with the word federation", 30 * day, true},
		{Week3, 10, "the tasks of week 3 are done", "by the evidence of the other criteria", 0, false},
	}},
}

// Task is one of the mission's tasks, and the criterion whose evidence shows that it
// is done.
type Task struct {
	ID   string `json:"id"`
	Text string `json:"text"`
	By   ID     `json:"by"`
	Done bool   `json:"done"` // all of its criterion is earned
}

var tasks = []Task{
	{ID: "W1-1", Text: "deploy the staging overlay", By: Report},
	{ID: "W1-2", Text: "export metrics to Prometheus", By: Report},
	{ID: "W1-3", Text: "run a soak of 72 hours", By: Window},
	{ID: "W1-4", Text: "fill the report with real metrics", By: Objectives},
	{ID: "W1-5", Text: "publish the first picture of the dashboard", By: Picture},
	{ID: "W1-6", Text: "commit the first ledger snapshot", By: Snapshot},
	{ID: "W2-1", Text: "publish the Merkle root on merge", By: Publishing},
	{ID: "W2-2", Text: "require covenant validation", By: CovenantRequired},
	{ID: "W2-3", Text: "run the smoke test on every change", By: SmokeRequired},
	{ID: "W2-4", Text: "sign release tags", By: Releases},
	{ID: "W2-5", Text: "install the hook that runs the smoke test", By: Hook},
	{ID: "W2-6", Text: "document the CI pipeline", By: CIGuide},
	{ID: "W3-1", Text: "run a second node", By: Sync},
	{ID: "W3-2", Text: "sync the two", By: Sync},
	{ID: "W3-3", Text: "verify that merging is deterministic", By: Deterministic},
	{ID: "W3-4", Text: "sign the merge with both keys", By: Signatures},
	{ID: "W3-5", Text: "document the federation protocol", By: FederationGuide},
	{ID: "W3-6", Text: "cover federation in the smoke test", By: SmokeCovers},
}

// weeks are the criteria that count tasks, by the beginning of the tasks' names.
var weeks = map[ID]string{Week1: "W1-", Week2: "W2-", Week3: "W3-"}

// State is what became of evidence. Its zero value earns nothing.
type State int

// The states.
const (
	Absent   State = iota // nothing is there to verify, or nobody could be asked
	Proven                // verified
	Partly                // some of what is counted was verified
	Wanting               // looked at, and not what it should be
	Unjudged              // it could not be looked at, or not to the end
)

func (s State) String() string {
	return [...]string{"absent", "proven", "partly", "wanting", "unjudged"}[s]
}

// MarshalText writes the state as String does.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Evidence is what became of the evidence of one criterion. The zero value is of
// none.
type Evidence struct {
	State State
	// Have of Of things are proven, where the mission counts; Of is 0 elsewhere.
	Have, Of int
	Detail   string // what was verified, or what is wrong
	Next     string // what to type, or to do, where something is lacking
	// What it rests on: files of the commit, a folder with a slash at its end;
	// receipts of the ledger; answers that are not in the commit.
	Files, Receipts, Answers []string
	At                       time.Time // of what is dated; else zero
	// Development names the keys and authorities that are for development.
	Development []string
}

// Missing is evidence that is not there.
func Missing(next, format string, args ...any) Evidence {
	return Evidence{Detail: fmt.Sprintf(format, args...), Next: next}
}

// Wrong is evidence that was looked at and shows the contrary.
func Wrong(next, format string, args ...any) Evidence {
	return Evidence{State: Wanting, Detail: fmt.Sprintf(format, args...), Next: next}
}

// Unknown is evidence that could not be looked at.
func Unknown(next string, err error) Evidence {
	return Evidence{State: Unjudged, Detail: err.Error(), Next: next}
}

// Counted is have of at least want things that are proven; of is how many there are.
func Counted(have, of, want int, format string, args ...any) Evidence {
	e := Evidence{State: Partly, Have: have, Of: max(of, want), Detail: fmt.Sprintf(format, args...)}
	switch {
	case have >= e.Of:
		e.State = Proven
	case have <= 0:
		e.State = Wanting
	}
	return e
}

// Checked is what checks together say: proven when all of them pass. Of nothing that
// is claimed there is no evidence. next is for where they give no fix of their own.
func Checked(next string, checks ...judge.Check) Evidence {
	e := Evidence{State: Proven}
	if len(checks) == 0 {
		return Unknown(next, errors.New("nothing was judged"))
	}
	var passed []string
	lacking := func(s State, c judge.Check, detail, fix string) {
		if order := []State{Proven, Absent, Unjudged, Wanting}; slices.Index(order, s) <= slices.Index(order, e.State) {
			return
		}
		if fix == "" {
			fix = next
		}
		e.State, e.Detail, e.Next = s, c.ID+": "+detail, fix
	}
	for _, c := range checks {
		switch c.Status {
		case judge.Pass:
			passed = append(passed, c.ID)
		case judge.Unclaimed:
			lacking(Absent, c, c.Detail, "")
		case judge.Fail:
			f := judge.Finding{Message: c.Detail}
			if at := slices.IndexFunc(c.Findings, func(f judge.Finding) bool { return !f.Warning }); at >= 0 {
				f = c.Findings[at]
			}
			if p := f.Place(); p != "" {
				f.Message = p + ": " + f.Message
			}
			lacking(Wanting, c, f.Message, f.Fix)
		default:
			lacking(Unjudged, c, c.Detail, "")
		}
	}
	if e.State == Proven {
		e.Detail = "checked: " + strings.Join(passed, ", ")
	}
	return e
}

// Points are hundredths of a point: 990 is 9.90.
type Points int

var pointsGrammar = regexp.MustCompile(`^(\d|10)(?:\.(\d{1,2}))?$`)

// ParsePoints reads a number from 0 to 10 with at most two decimals.
func ParsePoints(s string) (Points, error) {
	m := pointsGrammar.FindStringSubmatch(s)
	n := 0
	if m != nil {
		n, _ = strconv.Atoi(m[1] + (m[2] + "00")[:2])
	}
	if m == nil || n > 1000 {
		return 0, fmt.Errorf("%.20q is no score: want a number from 0 to 10 with at most two decimals, such as 9.9", s)
	}
	return Points(n), nil
}

// String returns the points with two decimals.
func (p Points) String() string { return fmt.Sprintf("%d.%02d", p/100, p%100) }

// MarshalJSON writes a number.
func (p Points) MarshalJSON() ([]byte, error) { return []byte(p.String()), nil }

// Card is what a repository has proven. Only Score makes one.
type Card struct {
	V          int         `json:"v"`
	Repository string      `json:"repository"`
	Commit     string      `json:"commit"`
	JudgedAt   time.Time   `json:"judged_at"`
	Score      Points      `json:"score"`
	Dimensions []Dimension `json:"dimensions"`
	Tasks      []Task      `json:"tasks"`

	most Points // what it would be with all that could not be judged
}

// Dimension is a quarter of the card.
type Dimension struct {
	Name     string `json:"name"`
	Title    string `json:"title"`
	Weight   int    `json:"weight"`
	Score    Points `json:"score"`
	Criteria []Line `json:"criteria"`
}

// Line is one criterion of a card.
type Line struct {
	ID          ID         `json:"id"`
	Claim       string     `json:"claim"`
	Weight      int        `json:"weight"`
	Score       Points     `json:"score"`
	State       State      `json:"state"`
	Have        int        `json:"have,omitempty"`
	Of          int        `json:"of,omitempty"`
	Detail      string     `json:"detail"`
	Next        string     `json:"next,omitempty"`
	Files       []string   `json:"files,omitempty"`
	Receipts    []string   `json:"receipts,omitempty"`
	Answers     []string   `json:"answers,omitempty"`
	At          *time.Time `json:"at,omitempty"`
	Age         int64      `json:"age_seconds,omitempty"`
	Limit       int64      `json:"limit_seconds,omitempty"`
	Stale       bool       `json:"stale,omitempty"`
	Development []string   `json:"development,omitempty"`

	earned int // of 10,000
	name   string
}

// Subject is what a card is of.
type Subject struct {
	Repository string
	Commit     string
	Now        time.Time
	// Changed are the files that differ between the commit and the work tree.
	Changed []string
}

const (
	whole    = 10_000          // what a criterion can earn
	maxSkew  = 5 * time.Minute // how far in the future evidence may be: clocks differ
	tooOld   = 4               // limits, after which nothing is left
	maxTexts = 600             // letters of a detail, in the table
)

// Score makes the card. Criteria without evidence earn nothing; what counts tasks is
// computed here.
func Score(evidence map[ID]Evidence, of Subject) *Card {
	known := 0
	for _, d := range table {
		for _, c := range d.criteria {
			if _, ok := evidence[c.ID]; ok && weeks[c.ID] == "" {
				known++
			}
		}
	}
	if known != len(evidence) {
		panic("scorecard: evidence of a criterion that takes none")
	}
	card := &Card{V: 1, Repository: clean(of.Repository), Commit: of.Commit, JudgedAt: of.Now.UTC().Truncate(time.Second)}
	lines := map[ID]*Line{}
	for _, d := range table {
		out := Dimension{Name: d.name, Title: d.title, Weight: percentOfWhole, Criteria: make([]Line, len(d.criteria))}
		for i, c := range d.criteria {
			out.Criteria[i] = c.line(evidence[c.ID], of)
			lines[c.ID] = &out.Criteria[i]
		}
		card.Dimensions = append(card.Dimensions, out)
	}
	card.Tasks = slices.Clone(tasks)
	for i, t := range card.Tasks {
		card.Tasks[i].Done = lines[t.By].earned == whole
	}
	sum, most := 0, 0
	for i := range card.Dimensions {
		d := &card.Dimensions[i]
		reached := 0
		for j := range d.Criteria {
			l := &d.Criteria[j]
			best := bestOf(l)
			if prefix := weeks[l.ID]; prefix != "" {
				best = l.count(prefix, card.Tasks, lines)
			}
			reached += l.Weight * l.earned
			most += l.Weight * best
			l.Score = Points(l.Weight * l.earned / 1000)
		}
		d.Score = Points(reached / 1000)
		sum += reached
	}
	card.Score, card.most = Points(sum/4000), Points(most/4000)
	return card
}

func bestOf(l *Line) int {
	if l.State == Unjudged {
		return whole
	}
	return l.earned
}

// count makes the line of a week's tasks, and returns what it could be at best.
func (l *Line) count(prefix string, all []Task, lines map[ID]*Line) int {
	best, lack := 0, []string{}
	l.Have, l.Of, l.earned = 0, tasksPerWeek, 0
	for _, t := range all {
		if !strings.HasPrefix(t.ID, prefix) {
			continue
		}
		by := lines[t.By]
		l.earned += by.earned
		best += bestOf(by)
		if t.Done {
			l.Have++
			continue
		}
		lack = append(lack, t.ID+" "+t.Text)
	}
	l.earned, best = l.earned/tasksPerWeek, best/tasksPerWeek
	switch {
	case len(lack) == 0:
		l.State, l.Detail = Proven, "each by its evidence"
	case l.earned > 0:
		l.State, l.Detail = Partly, "not whole: "+strings.Join(lack, "; ")
	default:
		l.State, l.Detail = Absent, "not whole: "+strings.Join(lack, "; ")
	}
	return best
}

// line judges one piece of evidence by its age, its keys and its files.
func (c Criterion) line(e Evidence, of Subject) Line {
	l := Line{
		ID: c.ID, Claim: c.Claim, Weight: c.Weight, State: e.State, Have: e.Have, Of: e.Of, Detail: clean(e.Detail), Next: clean(e.Next),
		Files: cleaned(e.Files), Receipts: cleaned(e.Receipts), Answers: cleaned(e.Answers), Limit: int64(c.Limit / time.Second), name: c.Name(),
	}
	if l.State == Absent && l.Detail == "" {
		l.Detail = "no evidence"
	}
	for _, changed := range of.Changed {
		if slices.ContainsFunc(e.Files, func(f string) bool {
			return f == changed || strings.HasSuffix(f, "/") && strings.HasPrefix(changed, f) || strings.HasSuffix(changed, "/") && strings.HasPrefix(f, changed)
		}) {
			l.State, l.Detail, l.Next = Wanting, clean(changed)+" is not in the work tree what it is in the commit", "commit it, or git checkout -- "+clean(changed)
			return l
		}
	}
	switch {
	case e.State == Proven:
		l.earned = whole
	case e.State == Partly && e.Of > 0:
		l.earned = whole * min(max(e.Have, 0), e.Of) / e.Of
	}
	if !e.At.IsZero() {
		at := e.At.UTC().Truncate(time.Second)
		age := of.Now.Sub(at)
		l.At, l.Age = &at, int64(max(age, 0)/time.Second)
		switch {
		case l.earned == 0:
		case age < -maxSkew:
			l.earned, l.State, l.Detail, l.Next = 0, Wanting, "it is dated later than now: "+at.Format(time.RFC3339), "look at the clocks"
		case c.Limit > 0 && age > c.Limit:
			l.Stale = true
			l.earned /= 2
			if age > tooOld*c.Limit {
				l.earned = 0
			}
			if l.Next == "" {
				l.Next = "make it anew: evidence of this may be " + ageText(c.Limit) + " old"
			}
		}
	}
	if c.Signed && len(e.Development) > 0 && l.earned > 0 {
		l.Development = cleaned(e.Development)
		l.earned /= 2
	}
	return l
}

// clean makes text from elsewhere one line that steers no terminal.
func clean(s string) string {
	return strings.Join(strings.FieldsFunc(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s), func(r rune) bool { return r == ' ' }), " ")
}

func cleaned(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, clean(s))
	}
	return out
}

// Reaches says whether the card has at least this score. It is fail when even what
// could not be judged would not be enough, else error while there is such, and pass
// only when everything was judged.
func (c *Card) Reaches(least Points) judge.Status {
	switch {
	case c.most < least:
		return judge.Fail
	case len(c.Unjudged()) > 0:
		return judge.Error
	case c.Score < least:
		return judge.Fail
	}
	return judge.Pass
}

// Unjudged are the criteria that could not be judged.
func (c *Card) Unjudged() (ids []ID) {
	for _, d := range c.Dimensions {
		for _, l := range d.Criteria {
			if l.State == Unjudged {
				ids = append(ids, l.ID)
			}
		}
	}
	return ids
}
