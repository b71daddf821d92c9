package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/action"
)

// checkSpec is the action at the root of the repository.
var checkSpec = action.Spec{
	Name: "remembrancer", Verb: "check",
	Summary: "carry out several gates, without a key",
	Description: "Carries out the gates that are named, one after the other, each as its own command does, whether or not one before it failed. " +
		"It passes when all of them do. Unlike gate it signs nothing, so it is for jobs that run the code of strangers.",
	Inputs: []action.Input{
		{Name: "gate", Kind: action.List, Default: "smoke,covenant", Usage: "Gates to carry out: smoke, covenant, integrity, doctor"},
		{Name: "results", Kind: action.List, Usage: "For smoke: judge these reports of tests; see smoke --results"},
		{Name: "run", Kind: action.Bool, Usage: "For smoke, with results: run the smoke command first."},
		{Name: "report", Kind: action.Path, Usage: "Write the unsigned smoke report here, to be handed to the publisher."},
		{Name: "sarif-file", Kind: action.Path, Usage: "Write the covenants' verdict as SARIF 2.1.0 here."},
		policyIDInput,
	},
	Outputs: []action.Output{
		{Name: "verdict", Usage: "pass, fail or error: the worst of all gates."},
		{Name: "passed", Usage: "Number of tests that passed, where smoke is a gate."},
		{Name: "total", Usage: "Number of tests, where smoke is a gate."},
		{Name: "report-sha256", Usage: "SHA-256 of the smoke report's bytes."},
	},
	Examples: []string{"remembrancer check", "remembrancer check --gate smoke,integrity,doctor"},
}

var checkVerb = verb{spec: checkSpec, run: runCheck}

// gateArgs returns the verb behind the name of a gate, and its flags.
func gateArgs(name string, v *action.Values) (*verb, []string, error) {
	pass := func(args []string, flags ...string) []string {
		for _, f := range flags {
			if s := v.String(f); s != "" {
				args = append(args, "--"+f, s)
			}
		}
		return args
	}
	switch name {
	case "smoke":
		args := pass(nil, "report")
		for _, pattern := range v.List("results") {
			args = append(args, "--results", pattern)
		}
		if v.Bool("run") {
			args = append(args, "--run")
		}
		return &smokeVerb, args, nil
	case "covenant":
		return &covenantVerb, pass(nil, "sarif-file", "policy-id"), nil
	case "integrity":
		return &covenantVerb, pass([]string{"--only", "integrity"}, "policy-id"), nil
	case "doctor":
		return &doctorVerb, nil, nil
	}
	return nil, nil, misused("--gate %q: want smoke, covenant, integrity or doctor", name)
}

func runCheck(w *world, v *action.Values, r *action.Runner) error {
	gates := v.List("gate")
	if len(gates) == 0 {
		return misused("--gate names none: want smoke, covenant, integrity or doctor")
	}
	if has := func(g string) bool { return slices.Contains(gates, g) }; v.String("sarif-file") != "" && !has("covenant") {
		return misused("--sarif-file is written by the gate covenant, which --gate does not name")
	} else if (v.String("report") != "" || len(v.List("results")) > 0 || v.Bool("run")) && !has("smoke") {
		return misused("--report, --results and --run are for the gate smoke, which --gate does not name")
	}
	code, lines := exitPass, []string{}
	for i, name := range gates {
		if slices.Contains(gates[:i], name) {
			return misused("--gate names %s twice", name)
		}
		if _, _, err := gateArgs(name, v); err != nil {
			return err
		}
	}
	for _, name := range gates {
		sub, args, err := gateArgs(name, v)
		if err != nil {
			return err
		}
		values, err := action.Parse(sub.spec, args, w.getenv, w.stdout)
		if err != nil {
			return misused("%s: %v", name, err)
		}
		w.say("── %s", name)
		one, outputs := r.Part(sub.spec)
		err = sub.run(w, values, one)
		if flushErr := one.Flush(); err == nil {
			err = flushErr
		}
		if err != nil && !errors.Is(err, errSaid) {
			w.note("remembrancer %s: %s", sub.spec.Verb, action.Defang(err.Error()))
		}
		for _, o := range checkSpec.Outputs[1:] { // the verdict is that of all
			if value, ok := outputs()[o.Name]; ok {
				if err := r.SetOutput(o.Name, value); err != nil {
					return err
				}
			}
		}
		c := exitCode(err)
		code = worse(code, c)
		lines = append(lines, fmt.Sprintf("%s %s", mark(verdictWord(c)), name))
	}
	if err := r.SetOutput("verdict", verdictWord(code)); err != nil {
		return err
	}
	w.say("%s  %s", strings.ToUpper(verdictWord(code)), strings.Join(lines, "  "))
	return quietly(code)
}
