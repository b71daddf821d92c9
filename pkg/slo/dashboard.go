package slo

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/chart"
)

// panel is one cell of the dashboard, of Grafana's and of our own picture.
type panel struct {
	title, note string
	number      bool // one value for the window, else a line over it
	words       bool // the value is a label: which revision ran
	kpi         string
	unit        chart.Unit
	targets     []target
	limits      []chart.Limit
	floor, top  float64 // what the axis covers at least
	width       int     // of 24
	step        time.Duration
}

type target struct{ legend, expr string }

// drawStep is the time between the points of a line: 864 of them, which is every
// five minutes of three days, or what the scrapes allow.
func (s *Spec) drawStep(window time.Duration) time.Duration {
	return max(4*s.interval, (window / 864).Truncate(time.Second))
}

func (o Objective) unit() chart.Unit {
	switch o.Unit {
	case "ms":
		return chart.Milliseconds
	case "s":
		return chart.Seconds
	}
	return chart.Ratio
}

func (o Objective) limit() []chart.Limit {
	return []chart.Limit{{Value: o.Threshold, AtLeast: o.Op == "gte"}}
}

// panels are the dashboard over a window. extra is one more label matcher for
// every selector, or empty.
func (s *Spec) panels(window time.Duration, extra string) []panel {
	w, step := promDuration(window), s.drawStep(window)
	var values, lines []panel
	burn := panel{
		title: "Error budget: burn rate", note: "1 spends the budget in exactly the window", unit: chart.Count, step: step, width: 8,
	}
	events := panel{title: "Events", note: "that the objectives are judged by", unit: chart.PerSecond, step: step, width: 8}
	var resets []string
	recent := max(window/72, 4*s.interval).Truncate(time.Second)
	for _, o := range s.objectives {
		slice := step
		if o.Kind == Slices {
			slice = o.Slice
		}
		values = append(values, panel{
			title: o.Key, note: "over " + w, number: true, kpi: o.Key, unit: o.unit(), limits: o.limit(), width: 24 / min(len(s.objectives), 6),
			targets: []target{{"{{instance}}", o.valueOf(w, promDuration(slice), extra)}},
		})
		line := panel{
			title: o.Key, note: o.Description, kpi: o.Key, unit: o.unit(), limits: o.limit(), width: 12, step: step,
			targets: []target{{"{{instance}}", o.shareOf(promDuration(slice), extra)}},
		}
		if o.Kind == Latency {
			line.targets[0].expr = o.valueOf(promDuration(slice), "", extra)
		}
		lines = append(lines, line)

		bad := "1 - " + oneLine(o.shareOf(promDuration(recent), extra))
		if o.Kind == Slices {
			bad = "1 - avg_over_time((" + oneLine(o.shareOf(promDuration(slice), extra)) + " >= bool " + number(o.Threshold) + ")[" + promDuration(max(recent, 6*slice)) + ":" + promDuration(slice) + "])"
		}
		burn.targets = append(burn.targets, target{o.Name, "(" + bad + ") / " + number(tidy(1-o.Target))})
		events.targets = append(events.targets, target{o.Name, "sum(rate(" + with(o.Total, extra) + "[" + promDuration(slice) + "]))"})
		resets = append(resets, "max(resets("+with(o.Total, extra)+"["+w+"]))")
	}
	if pairs := burns(window, s.interval); len(pairs) > 0 {
		burn.limits = []chart.Limit{{Value: pairs[0].factor}}
	}
	up := panel{title: "Targets", note: "1 is up", unit: chart.Count, top: 1, step: step, width: 8}
	// One number a target: of two in one expression, the one that is missing would
	// be left out.
	var health []panel
	for _, t := range s.targets {
		up.targets = append(up.targets, target{"{{job}} at {{instance}}", with(t, extra)})
		health = append(health, panel{
			title: "Window covered", note: t, number: true, unit: chart.Ratio, limits: []chart.Limit{{Value: s.minCoverage, AtLeast: true}},
			targets: []target{{"{{instance}}", "clamp_max(sum_over_time(" + with(t, extra) + "[" + w + "]) / " + number(float64(window)/float64(s.interval)) + ", 1)"}},
		})
	}
	health = append(
		health,
		panel{
			title: "Counter resets", note: "over " + w, number: true, unit: chart.Count, limits: s.resetLimit(),
			// Sums of what must all be there: without one of them there is no answer.
			targets: []target{{"resets", strings.Join(resets, " + ")}},
		},
		panel{title: "Revision", number: true, words: true, targets: []target{{"{{git_sha}}", "max by (git_sha) (max_over_time(" + with(s.revision, extra) + "[" + w + "]))"}}},
	)
	for i := range health {
		health[i].width = 24 / min(len(health), 6)
	}
	all := append(values, lines...)
	all = append(all, burn, events, up)
	return append(all, health...)
}

func (s *Spec) resetLimit() []chart.Limit {
	if s.maxResets > 0 {
		return nil // it is for each objective, and this is their sum
	}
	return []chart.Limit{{Value: 0}}
}

var grafanaUnits = map[chart.Unit]string{
	chart.Count: "short", chart.Ratio: "percentunit", chart.Seconds: "s", chart.Milliseconds: "ms", chart.PerSecond: "ops", chart.Bytes: "bytes",
}

type object = map[string]any

// Dashboard returns the dashboard as Grafana imports or provisions it. Its uid
// is fixed, its datasource a variable, its limits those of the spec.
func (s *Spec) Dashboard() ([]byte, error) {
	source := object{"type": "prometheus", "uid": "${datasource}"}
	var out []object
	x, y, height := 0, 0, 0
	for i, p := range s.panels(s.window, `instance=~"$instance"`) {
		h := 9
		if p.number {
			h = 5
		}
		if x+p.width > 24 || h != height && x > 0 {
			x, y = 0, y+height
		}
		height = h
		var targets []object
		for k, t := range p.targets {
			targets = append(targets, object{
				"refId": refID(k), "datasource": source, "editorMode": "code", "expr": t.expr,
				"legendFormat": t.legend, "instant": p.number, "range": !p.number,
			})
		}
		defaults := object{
			"unit": grafanaUnits[p.unit], "noValue": "no data", "mappings": []any{},
			"color": object{"mode": "palette-classic"}, "thresholds": thresholds(p),
		}
		g := object{
			"id": i + 1, "title": p.title, "description": p.note, "datasource": source, "targets": targets,
			"gridPos": object{"x": x, "y": y, "w": p.width, "h": h},
		}
		if p.number {
			defaults["color"] = object{"mode": "thresholds"}
			g["type"] = "stat"
			mode := "value"
			if p.words {
				mode = "name"
			}
			g["options"] = object{
				"colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto", "textMode": mode,
				"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
			}
		} else {
			style := "off"
			if len(p.limits) > 0 {
				style = "dashed+area"
			}
			// What is further apart than a step and a half is not joined.
			defaults["custom"] = object{
				"drawStyle": "line", "lineWidth": 2, "fillOpacity": 0, "showPoints": "auto", "spanNulls": false,
				"insertNulls": int((p.step + p.step/2).Milliseconds()), "thresholdsStyle": object{"mode": style},
			}
			if p.top > p.floor {
				defaults["min"], defaults["max"] = p.floor, p.top
			}
			g["type"] = "timeseries"
			g["interval"] = promDuration(p.step)
			g["options"] = object{
				"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}},
				"tooltip": object{"mode": "multi", "sort": "none"},
			}
		}
		g["fieldConfig"] = object{"defaults": defaults, "overrides": []any{}}
		out = append(out, g)
		x += p.width
	}
	return indented(object{
		"uid": s.uid(), "title": "SLO: " + s.treaty, "schemaVersion": 39, "version": 1,
		"description": "Generated from " + s.name + " (SHA-256 " + s.sum + "). Edits are lost: change that file, and generate this one again.",
		"tags":        []string{"remembrancer", "slo"}, "timezone": "utc", "editable": true, "graphTooltip": 1, "refresh": "1m",
		"time":        object{"from": "now-" + promDuration(s.window), "to": "now"},
		"annotations": object{"list": []any{}}, "links": []any{}, "panels": out,
		"templating": object{"list": []object{
			{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": object{}, "hide": 0, "includeAll": false, "multi": false, "options": []any{}, "refresh": 1, "regex": ""},
			{
				"name": "instance", "label": "Instance", "type": "query", "datasource": source, "definition": "label_values(up, instance)",
				"query": object{"query": "label_values(up, instance)", "refId": "instance"}, "current": object{"text": []string{"All"}, "value": []string{"$__all"}},
				"hide": 0, "includeAll": true, "allValue": ".*", "multi": true, "options": []any{}, "refresh": 2, "regex": "", "sort": 1,
			},
		}},
	})
}

// uid is what Grafana calls the dashboard: it takes 40 characters.
func (s *Spec) uid() string {
	uid := "slo-" + s.service
	return uid[:min(len(uid), 40)]
}

func refID(i int) string {
	if i < 26 {
		return string(rune('A' + i))
	}
	return "T" + strconv.Itoa(i)
}

func thresholds(p panel) object {
	limits := p.limits
	steps := []object{{"color": "text", "value": nil}}
	if len(limits) > 0 {
		below, above := "green", "red"
		if limits[0].AtLeast {
			below, above = above, below
		}
		at := limits[0].Value
		if !limits[0].AtLeast && p.number && p.unit == chart.Count {
			at += 0.5 // Grafana's colour begins at its limit: a count that may be 0 is not red at 0
		}
		steps = []object{{"color": below, "value": nil}, {"color": above, "value": at}}
	}
	return object{"mode": "absolute", "steps": steps}
}

// drawn says whether our own picture has the panel: a verdict's number stands
// beside its line there, and the revision in the subtitle.
func (p panel) drawn() bool { return !p.words && (!p.number || p.kpi == "") }

// PanelQueries are what the picture of a window that ends at end is drawn from.
func (s *Spec) PanelQueries(window time.Duration, end time.Time) []Query {
	var all []Query
	for i, p := range s.panels(window, "") {
		if !p.drawn() {
			continue
		}
		for k, t := range p.targets {
			q := Query{Name: panelName(i, k), Path: "api/v1/query", Form: form("query", t.expr, "time", unix(end))}
			if !p.number {
				n := int(window / p.step)
				q.Path = "api/v1/query_range"
				q.Form = form("query", t.expr, "start", unix(end.Add(-time.Duration(n)*p.step)), "end", unix(end), "step", strconv.Itoa(int(p.step/time.Second)))
			}
			all = append(all, q)
		}
	}
	return all
}

func panelName(panel, target int) string { return fmt.Sprintf("panel/%d/%d", panel, target) }

// View is what a picture shows beside the panels' data.
type View struct {
	Window   time.Duration // whole seconds
	End      time.Time
	Report   *Report  // whose verdicts and values are shown; nil: none, and nothing counts as judged
	Refusal  *Refusal // in place of a report
	Source   string   // of the data, where there is neither; empty: [FromPrometheus]
	Subtitle string   // where it was measured
	Caption  string   // who drew it, from what
}

// Board draws the dashboard from the answers to [Spec.PanelQueries] of the same
// window and end; an answer to another query counts as none. A panel whose answer
// is missing, empty, refused or not to be read says so, and why; that is no error.
// Objectives have a verdict only where the report gives them one; how much of the
// window is covered is held to the spec. What was not measured of a service is
// named across the top.
func (s *Spec) Board(v View, answers []Response) *chart.Board {
	b := &chart.Board{
		Title: s.treaty + ": service level objectives", Subtitle: v.Subtitle, Caption: v.Caption,
		Start: v.End.Add(-v.Window), End: v.End, Step: s.drawStep(v.Window), Columns: 24,
	}
	kpis := map[string]KPI{}
	source := v.Source
	switch {
	case v.Refusal != nil:
		source = v.Refusal.DataSource
		b.Badge = chart.Badge{Text: "REFUSED", Status: chart.Unmeasured}
		if len(v.Refusal.Reasons) > 0 {
			b.Banner = "Refused: " + v.Refusal.Reasons[0].Detail
		}
	case v.Report != nil:
		source = v.Report.DataSource
		met := 0
		for _, k := range v.Report.KPIs {
			kpis[k.Key] = k
			if k.Compliant {
				met++
			}
		}
		b.Badge = chart.Badge{Text: fmt.Sprintf("%s · %d of %d met", v.Report.Verdict, met, len(v.Report.KPIs)), Status: chart.Missed}
		if v.Report.Verdict == "PASS" {
			b.Badge.Status = chart.Met
		}
	}
	b.Banner = strings.TrimPrefix(b.Banner+" · "+banners[source], " · ")
	b.Banner = strings.TrimSuffix(b.Banner, " · ")
	byQuery := map[Query]Response{}
	for _, r := range answers {
		byQuery[r.Query] = r
	}
	asked := map[string]Response{}
	for _, q := range s.PanelQueries(v.Window, v.End) {
		if r, ok := byQuery[q]; ok {
			asked[q.Name] = r
		}
	}
	for i, p := range s.panels(v.Window, "") {
		if !p.drawn() {
			continue
		}
		c := chart.Panel{Title: p.title, Note: p.note, Unit: p.unit, Limits: p.limits, Number: p.number, Span: p.width, Range: [2]float64{p.floor, p.top}}
		for k, t := range p.targets {
			list, err := samples(b.Start, b.End, asked, panelName(i, k))
			if err == nil && len(list) == 0 {
				err = errors.New("no series")
			}
			if err != nil {
				c.Missing = err.Error()
				if p.number {
					c.Stat = &chart.Stat{Value: math.NaN()}
				}
				continue
			}
			if p.number {
				c.Stat = worst(list, p.limits)
				continue
			}
			for _, line := range list {
				c.Series = append(c.Series, chart.Series{Name: legend(t.legend, line.labels), Points: line.points})
			}
		}
		if k, ok := kpis[p.kpi]; ok && !p.number {
			c.Stat = &chart.Stat{Value: k.Value, Status: chart.Missed}
			if k.Compliant {
				c.Stat.Status = chart.Met
			}
		} else if p.kpi != "" && v.Refusal != nil {
			c.Stat = &chart.Stat{Value: math.NaN()}
		}
		b.Panels = append(b.Panels, c)
	}
	return b
}

var banners = map[string]string{
	FromSimulator: "Not measured: the data come from a simulator",
	FromBackfill:  "Synthetic: the data were written into a database after the fact, no service was measured",
}

// Card draws a report as its numbers alone: what is left to see of a simulator's,
// which has no course in time.
func Card(r *Report, caption string) *chart.Board {
	met := 0
	b := &chart.Board{
		Title: r.Treaty + ": service level objectives", Subtitle: "window: " + r.Window, Caption: caption,
		Banner: banners[r.DataSource], Columns: 2,
	}
	for _, k := range r.KPIs {
		o := Objective{Unit: k.Unit, Op: k.Op, Threshold: k.Threshold}
		p := chart.Panel{Title: k.Key, Note: k.SLO, Unit: o.unit(), Limits: o.limit(), Number: true, Stat: &chart.Stat{Value: k.Value, Status: chart.Missed}}
		if k.Compliant {
			p.Stat.Status = chart.Met
			met++
		}
		b.Panels = append(b.Panels, p)
	}
	b.Badge = chart.Badge{Text: fmt.Sprintf("%s · %d of %d met", r.Verdict, met, len(r.KPIs)), Status: chart.Missed}
	if r.Verdict == Pass {
		b.Badge.Status = chart.Met
	}
	return b
}

// Course is how the value of an objective ran over a window, in equal parts.
type Course struct {
	Key       string
	Unit      chart.Unit
	Op        string // gte or lte: how the value stands to Threshold
	Threshold float64
	Part      time.Duration
	// Worst is of each part the value that is furthest on the wrong side, so that
	// nothing bad is averaged away; NaN where the part has none.
	Worst []float64
}

// Courses are those of the objectives, in their order, from the panels of an
// archive; at most parts each. An objective whose panel was not answered has only
// parts without a value. There are none for an archive without panels, and for one
// that cannot be read.
func (s *Spec) Courses(a *Archive, parts int) []Course {
	window, err := ParseDuration(a.Window)
	if err != nil || len(a.Panels) == 0 || len(a.Responses) == 0 {
		return nil
	}
	end, err := s.ServerEnd(a.Responses[0])
	if err != nil {
		return nil
	}
	start := end.Add(-window)
	asked := map[string]Response{}
	queries := s.PanelQueries(window, end)
	for _, r := range a.Panels {
		if slices.Contains(queries, r.Query) {
			asked[r.Name] = r
		}
	}
	parts = max(1, min(parts, int(window/s.drawStep(window))))
	var all []Course
	for i, p := range s.panels(window, "") {
		if p.number || p.kpi == "" {
			continue
		}
		c := Course{Key: p.kpi, Unit: p.unit, Op: "lte", Threshold: p.limits[0].Value, Part: window / time.Duration(parts), Worst: make([]float64, parts)}
		if p.limits[0].AtLeast {
			c.Op = "gte"
		}
		for k := range c.Worst {
			c.Worst[k] = math.NaN()
		}
		lines, err := samples(start, end, asked, panelName(i, 0))
		if err != nil {
			lines = nil // each part says that it has no value
		}
		for _, l := range lines {
			for _, q := range l.points {
				// A point is of the time before it.
				k := min(parts-1, max(0, int((q.Time.Sub(start)-1)/c.Part)))
				was := c.Worst[k]
				if worse := c.Op == "gte" && q.Value < was || c.Op == "lte" && q.Value > was; !math.IsInf(q.Value, 0) && (worse || math.IsNaN(was)) {
					c.Worst[k] = q.Value
				}
			}
		}
		all = append(all, c)
	}
	return all
}

// line is one series of an answer.
type line struct {
	labels map[string]string
	points []chart.Point
}

const maxLines = 32 // of a panel

// samples decodes an answer for drawing. What is not finite is a gap there, so
// it is let through here; everything else must be as it was asked for.
func samples(start, end time.Time, all map[string]Response, name string) ([]line, error) {
	r, ok := all[name]
	if !ok {
		return nil, fmt.Errorf("%s was not asked", name)
	}
	a, err := open(r)
	if err != nil {
		return nil, err
	}
	var data struct {
		Result []struct {
			Metric map[string]string    `json:"metric"`
			Value  [2]json.RawMessage   `json:"value"`
			Values [][2]json.RawMessage `json:"values"`
		} `json:"result"`
	}
	if err := json.Unmarshal(a.Data, &data); err != nil {
		return nil, errors.New("the answer is neither a vector nor a matrix")
	}
	if len(data.Result) > maxLines {
		return nil, fmt.Errorf("%d series, want at most %d", len(data.Result), maxLines)
	}
	var out []line
	for _, s := range data.Result {
		l := line{labels: s.Metric}
		if s.Value[0] != nil {
			s.Values = append(s.Values, s.Value)
		}
		if len(s.Values) > maxPoints {
			return nil, fmt.Errorf("%d points, want at most %d", len(s.Values), maxPoints)
		}
		before := math.Inf(-1)
		for _, pair := range s.Values {
			var t float64
			var text string
			if json.Unmarshal(pair[0], &t) != nil || json.Unmarshal(pair[1], &text) != nil {
				return nil, fmt.Errorf("found the sample [%s, %s], want a time and a value", clip(pair[0]), clip(pair[1]))
			}
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, fmt.Errorf("found the value %q", text)
			}
			at := time.UnixMilli(int64(math.Round(t * 1000)))
			if t <= before || at.Before(start) || at.After(end) {
				return nil, fmt.Errorf("a sample of %.3f, out of order or out of the window", t)
			}
			before = t
			l.points = append(l.points, chart.Point{Time: at, Value: v})
		}
		out = append(out, l)
	}
	return out, nil
}

// worst is the number of several that is furthest on the wrong side.
func worst(list []line, limits []chart.Limit) *chart.Stat {
	s := &chart.Stat{Value: math.NaN()}
	for _, l := range list {
		if len(l.points) != 1 {
			return &chart.Stat{Value: math.NaN()}
		}
		v := l.points[0].Value
		least := len(limits) > 0 && limits[0].AtLeast
		if math.IsNaN(s.Value) || least && v < s.Value || !least && v > s.Value {
			s.Value = v
		}
	}
	for _, m := range limits {
		s.Status = chart.Missed
		if m.AtLeast && s.Value >= m.Value || !m.AtLeast && s.Value <= m.Value {
			s.Status = chart.Met
		}
	}
	return s
}

var legendLabel = regexp.MustCompile(`\{\{([a-z_]+)\}\}`)

// legend fills a legend's labels in.
func legend(format string, labels map[string]string) string {
	return legendLabel.ReplaceAllStringFunc(format, func(m string) string { return labels[m[2:len(m)-2]] })
}
