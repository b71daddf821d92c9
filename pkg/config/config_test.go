package config

import (
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"
	"pgregory.net/rapid"
)

func TestAFileThatSaysOnlyItsVersionIsTheDefault(t *testing.T) {
	got, err := Parse("remembrancer.yaml", []byte("version: 1\n"))
	assert.NilError(t, err)
	assert.DeepEqual(t, got, Default())
}

func TestEveryKeyIsRead(t *testing.T) {
	got, err := Parse("remembrancer.yaml", []byte(`# comment
version: 1
origin: github.com/owner/name
smoke:
  run: "make smoke && echo ok"
  expect: 27
  warnings: allow
  timeout: 1h30m
  format: smoke-json
  mode: advisory
  tests: ops/tests.txt
  suite: smoke.yaml
  results: ["out/**/*.xml", report.json]
covenants:
  mode: advisory
  required: [hygiene, proof-chain/genesis]
  build: {run: make build, outputs: ["bin/**"], timeout: 1m}
  lock-files: [go.sum]
  artifacts: ["dist/*"]
  hygiene: {root: ["*.md"], max-root: 30, max-file: 512, archive: [], links: [README.md]}
  custom:
    - name: licence-headers
      run: [./check, -v]
      timeout: 2m
    - {name: spelling, run: "aspell < README.md"}
ledger: {mode: advisory}
publish:
  branch: trunk
  claim-branch: r/claim
  publish-ref: ledger
  commit-mode: api
  author: A. B. <a@b.example>
  workflow: .github/workflows/ci.yaml
enforce: {checks: [build], app: 0, publisher-app: 77, reviews: 2}
release: {artifacts: ["out/*"], authorities: [freetsa, digicert], timestamps: 2, tag-prefix: app/v}
paths:
  docs: docs/M.md
  ops: deep/ops
  gate-owned:
    - "**/*.sh"
    - ops/**
`))
	assert.NilError(t, err)
	assert.DeepEqual(t, got, Config{
		Origin: "github.com/owner/name",
		Smoke: Smoke{
			Run: Command{Shell: "make smoke && echo ok"}, Expect: 27, Warnings: "allow", Timeout: 90 * time.Minute, Format: "smoke-json", Mode: Advisory,
			Tests: "ops/tests.txt", Suite: "smoke.yaml", Results: []string{"out/**/*.xml", "report.json"},
		},
		Covenants: Covenants{
			Mode: Advisory, Required: []string{"hygiene", "proof-chain/genesis"},
			Build:     Build{Run: Command{Shell: "make build"}, Outputs: []string{"bin/**"}, Timeout: time.Minute},
			LockFiles: []string{"go.sum"}, Artifacts: []string{"dist/*"},
			Hygiene: Hygiene{Root: []string{"*.md"}, MaxRoot: 30, MaxFile: 512, Links: []string{"README.md"}},
			Custom: []Custom{
				{Name: "licence-headers", Run: Command{Argv: []string{"./check", "-v"}}, Timeout: 2 * time.Minute},
				{Name: "spelling", Run: Command{Shell: "aspell < README.md"}, Timeout: time.Minute},
			},
		},
		Ledger:  Ledger{Mode: Advisory},
		Publish: Publish{Branch: "trunk", ClaimBranch: "r/claim", PublishRef: "ledger", CommitMode: "api", Author: Author{"A. B.", "a@b.example"}, Workflow: ".github/workflows/ci.yaml"},
		Enforce: Rules{Checks: []string{"build"}, PublisherApp: 77, Reviews: 2},
		Release: Release{Artifacts: []string{"out/*"}, Authorities: []string{"freetsa", "digicert"}, Timestamps: "2", TagPrefix: "app/v"},
		Paths:   Paths{Docs: "docs/M.md", Ops: "deep/ops", GateOwned: []string{"**/*.sh", "ops/**"}},
	})
}

func TestMistakesAreNamedWithTheirLine(t *testing.T) {
	const v = "version: 1\n"
	for _, tc := range []struct{ name, file, err string }{
		{"unknown key", v + "smoke:\n  expct: 27\n", `r.yaml:3: unknown key "expct"; did you mean "expect"? known keys: run, expect, warnings, timeout, format, mode, tests, suite, results`},
		{"unknown key, swapped letters", v + "pulbish: {}\n", `r.yaml:2: unknown key "pulbish"; did you mean "publish"? known keys: version, origin, smoke, covenants, ledger, publish, enforce, release, paths`},
		{"unknown key, underscore", v + "paths: {gate_owned: [a]}\n", `r.yaml:2: unknown key "gate_owned"; did you mean "gate-owned"? known keys: docs, ops, gate-owned`},
		{"unknown key, nothing near", v + "ledger: {threshold: 1}\n", `r.yaml:2: unknown key "threshold"; known keys: mode`},
		{"key of a section at the top", v + "expect: 27\n", `r.yaml:2: unknown key "expect"; known keys: version, origin, smoke, covenants, ledger, publish, enforce, release, paths`},
		{"repeated key", v + "smoke:\n  expect: 27\n  mode: enforce\n  expect: 1\n", `r.yaml:5: key "expect" is given twice, first on line 3`},
		{"repeated section", v + "smoke: {expect: 27}\nsmoke: {expect: 1}\n", `r.yaml:3: key "smoke" is given twice, first on line 2`},
		{"all mistakes at once", "version: 2\nsmoke:\n  expect: -1\n  mode: off\n", "r.yaml:1: version: found 2, wanted 1\nr.yaml:3: expect: found -1, wanted a whole number such as 27\nr.yaml:4: mode: found \"off\", wanted enforce, advisory"},

		{"empty", "", `r.yaml: the file is empty, wanted at least "version: 1"`},
		{"comments only", "# nothing\n", `r.yaml: the file is empty, wanted at least "version: 1"`},
		{"no version", "smoke: {expect: 1}\n", `r.yaml: version is missing, wanted "version: 1"`},
		{"version as text", "version: '1'\n", `r.yaml:1: version: found the text "1", wanted a whole number such as 27`},
		{"a list", "- version\n", `r.yaml:1: the file: found a list, wanted a mapping with keys of version, origin, smoke, covenants, ledger, publish, enforce, release, paths`},
		{"two documents", v + "---\n" + v, `r.yaml:2: found a second document, wanted one`},
		{"anchor", v + "smoke: &a {expect: 1}\n", `r.yaml:2: found the anchor "a", wanted the value alone`},
		{"alias", v + "smoke: {mode: &m enforce}\nledger: {mode: *m}\n", "r.yaml:2: found the anchor \"m\", wanted the value alone\nr.yaml:3: found an alias, wanted the value itself"},
		{"merge key", v + "smoke:\n  <<: {expect: 1}\n", `r.yaml:3: found a merge key, wanted the keys themselves`},
		{"tag", v + "smoke: {expect: !!int 1}\n", `r.yaml:2: found the tag "!!int", wanted the value alone`},
		{"custom tag", v + "smoke: !x {expect: 1}\n", `r.yaml:2: found the tag "!x", wanted the value alone`},
		{"tagged key", v + "smoke: {!!str expect: 1}\n", `r.yaml:2: found the tag "!!str", wanted the value alone`},
		{"tab", v + "smoke:\n\texpect: 1\n", `r.yaml:3: found a tab, wanted spaces`},
		{"invisible character", v + "# \u2028x\n", `r.yaml:2: found the invisible character U+2028`},
		{"control character", v + "# \x07\n", `r.yaml:2: found the invisible character U+0007`},
		{"not UTF-8", v + "# \xff\n", `r.yaml:2: not UTF-8`},
		{"too long", v + strings.Repeat("#\n", maxFile/2), `r.yaml: 65547 bytes, wanted at most 65536`},
		{"not YAML", v + "smoke: [\n", `r.yaml:2: not YAML: did not find expected node content`},
		{"number as a key", v + "1: a\n", `r.yaml:2: found 1 as a key; known keys: version, origin, smoke, covenants, ledger, publish, enforce, release, paths`},
		{"empty section", v + "smoke:\n", `r.yaml:2: smoke: found nothing, wanted a mapping with keys of run, expect, warnings, timeout, format, mode, tests, suite, results`},

		{"text for a number", v + "smoke: {expect: many}\n", `r.yaml:2: expect: found the text "many", wanted a whole number such as 27`},
		{"hexadecimal", v + "smoke: {expect: 0x1b}\n", `r.yaml:2: expect: found 0x1b, wanted a whole number such as 27`},
		{"octal", v + "smoke: {expect: 027}\n", `r.yaml:2: expect: found 027, wanted a whole number such as 27`},
		{"fraction", v + "smoke: {expect: 27.0}\n", `r.yaml:2: expect: found 27.0, wanted a whole number such as 27`},
		{"too many", v + "smoke: {expect: 1000001}\n", `r.yaml:2: expect: found 1000001, wanted 0 to 1000000`},
		{"number for text", v + "publish: {branch: 1.0}\n", `r.yaml:2: branch: found 1.0, wanted text: write "1.0"`},
		{"bool for text", v + "smoke: {mode: true}\n", `r.yaml:2: mode: found true, wanted text: write "true"`},
		{"list for text", v + "smoke: {mode: [enforce]}\n", `r.yaml:2: mode: found a list, wanted text`},
		{"letter case", v + "smoke: {mode: Enforce}\n", `r.yaml:2: mode: found "Enforce", wanted enforce, advisory`},
		{"warnings", v + "smoke: {warnings: ignore}\n", `r.yaml:2: warnings: found "ignore", wanted fail, allow`},
		{"format", v + "smoke: {format: junit}\n", `r.yaml:2: format: found "junit", wanted auto, smoke-json, human`},
		{"timeout without unit", v + "smoke: {timeout: 600}\n", `r.yaml:2: timeout: found 600, wanted a duration from 1s to 6h, such as 10m`},
		{"timeout too short", v + "smoke: {timeout: 999ms}\n", `r.yaml:2: timeout: found "999ms", wanted a duration from 1s to 6h, such as 10m`},
		{"timeout too long", v + "smoke: {timeout: 6h1s}\n", `r.yaml:2: timeout: found "6h1s", wanted a duration from 1s to 6h, such as 10m`},
		{"run nothing", v + "smoke:\n  run:\n", `r.yaml:3: run: found nothing, wanted a list of words or one shell line`},
		{"run empty list", v + "smoke: {run: []}\n", `r.yaml:2: run: found an empty list, wanted a list of at least one entry`},
		{"run blank", v + "smoke: {run: ' '}\n", `r.yaml:2: run: found " ", wanted a shell line without invisible characters`},
		{"run empty word", v + "smoke: {run: ['', a]}\n", `r.yaml:2: run: the first word is empty, wanted a program`},
		{"run number", v + "smoke: {run: [make, -j, 4]}\n", `r.yaml:2: run: found 4, wanted text: write "4"`},
		{"run mapping", v + "smoke: {run: {a: b}}\n", `r.yaml:2: run: found a mapping, wanted a list of words or one shell line`},
		{"origin with scheme", v + "origin: https://github.com/o/n\n", `r.yaml:2: origin: found "https://github.com/o/n", wanted a URL without scheme, such as github.com/owner/name`},
		{"origin with a plus", v + "origin: github.com/o/n+1\n", `r.yaml:2: origin: found "github.com/o/n+1", wanted a URL without scheme, such as github.com/owner/name`},
		{"branch", v + "publish: {branch: a..b}\n", `r.yaml:2: branch: found "a..b", wanted a branch name such as main`},
		{"branch as ref", v + "publish: {publish-ref: refs/heads/x}\n", `r.yaml:2: publish-ref: found "refs/heads/x", wanted a branch name such as main, without refs/heads/`},
		{"branch empty", v + "publish: {branch: ''}\n", `r.yaml:2: branch: found "", wanted a branch name such as main`},
		{"claim on the branch", v + "publish:\n  claim-branch: main\n", `r.yaml:3: claim-branch and branch are both "main", wanted two branches`},
		{"claim on the ledger branch", v + "publish:\n  publish-ref: remembrancer/claim\n", `r.yaml:3: claim-branch and publish-ref are both "remembrancer/claim", wanted two branches`},
		{"commit mode", v + "publish: {commit-mode: ssh}\n", `r.yaml:2: commit-mode: found "ssh", wanted git, api`},
		{"author", v + "publish: {author: bot@vaultmesh.org}\n", `r.yaml:2: author: found "bot@vaultmesh.org", wanted a name and a mail address, such as Remembrancer Bot <bot@vaultmesh.org>`},
		{"workflow elsewhere", v + "publish: {workflow: ci.yml}\n", `r.yaml:2: workflow: found "ci.yml", wanted a workflow such as .github/workflows/covenant-enforce.yml`},
		{"path outside", v + "paths: {ops: ../ops}\n", `r.yaml:2: ops: found "../ops", wanted a path inside the repository, such as docs/REMEMBRANCER.md, without ".."`},
		{"no gate-owned paths", v + "paths: {gate-owned: []}\n", `r.yaml:2: gate-owned: found an empty list, wanted a list of at least one entry`},
		{"bad pattern", v + "paths: {gate-owned: ['ops/[']}\n", `r.yaml:2: gate-owned: found "ops/[", wanted a pattern inside the repository, such as ops/** or SMOKE_TEST.sh`},
		{"build without outputs", v + "covenants:\n  build: {run: make}\n", `r.yaml:3: build: run or outputs is missing, wanted both`},
		{"build of nothing", v + "covenants:\n  build: {}\n", `r.yaml:3: build: run or outputs is missing, wanted both`},
		{"build of no outputs", v + "covenants:\n  build: {run: make, outputs: []}\n", `r.yaml:3: outputs: found an empty list, wanted a list of at least one entry`},
		{"build key", v + "covenants: {build: {output: a}}\n", `r.yaml:2: unknown key "output"; did you mean "outputs"? known keys: run, outputs, timeout`},
		{"nothing required", v + "covenants: {required: []}\n", `r.yaml:2: required: found an empty list, wanted a list of at least one entry`},
		{"required covenant", v + "covenants: {required: [truth]}\n", `r.yaml:2: required: found "truth", wanted integrity, reproducibility, federation, proof-chain, hygiene, custom, or a check of one, such as proof-chain/genesis`},
		{"required check", v + "covenants: {required: [hygiene/]}\n", `r.yaml:2: required: found "hygiene/", wanted integrity, reproducibility, federation, proof-chain, hygiene, custom, or a check of one, such as proof-chain/genesis`},
		{"text for a list", v + "covenants: {artifacts: dist}\n", `r.yaml:2: artifacts: found the text "dist", wanted a list`},
		{"hygiene key", v + "covenants: {hygiene: {max-files: 1}}\n", `r.yaml:2: unknown key "max-files"; did you mean "max-file"? known keys: root, max-root, max-file, archive, links`},
		{"custom without name", v + "covenants:\n  custom:\n    - {run: a}\n", `r.yaml:4: custom: name or run is missing, wanted both`},
		{"custom without command", v + "covenants:\n  custom:\n    - {name: a}\n", `r.yaml:4: custom: name or run is missing, wanted both`},
		{"custom name", v + "covenants: {custom: [{name: A b, run: a}]}\n", `r.yaml:2: name: found "A b", wanted a name of small letters, digits and hyphens, such as licence-headers`},
		{"custom twice", v + "covenants:\n  custom:\n    - {name: a, run: a}\n    - {name: a, run: b}\n", `r.yaml:5: custom: the name "a" is given twice, first on line 4`},
		{"custom word", v + "covenants: {custom: [a]}\n", `r.yaml:2: custom: found the text "a", wanted a mapping with keys of name, run, timeout`},
		{"check name", v + "enforce: {checks: [' a']}\n", `r.yaml:2: checks: found " a", wanted the name of a check, such as smoke-test`},
		{"app name", v + "enforce: {app: github-actions}\n", `r.yaml:2: app: found the text "github-actions", wanted a whole number such as 27`},
		{"reviews", v + "enforce: {reviews: 11}\n", `r.yaml:2: reviews: found 11, wanted 0 to 10`},
		{"timestamps", v + "release: {timestamps: both}\n", `r.yaml:2: timestamps: found "both", wanted all, any, or a number from 1 to 9`},
		{"no timestamps", v + "release: {timestamps: 0}\n", `r.yaml:2: timestamps: found "0", wanted all, any, or a number from 1 to 9`},
		{"timestamps in octal", v + "release: {timestamps: 0x2}\n", `r.yaml:2: timestamps: found "0x2", wanted all, any, or a number from 1 to 9`},
		{"authority", v + "release: {authorities: [FreeTSA]}\n", `r.yaml:2: authorities: found "FreeTSA", wanted a name of small letters, digits and hyphens, such as licence-headers`},
		{"authority twice", v + "release: {authorities: [a, a]}\n", `r.yaml:2: authorities: the name "a" is given twice`},
		{"tag prefix", v + "release: {tag-prefix: refs/tags/v}\n", `r.yaml:2: tag-prefix: found "refs/tags/v", wanted what a tag begins with, such as v`},
		{"suite outside", v + "smoke: {suite: /tmp/x}\n", `r.yaml:2: suite: found "/tmp/x", wanted a path inside the repository, such as docs/REMEMBRANCER.md, without ".."`},
		{"glued stars", v + "paths: {gate-owned: [ops/a**]}\n", `r.yaml:2: gate-owned: found "ops/a**", wanted a pattern inside the repository, such as ops/** or SMOKE_TEST.sh; ** stands alone between slashes`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Parse("r.yaml", []byte(tc.file))
			assert.Error(t, err, tc.err)
			assert.DeepEqual(t, got, Config{})
		})
	}
}

func TestAReleaseSignsWhatCovenantsAskEvidenceFor(t *testing.T) {
	var c Config
	assert.Equal(t, len(c.Signed()), 0)
	c.Covenants.Artifacts = []string{"a"}
	assert.DeepEqual(t, c.Signed(), []string{"a"})
	c.Release.Artifacts = []string{"b"}
	assert.DeepEqual(t, c.Signed(), []string{"b"})
}

func TestErrorsAreBounded(t *testing.T) {
	_, err := Parse("r.yaml", []byte("version: 1\n"+strings.Repeat("zzzzzzz: 1\n", 1000)))
	assert.Equal(t, strings.Count(err.Error(), "\n"), maxErrors)
	assert.Assert(t, strings.HasSuffix(err.Error(), "\nr.yaml: more errors are not shown"))
}

func TestWantsAcceptAndRefuse(t *testing.T) {
	for _, tc := range []struct {
		name      string
		want      want
		good, bad []string
	}{
		{
			"branch", wantBranch,
			[]string{"main", "remembrancer/claim", "v1.0", "feat/ünï", "a@b"},
			[]string{"", "@", "HEAD", "-x", "/a", "a/", "a//b", "a..b", ".a", "a/.b", "a.lock", "a.lock/b", "a.", "a b", "a~", "a^", "a:b", "a?", "a*", "a[", `a\b`, "a@{0}", "refs/heads/a", "a\u202eb", strings.Repeat("a", 201)},
		},
		{
			"path", wantPath,
			[]string{"ops", "docs/REMEMBRANCER.md", ".github/x", "a b", "..a"},
			[]string{"", ".", "..", "/ops", "ops/", "a/../b", "./a", "a//b", " ", " a", "a ", `a\b`, "C:/a", "a*", ".git/hooks", "a/.GIT", "a\u200bb", strings.Repeat("a", 256)},
		},
		{
			"pattern", wantPattern,
			[]string{"ops/**", "**/x", "**", "*.sh", "a[b-c]", "SMOKE_TEST.sh"},
			[]string{"", ".", "/ops/**", "ops/", "../x", "!ops", "a[", "x**", `a\*`},
		},
		{
			"origin", wantOrigin,
			[]string{"github.com/owner/name", "vaultmesh.org", "node-1:8443/log", "localhost"},
			[]string{"", "/a", "a/", "a//b", "https://a", "A.com/x", "a b", "a+b", "a..b", "a/..", "a/b?c", strings.Repeat("a", 256)},
		},
		{
			"author", wantAuthor,
			[]string{"Remembrancer Bot <bot@vaultmesh.org>", "B <b@c>", "Zoë <z@e>"},
			[]string{"", "a", "<a@b>", " <a@b>", "a<b@c>", "a <b>", "a <b@c> ", "a <b@c@d>", "a\nb <b@c>", "a  <a@b>"},
		},
		{
			"tag prefix", wantTagPrefix,
			[]string{"", "v", "release-", "app/v", "1."},
			[]string{"-v", "/v", "v ", "a..", "v~", "refs/v", strings.Repeat("v", 51)},
		},
		{
			"workflow", wantWorkflow,
			[]string{".github/workflows/a.yml", ".github/workflows/a.yaml"},
			[]string{"", "a.yml", ".github/workflows/.yml", ".github/workflows/a.json", ".github/workflows/a/b.yml", ".github/workflows/../a.yml"},
		},
	} {
		for _, s := range tc.good {
			assert.Equal(t, tc.want(s), "", "%s %q", tc.name, s)
		}
		for _, s := range tc.bad {
			assert.Assert(t, tc.want(s) != "", "%s %q", tc.name, s)
		}
	}
}

func TestRenderedDefaultIsFrozenAndReadsBack(t *testing.T) {
	c := Default()
	c.Origin, c.Smoke.Expect = "github.com/owner/name", 27
	got := Render(c)
	golden.AssertBytes(t, got, "remembrancer.yaml")
	back, err := Parse(FileName, got)
	assert.NilError(t, err)
	assert.DeepEqual(t, back, c)
}

func text(w want) *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`[a-z./][A-Za-z0-9_./-]{0,12}`),
		rapid.StringMatching(`[ -~]{1,12}`),
		rapid.String(),
		rapid.SampledFrom([]string{"true", "null", "~", "1", "1.0", "2025-01-01", "a: b", "a #b", "- a", "[", "<<", "yes", "0x1", ".inf", "a\nb", "a\tb", "'", `"`, "é", "a  b"}),
	).Filter(func(s string) bool { return w(s) == "" })
}

func TestWhatIsRenderedReadsBackTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mode := rapid.SampledFrom([]string{Enforce, Advisory})
		branch := rapid.OneOf(rapid.SampledFrom([]string{"main", "true", "1.0", "v2"}), rapid.StringMatching(`[a-z0-9]{1,3}(/[a-z0-9@%#é'"!]{1,4})?`)).Filter(func(s string) bool { return wantBranch(s) == "" })
		c := Default()
		c.Origin = rapid.SampledFrom([]string{"", "github.com/o/n", "1.2", "localhost:80"}).Draw(t, "origin")
		if rapid.Bool().Draw(t, "shell") {
			c.Smoke.Run = Command{Shell: text(wantShell).Draw(t, "line")}
		} else {
			c.Smoke.Run = Command{Argv: append([]string{"a"}, rapid.SliceOfN(text(wantWord), 0, 3).Draw(t, "argv")...)}
		}
		c.Smoke.Expect = rapid.IntRange(0, maxCount).Draw(t, "expect")
		c.Smoke.Warnings = rapid.SampledFrom([]string{"fail", "allow"}).Draw(t, "warnings")
		c.Smoke.Timeout = time.Duration(rapid.Int64Range(int64(minTimeout), int64(maxTimeout)).Draw(t, "timeout"))
		if rapid.Bool().Draw(t, "whole") {
			c.Smoke.Timeout = max(c.Smoke.Timeout.Truncate(time.Minute), minTimeout)
		}
		c.Smoke.Format = rapid.SampledFrom([]string{"auto", "smoke-json", "human"}).Draw(t, "format")
		c.Smoke.Mode, c.Ledger.Mode = mode.Draw(t, "mode"), mode.Draw(t, "ledger")
		c.Publish.Branch = branch.Draw(t, "branch")
		c.Publish.PublishRef = rapid.OneOf(branch, rapid.Just("")).Draw(t, "publish-ref")
		c.Publish.CommitMode = rapid.SampledFrom([]string{"git", "api"}).Draw(t, "commit-mode")
		c.Publish.Author.Name = rapid.SampledFrom([]string{"A", "null", "A: B #c", `"q"`, "- a", "Zoë"}).Draw(t, "author")
		c.Paths.Ops = text(wantPath).Draw(t, "ops")
		c.Paths.GateOwned = rapid.SliceOfN(text(wantPattern), 1, 3).Draw(t, "gate-owned")
		some := func(w want, name string) []string {
			return append([]string(nil), rapid.SliceOfN(text(w), 0, 2).Draw(t, name)...)
		}
		c.Smoke.Tests, c.Smoke.Suite = text(orEmpty(wantPath)).Draw(t, "tests"), text(orEmpty(wantPath)).Draw(t, "suite")
		c.Smoke.Results = some(wantPattern, "results")
		c.Covenants.LockFiles, c.Covenants.Artifacts = some(wantPath, "lock-files"), some(wantPattern, "artifacts")
		c.Covenants.Required = rapid.SliceOfN(rapid.SampledFrom([]string{"integrity", "custom", "custom/1", "proof-chain/genesis"}), 1, 3).Draw(t, "required")
		if rapid.Bool().Draw(t, "build") {
			c.Covenants.Build = Build{Command{Shell: text(wantShell).Draw(t, "build line")}, []string{text(wantPattern).Draw(t, "outputs")}, time.Second}
		}
		c.Covenants.Hygiene = Hygiene{some(wantPattern, "root"), rapid.IntRange(0, 3).Draw(t, "max-root"), rapid.IntRange(0, maxCount).Draw(t, "max-file"), some(wantPattern, "archive"), some(wantPattern, "links")}
		for i := range rapid.IntRange(0, 2).Draw(t, "custom") {
			c.Covenants.Custom = append(c.Covenants.Custom, Custom{string(rune('0' + i)), Command{Argv: []string{"a", text(wantWord).Draw(t, "custom word")}}, time.Second})
		}
		c.Enforce.Checks = some(wantCheckName, "checks")
		c.Enforce.App, c.Enforce.PublisherApp = rapid.Int64Range(0, 1<<31-1).Draw(t, "app"), rapid.Int64Range(0, 3).Draw(t, "publisher-app")
		c.Release = Release{
			Artifacts: some(wantPattern, "release artifacts"), Timestamps: rapid.SampledFrom([]string{"all", "any", "1", "9"}).Draw(t, "timestamps"),
			Authorities: rapid.SampledFrom([][]string{nil, {"freetsa"}, {"1", "null"}}).Draw(t, "authorities"), TagPrefix: text(wantTagPrefix).Draw(t, "tag-prefix"),
		}
		c.Enforce.Reviews = rapid.IntRange(0, maxReviews).Draw(t, "reviews")
		file := Render(c)
		got, err := Parse(FileName, file)
		assert.NilError(t, err, "%s", file)
		assert.DeepEqual(t, got, c)
	})
}

// Whatever is accepted is valid, and writing it and reading it back changes
// nothing; whatever is refused leaves nothing.
func FuzzParseThenRenderChangesNothing(f *testing.F) {
	f.Add([]byte("version: 1\n"))
	f.Add(Render(Default()))
	f.Add([]byte("version: 1\nsmoke: {run: |\n  a\n  b\n, timeout: 90s}\n"))
	f.Add([]byte("version: 1\nsmoke: &a {<<: *a}\n"))
	f.Add([]byte("%YAML 1.1\n%TAG ! !x\n--- ! {version: ! 1}\n...\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err != nil {
			assert.Assert(t, reflect.DeepEqual(c, Config{}))
			return
		}
		if len(data) > maxFile/8 {
			return // quoting may make the longest files longer than a file may be
		}
		again, err := Parse("f", Render(c))
		assert.NilError(t, err, "%s", Render(c))
		assert.DeepEqual(t, again, c)
	})
}

func TestDetectFindsASmokeCommand(t *testing.T) {
	exe := &fstest.MapFile{Mode: 0o755}
	plain := &fstest.MapFile{Mode: 0o644}
	makefile := func(text string) *fstest.MapFile { return &fstest.MapFile{Mode: 0o644, Data: []byte(text)} }
	for _, tc := range []struct {
		name   string
		tree   fstest.MapFS
		argv   []string
		reason string
	}{
		{"the ancestor's", fstest.MapFS{"SMOKE_TEST.sh": exe, "Makefile": makefile("smoke:\n")}, []string{"./SMOKE_TEST.sh"}, "found SMOKE_TEST.sh"},
		{"small letters", fstest.MapFS{"smoke_test.sh": exe}, []string{"./smoke_test.sh"}, "found smoke_test.sh"},
		{"in scripts, first by name", fstest.MapFS{"scripts/smoke-b.sh": exe, "scripts/smoke-a.sh": exe}, []string{"./scripts/smoke-a.sh"}, "found scripts/smoke-a.sh"},
		{"make smoke", fstest.MapFS{"Makefile": makefile("all: smoke\n\nsmoke-test: x\nsmoke: build\n\t./x\n")}, []string{"make", "smoke"}, "found the target smoke in Makefile"},
		{"make smoke-test", fstest.MapFS{"GNUmakefile": makefile(".PHONY: smoke\nsmoke := 1\nsmoke-test:\n"), "Makefile": makefile("smoke:\n")}, []string{"make", "smoke-test"}, "found the target smoke-test in GNUmakefile"},
		{"script beside a runner", fstest.MapFS{"go.mod": plain, "SMOKE_TEST.sh": exe}, []string{"./SMOKE_TEST.sh"}, "found SMOKE_TEST.sh"},

		{"not executable", fstest.MapFS{"SMOKE_TEST.sh": plain, "go.mod": plain}, nil, "found SMOKE_TEST.sh, but it is not executable: chmod +x SMOKE_TEST.sh"},
		{"a directory", fstest.MapFS{"SMOKE_TEST.sh/x": exe}, nil, `found no smoke command: add an executable SMOKE_TEST.sh that prints one line SMOKE_JSON={"pass":N,"total":N}`},
		{"only a variable", fstest.MapFS{"Makefile": makefile("smoke := 1\nsmokes: a\n")}, nil, `found no smoke command: add an executable SMOKE_TEST.sh that prints one line SMOKE_JSON={"pass":N,"total":N}`},
		{"nothing", fstest.MapFS{}, nil, `found no smoke command: add an executable SMOKE_TEST.sh that prints one line SMOKE_JSON={"pass":N,"total":N}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, reason, found := Detect(tc.tree)
			want := Smoke{}
			if tc.argv != nil {
				want = Default().Smoke
				want.Run = Command{Argv: tc.argv}
			}
			assert.DeepEqual(t, got, want)
			assert.Equal(t, reason, tc.reason)
			assert.Equal(t, found, tc.argv != nil)
		})
	}
}
