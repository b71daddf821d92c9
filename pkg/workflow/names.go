package workflow

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/rhysd/actionlint"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// post is a check that a job of a workflow posts, under one name or, for a
// matrix, several.
type post struct {
	flow    *file          // whose events start it
	chain   []*job         // from the job of flow, through reusable workflows, to the job that runs
	names   *regexp.Regexp // what it may be called
	vague   bool           // an expression decides, so it may be called anything
	example string         // one of its names, for people
	bare    string         // what it would be called without its matrix
}

// named takes a pattern. One that is too long for any name is no help.
func (p *post) named(pattern string) {
	var err error
	if p.names, err = regexp.Compile("^(?:" + pattern + ")$"); err != nil || len(pattern) > 1<<16 {
		p.names, p.vague = regexp.MustCompile(`^.*$`), true
	}
}

func (p post) job() *job { return p.chain[len(p.chain)-1] }

// mostPosts is how many jobs are looked at, called ones once for each caller.
// Nobody requires a check that ten thousand others stand beside.
const mostPosts = 10_000

// callers walks from the workflows that start by themselves into those that they
// call.
type callers struct {
	*Set
	flow   *file
	looked int
}

// findPosts lists what all workflows post.
func (s *Set) findPosts() {
	c := callers{Set: s}
	for _, f := range s.workflows {
		if len(f.own()) > 0 {
			c.flow = f
			c.walk(f, post{flow: f}, "")
		}
	}
	if c.looked > mostPosts {
		s.broken = append(s.broken, judge.Finding{Path: folder, Message: fmt.Sprintf("the workflows call each other for more than %d jobs", mostPosts)})
	}
}

// walk adds the jobs of a workflow; above is what leads to it, and pattern what
// its names begin with.
func (c *callers) walk(f *file, above post, pattern string) {
	for _, j := range f.jobs {
		if c.looked++; c.looked > mostPosts {
			return
		}
		pat, vague, ex, b := j.display()
		pat = pattern + pat
		p := post{
			flow: c.flow, chain: append(slices.Clone(above.chain), j), vague: above.vague || vague,
			example: above.example + ex, bare: above.bare + b,
		}
		if j.WorkflowCall == nil {
			p.named(pat)
			c.all = append(c.all, p)
			continue
		}
		p.example, p.bare = p.example+" / ", p.bare+" / "
		_, _, called := c.local(use{f, j.WorkflowCall.Uses, j, -1})
		switch {
		case called == nil: // another repository's jobs
			p.named(pat + " / .+")
			p.vague, p.example, p.bare = true, p.example+"…", p.bare+"…"
			c.all = append(c.all, p)
		case !slices.ContainsFunc(p.chain, func(j *job) bool { return j.file == called }):
			c.walk(called, p, pat+" / ")
		} // else it calls itself, which GitHub refuses
	}
}

// display returns the names of a job: as a pattern, whether it matches more than
// can be known, an example, and the name without the matrix.
func (j *job) display() (pattern string, vague bool, example, bare string) {
	name := j.ID.Value
	if j.Name != nil && j.Name.Value != "" {
		name = j.Name.Value
	}
	var matrix *actionlint.Matrix
	if j.Strategy != nil {
		matrix = j.Strategy.Matrix
	}
	if found := expressions(name); len(found) > 0 {
		rest := name
		for _, e := range found {
			before, after, _ := strings.Cut(rest, e.text)
			pat, ok, ex := valuesOf(matrix, contextPathOf(e.node))
			vague = vague || !ok
			pattern += regexp.QuoteMeta(before) + pat
			example += before + ex
			rest = after
		}
		return pattern + regexp.QuoteMeta(rest), vague, example + rest, name
	}
	if matrix == nil {
		return regexp.QuoteMeta(name), false, name, name
	}
	if matrix.Expression != nil || matrix.Include != nil || len(matrix.Rows) == 0 {
		return regexp.QuoteMeta(name) + ` \(.+\)`, true, name + " (…)", name
	}
	var pats, examples []string
	for k := range pairs(child(child(j.node, "strategy"), "matrix")) { // in the order of the text, as GitHub does
		key := strings.ToLower(k.Value)
		if key == "exclude" {
			continue
		}
		pat, ok, ex := valuesOf(matrix, "matrix."+key)
		vague = vague || !ok
		pats, examples = append(pats, pat), append(examples, ex)
	}
	return regexp.QuoteMeta(name) + ` \(` + strings.Join(pats, ", ") + `\)`, vague, fmt.Sprintf("%s (%s)", name, strings.Join(examples, ", ")), name
}

func contextPathOf(n actionlint.ExprNode) string {
	if n == nil {
		return ""
	}
	return contextPath(n)
}

// valuesOf returns a pattern of the values of matrix.KEY, whether it is exact,
// and one of them.
func valuesOf(m *actionlint.Matrix, key string) (pattern string, exact bool, example string) {
	const anything = `.*`
	key, ok := strings.CutPrefix(key, "matrix.")
	if !ok || m == nil || m.Expression != nil {
		return anything, false, "…"
	}
	var values []actionlint.RawYAMLValue
	if r := m.Rows[key]; r != nil {
		if r.Expression != nil {
			return anything, false, "…"
		}
		values = append(values, r.Values...)
	}
	if m.Include != nil {
		if m.Include.ContainsExpression() {
			return anything, false, "…"
		}
		for _, c := range m.Include.Combinations {
			if a := c.Assigns[key]; a != nil {
				values = append(values, a.Value)
			}
		}
	}
	var alts []string
	for _, v := range values {
		s, ok := v.(*actionlint.RawYAMLString)
		if !ok || strings.Contains(s.Value, "${{") {
			return anything, false, "…"
		}
		alts = append(alts, regexp.QuoteMeta(s.Value))
		// Unquoted, 1.20 is the number 1.2; the parser does not say which it is.
		if strings.Contains(s.Value, ".") && strings.Trim(s.Value, "0123456789.") == "" {
			alts = append(alts, regexp.QuoteMeta(strings.TrimSuffix(strings.TrimRight(s.Value, "0"), ".")))
		}
		if example == "" {
			example = s.Value
		}
	}
	if len(alts) == 0 {
		return anything, false, "…"
	}
	return "(?:" + strings.Join(alts, "|") + ")", true, example
}

// required is a name that a branch is protected by, with what posts it.
type required struct {
	name  string
	posts []post
	maybe bool // only a job whose name is an expression could post it
}

func (s *Set) required(names []string) []required {
	var list []required
	for _, n := range names {
		r := required{name: n}
		var vague []post
		for _, p := range s.all {
			switch {
			case !p.names.MatchString(n):
			case p.vague:
				vague = append(vague, p)
			default:
				r.posts = append(r.posts, p)
			}
		}
		if r.posts == nil && vague != nil {
			r.posts, r.maybe = vague, true
		}
		list = append(list, r)
	}
	return list
}

// nobody says what may have been meant by a name that no job posts.
func (s *Set) nobody(name string) (post *post, hint string) {
	all := s.all
	var known []string
	for i, p := range all {
		if p.bare == name && p.bare != p.example {
			return &all[i], fmt.Sprintf("job %s posts one check for each combination, such as %q: require those, or one job that needs them all and runs with if: always()", p.job().ID.Value, p.example)
		}
		known = append(known, p.example)
	}
	// People copy what the page of a change shows: "Workflow / job (event)".
	_, last, _ := strings.Cut(name, " / ")
	last, _, _ = strings.Cut(last, " (")
	if i := slices.Index(known, last); i >= 0 {
		return &all[i], fmt.Sprintf("its name is %q alone: what the page of a change shows before and behind it does not belong to it", last)
	}
	if near := action.Nearest(name, known); near != "" {
		return &all[slices.Index(known, near)], fmt.Sprintf("did you mean %q?", near)
	}
	if len(known) == 0 {
		return nil, "no workflow of this tree posts any check"
	}
	slices.Sort(known)
	known = slices.Compact(known)
	if len(known) > 8 {
		known = append(known[:8], "…")
	}
	return nil, "the jobs here post " + strings.Join(known, ", ")
}

// own returns the names of the events that start a workflow by itself.
func (f *file) own() []string {
	var names []string
	for _, e := range f.flow.On {
		if n := e.EventName(); n != "workflow_call" {
			names = append(names, n)
		}
	}
	return names
}

func (f *file) on(event string) *actionlint.WebhookEvent {
	for _, e := range f.flow.On {
		if w, ok := e.(*actionlint.WebhookEvent); ok && w.EventName() == event {
			return w
		}
	}
	return nil
}

// onPos is where the events of a workflow stand.
func (f *file) onPos() *actionlint.Pos {
	for k := range pairs(f.root) {
		if k.Value == "on" {
			return &actionlint.Pos{Line: k.Line, Col: k.Column}
		}
	}
	return &actionlint.Pos{Line: 1, Col: 1}
}

// spreadEvents gives every workflow the events that it runs on: its own, and
// those of the jobs that call it, unless their conditions exclude a stranger's.
func (s *Set) spreadEvents() {
	for _, f := range s.workflows {
		f.events = f.own()
	}
	occasions := map[string]*occasion{}
	for changed := true; changed; {
		changed = false
		for _, f := range s.workflows {
			for _, j := range f.jobs {
				if j.WorkflowCall == nil {
					continue
				}
				_, _, called := s.local(use{f, j.WorkflowCall.Uses, j, -1})
				if called == nil {
					continue
				}
				for _, e := range f.events {
					if occasions[e] == nil {
						occasions[e] = stranger(e)
					}
					if !slices.Contains(called.events, e) && j.possible(occasions[e]) {
						called.events, changed = append(called.events, e), true
					}
				}
			}
		}
	}
}

// possible tells whether a job can run on an occasion: its condition may be true,
// and so may those of the jobs that it needs to succeed.
func (j *job) possible(o *occasion) bool {
	if p, ok := o.jobs[j]; ok {
		return p
	}
	o.jobs[j] = true // of jobs that need each other, GitHub runs none
	p := possible(j.If, o.known)
	if p && !mentionsStatus(j.If) {
		for _, n := range j.Needs {
			other := j.file.job(n.Value)
			p = p && (other == nil || other.possible(o))
		}
	}
	o.jobs[j] = p
	return p
}

func (f *file) job(id string) *job { return f.byID[strings.ToLower(id)] }

// mentionsStatus tells whether a condition says itself what it wants of the jobs
// before: without, their success is wanted.
func mentionsStatus(cond *actionlint.String) bool {
	node, _ := condition(cond)
	if node == nil {
		return cond != nil
	}
	found := false
	actionlint.VisitExprNode(node, func(n, _ actionlint.ExprNode, _ bool) {
		if c, ok := n.(*actionlint.FuncCallNode); ok && slices.Contains([]string{"always", "success", "failure", "cancelled"}, strings.ToLower(c.Callee)) {
			found = true
		}
	})
	return found
}

// branchFilter tells whether a filter of branches matches a branch. GitHub's
// patterns have *, **, ?, +, [] and a leading ! that takes back.
func branchFilter(f *actionlint.WebhookEventFilter, branch string) bool {
	matched := false
	for _, v := range f.Values {
		pattern, not := strings.CutPrefix(v.Value, "!")
		if re := glob(pattern); re != nil && re.MatchString(branch) {
			matched = !not
		}
	}
	return matched
}

// everything tells whether a filter names all branches.
func everything(f *actionlint.WebhookEventFilter) bool {
	return !f.IsEmpty() && slices.ContainsFunc(f.Values, func(v *actionlint.String) bool { return v.Value == "**" || v.Value == "*" })
}

func glob(pattern string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString("^")
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '*':
			if i+1 < len(pattern) && pattern[i+1] == '*' {
				i++
				b.WriteString(".*")
			} else {
				b.WriteString("[^/]*")
			}
		case '?', '+', '[', ']', '-':
			b.WriteByte(c)
		case '\\':
			if i++; i < len(pattern) {
				b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
			}
		default:
			b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		}
	}
	re, err := regexp.Compile(b.String() + "$")
	if err != nil {
		return nil // GitHub refuses it as well
	}
	return re
}

// base returns the last name of a use that says what an action is: for a
// composite twin that of its folder's parent.
func base(uses string) string {
	name, _, _ := strings.Cut(uses, "@")
	name = strings.TrimSuffix(path.Clean(name), "/composite")
	return path.Base(name)
}
