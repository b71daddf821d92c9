package slo

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Code says why a report is refused. Codes are stable: scripts read them.
type Code string

// The codes.
const (
	Unreachable    Code = "unreachable"        // nothing came: network, TLS, deadline
	Redirected     Code = "redirected"         // the server sends elsewhere
	Unauthorized   Code = "unauthorized"       // HTTP 401 or 403
	ServerError    Code = "server_error"       // HTTP 5xx
	HTTPStatus     Code = "http_status"        // any other status but 200
	NotJSON        Code = "not_json"           // a login page, or another server
	Truncated      Code = "truncated"          // the answer ends too early
	APIError       Code = "api_error"          // the API answers, and not with success
	Warned         Code = "warnings"           // the server doubts its own answer
	Empty          Code = "empty_result"       // no series where one must be
	ManySeries     Code = "two_series"         // more than one series where one must be
	NotANumber     Code = "not_a_number"       // null, or no value at all
	NotFinite      Code = "not_finite"         // NaN or an infinity
	OutOfDomain    Code = "out_of_domain"      // negative, or more good than there are
	OtherTime      Code = "other_time"         // an answer of another moment than was asked for
	ClockSkew      Code = "clock_skew"         // the clocks differ by more than 30 s
	Restarted      Code = "prometheus_started" // the server was started inside of the window
	Retention      Code = "retention"          // the server keeps less than the window
	Short          Code = "short"              // samples begin after the window does
	Stale          Code = "stale"              // samples end before the window does
	Gap            Code = "gap"                // too long without a sample
	Coverage       Code = "coverage"           // too little of the window has samples
	WrongRevision  Code = "wrong_revision"     // another revision ran, or two
	TooFewSamples  Code = "too_few_samples"    // too few events to judge a quantile by
	Idle           Code = "idle"               // too much of the window without traffic
	CounterReset   Code = "counter_reset"      // a counter began anew more often than allowed
	Inconsistent   Code = "inconsistent"       // two counts of one thing differ
	Saturated      Code = "saturated"          // the quantile is beyond the last bucket
	SpecChanged    Code = "spec_changed"       // the spec is not that of the base
	OtherQuestions Code = "other_questions"    // the archive answers what the spec does not ask
)

// Reason is one reason for a refusal.
type Reason struct {
	Code   Code   `json:"code"`
	Query  string `json:"query,omitempty"`
	Detail string `json:"detail"`
}

const (
	maxSkew = 30 * time.Second
	zScore  = 2.326347874 // of a one-sided bound at 99 %
)

// judging collects what one archive shows.
type judging struct {
	s       *Spec
	a       *Archive
	window  time.Duration
	start   time.Time
	end     time.Time
	answers map[string]answer
	reasons []Reason
	infos   []string
}

func (j *judging) refuse(code Code, query, format string, args ...any) {
	j.reasons = append(j.reasons, Reason{code, query, fmt.Sprintf(format, args...)})
}

// refused is an error with a code.
type refused struct {
	code   Code
	detail string
}

func (r *refused) Error() string { return r.detail }

func refusef(code Code, format string, args ...any) error {
	return &refused{code, fmt.Sprintf(format, args...)}
}

func (j *judging) because(query string, err error) {
	var r *refused
	if errors.As(err, &r) {
		j.refuse(r.code, query, "%s", r.detail)
		return
	}
	j.refuse(NotJSON, query, "%v", err)
}

// answer is a decoded response of the API.
type answer struct {
	Status   string          `json:"status"`
	Data     json.RawMessage `json:"data"`
	Error    string          `json:"error"`
	Warnings []string        `json:"warnings"`
	Infos    []string        `json:"infos"`
}

// point is one sample.
type point struct {
	t, v float64 // Unix seconds, value
}

func (p *point) UnmarshalJSON(data []byte) error {
	var pair []json.RawMessage
	if err := json.Unmarshal(data, &pair); err != nil || len(pair) != 2 {
		return refusef(NotANumber, "found %s, want a time and a value", clip(data))
	}
	var text *string
	if err := json.Unmarshal(pair[1], &text); err != nil || text == nil {
		return refusef(NotANumber, "found the value %s", clip(pair[1]))
	}
	var t *float64
	if err := json.Unmarshal(pair[0], &t); err != nil || t == nil {
		return refusef(NotANumber, "found the time %s", clip(pair[0]))
	}
	v, err := strconv.ParseFloat(*text, 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		return refusef(NotANumber, "found the value %s", clip(pair[1]))
	case math.IsNaN(v) || math.IsInf(v, 0):
		return refusef(NotFinite, "found the value %s", *text)
	}
	p.t, p.v = *t, v
	return nil
}

func clip(b []byte) string {
	if len(b) > 60 {
		return string(b[:60]) + "…"
	}
	return string(b)
}

// series is one series of a vector or matrix.
type series struct {
	Metric map[string]string `json:"metric"`
	Value  *point            `json:"value"`
	Values []point           `json:"values"`
}

func (s series) target() string { return s.Metric["job"] + " at " + s.Metric["instance"] }

// open decodes a response as far as every query's is alike.
func open(r Response) (answer, error) {
	var a answer
	switch {
	case r.Status == 0:
		return a, refusef(Unreachable, "%s", r.Error)
	case r.Status >= 300 && r.Status < 400:
		return a, refusef(Redirected, "HTTP status %d: %s", r.Status, r.Error)
	case r.Status == 401 || r.Status == 403:
		return a, refusef(Unauthorized, "HTTP status %d", r.Status)
	case r.Status >= 500:
		return a, refusef(ServerError, "HTTP status %d: %s", r.Status, clip(r.Body))
	case r.Status != 200:
		return a, refusef(HTTPStatus, "HTTP status %d: %s", r.Status, clip(r.Body))
	case r.Error != "":
		return a, refusef(Truncated, "%s", r.Error)
	}
	if err := json.Unmarshal(r.Body, &a); err != nil {
		if s := new(json.SyntaxError); errors.As(err, &s) && strings.HasPrefix(strings.TrimSpace(string(r.Body)), "{") && s.Offset >= int64(len(r.Body)) {
			return a, refusef(Truncated, "the answer ends after %d bytes", len(r.Body))
		}
		return a, refusef(NotJSON, "found %s (%s), want JSON", strconv.Quote(clip(r.Body)), r.ContentType)
	}
	switch {
	case a.Status != "success":
		return a, refusef(APIError, "status %q: %s", a.Status, a.Error)
	case len(a.Warnings) > 0:
		return a, refusef(Warned, "%s", strings.Join(a.Warnings, "; "))
	}
	return a, nil
}

// result decodes what a query of a type gave.
func result(a answer, kind string, into any) error {
	var data struct {
		ResultType string          `json:"resultType"`
		Result     json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal(a.Data, &data); err != nil {
		return refusef(NotJSON, "data: %v", err)
	}
	if data.ResultType != kind {
		return refusef(NotJSON, "found a result of type %q, want %q", data.ResultType, kind)
	}
	return json.Unmarshal(data.Result, into)
}

// one returns the only series of a list.
func one(list []series) (series, error) {
	switch {
	case len(list) == 0:
		return series{}, refusef(Empty, "no series")
	case len(list) > 1:
		return series{}, refusef(ManySeries, "%d series, of %s and %s: want one", len(list), list[0].target(), list[1].target())
	}
	return list[0], nil
}

func readClock(r Response) (time.Time, error) {
	a, err := open(r)
	if err != nil {
		return time.Time{}, err
	}
	var p point
	if err := result(a, "scalar", &p); err != nil {
		return time.Time{}, err
	}
	if !(p.v > 0 && p.v < 1e11) {
		return time.Time{}, refusef(OutOfDomain, "the time is %v", p.v)
	}
	return time.UnixMilli(int64(math.Round(p.v * 1000))).UTC(), nil
}

// unpack holds the archive to what the spec asks, and decodes the answers.
func (j *judging) unpack() bool {
	window, err := ParseDuration(j.a.Window)
	if err == nil {
		err = j.s.CheckAsk(Ask{Window: window, Revision: j.a.Revision, Artifact: j.a.Artifact, Environment: j.a.Environment, Source: j.a.Source})
	}
	if err != nil {
		j.refuse(OtherQuestions, "", "%v", err)
		return false
	}
	j.window = window
	want := j.s.First()
	for i := 0; i < len(want); i++ {
		if i >= len(j.a.Responses) || j.a.Responses[i].Query != want[i] {
			j.refuse(OtherQuestions, want[i].Name, "the archive has no answer to it")
			return false
		}
		r := j.a.Responses[i]
		got, err := open(r)
		var clock time.Time
		if err == nil && r.Name == queryClock {
			clock, err = readClock(r)
		}
		if err != nil {
			j.because(r.Name, err)
			return false
		}
		for _, info := range got.Infos {
			j.infos = append(j.infos, r.Name+": "+info)
		}
		j.answers[r.Name] = got
		if r.Name == queryClock {
			if skew := clock.Sub(j.a.At); skew.Abs() > maxSkew {
				j.refuse(ClockSkew, r.Name, "the server's clock says %s, the clock here %s", clock.Format(time.RFC3339), j.a.At.UTC().Format(time.RFC3339))
			}
			j.end = j.s.End(clock)
			j.start = j.end.Add(-window)
			want = append(want, j.s.Queries(window, j.end)...)
		}
	}
	if len(j.a.Responses) != len(want) {
		j.refuse(OtherQuestions, "", "the archive has %d answers, want %d", len(j.a.Responses), len(want))
		return false
	}
	return true
}

// vector returns the one value of a query, at the end of the window.
func (j *judging) vector(name string) (series, float64, bool) {
	var list []series
	s, err := series{}, result(j.answers[name], "vector", &list)
	if err == nil {
		s, err = one(list)
	}
	switch {
	case err != nil:
	case s.Value == nil:
		err = refusef(NotANumber, "the series has no value")
	case s.Value.t != float64(j.end.Unix()):
		err = refusef(OtherTime, "the value is of %v, want %d", s.Value.t, j.end.Unix())
	default:
		return s, s.Value.v, true
	}
	j.because(name, err)
	return s, 0, false
}

// count returns a value that cannot be negative.
func (j *judging) count(name string) (series, float64, bool) {
	s, v, ok := j.vector(name)
	if ok && v < 0 {
		j.refuse(OutOfDomain, name, "%v is negative", v)
		return s, v, false
	}
	return s, v, ok
}

func (j *judging) server() Server {
	var out Server
	if j.s.anyServer {
		return out
	}
	var build struct{ Version, Revision, GoVersion string }
	if err := json.Unmarshal(j.answers[queryBuild].Data, &build); err != nil {
		j.refuse(NotJSON, queryBuild, "data: %v", err)
	}
	out.Version, out.Revision, out.GoVersion = build.Version, build.Revision, build.GoVersion
	var run struct {
		StartTime        time.Time
		StorageRetention string
	}
	if err := json.Unmarshal(j.answers[queryRuntime].Data, &run); err != nil {
		j.refuse(NotJSON, queryRuntime, "data: %v", err)
		return out
	}
	out.Started, out.Retention = run.StartTime.UTC().Format(time.RFC3339), run.StorageRetention
	if run.StartTime.IsZero() || run.StartTime.After(j.start) {
		j.refuse(Restarted, queryRuntime, "the server was started at %s, the window begins at %s", out.Started, j.start.Format(time.RFC3339))
	}
	if keeps, ok := retention(run.StorageRetention); !ok || keeps < j.window {
		j.refuse(Retention, queryRuntime, "the server keeps %q, the window is %s", run.StorageRetention, j.a.Window)
	}
	return out
}

var retentionText = regexp.MustCompile(`^(?:(\d{1,3})y)?(?:(\d{1,4})w)?(?:(\d{1,5})d)?(?:(\d{1,7})h)?(?:(\d{1,8})m)?(?:(\d{1,9})s)?$`)

// retention reads a duration as Prometheus writes it, such as 15d or 1w2d. A
// limit of size may follow: whether it cut the window off is for the samples to
// show.
func retention(s string) (time.Duration, bool) {
	s, _, _ = strings.Cut(s, " or ")
	m := retentionText.FindStringSubmatch(s)
	if m == nil || s == "" {
		return 0, false
	}
	var sum time.Duration
	for i, unit := range []time.Duration{365 * 24 * time.Hour, 7 * 24 * time.Hour, 24 * time.Hour, time.Hour, time.Minute, time.Second} {
		n, _ := strconv.Atoi("0" + m[i+1])
		sum += time.Duration(n) * unit
	}
	return sum, true
}

// continuity judges whether a required target was up and scraped all the time,
// by each sample: an average over what exists says nothing of what does not.
func (j *judging) continuity(i int, selector string) Target {
	name := fmt.Sprintf("up/%d", i)
	out := Target{Selector: selector}
	var list []series
	s, err := series{}, result(j.answers[name], "matrix", &list)
	if err == nil {
		s, err = one(list)
	}
	if err != nil {
		j.because(name, err)
		return out
	}
	out.Job, out.Instance = s.Metric["job"], s.Metric["instance"]
	interval, start, end := j.s.interval.Seconds(), float64(j.start.Unix()), float64(j.end.Unix())
	last, covered := start, 0.0
	first := end
	step := func(t float64) {
		out.MaxGap = max(out.MaxGap, t-last)
		covered += min(t-last, 1.5*interval) // a scrape that came late still stands for its interval
		last = t
	}
	before := math.Inf(-1)
	for _, p := range s.Values {
		// The left edge is closed in old servers and open in new ones.
		if p.t < start-0.001 || p.t > end+0.001 || p.t <= before {
			j.refuse(OtherTime, name, "a sample of %.3f, after one of %.3f: want them in order, from %.0f to %.0f", p.t, before, start, end)
			return out
		}
		before = p.t
		if p.v == 1 {
			out.Samples++
			first = min(first, p.t)
			step(p.t)
		}
	}
	lastSample := last
	step(end)
	out.MaxGap, out.Covered = tidy(out.MaxGap), min(1, tidy(covered/(end-start)))
	if out.Samples == 0 {
		j.refuse(Empty, name, "it was never up")
		return out
	}
	for _, bad := range []struct {
		is     bool
		code   Code
		detail string
	}{
		{first-start > j.s.maxGap.Seconds(), Short, fmt.Sprintf("samples begin %s after the window does", seconds(first-start))},
		{end-lastSample > j.s.maxStaleness.Seconds(), Stale, fmt.Sprintf("the last sample is %s before the end", seconds(end-lastSample))},
		{out.MaxGap > j.s.maxGap.Seconds(), Gap, fmt.Sprintf("%s without a sample, at most %s are allowed", seconds(out.MaxGap), FormatDuration(j.s.maxGap))},
		{out.Covered < j.s.minCoverage, Coverage, fmt.Sprintf("%.2f%% of the window has samples, want %.2f%%", 100*out.Covered, 100*j.s.minCoverage)},
	} {
		if bad.is {
			j.refuse(bad.code, name, "%s", bad.detail)
		}
	}
	return out
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}

func (j *judging) revision() {
	var list []series
	if err := result(j.answers[queryRevision], "vector", &list); err != nil {
		j.because(queryRevision, err)
		return
	}
	var ran []string
	for _, s := range list {
		ran = append(ran, s.Metric["git_sha"])
	}
	slices.Sort(ran)
	switch {
	case len(ran) == 0:
		j.refuse(Empty, queryRevision, "no series says what ran")
	case len(ran) > 1:
		j.refuse(WrongRevision, queryRevision, "%s ran in the window: want %s and nothing else", strings.Join(ran, " and "), j.a.Revision)
	case ran[0] != j.a.Revision:
		j.refuse(WrongRevision, queryRevision, "%q ran, want %s", ran[0], j.a.Revision)
	}
}

// slice is what happened in one slice of the window.
type slice struct{ good, total float64 }

// ranged returns the values of a range query at the ends of n slices. Where the
// server has none, it is 0: what was not seen was not good.
func (j *judging) ranged(name string, n int, step time.Duration) ([]float64, bool) {
	out := make([]float64, n)
	var list []series
	s, err := series{}, result(j.answers[name], "matrix", &list)
	if err == nil {
		s, err = one(list)
	}
	if err != nil {
		j.because(name, err)
		return nil, false
	}
	first := j.end.Add(-time.Duration(n-1) * step).Unix()
	before := -1
	for _, p := range s.Values {
		off := p.t - float64(first)
		at := int(math.Round(off / step.Seconds()))
		if at <= before || at >= n || off != float64(at)*step.Seconds() {
			j.refuse(OtherTime, name, "a value of %.3f, want one every %s up to %d", p.t, step, j.end.Unix())
			return nil, false
		}
		if p.v < 0 {
			j.refuse(OutOfDomain, name, "%v is negative", p.v)
			return nil, false
		}
		out[at], before = p.v, at
	}
	return out, true
}

// near says whether two counts of one thing agree, as far as a server that
// extrapolates each series by itself lets them.
func near(a, b, tolerance float64) bool { return math.Abs(a-b) <= 1+tolerance*max(a, b) }

// objective judges one objective. What it returns counts only while there is no
// reason to refuse.
func (j *judging) objective(o Objective) KPI {
	k := KPI{
		Key: o.Key, ComplianceKey: o.ComplianceKey, SLO: o.Name, Op: o.Op, Threshold: o.Threshold, Unit: o.Unit, Target: o.Target,
	}
	n, step := j.s.slices(o, j.window)
	good, goodN, ok1 := j.count(o.Key + "/good")
	total, totalN, ok2 := j.count(o.Key + "/total")
	_, resets, ok3 := j.count(o.Key + "/resets")
	goods, ok4 := j.ranged(o.Key+"/good-slices", n, step)
	totals, ok5 := j.ranged(o.Key+"/total-slices", n, step)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 {
		return k
	}
	k.Good, k.Total, k.Resets = tidy(goodN), tidy(totalN), int(resets)
	switch {
	case !maps.Equal(good.Metric, total.Metric):
		j.refuse(ManySeries, o.Key+"/good", "good is counted by %s, total by %s", good.target(), total.target())
	case totalN < float64(o.MinSamples):
		j.refuse(TooFewSamples, o.Key+"/total", "%.1f events, want at least %d", totalN, o.MinSamples)
	case goodN > totalN && !near(goodN, totalN, 0.01):
		j.refuse(OutOfDomain, o.Key+"/good", "%v good of %v", goodN, totalN)
	}
	if int(resets) > j.s.maxResets {
		j.refuse(CounterReset, o.Key+"/resets", "the counter began anew %d times, %d are allowed", int(resets), j.s.maxResets)
	}
	want := o.Target // of a slice
	if o.Kind == Slices {
		want = o.Threshold
	}
	all := make([]slice, n)
	ratios := make([]float64, n)
	for i := range all {
		all[i] = slice{goods[i], totals[i]}
		if totals[i] > 0 {
			ratios[i] = min(1, goods[i]/totals[i])
		} else {
			k.Idle++
		}
		if ratios[i] >= want {
			k.GoodSlices++
		}
	}
	k.Slices = n
	most := 0.1
	if o.Kind == Slices { // here each of them counts
		most = 1 - j.s.minCoverage
	}
	if float64(k.Idle) > tidy(most*float64(n)) {
		j.refuse(Idle, o.Key+"/total-slices", "%d of %d slices of %s had no traffic", k.Idle, n, FormatDuration(step))
	}
	if o.CrossCheck != "" {
		if _, grew, ok := j.count(o.Key + "/cross-check"); ok && !near(grew, totalN, o.Tolerance) {
			j.refuse(Inconsistent, o.Key+"/cross-check", "total counts %.1f, %s grew by %.1f", totalN, o.CrossCheck, grew)
		}
	}
	switch o.Kind {
	case Latency:
		j.latency(o, &k)
	case Slices:
		slices.Sort(ratios)
		slices.Reverse(ratios)
		k.Ratio = tidy(float64(k.GoodSlices) / float64(n))
		// The best ratio that a share of target of the slices reaches.
		k.Value = tidy(ratios[max(0, int(math.Ceil(tidy(o.Target*float64(n))))-1)])
		k.Compliant = k.Value >= o.Threshold
		k.Bound = bound(float64(k.GoodSlices), float64(n))
	default:
		k.Ratio = tidy(min(1, ratio(goodN, totalN)))
		k.Value = k.Ratio
		k.Compliant = k.Value >= o.Threshold
		k.Bound = bound(goodN, totalN)
	}
	k.Thin = k.Compliant && k.Bound < o.Target
	k.Margin = tidy(k.Value - o.Threshold)
	if o.Op == "lte" {
		k.Margin = tidy(o.Threshold - k.Value)
	}
	if k.Compliant {
		if k.Burning = j.burning(o, all, step); k.Burning != "" {
			k.Compliant = false
		}
	}
	return k
}

func ratio(good, total float64) float64 {
	if total == 0 {
		return 0
	}
	return good / total
}

// bound is the least ratio that the counts still speak for: the Wilson score at
// 99 %, one-sided.
func bound(good, total float64) float64 {
	if total <= 0 {
		return 0
	}
	p, z := min(1, good/total), zScore
	centre := p + z*z/(2*total)
	spread := z * math.Sqrt(p*(1-p)/total+z*z/(4*total*total))
	return tidy(max(0, (centre-spread)/(1+z*z/total)))
}

// burning judges the newest parts of a window by themselves: good days must not
// average away a bad last hour. The parts and rates are those of three days (one
// hour at 7.2, six at 3), scaled to the window.
func (j *judging) burning(o Objective, all []slice, step time.Duration) string {
	for _, part := range []struct {
		of   time.Duration
		rate float64
	}{{72, 7.2}, {12, 3}} {
		n := min(len(all), max(1, int((j.window/part.of+step/2)/step)))
		var bad, total float64
		for _, s := range all[len(all)-n:] {
			if o.Kind == Slices {
				total++
				if ratio(s.good, s.total) < o.Threshold {
					bad++
				}
			} else {
				total += s.total
				bad += max(0, s.total-s.good)
			}
		}
		least := float64(o.MinSamples)
		if o.Kind == Slices {
			least = 6
		}
		if total < least {
			continue // too few to say; the window as a whole is judged
		}
		if rate := bad / total / (1 - o.Target); rate > part.rate {
			return fmt.Sprintf("over the last %s the error budget burns %.1f times as fast as it may, at most %.1f is allowed", time.Duration(n)*step, rate, part.rate)
		}
	}
	return ""
}

// latency decides a quantile by the counts at the edge, and interpolates the
// value that people want to see.
func (j *judging) latency(o Objective, k *KPI) {
	name := o.Key + "/buckets"
	var list []series
	if err := result(j.answers[name], "vector", &list); err != nil {
		j.because(name, err)
		return
	}
	type bucket struct{ edge, n float64 }
	var buckets []bucket
	for _, s := range list {
		edge, err := strconv.ParseFloat(s.Metric["le"], 64)
		switch {
		case err != nil || math.IsNaN(edge):
			j.refuse(NotANumber, name, "a bucket with le=%q", s.Metric["le"])
			return
		case s.Value == nil:
			j.refuse(NotANumber, name, "a bucket without a value")
			return
		case s.target() != list[0].target():
			j.refuse(ManySeries, name, "buckets of %s and %s: want one target", list[0].target(), s.target())
			return
		case s.Value.t != float64(j.end.Unix()):
			j.refuse(OtherTime, name, "a value of %v, want %d", s.Value.t, j.end.Unix())
			return
		case s.Value.v < 0:
			j.refuse(OutOfDomain, name, "%v is negative", s.Value.v)
			return
		}
		buckets = append(buckets, bucket{edge, s.Value.v})
	}
	slices.SortFunc(buckets, func(a, b bucket) int {
		if a.edge < b.edge {
			return -1
		}
		return 1
	})
	if len(buckets) == 0 {
		j.refuse(Empty, name, "no buckets")
		return
	}
	at := slices.IndexFunc(buckets, func(b bucket) bool { return b.edge == o.Edge })
	top := len(buckets) - 1
	switch {
	case !math.IsInf(buckets[top].edge, 1):
		j.refuse(Empty, name, "no bucket +Inf")
		return
	case at < 0:
		j.refuse(Empty, name, "no bucket has the edge %v", o.Edge)
		return
	case at+1 >= top:
		j.refuse(Saturated, name, "no bucket ends above %v: every quantile would be at most that", o.Edge)
		return
	case !near(buckets[top].n, k.Total, 0.01):
		j.refuse(Inconsistent, name, "bucket +Inf counts %.1f, total %.1f", buckets[top].n, k.Total)
		return
	case !near(buckets[at].n, k.Good, 0.01):
		j.refuse(Inconsistent, name, "bucket %v counts %.1f, good %.1f", o.Edge, buckets[at].n, k.Good)
		return
	}
	for i := 1; i <= top; i++ {
		if buckets[i].edge == buckets[i-1].edge {
			j.refuse(ManySeries, name, "two buckets with the edge %v", buckets[i].edge)
			return
		}
		if buckets[i].n < buckets[i-1].n {
			if !near(buckets[i].n, buckets[i-1].n, 0.01) {
				j.refuse(Inconsistent, name, "bucket %v counts %.1f, the smaller %v %.1f", buckets[i].edge, buckets[i].n, buckets[i-1].edge, buckets[i-1].n)
				return
			}
			buckets[i].n = buckets[i-1].n
		}
	}
	rank := o.Target * buckets[top].n
	in := slices.IndexFunc(buckets, func(b bucket) bool { return b.n >= rank })
	if in == top {
		j.refuse(Saturated, name, "the quantile %v is above the last bucket, %v", o.Target, buckets[top-1].edge)
		return
	}
	from := bucket{}
	if in > 0 {
		from = buckets[in-1]
	}
	value := buckets[in].edge
	if d := buckets[in].n - from.n; d > 0 {
		value = from.edge + (buckets[in].edge-from.edge)*(rank-from.n)/d
	}
	k.Ratio = tidy(min(1, ratio(k.Good, k.Total)))
	k.Bound = bound(k.Good, k.Total)
	k.Compliant = ratio(k.Good, k.Total) >= o.Target
	k.Value = tidy(value)
	if o.Unit == "ms" {
		k.Value = tidy(value * 1000)
	}
	// The counts at the edge are exact and decide; interpolation may not tell
	// another story than they do.
	switch {
	case k.Compliant:
		k.Value = min(k.Value, o.Threshold)
	case k.Value <= o.Threshold:
		k.Value = math.Nextafter(o.Threshold, math.Inf(1))
	}
}
