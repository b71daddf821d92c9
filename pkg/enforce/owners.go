package enforce

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// ownersFiles is where the forge looks for CODEOWNERS; the first one counts.
var ownersFiles = []string{".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS"}

// judgeOwners demands that every file that decides the gates has a code owner:
// without one, "review of a code owner" demands nothing.
func (r *reader) judgeOwners(ctx context.Context) (judge.Check, error) {
	const id, claim = "enforce/codeowners", "what decides the gates has code owners"
	if r.want.Reviews == 0 {
		return judge.NotClaimed(id, claim, "enforce.reviews is 0"), nil
	}
	ref := "?ref=" + url.QueryEscape(r.want.Branch)
	for _, name := range ownersFiles {
		a, err := r.api.Get(ctx, r.want.path("contents")+"/"+name+ref)
		if forge.IsNotFound(err) {
			continue
		}
		if l, refused := lacking(err, "contents:read"); refused {
			return judge.Unjudged(id, claim, fmt.Errorf("%s is unreadable: the token lacks %s", name, l)), nil
		}
		if err != nil {
			return judge.Check{}, err
		}
		var file struct {
			Type, Encoding, Content string
		}
		if err := json.Unmarshal(a.Body, &file); err != nil {
			return judge.Unjudged(id, claim, fmt.Errorf("%s: %w", name, err)), nil
		}
		if file.Type != "file" || file.Encoding != "base64" {
			return judge.Unjudged(id, claim, fmt.Errorf("%s is no readable file: type %q, encoding %q", name, file.Type, file.Encoding)), nil
		}
		text, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(file.Content, "\n", ""))
		if err != nil {
			return judge.Unjudged(id, claim, fmt.Errorf("%s: %w", name, err)), nil
		}
		findings := uncovered(name, parseOwners(string(text)), r.want.GateOwned)
		a, err = r.api.Get(ctx, r.want.path("codeowners", "errors")+ref)
		if l, refused := lacking(err, "contents:read"); refused {
			return judge.Unjudged(id, claim, fmt.Errorf("what the forge finds wrong with %s is unreadable: the token lacks %s", name, l)), nil
		}
		if err != nil {
			return judge.Check{}, err
		}
		var wrong struct {
			Errors []struct {
				Line, Column  int
				Kind, Message string
			}
		}
		if err := json.Unmarshal(a.Body, &wrong); err != nil {
			return judge.Unjudged(id, claim, fmt.Errorf("errors of %s: %w", name, err)), nil
		}
		for _, e := range wrong.Errors {
			// A line that the forge does not understand owns nothing.
			first, _, _ := strings.Cut(e.Message, "\n")
			findings = append(findings, judge.Finding{Path: name, Line: e.Line, Column: e.Column, Message: strings.TrimSpace(e.Kind + ": " + first)})
		}
		return judge.Judged(id, claim, name, findings...), nil
	}
	return judge.Judged(id, claim, "branch "+r.want.Branch, judge.Finding{
		Path: ownersFiles[0], Message: "there is no CODEOWNERS", Fix: "write lines as: /" + strings.TrimSuffix(prefixOf(r.want.GateOwned), "/") + " @" + r.want.Owner,
	}), nil
}

func prefixOf(patterns []string) string {
	if len(patterns) == 0 {
		return ".github"
	}
	return strings.TrimSuffix(patterns[0], "**")
}

// ownersRule is a line of CODEOWNERS. The last line that matches a file decides.
type ownersRule struct {
	line    int
	pattern string
	owned   bool
}

// parseOwners reads CODEOWNERS
// (https://docs.github.com/en/repositories/managing-your-repositorys-settings-and-features/customizing-your-repository/about-code-owners).
// Lines that the forge refuses are listed by it; here they own nothing.
func parseOwners(text string) []ownersRule {
	var rules []ownersRule
	for i, line := range strings.Split(text, "\n") {
		var fields []string
		field := ""
		escaped, comment := false, false
		for _, c := range strings.TrimRight(line, "\r") + " " {
			switch {
			case escaped:
				field, escaped = field+string(c), false
			case c == '\\':
				escaped = true
			case c == '#' && field == "":
				comment = true
			case comment:
			case c == ' ' || c == '\t':
				if field != "" {
					fields, field = append(fields, field), ""
				}
			default:
				field += string(c)
			}
		}
		if len(fields) == 0 {
			continue
		}
		rules = append(rules, ownersRule{line: i + 1, pattern: fields[0], owned: len(fields) > 1 && !strings.ContainsAny(fields[0], "![]")})
	}
	return rules
}

// uncovered returns the gate-owned patterns that may have files without an owner.
// Where patterns only might meet, they count as meeting: a doubt is a finding.
func uncovered(file string, rules []ownersRule, gates []string) []judge.Finding {
	var findings []judge.Finding
	for _, gate := range gates {
		bad := judge.Finding{Path: file, Message: fmt.Sprintf("no code owner for %s", gate), Fix: "add a line: " + suggestion(gate)}
		for i := len(rules) - 1; i >= 0; i-- {
			x := rules[i]
			if x.owned && x.covers(gate) {
				bad.Message = ""
				break
			}
			if !x.owned && x.meets(gate) {
				bad.Line, bad.Message = x.line, fmt.Sprintf("%s leaves files of %s without a code owner", x.pattern, gate)
				break
			}
		}
		if bad.Message != "" {
			findings = append(findings, bad)
		}
	}
	return findings
}

func suggestion(gate string) string {
	if dir, ok := strings.CutSuffix(gate, "/**"); ok && !wild(dir) {
		return "/" + dir + "/ @OWNER"
	}
	return "/" + gate + " @OWNER"
}

func wild(s string) bool { return strings.ContainsAny(s, "*?[\\") }

// literal returns the folder that all files of a gate's pattern are in, and
// whether the pattern is one file.
func literal(gate string) (string, bool) {
	if !wild(gate) {
		return gate, true
	}
	var dir []string
	for _, e := range strings.Split(gate, "/") {
		if wild(e) {
			break
		}
		dir = append(dir, e)
	}
	return strings.Join(dir, "/"), false
}

// covers says that the rule matches every file of a gate's pattern, for sure.
func (x ownersRule) covers(gate string) bool {
	at, file := literal(gate)
	if file {
		return x.matches(at, false)
	}
	p := strings.TrimPrefix(x.pattern, "/")
	switch p {
	case "*", "**", "**/*":
		return p != "*" || !strings.HasPrefix(x.pattern, "/") // "/*" is the root's own files
	}
	if at == "" {
		return false
	}
	// All below a folder is matched by a rule for it, or for a folder above it.
	if dir, ok := strings.CutSuffix(p, "/**"); ok {
		return ownersRule{pattern: "/" + dir + "/", owned: x.owned}.matches(at, true)
	}
	return x.matches(at, true)
}

// meets says that the rule may match a file of a gate's pattern.
func (x ownersRule) meets(gate string) bool {
	at, file := literal(gate)
	if file && !strings.ContainsAny(x.pattern, "![]") {
		return x.matches(at, false)
	}
	if !x.anchored() {
		return true
	}
	mine, _ := literal(strings.Trim(x.pattern, "/"))
	return at == "" || mine == "" || mine == at || strings.HasPrefix(mine, at+"/") || strings.HasPrefix(at, mine+"/")
}

func (x ownersRule) anchored() bool { return strings.Contains(strings.TrimSuffix(x.pattern, "/"), "/") }

// matches says that the rule matches a file or folder, or a folder above it.
func (x ownersRule) matches(name string, folder bool) bool {
	p := strings.TrimPrefix(x.pattern, "/")
	p, onlyFolders := strings.CutSuffix(p, "/")
	pattern := strings.Split(p, "/")
	if !x.anchored() {
		pattern = append([]string{"**"}, pattern...)
	}
	elements := strings.Split(name, "/")
	last := pattern[len(pattern)-1]
	for n := len(elements); n > 0; n-- {
		isFolder := n < len(elements) || folder
		// docs/* is the files of docs, not its folders: only a plain name, or **,
		// stands for all that is below.
		if n < len(elements) && wild(last) && last != "**" || onlyFolders && !isFolder || folder && n == len(elements) && wild(last) && last != "**" {
			continue
		}
		if matchElements(pattern, elements[:n]) {
			return true
		}
	}
	return false
}

func matchElements(pattern, elements []string) bool {
	if len(pattern) == 0 {
		return len(elements) == 0
	}
	if pattern[0] == "**" {
		for i := range len(elements) + 1 {
			if len(pattern) == 1 && i == len(elements) {
				return len(elements) > 0 // x/** is what is below x, not x
			}
			if len(pattern) > 1 && matchElements(pattern[1:], elements[i:]) {
				return true
			}
		}
		return false
	}
	if len(elements) == 0 {
		return false
	}
	ok, err := path.Match(pattern[0], elements[0])
	return ok && err == nil && matchElements(pattern[1:], elements[1:])
}
