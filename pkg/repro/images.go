package repro

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

const (
	imagesID    = "reproducibility/base-images"
	imagesClaim = "every image that a Dockerfile takes is pinned by digest"

	// maxListed bounds the names in a detail.
	maxListed = 5
)

// Images reads every Dockerfile of the tree as BuildKit does and wants
// @sha256:DIGEST on each image: of FROM, COPY --from, RUN --mount=from and the
// syntax directive, also in ONBUILD. Stages that stand above by name or number,
// and scratch, need none.
//
// A Dockerfile is a file named Dockerfile, Containerfile, Dockerfile.* or
// Containerfile.*, *.Dockerfile or *.Containerfile, in upper or lower case,
// except *.dockerignore. A link of such a name is followed, if the tree is a
// [Source]; without, it is a finding. Nobody keeps a build from naming other
// files, so a change that adds one is for its reviewer to see.
//
// Variables are replaced by the defaults of the ARGs above the first FROM, as
// BuildKit does. One without a default is empty. One that BuildKit sets by
// itself, such as TARGETARCH, has no value here, so what depends on it is not
// pinned. Whoever builds with --build-arg takes another image: that is not in
// the tree and not judged.
//
// A Dockerfile that does not parse is a finding. A tree without Dockerfiles
// claims nothing.
func Images(t judge.Tree) judge.Check {
	l, err := list(t, isDockerfile)
	if err != nil {
		return judge.Unjudged(imagesID, imagesClaim, err)
	}
	if len(l.paths) == 0 {
		return judge.NotClaimed(imagesID, imagesClaim, "no Dockerfile in the tree"+l.asideText())
	}
	var findings []judge.Finding
	images := 0
	for _, p := range l.paths {
		data, err := follow(t, l.modes, p)
		if broken := (brokenLink{}); errors.As(err, &broken) {
			findings = append(findings, judge.Finding{Path: p, Message: broken.Error(), Fix: "put the file itself in place of the link"})
			continue
		}
		if err != nil {
			return judge.Unjudged(imagesID, imagesClaim, fmt.Errorf("%s: %w", p, err))
		}
		n, found := dockerfile(data)
		images += n
		for _, f := range found {
			f.Path = p
			findings = append(findings, f)
		}
	}
	detail := fmt.Sprintf("%d images in %d Dockerfiles: %s%s", images, len(l.paths), some(l.paths), l.asideText())
	return judge.Judged(imagesID, imagesClaim, detail, findings...)
}

func isDockerfile(name string) bool {
	name = strings.ToLower(name)
	for _, kind := range []string{"dockerfile", "containerfile"} {
		if name == kind || strings.HasSuffix(name, "."+kind) || strings.HasPrefix(name, kind+".") && !strings.HasSuffix(name, ".dockerignore") {
			return true
		}
	}
	return false
}

// listing is the part of a tree that a check is about.
type listing struct {
	paths []string               // files and links that it names, sorted
	aside []string               // what it names in folders of others' files, and submodules
	modes map[string]fs.FileMode // of the whole tree
}

func list(t judge.Tree, named func(base string) bool) (*listing, error) {
	l := &listing{modes: map[string]fs.FileMode{}}
	err := t.Walk("", func(p string, mode fs.FileMode, _ string) error {
		l.modes[p] = mode
		switch {
		case !mode.IsRegular() && mode&fs.ModeSymlink == 0:
			l.aside = append(l.aside, p+" (submodule)")
		case !named(path.Base(p)):
		case ofOthers(p):
			l.aside = append(l.aside, p)
		default:
			l.paths = append(l.paths, p)
		}
		return nil
	})
	slices.Sort(l.paths)
	slices.Sort(l.aside)
	return l, err
}

// ofOthers reports whether a file is only kept or tested with, not built with.
func ofOthers(p string) bool {
	elements := strings.Split(path.Dir(p), "/")
	return elements[0] == "archive" || slices.ContainsFunc(elements, func(e string) bool {
		return e == "testdata" || e == "vendor" || e == "node_modules"
	})
}

// asideText says what was not looked at, for the end of a detail.
func (l *listing) asideText() string {
	if len(l.aside) == 0 {
		return ""
	}
	return fmt.Sprintf("; %d left aside: %s", len(l.aside), some(l.aside))
}

// some lists the first few.
func some(list []string) string {
	shown := []string{}
	for _, s := range list[:min(len(list), maxListed)] {
		shown = append(shown, show(s))
	}
	if extra := len(list) - maxListed; extra > 0 {
		shown = append(shown, fmt.Sprintf("and %d more", extra))
	}
	return strings.Join(shown, ", ")
}

// brokenLink is a link that does not lead to a file of the tree.
type brokenLink struct{ why string }

func (b brokenLink) Error() string { return b.why }

// follow returns the content of a file, or of the file that a link leads to.
func follow(t judge.Tree, modes map[string]fs.FileMode, p string) ([]byte, error) {
	for range 10 {
		mode, ok := modes[p]
		switch {
		case !ok:
			return nil, brokenLink{fmt.Sprintf("is a link that leads to %s, which is no file of the tree", show(p))}
		case mode.IsRegular():
			return t.Blob(p)
		case mode&fs.ModeSymlink == 0:
			return nil, brokenLink{"is a link that leads into a submodule"}
		}
		src, ok := t.(Source)
		if !ok {
			return nil, brokenLink{"is a link: wanted a file"}
		}
		target, err := src.Link(p)
		if err != nil {
			return nil, err
		}
		if path.IsAbs(target) {
			return nil, brokenLink{fmt.Sprintf("is a link that leads to %s, out of the tree", show(target))}
		}
		p = path.Join(path.Dir(p), target)
	}
	return nil, brokenLink{"is a link that goes round"}
}

var (
	// plain is an image by name, without anything that a lexer would change or
	// that a shell would.
	plain = regexp.MustCompile(`^[a-z0-9][A-Za-z0-9._/:-]*$`)
	// pinned is one by digest.
	pinned = regexp.MustCompile(`^[a-z0-9][A-Za-z0-9._/:-]*@sha256:[0-9a-f]{64}$`)
)

// platform are the variables that BuildKit sets by itself.
var platform = []string{
	"BUILDPLATFORM", "BUILDOS", "BUILDOSVERSION", "BUILDARCH", "BUILDVARIANT",
	"TARGETPLATFORM", "TARGETOS", "TARGETOSVERSION", "TARGETARCH", "TARGETVARIANT", "TARGETSTAGE",
}

// dockerfile returns how many images a Dockerfile takes, and the findings.
func dockerfile(data []byte) (images int, findings []judge.Finding) {
	unread := func(err error) (int, []judge.Finding) {
		f := judge.Finding{Message: "does not parse, so its images are not known: " + err.Error()}
		if located := (*parser.LocationError)(nil); errors.As(err, &located) && len(located.Locations) > 0 && len(located.Locations[0]) > 0 {
			f.Line = located.Locations[0][0].Start.Line
		}
		return 0, []judge.Finding{f}
	}
	parsed, err := parser.Parse(bytes.NewReader(data))
	if err != nil {
		return unread(err)
	}
	stages, globals, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return unread(err)
	}
	if len(stages) == 0 {
		return unread(errors.New("there is no FROM"))
	}
	want := func(line int, what, image, why string) {
		images++
		if pinned.MatchString(image) {
			return
		}
		name, _, _ := strings.Cut(image, "@")
		f := judge.Finding{Line: line, Message: fmt.Sprintf("%s takes %q%s: wanted NAME@sha256:DIGEST", what, image, why)}
		if plain.MatchString(name) {
			f.Fix = fmt.Sprintf("write %s@sha256:DIGEST, with the digest that this prints: docker buildx imagetools inspect %s", name, name)
		}
		findings = append(findings, f)
	}

	if image, _, at, ok := parser.DetectSyntax(data); ok {
		line := 1
		if len(at) > 0 {
			line = max(1, at[0].Start.Line)
		}
		want(line, "the syntax directive", image, "")
	}
	args, err := newArguments(parsed.EscapeToken, globals)
	if err != nil {
		return unread(err)
	}
	above := map[string]bool{} // names of stages
	for i, stage := range stages {
		line := lineOf(stage.Location)
		image, unset, err := args.expand(stage.BaseName)
		switch {
		case err != nil:
			images++
			findings = append(findings, judge.Finding{Line: line, Message: fmt.Sprintf("FROM %s: %v", show(stage.BaseName), err)})
		case above[image], image == "scratch":
		case len(unset) > 0:
			want(line, "FROM "+show(stage.BaseName), image, fmt.Sprintf(", as %s has no default", strings.Join(unset, ", ")))
		default:
			want(line, "FROM", image, "")
		}
		for _, command := range stage.Commands {
			takes, err := taken(command)
			if err != nil {
				return unread(fmt.Errorf("line %d: %w", lineOf(command.Location()), err))
			}
			for _, x := range takes {
				// Only COPY knows stages by number.
				n, err := strconv.Atoi(x.image)
				if err == nil && x.byNumber && 0 <= n && n < i || above[strings.ToLower(x.image)] || x.image == "scratch" {
					continue
				}
				want(lineOf(command.Location()), x.what, x.image, "")
			}
		}
		if stage.Name != "" {
			above[stage.Name] = true
		}
	}
	return images, findings
}

// arguments are the variables of FROM lines.
type arguments struct {
	lex    *shell.Lex
	values map[string]string
	// depends names, for a variable, one that the platform sets and that its
	// value depends on.
	depends map[string]string

	// What the last expansion met.
	unset, byPlatform []string
}

func newArguments(escape rune, globals []instructions.ArgCommand) (*arguments, error) {
	a := &arguments{lex: shell.NewLex(escape), values: map[string]string{}, depends: map[string]string{}}
	for _, name := range platform {
		a.depends[name] = name
	}
	for _, g := range globals {
		for _, arg := range g.Args {
			if arg.Value == nil {
				continue // it keeps what it had
			}
			value, err := a.process(*arg.Value)
			if err != nil {
				return nil, fmt.Errorf("line %d: ARG %s: %w", lineOf(g.Location()), show(arg.Key), err)
			}
			a.values[arg.Key] = value
			if delete(a.depends, arg.Key); len(a.byPlatform) > 0 {
				a.depends[arg.Key] = a.byPlatform[0]
			}
		}
	}
	return a, nil
}

// expand returns a word with its variables replaced, and those that had no
// value.
func (a *arguments) expand(word string) (value string, unset []string, err error) {
	value, err = a.process(word)
	if err == nil && len(a.byPlatform) > 0 {
		err = fmt.Errorf("%s has another value on each platform, so no one image is pinned: wanted NAME@sha256:DIGEST", a.byPlatform[0])
	}
	return value, a.unset, err
}

func (a *arguments) process(word string) (string, error) {
	a.unset, a.byPlatform = nil, nil
	value, err := a.lex.ProcessWordWithMatches(word, a)
	return value.Result, err
}

// Get is how the lexer asks for a variable.
func (a *arguments) Get(name string) (string, bool) {
	value, ok := a.values[name]
	if on := a.depends[name]; on != "" {
		a.byPlatform = append(a.byPlatform, on)
	} else if !ok {
		a.unset = append(a.unset, name)
	}
	return value, ok
}

// Keys is how the lexer asks which variables there are.
func (a *arguments) Keys() []string { return slices.Sorted(maps.Keys(a.values)) }

// source is an image or a stage that an instruction takes files from.
type source struct {
	what     string
	image    string
	byNumber bool // a number is a stage
}

// taken returns what a command takes files from.
func taken(command instructions.Command) ([]source, error) {
	switch c := command.(type) {
	case *instructions.CopyCommand:
		if c.From != "" {
			return []source{{"COPY --from", c.From, true}}, nil
		}
	case *instructions.RunCommand:
		var list []source
		for _, m := range instructions.GetMounts(c) {
			if m.From != "" {
				list = append(list, source{"RUN --mount", m.From, false})
			}
		}
		return list, nil
	case *instructions.OnbuildCommand:
		// BuildKit parses it anew where it runs.
		parsed, err := parser.Parse(strings.NewReader(c.Expression))
		if err != nil {
			return nil, fmt.Errorf("ONBUILD: %w", err)
		}
		var list []source
		for _, n := range parsed.AST.Children {
			inner, err := instructions.ParseCommand(n)
			if err != nil {
				return nil, fmt.Errorf("ONBUILD: %w", err)
			}
			takes, err := taken(inner)
			if err != nil {
				return nil, err
			}
			for _, x := range takes {
				x.what = "ONBUILD " + x.what
				list = append(list, x)
			}
		}
		return list, nil
	}
	return nil, nil
}

func lineOf(r []parser.Range) int {
	if len(r) == 0 {
		return 0
	}
	return r[0].Start.Line
}
