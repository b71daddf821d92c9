package prom_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-analyze/charts"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/chart"
	"github.com/vaultmesh/remembrancer/pkg/prometheus"
	"github.com/vaultmesh/remembrancer/pkg/slo"
)

// overHTTP serves the engine as Prometheus's API does, to the client that the
// command uses.
func overHTTP(b *testing.B, s *server) *prometheus.Client {
	b.Helper()
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a := s.ask(r.Context(), slo.Query{Path: strings.TrimPrefix(r.URL.Path, "/"), Form: r.PostForm.Encode()})
		w.Header().Set("Content-Type", a.ContentType)
		w.WriteHeader(a.Status)
		_, _ = w.Write(a.Body) // who went away is not told
	}))
	b.Cleanup(h.Close)
	c, err := prometheus.New(h.URL, prometheus.Options{})
	assert.NilError(b, err)
	b.Cleanup(c.Close)
	return c
}

// best is the shortest of several runs, by the clock and by the time that the
// processor worked: what else the machine does only makes them longer.
type best struct{ wall, cpu time.Duration }

func (t *best) run(f func()) {
	began, worked := time.Now(), processor()
	f()
	if d := time.Since(began); t.wall == 0 || d < t.wall {
		t.wall = d
	}
	if d := processor() - worked; t.cpu == 0 || d < t.cpu {
		t.cpu = d
	}
}

// processor is how long this process has kept processors busy.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReport measures a whole report over 72 hours, scraped every 15 s: every
// query of the verdict and of the picture, the judging, and the archive. The
// alternative is what the ancestor's reporter asked for the same report: four
// queries over the window, of which it believed whatever came.
func BenchmarkReport(b *testing.B) {
	s := aurora(b)
	h := serve(b, histories["full"])
	client := overHTTP(b, h)
	report := func(pictures bool) *slo.Report {
		ask := slo.Ask{Window: window, Revision: revision, Generator: "bench"}
		a, err := slo.Collect(b.Context(), s, ask, func() time.Time { return clock }, func(ctx context.Context, q slo.Query) slo.Response {
			if !pictures && strings.HasPrefix(q.Name, "panel/") {
				return slo.Response{Error: "not asked"}
			}
			return client.Fetch(ctx, q)
		})
		assert.NilError(b, err)
		_, err = a.Marshal()
		assert.NilError(b, err)
		r, refusal, err := slo.Judge(s, a, "evidence.tar")
		assert.NilError(b, err)
		assert.Assert(b, refusal == nil, "%+v", refusal)
		return r
	}
	ancestor := func() {
		for _, expr := range []string{
			`sum(increase(remembrancer_soak_operations_total{outcome=~"verified|denied_expected"}[72h])) / sum(increase(remembrancer_soak_operations_total[72h]))`,
			`histogram_quantile(0.95, sum by (le) (increase(remembrancer_soak_operation_duration_seconds_bucket[72h])))`,
			`sum(increase(remembrancer_audit_entries_total{result="verified"}[72h])) / sum(increase(remembrancer_audit_entries_total[72h]))`,
			`histogram_quantile(0.99, sum by (le) (increase(remembrancer_policy_evaluation_duration_seconds_bucket[72h])))`,
		} {
			r := client.Fetch(b.Context(), slo.Query{Path: "api/v1/query", Form: url.Values{"query": {expr}, "time": {fmt.Sprint(s.End(clock).Unix())}}.Encode()})
			assert.Equal(b, r.Status, 200)
		}
	}
	series := float64(len(service(0)))
	var ours, bare, theirs best
	for b.Loop() {
		ours.run(func() { assert.Equal(b, report(true).Verdict, slo.Pass) })
		bare.run(func() { report(false) })
		theirs.run(ancestor)
	}
	b.ReportMetric(series, "series")
	b.ReportMetric(ours.wall.Seconds(), "s/report")
	b.ReportMetric(ours.cpu.Seconds(), "cpu-s/report")
	b.ReportMetric(bare.cpu.Seconds(), "cpu-s/verdict")
	b.ReportMetric(theirs.cpu.Seconds(), "cpu-s/four-queries")
	b.ReportMetric(theirs.cpu.Seconds()/ours.cpu.Seconds(), "ratio")
}

// BenchmarkPicture draws the dashboard of 72 hours from an archive. The
// alternative is go-analyze/charts, with the same points in a chart for each panel
// of lines, as large as ours together; it has no numbers, limits, gaps or captions
// to draw.
func BenchmarkPicture(b *testing.B) {
	s := aurora(b)
	h := serve(b, histories["full"])
	var answers []slo.Response
	for _, q := range s.PanelQueries(window, s.End(clock)) {
		answers = append(answers, h.ask(b.Context(), q))
	}
	view := slo.View{Window: window, End: s.End(clock), Caption: "Rendered by Remembrancer"}
	var lines [][][]float64 // of each panel, each series
	for _, p := range s.Board(view, answers).Panels {
		var panel [][]float64
		for _, l := range p.Series {
			var values []float64
			for _, q := range l.Points {
				v := q.Value
				if math.IsNaN(v) {
					v = charts.GetNullValue()
				}
				values = append(values, v)
			}
			panel = append(panel, values)
		}
		if len(panel) > 0 {
			lines = append(lines, panel)
		}
	}
	for _, format := range []string{"png", "svg"} {
		b.Run(format, func(b *testing.B) {
			ours := func() {
				board := s.Board(view, answers)
				assert.Equal(b, len(board.Missing()), 0)
				var err error
				if format == "png" {
					_, err = board.PNG(chart.Options{Height: 1080})
				} else {
					_, err = board.SVG(chart.Options{Height: 1080})
				}
				assert.NilError(b, err)
			}
			output := charts.PNGOutputOptionFunc()
			if format == "svg" {
				output = charts.SVGOutputOptionFunc()
			}
			alternative := func() {
				for _, panel := range lines {
					p, err := charts.LineRender(panel, charts.DimensionsOptionFunc(1920/2, 1080*2/len(lines)), output)
					assert.NilError(b, err)
					_, err = p.Bytes()
					assert.NilError(b, err)
				}
			}
			var mine, theirs best
			for b.Loop() {
				mine.run(ours)
				theirs.run(alternative)
			}
			b.ReportMetric(mine.wall.Seconds(), "s/dashboard")
			b.ReportMetric(mine.cpu.Seconds(), "cpu-s/dashboard")
			b.ReportMetric(theirs.cpu.Seconds(), "cpu-s/go-analyze")
			b.ReportMetric(theirs.cpu.Seconds()/mine.cpu.Seconds(), "ratio")
		})
	}
}

// What is measured above is what the command would write.
func TestTheBenchmarkedReportHasItsPicture(t *testing.T) {
	s := aurora(t)
	h := serve(t, histories["full"])
	a, err := slo.Collect(t.Context(), s, slo.Ask{Window: window, Revision: revision, Generator: "test"}, func() time.Time { return clock }, h.ask)
	assert.NilError(t, err)
	tarball, err := a.Marshal()
	assert.NilError(t, err)
	read, err := slo.ParseArchive(tarball)
	assert.NilError(t, err)
	report, refusal, err := slo.Judge(s, read, "evidence.tar")
	assert.NilError(t, err)
	assert.Assert(t, refusal == nil, "%+v", refusal)
	b := s.Board(slo.View{Window: window, End: s.End(clock), Report: report}, read.Panels)
	assert.DeepEqual(t, b.Missing(), []string(nil))
	courses := s.Courses(read, 48)
	assert.Equal(t, len(courses), 4)
	for _, c := range courses {
		assert.Equal(t, len(c.Worst), 48)
		for _, v := range c.Worst {
			assert.Assert(t, !math.IsNaN(v), c.Key)
		}
	}
	manifest, err := json.Marshal(read)
	assert.NilError(t, err)
	t.Logf("evidence of %d bytes, %d of them manifest; %d answers, %d for the picture", len(tarball), len(manifest), len(read.Responses), len(read.Panels))
}
