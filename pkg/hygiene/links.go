package hygiene

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"io/fs"
	"iter"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// What is a link: those of Markdown, inline and by reference, images, and the
// href, src and srcset of HTML tags. What has a scheme, or begins with two
// slashes, is not followed.
//
// Where it leads: a path is relative to its document's folder, or with a slash in
// front to the root; it is percent-decoded, and a query is dropped. It must be
// that of a file or folder of the tree, in the same case.
//
// Fragments: of a Markdown document, a heading's anchor by GitHub's rules, or the
// id or name of an HTML tag; of a folder, one of its README.md; of another file,
// L10, L10-L20 and so on lead to lines that it must have, and anything else is
// for the program that shows such files. #top is in every document.

// suggestions is how often the nearest name is looked for: that takes a comparison
// with every path of the tree.
const suggestions = 100

func checkLinks(f *files, rules Rules) (string, []judge.Finding, error) {
	wanted, err := parsePatterns(rules.Links)
	if err != nil {
		return "", nil, err
	}
	archive, err := parsePatterns(rules.Archive)
	if err != nil {
		return "", nil, err
	}
	l := &linker{files: f, docs: map[string]*document{}, parser: goldmark.New(goldmark.WithExtensions(
		extension.Table, extension.Strikethrough, extension.TaskList, extension.Footnote,
	)).Parser()}
	var findings []judge.Finding
	docs, links := 0, 0
	for _, p := range f.paths {
		if !wanted.match(p) || !f.entry[p].mode.IsRegular() || archive.match(p) || within(p, "testdata", "vendor") {
			continue
		}
		doc, err := l.document(p)
		if err != nil {
			return "", nil, err
		}
		docs++
		for _, link := range doc.links {
			links++
			finding, err := l.follow(p, link)
			if err != nil {
				return "", nil, err
			}
			if finding != nil {
				findings = append(findings, *finding)
			}
		}
	}
	return count(links, "link", "links") + " in " + count(docs, "document", "documents"), findings, nil
}

// linker follows links.
type linker struct {
	*files
	docs    map[string]*document
	parser  parser.Parser
	folded  map[string]string // paths by their lower case; made when first needed
	guesses int
}

// document is what a Markdown document has that matters to links.
type document struct {
	links   []link
	anchors map[string]bool
}

type link struct {
	to   string // as a browser would see it: entities and escapes are resolved
	line int
}

var scheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]+:`)

// follow returns what is wrong with a link, or nil.
func (l *linker) follow(from string, link link) (*judge.Finding, error) {
	to := strings.TrimSpace(link.to)
	found := func(fix, format string, args ...any) (*judge.Finding, error) {
		return &judge.Finding{Path: from, Line: link.line, Message: fmt.Sprintf("link to %s: ", visible(to)) + fmt.Sprintf(format, args...), Fix: fix}, nil
	}
	if to == "" {
		return &judge.Finding{Path: from, Line: link.line, Message: "link to nothing"}, nil
	}
	if scheme.MatchString(to) || strings.HasPrefix(to, "//") {
		return nil, nil
	}
	rest, fragment, _ := strings.Cut(to, "#")
	rest, query, _ := strings.Cut(rest, "?")
	fragment, rest = unescape(fragment), unescape(rest)
	target := from
	if rest != "" {
		target = rest
		if rest[0] != '/' {
			target = parent(from) + "/" + rest
		}
		// Cleaned without a slash in front, for a path from the root to keep what
		// leads out of it.
		target = path.Clean(strings.TrimLeft(target, "/"))
		if target == ".." || strings.HasPrefix(target, "../") {
			return found("", "leads out of the repository, wanted a path in it or a whole URL")
		}
		if target == "." {
			target = ""
		}
	}
	e, file := l.entry[target]
	folder := l.dirs[target]
	switch {
	case !file && !folder:
		for dir := parent(target); dir != ""; dir = parent(dir) {
			switch e, ok := l.entry[dir]; {
			case ok && e.submodule():
				return found("", "%s is a submodule, whose files this repository does not hold", visible(dir))
			case ok && e.mode&fs.ModeSymlink != 0:
				return found("", "%s is a symbolic link, which GitHub does not follow", visible(dir))
			}
		}
		near, folded := l.nearest(target)
		fix := ""
		if near != "" {
			fix = "did you mean " + escape(relative(parent(from), near))
		}
		if folded {
			return found(fix, "the case differs, found %s", visible(near))
		}
		return found(fix, "there is no %s", visible(target))
	case file && strings.HasSuffix(rest, "/"):
		return found("did you mean "+strings.TrimRight(to, "/"), "%s is no folder", visible(target))
	case fragment == "" || fragment == "top":
		return nil, nil
	case folder:
		readme := path.Join(target, "README.md")
		if e, ok := l.entry[readme]; !ok || !e.mode.IsRegular() {
			return found("", "the folder has no README.md for the fragment to be in")
		}
		target = readme
	case e.submodule():
		return found("", "%s is a submodule, whose files this repository does not hold", visible(target))
	case !e.mode.IsRegular():
		f, err := found("", "%s is a symbolic link, so the fragment was not looked for", visible(target))
		f.Warning = true
		return f, err
	}
	isDocument := slices.Contains([]string{".md", ".markdown"}, strings.ToLower(path.Ext(target))) || target == from
	if !isDocument || slices.Contains(strings.Split(query, "&"), "plain=1") {
		m := lineFragment.FindStringSubmatch(fragment)
		if m == nil {
			return nil, nil
		}
		b, err := l.blob(target)
		if err != nil {
			return nil, err
		}
		lines := bytes.Count(b, []byte("\n"))
		if len(b) > 0 && b[len(b)-1] != '\n' {
			lines++
		}
		for _, s := range []string{m[1], m[2]} {
			if n, err := strconv.Atoi(s); s != "" && (err != nil || n < 1 || n > lines) {
				return found("", "%s has %s", visible(target), count(lines, "line", "lines"))
			}
		}
		return nil, nil
	}
	doc, err := l.document(target)
	if err != nil || doc.anchors[strings.TrimPrefix(fragment, "user-content-")] {
		return nil, err
	}
	fix := ""
	if near := l.nearestOf(fragment, maps.Keys(doc.anchors), slips(fragment)); near != "" {
		fix = "did you mean #" + near
	}
	if doc.anchors[strings.ToLower(fragment)] {
		return found(fix, "anchors are in lower case")
	}
	return found(fix, "%s has no heading with this anchor", visible(target))
}

var lineFragment = regexp.MustCompile(`^L(\d+)(?:C\d+)?(?:-L(\d+)(?:C\d+)?)?$`)

// unescape percent-decodes as browsers do: what is not encoded stands for itself.
func unescape(s string) string {
	if out, err := url.PathUnescape(s); err == nil {
		return out
	}
	return s
}

// escape writes a path as a link of Markdown.
func escape(p string) string {
	var b strings.Builder
	for i, r := range p {
		switch _, n := utf8.DecodeRuneInString(p[i:]); {
		case strings.ContainsRune("%?#()<>\"\\ ", r), !seen(r), r == utf8.RuneError && n == 1:
			for _, c := range []byte(p[i : i+n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// relative returns the path to a target as seen from a folder.
func relative(folder, target string) string {
	if folder == "" {
		return target
	}
	from, to := strings.Split(folder, "/"), strings.Split(target, "/")
	same := 0
	for same < len(from) && same < len(to) && from[same] == to[same] {
		same++
	}
	return cmp.Or(path.Join(strings.Repeat("../", len(from)-same), strings.Join(to[same:], "/")), ".")
}

// nearest returns the path of the tree that was most likely meant; folded says
// that only its case differs.
func (l *linker) nearest(target string) (near string, folded bool) {
	if l.folded == nil {
		l.folded = map[string]string{}
		for p := range l.all {
			l.folded[strings.ToLower(p)] = p
		}
	}
	if p, ok := l.folded[strings.ToLower(target)]; ok {
		return p, true
	}
	// A file that moved keeps its name.
	base := strings.ToLower(path.Base(target))
	if moved := l.nearestOf(target, func(yield func(string) bool) {
		for p := range l.all {
			if strings.ToLower(path.Base(p)) == base && !yield(p) {
				return
			}
		}
	}, 2*maxPath); moved != "" {
		return moved, false
	}
	return l.nearestOf(target, func(yield func(string) bool) {
		for p := range l.all {
			if !strings.HasPrefix(target, p+"/") && !yield(p) {
				return
			}
		}
	}, slips(target)), false
}

// all yields the files and folders of the tree.
func (l *linker) all(yield func(string) bool) {
	for _, p := range l.paths {
		if !yield(p) {
			return
		}
	}
	for p := range l.dirs {
		if p != "" && !yield(p) {
			return
		}
	}
}

// slips is in how many letters a name may be wrong for a similar one to have been
// meant.
func slips(s string) int { return max(2, len(s)/3) }

// nearestOf returns the candidate with the fewest letters to change, if they are
// at most so many. Of several it is the first in order.
func (l *linker) nearestOf(s string, candidates iter.Seq[string], most int) string {
	if l.guesses++; l.guesses > suggestions || len(s) > maxPath {
		return ""
	}
	best := ""
	for c := range candidates {
		if max(len(c)-len(s), len(s)-len(c)) > most || len(c) > 2*maxPath {
			continue
		}
		if d := distance(s, c, most); d < most || d == most && (best == "" || c < best) {
			best, most = c, d
		}
	}
	return best
}

// distance is Levenshtein's, in bytes; any number above most when it is more.
func distance(a, b string, most int) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		least := row[0]
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
			least = min(least, row[j+1])
		}
		if least > most {
			return least // it only grows from here
		}
	}
	return row[len(b)]
}

// document reads a Markdown document, once.
func (l *linker) document(p string) (*document, error) {
	if d := l.docs[p]; d != nil {
		return d, nil
	}
	b, err := l.blob(p)
	if err != nil {
		return nil, err
	}
	if len(b) > maxDocument {
		return nil, fmt.Errorf("%s: found %d bytes, wanted a document of at most %d; hint: leave it out of the documents whose links are followed", visible(p), len(b), maxDocument)
	}
	d, err := readDocument(l.parser, b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", visible(p), err)
	}
	l.docs[p] = d
	return d, nil
}

// readDocument parses Markdown. The text is anybody's: what the parser cannot
// bear is an error here and not the end of the program.
func readDocument(p parser.Parser, b []byte) (d *document, err error) {
	defer func() {
		if r := recover(); r != nil {
			d, err = nil, fmt.Errorf("the Markdown parser gave up: %v", r)
		}
	}()
	b = withoutFrontMatter(b)
	r := &reader{source: b, doc: &document{anchors: map[string]bool{}}, used: map[string]int{}}
	for i, c := range b {
		if c == '\n' {
			r.ends = append(r.ends, i)
		}
	}
	err = ast.Walk(p.Parse(text.NewReader(b)), r.visit)
	return r.doc, err
}

// withoutFrontMatter blanks the YAML between two lines of dashes that a document
// may begin with, which GitHub shows as a table.
func withoutFrontMatter(b []byte) []byte {
	if m := frontMatter.Find(b); m != nil {
		b = slices.Clone(b)
		for i := range m {
			if b[i] != '\n' {
				b[i] = ' '
			}
		}
	}
	return b
}

var frontMatter = regexp.MustCompile(`\A---[ \t]*\r?\n(?s:.*?)\n---[ \t]*(?:\r?\n|\z)`)

// reader collects what matters of a parsed document.
type reader struct {
	source []byte
	ends   []int // of the lines
	doc    *document
	used   map[string]int // how often an anchor was wanted
}

// line returns the number of the line of a place in the source, from 1.
func (r *reader) line(at int) int { return sort.SearchInts(r.ends, at) + 1 }

func (r *reader) visit(n ast.Node, entering bool) (ast.WalkStatus, error) {
	if !entering {
		return ast.WalkContinue, nil
	}
	switch n := n.(type) {
	case *ast.Link:
		r.link(resolve(n.Destination), n.Pos())
	case *ast.Image:
		r.link(resolve(n.Destination), n.Pos())
	case *ast.Heading:
		var b strings.Builder
		r.headingText(&b, n)
		r.heading(b.String())
	case *ast.RawHTML:
		r.html(n.Segments)
	case *ast.HTMLBlock:
		lines := text.NewSegments()
		lines.AppendAll(n.Lines().Sliced(0, n.Lines().Len()))
		if n.HasClosure() {
			lines.Append(n.ClosureLine)
		}
		r.html(lines)
	}
	return ast.WalkContinue, nil
}

// resolve takes the escapes and entities of Markdown out of a text.
func resolve(b []byte) string {
	return string(util.ResolveEntityNames(util.ResolveNumericReferences(util.UnescapePunctuations(b))))
}

func (r *reader) link(to string, at int) {
	r.doc.links = append(r.doc.links, link{to, r.line(at)})
}

// headingText writes the text of a heading as it is shown: links and emphasis
// without their marks, no images, no tags.
func (r *reader) headingText(b *strings.Builder, n ast.Node) {
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		switch c := c.(type) {
		case *ast.Text:
			if _, code := n.(*ast.CodeSpan); code {
				b.Write(c.Segment.Value(r.source))
			} else {
				b.WriteString(resolve(c.Segment.Value(r.source)))
			}
		case *ast.String:
			b.Write(c.Value)
		case *ast.AutoLink:
			b.Write(c.Label(r.source))
		case *ast.Image, *ast.RawHTML:
		default:
			r.headingText(b, c)
		}
	}
}

// heading adds the anchor of a heading: its text in lower case, without what is
// neither a letter, a digit, an underscore, a dash nor a space, and with dashes
// for spaces. One that is taken gets a number.
//
// An image or a tag at an end of a heading leaves a space there, which becomes a
// dash; an anchor without it is accepted too.
func (r *reader) heading(s string) {
	var b strings.Builder
	for _, c := range strings.ToLower(s) {
		switch {
		case c == ' ':
			b.WriteByte('-')
		case c == '-' || unicode.In(c, unicode.Letter, unicode.Mark, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Other_Alphabetic):
			b.WriteRune(c)
		}
	}
	base := b.String()
	anchor := base
	for r.used[anchor] > 0 {
		anchor = base + "-" + strconv.Itoa(r.used[base])
		r.used[base]++
	}
	r.used[anchor]++
	r.doc.anchors[anchor] = true
	if s != strings.TrimSpace(s) {
		r.doc.anchors[strings.Trim(anchor, "-")] = true
	}
}

var (
	comment   = regexp.MustCompile(`(?s)<!--.*?(?:-->|\z)`)
	tag       = regexp.MustCompile(`(?s)<([A-Za-z][A-Za-z0-9-]*)((?:[^>"']|"[^"]*"|'[^']*')*)>`)
	attribute = regexp.MustCompile(`(?is)(?:^|\s)(href|src|srcset|name|id)\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)`)
	rawTitle  = regexp.MustCompile(`(?is)<h[1-6](?:\s[^>]*)?>(.*?)</h[1-6]\s*>`)
	anyTag    = regexp.MustCompile(`(?s)</?[A-Za-z](?:[^>"']|"[^"]*"|'[^']*')*>`)
)

// html reads tags: their links, the anchors that they set, and headings written
// as HTML.
func (r *reader) html(lines *text.Segments) {
	var b []byte
	var starts [][2]int // where a line begins in b, and in the source
	for i := range lines.Len() {
		s := lines.At(i)
		starts = append(starts, [2]int{len(b), s.Start})
		b = append(b, s.Value(r.source)...)
	}
	b = comment.ReplaceAllFunc(b, func(c []byte) []byte { return bytes.Repeat([]byte{' '}, len(c)) })
	source := func(at int) int {
		i := sort.Search(len(starts), func(i int) bool { return starts[i][0] > at }) - 1
		return starts[i][1] + at - starts[i][0]
	}
	for _, m := range tag.FindAllSubmatchIndex(b, -1) {
		name := strings.ToLower(string(b[m[2]:m[3]]))
		for _, a := range attribute.FindAllSubmatchIndex(b[m[4]:m[5]], -1) {
			value := html.UnescapeString(strings.Trim(string(b[m[4]+a[4]:m[4]+a[5]]), `"'`))
			at := source(m[4] + a[2])
			switch key := strings.ToLower(string(b[m[4]+a[2] : m[4]+a[3]])); {
			case key == "id", key == "name" && name == "a":
				r.doc.anchors[value] = true
			case key == "href" && name == "a", key == "src":
				r.link(value, at)
			case key == "srcset":
				for _, one := range strings.Split(value, ",") {
					if fields := strings.Fields(one); len(fields) > 0 {
						r.link(fields[0], at)
					}
				}
			}
		}
	}
	for _, m := range rawTitle.FindAllSubmatch(b, -1) {
		r.heading(html.UnescapeString(string(anyTag.ReplaceAll(m[1], nil))))
	}
}
