package action

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// width is where lines of help end.
const width = 80

// Help renders the text of --help.
func Help(spec Spec) string {
	spec.check()
	var b strings.Builder
	usage := program + " " + spec.Verb
	fmt.Fprintf(&b, "%s: %s\n\nUsage:\n  %s", usage, spec.Summary, usage)
	if slices.ContainsFunc(spec.Inputs, func(in Input) bool { return in.hasFlag() }) {
		b.WriteString(" [flags]")
	}
	if spec.Args != "" {
		b.WriteString(" " + spec.Args)
	}
	b.WriteByte('\n')
	for para := range strings.SplitSeq(strings.TrimSpace(spec.Description), "\n\n") {
		if para = oneLine(para); para != "" {
			b.WriteString("\n" + wrap(para, 0) + "\n")
		}
	}

	var flags, env [][2]string
	for _, in := range spec.Inputs {
		left := strings.TrimSpace("--" + in.Name + " " + in.Kind.placeholder())
		if in.hasFlag() {
			flags = append(flags, [2]string{left, in.describe(in.Default)})
		}
		switch {
		case in.Env != "" && in.hasFlag():
			env = append(env, [2]string{in.Env, "stands in for --" + in.Name})
		case in.Env != "":
			env = append(env, [2]string{in.Env, in.describe(in.Default)})
		}
	}
	if len(flags) > 0 {
		flags = append(flags, [2]string{"--help", "show this text"})
	}
	columns(&b, "Flags", flags)
	columns(&b, "Environment", env)
	if spec.Name != "" {
		var outs [][2]string
		for _, o := range spec.Outputs {
			outs = append(outs, [2]string{o.Name, oneLine(o.Usage)})
		}
		columns(&b, "Outputs of the action "+spec.Name, outs)
	}
	columns(&b, "Exit status", [][2]string{
		{"0", "pass"},
		{"1", "fail: judged and found wanting"},
		{"2", "bad flags or configuration"},
		{"3", "could not judge: evidence is missing, unreadable or refused"},
	})
	if spec.Exit != "" {
		b.WriteString("\n" + wrap(oneLine(spec.Exit), 2) + "\n")
	}
	if len(spec.Examples) > 0 {
		b.WriteString("\nExamples:\n")
		for _, e := range spec.Examples {
			b.WriteString("  " + e + "\n")
		}
	}
	return b.String()
}

// describe is the usage of an input with what a reader needs to know of its
// choices and default.
func (in *Input) describe(def string) string {
	text := oneLine(in.Usage)
	if len(in.Choices) > 0 {
		text += "; one of " + strings.Join(in.Choices, ", ")
	}
	if in.Kind == List && in.hasFlag() {
		text += "; may be repeated"
	}
	switch {
	case in.Required:
		text += " (required)"
	case def != "":
		text += " (default " + oneLine(def) + ")"
	}
	return text
}

// columns writes rows below a heading, the right column wrapped.
func columns(b *strings.Builder, heading string, rows [][2]string) {
	if len(rows) == 0 {
		return
	}
	left := 0
	for _, r := range rows {
		// A longer one gets a line of its own rather than pushing all others.
		if n := utf8.RuneCountInString(r[0]); n <= 28 {
			left = max(left, n)
		}
	}
	fmt.Fprintf(b, "\n%s:\n", heading)
	for _, r := range rows {
		text := strings.TrimLeft(wrap(r[1], left+4), " ")
		if pad := left - utf8.RuneCountInString(r[0]); pad >= 0 {
			fmt.Fprintf(b, "  %s%s  %s\n", r[0], strings.Repeat(" ", pad), text)
		} else {
			fmt.Fprintf(b, "  %s\n%s%s\n", r[0], strings.Repeat(" ", left+4), text)
		}
	}
}

// wrap breaks text between words and indents each line. A word longer than a
// line stays whole.
func wrap(text string, indent int) string {
	var b strings.Builder
	col := 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case col == 0 && b.Len() == 0:
			b.WriteString(strings.Repeat(" ", indent))
			col = indent
		case col+1+n > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			col = indent
		default:
			b.WriteByte(' ')
			col++
		}
		b.WriteString(word)
		col += n
	}
	return b.String()
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// ManifestDocker is what a Docker action's manifest says besides the Spec.
type ManifestDocker struct {
	// Image is a Dockerfile relative to the manifest, for the development
	// branch, or "docker://REPOSITORY@sha256:..." in a release: pinning an
	// action by commit does not pin an image that it names by tag.
	Image string
	Brand Brand
}

// ManifestComposite is what a composite action's manifest says besides the
// Spec.
type ManifestComposite struct {
	// Source is the path from the manifest's directory to the root of the
	// module, "../.." if empty.
	Source string
	Brand  Brand
}

// Brand is the picture of an action in the marketplace. Empty fields are
// "shield" and "gray-dark".
type Brand struct{ Icon, Color string }

// Manifest renders the action.yml of a Docker action. Nothing from a workflow
// stands in args: a runner pastes those into a command line and logs them.
func Manifest(spec Spec, m ManifestDocker) []byte {
	if m.Image == "" {
		panic("action: a manifest needs an image")
	}
	var b bytes.Buffer
	manifestHead(&b, spec, false, m.Brand)
	for i, o := range spec.Outputs {
		if i == 0 {
			b.WriteString("outputs:\n")
		}
		fmt.Fprintf(&b, "  %s:\n    description: %s\n", o.Name, quote(o.Usage))
	}
	fmt.Fprintf(&b, "runs:\n  using: docker\n  image: %s\n  args:\n    - action\n    - %s\n", quote(m.Image), spec.Name)
	return b.Bytes()
}

// CompositeManifest renders the action.yml of the composite twin, which runs
// the binary on the runner itself, where the toolchain of the repository is.
// It uses the binary that the input of that name gives, or builds one from the
// action's own source.
func CompositeManifest(spec Spec, m ManifestComposite) []byte {
	if m.Source == "" {
		m.Source = "../.."
	}
	if !sourceRE.MatchString(m.Source) {
		panic(fmt.Sprintf("action: %q is no relative path that a script can hold", m.Source))
	}
	var b bytes.Buffer
	manifestHead(&b, spec, true, m.Brand)
	for i, o := range spec.Outputs {
		if i == 0 {
			b.WriteString("outputs:\n")
		}
		fmt.Fprintf(&b, "  %s:\n    description: %s\n    value: ${{ steps.run.outputs.%s }}\n", o.Name, quote(o.Usage), o.Name)
	}
	b.WriteString("runs:\n  using: composite\n  steps:\n    - id: run\n      shell: bash\n      env:\n")
	b.WriteString("        ACTION_PATH: ${{ github.action_path }}\n")
	b.WriteString("        REMEMBRANCER_BINARY: ${{ inputs.binary }}\n")
	for _, in := range spec.Inputs {
		if !in.CLIOnly {
			fmt.Fprintf(&b, "        %s: ${{ inputs.%s }}\n", in.compositeEnv(), in.Name)
		}
	}
	b.WriteString("      run: |\n")
	script := strings.NewReplacer("@SOURCE@", m.Source, "@NAME@", spec.Name).Replace(compositeScript)
	for line := range strings.Lines(script) {
		if line != "\n" {
			b.WriteString("        ")
		}
		b.WriteString(line)
	}
	return b.Bytes()
}

var sourceRE = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$`)

// compositeScript holds no expression: whatever a workflow says arrives in
// variables. The flags of the build are set so that neither the job's
// environment nor the repository being judged (its vendor directory, its
// go.work) has a say in how its judge is built. In a job with a container the
// runner's own GITHUB_ACTION_PATH is right where the expression names a path of
// the host, so it comes first.
const compositeScript = `set -euo pipefail
binary="$REMEMBRANCER_BINARY"
if [ -n "$binary" ]; then
  if [ ! -f "$binary" ] || [ ! -x "$binary" ]; then
    echo "::error::input binary does not name a program, found no executable file of that name"
    exit 2
  fi
  # Without a slash bash would look for it in PATH.
  case "$binary" in */* | *\\*) ;; *) binary="./$binary" ;; esac
else
  if ! command -v go >/dev/null; then
    echo "::error::no Go toolchain on this runner, wanted one to build remembrancer; add actions/setup-go before this step, or give the input binary"
    exit 3
  fi
  out="$(mktemp -d "$RUNNER_TEMP/remembrancer.XXXXXX")"
  binary="$out/remembrancer"
  if [ "${RUNNER_OS:-}" = Windows ]; then binary="$binary.exe"; fi
  root="${GITHUB_ACTION_PATH:-$ACTION_PATH}/@SOURCE@"
  if ! (cd "$root" && CGO_ENABLED=0 GOFLAGS='' GOWORK=off go build -mod=readonly -trimpath -buildvcs=false -o "$binary" ./cmd/remembrancer); then
    echo "::error::remembrancer could not be built from the source of this action"
    exit 3
  fi
fi
exec "$binary" action @NAME@ ` + compositeFlag + `
`

// manifestHead writes what both kinds of manifest begin with.
func manifestHead(b *bytes.Buffer, spec Spec, composite bool, brand Brand) {
	spec.check()
	if spec.Name == "" {
		panic(fmt.Sprintf("action: verb %q has no action", spec.Verb))
	}
	if brand.Icon == "" {
		brand.Icon = "shield"
	}
	if brand.Color == "" {
		brand.Color = "gray-dark"
	}
	name := "Remembrancer"
	if spec.Name != "remembrancer" { // the action at the root, which is the whole
		name += " " + spec.Name
	}
	if composite {
		name += " (composite)"
	}
	fmt.Fprintf(b, "name: %s\ndescription: %s\nauthor: vaultmesh\nbranding:\n  icon: %s\n  color: %s\n",
		quote(name), quote(spec.Summary), quote(brand.Icon), quote(brand.Color))
	inputs := false
	input := func(name, usage string, required bool, def string) {
		if !inputs {
			b.WriteString("inputs:\n")
			inputs = true
		}
		fmt.Fprintf(b, "  %s:\n    description: %s\n    required: %t\n", name, quote(usage), required)
		if def != "" {
			fmt.Fprintf(b, "    default: %s\n", quote(def))
		}
	}
	for _, in := range spec.Inputs {
		if in.CLIOnly {
			continue
		}
		usage, def := in.forWorkflow()
		input(in.Name, usage, in.Required && in.Env == "", def)
	}
	if composite {
		input("binary", "program to run, such as one that an earlier step downloaded and verified; if empty, remembrancer is built from the source of this action, with the Go of the runner", false, "")
	}
}

// forWorkflow returns the description and the default of an input in a
// manifest. An input with a variable keeps its default to itself: a runner
// would hand it over as if someone had written it, and hide the variable.
func (in *Input) forWorkflow() (usage, def string) {
	usage = oneLine(in.Usage)
	if len(in.Choices) > 0 {
		usage += "; one of " + strings.Join(in.Choices, ", ")
	}
	if in.Kind == List {
		usage += "; one a line, or between commas"
	}
	def = in.ActionDefault
	if def == "" && in.Env == "" {
		def = in.Default
	}
	if in.Env != "" {
		usage += "; if empty, the variable " + in.Env
		if in.Default != "" {
			usage += ", else " + oneLine(in.Default)
		}
	}
	return usage, def
}

// quote is a YAML single-quoted scalar on one line.
func quote(s string) string {
	return "'" + strings.ReplaceAll(oneLine(s), "'", "''") + "'"
}

// Table renders the inputs and outputs of an action as Markdown tables. Usage
// texts may hold Markdown.
func Table(spec Spec) string {
	spec.check()
	var b strings.Builder
	cell := func(s string) string { return strings.ReplaceAll(oneLine(s), "|", `\|`) }
	first := true
	for _, in := range spec.Inputs {
		if in.CLIOnly {
			continue
		}
		if first {
			b.WriteString("| Input | Default | What it is |\n|---|---|---|\n")
			first = false
		}
		usage, def := in.forWorkflow()
		switch {
		case in.Required:
			def = "*required*"
		case def != "":
			def = "`" + cell(def) + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", in.Name, def, cell(usage))
	}
	for i, o := range spec.Outputs {
		if i == 0 {
			if !first {
				b.WriteByte('\n')
			}
			b.WriteString("| Output | What it says |\n|---|---|\n")
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", o.Name, cell(o.Usage))
	}
	return b.String()
}

var markRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]*$`)

// RewriteMarked returns doc with body between the lines
//
//	<!-- begin:NAME -->
//	<!-- end:NAME -->
//
// of which there must be exactly one pair. The rest of doc keeps its bytes, so
// that a rendered document equals itself when rendered again.
func RewriteMarked(doc []byte, name string, body string) ([]byte, error) {
	if !markRE.MatchString(name) {
		return nil, fmt.Errorf("found %q, wanted the name of a marked part", name)
	}
	beginMark, endMark := "<!-- begin:"+name+" -->", "<!-- end:"+name+" -->"
	for line := range strings.Lines(body) {
		if t := strings.TrimSpace(line); t == beginMark || t == endMark {
			return nil, fmt.Errorf("marked part %s: its text holds the marker %s", name, t)
		}
	}
	var begins, ends []int // begins: after the begin line; ends: before the end line
	pos := 0
	for line := range bytes.Lines(doc) {
		switch string(bytes.TrimSpace(line)) {
		case beginMark:
			begins = append(begins, pos+len(line))
		case endMark:
			ends = append(ends, pos)
		}
		pos += len(line)
	}
	if len(begins) != 1 || len(ends) != 1 || begins[0] > ends[0] {
		return nil, fmt.Errorf("marked part %s: found %d lines %q and %d lines %q, wanted one of each in this order",
			name, len(begins), beginMark, len(ends), endMark)
	}
	if body != "" && !strings.HasSuffix(body, "\n") {
		body += "\n"
	}
	return slices.Concat(doc[:begins[0]], []byte(body), doc[ends[0]:]), nil
}
