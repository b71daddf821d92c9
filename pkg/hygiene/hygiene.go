// Package hygiene judges how a repository is kept: what lies at its root, what it
// tracks that it should not, and whether its documents point to what is there.
//
//	checks := hygiene.Check(tree, hygiene.Rules{Links: []string{"**/*.md"}}, nil)
//
// It reads a [judge.Tree], which is a commit or what is staged, and no work tree:
// only a person's own machine has untracked files, and they are given as data.
// A finding carries the command that mends it, if one can, with its names quoted
// for bash or zsh and nothing in it that a terminal would act on.
//
// # The checks
//
//   - hygiene/root: each entry of the root is on the list of what may lie there,
//     and there are not too many. The first folder of every pattern of the
//     archive may always lie there.
//   - hygiene/untracked: the work tree holds no file that is neither tracked nor
//     ignored
//   - hygiene/ignored: no file is tracked that a .gitignore of the tree ignores,
//     by git's rules; a person's own exclude files count for nothing
//   - hygiene/duplicates: no two files hold the same 64 bytes or more. Not looked
//     at: the archive, folders named testdata or vendor, and licence texts, which
//     every module carries.
//   - hygiene/names: every name can be checked out and typed everywhere: UTF-8,
//     nothing invisible, none of \ : * ? " < > |, no dash in front, no space or
//     dot at the end, no name of a Windows device, at most 240 bytes of path; and
//     none is of a file that an editor, a merge or a crash left behind. Names that
//     differ in case only are the concern of another covenant.
//   - hygiene/size: no file is larger than the limit
//   - hygiene/links: every relative link and image in the documents leads to a
//     file or folder of the tree, and every fragment to a heading, as GitHub
//     shows it. See links.go for the rules. Not looked at: the archive, and
//     folders named testdata or vendor.
//   - hygiene/markers: no text of at most 4 MiB has the three markers of a merge
//     conflict, in their order. Not looked at: folders named testdata.
//
// # Patterns
//
// A pattern is one of path.Match by elements, in which the element ** stands for
// any number of elements. Those of the root are of one element, a name.
//
// # What it refuses
//
// A check that cannot read what it needs is an error, never a pass, and so is one
// whose pattern is malformed. So are a document of more than 512 KiB and .gitignore
// files of more than 10,000 lines, which would take too long. A rule that is not
// set claims nothing.
package hygiene

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// Rules are what a repository claims of itself. The zero value claims least.
type Rules struct {
	Root    []string // names of what may lie at the root; empty: anything
	MaxRoot int      // most entries at the root; 0: no limit
	MaxFile int64    // most bytes of a file; 0: no limit
	Archive []string // where duplicates and dead links may be
	Links   []string // Markdown documents whose links must resolve; empty: none
}

// WorkTree is what only a person's machine knows.
type WorkTree struct {
	// Untracked are the paths that git neither tracks nor ignores, as
	// `git ls-files -z --others --exclude-standard` names them. A whole folder
	// ends with a slash.
	Untracked []string
}

// The sizes that decide what is looked at, in bytes.
const (
	minDuplicate = 64
	maxText      = 4 << 20
	maxDocument  = 512 << 10
	maxPath      = 240
)

// Check carries out every check on a tree, in the order of the package comment. A
// nil work tree is that of a commit, which has none.
//
// A tree that also has a method Size(path string) (int64, error) is asked for
// sizes, and its large files are not read.
func Check(tree judge.Tree, rules Rules, work *WorkTree) []judge.Check {
	checks := []struct {
		id, claim string
		run       func(*files, Rules) (detail string, findings []judge.Finding, err error)
		unclaimed string // why nothing is claimed, when that is so
	}{
		{"hygiene/root", "the root holds only what belongs there", checkRoot, unless(len(rules.Root) > 0 || rules.MaxRoot > 0, "hygiene: root or max-root would claim it")},
		{"hygiene/untracked", "the work tree holds no untracked files", work.checkUntracked, unless(work != nil, "a commit has no untracked files")},
		{"hygiene/ignored", "no tracked file is ignored", checkIgnored, ""},
		{"hygiene/duplicates", "no two files hold the same", checkDuplicates, ""},
		{"hygiene/names", "every name works everywhere, and none is of a leftover", checkNames, ""},
		{"hygiene/size", "no file is larger than the limit", checkSize, unless(rules.MaxFile > 0, "hygiene: max-file would claim it")},
		{"hygiene/links", "every link of the documents resolves", checkLinks, unless(len(rules.Links) > 0, "hygiene: links would claim it")},
		{"hygiene/markers", "no file holds the markers of a merge conflict", checkMarkers, ""},
	}
	f, broken := list(tree)
	out := make([]judge.Check, 0, len(checks))
	for _, c := range checks {
		if c.unclaimed != "" {
			out = append(out, judge.NotClaimed(c.id, c.claim, c.unclaimed))
			continue
		}
		if broken != nil {
			out = append(out, judge.Unjudged(c.id, c.claim, broken))
			continue
		}
		detail, findings, err := c.run(f, rules)
		if err != nil {
			out = append(out, judge.Unjudged(c.id, c.claim, err))
			continue
		}
		out = append(out, judge.Judged(c.id, c.claim, detail, findings...))
	}
	return out
}

func unless(claimed bool, why string) string {
	if claimed {
		return ""
	}
	return why
}

// files is a tree's listing.
type files struct {
	tree  judge.Tree
	paths []string // in order
	entry map[string]entry
	dirs  map[string]bool  // of all files; "" is the root
	sizes map[string]int64 // of the contents read so far
}

type entry struct {
	mode fs.FileMode
	id   string
}

func (e entry) submodule() bool { return e.mode&fs.ModeIrregular != 0 }

func list(tree judge.Tree) (*files, error) {
	f := &files{tree: tree, entry: map[string]entry{}, dirs: map[string]bool{"": true}, sizes: map[string]int64{}}
	err := tree.Walk("", func(p string, mode fs.FileMode, id string) error {
		f.entry[p] = entry{mode, id}
		for dir := parent(p); !f.dirs[dir]; dir = parent(dir) {
			f.dirs[dir] = true
		}
		return nil
	})
	f.paths = slices.Sorted(maps.Keys(f.entry))
	return f, err
}

// parent returns the folder of a path; "" is the root.
func parent(p string) string {
	return p[:max(strings.LastIndexByte(p, '/'), 0)]
}

func (f *files) exists(p string) bool {
	_, ok := f.entry[p]
	return ok || f.dirs[p]
}

// size returns the size of a regular file, and its content if it had to be read
// to know.
func (f *files) size(p string) (int64, []byte, error) {
	if t, ok := f.tree.(interface {
		Size(path string) (int64, error)
	}); ok {
		n, err := t.Size(p)
		return n, nil, err
	}
	id := f.entry[p].id
	if n, known := f.sizes[id]; known {
		return n, nil, nil
	}
	b, err := f.blob(p)
	if err == nil {
		f.sizes[id] = int64(len(b))
	}
	return int64(len(b)), b, err
}

// blob reads a file that was listed. That it is absent is as bad as any other
// reason why it cannot be read.
func (f *files) blob(p string) ([]byte, error) {
	b, err := f.tree.Blob(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: listed, but not there", visible(p))
	}
	return b, err
}

// patterns are parsed patterns.
type patterns [][]string

func parsePatterns(list []string) (patterns, error) {
	var out patterns
	for _, s := range list {
		p := strings.Split(s, "/")
		for _, element := range p {
			if _, err := path.Match(element, ""); err != nil || element == "" {
				return nil, fmt.Errorf("pattern %q is malformed, wanted one such as docs/**", s)
			}
		}
		out = append(out, p)
	}
	return out, nil
}

func (ps patterns) match(p string) bool {
	elements := strings.Split(p, "/")
	return slices.ContainsFunc(ps, func(pattern []string) bool { return matches(pattern, elements) })
}

func matches(pattern, elements []string) bool {
	switch {
	case len(pattern) == 0:
		return len(elements) == 0
	case pattern[0] == "**":
		return matches(pattern[1:], elements) || len(elements) > 0 && matches(pattern, elements[1:])
	case len(elements) == 0:
		return false
	}
	ok, err := path.Match(pattern[0], elements[0])
	return err == nil && ok && matches(pattern[1:], elements[1:])
}

// within reports whether a path has a folder of one of some names above it.
func within(p string, folders ...string) bool {
	for dir := parent(p); dir != ""; dir = parent(dir) {
		if slices.Contains(folders, path.Base(dir)) {
			return true
		}
	}
	return false
}

// Those names a shell takes as they are. A tilde or a dash in front is not among
// them, but git is told by -- where its options end.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./+@%:,=-]+$`)

// quote writes a name as one word of a shell line, without a byte that a terminal
// would act on.
func quote(s string) string {
	switch {
	case plainWord.MatchString(s):
		return s
	case printable(s):
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return "$'" + strings.ReplaceAll(visible(s), "'", `\'`) + "'"
}

// visible writes a name in one line, as in $'…' of a shell: what cannot be seen
// stands there as its bytes.
func visible(s string) string {
	if printable(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch _, n := utf8.DecodeRuneInString(s[i:]); {
		case r == '\\':
			b.WriteString(`\\`)
		case seen(r) && (r != utf8.RuneError || n > 1):
			b.WriteRune(r)
		default:
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		}
	}
	return b.String()
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !seen(r) })
}

// seen reports whether a character can be seen, or joins others that can, as in
// emoji and in the scripts of India.
func seen(r rune) bool { return unicode.IsPrint(r) || r == '\u200c' || r == '\u200d' }

// remove is the command that removes a path.
func (f *files) remove(p string) string {
	if f.dirs[p] {
		return "git rm -r -- " + quote(p)
	}
	return "git rm -- " + quote(p)
}

// archive returns the folder that the first pattern of the archive names, if one
// does without a wildcard: where old things are moved.
func (r Rules) archive() string {
	for _, s := range r.Archive {
		if dir, ok := strings.CutSuffix(s, "/**"); ok && !strings.ContainsAny(dir, `*?[\`) {
			return dir
		}
	}
	return ""
}

func checkRoot(f *files, rules Rules) (string, []judge.Finding, error) {
	allowed := map[string]bool{}
	for _, s := range rules.Archive {
		if first, _, below := strings.Cut(s, "/"); below {
			allowed[first] = true
		}
	}
	if slices.ContainsFunc(rules.Root, func(s string) bool { return strings.Contains(s, "/") }) {
		return "", nil, fmt.Errorf("patterns %q of the root: found a slash, wanted names such as docs or *.md", rules.Root)
	}
	list, err := parsePatterns(rules.Root)
	if err != nil {
		return "", nil, err
	}
	entries := map[string]bool{}
	for _, p := range f.paths {
		first, _, _ := strings.Cut(p, "/")
		entries[first] = true
	}
	var findings []judge.Finding
	archive := rules.archive()
	move := func(names string) string {
		line := "git mv -- " + names + " " + quote(archive+"/")
		if !f.dirs[archive] {
			line = "mkdir -p -- " + quote(archive) + " && " + line
		}
		return line
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if len(rules.Root) == 0 || allowed[name] || list.match(name) {
			continue
		}
		fix := f.remove(name)
		if archive != "" && !f.exists(archive+"/"+name) {
			fix = move(quote(name))
		}
		findings = append(findings, judge.Finding{Path: name, Message: "is not on the list of what may lie at the root", Fix: fix})
	}
	if n := len(entries); rules.MaxRoot > 0 && n > rules.MaxRoot {
		fix := fmt.Sprintf("git rm -r -- NAME, for %d of them", n-rules.MaxRoot)
		if archive != "" {
			fix = fmt.Sprintf("%s, for %d of them", move("NAME"), n-rules.MaxRoot)
		}
		findings = append(findings, judge.Finding{Message: fmt.Sprintf("found %d entries at the root, wanted at most %d", n, rules.MaxRoot), Fix: fix})
	}
	return count(len(entries), "entry", "entries") + " at the root", findings, nil
}

func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

func (w *WorkTree) checkUntracked(*files, Rules) (string, []judge.Finding, error) {
	var findings []judge.Finding
	for _, p := range w.Untracked {
		f := judge.Finding{Path: p, Message: "is neither tracked nor ignored"}
		if leftover(path.Base(p)) && !strings.HasSuffix(p, "/") {
			f.Fix = "rm -- " + quote(p)
		} else {
			f.Fix = fmt.Sprintf(`git add -- %s, or: printf '%%s\n' %s >>.gitignore`, quote(p), quote(ignoring(p)))
		}
		findings = append(findings, f)
	}
	return count(len(w.Untracked), "untracked file", "untracked files"), findings, nil
}

func checkDuplicates(f *files, rules Rules) (string, []judge.Finding, error) {
	archive, err := parsePatterns(rules.Archive)
	if err != nil {
		return "", nil, err
	}
	same := map[string][]string{}
	for _, p := range f.paths {
		e := f.entry[p]
		if e.mode.IsRegular() && !within(p, "testdata", "vendor") && !licence.MatchString(path.Base(p)) && !archive.match(p) {
			same[e.id] = append(same[e.id], p)
		}
	}
	var findings []judge.Finding
	for _, paths := range same {
		if len(paths) < 2 {
			continue
		}
		n, _, err := f.size(paths[0])
		if err != nil {
			return "", nil, err
		}
		if n < minDuplicate {
			continue
		}
		// The one to keep is the one that lies highest.
		keep := slices.MinFunc(paths, func(a, b string) int { return strings.Count(a, "/") - strings.Count(b, "/") })
		for _, p := range paths {
			if p != keep {
				findings = append(findings, judge.Finding{
					Path: p, Message: fmt.Sprintf("holds the same %d bytes as %s", n, visible(keep)), Fix: f.remove(p),
				})
			}
		}
	}
	return count(len(f.paths), "file", "files"), findings, nil
}

var licence = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice)([.-].*)?$`)

// Windows keeps these names for devices, with any extension, in any folder.
var device = regexp.MustCompile(`(?i)^(con|prn|aux|nul|conin\$|conout\$|com[1-9¹²³]|lpt[1-9¹²³]) *(\.|$)`)

// leftover reports whether a file's name says that a tool, a merge or a crash left
// it behind.
func leftover(name string) bool {
	switch name {
	case ".DS_Store", "Thumbs.db", "nohup.out", "core":
		return true
	}
	return len(name) > 1 && strings.HasSuffix(name, "~") ||
		slices.Contains([]string{".orig", ".rej", ".swp"}, path.Ext(name))
}

func checkNames(f *files, _ Rules) (string, []judge.Finding, error) {
	var findings []judge.Finding
	given := map[string]bool{} // names that a fix already gives
	rename := func(from, to string) string {
		ext := path.Ext(to)
		free := to
		for i := 2; f.exists(free) || given[free]; i++ {
			free = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(to, ext), i, ext)
		}
		given[free] = true
		return "git mv -- " + quote(from) + " " + quote(free)
	}
	reported := map[string]bool{}
	for _, p := range f.paths {
		if at, wrong := misnamedPath(p); wrong != "" {
			if !reported[at] {
				reported[at] = true
				findings = append(findings, judge.Finding{Path: at, Message: wrong, Fix: rename(at, path.Join(parent(at), wellNamed(path.Base(at))))})
			}
			continue
		}
		left := leftover(path.Base(p))
		if left && path.Base(p) == "core" {
			// Also a good name for a file of a person's own.
			dump, err := f.coreDump(p)
			if err != nil {
				return "", nil, err
			}
			left = dump
		}
		if left {
			findings = append(findings, judge.Finding{Path: p, Message: "was left behind by an editor, a merge, a crash or a desktop", Fix: f.remove(p)})
		}
		if len(p) > maxPath {
			long := judge.Finding{Path: p, Message: fmt.Sprintf("the path has %d bytes, wanted at most %d", len(p), maxPath)}
			ext := path.Ext(p)
			if room := maxPath - len(parent(p)) - len("/-99") - len(ext); room > 0 && len(ext) < maxPath/2 {
				stem := strings.TrimSuffix(path.Base(p), ext)
				long.Fix = rename(p, path.Join(parent(p), strings.ToValidUTF8(stem[:min(len(stem), room)], "")+ext))
			}
			findings = append(findings, long)
		}
	}
	return count(len(f.paths), "file", "files"), findings, nil
}

// misnamedPath returns the outermost part of a path that is misnamed, and why:
// what lies below moves with it.
func misnamedPath(p string) (at, wrong string) {
	for i := range len(p) + 1 {
		if i == len(p) || p[i] == '/' {
			if wrong := misnamed(path.Base(p[:i])); wrong != "" {
				return p[:i], wrong
			}
		}
	}
	return "", ""
}

func (f *files) coreDump(p string) (bool, error) {
	if !f.entry[p].mode.IsRegular() {
		return false, nil
	}
	b, err := f.blob(p)
	return bytes.HasPrefix(b, []byte("\x7fELF")), err
}

// misnamed says what is wrong with a name; "" is nothing.
func misnamed(name string) string {
	switch {
	case !utf8.ValidString(name):
		return "the name is not UTF-8"
	case !printable(name):
		return "the name has a character that cannot be seen"
	case strings.ContainsAny(name, `\:*?"<>|`):
		return `the name has one of \ : * ? " < > |, which Windows refuses`
	case strings.HasPrefix(name, "-"):
		return "the name begins with a dash, as an option does"
	case strings.HasSuffix(name, " ") || strings.HasSuffix(name, "."):
		return "the name ends with a space or a dot, which Windows drops"
	case device.MatchString(name):
		return "the name is that of a device on Windows"
	}
	return ""
}

// wellNamed returns a name close to one that is misnamed.
func wellNamed(name string) string {
	var b strings.Builder
	for _, r := range name {
		if r == utf8.RuneError || !seen(r) || strings.ContainsRune(`\:*?"<>|`, r) {
			r = '_'
		}
		b.WriteRune(r)
	}
	out := strings.TrimRight(strings.TrimLeft(b.String(), "-"), " .")
	if m := device.FindStringSubmatch(out); m != nil {
		out = m[1] + "_" + out[len(m[1]):]
	}
	if out == "" {
		return "unnamed"
	}
	return out
}

func checkSize(f *files, rules Rules) (string, []judge.Finding, error) {
	var findings []judge.Finding
	for _, p := range f.paths {
		if !f.entry[p].mode.IsRegular() {
			continue
		}
		n, _, err := f.size(p)
		if err != nil {
			return "", nil, err
		}
		if n > rules.MaxFile {
			findings = append(findings, judge.Finding{
				Path: p, Message: fmt.Sprintf("has %d bytes, wanted at most %d", n, rules.MaxFile), Fix: f.remove(p),
			})
		}
	}
	return count(len(f.paths), "file", "files"), findings, nil
}

func checkMarkers(f *files, _ Rules) (string, []judge.Finding, error) {
	var findings []judge.Finding
	read, large := 0, 0
	for _, p := range f.paths {
		if !f.entry[p].mode.IsRegular() || within(p, "testdata") {
			continue
		}
		n, b, err := f.size(p)
		if err == nil && n <= maxText && b == nil {
			b, err = f.blob(p)
		}
		if err != nil {
			return "", nil, err
		}
		if n > maxText {
			large++
			continue
		}
		if bytes.IndexByte(b[:min(len(b), 8000)], 0) >= 0 {
			continue // what git calls binary
		}
		read++
		if line := conflict(b); line > 0 {
			findings = append(findings, judge.Finding{
				Path: p, Line: line, Message: "holds the markers of a merge conflict", Fix: "resolve the conflict, then: git add -- " + quote(p),
			})
		}
	}
	detail := count(read, "text", "texts")
	if large > 0 {
		detail += "; " + count(large, "larger file was not searched", "larger files were not searched")
	}
	return detail, findings, nil
}

// conflict returns the line at which a merge conflict begins, 0 if there is none.
func conflict(b []byte) int {
	if !bytes.Contains(b, []byte("<<<<<<<")) {
		return 0
	}
	const marks = "<=>"
	line, begin, next := 0, 0, 0
	for l := range bytes.Lines(b) {
		line++
		mark := bytes.Repeat([]byte{marks[next]}, 7)
		rest, ok := bytes.CutPrefix(l, mark)
		if !ok || len(rest) > 0 && !strings.ContainsRune(" \r\n", rune(rest[0])) {
			continue
		}
		if next == 0 {
			begin = line
		}
		if next++; next == len(marks) {
			return begin
		}
	}
	return 0
}
