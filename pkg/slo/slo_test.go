package slo_test

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/slo"
	"github.com/vaultmesh/remembrancer/pkg/slo/slotest"
)

const example = "../../examples/slo/aurora-akash-001.yaml"

var (
	noon     = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	revision = strings.Repeat("ab", 20)
)

func aurora(t testing.TB) *slo.Spec {
	t.Helper()
	data, err := os.ReadFile(example)
	assert.NilError(t, err)
	s, err := slo.ParseSpec("aurora.yaml", data)
	assert.NilError(t, err)
	return s
}

// collect asks a server in which something is wrong.
func collect(t testing.TB, s *slo.Spec, window time.Duration, wrong string) *slo.Archive {
	t.Helper()
	if window == 0 {
		window = s.Window()
	}
	server := &slotest.Server{Spec: s, Window: window, Revision: revision, Now: func() time.Time { return noon }}
	assert.Assert(t, server.Set(wrong), wrong)
	ask := slo.Ask{Window: window, Revision: revision, Generator: "remembrancer test"}
	assert.NilError(t, s.CheckAsk(ask))
	a, err := slo.Collect(context.Background(), s, ask, func() time.Time { return noon }, func(_ context.Context, q slo.Query) slo.Response {
		got := server.Ask(q.Path, q.Form)
		return slo.Response{Status: got.Status, ContentType: got.ContentType, Body: []byte(got.Body)}
	})
	assert.NilError(t, err)
	return a
}

func judge(t testing.TB, s *slo.Spec, a *slo.Archive) (*slo.Report, *slo.Refusal) {
	t.Helper()
	report, refusal, err := slo.Judge(s, a, "canary_slo_report.evidence.tar")
	assert.NilError(t, err)
	assert.Assert(t, (report == nil) != (refusal == nil))
	return report, refusal
}

func TestAServiceThatIsWellPasses(t *testing.T) {
	s := aurora(t)
	report, refusal := judge(t, s, collect(t, s, 0, ""))
	assert.Assert(t, refusal == nil, "%+v", refusal)
	data, err := report.Marshal()
	assert.NilError(t, err)
	golden.Assert(t, string(data), "report.golden")
	read, err := slo.Parse(data)
	assert.NilError(t, err)
	assert.DeepEqual(t, read, report)
}

// The ancestor's reporter called a total outage, infinities and missing series
// compliant. Each of these is refused for its own reason, or judged and failed.
func TestEachCaseHasItsVerdict(t *testing.T) {
	s := aurora(t)
	for _, name := range slices.Sorted(maps.Keys(slotest.Cases)) {
		t.Run(name, func(t *testing.T) {
			c := slotest.Cases[name]
			report, refusal := judge(t, s, collect(t, s, 6*time.Hour, name))
			if c.Code == "" {
				assert.Assert(t, report != nil, "%+v", refusal)
				assert.Equal(t, report.Verdict, slo.Fail)
				assert.Equal(t, report.Overall, false)
				assert.Equal(t, report.Promotable, false)
				return
			}
			assert.Assert(t, refusal != nil, "%+v", report)
			var codes []slo.Code
			for _, r := range refusal.Reasons {
				codes = append(codes, r.Code)
			}
			assert.Assert(t, slices.Contains(codes, c.Code), "%v", refusal.Reasons)
			data, err := refusal.Marshal()
			assert.NilError(t, err)
			assert.Assert(t, !strings.Contains(string(data), ": null"), string(data))
		})
	}
}

func TestARefusalIsGolden(t *testing.T) {
	s := aurora(t)
	_, refusal := judge(t, s, collect(t, s, 0, "gap"))
	data, err := refusal.Marshal()
	assert.NilError(t, err)
	golden.Assert(t, string(data), "refused.golden")
}

func TestAnOutageIsZeroAndNotNull(t *testing.T) {
	s := aurora(t)
	report, _ := judge(t, s, collect(t, s, 0, "outage"))
	assert.Equal(t, report.Metrics.Values["fill_rate_p95"], slo.Number(0))
	assert.Equal(t, report.Compliance.Values["fill_rate"], false)
	assert.Equal(t, report.ComplianceRate, slo.Number(0.75))
}

func TestABadLastHourIsNotAveragedAway(t *testing.T) {
	s := aurora(t)
	report, _ := judge(t, s, collect(t, s, 0, "last-hours"))
	k := report.KPIs[0]
	assert.Assert(t, k.Value > k.Threshold)
	assert.Equal(t, k.Compliant, false)
	assert.Equal(t, k.Burning, "over the last 1h0m0s the error budget burns 20.0 times as fast as it may, at most 7.2 is allowed")
}

func TestASlowServiceFailsByItsCounts(t *testing.T) {
	s := aurora(t)
	report, _ := judge(t, s, collect(t, s, 0, "slow"))
	k := report.KPIs[1]
	assert.Equal(t, k.Key, "rtt_p95_ms")
	assert.Equal(t, k.Ratio, 0.9)
	assert.Assert(t, k.Value > 350)
	assert.Equal(t, k.Compliant, false)
}

func TestAShorterWindowIsNotPromotable(t *testing.T) {
	s := aurora(t)
	report, refusal := judge(t, s, collect(t, s, 24*time.Hour, ""))
	assert.Assert(t, refusal == nil, "%+v", refusal)
	assert.Equal(t, report.Verdict, slo.Pass)
	assert.Equal(t, report.Window, "24h")
	assert.Equal(t, report.Promotable, false)
	assert.DeepEqual(t, report.Why, []string{"the window is 24h, the spec promises 72h"})
}

func TestVerifyMakesTheReportAnew(t *testing.T) {
	s := aurora(t)
	a := collect(t, s, 2*time.Hour, "")
	tarball, err := a.Marshal()
	assert.NilError(t, err)
	report, _ := judge(t, s, a)
	data, err := report.Marshal()
	assert.NilError(t, err)
	got, err := slo.Verify(data, s, tarball)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, report)

	// No line of it can be another one.
	lines := strings.Split(string(data), "\n")
	for i, line := range lines {
		for _, change := range [][2]string{{"true", "false"}, {"PASS", "FAIL"}, {"0", "1"}, {"9", "8"}, {"7", "6"}} {
			edited := strings.Replace(line, change[0], change[1], 1)
			if edited == line {
				continue
			}
			text := strings.Join(append(append(slices.Clone(lines[:i]), edited), lines[i+1:]...), "\n")
			_, err := slo.Verify([]byte(text), s, tarball)
			assert.Assert(t, err != nil, "%s in place of %s is believed", edited, line)
			break
		}
	}
}

func TestVerifyRefusesOtherEvidence(t *testing.T) {
	s := aurora(t)
	a := collect(t, s, 0, "")
	tarball, err := a.Marshal()
	assert.NilError(t, err)
	report, _ := judge(t, s, a)
	data, err := report.Marshal()
	assert.NilError(t, err)
	other := slices.Clone(tarball)
	other[len(other)/2] ^= 1
	_, err = slo.Verify(data, s, other)
	assert.ErrorContains(t, err, "the report says")

	text, err := os.ReadFile(example)
	assert.NilError(t, err)
	looser, err := slo.ParseSpec("aurora.yaml", []byte(strings.Replace(string(text), "timeSliceTarget: 0.80", "timeSliceTarget: 0.10", 1)))
	assert.NilError(t, err)
	_, err = slo.Verify(data, looser, tarball)
	assert.ErrorContains(t, err, "made of a spec with SHA-256")

	// A pass that was made of evidence that does not bear it out.
	broken := collect(t, s, 0, "gap")
	tarball, err = broken.Marshal()
	assert.NilError(t, err)
	_, refusal := judge(t, s, broken)
	forged := *report
	forged.Evidence = refusal.Evidence
	data, err = forged.Marshal()
	assert.NilError(t, err)
	_, err = slo.Verify(data, s, tarball)
	assert.ErrorContains(t, err, "the evidence is refused (gap, coverage), the report says PASS")
}

func TestTheAncestorsNullReportIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"report_type":"canary_slo","metrics":{"fill_rate_p95":null}}`:                                      "null",
		`{"report_type":"canary_slo","slo_compliance":{"fill_rate":null}}`:                                   "null",
		`{"report_type":"canary_slo","metrics":{"a":1,"a":2}}`:                                               "twice",
		`{"report_type":"canary_slo","verdict":"REFUSED"}`:                                                   "want PASS or FAIL",
		`{"report_type":"canary_slo","verdict":"PASS","evidence":{"file":"../x"},"data_source":"simulator"}`: "in the report's folder",
		`{"report_type":"canary_slo","verdict":"PASS","evidence":{"file":"x"},"data_source":"me"}`:           "data_source",
		`{"report_type":"canary_slo","verdict":"PASS"}`:                                                      "names no evidence",
		`{"report_type":"canary_slo","verdict":"PASS","pass":true}`:                                          "unknown field",
	} {
		_, err := slo.Parse([]byte(text))
		assert.ErrorContains(t, err, want, text)
	}
}

func TestASimulationIsNeverPromotable(t *testing.T) {
	s := aurora(t)
	good := `{"metrics":{"fill_rate_p95":0.87,"rtt_p95_ms":312,"provenance_coverage":0.96,"policy_latency_p99_ms":18}}`
	r, err := slo.Simulate(s, []byte(good), "sim.json", noon, "remembrancer test")
	assert.NilError(t, err)
	assert.Equal(t, r.Verdict, slo.Pass)
	assert.Equal(t, r.DataSource, slo.FromSimulator)
	assert.Equal(t, r.Window, "simulated")
	assert.Equal(t, r.Promotable, false)
	data, err := r.Marshal()
	assert.NilError(t, err)
	golden.Assert(t, string(data), "simulated.golden")
	_, err = slo.Verify(data, s, []byte(good))
	assert.ErrorIs(t, err, slo.ErrNotMeasured)

	r, err = slo.Simulate(s, []byte(strings.Replace(good, "312", "350.5", 1)), "sim.json", noon, "")
	assert.NilError(t, err)
	assert.Equal(t, r.Verdict, slo.Fail)
	for was, now := range map[string]string{
		"0.87": "null", "312": `"312"`, `"rtt_p95_ms":312,`: "", "0.96": "1.5", "18": "-1", `{"metrics"`: `{"x":1,"metrics"`, "18}": `18,"more":1}`, "}}": "}}{}",
	} {
		_, err := slo.Simulate(s, []byte(strings.Replace(good, was, now, 1)), "sim.json", noon, "")
		assert.ErrorContains(t, err, "sim.json", now)
	}
}

func TestWhatIsAskedIsGolden(t *testing.T) {
	s := aurora(t)
	var b strings.Builder
	for _, q := range append(s.First(), s.Queries(72*time.Hour, noon)...) {
		out, err := json.Marshal(q)
		assert.NilError(t, err)
		b.Write(append(out, '\n'))
	}
	golden.Assert(t, b.String(), "queries.golden")
}

func TestAskRefusesWhatCannotBeJudged(t *testing.T) {
	s := aurora(t)
	for _, c := range []struct {
		ask  slo.Ask
		want string
	}{
		{slo.Ask{Window: time.Minute, Revision: revision}, "at least 20 scrape intervals"},
		{slo.Ask{Window: time.Hour, Revision: revision}, "has 12 slices of 5m, want at least 20"},
		{slo.Ask{Window: 72*time.Hour + 1, Revision: revision}, "whole seconds"},
		{slo.Ask{Revision: "main"}, "a whole git commit id"},
		{slo.Ask{Window: 300 * 24 * time.Hour, Revision: revision}, "at most 10000"},
	} {
		assert.ErrorContains(t, s.CheckAsk(c.ask), c.want)
	}
}

func TestSpecsThatAreWrongSayWhatIsWanted(t *testing.T) {
	data, err := os.ReadFile(example)
	assert.NilError(t, err)
	for _, c := range []struct{ was, now, want string }{
		{"apiVersion: openslo/v1\nkind: Service", "apiVersion: openslo/v2\nkind: Service", `apiVersion "openslo/v2", want openslo/v1`},
		{"kind: Service", "kind: DataSource", `kind "DataSource", want Service or SLO`},
		{"budgetingMethod: Timeslices", "budgetingMetod: Timeslices", `unknown key "budgetingMetod"; did you mean "budgetingMethod"?`},
		{"budgetingMethod: Timeslices", "budgetingMethod: RatioTimeslices", "want Occurrences or Timeslices"},
		{"remembrancer.dev/max-gap: 5m", "remembrancer.dev/maxgap: 5m", `unknown annotation "maxgap"; did you mean "max-gap"?`},
		{"remembrancer.dev/max-gap: 5m", "remembrancer.dev/max-gap: 20s", "at least two scrape intervals"},
		{"remembrancer.dev/max-gap: 5m", "remembrancer.dev/max-gap: 5 minutes", "want a duration"},
		{`min-coverage: "0.99"`, `min-coverage: "NaN"`, "want a number from 0.5 to 1"},
		{"server: prometheus", "server: thanos", "want prometheus or any"},
		{`up{job="remembrancer-node"}`, `sum(up)`, "want a selector such as up"},
		{"target: 0.99\n", "target: 1\n", "less than 1"},
		{"target: 0.99\n", "target: .nan\n", "less than 1"},
		{"counter: true", "counter: false", "want counter: true"},
		{"type: Prometheus", "type: Datadog", "want type: Prometheus"},
		{"query: remembrancer_audit_entries_total{result=\"verified\"}", "query: rate(remembrancer_audit_entries_total[5m])", "want a selector and nothing around it"},
		{"query: remembrancer_audit_entries_total{result=\"verified\"}", "query: remembrancer_audit_entries_total", "their ratio is always 1"},
		{`le="0.025"`, `le="+Inf"`, "want the edge of a bucket"},
		{"unit: ms", "unit: minutes", "want ms or s"},
		{"report-key: provenance_coverage", "report-key: rtt_p95_ms", "it has a name or key of rtt"},
		{"report-key: provenance_coverage", "report-key: Provenance", "want ^[a-z]"},
		{"duration: 72h", "duration: 71h", "want one window for all"},
		{"isRolling: true", "isRolling: false", "with isRolling: true"},
		{"timeSliceTarget: 0.80", "timeSliceTarget: 80", "timeSliceTarget: want"},
		{"timeSliceWindow: 5m", "timeSliceWindow: 0m", "timeSliceWindow: found"},
		{"service: aurora-akash-001\n", "service: another\n", `service "another"`},
		{"indicator:\n", "indicator: &x\n", "an alias or anchor"},
		{"kind: SLO", "kind: SLO\nkind: SLO", "already defined"},
	} {
		_, err := slo.ParseSpec("aurora.yaml", []byte(strings.Replace(string(data), c.was, c.now, 1)))
		assert.ErrorContains(t, err, c.want, c.now)
		assert.ErrorContains(t, err, "aurora.yaml: ")
	}
	_, err = slo.ParseSpec("empty.yaml", nil)
	assert.ErrorContains(t, err, "want one Service and at least one SLO")
}

func TestAnArchiveIsOneFileOfBytes(t *testing.T) {
	a := collect(t, aurora(t), 0, "")
	one, err := a.Marshal()
	assert.NilError(t, err)
	read, err := slo.ParseArchive(one)
	assert.NilError(t, err)
	two, err := read.Marshal()
	assert.NilError(t, err)
	assert.Equal(t, string(one), string(two))
	_, err = slo.ParseArchive(append(one, 0))
	assert.ErrorContains(t, err, "not written as an archive is")
	_, err = slo.ParseArchive(one[:len(one)/2])
	assert.ErrorContains(t, err, "archive: ")
}

func TestAnswersToOtherQuestionsAreRefused(t *testing.T) {
	s := aurora(t)
	for name, change := range map[string]func(a *slo.Archive){
		"fewer":        func(a *slo.Archive) { a.Responses = a.Responses[:5] },
		"more":         func(a *slo.Archive) { a.Responses = append(a.Responses, a.Responses[0]) },
		"another form": func(a *slo.Archive) { a.Responses[4].Form += "&x=1" },
		"window":       func(a *slo.Archive) { a.Window = "24h" },
		"no window":    func(a *slo.Archive) { a.Window = "" },
	} {
		a := collect(t, s, 0, "")
		change(a)
		_, refusal := judge(t, s, a)
		assert.Assert(t, refusal != nil, name)
		assert.Equal(t, refusal.Reasons[0].Code, slo.OtherQuestions, name)
	}
}

// What happens while nobody answers is an archive too.
func TestAServerThatIsNotThereIsRefused(t *testing.T) {
	s := aurora(t)
	a, err := slo.Collect(context.Background(), s, slo.Ask{Revision: revision}, func() time.Time { return noon }, func(context.Context, slo.Query) slo.Response {
		return slo.Response{Error: "connection refused"}
	})
	assert.NilError(t, err)
	_, refusal := judge(t, s, a)
	assert.DeepEqual(t, refusal.Reasons, []slo.Reason{{Code: slo.Unreachable, Query: "clock", Detail: "connection refused"}})

	ctx, stop := context.WithCancel(context.Background())
	stop()
	_, err = slo.Collect(ctx, s, slo.Ask{Revision: revision}, time.Now, func(context.Context, slo.Query) slo.Response { return slo.Response{} })
	assert.ErrorIs(t, err, context.Canceled)
}

func FuzzSpec(f *testing.F) {
	data, err := os.ReadFile(example)
	assert.NilError(f, err)
	f.Add(data)
	f.Add([]byte("apiVersion: openslo/v1\nkind: Service"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := slo.ParseSpec("f", data)
		if err != nil {
			assert.Assert(t, s == nil)
			return
		}
		for _, o := range s.Objectives() {
			assert.Assert(t, o.Kind >= slo.Ratio && o.Kind <= slo.Slices && o.Target > 0 && o.Target < 1 && o.MinSamples > 0)
		}
	})
}

func FuzzArchive(f *testing.F) {
	a := &slo.Archive{V: 1, At: noon, Window: "72h", Revision: revision, Responses: []slo.Response{{Query: slo.Query{Name: "clock"}, Status: 200, Body: []byte("{}")}}}
	a.Responses[0].SHA256 = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	data, err := a.Marshal()
	assert.NilError(f, err)
	f.Add(data)
	a.Panels, a.Environment, a.Source = a.Responses, "staging", slo.FromBackfill
	data, err = a.Marshal()
	assert.NilError(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := slo.ParseArchive(data)
		if err != nil {
			assert.Assert(t, a == nil)
			return
		}
		again, err := a.Marshal()
		assert.NilError(t, err)
		assert.Equal(t, string(again), string(data))
	})
}

// Whatever one answer is replaced by: it is never the reason for a pass of what
// did not pass with it.
func FuzzAnswers(f *testing.F) {
	s := aurora(f)
	good := collect(f, s, 2*time.Hour, "")
	for i := range good.Responses {
		if body := good.Responses[i].Body; len(body) < 10_000 {
			f.Add(i, string(body))
		}
	}
	f.Add(12, `{"status":"success","data":{"resultType":"vector","result":[{"value":[1,null]}]}}`)
	f.Fuzz(func(t *testing.T, i int, body string) {
		a := *good
		a.Responses = slices.Clone(good.Responses)
		at := max(0, min(len(a.Responses)-1, i))
		a.Responses[at].Body = []byte(body)
		report, refusal, err := slo.Judge(s, &a, "x.tar")
		assert.NilError(t, err)
		assert.Assert(t, (report == nil) != (refusal == nil))
		if report == nil {
			assert.Assert(t, len(refusal.Reasons) > 0)
			return
		}
		data, err := report.Marshal() // a number that is none would be an error
		assert.NilError(t, err)
		assert.Assert(t, !strings.Contains(string(data), "null"), body)
	})
}

func BenchmarkJudge(b *testing.B) {
	s := aurora(b)
	a := collect(b, s, 0, "")
	for b.Loop() {
		_, _, err := slo.Judge(s, a, "x.tar")
		assert.NilError(b, err)
	}
}
