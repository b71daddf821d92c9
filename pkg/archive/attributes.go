package archive

import (
	"path"
	"strings"
)

// maxAttributes is the size, in bytes, of a .gitattributes file that git ignores,
// and maxLine that of a line.
const (
	maxAttributes = 100 << 20
	maxLine       = 2048
)

// value is what an attribute is set to: a text, or one of these.
type value string

const (
	attrUnset value = "\x00unspecified" // no text has this byte
	attrTrue  value = "\x00set"
	attrFalse value = "\x00unset"
)

// setting gives one attribute a value.
type setting struct {
	name  string
	value value
}

// rule is one line of a .gitattributes file, as gitattributes(5) has it.
type rule struct {
	pattern  pattern
	settings []setting
}

// attributes are the .gitattributes files of a tree.
type attributes struct {
	rules  map[string][]rule // by folder, in the order of their lines
	macros map[string][]setting
}

func readAttributes(src Source, entries []entry) (attributes, error) {
	a := attributes{rules: map[string][]rule{}, macros: map[string][]setting{
		"binary": {{"diff", attrFalse}, {"merge", attrFalse}, {"text", attrFalse}},
	}}
	for _, e := range entries {
		// git reads any blob of this name, the target of a link too.
		if path.Base(e.path) != ".gitattributes" || e.folder() {
			continue
		}
		data, err := read(src, e)
		if err != nil {
			return attributes{}, err
		}
		if len(data) < maxAttributes {
			a.parse(parent(e.path), string(data))
		}
	}
	return a, nil
}

// parent returns the folder of a path that may end in a slash, "" for the root.
func parent(p string) string {
	p = strings.TrimSuffix(p, "/")
	return p[:max(0, strings.LastIndexByte(p, '/'))]
}

// parse takes in the file of a folder. Lines that git does not understand are
// left out, as git does.
func (a attributes) parse(folder, text string) {
	text, _, _ = strings.Cut(text, "\x00") // where git, written in C, ends it
	for line := range strings.SplitSeq(text, "\n") {
		name, macro, settings, ok := parseLine(line)
		switch {
		case !ok:
		case !macro:
			if p, ok := parsePattern(name); ok {
				a.rules[folder] = append(a.rules[folder], rule{p, settings})
			}
		case folder == "": // macros are of the root's file alone
			a.macros[name] = settings
		}
	}
}

const (
	blank       = " \t\r\n"
	macroPrefix = "[attr]"
)

// parseLine reads the pattern, or the name of a macro, and what it sets.
func parseLine(line string) (name string, macro bool, settings []setting, ok bool) {
	s := strings.TrimLeft(line, blank)
	if s == "" || s[0] == '#' || len(line) >= maxLine {
		return "", false, nil, false
	}
	name, rest, quoted := unquote(s)
	if !quoted {
		name, rest = word(s)
	}
	if len(name) > len(macroPrefix) && strings.HasPrefix(name, macroPrefix) {
		macro = true
		name, _ = word(strings.TrimLeft(name[len(macroPrefix):], blank))
		if !validName(name) {
			return "", false, nil, false
		}
	}
	for rest = strings.TrimLeft(rest, blank); rest != ""; rest = strings.TrimLeft(rest, blank) {
		var w string
		w, rest = word(rest)
		attr, text, given := strings.Cut(w, "=")
		s := setting{attr, attrTrue}
		switch {
		case strings.HasPrefix(w, "-"):
			s.name, s.value = s.name[1:], attrFalse
		case strings.HasPrefix(w, "!"):
			s.name, s.value = s.name[1:], attrUnset
		case given:
			s.value = value(text)
		}
		if !validName(s.name) {
			return "", false, nil, false
		}
		settings = append(settings, s)
	}
	return name, macro, settings, true
}

func word(s string) (first, rest string) {
	if i := strings.IndexAny(s, blank); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

func validName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return s != "" && s[0] != '-' && strings.Trim(s, letters+"-._") == ""
}

// unquote reads a pattern in double quotes, with the escapes of C. Without a
// closing quote, or with an escape that there is not, it is none.
func unquote(s string) (name, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
			if at := strings.IndexByte(`abfnrtv\"`, s[i]); at >= 0 {
				b.WriteByte("\a\b\f\n\r\t\v\\\""[at])
				continue
			}
			if i+2 >= len(s) || !within(s[i], '0', '3') || !within(s[i+1], '0', '7') || !within(s[i+2], '0', '7') {
				return "", "", false
			}
			b.WriteByte(s[i]&7<<6 | s[i+1]&7<<3 | s[i+2]&7)
			i += 2
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

// of returns the attributes of a path; a folder's ends in a slash.
func (a attributes) of(p string) map[string]value {
	got := map[string]value{}
	// The innermost file and the last line decide first, and nothing changes what
	// was decided.
	for folder := parent(p); ; folder = parent(folder) {
		rules := a.rules[folder]
		for i := len(rules) - 1; i >= 0; i-- {
			if rules[i].pattern.match(p, folder) {
				a.set(got, rules[i].settings)
			}
		}
		if folder == "" {
			return got
		}
	}
}

func (a attributes) set(got map[string]value, settings []setting) {
	for i := len(settings) - 1; i >= 0; i-- {
		s := settings[i]
		if _, decided := got[s.name]; decided {
			continue
		}
		got[s.name] = s.value
		if s.value == attrTrue {
			a.set(got, a.macros[s.name])
		}
	}
}

// pattern says which paths a rule is about.
type pattern struct {
	folders bool    // only folders
	name    bool    // has no slash: matches a name in any folder below
	prefix  string  // what stands before the first special character
	glob    []token // what follows it
	never   bool    // malformed: matches nothing
}

// parsePattern refuses patterns that take back: there are none in attributes.
func parsePattern(s string) (p pattern, ok bool) {
	if strings.HasPrefix(s, "!") {
		return p, false
	}
	s, _, _ = strings.Cut(s, "\x00")
	s, p.folders = strings.CutSuffix(s, "/")
	p.name = !strings.Contains(s, "/")
	if !p.name {
		s = strings.TrimPrefix(s, "/")
	}
	// git compares what stands before the first special character as it is, and
	// takes the rest for a pattern of its own: so ** counts as being at the
	// beginning there, whatever stands before it.
	special := strings.IndexAny(s, `*?[\`)
	if special < 0 {
		special = len(s)
	}
	p.prefix = s[:special]
	p.glob, p.never = parseGlob(s[special:])
	return p, true
}

// match compares a path, which ends in a slash for a folder, with a pattern of
// the file in a folder above it.
func (p pattern) match(name, base string) bool {
	name, folder := strings.CutSuffix(name, "/")
	if p.never || p.folders && !folder {
		return false
	}
	switch {
	case p.name:
		name = path.Base(name)
	case base != "":
		name = name[len(base)+1:]
	}
	rest, ok := strings.CutPrefix(name, p.prefix)
	return ok && matchGlob(p.glob, rest)
}

// token is one step of a glob.
type token struct {
	kind byte
	set  *[256]bool // of one byte
}

const (
	oneByte   = iota
	anyName   // any number of bytes without a slash
	anyPath   // any number of bytes
	maybeNext // nothing, or the next two tokens: anyPath and a slash
)

// parseGlob reads a glob as git's wildmatch does for paths; never says that it is
// malformed and matches nothing.
func parseGlob(s string) (tokens []token, never bool) {
	var any [256]bool
	for c := range any {
		any[c] = c != '/'
	}
	only := func(c byte) token {
		set := new([256]bool)
		set[c] = true
		return token{set: set}
	}
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i == len(s) {
				return nil, true
			}
			tokens = append(tokens, only(s[i]))
		case '?':
			tokens = append(tokens, token{set: &any})
		case '*':
			first := i
			for i+1 < len(s) && s[i+1] == '*' {
				i++
			}
			whole := i > first && (first == 0 || s[first-1] == '/') // ** as an element of its own
			rest := s[i+1:]
			switch {
			case whole && strings.HasPrefix(rest, "/"):
				tokens = append(tokens, token{kind: maybeNext}, token{kind: anyPath})
			case whole && (rest == "" || strings.HasPrefix(rest, `\/`)):
				tokens = append(tokens, token{kind: anyPath})
			default:
				tokens = append(tokens, token{kind: anyName})
			}
		case '[':
			set, n := parseSet(s[i:])
			if n == 0 {
				return nil, true
			}
			set['/'] = false
			tokens = append(tokens, token{set: set})
			i += n - 1
		default:
			tokens = append(tokens, only(s[i]))
		}
	}
	return tokens, false
}

// parseSet reads [a-z] and returns how long it is, 0 when it does not end or
// names an unknown class.
func parseSet(s string) (*[256]bool, int) {
	var set [256]bool
	i := 1
	negated := i < len(s) && (s[i] == '!' || s[i] == '^')
	if negated {
		i++
	}
	escaped := func() bool {
		if s[i] == '\\' {
			i++
		}
		return i < len(s)
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
		case s[i] == '-' && before >= 0 && i+1 < len(s) && s[i+1] != ']':
			if i++; !escaped() {
				return nil, 0
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
			for c := range byte(128) {
				set[c] = set[c] || in(c)
			}
			i += 2 + end
			before = -1
		default:
			if !escaped() {
				return nil, 0
			}
			set[s[i]], before = true, int(s[i])
		}
		i++
	}
}

func within(c, from, to byte) bool { return from <= c && c <= to }
func isDigit(c byte) bool          { return within(c, '0', '9') }
func isAlpha(c byte) bool          { return within(c|0x20, 'a', 'z') }

// classes are those of ASCII, as git knows them.
var classes = map[string]func(byte) bool{
	"alnum":  func(c byte) bool { return isAlpha(c) || isDigit(c) },
	"alpha":  isAlpha,
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < ' ' || c == 0x7f },
	"digit":  isDigit,
	"graph":  func(c byte) bool { return within(c, '!', '~') },
	"lower":  func(c byte) bool { return within(c, 'a', 'z') },
	"print":  func(c byte) bool { return within(c, ' ', '~') },
	"punct":  func(c byte) bool { return within(c, '!', '~') && !isAlpha(c) && !isDigit(c) },
	"space":  func(c byte) bool { return strings.IndexByte(" \t\n\r", c) >= 0 },
	"upper":  func(c byte) bool { return within(c, 'A', 'Z') },
	"xdigit": func(c byte) bool { return isDigit(c) || within(c|0x20, 'a', 'f') },
}

// matchGlob follows all ways through a glob at once, so that none takes longer
// than its length times that of the name.
func matchGlob(tokens []token, s string) bool {
	at, next := make([]bool, len(tokens)+1), make([]bool, len(tokens)+1)
	reach(tokens, at, 0)
	for k := range len(s) {
		clear(next)
		for i, t := range tokens {
			switch {
			case !at[i]:
			case t.kind == oneByte && t.set[s[k]]:
				reach(tokens, next, i+1)
			case t.kind == anyPath, t.kind == anyName && s[k] != '/':
				reach(tokens, next, i)
			}
		}
		at, next = next, at
	}
	return at[len(tokens)]
}

// reach marks a place, and those that follow it without a byte.
func reach(tokens []token, places []bool, i int) {
	for ; i <= len(tokens) && !places[i]; i++ {
		places[i] = true
		if i == len(tokens) || tokens[i].kind == oneByte {
			return
		}
		if tokens[i].kind == maybeNext {
			reach(tokens, places, i+3)
		}
	}
}
