package chart_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/chart"
)

// small is a board of twelve hours with a point every hour, and none from three
// to seven.
func small() *chart.Board {
	s := chart.Series{Name: "fill"}
	for _, h := range []int{0, 1, 2, 3, 7, 8, 9, 10, 11, 12} {
		s.Points = append(s.Points, chart.Point{Time: start.Add(time.Duration(h) * time.Hour), Value: 0.9 + float64(h%3)/100})
	}
	return &chart.Board{
		Title: "A board", Start: start, End: start.Add(12 * time.Hour), Step: time.Hour, Badge: chart.Badge{Text: "PASS", Status: chart.Met},
		Banner: "Simulated", Caption: "Rendered by Remembrancer",
		Panels: []chart.Panel{
			{Title: "Fill <rate> & more", Note: "of all", Unit: chart.Ratio, Series: []chart.Series{s}, Limits: []chart.Limit{{0.8, true}}, Stat: &chart.Stat{Value: 0.91, Status: chart.Met}},
			{Title: "Nothing", Unit: chart.Seconds, Missing: "no samples", Limits: []chart.Limit{{Value: 0.35}}, Stat: &chart.Stat{Value: math.NaN()}},
			{Title: "Entries", Number: true, Stat: &chart.Stat{Value: 28412}},
		},
	}
}

func svg(t testing.TB, b *chart.Board, o chart.Options) string {
	t.Helper()
	out, err := b.SVG(o)
	assert.NilError(t, err)
	return string(out)
}

// shows fails without the whole picture in the message.
func shows(t testing.TB, out, want string) {
	t.Helper()
	assert.Assert(t, strings.Contains(out, want), "the picture has no %q", want)
}

func pixels(t testing.TB, b *chart.Board, o chart.Options) image.Image {
	t.Helper()
	out, err := b.PNG(o)
	assert.NilError(t, err)
	img, err := png.Decode(bytes.NewReader(out))
	assert.NilError(t, err)
	return img
}

func TestBytesAreGolden(t *testing.T) {
	golden.Assert(t, svg(t, small(), chart.Options{Width: 1200}), "wide.svg")
	golden.Assert(t, svg(t, small(), chart.Options{Width: 390, Theme: chart.Auto}), "phone.svg")
	a, err := staging().PNG(chart.Options{})
	assert.NilError(t, err)
	z, err := staging().PNG(chart.Options{})
	assert.NilError(t, err)
	assert.Assert(t, bytes.Equal(a, z))
}

func TestSVGIsWellFormedAndStandsAlone(t *testing.T) {
	b := staging()
	b.Panels[0].Series[0].Name = "\x00 </text><script>alert(1)</script> \u202e]]>\n"
	b.Panels[0].Series = append(b.Panels[0].Series, b.Panels[0].Series[0])
	b.Title = `"'<&>` + string([]byte{0xff, 0xfe})
	for _, theme := range []chart.Theme{chart.Light, chart.Dark, chart.Auto} {
		out := svg(t, b, chart.Options{Theme: theme})
		d := xml.NewDecoder(strings.NewReader(out))
		for {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			assert.NilError(t, err)
			if e, ok := tok.(xml.StartElement); ok {
				assert.Assert(t, cmp.Contains([]string{"svg", "title", "desc", "style", "rect", "path", "text"}, e.Name.Local))
				for _, a := range e.Attr {
					assert.Assert(t, a.Name.Local != "id" && a.Name.Local != "href" && !strings.HasPrefix(a.Name.Local, "on"))
				}
			}
		}
		assert.Equal(t, strings.Contains(out, "prefers-color-scheme"), theme == chart.Auto)
		shows(t, out, `viewBox="0 0 1920 `)
		for _, not := range []string{"NaN", "Inf"} {
			assert.Assert(t, !strings.Contains(out, not))
		}
	}
}

// plots counts the moves of lines that are as wide as a series is drawn: one for
// each stretch without a gap.
func stretches(out string) int {
	n := 0
	for _, line := range strings.Split(out, "\n") {
		if strings.Contains(line, `stroke-width="2"`) {
			n += strings.Count(line, "M")
		}
	}
	return n
}

func TestGapsAreNotJoined(t *testing.T) {
	b := small()
	out := svg(t, b, chart.Options{})
	assert.Equal(t, stretches(out), 2)
	shows(t, out, ">no data for 4h</text>")

	full := small()
	full.Step = 4 * time.Hour
	assert.Equal(t, stretches(svg(t, full, chart.Options{})), 1)

	late := small() // nothing before nine
	late.Panels[0].Series[0].Points = late.Panels[0].Series[0].Points[6:]
	shows(t, svg(t, late, chart.Options{}), ">no data for 9h</text>")
	early := small() // nothing after three
	early.Panels[0].Series[0].Points = early.Panels[0].Series[0].Points[:4]
	shows(t, svg(t, early, chart.Options{}), ">no data for 9h</text>")

	other := small() // where another series has data there is no hole to shade, but the line is still broken
	p := &other.Panels[0]
	whole := chart.Series{Name: "other"}
	for h := range 13 {
		whole.Points = append(whole.Points, chart.Point{Time: start.Add(time.Duration(h) * time.Hour), Value: 0.85})
	}
	p.Series = append(p.Series, whole)
	out = svg(t, other, chart.Options{})
	assert.Equal(t, stretches(out), 3)
	assert.Assert(t, !strings.Contains(out, "no data for"))
}

func TestValuesThatAreNoNumbersAreGaps(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		b := small()
		for i := range b.Panels[0].Series[0].Points {
			b.Panels[0].Series[0].Points[i].Value = v
		}
		b.Panels[0].Stat.Value = v
		b.Panels[0].Stat.Status = chart.Met
		out := svg(t, b, chart.Options{})
		assert.Equal(t, stretches(out), 0)
		shows(t, out, "target ≥ 80 % · not judged")
		assert.Equal(t, strings.Count(out, ">no data</text>"), 4) // plot and number of both panels
		assert.Assert(t, !strings.Contains(out, " · met"))
	}
}

func TestANumberThatWasNotJudgedIsADashBesideItsLine(t *testing.T) {
	b := small()
	b.Panels[0].Stat.Value = math.NaN()
	out := svg(t, b, chart.Options{})
	shows(t, out, ">—</text>")
	shows(t, out, "target ≥ 80 % · not judged")
}

func TestAPointAloneIsSeen(t *testing.T) {
	b := small()
	one := b.Panels[0].Series[0].Points[:1]
	b.Panels[0].Series[0].Points = one
	shows(t, svg(t, b, chart.Options{}), `width="4" height="4" rx="2" fill="#2563eb"`)
}

func TestEverySpikeStays(t *testing.T) {
	b := small()
	b.Step = time.Second
	s := chart.Series{Name: "many"}
	for i := range 40000 {
		v := 0.1
		if i == 23456 {
			v = 0.9
		}
		s.Points = append(s.Points, chart.Point{Time: start.Add(time.Duration(i) * time.Second), Value: v})
	}
	b.Panels = []chart.Panel{{Title: "spike", Unit: chart.Seconds, Series: []chart.Series{s}}}
	out := svg(t, b, chart.Options{})
	assert.Assert(t, len(out) < 200<<10, "%d bytes", len(out))
	b.Panels[0].Series[0].Points[23456].Value = 0.1
	flat := svg(t, b, chart.Options{})
	shows(t, out, ">1.0 s<")
	assert.Assert(t, !strings.Contains(flat, ">1.0 s<"))
	assert.Equal(t, stretches(out), 1)
}

func TestNumbersShowOnWhichSideOfTheLimitTheyAre(t *testing.T) {
	for _, c := range []struct {
		unit  chart.Unit
		value float64
		limit chart.Limit
		want  string
	}{
		{chart.Ratio, 0.949999, chart.Limit{0.95, true}, "94.9999 %"},
		{chart.Ratio, 0.95, chart.Limit{0.95, true}, "95 %"},
		{chart.Milliseconds, 350.004, chart.Limit{Value: 350}, "350.004 ms"},
		{chart.Seconds, 0.312, chart.Limit{Value: 0.35}, "312 ms"},
	} {
		b := small()
		b.Panels = []chart.Panel{{Title: "p", Unit: c.unit, Number: true, Limits: []chart.Limit{c.limit}, Stat: &chart.Stat{Value: c.value}}}
		shows(t, svg(t, b, chart.Options{}), ">"+c.want+"</text>")
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		unit chart.Unit
		v    float64
		want string
	}{
		{chart.Count, 0, "0"},
		{chart.Count, 28412, "28,412"},
		{chart.Count, -1234567, "-1.235 M"},
		{chart.Ratio, 0, "0 %"},
		{chart.Ratio, 1, "100 %"},
		{chart.Ratio, 0.97014, "97.01 %"},
		{chart.Ratio, 0.0000123, "0.001 %"},
		{chart.Seconds, 0, "0 s"},
		{chart.Seconds, 0.0000183, "18.3 µs"},
		{chart.Seconds, 0.0183, "18.3 ms"},
		{chart.Seconds, 90, "90 s"},
		{chart.Seconds, 300, "5 min"},
		{chart.Seconds, 21600, "6 h"},
		{chart.Milliseconds, 312, "312 ms"},
		{chart.Milliseconds, 1250, "1.25 s"},
		{chart.PerSecond, 9000, "9,000 /s"},
		{chart.PerSecond, 27500, "27.5 k/s"},
		{chart.Bytes, 12 << 20, "12 MiB"},
		{chart.Count, math.NaN(), "no data"},
		{chart.Ratio, math.Inf(1), "no data"},
	} {
		assert.Equal(t, c.unit.Format(c.v), c.want)
	}
}

func TestLabelsOfTheTimeAxisStandApart(t *testing.T) {
	for _, d := range []time.Duration{5 * time.Second, time.Minute, 15 * time.Minute, 2 * time.Hour, 25 * time.Hour, 72 * time.Hour, 30 * 24 * time.Hour, 900 * 24 * time.Hour} {
		for _, w := range []int{300, 390, 900, 1920} {
			b := small()
			b.Start = start.Add(17 * time.Minute)
			b.End = b.Start.Add(d)
			b.Panels = []chart.Panel{{Title: "p", Series: []chart.Series{{Name: "s", Points: []chart.Point{{b.Start, 1}, {b.End, 2}}}}}}
			out := svg(t, b, chart.Options{Width: w})
			n := strings.Count(out, `text-anchor="middle" fill="#5b6472"`) + strings.Count(out, `font-weight="700" text-anchor="middle" fill="#111827"`)
			assert.Assert(t, n <= w/55, "%d labels in %d units for %s", n, w, d)
			if d <= 72*time.Hour && w >= 900 {
				assert.Assert(t, n >= 2, "%d labels in %d units for %s", n, w, d)
			}
		}
	}
}

func near(c color.Color, hex [3]int) bool {
	r, g, b, _ := c.RGBA()
	for i, v := range []uint32{r, g, b} {
		if d := int(v>>8) - hex[i]; d < -3 || d > 3 {
			return false
		}
	}
	return true
}

// count returns how many pixels of a part have that colour.
func count(img image.Image, part image.Rectangle, hex [3]int) int {
	n := 0
	part = part.Intersect(img.Bounds())
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for x := part.Min.X; x < part.Max.X; x++ {
			if near(img.At(x, y), hex) {
				n++
			}
		}
	}
	return n
}

var (
	blue   = [3]int{0x25, 0x63, 0xeb}
	red    = [3]int{0xc8, 0x1e, 0x1e}
	amber  = [3]int{0xb4, 0x53, 0x09}
	green  = [3]int{0x15, 0x80, 0x3d}
	paper  = [3]int{0xf3, 0xf4, 0xf6}
	night  = [3]int{0x0d, 0x11, 0x17}
	shiny  = [3]int{0x60, 0xa5, 0xfa}
	middle = image.Rect(250, 200, 330, 480) // of the first panel's hole, at 1200 × 600
)

func TestPixelsShowWhatTheBoardSays(t *testing.T) {
	o := chart.Options{Width: 1200, Height: 600}
	img := pixels(t, small(), o)
	assert.DeepEqual(t, img.Bounds(), image.Rect(0, 0, 1200, 600))
	all := img.Bounds()
	assert.Assert(t, near(img.At(3, 3), paper))
	assert.Assert(t, count(img, all, blue) > 300, "no line: %d", count(img, all, blue))
	assert.Assert(t, count(img, all, red) > 200, "no limit: %d", count(img, all, red))
	assert.Assert(t, count(img, image.Rect(0, 20, 1200, 60), amber) > 20000, "no banner")
	assert.Assert(t, count(img, image.Rect(1000, 60, 1200, 130), green) > 1000, "no badge")
	assert.Equal(t, count(img, middle, blue), 0, "a line through the hole")
	joined := small()
	joined.Step = 4 * time.Hour
	assert.Assert(t, count(pixels(t, joined, o), middle, blue) > 50)

	o.Theme = chart.Dark
	img = pixels(t, small(), o)
	assert.Assert(t, near(img.At(3, 3), night))
	assert.Assert(t, count(img, all, shiny) > 300)

	img = pixels(t, small(), chart.Options{Width: 390, Scale: 2, Theme: chart.Auto})
	assert.Equal(t, img.Bounds().Dx(), 780)
	assert.Assert(t, near(img.At(3, 3), paper))
}

func TestAPhoneGetsOneColumn(t *testing.T) {
	for _, c := range []struct{ width, columns int }{{390, 1}, {900, 2}, {1920, 4}} {
		b := staging()
		b.Banner, b.Badge = "", chart.Badge{}
		out := svg(t, b, chart.Options{Width: c.width})
		xs := map[string]bool{}
		for _, line := range strings.Split(out, "\n") {
			if strings.Contains(line, `rx="8"`) {
				x, _, _ := strings.Cut(strings.TrimPrefix(line, `<rect x="`), `"`)
				xs[x] = true
			}
		}
		// Four numbers below two and three plots stand at 4 + 1 + 2 different places, less those in common.
		want := map[int]int{1: 1, 2: 2, 4: 6}[c.columns]
		assert.Equal(t, len(xs), want, "width %d: %v", c.width, xs)
	}
}

func TestWhatCannotBeDrawnTruthfullyIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*chart.Board)
		o    chart.Options
		want string
	}{
		{"no panels", func(b *chart.Board) { b.Panels = nil }, chart.Options{}, "chart: a board without panels"},
		{"many panels", func(b *chart.Board) { b.Panels = make([]chart.Panel, 65) }, chart.Options{}, "chart: 65 panels, 64 at most"},
		{"no span", func(b *chart.Board) { b.End = b.Start }, chart.Options{}, "chart: the span ends at 2026-03-02 00:00:00 and starts at 2026-03-02 00:00:00"},
		{"no step", func(b *chart.Board) { b.Step = 0 }, chart.Options{}, "chart: a step of 0s between points, which must be more than 0"},
		{"columns", func(b *chart.Board) { b.Columns = -1 }, chart.Options{}, "chart: -1 columns"},
		{"series", func(b *chart.Board) { b.Panels[0].Series = make([]chart.Series, 33) }, chart.Options{}, `chart: panel "Fill <rate> & more": 33 series, 32 at most`},
		{"range", func(b *chart.Board) { b.Panels[0].Range = [2]float64{2, 1} }, chart.Options{}, `chart: panel "Fill <rate> & more": a range from 2 to 1`},
		{"range of NaN", func(b *chart.Board) { b.Panels[0].Range[0] = math.NaN() }, chart.Options{}, `chart: panel "Fill <rate> & more": a range from NaN to 0`},
		{"limit", func(b *chart.Board) { b.Panels[0].Limits[0].Value = math.Inf(1) }, chart.Options{}, `chart: panel "Fill <rate> & more": a limit of +Inf`},
		{"out of order", func(b *chart.Board) { p := b.Panels[0].Series[0].Points; p[1].Time = p[0].Time }, chart.Options{}, `chart: panel "Fill <rate> & more": series "fill": the point at 2026-03-02 00:00:00 is not after the one before`},
		{"outside", func(b *chart.Board) { b.End = start.Add(time.Hour) }, chart.Options{}, `chart: panel "Fill <rate> & more": series "fill": a point at 2026-03-02 02:00:00, outside of the span`},
		{"too many points", func(b *chart.Board) { b.Panels[1].Series = []chart.Series{{Points: crowd(1 << 20)}} }, chart.Options{}, "chart: 1048586 points, 1048576 at most: ask for a longer step"},
		{"unit", func(b *chart.Board) { b.Panels[1].Unit = -22 }, chart.Options{}, `chart: panel "Nothing": unit -22, which there is not`},
		{"theme", nil, chart.Options{Theme: 7}, "chart: theme 7, which there is not"},
		{"narrow", nil, chart.Options{Width: 200}, "chart: width 200: from 280 to 7680"},
		{"wide", nil, chart.Options{Width: 9000}, "chart: width 9000: from 280 to 7680"},
		{"flat", nil, chart.Options{Height: 200}, "chart: 3 panels do not fit in 1920 × 200: leave the height to them"},
		{"negative", nil, chart.Options{Height: -1}, "chart: height -1"},
		{"scale", nil, chart.Options{Scale: 5}, "chart: scale 5: from 1 to 4"},
		{"pixels", nil, chart.Options{Width: 7680, Height: 7680, Scale: 4}, "chart: 7680 × 7680 at scale 4 is more than 67108864 pixels"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := small()
			if c.edit != nil {
				c.edit(b)
			}
			_, err := b.PNG(c.o)
			assert.Error(t, err, c.want)
		})
	}
}

func crowd(n int) []chart.Point {
	p := make([]chart.Point, n)
	for i := range p {
		p[i] = chart.Point{Time: start.Add(time.Duration(i) * time.Millisecond), Value: 1}
	}
	return p
}

// FuzzBoard: whatever the series are called and however they run, a picture is
// drawn or refused, and an SVG is well-formed and of finite numbers.
func FuzzBoard(f *testing.F) {
	f.Add("a title", 0.5, 1e-9, int64(time.Hour), 390, 0)
	f.Add("\x00<", -1e300, 1e300, int64(1), 280, 1)
	f.Add("", math.MaxFloat64, -math.MaxFloat64, int64(500*24*time.Hour), 1920, 5)
	f.Add("°", math.SmallestNonzeroFloat64, 0.0, int64(time.Second), 700, 4)
	f.Fuzz(func(t *testing.T, s string, a, z float64, span int64, width, unit int) {
		b := &chart.Board{Title: s, Banner: s, Subtitle: s, Caption: s, Start: start, End: start.Add(time.Duration(span)), Step: time.Minute, Badge: chart.Badge{Text: s}}
		points := []chart.Point{{start, a}, {b.End, z}}
		b.Panels = []chart.Panel{
			{Title: s, Note: s, Missing: s, Unit: chart.Unit(unit), Series: []chart.Series{{s, points}, {s, nil}}, Limits: []chart.Limit{{a, true}, {z, false}}, Stat: &chart.Stat{Value: z}},
			{Title: s, Unit: chart.Unit(unit), Number: true, Stat: &chart.Stat{Value: a}},
		}
		out, err := b.SVG(chart.Options{Width: width})
		if err != nil {
			return
		}
		for d := xml.NewDecoder(bytes.NewReader(out)); ; {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			assert.NilError(t, err)
			if e, ok := tok.(xml.StartElement); ok {
				for _, a := range e.Attr {
					assert.Assert(t, !strings.Contains(a.Value, "NaN") && !strings.Contains(a.Value, "Inf"), "%s %s=%q", e.Name.Local, a.Name.Local, a.Value)
				}
			}
		}
		if width <= 700 {
			_, err = b.PNG(chart.Options{Width: width})
			assert.NilError(t, err)
		}
	})
}

// BenchmarkDashboard draws nine panels of 72 hours with 865 points a series.
func BenchmarkDashboard(b *testing.B) {
	board := staging()
	b.Run("svg", func(b *testing.B) {
		for b.Loop() {
			svg(b, board, chart.Options{Height: 1080})
		}
	})
	b.Run("png", func(b *testing.B) {
		for b.Loop() {
			_, err := board.PNG(chart.Options{Height: 1080})
			assert.NilError(b, err)
		}
	})
}
