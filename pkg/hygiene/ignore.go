package hygiene

import (
	"bytes"
	"fmt"
	"path"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// maxRules bounds the work that .gitignore files can ask for: each path is
// compared with each line.
const maxRules = 10_000

func checkIgnored(f *files, _ Rules) (string, []judge.Finding, error) {
	g, err := readIgnores(f)
	if err != nil {
		return "", nil, err
	}
	var findings []judge.Finding
	for _, p := range f.paths {
		// git sees a submodule as the folder that it is.
		e := f.entry[p]
		if r := g.ignored(p, e.submodule()); r != nil {
			findings = append(findings, judge.Finding{
				Path:    p,
				Message: fmt.Sprintf("is tracked, but line %d of %s ignores it", r.line, visible(r.file)),
				Fix:     "git rm --cached -- " + quote(p),
			})
		}
	}
	return count(len(g.rules), ".gitignore file", ".gitignore files"), findings, nil
}

// ignores are the .gitignore files of a tree.
type ignores struct {
	rules map[string][]rule // by folder, in the order of their lines
	dirs  map[string]*rule  // which rule ignores a folder; nil is none
}

func readIgnores(f *files) (*ignores, error) {
	g := &ignores{map[string][]rule{}, map[string]*rule{"": nil}}
	total := 0
	for _, p := range f.paths {
		// git follows no link here.
		if path.Base(p) != ".gitignore" || !f.entry[p].mode.IsRegular() {
			continue
		}
		b, err := f.blob(p)
		if err != nil {
			return nil, err
		}
		g.rules[parent(p)] = parseIgnore(p, b)
		if total += len(g.rules[parent(p)]); total > maxRules {
			return nil, fmt.Errorf("%s: found more than %d lines of .gitignore files, wanted fewer", p, maxRules)
		}
	}
	return g, nil
}

// ignored returns the rule that ignores a path, or nil. Once a folder is ignored,
// nothing below it can be taken back.
func (g *ignores) ignored(p string, folder bool) *rule {
	if r := g.ignoredDir(parent(p)); r != nil {
		return r
	}
	return g.decide(p, folder)
}

func (g *ignores) ignoredDir(dir string) *rule {
	r, known := g.dirs[dir]
	if !known {
		r = g.ignored(dir, true)
		g.dirs[dir] = r
	}
	return r
}

// decide returns the rule that ignores a path by itself. The last line that
// matches decides, and the innermost file first.
func (g *ignores) decide(p string, folder bool) *rule {
	for dir := parent(p); ; dir = parent(dir) {
		rules := g.rules[dir]
		relative := p
		if dir != "" {
			relative = p[len(dir)+1:]
		}
		for i := len(rules) - 1; i >= 0; i-- {
			if r := &rules[i]; r.match(relative, folder) {
				if r.negated {
					return nil
				}
				return r
			}
		}
		if dir == "" {
			return nil
		}
	}
}

// rule is one line of a .gitignore file, as gitignore(5) has it.
type rule struct {
	file    string
	line    int
	negated bool // takes back what lines before it ignore
	folders bool // matches folders only
	name    bool // has no slash: matches a name in any folder below
	prefix  string
	glob    []token // what follows the prefix; nil: nothing
	never   bool    // malformed: matches nothing
}

// parseIgnore reads a .gitignore file.
func parseIgnore(file string, b []byte) []rule {
	var rules []rule
	n := 0
	for line := range bytes.Lines(bytes.TrimPrefix(b, []byte("\ufeff"))) {
		n++
		s := strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r")
		s, _, _ = strings.Cut(s, "\x00") // where git, written in C, ends it
		if s = trimSpaces(s); s == "" || s[0] == '#' {
			continue
		}
		r := rule{file: file, line: n}
		s, r.negated = strings.CutPrefix(s, "!")
		s, r.folders = strings.CutSuffix(s, "/")
		r.name = !strings.Contains(s, "/")
		if !r.name {
			s = strings.TrimPrefix(s, "/")
		}
		// git compares what stands before the first special character as it is,
		// and takes the rest for a pattern of its own: so ** counts as being at
		// the beginning there, whatever stands before it.
		special := strings.IndexAny(s, `*?[\`)
		if special < 0 {
			special = len(s)
		}
		r.prefix = s[:special]
		r.glob, r.never = parseGlob(s[special:], !r.name)
		rules = append(rules, r)
	}
	return rules
}

// trimSpaces takes off the spaces at the end that no backslash keeps.
func trimSpaces(s string) string {
	end := 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
			end = min(i+1, len(s))
		case s[i] != ' ':
			end = i + 1
		}
	}
	return s[:end]
}

func (r *rule) match(p string, folder bool) bool {
	if r.never || r.folders && !folder {
		return false
	}
	if r.name {
		p = path.Base(p)
	}
	rest, ok := strings.CutPrefix(p, r.prefix)
	return ok && matchGlob(r.glob, rest)
}

// token is one step of a pattern.
type token struct {
	kind byte
	set  *[256]bool // of kind oneOf
	c    byte       // of kind literal
}

const (
	literal   = iota
	oneOf     // one byte of a set
	anyName   // any number of bytes without a slash
	anyPath   // any number of bytes
	skipFolds // nothing, or the next two tokens: anyPath and a slash
)

// parseGlob reads a pattern as git's wildmatch does; never says that it is
// malformed and matches nothing. With paths, a slash is matched only by itself
// and by **.
func parseGlob(s string, paths bool) (tokens []token, never bool) {
	anyByte := &[256]bool{}
	for c := range anyByte {
		anyByte[c] = c != '/' || !paths
	}
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i == len(s) {
				return nil, true
			}
			tokens = append(tokens, token{kind: literal, c: s[i]})
		case '?':
			tokens = append(tokens, token{kind: oneOf, set: anyByte})
		case '*':
			stars := len(s[i:]) - len(strings.TrimLeft(s[i:], "*"))
			begins := i == 0 || s[i-1] == '/'
			i += stars - 1
			rest := s[i+1:]
			switch {
			case stars == 1 || !paths || !begins:
				tokens = append(tokens, token{kind: anyName})
			case strings.HasPrefix(rest, "/"):
				tokens = append(tokens, token{kind: skipFolds}, token{kind: anyPath})
			case rest == "" || strings.HasPrefix(rest, `\/`):
				tokens = append(tokens, token{kind: anyPath})
			default:
				tokens = append(tokens, token{kind: anyName})
			}
		case '[':
			set, n := parseSet(s[i:])
			if n == 0 {
				return nil, true
			}
			if paths {
				set['/'] = false
			}
			tokens = append(tokens, token{kind: oneOf, set: set})
			i += n - 1
		default:
			tokens = append(tokens, token{kind: literal, c: s[i]})
		}
	}
	return tokens, false
}

// parseSet reads [a-z] and returns how long it is, 0 when it does not end or has
// a class of an unknown name.
func parseSet(s string) (*[256]bool, int) {
	var set [256]bool
	i := 1
	negated := i < len(s) && (s[i] == '!' || s[i] == '^')
	if negated {
		i++
	}
	before := -1 // the byte that a range may begin with
	for first := true; ; first = false {
		switch {
		case i >= len(s):
			return nil, 0
		case s[i] == ']' && !first:
			if negated {
				for c := range set {
					set[c] = !set[c]
				}
			}
			return &set, i + 1
		case s[i] == '\\':
			if i++; i >= len(s) {
				return nil, 0
			}
			set[s[i]], before = true, int(s[i])
		case s[i] == '-' && before >= 0 && i+1 < len(s) && s[i+1] != ']':
			if i++; s[i] == '\\' {
				if i++; i >= len(s) {
					return nil, 0
				}
			}
			for c := before; c <= int(s[i]); c++ {
				set[c] = true
			}
			before = -1
		case strings.HasPrefix(s[i:], "[:"):
			end := strings.IndexByte(s[i+2:], ']')
			if end < 0 {
				return nil, 0
			}
			name, ok := strings.CutSuffix(s[i+2:i+2+end], ":")
			if !ok { // a set that happens to hold a bracket and a colon
				set['['], before = true, '['
				break
			}
			in, known := classes[name]
			if !known {
				return nil, 0
			}
			for c := range 128 {
				set[c] = set[c] || in(byte(c))
			}
			i += 2 + end
			before = -1
		default:
			set[s[i]], before = true, int(s[i])
		}
		i++
	}
}

func between(c, from, to byte) bool { return from <= c && c <= to }

// classes are those of ASCII, as git knows them.
var classes = map[string]func(byte) bool{
	"alnum":  func(c byte) bool { return isAlpha(c) || isDigit(c) },
	"alpha":  isAlpha,
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < ' ' || c == 0x7f },
	"digit":  isDigit,
	"graph":  func(c byte) bool { return between(c, '!', '~') },
	"lower":  func(c byte) bool { return between(c, 'a', 'z') },
	"print":  func(c byte) bool { return between(c, ' ', '~') },
	"punct":  func(c byte) bool { return between(c, '!', '~') && !isAlpha(c) && !isDigit(c) },
	"space":  func(c byte) bool { return strings.IndexByte(" \t\n\r", c) >= 0 },
	"upper":  func(c byte) bool { return between(c, 'A', 'Z') },
	"xdigit": func(c byte) bool { return isDigit(c) || between(c|0x20, 'a', 'f') },
}

func isDigit(c byte) bool { return between(c, '0', '9') }
func isAlpha(c byte) bool { return between(c|0x20, 'a', 'z') }

// matchGlob follows all ways through a pattern at once, so that no pattern takes
// longer than its length times that of the name.
func matchGlob(tokens []token, s string) bool {
	if len(tokens) == 0 {
		return s == ""
	}
	// Most names fail here: those that do not end as *.log does. The slash of **/ is
	// not always there.
	if last := tokens[len(tokens)-1]; last.kind == literal && last.c != '/' && (s == "" || s[len(s)-1] != last.c) {
		return false
	}
	at, next := make([]bool, len(tokens)+1), make([]bool, len(tokens)+1)
	// reach marks a place, and those that follow it without a byte.
	var reach func(places []bool, i int)
	reach = func(places []bool, i int) {
		for ; i <= len(tokens) && !places[i]; i++ {
			places[i] = true
			if i == len(tokens) {
				return
			}
			switch tokens[i].kind {
			case skipFolds:
				reach(places, i+3)
			case anyName, anyPath:
			default:
				return
			}
		}
	}
	reach(at, 0)
	for k := range len(s) {
		c := s[k]
		alive := false
		clear(next)
		for i, t := range tokens {
			if !at[i] {
				continue
			}
			switch {
			case t.kind == literal && t.c == c, t.kind == oneOf && t.set[c]:
				reach(next, i+1)
			case t.kind == anyPath, t.kind == anyName && c != '/':
				reach(next, i)
			default:
				continue
			}
			alive = true
		}
		if !alive {
			return false
		}
		at, next = next, at
	}
	return at[len(tokens)]
}

// ignoring returns the line of the root's .gitignore that ignores a path, and
// nothing else unless the path holds what no line can.
func ignoring(p string) string {
	var b strings.Builder
	b.WriteByte('/')
	spaces := len(p) - len(strings.TrimRight(p, " "))
	for i := range len(p) {
		switch c := p[i]; {
		case c < ' ': // a line feed would end the line
			b.WriteByte('?')
		case strings.IndexByte(`*?[\`, c) >= 0, c == ' ' && i >= len(p)-spaces:
			b.WriteByte('\\')
			fallthrough
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
