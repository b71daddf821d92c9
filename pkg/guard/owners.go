package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// ownersFiles are where CODEOWNERS is looked for; the first that is there counts
// (https://docs.github.com/en/repositories/managing-your-repositorys-settings-and-features/customizing-your-repository/about-code-owners).
var ownersFiles = []string{".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS"}

// maxOwners is the size in bytes above which the forge ignores the file.
const maxOwners = 3 << 20

// owners is a CODEOWNERS file.
type owners struct {
	path     string // "" when there is none
	rules    []ownersRule
	warnings []judge.Finding // lines that the forge leaves out, too
}

type ownersRule struct {
	line     int
	elements []string // ** stands for any number of them
	names    []string // as written: @user, @org/team
}

// readOwners reads the CODEOWNERS of a tree.
func readOwners(t judge.Tree) (owners, error) {
	for _, p := range ownersFiles {
		data, err := t.Blob(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return owners{}, err
		}
		if len(data) > maxOwners {
			return owners{}, fmt.Errorf("%s has %d bytes: the forge ignores one of more than %d", p, len(data), maxOwners)
		}
		return parseOwners(p, data), nil
	}
	return owners{}, nil
}

// parseOwners reads lines "PATTERN OWNER…"; "#" begins a comment. A line whose
// pattern has no meaning is left out, as the forge does, and named. An owner that
// has none stays without effect: the path is then less approvable, not more.
func parseOwners(name string, data []byte) owners {
	o := owners{path: name}
	n := 0
	for line := range bytes.Lines(bytes.TrimPrefix(data, []byte("\ufeff"))) {
		n++
		fields := ownersFields(string(line))
		if len(fields) == 0 {
			continue
		}
		elements, err := ownersPattern(fields[0])
		if err != nil {
			o.warnings = append(o.warnings, judge.Finding{
				Path: name, Line: n, Warning: true,
				Message: fmt.Sprintf("pattern %q: %v: the line has no effect", fields[0], err),
			})
			continue
		}
		o.rules = append(o.rules, ownersRule{n, elements, fields[1:]})
	}
	return o
}

// ownersFields splits a line at spaces that no backslash escapes.
func ownersFields(line string) []string {
	var fields []string
	var field strings.Builder
	escaped := false
	end := func() {
		if field.Len() > 0 {
			fields = append(fields, field.String())
			field.Reset()
		}
	}
	for _, c := range strings.TrimRight(line, "\r\n") {
		switch {
		case escaped:
			escaped = false
			field.WriteRune(c)
		case c == '\\':
			escaped = true
			field.WriteRune(c)
		case c == ' ' || c == '\t':
			end()
		case c == '#' && field.Len() == 0:
			return fields
		default:
			field.WriteRune(c)
		}
	}
	end()
	return fields
}

// ownersPattern reads a pattern: gitignore's, but without "!", ranges and an
// escaped "#", and "folder/*" is of the folder's files only, not of those below.
func ownersPattern(p string) ([]string, error) {
	switch {
	case strings.HasPrefix(p, "!"):
		return nil, errors.New("there is no negation")
	case strings.ContainsAny(p, "[]"):
		return nil, errors.New("there are no ranges")
	case strings.HasPrefix(p, `\#`):
		return nil, errors.New("# cannot be escaped")
	case strings.Contains(p, "***"):
		return nil, errors.New("want * or **")
	case strings.Trim(p, "/") == "":
		return nil, errors.New("it names nothing")
	}
	body := strings.TrimSuffix(p, "/")
	anchored := strings.Contains(body, "/")
	elements := strings.Split(strings.TrimPrefix(body, "/"), "/")
	for _, e := range elements {
		if _, err := path.Match(e, ""); err != nil || e == "" {
			return nil, errors.New("want names between single slashes")
		}
	}
	switch last := len(elements) - 1; {
	case elements[last] == "**":
		elements = append(elements[:last], "*", "**") // at least one name
	case strings.HasSuffix(p, "/"):
		elements = append(elements, "*", "**") // what is below, not a file of that name
	case elements[last] != "*" || last == 0 && !anchored:
		elements = append(elements, "**") // the file, or what is below
	}
	if !anchored {
		elements = append([]string{"**"}, elements...)
	}
	return elements, nil
}

// matches matches the elements of a path with those of a pattern. It goes back
// only to the last **, so that no path takes long.
func matches(pattern, names []string) bool {
	p, n, star, from := 0, 0, -1, 0
	for n < len(names) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			star, from = p, n
			p++
		case p < len(pattern) && matchesName(pattern[p], names[n]):
			p++
			n++
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}

func matchesName(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// of returns the owners of a path: those of the last pattern that matches.
func (o owners) of(p string) []string {
	names := strings.Split(p, "/")
	for i := len(o.rules) - 1; i >= 0; i-- {
		if matches(o.rules[i].elements, names) {
			return o.rules[i].names
		}
	}
	return nil
}

// sides are the last reviews, of each account, that take a side.
type sides struct {
	at    []forge.User // approve, at this head
	older []forge.User // approve another head
	self  bool         // the author has approved, which counts for nothing
}

func approvers(reviews []forge.Review, pull forge.Pull) sides {
	last := map[int64]forge.Review{}
	var order []int64
	for _, r := range reviews { // oldest first
		if r.User.ID == 0 || r.State != "APPROVED" && r.State != "CHANGES_REQUESTED" && r.State != "DISMISSED" {
			continue
		}
		if _, ok := last[r.User.ID]; !ok {
			order = append(order, r.User.ID)
		}
		last[r.User.ID] = r
	}
	var s sides
	for _, id := range order {
		switch r := last[id]; {
		case r.State != "APPROVED":
		case id == pull.Author.ID || strings.EqualFold(r.User.Login, pull.Author.Login):
			s.self = true
		case r.Commit != pull.Head:
			s.older = append(s.older, r.User)
		default:
			s.at = append(s.at, r.User)
		}
	}
	return s
}

var (
	userName = regexp.MustCompile(`^@([A-Za-z0-9][A-Za-z0-9_-]*)$`)
	teamName = regexp.MustCompile(`^@([A-Za-z0-9][A-Za-z0-9_-]*)/([A-Za-z0-9][A-Za-z0-9._-]*)$`)
)

// asker asks the forge about accounts, each thing once.
type asker struct {
	ctx   context.Context
	repo  *forge.Repository
	known map[string]answer
}

type answer struct {
	yes bool
	err error
}

func (a *asker) once(key string, ask func() (bool, error)) (bool, error) {
	got, ok := a.known[key]
	if !ok {
		got.yes, got.err = ask()
		a.known[key] = got
	}
	return got.yes, got.err
}

// approving returns those who approved, are among the owners and may write. The
// error says of whom that is not known.
func (a *asker) approving(names []string, approved []forge.User) (who []string, unknown error) {
	for _, u := range approved {
		owns, err := a.owns(names, u)
		if owns {
			owns, err = a.once("write "+u.Login, func() (bool, error) { return a.repo.MayWrite(a.ctx, u.Login) })
		}
		if err != nil {
			unknown = errors.Join(unknown, err)
		} else if owns {
			who = append(who, u.Login)
		}
	}
	return who, unknown
}

func (a *asker) owns(names []string, u forge.User) (bool, error) {
	var unknown error
	for _, name := range names {
		if m := userName.FindStringSubmatch(name); m != nil && strings.EqualFold(m[1], u.Login) {
			return true, nil
		}
		if m := teamName.FindStringSubmatch(name); m != nil {
			in, err := a.once(name+" "+u.Login, func() (bool, error) { return a.repo.InTeam(a.ctx, m[1], m[2], u.Login) })
			if in && err == nil {
				return true, nil
			}
			unknown = errors.Join(unknown, err)
		}
	}
	return false, unknown
}

// unapproved says what a path lacks, and how to get it.
func (c *Change) unapproved(p string, o owners, s sides, have, need int) judge.Finding {
	f := judge.Finding{Path: p}
	names := o.of(p)
	switch {
	case o.path == "":
		f.Message = "it decides the gates, and the base has no CODEOWNERS that says who may approve that"
		f.Fix = "on " + c.Pull.BaseRef + ", write .github/CODEOWNERS with a line: * @OWNER"
		return f
	case len(names) == 0:
		f.Message = "it decides the gates, and " + o.path + " names no owner of it"
		f.Fix = "on " + c.Pull.BaseRef + ", add a line to " + o.path + ": /" + p + " @OWNER"
		return f
	}
	f.Message = fmt.Sprintf("it decides the gates, and has %d of %d approvals at %s by its owners %s", have, need, c.Pull.Head, strings.Join(names, " "))
	switch {
	case len(s.older) > 0:
		f.Message += fmt.Sprintf("; %s approved another head", logins(s.older))
	case len(s.at) > 0:
		f.Message += fmt.Sprintf("; %s approved, but not as an owner who may write", logins(s.at))
	case s.self:
		f.Message += "; the author's own approval counts for nothing"
	}
	f.Fix = "have an owner approve this head, then run this job again"
	return f
}

func logins(users []forge.User) string {
	var names []string
	for _, u := range users {
		names = append(names, u.Login)
	}
	return strings.Join(names, ", ")
}
