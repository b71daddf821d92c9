package prom_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/chart"
	"github.com/vaultmesh/remembrancer/pkg/slo"
)

// dashboardTarget is one query of the dashboard, with its variables filled in.
type dashboardTarget struct {
	panel   string
	expr    string
	instant bool
}

func dashboard(t testing.TB) []dashboardTarget {
	t.Helper()
	out, err := aurora(t).Dashboard()
	assert.NilError(t, err)
	var g struct {
		Panels []struct {
			Title   string
			Type    string
			Targets []struct {
				Expr    string
				Instant bool
			}
		}
	}
	assert.NilError(t, json.Unmarshal(out, &g))
	var all []dashboardTarget
	for _, p := range g.Panels {
		for _, q := range p.Targets {
			all = append(all, dashboardTarget{p.Type + " " + p.Title, strings.ReplaceAll(q.Expr, "$instance", ".*"), q.Instant})
		}
	}
	return all
}

func TestEveryQueryParses(t *testing.T) {
	s := aurora(t)
	exprs := map[string]string{}
	for i, d := range dashboard(t) {
		exprs[fmt.Sprintf("dashboard %d: %s", i, d.panel)] = d.expr
	}
	for _, q := range slices.Concat(s.First(), s.Queries(window, epoch.Add(window)), s.PanelQueries(window, epoch.Add(window))) {
		form, err := url.ParseQuery(q.Form)
		assert.NilError(t, err)
		if form.Has("query") {
			exprs[q.Name] = form.Get("query")
		}
	}
	out, err := s.Rules()
	assert.NilError(t, err)
	var file struct {
		Groups []struct {
			Rules []struct{ Record, Alert, Expr string }
		}
	}
	assert.NilError(t, yaml.Unmarshal(out, &file))
	for _, g := range file.Groups {
		for i, r := range g.Rules {
			exprs[fmt.Sprintf("rule %d: %s%s", i, r.Record, r.Alert)] = r.Expr
		}
	}
	assert.Assert(t, len(exprs) > 100, "%d queries", len(exprs))
	for name, e := range exprs {
		_, err := queries.ParseExpr(e)
		assert.NilError(t, err, "%s: %s", name, e)
		assert.Assert(t, !strings.Contains(e, "$"), "%s: a variable is left: %s", name, e)
	}
}

type result struct {
	Data struct {
		Result []struct {
			Value  []any
			Values [][]any
		}
	}
}

// Every query of the dashboard gives one series, as long as the window.
func TestEveryPanelReturnsData(t *testing.T) {
	s := serve(t, histories["full"])
	for _, d := range dashboard(t) {
		q := slo.Query{Path: "api/v1/query", Form: url.Values{"query": {d.expr}, "time": {fmt.Sprint(epoch.Add(window).Unix())}}.Encode()}
		if !d.instant {
			q = slo.Query{Path: "api/v1/query_range", Form: url.Values{"query": {d.expr}, "start": {fmt.Sprint(epoch.Add(time.Hour).Unix())}, "end": {fmt.Sprint(epoch.Add(window).Unix())}, "step": {"300"}}.Encode()}
		}
		r := s.ask(t.Context(), q)
		assert.Equal(t, r.Status, 200, "%s: %s", d.panel, r.Body)
		var got result
		assert.NilError(t, json.Unmarshal(r.Body, &got))
		assert.Equal(t, len(got.Data.Result), 1, "%s: %s", d.panel, d.expr)
		if d.instant {
			assert.Assert(t, got.Data.Result[0].Value[1] != "NaN")
		} else {
			assert.Equal(t, len(got.Data.Result[0].Values), 71*12+1, "%s: %s", d.panel, d.expr)
		}
		assert.Assert(t, !strings.Contains(string(r.Body), "NaN"), d.panel)
	}
}

// judged is what becomes of a history: the report's values, or the codes of its
// refusal, and the picture.
func judged(t *testing.T, h history) (*slo.Report, []slo.Code, *chart.Board) {
	t.Helper()
	s, server := aurora(t), serve(t, h)
	a, err := slo.Collect(t.Context(), s, slo.Ask{Window: window, Revision: revision, Generator: "test"}, func() time.Time { return clock }, server.ask)
	assert.NilError(t, err)
	report, refusal, err := slo.Judge(s, a, "evidence.tar")
	assert.NilError(t, err)
	var codes []slo.Code
	if refusal != nil {
		for _, r := range refusal.Reasons {
			if !slices.Contains(codes, r.Code) {
				codes = append(codes, r.Code)
			}
		}
	}
	var answers []slo.Response
	began := time.Now()
	for _, q := range s.PanelQueries(window, s.End(clock)) {
		answers = append(answers, server.ask(t.Context(), q))
	}
	t.Logf("%d queries of the picture: %s", len(answers), time.Since(began))
	b := s.Board(slo.View{
		Window: window, End: s.End(clock), Report: report, Refusal: refusal, Subtitle: "synthetic history",
		Caption: "Rendered by Remembrancer from a synthetic history, not by Grafana. Hatched: time without data.",
	}, answers)
	if dir := os.Getenv("PICTURES"); dir != "" {
		png, err := b.PNG(chart.Options{Height: 1080})
		assert.NilError(t, err)
		assert.NilError(t, os.WriteFile(filepath.Join(dir, filepath.Base(t.Name())+".png"), png, 0o644))
	}
	_, err = b.SVG(chart.Options{Height: 1080})
	assert.NilError(t, err)
	return report, codes, b
}

// numbers are the panels that are one number.
func numbers(b *chart.Board) []string {
	var out []string
	for _, p := range b.Panels {
		if p.Number {
			out = append(out, p.Title+" "+p.Unit.Format(p.Stat.Value)+" "+p.Stat.Status.String())
		}
	}
	return out
}

// points counts those of each line's first series.
func points(b *chart.Board) map[string]int {
	out := map[string]int{}
	for _, p := range b.Panels {
		if !p.Number {
			out[p.Title] = 0
			if len(p.Series) > 0 {
				out[p.Title] = len(p.Series[0].Points)
			}
		}
	}
	return out
}

func TestHistoriesAreJudgedAndDrawnAsTheyWere(t *testing.T) {
	for _, c := range []struct {
		name    string
		codes   []slo.Code
		verdict string
		numbers []string
		points  int // of up
	}{
		{"full", nil, "PASS", []string{"Window covered 100 % met", "Window covered 100 % met", "Counter resets 0 met"}, 865},
		{"slow", nil, "FAIL", []string{"Window covered 100 % met", "Window covered 100 % met", "Counter resets 0 met"}, 865},
		{"gap", []slo.Code{slo.Gap, slo.Coverage}, "", []string{"Window covered 91.67 % missed", "Window covered 91.67 % missed", "Counter resets 0 met"}, 794},
		{"short", []slo.Code{slo.Short, slo.Gap, slo.Coverage}, "", []string{"Window covered 2.784 % missed", "Window covered 2.784 % missed", "Counter resets 0 met"}, 25},
		{"stale", []slo.Code{slo.Stale, slo.Gap, slo.Coverage}, "", []string{"Window covered 91.67 % missed", "Window covered 91.67 % missed", "Counter resets 0 met"}, 793},
		{"reset", []slo.Code{slo.CounterReset}, "", []string{"Window covered 100 % met", "Window covered 100 % met", "Counter resets 4 missed"}, 865},
	} {
		t.Run(c.name, func(t *testing.T) {
			report, codes, b := judged(t, histories[c.name])
			for _, want := range c.codes {
				assert.Assert(t, slices.Contains(codes, want), "found %v, want %s", codes, want)
			}
			if c.verdict == "" {
				assert.Assert(t, report == nil)
				assert.Equal(t, b.Badge.Text, "REFUSED")
			} else {
				assert.Assert(t, report != nil, "%v", codes)
				assert.Equal(t, report.Verdict, c.verdict)
			}
			assert.DeepEqual(t, numbers(b), c.numbers)
			assert.Equal(t, points(b)["Targets"], c.points, "%v", points(b))
			for _, p := range b.Panels {
				assert.Equal(t, p.Missing, "", p.Title)
			}
		})
	}
}

// promtool finds the tool that is to agree with us. Without it these tests say
// nothing, so they fail.
func promtool(t *testing.T) string {
	t.Helper()
	home, err := os.UserHomeDir()
	assert.NilError(t, err)
	path, err := exec.LookPath("promtool")
	if err != nil {
		path = filepath.Join(home, ".cache/remembrancer-ci/bin/promtool")
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		t.Fatal("promtool is neither in PATH nor in ~/.cache/remembrancer-ci/bin: apt-get download prometheus && dpkg -x prometheus_*.deb root")
	}
	return path
}

func TestPromtoolAcceptsTheRules(t *testing.T) {
	tool := promtool(t)
	for _, args := range [][]string{
		{"check", "rules", "../../examples/slo/aurora-akash-001.rules.yaml"},
		{"test", "rules", "../../examples/slo/aurora-akash-001.rules.test.yaml"},
	} {
		out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput()
		assert.NilError(t, err, "%s", out)
	}
}
