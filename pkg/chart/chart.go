// Package chart draws boards of time series as SVG and PNG.
//
// A [Board] is a title, a span of time and a grid of [Panel]s; a panel is some
// series over that span, the limits they are held to, and one number with its
// verdict. The package knows nothing of where the numbers come from.
//
// The idea is that a picture must not flatter:
//
//   - Points further apart than one and a half steps are not joined. The time
//     that no series covers, at the edges too, is hatched and says for how long.
//   - A panel without points says "no data", never zero. A value that is not a
//     finite number, or is beyond 1e15, is a missing value.
//   - The y axis holds every point and every limit; nothing is cut off. Where
//     there are more points than pixels, the lowest and the highest of each
//     pixel stay.
//   - A number next to its limit has as many digits as it takes to see on which
//     side it is. Verdicts are words as well as colours.
//   - What is not real measurement is named in [Board.Banner], across the top.
//
// All times are UTC. The same board and [Options] give the same bytes. SVG has a
// viewBox and no scripts, ids or references, so it can stand inline in a page or
// in an img; with [Auto] it follows the reader's light or dark setting. The
// number of columns follows from the width: a picture of 390 units, for a phone,
// has one.
//
// Where no picture can stand, in a summary of text, [Sparkline] and [Mermaid] show
// the course of one series.
//
// A board without panels, with a span of no length, with points out of order or
// outside of the span is refused.
package chart

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Point is a value at a time. A value that is not finite is missing.
type Point struct {
	Time  time.Time
	Value float64 // in the panel's unit
}

// Series is one line. Its points are in order of time, no two at the same time.
type Series struct {
	Name   string
	Points []Point
}

// Limit is a value that the series is held to: drawn as a dashed line, with the
// wrong side of it tinted.
type Limit struct {
	Value   float64 // in the panel's unit
	AtLeast bool    // good is at or above it; else at or below
}

// Status is the verdict on a number.
type Status int

// The verdicts.
const (
	Plain      Status = iota // nothing is claimed of it
	Met                      // judged, and within its limit
	Missed                   // judged, and beyond its limit
	Unmeasured               // could not be judged
)

func (s Status) String() string {
	switch s {
	case Met:
		return "met"
	case Missed:
		return "missed"
	case Unmeasured:
		return "not judged"
	}
	return ""
}

// Stat is the one number of a panel. A value that is not finite is drawn as "no
// data", or as a dash where there are points, and counts as Unmeasured whatever
// its status says.
type Stat struct {
	Value  float64 // in the panel's unit
	Status Status
}

// Panel is one cell of a board.
type Panel struct {
	Title  string
	Note   string // one line below the title; empty: none
	Unit   Unit
	Series []Series
	Limits []Limit
	// Range is what the y axis covers at least, from low to high; the zero value
	// leaves it to the points and limits.
	Range [2]float64
	Stat  *Stat // nil: none
	// Number shows the stat alone, large, in place of a plot.
	Number bool
	// Missing says why there are no data, where there are none; empty: not said.
	Missing string
	// Span is how many columns the panel takes; 0 is 1.
	Span int
}

// Badge is the verdict on the whole board.
type Badge struct {
	Text   string
	Status Status
}

// Board is a grid of panels over one span of time.
type Board struct {
	Title    string
	Subtitle string // what was measured; the span of time is added
	Badge    Badge  // at the top right; without text there is none
	// Banner warns, across the whole width: simulated data. Empty: none.
	Banner     string
	Caption    string    // at the foot: who drew this, from what; empty: none
	Start, End time.Time // both zero: a board of numbers alone, which are of no span
	// Step is the time between points. What lies further apart is a gap.
	Step    time.Duration
	Columns int // on a wide picture; 0 is 2
	Panels  []Panel
}

// Theme is the set of colours.
type Theme int

// The themes.
const (
	Light Theme = iota
	Dark
	Auto // SVG: as the reader's device prefers; PNG: light
)

// Options is how large a board is drawn, and in which colours. The zero value is
// light, 1920 units wide, as high as it takes.
type Options struct {
	Width  int // units; 0 is 1920; from 280 to 7680
	Height int // units; 0 is what the panels take; refused when they do not fit
	Theme  Theme
	Scale  int // PNG: pixels a unit, from 1 to 4; 0 is 1
}

// Limits of what is drawn, so that a hostile answer cannot ask for a picture
// that fills the memory.
const (
	minWidth  = 280
	maxWidth  = 7680
	maxPixels = 64 << 20
	maxPanels = 64
	maxSeries = 32      // of a panel
	maxPoints = 1 << 20 // of a board
)

// SVG draws the board as one SVG document.
func (b *Board) SVG(o Options) ([]byte, error) {
	l, err := b.layout(o)
	if err != nil {
		return nil, err
	}
	c := newSVG(l.width, l.height, o.Theme, b)
	l.draw(c)
	return c.bytes(), nil
}

// PNG draws the board as one PNG image of Width × Height × Scale pixels.
func (b *Board) PNG(o Options) ([]byte, error) {
	if o.Scale == 0 {
		o.Scale = 1
	}
	if o.Scale < 1 || o.Scale > 4 {
		return nil, fmt.Errorf("chart: scale %d: from 1 to 4", o.Scale)
	}
	l, err := b.layout(o)
	if err != nil {
		return nil, err
	}
	if l.width*l.height*float64(o.Scale*o.Scale) > maxPixels {
		return nil, fmt.Errorf("chart: %.0f × %.0f at scale %d is more than %d pixels", l.width, l.height, o.Scale, maxPixels)
	}
	c := newRaster(l.width, l.height, o.Theme, float64(o.Scale))
	l.draw(c)
	return c.bytes()
}

// Missing names the panels that show no data, or not all that they should, with
// the reason where there is one.
func (b *Board) Missing() []string {
	var all []string
	for i := range b.Panels {
		p := &b.Panels[i]
		_, _, some := p.bounds()
		if p.Number {
			some = p.Stat != nil && finite(p.Stat.Value)
		}
		switch {
		case p.Missing != "":
			all = append(all, p.Title+": "+p.Missing)
		case !some:
			all = append(all, p.Title+": no data")
		}
	}
	return all
}

// timeless says whether the board is of numbers alone.
func (b *Board) timeless() bool {
	plots := slices.ContainsFunc(b.Panels, func(p Panel) bool { return !p.Number || len(p.Series) > 0 })
	return b.Start.IsZero() && b.End.IsZero() && !plots
}

// check refuses what cannot be drawn truthfully.
func (b *Board) check() error {
	switch {
	case len(b.Panels) == 0:
		return errors.New("chart: a board without panels")
	case len(b.Panels) > maxPanels:
		return fmt.Errorf("chart: %d panels, %d at most", len(b.Panels), maxPanels)
	case b.timeless():
	case !b.End.After(b.Start):
		return fmt.Errorf("chart: the span ends at %s and starts at %s", stamp(b.End), stamp(b.Start))
	case b.Step <= 0:
		return fmt.Errorf("chart: a step of %s between points, which must be more than 0", b.Step)
	}
	if b.Columns < 0 {
		return fmt.Errorf("chart: %d columns", b.Columns)
	}
	points := 0
	for _, p := range b.Panels {
		if _, ok := scales[p.Unit]; !ok {
			return fmt.Errorf("chart: panel %q: unit %d, which there is not", p.Title, p.Unit)
		}
		if len(p.Series) > maxSeries {
			return fmt.Errorf("chart: panel %q: %d series, %d at most", p.Title, len(p.Series), maxSeries)
		}
		if !finite(p.Range[0]) || !finite(p.Range[1]) || p.Range[0] > p.Range[1] {
			return fmt.Errorf("chart: panel %q: a range from %v to %v", p.Title, p.Range[0], p.Range[1])
		}
		for _, m := range p.Limits {
			if !finite(m.Value) {
				return fmt.Errorf("chart: panel %q: a limit of %v", p.Title, m.Value)
			}
		}
		for _, s := range p.Series {
			points += len(s.Points)
			for i, q := range s.Points {
				if q.Time.Before(b.Start) || q.Time.After(b.End) {
					return fmt.Errorf("chart: panel %q: series %q: a point at %s, outside of the span", p.Title, s.Name, stamp(q.Time))
				}
				if i > 0 && !q.Time.After(s.Points[i-1].Time) {
					return fmt.Errorf("chart: panel %q: series %q: the point at %s is not after the one before", p.Title, s.Name, stamp(q.Time))
				}
			}
		}
	}
	if points > maxPoints {
		return fmt.Errorf("chart: %d points, %d at most: ask for a longer step", points, maxPoints)
	}
	return nil
}

// finite says whether a value can be drawn. What is beyond 1e15 is no measurement.
func finite(v float64) bool { return math.Abs(v) <= 1e15 }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }
