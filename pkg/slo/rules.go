package slo

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// burn is one pair of windows that an alert looks through: the error budget of
// the whole window goes at least factor times as fast as it may, over the long
// window, and still does over the short one.
type burn struct {
	alert       string
	severity    string
	long, short time.Duration
	factor      float64
	budget      float64 // share of the budget that is gone by then
}

// burns scales the pairs to a window. The usual share of 2 % in an hour is made
// for 30 days: of three days it would be a factor of 1.44, which noise reaches.
// What is spent here is 10 % in a 72nd of the window, 25 % in a twelfth, and
// 50 % in a third: 7.2, 3 and 1.5 times as fast as may be.
//
// A rate needs some samples: pairs whose short window would hold fewer than four
// scrapes, within a quarter of the long one, are left out.
func burns(window, interval time.Duration) []burn {
	var all []burn
	for _, b := range []burn{
		{alert: "SLOBudgetBurnFast", severity: "page", long: window / 72, budget: 0.10},
		{alert: "SLOBudgetBurn", severity: "page", long: window / 12, budget: 0.25},
		{alert: "SLOBudgetBurnSlow", severity: "ticket", long: window / 3, budget: 0.50},
	} {
		b.long = b.long.Truncate(time.Second)
		b.short = max(b.long/12, 4*interval).Truncate(time.Second)
		if b.short > b.long/4 {
			continue
		}
		b.factor = tidy(b.budget * float64(window) / float64(b.long))
		all = append(all, b)
	}
	return all
}

// Alerts are the names of all alerts that [Spec.Rules] may write, for runbooks.
func Alerts() []string {
	return []string{
		"SLOBudgetBurnFast", "SLOBudgetBurn", "SLOBudgetBurnSlow", "SLOBudgetSpent",
		"SLONotMeasured", "SLOTargetDown", "SLOTargetAbsent",
	}
}

type ruleFile struct {
	Groups []ruleGroup `yaml:"groups"`
}

type ruleGroup struct {
	Name     string `yaml:"name"`
	Interval string `yaml:"interval"`
	Rules    []rule `yaml:"rules"`
}

type rule struct {
	Record      string            `yaml:"record,omitempty"`
	Alert       string            `yaml:"alert,omitempty"`
	Expr        yaml.Node         `yaml:"expr"`
	For         string            `yaml:"for,omitempty"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

// promDuration writes a duration as PromQL reads it.
func promDuration(d time.Duration) string { return FormatDuration(d) }

func number(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// shareOf is the share of good events over a window, for each target by itself.
// extra is one more label matcher, or empty.
func (o Objective) shareOf(window, extra string) string {
	return "sum by (job, instance) (increase(" + with(o.Good, extra) + "[" + window + "]))\n/\n" +
		"sum by (job, instance) (increase(" + with(o.Total, extra) + "[" + window + "]))"
}

// with adds a matcher to a selector that ParseSpec took.
func with(sel, extra string) string {
	switch {
	case extra == "":
		return sel
	case strings.HasSuffix(sel, "{}"):
		return strings.TrimSuffix(sel, "}") + extra + "}"
	case strings.HasSuffix(sel, "}"):
		return strings.TrimRight(strings.TrimSuffix(sel, "}"), ", ") + "," + extra + "}"
	}
	return sel + "{" + extra + "}"
}

// valueOf is the value of an objective over a window, as the report has it.
// slice is how long a slice is, of an objective that is judged by slices.
func (o Objective) valueOf(window, slice, extra string) string {
	switch o.Kind {
	case Latency:
		scale := ""
		if o.Unit == "ms" {
			scale = " * 1000"
		}
		return "histogram_quantile(" + number(o.Target) + ", sum by (job, instance, le) (increase(" + with(o.Buckets, extra) + "[" + window + "])))" + scale
	case Slices:
		return "quantile_over_time(" + number(tidy(1-o.Target)) + ", (" + oneLine(o.shareOf(slice, extra)) + ")[" + window + ":" + slice + "])"
	}
	return o.shareOf(window, extra)
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " ") }

// Rules returns a file of recording and alerting rules for Prometheus, made of
// nothing but the spec.
//
// Recorded, for each objective and target, with the labels slo and treaty_id:
//
//	slo:slice:ratio                 share of good events of the slice that ends now
//	slo:slice:good                  1 while that is enough, else 0; no traffic is not enough
//	slo:errors:ratio_rateWINDOW     share of bad events, or bad slices, over each alert's windows
//	slo:good:ratio_window           share of good ones over the window of the spec
//	slo:value:window                the value as reports have it, in the unit of the report
//	slo:budget_left:ratio           share of the error budget that is left; negative when it is overspent
//
// The alerts are those of [Alerts]: the budget burns fast (two windows, so that
// an alert ends soon after its cause), it is spent, nothing is measured, or a
// target is down or unknown. A pair of windows is left out where even a total
// outage would not reach it; it is an error when none is left.
func (s *Spec) Rules() ([]byte, error) {
	every := promDuration(s.interval)
	slicing := ruleGroup{Name: s.service + "-slices", Interval: every}
	burning := ruleGroup{Name: s.service + "-burn", Interval: every}
	// A query over the whole window is costly, but must come well within the five
	// minutes for which a sample is remembered.
	whole := ruleGroup{Name: s.service + "-window", Interval: promDuration(min(2*time.Minute, max(s.interval, (s.window/100).Truncate(time.Second))))}
	alerts := ruleGroup{Name: s.service + "-alerts", Interval: every}

	pairs := burns(s.window, s.interval)
	for _, o := range s.objectives {
		labels := map[string]string{"slo": o.Name, "treaty_id": s.treaty}
		self := `{slo="` + o.Name + `",treaty_id="` + s.treaty + `"}`
		record := func(g *ruleGroup, name, expr string) {
			g.Rules = append(g.Rules, rule{Record: name, Expr: block(expr), Labels: labels})
		}
		budget := tidy(1 - o.Target)
		if o.Kind == Slices {
			record(&slicing, "slo:slice:ratio", o.shareOf(promDuration(o.Slice), ""))
			record(&slicing, "slo:slice:good", "slo:slice:ratio"+self+" >= bool "+number(o.Threshold))
		}
		var windows []time.Duration
		possible := false
		for _, b := range pairs {
			if b.factor*budget >= 1 || o.Kind == Slices && b.long < 6*o.Slice {
				continue // more than everything would have to be bad, or six slices do not fit
			}
			possible = true
			short := b.short
			if o.Kind == Slices {
				short = max(short, o.Slice)
			}
			for _, w := range []time.Duration{short, b.long} {
				if !slices.Contains(windows, w) {
					windows = append(windows, w)
				}
			}
			over := func(w time.Duration) string {
				return "slo:errors:ratio_rate" + promDuration(w) + self + " > " + number(b.factor) + " * " + number(budget)
			}
			alerts.Rules = append(alerts.Rules, rule{
				Alert: b.alert, Expr: block(over(b.long) + "\nand\n" + over(short)), For: promDuration(2 * s.interval),
				Labels: map[string]string{"severity": b.severity, "slo": o.Name, "treaty_id": s.treaty},
				Annotations: note(b.alert, o.Name+": the error budget burns "+number(b.factor)+" times as fast as it may",
					fmt.Sprintf("Over the last %s, and the last %s, more than %s of it is bad; %s of the budget of %s goes in %s. %s",
						promDuration(b.long), promDuration(short), percent(b.factor*budget), percent(b.budget), promDuration(s.window), promDuration(b.long), literal(o.Description))),
			})
		}
		if !possible {
			return nil, fmt.Errorf("%s: slo %s: no burn rate over a window of %s can be seen: want a higher target or a longer window",
				s.name, o.Name, FormatDuration(s.window))
		}
		slices.Sort(windows)
		for _, w := range windows {
			expr := "1 - (\n" + o.shareOf(promDuration(w), "") + "\n)"
			if o.Kind == Slices {
				expr = "1 - avg_over_time(slo:slice:good" + self + "[" + promDuration(w) + "])"
			}
			record(&burning, "slo:errors:ratio_rate"+promDuration(w), expr)
		}
		share := o.shareOf(promDuration(s.window), "")
		value := o.valueOf(promDuration(s.window), "", "")
		if o.Kind == Slices {
			share = "avg_over_time(slo:slice:good" + self + "[" + promDuration(s.window) + "])"
			value = "quantile_over_time(" + number(budget) + ", slo:slice:ratio" + self + "[" + promDuration(s.window) + "])"
		}
		record(&whole, "slo:good:ratio_window", share)
		record(&whole, "slo:value:window", value)
		record(&whole, "slo:budget_left:ratio", "1 - (1 - slo:good:ratio_window"+self+") / "+number(budget))

		alerts.Rules = append(alerts.Rules, rule{
			Alert: "SLOBudgetSpent", Expr: block("slo:budget_left:ratio" + self + " < 0"), For: promDuration(2 * s.interval),
			Labels: map[string]string{"severity": "ticket", "slo": o.Name, "treaty_id": s.treaty},
			Annotations: note("SLOBudgetSpent", o.Name+": the error budget of "+promDuration(s.window)+" is spent",
				"Less than "+percent(o.Target)+" is good. A report that ends now is a FAIL. "+literal(o.Description)),
		})
		// Ten minutes, or what a short window allows: traffic may pause for a moment.
		quiet := min(10*time.Minute, max(4*s.interval, (s.window/12).Truncate(time.Second)))
		alerts.Rules = append(alerts.Rules, rule{
			Alert: "SLONotMeasured", Expr: block("(sum(increase(" + o.Total + "[" + promDuration(quiet) + "])) or vector(0)) == 0"), For: promDuration(2 * s.interval),
			Labels: map[string]string{"severity": "page", "slo": o.Name, "treaty_id": s.treaty},
			Annotations: note("SLONotMeasured", o.Name+": nothing is measured",
				"No event was counted for "+promDuration(quiet)+". What is not measured is refused, never passed."),
		})
	}
	for _, t := range s.targets {
		labels := map[string]string{"severity": "page", "target": t, "treaty_id": s.treaty}
		alerts.Rules = append(
			alerts.Rules,
			rule{
				Alert: "SLOTargetDown", Expr: block(t + " == 0"), For: promDuration(2 * s.interval), Labels: labels,
				Annotations: note("SLOTargetDown", "a target that must be measured is down", "{{ $labels.job }} at {{ $labels.instance }} does not answer. After "+promDuration(s.maxGap)+" no report of this window can pass."),
			},
			rule{
				Alert: "SLOTargetAbsent", Expr: block("absent(" + t + ")"), For: promDuration(2 * s.interval), Labels: labels,
				Annotations: note("SLOTargetAbsent", "a target that must be measured is not known to Prometheus", literal(t)+" has no series. After "+promDuration(s.maxGap)+" no report of this window can pass."),
			},
		)
	}
	if len(alerts.Rules) == 0 {
		return nil, errors.New("no rules")
	}

	file := ruleFile{}
	for _, g := range []ruleGroup{slicing, burning, whole, alerts} {
		if len(g.Rules) > 0 {
			file.Groups = append(file.Groups, g)
		}
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Generated from %s (SHA-256 %s).\n# Edits are lost: change that file, and generate this one again.\n", s.name, s.sum)
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(file); err != nil {
		return nil, err
	}
	return out.Bytes(), enc.Close()
}

// note is what an alert says. Each has its chapter in the operator's manual.
func note(alert, summary, description string) map[string]string {
	return map[string]string{
		"summary": summary, "description": strings.TrimSpace(description),
		"runbook": "docs/OPERATIONS.md#" + strings.ToLower(alert),
	}
}

// literal keeps Prometheus from reading a text as a template.
func literal(s string) string { return strings.ReplaceAll(s, "{{", "{ {") }

// percent writes a share for people.
func percent(f float64) string { return number(tidy(f*100)) + " %" }

// block is a query as YAML writes it best: as it is, over several lines.
func block(expr string) yaml.Node {
	n := yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: expr}
	if strings.Contains(expr, "\n") {
		n.Style = yaml.LiteralStyle
	}
	return n
}
