// Package pkg_test holds what concerns all packages: who may import whom, which
// one package hides each library, and that docs/FORMATS.md shows what the code
// writes.
package pkg_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

const module = "github.com/vaultmesh/remembrancer/"

// layers lists the packages, lowest first. A package imports only from lines
// above its own, never from its own or from below.
var layers = [][]string{
	{"pkg/durable", "pkg/action", "pkg/openpgp", "pkg/judge", "pkg/process", "pkg/timestamp", "pkg/chart"},
	{"pkg/receipt", "pkg/checkpoint", "pkg/legacy", "pkg/archive"},
	{"pkg/proof", "pkg/ledger", "pkg/set"},
	{"pkg/merge", "pkg/snapshot"},
	{"pkg/smoke", "pkg/suite", "pkg/covenant", "pkg/hygiene", "pkg/repro", "pkg/workflow", "pkg/release", "pkg/index", "pkg/config", "pkg/slo"},
	{"pkg/gitrepo", "pkg/tsa", "pkg/prometheus"},
	{"pkg/forge"}, // names commits and trees as gitrepo does
	{"pkg/publish", "pkg/guard", "pkg/enforce", "pkg/federate", "pkg/scorecard"},
	{"pkg/node"},
	{"pkg/selftest", "pkg/soak"},
	{"cmd/remembrancer", "examples/verify"},
}

// users names the only packages that import each library, so that a library can
// be replaced in one place.
var users = map[string][]string{
	"github.com/ProtonMail/go-crypto":        {"pkg/openpgp"},
	"github.com/go-git/go-billy/v5":          {"pkg/gitrepo"},
	"github.com/go-git/go-git/v5":            {"pkg/gitrepo"},
	"github.com/google/go-github/v62":        {"pkg/forge"},
	"github.com/gowebpki/jcs":                {"pkg/receipt", "pkg/smoke"},
	"github.com/moby/buildkit":               {"pkg/repro"},
	"github.com/modelcontextprotocol/go-sdk": {"pkg/node"},
	"github.com/prometheus/client_golang":    {"pkg/node", "pkg/soak"},
	"github.com/rhysd/actionlint":            {"pkg/workflow"},
	"github.com/rogpeppe/go-internal":        {"pkg/enforce"},
	"github.com/sethvargo/go-githubactions":  {"pkg/action"},
	"github.com/tidwall/gjson":               {"cmd/remembrancer", "pkg/smoke", "pkg/suite"},
	"github.com/yuin/goldmark":               {"pkg/hygiene"},
	"go.yaml.in/yaml/v3":                     {"pkg/config", "pkg/slo", "pkg/suite"},
	"go.yaml.in/yaml/v4":                     {"pkg/workflow"}, // the one that actionlint reads with
	"golang.org/x/image":                     {"pkg/chart"},
	"golang.org/x/mod":                       {"pkg/checkpoint", "pkg/ledger", "pkg/repro", "pkg/soak"},
	"golang.org/x/text":                      {"pkg/covenant"},
	"modernc.org/sqlite":                     {"pkg/index"},
}

// helpers are packages that only tests import.
var helpers = []string{"pkg/forge/forgetest", "pkg/gitrepo/gitservertest", "pkg/slo/slotest", "pkg/tsa/tsatest"}

// imports returns what each package of the module imports, tests left out.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	root := ".."
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if name := d.Name(); rel != "." && (strings.HasPrefix(name, ".") || name == "testdata") {
				return fs.SkipDir
			}
			// The benchmarks, for libraries that only they need, and some examples are
			// modules of their own.
			if _, err := os.Stat(filepath.Join(p, "go.mod")); rel != "." && err == nil {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir := path.Dir(rel)
		for _, i := range f.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if !slices.Contains(all[dir], name) {
				all[dir] = append(all[dir], name)
			}
		}
		if all[dir] == nil {
			all[dir] = []string{}
		}
		return nil
	})
	assert.NilError(t, err)
	return all
}

func level(pkg string) int {
	return slices.IndexFunc(layers, func(l []string) bool { return slices.Contains(l, pkg) })
}

func TestImportsPointDown(t *testing.T) {
	all := imports(t)
	for pkg, list := range all {
		if slices.Contains(helpers, pkg) {
			continue
		}
		if level(pkg) < 0 {
			t.Errorf("%s is not in the table of layers: say where it stands", pkg)
			continue
		}
		for _, i := range list {
			below, ours := strings.CutPrefix(i, module)
			if !ours {
				continue
			}
			if level(below) < 0 || level(below) >= level(pkg) {
				t.Errorf("%s imports %s, which is not below it", pkg, below)
			}
		}
	}
	for _, l := range layers {
		for _, pkg := range l {
			if _, ok := all[pkg]; !ok {
				t.Errorf("%s is in the table of layers, but has no code", pkg)
			}
		}
	}
}

func TestEachLibraryIsHiddenByItsPackage(t *testing.T) {
	found := map[string][]string{}
	for pkg, list := range imports(t) {
		for _, i := range list {
			if first, _, _ := strings.Cut(i, "/"); !strings.Contains(first, ".") || strings.HasPrefix(i, module) {
				continue // the standard library, or our own
			}
			library := i
			for name := range users {
				if i == name || strings.HasPrefix(i, name+"/") {
					library = name
				}
			}
			if !slices.Contains(found[library], pkg) && !slices.Contains(helpers, pkg) {
				found[library] = append(found[library], pkg)
			}
		}
	}
	for _, pkgs := range found {
		slices.Sort(pkgs)
	}
	assert.DeepEqual(t, found, users)
}

func TestTheExampleImportsOnlyProof(t *testing.T) {
	var ours []string
	for _, i := range imports(t)["examples/verify"] {
		if strings.Contains(i, ".") {
			ours = append(ours, i)
		}
	}
	assert.DeepEqual(t, ours, []string{module + "pkg/proof"})
}

// A verifier must fit where there is no network, no repository and no disk.
func TestProofNeedsNoNetworkNoGitAndNoStorage(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./proof")
	out, err := cmd.Output()
	assert.NilError(t, err)
	deps := strings.Fields(string(out))
	assert.Assert(t, slices.Contains(deps, module+"pkg/proof"))
	ours := map[string]bool{module + "pkg/proof": true, module + "pkg/receipt": true, module + "pkg/checkpoint": true, module + "pkg/openpgp": true}
	for _, d := range deps {
		switch {
		case strings.HasPrefix(d, module) && !ours[d],
			d == "net", strings.HasPrefix(d, "net/"), d == "database/sql",
			strings.HasPrefix(d, "github.com/go-git/"), strings.HasPrefix(d, "modernc.org/"):
			t.Errorf("proof needs %s", d)
		}
	}
}
