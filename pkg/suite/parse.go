package suite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tidwall/gjson"
	"go.yaml.in/yaml/v3"

	"github.com/vaultmesh/remembrancer/pkg/action"
)

const (
	maxFile         = 256 << 10 // bytes
	maxTests        = 1000
	maxParallel     = 64
	defaultParallel = 4
	maxRetries      = 5
	minTimeout      = 100 * time.Millisecond
	maxTimeout      = time.Hour
	defaultTimeout  = 30 * time.Second
	maxErrors       = 10 // shown at once
)

// Parse reads a suite. name is what errors call the file. An error may be of
// several lines, each beginning with name:line.
func Parse(name string, data []byte) (*Suite, error) {
	p := &parser{name: name, ids: map[string]int{}}
	s := &Suite{parallel: defaultParallel}
	if root := p.document(data); root != nil {
		p.file(root, s)
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return s, nil
}

// parser collects errors, so that a person can mend a file in one go.
type parser struct {
	name string
	errs []error
	ids  map[string]int // line of each id
}

func (p *parser) fail(line int, format string, args ...any) {
	line = max(line, 1)
	switch msg := fmt.Sprintf(format, args...); {
	case len(p.errs) > maxErrors:
	case len(p.errs) == maxErrors:
		p.errs = append(p.errs, fmt.Errorf("%s:%d: more errors are not shown", p.name, line))
	default:
		p.errs = append(p.errs, fmt.Errorf("%s:%d: %s", p.name, line, msg))
	}
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// document returns the one value of the file, or nil after an error.
func (p *parser) document(data []byte) *yaml.Node {
	if len(data) > maxFile {
		p.fail(1, "%d bytes, wanted at most %d", len(data), maxFile)
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
		p.fail(1, `the file is empty, wanted "version: 1" and tests`)
	case err == nil:
		p.fail(more.Line, "found a second document, wanted one")
	default:
		msg, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
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
	read func(n *yaml.Node)
}

func (p *parser) file(n *yaml.Node, s *Suite) {
	given := p.mapping("the file", n, []field{
		{"version", func(n *yaml.Node) {
			if v, ok := p.number("version", n, 0, 1<<31-1); ok && v != 1 {
				p.fail(n.Line, "version: found %d, wanted 1", v)
			}
		}},
		{"parallel", func(n *yaml.Node) {
			if v, ok := p.number("parallel", n, 1, maxParallel); ok {
				s.parallel = v
			}
		}},
		{"tests", func(n *yaml.Node) {
			list := p.list("tests", n)
			if len(list) > maxTests {
				p.fail(n.Line, "tests: found %d tests, wanted at most %d", len(list), maxTests)
				return
			}
			for _, e := range list {
				s.tests = append(s.tests, p.test(e))
			}
		}},
	})
	if given == nil {
		return
	}
	if given["version"] == nil {
		p.fail(n.Line, `version is missing, wanted "version: 1"`)
	}
	if given["tests"] == nil {
		p.fail(n.Line, "tests is missing: a suite of nothing tests nothing")
	}
}

var id = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/:-]{0,99}$`)

func (p *parser) test(n *yaml.Node) test {
	t := test{line: n.Line, timeout: defaultTimeout}
	c := &command{}
	claims := 0
	claim := func(read func(n *yaml.Node) probe) func(n *yaml.Node) {
		return func(n *yaml.Node) {
			claims++
			t.claim = read(n)
		}
	}
	given := p.mapping("a test", n, []field{
		{"id", func(n *yaml.Node) {
			s, ok := p.text("id", n)
			switch first := p.ids[s]; {
			case !ok:
			case !id.MatchString(s):
				p.fail(n.Line, "id: found %q, wanted at most 100 letters, digits and . _ - / : that begin with a letter or digit", short(s))
			case first > 0:
				p.fail(n.Line, "id: %q is given twice, first on line %d", s, first)
			default:
				t.id, p.ids[s] = s, n.Line
			}
		}},
		{"run", claim(func(n *yaml.Node) probe {
			p.command(n, c)
			return c
		})},
		{"exit", func(n *yaml.Node) { c.exit, _ = p.number("exit", n, 0, 255) }},
		{"stdout", func(n *yaml.Node) {
			fields := p.content(&c.stdout)
			if given := p.mapping("stdout", n, fields); given != nil && len(given) == 0 {
				p.fail(n.Line, "stdout: found nothing, wanted matches or json")
			}
		}},
		{"stdin", func(n *yaml.Node) { c.stdin, _ = p.text("stdin", n) }},
		{"env", func(n *yaml.Node) { c.env = p.environment(n) }},
		{"http", claim(p.http)},
		{"tcp", claim(p.tcp)},
		{"file", claim(p.aFile)},
		{"timeout", func(n *yaml.Node) {
			s, ok := p.text("timeout", n)
			if !ok {
				return
			}
			d, err := time.ParseDuration(s)
			if err != nil || d < minTimeout || d > maxTimeout {
				p.fail(n.Line, "timeout: found %q, wanted a duration from 100ms to 1h, such as 30s", short(s))
				return
			}
			t.timeout = d
		}},
		{"retries", func(n *yaml.Node) { t.retries, _ = p.number("retries", n, 0, maxRetries) }},
	})
	if given == nil {
		return t
	}
	if given["id"] == nil {
		p.fail(n.Line, "id is missing: each test needs a name of its own")
	}
	if claims != 1 {
		var found []string
		for _, k := range []string{"run", "http", "tcp", "file"} {
			if given[k] != nil {
				found = append(found, k)
			}
		}
		what := strings.Join(found, " and ")
		if what == "" {
			what = "none"
		}
		p.fail(n.Line, "a test: found %s, wanted exactly one of run, http, tcp, file", what)
	}
	for _, k := range []string{"exit", "stdout", "stdin", "env"} {
		if value := given[k]; value != nil && given["run"] == nil {
			p.fail(value.Line, "%s belongs to run, which this test does not have", k)
		}
	}
	return t
}

func (p *parser) command(n *yaml.Node, c *command) {
	if n.Kind == yaml.SequenceNode {
		for i, e := range p.list("run", n) {
			word, ok := p.text("run", e)
			switch {
			case !ok:
			case !printable(word):
				p.fail(e.Line, "run: found %q, wanted a word without invisible characters", short(word))
			case i == 0 && word == "":
				p.fail(n.Line, "run: the first word is empty, wanted a program")
			}
			c.argv = append(c.argv, word)
		}
		return
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		if p.plain(n) {
			p.fail(n.Line, "run: found %s, wanted a list of words or one shell line", describe(n))
		}
		return
	}
	line, ok := p.text("run", n)
	if ok && (strings.TrimSpace(line) == "" || !printable(line)) {
		p.fail(n.Line, "run: found %q, wanted a shell line without invisible characters", short(line))
	}
	c.shell = line
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (p *parser) environment(n *yaml.Node) (env []string) {
	for _, pair := range p.pairs("env", "names of variables", n) {
		key, value := pair[0], pair[1]
		if !envName.MatchString(key.Value) {
			p.fail(key.Line, "env: found %q, wanted the name of a variable such as LANG", short(key.Value))
			continue
		}
		s, ok := p.text(key.Value, value)
		if ok && strings.ContainsRune(s, 0) {
			p.fail(value.Line, "%s: found a zero byte, which no variable can have", key.Value)
		}
		env = append(env, key.Value+"="+s)
	}
	return env
}

func (p *parser) http(n *yaml.Node) probe {
	h := &webPage{status: 200}
	given := p.mapping("http", n, append([]field{
		{"url", func(n *yaml.Node) {
			s, ok := p.text("url", n)
			if !ok {
				return
			}
			u, err := url.Parse(s)
			switch {
			case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !printable(s):
				p.fail(n.Line, "url: found %q, wanted an address such as http://127.0.0.1:8080/health", short(s))
			case u.User != nil:
				p.fail(n.Line, "url: found a name or password in it, which do not belong in a file")
			default:
				h.url = s
			}
		}},
		{"status", func(n *yaml.Node) {
			if v, ok := p.number("status", n, 100, 599); ok {
				h.status = v
			}
		}},
	}, p.content(&h.body)...))
	if given != nil && given["url"] == nil {
		p.fail(n.Line, "http: url is missing")
	}
	return h
}

func (p *parser) tcp(n *yaml.Node) probe {
	s, ok := p.text("tcp", n)
	if !ok {
		return &openPort{}
	}
	host, port, err := net.SplitHostPort(s)
	if v, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || v == 0 || host == "" || !printable(s) || strings.ContainsAny(host, " /") {
		p.fail(n.Line, "tcp: found %q, wanted a host and a port such as 127.0.0.1:5432", short(s))
	}
	return &openPort{s}
}

var sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (p *parser) aFile(n *yaml.Node) probe {
	f := &file{}
	given := p.mapping("file", n, []field{
		{"path", func(n *yaml.Node) {
			s, ok := p.text("path", n)
			if ok && (!fs.ValidPath(s) || s == "." || !printable(s) || strings.ContainsAny(s, `\:`)) {
				p.fail(n.Line, `path: found %q, wanted a path relative to the directory of the tests, with slashes and without ".."`, short(s))
			}
			f.path = s
		}},
		{"exists", func(n *yaml.Node) {
			v, ok := p.boolean("exists", n)
			f.absent = ok && !v
		}},
		{"sha256", func(n *yaml.Node) {
			s, ok := p.text("sha256", n)
			if ok && !sha256Hex.MatchString(s) {
				p.fail(n.Line, "sha256: found %q, wanted 64 lower-case hex digits", short(s))
			}
			f.sha256 = s
		}},
		{"matches", p.matches(&f.content)},
		{"executable", func(n *yaml.Node) {
			if v, ok := p.boolean("executable", n); ok {
				f.executable = &v
			}
		}},
	})
	switch {
	case given == nil:
	case given["path"] == nil:
		p.fail(n.Line, "file: path is missing")
	case f.absent && len(given) > 2:
		p.fail(n.Line, "file: exists: false stands alone: a file that is not there is nothing else")
	case len(given) == 1:
		p.fail(n.Line, "file: nothing is demanded of it, wanted exists, sha256, matches or executable")
	}
	return f
}

// content are the keys that demand something of bytes.
func (p *parser) content(c *content) []field {
	return []field{
		{"matches", p.matches(c)},
		{"json", func(n *yaml.Node) {
			j := &jsonClaim{}
			given := p.mapping("json", n, []field{
				{"path", func(n *yaml.Node) { j.path = p.jsonPath(n) }},
				{"equals", func(n *yaml.Node) { p.equals(n, j) }},
			})
			for _, k := range []string{"path", "equals"} {
				if given != nil && given[k] == nil {
					p.fail(n.Line, "json: %s is missing", k)
				}
			}
			c.json = j
		}},
	}
}

func (p *parser) matches(c *content) func(n *yaml.Node) {
	return func(n *yaml.Node) {
		s, ok := p.text("matches", n)
		if !ok {
			return
		}
		re, err := regexp.Compile("(?m)" + s)
		if err != nil {
			p.fail(n.Line, "matches: %q is not a regular expression: %s", short(s), strings.TrimPrefix(err.Error(), "error parsing regexp: "))
			return
		}
		// What begins or ends anywhere demands nothing.
		if re.MatchString("") && re.MatchString("x\n") {
			p.fail(n.Line, `matches: any text matches %q, wanted a pattern that demands something; \A\z is no output`, short(s))
			return
		}
		c.matches = re
	}
}

// jsonPath reads a path of keys, indexes and #. The library knows more, such as
// literals that are found in any text.
func (p *parser) jsonPath(n *yaml.Node) string {
	s, ok := p.text("path", n)
	if !ok {
		return ""
	}
	escaped := false
	valid := s != "" && len(s) <= 200 && printable(s) && strings.Trim(s, ".") == s
	for _, r := range s {
		valid = valid && (escaped || !strings.ContainsRune(`|@!{}[]()*?"'<>=%~`, r))
		escaped = r == '\\' && !escaped
	}
	if !valid || escaped {
		p.fail(n.Line, `path: found %q, wanted keys and indexes joined by dots, such as checks.0.ok`, short(s))
		return ""
	}
	return s
}

var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

func (p *parser) equals(n *yaml.Node, j *jsonClaim) {
	if !p.plain(n) {
		return
	}
	tag := n.ShortTag()
	switch {
	case n.Kind != yaml.ScalarNode:
		p.fail(n.Line, "equals: found %s, wanted text, a number, true, false or null", describe(n))
	case tag == "!!str":
		j.kind, j.equals = gjson.String, n.Value
	case n.Value == "true":
		j.kind = gjson.True
	case n.Value == "false":
		j.kind = gjson.False
	case n.Value == "null":
		j.kind = gjson.Null
	case (tag == "!!int" || tag == "!!float") && jsonNumber.MatchString(n.Value):
		j.kind, j.equals = gjson.Number, n.Value
	default:
		p.fail(n.Line, "equals: found %s, wanted a value as JSON writes it: for text write %q", describe(n), short(n.Value))
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
	case n.ShortTag() == "!!null":
		return "nothing"
	case n.ShortTag() == "!!str":
		return "the text " + strconv.Quote(short(n.Value))
	}
	return short(n.Value)
}

func short(s string) string { return clip(s, 60) }

// pairs returns the keys and values of a mapping whose keys are text, each once.
func (p *parser) pairs(name, known string, n *yaml.Node) (found [][2]*yaml.Node) {
	if !p.plain(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		p.fail(n.Line, "%s: found %s, wanted a mapping with keys of %s", name, describe(n), known)
		return nil
	}
	first := map[string]int{}
	found = [][2]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.ShortTag() == "!!merge":
			p.fail(key.Line, "found a merge key, wanted the keys themselves")
		case !p.plain(key):
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			p.fail(key.Line, "found %s as a key; known keys: %s", describe(key), known)
		case first[key.Value] > 0:
			p.fail(key.Line, "key %q is given twice, first on line %d", short(key.Value), first[key.Value])
		default:
			first[key.Value] = key.Line
			found = append(found, [2]*yaml.Node{key, value})
		}
	}
	return found
}

// mapping reads the fields of a mapping and returns the values that were given;
// nil when it is none.
func (p *parser) mapping(name string, n *yaml.Node, fields []field) map[string]*yaml.Node {
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.key
	}
	found := p.pairs(name, strings.Join(known, ", "), n)
	if found == nil {
		return nil
	}
	given := map[string]*yaml.Node{}
	for _, pair := range found {
		key, value := pair[0], pair[1]
		at := slices.Index(known, key.Value)
		if at < 0 {
			hint := ""
			if near := action.Nearest(key.Value, known); near != "" {
				hint = fmt.Sprintf(" did you mean %q?", near)
			}
			p.fail(key.Line, "unknown key %q;%s known keys: %s", short(key.Value), hint, strings.Join(known, ", "))
			continue
		}
		given[key.Value] = value
		fields[at].read(value)
	}
	return given
}

// list returns the entries of a list that has some.
func (p *parser) list(key string, n *yaml.Node) []*yaml.Node {
	if !p.plain(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		found := describe(n)
		if n.Kind == yaml.SequenceNode {
			found = "an empty list"
		}
		p.fail(n.Line, "%s: found %s, wanted a list of at least one entry", key, found)
		return nil
	}
	return n.Content
}

// text reads a scalar that YAML takes for text.
func (p *parser) text(key string, n *yaml.Node) (string, bool) {
	if !p.plain(n) {
		return "", false
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		hint := ""
		if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
			hint = fmt.Sprintf(": write %q", short(n.Value))
		}
		p.fail(n.Line, "%s: found %s, wanted text%s", key, describe(n), hint)
		return "", false
	}
	return n.Value, true
}

// number reads a whole number in plain digits: 0x1b, 1_000 and 017 are numbers
// to YAML and puzzles to people.
func (p *parser) number(key string, n *yaml.Node, least, most int) (int, bool) {
	if !p.plain(n) {
		return 0, false
	}
	v, err := strconv.ParseUint(n.Value, 10, 31)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil || strconv.FormatUint(v, 10) != n.Value {
		p.fail(n.Line, "%s: found %s, wanted a whole number", key, describe(n))
		return 0, false
	}
	if int(v) < least || int(v) > most {
		p.fail(n.Line, "%s: found %d, wanted %d to %d", key, v, least, most)
		return 0, false
	}
	return int(v), true
}

func (p *parser) boolean(key string, n *yaml.Node) (bool, bool) {
	if !p.plain(n) {
		return false, false
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Value != "true" && n.Value != "false" {
		p.fail(n.Line, "%s: found %s, wanted true or false", key, describe(n))
		return false, false
	}
	return n.Value == "true", true
}

func printable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' || r == utf8.RuneError {
			return false
		}
	}
	return true
}
