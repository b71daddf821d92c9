package slo_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/chart"
	"github.com/vaultmesh/remembrancer/pkg/slo"
)

func marshalled(t testing.TB, a *slo.Archive) []byte {
	t.Helper()
	data, err := a.Marshal()
	assert.NilError(t, err)
	return data
}

// viewOf is the picture of an archive, offline.
func viewOf(t testing.TB, s *slo.Spec, a *slo.Archive) *chart.Board {
	t.Helper()
	report, refusal, err := slo.Judge(s, a, "evidence.tar")
	assert.NilError(t, err)
	window, err := slo.ParseDuration(a.Window)
	assert.NilError(t, err)
	return s.Board(slo.View{Window: window, End: s.End(a.At), Report: report, Refusal: refusal}, a.Panels)
}

func TestThePictureIsDrawnFromTheArchiveAlone(t *testing.T) {
	s := aurora(t)
	a, err := slo.ParseArchive(marshalled(t, collect(t, s, 6*time.Hour, "")))
	assert.NilError(t, err)
	b := viewOf(t, s, a)
	assert.Equal(t, len(b.Missing()), 0, "%v", b.Missing())
	assert.Equal(t, b.Badge.Text, "PASS · 4 of 4 met")
	assert.Equal(t, b.Banner, "")
	_, err = b.SVG(chart.Options{})
	assert.NilError(t, err)

	// What was asked of another window is no answer to this one.
	b = s.Board(slo.View{Window: 5 * time.Hour, End: s.End(a.At)}, a.Panels)
	assert.Equal(t, len(b.Missing()), len(b.Panels))
	assert.Equal(t, b.Missing()[0], "fill_rate_p95: panel/4/0 was not asked")
}

func TestPanelsAreBoundAndDecideNothing(t *testing.T) {
	s := aurora(t)
	a := collect(t, s, 6*time.Hour, "")
	with, _ := judge(t, s, a)

	// Archives from before there were panels stay what they were.
	old := *a
	old.Panels = nil
	data := marshalled(t, &old)
	assert.Assert(t, !strings.Contains(string(data[:64<<10]), `"panels"`))
	read, err := slo.ParseArchive(data)
	assert.NilError(t, err)
	without, _ := judge(t, s, read)
	assert.Assert(t, with.Evidence.SHA256 != without.Evidence.SHA256)
	without.Evidence = with.Evidence
	assert.DeepEqual(t, with, without)
	b := viewOf(t, s, read)
	assert.Equal(t, len(b.Missing()), len(b.Panels))
	assert.Equal(t, len(s.Courses(read, 60)), 0)

	// A byte of a panel is a byte of the evidence.
	data = marshalled(t, a)
	at := strings.LastIndex(string(data), `"matrix"`)
	data[at+1] ^= 1
	_, err = slo.ParseArchive(data)
	assert.ErrorContains(t, err, "archive: panels/")
	assert.ErrorContains(t, err, "manifest.json says")
}

func TestADeadServerIsNotAskedForEachPanel(t *testing.T) {
	s := aurora(t)
	good := collect(t, s, 6*time.Hour, "")
	asked := 0
	a, err := slo.Collect(context.Background(), s, slo.Ask{Window: 6 * time.Hour, Revision: revision, Generator: "remembrancer test"}, func() time.Time { return noon }, func(_ context.Context, q slo.Query) slo.Response {
		for _, r := range good.Responses {
			if r.Query == q {
				return r
			}
		}
		asked++
		return slo.Response{Error: "connection refused"}
	})
	assert.NilError(t, err)
	assert.Equal(t, asked, 1)
	report, _ := judge(t, s, a)
	assert.Equal(t, report.Verdict, slo.Pass) // the measuring was over
	assert.Equal(t, viewOf(t, s, a).Missing()[0], "fill_rate_p95: connection refused")
}

func TestSubjectIsWhatWasAskedFor(t *testing.T) {
	s := aurora(t)
	artifact := "sha256:" + strings.Repeat("cd", 32)
	a := collect(t, s, 6*time.Hour, "")
	a.Artifact, a.Environment = artifact, "staging"
	report, _ := judge(t, s, a)
	assert.DeepEqual(t, report.Subject, &slo.Subject{Revision: revision, Artifact: artifact, Environment: "staging"})
	for _, c := range []struct {
		ask  slo.Ask
		want string
	}{
		{slo.Ask{Revision: revision, Artifact: "sha256:CD"}, `artifact "sha256:CD": want sha256: and 64 lower-case hex digits`},
		{slo.Ask{Revision: revision, Environment: "Staging"}, `environment "Staging": want small letters`},
		{slo.Ask{Revision: revision, Source: slo.FromSimulator}, `source "simulator": want none, or synthetic-backfill`},
	} {
		assert.ErrorContains(t, s.CheckAsk(c.ask), c.want)
	}
	a.Environment = "a\nb"
	_, refusal := judge(t, s, a)
	assert.Equal(t, refusal.Reasons[0].Code, slo.OtherQuestions)
}

func TestWhatWasWrittenAfterTheFactIsNeverPromotable(t *testing.T) {
	s := aurora(t)
	a := collect(t, s, 6*time.Hour, "")
	a.Source = slo.FromBackfill
	report, _ := judge(t, s, a)
	assert.Equal(t, report.Verdict, slo.Pass)
	assert.Equal(t, report.DataSource, slo.FromBackfill)
	assert.Equal(t, report.Promotable, false)
	assert.DeepEqual(t, report.Why, []string{"the window is 6h, the spec promises 72h", "the data were written into a database after the fact: no service was measured"})
	assert.Equal(t, viewOf(t, s, a).Banner, "Synthetic: the data were written into a database after the fact, no service was measured")
	data, err := report.Marshal()
	assert.NilError(t, err)
	again, err := slo.Verify(data, s, marshalled(t, a))
	assert.NilError(t, err)
	assert.DeepEqual(t, again, report)
	// The label cannot be taken off.
	_, err = slo.Verify([]byte(strings.Replace(string(data), slo.FromBackfill, slo.FromPrometheus, 1)), s, marshalled(t, a))
	assert.ErrorContains(t, err, "the evidence shows")
}

func TestARefusalIsMadeAnew(t *testing.T) {
	s := aurora(t)
	a := collect(t, s, 6*time.Hour, "gap")
	tarball := marshalled(t, a)
	_, refusal := judge(t, s, a)
	data, err := refusal.Marshal()
	assert.NilError(t, err)
	got, err := slo.VerifyRefusal(data, s, tarball)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, refusal)
	_, err = slo.VerifyRefusal([]byte(strings.Replace(string(data), `"gap"`, `"short"`, 1)), s, tarball)
	assert.ErrorContains(t, err, "the refusal is not what its evidence shows")

	// A refusal of what passes, and a pass in place of a refusal.
	well := collect(t, s, 6*time.Hour, "")
	report, _ := judge(t, s, well)
	forged := *refusal
	forged.Evidence = report.Evidence
	data, err = forged.Marshal()
	assert.NilError(t, err)
	_, err = slo.VerifyRefusal(data, s, marshalled(t, well))
	assert.ErrorContains(t, err, "the evidence is judged PASS, the file says REFUSED")
	for text, want := range map[string]string{
		`{"report_type":"canary_slo","verdict":"PASS"}`:                                                      "want canary_slo, REFUSED and at least one",
		`{"report_type":"canary_slo","verdict":"REFUSED","reasons":[{"code":"x"}]}`:                          "there is no evidence",
		`{"report_type":"canary_slo","verdict":"REFUSED","reasons":[{"code":"x"}],"evidence":{"file":".."}}`: "in the report's folder",
		`{"metrics":{}}`: "unknown field",
		`{}{}`:           "more follows",
	} {
		r, err := slo.ParseRefusal([]byte(text))
		assert.ErrorContains(t, err, want, text)
		assert.Assert(t, r == nil)
	}
}

func TestACourseKeepsTheWorstOfEachPart(t *testing.T) {
	s := aurora(t)
	a := collect(t, s, 0, "")
	bend := func(key string, change func(body string) string) {
		for i, r := range a.Panels {
			if r.Name == key {
				a.Panels[i].Body = []byte(change(string(r.Body)))
			}
		}
	}
	// One bad point, and a stretch without any. Points are 300 s apart, so each of
	// 60 parts has 14 or 15.
	first := s.End(a.At).Add(-72 * time.Hour).Unix()
	bend("panel/5/0", func(body string) string {
		at := fmt.Sprintf(`[%d,"`, first+100*300)
		assert.Assert(t, strings.Contains(body, at))
		before, rest, _ := strings.Cut(body, at)
		_, rest, _ = strings.Cut(rest, `"`)
		return before + at + `900"` + rest
	})
	bend("panel/4/0", func(body string) string {
		from, to := strings.Index(body, fmt.Sprintf(`[%d,`, first+200*300)), strings.Index(body, fmt.Sprintf(`[%d,`, first+260*300))
		return body[:from] + body[to:]
	})
	all := s.Courses(a, 60)
	assert.Equal(t, len(all), 4)
	for _, c := range all {
		assert.Equal(t, len(c.Worst), 60)
		assert.Equal(t, c.Part, 72*time.Minute)
	}
	fill, rtt := all[0], all[1]
	assert.Equal(t, rtt.Key, "rtt_p95_ms")
	assert.Equal(t, rtt.Op, "lte")
	assert.Equal(t, rtt.Threshold, 350.0)
	worst := slices.Max(rtt.Worst)
	assert.Equal(t, worst, 900.0)
	assert.Equal(t, slices.Index(rtt.Worst, worst), 100*300/(72*60))
	var none []int
	for k, v := range fill.Worst {
		if math.IsNaN(v) {
			none = append(none, k)
		} else {
			assert.Assert(t, v >= 0.99 && v <= 1)
		}
	}
	assert.DeepEqual(t, none, []int{14, 15, 16, 17})

	// No answer at all is a course of nothing, and is not left out.
	bend("panel/6/0", func(string) string { return "<html>" })
	for _, v := range s.Courses(a, 60)[2].Worst {
		assert.Assert(t, math.IsNaN(v))
	}
	// A short window has no more parts than points.
	assert.Equal(t, len(s.Courses(collect(t, s, 2*time.Hour, ""), 1000)[0].Worst), 120)
}

func TestACardShowsASimulationForWhatItIs(t *testing.T) {
	s := aurora(t)
	r, err := slo.Simulate(s, []byte(`{"metrics":{"fill_rate_p95":0.87,"rtt_p95_ms":412,"provenance_coverage":0.96,"policy_latency_p99_ms":18}}`), "sim.json", noon, "")
	assert.NilError(t, err)
	b := slo.Card(r, "Rendered by Remembrancer")
	out, err := b.SVG(chart.Options{Width: 800})
	assert.NilError(t, err)
	for _, want := range []string{"Not measured: the data come from a simulator", "FAIL · 3 of 4 met", "window: simulated", "412 ms", "≤ 350 ms · missed"} {
		assert.Assert(t, strings.Contains(string(out), want), want)
	}
	assert.Equal(t, len(b.Missing()), 0)
	_, err = b.PNG(chart.Options{Width: 800})
	assert.NilError(t, err)
}

func TestProvisioningNamesOneFixedSource(t *testing.T) {
	s := aurora(t)
	files, err := s.Provisioning("http://prometheus:9090")
	assert.NilError(t, err)
	dashboard, err := s.Dashboard()
	assert.NilError(t, err)
	assert.DeepEqual(t, slices.Sorted(func(yield func(string) bool) {
		for name := range files {
			if !yield(name) {
				return
			}
		}
	}), []string{"dashboards/remembrancer.yaml", "dashboards/slo-aurora-akash-001.json", "datasources/remembrancer.yaml"})
	assert.Equal(t, string(files["dashboards/slo-aurora-akash-001.json"]), string(dashboard))
	assert.Assert(t, strings.Contains(string(files["datasources/remembrancer.yaml"]), "uid: remembrancer-prometheus\n"))
	assert.Assert(t, strings.Contains(string(files["datasources/remembrancer.yaml"]), `url: "http://prometheus:9090"`))
	for _, bad := range []string{"", "prometheus:9090", "http://me:secret@prometheus:9090", "http://prometheus:9090/?a=b", "http://p\n9090", "http://$__file{/etc/passwd}"} {
		_, err := s.Provisioning(bad)
		assert.ErrorContains(t, err, "want one such as http://prometheus:9090", bad)
		assert.Assert(t, !strings.Contains(err.Error(), "secret"))
	}
}

func FuzzRefusal(f *testing.F) {
	s := aurora(f)
	_, refusal := judge(f, s, collect(f, s, 2*time.Hour, "gap"))
	data, err := refusal.Marshal()
	assert.NilError(f, err)
	f.Add(data)
	f.Add([]byte(`{"report_type":"canary_slo","verdict":"REFUSED","reasons":[{"code":"x"}],"evidence":{"file":"x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := slo.ParseRefusal(data)
		if err != nil {
			assert.Assert(t, r == nil)
			return
		}
		assert.Assert(t, r.Verdict == slo.Refused && len(r.Reasons) > 0 && !strings.ContainsAny(r.Evidence.File, `/\\`))
		again, err := r.Marshal()
		assert.NilError(t, err)
		two, err := slo.ParseRefusal(again)
		assert.NilError(t, err)
		assert.DeepEqual(t, two, r)
	})
}
