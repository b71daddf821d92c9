package workflow

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rhysd/actionlint"
	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v4"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// tree is files by path. A link is its target behind "-> ", and "submodule" is
// one.
type tree map[string]string

func (t tree) Blob(p string) ([]byte, error) {
	data, ok := t[p]
	if !ok {
		return nil, &fs.PathError{Op: "read", Path: p, Err: fs.ErrNotExist}
	}
	if data == "missing" {
		return nil, errors.New("object not found")
	}
	return []byte(data), nil
}

func (t tree) Walk(folder string, fn func(string, fs.FileMode, string) error) error {
	var paths []string
	for p := range t {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths {
		mode := fs.FileMode(0o644)
		switch {
		case strings.HasPrefix(t[p], "-> "):
			mode = fs.ModeSymlink
		case strings.TrimSpace(t[p]) == "submodule":
			mode = fs.ModeIrregular
		}
		if err := fn(p, mode, ""); err != nil {
			return err
		}
	}
	return nil
}

func load(t testing.TB, files tree) *Set {
	t.Helper()
	s, err := Load(files)
	assert.NilError(t, err)
	return s
}

// cases reads testdata. The name of a file is its claim. Its head says what is
// asked, in lines of "key: value"; then come the files of a tree; and "want" is
// the answer.
func cases(t *testing.T, each func(t *testing.T, head map[string]string, files tree, checks []judge.Check) string) {
	t.Helper()
	names, err := filepath.Glob("testdata/*.txtar")
	assert.NilError(t, err)
	assert.Assert(t, len(names) > 30)
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			assert.NilError(t, err)
			head := map[string]string{}
			for line := range strings.SplitSeq(strings.TrimSpace(string(archive.Comment)), "\n") {
				key, value, ok := strings.Cut(line, ": ")
				assert.Assert(t, ok && slices.Contains([]string{"check", "required", "branch", "gates"}, key), "%q", line)
				head[key] = value
			}
			files, want := tree{}, ""
			for _, f := range archive.Files {
				if f.Name == "want" {
					want = string(f.Data)
				} else {
					files[f.Name] = string(f.Data)
				}
			}
			opts := Options{Branch: head["branch"]}
			if r := head["required"]; r != "" {
				opts.Required = strings.Split(r, ", ")
			}
			if g := head["gates"]; g != "" {
				opts.Gates = strings.Split(g, ", ")
			}
			s := load(t, files)
			got := each(t, head, files, append(Doctor(s, opts), Pins(s)))
			if golden.FlagUpdate() {
				archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return f.Name == "want" })
				archive.Files = append(archive.Files, txtar.File{Name: "want", Data: []byte(got)})
				assert.NilError(t, os.WriteFile(name, txtar.Format(archive), 0o644))
				return
			}
			assert.Equal(t, got, want)
		})
	}
}

func answer(c judge.Check) string {
	var b strings.Builder
	fmt.Fprintln(&b, c.Status)
	for _, f := range c.Findings {
		kind := ""
		if f.Warning {
			kind = "warning: "
		}
		fmt.Fprintf(&b, "%s: %s%s\n\t%s\n", f.Place(), kind, f.Message, f.Fix)
	}
	return b.String()
}

func TestEachCaseIsAnsweredAsItSays(t *testing.T) {
	statuses := map[string]map[string]bool{}
	cases(t, func(t *testing.T, head map[string]string, _ tree, checks []judge.Check) string {
		at := slices.IndexFunc(checks, func(c judge.Check) bool { return c.ID == head["check"] })
		assert.Assert(t, at >= 0, "no check %q", head["check"])
		c := checks[at]
		if statuses[c.ID] == nil {
			statuses[c.ID] = map[string]bool{}
		}
		statuses[c.ID][c.Status.String()] = true
		if c.Status == judge.Pass && len(c.Findings) > 0 {
			statuses[c.ID]["warning"] = true
		}
		if c.Status == judge.Pass && len(c.Findings) == 0 {
			statuses[c.ID]["green"] = true
		}
		return answer(c)
	})
	for _, c := range append(Doctor(load(t, nil), Options{}), Pins(load(t, nil))) {
		red := "fail"
		if c.ID == "doctor/credentials" {
			red = "warning"
		}
		assert.Assert(t, statuses[c.ID][red] && statuses[c.ID]["green"], "%s wants a red and a green case: has %v", c.ID, statuses[c.ID])
	}
}

func TestWithoutWorkflowsNothingIsClaimed(t *testing.T) {
	s := load(t, tree{"README.md": "hello"})
	for _, c := range append(Doctor(s, Options{}), Pins(s)) {
		assert.Equal(t, c.Status, judge.Unclaimed, c.ID)
	}
	checks := Doctor(s, Options{Required: []string{"smoke-test"}})
	assert.Equal(t, judge.Sum(checks, nil).Status, judge.Fail, "a required check that nobody posts")
}

func TestAFileThatCannotBeReadIsAnErrorOfTheTree(t *testing.T) {
	for _, p := range []string{".github/workflows/a.yml", "a/action.yml"} {
		_, err := Load(tree{p: "missing"})
		assert.Error(t, err, p+": object not found")
	}
}

const fine = `on: push
permissions: {}
jobs:
  a:
    runs-on: x
    steps:
      - run: "true"
`

func TestWhatCannotBeJudgedIsNeverAPass(t *testing.T) {
	for name, text := range map[string]string{
		"empty":              "",
		"comment":            "# nothing\n",
		"not YAML":           "on: [",
		"not a mapping":      "- a\n- b\n",
		"two documents":      fine + "---\n" + fine,
		"no jobs":            "on: push\n",
		"unknown key":        fine + "extra: 1\n",
		"key twice":          fine + "jobs: {}\n",
		"a link":             "-> ../../elsewhere.yml",
		"a step of nothing":  fine + "      - name: x\n",
		"a step of two":      fine + "      - run: a\n        uses: a/b@v1\n",
		"two groups":         fine + "      - parallel: [{run: a}]\n        wait-all:\n",
		"a group in a group": fine + "      - parallel: [{parallel: [{run: a}]}]\n",
		"a group of text":    fine + "      - parallel: text\n",
		"a group and a run":  fine + "      - parallel: [{run: a}]\n        run: b\n",
		"unknown step key":   fine + "      - parallel: [{run: a, then: b}]\n",
		"background list":    fine + "      - run: a\n        background: [{uses: a/b@v1}]\n",
		"merge key":          "x: &x {run: a}\n" + fine + "      - <<: *x\n",
		"endless alias":      "on: push\njobs: &a\n  a: *a\n",
		"billion laughs":     laughs(),
		"too large":          fine + strings.Repeat("# filler\n", maxFile/9+1),
	} {
		t.Run(name, func(t *testing.T) {
			s := load(t, tree{".github/workflows/good.yml": fine, ".github/workflows/bad.yml": text})
			checks := Doctor(s, Options{})
			assert.Equal(t, checks[0].ID, "doctor/syntax")
			assert.Equal(t, checks[0].Status, judge.Fail)
			for _, c := range append(checks[1:], Pins(s)) {
				assert.Assert(t, c.Status == judge.Error || c.Status == judge.Unclaimed, "%s is %s: %v", c.ID, c.Status, c.Findings)
			}
		})
	}
	for name, text := range map[string]string{
		"not a mapping":    "- runs\n",
		"runs of text":     "runs: node\n",
		"steps of text":    "runs: {using: composite, steps: text}\n",
		"a step of text":   "runs: {using: composite, steps: [text]}\n",
		"a step of two":    "runs: {using: composite, steps: [{run: a, uses: a/b@v1}]}\n",
		"two runs":         "runs: {using: composite, steps: [{run: a}]}\nruns: {using: composite, steps: [{uses: a/b@v1}]}\n",
		"a key in two":     "runs: {using: composite, steps: [{Uses: a/b@v1, uses: a/b@v2}]}\n",
		"a parallel group": "runs: {using: composite, steps: [{parallel: [{uses: a/b@v1}]}]}\n",
		"a merge key":      "x: &x {a: b}\nruns:\n  <<: *x\n  using: node20\n",
	} {
		t.Run("action "+name, func(t *testing.T) {
			s := load(t, tree{"sub/action.yml": text})
			c := Pins(s)
			assert.Equal(t, c.Status, judge.Error, "%v", c.Findings)
		})
	}
}

func laughs() string {
	var b strings.Builder
	b.WriteString("on: push\nx0: &x0 [a, a]\n")
	for i := 1; i < 64; i++ {
		fmt.Fprintf(&b, "x%d: &x%d [*x%d, *x%d]\n", i, i, i-1, i-1)
	}
	return b.String() + "jobs: *x63\n"
}

func TestAFailIsSaidEvenIfAnotherFileIsBroken(t *testing.T) {
	s := load(t, tree{".github/workflows/bad.yml": "on: [", "action.yml": "runs: {using: docker, image: 'docker://alpine:3'}\n"})
	assert.Equal(t, Pins(s).Status, judge.Fail)
}

func TestForeignFoldersAreJudgedOnceTheyAreUsed(t *testing.T) {
	unpinned := "runs: {using: composite, steps: [{uses: a/b@v1}]}\n"
	files := tree{".github/workflows/a.yml": fine, "vendor/a/action.yml": unpinned, "x/testdata/b/action.yml": "runs: ["}
	assert.Equal(t, Pins(load(t, files)).Status, judge.Pass)
	files[".github/workflows/b.yml"] = strings.ReplaceAll(fine, `run: "true"`, "uses: ./x/testdata/c")
	files["x/testdata/c/action.yml"] = "runs: {using: composite, steps: [{uses: ./vendor/a}]}\n"
	c := Pins(load(t, files))
	assert.Equal(t, c.Status, judge.Fail)
	assert.Equal(t, c.Findings[0].Path, "vendor/a/action.yml")
}

func TestConditionsExcludeOnlyWhatIsCertainlyFalse(t *testing.T) {
	pr, run := stranger("pull_request_target").known, stranger("workflow_run").known
	for cond, want := range map[string]bool{
		"":                                    true,
		"true":                                true,
		"false":                               false,
		"${{ false }}":                        false,
		"${{ false }} ":                       false,
		"x${{ false }}":                       true, // text is true
		"github.event_name == 'push'":         false,
		"github.event_name != 'push'":         true,
		"GitHub.Event_Name == 'PUSH'":         false,
		"github['event_name'] == 'push'":      false,
		"'push' == github.event_name":         false,
		"github.event_name":                   true,
		"!github.event.pull_request.merged":   true,
		"github.event.pull_request.merged":    false,
		"github.actor == 'me'":                true,
		"github.actor == 'me' && false":       false,
		"github.actor == 'me' || false":       true,
		"!(github.event_name != 'push')":      false,
		"github.event_name > 'a'":             true,
		"github.event.number == 1":            true,
		"github.event_name == true":           true,
		"always() && false":                   false,
		"contains(github.event_name, 'push')": false,
		"contains(fromJSON('[\"push\",\"schedule\"]'), github.event_name)":                           false,
		"contains(fromJSON('[\"MEMBER\",\"OWNER\"]'), github.event.pull_request.author_association)": false,
		"contains(fromJSON(vars.X), github.event_name)":                                              true,
		"startsWith(github.event_name, 'pull')":                                                      true,
		"endsWith(github.event_name, 'push')":                                                        false,
		"github.event.pull_request.head.repo.full_name == github.repository":                         false,
		"github.event.pull_request.head.repo.fork == false":                                          false,
		"github.event.pull_request.head.repo.owner.login == 'me'":                                    false,
		"contains(github.event.pull_request.labels.*.name, 'safe')":                                  true,
		"unparsable(":   true,
		"a == 'b' c":    true,
		"null":          false,
		"github.x.*[0]": true,
	} {
		got := possible(&str{Value: cond}, pr)
		if cond == "" {
			got = possible(nil, pr)
		}
		assert.Equal(t, got, want, "%s", cond)
	}
	assert.Assert(t, !possible(&str{Value: "github.event.workflow_run.event == 'push'"}, run))
	assert.Assert(t, possible(&str{Value: "github.event.workflow_run.event == 'pull_request'"}, run))
}

func TestOnlyAlwaysRunsAfterAFailure(t *testing.T) {
	for cond, want := range map[string][2]bool{ // without needs, and with
		"always()":                  {true, true},
		"${{ always() }}":           {true, true},
		"${{ always() || x.y }}":    {true, true},
		"ALWAYS()":                  {true, true},
		"true":                      {true, false},
		"!cancelled()":              {false, false},
		"success() || failure()":    {false, false},
		"always() && x.y":           {false, false},
		"${{ always() }} && x.y":    {false, false},
		"!always()":                 {false, false},
		"github.event_name == 'pr'": {false, false},
		"broken(":                   {false, false},
	} {
		s := &str{Value: cond}
		assert.Equal(t, [2]bool{always(s, false), always(s, true)}, want, "%s", cond)
	}
	assert.Assert(t, always(nil, false) && !always(nil, true))
}

func TestBranchFiltersMatchAsGitHubDoes(t *testing.T) {
	for _, c := range []struct {
		patterns []string
		branch   string
		want     bool
	}{
		{[]string{"main"}, "main", true},
		{[]string{"*"}, "main", true},
		{[]string{"*"}, "a/b", false},
		{[]string{"**"}, "a/b", true},
		{[]string{"releases/**"}, "releases/1/x", true},
		{[]string{"**", "!main"}, "main", false},
		{[]string{"!main", "**"}, "main", true},
		{[]string{"ma?in"}, "main", true},
		{[]string{"ma?in"}, "min", true},
		{[]string{"v[0-9]+"}, "v12", true},
		{[]string{"v[0-9]+"}, "vx", false},
		{[]string{"a.b"}, "axb", false},
		{[]string{"["}, "[", false},
	} {
		var f filter
		for _, p := range c.patterns {
			f.Values = append(f.Values, &str{Value: p})
		}
		assert.Equal(t, branchFilter(&f, c.branch), c.want, "%v %s", c.patterns, c.branch)
	}
}

func TestNamesOfChecksAreThoseThatGitHubPosts(t *testing.T) {
	s := load(t, tree{
		".github/workflows/a.yml": `on: pull_request
jobs:
  plain: {runs-on: x, steps: [{run: a}]}
  named: {name: A job, runs-on: x, steps: [{run: a}]}
  empty: {name: '', runs-on: x, steps: [{run: a}]}
  matrix:
    strategy: {matrix: {os: [u, w], go: [1.20, '1.3'], exclude: [{os: u}]}}
    runs-on: x
    steps: [{run: a}]
  templated:
    name: test on ${{ matrix.os }}!
    strategy: {matrix: {os: [u, w], include: [{os: m}]}}
    runs-on: x
    steps: [{run: a}]
  later:
    strategy: {matrix: {os: '${{ fromJSON(inputs.x) }}', b: [1]}}
    runs-on: x
    steps: [{run: a}]
  free: {name: 'x ${{ inputs.y }}', runs-on: x, steps: [{run: a}]}
  local: {uses: ./.github/workflows/called.yml}
  own: {uses: $/.github/workflows/called.yml}
  remote: {name: far, uses: a/b/.github/workflows/c.yml@v1}
`,
		".github/workflows/called.yml": "on: workflow_call\njobs:\n  inner: {runs-on: x, steps: [{run: a}]}\n  again: {uses: ./.github/workflows/called.yml}\n",
		".github/workflows/hourly.yml": "on: {schedule: [{cron: '1 * * * *'}]}\njobs:\n  hour: {runs-on: x, steps: [{run: a}]}\n",
	})
	for name, want := range map[string]string{
		"plain": "yes", "A job": "yes", "named": "no", "empty": "yes", "hour": "yes",
		"matrix (u, 1.20)": "yes", "matrix (w, 1.2)": "yes", "matrix (w, 1.3)": "yes", "matrix": "no", "matrix (m, 1.3)": "no", "matrix (1.3, w)": "no",
		"test on u!": "yes", "test on m!": "yes", "test on x!": "no", "test on u! (u)": "no",
		"later (anything, 1)": "maybe", "x 7": "maybe", "x": "no",
		"local / inner": "yes", "own / inner": "yes", "inner": "no", "local / again / inner": "no",
		"far / build": "maybe", "far": "no",
	} {
		r := s.required([]string{name})[0]
		got := "no"
		if len(r.posts) > 0 {
			got = "yes"
		}
		if r.maybe {
			got = "maybe"
		}
		assert.Equal(t, got, want, name)
		assert.Equal(t, Posts(s, name), want == "yes", name)
	}
}

func TestLinesOfExpressionsAreTheirOwn(t *testing.T) {
	s := load(t, tree{".github/workflows/a.yml": `on: issues
permissions: {}
jobs:
  a:
    runs-on: x
    steps:
      - run: |
          echo one

          echo ${{ github.event.issue.title }}
      - run: >-
          echo two
          ${{ github.event.issue.body }}
      - run: "echo ${{ github.event.issue.title }}"
`})
	for _, c := range Doctor(s, Options{}) {
		if c.ID == "doctor/script-injection" {
			var at []string
			for _, f := range c.Findings {
				at = append(at, fmt.Sprintf("%d:%d", f.Line, f.Column))
			}
			assert.DeepEqual(t, at, []string{"10:16", "13:11", "14:20"})
		}
	}
}

// Law: no text makes reading or judging panic, and what could not be read does
// not pass.
func FuzzLoad(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, flow, action string) {
		s, err := Load(tree{".github/workflows/a.yml": flow, "a/action.yml": action})
		assert.NilError(t, err)
		for _, c := range append(Doctor(s, Options{Required: []string{"smoke-test", "a (b)"}, Branch: "main", Gates: []string{"./SMOKE_TEST.sh"}}), Pins(s)) {
			if len(s.broken) > 0 && c.Status == judge.Pass {
				t.Errorf("%s passes, but %s", c.ID, where(s.broken[0]))
			}
		}
	})
}

// Law: whatever is accepted is not, once it runs something that is not pinned.
func FuzzUnpinnedStepsAreFound(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, flow, action string) {
		files := tree{".github/workflows/a.yml": flow, "a/action.yml": action}
		s, err := Load(files)
		assert.NilError(t, err)
		if Pins(s).Status != judge.Pass {
			return
		}
		for p, keys := range map[string][]string{".github/workflows/a.yml": {"jobs", "*", "steps"}, "a/action.yml": {"runs", "steps"}} {
			for _, uses := range []string{"a/b@v1", "docker://a:1", "./nowhere", "../a", "a/b", "${{ inputs.x }}", "a/b@" + strings.Repeat("a", 39)} {
				worse, ok := withStep(files[p], uses, keys...)
				if !ok {
					continue
				}
				changed := tree{".github/workflows/a.yml": flow, "a/action.yml": action}
				changed[p] = worse
				s, err := Load(changed)
				assert.NilError(t, err)
				c := Pins(s)
				assert.Assert(t, c.Status == judge.Fail || c.Status == judge.Error, "%s passes with %s:\n%s", p, uses, worse)
			}
		}
	})
}

func seed(f *testing.F) {
	f.Add(fine, "runs: {using: composite, steps: [{run: a, shell: bash}]}\n")
	f.Add(laughs(), "a: &a [*a]")
	f.Add(fine+"      - parallel: [{run: '${{ github.event.issue.title'}]\n      - wait-all:\n", "runs: {using: docker, image: Dockerfile}\n")
	names, err := filepath.Glob("testdata/*.txtar")
	assert.NilError(f, err)
	for _, name := range names {
		archive, err := txtar.ParseFile(name)
		assert.NilError(f, err)
		for _, file := range archive.Files {
			if strings.HasPrefix(file.Name, folder) {
				f.Add(string(file.Data), "runs: {using: node20, main: a.js}\n")
			}
		}
	}
}

// withStep adds a step at the end of the first list of steps.
func withStep(doc, uses string, keys ...string) (string, bool) {
	root, err := decode([]byte(doc))
	if err != nil {
		return "", false
	}
	n := root
	for _, k := range keys {
		if k != "*" {
			n = child(n, k)
			continue
		}
		var first *yaml.Node
		for _, v := range pairs(n) {
			if child(v, "steps") != nil {
				first = v
				break
			}
		}
		n = first
	}
	if n == nil || n.Kind != yaml.SequenceNode {
		return "", false
	}
	n.Content = append(n.Content, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		{Kind: yaml.ScalarNode, Value: "uses"}, {Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: uses},
	}})
	out, err := yaml.Marshal(root)
	return string(out), err == nil
}

type (
	str    = actionlint.String
	filter = actionlint.WebhookEventFilter
)
