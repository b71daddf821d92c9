package chart_test

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/chart"
)

func TestSparklineShowsEachValueAndEachGap(t *testing.T) {
	for _, c := range []struct {
		values []float64
		limit  float64
		want   string
	}{
		{[]float64{0, 1, 2, 3, 4, 5, 6, 7, 8}, 0, "▁▂▃▄▅▆▇██"},
		{[]float64{1, math.NaN(), 0, math.Inf(1)}, 0, "█·▁·"},
		{[]float64{300, 300}, 350, "▁▁"}, // the limit is above them
		{[]float64{360, 300}, 350, "█▁"},
		{[]float64{5, 5}, 5, "▁▁"},
		{nil, 1, ""},
	} {
		assert.Equal(t, chart.Sparkline(c.values, c.limit), c.want)
	}
}

func TestMermaidIsWhatItsGrammarTakes(t *testing.T) {
	out, err := chart.Mermaid("rtt_p95_ms, worst of each part", "parts of 72 minutes", chart.Milliseconds, []float64{240, 260.5, 1e-9, 410}, 350)
	assert.NilError(t, err)
	assert.Equal(t, out, `%%{init: {"xyChart": {"width": 720, "height": 240}, "themeVariables": {"xyChart": {"plotColorPalette": "#2563eb, #c81e1e"}}}}%%
xychart-beta
    title "rtt_p95_ms, worst of each part"
    x-axis "parts of 72 minutes"
    y-axis "ms" 0 --> 430.5
    line [240, 260.5, 0.000000001, 410]
    line [350, 350, 350, 350]
`)
	out, err = chart.Mermaid("fill", "x", chart.Ratio, []float64{0.5, 1}, 0.8)
	assert.NilError(t, err)
	assert.Assert(t, strings.Contains(out, "y-axis \"percent\" 0 --> 105\n    line [50, 100]\n    line [80, 80]\n"), out)
}

func TestMermaidRefusesWhatItCannotShow(t *testing.T) {
	for _, c := range []struct {
		values []float64
		limit  float64
		want   string
	}{
		{nil, 1, "chart: 0 values, from 1 to 60"},
		{make([]float64, 61), 1, "chart: 61 values, from 1 to 60"},
		{[]float64{1, math.NaN()}, 1, "chart: value 2 of 2 is missing"},
		{[]float64{1}, math.Inf(1), "chart: a limit of +Inf"},
	} {
		_, err := chart.Mermaid("", "", chart.Count, c.values, c.limit)
		assert.Error(t, err, c.want)
	}
}

var mermaidLine = regexp.MustCompile("^    (title|x-axis|y-axis|line) [^`]*$")

// FuzzMermaid: no title ends the block that the diagram stands in, or is more than
// its line.
func FuzzMermaid(f *testing.F) {
	f.Add("a", "b", 1.0, 2.0)
	f.Add("```\n<script>", "\"x\"\n line [1]", -1e300, 1e-300)
	f.Fuzz(func(t *testing.T, title, axis string, v, limit float64) {
		out, err := chart.Mermaid(title, axis, chart.Milliseconds, []float64{v, v / 3}, limit)
		if err != nil {
			return
		}
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		assert.Equal(t, len(lines), 7, out)
		for _, l := range lines[2:] {
			assert.Assert(t, mermaidLine.MatchString(l) && utf8.ValidString(l), "%q", l)
			assert.Assert(t, strings.Count(l, `"`)%2 == 0, "%q", l)
		}
	})
}

func TestABoardOfNumbersNeedsNoSpan(t *testing.T) {
	b := &chart.Board{Title: "Numbers", Subtitle: "of no time", Panels: []chart.Panel{{Title: "one", Number: true, Stat: &chart.Stat{Value: 1}}}}
	out := svg(t, b, chart.Options{Width: 400})
	shows(t, out, ">of no time</text>")
	assert.Assert(t, !strings.Contains(out, "0001-01-01"))
	b.Panels = append(b.Panels, chart.Panel{Title: "a plot"})
	_, err := b.SVG(chart.Options{})
	assert.ErrorContains(t, err, "chart: the span ends at")
}

func TestMissingNamesWhatABoardDoesNotShow(t *testing.T) {
	assert.DeepEqual(t, small().Missing(), []string{"Nothing: no samples"})
	b := small()
	b.Panels[0].Series[0].Points = b.Panels[0].Series[0].Points[:1]
	b.Panels[0].Series[0].Points[0].Value = math.NaN()
	b.Panels[2].Stat = nil
	assert.DeepEqual(t, b.Missing(), []string{"Fill <rate> & more: no data", "Nothing: no samples", "Entries: no data"})
}

func ExampleSparkline() {
	fmt.Println(chart.Sparkline([]float64{240, 250, 310, 240, math.NaN(), 400}, 350))
	// Output: ▁▁▄▁·█
}
