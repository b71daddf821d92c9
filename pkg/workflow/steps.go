package workflow

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rhysd/actionlint"
	"go.yaml.in/yaml/v4"
)

// place is where a list of steps stands: it says which steps there may be.
type place int

const (
	inAction place = iota
	inJob
	inParallel
)

var (
	stepKeys    = []string{"id", "if", "name", "env", "continue-on-error", "timeout-minutes", "uses", "with", "run", "shell", "working-directory"}
	controlKeys = []string{"wait", "wait-all", "cancel", "parallel"}
)

// stepReader reads steps into actionlint's terms. Steps that run in the
// background are steps; those that only wait for others, or cancel them, run
// nothing and are left out; and a parallel group is the steps that it holds.
type stepReader struct {
	steps []*actionlint.Step
	nodes []*yaml.Node
	newer map[actionlint.Pos]bool // where the steps stand that run nothing themselves
	bad   *yaml.Node              // what made no sense first
	why   string
}

func (r *stepReader) refuse(n *yaml.Node, format string, args ...any) {
	if r.bad == nil {
		r.bad, r.why = n, fmt.Sprintf(format, args...)
	}
}

func (r *stepReader) read(list *yaml.Node, where place) {
	if list = resolve(list); list.Kind != yaml.SequenceNode {
		r.refuse(list, "not a list of steps")
		return
	}
	if len(list.Content) > maxJobs || len(r.steps) > maxJobs {
		r.refuse(list, "more than %d steps", maxJobs)
		return
	}
	for _, n := range list.Content {
		r.step(resolve(n), where)
	}
}

func (r *stepReader) step(n *yaml.Node, where place) {
	if n.Kind != yaml.MappingNode {
		r.refuse(n, "a step is not a mapping")
		return
	}
	control := ""
	for k, v := range pairs(n) {
		switch {
		case slices.Contains(stepKeys, k.Value):
		case k.Value == "background" && where == inJob && v.Kind == yaml.ScalarNode:
		case slices.Contains(controlKeys, k.Value) && where == inJob && control == "":
			control = k.Value
		default:
			r.refuse(k, "unexpected key %q in a step", k.Value)
			return
		}
	}
	uses, run := text(child(n, "uses")), text(child(n, "run"))
	if control != "" {
		if uses != nil || run != nil {
			r.refuse(n, "a step has both %s: and something to run", control)
			return
		}
		r.newer[actionlint.Pos{Line: n.Line, Col: n.Column}] = true
		if control == "parallel" {
			r.read(child(n, control), inParallel)
		}
		return
	}
	if (uses == nil) == (run == nil) {
		r.refuse(n, "a step needs one of uses: and run:")
		return
	}
	step := &actionlint.Step{If: text(child(n, "if")), Pos: &actionlint.Pos{Line: n.Line, Col: n.Column}, Env: &actionlint.Env{Vars: map[string]*actionlint.EnvVar{}}}
	if v := text(child(n, "continue-on-error")); v != nil {
		step.ContinueOnError = &actionlint.Bool{Value: strings.EqualFold(v.Value, "true"), Pos: v.Pos}
		if strings.Contains(v.Value, "${{") {
			step.ContinueOnError.Expression = v
		}
	}
	for k, v := range pairs(child(n, "env")) {
		if t := text(v); t != nil {
			step.Env.Vars[k.Value] = &actionlint.EnvVar{Name: text(k), Value: t}
		}
	}
	if run != nil {
		step.Exec = &actionlint.ExecRun{Run: run, Shell: text(child(n, "shell")), RunPos: run.Pos}
	} else {
		inputs := map[string]*actionlint.Input{}
		for k, v := range pairs(child(n, "with")) {
			if t := text(v); t != nil {
				inputs[strings.ToLower(k.Value)] = &actionlint.Input{Name: text(k), Value: t}
			}
		}
		step.Exec = &actionlint.ExecAction{Uses: uses, Inputs: inputs}
	}
	r.steps, r.nodes = append(r.steps, step), append(r.nodes, n)
}
