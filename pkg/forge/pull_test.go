package forge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/forge/forgetest"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo/gitservertest"
)

// reading is a forge with a repository of real git, and a token that can read.
func reading(t *testing.T) (*Repository, *forgetest.Pulls, *gitservertest.Server) {
	t.Helper()
	git, fake := gitservertest.New(t), forgetest.New(t)
	r := fake.AddRepo("acme/app")
	r.Private = true
	pulls := fake.AddPulls(r, git.Dir())
	fake.AddToken("ghs_read", forgetest.App, "contents:read", "pull_requests:read", "actions:read", "checks:read", "statuses:read", "members:read")
	return repository(t, fake.URL, "ghs_read"), pulls, git
}

func repository(t testing.TB, url, token string) *Repository {
	t.Helper()
	api, err := NewREST(url, token, RESTOptions{Sleep: func(context.Context, time.Duration) error { return nil }})
	assert.NilError(t, err)
	r, err := api.Repository("acme/app")
	assert.NilError(t, err)
	assert.Equal(t, r.Name(), "acme/app")
	return r
}

// fill commits one file of each kind that git knows, on main.
func fill(t *testing.T, git *gitservertest.Server) gitrepo.Hash {
	t.Helper()
	stream := `commit refs/heads/main
committer A <a@example.org> 1740830400 +0000
data 1
x
M 100644 inline a
data 2
a

M 100755 inline a.b/run
data 4
run

M 100644 inline a/../x
data 0
`
	stream = strings.ReplaceAll(stream, "a/../x", "deep/er/still/näme")
	stream += "M 100644 inline a.c\ndata 0\nM 120000 inline link\ndata 4\ndeep\nM 160000 0123456789012345678901234567890123456789 sub\nM 100644 inline deep/er.x\ndata 1\ny\n"
	cmd := exec.CommandContext(t.Context(), "git", "fast-import", "--quiet")
	cmd.Dir, cmd.Env, cmd.Stdin = git.Dir(), git.Env(), strings.NewReader(stream)
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	h, err := gitrepo.ParseHash(git.Git("rev-parse", "main"))
	assert.NilError(t, err)
	return h
}

func TestATreeIsTheOneThatGitHas(t *testing.T) {
	repo, pulls, git := reading(t)
	commit, err := repo.Commit(t.Context(), fill(t, git))
	assert.NilError(t, err)
	assert.Equal(t, len(commit.Parents), 0)
	for _, cut := range []string{"", "recursive"} {
		pulls.Cut = cut
		tree, err := repo.Tree(t.Context(), commit.Tree)
		assert.NilError(t, err)
		var got []string
		assert.NilError(t, tree.Walk("", func(p string, m fs.FileMode, id string) error {
			got = append(got, fmt.Sprintf("%s %s %s", m, id, p))
			assert.Assert(t, strings.HasSuffix(tree.ID(p), id))
			return nil
		}))
		var want []string
		for _, line := range strings.Split(git.Git("-c", "core.quotePath=false", "ls-tree", "-r", "main"), "\n") {
			f := strings.Fields(line)
			mode := map[string]fs.FileMode{"100644": 0o644, "100755": 0o755, "120000": fs.ModeSymlink, "160000": fs.ModeIrregular}[f[0]]
			want = append(want, fmt.Sprintf("%s %s %s", mode, f[2], f[3]))
		}
		assert.DeepEqual(t, got, want)
		below := func(folder string) string {
			var all []string
			assert.NilError(t, tree.Walk(folder, func(p string, _ fs.FileMode, _ string) error { all = append(all, p); return nil }))
			return strings.Join(all, " ")
		}
		assert.Equal(t, below("deep/er"), "deep/er/still/näme")
		assert.Equal(t, below("a"), "a")
		assert.Equal(t, below("a.b"), "a.b/run")
		assert.Equal(t, below("none"), "")
		data, err := tree.Blob("a.b/run")
		assert.NilError(t, err)
		assert.Equal(t, string(data), "run\n")
		_, err = tree.Blob("gone")
		assert.ErrorIs(t, err, fs.ErrNotExist)
		assert.Equal(t, tree.ID("gone"), "")
		for _, p := range []string{"link", "sub"} {
			_, err = tree.Blob(p)
			assert.ErrorContains(t, err, "want a regular file")
		}
	}
	empty, err := repo.Tree(t.Context(), gitrepo.EmptyTree)
	assert.NilError(t, err)
	assert.NilError(t, empty.Walk("", func(string, fs.FileMode, string) error { return errors.New("not empty") }))
}

func TestAnAnswerThatIsNotWholeIsNoTree(t *testing.T) {
	repo, pulls, git := reading(t)
	commit, err := repo.Commit(t.Context(), fill(t, git))
	assert.NilError(t, err)
	for cut, want := range map[string]string{"all": "cuts the listing", "silent": "it is not whole"} {
		pulls.Cut = cut
		_, err = repo.Tree(t.Context(), commit.Tree)
		assert.ErrorContains(t, err, want)
	}
	pulls.Cut = ""
	tree, err := repo.Tree(t.Context(), commit.Tree)
	assert.NilError(t, err)
	pulls.Lie["a\n"] = "b\n"
	_, err = tree.Blob("a")
	assert.ErrorContains(t, err, "the content hashes to")
	delete(pulls.Lie, "a\n")
	_, err = tree.Blob("a") // what was wrong once is not kept
	assert.NilError(t, err)
	pulls.Lie["run\n"] = strings.Repeat("x", maxBlob+1)
	_, err = tree.Blob("a.b/run")
	assert.ErrorContains(t, err, "want at most")
	_, err = repo.Tree(t.Context(), gitrepo.Hash{1})
	assert.Assert(t, IsNotFound(err), "%v", err)
}

func TestPullRequestsAndWhatWasPosted(t *testing.T) {
	repo, pulls, git := reading(t)
	main := fill(t, git)
	git.Git("branch", "feature/x", git.Git("-c", "user.name=A", "-c", "user.email=a@example.org", "commit-tree", "-m", "empty", "-p", "main", "main^{tree}"))
	head, err := gitrepo.ParseHash(git.Git("rev-parse", "feature/x"))
	assert.NilError(t, err)
	ctx := t.Context()
	pulls.Open = []*forgetest.Pull{{Number: 7, Author: "Alice", Head: "feature/x", Base: "main"}}
	p, err := repo.Pull(ctx, 7)
	assert.NilError(t, err)
	assert.Assert(t, p.Mergeable != nil && *p.Mergeable && !p.Merge.IsZero())
	p.Mergeable, p.Merge = nil, gitrepo.Hash{}
	assert.DeepEqual(t, p, Pull{Number: 7, Open: true, Author: User{forgetest.UserID("alice"), "Alice"}, Head: head, BaseRef: "main"})
	at, err := repo.Branch(ctx, "feature/x")
	assert.NilError(t, err)
	assert.Equal(t, at, head)
	list, err := repo.PullsOf(ctx, head)
	assert.NilError(t, err)
	assert.Equal(t, len(list), 1)
	assert.Assert(t, list[0].Mergeable == nil)

	pulls.Open[0].MergedAt, pulls.Open[0].MergedCommit, pulls.Open[0].MergedBy = time.Unix(1740830400, 0).UTC(), "main", "Boss"
	p, err = repo.Pull(ctx, 7)
	assert.NilError(t, err)
	assert.Assert(t, !p.Open && p.MergedAt.Equal(time.Unix(1740830400, 0)) && p.Merge == main && p.MergedBy.Login == "Boss")

	// More than a page, oldest first, and a deleted account.
	for range 150 {
		pulls.Reviews = append(pulls.Reviews, forgetest.Review{Pull: 7, Login: "Olga", State: "COMMENTED", Commit: "main"})
	}
	pulls.Reviews = append(pulls.Reviews, forgetest.Review{Pull: 7, State: "APPROVED"})
	reviews, err := repo.Reviews(ctx, 7)
	assert.NilError(t, err)
	assert.Equal(t, len(reviews), 151)
	assert.Equal(t, reviews[0].ID, int64(1))
	assert.DeepEqual(t, reviews[150].User, User{})
	assert.Assert(t, reviews[150].Commit.IsZero() && reviews[0].Commit == main)

	run := pulls.Post(".github/workflows/x.yml", "push", "main", "job=success", "other=")
	alone := pulls.PostCheck("job", "failure", "main", run.Suite, 9, time.Time{})
	checks, err := repo.CheckRuns(ctx, main)
	assert.NilError(t, err)
	assert.Equal(t, len(checks), 3)
	assert.DeepEqual(t, checks[2], CheckRun{ID: alone, Name: "job", Done: true, Conclusion: "failure", App: 9, Suite: run.Suite, Completed: time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)})
	assert.Assert(t, !checks[1].Done && checks[1].Conclusion == "")
	runs, err := repo.Runs(ctx, main)
	assert.NilError(t, err)
	assert.DeepEqual(t, runs, []Run{{ID: run.ID, Suite: run.Suite, Path: run.Path, Event: "push"}})
	one, ok, err := repo.RunOfSuite(ctx, run.Suite)
	assert.NilError(t, err)
	assert.Assert(t, ok && one == runs[0])
	_, ok, err = repo.RunOfSuite(ctx, 1)
	assert.NilError(t, err)
	assert.Assert(t, !ok)
	jobs, err := repo.Jobs(ctx, run.ID)
	assert.NilError(t, err)
	assert.DeepEqual(t, jobs, map[int64]bool{run.Jobs[0]: true, run.Jobs[1]: true})
	pulls.PostStatus("job", "success", "main")
	statuses, err := repo.Statuses(ctx, main)
	assert.NilError(t, err)
	assert.Assert(t, len(statuses) == 1 && statuses[0].Context == "job" && statuses[0].State == "success")
}

func TestWhoMayWriteAndWhoIsInATeam(t *testing.T) {
	repo, pulls, _ := reading(t)
	ctx := t.Context()
	pulls.Access = map[string]string{"a": "admin", "w": "write", "r": "read", "o": "owner"}
	for login, want := range map[string]bool{"a": true, "w": true, "r": false, "nobody": false} {
		may, err := repo.MayWrite(ctx, login)
		assert.NilError(t, err)
		assert.Equal(t, may, want, login)
	}
	_, err := repo.MayWrite(ctx, "o")
	assert.ErrorContains(t, err, `found permission "owner"`)
	pulls.Teams["acme/sec"] = []string{"w"}
	for login, want := range map[string]bool{"w": true, "a": false} {
		in, err := repo.InTeam(ctx, "acme", "sec", login)
		assert.NilError(t, err)
		assert.Equal(t, in, want, login)
	}
	_, err = repo.InTeam(ctx, "acme", "none", "w")
	assert.ErrorContains(t, err, "a token that may read the organisation's members is needed")
}

func TestNamesOfRepositories(t *testing.T) {
	api, err := NewREST("", "", RESTOptions{})
	assert.NilError(t, err)
	for _, name := range []string{"", "a", "a/", "/b", "a/b/c"} {
		_, err := api.Repository(name)
		assert.ErrorContains(t, err, "want owner/name")
	}
}

// Whatever the forge answers: an object that lacks what is asked for is an error.
func TestAnswersThatLackSomethingAreErrors(t *testing.T) {
	var body string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(body))
	}))
	defer srv.Close()
	repo := repository(t, srv.URL, "")
	ctx, h := t.Context(), gitrepo.Hash{1}
	for _, c := range []struct {
		name   string
		bodies []string
		ask    func() error
	}{
		{"pull", []string{`{}`, `{"number":8,"state":"open","head":{"sha":"0100000000000000000000000000000000000000"},"base":{"ref":"main"}}`, `{"number":7,"state":"odd"}`, `{"head":{"sha":"HEAD"}}`}, func() error { _, err := repo.Pull(ctx, 7); return err }},
		{"pulls", []string{`{}`, `[{}]`, `null`}, func() error { _, err := repo.PullsOf(ctx, h); return err }},
		{"reviews", []string{`[{}]`, `[{"id":1}]`, `[{"id":1,"state":"APPROVED","commit_id":"x"}]`}, func() error { _, err := repo.Reviews(ctx, 7); return err }},
		{"permission", []string{`{}`}, func() error { _, err := repo.MayWrite(ctx, "a"); return err }},
		{"team", []string{`{}`}, func() error { _, err := repo.InTeam(ctx, "a", "b", "c"); return err }},
		{"branch", []string{`{}`, `{"commit":{}}`}, func() error { _, err := repo.Branch(ctx, "main"); return err }},
		{"check runs", []string{`{}`, `[]`, `{"check_runs":[{}]}`, `{"check_runs":[{"id":1,"name":"a","status":"completed"}]}`}, func() error { _, err := repo.CheckRuns(ctx, h); return err }},
		{"statuses", []string{`[{}]`, `[{"id":1,"context":"a"}]`}, func() error { _, err := repo.Statuses(ctx, h); return err }},
		{"runs", []string{`{"workflow_runs":[{}]}`, `{"workflow_runs":[{"id":1,"path":"a","event":"push","status":"completed"}]}`}, func() error { _, err := repo.Runs(ctx, h); return err }},
		{"suite", []string{`{"workflow_runs":[{}]}`}, func() error { _, _, err := repo.RunOfSuite(ctx, 1); return err }},
		{"jobs", []string{`{"jobs":[{}]}`, `{"jobs":[{"check_run_url":"https://example.org/x"}]}`}, func() error { _, err := repo.Jobs(ctx, 1); return err }},
		{"commit", []string{`{}`, `{"sha":"0100000000000000000000000000000000000000"}`, `{"sha":"0200000000000000000000000000000000000000","tree":{"sha":"0200000000000000000000000000000000000000"}}`}, func() error { _, err := repo.Commit(ctx, h); return err }},
		{"tree", []string{`{}`, `{"sha":"0100000000000000000000000000000000000000"}`}, func() error { _, err := repo.Tree(ctx, h); return err }},
	} {
		for _, body = range c.bodies {
			assert.Assert(t, c.ask() != nil, "%s: %s", c.name, body)
		}
	}
}

// Law: a listing that is accepted holds only paths that git would check out, and
// hashes to the name that was asked for, whatever the order of its entries.
func FuzzListing(f *testing.F) {
	one := hashObject("blob", []byte("x"))
	for _, entries := range []map[string]treeEntry{
		{}, {"a": {"100644", one}}, {"a": {"100644", one}, "a.b": {"100755", one}},
	} {
		var list []map[string]any
		for p, e := range entries {
			list = append(list, map[string]any{"path": p, "mode": e.mode, "sha": e.hash})
		}
		body, err := json.Marshal(map[string]any{"sha": hashTree(entries), "tree": list})
		assert.NilError(f, err)
		f.Add(hashTree(entries).String(), body, false)
	}
	f.Add(one.String(), []byte(`{"sha":"`+one.String()+`","truncated":true,"tree":[{"path":"../a","mode":"100644","sha":"`+one.String()+`"}]}`), true)
	f.Fuzz(func(t *testing.T, name string, body []byte, deep bool) {
		tree, err := gitrepo.ParseHash(name)
		if err != nil {
			return
		}
		found, _, err := parseListing(tree, body)
		if err != nil || verify(tree, found, deep) != nil {
			return
		}
		top := map[string]treeEntry{}
		for p, e := range found {
			assert.Assert(t, goodPath(p), p)
			if !strings.Contains(p, "/") {
				top[p] = e
			}
		}
		assert.Equal(t, hashTree(top), tree)
		delete(found, "a")
		if _, had := top["a"]; had {
			assert.Assert(t, verify(tree, found, deep) != nil, "an entry less is not the same tree")
		}
	})
}
