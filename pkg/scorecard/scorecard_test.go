package scorecard_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/scorecard"
)

var now = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

// ids are the criteria that take evidence.
var ids = []scorecard.ID{
	scorecard.Report, scorecard.Objectives, scorecard.Window, scorecard.Picture, scorecard.Snapshot,
	scorecard.SmokeRequired, scorecard.CovenantRequired, scorecard.Enforcement, scorecard.Publishing, scorecard.Root, scorecard.Smoke, scorecard.Releases, scorecard.Hook,
	scorecard.CIGuide, scorecard.FederationGuide, scorecard.Pristine, scorecard.Untracked, scorecard.Genesis,
	scorecard.Sync, scorecard.Signatures, scorecard.Deterministic, scorecard.SmokeCovers,
}

func whole() map[scorecard.ID]scorecard.Evidence {
	all := map[scorecard.ID]scorecard.Evidence{}
	for _, id := range ids {
		all[id] = scorecard.Evidence{State: scorecard.Proven, Detail: "verified", Files: []string{"file/" + string(id)}, At: now.Add(-time.Hour)}
	}
	return all
}

func subject(changed ...string) scorecard.Subject {
	return scorecard.Subject{Repository: "example.org/r", Commit: strings.Repeat("ab", 20), Now: now, Changed: changed}
}

func line(t *testing.T, c *scorecard.Card, id scorecard.ID) scorecard.Line {
	t.Helper()
	for _, d := range c.Dimensions {
		for _, l := range d.Criteria {
			if l.ID == id {
				return l
			}
		}
	}
	t.Fatalf("no line %s", id)
	return scorecard.Line{}
}

func TestAllThatIsProvenIsTenAndNothingIsZero(t *testing.T) {
	full := scorecard.Score(whole(), subject())
	assert.Equal(t, full.Score.String(), "10.00")
	assert.Equal(t, full.Reaches(1000), judge.Pass)
	assert.Equal(t, len(full.Tasks), 18)
	for _, task := range full.Tasks {
		assert.Assert(t, task.Done, task.ID)
	}
	none := scorecard.Score(nil, subject())
	assert.Equal(t, none.Score.String(), "0.00")
	assert.Equal(t, none.Reaches(0), judge.Pass)
	assert.Equal(t, none.Reaches(1), judge.Fail)
	for _, task := range none.Tasks {
		assert.Assert(t, !task.Done, task.ID)
	}
}

// What every criterion has in common: less evidence is never more.
func TestEachCriterionLosesWhenItsEvidenceDoes(t *testing.T) {
	full := scorecard.Score(whole(), subject())
	for _, id := range ids {
		for name, change := range map[string]func(*scorecard.Evidence){
			"absent":   func(e *scorecard.Evidence) { *e = scorecard.Evidence{} },
			"wanting":  func(e *scorecard.Evidence) { e.State = scorecard.Wanting },
			"unjudged": func(e *scorecard.Evidence) { e.State = scorecard.Unjudged },
			"partly":   func(e *scorecard.Evidence) { e.State, e.Have, e.Of = scorecard.Partly, 3, 4 },
			"nothing":  func(e *scorecard.Evidence) { e.State = scorecard.Partly }, // of nothing that is counted
			"future":   func(e *scorecard.Evidence) { e.At = now.Add(time.Hour) },
		} {
			all := whole()
			e := all[id]
			change(&e)
			all[id] = e
			card := scorecard.Score(all, subject())
			was, is := line(t, full, id), line(t, card, id)
			if was.Weight == 0 {
				was, is = line(t, full, scorecard.Week2), line(t, card, scorecard.Week2)
			}
			assert.Assert(t, is.Score < was.Score, "%s is %s, and still worth %s of %s", id, name, is.Score, was.Score)
			assert.Assert(t, card.Score < full.Score, "%s is %s", id, name)
		}
		changed := scorecard.Score(whole(), subject("file/"+string(id)))
		assert.Equal(t, line(t, changed, id).Score, scorecard.Points(0), "%s", id)
		assert.Equal(t, line(t, changed, id).State, scorecard.Wanting)
	}
}

func TestOldEvidenceEarnsHalfAndThenNothing(t *testing.T) {
	for _, c := range []struct {
		age   time.Duration
		want  scorecard.Points
		stale bool
	}{
		{7 * 24 * time.Hour, 200, false},
		{7*24*time.Hour + time.Second, 100, true},
		{28 * 24 * time.Hour, 100, true},
		{28*24*time.Hour + time.Second, 0, true},
		{-5 * time.Minute, 200, false},
		{-5*time.Minute - time.Second, 0, false},
	} {
		all := whole()
		e := all[scorecard.Report]
		e.At = now.Add(-c.age)
		all[scorecard.Report] = e
		got := line(t, scorecard.Score(all, subject()), scorecard.Report)
		assert.Equal(t, got.Score, c.want, "%s", c.age)
		assert.Equal(t, got.Stale, c.stale, "%s", c.age)
	}
}

func TestKeysForDevelopmentEarnHalfOfWhatRestsOnASignature(t *testing.T) {
	signed := 0
	for _, id := range ids {
		all := whole()
		e := all[id]
		e.Development = []string{"key ABC"}
		all[id] = e
		got := line(t, scorecard.Score(all, subject()), id)
		full := line(t, scorecard.Score(whole(), subject()), id)
		if len(got.Development) == 0 {
			assert.Equal(t, got.Score, full.Score)
			continue
		}
		signed++
		assert.Equal(t, got.Score, full.Score/2, "%s", id)
	}
	assert.Equal(t, signed, 14)
}

func TestATaskIsWorthWhatItsEvidenceIs(t *testing.T) {
	all := whole()
	delete(all, scorecard.Hook)
	e := all[scorecard.Releases]
	e.Development = []string{"key ABC"}
	all[scorecard.Releases] = e
	got := line(t, scorecard.Score(all, subject()), scorecard.Week2)
	assert.Equal(t, got.Score.String(), "0.75") // 4½ of 6, of one point
	assert.Equal(t, got.Have, 4)
	assert.Equal(t, got.State, scorecard.Partly)
	assert.Equal(t, got.Detail, "not whole: W2-4 sign release tags; W2-5 install the hook that runs the smoke test")
}

func TestWhatTheMissionCountsIsEarnedInParts(t *testing.T) {
	for _, c := range []struct {
		have, of, want int
		state          scorecard.State
		points         scorecard.Points
	}{
		{27, 27, 27, scorecard.Proven, 150},
		{40, 40, 27, scorecard.Proven, 150},
		{26, 27, 27, scorecard.Partly, 144},
		{12, 12, 27, scorecard.Partly, 66}, // a suite that was made shorter is worth less
		{0, 27, 27, scorecard.Wanting, 0},
	} {
		all := whole()
		all[scorecard.Smoke] = scorecard.Counted(c.have, c.of, c.want, "counted")
		assert.Equal(t, all[scorecard.Smoke].State, c.state)
		assert.Equal(t, line(t, scorecard.Score(all, subject()), scorecard.Smoke).Score, c.points, "%d of %d", c.have, c.of)
	}
}

func TestTheMissionsTargetsAreTheMissions(t *testing.T) {
	for _, c := range []struct {
		name  string
		value float64
		want  bool
	}{
		{"fill_rate_p95", 0.80, true},
		{"fill_rate_p95", 0.79, false},
		{"rtt_p95_ms", 350, true},
		{"rtt_p95_ms", 350.1, false},
		{"provenance_coverage", 0.949, false},
		{"policy_latency_p99_ms", 25.5, false},
		{"another", 1e9, true},
	} {
		assert.Equal(t, scorecard.MeetsTarget(c.name, c.value), c.want, "%s %g", c.name, c.value)
	}
}

func TestWhatCouldNotBeJudgedIsNoPassAndNoFailUnlessItDoesNotMatter(t *testing.T) {
	all := whole()
	all[scorecard.Enforcement] = scorecard.Unknown("enforce plan", errors.New("no answer"))
	card := scorecard.Score(all, subject())
	assert.Equal(t, card.Score.String(), "9.62")
	assert.Equal(t, card.Reaches(900), judge.Error)
	assert.Equal(t, card.Reaches(990), judge.Error)
	delete(all, scorecard.Genesis)
	card = scorecard.Score(all, subject())
	assert.Equal(t, card.Reaches(990), judge.Fail)
	assert.DeepEqual(t, card.Unjudged(), []scorecard.ID{scorecard.Enforcement})
}

func TestScoresAreCutAndNeverRounded(t *testing.T) {
	all := whole()
	delete(all, scorecard.Hook) // 10 − 10 × 10 % ÷ 6 ÷ 4 = 9.958…
	assert.Equal(t, scorecard.Score(all, subject()).Score.String(), "9.95")
}

func TestAScoreIsParsedStrictly(t *testing.T) {
	for text, want := range map[string]scorecard.Points{"0": 0, "9.9": 990, "9.95": 995, "10": 1000, "10.0": 1000, "10.00": 1000, "0.05": 5} {
		got, err := scorecard.ParsePoints(text)
		assert.NilError(t, err)
		assert.Equal(t, got, want)
	}
	for _, text := range []string{"", "10.01", "11", "-1", "9.", ".9", "9.999", "nine", "9,9", "+9", "9.+1", " 9", "09"} {
		_, err := scorecard.ParsePoints(text)
		assert.ErrorContains(t, err, "want a number from 0 to 10", text)
	}
}

func TestChecksTogetherAreAsBadAsTheWorst(t *testing.T) {
	pass := judge.Judged("a/pass", "passes", "")
	fail := judge.Judged("a/fail", "fails", "", judge.Finding{Message: "odd", Warning: true}, judge.Finding{Path: "f", Line: 3, Message: "it is red", Fix: "paint it"})
	unjudged := judge.Unjudged("a/error", "errs", errors.New("not there"))
	unclaimed := judge.NotClaimed("a/none", "claims nothing", "nobody claims it")
	for _, c := range []struct {
		checks []judge.Check
		want   scorecard.Evidence
	}{
		{[]judge.Check{pass}, scorecard.Evidence{State: scorecard.Proven, Detail: "checked: a/pass"}},
		{[]judge.Check{pass, unclaimed}, scorecard.Evidence{State: scorecard.Absent, Detail: "a/none: nobody claims it", Next: "next"}},
		{[]judge.Check{unclaimed, unjudged, pass}, scorecard.Evidence{State: scorecard.Unjudged, Detail: "a/error: not there", Next: "next"}},
		{[]judge.Check{fail, unjudged}, scorecard.Evidence{State: scorecard.Wanting, Detail: "a/fail: f:3: it is red", Next: "paint it"}},
		{[]judge.Check{{ID: "a/zero"}}, scorecard.Evidence{State: scorecard.Unjudged, Detail: "a/zero: ", Next: "next"}},
		{nil, scorecard.Evidence{State: scorecard.Unjudged, Detail: "nothing was judged", Next: "next"}},
	} {
		assert.DeepEqual(t, scorecard.Checked("next", c.checks...), c.want)
	}
}

// card is one of every state.
func card() *scorecard.Card {
	all := whole()
	e := all[scorecard.Report]
	e.Receipts, e.Development = []string{"#4 " + strings.Repeat("cd", 32)}, []string{"key 96FFED3E5DCBB054D6805543D0758B435D6E2727"}
	all[scorecard.Report] = e
	all[scorecard.Objectives] = scorecard.Counted(3, 4, scorecard.KPIs, "verdict FAIL")
	all[scorecard.Window] = scorecard.Wrong("let it run", "2h: it is a shorter window than 72h")
	all[scorecard.Smoke] = scorecard.Counted(26, 27, scorecard.Tests, "reported in #1\n::error::\x1b[31m|`x`")
	all[scorecard.Enforcement] = scorecard.Unknown("remembrancer enforce plan", errors.New("the forge: 502"))
	e = all[scorecard.Snapshot]
	e.At = now.Add(-200 * time.Hour)
	all[scorecard.Snapshot] = e
	for _, id := range []scorecard.ID{scorecard.Sync, scorecard.Signatures, scorecard.Deterministic} {
		all[id] = scorecard.Missing("remembrancer federation sync", "no merge is there")
	}
	return scorecard.Score(all, subject())
}

func TestTheCardsFormsAreGolden(t *testing.T) {
	c := card()
	data, err := c.JSON()
	assert.NilError(t, err)
	assert.Assert(t, json.Valid(data))
	golden.Assert(t, string(data), "card.json")
	golden.Assert(t, c.Text(), "card.txt")
	golden.Assert(t, c.Markdown(func(s string) string {
		return strings.NewReplacer("|", "&#124;", "`", "&#96;", ":", "&#58;").Replace(s)
	}), "card.md")
	golden.Assert(t, string(c.Badge()), "badge.json")
	again, err := card().JSON()
	assert.NilError(t, err)
	assert.Equal(t, string(again), string(data))
}

func TestTheBadgeHasAColourForEachRange(t *testing.T) {
	for _, c := range []struct {
		without []scorecard.ID
		want    string
	}{
		{nil, "brightgreen"},
		{[]scorecard.ID{scorecard.Genesis}, "green"},
		{[]scorecard.ID{scorecard.Genesis, scorecard.Sync, scorecard.Window}, "yellow"},
		{ids[:14], "orange"},
		{ids, "red"},
	} {
		all := whole()
		for _, id := range c.without {
			delete(all, id)
		}
		got := scorecard.Score(all, subject())
		assert.Equal(t, string(got.Badge()), fmt.Sprintf("{\"schemaVersion\":1,\"label\":\"scorecard\",\"message\":\"%s / 10\",\"color\":%q}\n", got.Score, c.want))
	}
}

func TestEvidenceOfNoCriterionPanics(t *testing.T) {
	for _, id := range []scorecard.ID{"operational/charm", scorecard.Week1} {
		func() {
			defer func() { assert.Assert(t, recover() != nil, "%s", id) }()
			scorecard.Score(map[scorecard.ID]scorecard.Evidence{id: {State: scorecard.Proven}}, subject())
		}()
	}
}

func TestWeightsOfADimensionAddUpToAHundred(t *testing.T) {
	for _, d := range scorecard.Score(nil, subject()).Dimensions {
		sum := 0
		for _, l := range d.Criteria {
			sum += l.Weight
		}
		assert.Equal(t, sum, 100, d.Name)
		assert.Equal(t, d.Weight, 25)
	}
}
