package forgetest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"time"
)

const repoPath = "/repos/{owner}/{repo}"

// actionsApp is GitHub Actions, which owners of one's own cannot let past rules.
const actionsApp = 15368

// basicRoutes serves repositories, branches, rules, checks and files.
func (f *Fake) basicRoutes() {
	f.Handle("GET", repoPath, "metadata:read", getRepo)
	f.Handle("GET", repoPath+"/branches/{branch}", "contents:read", getBranch)
	f.Handle("GET", repoPath+"/rules/branches/{branch}", "metadata:read", getRules)
	f.Handle("GET", repoPath+"/rulesets", "metadata:read", listRulesets)
	f.Handle("POST", repoPath+"/rulesets", "administration:write", createRuleset)
	f.Handle("GET", repoPath+"/rulesets/{ruleset_id}", "metadata:read", getRuleset)
	f.Handle("PUT", repoPath+"/rulesets/{ruleset_id}", "administration:write", updateRuleset)
	f.Handle("DELETE", repoPath+"/rulesets/{ruleset_id}", "administration:write", deleteRuleset)
	const protection = repoPath + "/branches/{branch}/protection"
	f.Handle("GET", protection, "administration:read", getProtection)
	f.Handle("GET", protection+"/required_status_checks", "administration:read", getStatusChecks)
	f.Handle("PATCH", protection+"/required_status_checks", "administration:write", patchStatusChecks)
	f.Handle("GET", repoPath+"/contents/{path}", "contents:read", getContents)
	f.Handle("GET", repoPath+"/commits/{ref}/check-runs", "checks:read", listCheckRuns)
	f.Handle("GET", repoPath+"/commits/{ref}/statuses", "statuses:read", listStatuses)
	f.HandleUndescribed("GET", repoPath+"/codeowners/errors", "contents:read", codeownersErrors)
}

func (c *Call) url(below string) string {
	return "https://api.github.com/repos/" + c.Repo.Owner + "/" + c.Repo.Name + below
}

func getRepo(c *Call) Reply {
	r, kind := c.Repo, "User"
	if r.Organization {
		kind = "Organization"
	}
	return OK(Object("full-repository", map[string]any{
		"id": r.ID, "name": r.Name, "full_name": r.Owner + "/" + r.Name, "private": r.Private, "default_branch": r.DefaultBranch,
		"owner": map[string]any{"login": r.Owner, "type": kind},
	}))
}

func getBranch(c *Call) Reply {
	name := c.Vars["branch"]
	b := c.Repo.Branches[name]
	if b == nil {
		return Refuse(http.StatusNotFound, "Branch not found")
	}
	commit := Object("commit", map[string]any{"sha": b.Head})
	summary := map[string]any{"enabled": b.Classic != nil, "required_status_checks": map[string]any{"enforcement_level": "off", "contexts": []any{}, "checks": []any{}}}
	if checks, ok := b.Classic["required_status_checks"].(map[string]any); ok {
		summary["required_status_checks"] = map[string]any{"enforcement_level": "non_admins", "contexts": checks["contexts"], "checks": checks["checks"]}
	}
	return OK(Object("branch-with-protection", map[string]any{
		"name": name, "commit": commit, "protected": b.Classic != nil || len(c.Repo.EffectiveRules(name)) > 0, "protection": summary,
		"protection_url": c.url("/branches/" + name + "/protection"),
	}))
}

// unmarshal keeps numbers as they were written.
func unmarshal(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(v)
}

// ruleset is the part of a ruleset that decides what it does.
type ruleset struct {
	ID          int64  `json:"id"`
	Name        string `json:"name"`
	Target      string `json:"target"`
	Enforcement string `json:"enforcement"`
	Conditions  struct {
		RefName struct {
			Include []string `json:"include"`
			Exclude []string `json:"exclude"`
		} `json:"ref_name"`
	} `json:"conditions"`
	Rules  []map[string]any `json:"rules"`
	Bypass []struct {
		Type string `json:"actor_type"`
		ID   int64  `json:"actor_id"`
	} `json:"bypass_actors"`
}

func (s *ruleset) covers(r *Repo, branch string) bool {
	is := func(pattern string) bool {
		if pattern == "~ALL" || pattern == "~DEFAULT_BRANCH" && branch == r.DefaultBranch {
			return true
		}
		ok, err := path.Match(pattern, "refs/heads/"+branch)
		return ok && err == nil
	}
	ref := s.Conditions.RefName
	return slices.ContainsFunc(ref.Include, is) && !slices.ContainsFunc(ref.Exclude, is)
}

// EffectiveRules are the rules that hold for a branch, as the API shows them.
func (r *Repo) EffectiveRules(branch string) []any {
	rules := []any{}
	for _, own := range []bool{true, false} {
		list, kind, source := r.Rulesets, "Repository", r.Owner+"/"+r.Name
		if !own {
			list, kind, source = r.ParentRulesets, "Organization", r.Owner
		}
		for _, raw := range list {
			var s ruleset
			if err := unmarshal(raw, &s); err != nil {
				panic(err)
			}
			if s.Target != "branch" || s.Enforcement != "active" || !s.covers(r, branch) {
				continue
			}
			for _, rule := range s.Rules {
				rule["ruleset_source_type"], rule["ruleset_source"], rule["ruleset_id"] = kind, source, s.ID
				rules = append(rules, rule)
			}
		}
	}
	return rules
}

func getRules(c *Call) Reply { return c.Page(c.Repo.EffectiveRules(c.Vars["branch"]), nil) }

// shown is a ruleset as a token sees it: who may pass it, only those who may
// change it.
func (c *Call) shown(raw json.RawMessage, whole bool) map[string]any {
	m := map[string]any{}
	if err := unmarshal(raw, &m); err != nil {
		panic(err)
	}
	if !c.Token.may("administration:write") {
		delete(m, "bypass_actors")
	}
	if !whole {
		delete(m, "bypass_actors")
		delete(m, "rules")
		delete(m, "conditions")
	}
	return m
}

func listRulesets(c *Call) Reply {
	list := []any{}
	for _, raw := range c.Repo.Rulesets {
		list = append(list, c.shown(raw, false))
	}
	if c.Query.Get("includes_parents") != "false" {
		for _, raw := range c.Repo.ParentRulesets {
			list = append(list, c.shown(raw, false))
		}
	}
	return c.Page(list, nil)
}

func (c *Call) findRuleset() (own int, raw json.RawMessage) {
	for i, raw := range append(slices.Clone(c.Repo.Rulesets), c.Repo.ParentRulesets...) {
		var s ruleset
		if err := unmarshal(raw, &s); err != nil {
			panic(err)
		}
		if strconv.FormatInt(s.ID, 10) != c.Vars["ruleset_id"] {
			continue
		}
		if i >= len(c.Repo.Rulesets) {
			i = -1
		}
		return i, raw
	}
	return -1, nil
}

func getRuleset(c *Call) Reply {
	_, raw := c.findRuleset()
	if raw == nil {
		return NotFound()
	}
	return OK(c.shown(raw, true))
}

func invalid(words string) Reply {
	r := Refuse(http.StatusUnprocessableEntity, "Validation Failed")
	r.Body.(map[string]any)["errors"] = []any{words}
	return r
}

// accept is what the forge makes of a ruleset that was sent: it checks it, and
// fills in defaults.
func (c *Call) accept(m map[string]any, id int64) (json.RawMessage, *Reply) {
	var s ruleset
	raw, err := json.Marshal(m)
	if err == nil {
		err = unmarshal(raw, &s)
	}
	if err != nil {
		r := invalid(err.Error())
		return nil, &r
	}
	for _, b := range s.Bypass {
		if b.Type == "Integration" && b.ID == actionsApp {
			r := invalid("Actor GitHub Actions integration must be part of the ruleset source or owner organization")
			return nil, &r
		}
	}
	for _, other := range c.Repo.Rulesets {
		var o ruleset
		if err := unmarshal(other, &o); err != nil {
			panic(err)
		}
		if o.Name == s.Name && o.ID != id {
			r := invalid("Name must be unique")
			return nil, &r
		}
	}
	for _, rule := range s.Rules {
		defaults := map[string]any{}
		switch rule["type"] {
		case "pull_request":
			defaults = map[string]any{"allowed_merge_methods": []any{"merge", "squash", "rebase"}, "required_reviewers": []any{}}
		case "required_status_checks":
			defaults = map[string]any{"do_not_enforce_on_create": false}
		}
		if parameters, ok := rule["parameters"].(map[string]any); ok {
			for k, v := range defaults {
				if _, ok := parameters[k]; !ok {
					parameters[k] = v
				}
			}
		}
	}
	for k, v := range map[string]any{"target": "branch", "bypass_actors": []any{}, "rules": []any{}} {
		if _, ok := m[k]; !ok {
			m[k] = v
		}
	}
	if s.Rules != nil {
		m["rules"] = s.Rules
	}
	if actors, ok := m["bypass_actors"].([]any); ok {
		for _, a := range actors {
			if a := a.(map[string]any); a["bypass_mode"] == nil {
				a["bypass_mode"] = "always"
			}
		}
	}
	m["id"], m["source_type"], m["source"] = id, "Repository", c.Repo.Owner+"/"+c.Repo.Name
	m["node_id"], m["created_at"], m["updated_at"] = fmt.Sprintf("RRS_%d", id), "2025-03-01T12:00:00Z", "2025-03-01T12:00:00Z"
	m["current_user_can_bypass"] = "never"
	m["_links"] = map[string]any{"self": map[string]any{"href": c.url(fmt.Sprintf("/rulesets/%d", id))}}
	if raw, err = json.Marshal(m); err != nil {
		panic(err)
	}
	return raw, nil
}

func createRuleset(c *Call) Reply {
	m := map[string]any{}
	if err := unmarshal(c.Body, &m); err != nil {
		return invalid(err.Error())
	}
	raw, refusal := c.accept(m, c.Fake.nextID())
	if refusal != nil {
		return *refusal
	}
	c.Repo.Rulesets = append(c.Repo.Rulesets, raw)
	return Reply{Status: http.StatusCreated, Body: raw}
}

// updateRuleset replaces each member that was sent, whole, and drops unknown
// ones that were not: a client that does not send back what it read, loses it.
func updateRuleset(c *Call) Reply {
	i, raw := c.findRuleset()
	if i < 0 {
		return NotFound()
	}
	old, sent := map[string]any{}, map[string]any{}
	if err := unmarshal(raw, &old); err != nil {
		panic(err)
	}
	if err := unmarshal(c.Body, &sent); err != nil {
		return invalid(err.Error())
	}
	for _, k := range []string{"name", "target", "enforcement", "bypass_actors", "conditions", "rules"} {
		if _, ok := sent[k]; !ok {
			sent[k] = old[k]
		}
	}
	id, err := strconv.ParseInt(c.Vars["ruleset_id"], 10, 64)
	if err != nil {
		panic(err)
	}
	raw, refusal := c.accept(sent, id)
	if refusal != nil {
		return *refusal
	}
	c.Repo.Rulesets[i] = raw
	return OK(raw)
}

func deleteRuleset(c *Call) Reply {
	i, _ := c.findRuleset()
	if i < 0 {
		return NotFound()
	}
	c.Repo.Rulesets = slices.Delete(c.Repo.Rulesets, i, i+1)
	return Reply{Status: http.StatusNoContent}
}

// AddRuleset puts a ruleset there as somebody else would have made it, and
// returns its id. Members that the forge adds are added.
func (f *Fake) AddRuleset(r *Repo, document string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, id := map[string]any{}, f.nextID()
	if err := unmarshal([]byte(document), &m); err != nil {
		panic(err)
	}
	raw, refusal := (&Call{Fake: f, Repo: r}).accept(m, id)
	if refusal != nil {
		panic(fmt.Sprint(refusal.Body))
	}
	r.Rulesets = append(r.Rulesets, raw)
	return id
}

// AddParentRuleset puts a ruleset of the repository's organisation there.
func (f *Fake) AddParentRuleset(r *Repo, document string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, id := map[string]any{}, f.nextID()
	if err := unmarshal([]byte(document), &m); err != nil {
		panic(err)
	}
	m["id"], m["source_type"], m["source"] = id, "Organization", r.Owner
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	r.ParentRulesets = append(r.ParentRulesets, raw)
	return id
}

// EditRuleset changes a ruleset by hand, as somebody would in the settings.
func (f *Fake) EditRuleset(r *Repo, name string, edit func(m map[string]any)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, raw := range r.Rulesets {
		m := map[string]any{}
		if err := unmarshal(raw, &m); err != nil {
			panic(err)
		}
		if m["name"] != name {
			continue
		}
		edit(m)
		edited, err := json.Marshal(m)
		if err != nil {
			panic(err)
		}
		r.Rulesets[i] = edited
		return
	}
	panic("no ruleset " + name)
}

// State is all that writes can change, as bytes to compare.
func (f *Fake) State(r *Repo) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	classic := map[string]any{}
	for name, b := range r.Branches {
		classic[name] = b.Classic
	}
	raw, err := json.MarshalIndent(map[string]any{"rulesets": r.Rulesets, "classic": classic}, "", "  ")
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// Protect gives a branch classic protection, as the settings make it: no force
// pushes, no deletions, and these members over that.
func (f *Fake) Protect(r *Repo, branch string, members map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := "https://api.github.com/repos/" + r.Owner + "/" + r.Name + "/branches/" + branch + "/protection"
	classic := map[string]any{
		"url": at, "enforce_admins": map[string]any{"url": at + "/enforce_admins", "enabled": false},
		"allow_force_pushes": map[string]any{"enabled": false}, "allow_deletions": map[string]any{"enabled": false},
	}
	if checks, ok := members["required_status_checks"].(map[string]any); ok {
		checks["url"], checks["contexts_url"] = at+"/required_status_checks", at+"/required_status_checks/contexts"
		contexts := []any{}
		for _, c := range checks["checks"].([]any) {
			contexts = append(contexts, c.(map[string]any)["context"])
		}
		checks["contexts"] = contexts
	}
	r.Branches[branch].Classic = lay(classic, members)
}

func (c *Call) classic() (map[string]any, *Reply) {
	b := c.Repo.Branches[c.Vars["branch"]]
	refusal := Refuse(http.StatusNotFound, "Branch not found")
	if b == nil {
		return nil, &refusal
	}
	if b.Classic == nil {
		refusal = Refuse(http.StatusNotFound, "Branch not protected")
		return nil, &refusal
	}
	return b.Classic, nil
}

func getProtection(c *Call) Reply {
	classic, refusal := c.classic()
	if refusal != nil {
		return *refusal
	}
	return OK(classic)
}

func (c *Call) statusChecks() (map[string]any, *Reply) {
	classic, refusal := c.classic()
	if refusal != nil {
		return nil, refusal
	}
	checks, ok := classic["required_status_checks"].(map[string]any)
	if !ok {
		refusal := Refuse(http.StatusNotFound, "Required status checks not enabled")
		return nil, &refusal
	}
	return checks, nil
}

func getStatusChecks(c *Call) Reply {
	checks, refusal := c.statusChecks()
	if refusal != nil {
		return *refusal
	}
	return OK(checks)
}

// patchStatusChecks replaces the list. A check without app_id is given to the
// App that posted it last: leaving the field out is not the same as any App.
func patchStatusChecks(c *Call) Reply {
	checks, refusal := c.statusChecks()
	if refusal != nil {
		return *refusal
	}
	var sent struct {
		Strict   *bool
		Contexts []string
		Checks   []struct {
			Context string
			AppID   *int64 `json:"app_id"`
		}
	}
	if err := unmarshal(c.Body, &sent); err != nil {
		return invalid(err.Error())
	}
	if sent.Contexts != nil {
		return invalid("this forge takes checks, not contexts")
	}
	if sent.Strict != nil {
		checks["strict"] = *sent.Strict
	}
	if sent.Checks != nil {
		list, contexts := []any{}, []any{}
		for _, check := range sent.Checks {
			var app any
			switch {
			case check.AppID == nil:
				for _, run := range c.Repo.CheckRuns {
					if run.Name == check.Context {
						app = run.App
					}
				}
			case *check.AppID != -1:
				app = *check.AppID
			}
			list, contexts = append(list, map[string]any{"context": check.Context, "app_id": app}), append(contexts, check.Context)
		}
		checks["checks"], checks["contexts"] = list, contexts
	}
	return OK(checks)
}

func getContents(c *Call) Reply {
	ref := c.Query.Get("ref")
	if ref == "" {
		ref = c.Repo.DefaultBranch
	}
	commit := c.Repo.At(ref)
	if commit == nil {
		return Refuse(http.StatusNotFound, "No commit found for the ref "+ref)
	}
	name := c.Vars["path"]
	content, ok := commit.Files[name]
	if !ok {
		return NotFound()
	}
	return OK(Object("content-file", map[string]any{
		"type": "file", "encoding": "base64", "size": len(content), "name": path.Base(name), "path": name,
		"content": base64.StdEncoding.EncodeToString([]byte(content)), "sha": fmt.Sprintf("%040x", len(content)),
	}))
}

// stamp writes a time; one that a test did not care about is noon.
func stamp(t time.Time) string {
	if t.IsZero() {
		t = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	}
	return t.UTC().Format(time.RFC3339)
}

// Body is the run as the API shows it.
func (r CheckRun) Body() map[string]any {
	var conclusion, ended any
	status := r.Status
	if status == "" {
		status = "completed"
	}
	if status == "completed" {
		conclusion, ended = r.Conclusion, stamp(r.Ended)
	}
	return Object("check-run", map[string]any{
		"id": r.ID, "name": r.Name, "head_sha": r.Commit, "status": status, "conclusion": conclusion, "details_url": r.DetailsURL,
		"started_at": stamp(r.StartedAt), "completed_at": ended, "check_suite": map[string]any{"id": r.SuiteID},
		"app":    Object("integration", map[string]any{"id": r.App, "slug": r.AppSlug, "name": r.AppSlug, "owner": Object("simple-user", map[string]any{"login": "github"})}),
		"output": map[string]any{"title": nil, "summary": nil, "text": nil, "annotations_count": 0, "annotations_url": "https://example.org/"},
	})
}

func listCheckRuns(c *Call) Reply {
	commit := c.Repo.At(c.Vars["ref"])
	if commit == nil {
		return Refuse(http.StatusUnprocessableEntity, "No commit found for SHA: "+c.Vars["ref"])
	}
	list := []any{}
	for _, r := range c.Repo.CheckRuns {
		if r.Commit == commit.ID && (c.Query.Get("check_name") == "" || c.Query.Get("check_name") == r.Name) {
			list = append(list, r.Body())
		}
	}
	return c.Page(list, func(part []any) any { return map[string]any{"total_count": len(list), "check_runs": part} })
}

func listStatuses(c *Call) Reply {
	commit := c.Repo.At(c.Vars["ref"])
	if commit == nil {
		return NotFound()
	}
	list := []any{}
	for _, s := range slices.Backward(c.Repo.Statuses) {
		if s.Commit == commit.ID {
			list = append(list, Object("status", map[string]any{
				"id": s.ID, "context": s.Context, "state": s.State, "created_at": stamp(s.At), "updated_at": stamp(s.At),
				"creator": Object("simple-user", map[string]any{"login": s.Creator}),
			}))
		}
	}
	return c.Page(list, nil)
}

func codeownersErrors(c *Call) Reply {
	ref := c.Query.Get("ref")
	if ref == "" {
		ref = c.Repo.DefaultBranch
	}
	commit := c.Repo.At(ref)
	if commit == nil {
		return NotFound()
	}
	for _, name := range []string{".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS"} {
		if _, ok := commit.Files[name]; ok {
			list := []any{}
			for _, e := range c.Repo.CodeownersErrors {
				list = append(list, e)
			}
			return OK(map[string]any{"errors": list})
		}
	}
	return NotFound()
}
