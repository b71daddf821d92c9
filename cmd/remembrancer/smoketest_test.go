package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
	"gotest.tools/v3/assert"
)

// breakage is a change of the product that one test of SMOKE_TEST.sh must notice:
// in a file, the only place that says one thing says another.
type breakage struct {
	file, old, new string
}

// breakages has the one of each test, in their order.
var breakages = []breakage{
	{"docs/REMEMBRANCER.md", "\nMerkle Root: ", "\nMerkle root: "},
	{"Makefile", " -trimpath", ""},
	{"cmd/remembrancer/main.go", "v.spec.Verb, err)\n\t\treturn exitUsage", "v.spec.Verb, err)\n\t\treturn exitUnjudged"},
	{"pkg/smoke/smoke.go", "if c.Total < int64(e.Total) {", "if c.Total < 0 {"},
	{"pkg/config/parse.go", "if at < 0 {\n\t\t\thint :=", "if at < 0 {\n\t\t\tcontinue\n\t\t\thint :="},
	{"cmd/remembrancer/gate.go", "\t\tledgerLine(h, audit, p.cfg.Ledger.Mode),\n", ""},
	{"cmd/remembrancer/hook.go", "if report.Verdict == smoke.Pass {", "if report.Verdict != smoke.Error {"},
	{"pkg/workflow/risks.go", "case orTrueRE.MatchString(after) || thenRE", "case thenRE"},
	{"cmd/remembrancer/record.go", "case err == nil && !bytes.Equal(was, r.Bytes()):", "case err == nil && !bytes.Equal(was, was):"},
	{"pkg/index/index.go", `"d.issued_key DESC, `, `"d.issued_key, `},
	{"cmd/remembrancer/key.go", "durable.Put(file, data, 0o600)", "durable.Put(file, data, 0o644)"},
	{"pkg/publish/pending.go", "err := receipt.VerifySignature(r, s, keys, now)", "err := error(nil)"},
	{"pkg/smoke/report.go", `\"pct\":%d.%02d}`, `\"pct\":%d.%d}`},
	{"pkg/covenant/audit.go", "want := hex.EncodeToString(body.Root[:]); stated != want {", "want := hex.EncodeToString(body.Root[:]); stated == \"\" {"},
	{"pkg/covenant/audit.go", "case !bytes.Equal(got, e.Receipt.Bytes()):", "case !bytes.Equal(got, got):"},
	{"pkg/covenant/change.go", "\t\t\tbad = append(bad, p+\" was removed or renamed\")\n", ""},
	{"cmd/remembrancer/log.go", `return errors.New("CONDITIONAL: no --policy`, `return nil // errors.New("CONDITIONAL: no --policy`},
	{"pkg/legacy/legacy.go", "hexSum([]byte(a + b))", "hexSum([]byte(b + a))"},
	{"pkg/release/authority.go", "if len(roots) < need {", "if len(roots) == 0 {"},
	{"cmd/remembrancer/release.go", `return "", fmt.Errorf("  smoke: the log has no observation of it")`, `return "", nil`},
	{"pkg/release/bundle.go", "r.Verdict = Conditional\n", "r.Verdict = Verified\n"},
	{"cmd/remembrancer/genesis.go", "\treturn quietly(verdictExit(verdict.Status))\n", "\treturn nil\n"},
	{"cmd/remembrancer/snapshot.go", "judge.Sum(w.snapshots(p, h, r), nil)\n", "judge.Sum(w.snapshots(p, h, r), nil)\n\tverdict.Status = judge.Pass\n"},
	{"pkg/slo/verify.go", "if !bytes.Equal(again, report) {", "if !bytes.Equal(again, again) {"},
	{"pkg/node/mcp.go", "if !slices.ContainsFunc(t.scopes, c.may) {", "if !slices.ContainsFunc(t.scopes, c.may) && len(t.scopes) > 1 {"},
	{"cmd/remembrancer/federation.go", "\tcase judge.Fail:\n\t\tcode = exitFail\n", "\tcase judge.Fail:\n\t\tcode = exitPass\n"},
	{"pkg/federate/sync.go", "now.Root != seen.Root:\n\t\tkind = Fork", "now.Root != seen.Root:\n\t\tkind = \"\""},
}

// TestSmokeTestsGoRed breaks at once what costs little to compile anew: what is not in
// a package. The tests of that pass before, and not one of them after. It takes a
// minute and more, with REMEMBRANCER_LONG.
func TestSmokeTestsGoRed(t *testing.T) {
	if os.Getenv("REMEMBRANCER_LONG") == "" {
		return
	}
	t.Parallel()
	tree := smokeTree(t)
	var numbers []int
	var only []string
	for i, b := range breakages {
		if !strings.HasPrefix(b.file, "pkg/") && b.file != "Makefile" {
			numbers = append(numbers, i+1)
			only = append(only, strconv.Itoa(i+1))
		}
	}
	assert.Assert(t, len(numbers) > len(breakages)/3)
	red, out := smokeTests(t, tree, "--only", strings.Join(only, ","))
	assert.Equal(t, len(red), 0)
	// Some of the tests are not all of them, and do not pass for them.
	assert.Equal(t, gjson.Get(out, "total").Int(), int64(len(numbers)))
	for _, n := range numbers {
		breaks(t, tree, n)
	}
	compiles(t, tree)
	red, _ = smokeTests(t, tree, "--only", strings.Join(only, ","))
	assert.DeepEqual(t, red, numbers)
}

// TestEachBreakageTurnsExactlyItsSmokeTestRed breaks nothing, and then each subject
// alone, and runs all tests each time: minutes, with REMEMBRANCER_LONG.
func TestEachBreakageTurnsExactlyItsSmokeTestRed(t *testing.T) {
	if os.Getenv("REMEMBRANCER_LONG") == "" {
		return
	}
	for n := range len(breakages) + 1 {
		t.Run(fmt.Sprintf("test %02d", n), func(t *testing.T) {
			t.Parallel()
			tree := smokeTree(t)
			var want []int
			if n > 0 {
				breaks(t, tree, n)
				want = []int{n}
			}
			compiles(t, tree)
			red, out := smokeTests(t, tree)
			assert.DeepEqual(t, red, want)
			assert.Equal(t, gjson.Get(out, "total").Int(), int64(len(breakages)))
		})
	}
}

// smokeTree copies what git knows of this repository, and what it would add.
func smokeTree(t *testing.T) string {
	t.Helper()
	// Not the test's own folder: the path of gpg's sockets may have about a hundred bytes.
	tree, err := os.MkdirTemp("", "tree")
	assert.NilError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(tree) })
	list := exec.Command("bash", "-c", `git ls-files -z --cached --others --exclude-standard |
		while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done | tar -c --null -T - | tar -x -C "$0"`, tree)
	list.Dir = moduleRoot
	out, err := list.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	return tree
}

func breaks(t *testing.T, tree string, n int) {
	t.Helper()
	b := breakages[n-1]
	name := filepath.Join(tree, filepath.FromSlash(b.file))
	text, err := os.ReadFile(name)
	assert.NilError(t, err)
	assert.Equal(t, strings.Count(string(text), b.old), 1, "test %02d: %s says %q not once: find another place for it to be broken", n, b.file, b.old)
	assert.NilError(t, os.WriteFile(name, []byte(strings.Replace(string(text), b.old, b.new, 1)), 0o644))
}

// compiles demands that what is broken is broken in what it does: without a program
// every test is red, which says nothing about them.
func compiles(t *testing.T, tree string) {
	t.Helper()
	build := exec.Command("go", "build", "-o", os.DevNull, "./cmd/remembrancer", "./.ci/tsa", "./.ci/prometheus")
	build.Dir = tree
	out, err := build.CombinedOutput()
	assert.NilError(t, err, "%s", out)
}

var smokeLineRE = regexp.MustCompile(`(?m)^(✅|❌) TEST (\d\d): `)

// smokeTests runs the tests of a tree. Its exit status, its lines and its last line
// must agree; red are the numbers of those that failed, and result is the last line.
func smokeTests(t *testing.T, tree string, args ...string) (red []int, result string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(tree, "SMOKE_TEST.sh"), args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+os.TempDir())
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		assert.NilError(t, err)
	}
	var numbers []int
	for _, m := range smokeLineRE.FindAllStringSubmatch(string(out), -1) {
		n, err := strconv.Atoi(m[2])
		assert.NilError(t, err)
		numbers = append(numbers, n)
		if m[1] == "❌" {
			red = append(red, n)
		}
	}
	assert.Assert(t, slices.IsSorted(numbers))
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	result, found := strings.CutPrefix(lines[len(lines)-1], "SMOKE_JSON=")
	assert.Assert(t, found, "%s", out)
	assert.Equal(t, gjson.Get(result, "fail").Int(), int64(len(red)), "%s", out)
	assert.Equal(t, gjson.Get(result, "pass").Int(), int64(len(numbers)-len(red)), "%s", out)
	assert.Equal(t, gjson.Get(result, "ids.#").Int(), int64(len(numbers)), "%s", out)
	assert.Equal(t, err != nil, len(red) > 0, "%v\n%s", err, out)
	if t.Failed() || testing.Verbose() {
		t.Logf("%s", out)
	}
	return red, result
}
