package forgetest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Pulls is what a repository holds of pull requests, over a bare repository of
// real git: its objects, branches and test merges are git's own. What may be
// changed between requests is exported.
type Pulls struct {
	Dir string // the bare repository

	Open    []*Pull
	Reviews []Review
	// Access is the permission of a login: admin, write, read; none when absent.
	Access map[string]string
	// Teams are the members of teams, as "acme/gatekeepers". A team that is not
	// here cannot be seen.
	Teams map[string][]string

	// Cut makes the forge cut listings short: "recursive" only those of whole
	// trees, "all" also those of one folder, "silent" without saying so.
	Cut string
	// Lie replaces the content of the file with this content.
	Lie map[string]string

	fake *Fake
	repo *Repo
	runs []*Run
	once map[string]string // what git said of objects, which never change
}

// Pull is a pull request.
type Pull struct {
	Number       int64
	Author       string
	Head, Base   string // branches; Head may be any revision
	Closed       bool
	Merge        string // the revision that is shown as merge result; "" is git's own
	NotYet       int    // so many answers do not know the merge result
	MergedAt     time.Time
	MergedBy     string
	MergedCommit string // what merging made
}

// Review is a review of the pull request of this number.
type Review struct {
	Pull                 int64
	Login, State, Commit string // Commit is any revision; "" for none
}

// Run is a run of a workflow, Jobs the ids of its check runs.
type Run struct {
	ID, Suite         int64
	Path, Event       string
	Commit            string
	Status            string // completed, in_progress, queued
	Conclusion        string
	Jobs              []int64
	Unlisted, NoSuite bool // it is missing where runs are listed by commit, or by suite
}

// AddPulls serves pull requests of a repository whose git directory this is.
func (f *Fake) AddPulls(r *Repo, dir string) *Pulls {
	p := &Pulls{Dir: dir, Access: map[string]string{}, Teams: map[string][]string{}, Lie: map[string]string{}, fake: f, repo: r, once: map[string]string{}}
	of := func(serve func(*Call) Reply) func(*Call) Reply {
		return func(c *Call) Reply {
			if c.Repo != nil && c.Repo != r {
				return NotFound()
			}
			return serve(c)
		}
	}
	get := func(below, needs string, serve func(*Call) Reply) {
		if operation("GET", repoPath+below) == nil {
			f.HandleUndescribed("GET", repoPath+below, needs, of(serve))
		} else {
			f.Handle("GET", repoPath+below, needs, of(serve))
		}
	}
	get("/branches/{branch}", "contents:read", p.getBranch)
	get("/commits/{ref}/check-runs", "checks:read", p.known(listCheckRuns))
	get("/commits/{ref}/statuses", "statuses:read", p.known(listStatuses))
	get("/commits/{ref}/pulls", "pull_requests:read", p.listPullsOf)
	get("/pulls/{pull_number}", "pull_requests:read", p.getPull)
	get("/pulls/{pull_number}/reviews", "pull_requests:read", p.listReviews)
	get("/collaborators/{username}/permission", "metadata:read", p.getPermission)
	get("/git/commits/{commit_sha}", "contents:read", p.getCommit)
	get("/git/trees/{tree_sha}", "contents:read", p.getTree)
	get("/git/blobs/{file_sha}", "contents:read", p.getBlob)
	get("/actions/runs", "actions:read", p.listRuns)
	get("/actions/runs/{run_id}/jobs", "actions:read", p.listJobs)
	f.HandleUndescribed("GET", "/orgs/{org}/teams/{team}", "members:read", p.getTeam)
	f.HandleUndescribed("GET", "/orgs/{org}/teams/{team}/memberships/{username}", "members:read", p.getMembership)
	return p
}

// Change changes the state while no request is served.
func (p *Pulls) Change(change func()) {
	p.fake.mu.Lock()
	defer p.fake.mu.Unlock()
	change()
}

// Post posts a finished run of a workflow at a revision, with jobs and their
// conclusions as "name=conclusion"; "name=" is a job that has not ended, and
// then the run has not either.
func (p *Pulls) Post(path, event, rev string, jobs ...string) *Run {
	p.fake.mu.Lock()
	defer p.fake.mu.Unlock()
	r := &Run{
		ID: p.fake.nextID(), Suite: p.fake.nextID(), Path: path, Event: event, Commit: p.rev(rev),
		Status: "completed", Conclusion: "success",
	}
	for _, job := range jobs {
		name, conclusion, _ := strings.Cut(job, "=")
		if conclusion == "" {
			r.Status, r.Conclusion = "in_progress", ""
		} else if conclusion != "success" && r.Status == "completed" {
			r.Conclusion = "failure"
		}
		r.Jobs = append(r.Jobs, p.check(name, conclusion, r.Commit, r.Suite, actionsApp, time.Time{}))
	}
	p.runs = append(p.runs, r)
	return r
}

// PostCheck posts a check run through the API, as an App may, into a suite.
func (p *Pulls) PostCheck(name, conclusion, rev string, suite, app int64, at time.Time) int64 {
	p.fake.mu.Lock()
	defer p.fake.mu.Unlock()
	return p.check(name, conclusion, p.rev(rev), suite, app, at)
}

func (p *Pulls) check(name, conclusion, commit string, suite, app int64, at time.Time) int64 {
	if at.IsZero() {
		at = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	}
	c := CheckRun{ID: p.fake.nextID(), SuiteID: suite, Commit: commit, Name: name, App: app, AppSlug: "app", Conclusion: conclusion, StartedAt: at, Ended: at}
	if conclusion == "" {
		c.Status, c.Ended = "in_progress", time.Time{}
	}
	p.repo.CheckRuns = append(p.repo.CheckRuns, c)
	return c.ID
}

// PostStatus posts a status, as anybody may who may push.
func (p *Pulls) PostStatus(name, state, rev string) {
	p.fake.mu.Lock()
	defer p.fake.mu.Unlock()
	p.repo.Statuses = append(p.repo.Statuses, Status{
		ID: p.fake.nextID(), Commit: p.rev(rev), Context: name, State: state, Creator: "somebody", At: time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC),
	})
}

// git runs git in the bare repository.
func (p *Pulls) git(args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-C", p.Dir}, args...)...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "GIT_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		cmd.Env = append(cmd.Env, "GIT_"+who+"_NAME=GitHub", "GIT_"+who+"_EMAIL=noreply@github.com", "GIT_"+who+"_DATE=2025-03-01T12:00:00Z")
	}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if err != nil && !isExit(err) {
		panic(fmt.Sprintf("git %s: %v\n%s", strings.Join(args, " "), err, said.String()))
	}
	return out.String(), err
}

func isExit(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit)
}

var fullID = regexp.MustCompile(`^[0-9a-f]{40}$`)

// object is git for questions whose answer never changes; "" is a failure.
func (p *Pulls) object(args ...string) string {
	key := strings.Join(args, " ")
	out, ok := p.once[key]
	if !ok {
		var err error
		if out, err = p.git(args...); err != nil {
			return ""
		}
		p.once[key] = out
	}
	return out
}

// rev resolves a revision to a commit, "" when there is none.
func (p *Pulls) rev(name string) string {
	if fullID.MatchString(name) {
		return strings.TrimSpace(p.object("rev-parse", "--verify", "--quiet", name+"^{commit}"))
	}
	out, err := p.git("rev-parse", "--verify", "--quiet", name+"^{commit}")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(out)
}

// known serves a commit that only git knows.
func (p *Pulls) known(serve func(*Call) Reply) func(*Call) Reply {
	return func(c *Call) Reply {
		if id := p.rev(c.Vars["ref"]); id != "" && c.Repo.Commits[id] == nil {
			c.Repo.Commits[id] = &Commit{ID: id}
		}
		return serve(c)
	}
}

func (p *Pulls) getBranch(c *Call) Reply {
	id := p.rev("refs/heads/" + c.Vars["branch"])
	if id == "" {
		return Refuse(http.StatusNotFound, "Branch not found")
	}
	c.Repo.Commits[id] = &Commit{ID: id}
	c.Repo.Branches[c.Vars["branch"]] = &Branch{Head: id}
	return getBranch(c)
}

// UserID is the id of a login's account.
func UserID(login string) int64 {
	h := fnv.New32()
	_, _ = h.Write([]byte(strings.ToLower(login)))
	return int64(h.Sum32()) + 1
}

func user(login string) any {
	if login == "" {
		return nil
	}
	return Object("simple-user", map[string]any{"login": login, "id": UserID(login)})
}

// merge returns git's own test merge, "" for a conflict.
func (p *Pulls) merge(base, head string) string {
	tree, _, ok := strings.Cut(p.object("-c", "merge.directoryRenames=true", "merge-tree", "--write-tree", base, head), "\n")
	if !ok {
		return ""
	}
	return strings.TrimSpace(p.object("commit-tree", tree, "-p", base, "-p", head, "-m", "Merge "+head+" into "+base))
}

func (p *Pulls) body(schema string, pull *Pull) map[string]any {
	state, base, head := "open", p.rev("refs/heads/"+pull.Base), p.rev(pull.Head)
	var merge, mergedAt any
	var mergeable any
	switch {
	case !pull.MergedAt.IsZero():
		state, merge, mergedAt = "closed", p.rev(pull.MergedCommit), stamp(pull.MergedAt)
	case pull.NotYet > 0:
		pull.NotYet--
	case pull.Merge != "":
		merge, mergeable = p.rev(pull.Merge), true
	default:
		made := p.merge(base, head)
		merge, mergeable = made, made != ""
		if made == "" {
			merge = nil
		}
	}
	if pull.Closed {
		state = "closed"
	}
	repo := Object("repository", map[string]any{"full_name": p.repo.Owner + "/" + p.repo.Name})
	fields := map[string]any{
		"number": pull.Number, "state": state, "user": user(pull.Author), "merge_commit_sha": merge, "merged_at": mergedAt, "merged": mergedAt != nil,
		"head": map[string]any{"sha": head, "ref": pull.Head, "repo": repo, "user": user(pull.Author)},
		"base": map[string]any{"sha": base, "ref": pull.Base, "repo": repo, "user": user(p.repo.Owner)},
	}
	if schema == "pull-request" {
		fields["mergeable"], fields["merged_by"] = mergeable, user(pull.MergedBy)
	}
	return Object(schema, fields)
}

func (p *Pulls) find(c *Call) *Pull {
	for _, pull := range p.Open {
		if strconv.FormatInt(pull.Number, 10) == c.Vars["pull_number"] {
			return pull
		}
	}
	return nil
}

func (p *Pulls) getPull(c *Call) Reply {
	pull := p.find(c)
	if pull == nil {
		return NotFound()
	}
	return OK(p.body("pull-request", pull))
}

// listPullsOf lists those that hold the commit: in the branch that was merged,
// or as what merging made.
func (p *Pulls) listPullsOf(c *Call) Reply {
	at := p.rev(c.Vars["ref"])
	if at == "" {
		return Refuse(http.StatusUnprocessableEntity, "No commit found for SHA: "+c.Vars["ref"])
	}
	all := []any{}
	for _, pull := range p.Open {
		merged := pull.MergedCommit != ""
		if merged && at == p.rev(pull.MergedCommit) || !merged && strings.Contains(p.object("rev-list", p.rev(pull.Head), "^"+p.rev("refs/heads/"+pull.Base)), at) {
			all = append(all, p.body("pull-request-simple", pull))
		}
	}
	return c.Page(all, nil)
}

func (p *Pulls) listReviews(c *Call) Reply {
	all := []any{}
	for i, r := range p.Reviews {
		if strconv.FormatInt(r.Pull, 10) != c.Vars["pull_number"] {
			continue
		}
		var commit any
		if r.Commit != "" {
			commit = p.rev(r.Commit)
		}
		all = append(all, map[string]any{
			"id": i + 1, "user": user(r.Login), "state": r.State, "commit_id": commit, "author_association": "MEMBER",
			"submitted_at": stamp(time.Date(2025, 3, 1, 12, 0, i, 0, time.UTC)), "body": "",
		})
	}
	return c.Page(all, nil)
}

func (p *Pulls) getPermission(c *Call) Reply {
	level := p.Access[c.Vars["username"]]
	if level == "" {
		level = "none"
	}
	return OK(map[string]any{"permission": level, "role_name": level, "user": user(c.Vars["username"])})
}

func (p *Pulls) getTeam(c *Call) Reply {
	if _, ok := p.Teams[c.Vars["org"]+"/"+c.Vars["team"]]; !ok || !c.Token.may("members:read") {
		return NotFound()
	}
	return OK(map[string]any{"id": 7, "slug": c.Vars["team"]})
}

func (p *Pulls) getMembership(c *Call) Reply {
	if !slices.Contains(p.Teams[c.Vars["org"]+"/"+c.Vars["team"]], c.Vars["username"]) {
		return NotFound()
	}
	return OK(map[string]any{"state": "active", "role": "member"})
}

func (p *Pulls) getCommit(c *Call) Reply {
	id := c.Vars["commit_sha"]
	if p.rev(id) != id {
		return NotFound()
	}
	hashes := strings.Fields(p.object("log", "-1", "--format=%T %P", id))
	parents := []any{}
	for _, h := range hashes[1:] {
		parents = append(parents, map[string]any{"sha": h, "url": "https://example.org/", "html_url": "https://example.org/"})
	}
	return OK(Object("git-commit", map[string]any{"sha": id, "tree": map[string]any{"sha": hashes[0]}, "parents": parents}))
}

func (p *Pulls) getTree(c *Call) Reply {
	id, recursive := c.Vars["tree_sha"], c.Query.Has("recursive")
	args := []string{"ls-tree", "-z", id}
	if recursive {
		args = []string{"ls-tree", "-z", "-r", "-t", id}
	}
	out := p.object(args...)
	if out == "" {
		return NotFound()
	}
	entries := []any{}
	for line := range strings.SplitSeq(strings.TrimSuffix(out, "\x00"), "\x00") {
		meta, name, ok := strings.Cut(line, "\t")
		if f := strings.Fields(meta); ok {
			entries = append(entries, map[string]any{"path": name, "mode": f[0], "type": f[1], "sha": f[2]})
		}
	}
	cut := p.Cut != "" && (recursive || p.Cut == "all")
	if cut {
		entries = entries[:len(entries)/2]
	}
	return OK(map[string]any{"sha": id, "url": "https://example.org/", "truncated": cut && p.Cut != "silent", "tree": entries})
}

func (p *Pulls) getBlob(c *Call) Reply {
	out, err := p.git("cat-file", "blob", c.Vars["file_sha"])
	if err != nil {
		return NotFound()
	}
	if lie, ok := p.Lie[out]; ok {
		out = lie
	}
	// The forge breaks its base64 into lines.
	var lines strings.Builder
	for part := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString([]byte(out))), 60) {
		lines.Write(part)
		lines.WriteByte('\n')
	}
	return OK(Object("blob", map[string]any{"sha": c.Vars["file_sha"], "size": len(out), "encoding": "base64", "content": lines.String()}))
}

func (p *Pulls) listRuns(c *Call) Reply {
	all := []any{}
	for _, r := range p.runs {
		if at := c.Query.Get("head_sha"); at != "" && (r.Commit != at || r.Unlisted) {
			continue
		}
		if suite := c.Query.Get("check_suite_id"); suite != "" && (suite != strconv.FormatInt(r.Suite, 10) || r.NoSuite) {
			continue
		}
		var conclusion any
		if r.Conclusion != "" {
			conclusion = r.Conclusion
		}
		all = append(all, Object("workflow-run", map[string]any{
			"id": r.ID, "check_suite_id": r.Suite, "path": r.Path, "event": r.Event, "head_sha": r.Commit, "head_branch": "x",
			"status": r.Status, "conclusion": conclusion, "run_number": 1, "run_attempt": 1,
		}))
	}
	return c.Page(all, func(part []any) any { return map[string]any{"total_count": len(all), "workflow_runs": part} })
}

func (p *Pulls) listJobs(c *Call) Reply {
	all := []any{}
	for _, r := range p.runs {
		if strconv.FormatInt(r.ID, 10) != c.Vars["run_id"] {
			continue
		}
		for _, id := range r.Jobs {
			all = append(all, Object("job", map[string]any{
				"id": id, "run_id": r.ID, "check_run_url": fmt.Sprintf("https://api.github.com/repos/%s/%s/check-runs/%d", p.repo.Owner, p.repo.Name, id),
			}))
		}
	}
	return c.Page(all, func(part []any) any { return map[string]any{"total_count": len(all), "jobs": part} })
}
