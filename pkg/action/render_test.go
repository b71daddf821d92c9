package action

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"
)

func TestHelpGolden(t *testing.T) {
	help := Help(smoke())
	golden.Assert(t, help, "help.golden")
	for line := range strings.Lines(help) {
		assert.Assert(t, len(line) <= width+1, "%q", line)
	}
}

func TestHelpOfASmallVerb(t *testing.T) {
	assert.Equal(t, Help(Spec{Verb: "adr create", Summary: "write a decision", Args: "TITLE"}), `remembrancer adr create: write a decision

Usage:
  remembrancer adr create TITLE

Exit status:
  0  pass
  1  fail: judged and found wanting
  2  bad flags or configuration
  3  could not judge: evidence is missing, unreadable or refused
`)
}

type manifest struct {
	Name, Description, Author string
	Branding                  struct{ Icon, Color string }
	Inputs                    map[string]struct {
		Description string
		Required    bool
		Default     string
	}
	Outputs map[string]struct{ Description, Value string }
	Runs    struct {
		Using, Image string
		Args         []string
		Steps        []step
	}
}

type step struct {
	ID, Shell, Run string
	Env            map[string]string
}

func parseManifest(t *testing.T, data []byte) manifest {
	var m manifest
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	assert.NilError(t, d.Decode(&m), "%s", data)
	return m
}

func TestDockerManifestGolden(t *testing.T) {
	data := Manifest(smoke(), ManifestDocker{Image: "../../Dockerfile"})
	golden.AssertBytes(t, data, "docker.golden.yml")
	m := parseManifest(t, data)
	assert.Equal(t, m.Runs.Using, "docker")
	assert.DeepEqual(t, m.Runs.Args, []string{"action", "smoke-gate"})
	assert.Equal(t, m.Inputs["expected-total"].Required, true)
	assert.Equal(t, m.Inputs["mode"].Default, "enforce")
	assert.Equal(t, m.Inputs["token"].Default, "${{ github.token }}")
	_, there := m.Inputs["json"]
	assert.Assert(t, !there)
	// A default here would hide the variable.
	assert.Equal(t, m.Inputs["key-id"].Default, "")
	assert.Equal(t, m.Outputs["verdict"].Description, "pass, fail or error")
}

// What a runner makes of a manifest is what the verb reads, and nothing else.
func TestManifestsAndParseAgreeOnNames(t *testing.T) {
	docker := parseManifest(t, Manifest(smoke(), ManifestDocker{Image: "Dockerfile"}))
	composite := parseManifest(t, CompositeManifest(smoke(), ManifestComposite{}))
	for name := range docker.Inputs {
		_, there := composite.Inputs[name]
		assert.Assert(t, there, name)
	}
	assert.Equal(t, len(composite.Inputs), len(docker.Inputs)+1)

	given := map[string]string{
		"expected-total": "26", "mode": "advisory", "timeout": "1s", "report": "", "warnings": "true",
		"ids": "a", "key-id": "k", "key": "s", "token": "t",
	}
	assert.Equal(t, len(given), len(docker.Inputs))
	forDocker := func(name string) string {
		for in, value := range given {
			if name == "INPUT_"+strings.ToUpper(in) {
				return value
			}
		}
		return ""
	}
	forComposite := func(name string) string {
		expr := composite.Runs.Steps[0].Env[name]
		return given[strings.TrimSuffix(strings.TrimPrefix(expr, "${{ inputs."), " }}")]
	}
	a, err := ParseAction(smoke(), docker.Runs.Args[2:], forDocker, nil)
	assert.NilError(t, err)
	b, err := ParseAction(smoke(), []string{"--composite"}, forComposite, nil)
	assert.NilError(t, err)
	for _, v := range []*Values{a, b} {
		assert.Equal(t, v.Int("expected-total"), 26)
		assert.Equal(t, v.String("mode"), "advisory")
		assert.Equal(t, v.Bool("warnings"), true)
		assert.Equal(t, v.String("key-id"), "k")
		assert.DeepEqual(t, v.Secrets(), []string{"s", "t"})
	}
}

func TestCompositeManifestGolden(t *testing.T) {
	data := CompositeManifest(smoke(), ManifestComposite{})
	golden.AssertBytes(t, data, "composite.golden.yml")
	m := parseManifest(t, data)
	assert.Equal(t, m.Runs.Using, "composite")
	assert.Equal(t, len(m.Runs.Steps), 1)
	s := m.Runs.Steps[0]
	assert.Equal(t, s.Shell, "bash")
	assert.Equal(t, m.Outputs["verdict"].Value, "${{ steps.run.outputs.verdict }}")
	assert.Assert(t, !strings.Contains(s.Run, "${{"), "an expression in a script is code of whoever wrote its value")
	assert.Equal(t, s.Env["REMEMBRANCER_INPUT_EXPECTED_TOTAL"], "${{ inputs.expected-total }}")
}

func TestAwkwardTextSurvivesYAML(t *testing.T) {
	spec := smoke()
	spec.Summary = `it's: "quoted" # and {braced} \n`
	spec.Inputs[1].Usage = "- a\n  'b': *c &d !e %f @g `h`"
	m := parseManifest(t, Manifest(spec, ManifestDocker{Image: "docker://ghcr.io/x/y@sha256:00"}))
	assert.Equal(t, m.Description, spec.Summary)
	assert.Equal(t, m.Inputs["mode"].Description, "- a 'b': *c &d !e %f @g `h`; one of enforce, advisory")
	assert.Equal(t, m.Runs.Image, "docker://ghcr.io/x/y@sha256:00")
}

func TestAVerbThatIsNoActionHasNoManifest(t *testing.T) {
	spec := smoke()
	spec.Name = ""
	assert.Assert(t, panicOf(func() { Manifest(spec, ManifestDocker{Image: "x"}) }) != "")
	assert.Assert(t, panicOf(func() { Manifest(smoke(), ManifestDocker{}) }) != "")
	assert.Assert(t, panicOf(func() { CompositeManifest(smoke(), ManifestComposite{Source: "$(id)"}) }) != "")
}

// runScript runs the composite's script in dir, with PATH as given.
func runScript(t *testing.T, dir, path string, vars ...string) (out string, status int) {
	bash, err := exec.LookPath("bash")
	assert.NilError(t, err)
	script := filepath.Join(dir, "script.sh")
	m := parseManifest(t, CompositeManifest(smoke(), ManifestComposite{}))
	assert.NilError(t, os.WriteFile(script, []byte(m.Runs.Steps[0].Run), 0o600))
	cmd := exec.CommandContext(t.Context(), bash, "--noprofile", "--norc", "-e", "-o", "pipefail", script)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + path, "RUNNER_TEMP=" + dir, "REMEMBRANCER_BINARY=", "ACTION_PATH=" + dir}, vars...)
	data, err := cmd.CombinedOutput()
	if err != nil {
		var exit *exec.ExitError
		assert.Assert(t, errors.As(err, &exit), "%v", err)
	}
	return string(data), cmd.ProcessState.ExitCode()
}

func TestCompositeScriptRunsTheGivenBinary(t *testing.T) {
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "my tool"), []byte("#!/bin/sh\necho \"$*\"\nexit 1\n"), 0o700))
	for _, binary := range []string{"my tool", "./my tool", filepath.Join(dir, "my tool")} {
		out, status := runScript(t, dir, "/nonexistent", "REMEMBRANCER_BINARY="+binary)
		assert.Equal(t, out, "action smoke-gate --composite\n")
		assert.Equal(t, status, 1) // the verdict of the verb is that of the step
	}
	out, status := runScript(t, dir, "/nonexistent", "REMEMBRANCER_BINARY=missing")
	assert.Equal(t, out, "::error::input binary does not name a program, found no executable file of that name\n")
	assert.Equal(t, status, 2)
}

func TestCompositeScriptWithoutGoCannotJudge(t *testing.T) {
	out, status := runScript(t, t.TempDir(), "/nonexistent")
	assert.Assert(t, strings.HasPrefix(out, "::error::no Go toolchain on this runner"), out)
	assert.Equal(t, status, 3)
}

func TestCompositeScriptBuildsFromItsOwnSource(t *testing.T) {
	dir := realDir(t)
	actionPath := filepath.Join(dir, "src", "actions", "smoke-gate")
	assert.NilError(t, os.MkdirAll(actionPath, 0o755))
	bin := filepath.Join(dir, "bin")
	assert.NilError(t, os.Mkdir(bin, 0o755))
	fake := `#!/bin/sh
echo "in $PWD: GOFLAGS=$GOFLAGS GOWORK=$GOWORK CGO_ENABLED=$CGO_ENABLED"
while [ "$1" != -o ]; do shift; done
[ "$3" = ./cmd/remembrancer ] || exit 9
printf '#!/bin/sh\necho "ran $*"\n' > "$2" && chmod +x "$2"
`
	assert.NilError(t, os.WriteFile(filepath.Join(bin, "go"), []byte(fake), 0o700))
	path := bin
	for _, tool := range []string{"mktemp", "chmod"} {
		found, err := exec.LookPath(tool)
		assert.NilError(t, err)
		path += string(filepath.ListSeparator) + filepath.Dir(found)
	}
	out, status := runScript(t, dir, path, "ACTION_PATH="+actionPath, "GOFLAGS=-toolexec=evil", "GOWORK=/evil")
	assert.Equal(t, out, "in "+filepath.Join(dir, "src")+": GOFLAGS= GOWORK=off CGO_ENABLED=0\nran action smoke-gate --composite\n")
	assert.Equal(t, status, 0)

	assert.NilError(t, os.WriteFile(filepath.Join(bin, "go"), []byte("#!/bin/sh\nexit 1\n"), 0o700))
	out, status = runScript(t, dir, path, "ACTION_PATH="+actionPath)
	assert.Equal(t, out, "::error::remembrancer could not be built from the source of this action\n")
	assert.Equal(t, status, 3)
}

func TestTableGolden(t *testing.T) {
	golden.Assert(t, Table(smoke()), "table.golden.md")
}

func TestRewriteMarkedReplacesOnlyItsPart(t *testing.T) {
	doc := "# T\r\n<!-- begin:smoke-gate -->\nold\n\n<!-- end:smoke-gate -->\ntail without newline"
	got, err := RewriteMarked([]byte(doc), "smoke-gate", "new")
	assert.NilError(t, err)
	assert.Equal(t, string(got), "# T\r\n<!-- begin:smoke-gate -->\nnew\n<!-- end:smoke-gate -->\ntail without newline")
	again, err := RewriteMarked(got, "smoke-gate", "new\n")
	assert.NilError(t, err)
	assert.Equal(t, string(again), string(got))
}

func TestRewriteMarkedWantsExactlyOnePair(t *testing.T) {
	b, e := "<!-- begin:x -->\n", "<!-- end:x -->\n"
	for _, doc := range []string{"", b, e, e + b, b + b + e, b + e + e, b + e + b + e, "text " + b + e} {
		got, err := RewriteMarked([]byte(doc), "x", "")
		assert.ErrorContains(t, err, "wanted one of each in this order")
		assert.Assert(t, got == nil)
	}
	_, err := RewriteMarked([]byte(b+e), "x", "a\n"+e)
	assert.ErrorContains(t, err, "its text holds the marker")
	_, err = RewriteMarked([]byte(b+e), "x -->", "a")
	assert.ErrorContains(t, err, "wanted the name of a marked part")
}

// Law: rewriting twice is rewriting once, and rewriting with what is there
// changes nothing.
func FuzzRewriteMarked(f *testing.F) {
	f.Add([]byte("a\n<!-- begin:x -->\nb\n<!-- end:x -->"), "c")
	f.Add([]byte("<!-- begin:x -->\r\n <!-- end:x -->\r\n"), "\n\n")
	f.Fuzz(func(t *testing.T, doc []byte, body string) {
		once, err := RewriteMarked(doc, "x", body)
		if err != nil {
			assert.Assert(t, once == nil)
			return
		}
		twice, err := RewriteMarked(once, "x", body)
		assert.NilError(t, err)
		assert.Equal(t, string(twice), string(once))
	})
}
