package chart

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Unit is what a panel's values are measured in.
type Unit int

// The units.
const (
	Count        Unit = iota
	Ratio             // 1 is 100 %
	Seconds           // shown as µs, ms, s, min or h
	Milliseconds      // likewise
	PerSecond         // events a second
	Bytes             // shown in powers of 1024
)

// scale is a way to write a unit: values are divided by by, and name follows.
type scale struct {
	by   float64
	name string
}

var scales = map[Unit][]scale{
	Count:        {{1, ""}, {1e6, " M"}, {1e9, " G"}},
	Ratio:        {{0.01, " %"}},
	Seconds:      {{1e-6, " µs"}, {1e-3, " ms"}, {1, " s"}, {60, " min"}, {3600, " h"}},
	Milliseconds: {{1e-3, " µs"}, {1, " ms"}, {1e3, " s"}, {60e3, " min"}, {3600e3, " h"}},
	PerSecond:    {{1, " /s"}, {1e3, " k/s"}, {1e6, " M/s"}, {1e9, " G/s"}},
	Bytes:        {{1, " B"}, {1 << 10, " KiB"}, {1 << 20, " MiB"}, {1 << 30, " GiB"}, {1 << 40, " TiB"}},
}

// scale chooses how a value of this size is written. A rate below 10,000, and a
// time below two minutes, is better known as it is.
func (u Unit) scale(size float64) scale {
	all := scales[u]
	best := all[0]
	for _, s := range all[1:] {
		least := s.by
		switch {
		case u == PerSecond:
			least = 10 * s.by
		case s.name == " min" || s.name == " h":
			least = 2 * s.by
		}
		if size >= least*(1-1e-9) {
			best = s
		}
	}
	return best
}

// Format writes a value with its unit and at most four digits that matter:
// "97.01 %", "312 ms", "1.25 s". A value that is not finite is "no data".
func (u Unit) Format(v float64) string { return u.format(v, 4) }

func (u Unit) format(v float64, digits int) string {
	if !finite(v) {
		return "no data"
	}
	if v == 0 {
		if u == Seconds {
			return "0 s"
		}
		if u == Milliseconds {
			return "0 ms"
		}
	}
	s := u.scale(math.Abs(v))
	x := v / s.by
	whole := 1
	if a := math.Abs(x); a >= 1 {
		whole = int(math.Floor(math.Log10(a))) + 1
	}
	return group(trim(x, max(digits-whole, 0))) + s.name
}

// beside writes v so that it does not read like any of the others, unless it
// equals them: 0.94998 beside 0.95 is "94.998 %".
func (u Unit) beside(v float64, others []Limit) string {
	for digits := 4; ; digits++ {
		text := u.format(v, digits)
		clear := true
		for _, o := range others {
			if v != o.Value && text == u.format(o.Value, digits) {
				clear = false
			}
		}
		if clear || digits >= 15 {
			return text
		}
	}
}

// trim writes x with that many decimals at most, without zeros at the end.
func trim(x float64, decimals int) string {
	s := strconv.FormatFloat(x, 'f', decimals, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if s == "-0" {
		return "0"
	}
	return s
}

// group parts thousands: 12,345.6.
func group(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	whole, rest, dot := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if dot {
		whole += "." + rest
	}
	return sign + whole
}

// axis is the y axis: its ends, and the lines between.
type axis struct {
	low, high float64
	ticks     []float64
	labels    []string
}

// newAxis covers low to high with about n lines at round values.
func newAxis(u Unit, low, high float64, n int) axis {
	size := math.Max(math.Abs(low), math.Abs(high))
	if high-low < math.Max(size*1e-9, 1e-12) {
		// A flat line stands in the middle, not on the floor.
		d := size / 2
		if d < 1e-9 {
			d = 1
		}
		low, high, size = low-d, high+d, size+d
	}
	s := u.scale(size)
	a := s.axis(u, low, high, n)
	if up := u.scale(a.high); up.by > s.by {
		a = up.axis(u, low, high, n) // 1.0 s, not 1,000 ms
	}
	return a
}

func (s scale) axis(u Unit, low, high float64, n int) axis {
	step := round((high-low)/s.by/float64(max(n, 1)), u == Bytes)
	first, last := math.Floor(low/s.by/step+1e-6), math.Ceil(high/s.by/step-1e-6)
	decimals := 0
	if step < 1 {
		decimals = int(math.Ceil(-math.Log10(step) - 1e-9))
	}
	a := axis{low: first * step * s.by, high: last * step * s.by}
	for i := first; i <= last; i++ {
		a.ticks = append(a.ticks, i*step*s.by)
		a.labels = append(a.labels, group(strconv.FormatFloat(i*step+0, 'f', decimals, 64))+s.name)
	}
	return a
}

// round returns the next 1, 2 or 5 times a power of ten (of two for bytes) that
// is not below x.
func round(x float64, binary bool) float64 {
	if x <= 0 {
		return 1
	}
	if binary && x >= 1 {
		return math.Pow(2, math.Ceil(math.Log2(x)))
	}
	p := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 5} {
		if x <= m*p*(1+1e-9) {
			return m * p
		}
	}
	return 10 * p
}

// timeSteps are the distances of time labels that read well.
var timeSteps = []time.Duration{
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, day, 2 * day, 7 * day, 14 * day, 28 * day, 91 * day, 364 * day,
}

const day = 24 * time.Hour

// timeTicks returns the times from start to end that get a label, at most n, and
// whether the label is a date. A day begins with its date.
func timeTicks(start, end time.Time, n int) (ticks []time.Time, labels []string) {
	start, end = start.UTC(), end.UTC()
	step := timeSteps[len(timeSteps)-1]
	for _, s := range timeSteps {
		if end.Sub(start)/s <= time.Duration(max(n-1, 0)) {
			step = s
			break
		}
	}
	for end.Sub(start)/step > time.Duration(max(n-1, 1)) {
		step *= 2
	}
	for t := start.Truncate(step); !t.After(end); t = t.Add(step) {
		if t.Before(start) {
			continue
		}
		label := t.Format("15:04")
		switch {
		case t.Equal(t.Truncate(day)):
			label = t.Format("2 Jan")
		case step < time.Minute:
			label = t.Format("15:04:05")
		}
		ticks, labels = append(ticks, t), append(labels, label)
	}
	return ticks, labels
}

// lasting writes a length of time in its two largest parts: 3d, 6h 30m.
func lasting(d time.Duration) string {
	parts := []struct {
		of   time.Duration
		name string
	}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}}
	d = d.Round(time.Second)
	for i, p := range parts {
		if d < p.of && i < len(parts)-1 {
			continue
		}
		// Three days are 72h: windows are named in hours.
		if p.of == day && d < 8*day && d%day == 0 {
			return strconv.Itoa(int(d/time.Hour)) + "h"
		}
		text := strconv.Itoa(int(d/p.of)) + p.name
		if i+1 < len(parts) {
			if rest := d % p.of / parts[i+1].of; rest > 0 {
				text += " " + strconv.Itoa(int(rest)) + parts[i+1].name
			}
		}
		return text
	}
	return "0s"
}
