// Package config reads remembrancer.yaml, the one configuration file of a
// repository, and writes the first one.
//
// The file decides what a gate demands, so it is read strictly: an unknown key
// is an error that names the nearest known one, and so are a repeated key, an
// anchor, an alias, a merge key, a tag, a tab, a second document, a value of
// another type, an empty section, and a file of more than 64 KiB. Every error
// begins with file:line. Nothing is taken from a file that has one.
//
// Only version is required. These are all the keys; where a default exists it
// is the value shown:
//
//	version: 1
//	origin: github.com/owner/name     # no default: the caller derives one
//	smoke:
//	  run: [./SMOKE_TEST.sh]          # a list of words, or one shell line
//	  expect: 0                       # floor: fewer tests than this fail; 0 sets none
//	  warnings: fail                  # fail | allow
//	  timeout: 10m                    # 1s to 6h
//	  format: auto                    # auto | smoke-json | human
//	  mode: enforce                   # enforce | advisory
//	ledger:
//	  mode: enforce
//	publish:
//	  branch: main
//	  claim-branch: remembrancer/claim
//	  publish-ref: ""                 # a branch of its own for the ledger; empty: the branch itself
//	  commit-mode: git                # git | api
//	  author: Remembrancer Bot <bot@vaultmesh.org>
//	  workflow: .github/workflows/covenant-enforce.yml
//	paths:
//	  docs: docs/REMEMBRANCER.md
//	  ops: ops
//	  gate-owned: [".github/**", "ops/**", "remembrancer.yaml", "SMOKE_TEST.sh"]
//
// Paths are relative to the repository's root, with forward slashes. In
// gate-owned an element is a path.Match pattern, and the element ** stands for
// any number of elements.
package config

import (
	"strings"
	"time"
)

// FileName is where the configuration lives, at the root of the repository.
const FileName = "remembrancer.yaml"

// The values of a mode key: what a verdict that is no pass does to the job.
const (
	Enforce  = "enforce"
	Advisory = "advisory"
)

// Config is a whole configuration, defaults filled in.
type Config struct {
	// Origin names the log, as a URL without a scheme. Empty when the file
	// does not say.
	Origin  string
	Smoke   Smoke
	Ledger  Ledger
	Publish Publish
	Paths   Paths
}

// Smoke says how the smoke command is run and judged.
type Smoke struct {
	Run      Command
	Expect   int           // floor on the number of tests, 0 to 1,000,000; 0 sets none
	Warnings string        // "fail" or "allow"
	Timeout  time.Duration // 1 s to 6 h
	Format   string        // "auto", "smoke-json" or "human"
	Mode     string        // Enforce or Advisory
}

// Command is exactly one of a list of words and a shell line.
type Command struct {
	Argv  []string
	Shell string
}

// Ledger says how the audit of the ledger ends.
type Ledger struct {
	Mode string // Enforce or Advisory
}

// Publish says where and as whom the ledger is published.
type Publish struct {
	Branch      string // name without refs/heads/
	ClaimBranch string // name without refs/heads/
	PublishRef  string // branch name without refs/heads/; empty: Branch itself
	CommitMode  string // "git" or "api"
	Author      Author
	Workflow    string // the workflow whose runs are observed, under .github/workflows/
}

// Author is who the publisher's commits are by.
type Author struct{ Name, Email string }

// String returns the author as git writes one: Name <mail>.
func (a Author) String() string { return a.Name + " <" + a.Email + ">" }

// Paths says where things are in the repository.
type Paths struct {
	Docs      string   // the file that holds the root line
	Ops       string   // the directory of ledger, receipts, status and certificates
	GateOwned []string // patterns of what decides the gates; never empty
}

// Default returns the configuration of a file that says only "version: 1".
func Default() Config {
	return Config{
		Smoke: Smoke{
			Run:      Command{Argv: []string{"./SMOKE_TEST.sh"}},
			Warnings: "fail",
			Timeout:  10 * time.Minute,
			Format:   "auto",
			Mode:     Enforce,
		},
		Ledger: Ledger{Mode: Enforce},
		Publish: Publish{
			Branch:      "main",
			ClaimBranch: "remembrancer/claim",
			CommitMode:  "git",
			Author:      Author{Name: "Remembrancer Bot", Email: "bot@vaultmesh.org"},
			Workflow:    ".github/workflows/covenant-enforce.yml",
		},
		Paths: Paths{
			Docs:      "docs/REMEMBRANCER.md",
			Ops:       "ops",
			GateOwned: []string{".github/**", "ops/**", FileName, "SMOKE_TEST.sh"},
		},
	}
}

// nearest returns the known key that s was probably meant to be, or "".
func nearest(s string, known []string) string {
	best, at := "", len(s)/3+1
	for _, k := range known {
		if strings.EqualFold(strings.ReplaceAll(s, "_", "-"), k) {
			return k
		}
		if d := distance(s, k); d <= at && d < len(k) {
			if d < at || best == "" {
				best, at = k, d
			}
		}
	}
	return best
}

// distance counts the insertions, removals, replacements and swaps of
// neighbours that turn a into b.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	older, last, row := rows[0], rows[1], rows[2]
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(row[j]+1, last[j+1]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], older[j-1]+1)
			}
		}
		older, last, row = last, row, older
	}
	return last[len(b)]
}
