package chart

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Sparkline draws a series as one character a value, from the lowest to the
// highest of them and the limit: ▁ to █. A value that is not finite is a ·, and
// nothing else is.
func Sparkline(values []float64, limit float64) string {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range append([]float64{limit}, values...) {
		if finite(v) {
			low, high = math.Min(low, v), math.Max(high, v)
		}
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, v := range values {
		switch {
		case !finite(v):
			b.WriteRune('·')
		case high == low:
			b.WriteRune(bars[0])
		default:
			b.WriteRune(bars[min(len(bars)-1, int((v-low)/(high-low)*float64(len(bars))))])
		}
	}
	return b.String()
}

const mermaidPoints = 60 // more are too close to be told apart on a page

// mermaidFlat keeps a diagram as low as a line of one series needs, and draws the
// series in blue and the limit in red, which are seen on light and dark pages.
const mermaidFlat = `%%{init: {"xyChart": {"width": 720, "height": 240}, "themeVariables": {"xyChart": {"plotColorPalette": "#2563eb, #c81e1e"}}}}%%` + "\n"

// Mermaid writes the course of one series, and the limit that it is held to, as
// the text of a Mermaid diagram of type xychart-beta; axis says what its x axis
// counts from 1 on. Such a diagram has no way to show a gap, so a value that is not
// finite is an error, and so are no values and more than 60.
func Mermaid(title, axis string, u Unit, values []float64, limit float64) (string, error) {
	if len(values) == 0 || len(values) > mermaidPoints {
		return "", fmt.Errorf("chart: %d values, from 1 to %d", len(values), mermaidPoints)
	}
	if !finite(limit) {
		return "", fmt.Errorf("chart: a limit of %v", limit)
	}
	low, high := math.Min(0, limit), math.Max(0, limit)
	for i, v := range values {
		if !finite(v) {
			return "", fmt.Errorf("chart: value %d of %d is missing", i+1, len(values))
		}
		low, high = math.Min(low, v), math.Max(high, v)
	}
	s := u.scale(math.Max(math.Abs(low), high))
	// Without an exponent, which the diagram's grammar has not.
	number := func(v float64) string { return strconv.FormatFloat(tidy(v/s.by), 'f', -1, 64) }
	list := func(value func(i int) float64) string {
		var all []string
		for i := range values {
			all = append(all, number(value(i)))
		}
		return strings.Join(all, ", ")
	}
	var b strings.Builder
	b.WriteString(mermaidFlat)
	fmt.Fprintf(&b, "xychart-beta\n    title \"%s\"\n    x-axis \"%s\"\n", mermaidText(title), mermaidText(axis))
	unit := strings.TrimSpace(s.name)
	if unit == "%" {
		unit = "percent"
	}
	fmt.Fprintf(&b, "    y-axis \"%s\" %s --> %s\n", unit, number(low), number(high*1.05))
	fmt.Fprintf(&b, "    line [%s]\n", list(func(i int) float64 { return values[i] }))
	fmt.Fprintf(&b, "    line [%s]\n", list(func(int) float64 { return limit }))
	return b.String(), nil
}

// tidy keeps the digits that a reader could see.
func tidy(v float64) float64 {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 6, 64), 64) // it was just written
	return v
}

// mermaidText keeps what can end a string of a diagram, or begin a line or a
// block, out of it.
func mermaidText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || strings.ContainsRune("\"`\\<>&#;%{}[]", r) || r == 0x7f {
			return ' '
		}
		return r
	}, plain(s))
}
