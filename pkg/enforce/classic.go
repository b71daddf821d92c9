package enforce

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/vaultmesh/remembrancer/pkg/forge"
)

// classicCheck is an entry of the list of classic protection, as it is sent. The
// App is always sent: without it, the forge would pin the check to whoever posted
// it last; -1 is any source, which it shows as null.
type classicCheck struct {
	Context string `json:"context"`
	App     int64  `json:"app_id"`
}

func sent(app int64) int64 {
	if app == 0 {
		return -1
	}
	return app
}

func (r *reader) classicPath() string {
	return r.want.path("branches", r.want.Branch, "protection", "required_status_checks")
}

// classicList reads the checks that classic protection requires. The second
// result says in the forge's words why there is no list, "" when there is one.
func (r *reader) classicList(ctx context.Context) ([]classicCheck, string, error) {
	a, err := r.api.Get(ctx, r.classicPath())
	if forge.IsNotFound(err) && slices.Contains([]string{notProtected, notEnabled, "Branch not found"}, message(err)) {
		return nil, message(err), nil
	}
	if err != nil {
		return nil, "", needed(err)
	}
	var shown struct {
		Contexts []string
		Checks   []statusCheck
	}
	if err := json.Unmarshal(a.Body, &shown); err != nil {
		return nil, "", fmt.Errorf("%s: %w", r.classicPath(), err)
	}
	list := []classicCheck{}
	for _, c := range shown.Checks {
		list = append(list, classicCheck{c.Context, sent(appOf(c.App))})
	}
	for _, name := range shown.Contexts {
		if !slices.ContainsFunc(list, func(c classicCheck) bool { return c.Context == name }) {
			list = append(list, classicCheck{name, -1})
		}
	}
	return list, "", nil
}

func (r *reader) classicChange(before, after []classicCheck) Change {
	c := Change{What: "classic protection of " + r.want.Branch, Action: None}
	if !slices.Equal(before, after) {
		c.Action, c.body = Update, object{"checks": raw(after)}
		c.Diff = diffOf(c.What, object{"checks": raw(before)}, c.body)
	}
	return c
}

// applyClassic puts the wanted checks into the list of classic protection.
func (r *reader) applyClassic(ctx context.Context, opts Options) (*Result, error) {
	if opts.Enforcement != Active {
		return nil, fmt.Errorf("classic protection knows no enforcement %s: it is there or it is not", opts.Enforcement)
	}
	before, none, err := r.classicList(ctx)
	if err != nil {
		return nil, err
	}
	switch none {
	case "":
	case notEnabled:
		return nil, fmt.Errorf("classic protection of branch %s requires no checks yet (%q), and switching that on would mean to send all of the protection anew: "+
			"switch on \"Require status checks to pass before merging\" in the branch's settings first, or apply without --classic, which makes rulesets", r.want.Branch, none)
	default:
		return nil, fmt.Errorf("branch %s has no classic protection (%q): apply without --classic, which makes rulesets, or protect the branch in the repository's settings first", r.want.Branch, none)
	}
	after := slices.Clone(before)
	var undone []string
	for _, name := range r.want.Checks {
		at := -1
		for i, c := range after {
			if c.Context == name && (at < 0 || c.App == sent(r.want.App)) {
				at = i
			}
		}
		switch {
		case at < 0:
			after = append(after, classicCheck{name, sent(r.want.App)})
		case r.want.App != 0 && after[at].App != r.want.App:
			undone = append(undone, fmt.Sprintf("check %s from %s", name, source(max(after[at].App, 0))))
			after[at].App = r.want.App
		}
	}
	c := r.classicChange(before, after)
	c.Undone = undone
	for _, have := range before {
		if !slices.Contains(r.want.Checks, have.Context) {
			c.Kept = append(c.Kept, "required check "+have.Context)
		}
	}
	return r.patch(ctx, c, after, opts)
}

// removeClassic takes the wanted checks, as Apply pins them, out of the list.
func (r *reader) removeClassic(ctx context.Context, opts Options) (*Result, error) {
	before, none, err := r.classicList(ctx)
	if err != nil {
		return nil, err
	}
	if none != "" {
		return &Result{Repository: r.want.Owner + "/" + r.want.Name, Changes: []Change{r.classicChange(nil, nil)}}, nil
	}
	after := slices.DeleteFunc(slices.Clone(before), func(c classicCheck) bool {
		return slices.Contains(r.want.Checks, c.Context) && c.App == sent(r.want.App)
	})
	return r.patch(ctx, r.classicChange(before, after), after, opts)
}

// patch sends the list, and nothing else of the protection, and reads it again.
func (r *reader) patch(ctx context.Context, c Change, after []classicCheck, opts Options) (*Result, error) {
	result := &Result{Repository: r.want.Owner + "/" + r.want.Name, Changes: []Change{c}}
	if opts.DryRun || c.Action == None {
		return result, nil
	}
	if opts.Ask != nil {
		if err := opts.Ask(result.Changes); err != nil {
			return nil, err
		}
	}
	if _, err := r.api.Send(ctx, http.MethodPatch, r.classicPath(), c.body); err != nil {
		return nil, needed(fmt.Errorf("%s: %w", c.What, err))
	}
	result.Written = true
	now, none, err := r.classicList(ctx)
	if err != nil {
		return nil, err
	}
	if none != "" || !sameChecks(now, after) {
		return nil, fmt.Errorf("%s did not become what was sent:\n%s", c.What, diffOf(c.What, object{"checks": raw(now)}, object{"checks": raw(after)}))
	}
	return result, nil
}

// sameChecks compares lists in whatever order the forge keeps them.
func sameChecks(a, b []classicCheck) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(c classicCheck) bool { return !slices.Contains(b, c) })
}
