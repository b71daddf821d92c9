package slo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// The verdicts.
const (
	Pass    = "PASS"
	Fail    = "FAIL"
	Refused = "REFUSED"
)

// Where numbers come from.
const (
	FromPrometheus = "prometheus"
	FromSimulator  = "simulator"          // nothing was measured
	FromBackfill   = "synthetic-backfill" // written into a database after the fact: the reckoning is real, the service is not
)

const reportType = "canary_slo"

// Report is canary_slo_report.json: what the ancestor's has, with numbers, and
// after it what bears them out. It is made only of what was judged, so there is
// no null in it.
type Report struct {
	Type           string          `json:"report_type"` // canary_slo
	Treaty         string          `json:"treaty_id"`
	Timestamp      string          `json:"timestamp"` // when it was measured, RFC 3339
	Window         string          `json:"window"`    // that was measured, such as 72h
	Metrics        Ordered[Number] `json:"metrics"`
	Compliance     Ordered[bool]   `json:"slo_compliance"`
	Overall        bool            `json:"overall_compliance"`
	ComplianceRate Number          `json:"compliance_rate"` // over all objectives

	Verdict    string    `json:"verdict"`     // PASS or FAIL
	DataSource string    `json:"data_source"` // prometheus, simulator or synthetic-backfill
	Promotable bool      `json:"promotable"`  // measured, passed, and over the whole window of the spec
	Why        []string  `json:"not_promotable,omitempty"`
	KPIs       []KPI     `json:"kpis"`
	Proven     *Proven   `json:"proven,omitempty"`
	Targets    []Target  `json:"targets,omitempty"`
	Subject    *Subject  `json:"subject,omitempty"`
	Spec       SpecRef   `json:"spec"`
	Server     *Server   `json:"prometheus,omitempty"`
	Infos      []string  `json:"infos,omitempty"` // what the server remarked
	Evidence   *Evidence `json:"evidence"`
	Generator  string    `json:"generator"`
}

// Refusal is canary_slo_report.refused.json. It has no metrics: what was not
// judged is not there, not null.
type Refusal struct {
	Type       string    `json:"report_type"`
	Treaty     string    `json:"treaty_id"`
	Timestamp  string    `json:"timestamp"`
	Window     string    `json:"window"`
	Verdict    string    `json:"verdict"` // REFUSED
	DataSource string    `json:"data_source"`
	Promotable bool      `json:"promotable"` // false
	Reasons    []Reason  `json:"reasons"`
	Subject    *Subject  `json:"subject,omitempty"`
	Spec       SpecRef   `json:"spec"`
	Evidence   *Evidence `json:"evidence,omitempty"`
	Generator  string    `json:"generator"`
}

// KPI is how one objective was judged.
type KPI struct {
	Key           string  `json:"id"`
	ComplianceKey string  `json:"compliance_id"`
	SLO           string  `json:"slo"`
	Value         float64 `json:"value"`
	Op            string  `json:"op"` // gte or lte
	Threshold     float64 `json:"threshold"`
	Unit          string  `json:"unit"`
	Margin        float64 `json:"margin"` // negative when the threshold is missed
	Compliant     bool    `json:"compliant"`
	Target        float64 `json:"target"`            // share that must be good
	Ratio         float64 `json:"ratio"`             // share that is
	Bound         float64 `json:"lower_bound"`       // of Ratio, 99 %, one-sided
	Thin          bool    `json:"thin_margin"`       // it passes, and the bound does not
	Good          float64 `json:"good"`              // events; servers extrapolate, so not always whole
	Total         float64 `json:"total"`             //
	Slices        int     `json:"slices"`            // of the window
	GoodSlices    int     `json:"good_slices"`       // that reach the target by themselves
	Idle          int     `json:"idle_slices"`       // without traffic: they count as not good
	Resets        int     `json:"counter_resets"`    //
	Burning       string  `json:"burning,omitempty"` // why the newest part of the window fails
}

// Proven is the window as it was measured.
type Proven struct {
	Start          string  `json:"start"`
	End            string  `json:"end"`
	Covered        float64 `json:"covered_ratio"` // of the target that was covered least
	MaxGap         float64 `json:"max_gap_s"`
	ScrapeInterval float64 `json:"scrape_interval_s"`
}

// Target is how a required target was scraped.
type Target struct {
	Selector string  `json:"selector"`
	Job      string  `json:"job"`
	Instance string  `json:"instance"`
	Samples  int     `json:"samples"` // with the value 1
	Covered  float64 `json:"covered_ratio"`
	MaxGap   float64 `json:"max_gap_s"`
}

// Subject is what was measured. The revision is what the metrics themselves say
// ran; artifact and environment are as stated by whoever asked.
type Subject struct {
	Revision    string `json:"git_sha"`
	Artifact    string `json:"artifact,omitempty"`    // sha256: and 64 hex digits
	Environment string `json:"environment,omitempty"` // such as staging
}

func source(of string) string {
	if of == "" {
		return FromPrometheus
	}
	return of
}

// SpecRef names the spec.
type SpecRef struct {
	File    string `json:"file"`
	SHA256  string `json:"sha256"`
	Service string `json:"service"`
	Window  string `json:"window"` // that it promises
}

// Server is what the server says about itself.
type Server struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"`
	GoVersion string `json:"goversion"`
	Started   string `json:"started"`
	Retention string `json:"retention"`
}

// Evidence names the file that a report was made of: the archive, or what a
// simulator wrote.
type Evidence struct {
	File      string `json:"file"` // in the report's folder
	SHA256    string `json:"sha256"`
	Responses int    `json:"responses,omitempty"`
}

// Number is a finite number: null, NaN and infinities are no value of it.
type Number float64

// MarshalJSON writes the number.
func (n Number) MarshalJSON() ([]byte, error) { return json.Marshal(float64(n)) }

// UnmarshalJSON reads a number.
func (n *Number) UnmarshalJSON(data []byte) error {
	var f *float64
	if err := json.Unmarshal(data, &f); err != nil {
		return err
	}
	if f == nil {
		return errors.New("found null, want a number")
	}
	*n = Number(*f)
	return nil
}

// Ordered is a JSON object whose keys keep their order.
type Ordered[T any] struct {
	Keys   []string
	Values map[string]T
}

func (o *Ordered[T]) add(key string, value T) {
	if o.Values == nil {
		o.Values = map[string]T{}
	}
	o.Keys = append(o.Keys, key)
	o.Values[key] = value
}

// MarshalJSON writes the object.
func (o Ordered[T]) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, k := range o.Keys {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err1 := json.Marshal(k)
		value, err2 := json.Marshal(o.Values[k])
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("%s: %w", k, errors.Join(err1, err2))
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads an object.
func (o *Ordered[T]) UnmarshalJSON(data []byte) error {
	*o = Ordered[T]{}
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("found %s, want an object", clip(data))
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		if slices.Contains(o.Keys, key) {
			return fmt.Errorf("key %q is there twice", key)
		}
		var v *T
		if err := dec.Decode(&v); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		if v == nil {
			return fmt.Errorf("%s: found null", key)
		}
		o.add(key, *v)
	}
	_, err := dec.Token()
	return err
}

// Judge makes a report of an archive, or a refusal: one of the two is nil. file
// is what the archive's file is called, below the report's folder.
func Judge(s *Spec, a *Archive, file string) (*Report, *Refusal, error) {
	data, err := a.Marshal()
	if err != nil {
		return nil, nil, err
	}
	evidence := &Evidence{File: file, SHA256: hexSum(data), Responses: len(a.Responses)}
	j := &judging{s: s, a: a, answers: map[string]answer{}}
	r := &Report{
		Type: reportType, Treaty: s.treaty, Timestamp: stamp(a.At), Window: a.Window, DataSource: source(a.Source),
		Subject: &Subject{a.Revision, a.Artifact, a.Environment}, Spec: s.ref(), Evidence: evidence, Generator: a.Generator,
	}
	if j.unpack() {
		j.all(r)
	}
	if len(j.reasons) == 0 {
		return r, nil, nil
	}
	return nil, &Refusal{
		Type: reportType, Treaty: s.treaty, Timestamp: r.Timestamp, Window: r.Window, Verdict: Refused, DataSource: r.DataSource,
		Reasons: j.reasons, Subject: r.Subject, Spec: r.Spec, Evidence: evidence, Generator: a.Generator,
	}, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (s *Spec) ref() SpecRef {
	return SpecRef{File: s.name, SHA256: s.sum, Service: s.service, Window: FormatDuration(s.window)}
}

func (j *judging) all(r *Report) {
	if server := j.server(); !j.s.anyServer {
		r.Server = &server
	}
	r.Proven = &Proven{Start: stamp(j.start), End: stamp(j.end), Covered: 1, ScrapeInterval: j.s.interval.Seconds()}
	for i, t := range j.s.targets {
		got := j.continuity(i, t)
		r.Targets = append(r.Targets, got)
		r.Proven.Covered, r.Proven.MaxGap = min(r.Proven.Covered, got.Covered), max(r.Proven.MaxGap, got.MaxGap)
	}
	j.revision()
	for _, o := range j.s.objectives {
		r.KPIs = append(r.KPIs, j.objective(o))
	}
	r.Infos = j.infos
	r.sum()
	if short := j.window < j.s.window; short {
		r.Why = append(r.Why, fmt.Sprintf("the window is %s, the spec promises %s", r.Window, r.Spec.Window))
	}
	if r.DataSource != FromPrometheus {
		r.Why = append(r.Why, "the data were written into a database after the fact: no service was measured")
	}
	r.Promotable = len(r.Why) == 0
}

// sum fills in what follows from the KPIs.
func (r *Report) sum() {
	met := 0
	for _, k := range r.KPIs {
		r.Metrics.add(k.Key, Number(k.Value))
		r.Compliance.add(k.ComplianceKey, k.Compliant)
		if k.Compliant {
			met++
		}
	}
	r.Overall = met == len(r.KPIs) && met > 0
	r.ComplianceRate = Number(tidy(float64(met) / float64(max(1, len(r.KPIs)))))
	r.Verdict = Pass
	if !r.Overall {
		r.Verdict = Fail
		r.Why = append(r.Why, fmt.Sprintf("%d of %d objectives are met", met, len(r.KPIs)))
	}
}

// Marshal returns the report's file.
func (r *Report) Marshal() ([]byte, error) { return indented(r) }

// Marshal returns the refusal's file.
func (r *Refusal) Marshal() ([]byte, error) { return indented(r) }

// Simulate makes the report of what a simulator wrote: an object whose field
// metrics has a finite number for every objective, and nothing else. It is never
// promotable, and its data source says so. file is what the file is called.
func Simulate(s *Spec, data []byte, file string, now time.Time, generator string) (*Report, error) {
	var in struct {
		Metrics Ordered[Number] `json:"metrics"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if dec.More() {
		return nil, fmt.Errorf("%s: more follows the object", file)
	}
	r := &Report{
		Type: reportType, Treaty: s.treaty, Timestamp: stamp(now), Window: "simulated", DataSource: FromSimulator,
		Why: []string{"a simulator wrote these numbers: nothing was measured"}, Spec: s.ref(),
		Evidence: &Evidence{File: file, SHA256: hexSum(data)}, Generator: generator,
	}
	var want []string
	for _, o := range s.objectives {
		want = append(want, o.Key)
		v, ok := in.Metrics.Values[o.Key]
		if !ok {
			return nil, fmt.Errorf("%s: metrics has no %s", file, o.Key)
		}
		if most := map[bool]float64{true: 1, false: math.MaxFloat64}[o.Kind != Latency]; v < 0 || float64(v) > most {
			return nil, fmt.Errorf("%s: %s is %v", file, o.Key, v)
		}
		k := KPI{Key: o.Key, ComplianceKey: o.ComplianceKey, SLO: o.Name, Value: float64(v), Op: o.Op, Threshold: o.Threshold, Unit: o.Unit, Target: o.Target}
		k.Margin = tidy(k.Value - k.Threshold)
		if o.Op == "lte" {
			k.Margin = -k.Margin
		}
		k.Compliant = k.Margin >= 0
		r.KPIs = append(r.KPIs, k)
	}
	for _, key := range in.Metrics.Keys {
		if !slices.Contains(want, key) {
			return nil, fmt.Errorf("%s: metrics has %s, the spec has %s", file, key, strings.Join(want, ", "))
		}
	}
	r.sum()
	return r, nil
}
