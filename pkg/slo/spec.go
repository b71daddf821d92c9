// Package slo judges service level objectives by what a Prometheus answered, and
// by nothing else. It has no network: it says what to ask, it is given the raw
// answers, and what it reports is a pure function of two files, the spec and the
// archive of the answers. Whoever has both gets the same report, byte for byte.
//
// # Verdicts
//
// PASS and FAIL are judged: every objective was measured over the whole window.
// REFUSED is everything else: what is missing, odd or not to be believed is
// never counted as good, never left out of a denominator, and never a null. Each
// reason for a refusal has a [Code].
//
// # The spec
//
// A YAML file of several documents, a subset of OpenSLO v1: one Service, and one
// SLO for each objective, in the order of the report. An SLO is a ratioMetric of
// two counters. Which kind of objective it is follows from it:
//
//	budgetingMethod Timeslices          at least target of the slices of the window have
//	                                    good/total >= timeSliceTarget; the value is the
//	                                    ratio that this share of slices reaches
//	Occurrences, good has le="EDGE"     good is a bucket of a histogram: the target
//	                                    quantile is at most EDGE seconds; decided by the
//	                                    counts at that edge, the value is interpolated
//	Occurrences                         good/total >= target
//
// Queries are plain selectors of counters: sums, rates and windows are put around
// them here, so that no spec can aggregate before it judges. What OpenSLO has no
// field for stands in annotations below "remembrancer.dev/". Of the Service:
//
//	treaty-id          treaty_id of the report
//	scrape-interval    how often targets are scraped, such as 30s
//	required-targets   selectors of up, one a line: each is one series that must have been 1
//	revision           selector of a series with the label git_sha: what ran
//	max-gap            longest time without a sample (5m), at least two intervals
//	max-staleness      longest time from the last sample to the end (2m)
//	min-coverage       share of the window with samples (0.99)
//	max-resets         resets of a counter that are allowed (0)
//	server             prometheus: it must have run, and kept its data, since before the window;
//	                   any: a compatible server, which is not asked
//
// Of an SLO:
//
//	report-key         name under metrics, such as rtt_p95_ms
//	compliance-key     name under slo_compliance, such as rtt
//	unit               of a latency in the report: ms (default) or s
//	min-samples        least total (10/(1-target), rounded up)
//	cross-check        selector of a gauge that must have grown as much as total did
//	cross-tolerance    by how much the two may differ, as a share (0.01)
//
// # Refused specs
//
// Unknown keys, aliases, several objectives in an SLO, ratios of gauges, queries
// that are more than a selector, a latency without an edge, two windows.
package slo

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/vaultmesh/remembrancer/pkg/action"
)

const maxSpec = 256 << 10 // bytes

// Kind says how an objective is measured.
type Kind int

// The kinds of objectives.
const (
	Ratio   Kind = iota + 1 // share of good events
	Latency                 // quantile of a histogram, decided at a bucket's edge
	Slices                  // share of slices of time that are good
)

// Objective is one SLO.
type Objective struct {
	Name          string // of the SLO
	Description   string
	Key           string // in metrics, such as rtt_p95_ms
	ComplianceKey string // in slo_compliance, such as rtt
	Kind          Kind
	Good, Total   string        // selectors of counters
	Buckets       string        // selector of all buckets; of a Latency only
	Edge          float64       // of the bucket of Good, in seconds; of a Latency only
	Target        float64       // share that must be good; of a Latency the quantile
	Op            string        // gte or lte: how the value stands to Threshold
	Threshold     float64       // of the value in the report, in Unit
	Unit          string        // ratio, ms or s
	Slice         time.Duration // of Slices only
	MinSamples    int           // least total
	CrossCheck    string        // selector of a gauge that grows with Total, or empty
	Tolerance     float64       // of the cross-check, as a share
}

// Spec is a file of objectives. Only [ParseSpec] makes one.
type Spec struct {
	name         string
	sum          string
	service      string
	treaty       string
	window       time.Duration
	interval     time.Duration
	maxGap       time.Duration
	maxStaleness time.Duration
	minCoverage  float64
	maxResets    int
	anyServer    bool
	targets      []string
	revision     string
	objectives   []Objective
}

// Name is what the file is called in reports.
func (s *Spec) Name() string { return s.name }

// SHA256 is the digest of the file, in hex.
func (s *Spec) SHA256() string { return s.sum }

// Service is the name of the service.
func (s *Spec) Service() string { return s.service }

// Treaty is the treaty_id of reports.
func (s *Spec) Treaty() string { return s.treaty }

// Window is what the objectives are promised over. Less proves nothing that
// could be promoted on.
func (s *Spec) Window() time.Duration { return s.window }

// ScrapeInterval is how often targets are scraped.
func (s *Spec) ScrapeInterval() time.Duration { return s.interval }

// Targets are selectors of up, each of one required target.
func (s *Spec) Targets() []string { return slices.Clone(s.targets) }

// Revision is the selector of the series whose label git_sha says what ran.
func (s *Spec) Revision() string { return s.revision }

// Objectives are in the order of the file.
func (s *Spec) Objectives() []Objective { return slices.Clone(s.objectives) }

type document struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       yaml.Node
}

type metadata struct {
	Name        string            `yaml:"name"`
	DisplayName string            `yaml:"displayName"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

type serviceSpec struct {
	Description string `yaml:"description"`
}

type sloSpec struct {
	Description     string       `yaml:"description"`
	Service         string       `yaml:"service"`
	Indicator       indicator    `yaml:"indicator"`
	TimeWindow      []timeWindow `yaml:"timeWindow"`
	BudgetingMethod string       `yaml:"budgetingMethod"`
	Objectives      []objective  `yaml:"objectives"`
}

type indicator struct {
	Metadata metadata      `yaml:"metadata"`
	Spec     indicatorSpec `yaml:"spec"`
}

type indicatorSpec struct {
	Description string      `yaml:"description"`
	RatioMetric ratioMetric `yaml:"ratioMetric"`
}

type ratioMetric struct {
	Counter bool   `yaml:"counter"`
	Good    metric `yaml:"good"`
	Total   metric `yaml:"total"`
}

type metric struct {
	MetricSource metricSource `yaml:"metricSource"`
}

type metricSource struct {
	Type string    `yaml:"type"`
	Spec queryText `yaml:"spec"`
}

type queryText struct {
	Query string `yaml:"query"`
}

type timeWindow struct {
	Duration  string `yaml:"duration"`
	IsRolling bool   `yaml:"isRolling"`
}

type objective struct {
	DisplayName     string   `yaml:"displayName"`
	Target          *float64 `yaml:"target"`
	TimeSliceTarget *float64 `yaml:"timeSliceTarget"`
	TimeSliceWindow string   `yaml:"timeSliceWindow"`
}

// ParseSpec reads a spec. name is what errors and reports call the file.
func ParseSpec(name string, data []byte) (*Spec, error) {
	s, err := parseSpec(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	sum := sha256.Sum256(data)
	s.name, s.sum = name, hex.EncodeToString(sum[:])
	return s, nil
}

func parseSpec(data []byte) (*Spec, error) {
	if len(data) > maxSpec {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(data), maxSpec)
	}
	s := &Spec{}
	var slos []document
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var n yaml.Node
		if err := dec.Decode(&n); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		var d document
		if err := strict(&n, &d); err != nil {
			return nil, err
		}
		switch {
		case d.APIVersion != "openslo/v1":
			return nil, fmt.Errorf("line %d: apiVersion %q, want openslo/v1", n.Line, d.APIVersion)
		case d.Kind == "Service" && s.service == "":
			if err := s.readService(d); err != nil {
				return nil, fmt.Errorf("service %s: %w", d.Metadata.Name, err)
			}
		case d.Kind == "Service":
			return nil, fmt.Errorf("line %d: a second Service, want one", n.Line)
		case d.Kind == "SLO":
			slos = append(slos, d)
		default:
			return nil, fmt.Errorf("line %d: kind %q, want Service or SLO", n.Line, d.Kind)
		}
	}
	if s.service == "" || len(slos) == 0 {
		return nil, fmt.Errorf("found %d SLOs and service %q, want one Service and at least one SLO", len(slos), s.service)
	}
	for _, d := range slos {
		o, err := s.readSLO(d)
		if err != nil {
			return nil, fmt.Errorf("slo %s: %w", d.Metadata.Name, err)
		}
		for _, was := range s.objectives {
			if was.Key == o.Key || was.ComplianceKey == o.ComplianceKey || was.Name == o.Name {
				return nil, fmt.Errorf("slo %s: it has a name or key of %s", o.Name, was.Name)
			}
		}
		s.objectives = append(s.objectives, o)
	}
	return s, nil
}

// strict decodes a node into a struct. Keys that it does not have are errors.
func strict(n *yaml.Node, into any) error {
	if n.Kind == yaml.DocumentNode {
		n = n.Content[0]
	}
	if err := known(n, reflect.TypeOf(into).Elem()); err != nil {
		return err
	}
	return n.Decode(into)
}

func known(n *yaml.Node, t reflect.Type) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return fmt.Errorf("line %d: an alias or anchor, want the value itself", n.Line)
	}
	if t == reflect.TypeFor[yaml.Node]() {
		return nil // it is read later, by its kind
	}
	switch {
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for _, c := range n.Content {
			if err := known(c, t.Elem()); err != nil {
				return err
			}
		}
	case t.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		fields := map[string]reflect.Type{}
		var keys []string
		for f := range t.Fields() {
			key := f.Tag.Get("yaml")
			if key == "" {
				key = strings.ToLower(f.Name)
			}
			fields[key] = f.Type
			keys = append(keys, key)
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			f, ok := fields[key.Value]
			if !ok {
				return fmt.Errorf("line %d: %w", key.Line, unknown("key", key.Value, keys))
			}
			if err := known(n.Content[i+1], f); err != nil {
				return err
			}
		}
	case t.Kind() == reflect.Struct || t.Kind() == reflect.Slice:
		return fmt.Errorf("line %d: found %q, want a %s", n.Line, n.Value, map[bool]string{true: "mapping", false: "list"}[t.Kind() == reflect.Struct])
	}
	return nil
}

func unknown(what, word string, all []string) error {
	hint := ""
	if near := action.Nearest(word, all); near != "" {
		hint = fmt.Sprintf(" did you mean %q?", near)
	}
	return fmt.Errorf("unknown %s %q;%s known: %s", what, word, hint, strings.Join(all, ", "))
}

const prefix = "remembrancer.dev/"

var (
	serviceNotes = []string{"treaty-id", "scrape-interval", "required-targets", "revision", "max-gap", "max-staleness", "min-coverage", "max-resets", "server"}
	sloNotes     = []string{"report-key", "compliance-key", "unit", "min-samples", "cross-check", "cross-tolerance"}
)

// notes reads annotations. Those of others are left alone.
type notes struct {
	values map[string]string
	err    error
}

func readNotes(m metadata, allowed []string) *notes {
	n := &notes{values: map[string]string{}}
	for key, value := range m.Annotations {
		word, ours := strings.CutPrefix(key, prefix)
		if ours && !slices.Contains(allowed, word) {
			n.fail(unknown("annotation", word, allowed))
		}
		if ours {
			n.values[word] = strings.TrimSpace(value)
		}
	}
	return n
}

func (n *notes) fail(err error) {
	if n.err == nil {
		n.err = err
	}
}

func (n *notes) text(key string, matches *regexp.Regexp) string {
	v := n.values[key]
	if !matches.MatchString(v) {
		n.fail(fmt.Errorf("annotation %s%s: found %q, want %s", prefix, key, v, matches))
	}
	return v
}

func (n *notes) duration(key string, otherwise time.Duration) time.Duration {
	v, given := n.values[key]
	if !given && otherwise > 0 {
		return otherwise
	}
	d, err := ParseDuration(v)
	if err != nil {
		n.fail(fmt.Errorf("annotation %s%s: %w", prefix, key, err))
	}
	return d
}

func (n *notes) number(key string, otherwise, least, most float64) float64 {
	v, given := n.values[key]
	if !given {
		return otherwise
	}
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || !(f >= least && f <= most) { // NaN is not
		n.fail(fmt.Errorf("annotation %s%s: found %q, want a number from %v to %v", prefix, key, v, least, most))
	}
	return f
}

func (n *notes) selector(key string) string {
	v := n.values[key]
	if _, err := parseSelector(v); err != nil {
		n.fail(fmt.Errorf("annotation %s%s: %w", prefix, key, err))
	}
	return v
}

var (
	treatyID   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)
	reportKey  = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
	objectName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

func (s *Spec) readService(d document) error {
	if !objectName.MatchString(d.Metadata.Name) {
		return fmt.Errorf("metadata.name: want %s", objectName)
	}
	if err := strict(&d.Spec, &serviceSpec{}); d.Spec.Kind != 0 && err != nil {
		return err
	}
	n := readNotes(d.Metadata, serviceNotes)
	s.service = d.Metadata.Name
	s.treaty = n.text("treaty-id", treatyID)
	s.interval = n.duration("scrape-interval", 0)
	s.maxGap = n.duration("max-gap", 5*time.Minute)
	s.maxStaleness = n.duration("max-staleness", 2*time.Minute)
	s.minCoverage = n.number("min-coverage", 0.99, 0.5, 1)
	s.maxResets = int(n.number("max-resets", 0, 0, 1000))
	s.revision = n.selector("revision")
	switch n.values["server"] {
	case "", "prometheus":
	case "any":
		s.anyServer = true
	default:
		n.fail(fmt.Errorf("annotation %sserver: found %q, want prometheus or any", prefix, n.values["server"]))
	}
	for line := range strings.SplitSeq(n.values["required-targets"], "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if sel, err := parseSelector(line); err != nil || sel.metric != "up" {
			n.fail(fmt.Errorf("annotation %srequired-targets: found %q, want a selector such as up{job=\"node\"}", prefix, line))
		}
		s.targets = append(s.targets, line)
	}
	switch {
	case n.err != nil:
	case len(s.targets) == 0:
		return fmt.Errorf("annotation %srequired-targets: want at least one: without it nobody knows that anything was measured", prefix)
	case s.maxGap < 2*s.interval || s.maxStaleness < 2*s.interval:
		return fmt.Errorf("max-gap %v and max-staleness %v: want at least two scrape intervals of %v", s.maxGap, s.maxStaleness, s.interval)
	}
	return n.err
}

func (s *Spec) readSLO(d document) (Objective, error) {
	o := Objective{Name: d.Metadata.Name}
	if !objectName.MatchString(o.Name) {
		return o, fmt.Errorf("metadata.name: want %s", objectName)
	}
	var y sloSpec
	if err := strict(&d.Spec, &y); err != nil {
		return o, err
	}
	r := y.Indicator.Spec.RatioMetric
	switch {
	case y.Service != s.service:
		return o, fmt.Errorf("service %q, want %q", y.Service, s.service)
	case len(y.TimeWindow) != 1 || !y.TimeWindow[0].IsRolling:
		return o, errors.New("timeWindow: want one, with isRolling: true")
	case len(y.Objectives) != 1 || y.Objectives[0].Target == nil:
		return o, errors.New("objectives: want one, with a target")
	case !r.Counter:
		return o, errors.New("ratioMetric: want counter: true; what is no counter cannot be counted over a window")
	case r.Good.MetricSource.Type != "Prometheus" || r.Total.MetricSource.Type != "Prometheus":
		return o, errors.New("metricSource: want type: Prometheus")
	}
	window, err := ParseDuration(y.TimeWindow[0].Duration)
	if err != nil {
		return o, fmt.Errorf("timeWindow: %w", err)
	}
	if s.window != 0 && s.window != window {
		return o, fmt.Errorf("timeWindow %v, the SLOs before have %v: want one window for all", window, s.window)
	}
	s.window = window
	want := y.Objectives[0]
	o.Target, o.Description = *want.Target, y.Description
	if !(o.Target > 0 && o.Target < 1) {
		return o, fmt.Errorf("target %v, want more than 0 and less than 1", o.Target)
	}
	o.Good, o.Total = strings.TrimSpace(r.Good.MetricSource.Spec.Query), strings.TrimSpace(r.Total.MetricSource.Spec.Query)
	good, err1 := parseSelector(o.Good)
	_, err2 := parseSelector(o.Total)
	if err := errors.Join(err1, err2); err != nil {
		return o, err
	}
	if o.Good == o.Total {
		return o, errors.New("good and total are the same: their ratio is always 1")
	}
	n := readNotes(d.Metadata, sloNotes)
	o.Key, o.ComplianceKey = n.text("report-key", reportKey), n.text("compliance-key", reportKey)
	// Ten events must be able to be bad before a quantile means anything.
	o.MinSamples = int(n.number("min-samples", math.Ceil(math.Round(1e6*10/(1-o.Target))/1e6), 1, 1e12))
	o.Tolerance = n.number("cross-tolerance", 0.01, 0, 0.5)
	if _, given := n.values["cross-check"]; given {
		o.CrossCheck = n.selector("cross-check")
	}
	if n.err != nil {
		return o, n.err
	}
	return o, o.readMethod(y.BudgetingMethod, want, good, n.values["unit"])
}

// readMethod finds out what kind of objective it is.
func (o *Objective) readMethod(method string, want objective, good selector, unit string) error {
	edge, histogram := good.value("le")
	switch {
	case method == "Timeslices":
		var err error
		if o.Slice, err = ParseDuration(want.TimeSliceWindow); err != nil {
			return fmt.Errorf("timeSliceWindow: %w", err)
		}
		if want.TimeSliceTarget == nil || !(*want.TimeSliceTarget > 0 && *want.TimeSliceTarget <= 1) {
			return errors.New("timeSliceTarget: want a number above 0, at most 1")
		}
		o.Kind, o.Op, o.Threshold, o.Unit = Slices, "gte", *want.TimeSliceTarget, "ratio"
	case method != "Occurrences":
		return fmt.Errorf("budgetingMethod %q, want Occurrences or Timeslices", method)
	case want.TimeSliceTarget != nil || want.TimeSliceWindow != "":
		return errors.New("timeSliceTarget and timeSliceWindow are for budgetingMethod: Timeslices")
	case histogram:
		var err error
		if o.Edge, err = strconv.ParseFloat(edge, 64); err != nil || !(o.Edge > 0) || math.IsInf(o.Edge, 0) {
			return fmt.Errorf("good: le=%q, want the edge of a bucket in seconds", edge)
		}
		scale, ok := map[string]float64{"": 1000, "ms": 1000, "s": 1}[unit]
		if !ok {
			return fmt.Errorf("annotation %sunit: found %q, want ms or s", prefix, unit)
		}
		o.Kind, o.Op, o.Unit, o.Buckets = Latency, "lte", "ms", good.without("le")
		if scale == 1 {
			o.Unit = "s"
		}
		o.Threshold = tidy(o.Edge * scale)
		return nil
	default:
		o.Kind, o.Op, o.Threshold, o.Unit = Ratio, "gte", o.Target, "ratio"
	}
	if histogram {
		return errors.New("a bucket is judged by budgetingMethod: Occurrences")
	}
	if unit != "" && unit != "ratio" {
		return fmt.Errorf("annotation %sunit: found %q; only a latency has a unit", prefix, unit)
	}
	return nil
}

// tidy rounds away what binary fractions add: 0.35 s are 350 ms.
func tidy(f float64) float64 {
	f, _ = strconv.ParseFloat(strconv.FormatFloat(f, 'g', 12, 64), 64)
	return f
}

var (
	durationText = regexp.MustCompile(`^([1-9][0-9]{0,8})(s|m|h|d|w)$`)
	durationUnit = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
)

// ParseDuration reads a duration as OpenSLO and PromQL write it: one whole
// number and one of the units s, m, h, d, w. It is at most 366 days.
func ParseDuration(s string) (time.Duration, error) {
	m := durationText.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("found %q, want a duration such as 30s, 5m, 72h or 7d", s)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0, err
	}
	if most := 366 * 24 * time.Hour; time.Duration(n) > most/durationUnit[m[2]] {
		return 0, fmt.Errorf("found %q, want at most 366d", s)
	}
	return time.Duration(n) * durationUnit[m[2]], nil
}

// FormatDuration writes a duration of whole seconds as [ParseDuration] reads it,
// with no unit above hours, as reports do: three days are 72h.
func FormatDuration(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// selector is a metric and what its labels must be.
type selector struct {
	metric   string
	matchers []matcher
}

type matcher struct{ label, op, value string } // value as quoted

var (
	metricName   = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*`)
	labelMatcher = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\\n]|\\.)*")\s*(,\s*|$)`)
)

// parseSelector reads an instant selector. It is all that a spec may ask for:
// what is put around it is ours.
func parseSelector(text string) (selector, error) {
	bad := fmt.Errorf("query %q: want a selector and nothing around it, such as requests_total{job=\"node\"}", text)
	s := selector{metric: metricName.FindString(text)}
	rest := text[len(s.metric):]
	if s.metric == "" || len(text) > 2000 {
		return s, bad
	}
	if rest == "" {
		return s, nil
	}
	if len(rest) < 2 || rest[0] != '{' || rest[len(rest)-1] != '}' {
		return s, bad
	}
	for rest = strings.TrimSpace(rest[1 : len(rest)-1]); rest != ""; {
		m := labelMatcher.FindStringSubmatch(rest)
		if m == nil {
			return s, bad
		}
		if _, err := strconv.Unquote(m[3]); err != nil {
			return s, bad
		}
		s.matchers = append(s.matchers, matcher{m[1], m[2], m[3]})
		rest = rest[len(m[0]):]
	}
	return s, nil
}

// value returns what a label must be equal to.
func (s selector) value(label string) (string, bool) {
	for _, m := range s.matchers {
		if m.label == label && m.op == "=" {
			v, err := strconv.Unquote(m.value)
			return v, err == nil
		}
	}
	return "", false
}

// without is the selector but for one label.
func (s selector) without(label string) string {
	var kept []string
	for _, m := range s.matchers {
		if m.label != label {
			kept = append(kept, m.label+m.op+m.value)
		}
	}
	if len(kept) == 0 {
		return s.metric
	}
	return s.metric + "{" + strings.Join(kept, ",") + "}"
}
