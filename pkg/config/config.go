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
//	  tests: ""                       # file of test ids, one a line, that must be there and pass
//	  suite: ""                       # file of declarative tests, run in place of run
//	  results: []                     # patterns of the reports that the command writes; empty: its output is read
//	covenants:
//	  mode: enforce
//	  required: [integrity]           # covenants, or checks such as proof-chain/genesis, that must be claimed
//	  build:                          # no default: where it is absent, no build is claimed
//	    run: [make, build]            # as smoke's
//	    outputs: ["bin/**"]           # what it makes, compared byte for byte
//	    timeout: 15m
//	  lock-files: []                  # must be there and be used; empty: found by what is in the tree
//	  artifacts: []                   # patterns of what must have digest, signature and timestamp
//	  hygiene:
//	    root: []                      # patterns of what may lie at the root; empty: no rule
//	    max-root: 0                   # most entries at the root; 0: no limit
//	    max-file: 0                   # most KiB of a file; 0: no limit
//	    archive: ["archive/**", "docs/releases/**"] # where duplicates and old things may be
//	    links: ["**/*.md"]            # documents whose links must resolve
//	  custom: []                      # mappings of name, run and timeout (1m): exit status 0 passes
//	ledger:
//	  mode: enforce
//	publish:
//	  branch: main
//	  claim-branch: remembrancer/claim
//	  publish-ref: ""                 # a branch of its own for the ledger; empty: the branch itself
//	  commit-mode: git                # git | api
//	  author: Remembrancer Bot <bot@vaultmesh.org>
//	  workflow: .github/workflows/covenant-enforce.yml
//	enforce:
//	  checks: [smoke-test, covenant-validation, merkle-integrity, covenant-guard]
//	  app: 15368                      # the App that must post them (15368 is GitHub Actions); 0: any source, which anybody can forge
//	  publisher-app: 0                # the App that publishes, and may pass the rules; 0: none
//	  reviews: 1                      # approvals a change needs, by code owners; 0 to 10
//	release:
//	  artifacts: []                   # patterns of what is signed, in the work tree after a build; empty: covenants.artifacts
//	  authorities: []                 # names of time-stamping authorities below ops/certs/tsa; empty: all that are there
//	  timestamps: all                 # all | any | how many under distinct roots are needed, 1 to 9
//	  tag-prefix: v                   # what the tag of a release begins with
//	paths:
//	  docs: docs/REMEMBRANCER.md
//	  ops: ops
//	  gate-owned: [".github/**", "ops/**", "remembrancer.yaml", "SMOKE_TEST.sh"]
//
// By the same rules it reads the two files of a node: see [Federation] and [Node].
//
// Paths are relative to the repository's root, with forward slashes. In a
// pattern each element is one of path.Match, and the element ** stands for any
// number of elements. The covenants are integrity, reproducibility, federation,
// proof-chain, hygiene and custom.
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
	Origin    string
	Smoke     Smoke
	Covenants Covenants
	Ledger    Ledger
	Publish   Publish
	Enforce   Rules
	Release   Release
	Paths     Paths
}

// Smoke says how the smoke command is run and judged.
type Smoke struct {
	Run      Command
	Expect   int           // floor on the number of tests, 0 to 1,000,000; 0 sets none
	Warnings string        // "fail" or "allow"
	Timeout  time.Duration // 1 s to 6 h
	Format   string        // "auto", "smoke-json" or "human"
	Mode     string        // Enforce or Advisory
	Tests    string        // file of the ids of tests that must pass; empty: none are named
	Suite    string        // file of declarative tests, run in place of Run; empty: none
	Results  []string      // patterns of the reports that Run writes; empty: its output is read
}

// covenantNames are the covenants that can be required.
var covenantNames = []string{"integrity", "reproducibility", "federation", "proof-chain", "hygiene", "custom"}

// Covenants says what the repository claims of itself, and what it must claim.
type Covenants struct {
	Mode      string   // Enforce or Advisory
	Required  []string // covenants, or checks as covenant/check; never empty
	Build     Build
	LockFiles []string // paths; empty: found by what is in the tree
	Artifacts []string // patterns
	Hygiene   Hygiene
	Custom    []Custom // names are unique
}

// Build is the build that is made twice and compared. Without a command none is
// claimed.
type Build struct {
	Run     Command
	Outputs []string      // patterns; at least one where there is a command
	Timeout time.Duration // 1 s to 6 h, for each of the two
}

// Hygiene says what a tidy tree is.
type Hygiene struct {
	Root    []string // patterns of what may lie at the root; empty: no rule
	MaxRoot int      // most entries at the root; 0: no limit
	MaxFile int      // most KiB of a file; 0: no limit
	Archive []string // patterns of where duplicates and old things may be
	Links   []string // patterns of documents whose links must resolve
}

// Custom is a check of the user's own: a command that passes with exit status 0.
type Custom struct {
	Name    string // small letters, digits and hyphens
	Run     Command
	Timeout time.Duration // 1 s to 6 h
}

// Command is exactly one of a list of words and a shell line.
type Command struct {
	Argv  []string
	Shell string
}

// None says that no command is given.
func (c Command) None() bool { return len(c.Argv) == 0 && c.Shell == "" }

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

// Rules says what the forge is made to demand of a change.
type Rules struct {
	Checks       []string // names of the required checks; none: nothing is required, and nothing bypassed
	App          int64    // the App that must post them; 0: any source
	PublisherApp int64    // the App whose publisher may pass the rules; 0: none
	Reviews      int      // approvals by code owners, 0 to 10
}

// Release says what a release signs, and how often that is time-stamped.
type Release struct {
	Artifacts   []string // patterns; empty: those of Covenants
	Authorities []string // names of time-stamping authorities; empty: all that are pinned
	Timestamps  string   // "all", "any", or a number from "1" to "9"
	TagPrefix   string   // may be empty
}

// Signed returns the patterns of what a release signs.
func (c Config) Signed() []string {
	if len(c.Release.Artifacts) > 0 {
		return c.Release.Artifacts
	}
	return c.Covenants.Artifacts
}

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
		Covenants: Covenants{
			Mode:     Enforce,
			Required: []string{"integrity"},
			Build:    Build{Timeout: 15 * time.Minute},
			Hygiene: Hygiene{
				Archive: []string{"archive/**", "docs/releases/**"},
				Links:   []string{"**/*.md"},
			},
		},
		Ledger: Ledger{Mode: Enforce},
		Publish: Publish{
			Branch:      "main",
			ClaimBranch: "remembrancer/claim",
			CommitMode:  "git",
			Author:      Author{Name: "Remembrancer Bot", Email: "bot@vaultmesh.org"},
			Workflow:    ".github/workflows/covenant-enforce.yml",
		},
		Enforce: Rules{
			Checks:  []string{"smoke-test", "covenant-validation", "merkle-integrity", "covenant-guard"},
			App:     15368, // GitHub Actions
			Reviews: 1,
		},
		Release: Release{Timestamps: "all", TagPrefix: "v"},
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
