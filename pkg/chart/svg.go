package chart

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// palettes are the colours of the roles, light and dark. The series' colours
// stay apart for readers who do not see red and green.
var palettes = [2][]string{
	Light: {
		page: "#f3f4f6", card: "#ffffff", border: "#d9dde3", grid: "#e5e8ec", ink: "#111827", muted: "#5b6472",
		good: "#15803d", bad: "#c81e1e", unsure: "#b45309", onBadge: "#ffffff",
		first: "#2563eb", first + 1: "#d97706", first + 2: "#0f766e", first + 3: "#9333ea", first + 4: "#db2777", first + 5: "#4b5563",
	},
	Dark: {
		page: "#0d1117", card: "#161b22", border: "#30363d", grid: "#262c36", ink: "#f0f3f6", muted: "#9aa4b2",
		good: "#4ade80", bad: "#f87171", unsure: "#fbbf24", onBadge: "#0d1117",
		first: "#60a5fa", first + 1: "#fbbf24", first + 2: "#2dd4bf", first + 3: "#c084fc", first + 4: "#f472b6", first + 5: "#cbd5e1",
	},
}

// series is how many lines have a colour of their own.
const series = 6

// family is Go, whose measures the layout uses, and what is about as wide.
const family = `Go, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif`

// svg is a canvas that writes SVG. Colours are attributes, so that a page whose
// policy forbids styles still shows the light theme.
type svg struct {
	buf   bytes.Buffer
	theme Theme
}

func newSVG(w, h float64, t Theme, b *Board) *svg {
	c := &svg{theme: t}
	fmt.Fprintf(&c.buf, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %s %s" width="%s" height="%s" role="img" font-family="%s">`+"\n",
		num(w), num(h), num(w), num(h), escape(family))
	fmt.Fprintf(&c.buf, "<title>%s</title>\n<desc>%s</desc>\n", escape(b.Title), b.words())
	if t == Auto {
		c.buf.WriteString("<style>@media (prefers-color-scheme: dark) {")
		for r, hex := range palettes[Dark] {
			fmt.Fprintf(&c.buf, " .chart-f%d { fill: %s } .chart-s%d { stroke: %s }", r, hex, r, hex)
		}
		c.buf.WriteString(" }</style>\n")
	}
	return c
}

// words is the board for those who do not see it, escaped.
func (b *Board) words() string {
	var out []string
	if b.Banner != "" {
		out = append(out, b.Banner)
	}
	if b.Badge.Text != "" {
		out = append(out, b.Badge.Text)
	}
	for i := range b.Panels {
		p := &b.Panels[i]
		value, _ := p.verdict()
		if _, _, some := p.bounds(); p.Stat == nil && some {
			value = "plotted"
		}
		text := p.Title + ": " + value
		if t := p.target(); t != "" && (p.Stat != nil || len(p.Limits) > 0) {
			text += " (" + t + ")"
		}
		out = append(out, text)
	}
	for i := range out {
		out[i] = escape(out[i])
	}
	return strings.Join(out, "; ")
}

// num writes a length with one decimal: enough for a picture, and the same on
// every machine.
func num(v float64) string {
	r := math.Round(v*10) / 10
	return strconv.FormatFloat(r+0, 'f', -1, 64)
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(plain(s))) // a strings.Builder takes everything
	return b.String()
}

func (c *svg) paint(attr string, r role, opacity float64) string {
	s := fmt.Sprintf(` %s="%s"`, attr, palettes[c.theme%2][r])
	if c.theme == Auto {
		s += fmt.Sprintf(` class="chart-%c%d"`, attr[0], r)
	}
	if opacity < 1 {
		s += fmt.Sprintf(` %s-opacity="%s"`, attr, strconv.FormatFloat(opacity, 'f', -1, 64))
	}
	return s
}

func (c *svg) rect(x, y, w, h, radius float64, fill role, opacity float64) {
	fmt.Fprintf(&c.buf, `<rect x="%s" y="%s" width="%s" height="%s"`, num(x), num(y), num(math.Max(w, 0)), num(math.Max(h, 0)))
	if radius > 0 {
		fmt.Fprintf(&c.buf, ` rx="%s"`, num(radius))
	}
	c.buf.WriteString(c.paint("fill", fill, opacity) + "/>\n")
}

func (c *svg) path(lines [][]point, end string) {
	for _, l := range lines {
		for i, p := range l {
			op := byte('L')
			if i == 0 {
				op = 'M'
			}
			c.buf.WriteByte(op)
			c.buf.WriteString(num(p.x) + " " + num(p.y))
		}
		c.buf.WriteString(end)
	}
}

func (c *svg) polygon(p []point, fill role, opacity float64) {
	c.buf.WriteString(`<path d="`)
	c.path([][]point{p}, "Z")
	c.buf.WriteString(`"` + c.paint("fill", fill, opacity) + "/>\n")
}

func (c *svg) lines(l [][]point, stroke role, width, opacity float64) {
	c.buf.WriteString(`<path d="`)
	c.path(l, "")
	fmt.Fprintf(&c.buf, `" fill="none"%s stroke-width="%s" stroke-linejoin="bevel"/>`+"\n", c.paint("stroke", stroke, opacity), num(width))
}

func (c *svg) text(x, y float64, s string, size float64, bold bool, a anchor, fill role) {
	if s == "" {
		return
	}
	fmt.Fprintf(&c.buf, `<text x="%s" y="%s" font-size="%s"`, num(x), num(y), num(size))
	if bold {
		c.buf.WriteString(` font-weight="700"`)
	}
	switch a {
	case middle:
		c.buf.WriteString(` text-anchor="middle"`)
	case right:
		c.buf.WriteString(` text-anchor="end"`)
	}
	c.buf.WriteString(c.paint("fill", fill, 1) + ">" + escape(s) + "</text>\n")
}

func (c *svg) bytes() []byte {
	c.buf.WriteString("</svg>\n")
	return c.buf.Bytes()
}
