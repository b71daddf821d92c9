package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Render writes a configuration as a file for people: every key, with a
// comment; a build that is not claimed stands there as a comment only. Parse reads it back to the same value, if c is one that Parse,
// Default or Detect could have returned.
func Render(c Config) []byte {
	var b bytes.Buffer
	b.WriteString("# What the gates of this repository demand. Unknown keys are errors.\n")
	b.WriteString("# The gates read this file from the base branch, never from the change they judge.\n")
	b.WriteString("version: 1\n")
	if c.Origin != "" {
		line(&b, "", "origin", quote(c.Origin), "name of the log: a URL without scheme")
	}
	b.WriteString("\nsmoke:\n")
	line(&b, "  ", "run", command(c.Smoke.Run), "a list of words, or one shell line")
	line(&b, "  ", "expect", fmt.Sprint(c.Smoke.Expect), "floor: fewer tests than this fail; 0 sets none")
	line(&b, "  ", "warnings", quote(c.Smoke.Warnings), "fail | allow")
	line(&b, "  ", "timeout", duration(c.Smoke.Timeout), "1s to 6h; shorter than the job's own")
	line(&b, "  ", "format", quote(c.Smoke.Format), "auto | smoke-json | human")
	line(&b, "  ", "mode", quote(c.Smoke.Mode), "enforce | advisory")
	line(&b, "  ", "tests", quote(c.Smoke.Tests), "file of test ids, one a line, that must be there and pass")
	line(&b, "  ", "suite", quote(c.Smoke.Suite), "file of declarative tests, run in place of run")
	line(&b, "  ", "results", list(c.Smoke.Results), "reports that the command writes; empty: its output is read")
	v := c.Covenants
	b.WriteString("\ncovenants:\n")
	line(&b, "  ", "mode", quote(v.Mode), "enforce | advisory")
	line(&b, "  ", "required", list(v.Required), "what must be claimed: "+strings.Join(covenantNames, ", ")+", or a check such as proof-chain/genesis")
	out := ""
	if v.Build.Run.None() {
		// Shown, not claimed.
		v.Build.Run, v.Build.Outputs, out = Command{Argv: []string{"make", "build"}}, []string{"bin/**"}, "# "
	}
	fmt.Fprintf(&b, "  %-42s # made twice, in two places, and compared byte for byte\n", out+"build:")
	line(&b, "  "+out+"  ", "run", command(v.Build.Run), "a list of words, or one shell line")
	line(&b, "  "+out+"  ", "outputs", list(v.Build.Outputs), "what it makes")
	line(&b, "  "+out+"  ", "timeout", duration(v.Build.Timeout), "of each of the two")
	line(&b, "  ", "lock-files", list(v.LockFiles), "must be there and be used; empty: found by what is in the tree")
	line(&b, "  ", "artifacts", list(v.Artifacts), "must have digest, signature and timestamp")
	b.WriteString("  hygiene:\n")
	line(&b, "    ", "root", list(v.Hygiene.Root), "what may lie at the root; empty: no rule")
	line(&b, "    ", "max-root", fmt.Sprint(v.Hygiene.MaxRoot), "most entries at the root; 0: no limit")
	line(&b, "    ", "max-file", fmt.Sprint(v.Hygiene.MaxFile), "most KiB of a file; 0: no limit")
	line(&b, "    ", "archive", list(v.Hygiene.Archive), "where duplicates and old things may be")
	line(&b, "    ", "links", list(v.Hygiene.Links), "documents whose links must resolve")
	const custom = "checks of your own: name, run and timeout; exit status 0 passes"
	if len(v.Custom) == 0 {
		line(&b, "  ", "custom", "[]", custom)
	} else {
		fmt.Fprintf(&b, "  %-42s # %s\n", "custom:", custom)
	}
	for _, c := range v.Custom {
		fmt.Fprintf(&b, "    - name: %s\n      run: %s\n      timeout: %s\n", quote(c.Name), command(c.Run), duration(c.Timeout))
	}
	b.WriteString("\nledger:\n")
	line(&b, "  ", "mode", quote(c.Ledger.Mode), "enforce | advisory")
	b.WriteString("\npublish:\n")
	line(&b, "  ", "branch", quote(c.Publish.Branch), "the branch that carries the ledger")
	line(&b, "  ", "claim-branch", quote(c.Publish.ClaimBranch), "states are claimed here before they are signed")
	line(&b, "  ", "publish-ref", quote(c.Publish.PublishRef), "a branch of its own for the ledger; empty: the branch itself")
	line(&b, "  ", "commit-mode", quote(c.Publish.CommitMode), "git | api")
	line(&b, "  ", "author", quote(c.Publish.Author.String()), "of the publisher's commits")
	line(&b, "  ", "workflow", quote(c.Publish.Workflow), "the workflow whose runs are observed")
	b.WriteString("\nenforce:\n")
	line(&b, "  ", "checks", list(c.Enforce.Checks), "the checks that a change must pass")
	line(&b, "  ", "app", fmt.Sprint(c.Enforce.App), "the App that must post them; 15368 is GitHub Actions; 0: any source")
	line(&b, "  ", "publisher-app", fmt.Sprint(c.Enforce.PublisherApp), "the App whose publisher may pass the rules; 0: none")
	line(&b, "  ", "reviews", fmt.Sprint(c.Enforce.Reviews), "approvals a change needs, by code owners")
	b.WriteString("\nrelease:\n")
	line(&b, "  ", "artifacts", list(c.Release.Artifacts), "what is signed; empty: covenants.artifacts")
	line(&b, "  ", "authorities", list(c.Release.Authorities), "who stamps it, of ops/certs/tsa; empty: all that are there")
	line(&b, "  ", "timestamps", quote(c.Release.Timestamps), "all | any | how many independent ones are needed")
	line(&b, "  ", "tag-prefix", quote(c.Release.TagPrefix), "what the tag of a release begins with")
	b.WriteString("\npaths:\n")
	line(&b, "  ", "docs", quote(c.Paths.Docs), "holds the Merkle Root line")
	line(&b, "  ", "ops", quote(c.Paths.Ops), "ledger, receipts, status, certificates")
	line(&b, "  ", "gate-owned", list(c.Paths.GateOwned), "what decides the gates: changes need a code owner")
	return b.Bytes()
}

func line(b *bytes.Buffer, indent, key, value, comment string) {
	fmt.Fprintf(b, "%-44s # %s\n", indent+key+": "+value, comment)
}

// Text that begins with a letter, a dot or a slash and holds none of YAML's
// signs needs no quotes, unless YAML takes it for another type.
var bare = regexp.MustCompile(`^[A-Za-z./][A-Za-z0-9_./<>@ -]*[A-Za-z0-9_/>]$`)

func quote(s string) string {
	if bare.MatchString(s) && !strings.Contains(s, "  ") {
		var doc yaml.Node
		if yaml.Unmarshal([]byte(s), &doc) == nil && len(doc.Content) == 1 && doc.Content[0].ShortTag() == "!!str" {
			return s
		}
	}
	// A JSON string is a double-quoted YAML string.
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func command(c Command) string {
	if c.Shell != "" {
		return quote(c.Shell)
	}
	return list(c.Argv)
}

func list(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// duration writes 10m for Go's 10m0s.
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
