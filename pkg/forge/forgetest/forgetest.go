// Package forgetest is a forge for tests: GitHub's REST API over HTTP, with
// state.
//
// What a client writes is there when it reads again: rulesets change the rules
// of branches, a patch of classic protection changes that protection, and both
// refuse what the forge refuses. Each request and each answer is held to
// GitHub's own OpenAPI description of the API; a violation fails the test, and
// so does a request to a path that nothing serves. The few paths that the
// description lacks are registered by [Fake.HandleUndescribed], by name, so that
// nothing goes unchecked in silence.
//
// A token has permissions ("administration": "write"). One that lacks what a
// route needs is refused as the forge refuses: the token of an App is told 403
// and which permission would do, that of a person 404, as if there were nothing.
//
//	f := forgetest.New(t)
//	repo := f.AddRepo("acme/app")
//	f.AddToken("ghs_x", forgetest.App, "administration:write")
//	api, err := forge.NewREST(f.URL, "ghs_x", forge.RESTOptions{})
//
// Faults are injected by [Fake.Fail]; [Fake.Calls] says what was asked.
package forgetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/getkin/kin-openapi/openapi3filter"
)

// T is what a fake needs of a test.
type T interface {
	Errorf(format string, args ...any)
	Cleanup(func())
}

// Fake is the forge. Its state may be changed between requests.
type Fake struct {
	// URL is that of the API, as GitHub Enterprise has it (…/api/v3).
	URL string
	// Root is the same API, as github.com has it: without a path.
	Root string

	t      T
	mu     sync.Mutex
	repos  map[string]*Repo
	tokens map[string]*Token
	routes []route
	newer  []string
	faults []Fault
	calls  []string
	lastID int64
}

// Repo is a repository. Documents are as the API shows them.
type Repo struct {
	Owner, Name   string
	ID            int64
	Private       bool
	Organization  bool // the owner is one
	DefaultBranch string
	Branches      map[string]*Branch
	// Rulesets are this repository's own, ParentRulesets those of its owner.
	Rulesets, ParentRulesets []json.RawMessage
	Commits                  map[string]*Commit // by full id
	CheckRuns                []CheckRun
	Statuses                 []Status
	// CodeownersErrors are what the forge finds wrong with CODEOWNERS.
	CodeownersErrors []map[string]any
	// Documents are served as they are: by path below the repository
	// ("pulls/7"), lists in pages.
	Documents map[string]any
}

// Branch is a branch. Classic is its classic protection, nil when it has none.
type Branch struct {
	Head    string
	Classic map[string]any
}

// Commit is a commit with all its files. A file in Modes is no regular one.
type Commit struct {
	ID, Message string
	Parents     []string
	Files       map[string]string
	Modes       map[string]string // "120000", "160000", "100755"
	At          time.Time
}

// CheckRun is a result that an App posted.
type CheckRun struct {
	ID, SuiteID      int64
	Commit, Name     string
	App              int64
	AppSlug          string
	Status           string // "completed" when empty
	Conclusion       string
	DetailsURL       string
	StartedAt, Ended time.Time
}

// Status is a result that anybody who may write can post.
type Status struct {
	ID                     int64
	Commit, Context, State string
	Creator                string
	At                     time.Time
}

// Who a token belongs to.
const (
	App    = "app"    // refused by 403
	Person = "person" // refused by 404
)

// Token is what its holder may do: permissions by name, "read" or "write".
type Token struct {
	Kind        string
	Permissions map[string]string
}

func (t *Token) may(need string) bool {
	name, level, _ := strings.Cut(need, ":")
	has := ""
	if t != nil {
		has = t.Permissions[name]
	}
	return has == "write" || has == level
}

// New starts a forge that ends with the test.
func New(t T) *Fake {
	f := &Fake{t: t, repos: map[string]*Repo{}, tokens: map[string]*Token{}, lastID: 1000}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	f.Root, f.URL = srv.URL, srv.URL+"/api/v3"
	f.basicRoutes()
	return f
}

// AddRepo makes a public repository ("acme/app") with one commit on main.
func (f *Fake) AddRepo(name string) *Repo {
	owner, short, ok := strings.Cut(name, "/")
	if !ok {
		panic("AddRepo: want OWNER/NAME")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &Repo{
		Owner: owner, Name: short, ID: f.nextID(), DefaultBranch: "main",
		Branches: map[string]*Branch{}, Commits: map[string]*Commit{}, Documents: map[string]any{},
	}
	f.repos[name] = r
	r.commit(f, "main", map[string]string{"README.md": "# " + short + "\n"})
	return r
}

func (r *Repo) commit(f *Fake, branch string, files map[string]string) string {
	c := &Commit{ID: fmt.Sprintf("%040x", f.nextID()), Message: "a commit", Files: files, At: time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)}
	if b := r.Branches[branch]; b != nil {
		c.Parents = []string{b.Head}
		b.Head = c.ID
	} else {
		r.Branches[branch] = &Branch{Head: c.ID}
	}
	r.Commits[c.ID] = c
	return c.ID
}

// Commit puts a commit with exactly these files on a branch, which it makes if
// need be, and returns its id.
func (f *Fake) Commit(r *Repo, branch string, files map[string]string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return r.commit(f, branch, files)
}

// At returns the commit that a branch or an id names, or nil.
func (r *Repo) At(ref string) *Commit {
	ref = strings.TrimPrefix(strings.TrimPrefix(ref, "refs/"), "heads/")
	if b := r.Branches[ref]; b != nil {
		ref = b.Head
	}
	return r.Commits[ref]
}

// AddToken makes a token with permissions as "administration:write".
func (f *Fake) AddToken(token, kind string, permissions ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &Token{Kind: kind, Permissions: map[string]string{"metadata": "read"}}
	for _, p := range permissions {
		name, level, ok := strings.Cut(p, ":")
		if !ok {
			panic("AddToken: want permissions as contents:read, found " + p)
		}
		t.Permissions[name] = level
	}
	f.tokens[token] = t
}

// NewerThanTheDescription declares types of rules that the forge has and the
// description does not know yet. All else in the same body is still checked.
func (f *Fake) NewerThanTheDescription(ruleTypes ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.newer = append(f.newer, ruleTypes...)
}

// Fault is one answer that goes wrong.
type Fault struct {
	Status int               // of the answer, with a page of HTML as gateways send
	Header map[string]string // as Retry-After
	JSON   string            // in place of the page
	Drop   bool              // the connection is cut in place of an answer
	// Done carries the request out first: only the answer is lost.
	Done bool
	// Pass lets one request through: the fault that follows is for a later one.
	Pass bool
}

// Fail makes the next answers go wrong, in this order.
func (f *Fake) Fail(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, faults...)
}

// ClearFaults forgets the faults that did not happen yet.
func (f *Fake) ClearFaults() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// Calls returns what was asked since the last call of it, as "GET /repos/…",
// with the query.
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

// Writes picks from calls those that are no reads.
func Writes(calls []string) []string {
	return slices.DeleteFunc(slices.Clone(calls), func(c string) bool { return strings.HasPrefix(c, "GET ") })
}

func (f *Fake) nextID() int64 {
	f.lastID++
	return f.lastID
}

// NextID returns a number that no other object of this forge has.
func (f *Fake) NextID() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nextID()
}

// Call is one request as a route sees it. The forge's state is locked meanwhile.
type Call struct {
	Fake  *Fake
	Repo  *Repo // nil for a route that is of no repository
	Token *Token
	Vars  map[string]string // of the path's pattern
	Query url.Values
	Body  []byte
}

// Reply is the answer of a route. Body is marshalled; nil sends none.
type Reply struct {
	Status int
	Body   any
	Header map[string]string
	// nextPage is the number of the page that follows, 0 for none.
	nextPage int
}

// OK answers 200.
func OK(body any) Reply { return Reply{Status: http.StatusOK, Body: body} }

// Refuse answers as the forge refuses.
func Refuse(status int, message string) Reply {
	return Reply{Status: status, Body: map[string]any{
		"message": message, "documentation_url": "https://docs.github.com/rest", "status": strconv.Itoa(status),
	}}
}

// NotFound is the answer where there is nothing, or nothing to be seen.
func NotFound() Reply { return Refuse(http.StatusNotFound, "Not Found") }

// Page answers one page of a list, as the query asks, with links to the others.
func (c *Call) Page(list []any, wrap func([]any) any) Reply {
	size, page := 30, 1
	if n, err := strconv.Atoi(c.Query.Get("per_page")); err == nil && n > 0 {
		size = min(n, 100)
	}
	if n, err := strconv.Atoi(c.Query.Get("page")); err == nil && n > 0 {
		page = n
	}
	from, to := min((page-1)*size, len(list)), min(page*size, len(list))
	part := list[from:to:to]
	if part == nil {
		part = []any{}
	}
	reply := OK(part)
	if wrap != nil {
		reply.Body = wrap(part)
	}
	if to < len(list) {
		reply.nextPage = page + 1
	}
	return reply
}

type route struct {
	method, pattern, needs string
	described              bool
	serve                  func(*Call) Reply
}

// Handle serves a route of the description, as "GET" and
// "/repos/{owner}/{repo}/pulls". Needs is a permission as "contents:read", ""
// for none; reading a public repository's needs none.
func (f *Fake) Handle(method, pattern, needs string, serve func(*Call) Reply) {
	if operation(method, pattern) == nil {
		panic(fmt.Sprintf("%s %s is not in the description; HandleUndescribed serves it unchecked", method, pattern))
	}
	f.handle(route{method, pattern, needs, true, serve})
}

// HandleUndescribed serves a route that the description lacks: nothing checks
// its requests and answers.
func (f *Fake) HandleUndescribed(method, pattern, needs string, serve func(*Call) Reply) {
	if operation(method, pattern) != nil {
		panic(fmt.Sprintf("%s %s is in the description; Handle serves it", method, pattern))
	}
	f.handle(route{method, pattern, needs, false, serve})
}

// Undescribed lists the routes whose requests and answers nothing checks.
func (f *Fake) Undescribed() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for _, r := range f.routes {
		if !r.described {
			list = append(list, r.method+" "+r.pattern)
		}
	}
	return list
}

func (f *Fake) handle(r route) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// A later route goes before an earlier one, so that a test can replace it.
	f.routes = slices.Insert(f.routes, 0, r)
}

// ServeHTTP answers as the forge would.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	path := r.URL.EscapedPath()
	prefix := f.Root
	if rest, ok := strings.CutPrefix(path, "/api/v3"); ok {
		path, prefix = rest, f.URL
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	called := r.Method + " " + path
	if r.URL.RawQuery != "" {
		called += "?" + r.URL.RawQuery
	}
	f.calls = append(f.calls, called)
	var fault *Fault
	if len(f.faults) > 0 {
		fault, f.faults = &f.faults[0], f.faults[1:]
		switch {
		case fault.Pass:
			fault = nil
		case !fault.Done:
			fault.answer(w)
			return
		}
	}
	status, header, answer := f.answer(r, prefix, path, body)
	if fault != nil {
		fault.answer(w)
		return
	}
	for k, v := range header {
		w.Header()[k] = v
	}
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

func (x *Fault) answer(w http.ResponseWriter) {
	if x.Drop {
		panic(http.ErrAbortHandler)
	}
	text := x.JSON
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if text == "" {
		text = "<html><body>Unicorn!</body></html>"
		w.Header().Set("Content-Type", "text/html")
	}
	for k, v := range x.Header {
		w.Header().Set(k, v)
	}
	w.WriteHeader(x.Status)
	_, _ = io.WriteString(w, text)
}

// answer finds the route of a request, and checks both sides of it.
func (f *Fake) answer(r *http.Request, prefix, path string, body []byte) (int, http.Header, []byte) {
	var chosen *route
	call := &Call{Fake: f, Query: r.URL.Query(), Body: body}
	for i := range f.routes {
		if vars, ok := match(f.routes[i].pattern, path); ok && f.routes[i].method == r.Method {
			chosen, call.Vars = &f.routes[i], vars
			break
		}
	}
	fail := func(format string, args ...any) {
		f.t.Errorf("forge: %s %s: %s", r.Method, path, fmt.Sprintf(format, args...))
	}
	if chosen == nil {
		chosen, call.Vars = f.document(r.Method, path)
	}
	if chosen == nil {
		fail("nothing serves this path")
		return encode(NotFound(), r.URL, "")
	}
	var in *openapi3filter.RequestValidationInput
	if chosen.described {
		route := operation(chosen.method, chosen.pattern)
		input, err := f.checkRequest(r, route, call.Vars, body)
		if err != nil {
			fail("the request is not as described: %v", err)
			return encode(Refuse(http.StatusUnprocessableEntity, "Validation Failed"), r.URL, "")
		}
		in = input
	}
	status, header, answer := encode(f.reply(r, chosen, call), r.URL, prefix+path)
	if in != nil {
		if err := f.checkResponse(in, status, header, answer); err != nil {
			fail("the answer %d is not as described: %v\n%.2000s", status, err, answer)
		}
	}
	return status, header, answer
}

// document is the route of a path that the repository's documents hold.
func (f *Fake) document(method, path string) (*route, map[string]string) {
	pattern, ok := described(method, path)
	if !ok || method != http.MethodGet {
		return nil, nil
	}
	vars, _ := match(pattern, path)
	repo := f.repos[vars["owner"]+"/"+vars["repo"]]
	if repo == nil {
		return nil, nil
	}
	below := strings.SplitN(path, "/", 5) // "", repos, owner, name, rest
	document, ok := repo.Documents[below[len(below)-1]]
	if !ok {
		return nil, nil
	}
	return &route{method, pattern, "contents:read", true, func(c *Call) Reply {
		if list, ok := document.([]any); ok {
			return c.Page(list, nil)
		}
		return OK(document)
	}}, vars
}

// reply is the answer of a route to a token that may ask.
func (f *Fake) reply(r *http.Request, chosen *route, call *Call) Reply {
	if auth := r.Header.Get("Authorization"); auth != "" {
		call.Token = f.tokens[strings.TrimPrefix(auth, "Bearer ")]
		if call.Token == nil {
			return Refuse(http.StatusUnauthorized, "Bad credentials")
		}
	}
	needs, public := chosen.needs, true
	if owner, ok := call.Vars["owner"]; ok {
		call.Repo = f.repos[owner+"/"+call.Vars["repo"]]
		if call.Repo == nil || call.Repo.Private && !call.Token.may("metadata:read") {
			return NotFound()
		}
		public = !call.Repo.Private
	}
	administers := strings.HasPrefix(needs, "administration:")
	reads := strings.HasSuffix(needs, ":read")
	if needs != "" && !call.Token.may(needs) && (!reads || administers || !public) {
		if call.Token != nil && call.Token.Kind == App {
			refusal := Refuse(http.StatusForbidden, "Resource not accessible by integration")
			refusal.Header = map[string]string{"X-Accepted-GitHub-Permissions": strings.ReplaceAll(needs, ":", "=")}
			return refusal
		}
		return NotFound()
	}
	return chosen.serve(call)
}

// encode writes an answer. Links lead to the same request with another page.
func encode(r Reply, u *url.URL, at string) (int, http.Header, []byte) {
	header := http.Header{}
	for k, v := range r.Header {
		header.Set(k, v)
	}
	if r.nextPage > 0 {
		q := u.Query()
		q.Set("page", strconv.Itoa(r.nextPage))
		header.Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, at, q.Encode()))
	}
	if r.Body == nil {
		return r.Status, header, nil
	}
	header.Set("Content-Type", "application/json; charset=utf-8")
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r.Body); err != nil {
		panic(err)
	}
	return r.Status, header, bytes.TrimSpace(b.Bytes())
}
