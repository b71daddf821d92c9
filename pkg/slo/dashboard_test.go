package slo_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/chart"
	"github.com/vaultmesh/remembrancer/pkg/slo"
)

func TestDashboardOfTheExampleIsGolden(t *testing.T) {
	out, err := auroraWith(t).Dashboard()
	assert.NilError(t, err)
	golden.Assert(t, string(out), "../../../examples/slo/aurora-akash-001.dashboard.json")
}

type grafana struct {
	UID    string
	Panels []struct {
		ID      int
		Title   string
		Type    string
		GridPos struct{ X, Y, W, H int }
		Targets []struct {
			Expr, RefID string
			Datasource  struct{ UID string }
		}
		FieldConfig struct {
			Defaults struct {
				Unit, NoValue string
				Thresholds    struct {
					Steps []struct {
						Color string
						Value *float64
					}
				}
				Custom struct{ SpanNulls *bool }
			}
		}
	}
}

func TestDashboardHasTheLimitsOfTheSpecAndNoPlaceTwice(t *testing.T) {
	out, err := auroraWith(t).Dashboard()
	assert.NilError(t, err)
	var g grafana
	assert.NilError(t, json.Unmarshal(out, &g))
	assert.Equal(t, g.UID, "slo-aurora-akash-001")
	limits := map[string][]string{}
	taken := map[[2]int]string{}
	for i, p := range g.Panels {
		assert.Equal(t, p.ID, i+1)
		assert.Equal(t, p.FieldConfig.Defaults.NoValue, "no data")
		assert.Assert(t, p.GridPos.X+p.GridPos.W <= 24)
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				assert.Equal(t, taken[at], "", "%s lies on it", p.Title)
				taken[at] = p.Title
			}
		}
		for _, target := range p.Targets {
			assert.Equal(t, target.Datasource.UID, "${datasource}")
			assert.Assert(t, strings.Contains(target.Expr, `instance=~"$instance"`))
		}
		if p.Type == "timeseries" {
			assert.Assert(t, p.FieldConfig.Defaults.Custom.SpanNulls != nil && !*p.FieldConfig.Defaults.Custom.SpanNulls)
		}
		var steps []string
		for _, s := range p.FieldConfig.Defaults.Thresholds.Steps {
			if s.Value == nil {
				steps = append(steps, s.Color)
			} else {
				steps = append(steps, fmt.Sprintf("%s from %v", s.Color, *s.Value))
			}
		}
		limits[p.Title] = append(limits[p.Title], p.FieldConfig.Defaults.Unit+": "+strings.Join(steps, ", "))
	}
	assert.DeepEqual(t, limits, map[string][]string{
		"fill_rate_p95":           {"percentunit: red, green from 0.8", "percentunit: red, green from 0.8"},
		"rtt_p95_ms":              {"ms: green, red from 350", "ms: green, red from 350"},
		"provenance_coverage":     {"percentunit: red, green from 0.95", "percentunit: red, green from 0.95"},
		"policy_latency_p99_ms":   {"ms: green, red from 25", "ms: green, red from 25"},
		"Error budget: burn rate": {"short: green, red from 7.2"},
		"Events":                  {"ops: text"},
		"Targets":                 {"short: text"},
		"Window covered":          {"percentunit: red, green from 0.99", "percentunit: red, green from 0.99"},
		"Counter resets":          {"short: green, red from 0.5"},
		"Revision":                {"short: text"},
	})
}

var boardEnd = time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)

// answered is an answer to each query of the picture: a line at value with a hole
// from 30 to 36 hours, or one number.
func answered(t testing.TB, s *slo.Spec, value func(q slo.Query, at int64) string) []slo.Response {
	t.Helper()
	var out []slo.Response
	for _, q := range s.PanelQueries(72*time.Hour, boardEnd) {
		form, err := url.ParseQuery(q.Form)
		assert.NilError(t, err)
		r := slo.Response{Query: q, Status: 200, ContentType: "application/json"}
		if q.Path == "api/v1/query" {
			r.Body = fmt.Appendf(nil, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%s,%q]}]}}`, form.Get("time"), value(q, boardEnd.Unix()))
			out = append(out, r)
			continue
		}
		number := func(key string) int64 {
			n, err := strconv.ParseInt(form.Get(key), 10, 64)
			assert.NilError(t, err)
			return n
		}
		var points []string
		for at := number("start"); at <= number("end"); at += number("step") {
			if h := (at - boardEnd.Unix() + 72*3600) / 3600; h >= 30 && h < 36 {
				continue
			}
			points = append(points, fmt.Sprintf("[%d,%q]", at, value(q, at)))
		}
		r.Body = fmt.Appendf(nil, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"job":"node","instance":"a:1"},"values":[%s]}]}}`, strings.Join(points, ","))
		out = append(out, r)
	}
	return out
}

func well(q slo.Query, at int64) string {
	switch {
	case strings.Contains(q.Form, "histogram_quantile"):
		return fmt.Sprint(12 + 3*math.Sin(float64(at)/9000))
	case strings.HasPrefix(q.Form, "query=up") || strings.Contains(q.Form, "clamp_max"):
		return "1"
	case strings.Contains(q.Form, "resets"):
		return "0"
	case strings.Contains(q.Form, "sum%28rate"):
		return fmt.Sprint(40 + 30*math.Sin(float64(at)/14000))
	case strings.Contains(q.Form, "%28%281") || strings.Contains(q.Form, "query=%281"):
		return "0.2"
	}
	return "0.97"
}

func view() slo.View {
	return slo.View{Window: 72 * time.Hour, End: boardEnd, Subtitle: "staging", Caption: "Rendered by Remembrancer, not by Grafana.", Report: &slo.Report{
		Verdict: "FAIL", DataSource: "prometheus", KPIs: []slo.KPI{
			{Key: "fill_rate_p95", Value: 0.87, Compliant: true},
			{Key: "rtt_p95_ms", Value: 361, Compliant: false},
			{Key: "provenance_coverage", Value: 0.96, Compliant: true},
			{Key: "policy_latency_p99_ms", Value: 18, Compliant: true},
		},
	}}
}

func stats(b *chart.Board) map[string]string {
	out := map[string]string{}
	for _, p := range b.Panels {
		points := 0
		for _, s := range p.Series {
			points += len(s.Points)
		}
		text := fmt.Sprintf("%d points", points)
		if p.Stat != nil {
			text += fmt.Sprintf(", %s %s", p.Unit.Format(p.Stat.Value), p.Stat.Status)
		}
		if p.Missing != "" {
			text += ", missing: " + p.Missing
		}
		title := p.Title
		if strings.HasPrefix(p.Note, "up{") {
			title += " of " + p.Note
		}
		out[title] = text
	}
	return out
}

func TestBoardShowsTheReport(t *testing.T) {
	s := auroraWith(t)
	b := s.Board(view(), answered(t, s, well))
	assert.DeepEqual(t, b.Badge, chart.Badge{Text: "FAIL · 3 of 4 met", Status: chart.Missed})
	assert.Equal(t, b.Banner, "")
	assert.DeepEqual(t, stats(b), map[string]string{
		"fill_rate_p95":           "793 points, 87 % met",
		"rtt_p95_ms":              "793 points, 361 ms missed",
		"provenance_coverage":     "793 points, 96 % met",
		"policy_latency_p99_ms":   "793 points, 18 ms met",
		"Error budget: burn rate": "3172 points",
		"Events":                  "3172 points",
		"Targets":                 "1586 points",
		"Window covered of up{job=\"remembrancer-node\"}": "0 points, 100 % met",
		"Window covered of up{job=\"remembrancer-soak\"}": "0 points, 100 % met",
		"Counter resets": "0 points, 0 met",
	})
	for _, o := range []chart.Options{{Height: 1080}, {Width: 390, Theme: chart.Dark}} {
		_, err := b.PNG(o)
		assert.NilError(t, err)
		out, err := b.SVG(o)
		assert.NilError(t, err)
		assert.Assert(t, strings.Contains(string(out), "FAIL · 3 of 4 met"))
	}
}

func TestBoardWithoutAReportJudgesNoObjective(t *testing.T) {
	s := auroraWith(t)
	v := view()
	v.Report = nil
	b := s.Board(v, answered(t, s, well))
	assert.Equal(t, b.Badge.Text, "")
	assert.Equal(t, stats(b)["rtt_p95_ms"], "793 points")

	v.Refusal = &slo.Refusal{Reasons: []slo.Reason{{Code: slo.Gap, Detail: "6h without a sample"}}}
	b = s.Board(v, answered(t, s, well))
	assert.DeepEqual(t, b.Badge, chart.Badge{Text: "REFUSED", Status: chart.Unmeasured})
	assert.Equal(t, b.Banner, "Refused: 6h without a sample")
	assert.Equal(t, stats(b)["rtt_p95_ms"], "793 points, no data ")

	v = view()
	v.Report.DataSource = "simulator"
	assert.Equal(t, s.Board(v, nil).Banner, "Not measured: the data come from a simulator")
}

func TestBoardSaysWhyThereAreNoData(t *testing.T) {
	s := auroraWith(t)
	for _, c := range []struct {
		name string
		bend func(r *slo.Response)
		want string
	}{
		{"empty", func(r *slo.Response) {
			r.Body = []byte(`{"status":"success","data":{"resultType":"matrix","result":[]}}`)
		}, "no series"},
		{"login page", func(r *slo.Response) { r.Body = []byte("<html>"); r.ContentType = "text/html" }, `found "<html>" (text/html), want JSON`},
		{"5xx", func(r *slo.Response) { r.Status = 503; r.Body = []byte("no") }, "HTTP status 503: no"},
		{"warning", func(r *slo.Response) { r.Body = []byte(`{"status":"success","warnings":["partial"],"data":{}}`) }, "partial"},
		{"no list", func(r *slo.Response) { r.Body = []byte(`{"status":"success","data":{"result":7}}`) }, "the answer is neither a vector nor a matrix"},
		{"sample", func(r *slo.Response) { r.Body = []byte(`{"status":"success","data":{"result":[{"values":[[1,2]]}]}}`) }, "found the sample [1, 2], want a time and a value"},
		{"value", func(r *slo.Response) {
			r.Body = []byte(`{"status":"success","data":{"result":[{"values":[[1,"x"]]}]}}`)
		}, `found the value "x"`},
		{"another time", func(r *slo.Response) {
			r.Body = []byte(`{"status":"success","data":{"result":[{"values":[[1,"2"]]}]}}`)
		}, "a sample of 1.000, out of order or out of the window"},
		{"many", func(r *slo.Response) {
			r.Body = []byte(`{"status":"success","data":{"result":[` + strings.Repeat("{},", 32) + `{}]}}`)
		}, "33 series, want at most 32"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := answered(t, s, well)
			for i := range all {
				c.bend(&all[i])
			}
			b := s.Board(view(), all)
			for _, p := range b.Panels {
				assert.Equal(t, p.Missing, c.want)
				for _, line := range p.Series {
					assert.Equal(t, len(line.Points), 0)
				}
				if p.Number {
					assert.Assert(t, math.IsNaN(p.Stat.Value), "%s shows %v", p.Title, p.Stat.Value)
				}
			}
			_, err := b.SVG(chart.Options{})
			assert.NilError(t, err)
		})
	}
	b := s.Board(view(), nil)
	assert.Equal(t, b.Panels[0].Missing, "panel/4/0 was not asked")
}
