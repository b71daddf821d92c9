package main

import (
	"encoding/json"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vaultmesh/remembrancer/pkg/forge/forgetest"
)

// rulesOf is the key of a script's forge whose rules can be written.
type rulesOf struct{}

type ruleForge struct {
	scriptForge
	repo  *forgetest.Repo
	saved map[string]string
}

const forgeUsage = `forge serve | token NAME app|person PERMISSION... | file PATH FILE | ruleset FILE |
	edit NAME FILE | protect FILE | status NAME LOGIN | fail N STATUS | save NAME | same NAME | writes N`

// cmdForge runs a forge with the repository acme/app beside the script, which
// the program finds by GITHUB_API_URL. Its token "admin" may write rules, "plain" is
// a job's own. Times and ids follow each other.
//
//	forge file PATH FILE      commit a file, alone, to main
//	forge ruleset FILE        make a ruleset, as somebody else would
//	forge edit NAME FILE      add the rule in FILE to a ruleset
//	forge protect FILE        give main classic protection
//	forge status NAME LOGIN   post a status at main
//	forge fail N STATUS       answer the next N requests with this status
//	forge save NAME           keep all that can be written, forge same NAME demands it
//	forge writes N            demand this number of writes since it was last asked
func cmdForge(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, forgeUsage)
	f := ts.Value(rulesOf{}).(*ruleForge)
	if args[0] == "serve" {
		f.fake, f.saved = forgetest.New(f), map[string]string{}
		for _, end := range f.ends {
			ts.Defer(end)
		}
		f.repo = f.fake.AddRepo("acme/app")
		f.fake.AddToken("admin", forgetest.Person, "administration:write", "contents:write")
		f.fake.AddToken("plain", forgetest.App, "contents:read")
		ts.Setenv("GITHUB_API_URL", f.fake.URL)
		return
	}
	f.mu.Lock()
	said := f.errors
	f.mu.Unlock()
	if len(said) > 0 {
		ts.Fatalf("%v", said)
	}
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		ts.Check(err)
		return n
	}
	need, ok := map[string]int{"token": 3, "file": 3, "ruleset": 2, "edit": 3, "protect": 2, "status": 3, "fail": 3, "save": 2, "same": 2, "writes": 2}[args[0]]
	if !ok || len(args) < need {
		ts.Fatalf("usage: %s", forgeUsage)
	}
	switch args[0] {
	case "token":
		f.fake.AddToken(args[1], args[2], args[3:]...)
	case "file":
		f.fake.Commit(f.repo, "main", map[string]string{args[1]: ts.ReadFile(args[2])})
	case "ruleset":
		f.fake.AddRuleset(f.repo, ts.ReadFile(args[1]))
	case "edit":
		f.fake.EditRuleset(f.repo, args[1], func(m map[string]any) {
			m["rules"] = append(m["rules"].([]any), json.RawMessage(ts.ReadFile(args[2])))
		})
	case "protect":
		members := map[string]any{}
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &members))
		f.fake.Protect(f.repo, "main", members)
	case "status":
		f.repo.Statuses = append(f.repo.Statuses, forgetest.Status{ID: f.fake.NextID(), Commit: f.repo.Branches["main"].Head, Context: args[1], State: "success", Creator: args[2]})
	case "fail":
		for range number(args[1]) {
			f.fake.Fail(forgetest.Fault{Status: number(args[2])})
		}
	case "save":
		f.saved[args[1]] = f.fake.State(f.repo)
	case "same":
		if now := f.fake.State(f.repo); now != f.saved[args[1]] {
			ts.Fatalf("the forge was\n%s\nand is\n%s", f.saved[args[1]], now)
		}
	case "writes":
		if got := forgetest.Writes(f.fake.Calls()); len(got) != number(args[1]) {
			ts.Fatalf("%d writes: %v", len(got), got)
		}
	}
}
