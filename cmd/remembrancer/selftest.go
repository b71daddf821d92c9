package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/selftest"
)

var selfTestSpec = action.Spec{
	Name: "federation-selftest", Verb: "federation self-test",
	Summary: "prove with throw-away nodes that merging works, and that lies are caught",
	Description: "Runs real nodes with keys of their own over HTTP on loopback: they merge in any order, are cut off and come together again, restart, disagree about names, and are lied to by a peer " +
		"that answers without end, slowly, with another set, with a shorter log and with a forked one. Each lie must be caught. Nothing is read or written outside of a temporary folder.",
	Inputs: []action.Input{
		{Name: "nodes", Kind: action.Int, Default: "2", Usage: fmt.Sprintf("How many nodes come to one root by talking to their neighbours: 2 to %d.", selftest.MaxNodes)},
		{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON.", CLIOnly: true},
	},
	Outputs: []action.Output{
		{Name: "verdict", Usage: "pass, fail or error."},
		{Name: "passed", Usage: "Number of cases that passed."},
		{Name: "total", Usage: "Number of cases."},
	},
	Examples: []string{"remembrancer federation self-test --nodes 3"},
}

var selfTestVerb = verb{spec: selfTestSpec, run: func(w *world, v *action.Values, r *action.Runner) error {
	verdict, err := w.selfTest(v.Int("nodes"), v.Bool("json"))
	if err != nil {
		return err
	}
	passed := 0
	for _, c := range verdict.Checks {
		if c.Status == judge.Pass {
			passed++
			continue
		}
		r.Annotate(action.Error, "", 0, c.ID, c.Claim+": "+c.Detail)
	}
	for name, value := range map[string]string{"verdict": verdict.Status.String(), "passed": fmt.Sprint(passed), "total": fmt.Sprint(len(verdict.Checks))} {
		if err := r.SetOutput(name, value); err != nil {
			return err
		}
	}
	if r.InActions() {
		if err := r.Summary(selfTestSummary(verdict)); err != nil {
			return err
		}
	}
	return quietly(verdictExit(verdict.Status))
}}

// selfTest runs all cases and shows them.
func (w *world) selfTest(nodes int, asJSON bool) (judge.Verdict, error) {
	if nodes < 2 || nodes > selftest.MaxNodes {
		return judge.Verdict{}, misused("--nodes %d: want 2 to %d", nodes, selftest.MaxNodes)
	}
	began := w.now()
	o := selftest.Options{Nodes: nodes, Random: w.rand, Now: w.now}
	if watched(w.stderr) {
		done := 0
		o.Done = func(c judge.Check) {
			done++
			fmt.Fprintf(w.stderr, "\r\x1b[K   %d cases ended, %s the last", done, c.ID)
		}
	}
	checks, err := selftest.Run(w.ctx, o)
	w.clearProgress()
	if err != nil {
		return judge.Verdict{}, err
	}
	verdict := judge.Sum(checks, nil)
	if asJSON {
		return verdict, w.sayJSON(verdict)
	}
	for _, c := range verdict.Checks {
		w.say("%s %-32s %s", c.Mark(), c.ID, c.Claim)
		if c.Status != judge.Pass {
			w.say("     %s", action.Defang(strings.ReplaceAll(c.Detail, "\n", "\n     ")))
		}
	}
	w.say("%s  %s, in %v", strings.ToUpper(verdict.Status.String()), verdict.Line(), w.now().Sub(began).Round(10*time.Millisecond))
	return verdict, nil
}

// selfTestSummary is the table of cases for a run's page.
func selfTestSummary(v judge.Verdict) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### federation-selftest: %s\n\n| | case | what must hold | what was seen |\n|---|---|---|---|\n", v.Status)
	for _, c := range v.Checks {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.Mark(), action.EscapeMarkdown(c.ID), action.EscapeMarkdown(c.Claim), action.EscapeMarkdown(c.Detail))
	}
	return b.String()
}
