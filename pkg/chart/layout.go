package chart

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// role is what something is drawn for; a theme gives it a colour.
type role int

const (
	page role = iota
	card
	border
	grid
	ink   // titles and numbers
	muted // notes and labels
	good
	bad
	unsure
	onBadge // text on a badge or the banner
	first   // the series, in their order
)

type point struct{ x, y float64 }

type anchor int

const (
	left anchor = iota
	middle
	right
)

// canvas is what a board is drawn on. Lengths are units of the picture.
type canvas interface {
	rect(x, y, w, h, radius float64, fill role, opacity float64)
	polygon(p []point, fill role, opacity float64)
	// lines strokes every line of several points.
	lines(l [][]point, stroke role, width, opacity float64)
	text(x, y float64, s string, size float64, bold bool, a anchor, fill role)
}

// metrics are the lengths that depend on whether this is for a phone.
type metrics struct {
	margin, gap, pad   float64
	title, stat, panel float64 // sizes of text
	note, label        float64
	height             float64 // of a panel, when nothing else decides it
}

var (
	wide   = metrics{margin: 28, gap: 18, pad: 20, title: 30, panel: 18, stat: 30, note: 14, label: 13, height: 320}
	narrow = metrics{margin: 12, gap: 12, pad: 14, title: 20, panel: 15, stat: 22, note: 12, label: 11, height: 236}
)

// cell is a panel and where it stands.
type cell struct {
	panel      *Panel
	x, y, w, h float64
}

// layout is a board with every place decided.
type layout struct {
	b             *Board
	m             metrics
	width, height float64
	banner        []string
	title, under  []string
	caption       []string
	badgeBelow    bool
	head, foot    float64 // heights
	cells         []cell
}

const smallest = 150 // height of a panel that can still be read

func (b *Board) layout(o Options) (*layout, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	if o.Width == 0 {
		o.Width = 1920
	}
	if o.Width < minWidth || o.Width > maxWidth {
		return nil, fmt.Errorf("chart: width %d: from %d to %d", o.Width, minWidth, maxWidth)
	}
	if o.Theme < Light || o.Theme > Auto {
		return nil, fmt.Errorf("chart: theme %d, which there is not", o.Theme)
	}
	if o.Height < 0 {
		return nil, fmt.Errorf("chart: height %d", o.Height)
	}
	asked := b.Columns
	if asked == 0 {
		asked = 2
	}
	columns := asked
	l := &layout{b: b, m: wide, width: float64(o.Width)}
	switch {
	case o.Width < 700:
		l.m, columns = narrow, 1
	case o.Width < 1200:
		columns = min(columns, 2)
	}
	m := l.m
	inner := l.width - 2*m.margin

	// The head: banner, title with badge, what and when.
	l.head = m.margin
	if b.Banner != "" {
		l.banner = wrap(b.Banner, m.note+1, true, inner-2*m.pad, 3)
		l.head += float64(len(l.banner))*(m.note+1)*1.4 + m.pad + m.gap
	}
	room := inner
	if w := l.badgeWidth(); w > 0 {
		if l.badgeBelow = w+measure(b.Title, m.title, true)+m.gap > inner; !l.badgeBelow {
			room -= w + m.gap
		}
	}
	l.title = wrap(b.Title, m.title, true, room, 2)
	l.under = wrap(l.when(), m.note+1, false, room, 3)
	l.head += float64(len(l.title))*m.title*1.2 + float64(len(l.under))*(m.note+1)*1.45 + m.gap*0.8
	if l.badgeBelow {
		l.head += m.panel + m.pad + 4
	}
	l.foot = m.margin
	if b.Caption != "" {
		l.caption = wrap(b.Caption, m.note, false, inner, 6)
		l.foot += float64(len(l.caption))*m.note*1.45 + 4
	}

	// The grid: panels fill rows from the left, numbers apart from plots; the last
	// of a row takes what is left.
	var rows [][]cell
	used := columns
	unit := (inner + m.gap) / float64(columns)
	for i := range b.Panels {
		p := &b.Panels[i]
		span := min((max(p.Span, 1)*columns+asked-1)/asked, columns)
		if used+span > columns || p.Number != b.Panels[i-1].Number {
			rows, used = append(rows, nil), 0
		}
		last := len(rows) - 1
		rows[last] = append(rows[last], cell{panel: p, x: m.margin + float64(used)*unit, w: float64(span)*unit - m.gap})
		used += span
	}
	for _, r := range rows {
		last := &r[len(r)-1]
		last.w = m.margin + inner - last.x
	}
	short := func(r []cell) bool { return r[0].panel.Number } // it needs no plot
	total, weight := 0.0, 0.0
	for _, r := range rows {
		if short(r) {
			total += m.height * 0.42
		} else {
			weight++
			total += m.height
		}
	}
	between := m.gap * float64(len(rows)-1)
	tall := m.height
	l.height = math.Ceil(l.head + total + between + l.foot)
	if o.Height > 0 {
		free := float64(o.Height) - l.head - l.foot - between - (total - weight*m.height)
		if weight > 0 {
			tall = free / weight
		}
		if free < 0 || tall < smallest {
			return nil, fmt.Errorf("chart: %d panels do not fit in %d × %d: leave the height to them", len(b.Panels), o.Width, o.Height)
		}
		l.height = float64(o.Height)
	}
	y := l.head
	for _, r := range rows {
		h := tall
		if short(r) {
			h = m.height * 0.42
		}
		for _, c := range r {
			c.y, c.h = y, h
			c.x, c.y, c.w, c.h = math.Round(c.x), math.Round(c.y), math.Round(c.w), math.Round(c.h)
			l.cells = append(l.cells, c)
		}
		y += h + m.gap
	}
	return l, nil
}

// when is the line below the title.
func (l *layout) when() string {
	if l.b.timeless() {
		return l.b.Subtitle
	}
	const minutes = "2006-01-02 15:04"
	s, e := l.b.Start.UTC(), l.b.End.UTC()
	from, to := s.Format(minutes), e.Format(minutes)
	if e.Sub(s) < 10*time.Minute {
		from, to = stamp(s), stamp(e)
	}
	if to[:10] == from[:10] {
		to = to[11:]
	}
	text := from + " to " + to + " UTC (" + lasting(e.Sub(s)) + ")"
	if l.b.Subtitle != "" {
		text = l.b.Subtitle + "  ·  " + text
	}
	return text
}

func (l *layout) badgeWidth() float64 {
	if l.b.Badge.Text == "" {
		return 0
	}
	return measure(l.b.Badge.Text, l.m.panel, true) + 2*l.m.pad
}

func colour(s Status) role {
	switch s {
	case Met:
		return good
	case Missed:
		return bad
	case Unmeasured:
		return unsure
	}
	return ink
}

func (l *layout) draw(c canvas) {
	m := l.m
	c.rect(0, 0, l.width, l.height, 0, page, 1)
	y := m.margin
	if len(l.banner) > 0 {
		line := (m.note + 1) * 1.4
		h := float64(len(l.banner))*line + m.pad
		c.rect(m.margin, y, l.width-2*m.margin, h, 6, unsure, 1)
		for i, s := range l.banner {
			c.text(l.width/2, y+m.pad/2+float64(i)*line+(m.note+1)*1.1, s, m.note+1, true, middle, onBadge)
		}
		y += h + m.gap
	}
	top := y
	for _, s := range l.title {
		y += m.title * 1.2
		c.text(m.margin, y-m.title*0.3, s, m.title, true, left, ink)
	}
	for _, s := range l.under {
		y += (m.note + 1) * 1.45
		c.text(m.margin, y-(m.note+1)*0.3, s, m.note+1, false, left, muted)
	}
	if w := l.badgeWidth(); w > 0 {
		x, by, h := l.width-m.margin-w, top+2, m.panel+m.pad
		if l.badgeBelow {
			x, by, h = m.margin, y+6, m.panel+m.pad*0.7
			w = math.Min(w, l.width-2*m.margin)
		}
		fill := colour(l.b.Badge.Status)
		if l.b.Badge.Status == Plain {
			fill = muted
		}
		c.rect(x, by, w, h, 6, fill, 1)
		c.text(x+w/2, by+h/2+m.panel*0.35, fit(l.b.Badge.Text, m.panel, true, w-m.pad), m.panel, true, middle, onBadge)
	}
	for _, cell := range l.cells {
		l.panel(c, cell)
	}
	for i, s := range l.caption {
		c.text(m.margin, l.height-m.margin-float64(len(l.caption)-1-i)*m.note*1.45, s, m.note, false, left, muted)
	}
}

// verdict is the text and status of a panel's number.
func (p *Panel) verdict() (value string, s Status) {
	if p.Stat == nil || !finite(p.Stat.Value) {
		if _, _, some := p.bounds(); some {
			return "—", Unmeasured
		}
		return "no data", Unmeasured
	}
	return p.Unit.beside(p.Stat.Value, p.Limits), p.Stat.Status
}

func (m Limit) text(u Unit) string {
	if m.AtLeast {
		return "≥ " + u.Format(m.Value)
	}
	return "≤ " + u.Format(m.Value)
}

// target says what the number is held to, and whether it holds.
func (p *Panel) target() string {
	_, s := p.verdict()
	var parts []string
	for _, m := range p.Limits {
		parts = append(parts, m.text(p.Unit))
	}
	text := ""
	if len(parts) > 0 {
		text = "target " + strings.Join(parts, ", ")
	}
	if w := s.String(); w != "" {
		if text != "" {
			text += " · "
		}
		text += w
	}
	return text
}

func (l *layout) panel(c canvas, at cell) {
	m, p := l.m, at.panel
	c.rect(at.x, at.y, at.w, at.h, 8, border, 1)
	c.rect(at.x+1, at.y+1, at.w-2, at.h-2, 7, card, 1)
	value, status := p.verdict()
	x, y, w := at.x+m.pad, at.y+m.pad, at.w-2*m.pad
	if status == Met || status == Missed || status == Unmeasured && p.Stat != nil {
		// A stripe in the verdict's colour, so that a board is read at a glance.
		c.rect(at.x+1, at.y+10, 4, at.h-20, 2, colour(status), 1)
	}
	if p.Number {
		c.text(x, y+m.panel*0.8, fit(p.Title, m.panel, true, w), m.panel, true, left, ink)
		size := m.stat * 1.35
		mid := at.y + at.h*0.6
		c.text(x, mid+size*0.2, value, size, true, left, colour(status))
		under := p.target()
		if value == "no data" && p.Missing != "" {
			under = p.Missing
		} else if p.Note != "" {
			under = strings.TrimPrefix(under+" · "+p.Note, " · ")
		}
		c.text(x, at.y+at.h-m.pad*0.8, fit(under, m.note, false, w), m.note, false, left, muted)
		return
	}
	room := w
	if p.Stat != nil {
		target := p.target()
		sw := math.Max(measure(value, m.stat, true), measure(target, m.note, false))
		c.text(x+w, y+m.stat*0.75, value, m.stat, true, right, colour(status))
		c.text(x+w, y+m.stat*0.75+m.note*1.5, target, m.note, false, right, muted)
		room -= sw + m.gap
	}
	c.text(x, y+m.panel*0.8, fit(p.Title, m.panel, true, room), m.panel, true, left, ink)
	head := m.panel * 1.3
	if p.Note != "" {
		notes := wrap(p.Note, m.note, false, room, 2)
		for i, s := range notes {
			c.text(x, y+m.panel*1.25+m.note*(0.9+1.35*float64(i)), s, m.note, false, left, muted)
		}
		head += m.note * 1.35 * float64(len(notes))
	}
	if p.Stat != nil {
		head = math.Max(head, m.stat*0.75+m.note*1.9)
	}
	head += m.pad * 0.6
	l.plot(c, p, x, math.Round(y+head), w, math.Round(at.h-2*m.pad-head))
}

// span is some time without data.
type span struct{ from, to time.Time }

// broken says whether two points are too far apart to be joined.
func (b *Board) broken(from, to time.Time) bool { return to.Sub(from) > b.Step+b.Step/2 }

// runs are the stretches of a series without a gap.
func (b *Board) runs(s Series) [][]Point {
	var all [][]Point
	var last time.Time
	for _, p := range s.Points {
		if !finite(p.Value) {
			continue
		}
		if len(all) == 0 || b.broken(last, p.Time) {
			all = append(all, nil)
		}
		all[len(all)-1] = append(all[len(all)-1], p)
		last = p.Time
	}
	return all
}

// gaps are the times that no series of the panel covers.
func (b *Board) gaps(p *Panel) []span {
	var covered []span
	for _, s := range p.Series {
		for _, r := range b.runs(s) {
			covered = append(covered, span{r[0].Time, r[len(r)-1].Time})
		}
	}
	slices.SortFunc(covered, func(a, z span) int { return a.from.Compare(z.from) })
	var all []span
	reach := b.Start
	for _, s := range append(covered, span{b.End, b.End}) {
		if b.broken(reach, s.from) {
			all = append(all, span{reach, s.from})
		}
		if s.to.After(reach) {
			reach = s.to
		}
	}
	return all
}

// bounds returns the lowest and highest value to be shown; ok says whether there
// is any point.
func (p *Panel) bounds() (low, high float64, ok bool) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, s := range p.Series {
		for _, q := range s.Points {
			if finite(q.Value) {
				low, high, ok = math.Min(low, q.Value), math.Max(high, q.Value), true
			}
		}
	}
	if !ok {
		low, high = 0, 1
	}
	for _, m := range p.Limits {
		low, high = math.Min(low, m.Value), math.Max(high, m.Value)
	}
	if p.Range != [2]float64{} {
		low, high = math.Min(low, p.Range[0]), math.Max(high, p.Range[1])
		return low, high, ok
	}
	if p.Unit == Ratio && low >= 0 && high <= 1 {
		// A share ends at 100 %, and needs no zero to be compared.
		return math.Max(0, low-(1-low)*0.15), 1, ok
	}
	if low > 0 {
		low = 0
	}
	return low, high, ok
}

func (l *layout) plot(c canvas, p *Panel, x, y, w, h float64) {
	m, b := l.m, l.b
	low, high, some := p.bounds()
	a := newAxis(p.Unit, low, high, int(math.Max(2, math.Min(5, h/46))))
	if p.Unit == Ratio && low >= 0 && high <= 1 {
		for a.low < 0 || a.high > 1+1e-9 { // rounding outwards may not leave what a share can be
			if a.low < 0 {
				a.low, a.ticks, a.labels = 0, a.ticks[1:], a.labels[1:]
			} else {
				n := len(a.ticks) - 1
				a.high, a.ticks, a.labels = 1, a.ticks[:n], a.labels[:n]
			}
		}
	}
	if !some {
		a.ticks, a.labels = nil, nil // an axis of nothing would be an invention
	}
	gutter := 0.0
	for _, s := range a.labels {
		gutter = math.Max(gutter, measure(s, m.label, false))
	}
	gutter = math.Ceil(gutter) + 8
	foot := m.label * 1.8
	var legend []string
	if len(p.Series) > 1 {
		for _, s := range p.Series {
			legend = append(legend, s.Name)
		}
		foot += m.label * 1.8
	}
	px, py, pw, ph := x+gutter, y+math.Ceil(m.label/2), w-gutter, h-math.Ceil(m.label/2)-foot
	if pw < 40 || ph < 20 {
		return
	}
	tx := func(t time.Time) float64 {
		return px + pw*float64(t.Sub(b.Start))/float64(b.End.Sub(b.Start))
	}
	vy := func(v float64) float64 { return py + ph*(1-(v-a.low)/(a.high-a.low)) }

	for i, v := range a.ticks {
		ly := math.Round(vy(v)) + 0.5
		c.lines([][]point{{{px, ly}, {px + pw, ly}}}, grid, 1, 1)
		c.text(px-8, ly+m.label*0.35, a.labels[i], m.label, false, right, muted)
	}
	l.times(c, px, py, pw, ph, tx)

	if !some {
		c.rect(px, py, pw, ph, 0, muted, 0.06)
		hatch(c, px, py, pw, ph)
		size := m.stat * 0.9
		lines := wrap(p.Missing, m.note, false, pw-2*m.pad, 2)
		cy := py + ph/2 - float64(len(lines))*m.note*0.7
		tw := measure("no data", size, true)
		for _, s := range lines {
			tw = math.Max(tw, measure(s, m.note, false))
		}
		c.rect(px+pw/2-tw/2-14, cy-size, tw+28, size*1.5+float64(len(lines))*m.note*1.45+4, 6, card, 1)
		c.text(px+pw/2, cy+size*0.2, "no data", size, true, middle, unsure)
		for i, s := range lines {
			c.text(px+pw/2, cy+size*0.35+m.note*1.45*float64(i+1), s, m.note, false, middle, muted)
		}
		return
	}

	for _, g := range b.gaps(p) {
		gx, gw := tx(g.from), tx(g.to)-tx(g.from)
		c.rect(gx, py, gw, ph, 0, muted, 0.08)
		hatch(c, gx, py, gw, ph)
	}
	for _, t := range p.Limits {
		ty := vy(t.Value)
		if t.AtLeast {
			c.rect(px, ty, pw, py+ph-ty, 0, bad, 0.07)
		} else {
			c.rect(px, py, pw, ty-py, 0, bad, 0.07)
		}
	}
	for i, s := range p.Series {
		stroke := first + role(i%series)
		var all [][]point
		for _, r := range b.runs(s) {
			line := thin(r, tx, vy)
			if len(line) == 1 {
				// A point that stands alone is a dot.
				q := line[0]
				c.rect(q.x-2, q.y-2, 4, 4, 2, stroke, 1)
				continue
			}
			if len(p.Series) == 1 && a.low == 0 { // an area is compared from zero
				area := append([]point{{line[0].x, py + ph}}, line...)
				c.polygon(append(area, point{line[len(line)-1].x, py + ph}), stroke, 0.1)
			}
			all = append(all, line)
		}
		if len(all) > 0 {
			c.lines(all, stroke, 2, 1)
		}
	}
	for _, t := range p.Limits {
		ty := math.Round(vy(t.Value)) + 0.5
		var dashes [][]point
		for d := 0.0; d < pw; d += 10 {
			dashes = append(dashes, []point{{px + d, ty}, {px + math.Min(d+6, pw), ty}})
		}
		c.lines(dashes, bad, 1.5, 1)
		s := t.text(p.Unit)
		tw := measure(s, m.label, true)
		// The label stands on the wrong side, where there should be no line.
		ly := ty - m.label*0.55
		if t.AtLeast && ty+m.label*1.7 < py+ph || ly-m.label < py {
			ly = ty + m.label*1.25
		}
		c.rect(px+pw-tw-9, ly-m.label, tw+8, m.label*1.4, 3, card, 0.85)
		c.text(px+pw-5, ly, s, m.label, true, right, bad)
	}
	for _, g := range b.gaps(p) {
		gx, gw := tx(g.from), tx(g.to)-tx(g.from)
		for _, s := range []string{"no data for " + lasting(g.to.Sub(g.from)), lasting(g.to.Sub(g.from))} {
			if tw := measure(s, m.label, true); tw+12 < gw {
				c.rect(gx+gw/2-tw/2-5, py+ph/2-m.label, tw+10, m.label*1.7, 3, card, 0.95)
				c.text(gx+gw/2, py+ph/2+m.label*0.25, s, m.label, true, middle, unsure)
				break
			}
		}
	}
	if len(legend) > 0 {
		l.legend(c, legend, x, y+h-m.label*0.3, w)
	}
}

// times draws the time axis: as many labels as stand well apart, none of them
// cut or moved.
func (l *layout) times(c canvas, px, py, pw, ph float64, tx func(time.Time) float64) {
	m, b := l.m, l.b
	label := measure("00:00", m.label, false)
	if b.End.Sub(b.Start) < 10*time.Minute {
		label = measure("00:00:00", m.label, false)
	}
	ticks, labels := timeTicks(b.Start, b.End, int(pw/(label*1.9)))
	for i, t := range ticks {
		x := math.Round(tx(t)) + 0.5
		c.lines([][]point{{{x, py}, {x, py + ph + 4}}}, grid, 1, 1)
		half := measure(labels[i], m.label, false) / 2
		if x-half < px-half-6 || x+half > px+pw+m.pad*0.7 {
			continue
		}
		date := strings.Contains(labels[i], " ")
		fill := muted
		if date {
			fill = ink
		}
		c.text(x, py+ph+m.label*1.5, labels[i], m.label, date, middle, fill)
	}
}

func (l *layout) legend(c canvas, names []string, x, y, w float64) {
	m := l.m
	share := w / float64(len(names))
	for i, n := range names {
		text := fit(n, m.label, false, math.Max(share-28, 30))
		tw := measure(text, m.label, false) + 36
		if x+tw-10 > x+w {
			return
		}
		c.rect(x, y-m.label*0.5, 14, 4, 2, first+role(i%series), 1)
		c.text(x+20, y, text, m.label, false, left, muted)
		x, w = x+tw, w-tw
	}
}

// hatch draws slanted lines within a rectangle.
func hatch(c canvas, x, y, w, h float64) {
	var all [][]point
	for d := -h + 5; d < w; d += 10 {
		// From the lower left to the upper right, cut at the sides.
		a, z := math.Max(0, d), math.Min(w, d+h)
		if a < z {
			all = append(all, []point{{x + a, y + h - (a - d)}, {x + z, y + h - (z - d)}})
		}
	}
	if len(all) > 0 {
		c.lines(all, muted, 1, 0.25)
	}
}

// thin keeps of each unit of width the first, lowest, highest and last point, so
// that a line of many points stays small and every spike stays visible.
func thin(r []Point, tx func(time.Time) float64, vy func(float64) float64) []point {
	var out []point
	for i := 0; i < len(r); {
		column := math.Floor(tx(r[i].Time))
		j, low, high := i, i, i
		for ; j < len(r) && math.Floor(tx(r[j].Time)) == column; j++ {
			if r[j].Value < r[low].Value {
				low = j
			}
			if r[j].Value > r[high].Value {
				high = j
			}
		}
		keep := []int{i, min(low, high), max(low, high), j - 1}
		for k, n := range keep {
			if k > 0 && n == keep[k-1] {
				continue
			}
			out = append(out, point{tx(r[n].Time), vy(r[n].Value)})
		}
		i = j
	}
	return out
}
