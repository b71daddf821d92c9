package chart_test

import (
	"math"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/chart"
)

var (
	start = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	end   = start.Add(72 * time.Hour)
)

// wave is a point every five minutes, without those in the hole.
func wave(name string, mean, swing float64, holeFrom, holeTo time.Duration) chart.Series {
	s := chart.Series{Name: name}
	for at := time.Duration(0); at <= 72*time.Hour; at += 5 * time.Minute {
		if at > holeFrom && at < holeTo {
			continue
		}
		h := at.Hours()
		v := mean + swing*math.Sin(h/24*2*math.Pi) + swing*0.4*math.Sin(h*7.3) + swing*0.3*math.Sin(h*31.7)
		s.Points = append(s.Points, chart.Point{Time: start.Add(at), Value: v})
	}
	return s
}

// staging is a board with everything that a board can hold.
func staging() *chart.Board {
	gap := [2]time.Duration{30 * time.Hour, 36 * time.Hour}
	missed := wave("rtt p95", 0.33, 0.035, gap[0], gap[1])
	missed.Points[500].Value = 0.71
	return &chart.Board{
		Title:    "AURORA-AKASH-001: canary SLOs",
		Subtitle: "staging, revision 0fc22d5a, Prometheus 3.13.5",
		Badge:    chart.Badge{Text: "FAIL · 2 of 4 met", Status: chart.Missed},
		Banner:   "SYNTHETIC DATA: made for a test, never measured, not promotable",
		Caption:  "Rendered by Remembrancer from the answers archived in evidence.tar (sha256 8f3c…), not by Grafana. Hatched: time without data.",
		Start:    start, End: end, Step: 5 * time.Minute, Columns: 12,
		Panels: []chart.Panel{
			{
				Title: "Fill rate, in slices of 5 minutes", Note: "submissions due that ended in a verified receipt", Unit: chart.Ratio, Span: 6,
				Series: []chart.Series{wave("fill", 0.94, 0.03, gap[0], gap[1])}, Limits: []chart.Limit{{Value: 0.8, AtLeast: true}},
				Stat: &chart.Stat{Value: 0.8714, Status: chart.Met},
			},
			{
				Title: "Round trip, p95", Note: "intended send to verified receipt", Unit: chart.Seconds, Span: 6,
				Series: []chart.Series{missed}, Limits: []chart.Limit{{Value: 0.35}},
				Stat: &chart.Stat{Value: 0.35004, Status: chart.Missed},
			},
			{
				Title: "Provenance coverage", Note: "entries an independent auditor verified again", Unit: chart.Ratio, Span: 4,
				Series: []chart.Series{wave("coverage", 0.985, 0.006, gap[0], gap[1])}, Limits: []chart.Limit{{Value: 0.95, AtLeast: true}},
				Stat: &chart.Stat{Value: 0.985, Status: chart.Met},
			},
			{
				Title: "Policy evaluation, p99", Note: "on the server alone", Unit: chart.Seconds, Span: 4,
				Limits: []chart.Limit{{Value: 0.025}}, Missing: "the series remembrancer_policy_evaluation_duration_seconds has no samples in this window",
				Stat: &chart.Stat{Value: math.NaN()},
			},
			{
				Title: "Operations by outcome", Unit: chart.PerSecond, Span: 4,
				Series: []chart.Series{wave("verified", 120, 60, gap[0], gap[1]), wave("denied as expected", 14, 6, gap[0], gap[1]), wave("timeout", 2, 1, gap[0], gap[1])},
			},
			{Title: "Window covered", Unit: chart.Ratio, Number: true, Span: 3, Limits: []chart.Limit{{Value: 0.99, AtLeast: true}}, Stat: &chart.Stat{Value: 0.9177, Status: chart.Missed}},
			{Title: "Longest gap", Unit: chart.Seconds, Number: true, Span: 3, Limits: []chart.Limit{{Value: 300}}, Stat: &chart.Stat{Value: 21600, Status: chart.Missed}},
			{Title: "Ledger", Unit: chart.Count, Number: true, Span: 3, Note: "entries", Stat: &chart.Stat{Value: 28412}},
			{Title: "Restarts", Unit: chart.Count, Number: true, Span: 3, Stat: &chart.Stat{Value: 0}},
		},
	}
}
