package slotest

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/slo"
)

// at bends the answer to one query, or to all whose name ends so.
func at(name string, bend func(a *Answer)) func(string, *Answer) {
	return func(n string, a *Answer) {
		if n == name || strings.HasPrefix(name, "/") && strings.HasSuffix(n, name) {
			bend(a)
		}
	}
}

// body changes the answer's data.
func body(change func(data map[string]any)) func(*Answer) {
	return func(a *Answer) {
		var all map[string]any
		dec := json.NewDecoder(strings.NewReader(a.Body))
		dec.UseNumber()
		if err := dec.Decode(&all); err != nil {
			panic(err)
		}
		change(all["data"].(map[string]any))
		out, err := json.Marshal(all)
		if err != nil {
			panic(err)
		}
		a.Body = string(out)
	}
}

// value replaces the one value.
func value(v any) func(*Answer) {
	return body(func(data map[string]any) {
		data["result"].([]any)[0].(map[string]any)["value"].([]any)[1] = v
	})
}

// points changes the samples of the one series. In a sample, 0 is the time and 1
// the value.
func points(change func(all []any) []any) func(*Answer) {
	return body(func(data map[string]any) {
		s := data["result"].([]any)[0].(map[string]any)
		s["values"] = change(s["values"].([]any))
	})
}

func label(key, v string) func(*Answer) {
	return body(func(data map[string]any) {
		data["result"].([]any)[0].(map[string]any)["metric"].(map[string]any)[key] = v
	})
}

func all(v string) func(*Answer) {
	return points(func(list []any) []any {
		for _, p := range list {
			p.([]any)[1] = v
		}
		return list
	})
}

var none = body(func(data map[string]any) { data["result"] = []any{} })

var twice = body(func(data map[string]any) {
	list := data["result"].([]any)
	data["result"] = append(list, list[0])
})

func says(status int, contentType, text string) func(*Answer) {
	return func(a *Answer) { *a = Answer{status, contentType, text} }
}

func both(fs ...func(string, *Answer)) func(string, *Answer) {
	return func(n string, a *Answer) {
		for _, f := range fs {
			f(n, a)
		}
	}
}

func part(from, to float64) func(all []any) []any {
	return func(all []any) []any { return all[int(from*float64(len(all))):int(to*float64(len(all)))] }
}

// Cases are what can go wrong. They hold for a spec with the objectives
// fill_rate_p95 and rtt_p95_ms.
var Cases = map[string]Case{
	// What the ancestor's reporter called compliant.
	"null":     {at("rtt_p95_ms/good", value(nil)), slo.NotANumber},
	"missing":  {at("rtt_p95_ms/good", none), slo.Empty},
	"infinite": {at("rtt_p95_ms/good", value("+Inf")), slo.NotFinite},
	"nan":      {at("rtt_p95_ms/total", value("NaN")), slo.NotFinite},
	"outage":   {both(at("fill_rate_p95/good", value("0")), at("fill_rate_p95/good-slices", all("0"))), ""},

	"two-series":     {at("fill_rate_p95/total", twice), slo.ManySeries},
	"two-targets":    {at("up/0", twice), slo.ManySeries},
	"other-target":   {at("fill_rate_p95/good", label("instance", "stable:9090")), slo.ManySeries},
	"warnings":       {at("fill_rate_p95/good", func(a *Answer) { a.Body = strings.Replace(a.Body, `{`, `{"warnings":["out of order"],`, 1) }), slo.Warned},
	"error":          {at("fill_rate_p95/good", says(200, "application/json", `{"status":"error","error":"too many samples"}`)), slo.APIError},
	"5xx":            {at("fill_rate_p95/good", says(503, "text/plain", "starting")), slo.ServerError},
	"4xx":            {at("clock", says(404, "text/plain", "not found")), slo.HTTPStatus},
	"unauthorized":   {at("clock", says(401, "text/plain", "who are you")), slo.Unauthorized},
	"truncated":      {at("up/0", func(a *Answer) { a.Body = a.Body[:len(a.Body)/2] }), slo.Truncated},
	"login":          {at("clock", says(200, "text/html", "<!doctype html><title>Log in</title>")), slo.NotJSON},
	"another-type":   {at("fill_rate_p95/good", func(a *Answer) { a.Body = strings.Replace(a.Body, "vector", "matrix", 1) }), slo.NotJSON},
	"stale":          {at("up/0", points(part(0, 0.9))), slo.Stale},
	"gap":            {at("up/1", points(func(all []any) []any { return append(part(0, 0.5)(all), part(0.6, 1)(all)...) })), slo.Gap},
	"short":          {at("up/0", points(part(0.97, 1))), slo.Short},
	"down":           {at("up/0", points(down)), slo.Coverage},
	"never-up":       {at("up/0", all("0")), slo.Empty},
	"few":            {at("rtt_p95_ms/total", value("12")), slo.TooFewSamples},
	"idle":           {at("fill_rate_p95/total-slices", points(part(0.5, 1))), slo.Idle},
	"wrong-revision": {at("revision", label("git_sha", strings.Repeat("f", 40))), slo.WrongRevision},
	"two-revisions":  {at("revision", twice), slo.WrongRevision},
	"no-revision":    {at("revision", none), slo.Empty},
	"reset":          {at("fill_rate_p95/resets", value("1")), slo.CounterReset},
	"negative":       {at("fill_rate_p95/good", value("-1")), slo.OutOfDomain},
	"too-good":       {at("rtt_p95_ms/good", value("1e12")), slo.OutOfDomain},
	"restarted": {at("runtimeinfo", body(func(data map[string]any) {
		started, err := time.Parse(time.RFC3339, data["startTime"].(string))
		if err != nil {
			panic(err)
		}
		data["startTime"] = started.Add(90 * time.Minute).Format(time.RFC3339)
	})), slo.Restarted},
	"retention":    {at("runtimeinfo", body(func(data map[string]any) { data["storageRetention"] = "1s" })), slo.Retention},
	"skew":         {nil, slo.ClockSkew}, // the server is an hour behind
	"disagreement": {at("/cross-check", value("1")), slo.Inconsistent},
	"lost-bucket":  {at("rtt_p95_ms/buckets", body(func(data map[string]any) { data["result"] = data["result"].([]any)[5:] })), slo.Empty},
	"no-headroom": {at("rtt_p95_ms/buckets", body(func(data map[string]any) {
		list := data["result"].([]any)
		data["result"] = append(list[:3:3], list[5])
	})), slo.Saturated},
	"old": {at("rtt_p95_ms/total", body(func(data map[string]any) {
		data["result"].([]any)[0].(map[string]any)["value"].([]any)[0] = 1
	})), slo.OtherTime},

	// Judged, and found wanting.
	"slow":       {slow("rtt_p95_ms"), ""},
	"last-hours": {at("fill_rate_p95/good-slices", points(lastBad)), ""},
}

// Pictures are what can go wrong with the picture alone: the verdict is a pass.
var Pictures = map[string]func(name string, a *Answer){
	"panel-empty": at("panel/5/0", none),
	"panel-5xx":   at("panel/5/0", says(503, "text/plain", "too busy")),
	"panel-hole":  at("panel/5/0", points(func(all []any) []any { return append(part(0, 0.4)(all), part(0.6, 1)(all)...) })),
}

// down is a target that answers every second scrape.
func down(list []any) []any {
	for i, p := range list {
		if i%2 == 1 {
			p.([]any)[1] = "0"
		}
	}
	return list
}

// lastBad is a service that is down in the newest twentieth of the window.
func lastBad(list []any) []any {
	for _, p := range list[len(list)-len(list)/24:] {
		p.([]any)[1] = "0"
	}
	return list
}

// slow has a tenth of all events beyond the edge.
func slow(key string) func(string, *Answer) {
	return func(n string, a *Answer) {
		if n == key+"/good" {
			body(func(data map[string]any) {
				p := data["result"].([]any)[0].(map[string]any)["value"].([]any)
				v, err := strconv.ParseFloat(p[1].(string), 64)
				if err != nil {
					panic(err)
				}
				p[1] = strconv.FormatFloat(v/0.999*0.9, 'g', -1, 64)
			})(a)
		}
		if n == key+"/buckets" {
			body(func(data map[string]any) {
				list := data["result"].([]any)
				at := func(i int) []any { return list[i].(map[string]any)["value"].([]any) }
				at(2)[1] = at(1)[1] // no more than 90 % reach the edge
			})(a)
		}
	}
}
