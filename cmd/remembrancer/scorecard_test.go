package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/tidwall/gjson"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/scorecard"
)

// cmdCard takes away what a scorecard cites:
//
//	card shrinks args...   of remembrancer scorecard, in this repository, which is clean
//
// Every file that a criterion cites is removed in a commit, and then changed in one: the
// criterion must be worth less each time. Documents, workflows and configuration can be
// changed and stay true: they are only removed. Then all of them are removed, and
// changed, in the work tree alone, which must take everything from every criterion that
// cites a file.
func cmdCard(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, "card shrinks args...")
	score := func() map[string]int64 {
		ts.Check(ts.Exec("remembrancer", append([]string{"scorecard", "--json"}, args[1:]...)...))
		all := map[string]int64{}
		gjson.Get(ts.ReadFile("stdout"), "dimensions.#.criteria|@flatten").ForEach(func(_, c gjson.Result) bool {
			all[c.Get("id").String()] = int64(c.Get("score").Float()*100 + 0.5)
			if c.Get("weight").Int() == 0 && c.Get("state").String() == "proven" {
				all[c.Get("id").String()] = 1
			}
			return true
		})
		return all
	}
	git := func(args ...string) { ts.Check(ts.Exec("git", args...)) }
	full := score()
	cites := map[string][]string{} // criteria by what they cite
	gjson.Get(ts.ReadFile("stdout"), "dimensions.#.criteria|@flatten").ForEach(func(_, c gjson.Result) bool {
		for _, f := range c.Get("files").Array() {
			cites[f.String()] = append(cites[f.String()], c.Get("id").String())
		}
		return true
	})
	if len(cites) < 20 {
		ts.Fatalf("only %d files are cited", len(cites))
	}
	change := func(file string) {
		path := ts.MkAbs(file)
		data, err := os.ReadFile(path)
		ts.Check(err)
		at := len(data) / 2
		if strings.HasSuffix(file, ".tsr") {
			at = len(data) - 2 // before its signature a token may carry what nobody signed
		}
		data[at] ^= 1
		info, err := os.Stat(path)
		ts.Check(err)
		ts.Check(os.WriteFile(path, data, info.Mode().Perm()))
	}
	free := func(file string) bool { // it can be changed and stay true
		return strings.HasSuffix(file, ".md") || strings.HasSuffix(file, ".yml") || strings.HasSuffix(file, "/") || file == "remembrancer.yaml"
	}
	lower := func(what string, files []string) {
		now := score()
		for _, file := range files {
			for _, id := range cites[file] {
				if now[id] >= full[id] {
					ts.Fatalf("%s is %s, and %s is still worth %d of %d", file, what, id, now[id], full[id])
				}
			}
		}
	}
	first := map[string]bool{} // the first file of each criterion that can be changed
	seen := map[string]bool{}
	for _, file := range slices.Sorted(maps.Keys(cites)) {
		for _, id := range cites[file] {
			if !free(file) && !seen[id] {
				first[file], seen[id] = true, true
			}
		}
	}
	for _, files := range apart(cites) {
		git(append([]string{"rm", "-rq"}, files...)...)
		git("commit", "-qm", "removed", "--no-verify")
		lower("removed", files)
		git("reset", "-q", "--hard", "HEAD~1")
		files = slices.DeleteFunc(files, func(file string) bool { return !first[file] })
		if len(files) == 0 || testing.Short() {
			continue
		}
		for _, file := range files {
			change(file)
		}
		git("commit", "-qam", "changed", "--no-verify")
		lower("changed", files)
		git("reset", "-q", "--hard", "HEAD~1")
	}
	for what, touch := range map[string]func(string){"changed": change, "removed": func(file string) { ts.Check(os.RemoveAll(ts.MkAbs(file))) }} {
		for file := range cites {
			// Without its configuration a repository is another one.
			if strings.HasSuffix(file, "/") || file == "remembrancer.yaml" {
				continue
			}
			touch(file)
		}
		now := score()
		for file, ids := range cites {
			for _, id := range ids {
				if now[id] > 0 && file != "remembrancer.yaml" {
					ts.Fatalf("%s is %s in the work tree, and %s is still worth %d", file, what, id, now[id])
				}
			}
		}
		git("reset", "-q", "--hard")
	}
}

// apart parts files so that no criterion cites two of one part, and what takes the whole
// ledger along is alone: each part can be tried at once.
func apart(cites map[string][]string) (parts [][]string) {
	var used []map[string]bool
	for _, file := range slices.Sorted(maps.Keys(cites)) {
		at := len(parts)
		if alone := strings.HasPrefix(file, "ops/") || strings.HasSuffix(file, "/") || file == "docs/REMEMBRANCER.md" || file == "remembrancer.yaml"; !alone {
			at = slices.IndexFunc(used, func(ids map[string]bool) bool {
				return ids != nil && !slices.ContainsFunc(cites[file], func(id string) bool { return ids[id] })
			})
			if at < 0 {
				at = len(parts)
			}
			if at == len(parts) {
				parts, used = append(parts, nil), append(used, map[string]bool{})
			}
			for _, id := range cites[file] {
				used[at][id] = true
			}
		} else {
			parts, used = append(parts, nil), append(used, nil)
		}
		parts[at] = append(parts[at], file)
	}
	return parts
}

func TestCommandsThatAGuideTypesExist(t *testing.T) {
	for _, c := range []struct{ typed, want string }{
		{"smoke", ""},
		{"federation sync --peer http://x --trust-anchor f", ""},
		{"federation sync --peer=http://x", ""},
		{"help smoke", ""},
		{"federation", ""},
		{"smoke --help", ""},
		{"verify -- --odd", ""},
		{"smok", `there is no command "smok"`},
		{"federation sink", `there is no command "federation sink"`},
		{"smoke --expct 3", "smoke has no flag --expct"},
		{"publish --token x", "publish has no flag --token"}, // a secret is no flag
	} {
		err := commandExists(strings.Fields(c.typed))
		if c.want == "" {
			assert.NilError(t, err, c.typed)
			continue
		}
		assert.Error(t, err, c.want)
	}
}

// The table is rendered with the tables of the actions: go test -run Scorecards -args -render.
func TestTheScorecardsGuideShowsItsTable(t *testing.T) {
	path := filepath.Join(moduleRoot, "docs", "SCORECARD.md")
	doc, err := os.ReadFile(path)
	assert.NilError(t, err)
	want, err := action.RewriteMarked(doc, "criteria", scorecard.Table())
	assert.NilError(t, err)
	if *render {
		assert.NilError(t, os.WriteFile(path, want, 0o644))
		return
	}
	assert.Equal(t, string(doc), string(want), "go test ./cmd/remembrancer -run Scorecards -args -render")
}
