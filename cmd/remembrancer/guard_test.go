package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vaultmesh/remembrancer/pkg/forge/forgetest"
)

// pullsOf is the key of a script's forge.
type pullsOf struct{}

// scriptForge is a forge with one repository, acme/app, for a script.
type scriptForge struct {
	*forgetest.Pulls
	fake *forgetest.Fake
	ends []func()

	mu     sync.Mutex // guards errors
	errors []string
}

// Errorf keeps what is not as the forge's description says; the next command of
// the script fails with it.
func (f *scriptForge) Errorf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errors = append(f.errors, fmt.Sprintf(format, args...))
}

func (f *scriptForge) Cleanup(end func()) { f.ends = append(f.ends, end) }

const pullsUsage = `pulls serve DIR.git | pull N HEAD BASE AUTHOR | merged N REV LOGIN | review N LOGIN STATE REV |
	run WORKFLOW EVENT REV NAME=CONCLUSION... | status NAME STATE REV | access LOGIN LEVEL | lose PERMISSION`

// cmdPulls serves a bare repository and its pull requests as a forge does. The
// payload of the event of a pull request is written to $WORK/event.json, times
// of checks and merges follow each other.
func cmdPulls(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, pullsUsage)
	if args[0] == "serve" {
		f := &scriptForge{}
		f.fake = forgetest.New(f)
		r := f.fake.AddRepo("acme/app")
		r.Private = true
		f.Pulls = f.fake.AddPulls(r, ts.MkAbs(args[1]))
		f.allow("")
		for _, end := range f.ends {
			ts.Defer(end)
		}
		ts.Setenv("GITHUB_API_URL", f.fake.URL)
		ts.Setenv("REMEMBRANCER_TOKEN", "ghs_read")
		*ts.Value(pullsOf{}).(**scriptForge) = f
		return
	}
	f := *ts.Value(pullsOf{}).(**scriptForge)
	f.mu.Lock()
	said := f.errors
	f.mu.Unlock()
	if len(said) > 0 {
		ts.Fatalf("%v", said)
	}
	need := map[string]int{"pull": 5, "merged": 4, "review": 5, "run": 4, "status": 4, "access": 3, "lose": 2}[args[0]]
	if need == 0 || len(args) < need {
		ts.Fatalf("usage: %s", pullsUsage)
	}
	number := func() int64 {
		n, err := strconv.ParseInt(args[1], 10, 64)
		ts.Check(err)
		return n
	}
	switch args[0] {
	case "pull":
		p := &forgetest.Pull{Number: number(), Head: args[2], Base: args[3], Author: args[4]}
		f.Change(func() { f.Open = append(f.Open, p) })
		f.event(ts, p)
	case "merged":
		f.Change(func() {
			for _, p := range f.Open {
				if p.Number == number() {
					p.MergedCommit, p.MergedBy, p.MergedAt = args[2], args[3], time.Date(2025, 3, 1, 12, 0, 30, 0, time.UTC)
				}
			}
		})
	case "review":
		f.Change(func() {
			f.Reviews = append(f.Reviews, forgetest.Review{Pull: number(), Login: args[2], State: args[3], Commit: args[4]})
		})
	case "run":
		f.Post(args[1], args[2], args[3], args[4:]...)
	case "status":
		f.PostStatus(args[1], args[2], args[3])
	case "access":
		f.Change(func() { f.Access[args[1]] = args[2] })
	case "lose":
		f.allow(args[1])
	}
}

// allow lets the token read all but one kind of thing.
func (f *scriptForge) allow(not string) {
	var may []string
	for _, p := range []string{"contents", "pull_requests", "actions", "checks", "statuses"} {
		if p != not {
			may = append(may, p+":read")
		}
	}
	f.fake.AddToken("ghs_read", forgetest.App, may...)
}

// event writes the payload of an event of a pull request.
func (f *scriptForge) event(ts *testscript.TestScript, p *forgetest.Pull) {
	ts.Check(ts.Exec("git", "-C", f.Dir, "rev-parse", p.Head))
	head := ts.ReadFile("stdout")[:40]
	payload, err := json.Marshal(map[string]any{
		"number": p.Number, "repository": map[string]any{"full_name": "acme/app"},
		"pull_request": map[string]any{
			"number": p.Number, "head": map[string]any{"sha": head}, "base": map[string]any{"repo": map[string]any{"full_name": "acme/app"}},
		},
	})
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(ts.Getenv("WORK"), "event.json"), payload, 0o600))
}
