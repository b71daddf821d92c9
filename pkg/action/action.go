// Package action is the edge between a verb and whoever runs it: a person at a
// shell, a script, or the runner of a workflow.
//
// A verb declares its inputs and outputs once, as a [Spec]. From that one
// declaration come the command line flags, the text of --help, the INPUT_
// variables of a runner, the action.yml of a Docker action, that of its
// composite twin, and the tables of the README. What the verb then sees is a
// [Values], parsed and checked, and what it says to the runner goes through a
// [Runner].
//
//	spec := action.Spec{
//		Name: "smoke-gate", Verb: "smoke", Summary: "judge a smoke test",
//		Inputs:  []action.Input{{Name: "expected-total", Kind: action.Int, Usage: "tests that must run"}},
//		Outputs: []action.Output{{Name: "verdict", Usage: "pass, fail or error"}},
//	}
//	v, err := action.Parse(spec, args, getenv, stdout)
//
// # Inputs
//
// The value of an input is the first of these that is there:
//
//  1. the flag (-name or --name, before or after positional arguments; what
//     follows "--" is positional),
//  2. only in [ParseAction]: the runner's variable; an empty one counts as
//     absent, because a runner sets every declared input,
//  3. the variable the input names as its Env, when not empty,
//  4. the default.
//
// A runner hands "expected-total" to a Docker action as INPUT_EXPECTED-TOTAL:
// upper case, spaces become underscores, dashes stay. It hands a composite
// action nothing, and some shells drop variables with dashes, so the composite
// manifest maps each input to REMEMBRANCER_INPUT_EXPECTED_TOTAL and runs the
// binary with --composite as the first argument after the action's name. Only
// then are those names read, and then only those: an earlier step of a job can
// set any variable that the runner does not set itself, so reading both would
// let it choose an input that the workflow left to its default.
//
// Booleans are true or false (also True, TRUE, False, FALSE: the YAML core
// schema); integers are plain decimals without sign, zeros or separators in
// front, but for a minus; durations are Go durations without sign (90s, 1h30m).
// A list has one item a line or between commas. A path, when a runner calls,
// must stay in the workspace (see [ResolvePath]). A secret has no flag, since
// process lists and shell histories show flags.
//
// # Outputs
//
// An output is one line by type: [Runner.SetOutput] refuses any other value,
// and frames what it writes with a random delimiter, so that no test name or
// commit message can close the frame and add an output of its own. Neither
// GITHUB_ENV nor GITHUB_PATH is ever written.
//
// # What it refuses
//
// An unknown flag (naming the nearest known one), a value that does not parse,
// a path that leaves the workspace, a multi-line output, an undeclared output,
// and runner variables that are missing or malformed. Mistakes in a declaration
// are a programmer's, and panic.
package action

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	githubactions "github.com/sethvargo/go-githubactions"
)

// program is the name of the binary in usage lines and manifests.
const program = "remembrancer"

// compositeFlag is what a composite manifest puts after the action's name.
const compositeFlag = "--composite"

// ErrHelp is returned by Parse and ParseAction after they have written the
// help that -h or --help asked for.
var ErrHelp = flag.ErrHelp

// Kind is what the text of an input must parse as.
type Kind int

// The kinds of input. The zero value is String.
const (
	String   Kind = iota // any text
	Bool                 // true or false; as a flag, its presence is true
	Int                  // a decimal integer that fits an int
	Duration             // a Go duration without sign, such as 90s
	Path                 // a file; inside the workspace when a runner calls
	Secret               // text that is never a flag and never in a message
	List                 // items between newlines or commas; the flag repeats
)

func (k Kind) placeholder() string {
	return [...]string{"TEXT", "", "N", "DURATION", "PATH", "SECRET", "ITEM"}[k]
}

// Spec declares a verb: what it is called, what it takes and what it gives.
type Spec struct {
	Name        string   // of the action, such as "smoke-gate"; empty if the verb is not one
	Verb        string   // on the command line, such as "smoke" or "adr create"
	Summary     string   // one line
	Description string   // paragraphs, parted by blank lines
	Args        string   // usage of positional arguments, such as "[FILE]"; empty: none are taken
	Inputs      []Input  // in the order in which they are shown
	Outputs     []Output // in the order in which they are shown
	Examples    []string // command lines
	Exit        string   // what to add to the table of exit status
}

// Input declares one input of a verb.
type Input struct {
	Name     string   // lower case words with dashes: the flag and the action's input
	Usage    string   // one or two sentences, without the default
	Default  string   // as text, parsed like any other value
	Required bool     // absent or empty is an error
	Kind     Kind     // String when not set
	Choices  []string // for String: the only values allowed, besides an empty default
	Env      string   // a variable read when neither flag nor runner gives a value

	// ActionDefault is the default of the manifest only, and the one place
	// where an expression such as "${{ github.token }}" may stand.
	ActionDefault string

	CLIOnly    bool // not in manifests, not read from a runner
	ActionOnly bool // no flag
}

// Output declares one output of a verb.
type Output struct {
	Name  string // lower case words with dashes
	Usage string // what it says
}

var (
	nameRE = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	envRE  = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
	intRE  = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)
	durRE  = regexp.MustCompile(`^[0-9]`)
)

// check panics if the declaration contradicts itself. Everything else in this
// package relies on it, the renderers for names that need no quoting.
func (s *Spec) check() {
	bad := func(format string, args ...any) {
		panic(fmt.Sprintf("action %q (verb %q): ", s.Name, s.Verb) + fmt.Sprintf(format, args...))
	}
	if s.Verb == "" || s.Summary == "" || strings.ContainsAny(s.Verb+s.Summary+s.Args, "\r\n") {
		bad("verb and summary must be there, and one line each, like args")
	}
	if s.Name != "" && !nameRE.MatchString(s.Name) {
		bad("name is not words with dashes")
	}
	if strings.Contains(s.Summary, "${{") {
		bad("summary holds an expression")
	}
	seen := map[string]bool{"h": true, "help": true, "composite": true, "binary": true}
	for _, in := range s.Inputs {
		switch {
		case !nameRE.MatchString(in.Name):
			bad("input %q is not words with dashes", in.Name)
		case seen[in.Name]:
			bad("input %q is declared twice or reserved", in.Name)
		case in.Kind < String || in.Kind > List:
			bad("input %q has no such kind", in.Name)
		case in.Usage == "" || strings.Contains(in.Usage+in.Default, "${{"):
			bad("input %q needs a usage, and expressions stand only in ActionDefault", in.Name)
		case oneLine(in.Default) != in.Default || oneLine(in.ActionDefault) != in.ActionDefault:
			bad("input %q has a default that is not words on one line", in.Name)
		case in.Required && in.Default+in.ActionDefault != "":
			bad("input %q is required and has a default", in.Name)
		case in.CLIOnly && in.ActionOnly:
			bad("input %q can be given nowhere", in.Name)
		case in.CLIOnly && in.ActionDefault != "":
			bad("input %q has a default for a manifest it is not in", in.Name)
		case in.Env != "" && !envRE.MatchString(in.Env):
			bad("input %q: %q is not the name of a variable", in.Name, in.Env)
		case in.Kind == Secret && in.Default != "":
			bad("input %q is a secret with a public default", in.Name)
		case in.Kind == Secret && in.Env == "" && !in.ActionOnly:
			bad("input %q is a secret: it has no flag and needs an Env", in.Name)
		case len(in.Choices) > 0 && in.Kind != String:
			bad("input %q has choices but is not a String", in.Name)
		}
		if in.Default != "" {
			if _, err := in.convert(in.Default); err != nil {
				bad("default of input %q: %v", in.Name, err)
			}
		}
		seen[in.Name] = true
	}
	outs := map[string]bool{}
	for _, o := range s.Outputs {
		if !nameRE.MatchString(o.Name) || outs[o.Name] || o.Usage == "" {
			bad("output %q must be words with dashes, declared once, with a usage", o.Name)
		}
		outs[o.Name] = true
	}
}

// hasFlag tells whether the input can be given on the command line.
func (in *Input) hasFlag() bool { return in.Kind != Secret && !in.ActionOnly }

// compositeEnv is the variable in which the composite manifest gives it.
func (in *Input) compositeEnv() string {
	return "REMEMBRANCER_INPUT_" + strings.ToUpper(strings.ReplaceAll(in.Name, "-", "_"))
}

// Values holds the inputs of one call, all of them parsed.
type Values struct {
	verb string
	vals map[string]value
	args []string
}

type value struct {
	kind  Kind
	given bool
	text  string
	flag  bool
	num   int
	dur   time.Duration
	list  []string
}

// String returns an input of kind String, Path or Secret; "" if it was not
// given and has no default. Like all accessors it panics if the name is not
// declared or is of another kind.
func (v *Values) String(name string) string { return v.get(name, String, Path, Secret).text }

// Bool returns an input of kind Bool.
func (v *Values) Bool(name string) bool { return v.get(name, Bool).flag }

// Int returns an input of kind Int; 0 if it was not given and has no default
// (ask Given).
func (v *Values) Int(name string) int { return v.get(name, Int).num }

// Duration returns an input of kind Duration; never negative.
func (v *Values) Duration(name string) time.Duration { return v.get(name, Duration).dur }

// List returns the items of an input of kind List, without empty ones.
func (v *Values) List(name string) []string { return slices.Clone(v.get(name, List).list) }

// Args returns the positional arguments.
func (v *Values) Args() []string { return slices.Clone(v.args) }

// Given tells whether the input came from a flag, a runner or a variable. A
// runner's value that equals the default does not count: the runner fills in
// the defaults of the manifest.
func (v *Values) Given(name string) bool {
	return v.get(name, String, Bool, Int, Duration, Path, Secret, List).given
}

// Secrets returns every secret that was given, sorted, for [Runner.Mask].
func (v *Values) Secrets() []string {
	var secrets []string
	for _, val := range v.vals {
		if val.kind == Secret && val.text != "" {
			secrets = append(secrets, val.text)
		}
	}
	slices.Sort(secrets)
	return secrets
}

func (v *Values) get(name string, kinds ...Kind) value {
	val, ok := v.vals[name]
	if !ok || !slices.Contains(kinds, val.kind) {
		panic(fmt.Sprintf("action: verb %q reads input %q, which is not declared or of another kind", v.verb, name))
	}
	return val
}

// source is who besides the flags gives the inputs.
type source int

const (
	fromShell source = iota
	fromDocker
	fromComposite
)

// Parse reads the inputs of a verb that a person or a script called. If args
// ask for help, it is written to help and the error is ErrHelp. Any other
// error is about flags or variables: exit status 2.
func Parse(spec Spec, args []string, getenv func(string) string, help io.Writer) (*Values, error) {
	return parse(spec, args, getenv, help, fromShell)
}

// ParseAction reads the inputs of a verb that a runner called as "remembrancer
// action NAME args...". It differs from Parse in two things: the runner's
// variables are read, and paths are resolved in GITHUB_WORKSPACE.
func ParseAction(spec Spec, args []string, getenv func(string) string, help io.Writer) (*Values, error) {
	if len(args) > 0 && args[0] == compositeFlag {
		return parse(spec, args[1:], getenv, help, fromComposite)
	}
	return parse(spec, args, getenv, help, fromDocker)
}

// rawFlag collects the text of a flag. Parsing it waits for [Input.convert],
// so that a flag, a variable and a default obey the same rules.
type rawFlag struct {
	kind Kind
	raw  []string
}

func (f *rawFlag) String() string     { return "" }
func (f *rawFlag) Set(s string) error { f.raw = append(f.raw, s); return nil }
func (f *rawFlag) IsBoolFlag() bool   { return f.kind == Bool }

func parse(spec Spec, args []string, getenv func(string) string, help io.Writer, src source) (*Values, error) {
	spec.check()
	fs := flag.NewFlagSet(spec.Verb, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	flags := map[string]*rawFlag{}
	for _, in := range spec.Inputs {
		if in.hasFlag() {
			flags[in.Name] = &rawFlag{kind: in.Kind}
			fs.Var(flags[in.Name], in.Name, in.Usage)
		}
	}

	v := &Values{verb: spec.Verb, vals: map[string]value{}}
	// One flag at a time goes to the flag package, which by itself would stop
	// at the first positional argument.
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			v.args = append(v.args, args[i+1:]...)
			break
		}
		name, hasValue, isFlag := flagName(arg)
		if !isFlag {
			v.args = append(v.args, arg)
			continue
		}
		if name == "h" || name == "help" {
			if _, err := io.WriteString(help, Help(spec)); err != nil {
				return nil, err
			}
			return nil, ErrHelp
		}
		f := flags[name]
		if f == nil {
			return nil, spec.unknownFlag(name)
		}
		one := args[i : i+1]
		if f.kind != Bool && !hasValue {
			i++
			if i == len(args) {
				return nil, fmt.Errorf("--%s needs a value, found none", name)
			}
			if next, _, ok := flagName(args[i]); ok && flags[next] != nil {
				return nil, fmt.Errorf("--%s needs a value, found the flag %s; if that is the value, write --%s=%s", name, args[i], name, args[i])
			}
			one = args[i-1 : i+1]
		}
		if err := fs.Parse(one); err != nil {
			return nil, err
		}
	}
	if spec.Args == "" && len(v.args) > 0 {
		return nil, fmt.Errorf("found argument %q, wanted only flags; try %s %s --help", v.args[0], program, spec.Verb)
	}

	for _, in := range spec.Inputs {
		val, err := in.resolve(flags[in.Name], getenv, src)
		if err != nil {
			return nil, err
		}
		v.vals[in.Name] = val
	}
	return v, nil
}

// flagName takes apart a word of the command line. A lone dash is no flag.
func flagName(arg string) (name string, hasValue, isFlag bool) {
	if len(arg) < 2 || arg[0] != '-' || arg == "--" {
		return "", false, false
	}
	name, _, hasValue = strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
	return name, hasValue, true
}

func (s *Spec) unknownFlag(name string) error {
	var known []string
	for _, in := range s.Inputs {
		if in.Name == name && in.Kind == Secret {
			hint := "it is given only by the workflow"
			if in.Env != "" {
				hint = "set " + in.Env
			}
			return fmt.Errorf("--%s is a secret and not a flag, since process lists show flags; %s", name, hint)
		}
		if in.Name == name && in.ActionOnly {
			return fmt.Errorf("--%s is given only by a workflow", name)
		}
		if in.hasFlag() {
			known = append(known, in.Name)
		}
	}
	if near := Nearest(name, known); near != "" {
		return fmt.Errorf("unknown flag --%s; did you mean --%s?", name, near)
	}
	return fmt.Errorf("unknown flag --%s; try %s %s --help", name, program, s.Verb)
}

// resolve finds the text of an input by the order of the package comment and
// parses it.
func (in *Input) resolve(f *rawFlag, getenv func(string) string, src source) (value, error) {
	raw, from, given := in.Default, "default of "+in.Name, false
	switch {
	case f != nil && len(f.raw) > 0:
		raw, from, given = f.raw[len(f.raw)-1], "--"+in.Name, true
		if in.Kind == List {
			raw = strings.Join(f.raw, "\n")
		}
	default:
		if src != fromShell && !in.CLIOnly {
			var text string
			if src == fromComposite {
				text = strings.TrimSpace(getenv(in.compositeEnv()))
			} else {
				text = githubactions.New(githubactions.WithGetenv(getenv)).GetInput(in.Name)
			}
			if text != "" {
				raw, from, given = text, "input "+in.Name, text != in.Default
				break
			}
		}
		if in.Env != "" {
			if text := getenv(in.Env); text != "" {
				raw, from, given = text, in.Env, true
			}
		}
	}
	if raw == "" && in.Required {
		return value{}, in.missing(src)
	}
	if raw == "" && !given {
		return value{kind: in.Kind}, nil
	}
	val, err := in.convert(raw)
	if err != nil {
		return value{}, fmt.Errorf("%s: %w", from, err)
	}
	if in.Kind == Path && src != fromShell && raw != "" {
		if val.text, err = ResolvePath(getenv("GITHUB_WORKSPACE"), raw); err != nil {
			return value{}, fmt.Errorf("%s: %w", from, err)
		}
	}
	val.given = given
	return val, nil
}

func (in *Input) missing(src source) error {
	var ways []string
	if src != fromShell && !in.CLIOnly {
		ways = append(ways, "\"with: "+in.Name+":\" in the workflow")
	} else if in.hasFlag() {
		ways = append(ways, strings.TrimSpace("--"+in.Name+" "+in.Kind.placeholder()))
	}
	if in.Env != "" {
		ways = append(ways, "the variable "+in.Env)
	}
	if len(ways) == 0 {
		return fmt.Errorf("%s is required, and only a workflow gives it", in.Name)
	}
	return fmt.Errorf("%s is required; give %s", in.Name, strings.Join(ways, " or "))
}

// convert parses the text of an input. Its errors never show a secret, for
// which nothing can go wrong.
func (in *Input) convert(raw string) (value, error) {
	val := value{kind: in.Kind}
	switch in.Kind {
	case String:
		if len(in.Choices) > 0 && !slices.Contains(in.Choices, raw) {
			hint := ""
			if near := Nearest(raw, in.Choices); near != "" {
				hint = fmt.Sprintf("; did you mean %q?", near)
			}
			return val, fmt.Errorf("found %q, wanted %s%s", raw, strings.Join(in.Choices, " or "), hint)
		}
		val.text = raw
	case Path:
		if strings.ContainsRune(raw, 0) {
			return val, fmt.Errorf("found a path with a zero byte: %q", raw)
		}
		val.text = raw
	case Secret:
		val.text = raw
	case Bool:
		switch raw {
		case "true", "True", "TRUE":
			val.flag = true
		case "false", "False", "FALSE":
		default:
			return val, fmt.Errorf("found %q, wanted true or false", raw)
		}
	case Int:
		n, err := strconv.Atoi(raw)
		if err != nil || !intRE.MatchString(raw) {
			if errors.Is(err, strconv.ErrRange) {
				return val, fmt.Errorf("found %q, wanted an integer that fits %d bits", raw, strconv.IntSize)
			}
			return val, fmt.Errorf("found %q, wanted a decimal integer", raw)
		}
		val.num = n
	case Duration:
		d, err := time.ParseDuration(raw)
		if err != nil || !durRE.MatchString(raw) {
			return val, fmt.Errorf("found %q, wanted a duration such as 90s or 1h30m", raw)
		}
		val.dur = d
	case List:
		for _, item := range strings.FieldsFunc(raw, func(r rune) bool { return r == '\n' || r == '\r' || r == ',' }) {
			if item = strings.TrimSpace(item); item != "" {
				val.list = append(val.list, item)
			}
		}
	}
	return val, nil
}

// Nearest returns the known word that a typing mistake would turn into word,
// or "" if none is that near.
func Nearest(word string, known []string) string {
	best, bestDist := "", max(2, len(word)/3)+1
	for _, k := range known {
		if d := distance(word, k); d < bestDist {
			best, bestDist = k, d
		}
	}
	return best
}

// distance is Levenshtein's, over bytes. Words are cut to 64 bytes: an
// argument may be as long as the system allows, and the work is their product.
func distance(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diag, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diag+cost)
		}
	}
	return row[len(b)]
}
