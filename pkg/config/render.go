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
// comment. Parse reads it back to the same value, if c is one that Parse,
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
	run := quote(c.Smoke.Run.Shell)
	if c.Smoke.Run.Shell == "" {
		run = list(c.Smoke.Run.Argv)
	}
	line(&b, "  ", "run", run, "a list of words, or one shell line")
	line(&b, "  ", "expect", fmt.Sprint(c.Smoke.Expect), "floor: fewer tests than this fail; 0 sets none")
	line(&b, "  ", "warnings", quote(c.Smoke.Warnings), "fail | allow")
	line(&b, "  ", "timeout", duration(c.Smoke.Timeout), "1s to 6h; shorter than the job's own")
	line(&b, "  ", "format", quote(c.Smoke.Format), "auto | smoke-json | human")
	line(&b, "  ", "mode", quote(c.Smoke.Mode), "enforce | advisory")
	b.WriteString("\nledger:\n")
	line(&b, "  ", "mode", quote(c.Ledger.Mode), "enforce | advisory")
	b.WriteString("\npublish:\n")
	line(&b, "  ", "branch", quote(c.Publish.Branch), "the branch that carries the ledger")
	line(&b, "  ", "claim-branch", quote(c.Publish.ClaimBranch), "states are claimed here before they are signed")
	line(&b, "  ", "publish-ref", quote(c.Publish.PublishRef), "a branch of its own for the ledger; empty: the branch itself")
	line(&b, "  ", "commit-mode", quote(c.Publish.CommitMode), "git | api")
	line(&b, "  ", "author", quote(c.Publish.Author.String()), "of the publisher's commits")
	line(&b, "  ", "workflow", quote(c.Publish.Workflow), "the workflow whose runs are observed")
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
