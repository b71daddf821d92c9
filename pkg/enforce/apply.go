package enforce

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// The rulesets that this package owns.
const (
	historyName = "remembrancer: history"
	gateName    = "remembrancer: gate"
)

// The values of Options.Enforcement.
const (
	Active   = "active"
	Evaluate = "evaluate" // watches and reports; of the enterprise plan only
	Disabled = "disabled"
)

// Options say how Apply and Remove go about it.
type Options struct {
	// Enforcement of the rulesets; "" is Active.
	Enforcement string
	// Classic patches classic protection in place of making rulesets.
	Classic bool
	// DryRun writes nothing.
	DryRun bool
	// Force lets Remove delete rulesets that somebody changed.
	Force bool
	// Ask is called before the first write, with what would be written; it is not
	// called when there is nothing to write. An error of it ends the call. Nil
	// goes on.
	Ask func([]Change) error
}

// What is done to a ruleset, or to classic protection.
const (
	Create = "create"
	Update = "update"
	Delete = "delete"
	None   = "none" // it is as it should be
)

// Change is what is done to one thing.
type Change struct {
	What   string `json:"what"`
	Action string `json:"action"`
	// Diff is the JSON before and after, as a unified diff; "" for None.
	Diff string `json:"diff,omitempty"`
	// Kept is what somebody added and what stays; Undone what is taken back.
	Kept   []string `json:"kept,omitempty"`
	Undone []string `json:"undone,omitempty"`

	id    int64
	body  object
	blind bool
}

// Result is what was done, or with DryRun would be.
type Result struct {
	Repository string   `json:"repository"`
	Changes    []Change `json:"changes"`
	// Written says that anything was written.
	Written bool `json:"written"`
	// After is what the forge demands after an Apply that wrote or found its
	// rules active; nil otherwise.
	After *Report `json:"after,omitempty"`
}

// object is a JSON object whose members stay as they were read.
type object = map[string]json.RawMessage

// readOnly are members of a ruleset that the forge adds to what it was sent.
var readOnly = []string{"id", "source", "source_type", "node_id", "_links", "created_at", "updated_at", "current_user_can_bypass"}

// summary is a ruleset in the list of all.
type summary struct {
	ID          int64  `json:"id"`
	Name        string `json:"name"`
	Enforcement string `json:"enforcement"`
	SourceType  string `json:"source_type"`
}

// own lists the rulesets that this package owns.
func (r *reader) own(ctx context.Context) ([]summary, error) {
	list, err := r.api.GetPages(ctx, r.want.path("rulesets")+"?includes_parents=false", "", maxRulesets)
	if err != nil {
		return nil, err
	}
	var own []summary
	for _, raw := range list {
		var s summary
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, fmt.Errorf("rulesets: %w", err)
		}
		if (s.Name == historyName || s.Name == gateName) && s.SourceType != "Organization" && s.SourceType != "Enterprise" {
			own = append(own, s)
		}
	}
	return own, nil
}

// existing reads the ruleset of this name whole; nil when there is none.
func (r *reader) existing(ctx context.Context, own []summary, name string) (object, int64, error) {
	var found []summary
	for _, s := range own {
		if s.Name == name {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return nil, 0, nil
	case 1:
	default:
		return nil, 0, fmt.Errorf("there are %d rulesets named %q: delete or rename all but one in the repository's settings", len(found), name)
	}
	a, err := r.api.Get(ctx, r.want.path("rulesets", fmt.Sprint(found[0].ID))+"?includes_parents=false")
	if err != nil {
		return nil, 0, err
	}
	var o object
	if err := json.Unmarshal(a.Body, &o); err != nil {
		return nil, 0, fmt.Errorf("ruleset %q: %w", name, err)
	}
	if target := textOf(o["target"]); target != "branch" && target != "" {
		return nil, 0, fmt.Errorf("ruleset %q is one for a %s, want one for branches: rename it in the repository's settings", name, target)
	}
	for _, member := range readOnly {
		delete(o, member)
	}
	return o, found[0].ID, nil
}

func textOf(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // made of strings, numbers and raw JSON that was read
	}
	return b
}

// merger makes a ruleset of this package, out of one that is there or of none.
// It never loosens: what is stricter than wanted stays.
type merger struct {
	want        Want
	enforcement string
	branches    []string // patterns of refs
	kept        []string
	undone      []string
	blind       bool // who may pass the ruleset that is there was not shown
}

func (m *merger) keep(format string, args ...any) {
	m.kept = append(m.kept, fmt.Sprintf(format, args...))
}

func (m *merger) undo(format string, args ...any) {
	m.undone = append(m.undone, fmt.Sprintf(format, args...))
}

func (r *reader) refOf(name string) string {
	if name == r.defaultBranch {
		return "~DEFAULT_BRANCH"
	}
	return "refs/heads/" + name
}

// ruleset merges a ruleset of this package with the one that is there, nil for
// none.
func (r *reader) ruleset(name, enforcement string, there object) (object, *merger, error) {
	m := &merger{want: r.want, enforcement: enforcement, branches: []string{r.refOf(r.want.Branch)}}
	var bypass []actor
	rules := []string{"pull_request", "required_status_checks"}
	switch name {
	case historyName:
		rules = []string{"deletion", "non_fast_forward"}
		for _, b := range r.want.Keep {
			if ref := r.refOf(b); !slices.Contains(m.branches, ref) {
				m.branches = append(m.branches, ref)
			}
		}
	case gateName:
		if r.want.Reviews == 0 {
			rules = rules[1:]
		}
		if app := r.want.PublisherApp; app != 0 {
			bypass = []actor{{ID: &app, Type: "Integration", Mode: "always"}}
		}
	}
	o := object{"name": raw(name), "target": raw("branch"), "enforcement": raw(enforcement)}
	for member, value := range there {
		switch member {
		case "name", "target", "enforcement", "bypass_actors", "conditions", "rules":
		default:
			o[member] = value
			m.keep("member %s", member)
		}
	}
	var err1, err2, err3 error
	// The forge shows this list to those who may change the ruleset.
	_, seen := there["bypass_actors"]
	m.blind = there != nil && !seen
	o["bypass_actors"], err1 = m.bypass(there["bypass_actors"], bypass)
	o["conditions"], err2 = m.conditions(there["conditions"])
	o["rules"], err3 = m.rules(there["rules"], rules)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, nil, fmt.Errorf("ruleset %q: %w", name, err)
	}
	return o, m, nil
}

// bypass is the list of those who may pass. Anybody else on it loosens the rules.
func (m *merger) bypass(there json.RawMessage, want []actor) (json.RawMessage, error) {
	var list []json.RawMessage
	if there != nil {
		if err := json.Unmarshal(there, &list); err != nil {
			return nil, fmt.Errorf("bypass_actors: %w", err)
		}
	}
	out := []json.RawMessage{}
	for _, item := range list {
		var a actor
		if err := json.Unmarshal(item, &a); err != nil {
			return nil, fmt.Errorf("bypass_actors: %w", err)
		}
		wanted := func(w actor) bool { return a.isApp(*w.ID) && (a.Mode == "" || a.Mode == w.Mode) }
		if i := slices.IndexFunc(want, wanted); i >= 0 {
			out, want = append(out, item), slices.Delete(slices.Clone(want), i, i+1)
			continue
		}
		m.undo("bypass of %s", a)
	}
	for _, w := range want {
		out = append(out, raw(w))
	}
	return raw(out), nil
}

func (m *merger) conditions(there json.RawMessage) (json.RawMessage, error) {
	conditions, refs := object{}, object{}
	var include, exclude []string
	if len(there) > 0 && string(there) != "null" {
		if err := json.Unmarshal(there, &conditions); err != nil {
			return nil, fmt.Errorf("conditions: %w", err)
		}
		if r, ok := conditions["ref_name"]; ok {
			if err := json.Unmarshal(r, &refs); err != nil {
				return nil, fmt.Errorf("conditions.ref_name: %w", err)
			}
		}
		for member, list := range map[string]*[]string{"include": &include, "exclude": &exclude} {
			if v, ok := refs[member]; ok {
				if err := json.Unmarshal(v, list); err != nil {
					return nil, fmt.Errorf("conditions.ref_name.%s: %w", member, err)
				}
			}
		}
	}
	for member := range conditions {
		if member != "ref_name" {
			m.keep("condition %s", member)
		}
	}
	for _, b := range include {
		if !slices.Contains(m.branches, b) {
			m.keep("branch %s", b)
		}
	}
	for _, b := range m.branches {
		if !slices.Contains(include, b) {
			include = append(include, b)
		}
	}
	for _, b := range exclude {
		m.undo("exclusion of branch %s", b)
	}
	refs["include"], refs["exclude"] = raw(include), raw([]string{})
	conditions["ref_name"] = raw(refs)
	return raw(conditions), nil
}

// rules merges rule by rule. A rule of another type stays, byte for byte.
func (m *merger) rules(there json.RawMessage, want []string) (json.RawMessage, error) {
	var list []json.RawMessage
	if there != nil {
		if err := json.Unmarshal(there, &list); err != nil {
			return nil, fmt.Errorf("rules: %w", err)
		}
	}
	out := []json.RawMessage{}
	done := map[string]bool{}
	for _, item := range list {
		var rule object
		if err := json.Unmarshal(item, &rule); err != nil {
			return nil, fmt.Errorf("rules: %w", err)
		}
		kind := textOf(rule["type"])
		if !slices.Contains(want, kind) || done[kind] {
			m.keep("rule %s", kind)
			out = append(out, item)
			continue
		}
		done[kind] = true
		merged, err := m.rule(kind, rule)
		if err != nil {
			return nil, err
		}
		out = append(out, merged)
	}
	for _, kind := range want {
		if !done[kind] {
			merged, err := m.rule(kind, object{"type": raw(kind)})
			if err != nil {
				return nil, err
			}
			out = append(out, merged)
		}
	}
	return raw(out), nil
}

// parameter is one that this package sets: a switch, or the least number.
type parameter struct {
	name string
	on   bool
	most int
}

func (m *merger) rule(kind string, rule object) (json.RawMessage, error) {
	var set []parameter
	switch kind {
	case "pull_request":
		set = []parameter{
			{name: "dismiss_stale_reviews_on_push", on: true},
			{name: "require_code_owner_review", on: true},
			{name: "require_last_push_approval", on: true},
			{name: "required_review_thread_resolution"},
			{name: "required_approving_review_count", most: m.want.Reviews},
		}
	case "required_status_checks":
		set = []parameter{{name: "strict_required_status_checks_policy"}}
	default: // deletion and non_fast_forward have no parameters
		return raw(rule), nil
	}
	p := object{}
	if v, ok := rule["parameters"]; ok {
		if err := json.Unmarshal(v, &p); err != nil {
			return nil, fmt.Errorf("rule %s: %w", kind, err)
		}
	}
	var foreign []string
	for name, value := range p {
		known := name == "required_status_checks" && kind == name || slices.ContainsFunc(set, func(s parameter) bool { return s.name == name })
		if !known && !standard(name, value) {
			foreign = append(foreign, name)
		}
	}
	slices.Sort(foreign)
	for _, name := range foreign {
		m.keep("%s of rule %s", name, kind)
	}
	for _, s := range set {
		if err := m.set(kind, p, s); err != nil {
			return nil, err
		}
	}
	if kind == "required_status_checks" {
		list, err := m.checks(p[kind])
		if err != nil {
			return nil, err
		}
		p[kind] = list
	}
	rule["parameters"] = raw(p)
	return raw(rule), nil
}

// standard tells values that the forge fills in by itself.
func standard(name string, value json.RawMessage) bool {
	switch canonical(value) {
	case "false", "null", "[]", "{}", "0", `""`:
		return true
	case `["merge","squash","rebase"]`:
		return name == "allowed_merge_methods"
	}
	return false
}

// set puts a parameter to what is wanted, unless what is there is stricter.
func (m *merger) set(kind string, p object, s parameter) error {
	there, ok := p[s.name]
	if s.name == "required_approving_review_count" {
		n := 0
		if ok {
			if err := json.Unmarshal(there, &n); err != nil {
				return fmt.Errorf("rule %s: %s: %w", kind, s.name, err)
			}
		}
		switch {
		case n > s.most:
			m.keep("%s %d", s.name, n)
		case n < s.most || !ok:
			p[s.name] = raw(s.most)
		}
		return nil
	}
	on := false
	if ok {
		if err := json.Unmarshal(there, &on); err != nil {
			return fmt.Errorf("rule %s: %s: %w", kind, s.name, err)
		}
	}
	switch {
	case on && !s.on:
		m.keep("%s", s.name)
	case on != s.on || !ok:
		p[s.name] = raw(s.on)
	}
	return nil
}

// checks puts the wanted checks into the list of those required.
func (m *merger) checks(there json.RawMessage) (json.RawMessage, error) {
	var list []object
	if there != nil {
		if err := json.Unmarshal(there, &list); err != nil {
			return nil, fmt.Errorf("required_status_checks: %w", err)
		}
	}
	if list == nil {
		list = []object{}
	}
	pin := func(o object) (int64, error) {
		var id *int64
		if v, ok := o["integration_id"]; ok {
			if err := json.Unmarshal(v, &id); err != nil {
				return 0, fmt.Errorf("required_status_checks: %w", err)
			}
		}
		return appOf(id), nil
	}
	for _, name := range m.want.Checks {
		at := -1
		for i, o := range list {
			if textOf(o["context"]) != name {
				continue
			}
			app, err := pin(o)
			if err != nil {
				return nil, err
			}
			if at < 0 || app == m.want.App {
				at = i
			}
		}
		if at < 0 {
			list, at = append(list, object{"context": raw(name)}), len(list)
		} else if app, err := pin(list[at]); err != nil {
			return nil, err
		} else if m.want.App != 0 && app != m.want.App {
			m.undo("check %s from %s", name, source(app))
		}
		// A pin that is there is stricter than none.
		if app, err := pin(list[at]); err != nil {
			return nil, err
		} else if m.want.App != 0 && app != m.want.App {
			list[at]["integration_id"] = raw(m.want.App)
		}
	}
	for _, o := range list {
		if name := textOf(o["context"]); !slices.Contains(m.want.Checks, name) {
			m.keep("required check %s", name)
		}
	}
	return raw(list), nil
}

func source(app int64) string {
	if app == 0 {
		return "any source"
	}
	return fmt.Sprintf("App %d", app)
}

// canonical is JSON in one form, to compare: members in order, numbers as they
// were written.
func canonical(v json.RawMessage) string {
	d := json.NewDecoder(bytes.NewReader(v))
	d.UseNumber()
	var value any
	if d.Decode(&value) != nil {
		return string(v)
	}
	return string(raw(value))
}

func pretty(o object) []byte {
	if o == nil {
		return nil
	}
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(canonical(raw(o))), "", "  "); err != nil {
		panic(err)
	}
	return append(b.Bytes(), '\n')
}

func diffOf(what string, before, after object) string {
	return string(diff.Diff(what+" as it is", pretty(before), what+" as it is wanted", pretty(after)))
}

// changes says what is to be done to the two rulesets.
func (r *reader) changes(ctx context.Context, enforcement string) ([]Change, error) {
	own, err := r.own(ctx)
	if err != nil {
		return nil, err
	}
	var changes []Change
	// History goes first: a gate on a branch that can be rewritten holds nothing.
	for _, name := range []string{historyName, gateName} {
		there, id, err := r.existing(ctx, own, name)
		if err != nil {
			return nil, err
		}
		body, m, err := r.ruleset(name, enforcement, there)
		if err != nil {
			return nil, err
		}
		c := Change{What: fmt.Sprintf("ruleset %q", name), Action: Update, Kept: m.kept, Undone: m.undone, id: id, body: body, blind: m.blind}
		switch {
		case there == nil:
			c.Action = Create
		case canonical(raw(there)) == canonical(raw(body)):
			c.Action = None
		}
		if c.Action != None {
			c.Diff = diffOf(c.What, there, body)
		}
		changes = append(changes, c)
	}
	return changes, nil
}

func pending(changes []Change) bool {
	return slices.ContainsFunc(changes, func(c Change) bool { return c.Action != None })
}

// Apply makes the forge demand what is wanted, and verifies that it does.
func Apply(ctx context.Context, api *forge.REST, want Want, opts Options) (*Result, error) {
	r, err := newReader(ctx, api, want)
	if err != nil {
		return nil, err
	}
	if opts.Enforcement == "" {
		opts.Enforcement = Active
	}
	if opts.Classic {
		return r.applyClassic(ctx, opts)
	}
	changes, err := r.changes(ctx, opts.Enforcement)
	if err != nil {
		return nil, needed(err)
	}
	result := &Result{Repository: want.Owner + "/" + want.Name, Changes: changes}
	if opts.DryRun {
		return result, nil
	}
	for _, c := range changes {
		if c.blind {
			return nil, mayNotChange(c.What)
		}
	}
	if pending(changes) && opts.Ask != nil {
		if err := opts.Ask(changes); err != nil {
			return nil, err
		}
	}
	for _, c := range changes {
		switch c.Action {
		case Create:
			err = r.create(ctx, c)
		case Update:
			_, err = r.api.Send(ctx, http.MethodPut, r.want.path("rulesets", fmt.Sprint(c.id)), c.body)
		default:
			continue
		}
		if err != nil {
			return nil, needed(fmt.Errorf("%s: %w", c.What, err))
		}
		result.Written = true
	}
	if result.Written {
		// What the forge made of it must be what was sent: it may leave out what
		// the plan of the owner does not have.
		left, err := r.changes(ctx, opts.Enforcement)
		if err != nil {
			return nil, err
		}
		for _, c := range left {
			if c.Action != None {
				return nil, fmt.Errorf("%s did not become what was sent:\n%s", c.What, c.Diff)
			}
		}
	}
	if opts.Enforcement != Active {
		return result, nil
	}
	result.After, err = r.verify(ctx)
	return result, err
}

// create makes a ruleset. When the answer was lost, what is there decides: the
// names of rulesets are unique.
func (r *reader) create(ctx context.Context, c Change) error {
	_, err := r.api.Send(ctx, http.MethodPost, r.want.path("rulesets"), c.body)
	if !errors.Is(err, gitrepo.ErrUnconfirmed) {
		return err
	}
	own, listErr := r.own(ctx)
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	if slices.ContainsFunc(own, func(s summary) bool { return s.Name == textOf(c.body["name"]) }) {
		return nil
	}
	return err
}

// verify reads the rules in effect until they hold what was written. The forge
// may need a moment; it does not need five.
func (r *reader) verify(ctx context.Context) (*Report, error) {
	for attempt := 1; ; attempt++ {
		r.rulesets = map[int64]*bypass{}
		report, err := r.plan(ctx)
		if err != nil {
			return nil, err
		}
		left := r.wanting(report)
		if left == nil {
			return report, nil
		}
		if attempt == 5 {
			return report, fmt.Errorf("the forge accepted the rules, but they do not take effect: %s", strings.Join(left, "; "))
		}
		if err := r.api.Pause(ctx, time.Duration(attempt)*time.Second); err != nil {
			return nil, err
		}
	}
}

// wanting lists what apply should have brought about and did not.
func (r *reader) wanting(report *Report) []string {
	var left []string
	for _, q := range report.Required {
		if asWanted := q.State == Pinned || r.want.App == 0 && q.State == Spoofable; !asWanted {
			left = append(left, fmt.Sprintf("check %s is %s", q.Name, q.State))
		}
	}
	for _, c := range report.Checks {
		if (strings.HasPrefix(c.ID, "enforce/history/") || c.ID == "enforce/review") && c.Status != judge.Pass && c.Status != judge.Unclaimed {
			left = append(left, fmt.Sprintf("%s: %s", c.ID, c.Status))
		}
	}
	return left
}

// needed adds to a refusal which token would do.
func needed(err error) error {
	if !forge.IsForbidden(err) && !forge.IsNotFound(err) {
		return err
	}
	return fmt.Errorf("%w\n%s", err, whichToken)
}

const whichToken = "Writing rules needs the repository permission administration:write. The job's own GITHUB_TOKEN cannot have it: " +
	"make a fine-grained personal access token, or a GitHub App, with \"Administration: read and write\" on this repository, and give its token as REMEMBRANCER_TOKEN"

func mayNotChange(what string) error {
	return fmt.Errorf("%s: the forge does not show this token who may pass it, so the token may not change it\n%s", what, whichToken)
}

// Remove takes back what Apply made.
func Remove(ctx context.Context, api *forge.REST, want Want, opts Options) (*Result, error) {
	r, err := newReader(ctx, api, want)
	if err != nil {
		return nil, err
	}
	if opts.Classic {
		return r.removeClassic(ctx, opts)
	}
	own, err := r.own(ctx)
	if err != nil {
		return nil, needed(err)
	}
	result := &Result{Repository: want.Owner + "/" + want.Name, Changes: []Change{}}
	var changed []string
	// The gate goes first: history is the last thing to give up.
	for _, name := range []string{gateName, historyName} {
		there, id, err := r.existing(ctx, own, name)
		if err != nil {
			return nil, err
		}
		c := Change{What: fmt.Sprintf("ruleset %q", name), Action: None, id: id}
		if there != nil {
			enforcement := textOf(there["enforcement"])
			fresh, _, err := r.ruleset(name, enforcement, nil)
			if err != nil {
				return nil, err
			}
			body, m, err := r.ruleset(name, enforcement, there)
			if err != nil {
				return nil, err
			}
			if m.blind && !opts.DryRun {
				return nil, mayNotChange(c.What)
			}
			c.Action, c.Diff = Delete, diffOf(c.What, there, nil)
			if len(m.kept)+len(m.undone) > 0 || canonical(raw(there)) != canonical(raw(body)) {
				changed = append(changed, string(diff.Diff(c.What+" as apply makes it", pretty(fresh), c.What+" as it is", pretty(there))))
			}
		}
		result.Changes = append(result.Changes, c)
	}
	if len(changed) > 0 && !opts.Force {
		return nil, &ChangedError{strings.Join(changed, "")}
	}
	if opts.DryRun || !pending(result.Changes) {
		return result, nil
	}
	if opts.Ask != nil {
		if err := opts.Ask(result.Changes); err != nil {
			return nil, err
		}
	}
	for _, c := range result.Changes {
		if c.Action != Delete {
			continue
		}
		_, err := r.api.Send(ctx, http.MethodDelete, r.want.path("rulesets", fmt.Sprint(c.id)), nil)
		if err != nil && !forge.IsNotFound(err) { // gone already, or not to be seen: the list below decides
			return nil, needed(fmt.Errorf("%s: %w", c.What, err))
		}
		result.Written = true
	}
	if own, err = r.own(ctx); err != nil {
		return nil, err
	}
	if len(own) > 0 {
		return nil, fmt.Errorf("ruleset %q is still there\n%s", own[0].Name, whichToken)
	}
	return result, nil
}

// ChangedError says that a ruleset is not as Apply makes it, so that deleting it
// would take away somebody else's work.
type ChangedError struct {
	Diff string // from what Apply makes to what is there, as a unified diff
}

func (e *ChangedError) Error() string {
	return "somebody changed what apply made, or the configuration changed since: nothing was removed; --force deletes it nevertheless\n" + e.Diff
}
