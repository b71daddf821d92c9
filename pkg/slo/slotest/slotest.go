// Package slotest is a Prometheus that has only the answers to one spec and its
// picture: those of a service that was well all the time, or of one of the
// [Cases].
package slotest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/slo"
)

// Server answers the queries of a spec. Its zero fields are those of a service
// that is well.
type Server struct {
	Spec     *slo.Spec
	Window   time.Duration
	Revision string
	Now      func() time.Time

	mu    sync.Mutex
	clock time.Time
	skew  time.Duration
	bend  func(name string, a *Answer)
}

// Answer is what the server says to one query.
type Answer struct {
	Status      int
	ContentType string
	Body        string
}

// Case is something that goes wrong.
type Case struct {
	Bend func(name string, a *Answer)
	Code slo.Code // that it is refused for; empty: it is judged, FAIL
}

// Set chooses what goes wrong from here on; "" for nothing. It reports whether
// there is such a case.
func (s *Server) Set(name string) bool {
	c, ok := Cases[name]
	if bend, only := Pictures[name]; only {
		c, ok = Case{Bend: bend}, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bend, s.skew = c.Bend, 0
	if c.Code == slo.ClockSkew {
		s.skew = -time.Hour
	}
	return ok || name == ""
}

func result(kind string, list any) string {
	b, err := json.Marshal(map[string]any{"status": "success", "data": map[string]any{"resultType": kind, "result": list}})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// pair is a sample as the API writes it.
func pair(t int64, v float64) []any { return []any{t, strconv.FormatFloat(v, 'g', -1, 64)} }

// Ask answers a query, by its path and form alone.
func (s *Server) Ask(path, form string) Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.Spec.First()
	if first[0].Path == path && first[0].Form == form {
		s.clock = s.Now().UTC().Add(s.skew)
	}
	end := s.Spec.End(s.clock)
	for _, q := range slices.Concat(first, s.Spec.Queries(s.Window, end), s.Spec.PanelQueries(s.Window, end)) {
		if q.Path == path && q.Form == form {
			a := Answer{http.StatusOK, "application/json", s.well(q, end)}
			if s.bend != nil {
				s.bend(q.Name, &a)
			}
			return a
		}
	}
	return Answer{http.StatusBadRequest, "application/json", `{"status":"error","errorType":"bad_data","error":"nobody would ask that"}`}
}

// ServeHTTP answers a request as a server does.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a := s.Ask(strings.TrimPrefix(r.URL.Path, "/"), r.PostForm.Encode())
	w.Header().Set("Content-Type", a.ContentType)
	w.WriteHeader(a.Status)
	_, _ = w.Write([]byte(a.Body)) // who went away is not told
}

const hourly = 100_000.0 // events in an hour

// well is the answer about a service that keeps every promise: 99.9 % of
// everything is good.
func (s *Server) well(q slo.Query, end time.Time) string {
	labels := map[string]string{"job": "remembrancer-soak", "instance": "soak:9090"}
	with := func(key, value string) map[string]string {
		m := maps.Clone(labels)
		m[key] = value
		return m
	}
	vector := func(v float64) string {
		return result("vector", []any{map[string]any{"metric": labels, "value": pair(end.Unix(), v)}})
	}
	hours := s.Window.Hours()
	key, what, _ := strings.Cut(q.Name, "/")
	switch key {
	case "panel":
		return s.panel(q, labels, end)
	case "clock":
		return result("scalar", pair(s.clock.Unix(), float64(s.clock.Unix())))
	case "buildinfo":
		return `{"status":"success","data":{"version":"3.13.5","revision":"abc","goVersion":"go1.26"}}`
	case "runtimeinfo":
		return fmt.Sprintf(`{"status":"success","data":{"startTime":%q,"storageRetention":"15d"}}`, end.Add(-s.Window-time.Hour).Format(time.RFC3339))
	case "revision":
		return result("vector", []any{map[string]any{"metric": map[string]string{"git_sha": s.Revision}, "value": pair(end.Unix(), 1)}})
	case "up":
		var points []any
		step := int64(s.Spec.ScrapeInterval().Seconds())
		for t := end.Add(-s.Window).Unix() + 1; t <= end.Unix(); t += step {
			points = append(points, pair(t, 1))
		}
		return result("matrix", []any{map[string]any{"metric": with("__name__", "up"), "values": points}})
	}
	var o slo.Objective
	for _, each := range s.Spec.Objectives() {
		if each.Key == key {
			o = each
		}
	}
	switch what {
	case "good":
		return vector(hours * hourly * 0.999)
	case "total", "cross-check":
		return vector(hours * hourly)
	case "resets":
		return vector(0)
	case "buckets":
		var list []any
		for _, b := range []struct {
			le    float64
			share float64
		}{{o.Edge / 10, 0.5}, {o.Edge / 2, 0.9}, {o.Edge, 0.999}, {o.Edge * 2, 0.9999}, {o.Edge * 10, 1}} {
			list = append(list, map[string]any{"metric": with("le", strconv.FormatFloat(b.le, 'g', -1, 64)), "value": pair(end.Unix(), hours*hourly*b.share)})
		}
		list = append(list, map[string]any{"metric": with("le", "+Inf"), "value": pair(end.Unix(), hours*hourly)})
		return result("vector", list)
	}
	return result("matrix", []any{map[string]any{"metric": labels, "values": s.slices(q, what == "good-slices")}})
}

func (s *Server) slices(q slo.Query, good bool) []any {
	return course(q, func(_, step int64) float64 {
		events := hourly * float64(step) / 3600
		if good {
			events *= 0.999
		}
		return events
	})
}

// course is a value at each step of a range.
func course(q slo.Query, value func(t, step int64) float64) (points []any) {
	number := func(key string) int64 {
		_, rest, _ := strings.Cut("&"+q.Form, "&"+key+"=")
		text, _, _ := strings.Cut(rest, "&")
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			panic(err)
		}
		return n
	}
	step := number("step")
	for t := number("start"); t <= number("end"); t += step {
		points = append(points, pair(t, value(t, step)))
	}
	return points
}

// panel is the answer to a query of the picture: what the verdicts are of, with
// the days to be seen in it.
func (s *Server) panel(q slo.Query, labels map[string]string, end time.Time) string {
	form, err := url.ParseQuery(q.Form)
	if err != nil {
		panic(err)
	}
	expr := form.Get("query")
	if q.Path == "api/v1/query" {
		v := 0.0 // resets
		if strings.HasPrefix(expr, "clamp_max") {
			v = 1
		}
		return result("vector", []any{map[string]any{"metric": labels, "value": pair(end.Unix(), v)}})
	}
	level := 0.999
	switch {
	case strings.HasPrefix(expr, "up"):
		level = 1
	case strings.HasPrefix(expr, "sum(rate("):
		level = hourly / 3600
	case strings.HasPrefix(expr, "(1 - "):
		level = 0.02
	case strings.HasPrefix(expr, "histogram_quantile"):
		for _, o := range s.Spec.Objectives() {
			if o.Kind == slo.Latency && strings.Contains(expr, o.Buckets) {
				level = o.Threshold * 0.7
			}
		}
	}
	swing := 0.1 * level
	if level >= 0.9 && level <= 1 {
		swing = 1 - level // no share is above 1
	}
	points := course(q, func(t, _ int64) float64 {
		day := 2 * math.Pi * float64(t%86400) / 86400
		return level + swing*math.Sin(day)
	})
	return result("matrix", []any{map[string]any{"metric": labels, "values": points}})
}
