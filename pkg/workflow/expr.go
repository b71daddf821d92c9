package workflow

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/rhysd/actionlint"
)

// expression is one ${{ … }} of a text.
type expression struct {
	text string              // as written
	node actionlint.ExprNode // nil when it does not parse
}

// expressions returns all of a text, in order.
func expressions(s string) []expression {
	var all []expression
	for low := lower(s); ; {
		i := strings.Index(s, "${{")
		if i < 0 {
			return all
		}
		node, n := parseExpr(low[i+3:])
		if node == nil {
			if n = strings.Index(s[i+3:], "}}") + 2; n < 2 {
				n = len(s) - i - 3
			}
		}
		end := i + 3 + n
		all = append(all, expression{s[i:end], node})
		s, low = s[end:], low[end:]
	}
}

// lower returns a text of the same length, as GitHub reads names: without case.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// maxExpr is how long an expression can be on GitHub. It also bounds how deep one
// is nested.
const maxExpr = 21_000

// parseExpr parses an expression that ends in }} and returns its length with
// them.
func parseExpr(s string) (actionlint.ExprNode, int) {
	s = s[:min(len(s), maxExpr)]
	l := actionlint.NewExprLexer(s)
	node, err := actionlint.NewExprParser().Parse(l)
	if err != nil {
		return nil, 0
	}
	return node, min(l.Offset(), len(s))
}

// condition parses an if:, which may be written without ${{ }}. What is not one
// expression alone is text, and text is true.
func condition(s *actionlint.String) (node actionlint.ExprNode, isText bool) {
	if s == nil {
		return nil, false
	}
	v := strings.TrimSpace(s.Value)
	if !strings.Contains(v, "${{") {
		node, _ = parseExpr(lower(v) + "}}")
		return node, false
	}
	if all := expressions(v); len(all) == 1 && all[0].text == v {
		return all[0].node, false
	}
	return nil, true
}

// facts are what is known of the contexts while a condition is evaluated, by
// path in lower case.
type facts map[string]any

// Two repositories that are not the same.
const theirs, ours = "\x00fork", "\x00base"

// occasion is an event, and which jobs can run on it as far as that was asked.
type occasion struct {
	known facts
	jobs  map[*job]bool
}

// anybody is an event of which only the name is known.
func anybody(event string) *occasion {
	return &occasion{facts{"github.event_name": event}, map[*job]bool{}}
}

// stranger is an event that comes from somebody who may not write to the
// repository.
func stranger(event string) *occasion {
	o := anybody(event)
	f := o.known
	f["github.repository"], f["github.repository_owner"] = ours, ours
	switch event {
	case "pull_request", "pull_request_target":
		for _, k := range []string{"repo.full_name", "repo.owner.login", "user.login"} {
			f["github.event.pull_request.head."+k] = theirs
			f["github.event.pull_request.base."+k] = ours
		}
		f["github.event.pull_request.head.repo.fork"] = true
		f["github.event.pull_request.merged"] = false
		f["github.event.pull_request.user.login"] = theirs
		f["github.event.pull_request.author_association"] = "none"
	case "workflow_run":
		f["github.event.workflow_run.event"] = "pull_request"
		f["github.event.workflow_run.head_repository.full_name"] = theirs
		f["github.event.workflow_run.head_repository.owner.login"] = theirs
		f["github.event.workflow_run.head_repository.fork"] = true
		f["github.event.workflow_run.repository.full_name"] = ours
	case "issue_comment":
		f["github.event.comment.author_association"] = "none"
		f["github.event.comment.user.login"] = theirs
	}
	return o
}

// truth is what is known of a condition.
type truth int

const (
	unknown truth = iota
	yes
	no
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// possible tells whether a condition can hold: it is not certainly false.
func possible(cond *actionlint.String, known facts) bool {
	node, _ := condition(cond)
	return node == nil || known.truth(node) != no
}

// always tells whether a job with this condition runs whatever happens before
// it. Only always() makes a job run although what it needs has failed; without
// needs, a condition that is simply true will do.
func always(cond *actionlint.String, needs bool) bool {
	if cond == nil {
		return !needs
	}
	node, _ := condition(cond)
	if node == nil || (facts{}).truth(node) != yes {
		return false
	}
	found := false
	actionlint.VisitExprNode(node, func(n, _ actionlint.ExprNode, _ bool) {
		if call, ok := n.(*actionlint.FuncCallNode); ok && strings.EqualFold(call.Callee, "always") {
			found = true
		}
	})
	return found || !needs
}

func (f facts) truth(n actionlint.ExprNode) truth {
	switch n := n.(type) {
	case *actionlint.NotOpNode:
		switch f.truth(n.Operand) {
		case yes:
			return no
		case no:
			return yes
		}
		return unknown
	case *actionlint.LogicalOpNode:
		a, b := f.truth(n.Left), f.truth(n.Right)
		decides := no // for &&
		if n.Kind == actionlint.LogicalOpNodeKindOr {
			decides = yes
		}
		switch {
		case a == decides || b == decides:
			return decides
		case a == b:
			return a
		}
		return unknown
	case *actionlint.CompareOpNode:
		if !n.Kind.IsEqualityOp() {
			return unknown
		}
		a, okA := f.value(n.Left)
		b, okB := f.value(n.Right)
		if !okA || !okB {
			return unknown
		}
		equal := a == b
		switch a.(type) {
		case string, bool:
		default:
			return unknown
		}
		// A comparison of kinds is one of numbers, which is not ours to guess.
		if _, text := a.(string); text != isString(b) {
			return unknown
		}
		return truthOf(equal == (n.Kind == actionlint.CompareOpNodeKindEq))
	case *actionlint.FuncCallNode:
		switch strings.ToLower(n.Callee) {
		case "always":
			return yes
		case "contains", "startswith", "endswith":
			return f.search(n)
		}
		return unknown
	}
	switch v, ok := f.value(n); v := v.(type) {
	case bool:
		return truthOf(v)
	case string:
		return truthOf(v != "")
	case nil:
		if ok {
			return no // null
		}
	}
	return unknown
}

func isString(v any) bool {
	_, ok := v.(string)
	return ok
}

func (f facts) search(n *actionlint.FuncCallNode) truth {
	if len(n.Args) != 2 {
		return unknown
	}
	in, ok1 := f.value(n.Args[0])
	what, ok2 := f.value(n.Args[1])
	word, ok3 := what.(string)
	if !ok1 || !ok2 || !ok3 {
		return unknown
	}
	switch in := in.(type) {
	case []string:
		return truthOf(slices.Contains(in, word))
	case string:
		switch strings.ToLower(n.Callee) {
		case "startswith":
			return truthOf(strings.HasPrefix(in, word))
		case "endswith":
			return truthOf(strings.HasSuffix(in, word))
		}
		return truthOf(strings.Contains(in, word))
	}
	return unknown
}

// value returns a string, a bool, nil for null, or a list of strings.
func (f facts) value(n actionlint.ExprNode) (any, bool) {
	switch n := n.(type) {
	case *actionlint.StringNode:
		return n.Value, true
	case *actionlint.BoolNode:
		return n.Value, true
	case *actionlint.NullNode:
		return nil, true
	case *actionlint.FuncCallNode:
		if strings.EqualFold(n.Callee, "fromjson") && len(n.Args) == 1 {
			if src, ok := f.value(n.Args[0]); ok && isString(src) {
				var list []string
				if json.Unmarshal([]byte(src.(string)), &list) == nil {
					return list, true
				}
			}
		}
		return nil, false
	}
	v, ok := f[contextPath(n)]
	return v, ok
}

// contextPath returns a.b.c for an access of that form, also by a['b'].c and
// a.*.c; "" for anything else.
func contextPath(n actionlint.ExprNode) string {
	below := func(of actionlint.ExprNode, name string) string {
		if p := contextPath(of); p != "" {
			return p + "." + name
		}
		return ""
	}
	switch n := n.(type) {
	case *actionlint.VariableNode:
		return n.Name
	case *actionlint.ObjectDerefNode:
		return below(n.Receiver, n.Property)
	case *actionlint.ArrayDerefNode:
		return below(n.Receiver, "*")
	case *actionlint.IndexAccessNode:
		if s, ok := n.Index.(*actionlint.StringNode); ok {
			return below(n.Operand, s.Value)
		}
		return below(n.Operand, "*")
	}
	return ""
}

// paths returns every context that an expression reads, the longest access of
// each.
func paths(n actionlint.ExprNode) []string {
	var all []string
	if n == nil {
		return nil
	}
	actionlint.VisitExprNode(n, func(n, parent actionlint.ExprNode, entering bool) {
		if !entering {
			return
		}
		switch p := parent.(type) {
		case *actionlint.ObjectDerefNode, *actionlint.ArrayDerefNode:
			return
		case *actionlint.IndexAccessNode:
			if p.Operand == n {
				return
			}
		}
		if p := contextPath(n); p != "" {
			all = append(all, p)
		}
	})
	return all
}

// reads returns every context that the expressions of a text read.
func reads(s string) []string {
	var all []string
	for _, e := range expressions(s) {
		all = append(all, paths(e.node)...)
	}
	return all
}

// strangersText adds to what actionlint knows that anybody can write.
var strangersText = []string{
	"github.event.pull_request.head.repo.description",
	"github.event.pull_request.head.repo.homepage",
	"github.event.changes.title.from",
	"github.event.changes.body.from",
	"github.event.commits.*.committer.name",
	"github.event.commits.*.committer.email",
	"github.event.head_commit.committer.name",
	"github.event.head_commit.committer.email",
	"github.event.check_suite.head_branch",
	"github.event.check_run.check_suite.head_branch",
	"github.event.workflow_run.display_title",
	"github.event.workflow_run.head_branch",
	"github.event.workflow_run.head_commit.message",
	"github.event.workflow_run.head_commit.author.name",
	"github.event.workflow_run.head_commit.author.email",
	"github.event.workflow_run.head_repository.description",
	"github.event.workflow_run.pull_requests.*.head.ref",
}

// untrusted is the tree of contexts that strangers fill, with these variables
// of env as well.
func untrusted(env map[string]bool) actionlint.UntrustedInputSearchRoots {
	roots := actionlint.UntrustedInputSearchRoots{}
	var leaves func(n *actionlint.UntrustedInputMap)
	insert := func(path string) {
		parts := strings.Split(path, ".")
		n := roots[parts[0]]
		if n == nil {
			n = actionlint.NewUntrustedInputMap(parts[0])
			roots.AddRoot(n)
		}
		for _, p := range parts[1:] {
			c := n.Children[p]
			if c == nil {
				c = actionlint.NewUntrustedInputMap(p)
				c.Parent = n
				if n.Children == nil {
					n.Children = map[string]*actionlint.UntrustedInputMap{}
				}
				n.Children[p] = c
			}
			n = c
		}
	}
	leaves = func(n *actionlint.UntrustedInputMap) {
		if len(n.Children) == 0 {
			insert(n.String())
		}
		for _, c := range n.Children {
			leaves(c)
		}
	}
	for _, r := range actionlint.BuiltinUntrustedInputs {
		leaves(r)
	}
	for _, p := range strangersText {
		insert(p)
	}
	for name := range env {
		insert("env." + strings.ToLower(name))
	}
	return roots
}

// tainted tells whether the value of an expression holds what strangers wrote:
// a field of it, or a whole object of such fields as JSON.
func tainted(n actionlint.ExprNode, roots actionlint.UntrustedInputSearchRoots) bool {
	c := actionlint.NewUntrustedInputChecker(roots)
	whole := false
	actionlint.VisitExprNode(n, func(n, _ actionlint.ExprNode, entering bool) {
		if !entering {
			c.OnVisitNodeLeave(n)
			return
		}
		c.OnVisitNodeEnter(n)
		if call, ok := n.(*actionlint.FuncCallNode); ok && strings.EqualFold(call.Callee, "tojson") && len(call.Args) == 1 {
			whole = whole || holdsBelow(roots, contextPath(call.Args[0]))
		}
	})
	c.OnVisitEnd()
	return whole || len(c.Errs()) > 0
}

// holdsBelow tells whether something below this path is untrusted.
func holdsBelow(roots actionlint.UntrustedInputSearchRoots, path string) bool {
	parts := strings.Split(path, ".")
	n := roots[parts[0]]
	for _, p := range parts[1:] {
		if n == nil {
			return false
		}
		n = n.Children[p]
	}
	return n != nil
}

// taintedEnv returns the variables, of those that are set here or were already,
// whose value strangers wrote.
func taintedEnv(outer map[string]bool, env *actionlint.Env) map[string]bool {
	all := map[string]bool{}
	for k := range outer {
		all[k] = true
	}
	if env == nil {
		return all
	}
	roots := untrusted(outer)
	for _, v := range env.Vars {
		if v.Name == nil || v.Value == nil {
			continue
		}
		bad := false
		for _, e := range expressions(v.Value.Value) {
			bad = bad || e.node == nil || tainted(e.node, roots)
		}
		if bad {
			all[v.Name.Value] = true
		} else {
			delete(all, v.Name.Value)
		}
	}
	return all
}
