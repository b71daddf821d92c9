package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	maxFile    = 64 << 10 // bytes
	maxCount   = 1_000_000
	maxReviews = 10 // GitHub's own limit
	minTimeout = time.Second
	maxTimeout = 6 * time.Hour
	maxErrors  = 10 // shown at once
)

// Parse reads a configuration. name is what errors call the file. An error
// may be of several lines, each beginning with name:line.
func Parse(name string, data []byte) (Config, error) {
	p := &parser{name: name, least: "version: 1", at: map[string]int{}}
	c := Default()
	if root := p.document(data); root != nil {
		p.file(root, &c)
	}
	if len(p.errs) > 0 {
		return Config{}, errors.Join(p.errs...)
	}
	return c, nil
}

// parser collects errors, so that a person can mend a file in one go.
type parser struct {
	name  string
	least string // what a file must hold at least
	errs  []error
	at    map[string]int // line of each branch that was given
}

func (p *parser) fail(line int, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	switch {
	case len(p.errs) > maxErrors:
	case len(p.errs) == maxErrors:
		p.errs = append(p.errs, fmt.Errorf("%s: more errors are not shown", p.name))
	case line > 0:
		p.errs = append(p.errs, fmt.Errorf("%s:%d: %s", p.name, line, msg))
	default:
		p.errs = append(p.errs, fmt.Errorf("%s: %s", p.name, msg))
	}
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// document returns the one value of the file, or nil after an error.
func (p *parser) document(data []byte) *yaml.Node {
	if len(data) > maxFile {
		p.fail(0, "%d bytes, wanted at most %d", len(data), maxFile)
		return nil
	}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if !utf8.ValidString(line) {
			p.fail(i+1, "not UTF-8")
			return nil
		}
		for _, r := range line {
			if r == '\t' {
				p.fail(i+1, "found a tab, wanted spaces")
				return nil
			}
			// What an editor does not show, or YAML takes for a line end.
			if unicode.IsControl(r) || strings.ContainsRune("\u2028\u2029\ufeff", r) {
				p.fail(i+1, "found the invisible character %U", r)
				return nil
			}
		}
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if err == nil {
		err = dec.Decode(&more)
	}
	switch {
	case errors.Is(err, io.EOF) && len(doc.Content) == 1:
		return doc.Content[0]
	case errors.Is(err, io.EOF):
		p.fail(0, "the file is empty, wanted at least %q", p.least)
	case err == nil:
		p.fail(more.Line, "found a second document, wanted one")
	default:
		msg, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
		if m := yamlLine.FindStringSubmatch(msg); m != nil {
			line, _ = strconv.Atoi(m[1])
			msg = msg[len(m[0]):]
		}
		p.fail(line, "not YAML: %s", msg)
	}
	return nil
}

// field is one key of a mapping and what reads its value.
type field struct {
	key  string
	read func(key string, n *yaml.Node)
}

func (p *parser) file(n *yaml.Node, c *Config) {
	version := false
	p.mapping("the file", n, []field{
		{"version", func(key string, n *yaml.Node) {
			version = true
			if v, ok := p.number(key, n); ok && v != 1 {
				p.fail(n.Line, "version: found %d, wanted 1", v)
			}
		}},
		{"origin", p.text(&c.Origin, orEmpty(wantOrigin))},
		{"smoke", p.section([]field{
			{"run", p.command(&c.Smoke.Run)},
			{"expect", p.atMost(&c.Smoke.Expect, maxCount)},
			{"warnings", p.text(&c.Smoke.Warnings, wantOneOf("fail", "allow"))},
			{"timeout", p.duration(&c.Smoke.Timeout)},
			{"format", p.text(&c.Smoke.Format, wantOneOf("auto", "smoke-json", "human"))},
			{"mode", p.text(&c.Smoke.Mode, wantOneOf(Enforce, Advisory))},
			{"tests", p.text(&c.Smoke.Tests, orEmpty(wantPath))},
			{"suite", p.text(&c.Smoke.Suite, orEmpty(wantPath))},
			{"results", p.texts(&c.Smoke.Results, 0, wantPattern)},
		})},
		{"covenants", p.section([]field{
			{"mode", p.text(&c.Covenants.Mode, wantOneOf(Enforce, Advisory))},
			{"required", p.texts(&c.Covenants.Required, 1, wantClaim)},
			{"build", func(key string, n *yaml.Node) {
				b, before := &c.Covenants.Build, len(p.errs)
				p.mapping(key, n, []field{
					{"run", p.command(&b.Run)},
					{"outputs", p.texts(&b.Outputs, 1, wantPattern)},
					{"timeout", p.duration(&b.Timeout)},
				})
				// A build without a command or without outputs would compare
				// nothing and find no difference.
				if len(p.errs) == before && (b.Run.None() || len(b.Outputs) == 0) {
					p.fail(n.Line, "%s: run or outputs is missing, wanted both", key)
				}
			}},
			{"lock-files", p.texts(&c.Covenants.LockFiles, 0, wantPath)},
			{"artifacts", p.texts(&c.Covenants.Artifacts, 0, wantPattern)},
			{"hygiene", p.section([]field{
				{"root", p.texts(&c.Covenants.Hygiene.Root, 0, wantPattern)},
				{"max-root", p.atMost(&c.Covenants.Hygiene.MaxRoot, maxCount)},
				{"max-file", p.atMost(&c.Covenants.Hygiene.MaxFile, maxCount)},
				{"archive", p.texts(&c.Covenants.Hygiene.Archive, 0, wantPattern)},
				{"links", p.texts(&c.Covenants.Hygiene.Links, 0, wantPattern)},
			})},
			{"custom", p.custom(&c.Covenants.Custom)},
		})},
		{"ledger", p.section([]field{
			{"mode", p.text(&c.Ledger.Mode, wantOneOf(Enforce, Advisory))},
		})},
		{"publish", p.section([]field{
			{"branch", p.branch(&c.Publish.Branch, wantBranch)},
			{"claim-branch", p.branch(&c.Publish.ClaimBranch, wantBranch)},
			{"publish-ref", p.branch(&c.Publish.PublishRef, orEmpty(wantBranch))},
			{"commit-mode", p.text(&c.Publish.CommitMode, wantOneOf("git", "api"))},
			{"author", func(key string, n *yaml.Node) {
				var s string
				if p.text(&s, wantAuthor)(key, n); s != "" {
					name, mail, _ := strings.Cut(strings.TrimSuffix(s, ">"), " <")
					c.Publish.Author = Author{Name: name, Email: mail}
				}
			}},
			{"workflow", p.text(&c.Publish.Workflow, wantWorkflow)},
		})},
		{"enforce", p.section([]field{
			{"checks", p.texts(&c.Enforce.Checks, 0, wantCheckName)},
			{"app", p.app(&c.Enforce.App)},
			{"publisher-app", p.app(&c.Enforce.PublisherApp)},
			{"reviews", p.atMost(&c.Enforce.Reviews, maxReviews)},
		})},
		{"release", p.section([]field{
			{"artifacts", p.texts(&c.Release.Artifacts, 0, wantPattern)},
			{"authorities", p.names(&c.Release.Authorities)},
			{"timestamps", func(key string, n *yaml.Node) {
				// A number needs no quotes for us to know what is meant.
				if p.plain(n) && n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int" {
					n.Tag = "!!str"
				}
				p.text(&c.Release.Timestamps, wantQuorum)(key, n)
			}},
			{"tag-prefix", p.text(&c.Release.TagPrefix, wantTagPrefix)},
		})},
		{"paths", p.section([]field{
			{"docs", p.text(&c.Paths.Docs, wantPath)},
			{"ops", p.text(&c.Paths.Ops, wantPath)},
			{"gate-owned", p.texts(&c.Paths.GateOwned, 1, wantPattern)},
		})},
	})
	if len(p.errs) > 0 {
		return
	}
	if !version {
		p.fail(0, `version is missing, wanted "version: 1"`)
	}
	// Claims pushed to the branch they claim for would be signed states that
	// nobody has claimed.
	if c.Publish.ClaimBranch == c.Publish.Branch {
		p.fail(max(p.at["claim-branch"], p.at["branch"]), "claim-branch and branch are both %q, wanted two branches", c.Publish.Branch)
	}
	if c.Publish.ClaimBranch == c.Publish.PublishRef {
		p.fail(max(p.at["claim-branch"], p.at["publish-ref"]), "claim-branch and publish-ref are both %q, wanted two branches", c.Publish.PublishRef)
	}
}

// plain refuses everything that makes a value something else than it looks.
func (p *parser) plain(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		p.fail(n.Line, "found an alias, wanted the value itself")
	case n.Anchor != "":
		p.fail(n.Line, "found the anchor %q, wanted the value alone", short(n.Anchor))
	case n.Style&yaml.TaggedStyle != 0:
		p.fail(n.Line, "found the tag %q, wanted the value alone", short(n.Tag))
	default:
		return true
	}
	return false
}

// describe names a value in an error.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case n.ShortTag() == "!!null":
		return "nothing"
	case n.ShortTag() == "!!str":
		return "the text " + strconv.Quote(short(n.Value))
	}
	return short(n.Value)
}

func short(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

func (p *parser) section(fields []field) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) { p.mapping(key, n, fields) }
}

func (p *parser) mapping(name string, n *yaml.Node, fields []field) {
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.key
	}
	if !p.plain(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.fail(n.Line, "%s: found %s, wanted a mapping with keys of %s", name, describe(n), strings.Join(known, ", "))
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.ShortTag() == "!!merge" {
			p.fail(key.Line, "found a merge key, wanted the keys themselves")
			continue
		}
		if !p.plain(key) {
			continue
		}
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" {
			p.fail(key.Line, "found %s as a key; known keys: %s", describe(key), strings.Join(known, ", "))
			continue
		}
		at := slices.Index(known, key.Value)
		if at < 0 {
			hint := ""
			if near := nearest(key.Value, known); near != "" {
				hint = fmt.Sprintf(" did you mean %q?", near)
			}
			p.fail(key.Line, "unknown key %q;%s known keys: %s", short(key.Value), hint, strings.Join(known, ", "))
			continue
		}
		if line := first[key.Value]; line > 0 {
			p.fail(key.Line, "key %q is given twice, first on line %d", key.Value, line)
			continue
		}
		first[key.Value] = key.Line
		fields[at].read(key.Value, value)
	}
}

// str reads a scalar that YAML takes for text.
func (p *parser) str(key string, n *yaml.Node) (string, bool) {
	if !p.plain(n) {
		return "", false
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		hint := ""
		if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
			hint = fmt.Sprintf(": write %q", n.Value)
		}
		p.fail(n.Line, "%s: found %s, wanted text%s", key, describe(n), hint)
		return "", false
	}
	return n.Value, true
}

// number reads a whole number in plain digits: 0x1b, 1_000 and 017 are numbers
// to YAML and puzzles to people.
func (p *parser) number(key string, n *yaml.Node) (int, bool) {
	if !p.plain(n) {
		return 0, false
	}
	v, err := strconv.ParseUint(n.Value, 10, 31)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil || strconv.FormatUint(v, 10) != n.Value {
		p.fail(n.Line, "%s: found %s, wanted a whole number such as 27", key, describe(n))
		return 0, false
	}
	return int(v), true
}

func (p *parser) atMost(into *int, most int) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		if v, ok := p.number(key, n); ok && v > most {
			p.fail(n.Line, "%s: found %d, wanted 0 to %d", key, v, most)
		} else if ok {
			*into = v
		}
	}
}

// app reads the number of a GitHub App; 0 names none.
func (p *parser) app(into *int64) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		if v, ok := p.number(key, n); ok {
			*into = int64(v)
		}
	}
}

// A want judges a text: it returns what would have been right, or "".
type want func(string) string

func (p *parser) text(into *string, w want) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		s, ok := p.str(key, n)
		if !ok {
			return
		}
		if wanted := w(s); wanted != "" {
			p.fail(n.Line, "%s: found %q, wanted %s", key, short(s), wanted)
			return
		}
		*into = s
	}
}

func (p *parser) branch(into *string, w want) func(string, *yaml.Node) {
	read := p.text(into, w)
	return func(key string, n *yaml.Node) {
		p.at[key] = n.Line
		read(key, n)
	}
}

// sequence returns the elements of a list of at least so many (0 or 1).
func (p *parser) sequence(key string, n *yaml.Node, least int) ([]*yaml.Node, bool) {
	if !p.plain(n) {
		return nil, false
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) >= least {
		return n.Content, true
	}
	found, wanted := describe(n), "a list"
	if n.Kind == yaml.SequenceNode {
		found = "an empty list"
	}
	if least > 0 {
		wanted = "a list of at least one entry"
	}
	p.fail(n.Line, "%s: found %s, wanted %s", key, found, wanted)
	return nil, false
}

// texts reads a list of texts; an empty one is nil.
func (p *parser) texts(into *[]string, least int, w want) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		elements, ok := p.sequence(key, n, least)
		if !ok {
			return
		}
		var list []string
		before := len(p.errs)
		for _, e := range elements {
			var s string
			p.text(&s, w)(key, e)
			list = append(list, s)
		}
		if len(p.errs) == before {
			*into = list
		}
	}
}

// names reads a list of small names, each given once; an empty one is nil.
func (p *parser) names(into *[]string) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		var list []string
		p.texts(&list, 0, wantName)(key, n)
		for i, name := range list {
			if slices.Contains(list[:i], name) {
				p.fail(n.Line, "%s: the name %q is given twice", key, name)
				return
			}
		}
		*into = list
	}
}

// custom reads the user's own checks: mappings of name, run and timeout.
func (p *parser) custom(into *[]Custom) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		elements, ok := p.sequence(key, n, 0)
		if !ok {
			return
		}
		var list []Custom
		first := map[string]int{}
		for _, e := range elements {
			c, before := Custom{Timeout: time.Minute}, len(p.errs)
			p.mapping(key, e, []field{
				{"name", p.text(&c.Name, wantName)},
				{"run", p.command(&c.Run)},
				{"timeout", p.duration(&c.Timeout)},
			})
			line := first[c.Name]
			switch {
			case len(p.errs) > before:
			case c.Name == "" || c.Run.None():
				p.fail(e.Line, "%s: name or run is missing, wanted both", key)
			case line > 0:
				p.fail(e.Line, "%s: the name %q is given twice, first on line %d", key, c.Name, line)
			}
			first[c.Name] = e.Line
			list = append(list, c)
		}
		*into = list
	}
}

func (p *parser) command(into *Command) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		if n.Kind == yaml.SequenceNode {
			var argv []string
			p.texts(&argv, 1, wantWord)(key, n)
			if argv != nil && argv[0] == "" {
				p.fail(n.Line, "%s: the first word is empty, wanted a program", key)
			} else if argv != nil {
				*into = Command{Argv: argv}
			}
			return
		}
		if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
			if p.plain(n) {
				p.fail(n.Line, "%s: found %s, wanted a list of words or one shell line", key, describe(n))
			}
			return
		}
		var line string
		if p.text(&line, wantShell)(key, n); line != "" {
			*into = Command{Shell: line}
		}
	}
}

func (p *parser) duration(into *time.Duration) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		const wanted = "a duration from 1s to 6h, such as 10m"
		if !p.plain(n) {
			return
		}
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
			p.fail(n.Line, "%s: found %s, wanted %s", key, describe(n), wanted)
			return
		}
		d, err := time.ParseDuration(n.Value)
		if err != nil || d < minTimeout || d > maxTimeout {
			p.fail(n.Line, "%s: found %q, wanted %s", key, short(n.Value), wanted)
			return
		}
		*into = d
	}
}

func wantOneOf(values ...string) want {
	return func(s string) string {
		if slices.Contains(values, s) {
			return ""
		}
		return strings.Join(values, ", ")
	}
}

func orEmpty(w want) want {
	return func(s string) string {
		if s == "" {
			return ""
		}
		return w(s)
	}
}

var origin = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*$`)

func wantOrigin(s string) string {
	if len(s) <= 255 && origin.MatchString(s) && !strings.Contains(s, "..") {
		return ""
	}
	return "a URL without scheme, such as github.com/owner/name"
}

// wantBranch follows git-check-ref-format and adds what would be misread on a
// command line or in a refspec.
func wantBranch(s string) string {
	const wanted = "a branch name such as main"
	if strings.HasPrefix(s, "refs/") {
		return wanted + ", without refs/heads/"
	}
	if s == "" || len(s) > 200 || s == "@" || s == "HEAD" || s[0] == '-' || s[len(s)-1] == '.' ||
		strings.Contains(s, "..") || strings.Contains(s, "@{") || strings.ContainsAny(s, " ~^:?*[\\") || !printable(s, "") {
		return wanted
	}
	for _, part := range strings.Split(s, "/") {
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock") {
			return wanted
		}
	}
	return ""
}

var author = regexp.MustCompile(`^[^<>]*[^<> ] <[^<>@ ]+@[^<>@ ]+>$`)

func wantAuthor(s string) string {
	if len(s) <= 200 && author.MatchString(s) && s[0] != ' ' && printable(s, "") {
		return ""
	}
	return "a name and a mail address, such as Remembrancer Bot <bot@vaultmesh.org>"
}

func wantPath(s string) string {
	if fs.ValidPath(s) && s != "." && len(s) <= 255 && !strings.ContainsAny(s, `\:*?[]<>|"`) && printable(s, "") && strings.TrimSpace(s) == s && !dotGit(s) {
		return ""
	}
	return `a path inside the repository, such as docs/REMEMBRANCER.md, without ".."`
}

// dotGit: what lies in .git is not in the repository.
func dotGit(s string) bool {
	return slices.ContainsFunc(strings.Split(s, "/"), func(e string) bool { return strings.EqualFold(e, ".git") })
}

func wantWorkflow(s string) string {
	name, ok := strings.CutPrefix(s, ".github/workflows/")
	ext := path.Ext(name)
	if ok && wantPath(s) == "" && !strings.Contains(name, "/") && (ext == ".yml" || ext == ".yaml") && name != ext {
		return ""
	}
	return "a workflow such as .github/workflows/covenant-enforce.yml"
}

func wantPattern(s string) string {
	const wanted = `a pattern inside the repository, such as ops/** or SMOKE_TEST.sh`
	if !fs.ValidPath(s) || s == "." || len(s) > 255 || s[0] == '!' || strings.ContainsAny(s, `\:`) || !printable(s, "") {
		return wanted
	}
	for _, element := range strings.Split(s, "/") {
		if _, err := path.Match(element, ""); err != nil {
			return wanted
		}
		if element != "**" && strings.Contains(element, "**") {
			return wanted + "; ** stands alone between slashes"
		}
	}
	return ""
}

var smallName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func wantName(s string) string {
	if smallName.MatchString(s) {
		return ""
	}
	return "a name of small letters, digits and hyphens, such as licence-headers"
}

// wantClaim accepts a covenant and a check of one. Which checks there are is
// known to those who judge: a required check that nobody makes is no pass.
func wantClaim(s string) string {
	covenant, check, one := strings.Cut(s, "/")
	if slices.Contains(covenantNames, covenant) && (!one || smallName.MatchString(check)) {
		return ""
	}
	return strings.Join(covenantNames, ", ") + ", or a check of one, such as proof-chain/genesis"
}

func wantQuorum(s string) string {
	if s == "all" || s == "any" || len(s) == 1 && s >= "1" && s <= "9" {
		return ""
	}
	return "all, any, or a number from 1 to 9"
}

// wantTagPrefix accepts what a tag's name can begin with; what follows it is a
// version.
func wantTagPrefix(s string) string {
	if len(s) <= 50 && (s == "" || wantBranch(s+"1") == "") {
		return ""
	}
	return "what a tag begins with, such as v"
}

// wantCheckName: GitHub shows the name of a check on one line.
func wantCheckName(s string) string {
	if s != "" && len(s) <= 100 && strings.TrimSpace(s) == s && printable(s, "") {
		return ""
	}
	return "the name of a check, such as smoke-test"
}

func wantWord(s string) string {
	if printable(s, "\n\t") {
		return ""
	}
	return "a word without invisible characters"
}

func wantShell(s string) string {
	if strings.TrimSpace(s) != "" && printable(s, "\n\t") {
		return ""
	}
	return "a shell line without invisible characters"
}

func printable(s, also string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) && !strings.ContainsRune(also, r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}
