package action

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// smoke is a declaration with an input of every kind.
func smoke() Spec {
	return Spec{
		Name:        "smoke-gate",
		Verb:        "smoke",
		Summary:     "judge a smoke test's result",
		Description: "Runs the command of the configuration, or reads a report, and compares what ran\nwith what must run.\n\nWarnings are not passes.",
		Args:        "[FILE]",
		Inputs: []Input{
			{Name: "expected-total", Usage: "tests that must run", Kind: Int, Required: true},
			{Name: "mode", Usage: "what a failure means", Default: "enforce", Choices: []string{"enforce", "advisory"}},
			{Name: "timeout", Usage: "how long the command may take", Default: "10m", Kind: Duration},
			{Name: "report", Usage: "report to judge: JUnit | TAP", Kind: Path},
			{Name: "warnings", Usage: "count warnings as passes; this is a long sentence that has to be wrapped because it goes on and on", Kind: Bool, Default: "false"},
			{Name: "ids", Usage: "tests that must be there", Kind: List},
			{Name: "key-id", Usage: "fingerprint of the signing key", Env: "REMEMBRANCER_KEY_ID", Default: "none"},
			{Name: "key", Usage: "armored private key", Kind: Secret, Env: "REMEMBRANCER_KEY"},
			{Name: "token", Usage: "token to read the base's configuration", Kind: Secret, ActionOnly: true, ActionDefault: "${{ github.token }}"},
			{Name: "json", Usage: "print the verdict as JSON", Kind: Bool, CLIOnly: true},
		},
		Outputs: []Output{
			{Name: "verdict", Usage: "pass, fail or error"},
			{Name: "passed", Usage: "tests that passed"},
		},
		Examples: []string{"remembrancer smoke --expected-total 26", "remembrancer smoke report.xml --json"},
		Exit:     "In advisory mode a failure is printed, and the status is 0.",
	}
}

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestFlagsMayStandAnywhere(t *testing.T) {
	for _, args := range [][]string{
		{"report.xml", "--expected-total", "26", "-json"},
		{"--expected-total=26", "report.xml", "--json"},
		{"-json", "-expected-total", "26", "--", "report.xml"},
	} {
		v, err := Parse(smoke(), args, env(), io.Discard)
		assert.NilError(t, err, "%q", args)
		assert.Equal(t, v.Int("expected-total"), 26)
		assert.Equal(t, v.Bool("json"), true)
		assert.DeepEqual(t, v.Args(), []string{"report.xml"})
		assert.Equal(t, v.Duration("timeout"), 10*time.Minute)
		assert.Equal(t, v.Given("expected-total"), true)
		assert.Equal(t, v.Given("timeout"), false)
	}
}

func TestDoubleDashEndsFlags(t *testing.T) {
	v, err := Parse(smoke(), []string{"--expected-total", "1", "--mode=enforce", "-", "--", "--json", "--"}, env(), io.Discard)
	assert.NilError(t, err)
	assert.DeepEqual(t, v.Args(), []string{"-", "--json", "--"})
	assert.Equal(t, v.Bool("json"), false)
}

func TestFlagBeatsRunnerBeatsVariableBeatsDefault(t *testing.T) {
	var args []string
	vars := []string{"INPUT_EXPECTED-TOTAL", "1", "INPUT_KEY-ID", "runner", "REMEMBRANCER_KEY_ID", "variable"}
	get := func() string {
		v, err := ParseAction(smoke(), args, env(vars...), io.Discard)
		assert.NilError(t, err)
		return v.String("key-id")
	}
	args = []string{"--key-id", "flag"}
	assert.Equal(t, get(), "flag")
	args = nil
	assert.Equal(t, get(), "runner")
	vars[3] = "  "
	assert.Equal(t, get(), "variable")
	vars[5] = ""
	assert.Equal(t, get(), "none")
}

func TestRunnerVariablesNeedARunner(t *testing.T) {
	_, err := Parse(smoke(), nil, env("INPUT_EXPECTED-TOTAL", "26"), io.Discard)
	assert.Error(t, err, "expected-total is required; give --expected-total N")
}

func TestDashesAreKept(t *testing.T) {
	v, err := ParseAction(smoke(), nil, env("INPUT_EXPECTED-TOTAL", "26"), io.Discard)
	assert.NilError(t, err)
	assert.Equal(t, v.Int("expected-total"), 26)
	_, err = ParseAction(smoke(), nil, env("INPUT_EXPECTED_TOTAL", "26"), io.Discard)
	assert.Error(t, err, `expected-total is required; give "with: expected-total:" in the workflow`)
}

// An earlier step of a job can set any variable that the runner does not set
// itself, and must not get at the inputs with it.
func TestEachBindingReadsOnlyItsOwnVariables(t *testing.T) {
	vars := env("INPUT_EXPECTED-TOTAL", "26", "INPUT_MODE", "", "REMEMBRANCER_INPUT_EXPECTED_TOTAL", "1", "REMEMBRANCER_INPUT_MODE", "advisory")
	v, err := ParseAction(smoke(), nil, vars, io.Discard)
	assert.NilError(t, err)
	assert.Equal(t, v.Int("expected-total"), 26)
	assert.Equal(t, v.String("mode"), "enforce")

	v, err = ParseAction(smoke(), []string{"--composite"}, vars, io.Discard)
	assert.NilError(t, err)
	assert.Equal(t, v.Int("expected-total"), 1)
	assert.Equal(t, v.String("mode"), "advisory")

	_, err = Parse(smoke(), []string{"--composite"}, vars, io.Discard)
	assert.ErrorContains(t, err, "unknown flag --composite")
}

func TestCLIOnlyInputsAreNotReadFromARunner(t *testing.T) {
	v, err := ParseAction(smoke(), nil, env("INPUT_EXPECTED-TOTAL", "26", "INPUT_JSON", "true"), io.Discard)
	assert.NilError(t, err)
	assert.Equal(t, v.Bool("json"), false)
}

func TestAFilledInDefaultIsNotGiven(t *testing.T) {
	v, err := ParseAction(smoke(), nil, env("INPUT_EXPECTED-TOTAL", "26", "INPUT_TIMEOUT", "10m"), io.Discard)
	assert.NilError(t, err)
	assert.Equal(t, v.Given("timeout"), false)
	v, err = ParseAction(smoke(), nil, env("INPUT_EXPECTED-TOTAL", "26", "INPUT_TIMEOUT", "9m"), io.Discard)
	assert.NilError(t, err)
	assert.Equal(t, v.Given("timeout"), true)
}

func TestListsAreLinesCommasAndRepetition(t *testing.T) {
	v, err := Parse(smoke(), []string{"--expected-total=1", "--ids", "a, b", "--ids", "c"}, env(), io.Discard)
	assert.NilError(t, err)
	assert.DeepEqual(t, v.List("ids"), []string{"a", "b", "c"})
	v, err = ParseAction(smoke(), nil, env("INPUT_EXPECTED-TOTAL", "1", "INPUT_IDS", "a b\r\n\n  c,\n"), io.Discard)
	assert.NilError(t, err)
	assert.DeepEqual(t, v.List("ids"), []string{"a b", "c"})
}

func TestSecretsAreNotFlags(t *testing.T) {
	v, err := Parse(smoke(), []string{"--expected-total=1"}, env("REMEMBRANCER_KEY", "s3cret"), io.Discard)
	assert.NilError(t, err)
	assert.Equal(t, v.String("key"), "s3cret")
	assert.DeepEqual(t, v.Secrets(), []string{"s3cret"})

	_, err = Parse(smoke(), []string{"--key=s3cret"}, env(), io.Discard)
	assert.Error(t, err, "--key is a secret and not a flag, since process lists show flags; set REMEMBRANCER_KEY")
}

func TestUsageErrorsSayWhatToType(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--expcted-total 26", "unknown flag --expcted-total; did you mean --expected-total?"},
		{"--jsno", "unknown flag --jsno; did you mean --json?"},
		{"--frobnicate", "unknown flag --frobnicate; try remembrancer smoke --help"},
		{"---json", "unknown flag ---json; did you mean --json?"},
		{"--expected-total", "--expected-total needs a value, found none"},
		{"--report --json", "--report needs a value, found the flag --json; if that is the value, write --report=--json"},
		{"--expected-total 26/26", `--expected-total: found "26/26", wanted a decimal integer`},
		{"--expected-total +5", `--expected-total: found "+5", wanted a decimal integer`},
		{"--expected-total 007", `--expected-total: found "007", wanted a decimal integer`},
		{"--expected-total=", `expected-total is required; give --expected-total N`},
		{"--expected-total 99999999999999999999", `--expected-total: found "99999999999999999999", wanted an integer that fits ` + strconv.Itoa(strconv.IntSize) + ` bits`},
		{"--expected-total 1 --timeout -5m", `--timeout: found "-5m", wanted a duration such as 90s or 1h30m`},
		{"--expected-total 1 --timeout 5", `--timeout: found "5", wanted a duration such as 90s or 1h30m`},
		{"--expected-total 1 --json=yes", `--json: found "yes", wanted true or false`},
		{"--expected-total 1 --mode advisry", `--mode: found "advisry", wanted enforce or advisory; did you mean "advisory"?`},
		{"--expected-total 1 --mode=", `--mode: found "", wanted enforce or advisory`},
		{"--token x", "--token is a secret and not a flag, since process lists show flags; it is given only by the workflow"},
	} {
		_, err := Parse(smoke(), strings.Fields(c.args), env(), io.Discard)
		assert.Error(t, err, c.want)
	}
	spec := smoke()
	spec.Args = ""
	_, err := Parse(spec, []string{"x"}, env(), io.Discard)
	assert.Error(t, err, `found argument "x", wanted only flags; try remembrancer smoke --help`)
}

func TestHelpIsWrittenAndIsASentinel(t *testing.T) {
	for _, args := range [][]string{{"-h"}, {"x", "--help"}, {"-help", "--nonsense"}} {
		var out bytes.Buffer
		v, err := Parse(smoke(), args, env(), &out)
		assert.Assert(t, v == nil && errors.Is(err, ErrHelp))
		assert.Equal(t, out.String(), Help(smoke()))
	}
}

func TestMistakesInADeclarationPanic(t *testing.T) {
	for want, change := range map[string]func(*Spec){
		"declared twice or reserved":    func(s *Spec) { s.Inputs = append(s.Inputs, s.Inputs[0]) },
		"not words with dashes":         func(s *Spec) { s.Inputs[0].Name = "expected_total" },
		"default of input \"timeout\"":  func(s *Spec) { s.Inputs[2].Default = "10" },
		"required and has a default":    func(s *Spec) { s.Inputs[0].Default = "3" },
		"secret with a public default":  func(s *Spec) { s.Inputs[7].Default = "x" },
		"has no flag and needs an Env":  func(s *Spec) { s.Inputs[7].Env = "" },
		"given nowhere":                 func(s *Spec) { s.Inputs[1].CLIOnly, s.Inputs[1].ActionOnly = true, true },
		"only in ActionDefault":         func(s *Spec) { s.Inputs[1].Usage = "${{ github.event.title }}" },
		"output \"verdict\" must be":    func(s *Spec) { s.Outputs = append(s.Outputs, s.Outputs[0]) },
		"verb and summary":              func(s *Spec) { s.Summary = "" },
		"a manifest it is not in":       func(s *Spec) { s.Inputs[9].ActionDefault = "true" },
		"not the name of a variable":    func(s *Spec) { s.Inputs[6].Env = "key-id" },
		"choices but is not a String":   func(s *Spec) { s.Inputs[0].Choices = []string{"1"} },
		"not words on one line":         func(s *Spec) { s.Inputs[1].Default = "enforce\n" },
		"summary holds an expression":   func(s *Spec) { s.Summary = "${{ x }}" },
		"name is not words with dashes": func(s *Spec) { s.Name = "Smoke Gate" },
	} {
		spec := smoke()
		change(&spec)
		assert.Assert(t, strings.Contains(panicOf(func() { Help(spec) }), want), "%s: got %q", want, panicOf(func() { Help(spec) }))
	}
	v, err := Parse(smoke(), []string{"--expected-total=1"}, env(), io.Discard)
	assert.NilError(t, err)
	assert.Assert(t, panicOf(func() { v.Int("json") }) != "")
	assert.Assert(t, panicOf(func() { v.String("undeclared") }) != "")
}

func panicOf(f func()) (text string) {
	defer func() {
		if p := recover(); p != nil {
			text = fmt.Sprint(p)
		}
	}()
	f()
	return ""
}

func TestPathsOfARunnerStayInTheWorkspace(t *testing.T) {
	outside := realDir(t)
	ws := realDir(t)
	assert.NilError(t, os.MkdirAll(filepath.Join(ws, "sub", "deep"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600))
	assert.NilError(t, os.WriteFile(filepath.Join(ws, "file"), []byte("x"), 0o600))
	for link, to := range map[string]string{
		"out":          outside,
		"out-rel":      "../" + filepath.Base(outside),
		"in":           "sub",
		"dangling":     filepath.Join(outside, "not-yet"),
		"dangling-in":  "not-yet",
		"loop":         "loop",
		"sub/chain":    "../out",
		"sub/deep/abs": filepath.Join(ws, "sub"),
	} {
		assert.NilError(t, os.Symlink(to, filepath.Join(ws, link)))
	}
	for p, want := range map[string]string{
		"file":                    "file",
		"./sub/../file":           "file",
		".":                       "",
		"not/yet/there":           "not/yet/there",
		"in/deep":                 "sub/deep",
		"in/new":                  "sub/new",
		"sub/deep/abs/x":          "sub/x",
		"in/..":                   "", // names the workspace, as a reader sees it
		filepath.Join(ws, "file"): "file",
	} {
		got, err := ResolvePath(ws, p)
		assert.NilError(t, err, "%q", p)
		assert.Equal(t, got, filepath.Join(ws, want), "%q", p)
	}
	for p, want := range map[string]string{
		"":                                 "wanted a path inside the workspace",
		"a\x00b":                           "wanted a path inside the workspace",
		"../x":                             "leaves the workspace, wanted a path inside it",
		"sub/../../x":                      "leaves the workspace, wanted a path inside it",
		"/etc/passwd":                      "is outside the workspace",
		ws + "-twin/x":                     "is outside the workspace",
		ws + "/../x":                       "is outside the workspace",
		"out/secret":                       "leaves the workspace through the link out",
		"out-rel/secret":                   "leaves the workspace through the link out-rel",
		"sub/chain/secret":                 "leaves the workspace through the link chain",
		"dangling":                         "the link dangling leads nowhere",
		"dangling-in":                      "the link dangling-in leads nowhere",
		"loop/x":                           "the link loop leads nowhere",
		"file/x":                           "not a directory",
		filepath.Join(outside, "secret"):   "is outside the workspace",
		filepath.Join(ws, "out", "secret"): "leaves the workspace through the link out",
	} {
		got, err := ResolvePath(ws, p)
		assert.ErrorContains(t, err, want)
		assert.Equal(t, got, "")
	}
	_, err := ResolvePath("", "file")
	assert.ErrorContains(t, err, "GITHUB_WORKSPACE is not set")
	_, err = ResolvePath(filepath.Join(ws, "missing"), "file")
	assert.ErrorContains(t, err, "workspace: ")

	// The workspace itself may be reached through a link, under either name.
	link := filepath.Join(outside, "ws")
	assert.NilError(t, os.Symlink(ws, link))
	for _, p := range []string{"file", filepath.Join(link, "file"), filepath.Join(ws, "file")} {
		got, err := ResolvePath(link, p)
		assert.NilError(t, err)
		assert.Equal(t, got, filepath.Join(ws, "file"))
	}

	v, err := ParseAction(smoke(), nil, env("INPUT_EXPECTED-TOTAL", "1", "INPUT_REPORT", "in/r.xml", "GITHUB_WORKSPACE", ws), io.Discard)
	assert.NilError(t, err)
	assert.Equal(t, v.String("report"), filepath.Join(ws, "sub", "r.xml"))
	_, err = ParseAction(smoke(), nil, env("INPUT_EXPECTED-TOTAL", "1", "INPUT_REPORT", "out/secret", "GITHUB_WORKSPACE", ws), io.Discard)
	assert.Error(t, err, `input report: "out/secret" leaves the workspace through the link out`)
	_, err = ParseAction(smoke(), nil, env("INPUT_EXPECTED-TOTAL", "1", "INPUT_REPORT", "r.xml"), io.Discard)
	assert.ErrorContains(t, err, "GITHUB_WORKSPACE is not set")

	v, err = Parse(smoke(), []string{"--expected-total=1", "--report", "/etc/passwd"}, env(), io.Discard)
	assert.NilError(t, err)
	assert.Equal(t, v.String("report"), "/etc/passwd")
}

func realDir(t testing.TB) string {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	assert.NilError(t, err)
	return dir
}

// Law: what is resolved is below the workspace, link-free, and resolves to
// itself.
func FuzzResolvePath(f *testing.F) {
	for _, s := range []string{"a", "../a", "out/x", "in/../out", "/", "in/in/x", "././/a", "in/../../a", "..."} {
		f.Add(s)
	}
	ws := realDir(f)
	assert.NilError(f, os.MkdirAll(filepath.Join(ws, "sub"), 0o755))
	assert.NilError(f, os.Symlink("sub", filepath.Join(ws, "in")))
	assert.NilError(f, os.Symlink("..", filepath.Join(ws, "out")))
	assert.NilError(f, os.Symlink("..", filepath.Join(ws, "sub", "up")))
	f.Fuzz(func(t *testing.T, p string) {
		got, err := ResolvePath(ws, p)
		if err != nil {
			assert.Equal(t, got, "")
			return
		}
		assert.Assert(t, got == ws || strings.HasPrefix(got, ws+string(filepath.Separator)), "%q became %q", p, got)
		again, err := ResolvePath(ws, got)
		assert.NilError(t, err)
		assert.Equal(t, again, got)
	})
}

// Law: an accepted integer prints as it was written, an accepted duration is
// not negative, and a failed parse returns nothing.
func FuzzParse(f *testing.F) {
	f.Add("--expected-total\x0026\x00--timeout\x005m")
	f.Add("--expected-total=-0\x00--\x00-x")
	f.Add("-json\x00-\x00---\x00-=")
	f.Fuzz(func(t *testing.T, joined string) {
		args := strings.Split(joined, "\x00")
		v, err := Parse(smoke(), args, env(), io.Discard)
		if err != nil {
			assert.Assert(t, v == nil)
			return
		}
		assert.Assert(t, v.Duration("timeout") >= 0)
		n := strconv.Itoa(v.Int("expected-total"))
		assert.Assert(t, strings.Contains(joined, "-expected-total="+n) || strings.Contains(joined, "-expected-total\x00"+n))
	})
}
