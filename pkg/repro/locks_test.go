package repro_test

import (
	"os"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/repro"
)

const (
	h1     = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	goMod  = "module example.com/m\n\ngo 1.26\n\nrequire (\n\texample.com/a v1.0.0\n\texample.com/b v1.2.3 // indirect\n)\n"
	goSum  = "example.com/a v1.0.0 " + h1 + "\nexample.com/a v1.0.0/go.mod " + h1 + "\n\nexample.com/b v1.2.3/go.mod " + h1 + "\n"
	sha512 = "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="
	pip    = " --hash=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

func npmPackage(fields string) string { return `{"name": "m", ` + fields + `}` }

func npmLock(root, packages string) string {
	return `{"name": "m", "lockfileVersion": 3, "packages": {"": {` + root + `}, ` + packages + `}}`
}

var npmAsks = `"dependencies": {"a": "^1.0.0"}, "devDependencies": {"@s/b": "2"}`

func TestLockedManifestsPass(t *testing.T) {
	for name, c := range map[string]struct {
		src      tree
		required []string
		detail   string
	}{
		"go":                  {tree{"go.mod": goMod, "go.sum": goSum}, nil, "1 go.mod (that go.sum has a hash of every module it requires)"},
		"go, required":        {tree{"x/go.mod": goMod, "x/go.sum": goSum}, []string{"x/go.sum"}, "1 go.mod (that go.sum has a hash of every module it requires)"},
		"go, replaced":        {tree{"go.mod": "module m\nrequire example.com/c v1.0.0\nrequire example.com/d v1.0.0\nreplace example.com/c => ../c\nreplace example.com/d v1.0.0 => example.com/a v1.0.0\n", "go.sum": goSum}, nil, "1 go.mod (that go.sum has a hash of every module it requires)"},
		"npm":                 {tree{"package.json": npmPackage(npmAsks), "package-lock.json": npmLock(npmAsks, `"node_modules/a": {"integrity": "`+sha512+`"}, "node_modules/@s/b": {"resolved": "x", "integrity": "`+sha512+`"}`)}, nil, "1 package.json (that the npm lock file has every dependency, as asked for, with its hash)"},
		"npm, no hash needed": {tree{"package.json": npmPackage(npmAsks), "npm-shrinkwrap.json": npmLock(npmAsks, `"node_modules/a": {"link": true}, "node_modules/@s/b": {"resolved": "git+ssh://git@x/b.git#`+strings.Repeat("a", 40)+`"}`)}, nil, "1 package.json (that the npm lock file has every dependency, as asked for, with its hash)"},
		"npm, version 1":      {tree{"package.json": npmPackage(npmAsks), "package-lock.json": `{"lockfileVersion": 1, "dependencies": {"a": {"version": "1.0.1", "integrity": "` + sha512 + `"}, "@s/b": {"integrity": "` + sha512 + `"}}}`}, nil, "1 package.json (that the npm lock file has every dependency, as asked for, with its hash)"},
		"npm, workspace": {tree{
			"package.json": npmPackage(`"workspaces": ["p/*"]`), "p/x/package.json": npmPackage(npmAsks),
			"package-lock.json": npmLock(`"workspaces": ["p/*"]`, `"p/x": {`+npmAsks+`}, "node_modules/a": {"integrity": "`+sha512+`"}, "p/x/node_modules/@s/b": {"integrity": "`+sha512+`"}`),
		}, []string{"package-lock.json"}, "1 package.json (that the npm lock file has every dependency, as asked for, with its hash)"},
		"optional wins":   {tree{"package.json": npmPackage(`"dependencies": {"a": "1"}, "optionalDependencies": {"a": "2"}`), "package-lock.json": npmLock(`"optionalDependencies": {"a": "2"}`, `"node_modules/a": {"integrity": "`+sha512+`"}`)}, nil, "1 package.json (that the npm lock file has every dependency, as asked for, with its hash)"},
		"yarn":            {tree{"package.json": npmPackage(npmAsks), "yarn.lock": "x"}, nil, "1 package.json (that yarn.lock is there)"},
		"pnpm, workspace": {tree{"p/x/package.json": npmPackage(npmAsks), "pnpm-workspace.yaml": "", "pnpm-lock.yaml": "x"}, nil, "1 package.json (that pnpm-lock.yaml is there)"},
		"cargo":           {tree{"Cargo.toml": "[package]\n", "src/main.rs": "", "Cargo.lock": "x"}, nil, "1 Cargo.toml (that Cargo.lock is there)"},
		"cargo workspace": {tree{"Cargo.toml": "[workspace]\n", "a/Cargo.toml": "[[bin]]\n", "b/Cargo.toml": "[package]\n", "Cargo.lock": "x"}, nil, "2 Cargo.toml (that Cargo.lock is there)"},
		"python": {tree{
			"pyproject.toml": "[project]\ndependencies = [\n \"x\",\n]\n", "uv.lock": "x", "b/Pipfile": "", "b/Pipfile.lock": "{}", "c/pyproject.toml": "[tool.poetry.dependencies]\n",
			"c/requirements.txt": "# all\n--index-url https://x\na==1 \\\n   " + pip + "\nb==2;python_version>'3'" + pip + " # b\n", "d/requirements-dev.txt": "a==1\n", "d/poetry.lock": "x",
		}, nil, "1 Pipfile (that a lock file, or requirements with hashes, are there); 2 pyproject.toml (that a lock file, or requirements with hashes, are there); 2 requirements*.txt (that each line has a --hash, or a lock file is there)"},
		"php and ruby": {tree{"composer.json": `{"require": {"php": ">=8", "a/b": "1"}}`, "composer.lock": "{}", "Gemfile": "gem 'a'", "Gemfile.lock": "x", "b/gems.rb": "", "b/gems.locked": "x"}, nil, "1 Gemfile (that Gemfile.lock is there); 1 composer.json (that composer.lock is there); 1 gems.rb (that gems.locked is there)"},
		"another":      {tree{"flake.lock": "{}"}, []string{"flake.lock"}, "1 required file (flake.lock, that it is there)"},
		"left aside":   {tree{"go.mod": goMod, "go.sum": goSum, "x/testdata/go.mod": goMod, "vendor/p/package.json": npmPackage(npmAsks)}, nil, "1 go.mod (that go.sum has a hash of every module it requires); 2 left aside: vendor/p/package.json, x/testdata/go.mod"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.DeepEqual(t, repro.Locks(c.src, c.required), judge.Check{
				ID: "reproducibility/lock-files", Claim: "what is taken from others is locked", Status: judge.Pass, Detail: "checked: " + c.detail,
			})
		})
	}
}

func TestWhatIsNotLockedFails(t *testing.T) {
	npmLocked := func(lock string) tree {
		return tree{"package.json": "{\n" + npmAsks[:len(`"dependencies": {"a": "^1.0.0"},`)] + "\n" + npmAsks[len(`"dependencies": {"a": "^1.0.0"},`):] + "}", "package-lock.json": lock}
	}
	both := `"node_modules/a": {"integrity": "` + sha512 + `"}, "node_modules/@s/b": {"integrity": "` + sha512 + `"}`
	const npmFix = "npm install --package-lock-only"
	none := "npm-shrinkwrap.json, package-lock.json, yarn.lock, pnpm-lock.yaml, bun.lock, bun.lockb"
	python := "poetry.lock, uv.lock, pdm.lock, pylock.toml, Pipfile.lock"
	for name, c := range map[string]struct {
		src      tree
		required []string
		want     judge.Finding
	}{
		"no go.sum":                  {tree{"a b/go.mod": goMod}, nil, judge.Finding{Path: "a b/go.mod", Message: "requires 2 modules and has no go.sum beside it", Fix: "cd 'a b' && go mod tidy"}},
		"an empty go.sum":            {tree{"go.mod": goMod, "go.sum": "\n"}, nil, judge.Finding{Path: "go.mod", Message: "requires 2 modules and has no go.sum beside it", Fix: "go mod tidy"}},
		"a linked go.sum":            {tree{"go.mod": goMod, "go.sum": "-> x", "x": goSum}, nil, judge.Finding{Path: "go.mod", Message: "requires 2 modules and has no go.sum beside it", Fix: "go mod tidy"}},
		"a module without hash":      {tree{"go.mod": goMod, "go.sum": goSum[:strings.Index(goSum, "\n\n")]}, nil, judge.Finding{Path: "go.mod", Line: 7, Message: "example.com/b v1.2.3 has no hash in go.sum", Fix: "go mod tidy"}},
		"another version":            {tree{"go.mod": goMod, "go.sum": strings.ReplaceAll(goSum, "v1.2.3", "v1.2.4")}, nil, judge.Finding{Path: "go.mod", Line: 7, Message: "example.com/b v1.2.3 has no hash in go.sum", Fix: "go mod tidy"}},
		"a hash cut short":           {tree{"go.mod": goMod, "go.sum": goSum + "example.com/c v1.0.0 h1:abc\n"}, nil, judge.Finding{Path: "go.sum", Line: 5, Message: "is not MODULE VERSION h1:HASH", Fix: "go mod tidy"}},
		"a broken go.mod":            {tree{"go.mod": "module m\nrequire x\n", "go.sum": goSum}, nil, judge.Finding{Path: "go.mod", Message: "does not parse, so what it requires is not known: go.mod:2: usage: require module/path v1.2.3"}},
		"a linked go.mod":            {tree{"go.mod": "-> gone", "go.sum": goSum}, nil, judge.Finding{Path: "go.mod", Message: "is a link that leads to gone, which is no file of the tree", Fix: "put the file itself in place of the link"}},
		"no npm lock":                {tree{"package.json": npmPackage(npmAsks)}, nil, judge.Finding{Path: "package.json", Message: "has 2 dependencies and no " + none + " beside it or at a workspace above", Fix: npmFix}},
		"a lock of no workspace":     {tree{"w/package.json": npmPackage(npmAsks), "package.json": npmPackage(`"x": 1`), "package-lock.json": npmLock("", both)}, nil, judge.Finding{Path: "w/package.json", Message: "has 2 dependencies and no " + none + " beside it or at a workspace above", Fix: "cd w && " + npmFix}},
		"not of the workspace":       {tree{"w/package.json": npmPackage(npmAsks), "package.json": npmPackage(`"workspaces": []`), "package-lock.json": npmLock("", both)}, nil, judge.Finding{Path: "package-lock.json", Message: "does not know the package w/package.json", Fix: npmFix}},
		"a dependency is not in it":  {npmLocked(npmLock(npmAsks, `"node_modules/a": {"integrity": "`+sha512+`"}`)), nil, judge.Finding{Path: "package.json", Line: 3, Message: "@s/b is not in package-lock.json", Fix: npmFix}},
		"not asked for there":        {npmLocked(npmLock(npmAsks[:len(`"dependencies": {"a": "^1.0.0"}`)], both)), nil, judge.Finding{Path: "package.json", Line: 3, Message: "@s/b is not in package-lock.json", Fix: npmFix}},
		"another range":              {npmLocked(npmLock(strings.Replace(npmAsks, "^1", "^2", 1), both)), nil, judge.Finding{Path: "package.json", Line: 2, Message: `a is asked for as "^1.0.0", and package-lock.json locks "^2.0.0"`, Fix: npmFix}},
		"no integrity":               {npmLocked(npmLock(npmAsks, strings.Replace(both, sha512, "sha512-", 1))), nil, judge.Finding{Path: "package.json", Line: 2, Message: "a has no hash in package-lock.json", Fix: npmFix}},
		"another key's hash":         {npmLocked(npmLock(npmAsks, strings.Replace(both, "integrity", "Integrity", 1))), nil, judge.Finding{Path: "package.json", Line: 2, Message: "a has no hash in package-lock.json", Fix: npmFix}},
		"version 1, no hash":         {npmLocked(`{"lockfileVersion": 1, "dependencies": {"a": {"integrity": "` + sha512 + `"}, "@s/b": {"version": "2.0.0"}}}`), nil, judge.Finding{Path: "package.json", Line: 3, Message: "@s/b has no hash in package-lock.json", Fix: npmFix}},
		"version 4":                  {npmLocked(`{"lockfileVersion": 4}`), nil, judge.Finding{Path: "package-lock.json", Message: `lockfileVersion is "4": wanted 1, 2 or 3`, Fix: npmFix}},
		"no packages":                {npmLocked(`{"lockfileVersion": 3}`), nil, judge.Finding{Path: "package-lock.json", Message: "has no packages: there is none", Fix: npmFix}},
		"a broken lock":              {npmLocked(`{`), nil, judge.Finding{Path: "package-lock.json", Message: "does not parse: unexpected end of JSON input", Fix: npmFix}},
		"a broken package":           {tree{"package.json": "{", "package-lock.json": "{}"}, nil, judge.Finding{Path: "package.json", Message: "does not parse, so what it depends on is not known: unexpected end of JSON input"}},
		"a shrinkwrap beside":        {with(npmLocked(npmLock(npmAsks, both)), "npm-shrinkwrap.json", npmLock(npmAsks, strings.Replace(both, `"node_modules/a": {"integrity"`, `"node_modules/a": {"x"`, 1))), nil, judge.Finding{Path: "package.json", Line: 2, Message: "a has no hash in npm-shrinkwrap.json", Fix: npmFix}},
		"no Cargo.lock":              {tree{"Cargo.toml": "[package]\n", "src/bin/x.rs": ""}, nil, judge.Finding{Path: "Cargo.toml", Message: "has no Cargo.lock beside it", Fix: "cargo generate-lockfile"}},
		"no lock of a workspace":     {tree{"w/Cargo.toml": "[ workspace.package ]\n"}, nil, judge.Finding{Path: "w/Cargo.toml", Message: "has no Cargo.lock beside it", Fix: "cd w && cargo generate-lockfile"}},
		"no lock of a project":       {tree{"pyproject.toml": "[project]\ndependencies = [\"x\"]\n", "requirements.txt": "x==1" + pip + "\ny==1\n"}, nil, judge.Finding{Path: "pyproject.toml", Message: "has no " + python + " and no requirements.txt with hashes beside it", Fix: "uv lock"}},
		"a requirement without hash": {tree{"requirements.txt": "x==1" + pip + "\n\ny==1\n-e ./z\n"}, nil, judge.Finding{Path: "requirements.txt", Line: 3, Message: "2 of 3 requirements have no --hash, and there is no " + python + " beside it", Fix: "pip-compile --generate-hashes requirements.txt"}},
		"a hash in a comment":        {tree{"requirements.txt": "x==1 #" + pip + "\n"}, nil, judge.Finding{Path: "requirements.txt", Line: 1, Message: "1 of 1 requirements have no --hash, and there is no " + python + " beside it", Fix: "pip-compile --generate-hashes requirements.txt"}},
		"no Pipfile.lock":            {tree{"Pipfile": ""}, nil, judge.Finding{Path: "Pipfile", Message: "has no " + python + " and no requirements.txt with hashes beside it", Fix: "uv lock"}},
		"no composer.lock":           {tree{"composer.json": `{"require": {"a/b": "1"}}`}, nil, judge.Finding{Path: "composer.json", Message: "has no composer.lock beside it", Fix: "composer update --lock"}},
		"no Gemfile.lock":            {tree{"Gemfile": ""}, nil, judge.Finding{Path: "Gemfile", Message: "has no Gemfile.lock beside it", Fix: "bundle lock"}},
		"required, not there":        {tree{"x": ""}, []string{"flake.lock"}, judge.Finding{Path: "flake.lock", Message: "is required, and is not a file of the tree that holds something"}},
		"required, empty":            {tree{"flake.lock": " \n"}, []string{"flake.lock"}, judge.Finding{Path: "flake.lock", Message: "is required, and is not a file of the tree that holds something"}},
		"required, of nothing":       {tree{"go.sum": goSum}, []string{"go.sum"}, judge.Finding{Path: "go.sum", Message: "is required, and no manifest beside it or in its workspace needs it"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := repro.Locks(c.src, c.required)
			assert.Equal(t, got.Status, judge.Fail, "%+v", got)
			// A lock file that fails two manifests is found twice.
			assert.Assert(t, len(got.Findings) == 1 || name == "no lock of a project", "%+v", got.Findings)
			assert.DeepEqual(t, got.Findings[0], c.want)
		})
	}
}

func TestManifestsThatTakeNothingClaimNothing(t *testing.T) {
	c := repro.Locks(tree{
		"go.mod": "module m\n", "package.json": `{"dependencies": {}}`, "Cargo.toml": "[package]\n", "pyproject.toml": "[tool.ruff]\n[project]\ndependencies = []\n",
		"composer.json": `{"require": {"php": ">=8"}, "require-dev": []}`, "requirements.txt": "# none\n-r other.txt\n",
	}, nil)
	assert.DeepEqual(t, c, judge.Check{ID: "reproducibility/lock-files", Claim: "what is taken from others is locked", Status: judge.Unclaimed, Detail: "6 manifests take nothing from others"})
	c = repro.Locks(tree{"main.c": ""}, nil)
	assert.Equal(t, c.Status, judge.Unclaimed)
	assert.Equal(t, c.Detail, "no manifest that takes anything from others in the tree")
}

func TestALockThatIsNotAtHandIsAnError(t *testing.T) {
	for _, src := range []tree{
		{"go.mod": "missing"},
		{"go.mod": goMod, "go.sum": "missing"},
		{"package.json": npmPackage(npmAsks), "package-lock.json": "missing"},
		{"package.json": "missing"},
		{"Cargo.toml": "missing"},
		{"Gemfile": "", "Gemfile.lock": "missing"},
		{"flake.lock": "missing"},
	} {
		c := repro.Locks(src, []string{"flake.lock"})
		assert.Equal(t, c.Status, judge.Error, "%v: %+v", src, c)
		assert.Assert(t, strings.Contains(c.Detail, "object is missing from the repository"), c.Detail)
	}
}

func TestOurOwnModulesAreLocked(t *testing.T) {
	src := tree{}
	for _, p := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile("../../" + p)
		assert.NilError(t, err)
		src[p] = string(data)
	}
	c := repro.Locks(src, []string{"go.sum"})
	assert.Equal(t, c.Status, judge.Pass, "%+v", c)
}

// A line less in go.sum, or a hash less in package-lock.json, is never a pass.
func FuzzAMissingHashFails(f *testing.F) {
	f.Add(goMod, goSum)
	f.Add("module m\nrequire a.b/c v1.0.0\n", "a.b/c v1.0.0 "+h1)
	f.Add("module m\nrequire a.b/c v1.0.0\nreplace a.b/c => a.b/d v1.0.0", "a.b/d v1.0.0/go.mod "+h1)
	f.Fuzz(func(t *testing.T, mod, sum string) {
		if repro.Locks(tree{"go.mod": mod, "go.sum": sum}, nil).Status != judge.Pass {
			return
		}
		for _, less := range []string{"", strings.ReplaceAll(sum, "h1:", "h1:x")} {
			assert.Equal(t, repro.Locks(tree{"go.mod": mod, "go.sum": less}, nil).Status, judge.Fail)
		}
	})
}
